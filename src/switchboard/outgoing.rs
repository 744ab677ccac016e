//! Outgoing calls: a client's request on its way to a call, and what the user agent says of it. Who
//! may be called is decided in `outgoing`, what the call does in `call::outbound`.

use super::creations::Claim;
use super::{Command, SDP, Switchboard};
use crate::call::leg::RenewedOffer;
use crate::call::outbound::{Outgoing, ServiceRefusal};
use crate::call::{Call, Opening, record};
use crate::context::Caller;
use crate::ground::{CallKey, Flow, FlowId, JobId, Now, StreamId, Transport};
use crate::outgoing::{DialRefusal, OutgoingCallRequest, Wanted, needs_tls};
use crate::refusal::Refusal;
use crate::routing::Route;
use crate::sdp::{LocalMedia, OfferFault};
use crate::sip::msg::{Host, Method, NameAddr, Uri};
use crate::sip::ua::{Body, OutgoingRequest, SessionId};
use crate::ultravox::create_call::Created;
use serde_json::{Map, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

impl Switchboard {
    /// A client wants a call. It is answered once: with the created call, or with the refusal.
    pub(super) fn on_dial_requested(&mut self, now: Now, asked: u64, request: OutgoingCallRequest) {
        if let Err(refusal) = self.place(now, asked, request) {
            self.counters.outgoing_refused += 1;
            self.answer_dial(asked, Err(refusal));
        }
    }

    pub(super) fn answer_dial(&mut self, asked: u64, result: Result<Value, DialRefusal>) {
        self.out.push_back(Command::DialAnswered { asked, result: Box::new(result) });
    }

    fn place(
        &mut self,
        now: Now,
        asked: u64,
        request: OutgoingCallRequest,
    ) -> Result<(), DialRefusal> {
        let policy = Arc::clone(&self.settings.outgoing);
        let wanted = Wanted::read(request, &policy)?;
        let refusals = self.settings.call.refusals;
        let unavailable =
            |refusal: Refusal| DialRefusal::Unavailable { words: refusal.answer(refusals).detail };
        self.check_capacity().map_err(unavailable)?;
        let username = wanted.credentials.as_ref().map(|own| own.username.as_str());
        self.check_keys(&wanted.callee.uri, &wanted.from, username).map_err(unavailable)?;
        let live = self.dialled_now();
        self.dialled
            .take(now.at, &policy, live)
            .map_err(|retry_after| DialRefusal::TooMany { retry_after })?;
        let port = self.ports.take(now.at, &mut self.entropy);
        let port = port.ok_or_else(|| unavailable(Refusal::PortsExhausted))?;
        let flow = nowhere(&wanted.callee.uri);
        let target = self.settings.call.srtp.policy_named(&wanted.callee.uri);
        let codecs = self.settings.call.codecs.clone();
        let negotiated = match self.make_offer(flow, port, codecs, target) {
            Ok(negotiated) => negotiated,
            Err(refusal) => {
                self.ports.put_back(now.at, port);
                return Err(unavailable(refusal));
            }
        };
        let key = self.next_key();
        let call_id = self.entropy.token(128);
        let cdr = record::open_outgoing(key, now, &wanted, call_id);
        let opening = Opening {
            key,
            session: SessionId::NONE,
            flow,
            settings: self.settings.call.clone(),
            route: Route::None,
            agent_id: wanted.agent_id.clone(),
            question: None,
            context: Map::new(),
            caller: Caller::default(),
            port,
            negotiated,
            own: self.own.clone(),
        };
        let mut call = Call::new(now, opening, cdr);
        call.outgoing = Some(Box::new(Outgoing::new(wanted, policy, asked)));
        let cname = self.entropy.token(96);
        self.calls.insert(key, Box::new(call));
        self.set_availability();
        self.counters.outgoing += 1;
        self.step(now, key, |call, out| call.begin_outgoing(now, cname, out));
        Ok(())
    }

    /// Whether an INVITE to this callee can be made an offer at all. The way of a registration may be
    /// TLS whatever the URI says: then it decides, once the INVITE is to go out.
    pub(super) fn check_keys(
        &self,
        uri: &str,
        from: &str,
        username: Option<&str>,
    ) -> Result<(), Refusal> {
        match self.settings.call.srtp.may_call(uri)
            || self.goes_by_registration(uri, from, username)
        {
            true => Ok(()),
            false => Err(Refusal::Offer(OfferFault::KeysInClear)),
        }
    }

    pub(super) fn on_outgoing_call(
        &mut self,
        now: Now,
        job: JobId,
        result: Result<Created, ServiceRefusal>,
    ) {
        let Some((key, _)) = self.job_done(job) else { return };
        let claim = Claim { key, stream: StreamId::FIRST };
        let fault = result.as_ref().err().map(|refused| refused.fault);
        self.creations.answered(now.at, claim, fault);
        self.step(now, key, |call, out| call.on_outgoing_call(now, result, out));
    }

    /// Sends the INVITE to the present callee: a new session each time, the same Call-ID.
    pub(super) fn dial(&mut self, now: Now, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(outgoing) = &call.outgoing else { return };
        let uri = &outgoing.callee.uri;
        let to = format!("<{uri}>");
        let mut invite = OutgoingRequest::new(Method::Invite, uri, &outgoing.wanted.from, &to);
        invite.call_id = Some(call.cdr.sip_call_id.clone());
        invite.body_by_way = true;
        invite.credentials = outgoing.credentials_here();
        self.send_by_registration(&mut invite);
        let mut outputs = Vec::new();
        let session = self.ua.dial(now, invite, &mut outputs);
        if let Some(call) = self.calls.get_mut(&key) {
            let before = std::mem::replace(&mut call.first.session, session);
            self.by_session.remove(&before);
        }
        self.by_session.insert(session, key);
        self.take_ua_outputs(now, outputs);
    }

    /// An INVITE of ours is to go out on this flow: its offer gives the address of the listener that the
    /// peer is spoken with over, on the terms for SRTP of that way.
    pub(super) fn on_way_found(&mut self, now: Now, session: SessionId, flow: Flow) {
        let body = match self.renewed_offer(session, flow) {
            Ok(renewed) => {
                let (ptime_ms, mut text) = (self.settings.call.ptime_ms, None);
                self.on_session(now, session, |call, out| {
                    let callee = call.callee_of(session).map(str::to_owned);
                    let Some(leg) = call.leg_mut(session) else { return };
                    leg.offered_to = callee;
                    // Where offers of early dialogs come from; it is held once the callee has answered.
                    leg.flow = Flow { id: leg.flow.id, ..flow };
                    if let Some(renewed) = renewed {
                        leg.renew_offer(renewed, ptime_ms, out);
                    }
                    text = Some(leg.description.clone().into_bytes());
                });
                text.map(|text| (SDP.to_owned(), text))
            }
            Err(_) => None,
        };
        self.tell(now, |ua, out| ua.describe(now, session, body, out));
    }

    /// The offer of a leg as it is to be on this flow, unless it is so already. A callee who did not get
    /// the present one gets keys of its own.
    fn renewed_offer(
        &mut self,
        session: SessionId,
        flow: Flow,
    ) -> Result<Option<RenewedOffer>, OfferFault> {
        let key = self.by_session.get(&session);
        let call = key.and_then(|key| self.calls.get(key));
        let Some((call, leg)) = call.and_then(|call| Some((call, call.leg(session)?))) else {
            return Ok(None);
        };
        let Some(open) = leg.offer_answer.offered() else { return Ok(None) };
        let address = self.address_for(flow, leg.media_address.bind.is_ipv4());
        let address = address.unwrap_or(leg.media_address);
        let srtp = call.settings.srtp.terms(flow, leg.target_srtp);
        let (local, port) = (open.clone(), leg.port.0);
        let local = LocalMedia { address: address.advertise, port, srtp, ..local };
        let is_anothers =
            leg.offered_to.as_deref().is_some_and(|to| Some(to) != call.callee_of(session));
        local.srtp.may_offer()?;
        if local == *open && !is_anothers {
            return Ok(None);
        }
        let mut offer_answer = self.new_offer_answer();
        let description = offer_answer.offer(&local).into();
        Ok(Some(RenewedOffer { offer_answer, description, address }))
    }

    /// Gives up our INVITE; a session that is gone already has nothing more to tell.
    pub(super) fn cancel(
        &mut self,
        now: Now,
        key: CallKey,
        session: SessionId,
        reason: Option<&str>,
    ) {
        let mut outputs = Vec::new();
        let gone = self.ua.cancel(now, session, reason, &mut outputs).is_err();
        self.take_ua_outputs(now, outputs);
        if gone {
            self.step(now, key, |call, out| call.on_dialog_closed(session, out));
        }
    }

    /// The callee answered: the call lives on this flow, and its requests are heard from wherever
    /// the dialog says that they come from.
    pub(super) fn on_callee_answered(
        &mut self,
        now: Now,
        session: SessionId,
        flow: Flow,
        answer: (&str, &Body),
    ) {
        self.counters.answered += 1;
        self.on_moved(session, flow);
        let mut addresses = vec![flow.peer.ip()];
        if let Some(dialog) = self.ua.dialog(session) {
            let route = dialog.route_set().first().and_then(|route| NameAddr::parse(route).ok());
            let target = Uri::parse(dialog.remote_target()).ok();
            for uri in route.map(|route| route.uri()).into_iter().chain(target) {
                addresses.extend(literal(&uri).filter(|ip| !addresses.contains(ip)));
            }
        }
        for address in &addresses {
            self.out.push_back(Command::AdmitSource { address: *address, admit: true });
        }
        self.on_session(now, session, |call, out| {
            if let Some(leg) = call.leg_mut(session) {
                leg.admitted = addresses;
            }
            match call.is_second(session) {
                true => call.on_target_answered(now, answer, out),
                false => call.on_callee_answered(now, answer, out),
            }
        });
    }

    /// Ends the call with this Ultravox id while it is not up yet. False when there is none: it is
    /// not ours, up, or over.
    pub fn hang_up(&mut self, now: Now, ultravox_call_id: &str) -> bool {
        let found = self.calls.values().find(|call| {
            call.outgoing.is_some()
                && call.cdr.ultravox_call_id.as_deref() == Some(ultravox_call_id)
        });
        let Some(key) = found.map(|call| call.key) else { return false };
        let mut waits = false;
        self.step(now, key, |call, out| waits = call.hang_up(now, out));
        self.settle();
        waits
    }

    /// Who ended a call by its BYE.
    pub(super) fn on_ended(&mut self, now: Now, session: SessionId, reason: Option<String>) {
        self.on_session(now, session, |call, out| call.on_peer_left(now, session, reason, out));
    }

    /// Sources that were let in for this call need not be heard for it any more.
    pub(super) fn dismiss(&mut self, admitted: &[IpAddr]) {
        for address in admitted {
            self.out.push_back(Command::AdmitSource { address: *address, admit: false });
        }
    }
}

/// Where a call is before it is anywhere: no flow, in the address family of a literal host.
pub(super) fn nowhere(uri: &str) -> Flow {
    let transport = if needs_tls(uri) { Transport::Tls } else { Transport::Udp };
    let uri = Uri::parse(uri).ok();
    let v6 = uri.and_then(|uri| literal(&uri)).is_some_and(|ip| ip.is_ipv6());
    let any = if v6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
    let place = SocketAddr::new(any, 0);
    // Another transport than TLS is found out later, and makes no difference before.
    Flow { id: FlowId(0), transport, local: place, peer: place }
}

fn literal(uri: &Uri<'_>) -> Option<IpAddr> {
    match uri.host() {
        Host::Address(address) => Some(address),
        Host::Name(_) | Host::Absent => None,
    }
}
