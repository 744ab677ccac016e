//! The join URL of an agent stream, taken apart (RFC 6455 §3). Path and query are opaque and go to
//! the wire as they came. The URL is the credential, so `Debug` and the faults show the host only.

use crate::ground::Secret;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest URL that is taken.
const URL_BYTES_MAX: usize = 4 * 1024;
/// Longest DNS name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A `ws` or `wss` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUrl {
    secure: bool,
    host: String,
    port: u16,
    target: Secret,
}

/// Why a text is no join URL. No fault repeats any part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrlFault {
    TooLong,
    /// Space, control character or a byte outside ASCII.
    BadCharacter,
    NotWebSocket,
    /// `user:password@`, which the protocol has no place for.
    UserInfo,
    BadHost,
    BadPort,
    /// `#…` must not appear (RFC 6455 §3).
    Fragment,
}

impl fmt::Display for UrlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlFault::TooLong => "the join URL is too long",
            UrlFault::BadCharacter => "the join URL holds a character that no URL may hold",
            UrlFault::NotWebSocket => "the join URL is neither wss:// nor ws://",
            UrlFault::UserInfo => "the join URL holds a user name",
            UrlFault::BadHost => "the join URL's host is not valid",
            UrlFault::BadPort => "the join URL's port is not valid",
            UrlFault::Fragment => "the join URL holds a fragment",
        })
    }
}

impl StreamUrl {
    /// Reads `wss://host[:port][/path][?query]`, or the same with `ws`.
    ///
    /// # Errors
    /// [`UrlFault`] for anything else.
    pub fn parse(text: &str) -> Result<StreamUrl, UrlFault> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlFault::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlFault::BadCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlFault::NotWebSocket)?;
        let secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("wss") => true,
            _ if scheme.eq_ignore_ascii_case("ws") => false,
            _ => return Err(UrlFault::NotWebSocket),
        };
        if rest.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = authority_of(authority, if secure { 443 } else { 80 })?;
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(StreamUrl { secure, host, port, target: Secret::new(format!("{slash}{target}")) })
    }

    /// True for `wss`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host in lower case, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host when it is a literal address.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query for the request line.
    pub fn target(&self) -> &Secret {
        &self.target
    }

    /// The value of `Host`: the port is named only when it is not the scheme's own.
    pub fn host_header(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// True when the host is one of `domains` or lies below one of them.
    pub fn is_under(&self, domains: &[String]) -> bool {
        domains.iter().any(|domain| {
            let domain = domain.trim_end_matches('.');
            let own = self.host.trim_end_matches('.');
            let Some(cut) = own.len().checked_sub(domain.len()) else { return false };
            let (front, tail) = own.split_at(cut);
            !domain.is_empty()
                && tail.eq_ignore_ascii_case(domain)
                && (front.is_empty() || front.ends_with('.'))
        })
    }
}

/// Host and port of an authority; what it may hold is ASCII here already.
fn authority_of(authority: &str, default_port: u16) -> Result<(String, u16), UrlFault> {
    if authority.contains('@') {
        return Err(UrlFault::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']').ok_or(UrlFault::BadHost)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| UrlFault::BadHost)?;
            (address.to_string(), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            if !is_host_name(host) {
                return Err(UrlFault::BadHost);
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(UrlFault::BadPort)?
        }
        _ => return Err(UrlFault::BadPort),
    };
    Ok((host, port))
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    host.len() <= HOST_BYTES_MAX && name.split('.').all(label)
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamUrl({})", self.host_header())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        let cases = [
            ("wss://voice.ultravox.ai/calls/1/x", (true, "voice.ultravox.ai", 443, "/calls/1/x")),
            ("WSS://Voice.Ultravox.AI", (true, "voice.ultravox.ai", 443, "/")),
            ("wss://h?token=a%20b", (true, "h", 443, "/?token=a%20b")),
            ("ws://127.0.0.1:8080/a?b=c&d", (false, "127.0.0.1", 8080, "/a?b=c&d")),
            ("wss://[::1]:9443/p", (true, "::1", 9443, "/p")),
            ("ws://a_b-c.d.:80/", (false, "a_b-c.d.", 80, "/")),
            ("wss://h/x://y@z:1", (true, "h", 443, "/x://y@z:1")),
        ];
        for (text, (secure, host, port, target)) in cases {
            let url = StreamUrl::parse(text).expect(text);
            assert_eq!((url.is_secure(), url.host(), url.port()), (secure, host, port), "{text}");
            assert_eq!(url.target().reveal(), target, "{text}");
        }
    }

    #[test]
    fn bad_urls_are_named_by_their_fault() {
        let long = format!("wss://h/{}", "a".repeat(URL_BYTES_MAX));
        let name = format!("wss://{}", ["a"; 128].join("."));
        let cases = [
            ("https://h/", UrlFault::NotWebSocket),
            ("h/path", UrlFault::NotWebSocket),
            ("wss:/h", UrlFault::NotWebSocket),
            ("wss://", UrlFault::BadHost),
            ("wss://?x", UrlFault::BadHost),
            ("wss://a..b/", UrlFault::BadHost),
            ("wss://[::1/", UrlFault::BadHost),
            ("wss://[1.2.3.4]/", UrlFault::BadHost),
            ("wss://h%2f/", UrlFault::BadHost),
            (name.as_str(), UrlFault::BadHost),
            ("wss://h:/", UrlFault::BadPort),
            ("wss://h:0/", UrlFault::BadPort),
            ("wss://h:+443/", UrlFault::BadPort),
            ("wss://h:65536/", UrlFault::BadPort),
            ("wss://[::1]443/", UrlFault::BadPort),
            ("wss://user@h/", UrlFault::UserInfo),
            ("wss://h/#x", UrlFault::Fragment),
            ("wss://h/a b", UrlFault::BadCharacter),
            ("wss://h/a\r\nX: y", UrlFault::BadCharacter),
            ("wss://hé/", UrlFault::BadCharacter),
            (long.as_str(), UrlFault::TooLong),
        ];
        for (text, fault) in cases {
            assert_eq!(StreamUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn the_host_header_names_only_an_unusual_port() {
        for (text, header) in [
            ("wss://h:443/", "h"),
            ("wss://h:80/", "h:80"),
            ("ws://h/", "h"),
            ("wss://[::1]:444/", "[::1]:444"),
        ] {
            assert_eq!(StreamUrl::parse(text).expect(text).host_header(), header);
        }
    }

    #[test]
    fn only_the_domain_itself_and_names_below_it_match() {
        let domains = ["ultravox.ai".to_owned()];
        for (host, under) in [
            ("ultravox.ai", true),
            ("voice.ultravox.ai", true),
            ("voice.ultravox.ai.", true),
            ("evilultravox.ai", false),
            ("ultravox.ai.evil.com", false),
            ("ai", false),
        ] {
            let url = StreamUrl::parse(&format!("wss://{host}/")).expect(host);
            assert_eq!(url.is_under(&domains), under, "{host}");
            assert!(!url.is_under(&[String::new()]));
        }
    }

    #[test]
    fn debug_shows_no_path() {
        let url = StreamUrl::parse("wss://h/secret?token=1").expect("a URL");
        assert_eq!(format!("{url:?}"), "StreamUrl(h)");
    }
}
