//! How a call gets its agent: the fallback handler decides where no allowance matched, the agent is
//! read, the call's turn comes, and Ultravox creates the agent call. What each may answer, and when
//! it is worth to ask again, is decided here; the caller hears ringing all the while.
//!
//! ```text
//! Deciding ──startAgentCall──▶ Fetching ──▶ Waiting ──turn──▶ Creating ──201──▶ Created
//!     │ startCall ─────────────────────────▶ ▲    ▲ 429, 503 with a short wait │
//!     │ reject, fault: refused               │    └─ one fast retry ───────────┤
//!     ▼                                      └─ read again, when remembered ◀──┘ 400
//! ```

use super::ladder::Lane;
use super::{Act, AgentTrack, Call, State};
use crate::context::{self, Caller};
use crate::fallback::{FallbackDecision, FallbackFault};
use crate::ground::{Instant, Now, limits};
use crate::refusal::{EndCause, Refusal};
use crate::routing::{self, Route};
use crate::sip::msg::Uri;
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::{self, CreateCall, CreateFault, Created};
use crate::ultravox::tool;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Remarks on the tools of an agent that the ladder shows.
const REMARKS_SHOWN: usize = 4;

/// A creation under way: its body, and what was tried.
#[derive(Clone, PartialEq, Debug)]
pub struct Creation {
    body: Value,
    /// The agent as it was remembered; `None` when it was read for this call.
    remembered: Option<Arc<Agent>>,
    retried: bool,
    /// Answers that told of no capacity.
    refusals: u8,
}

/// What the body of a creation is made of.
#[derive(Clone, Debug)]
pub struct Ingredients<'a> {
    /// Rates, buffer and our metadata; its context is not looked at.
    pub request: CreateCall,
    /// The context of the `X-` headers.
    pub context: &'a Map<String, Value>,
    pub caller: &'a Caller,
    /// The agent as it was read; `None` when it could not be, or there is none.
    pub agent: Option<&'a Agent>,
    /// What the fallback handler asked for.
    pub handler: Option<&'a Map<String, Value>>,
    /// An agent takes the call: a call without one has no template to fill.
    pub has_agent: bool,
}

impl Ingredients<'_> {
    /// The body of the creation, with the context that the agent's schema lets through. Without the
    /// schema no automatic value is sent, since a strict agent would refuse the call for it.
    pub fn body(self) -> Value {
        let mut request = self.request;
        request.template_context = Map::new();
        if self.has_agent {
            let theirs = self.handler.and_then(|body| body.get("templateContext")?.as_object());
            let merged = context::merge(self.context, theirs);
            let automatic = self.agent.map(|_| self.caller);
            let schema = self.agent.and_then(|agent| agent.context_schema.as_ref());
            request.template_context = context::template_context(&merged, automatic, schema);
        }
        match self.handler {
            None => create_call::body(&request),
            Some(handler) => {
                let mut handler = handler.clone();
                if self.has_agent {
                    handler.remove("templateContext");
                }
                create_call::body_over(handler, &request)
            }
        }
    }
}

impl Call {
    /// Begins the way to the agent call.
    pub(super) fn find_agent(&mut self, now: Now, out: &mut Vec<Act>) {
        match self.agent_id.clone() {
            Some(agent_id) => self.fetch_agent(agent_id, None, out),
            None => self.ask_fallback(now, out),
        }
    }

    /// Asks the handler, once.
    fn ask_fallback(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(question) = self.question.take() else {
            return self.on_no_handler(now, out);
        };
        self.set_track(AgentTrack::Deciding);
        self.note(now, Lane::Hook, "who takes the call?  edge → handler");
        let budget = self.time_left(now).min(limits::FALLBACK);
        out.push(Act::AskFallback { question, budget });
    }

    /// The handler decided, or did not.
    pub fn on_fallback_decided(
        &mut self,
        now: Now,
        decided: Result<FallbackDecision, FallbackFault>,
        out: &mut Vec<Act>,
    ) {
        let State::SettingUp { agent: AgentTrack::Deciding, .. } = self.state else { return };
        match decided {
            Ok(FallbackDecision::StartAgentCall { agent_id, body }) => {
                self.note(now, Lane::Hook, "startAgentCall  handler → edge");
                self.handler_body = Some(body);
                self.cdr.agent_id = Some(agent_id.to_string());
                self.agent_id = Some(agent_id.to_string());
                self.fetch_agent(agent_id.to_string(), None, out);
            }
            Ok(FallbackDecision::StartCall { body }) => {
                self.note(now, Lane::Hook, "startCall  handler → edge");
                self.handler_body = Some(body);
                self.prepare_creation(now, None, None, out);
            }
            Ok(FallbackDecision::Reject { code, message }) => {
                self.note(now, Lane::Hook, format!("reject {code}  handler → edge"));
                // For the record alone: it reaches neither the wire nor the ladder.
                self.cdr.end_reason = message;
                self.finish(now, EndCause::Refused(Refusal::Rejected { code }), out);
            }
            Err(fault) => {
                self.note(now, Lane::Hook, fault.to_string());
                self.finish(now, EndCause::Refused(Refusal::Fallback(fault)), out);
            }
        }
    }

    pub(super) fn fetch_agent(
        &mut self,
        agent_id: String,
        doubted: Option<Arc<Agent>>,
        out: &mut Vec<Act>,
    ) {
        let again = doubted.is_some();
        self.set_track(AgentTrack::Fetching { doubted });
        out.push(Act::FetchAgent { agent_id, again });
    }

    /// The agent was read, or could not be; `is_remembered` when it was read for an earlier call.
    pub fn on_agent_fetched(
        &mut self,
        now: Now,
        fetched: Result<Arc<Agent>, CreateFault>,
        is_remembered: bool,
        out: &mut Vec<Act>,
    ) {
        let State::SettingUp { agent: AgentTrack::Fetching { doubted }, .. } = &mut self.state
        else {
            return;
        };
        if let Some(outgoing) = &mut self.outgoing {
            // Ultravox itself tells the client of an agent that is not there.
            outgoing.agent = fetched.ok();
            return self.ask_turn(now, out);
        }
        let refused = Refusal::AgentCall(CreateFault::BadRequest);
        match (fetched, doubted.take()) {
            (Ok(agent), Some(doubted)) if is_the_same(&agent, &doubted) => {
                self.finish(now, EndCause::Refused(refused), out);
            }
            (Ok(agent), _) => {
                let remembered = is_remembered.then(|| Arc::clone(&agent));
                self.prepare_creation(now, Some(&agent), remembered, out);
            }
            (Err(CreateFault::NotFound), _) => self.on_no_such_agent(now, out),
            (Err(_), Some(_)) => self.finish(now, EndCause::Refused(refused), out),
            (Err(CreateFault::Unauthorized), None) => {
                let cause = Refusal::AgentCall(CreateFault::Unauthorized);
                self.finish(now, EndCause::Refused(cause), out);
            }
            // The creation will tell what is wrong, if it still is.
            (Err(_), None) => {
                self.note(now, Lane::Agent, "agent not read; automatic context left out");
                self.prepare_creation(now, None, None, out);
            }
        }
    }

    /// An implicit rule that matched a name that is no agent of the account was no match: the
    /// handler is asked, where there is one.
    fn on_no_such_agent(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "404  no such agent");
        match &self.route {
            Route::Implicit { .. } => {
                if self.question.is_some() {
                    self.route = Route::Fallback;
                    self.cdr.routed_by = Some(self.route.to_string());
                    (self.agent_id, self.cdr.agent_id) = (None, None);
                }
                self.ask_fallback(now, out);
            }
            Route::Allowance { .. } | Route::Fallback | Route::None => {
                let refusal = Refusal::AgentCall(CreateFault::NotFound);
                self.finish(now, EndCause::Refused(refusal), out);
            }
        }
    }

    /// Nothing matched, and there is no handler, or none any more.
    pub fn on_no_handler(&mut self, now: Now, out: &mut Vec<Act>) {
        let to = Uri::parse(&self.cdr.to_uri).ok();
        let to_user = to.as_ref().and_then(routing::to_user);
        let to_user = to_user.map(|user| user.into_owned()).unwrap_or_default();
        self.finish(now, EndCause::Refused(Refusal::NoMatch { to_user }), out);
    }

    /// Makes the body and asks for the turn.
    fn prepare_creation(
        &mut self,
        now: Now,
        agent: Option<&Agent>,
        remembered: Option<Arc<Agent>>,
        out: &mut Vec<Act>,
    ) {
        let body = Ingredients {
            request: self.creation_request(),
            context: &self.context,
            caller: &self.caller,
            agent,
            handler: self.handler_body.as_ref(),
            has_agent: self.agent_id.is_some(),
        };
        let mut body = body.body();
        self.arrange_tools(now, agent, &mut body);
        let creation = Creation { body, remembered, retried: false, refusals: 0 };
        self.creation = Some(Box::new(creation));
        self.ask_turn(now, out);
    }

    /// Puts the telephone tools into the body of a creation; `agent` when it could be read.
    pub(super) fn arrange_tools(&mut self, now: Now, agent: Option<&Agent>, body: &mut Value) {
        let Value::Object(body) = body else { return };
        let given = &self.settings.hands.tools;
        let arranged = match self.agent_id {
            Some(_) => {
                let tools = agent.map(|agent| agent.tools.as_slice());
                tool::arrange_overrides(tools, given, body)
            }
            None => tool::arrange_selected(given, body),
        };
        for remark in arranged.remarks.iter().take(REMARKS_SHOWN) {
            self.note(now, Lane::Agent, remark.as_str());
        }
        self.tools.offered = arranged.offered;
    }

    pub(super) fn ask_turn(&mut self, now: Now, out: &mut Vec<Act>) {
        self.set_track(AgentTrack::Waiting);
        let (stream, until) = (self.agent, self.turn_until(now));
        out.push(Act::AskTurn { stream, until });
    }

    /// The last moment at which a creation is still of use.
    fn turn_until(&self, now: Now) -> Instant {
        now.at + self.time_left(now).saturating_sub(limits::CREATION_RESERVE)
    }

    /// The turn is not there yet: the caller keeps ringing.
    pub fn on_turn_delayed(&mut self, now: Now) {
        self.note(now, Lane::Edge, "waits for its turn to create the agent call");
    }

    /// The turn will not come in time.
    pub fn on_turn_too_late(&mut self, now: Now, retry_after: Duration, out: &mut Vec<Act>) {
        if self.lost.is_some() {
            return self.give_up_agent(now, out);
        }
        let State::SettingUp { agent: AgentTrack::Waiting, .. } = self.state else { return };
        self.finish(now, EndCause::Refused(Refusal::NoTurn { retry_after }), out);
    }

    /// The turn is there.
    pub fn on_turn(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.lost.is_some() {
            return self.create_continuation(now, out);
        }
        let State::SettingUp { agent: AgentTrack::Waiting, .. } = self.state else { return };
        if self.outgoing.is_some() {
            return self.create_outgoing(now, out);
        }
        let Some(creation) = &self.creation else { return };
        let body = creation.body.clone();
        let budget = self.time_left(now).min(limits::CREATE_CALL);
        self.set_track(AgentTrack::Creating);
        self.note(now, Lane::Agent, "create call  edge → Ultravox");
        let (stream, agent_id) = (self.agent, self.agent_id.clone());
        out.push(Act::CreateAgentCall { stream, agent_id, prior: None, body, budget });
    }

    /// How far ahead the agent may push: what the playout queue surely holds, at most 30 s.
    fn client_buffer_ms(&self) -> u32 {
        match &self.first.plan {
            Some(leg) => self.rates.client_buffer_ms(&[leg.codec.kind]),
            None => self.rates.client_buffer_ms(&self.settings.codecs),
        }
    }

    /// What every creation for this call has: rates, buffer, our metadata.
    pub(super) fn creation_request(&self) -> CreateCall {
        CreateCall {
            input_hz: self.rates.input_hz,
            output_hz: self.rates.output_hz,
            client_buffer_ms: self.client_buffer_ms(),
            metadata: self.metadata(),
            ..CreateCall::default()
        }
    }

    fn metadata(&self) -> Vec<(String, String)> {
        vec![
            ("edge.call".to_owned(), self.key.to_string()),
            ("edge.sip_call_id".to_owned(), self.cdr.sip_call_id.clone()),
        ]
    }

    /// Ultravox answered, or did not.
    pub fn on_agent_call(
        &mut self,
        now: Now,
        answer: Result<Created, CreateFault>,
        out: &mut Vec<Act>,
    ) {
        if self.lost.is_some() {
            return self.on_continuation(now, answer, out);
        }
        let State::SettingUp { agent: AgentTrack::Creating, .. } = self.state else { return };
        let fault = match answer {
            Ok(created) => return self.on_agent_call_created(now, created, out),
            Err(fault) => fault,
        };
        match fault {
            CreateFault::TooMany { retry_after } | CreateFault::Unavailable { retry_after } => {
                self.on_no_capacity(now, fault, retry_after, out);
            }
            CreateFault::BadRequest => self.on_bad_request(now, out),
            CreateFault::NotFound => self.on_no_such_agent(now, out),
            fault if fault.is_transient() && self.may_retry() => {
                self.note(now, Lane::Agent, format!("{fault}; one retry"));
                self.ask_turn(now, out);
            }
            fault => {
                self.note(now, Lane::Agent, fault.to_string());
                self.finish(now, EndCause::Refused(Refusal::AgentCall(fault)), out);
            }
        }
    }

    /// True once.
    fn may_retry(&mut self) -> bool {
        self.creation
            .as_mut()
            .is_some_and(|creation| !std::mem::replace(&mut creation.retried, true))
    }

    /// The caller keeps ringing when the wait that Ultravox asks for leaves time for the rest.
    fn on_no_capacity(
        &mut self,
        now: Now,
        fault: CreateFault,
        retry_after: Option<Duration>,
        out: &mut Vec<Act>,
    ) {
        let pause = retry_after.unwrap_or(limits::CREATION_PAUSE);
        let fits = now.at + pause <= self.turn_until(now);
        let refusals = self.creation.as_mut().map_or(u8::MAX, |creation| {
            creation.refusals = creation.refusals.saturating_add(1);
            creation.refusals
        });
        if fits && refusals < limits::CREATION_REFUSALS_MAX {
            self.note(now, Lane::Agent, format!("{fault}; again in {} s", pause.as_secs()));
            return self.ask_turn(now, out);
        }
        self.note(now, Lane::Agent, fault.to_string());
        self.finish(now, EndCause::Refused(Refusal::AgentCall(fault)), out);
    }

    /// What is remembered of the agent may be out of date: it is read again, once.
    fn on_bad_request(&mut self, now: Now, out: &mut Vec<Act>) {
        let fault = CreateFault::BadRequest;
        let remembered = self.creation.as_mut().and_then(|creation| creation.remembered.take());
        match (remembered, self.agent_id.clone()) {
            (Some(doubted), Some(agent_id)) => {
                self.note(now, Lane::Agent, format!("{fault}; the agent is read again"));
                self.fetch_agent(agent_id, Some(doubted), out);
            }
            _ => {
                self.note(now, Lane::Agent, fault.to_string());
                self.finish(now, EndCause::Refused(Refusal::AgentCall(fault)), out);
            }
        }
    }

    fn on_agent_call_created(&mut self, now: Now, created: Created, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "201 Created  Ultravox → edge");
        self.creation = None;
        self.speech = create_call::speech(&created.call);
        self.cdr.ultravox_call_id = Some(created.call_id.to_string());
        self.set_track(AgentTrack::Created { join_url: created.join_url });
        self.advance(now, out);
    }

    fn set_track(&mut self, track: AgentTrack) {
        if let State::SettingUp { agent, .. } = &mut self.state {
            *agent = track;
        }
    }

    fn time_left(&self, now: Now) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.since(now.at))
    }
}

/// Nothing that a creation depends on has changed.
fn is_the_same(agent: &Agent, remembered: &Agent) -> bool {
    agent.published_revision_id == remembered.published_revision_id
        && agent.context_schema == remembered.context_schema
        && agent.tools == remembered.tools
}
