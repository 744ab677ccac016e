//! The second legs of calls: a port and an offer for each, and its INVITE; REFER both ways, and the
//! other requests in dialogs. Who may be called was
//! decided by the call; how many calls may be placed is decided here, as for outgoing ones.

use super::Switchboard;
use super::outgoing::nowhere;
use crate::call::keys::{INFO_TYPES, Info, InfoFault, read_info};
use crate::call::leg::{Errand, Leg};
use crate::call::referring::{Notified, ReferWish};
use crate::codec::CodecKind;
use crate::ground::{CallKey, LegId, Now};
use crate::sip::digest::DigestClient;
use crate::sip::msg::{Method, Request};
use crate::sip::refer::{Referral, refer_to};
use crate::sip::status::StatusLine;
use crate::sip::ua::{DialogRequest, Gone, OutgoingRequest, RequestId, RequestToken, SessionId};
use std::sync::Arc;

impl Switchboard {
    /// Gives the second leg of a call a port and an offer, or other ones in the place of those that
    /// it has.
    pub(super) fn give_leg(&mut self, now: Now, key: CallKey, errand: Errand) {
        let given = self.new_leg(now, key, &errand);
        self.step(now, key, |call, out| match given {
            Ok(leg) => call.on_leg_given(leg, errand, out),
            Err(words) => call.on_leg_refused(now, words, out),
        });
    }

    fn new_leg(&mut self, now: Now, key: CallKey, errand: &Errand) -> Result<Leg, String> {
        let Some(call) = self.calls.get_mut(&key) else { return Err("the call is over".into()) };
        let former = call.second.take().map(|second| second.leg);
        let current = call.first.plan.as_ref().map_or(call.first.kind, |plan| plan.codec.kind);
        let (id, ports_tried) = match &former {
            Some(leg) => (leg.id, leg.ports_tried),
            None => {
                call.legs_begun += 1;
                (LegId(call.legs_begun - 1), 0)
            }
        };
        match former {
            Some(leg) => self.ports.put_back(now.at, leg.port),
            None => self.take_place(now)?,
        }
        let credentials = errand.credentials_here();
        let username = credentials.as_ref().map(DigestClient::username);
        let keys = self.check_keys(&errand.callee.uri, &errand.from, username);
        keys.map_err(|refusal| refusal.answer(self.settings.call.refusals).detail)?;
        let port = self.ports.take(now.at, &mut self.entropy);
        let port = port.ok_or_else(|| "no line is free now".to_owned())?;
        let flow = nowhere(&errand.callee.uri);
        let target = self.settings.call.srtp.policy_named(&errand.callee.uri);
        let negotiated = match self.make_offer(flow, port, self.codecs_like(current), target) {
            Ok(negotiated) => negotiated,
            Err(refusal) => {
                self.ports.put_back(now.at, port);
                return Err(refusal.answer(self.settings.call.refusals).detail);
            }
        };
        Ok(Leg {
            id,
            session: SessionId::NONE,
            flow,
            offer_answer: negotiated.offer_answer,
            description: negotiated.description,
            plan: None,
            kind: negotiated.kind,
            media_address: negotiated.address,
            target_srtp: negotiated.target_srtp,
            offered_to: None,
            port,
            ports_tried,
            own: self.own.clone(),
            pending_reoffer: None,
            revision: 0,
            admitted: Vec::new(),
            early: Vec::new(),
        })
    }

    /// One more call of ours, when `[outgoing]` allows as many.
    fn take_place(&mut self, now: Now) -> Result<(), String> {
        let policy = Arc::clone(&self.settings.outgoing);
        let live = self.dialled_now();
        let placed = self.dialled.take(now.at, &policy, live);
        placed.map_err(|_| "as many calls were placed as are allowed now".to_owned())
    }

    /// Calls with a leg that we dialled, which `[outgoing]` limits.
    pub(super) fn dialled_now(&self) -> usize {
        self.calls.values().filter(|call| call.is_dialled()).count()
    }

    /// Every codec, the one of the other leg first: what both speak needs no transcoding.
    fn codecs_like(&self, current: CodecKind) -> Vec<CodecKind> {
        let mut codecs = self.settings.call.codecs.clone();
        codecs.sort_by_key(|kind| *kind != current);
        codecs
    }

    /// Sends the INVITE to the present target: a new session each time.
    pub(super) fn dial_second(&mut self, now: Now, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(second) = &call.second else { return };
        let errand = &second.errand;
        let uri = &errand.callee.uri;
        let mut invite =
            OutgoingRequest::new(Method::Invite, uri, &errand.from, &format!("<{uri}>"));
        invite.headers = errand.headers.clone();
        invite.body_by_way = true;
        invite.credentials = errand.credentials_here();
        self.send_by_registration(&mut invite);
        let mut outputs = Vec::new();
        let session = self.ua.dial(now, invite, &mut outputs);
        let second = self.calls.get_mut(&key).and_then(|call| call.second.as_mut());
        if let Some(second) = second {
            let before = std::mem::replace(&mut second.leg.session, session);
            self.by_session.remove(&before);
        }
        self.by_session.insert(session, key);
        self.take_ua_outputs(now, outputs);
    }

    /// Sends a REFER; the call hears when it cannot be.
    pub(super) fn refer(&mut self, now: Now, key: CallKey, wish: &ReferWish) {
        let Some(referral) = self.referral(wish) else {
            return self.step(now, key, |call, out| call.on_refer_unsent(now, out));
        };
        if let Some(credentials) = &wish.credentials {
            // Of a session that is gone the REFER tells.
            let _: Result<(), Gone> = self.ua.give_credentials(wish.session, credentials.clone());
        }
        let mut outputs = Vec::new();
        let sent = self.ua.refer(now, wish.session, referral, &mut outputs).is_ok();
        self.take_ua_outputs(now, outputs);
        if !sent {
            self.step(now, key, |call, out| call.on_refer_unsent(now, out));
        }
    }

    fn referral(&self, wish: &ReferWish) -> Option<Referral> {
        let mut in_uri = wish.target_headers.clone();
        if let Some(other) = wish.replaces {
            in_uri.push(("Replaces".to_owned(), self.ua.replaces_value(other)?));
        }
        Some(Referral {
            refer_to: refer_to(&wish.target, &in_uri).ok()?,
            referred_by: Some(wish.referred_by.clone()),
            headers: wish.headers.clone(),
            patience: wish.patience,
        })
    }

    /// Tells a peer how its REFER goes; one that has gone needs no news.
    pub(super) fn notify_referral(&mut self, now: Now, notified: Notified, code: u16) {
        let request = DialogRequest::notify_referral(notified.cseq, code);
        self.with_ua(now, |ua, out| {
            let _: Result<RequestId, Gone> = ua.request(now, notified.session, request, out);
        });
    }

    /// Requests inside a dialog: a REFER is the call's to judge, what is not built in gets its RFC
    /// answer.
    pub(super) fn on_in_dialog(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        request: &Request,
    ) {
        let (code, reason) = match request.method() {
            Method::Refer => {
                let refer_to = request.headers().get_named("Refer-To");
                let cseq = request.cseq().number;
                return self.on_session(now, session, |call, out| {
                    call.on_peer_refers(now, session, (token, cseq), refer_to, out);
                });
            }
            Method::Info => self.on_info(now, session, request),
            Method::Options => (200, "OK"),
            Method::Notify => (481, "Subscription Does Not Exist"),
            _ => (405, "Method Not Allowed"),
        };
        let status = StatusLine { code, reason: reason.into() };
        let allow = self.settings.ua.abilities.allow();
        let headers: &[(&str, &str)] = match code {
            405 => &[("Allow", allow.as_str())],
            415 => &[("Accept", INFO_TYPES)],
            _ => &[],
        };
        self.tell(now, |ua, out| ua.respond(now, token, &status, headers, None, out));
    }

    /// An INFO: a key of the peer, or nothing that we use.
    fn on_info(&mut self, now: Now, session: SessionId, request: &Request) -> (u16, &'static str) {
        match read_info(request.content_type().as_deref(), request.body()) {
            Ok(Info::Key { key, duration }) => {
                self.on_session(now, session, |call, out| {
                    call.on_info_key(now, session, key, duration, out);
                });
                (200, "OK")
            }
            Ok(Info::Nothing) => (200, "OK"),
            Err(InfoFault::OtherType) => (415, "Unsupported Media Type"),
            Err(InfoFault::Malformed) => (400, "Bad Request"),
        }
    }
}
