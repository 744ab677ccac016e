//! Whose packets are looked at: sources within the ranges in force, and the peers of calls that were
//! up when their range was taken away, until shortly after those calls have ended. Asked by every
//! listener for every packet; changed by the signalling task alone.

use crate::account::SipConfig;
use crate::admission;
use crate::ground::{Instant, limits};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The sources that are admitted now.
#[derive(Debug)]
pub struct Sources(RwLock<Admitted>);

#[derive(Debug)]
struct Admitted {
    config: Arc<SipConfig>,
    /// Peers that no range admits any more, and until when they are heard all the same.
    guests: BTreeMap<IpAddr, Instant>,
}

impl Sources {
    pub fn new(config: Arc<SipConfig>) -> Sources {
        Sources(RwLock::new(Admitted { config, guests: BTreeMap::new() }))
    }

    /// Whether a packet of this source is looked at. A guest's INVITE is refused later, where calls
    /// are admitted.
    pub fn admits(&self, source: IpAddr) -> bool {
        let admitted = self.read();
        admission::admit(&admitted.config, source).is_some()
            || admitted.guests.contains_key(&source.to_canonical())
    }

    /// New ranges are in force. `peers` are those of the calls that are up.
    pub fn replace(
        &self,
        now: Instant,
        config: Arc<SipConfig>,
        peers: impl Iterator<Item = IpAddr>,
    ) {
        self.write().config = config;
        self.keep(now, peers);
    }

    /// Called while calls are up: keeps their peers, and forgets guests whose calls ended some time
    /// ago (RFC 3261 lets a peer repeat its BYE for 32 s).
    pub fn keep(&self, now: Instant, peers: impl Iterator<Item = IpAddr>) {
        let mut admitted = self.write();
        for peer in peers.map(|peer| peer.to_canonical()) {
            if admission::admit(&admitted.config, peer).is_none() {
                admitted.guests.insert(peer, now + limits::GUEST_LINGER);
            }
        }
        admitted.guests.retain(|_, until| *until > now);
    }

    fn read(&self) -> RwLockReadGuard<'_, Admitted> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Admitted> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{SipConfigDocument, compile};
    use std::time::Duration;

    fn config(range: &str) -> Arc<SipConfig> {
        let document = SipConfigDocument {
            allowed_cidr_ranges: vec![range.to_owned()],
            ..SipConfigDocument::default()
        };
        Arc::new(compile(&document).expect("a good range").0)
    }

    #[test]
    fn the_peer_of_a_running_call_is_heard_until_its_call_has_ended() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let (caller, other): (IpAddr, IpAddr) = (([192, 0, 2, 7]).into(), ([192, 0, 2, 8]).into());
        let sources = Sources::new(config("192.0.2.0/24"));
        assert!(sources.admits(caller) && sources.admits(other));
        sources.replace(at(10), config("198.51.100.0/24"), std::iter::once(caller));
        assert!(sources.admits(caller) && !sources.admits(other));
        assert!(sources.admits(([198, 51, 100, 1]).into()));
        sources.keep(at(600), std::iter::once(caller));
        let linger = limits::GUEST_LINGER.as_secs();
        sources.keep(at(600 + linger - 1), std::iter::empty());
        assert!(sources.admits(caller), "its BYE may come again");
        sources.keep(at(600 + linger), std::iter::empty());
        assert!(!sources.admits(caller));
        sources.replace(at(700), config("192.0.2.0/24"), std::iter::empty());
        assert!(sources.admits(caller));
    }
}
