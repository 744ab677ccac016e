//! A leg whose codec has another rate than the agent's stream, from the start or after a change.

use super::*;
use crate::codec::{Encoder, EncoderSettings};

const KINDS: [CodecKind; 7] = CodecKind::ALL;

fn planned(kind: CodecKind, hz: u32) -> MediaPlan {
    MediaPlan { agent: AgentRates { input_hz: hz, output_hz: hz }, ..plan(kind, 20) }
}

fn tone(hz: f64, rate_hz: u32, milliseconds: usize) -> Vec<i16> {
    let step = std::f64::consts::TAU * hz / f64::from(rate_hz);
    let samples = rate_hz as usize / 1_000 * milliseconds;
    (0..samples).map(|n| (8_000.0 * (step * n as f64).sin()) as i16).collect()
}

/// Rising zero crossings in each second: the pitch of a tone.
fn pitch(pcm: &[i16], rate_hz: u32) -> f64 {
    let rises = pcm.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
    rises as f64 * f64::from(rate_hz) / pcm.len() as f64
}

fn loudness(pcm: &[i16]) -> f64 {
    let energy: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / pcm.len() as f64).sqrt()
}

/// What the caller hears of packets `sent`, by their payload numbers.
fn heard_by_caller(sent: &[Sent], kind: CodecKind) -> (Vec<i16>, u32) {
    let rate_hz = kind.pcm_rate(48_000);
    let mut decoder = Decoder::with_format(kind, format(kind), rate_hz).unwrap();
    let mut heard = Vec::new();
    for packet in sent {
        let mut pcm = [0; 2_880];
        let count = decoder.decode(&packet.payload, &mut pcm).unwrap();
        heard.extend_from_slice(&pcm[..count]);
    }
    (heard, rate_hz)
}

/// Packets of a tone by a caller, one each 20 ms from `from_ms`, numbered from `first`.
fn call_in(scene: &mut Scene, kind: CodecKind, (from_ms, first): (u64, u16), packets: u16) {
    let rate_hz = kind.pcm_rate(48_000);
    let settings = EncoderSettings::default();
    let mut encoder = Encoder::with_format(kind, format(kind), rate_hz, settings).unwrap();
    let pcm = tone(500.0, rate_hz, usize::from(packets) * 20);
    for (number, frame) in (0..packets).zip(pcm.chunks(rate_hz as usize / 50)) {
        let mut payload = [0; 400];
        let len = encoder.encode(frame, &mut payload).unwrap();
        scene.run_to(from_ms + u64::from(number) * 20);
        let sequence = first + number;
        let timestamp = u32::from(sequence) * kind.rtp_clock_hz() / 50;
        let payload_type = kind.static_payload_type().unwrap_or(111);
        let (source, ssrc, marker) = (CALLER, 7, false);
        let given = Given { source, marker, payload_type, sequence, timestamp, ssrc };
        scene.give(given, &payload[..len]);
    }
}

#[test]
fn the_agent_hears_every_codec_at_every_rate_in_pitch_and_to_the_sample() {
    for kind in KINDS.into_iter().filter(|kind| is_here(*kind)) {
        for hz in [8_000, 16_000, 24_000, 48_000] {
            let mut scene = Scene::joined(&planned(kind, hz));
            call_in(&mut scene, kind, (0, 1), 100);
            assert_eq!(scene.heard.len(), hz as usize * 2, "{kind:?} at {hz} Hz");
            let settled = &scene.heard[hz as usize / 5..];
            let (heard, level) = (pitch(settled, hz), loudness(settled));
            assert!((heard - 500.0).abs() < 3.0, "{kind:?} at {hz} Hz: {heard} Hz");
            assert!((5_000.0..6_300.0).contains(&level), "{kind:?} at {hz} Hz: {level}");
            let report = scene.session.report();
            assert_eq!((report.concealed_ms, report.silence_ms), (0, 0), "{kind:?} at {hz} Hz");
        }
    }
}

#[test]
fn what_is_missing_is_filled_at_every_rate() {
    for (kind, hz) in [(CodecKind::Pcmu, 16_000), (CodecKind::G722, 24_000)] {
        let mut scene = Scene::joined(&planned(kind, hz));
        call_in(&mut scene, kind, (0, 1), 50);
        scene.run_to(2_000);
        let report = scene.session.report();
        let made_up = report.concealed_ms + report.silence_ms;
        assert!((900..=1_000).contains(&made_up) && report.concealed_ms == 120, "{report:?}");
        let seconds = scene.heard.len() as f64 / f64::from(hz);
        assert!((1.92..=2.0).contains(&seconds), "{kind:?} at {hz} Hz: {seconds} s");
    }
}

#[test]
fn the_caller_hears_every_rate_in_every_codec_whole() {
    for kind in KINDS.into_iter().filter(|kind| is_here(*kind)) {
        for hz in [8_000, 16_000, 24_000, 48_000] {
            let mut scene = Scene::heard(&planned(kind, hz));
            let speech = tone(500.0, hz, 1_000);
            // In pieces as a network brings them, all ahead of time.
            for piece in speech.chunks(hz as usize / 50 + 7) {
                scene.say(piece);
            }
            scene.run_to(1_500);
            let report = scene.session.report();
            assert_eq!(report.agent_received_ms, 1_000, "{kind:?} at {hz} Hz");
            assert_eq!(report.agent_played_ms, 1_000, "{kind:?} at {hz} Hz: {report:?}");
            let spurt = scene.sent.iter().skip_while(|sent| !sent.marker).take(50);
            let spurt: Vec<Sent> = spurt.cloned().collect();
            let (heard, rate_hz) = heard_by_caller(&spurt, kind);
            let middle = &heard[rate_hz as usize / 10..rate_hz as usize * 9 / 10];
            let (heard, level) = (pitch(middle, rate_hz), loudness(middle));
            assert!((heard - 500.0).abs() < 3.0, "{kind:?} at {hz} Hz: {heard} Hz");
            assert!((5_000.0..6_300.0).contains(&level), "{kind:?} at {hz} Hz: {level}");
        }
    }
}

#[test]
fn frames_that_come_one_by_one_are_played_without_a_seam() {
    let mut scene = Scene::heard(&planned(CodecKind::Pcmu, 16_000));
    for (number, frame) in tone(500.0, 16_000, 1_000).chunks(320).enumerate() {
        scene.run_to(25 + number as u64 * 20);
        scene.say(frame);
    }
    scene.run_to(1_500);
    let markers: Vec<u64> =
        scene.sent.iter().filter(|sent| sent.marker).map(|sent| Scene::ms(sent.at)).collect();
    assert_eq!(markers, [48], "one spurt; the filter keeps 3 ms back, which the start waits for");
    let spurt: Vec<Sent> =
        scene.sent.iter().skip_while(|sent| !sent.marker).take(50).cloned().collect();
    let (heard, rate_hz) = heard_by_caller(&spurt, CodecKind::Pcmu);
    let middle = &heard[160..heard.len() - 160];
    let step = std::f64::consts::TAU * 500.0 / f64::from(rate_hz);
    // µ-law's own noise is 38 dB down; a seam would be a step of thousands.
    for (n, sample) in middle.iter().enumerate() {
        let wanted = 8_000.0 * (step * (n + 160) as f64).sin();
        assert!((f64::from(*sample) - wanted).abs() < 300.0, "{n}: {sample} for {wanted:.0}");
    }
    assert_eq!(scene.session.report().agent_played_ms, 1_000);
}

#[test]
fn a_clear_forgets_what_the_filter_keeps_back() {
    let mut scene = Scene::heard(&planned(CodecKind::Pcmu, 16_000));
    scene.say(&tone(500.0, 16_000, 200));
    scene.run_to(90);
    scene.session.handle_agent_clear(scene.now, StreamId::FIRST);
    let before = scene.sent.len();
    scene.run_to(300);
    scene.say(&vec![0; 1_600]);
    scene.run_to(600);
    assert!(scene.sent[before..].iter().any(|sent| sent.marker), "silence was spoken");
    let all = scene.sent[before..].iter().flat_map(|sent| &sent.payload);
    assert_eq!(all.filter(|byte| **byte != 0xff).count(), 0);
    let report = scene.session.report();
    let accounted = report.agent_played_ms + report.agent_cleared_ms;
    assert_eq!((accounted, report.agent_received_ms), (300, 300), "{report:?}");
}

#[test]
fn a_change_of_codec_keeps_the_words_that_wait() {
    for (from, hz, to) in [
        (CodecKind::Opus, 24_000, CodecKind::Pcmu),
        (CodecKind::G722, 16_000, CodecKind::Pcma),
        (CodecKind::Pcmu, 8_000, CodecKind::Opus),
        (CodecKind::Pcma, 8_000, CodecKind::G722),
        (CodecKind::Opus, 24_000, CodecKind::G722),
        (CodecKind::Pcmu, 16_000, CodecKind::Pcma),
    ] {
        let mut scene = Scene::heard(&planned(from, hz));
        scene.say(&tone(500.0, hz, 1_000));
        scene.run_to(410);
        let before = scene.sent.len();
        scene.session.change(scene.now, LegId::CALLER, &plan(to, 20).leg).unwrap();
        scene.run_to(1_500);
        let report = scene.session.report();
        let counts = (report.agent_received_ms, report.agent_played_ms, report.agent_dropped_ms);
        assert_eq!(counts, (1_000, 1_000, 0), "{from:?} to {to:?}");
        let (heard, rate_hz) = heard_by_caller(&scene.sent[before..], to);
        let middle = &heard[rate_hz as usize / 20..rate_hz as usize / 2];
        let (heard, level) = (pitch(middle, rate_hz), loudness(middle));
        assert!((heard - 500.0).abs() < 4.0, "{from:?} to {to:?}: {heard} Hz");
        assert!((5_000.0..6_300.0).contains(&level), "{from:?} to {to:?}: {level}");
    }
}

#[test]
fn a_long_answer_fits_into_the_wider_form_too() {
    let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
    for _ in 0..28 {
        scene.say(&tone(500.0, 8_000, 1_000));
    }
    scene.session.change(scene.now, LegId::CALLER, &plan(CodecKind::G722, 20).leg).unwrap();
    assert_eq!(scene.session.report().agent_dropped_ms, 0);
    scene.run_to(29_000);
    let report = scene.session.report();
    assert_eq!((report.agent_played_ms, report.agent_dropped_ms), (28_000, 0));
}

#[test]
fn the_caller_is_heard_through_changes_of_codec_and_no_time_is_lost() {
    let mut scene = Scene::joined(&planned(CodecKind::Opus, 16_000));
    let mut first = 1;
    let changes = [CodecKind::Pcmu, CodecKind::G722, CodecKind::Pcma, CodecKind::Opus];
    call_in(&mut scene, CodecKind::Opus, (0, first), 50);
    for (round, kind) in (1..).zip(changes) {
        first += 50;
        scene.run_to(round * 1_000 - 1);
        scene.session.change(scene.now, LegId::CALLER, &plan(kind, 20).leg).unwrap();
        call_in(&mut scene, kind, (round * 1_000, first), 50);
    }
    let samples = 16_000 * 5;
    let missing = samples - scene.heard.len() as i64;
    assert!((0..=1_600).contains(&missing), "{missing} samples of five seconds are missing");
    for (second, heard) in scene.heard.chunks(16_000).enumerate() {
        let settled = &heard[4_000..12_000];
        let pitch = pitch(settled, 16_000);
        assert!((pitch - 500.0).abs() < 4.0, "second {second}: {pitch} Hz");
    }
}

#[test]
fn a_rate_that_nobody_knows_is_refused() {
    let fault = |hz| {
        let now = Now::default();
        MediaSession::new(now, &planned(CodecKind::Pcmu, hz), Entropy::from_number(1)).is_err()
    };
    assert_eq!([8_000, 44_100, 0].map(fault), [false, true, true]);
}
