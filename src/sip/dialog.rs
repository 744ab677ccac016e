//! A dialog (RFC 3261 §12): who talks with whom, which sequence numbers were seen, where requests
//! of ours go. It builds those requests and never decides whether one may be sent. This module
//! holds the UAS side, where the route set keeps the order of Record-Route.

use super::destination::Destination;
use super::msg::{Builder, Host, Method, NameAddr, Request, Scheme, Uri};
use crate::ground::{Flow, Transport};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How a request's CSeq relates to what the dialog saw before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequence {
    Higher,
    Equal,
    Lower,
}

/// One dialog that a peer's INVITE began.
#[derive(Clone, Debug)]
pub struct Dialog {
    invite: Arc<Request>,
    flow: Flow,
    flow_open: bool,
    local_tag: String,
    local_cseq: u32,
    remote_cseq: u32,
    remote_target: String,
    route_set: Vec<String>,
}

impl Dialog {
    /// The dialog of an INVITE that came on `flow`, with our tag. A peer of RFC 2543 that sent no
    /// Contact is reached at its From URI.
    pub fn answering(invite: Arc<Request>, flow: Flow, local_tag: String) -> Dialog {
        let contact = invite.contact().unwrap_or_else(|| invite.from());
        let remote_target = target_of(&contact);
        let route_set = invite.record_routes().into_iter().map(String::from).collect();
        let remote_cseq = invite.cseq().number;
        Dialog {
            invite,
            flow,
            flow_open: true,
            local_tag,
            local_cseq: 0,
            remote_cseq,
            remote_target,
            route_set,
        }
    }

    pub fn call_id(&self) -> &str {
        self.invite.call_id()
    }

    /// Our tag: 128 random bits, so that who has not seen our answer cannot name the dialog.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The peer's tag; `None` for a peer of RFC 2543.
    pub fn remote_tag(&self) -> Option<&str> {
        self.invite.from().tag()
    }

    /// The Request-URI of our requests, as received.
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// The Record-Route values of the INVITE, in order.
    pub fn route_set(&self) -> &[String] {
        &self.route_set
    }

    /// The flow on which the peer was last heard.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// The INVITE that began it.
    pub fn invite(&self) -> &Request {
        &self.invite
    }

    /// True when Call-ID and both tags of the request are this dialog's (§12.2.2).
    pub fn is_for(&self, request: &Request) -> bool {
        request.call_id() == self.call_id()
            && request.to().tag() == Some(self.local_tag())
            && request.from().tag() == self.remote_tag()
    }

    /// How the request's CSeq compares with the highest one seen from the peer.
    pub fn sequence_of(&self, request: &Request) -> Sequence {
        match request.cseq().number.cmp(&self.remote_cseq) {
            std::cmp::Ordering::Greater => Sequence::Higher,
            std::cmp::Ordering::Equal => Sequence::Equal,
            std::cmp::Ordering::Less => Sequence::Lower,
        }
    }

    /// Takes over the CSeq and the flow of a request that passed the guards.
    pub fn note(&mut self, request: &Request, flow: Flow) {
        self.remote_cseq = self.remote_cseq.max(request.cseq().number);
        self.flow = flow;
        self.flow_open = true;
    }

    /// A re-INVITE or UPDATE was accepted: its Contact is the new remote target (§12.2.2).
    pub fn refresh_target(&mut self, request: &Request) {
        if let Some(contact) = request.contact() {
            self.remote_target = target_of(&contact);
        }
    }

    /// The connection that the dialog lived on is closed; requests go to the route's address now.
    pub fn lose_flow(&mut self) {
        self.flow_open = false;
    }

    /// True while the flow can carry requests of ours.
    pub fn is_flow_open(&self) -> bool {
        self.flow_open
    }

    /// Begins the next request of ours (§12.2.1.1): Request-URI and Route for loose and strict
    /// routers, From, To, Call-ID, a CSeq one higher, Max-Forwards.
    pub fn request(&mut self, method: &Method, via: &str) -> Builder {
        self.local_cseq = self.local_cseq.saturating_add(1);
        let (uri, routes) = self.routing();
        let mut builder = Builder::request(method, &uri).header("Via", via);
        for route in &routes {
            builder = builder.header("Route", route);
        }
        let local = format!("{};tag={}", self.invite.to().as_str(), self.local_tag);
        builder
            .header("Max-Forwards", "70")
            .header("From", &local)
            .header("To", self.invite.from().as_str())
            .header("Call-ID", self.call_id())
            .header("CSeq", &format!("{} {}", self.local_cseq, method.as_str()))
    }

    /// Where our requests go: on an open stream to its other end; else to the first route, or the
    /// remote target, unless that address cannot be meant for us (a private one of a peer that is
    /// public itself, another address family, another transport): then to the peer's source.
    pub fn next_hop(&self) -> Destination {
        if self.flow.transport.is_reliable() && self.flow_open {
            return Destination::Peer;
        }
        let first = self.route_set.first().and_then(|route| NameAddr::parse(route).ok());
        let uri = match &first {
            Some(route) => Some(route.uri()),
            None => Uri::parse(&self.remote_target).ok(),
        };
        uri.map_or(Destination::Peer, |uri| self.destination_of(&uri))
    }

    /// Request-URI and Route values (§12.2.1.1, with the strict router of RFC 2543).
    fn routing(&self) -> (String, Vec<String>) {
        let loose = |route: &String| {
            NameAddr::parse(route).is_ok_and(|route| route.uri().param("lr").is_some())
        };
        match self.route_set.split_first() {
            Some((first, rest)) if !loose(first) => {
                let mut routes = rest.to_vec();
                routes.push(format!("<{}>", self.remote_target));
                let uri = NameAddr::parse(first).map(|first| target_of(&first));
                (uri.unwrap_or_else(|_| self.remote_target.clone()), routes)
            }
            _ => (self.remote_target.clone(), self.route_set.clone()),
        }
    }

    fn destination_of(&self, uri: &Uri<'_>) -> Destination {
        let transport = uri.param("transport").flatten();
        let own = self.flow.transport.uri_param();
        if transport.is_some_and(|other| !other.eq_ignore_ascii_case(own)) {
            return Destination::Peer;
        }
        match uri.host() {
            Host::Address(address) => {
                let secure = self.flow.transport == Transport::Tls;
                let port = uri.port().unwrap_or(if secure { 5061 } else { 5060 });
                self.address_or_peer(SocketAddr::new(address, port))
            }
            Host::Name(host) => Destination::Name { host: host.into(), port: uri.port() },
            Host::Absent => Destination::Peer,
        }
    }

    fn address_or_peer(&self, address: SocketAddr) -> Destination {
        let peer = self.flow.peer.ip();
        let ip = address.ip();
        let unusable = ip.is_unspecified()
            || ip.is_multicast()
            || address.port() == 0
            || ip.is_ipv4() != peer.is_ipv4()
            || (is_private(ip) && !is_private(peer));
        if unusable { Destination::Peer } else { Destination::Address(address) }
    }
}

/// The URI as received, without the `?…` that no Request-URI may have (§19.1.1).
fn target_of(address: &NameAddr<'_>) -> String {
    let uri = address.uri();
    let text = uri.as_str();
    let sip = matches!(uri.scheme(), Scheme::Sip | Scheme::Sips);
    if sip && uri.has_headers() {
        text.rsplit_once('?').map_or(text, |(before, _)| before).into()
    } else {
        text.into()
    }
}

/// Addresses that mean nothing outside their own network (RFC 1918, 6598, 3927, 4193).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && (64..128).contains(&second);
            shared || ip.is_private() || ip.is_loopback() || ip.is_link_local() || first == 255
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{flow, parse_request, stream};
    use super::*;

    /// Start line, Route, From, To, CSeq of our BYE and where it goes.
    fn bye(contact: &str, record_routes: &str, flow: Flow) -> String {
        let invite = parse_request(&format!(
            "INVITE sip:us@example.com SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\n\
             {record_routes}From: \"A\" <sip:a@h>;tag=them\nTo: sip:us@example.com\n\
             Call-ID: c1\nCSeq: 7 INVITE\n{contact}Content-Length: 0\n\n"
        ));
        let mut dialog = Dialog::answering(Arc::new(invite), flow, "ours".into());
        let to = dialog.next_hop();
        let bytes = dialog.request(&Method::Bye, "SIP/2.0/UDP us;branch=z9hG4bKx").finish();
        let text = String::from_utf8(bytes.expect("writable").to_vec()).expect("text");
        let mut shown: Vec<&str> = text
            .lines()
            .filter(|line| {
                !line.starts_with("Via") && !line.starts_with("Content") && !line.is_empty()
            })
            .collect();
        let to = format!("{to:?}");
        shown.push(&to);
        shown.join("\n")
    }

    const TAIL: &str = "Max-Forwards: 70\nFrom: sip:us@example.com;tag=ours\n\
                        To: \"A\" <sip:a@h>;tag=them\nCall-ID: c1\nCSeq: 1 BYE\n";

    #[test]
    fn without_routes_the_contact_is_the_request_uri_byte_for_byte() {
        let contact = "Contact: <sip:A%20b@198.51.100.7:5070;x-i=a/b;ob>;expires=9\n";
        let expected = format!(
            "BYE sip:A%20b@198.51.100.7:5070;x-i=a/b;ob SIP/2.0\n{TAIL}Address(198.51.100.7:5070)"
        );
        assert_eq!(bye(contact, "", flow("203.0.113.9:5060")), expected);
    }

    #[test]
    fn two_record_routes_become_two_routes_in_order() {
        let routes = "Record-Route: <sip:198.51.100.1;r2=on;lr>, <sip:10.0.0.1:5080;lr=on>\n";
        let expected = format!(
            "BYE sip:a@10.0.0.9 SIP/2.0\nRoute: <sip:198.51.100.1;r2=on;lr>\n\
             Route: <sip:10.0.0.1:5080;lr=on>\n{TAIL}Address(198.51.100.1:5060)"
        );
        let contact = "Contact: <sip:a@10.0.0.9>\n";
        assert_eq!(bye(contact, routes, flow("203.0.113.9:5060")), expected);
    }

    #[test]
    fn a_strict_router_takes_the_request_uri_and_the_target_goes_last() {
        let routes =
            "Record-Route: <sip:198.51.100.1;x?Subject=y>\nRecord-Route: <sip:b.example.com;lr>\n";
        let expected = format!(
            "BYE sip:198.51.100.1;x SIP/2.0\nRoute: <sip:b.example.com;lr>\n\
             Route: <sip:a@10.0.0.9>\n{TAIL}Address(198.51.100.1:5060)"
        );
        let contact = "Contact: <sip:a@10.0.0.9>\n";
        assert_eq!(bye(contact, routes, flow("203.0.113.9:5060")), expected);
    }

    #[test]
    fn addresses_that_cannot_be_meant_give_way_to_the_source() {
        let public = flow("203.0.113.9:5060");
        let cases = [
            ("<sip:a@10.0.0.9:5062>", public, "Peer"),
            ("<sip:a@100.64.0.9>", public, "Peer"),
            ("<sip:a@0.0.0.0>", public, "Peer"),
            ("<sip:a@[2001:db8::1]>", public, "Peer"),
            ("<sip:a@198.51.100.7;transport=tcp>", public, "Peer"),
            ("<sip:a@198.51.100.7;transport=UDP>", public, "Address(198.51.100.7:5060)"),
            ("<sip:a@10.0.0.9:5062>", flow("192.168.1.1:5060"), "Address(10.0.0.9:5062)"),
            ("<sip:a@pbx.example.com>", public, "Name { host: \"pbx.example.com\", port: None }"),
            ("<sip:a@198.51.100.7>", stream("203.0.113.9:5060"), "Peer"),
            ("<tel:+15550001>", public, "Peer"),
        ];
        for (contact, flow, expected) in cases {
            let shown = bye(&format!("Contact: {contact}\n"), "", flow);
            assert_eq!(shown.lines().last(), Some(expected), "{contact}");
        }
    }

    #[test]
    fn without_a_contact_the_from_is_the_target() {
        let shown = bye("", "", flow("203.0.113.9:5060"));
        assert!(shown.starts_with("BYE sip:a@h SIP/2.0\n"), "{shown}");
    }
}
