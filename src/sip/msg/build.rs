//! Writing messages (RFC 3261 §8.1, §8.2.6, RFC 3581 §4). Answers copy Via, From, To, Call-ID and
//! CSeq as they came; the top Via gets `received` always and `rport` when it was asked for. CR, LF
//! and NUL in anything that a caller sets are refused, never written; Content-Length is always there.

use super::head::{Head, Line};
use super::lex::{is_token, trim};
use super::message::Request;
use super::method::Method;
use super::name::Name;
use super::{Headers, Uri};
use crate::sip::status::StatusLine;
use bytes::Bytes;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;

/// Why a message cannot be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildFault {
    /// CR, LF or NUL in the value of this header.
    LineBreak(String),
    /// Not a header name.
    BadName(String),
    BadMethod,
    BadRequestUri,
    BadReason,
    BadTag,
}

impl fmt::Display for BuildFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildFault::LineBreak(name) => write!(f, "CR, LF or NUL in {name}"),
            BuildFault::BadName(name) => write!(f, "not a header name: {}", name.escape_debug()),
            BuildFault::BadMethod => f.write_str("method is not a token"),
            BuildFault::BadRequestUri => f.write_str("Request-URI is not a URI"),
            BuildFault::BadReason => f.write_str("CR, LF or NUL in the reason phrase"),
            BuildFault::BadTag => f.write_str("To tag is not a token"),
        }
    }
}

impl std::error::Error for BuildFault {}

/// A message in the making. The first fault is remembered and given by `finish`.
#[derive(Clone, Debug)]
pub struct Builder {
    out: Vec<u8>,
    /// Where a To tag goes; `None` when To has one.
    to_end: Option<usize>,
    fault: Option<BuildFault>,
    body: Option<(String, Vec<u8>)>,
}

impl Builder {
    /// An answer to `request`, which came from `source`.
    pub fn response(request: &Request, status: &StatusLine, source: SocketAddr) -> Builder {
        let mut out = Vec::with_capacity(1024);
        write_status_line(&mut out, status);
        let head = request.head();
        write_stamped_vias(&mut out, head, source);
        let mut to_end = None;
        for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
            for line in head.named(name) {
                write_copied(&mut out, name, head, line, None);
            }
            if name == Name::To && request.to().tag().is_none() {
                to_end = out.len().checked_sub(2);
            }
        }
        if status.code == 100 {
            // RFC 3261 §8.2.6.1.
            for line in head.named(Name::Timestamp) {
                write_copied(&mut out, Name::Timestamp, head, line, None);
            }
        }
        let fault = has_break(&status.reason).then_some(BuildFault::BadReason);
        Builder { out, to_end, fault, body: None }
    }

    /// A request of ours. All headers, Via and Max-Forwards included, are the caller's.
    pub fn request(method: &Method, uri: &str) -> Builder {
        let fault = if !is_token(method.as_str()) {
            Some(BuildFault::BadMethod)
        } else if Uri::parse(uri).is_err() {
            Some(BuildFault::BadRequestUri)
        } else {
            None
        };
        let mut out = Vec::with_capacity(1024);
        if fault.is_none() {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{method} {uri} SIP/2.0\r\n");
        }
        Builder { out, to_end: None, fault, body: None }
    }

    /// Adds `;tag=` to the To of an answer; nothing when To has one already.
    pub fn to_tag(mut self, tag: &str) -> Builder {
        if !is_token(tag) {
            return self.fail(BuildFault::BadTag);
        }
        if let Some(at) = self.to_end.take().filter(|at| *at <= self.out.len()) {
            self.out.splice(at..at, [b";tag=", tag.as_bytes()].concat());
        }
        self
    }

    /// Adds one header line after those that are there. Content-Length and Content-Type belong to
    /// [`Builder::body`] and `finish`.
    pub fn header(mut self, name: &str, value: &str) -> Builder {
        if !is_token(name) {
            return self.fail(BuildFault::BadName(name.into()));
        }
        if has_break(value) {
            return self.fail(BuildFault::LineBreak(name.into()));
        }
        write_line(&mut self.out, name, value);
        self
    }

    /// Copies all lines of this name from a received message, as they came (Record-Route).
    pub fn copy(mut self, from: &Headers, name: Name) -> Builder {
        let head = from.head();
        for line in head.named(name) {
            write_copied(&mut self.out, name, head, line, None);
        }
        self
    }

    /// Sets the body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Builder {
        if has_break(content_type) {
            return self.fail(BuildFault::LineBreak("Content-Type".into()));
        }
        self.body = Some((content_type.into(), body.to_vec()));
        self
    }

    /// The bytes of the message, or the first fault.
    pub fn finish(mut self) -> Result<Bytes, BuildFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let body = match self.body {
            Some((content_type, body)) => {
                write_line(&mut self.out, "Content-Type", &content_type);
                body
            }
            None => Vec::new(),
        };
        let _ = write!(self.out, "Content-Length: {}\r\n\r\n", body.len());
        self.out.extend_from_slice(&body);
        Ok(Bytes::from(self.out))
    }

    fn fail(mut self, fault: BuildFault) -> Builder {
        self.fault.get_or_insert(fault);
        self
    }
}

fn has_break(text: &str) -> bool {
    text.contains(['\r', '\n', '\0'])
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Writes the status line; the reason must be free of CR and LF.
pub(super) fn write_status_line(out: &mut Vec<u8>, status: &StatusLine) {
    let reason = if has_break(&status.reason) { "" } else { &*status.reason };
    let _ = write!(out, "SIP/2.0 {} {reason}\r\n", status.code);
}

/// Copies a received line under its full name, byte for byte, with `;tag=` added when given.
pub(super) fn write_copied(
    out: &mut Vec<u8>,
    name: Name,
    head: &Head,
    line: &Line,
    tag: Option<&str>,
) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    write_text(out, head.text(line.value), line.latin1);
    if let Some(tag) = tag {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Latin-1 lines were read as characters up to 255; each goes back as its byte.
fn write_text(out: &mut Vec<u8>, text: &str, latin1: bool) {
    if latin1 {
        out.extend(text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')));
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Copies all Via lines in order; the first value gets the packet's source.
pub(super) fn write_stamped_vias(out: &mut Vec<u8>, head: &Head, source: SocketAddr) {
    for (index, line) in head.named(Name::Via).enumerate() {
        if index > 0 {
            write_copied(out, Name::Via, head, line, None);
            continue;
        }
        out.extend_from_slice(b"Via: ");
        write_text(out, &stamped(head.text(line.value), source), line.latin1);
        out.extend_from_slice(b"\r\n");
    }
}

/// The Via list with `received` and, where asked for, `rport` of the first value set to the source
/// (RFC 3581 §4). What the sender wrote there is dropped. IPv6 goes without brackets (RFC 5118 §4.5).
fn stamped(list: &str, source: SocketAddr) -> String {
    let first = super::split_commas(list).next().unwrap_or_default();
    let after = list.find(first).map_or(list.len(), |at| at + first.len());
    let mut out = String::with_capacity(list.len() + 48);
    for (index, part) in split_semicolons(first).enumerate() {
        let name = trim(part.split('=').next().unwrap_or_default());
        if index == 0 {
            out.push_str(trim(part));
        } else if name.eq_ignore_ascii_case("rport") {
            out.push_str(&format!(";rport={}", source.port()));
        } else if !name.eq_ignore_ascii_case("received") && !part.is_empty() {
            out.push(';');
            out.push_str(trim(part));
        }
    }
    out.push_str(&format!(";received={}", source.ip().to_canonical()));
    out.push_str(list.get(after..).unwrap_or_default());
    out
}

fn split_semicolons(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| match character {
        _ if escaped => {
            escaped = false;
            false
        }
        '\\' if quoted => {
            escaped = true;
            false
        }
        '"' => {
            quoted = !quoted;
            false
        }
        other => other == ';' && !quoted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::msg::{Framing, Message};

    fn request(lines: &str) -> Request {
        let text =
            format!("OPTIONS sip:u@h SIP/2.0\r\n{lines}Call-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n");
        match Message::parse(text.into(), Framing::Datagram) {
            Ok(Message::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn text(builder: Builder) -> String {
        String::from_utf8(builder.finish().expect("no fault").to_vec()).expect("UTF-8")
    }

    #[test]
    fn an_answer_copies_what_it_must_and_stamps_the_top_via() {
        let request = request(
            "v: SIP/2.0/UDP decoy.example;received=203.0.113.5;rport;maddr=203.0.113.6;x=\"a;b\" , SIP/2.0/TCP i\r\n\
             Via: SIP/2.0/TLS j\r\nf: \"A\"<sip:a@b>;tag=1\r\nTimestamp: 54\r\nt: <sip:u@h>\r\n",
        );
        let source = "[::ffff:192.0.2.9]:6000".parse().expect("an address");
        let answer = Builder::response(&request, &StatusLine::of(100), source);
        assert_eq!(
            text(answer.header("X-One", "ü").to_tag("t1").body("application/sdp", b"v=0")),
            "SIP/2.0 100 Trying\r\n\
             Via: SIP/2.0/UDP decoy.example;rport=6000;maddr=203.0.113.6;x=\"a;b\";received=192.0.2.9 , SIP/2.0/TCP i\r\n\
             Via: SIP/2.0/TLS j\r\nFrom: \"A\"<sip:a@b>;tag=1\r\nTo: <sip:u@h>;tag=t1\r\nCall-ID: c\r\n\
             CSeq: 1 OPTIONS\r\nTimestamp: 54\r\nX-One: ü\r\nContent-Type: application/sdp\r\n\
             Content-Length: 3\r\n\r\nv=0"
        );
    }

    #[test]
    fn a_to_tag_that_is_there_stays() {
        let request = request("Via: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\nTo: <sip:u@h>;tag=old\r\n");
        let source = "[2001:db8::1]:5060".parse().expect("an address");
        let answer = text(Builder::response(&request, &StatusLine::of(200), source).to_tag("new"));
        assert!(
            answer.contains("To: <sip:u@h>;tag=old\r\n") && !answer.contains("new"),
            "{answer}"
        );
        assert!(answer.contains("Via: SIP/2.0/UDP h;received=2001:db8::1\r\n"), "{answer}");
    }

    #[test]
    fn latin1_goes_back_as_it_came() {
        let text =
            b"OPTIONS sip:u@h SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: M\xfcller <sip:a@b>\r\n\
                     To: <sip:u@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n";
        let Ok(Message::Request(request)) =
            Message::parse(Bytes::from_static(text), Framing::Datagram)
        else {
            panic!("well formed");
        };
        let source = "192.0.2.9:5060".parse().expect("an address");
        let answer =
            Builder::response(&request, &StatusLine::of(200), source).finish().expect("no fault");
        let from = b"From: M\xfcller <sip:a@b>\r\n";
        assert!(answer.windows(from.len()).any(|part| part == from));
    }

    #[test]
    fn line_breaks_are_refused_wherever_they_are_set() {
        let uri = "sip:u@h";
        let start = || Builder::request(&Method::Bye, uri);
        let faults = [
            start().header("X", "a\r\nEvil: b"),
            start().header("X", "a\nb"),
            start().header("X", "a\rb"),
            start().header("X", "a\0b"),
            start().header("X\r\nEvil", "b"),
            start().header("X ", "b"),
            start().header("", "b"),
            start().body("text/plain\r\nEvil: b", b""),
            start().to_tag("a\r\nb"),
            Builder::request(&Method::Bye, "sip:u@h\r\nEvil: b"),
            Builder::request(&Method::Bye, "sip:u@h x"),
            Builder::request(&Method::Other("A B".into()), uri),
        ];
        for (index, builder) in faults.into_iter().enumerate() {
            assert!(builder.header("Y", "fine").finish().is_err(), "case {index}");
        }
        assert_eq!(
            text(start().header("X", "")),
            "BYE sip:u@h SIP/2.0\r\nX: \r\nContent-Length: 0\r\n\r\n"
        );
    }
}
