//! The re-INVITE of ours (RFC 3261 §14.1, RFC 3264 §8, RFC 6141): an offer of ours, or none, which asks
//! the peer for its own. Refusals that do not mean no are answered here: 491 and 500 with Retry-After by
//! another try. A re-INVITE that is refused changes nothing.
//!
//! An offer of the peer's that comes while ours waits for another try takes its place: ours is out of
//! date then, and is told as refused with 491.

use super::dialling::body_of;
use super::draft::Attempt;
use super::errand::{Answer, ErrandId, Purpose, Step};
use super::event::{Busy, Gone};
use super::outcome::Final;
use super::{SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::limits::REOFFER;
use crate::ground::{Flow, Now, Secret};
use crate::sip::dialog::Dialog;
use crate::sip::msg::{Method, Name, Response};
use crate::sip::offering::{Again, Offering, OwedAck, OwnOffer};
use crate::sip::session::Stage;
use bytes::Bytes;
use std::time::Duration;

impl UserAgent {
    /// Offers the peer another description, or asks it for its offer. Answered by one
    /// [`UaEvent::ReofferAnswered`] or [`UaEvent::ReofferRefused`], unless the session ends before.
    ///
    /// # Errors
    /// [`Busy::Gone`] when there is no such session or it is being ended; [`Busy::Open`] before its
    /// answer and while an offer, or an INVITE, is under way in either direction.
    pub fn reoffer(
        &mut self,
        now: Now,
        session: SessionId,
        offer: Option<Bytes>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Busy> {
        let state = self.established(session)?;
        let waiting = match &state.offering {
            Offering::Waiting { offer, .. } => !offer.is_refresh,
            Offering::Idle | Offering::Asked(_) | Offering::Owed { .. } => false,
        };
        if state.is_negotiating() || waiting {
            return Err(Busy::Open);
        }
        self.send_reoffer(now, session, OwnOffer::new(offer, false), out);
        Ok(())
    }

    /// Answers the offer that a 2xx to our re-INVITE without one had: the ACK goes out.
    ///
    /// # Errors
    /// [`Gone`] when no offer of the peer waits for its answer.
    pub fn acknowledge(
        &mut self,
        now: Now,
        session: SessionId,
        answer: Bytes,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let state = self.sessions.get(&session).ok_or(Gone)?;
        match state.offering {
            Offering::Owed { .. } => {}
            Offering::Idle | Offering::Asked(_) | Offering::Waiting { .. } => return Err(Gone),
        }
        let description = answer.clone();
        let answer = Some(("application/sdp".to_owned(), answer));
        if let Some(state) = self.sessions.get_mut(&session) {
            state.description = Some(description);
        }
        if self.pay_ack(now, session, answer, out) { Ok(()) } else { Err(Gone) }
    }

    /// Sends a re-INVITE, the first time or again.
    pub(super) fn send_reoffer(
        &mut self,
        now: Now,
        session: SessionId,
        offer: OwnOffer,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let body = offer.description.clone().map(|text| ("application/sdp".to_owned(), text));
        state.offering = Offering::Asked(offer);
        let dialog = Box::new(state.dialog.clone());
        self.settle_session(session);
        let purpose = Purpose::Reoffer { session, dialog };
        self.ask(now, session, purpose, Method::Invite, (Vec::new(), body), out);
    }

    /// The wait after a glare is over.
    pub(super) fn offer_again(&mut self, now: Now, session: SessionId, out: &mut Vec<UaOutput>) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        if state.is_negotiating() || state.stage != Stage::Established {
            return state.offering.postpone(now.at);
        }
        if let Some(offer) = state.offering.take_waiting() {
            self.send_reoffer(now, session, offer, out);
        }
    }

    /// An offer of the peer's came while ours waited.
    pub(super) fn withdraw_offer(&mut self, now: Now, session: SessionId, out: &mut Vec<UaOutput>) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let dropped = state.offering.take_waiting();
        if dropped.as_ref().is_some_and(|offer| offer.is_refresh) {
            // What the peer asks for refreshes the session too.
            state.timer.postpone(now.at);
        } else if dropped.is_some() {
            let (code, reason) = (491, "Request Pending".to_owned());
            out.push(UaOutput::Event(UaEvent::ReofferRefused { session, code, reason }));
        }
        self.settle_session(session);
    }

    /// A response to our re-INVITE that is news for the transaction's user.
    pub(super) fn on_reoffer_response(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: Attempt,
        (flow, response): (Flow, Response),
        out: &mut Vec<UaOutput>,
    ) {
        match response.code() {
            ..200 => {
                self.note_answered(now, &attempt, response.code());
                self.take_provisional(now, id, &attempt, (flow, &response), out);
                self.on_reoffer_provisional(now, id, &attempt, out);
            }
            200..300 => {
                self.note_answered(now, &attempt, response.code());
                self.on_reoffer_success(now, id, &attempt, &response, out);
            }
            300.. => {
                let hop = attempt.hop.clone();
                self.on_final(now, id, attempt, Answer { response, flow, hop }, out);
            }
        }
    }

    /// The peer thinks. It has a while for that, as long as someone waits for it.
    fn on_reoffer_provisional(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        let is_current = errand.is_current(attempt.number);
        let Some(session) = errand.purpose.session() else { return };
        let Some(attempt) = errand.attempt_mut(attempt.number) else { return };
        let (number, is_first) = (attempt.number, !attempt.heard);
        attempt.heard = true;
        if !is_current || !self.sessions.contains_key(&session) {
            return self.cancel_attempt(now, id, number, out);
        }
        if is_first {
            errand.deadline = Some(now.at + REOFFER);
        }
    }

    fn on_reoffer_success(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        response: &Response,
        out: &mut Vec<UaOutput>,
    ) {
        if self.repeat_ack(id, response, out) {
            return;
        }
        self.note_dialog_answered(now, id, attempt, response, out);
        let Some((session, dialog)) = self.dialog_of_reoffer(id, response) else { return };
        let Some(offer) = self.take_answered(id, session, attempt, response) else {
            // Nobody waits for it any more; an offer in it stays without an answer.
            return self.send_ack(now, id, &dialog, attempt.repeated(), None, out);
        };
        let body = body_of(response);
        if offer.description.is_none() && body.is_some() {
            let tag = dialog.remote_tag().unwrap_or_default().to_owned();
            self.keep_ack(id, &tag, None);
            let (cseq, authorization) = attempt.repeated();
            let authorization = authorization.into_iter();
            let authorization = authorization.map(|(name, value)| (name, Secret::new(value)));
            let ack = OwedAck { invite: id.0, cseq, authorization: authorization.collect() };
            let until = now.at + self.config.timing.life();
            if let Some(state) = self.sessions.get_mut(&session) {
                state.offering = Offering::Owed { ack, until };
            }
        } else {
            self.send_ack(now, id, &dialog, attempt.repeated(), None, out);
        }
        self.settle_session(session);
        out.push(UaOutput::Event(UaEvent::ReofferAnswered { session, body }));
    }

    /// The dialog of a re-INVITE that was answered with 2xx: that of its session, which may have moved
    /// since, or what is left of it.
    fn dialog_of_reoffer(
        &mut self,
        id: ErrandId,
        response: &Response,
    ) -> Option<(SessionId, Dialog)> {
        let errand = self.errands.get_mut(id)?;
        let Purpose::Reoffer { session, dialog } = &mut errand.purpose else { return None };
        match self.sessions.get(session) {
            Some(state) => **dialog = state.dialog.clone(),
            None => dialog.refresh_target(response),
        }
        Some((*session, dialog.as_ref().clone()))
    }

    /// The wish that a 2xx answers; `None` when nobody waits for it any more.
    fn take_answered(
        &mut self,
        id: ErrandId,
        session: SessionId,
        attempt: &Attempt,
        response: &Response,
    ) -> Option<OwnOffer> {
        let errand = self.errands.get_mut(id)?;
        if let Some(client) = &mut errand.credentials {
            client.accepted(response);
        }
        if !errand.is_current(attempt.number) {
            return None;
        }
        errand.step = Step::Over;
        errand.deadline = None;
        let state = self.sessions.get_mut(&session)?;
        if errand.credentials.is_some() {
            state.credentials.clone_from(&errand.credentials);
        }
        let offer = state.offering.take_asked()?;
        if offer.description.is_some() {
            state.description.clone_from(&offer.description);
        }
        Some(offer)
    }

    /// Sends the ACK that an offer of the peer's waits for. False when there is none.
    fn pay_ack(
        &mut self,
        now: Now,
        session: SessionId,
        answer: Option<(String, Bytes)>,
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(state) = self.sessions.get_mut(&session) else { return false };
        let Offering::Owed { ack, .. } = &state.offering else { return false };
        let OwedAck { invite, cseq, authorization } = ack.clone();
        state.offering = Offering::Idle;
        let dialog = state.dialog.clone();
        self.settle_session(session);
        let repeated = authorization.into_iter();
        let repeated = repeated.map(|(name, value)| (name, value.reveal().to_owned())).collect();
        self.send_ack(now, ErrandId(invite), &dialog, (cseq, repeated), answer, out);
        true
    }

    /// The call ends: an ACK that is owed goes out without the answer (§13.2.2.4), and nothing is
    /// offered again.
    pub(super) fn give_up_offering(
        &mut self,
        now: Now,
        session: SessionId,
        out: &mut Vec<UaOutput>,
    ) {
        self.pay_ack(now, session, None, out);
        if let Some(state) = self.sessions.get_mut(&session) {
            state.offering = Offering::Idle;
        }
    }

    /// The final answer of 300 and above to our re-INVITE, or none at all.
    pub(super) fn on_reoffer_refused(
        &mut self,
        now: Now,
        session: SessionId,
        last: Final,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let Some(offer) = state.offering.take_asked() else { return };
        let again = match last.code {
            491 => Some(Again::Glare { is_call_id_ours: state.dialog.is_call_id_ours() }),
            500 => last.response.as_ref().and_then(wait_of).map(Again::After),
            _ => None,
        };
        let given_up = match again {
            Some(again) => state.offering.wait(now.at, offer, again, &mut self.entropy).err(),
            None => Some(offer),
        };
        self.settle_session(session);
        let Some(offer) = given_up else { return };
        let Final { code, reason, .. } = last;
        if offer.is_refresh {
            if let Some(state) = self.sessions.get_mut(&session) {
                state.timer.refresh_failed(now.at);
            }
            self.settle_session(session);
        } else {
            out.push(UaOutput::Event(UaEvent::ReofferRefused { session, code, reason }));
        }
        if matches!(code, 408 | 481) {
            self.end_dead(now, session, code, out);
        }
    }
}

/// Retry-After of a 500 (§14.2).
fn wait_of(response: &Response) -> Option<Duration> {
    let value = response.get(Name::RetryAfter)?;
    let digits = value.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok().map(|seconds: u32| Duration::from_secs(u64::from(seconds)))
}
