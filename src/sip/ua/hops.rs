//! A short memory of next hops that failed (RFC 3263 §4.3): they are passed over for a while, unless
//! no other is left. A hop that answers is forgiven at once.

use crate::ground::Instant;
use crate::ground::limits::DEAD_HOPS_MAX;
use crate::sip::target::Hop;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Hops that did not answer, each with the end of its penance.
#[derive(Debug, Default)]
pub(super) struct DeadHops {
    until: BTreeMap<Hop, Instant>,
}

impl DeadHops {
    /// `hop` failed at `now` and is passed over for `span`. When the memory is full, the one that
    /// would be forgiven first makes place.
    pub(super) fn note(&mut self, now: Instant, hop: &Hop, span: Duration) {
        self.until.retain(|_, until| *until > now);
        if self.until.len() >= DEAD_HOPS_MAX && !self.until.contains_key(hop) {
            let first = self.until.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(hop, _)| hop.clone()) {
                self.until.remove(&first);
            }
        }
        self.until.insert(hop.clone(), now + span);
    }

    /// `hop` answered.
    pub(super) fn forgive(&mut self, hop: &Hop) {
        self.until.remove(hop);
    }

    pub(super) fn is_dead(&self, now: Instant, hop: &Hop) -> bool {
        self.until.get(hop).is_some_and(|until| *until > now)
    }

    /// The living of `hops` in their order; all of them when none lives.
    pub(super) fn living(&self, now: Instant, hops: Vec<Hop>) -> VecDeque<Hop> {
        if hops.iter().all(|hop| self.is_dead(now, hop)) {
            return hops.into();
        }
        hops.into_iter().filter(|hop| !self.is_dead(now, hop)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Transport;
    use crate::sip::target::TargetHost;

    fn hop(last: u8, port: u16) -> Hop {
        let address = ([192, 0, 2, last], port).into();
        let identity = TargetHost::Name("pbx.example.com".into());
        Hop { transport: Transport::Udp, address, identity }
    }

    #[test]
    fn the_dead_are_passed_over_for_their_span_unless_nobody_lives() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut dead = DeadHops::default();
        let both = vec![hop(1, 5060), hop(2, 5060)];
        dead.note(at(0), &both[0], Duration::from_secs(30));
        assert_eq!(dead.living(at(29), both.clone()), [both[1].clone()]);
        assert_eq!(dead.living(at(30), both.clone()), both);
        dead.note(at(30), &both[0], Duration::from_secs(30));
        dead.note(at(31), &both[1], Duration::from_secs(30));
        assert_eq!(dead.living(at(32), both.clone()), both, "better a dead one than none");
        dead.forgive(&both[1]);
        assert_eq!(dead.living(at(32), both.clone()), [both[1].clone()]);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut dead = DeadHops::default();
        for number in 0..DEAD_HOPS_MAX + 9 {
            let port = 1 + u16::try_from(number).expect("it fits");
            let now = Instant::ZERO + Duration::from_millis(number as u64);
            dead.note(now, &hop(1, port), Duration::from_secs(30));
        }
        assert_eq!(dead.until.len(), DEAD_HOPS_MAX);
        assert!(
            !dead.is_dead(Instant::ZERO, &hop(1, 9)) && dead.is_dead(Instant::ZERO, &hop(1, 10))
        );
    }
}
