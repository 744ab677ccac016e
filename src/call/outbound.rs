//! An outgoing call: asked for over HTTP, created at Ultravox, dialled, joined when the callee has
//! answered and not before. The stream is prepared while it rings. Ringing costs nothing: the SIP
//! clock runs from the callee's answer, the agent's from its joining.
//!
//! ```text
//! SettingUp ──call created, media open──▶ Dialling ──2xx──▶ Joining ──101──▶ Answered ──▶ Ending
//!     │ the client has its 201              │ 1xx, 3xx followed  │ BYE when the agent
//!     └── refusal: the client hears why     └── CANCEL · refused └── cannot be joined
//! ```
//!
//! What media comes before the answer is heard by nobody; the session keeps some for diagnosis.

use super::early::Provisional;
use super::ladder::Lane;
use super::{Act, AgentTrack, Call, HEARTBEAT, State, record};
use crate::ground::{Instant, LegId, Now, Secret, limits};
use crate::media::plan::{AgentStreamFault, MediaCommand};
use crate::outgoing::{Callee, DialRefusal, OutgoingPolicy, Wanted};
use crate::refusal::{EndCause, Refusal, Unreached};
use crate::sip::digest::DigestClient;
use crate::sip::msg::NameAddr;
use crate::sip::ua::{Body, DialFault};
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::{self, CreateCall, CreateFault, Created};
use serde_json::Value;
use std::sync::Arc;

/// Ports that one leg tries before it gives up on binding.
pub(super) const PORTS_TRIED_MAX: u8 = 5;

/// The part of a call that only an outgoing one has.
#[derive(Debug)]
pub struct Outgoing {
    pub wanted: Wanted,
    pub policy: Arc<OutgoingPolicy>,
    /// Who waits over HTTP for the created call.
    pub asked: Option<u64>,
    /// Who is dialled now: another one after a 3xx.
    pub callee: Callee,
    /// What answers challenges of the callee that was asked for; nobody else's.
    pub credentials: Option<DigestClient>,
    /// Everybody who was dialled, by Request-URI.
    pub tried: Vec<String>,
    /// The agent as it was read; its telephone tools are to be replaced.
    pub agent: Option<Arc<Agent>>,
    pub join_url: Option<Secret>,
    pub stream: Stream,
    /// The INVITE is out and has no final answer.
    pub is_ringing: bool,
    /// The callee answered: a BYE ends it.
    pub is_up: bool,
    pub ends_at: Option<Instant>,
}

/// The agent's stream while the callee rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    Preparing,
    Ready,
    /// It could not be prepared, or broke again: one more try when the callee answers.
    Broken,
}

/// What Ultravox said to the creation of an outgoing call, when it is not a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceRefusal {
    pub fault: CreateFault,
    /// Status and body as they came, for the client; `None` when there was no answer.
    pub answer: Option<(u16, Value)>,
}

impl Outgoing {
    pub fn new(wanted: Wanted, policy: Arc<OutgoingPolicy>, asked: u64) -> Outgoing {
        let callee = wanted.callee.clone();
        let credentials = wanted.credentials.clone().map(DigestClient::new);
        Outgoing {
            tried: vec![callee.uri.clone()],
            wanted,
            policy,
            asked: Some(asked),
            callee,
            credentials,
            agent: None,
            join_url: None,
            stream: Stream::Preparing,
            is_ringing: false,
            is_up: false,
            ends_at: None,
        }
    }

    /// The credentials for the present callee: those of another place stay at home.
    pub fn credentials_here(&self) -> Option<DigestClient> {
        self.credentials.clone().filter(|_| self.callee.place == self.wanted.callee.place)
    }
}

impl Call {
    /// Opens media and asks for the agent call.
    pub fn begin_outgoing(&mut self, now: Now, cname: String, out: &mut Vec<Act>) {
        self.note(now, Lane::Edge, "an outgoing call is asked for");
        self.deadline = Some(now.at + self.settings.setup);
        out.push(Act::Record);
        self.open_media(cname, out);
        self.ask_turn(now, out);
    }

    /// The turn is there: Ultravox is asked for the call.
    pub(super) fn create_outgoing(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(outgoing) = &self.outgoing else { return };
        let ring_timeout = outgoing.policy.ring_timeout;
        let request = CreateCall {
            // It lapses only after the callee's last moment to answer.
            join_timeout: ring_timeout + limits::JOIN_TIMEOUT,
            ..self.creation_request()
        };
        let (agent_id, query) = (outgoing.wanted.agent_id.clone(), outgoing.wanted.query.clone());
        let (mut body, agent) = (outgoing.wanted.creation(&request), outgoing.agent.clone());
        self.arrange_tools(now, agent.as_deref(), &mut body);
        if let State::SettingUp { agent, .. } = &mut self.state {
            *agent = AgentTrack::Creating;
        }
        self.note(now, Lane::Agent, "create call  edge → Ultravox");
        out.push(Act::CreateOutgoing { agent_id, query, body, budget: limits::CREATE_CALL });
    }

    /// Ultravox answered the creation: the client gets its call, or the refusal.
    pub fn on_outgoing_call(
        &mut self,
        now: Now,
        answer: Result<Created, ServiceRefusal>,
        out: &mut Vec<Act>,
    ) {
        let State::SettingUp { agent: AgentTrack::Creating, .. } = self.state else { return };
        match answer {
            Ok(created) => self.on_outgoing_created(now, created, out),
            Err(refused) => {
                self.note(now, Lane::Agent, refused.fault.to_string());
                let for_client = match refused.answer {
                    Some((status, body)) => DialRefusal::Service { status, body },
                    None => DialRefusal::NoService(refused.fault),
                };
                self.answer_client(Err(for_client), out);
                self.finish(now, EndCause::Refused(Refusal::AgentCall(refused.fault)), out);
            }
        }
    }

    fn on_outgoing_created(&mut self, now: Now, created: Created, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "201 Created  Ultravox → edge");
        self.cdr.ultravox_call_id = Some(created.call_id.to_string());
        let Some(outgoing) = &mut self.outgoing else { return };
        outgoing.join_url = Some(created.join_url);
        self.speech = create_call::speech(&created.call);
        let shown = outgoing.wanted.shown(created.call);
        self.answer_client(Ok(shown), out);
        if let State::SettingUp { agent, .. } = &mut self.state {
            *agent = AgentTrack::Created { join_url: Secret::default() };
        }
        out.push(Act::Record);
        self.dial_when_ready(now, out);
    }

    fn answer_client(&mut self, result: Result<Value, DialRefusal>, out: &mut Vec<Act>) {
        let asked = self.outgoing.as_mut().and_then(|outgoing| outgoing.asked.take());
        if let Some(asked) = asked {
            out.push(Act::AnswerDial { asked, result: Box::new(result) });
        }
    }

    /// Dials when the call stands at Ultravox and the media port is bound; the stream is prepared
    /// while it rings.
    pub(super) fn dial_when_ready(&mut self, now: Now, out: &mut Vec<Act>) {
        let State::SettingUp { media_open: true, agent: AgentTrack::Created { .. } } = self.state
        else {
            return;
        };
        let Some(outgoing) = &mut self.outgoing else { return };
        let Some(join_url) = outgoing.join_url.clone() else { return };
        outgoing.is_ringing = true;
        self.deadline = Some(now.at + outgoing.policy.ring_timeout);
        self.state = State::Dialling;
        self.note(now, Lane::Sip, "INVITE  edge → callee");
        out.push(Act::Dial);
        self.note(now, Lane::Agent, "stream connect  edge → Ultravox");
        out.push(Act::Media(MediaCommand::Prepare { stream: self.agent, join_url }));
    }

    /// A provisional answer of the callee's side.
    pub fn on_progress(&mut self, now: Now, said: &Provisional, out: &mut Vec<Act>) {
        let State::Dialling = self.state else { return };
        let early = if said.body.is_some() { " with early media" } else { "" };
        self.note(now, Lane::Sip, format!("{}{early}  callee → edge", said.code));
        if let Some(plan) = self.first.hear_fork(said) {
            self.take_leg(plan, out);
        }
        if said.code >= 180 && self.cdr.ringing_at.is_none() {
            self.cdr.ringing_at = Some(now.wall);
            out.push(Act::Record);
        }
    }

    /// This fork of the callee answered, and has our ACK: the SIP clock runs. The agent joins now.
    pub fn on_callee_answered(
        &mut self,
        now: Now,
        (fork, body): (&str, &Body),
        out: &mut Vec<Act>,
    ) {
        let State::Dialling = self.state else { return };
        self.note(now, Lane::Sip, "200 OK  callee → edge");
        let Some(outgoing) = &mut self.outgoing else { return };
        (outgoing.is_ringing, outgoing.is_up) = (false, true);
        outgoing.ends_at = Some(now.at + outgoing.policy.length_max);
        let (stream, join_url) = (outgoing.stream, outgoing.join_url.clone());
        self.ledger.answer(now.at, LegId::CALLER);
        self.cdr.answered_at = Some(now.wall);
        record::set_status(&mut self.cdr, 200, "OK");
        self.state = State::Joining;
        self.deadline = Some(now.at + limits::CREATE_CALL);
        let Some(leg) = self.first.take_answer(fork, body) else {
            return self.finish(now, EndCause::BadAnswer, out);
        };
        self.cdr.source.address = self.first.flow.peer;
        self.cdr.source.transport = self.first.flow.transport;
        self.take_leg(leg, out);
        out.push(Act::Record);
        match (stream, join_url) {
            (Stream::Ready, _) => self.join_agent(now, out),
            (Stream::Preparing, _) => {}
            (Stream::Broken, Some(join_url)) => {
                self.note(now, Lane::Agent, "stream connect  edge → Ultravox");
                self.set_stream(Stream::Preparing);
                out.push(Act::Media(MediaCommand::Prepare { stream: self.agent, join_url }));
            }
            (Stream::Broken, None) => self.finish(now, EndCause::AgentLost(None), out),
        }
    }

    fn join_agent(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "upgrade  edge → Ultravox");
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.join_url = None;
        }
        out.push(Act::Media(MediaCommand::Join { stream: self.agent }));
    }

    fn set_stream(&mut self, stream: Stream) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.stream = stream;
        }
    }

    /// TCP and TLS to the agent's host stand. Joined only when the callee is there.
    pub(super) fn on_outgoing_prepared(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "stream ready");
        self.set_stream(Stream::Ready);
        if let State::Joining = self.state {
            self.join_agent(now, out);
        }
    }

    /// The stream could not be prepared or joined. While it rings there is time for another try.
    pub(super) fn on_outgoing_stream_failed(
        &mut self,
        now: Now,
        _fault: AgentStreamFault,
        out: &mut Vec<Act>,
    ) {
        match self.state {
            State::Dialling => {
                self.note(now, Lane::Agent, "stream lost while it rings");
                self.set_stream(Stream::Broken);
            }
            State::Joining => self.finish(now, EndCause::AgentLost(None), out),
            State::SettingUp { .. } | State::Answered { .. } | State::Ending { .. } => {}
        }
    }

    /// 101 came: callee and agent hear each other.
    pub(super) fn on_outgoing_joined(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "101 Switching Protocols  Ultravox → edge");
        self.state = State::Answered { acked: true };
        self.agent_joined = Some(now.at);
        self.cdr.joined_at = Some(now.wall);
        self.deadline = Some(self.next_beat(now));
        out.push(Act::Record);
    }

    /// When an answered call wants to be called next: its heartbeat, or the end of its time.
    pub(super) fn next_beat(&self, now: Now) -> Instant {
        let beat = now.at + HEARTBEAT;
        self.ends_at().map_or(beat, |ends_at| beat.min(ends_at))
    }

    /// When the time of what we dialled is over: of an outgoing call, or of a target that the agent
    /// went over to.
    fn ends_at(&self) -> Option<Instant> {
        let outgoing = self.outgoing.as_ref().and_then(|outgoing| outgoing.ends_at);
        [outgoing, self.handed_over_until].into_iter().flatten().min()
    }

    /// The longest time that `[outgoing]` allows is over.
    pub(super) fn is_too_long(&self, now: Now) -> bool {
        self.ends_at().is_some_and(|ends_at| ends_at <= now.at)
    }

    /// The final refusal of the callee's side. A redirection is followed when the policy admits the
    /// new target, and not for ever.
    pub fn on_callee_refused(
        &mut self,
        now: Now,
        (code, reason): (u16, String),
        contacts: &[String],
        out: &mut Vec<Act>,
    ) {
        let State::Dialling = self.state else { return };
        self.note(now, Lane::Sip, format!("{code}  callee → edge"));
        if (300..400).contains(&code) && self.follow(now, contacts, out) {
            return;
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.is_ringing = false;
        }
        self.finish(now, EndCause::CalleeRefused { code, reason }, out);
    }

    fn follow(&mut self, now: Now, contacts: &[String], out: &mut Vec<Act>) -> bool {
        let Some(outgoing) = &mut self.outgoing else { return false };
        if outgoing.tried.len() > usize::from(outgoing.policy.redirects_max) {
            self.note(now, Lane::Edge, "not followed: too many redirections");
            return false;
        }
        let srtp = &self.settings.srtp;
        let next = by_preference(contacts).into_iter().find_map(|uri| {
            let callee = outgoing.policy.admit(&uri, true).ok()?;
            let is_new = !outgoing.tried.contains(&callee.uri);
            (is_new && srtp.may_call(&callee.uri)).then_some(callee)
        });
        let Some(callee) = next else {
            self.note(now, Lane::Edge, "not followed: outgoing allows no target of it");
            return false;
        };
        outgoing.tried.push(callee.uri.clone());
        self.first.target_srtp = srtp.policy_named(&callee.uri);
        outgoing.callee = callee;
        self.first.forget_forks();
        self.note(now, Lane::Sip, "INVITE  edge → the new target");
        out.push(Act::Dial);
        true
    }

    /// Nobody answered the INVITE at all.
    pub fn on_dial_failed(&mut self, now: Now, fault: &DialFault, out: &mut Vec<Act>) {
        let State::Dialling = self.state else { return };
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.is_ringing = false;
        }
        let unreached = Unreached::of(fault);
        self.note(now, Lane::Sip, unreached.words());
        self.finish(now, EndCause::NotReached(unreached), out);
    }

    /// The client wants a call that is not up yet to end. False when it is up, or over.
    pub fn hang_up(&mut self, now: Now, out: &mut Vec<Act>) -> bool {
        let waits = match self.state {
            State::SettingUp { .. } | State::Dialling => self.outgoing.is_some(),
            State::Joining | State::Answered { .. } | State::Ending { .. } => false,
        };
        if waits {
            self.note(now, Lane::Edge, "hang_up  client → edge");
            self.finish(now, EndCause::HungUp, out);
        }
        waits
    }

    /// Ends the SIP side of a call of ours as its state demands; true when its end is awaited.
    pub(super) fn end_outgoing(&mut self, cause: &EndCause, out: &mut Vec<Act>) -> bool {
        let refusal = match cause {
            EndCause::Refused(Refusal::NoTurn { retry_after }) => {
                DialRefusal::TooMany { retry_after: *retry_after }
            }
            cause => DialRefusal::Ended { words: cause.words(self.settings.refusals) },
        };
        self.answer_client(Err(refusal), out);
        let Some(outgoing) = &mut self.outgoing else { return false };
        outgoing.join_url = None;
        if matches!(cause, EndCause::CalleeHungUp) {
            return false;
        }
        if std::mem::take(&mut outgoing.is_ringing) {
            let session = self.first.session;
            out.push(Act::Cancel { session, reason: cause.reason_header() });
            return true;
        }
        if outgoing.is_up {
            let session = self.first.session;
            out.push(Act::Bye { session, reason: cause.reason_header() });
        }
        outgoing.is_up
    }

    /// The callee has answered this call of ours.
    pub(super) fn is_outgoing_up(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.is_up)
    }

    /// The SIP side in a word, for the ladder.
    pub(super) fn far_end(&self) -> &'static str {
        if self.outgoing.is_some() { "callee" } else { "caller" }
    }
}

/// The URIs of a 3xx's contacts, the most wanted first (RFC 3261 §20.10: `q`, 1 when absent).
pub(super) fn by_preference(contacts: &[String]) -> Vec<String> {
    let mut uris: Vec<(u32, String)> = contacts
        .iter()
        .filter_map(|contact| {
            let address = NameAddr::parse(contact).ok()?;
            let q = address.param("q").flatten().and_then(|q| q.parse::<f64>().ok());
            let q = q.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0);
            Some(((q * 1_000.0) as u32, address.uri().as_str().to_owned()))
        })
        .collect();
    uris.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
    uris.into_iter().map(|(_, uri)| uri).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_followed_by_their_preference() {
        let contacts = ["<sip:c@h>;q=0.2", "sip:a@h", "<sip:b@h>;q=0.9", "<sip:d@h>;q=9", "x"];
        let contacts = contacts.map(String::from);
        assert_eq!(by_preference(&contacts), ["sip:a@h", "sip:d@h", "sip:b@h", "sip:c@h"]);
    }
}
