//! The REFER of ours in a session, and the notifications that tell how it goes (RFC 3515, RFC 6665): one
//! at a time. What they mean is [`Referring`]'s. A notification for a REFER of ours is answered here and
//! never seen above; one that fits none gets 481.

use super::errand::Purpose;
use super::event::Busy;
use super::outcome::Final;
use super::{SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::Now;
use crate::sip::msg::{Method, Name, Params, Request};
use crate::sip::refer::{
    Notification, ReferEffect, Referral, Referring, Subscription, read_sipfrag,
};
use crate::sip::replaces::Replaces;
use crate::sip::session::{InviteSession, Stage};

impl UserAgent {
    /// Asks the peer to call someone else, once it has sent the ACK of our 2xx. [`UaEvent::ReferProgress`] tells how it goes, one
    /// [`UaEvent::ReferDone`] how it ended, unless we end the session before.
    ///
    /// # Errors
    /// [`Busy::Gone`] when there is no such session or it is being ended; [`Busy::Open`] before its
    /// answer and while another referral is under way.
    pub fn refer(
        &mut self,
        now: Now,
        session: SessionId,
        referral: Referral,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Busy> {
        let state = self.established(session)?;
        if state.referring.as_ref().is_some_and(Referring::is_open) {
            return Err(Busy::Open);
        }
        let Referral { refer_to, referred_by, headers, patience } = referral;
        state.referring = Some(Referring::after(state.referring.take(), patience));
        let mut lines = vec![("Refer-To".to_owned(), refer_to)];
        lines.extend(referred_by.map(|by| ("Referred-By".to_owned(), by)));
        lines.extend(headers);
        if state.awaits_first_ack() {
            // Peers that have not sent their ACK yet do not expect a request.
            state.referral_waits = Some(lines);
        } else {
            self.ask(now, session, Purpose::Refer(session), Method::Refer, (lines, None), out);
        }
        Ok(())
    }

    /// The ACK of our first 2xx came: a REFER that waited for it goes out.
    pub(super) fn send_waiting_referral(
        &mut self,
        now: Now,
        session: SessionId,
        out: &mut Vec<UaOutput>,
    ) {
        let waiting = self.sessions.get_mut(&session).and_then(|state| state.referral_waits.take());
        if let Some(lines) = waiting {
            self.ask(now, session, Purpose::Refer(session), Method::Refer, (lines, None), out);
        }
    }

    /// The session, answered and not being ended.
    pub(super) fn established(&mut self, session: SessionId) -> Result<&mut InviteSession, Busy> {
        let state = self.sessions.get_mut(&session).ok_or(Busy::Gone)?;
        match state.stage {
            Stage::Established => Ok(state),
            Stage::Early => Err(Busy::Open),
            Stage::Leaving { .. } | Stage::Left => Err(Busy::Gone),
        }
    }

    /// The value of Replaces by which someone else takes the place of *us* in this session, when its
    /// peer is the target of a REFER (RFC 3891 §4): the peer's tag first. `None` when the session is
    /// gone, or its Call-ID cannot be written in the header.
    pub fn replaces_value(&self, session: SessionId) -> Option<String> {
        let dialog = &self.sessions.get(&session)?.dialog;
        let replaces = Replaces {
            call_id: dialog.call_id().to_owned(),
            // A peer of RFC 2543 has no tag; zero stands for that (RFC 3891 §6.1).
            to_tag: dialog.remote_tag().unwrap_or("0").to_owned(),
            from_tag: dialog.local_tag().to_owned(),
            early_only: false,
        };
        replaces.is_writable().then(|| replaces.to_string())
    }

    /// The final answer to our REFER, or none at all.
    pub(super) fn on_refer_answered(
        &mut self,
        now: Now,
        session: SessionId,
        last: &Final,
        out: &mut Vec<UaOutput>,
    ) {
        let refer_sub = last.response.as_ref().and_then(|response| {
            let value = response.get(Name::ReferSub)?.split(';').next()?.trim();
            value.parse().ok()
        });
        self.on_referring(session, out, |referring, effects| {
            referring.handle_answer(now.at, (last.code, &last.reason), refer_sub, effects);
        });
    }

    /// A NOTIFY in the dialog: the status that answers it, when it is of a referral of ours. `None`
    /// for another event, which is the call layer's.
    pub(super) fn on_notify(
        &mut self,
        now: Now,
        session: SessionId,
        notify: &Request,
        out: &mut Vec<UaOutput>,
    ) -> Option<u16> {
        let event = notify.get(Name::Event).unwrap_or_default();
        let (package, params) = event.split_at(event.find(';').unwrap_or(event.len()));
        if !package.trim().eq_ignore_ascii_case("refer") {
            return None;
        }
        // An id that is no number names no REFER of ours.
        let id = Params::new(params).named("id").flatten();
        let id = id.map(|id| id.parse().unwrap_or(u32::MAX));
        let subscription = notify.get(Name::SubscriptionState).unwrap_or_default();
        let subscription = subscription.split(';').next().unwrap_or_default().trim();
        let is_last = subscription.eq_ignore_ascii_case("terminated");
        let Some(referring) = &mut self.sessions.get_mut(&session)?.referring else {
            return Some(481);
        };
        match referring.subscription(id) {
            Subscription::Unknown => return Some(481),
            Subscription::Former if is_last => {
                referring.end_former(id);
                return Some(200);
            }
            Subscription::Former => return Some(200),
            Subscription::Present => {}
        }
        // A body that is no sipfrag says nothing, but the peer is alive.
        let is_fragment = notify.content_type().is_none_or(|kind| kind == "message/sipfrag");
        let fragment = is_fragment.then(|| read_sipfrag(notify.body())).flatten();
        self.on_referring(session, out, |referring, effects| {
            referring.handle_notify(now.at, Notification { fragment, is_last }, effects);
        });
        Some(200)
    }

    /// The session ends by the peer: an open referral has its end before.
    pub(super) fn end_referring(&mut self, session: SessionId, out: &mut Vec<UaOutput>) {
        self.on_referring(session, out, Referring::handle_peer_left);
    }

    /// Lets the referral of a session act and tells what it says: nothing once we said goodbye.
    fn on_referring(
        &mut self,
        session: SessionId,
        out: &mut Vec<UaOutput>,
        act: impl FnOnce(&mut Referring, &mut Vec<ReferEffect>),
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let Some(referring) = &mut state.referring else { return };
        let mut effects = Vec::new();
        act(referring, &mut effects);
        self.settle_session(session);
        for effect in effects {
            self.tell_referring(session, effect, out);
        }
    }

    pub(super) fn tell_referring(
        &self,
        session: SessionId,
        effect: ReferEffect,
        out: &mut Vec<UaOutput>,
    ) {
        let stage = self.sessions.get(&session).map(|state| &state.stage);
        if stage != Some(&Stage::Established) {
            return;
        }
        out.push(UaOutput::Event(match effect {
            ReferEffect::Progress { code, reason } => {
                UaEvent::ReferProgress { session, code, reason }
            }
            ReferEffect::Done(outcome) => UaEvent::ReferDone { session, outcome },
        }));
    }
}
