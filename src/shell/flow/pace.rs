//! How fast one listed source may come: a bucket for its packets and one for its TLS handshakes
//! (security S3, S5). What is over the rate is dropped unread, or closed unread, and counted. The
//! table is bounded: when it is full, the source that was silent longest makes place.

use crate::ground::{Instant, limits};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Sources that are remembered; a forgotten one has a full bucket.
const SOURCES_MAX: usize = 4_096;

/// Buckets of one kind, by source.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time that one costs.
    cost: Duration,
    /// The time that a source may have saved up.
    saved_max: Duration,
    /// When the source's bucket would be full.
    full_at: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl Pace {
    /// `rate` a second for each source, and at once as many as `burst`.
    fn new(rate: u32, burst: u32) -> Pace {
        let cost = Duration::from_secs(1) / rate.max(1);
        Pace { cost, saved_max: cost * burst, full_at: Mutex::default() }
    }

    pub fn of_packets() -> Pace {
        Pace::new(limits::PACKETS_PER_SOURCE, 2 * limits::PACKETS_PER_SOURCE)
    }

    pub fn of_handshakes() -> Pace {
        let burst = limits::CONNECTIONS_PER_SOURCE_MAX;
        Pace::new(limits::HANDSHAKES_PER_SOURCE, u32::try_from(burst).unwrap_or(u32::MAX))
    }

    /// Takes one; false when the source comes too fast.
    pub fn take(&self, now: Instant, source: IpAddr) -> bool {
        let mut table = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = table.get(&source).copied().unwrap_or(now).max(now) + self.cost;
        if full_at > now + self.saved_max {
            return false;
        }
        if table.len() >= SOURCES_MAX && !table.contains_key(&source) {
            table.retain(|_, full_at| *full_at > now);
        }
        if table.len() >= SOURCES_MAX && !table.contains_key(&source) {
            let oldest = table.iter().min_by_key(|(_, full_at)| **full_at);
            oldest.map(|(address, _)| *address).and_then(|address| table.remove(&address));
        }
        table.insert(source, full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn a_burst_passes_then_the_rate_and_each_source_has_its_own() {
        let pace = Pace::new(10, 5);
        let passed = |ms, tries| (0..tries).filter(|_| pace.take(at(ms), source(1))).count();
        assert_eq!(passed(0, 20), 5);
        assert_eq!(passed(99, 20), 0);
        assert_eq!(passed(100, 20), 1);
        assert_eq!(passed(400, 20), 3);
        assert!(pace.take(at(400), source(2)));
        assert_eq!(passed(60_000, 20), 5, "no more than a burst is saved up");
    }

    #[test]
    fn the_table_is_bounded() {
        let pace = Pace::new(1, 2);
        let sources = u32::try_from(SOURCES_MAX).expect("small");
        for number in 0..=sources {
            assert!(pace.take(at(u64::from(number) / 100), source(number)));
        }
        assert_eq!(pace.full_at.lock().expect("no panic").len(), SOURCES_MAX);
    }
}
