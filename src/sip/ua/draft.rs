//! Requests of ours as they are written (RFC 3261 §8.1.1, §9.1, §13.2.2.4, §17.1.1.3): a [`Draft`]
//! holds what stays the same however often a request is sent; each try adds its Via, its Contact and
//! the answer to a challenge. Pure text: who sends it where is decided in `client`.

use super::config::{OwnContact, UaConfig};
use crate::ground::Flow;
use crate::sip::destination::Destination;
use crate::sip::dialog::Dialog;
use crate::sip::digest::DigestClient;
use crate::sip::msg::{Builder, Method, NameAddr, Response, Scheme, Uri};
use crate::sip::session_timer::Asked;
use crate::sip::target::{Target, TargetFault};
use bytes::Bytes;

/// Names a request outside dialogs, from [`super::UserAgent::send`] to its final answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A request of ours outside dialogs: an INVITE for `dial`, any other method for `send`.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    pub method: Method,
    /// The Request-URI; without `routes` it is also what is located.
    pub request_uri: String,
    /// From as `name-addr`, without a tag.
    pub from: String,
    /// To as `name-addr`, without a tag.
    pub to: String,
    /// `None`: a new one.
    pub call_id: Option<String>,
    /// `None`: a new one.
    pub from_tag: Option<String>,
    /// The number of the first try; each answer to a challenge counts one up. `None`: 1.
    pub cseq: Option<u32>,
    /// Values of Route that are known beforehand. The first one is located; it must be a loose router.
    pub routes: Vec<String>,
    /// A whole Contact value; `None`: our own address on the flow that carries the request.
    pub contact: Option<String>,
    /// What our own address is given in that Contact.
    pub own_contact: OwnContact,
    /// Further headers. Line breaks in them fail the request.
    pub headers: Vec<(String, String)>,
    /// Content type and body.
    pub body: Option<(String, Bytes)>,
    /// The body of this INVITE depends on the flow that carries it: it is asked for by
    /// [`super::UaEvent::WayFound`].
    pub body_by_way: bool,
    /// Answers 401 and 407 of this peer. `None`: they are passed up.
    pub credentials: Option<DigestClient>,
    /// Tried first (RFC 5626); the target is located when it fails.
    pub flow: Option<Flow>,
}

impl OutgoingRequest {
    /// A request with nothing but what every one has.
    pub fn new(method: Method, request_uri: &str, from: &str, to: &str) -> OutgoingRequest {
        OutgoingRequest {
            method,
            request_uri: request_uri.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            call_id: None,
            from_tag: None,
            cseq: None,
            routes: Vec::new(),
            contact: None,
            own_contact: OwnContact::default(),
            headers: Vec::new(),
            body: None,
            body_by_way: false,
            credentials: None,
            flow: None,
        }
    }

    /// What is to be located: the first route, or the Request-URI.
    ///
    /// # Errors
    /// [`TargetFault`] when nothing can be sent for it.
    pub fn target(&self) -> Result<Target, TargetFault> {
        match self.routes.first() {
            Some(route) => {
                let route = NameAddr::parse(route).map_err(|_| TargetFault::NotSip)?;
                Target::of_uri(&route.uri())
            }
            None => {
                let uri = Uri::parse(&self.request_uri).map_err(|_| TargetFault::NotSip)?;
                Target::of_uri(&uri)
            }
        }
    }
}

/// The number of a request in a dialog before it goes out: none that is sent (§8.1.1.5).
pub(super) const UNNUMBERED: u32 = 0;

/// What is the same in every try of one request.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) method: Method,
    pub(super) request_uri: String,
    pub(super) routes: Vec<String>,
    /// With our tag.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) contact: Option<String>,
    pub(super) own_contact: OwnContact,
    /// The session timer that an INVITE or UPDATE asks for.
    pub(super) timer: Option<Asked>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<(String, Bytes)>,
    pub(super) body_by_way: bool,
}

impl Draft {
    /// The draft of a request outside dialogs; `tag` and `call_id` stand in for what it left open.
    pub(super) fn outside(request: OutgoingRequest, tag: &str, call_id: String) -> Draft {
        Draft {
            method: request.method,
            request_uri: request.request_uri,
            routes: request.routes,
            from: format!("{};tag={tag}", request.from),
            to: request.to,
            call_id,
            cseq: request.cseq.unwrap_or(1),
            contact: request.contact,
            own_contact: request.own_contact,
            timer: None,
            headers: request.headers,
            body: request.body,
            body_by_way: request.body_by_way,
        }
    }

    /// The draft of a request in a dialog (§12.2.1.1): Request-URI and Route for loose and strict
    /// routers. [`UNNUMBERED`] ones are numbered as they go out.
    pub(super) fn inside(dialog: &Dialog, method: Method, cseq: u32) -> Draft {
        let (request_uri, routes) = dialog.routing();
        Draft {
            method,
            request_uri,
            routes,
            from: dialog.local().to_owned(),
            to: dialog.remote().to_owned(),
            call_id: dialog.call_id().to_owned(),
            cseq,
            contact: None,
            own_contact: OwnContact::default(),
            timer: None,
            headers: Vec::new(),
            body: None,
            body_by_way: false,
        }
    }

    /// The whole request for one try on `flow`.
    pub(super) fn written(
        &self,
        config: &UaConfig,
        flow: &Flow,
        via: &str,
        authorization: &[(&'static str, String)],
    ) -> Builder {
        let mut builder = self.head(&self.method, via, &self.to);
        if let Some(contact) = &self.contact {
            builder = builder.header("Contact", contact);
        } else if self.names_contact() {
            builder = builder
                .header("Contact", &config.contact_as(flow, self.is_secure(), &self.own_contact));
        }
        if matches!(self.method, Method::Invite | Method::Update) {
            builder = builder.header("Allow", &config.abilities.allow());
            builder = builder.header("Supported", &config.abilities.extensions.join(", "));
        }
        for (name, value) in self.timer.iter().flat_map(Asked::headers) {
            builder = builder.header(name, &value);
        }
        if !config.user_agent.is_empty() {
            builder = builder.header("User-Agent", &config.user_agent);
        }
        for (name, value) in authorization {
            builder = builder.header(name, value);
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        match &self.body {
            Some((content_type, body)) => builder.body(content_type, body),
            None => builder,
        }
    }

    /// The ACK of a final answer other than 2xx: the same branch, route and CSeq number (§17.1.1.3).
    pub(super) fn ack_of(&self, attempt: &Attempt, answer: &Response) -> Builder {
        self.with_cseq(attempt.cseq).head(&Method::Ack, &attempt.via, answer.to().as_str())
    }

    /// The CANCEL of a try of this INVITE (§9.1). `reason` is a whole Reason value (RFC 3326).
    pub(super) fn cancel_of(&self, attempt: &Attempt, reason: Option<&str>) -> Builder {
        let cancelled = self.with_cseq(attempt.cseq);
        let builder = cancelled.head(&Method::Cancel, &attempt.via, &self.to);
        match reason.filter(|reason| !reason.contains(['\r', '\n', '\0'])) {
            Some(reason) => builder.header("Reason", reason),
            None => builder,
        }
    }

    fn head(&self, method: &Method, via: &str, to: &str) -> Builder {
        let mut builder = Builder::request(method, &self.request_uri).header("Via", via);
        for route in &self.routes {
            builder = builder.header("Route", route);
        }
        builder
            .header("Max-Forwards", "70")
            .header("From", &self.from)
            .header("To", to)
            .header("Call-ID", &self.call_id)
            .header("CSeq", &format!("{} {method}", self.cseq))
    }

    /// Methods whose requests must tell where we are reached (§8.1.1.8, RFC 3311 §4, 3515 §2.2, 6665 §8).
    fn names_contact(&self) -> bool {
        match self.method {
            Method::Invite
            | Method::Register
            | Method::Update
            | Method::Refer
            | Method::Notify
            | Method::Subscribe => true,
            Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Options
            | Method::Prack
            | Method::Info
            | Method::Message
            | Method::Publish
            | Method::Other(_) => false,
        }
    }

    fn with_cseq(&self, cseq: u32) -> Draft {
        Draft { cseq, headers: Vec::new(), body: None, ..self.clone() }
    }

    /// Our Contact must be sips when the Request-URI or the first Route is (§8.1.1.8).
    fn is_secure(&self) -> bool {
        let sips_route = self.routes.first().is_some_and(|route| {
            NameAddr::parse(route).is_ok_and(|route| route.uri().scheme() == Scheme::Sips)
        });
        let uri = Uri::parse(&self.request_uri);
        sips_route || uri.is_ok_and(|uri| uri.scheme() == Scheme::Sips)
    }
}

impl Attempt {
    /// What the ACK of its 2xx repeats (§13.2.2.4).
    pub(super) fn repeated(&self) -> (u32, Vec<(&'static str, String)>) {
        (self.cseq, self.authorization.clone())
    }
}

/// One try of a request: a transaction on a flow.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The client transaction.
    pub(super) number: u64,
    pub(super) via: String,
    pub(super) branch: String,
    pub(super) cseq: u32,
    pub(super) flow: Flow,
    pub(super) to: Destination,
    /// `None` on a flow that stood before.
    pub(super) hop: Option<crate::sip::target::Hop>,
    pub(super) authorization: Vec<(&'static str, String)>,
    /// What it said: that of a later try may be another one.
    pub(super) body: Option<(String, Bytes)>,
    /// Some answer came.
    pub(super) heard: bool,
    /// A CANCEL went out for it.
    pub(super) cancelled: bool,
}
