//! One SIP leg's media: whose packets are the peer's, what is heard of it and what it hears, its
//! RTCP, its keys, its watchdog. It knows no agent and no other leg: what it says goes to whoever is
//! lent as its hearers, what it hears comes from its playout queue and the bridge.

mod relaying;

use super::bridge::Bridge;
use super::control::{Buffer, Control, Manner};
use super::early::EarlyEar;
use super::guard::Guard;
use super::inbound::{Content, Hearers, Inbound};
use super::key_ear::KeyEar;
use super::latch::SourceLatch;
use super::outbound::Outbound;
use super::plan::{
    AgentRates, DelayBounds, Direction, EarlyFigures, EarlyMedia, Key, LegPlan, LegView,
    MediaEvent, MediaReport, OneWay, RemoteMedia,
};
use super::quality::{self, Coding, Loss, Scale};
use super::session::{Channel, Events, Transmit};
use super::witness::Witness;
use crate::codec::{CodecFault, CodecKind, amr_wb};
use crate::ground::limits::PATH_CONFIRM;
use crate::ground::ports::OwnPorts;
use crate::ground::{Entropy, Instant, LegId, Now};
use crate::rtp::is_rtcp;
use crate::rtp::packet::{RtpHeader, RtpPacket};
use crate::rtp::telephone_event::{self, Digit};
use std::net::SocketAddr;
use std::time::Duration;

/// Digits that one packet can end.
const DIGITS_MAX: usize = 4;

/// What becomes of audio that comes before anybody is to hear the leg.
enum Early {
    /// An incoming call: the agent hears its caller's first words.
    ForAgent,
    /// An outgoing call: its own ear, from the first packet on.
    Diagnosed(Option<Box<EarlyEar>>),
    /// An outgoing call whose agent joined, or which is over.
    Over(Option<EarlyFigures>),
}

/// How long a leg may be silent before it is told: in a call, without RTP or without any sign of life,
/// and on hold; and how late its packets may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) rtp_timeout: Duration,
    pub(super) rtcp_only_max: Duration,
    pub(super) hold_max: Duration,
    /// How much later than others its packets may come.
    pub(super) jitter: DelayBounds,
}

/// The media of one leg.
pub(super) struct Leg {
    pub(super) id: LegId,
    plan: LegPlan,
    patience: Patience,
    /// Packets leave, and silence is watched: the leg has been given something to hear.
    live: bool,
    /// Silence leaves before that, to open the path.
    opened: bool,
    latch: SourceLatch,
    /// Ports of ours, whose packets are nobody's.
    own: OwnPorts,
    early: Early,
    inbound: Inbound,
    pub(super) outbound: Outbound,
    control: Control,
    /// Watches whether media flows both ways.
    witness: Witness,
    events_received: telephone_event::Receiver,
    digits: Vec<Digit>,
    /// Listens for keys in the audio; `None` where telephone-events were agreed.
    ear: Option<Box<KeyEar>>,
    /// Where the peer's RTCP came from, on its own port.
    control_source: Option<SocketAddr>,
    /// Stands before everything where SRTP is agreed.
    guard: Option<Box<Guard>>,
    /// Last sign of life of the leg's media, and last packet of it.
    last_heard: Instant,
    last_packet: Instant,
    /// The peer said by RTCP that it stops sending (BYE), and has not begun again.
    stopped: bool,
    silence_told: bool,
    heard: bool,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets_received: u64,
    packets_sent: u64,
    bytes_received: u64,
    bytes_sent: u64,
    refused: u64,
    /// Of guards that are gone.
    srtp_failures: u64,
    digits: u32,
}

/// What a leg is made of, beside its plan.
pub(super) struct Making<'a> {
    pub(super) id: LegId,
    pub(super) agent: AgentRates,
    pub(super) patience: Patience,
    /// What it hears before it is live is kept for diagnosis, and played to nobody.
    pub(super) diagnosed: bool,
    pub(super) cname: &'a str,
    pub(super) own: &'a OwnPorts,
}

impl Leg {
    /// A leg that is not live yet. Where its codec has another rate than the agents' streams, it is
    /// resampled.
    ///
    /// # Errors
    /// The agents' rates are none that we know.
    pub(super) fn new(
        now: Now,
        plan: &LegPlan,
        making: &Making<'_>,
        mut entropy: Entropy,
    ) -> Result<Leg, CodecFault> {
        let Making { id, agent, patience, diagnosed, cname, own } = *making;
        let mut outbound = Outbound::new(now.at, &plan.codec, agent.output_hz, &mut entropy)?;
        outbound.set_event(plan.telephone_event);
        outbound.set_pauses(plan.pauses);
        let clock_hz = plan.codec.kind.rtp_clock_hz();
        let mut control = Control::new(cname, outbound.ssrc(), clock_hz, entropy.fork_chance());
        control.change(now.at, plan.control);
        let noise = outbound.ssrc();
        let inbound = Inbound::new(plan, agent.input_hz, patience.jitter, noise)?;
        Ok(Leg {
            id,
            plan: plan.clone(),
            patience,
            live: false,
            opened: false,
            latch: SourceLatch::new(plan.remote.rtp, plan.signalling_source),
            own: own.clone(),
            early: if diagnosed { Early::Diagnosed(None) } else { Early::ForAgent },
            ear: key_ear(plan, inbound.rate_hz()),
            inbound,
            outbound,
            control,
            witness: Witness::default(),
            events_received: telephone_event::Receiver::new(event_clock_hz(plan)),
            digits: Vec::with_capacity(DIGITS_MAX),
            control_source: None,
            guard: plan.srtp.as_ref().map(|srtp| Box::new(Guard::new(srtp))),
            last_heard: now.at,
            last_packet: now.at,
            stopped: false,
            silence_told: false,
            heard: false,
            counters: Counters::default(),
        })
    }

    /// Rates of what is decoded of the leg, and of what is encoded for it.
    pub(super) fn rates_hz(&self) -> (u32, u32) {
        (self.inbound.rate_hz(), self.outbound.rate_hz())
    }

    /// A datagram came to the RTP port. Whatever is not the peer's is counted and dropped.
    pub(super) fn handle_rtp(
        &mut self,
        now: Now,
        source: SocketAddr,
        packet: &[u8],
        hearers: Hearers<'_>,
        events: &mut Events,
    ) {
        if self.is_control(now.at, packet) {
            return self.handle_rtcp(now, source, packet, events);
        }
        let Some(mut guard) = self.guard.take() else {
            return self.handle_plain_rtp(now, source, packet, hearers, events);
        };
        match guard.open_rtp(packet) {
            Some(packet) => self.handle_plain_rtp(now, source, packet, hearers, events),
            None => self.witness.on_unverified(),
        }
        self.guard = Some(guard);
    }

    fn handle_plain_rtp(
        &mut self,
        now: Now,
        source: SocketAddr,
        packet: &[u8],
        hearers: Hearers<'_>,
        events: &mut Events,
    ) {
        let Some((header, content, payload)) = self.admit(now.at, source, packet) else {
            self.counters.refused += 1;
            return;
        };
        self.counters.packets_received += 1;
        self.counters.bytes_received += packet.len() as u64;
        (self.last_packet, self.stopped) = (now.at, false);
        self.on_life(now.at);
        self.witness.on_heard();
        self.on_heard(now.at, source, events);
        self.control.handle_received(now.at, &header, content == Content::Audio);
        if !self.plan.direction.receives() {
            return;
        }
        if content == Content::Event {
            let (timestamp, marker) = (header.timestamp, header.marker);
            self.events_received.receive(now.at, timestamp, marker, payload, &mut self.digits);
            self.tell_digits(events);
        }
        if let Early::Diagnosed(ear) = &mut self.early {
            return hear_early(ear, self.plan.codec.kind, content, payload);
        }
        let mut hearers = hearers;
        if self.hand_on(now.at, header, content, payload, &mut hearers) {
            return;
        }
        let hearers = &mut Hearers { ear: self.ear.as_deref_mut(), ..hearers };
        let late = self.inbound.counters().late;
        self.inbound.receive(now.at, header, payload, hearers);
        if self.inbound.counters().late != late {
            self.control.handle_discarded();
        }
        if let Some(mode) = self.inbound.requested_mode() {
            self.outbound.request_mode(mode);
        }
        self.tell_tones(events);
    }

    /// A datagram came to the RTCP port. It counts as life; a BYE does not end the call.
    pub(super) fn handle_rtcp(
        &mut self,
        now: Now,
        source: SocketAddr,
        packet: &[u8],
        events: &mut Events,
    ) {
        let Some(mut guard) = self.guard.take() else {
            return self.handle_plain_rtcp(now, source, packet, events);
        };
        if let Some(packet) = guard.open_rtcp(packet) {
            self.handle_plain_rtcp(now, source, packet, events);
        }
        self.guard = Some(guard);
    }

    fn handle_plain_rtcp(
        &mut self,
        now: Now,
        source: SocketAddr,
        packet: &[u8],
        events: &mut Events,
    ) {
        let anchor = self.latch.latched().or(self.plan.remote.rtp);
        let known = anchor.map_or(self.plan.signalling_source, |address| address.ip());
        if source.ip().to_canonical() != known.to_canonical() || self.own.has(source) {
            self.counters.refused += 1;
            return;
        }
        let Some(told) = self.control.handle_packet(now, packet) else {
            self.counters.refused += 1;
            return;
        };
        self.stopped |= told.bye;
        self.control_source = Some(source);
        self.witness.on_control();
        if told.report {
            let knows_us = self.control.peer_lost().is_some();
            let verdict = self.witness.weigh_report(now.at, knows_us, self.counters.packets_sent);
            self.tell_one_way(verdict, events);
        }
        self.latch.note_control();
        self.outbound.set_expected_loss(self.control.peer_loss_percent());
        self.on_life(now.at);
        self.update_flow(now.at);
    }

    /// The leg has something to hear from now on: packets leave, and its silence is watched.
    pub(super) fn go_live(&mut self, now: Now, events: &mut Events) {
        if std::mem::replace(&mut self.live, true) {
            return;
        }
        if let Some(early) = self.take_early_media() {
            events.tell(MediaEvent::EarlyMedia(early));
        }
        (self.last_heard, self.last_packet) = (now.at, now.at);
        self.latch.open(now.at);
        self.control.start(now.at);
        self.watch(now.at);
        if !self.heard && self.plan.direction.receives() {
            self.outbound.hold_speech(now.at + PATH_CONFIRM);
        }
        self.update_flow(now.at);
    }

    /// Silence leaves for a leg that hears nobody, so that its peer knows where to send; or no more.
    pub(super) fn set_opened(&mut self, now: Instant, opened: bool) {
        if self.opened != opened {
            self.opened = opened;
            self.update_flow(now);
        }
    }

    /// Somebody hears the leg, or nobody any more.
    pub(super) fn set_heard(&mut self, now: Instant, heard: bool) {
        self.inbound.set_heard(now, heard);
    }

    /// Follows a new offer/answer. Sequence, timestamps and SSRC go on.
    ///
    /// # Errors
    /// The codec cannot be made; nothing changed.
    pub(super) fn change(
        &mut self,
        now: Now,
        plan: &LegPlan,
        events: &mut Events,
    ) -> Result<(), CodecFault> {
        let prepared = self.outbound.prepare(&plan.codec)?;
        self.inbound.change(now.at, plan)?;
        self.outbound.change(&plan.codec, prepared);
        self.outbound.set_event(plan.telephone_event);
        self.outbound.set_pauses(plan.pauses);
        let hz = self.inbound.rate_hz();
        let serves = |ear: &KeyEar| ear.rate_hz() == hz;
        if plan.telephone_event.is_some() || !self.ear.as_deref().is_some_and(serves) {
            self.ear = key_ear(plan, hz);
        }
        if !plan.direction.receives() {
            self.inbound.hold();
        }
        if plan.codec.kind.rtp_clock_hz() != self.plan.codec.kind.rtp_clock_hz() {
            self.control.change_clock(plan.codec.kind.rtp_clock_hz());
        }
        self.control.change(now.at, plan.control);
        if event_clock_hz(plan) != event_clock_hz(&self.plan) {
            self.events_received.restart(&mut self.digits);
            self.tell_digits(events);
            self.events_received = telephone_event::Receiver::new(event_clock_hz(plan));
        }
        self.latch.reoffer(now.at, plan.remote.rtp, plan.signalling_source);
        (self.last_packet, self.stopped) = (now.at, false);
        self.on_life(now.at);
        self.change_guard(plan);
        let same = *plan == self.plan;
        self.plan = plan.clone();
        if !same {
            self.witness.rest();
            self.watch(now.at);
        }
        self.update_flow(now.at);
        Ok(())
    }

    fn change_guard(&mut self, plan: &LegPlan) {
        match (&plan.srtp, &mut self.guard) {
            (Some(srtp), Some(guard)) => guard.change(srtp),
            (Some(srtp), None) => self.guard = Some(Box::new(Guard::new(srtp))),
            (None, guard) => {
                self.counters.srtp_failures += guard.take().map_or(0, |guard| guard.failures());
            }
        }
    }

    /// Deadlines: gaps, missing samples, keys whose end was lost, the peer's silence.
    pub(super) fn handle_timeout(&mut self, now: Now, hearers: Hearers<'_>, events: &mut Events) {
        let hearers = &mut Hearers { ear: self.ear.as_deref_mut(), ..hearers };
        self.inbound.handle_timeout(now.at, hearers);
        self.tell_tones(events);
        self.events_received.handle_timeout(now.at, &mut self.digits);
        self.tell_digits(events);
        let verdict = self.witness.judge(now.at);
        self.tell_one_way(verdict, events);
        if self.silence_deadline().is_some_and(|deadline| deadline <= now.at) {
            self.silence_told = true;
            let leg = self.id;
            events.tell(match self.plan.direction {
                Direction::SendRecv => MediaEvent::LegSilent { leg },
                Direction::SendOnly | Direction::RecvOnly | Direction::Inactive => {
                    MediaEvent::HeldTooLong { leg }
                }
            });
        }
    }

    /// The next packet to send, written into `buffer`, and whether it carries the agent's audio.
    pub(super) fn poll_transmit(
        &mut self,
        now: Now,
        buffer: &mut [u8; 1500],
        bridge: Option<&mut Bridge>,
        events: &mut Events,
    ) -> Option<(Transmit, bool)> {
        if let Some(report) = self.poll_report(now, buffer) {
            return Some((report, false));
        }
        self.update_flow(now.at);
        let more = bridge.map(|bridge| (bridge, self.id));
        let sent = self.outbound.poll_transmit(now.at, buffer, more);
        for _ in 0..self.outbound.take_keys_done() {
            events.tell(MediaEvent::KeysSent { leg: self.id });
        }
        let (len, spoken) = sent?;
        let to = self.latch.destination()?;
        let len = match &mut self.guard {
            Some(guard) => guard.close_rtp(buffer, len)?,
            None => len,
        };
        self.latch.count_sent();
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += len as u64;
        Some((Transmit { leg: self.id, len, to, channel: Channel::Rtp }, spoken))
    }

    /// When `handle_timeout` and `poll_transmit` are to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.outbound.deadline(),
            self.inbound.poll_timeout(),
            self.control.deadline(),
            self.events_received.poll_timeout(),
            self.silence_deadline(),
            self.witness.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What an outgoing call heard before it went live; once.
    pub(super) fn take_early_media(&mut self) -> Option<Box<EarlyMedia>> {
        let Early::Diagnosed(ear) = &mut self.early else { return None };
        let early = ear.take().map(|ear| Box::new(ear.finish()));
        self.early = Early::Over(early.as_ref().map(|early| early.figures));
        early
    }

    /// What the leg did so far.
    pub(super) fn report(&self) -> MediaReport {
        let (inbound, outbound) = (self.inbound.counters(), self.outbound.counters());
        let account = self.control.account();
        let bursts = account.tally().bursts;
        let burst_ms = bursts.mean_packets() * u64::from(self.plan.codec.ptime_ms);
        let (target, target_max) = self.inbound.targets().unwrap_or_default();
        MediaReport {
            packets_received: self.counters.packets_received,
            packets_sent: self.counters.packets_sent,
            bytes_received: self.counters.bytes_received,
            bytes_sent: self.counters.bytes_sent,
            packets_lost: account.lost(),
            packets_late: inbound.late,
            packets_duplicate: inbound.duplicate,
            packets_refused: self.counters.refused + inbound.refused,
            srtp_failures: self.counters.srtp_failures
                + self.guard.as_ref().map_or(0, |guard| guard.failures()),
            concealed_ms: inbound.concealed.milliseconds(),
            silence_ms: inbound.silent.milliseconds(),
            jitter_us: micros(account.jitter()),
            jitter_max_us: micros(account.jitter_max()),
            jitter_wait_us: micros(inbound.mean_wait()),
            jitter_wait_max_us: micros(inbound.waited_max),
            jitter_target_us: micros(target),
            jitter_target_max_us: micros(target_max),
            shortened_ms: inbound.shortened.milliseconds(),
            lengthened_ms: inbound.lengthened.milliseconds(),
            round_trip_us: micros(self.control.round_trip()),
            mos_scale: Scale::of(self.plan.codec.kind),
            mos_received: self.mos_received(),
            mos_sent: self.mos_sent(),
            burst_density: bursts.density(),
            burst_ms: u32::try_from(burst_ms).unwrap_or(u32::MAX),
            bursts: u32::try_from(bursts.count).unwrap_or(u32::MAX),
            far_end: self.control.far_end(),
            agent_received_ms: outbound.received.milliseconds(),
            agent_played_ms: outbound.played.milliseconds(),
            agent_cleared_ms: outbound.cleared.milliseconds(),
            agent_dropped_ms: outbound.dropped.milliseconds(),
            agent_held_ms: outbound.held.as_millis() as u64,
            agent_queue_ms: self.outbound.waiting().milliseconds() as u32,
            agent_queue_mean_ms: outbound.waits.depth_mean_ms(),
            agent_queue_max_ms: outbound.waits.depth_max_ms(),
            agent_wait_median_ms: outbound.waits.median_ms(),
            agent_wait_max_ms: outbound.waits.longest_ms(),
            agent_underruns: outbound.underruns,
            agent_shortened_ms: outbound.shortened.milliseconds(),
            agent_lengthened_ms: outbound.lengthened.milliseconds(),
            uplink_dropped_frames: 0,
            frames_late: outbound.frames_late,
            digits: self.counters.digits,
            early: match &self.early {
                Early::ForAgent => None,
                Early::Diagnosed(ear) => ear.as_ref().map(|ear| ear.figures()),
                Early::Over(figures) => *figures,
            },
        }
    }

    /// How the leg goes just now.
    pub(super) fn view(&self, now: Instant) -> LegView {
        let account = self.control.account();
        let lately = account.loss_lately(now);
        let sent_lately = self.control.peer_loss_lately();
        LegView {
            leg: self.id,
            kind: self.plan.codec.kind,
            direction: self.plan.direction,
            encrypted: self.guard.is_some(),
            missed_percent: account.loss().map(|loss| loss.percent),
            missed_percent_now: lately.map(|loss| loss.percent),
            mos_received_now: lately.map(|loss| self.score(self.heard_lately(), loss)),
            mos_sent_now: sent_lately.map(|loss| self.score(self.sent(), loss)),
            report: self.report(),
        }
    }

    /// Packets that came too late are lost to whoever listens.
    fn mos_received(&self) -> Option<f32> {
        Some(self.score(self.heard(), self.control.account().loss()?))
    }

    fn mos_sent(&self) -> Option<f32> {
        let share = quality::percent(self.control.peer_lost()?, self.counters.packets_sent)?;
        Some(self.score(self.sent(), Loss::random(share)))
    }

    fn score(&self, coding: Coding, loss: Loss) -> f32 {
        quality::mos(coding, loss, self.delay())
    }

    /// What came so far. Opus counts as redundant where at least half of the lost packets came again.
    fn heard(&self) -> Coding {
        let mode = self.inbound.received_modes().and_then(|modes| modes.usual());
        let recovered = self.inbound.counters().recovered;
        let redundant = recovered > 0 && 2 * recovered >= self.control.account().lost();
        self.coding(mode, redundant)
    }

    fn heard_lately(&self) -> Coding {
        match self.inbound.received_modes().and_then(|modes| modes.last()) {
            mode @ Some(_) => self.coding(mode, false),
            None => self.heard(),
        }
    }

    /// What goes. To a peer that asks for redundancy it is added as soon as packets are lost.
    fn sent(&self) -> Coding {
        self.coding(self.outbound.mode(), self.plan.codec.fec)
    }

    fn coding(&self, mode: Option<amr_wb::Mode>, redundant: bool) -> Coding {
        Coding::of(self.plan.codec.kind, self.plan.codec.format, mode, redundant)
    }

    /// From mouth to ear one way: packet, codec, half the round trip and the jitter buffer. The
    /// peer's buffer, of which nobody tells, is taken for as long as ours.
    fn delay(&self) -> Duration {
        self.own_delay() + self.control.round_trip() / 2
    }

    /// What of it this end takes: coding the way out, the jitter buffer the way in.
    fn own_delay(&self) -> Duration {
        let codec = &self.plan.codec;
        let packet = Duration::from_millis(codec.ptime_ms.into());
        packet + quality::lookahead(codec.kind) + self.inbound.target()
    }

    fn manner(&self) -> Manner {
        let nominal = self.inbound.target();
        let maximum = self.inbound.targets().map_or(nominal, |(_, most)| most);
        let absolute = self.patience.jitter.max;
        Manner {
            coding: self.heard(),
            packet: Duration::from_millis(self.plan.codec.ptime_ms.into()),
            delay: self.delay(),
            own_delay: self.own_delay(),
            buffer: Buffer { nominal, maximum, absolute, adaptive: true },
        }
    }

    /// The leg is about to be closed: the next packet says so to the peer, if reports have begun.
    pub(super) fn leave(&mut self, now: Instant) {
        self.control.leave(now);
    }

    fn poll_report(&mut self, now: Now, buffer: &mut [u8]) -> Option<Transmit> {
        if !self.control.is_due(now.at) {
            return None;
        }
        let manner = self.manner();
        let len = self.control.poll_report(now, &self.outbound, &manner, buffer)?;
        let rtp = self.latch.destination()?;
        let (to, channel) = match self.plan.remote {
            RemoteMedia { rtcp_mux: true, .. } => (rtp, Channel::Rtp),
            RemoteMedia { rtcp, .. } => {
                let near = |address: &SocketAddr| address.ip().to_canonical() == rtp.ip();
                let known = self.control_source.filter(near).or(rtcp.filter(near));
                let beside = SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?);
                (known.unwrap_or(beside), Channel::Rtcp)
            }
        };
        let len = match &mut self.guard {
            Some(guard) => guard.close_rtcp(buffer, len)?,
            None => len,
        };
        Some(Transmit { leg: self.id, len, to, channel })
    }

    /// RTCP on the RTP port. Where RTCP has a port of its own, a peer may give audio a payload number
    /// that looks like it with the marker (RFC 5761 §4 binds multiplexed ports only).
    fn is_control(&self, now: Instant, packet: &[u8]) -> bool {
        let agreed = packet.get(1).and_then(|byte| self.inbound.content(now, byte & 0x7f));
        is_rtcp(packet) && (self.plan.remote.rtcp_mux || agreed.is_none())
    }

    /// The header, meaning and payload of a packet that is the peer's.
    fn admit<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        packet: &'a [u8],
    ) -> Option<(RtpHeader, Content, &'a [u8])> {
        let view = RtpPacket::parse(packet).ok()?;
        let header = view.header;
        let Some(content) = self.inbound.content(now, header.payload_type) else {
            let known =
                [self.plan.remote.rtp.map(|named| named.ip()), Some(self.plan.signalling_source)];
            if known.contains(&Some(source.ip().to_canonical())) {
                self.witness.on_payload(header.payload_type);
            } else {
                self.witness.on_elsewhere(source);
            }
            return None;
        };
        let own = header.ssrc == self.outbound.ssrc();
        // Two ports of ours would send each other what comes in, without end.
        if own
            || self.own.has(source)
            || !self.latch.accepts(now, source, header.ssrc, header.sequence)
        {
            self.witness.on_elsewhere(source);
            return None;
        }
        Some((header, content, view.payload))
    }

    /// Both ways are to be open from now on, if the descriptions say so and the leg is live.
    fn watch(&mut self, now: Instant) {
        let named = self.plan.remote.rtp.is_some();
        if self.live && named && self.plan.direction == Direction::SendRecv {
            self.witness.watch(now);
        }
    }

    fn tell_one_way(&self, verdict: Option<OneWay>, events: &mut Events) {
        if let Some(verdict) = verdict {
            events.tell(MediaEvent::OneWay { leg: self.id, verdict });
        }
    }

    fn on_life(&mut self, now: Instant) {
        self.last_heard = now;
        self.silence_told &= self.silence_bound().is_some_and(|deadline| deadline <= now);
    }

    fn on_heard(&mut self, now: Instant, source: SocketAddr, events: &mut Events) {
        if !self.heard {
            self.heard = true;
            events.tell(MediaEvent::LegHeard { leg: self.id, source });
            self.outbound.release_speech(now);
            self.update_flow(now);
        }
    }

    /// Keys that were heard in the audio.
    fn tell_tones(&mut self, events: &mut Events) {
        let Some(ear) = &mut self.ear else { return };
        while let Some(Digit { digit, duration_ms }) = ear.take() {
            self.counters.digits += 1;
            events.tell(MediaEvent::Digit { leg: self.id, digit: Key(digit), duration_ms });
        }
    }

    fn tell_digits(&mut self, events: &mut Events) {
        while !self.digits.is_empty() {
            let Digit { digit, duration_ms } = self.digits.remove(0);
            self.counters.digits += 1;
            events.tell(MediaEvent::Digit { leg: self.id, digit: Key(digit), duration_ms });
        }
    }

    /// Packets leave once the leg is live, or its path is opened, and an address is known that hears
    /// them; until then words are kept. Words wait for the peer's first packet as well, since before it
    /// nobody knows whether the path is open; silence goes ahead and opens it. On hold words are played
    /// to nobody.
    fn update_flow(&mut self, now: Instant) {
        let muted = !self.plan.direction.sends();
        let open = (self.live || self.opened) && (muted || self.latch.destination().is_some());
        self.outbound.set_open(now, open, muted);
    }

    fn silence_deadline(&self) -> Option<Instant> {
        self.silence_bound().filter(|_| !self.silence_told)
    }

    /// When the leg has been silent for too long, told or not.
    fn silence_bound(&self) -> Option<Instant> {
        let without_rtp = self.last_packet + self.patience.rtcp_only_max;
        let deadline = match self.plan.direction {
            Direction::SendRecv if self.stopped => without_rtp,
            Direction::SendRecv => (self.last_heard + self.patience.rtp_timeout).min(without_rtp),
            // A peer that only sends has us on hold (RFC 3264 §8.4), with music or without.
            Direction::SendOnly | Direction::RecvOnly | Direction::Inactive => {
                self.last_heard + self.patience.hold_max
            }
        };
        self.live.then_some(deadline)
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

/// On only where the peer offers no telephone-events: else each key would come twice.
fn key_ear(plan: &LegPlan, hz: u32) -> Option<Box<KeyEar>> {
    plan.telephone_event.is_none().then(|| Box::new(KeyEar::new(hz)))
}

fn event_clock_hz(leg: &LegPlan) -> u32 {
    leg.telephone_event.map_or(8_000, |event| event.clock_hz)
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
