//! A re-INVITE or UPDATE in a running call (RFC 3261 §14, RFC 3311): refresh, hold, resume, a
//! moved media address. The new plan is in force when the shard says so, and only then is the
//! request answered; one is outstanding at a time. A refused one leaves all as it was (RFC 6141).

use super::ladder::Lane;
use super::leg::Progress;
use super::{Act, Call};
use crate::codec::CodecKind;
use crate::ground::{LegId, Now};
use crate::media::plan::LegPlan;
use crate::refusal::Refusal;
use crate::sdp::{DescriptionText, LocalMedia, OfferFault};
use crate::sip::msg::Method;
use crate::sip::ua::{Body, RequestToken, SessionId};
use bytes::Bytes;

/// A re-offer whose plan the shard has not acknowledged yet.
#[derive(Debug)]
pub struct Pending {
    pub token: RequestToken,
    pub revision: u32,
    pub description: DescriptionText,
}

impl Call {
    /// Every codec, best first: the one in use, since a hold is no reason to change it; those that
    /// work at the rates of the agent's stream; the rest, which are resampled.
    fn codecs_for_reoffer(&self, current: Option<CodecKind>) -> Vec<CodecKind> {
        let mut codecs = self.settings.codecs.clone();
        codecs.sort_by_key(|kind| (Some(*kind) != current, !self.rates.suit(*kind)));
        codecs
    }

    /// The leg of this session was answered and has not ended.
    pub(super) fn is_leg_up(&self, session: SessionId) -> bool {
        if session == self.first.session {
            return self.is_answered() || (self.is_outgoing_up() && !self.is_ending());
        }
        let second = self.second.as_deref().filter(|second| second.leg.session == session);
        second.is_some_and(|second| second.progress == Progress::Up)
    }

    /// Who is at the other end of this session, for the ladder.
    pub(super) fn who(&self, session: SessionId) -> &'static str {
        if session == self.first.session { self.far_end() } else { "target" }
    }

    /// A re-INVITE or UPDATE came in a dialog: of any leg that is up, whatever the call does just now.
    pub fn on_reoffered(
        &mut self,
        now: Now,
        session: SessionId,
        (token, method): (RequestToken, Method),
        body: Option<(String, Bytes)>,
        out: &mut Vec<Act>,
    ) {
        let who = self.who(session);
        self.note(now, Lane::Sip, format!("{}  {who} → edge", method.as_str()));
        if !self.is_leg_up(session) {
            // An UPDATE before the answer: the INVITE's own offer is not answered yet.
            let answer = Refusal::OfferPending.answer(self.settings.refusals);
            self.note(now, Lane::Sip, format!("{}  edge → {who}", answer.status.code));
            return out.push(Act::RejectReoffer { token, answer });
        }
        match body {
            Some((_, offer)) => self.on_offer(now, session, token, &offer, out),
            None if method == Method::Invite => self.offer_again(now, session, token, out),
            None => {
                self.note(now, Lane::Sip, format!("200 OK  edge → {who}"));
                out.push(Act::AnswerReoffer { token, description: None });
            }
        }
    }

    fn on_offer(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        offer: &Bytes,
        out: &mut Vec<Act>,
    ) {
        let Some(local) = self.local_media_again(session) else { return };
        let Some(leg) = self.leg_mut(session) else { return };
        match leg.offer_answer.answer(offer, &local) {
            Ok(answered) => {
                let plan = leg.plan_of(&answered.agreed);
                self.apply(now, session, token, (plan, answered.text.into()), out);
            }
            Err(fault) => self.reject(now, session, token, fault, out),
        }
    }

    /// What this leg's description says when it is made anew.
    pub(super) fn local_media_again(&self, session: SessionId) -> Option<LocalMedia> {
        let leg = self.leg(session)?;
        let codecs = self.codecs_for_reoffer(leg.plan.as_ref().map(|plan| plan.codec.kind));
        let srtp = self.settings.srtp.terms(leg.flow, leg.target_srtp);
        Some(leg.local_media(codecs, &self.settings, srtp))
    }

    pub(super) fn reject(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        fault: OfferFault,
        out: &mut Vec<Act>,
    ) {
        let answer = Refusal::Offer(fault).answer(self.settings.refusals);
        let who = self.who(session);
        self.note(now, Lane::Sip, format!("{}  edge → {who}", answer.status.code));
        out.push(Act::RejectReoffer { token, answer });
    }

    /// Answers at once when nothing changed; else when the shard has the new plan.
    pub(super) fn apply(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        (plan, description): (LegPlan, DescriptionText),
        out: &mut Vec<Act>,
    ) {
        let who = self.who(session);
        if self.leg(session).is_some_and(|leg| leg.plan.as_ref() == Some(&plan)) {
            self.note(now, Lane::Sip, format!("200 OK  edge → {who}"));
            return out.push(Act::AnswerReoffer { token, description: Some(description) });
        }
        self.note(now, Lane::Media, direction_words(&plan, who));
        self.take_plan(session, plan, out);
        if let Some(leg) = self.leg_mut(session) {
            leg.pending_reoffer = Some(Pending { token, revision: leg.revision, description });
        }
    }

    /// Makes `plan` the one in force for the leg of this session.
    pub(super) fn take_plan(&mut self, session: SessionId, plan: LegPlan, out: &mut Vec<Act>) {
        if session == self.first.session {
            return self.take_leg(plan, out);
        }
        if let Some(leg) = self.leg_mut(session) {
            leg.take_plan(plan, out);
        }
    }

    /// A re-INVITE without a body: our description goes out as an offer, the answer is in the ACK.
    fn offer_again(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        out: &mut Vec<Act>,
    ) {
        let Some(local) = self.local_media_again(session) else { return };
        let who = self.who(session);
        let Some(leg) = self.leg_mut(session) else { return };
        let description = leg.offer_answer.offer(&local).into();
        self.note(now, Lane::Sip, format!("200 OK with our offer  edge → {who}"));
        out.push(Act::AnswerReoffer { token, description: Some(description) });
    }

    /// The ACK of a re-INVITE's 200, with the answer to our offer when we made one.
    pub fn on_reoffer_acked(
        &mut self,
        now: Now,
        session: SessionId,
        body: Option<(String, Bytes)>,
        out: &mut Vec<Act>,
    ) {
        if !self.is_leg_up(session) {
            return;
        }
        let Some(leg) = self.leg_mut(session) else { return };
        if !leg.offer_answer.awaits_answer() {
            return;
        }
        let agreed = body.and_then(|(_, answer)| leg.offer_answer.accept_answer(&answer).ok());
        match agreed.map(|agreed| leg.plan_of(&agreed)) {
            Some(plan) if leg.plan.as_ref() == Some(&plan) => {}
            Some(plan) => self.take_plan(session, plan, out),
            None => self.on_leg_unusable(now, session, out),
        }
    }

    /// The peer answered a description of ours that went out in a re-INVITE of ours: the one that holds,
    /// when the session was refreshed (RFC 4028 §7.4). Its own side may have changed. An answer that
    /// cannot be used changes nothing.
    pub fn on_reoffer_answered(
        &mut self,
        now: Now,
        session: SessionId,
        body: &Body,
        out: &mut Vec<Act>,
    ) {
        let (Some((_, answer)), true) = (body, self.is_leg_up(session)) else { return };
        let who = self.who(session);
        let Some(local) = self.local_media_again(session) else { return };
        let Some(leg) = self.leg_mut(session) else { return };
        let agreed = match leg.offer_answer.awaits_answer() {
            true => leg.offer_answer.accept_answer(answer),
            false => leg.offer_answer.accept_refresh(answer, &local),
        };
        match agreed.map(|agreed| leg.plan_of(&agreed)) {
            Ok(plan) if leg.plan.as_ref() == Some(&plan) => {}
            Ok(plan) => {
                let words = direction_words(&plan, who);
                self.note(now, Lane::Media, format!("the {who} answers anew: {words}"));
                self.take_plan(session, plan, out);
            }
            Err(fault) => {
                let words = format!("answer of the {who} to our re-INVITE not used: {fault}");
                self.note(now, Lane::Media, words);
            }
        }
    }

    /// A re-INVITE of ours was refused: all stays as it was (RFC 6141). Where that ends the session,
    /// its end is told next.
    pub fn on_reoffer_refused(&mut self, now: Now, session: SessionId, code: u16) {
        let who = self.who(session);
        self.note(now, Lane::Sip, format!("{code} to our re-INVITE  {who} → edge"));
        if let Some(leg) = self.leg_mut(session) {
            leg.offer_answer.withdraw();
        }
    }

    /// The shard runs by the new plan: now the peer gets its answer.
    pub fn on_media_changed(&mut self, now: Now, id: LegId, revision: u32, out: &mut Vec<Act>) {
        let Some(leg) = self.leg_named(id) else { return };
        let session = leg.session;
        let Some(pending) = leg.pending_reoffer.take_if(|pending| pending.revision == revision)
        else {
            return;
        };
        let who = self.who(session);
        self.note(now, Lane::Sip, format!("200 OK  edge → {who}"));
        out.push(Act::AnswerReoffer {
            token: pending.token,
            description: Some(pending.description),
        });
    }
}

fn direction_words(plan: &LegPlan, who: &str) -> String {
    match (plan.direction.receives(), plan.direction.sends()) {
        (true, true) => "media both ways".to_owned(),
        (true, false) => format!("hold: the {who} only sends"),
        (false, true) => format!("hold: the {who} only listens"),
        (false, false) => "hold: no media either way".to_owned(),
    }
}
