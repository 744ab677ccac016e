//! One call through the media session under a virtual clock: packets at their times in, and what the
//! agent hears out, with the time of each piece; or the agent's words in, and what the phone hears; or
//! both ways, through an agent that echoes.

use super::Heard;
use super::coder::Coder;
use super::ear::{self, Came};
use super::network::Arrival;
use std::net::SocketAddr;
use std::time::Duration;
use voxedge::ground::{Entropy, Instant, LegId, Now, StreamId};
use voxedge::media::MediaSession;
use voxedge::media::plan::*;
use voxedge::rtp::packet::{RtpHeader, RtpPacket};

const PAYLOAD_TYPE: u8 = 111;
/// How long the call goes on after the last packet.
const TAIL: Duration = Duration::from_millis(800);

/// What the agent hears of packets that come at these times. More packets than there are payloads
/// begin again with the first.
pub fn caller_to_agent(coder: &Coder, payloads: &[Vec<u8>], arrivals: &[Arrival]) -> Heard {
    let mut call = Call::up(coder);
    let end = arrivals.last().map_or(TAIL, |last| last.at + TAIL);
    for arrival in arrivals {
        call.run_to(arrival.at);
        call.give(arrival.packet, &payloads[arrival.packet % payloads.len()]);
    }
    call.run_to(end);
    call.heard
}

/// What the phone hears of itself when packets come at these times and the agent sends back what it hears,
/// at once.
pub fn echo(coder: &Coder, payloads: &[Vec<u8>], arrivals: &[Arrival]) -> Heard {
    let mut call = Call::up(coder);
    call.echoes = true;
    let end = arrivals.last().map_or(TAIL, |last| last.at + TAIL);
    for arrival in arrivals {
        call.run_to(arrival.at);
        call.give(arrival.packet, &payloads[arrival.packet % payloads.len()]);
    }
    call.run_to(end);
    ear::hear(coder, PAYLOAD_TYPE, &call.back)
}

/// What the phone hears of an agent that speaks in frames of 20 ms, on a clean network.
pub fn agent_to_caller(coder: &Coder, pcm: &[i16]) -> Heard {
    let mut call = Call::up(coder);
    call.give(0, &coder.encode(&vec![0; coder.packet_samples(coder.caller_hz)])[0]);
    call.back.clear();
    let frame = coder.back_hz as usize / 50;
    for (number, said) in pcm.chunks(frame).enumerate() {
        call.run_to(Duration::from_millis(20) * number as u32);
        let bytes: Vec<u8> = said.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        call.session.handle_agent_audio(call.now, StreamId::FIRST, &bytes);
        call.drain();
    }
    call.run_to(Duration::from_secs_f64(pcm.len() as f64 / f64::from(coder.back_hz)) + TAIL);
    let mut decoder = coder.decoder(coder.back_hz);
    let mut out = vec![0; coder.packet_samples(coder.back_hz)];
    let mut heard = Heard { pcm: Vec::new(), marks: Vec::new(), ppm: 0.0 };
    for Came { at_ms, packet } in &call.back {
        let packet = RtpPacket::parse(packet).expect("the session's own");
        decoder.decode(packet.payload, &mut out).expect("a whole packet");
        heard.pcm.extend_from_slice(&out);
        heard.marks.push((heard.pcm.len(), *at_ms));
    }
    heard
}

struct Call<'a> {
    coder: &'a Coder,
    session: MediaSession,
    began: Instant,
    now: Now,
    source: SocketAddr,
    /// Audio packets to the phone.
    back: Vec<Came>,
    /// The agent sends back what it hears.
    echoes: bool,
    heard: Heard,
}

impl Call<'_> {
    fn up(coder: &Coder) -> Call<'_> {
        let source: SocketAddr = "192.0.2.1:4000".parse().expect("an address");
        let now = Now::default();
        let mut session =
            MediaSession::new(now, &plan(coder, source), Entropy::from_number(1)).expect("a plan");
        session.handle_agent_joined(now, StreamId::FIRST);
        let heard = Heard { pcm: Vec::new(), marks: Vec::new(), ppm: 0.0 };
        let (began, back, echoes) = (now.at, Vec::new(), false);
        let mut call = Call { coder, session, began, now, source, back, echoes, heard };
        call.drain();
        call
    }

    fn give(&mut self, number: usize, payload: &[u8]) {
        let clock = self.coder.kind.rtp_clock_hz() / 1_000 * u32::from(self.coder.packet_ms);
        let header = RtpHeader {
            marker: number == 0,
            payload_type: PAYLOAD_TYPE,
            sequence: number as u16,
            timestamp: (number as u32).wrapping_mul(clock),
            ssrc: 7,
        };
        let mut packet = [0; 1_500];
        let head = header.write(&mut packet);
        packet[head..head + payload.len()].copy_from_slice(payload);
        let packet = &packet[..head + payload.len()];
        self.session.handle_rtp(self.now, LegId::CALLER, self.source, packet);
        self.drain();
    }

    fn run_to(&mut self, at: Duration) {
        let end = self.began + at;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            let due = due.max(self.now.at);
            self.now = self.now.later(due.since(self.now.at));
            self.session.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.now.later(end.since(self.now.at));
    }

    fn drain(&mut self) {
        let at_ms = self.now.at.since(self.began).as_secs_f64() * 1_000.0;
        let mut buffer = [0; 1_500];
        while let Some(sent) = self.session.poll_transmit(self.now, &mut buffer) {
            let packet = &buffer[..sent.len];
            let is_audio = RtpPacket::parse(packet)
                .is_ok_and(|packet| packet.header.payload_type == PAYLOAD_TYPE);
            if is_audio {
                self.back.push(Came { at_ms, packet: packet.to_vec() });
            }
        }
        while self.session.poll_event().is_some() {}
        let uplink = self.session.uplink(StreamId::FIRST).expect("the first stream");
        let before = self.heard.pcm.len();
        while let Some(frame) = uplink.pop() {
            self.heard.pcm.extend_from_slice(frame);
        }
        if self.heard.pcm.len() > before {
            self.heard.marks.push((self.heard.pcm.len(), at_ms));
            if self.echoes {
                let said = &self.heard.pcm[before..];
                let bytes: Vec<u8> = said.iter().flat_map(|one| one.to_le_bytes()).collect();
                self.session.handle_agent_audio(self.now, StreamId::FIRST, &bytes);
            }
        }
    }
}

fn plan(coder: &Coder, source: SocketAddr) -> MediaPlan {
    let codec = CodecPlan {
        kind: coder.kind,
        format: coder.format,
        send_payload_type: PAYLOAD_TYPE,
        receive_payload_type: PAYLOAD_TYPE,
        ptime_ms: coder.packet_ms,
        fec: coder.fec,
    };
    let event = TelephoneEventPlan {
        send_payload_type: 101,
        receive_payload_type: 101,
        clock_hz: coder.kind.rtp_clock_hz(),
    };
    MediaPlan {
        leg: LegPlan {
            codec,
            telephone_event: Some(event),
            remote: RemoteMedia { rtp: Some(source), rtcp: None, rtcp_mux: true },
            direction: Direction::SendRecv,
            srtp: None,
            signalling_source: source.ip(),
            pauses: Default::default(),
            control: Default::default(),
        },
        agent: AgentRates { input_hz: coder.agent_hz, output_hz: coder.back_hz },
        rtp_timeout: Duration::from_secs(3_600),
        rtcp_only_max: Duration::from_secs(3_600),
        hold_max: Duration::from_secs(3_600),
        jitter: Default::default(),
        outgoing: false,
        cname: "quality".into(),
        own: Default::default(),
    }
}
