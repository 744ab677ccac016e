//! The server transaction of every other method (RFC 3261 §17.2.2 with RFC 4320): no provisional
//! but a 100 that is owed when the answer is slow, never a 408, and no answer at all once the
//! client has given up. ACK has no transaction of its own.

use super::Effect;
use super::timing::{Timer, Timers, Timing};
use crate::ground::Instant;
use bytes::Bytes;

/// One non-INVITE request that was received, from its coming to the end of its copies.
#[derive(Debug)]
pub struct Server {
    state: State,
    timers: Timers<2>,
    timing: Timing,
    reliable: bool,
}

#[derive(Debug)]
enum State {
    Trying,
    Proceeding { trying: Bytes },
    Completed { answer: Bytes },
    Terminated,
}

impl Server {
    pub fn new(now: Instant, timing: Timing, reliable: bool) -> Server {
        let mut timers = Timers::new();
        timers.set(Timer::Trying, now + timing.trying_after());
        timers.set(Timer::F, now + timing.life());
        Server { state: State::Trying, timers, timing, reliable }
    }

    /// A copy of the request came: the same answer again; nothing while there is none.
    pub fn handle_request(&mut self, out: &mut Vec<Effect>) {
        match &self.state {
            State::Proceeding { trying: answer } | State::Completed { answer } => {
                out.push(Effect::Send(answer.clone()));
            }
            State::Trying | State::Terminated => {}
        }
    }

    /// Sends the 100 that [`Effect::OweTrying`] asked for.
    pub fn trying(&mut self, bytes: Bytes, out: &mut Vec<Effect>) {
        let State::Trying = self.state else { return };
        out.push(Effect::Send(bytes.clone()));
        self.state = State::Proceeding { trying: bytes };
    }

    /// Sends the final answer. On streams the transaction ends with it (Timer J is zero there).
    pub fn answer(&mut self, now: Instant, bytes: Bytes, out: &mut Vec<Effect>) {
        match self.state {
            State::Trying | State::Proceeding { .. } => {}
            State::Completed { .. } | State::Terminated => return,
        }
        out.push(Effect::Send(bytes.clone()));
        self.timers.clear();
        if self.reliable {
            self.state = State::Terminated;
        } else {
            self.state = State::Completed { answer: bytes };
            self.timers.set(Timer::J, now + self.timing.life());
        }
    }

    /// Lets every due timer act.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Trying => out.push(Effect::OweTrying),
                Timer::F => {
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

    /// True until the final answer: this is what per-source caps count.
    pub fn is_open(&self) -> bool {
        match self.state {
            State::Trying | State::Proceeding { .. } => true,
            State::Completed { .. } | State::Terminated => false,
        }
    }

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    fn terminate(&mut self) {
        self.timers.clear();
        self.state = State::Terminated;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, bytes, fire_all, send};
    use super::*;

    fn copy(transaction: &mut Server) -> Vec<Effect> {
        let mut out = Vec::new();
        transaction.handle_request(&mut out);
        out
    }

    #[test]
    fn copies_are_silent_before_the_answer_and_get_it_after_until_timer_j() {
        let mut transaction = Server::new(at(0), Timing::default(), false);
        assert_eq!(copy(&mut transaction), []);
        let mut out = Vec::new();
        transaction.answer(at(10), bytes("200"), &mut out);
        assert_eq!(out, [send("200")]);
        assert_eq!(copy(&mut transaction), [send("200")]);
        transaction.answer(at(11), bytes("500"), &mut out);
        assert_eq!(out, [send("200")], "only the first answer counts");
        assert_eq!(transaction.next_deadline(), Some((at(32_010), Timer::J)));
        out.clear();
        transaction.handle_timeout(at(32_009), &mut out);
        assert!(!transaction.is_terminated() && !transaction.is_open());
        transaction.handle_timeout(at(32_010), &mut out);
        assert!(transaction.is_terminated() && out.is_empty());
    }

    #[test]
    fn on_streams_the_answer_ends_it() {
        let mut transaction = Server::new(at(0), Timing::default(), true);
        transaction.answer(at(0), bytes("200"), &mut Vec::new());
        assert!(transaction.is_terminated() && transaction.next_deadline().is_none());
    }

    #[test]
    fn a_slow_answer_owes_a_100_at_3500_ms_and_is_dropped_at_32_s_without_a_408() {
        let mut transaction = Server::new(at(0), Timing::default(), false);
        let mut fired = fire_all(|now, out| {
            transaction.handle_timeout(now, out);
            if out.last() == Some(&Effect::OweTrying) {
                transaction.trying(bytes("100"), out);
            }
            transaction.next_deadline()
        });
        fired.dedup();
        let expected =
            [(3_500, Effect::OweTrying), (3_500, send("100")), (32_000, Effect::TimedOut)];
        assert_eq!(fired, expected);
        assert!(transaction.is_terminated());
        let mut out = Vec::new();
        transaction.answer(at(32_000), bytes("200"), &mut out);
        assert_eq!(out, []);
    }

    #[test]
    fn a_copy_after_the_100_gets_the_100() {
        let mut transaction = Server::new(at(0), Timing::default(), false);
        transaction.trying(bytes("100"), &mut Vec::new());
        assert_eq!(copy(&mut transaction), [send("100")]);
        assert!(transaction.is_open());
    }
}
