//! The client transaction of every method but INVITE (RFC 3261 §17.1.2): the request again by
//! Timer E on unreliable transports, until an answer or Timer F.

use super::Effect;
use super::timing::{Timer, Timers, Timing};
use crate::ground::Instant;
use bytes::Bytes;
use std::time::Duration;

/// One non-INVITE request of ours.
#[derive(Debug)]
pub struct Client {
    state: State,
    timers: Timers<2>,
    timing: Timing,
    reliable: bool,
}

#[derive(Debug)]
enum State {
    Trying { request: Bytes, interval: Duration },
    Proceeding { request: Bytes },
    Completed,
    Terminated,
}

impl Client {
    /// Sends the request.
    pub fn new(
        now: Instant,
        timing: Timing,
        reliable: bool,
        request: Bytes,
        out: &mut Vec<Effect>,
    ) -> Client {
        out.push(Effect::Send(request.clone()));
        let mut timers = Timers::new();
        timers.set(Timer::F, now + timing.life());
        if !reliable {
            timers.set(Timer::E, now + timing.t1);
        }
        Client { state: State::Trying { request, interval: timing.t1 }, timers, timing, reliable }
    }

    /// A 1xx came: retransmission slows down to T2, Timer F goes on.
    pub fn handle_provisional(&mut self, out: &mut Vec<Effect>) {
        match &self.state {
            State::Trying { request, .. } => {
                self.state = State::Proceeding { request: request.clone() };
                out.push(Effect::PassUp);
            }
            State::Proceeding { .. } => out.push(Effect::PassUp),
            State::Completed | State::Terminated => {}
        }
    }

    /// A final response came. Its copies are absorbed until Timer K.
    pub fn handle_final(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match self.state {
            State::Trying { .. } | State::Proceeding { .. } => {}
            State::Completed | State::Terminated => return,
        }
        out.push(Effect::PassUp);
        self.timers.clear();
        if self.reliable {
            self.state = State::Terminated;
        } else {
            self.state = State::Completed;
            self.timers.set(Timer::K, now + self.timing.t4);
        }
    }

    /// The flow cannot carry the request.
    pub fn handle_transport_failure(&mut self, out: &mut Vec<Effect>) {
        match self.state {
            State::Trying { .. } | State::Proceeding { .. } => out.push(Effect::TransportFailed),
            State::Completed | State::Terminated => {}
        }
        self.terminate();
    }

    /// Lets every due timer act.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::E => self.on_timer_e(now, out),
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

    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// Timer E: T1, 2 × T1, … up to T2 while Trying; T2 while Proceeding.
    fn on_timer_e(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (request, next) = match &mut self.state {
            State::Trying { request, interval } => {
                *interval = self.timing.next_interval(*interval);
                (request.clone(), *interval)
            }
            State::Proceeding { request } => (request.clone(), self.timing.t2),
            State::Completed | State::Terminated => return,
        };
        out.push(Effect::Send(request));
        self.timers.set(Timer::E, now + next);
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

    fn trying(reliable: bool) -> Client {
        let mut out = Vec::new();
        let transaction = Client::new(at(0), Timing::default(), reliable, bytes("BYE"), &mut out);
        assert_eq!(out, [send("BYE")]);
        transaction
    }

    #[test]
    fn without_an_answer_timer_e_sends_ten_more_and_timer_f_ends_it() {
        let mut transaction = trying(false);
        let fired = fire_all(|now, out| {
            transaction.handle_timeout(now, out);
            transaction.next_deadline()
        });
        let times = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        let mut expected = sends(&times, "BYE");
        expected.push((32_000, Effect::TimedOut));
        assert_eq!(fired, expected);
        assert!(transaction.is_terminated());
    }

    #[test]
    fn after_a_provisional_timer_e_runs_at_t2() {
        let mut transaction = trying(false);
        let mut out = Vec::new();
        transaction.handle_provisional(&mut out);
        transaction.handle_provisional(&mut out);
        assert_eq!(out, [Effect::PassUp, Effect::PassUp]);
        let fired = fire_all(|now, out| {
            transaction.handle_timeout(now, out);
            transaction.next_deadline()
        });
        let times = [500, 4_500, 8_500, 12_500, 16_500, 20_500, 24_500, 28_500];
        let mut expected = sends(&times, "BYE");
        expected.push((32_000, Effect::TimedOut));
        assert_eq!(fired, expected);
    }

    #[test]
    fn a_final_answer_goes_up_once_and_timer_k_absorbs_copies() {
        let mut transaction = trying(false);
        let mut out = Vec::new();
        transaction.handle_final(at(40), &mut out);
        transaction.handle_final(at(41), &mut out);
        transaction.handle_provisional(&mut out);
        assert_eq!(out, [Effect::PassUp]);
        assert_eq!(transaction.next_deadline(), Some((at(5_040), Timer::K)));
        transaction.handle_timeout(at(5_039), &mut out);
        assert!(!transaction.is_terminated());
        transaction.handle_timeout(at(5_040), &mut out);
        assert!(transaction.is_terminated());
        assert_eq!(out, [Effect::PassUp]);
    }

    #[test]
    fn on_streams_nothing_is_repeated_and_the_answer_ends_it() {
        let mut transaction = trying(true);
        assert_eq!(transaction.next_deadline(), Some((at(32_000), Timer::F)));
        transaction.handle_final(at(1), &mut Vec::new());
        assert!(transaction.is_terminated());
    }

    #[test]
    fn a_dead_flow_ends_it() {
        let mut transaction = trying(true);
        let mut out = Vec::new();
        transaction.handle_transport_failure(&mut out);
        transaction.handle_transport_failure(&mut out);
        assert_eq!(out, [Effect::TransportFailed]);
        assert!(transaction.is_terminated() && transaction.next_deadline().is_none());
    }
}
