//! The jobs of a call's set-up, from a call's wish to a command and from an answer back to the call:
//! the fallback handler, the agent, the turn, the creation of the agent call.

use super::creations::{Claim, Turn, Verdict};
use super::{Command, Switchboard};
use crate::call::leg::JobPurpose;
use crate::call::sound::SoundFault;
use crate::fallback::{FallbackDecision, FallbackFault, Post, Question};
use crate::ground::{CallKey, Instant, JobId, Now};
use crate::media::plan::Sound;
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::{CreateFault, Created};
use crate::ultravox::stage::Stage;
use std::sync::Arc;
use std::time::Duration;

impl Switchboard {
    /// Asks the handler that is configured now; it may have gone since the INVITE came.
    pub(super) fn ask_fallback(
        &mut self,
        now: Now,
        key: CallKey,
        question: &Question,
        budget: Duration,
    ) {
        let Some(handler) = self.config.fallback_handler() else {
            return self.step(now, key, |call, out| call.on_no_handler(now, out));
        };
        let post = Box::new(Post::new(handler, question, now.wall));
        self.counters.fallback_asked += 1;
        let job = self.begin_job(key, JobPurpose::SetUp);
        self.out.push_back(Command::AskFallback { call: key, job, post, budget });
    }

    pub(super) fn on_fallback_decided(
        &mut self,
        now: Now,
        job: JobId,
        decided: Result<FallbackDecision, FallbackFault>,
    ) {
        let Some((key, _)) = self.job_done(job) else { return };
        self.counters.fallback_failed += u64::from(decided.is_err());
        self.step(now, key, |call, out| call.on_fallback_decided(now, decided, out));
    }

    /// Gives the agent that is remembered, or reads it.
    pub(super) fn fetch_agent(&mut self, now: Now, key: CallKey, agent_id: String, again: bool) {
        let remembered = self.agents.fresh(now.at, &agent_id).filter(|_| !again);
        match remembered {
            Some(agent) => {
                self.step(now, key, |call, out| call.on_agent_fetched(now, Ok(agent), true, out));
            }
            None => {
                let job = self.begin_job(key, JobPurpose::SetUp);
                self.out.push_back(Command::FetchAgent { call: key, job, agent_id });
            }
        }
    }

    pub(super) fn on_agent_fetched(
        &mut self,
        now: Now,
        job: JobId,
        result: Result<Agent, CreateFault>,
    ) {
        let Some((key, _)) = self.job_done(job) else { return };
        let agent_id = self.calls.get(&key).and_then(|call| call.agent_id.clone());
        let Some(agent_id) = agent_id else { return };
        let fetched = result.map(Arc::new);
        match &fetched {
            Ok(agent) => self.agents.keep(now.at, &agent_id, Arc::clone(agent)),
            Err(_) => self.agents.forget(&agent_id),
        }
        self.step(now, key, |call, out| call.on_agent_fetched(now, fetched, false, out));
    }

    pub(super) fn ask_turn(&mut self, now: Now, claim: Claim, until: Instant) {
        let Claim { key, stream } = claim;
        match self.creations.ask(now.at, claim, until) {
            Verdict::Go => self.step(now, key, |call, out| call.on_stream_turn(now, stream, out)),
            Verdict::Wait => self.step(now, key, |call, _| call.on_turn_delayed(now)),
            Verdict::TooLate(wait) => self.step(now, key, |call, out| {
                call.on_stream_turn_too_late(now, stream, wait, out);
            }),
        }
    }

    /// Lets everybody go whose turn has come, and turns away who cannot wait any more.
    pub(super) fn give_turns(&mut self, now: Now) {
        while let Some(turn) = self.creations.poll(now.at) {
            match turn {
                Turn::Go(Claim { key, stream }) => {
                    self.step(now, key, |call, out| call.on_stream_turn(now, stream, out));
                }
                Turn::TooLate(Claim { key, stream }, wait) => self.step(now, key, |call, out| {
                    call.on_stream_turn_too_late(now, stream, wait, out);
                }),
            }
        }
    }

    /// The stage of the caller's agent was read, or could not be.
    pub(super) fn on_stage_fetched(
        &mut self,
        now: Now,
        job: JobId,
        result: Result<Stage, CreateFault>,
    ) {
        let Some((key, _)) = self.job_done(job) else { return };
        self.step(now, key, |call, out| call.on_stage_fetched(now, result, out));
    }

    /// Hold music came, or did not.
    pub(super) fn on_sound_fetched(
        &mut self,
        now: Now,
        job: JobId,
        result: Result<Arc<Sound>, SoundFault>,
    ) {
        let Some((key, _)) = self.job_done(job) else { return };
        self.step(now, key, |call, out| call.on_sound_fetched(now, result, out));
    }

    pub(super) fn on_agent_call(
        &mut self,
        now: Now,
        job: JobId,
        result: Result<Created, CreateFault>,
    ) {
        let Some((key, purpose)) = self.job_done(job) else { return };
        let JobPurpose::Creation(stream) = purpose else { return };
        self.creations.answered(now.at, Claim { key, stream }, result.as_ref().err().copied());
        if let (Err(CreateFault::NotFound), Some(call)) = (&result, self.calls.get(&key))
            && let Some(agent_id) = &call.agent_id
        {
            self.agents.forget(agent_id);
        }
        self.step(now, key, |call, out| call.on_stream_call(now, stream, result, out));
    }
}
