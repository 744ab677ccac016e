//! What the tests of dialogs, sessions and the user agent share.

use super::msg::{Framing, Message, Request};
use crate::ground::{Flow, FlowId, Transport};
use bytes::Bytes;

/// A UDP flow from `peer` to our listener.
pub(super) fn flow(peer: &str) -> Flow {
    Flow {
        id: FlowId(1),
        transport: Transport::Udp,
        local: "192.0.2.10:5060".parse().expect("an address"),
        peer: peer.parse().expect("an address"),
    }
}

/// A TCP connection from `peer`.
pub(super) fn stream(peer: &str) -> Flow {
    Flow { id: FlowId(2), transport: Transport::Tcp, ..flow(peer) }
}

/// Parses a message whose lines end with LF in the test's text.
pub(super) fn parse(text: &str) -> Message {
    let bytes = Bytes::from(text.replace('\n', "\r\n"));
    Message::parse(bytes, Framing::Datagram).unwrap_or_else(|fault| panic!("{fault:?} in {text}"))
}

pub(super) fn parse_request(text: &str) -> Request {
    match parse(text) {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a response: {text}"),
    }
}
