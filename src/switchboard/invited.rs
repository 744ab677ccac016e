//! A new INVITE's way to a call (house §9): admission, routing, codec, port. A call that is refused
//! on the way leaves a record from admission on, and nothing else.

use super::{Command, SDP, Skeleton, Switchboard};
use crate::admission;
use crate::billing::cdr::Cdr;
use crate::call::deed::Deed;
use crate::call::ladder::{Ladder, Lane};
use crate::call::{Call, MediaAddress, Negotiated, Opening, record};
use crate::codec::CodecKind;
use crate::context::{self, Caller, Remark};
use crate::fallback::Question;
use crate::ground::ports::RtpPort;
use crate::ground::{CallKey, Flow, Now};
use crate::refusal::{EndCause, Refusal};
use crate::routing::{self, Route};
use crate::sdp::{Agreed, DescriptionText, LocalMedia, OfferAnswer, OfferFault, SrtpPolicy};
use crate::sip::msg::Request;
use crate::sip::ua::SessionId;
use bytes::Bytes;
use std::net::IpAddr;
use std::time::Duration;

impl Switchboard {
    /// A new call asks to come in. The user agent has sent its 100 already.
    pub(super) fn on_invited(
        &mut self,
        now: Now,
        session: SessionId,
        flow: Flow,
        request: &Request,
        replaces: Option<SessionId>,
    ) {
        let skeleton =
            Skeleton { key: CallKey(0), session, port: None, others: Vec::new(), cdr: None };
        let before = self.in_hand.replace(skeleton);
        self.begin_call(now, (session, flow), request, replaces);
        self.in_hand = before;
    }

    /// The way of one INVITE. What a panic would leave is in hand from the beginning.
    fn begin_call(
        &mut self,
        now: Now,
        (session, flow): (SessionId, Flow),
        request: &Request,
        replaces: Option<SessionId>,
    ) {
        self.counters.invites += 1;
        let key = self.next_key();
        let mut cdr = record::open(key, now, flow, request);
        if let Some(skeleton) = &mut self.in_hand {
            skeleton.key = key;
            skeleton.cdr = Some(Box::new(cdr.clone()));
        }
        let admission = self
            .admit_over_registration(flow, request)
            .or_else(|| admission::admit(&self.config, flow.peer.ip()));
        if let (Some(_), Some(replaced)) = (&admission, replaces) {
            return match self.take_over(now, (session, flow), request, replaced) {
                Ok(()) => {}
                Err(refusal) => {
                    let deed = Deed::Replaces { taken: false };
                    self.out.push_back(Command::Tell { call: cdr.key, deed });
                    self.refuse_invited(now, session, cdr, refusal);
                }
            };
        }
        let routed = match admission {
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
                let x_headers = context::from_headers(request.headers().lines());
                let caller = context::Caller::of(request);
                cdr.caller_id = caller.caller_id.clone();
                let remarks = x_headers.remarks.iter().take(REMARKS_MAX);
                cdr.header_remarks = remarks.map(Remark::to_string).collect();
                let question = self.question(&route, request, &caller);
                let settings = self.settings.call.clone();
                let opening = Opening {
                    key,
                    session,
                    flow,
                    settings,
                    route,
                    agent_id,
                    question,
                    context: x_headers.values,
                    caller,
                    port,
                    negotiated,
                    own: self.own.clone(),
                };
                self.admit(now, Call::new(now, opening, cdr));
            }
            Err(refusal) => self.refuse_invited(now, session, cdr, refusal),
        }
    }

    /// What the fallback handler would be asked: nothing matched, or the implicit rule did, which
    /// may name no agent.
    fn question(&self, route: &Route, request: &Request, caller: &Caller) -> Option<Box<Question>> {
        self.config.fallback_handler()?;
        match route {
            Route::Fallback | Route::Implicit { .. } => {
                Some(Box::new(Question::of(request, caller)))
            }
            Route::Allowance { .. } | Route::None => None,
        }
    }

    /// The last look before a call is made; the user agent has turned most away already.
    pub(super) fn check_capacity(&self) -> Result<(), Refusal> {
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

    pub(super) fn next_key(&mut self) -> CallKey {
        self.calls_begun += 1;
        CallKey(u64::from(self.settings.epoch_s) << 32 | u64::from(self.calls_begun))
    }

    /// The rule that chooses the agent, and the agent; none yet where the fallback handler decides.
    fn route(&self, request: &Request, cdr: &mut Cdr) -> Result<(Route, Option<String>), Refusal> {
        let to = request.to();
        let user = routing::to_user(&to.uri());
        let route = routing::of_to(&self.config, &to.uri());
        cdr.routed_by = Some(route.to_string());
        match (&route, user) {
            (Route::Allowance { agent_id, .. } | Route::Implicit { agent_id }, _) => {
                let agent_id = agent_id.to_string();
                cdr.agent_id = Some(agent_id.clone());
                Ok((route, Some(agent_id)))
            }
            (Route::Fallback, _) => Ok((route, None)),
            (Route::None, Some(user)) => Err(Refusal::NoMatch { to_user: user.into_owned() }),
            (Route::None, None) => Err(Refusal::NoToUser),
        }
    }

    /// Takes a port and answers the offer, or makes one.
    fn negotiate(
        &mut self,
        now: Now,
        flow: Flow,
        request: &Request,
    ) -> Result<(RtpPort, Negotiated), Refusal> {
        let offer = read_offer(request)?.map(DescriptionText::from);
        let port = self.ports.take(now.at, &mut self.entropy).ok_or(Refusal::PortsExhausted)?;
        self.hold_port(Some(port));
        match self.negotiate_on(flow, offer, port, None) {
            Ok(negotiated) => Ok((port, negotiated)),
            Err(refusal) => {
                self.hold_port(None);
                self.ports.put_back(now.at, port);
                Err(refusal)
            }
        }
    }

    fn hold_port(&mut self, port: Option<RtpPort>) {
        if let Some(skeleton) = &mut self.in_hand {
            skeleton.port = port;
        }
    }

    fn negotiate_on(
        &mut self,
        flow: Flow,
        offer: Option<DescriptionText>,
        port: RtpPort,
        target_srtp: Option<SrtpPolicy>,
    ) -> Result<Negotiated, Refusal> {
        match offer {
            Some(offer) => self.answer_offer(flow, offer, port),
            None => {
                let terms = self.settings.call.srtp.terms(flow, target_srtp);
                terms.may_offer().map_err(Refusal::Offer)?;
                self.make_offer(flow, port, self.settings.call.codecs.clone(), target_srtp)
            }
        }
    }

    /// The address family is the offer's; the caller's own signalling family is tried first.
    fn answer_offer(
        &mut self,
        flow: Flow,
        offer: DescriptionText,
        port: RtpPort,
    ) -> Result<Negotiated, Refusal> {
        let mut refused = OfferFault::BadAddress;
        for address in self.addresses_for(flow).into_iter().flatten() {
            let mut offer_answer = self.new_offer_answer();
            let codecs = self.settings.call.codecs.clone();
            let local = self.local_media(flow, address, port, codecs, None);
            match offer_answer.answer(offer.as_bytes(), &local) {
                Ok(answered) if fits(&answered.agreed, address) => {
                    return Ok(Negotiated {
                        kind: answered.agreed.codec.kind,
                        offer: Some(offer),
                        offer_answer,
                        description: answered.text.into(),
                        agreed: Some(answered.agreed),
                        address,
                        target_srtp: None,
                    });
                }
                Ok(_) => {}
                Err(fault) => refused = fault,
            }
        }
        Err(Refusal::Offer(refused))
    }

    /// A late offer, or one for a peer that we call: ours has every codec. The stream is joined before
    /// the caller's choice is known, at a rate that suits any. Whether it may be sent is decided by
    /// [`crate::sdp::SrtpTerms::may_offer`] on the terms of its way.
    pub(super) fn make_offer(
        &mut self,
        flow: Flow,
        port: RtpPort,
        codecs: Vec<CodecKind>,
        target_srtp: Option<SrtpPolicy>,
    ) -> Result<Negotiated, Refusal> {
        let address = self.addresses_for(flow).into_iter().flatten().next();
        let address = address.ok_or(Refusal::Offer(OfferFault::BadAddress))?;
        let kind = *codecs.first().ok_or(Refusal::Offer(OfferFault::NoCommonCodec))?;
        let mut offer_answer = self.new_offer_answer();
        let local = self.local_media(flow, address, port, codecs, target_srtp);
        let description = offer_answer.offer(&local).into();
        let (offer, agreed) = (None, None);
        Ok(Negotiated { offer, offer_answer, description, agreed, kind, address, target_srtp })
    }

    fn addresses_for(&self, flow: Flow) -> [Option<MediaAddress>; 2] {
        let given = [true, false].map(|v4| self.address_for(flow, v4));
        let [v4, v6] = given;
        if flow.peer.is_ipv4() { [v4, v6] } else { [v6, v4] }
    }

    /// Our media address of one family, as it is given out over this flow.
    pub(super) fn address_for(&self, flow: Flow, v4: bool) -> Option<MediaAddress> {
        let address = if v4 { self.settings.media_v4 } else { self.settings.media_v6 }?;
        let is_own = |given: &IpAddr| given.is_ipv4() == address.bind.is_ipv4();
        let mut listeners = self.settings.advertised.iter();
        let own = listeners.find(|(listener, given)| is_own(given) && flow.is_of(*listener));
        let advertise = own.map_or(address.advertise, |(_, given)| *given);
        Some(MediaAddress { advertise, ..address })
    }

    pub(super) fn new_offer_answer(&mut self) -> OfferAnswer {
        OfferAnswer::new(self.entropy.u64() >> 2, &mut self.entropy)
    }

    fn local_media(
        &self,
        flow: Flow,
        address: MediaAddress,
        port: RtpPort,
        codecs: Vec<CodecKind>,
        target_srtp: Option<SrtpPolicy>,
    ) -> LocalMedia {
        LocalMedia {
            address: address.advertise,
            port: port.0,
            ptime_ms: self.settings.call.ptime_ms,
            codecs,
            telephone_event: true,
            opus_fec: true,
            extended: self.settings.call.extended,
            silence_suppression: self.settings.call.silence_suppression,
            srtp: self.settings.call.srtp.terms(flow, target_srtp),
            own: self.own.clone(),
        }
    }

    fn admit(&mut self, now: Now, call: Call) {
        let (key, flow) = (call.key, call.first.flow.id);
        let cname = self.entropy.token(96);
        self.by_session.insert(call.first.session, key);
        self.calls.insert(key, Box::new(call));
        self.hold_flow(flow);
        self.set_availability();
        self.step(now, key, |call, out| call.begin(now, cname, out));
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
        self.ports.put_back(now.at, std::mem::replace(&mut call.first.port, port));
        let (flow, offer, target) = (call.first.flow, call.offer.clone(), call.first.target_srtp);
        let negotiated = self.negotiate_on(flow, offer, port, target);
        let cname = self.entropy.token(96);
        self.step(now, key, |call, out| match negotiated {
            Ok(negotiated) => {
                call.first.offer_answer = negotiated.offer_answer;
                call.first.description = negotiated.description;
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
}

/// Remarks on headers that a record holds.
const REMARKS_MAX: usize = 16;
/// What is shown of a content type that is not read.
const CONTENT_TYPE_CHARS_MAX: usize = 80;

pub(super) fn read_offer(request: &Request) -> Result<Option<Bytes>, Refusal> {
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
