//! The jitter buffer (RFC 3550 §6.4, §A.1): gives packets in the order of their sequence numbers. A
//! packet in order passes through at once and is never copied; only a gap waits, for at most the
//! target. It counts nothing and decodes nothing. Room for what waits is taken at the first gap, and
//! kept.
//!
//! | arrives | answer |
//! |---|---|
//! | the next number | `InOrder`: play it, then `pop` what waited behind it |
//! | a later number | `Waits`; after the target `pop` gives `lost` with it |
//! | an earlier number | `Late`, or `Duplicate` when it was here before |
//! | another SSRC, a jump of more than 100 | `Probation`; two in a row start the stream anew |

use crate::ground::Instant;
use crate::rtp::packet::RtpHeader;
use std::time::Duration;

/// What became of a packet that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Play it now. `restarted`: a new stream begins here, unrelated to what came before.
    InOrder {
        restarted: bool,
    },
    /// Kept until the gap before it closes or is given up.
    Waits,
    /// The gap before it was given up already.
    Late,
    Duplicate,
    /// First packet of what may be a new stream; not played.
    Probation,
    /// No place: `give_up` the gap, `pop`, and let it arrive again.
    Full,
}

/// A packet whose turn has come.
#[derive(Debug)]
pub struct Ready<'a> {
    pub header: RtpHeader,
    /// Packets before it that never came in time.
    pub lost: u16,
    /// How long it waited for them.
    pub waited: Duration,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    header: RtpHeader,
    arrived: Instant,
    start: u16,
    len: u16,
}

impl Entry {
    fn place(&self) -> std::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }
}

/// Packets that may wait behind a gap.
pub const WAITING_MAX: usize = 32;
/// Payload bytes that may wait behind a gap.
pub const WAITING_BYTES_MAX: usize = 4 * 1024;
/// A jump of the sequence number by more than this is a new stream, not a loss.
const SEQUENCE_JUMP_MAX: u16 = 100;

/// Puts packets of one stream in order.
#[derive(Debug)]
pub struct JitterBuffer {
    target: Duration,
    /// SSRC and next sequence number; `None` before the first packet.
    expected: Option<(u32, u16)>,
    /// SSRC and next number of a stream on probation.
    probation: Option<(u32, u16)>,
    /// Bit n: the packet n + 1 before the expected one was here.
    seen: u64,
    waiting: Vec<Entry>,
    bytes: Vec<u8>,
    given_up: bool,
}

impl JitterBuffer {
    pub fn new(target: Duration) -> JitterBuffer {
        JitterBuffer {
            target,
            expected: None,
            probation: None,
            seen: 0,
            waiting: Vec::new(),
            bytes: Vec::new(),
            given_up: false,
        }
    }

    /// How long a gap waits.
    pub fn target(&self) -> Duration {
        self.target
    }

    /// Sets how long gaps wait from now on.
    pub fn set_target(&mut self, target: Duration) {
        self.target = target;
    }

    /// No packet waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets the stream; the next packet begins one.
    pub fn restart(&mut self) {
        self.waiting.clear();
        self.expected = None;
    }

    /// Goes on with a stream that came elsewhere until now: its SSRC and next number.
    pub fn resume(&mut self, ssrc: u32, next: u16) {
        self.restart();
        (self.probation, self.given_up, self.seen) = (None, false, u64::MAX);
        self.expected = Some((ssrc, next));
    }

    /// Whether this packet is the next one, with none before it that waits.
    pub fn is_next(&self, header: RtpHeader) -> bool {
        self.waiting.is_empty() && self.expected == Some((header.ssrc, header.sequence))
    }

    /// Judges a packet, and keeps a copy when it has to wait.
    pub fn arrive(&mut self, now: Instant, header: RtpHeader, payload: &[u8]) -> Arrival {
        let Some((ssrc, next)) = self.expected else {
            return self.start(header);
        };
        let ahead = header.sequence.wrapping_sub(next);
        let behind = next.wrapping_sub(header.sequence);
        if ssrc != header.ssrc || ahead.min(behind) > SEQUENCE_JUMP_MAX {
            return self.on_strange(header);
        }
        self.probation = None;
        if ahead == 0 {
            self.step(0);
            return Arrival::InOrder { restarted: false };
        }
        if ahead > SEQUENCE_JUMP_MAX {
            return self.on_past(behind);
        }
        self.keep(now, header, payload)
    }

    /// When the gap at the front is given up.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.waiting.iter().map(|entry| entry.arrived).min()?;
        Some(first + self.target)
    }

    /// Gives the gap at the front up now, whatever its deadline.
    pub fn give_up(&mut self) {
        self.given_up = !self.waiting.is_empty();
    }

    /// The next packet whose turn has come, by order or since its gap was given up.
    pub fn pop(&mut self, now: Instant) -> Option<Ready<'_>> {
        let (_, next) = self.expected?;
        let entry = *self.waiting.first()?;
        let lost = entry.header.sequence.wrapping_sub(next);
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if lost > 0 && !due && !self.given_up {
            return None;
        }
        self.given_up = false;
        self.waiting.remove(0);
        self.step(lost);
        let payload = self.bytes.get(entry.place())?;
        let waited = now.since(entry.arrived);
        Some(Ready { header: entry.header, lost, waited, payload })
    }

    fn start(&mut self, header: RtpHeader) -> Arrival {
        self.waiting.clear();
        self.bytes.clear();
        self.probation = None;
        self.given_up = false;
        self.seen = 1;
        self.expected = Some((header.ssrc, header.sequence.wrapping_add(1)));
        Arrival::InOrder { restarted: true }
    }

    fn on_strange(&mut self, header: RtpHeader) -> Arrival {
        if self.probation == Some((header.ssrc, header.sequence)) {
            return self.start(header);
        }
        self.probation = Some((header.ssrc, header.sequence.wrapping_add(1)));
        Arrival::Probation
    }

    fn on_past(&self, behind: u16) -> Arrival {
        let bit = 1u64.checked_shl(u32::from(behind) - 1).unwrap_or(0);
        if self.seen & bit != 0 { Arrival::Duplicate } else { Arrival::Late }
    }

    /// The expected number moves behind the packet that is played, `lost` before it missing.
    fn step(&mut self, lost: u16) {
        let shift = u32::from(lost) + 1;
        self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
        if let Some((_, next)) = &mut self.expected {
            *next = next.wrapping_add(lost).wrapping_add(1);
        }
    }

    fn keep(&mut self, now: Instant, header: RtpHeader, payload: &[u8]) -> Arrival {
        let later =
            |entry: &Entry| entry.header.sequence.wrapping_sub(header.sequence) < u16::MAX / 2;
        let place = self.waiting.iter().position(later).unwrap_or(self.waiting.len());
        let same = self.waiting.get(place).map(|entry| entry.header.sequence);
        if same == Some(header.sequence) {
            return Arrival::Duplicate;
        }
        if self.waiting.is_empty() {
            self.bytes.clear();
        } else if self.bytes.len() + payload.len() >= WAITING_BYTES_MAX {
            self.compact();
        }
        let fits = self.bytes.len() + payload.len() < WAITING_BYTES_MAX;
        if self.waiting.len() == WAITING_MAX || !fits {
            return Arrival::Full;
        }
        // Both fit: the bytes that wait are bounded.
        let (start, len) = (self.bytes.len() as u16, payload.len() as u16);
        self.bytes.extend_from_slice(payload);
        if payload.is_empty() {
            self.bytes.push(0);
        }
        self.waiting.insert(place, Entry { header, arrived: now, start, len });
        Arrival::Waits
    }

    /// Moves the payloads that still wait together, in the order in which they lie. Each takes at
    /// least one byte, so that no two begin at the same place.
    fn compact(&mut self) {
        let mut end = 0u16;
        for _ in 0..self.waiting.len() {
            let movable = self.waiting.iter_mut().filter(|entry| entry.start >= end);
            let Some(entry) = movable.min_by_key(|entry| entry.start) else { break };
            let span = entry.len.max(1);
            let start = usize::from(entry.start);
            self.bytes.copy_within(start..start + usize::from(span), usize::from(end));
            entry.start = end;
            end += span;
        }
        self.bytes.truncate(usize::from(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs "5 7@10 6@15 !80": packets by number with their arrival in milliseconds, `!` a look at
    /// the clock; gives what is played: `+` stands for one lost packet, words for refusals.
    fn play(script: &str) -> String {
        let mut buffer = JitterBuffer::new(Duration::from_millis(60));
        let mut out: Vec<String> = Vec::new();
        let mut at = Instant::ZERO;
        for word in script.split_whitespace() {
            let (what, time) = word.split_once('@').unwrap_or((word, ""));
            if let Ok(milliseconds) = time.parse() {
                at = Instant::ZERO + Duration::from_millis(milliseconds);
            }
            if what != "!" {
                let (ssrc, number) = what.split_once('/').unwrap_or(("1", what));
                arrive(&mut buffer, at, ssrc.parse().unwrap(), number.parse().unwrap(), &mut out);
            }
            drain(&mut buffer, at, &mut out);
        }
        out.join(" ")
    }

    fn arrive(
        buffer: &mut JitterBuffer,
        at: Instant,
        ssrc: u32,
        number: u16,
        out: &mut Vec<String>,
    ) {
        let header =
            RtpHeader { ssrc, sequence: number, timestamp: 0, marker: false, payload_type: 0 };
        match buffer.arrive(at, header, &number.to_be_bytes()) {
            Arrival::InOrder { restarted: true } => out.push(format!("start:{number}")),
            Arrival::InOrder { restarted: false } => out.push(number.to_string()),
            Arrival::Waits => {}
            Arrival::Full => {
                buffer.give_up();
                drain(buffer, at, out);
                arrive(buffer, at, ssrc, number, out);
            }
            refused => out.push(format!("{refused:?}").to_lowercase()),
        }
    }

    fn drain(buffer: &mut JitterBuffer, at: Instant, out: &mut Vec<String>) {
        while let Some(ready) = buffer.pop(at) {
            assert_eq!(ready.payload, ready.header.sequence.to_be_bytes());
            out.push(format!("{}{}", "+".repeat(usize::from(ready.lost)), ready.header.sequence));
        }
    }

    #[test]
    fn ladders() {
        for (script, played) in [
            ("5 6 7", "start:5 6 7"),
            ("5 7@20 6@79 8", "start:5 6 7 8"),
            ("5 7@20 !@79 !@80", "start:5 +7"),
            ("5 7@20 8@40 9@60 !@79 !@80 6@80", "start:5 +7 8 9 late"),
            ("5 8@20 7@30 !@79 !@80 6@81", "start:5 +7 8 late"),
            ("5 9@0 7@10 !@60", "start:5 +7 +9"),
            ("5 5 7@1 7 6 6 5", "start:5 duplicate duplicate 6 7 duplicate duplicate"),
            ("65534 65535 0 1", "start:65534 65535 0 1"),
            ("65534 0@5 65535@6 1", "start:65534 65535 0 1"),
            ("65534 1@5 !@65", "start:65534 ++1"),
            ("5 2/900 2/901 2/902 6", "start:5 probation start:901 902 probation"),
            ("5 2/900 6 2/901 7", "start:5 probation 6 probation 7"),
            ("5 107 108 109", "start:5 probation start:108 109"),
            ("500 399 400", "start:500 probation start:400"),
        ] {
            assert_eq!(play(script), played, "{script}");
        }
        assert_eq!(play("5 106 !@60"), format!("start:5 {}106", "+".repeat(100)));
    }

    #[test]
    fn more_than_fits_gives_the_gap_up_and_loses_nothing_else() {
        let script: Vec<String> = (7..40).map(|number| number.to_string()).collect();
        let rest: Vec<String> = (8..40).map(|number| number.to_string()).collect();
        assert_eq!(
            play(&format!("5 {}", script.join(" "))),
            format!("start:5 +7 {}", rest.join(" "))
        );
    }

    #[test]
    fn payloads_of_any_size_survive_moves() {
        let mut buffer = JitterBuffer::new(Duration::from_millis(60));
        let payload = |sequence: u16| vec![sequence as u8; usize::from(sequence) * 37 % 900];
        let header = |sequence| RtpHeader {
            ssrc: 1,
            sequence,
            timestamp: 0,
            marker: false,
            payload_type: 0,
        };
        buffer.arrive(Instant::ZERO, header(0), &[]);
        for base in (2..4_000).step_by(4) {
            for sequence in [base + 2, base, base + 1] {
                if buffer.arrive(Instant::ZERO, header(sequence), &payload(sequence))
                    == Arrival::Full
                {
                    panic!("three packets fit");
                }
            }
            buffer.give_up();
            for sequence in base..base + 3 {
                let ready = buffer.pop(Instant::ZERO).expect("the gap was given up");
                assert_eq!(
                    (ready.header.sequence, ready.payload),
                    (sequence, &payload(sequence)[..])
                );
            }
        }
    }
}
