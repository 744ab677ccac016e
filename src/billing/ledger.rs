//! The ledger of one call: which legs are up and for how long they were (seed, "SIP Billing";
//! house §7). A leg's clock starts at its answer and stops at its end; ringing never enters it.
//! The call's SIP time is the sum over its legs, so two legs count double by construction.
//!
//! ```text
//! NotAnswered ──start──▶ Running ──stop──▶ Stopped      stop before the answer: Stopped with zero
//! ```
//!
//! The same clock, outside the ledger, measures the agent's time (joined to left).

use crate::ground::{Instant, LegId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one leg (or the agent) has been up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LegClock {
    /// Ringing, or not even that: costs nothing.
    #[default]
    NotAnswered,
    /// Up since this instant.
    Running { since: Instant },
    /// Over, after this long.
    Stopped { total: Duration },
}

impl LegClock {
    /// The leg was answered. A clock that runs or has stopped is not started again.
    pub fn start(&mut self, now: Instant) {
        if *self == LegClock::NotAnswered {
            *self = LegClock::Running { since: now };
        }
    }

    /// The leg ended. The first end counts.
    pub fn stop(&mut self, now: Instant) {
        *self = LegClock::Stopped { total: self.total(now) };
    }

    /// The time that the leg has been up until `now`.
    pub fn total(&self, now: Instant) -> Duration {
        match self {
            LegClock::NotAnswered => Duration::ZERO,
            LegClock::Running { since } => now.since(*since),
            LegClock::Stopped { total } => *total,
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self, LegClock::Running { .. })
    }
}

/// The clocks of one call's legs. A call has few legs: the caller's and its transfer targets'.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    legs: BTreeMap<LegId, LegClock>,
}

impl Ledger {
    /// `leg` was answered: its clock runs. A leg that ended already stays so.
    pub fn answer(&mut self, now: Instant, leg: LegId) {
        self.legs.entry(leg).or_default().start(now);
    }

    /// `leg` ended, answered or not.
    pub fn end(&mut self, now: Instant, leg: LegId) {
        self.legs.entry(leg).or_default().stop(now);
    }

    /// The call left us: it ended, or a REFER succeeded (at the NOTIFY that said so).
    pub fn stop_all(&mut self, now: Instant) {
        self.legs.values_mut().for_each(|clock| clock.stop(now));
    }

    /// SIP time: the sum of all legs' time until `now`.
    pub fn sip_time(&self, now: Instant) -> Duration {
        self.legs.values().map(|clock| clock.total(now)).sum()
    }

    /// Legs whose clock runs: the rate at which SIP time grows.
    pub fn running(&self) -> usize {
        self.legs.values().filter(|clock| clock.is_running()).count()
    }

    /// The clock of `leg`; not answered when it was never heard of.
    pub fn clock(&self, leg: LegId) -> LegClock {
        self.legs.get(&leg).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_runs_from_answer_to_the_first_end() {
        let mut clock = LegClock::default();
        assert_eq!(clock.total(at(9)), Duration::ZERO);
        clock.start(at(10));
        clock.start(at(12));
        assert_eq!(clock.total(at(15)), Duration::from_secs(5));
        clock.stop(at(20));
        clock.stop(at(30));
        clock.start(at(40));
        assert_eq!(clock, LegClock::Stopped { total: Duration::from_secs(10) });
    }

    #[test]
    fn a_leg_that_ends_while_ringing_costs_nothing_even_if_an_answer_crosses() {
        let mut ledger = Ledger::default();
        ledger.end(at(5), LegId::CALLER);
        ledger.answer(at(6), LegId::CALLER);
        assert_eq!((ledger.sip_time(at(60)), ledger.running()), (Duration::ZERO, 0));
    }

    #[test]
    fn two_legs_count_double_and_stop_all_stops_both() {
        let mut ledger = Ledger::default();
        ledger.answer(at(0), LegId(0));
        ledger.answer(at(10), LegId(1));
        assert_eq!((ledger.sip_time(at(15)), ledger.running()), (Duration::from_secs(20), 2));
        ledger.stop_all(at(20));
        assert_eq!((ledger.sip_time(at(99)), ledger.running()), (Duration::from_secs(30), 0));
        assert_eq!(ledger.clock(LegId(1)), LegClock::Stopped { total: Duration::from_secs(10) });
        assert_eq!(ledger.clock(LegId(7)), LegClock::NotAnswered);
    }
}
