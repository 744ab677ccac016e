//! The INVITE client transaction (RFC 3261 §17.1.1 with RFC 6026 §7.2). It acknowledges non-2xx
//! answers itself; the ACK of a 2xx belongs to the dialog, which is told of every copy.
//!
//! ```text
//! Calling ─ 1xx → Proceeding ─ 3xx–6xx → Completed ─ D → gone
//!    └─ B: silence → gone └──── 2xx → Accepted ─ M → gone
//! ```

use super::Effect;
use super::timing::{Timer, Timers, Timing};
use crate::ground::Instant;
use bytes::Bytes;
use std::time::Duration;

/// One INVITE of ours.
#[derive(Debug)]
pub struct ClientInvite {
    state: State,
    timers: Timers<2>,
    timing: Timing,
    reliable: bool,
}

#[derive(Debug)]
enum State {
    Calling { request: Bytes, interval: Duration },
    Proceeding,
    Completed { ack: Bytes },
    Accepted,
    Terminated,
}

impl ClientInvite {
    /// Sends the INVITE.
    pub fn new(
        now: Instant,
        timing: Timing,
        reliable: bool,
        request: Bytes,
        out: &mut Vec<Effect>,
    ) -> ClientInvite {
        out.push(Effect::Send(request.clone()));
        let mut timers = Timers::new();
        timers.set(Timer::B, now + timing.life());
        if !reliable {
            timers.set(Timer::A, now + timing.t1);
        }
        let state = State::Calling { request, interval: timing.t1 };
        ClientInvite { state, timers, timing, reliable }
    }

    /// A 1xx came: no more retransmission, and no time-out but the caller's own.
    pub fn handle_provisional(&mut self, out: &mut Vec<Effect>) {
        match self.state {
            State::Calling { .. } => {
                self.timers.clear();
                self.state = State::Proceeding;
                out.push(Effect::PassUp);
            }
            State::Proceeding => out.push(Effect::PassUp),
            State::Completed { .. } | State::Accepted | State::Terminated => {}
        }
    }

    /// A 2xx came, the first, a copy, or that of another fork: each goes up, to be acknowledged.
    pub fn handle_success(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match self.state {
            State::Calling { .. } | State::Proceeding => {
                self.timers.clear();
                self.timers.set(Timer::M, now + self.timing.life());
                self.state = State::Accepted;
                out.push(Effect::PassUp);
            }
            State::Accepted => out.push(Effect::PassUp),
            State::Completed { .. } | State::Terminated => {}
        }
    }

    /// A 3xx–6xx came; `ack` is built for it (RFC 3261 §17.1.1.3) and sent for each copy.
    pub fn handle_failure(&mut self, now: Instant, ack: Bytes, out: &mut Vec<Effect>) {
        match &self.state {
            State::Calling { .. } | State::Proceeding => {
                out.push(Effect::Send(ack.clone()));
                out.push(Effect::PassUp);
                self.timers.clear();
                if self.reliable {
                    self.state = State::Terminated;
                } else {
                    self.timers.set(Timer::D, now + self.timing.timer_d());
                    self.state = State::Completed { ack };
                }
            }
            State::Completed { ack: sent } => out.push(Effect::Send(sent.clone())),
            State::Accepted | State::Terminated => {}
        }
    }

    /// A CANCEL was sent: without a final answer within 64 × T1 the INVITE is given up (§9.1).
    pub fn cancelled(&mut self, now: Instant) {
        if let State::Proceeding = self.state {
            self.timers.set(Timer::B, now + self.timing.life());
        }
    }

    /// The INVITE goes on elsewhere: it is repeated no more, but its answers are still waited for.
    pub fn abandoned(&mut self) {
        self.timers.cancel(Timer::A);
    }

    /// There is nowhere else for an abandoned INVITE: it is repeated again from now on.
    pub fn resumed(&mut self, now: Instant) {
        if let State::Calling { .. } = self.state
            && !self.reliable
        {
            self.timers.set(Timer::A, now);
        }
    }

    /// The flow cannot carry the INVITE.
    pub fn handle_transport_failure(&mut self, out: &mut Vec<Effect>) {
        match self.state {
            State::Calling { .. } | State::Proceeding => out.push(Effect::TransportFailed),
            State::Completed { .. } | State::Accepted | State::Terminated => {}
        }
        self.terminate();
    }

    /// Lets every due timer act.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::A => self.on_timer_a(now, out),
                Timer::B => {
                    out.push(Effect::TimedOut);
                    self.terminate();
                }
                _ => self.terminate(),
            }
        }
    }

    /// The next timer and its deadline.
    pub fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.timers.next()
    }

    /// True once a 1xx came and no final answer: only then may a CANCEL be sent (§9.1).
    pub fn may_cancel(&self) -> bool {
        matches!(self.state, State::Proceeding)
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// Timer A: T1, 2 × T1, 4 × T1, … without the cap of T2.
    fn on_timer_a(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let State::Calling { request, interval } = &mut self.state else { return };
        out.push(Effect::Send(request.clone()));
        *interval *= 2;
        self.timers.set(Timer::A, now + *interval);
    }

    fn terminate(&mut self) {
        self.timers.clear();
        self.state = State::Terminated;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, bytes, fire_all, send, sends};
    use super::*;

    fn calling(reliable: bool) -> ClientInvite {
        let mut out = Vec::new();
        let transaction =
            ClientInvite::new(at(0), Timing::default(), reliable, bytes("INVITE"), &mut out);
        assert_eq!(out, [send("INVITE")]);
        transaction
    }

    #[test]
    fn silence_gives_seven_invites_and_timer_b() {
        let mut transaction = calling(false);
        let fired = fire_all(|now, out| {
            transaction.handle_timeout(now, out);
            transaction.next_deadline()
        });
        let mut expected = sends(&[500, 1_500, 3_500, 7_500, 15_500, 31_500], "INVITE");
        expected.push((32_000, Effect::TimedOut));
        assert_eq!(fired, expected);
        assert!(transaction.is_terminated());
    }

    #[test]
    fn a_provisional_stops_a_and_b_and_allows_cancel() {
        let mut transaction = calling(false);
        assert!(!transaction.may_cancel());
        transaction.cancelled(at(0));
        let mut out = Vec::new();
        transaction.handle_provisional(&mut out);
        transaction.handle_provisional(&mut out);
        assert_eq!(out, [Effect::PassUp, Effect::PassUp]);
        assert!(transaction.may_cancel() && transaction.next_deadline().is_none());
        transaction.cancelled(at(1_000));
        out.clear();
        transaction.handle_timeout(at(32_999), &mut out);
        assert_eq!(out, []);
        transaction.handle_timeout(at(33_000), &mut out);
        assert_eq!(out, [Effect::TimedOut]);
        assert!(transaction.is_terminated());
    }

    #[test]
    fn a_failure_is_acknowledged_each_time_and_goes_up_once() {
        let mut transaction = calling(false);
        let mut out = Vec::new();
        transaction.handle_failure(at(10), bytes("ACK"), &mut out);
        transaction.handle_failure(at(20), bytes("other"), &mut out);
        transaction.handle_provisional(&mut out);
        transaction.handle_success(at(21), &mut out);
        assert_eq!(out, [send("ACK"), Effect::PassUp, send("ACK")]);
        assert_eq!(transaction.next_deadline(), Some((at(32_010), Timer::D)));
        transaction.handle_timeout(at(32_009), &mut out);
        assert!(!transaction.is_terminated());
        transaction.handle_timeout(at(32_010), &mut out);
        assert!(transaction.is_terminated());
    }

    #[test]
    fn on_streams_a_failure_ends_it_at_once() {
        let mut transaction = calling(true);
        assert_eq!(transaction.next_deadline(), Some((at(32_000), Timer::B)));
        transaction.handle_failure(at(1), bytes("ACK"), &mut Vec::new());
        assert!(transaction.is_terminated());
    }

    #[test]
    fn every_2xx_goes_up_until_timer_m() {
        let mut transaction = calling(true);
        let mut out = Vec::new();
        transaction.handle_success(at(5), &mut out);
        transaction.handle_success(at(6), &mut out);
        transaction.handle_failure(at(7), bytes("ACK"), &mut out);
        transaction.handle_provisional(&mut out);
        assert_eq!(out, [Effect::PassUp, Effect::PassUp]);
        assert_eq!(transaction.next_deadline(), Some((at(32_005), Timer::M)));
        transaction.handle_timeout(at(32_005), &mut out);
        assert!(transaction.is_terminated() && out.len() == 2);
    }

    #[test]
    fn an_abandoned_invite_is_silent_and_still_hears() {
        let mut transaction = calling(false);
        transaction.abandoned();
        assert_eq!(transaction.next_deadline(), Some((at(32_000), Timer::B)));
        transaction.resumed(at(1_200));
        assert_eq!(transaction.next_deadline(), Some((at(1_200), Timer::A)));
        transaction.abandoned();
        let mut out = Vec::new();
        transaction.handle_success(at(31_999), &mut out);
        assert_eq!(out, [Effect::PassUp]);
        assert_eq!(transaction.next_deadline(), Some((at(63_999), Timer::M)));
    }

    #[test]
    fn a_dead_flow_ends_it() {
        let mut transaction = calling(true);
        let mut out = Vec::new();
        transaction.handle_transport_failure(&mut out);
        assert_eq!(out, [Effect::TransportFailed]);
        assert!(transaction.is_terminated());
    }
}
