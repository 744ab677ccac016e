//! What one frame of a call costs in the pure session, both ways: a packet of the caller's decoded
//! into the uplink, and a frame of the agent's encoded and paced out; and what a second costs of a call
//! whose legs hear each other, as it is or transcoded. No socket, no TLS. It also measures the silence
//! at each switch.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;
use voxedge::codec::{CodecFormat, CodecKind, Encoder, EncoderSettings};
use voxedge::ground::{Entropy, LegId, Now, StreamId};
use voxedge::media::MediaSession;
use voxedge::media::plan::*;
use voxedge::media::sound::hold_music;
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
    /// The payloads of G.711 that the caller hears, while it is listened to.
    heard: Option<Vec<u8>>,
}

fn tone(rate_hz: u32, samples: usize) -> Vec<i16> {
    let step = std::f64::consts::TAU / f64::from(rate_hz);
    let voice = |n: f64| (step * 210.0 * n).sin() + 0.4 * (step * 1_330.0 * n).sin();
    let loudness = |n: f64| 4_000.0 * (1.2 + (step * 3.0 * n).sin());
    (0..samples).map(|n| (loudness(n as f64) * voice(n as f64)) as i16).collect()
}

/// With them nobody listens for keys in the audio.
fn keys(kind: CodecKind) -> TelephoneEventPlan {
    let clock_hz = kind.rtp_clock_hz();
    TelephoneEventPlan { send_payload_type: 101, receive_payload_type: 101, clock_hz }
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
                telephone_event: Some(keys(kind)),
                pauses: Default::default(),
                remote: RemoteMedia { rtp: Some(source), rtcp: None, rtcp_mux: true },
                control: Default::default(),
                direction: Direction::SendRecv,
                srtp: None,
                signalling_source: source.ip(),
            },
            agent,
            rtp_timeout: Duration::from_secs(30),
            rtcp_only_max: Duration::from_secs(600),
            hold_max: Duration::from_secs(1_800),
            jitter: Default::default(),
            outgoing: false,
            cname: "c".into(),
            own: Default::default(),
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
        let (sequence, timestamp, frame, heard) = (0, 0, 0, None);
        Call { session, now, source, sequence, timestamp, kind, payloads, speech, frame, heard }
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
        self.drain();
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.kind.rtp_clock_hz() / 50);
        self.frame += 1;
        self.now = self.now.later(Duration::from_millis(20));
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1_500];
        while let Some(sent) = self.session.poll_transmit(self.now, &mut buffer) {
            black_box(sent);
            let audio = sent.leg == LegId::CALLER && sent.len == 172;
            if let Some(heard) = self.heard.as_mut().filter(|_| audio) {
                heard.extend_from_slice(&buffer[12..sent.len]);
            }
        }
        let uplink = self.session.uplink(StreamId::FIRST).expect("the first stream");
        while let Some(frame) = uplink.pop() {
            black_box(frame);
        }
        while let Some(event) = self.session.poll_event() {
            black_box(event);
        }
    }
}

const OPERATOR: LegId = LegId(1);
const CALLER_LEG: Port = Port::Leg(LegId::CALLER);
const OPERATOR_LEG: Port = Port::Leg(OPERATOR);
const AGENT: Port = Port::Agent(StreamId::FIRST);

/// A caller, an operator and an agent who all talk.
struct Room {
    call: Call,
    far: SocketAddr,
    kind: CodecKind,
    payloads: Vec<Vec<u8>>,
}

impl Room {
    fn new(kind: CodecKind, other: CodecKind, scene: Scene) -> Room {
        let mut call = Call::new(kind);
        let far: SocketAddr = "192.0.2.2:4000".parse().expect("an address");
        let plan = LegPlan {
            codec: CodecPlan {
                kind: other,
                send_payload_type: other.static_payload_type().unwrap_or(111),
                receive_payload_type: other.static_payload_type().unwrap_or(111),
                format: CodecFormat::Usual,
                ptime_ms: 20,
                fec: false,
            },
            telephone_event: Some(keys(other)),
            pauses: Default::default(),
            remote: RemoteMedia { rtp: Some(far), rtcp: None, rtcp_mux: true },
            control: Default::default(),
            direction: Direction::SendRecv,
            srtp: None,
            signalling_source: far.ip(),
        };
        let opened = call.session.open_leg(call.now, OPERATOR, &plan, Entropy::from_number(2));
        opened.expect("a place");
        call.session.play(call.now, Some(hold_music()));
        call.session.arrange(call.now, scene);
        let payloads = Call::new(other).payloads;
        Room { call, far, kind: other, payloads }
    }

    /// 20 ms, in which the operator's packet comes `phase` after the caller's.
    fn step(&mut self, phase: Duration) {
        let call = &mut self.call;
        let mut buffer = [0; 1_500];
        let payload = &self.payloads[call.frame % FRAMES];
        let payload_type = self.kind.static_payload_type().unwrap_or(111);
        let (sequence, ssrc) = (call.sequence, 8);
        let timestamp = u32::from(call.sequence) * (self.kind.rtp_clock_hz() / 50);
        RtpHeader { marker: false, payload_type, sequence, timestamp, ssrc }.write(&mut buffer);
        buffer[12..12 + payload.len()].copy_from_slice(payload);
        let packet = &buffer[..12 + payload.len()];
        let end = call.now.later(Duration::from_millis(20));
        let middle = call.now.later(phase);
        call.step(true, true);
        call.now = middle;
        call.session.handle_rtp(call.now, OPERATOR, self.far, packet);
        while let Some(due) = call.session.poll_timeout().filter(|due| *due < end.at) {
            call.now = call.now.later(due.since(call.now.at));
            call.session.handle_timeout(call.now);
            call.drain();
        }
        call.drain();
        call.now = end;
    }
}

/// The longest silence that the caller hears around each switch, over all phases of its packets, where
/// packets of the operator are transcoded, and where they are handed on as they are.
fn silence_at_switches(other: CodecKind) {
    let scenes = [
        ("agent", Scene::new().talking(CALLER_LEG, AGENT)),
        ("music", Scene::new().hearing(CALLER_LEG, Port::Sound).talking(OPERATOR_LEG, AGENT)),
        ("operator", Scene::new().talking(CALLER_LEG, OPERATOR_LEG)),
        (
            "operator and agent",
            Scene::new()
                .talking(CALLER_LEG, OPERATOR_LEG)
                .talking(CALLER_LEG, AGENT)
                .talking(OPERATOR_LEG, AGENT),
        ),
    ];
    for (from, before) in &scenes {
        for (to, after) in scenes.iter().filter(|(to, _)| to != from) {
            let silences = (0..20).map(|phase_ms| silence_at(other, [before, after], phase_ms));
            let (longest, name) = (silences.max().unwrap_or(0), other.encoding_name());
            println!("PCMU and {name}, {from} -> {to}: {longest} ms of silence at most");
        }
    }
}

fn silence_at(other: CodecKind, [before, after]: [&Scene; 2], phase_ms: u64) -> usize {
    let phase = Duration::from_millis(phase_ms);
    let mut room = Room::new(CodecKind::Pcmu, other, before.clone());
    for _ in 0..100 {
        room.step(phase);
    }
    room.call.heard = Some(Vec::new());
    room.step(phase);
    let (session, now) = (&mut room.call.session, room.call.now);
    session.play(now, Some(hold_music()));
    session.arrange(now, after.clone());
    for _ in 0..12 {
        room.step(phase);
    }
    let heard = room.call.heard.unwrap_or_default();
    let (mut longest, mut run) = (0, 0);
    for byte in heard {
        // The silence of the law, and what lies next to it.
        run = if byte & 0x7f >= 0x7c { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest / 8
}

fn rooms(criterion: &mut Criterion) {
    use CodecKind::{G722, Opus, Pcma, Pcmu};
    silence_at_switches(Pcma);
    silence_at_switches(Pcmu);
    let bridged = Scene::new().talking(CALLER_LEG, OPERATOR_LEG);
    let briefing = bridged.clone().talking(CALLER_LEG, AGENT).talking(OPERATOR_LEG, AGENT);
    let mut group = criterion.benchmark_group("a second of three");
    group.throughput(Throughput::Elements(1));
    for (name, kind, other, scene) in [
        ("bridged, G.711 as it is", Pcmu, Pcmu, &bridged),
        ("bridged, G.722 as it is", G722, G722, &bridged),
        ("bridged, Opus as it is", Opus, Opus, &bridged),
        ("bridged, both laws", Pcmu, Pcma, &bridged),
        ("bridged, G.711 and G.722", Pcmu, G722, &bridged),
        ("bridged, G.711 and Opus", Pcmu, Opus, &bridged),
        ("mixed briefing, G.711", Pcmu, Pcmu, &briefing),
    ] {
        let mut room = Room::new(kind, other, scene.clone());
        let second = |room: &mut Room| (0..50).for_each(|_| room.step(Duration::from_millis(7)));
        // Until the packets of legs that never pause are handed on.
        (0..10).for_each(|_| second(&mut room));
        group.bench_function(name, |bencher| bencher.iter(|| second(&mut room)));
    }
    group.finish();
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

criterion_group!(benches, media_session, rooms);
criterion_main!(benches);
