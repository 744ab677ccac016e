//! When the agent is lost and the caller is not: its stream broke, or was closed as none should be.
//! Ultravox resumes no stream, but makes a new call that goes on where an earlier one was
//! (`priorCallId`). The caller hears a short prompt meanwhile; the tools of the lost call carry over.
//!
//! ```text
//! Waiting ──turn──▶ Creating ──201──▶ Preparing ──▶ Ready ──prompt played──▶ Joining ──101──▶ on
//!    │                │ one retry; without the greeting when it was refused             │
//!    └────────────────┴──── given up: too late, too often, refused ─────────────────────┘
//!                            to the fail-over target, else BYE with Reason
//! ```

use super::ladder::Lane;
use super::leg::JobPurpose;
use super::sound::Music;
use super::{Act, Call};
use crate::billing::{AgentLoss, LossEnd};
use crate::ground::{Instant, Now, limits};
use crate::media::plan::{AgentClose, MediaCommand, Port, Scene};
use crate::refusal::EndCause;
use crate::ultravox::CallId;
use crate::ultravox::create_call::{self, CreateCall, CreateFault, Created};
use serde_json::json;
use std::time::Duration;

/// The least time that a creation and the joining of its stream are worth beginning in.
const RESERVE: Duration = Duration::from_secs(2);
/// What the agent is told of the interruption.
const GREETING: &str = "The telephone connection was interrupted for a few seconds. Apologize for it \
                        in one short sentence and go on where the conversation was.";

/// The way to the next agent call.
#[derive(Debug)]
pub struct Lost {
    /// How the stream ended, for the record.
    close: Option<u16>,
    until: Instant,
    stage: Stage,
    /// The caller has heard the prompt.
    is_played: bool,
    greets: bool,
    retried: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// For the turn to create a call.
    Waiting,
    Creating,
    Preparing,
    /// The stream could be joined.
    Ready,
    Joining,
}

impl Lost {
    /// When it is given up.
    pub fn poll_timeout(&self) -> Instant {
        self.until
    }
}

impl Call {
    /// The agent left, and what it said has been played. An end that no agent meant is not the
    /// caller's.
    pub fn on_agent_left(&mut self, now: Now, close: AgentClose, out: &mut Vec<Act>) {
        let code = match close {
            AgentClose::Code(1000) => return self.finish(now, EndCause::AgentHungUp, out),
            AgentClose::Code(code) => Some(code),
            AgentClose::Lost => None,
        };
        self.cdr.agent_losses.push(AgentLoss { lost_at: now.wall, close: code, then: None });
        match self.may_continue() {
            true => self.continue_call(now, code, out),
            false => self.do_without_agent(now, code, out),
        }
    }

    fn may_continue(&self) -> bool {
        let settings = &self.settings.hands.lost;
        let is_left = self.cdr.continued_as.len() < usize::from(settings.attempts_max);
        settings.continues && is_left && self.is_answered() && self.lost.is_none()
    }

    fn continue_call(&mut self, now: Now, close: Option<u16>, out: &mut Vec<Act>) {
        let cause = EndCause::AgentLost(close).words(self.settings.refusals);
        self.note(now, Lane::Agent, format!("{cause}; another agent call goes on"));
        let until = now.at + self.settings.hands.lost.within;
        let prompt = self.settings.hands.sounds.lost.clone();
        self.lost = Some(Box::new(Lost {
            close,
            until,
            stage: Stage::Waiting,
            is_played: prompt.is_none(),
            greets: true,
            retried: false,
        }));
        let scene = Scene::new().hearing(Port::Leg(self.first.id), Port::Sound);
        out.push(Act::Media(MediaCommand::Arrange { scene }));
        // Music that is still being fetched would take the prompt's place.
        self.music = Music::Off;
        if let Some(sound) = prompt {
            out.push(Act::Media(MediaCommand::Play { sound: Some(sound) }));
        }
        out.push(Act::Record);
        // The lost call is no longer up at Ultravox.
        out.push(Act::AgentDone { stream: self.agent, joined: true });
        self.agent = self.next_stream();
        let until = now.at + self.settings.hands.lost.within.saturating_sub(RESERVE);
        out.push(Act::AskTurn { stream: self.agent, until });
    }

    /// The turn is there.
    pub(super) fn create_continuation(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(lost) = &mut self.lost else { return };
        if lost.stage != Stage::Waiting {
            return;
        }
        lost.stage = Stage::Creating;
        let budget = lost.until.since(now.at).min(limits::CREATE_CALL);
        let greeting = lost.greets.then(|| json!({"agent": {"prompt": GREETING}}));
        let last = self.cdr.continued_as.last().or(self.cdr.ultravox_call_id.as_ref());
        let Some(prior) = last.and_then(|id| CallId::parse(id)) else {
            return self.give_up_agent(now, out);
        };
        let request = CreateCall { first_speaker_settings: greeting, ..self.creation_request() };
        let body = create_call::body(&request);
        self.note(now, Lane::Agent, "create call that goes on  edge → Ultravox");
        let (stream, prior) = (self.agent, Some(prior));
        out.push(Act::CreateAgentCall { stream, agent_id: None, prior, body, budget });
    }

    /// Ultravox answered the creation of the call that goes on.
    pub(super) fn on_continuation(
        &mut self,
        now: Now,
        answer: Result<Created, CreateFault>,
        out: &mut Vec<Act>,
    ) {
        let Some(lost) = &mut self.lost else { return };
        if lost.stage != Stage::Creating {
            return;
        }
        let fault = match answer {
            Ok(created) => return self.prepare_continuation(now, created, out),
            Err(fault) => fault,
        };
        // A greeting is not stated to go with a prior call: it is left out when both are refused.
        let ungreeted = fault == CreateFault::BadRequest && std::mem::take(&mut lost.greets);
        let again = fault.is_transient() && !std::mem::replace(&mut lost.retried, true);
        lost.stage = Stage::Waiting;
        let until = lost.until;
        self.note(now, Lane::Agent, fault.to_string());
        match ungreeted || again {
            true => out.push(Act::AskTurn { stream: self.agent, until }),
            false => self.give_up_agent(now, out),
        }
    }

    fn prepare_continuation(&mut self, now: Now, created: Created, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "201 Created  Ultravox → edge");
        self.cdr.continued_as.push(created.call_id.to_string());
        if let Some(lost) = &mut self.lost {
            lost.stage = Stage::Preparing;
        }
        out.push(Act::Record);
        out.push(Act::Media(MediaCommand::Prepare {
            stream: self.agent,
            join_url: created.join_url,
        }));
    }

    /// The new stream could be joined.
    pub(super) fn on_continuation_prepared(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(lost) = &mut self.lost else { return };
        if lost.stage == Stage::Preparing {
            lost.stage = Stage::Ready;
            self.join_continuation(now, out);
        }
    }

    /// The prompt has been played to its end.
    pub fn on_prompt_played(&mut self, now: Now, out: &mut Vec<Act>) {
        if let Some(lost) = &mut self.lost {
            lost.is_played = true;
            self.join_continuation(now, out);
        }
    }

    /// The agent greets at once when it is joined: not into the prompt.
    fn join_continuation(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(lost) = &mut self.lost else { return };
        if lost.stage != Stage::Ready || !lost.is_played {
            return;
        }
        lost.stage = Stage::Joining;
        self.note(now, Lane::Agent, "stream ready; upgrade  edge → Ultravox");
        out.push(Act::Media(MediaCommand::Join { stream: self.agent }));
    }

    /// 101 came: the caller has an agent again.
    pub(super) fn on_continuation_joined(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.lost.take_if(|lost| lost.stage == Stage::Joining).is_none() {
            return;
        }
        self.note(now, Lane::Agent, "101 Switching Protocols  Ultravox → edge");
        self.agent_joined = Some(now.at);
        self.cdr.left_at = None;
        let (caller, agent) = (Port::Leg(self.first.id), Port::Agent(self.agent));
        out.push(Act::Media(MediaCommand::Arrange { scene: Scene::new().talking(caller, agent) }));
        out.push(Act::Media(MediaCommand::Play { sound: None }));
        self.release_keys(now);
        self.settle_loss(LossEnd::Recalled, out);
        out.push(Act::Record);
    }

    /// The new stream could not be had: one more try would find the same.
    pub(super) fn on_continuation_failed(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Agent, "the new stream cannot be joined");
        self.give_up_agent(now, out);
    }

    /// The time for another agent is over.
    pub(super) fn on_lost_due(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.lost.as_ref().is_some_and(|lost| lost.until <= now.at) {
            self.note(now, Lane::Edge, "no other agent in time");
            self.give_up_agent(now, out);
        }
    }

    /// No agent can be had for this caller.
    pub(super) fn give_up_agent(&mut self, now: Now, out: &mut Vec<Act>) {
        let close = self.lost.take().and_then(|lost| lost.close);
        self.abort_jobs(JobPurpose::Creation(self.agent), out);
        out.push(Act::Media(MediaCommand::LeaveStream { stream: self.agent }));
        out.push(Act::AgentDone { stream: self.agent, joined: false });
        self.do_without_agent(now, close, out);
    }

    /// The caller goes to the fail-over target, or the call ends.
    fn do_without_agent(&mut self, now: Now, close: Option<u16>, out: &mut Vec<Act>) {
        match self.settings.hands.lost.failover.clone() {
            Some(target) => {
                self.begin_failover(now, &target, out);
                if self.transfer.is_some() {
                    self.settle_loss(LossEnd::FailedOver, out);
                }
            }
            None => self.finish(now, EndCause::AgentLost(close), out),
        }
    }
}
