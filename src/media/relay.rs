//! What one leg says, handed on to the only one that hears it: where two legs of one codec hear each
//! other and nobody else, packets are neither decoded nor encoded. Each leaves as it arrives, under
//! our own SSRC, and no jitter buffer adds a delay: the far one does its work once. It sends nothing
//! itself and knows no leg; the pacer beside it fills what the source leaves open.
//!
//! | of the source | for the listener |
//! |---|---|
//! | sequence numbers | one step further: gaps stay gaps, what was overtaken keeps its own number |
//! | timestamps, markers | one step further while the stream is one; kept |
//! | another SSRC, a jump of more than 100 numbers | on probation; two in a row begin a new stream |
//! | duplicates, numbers from before the entry | dropped |
//! | keys; comfort noise that the listener does not take | not handed on; the numbers close up |
//! | nothing for 200 ms, or 5 s of a pause that was told | silence of the pacer, in its place on the grid |
//! | a spurt whose place such silence has | moved behind it; the next silence begins by so much later |
//!
//! ```text
//! Waiting ─a good moment─▶ Open: handing on ─nothing came─▶ Open: own frames
//!                                    ▲──────a packet in its place────┘
//! ```

use super::lane::scaled;
use crate::codec::g711::Law;
use crate::ground::{Instant, LegId};
use crate::rtp::packet::RtpHeader;
use std::time::Duration;

/// Payload bytes that are handed on at most.
const PAYLOAD_BYTES_MAX: usize = 1_400;
/// A source that says nothing for so long is not waited for: longer than any network's jitter.
const STALL: Duration = Duration::from_millis(200);
/// A pause that the source told of; it is the far decoder's to fill.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Packets whose place was filled come within this time after a stall; then the place is moved.
const STALL_BURST: Duration = Duration::from_millis(100);
/// A source whose clock went ahead of ours meanwhile keeps its time up to this part of a second, and a
/// spurt may come so late behind silence of ours and be moved.
const NEAR_PART: u32 = 10;
/// A jump of the sequence number by more than this is a new stream, not a loss.
const SEQUENCE_JUMP_MAX: u16 = 100;
/// How far a packet may be behind and still be handed on.
const BEHIND_MAX: u16 = 64;
/// Payloads that are kept for a decoder that has to go on, and the longest that is.
const KEPT: usize = 4;
const KEPT_BYTES: usize = 480;
/// Samples that are joined: 5 ms of G.711.
const SPLICED_SAMPLES: usize = 40;
/// Peak up to which the source counts as quiet at first; it doubles each second, so that in noise and
/// music the least loud moment serves.
const QUIET_PEAK: u16 = 128;

/// What one speaker's packets become for one listener.
pub(super) struct Relay {
    pub(super) speaker: LegId,
    since: Instant,
    open: bool,
    source: Option<Source>,
    /// SSRC and next number of a stream on probation.
    probation: Option<(u32, u16)>,
    /// From the source's numbers to ours; `None` while frames of our own are between.
    sequence_step: Option<u16>,
    timestamp_step: Option<u32>,
    stall_until: Option<Instant>,
    /// The source is silent by its own word, or goes unheard: what it says next begins a spurt.
    pausing: bool,
    /// Ticks that spurts of this stream were moved by behind the frames of our own that stood in their
    /// place; at most a [`NEAR_PART`] of a second is given back.
    moved: u32,
    /// When the pacer goes on by itself.
    due: Instant,
    own: bool,
    /// The packet that leaves next.
    waiting: Option<(RtpHeader, usize)>,
    payload: [u8; PAYLOAD_BYTES_MAX],
    kept: Kept,
}

/// Where the source's numbers stand.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    /// The number after the newest one, and the timestamp after its audio.
    next: u16,
    timestamp: u32,
    /// Bit n: the packet n + 1 before the next one was here.
    seen: u64,
    /// Only so many numbers before the next one have a place.
    reach: u16,
}

/// The newest payloads, for a decoder that has to go on behind them.
struct Kept {
    payloads: [[u8; KEPT_BYTES]; KEPT],
    lens: [usize; KEPT],
    next: usize,
}

/// A packet of the source.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) header: RtpHeader,
    /// RTP ticks of its audio; `None` for what is not handed on.
    pub(super) ticks: Option<u32>,
    /// It tells of a pause.
    pub(super) pauses: bool,
    /// It is comfort noise (RFC 3389).
    pub(super) is_noise: bool,
    pub(super) payload: &'a [u8],
}

/// Where the listener's stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The next number and timestamp that are free.
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    /// The timestamp of what begins now.
    pub(super) start: u32,
    pub(super) clock_hz: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passage {
    /// It leaves. `next`: the number and timestamp behind it, where it is the newest.
    Taken {
        next: Option<(u16, u32)>,
    },
    /// Nothing of it is for the listener.
    Absorbed,
    Late,
    Duplicate,
    Refused,
}

/// How a packet stands to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Newest { restarted: bool },
    Behind,
    Late,
    Duplicate,
    Probation,
}

impl Relay {
    /// A relay that waits for a good moment.
    pub(super) fn new(now: Instant, speaker: LegId) -> Relay {
        Relay {
            speaker,
            since: now,
            open: false,
            source: None,
            probation: None,
            sequence_step: None,
            timestamp_step: None,
            stall_until: None,
            pausing: false,
            moved: 0,
            due: now,
            own: false,
            waiting: None,
            payload: [0; PAYLOAD_BYTES_MAX],
            kept: Kept { payloads: [[0; KEPT_BYTES]; KEPT], lens: [0; KEPT], next: 0 },
        }
    }

    /// Packets are handed on.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The peak that counts as quiet by now.
    pub(super) fn quiet_peak(&self, now: Instant) -> u16 {
        let waited = now.since(self.since).as_secs().min(8);
        u16::try_from(u32::from(QUIET_PEAK) << waited).unwrap_or(u16::MAX)
    }

    /// From now on packets are handed on.
    pub(super) fn enter(&mut self, now: Instant) {
        (self.open, self.own, self.due) = (true, false, now + STALL);
    }

    /// When the pacer goes on; `None` while it does.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.own).then_some(self.due)
    }

    /// The pacer goes on: its frames take the next numbers and timestamps.
    pub(super) fn interrupt(&mut self) {
        (self.own, self.sequence_step, self.waiting) = (true, None, None);
    }

    /// A packet waits to leave.
    pub(super) fn holds_packet(&self) -> bool {
        self.waiting.is_some()
    }

    /// Writes the payload that leaves next to the front of `out`; gives its header, for which the
    /// listener has its own payload number and SSRC, and its length.
    pub(super) fn take_packet(&mut self, out: &mut [u8]) -> Option<(RtpHeader, usize)> {
        let (header, len) = self.waiting.take()?;
        let payload = self.payload.get(..len)?;
        out.get_mut(..len)?.copy_from_slice(payload);
        Some((header, len))
    }

    /// The newest payloads, the oldest first.
    pub(super) fn kept(&self) -> impl Iterator<Item = &[u8]> {
        let places = (0..KEPT).map(|n| (self.kept.next + n) % KEPT);
        let payload = |place: usize| self.kept.payloads[place].get(..self.kept.lens[place]);
        places.filter_map(payload).filter(|payload| !payload.is_empty())
    }

    /// SSRC and number of the packet that the source sends next, and the timestamp after its last one.
    pub(super) fn source(&self) -> Option<(u32, u16, u32)> {
        self.source.map(|source| (source.ssrc, source.next, source.timestamp))
    }

    /// Follows the source while nothing of it is handed on.
    pub(super) fn follow(&mut self, packet: Incoming<'_>) -> Passage {
        self.interrupt();
        match self.judge(packet) {
            Ok(_) => {
                self.pausing = true;
                Passage::Absorbed
            }
            Err(passage) => passage,
        }
    }

    /// Silence begins behind what was handed on. Gives the ticks by which it does later, so that the
    /// source's own time is free again.
    pub(super) fn give_back(&mut self) -> u32 {
        let moved = std::mem::take(&mut self.moved);
        self.timestamp_step = self.timestamp_step.map(|step| step.wrapping_sub(moved));
        moved
    }

    /// Takes a packet of the source, which leaves at once.
    pub(super) fn take(&mut self, now: Instant, packet: Incoming<'_>, place: Place) -> Passage {
        if self.waiting.is_some() || packet.payload.len() > PAYLOAD_BYTES_MAX {
            return Passage::Refused;
        }
        let is_newest = match self.judge(packet) {
            Ok(is_newest) => is_newest,
            Err(passage) => return passage,
        };
        let Some(ticks) = packet.ticks else {
            self.close_up(now, is_newest, packet.pauses);
            return Passage::Absorbed;
        };
        if self.sequence_step.is_none() && !is_newest {
            return Passage::Late;
        }
        let resumed = self.own || (self.sequence_step.is_none() && self.timestamp_step.is_some());
        let header = match self.numbered(now, packet.header, place) {
            Some(header) => RtpHeader { marker: header.marker || resumed, ..header },
            None => return Passage::Late,
        };
        self.keep(header, packet);
        let patience = if packet.pauses { PAUSE_MAX } else { STALL };
        (self.own, self.due, self.pausing) = (false, now + patience, packet.pauses);
        let next = (header.sequence.wrapping_add(1), header.timestamp.wrapping_add(ticks));
        Passage::Taken { next: is_newest.then_some(next) }
    }

    /// Whether a packet is the newest one of its stream; what became of it where it is none of it.
    fn judge(&mut self, packet: Incoming<'_>) -> Result<bool, Passage> {
        match self.turn(packet.header, packet.ticks.unwrap_or(0)) {
            Turn::Newest { restarted } => {
                if restarted {
                    (self.sequence_step, self.timestamp_step, self.moved) = (None, None, 0);
                }
                Ok(true)
            }
            Turn::Behind => Ok(false),
            Turn::Late => Err(Passage::Late),
            Turn::Duplicate => Err(Passage::Duplicate),
            Turn::Probation => Err(Passage::Refused),
        }
    }

    /// Judges a number, and notes it.
    fn turn(&mut self, header: RtpHeader, ticks: u32) -> Turn {
        let RtpHeader { ssrc, sequence, .. } = header;
        let timestamp = header.timestamp.wrapping_add(ticks);
        let next = sequence.wrapping_add(1);
        let known = self.source.as_mut().filter(|source| {
            let (ahead, behind) =
                (sequence.wrapping_sub(source.next), source.next.wrapping_sub(sequence));
            source.ssrc == ssrc && ahead.min(behind) <= SEQUENCE_JUMP_MAX
        });
        let Some(source) = known else {
            if self.source.is_some() && self.probation != Some((ssrc, sequence)) {
                self.probation = Some((ssrc, next));
                return Turn::Probation;
            }
            self.probation = None;
            self.source = Some(Source { ssrc, next, timestamp, seen: 1, reach: 0 });
            return Turn::Newest { restarted: true };
        };
        self.probation = None;
        let ahead = sequence.wrapping_sub(source.next);
        if ahead <= SEQUENCE_JUMP_MAX {
            let step = ahead + 1;
            source.seen = source.seen.checked_shl(u32::from(step)).unwrap_or(0) | 1;
            source.reach = (source.reach + step).min(BEHIND_MAX);
            (source.next, source.timestamp) = (next, timestamp);
            return Turn::Newest { restarted: false };
        }
        let behind = source.next.wrapping_sub(sequence);
        let bit = 1u64.checked_shl(u32::from(behind) - 1).unwrap_or(0);
        if source.seen & bit != 0 {
            return Turn::Duplicate;
        }
        if behind > source.reach {
            return Turn::Late;
        }
        source.seen |= bit;
        Turn::Behind
    }

    /// The packet's number and timestamp for the listener; `None` when its place is taken.
    fn numbered(&mut self, now: Instant, header: RtpHeader, place: Place) -> Option<RtpHeader> {
        if let (Some(sequence), Some(timestamp)) = (self.sequence_step, self.timestamp_step) {
            let sequence = header.sequence.wrapping_add(sequence);
            let timestamp = header.timestamp.wrapping_add(timestamp);
            return Some(RtpHeader { sequence, timestamp, ..header });
        }
        let timestamp = match self.timestamp_step {
            None => place.start,
            Some(step) => self.rejoin(now, header, step, place)?,
        };
        self.stall_until = None;
        self.sequence_step = Some(place.sequence.wrapping_sub(header.sequence));
        self.timestamp_step = Some(timestamp.wrapping_sub(header.timestamp));
        if let Some(source) = &mut self.source {
            source.reach = 0;
        }
        Some(RtpHeader { sequence: place.sequence, timestamp, ..header })
    }

    /// Where a source goes on after frames of our own: in its own time, as long as that is free. A spurt
    /// begins behind the frame that is in its place. What was held up and comes at once is late, so that
    /// the listener gets no burst and no delay of it.
    fn rejoin(&mut self, now: Instant, header: RtpHeader, step: u32, place: Place) -> Option<u32> {
        let timestamp = header.timestamp.wrapping_add(step);
        let ahead = timestamp.wrapping_sub(place.timestamp) as i32;
        let near = ahead.unsigned_abs() <= place.clock_hz / NEAR_PART;
        if ahead < 0 && near && self.stall_until.is_none() && (header.marker || self.pausing) {
            let moved = self.moved.saturating_add(place.start.wrapping_sub(timestamp));
            self.moved = moved.min(place.clock_hz / NEAR_PART);
            return Some(place.start);
        }
        if ahead < 0 {
            let until = *self.stall_until.get_or_insert(now + STALL_BURST);
            // It is there again: the place of its next packet stays free.
            (self.own, self.due) = (false, now + STALL_BURST);
            return (now > until).then_some(place.start);
        }
        Some(if near { timestamp } else { place.start })
    }

    /// What is not handed on leaves no gap behind. A pause that it tells of is the pacer's to fill.
    fn close_up(&mut self, now: Instant, is_newest: bool, pauses: bool) {
        if is_newest {
            self.sequence_step = self.sequence_step.map(|step| step.wrapping_sub(1));
            if let Some(source) = &mut self.source {
                source.reach = 0;
            }
        }
        if pauses {
            self.pausing = true;
            self.due = if self.own { self.due } else { now };
        }
    }

    fn keep(&mut self, header: RtpHeader, packet: Incoming<'_>) {
        let payload = packet.payload;
        // Both fit: longer ones were refused.
        if let Some(place) = self.payload.get_mut(..payload.len()) {
            place.copy_from_slice(payload);
            self.waiting = Some((header, payload.len()));
        }
        if packet.is_noise {
            return;
        }
        let Kept { payloads, lens, next } = &mut self.kept;
        match payloads[*next].get_mut(..payload.len()) {
            Some(place) => {
                place.copy_from_slice(payload);
                lens[*next] = payload.len();
                *next = (*next + 1) % KEPT;
            }
            None => *lens = [0; KEPT],
        }
    }
}

/// Joins G.711 behind what the listener heard before: its first milliseconds rise, and `tail`, which
/// sinks over as many, is added.
pub(super) fn splice(law: Law, tail: &[i16], payload: &mut [u8]) {
    let fade = tail.len().min(payload.len()).min(SPLICED_SAMPLES);
    let mut pcm = [0; SPLICED_SAMPLES];
    // Neither fails for what fits.
    let _ = law.decode(&payload[..fade], &mut pcm[..fade]);
    for (index, (sample, tail)) in pcm[..fade].iter_mut().zip(tail).enumerate() {
        *sample = scaled(*sample, index + 1, fade + 1).saturating_add(*tail);
    }
    let _ = law.encode(&pcm[..fade], &mut payload[..fade]);
}
