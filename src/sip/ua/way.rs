//! The way of every request of ours (RFC 3261 §8.1.2, RFC 3263 §4), INVITE, REGISTER and BYE alike. A
//! flow that stands is tried first; else the target is located and its hops are tried in order, those
//! that died lately left out. Each try is a transaction of its own. What its answers mean is in
//! `client`.
//!
//! A request in a dialog gets its CSeq number as it goes out, so that numbers rise on the wire.

use super::draft::{Attempt, Draft, OutgoingRequest, UNNUMBERED};
use super::errand::{Errand, ErrandId, Purpose, Sent, Step};
use super::event::DialFault;
use super::table::{ClientMachine, ClientRecord};
use super::{SessionId, UaOutput, UserAgent};
use crate::ground::{Flow, Now, Transport};
use crate::sip::destination::Destination;
use crate::sip::dialog::{Dialog, Way};
use crate::sip::digest::DigestClient;
use crate::sip::msg::Method;
use crate::sip::session_timer::Asked;
use crate::sip::target::{ConnectFault, Hop, LocateFault};
use crate::sip::transaction::{Client, ClientInvite, ClientKey};
use bytes::Bytes;

/// A request as it goes out, and the headers in it that answer a challenge.
type Written = (Bytes, Vec<(&'static str, String)>);

/// Requests over UDP that are larger go over TCP where they can (§18.1.1).
const UDP_REQUEST_BYTES_MAX: usize = 1_300;

impl UserAgent {
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
        let mut draft = Draft::outside(request, tag, call_id);
        if draft.method == Method::Invite {
            draft.timer = Asked::first(self.config.session_interval);
        }
        let mut errand = Errand::new(purpose, draft, credentials);
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
    pub(super) fn begin_attempt(
        &mut self,
        now: Now,
        id: ErrandId,
        (flow, to): (Flow, Destination),
        hop: Option<Hop>,
        out: &mut Vec<UaOutput>,
    ) {
        if self.asks_for_body(id, (flow, &to), hop.as_ref(), out) {
            return;
        }
        if !self.number(id) {
            return self.drop_errand(id);
        }
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
        if let Purpose::Ack { invite, tag } = &errand.purpose {
            let (invite, tag) = (*invite, tag.clone());
            return self.send_ack_once(id, invite, &tag, Sent { flow, to, bytes }, out);
        }
        let is_invite = errand.draft.method == Method::Invite;
        // What a flow that stood before leads to is mostly what its target is found to be: a peer that
        // takes its time would be asked twice.
        let is_found = errand.dial().is_some() && hop.is_some();
        let waits_for_others = is_found && !flow.transport.is_reliable() && errand.has_other_ways();
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
        let (body, heard, cancelled) = (errand.draft.body.clone(), false, false);
        errand.attempts.push(Attempt {
            number,
            via,
            branch,
            cseq,
            flow,
            to,
            hop,
            authorization,
            body,
            heard,
            cancelled,
        });
        self.settle_errand(id);
        self.carry_out_client(now, number, effects, out);
    }

    /// Gives a request in a dialog its CSeq number when it has none yet. False when its session is gone.
    fn number(&mut self, id: ErrandId) -> bool {
        let Some(errand) = self.errands.get(id) else { return false };
        if errand.draft.cseq != UNNUMBERED {
            return true;
        }
        let cseq = match &errand.purpose {
            Purpose::Prack { invite, tag, session: None } => {
                let (invite, tag) = (*invite, tag.clone());
                self.number_in_fork(invite, &tag)
            }
            purpose => {
                let (session, is_refer) = (purpose.session(), matches!(purpose, Purpose::Refer(_)));
                session.and_then(|session| self.number_in_session(session, is_refer))
            }
        };
        let (Some(cseq), Some(errand)) = (cseq, self.errands.get_mut(id)) else { return false };
        errand.draft.cseq = cseq;
        true
    }

    fn number_in_session(&mut self, session: SessionId, is_refer: bool) -> Option<u32> {
        let state = self.sessions.get_mut(&session)?;
        let cseq = state.dialog.next_cseq();
        state.dialog.sent(cseq);
        if let Some(referring) = state.referring.as_mut().filter(|_| is_refer) {
            referring.sent(cseq);
        }
        Some(cseq)
    }

    fn number_in_fork(&mut self, invite: ErrandId, tag: &str) -> Option<u32> {
        let dial = self.errands.get_mut(invite)?.dial_mut()?;
        let dialog = &mut dial.forks.get_mut(tag)?.dialog;
        let cseq = dialog.next_cseq();
        dialog.sent(cseq);
        Some(cseq)
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
}
