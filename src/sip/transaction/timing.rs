//! The base times of RFC 3261 §17.1.1.1 and the small table in which a transaction keeps its
//! timers, named by the RFC's letters. No clock is read here.

use crate::ground::Instant;
use std::time::Duration;

/// T1, T2 and T4; everything else follows from them. Shorter values are for tests only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// An estimate of the round-trip time; 500 ms.
    pub t1: Duration,
    /// The longest interval between retransmissions; 4 s.
    pub t2: Duration,
    /// How long a message may live in the network; 5 s.
    pub t4: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
        }
    }
}

impl Timing {
    /// 64 × T1, the life of a transaction: Timers B, F, H, J, L and M.
    pub fn life(&self) -> Duration {
        self.t1 * 64
    }

    /// Timer D: 64 × T1, which is the RFC's "at least 32 seconds" with the default T1.
    pub fn timer_d(&self) -> Duration {
        self.life()
    }

    /// The interval after `interval`: doubled, at most T2 (Timers E and G, and the 2xx of a UAS).
    pub fn next_interval(&self, interval: Duration) -> Duration {
        (interval * 2).min(self.t2)
    }

    /// When a client's Timer E is first reset to T2, counted from its request: the time at which a
    /// UAS that has not answered must send 100 (RFC 4320 §4.1). 3.5 s with the defaults.
    pub fn trying_after(&self) -> Duration {
        let (mut after, mut interval) = (Duration::ZERO, self.t1);
        while interval < self.t2 && after < self.life() {
            after += interval;
            interval *= 2;
        }
        after
    }
}

/// The timers of the four transactions (RFC 3261 table 4, RFC 6026 §8.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// INVITE request retransmission, unreliable transports only.
    A,
    /// INVITE transaction time-out of the client.
    B,
    /// Wait for copies of a final response to INVITE.
    D,
    /// Non-INVITE request retransmission, unreliable transports only.
    E,
    /// Non-INVITE transaction time-out of the client. The server transaction keeps it too: after it
    /// nobody waits for the answer.
    F,
    /// Retransmission of a non-2xx final response to INVITE, unreliable transports only.
    G,
    /// Wait for the ACK.
    H,
    /// Wait for copies of the ACK.
    I,
    /// Wait for copies of a non-INVITE request.
    J,
    /// Wait for copies of a response to non-INVITE.
    K,
    /// Wait for copies of an INVITE that was answered with 2xx.
    L,
    /// Wait for copies of a 2xx to INVITE, and for those of other forks.
    M,
    /// The 100 that a slow answer to a non-INVITE request owes (RFC 4320 §4.1).
    Trying,
}

/// At most `N` running timers, each at most once.
#[derive(Clone, Debug)]
pub(super) struct Timers<const N: usize> {
    slots: [Option<(Instant, Timer)>; N],
}

impl<const N: usize> Timers<N> {
    pub(super) fn new() -> Timers<N> {
        Timers { slots: [None; N] }
    }

    /// Starts or moves `timer`.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        let free = self.slots.iter_mut().find(|slot| slot.is_none());
        debug_assert!(free.is_some(), "a machine declares a slot for each timer that runs at once");
        if let Some(slot) = free {
            *slot = Some((at, timer));
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        for slot in &mut self.slots {
            if slot.is_some_and(|(_, running)| running == timer) {
                *slot = None;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots = [None; N];
    }

    /// The earliest deadline and whose it is.
    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        self.slots.iter().flatten().min().copied()
    }

    /// Takes the earliest timer that is due at `now`; of two at the same instant the earlier letter.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = self.next()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_table_4() {
        let timing = Timing::default();
        assert_eq!(timing.life(), Duration::from_secs(32));
        assert_eq!(timing.timer_d(), Duration::from_secs(32));
        assert_eq!(timing.trying_after(), Duration::from_millis(3_500));
        assert_eq!(timing.next_interval(timing.t1), Duration::from_secs(1));
        assert_eq!(timing.next_interval(Duration::from_secs(3)), timing.t2);
    }

    #[test]
    fn odd_times_end_too() {
        let ms = Duration::from_millis;
        let zero = Timing { t1: ms(0), t2: ms(1), t4: ms(1) };
        assert_eq!(zero.trying_after(), ms(0));
        let inverted = Timing { t1: ms(8), t2: ms(4), t4: ms(5) };
        assert_eq!(inverted.trying_after(), ms(0));
    }

    #[test]
    fn timers_come_in_order_and_move_when_set_again() {
        let at = Instant::from_nanos;
        let mut timers = Timers::<2>::new();
        timers.set(Timer::G, at(5));
        timers.set(Timer::H, at(9));
        timers.set(Timer::G, at(9));
        assert_eq!(timers.pop_due(at(8)), None);
        assert_eq!(timers.next(), Some((at(9), Timer::G)));
        assert_eq!(timers.pop_due(at(9)), Some(Timer::G));
        timers.cancel(Timer::H);
        assert_eq!(timers.next(), None);
    }
}
