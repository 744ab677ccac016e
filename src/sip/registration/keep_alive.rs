//! Keep-alives on one flow to a registrar (RFC 5626 §4.4): a double CRLF now and then keeps the way
//! through NATs open, and on a connection finds out that nobody is there any more. One of them serves
//! all registrations of its flow.
//!
//! | flow | sent every | failed when |
//! |---|---|---|
//! | UDP | 24–29 s | never: a short packet has no answer |
//! | TCP, TLS | 96–120 s, or what `Flow-Timer` says | no CRLF came back within 10 s |
//!
//! A missing answer counts only where answers are known to come: many servers send none.

use crate::ground::{Entropy, Instant, Transport};
use std::time::Duration;

/// Between pings on UDP (RFC 5626 §4.4.2).
const PACKET_INTERVAL: (Duration, Duration) = (Duration::from_secs(24), Duration::from_secs(29));
/// Between pings on a connection, when the registrar does not say (RFC 5626 §4.4.1); pings come
/// after 80 to 100 % of it.
const STREAM_INTERVAL: Duration = Duration::from_secs(120);
/// How long the answer to a ping may take (RFC 5626 §4.4.1).
const PONG: Duration = Duration::from_secs(10);
/// What a `Flow-Timer` may ask for at least: less would be a flood.
const FLOW_TIMER_MIN: Duration = Duration::from_secs(10);

/// The keep-alives of one flow.
#[derive(Clone, Debug)]
pub struct KeepAlive {
    interval: (Duration, Duration),
    /// Whether answers to pings come here.
    is_answered: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Quiet { ping_at: Instant },
    Pinged { fails_at: Instant },
    Failed,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepAliveOutput {
    /// Send a double CRLF.
    Ping,
    /// Nobody is there any more: the flow is of no use.
    Failed,
}

impl KeepAlive {
    /// `flow_timer` is the header of the registrar's 200 (RFC 5626 §10), in seconds.
    pub fn new(
        now: Instant,
        transport: Transport,
        flow_timer: Option<u32>,
        entropy: &mut Entropy,
    ) -> KeepAlive {
        let is_stream = transport.is_reliable();
        let longest = flow_timer
            .map(|seconds| Duration::from_secs(seconds.into()).max(FLOW_TIMER_MIN))
            .unwrap_or(STREAM_INTERVAL);
        let interval = if is_stream { (longest / 10 * 8, longest) } else { PACKET_INTERVAL };
        let is_answered = is_stream && flow_timer.is_some();
        let ping_at = now + entropy.duration(interval.0, interval.1);
        KeepAlive { interval, is_answered, state: State::Quiet { ping_at } }
    }

    /// A CRLF came back.
    pub fn handle_pong(&mut self, now: Instant, entropy: &mut Entropy) {
        self.is_answered = true;
        if let State::Pinged { .. } = self.state {
            self.rest(now, entropy);
        }
    }

    pub fn handle_timeout(
        &mut self,
        now: Instant,
        entropy: &mut Entropy,
        out: &mut Vec<KeepAliveOutput>,
    ) {
        match self.state {
            State::Quiet { ping_at } if ping_at <= now => {
                out.push(KeepAliveOutput::Ping);
                if self.is_answered {
                    self.state = State::Pinged { fails_at: now + PONG };
                } else {
                    self.rest(now, entropy);
                }
            }
            State::Pinged { fails_at } if fails_at <= now => {
                self.state = State::Failed;
                out.push(KeepAliveOutput::Failed);
            }
            State::Quiet { .. } | State::Pinged { .. } | State::Failed => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Quiet { ping_at } => Some(ping_at),
            State::Pinged { fails_at } => Some(fails_at),
            State::Failed => None,
        }
    }

    fn rest(&mut self, now: Instant, entropy: &mut Entropy) {
        let ping_at = now + entropy.duration(self.interval.0, self.interval.1);
        self.state = State::Quiet { ping_at };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds between pings over ten minutes, with an answer to each when `answered`.
    fn gaps(transport: Transport, flow_timer: Option<u32>, answered: bool) -> (Vec<u64>, bool) {
        let mut entropy = Entropy::from_number(3);
        let mut now = Instant::ZERO;
        let mut machine = KeepAlive::new(now, transport, flow_timer, &mut entropy);
        let (mut gaps, mut last) = (Vec::new(), now);
        while let Some(at) = machine.poll_timeout() {
            now = at;
            if now.since(Instant::ZERO) > Duration::from_secs(600) {
                return (gaps, false);
            }
            let mut out = Vec::new();
            machine.handle_timeout(now, &mut entropy, &mut out);
            if out == [KeepAliveOutput::Failed] {
                return (gaps, true);
            }
            assert_eq!(out, [KeepAliveOutput::Ping]);
            gaps.push(now.since(last).as_secs());
            last = now;
            if answered {
                machine.handle_pong(now, &mut entropy);
            }
        }
        unreachable!("a flow that has not failed has a deadline")
    }

    #[test]
    fn each_flow_has_its_interval() {
        let within = |gaps: &[u64], from, to| gaps.iter().all(|gap| (from..=to).contains(gap));
        let (udp, failed) = gaps(Transport::Udp, Some(60), false);
        assert!(udp.len() > 20 && within(&udp, 24, 29) && !failed, "{udp:?}");
        let (tcp, failed) = gaps(Transport::Tcp, None, true);
        assert!(tcp.len() > 4 && within(&tcp, 96, 120) && !failed, "{tcp:?}");
        let (tls, failed) = gaps(Transport::Tls, Some(30), true);
        assert!(tls.len() > 15 && within(&tls, 24, 30) && !failed, "{tls:?}");
        let (eager, _) = gaps(Transport::Tcp, Some(0), true);
        assert!(within(&eager, 8, 10), "{eager:?}");
    }

    #[test]
    fn a_missing_answer_counts_only_where_answers_come() {
        assert!(!gaps(Transport::Tcp, None, false).1, "answers were never promised");
        let (pings, failed) = gaps(Transport::Tcp, Some(60), false);
        assert!(pings.len() == 1 && failed, "{pings:?}");

        let mut entropy = Entropy::from_number(3);
        let mut machine = KeepAlive::new(Instant::ZERO, Transport::Tcp, None, &mut entropy);
        machine.handle_pong(Instant::ZERO, &mut entropy);
        let mut out = Vec::new();
        let pinged = machine.poll_timeout().expect("quiet");
        machine.handle_timeout(pinged, &mut entropy, &mut out);
        let fails = machine.poll_timeout().expect("pinged");
        assert_eq!(fails.since(pinged), PONG);
        machine.handle_timeout(Instant::from_nanos(fails.as_nanos() - 1), &mut entropy, &mut out);
        assert_eq!(out, [KeepAliveOutput::Ping]);
        machine.handle_timeout(fails, &mut entropy, &mut out);
        assert_eq!(out, [KeepAliveOutput::Ping, KeepAliveOutput::Failed]);
        assert_eq!(machine.poll_timeout(), None);
    }
}
