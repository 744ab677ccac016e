//! A new INVITE's way to a call (house §9): admission, routing, codec, port. A call that is refused
//! on the way leaves a record from admission on, and nothing else.

use super::{Command, SDP, Switchboard};
use crate::admission;
use crate::billing::cdr::Cdr;
use crate::call::ladder::{Ladder, Lane};
use crate::call::{Call, MediaAddress, Negotiated, Opening, record};
use crate::codec::CodecKind;
use crate::context;
use crate::ground::ports::RtpPort;
use crate::ground::{CallKey, Flow, JobId, Now};
use crate::refusal::{EndCause, Refusal};
use crate::routing::{self, Route};
use crate::sdp::{Agreed, LocalMedia, OfferAnswer, OfferFault};
use crate::sip::msg::{Method, Request};
use crate::sip::status::StatusLine;
use crate::sip::ua::{RequestToken, SessionId};
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::CreateFault;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

impl Switchboard {
    /// A new call asks to come in. The user agent has sent its 100 already.
    pub(super) fn on_invited(
        &mut self,
        now: Now,
        session: SessionId,
        flow: Flow,
        request: &Request,
    ) {
        self.counters.invites += 1;
        let key = self.next_key();
        let mut cdr = record::open(key, now, flow, request);
        let routed = match admission::admit(&self.config, flow.peer.ip()) {
            Some(admission) => {
                cdr.admitted_by = Some(admission.to_string());
                self.route(request, &mut cdr)
            }
            None => Err(Refusal::NotListed),
        };
        let begun = routed.and_then(|(route, agent_id)| {
            self.check_capacity()?;
            let (port, negotiated) = self.negotiate(now, flow, request)?;
            Ok((route, agent_id, port, negotiated))
        });
        match begun {
            Ok((route, agent_id, port, negotiated)) => {
                let x_headers = context::from_headers(request.lines());
                let caller = context::Caller::of(request);
                cdr.caller_id = caller.caller_id.clone();
                let context = x_headers.values;
                let settings = self.settings.call.clone();
                let opening = Opening {
                    key,
                    session,
                    flow,
                    settings,
                    route,
                    agent_id,
                    context,
                    caller,
                    port,
                    negotiated,
                };
                self.admit(now, Call::new(now, opening, cdr));
            }
            Err(refusal) => self.refuse_invited(now, session, cdr, refusal),
        }
    }

    /// The last look before a call is made; the user agent has turned most away already.
    fn check_capacity(&self) -> Result<(), Refusal> {
        if self.draining {
            Err(Refusal::Draining)
        } else if self.calls.len() >= self.settings.calls_max {
            Err(Refusal::Full)
        } else if self.overloaded {
            Err(Refusal::Overloaded)
        } else {
            Ok(())
        }
    }

    fn next_key(&mut self) -> CallKey {
        self.calls_begun += 1;
        CallKey(u64::from(self.settings.epoch_s) << 32 | u64::from(self.calls_begun))
    }

    /// The rule that chooses the agent, and the agent.
    fn route(&self, request: &Request, cdr: &mut Cdr) -> Result<(Route, String), Refusal> {
        let to = request.to();
        let user = routing::to_user(&to.uri()).ok_or(Refusal::NoToUser)?;
        let route = routing::route(&self.config, &user);
        cdr.routed_by = Some(route.to_string());
        match &route {
            Route::Allowance { agent_id, .. } | Route::Implicit { agent_id } => {
                let agent_id = agent_id.to_string();
                cdr.agent_id = Some(agent_id.clone());
                Ok((route, agent_id))
            }
            // The fallback handler is asked here once it exists.
            Route::Fallback | Route::None => Err(Refusal::NoMatch { to_user: user.into_owned() }),
        }
    }

    /// Takes a port and answers the offer, or makes one.
    fn negotiate(
        &mut self,
        now: Now,
        flow: Flow,
        request: &Request,
    ) -> Result<(RtpPort, Negotiated), Refusal> {
        let offer = read_offer(request)?;
        let port = self.ports.take(now.at, &mut self.entropy).ok_or(Refusal::PortsExhausted)?;
        match self.negotiate_on(flow, offer, port) {
            Ok(negotiated) => Ok((port, negotiated)),
            Err(refusal) => {
                self.ports.put_back(now.at, port);
                Err(refusal)
            }
        }
    }

    fn negotiate_on(
        &mut self,
        flow: Flow,
        offer: Option<Bytes>,
        port: RtpPort,
    ) -> Result<Negotiated, Refusal> {
        match offer {
            Some(offer) => self.answer_offer(flow, offer, port),
            None => self.make_offer(flow, port),
        }
    }

    /// The address family is the offer's; the caller's own signalling family is tried first.
    fn answer_offer(
        &mut self,
        flow: Flow,
        offer: Bytes,
        port: RtpPort,
    ) -> Result<Negotiated, Refusal> {
        let mut refused = OfferFault::BadAddress;
        for address in self.addresses_for(flow).into_iter().flatten() {
            let mut offer_answer = self.new_offer_answer();
            let local = self.local_media(address, port, self.settings.call.codecs.clone());
            match offer_answer.answer(&offer, &local) {
                Ok(answered) if fits(&answered.agreed, address) => {
                    return Ok(Negotiated {
                        kind: answered.agreed.codec.kind,
                        offer: Some(offer),
                        offer_answer,
                        description: answered.text,
                        agreed: Some(answered.agreed),
                        address,
                    });
                }
                Ok(_) => {}
                Err(fault) => refused = fault,
            }
        }
        Err(Refusal::Offer(refused))
    }

    /// A late offer: ours has every codec. The stream is joined before the caller's choice is known,
    /// at a rate that suits any.
    fn make_offer(&mut self, flow: Flow, port: RtpPort) -> Result<Negotiated, Refusal> {
        let address = self.addresses_for(flow).into_iter().flatten().next();
        let address = address.ok_or(Refusal::Offer(OfferFault::BadAddress))?;
        let codecs = self.settings.call.codecs.clone();
        let kind = *codecs.first().ok_or(Refusal::Offer(OfferFault::NoCommonCodec))?;
        let mut offer_answer = self.new_offer_answer();
        let description = offer_answer.offer(&self.local_media(address, port, codecs));
        Ok(Negotiated { offer: None, offer_answer, description, agreed: None, kind, address })
    }

    fn addresses_for(&self, flow: Flow) -> [Option<MediaAddress>; 2] {
        let (v4, v6) = (self.settings.media_v4, self.settings.media_v6);
        if flow.peer.is_ipv4() { [v4, v6] } else { [v6, v4] }
    }

    fn new_offer_answer(&mut self) -> OfferAnswer {
        OfferAnswer::new(self.entropy.u64() >> 2)
    }

    fn local_media(
        &self,
        address: MediaAddress,
        port: RtpPort,
        codecs: Vec<CodecKind>,
    ) -> LocalMedia {
        LocalMedia {
            address: address.advertise,
            port: port.0,
            ptime_ms: self.settings.call.ptime_ms,
            codecs,
            telephone_event: true,
            opus_fec: true,
        }
    }

    fn admit(&mut self, now: Now, call: Call) {
        let (key, flow) = (call.key, call.flow.id);
        let agent = self.agents.fresh(now.at, &call.agent_id);
        let cname = self.entropy.token(96);
        self.by_session.insert(call.session, key);
        self.calls.insert(key, call);
        self.hold_flow(flow);
        self.set_availability();
        self.step(now, key, |call, out| call.begin(now, agent.as_deref(), cname, out));
    }

    /// Another port for a call whose port was taken by someone else: the description changes too.
    pub(super) fn another_port(&mut self, now: Now, key: CallKey) {
        let Some(port) = self.ports.take(now.at, &mut self.entropy) else {
            let cause = EndCause::Refused(Refusal::PortsExhausted);
            return self.step(now, key, |call, out| call.finish(now, cause, out));
        };
        let Some(call) = self.calls.get_mut(&key) else {
            return self.ports.put_back(now.at, port);
        };
        self.ports.put_back(now.at, std::mem::replace(&mut call.port, port));
        let (flow, offer) = (call.flow, call.offer.clone());
        let negotiated = self.negotiate_on(flow, offer, port);
        let cname = self.entropy.token(96);
        self.step(now, key, |call, out| match negotiated {
            Ok(negotiated) => {
                call.offer_answer = negotiated.offer_answer;
                call.description = negotiated.description;
                call.note(now, Lane::Media, "the port was taken; another one");
                call.open_media(cname, out);
            }
            Err(refusal) => call.finish(now, EndCause::Refused(refusal), out),
        });
    }

    /// Refuses an INVITE that never became a call, and writes its record.
    fn refuse_invited(&mut self, now: Now, session: SessionId, mut cdr: Cdr, refusal: Refusal) {
        let policy = self.settings.call.refusals;
        let answer = refusal.answer(policy);
        let sent = format!("{} {}  edge → caller", answer.status.code, answer.status.reason);
        let mut ladder = Ladder::new(now.at);
        ladder.push(now.at, Lane::Sip, "INVITE  caller → edge".into());
        ladder.push(now.at, Lane::Sip, sent);
        let clocks = (Duration::ZERO, Duration::ZERO);
        record::close(&mut cdr, now, clocks, &EndCause::Refused(refusal), policy);
        self.counters.refused += 1;
        if answer.alarm {
            let words = answer.detail.clone();
            self.out.push_back(Command::Alarm { call: cdr.key, words });
        }
        self.send_refusal(now, session, &answer);
        self.out.push_back(Command::Record { cdr: Box::new(cdr), ladder });
    }

    pub(super) fn on_agent_fetched(
        &mut self,
        now: Now,
        job: JobId,
        result: Result<Agent, CreateFault>,
    ) {
        let Some(key) = self.jobs.remove(&job) else { return };
        let Some(agent_id) = self.calls.get(&key).map(|call| call.agent_id.clone()) else { return };
        let fetched = result.map(Arc::new);
        match &fetched {
            Ok(agent) => self.agents.keep(now.at, &agent_id, Arc::clone(agent)),
            Err(_) => self.agents.forget(&agent_id),
        }
        self.step(now, key, |call, out| {
            call.on_agent_fetched(now, fetched.as_deref().map_err(Clone::clone), out);
        });
    }

    /// Requests inside a dialog whose capability is not built in: each gets its RFC answer.
    pub(super) fn on_in_dialog(&mut self, now: Now, token: RequestToken, method: &Method) {
        let (code, reason) = match method {
            // INFO that we do not use is harmless: 200 (RFC 6086 §4.2.2).
            Method::Info | Method::Options => (200, "OK"),
            Method::Notify => (481, "Subscription Does Not Exist"),
            Method::Refer => (603, "Decline"),
            _ => (405, "Method Not Allowed"),
        };
        let status = StatusLine { code, reason: reason.into() };
        let allow = self.settings.ua.abilities.allow();
        let headers = [("Allow", allow.as_str())];
        let headers = if code == 405 { &headers[..] } else { &[] };
        self.tell(now, |ua, out| ua.respond(now, token, &status, headers, None, out));
    }
}

/// What is shown of a content type that is not read.
const CONTENT_TYPE_CHARS_MAX: usize = 80;

fn read_offer(request: &Request) -> Result<Option<Bytes>, Refusal> {
    if request.body().is_empty() {
        return Ok(None);
    }
    match request.content_type().as_deref() {
        // Without a type it can only be one (some PBXs leave it out).
        Some(SDP) | None => Ok(Some(Bytes::copy_from_slice(request.body()))),
        Some(other) => Err(Refusal::UnreadableBody {
            content_type: other.chars().take(CONTENT_TYPE_CHARS_MAX).collect(),
        }),
    }
}

fn fits(agreed: &Agreed, address: MediaAddress) -> bool {
    agreed.remote.rtp.is_none_or(|remote| remote.is_ipv4() == address.bind.is_ipv4())
}
