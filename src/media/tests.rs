//! The session as a whole, under a virtual clock.

use super::plan::*;
use super::*;
use crate::codec::CodecKind;
use crate::ground::{Entropy, Now};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn g711_flows_both_ways_at_once() {
    let remote: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let codec = CodecPlan {
        kind: CodecKind::Pcmu,
        send_payload_type: 0,
        receive_payload_type: 0,
        ptime_ms: 20,
        fec: false,
    };
    let leg = LegPlan {
        codec,
        telephone_event: None,
        remote: RemoteMedia { rtp: Some(remote), rtcp: None, rtcp_mux: false },
        direction: Direction::SendRecv,
        signalling_source: remote.ip(),
    };
    let agent = AgentRates { input_hz: 8_000, output_hz: 8_000 };
    let plan =
        MediaPlan { leg, agent, rtp_timeout: Duration::from_secs(30), cname: "c".into() };
    let now = Now::default();
    let mut session = MediaSession::new(now, &plan, Entropy::from_number(1)).unwrap();
    let mut uplink = Uplink::new(8_000);
    session.handle_agent_joined(now, &mut uplink);
    let mut packet = [0xffu8; 172];
    packet[..12].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7]);
    session.handle_rtp(now, remote, &packet, &mut uplink);
    assert_eq!(uplink.pop().map(|frame| frame.len()), Some(160));
    session.handle_agent_audio(now, &[1; 640]);
    let mut buffer = [0; 1500];
    let sent = session.poll_transmit(now, &mut buffer).unwrap();
    assert_eq!((sent.len, sent.to, sent.channel), (172, remote, Channel::Rtp));
}
