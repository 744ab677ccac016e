//! Why bytes are not a message, and the stateless answer to them (RFC 3261 §8.2, §16.3, §18.3,
//! RFC 4475). The answer copies what can be read, goes to the packet's source and is never larger
//! than the request plus a few lines. Responses, ACKs and foreign protocols get none.

use super::build::{write_copied, write_stamped_vias, write_status_line};
use super::head::{Head, OnBadLine};
use super::lex::is_token;
use super::name::Name;
use super::name_addr::NameAddr;
use super::uri::UriFault;
use crate::sip::status::StatusLine;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultReason {
    /// Nothing but line ends: a keep-alive.
    Empty,
    /// The first line is not that of a SIP message.
    NotSip,
    /// A SIP version other than 2.0.
    Version,
    BadStartLine,
    BadRequestUri(UriFault),
    /// `?…` in the Request-URI, which RFC 3261 §19.1.1 forbids.
    HeadersInRequestUri,
    TooLarge,
    TooManyHeaders,
    TooManyVias,
    /// The empty line after the headers is missing.
    HeadUnfinished,
    /// A CR or LF that is not part of a CRLF.
    BareLineEnd,
    BadHeaderLine,
    Missing(Name),
    Repeated(Name),
    Bad(Name),
    /// The top Via's branch is nothing but the cookie (RFC 4475 §3.2.1).
    EmptyBranch,
    CSeqMismatch,
    /// Content-Length says more bytes than came.
    BodyShort,
    /// A stream message without Content-Length (RFC 3261 §18.3).
    LengthMissing,
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultReason::Empty => "empty message",
            FaultReason::NotSip => "not SIP",
            FaultReason::Version => "unsupported SIP version",
            FaultReason::BadStartLine => "bad start line",
            FaultReason::BadRequestUri(fault) => return write!(f, "{fault}"),
            FaultReason::HeadersInRequestUri => "headers in Request-URI",
            FaultReason::TooLarge => "message too large",
            FaultReason::TooManyHeaders => "too many headers",
            FaultReason::TooManyVias => "too many Vias",
            FaultReason::HeadUnfinished => "header section not finished",
            FaultReason::BareLineEnd => "bare CR or LF in headers",
            FaultReason::BadHeaderLine => "bad header line",
            FaultReason::Missing(name) => return write!(f, "missing {}", name.as_str()),
            FaultReason::Repeated(name) => return write!(f, "repeated {}", name.as_str()),
            FaultReason::Bad(name) => return write!(f, "bad {}", name.as_str()),
            FaultReason::EmptyBranch => "branch is only the magic cookie",
            FaultReason::CSeqMismatch => "CSeq method differs from request method",
            FaultReason::BodyShort => "body shorter than Content-Length",
            FaultReason::LengthMissing => "missing Content-Length",
        })
    }
}

/// Bytes that are not a message, with the reason.
#[derive(Clone, Debug)]
pub struct ParseFault {
    pub reason: FaultReason,
    bytes: Bytes,
}

impl fmt::Display for ParseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for ParseFault {}

impl ParseFault {
    /// `bytes` is the message as far as it came.
    pub(super) fn new(reason: FaultReason, bytes: Bytes) -> ParseFault {
        ParseFault { reason, bytes }
    }

    /// The status that the fault deserves when it was a request; `None` when it is to be dropped.
    pub fn status(&self) -> Option<StatusLine> {
        match self.reason {
            FaultReason::Empty | FaultReason::NotSip => None,
            FaultReason::Version => Some(StatusLine::of(505)),
            FaultReason::BadRequestUri(UriFault::TooLong) => Some(StatusLine::of(414)),
            FaultReason::TooLarge | FaultReason::TooManyHeaders | FaultReason::TooManyVias => {
                Some(StatusLine::of(513))
            }
            reason => Some(StatusLine::new(400, format!("Bad Request ({reason})"))),
        }
    }

    /// The whole stateless answer for the packet's source. `None` for responses, ACKs, what does
    /// not look like a SIP request, and requests without a Via: nothing could match the answer.
    pub fn answer(&self, source: SocketAddr) -> Option<Vec<u8>> {
        stateless_answer(&self.bytes, &self.status()?, source)
    }
}

/// An answer to a request that no transaction was made for, with what can be read of it. `None` as
/// in [`ParseFault::answer`]. Nothing is kept: a copy of the request gets the same answer again.
pub fn stateless_answer(bytes: &Bytes, status: &StatusLine, source: SocketAddr) -> Option<Vec<u8>> {
    let head = Head::scan(bytes, OnBadLine::Skip).ok()?;
    if !is_answerable(head.start_line()) {
        return None;
    }
    head.named(Name::Via).next()?;
    let mut out = Vec::with_capacity(512);
    write_status_line(&mut out, status);
    write_stamped_vias(&mut out, &head, source);
    for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
        let Some(line) = head.named(name).next() else { continue };
        let tag = match name {
            Name::To if !has_tag(head.text(line.value)) => Some(stateless_tag(&head, source)),
            _ => None,
        };
        write_copied(&mut out, name, &head, line, tag.as_deref());
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    Some(out)
}

/// A request line, however crooked: a method other than ACK first and a SIP version last.
fn is_answerable(start_line: &str) -> bool {
    let mut words = start_line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default();
    let version = words.next_back().unwrap_or_default();
    let whole = !start_line.contains(['\r', '\n', '\0']);
    whole && is_token(method) && !method.eq_ignore_ascii_case("ACK") && is_version(version)
}

/// `SIP/…`, whatever the number.
pub(super) fn is_version(word: &str) -> bool {
    word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/"))
}

/// A To that cannot be read gets a tag only when no text of one is in it.
fn has_tag(to: &str) -> bool {
    match NameAddr::parse(to) {
        Ok(address) => address.tag().is_some(),
        Err(_) => to.to_ascii_lowercase().contains("tag"),
    }
}

/// The same for each copy of a request, so that its retransmissions get the same answer (FNV-1a).
fn stateless_tag(head: &Head, source: SocketAddr) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let names = [Name::Via, Name::From, Name::CallId, Name::CSeq];
    let texts = names.iter().filter_map(|name| head.value(*name)).map(str::to_owned);
    for byte in texts.chain([source.to_string()]).flat_map(String::into_bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}
