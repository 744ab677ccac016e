//! One call in its shard: its legs' UDP sockets, the `MediaSession`, and the agents' streams. It carries
//! bytes between them and decides nothing about audio. When its media is closed, the agents'
//! connections may outlive it for a moment, so that the close frames arrive.

use super::CallView;
use super::agent_stream::{AgentStream, FromAgent};
use super::load::Relief;
use super::shard::{Outlet, Shared, TokenKind};
use super::sockets::bind_media;
use crate::ground::limits::{AGENT_FRAME_BYTES_MAX, LEGS_MAX, STREAMS_MAX};
use crate::ground::{CallKey, Instant, LegId, Now, StreamId};
use crate::media::plan::{
    AgentStreamFault, LegPlan, MediaCommand, MediaEvent, MediaPlan, MediaReport,
};
use crate::media::{Channel, MediaSession};
use crate::ultravox::stream::DataMessageKind;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Packets that a session may send at once; it has one to three for each leg.
const TRANSMITS_MAX: usize = 64;
/// Events that a session may have at once.
const EVENTS_MAX: usize = 256;

/// Which sockets may have something to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    rtp: [bool; LEGS_MAX],
    rtcp: [bool; LEGS_MAX],
    agent: [bool; STREAMS_MAX],
    /// The end of the agent's stream was reported.
    agent_ended: [bool; STREAMS_MAX],
}

impl Ready {
    /// Anything at all.
    pub fn is_any(&self) -> bool {
        let mut all = self.rtp.iter().chain(&self.rtcp).chain(&self.agent);
        all.any(|ready| *ready)
    }

    /// A socket was reported; `ended`: the end of its stream too.
    pub fn note(&mut self, kind: TokenKind, ended: bool) {
        match kind {
            TokenKind::Rtp(leg) => self.rtp[leg] = true,
            TokenKind::Rtcp(leg) => self.rtcp[leg] = true,
            TokenKind::Agent(stream) => {
                self.agent[stream] = true;
                self.agent_ended[stream] |= ended;
            }
        }
    }
}

/// A call's slot in the shard.
pub struct Call {
    key: CallKey,
    index: usize,
    media: Option<Media>,
    streams: [Option<Box<Line>>; STREAMS_MAX],
    pub ready: Ready,
    /// The call stands in the shard's queue of those with something to read.
    pub queued: bool,
}

/// The connection of one agent stream.
struct Line {
    stream: AgentStream,
    /// The stream is in the count of open ones.
    counted_open: bool,
}

struct Media {
    session: MediaSession,
    legs: [Option<Box<Sockets>>; LEGS_MAX],
}

/// The sockets of one leg.
struct Sockets {
    leg: LegId,
    address: IpAddr,
    port: u16,
    rtp: UdpSocket,
    /// Own socket of RTCP; `None` while it shares the RTP port.
    rtcp: Option<UdpSocket>,
}

/// Why a call's media did not open.
pub enum OpenFault {
    Bind(io::Error),
    /// The codec could not be made: what was agreed cannot be done, so it is our bug.
    Session(String),
}

impl Call {
    /// Binds the ports and makes the session.
    ///
    /// # Errors
    /// [`OpenFault`].
    pub fn open(
        now: Now,
        key: CallKey,
        index: usize,
        plan: &MediaPlan,
        at: (IpAddr, u16),
        shared: &mut Shared,
    ) -> Result<Call, OpenFault> {
        let first = Sockets::bind(LegId::CALLER, at, plan.leg.remote.rtcp_mux, (index, 0), shared);
        let first = first.map_err(OpenFault::Bind)?;
        let mut session = MediaSession::new(now, plan, shared.entropy.fork())
            .map_err(|fault| OpenFault::Session(format!("{fault:?}")))?;
        session.set_opus_complexity(shared.relief.step().opus_complexity());
        shared.statistics.sessions.add(1);
        Ok(Call {
            key,
            index,
            media: Some(Media { session, legs: [Some(Box::new(first)), None, None] }),
            streams: [None, None],
            ready: Ready::default(),
            queued: false,
        })
    }

    pub fn key(&self) -> CallKey {
        self.key
    }

    /// The media is closed and the agents' connections are gone: the slot can go.
    pub fn is_over(&self) -> bool {
        self.media.is_none() && self.streams.iter().flatten().all(|line| line.stream.is_idle())
    }

    /// The session's next deadline, for the measure of lateness.
    pub fn media_due(&self) -> Option<Instant> {
        self.media.as_ref().and_then(|media| media.session.poll_timeout())
    }

    pub fn handle_command(
        &mut self,
        now: Now,
        command: MediaCommand,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        let key = self.key;
        let Some(media) = &mut self.media else { return };
        match command {
            MediaCommand::Open { .. } => {
                tracing::error!(call = %key, "media was opened twice");
            }
            MediaCommand::OpenLeg { leg, plan, address, port } => {
                let opened = media.open_leg(now, leg, &plan, (address, port), self.index, shared);
                outlet.tell(
                    key,
                    match opened {
                        Ok(()) => MediaEvent::LegOpened { leg },
                        Err(words) => {
                            tracing::debug!(call = %key, ?leg, words, "a leg does not open");
                            MediaEvent::LegBindFailed { leg }
                        }
                    },
                );
            }
            MediaCommand::CloseLeg { leg } => {
                let report = media.close_leg(now, leg, shared);
                outlet.tell(key, MediaEvent::LegClosed { leg, report: Box::new(report) });
            }
            MediaCommand::Change { leg, revision, plan } => {
                media.change(now, key, leg, revision, &plan, self.index, shared, outlet);
            }
            MediaCommand::Arrange { scene } => media.session.arrange(now, scene),
            MediaCommand::Play { sound } => media.session.play(now, sound),
            MediaCommand::SendKeys { leg, keys, tone, gap } => {
                let keys: Vec<char> = keys.into_iter().map(|key| key.0).collect();
                media.session.send_keys(leg, &keys, tone, gap);
            }
            MediaCommand::Prepare { .. }
            | MediaCommand::Join { .. }
            | MediaCommand::LeaveStream { .. }
            | MediaCommand::SendText { .. } => {
                self.handle_stream_command(now, command, shared, outlet);
            }
            MediaCommand::Close => self.close(now, shared, outlet),
        }
    }

    /// A command for one of the agents' streams.
    fn handle_stream_command(
        &mut self,
        now: Now,
        command: MediaCommand,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        match command {
            MediaCommand::Prepare { stream, join_url } => {
                let Some((line, mut tell)) = self.begin_line(now, stream, outlet) else {
                    let fault = too_many_streams();
                    return outlet.tell(self.key, MediaEvent::PrepareFailed { stream, fault });
                };
                line.stream.prepare(now.at, &join_url, shared, &mut tell);
            }
            MediaCommand::Join { stream } => {
                let Some((line, mut tell)) = self.begin_line(now, stream, outlet) else {
                    let fault = too_many_streams();
                    return outlet.tell(self.key, MediaEvent::JoinFailed { stream, fault });
                };
                line.stream.join(now.at, shared, &mut tell);
            }
            MediaCommand::LeaveStream { stream } => {
                if let Some(media) = &mut self.media {
                    media.session.leave_agent(now, stream);
                }
                for line in self.streams.iter_mut().flatten() {
                    if line.stream.id() == stream {
                        line.stream.close(now.at, shared);
                    }
                }
            }
            MediaCommand::SendText { stream, text } => {
                let mut lines = self.streams.iter_mut().flatten();
                let line = lines.find(|line| line.stream.id() == stream);
                if !line.is_some_and(|line| line.stream.send_text(text)) {
                    outlet.statistics.texts_dropped.add(1);
                }
            }
            MediaCommand::Open { .. }
            | MediaCommand::OpenLeg { .. }
            | MediaCommand::CloseLeg { .. }
            | MediaCommand::Change { .. }
            | MediaCommand::Arrange { .. }
            | MediaCommand::Play { .. }
            | MediaCommand::SendKeys { .. }
            | MediaCommand::Close => {}
        }
    }

    /// The line of a stream and where its tellings go; it is made when the call has room for it.
    fn begin_line<'a>(
        &'a mut self,
        now: Now,
        id: StreamId,
        outlet: &'a Outlet,
    ) -> Option<(&'a mut Line, impl FnMut(FromAgent<'_>) + 'a)> {
        let Call { key, index, media, streams, .. } = self;
        let media = media.as_mut()?;
        let is = |line: &Option<Box<Line>>| line.as_ref().is_some_and(|l| l.stream.id() == id);
        let place = match streams.iter().position(is) {
            Some(place) => place,
            None => {
                let over = |line: &Option<Box<Line>>| match line {
                    Some(line) => !line.counted_open && !media.session.has_agent(line.stream.id()),
                    None => true,
                };
                let place = streams.iter().position(over)?;
                let token = TokenKind::Agent(place).token(*index);
                let stream = AgentStream::new(*key, id, token);
                streams[place] = Some(Box::new(Line { stream, counted_open: false }));
                place
            }
        };
        if !media.session.await_agent(now, id) {
            return None;
        }
        let line = streams[place].as_deref_mut()?;
        let key = *key;
        Some((line, move |told: FromAgent<'_>| media.on_agent(now, key, id, told, outlet)))
    }

    /// The resolver's answer to question number `attempt` of a stream.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        (stream, attempt): (StreamId, u32),
        addresses: Result<Vec<SocketAddr>, String>,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        let Some(media) = &mut self.media else { return };
        let mut lines = self.streams.iter_mut().flatten();
        let Some(line) = lines.find(|line| line.stream.id() == stream) else { return };
        let mut tell = |told: FromAgent<'_>| media.on_agent(now, self.key, stream, told, outlet);
        line.stream.handle_resolved(now.at, attempt, addresses, shared, &mut tell);
    }

    pub fn handle_timeout(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) {
        if let Some(media) = &mut self.media {
            media.session.handle_timeout(now);
        }
        for line in self.streams.iter_mut().flatten() {
            if line.stream.poll_timeout().is_none_or(|at| at > now.at) {
                continue;
            }
            let id = line.stream.id();
            match &mut self.media {
                Some(media) => {
                    let mut tell =
                        |told: FromAgent<'_>| media.on_agent(now, self.key, id, told, outlet);
                    line.stream.handle_timeout(now.at, shared, &mut tell);
                }
                None => line.stream.handle_timeout(now.at, shared, &mut |_| {}),
            }
        }
    }

    /// Reads a bounded amount from the sockets that are ready: one datagram of each, since they are
    /// reported again while they hold more, and some records of each agent. `ready` keeps what is
    /// left over. The agents come first: the legs' packets make us write to them, which a hang-up may
    /// forbid.
    pub fn receive(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) {
        let ready = std::mem::take(&mut self.ready);
        for place in 0..STREAMS_MAX {
            if ready.agent[place] {
                self.receive_agent(now, place, ready.agent_ended[place], shared, outlet);
            }
        }
        for place in 0..LEGS_MAX {
            if ready.rtp[place] {
                self.receive_rtp(now, place, shared);
            }
        }
        for place in 0..LEGS_MAX {
            if ready.rtcp[place]
                && let Some(media) = &mut self.media
            {
                media.receive_rtcp(now, place, shared);
            }
        }
    }

    /// Does what the last inputs made due: audio to the agents, packets to the legs, events to
    /// signalling. Returns the next deadline.
    pub fn settle(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) -> Option<Instant> {
        self.forward(shared);
        for (line, ready) in self.streams.iter_mut().zip(&mut self.ready.agent) {
            *ready |= line.as_mut().is_some_and(|line| line.stream.take_unread());
        }
        if let Some(media) = &mut self.media {
            media.transmit(now, shared);
            for _ in 0..EVENTS_MAX {
                let Some(event) = media.session.poll_event() else { break };
                outlet.tell(self.key, event);
            }
        }
        self.count_streams(shared);
        let streams = self.streams.iter().flatten().filter_map(|line| line.stream.poll_timeout());
        self.media_due().into_iter().chain(streams).min()
    }

    /// How its legs go just now; `None` when its media is closed.
    pub fn view(&self, now: Now) -> Option<CallView> {
        let media = self.media.as_ref()?;
        Some(CallView { call: self.key, legs: media.session.views(now) })
    }

    /// The shard relieves itself more or less than before.
    pub fn follow(&mut self, relief: Relief) {
        if let Some(media) = &mut self.media {
            media.session.set_opus_complexity(relief.opus_complexity());
        }
    }

    /// Ends the media and reports it; the agents' connections get a moment to close.
    pub fn close(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) {
        for line in self.streams.iter_mut().flatten() {
            line.stream.close(now.at, shared);
        }
        // Before the report, so that whoever reads it finds the counts as they are then.
        self.count_streams(shared);
        if let Some(mut media) = self.media.take() {
            for leg in media.legs.iter().flatten().map(|sockets| sockets.leg) {
                media.session.say_goodbye(now, leg);
            }
            media.transmit(now, shared);
            if let Some(early) = media.session.take_early_media() {
                outlet.tell(self.key, MediaEvent::EarlyMedia(early));
            }
            let report = media.session.report();
            shared.statistics.sessions.subtract(1);
            shared.statistics.uplink_dropped_frames.add(report.uplink_dropped_frames);
            outlet.tell(self.key, MediaEvent::Closed(Box::new(report)));
        }
    }

    /// Ends the call after a panic in it: nothing of the session is asked but its counters, and not
    /// even those when that panics again.
    pub fn bury(mut self, shared: &mut Shared, outlet: &Outlet) {
        let Some(media) = self.media.take() else { return };
        let report =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| media.session.report()));
        shared.statistics.sessions.subtract(1);
        let open = self.streams.iter().flatten().filter(|line| line.counted_open).count();
        shared.statistics.agent_streams.subtract(open as u64);
        outlet.tell(self.key, MediaEvent::Broken("the media session panicked".to_owned()));
        let report: MediaReport = report.unwrap_or_default();
        outlet.tell(self.key, MediaEvent::Closed(Box::new(report)));
    }

    fn count_streams(&mut self, shared: &mut Shared) {
        for line in self.streams.iter_mut().flatten() {
            if line.stream.is_open() != line.counted_open {
                line.counted_open = !line.counted_open;
                match line.counted_open {
                    true => shared.statistics.agent_streams.add(1),
                    false => shared.statistics.agent_streams.subtract(1),
                }
            }
        }
    }

    /// Empties the uplinks into the agents' sockets as far as those take it. Returns the frames.
    fn forward(&mut self, shared: &mut Shared) -> u64 {
        let Some(media) = &mut self.media else { return 0 };
        let mut frames = 0;
        for line in self.streams.iter_mut().flatten() {
            if let Some(uplink) = media.session.uplink(line.stream.id()) {
                frames += line.stream.flush(uplink, shared);
            }
        }
        shared.statistics.uplink_frames.add(frames);
        frames
    }

    fn receive_agent(
        &mut self,
        now: Now,
        place: usize,
        ended: bool,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        let Some(line) = &mut self.streams[place] else { return };
        let id = line.stream.id();
        self.ready.agent[place] = match &mut self.media {
            Some(media) => {
                let mut tell =
                    |told: FromAgent<'_>| media.on_agent(now, self.key, id, told, outlet);
                line.stream.handle_ready(now.at, ended, shared, &mut tell)
            }
            None => line.stream.handle_ready(now.at, ended, shared, &mut |_| {}),
        };
    }

    fn receive_rtp(&mut self, now: Now, place: usize, shared: &mut Shared) {
        let Some(media) = &mut self.media else { return };
        let Some(sockets) = &media.legs[place] else { return };
        // Else an ICMP error of an earlier packet, or it was not for us: the next one may arrive.
        let Ok((length, source)) = sockets.rtp.recv_from(&mut shared.packet[..]) else { return };
        shared.statistics.packets_received.add(1);
        let packet = &shared.packet[..length.min(shared.packet.len())];
        media.session.handle_rtp(now, sockets.leg, canonical(source), packet);
        if self.forward(shared) > 0 {
            let delay = shared.clock.now().at.since(now.at);
            shared.statistics.forwarding_delay.record(delay);
        }
    }
}

impl Sockets {
    /// Binds the ports of a leg at `place` of the call with this index.
    fn bind(
        leg: LegId,
        (address, port): (IpAddr, u16),
        rtcp_mux: bool,
        (index, place): (usize, usize),
        shared: &Shared,
    ) -> io::Result<Sockets> {
        let rtp = bind(address, Some(port), index, TokenKind::Rtp(place), shared)?;
        let rtcp = match rtcp_mux {
            true => None,
            false => {
                Some(bind(address, port.checked_add(1), index, TokenKind::Rtcp(place), shared)?)
            }
        };
        Ok(Sockets { leg, address, port, rtp, rtcp })
    }
}

impl Media {
    /// Binds a further leg's ports and adds it to the session; the words say why not.
    fn open_leg(
        &mut self,
        now: Now,
        leg: LegId,
        plan: &LegPlan,
        at: (IpAddr, u16),
        index: usize,
        shared: &mut Shared,
    ) -> Result<(), String> {
        let place = self.legs.iter().position(Option::is_none);
        let place = place.ok_or("the call has as many legs as it may have")?;
        let sockets = Sockets::bind(leg, at, plan.remote.rtcp_mux, (index, place), shared)
            .map_err(|error| error.to_string())?;
        let entropy = shared.entropy.fork();
        let opened = self.session.open_leg(now, leg, plan, entropy);
        opened.map_err(|fault| format!("{fault:?}"))?;
        self.legs[place] = Some(Box::new(sockets));
        Ok(())
    }

    /// Closes a leg's sockets; the report of one that is not there is empty.
    fn close_leg(&mut self, now: Now, leg: LegId, shared: &mut Shared) -> MediaReport {
        self.session.say_goodbye(now, leg);
        self.transmit(now, shared);
        for place in &mut self.legs {
            if place.as_ref().is_some_and(|sockets| sockets.leg == leg) {
                *place = None;
            }
        }
        self.session.close_leg(now, leg).unwrap_or_default()
    }

    fn on_agent(
        &mut self,
        now: Now,
        call: CallKey,
        stream: StreamId,
        told: FromAgent<'_>,
        outlet: &Outlet,
    ) {
        match told {
            FromAgent::Prepared => outlet.tell(call, MediaEvent::Prepared { stream }),
            FromAgent::PrepareFailed(fault) => {
                outlet.tell(call, MediaEvent::PrepareFailed { stream, fault });
            }
            FromAgent::JoinFailed(fault) => {
                outlet.tell(call, MediaEvent::JoinFailed { stream, fault });
            }
            FromAgent::Joined => {
                outlet.tell(call, MediaEvent::Joined { stream });
                self.session.handle_agent_joined(now, stream);
            }
            FromAgent::Audio(bytes) => self.session.handle_agent_audio(now, stream, bytes),
            FromAgent::Text(text) => self.on_text(now, call, stream, text, outlet),
            FromAgent::Closed(close) => self.session.handle_agent_closed(now, stream, close),
        }
    }

    fn on_text(&mut self, now: Now, call: CallKey, stream: StreamId, text: &str, outlet: &Outlet) {
        let statistics = &outlet.statistics;
        let forward = match DataMessageKind::of(text) {
            Some(DataMessageKind::PlaybackClearBuffer) => {
                self.session.handle_agent_clear(now, stream);
                false
            }
            Some(DataMessageKind::State | DataMessageKind::Pong) => false,
            Some(DataMessageKind::Transcript) => outlet.forward_transcripts,
            Some(DataMessageKind::Other) => true,
            None => return statistics.texts_dropped.add(1),
        };
        if !forward {
            statistics.texts_filtered.add(1);
        } else if text.len() > AGENT_FRAME_BYTES_MAX {
            statistics.texts_dropped.add(1);
        } else {
            statistics.texts_forwarded.add(1);
            outlet.tell(call, MediaEvent::AgentText { stream, text: text.to_owned() });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one command with what it acts on")]
    fn change(
        &mut self,
        now: Now,
        call: CallKey,
        leg: LegId,
        revision: u32,
        plan: &LegPlan,
        index: usize,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        for (place, sockets) in self.legs.iter_mut().enumerate() {
            let Some(sockets) = sockets.as_mut().filter(|sockets| sockets.leg == leg) else {
                continue;
            };
            if !plan.remote.rtcp_mux && sockets.rtcp.is_none() {
                let port = sockets.port.checked_add(1);
                // Without it the peer's reports are not heard; the call does not need them.
                sockets.rtcp =
                    bind(sockets.address, port, index, TokenKind::Rtcp(place), shared).ok();
            }
        }
        match self.session.change(now, leg, plan) {
            Ok(()) => outlet.tell(call, MediaEvent::Changed { leg, revision }),
            Err(fault) => outlet.tell(call, MediaEvent::Broken(format!("change: {fault:?}"))),
        }
    }

    fn receive_rtcp(&mut self, now: Now, place: usize, shared: &mut Shared) {
        let Some(sockets) = &self.legs[place] else { return };
        let Some(socket) = &sockets.rtcp else { return };
        let Ok((length, source)) = socket.recv_from(&mut shared.packet[..]) else { return };
        let packet = &shared.packet[..length.min(shared.packet.len())];
        self.session.handle_rtcp(now, sockets.leg, canonical(source), packet);
    }

    fn transmit(&mut self, now: Now, shared: &mut Shared) {
        for _ in 0..TRANSMITS_MAX {
            let Some(sent) = self.session.poll_transmit(now, &mut shared.transmit) else { return };
            let mut legs = self.legs.iter().flatten();
            let Some(sockets) = legs.find(|sockets| sockets.leg == sent.leg) else { continue };
            let socket = match sent.channel {
                Channel::Rtp => &sockets.rtp,
                Channel::Rtcp => sockets.rtcp.as_ref().unwrap_or(&sockets.rtp),
            };
            let packet = &shared.transmit[..sent.len.min(shared.transmit.len())];
            match socket.send_to(packet, sent.to) {
                Ok(_) => shared.statistics.packets_sent.add(1),
                // Lost, as in any network: an ICMP error, or no room in the queue.
                Err(_) => shared.statistics.send_failures.add(1),
            }
        }
    }
}

fn too_many_streams() -> AgentStreamFault {
    let words = "the call has as many agent streams as it may have";
    AgentStreamFault::Unreachable(words.to_owned())
}

fn bind(
    address: IpAddr,
    port: Option<u16>,
    index: usize,
    kind: TokenKind,
    shared: &Shared,
) -> io::Result<UdpSocket> {
    let port = port.ok_or(io::ErrorKind::InvalidInput)?;
    let socket = bind_media(address, port)?;
    shared.readiness.add_datagrams(&socket, kind.token(index))?;
    Ok(socket)
}

/// An IPv4-mapped IPv6 source as the IPv4 address that it is.
fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}
