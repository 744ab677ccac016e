//! An INVITE with Replaces (RFC 3891): whoever sends it takes the place of a leg's peer. The call goes
//! on with its agent, its port and its clock; the former dialog gets its BYE.

use super::invited::read_offer;
use super::{SDP, Switchboard};
use crate::call::takeover::Newcomer;
use crate::ground::{CallKey, Flow, Now};
use crate::refusal::Refusal;
use crate::sip::msg::Request;
use crate::sip::ua::SessionId;

impl Switchboard {
    /// Puts the new dialog into the place of the replaced one.
    ///
    /// # Errors
    /// Why not: it is not allowed, the leg is not up, or its description cannot be used.
    pub(super) fn take_over(
        &mut self,
        now: Now,
        (session, flow): (SessionId, Flow),
        request: &Request,
        replaced: SessionId,
    ) -> Result<(), Refusal> {
        if !self.settings.call.hands.transfers.replaces {
            return Err(Refusal::NotReplaced);
        }
        let key = self.by_session.get(&replaced).copied().ok_or(Refusal::NotReplaced)?;
        let offer = read_offer(request)?;
        let offer_answer = self.new_offer_answer();
        let call = self.calls.get(&key).ok_or(Refusal::NotReplaced)?;
        let leg = call.leg(replaced).ok_or(Refusal::NotReplaced)?;
        let address = self.address_for(flow, leg.media_address.bind.is_ipv4());
        let by = (session, flow, address.unwrap_or(leg.media_address));
        let newcomer = call.receive_newcomer(replaced, by, offer_answer, offer)?;
        let mut outputs = Vec::new();
        let body = Some((SDP, newcomer.description.as_bytes()));
        let accepted = self.ua.accept(now, session, &[], body, &mut outputs).is_ok();
        if accepted {
            self.counters.answered += 1;
            self.by_session.insert(session, key);
            self.hold_flow(flow.id);
        }
        // First the 200: the BYE to the former dialog must not overtake it.
        self.take_ua_outputs(now, outputs);
        if accepted {
            self.swap(now, key, replaced, newcomer);
        }
        Ok(())
    }

    fn swap(&mut self, now: Now, key: CallKey, replaced: SessionId, newcomer: Newcomer) {
        self.step(now, key, |call, out| call.take_newcomer(now, replaced, newcomer, out));
    }
}
