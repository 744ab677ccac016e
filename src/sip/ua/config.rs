//! What the user agent is told once: its names, addresses, times and bounds.

use crate::ground::{Flow, Transport, limits};
use crate::sip::msg::Method;
use crate::sip::status::Abilities;
use crate::sip::transaction::Timing;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What our own address is given in the Contact of one request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnContact {
    /// The user part, escaped; `None`: that of the user agent.
    pub user: Option<String>,
    /// Header parameters, from their first `;` on.
    pub params: String,
}

/// The settings of one user agent.
#[derive(Clone, Debug)]
pub struct UaConfig {
    /// The value of `Server` and `User-Agent`; empty leaves both out.
    pub user_agent: String,
    /// The user part of our Contact; `None` for none.
    pub contact_user: Option<String>,
    /// `host:port` (IPv6 in brackets) that peers reach us at, by listener: transport and bound
    /// address. For a connection the listener with its port counts, also one bound to all addresses.
    pub contacts: BTreeMap<(Transport, SocketAddr), String>,
    /// The host of each address family, when no entry of `contacts` fits, with the flow's local port.
    /// `None`: the flow's local address.
    pub advertise_v4: Option<String>,
    pub advertise_v6: Option<String>,
    /// Our domain, for the From of calls of our own.
    pub domain: Option<String>,
    pub timing: Timing,
    /// Silence of an INVITE over UDP after which the next hop is tried, if there is one.
    pub silence: Duration,
    /// How long a hop that failed is passed over.
    pub dead_hop_span: Duration,
    /// How long the search for hops may take.
    pub locate_patience: Duration,
    /// How long a connection may take to come up.
    pub connect_patience: Duration,
    /// The same while other hops are left.
    pub connect_patience_with_others: Duration,
    /// The session interval that we ask for where the peer knows session timers (RFC 4028). Zero: only
    /// what the peer asks for.
    pub session_interval: Duration,
    /// What `Allow`, `Supported` and `Accept` say.
    pub abilities: Abilities,
    /// Unfinished transactions of one source address (security S19).
    pub transactions_per_source_max: usize,
    /// Transactions of one source address, finished ones that still absorb copies included.
    pub transactions_held_per_source_max: usize,
    /// Transactions in all, finished ones that still absorb copies included.
    pub transactions_max: usize,
    /// Calls of one source address that are not answered yet (security S19).
    pub early_calls_per_source_max: usize,
}

impl Default for UaConfig {
    fn default() -> Self {
        UaConfig {
            user_agent: format!("voxedge/{}", env!("CARGO_PKG_VERSION")),
            contact_user: None,
            contacts: BTreeMap::new(),
            advertise_v4: None,
            advertise_v6: None,
            domain: None,
            timing: Timing::default(),
            silence: limits::INVITE_SILENCE,
            dead_hop_span: limits::DEAD_HOP,
            locate_patience: limits::LOCATE,
            connect_patience: limits::CONNECT,
            connect_patience_with_others: limits::CONNECT_WITH_OTHERS,
            session_interval: limits::SESSION_INTERVAL,
            abilities: Abilities {
                methods: vec![
                    Method::Invite,
                    Method::Ack,
                    Method::Cancel,
                    Method::Bye,
                    Method::Options,
                    Method::Prack,
                    Method::Update,
                    Method::Info,
                    Method::Refer,
                    Method::Notify,
                ],
                extensions: vec!["100rel", "replaces", "timer"],
                accepts: vec!["application/sdp"],
            },
            transactions_per_source_max: limits::TRANSACTIONS_PER_SOURCE_MAX,
            transactions_held_per_source_max: limits::TRANSACTIONS_HELD_PER_SOURCE_MAX,
            transactions_max: limits::TRANSACTIONS_MAX,
            early_calls_per_source_max: limits::EARLY_CALLS_PER_SOURCE_MAX,
        }
    }
}

impl UaConfig {
    /// `host:port` of ours on this flow, as in Via and Contact.
    pub fn advertised(&self, flow: &Flow) -> String {
        let any = match flow.local.ip() {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        let advertise = match flow.local.is_ipv4() {
            true => &self.advertise_v4,
            false => &self.advertise_v6,
        };
        let port = flow.local.port();
        let dual = SocketAddr::new(IpAddr::from([0; 16]), port);
        [flow.local, SocketAddr::new(any, port), dual]
            .into_iter()
            .find_map(|local| self.contacts.get(&(flow.transport, local)).cloned())
            .unwrap_or_else(|| match advertise {
                Some(host) => format!("{host}:{port}"),
                None => flow.local.to_string(),
            })
    }

    /// Our Contact on this flow; `secure` in a dialog that a sips URI began (RFC 3261 §12.1.1).
    pub fn contact(&self, flow: &Flow, secure: bool) -> String {
        self.contact_as(flow, secure, &OwnContact::default())
    }

    /// The same with another user and header parameters.
    pub fn contact_as(&self, flow: &Flow, secure: bool, own: &OwnContact) -> String {
        format!("<{}>{}", self.contact_uri(flow, secure, own), own.params)
    }

    /// The URI in that Contact.
    pub fn contact_uri(&self, flow: &Flow, secure: bool, own: &OwnContact) -> String {
        let user = own.user.as_ref().or(self.contact_user.as_ref());
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let address = self.advertised(flow);
        match (secure, flow.transport) {
            (true, _) => format!("sips:{user}{address}"),
            (false, transport) => {
                format!("sip:{user}{address};transport={}", transport.uri_param())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::testing::{flow, stream};

    #[test]
    fn the_contact_is_that_of_the_listener() {
        let mut config = UaConfig::default();
        let (udp, tcp) = (flow("203.0.113.9:5060"), stream("203.0.113.9:40000"));
        assert_eq!(config.contact(&udp, false), "<sip:192.0.2.10:5060;transport=udp>");
        config.advertise_v4 = Some("198.51.100.1".into());
        assert_eq!(config.contact(&tcp, false), "<sip:198.51.100.1:5060;transport=tcp>");
        let any = "0.0.0.0:5060".parse().expect("an address");
        config.contacts.insert((Transport::Tcp, any), "sip.example.com:5090".into());
        config.contact_user = Some("edge".into());
        assert_eq!(config.contact(&tcp, true), "<sips:edge@sip.example.com:5090>");
        assert_eq!(config.contact(&udp, false), "<sip:edge@198.51.100.1:5060;transport=udp>");
    }
}
