//! What only AMR-WB brings to a session: pauses that the sender tells of, and requests for a mode.

use super::*;
use crate::codec::amr_wb::payload::Payload;
use crate::codec::amr_wb::{Format, Mode, ModeSet, Packing};
use crate::codec::{Encoder, EncoderSettings};
use crate::media::quality::Scale;

const ALIGNED: Format = Format {
    packing: Packing::OctetAligned,
    modes: None,
    every_second_frame: false,
    neighbours_only: false,
};

fn wideband(format: Format) -> MediaPlan {
    let mut plan = plan(CodecKind::AmrWb, 20);
    plan.leg.codec.format = CodecFormat::AmrWb(format);
    plan
}

fn caller(scene: &mut Scene, ms: u64, sequence: u16, payload: &[u8]) {
    scene.run_to(ms);
    let timestamp = ms as u32 * 16;
    let given =
        Given { source: CALLER, marker: false, payload_type: 111, sequence, timestamp, ssrc: 7 };
    scene.give(given, payload);
}

/// Frame type of the first frame.
fn frame_type(payload: &[u8]) -> u8 {
    let payload = Payload::read(Packing::OctetAligned, payload).expect("a payload of ours");
    payload.frames().next().expect("a frame").frame_type()
}

#[test]
fn the_score_is_that_of_the_mode_that_came() {
    if !super::is_here(CodecKind::AmrWb) {
        return;
    }
    for (number, expected) in [(0, 2.92), (2, 4.18), (8, 4.39)] {
        let mut scene = Scene::joined(&wideband(ALIGNED));
        let modes = ModeSet::of(Mode::new(number).into_iter());
        let format = CodecFormat::AmrWb(Format { modes, ..ALIGNED });
        let settings = EncoderSettings::default();
        let mut encoder = Encoder::with_format(CodecKind::AmrWb, format, 16_000, settings).unwrap();
        for frame in 0..50 {
            let mut payload = [0; 70];
            let len = encoder.encode(&[0; 320], &mut payload).unwrap();
            assert_eq!(frame_type(&payload[..len]), number);
            caller(&mut scene, frame * 20, frame as u16, &payload[..len]);
        }
        scene.run_to(1_000);
        let report = scene.session.report();
        assert_eq!((report.mos_scale, report.packets_lost), (Scale::Wideband, 0));
        let score = report.mos_received.expect("packets came");
        assert!((score - expected).abs() < 0.02, "mode {number}: {score}");
    }
}

#[test]
fn a_pause_is_comfort_noise_to_the_agent_and_no_loss() {
    if !super::is_here(CodecKind::AmrWb) {
        return;
    }
    let plan = wideband(ALIGNED);
    let mut scene = Scene::joined(&plan);
    let settings = EncoderSettings { dtx: true, ..EncoderSettings::default() };
    let format = plan.leg.codec.format;
    let mut encoder = Encoder::with_format(CodecKind::AmrWb, format, 16_000, settings).unwrap();
    let mut noise = Entropy::from_number(9);
    let (mut sequence, mut sids) = (0, 0);
    for frame in 0..150u64 {
        let pcm: Vec<i16> = (0..320).map(|_| noise.below(400) as i16 - 200).collect();
        let mut payload = [0; 70];
        let len = encoder.encode(&pcm, &mut payload).unwrap();
        let kind = frame_type(&payload[..len]);
        // A pause sends one SID in eight frames, and nothing else.
        if kind != 15 {
            sequence += 1;
            sids += u32::from(kind == 9);
            caller(&mut scene, frame * 20, sequence, &payload[..len]);
        }
    }
    scene.run_to(3_000);
    let report = scene.session.report();
    assert!(sids > 10, "{sids} SIDs");
    assert_eq!(report.concealed_ms, 0, "{report:?}");
    assert!(report.silence_ms > 1_400, "{report:?}");
    let loudness = |pcm: &[i16]| pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 320.0;
    let quiet = scene.heard[16_000..].chunks_exact(320).filter(|pcm| loudness(pcm) < 100.0).count();
    assert_eq!(quiet, 0, "frames of digital silence among comfort noise");
    assert!(scene.heard.len() >= 46_000, "{}", scene.heard.len());
}

#[test]
fn a_mode_request_of_the_caller_sets_the_mode_of_what_it_hears() {
    if !super::is_here(CodecKind::AmrWb) {
        return;
    }
    let modes = ModeSet::of([0, 2, 8].into_iter().filter_map(Mode::new));
    let mut scene = Scene::heard(&wideband(Format { modes, ..ALIGNED }));
    let speech: Vec<i16> = (0..32_000).map(|n| ((n * 331) % 16_000) as i16 - 8_000).collect();
    scene.say(&speech);
    caller(&mut scene, 400, 1, &[0xF0, 15 << 3 | 4]);
    caller(&mut scene, 800, 2, &[0x20, 15 << 3 | 4]);
    caller(&mut scene, 1_200, 3, &[0xF0, 15 << 3 | 4]);
    scene.run_to(1_400);
    let sent_at = |ms: u64| {
        let packet = scene.sent.iter().find(|sent| Scene::ms(sent.at) >= ms).expect("a packet");
        frame_type(&packet.payload)
    };
    assert_eq!([sent_at(300), sent_at(700), sent_at(840), sent_at(1_300)], [8, 8, 2, 2]);
}

#[test]
fn the_agents_pause_is_told_by_sids_where_that_is_wanted() {
    if !super::is_here(CodecKind::AmrWb) {
        return;
    }
    let mut plan = wideband(ALIGNED);
    plan.leg.pauses.suppress = true;
    let mut scene = Scene::heard(&plan);
    scene.run_to(2_010);
    scene.say(&[4_000; 3_200]);
    scene.run_to(4_000);
    let kinds: Vec<u8> = scene.sent.iter().map(|sent| frame_type(&sent.payload)).collect();
    let (first, rest) = kinds.split_at(16);
    assert_eq!(first[..3], [8, 8, 8], "{kinds:?}");
    assert!(first[3..].iter().all(|kind| *kind == 9), "{kinds:?}");
    assert!(rest[..13].iter().all(|kind| *kind == 8 || *kind == 9), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&9));
    assert!((35..=45).contains(&kinds.len()), "{kinds:?}");
    let first_word = scene.sent.iter().rfind(|sent| sent.marker).expect("a talk spurt");
    assert!((2_010..=2_030).contains(&Scene::ms(first_word.at)), "{first_word:?}");
    let mut decoder =
        Decoder::with_format(CodecKind::AmrWb, plan.leg.codec.format, 16_000).unwrap();
    let mut pcm = [0; 320];
    for sent in &scene.sent[..10] {
        decoder.decode(&sent.payload, &mut pcm).unwrap();
    }
    assert!(decoder.is_pausing());
    decoder.conceal(&mut pcm);
    assert!(pcm.iter().all(|sample| sample.unsigned_abs() < 100), "{pcm:?}");
}
