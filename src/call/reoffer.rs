//! A re-INVITE or UPDATE in a running call (RFC 3261 §14, RFC 3311): refresh, hold, resume, a
//! moved media address. The new plan is in force when the shard says so, and only then is the
//! request answered; one is outstanding at a time. A refused one leaves all as it was (RFC 6141).

use super::ladder::Lane;
use super::{Act, Call, State};
use crate::codec::CodecKind;
use crate::ground::Now;
use crate::media::plan::LegPlan;
use crate::refusal::{EndCause, Refusal};
use crate::sdp::{LocalMedia, OfferFault};
use crate::sip::msg::Method;
use crate::sip::ua::RequestToken;
use bytes::Bytes;

/// A re-offer whose plan the shard has not acknowledged yet.
#[derive(Debug)]
pub struct Pending {
    pub token: RequestToken,
    pub revision: u32,
    pub description: String,
}

impl Call {
    /// The media that we offer or answer with; `codecs` in preference order.
    pub fn local_media(&self, codecs: Vec<CodecKind>) -> LocalMedia {
        LocalMedia {
            address: self.first.media_address.advertise,
            port: self.first.port.0,
            ptime_ms: self.settings.ptime_ms,
            codecs,
            telephone_event: true,
            opus_fec: true,
        }
    }

    /// Every codec, best first: the one in use, since a hold is no reason to change it; those that
    /// work at the rates of the agent's stream; the rest, which are resampled.
    fn codecs_for_reoffer(&self) -> Vec<CodecKind> {
        let current = self.first.plan.map(|leg| leg.codec.kind);
        let mut codecs = self.settings.codecs.clone();
        codecs.sort_by_key(|kind| (Some(*kind) != current, !self.rates.suit(*kind)));
        codecs
    }

    /// A re-INVITE or UPDATE came in a confirmed dialog.
    pub fn on_reoffered(
        &mut self,
        now: Now,
        token: RequestToken,
        method: Method,
        body: Option<(String, Bytes)>,
        out: &mut Vec<Act>,
    ) {
        let State::Answered { .. } = self.state else {
            return out.push(Act::RejectReoffer {
                token,
                answer: Refusal::Bug.answer(self.settings.refusals),
            });
        };
        self.note(now, Lane::Sip, format!("{}  {} → edge", method.as_str(), self.far_end()));
        match body {
            Some((_, offer)) => self.on_offer(now, token, &offer, out),
            None if method == Method::Invite => self.offer_again(now, token, out),
            None => {
                self.note(now, Lane::Sip, format!("200 OK  edge → {}", self.far_end()));
                out.push(Act::AnswerReoffer { token, description: None });
            }
        }
    }

    fn on_offer(&mut self, now: Now, token: RequestToken, offer: &Bytes, out: &mut Vec<Act>) {
        let local = self.local_media(self.codecs_for_reoffer());
        match self.first.offer_answer.answer(offer, &local) {
            Ok(answered) => {
                let leg = self.leg_plan(&answered.agreed);
                self.apply(now, token, leg, answered.text, out);
            }
            Err(fault) => self.reject(now, token, fault, out),
        }
    }

    fn reject(&mut self, now: Now, token: RequestToken, fault: OfferFault, out: &mut Vec<Act>) {
        let answer = Refusal::Offer(fault).answer(self.settings.refusals);
        self.note(now, Lane::Sip, format!("{}  edge → {}", answer.status.code, self.far_end()));
        out.push(Act::RejectReoffer { token, answer });
    }

    /// Answers at once when nothing changed; else when the shard has the new plan.
    fn apply(
        &mut self,
        now: Now,
        token: RequestToken,
        leg: LegPlan,
        description: String,
        out: &mut Vec<Act>,
    ) {
        if self.first.plan == Some(leg) {
            self.note(now, Lane::Sip, format!("200 OK  edge → {}", self.far_end()));
            return out.push(Act::AnswerReoffer { token, description: Some(description) });
        }
        self.note(now, Lane::Media, direction_words(&leg));
        self.take_leg(leg, out);
        self.first.pending_reoffer =
            Some(Pending { token, revision: self.first.revision, description });
    }

    /// A re-INVITE without a body: our description goes out as an offer, the answer is in the ACK.
    fn offer_again(&mut self, now: Now, token: RequestToken, out: &mut Vec<Act>) {
        let local = self.local_media(self.codecs_for_reoffer());
        let description = self.first.offer_answer.offer(&local);
        self.note(now, Lane::Sip, format!("200 OK with our offer  edge → {}", self.far_end()));
        out.push(Act::AnswerReoffer { token, description: Some(description) });
    }

    /// The ACK of a re-INVITE's 200, with the answer to our offer when we made one.
    pub fn on_reoffer_acked(
        &mut self,
        now: Now,
        body: Option<(String, Bytes)>,
        out: &mut Vec<Act>,
    ) {
        let (State::Answered { .. }, true) = (&self.state, self.first.offer_answer.awaits_answer())
        else {
            return;
        };
        let agreed =
            body.and_then(|(_, answer)| self.first.offer_answer.accept_answer(&answer).ok());
        match agreed {
            Some(agreed) => {
                let leg = self.leg_plan(&agreed);
                if self.first.plan != Some(leg) {
                    self.take_leg(leg, out);
                }
            }
            None => self.finish(now, EndCause::BadAnswer, out),
        }
    }

    /// The shard runs by the new plan: now the caller gets its answer.
    pub fn on_media_changed(&mut self, now: Now, revision: u32, out: &mut Vec<Act>) {
        let Some(pending) =
            self.first.pending_reoffer.take_if(|pending| pending.revision == revision)
        else {
            return;
        };
        self.note(now, Lane::Sip, format!("200 OK  edge → {}", self.far_end()));
        out.push(Act::AnswerReoffer {
            token: pending.token,
            description: Some(pending.description),
        });
    }
}

fn direction_words(leg: &LegPlan) -> &'static str {
    match (leg.direction.receives(), leg.direction.sends()) {
        (true, true) => "media both ways",
        (true, false) => "hold: the caller only sends",
        (false, true) => "hold: the caller only listens",
        (false, false) => "hold: no media either way",
    }
}
