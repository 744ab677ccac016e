//! A dialog (RFC 3261 §12): who talks with whom, which sequence numbers were seen, where requests
//! of ours go. It builds those requests and never decides whether one may be sent. As UAS the route
//! set keeps the order of Record-Route, as UAC it is reversed (§12.1.1, §12.1.2).

use super::destination::Destination;
use super::msg::{Headers, Host, Method, NameAddr, Request, Response, Scheme, Uri};
use super::target::{Target, TargetHost};
use crate::ground::{Flow, Transport};
use std::net::{IpAddr, SocketAddr};

/// How a request's CSeq relates to what the dialog saw before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequence {
    Higher,
    Equal,
    Lower,
}

/// One dialog, begun by an INVITE of the peer's or of ours.
#[derive(Clone, Debug)]
pub struct Dialog {
    call_id: String,
    flow: Flow,
    flow_open: bool,
    /// Our address with its tag, as From of our requests.
    local: String,
    local_tag: String,
    /// The peer's address as received, with its tag.
    remote: String,
    remote_tag: Option<String>,
    local_cseq: u32,
    /// `None` until a request of the peer came.
    remote_cseq: Option<u32>,
    /// We began the dialog and chose its Call-ID.
    is_call_id_ours: bool,
    remote_target: String,
    route_set: Vec<String>,
}

/// Which way a request of ours in a dialog goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// On a flow that stands.
    Flow(Flow, Destination),
    /// To a target that is to be located; when that fails, on the flow, if there is one.
    Target(Target, Option<Flow>),
    /// The connection is gone, and the peer named no address that could be meant.
    None,
}

impl Dialog {
    /// The dialog of an INVITE that came on `flow`, with our tag. A peer of RFC 2543 that sent no
    /// Contact is reached at its From URI.
    pub fn answering(invite: &Request, flow: Flow, local_tag: String) -> Dialog {
        let contact = invite.contact().unwrap_or_else(|| invite.from());
        Dialog {
            call_id: invite.call_id().to_owned(),
            flow,
            flow_open: true,
            local: format!("{};tag={local_tag}", invite.to().as_str()),
            local_tag,
            remote: invite.from().as_str().to_owned(),
            remote_tag: invite.from().tag().map(String::from),
            local_cseq: 0,
            remote_cseq: Some(invite.cseq().number),
            is_call_id_ours: false,
            remote_target: target_of(&contact),
            route_set: invite.record_routes().into_iter().map(String::from).collect(),
        }
    }

    /// The dialog that a 2xx to our INVITE began; it came on `flow`. From, Call-ID and CSeq are those
    /// that we sent, as the answer repeats them. Without a Contact the peer is reached at
    /// `request_uri`.
    pub fn calling(answer: &Response, flow: Flow, request_uri: &str) -> Dialog {
        let target = answer.contact().map_or_else(|| request_uri.to_owned(), |at| target_of(&at));
        Dialog {
            call_id: answer.call_id().to_owned(),
            flow,
            flow_open: true,
            local: answer.from().as_str().to_owned(),
            local_tag: answer.from().tag().unwrap_or_default().to_owned(),
            remote: answer.to().as_str().to_owned(),
            remote_tag: answer.to().tag().map(String::from),
            local_cseq: answer.cseq().number,
            remote_cseq: None,
            is_call_id_ours: true,
            remote_target: target,
            route_set: answer.record_routes().into_iter().rev().map(String::from).collect(),
        }
    }

    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// True when we chose the Call-ID: then we are the one who waits longer after a glare (§14.1).
    pub fn is_call_id_ours(&self) -> bool {
        self.is_call_id_ours
    }

    /// Our tag: 128 random bits, so that who has not seen our message cannot name the dialog.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The peer's tag; `None` for a peer of RFC 2543.
    pub fn remote_tag(&self) -> Option<&str> {
        self.remote_tag.as_deref()
    }

    /// The Request-URI of our requests, as received.
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// The routes of our requests, in order.
    pub fn route_set(&self) -> &[String] {
        &self.route_set
    }

    /// The flow on which the peer was last heard.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// True when Call-ID and both tags of the request are this dialog's (§12.2.2).
    pub fn is_for(&self, request: &Request) -> bool {
        request.call_id() == self.call_id()
            && request.to().tag() == Some(self.local_tag())
            && request.from().tag() == self.remote_tag()
    }

    /// How the request's CSeq compares with the highest one seen from the peer.
    pub fn sequence_of(&self, request: &Request) -> Sequence {
        let Some(seen) = self.remote_cseq else { return Sequence::Higher };
        match request.cseq().number.cmp(&seen) {
            std::cmp::Ordering::Greater => Sequence::Higher,
            std::cmp::Ordering::Equal => Sequence::Equal,
            std::cmp::Ordering::Less => Sequence::Lower,
        }
    }

    /// Takes over the CSeq and the flow of a request that passed the guards. True when the flow is
    /// another one than before.
    pub fn note(&mut self, request: &Request, flow: Flow) -> bool {
        // An ACK repeats the CSeq of its INVITE, which may have been ours.
        if *request.method() != Method::Ack {
            self.remote_cseq = self.remote_cseq.max(Some(request.cseq().number));
        }
        let moved = self.flow.id != flow.id;
        self.flow = flow;
        self.flow_open = true;
        moved
    }

    /// A re-INVITE or UPDATE was accepted: the Contact of the peer's message is the new remote target
    /// (§12.2.1.2, §12.2.2).
    pub fn refresh_target(&mut self, message: &Headers) {
        if let Some(contact) = message.contact() {
            self.remote_target = target_of(&contact);
        }
    }

    /// The connection that the dialog lived on is closed; requests go to the route's address now.
    pub fn lose_flow(&mut self) {
        self.flow_open = false;
    }

    /// The peer answered a request of ours on `flow`. True when the dialog lives there from now on: it
    /// had lost its connection.
    pub fn settle_on(&mut self, flow: Flow) -> bool {
        let moves = !self.flow_open && flow.id != self.flow.id;
        if moves {
            self.flow = flow;
            self.flow_open = true;
        }
        moves
    }

    /// True while the flow can carry requests of ours.
    pub fn is_flow_open(&self) -> bool {
        self.flow_open
    }

    /// The numbers of the early dialog that became this one go on.
    pub fn follow(&mut self, early: &Dialog) {
        self.local_cseq = self.local_cseq.max(early.local_cseq);
        self.remote_cseq = self.remote_cseq.max(early.remote_cseq);
    }

    /// A request of ours with this CSeq went out.
    pub fn sent(&mut self, cseq: u32) {
        self.local_cseq = self.local_cseq.max(cseq);
    }

    /// The number of our last request; 0 before the first.
    pub fn last_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// The number of our next request. The first one of a UAS is 1.
    pub fn next_cseq(&self) -> u32 {
        self.local_cseq.saturating_add(1)
    }

    /// From of our requests, with our tag.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// To of our requests, with the peer's tag.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Which way our requests go: on an open stream to its other end; else to the first route, or the
    /// remote target. A literal address is sent to from the listener that the dialog lives on, unless
    /// it cannot be meant for us (a private one of a peer that is public itself, another address
    /// family, another transport): then to the peer's source. A name, and the target of a dialog
    /// whose connection is gone, have to be located.
    pub fn way(&self) -> Way {
        let reliable = self.flow.transport.is_reliable();
        if reliable && self.flow_open {
            return Way::Flow(self.flow, Destination::Peer);
        }
        let first = self.route_set.first().and_then(|route| NameAddr::parse(route).ok());
        let uri = match &first {
            Some(route) => Some(route.uri()),
            None => Uri::parse(&self.remote_target).ok(),
        };
        match uri {
            Some(uri) if reliable => self.way_without_connection(&uri),
            Some(uri) => self.way_by_packets(&uri),
            None if reliable => Way::None,
            None => Way::Flow(self.flow, Destination::Peer),
        }
    }

    /// Request-URI and Route values (§12.2.1.1, with the strict router of RFC 2543).
    pub fn routing(&self) -> (String, Vec<String>) {
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

    fn way_by_packets(&self, uri: &Uri<'_>) -> Way {
        let to_peer = Way::Flow(self.flow, Destination::Peer);
        let transport = uri.param("transport").flatten();
        let own = self.flow.transport.uri_param();
        if transport.is_some_and(|other| !other.eq_ignore_ascii_case(own)) {
            return to_peer;
        }
        match uri.host() {
            Host::Address(address) => {
                let address = SocketAddr::new(address, uri.port().unwrap_or(5060));
                if self.can_mean(address) {
                    Way::Flow(self.flow, Destination::Address(address))
                } else {
                    to_peer
                }
            }
            Host::Name(_) => match Target::of_uri(uri) {
                Ok(mut target) => {
                    target.transport = target.transport.or(Some(self.flow.transport));
                    Way::Target(target, Some(self.flow))
                }
                Err(_) => to_peer,
            },
            Host::Absent => to_peer,
        }
    }

    /// The dialog stays on the transport that it had unless its URI names another, and what was TLS
    /// stays TLS.
    fn way_without_connection(&self, uri: &Uri<'_>) -> Way {
        let Ok(mut target) = Target::of_uri(uri) else { return Way::None };
        if let TargetHost::Address(address) = target.host
            && !self.can_mean(SocketAddr::new(address, target.port.unwrap_or(5060)))
        {
            return Way::None;
        }
        if self.flow.transport == Transport::Tls || target.transport.is_none() {
            target.transport = Some(self.flow.transport);
        }
        Way::Target(target, None)
    }

    /// True when the address can be that of this dialog's peer, seen from here.
    fn can_mean(&self, address: SocketAddr) -> bool {
        let (peer, ip) = (self.flow.peer.ip(), address.ip());
        let unusable = ip.is_unspecified()
            || ip.is_multicast()
            || address.port() == 0
            || ip.is_ipv4() != peer.is_ipv4()
            || (is_private(ip) && !is_private(peer));
        !unusable
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
pub fn is_private(ip: IpAddr) -> bool {
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
    use super::super::msg::Message;
    use super::super::testing::{flow, parse, parse_request, stream};
    use super::*;

    /// Start line, Route, From, To, CSeq of our BYE and where it goes.
    fn bye(contact: &str, record_routes: &str, flow: Flow) -> String {
        let invite = parse_request(&format!(
            "INVITE sip:us@example.com SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\n\
             {record_routes}From: \"A\" <sip:a@h>;tag=them\nTo: sip:us@example.com\n\
             Call-ID: c1\nCSeq: 7 INVITE\n{contact}Content-Length: 0\n\n"
        ));
        shown(&Dialog::answering(&invite, flow, "ours".into()))
    }

    fn shown(dialog: &Dialog) -> String {
        let (uri, routes) = dialog.routing();
        let routes: String = routes.iter().map(|route| format!("Route: {route}\n")).collect();
        let (from, to, call_id) = (dialog.local(), dialog.remote(), dialog.call_id());
        let way = match dialog.way() {
            Way::Flow(_, to) => format!("{to:?}"),
            Way::Target(target, fallback) => {
                let host = match target.host {
                    TargetHost::Address(address) => address.to_string(),
                    TargetHost::Name(name) => name,
                };
                let transport = target.transport.map_or("-", Transport::uri_param);
                let back = if fallback.is_some() { " or back" } else { "" };
                format!("locate {host} {:?} {transport}{back}", target.port)
            }
            Way::None => "nowhere".into(),
        };
        format!(
            "BYE {uri} SIP/2.0\n{routes}From: {from}\nTo: {to}\nCall-ID: {call_id}\n\
             CSeq: {} BYE\n{way}",
            dialog.next_cseq()
        )
    }

    const TAIL: &str = "From: sip:us@example.com;tag=ours\n\
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
            ("<sip:a@pbx.example.com>", public, "locate pbx.example.com None udp or back"),
            ("<sip:a@198.51.100.7>", stream("203.0.113.9:5060"), "Peer"),
            ("<tel:+15550001>", public, "Peer"),
        ];
        for (contact, flow, expected) in cases {
            let shown = bye(&format!("Contact: {contact}\n"), "", flow);
            assert_eq!(shown.lines().last(), Some(expected), "{contact}");
        }
    }

    #[test]
    fn a_dialog_whose_connection_is_gone_is_located_on_its_transport() {
        let public = stream("203.0.113.9:40000");
        let tls = Flow { transport: Transport::Tls, ..public };
        let cases = [
            ("<sip:a@198.51.100.7>", public, "locate 198.51.100.7 None tcp"),
            ("<sip:a@pbx.example.com:5070>", public, "locate pbx.example.com Some(5070) tcp"),
            ("<sip:a@pbx.example.com;transport=udp>", public, "locate pbx.example.com None udp"),
            ("<sip:a@pbx.example.com;transport=tcp>", tls, "locate pbx.example.com None tls"),
            ("<sip:a@10.0.0.9:5062>", public, "nowhere"),
            ("<tel:+15550001>", public, "nowhere"),
        ];
        for (contact, flow, expected) in cases {
            let invite = parse_request(&format!(
                "INVITE sip:us@example.com SIP/2.0\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\n\
                 From: <sip:a@h>;tag=them\nTo: sip:us@example.com\nCall-ID: c1\nCSeq: 7 INVITE\n\
                 Contact: {contact}\nContent-Length: 0\n\n"
            ));
            let mut dialog = Dialog::answering(&invite, flow, "ours".into());
            dialog.lose_flow();
            assert_eq!(shown(&dialog).lines().last(), Some(expected), "{contact}");
        }
    }

    #[test]
    fn the_callers_dialog_reverses_the_routes_and_keeps_its_own_tag() {
        let Message::Response(answer) = parse(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP us;branch=z9hG4bK1\nFrom: <sip:us@h>;tag=ours\n\
             To: <sip:b@h>;tag=them\nCall-ID: c1\nCSeq: 7 INVITE\nContact: <sip:b@198.51.100.7>\n\
             Record-Route: <sip:198.51.100.1;lr>, <sip:198.51.100.2;lr>\nContent-Length: 0\n\n",
        ) else {
            panic!("a response");
        };
        let dialog = Dialog::calling(&answer, flow("198.51.100.2:5060"), "sip:b@h");
        assert_eq!(
            shown(&dialog),
            "BYE sip:b@198.51.100.7 SIP/2.0\nRoute: <sip:198.51.100.2;lr>\n\
             Route: <sip:198.51.100.1;lr>\nFrom: <sip:us@h>;tag=ours\nTo: <sip:b@h>;tag=them\n\
             Call-ID: c1\nCSeq: 8 BYE\nAddress(198.51.100.2:5060)"
        );
        assert_eq!((dialog.local_tag(), dialog.remote_tag()), ("ours", Some("them")));
        let info = parse_request(
            "INFO sip:us@h SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK2\nFrom: <sip:b@h>;tag=them\n\
             To: <sip:us@h>;tag=ours\nCall-ID: c1\nCSeq: 1 INFO\nContent-Length: 0\n\n",
        );
        assert!(dialog.is_for(&info));
        assert_eq!(
            dialog.sequence_of(&info),
            Sequence::Higher,
            "the peer's first number is its own"
        );
    }

    #[test]
    fn without_a_contact_the_from_is_the_target() {
        let shown = bye("", "", flow("203.0.113.9:5060"));
        assert!(shown.starts_with("BYE sip:a@h SIP/2.0\n"), "{shown}");
    }
}
