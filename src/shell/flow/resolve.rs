//! Sends to hosts by name: the system's resolver is asked, and the message goes to the first address
//! of the listener's family, or to the flow's other end when there is none (a proxy in a route set
//! that only its own network can resolve is reached where it came from).

use super::Flows;
use crate::ground::Flow;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Lookups that may wait for their turn.
pub(super) const LOOKUPS_WAITING_MAX: usize = 256;
/// Lookups that are asked at once.
const LOOKUPS_RUNNING_MAX: usize = 16;
/// A name that is not resolved by then is not waited for: the request's own timer runs.
const LOOKUP: Duration = Duration::from_secs(3);

/// A message that waits for an address.
pub(super) struct Lookup {
    pub flow: Flow,
    pub host: String,
    pub port: u16,
    pub bytes: Bytes,
}

/// Resolves and sends until told to stop.
pub(super) async fn run(
    flows: Flows,
    mut queue: mpsc::Receiver<Lookup>,
    mut stop: watch::Receiver<bool>,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            lookup = queue.recv(), if running.len() < LOOKUPS_RUNNING_MAX => match lookup {
                Some(lookup) => drop(running.spawn(resolve(flows.clone(), lookup))),
                None => break,
            },
            Some(_) = running.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    running.shutdown().await;
}

async fn resolve(flows: Flows, lookup: Lookup) {
    let Lookup { flow, host, port, bytes } = lookup;
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host.as_str(), port))).await;
    let address = match found {
        Ok(Ok(mut addresses)) => {
            addresses.find(|address| address.is_ipv4() == flow.local.is_ipv4())
        }
        Ok(Err(_)) | Err(_) => None,
    };
    flows.send_packet(flow.id, address.unwrap_or(flow.peer), &bytes);
}
