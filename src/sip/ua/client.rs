//! The client side (RFC 3261 §8.1, RFC 3263 §4): the one place that finds the way of every request of
//! ours, INVITE, REGISTER and BYE alike. A flow that stands is tried first; else the target is located
//! and its hops are tried in order, those that died lately left out. The next hop is tried on a
//! connect fault, Timer B or F, 503, or silence of an INVITE over UDP; a challenge is answered on the
//! hop that made it. What an INVITE's answers mean is in `dialling`.
//!
//! Credentials go with the request that they were given for and never to another target.

use super::draft::{Attempt, Draft, OutgoingRequest, RequestId};
use super::errand::{Answer, Errand, ErrandId, Phase, Purpose, Sent, Step};
use super::event::DialFault;
use super::table::{ClientMachine, ClientRecord};
use super::{ByeOutcome, SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::{Flow, Now, Transport};
use crate::sip::destination::Destination;
use crate::sip::dialog::{Dialog, Way};
use crate::sip::digest::DigestClient;
use crate::sip::msg::{Method, Response};
use crate::sip::target::{ConnectFault, Hop, LocateFault};
use crate::sip::transaction::{Client, ClientInvite, ClientKey, Effect};
use bytes::Bytes;

/// A request as it goes out, and the headers in it that answer a challenge.
type Written = (Bytes, Vec<(&'static str, String)>);

/// Requests over UDP that are larger go over TCP where they can (§18.1.1).
const UDP_REQUEST_BYTES_MAX: usize = 1_300;

impl UserAgent {
    /// Sends a request outside dialogs that is no INVITE. Answered by one [`UaEvent::Responded`] or
    /// [`UaEvent::RequestFailed`].
    pub fn send(
        &mut self,
        now: Now,
        request: OutgoingRequest,
        out: &mut Vec<UaOutput>,
    ) -> RequestId {
        debug_assert!(request.method != Method::Invite, "an INVITE is dialled");
        let id = RequestId(self.errands.next());
        let tag = request.from_tag.clone().unwrap_or_else(|| self.entropy.token(128));
        self.begin_outside(now, Purpose::Send(id), request, &tag, out);
        id
    }

    /// The shell's answer to [`UaOutput::Locate`]. One that nobody waits for any more is ignored.
    pub fn handle_located(
        &mut self,
        now: Now,
        ticket: u64,
        result: Result<Vec<Hop>, LocateFault>,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(id) = self.errands.redeem(ticket) else { return };
        let Some(errand) = self.errands.get(id) else { return };
        if errand.step != (Step::Locating { ticket }) {
            return;
        }
        let hops = result.and_then(|hops| match hops.is_empty() {
            true => Err(LocateFault::NoSuchName),
            false => Ok(self.errands.dead.living(now.at, hops)),
        });
        let Some(errand) = self.errands.get_mut(id) else { return };
        match hops {
            Ok(hops) => {
                errand.hops = hops;
                self.advance(now, id, DialFault::TimedOut, out);
            }
            Err(fault) => self.advance(now, id, DialFault::NotLocated(fault), out),
        }
    }

    /// The shell's answer to [`UaOutput::Connect`]. One that nobody waits for any more is ignored.
    pub fn handle_connected(
        &mut self,
        now: Now,
        ticket: u64,
        result: Result<Flow, ConnectFault>,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(id) = self.errands.redeem(ticket) else { return };
        let Some(errand) = self.errands.get(id) else { return };
        let hop = match &errand.step {
            Step::Connecting { ticket: waited, hop } if *waited == ticket => hop.clone(),
            _ => return,
        };
        match result {
            Ok(flow) => self.begin_attempt(now, id, (flow, Destination::Peer), Some(hop), out),
            Err(fault) => {
                self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
                self.advance(now, id, DialFault::NotConnected(fault), out);
            }
        }
    }

    /// Requests of ours that are under way, those included that only wait for late answers.
    pub fn requests_under_way(&self) -> usize {
        self.errands.len()
    }

    /// Begins a request outside dialogs: on the flow that was named, or by its target.
    pub(super) fn begin_outside(
        &mut self,
        now: Now,
        purpose: Purpose,
        mut request: OutgoingRequest,
        tag: &str,
        out: &mut Vec<UaOutput>,
    ) -> ErrandId {
        let call_id = request.call_id.take().unwrap_or_else(|| self.entropy.token(128));
        let (credentials, first) = (request.credentials.take(), request.flow.take());
        let target = request.target();
        let mut errand = Errand::new(purpose, Draft::outside(request, tag, call_id), credentials);
        errand.first = first.map(|flow| (flow, Destination::Peer));
        let fault = match target {
            Ok(target) => {
                errand = errand.going_to(target);
                DialFault::TimedOut
            }
            Err(fault) => DialFault::BadTarget(fault),
        };
        let id = self.errands.insert(errand);
        self.advance(now, id, fault, out);
        id
    }

    /// Begins a request in a dialog, on the way that the dialog knows. On a connection that breaks
    /// meanwhile the target is located.
    pub(super) fn begin_inside(
        &mut self,
        now: Now,
        purpose: Purpose,
        draft: Draft,
        dialog: &Dialog,
        credentials: Option<DigestClient>,
        out: &mut Vec<UaOutput>,
    ) {
        let mut errand = Errand::new(purpose, draft, credentials);
        let way = dialog.way();
        if let Way::Flow(flow, _) = &way
            && flow.transport.is_reliable()
        {
            let mut without = dialog.clone();
            without.lose_flow();
            if let Way::Target(target, _) = without.way() {
                errand = errand.going_to(target);
            }
        }
        match way {
            Way::Flow(flow, to) => errand.first = Some((flow, to)),
            Way::Target(target, last) => {
                errand = errand.going_to(target);
                errand.last = last;
            }
            Way::None => {}
        }
        let id = self.errands.insert(errand);
        self.advance(now, id, DialFault::FlowLost, out);
    }

    /// Takes the next way of a request; `fault` is why the last one was no good.
    pub(super) fn advance(
        &mut self,
        now: Now,
        id: ErrandId,
        fault: DialFault,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.deadline = None;
        if let Some(way) = errand.first.take() {
            return self.begin_attempt(now, id, way, None, out);
        }
        if let Some(hop) = errand.hops.pop_front() {
            return self.connect(now, id, hop, out);
        }
        if let Some(target) = errand.target.take() {
            let ticket = self.errands.ticket(id);
            let seed = self.entropy.u64();
            if let Some(errand) = self.errands.get_mut(id) {
                errand.step = Step::Locating { ticket };
                errand.deadline = Some(now.at + self.config.locate_patience);
            }
            self.settle_errand(id);
            return out.push(UaOutput::Locate { ticket, target, seed });
        }
        if let Some(flow) = errand.last.take() {
            return self.begin_attempt(now, id, (flow, Destination::Peer), None, out);
        }
        self.give_up(now, id, fault, out);
    }

    fn connect(&mut self, now: Now, id: ErrandId, hop: Hop, out: &mut Vec<UaOutput>) {
        let ticket = self.errands.ticket(id);
        let Some(errand) = self.errands.get_mut(id) else { return };
        let patience = match errand.hops.is_empty() {
            true => self.config.connect_patience,
            false => self.config.connect_patience_with_others,
        };
        errand.step = Step::Connecting { ticket, hop: hop.clone() };
        errand.deadline = Some(now.at + patience);
        self.settle_errand(id);
        out.push(UaOutput::Connect { ticket, hop });
    }

    /// Sends the request on a flow: a new branch, a new transaction.
    fn begin_attempt(
        &mut self,
        now: Now,
        id: ErrandId,
        (flow, to): (Flow, Destination),
        hop: Option<Hop>,
        out: &mut Vec<UaOutput>,
    ) {
        let branch = format!("{}{}", self.branch_start, self.entropy.token(128));
        let via = self.via(&flow, &branch);
        let Some((bytes, authorization)) = self.write_attempt(id, &flow, &via) else {
            return self.give_up(now, id, DialFault::Unwritable, out);
        };
        let Some(errand) = self.errands.get_mut(id) else { return };
        let is_large = flow.transport == Transport::Udp && bytes.len() > UDP_REQUEST_BYTES_MAX;
        if let Some(hop) = &hop
            && is_large
            && errand.may_use_tcp
            && errand.udp_for.as_ref() != Some(hop)
        {
            errand.prefer_tcp_of(hop.clone());
            return self.advance(now, id, DialFault::TimedOut, out);
        }
        if let Purpose::Ack { dial, tag } = &errand.purpose {
            let (dial, tag) = (*dial, tag.clone());
            return self.send_ack_once(id, dial, &tag, Sent { flow, to, bytes }, out);
        }
        let is_invite = errand.draft.method == Method::Invite;
        let waits_for_others =
            is_invite && !flow.transport.is_reliable() && errand.has_other_ways();
        errand.deadline = waits_for_others.then(|| now.at + self.config.silence);
        let cseq = errand.draft.cseq;
        let key = ClientKey { branch: branch.clone().into(), method: errand.draft.method.clone() };
        let record_of =
            |machine| ClientRecord { machine, flow, to: to.clone(), errand: Some(id), key };
        let (reliable, timing) = (flow.transport.is_reliable(), self.config.timing);
        let mut effects = Vec::new();
        let machine = if is_invite {
            let machine = ClientInvite::new(now.at, timing, reliable, bytes, &mut effects);
            ClientMachine::Invite(machine)
        } else {
            ClientMachine::Other(Client::new(now.at, timing, reliable, bytes, &mut effects))
        };
        let number = self.transactions.insert_client(record_of(machine));
        errand.step = Step::Trying { number };
        let (heard, cancelled) = (false, false);
        errand.attempts.push(Attempt {
            number,
            via,
            branch,
            cseq,
            flow,
            to,
            hop,
            authorization,
            heard,
            cancelled,
        });
        self.settle_errand(id);
        self.carry_out_client(now, number, effects, out);
    }

    /// The bytes of the request for one try, with the answer to a challenge; `None`, and counted,
    /// when it cannot be written.
    fn write_attempt(&mut self, id: ErrandId, flow: &Flow, via: &str) -> Option<Written> {
        let errand = self.errands.get_mut(id)?;
        let draft = &errand.draft;
        let body = draft.body.as_ref().map_or(&[][..], |(_, body)| body);
        let authorization = match (&mut errand.credentials, &draft.method) {
            // An ACK repeats what its INVITE had; it stands in the draft.
            (Some(client), method) if *method != Method::Ack => {
                client.authorize(method, &draft.request_uri, body, &mut self.entropy)
            }
            _ => Vec::new(),
        };
        match draft.written(&self.config, flow, via, &authorization).finish() {
            Ok(bytes) => Some((bytes, authorization)),
            Err(_) => {
                self.counters.unwritable += 1;
                None
            }
        }
    }

    pub(super) fn via(&self, flow: &Flow, branch: &str) -> String {
        let address = self.config.advertised(flow);
        format!("SIP/2.0/{} {address};rport;branch={branch}", flow.transport.via_token())
    }

    /// A final answer to a request that is no INVITE.
    pub(super) fn on_final(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: Attempt,
        answer: Answer,
        out: &mut Vec<UaOutput>,
    ) {
        self.note_answered(now, &attempt, answer.response.code());
        if !self.errands.get(id).is_some_and(|errand| errand.is_current(attempt.number)) {
            return;
        }
        match self.answer_challenge(now, id, &attempt, &answer.response, out) {
            Some(Ok(())) => return,
            Some(Err(fault)) => return self.give_up_for(id, fault, answer, out),
            None => {}
        }
        if answer.response.code() == 503 && self.go_elsewhere(now, id, &answer, out) {
            return;
        }
        self.report(id, answer, out);
    }

    /// Whether a hop lives, by what it answered.
    pub(super) fn note_answered(&mut self, now: Now, attempt: &Attempt, code: u16) {
        let Some(hop) = &attempt.hop else { return };
        if code == 503 {
            self.errands.dead.note(now.at, hop, self.config.dead_hop_span);
        } else {
            self.errands.dead.forgive(hop);
        }
    }

    /// Answers a 401 or 407 on the hop that sent it. `None` when there is nothing to answer or nobody
    /// to answer it.
    pub(super) fn answer_challenge(
        &mut self,
        now: Now,
        id: ErrandId,
        attempt: &Attempt,
        response: &Response,
        out: &mut Vec<UaOutput>,
    ) -> Option<Result<(), DialFault>> {
        let client = self.errands.get_mut(id)?.credentials.as_mut()?;
        if !matches!(response.code(), 401 | 407) {
            client.accepted(response);
            return None;
        }
        if let Err(fault) = client.challenged(response) {
            return Some(Err(DialFault::Digest(fault)));
        }
        let errand = self.errands.get_mut(id)?;
        errand.draft.cseq += 1;
        let way = (attempt.flow, attempt.to.clone());
        self.begin_attempt(now, id, way, attempt.hop.clone(), out);
        Some(Ok(()))
    }

    /// 503: asks the next hop, if there is one, and keeps the answer for when it has none better.
    pub(super) fn go_elsewhere(
        &mut self,
        now: Now,
        id: ErrandId,
        answer: &Answer,
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(errand) = self.errands.get_mut(id) else { return false };
        if !errand.has_other_ways() {
            return false;
        }
        errand.unavailable = Some(Box::new(answer.clone()));
        self.advance(now, id, DialFault::TimedOut, out);
        true
    }

    /// The transaction of a try timed out or lost its flow.
    pub(super) fn on_attempt_lost(
        &mut self,
        now: Now,
        id: ErrandId,
        number: u64,
        fault: DialFault,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        if !errand.is_current(number) {
            return;
        }
        let attempt =
            errand.attempt_mut(number).map(|attempt| (attempt.hop.clone(), attempt.heard));
        let (hop, heard) = attempt.unwrap_or_default();
        let is_dialled = errand.dial_mut().is_some();
        let cancelling = matches!(errand.phase(), Some(Phase::Cancelling { .. }));
        // What rang once is not rung elsewhere too.
        if (is_dialled && heard) || cancelling {
            return self.give_up(now, id, fault, out);
        }
        if let Some(hop) = hop {
            self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
        }
        self.advance(now, id, fault, out);
    }

    /// The present step of a request took too long.
    pub(super) fn on_errand_timeout(&mut self, now: Now, id: ErrandId, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.deadline = None;
        match errand.step.clone() {
            Step::Locating { ticket } => {
                self.errands.redeem(ticket);
                self.advance(now, id, DialFault::NotLocated(LocateFault::Unanswered), out);
            }
            Step::Connecting { ticket, hop } => {
                self.errands.redeem(ticket);
                self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
                self.advance(now, id, DialFault::NotConnected(ConnectFault::Unreachable), out);
            }
            Step::Trying { number } => self.abandon(now, id, number, out),
            Step::Over => {}
        }
    }

    /// Nobody answered an INVITE on this hop, and there are others.
    fn abandon(&mut self, now: Now, id: ErrandId, number: u64, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        if !matches!(errand.phase(), Some(Phase::Calling)) {
            return;
        }
        if let Some(hop) = errand.attempt_mut(number).and_then(|attempt| attempt.hop.clone()) {
            self.errands.dead.note(now.at, &hop, self.config.dead_hop_span);
        }
        self.on_client(now, number, out, |client, _| {
            if let ClientMachine::Invite(invite) = client {
                invite.abandoned();
            }
        });
        self.advance(now, id, DialFault::TimedOut, out);
    }

    /// No way is left. An INVITE that was abandoned in silence is taken up again while it may still
    /// be answered; else the request has failed.
    pub(super) fn give_up(
        &mut self,
        now: Now,
        id: ErrandId,
        fault: DialFault,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        if let Some(answer) = errand.unavailable.take() {
            return self.report(id, *answer, out);
        }
        let silent = errand.attempts.iter().rev().find(|attempt| {
            !attempt.heard && !attempt.cancelled && !errand.is_current(attempt.number)
        });
        let silent = silent.map(|attempt| attempt.number);
        if let Some(number) = silent
            && matches!(errand.phase(), Some(Phase::Calling))
            && self.transactions.client_mut(number).is_some()
        {
            errand.step = Step::Trying { number };
            return self.on_client(now, number, out, |client, _| {
                if let ClientMachine::Invite(invite) = client {
                    invite.resumed(now.at);
                }
            });
        }
        self.fail(id, fault, out);
    }

    /// A challenge that cannot be answered: the request has failed for this, whatever else is left.
    pub(super) fn give_up_for(
        &mut self,
        id: ErrandId,
        fault: DialFault,
        answer: Answer,
        out: &mut Vec<UaOutput>,
    ) {
        match self.errands.get(id).map(|errand| &errand.purpose) {
            Some(Purpose::Dial(_) | Purpose::Send(_)) => self.fail(id, fault, out),
            _ => self.report(id, answer, out),
        }
    }

    fn fail(&mut self, id: ErrandId, fault: DialFault, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.step = Step::Over;
        errand.deadline = None;
        let outcome = match &fault {
            DialFault::TimedOut => ByeOutcome::TimedOut,
            _ => ByeOutcome::FlowLost,
        };
        match &errand.purpose {
            Purpose::Dial(_) => self.end_dial(id, Ending::Failed(fault), out),
            Purpose::Send(request) => {
                let request = *request;
                out.push(UaOutput::Event(UaEvent::RequestFailed { request, fault }));
            }
            Purpose::Bye(session) => {
                let session = *session;
                self.close(session, outcome, out);
            }
            Purpose::Ack { .. } | Purpose::Farewell => {}
        }
        self.settle_errand(id);
    }

    /// The final answer of a request, for whoever asked.
    pub(super) fn report(&mut self, id: ErrandId, answer: Answer, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.step = Step::Over;
        errand.deadline = None;
        match &errand.purpose {
            Purpose::Dial(_) => self.end_dial(id, Ending::Refused(answer.response), out),
            Purpose::Send(request) => {
                let (request, credentials) = (*request, errand.credentials.clone().map(Box::new));
                let Answer { response, flow, hop } = answer;
                let response = Box::new(response);
                out.push(UaOutput::Event(UaEvent::Responded {
                    request,
                    response,
                    flow,
                    hop,
                    credentials,
                }));
            }
            Purpose::Bye(session) => {
                let (session, code) = (*session, answer.response.code());
                self.close(session, ByeOutcome::Answered(code), out);
            }
            Purpose::Ack { .. } | Purpose::Farewell => {}
        }
        self.settle_errand(id);
    }

    /// Enters the next deadline of a request, and drops it when nothing of it is awaited any more.
    pub(super) fn settle_errand(&mut self, id: ErrandId) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.attempts.retain(|attempt| self.transactions.client(attempt.number).is_some());
        let deadline = errand.deadline;
        let is_done = errand.step == Step::Over && errand.attempts.is_empty();
        self.timers.set(super::Owner::Errand(id), deadline.filter(|_| !is_done));
        if is_done {
            self.errands.remove(id);
        }
    }

    /// Lets one of our requests act and carries out what it asks.
    pub(super) fn on_client(
        &mut self,
        now: Now,
        number: u64,
        out: &mut Vec<UaOutput>,
        act: impl FnOnce(&mut ClientMachine, &mut Vec<Effect>),
    ) {
        let Some(record) = self.transactions.client_mut(number) else { return };
        let mut effects = Vec::new();
        act(&mut record.machine, &mut effects);
        self.carry_out_client(now, number, effects, out);
    }

    /// Carries out what one of our requests asks, then drops it when it has ended.
    pub(super) fn carry_out_client(
        &mut self,
        now: Now,
        number: u64,
        effects: Vec<Effect>,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(record) = self.transactions.client_mut(number) else { return };
        let (flow, to, errand) = (record.flow, record.to.clone(), record.errand);
        let mut lost = None;
        for effect in effects {
            match effect {
                Effect::Send(bytes) => out.push(UaOutput::Send { flow, to: to.clone(), bytes }),
                Effect::TimedOut => lost = Some(DialFault::TimedOut),
                Effect::TransportFailed => lost = Some(DialFault::FlowLost),
                Effect::PassUp | Effect::OweTrying => {}
            }
        }
        if let (Some(id), Some(fault)) = (errand, lost) {
            self.on_attempt_lost(now, id, number, fault, out);
        }
        self.transactions.settle_client(number, &mut self.timers);
        if let Some(id) = errand {
            self.settle_errand(id);
        }
    }

    /// Sends our BYE; no 2xx is repeated from here on.
    pub(super) fn send_bye(
        &mut self,
        now: Now,
        session: SessionId,
        reason: Option<&str>,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.stage = crate::sip::session::Stage::Left;
        let forgotten = state.forget_answers();
        let (dialog, credentials) = (state.dialog.clone(), state.credentials.clone());
        let cseq = dialog.next_cseq();
        state.dialog.sent(cseq);
        self.settle_session(session);
        for token in forgotten {
            self.forget_answer(token);
        }
        let mut draft = Draft::inside(&dialog, Method::Bye, cseq);
        if let Some(reason) = reason.filter(|reason| !reason.contains(['\r', '\n', '\0'])) {
            draft.headers.push(("Reason".to_owned(), reason.to_owned()));
        }
        self.begin_inside(now, Purpose::Bye(session), draft, &dialog, credentials, out);
    }
}

/// How a dial that was not answered ended.
#[derive(Debug)]
pub(super) enum Ending {
    Refused(Response),
    Failed(DialFault),
    /// Cancelled before anything was sent.
    Unsent,
}
