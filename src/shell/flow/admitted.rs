//! Addresses that may speak to us although no range lists them: peers of calls and registrars for as
//! long as somebody holds them, and hops for a while after we sent to them. Bounded: when it is full,
//! the address that would be forgotten first makes place; held ones never do.

use crate::ground::{Instant, limits};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The table, shared by all listeners.
#[derive(Debug, Default)]
pub(super) struct Admitted(RwLock<BTreeMap<IpAddr, Stay>>);

#[derive(Clone, Copy, Debug)]
struct Stay {
    holders: usize,
    until: Instant,
}

impl Admitted {
    pub fn admits(&self, now: Instant, address: IpAddr) -> bool {
        let stay = self.read().get(&address).copied();
        stay.is_some_and(|stay| stay.holders > 0 || now < stay.until)
    }

    /// One more holder, or one less. An address that nobody holds any more stays for a while: its
    /// answers to our last requests are still to come.
    pub fn hold(&self, now: Instant, address: IpAddr, hold: bool) {
        let mut table = self.write();
        let known = table.get(&address).copied();
        if known.is_none() && !hold {
            return;
        }
        let holders = known.map_or(0, |stay| stay.holders);
        let holders = if hold { holders + 1 } else { holders.saturating_sub(1) };
        Admitted::enter(&mut table, now, address, holders);
    }

    /// For [`limits::HOP_ADMITTED`] from now.
    pub fn admit_for_a_while(&self, now: Instant, address: IpAddr) {
        let mut table = self.write();
        let holders = table.get(&address).map_or(0, |stay| stay.holders);
        Admitted::enter(&mut table, now, address, holders);
    }

    /// We sent to it: a hop that is in the table stays.
    pub fn prolong(&self, now: Instant, address: IpAddr) {
        if self.read().contains_key(&address) {
            self.admit_for_a_while(now, address);
        }
    }

    fn enter(table: &mut BTreeMap<IpAddr, Stay>, now: Instant, address: IpAddr, holders: usize) {
        if table.len() >= limits::ADMITTED_MAX && !table.contains_key(&address) {
            table.retain(|_, stay| stay.holders > 0 || now < stay.until);
        }
        if table.len() >= limits::ADMITTED_MAX && !table.contains_key(&address) {
            let free = table.iter().filter(|(_, stay)| stay.holders == 0);
            let first = free.min_by_key(|(_, stay)| stay.until).map(|(address, _)| *address);
            match first {
                Some(first) => drop(table.remove(&first)),
                // Calls and registrations are bounded; without a place their packets meet the gate.
                None => return,
            }
        }
        table.insert(address, Stay { holders, until: now + limits::HOP_ADMITTED });
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<IpAddr, Stay>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<IpAddr, Stay>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn address(number: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).expect("small")))
    }

    /// Some milliseconds after the start.
    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    const WHILE: u64 = limits::HOP_ADMITTED.as_millis() as u64;

    #[test]
    fn a_hop_is_forgotten_and_a_held_peer_is_not() {
        let admitted = Admitted::default();
        let (hop, peer, stranger) = (address(1), address(2), address(3));
        admitted.admit_for_a_while(at(0), hop);
        admitted.hold(at(0), peer, true);
        admitted.hold(at(0), peer, true);
        admitted.hold(at(0), stranger, false);
        let who = |ms| [hop, peer, stranger].map(|address| admitted.admits(at(ms), address));
        assert_eq!(who(WHILE - 1), [true, true, false]);
        assert_eq!(who(WHILE), [false, true, false]);
        admitted.hold(at(WHILE), peer, false);
        assert_eq!(who(5 * WHILE), [false, true, false], "the other one still holds it");
        admitted.hold(at(5 * WHILE), peer, false);
        assert_eq!(who(6 * WHILE - 1), [false, true, false], "its last answers are on the way");
        assert_eq!(who(6 * WHILE), [false; 3]);
    }

    #[test]
    fn sending_prolongs_what_is_known_only() {
        let admitted = Admitted::default();
        admitted.admit_for_a_while(at(0), address(1));
        admitted.prolong(at(WHILE / 2), address(1));
        admitted.prolong(at(WHILE / 2), address(2));
        assert!(admitted.admits(at(WHILE), address(1)));
        assert!(!admitted.admits(at(WHILE), address(2)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_held() {
        let admitted = Admitted::default();
        admitted.hold(at(0), address(0), true);
        let last = 2 * limits::ADMITTED_MAX - 1;
        for number in 1..=last {
            admitted.admit_for_a_while(at(number as u64), address(number));
        }
        assert_eq!(admitted.read().len(), limits::ADMITTED_MAX);
        let now = at(last as u64);
        let who = [0, 1, last].map(|number| admitted.admits(now, address(number)));
        assert_eq!(who, [true, false, true]);
    }
}
