//! A leg's audio to those who hear it: jitter buffer, decoder, and the sample clock that makes every
//! second of the call a second of audio. Sequence numbers give the order, timestamps the size of a
//! gap, and the clock the amount: whatever timestamps say, no more is filled than is missing.
//!
//! | what is missing, or too much | what is heard |
//! |---|---|
//! | a packet, after the jitter target | FEC or concealment, then the packets that waited |
//! | packets, none behind them, after the patience | concealment that sinks, silence after 120 ms |
//! | comfort noise (RFC 3389), the codec's own pause | noise as the sender described it |
//! | telephone-event, hold | silence |
//! | nothing: packets come little after their place was filled | they, and less of what follows |
//! | nothing: they come long after it | nothing; they are late |
//! | more than the clock asks for, or soon less | shorter or longer audio, by a pitch period |
//!
//! Nothing is delayed that need not be: packets in order go on as they come. So the target is no delay of
//! the audio; it says how late packets may come before something is made up.

use super::balance::{Balance, Way};
use super::bridge::Bridge;
use super::clock::{SampleClock, TICKS_MS, Ticks};
use super::delay::TargetDelay;
use super::fade::Fade;
use super::jitter::{Arrival, JitterBuffer};
use super::key_ear::KeyEar;
use super::outbound::Outbound;
use super::plan::{
    CodecPlan, ComfortNoisePlan, DelayBounds, LegPlan, PausePlan, TelephoneEventPlan,
};
use super::relay::{Passage, Relay};
use super::stream::Stream;
use super::stretch::Stretch;
use super::uplink::FRAME_MS;
use crate::codec::comfort_noise;
use crate::codec::resample::{GROWTH_MAX, Resampler};
use crate::codec::{CodecFault, CodecKind, Decoder, amr_wb};
use crate::ground::{Instant, LegId};
use crate::rtp::packet::RtpHeader;
use std::time::Duration;

/// How far the uplink may fall behind before it is filled, at least, and a packet more.
const PATIENCE_MS_MIN: u32 = 60;
/// The patience takes packets for no longer than this.
const PACKET_MS_USUAL: u32 = 60;
/// What a packet may come later than the target expects, before its place is filled.
const RESERVE_MS: i64 = 10;
/// Packets whose place was filled are still played when they come no later than this after it.
const LATE_MS_MAX: u32 = 160;
/// The uplink is never further ahead of real time; packets that would put it there are not played.
const SURPLUS_MS_MAX: i64 = 240;
/// How far ahead a lost packet may be concealed whole.
const SURPLUS_MS_USUAL: u32 = 50;
/// The longest period by which audio is made longer.
const PERIOD_MS_MAX: usize = 15;
/// Comfort noise (RFC 3389), agreed or not.
const COMFORT_NOISE: u8 = 13;
/// Silence that stands for a gap before the agent joined, at most.
const EARLY_GAP_MS: u32 = 200;
/// Late packets of one stall come within this time; after it the timestamps are taken as they are.
const STALL_BURST: Duration = Duration::from_millis(100);
/// The uplink is never made up for more than this; a process that slept this long has lost it.
const LAG_MAX: Duration = Duration::from_secs(1);
/// How long packets of the number before may still be on their way after a change (RFC 3264 §8.3.2
/// lets the peer go on until it has our answer).
const CHANGEOVER: Duration = Duration::from_secs(1);
/// Samples of the longest packet that is decoded whole: 120 ms of Opus at 48 kHz.
const PACKET_SAMPLES_MAX: usize = 5_760;
/// Payload bytes of G.711 and G.722 that are decoded together, and their samples.
const PIECE_BYTES: usize = 160;
const PIECE_SAMPLES: usize = 2 * PIECE_BYTES;
/// Samples that are concealed together: 20 ms at 48 kHz.
const CONCEAL_SAMPLES: usize = 960;
/// Samples that are resampled together.
const RESAMPLED_SAMPLES: usize = 160;

/// What a payload number stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Audio,
    ComfortNoise,
    Event,
}

/// Samples given to the agent that the caller did not send, and packets that were not played.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InboundCounters {
    pub(super) concealed: Ticks,
    pub(super) silent: Ticks,
    /// By how much audio was made shorter and longer.
    pub(super) shortened: Ticks,
    pub(super) lengthened: Ticks,
    /// What packets that were played waited for others, together and at most.
    pub(super) waited: Duration,
    pub(super) waited_max: Duration,
    pub(super) played: u64,
    /// Lost ones whose copy came with the next.
    pub(super) recovered: u64,
    pub(super) late: u64,
    pub(super) duplicate: u64,
    pub(super) refused: u64,
}

impl InboundCounters {
    /// What a packet waited in the mean of all that were played.
    pub(super) fn mean_wait(&self) -> Duration {
        let count = u32::try_from(self.played).unwrap_or(u32::MAX);
        self.waited.checked_div(count).unwrap_or_default()
    }
}

/// Who hears a leg: agents that hear it alone, and the bridge.
pub(super) struct Hearers<'a> {
    pub(super) now: Instant,
    pub(super) speaker: LegId,
    pub(super) streams: &'a mut [Stream],
    pub(super) bridge: Option<&'a mut Bridge>,
    /// The only leg that hears this one, where packets can be handed on to it.
    pub(super) listener: Option<(LegId, &'a mut Outbound)>,
    /// Listens for keys, where they come as tones.
    pub(super) ear: Option<&'a mut KeyEar>,
}

impl Hearers<'_> {
    fn any_stream(&self) -> bool {
        self.streams.iter().any(|stream| stream.hears_alone(self.speaker))
    }

    fn push(&mut self, pcm: &[i16]) {
        for stream in self.streams.iter_mut() {
            if stream.hears_alone(self.speaker) {
                stream.push(pcm);
            }
        }
    }
}

/// The receiving half of a leg.
pub(super) struct Inbound {
    jitter: JitterBuffer,
    delay: TargetDelay,
    speech: Speech,
}

/// What becomes of a packet's audio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Dropped,
    Played,
    /// Played, and made shorter or longer as far as it can be.
    Stretched,
}

/// Decoding and time, behind the jitter buffer. All is counted in samples of the codec; what goes to
/// the agent is in its rate.
struct Speech {
    plan: CodecPlan,
    event: Option<TelephoneEventPlan>,
    pauses: PausePlan,
    /// The number of the codec before, which stands for silence until then.
    previous: Option<(u8, Instant)>,
    decoder: Decoder,
    /// What pauses sound like that the sender described.
    noise: comfort_noise::Generator,
    /// Rate of the codec, in which all samples here are counted.
    rate_hz: u32,
    /// Rate of the agent's stream, with what leads to it when it is another.
    agent_hz: u32,
    resampler: Option<Resampler>,
    /// How much later than the fastest packets may come, in whole milliseconds.
    target_ms: u32,
    /// Runs from the agent's join.
    clock: Option<SampleClock>,
    balance: Balance,
    stretch: Stretch,
    /// RTP timestamp that follows the last packet without a gap.
    expected: Option<u32>,
    /// Samples that were made up since the last packet.
    filled: i64,
    /// Until when packets in the place of what was made up are late ones.
    stall_until: Option<Instant>,
    /// The gap is meant: silence, no concealment.
    quiet: bool,
    /// What is left of the concealment of a gap.
    fade: Fade,
    /// Samples of the last packet.
    packet_samples: usize,
    counters: InboundCounters,
}

impl Inbound {
    /// `bounds`: how late its packets may come. `noise`: the seed of the noise in pauses.
    pub(super) fn new(
        leg: &LegPlan,
        agent_hz: u32,
        bounds: DelayBounds,
        noise: u32,
    ) -> Result<Inbound, CodecFault> {
        let plan = &leg.codec;
        let delay = TargetDelay::new(bounds, plan.kind.rtp_clock_hz());
        let rate_hz = plan.kind.pcm_rate(agent_hz);
        let speech = Speech {
            plan: *plan,
            event: leg.telephone_event,
            pauses: leg.pauses,
            previous: None,
            decoder: Decoder::with_format(plan.kind, plan.format, rate_hz)?,
            noise: comfort_noise::Generator::new(rate_hz, noise),
            rate_hz,
            agent_hz,
            resampler: resampler(rate_hz, agent_hz)?,
            target_ms: whole_milliseconds(delay.target()),
            clock: None,
            balance: Balance::new(),
            stretch: Stretch::new(rate_hz),
            expected: None,
            filled: 0,
            stall_until: None,
            quiet: true,
            fade: Fade::new(),
            packet_samples: samples(FRAME_MS, rate_hz),
            counters: InboundCounters::default(),
        };
        Ok(Inbound { jitter: JitterBuffer::new(delay.target()), delay, speech })
    }

    /// What a payload number stands for by the plan; `None` when it is not agreed. The peer's own
    /// number for the codec is taken as well as the one that we gave it.
    pub(super) fn content(&self, now: Instant, payload_type: u8) -> Option<Content> {
        let late = |(number, until)| number == payload_type && now <= until;
        let previous = self.speech.previous.is_some_and(late).then_some(Content::ComfortNoise);
        self.speech.content(payload_type).or(previous)
    }

    /// A payload of this number is comfort noise.
    pub(super) fn is_noise(&self, payload_type: u8) -> bool {
        self.speech.is_noise(payload_type)
    }

    /// Somebody hears the leg, or nobody any more. While it is heard every second is a second of
    /// audio.
    pub(super) fn set_heard(&mut self, now: Instant, heard: bool) {
        self.speech.clock = match (heard, self.speech.clock) {
            (true, None) => {
                self.speech.balance = Balance::new();
                Some(SampleClock::start(now, self.speech.rate_hz))
            }
            (true, running) => running,
            (false, _) => None,
        };
        if !heard {
            (self.speech.filled, self.speech.stall_until) = (0, None);
        }
    }

    /// How much later than the fastest a packet may come.
    pub(super) fn target(&self) -> Duration {
        self.delay.target()
    }

    /// The target now, and the largest so far; `None` before a packet was played.
    pub(super) fn targets(&self) -> Option<(Duration, Duration)> {
        let played = self.speech.counters.played > 0;
        played.then(|| (self.delay.target(), self.delay.target_max()))
    }

    /// Samples a second of what is decoded.
    pub(super) fn rate_hz(&self) -> u32 {
        self.speech.rate_hz
    }

    /// Follows a new plan; decoding starts afresh only when the codec is another.
    pub(super) fn change(&mut self, now: Instant, leg: &LegPlan) -> Result<(), CodecFault> {
        let plan = &leg.codec;
        let before = &self.speech.plan;
        if (plan.kind, plan.format) != (before.kind, before.format) {
            self.speech.change_codec(plan)?;
            self.delay.restart(plan.kind.rtp_clock_hz());
            let before = self.speech.plan.receive_payload_type;
            self.speech.previous = Some((before, now + CHANGEOVER));
        }
        self.speech.plan = *plan;
        self.speech.event = leg.telephone_event;
        self.speech.pauses = leg.pauses;
        Ok(())
    }

    /// The caller is on hold: what is missing is silence, and what comes after it is a new stream.
    pub(super) fn hold(&mut self) {
        self.jitter.restart();
        self.speech.restart();
        self.speech.noise.rest();
        self.speech.quiet = true;
    }

    /// Takes a packet of an agreed payload number.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        header: RtpHeader,
        payload: &[u8],
        out: &mut Hearers<'_>,
    ) {
        let arrival = self.jitter.arrive(now, header, payload);
        self.measure(now, arrival, header);
        match arrival {
            Arrival::InOrder { restarted } => {
                if restarted {
                    self.speech.restart();
                }
                self.speech.play(now, header, 0, payload, out);
                self.release(now, out);
            }
            Arrival::Waits => {}
            Arrival::Late => self.speech.counters.late += 1,
            Arrival::Duplicate => self.speech.counters.duplicate += 1,
            Arrival::Probation => self.speech.counters.refused += 1,
            Arrival::Full => {
                self.jitter.give_up();
                self.release(now, out);
                self.receive_once_more(now, header, payload, out);
            }
        }
    }

    /// Whether this packet is the next one of its stream, with none before it that waits.
    pub(super) fn is_next(&self, header: RtpHeader) -> bool {
        self.jitter.is_next(header)
    }

    /// Counts a packet that was to be handed on.
    pub(super) fn count(&mut self, passage: Passage) {
        match passage {
            Passage::Taken { .. } | Passage::Absorbed => {}
            Passage::Late => self.speech.counters.late += 1,
            Passage::Duplicate => self.speech.counters.duplicate += 1,
            Passage::Refused => self.speech.counters.refused += 1,
        }
    }

    /// Goes on behind packets that were handed on: the decoder is brought to where they left off, and
    /// `hear` is given what it makes of the last ones. Gives the last sample.
    pub(super) fn resume(&mut self, relay: &Relay, mut hear: impl FnMut(&[i16])) -> i16 {
        let mut pcm = [0; PACKET_SAMPLES_MAX];
        let mut last = 0;
        for payload in relay.kept() {
            let Ok(count) = self.speech.decoder.decode(payload, &mut pcm) else { continue };
            last = pcm[..count].last().copied().unwrap_or(last);
            self.speech.packet_samples = count;
            hear(&pcm[..count]);
        }
        if let Some((ssrc, next, timestamp)) = relay.source() {
            self.jitter.resume(ssrc, next);
            self.speech.end_gap();
            self.speech.expected = Some(timestamp);
        }
        last
    }

    /// Gives gaps up whose time has come, or when the patience is over, and fills what is missing by the clock.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Hearers<'_>) {
        if self.speech.dry_at().is_some_and(|at| at <= now) {
            self.jitter.give_up();
        }
        self.release(now, out);
        if self.jitter.is_empty() {
            self.speech.fill(now, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.jitter.deadline(), self.speech.dry_at()];
        deadlines.into_iter().flatten().min()
    }

    /// The mode that the peer last asked us to send in.
    pub(super) fn requested_mode(&self) -> Option<amr_wb::Mode> {
        self.speech.decoder.requested_mode()
    }

    /// The modes in which AMR-WB came.
    pub(super) fn received_modes(&self) -> Option<&amr_wb::ReceivedModes> {
        self.speech.decoder.received_modes()
    }

    pub(super) fn counters(&self) -> &InboundCounters {
        &self.speech.counters
    }

    /// Takes the packet's delay into the target. Keys and comfort noise do not tell by their timestamps
    /// when they were sent.
    fn measure(&mut self, now: Instant, arrival: Arrival, header: RtpHeader) {
        match arrival {
            Arrival::Duplicate | Arrival::Probation => return,
            Arrival::InOrder { restarted: true } => {
                self.delay.restart(self.speech.plan.kind.rtp_clock_hz());
            }
            Arrival::InOrder { .. } | Arrival::Waits | Arrival::Late | Arrival::Full => {}
        }
        if self.speech.content(header.payload_type) == Some(Content::Audio) {
            self.delay.observe(now, header.timestamp);
            self.speech.target_ms = whole_milliseconds(self.delay.target());
            self.jitter.set_target(self.delay.gap(now));
        }
    }

    /// After a gap was given up there is place: at most half of what waited is left.
    fn receive_once_more(
        &mut self,
        now: Instant,
        header: RtpHeader,
        payload: &[u8],
        out: &mut Hearers<'_>,
    ) {
        match self.jitter.arrive(now, header, payload) {
            Arrival::InOrder { .. } => {
                self.speech.play(now, header, 0, payload, out);
                self.release(now, out);
            }
            Arrival::Waits => {}
            Arrival::Late => self.speech.counters.late += 1,
            Arrival::Duplicate => self.speech.counters.duplicate += 1,
            Arrival::Probation | Arrival::Full => self.speech.counters.refused += 1,
        }
    }

    fn release(&mut self, now: Instant, out: &mut Hearers<'_>) {
        while let Some(ready) = self.jitter.pop(now) {
            let counters = &mut self.speech.counters;
            counters.waited += ready.waited;
            counters.waited_max = counters.waited_max.max(ready.waited);
            self.speech.play(now, ready.header, ready.lost, ready.payload, out);
        }
    }
}

impl Speech {
    fn content(&self, payload_type: u8) -> Option<Content> {
        let event = self.event.map(|event| event.receive_payload_type);
        if payload_type == self.plan.receive_payload_type {
            Some(Content::Audio)
        } else if Some(payload_type) == event {
            Some(Content::Event)
        } else if payload_type == self.plan.send_payload_type {
            Some(Content::Audio)
        } else if self.is_noise(payload_type) {
            Some(Content::ComfortNoise)
        } else {
            None
        }
    }

    fn is_noise(&self, payload_type: u8) -> bool {
        let numbers = |noise: &ComfortNoisePlan| {
            [noise.receive_payload_type, noise.send_payload_type].contains(&payload_type)
        };
        payload_type == COMFORT_NOISE || self.pauses.comfort_noise.as_ref().is_some_and(numbers)
    }

    /// How far the uplink may fall behind before it is filled: until a packet that comes as late as it
    /// may is played.
    fn patience(&self) -> usize {
        samples(self.target_ms.max(PATIENCE_MS_MIN), self.rate_hz)
            + self.packet_samples.min(samples(PACKET_MS_USUAL, self.rate_hz))
    }

    /// When the patience is over: what waits behind a gap is better than what is made up.
    fn dry_at(&self) -> Option<Instant> {
        self.clock.map(|clock| clock.when_lagging(self.patience()))
    }

    /// How far behind, in ticks, the soonest packets may find the uplink, that the latest of those that
    /// the target waits for do not come after the patience.
    fn behind_max(&self) -> i64 {
        let patience = Ticks::of(self.patience(), self.rate_hz).count() as i64;
        patience - (i64::from(self.target_ms) + RESERVE_MS) * TICKS_MS
    }

    /// Decodes another codec from now on. A gap that is being filled ends with the old one.
    fn change_codec(&mut self, plan: &CodecPlan) -> Result<(), CodecFault> {
        let rate_hz = plan.kind.pcm_rate(self.agent_hz);
        let decoder = Decoder::with_format(plan.kind, plan.format, rate_hz)?;
        if rate_hz != self.rate_hz {
            self.resampler = resampler(rate_hz, self.agent_hz)?;
            self.fade.change_rate(self.rate_hz, rate_hz);
            self.rate_hz = rate_hz;
            self.stretch = Stretch::new(rate_hz);
            self.packet_samples = samples(FRAME_MS, rate_hz);
            self.noise.change_rate(rate_hz);
            (self.filled, self.stall_until) = (0, None);
            if let Some(clock) = &mut self.clock {
                clock.change_rate(rate_hz);
            }
        }
        self.decoder = decoder;
        self.expected = None;
        Ok(())
    }

    /// A new stream: its timestamps have nothing to do with the last one's.
    fn restart(&mut self) {
        self.expected = None;
    }

    /// Plays a packet whose turn has come; `lost` packets before it never came.
    fn play(
        &mut self,
        now: Instant,
        header: RtpHeader,
        lost: u16,
        payload: &[u8],
        out: &mut Hearers<'_>,
    ) {
        match self.content(header.payload_type) {
            Some(Content::Audio) => {}
            Some(Content::ComfortNoise) => {
                self.quiet = true;
                self.noise.describe(payload);
                return;
            }
            Some(Content::Event) | None => {
                self.quiet = true;
                return;
            }
        }
        let gap = self.gap_before(now, header);
        self.bridge(now, gap, lost, payload, out);
        let late = gap.filter(|gap| (0..self.filled).contains(gap));
        let spoken = match self.plan.kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 => {
                self.decode_pieces(now, payload, late, out)
            }
            CodecKind::Opus | CodecKind::Ilbc | CodecKind::G7221 | CodecKind::AmrWb => {
                self.decode_whole(now, payload, late, out)
            }
        };
        let Some(spoken) = spoken else {
            self.counters.refused += 1;
            return;
        };
        let ticks = spoken as u64 * u64::from(self.plan.kind.rtp_clock_hz());
        let ticks = (ticks / u64::from(self.rate_hz)) as u32;
        self.expected = Some(header.timestamp.wrapping_add(ticks));
        self.packet_samples = spoken;
        self.counters.played += 1;
    }

    /// Samples between the last packet's end and this one, by timestamps; `None` when they say
    /// nothing: a new stream, a jump back, or a stall that is over.
    fn gap_before(&mut self, now: Instant, header: RtpHeader) -> Option<i64> {
        let ticks = header.timestamp.wrapping_sub(self.expected?) as i32;
        let gap =
            i64::from(ticks) * i64::from(self.rate_hz) / i64::from(self.plan.kind.rtp_clock_hz());
        if gap < 0 {
            self.filled = 0;
            return None;
        }
        let brief = self.filled <= samples(FRAME_MS, self.rate_hz) as i64;
        if brief && self.stall_until.is_none() {
            self.filled = self.filled.min(gap);
        } else if gap < self.filled {
            let until = *self.stall_until.get_or_insert(now + STALL_BURST);
            if now > until || header.marker {
                self.filled = 0;
            }
        }
        Some(gap)
    }

    /// Fills the place between the last packet and this one, as far as the clock misses it.
    fn bridge(
        &mut self,
        now: Instant,
        gap: Option<i64>,
        lost: u16,
        payload: &[u8],
        out: &mut Hearers<'_>,
    ) {
        let early = samples(EARLY_GAP_MS, self.rate_hz) as i64;
        let ahead = if lost > 0 { samples(SURPLUS_MS_USUAL, self.rate_hz) as i64 } else { 0 };
        let room = self.clock.map_or(early, |clock| (clock.lag(now) + ahead).max(0));
        let missing = match gap {
            Some(gap) => (gap - self.filled).clamp(0, room),
            None if self.clock.is_some() && self.expected.is_none() => room,
            None => 0,
        };
        let step = i64::from(self.rate_hz / 400);
        let missing = (missing - missing % step) as usize;
        if lost == 0 || self.quiet {
            self.push_silence(missing, out);
            return;
        }
        let last = self.packet_samples.min(missing);
        self.push_concealment(missing - last, out);
        self.recover(last, payload, out);
    }

    /// The last lost packet before `payload`: its redundant copy when there is one.
    fn recover(&mut self, missing: usize, payload: &[u8], out: &mut Hearers<'_>) {
        let mut pcm = [0; CONCEAL_SAMPLES * 3];
        let whole = missing > 0 && missing == self.packet_samples && missing <= pcm.len();
        if whole && self.plan.kind == CodecKind::Opus {
            let recovered = self.decoder.decode_fec(payload, &mut pcm[..missing]);
            if recovered == Some(missing) {
                self.counters.recovered += 1;
                self.fade.rise(self.rate_hz, &mut pcm[..missing]);
                self.push(&pcm[..missing], out);
                return;
            }
        }
        self.push_concealment(missing, out);
    }

    fn decode_whole(
        &mut self,
        now: Instant,
        payload: &[u8],
        late: Option<i64>,
        out: &mut Hearers<'_>,
    ) -> Option<usize> {
        let mut pcm = [0; PACKET_SAMPLES_MAX];
        let count = self.decoder.decode(payload, &mut pcm).ok()?;
        let turn = self.turn(now, count, late);
        self.rise(turn, &mut pcm[..count]);
        match turn {
            Turn::Dropped => {}
            Turn::Played => self.push(&pcm[..count], out),
            Turn::Stretched => self.push_stretched(now, &pcm[..count], out),
        }
        Some(count)
    }

    fn decode_pieces(
        &mut self,
        now: Instant,
        payload: &[u8],
        late: Option<i64>,
        out: &mut Hearers<'_>,
    ) -> Option<usize> {
        let per_byte = if self.plan.kind == CodecKind::G722 { 2 } else { 1 };
        let whole = payload.len() * per_byte;
        if whole == 0 {
            return None;
        }
        let turn = self.turn(now, whole, late);
        for piece in payload.chunks(PIECE_BYTES) {
            let mut pcm = [0; PIECE_SAMPLES];
            let count = self.decoder.decode(piece, &mut pcm).ok()?;
            self.rise(turn, &mut pcm[..count]);
            match turn {
                Turn::Dropped => {}
                Turn::Played => self.push(&pcm[..count], out),
                Turn::Stretched => self.push_stretched(now, &pcm[..count], out),
            }
        }
        Some(whole)
    }

    /// Whether `count` samples of a packet are played: not when silence stands in their place and has
    /// for long, and not when the uplink is ahead of real time beyond the bound.
    fn turn(&mut self, now: Instant, count: usize, late: Option<i64>) -> Turn {
        let late_max = samples(LATE_MS_MAX, self.rate_hz) as i64;
        if let Some(gap) = late
            && gap + count as i64 + late_max <= self.filled
        {
            self.filled -= gap + count as i64;
            self.counters.late += 1;
            return Turn::Dropped;
        }
        self.end_gap();
        let Some(clock) = &self.clock else { return Turn::Played };
        let lag = clock.lag_ticks(now);
        let ahead = Ticks::of(count, self.rate_hz).count() as i64 - lag;
        if ahead > SURPLUS_MS_MAX * TICKS_MS {
            self.counters.late += 1;
            return Turn::Dropped;
        }
        self.balance.observe(now, lag);
        match self.balance.wanted(now, self.behind_max()) {
            None => Turn::Played,
            Some(_) => Turn::Stretched,
        }
    }

    /// What is played after concealment has its level.
    fn rise(&mut self, turn: Turn, pcm: &mut [i16]) {
        if turn != Turn::Dropped {
            self.fade.rise(self.rate_hz, pcm);
        }
    }

    /// The caller is heard again.
    fn end_gap(&mut self) {
        self.filled = 0;
        self.stall_until = None;
        self.quiet = false;
        self.noise.rest();
        self.fade.restore(self.rate_hz);
    }

    /// Fills by the clock while no packet comes.
    fn fill(&mut self, now: Instant, out: &mut Hearers<'_>) {
        let Some(clock) = &mut self.clock else { return };
        let longest = samples(LAG_MAX.as_millis() as u32, self.rate_hz) as i64;
        if clock.lag(now) > longest {
            clock.push((clock.lag(now) - longest) as usize);
        }
        let frame = samples(FRAME_MS, self.rate_hz);
        while self.clock.is_some_and(|clock| clock.lag(now) >= self.patience() as i64) {
            self.filled += frame as i64;
            if self.quiet {
                self.push_silence(frame, out);
            } else {
                self.push_concealment(frame, out);
            }
        }
    }

    /// Concealment while it convinces, silence after that.
    fn push_concealment(&mut self, count: usize, out: &mut Hearers<'_>) {
        let concealed = if self.decoder.is_pausing() { 0 } else { count.min(self.fade.left()) };
        self.counters.concealed += Ticks::of(concealed, self.rate_hz);
        let mut left = concealed;
        let mut pcm = [0; CONCEAL_SAMPLES];
        while left > 0 {
            let piece = left.min(samples(FRAME_MS, self.rate_hz)).min(CONCEAL_SAMPLES);
            self.decoder.conceal(&mut pcm[..piece]);
            self.fade.sink(self.rate_hz, &mut pcm[..piece]);
            self.push(&pcm[..piece], out);
            left -= piece;
        }
        self.push_silence(count - concealed, out);
    }

    /// Silence; in a pause that the sender tells of, its comfort noise.
    fn push_silence(&mut self, count: usize, out: &mut Hearers<'_>) {
        self.counters.silent += Ticks::of(count, self.rate_hz);
        let mut pcm = [0; CONCEAL_SAMPLES];
        let frame = samples(FRAME_MS, self.rate_hz).min(CONCEAL_SAMPLES);
        let mut left = count;
        while left > 0 {
            let piece = left.min(frame);
            if self.decoder.is_pausing() {
                self.decoder.conceal(&mut pcm[..piece]);
            } else if self.noise.is_on() {
                self.noise.fill(&mut pcm[..piece]);
            }
            self.push(&pcm[..piece], out);
            left -= piece;
        }
    }

    /// Audio of which there is too much or too little, frame by frame, until there is not.
    #[inline(never)]
    fn push_stretched(&mut self, now: Instant, pcm: &[i16], out: &mut Hearers<'_>) {
        let frame = samples(FRAME_MS, self.rate_hz).min(CONCEAL_SAMPLES);
        let most = PERIOD_MS_MAX * self.rate_hz as usize / 1_000;
        for piece in pcm.chunks(frame) {
            let mut buffer = [0; CONCEAL_SAMPLES * 2];
            buffer[..piece.len()].copy_from_slice(piece);
            let wanted = self.balance.wanted(now, self.behind_max());
            let (count, moved) = match wanted {
                None => (piece.len(), 0),
                Some(Way::Shorter) => {
                    let taken = self.stretch.shorten(&mut buffer[..piece.len()], most);
                    self.counters.shortened += Ticks::of(taken, self.rate_hz);
                    (piece.len() - taken, taken)
                }
                Some(Way::Longer) => {
                    let added = self.stretch.lengthen(&mut buffer, piece.len(), most);
                    self.counters.lengthened += Ticks::of(added, self.rate_hz);
                    (piece.len() + added, added)
                }
            };
            if let Some(way) = wanted.filter(|_| moved > 0) {
                self.balance.correct(now, way, Ticks::of(moved, self.rate_hz).count() as i64);
            }
            self.listen(piece, out);
            self.push_on(&buffer[..count], out);
        }
    }

    fn push(&mut self, pcm: &[i16], out: &mut Hearers<'_>) {
        self.listen(pcm, out);
        self.push_on(pcm, out);
    }

    /// Keys are heard in the audio as it was sent.
    fn listen(&self, pcm: &[i16], out: &mut Hearers<'_>) {
        if let Some(ear) = &mut out.ear {
            ear.hear(pcm);
        }
    }

    fn push_on(&mut self, pcm: &[i16], out: &mut Hearers<'_>) {
        if let Some(bridge) = &mut out.bridge {
            bridge.push(out.now, out.speaker, pcm);
        }
        match &mut self.resampler {
            None => out.push(pcm),
            Some(resampler) if out.any_stream() => {
                for piece in pcm.chunks(RESAMPLED_SAMPLES) {
                    let mut grown = [0; RESAMPLED_SAMPLES * GROWTH_MAX];
                    // Never refused: there is room for the greatest ratio.
                    let count = resampler.resample(piece, &mut grown).unwrap_or(0);
                    out.push(&grown[..count]);
                }
            }
            Some(_) => {}
        }
        if let Some(clock) = &mut self.clock {
            clock.push(pcm.len());
        }
    }
}

fn whole_milliseconds(span: Duration) -> u32 {
    span.as_secs() as u32 * 1_000 + span.subsec_millis()
}

/// What leads from the codec's rate to the agent's; `None` when they are the same.
fn resampler(from_hz: u32, to_hz: u32) -> Result<Option<Resampler>, CodecFault> {
    if from_hz == to_hz { Ok(None) } else { Resampler::continuous(from_hz, to_hz).map(Some) }
}

use super::clock::samples_in as samples;
