//! Somebody else takes the place of a leg's peer (RFC 3891): a colleague who picks a call up, a PBX
//! that completes an attended transfer. The leg keeps its port and its clock; only its dialog changes.

use super::deed::Deed;
use super::ladder::Lane;
use super::leg::Closing;
use super::transfer::{Happened, ReferEnd, ReferFault};
use super::{Act, Call, MediaAddress};
use crate::ground::{Flow, Now, limits};
use crate::media::plan::LegPlan;
use crate::refusal::Refusal;
use crate::sdp::{DescriptionText, LocalMedia, OfferAnswer, OfferFault};
use crate::sip::ua::SessionId;
use bytes::Bytes;

/// A dialog that is to take a leg's place, with what was agreed in it.
#[derive(Debug)]
pub struct Newcomer {
    session: SessionId,
    flow: Flow,
    address: MediaAddress,
    offer_answer: OfferAnswer,
    /// For its 200.
    pub description: DescriptionText,
    /// `None` when our offer goes out in the 200 and the answer comes in the ACK.
    plan: Option<LegPlan>,
}

/// The `Reason` of the BYE to the dialog that was replaced.
const REPLACED: &str = "SIP;cause=200;text=\"Call replaced\"";

impl Call {
    /// Answers the offer of whoever wants the place of this session's peer, or makes one; `address`:
    /// as our media is given out where it comes from.
    ///
    /// # Errors
    /// The leg is not up, too many dialogs of the call are closing, or the offer cannot be used at
    /// the leg's port.
    pub fn receive_newcomer(
        &self,
        replaced: SessionId,
        (session, flow, address): (SessionId, Flow, MediaAddress),
        mut offer_answer: OfferAnswer,
        offer: Option<Bytes>,
    ) -> Result<Newcomer, Refusal> {
        if self.closing.len() >= limits::CLOSING_LEGS_MAX {
            return Err(Refusal::NotReplaced);
        }
        let leg = self.leg(replaced).filter(|_| self.is_leg_up(replaced));
        let leg = leg.ok_or(Refusal::NotReplaced)?;
        let local = self.local_media_again(replaced).ok_or(Refusal::NotReplaced)?;
        let srtp = self.settings.srtp.terms(flow, None);
        let local = LocalMedia { srtp, address: address.advertise, ..local };
        let Some(offer) = offer else {
            local.srtp.may_offer().map_err(Refusal::Offer)?;
            let description = offer_answer.offer(&local).into();
            return Ok(Newcomer { session, flow, address, offer_answer, description, plan: None });
        };
        let answered = offer_answer.answer(&offer, &local).map_err(Refusal::Offer)?;
        let remote = answered.agreed.remote.rtp;
        if remote.is_some_and(|remote| remote.is_ipv4() != leg.media_address.bind.is_ipv4()) {
            return Err(Refusal::Offer(OfferFault::BadAddress));
        }
        let plan = LegPlan { signalling_source: flow.peer.ip(), ..leg.plan_of(&answered.agreed) };
        let description = answered.text.into();
        Ok(Newcomer { session, flow, address, offer_answer, description, plan: Some(plan) })
    }

    /// The newcomer has its 200: the leg is its own, the former peer gets its BYE.
    pub fn take_newcomer(
        &mut self,
        now: Now,
        replaced: SessionId,
        newcomer: Newcomer,
        out: &mut Vec<Act>,
    ) {
        let who = self.who(replaced);
        self.note(now, Lane::Sip, format!("INVITE with Replaces: the {who} is taken over"));
        self.cdr.taken_over += 1;
        out.push(Act::Tell(Deed::Replaces { taken: true }));
        let Newcomer { session, flow, address, offer_answer, description, plan } = newcomer;
        let Some(leg) = self.leg_mut(replaced) else { return };
        leg.session = session;
        leg.offer_answer = offer_answer;
        leg.description = description;
        leg.media_address = address;
        leg.pending_reoffer = None;
        // The former peer's; the newcomer has the policy of its own address.
        leg.target_srtp = None;
        let former = std::mem::replace(&mut leg.flow, flow);
        let admitted = std::mem::take(&mut leg.admitted);
        self.closing.push(Closing {
            session: replaced,
            flow: former.id,
            admitted,
            port: None,
            awaits_dialog: true,
            awaits_media: false,
        });
        if let Some(plan) = plan {
            self.take_plan(session, plan, out);
        }
        self.note(now, Lane::Sip, format!("BYE  edge → former {who}"));
        out.push(Act::Bye { session: replaced, reason: Some(REPLACED) });
        if self.first.session == session {
            // Whatever was asked of the former peer by REFER: nobody answers for it any more.
            let overtaken = ReferEnd::Failed(ReferFault::Replaced);
            self.drive(now, Happened::Refer(overtaken), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_silent, encrypted_offer};
    use super::*;
    use crate::ground::{FlowId, Transport};
    use std::net::SocketAddr;

    #[test]
    fn a_newcomer_never_prints_its_keys() {
        let (offer_answer, text, keys) = encrypted_offer();
        let peer = "192.0.2.7:5061".parse::<SocketAddr>().expect("an address");
        let flow = Flow { id: FlowId(1), transport: Transport::Tls, local: peer, peer };
        let session = SessionId::NONE;
        let description = text.into();
        let address = MediaAddress { bind: peer.ip(), advertise: peer.ip() };
        let newcomer = Newcomer { session, flow, address, offer_answer, description, plan: None };
        assert_silent(&newcomer, &keys);
    }
}
