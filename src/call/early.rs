//! Early dialogs of a leg that we dial (RFC 3261 §12.1.2, RFC 3264, RFC 6337 §3.1). Each fork of our
//! INVITE may describe media of its own before one of them answers; all of them answer the one offer.
//! The fork that described itself last is the one whose plan is in force, if any is: a proxy that
//! goes from one phone to the next has given up the first. Whichever answers, its own description counts.

use super::leg::Leg;
use crate::ground::limits::FORKS_MAX;
use crate::media::plan::LegPlan;
use crate::sdp::OfferAnswer;
use crate::sip::ua::Body;
use bytes::Bytes;
use std::net::IpAddr;

/// A provisional answer above 100 to an INVITE of ours.
#[derive(Clone, Debug)]
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
}

impl Leg {
    /// A fork described its media. Gives its plan when that is news and no later fork has described
    /// itself; a description that cannot be used is none.
    pub(super) fn hear_fork(&mut self, said: &Provisional) -> Option<LegPlan> {
        let (_, answer) = said.body.as_ref()?;
        let (offer_answer, plan) = self.read_answer(answer, said.source)?;
        let known = self.early.iter().position(|early| early.fork == said.fork);
        let early = EarlyDialog { fork: said.fork.clone(), offer_answer, plan: plan.clone() };
        match known {
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
            (Some((_, answer)), _) => self.read_answer(answer, source)?,
            (None, Some(early)) => (early.offer_answer, early.plan),
            (None, None) => return None,
        };
        self.offer_answer = offer_answer;
        Some(LegPlan { signalling_source: source, ..plan })
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
