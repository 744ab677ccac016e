//! Calls over bad networks, drawn from seeds: what the agent hears follows the clock, whatever the
//! network does, and all is as before when the trouble is over.

use super::*;
use crate::codec::{Encoder, EncoderSettings};
use std::collections::VecDeque;

const START: u64 = 3_000_000_000;
const PACKET_US: i64 = 20_000;

/// What a network does to packets while it is bad.
#[derive(Clone, Copy, Default)]
struct Weather {
    /// Of a thousand packets.
    lost: u64,
    /// Losses come in bursts (Gilbert): of a thousand packets so many begin one, of three packets on
    /// average.
    bursts: u64,
    jitter_ms: u64,
    /// Jitter does not change the order.
    ordered: bool,
    /// Of a thousand packets.
    doubled: u64,
    /// Each four seconds nothing comes for so long, and then all at once.
    stall_ms: i64,
    /// The route is longer by so much while the network is bad.
    route_ms: i64,
    /// The sender's clock is fast by so much, always.
    ppm: i64,
}

/// What the sender does in the middle of the trouble.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Steady,
    NewSource,
    /// Its timestamps jump by so many milliseconds.
    Jumps(i32),
    /// It is silent for the second half of each second, its timestamps go on.
    Pauses,
}

/// What holds of a call: percent of its packets that were late, milliseconds made up beyond what was
/// lost, and the largest target, at most.
#[derive(Clone, Copy)]
struct Bounds {
    late_percent: u64,
    made_up_ms: u64,
    target_ms: u32,
}

struct Packet {
    at_us: i64,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    frame: usize,
}

/// A sentence, coded in packets of 20 ms, over and over.
fn sentence(kind: CodecKind) -> Vec<Vec<u8>> {
    let bytes = include_bytes!("../../../fixtures/pcm/sentence_16k.s16le");
    let wide: Vec<i16> =
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let narrow = |pair: &[i16]| ((i32::from(pair[0]) + i32::from(pair[1])) / 2) as i16;
    let rate_hz = kind.pcm_rate(16_000);
    let pcm = if rate_hz == 8_000 { wide.chunks_exact(2).map(narrow).collect() } else { wide };
    let mut encoder = Encoder::new(kind, rate_hz, EncoderSettings::default()).unwrap();
    let coded = pcm.chunks_exact(rate_hz as usize / 50).map(|frame| {
        let mut payload = [0; 400];
        let len = encoder.encode(frame, &mut payload).unwrap();
        payload[..len].to_vec()
    });
    coded.collect()
}

/// The packets of `seconds` by their arrival, with the weather in `bad`. Gives the lost ones too.
fn flight(
    chance: &mut Entropy,
    (seconds, bad): (i64, std::ops::Range<i64>),
    weather: Weather,
    sender: Sender,
    ticks: u32,
) -> (VecDeque<Packet>, u64) {
    let (mut flight, mut lost, mut newest, mut in_burst) = (Vec::new(), 0, 0, false);
    let (mut sequence, mut ssrc, mut jump) = (65_000u16, 7, 0u32);
    let middle = (bad.start + bad.end) / 2 * 50;
    for number in 0..seconds * 50 {
        let sent_us = number * PACKET_US - number * PACKET_US * weather.ppm / 1_000_000;
        if number == middle && sender == Sender::NewSource {
            (ssrc, sequence, jump) = (8, chance.u32() as u16, chance.u32());
        } else if let Sender::Jumps(ms) = sender
            && number == middle
        {
            jump = (i64::from(ms) * i64::from(ticks) / 20) as u32;
        }
        let in_trouble = bad.contains(&(number / 50));
        if sender == Sender::Pauses && in_trouble && number % 50 >= 25 {
            continue;
        }
        sequence = sequence.wrapping_add(1);
        // A route that becomes shorter was longer before.
        let mut at_us = sent_us + 30_000 + (-weather.route_ms).max(0) * 1_000;
        let mut copies = 1;
        if in_trouble {
            in_burst = chance.below(1_000) < if in_burst { 667 } else { weather.bursts };
            if in_burst || chance.below(1_000) < weather.lost {
                lost += 1;
                continue;
            }
            at_us += chance.below(weather.jitter_ms * 1_000 + 1) as i64 + weather.route_ms * 1_000;
            let phase = number % 200 * PACKET_US;
            at_us += (weather.stall_ms * 1_000 - phase).max(0);
            copies += u64::from(chance.below(1_000) < weather.doubled);
        }
        if weather.ordered {
            newest = at_us.max(newest);
            at_us = newest;
        }
        for copy in 0..copies as i64 {
            let timestamp = (number as u32).wrapping_mul(ticks).wrapping_add(jump);
            let at_us = at_us + copy * 7_000;
            flight.push(Packet { at_us, sequence, timestamp, ssrc, frame: number as usize });
        }
    }
    flight.sort_by_key(|packet| packet.at_us);
    (flight.into(), lost)
}

/// What was seen of a call while it ran: how far the agent's audio was behind and ahead of the clock,
/// in milliseconds.
#[derive(Debug, Default)]
struct Seen {
    heard: u64,
    behind_ms: i64,
    ahead_ms: i64,
    last_behind_ms: i64,
}

impl Seen {
    fn look(&mut self, scene: &mut Scene, rate_hz: u32) {
        self.heard += scene.heard.len() as u64;
        scene.heard.clear();
        scene.sent.clear();
        scene.reports.clear();
        let elapsed = scene.now.at.since(Instant::from_nanos(START)).as_micros() as i64 / 1_000;
        self.last_behind_ms = elapsed - (self.heard * 1_000 / u64::from(rate_hz)) as i64;
        self.behind_ms = self.behind_ms.max(self.last_behind_ms);
        self.ahead_ms = self.ahead_ms.max(-self.last_behind_ms);
    }
}

/// Plays a flight into a call.
fn play(kind: CodecKind, coded: &[Vec<u8>], flight: VecDeque<Packet>) -> (MediaReport, Seen) {
    let plan = plan(kind, 20);
    let rate_hz = plan.agent.input_hz;
    let mut scene = Scene::joined(&plan);
    let mut seen = Seen::default();
    let payload_type = kind.static_payload_type().unwrap_or(111);
    for packet in flight {
        let at = Instant::from_nanos(START + packet.at_us as u64 * 1_000);
        while let Some(next) = scene.session.poll_timeout().filter(|next| *next <= at) {
            scene.now = scene.now.later(next.since(scene.now.at));
            scene.session.handle_timeout(scene.now);
            scene.drain();
            seen.look(&mut scene, rate_hz);
        }
        scene.now = scene.now.later(at.since(scene.now.at));
        let Packet { sequence, timestamp, ssrc, frame, .. } = packet;
        let (source, marker) = (CALLER, false);
        let given = Given { source, marker, payload_type, sequence, timestamp, ssrc };
        scene.give(given, &coded[frame % coded.len()]);
        seen.look(&mut scene, rate_hz);
    }
    (scene.session.report(), seen)
}

/// An hour with a sender whose clock is off, and so much jitter.
fn an_hour(kind: CodecKind, ppm: i64, jitter_ms: u64) {
    let weather = Weather { jitter_ms, ppm, ordered: true, ..Weather::default() };
    let mut chance = Entropy::from_number(11);
    let ticks = kind.rtp_clock_hz() / 50;
    let (flight, _) = flight(&mut chance, (3_600, 0..3_600), weather, Sender::Steady, ticks);
    let (report, seen) = play(kind, &sentence(kind), flight);
    let label = format!("{kind:?} {ppm} ppm, {jitter_ms} ms: {seen:?} {report:?}");
    assert_eq!((report.packets_late, report.packets_lost), (0, 0), "{label}");
    // Silence until the first packet came.
    assert_eq!((report.concealed_ms, report.silence_ms / 60), (0, 0), "{label}");
    assert!(seen.behind_ms <= 80 && seen.ahead_ms <= 80, "{label}");
    let moved = report.shortened_ms as i64 - report.lengthened_ms as i64;
    assert!((moved - ppm * 36 / 10).abs() <= 100, "{label}");
    assert!(report.shortened_ms.min(report.lengthened_ms) <= 50, "no to and fro: {label}");
}

#[test]
fn an_hour_of_another_clock_loses_nothing_and_makes_nothing_up() {
    an_hour(CodecKind::Pcmu, 200, 0);
    an_hour(CodecKind::Pcma, -200, 30);
}

#[test]
fn an_hour_of_another_clock_in_g722() {
    an_hour(CodecKind::G722, 200, 30);
    an_hour(CodecKind::G722, -200, 0);
}

#[test]
fn an_hour_of_another_clock_in_opus() {
    an_hour(CodecKind::Opus, -200, 30);
    an_hour(CodecKind::Opus, 200, 0);
}

#[test]
fn an_hour_of_drift_and_loss_conceals_what_was_lost_and_no_more() {
    for ppm in [-50, 50] {
        let weather = Weather { lost: 10, ppm, ..Weather::default() };
        let mut chance = Entropy::from_number(12);
        let (flight, lost) = flight(&mut chance, (3_600, 0..3_600), weather, Sender::Steady, 160);
        let (report, seen) = play(CodecKind::Pcmu, &sentence(CodecKind::Pcmu), flight);
        let label = format!("{ppm} ppm: {seen:?} {report:?}");
        assert_eq!((report.packets_late, report.packets_lost), (0, lost), "{label}");
        assert!(report.concealed_ms + report.silence_ms <= lost * 20 + 60, "{label}");
        assert!(report.concealed_ms >= lost * 19, "{label}");
        assert!(seen.behind_ms <= 80 && seen.ahead_ms <= 80, "{label}");
    }
}

#[test]
fn on_any_network_the_agent_is_kept_on_time_and_all_is_well_again_after_it() {
    let calm = Weather::default();
    let loss = |lost| Weather { lost, ..calm };
    let jitter = |jitter_ms, ordered| Weather { jitter_ms, ordered, ..calm };
    let stalls = |stall_ms| Weather { stall_ms, ordered: true, ..calm };
    let route = |route_ms| Weather { route_ms, ordered: true, ..calm };
    let bounds =
        |late_percent, made_up_ms, target_ms| Bounds { late_percent, made_up_ms, target_ms };
    let steady = Sender::Steady;
    for (name, weather, sender, bounds) in [
        ("calm", calm, steady, bounds(0, 30, 60)),
        ("1 % lost", loss(10), steady, bounds(0, 30, 60)),
        ("3 % lost", loss(30), steady, bounds(0, 30, 60)),
        ("5 % lost", loss(50), steady, bounds(0, 30, 60)),
        ("bursts lost", Weather { bursts: 20, ..calm }, steady, bounds(0, 60, 60)),
        ("30 ms of jitter", jitter(30, true), steady, bounds(0, 30, 60)),
        ("80 ms of jitter", jitter(80, true), steady, bounds(0, 30, 100)),
        ("30 ms, reordered", jitter(30, false), steady, bounds(0, 30, 60)),
        ("80 ms, reordered", jitter(80, false), steady, bounds(1, 200, 100)),
        ("doubled", Weather { doubled: 200, ..calm }, steady, bounds(0, 30, 60)),
        ("stalls of 300 ms", stalls(300), steady, bounds(1, 800, 200)),
        ("stalls of 1 s", stalls(1_000), steady, bounds(6, 4_500, 200)),
        ("60 ms more", route(60), steady, bounds(0, 30, 90)),
        ("60 ms less, and back", route(-60), steady, bounds(0, 100, 90)),
        ("another source", calm, Sender::NewSource, bounds(0, 60, 60)),
        ("timestamps jump forth", calm, Sender::Jumps(7_000), bounds(0, 30, 60)),
        ("timestamps jump back", calm, Sender::Jumps(-7_000), bounds(0, 30, 60)),
        ("timestamps jump a little", calm, Sender::Jumps(300), bounds(0, 30, 60)),
        ("pauses", calm, Sender::Pauses, bounds(0, 10_100, 60)),
        ("pauses and jitter", jitter(30, false), Sender::Pauses, bounds(0, 10_100, 60)),
        (
            "all at once",
            Weather { lost: 30, jitter_ms: 60, doubled: 50, stall_ms: 300, ..calm },
            Sender::NewSource,
            bounds(2, 1_500, 200),
        ),
    ] {
        for seed in 0..4 {
            let mut chance = Entropy::from_number(seed);
            let coded = sentence(CodecKind::Pcmu);
            let (flight, lost) = flight(&mut chance, (75, 10..30), weather, sender, 160);
            let packets = flight.len() as u64;
            let (report, seen) = play(CodecKind::Pcmu, &coded, flight);
            let label = format!("{name}, seed {seed}: lost {lost}, {seen:?} {report:?}");
            let Bounds { late_percent, made_up_ms, target_ms } = bounds;
            assert!(report.packets_late * 100 <= packets * late_percent, "{label}");
            let made_up = report.concealed_ms + report.silence_ms;
            assert!(made_up <= lost * 20 + made_up_ms, "{label}");
            assert!(report.jitter_target_max_us <= target_ms * 1_000, "{label}");
            assert_eq!(report.jitter_target_us, 20_000, "the trouble is over for 45 s: {label}");
            let patience = i64::from(target_ms.max(60)) + 20;
            assert!(seen.behind_ms <= patience && seen.ahead_ms <= 200, "{label}");
            assert!(seen.last_behind_ms.abs() <= 80, "{label}");
        }
    }
}
