//! Reliable provisional answers (RFC 3262) as leaf machines: [`Reliable`] repeats those of ours until
//! their PRACK comes, [`Received`] says which of the peer's are news. Neither writes a message. Ours
//! describe no media, so a 2xx never has to wait for a PRACK (§3).

use super::msg::{Headers, Name};
use super::transaction::Timing;
use crate::ground::{Flow, Instant};
use bytes::Bytes;
use std::time::Duration;

/// The reliable provisional answers to one INVITE of the peer.
#[derive(Debug)]
pub struct Reliable {
    /// The number of the last one (§3): it starts below 2^31, so that counting never wraps.
    last: u32,
    /// The INVITE's CSeq number.
    cseq: u32,
    waiting: Option<Waiting>,
    /// The code that goes out next: one at a time (§3).
    next: Option<u16>,
    /// The final answer is out: nothing is repeated, but a late PRACK still fits.
    is_over: bool,
}

#[derive(Debug)]
struct Waiting {
    flow: Flow,
    answer: Bytes,
    interval: Duration,
    again: Instant,
    until: Instant,
}

/// What is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReliableEffect {
    Repeat {
        flow: Flow,
        answer: Bytes,
    },
    /// 64 × T1 without a PRACK: the INVITE is to be refused (§3).
    NeverAcknowledged,
}

impl Reliable {
    /// For the INVITE with this CSeq number; `first` is the number of the first answer, below 2^31.
    pub fn new(cseq: u32, first: u32) -> Reliable {
        let last = first.max(1) - 1;
        Reliable { last, cseq, waiting: None, next: None, is_over: false }
    }

    /// The number for an answer with this code; `None` while another waits for its PRACK: then it
    /// goes out after that.
    pub fn begin(&mut self, code: u16) -> Option<u32> {
        if self.waiting.is_some() {
            self.next = Some(code);
            return None;
        }
        self.last += 1;
        Some(self.last)
    }

    /// The answer that was begun went out.
    pub fn sent(&mut self, now: Instant, timing: &Timing, flow: Flow, answer: Bytes) {
        let (interval, until) = (timing.t1, now + timing.life());
        self.waiting = Some(Waiting { flow, answer, interval, again: now + interval, until });
    }

    /// A PRACK came. `Err` when it fits no answer that waits (481); else the code that goes out next.
    pub fn handle_prack(&mut self, prack: &Headers) -> Result<Option<u16>, NoSuchAnswer> {
        let rack = prack.get(Name::RAck).and_then(read_rack).ok_or(NoSuchAnswer)?;
        if rack != (self.last, self.cseq) {
            return Err(NoSuchAnswer);
        }
        self.waiting.take().ok_or(NoSuchAnswer)?;
        Ok(self.next.take().filter(|_| !self.is_over))
    }

    /// The final answer goes out.
    pub fn finish(&mut self) {
        self.is_over = true;
    }

    pub fn handle_timeout(&mut self, now: Instant, timing: &Timing, out: &mut Vec<ReliableEffect>) {
        let is_over = self.is_over;
        let Some(waiting) = self.waiting.as_mut().filter(|_| !is_over) else { return };
        if waiting.until <= now {
            self.waiting = None;
            out.push(ReliableEffect::NeverAcknowledged);
        } else if waiting.again <= now {
            let (flow, answer) = (waiting.flow, waiting.answer.clone());
            out.push(ReliableEffect::Repeat { flow, answer });
            // Doubled without the cap of T2 (§3).
            waiting.interval = (waiting.interval * 2).min(timing.life());
            waiting.again = now + waiting.interval;
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref().filter(|_| !self.is_over)?;
        Some(waiting.again.min(waiting.until))
    }
}

/// No answer of ours waits for this PRACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchAnswer;

/// The reliable provisional answers of one fork to one INVITE of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    last: Option<u32>,
    count: u8,
}

/// What a provisional answer of the peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrived {
    /// Not sent reliably: news, without a PRACK.
    Plain,
    /// News: its PRACK goes out with this number.
    InOrder(u32),
    /// A copy, or one that is ahead of others: not looked at (§4).
    Ignored,
}

impl Received {
    /// A provisional answer above 100 came.
    pub fn handle(&mut self, response: &Headers) -> Arrived {
        if !response.has_option(Name::Require, "100rel") {
            return Arrived::Plain;
        }
        let number = response.get(Name::RSeq).and_then(|value| value.trim().parse::<u32>().ok());
        let Some(number) = number.filter(|number| *number > 0) else { return Arrived::Plain };
        match self.last {
            Some(last) if last.checked_add(1) != Some(number) => Arrived::Ignored,
            // A PRACK for each, without end, is no call.
            Some(_) if self.count >= RECEIVED_MAX => Arrived::Ignored,
            Some(_) | None => {
                self.count += 1;
                self.last = Some(number);
                Arrived::InOrder(number)
            }
        }
    }
}

/// Reliable answers of one fork that are acknowledged.
const RECEIVED_MAX: u8 = 64;

/// `response-num CSeq-num Method`, of an INVITE.
fn read_rack(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let cseq = words.next()?.parse().ok()?;
    (words.next()? == "INVITE" && words.next().is_none()).then_some((number, cseq))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{flow, parse_request};
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn message(lines: &str) -> super::super::msg::Request {
        parse_request(&format!(
            "PRACK sip:u@h SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@h>;tag=1\n\
             To: <sip:u@h>\nCall-ID: c\nCSeq: 5 PRACK\n{lines}Content-Length: 0\n\n"
        ))
    }

    fn waiting() -> Reliable {
        let mut reliable = Reliable::new(7, 100);
        assert_eq!(reliable.begin(180), Some(100));
        let bytes = Bytes::from_static(b"180");
        reliable.sent(at(0), &Timing::default(), flow("192.0.2.1:5060"), bytes);
        reliable
    }

    #[test]
    fn it_is_repeated_with_doubled_waits_and_given_up_at_32_s() {
        let mut reliable = waiting();
        let mut told = Vec::new();
        while let Some(deadline) = reliable.next_deadline() {
            let mut out = Vec::new();
            reliable.handle_timeout(deadline, &Timing::default(), &mut out);
            let millis = deadline.since(Instant::ZERO).as_millis();
            told.extend(out.iter().map(|effect| match effect {
                ReliableEffect::Repeat { .. } => (millis, "180"),
                ReliableEffect::NeverAcknowledged => (millis, "never"),
            }));
        }
        let expected = [
            (500, "180"),
            (1_500, "180"),
            (3_500, "180"),
            (7_500, "180"),
            (15_500, "180"),
            (31_500, "180"),
            (32_000, "never"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn only_the_prack_of_the_answer_that_waits_fits_and_only_once() {
        for rack in ["101 7 INVITE", "100 8 INVITE", "100 7 PRACK", "100 7", "x 7 INVITE", ""] {
            let prack = message(&format!("RAck: {rack}\n"));
            assert_eq!(waiting().handle_prack(&prack), Err(NoSuchAnswer), "{rack}");
        }
        assert_eq!(waiting().handle_prack(&message("")), Err(NoSuchAnswer));
        let mut reliable = waiting();
        let prack = message("RAck: 100  7 INVITE\n");
        assert_eq!(reliable.begin(183), None, "one at a time");
        assert_eq!(reliable.begin(181), None, "the last word counts");
        assert_eq!(reliable.handle_prack(&prack), Ok(Some(181)));
        assert_eq!(reliable.next_deadline(), None);
        assert_eq!(reliable.handle_prack(&prack), Err(NoSuchAnswer));
        assert_eq!(reliable.begin(181), Some(101));
    }

    #[test]
    fn after_the_final_answer_nothing_is_repeated_but_a_late_prack_fits() {
        let mut reliable = waiting();
        reliable.begin(183);
        reliable.finish();
        assert_eq!(reliable.next_deadline(), None);
        assert_eq!(reliable.handle_prack(&message("RAck: 100 7 INVITE\n")), Ok(None));
    }

    #[test]
    fn answers_of_the_peer_are_taken_in_order() {
        let mut received = Received::default();
        let rseq = |number: &str| message(&format!("Require: 100rel\nRSeq: {number}\n"));
        assert_eq!(received.handle(&message("RSeq: 1\n")), Arrived::Plain);
        assert_eq!(received.handle(&message("Require: 100rel\n")), Arrived::Plain);
        assert_eq!(received.handle(&rseq("0")), Arrived::Plain);
        assert_eq!(received.handle(&rseq("50")), Arrived::InOrder(50));
        assert_eq!(received.handle(&rseq("50")), Arrived::Ignored);
        assert_eq!(received.handle(&rseq("52")), Arrived::Ignored);
        assert_eq!(received.handle(&rseq("51")), Arrived::InOrder(51));
        assert_eq!(received.handle(&rseq("52")), Arrived::InOrder(52));
        for number in 53..=114 {
            let expected = if number < 114 { Arrived::InOrder(number) } else { Arrived::Ignored };
            assert_eq!(received.handle(&rseq(&number.to_string())), expected, "64 in all");
        }
        let mut last = Received::default();
        assert_eq!(last.handle(&rseq("4294967295")), Arrived::InOrder(u32::MAX));
        assert_eq!(last.handle(&rseq("1")), Arrived::Ignored, "never wraps");
    }
}
