//! What happened, to the call that it happened to: events of the user agent by their session, events of
//! media by their call.

use super::Switchboard;
use crate::call::early::Provisional;
use crate::call::keys::KeyWay;
use crate::call::{Act, Call};
use crate::ground::{CallKey, Now};
use crate::media::plan::MediaEvent;
use crate::refusal::EndCause;
use crate::sip::ua::{SessionId, UaEvent};
use std::time::Duration;

impl Switchboard {
    pub(super) fn on_ua_event(&mut self, now: Now, event: UaEvent) {
        match event {
            UaEvent::Invited { session, flow, request, replaces } => {
                self.on_invited(now, session, flow, &request, replaces);
            }
            UaEvent::Cancelled { session, reason } => {
                self.counters.cancelled += 1;
                self.on_session(now, session, |call, out| {
                    call.cdr.end_reason = reason;
                    call.finish(now, EndCause::CallerCancelled, out);
                });
            }
            UaEvent::Confirmed { session, body } => {
                self.on_session(now, session, |call, out| {
                    call.on_confirmed(now, session, body, out);
                });
            }
            UaEvent::NeverAcked { session } => {
                self.on_session(now, session, |call, out| call.on_never_acked(now, session, out));
            }
            UaEvent::Reoffered { session, fork, token, method, body } => {
                self.on_session(now, session, |call, out| match (fork, &body) {
                    (Some(fork), Some((_, offer))) => {
                        call.on_early_offer(now, (session, &fork), token, offer, out);
                    }
                    (_, _) => call.on_reoffered(now, session, (token, method), body, out),
                });
            }
            UaEvent::ReoffersAck { session, body } => {
                self.on_session(now, session, |call, out| {
                    call.on_reoffer_acked(now, session, body, out);
                });
            }
            UaEvent::InDialog { session, token, request } => {
                self.on_in_dialog(now, session, token, &request);
            }
            UaEvent::Ended { session, reason } => self.on_ended(now, session, reason),
            UaEvent::Closed { session, outcome: _ } => {
                self.on_session(now, session, |call, out| call.on_dialog_closed(session, out));
            }
            UaEvent::FlowLost { session } => {
                self.on_session(now, session, |call, out| call.on_flow_lost(now, session, out));
            }
            UaEvent::Moved { session, flow } => self.on_moved(session, flow),
            UaEvent::WayFound { session, flow } => self.on_way_found(now, session, flow),
            UaEvent::Progress { session, flow, fork, code, reason: _, body } => {
                let said = Provisional { fork, source: flow.peer.ip(), code, body };
                self.on_session(now, session, |call, out| match call.is_second(session) {
                    true => call.on_target_progress(now, &said, out),
                    false => call.on_progress(now, &said, out),
                });
            }
            UaEvent::Answered { session, flow, fork, body } => {
                self.on_callee_answered(now, session, flow, (&fork, &body));
            }
            UaEvent::Refused { session, code, reason, contacts, retry_after: _ } => {
                self.on_session(now, session, |call, out| match call.is_second(session) {
                    true => call.on_target_refused(now, code, &contacts, out),
                    false => call.on_callee_refused(now, (code, reason), &contacts, out),
                });
            }
            UaEvent::DialFailed { session, fault } => {
                self.on_session(now, session, |call, out| match call.is_second(session) {
                    true => call.on_target_unreached(now, &fault, out),
                    false => call.on_dial_failed(now, &fault, out),
                });
            }
            // What such an answer means for the session was decided already: NOTIFYs ask for no more.
            UaEvent::RequestAnswered { .. } => {}
            UaEvent::ReofferAnswered { session, body } => {
                self.on_session(now, session, |call, out| {
                    call.on_reoffer_answered(now, session, &body, out);
                });
            }
            UaEvent::ReofferRefused { session, code, reason: _ } => {
                self.on_session(now, session, |call, _| {
                    call.on_reoffer_refused(now, session, code);
                });
            }
            UaEvent::ReferProgress { session, code, reason: _ } => {
                self.on_session(now, session, |call, _| call.on_refer_progress(now, code));
            }
            UaEvent::ReferDone { session, outcome } => {
                self.on_session(now, session, |call, out| {
                    call.on_refer_done(now, session, &outcome, out);
                });
            }
            UaEvent::Expired { session } => {
                let cause = EndCause::SessionExpired;
                self.on_session(now, session, |call, out| {
                    call.on_leg_failed(now, session, cause, out);
                });
            }
            UaEvent::Responded { request, response, flow, hop: _, credentials } => {
                let credentials = credentials.map(|credentials| *credentials);
                self.on_registrar_answered(now, request, &response, flow, credentials);
            }
            UaEvent::RequestFailed { request, fault } => {
                self.on_registrar_silent(now, request, &fault);
            }
        }
    }

    pub(super) fn on_session(
        &mut self,
        now: Now,
        session: SessionId,
        act: impl FnOnce(&mut Call, &mut Vec<Act>),
    ) {
        if let Some(key) = self.by_session.get(&session).copied() {
            self.step(now, key, act);
        }
    }

    pub(super) fn on_media(&mut self, now: Now, key: CallKey, event: MediaEvent) {
        self.step(now, key, |call, out| match event {
            MediaEvent::Opened => call.on_media_opened(now, out),
            MediaEvent::BindFailed => call.on_bind_failed(now, out),
            MediaEvent::LegOpened { leg } => call.on_leg_opened(now, leg, out),
            MediaEvent::LegBindFailed { leg } => call.on_leg_bind_failed(now, leg, out),
            MediaEvent::LegClosed { leg, report } => call.on_leg_closed(leg, *report, out),
            MediaEvent::Prepared { stream } => call.on_stream_prepared(now, stream, out),
            MediaEvent::PrepareFailed { stream, fault } => {
                call.on_prepare_failed(now, stream, fault, out);
            }
            MediaEvent::JoinFailed { stream, fault } => {
                call.on_join_failed(now, stream, fault, out);
            }
            MediaEvent::Joined { stream } => call.on_stream_joined(now, stream, out),
            MediaEvent::Changed { leg, revision } => {
                call.on_media_changed(now, leg, revision, out);
            }
            MediaEvent::EarlyMedia(early) => call.on_early_media(now, early, out),
            MediaEvent::LegHeard { leg, source } => call.on_leg_heard(now, leg, source, out),
            MediaEvent::AgentHeard => call.on_agent_heard(now),
            MediaEvent::Digit { leg, digit, duration_ms } => {
                let duration = Duration::from_millis(duration_ms.into());
                call.on_key(now, leg, (KeyWay::Media, digit.0), duration, out);
            }
            MediaEvent::OneWay { leg, verdict } => call.on_one_way(now, leg, verdict, out),
            MediaEvent::LegSilent { leg } => call.on_leg_silent(now, leg, out),
            MediaEvent::HeldTooLong { leg } => call.on_leg_held_too_long(now, leg, out),
            MediaEvent::AgentText { stream, text } => call.on_agent_text(now, stream, &text, out),
            MediaEvent::KeysSent { leg } => call.on_keys_sent(now, leg, out),
            MediaEvent::SoundPlayed => call.on_prompt_played(now, out),
            MediaEvent::AgentEnded { stream } => call.on_stream_ended(now, stream),
            MediaEvent::AgentLeft { stream, close } => {
                call.on_stream_left(now, stream, close, out);
            }
            MediaEvent::Broken(_) => call.finish(now, EndCause::Bug, out),
            MediaEvent::Closed(report) => call.on_media_closed(now, *report, out),
        });
    }
}
