//! TCP listeners, for TCP and TLS. A source is admitted and counted before anything is read from it;
//! a TLS ClientHello on a TCP port is served as TLS when there is a certificate, since phones are
//! often set up so.

use super::stream::{self, Place};
use super::{Flows, canonical, tls};
use crate::ground::{Flow, Transport, limits};
use crate::shell::clock::Clock;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How long to wait when the kernel has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until told to stop, then waits for its connections.
pub(super) async fn accept(
    flows: Flows,
    transport: Transport,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if let Some(place) = admit(&flows, transport, canonical(peer)) {
                        connections.spawn(serve(flows.clone(), transport, socket, place, stop.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a SIP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A place for a connection of this source; without one it is closed at once.
fn admit(flows: &Flows, transport: Transport, peer: SocketAddr) -> Option<Place> {
    if !flows.admits(peer.ip()) {
        flows.0.unlisted.note(peer.ip(), transport);
        return None;
    }
    let place = Place::take(flows, peer);
    if place.is_none() {
        flows.0.counters.refused.add();
    }
    place
}

async fn serve(
    flows: Flows,
    transport: Transport,
    socket: TcpStream,
    place: Place,
    stop: watch::Receiver<bool>,
) {
    let started = Instant::now();
    let Ok(local) = socket.local_addr().map(canonical) else { return };
    // Without Nagle: each message is one write.
    let _ = socket.set_nodelay(true);
    let flow = Flow { id: flows.new_flow_id(), transport, local, peer: place.peer() };
    let Some(speaks_tls) = speaks_tls(&flows, transport, &socket, stop.clone()).await else {
        return;
    };
    match (&flows.0.settings.tls, speaks_tls) {
        (Some(_), true) if !flows.0.handshake_pace.take(Clock::instant(), flow.peer.ip()) => {
            flows.0.counters.too_fast.add();
        }
        (Some(source), true) => {
            match tls::accept(source, socket, flows.0.settings.patience.handshake).await {
                Some(socket) => {
                    let flow = Flow { transport: Transport::Tls, ..flow };
                    stream::run(&flows, flow, socket, started, stop).await;
                }
                None => flows.0.counters.handshakes_failed.add(),
            }
        }
        (None, true) => flows.0.counters.handshakes_failed.add(),
        (_, false) => stream::run(&flows, flow, socket, started, stop).await,
    }
}

/// Whether the connection begins with a TLS handshake; `None` when nothing came in time.
async fn speaks_tls(
    flows: &Flows,
    transport: Transport,
    socket: &TcpStream,
    mut stop: watch::Receiver<bool>,
) -> Option<bool> {
    if transport == Transport::Tls {
        return Some(true);
    }
    if flows.0.settings.tls.is_none() {
        return Some(false);
    }
    let mut first = [0];
    let peeked = tokio::select! {
        peeked = timeout(flows.0.settings.patience.message, socket.peek(&mut first)) => peeked,
        _ = stop.changed() => return None,
    };
    match peeked {
        Ok(Ok(1)) => Some(first == [tls::HANDSHAKE_RECORD]),
        Ok(Ok(_) | Err(_)) => None,
        Err(_) => {
            flows.0.counters.overdue.add();
            None
        }
    }
}

impl Place {
    /// Takes a place when the source and the process have one left (security S5).
    fn take(flows: &Flows, peer: SocketAddr) -> Option<Place> {
        let mut connections = flows.connections();
        let of_source = connections.by_source.get(&peer.ip()).copied().unwrap_or(0);
        if connections.all >= limits::CONNECTIONS_MAX
            || of_source >= limits::CONNECTIONS_PER_SOURCE_MAX
        {
            return None;
        }
        connections.all += 1;
        connections.by_source.insert(peer.ip(), of_source + 1);
        drop(connections);
        Some(Place::new(flows.clone(), peer))
    }
}

/// Gives the place of a connection of `source` back.
pub(super) fn leave(flows: &Flows, source: IpAddr) {
    let mut connections = flows.connections();
    connections.all = connections.all.saturating_sub(1);
    let left = connections.by_source.get(&source).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        connections.by_source.remove(&source);
    } else {
        connections.by_source.insert(source, left);
    }
}
