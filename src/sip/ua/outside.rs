//! Requests outside a dialog (RFC 3261 §8.2, §9.2, §11.2, §13.3): refusals without state, OPTIONS,
//! CANCEL, and the INVITE that makes a session.

use super::reply::Part;
use super::table::{Arrival, ServerMachine};
use super::{Availability, RequestToken, SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::{Flow, Now};
use crate::sip::dialog::Dialog;
use crate::sip::msg::{Method, Name, Request};
use crate::sip::session::InviteSession;
use crate::sip::session_timer::{SessionTimer, too_small};
use crate::sip::status::{StatusLine, judge};
use crate::sip::transaction::{ServerInvite, ServerKey};
use std::sync::Arc;

impl UserAgent {
    /// In the order of §8.2: loops and merged copies, what the RFC refuses, then by method.
    pub(super) fn on_request_outside(
        &mut self,
        flow: Flow,
        request: Request,
        key: ServerKey,
        out: &mut Vec<UaOutput>,
    ) {
        if self.is_own(&request) || self.transactions.is_merged(&request) {
            self.counters.loops += 1;
            return self.refuse_statelessly((&request, &flow), &StatusLine::of(482), &[], out);
        }
        if let Err(refusal) = judge(&request, &self.config.abilities) {
            let headers: Vec<(&str, &str)> =
                refusal.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            return self.refuse_statelessly((&request, &flow), &refusal.status, &headers, out);
        }
        match request.method() {
            Method::Invite => self.on_invite(flow, request, key, out),
            Method::Options => self.on_options(&flow, &request, out),
            // All others that we serve live in a dialog only.
            _ => self.refuse_statelessly((&request, &flow), &StatusLine::of(481), &[], out),
        }
    }

    /// §9.2. The CANCEL itself needs no transaction: a copy of it finds the INVITE answered.
    pub(super) fn on_cancel(
        &mut self,
        now: Now,
        flow: Flow,
        cancel: &Request,
        out: &mut Vec<UaOutput>,
    ) {
        let token = self.transactions.find(&ServerKey::of_cancelled(cancel, &flow));
        let found = token.and_then(|token| Some((token, self.transactions.server(token)?)));
        let Some((token, record)) = found else {
            return self.refuse_statelessly((cancel, &flow), &StatusLine::of(481), &[], out);
        };
        let (session, tag) = (record.session, record.local_tag.clone());
        let proceeding = match &record.machine {
            ServerMachine::Invite(machine) => machine.is_proceeding(),
            ServerMachine::Other(_) => false,
        };
        let ok = StatusLine::of(200);
        let builder = self.answer_to((cancel, &flow), &ok, &tag, Part::Plain, &[]);
        let bytes = self.seal(builder);
        super::reply::push_answer(flow, bytes, out);
        if proceeding {
            self.terminate_invite(now, session, token, reason_of(cancel), out);
        }
    }

    /// 487 to an INVITE that waits for its answer. A session that it began is gone with it.
    pub(super) fn terminate_invite(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        reason: Option<String>,
        out: &mut Vec<UaOutput>,
    ) {
        self.finish_request(now, token, &StatusLine::of(487), &[], None, out);
        let Some(state) = self.sessions.get_mut(&session) else { return };
        if state.invite == Some(token) {
            self.remove_session(session);
            out.push(UaOutput::Event(UaEvent::Cancelled { session, reason }));
        } else {
            state.reoffer.take_if(|open| *open == token);
        }
    }

    /// A new call, when there is room for it. The early dialog and its tag exist from here on.
    fn on_invite(&mut self, flow: Flow, request: Request, key: ServerKey, out: &mut Vec<UaOutput>) {
        let source = flow.peer.ip();
        let crowded = self.transactions.early_of(source) >= self.config.early_calls_per_source_max;
        if self.availability != Availability::Open || crowded || !self.has_room(&flow) {
            return self.shed(&request, &flow, out);
        }
        if let Some(min_se_s) = too_small(&request) {
            let min_se = min_se_s.to_string();
            let headers = [("Min-SE", min_se.as_str())];
            return self.refuse_statelessly((&request, &flow), &StatusLine::of(422), &headers, out);
        }
        let replaces = match self.replaced(&request) {
            Ok(replaces) => replaces,
            Err(code) => {
                let status = StatusLine::of(code);
                return self.refuse_statelessly((&request, &flow), &status, &[], out);
            }
        };
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let local_tag = self.entropy.token(128);
        let shared = Arc::new(request.clone());
        let dialog = Dialog::answering(&request, flow, local_tag.clone());
        let token = self.begin_invite(
            Arrival { request: shared, flow, key, session, local_tag: local_tag.clone() },
            out,
        );
        self.transactions.begin_early(source);
        let mut state = InviteSession::new(dialog, token);
        state.peer.note(&request);
        state.timer = SessionTimer::new(self.config.session_interval);
        self.sessions.insert(session, Box::new(state));
        self.dialogs.insert(local_tag, session);
        out.push(UaOutput::Event(UaEvent::Invited { session, flow, request, replaces }));
    }

    /// Makes the transaction of an INVITE, which sends the 100.
    pub(super) fn begin_invite(
        &mut self,
        arrival: Arrival,
        out: &mut Vec<UaOutput>,
    ) -> RequestToken {
        let trying = self.trying_for(&arrival.request, &arrival.flow);
        let mut effects = Vec::new();
        let reliable = arrival.flow.transport.is_reliable();
        let machine = ServerInvite::new(self.config.timing, reliable, trying, &mut effects);
        let token = self.transactions.insert(arrival, ServerMachine::Invite(machine));
        self.carry_out(token, effects, out);
        token
    }

    /// True while the source and the whole have room for one more transaction.
    pub(super) fn has_room(&self, flow: &Flow) -> bool {
        let source = flow.peer.ip();
        self.transactions.open_of(source) < self.config.transactions_per_source_max
            && self.transactions.held_of(source) < self.config.transactions_held_per_source_max
            && self.transactions.len() < self.config.transactions_max
    }

    /// §11.2: the answer that an INVITE would get now, as far as room goes.
    fn on_options(&mut self, flow: &Flow, request: &Request, out: &mut Vec<UaOutput>) {
        if self.availability != Availability::Open {
            return self.shed(request, flow, out);
        }
        let tag = self.stateless_tag(request);
        let abilities = OptionsAnswer::of(self);
        let ok = StatusLine::of(200);
        let headers = abilities.headers();
        let builder = self.answer_to((request, flow), &ok, &tag, Part::Plain, &headers);
        let bytes = self.seal(builder);
        super::reply::push_answer(*flow, bytes, out);
    }

    /// True when a Via of ours is in the request: it went round (§8.2.2.2, §16.3).
    fn is_own(&self, request: &Request) -> bool {
        request
            .vias()
            .any(|via| via.branch().is_some_and(|branch| branch.starts_with(&self.branch_start)))
    }
}

/// The headers of a 200 to OPTIONS.
pub(super) struct OptionsAnswer {
    allow: String,
    accept: String,
    supported: String,
}

impl OptionsAnswer {
    pub(super) fn of(agent: &UserAgent) -> OptionsAnswer {
        let abilities = &agent.config.abilities;
        OptionsAnswer {
            allow: abilities.allow(),
            accept: abilities.accepts.join(", "),
            supported: abilities.extensions.join(", "),
        }
    }

    pub(super) fn headers(&self) -> [(&str, &str); 4] {
        [
            ("Allow", &self.allow),
            ("Accept", &self.accept),
            ("Accept-Encoding", "identity"),
            ("Supported", &self.supported),
        ]
    }
}

/// The Reason header of a CANCEL or BYE (RFC 3326).
pub(super) fn reason_of(request: &Request) -> Option<String> {
    request.get(Name::Reason).map(String::from)
}
