//! One call in its shard: the UDP sockets, the `MediaSession`, the ring towards the agent and the
//! agent stream. It carries bytes between them and decides nothing about audio. When its media is
//! closed, the agent's connection may outlive it for a moment, so that the close frame arrives.

use super::agent_stream::{AgentStream, FromAgent};
use super::load::Relief;
use super::shard::{Outlet, Shared, TokenKind};
use super::sockets::bind_media;
use crate::ground::limits::AGENT_FRAME_BYTES_MAX;
use crate::ground::{CallKey, Instant, LegId, Now, StreamId};
use crate::media::plan::{LegPlan, MediaCommand, MediaEvent, MediaPlan, MediaReport};
use crate::media::{Channel, MediaSession, Uplink};
use crate::ultravox::stream::DataMessageKind;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Packets that a session may send at once; it has one to three.
const TRANSMITS_MAX: usize = 64;
/// Events that a session may have at once.
const EVENTS_MAX: usize = 256;

/// Which sockets may have something to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    pub rtp: bool,
    pub rtcp: bool,
    pub agent: bool,
    /// The end of the agent's stream was reported.
    pub agent_ended: bool,
}

impl Ready {
    /// Anything at all.
    pub fn is_any(self) -> bool {
        self.rtp || self.rtcp || self.agent
    }
}

/// A call's slot in the shard.
pub struct Call {
    key: CallKey,
    index: usize,
    media: Option<Media>,
    stream: AgentStream,
    /// The stream is in the count of open ones.
    counted_open: bool,
    pub ready: Ready,
    /// The call stands in the shard's queue of those with something to read.
    pub queued: bool,
}

struct Media {
    session: MediaSession,
    uplink: Uplink,
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
        (address, port): (IpAddr, u16),
        shared: &mut Shared,
    ) -> Result<Call, OpenFault> {
        let rtp = bind(address, Some(port), index, TokenKind::Rtp, shared)?;
        let rtcp = match plan.leg.remote.rtcp_mux {
            true => None,
            false => Some(bind(address, port.checked_add(1), index, TokenKind::Rtcp, shared)?),
        };
        let mut session = MediaSession::new(now, plan, shared.entropy.fork())
            .map_err(|fault| OpenFault::Session(format!("{fault:?}")))?;
        let uplink = Uplink::new(plan.agent.input_hz);
        session.set_opus_complexity(shared.relief.step().opus_complexity());
        shared.statistics.sessions.add(1);
        Ok(Call {
            key,
            index,
            media: Some(Media { session, uplink, address, port, rtp, rtcp }),
            stream: AgentStream::new(key, TokenKind::Agent.token(index)),
            counted_open: false,
            ready: Ready::default(),
            queued: false,
        })
    }

    pub fn key(&self) -> CallKey {
        self.key
    }

    /// The media is closed and the agent's connection is gone: the slot can go.
    pub fn is_over(&self) -> bool {
        self.media.is_none() && self.stream.is_idle()
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
        let Call { key, index, media, stream, .. } = self;
        let Some(open) = media else { return };
        let mut tell = |told: FromAgent<'_>| open.on_agent(now, *key, told, outlet);
        match command {
            MediaCommand::Open { .. } => {
                tracing::error!(call = %key, "media was opened twice");
            }
            MediaCommand::Prepare { join_url, .. } => {
                stream.prepare(now.at, &join_url, shared, &mut tell);
            }
            MediaCommand::Join { .. } => stream.join(now.at, shared, &mut tell),
            MediaCommand::Change { revision, plan: leg, .. } => {
                open.change(now, *key, *index, revision, &leg, shared, outlet);
            }
            MediaCommand::SendText { text, .. } => {
                if !stream.send_text(text) {
                    outlet.statistics.texts_dropped.add(1);
                }
            }
            MediaCommand::OpenLeg { .. }
            | MediaCommand::CloseLeg { .. }
            | MediaCommand::LeaveStream { .. }
            | MediaCommand::Arrange { .. }
            | MediaCommand::Play { .. }
            | MediaCommand::SendKeys { .. } => {
                tracing::error!(call = %key, "a command that this media plane does not know");
            }
            MediaCommand::Close => self.close(now, shared, outlet),
        }
    }

    /// The resolver's answer to question number `attempt`.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        attempt: u32,
        addresses: Result<Vec<SocketAddr>, String>,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        let Some(media) = &mut self.media else { return };
        let mut tell = |told: FromAgent<'_>| media.on_agent(now, self.key, told, outlet);
        self.stream.handle_resolved(now.at, attempt, addresses, shared, &mut tell);
    }

    pub fn handle_timeout(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) {
        let Some(media) = &mut self.media else {
            return self.stream.handle_timeout(now.at, shared, &mut |_| {});
        };
        media.session.handle_timeout(now, &mut media.uplink);
        if self.stream.poll_timeout().is_some_and(|at| at <= now.at) {
            let mut tell = |told: FromAgent<'_>| media.on_agent(now, self.key, told, outlet);
            self.stream.handle_timeout(now.at, shared, &mut tell);
        }
    }

    /// Reads a bounded amount from the sockets that are ready: one datagram of each, since they are
    /// reported again while they hold more, and some records of the agent. `ready` keeps what is left
    /// over. The agent comes first: the caller's packets make us write to it, which a hang-up may
    /// forbid.
    pub fn receive(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) {
        let ready = std::mem::take(&mut self.ready);
        if ready.agent {
            let ended = ready.agent_ended;
            self.ready.agent = match &mut self.media {
                Some(media) => {
                    let mut tell =
                        |told: FromAgent<'_>| media.on_agent(now, self.key, told, outlet);
                    self.stream.handle_ready(now.at, ended, shared, &mut tell)
                }
                None => self.stream.handle_ready(now.at, ended, shared, &mut |_| {}),
            };
        }
        if ready.rtp {
            self.receive_rtp(now, shared);
        }
        if ready.rtcp
            && let Some(media) = &mut self.media
        {
            media.receive_rtcp(now, shared);
        }
    }

    /// Does what the last inputs made due: audio to the agent, packets to the caller, events to
    /// signalling. Returns the next deadline.
    pub fn settle(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) -> Option<Instant> {
        self.forward(shared);
        self.ready.agent |= self.stream.take_unread();
        if let Some(media) = &mut self.media {
            media.transmit(now, shared);
            for _ in 0..EVENTS_MAX {
                let Some(event) = media.session.poll_event() else { break };
                outlet.tell(self.key, event);
            }
        }
        self.count_stream(shared);
        self.media_due().into_iter().chain(self.stream.poll_timeout()).min()
    }

    /// The shard relieves itself more or less than before.
    pub fn follow(&mut self, relief: Relief) {
        if let Some(media) = &mut self.media {
            media.session.set_opus_complexity(relief.opus_complexity());
        }
    }

    /// Ends the media and reports it; the agent's connection gets a moment to close.
    pub fn close(&mut self, now: Now, shared: &mut Shared, outlet: &Outlet) {
        self.stream.close(now.at, shared);
        // Before the report, so that whoever reads it finds the counts as they are then.
        self.count_stream(shared);
        if let Some(mut media) = self.media.take() {
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
        if self.counted_open {
            shared.statistics.agent_streams.subtract(1);
        }
        outlet.tell(self.key, MediaEvent::Broken("the media session panicked".to_owned()));
        let report: MediaReport = report.unwrap_or_default();
        outlet.tell(self.key, MediaEvent::Closed(Box::new(report)));
    }

    fn count_stream(&mut self, shared: &mut Shared) {
        if self.stream.is_open() != self.counted_open {
            self.counted_open = !self.counted_open;
            match self.counted_open {
                true => shared.statistics.agent_streams.add(1),
                false => shared.statistics.agent_streams.subtract(1),
            }
        }
    }

    /// Empties the uplink into the agent's socket as far as that takes it. Returns the frames.
    fn forward(&mut self, shared: &mut Shared) -> u64 {
        let Some(media) = &mut self.media else { return 0 };
        let frames = self.stream.flush(&mut media.uplink, shared);
        shared.statistics.uplink_frames.add(frames);
        frames
    }

    fn receive_rtp(&mut self, now: Now, shared: &mut Shared) {
        let Some(media) = &mut self.media else { return };
        // Else an ICMP error of an earlier packet, or it was not for us: the next one may arrive.
        let Ok((length, source)) = media.rtp.recv_from(&mut shared.packet[..]) else { return };
        shared.statistics.packets_received.add(1);
        let packet = &shared.packet[..length.min(shared.packet.len())];
        media.session.handle_rtp(now, canonical(source), packet, &mut media.uplink);
        if self.forward(shared) > 0 {
            let delay = shared.clock.now().at.since(now.at);
            shared.statistics.forwarding_delay.record(delay);
        }
    }
}

impl Media {
    fn on_agent(&mut self, now: Now, call: CallKey, told: FromAgent<'_>, outlet: &Outlet) {
        match told {
            FromAgent::Prepared => {
                outlet.tell(call, MediaEvent::Prepared { stream: StreamId::FIRST })
            }
            FromAgent::PrepareFailed(fault) => {
                outlet.tell(call, MediaEvent::PrepareFailed { stream: StreamId::FIRST, fault })
            }
            FromAgent::JoinFailed(fault) => {
                outlet.tell(call, MediaEvent::JoinFailed { stream: StreamId::FIRST, fault })
            }
            FromAgent::Joined => {
                outlet.tell(call, MediaEvent::Joined { stream: StreamId::FIRST });
                self.session.handle_agent_joined(now, &mut self.uplink);
            }
            FromAgent::Audio(bytes) => self.session.handle_agent_audio(now, bytes),
            FromAgent::Text(text) => self.on_text(now, call, text, outlet),
            FromAgent::Closed(close) => self.session.handle_agent_closed(now, close),
        }
    }

    fn on_text(&mut self, now: Now, call: CallKey, text: &str, outlet: &Outlet) {
        let statistics = &outlet.statistics;
        let forward = match DataMessageKind::of(text) {
            Some(DataMessageKind::PlaybackClearBuffer) => {
                self.session.handle_agent_clear(now);
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
            outlet.tell(
                call,
                MediaEvent::AgentText { stream: StreamId::FIRST, text: text.to_owned() },
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one command with what it acts on")]
    fn change(
        &mut self,
        now: Now,
        call: CallKey,
        index: usize,
        revision: u32,
        leg: &LegPlan,
        shared: &mut Shared,
        outlet: &Outlet,
    ) {
        if !leg.remote.rtcp_mux && self.rtcp.is_none() {
            // Without it the peer's reports are not heard; the call does not need them.
            self.rtcp =
                bind(self.address, self.port.checked_add(1), index, TokenKind::Rtcp, shared).ok();
        }
        match self.session.change(now, leg) {
            Ok(()) => outlet.tell(call, MediaEvent::Changed { leg: LegId::CALLER, revision }),
            Err(fault) => outlet.tell(call, MediaEvent::Broken(format!("change: {fault:?}"))),
        }
    }

    fn receive_rtcp(&mut self, now: Now, shared: &mut Shared) {
        let Some(socket) = &self.rtcp else { return };
        let Ok((length, source)) = socket.recv_from(&mut shared.packet[..]) else { return };
        let packet = &shared.packet[..length.min(shared.packet.len())];
        self.session.handle_rtcp(now, canonical(source), packet);
    }

    fn transmit(&mut self, now: Now, shared: &mut Shared) {
        for _ in 0..TRANSMITS_MAX {
            let Some(sent) = self.session.poll_transmit(now, &mut shared.transmit) else { return };
            let socket = match sent.channel {
                Channel::Rtp => &self.rtp,
                Channel::Rtcp => self.rtcp.as_ref().unwrap_or(&self.rtp),
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

fn bind(
    address: IpAddr,
    port: Option<u16>,
    index: usize,
    kind: TokenKind,
    shared: &Shared,
) -> Result<UdpSocket, OpenFault> {
    let port = port.ok_or_else(|| OpenFault::Bind(io::ErrorKind::InvalidInput.into()))?;
    let socket = bind_media(address, port).map_err(OpenFault::Bind)?;
    shared.readiness.add_datagrams(&socket, kind.token(index)).map_err(OpenFault::Bind)?;
    Ok(socket)
}

/// An IPv4-mapped IPv6 source as the IPv4 address that it is.
fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}
