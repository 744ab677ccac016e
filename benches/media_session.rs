//! What one frame of a call costs in the pure session, both ways: a packet of the caller's decoded
//! into the uplink, and a frame of the agent's encoded and paced out. No socket, no TLS.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;
use voxedge::codec::{CodecFormat, CodecKind, Encoder, EncoderSettings};
use voxedge::ground::{Entropy, LegId, Now, StreamId};
use voxedge::media::MediaSession;
use voxedge::media::plan::*;
use voxedge::rtp::packet::RtpHeader;

const FRAMES: usize = 100;

/// A call that is up, with a second or two of speech for either side.
struct Call {
    session: MediaSession,
    now: Now,
    source: SocketAddr,
    sequence: u16,
    timestamp: u32,
    kind: CodecKind,
    /// Payloads of the caller's, and frames of the agent's.
    payloads: Vec<Vec<u8>>,
    speech: Vec<Vec<u8>>,
    frame: usize,
}

fn tone(rate_hz: u32, samples: usize) -> Vec<i16> {
    let step = std::f64::consts::TAU / f64::from(rate_hz);
    let voice = |n: f64| (step * 210.0 * n).sin() + 0.4 * (step * 1_330.0 * n).sin();
    let loudness = |n: f64| 4_000.0 * (1.2 + (step * 3.0 * n).sin());
    (0..samples).map(|n| (loudness(n as f64) * voice(n as f64)) as i16).collect()
}

impl Call {
    fn new(kind: CodecKind) -> Call {
        let agent = AgentRates::for_codec(kind, 24_000);
        let payload_type = kind.static_payload_type().unwrap_or(111);
        let source: SocketAddr = "192.0.2.1:4000".parse().expect("an address");
        let codec = CodecPlan {
            kind,
            format: CodecFormat::Usual,
            send_payload_type: payload_type,
            receive_payload_type: payload_type,
            ptime_ms: 20,
            fec: false,
        };
        let plan = MediaPlan {
            leg: LegPlan {
                codec,
                telephone_event: None,
                remote: RemoteMedia { rtp: Some(source), rtcp: None, rtcp_mux: true },
                direction: Direction::SendRecv,
                signalling_source: source.ip(),
            },
            agent,
            rtp_timeout: Duration::from_secs(30),
            hold_max: Duration::from_secs(1_800),
            outgoing: false,
            cname: "c".into(),
        };
        let now = Now::default();
        let mut session = MediaSession::new(now, &plan, Entropy::from_number(1)).expect("sound");
        session.handle_agent_joined(now, StreamId::FIRST);
        let settings = EncoderSettings::default();
        let mut encoder = Encoder::new(kind, agent.input_hz, settings).expect("a rate");
        let frame = agent.input_hz as usize / 50;
        let mut encoded = |pcm: &[i16]| {
            let mut payload = vec![0; 400];
            let len = encoder.encode(pcm, &mut payload).expect("a frame");
            payload.truncate(len);
            payload
        };
        let pcm = tone(agent.input_hz, frame * FRAMES);
        let payloads = pcm.chunks(frame).map(&mut encoded).collect();
        let frame = agent.output_hz as usize / 50;
        let pcm = tone(agent.output_hz, frame * FRAMES);
        let bytes = |pcm: &[i16]| pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let speech = pcm.chunks(frame).map(bytes).collect();
        let (sequence, timestamp) = (0, 0);
        Call { session, now, source, sequence, timestamp, kind, payloads, speech, frame: 0 }
    }

    /// 20 ms of the call. `caller` and `agent` say who talks.
    fn step(&mut self, caller: bool, agent: bool) {
        let mut buffer = [0; 1_500];
        if caller {
            let payload = &self.payloads[self.frame % FRAMES];
            let (sequence, timestamp) = (self.sequence, self.timestamp);
            let payload_type = self.kind.static_payload_type().unwrap_or(111);
            let header = RtpHeader { marker: false, payload_type, sequence, timestamp, ssrc: 7 };
            header.write(&mut buffer);
            buffer[12..12 + payload.len()].copy_from_slice(payload);
            let packet = &buffer[..12 + payload.len()];
            self.session.handle_rtp(self.now, LegId::CALLER, self.source, packet);
        }
        if agent {
            self.session.handle_agent_audio(
                self.now,
                StreamId::FIRST,
                &self.speech[self.frame % FRAMES],
            );
        }
        self.session.handle_timeout(self.now);
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut buffer) {
            black_box(transmit);
        }
        let uplink = self.session.uplink(StreamId::FIRST).expect("the first stream");
        while let Some(frame) = uplink.pop() {
            black_box(frame);
        }
        while let Some(event) = self.session.poll_event() {
            black_box(event);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.kind.rtp_clock_hz() / 50);
        self.frame += 1;
        self.now = self.now.later(Duration::from_millis(20));
    }
}

fn media_session(criterion: &mut Criterion) {
    for kind in [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus] {
        let mut group = criterion.benchmark_group(kind.encoding_name());
        group.throughput(Throughput::Elements(1));
        for (name, caller, agent) in
            [("both talk", true, true), ("caller talks", true, false), ("silence", false, false)]
        {
            let mut call = Call::new(kind);
            group.bench_function(name, |bencher| bencher.iter(|| call.step(caller, agent)));
        }
        group.finish();
    }
}

criterion_group!(benches, media_session);
criterion_main!(benches);
