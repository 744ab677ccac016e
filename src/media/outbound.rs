//! What a leg hears: its agent's playout queue, encoder and pacer. Frames leave at absolute deadlines;
//! a frame that missed its deadline is skipped and counted, never sent in a burst (house §5). Where
//! the leg hears more than an agent, the bridge adds it to each frame, and spurts begin at slots.
//!
//! Timestamps follow a grid of real time, one slot for each frame, without overlap or gap (RFC 3550
//! §5.1). Silence leaves at its slot; a talk spurt leaves up to one frame before its slots, in the
//! phase of its own start, so that a first word never waits for the grid:
//!
//! ```text
//! slots     |    0    |    1    |    2    |    3    |    4    |
//! sent      s         s    W         w         w         w    s        W: marker, first word
//! ```
//!
//! Silence is sent like speech, unless pauses are told (`PausePlan`): then so much of it leaves that the
//! far decoder comes to rest, and after that only what keeps the pause and the path alive. Either way a
//! long silence is one frame that was encoded when the codec was agreed.

mod relaying;

use super::bridge::Bridge;
use super::clock::{Ticks, samples_in};
use super::keys::{Keypad, Press, Slot};
use super::lane::FADE_MS;
use super::pace::{Pace, Wish};
use super::pause::{self, Pause};
use super::plan::{CodecPlan, PausePlan, Port, TelephoneEventPlan};
use super::relay::Relay;
use super::supply::{Successor, Supply, law};
use super::voice::{FRAME_SAMPLES_MAX, Voice};
use super::waits::Waits;
use crate::codec::{CodecFault, amr_wb, comfort_noise};
use crate::ground::{Entropy, Instant, LegId, StreamId};
use crate::rtp::packet::RtpHeader;
use crate::rtp::telephone_event::{EVENT_BYTES, EventPacket};
use std::time::Duration;

/// Frames that a talk spurt may be held back for at its start, when the agent sends them one by one.
const MARGIN_FRAMES_MAX: u32 = 3;
/// Audio that comes this soon after the queue ran empty means that it ran empty too early.
const UNDERRUN: Duration = Duration::from_millis(100);
/// Level of our pauses in −dBov: the hiss of a line that is open.
const NOISE_LEVEL: u8 = 70;
/// Far more than fits into the queue.
const FRAMES_WAITING_MAX: u32 = 100_000;
const HEADER_BYTES: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Talk {
    /// Silence leaves at each slot. `ended`: when the last talk spurt ran empty by itself.
    Quiet { ended: Option<Instant> },
    /// The agent's audio begins to leave at this time.
    Starting { at: Instant },
    /// The next frame of the talk spurt leaves at this time.
    Speaking { next: Instant },
}

/// What was done with agent audio, and with frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OutboundCounters {
    pub(super) received: Ticks,
    pub(super) played: Ticks,
    pub(super) cleared: Ticks,
    pub(super) dropped: Ticks,
    /// What a paced stream was made shorter and longer by.
    pub(super) shortened: Ticks,
    pub(super) lengthened: Ticks,
    /// Talk spurts that ran empty and went on at once.
    pub(super) underruns: u32,
    pub(super) waits: Waits,
    /// How long the first word waited for the caller's path.
    pub(super) held: Duration,
    pub(super) frames_late: u64,
    pub(super) packets: u32,
    pub(super) payload_bytes: u32,
}

impl OutboundCounters {
    /// A packet leaves.
    fn count(&mut self, payload_len: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.payload_bytes = self.payload_bytes.wrapping_add(payload_len as u32);
    }
}

/// A frame as its packet's header says it.
struct Frame {
    len: usize,
    marker: bool,
    payload_type: u8,
    timestamp: u32,
}

/// What another plan needs: an encoder, and a form for what waits; `None` where the present one
/// serves.
pub(super) struct Change {
    voice: Option<Voice>,
    supply: Option<Successor>,
}

/// The sending half of a leg.
pub(super) struct Outbound {
    voice: Voice,
    supply: Supply,
    /// Whose words are queued.
    agent: Option<StreamId>,
    /// The bridge has more for this leg.
    accompanied: bool,
    /// Whose packets are handed on to this leg, where they can be.
    relay: Option<Box<Relay>>,
    /// Keys are being pressed; all else waits.
    keypad: Option<Box<Keypad>>,
    event: Option<TelephoneEventPlan>,
    talk: Talk,
    /// Whether the agent's stream is paced, by which the queue is kept short.
    pace: Pace,
    /// The last frame was filled up: the words ended, or did not come in time.
    filled_up: bool,
    /// No talk spurt begins before this time.
    held_until: Option<Instant>,
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
    /// Of the Opus encoder, this one and those to come; `None` is the codec's own default.
    opus_complexity: Option<u8>,
    /// Frames of silence since the last talk spurt.
    silent_frames: u32,
    pause: Pause,
    /// The peer's number for comfort noise, where it takes that.
    noise: Option<u8>,
    sid: Option<Box<[u8]>>,
    /// What `sid` was made for: its making is too dear for each refresh of a session.
    sid_of: Option<CodecPlan>,
    /// When the pause was told of last; `None` while all frames are sent.
    told: Option<Instant>,
    /// The next packet is the first after a pause in sending.
    resumed: bool,
    counters: OutboundCounters,
}

impl Outbound {
    pub(super) fn new(
        now: Instant,
        plan: &CodecPlan,
        agent_hz: u32,
        entropy: &mut Entropy,
    ) -> Result<Outbound, CodecFault> {
        let supply = Supply::new(plan.kind, agent_hz)?;
        Ok(Outbound {
            voice: Voice::new(plan, supply.rate_hz())?,
            supply,
            agent: None,
            accompanied: false,
            relay: None,
            keypad: None,
            event: None,
            talk: Talk::Quiet { ended: None },
            pace: Pace::default(),
            filled_up: false,
            held_until: None,
            slot: now,
            timestamp: entropy.u32(),
            // Half of the numbers: the first packets may be lost, and a receiver of SRTP must not miss
            // a wrap among them (RFC 3711 §3.3.1).
            sequence: entropy.u32() as u16 & 0x7FFF,
            ssrc: entropy.u32(),
            margin: 1,
            open: false,
            muted: false,
            opus_complexity: None,
            silent_frames: 0,
            pause: Pause::Sent,
            noise: None,
            sid: None,
            sid_of: None,
            told: None,
            resumed: false,
            counters: OutboundCounters::default(),
        })
    }

    /// Whose words the leg hears.
    pub(super) fn agent(&self) -> Option<StreamId> {
        self.agent
    }

    /// The leg will hear this agent from its first word on.
    pub(super) fn expect_agent(&mut self, agent: StreamId) {
        self.agent = Some(agent);
    }

    /// The leg hears this agent from now on. What waits of another one is not played: its next
    /// milliseconds, sinking to nothing, are written to the front of `tail`; gives how many samples.
    pub(super) fn set_agent(&mut self, agent: Option<StreamId>, tail: &mut [i16]) -> usize {
        if agent == self.agent {
            return 0;
        }
        let fade = samples_in(FADE_MS, self.supply.rate_hz()).min(tail.len());
        let count = match self.talk {
            Talk::Speaking { .. } => self.supply.pop_sinking(&mut tail[..fade]),
            Talk::Quiet { .. } | Talk::Starting { .. } => 0,
        };
        self.counters.dropped += self.supply.clear();
        self.pace.forget();
        self.supply.rise();
        self.talk = Talk::Quiet { ended: None };
        self.agent = agent;
        count
    }

    /// Whether the bridge has more for this leg than its agent.
    pub(super) fn set_accompanied(&mut self, accompanied: bool) {
        self.accompanied = accompanied;
    }

    /// How keys are pressed: by telephone-events, or by tones in the audio.
    pub(super) fn set_event(&mut self, event: Option<TelephoneEventPlan>) {
        self.event = event;
    }

    /// How the peer is to learn of our pauses.
    pub(super) fn set_pauses(&mut self, pauses: PausePlan) {
        self.pause = Pause::of(&self.voice.plan, pauses);
        self.noise = pauses.comfort_noise.map(|noise| noise.send_payload_type);
        if self.pause == Pause::Sid {
            if self.sid_of != Some(self.voice.plan) {
                self.sid = pause::sid(&self.voice.plan);
                self.sid_of = Some(self.voice.plan);
            }
            self.pause = if self.sid.is_some() { Pause::Sid } else { Pause::Sent };
        }
    }

    /// Presses keys from the next frame on, after those that are being pressed. Words wait meanwhile.
    pub(super) fn send_keys(&mut self, keys: &[char], tone: Duration, gap: Duration) {
        self.keypad.get_or_insert_default().press(keys, tone, gap);
    }

    /// Orders of keys that were done since the last question.
    pub(super) fn take_keys_done(&mut self) -> u32 {
        let Some(keypad) = &mut self.keypad else { return 0 };
        let done = keypad.take_done();
        if keypad.is_idle() {
            self.keypad = None;
        }
        done
    }

    /// Samples a second of what the leg hears.
    pub(super) fn rate_hz(&self) -> u32 {
        self.supply.rate_hz()
    }

    /// Takes agent audio: 16-bit little-endian samples in pieces of any length.
    pub(super) fn handle_audio(&mut self, now: Instant, bytes: &[u8]) {
        let before = self.supply.len();
        let slack = self.slack(now, before);
        let taken = self.supply.push(bytes);
        self.counters.received += taken.received;
        self.counters.dropped += taken.dropped;
        self.pace.receive(now, taken.received, slack, self.voice.frame * self.margin);
        if !self.supply.is_empty() {
            self.on_audio_queued(now);
        }
        let next = match self.talk {
            Talk::Speaking { next } => next,
            Talk::Starting { at } => self.start(at),
            Talk::Quiet { .. } => return,
        };
        if self.open && !self.muted {
            let before = Duration::from_secs(before as u64) / self.supply.rate_hz();
            self.counters.waits.on_piece(next.since(now) + before);
        }
    }

    /// How long before it is needed the next of the agent's words comes; none where the last frame had
    /// to be filled up.
    fn slack(&mut self, now: Instant, waiting: usize) -> Option<Duration> {
        let Talk::Speaking { next } = self.talk else { return None };
        if std::mem::take(&mut self.filled_up) {
            self.counters.underruns += 1;
            return Some(Duration::ZERO);
        }
        let frames = u32::try_from(waiting / self.voice.frame_samples).unwrap_or(u32::MAX);
        Some(next.since(now) + self.voice.frame * frames.min(FRAMES_WAITING_MAX))
    }

    /// What waits of the agent's words.
    pub(super) fn waiting(&self) -> Ticks {
        Ticks::of(self.supply.len(), self.supply.rate_hz())
    }

    /// Empties the queue; the next packet is silence, and nothing of the old words is left in the
    /// encoder.
    pub(super) fn clear(&mut self) {
        self.counters.cleared += self.supply.clear();
        self.pace.forget();
        self.talk = Talk::Quiet { ended: None };
        if !self.accompanied {
            self.voice.encoder.cut();
        }
    }

    /// Lets packets leave, or keeps the agent's audio until they may; `muted` plays it to nobody.
    pub(super) fn set_open(&mut self, now: Instant, open: bool, muted: bool) {
        let silent_before = !self.open || self.muted;
        if silent_before && open && !muted {
            self.catch_up(now);
            self.resumed = self.counters.packets > 0;
        }
        if self.open != open {
            self.talk = match self.supply.is_empty() {
                true => Talk::Quiet { ended: None },
                false => Talk::Starting { at: now },
            };
        }
        (self.open, self.muted) = (open, muted);
    }

    /// Keeps the agent's words until `until`, while silence leaves.
    pub(super) fn hold_speech(&mut self, until: Instant) {
        self.held_until = Some(until);
    }

    /// Words may leave.
    pub(super) fn release_speech(&mut self, now: Instant) {
        self.held_until = self.held_until.map(|until| until.min(now));
    }

    /// What a new plan needs.
    pub(super) fn prepare(&self, plan: &CodecPlan) -> Result<Change, CodecFault> {
        let supply = self.supply.prepare(plan.kind)?;
        let rate_hz = supply.as_ref().map_or(self.supply.rate_hz(), Successor::rate_hz);
        let CodecPlan { kind, format, fec, ptime_ms, .. } = *plan;
        let serves =
            CodecPlan { kind, format, fec, ptime_ms, ..self.voice.plan } == self.voice.plan;
        let voice = if serves { None } else { Some(Voice::new(plan, rate_hz)?) };
        Ok(Change { voice, supply })
    }

    /// Follows a new plan with what `prepare` gave for it. Sequence, timestamp and SSRC go on, and
    /// so does what is queued, in the new codec's form.
    pub(super) fn change(&mut self, plan: &CodecPlan, change: Change) {
        match change.voice {
            Some(voice) => self.voice = voice,
            None => self.voice.plan = *plan,
        }
        if let Some(complexity) = self.opus_complexity {
            self.voice.encoder.set_complexity(complexity);
        }
        if let Some(supply) = change.supply {
            self.supply.hand_over(supply);
        }
    }

    /// The peer misses this much of what we send. In-band FEC costs a third of the encoder's time:
    /// it is on only for a peer that asks for it and loses packets (house §5).
    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        if self.voice.plan.fec {
            self.voice.encoder.set_expected_loss(percent);
        }
    }

    /// How much work the encoder takes, from now on and after a change too.
    pub(super) fn set_opus_complexity(&mut self, complexity: u8) {
        self.opus_complexity = Some(complexity);
        self.voice.encoder.set_complexity(complexity);
    }

    /// The peer asks us to send in this mode (CMR, RFC 4867 §4.3.1).
    pub(super) fn request_mode(&mut self, mode: amr_wb::Mode) {
        self.voice.encoder.request_mode(mode);
    }

    /// The mode in which AMR-WB goes.
    pub(super) fn mode(&self) -> Option<amr_wb::Mode> {
        self.voice.encoder.mode()
    }

    /// Everything that the agent said has left.
    pub(super) fn is_drained(&self) -> bool {
        self.supply.is_empty() && matches!(self.talk, Talk::Quiet { .. })
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
        if let Some(relay) = self.relay.as_ref().filter(|relay| relay.is_open()) {
            match relay.due() {
                _ if relay.holds_packet() => return Some(Instant::ZERO),
                Some(due) if self.keypad.is_none() => return Some(due.max(self.slot)),
                Some(_) | None => {}
            }
        }
        match self.talk {
            Talk::Quiet { .. } => (!self.muted).then_some(self.slot),
            Talk::Starting { at } if self.muted => Some(at),
            Talk::Starting { at } => Some(self.start(at).min(self.slot)),
            Talk::Speaking { next } => Some(next),
        }
    }

    /// Writes the packet that is due into `buffer`; gives its length and whether it carries the
    /// agent's audio. `more`: where the leg hears more than its agent.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        mut more: Option<(&mut Bridge, LegId)>,
    ) -> Option<(usize, bool)> {
        if let Some(len) = self.poll_relayed(now, buffer) {
            return Some((len, false));
        }
        while self.deadline()? <= now {
            let (head, body) = buffer.split_at_mut_checked(HEADER_BYTES)?;
            let spurt = self.begin_frame(now);
            let timestamp = self.timestamp;
            let played = self.counters.played;
            let mut frame = Frame {
                len: 0,
                marker: spurt,
                payload_type: self.voice.plan.send_payload_type,
                timestamp,
            };
            match &mut more {
                _ if self.keypad.is_some() && !self.muted && self.write_key(&mut frame, body) => {}
                Some((bridge, leg)) if self.accompanied || bridge.has_rest(*leg) => {
                    (frame.len, frame.marker) = self.write_mixed(now, bridge, *leg, body);
                }
                Some(_) | None => frame.len = self.write_frame(now, body),
            }
            let left_out = self.tell_pause(now, &mut frame, body);
            self.advance(1);
            if self.muted || left_out {
                continue;
            }
            let Frame { len, marker, payload_type, timestamp } = frame;
            if payload_type == self.voice.plan.send_payload_type {
                self.voice.on_quiet_sent(self.silent_frames);
            }
            let (sequence, ssrc) = (self.sequence, self.ssrc);
            let marker = std::mem::take(&mut self.resumed) || marker;
            RtpHeader { marker, payload_type, sequence, timestamp, ssrc }.write(head);
            self.sequence = self.sequence.wrapping_add(1);
            self.counters.count(len);
            return Some((HEADER_BYTES + len, self.counters.played > played));
        }
        None
    }

    /// A talk spurt starts at once when enough is queued; else its first frame waits one frame
    /// time, so that the second, which may come late, finds it still playing.
    fn on_audio_queued(&mut self, now: Instant) {
        if let Talk::Quiet { ended } = self.talk {
            if ended.is_some_and(|ended| now.since(ended) <= UNDERRUN) {
                self.margin = (self.margin + 1).min(MARGIN_FRAMES_MAX);
                self.counters.underruns += 1;
            }
            let margin = self.voice.frame * self.margin + self.supply.held_back();
            self.talk = Talk::Starting { at: now + margin };
        }
        let enough = self.supply.len() >= self.voice.frame_samples * (self.margin as usize + 1);
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
            Talk::Starting { at } if !self.muted && self.slot < self.start(at) => {
                self.skip_late(now.min(self.start(at)), self.slot);
                false
            }
            Talk::Starting { at } => {
                self.counters.held +=
                    self.held_until.take().map_or(Duration::ZERO, |until| until.since(at));
                if self.muted {
                    self.catch_up(now);
                } else {
                    self.skip_late(now, self.slot);
                }
                self.talk = Talk::Speaking { next: now };
                if !self.accompanied {
                    self.on_spurt();
                }
                true
            }
            Talk::Speaking { next } => {
                let skipped = self.skip_late(now, next);
                let lost = self.voice.frame_samples * skipped as usize;
                self.counters.dropped += self.supply.skip(lost);
                false
            }
        }
    }

    /// When a talk spurt begins that is ready at `at`. Among others' frames it has no phase of its
    /// own: the first slot that finds it ready is its start.
    fn start(&self, at: Instant) -> Instant {
        let start = self.held_until.map_or(at, |until| at.max(until));
        if self.accompanied { start.max(self.slot) } else { start }
    }

    /// Something is said again.
    fn on_spurt(&mut self) {
        self.silent_frames = 0;
    }

    /// A frame in which nothing is said.
    fn write_quiet(&mut self, out: &mut [u8]) -> usize {
        self.silent_frames = self.silent_frames.saturating_add(1);
        self.voice.write_quiet(self.silent_frames, out)
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

    /// In a pause that is told most frames are left out, which is true of this one, or it tells of the
    /// pause. The first frame after it has the marker.
    fn tell_pause(&mut self, now: Instant, frame: &mut Frame, out: &mut [u8]) -> bool {
        if self.pause == Pause::Sent || self.silent_frames <= self.voice.settled_frames {
            frame.marker |= self.told.take().is_some();
            return false;
        }
        if self.told.is_some_and(|told| now.since(told) < self.pause.interval()) {
            return true;
        }
        self.told = Some(now);
        match (self.pause, &self.sid) {
            (Pause::Noise { payload_type }, _) => {
                let payload = comfort_noise::payload(NOISE_LEVEL);
                if let Some(place) = out.first_chunk_mut() {
                    *place = payload;
                    (frame.len, frame.payload_type) = (payload.len(), payload_type);
                }
            }
            (Pause::Sid, Some(sid)) => {
                if let Some(place) = out.get_mut(..sid.len()) {
                    place.copy_from_slice(sid);
                    frame.len = sid.len();
                }
            }
            (Pause::Sent | Pause::Sparse | Pause::Sid, _) => {}
        }
        false
    }

    fn write_frame(&mut self, now: Instant, out: &mut [u8]) -> usize {
        let Talk::Speaking { .. } = self.talk else {
            return self.write_quiet(out);
        };
        self.keep_pace();
        if self.supply.len() < self.voice.frame_samples {
            self.supply.finish_spurt();
        }
        if self.supply.is_empty() {
            self.talk = Talk::Quiet { ended: Some(now) };
            return self.write_quiet(out);
        }
        let (taken, len) = self.write_speech(out);
        self.filled_up = taken < self.voice.frame_samples;
        self.counters.played += Ticks::of(taken, self.supply.rate_hz());
        len
    }

    /// One frame of what waits, filled up with silence; gives the samples taken and bytes written.
    /// Words may be silent too: after some frames of that nothing is encoded.
    fn write_speech(&mut self, out: &mut [u8]) -> (usize, usize) {
        if law(self.voice.plan.kind).is_some() {
            let len = self.voice.write_silence(out);
            let frame = self.voice.frame_samples.min(len);
            let taken = self.supply.pop_encoded(&mut out[..frame]);
            self.note_silence(self.pause != Pause::Sent && out[..len] == *self.voice.silence);
            return (taken, len);
        }
        let mut pcm = [0; FRAME_SAMPLES_MAX];
        let pcm = &mut pcm[..self.voice.frame_samples];
        let taken = self.supply.pop(pcm);
        self.note_silence(pcm.iter().all(|sample| *sample == 0));
        if self.silent_frames > 0 {
            return (taken, self.voice.write_quiet(self.silent_frames, out));
        }
        let encoded = self.voice.encoder.encode(pcm, out);
        (taken, encoded.unwrap_or_else(|_| self.voice.write_silence(out)))
    }

    /// Before a frame is taken: the queue of a paced stream is made shorter or longer where it has to
    /// be. One that the agent fills ahead of time is never touched.
    fn keep_pace(&mut self) {
        let (waiting, rate_hz) = (self.supply.len(), self.supply.rate_hz());
        if waiting > 0 {
            self.counters.waits.on_frame(Ticks::of(waiting, rate_hz));
        }
        let changed = match self.pace.on_frame() {
            Wish::Nothing => return,
            Wish::Shorter(most) => {
                let most = most.as_micros() * u128::from(rate_hz) / 1_000_000;
                let changed = self.supply.shorten(usize::try_from(most).unwrap_or(usize::MAX));
                self.counters.shortened += Ticks::of(changed, rate_hz);
                changed
            }
            Wish::Longer => {
                let changed = self.supply.lengthen();
                self.counters.lengthened += Ticks::of(changed, rate_hz);
                changed
            }
        };
        self.pace.on_change(Duration::from_secs(changed as u64) / rate_hz);
    }

    /// A frame of the agent's words is silent, or is not.
    fn note_silence(&mut self, silent: bool) {
        match silent {
            true => self.silent_frames = self.silent_frames.saturating_add(1),
            false => self.on_spurt(),
        }
    }
}

impl Outbound {
    /// A frame of all that the leg hears; gives its bytes, and whether talk begins with it.
    fn write_mixed(
        &mut self,
        now: Instant,
        bridge: &mut Bridge,
        leg: LegId,
        out: &mut [u8],
    ) -> (usize, bool) {
        let mut pcm = [0; FRAME_SAMPLES_MAX];
        let frame = &mut pcm[..self.voice.frame_samples];
        let spoken = self.pop_speech(now, frame);
        let sounds = bridge.mix(now, Port::Leg(leg), frame) || spoken;
        let silent_before = self.silent_frames > 0;
        if !sounds {
            return (self.write_quiet(out), false);
        }
        self.on_spurt();
        let encoded = self.voice.encoder.encode(frame, out);
        (encoded.unwrap_or_else(|_| self.voice.write_silence(out)), silent_before)
    }

    /// A frame of the keys that are being pressed; false when there is none any more.
    fn write_key(&mut self, frame: &mut Frame, out: &mut [u8]) -> bool {
        let Some(keypad) = &mut self.keypad else { return false };
        self.silent_frames = 0;
        let mut pcm = [0; FRAME_SAMPLES_MAX];
        let pcm = &mut pcm[..self.voice.frame_samples];
        let slot = Slot {
            length: self.voice.frame,
            timestamp: frame.timestamp,
            event_hz: self.event.map(|event| event.clock_hz),
            rate_hz: self.supply.rate_hz(),
        };
        match (keypad.fill(slot, pcm), self.event) {
            (Press::Event(EventPacket { marker, timestamp, event }), Some(plan)) => {
                let Some(payload) = out.first_chunk_mut::<EVENT_BYTES>() else { return false };
                *payload = event.bytes();
                let payload_type = plan.send_payload_type;
                *frame = Frame { len: EVENT_BYTES, marker, payload_type, timestamp };
                true
            }
            (Press::Event(_) | Press::Audio, _) => {
                let encoded = self.voice.encoder.encode(pcm, out);
                frame.len = encoded.unwrap_or_else(|_| self.voice.write_silence(out));
                frame.marker = false;
                true
            }
            (Press::Nothing, _) => false,
        }
    }

    /// The agent's next frame, while it speaks.
    fn pop_speech(&mut self, now: Instant, frame: &mut [i16]) -> bool {
        let Talk::Speaking { .. } = self.talk else { return false };
        self.keep_pace();
        if self.supply.len() < frame.len() {
            self.supply.finish_spurt();
        }
        if self.supply.is_empty() {
            self.talk = Talk::Quiet { ended: Some(now) };
            return false;
        }
        let taken = self.supply.pop(frame);
        self.filled_up = taken < frame.len();
        self.counters.played += Ticks::of(taken, self.supply.rate_hz());
        true
    }
}
