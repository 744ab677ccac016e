//! The user agent (RFC 3261 §8.2, §9.2, §12.2, §13.3, §14.2, §15): it owns the transactions, the
//! dialogs and their timers, and turns messages into events of sessions. It decides alone what the
//! RFC decides: copies, CANCEL races, merged requests, loops, sequence numbers, crossing offers,
//! OPTIONS. What a call means is the call layer's: it answers events with verbs.
//!
//! | comes in | without state | with state |
//! |---|---|---|
//! | a request outside dialogs | refusals, OPTIONS (§8.2.7) | an INVITE that is taken |
//! | CANCEL | its own answer | 487 to the INVITE that it finds |
//! | a request with a To tag | 481, want of room 503 | everything else |
//! | ACK | absorbed | ends waiting for it |
//! | a response | dropped and counted | a request of ours |
//!
//! Refusals that need no thought keep no state and are not repeated: the peer's own copies bring
//! them again. So a forged source is never sent more than one small answer for each packet
//! (security S17). Never seen here: SDP, accounts, sockets, the clock.

mod acknowledging;
mod asking;
mod client;
mod config;
mod dialling;
mod draft;
mod early;
mod errand;
mod event;
mod hops;
mod inside;
mod outcome;
mod outside;
mod referring;
mod refreshing;
mod reliably;
mod reoffering;
mod replacing;
mod reply;
mod table;
mod verb;
mod way;

#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;

pub use super::destination::Destination;
pub use super::peer::PeerAbilities;
pub use super::refer::{ReferOutcome, Referral};
pub use asking::DialogRequest;
pub use config::{OwnContact, UaConfig};
pub use draft::{OutgoingRequest, RequestId};
pub use event::{
    Availability, Body, Busy, ByeOutcome, DialFault, Gone, RequestToken, SessionId, UaCounters,
    UaEvent, UaOutput,
};

use super::dialog::Dialog;
use super::msg::{Message, Method, Request, Response};
use super::session::{InviteSession, SessionEffect, Stage};
use super::transaction::{ClientKey, Effect, ServerKey};
use crate::ground::{Entropy, Flow, FlowId, Instant, Now, TimerIndex};
use errand::{Answer, ErrandId, Errands};
use replacing::EndedDialogs;
use std::collections::BTreeMap;
use table::{ClientMachine, ServerMachine, Transactions};

/// Whose deadline a timer is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Owner {
    Server(RequestToken),
    Client(u64),
    Session(SessionId),
    Errand(ErrandId),
}

/// The one SIP user agent of the process.
pub struct UserAgent {
    config: UaConfig,
    entropy: Entropy,
    availability: Availability,
    /// Begins every branch of ours after the cookie, so that a request that comes back is known.
    branch_start: String,
    /// Makes the To tags of answers without state: the same for each copy of a request (§8.2.7).
    tag_secret: [u64; 2],
    transactions: Transactions,
    errands: Errands,
    /// Boxed, since a tree's nodes keep room for more of them than they hold.
    sessions: BTreeMap<SessionId, Box<InviteSession>>,
    /// Sessions by our tag.
    dialogs: BTreeMap<String, SessionId>,
    ended: EndedDialogs,
    timers: TimerIndex<Owner>,
    last_session: u64,
    counters: UaCounters,
}

impl UserAgent {
    pub fn new(config: UaConfig, mut entropy: Entropy) -> Self {
        let branch_start = format!("z9hG4bK{}", entropy.token(64));
        let tag_secret = [entropy.u64(), entropy.u64()];
        UserAgent {
            config,
            entropy,
            availability: Availability::Open,
            branch_start,
            tag_secret,
            transactions: Transactions::default(),
            errands: Errands::default(),
            sessions: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            ended: EndedDialogs::default(),
            timers: TimerIndex::default(),
            last_session: 0,
            counters: UaCounters::default(),
        }
    }

    /// A parsed message came on `flow`, from a source that may talk to us.
    pub fn handle_message(
        &mut self,
        now: Now,
        flow: Flow,
        message: Message,
        out: &mut Vec<UaOutput>,
    ) {
        match message {
            Message::Request(request) => self.on_request(now, flow, request, out),
            Message::Response(response) => self.on_response(now, flow, response, out),
        }
    }

    /// A connection is closed: sessions on it are told, requests of ours on it have failed.
    pub fn handle_flow_closed(&mut self, now: Now, flow: FlowId, out: &mut Vec<UaOutput>) {
        for (session, state) in &mut self.sessions {
            if state.dialog.flow().id == flow && state.dialog.is_flow_open() {
                state.dialog.lose_flow();
                out.push(UaOutput::Event(UaEvent::FlowLost { session: *session }));
            }
        }
        for number in self.transactions.clients_on(flow) {
            self.on_client(now, number, out, |client, effects| match client {
                ClientMachine::Invite(machine) => machine.handle_transport_failure(effects),
                ClientMachine::Other(machine) => machine.handle_transport_failure(effects),
            });
        }
    }

    /// Lets everything act whose time has come; always allowed.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<UaOutput>) {
        while let Some(owner) = self.timers.pop_due(now.at) {
            match owner {
                Owner::Server(token) => self.on_server_timeout(now, token, out),
                Owner::Client(number) => {
                    self.on_client(now, number, out, |client, effects| match client {
                        ClientMachine::Invite(machine) => machine.handle_timeout(now.at, effects),
                        ClientMachine::Other(machine) => machine.handle_timeout(now.at, effects),
                    });
                }
                Owner::Session(session) => self.on_session_timeout(now, session, out),
                Owner::Errand(id) => self.on_errand_timeout(now, id, out),
            }
        }
    }

    /// When `handle_timeout` is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Opens or closes the door for new calls.
    pub fn set_availability(&mut self, availability: Availability) {
        self.availability = availability;
    }

    pub fn availability(&self) -> Availability {
        self.availability
    }

    /// The dialog of a session that is not gone.
    pub fn dialog(&self, session: SessionId) -> Option<&Dialog> {
        self.sessions.get(&session).map(|state| &state.dialog)
    }

    /// Transactions of both sides, those that only absorb copies included.
    pub fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Sessions that are not gone, calls of ours that still ring included.
    pub fn sessions(&self) -> usize {
        self.sessions.len() + self.errands.dials()
    }

    pub fn counters(&self) -> &UaCounters {
        &self.counters
    }

    pub fn config(&self) -> &UaConfig {
        &self.config
    }

    fn on_request(&mut self, now: Now, flow: Flow, request: Request, out: &mut Vec<UaOutput>) {
        self.counters.requests += 1;
        match request.method() {
            Method::Ack => return self.on_ack(now, flow, &request, out),
            Method::Cancel => return self.on_cancel(now, flow, &request, out),
            _ => {}
        }
        let key = ServerKey::of(&request, &flow);
        if let Some(token) = self.transactions.find(&key) {
            self.on_copy(token, flow, out);
        } else if request.to().tag().is_some() {
            self.on_request_inside(now, flow, request, key, out);
        } else {
            self.on_request_outside(flow, request, key, out);
        }
    }

    /// A copy of a request gets the same answer, at the source that it came from now.
    fn on_copy(&mut self, token: RequestToken, flow: Flow, out: &mut Vec<UaOutput>) {
        self.counters.copies += 1;
        let Some(record) = self.transactions.server_mut(token) else { return };
        record.flow = flow;
        let mut effects = Vec::new();
        match &mut record.machine {
            ServerMachine::Invite(machine) => machine.handle_invite(&mut effects),
            ServerMachine::Other(machine) => machine.handle_request(&mut effects),
        }
        self.carry_out(token, effects, out);
    }

    fn on_response(&mut self, now: Now, flow: Flow, response: Response, out: &mut Vec<UaOutput>) {
        let found = ClientKey::of(&response).and_then(|key| self.transactions.find_client(&key));
        let found = found.and_then(|number| Some((number, self.transactions.client(number)?)));
        let Some((number, record)) = found else {
            self.counters.stray_responses += 1;
            return;
        };
        let id = record.errand;
        if let (ClientMachine::Invite(_), Some(id)) = (&record.machine, id) {
            return self.on_invite_response(now, (id, number), flow, response, out);
        }
        let errand = id.and_then(|id| self.errands.get_mut(id));
        let attempt = errand.and_then(|errand| errand.attempt_mut(number)).cloned();
        let code = response.code();
        let mut is_final = false;
        self.on_client(now, number, out, |client, effects| {
            let ClientMachine::Other(machine) = client else { return };
            if code < 200 {
                machine.handle_provisional(effects);
            } else {
                machine.handle_final(now.at, effects);
                is_final = effects.contains(&Effect::PassUp);
            }
        });
        if let (Some(id), Some(attempt), true) = (id, attempt, is_final) {
            let hop = attempt.hop.clone();
            self.on_final(now, id, attempt, Answer { response, flow, hop }, out);
            self.settle_errand(id);
        }
    }

    fn on_server_timeout(&mut self, now: Now, token: RequestToken, out: &mut Vec<UaOutput>) {
        let Some(record) = self.transactions.server_mut(token) else { return };
        let mut effects = Vec::new();
        match &mut record.machine {
            ServerMachine::Invite(machine) => machine.handle_timeout(now.at, &mut effects),
            ServerMachine::Other(machine) => machine.handle_timeout(now.at, &mut effects),
        }
        self.carry_out(token, effects, out);
    }

    fn on_session_timeout(&mut self, now: Now, session: SessionId, out: &mut Vec<UaOutput>) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let mut effects = Vec::new();
        state.handle_timeout(now.at, &self.config.timing, &mut effects);
        for effect in effects {
            match effect {
                SessionEffect::Repeat { flow, answer } => {
                    out.push(UaOutput::Send { flow, to: Destination::Peer, bytes: answer });
                }
                SessionEffect::NeverAcked => self.on_never_acked(now, session, out),
                SessionEffect::OfferAgain => self.offer_again(now, session, out),
                SessionEffect::Refer(effect) => self.tell_referring(session, effect, out),
                SessionEffect::Timer(effect) => self.on_session_timer(now, session, effect, out),
                SessionEffect::Reliable(effect) => self.on_reliable(now, session, effect, out),
            }
        }
        self.settle_session(session);
    }

    /// §13.3.1.4: the call layer ends the call, unless it wanted that before.
    fn on_never_acked(&mut self, now: Now, session: SessionId, out: &mut Vec<UaOutput>) {
        self.counters.never_acknowledged += 1;
        let Some(state) = self.sessions.get(&session) else { return };
        match &state.stage {
            Stage::Leaving { reason } => {
                let reason = reason.clone();
                self.send_bye(now, session, reason.as_deref(), out);
            }
            Stage::Early | Stage::Established => {
                out.push(UaOutput::Event(UaEvent::NeverAcked { session }));
            }
            Stage::Left => {}
        }
    }

    /// Carries out what a server transaction asks, then drops it when it has ended.
    fn carry_out(&mut self, token: RequestToken, effects: Vec<Effect>, out: &mut Vec<UaOutput>) {
        for effect in effects {
            match effect {
                Effect::Send(bytes) => self.send_answer(token, bytes, out),
                Effect::OweTrying => self.send_trying(token, out),
                Effect::TimedOut => self.on_server_timed_out(token),
                Effect::PassUp | Effect::TransportFailed => {}
            }
        }
        self.transactions.settle(token, &mut self.timers);
    }

    /// Timer H, or a request that the call layer forgot.
    fn on_server_timed_out(&mut self, token: RequestToken) {
        let Some(record) = self.transactions.server(token) else { return };
        match &record.machine {
            ServerMachine::Invite(_) => self.counters.never_acknowledged += 1,
            ServerMachine::Other(_) => {
                self.counters.unanswered += 1;
                let session = record.session;
                match self.sessions.get_mut(&session) {
                    Some(state) => drop(state.reoffer.take_if(|open| *open == token)),
                    None => self.close_early_offer(session, token, None),
                }
            }
        }
    }

    /// Enters the next deadline of a session.
    fn settle_session(&mut self, session: SessionId) {
        let deadline = self.sessions.get(&session).and_then(|state| state.next_deadline());
        self.timers.set(Owner::Session(session), deadline);
    }

    /// The one end of a session: after it nothing names it any more. Copies of its INVITE are
    /// absorbed without an answer.
    fn remove_session(&mut self, session: SessionId) -> Option<InviteSession> {
        let mut state = self.sessions.remove(&session)?;
        self.dialogs.remove(state.dialog.local_tag());
        self.timers.set(Owner::Session(session), None);
        if state.stage == Stage::Early {
            self.transactions.end_early(state.source);
        } else {
            self.ended.note(&state.dialog);
        }
        if let Some(token) = state.invite {
            self.forget_answer(token);
        }
        for token in state.forget_answers() {
            self.forget_answer(token);
        }
        Some(*state)
    }

    /// Our BYE is over.
    fn close(&mut self, session: SessionId, outcome: ByeOutcome, out: &mut Vec<UaOutput>) {
        if self.remove_session(session).is_some() {
            out.push(UaOutput::Event(UaEvent::Closed { session, outcome }));
        }
    }
}
