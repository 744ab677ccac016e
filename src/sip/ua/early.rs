//! Requests of the callee before it has answered an INVITE of ours (RFC 3311 §5, RFC 6337 §3.1), each in
//! the early dialog of its fork.
//!
//! | UPDATE of the callee | gets |
//! |---|---|
//! | without a description | 200: it refreshes, and no call needs to see it |
//! | an offer, our own has no reliable answer there yet | 491 |
//! | an offer, another one of that fork is not answered | 500 with Retry-After |
//! | an offer else | the call's answer |
//!
//! An INVITE of the peer's has the other roles: no provisional answer of ours describes media, so until
//! our 2xx its offer has no answer, and an UPDATE with another one gets 500 (see `inside`).

use super::errand::{ErrandId, Fork, Phase};
use super::event::RequestToken;
use super::reply::{Part, push_answer};
use super::{SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::{Flow, Now};
use crate::sip::dialog::Sequence;
use crate::sip::msg::{Method, Request};
use crate::sip::status::{StatusLine, judge};
use crate::sip::transaction::ServerKey;
use bytes::Bytes;

impl UserAgent {
    /// A request in none of the dialogs that are up. What is refused here keeps no state: copies are
    /// answered alike.
    pub(super) fn on_request_early(
        &mut self,
        now: Now,
        (flow, key): (Flow, ServerKey),
        request: Request,
        out: &mut Vec<UaOutput>,
    ) {
        let session = request.to().tag().and_then(|tag| self.dialogs.get(tag)).copied();
        let dial = session.and_then(|session| Some((session, self.errands.dial(session)?)));
        let dial = dial.filter(|(_, id)| {
            let errand = self.errands.get(*id);
            errand.is_some_and(|errand| errand.draft.call_id == request.call_id())
        });
        let Some(dial) = dial else {
            return self.refuse_statelessly((&request, &flow), &StatusLine::of(481), &[], out);
        };
        match request.method() {
            Method::Update if request.body().is_empty() => {
                self.grant_early((&request, &flow), Part::Contact, out);
            }
            Method::Update => self.on_early_offer(now, dial, (flow, key), request, out),
            Method::Info | Method::Options => {
                self.grant_early((&request, &flow), Part::Plain, out);
            }
            _ => self.refuse_statelessly((&request, &flow), &StatusLine::of(481), &[], out),
        }
    }

    fn grant_early(
        &mut self,
        (request, flow): (&Request, &Flow),
        part: Part,
        out: &mut Vec<UaOutput>,
    ) {
        let tag = request.to().tag().unwrap_or_default().to_owned();
        let builder = self.answer_to((request, flow), &StatusLine::of(200), &tag, part, &[]);
        let bytes = self.seal(builder);
        push_answer(*flow, bytes, out);
    }

    fn on_early_offer(
        &mut self,
        now: Now,
        (session, id): (SessionId, ErrandId),
        (flow, key): (Flow, ServerKey),
        request: Request,
        out: &mut Vec<UaOutput>,
    ) {
        let tag = request.from().tag().unwrap_or_default().to_owned();
        let is_calling = self.errands.get(id).and_then(|errand| errand.phase().cloned());
        let refusal = match self.fork(id, &tag) {
            _ if is_calling != Some(Phase::Calling) => Some(481),
            Some(fork) if !fork.is_settled => Some(491),
            Some(fork) if fork.dialog.sequence_of(&request) != Sequence::Higher => Some(500),
            Some(fork) if fork.reoffer.is_some() => {
                let wait = self.retry_after();
                let headers = [("Retry-After", wait.as_str())];
                let later = StatusLine::of(500);
                return self.refuse_statelessly((&request, &flow), &later, &headers, out);
            }
            Some(_) => None,
            None => Some(491),
        };
        if let Some(code) = refusal {
            return self.refuse_statelessly((&request, &flow), &StatusLine::of(code), &[], out);
        }
        if let Err(refusal) = judge(&request, &self.config.abilities) {
            let headers: Vec<(&str, &str)> =
                refusal.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            return self.refuse_statelessly((&request, &flow), &refusal.status, &headers, out);
        }
        if !self.has_room(&flow) {
            return self.shed(&request, &flow, out);
        }
        if let Some(fork) = self.fork(id, &tag) {
            // The call lives on a flow only when it is answered.
            fork.dialog.note(&request, flow);
        }
        self.surface_early_offer(now, (session, id, tag), (flow, key), request, out);
    }

    fn surface_early_offer(
        &mut self,
        now: Now,
        (session, id, tag): (SessionId, ErrandId, String),
        arrival: (Flow, ServerKey),
        request: Request,
        out: &mut Vec<UaOutput>,
    ) {
        let body = super::dialling::body_of(&request);
        let token = self.receive_inside(now, session, arrival, request, out).token;
        if let Some(fork) = self.fork(id, &tag) {
            fork.reoffer = Some(token);
        }
        let (method, fork) = (Method::Update, Some(tag));
        out.push(UaOutput::Event(UaEvent::Reoffered { session, fork, token, method, body }));
    }

    fn fork(&mut self, id: ErrandId, tag: &str) -> Option<&mut Fork> {
        self.errands.get_mut(id)?.dial_mut()?.forks.get_mut(tag)
    }

    /// The early dialog in which this offer waits for its answer.
    pub(super) fn early_offer(
        &mut self,
        session: SessionId,
        token: RequestToken,
    ) -> Option<&mut Fork> {
        let id = self.errands.dial(session)?;
        let dial = self.errands.get_mut(id)?.dial_mut()?;
        dial.forks.values_mut().find(|fork| fork.reoffer == Some(token))
    }

    /// An offer in an early dialog has its answer: a 2xx with this description, or a refusal.
    pub(super) fn close_early_offer(
        &mut self,
        session: SessionId,
        token: RequestToken,
        agreed: Option<(&Request, Option<Bytes>)>,
    ) {
        let Some(fork) = self.early_offer(session, token) else { return };
        fork.reoffer = None;
        if let Some((request, description)) = agreed {
            fork.dialog.refresh_target(request);
            fork.description = description.or(fork.description.take());
        }
    }

    /// The early dialogs of a dial are over, but for the one that was answered: 487 to what they asked.
    pub(super) fn end_early_offers(&mut self, now: Now, id: ErrandId, out: &mut Vec<UaOutput>) {
        let Some(dial) = self.errands.get_mut(id).and_then(|errand| errand.dial_mut()) else {
            return;
        };
        let open: Vec<_> = dial.forks.values_mut().filter_map(|fork| fork.reoffer.take()).collect();
        for token in open {
            self.end(now, token, 487, &[], out);
        }
    }
}
