//! Where a request goes (RFC 3261 §8.1.2, RFC 3263): what a URI names, and the next hops that were
//! found for it. Plain values; nothing is asked of a name server here.

use super::msg::{Host, Scheme, Uri};
use crate::ground::Transport;
use std::net::{IpAddr, SocketAddr};

/// What is to be located: the topmost Route, or the Request-URI.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    pub host: TargetHost,
    /// An explicit port: neither NAPTR nor SRV is asked (RFC 3263 §4.1, §4.2).
    pub port: Option<u16>,
    /// The `transport` parameter. `None` leaves the choice to DNS, with UDP as the last word.
    pub transport: Option<Transport>,
    /// `sips`: TLS and nothing else.
    pub secure: bool,
}

/// The host of a target.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TargetHost {
    Address(IpAddr),
    /// In lower case, without a final dot.
    Name(String),
}

/// Why a URI names no target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetFault {
    /// Neither sip nor sips, or without a host.
    NotSip,
    /// A transport that is not spoken here.
    Transport,
    /// `sips` together with `transport=udp`.
    SecureOverUdp,
}

impl Target {
    /// What `uri` names; `maddr` is not followed, since it lets whoever wrote the URI choose another
    /// host than the one that is checked and shown.
    ///
    /// # Errors
    /// [`TargetFault`] when no request could be sent for it.
    pub fn of_uri(uri: &Uri<'_>) -> Result<Target, TargetFault> {
        let secure = uri.scheme() == Scheme::Sips;
        if !secure && uri.scheme() != Scheme::Sip {
            return Err(TargetFault::NotSip);
        }
        let host = match uri.host() {
            Host::Address(address) => TargetHost::Address(address),
            Host::Name(name) => TargetHost::Name(name.trim_end_matches('.').to_ascii_lowercase()),
            Host::Absent => return Err(TargetFault::NotSip),
        };
        let transport = match uri.param("transport").flatten() {
            None => None,
            Some(word) => Some(transport_of(&word).ok_or(TargetFault::Transport)?),
        };
        match (secure, transport) {
            (true, Some(Transport::Udp)) => Err(TargetFault::SecureOverUdp),
            // sips over `transport=tcp` means TLS over TCP (RFC 3261 §26.2.2).
            (true, _) => {
                Ok(Target { host, port: uri.port(), transport: Some(Transport::Tls), secure })
            }
            (false, transport) => Ok(Target { host, port: uri.port(), transport, secure }),
        }
    }
}

fn transport_of(word: &str) -> Option<Transport> {
    [Transport::Udp, Transport::Tcp, Transport::Tls]
        .into_iter()
        .find(|transport| transport.uri_param().eq_ignore_ascii_case(word))
}

/// One next hop, ready to be sent to. Two hops are the same peer only when all of it is the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hop {
    pub transport: Transport,
    pub address: SocketAddr,
    /// The host of the target, not that of an SRV answer: it is sent as SNI, and the certificate must
    /// be made out to it (RFC 5922 §4).
    pub identity: TargetHost,
}

/// Why no hop was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocateFault {
    /// The name server says that there is no such name, or it has no usable address.
    NoSuchName,
    /// No answer from any name server.
    Unanswered,
    /// The records name only transports that are not spoken here.
    NoTransport,
}

/// Why a hop cannot be sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConnectFault {
    /// Refused, unreachable or not answered in time.
    Unreachable,
    /// The TLS handshake failed: the certificate is not made out to the identity, not trusted, or
    /// there is no common ground. In words for the operator, without secrets.
    Tls(String),
    /// No socket of ours can carry it: no listener of that address family.
    NoSocket,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str) -> String {
        match Target::of_uri(&Uri::parse(uri).expect("a URI")) {
            Ok(target) => {
                let host = match target.host {
                    TargetHost::Address(address) => address.to_string(),
                    TargetHost::Name(name) => name,
                };
                let transport = target.transport.map(Transport::uri_param);
                format!("{host} {:?} {transport:?} {}", target.port, target.secure)
            }
            Err(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn a_uri_names_its_target() {
        assert_eq!(shown("sip:a@PBX.Example.com."), "pbx.example.com None None false");
        assert_eq!(shown("sip:a@192.0.2.1:5070"), "192.0.2.1 Some(5070) None false");
        assert_eq!(
            shown("sip:a@[2001:db8::1];transport=TCP"),
            "2001:db8::1 None Some(\"tcp\") false"
        );
        assert_eq!(shown("sip:a@h:5060;transport=tls"), "h Some(5060) Some(\"tls\") false");
        assert_eq!(shown("sips:a@h"), "h None Some(\"tls\") true");
        assert_eq!(shown("sips:a@h;transport=tcp"), "h None Some(\"tls\") true");
        assert_eq!(shown("sips:a@h;transport=udp"), "SecureOverUdp");
        assert_eq!(shown("sip:a@h;transport=sctp"), "Transport");
        assert_eq!(shown("sip:a@h;maddr=192.0.2.9"), "h None None false");
        assert_eq!(shown("tel:+15550001"), "NotSip");
    }
}
