//! One call's media: the caller's leg on one side, the agent's stream on the other. Pure: packets,
//! agent audio and deadlines come in with their time; packets, agent audio and events go out. It
//! never touches a socket or a clock, and allocates only in `new` and `change`.
//!
//! After each `handle_*`: empty the uplink, then `poll_transmit` and `poll_event` until `None`, then
//! wait for `poll_timeout`.

use super::control::Control;
use super::early::EarlyEar;
use super::inbound::{Content, Inbound};
use super::latch::SourceLatch;
use super::outbound::Outbound;
use super::plan::{
    AgentClose, Direction, EarlyFigures, EarlyMedia, LegPlan, MediaEvent, MediaPlan, MediaReport,
    RemoteMedia,
};
use super::topology::Topology;
use super::uplink::Uplink;
use crate::codec::{CodecFault, CodecKind};
use crate::ground::limits::{FAREWELL, PATH_CONFIRM};
use crate::ground::{Entropy, Instant, LegId, Now, StreamId};
use crate::rtp::is_rtcp;
use crate::rtp::packet::{RtpHeader, RtpPacket};
use crate::rtp::telephone_event::{self, Digit};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Which socket a packet leaves by. With multiplexed RTCP both are one (RFC 5761).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    Rtp,
    Rtcp,
}

/// A packet that is to be sent: the first `len` bytes of the buffer that was lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    pub len: usize,
    pub to: SocketAddr,
    pub channel: Channel,
}

/// Events that may wait to be polled; the owner empties them after each input.
const EVENTS_MAX: usize = 32;
/// Events that one input has in the usual case; there is room for so many from the start.
const EVENTS_USUAL: usize = 4;
/// What the network and the caller's jitter buffer take until the last word is heard.
const LAST_WORD: Duration = Duration::from_millis(200);
/// Digits that one packet can end.
const DIGITS_MAX: usize = 4;

/// How the agent's stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AgentState {
    /// The caller's audio is kept, nothing is sent.
    Awaited,
    Joined,
    /// The stream ended; its last words are being played, until `until` at the latest. `played`:
    /// the last one left and is on its way.
    Leaving {
        close: AgentClose,
        until: Instant,
        played: bool,
    },
    Left,
}

/// What becomes of audio that comes before the agent joined.
enum Early {
    /// An incoming call: the agent hears its caller's first words.
    ForAgent,
    /// An outgoing call: its own ear, from the first packet on.
    Diagnosed(Option<Box<EarlyEar>>),
    /// An outgoing call whose agent joined, or which is over.
    Over(Option<EarlyFigures>),
}

/// The machine of one call's media.
pub struct MediaSession {
    leg: LegPlan,
    rtp_timeout: Duration,
    hold_max: Duration,
    topology: Topology,
    agent: AgentState,
    latch: SourceLatch,
    early: Early,
    inbound: Inbound,
    outbound: Outbound,
    control: Control,
    events_received: telephone_event::Receiver,
    digits: Vec<Digit>,
    /// Where the peer's RTCP came from, on its own port.
    control_source: Option<SocketAddr>,
    /// Last sign of life of the caller's media.
    last_heard: Instant,
    silence_told: bool,
    caller_heard: bool,
    agent_heard: bool,
    events: VecDeque<MediaEvent>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets_received: u64,
    packets_sent: u64,
    bytes_received: u64,
    bytes_sent: u64,
    refused: u64,
    uplink_dropped: u64,
    digits: u32,
}

impl MediaSession {
    /// A session that waits for its agent. Where the codec has another rate than the agent's stream,
    /// it is resampled. Fails when the agent's rates are none that we know.
    pub fn new(now: Now, plan: &MediaPlan, mut entropy: Entropy) -> Result<Self, CodecFault> {
        let leg = plan.leg;
        let outbound = Outbound::new(now.at, &leg.codec, plan.agent.output_hz, &mut entropy)?;
        let clock_hz = leg.codec.kind.rtp_clock_hz();
        let control = Control::new(&plan.cname, outbound.ssrc(), clock_hz, entropy);
        Ok(MediaSession {
            leg,
            rtp_timeout: plan.rtp_timeout,
            hold_max: plan.hold_max,
            topology: Topology::new(),
            agent: AgentState::Awaited,
            latch: SourceLatch::new(leg.remote.rtp, leg.signalling_source),
            early: if plan.outgoing { Early::Diagnosed(None) } else { Early::ForAgent },
            inbound: Inbound::new(&leg.codec, leg.telephone_event, plan.agent.input_hz)?,
            outbound,
            control,
            events_received: telephone_event::Receiver::new(event_clock_hz(&leg)),
            digits: Vec::with_capacity(DIGITS_MAX),
            control_source: None,
            last_heard: now.at,
            silence_told: false,
            caller_heard: false,
            agent_heard: false,
            events: VecDeque::with_capacity(EVENTS_USUAL),
            counters: Counters::default(),
        })
    }

    /// A datagram came to the RTP port. Whatever is not the caller's is counted and dropped.
    pub fn handle_rtp(&mut self, now: Now, source: SocketAddr, packet: &[u8], uplink: &mut Uplink) {
        if self.is_control(now.at, packet) {
            return self.handle_rtcp(now, source, packet);
        }
        let Some((header, content, payload)) = self.admit(now.at, source, packet) else {
            self.counters.refused += 1;
            return;
        };
        self.counters.packets_received += 1;
        self.counters.bytes_received += packet.len() as u64;
        self.on_life(now.at);
        self.on_caller_heard(now.at, source);
        self.control.handle_received(now.at, &header, content == Content::Audio);
        if !self.leg.direction.receives() {
            return;
        }
        if content == Content::Event {
            self.on_telephone_event(now.at, header, payload);
        }
        if let Early::Diagnosed(ear) = &mut self.early {
            return hear_early(ear, self.leg.codec.kind, content, payload);
        }
        self.inbound.receive(now.at, header, payload, uplink);
        if let Some(mode) = self.inbound.requested_mode() {
            self.outbound.request_mode(mode);
        }
        self.counters.uplink_dropped = uplink.dropped_frames();
    }

    /// A datagram came to the RTCP port. It counts as life; a BYE does not end the call.
    pub fn handle_rtcp(&mut self, now: Now, source: SocketAddr, packet: &[u8]) {
        let anchor = self.latch.latched().or(self.leg.remote.rtp);
        let known = anchor.map_or(self.leg.signalling_source, |address| address.ip());
        if source.ip().to_canonical() != known.to_canonical() {
            self.counters.refused += 1;
            return;
        }
        if !self.control.handle_packet(now, packet) {
            self.counters.refused += 1;
            return;
        }
        self.control_source = Some(source);
        self.latch.note_control();
        self.outbound.set_expected_loss(self.control.peer_loss_percent());
        self.on_life(now.at);
        self.update_flow(now.at);
    }

    /// Audio from the agent: 16-bit little-endian samples at `output_hz`, cut anywhere.
    pub fn handle_agent_audio(&mut self, now: Now, pcm_bytes: &[u8]) {
        if self.agent == AgentState::Joined {
            self.outbound.handle_audio(now.at, pcm_bytes);
        }
    }

    /// `playback_clear_buffer`: what was not played is forgotten, silence follows at once.
    pub fn handle_agent_clear(&mut self, _now: Now) {
        self.outbound.clear();
    }

    /// The agent joined. What was kept of the caller flows, and the uplink's clock begins.
    pub fn handle_agent_joined(&mut self, now: Now, uplink: &mut Uplink) {
        if self.topology.join_agent().is_none() {
            return;
        }
        self.agent = AgentState::Joined;
        if let Some(early) = self.take_early_media() {
            self.tell(MediaEvent::EarlyMedia(early));
        }
        self.last_heard = now.at;
        self.inbound.join(now.at);
        uplink.open();
        self.control.start(now.at);
        if !self.caller_heard && self.leg.direction.receives() {
            self.outbound.hold_speech(now.at + PATH_CONFIRM);
        }
        self.update_flow(now.at);
    }

    /// The agent's stream ended. When its queued words were heard, [`MediaEvent::AgentLeft`] comes.
    pub fn handle_agent_closed(&mut self, now: Now, close: AgentClose) {
        if self.agent == AgentState::Joined {
            self.agent = AgentState::Leaving { close, until: now.at + FAREWELL, played: false };
            self.tell(MediaEvent::AgentEnded { stream: StreamId::FIRST });
            self.on_farewell(now.at);
        }
    }

    /// Follows a new offer/answer. Sequence, timestamps and SSRC go on. On a fault nothing changes.
    pub fn change(&mut self, now: Now, leg: &LegPlan) -> Result<(), CodecFault> {
        let prepared = self.outbound.prepare(&leg.codec)?;
        self.inbound.change(now.at, &leg.codec, leg.telephone_event)?;
        self.outbound.change(&leg.codec, prepared);
        if !leg.direction.receives() {
            self.inbound.hold();
        }
        if leg.codec.kind.rtp_clock_hz() != self.leg.codec.kind.rtp_clock_hz() {
            self.control.change_clock(leg.codec.kind.rtp_clock_hz());
        }
        if event_clock_hz(leg) != event_clock_hz(&self.leg) {
            self.events_received.restart(&mut self.digits);
            self.tell_digits();
            self.events_received = telephone_event::Receiver::new(event_clock_hz(leg));
        }
        self.latch.reoffer(now.at, leg.remote.rtp, leg.signalling_source);
        self.last_heard = now.at;
        self.leg = *leg;
        self.update_flow(now.at);
        Ok(())
    }

    /// How much work the Opus encoder takes, 0 to 10: less under load. It holds for what `change` brings
    /// too. Other codecs do not know it.
    pub fn set_opus_complexity(&mut self, complexity: u8) {
        self.outbound.set_opus_complexity(complexity);
    }

    /// Deadlines: gaps, missing samples, the caller's silence, the farewell.
    pub fn handle_timeout(&mut self, now: Now, uplink: &mut Uplink) {
        self.inbound.handle_timeout(now.at, uplink);
        self.counters.uplink_dropped = uplink.dropped_frames();
        self.events_received.handle_timeout(now.at, &mut self.digits);
        self.tell_digits();
        if self.silence_deadline().is_some_and(|deadline| deadline <= now.at) {
            self.silence_told = true;
            self.tell(match self.leg.direction {
                Direction::SendRecv => MediaEvent::LegSilent { leg: LegId::CALLER },
                Direction::SendOnly | Direction::RecvOnly | Direction::Inactive => {
                    MediaEvent::HeldTooLong { leg: LegId::CALLER }
                }
            });
        }
        self.on_farewell(now.at);
    }

    /// The next packet to send, written into `buffer`.
    pub fn poll_transmit(&mut self, now: Now, buffer: &mut [u8; 1500]) -> Option<Transmit> {
        if let Some(report) = self.poll_report(now, buffer) {
            return Some(report);
        }
        self.update_flow(now.at);
        let sent = self.outbound.poll_transmit(now.at, buffer);
        self.on_farewell(now.at);
        let (len, spoken) = sent?;
        let to = self.latch.destination()?;
        self.latch.count_sent();
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += len as u64;
        if spoken && !self.agent_heard {
            self.agent_heard = true;
            self.tell(MediaEvent::AgentHeard);
        }
        Some(Transmit { len, to, channel: Channel::Rtp })
    }

    /// What signalling should know, in order.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    /// When `handle_timeout` and `poll_transmit` are to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let farewell = match self.agent {
            AgentState::Leaving { until, .. } => Some(until),
            AgentState::Awaited | AgentState::Joined | AgentState::Left => None,
        };
        let deadlines = [
            self.outbound.deadline(),
            self.inbound.poll_timeout(),
            self.control.deadline(),
            self.events_received.poll_timeout(),
            self.silence_deadline(),
            farewell,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What an outgoing call heard before its agent joined; once, and told by itself at the join.
    /// For a call that ends before it.
    pub fn take_early_media(&mut self) -> Option<Box<EarlyMedia>> {
        let Early::Diagnosed(ear) = &mut self.early else { return None };
        let early = ear.take().map(|ear| Box::new(ear.finish()));
        self.early = Early::Over(early.as_ref().map(|early| early.figures));
        early
    }

    /// What the session did so far.
    pub fn report(&self) -> MediaReport {
        let (inbound, outbound) = (self.inbound.counters(), self.outbound.counters());
        MediaReport {
            packets_received: self.counters.packets_received,
            packets_sent: self.counters.packets_sent,
            bytes_received: self.counters.bytes_received,
            bytes_sent: self.counters.bytes_sent,
            packets_lost: self.control.lost(),
            packets_late: inbound.late,
            packets_duplicate: inbound.duplicate,
            packets_refused: self.counters.refused + inbound.refused,
            concealed_ms: inbound.concealed.milliseconds(),
            silence_ms: inbound.silent.milliseconds(),
            jitter_us: micros(self.control.jitter()),
            jitter_max_us: micros(self.control.jitter_max()),
            round_trip_us: micros(self.control.round_trip()),
            agent_received_ms: outbound.received.milliseconds(),
            agent_played_ms: outbound.played.milliseconds(),
            agent_cleared_ms: outbound.cleared.milliseconds(),
            agent_dropped_ms: outbound.dropped.milliseconds(),
            agent_held_ms: outbound.held.as_millis() as u64,
            uplink_dropped_frames: self.counters.uplink_dropped,
            frames_late: outbound.frames_late,
            digits: self.counters.digits,
            early: match &self.early {
                Early::ForAgent => None,
                Early::Diagnosed(ear) => ear.as_ref().map(|ear| ear.figures()),
                Early::Over(figures) => *figures,
            },
        }
    }

    fn poll_report(&mut self, now: Now, buffer: &mut [u8]) -> Option<Transmit> {
        let len = self.control.poll_report(now, &self.outbound, buffer)?;
        let rtp = self.latch.destination()?;
        let (to, channel) = match self.leg.remote {
            RemoteMedia { rtcp_mux: true, .. } => (rtp, Channel::Rtp),
            RemoteMedia { rtcp, .. } => {
                let near = |address: &SocketAddr| address.ip().to_canonical() == rtp.ip();
                let known = self.control_source.filter(near).or(rtcp.filter(near));
                let beside = SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?);
                (known.unwrap_or(beside), Channel::Rtcp)
            }
        };
        Some(Transmit { len, to, channel })
    }

    /// RTCP on the RTP port. Where RTCP has a port of its own, a peer may give audio a payload number
    /// that looks like it with the marker (RFC 5761 §4 binds multiplexed ports only).
    fn is_control(&self, now: Instant, packet: &[u8]) -> bool {
        let agreed = packet.get(1).and_then(|byte| self.inbound.content(now, byte & 0x7f));
        is_rtcp(packet) && (self.leg.remote.rtcp_mux || agreed.is_none())
    }

    /// The header, meaning and payload of a packet that is the caller's.
    fn admit<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        packet: &'a [u8],
    ) -> Option<(RtpHeader, Content, &'a [u8])> {
        let view = RtpPacket::parse(packet).ok()?;
        let header = view.header;
        let content = self.inbound.content(now, header.payload_type)?;
        let own = header.ssrc == self.outbound.ssrc();
        let accepted = !own && self.latch.accepts(now, source, header.ssrc, header.sequence);
        accepted.then_some((header, content, view.payload))
    }

    fn on_life(&mut self, now: Instant) {
        self.last_heard = now;
        self.silence_told = false;
    }

    fn on_caller_heard(&mut self, now: Instant, source: SocketAddr) {
        if !self.caller_heard {
            self.caller_heard = true;
            self.tell(MediaEvent::LegHeard { leg: LegId::CALLER, source });
            self.outbound.release_speech(now);
            self.update_flow(now);
        }
    }

    fn on_telephone_event(&mut self, now: Instant, header: RtpHeader, payload: &[u8]) {
        let (timestamp, marker) = (header.timestamp, header.marker);
        self.events_received.receive(now, timestamp, marker, payload, &mut self.digits);
        self.tell_digits();
    }

    fn tell_digits(&mut self) {
        while !self.digits.is_empty() {
            let Digit { digit, duration_ms } = self.digits.remove(0);
            self.counters.digits += 1;
            self.tell(MediaEvent::Digit { leg: LegId::CALLER, digit, duration_ms });
        }
    }

    /// After the agent's end: its last word was heard, or its time is over.
    fn on_farewell(&mut self, now: Instant) {
        let AgentState::Leaving { close, until, played } = &mut self.agent else { return };
        if !*played && self.outbound.is_drained() {
            *played = true;
            *until = (*until).min(now + LAST_WORD);
        }
        if now < *until {
            return;
        }
        let close = *close;
        self.outbound.clear();
        self.agent = AgentState::Left;
        let Some(port) = self.topology.agent() else { return };
        let sole = self.topology.is_sole_partner(port);
        self.topology.remove(port);
        if sole {
            self.tell(MediaEvent::AgentLeft { stream: StreamId::FIRST, close });
        }
    }

    /// Packets leave once the agent joined and an address is known that hears them; until then
    /// words are kept. Words wait for the caller's first packet as well, since before it nobody
    /// knows whether the path is open; silence goes ahead and opens it. On hold words are played to
    /// nobody.
    fn update_flow(&mut self, now: Instant) {
        let joined = self.agent != AgentState::Awaited;
        let muted = !self.leg.direction.sends();
        let open = joined && (muted || self.latch.destination().is_some());
        self.outbound.set_open(now, open, muted);
    }

    fn silence_deadline(&self) -> Option<Instant> {
        let patience = match self.leg.direction {
            Direction::SendRecv => self.rtp_timeout,
            // A peer that only sends has us on hold (RFC 3264 §8.4), with music or without.
            Direction::SendOnly | Direction::RecvOnly | Direction::Inactive => self.hold_max,
        };
        let watched = self.agent != AgentState::Awaited && !self.silence_told;
        watched.then(|| self.last_heard + patience)
    }

    fn tell(&mut self, event: MediaEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

/// The first packet of audio makes the ear; its codec was made once already, so that this succeeds.
fn hear_early(ear: &mut Option<Box<EarlyEar>>, kind: CodecKind, content: Content, payload: &[u8]) {
    if content != Content::Audio {
        return;
    }
    if ear.is_none() {
        *ear = EarlyEar::new(kind).ok().map(Box::new);
    }
    if let Some(ear) = ear {
        ear.hear(kind, payload);
    }
}

fn event_clock_hz(leg: &LegPlan) -> u32 {
    leg.telephone_event.map_or(8_000, |event| event.clock_hz)
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
