//! One Via value (RFC 3261 §20.42, RFC 3581, RFC 5118 §4.5). Read for matching and for copying;
//! never to decide where an answer goes: that is the packet's source.

use super::lex::{Params, cut, is_blank, is_token, trim, trim_start};
use super::uri::{Host, read_host_port, read_ipv6};
use std::net::IpAddr;

/// A parsed view of one Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Via<'a> {
    text: &'a str,
    transport: &'a str,
    host: Host<'a>,
    port: Option<u16>,
    params: Params<'a>,
}

/// Why a text is not a Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadVia;

impl<'a> Via<'a> {
    /// Reads one value, without a list around it. Blanks round `/`, `:`, `;` and `=` are allowed.
    pub fn parse(text: &'a str) -> Result<Via<'a>, BadVia> {
        let text = trim(text);
        let (protocol, rest) = cut(text, b'/').ok_or(BadVia)?;
        let (version, rest) = cut(rest, b'/').ok_or(BadVia)?;
        if !trim(protocol).eq_ignore_ascii_case("SIP") || trim(version) != "2.0" {
            return Err(BadVia);
        }
        let rest = trim_start(rest);
        let (transport, rest) = rest.split_once(is_blank).ok_or(BadVia)?;
        if !is_token(transport) {
            return Err(BadVia);
        }
        let end = rest.find(';').unwrap_or(rest.len());
        let (sent_by, params) = rest.split_at_checked(end).ok_or(BadVia)?;
        let (host, port) = read_sent_by(trim(sent_by))?;
        let unique = ["branch", "received", "rport", "maddr", "ttl"];
        let (params, branch) = Params::check(params, &unique).map_err(|_| BadVia)?;
        if branch.is_some_and(|branch| branch.is_none_or(|text| text.starts_with('"'))) {
            return Err(BadVia);
        }
        Ok(Via { text, transport, host, port, params })
    }

    /// The transport token as received: `UDP`, `tcp`, `SCTP` …
    pub fn transport(&self) -> &'a str {
        self.transport
    }

    /// The sent-by host.
    pub fn host(&self) -> Host<'a> {
        self.host
    }

    /// The sent-by port.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The transaction's branch; `None` in RFC 2543 messages.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.named("branch").flatten()
    }

    /// True when the branch starts with the RFC 3261 cookie and goes on after it.
    pub fn has_magic_branch(&self) -> bool {
        self.branch().is_some_and(|branch| {
            let cookie = branch.get(..BRANCH_COOKIE.len());
            branch.len() > BRANCH_COOKIE.len()
                && cookie.is_some_and(|cookie| cookie.eq_ignore_ascii_case(BRANCH_COOKIE))
        })
    }

    /// The `received` address, with or without brackets; `None` when absent or no address.
    pub fn received(&self) -> Option<IpAddr> {
        let text = self.params.named("received").flatten()?;
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(address.to_canonical());
        }
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match read_ipv6(inner) {
            Some(Host::Address(address)) => Some(address),
            _ => None,
        }
    }

    /// `rport`: `Some(None)` when asked for and not filled (RFC 3581 §3).
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.named("rport").map(|value| value.and_then(|port| port.parse().ok()))
    }

    pub fn ttl(&self) -> Option<u8> {
        self.params.named("ttl").flatten()?.parse().ok()
    }

    pub fn maddr(&self) -> Option<&'a str> {
        self.params.named("maddr").flatten()
    }

    /// All parameters in order.
    pub fn params(&self) -> Params<'a> {
        self.params
    }

    /// The value as received, unfolded.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// How an RFC 3261 branch begins (§8.1.1.7).
pub(super) const BRANCH_COOKIE: &str = "z9hG4bK";

/// `host [":" port]`, where blanks may stand round the colon.
fn read_sent_by(text: &str) -> Result<(Host<'_>, Option<u16>), BadVia> {
    if !text.contains(is_blank) {
        return read_host_port(text).map_err(|_| BadVia);
    }
    let bracket = text.rfind(']').unwrap_or(0);
    let colon = text.get(bracket..).and_then(|rest| rest.find(':')).ok_or(BadVia)? + bracket;
    let (host, port) = text.split_at_checked(colon).ok_or(BadVia)?;
    let (host, _) = read_host_port(trim(host)).map_err(|_| BadVia)?;
    let digits = trim(port.strip_prefix(':').ok_or(BadVia)?);
    let port = super::lex::number(digits, u64::from(u16::MAX)).ok_or(BadVia)?;
    Ok((host, Some(u16::try_from(port).map_err(|_| BadVia)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transport | host | port | branch | received | rport, or `refused`
    fn shown(text: &str) -> String {
        let Ok(via) = Via::parse(text) else { return "refused".into() };
        let number = |port: Option<u16>| port.map_or("-".into(), |port| port.to_string());
        format!(
            "{}|{}|{}|{}|{}|{}",
            via.transport(),
            via.host(),
            number(via.port()),
            via.branch().unwrap_or("-"),
            via.received().map_or("-".into(), |address| address.to_string()),
            via.rport()
                .map_or("-".into(), |port| port.map_or("asked".into(), |port| port.to_string())),
        )
    }

    #[test]
    fn vias_are_read_or_refused() {
        let cases = [
            (
                "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport",
                "UDP|192.0.2.1|5060|z9hG4bK1|-|asked",
            ),
            (
                "SIP  / 2.0  / TCP     spindle.example.com   ;  branch  =   z9hG4bK9ikj8",
                "TCP|spindle.example.com|-|z9hG4bK9ikj8|-|-",
            ),
            ("SIP/2.0/udp h : 5070 ;BRANCH=x;RPORT=9", "udp|h|5070|x|-|9"),
            (
                "SIP/2.0/UDP [2001:db8::9:1] : 6050;received=2001:db8::9:255",
                "UDP|[2001:db8::9:1]|6050|-|2001:db8::9:255|-",
            ),
            (
                "SIP/2.0/UDP [2001:db8::9:1]:6050;received=[2001:db8::9:255];branch=b",
                "UDP|[2001:db8::9:1]|6050|b|2001:db8::9:255|-",
            ),
            ("SIP/2.0/TLS-SCTP h;received=::ffff:192.0.2.7", "TLS-SCTP|h|-|-|192.0.2.7|-"),
            ("SIP/2.0/TCP h;branch=z9hG4bK-.!%66*_+`'~", "TCP|h|-|z9hG4bK-.!%66*_+`'~|-|-"),
            ("SIP/2.0/UDP 192.0.2.15;;", "refused"),
            ("SIP/2.0/UDP", "refused"),
            ("SIP/2.0/UDP ;branch=x", "refused"),
            ("SIP/2.0/UDP h i", "refused"),
            ("SIP/2.0/UDP h;branch", "refused"),
            ("SIP/2.0/UDP h;branch=a;branch=b", "refused"),
            ("SIP/2.0/UDP h;received=1.1.1.1;received=2.2.2.2", "refused"),
            ("SIP/3.0/UDP h", "refused"),
            ("HTTP/1.1/TCP h", "refused"),
            ("", "refused"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn the_cookie_alone_is_no_branch() {
        let magic = |branch: &str| {
            Via::parse(&format!("SIP/2.0/UDP h;branch={branch}"))
                .is_ok_and(|via| via.has_magic_branch())
        };
        assert!(magic("z9hG4bKx") && magic("Z9HG4BKx"));
        assert!(!magic("z9hG4bK") && !magic("390skdjuw"));
    }
}
