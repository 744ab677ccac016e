//! The packet path allocates nothing: a counting allocator watches a session through a thousand
//! frames each way, with loss, reorder, duplicates, digits, comfort noise, reports and clears. It
//! also tells what a session keeps: memory for each call is a bound of the product.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;
use voxedge::codec::resample::Resampler;
use voxedge::codec::{CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, IlbcMode};
use voxedge::ground::{Entropy, LegId, Now, StreamId};
use voxedge::media::MediaSession;
use voxedge::media::plan::*;
use voxedge::media::sound::hold_music;
use voxedge::rtp::packet::RtpHeader;
use voxedge::rtp::rtcp::{Report, SenderInfo};
use voxedge::rtp::srtp::{MasterKey, OVERHEAD_BYTES_MAX, Srtp, Suite};

/// The system's allocator with a count of this thread's calls, and of the bytes that it keeps.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static KEPT_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is being torn down has no counter any more, and nothing to prove.
    let _ = ALLOCATIONS.try_with(|counter| counter.set(counter.get() + 1));
}

/// What is this large the system maps when it is touched, and not before: one page is counted for
/// the playout queue, which keeps a steady stream at its front.
const MAPPED_BYTES: usize = 128 * 1024;
const PAGE_BYTES: i64 = 4 * 1024;

fn keep(size: usize, sign: i64) {
    let bytes = if size < MAPPED_BYTES { size as i64 } else { PAGE_BYTES };
    let _ = KEPT_BYTES.try_with(|kept| kept.set(kept.get() + sign * bytes));
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; each call is passed on")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        keep(layout.size(), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        keep(layout.size(), 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        keep(layout.size(), -1);
        keep(size, 1);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        keep(layout.size(), -1);
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations that `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const FRAMES: u16 = 1_000;

/// In packets of 20 ms.
fn format(kind: CodecKind) -> CodecFormat {
    match kind {
        CodecKind::Ilbc => CodecFormat::Ilbc(IlbcMode::Ms20),
        _ => CodecFormat::Usual,
    }
}

fn plan(kind: CodecKind, agent: AgentRates) -> MediaPlan {
    let payload_type = kind.static_payload_type().unwrap_or(111);
    let rtp: SocketAddr = "192.0.2.1:4000".parse().expect("an address");
    MediaPlan {
        leg: LegPlan {
            codec: CodecPlan {
                kind,
                format: format(kind),
                send_payload_type: payload_type,
                receive_payload_type: payload_type,
                ptime_ms: 20,
                fec: kind == CodecKind::Opus,
            },
            pauses: Default::default(),
            telephone_event: Some(TelephoneEventPlan {
                send_payload_type: 101,
                receive_payload_type: 101,
                clock_hz: kind.rtp_clock_hz(),
            }),
            remote: RemoteMedia { rtp: Some(rtp), rtcp: None, rtcp_mux: true },
            control: Default::default(),
            direction: Direction::SendRecv,
            srtp: None,
            signalling_source: rtp.ip(),
        },
        agent,
        rtp_timeout: Duration::from_secs(30),
        rtcp_only_max: Duration::from_secs(600),
        hold_max: Duration::from_secs(1_800),
        jitter: Default::default(),
        outgoing: false,
        cname: "c7f3a9".into(),
        own: Default::default(),
    }
}

fn tone(rate_hz: u32, samples: usize) -> Vec<i16> {
    let step = std::f64::consts::TAU * 330.0 / f64::from(rate_hz);
    (0..samples).map(|n| (9_000.0 * (step * n as f64).sin()) as i16).collect()
}

/// The caller's packets in the order of their arrival: with loss, reorder, duplicates, a digit and
/// comfort noise now and then.
fn packets(kind: CodecKind, rate_hz: u32) -> Vec<Vec<u8>> {
    let settings = EncoderSettings { fec: true, ..EncoderSettings::default() };
    let encoder = Encoder::with_format(kind, format(kind), rate_hz, settings);
    let mut encoder = encoder.expect("a rate of the codec");
    let frame = rate_hz as usize / 50;
    let pcm = tone(rate_hz, frame * 50);
    let mut packets = Vec::new();
    for number in 0..FRAMES {
        let mut packet = vec![0; 600];
        let start = usize::from(number) % 50 * frame;
        let len = encoder.encode(&pcm[start..start + frame], &mut packet[12..]).expect("a frame");
        let (payload_type, len) = match number % 100 {
            40..45 => (101, 4),
            70 => (13, 1),
            _ => (kind.static_payload_type().unwrap_or(111), len),
        };
        let sampled = if payload_type == 101 { number - number % 100 + 40 } else { number };
        let timestamp = u32::from(sampled) * kind.rtp_clock_hz() / 50;
        let marker = number % 100 == 40;
        RtpHeader { marker, payload_type, sequence: number, timestamp, ssrc: 7 }.write(&mut packet);
        if payload_type == 101 {
            let end = u8::from(number % 100 == 44) << 7;
            packet[12..16].copy_from_slice(&[5, end | 10, 0, 160]);
        }
        packet.truncate(12 + len);
        packets.push(packet);
    }
    for number in (13..usize::from(FRAMES) - 1).step_by(13) {
        match number % 3 {
            0 => packets.swap(number, number + 1),
            1 => packets[number] = packets[number - 1].clone(),
            _ => packets[number].clear(),
        }
    }
    packets
}

/// Whether a codec can be coded here. Its libraries belong to what tests install: where CI=true, one
/// that is missing is a failure.
pub fn is_here(kind: CodecKind) -> bool {
    let is_here = kind.is_available();
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(is_here || !is_ci || kind.packages().is_none(), "{kind:?}: libraries are missing");
    if !is_here {
        eprintln!("skipped: {kind:?} needs libraries that are missing");
    }
    is_here
}

/// Takes all that waits for the first agent.
fn empty(session: &mut MediaSession) {
    let uplink = session.uplink(StreamId::FIRST).expect("the first stream");
    while uplink.pop().is_some() {}
}

/// Frames after which a call has seen all that happens in it.
const SETTLED: usize = 200;

/// Runs a whole call and gives the allocations made inside the session, before and after it has
/// settled, and its report.
fn call(kind: CodecKind, agent: AgentRates) -> ([u64; 2], MediaReport) {
    let plan = plan(kind, agent);
    let packets = packets(kind, kind.pcm_rate(agent.input_hz));
    let speech: Vec<u8> = tone(agent.output_hz, agent.output_hz as usize / 50 * 5)
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    let sender = SenderInfo { ntp: 1 << 40, rtp_timestamp: 0, packets: 0, octets: 0 };
    let report = Report { ssrc: 7, sender: Some(sender), blocks: &[], cname: "x", bye: false };
    let mut control = [0; 64];
    let control_len = report.write(&mut control).expect("it fits");
    let source = plan.leg.remote.rtp.expect("the plan has one");
    let mut now = Now::default();
    let mut session = MediaSession::new(now, &plan, Entropy::from_number(1)).expect("sound");
    session.handle_agent_joined(now, StreamId::FIRST);
    let mut buffer = [0; 1_500];
    let mut counts = [0; 2];
    for (number, packet) in packets.iter().enumerate() {
        counts[usize::from(number >= SETTLED)] += allocations(|| {
            session.handle_rtp(now, LegId::CALLER, source, packet);
            if number % 5 == 0 && number % 200 < 150 {
                session.handle_agent_audio(now, StreamId::FIRST, &speech[number % 2..]);
            }
            if number % 200 == 120 {
                session.handle_agent_clear(now, StreamId::FIRST);
            }
            if number % 250 == 0 {
                session.handle_rtcp(now, LegId::CALLER, source, &control[..control_len]);
            }
            while session.poll_transmit(now, &mut buffer).is_some() {}
            while session.poll_event().is_some() {}
            empty(&mut session);
            now = now.later(Duration::from_millis(20));
            session.handle_timeout(now);
        });
    }
    (counts, session.report())
}

#[test]
fn a_thousand_frames_each_way_allocate_nothing() {
    let rates = |input_hz, output_hz| AgentRates { input_hz, output_hz };
    for (kind, agent) in [
        (CodecKind::Pcmu, rates(8_000, 8_000)),
        (CodecKind::Pcma, rates(8_000, 8_000)),
        (CodecKind::G722, rates(16_000, 16_000)),
        (CodecKind::Opus, rates(16_000, 24_000)),
        (CodecKind::Opus, rates(16_000, 16_000)),
        (CodecKind::Opus, rates(48_000, 48_000)),
        (CodecKind::Opus, rates(8_000, 8_000)),
        // Resampled: the codec was chosen after the stream was made.
        (CodecKind::Pcmu, rates(16_000, 16_000)),
        (CodecKind::Pcma, rates(16_000, 24_000)),
        (CodecKind::Pcmu, rates(48_000, 48_000)),
        (CodecKind::G722, rates(8_000, 8_000)),
        (CodecKind::G722, rates(24_000, 48_000)),
        (CodecKind::Ilbc, rates(8_000, 8_000)),
        (CodecKind::Ilbc, rates(16_000, 16_000)),
        (CodecKind::G7221, rates(16_000, 16_000)),
        (CodecKind::G7221, rates(48_000, 8_000)),
        (CodecKind::AmrWb, rates(16_000, 16_000)),
        (CodecKind::AmrWb, rates(8_000, 24_000)),
    ] {
        if !is_here(kind) {
            continue;
        }
        let ([first, later], report) = call(kind, agent);
        assert_eq!(later, 0, "{kind:?} {agent:?}");
        // The first gap takes its room, which grows for the first few.
        assert!(first <= 16, "{kind:?} {agent:?}: {first}");
        // The call was a real one: everything that is watched did happen.
        assert!(report.packets_received > 900 && report.packets_sent > 990, "{report:?}");
        assert!(report.packets_duplicate > 0 && report.packets_lost > 0, "{report:?}");
        assert!(report.concealed_ms > 0 && report.silence_ms > 0, "{report:?}");
        assert!(report.agent_played_ms > 8_000 && report.agent_cleared_ms > 0, "{report:?}");
        assert_eq!(report.digits, 10, "{report:?}");
    }
}

/// From one codec's payloads to another's: decoder, resampler where rates differ, encoder.
struct Bridge {
    decoder: Decoder,
    resampler: Option<Resampler>,
    encoder: Encoder,
    pcm: Vec<i16>,
    frame: usize,
}

impl Bridge {
    fn new(from: CodecKind, to: CodecKind) -> Bridge {
        let (from_hz, to_hz) = (from.pcm_rate(48_000), to.pcm_rate(48_000));
        let settings = EncoderSettings::default();
        let resampler = (from_hz != to_hz)
            .then(|| Resampler::continuous(from_hz, to_hz).expect("rates of codecs"));
        Bridge {
            decoder: Decoder::with_format(from, format(from), from_hz).expect("its own rate"),
            resampler,
            encoder: Encoder::with_format(to, format(to), to_hz, settings).expect("its own rate"),
            pcm: Vec::with_capacity(8 * 960),
            frame: to_hz as usize / 50,
        }
    }

    /// Takes a payload, or a gap of a frame; gives the payloads that it fills.
    fn carry(&mut self, payload: Option<&[u8]>, out: &mut [u8]) -> usize {
        let (mut decoded, mut resampled) = ([0; 2_880], [0; 2_880]);
        let count = match payload {
            Some(payload) => self.decoder.decode(payload, &mut decoded).expect("a payload of ours"),
            None => {
                self.decoder.conceal(&mut decoded[..160]);
                160
            }
        };
        match &mut self.resampler {
            None => self.pcm.extend_from_slice(&decoded[..count]),
            Some(resampler) => {
                let grown = resampler.resample(&decoded[..count], &mut resampled);
                self.pcm.extend_from_slice(&resampled[..grown.expect("there is room")]);
            }
        }
        let mut sent = 0;
        while self.pcm.len() >= self.frame {
            let len = self.encoder.encode(&self.pcm[..self.frame], out).expect("a whole frame");
            assert!(len > 0);
            self.pcm.drain(..self.frame);
            sent += 1;
        }
        sent
    }
}

#[test]
fn every_pair_of_codecs_is_bridged_without_an_allocation() {
    let here: Vec<CodecKind> = CodecKind::ALL.into_iter().filter(|kind| is_here(*kind)).collect();
    for from in here.iter().copied() {
        let rate_hz = from.pcm_rate(48_000);
        let settings = EncoderSettings::default();
        let mut encoder = Encoder::with_format(from, format(from), rate_hz, settings).expect("ok");
        let payloads: Vec<Vec<u8>> = tone(rate_hz, rate_hz as usize)
            .chunks_exact(rate_hz as usize / 50)
            .map(|frame| {
                let mut payload = [0; 400];
                let len = encoder.encode(frame, &mut payload).expect("a whole frame");
                payload[..len].to_vec()
            })
            .collect();
        for to in here.iter().copied() {
            let mut bridge = Bridge::new(from, to);
            let (mut out, mut sent) = ([0; 400], 0);
            // The first gap takes its room.
            bridge.carry(Some(&payloads[0]), &mut out);
            bridge.carry(None, &mut out);
            let made = allocations(|| {
                for (number, payload) in payloads.iter().cycle().take(200).enumerate() {
                    let payload = (number % 17 != 3).then_some(payload.as_slice());
                    sent += bridge.carry(payload, &mut out);
                }
            });
            assert_eq!(made, 0, "{from:?} to {to:?}");
            assert!(sent > 180, "{from:?} to {to:?}: {sent} packets of 200");
        }
    }
}

const OPERATOR: LegId = LegId(1);

/// Runs a call of a caller, an operator and an agent, arranged as `scene` says, and gives the
/// allocations made once it has settled, and the reports of both legs.
fn call_of_three(
    (kind, other): (CodecKind, CodecKind),
    agent: AgentRates,
    scene: Scene,
) -> (u64, [MediaReport; 2]) {
    let plan = plan(kind, agent);
    let (mut operator, source) = (self::plan(other, agent).leg, plan.leg.remote.rtp);
    let far: SocketAddr = "192.0.2.2:4000".parse().expect("an address");
    (operator.remote.rtp, operator.signalling_source) = (Some(far), far.ip());
    if kind != other {
        operator.telephone_event = None;
    }
    let sides = [
        (LegId::CALLER, source.expect("the plan has one"), packets(kind, kind.pcm_rate(8_000))),
        (OPERATOR, far, packets(other, other.pcm_rate(8_000))),
    ];
    let speech: Vec<u8> = tone(agent.output_hz, agent.output_hz as usize / 50 * 5)
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    let mut now = Now::default();
    let mut session = MediaSession::new(now, &plan, Entropy::from_number(1)).expect("sound");
    session.handle_agent_joined(now, StreamId::FIRST);
    session.open_leg(now, OPERATOR, &operator, Entropy::from_number(2)).expect("a place");
    session.play(now, Some(hold_music()));
    session.arrange(now, scene);
    let mut buffer = [0; 1_500];
    let mut later = 0;
    for number in 0..usize::from(FRAMES) {
        let count = allocations(|| {
            for (leg, source, packets) in &sides {
                session.handle_rtp(now, *leg, *source, &packets[number]);
            }
            if number % 5 == 0 {
                session.handle_agent_audio(now, StreamId::FIRST, &speech);
            }
            while session.poll_transmit(now, &mut buffer).is_some() {}
            while session.poll_event().is_some() {}
            empty(&mut session);
            now = now.later(Duration::from_millis(20));
            session.handle_timeout(now);
        });
        later += if number < SETTLED { 0 } else { count };
    }
    let caller = session.report();
    (later, [caller, session.close_leg(now, OPERATOR).expect("its leg")])
}

#[test]
fn a_thousand_frames_of_bridged_and_mixed_calls_allocate_nothing() {
    let rates = |hz| AgentRates { input_hz: hz, output_hz: hz };
    let (caller, operator) = (Port::Leg(LegId::CALLER), Port::Leg(OPERATOR));
    let agent = Port::Agent(StreamId::FIRST);
    let bridged = Scene::new().talking(caller, operator);
    let mixed = bridged.clone().talking(caller, agent).talking(operator, agent);
    let waiting = Scene::new().hearing(caller, Port::Sound).talking(operator, agent);
    use CodecKind::{G722, Opus, Pcma, Pcmu};
    for pair in [(Pcmu, Pcma), (Pcmu, G722), (G722, Opus), (Opus, Pcmu)] {
        for scene in [&bridged, &mixed, &waiting] {
            for hz in [8_000, 16_000] {
                check_call_of_three(pair, rates(hz), scene, 990);
            }
        }
    }
    // Packets are handed on as they are, soon: with the gaps of their source, its keys and pauses.
    for kind in [Pcmu, G722, Opus] {
        check_call_of_three((kind, kind), rates(16_000), &bridged, 800);
    }
}

fn check_call_of_three(
    pair: (CodecKind, CodecKind),
    agent: AgentRates,
    scene: &Scene,
    sent_min: u64,
) {
    let (later, reports) = call_of_three(pair, agent, scene.clone());
    assert_eq!(later, 0, "{pair:?} {agent:?} {scene:?}");
    for report in reports {
        assert!(report.packets_received > 900, "{pair:?} {report:?}");
        assert!(report.packets_sent > sent_min, "{pair:?} {report:?}");
    }
}

/// Bytes that a session and its ring keep: quiet, in speech both ways, and after loss. What the Opus
/// library allocates itself (its states, some 30 KiB) is not seen here.
fn kept(kind: CodecKind, agent: AgentRates) -> [i64; 3] {
    let plan = plan(kind, agent);
    let mut packets = packets(kind, kind.pcm_rate(agent.input_hz));
    let source = plan.leg.remote.rtp.expect("the plan has one");
    let mut now = Now::default();
    let before = KEPT_BYTES.with(Cell::get);
    let kept = || KEPT_BYTES.with(Cell::get) - before;
    let mut session = MediaSession::new(now, &plan, Entropy::from_number(1)).expect("sound");
    session.handle_agent_joined(now, StreamId::FIRST);
    let itself = size_of::<MediaSession>() as i64;
    let mut figures = [kept() + itself, 0, 0];
    let speech = [0x11; 9_600];
    let frame = agent.output_hz as usize / 50 * 2;
    let mut buffer = [0; 1_500];
    for (number, packet) in packets.iter_mut().enumerate() {
        if number < 10 {
            session.handle_rtp(now, LegId::CALLER, source, packet);
        } else if number == 13 {
            figures[1] = kept() + itself;
        } else if number > 13 {
            session.handle_rtp(now, LegId::CALLER, source, packet);
        }
        session.handle_agent_audio(now, StreamId::FIRST, &speech[..frame.min(speech.len())]);
        while session.poll_transmit(now, &mut buffer).is_some() {}
        while session.poll_event().is_some() {}
        empty(&mut session);
        now = now.later(Duration::from_millis(20));
        session.handle_timeout(now);
    }
    figures[2] = kept() + itself;
    figures
}

#[test]
fn what_a_session_keeps() {
    let rates = |hz| AgentRates { input_hz: hz, output_hz: hz };
    for (kind, agent, talking_max, lossy_max) in [
        (CodecKind::Pcmu, rates(8_000), 9 * 1024, 12 * 1024),
        (CodecKind::Pcmu, rates(16_000), 10 * 1024, 15 * 1024),
        (CodecKind::G722, rates(16_000), 14 * 1024, 19 * 1024),
        (CodecKind::Opus, AgentRates { input_hz: 16_000, output_hz: 24_000 }, 11 * 1024, 15 * 1024),
    ] {
        let [quiet, talking, lossy] = kept(kind, agent);
        println!("{kind:?} {agent:?}: {quiet} quiet, {talking} talking, {lossy} after loss");
        assert!(quiet.max(talking) < talking_max, "{kind:?}: {quiet} {talking}");
        assert!(lossy < lossy_max, "{kind:?}: {lossy} after loss");
    }
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1, 2, 3]))), 1);
}

#[test]
fn encryption_allocates_nothing() {
    let agent = AgentRates { input_hz: 8_000, output_hz: 8_000 };
    for suite in Suite::ALL {
        let mut entropy = Entropy::from_number(1);
        let [send, receive] = [(); 2].map(|()| MasterKey::draw(suite, &mut entropy));
        let mut far = Srtp::new(&receive, &send, None);
        let mut plan = plan(CodecKind::Pcmu, agent);
        plan.leg.srtp = Some(SrtpPlan { send, receive, mki: None });
        let source = plan.leg.remote.rtp.expect("the plan has one");
        let mut now = Now::default();
        let mut session = MediaSession::new(now, &plan, Entropy::from_number(1)).expect("sound");
        session.handle_agent_joined(now, StreamId::FIRST);
        let mut buffer = [0; 1_500];
        let mut counts = [0; 2];
        for number in 0..FRAMES {
            let mut packet = [0; 172 + OVERHEAD_BYTES_MAX];
            let (payload_type, timestamp) = (0, u32::from(number) * 160);
            let header =
                RtpHeader { marker: false, payload_type, sequence: number, timestamp, ssrc: 7 };
            header.write(&mut packet);
            let len = far.protect_rtp(&mut packet, 172).expect("it fits");
            counts[usize::from(usize::from(number) >= SETTLED)] += allocations(|| {
                session.handle_rtp(now, LegId::CALLER, source, &packet[..len]);
                session.handle_rtp(now, LegId::CALLER, source, &packet[..len]);
                while session.poll_transmit(now, &mut buffer).is_some() {}
                while session.poll_event().is_some() {}
                empty(&mut session);
                now = now.later(Duration::from_millis(20));
                session.handle_timeout(now);
            });
        }
        let report = session.report();
        assert_eq!(counts[1], 0, "{suite:?}");
        assert_eq!(report.srtp_failures, u64::from(FRAMES), "each came twice");
        assert_eq!(report.packets_received, u64::from(FRAMES));
        assert!(report.packets_sent > 900, "{suite:?}: {report:?}");
    }
}
