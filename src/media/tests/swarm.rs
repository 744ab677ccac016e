//! Seeded swarms: a call on a bad network with an erratic agent, and what must hold all the same.

use super::*;

/// One packet on its way.
struct Flying {
    arrives_us: u64,
    given: Given,
    payload: Vec<u8>,
}

/// The caller's packets of `seconds`, with loss, delay, duplication, silence suppression, digits,
/// SSRC changes and stalls drawn from `chance`.
fn flight(chance: &mut Entropy, seconds: u64, kind: CodecKind) -> Vec<Flying> {
    let (loss, jitter_us) = (chance.below(100), chance.below(80_000) + 1);
    let mut flying = Vec::new();
    let (mut ssrc, mut sequence, mut timestamp) = (7, chance.u32() as u16, chance.u32());
    let ticks = kind.rtp_clock_hz() / 50;
    let payload_type = kind.static_payload_type().unwrap_or(111);
    let (mut stalled_until, mut silent_until) = (0, 0);
    for number in 0..seconds * 50 {
        let sent_us = number * 20_000;
        timestamp = timestamp.wrapping_add(ticks);
        match chance.below(400) {
            0 => stalled_until = sent_us + chance.below(900_000),
            1 => silent_until = sent_us + chance.below(3_000_000),
            2 => (ssrc, sequence, timestamp) = (chance.u32(), chance.u32() as u16, chance.u32()),
            3 => timestamp = chance.u32(),
            _ => {}
        }
        if sent_us < silent_until {
            continue;
        }
        sequence = sequence.wrapping_add(1);
        if chance.below(1_000) < loss {
            continue;
        }
        let source = if chance.below(50) == 0 { STRANGER } else { CALLER };
        let given = Given { source, marker: false, payload_type, sequence, timestamp, ssrc };
        for _ in 0..1 + u32::from(chance.below(100) == 0) {
            let late = if chance.below(10) == 0 { chance.below(jitter_us) } else { 0 };
            let arrives_us = (sent_us + late).max(stalled_until);
            let given = match chance.below(200) {
                0 => Given { payload_type: 13, ..given },
                1 => Given { payload_type: 101, ..given },
                2 => Given { payload_type: 99, ..given },
                _ => given,
            };
            let len = if chance.below(100) == 0 { chance.below(400) } else { 160 };
            let payload = (0..len).map(|_| chance.u32() as u8).collect();
            flying.push(Flying { arrives_us, given, payload });
        }
    }
    flying.sort_by_key(|packet| packet.arrives_us);
    flying
}

/// Samples pushed against time. Behind: the largest target and a long packet; ahead: the bound on the
/// surplus.
fn assert_on_time(scene: &Scene, rate_hz: u32, seed: u64) {
    let elapsed = scene.now.at.since(Instant::from_nanos(3_000_000_000)).as_micros() as i64;
    let heard = scene.heard.len() as i64 * 1_000_000 / i64::from(rate_hz);
    let behind = elapsed - heard;
    assert!((-241_000..=261_000).contains(&behind), "seed {seed}: {behind} µs behind");
}

fn assert_paced(scene: &Scene, ticks: u32, seed: u64) {
    for pair in scene.sent.windows(2) {
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "seed {seed}");
        assert!(
            step % ticks == 0 && step / ticks >= 1 && step / ticks < 200,
            "seed {seed}: {step}"
        );
        assert_eq!(pair[1].ssrc, pair[0].ssrc, "seed {seed}");
    }
    let first = &scene.sent[0];
    for sent in &scene.sent {
        let real = sent.at.since(first.at).as_micros() as i64;
        let told = i64::from(sent.timestamp.wrapping_sub(first.timestamp) / ticks) * 20_000;
        assert!((-20_001..=20_000).contains(&(real - told)), "seed {seed}: {real} and {told}");
    }
}

fn call(seed: u64) {
    let mut chance = Entropy::from_number(seed);
    let kinds = [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G722, CodecKind::Opus];
    let kind = if seed % 8 == 7 { CodecKind::Opus } else { kinds[chance.below(3) as usize] };
    let plan = plan(kind, 20);
    let mut scene = Scene::joined(&plan);
    for packet in flight(&mut chance, 20, kind) {
        let at = Instant::from_nanos(3_000_000_000 + packet.arrives_us * 1_000);
        while let Some(next) = scene.session.poll_timeout().filter(|next| *next <= at) {
            scene.now = scene.now.later(next.since(scene.now.at));
            scene.session.handle_timeout(scene.now);
            scene.drain();
        }
        scene.now = scene.now.later(at.since(scene.now.at));
        match chance.below(60) {
            0 => scene.say(&vec![900; chance.below(20_000) as usize]),
            1 => scene.say(&vec![900; chance.below(300) as usize]),
            2 => scene.session.handle_agent_clear(scene.now, StreamId::FIRST),
            3 => scene.session.handle_agent_audio(scene.now, StreamId::FIRST, &[5; 7]),
            _ => {}
        }
        scene.give(packet.given, &packet.payload);
        assert_on_time(&scene, plan.agent.input_hz, seed);
    }
    scene.run_to(21_000);
    assert_on_time(&scene, plan.agent.input_hz, seed);
    assert_paced(&scene, kind.rtp_clock_hz() / 50, seed);
    let report = scene.session.report();
    let spoken = report.agent_played_ms + report.agent_cleared_ms + report.agent_dropped_ms;
    assert!(spoken <= report.agent_received_ms + 3, "seed {seed}: {report:?}");
    assert_eq!((report.frames_late, report.uplink_dropped_frames), (0, 0), "seed {seed}");
}

#[test]
fn three_hundred_calls_on_bad_networks() {
    for seed in 0..320 {
        call(seed);
    }
}
