//! The headers of a parsed message and the typed views of those that every call needs. All of it
//! borrows from the message; nothing is decoded before someone asks.

use super::head::Head;
use super::lex::{number, split_commas};
use super::method::Method;
use super::name::Name;
use super::name_addr::NameAddr;
use super::via::Via;
use bytes::Bytes;
use std::fmt;

/// CSeq (RFC 3261 §20.16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CSeq<'a> {
    /// Below 2^31.
    pub number: u32,
    pub method: &'a Method,
}

/// The headers of one message, in the order and the spelling in which they came.
#[derive(Clone)]
pub struct Headers {
    pub(super) bytes: Bytes,
    pub(super) head: Head,
    pub(super) body_start: usize,
    pub(super) cseq_number: u32,
    pub(super) cseq_method: Method,
}

/// Without the lines and the body, which may hold credentials and media keys.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, number) = (self.cseq_method.as_str(), self.cseq_number);
        write!(f, "Headers({number} {method}, {} bytes)", self.bytes.len())
    }
}

impl Headers {
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The whole message as it came, without what stood before and after it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body, byte for byte; empty when there is none.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.body_start..).unwrap_or_default()
    }

    /// The body as a part of the received bytes, without a copy.
    pub fn body_bytes(&self) -> Bytes {
        self.bytes.slice(self.body_start.min(self.bytes.len())..)
    }

    /// The value of the first line with this name, unfolded and trimmed. Bytes of a line that is
    /// not UTF-8 are read as Latin-1.
    pub fn get(&self, name: Name) -> Option<&str> {
        self.head.value(name)
    }

    /// The same for any header by its full name in any case; compact forms are found too.
    pub fn get_named(&self, name: &str) -> Option<&str> {
        self.lines_named(name).next()
    }

    /// The values of all lines with this full name in any case, in order; lists are not split.
    pub fn lines_named(&self, name: &str) -> impl Iterator<Item = &str> {
        let known = Name::parse(name);
        let lines = self.head.lines.iter().filter(move |line| match known {
            Name::Other => self.head.text(line.name_span).eq_ignore_ascii_case(name),
            known => line.name == known,
        });
        lines.map(|line| self.head.text(line.value))
    }

    /// All elements of this list header, in order over its lines. Quotes and `<…>` are respected,
    /// empty elements left out.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &str> {
        let lines = self.head.named(name).map(|line| self.head.text(line.value));
        lines.flat_map(split_commas).filter(|value| !value.is_empty())
    }

    /// All headers in order: the name as received, and the value.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head
            .lines
            .iter()
            .map(|line| (self.head.text(line.name_span), self.head.text(line.value)))
    }

    /// True when an option tag stands in this list header (`Supported`, `Require`).
    pub fn has_option(&self, name: Name, tag: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(tag))
    }

    /// The top Via.
    pub fn via(&self) -> Via<'_> {
        self.vias().next().unwrap_or_default()
    }

    /// All Via values, top first.
    pub fn vias(&self) -> impl Iterator<Item = Via<'_>> {
        self.values(Name::Via).filter_map(|value| Via::parse(value).ok())
    }

    pub fn from(&self) -> NameAddr<'_> {
        self.address(Name::From)
    }

    pub fn to(&self) -> NameAddr<'_> {
        self.address(Name::To)
    }

    /// Compared byte for byte.
    pub fn call_id(&self) -> &str {
        self.get(Name::CallId).unwrap_or_default()
    }

    pub fn cseq(&self) -> CSeq<'_> {
        CSeq { number: self.cseq_number, method: &self.cseq_method }
    }

    /// `None` when absent (RFC 2543).
    pub fn max_forwards(&self) -> Option<u8> {
        number(self.get(Name::MaxForwards)?, 255).and_then(|value| u8::try_from(value).ok())
    }

    /// The first Contact; `None` for `*` and when absent.
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        self.contacts().next()
    }

    /// All Contacts; `*` is none.
    pub fn contacts(&self) -> impl Iterator<Item = NameAddr<'_>> {
        self.values(Name::Contact).filter_map(|value| NameAddr::parse(value).ok())
    }

    /// All Record-Route values as received, in order.
    pub fn record_routes(&self) -> Vec<&str> {
        self.values(Name::RecordRoute).collect()
    }

    /// All Route values as received, in order.
    pub fn routes(&self) -> Vec<&str> {
        self.values(Name::Route).collect()
    }

    /// `type/subtype` in lower case, without parameters.
    pub fn content_type(&self) -> Option<String> {
        let value = self.get(Name::ContentType)?.split(';').next()?;
        Some(value.replace([' ', '\t'], "").to_ascii_lowercase())
    }

    /// Seconds; more than 2^32 − 1 counts as that. `None` when absent or not a number.
    pub fn expires(&self) -> Option<u32> {
        let value = self.get(Name::Expires)?;
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| value.parse().unwrap_or(u32::MAX))
    }

    /// The value of a list of addresses was checked by the parse, so the default is never seen.
    fn address(&self, name: Name) -> NameAddr<'_> {
        self.get(name).and_then(|value| NameAddr::parse(value).ok()).unwrap_or_default()
    }
}
