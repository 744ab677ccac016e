//! Calls of our own (RFC 3261 §9.1, §13.2, §15; RFC 6026): INVITE, its forks, CANCEL. The first 2xx
//! that comes while the call is wanted wins; every other one, of another fork, of a try that was
//! abandoned, or after CANCEL, is acknowledged and ended with BYE here. An ACK goes out again for
//! every copy of its 2xx.
//!
//! ```text
//! Calling ── 1xx ─▶ Progress…
//!    │ ├──── 2xx ─▶ Answered: a session like any other
//!    │ └ 3xx–6xx ─▶ Refused (after challenges and other hops)
//!    └─ cancel ──▶ Cancelling ─ 1xx: CANCEL ─ final answer or 64 × T1 ─▶ Closed
//! ```

use super::draft::{Attempt, Draft, OutgoingRequest};
use super::errand::{Answer, Dial, ErrandId, Phase, Purpose, Step};
use super::event::{Body, DialFault};
use super::outcome::Ending;
use super::table::{ClientMachine, ClientRecord};
use super::{ByeOutcome, Gone, SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::{Flow, Now};
use crate::sip::destination::Destination;
use crate::sip::dialog::Dialog;
use crate::sip::msg::{Headers, Method, Name, Response};
use crate::sip::session::InviteSession;
use crate::sip::session_timer::SessionTimer;
use crate::sip::target::Hop;
use crate::sip::transaction::{Client, ClientKey, Effect};
use std::collections::BTreeMap;
use std::time::Duration;

impl UserAgent {
    /// Calls someone. The session is told of by [`UaEvent::Progress`], and in the end by
    /// [`UaEvent::Answered`], [`UaEvent::Refused`] or [`UaEvent::DialFailed`].
    pub fn dial(
        &mut self,
        now: Now,
        request: OutgoingRequest,
        out: &mut Vec<UaOutput>,
    ) -> SessionId {
        debug_assert!(request.method == Method::Invite, "only an INVITE is dialled");
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let tag = request.from_tag.clone().unwrap_or_else(|| self.entropy.token(128));
        self.dialogs.insert(tag.clone(), session);
        let (phase, forks) = (Phase::Calling, BTreeMap::new());
        let dial = Dial { session, local_tag: tag.clone(), phase, forks };
        self.begin_outside(now, Purpose::Dial(dial), request, &tag, out);
        session
    }

    /// Gives up a call of ours that was not answered yet. The end is told by [`UaEvent::Closed`]; a
    /// 2xx that crosses is acknowledged and ended here. `reason` is a whole Reason value (RFC 3326).
    ///
    /// # Errors
    /// [`Gone`] when the call has its final answer, or was cancelled before.
    pub fn cancel(
        &mut self,
        now: Now,
        session: SessionId,
        reason: Option<&str>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let id = self.errands.dial(session).ok_or(Gone)?;
        let errand = self.errands.get_mut(id).ok_or(Gone)?;
        let step = errand.step.clone();
        let dial = errand.dial_mut().ok_or(Gone)?;
        if dial.phase != Phase::Calling {
            return Err(Gone);
        }
        dial.phase = Phase::Cancelling { reason: reason.map(String::from) };
        errand.deadline = None;
        match step {
            Step::Trying { number } => self.cancel_attempt(now, id, number, out),
            Step::Locating { ticket } | Step::Connecting { ticket, .. } => {
                self.errands.redeem(ticket);
                if let Some(errand) = self.errands.get_mut(id) {
                    errand.step = Step::Over;
                }
                self.end_dial(now, id, Ending::Unsent, out);
            }
            Step::Describing { .. } => {
                if let Some(errand) = self.errands.get_mut(id) {
                    errand.step = Step::Over;
                }
                self.end_dial(now, id, Ending::Unsent, out);
            }
            Step::Over => {}
        }
        self.settle_errand(id);
        Ok(())
    }

    /// Gives the body of an INVITE for the way that [`UaEvent::WayFound`] told; with `None` it does not
    /// go that way, and the next one is tried.
    ///
    /// # Errors
    /// [`Gone`] when nothing was asked.
    pub fn describe(
        &mut self,
        now: Now,
        session: SessionId,
        body: Body,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let id = self.errands.dial(session).ok_or(Gone)?;
        let errand = self.errands.get_mut(id).ok_or(Gone)?;
        let Step::Describing { flow, to, hop } = errand.step.clone() else { return Err(Gone) };
        if body.is_none() {
            self.advance(now, id, DialFault::NoBody, out);
            return Ok(());
        }
        errand.draft.body = body;
        errand.described = Some(flow);
        self.begin_attempt(now, id, (flow, to), hop, out);
        Ok(())
    }

    /// Asks for the body of an INVITE that depends on its way, unless it was made for this one.
    pub(super) fn asks_for_body(
        &mut self,
        id: ErrandId,
        (flow, to): (Flow, &Destination),
        hop: Option<&Hop>,
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(errand) = self.errands.get_mut(id) else { return false };
        let Some(session) = errand.dial().map(|dial| dial.session) else { return false };
        if !errand.draft.body_by_way || errand.described == Some(flow) {
            return false;
        }
        errand.step = Step::Describing { flow, to: to.clone(), hop: hop.cloned() };
        self.settle_errand(id);
        out.push(UaOutput::Event(UaEvent::WayFound { session, flow }));
        true
    }

    /// A response to an INVITE of ours, in or after its transaction's life.
    pub(super) fn on_invite_response(
        &mut self,
        now: Now,
        (id, number): (ErrandId, u64),
        flow: Flow,
        response: Response,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        let Some(attempt) = errand.attempt_mut(number).cloned() else { return };
        let ack = match response.code() {
            300.. => Some(errand.draft.ack_of(&attempt, &response)),
            _ => None,
        };
        let ack = ack.map(|ack| self.seal(ack)).unwrap_or_default();
        let mut passed_up = false;
        self.on_client(now, number, out, |client, effects| {
            let ClientMachine::Invite(invite) = client else { return };
            match response.code() {
                ..200 => invite.handle_provisional(effects),
                200..300 => invite.handle_success(now.at, effects),
                300.. => invite.handle_failure(now.at, ack, effects),
            }
            passed_up = effects.contains(&Effect::PassUp);
        });
        let is_dialled = self.errands.get(id).is_some_and(|errand| errand.dial().is_some());
        if passed_up && !is_dialled {
            self.on_reoffer_response(now, id, attempt, (flow, response), out);
        } else if passed_up {
            match response.code() {
                ..200 => self.on_provisional(now, id, &attempt, (flow, &response), out),
                200..300 => self.on_success(now, id, &attempt, (flow, response), out),
                300.. => self.on_failure(now, id, attempt, (flow, response), out),
            }
        }
        self.settle_errand(id);
    }

    fn on_provisional(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        (flow, response): (Flow, &Response),
        out: &mut Vec<UaOutput>,
    ) {
        self.note_answered(now, attempt, response.code());
        let Some(errand) = self.errands.get_mut(id) else { return };
        if let Some(attempt) = errand.attempt_mut(attempt.number) {
            attempt.heard = true;
        }
        let is_current = errand.is_current(attempt.number);
        if is_current {
            errand.deadline = None;
        }
        let Some(dial) = errand.dial() else { return };
        let session = dial.session;
        if !is_current || dial.phase != Phase::Calling {
            // An abandoned try that rings after all, or a call that nobody wants any more.
            return self.cancel_attempt(now, id, attempt.number, out);
        }
        let is_news = self.take_provisional(now, id, attempt, (flow, response), out);
        if is_news && response.code() > 100 {
            out.push(UaOutput::Event(UaEvent::Progress {
                session,
                flow,
                fork: fork_of(response),
                code: response.code(),
                reason: response.reason().to_owned(),
                body: body_of(response),
            }));
        }
    }

    /// A 2xx: the one that wins, a copy, or one that nobody waits for.
    fn on_success(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        (flow, response): (Flow, Response),
        out: &mut Vec<UaOutput>,
    ) {
        self.note_answered(now, attempt, response.code());
        let Some(errand) = self.errands.get_mut(id) else { return };
        let is_current = errand.is_current(attempt.number);
        if let Some(client) = errand.credentials.as_mut().filter(|_| is_current) {
            client.accepted(&response);
        }
        let request_uri = errand.draft.request_uri.clone();
        let credentials = errand.credentials.clone();
        let own_contact = errand.draft.own_contact.clone();
        let description = errand.draft.body.as_ref().map(|(_, description)| description.clone());
        let Some(dial) = errand.dial_mut() else { return };
        let (session, phase) = (dial.session, dial.phase.clone());
        let fork = dial.forks.remove(response.to().tag().unwrap_or_default());
        if self.repeat_ack(id, &response, out) {
            return;
        }
        let mut dialog = Dialog::calling(&response, flow, &request_uri);
        let (mut reoffer, mut described) = (None, None);
        if let Some(fork) = fork {
            dialog.follow(&fork.dialog);
            (reoffer, described) = (fork.reoffer, fork.description);
        }
        self.send_ack(now, id, &dialog, attempt.repeated(), None, out);
        if is_current && phase == Phase::Calling {
            let body = body_of(&response);
            self.end_early_offers(now, id, out);
            self.finish_dial(id);
            let mut state = InviteSession::answered(dialog, credentials);
            state.peer.note(&response);
            state.own_contact = own_contact;
            state.description = described.or(description);
            state.reoffer = reoffer;
            state.timer = SessionTimer::new(self.config.session_interval);
            state.timer.answered(now.at, &response);
            self.sessions.insert(session, Box::new(state));
            self.settle_session(session);
            let fork = fork_of(&response);
            return out.push(UaOutput::Event(UaEvent::Answered { session, flow, fork, body }));
        }
        if let Some(token) = reoffer {
            self.end(now, token, 487, &[], out);
        }
        let cseq = dialog.next_cseq();
        dialog.sent(cseq);
        let draft = Draft::inside(&dialog, Method::Bye, cseq);
        self.begin_inside(now, Purpose::Farewell, draft, &dialog, credentials, out);
        if is_current && phase != Phase::Over {
            self.end_dial(now, id, Ending::Refused(response), out);
        }
    }

    /// A final answer from 300 up; the transaction has sent its ACK.
    fn on_failure(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: Attempt,
        (flow, response): (Flow, Response),
        out: &mut Vec<UaOutput>,
    ) {
        self.note_answered(now, &attempt, response.code());
        let Some(errand) = self.errands.get(id) else { return };
        if !errand.is_current(attempt.number) {
            return;
        }
        let calling = matches!(errand.phase(), Some(Phase::Calling));
        let answer = Answer { response, flow, hop: attempt.hop.clone() };
        if calling {
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
        }
        self.report(now, id, answer, out);
    }

    /// Sends the CANCEL of a try as soon as the RFC allows it, and once.
    pub(super) fn cancel_attempt(
        &mut self,
        now: Now,
        id: ErrandId,
        number: u64,
        out: &mut Vec<UaOutput>,
    ) {
        let may_cancel = match self.transactions.client(number).map(|record| &record.machine) {
            Some(ClientMachine::Invite(invite)) => invite.may_cancel(),
            _ => false,
        };
        let Some(errand) = self.errands.get_mut(id).filter(|_| may_cancel) else { return };
        let reason = match errand.phase() {
            Some(Phase::Cancelling { reason }) => reason.clone(),
            _ => None,
        };
        let Some(attempt) = errand.attempt_mut(number).filter(|attempt| !attempt.cancelled) else {
            return;
        };
        attempt.cancelled = true;
        let attempt = attempt.clone();
        let builder = errand.draft.cancel_of(&attempt, reason.as_deref());
        let bytes = self.seal(builder);
        self.on_client(now, number, out, |client, _| {
            if let ClientMachine::Invite(invite) = client {
                invite.cancelled(now.at);
            }
        });
        let (reliable, timing) = (attempt.flow.transport.is_reliable(), self.config.timing);
        let mut effects = Vec::new();
        let machine =
            ClientMachine::Other(Client::new(now.at, timing, reliable, bytes, &mut effects));
        let key = ClientKey { branch: attempt.branch.into(), method: Method::Cancel };
        let (flow, to) = (attempt.flow, attempt.to);
        let record = ClientRecord { machine, flow, to, errand: None, key };
        let number = self.transactions.insert_client(record);
        self.carry_out_client(now, number, effects, out);
    }

    /// The dial is over without an answer that counts: whoever asked is told.
    pub(super) fn end_dial(
        &mut self,
        now: Now,
        id: ErrandId,
        ending: Ending,
        out: &mut Vec<UaOutput>,
    ) {
        self.end_early_offers(now, id, out);
        let Some(dial) = self.errands.get_mut(id).and_then(|errand| errand.dial_mut()) else {
            return;
        };
        let session = dial.session;
        let cancelled = matches!(dial.phase, Phase::Cancelling { .. });
        self.dialogs.remove(&dial.local_tag.clone());
        self.finish_dial(id);
        let event = match ending {
            Ending::Unsent => UaEvent::Closed { session, outcome: ByeOutcome::Unsent },
            Ending::Refused(response) if cancelled => {
                UaEvent::Closed { session, outcome: ByeOutcome::Answered(response.code()) }
            }
            Ending::Failed(DialFault::TimedOut) if cancelled => {
                UaEvent::Closed { session, outcome: ByeOutcome::TimedOut }
            }
            Ending::Failed(_) if cancelled => {
                UaEvent::Closed { session, outcome: ByeOutcome::FlowLost }
            }
            Ending::Refused(response) => UaEvent::Refused {
                session,
                code: response.code(),
                reason: response.reason().to_owned(),
                contacts: response.contacts().map(|at| at.as_str().to_owned()).collect(),
                retry_after: retry_after(&response),
            },
            Ending::Failed(fault) => UaEvent::DialFailed { session, fault },
        };
        out.push(UaOutput::Event(event));
    }

    /// From here on the dial only clears away what still comes.
    fn finish_dial(&mut self, id: ErrandId) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.step = Step::Over;
        errand.deadline = None;
        if let Some(dial) = errand.dial_mut() {
            dial.phase = Phase::Over;
            let session = dial.session;
            self.errands.end_dial(session);
        }
    }
}

/// Names the early dialog that an answer belongs to (§12.1.2).
fn fork_of(response: &Response) -> String {
    response.to().tag().unwrap_or_default().to_owned()
}

/// The body with its type; SDP when no type is named.
pub(super) fn body_of(message: &Headers) -> Body {
    if message.body().is_empty() {
        return None;
    }
    let content_type = message.content_type().unwrap_or_else(|| "application/sdp".into());
    Some((content_type, message.body_bytes()))
}

/// The seconds of a Retry-After (§20.33).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.get(Name::RetryAfter)?;
    let digits = value.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok().map(|seconds: u32| Duration::from_secs(u64::from(seconds)))
}
