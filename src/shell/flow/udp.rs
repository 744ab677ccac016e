//! One UDP listener: admit, parse, pass on (RFC 3261 §18.2.1). A packet is one message; keep-alives
//! are swallowed; a malformed request is answered to where it came from.

use super::{FlowInput, Flows, canonical, parse};
use crate::ground::{Flow, FlowId, Transport, limits};
use crate::shell::clock::Clock;
use crate::sip::msg::{FaultReason, Framing, Message, ParseFault, stateless_answer};
use crate::sip::status::StatusLine;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;

/// Receives until told to stop.
pub(super) async fn receive(
    flows: Flows,
    id: FlowId,
    socket: Arc<UdpSocket>,
    mut stop: watch::Receiver<bool>,
) {
    let Ok(local) = socket.local_addr().map(canonical) else { return };
    // One byte more than is allowed, so that a longer packet shows.
    let mut buffer = vec![0; limits::UDP_MESSAGE_BYTES_MAX + 1];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            _ = stop.changed() => return,
        };
        // An error tells of an earlier packet of ours (ICMP); the socket itself is well.
        let Ok((len, source)) = received else { continue };
        let flow = Flow { id, transport: Transport::Udp, local, peer: canonical(source) };
        on_packet(&flows, &flow, buffer.get(..len).unwrap_or_default());
    }
}

/// One packet from the wire.
pub(super) fn on_packet(flows: &Flows, flow: &Flow, packet: &[u8]) {
    if !flows.admits(flow.peer.ip()) {
        flows.0.unlisted.note(flow.peer.ip(), Transport::Udp);
        if flows.0.settings.answer_unlisted {
            refuse(flows, flow, packet);
        } else if flows.0.mute.note(Clock::instant(), flow.peer.ip()) {
            flows.0.counters.muted.add();
        }
        return;
    }
    if !flows.0.packet_pace.take(Clock::instant(), flow.peer.ip()) {
        flows.0.counters.too_fast.add();
        return;
    }
    let bytes = Bytes::copy_from_slice(packet);
    let parsed = parse::guarded(&flows.0.counters, || Message::parse(bytes, Framing::Datagram));
    let Some(parsed) = parsed else { return };
    match parsed {
        Ok(message) => match flows.0.inputs.try_send(FlowInput::Message { flow: *flow, message }) {
            Ok(()) => flows.0.counters.received.add(),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => flows.0.counters.shed.add(),
        },
        Err(ParseFault { reason: FaultReason::Empty, .. }) => {}
        Err(fault) => {
            flows.0.counters.malformed.add();
            answer(flows, flow, fault.answer(flow.peer), flow.peer);
        }
    }
}

fn refuse(flows: &Flows, flow: &Flow, packet: &[u8]) {
    let bytes = Bytes::copy_from_slice(packet);
    let forbidden = || stateless_answer(&bytes, &StatusLine::of(403), flow.peer);
    let refusal = parse::guarded(&flows.0.counters, forbidden);
    answer(flows, flow, refusal.flatten(), flow.peer);
}

fn answer(flows: &Flows, flow: &Flow, answer: Option<Vec<u8>>, source: SocketAddr) {
    if let Some(answer) = answer {
        flows.send_packet(flow.id, source, &answer);
    }
}
