//! One call's media: its legs, its agents' streams, the sound that is played, and who of them hears
//! whom. Pure: packets, agent audio and deadlines come in with their time; packets, agent audio and
//! events go out. It never touches a socket or a clock, and allocates only when signalling speaks.
//!
//! After each `handle_*` and each command: empty the uplinks, then `poll_transmit` and `poll_event`
//! until `None`, then wait for `poll_timeout`.
//!
//! In the usual call one leg and one agent hear each other: packets are decoded into the agent's
//! ring, its words are queued in the codec's form. What more a [`Scene`] asks for goes by the bridge.

use super::bridge::{Bridge, Rates};
use super::inbound::Hearers;
use super::lane::FADE_SAMPLES_MAX;
use super::leg::{Leg, Making, Patience};
use super::plan::{
    AgentClose, AgentRates, EarlyMedia, LegPlan, LegView, MediaEvent, MediaPlan, MediaReport, Port,
    Scene, Sound,
};
use super::stream::{AgentState, Hearing, Stream};
use super::uplink::Uplink;
use crate::codec::CodecFault;
use crate::codec::resample::RATES_HZ;
use crate::ground::limits::{FAREWELL, LEGS_MAX, STREAMS_MAX};
use crate::ground::ports::OwnPorts;
use crate::ground::{Entropy, Instant, LegId, Now, StreamId};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which socket of its leg a packet leaves by. With multiplexed RTCP both are one (RFC 5761).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    Rtp,
    Rtcp,
}

/// A packet that is to be sent: the first `len` bytes of the buffer that was lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    pub leg: LegId,
    pub len: usize,
    pub to: SocketAddr,
    pub channel: Channel,
}

/// Why a leg was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegFault {
    /// The call has as many legs as it may have, or this one already.
    Full,
    Codec(CodecFault),
}

/// Events that may wait to be polled; the owner empties them after each input.
const EVENTS_MAX: usize = 64;
/// Events that one input has in the usual case; there is room for so many from the start.
const EVENTS_USUAL: usize = 4;
/// What the network and a peer's jitter buffer take until the last word is heard.
const LAST_WORD: Duration = Duration::from_millis(200);

/// What signalling should know, in order.
pub(super) struct Events(VecDeque<MediaEvent>);

impl Events {
    pub(super) fn tell(&mut self, event: MediaEvent) {
        if self.0.len() < EVENTS_MAX {
            self.0.push_back(event);
        }
    }
}

/// The machine of one call's media.
pub struct MediaSession {
    legs: Vec<Leg>,
    streams: Vec<Stream>,
    scene: Scene,
    bridge: Option<Box<Bridge>>,
    agent: AgentRates,
    patience: Patience,
    own: OwnPorts,
    opus_complexity: Option<u8>,
    agent_heard: bool,
    events: Events,
    /// What the leg that the call began with did, once it is gone.
    first_report: Option<Box<MediaReport>>,
    left: LeftStreams,
}

/// What agents did whose streams have made place for others.
#[derive(Clone, Copy, Debug, Default)]
struct LeftStreams {
    unheard_ms: u64,
    dropped_frames: u64,
}

impl MediaSession {
    /// A session of the leg that the call begins with, waiting for its first agent; they will hear
    /// each other. Where the codec has another rate than the agent's stream, it is resampled.
    ///
    /// # Errors
    /// The agent's rates are none that we know.
    pub fn new(now: Now, plan: &MediaPlan, entropy: Entropy) -> Result<Self, CodecFault> {
        let patience = Patience {
            rtp_timeout: plan.rtp_timeout,
            rtcp_only_max: plan.rtcp_only_max,
            hold_max: plan.hold_max,
            jitter: plan.jitter,
        };
        let making = Making {
            id: LegId::CALLER,
            agent: plan.agent,
            patience,
            diagnosed: plan.outgoing,
            cname: &plan.cname,
            own: &plan.own,
        };
        let mut leg = Leg::new(now, &plan.leg, &making, entropy)?;
        leg.outbound.expect_agent(StreamId::FIRST);
        let hearing = Hearing::Leg(LegId::CALLER);
        Ok(MediaSession {
            legs: vec![leg],
            streams: vec![Stream::new(StreamId::FIRST, plan.agent.input_hz, hearing)],
            scene: Scene::new().talking(Port::Leg(LegId::CALLER), Port::Agent(StreamId::FIRST)),
            bridge: None,
            agent: plan.agent,
            patience,
            own: plan.own.clone(),
            opus_complexity: None,
            agent_heard: false,
            events: Events(VecDeque::with_capacity(EVENTS_USUAL)),
            first_report: None,
            left: LeftStreams::default(),
        })
    }

    /// Adds a leg, which hears and is heard as the scene says.
    ///
    /// # Errors
    /// [`LegFault`].
    pub fn open_leg(
        &mut self,
        now: Now,
        id: LegId,
        plan: &LegPlan,
        mut entropy: Entropy,
    ) -> Result<(), LegFault> {
        if self.legs.len() >= LEGS_MAX || self.legs.iter().any(|leg| leg.id == id) {
            return Err(LegFault::Full);
        }
        let cname = format!("{:08x}{:08x}", entropy.u32(), entropy.u32());
        let (agent, patience) = (self.agent, self.patience);
        let own = &self.own;
        let making = Making { id, agent, patience, diagnosed: false, cname: &cname, own };
        let mut leg = Leg::new(now, plan, &making, entropy).map_err(LegFault::Codec)?;
        if let Some(complexity) = self.opus_complexity {
            leg.outbound.set_opus_complexity(complexity);
        }
        self.legs.reserve_exact(1);
        self.legs.push(leg);
        self.route(now).map_err(LegFault::Codec)
    }

    /// Takes a leg out; nobody hears it any more. Gives what it did.
    pub fn close_leg(&mut self, now: Now, id: LegId) -> Option<MediaReport> {
        let place = self.legs.iter().position(|leg| leg.id == id)?;
        let mut report = self.legs[place].report();
        if id == LegId::CALLER {
            report = self.report();
            self.first_report = Some(Box::new(report));
        }
        for listener in 0..self.legs.len() {
            let from = self.legs[listener].takes_from();
            if listener == place || from == Some(id) {
                self.end_relay(now, listener);
            }
        }
        self.legs.remove(place);
        self.follow_scene(now);
        Some(report)
    }

    /// A leg is about to be closed: the next packets say so to its peer (RTCP BYE), if reports have
    /// begun.
    pub fn say_goodbye(&mut self, now: Now, leg: LegId) {
        for known in self.legs.iter_mut().filter(|known| known.id == leg) {
            known.leave(now.at);
        }
    }

    /// A datagram came to a leg's RTP port. Whatever is not the peer's is counted and dropped.
    pub fn handle_rtp(&mut self, now: Now, leg: LegId, source: SocketAddr, packet: &[u8]) {
        let Some(place) = self.legs.iter().position(|known| known.id == leg) else { return };
        let takes = |other: &Leg| other.takes_from() == Some(leg);
        let listener = self.legs.iter().position(takes);
        let pair = listener.map(|other| self.legs.get_disjoint_mut([place, other]));
        let (leg, listener) = match pair {
            Some(Ok([leg, other])) => (leg, Some((other.id, &mut other.outbound))),
            Some(Err(_)) | None => (&mut self.legs[place], None),
        };
        let hearers = Hearers {
            now: now.at,
            speaker: leg.id,
            streams: &mut self.streams,
            bridge: self.bridge.as_deref_mut(),
            listener,
            ear: None,
        };
        leg.handle_rtp(now, source, packet, hearers, &mut self.events);
    }

    /// A datagram came to a leg's RTCP port. It counts as life; a BYE does not end the call.
    pub fn handle_rtcp(&mut self, now: Now, leg: LegId, source: SocketAddr, packet: &[u8]) {
        if let Some(leg) = self.legs.iter_mut().find(|known| known.id == leg) {
            leg.handle_rtcp(now, source, packet, &mut self.events);
        }
    }

    /// An agent is awaited: what it is to hear first is kept for it. False when the call has as many
    /// streams as it may have.
    pub fn await_agent(&mut self, now: Now, id: StreamId) -> bool {
        if let Some(known) = self.streams.iter().find(|stream| stream.id == id) {
            return !known.is_over();
        }
        self.forget_left();
        if self.streams.len() >= STREAMS_MAX {
            return false;
        }
        self.streams.reserve_exact(1);
        self.streams.push(Stream::new(id, self.agent.input_hz, Hearing::Frames));
        self.follow_scene(now);
        true
    }

    /// This agent is awaited, there, or leaving.
    pub fn has_agent(&self, id: StreamId) -> bool {
        self.streams.iter().any(|stream| stream.id == id && !stream.is_over())
    }

    /// An agent joined. What was kept for it flows, and its clock begins.
    pub fn handle_agent_joined(&mut self, now: Now, id: StreamId) {
        if !self.await_agent(now, id) {
            return;
        }
        if let Some(stream) = self.stream(id).filter(|stream| stream.state == AgentState::Awaited) {
            stream.join(now.at);
            self.follow_scene(now);
        }
    }

    /// Audio from an agent: 16-bit little-endian samples at `output_hz`, cut anywhere. What nobody
    /// hears is dropped and counted.
    pub fn handle_agent_audio(&mut self, now: Now, id: StreamId, pcm_bytes: &[u8]) {
        let output_hz = self.agent.output_hz;
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        if !stream.is_joined() {
            return;
        }
        let mut heard = false;
        for leg in self.legs.iter_mut().filter(|leg| leg.outbound.agent() == Some(id)) {
            leg.outbound.handle_audio(now.at, pcm_bytes);
            heard = true;
        }
        if !heard {
            stream.drop_unheard(pcm_bytes.len() / 2, output_hz);
        }
    }

    /// `playback_clear_buffer`: what was not played is forgotten, silence follows at once.
    pub fn handle_agent_clear(&mut self, _now: Now, id: StreamId) {
        for leg in self.legs.iter_mut().filter(|leg| leg.outbound.agent() == Some(id)) {
            leg.outbound.clear();
        }
    }

    /// An agent's stream ended. When its queued words were heard, [`MediaEvent::AgentLeft`] comes.
    pub fn handle_agent_closed(&mut self, now: Now, id: StreamId, close: AgentClose) {
        let Some(stream) = self.stream(id).filter(|stream| stream.is_joined()) else { return };
        stream.state = AgentState::Leaving { close, until: now.at + FAREWELL, played: false };
        self.events.tell(MediaEvent::AgentEnded { stream: id });
        self.on_farewells(now);
    }

    /// An agent is given up by us: nothing of it is heard any more, and nothing is told.
    pub fn leave_agent(&mut self, now: Now, id: StreamId) {
        if let Some(stream) = self.stream(id) {
            stream.state = AgentState::Left;
            self.follow_scene(now);
        }
    }

    /// Follows a leg's new offer/answer. Sequence, timestamps and SSRC go on.
    ///
    /// # Errors
    /// The codec cannot be made; nothing changed.
    pub fn change(&mut self, now: Now, leg: LegId, plan: &LegPlan) -> Result<(), CodecFault> {
        let place = self.legs.iter().position(|known| known.id == leg);
        let Some(place) = place else { return Ok(()) };
        if !self.legs[place].speaks_as(plan) {
            for listener in 0..self.legs.len() {
                if listener == place || self.legs[listener].takes_from() == Some(leg) {
                    self.end_relay(now, listener);
                }
            }
        }
        let changed = self.legs[place].change(now, plan, &mut self.events);
        // Whatever was ended above begins again.
        self.route(now)?;
        changed
    }

    /// From the next frame on these hear each other, and nobody else.
    pub fn arrange(&mut self, now: Now, scene: Scene) {
        self.bridge.get_or_insert_default();
        self.scene = scene;
        self.follow_scene(now);
    }

    /// What [`Port::Sound`] plays from now on. A sound of a rate that we do not know is over at once.
    pub fn play(&mut self, now: Now, sound: Option<Arc<Sound>>) {
        let known = sound.filter(|sound| {
            let known = RATES_HZ.contains(&sound.hz) && !sound.pcm.is_empty();
            if !known {
                self.events.tell(MediaEvent::SoundPlayed);
            }
            known
        });
        self.bridge.get_or_insert_default().play(known);
        self.follow_scene(now);
    }

    /// Presses keys towards a leg, after those that are being pressed.
    pub fn send_keys(&mut self, leg: LegId, keys: &[char], tone: Duration, gap: Duration) {
        if let Some(known) = self.legs.iter_mut().find(|known| known.id == leg) {
            known.outbound.send_keys(keys, tone, gap);
        }
    }

    /// How much work the Opus encoders take, 0 to 10: less under load. It holds for what `change` and
    /// `open_leg` bring too. Other codecs do not know it.
    pub fn set_opus_complexity(&mut self, complexity: u8) {
        self.opus_complexity = Some(complexity);
        for leg in &mut self.legs {
            leg.outbound.set_opus_complexity(complexity);
        }
    }

    /// Deadlines: gaps, missing samples, frames for agents, silence, the sound's end, farewells.
    pub fn handle_timeout(&mut self, now: Now) {
        for leg in &mut self.legs {
            let hearers = Hearers {
                now: now.at,
                speaker: leg.id,
                streams: &mut self.streams,
                bridge: self.bridge.as_deref_mut(),
                listener: None,
                ear: None,
            };
            leg.handle_timeout(now, hearers, &mut self.events);
        }
        for stream in &mut self.streams {
            stream.handle_timeout(now.at, self.bridge.as_deref_mut());
        }
        if self.bridge.as_mut().is_some_and(|bridge| bridge.handle_timeout(now.at)) {
            self.events.tell(MediaEvent::SoundPlayed);
        }
        self.on_farewells(now);
    }

    /// The next packet to send, written into `buffer`.
    pub fn poll_transmit(&mut self, now: Now, buffer: &mut [u8; 1500]) -> Option<Transmit> {
        let mut sent = None;
        for leg in &mut self.legs {
            let bridge = self.bridge.as_deref_mut();
            sent = leg.poll_transmit(now, buffer, bridge, &mut self.events);
            if sent.is_some() {
                break;
            }
        }
        self.on_farewells(now);
        let (transmit, spoken) = sent?;
        if spoken && !self.agent_heard {
            self.agent_heard = true;
            self.events.tell(MediaEvent::AgentHeard);
        }
        Some(transmit)
    }

    /// What signalling should know, in order.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.0.pop_front()
    }

    /// When `handle_timeout` and `poll_transmit` are to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let legs = self.legs.iter().filter_map(Leg::poll_timeout);
        let streams = self.streams.iter().filter_map(|stream| match stream.state {
            AgentState::Leaving { until, .. } => Some(until),
            AgentState::Joined => stream.poll_timeout(),
            AgentState::Awaited | AgentState::Left => None,
        });
        let sound = self.bridge.as_ref().and_then(|bridge| bridge.poll_timeout());
        legs.chain(streams).chain(sound).min()
    }

    /// The ring of audio for an agent.
    pub fn uplink(&mut self, id: StreamId) -> Option<&mut Uplink> {
        self.stream(id).map(|stream| &mut stream.uplink)
    }

    /// What an outgoing call heard before its agent joined; once, and told by itself at the join.
    /// For a call that ends before it.
    pub fn take_early_media(&mut self) -> Option<Box<EarlyMedia>> {
        self.legs.first_mut().and_then(Leg::take_early_media)
    }

    /// What the leg that the call began with did so far.
    pub fn report(&self) -> MediaReport {
        if let Some(report) = &self.first_report {
            return **report;
        }
        let first = self.legs.iter().find(|leg| leg.id == LegId::CALLER);
        let mut report = first.map(Leg::report).unwrap_or_default();
        let unheard_ms = self.streams.iter().map(Stream::unheard_ms).sum::<u64>();
        let dropped = self.streams.iter().map(|stream| stream.uplink.dropped_frames());
        report.agent_received_ms += self.left.unheard_ms + unheard_ms;
        report.agent_dropped_ms += self.left.unheard_ms + unheard_ms;
        report.uplink_dropped_frames += self.left.dropped_frames + dropped.sum::<u64>();
        report
    }

    /// How each leg goes just now.
    pub fn views(&self, now: Now) -> Vec<LegView> {
        self.legs.iter().map(|leg| leg.view(now.at)).collect()
    }

    /// Streams that ended make place; what they did is kept.
    fn forget_left(&mut self) {
        for stream in self.streams.iter().filter(|stream| stream.is_over()) {
            self.left.unheard_ms += stream.unheard_ms();
            self.left.dropped_frames += stream.uplink.dropped_frames();
        }
        self.streams.retain(|stream| !stream.is_over());
    }

    fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// As `route`; that a rate cannot be resampled was found out when its leg was made.
    fn follow_scene(&mut self, now: Now) {
        if self.route(now).is_err() {
            self.events.tell(MediaEvent::Broken("no way between two rates".to_owned()));
        }
    }

    /// Works out who hears whom by the scene, as far as legs and agents are there.
    fn route(&mut self, now: Now) -> Result<(), CodecFault> {
        self.route_relays(now);
        for index in 0..self.streams.len() {
            let hearing = self.hearing(&self.streams[index]);
            self.streams[index].set_hearing(hearing);
        }
        for index in 0..self.legs.len() {
            let agent = self.agent_of(self.legs[index].id);
            let leg = &mut self.legs[index];
            let mut tail = [0; FADE_SAMPLES_MAX];
            let count = leg.outbound.set_agent(agent, &mut tail);
            if let Some(bridge) = &mut self.bridge {
                bridge.add_rest(leg.id, &tail[..count]);
            }
        }
        self.route_bridge(now)?;
        for index in 0..self.legs.len() {
            let id = self.legs[index].id;
            let heard = self.is_heard(id) && !self.is_handed_on(id);
            let hears = self.hears_somebody(id);
            let bridge = self.bridge.as_ref();
            let leg = &mut self.legs[index];
            leg.set_heard(now.at, heard);
            leg.outbound.set_accompanied(bridge.is_some_and(|bridge| bridge.accompanies(id)));
            leg.set_opened(now.at, self.scene.opened() == Some(id));
            if hears {
                leg.go_live(now, &mut self.events);
            }
        }
        Ok(())
    }

    /// Two legs that hear each other and nobody else are given each other's packets, where they can be.
    fn route_relays(&mut self, now: Now) {
        let pair = self.pair();
        for index in 0..self.legs.len() {
            let id = self.legs[index].id;
            let wanted = pair.and_then(|[one, other]| match id {
                _ if id == one => Some(other),
                _ if id == other => Some(one),
                _ => None,
            });
            if self.legs[index].takes_from() == wanted {
                continue;
            }
            self.end_relay(now, index);
            if let Some(speaker) = wanted {
                self.legs[index].outbound.expect_relay(now.at, speaker);
            }
        }
    }

    /// The leg at this place is given no packets of another any more.
    fn end_relay(&mut self, now: Now, listener: usize) {
        let Some(speaker) = self.legs[listener].takes_from() else { return };
        let speaker = self.legs.iter().position(|leg| leg.id == speaker);
        match speaker.map(|speaker| self.legs.get_disjoint_mut([speaker, listener])) {
            Some(Ok([speaker, listener])) => {
                let bridge = self.bridge.as_deref_mut();
                speaker.take_back(now.at, listener.id, &mut listener.outbound, bridge);
            }
            Some(Err(_)) | None => drop(self.legs[listener].outbound.end_relay(now.at)),
        }
    }

    /// The legs that hear each other, and nobody else, and suit each other.
    fn pair(&self) -> Option<[LegId; 2]> {
        self.bridge.as_ref()?;
        let mut pairs = self.scene.pairs();
        let (Port::Leg(one), Port::Leg(other)) = pairs.find(|(listener, speaker)| {
            matches!((listener, speaker), (Port::Leg(_), Port::Leg(_)))
        })?
        else {
            return None;
        };
        let ours = |port| port == Port::Leg(one) || port == Port::Leg(other);
        let alone = self.scene.pairs().all(|(listener, speaker)| ours(listener) == ours(speaker));
        let both = self.scene.hears(Port::Leg(other), Port::Leg(one));
        let leg = |id| self.legs.iter().find(|leg| leg.id == id);
        let (first, second) = (leg(one)?, leg(other)?);
        let suit = first.suits(second) && second.suits(first);
        (alone && both && suit).then_some([one, other])
    }

    /// Whether packets of the leg go to another as they are.
    fn is_handed_on(&self, speaker: LegId) -> bool {
        let relays = self.legs.iter().filter_map(|leg| leg.outbound.relay());
        relays.filter(|relay| relay.speaker == speaker).any(|relay| relay.is_open())
    }

    fn route_bridge(&mut self, now: Now) -> Result<(), CodecFault> {
        let Some(bridge) = &mut self.bridge else { return Ok(()) };
        let legs: Vec<_> = self
            .legs
            .iter()
            .map(|leg| {
                let (from_hz, to_hz) = leg.rates_hz();
                (leg.id, from_hz, to_hz)
            })
            .collect();
        let rates = Rates { legs: &legs, agent_hz: self.agent.input_hz };
        let streams = &self.streams;
        bridge.arrange(now.at, &self.scene, rates, |port| {
            let mut known = streams.iter().filter(|stream| Port::Agent(stream.id) == port);
            known.any(|stream| stream.is_joined() && stream.hears_frames())
        })
    }

    /// One leg alone is heard packet by packet.
    fn hearing(&self, stream: &Stream) -> Hearing {
        let port = Port::Agent(stream.id);
        let hears = |leg: &&Leg| self.scene.hears(port, Port::Leg(leg.id));
        let mut legs = self.legs.iter().filter(hears);
        match (legs.next(), legs.next()) {
            (Some(leg), None) if !stream.is_over() => Hearing::Leg(leg.id),
            (Some(_) | None, _) => Hearing::Frames,
        }
    }

    /// The agent whose words a leg hears: of several the one that was arranged first.
    fn agent_of(&self, leg: LegId) -> Option<StreamId> {
        let heard = |(listener, speaker): (Port, Port)| match speaker {
            Port::Agent(id) if listener == Port::Leg(leg) => Some(id),
            Port::Agent(_) | Port::Leg(_) | Port::Sound => None,
        };
        let there =
            |id: &StreamId| self.streams.iter().any(|stream| stream.id == *id && !stream.is_over());
        self.scene.pairs().filter_map(heard).find(there)
    }

    fn is_heard(&self, leg: LegId) -> bool {
        let by_agent = |stream: &Stream| {
            let hears = self.scene.hears(Port::Agent(stream.id), Port::Leg(leg));
            hears && !matches!(stream.state, AgentState::Awaited | AgentState::Left)
        };
        let by_leg = |other: &Leg| self.scene.hears(Port::Leg(other.id), Port::Leg(leg));
        self.streams.iter().any(by_agent) || self.legs.iter().any(by_leg)
    }

    fn hears_somebody(&self, leg: LegId) -> bool {
        let port = Port::Leg(leg);
        let agent = |stream: &Stream| {
            let hears = self.scene.hears(port, Port::Agent(stream.id));
            hears && !matches!(stream.state, AgentState::Awaited | AgentState::Left)
        };
        let other = |other: &Leg| self.scene.hears(port, Port::Leg(other.id));
        let sound = self.scene.hears(port, Port::Sound);
        sound || self.streams.iter().any(agent) || self.legs.iter().any(other)
    }

    /// After an agent's end: its last word was heard, or its time is over.
    fn on_farewells(&mut self, now: Now) {
        for index in 0..self.streams.len() {
            let stream = &mut self.streams[index];
            let AgentState::Leaving { close, until, played } = &mut stream.state else { continue };
            let id = stream.id;
            let mut hearing = self.legs.iter().filter(|leg| leg.outbound.agent() == Some(id));
            if !*played && hearing.all(|leg| leg.outbound.is_drained()) {
                *played = true;
                *until = (*until).min(now.at + LAST_WORD);
            }
            if now.at < *until {
                continue;
            }
            let close = *close;
            stream.state = AgentState::Left;
            for leg in self.legs.iter_mut().filter(|leg| leg.outbound.agent() == Some(id)) {
                leg.outbound.clear();
            }
            self.follow_scene(now);
            self.events.tell(MediaEvent::AgentLeft { stream: id, close });
        }
    }
}
