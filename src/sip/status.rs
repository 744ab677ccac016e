//! The refusals that the RFC itself prescribes for a well-formed request outside a dialog, in its
//! order (RFC 3261 §8.2): method, scheme, extensions, content. What a dialog, a rule or the agent
//! decides is not seen here.

use super::msg::{Method, Name, Request, Scheme};
use std::borrow::Cow;
use std::fmt;

/// A status code with its reason phrase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusLine {
    /// 100 to 699.
    pub code: u16,
    /// Printed after the code; never holds CR or LF.
    pub reason: Cow<'static, str>,
}

impl StatusLine {
    /// A status with a reason phrase of its own.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> StatusLine {
        StatusLine { code, reason: reason.into() }
    }

    /// A status with the reason phrase of its RFC.
    pub fn of(code: u16) -> StatusLine {
        StatusLine::new(code, reason_phrase(code))
    }
}

impl fmt::Display for StatusLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// The reason phrase of RFC 3261 §21 and its extensions; a word for the class when unknown.
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        433 => "Anonymity Disallowed",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        other if other < 200 => "Progress",
        other if other < 300 => "Success",
        other if other < 400 => "Redirected",
        other if other < 500 => "Request Failed",
        other if other < 600 => "Server Failed",
        _ => "Global Failure",
    }
}

/// What the user agent can do: the base of `Allow`, `Supported` and `Accept`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Methods that are served outside or inside dialogs.
    pub methods: Vec<Method>,
    /// Option tags that a `Require` may name.
    pub extensions: Vec<&'static str>,
    /// Body types that are understood, lower-cased `type/subtype`.
    pub accepts: Vec<&'static str>,
}

impl Abilities {
    /// The value of an `Allow` header.
    pub fn allow(&self) -> String {
        self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// A refusal with the headers that the RFC demands in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProtocolRefusal {
    pub status: StatusLine,
    pub headers: Vec<(&'static str, String)>,
}

impl ProtocolRefusal {
    fn new(code: u16, name: &'static str, value: String) -> ProtocolRefusal {
        ProtocolRefusal { status: StatusLine::of(code), headers: vec![(name, value)] }
    }
}

/// Decides whether the request can be understood at all. `Ok` for an ACK always: it has no answer.
/// Max-Forwards 0 is no reason: it stops proxies, and we are the end of the road (§16.3).
pub fn judge(request: &Request, abilities: &Abilities) -> Result<(), ProtocolRefusal> {
    if *request.method() == Method::Ack {
        return Ok(());
    }
    judge_method(request, abilities)?;
    if request.get(Name::Replaces).is_some() && *request.method() != Method::Invite {
        // RFC 3891 §3.
        return Err(ProtocolRefusal { status: StatusLine::of(400), headers: Vec::new() });
    }
    if request.uri().scheme() == Scheme::Other {
        return Err(ProtocolRefusal { status: StatusLine::of(416), headers: Vec::new() });
    }
    judge_extensions(request, abilities)?;
    judge_content(request, abilities)?;
    judge_answer(request)
}

/// 501 for a method that no RFC we know names, 405 for one that we do not serve (§8.2.1).
fn judge_method(request: &Request, abilities: &Abilities) -> Result<(), ProtocolRefusal> {
    if abilities.methods.contains(request.method()) {
        return Ok(());
    }
    let code = if matches!(request.method(), Method::Other(_)) { 501 } else { 405 };
    Err(ProtocolRefusal::new(code, "Allow", abilities.allow()))
}

/// 420 for `Require`, which is not looked at in CANCEL (§8.2.2.3). Proxy-Require is for proxies.
fn judge_extensions(request: &Request, abilities: &Abilities) -> Result<(), ProtocolRefusal> {
    if *request.method() == Method::Cancel {
        return Ok(());
    }
    let known =
        |tag: &str| abilities.extensions.iter().any(|known| known.eq_ignore_ascii_case(tag));
    let missing: Vec<&str> = request.values(Name::Require).filter(|tag| !known(tag)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ProtocolRefusal::new(420, "Unsupported", missing.join(", ")))
}

/// 415 for a body of a type or an encoding that is not understood, unless it is optional (§8.2.3).
fn judge_content(request: &Request, abilities: &Abilities) -> Result<(), ProtocolRefusal> {
    let disposition = request.get(Name::ContentDisposition).unwrap_or_default();
    let optional = disposition
        .split(';')
        .skip(1)
        .any(|param| param.replace([' ', '\t'], "").eq_ignore_ascii_case("handling=optional"));
    if request.body().is_empty() || optional {
        return Ok(());
    }
    if request.values(Name::ContentEncoding).any(|coding| !coding.eq_ignore_ascii_case("identity"))
    {
        return Err(ProtocolRefusal::new(415, "Accept-Encoding", "identity".into()));
    }
    let understood = |kind: &str| abilities.accepts.contains(&kind);
    if request.content_type().is_none_or(|kind| understood(&kind)) {
        return Ok(());
    }
    Err(ProtocolRefusal::new(415, "Accept", abilities.accepts.join(", ")))
}

/// 406 for an INVITE whose `Accept` leaves no room for an SDP answer (§21.4.7).
fn judge_answer(request: &Request) -> Result<(), ProtocolRefusal> {
    if *request.method() != Method::Invite || request.get(Name::Accept).is_none() {
        return Ok(());
    }
    let suits = |range: &str| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        ["application/sdp", "application/*", "*/*"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(kind))
    };
    if request.values(Name::Accept).any(suits) {
        return Ok(());
    }
    Err(ProtocolRefusal { status: StatusLine::of(406), headers: Vec::new() })
}
