//! The session as a whole under a virtual clock: a [`Scene`] is one call, scripts and ladders are
//! text.

mod amr_wb;
mod arranging;
mod bursts;
mod control;
mod extended;
mod hearing;
mod networks;
mod one_way;
mod opening;
mod own_ports;
mod pacing;
mod rates;
mod relaying;
mod speaking;
mod srtp;
mod swarm;

use super::plan::*;
use super::{Channel, MediaSession};
use crate::codec::{CodecFormat, CodecKind, Decoder, IlbcMode};
use crate::ground::{Entropy, Instant, LegId, Now, StreamId, WallTime};
use crate::rtp::packet::{RtpHeader, RtpPacket};
use std::net::SocketAddr;
use std::time::Duration;

const CALLER: &str = "192.0.2.1:4000";
const STRANGER: &str = "198.51.100.66:4000";

/// Whether a codec can be coded here. Its libraries belong to what tests install: where CI=true, one
/// that is missing is a failure.
fn is_here(kind: CodecKind) -> bool {
    let is_here = kind.is_available();
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(is_here || !is_ci || kind.packages().is_none(), "{kind:?}: libraries are missing");
    is_here
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The codec as it fills packets of 20 ms.
fn format(kind: CodecKind) -> CodecFormat {
    match kind {
        CodecKind::Ilbc => CodecFormat::Ilbc(IlbcMode::Ms20),
        _ => CodecFormat::Usual,
    }
}

fn plan(kind: CodecKind, ptime_ms: u16) -> MediaPlan {
    let payload_type = kind.static_payload_type().unwrap_or(111);
    let codec = CodecPlan {
        kind,
        format: format(kind),
        send_payload_type: payload_type,
        receive_payload_type: payload_type,
        ptime_ms,
        fec: false,
    };
    let clock_hz = kind.rtp_clock_hz();
    let event = TelephoneEventPlan { send_payload_type: 101, receive_payload_type: 101, clock_hz };
    let remote = RemoteMedia {
        rtp: Some(address(CALLER)),
        rtcp: Some(address("192.0.2.1:4001")),
        rtcp_mux: false,
    };
    let leg = LegPlan {
        codec,
        telephone_event: Some(event),
        pauses: PausePlan::default(),
        remote,
        control: Default::default(),
        direction: Direction::SendRecv,
        srtp: None,
        signalling_source: address(CALLER).ip(),
    };
    MediaPlan {
        leg,
        agent: AgentRates::for_codec(kind, 24_000),
        rtp_timeout: Duration::from_secs(30),
        rtcp_only_max: Duration::from_secs(600),
        hold_max: Duration::from_secs(1_800),
        jitter: Default::default(),
        outgoing: false,
        cname: "c7f3".into(),
        own: Default::default(),
    }
}

/// A packet that the session sent.
#[derive(Clone, Debug)]
struct Sent {
    at: Instant,
    to: SocketAddr,
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    payload: Vec<u8>,
}

/// A packet for the session.
#[derive(Clone, Copy, Debug)]
struct Given {
    source: &'static str,
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

/// One call with its clock, its caller and its agent.
struct Scene {
    session: MediaSession,
    now: Now,
    sent: Vec<Sent>,
    reports: Vec<(Instant, SocketAddr, Channel, Vec<u8>)>,
    heard: Vec<i16>,
    events: Vec<String>,
}

impl Scene {
    fn new(plan: &MediaPlan) -> Scene {
        let now = Now { at: Instant::from_nanos(3_000_000_000), wall: WallTime::default() };
        Scene {
            session: MediaSession::new(now, plan, Entropy::from_number(5)).expect("a sound plan"),
            now,
            sent: Vec::new(),
            reports: Vec::new(),
            heard: Vec::new(),
            events: Vec::new(),
        }
    }

    fn joined(plan: &MediaPlan) -> Scene {
        let mut scene = Scene::new(plan);
        scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
        scene.drain();
        scene
    }

    /// As `joined`, with a caller who was heard before: agent speech need not wait for the path.
    fn heard(plan: &MediaPlan) -> Scene {
        let mut scene = Scene::new(plan);
        let (marker, timestamp, ssrc) = (false, 0, 7);
        let given =
            Given { source: CALLER, marker, payload_type: 13, sequence: 0, timestamp, ssrc };
        scene.give(given, &[0x7f]);
        scene.events.clear();
        scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
        scene.drain();
        scene
    }

    /// Milliseconds since the scene began.
    fn ms(at: Instant) -> u64 {
        at.since(Instant::from_nanos(3_000_000_000)).as_millis() as u64
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1500];
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut buffer) {
            let bytes = &buffer[..transmit.len];
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            if (192..=223).contains(&bytes[1]) {
                let report = (self.now.at, transmit.to, transmit.channel, bytes.to_vec());
                self.reports.push(report);
                continue;
            }
            self.sent.push(Sent {
                at: self.now.at,
                to: transmit.to,
                marker: bytes[1] & 0x80 != 0,
                payload_type: bytes[1] & 0x7f,
                sequence: word(0) as u16,
                timestamp: word(4),
                ssrc: word(8),
                payload: bytes[12..].to_vec(),
            });
        }
        while let Some(event) = self.session.poll_event() {
            // A key does not print by itself.
            let key = match &event {
                MediaEvent::Digit { digit, .. } => format!("{:?}", digit.0),
                _ => String::new(),
            };
            self.events.push(format!("{}:{event:?}{key}", Scene::ms(self.now.at)));
        }
        let uplink = self.session.uplink(StreamId::FIRST).expect("the first stream");
        while let Some(frame) = uplink.pop() {
            self.heard.extend_from_slice(frame);
        }
    }

    /// Lets time pass, waking exactly when the session asks for it.
    fn run_to(&mut self, ms: u64) {
        self.run_until(milliseconds(ms));
    }

    /// As `run_to`, for a time since the scene began.
    fn run_until(&mut self, since: Duration) {
        let end = Instant::from_nanos(3_000_000_000) + since;
        loop {
            let next = self.session.poll_timeout().map_or(end, |at| at.max(self.now.at));
            if next > end {
                break;
            }
            let done = next == end && next == self.now.at;
            self.now = self.now.later(next.since(self.now.at));
            self.session.handle_timeout(self.now);
            self.drain();
            if done {
                break;
            }
        }
        self.now = self.now.later(end.since(self.now.at));
    }

    /// Lets time pass asleep: nobody looks at the session's deadlines.
    fn sleep_to(&mut self, ms: u64) {
        let end = Instant::from_nanos(3_000_000_000) + milliseconds(ms);
        self.now = self.now.later(end.since(self.now.at));
        self.session.handle_timeout(self.now);
        self.drain();
    }

    fn give(&mut self, given: Given, payload: &[u8]) {
        let mut packet = vec![0x80, given.payload_type | u8::from(given.marker) << 7];
        packet.extend_from_slice(&given.sequence.to_be_bytes());
        packet.extend_from_slice(&given.timestamp.to_be_bytes());
        packet.extend_from_slice(&given.ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        self.session.handle_rtp(self.now, LegId::CALLER, address(given.source), &packet);
        self.drain();
    }

    fn say(&mut self, pcm: &[i16]) {
        let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.session.handle_agent_audio(self.now, StreamId::FIRST, &bytes);
        self.drain();
    }
}

/// The µ-law byte that stands for packet `number` in scripts, and its linear value.
fn level(number: u16) -> (u8, i16) {
    let byte = 0x80 + (number % 100) as u8;
    let mut pcm = [0; 1];
    Decoder::new(CodecKind::Pcmu, 8_000).unwrap().decode(&[byte], &mut pcm).unwrap();
    (byte, pcm[0])
}
