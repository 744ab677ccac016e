//! Agent audio to the caller: playout queue, encoder and pacer. Frames leave at absolute deadlines;
//! a frame that missed its deadline is skipped and counted, never sent in a burst (house §5).
//!
//! Timestamps follow a grid of real time, one slot for each frame, without overlap or gap (RFC 3550
//! §5.1). Silence leaves at its slot; a talk spurt leaves up to one frame before its slots, in the
//! phase of its own start, so that a first word never waits for the grid:
//!
//! ```text
//! slots     |    0    |    1    |    2    |    3    |    4    |
//! sent      s         s    W         w         w         w    s        W: marker, first word
//! ```

use super::clock::samples_in;
use super::plan::CodecPlan;
use super::playout::PlayoutQueue;
use crate::codec::g711::Law;
use crate::codec::{CodecFault, CodecKind, Encoder, EncoderSettings};
use crate::ground::{Entropy, Instant};
use crate::rtp::packet::RtpHeader;
use std::time::Duration;

/// Frames that a talk spurt may be held back for at its start, when the agent sends them one by one.
const MARGIN_FRAMES_MAX: u32 = 3;
/// Audio that comes this soon after the queue ran empty means that it ran empty too early.
const UNDERRUN: Duration = Duration::from_millis(100);
/// Samples of the longest frame: 60 ms at 48 kHz.
const FRAME_SAMPLES_MAX: usize = 2_880;
/// Frames of silence after which the far decoder is as it was at the start.
const SETTLED_FRAMES: u32 = 3;
const HEADER_BYTES: usize = 12;
/// Bytes of agent audio that are encoded together on arrival.
const ARRIVAL_BYTES: usize = 320;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Talk {
    /// Silence leaves at each slot. `ended`: when the last talk spurt ran empty by itself.
    Quiet { ended: Option<Instant> },
    /// The agent's audio begins to leave at this time.
    Starting { at: Instant },
    /// The next frame of the talk spurt leaves at this time.
    Speaking { next: Instant },
}

/// What was done with agent audio, in samples, and with frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OutboundCounters {
    pub(super) received: u64,
    pub(super) played: u64,
    pub(super) cleared: u64,
    pub(super) dropped: u64,
    pub(super) frames_late: u64,
    pub(super) packets: u32,
    pub(super) payload_bytes: u32,
}

/// The encoder's side of a plan; made anew when the codec changes.
pub(super) struct Voice {
    plan: CodecPlan,
    encoder: Encoder,
    /// One frame of silence, encoded once.
    silence: Box<[u8]>,
    frame: Duration,
    frame_samples: usize,
    frame_ticks: u32,
}

/// The sending half of a leg.
pub(super) struct Outbound {
    voice: Voice,
    rate_hz: u32,
    queue: PlayoutQueue,
    /// First byte of a sample whose second byte has not come yet.
    odd: Option<u8>,
    talk: Talk,
    /// Grid time of `timestamp`: when silence of this timestamp leaves.
    slot: Instant,
    timestamp: u32,
    sequence: u16,
    ssrc: u32,
    /// Frames that a talk spurt waits for when they come one by one; raised by underruns.
    margin: u32,
    /// Packets may leave (the agent joined and an address is known).
    open: bool,
    /// Frames are consumed but not sent: hold.
    muted: bool,
    /// Frames of silence since the last talk spurt.
    silent_frames: u32,
    /// The next packet is the first after a pause in sending.
    resumed: bool,
    counters: OutboundCounters,
}

impl Outbound {
    pub(super) fn new(
        now: Instant,
        plan: &CodecPlan,
        rate_hz: u32,
        entropy: &mut Entropy,
    ) -> Result<Outbound, CodecFault> {
        Ok(Outbound {
            voice: Voice::new(plan, rate_hz)?,
            rate_hz,
            queue: PlayoutQueue::default(),
            odd: None,
            talk: Talk::Quiet { ended: None },
            slot: now,
            timestamp: entropy.u32(),
            sequence: entropy.u32() as u16,
            ssrc: entropy.u32(),
            margin: 1,
            open: false,
            muted: false,
            silent_frames: 0,
            resumed: false,
            counters: OutboundCounters::default(),
        })
    }

    /// Takes agent audio: 16-bit little-endian samples in pieces of any length.
    pub(super) fn handle_audio(&mut self, now: Instant, bytes: &[u8]) {
        let mut rest = bytes;
        if let (Some(low), Some((high, after))) = (self.odd, rest.split_first()) {
            self.odd = None;
            self.queue_samples(&[low, *high]);
            rest = after;
        }
        let (whole, tail) = rest.split_at(rest.len() & !1);
        if let [low] = tail {
            self.odd = Some(*low);
        }
        for piece in whole.chunks(ARRIVAL_BYTES) {
            self.queue_samples(piece);
        }
        if !self.queue.is_empty() {
            self.on_audio_queued(now);
        }
    }

    /// Empties the queue; the next packet is silence, and nothing of the old words is left in the
    /// encoder.
    pub(super) fn clear(&mut self) {
        let dropped = self.queue.clear();
        self.counters.cleared += (dropped / self.unit()) as u64;
        self.odd = None;
        self.talk = Talk::Quiet { ended: None };
        self.voice.encoder.reset();
    }

    /// Lets packets leave, or keeps the agent's audio until they may; `muted` plays it to nobody.
    pub(super) fn set_open(&mut self, now: Instant, open: bool, muted: bool) {
        let silent_before = !self.open || self.muted;
        if silent_before && open && !muted {
            self.catch_up(now);
            self.resumed = self.counters.packets > 0;
        }
        if self.open != open {
            self.talk = match self.queue.is_empty() {
                true => Talk::Quiet { ended: None },
                false => Talk::Starting { at: now },
            };
        }
        (self.open, self.muted) = (open, muted);
    }

    /// The encoder that a new plan needs; `None` when the present one serves.
    pub(super) fn prepare(&self, plan: &CodecPlan) -> Result<Option<Voice>, CodecFault> {
        let (kind, fec, ptime_ms) = (plan.kind, plan.fec, plan.ptime_ms);
        let present = CodecPlan { kind, fec, ptime_ms, ..self.voice.plan };
        if present == self.voice.plan {
            return Ok(None);
        }
        Voice::new(plan, self.rate_hz).map(Some)
    }

    /// Follows a new plan with what `prepare` gave for it. Sequence, timestamp and SSRC go on; what
    /// is queued is kept, and put from one law of G.711 into the other; between G.711 and the rest
    /// its form changes, and it is dropped.
    pub(super) fn change(&mut self, plan: &CodecPlan, voice: Option<Voice>) {
        let before = self.voice.plan.kind;
        match voice {
            Some(voice) => self.voice = voice,
            None => self.voice.plan = *plan,
        }
        if let (Some(from), Some(to)) = (law(before), law(plan.kind)) {
            self.queue.recode(|byte| from.recode(to, byte));
        } else if is_compact(before) || is_compact(plan.kind) {
            let unit = if is_compact(before) { 1 } else { 2 };
            self.counters.dropped += (self.queue.clear() / unit) as u64;
            self.talk = Talk::Quiet { ended: None };
        }
    }

    /// The peer misses this much of what we send. In-band FEC costs a third of the encoder's time:
    /// it is on only for a peer that asks for it and loses packets (house §5).
    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        if self.voice.plan.fec {
            self.voice.encoder.set_expected_loss(percent);
        }
    }

    /// Everything that the agent said has left.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && matches!(self.talk, Talk::Quiet { .. })
    }

    pub(super) fn counters(&self) -> &OutboundCounters {
        &self.counters
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The RTP timestamp that belongs to `now` (RFC 3550 §6.4.1, sender information).
    pub(super) fn timestamp_at(&self, now: Instant) -> u32 {
        let clock_hz = u128::from(self.voice.plan.kind.rtp_clock_hz());
        let ticks = |span: Duration| (span.as_nanos() * clock_hz / 1_000_000_000) as u32;
        let ahead = ticks(self.slot.since(now));
        self.timestamp.wrapping_add(ticks(now.since(self.slot))).wrapping_sub(ahead)
    }

    /// When the next frame is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.open {
            return None;
        }
        match self.talk {
            Talk::Quiet { .. } => (!self.muted).then_some(self.slot),
            Talk::Starting { at } if self.muted => Some(at),
            Talk::Starting { at } => Some(at.min(self.slot)),
            Talk::Speaking { next } => Some(next),
        }
    }

    /// Writes the packet that is due into `buffer`; gives its length and whether it carries the
    /// agent's audio.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
    ) -> Option<(usize, bool)> {
        while self.deadline()? <= now {
            let (head, body) = buffer.split_at_mut_checked(HEADER_BYTES)?;
            let marker = self.begin_frame(now);
            let timestamp = self.timestamp;
            let played = self.counters.played;
            let len = self.write_frame(now, body);
            self.advance(1);
            if self.muted {
                continue;
            }
            let payload_type = self.voice.plan.send_payload_type;
            let (sequence, ssrc) = (self.sequence, self.ssrc);
            let marker = std::mem::take(&mut self.resumed) || marker;
            RtpHeader { marker, payload_type, sequence, timestamp, ssrc }.write(head);
            self.sequence = self.sequence.wrapping_add(1);
            self.counters.packets = self.counters.packets.wrapping_add(1);
            self.counters.payload_bytes = self.counters.payload_bytes.wrapping_add(len as u32);
            return Some((HEADER_BYTES + len, self.counters.played > played));
        }
        None
    }

    fn queue_samples(&mut self, bytes: &[u8]) {
        let samples = bytes.len() / 2;
        let taken = if is_compact(self.voice.plan.kind) {
            let (mut pcm, mut encoded) = ([0; ARRIVAL_BYTES / 2], [0; ARRIVAL_BYTES / 2]);
            read_samples(bytes, &mut pcm);
            let len = self.voice.encoder.encode(&pcm[..samples], &mut encoded).unwrap_or(0);
            self.queue.push(&encoded[..len], 1)
        } else {
            self.queue.push(bytes, 2) / 2
        };
        self.counters.received += samples as u64;
        self.counters.dropped += (samples - taken) as u64;
    }

    /// A talk spurt starts at once when enough is queued; else its first frame waits one frame
    /// time, so that the second, which may come late, finds it still playing.
    fn on_audio_queued(&mut self, now: Instant) {
        if let Talk::Quiet { ended } = self.talk {
            if ended.is_some_and(|ended| now.since(ended) <= UNDERRUN) {
                self.margin = (self.margin + 1).min(MARGIN_FRAMES_MAX);
            }
            self.talk = Talk::Starting { at: now + self.voice.frame * self.margin };
        }
        let enough = self.queue.len() >= self.frame_bytes() * (self.margin as usize + 1);
        if let Talk::Starting { at } = self.talk {
            let at = if enough { at.min(now) } else { at };
            // After a clear the last slot may not be over yet: never more than one frame ahead.
            self.talk = Talk::Starting { at: at.max(self.slot - self.voice.frame) };
        }
    }

    /// Settles what the due frame is: skips frames that are a whole frame late, and turns a start
    /// that is due into speech. True for the first frame of a talk spurt.
    fn begin_frame(&mut self, now: Instant) -> bool {
        match self.talk {
            Talk::Quiet { .. } => {
                self.skip_late(now, self.slot);
                false
            }
            Talk::Starting { at } if !self.muted && self.slot < at => {
                self.skip_late(now.min(at), self.slot);
                false
            }
            Talk::Starting { .. } => {
                if self.muted {
                    self.catch_up(now);
                } else {
                    self.skip_late(now, self.slot);
                }
                self.talk = Talk::Speaking { next: now };
                self.on_spurt();
                true
            }
            Talk::Speaking { next } => {
                let skipped = self.skip_late(now, next);
                let bytes = self.frame_bytes() * skipped as usize;
                let lost = self.queue.skip(bytes) / self.unit();
                self.counters.dropped += lost as u64;
                false
            }
        }
    }

    /// The silence between spurts is not our encoder's: after enough of it the far decoder of G.722
    /// has forgotten the last spurt, and the encoder has to forget it too.
    fn on_spurt(&mut self) {
        let settled = std::mem::take(&mut self.silent_frames) >= SETTLED_FRAMES;
        if settled && self.voice.plan.kind == CodecKind::G722 {
            self.voice.encoder.reset();
        }
    }

    /// Frames that missed their deadline by a whole frame time are left out.
    fn skip_late(&mut self, now: Instant, deadline: Instant) -> u32 {
        let late = now.since(deadline).as_nanos() / self.voice.frame.as_nanos();
        let late = u32::try_from(late).unwrap_or(u32::MAX);
        if late > 0 {
            self.advance(late);
            self.counters.frames_late += u64::from(late);
        }
        late
    }

    /// Slots that went by while nothing was sent: the timestamp follows real time.
    fn catch_up(&mut self, now: Instant) {
        let gone = now.since(self.slot).as_nanos().div_ceil(self.voice.frame.as_nanos());
        self.advance(u32::try_from(gone).unwrap_or(u32::MAX));
    }

    fn advance(&mut self, frames: u32) {
        let span = self.voice.frame * frames;
        self.slot += span;
        self.timestamp = self.timestamp.wrapping_add(self.voice.frame_ticks.wrapping_mul(frames));
        if let Talk::Speaking { next } = &mut self.talk {
            *next += span;
        }
    }

    fn write_frame(&mut self, now: Instant, out: &mut [u8]) -> usize {
        let Talk::Speaking { .. } = self.talk else {
            self.silent_frames = self.silent_frames.saturating_add(1);
            return self.voice.write_silence(out);
        };
        if self.queue.is_empty() {
            self.talk = Talk::Quiet { ended: Some(now) };
            return self.voice.write_tail(out);
        }
        let unit = self.unit();
        let (taken, len) = self.voice.write_speech(&mut self.queue, out);
        self.counters.played += (taken / unit) as u64;
        len
    }

    /// Bytes of one sample in the queue.
    fn unit(&self) -> usize {
        if is_compact(self.voice.plan.kind) { 1 } else { 2 }
    }

    fn frame_bytes(&self) -> usize {
        self.voice.frame_samples * self.unit()
    }
}

impl Voice {
    fn new(plan: &CodecPlan, rate_hz: u32) -> Result<Voice, CodecFault> {
        let frame_ms = frame_ms(plan);
        let frame_samples = samples_in(frame_ms, rate_hz).min(FRAME_SAMPLES_MAX);
        let mut encoder = Encoder::new(plan.kind, rate_hz, EncoderSettings::default())?;
        let (pcm, mut encoded) = ([0; FRAME_SAMPLES_MAX], [0; 1_400]);
        let mut len = 0;
        for _ in 0..SETTLING_FRAMES {
            len = encoder.encode(&pcm[..frame_samples], &mut encoded)?;
        }
        encoder.reset();
        Ok(Voice {
            plan: *plan,
            encoder,
            silence: encoded[..len].into(),
            frame: Duration::from_millis(u64::from(frame_ms)),
            frame_samples,
            frame_ticks: samples_in(frame_ms, plan.kind.rtp_clock_hz()) as u32,
        })
    }

    fn write_silence(&self, out: &mut [u8]) -> usize {
        let len = self.silence.len().min(out.len());
        out[..len].copy_from_slice(&self.silence[..len]);
        len
    }

    /// The frame after the last word: what the encoder looked ahead still has to come out.
    fn write_tail(&mut self, out: &mut [u8]) -> usize {
        if is_compact(self.plan.kind) {
            return self.write_silence(out);
        }
        let pcm = [0; FRAME_SAMPLES_MAX];
        let encoded = self.encoder.encode(&pcm[..self.frame_samples], out);
        encoded.unwrap_or_else(|_| self.write_silence(out))
    }

    /// One frame from the queue, filled up with silence; gives the bytes taken and written.
    fn write_speech(&mut self, queue: &mut PlayoutQueue, out: &mut [u8]) -> (usize, usize) {
        if is_compact(self.plan.kind) {
            let len = self.write_silence(out);
            let frame = self.frame_samples.min(len);
            return (queue.pop(&mut out[..frame]), len);
        }
        let (mut bytes, mut pcm) = ([0; FRAME_SAMPLES_MAX * 2], [0; FRAME_SAMPLES_MAX]);
        let taken = queue.pop(&mut bytes[..self.frame_samples * 2]);
        read_samples(&bytes[..taken], &mut pcm);
        let encoded = self.encoder.encode(&pcm[..self.frame_samples], out);
        (taken, encoded.unwrap_or_else(|_| self.write_silence(out)))
    }
}

/// Frames of silence until an encoder has settled.
const SETTLING_FRAMES: usize = 4;

/// G.711 is queued encoded; one byte is one sample.
fn is_compact(kind: CodecKind) -> bool {
    law(kind).is_some()
}

fn law(kind: CodecKind) -> Option<Law> {
    match kind {
        CodecKind::Pcmu => Some(Law::Mu),
        CodecKind::Pcma => Some(Law::A),
        CodecKind::G722 | CodecKind::Opus => None,
    }
}

/// Frame time: the plan's packet time; Opus has no frames of 30 or 50 ms (RFC 6716 §2.1.4).
fn frame_ms(plan: &CodecPlan) -> u32 {
    let ptime = u32::from(plan.ptime_ms.clamp(10, 60));
    match plan.kind {
        CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 => ptime,
        CodecKind::Opus => match ptime {
            0..20 => 10,
            20..40 => 20,
            40..60 => 40,
            _ => 60,
        },
    }
}

/// 16-bit little-endian samples; an odd byte at the end is left.
fn read_samples(bytes: &[u8], pcm: &mut [i16]) {
    for (sample, pair) in pcm.iter_mut().zip(bytes.chunks_exact(2)) {
        *sample = i16::from_le_bytes([pair[0], pair[1]]);
    }
}
