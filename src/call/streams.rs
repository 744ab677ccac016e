//! What happens to agent streams, by whose stream it is: the call's agent, or the agent of a second
//! call that speaks with a transfer's target. The second one's way is here: its turn, its creation,
//! its stream, its end.

use super::handover::Brief;
use super::ladder::Lane;
use super::leg::JobPurpose;
use super::transfer::{Briefing, Failure, Happened};
use super::{Act, Call};
use crate::ground::{Instant, Now, Secret, StreamId, limits};
use crate::media::plan::{AgentClose, AgentStreamFault, MediaCommand};
use crate::ultravox::create_call::{self, CreateCall, CreateFault, Created};
use crate::ultravox::tool;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Tries to prepare the operator's stream while the target rings.
const PREPARES_MAX: u8 = 3;

/// The second agent call of a transfer.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) stream: StreamId,
    /// Until it is joined.
    join_url: Option<Secret>,
    prepares: u8,
    joined: Option<Instant>,
}

impl Call {
    /// A number for a further stream.
    pub(super) fn next_stream(&mut self) -> StreamId {
        let stream = StreamId(self.streams_begun);
        self.streams_begun += 1;
        stream
    }

    fn operator_of(&mut self, stream: StreamId) -> Option<&mut Operator> {
        let operator = self.transfer.as_mut()?.operator.as_mut()?;
        (operator.stream == stream).then_some(operator)
    }

    fn is_operator(&self, stream: StreamId) -> bool {
        let operator = self.transfer.as_ref().and_then(|transfer| transfer.operator.as_ref());
        operator.is_some_and(|operator| operator.stream == stream)
    }

    /// Gets the target's agent ready while the target rings.
    pub(super) fn ready_agent(&mut self, now: Now, briefing: Briefing, out: &mut Vec<Act>) {
        match briefing {
            Briefing::Cold => {}
            Briefing::SecondCall => {
                let stream = self.next_stream();
                let operator = Operator { stream, join_url: None, prepares: 0, joined: None };
                if let Some(transferring) = &mut self.transfer {
                    transferring.operator = Some(operator);
                }
                self.ask_operators_turn(now, out);
            }
            Briefing::Stage => self.read_stage(now, out),
        }
    }

    /// The turn to create an agent call is there.
    pub fn on_stream_turn(&mut self, now: Now, stream: StreamId, out: &mut Vec<Act>) {
        if stream == self.agent {
            self.on_turn(now, out);
        } else if self.is_operator(stream) {
            self.create_operator(now, stream, out);
        }
    }

    pub fn on_stream_turn_too_late(
        &mut self,
        now: Now,
        stream: StreamId,
        retry_after: Duration,
        out: &mut Vec<Act>,
    ) {
        if stream == self.agent {
            self.on_turn_too_late(now, retry_after, out);
        } else if self.is_operator(stream) {
            self.lose_operator(now, "no agent call could be created in time", out);
        }
    }

    /// Ultravox answered the creation of this stream's agent call, or did not.
    pub fn on_stream_call(
        &mut self,
        now: Now,
        stream: StreamId,
        answer: Result<Created, CreateFault>,
        out: &mut Vec<Act>,
    ) {
        if stream == self.agent {
            return self.on_agent_call(now, answer, out);
        }
        match answer {
            Ok(created) => self.on_operator_created(now, stream, created, out),
            Err(fault) => {
                self.note(now, Lane::Agent, format!("operator's agent: {fault}"));
                if fault == CreateFault::BadRequest && !self.speech.is_empty() {
                    // Perhaps a voice that is not for calls without an agent: another one then.
                    self.speech.clear();
                    self.ask_operators_turn(now, out);
                } else if self.is_operator(stream) {
                    self.lose_operator(now, "its agent call was not created", out);
                }
            }
        }
    }

    fn ask_operators_turn(&self, now: Now, out: &mut Vec<Act>) {
        let operator = self.transfer.as_ref().and_then(|transfer| transfer.operator.as_ref());
        if let Some(operator) = operator {
            let until = now.at + self.settings.hands.transfers.ring_timeout;
            out.push(Act::AskTurn { stream: operator.stream, until });
        }
    }

    fn create_operator(&mut self, now: Now, stream: StreamId, out: &mut Vec<Act>) {
        let Some(transferring) = &self.transfer else { return };
        let Brief { template, context } = &transferring.brief;
        let request = CreateCall {
            // It lapses only after the target's last moment to answer.
            join_timeout: self.settings.hands.transfers.ring_timeout + limits::JOIN_TIMEOUT,
            ..self.creation_request()
        };
        let body = operator_call(&request, &self.speech, (template.as_deref(), context));
        self.note(now, Lane::Agent, "create operator's call  edge → Ultravox");
        let budget = limits::CREATE_CALL;
        out.push(Act::CreateAgentCall { stream, agent_id: None, prior: None, body, budget });
    }

    fn on_operator_created(
        &mut self,
        now: Now,
        stream: StreamId,
        created: Created,
        out: &mut Vec<Act>,
    ) {
        let Some(operator) = self.operator_of(stream) else { return };
        operator.join_url = Some(created.join_url);
        if let Some(record) = self.cdr.transfers.last_mut() {
            record.operator_call_id = Some(created.call_id.to_string());
        }
        self.note(now, Lane::Agent, "201 Created  Ultravox → edge");
        self.prepare_operator(now, stream, out);
    }

    fn prepare_operator(&mut self, now: Now, stream: StreamId, out: &mut Vec<Act>) {
        let Some(operator) = self.operator_of(stream) else { return };
        operator.prepares += 1;
        let Some(join_url) = operator.join_url.clone() else { return };
        self.note(now, Lane::Agent, "operator's stream connect  edge → Ultravox");
        out.push(Act::Media(MediaCommand::Prepare { stream, join_url }));
    }

    /// TCP and TLS to an agent's host stand.
    pub fn on_stream_prepared(&mut self, now: Now, stream: StreamId, out: &mut Vec<Act>) {
        if stream == self.agent {
            self.on_prepared(now, out);
        } else if self.is_operator(stream) {
            self.note(now, Lane::Agent, "operator's stream ready");
            self.drive(now, Happened::AgentReady, out);
        }
    }

    /// An agent's stream could not be prepared, or broke before it was joined.
    pub fn on_prepare_failed(
        &mut self,
        now: Now,
        stream: StreamId,
        fault: AgentStreamFault,
        out: &mut Vec<Act>,
    ) {
        if stream == self.agent {
            return self.on_stream_failed(now, fault, out);
        }
        match self.operator_of(stream).map(|operator| operator.prepares) {
            Some(prepares) if prepares < PREPARES_MAX => self.prepare_operator(now, stream, out),
            Some(_) => self.lose_operator(now, "its stream could not be connected", out),
            None => {}
        }
    }

    pub fn on_join_failed(
        &mut self,
        now: Now,
        stream: StreamId,
        fault: AgentStreamFault,
        out: &mut Vec<Act>,
    ) {
        if stream == self.agent {
            self.on_stream_failed(now, fault, out);
        } else if self.is_operator(stream) {
            self.lose_operator(now, "its stream could not be joined", out);
        }
    }

    pub(super) fn join_operator(&mut self, now: Now, out: &mut Vec<Act>) {
        let operator = self.transfer.as_mut().and_then(|transfer| transfer.operator.as_mut());
        let Some(operator) = operator else { return };
        let stream = operator.stream;
        operator.join_url = None;
        self.note(now, Lane::Agent, "operator's stream upgrade  edge → Ultravox");
        out.push(Act::Media(MediaCommand::Join { stream }));
    }

    /// 101 came.
    pub fn on_stream_joined(&mut self, now: Now, stream: StreamId, out: &mut Vec<Act>) {
        if stream == self.agent {
            self.on_joined(now, out);
            return self.tell_owed_report(out);
        }
        let Some(operator) = self.operator_of(stream) else { return };
        operator.joined = Some(now.at);
        self.note(now, Lane::Agent, "101 Switching Protocols  Ultravox → edge");
        self.drive(now, Happened::AgentJoined, out);
    }

    /// A stream ended; what was said is still being played.
    pub fn on_stream_ended(&mut self, now: Now, stream: StreamId) {
        if stream == self.agent {
            self.on_agent_ended(now);
        } else if self.is_operator(stream) {
            self.note(now, Lane::Agent, "operator's stream closed  Ultravox → edge");
        }
    }

    /// An agent left, and what it said has been played. The call's own agent is not missed while the
    /// caller is on the way to somebody else.
    pub fn on_stream_left(
        &mut self,
        now: Now,
        stream: StreamId,
        close: AgentClose,
        out: &mut Vec<Act>,
    ) {
        if stream != self.agent {
            if self.is_operator(stream) {
                self.lose_operator(now, "it left", out);
            }
            return;
        }
        if self.transfer.is_none() {
            return self.on_agent_left(now, close, out);
        }
        self.agent_close = Some(close);
        // It is no longer up at Ultravox, whatever becomes of the transfer.
        out.push(Act::AgentDone { stream, joined: true });
        self.drive(now, Happened::CallerAgentLeft, out);
    }

    /// It ends here: when the operator has agreed already, the transfer goes on without it.
    fn lose_operator(&mut self, now: Now, why: &'static str, out: &mut Vec<Act>) {
        self.end_operator(now, out);
        self.drive(now, Happened::AgentLost(Failure::NoAgent(why)), out);
    }

    /// The target's agent is not needed any more, or is the caller's again.
    pub(super) fn dismiss_agent(&mut self, now: Now, briefing: Briefing, out: &mut Vec<Act>) {
        match briefing {
            Briefing::Cold => {}
            Briefing::SecondCall => self.end_operator(now, out),
            Briefing::Stage => self.leave_stage(now, out),
        }
    }

    /// The second agent call ends, however far it is.
    pub(super) fn end_operator(&mut self, now: Now, out: &mut Vec<Act>) {
        let operator = self.transfer.as_mut().and_then(|transfer| transfer.operator.take());
        let Some(operator) = operator else { return };
        let stream = operator.stream;
        self.abort_jobs(JobPurpose::Creation(stream), out);
        if let (Some(joined), Some(record)) = (operator.joined, self.cdr.transfers.last_mut()) {
            record.operator_time = now.at.since(joined);
        }
        if operator.prepares > 0 {
            self.note(now, Lane::Agent, "the operator's agent leaves");
            out.push(Act::Media(MediaCommand::LeaveStream { stream }));
        }
        out.push(Act::AgentDone { stream, joined: operator.joined.is_some() });
    }

    /// Gives up what the shell works on for this.
    pub(super) fn abort_jobs(&mut self, purpose: JobPurpose, out: &mut Vec<Act>) {
        let given_up = self.jobs.extract_if(.., |(_, own)| *own == purpose);
        out.extend(given_up.map(|(job, _)| Act::AbortJob(job)));
    }
}

/// The body of the operator's agent call: it speaks as the caller's does, and first, since the operator
/// expects to hear why the telephone rang.
fn operator_call(
    request: &CreateCall,
    speech: &Map<String, Value>,
    (template, context): (Option<&str>, &str),
) -> Value {
    let mut body = create_call::body(request);
    if let Value::Object(members) = &mut body {
        members.extend(speech.clone());
        members.insert("systemPrompt".into(), tool::operator_prompt(template, context).into());
        members.insert("selectedTools".into(), tool::operator_tools().into());
        members.insert("firstSpeakerSettings".into(), json!({ "agent": {} }));
    }
    body
}
