//! Requests inside a dialog (RFC 3261 §12.2.2, §13.3.1.4, §14.2, §15.1.2; RFC 3311 §5.2). The guards
//! run in one order: dialog (481), CSeq (500), state. ACK has no answer in any case.

use super::dialling::body_of;
use super::outside::{OptionsAnswer, reason_of};
use super::reply::Extra;
use super::table::{Arrival, ServerMachine};
use super::{ByeOutcome, RequestToken, SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::{Flow, Now};
use crate::sip::dialog::Sequence;
use crate::sip::msg::{Method, Request};
use crate::sip::session::{Acknowledged, InviteSession, Stage};
use crate::sip::session_timer::too_small;
use crate::sip::status::{StatusLine, judge};
use crate::sip::transaction::{Server, ServerKey};
use std::sync::Arc;

/// A request that passed the guards for dialog and CSeq.
pub(super) struct Inside {
    session: SessionId,
    pub(super) token: RequestToken,
    request: Arc<Request>,
}

/// What the state says to a re-INVITE or UPDATE.
enum Verdict {
    Surface,
    /// An UPDATE without a body before the answer: a refresh that no call needs to see.
    Refresh,
    Refuse(StatusLine, Vec<(&'static str, String)>),
}

impl UserAgent {
    pub(super) fn on_request_inside(
        &mut self,
        now: Now,
        flow: Flow,
        request: Request,
        key: ServerKey,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(session) = self.session_of(&request) else {
            return self.on_request_early(now, (flow, key), request, out);
        };
        let is_bye = *request.method() == Method::Bye;
        let sequence = self.sessions.get(&session).map(|state| state.dialog.sequence_of(&request));
        // A BYE that repeats the CSeq of its INVITE is wrong, and means the end all the same.
        let in_order = match sequence {
            Some(Sequence::Higher) => true,
            Some(Sequence::Equal) => is_bye,
            Some(Sequence::Lower) | None => false,
        };
        // A BYE that ends its call always has room: it frees more than it takes.
        let ends_call = is_bye && in_order;
        if !ends_call && !self.has_room(&flow) {
            return self.shed(&request, &flow, out);
        }
        if !in_order {
            // With a transaction: its copies must not find 481 when the session ends in between.
            let inside = self.receive_inside(now, session, (flow, key), request, out);
            return self.end(now, inside.token, 500, &[], out);
        }
        let moved = self.sessions.get_mut(&session).is_some_and(|s| s.dialog.note(&request, flow));
        if moved {
            out.push(UaOutput::Event(UaEvent::Moved { session, flow }));
        }
        let inside = self.receive_inside(now, session, (flow, key), request, out);
        self.on_inside(now, inside, out);
    }

    /// An ACK ends a non-2xx transaction, or the wait of a session for it, or is a copy.
    pub(super) fn on_ack(&mut self, now: Now, flow: Flow, ack: &Request, out: &mut Vec<UaOutput>) {
        let key = ServerKey::of(ack, &flow);
        if let Some(token) = self.transactions.find(&key) {
            let Some(record) = self.transactions.server_mut(token) else { return };
            let tag_fits = !key.is_legacy() || ack.to().tag() == Some(&record.local_tag);
            if let ServerMachine::Invite(machine) = &mut record.machine {
                // Some peers reuse the INVITE's branch for the ACK of a 2xx.
                if !machine.is_accepted() {
                    if tag_fits {
                        machine.handle_ack(now.at);
                        self.transactions.settle(token, &mut self.timers);
                    }
                    return;
                }
            }
        }
        match self.session_of(ack) {
            Some(session) => self.on_session_ack(now, flow, session, ack, out),
            None => self.counters.stray_acks += 1,
        }
    }

    fn on_session_ack(
        &mut self,
        now: Now,
        flow: Flow,
        session: SessionId,
        ack: &Request,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let Some((acknowledged, invite)) = state.handle_ack(ack.cseq().number) else {
            self.counters.stray_acks += 1;
            return;
        };
        if state.dialog.note(ack, flow) {
            out.push(UaOutput::Event(UaEvent::Moved { session, flow }));
        }
        let stage = state.stage.clone();
        self.settle_session(session);
        self.forget_answer(invite);
        let body = body_of(ack);
        match (stage, acknowledged) {
            (Stage::Leaving { reason }, Acknowledged::First) => {
                self.send_bye(now, session, reason.as_deref(), out);
            }
            (Stage::Leaving { .. } | Stage::Left, _) => {}
            (Stage::Early | Stage::Established, Acknowledged::First) => {
                out.push(UaOutput::Event(UaEvent::Confirmed { session, body }));
                self.send_waiting_referral(now, session, out);
            }
            (Stage::Early | Stage::Established, Acknowledged::Reoffer) => {
                out.push(UaOutput::Event(UaEvent::ReoffersAck { session, body }));
            }
        }
    }

    /// Copies of an acknowledged INVITE are absorbed in silence.
    pub(super) fn forget_answer(&mut self, invite: RequestToken) {
        if let Some(record) = self.transactions.server_mut(invite)
            && let ServerMachine::Invite(machine) = &mut record.machine
        {
            machine.handle_success_ack();
        }
        self.transactions.settle(invite, &mut self.timers);
    }

    /// The session whose dialog the request names, with Call-ID and both tags.
    fn session_of(&self, request: &Request) -> Option<SessionId> {
        let session = *self.dialogs.get(request.to().tag()?)?;
        let state = self.sessions.get(&session)?;
        state.dialog.is_for(request).then_some(session)
    }

    pub(super) fn receive_inside(
        &mut self,
        now: Now,
        session: SessionId,
        (flow, key): (Flow, ServerKey),
        request: Request,
        out: &mut Vec<UaOutput>,
    ) -> Inside {
        let local_tag = request.to().tag().unwrap_or_default().to_owned();
        let request = Arc::new(request);
        let arrival = Arrival { request: Arc::clone(&request), flow, key, session, local_tag };
        let token = if *request.method() == Method::Invite {
            self.begin_invite(arrival, out)
        } else {
            let reliable = flow.transport.is_reliable();
            let machine = Server::new(now.at, self.config.timing, reliable);
            let token = self.transactions.insert(arrival, ServerMachine::Other(machine));
            self.transactions.settle(token, &mut self.timers);
            token
        };
        Inside { session, token, request }
    }

    fn on_inside(&mut self, now: Now, inside: Inside, out: &mut Vec<UaOutput>) {
        let Inside { session, token, request } = &inside;
        let stage = self.sessions.get(session).map(|state| state.stage.clone());
        // The notifications of our REFER have a meaning as long as anything of the session is left.
        let mut told = Vec::new();
        if *request.method() == Method::Notify
            && let Some(code) = self.on_notify(now, *session, request, &mut told)
        {
            // First the answer: the BYE that follows the good news must not overtake it.
            self.end(now, *token, code, &[], out);
            return out.append(&mut told);
        }
        let leaving = matches!(stage, Some(Stage::Leaving { .. } | Stage::Left) | None);
        match request.method() {
            Method::Bye => self.on_bye(now, &inside, out),
            // Nothing else has a meaning once we said goodbye.
            _ if leaving => self.end(now, *token, 481, &[], out),
            Method::Invite | Method::Update => self.on_reoffer(now, &inside, out),
            Method::Options => {
                let answer = OptionsAnswer::of(self);
                self.end(now, *token, 200, &answer.headers(), out);
            }
            Method::Prack => self.on_prack(now, *session, (*token, request), out),
            Method::Info | Method::Refer | Method::Notify | Method::Message => {
                let request = request.as_ref().clone();
                let event = UaEvent::InDialog { session: *session, token: *token, request };
                out.push(UaOutput::Event(event));
            }
            Method::Register
            | Method::Subscribe
            | Method::Publish
            | Method::Ack
            | Method::Cancel => self.refuse_method(now, *token, 405, out),
            Method::Other(_) => self.refuse_method(now, *token, 501, out),
        }
    }

    /// §15.1.2: 200 to the BYE, 487 to every INVITE that waits for its answer.
    fn on_bye(&mut self, now: Now, inside: &Inside, out: &mut Vec<UaOutput>) {
        let session = inside.session;
        self.end(now, inside.token, 200, &[], out);
        let reason = reason_of(&inside.request);
        self.end_reoffer(now, session, out);
        self.end_referring(session, out);
        let Some(state) = self.sessions.get(&session) else { return };
        match state.stage {
            Stage::Early => {
                if let Some(invite) = state.invite {
                    self.terminate_invite(now, session, invite, reason, out);
                }
            }
            Stage::Established => {
                self.remove_session(session);
                out.push(UaOutput::Event(UaEvent::Ended { session, reason }));
            }
            Stage::Leaving { .. } | Stage::Left => self.close(session, ByeOutcome::Crossed, out),
        }
    }

    /// 487 to a re-INVITE or UPDATE that the end of the call overtakes.
    pub(super) fn end_reoffer(&mut self, now: Now, session: SessionId, out: &mut Vec<UaOutput>) {
        let open = self.sessions.get_mut(&session).and_then(|state| state.reoffer.take());
        if let Some(token) = open {
            self.end(now, token, 487, &[], out);
        }
    }

    fn on_reoffer(&mut self, now: Now, inside: &Inside, out: &mut Vec<UaOutput>) {
        let Inside { session, token, request } = inside;
        if let Err(refusal) = judge(request, &self.config.abilities) {
            let headers: Vec<(&str, &str)> =
                refusal.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            return self.end(now, *token, refusal.status.code, &headers, out);
        }
        if let Some(min_se_s) = too_small(request) {
            let min_se = min_se_s.to_string();
            return self.end(now, *token, 422, &[("Min-SE", &min_se)], out);
        }
        let wait = self.retry_after();
        let Some(state) = self.sessions.get_mut(session) else { return };
        match verdict(state, request, wait) {
            Verdict::Surface => {
                state.reoffer = Some(*token);
                state.peer.note(request);
                let (method, body) = (request.method().clone(), body_of(request));
                if method == Method::Invite || body.is_some() {
                    self.withdraw_offer(now, *session, out);
                }
                let event = UaEvent::Reoffered {
                    session: *session,
                    fork: None,
                    token: *token,
                    method,
                    body,
                };
                out.push(UaOutput::Event(event));
            }
            Verdict::Refresh => {
                state.dialog.refresh_target(request);
                self.end(now, *token, 200, &[], out);
            }
            Verdict::Refuse(status, headers) => {
                let headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                self.end(now, *token, status.code, &headers, out);
            }
        }
    }

    fn refuse_method(&mut self, now: Now, token: RequestToken, code: u16, out: &mut Vec<UaOutput>) {
        let allow = self.config.abilities.allow();
        self.end(now, token, code, &[("Allow", &allow)], out);
    }

    /// Ends a request of the peer with a status of the RFC.
    pub(super) fn end(
        &mut self,
        now: Now,
        token: RequestToken,
        code: u16,
        headers: Extra<'_>,
        out: &mut Vec<UaOutput>,
    ) {
        self.finish_request(now, token, &StatusLine::of(code), headers, None, out);
    }
}

/// §14.2 and RFC 3311 §5.2: one offer at a time, in each direction.
fn verdict(state: &InviteSession, request: &Request, wait: String) -> Verdict {
    let later = Verdict::Refuse(StatusLine::of(500), vec![("Retry-After", wait)]);
    let invite = *request.method() == Method::Invite;
    let offers = invite || !request.body().is_empty();
    if state.reoffer.is_some() || (invite && state.is_crowded()) {
        return later;
    }
    if state.stage == Stage::Early {
        return if offers { later } else { Verdict::Refresh };
    }
    if offers && state.has_own_offer_open() {
        return Verdict::Refuse(StatusLine::of(491), Vec::new());
    }
    Verdict::Surface
}
