//! SIP, SIPS and tel URIs as borrowed views (RFC 3261 §19.1, §25.1, RFC 3966, RFC 5118). Other
//! schemes are kept whole. Tolerated beyond the grammar: `_` in host names, raw UTF-8 and `#` in
//! users, three colons in an IPv6 reference (RFC 5118 §4.10). Never decodes an escape twice.

use super::lex::{cut, escapes_are_whole, number, percent_decode, table};
use crate::ground::limits;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The scheme of a URI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    /// Any other; its text is opaque.
    #[default]
    Other,
}

/// The host part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Host<'a> {
    /// A host name in its received case.
    Name(&'a str),
    /// A literal address; IPv4-mapped IPv6 is already IPv4.
    Address(IpAddr),
    /// tel and opaque URIs have none.
    #[default]
    Absent,
}

impl fmt::Display for Host<'_> {
    /// As in a URI: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => address.fmt(f),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Absent => Ok(()),
        }
    }
}

/// Why a text is not a URI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UriFault {
    TooLong,
    BadScheme,
    BadUser,
    BadHost,
    BadPort,
    BadParameter,
    BadNumber,
    BadCharacter,
}

impl fmt::Display for UriFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UriFault::TooLong => "URI too long",
            UriFault::BadScheme => "bad URI scheme",
            UriFault::BadUser => "bad user in URI",
            UriFault::BadHost => "bad host in URI",
            UriFault::BadPort => "bad port in URI",
            UriFault::BadParameter => "bad parameter in URI",
            UriFault::BadNumber => "bad telephone number",
            UriFault::BadCharacter => "bad character in URI",
        })
    }
}

/// A parsed view of one URI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uri<'a> {
    text: &'a str,
    scheme: Scheme,
    user: Option<&'a str>,
    password: Option<&'a str>,
    host: Host<'a>,
    port: Option<u16>,
    params: &'a str,
    headers: &'a str,
}

impl<'a> Uri<'a> {
    /// Reads a whole URI; nothing may stand before or after it.
    pub fn parse(text: &'a str) -> Result<Uri<'a>, UriFault> {
        if text.len() > limits::URI_BYTES_MAX {
            return Err(UriFault::TooLong);
        }
        if text.bytes().any(|byte| byte < b' ' || FORBIDDEN[usize::from(byte)]) {
            return Err(UriFault::BadCharacter);
        }
        let (scheme, rest) = cut(text, b':').ok_or(UriFault::BadScheme)?;
        if scheme.eq_ignore_ascii_case("sip") {
            Uri::parse_sip(text, Scheme::Sip, rest)
        } else if scheme.eq_ignore_ascii_case("sips") {
            Uri::parse_sip(text, Scheme::Sips, rest)
        } else if scheme.eq_ignore_ascii_case("tel") {
            Uri::parse_tel(text, rest)
        } else {
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            let begins = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
            if !begins || !scheme.bytes().all(letters) || rest.is_empty() {
                return Err(UriFault::BadScheme);
            }
            Ok(Uri { text, ..Uri::default() })
        }
    }

    fn parse_sip(text: &'a str, scheme: Scheme, rest: &'a str) -> Result<Uri<'a>, UriFault> {
        let (userinfo, place) = match cut(rest, b'@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, rest),
        };
        if place.contains('@') {
            return Err(UriFault::BadUser);
        }
        let (user, password) = match userinfo {
            Some(userinfo) => read_userinfo(userinfo)?,
            None => (None, None),
        };
        let (place, headers) = cut(place, b'?').unwrap_or((place, ""));
        let (place, params) = cut(place, b';').unwrap_or((place, ""));
        if !escapes_are_whole(params) || params.split(';').any(|param| param.starts_with('=')) {
            return Err(UriFault::BadParameter);
        }
        let (host, port) = read_host_port(place)?;
        Ok(Uri { text, scheme, user, password, host, port, params, headers })
    }

    fn parse_tel(text: &'a str, rest: &'a str) -> Result<Uri<'a>, UriFault> {
        let (digits, params) = rest.split_once(';').unwrap_or((rest, ""));
        let body = digits.strip_prefix('+').unwrap_or(digits);
        let known = |byte: u8| byte.is_ascii_hexdigit() || b"*#-.()".contains(&byte);
        let dials = body.bytes().any(|byte| byte.is_ascii_hexdigit() || b"*#".contains(&byte));
        if !dials || !body.bytes().all(known) {
            return Err(UriFault::BadNumber);
        }
        if !escapes_are_whole(params) {
            return Err(UriFault::BadParameter);
        }
        Ok(Uri { text, scheme: Scheme::Tel, user: Some(digits), params, ..Uri::default() })
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user part as received, escapes and user parameters included, without the password; the
    /// number with its separators for tel.
    pub fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// The user part with its escapes decoded once; empty when there is none. May hold any
    /// character, control characters included.
    pub fn user_decoded(&self) -> Cow<'a, str> {
        percent_decode(self.user.unwrap_or_default())
    }

    /// The password as received. Never print it.
    pub fn password(&self) -> Option<&'a str> {
        self.password
    }

    pub fn host(&self) -> Host<'a> {
        self.host
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A URI parameter by its name in any case: `Some(None)` when it has no value; escapes decoded.
    pub fn param(&self, name: &str) -> Option<Option<Cow<'a, str>>> {
        self.params.split(';').find_map(|param| {
            let (key, value) = match param.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (param, None),
            };
            let same = percent_decode(key).eq_ignore_ascii_case(name);
            same.then(|| value.map(percent_decode))
        })
    }

    /// The text of all parameters, without the first `;`.
    pub fn params_text(&self) -> &'a str {
        self.params
    }

    /// The embedded headers (`?name=value&…`), escapes decoded.
    pub fn headers(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        self.headers.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
    }

    /// True when `?…` follows.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// The URI as received.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// With the control characters, what stands in no URI.
static FORBIDDEN: [bool; 256] = table(b" <>\"\\\x7f");

type UserInfo<'a> = (Option<&'a str>, Option<&'a str>);

fn read_userinfo(userinfo: &str) -> Result<UserInfo<'_>, UriFault> {
    let (user, password) = match cut(userinfo, b':') {
        Some((user, password)) => (user, Some(password)),
        None => (userinfo, None),
    };
    let allowed = |byte: u8| !b"[]{}|^".contains(&byte);
    if user.is_empty() || !escapes_are_whole(userinfo) || !userinfo.bytes().all(allowed) {
        return Err(UriFault::BadUser);
    }
    Ok((Some(user), password))
}

/// Reads `host[:port]` with no blanks.
pub(super) fn read_host_port(text: &str) -> Result<(Host<'_>, Option<u16>), UriFault> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(UriFault::BadHost)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(UriFault::BadHost),
            };
            (read_ipv6(address).ok_or(UriFault::BadHost)?, port)
        }
        None => {
            let (name, port) = match cut(text, b':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            };
            (read_name(name)?, port)
        }
    };
    let port = match port {
        Some(digits) if digits.len() <= 5 => {
            let value = number(digits, u64::from(u16::MAX)).ok_or(UriFault::BadPort)?;
            Some(u16::try_from(value).map_err(|_| UriFault::BadPort)?)
        }
        Some(_) => return Err(UriFault::BadPort),
        None => None,
    };
    Ok((host, port))
}

/// Reads an IPv6 address without brackets; `:::` counts as `::` (RFC 5118 §4.10).
pub(super) fn read_ipv6(text: &str) -> Option<Host<'static>> {
    let parsed = if text.contains(":::") {
        text.replacen(":::", "::", 1).parse::<Ipv6Addr>()
    } else {
        text.parse::<Ipv6Addr>()
    };
    parsed.ok().map(|address| Host::Address(IpAddr::V6(address).to_canonical()))
}

/// A host name or an IPv4 address. Digits and dots alone are an address or nothing: `010.0.0.1` and
/// `1.2.3` name no host, so no two readers can disagree on them.
fn read_name(text: &str) -> Result<Host<'_>, UriFault> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !text.bytes().all(known) {
        return Err(UriFault::BadHost);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let address = text.parse::<Ipv4Addr>().map_err(|_| UriFault::BadHost)?;
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let labels = text.strip_suffix('.').unwrap_or(text);
    if text.len() > 255 || labels.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(UriFault::BadHost);
    }
    Ok(Host::Name(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scheme | user | password | host | port | params | headers
    fn shown(text: &str) -> String {
        match Uri::parse(text) {
            Err(fault) => format!("{fault:?}"),
            Ok(uri) => format!(
                "{:?}|{}|{}|{}|{}|{}|{}",
                uri.scheme(),
                uri.user().unwrap_or("-"),
                uri.password().unwrap_or("-"),
                uri.host(),
                uri.port().map_or("-".into(), |port| port.to_string()),
                uri.params_text(),
                uri.headers().map(|(name, value)| format!("{name}={value}")).collect::<String>(),
            ),
        }
    }

    #[test]
    fn uris_are_read_or_refused() {
        let cases = [
            ("sip:a@b", "Sip|a|-|b|-||"),
            ("SIP:A@B.example;Transport=UDP", "Sip|A|-|B.example|-|Transport=UDP|"),
            ("sips:h", "Sips|-|-|h|-||"),
            (
                "sip:user;par=u%40example.net@example.com",
                "Sip|user;par=u%40example.net|-|example.com|-||",
            ),
            (
                "sip:a%40x:p%3Bw@b.example;user=phone?Subject=hi",
                "Sip|a%40x|p%3Bw|b.example|-|user=phone|Subject=hi",
            ),
            (
                "sip:12345;phone-context=x@my_host.local:5060;ob",
                "Sip|12345;phone-context=x|-|my_host.local|5060|ob|",
            ),
            ("sip:1*67#@h", "Sip|1*67#|-|h|-||"),
            ("sip:ü@h", "Sip|ü|-|h|-||"),
            ("sip:[2001:db8::10]:5070", "Sip|-|-|[2001:db8::10]|5070||"),
            ("sip:[2001:db8::10:5070]", "Sip|-|-|[2001:db8::10:5070]|-||"),
            ("sip:user@[2001:db8:::192.0.2.1]", "Sip|user|-|[2001:db8::c000:201]|-||"),
            ("sip:u@[::ffff:192.0.2.1]", "Sip|u|-|192.0.2.1|-||"),
            ("sip:h?Route=%3Csip:e.com%3E&a", "Sip|-|-|h|-||Route=<sip:e.com>a="),
            (
                "tel:+1-555-123-4567;phone-context=example.com",
                "Tel|+1-555-123-4567|-||-|phone-context=example.com|",
            ),
            ("tel:911;phone-context=+1", "Tel|911|-||-|phone-context=+1|"),
            ("isbn:2983792873", "Other|-|-||-||"),
            ("http://www.example.com", "Other|-|-||-||"),
            ("soap.beep://192.0.2.103:3002", "Other|-|-||-||"),
            ("sip:2001:db8::10", "BadHost"),
            ("sip:[2001:db8::10", "BadHost"),
            ("sip:[2001:db8::1]x", "BadHost"),
            ("sip:[192.0.2.1]", "BadHost"),
            ("sip:[::::1]", "BadHost"),
            ("sip:a@", "BadHost"),
            ("sip:@h", "BadUser"),
            ("sip:a@b@c", "BadUser"),
            ("sip:a%4@h", "BadUser"),
            ("sip:a%@h", "BadUser"),
            ("sip:a@010.0.0.1", "BadHost"),
            ("sip:a@256.1.1.1", "BadHost"),
            ("sip:a@1.2.3", "BadHost"),
            ("sip:a@h..x", "BadHost"),
            ("sip:a@h:", "BadPort"),
            ("sip:a@h:65536", "BadPort"),
            ("sip:a@h:005060", "BadPort"),
            ("sip:a@h:-1", "BadPort"),
            ("sip:a@h;=x", "BadParameter"),
            ("sip:a@h; lr", "BadCharacter"),
            ("<sip:a@h>", "BadCharacter"),
            ("sip:a@h\r\nX:y", "BadCharacter"),
            ("alan@jasomi.com", "BadScheme"),
            (":x", "BadScheme"),
            ("1x:y", "BadScheme"),
            ("tel:", "BadNumber"),
            ("tel:+", "BadNumber"),
            ("tel:alice", "BadNumber"),
            ("", "BadScheme"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn parameters_and_users_decode_once() {
        let uri = Uri::parse("sip:cal%6Cer@h;%6C%72;n%61me=v%61lue%25%34%31").expect("well formed");
        assert_eq!(uri.user_decoded(), "caller");
        assert_eq!(uri.param("LR"), Some(None));
        assert_eq!(uri.param("name"), Some(Some("value%41".into())));
        assert_eq!(uri.param("other"), None);
        let nul = Uri::parse("sip:null-%00-null@example.com").expect("well formed");
        assert_eq!(nul.user_decoded(), "null-\0-null");
    }

    #[test]
    fn the_length_limit_is_sharp() {
        let of_len = |len: usize| format!("sip:{}@h", "a".repeat(len - 6));
        assert!(Uri::parse(&of_len(limits::URI_BYTES_MAX)).is_ok());
        assert_eq!(Uri::parse(&of_len(limits::URI_BYTES_MAX + 1)), Err(UriFault::TooLong));
    }
}
