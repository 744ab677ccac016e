//! An incoming call's set-up and life: ringing while the agent is read, its call created and its
//! stream prepared; the upgrade (101) and in the same breath the 200; then both clocks run until
//! either side leaves. Joining is what starts Ultravox's billing and greeting, so nothing is joined
//! that is not answered, and nothing is answered that is not joined.

use super::ladder::Lane;
use super::outbound::PORTS_TRIED_MAX;
use super::transfer::Happened;
use super::{Act, AgentTrack, Call, HEARTBEAT, State, record};
use crate::ground::{LegId, Now, Secret};
use crate::media::plan::{AgentStreamFault, EarlyMedia, LegPlan, MediaCommand, MediaPlan};
use crate::refusal::{EndCause, Refusal, Stage};
use crate::sip::ua::SessionId;
use bytes::Bytes;
use std::net::SocketAddr;

/// Remarks on headers that the ladder shows; the record holds more.
const REMARKS_SHOWN: usize = 4;

impl Call {
    /// Rings, opens media and looks for the agent.
    pub fn begin(&mut self, now: Now, cname: String, out: &mut Vec<Act>) {
        self.note(now, Lane::Sip, "INVITE  caller → edge");
        self.note(now, Lane::Sip, "180 Ringing  edge → caller");
        self.note_remarks(now);
        self.deadline = Some(now.at + self.settings.setup);
        self.cdr.ringing_at = Some(now.wall);
        out.push(Act::Ring);
        out.push(Act::Record);
        self.open_media(cname, out);
        self.find_agent(now, out);
    }

    /// What became of headers that did not reach the agent as they came.
    fn note_remarks(&mut self, now: Now) {
        let remarks = self.cdr.header_remarks.clone();
        for remark in remarks.iter().take(REMARKS_SHOWN) {
            self.note(now, Lane::Edge, remark.as_str());
        }
        if let Some(more) = remarks.len().checked_sub(REMARKS_SHOWN).filter(|more| *more > 0) {
            self.note(now, Lane::Edge, format!("{more} more X- headers were odd"));
        }
    }

    /// Asks for the media session, with the leg as agreed or, for a late offer, as offered.
    pub fn open_media(&mut self, cname: String, out: &mut Vec<Act>) {
        let ptime_ms = self.settings.ptime_ms;
        let leg = self.first.plan.clone().unwrap_or_else(|| self.first.provisional_plan(ptime_ms));
        let plan = MediaPlan {
            leg,
            agent: self.rates,
            rtp_timeout: self.settings.rtp_timeout,
            rtcp_only_max: self.settings.rtcp_only_max,
            hold_max: self.settings.hold_max,
            jitter: self.settings.jitter,
            outgoing: self.outgoing.is_some(),
            cname,
            own: self.first.own.clone(),
        };
        out.push(Act::Media(MediaCommand::Open {
            plan: Box::new(plan),
            address: self.first.media_address.bind,
            port: self.first.port.0,
        }));
    }

    /// Sockets are bound and the session stands.
    pub fn on_media_opened(&mut self, now: Now, out: &mut Vec<Act>) {
        let port = self.first.port.0;
        let State::SettingUp { media_open, .. } = &mut self.state else { return };
        *media_open = true;
        let codec = self.cdr.codec.as_deref().unwrap_or("no codec yet").to_owned();
        self.note(now, Lane::Media, format!("RTP port {port} open, {codec}"));
        self.advance(now, out);
    }

    /// The port was taken by someone else: the Switchboard hands out another.
    pub fn on_bind_failed(&mut self, now: Now, out: &mut Vec<Act>) {
        let State::SettingUp { .. } = self.state else { return };
        self.first.ports_tried += 1;
        if self.first.ports_tried >= PORTS_TRIED_MAX {
            return self.finish(now, EndCause::Refused(Refusal::BindFailed), out);
        }
        out.push(Act::AnotherPort);
    }

    /// Prepares the stream as soon as the session stands and the join URL is known.
    pub(super) fn advance(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.outgoing.is_some() {
            return self.dial_when_ready(now, out);
        }
        let State::SettingUp { media_open: true, agent } = &mut self.state else { return };
        let AgentTrack::Created { join_url } = agent else { return };
        let join_url: Secret = std::mem::take(join_url);
        *agent = AgentTrack::Preparing;
        self.note(now, Lane::Agent, "stream connect  edge → Ultravox");
        out.push(Act::Media(MediaCommand::Prepare { stream: self.agent, join_url }));
    }

    /// TCP and TLS stand: join at once, since nothing else is awaited.
    pub fn on_prepared(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.lost.is_some() {
            return self.on_continuation_prepared(now, out);
        }
        if self.outgoing.is_some() {
            return self.on_outgoing_prepared(now, out);
        }
        let State::SettingUp { agent: AgentTrack::Preparing, .. } = self.state else { return };
        self.note(now, Lane::Agent, "stream ready; upgrade  edge → Ultravox");
        self.state = State::Joining;
        out.push(Act::Media(MediaCommand::Join { stream: self.agent }));
    }

    /// The stream could not be prepared or joined: a 503, never an answered dead call.
    pub fn on_stream_failed(&mut self, now: Now, fault: AgentStreamFault, out: &mut Vec<Act>) {
        if self.lost.is_some() {
            return self.on_continuation_failed(now, out);
        }
        if self.outgoing.is_some() {
            return self.on_outgoing_stream_failed(now, fault, out);
        }
        match self.state {
            State::SettingUp { .. } | State::Joining => {
                self.finish(now, EndCause::Refused(Refusal::AgentStream(fault)), out);
            }
            State::Dialling | State::Answered { .. } | State::Ending { .. } => {}
        }
    }

    /// 101 came: answer. Both clocks start here.
    pub fn on_joined(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.lost.is_some() {
            return self.on_continuation_joined(now, out);
        }
        let State::Joining = self.state else { return };
        if self.outgoing.is_some() {
            return self.on_outgoing_joined(now, out);
        }
        self.note(now, Lane::Agent, "101 Switching Protocols  Ultravox → edge");
        self.note(now, Lane::Sip, "200 OK  edge → caller");
        self.state = State::Answered { acked: false };
        (self.question, self.handler_body) = (None, None);
        self.ledger.answer(now.at, LegId::CALLER);
        self.agent_joined = Some(now.at);
        self.deadline = Some(now.at + HEARTBEAT);
        self.cdr.answered_at = Some(now.wall);
        self.cdr.joined_at = Some(now.wall);
        record::set_status(&mut self.cdr, 200, "OK");
        out.push(Act::Accept { description: self.first.description.clone() });
        out.push(Act::Record);
    }

    /// ACK of our 200. After a late offer it must bring the caller's answer.
    pub fn on_confirmed(
        &mut self,
        now: Now,
        session: SessionId,
        body: Option<(String, Bytes)>,
        out: &mut Vec<Act>,
    ) {
        let State::Answered { acked } = &mut self.state else { return };
        if session != self.first.session || std::mem::replace(acked, true) {
            // A dialog that took a leg over: its ACK may answer an offer of ours.
            return self.on_reoffer_acked(now, session, body, out);
        }
        self.note(now, Lane::Sip, "ACK  caller → edge");
        if self.offer.is_some() {
            return;
        }
        let agreed = match &body {
            Some((_, answer)) => self.first.offer_answer.accept_answer(answer).ok(),
            None => None,
        };
        match agreed {
            Some(agreed) => {
                let leg = self.first.plan_of(&agreed);
                self.take_leg(leg, out);
            }
            None => self.finish(now, EndCause::BadAnswer, out),
        }
    }

    /// Makes `leg` the plan in force.
    pub fn take_leg(&mut self, leg: LegPlan, out: &mut Vec<Act>) {
        self.cdr.codec = Some(leg.codec.kind.encoding_name().to_owned());
        self.first.take_plan(leg, out);
    }

    /// The first packet of the caller's media.
    pub fn on_caller_heard(&mut self, now: Now, _source: SocketAddr) {
        self.note(now, Lane::Media, format!("first RTP  {} → edge", self.far_end()));
    }

    /// What was heard before the agent joined a call that we made.
    pub fn on_early_media(&mut self, now: Now, early: Box<EarlyMedia>, out: &mut Vec<Act>) {
        self.note(now, Lane::Media, format!("early media  edge ← callee: {}", early.figures));
        out.push(Act::KeepEarlyMedia(early));
    }

    /// The first agent audio on the wire.
    pub fn on_agent_heard(&mut self, now: Now) {
        self.note(now, Lane::Media, format!("first agent audio  edge → {}", self.far_end()));
    }

    /// The agent's stream ended: its clock stops, while its last words are still being played.
    pub fn on_agent_ended(&mut self, now: Now) {
        if self.is_answered() {
            self.agent_left(now.at);
            self.cdr.left_at = Some(now.wall);
            self.note(now, Lane::Agent, "stream closed  Ultravox → edge");
        }
    }

    /// The connection that the caller lives on closed. A call that is up goes on: its BYE may come on
    /// another connection, and silence ends it. One that still rings has nobody to be answered.
    pub fn on_flow_lost(&mut self, now: Now, session: SessionId, out: &mut Vec<Act>) {
        if session != self.first.session {
            return;
        }
        match self.state {
            State::SettingUp { .. } | State::Joining if self.outgoing.is_none() => {
                self.finish(now, EndCause::Refused(Refusal::CallerLost), out);
            }
            State::SettingUp { .. }
            | State::Joining
            | State::Dialling
            | State::Answered { .. }
            | State::Ending { .. } => {}
        }
    }

    /// A deadline of this call came: the set-up took too long, or a heartbeat is due.
    pub fn on_timeout(&mut self, now: Now, out: &mut Vec<Act>) {
        self.on_keys_due(now, out);
        self.on_lost_due(now, out);
        self.drive(now, Happened::Timeout, out);
        if self.deadline.is_none_or(|deadline| deadline > now.at) {
            return;
        }
        match &self.state {
            State::SettingUp { media_open, agent } => {
                let stage = match agent {
                    AgentTrack::Deciding => Stage::Fallback,
                    AgentTrack::Fetching { .. } => Stage::Agent,
                    AgentTrack::Waiting => Stage::Turn,
                    AgentTrack::Creating => Stage::AgentCall,
                    AgentTrack::Created { .. } | AgentTrack::Preparing if !media_open => {
                        Stage::Media
                    }
                    AgentTrack::Created { .. } | AgentTrack::Preparing => Stage::AgentStream,
                };
                self.finish(now, EndCause::Refused(Refusal::SetupTimedOut(stage)), out);
            }
            State::Dialling => self.finish(now, EndCause::NoAnswer, out),
            State::Joining if self.outgoing.is_some() => {
                self.finish(now, EndCause::AgentLost(None), out);
            }
            State::Joining => {
                let refusal = Refusal::SetupTimedOut(Stage::AgentStream);
                self.finish(now, EndCause::Refused(refusal), out);
            }
            State::Answered { .. } if self.is_too_long(now) => {
                self.finish(now, EndCause::TooLong, out);
            }
            State::Answered { .. } => {
                let (sip_time, agent_time) = self.clocks(now.at);
                self.cdr.set_times(sip_time, agent_time);
                self.deadline = Some(self.next_beat(now));
                out.push(Act::Record);
            }
            State::Ending { .. } => self.deadline = None,
        }
    }
}
