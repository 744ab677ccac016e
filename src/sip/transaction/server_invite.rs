//! The INVITE server transaction (RFC 3261 §17.2.1 with RFC 6026 §7.1). It keeps the last answer
//! and gives it to every copy of the INVITE. The 2xx itself is repeated by the session, on every
//! transport, until its ACK comes; here it is only kept for copies of the INVITE.
//!
//! ```text
//! Proceeding ─ 3xx–6xx → Completed ─ ACK → Confirmed ─ I → gone
//!     │                      └─ H: no ACK → gone
//!     └──── 2xx → Accepted ─ L → gone
//! ```

use super::Effect;
use super::timing::{Timer, Timers, Timing};
use crate::ground::Instant;
use bytes::Bytes;
use std::time::Duration;

/// One INVITE that was received, from the 100 to the end of its copies.
#[derive(Debug)]
pub struct ServerInvite {
    state: State,
    timers: Timers<2>,
    timing: Timing,
    reliable: bool,
}

#[derive(Debug)]
enum State {
    Proceeding {
        provisional: Bytes,
    },
    Completed {
        answer: Bytes,
        interval: Duration,
    },
    Confirmed,
    /// `answer` until the ACK came; copies of the INVITE are absorbed in silence after that.
    Accepted {
        answer: Option<Bytes>,
    },
    Terminated,
}

impl ServerInvite {
    /// Sends `trying`, the 100, at once: whoever answers is never sure to do so within 200 ms.
    pub fn new(
        timing: Timing,
        reliable: bool,
        trying: Bytes,
        out: &mut Vec<Effect>,
    ) -> ServerInvite {
        out.push(Effect::Send(trying.clone()));
        let state = State::Proceeding { provisional: trying };
        ServerInvite { state, timers: Timers::new(), timing, reliable }
    }

    /// A copy of the INVITE came: the same answer again.
    pub fn handle_invite(&mut self, out: &mut Vec<Effect>) {
        match &self.state {
            State::Proceeding { provisional: answer }
            | State::Completed { answer, .. }
            | State::Accepted { answer: Some(answer) } => out.push(Effect::Send(answer.clone())),
            State::Accepted { answer: None } | State::Confirmed | State::Terminated => {}
        }
    }

    /// The ACK of a non-2xx answer came. An ACK in any other state is not for the transaction.
    pub fn handle_ack(&mut self, now: Instant) {
        let State::Completed { .. } = self.state else { return };
        self.timers.clear();
        if self.reliable {
            self.state = State::Terminated;
        } else {
            self.state = State::Confirmed;
            self.timers.set(Timer::I, now + self.timing.t4);
        }
    }

    /// The dialog saw the ACK of the 2xx: copies of the INVITE need no answer any more.
    pub fn handle_success_ack(&mut self) {
        if let State::Accepted { answer } = &mut self.state {
            *answer = None;
        }
    }

    /// Sends a 1xx and keeps it for copies. Only before the final answer.
    pub fn provisional(&mut self, bytes: Bytes, out: &mut Vec<Effect>) {
        if let State::Proceeding { provisional } = &mut self.state {
            *provisional = bytes.clone();
            out.push(Effect::Send(bytes));
        }
    }

    /// Sends the first 2xx. Timer L keeps the transaction, so that a late copy does not ring again.
    pub fn success(&mut self, now: Instant, bytes: Bytes, out: &mut Vec<Effect>) {
        let State::Proceeding { .. } = self.state else { return };
        out.push(Effect::Send(bytes.clone()));
        self.state = State::Accepted { answer: Some(bytes) };
        self.timers.set(Timer::L, now + self.timing.life());
    }

    /// Sends a 3xx–6xx, again and again on unreliable transports until its ACK comes.
    pub fn failure(&mut self, now: Instant, bytes: Bytes, out: &mut Vec<Effect>) {
        let State::Proceeding { .. } = self.state else { return };
        out.push(Effect::Send(bytes.clone()));
        let interval = self.timing.t1;
        self.state = State::Completed { answer: bytes, interval };
        self.timers.set(Timer::H, now + self.timing.life());
        if !self.reliable {
            self.timers.set(Timer::G, now + interval);
        }
    }

    /// Lets every due timer act.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::G => self.on_timer_g(now, out),
                Timer::H => {
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

    /// True until a final answer was given.
    pub fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    /// True after a 2xx: an ACK that carries the INVITE's branch belongs to the dialog all the same.
    pub fn is_accepted(&self) -> bool {
        matches!(self.state, State::Accepted { .. })
    }

    /// True while the peer still owes or is owed something: this is what per-source caps count.
    pub fn is_open(&self) -> bool {
        match self.state {
            State::Proceeding { .. } | State::Completed { .. } => true,
            State::Accepted { ref answer } => answer.is_some(),
            State::Confirmed | State::Terminated => false,
        }
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// Timer G: the answer again, at T1, 2 × T1, … and every T2.
    fn on_timer_g(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let State::Completed { answer, interval } = &mut self.state else { return };
        out.push(Effect::Send(answer.clone()));
        *interval = self.timing.next_interval(*interval);
        self.timers.set(Timer::G, now + *interval);
    }

    fn terminate(&mut self) {
        self.timers.clear();
        self.state = State::Terminated;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, bytes, fire_all, ms, send, sends};
    use super::*;

    fn proceeding(reliable: bool) -> ServerInvite {
        let mut out = Vec::new();
        let transaction = ServerInvite::new(Timing::default(), reliable, bytes("100"), &mut out);
        assert_eq!(out, [send("100")]);
        transaction
    }

    fn copy(transaction: &mut ServerInvite) -> Vec<Effect> {
        let mut out = Vec::new();
        transaction.handle_invite(&mut out);
        out
    }

    #[test]
    fn a_copy_gets_the_last_provisional() {
        let mut transaction = proceeding(false);
        assert_eq!(copy(&mut transaction), [send("100")]);
        let mut out = Vec::new();
        transaction.provisional(bytes("180"), &mut out);
        assert_eq!(out, [send("180")]);
        assert_eq!(copy(&mut transaction), [send("180")]);
        transaction.handle_ack(at(0));
        assert!(transaction.is_proceeding() && transaction.next_deadline().is_none());
    }

    #[test]
    fn a_refusal_is_repeated_by_timer_g_until_timer_h() {
        let mut transaction = proceeding(false);
        let mut out = Vec::new();
        transaction.failure(at(0), bytes("486"), &mut out);
        assert_eq!(out, [send("486")]);
        let fired = fire_all(|now, out| {
            transaction.handle_timeout(now, out);
            transaction.next_deadline()
        });
        let times = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        let mut expected = sends(&times, "486");
        expected.push((32_000, Effect::TimedOut));
        assert_eq!(fired, expected);
        assert!(transaction.is_terminated());
    }

    #[test]
    fn on_streams_a_refusal_is_not_repeated_and_its_ack_ends_it_at_once() {
        let mut transaction = proceeding(true);
        transaction.failure(at(0), bytes("486"), &mut Vec::new());
        assert_eq!(transaction.next_deadline(), Some((at(32_000), Timer::H)));
        assert_eq!(copy(&mut transaction), [send("486")]);
        transaction.handle_ack(at(7));
        assert!(transaction.is_terminated() && transaction.next_deadline().is_none());
    }

    #[test]
    fn the_ack_stops_g_and_h_and_timer_i_absorbs_its_copies() {
        let mut transaction = proceeding(false);
        transaction.failure(at(0), bytes("404"), &mut Vec::new());
        assert!(transaction.is_open());
        transaction.handle_ack(at(100));
        assert!(!transaction.is_open());
        assert_eq!(transaction.next_deadline(), Some((at(5_100), Timer::I)));
        assert_eq!(copy(&mut transaction), []);
        transaction.handle_ack(at(200));
        assert_eq!(transaction.next_deadline(), Some((at(5_100), Timer::I)));
        let mut out = Vec::new();
        transaction.handle_timeout(at(5_099), &mut out);
        assert!(!transaction.is_terminated());
        transaction.handle_timeout(at(5_100), &mut out);
        assert!(transaction.is_terminated() && out.is_empty());
    }

    #[test]
    fn after_a_2xx_copies_are_answered_until_the_ack_and_absorbed_until_timer_l() {
        let mut transaction = proceeding(true);
        let mut out = Vec::new();
        transaction.success(at(0), bytes("200"), &mut out);
        assert_eq!(out, [send("200")]);
        assert_eq!(copy(&mut transaction), [send("200")]);
        assert!(transaction.is_accepted() && transaction.is_open());
        transaction.handle_ack(at(1));
        assert!(transaction.is_accepted(), "the ACK of a 2xx is the dialog's");
        transaction.handle_success_ack();
        assert_eq!(copy(&mut transaction), []);
        out.clear();
        transaction.handle_timeout(at(31_999), &mut out);
        assert!(!transaction.is_terminated());
        transaction.handle_timeout(at(32_000), &mut out);
        assert!(transaction.is_terminated() && out.is_empty());
    }

    #[test]
    fn only_the_first_final_answer_counts() {
        let mut transaction = proceeding(false);
        let mut out = Vec::new();
        transaction.success(at(0), bytes("200"), &mut out);
        transaction.failure(at(1), bytes("487"), &mut out);
        transaction.provisional(bytes("180"), &mut out);
        transaction.success(at(2), bytes("200b"), &mut out);
        assert_eq!(out, [send("200")]);
        let mut refused = proceeding(false);
        out.clear();
        refused.failure(at(0), bytes("487"), &mut out);
        refused.success(at(1), bytes("200"), &mut out);
        assert_eq!(out, [send("487")]);
    }

    #[test]
    fn a_late_wake_up_sends_once_not_in_a_burst() {
        let mut transaction = proceeding(false);
        transaction.failure(at(0), bytes("486"), &mut Vec::new());
        let mut out = Vec::new();
        transaction.handle_timeout(at(9_000), &mut out);
        assert_eq!(out, [send("486")]);
        assert_eq!(transaction.next_deadline(), Some((at(9_000) + ms(1_000), Timer::G)));
    }
}
