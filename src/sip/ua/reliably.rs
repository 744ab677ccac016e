//! Reliable provisional answers in both roles (RFC 3262): those of ours when the caller requires them,
//! with the PRACK that acknowledges each; and the PRACKs that those of the peer want, in the dialog of
//! the fork that sent them.

use super::draft::{Attempt, Draft, UNNUMBERED};
use super::errand::{ErrandId, Fork, Purpose};
use super::reply::Part;
use super::table::{Pending, ServerMachine};
use super::{Gone, RequestToken, SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::limits::FORKS_MAX;
use crate::ground::{Flow, Now};
use crate::sip::destination::Destination;
use crate::sip::dialog::Dialog;
use crate::sip::msg::{Method, Name, Request, Response};
use crate::sip::reliable::{Arrived, Reliable, ReliableEffect};
use crate::sip::status::StatusLine;

impl UserAgent {
    /// A provisional answer that the caller wants acknowledged. Without an offer in the INVITE ours
    /// would have to be in it (§5), so such a caller hears no ringing.
    pub(super) fn ring_reliably(
        &mut self,
        now: Now,
        (session, token): (SessionId, RequestToken),
        code: u16,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let Pending { request, flow, local_tag: tag } = self.pending(token).ok_or(Gone)?;
        if request.body().is_empty() {
            return Ok(());
        }
        // From 1 to 2^31 − 1, by chance (§3), with room to count on.
        let first = 1 + (self.entropy.u32() >> 2);
        let state = self.sessions.get_mut(&session).ok_or(Gone)?;
        let cseq = request.cseq().number;
        let reliable = state.reliable.get_or_insert_with(|| Reliable::new(cseq, first));
        let Some(number) = reliable.begin(code) else { return Ok(()) };
        let number = number.to_string();
        let headers = [("Require", "100rel"), ("RSeq", number.as_str())];
        let status = StatusLine::of(code);
        let builder = self.answer_to((&request, &flow), &status, &tag, Part::Contact, &headers);
        let bytes = self.seal(builder);
        if let Some(reliable) =
            self.sessions.get_mut(&session).and_then(|state| state.reliable.as_mut())
        {
            reliable.sent(now.at, &self.config.timing, flow, bytes.clone());
        }
        self.settle_session(session);
        let record = self.transactions.server_mut(token).ok_or(Gone)?;
        let mut effects = Vec::new();
        if let ServerMachine::Invite(machine) = &mut record.machine {
            machine.provisional(bytes, &mut effects);
        }
        self.carry_out(token, effects, out);
        Ok(())
    }

    /// A PRACK came. What waited for it goes out.
    pub(super) fn on_prack(
        &mut self,
        now: Now,
        session: SessionId,
        (token, prack): (RequestToken, &Request),
        out: &mut Vec<UaOutput>,
    ) {
        let state = self.sessions.get_mut(&session);
        let reliable = state.and_then(|state| state.reliable.as_mut());
        let next = reliable.map(|reliable| reliable.handle_prack(prack));
        self.settle_session(session);
        let code = if matches!(next, Some(Ok(_))) { 200 } else { 481 };
        self.finish_request(now, token, &StatusLine::of(code), &[], None, out);
        if let Some(Ok(Some(code))) = next {
            // The call was answered meanwhile when this does nothing.
            let _: Result<(), Gone> = self.ring(now, session, code, out);
        }
    }

    /// What a reliable answer of ours wants.
    pub(super) fn on_reliable(
        &mut self,
        now: Now,
        session: SessionId,
        effect: ReliableEffect,
        out: &mut Vec<UaOutput>,
    ) {
        match effect {
            ReliableEffect::Repeat { flow, answer } => {
                out.push(UaOutput::Send { flow, to: Destination::Peer, bytes: answer });
            }
            ReliableEffect::NeverAcknowledged => {
                let refused = self.refuse(now, session, &StatusLine::of(504), &[], out);
                if refused.is_ok() {
                    let reason = Some("SIP;cause=504;text=\"No PRACK\"".to_owned());
                    out.push(UaOutput::Event(UaEvent::Cancelled { session, reason }));
                }
            }
        }
    }

    /// A provisional answer of the peer above 100: true when it is news. One that was sent reliably is
    /// acknowledged.
    pub(super) fn take_provisional(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        (flow, response): (Flow, &Response),
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(tag) = response.to().tag() else { return true };
        let Some(errand) = self.errands.get_mut(id) else { return false };
        let key = (attempt.number, tag.to_owned());
        if !errand.received.contains_key(&key) && errand.received.len() >= FORKS_MAX {
            return true;
        }
        let number = match errand.received.entry(key).or_default().handle(response) {
            Arrived::Plain => return true,
            Arrived::Ignored => return false,
            Arrived::InOrder(number) => number,
        };
        let request_uri = errand.draft.request_uri.clone();
        let answers = errand.draft.body.is_some() && !response.body().is_empty();
        let (credentials, cseq) = (errand.credentials.clone(), attempt.cseq);
        let (session, dialog) = match &mut errand.purpose {
            Purpose::Dial(dial) => {
                let fork = dial.forks.entry(tag.to_owned()).or_insert_with(|| Fork {
                    dialog: Dialog::calling(response, flow, &request_uri),
                    is_settled: false,
                    reoffer: None,
                    description: None,
                });
                fork.is_settled |= answers;
                (None, fork.dialog.clone())
            }
            Purpose::Reoffer { session, dialog } => (Some(*session), dialog.as_ref().clone()),
            _ => return true,
        };
        let purpose = Purpose::Prack { invite: id, tag: tag.to_owned(), session };
        let mut draft = Draft::inside(&dialog, Method::Prack, UNNUMBERED);
        let rack = format!("{number} {cseq} INVITE");
        draft.headers.push((Name::RAck.as_str().to_owned(), rack));
        self.begin_inside(now, purpose, draft, &dialog, credentials, out);
        true
    }
}
