//! The client side (RFC 3261 §8.1.3): what becomes of the tries of our requests. The next hop is tried
//! on a connect fault, Timer B or F, 503, or silence of an INVITE over UDP; a challenge is answered on
//! the hop that made it. What an INVITE's answers mean is in `dialling` and `reoffering`, who hears of
//! an end is in `outcome`.
//!
//! Credentials go with the request that they were given for and never to another target.

use super::draft::{Attempt, OutgoingRequest, RequestId, UNNUMBERED};
use super::errand::{Answer, ErrandId, Phase, Purpose, Step};
use super::event::DialFault;
use super::table::ClientMachine;
use super::{UaEvent, UaOutput, UserAgent};
use crate::ground::Now;
use crate::sip::msg::{Method, Response};
use crate::sip::target::{ConnectFault, LocateFault};
use crate::sip::transaction::Effect;

impl UserAgent {
    /// Sends a request outside dialogs that is no INVITE. Answered by one [`UaEvent::Responded`] or
    /// [`UaEvent::RequestFailed`].
    pub fn send(
        &mut self,
        now: Now,
        request: OutgoingRequest,
        out: &mut Vec<UaOutput>,
    ) -> RequestId {
        debug_assert!(request.method != Method::Invite, "an INVITE is dialled");
        let id = RequestId(self.errands.next());
        let tag = request.from_tag.clone().unwrap_or_else(|| self.entropy.token(128));
        self.begin_outside(now, Purpose::Send(id), request, &tag, out);
        id
    }

    /// Requests of ours that are under way, those included that only wait for late answers.
    pub fn requests_under_way(&self) -> usize {
        self.errands.len()
    }

    /// A final answer to a request that is no INVITE.
    pub(super) fn on_final(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: Attempt,
        answer: Answer,
        out: &mut Vec<UaOutput>,
    ) {
        self.note_answered(now, &attempt, answer.response.code());
        if !self.errands.get(id).is_some_and(|errand| errand.is_current(attempt.number)) {
            return;
        }
        self.note_dialog_answered(now, id, &attempt, &answer.response, out);
        if self.ask_for_longer(now, id, &attempt, &answer.response, out) {
            return;
        }
        match self.answer_challenge(now, id, &attempt, &answer.response, out) {
            Some(Ok(())) => return,
            Some(Err(fault)) => return self.give_up_for(now, id, fault, answer, out),
            None => {}
        }
        if answer.response.code() == 503 && self.go_elsewhere(now, id, &answer, out) {
            return;
        }
        self.report(now, id, answer, out);
    }

    /// A final answer to a request in a dialog tells where the peer is, and what it can do.
    pub(super) fn note_dialog_answered(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        response: &Response,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get(id) else { return };
        let Some(session) = errand.purpose.session() else { return };
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let refreshes = matches!(errand.draft.method, Method::Invite | Method::Update);
        if refreshes && response.code() < 300 {
            state.dialog.refresh_target(response);
            state.peer.note(response);
            state.timer.answered(now.at, response);
        }
        let is_end = errand.draft.method == Method::Bye;
        if !is_end && state.dialog.settle_on(attempt.flow) {
            out.push(UaOutput::Event(UaEvent::Moved { session, flow: attempt.flow }));
        }
        self.settle_session(session);
    }

    /// 422 (RFC 4028 §7.3): the request again, with the session interval that the peer takes.
    pub(super) fn ask_for_longer(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        response: &Response,
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(errand) = self.errands.get_mut(id) else { return false };
        let Some(asked) = errand.draft.timer.as_mut().filter(|_| response.code() == 422) else {
            return false;
        };
        if errand.raised >= RAISED_MAX || !asked.raise(response) {
            return false;
        }
        errand.raised += 1;
        let (asked, session) = (*asked, errand.purpose.session());
        if let Some(state) = session.and_then(|session| self.sessions.get_mut(&session)) {
            state.timer.note_raised(&asked);
        }
        self.try_again(now, id, attempt, out);
        true
    }

    /// The request again on the hop that wants it otherwise, with the next number. Other requests in
    /// the dialog may have gone out meanwhile.
    fn try_again(&mut self, now: Now, id: ErrandId, attempt: &Attempt, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        let is_inside = match &errand.purpose {
            Purpose::Prack { .. } => true,
            purpose => purpose.session().is_some(),
        };
        errand.draft.cseq = if is_inside { UNNUMBERED } else { errand.draft.cseq + 1 };
        let way = (attempt.flow, attempt.to.clone());
        self.begin_attempt(now, id, way, attempt.hop.clone(), out);
    }

    /// Whether a hop lives, by what it answered.
    pub(super) fn note_answered(&mut self, now: Now, attempt: &Attempt, code: u16) {
        let Some(hop) = &attempt.hop else { return };
        if code == 503 {
            self.errands.dead.note(now.at, hop, self.config.dead_hop_span);
        } else {
            self.errands.dead.forgive(hop);
        }
    }

    /// Answers a 401 or 407 on the hop that sent it. `None` when there is nothing to answer or nobody
    /// to answer it.
    pub(super) fn answer_challenge(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        response: &Response,
        out: &mut Vec<UaOutput>,
    ) -> Option<Result<(), DialFault>> {
        let client = self.errands.get_mut(id)?.credentials.as_mut()?;
        if !matches!(response.code(), 401 | 407) {
            client.accepted(response);
            return None;
        }
        if let Err(fault) = client.challenged(response) {
            return Some(Err(DialFault::Digest(fault)));
        }
        self.try_again(now, id, attempt, out);
        Some(Ok(()))
    }

    /// 503: asks the next hop, if there is one, and keeps the answer for when it has none better.
    pub(super) fn go_elsewhere(
        &mut self,
        now: Now,
        id: ErrandId,
        answer: &Answer,
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(errand) = self.errands.get_mut(id) else { return false };
        if !errand.has_other_ways() {
            return false;
        }
        errand.unavailable = Some(Box::new(answer.clone()));
        self.advance(now, id, DialFault::TimedOut, out);
        true
    }

    /// The transaction of a try timed out or lost its flow.
    pub(super) fn on_attempt_lost(
        &mut self,
        now: Now,
        id: ErrandId,
        number: u64,
        fault: DialFault,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        if !errand.is_current(number) {
            return;
        }
        let Some(attempt) = errand.attempt_mut(number) else { return };
        let (hop, heard, cancelled) = (attempt.hop.clone(), attempt.heard, attempt.cancelled);
        let is_invite = errand.draft.method == Method::Invite;
        let cancelling = cancelled || matches!(errand.phase(), Some(Phase::Cancelling { .. }));
        // What rang once is not rung elsewhere too.
        if (is_invite && heard) || cancelling {
            return self.give_up(now, id, fault, out);
        }
        if let Some(hop) = hop {
            self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
        }
        self.advance(now, id, fault, out);
    }

    /// The present step of a request took too long.
    pub(super) fn on_errand_timeout(&mut self, now: Now, id: ErrandId, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.deadline = None;
        match errand.step.clone() {
            Step::Locating { ticket } => {
                self.errands.redeem(ticket);
                self.advance(now, id, DialFault::NotLocated(LocateFault::Unanswered), out);
            }
            Step::Connecting { ticket, hop } => {
                self.errands.redeem(ticket);
                self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
                self.advance(now, id, DialFault::NotConnected(ConnectFault::Unreachable), out);
            }
            Step::Describing { .. } => self.advance(now, id, DialFault::NoBody, out),
            Step::Trying { number } if errand.dial().is_none() => {
                // A re-INVITE that had a provisional and no answer in time.
                self.cancel_attempt(now, id, number, out);
            }
            Step::Trying { number } => self.abandon(now, id, number, out),
            Step::Over => {}
        }
    }

    /// Nobody answered an INVITE on this hop, and there are others.
    fn abandon(&mut self, now: Now, id: ErrandId, number: u64, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        if !matches!(errand.phase(), Some(Phase::Calling)) {
            return;
        }
        if let Some(hop) = errand.attempt_mut(number).and_then(|attempt| attempt.hop.clone()) {
            self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
        }
        self.on_client(now, number, out, |client, _| {
            if let ClientMachine::Invite(invite) = client {
                invite.abandoned();
            }
        });
        self.advance(now, id, DialFault::TimedOut, out);
    }

    /// Enters the next deadline of a request, and drops it when nothing of it is awaited any more.
    pub(super) fn settle_errand(&mut self, id: ErrandId) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.attempts.retain(|attempt| self.transactions.client(attempt.number).is_some());
        let deadline = errand.deadline;
        let is_done = errand.step == Step::Over && errand.attempts.is_empty();
        self.timers.set(super::Owner::Errand(id), deadline.filter(|_| !is_done));
        if is_done {
            self.errands.remove(id);
        }
    }

    /// Nobody waits for a request that was not sent yet.
    pub(super) fn drop_errand(&mut self, id: ErrandId) {
        if let Some(errand) = self.errands.get_mut(id) {
            errand.step = Step::Over;
            errand.deadline = None;
        }
        self.settle_errand(id);
    }

    /// Lets one of our requests act and carries out what it asks.
    pub(super) fn on_client(
        &mut self,
        now: Now,
        number: u64,
        out: &mut Vec<UaOutput>,
        act: impl FnOnce(&mut ClientMachine, &mut Vec<Effect>),
    ) {
        let Some(record) = self.transactions.client_mut(number) else { return };
        let mut effects = Vec::new();
        act(&mut record.machine, &mut effects);
        self.carry_out_client(now, number, effects, out);
    }

    /// Carries out what one of our requests asks, then drops it when it has ended.
    pub(super) fn carry_out_client(
        &mut self,
        now: Now,
        number: u64,
        effects: Vec<Effect>,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(record) = self.transactions.client_mut(number) else { return };
        let (flow, to, errand) = (record.flow, record.to.clone(), record.errand);
        let mut lost = None;
        for effect in effects {
            match effect {
                Effect::Send(bytes) => out.push(UaOutput::Send { flow, to: to.clone(), bytes }),
                Effect::TimedOut => lost = Some(DialFault::TimedOut),
                Effect::TransportFailed => lost = Some(DialFault::FlowLost),
                Effect::PassUp | Effect::OweTrying => {}
            }
        }
        if let (Some(id), Some(fault)) = (errand, lost) {
            self.on_attempt_lost(now, id, number, fault, out);
        }
        self.transactions.settle_client(number, &mut self.timers);
        if let Some(id) = errand {
            self.settle_errand(id);
        }
    }
}

/// 422s that one request obeys: each proxy on the way may have one.
const RAISED_MAX: u8 = 3;
