//! The second leg of a call, from its port to its last trace: a transfer's target. It is dialled,
//! followed through 3xx where the policy allows, answered, and dropped as its state demands while
//! the call goes on. Its clock runs from its answer to its end (seed, "SIP Billing").

use super::ladder::Lane;
use super::leg::{Closing, Errand, Leg, Progress, Second};
use super::outbound::{PORTS_TRIED_MAX, by_preference};
use super::ringing::Ringing;
use super::transfer::{Failure, Happened};
use super::{Act, Call};
use crate::billing::MediaSummary;
use crate::ground::{Flow, FlowId, LegId, Now};
use crate::media::plan::{MediaCommand, MediaReport};
use crate::refusal::{EndCause, Unreached};
use crate::sip::ua::{Body, DialFault, SessionId};
use std::net::SocketAddr;
use std::sync::Arc;

impl Call {
    /// The leg of this session: one that is not on its way out.
    pub fn leg(&self, session: SessionId) -> Option<&Leg> {
        let second = self.second.as_deref().map(|second| &second.leg);
        [Some(&self.first), second].into_iter().flatten().find(|leg| leg.session == session)
    }

    pub fn leg_mut(&mut self, session: SessionId) -> Option<&mut Leg> {
        let second = self.second.as_deref_mut().map(|second| &mut second.leg);
        [Some(&mut self.first), second].into_iter().flatten().find(|leg| leg.session == session)
    }

    pub(super) fn leg_named(&mut self, id: LegId) -> Option<&mut Leg> {
        let second = self.second.as_deref_mut().map(|second| &mut second.leg);
        [Some(&mut self.first), second].into_iter().flatten().find(|leg| leg.id == id)
    }

    /// The second leg's number, while there is one.
    pub(super) fn second_id(&self) -> Option<LegId> {
        self.second.as_deref().map(|second| second.leg.id)
    }

    pub fn is_second(&self, session: SessionId) -> bool {
        self.second.as_deref().is_some_and(|second| second.leg.session == session)
    }

    /// Whom the leg of this session calls, by Request-URI; `None` where we did not call.
    pub fn callee_of(&self, session: SessionId) -> Option<&str> {
        let second = self.second.as_deref().filter(|second| second.leg.session == session);
        if let Some(second) = second {
            return Some(&second.errand.callee.uri);
        }
        let outgoing = self.outgoing.as_deref().filter(|_| self.first.session == session);
        outgoing.map(|outgoing| outgoing.callee.uri.as_str())
    }

    /// Every session of this call, those on their way out included.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        let second = self.second.as_deref().map(|second| second.leg.session);
        let closing = self.closing.iter().map(|closing| closing.session);
        std::iter::once(self.first.session).chain(second).chain(closing)
    }

    /// A port and an offer for the second leg: its own, or in the place of those that were taken.
    pub fn on_leg_given(&mut self, leg: Leg, errand: Errand, out: &mut Vec<Act>) {
        let open = MediaCommand::OpenLeg {
            leg: leg.id,
            plan: Box::new(leg.provisional_plan(self.settings.ptime_ms)),
            address: leg.media_address.bind,
            port: leg.port.0,
        };
        let (progress, ringing) = (Progress::Bound, Ringing::default());
        self.second = Some(Box::new(Second { leg, errand, progress, ringing }));
        out.push(Act::Media(open));
    }

    /// The second leg's port is taken by someone else: another one, a few times. False: no more.
    pub(super) fn try_another_port(&mut self, out: &mut Vec<Act>) -> bool {
        let Some(second) = &mut self.second else { return false };
        second.leg.ports_tried += 1;
        if second.leg.ports_tried >= PORTS_TRIED_MAX {
            return false;
        }
        out.push(Act::AskLeg(Box::new(second.errand.clone())));
        true
    }

    pub(super) fn dial_second(&mut self, now: Now, out: &mut Vec<Act>) {
        self.ring_anew(now, out);
        let Some(second) = &mut self.second else { return };
        second.progress = Progress::Ringing;
        self.note(now, Lane::Sip, "INVITE  edge → target");
        out.push(Act::DialSecond);
    }

    /// Follows a 3xx of the target when the policy admits one of its contacts.
    pub(super) fn redirect_second(
        &mut self,
        now: Now,
        contacts: &[String],
        out: &mut Vec<Act>,
    ) -> bool {
        let policy = Arc::clone(&self.settings.hands.transfers.policy);
        let Some(second) = &mut self.second else { return false };
        let errand = &mut second.errand;
        if errand.tried.len() > usize::from(policy.redirects_max) {
            self.note(now, Lane::Edge, "not followed: too many redirections");
            return false;
        }
        let srtp = &self.settings.srtp;
        let next = by_preference(contacts).into_iter().find_map(|uri| {
            let callee = policy.admit(&uri, true).ok()?;
            let is_new = !errand.tried.contains(&callee.uri);
            (is_new && srtp.may_call(&callee.uri)).then_some(callee)
        });
        let Some(callee) = next else {
            self.note(now, Lane::Edge, "not followed: outgoing allows no target of it");
            return false;
        };
        errand.tried.push(callee.uri.clone());
        second.leg.target_srtp = srtp.policy_named(&callee.uri);
        errand.callee = callee;
        self.dial_second(now, out);
        true
    }

    /// The target answered, and has our ACK: its clock runs. False when its description is unusable.
    pub(super) fn take_second_answer(
        &mut self,
        now: Now,
        (fork, body): (&str, &Body),
        out: &mut Vec<Act>,
    ) -> bool {
        let Some(second) = &mut self.second else { return false };
        second.progress = Progress::Up;
        let leg = &mut second.leg;
        self.ledger.answer(now.at, leg.id);
        match leg.take_answer(fork, body) {
            Some(plan) if leg.plan.as_ref() == Some(&plan) => true,
            Some(plan) => {
                leg.take_plan(plan, out);
                true
            }
            None => false,
        }
    }

    /// The second leg's session is gone already: nothing is said to it any more.
    pub(super) fn note_second_gone(&mut self) {
        if let Some(second) = &mut self.second {
            second.progress = Progress::Gone;
        }
    }

    /// Ends the second leg: CANCEL or BYE as it stands, its clock, its media. A call without one is
    /// left as it is.
    pub(super) fn drop_second(
        &mut self,
        now: Now,
        reason: Option<&'static str>,
        out: &mut Vec<Act>,
    ) {
        let Some(second) = self.second.take() else { return };
        let Second { leg, progress, errand: _, ringing: _ } = *second;
        self.ledger.end(now.at, leg.id);
        if let Some(record) = self.cdr.transfers.last_mut() {
            record.leg_time = self.ledger.clock(leg.id).total(now.at);
        }
        let session = leg.session;
        match progress {
            Progress::Bound | Progress::Gone => {}
            Progress::Ringing => {
                self.note(now, Lane::Sip, "CANCEL  edge → target");
                out.push(Act::Cancel { session, reason });
            }
            Progress::Up => {
                self.note(now, Lane::Sip, "BYE  edge → target");
                out.push(Act::Bye { session, reason });
            }
        }
        self.closing.push(Closing {
            session,
            flow: leg.flow.id,
            admitted: leg.admitted,
            port: Some((leg.id, leg.port)),
            awaits_dialog: matches!(progress, Progress::Ringing | Progress::Up),
            awaits_media: true,
        });
        out.push(Act::Media(MediaCommand::CloseLeg { leg: leg.id }));
    }

    /// The shard has let go of a leg. What the leg did that the call began with is told at its end.
    pub fn on_leg_closed(&mut self, id: LegId, report: MediaReport, out: &mut Vec<Act>) {
        if id != LegId::CALLER && (report.packets_received, report.packets_sent) != (0, 0) {
            self.cdr.further_media.push(MediaSummary::from(&report));
        }
        let closing = self
            .closing
            .iter_mut()
            .find(|closing| closing.port.is_some_and(|(closed, _)| closed == id));
        if let Some(closing) = closing {
            closing.awaits_media = false;
        }
        self.release_closed(out);
    }
}

/// What happens to legs, by whose leg it is.
impl Call {
    /// The sockets of the second leg are bound.
    pub fn on_leg_opened(&mut self, now: Now, id: LegId, out: &mut Vec<Act>) {
        if self.second_id() == Some(id) {
            self.drive(now, Happened::LegReady, out);
        }
    }

    pub fn on_leg_bind_failed(&mut self, now: Now, id: LegId, out: &mut Vec<Act>) {
        if self.second_id() == Some(id) && !self.try_another_port(out) {
            let failure = Failure::NoLeg("no media port could be bound".into());
            self.drive(now, Happened::LegFailed(failure), out);
        }
    }

    /// There is no second leg to be had, in words.
    pub fn on_leg_refused(&mut self, now: Now, words: String, out: &mut Vec<Act>) {
        self.drive(now, Happened::LegFailed(Failure::NoLeg(words.into())), out);
    }

    /// This fork of the target answered, and has our ACK.
    pub fn on_target_answered(&mut self, now: Now, answer: (&str, &Body), out: &mut Vec<Act>) {
        self.note(now, Lane::Sip, "200 OK  target → edge");
        if let Some(record) = self.cdr.transfers.last_mut() {
            record.answered_at = Some(now.wall);
        }
        let what = match self.take_second_answer(now, answer, out) {
            true => Happened::Answered,
            false => Happened::NotAnswered(Failure::BadAnswer),
        };
        self.drive(now, what, out);
    }

    /// The final refusal of the target's side; a redirection is followed where the policy allows.
    pub fn on_target_refused(
        &mut self,
        now: Now,
        code: u16,
        contacts: &[String],
        out: &mut Vec<Act>,
    ) {
        self.note(now, Lane::Sip, format!("{code}  target → edge"));
        if (300..400).contains(&code) && self.redirect_second(now, contacts, out) {
            return;
        }
        self.note_second_gone();
        self.drive(now, Happened::NotAnswered(Failure::Refused { code }), out);
    }

    /// Nobody answered the INVITE to the target at all.
    pub fn on_target_unreached(&mut self, now: Now, fault: &DialFault, out: &mut Vec<Act>) {
        let unreached = Unreached::of(fault);
        self.note(now, Lane::Sip, unreached.words());
        self.note_second_gone();
        self.drive(now, Happened::NotAnswered(Failure::NotReached(unreached)), out);
    }

    /// The BYE of a peer: 200 was sent, the session is gone.
    pub fn on_peer_left(
        &mut self,
        now: Now,
        session: SessionId,
        reason: Option<String>,
        out: &mut Vec<Act>,
    ) {
        if session == self.first.session && !self.is_ending() {
            self.cdr.end_reason = reason;
            let cause = match self.outgoing {
                Some(_) => EndCause::CalleeHungUp,
                None => EndCause::CallerHungUp,
            };
            return self.finish(now, cause, out);
        }
        if self.is_second(session) {
            self.note(now, Lane::Sip, "BYE  target → edge");
            self.note_second_gone();
            return self.drive(now, Happened::TargetLeft, out);
        }
        self.on_dialog_closed(session, out);
    }

    /// The 200 to a re-INVITE, or the call's own, was never acknowledged.
    pub fn on_never_acked(&mut self, now: Now, session: SessionId, out: &mut Vec<Act>) {
        self.on_leg_failed(now, session, EndCause::NeverAcked, out);
    }

    /// An answer to our offer cannot be used, or never came.
    pub(super) fn on_leg_unusable(&mut self, now: Now, session: SessionId, out: &mut Vec<Act>) {
        self.on_leg_failed(now, session, EndCause::BadAnswer, out);
    }

    /// A leg is of no more use. Without its first leg a call is over.
    pub fn on_leg_failed(
        &mut self,
        now: Now,
        session: SessionId,
        cause: EndCause,
        out: &mut Vec<Act>,
    ) {
        if session == self.first.session {
            self.finish(now, cause, out);
        } else if self.is_second(session) {
            self.drive(now, Happened::TargetLost(Failure::BadAnswer, cause), out);
        }
    }

    /// The first packet of a leg's media.
    pub fn on_leg_heard(&mut self, now: Now, id: LegId, source: SocketAddr, out: &mut Vec<Act>) {
        if self.first.id == id {
            self.on_caller_heard(now, source);
        } else if self.second_id() == Some(id) {
            self.on_target_heard(now, out);
        }
    }

    pub fn on_leg_silent(&mut self, now: Now, id: LegId, out: &mut Vec<Act>) {
        self.on_leg_quiet(now, id, EndCause::CallerSilent, out);
    }

    pub fn on_leg_held_too_long(&mut self, now: Now, id: LegId, out: &mut Vec<Act>) {
        self.on_leg_quiet(now, id, EndCause::HeldTooLong, out);
    }

    fn on_leg_quiet(&mut self, now: Now, id: LegId, cause: EndCause, out: &mut Vec<Act>) {
        if self.first.id == id {
            self.finish(now, cause, out);
        } else if self.second_id() == Some(id) {
            let lost = Happened::TargetLost(Failure::TargetSilent, EndCause::TargetSilent);
            self.drive(now, lost, out);
        }
    }

    /// A dialog lives on another flow now; the old one, when the dialog is ours.
    pub fn move_session(&mut self, session: SessionId, flow: Flow) -> Option<FlowId> {
        if let Some(leg) = self.leg_mut(session) {
            return Some(std::mem::replace(&mut leg.flow, flow).id);
        }
        let closing = self.closing.iter_mut().find(|closing| closing.session == session)?;
        Some(std::mem::replace(&mut closing.flow, flow.id))
    }
}
