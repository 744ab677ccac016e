//! Refreshes of a session (RFC 4028 §7.4, §10), when it is ours to refresh: by UPDATE without a body
//! where the peer takes that, else by a re-INVITE with the description that it knows. When the peer does
//! not know the call any more, or is silent, the session ends; any other refusal is tried again.

use super::errand::Purpose;
use super::outcome::Final;
use super::{SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::Now;
use crate::sip::msg::Method;
use crate::sip::offering::OwnOffer;
use crate::sip::session::Stage;
use crate::sip::session_timer::TimerEffect;

impl UserAgent {
    /// The session timer wants something.
    pub(super) fn on_session_timer(
        &mut self,
        now: Now,
        session: SessionId,
        effect: TimerEffect,
        out: &mut Vec<UaOutput>,
    ) {
        let stage = self.sessions.get(&session).map(|state| &state.stage);
        if stage != Some(&Stage::Established) {
            return;
        }
        match effect {
            TimerEffect::Refresh => self.refresh(now, session, out),
            TimerEffect::Expired => out.push(UaOutput::Event(UaEvent::Expired { session })),
        }
    }

    fn refresh(&mut self, now: Now, session: SessionId, out: &mut Vec<UaOutput>) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let description = state.description.clone();
        if state.peer.update == Some(true) || description.is_none() {
            let purpose = Purpose::Refresh(session);
            self.ask(now, session, purpose, Method::Update, (Vec::new(), None), out);
        } else if state.is_negotiating() || !state.offering.is_idle() {
            state.timer.postpone(now.at);
        } else {
            self.send_reoffer(now, session, OwnOffer::new(description, true), out);
        }
        self.settle_session(session);
    }

    /// The final answer to our UPDATE, or none at all. What a 2xx says was taken already.
    pub(super) fn on_refreshed(
        &mut self,
        now: Now,
        session: SessionId,
        last: &Final,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        match last.code {
            ..300 => {}
            405 | 501 if state.peer.update == Some(true) && state.description.is_some() => {
                // Its Allow was not true: a re-INVITE then.
                state.peer.update = Some(false);
                self.refresh(now, session, out);
            }
            408 | 481 => self.end_dead(now, session, last.code, out),
            _ => state.timer.refresh_failed(now.at),
        }
        self.settle_session(session);
    }
}
