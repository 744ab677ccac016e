//! A whole message: start line, headers, body (RFC 3261 §7, §8.1.1, §18.3). `Message::parse` is the
//! only way in. What it returns holds exactly one well-formed From, To, Call-ID and CSeq, at least
//! one Via, numbers in range and no second copy of a header that decides anything. A missing From
//! tag, branch or Max-Forwards is allowed (RFC 2543).

use super::fault::{FaultReason, ParseFault, is_version};
use super::head::{Head, OnBadLine, Span, head_end};
use super::headers::Headers;
use super::lex::{cut, is_blank, is_token, number, split_commas, trim_start};
use super::method::Method;
use super::name::Name;
use super::name_addr::NameAddr;
use super::uri::Uri;
use super::via::Via;
use crate::ground::limits;
use bytes::{Buf, Bytes};
use std::ops::Deref;

/// Where the bytes came from, which decides how the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// One UDP packet: bytes after the body are ignored; without Content-Length the rest is the body.
    Datagram,
    /// One message of a stream, cut out by `frame::StreamFramer`: Content-Length is needed.
    Stream,
}

/// A parsed message.
#[derive(Clone, Debug)]
pub enum Message {
    Request(Request),
    Response(Response),
}

/// A parsed request; its headers by `Deref`.
#[derive(Clone, Debug)]
pub struct Request {
    headers: Headers,
    uri: Span,
}

/// A parsed response; its headers by `Deref`.
#[derive(Clone, Debug)]
pub struct Response {
    headers: Headers,
    code: u16,
    reason: Span,
}

impl Message {
    /// Parses one message. Line ends before it are skipped.
    pub fn parse(mut bytes: Bytes, framing: Framing) -> Result<Message, ParseFault> {
        while bytes.starts_with(b"\r\n") {
            bytes.advance(2);
        }
        parse(&bytes, framing).map_err(|reason| ParseFault::new(reason, bytes))
    }

    pub fn headers(&self) -> &Headers {
        match self {
            Message::Request(request) => request,
            Message::Response(response) => response,
        }
    }
}

impl Deref for Message {
    type Target = Headers;
    fn deref(&self) -> &Headers {
        self.headers()
    }
}

impl Deref for Request {
    type Target = Headers;
    fn deref(&self) -> &Headers {
        &self.headers
    }
}

impl Deref for Response {
    type Target = Headers;
    fn deref(&self) -> &Headers {
        &self.headers
    }
}

impl Request {
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The same as the method of CSeq.
    pub fn method(&self) -> &Method {
        &self.headers.cseq_method
    }

    /// The Request-URI.
    pub fn uri(&self) -> Uri<'_> {
        Uri::parse(self.headers.head.text(self.uri)).unwrap_or_default()
    }
}

impl Response {
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// 100 to 699.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reason phrase as received; may be empty.
    pub fn reason(&self) -> &str {
        self.headers.head.text(self.reason)
    }
}

fn parse(bytes: &Bytes, framing: Framing) -> Result<Message, FaultReason> {
    let max = match framing {
        Framing::Datagram => limits::UDP_MESSAGE_BYTES_MAX,
        Framing::Stream => limits::STREAM_MESSAGE_BYTES_MAX,
    };
    if bytes.iter().all(|byte| b"\r\n\0 ".contains(byte)) {
        return Err(FaultReason::Empty);
    }
    if bytes.len() > max {
        return Err(FaultReason::TooLarge);
    }
    let end = head_end(bytes, 0);
    let head = Head::scan(&bytes.slice(..end.unwrap_or(bytes.len())), OnBadLine::Refuse)?;
    let start = StartLine::parse(&head)?;
    let body_start = end.ok_or(FaultReason::HeadUnfinished)?;
    let Checked { cseq_number, cseq_method, empty_branch } = check(&head)?;
    let body_len = body_len(&head, bytes.len() - body_start, framing)?;
    let bytes = bytes.slice(..body_start + body_len);
    let headers = Headers { bytes, head, body_start, cseq_number, cseq_method };
    match start {
        StartLine::Request { method, uri } => {
            if headers.head.text(method) != headers.cseq_method.as_str() {
                return Err(FaultReason::CSeqMismatch);
            }
            if empty_branch {
                return Err(FaultReason::EmptyBranch);
            }
            Ok(Message::Request(Request { headers, uri }))
        }
        StartLine::Response { code, reason } => {
            Ok(Message::Response(Response { headers, code, reason }))
        }
    }
}

enum StartLine {
    Request { method: Span, uri: Span },
    Response { code: u16, reason: Span },
}

impl StartLine {
    /// Single blanks only, and none at the end (RFC 3261 §7.1, RFC 4475 §3.1.2.8 to .10).
    fn parse(head: &Head) -> Result<StartLine, FaultReason> {
        let line = head.start_line();
        if is_version(line) {
            return StartLine::parse_response(head, line);
        }
        let last = line.rsplit(is_blank).find(|word| !word.is_empty()).unwrap_or_default();
        if !is_version(last) {
            return Err(FaultReason::NotSip);
        }
        if !last.eq_ignore_ascii_case("SIP/2.0") {
            return Err(FaultReason::Version);
        }
        let (method, rest) = cut(line, b' ').ok_or(FaultReason::BadStartLine)?;
        let (uri, version) = rest.rsplit_once(' ').ok_or(FaultReason::BadStartLine)?;
        if !is_token(method)
            || version != last
            || uri.is_empty()
            || uri.starts_with(' ')
            || uri.ends_with(' ')
        {
            return Err(FaultReason::BadStartLine);
        }
        let parsed = Uri::parse(uri).map_err(FaultReason::BadRequestUri)?;
        if parsed.has_headers() {
            return Err(FaultReason::HeadersInRequestUri);
        }
        let from = head.start_line.start as usize;
        let uri_start = from + method.len() + 1;
        Ok(StartLine::Request {
            method: Span::new(from, from + method.len()),
            uri: Span::new(uri_start, uri_start + uri.len()),
        })
    }

    /// `SIP/2.0 SP 3DIGIT SP reason`; the last blank may be missing when there is no reason.
    fn parse_response(head: &Head, line: &str) -> Result<StartLine, FaultReason> {
        let (version, rest) = cut(line, b' ').ok_or(FaultReason::BadStartLine)?;
        if !version.eq_ignore_ascii_case("SIP/2.0") {
            return Err(FaultReason::Version);
        }
        let (digits, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let code = number(digits, 699).filter(|code| digits.len() == 3 && *code >= 100);
        let code =
            code.and_then(|code| u16::try_from(code).ok()).ok_or(FaultReason::BadStartLine)?;
        let end = head.start_line.end as usize;
        Ok(StartLine::Response { code, reason: Span::new(end - reason.len(), end) })
    }
}

/// What the headers say that decides about the message.
struct Checked {
    cseq_number: u32,
    cseq_method: Method,
    /// The branch of the top Via is nothing but the magic cookie.
    empty_branch: bool,
}

/// Checks every header that something is decided from.
fn check(head: &Head) -> Result<Checked, FaultReason> {
    let mut seen = [false; Name::COUNT];
    let mut vias = 0;
    let mut empty_branch = false;
    for line in &head.lines {
        let name = line.name;
        let slot = seen.get_mut(name as usize);
        if name.is_single() && slot.as_ref().is_some_and(|seen| **seen) {
            return Err(FaultReason::Repeated(name));
        }
        if let Some(slot) = slot {
            *slot = true;
        }
        if name == Name::Via {
            for value in split_commas(head.text(line.value)) {
                let via = Via::parse(value).map_err(|_| FaultReason::Bad(Name::Via))?;
                if vias == 0 {
                    empty_branch = via.branch() == Some(super::via::BRANCH_COOKIE);
                }
                vias += 1;
            }
        } else if !is_good(name, head.text(line.value)) {
            return Err(FaultReason::Bad(name));
        }
    }
    if vias > limits::VIAS_MAX {
        return Err(FaultReason::TooManyVias);
    }
    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
        if !seen.get(name as usize).is_some_and(|seen| *seen) {
            return Err(FaultReason::Missing(name));
        }
    }
    let cseq = read_cseq(head.value(Name::CSeq).unwrap_or_default());
    let (cseq_number, cseq_method) = cseq.ok_or(FaultReason::Bad(Name::CSeq))?;
    Ok(Checked { cseq_number, cseq_method, empty_branch })
}

/// Whether the value of a header that we use is well formed. Others are anything at all.
fn is_good(name: Name, value: &str) -> bool {
    let address = |value: &str| NameAddr::parse(value).is_ok();
    match name {
        Name::From | Name::To => address(value),
        Name::Contact => value == "*" || split_commas(value).all(address),
        Name::Route | Name::RecordRoute => split_commas(value).all(address),
        Name::CallId => !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()),
        Name::MaxForwards => number(value, 255).is_some(),
        Name::ContentLength => number(value, u64::MAX).is_some(),
        _ => true,
    }
}

/// `1*DIGIT LWS Method`, the number below 2^31 (RFC 3261 §8.1.1.5).
fn read_cseq(value: &str) -> Option<(u32, Method)> {
    let (digits, method) = value.split_once(is_blank)?;
    let method = trim_start(method);
    let number = number(digits, (1 << 31) - 1).and_then(|number| u32::try_from(number).ok())?;
    is_token(method).then(|| (number, Method::parse(method)))
}

/// The length of the body, of `available` bytes.
fn body_len(head: &Head, available: usize, framing: Framing) -> Result<usize, FaultReason> {
    match content_length(head)? {
        Some(len) if len > available => Err(FaultReason::BodyShort),
        Some(len) => Ok(len),
        None if framing == Framing::Datagram => Ok(available),
        None => Err(FaultReason::LengthMissing),
    }
}

/// The one Content-Length; digits only. A second one is a fault even when equal: two readers might
/// take different ones.
pub(super) fn content_length(head: &Head) -> Result<Option<usize>, FaultReason> {
    let mut lines = head.named(Name::ContentLength);
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(FaultReason::Repeated(Name::ContentLength));
    }
    let value = number(head.text(line.value), u64::MAX).and_then(|len| usize::try_from(len).ok());
    value.map(Some).ok_or(FaultReason::Bad(Name::ContentLength))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:u@h SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
                          From: <sip:a@b>;tag=1\r\nTo: <sip:u@h>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n";

    /// `Ok` with the body, or the reason, of the INVITE with these lines and this body added.
    fn outcome(lines: &str, body: &str, framing: Framing) -> Result<String, FaultReason> {
        let text = format!("{INVITE}{lines}\r\n{body}");
        let message = Message::parse(text.into(), framing).map_err(|fault| fault.reason)?;
        Ok(String::from_utf8_lossy(message.body()).into_owned())
    }

    #[test]
    fn lengths_are_obeyed_or_refused() {
        let good = |body: &str| Ok(body.to_owned());
        let bad = Err(FaultReason::Bad(Name::ContentLength));
        let cases = [
            ("Content-Length: 3\r\n", good("abc"), good("abc")),
            ("l:3\r\n", good("abc"), good("abc")),
            ("Content-Length : 3\r\n", good("abc"), good("abc")),
            ("Content-Length:\r\n 3\r\n", good("abc"), good("abc")),
            ("Content-Length: 00003\r\n", good("abc"), good("abc")),
            ("Content-Length: 0\r\n", good(""), good("")),
            ("", good("abcdef"), Err(FaultReason::LengthMissing)),
            ("Content-Length: 7\r\n", Err(FaultReason::BodyShort), Err(FaultReason::BodyShort)),
            (
                "Content-Length: 4294967299\r\n",
                Err(FaultReason::BodyShort),
                Err(FaultReason::BodyShort),
            ),
            ("Content-Length: 18446744073709551619\r\n", bad.clone(), bad.clone()),
            ("Content-Length: -1\r\n", bad.clone(), bad.clone()),
            ("Content-Length: +3\r\n", bad.clone(), bad.clone()),
            ("Content-Length: 3, 3\r\n", bad.clone(), bad.clone()),
            ("Content-Length: 0x3\r\n", bad.clone(), bad.clone()),
            ("Content-Length:\r\n", bad.clone(), bad),
            (
                "Content-Length: 3\r\nl: 3\r\n",
                Err(FaultReason::Repeated(Name::ContentLength)),
                Err(FaultReason::Repeated(Name::ContentLength)),
            ),
        ];
        for (lines, datagram, stream) in cases {
            assert_eq!(outcome(lines, "abcdef", Framing::Datagram), datagram, "{lines}");
            assert_eq!(outcome(lines, "abcdef", Framing::Stream), stream, "{lines}");
        }
    }

    #[test]
    fn crooked_headers_are_refused_with_their_reason() {
        let cases = [
            ("To: <sip:x@y>\r\n", FaultReason::Repeated(Name::To)),
            ("t: <sip:x@y>\r\n", FaultReason::Repeated(Name::To)),
            ("i: c1\r\n", FaultReason::Repeated(Name::CallId)),
            ("Max-Forwards: 256\r\n", FaultReason::Bad(Name::MaxForwards)),
            ("Max-Forwards: 70\r\nMax-Forwards: 70\r\n", FaultReason::Repeated(Name::MaxForwards)),
            ("Contact: <sip:a@b>, x\r\n", FaultReason::Bad(Name::Contact)),
            ("Record-Route: sip:a b\r\n", FaultReason::Bad(Name::RecordRoute)),
            ("Via: SIP/2.0/UDP h,\r\n", FaultReason::Bad(Name::Via)),
            ("no colon here\r\n", FaultReason::BadHeaderLine),
            (": x\r\n", FaultReason::BadHeaderLine),
            ("A B: x\r\n", FaultReason::BadHeaderLine),
            ("Überschrift: x\r\n", FaultReason::BadHeaderLine),
            ("X: a\rb\r\n", FaultReason::BareLineEnd),
            ("X: a\nEvil: b\r\n", FaultReason::BareLineEnd),
            ("X: a\r\r\n", FaultReason::BareLineEnd),
            ("X: a\r\n \nEvil: b\r\n", FaultReason::BareLineEnd),
            ("X: a\0b\r\n", FaultReason::BadHeaderLine),
        ];
        for (lines, reason) in cases {
            assert_eq!(outcome(lines, "", Framing::Datagram), Err(reason), "{lines:?}");
        }
    }

    #[test]
    fn start_lines_are_read_or_refused() {
        let rest = INVITE.split_once("\r\n").expect("two lines").1;
        let outcome = |line: &str| {
            let text = format!("{line}\r\n{rest}Content-Length: 0\r\n\r\n");
            Message::parse(text.into(), Framing::Datagram).map_err(|fault| fault.reason).map(
                |message| match message {
                    Message::Request(request) => {
                        format!("{} {}", request.method(), request.uri().as_str())
                    }
                    Message::Response(response) => {
                        format!("{} {}", response.code(), response.reason())
                    }
                },
            )
        };
        let cases = [
            ("INVITE sip:u@h SIP/2.0", Ok("INVITE sip:u@h")),
            ("INVITE sip:u@h sip/2.0", Ok("INVITE sip:u@h")),
            ("SIP/2.0 200 OK fine", Ok("200 OK fine")),
            ("SIP/2.0 100 ", Ok("100 ")),
            ("SIP/2.0 699", Ok("699 ")),
            ("SIP/2.0 700 x", Err(FaultReason::BadStartLine)),
            ("SIP/2.0 099 x", Err(FaultReason::BadStartLine)),
            ("SIP/2.0 4294967301 x", Err(FaultReason::BadStartLine)),
            ("SIP/3.0 200 OK", Err(FaultReason::Version)),
            ("INVITE sip:u@h SIP/7.0", Err(FaultReason::Version)),
            ("INVITE  sip:u@h SIP/2.0", Err(FaultReason::BadStartLine)),
            ("INVITE sip:u@h  SIP/2.0", Err(FaultReason::BadStartLine)),
            ("INVITE sip:u@h SIP/2.0 ", Err(FaultReason::BadStartLine)),
            ("INVITE\tsip:u@h\tSIP/2.0", Err(FaultReason::BadStartLine)),
            ("BYE sip:u@h SIP/2.0", Err(FaultReason::CSeqMismatch)),
            ("invite sip:u@h SIP/2.0", Err(FaultReason::CSeqMismatch)),
            ("INVITE sip:u@h", Err(FaultReason::NotSip)),
            ("POST / HTTP/1.1", Err(FaultReason::NotSip)),
            ("", Err(FaultReason::NotSip)),
        ];
        for (line, expected) in cases {
            // An empty first line is skipped, so the first header stands in its place.
            assert_eq!(outcome(line), expected.map(str::to_owned), "{line:?}");
        }
    }

    #[test]
    fn folds_latin1_and_odd_names_are_read_as_they_are_meant() {
        let text = b"\r\nOPTIONS sip:u@h SIP/2.0\r\nv :\r\n SIP / 2.0\r\n /UDP h;branch=z9hG4bKa ,\r\n\tSIP/2.0/TCP i\r\n\
            From: \"M\xfcller\"<sip:a@b>\r\n ;tag=1\r\nTo: <sip:u@h>\r\ni: c\r\nCSeq: 0009\r\n  OPTIONS\r\n\
            X-One:  a  \r\n b\r\nx-one: c\r\ns:\r\nX-UTF: \xc3\xbc\r\n\r\nbody\xff\0";
        let message =
            Message::parse(Bytes::from_static(text), Framing::Datagram).expect("well formed");
        assert_eq!(message.from().display_name(), Some("Müller".into()));
        assert_eq!(message.from().tag(), Some("1"));
        assert_eq!(
            message.vias().map(|via| via.transport().to_owned()).collect::<Vec<_>>(),
            ["UDP", "TCP"]
        );
        assert_eq!((message.cseq().number, message.cseq().method), (9, &Method::Options));
        assert_eq!(message.lines_named("X-One").collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(message.get(Name::Subject), Some(""));
        assert_eq!(message.get_named("x-utf"), Some("ü"));
        assert_eq!(message.body(), b"body\xff\0");
        let names: Vec<_> = message.lines().map(|(name, _)| name).collect();
        assert_eq!(names, ["v", "From", "To", "i", "CSeq", "X-One", "x-one", "s", "X-UTF"]);
    }

    #[test]
    fn too_much_of_anything_is_answered_with_513_or_414() {
        let source = "192.0.2.9:5060".parse().expect("an address");
        let status = |text: String| match Message::parse(text.into(), Framing::Datagram) {
            Ok(_) => "ok".to_owned(),
            Err(fault) => {
                let answer = fault.answer(source).expect("an INVITE is answered");
                String::from_utf8_lossy(&answer[8..11]).into_owned()
            }
        };
        let with = |lines: String| format!("{INVITE}{lines}\r\n");
        let own = 5;
        assert_eq!(status(with("X-A: 1\r\n".repeat(limits::HEADERS_MAX - own))), "ok");
        assert_eq!(status(with("X-A: 1\r\n".repeat(limits::HEADERS_MAX - own + 1))), "513");
        let via = "v: SIP/2.0/UDP h\r\n";
        assert_eq!(status(with(via.repeat(limits::VIAS_MAX - 1))), "ok");
        assert_eq!(status(with(via.repeat(limits::VIAS_MAX))), "513");
        let body = limits::UDP_MESSAGE_BYTES_MAX - INVITE.len() - 2;
        assert_eq!(status(with(String::new()) + &"b".repeat(body)), "ok");
        assert_eq!(status(with(String::new()) + &"b".repeat(body + 1)), "513");
        let long = format!("sip:{}@h", "u".repeat(limits::URI_BYTES_MAX - 6));
        assert_eq!(
            status(with(String::new()).replace("sip:u@h SIP", &format!("{long} SIP"))),
            "ok"
        );
        assert_eq!(
            status(with(String::new()).replace("sip:u@h SIP", &format!("{long}x SIP"))),
            "414"
        );
    }

    /// Quadratic reading of any of these would take minutes.
    #[test]
    fn hostile_shapes_cost_no_more_than_their_length() {
        let size = limits::STREAM_MESSAGE_BYTES_MAX - 1024;
        let source = "192.0.2.9:5060".parse().expect("an address");
        let pieces = [
            "\n", "\r", "\"", ",", ";a", "\r\n ", "\0", "<", "\\", "%41", "sip:a@b,", "\u{fc}",
            "X:\r\n",
        ];
        for (name, piece) in ["Via", "Contact", "From", "Route", "X"]
            .iter()
            .flat_map(|name| pieces.map(|piece| (name, piece)))
        {
            for _ in 0..20 {
                let text = format!("{INVITE}{name}: {}\r\n\r\n", piece.repeat(size / piece.len()));
                if let Err(fault) = Message::parse(text.into(), Framing::Stream) {
                    let _ = fault.answer(source);
                }
            }
        }
    }
}
