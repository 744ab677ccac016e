//! Early dialogs of a leg that we dial (RFC 3261 §12.1.2, RFC 3264, RFC 6337 §3.1). Each fork of our
//! INVITE may describe media of its own before one of them answers; all of them answer the one offer.
//! The fork that described itself last is the one whose plan is in force, if any is: a proxy that
//! goes from one phone to the next has given up the first. Whichever answers, its own description counts.

use super::ladder::Lane;
use super::leg::Leg;
use super::{Act, Call};
use crate::ground::Now;
use crate::ground::limits::FORKS_MAX;
use crate::media::plan::LegPlan;
use crate::sdp::{DescriptionText, LocalMedia, OfferAnswer, OfferFault};
use crate::sip::ua::{Body, RequestToken, SessionId};
use bytes::Bytes;
use std::net::IpAddr;

impl Call {
    /// An offer by UPDATE in an early dialog of a leg that we dial (RFC 3311 §5.2).
    pub fn on_early_offer(
        &mut self,
        now: Now,
        (session, fork): (SessionId, &str),
        token: RequestToken,
        offer: &Bytes,
        out: &mut Vec<Act>,
    ) {
        let who = self.who(session);
        self.note(now, Lane::Sip, format!("UPDATE  {who} → edge"));
        let Some(local) = self.local_media_again(session) else { return };
        let Some(leg) = self.leg_mut(session) else { return };
        match leg.answer_fork(fork, offer, &local) {
            Ok((description, Some(plan))) => {
                self.apply(now, session, token, (plan, description), out);
                self.hear_updated_target(now, session, out);
            }
            Ok((description, None)) => {
                self.note(now, Lane::Sip, format!("200 OK  edge → {who}"));
                out.push(Act::AnswerReoffer { token, description: Some(description) });
            }
            Err(fault) => self.reject(now, session, token, fault, out),
        }
    }
}

/// A provisional answer above 100 to an INVITE of ours.
#[derive(Clone)]
pub struct Provisional {
    /// Names the early dialog.
    pub fork: String,
    /// Where it came from.
    pub source: IpAddr,
    pub code: u16,
    pub body: Body,
}

/// What one fork agreed to before the answer.
pub struct EarlyDialog {
    fork: String,
    offer_answer: OfferAnswer,
    plan: LegPlan,
    /// It made an offer of its own since, and has our answer: what its further answers to our INVITE
    /// describe is out of date (RFC 6337 §3.1).
    has_offered: bool,
}

impl Leg {
    /// A fork described its media. Gives its plan when that is news and no later fork has described
    /// itself; a description that cannot be used is none.
    pub(super) fn hear_fork(&mut self, said: &Provisional) -> Option<LegPlan> {
        let (_, answer) = said.body.as_ref()?;
        let (offer_answer, plan) = self.read_answer(answer, said.source)?;
        let known = self.early.iter().position(|early| early.fork == said.fork);
        let (fork, has_offered) = (said.fork.clone(), false);
        let early = EarlyDialog { fork, offer_answer, plan: plan.clone(), has_offered };
        match known {
            Some(index) if self.early[index].has_offered => None,
            Some(index) => {
                let is_last = index + 1 == self.early.len();
                let before = std::mem::replace(&mut self.early[index], early);
                (is_last && before.plan != plan).then_some(plan)
            }
            None if self.early.len() >= FORKS_MAX => None,
            None => {
                self.early.push(early);
                Some(plan)
            }
        }
    }

    /// What our offer was answered with: by the 2xx of this fork, or by a provisional answer of its own
    /// before it, where the 2xx has no description.
    ///
    /// `None` when there was no usable answer.
    pub(super) fn take_answer(&mut self, fork: &str, body: &Body) -> Option<LegPlan> {
        let source = self.flow.peer.ip();
        let early = std::mem::take(&mut self.early).into_iter().find(|early| early.fork == fork);
        let (offer_answer, plan) = match (body, early) {
            (body, Some(early)) if early.has_offered || body.is_none() => {
                (early.offer_answer, early.plan)
            }
            (Some((_, answer)), _) => self.read_answer(answer, source)?,
            (None, _) => return None,
        };
        self.offer_answer = offer_answer;
        Some(LegPlan { signalling_source: source, ..plan })
    }

    /// Answers an offer that a fork makes after it has answered ours. Gives the description, and the plan
    /// when that fork's is in force.
    fn answer_fork(
        &mut self,
        fork: &str,
        offer: &[u8],
        local: &LocalMedia,
    ) -> Result<(DescriptionText, Option<LegPlan>), OfferFault> {
        let last = self.early.len();
        let found = self.early.iter().position(|early| early.fork == fork);
        let index = found.ok_or(OfferFault::OfferPending)?;
        let answered = self.early[index].offer_answer.answer(offer, local)?;
        let plan = self.plan_of(&answered.agreed);
        let early = &mut self.early[index];
        let signalling_source = early.plan.signalling_source;
        let plan = LegPlan { signalling_source, ..plan };
        let before = std::mem::replace(&mut early.plan, plan.clone());
        early.has_offered = true;
        let in_force = index + 1 == last && self.plan.as_ref() == Some(&before);
        Ok((answered.text.into(), in_force.then_some(plan)))
    }

    /// The fork that described itself last.
    pub(super) fn heard_fork(&self) -> Option<&String> {
        self.early.last().map(|early| &early.fork)
    }

    /// Our offer goes out to somebody else: what its former forks said does not count any more.
    pub(super) fn forget_forks(&mut self) {
        self.early.clear();
    }

    /// Reads an answer to our offer, which stays open for the other forks.
    fn read_answer(&self, answer: &Bytes, source: IpAddr) -> Option<(OfferAnswer, LegPlan)> {
        let mut offer_answer = self.offer_answer.clone();
        let agreed = offer_answer.accept_answer(answer).ok()?;
        Some((offer_answer, LegPlan { signalling_source: source, ..self.plan_of(&agreed) }))
    }
}
