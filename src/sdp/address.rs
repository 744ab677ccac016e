//! Where media may go: the address of a `c=` or `a=rtcp` line, judged (security S11). Media is
//! never sent to many receivers, to this machine by another's word, or back into our own socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the peer's connection address says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MediaAddress {
    /// Send here.
    Literal(IpAddr),
    /// A host name: it is not resolved, media goes back to where the peer's packets come from.
    Name,
    /// `0.0.0.0`, `::` or a name below `.invalid`: send nothing (RFC 3264 §8.4, RFC 6157 §4).
    Hold,
    /// An address that media must not go to, or no address at all.
    Bad,
}

/// Judges the text of an address. `local` is the address and port that our own description gives.
pub(super) fn judge(text: &str, local: IpAddr) -> MediaAddress {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return judge_literal(ip.to_canonical(), local.to_canonical());
    }
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inner)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > 253 || is_number || !name.split('.').all(is_label) {
        return MediaAddress::Bad;
    }
    if last.eq_ignore_ascii_case("invalid") { MediaAddress::Hold } else { MediaAddress::Name }
}

fn judge_literal(ip: IpAddr, local: IpAddr) -> MediaAddress {
    if ip.is_unspecified() {
        return MediaAddress::Hold;
    }
    if ip.is_ipv4() != local.is_ipv4() {
        return MediaAddress::Bad;
    }
    let bad = match ip {
        IpAddr::V4(ip) => is_bad_v4(ip, local),
        IpAddr::V6(ip) => is_bad_v6(ip, local),
    };
    if bad { MediaAddress::Bad } else { MediaAddress::Literal(ip) }
}

fn is_bad_v4(ip: Ipv4Addr, local: IpAddr) -> bool {
    let own = |test: fn(&Ipv4Addr) -> bool| matches!(local, IpAddr::V4(local) if test(&local));
    let [first, ..] = ip.octets();
    first == 0
        || first >= 224
        || ip.is_loopback() && !own(Ipv4Addr::is_loopback)
        || ip.is_link_local() && !own(Ipv4Addr::is_link_local)
}

fn is_bad_v6(ip: Ipv6Addr, local: IpAddr) -> bool {
    let own = |test: fn(&Ipv6Addr) -> bool| matches!(local, IpAddr::V6(local) if test(&local));
    ip.is_multicast()
        || ip.is_loopback() && !own(Ipv6Addr::is_loopback)
        || ip.is_unicast_link_local() && !own(Ipv6Addr::is_unicast_link_local)
}

/// Reads `a=rtcp:<port> [IN IP4 <address>]` (RFC 3605) against the RTP address that it belongs to.
/// `None` when it cannot be used; RTP's port + 1 stands then.
pub(super) fn rtcp_target(value: &str, rtp: IpAddr, local: SocketAddr) -> Option<SocketAddr> {
    let mut words = value.split_ascii_whitespace();
    let port: u16 = words.next()?.parse().ok().filter(|port| *port != 0)?;
    let ip = match words.nth(2) {
        None => rtp,
        Some(text) => match judge(text, local.ip()) {
            MediaAddress::Literal(ip) => ip,
            MediaAddress::Name | MediaAddress::Hold | MediaAddress::Bad => return None,
        },
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_goes_to_single_hosts_of_our_family_only() {
        use MediaAddress::{Bad, Hold, Name};
        let v4: IpAddr = "203.0.113.1".parse().expect("address");
        let v6: IpAddr = "2001:db8::1".parse().expect("address");
        let literal = |text: &str| MediaAddress::Literal(text.parse().expect("address"));
        for (text, local, verdict) in [
            ("198.51.100.7", v4, literal("198.51.100.7")),
            ("192.168.1.10", v4, literal("192.168.1.10")),
            ("::ffff:198.51.100.7", v4, literal("198.51.100.7")),
            ("2001:db8::6", v6, literal("2001:db8::6")),
            ("2001:db8::6", v4, Bad),
            ("198.51.100.7", v6, Bad),
            ("0.0.0.0", v4, Hold),
            ("0.0.0.0", v6, Hold),
            ("::", v6, Hold),
            ("pbx.invalid", v4, Hold),
            ("pbx.example.com", v4, Name),
            ("host_1", v4, Name),
            ("224.2.36.42", v4, Bad),
            ("239.255.255.255", v4, Bad),
            ("::ffff:224.0.0.1", v4, Bad),
            ("255.255.255.255", v4, Bad),
            ("240.0.0.1", v4, Bad),
            ("0.1.2.3", v4, Bad),
            ("127.0.0.1", v4, Bad),
            ("::ffff:127.0.0.1", v4, Bad),
            ("169.254.1.1", v4, Bad),
            ("ff02::1", v6, Bad),
            ("::1", v6, Bad),
            ("fe80::1", v6, Bad),
            ("127.0.0.1", "127.0.0.1".parse().expect("address"), literal("127.0.0.1")),
            ("::1", "::1".parse().expect("address"), literal("::1")),
            ("203.0.113.300", v4, Bad),
            ("1.2.3", v4, Bad),
            ("", v4, Bad),
            ("a..b", v4, Bad),
            ("evil\"name", v4, Bad),
        ] {
            assert_eq!(judge(text, local), verdict, "{text} for {local}");
        }
    }

    #[test]
    fn the_rtcp_attribute_is_taken_when_it_can_be_used() {
        let local: SocketAddr = "203.0.113.1:4000".parse().expect("address");
        let rtp: IpAddr = "198.51.100.7".parse().expect("address");
        for (value, target) in [
            ("5005", Some("198.51.100.7:5005")),
            ("5005 IN IP4 198.51.100.8", Some("198.51.100.8:5005")),
            ("5005 IN IP4 224.0.0.1", None),
            ("5005 IN IP4 host.example", None),
            ("0", None),
            ("99999", None),
            ("", None),
        ] {
            let target = target.map(|text| text.parse().expect("address"));
            assert_eq!(rtcp_target(value, rtp, local), target, "{value}");
        }
    }
}
