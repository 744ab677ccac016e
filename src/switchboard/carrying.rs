//! From a call's wish to the user agent, the shell and the shard: each [`Act`] in its place. A step of
//! a call runs here, with its skeleton in hand.

use super::creations::Claim;
use super::{Command, Owner, SDP, Skeleton, Switchboard};
use crate::call::leg::{Closing, JobPurpose};
use crate::call::{Act, Call};
use crate::ground::{CallKey, JobId, Now};
use crate::refusal::{Answer, EndCause, Refusal};
use crate::sdp::DescriptionText;
use crate::sip::status::StatusLine;
use crate::sip::ua::{Gone, SessionId, UaOutput};

impl Skeleton {
    /// What would be needed to end this call.
    fn of(call: &Call) -> Skeleton {
        let second = call.second.as_deref().map(|second| &second.leg);
        let second = second.map(|leg| (leg.session, Some(leg.port)));
        let closing = call.closing.iter();
        let closing = closing.map(|one| (one.session, one.port.map(|(_, port)| port)));
        Skeleton {
            key: call.key,
            session: call.first.session,
            port: Some(call.first.port),
            others: second.into_iter().chain(closing).collect(),
            cdr: None,
        }
    }
}

impl Switchboard {
    /// One step of one call: what happened, then what it asks for. The skeleton is kept in hand
    /// for the case that the step panics.
    pub(super) fn step(
        &mut self,
        now: Now,
        key: CallKey,
        act: impl FnOnce(&mut Call, &mut Vec<Act>),
    ) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let before = self.in_hand.replace(Skeleton::of(call));
        let mut acts = Vec::new();
        act(call, &mut acts);
        self.timers.set(Owner::Call(key), call.poll_timeout());
        self.carry_out(now, key, acts);
        self.in_hand = before;
    }

    fn carry_out(&mut self, now: Now, key: CallKey, acts: Vec<Act>) {
        for act in acts {
            let Some(call) = self.calls.get_mut(&key) else { return };
            let session = call.first.session;
            match act {
                Act::Ring => self.tell(now, |ua, out| ua.ring(now, session, 180, out)),
                Act::Accept { description } => self.accept(now, key, session, &description),
                Act::Refuse(answer) => self.refuse(now, key, session, &answer),
                Act::Bye { session, reason } => self.bye(now, key, session, reason),
                Act::AnswerReoffer { token, description } => {
                    let body = description.as_ref().map(|text| (SDP, text.as_bytes()));
                    self.tell(now, |ua, out| ua.answer(now, token, body, out));
                }
                Act::RejectReoffer { token, answer } => {
                    let warning = self.warning(&answer);
                    let retry_after = answer.retry_after_s.map(|seconds| seconds.to_string());
                    let mut headers = vec![("Warning", warning.as_str())];
                    if let Some(seconds) = &retry_after {
                        headers.push(("Retry-After", seconds.as_str()));
                    }
                    self.tell(now, |ua, out| ua.reject(now, token, &answer.status, &headers, out));
                }
                Act::AskFallback { question, budget } => {
                    self.ask_fallback(now, key, &question, budget);
                }
                Act::FetchAgent { agent_id, again } => {
                    self.fetch_agent(now, key, agent_id, again);
                }
                Act::AskTurn { stream, until } => self.ask_turn(now, Claim { key, stream }, until),
                Act::AgentDone { stream, joined } => {
                    self.creations.ended(now.at, Claim { key, stream }, joined);
                }
                Act::CreateOutgoing { agent_id, query, body, budget } => {
                    let job = self.begin_job(key, JobPurpose::SetUp);
                    let create =
                        Command::CreateOutgoing { call: key, job, agent_id, query, body, budget };
                    self.out.push_back(create);
                }
                Act::AnswerDial { asked, result } => self.answer_dial(asked, *result),
                Act::Dial => self.dial(now, key),
                Act::Cancel { session, reason } => self.cancel(now, key, session, reason),
                Act::CreateAgentCall { stream, agent_id, prior, body, budget } => {
                    let job = self.begin_job(key, JobPurpose::Creation(stream));
                    self.out.push_back(Command::CreateAgentCall {
                        call: key,
                        job,
                        agent_id,
                        prior,
                        body,
                        budget,
                    });
                }
                Act::FetchStage { call_id } => {
                    let job = self.begin_job(key, JobPurpose::Stage);
                    self.out.push_back(Command::FetchStage { call: key, job, call_id });
                }
                Act::FetchSound { url, budget } => {
                    let job = self.begin_job(key, JobPurpose::Sound);
                    self.out.push_back(Command::FetchSound { call: key, job, url, budget });
                }
                Act::AbortJob(job) => {
                    self.jobs.remove(&job);
                    self.out.push_back(Command::AbortJob(job));
                }
                Act::Media(command) => self.media(key, command),
                Act::Record => {
                    let (cdr, ladder) = (Box::new(call.cdr.clone()), call.ladder.clone());
                    self.out.push_back(Command::Record { cdr, ladder });
                }
                Act::Tell(deed) => self.out.push_back(Command::Tell { call: key, deed }),
                Act::KeepEarlyMedia(early) => {
                    self.out.push_back(Command::KeepEarlyMedia { call: key, early });
                }
                Act::AskLeg(errand) => self.give_leg(now, key, *errand),
                Act::DialSecond => self.dial_second(now, key),
                Act::Refer(wish) => self.refer(now, key, &wish),
                Act::Respond { token, status } => {
                    self.tell(now, |ua, out| ua.respond(now, token, &status, &[], None, out));
                }
                Act::NotifyReferral { notified, code } => self.notify_referral(now, notified, code),
                Act::Release(closing) => self.release(now, &closing),
                Act::AnotherPort => self.another_port(now, key),
                Act::Gone => self.forget(now, key),
            }
        }
    }

    fn accept(
        &mut self,
        now: Now,
        key: CallKey,
        session: SessionId,
        description: &DescriptionText,
    ) {
        self.counters.answered += 1;
        let mut outputs = Vec::new();
        let body = Some((SDP, description.as_bytes()));
        let accepted = self.ua.accept(now, session, &[], body, &mut outputs);
        self.take_ua_outputs(now, outputs);
        if accepted.is_err() {
            self.step(now, key, |call, out| call.finish(now, EndCause::CallerCancelled, out));
        }
    }

    /// Our BYE; a session that is gone already has nothing more to tell.
    fn bye(&mut self, now: Now, key: CallKey, session: SessionId, reason: Option<&str>) {
        let mut outputs = Vec::new();
        let gone = self.ua.bye(now, session, reason, &mut outputs).is_err();
        self.take_ua_outputs(now, outputs);
        if gone {
            self.step(now, key, |call, out| call.on_dialog_closed(session, out));
        }
    }

    fn refuse(&mut self, now: Now, key: CallKey, session: SessionId, answer: &Answer) {
        self.counters.refused += 1;
        if answer.alarm {
            self.out.push_back(Command::Alarm { call: key, words: answer.detail.clone() });
        }
        self.send_refusal(now, session, answer);
    }

    /// Sends a final refusal with its `Warning` and `Retry-After`.
    pub(super) fn send_refusal(&mut self, now: Now, session: SessionId, answer: &Answer) {
        let warning = self.warning(answer);
        let retry_after = answer.retry_after_s.map(|seconds| seconds.to_string());
        let mut headers = vec![("Warning", warning.as_str())];
        if let Some(seconds) = &retry_after {
            headers.push(("Retry-After", seconds.as_str()));
        }
        if answer.status.code == 415 {
            // What we would take (RFC 3261 §21.4.13).
            headers.push(("Accept", SDP));
        }
        let status: &StatusLine = &answer.status;
        self.tell(now, |ua, out| ua.refuse(now, session, status, &headers, out));
    }

    /// `Warning: 399 host "words"` (RFC 3261 §20.43); the words are quoted safely.
    pub(super) fn warning(&self, answer: &Answer) -> String {
        let clean: String = answer
            .detail
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                _ => vec![c],
            })
            .collect();
        format!("{} {} \"{clean}\"", answer.warn_code, self.settings.warn_agent)
    }

    pub(super) fn begin_job(&mut self, key: CallKey, purpose: JobPurpose) -> JobId {
        self.jobs_begun += 1;
        let job = JobId(self.jobs_begun);
        self.jobs.insert(job, (key, purpose));
        if let Some(call) = self.calls.get_mut(&key) {
            call.jobs.push((job, purpose));
        }
        job
    }

    /// A job was answered: whose it was and what for. `None` when it was given up.
    pub(super) fn job_done(&mut self, job: JobId) -> Option<(CallKey, JobPurpose)> {
        let (key, purpose) = self.jobs.remove(&job)?;
        if let Some(call) = self.calls.get_mut(&key) {
            call.jobs.retain(|(own, _)| *own != job);
        }
        Some((key, purpose))
    }

    /// Nothing is left of a dialog: its entry, its leg's port, its flow's count, its sources.
    fn release(&mut self, now: Now, closing: &Closing) {
        self.by_session.remove(&closing.session);
        if let Some((_, port)) = closing.port {
            self.ports.put_back(now.at, port);
        }
        self.release_flow(closing.flow);
        self.dismiss(&closing.admitted);
    }

    /// The entries of a call that is gone: its sessions, the counts of its flows, its sources.
    pub(super) fn release_call(&mut self, call: &Call) {
        for session in call.sessions() {
            self.by_session.remove(&session);
        }
        let second = call.second.as_deref().map(|second| &second.leg);
        for leg in std::iter::once(&call.first).chain(second) {
            self.release_flow(leg.flow.id);
            self.dismiss(&leg.admitted);
        }
        for closing in &call.closing {
            self.release_flow(closing.flow);
            self.dismiss(&closing.admitted);
        }
    }

    /// Ends a dialog of a call that is not to be trusted any more, whatever its state. True when it
    /// was up.
    pub(super) fn end_broken(
        &mut self,
        now: Now,
        session: SessionId,
        outputs: &mut Vec<UaOutput>,
    ) -> bool {
        self.by_session.remove(&session);
        let reason = EndCause::Bug.reason_header();
        if self.ua.bye(now, session, reason, outputs).is_ok() {
            return true;
        }
        if self.ua.cancel(now, session, reason, outputs).is_err() {
            let status = Refusal::Bug.answer(self.settings.call.refusals).status;
            let _: Result<(), Gone> = self.ua.refuse(now, session, &status, &[], outputs);
        }
        false
    }
}
