//! Which addresses a webhook may be sent to (security S13): public ones, and private ones that the
//! operator has listed. A handler's name must not lead the daemon to its own machine, its network or
//! a cloud's metadata service.

use crate::account::CidrRange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// True when a request may be sent there: a public address, or one in a range of `allowed_private`.
pub fn is_allowed(address: IpAddr, allowed_private: &[CidrRange]) -> bool {
    let address = address.to_canonical();
    is_public(address) || allowed_private.iter().any(|range| range.contains(address))
}

/// Why a URL is not one for a handler, and what to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UrlFault {
    pub problem: &'static str,
    pub fix: &'static str,
}

/// Checks a handler's URL: `https`, or `http` towards loopback or where `plain_http` allows it, a
/// host, and neither a name and password nor anything unprintable.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_url(url: &str, plain_http: bool) -> Result<(), UrlFault> {
    let fault = |problem, fix| Err(UrlFault { problem, fix });
    let (is_plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => {
            return fault("is no web address", "write a full URL, as in https://hooks.example/sip");
        }
    };
    let authority = authority(rest);
    if host(authority).is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return fault("is no web address", "write a full URL, as in https://hooks.example/sip");
    }
    if authority.contains('@') {
        let fix = "leave the name and password out: requests are signed with the secrets";
        return fault("holds a name or password", fix);
    }
    if is_plain && !plain_http && !is_loopback(host(authority)) {
        let fix =
            "use https://; http:// is for loopback, or with plain_http = true under [fallback]";
        return fault("would send callers' numbers in clear text", fix);
    }
    Ok(())
}

/// True when the URL's host is an address to which nothing may be sent. A name is judged by what it
/// resolves to, when it is asked.
pub fn is_refused_literal(url: &str, allowed_private: &[CidrRange]) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host(authority(rest));
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    literal.is_ok_and(|address| !is_allowed(address, allowed_private))
}

/// What stands between the scheme and the path.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

/// The host of an authority, brackets included.
fn host(authority: &str) -> &str {
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.find(']') {
        Some(end) => host.get(..=end).unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || literal.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// True for an address that is reached over the internet and by everybody alike (RFC 6890 and the
/// IANA special-purpose registries).
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, private use, shared (carrier-grade NAT), loopback, link-local (metadata).
        [0 | 10 | 127, ..] | [100, 64..=127, ..] | [169, 254, ..] | [172, 16..=31, ..] => true,
        [192, 168, ..] => true,
        // Protocol assignments, documentation, relay, benchmarking.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] => true,
        [203, 0, 113, _] => true,
        // Azure's platform service has an address of a public range.
        [168, 63, 129, 16] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match segments {
        // NAT64 and 6to4 carry an IPv4 address that is reached in the end.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and other protocol assignments, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only 2000::/3 is given out for global unicast.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, listed: &[&str], allowed: bool) {
        let ranges: Vec<CidrRange> =
            listed.iter().map(|range| CidrRange::parse(range).expect("a range")).collect();
        let parsed = address.parse().expect("an address");
        assert_eq!(is_allowed(parsed, &ranges), allowed, "{address} with {listed:?}");
    }

    #[test]
    fn only_public_addresses_are_reached() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2002:808:808::1",
        ] {
            check(public, &[], true);
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.170",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "100::1",
        ] {
            check(private, &[], false);
        }
    }

    #[test]
    fn a_url_is_https_or_loopback() {
        let check = |url: &str, plain_http: bool, problem: Option<&str>| {
            let found = check_url(url, plain_http).err().map(|fault| fault.problem);
            assert_eq!(found, problem, "{url}");
        };
        for url in ["https://hooks.example/sip?a=b", "https://[2001:db8::1]:8443", "https://h"] {
            check(url, false, None);
        }
        for url in ["http://127.0.0.1:9/x", "http://localhost:9", "http://[::1]:9/"] {
            check(url, false, None);
        }
        let clear = Some("would send callers' numbers in clear text");
        for url in ["http://hooks.example/", "http://127.0.0.1.example/", "http://localhost.x/"] {
            check(url, false, clear);
            check(url, true, None);
        }
        let none = Some("is no web address");
        for url in ["", "ftp://h/", "https://", "https:///x", "https://:8", "https://h/a b", "h"] {
            check(url, true, none);
        }
        check("https://user:pass@h/", false, Some("holds a name or password"));
        check("http://localhost@evil.example/", true, Some("holds a name or password"));
    }

    #[test]
    fn an_address_in_a_url_is_judged_at_once() {
        let listed = [CidrRange::parse("127.0.0.1/32").expect("a range")];
        for (url, refused) in [
            ("http://127.0.0.1:9/x", false),
            ("http://127.0.0.2:9/x", true),
            ("https://[::ffff:127.0.0.1]/", false),
            ("https://[::1]/", true),
            ("https://169.254.169.254/latest", true),
            ("https://8.8.8.8", false),
            ("https://localhost/", false),
        ] {
            assert_eq!(is_refused_literal(url, &listed), refused, "{url}");
        }
    }

    #[test]
    fn private_ones_are_reached_when_they_are_listed() {
        check("10.1.2.3", &["10.1.2.0/24"], true);
        check("10.1.3.3", &["10.1.2.0/24"], false);
        check("::ffff:10.1.2.3", &["10.1.2.0/24"], true);
        check("127.0.0.1", &["127.0.0.1/32"], true);
        check("127.0.0.2", &["127.0.0.1/32"], false);
        check("fd00::1", &["fd00::/8"], true);
    }
}
