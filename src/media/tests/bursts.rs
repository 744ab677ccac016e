//! Packets lost in a row: what the agent hears in their place sinks, and nothing jumps, in each codec.

use super::*;
use crate::codec::{Encoder, EncoderSettings};

/// Packets before the gap, in it and after it.
const BEFORE: usize = 30;
const LOST: usize = 6;
const AFTER: usize = 14;

/// A voice that says one vowel: harmonics of 150 Hz, the higher the softer.
fn vowel(rate_hz: u32, milliseconds: usize) -> Vec<i16> {
    let sample = |n: usize| {
        let phase = std::f64::consts::TAU * 150.0 * n as f64 / f64::from(rate_hz);
        let harmonic = |k: f64| (k * phase + k * k).sin() * 4_000.0 / k;
        (1..=8).map(|k| harmonic(f64::from(k))).sum::<f64>() as i16
    };
    (0..rate_hz as usize / 1_000 * milliseconds).map(sample).collect()
}

/// What the agent hears of the vowel with a gap, and how much of it was concealed.
fn heard(kind: CodecKind) -> (Vec<i16>, u64) {
    let mut scene = Scene::joined(&plan(kind, 20));
    let rate_hz = kind.pcm_rate(16_000);
    let settings = EncoderSettings { bitrate: Some(32_000), complexity: 9, ..Default::default() };
    let mut encoder = Encoder::with_format(kind, format(kind), rate_hz, settings).unwrap();
    let pcm = vowel(rate_hz, (BEFORE + LOST + AFTER) * 20);
    for (number, frame) in pcm.chunks(rate_hz as usize / 50).enumerate() {
        let mut payload = [0; 400];
        let len = encoder.encode(frame, &mut payload).unwrap();
        scene.run_to(number as u64 * 20);
        let given = Given {
            source: CALLER,
            marker: number == 0,
            payload_type: kind.static_payload_type().unwrap_or(111),
            sequence: number as u16,
            timestamp: number as u32 * kind.rtp_clock_hz() / 50,
            ssrc: 7,
        };
        if !(BEFORE..BEFORE + LOST).contains(&number) {
            scene.give(given, &payload[..len]);
        }
    }
    (scene.heard, scene.session.report().concealed_ms)
}

fn level(pcm: &[i16]) -> f64 {
    let energy: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / pcm.len() as f64).sqrt()
}

fn steepest(pcm: &[i16]) -> u32 {
    let step = |pair: &[i16]| i32::from(pair[0]).abs_diff(i32::from(pair[1]));
    pcm.windows(2).map(step).max().unwrap_or_default()
}

#[test]
fn six_packets_lost_in_a_row_sink_without_a_step_and_the_voice_comes_back() {
    for kind in CodecKind::ALL.into_iter().filter(|kind| is_here(*kind)) {
        let (heard, concealed_ms) = heard(kind);
        let rate_hz = AgentRates::for_codec(kind, 24_000).input_hz as usize;
        let frame = rate_hz / 50;
        assert_eq!(heard.len(), (BEFORE + LOST + AFTER) * frame, "{kind:?}");
        assert_eq!(concealed_ms, 120, "{kind:?}");
        let (steady, rest) = heard[10 * frame..].split_at((BEFORE - 10) * frame);
        let (gap, after) = rest.split_at(LOST * frame);
        let levels: Vec<f64> = gap.chunks(frame).map(level).collect();
        let label = format!("{kind:?}: {:.0} before, {levels:.0?} in the gap", level(steady));
        assert!(levels[0] > level(steady) * 0.6, "{label}");
        assert!(levels.windows(2).all(|pair| pair[1] < pair[0] * 1.05), "{label}");
        assert!(levels[3] > level(steady) * 0.03, "it lasts: {label}");
        assert!(levels[5] < level(steady) * 0.3, "{label}");
        assert!(level(&gap[gap.len() - rate_hz / 1_000..]) < level(steady) * 0.05, "{label}");
        let about = &heard[(BEFORE - 1) * frame..(BEFORE + LOST + 2) * frame];
        let steps = (steepest(steady), steepest(about));
        assert!(steps.1 <= steps.0 * 2, "steps of {steps:?}: {label}");
        let back: Vec<f64> = after.chunks(frame).map(level).collect();
        assert!(back[0] < level(steady) * 1.4, "{back:.0?} {label}");
        let is_near = |back: &f64| (0.7..1.3).contains(&(back / level(steady)));
        // Of a sound that never changes AMR-WB tells no more than that it goes on.
        let is_back = kind == CodecKind::AmrWb || back[3..].iter().all(is_near);
        assert!(is_back, "{back:.0?} {label}");
    }
}
