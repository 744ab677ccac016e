//! What signalling and media say to each other: plain values, no behaviour. `call` writes plans and
//! commands, `media` and the shard that runs it answer with events. Neither sees the other.
//!
//! One call's media, as signalling sees it:
//!
//! ```text
//! Open ──▶ Opened | BindFailed        sockets bound, session made
//! Prepare ─▶ Prepared | PrepareFailed  TCP and TLS to the agent's host, while the caller hears ringing
//! Join ───▶ Joined | JoinFailed       the WebSocket upgrade: 101 first, then our 200
//! Change ─▶ Changed                   a re-INVITE's outcome; one outstanding per call
//! OpenLeg ─▶ LegOpened | LegBindFailed  a further leg; CloseLeg ─▶ LegClosed
//! Arrange                             who hears whom from now on
//! Close ──▶ Closed                    always the last event; carries the final report
//! ```

use super::quality::Scale;
use crate::codec::{CodecFormat, CodecKind};
use crate::ground::limits::{CLIENT_BUFFER_MS, JITTER_MAX, JITTER_MIN, PLAYOUT_BYTES_MAX};
use crate::ground::ports::OwnPorts;
use crate::ground::{CallKey, LegId, Secret, StreamId};
use crate::rtp::rtcp::extended::VoipMetrics;
use crate::rtp::srtp::{MasterKey, Mki};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Which way media may flow, seen from us (RFC 3264 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// We may send to the peer.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// The peer may send to us. Media that comes all the same is counted and dropped.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// The agreed codec of a leg, as its media section says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodecPlan {
    pub kind: CodecKind,
    /// What else the description settles of it.
    pub format: CodecFormat,
    /// Payload number that the peer expects from us (its own number for the codec).
    pub send_payload_type: u8,
    /// Payload number under which the peer sends (the number that our description gave it).
    pub receive_payload_type: u8,
    /// Milliseconds of audio in each packet that we send: 10 to 60, 20 unless the peer asks.
    pub ptime_ms: u16,
    /// Opus only: the peer asked for in-band FEC (`useinbandfec=1`).
    pub fec: bool,
}

/// Agreed telephone-events (RFC 4733): payload numbers and the clock of their timestamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TelephoneEventPlan {
    pub send_payload_type: u8,
    pub receive_payload_type: u8,
    pub clock_hz: u32,
}

/// How the pauses of a stream are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PausePlan {
    pub comfort_noise: Option<ComfortNoisePlan>,
    /// Ours are told, where the peer takes that: by comfort noise, or in the codec's own way. Else
    /// silence is sent like speech.
    pub suppress: bool,
}

/// Agreed comfort noise (RFC 3389): payload numbers. Its timestamps have the codec's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ComfortNoisePlan {
    pub send_payload_type: u8,
    pub receive_payload_type: u8,
}

/// Where the peer says that it listens. `None` in `rtp` until an answer came (late offer).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RemoteMedia {
    pub rtp: Option<SocketAddr>,
    /// RTCP address: `a=rtcp`, else RTP port + 1; the same as `rtp` when multiplexed.
    pub rtcp: Option<SocketAddr>,
    /// RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
}

/// What RTCP of a leg tells beyond RFC 3550's reports, and how much there may be of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ControlPlan {
    pub extended: ExtendedPlan,
    /// Bits a second for all RTCP of the session, where the peer's description says it (RFC 3556).
    /// Zero: none is sent.
    pub bits_per_s: Option<u32>,
}

/// Blocks of extended reports (RFC 3611) that the peer asked for and that we agreed to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExtendedPlan {
    /// How we hear it: rates, bursts, delays, scores.
    pub voip_metrics: bool,
    /// Losses, duplicates and jitter since the last report.
    pub summary: bool,
    /// Our time, for a round trip without sending RTP.
    pub reference_time: bool,
}

impl ExtendedPlan {
    pub fn is_empty(self) -> bool {
        self == ExtendedPlan::default()
    }
}

/// Encrypted media (RFC 3711): one master key for each direction, both of one suite. A plan with the
/// same keys as the one before goes on with their state; another key starts anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SrtpPlan {
    /// Ours.
    pub send: MasterKey,
    /// The peer's.
    pub receive: MasterKey,
    /// What the peer's packets carry, when it announced one.
    pub mki: Option<Mki>,
}

/// One leg's media, all decided. Replaced whole by each offer/answer exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegPlan {
    pub codec: CodecPlan,
    pub telephone_event: Option<TelephoneEventPlan>,
    pub pauses: PausePlan,
    pub remote: RemoteMedia,
    pub control: ControlPlan,
    pub direction: Direction,
    /// Where it is agreed, nothing plain is sent or accepted.
    pub srtp: Option<SrtpPlan>,
    /// The source of the caller's signalling: an address that media may latch to as well when the
    /// description's address is private and never heard of (NAT).
    pub signalling_source: IpAddr,
}

/// Sample rates of the agent stream (`inputSampleRate`, `outputSampleRate`), in hertz: 8,000,
/// 16,000, 24,000 or 48,000.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentRates {
    /// What we send to the agent; the usual codec decodes straight to it.
    pub input_hz: u32,
    /// What the agent sends; the usual codec encodes straight from it.
    pub output_hz: u32,
}

impl AgentRates {
    /// Rates by codec (house §5): no resampler stands in the usual call. For Opus the output rate
    /// is a setting: 24,000 by default, 16,000 for density, 48,000 on request.
    pub fn for_codec(kind: CodecKind, opus_output_hz: u32) -> AgentRates {
        match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::Ilbc => {
                AgentRates { input_hz: 8_000, output_hz: 8_000 }
            }
            CodecKind::G722 | CodecKind::G7221 | CodecKind::AmrWb => {
                AgentRates { input_hz: 16_000, output_hz: 16_000 }
            }
            CodecKind::Opus => AgentRates { input_hz: 16_000, output_hz: opus_output_hz },
        }
    }

    /// Rates of a stream that is made before the peer chose one of `codecs`: 16,000 when one of
    /// them is wideband, else 8,000. A choice with another rate is resampled.
    pub fn for_choice(codecs: &[CodecKind]) -> AgentRates {
        let narrow = |kind: &CodecKind| !kind.supports_rate(16_000);
        let hz = if codecs.iter().all(narrow) { 8_000 } else { 16_000 };
        AgentRates { input_hz: hz, output_hz: hz }
    }

    /// The codec works on both rates itself: no resampler stands between.
    pub fn suit(self, kind: CodecKind) -> bool {
        kind.supports_rate(self.input_hz) && kind.supports_rate(self.output_hz)
    }

    /// `clientBufferSizeMs` to ask of Ultravox for a call of one of `codecs`: seven eighths of what
    /// the playout queue holds in the widest one's form (G.711 is queued encoded, all else as
    /// samples), at most [`CLIENT_BUFFER_MS`]. Asking for more would lose the ends of long answers.
    pub fn client_buffer_ms(self, codecs: &[CodecKind]) -> u32 {
        let bytes = codecs.iter().map(|kind| playout_bytes_in_second(*kind, self.output_hz)).max();
        let held_ms = PLAYOUT_BYTES_MAX as u64 * 1_000 / bytes.unwrap_or(8_000);
        u32::try_from(held_ms / 8 * 7).unwrap_or(u32::MAX).min(CLIENT_BUFFER_MS)
    }
}

/// Bytes that a second of agent audio of `output_hz` takes in the playout queue of a codec: G.711
/// is kept encoded, all else as 16-bit samples of the codec's rate.
pub fn playout_bytes_in_second(kind: CodecKind, output_hz: u32) -> u64 {
    match kind {
        CodecKind::Pcmu | CodecKind::Pcma => 8_000,
        CodecKind::G722
        | CodecKind::Opus
        | CodecKind::Ilbc
        | CodecKind::G7221
        | CodecKind::AmrWb => 2 * u64::from(kind.pcm_rate(output_hz)),
    }
}

/// Bounds of how much later than the fastest packets may come and still be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DelayBounds {
    pub min: Duration,
    /// At most 500 ms; what is longer counts as so long.
    pub max: Duration,
}

impl Default for DelayBounds {
    fn default() -> DelayBounds {
        DelayBounds { min: JITTER_MIN, max: JITTER_MAX }
    }
}

/// What a media session is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaPlan {
    pub leg: LegPlan,
    pub agent: AgentRates,
    /// Silence of the caller's media for this long is reported once, unless it is on hold.
    pub rtp_timeout: Duration,
    /// The same without RTP, though the peer's RTCP came meanwhile, or said BYE: it pauses, or is muted.
    pub rtcp_only_max: Duration,
    /// Silence for this long on hold is reported once: a peer that died while it held the call says
    /// nothing, and neither does one that lives.
    pub hold_max: Duration,
    /// Between which bounds each leg's jitter buffer follows its network.
    pub jitter: DelayBounds,
    /// We dialled: what the peer plays before the agent joins (ringing, announcements) is not the
    /// agent's to hear, and kept for diagnosis. An incoming caller's first words are kept for the
    /// agent.
    pub outgoing: bool,
    /// A random CNAME (RFC 7022): never a user name.
    pub cname: String,
    /// Whose packets are never the peer's: our own.
    pub own: OwnPorts,
}

/// Signalling → shard. Every command names its call; for unknown calls all but `Close` are ignored,
/// which is answered by `Closed` in any case. Those of a leg or stream that is not there are ignored
/// as well; `CloseLeg` is always answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MediaCommand {
    /// Bind `port` (and `port + 1` unless RTCP is multiplexed) on `address` and start the session
    /// with the leg that the call began with, [`LegId::CALLER`].
    Open { plan: Box<MediaPlan>, address: IpAddr, port: u16 },
    /// Bind the ports of a further leg and add it to the session. It hears and is heard as the scene
    /// says. Answered by `LegOpened` or `LegBindFailed`.
    OpenLeg { leg: LegId, plan: Box<LegPlan>, address: IpAddr, port: u16 },
    /// Take a leg out of the session and close its sockets; answered by `LegClosed`.
    CloseLeg { leg: LegId },
    /// Connect to the agent's host and do the TLS handshake; send nothing yet. All streams of a call
    /// have the rates of its plan.
    Prepare { stream: StreamId, join_url: Secret },
    /// Send the upgrade on the prepared connection (or prepare first, when it is not). The first
    /// stream and the caller hear each other from then on, unless a scene was arranged.
    Join { stream: StreamId },
    /// Close this agent stream with 1000, or give it up when it is not joined. No event follows.
    LeaveStream { stream: StreamId },
    /// Replace a leg's plan. Answered by `Changed` with the same revision.
    Change { leg: LegId, revision: u32, plan: Box<LegPlan> },
    /// From the next frame on these hear each other, and nobody else.
    Arrange { scene: Scene },
    /// What [`Port::Sound`] plays from now on, from its start; `None`: nothing.
    Play { sound: Option<Arc<Sound>> },
    /// Press keys towards this leg: telephone-events where they were agreed, else tones in its audio.
    /// What others say to the leg waits meanwhile. Answered by `KeysSent`.
    SendKeys { leg: LegId, keys: Vec<Key>, tone: Duration, gap: Duration },
    /// Send one data message (JSON text) to the agent.
    SendText { stream: StreamId, text: String },
    /// Close all streams with 1000, the sockets and the session.
    Close,
}

/// One key: `0`–`9`, `*`, `#`, `A`–`D`. It may be of a PIN: never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub char);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What stands at one place of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    Leg(LegId),
    Agent(StreamId),
    /// Audio of our own: hold music, ringback, a prompt.
    Sound,
}

/// Who hears whom. A listener that hears several hears them mixed. An agent that hears nobody gets
/// silence, one second for each second; what nobody hears is dropped. Legs hear other legs, the sound,
/// and one agent: of several the one that was arranged first. Agents hear legs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scene {
    hears: Vec<(Port, Port)>,
    opened: Option<LegId>,
}

impl Scene {
    /// Nobody hears anybody.
    pub fn new() -> Scene {
        Scene::default()
    }

    /// `listener` hears `speaker` too.
    #[must_use]
    pub fn hearing(mut self, listener: Port, speaker: Port) -> Scene {
        if !self.hears(listener, speaker) && listener != speaker {
            self.hears.push((listener, speaker));
        }
        self
    }

    /// Both hear each other.
    #[must_use]
    pub fn talking(self, one: Port, other: Port) -> Scene {
        self.hearing(one, other).hearing(other, one)
    }

    /// Silence leaves for this leg although it hears nobody: a peer that sends to where media comes from
    /// waits for a first packet of ours. Nothing is expected of it yet.
    #[must_use]
    pub fn opening(mut self, leg: LegId) -> Scene {
        self.opened = Some(leg);
        self
    }

    /// The leg whose path is opened.
    pub fn opened(&self) -> Option<LegId> {
        self.opened
    }

    pub fn hears(&self, listener: Port, speaker: Port) -> bool {
        self.hears.contains(&(listener, speaker))
    }

    /// Each pair of a listener and whom it hears, in the order of their arranging.
    pub fn pairs(&self) -> impl Iterator<Item = (Port, Port)> + '_ {
        self.hears.iter().copied()
    }
}

/// Audio of our own, decoded, at one of the rates 8,000, 16,000, 24,000 or 48,000 Hz.
#[derive(Clone, PartialEq, Eq)]
pub struct Sound {
    pub hz: u32,
    pub pcm: Box<[i16]>,
    /// Played again and again; else once, and `SoundPlayed` tells of its end.
    pub repeats: bool,
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.pcm.len() as u64 * 1_000 / u64::from(self.hz.max(1));
        write!(f, "Sound({ms} ms at {} Hz, repeats: {})", self.hz, self.repeats)
    }
}

/// Why the agent stream could not be prepared or joined. Texts hold no part of the join URL but
/// its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AgentStreamFault {
    /// The join URL cannot be used: not `wss`, or a host outside the configured domains.
    BadUrl(String),
    /// Name resolution, connection or TLS failed.
    Unreachable(String),
    /// The upgrade was answered with this HTTP status instead of 101.
    Refused(u16),
    /// The handshake's answer was no WebSocket acceptance.
    BadHandshake(String),
    /// Not done within its time.
    TimedOut,
}

/// How an agent stream that was joined ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentClose {
    /// A close frame came: its code (1005 when it held none). 1000 is the agent's hang-up.
    Code(u16),
    /// The connection broke without a close frame, or no pong came in time.
    Lost,
}

/// Shard → signalling. Digits, agent messages and ends are never dropped.
#[derive(Clone, PartialEq, Debug)]
pub enum MediaEvent {
    Opened,
    /// The port is taken or the address is not ours; signalling tries another port.
    BindFailed,
    LegOpened {
        leg: LegId,
    },
    LegBindFailed {
        leg: LegId,
    },
    /// A leg was taken out; what it did.
    LegClosed {
        leg: LegId,
        report: Box<MediaReport>,
    },
    Prepared {
        stream: StreamId,
    },
    PrepareFailed {
        stream: StreamId,
        fault: AgentStreamFault,
    },
    Joined {
        stream: StreamId,
    },
    JoinFailed {
        stream: StreamId,
        fault: AgentStreamFault,
    },
    Changed {
        leg: LegId,
        revision: u32,
    },
    /// What an outgoing call heard before the agent joined, once it is over.
    EarlyMedia(Box<EarlyMedia>),
    /// The first packet of this leg's media was accepted, from this source.
    LegHeard {
        leg: LegId,
        source: SocketAddr,
    },
    /// The first agent audio went out on the wire.
    AgentHeard,
    /// One key ended, by telephone-event (RFC 4733) or, where none were agreed, by its tones:
    /// `0`–`9`, `*`, `#`, `A`–`D`.
    Digit {
        leg: LegId,
        digit: Key,
        duration_ms: u32,
    },
    /// One direction of this leg carries nothing; at most once for each direction and offer/answer.
    OneWay {
        leg: LegId,
        verdict: OneWay,
    },
    /// No sign of life from this leg for `rtp_timeout`, or no RTP for `rtcp_only_max`.
    LegSilent {
        leg: LegId,
    },
    /// On hold, and neither media nor RTCP came from this leg for `hold_max`.
    HeldTooLong {
        leg: LegId,
    },
    /// A sound that does not repeat has been played to its end.
    SoundPlayed,
    /// The last key has left.
    KeysSent {
        leg: LegId,
    },
    /// A data message of the agent that signalling may act on; audio-only ones stay in the shard.
    AgentText {
        stream: StreamId,
        text: String,
    },
    /// The agent's stream ended; what is queued for its listeners is still being played. The agent's
    /// clock stops here.
    AgentEnded {
        stream: StreamId,
    },
    /// The agent closed the stream; what was queued has been played.
    AgentLeft {
        stream: StreamId,
        close: AgentClose,
    },
    /// The session failed by our own bug; the call is to be ended.
    Broken(String),
    /// The last event of a call: everything is closed. The report is that of the leg that the call
    /// began with.
    Closed(Box<MediaReport>),
}

/// What became of one direction of a leg that should carry media and does not, judged by packets:
/// two seconds after its offer/answer, or of what we send, as soon as the peer's RTCP tells after that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OneWay {
    /// Nothing at all came from the peer.
    NothingCame,
    /// RTCP of the peer came, but no RTP.
    OnlyControl,
    /// Packets were refused by their source, the last of them this.
    FromElsewhere { source: SocketAddr },
    /// RTP came under numbers that were not agreed, the last of them this.
    WrongPayload { payload_type: u8 },
    /// Packets came that SRTP did not verify.
    Unverified,
    /// The peer reports by RTCP, and knows no packet of ours.
    NothingArrived,
}

impl OneWay {
    /// The kind in a fixed word, for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            OneWay::NothingCame => "nothing_came",
            OneWay::OnlyControl => "only_rtcp",
            OneWay::FromElsewhere { .. } => "from_elsewhere",
            OneWay::WrongPayload { .. } => "wrong_payload",
            OneWay::Unverified => "unverified",
            OneWay::NothingArrived => "nothing_arrived",
        }
    }
}

/// What early media sounds like. Tones are those of telephone networks only (ringing, busy); all
/// that is neither them nor silence is `Other`: speech, music, announcements, noise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlySound {
    Silence,
    Tones,
    Other,
}

/// Early media of an outgoing call in figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EarlyFigures {
    pub packets: u32,
    /// Milliseconds of audio in them.
    pub heard_ms: u64,
    /// Mean level in dB below full scale (a full-scale sine is −3), −100 for silence.
    pub level_dbfs: i8,
    pub sound: EarlySound,
}

impl fmt::Display for EarlyFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sound = match self.sound {
            EarlySound::Silence => "silence",
            EarlySound::Tones => "ringing or other tones",
            EarlySound::Other => "speech, music or noise",
        };
        let tenths = self.heard_ms / 100;
        write!(f, "{}.{} s of {sound}, {} dBFS", tenths / 10, tenths % 10, self.level_dbfs)
    }
}

/// Early media of an outgoing call: figures, and its last ten seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EarlyMedia {
    pub figures: EarlyFigures,
    /// µ-law at 8 kHz, at most 80,000 bytes.
    pub mu_law: Vec<u8>,
}

/// A command or an event with its call.
#[derive(Clone, PartialEq, Debug)]
pub struct ForCall<T> {
    pub call: CallKey,
    pub what: T,
}

/// What one media session did; plain counters, kept for the record and the metrics.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct MediaReport {
    pub packets_received: u64,
    pub packets_sent: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Expected by sequence number, never came (RFC 3550 §6.4.1).
    pub packets_lost: u64,
    /// Came after their place was played or concealed.
    pub packets_late: u64,
    pub packets_duplicate: u64,
    /// Dropped: wrong source, wrong payload number, malformed.
    pub packets_refused: u64,
    /// Dropped since SRTP did not verify them: plain, forged, replayed, of another key. And packets of
    /// ours that could not be protected, of which there should be none.
    pub srtp_failures: u64,
    /// Milliseconds of concealment given to the agent.
    pub concealed_ms: u64,
    /// Milliseconds of silence given to the agent for mute, hold or DTX.
    pub silence_ms: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1) in microseconds, the last value and the largest.
    pub jitter_us: u32,
    pub jitter_max_us: u32,
    /// What packets waited in the jitter buffer for others, in microseconds: the mean of all that were
    /// played, and the longest.
    pub jitter_wait_us: u32,
    pub jitter_wait_max_us: u32,
    /// How much later than the fastest packets may come and still be waited for, in microseconds: the
    /// last value and the largest.
    pub jitter_target_us: u32,
    pub jitter_target_max_us: u32,
    /// Milliseconds by which audio was made shorter and longer, without a change of pitch, since the
    /// sender's clock is another or packets came after their place was filled.
    pub shortened_ms: u64,
    pub lengthened_ms: u64,
    /// Round trip from RTCP, microseconds; zero when never measured.
    pub round_trip_us: u32,
    /// How the peer sounds to us, and we to it: mean opinion scores (`media::quality`), 1 to 4.5 of the
    /// codec's scale. `None`: nothing was received; the peer never reported by RTCP.
    pub mos_scale: Scale,
    pub mos_received: Option<f32>,
    pub mos_sent: Option<f32>,
    /// Missed packets of 256 in bursts, their mean length in milliseconds, and how many there were
    /// (RFC 3611 §4.7.2).
    pub burst_density: u8,
    pub burst_ms: u32,
    pub bursts: u32,
    /// How the peer hears us, by its last extended report (RFC 3611).
    pub far_end: Option<VoipMetrics>,
    /// Milliseconds of agent audio received, played, and emptied by `playback_clear_buffer`.
    pub agent_received_ms: u64,
    pub agent_played_ms: u64,
    pub agent_cleared_ms: u64,
    /// Milliseconds of agent audio dropped: the playout queue was full, or nobody was to hear it.
    pub agent_dropped_ms: u64,
    /// Milliseconds that the agent's first word waited for a sign of the caller's media path.
    pub agent_held_ms: u64,
    /// Milliseconds of agent audio that wait now, and that waited as frames left: mean and most. Long
    /// where the agent sends ahead of real time.
    pub agent_queue_ms: u32,
    pub agent_queue_mean_ms: u32,
    pub agent_queue_max_ms: u32,
    /// From the stream to the wire in milliseconds: half of the agent's audio waited no longer (to the
    /// bound of a bucket), and the longest.
    pub agent_wait_median_ms: u32,
    pub agent_wait_max_ms: u32,
    /// Times that the agent's words ran out and went on within 100 ms.
    pub agent_underruns: u32,
    /// Milliseconds by which a stream in real time was made shorter, and longer, to keep its delay.
    pub agent_shortened_ms: u64,
    pub agent_lengthened_ms: u64,
    /// Uplink frames dropped since the agent's socket did not take them.
    pub uplink_dropped_frames: u64,
    /// Frames that missed their deadline and were skipped, never sent in a burst.
    pub frames_late: u64,
    pub digits: u32,
    /// What an outgoing call heard before the agent joined.
    pub early: Option<EarlyFigures>,
}

/// How a leg of a call that is up goes just now; "now" is the last five seconds or so.
#[derive(Clone, PartialEq, Debug)]
pub struct LegView {
    pub leg: LegId,
    pub kind: CodecKind,
    pub direction: Direction,
    pub encrypted: bool,
    /// Packets of the peer that were lost or too late, in percent; `None`: none came.
    pub missed_percent: Option<f64>,
    pub missed_percent_now: Option<f64>,
    /// Scores, as those of the report.
    pub mos_received_now: Option<f32>,
    pub mos_sent_now: Option<f32>,
    /// All that it did so far.
    pub report: MediaReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_asked_for_fits_the_playout_queue() {
        for (kind, buffer_ms) in [
            (CodecKind::Pcmu, 28_672),
            (CodecKind::Pcma, 28_672),
            (CodecKind::Ilbc, 14_336),
            (CodecKind::G722, 7_168),
            (CodecKind::G7221, 7_168),
            (CodecKind::AmrWb, 7_168),
            (CodecKind::Opus, 4_774),
        ] {
            let rates = AgentRates::for_codec(kind, 24_000);
            assert_eq!(rates.client_buffer_ms(&[kind]), buffer_ms, "{kind:?}");
        }
        let all = [CodecKind::Opus, CodecKind::G722, CodecKind::Pcma];
        let rates = AgentRates::for_choice(&all);
        assert_eq!((rates.output_hz, rates.client_buffer_ms(&all)), (16_000, 7_168));
        let narrow = AgentRates::for_choice(&all[2..]);
        assert_eq!((narrow.input_hz, narrow.client_buffer_ms(&all[2..])), (8_000, 28_672));
    }
}
