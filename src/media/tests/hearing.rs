//! The caller's audio to the agent.

use super::*;
use crate::codec::{Encoder, EncoderSettings};
use crate::media::quality::Scale;
use crate::rtp::rtcp::Report;

/// Runs packets "at/number[/timestamp][flag]" (milliseconds; G.711 of 20 ms; the timestamp is number ×
/// 160 unless given; flags: `m` marker, `c` comfort noise, `s` another SSRC, `x` from a stranger) and
/// gives what the agent heard in frames of 20 ms: a packet's number, `~` concealment, `_` silence.
fn hear(script: &str, until: u64) -> String {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    run(&mut scene, script, until);
    render(&scene.heard)
}

fn run(scene: &mut Scene, script: &str, until: u64) {
    for word in script.split_whitespace() {
        let flags = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '/');
        let numbers: Vec<u64> = word[..word.len() - flags.len()]
            .split('/')
            .map(|number| number.parse().expect("a number"))
            .collect();
        let sequence = numbers[1] as u16;
        let timestamp = numbers.get(2).map_or(u32::from(sequence) * 160, |given| *given as u32);
        scene.run_to(numbers[0]);
        let given = Given {
            source: if flags.contains('x') { STRANGER } else { CALLER },
            marker: flags.contains('m'),
            payload_type: if flags.contains('c') { 13 } else { 0 },
            sequence,
            timestamp,
            ssrc: if flags.contains('s') { 8 } else { 7 },
        };
        let payload = [level(sequence).0; 160];
        scene.give(given, if flags.contains('c') { &payload[..1] } else { &payload });
    }
    scene.run_to(until);
}

fn render(heard: &[i16]) -> String {
    let name = |frame: &[i16]| {
        let last = frame[frame.len() - 1];
        if frame.iter().all(|sample| *sample == 0) {
            return "_".to_string();
        }
        // What is made up of a level sinks; it may have another packet's level at its end.
        if frame[frame.len().saturating_sub(4)..].iter().any(|sample| *sample != last) {
            return "~".to_string();
        }
        (1..100).find(|number| level(*number).1 == last).map_or("~".into(), |n| n.to_string())
    };
    heard.chunks(160).map(name).collect::<Vec<_>>().join(" ")
}

/// The silence before a first packet is no whole number of frames; no sample waits for a next packet.
#[test]
fn a_packet_goes_on_whole_wherever_the_clock_stood_when_it_came() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    run(&mut scene, "7/1", 7);
    assert_eq!(scene.heard.len(), 40 + 160, "5 ms of silence and the packet");
    run(&mut scene, "27/2 47/3", 47);
    assert_eq!(scene.heard.len(), 40 + 3 * 160);
}

#[test]
fn ladders() {
    let mut wrong = Vec::new();
    for (what, script, until, heard) in [
        ("in order, at once", "0/1 20/2 40/3", 40, "1 2 3"),
        ("reorder within the target", "0/1 20/3 75/2 76/4", 76, "1 2 3 4"),
        ("loss waits 60 ms, then all at once", "0/1 40/3 60/4 80/5", 99, "1"),
        ("loss is concealed once", "0/1 40/3 60/4 80/5 100/6", 100, "1 ~ 3 4 5 6"),
        ("two lost", "0/1 60/4 80/5 100/6 120/7", 120, "1 ~ ~ 4 5 6 7"),
        ("late after concealment", "0/1 40/3 60/4 80/5 101/2 101/6", 101, "1 ~ 3 4 5 6"),
        ("duplicates", "0/1 0/1 20/2 21/1 40/3 40/3", 40, "1 2 3"),
        ("sequence wrap", "0/65534/0 20/65535/160 40/0/320 60/1/480", 60, "34 35 ~ 1"),
        ("no packets: 120 ms of concealment, then silence", "0/1", 259, "1 ~ ~ ~ ~ ~ ~ _ _"),
        ("comfort noise is silence", "0/1 20/2c", 159, "1 _ _ _"),
        (
            "silence suppression: the timestamps tell the gap",
            "0/1 20/2c 300/3/2560m 320/4/2720",
            320,
            "1 _ _ _ _ _ _ _ _ _ _ _ _ _ _ 3 4",
        ),
        (
            "a stall of 200 ms: all is heard a little late, and a little shorter",
            "0/1 20/2 240/3 240/4 240/5 240/6 240/7 240/8 240/9 240/10 240/11 240/12 240/13 260/14",
            260,
            "1 2 ~ ~ ~ ~ ~ ~ _ 3 4 5 6 7 8 10 11 12 13 14 14",
        ),
        (
            "a stall of 400 ms: what is older than 160 ms is late",
            "0/1 20/2 440/3 440/4 440/5 440/6 440/7 440/8 440/9 440/10 440/11 440/12 440/13 440/14 \
             440/15 440/16 440/17 440/18 440/19 440/20 440/21 440/22 440/23",
            440,
            "1 2 ~ ~ ~ ~ ~ ~ _ _ _ _ _ _ _ _ _ _ _ 12 13 14 15 16 17 19 20 21 22 23 23",
        ),
        (
            "timestamps that stood still over a pause: speech is back within 100 ms",
            "0/1 20/2 400/3 420/4 440/5 460/6 480/7 500/8 520/9 540/10",
            540,
            "1 2 ~ ~ ~ ~ ~ ~ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ 9 10",
        ),
        ("another SSRC in the middle", "0/1 20/2 40/40s 60/41s 80/42s", 80, "1 2 _ 41 42"),
        ("a jump of the timestamps", "0/1 20/2/99999 40/3/100159 60/4/5 80/5/165", 80, "1 2 3 4 5"),
        ("a jump of the sequence", "0/1 20/501 40/502/80320 60/503", 60, "1 _ 2 3"),
        ("a stranger is not heard", "0/1 10/50x 20/2 30/51x 40/3", 40, "1 2 3"),
    ] {
        let got = hear(script, until);
        if got != heard {
            wrong.push(format!("{what}: {script}\n  heard    {got}\n  expected {heard}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Samples pushed against time: never more than the target and a frame behind, nor ahead.
fn assert_on_time(scene: &Scene, at: &str) {
    let behind = behind(scene);
    assert!((-640..=800).contains(&behind), "{at}: {behind} samples behind");
}

fn behind(scene: &Scene) -> i64 {
    let elapsed = Scene::ms(scene.now.at) as i64 * 8;
    elapsed - scene.heard.len() as i64
}

#[test]
fn what_came_before_the_join_flows_at_the_join() {
    let mut scene = Scene::new(&plan(CodecKind::Pcmu, 20));
    run(&mut scene, "0/1 20/2 40/4 60/5 80/6 100/7", 110);
    assert_eq!(render(&scene.heard), "");
    assert_eq!(scene.events, [format!("0:LegHeard {{ leg: LegId(0), source: {CALLER} }}")]);
    scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
    scene.drain();
    run(&mut scene, "120/8 140/9", 140);
    assert_eq!(render(&scene.heard), "1 2 ~ 4 5 6 7 8 9");
}

#[test]
fn a_caller_who_sends_nothing_is_silence_from_the_join() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    for ms in (100..10_000).step_by(100) {
        scene.run_to(ms);
        assert_on_time(&scene, "silence");
    }
    assert!(scene.heard.iter().all(|sample| *sample == 0));
    assert_eq!(scene.session.report().silence_ms, scene.heard.len() as u64 / 8);
}

#[test]
fn a_burst_after_silence_makes_no_surplus() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    run(&mut scene, "0/1 20/2", 2_000);
    let burst: Vec<String> = (3..101).map(|number| format!("2000/{number}")).collect();
    run(&mut scene, &burst.join(" "), 2_000);
    // 160 ms of what is late, less what it was made shorter by.
    assert!((-1_280..=-640).contains(&behind(&scene)), "{}", behind(&scene));
    // The same burst without timestamps to tell its place: the bound on the surplus holds.
    let burst: Vec<String> =
        (101..180).map(|number| format!("4000/{number}/{}", (number - 101) * 160)).collect();
    run(&mut scene, &burst.join(" "), 4_000);
    assert!((-2_160..=-640).contains(&behind(&scene)), "{}", behind(&scene));
    assert!(scene.session.report().packets_late > 100);
}

#[test]
fn hold_is_silence_and_speech_is_back_at_once() {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::joined(&plan);
    run(&mut scene, "0/1 20/2", 30);
    let held = LegPlan { direction: Direction::SendOnly, ..plan.leg.clone() };
    scene.session.change(scene.now, LegId::CALLER, &held).unwrap();
    run(&mut scene, "40/3 60/4", 60_000);
    assert_on_time(&scene, "held");
    assert!(!scene.events.iter().any(|event| event.contains("LegSilent")));
    scene.session.change(scene.now, LegId::CALLER, &plan.leg).unwrap();
    scene.heard.clear();
    run(&mut scene, "60010/5/480160 60030/6/480320", 60_030);
    // The silence before them is no whole number of frames.
    let odd = scene.heard.len() % 160;
    scene.heard.drain(..odd);
    assert_eq!(render(&scene.heard).split(' ').next_back(), Some("6"));
    assert!(render(&scene.heard).ends_with("5 6"), "{}", render(&scene.heard));
}

#[test]
fn packet_times_of_10_to_60_ms_mix() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    let (mut at, mut timestamp) = (0u64, 0u32);
    for number in 0..600u16 {
        let ms = [10u64, 20, 30, 40, 60][usize::from(number) % 5];
        scene.run_to(at);
        scene.give(audio(number, timestamp), &vec![level(1).0; ms as usize * 8]);
        assert_on_time(&scene, "mixed packet times");
        at += ms;
        timestamp += ms as u32 * 8;
    }
    let report = scene.session.report();
    assert_eq!((report.packets_late, report.concealed_ms), (0, 0), "{report:?}");
}

#[test]
fn a_sprayer_injects_nothing_and_gets_nothing() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    for number in 0..100u16 {
        scene.run_to(u64::from(number) * 20);
        scene.give(audio(number, u32::from(number) * 160), &[level(1).0; 160]);
        for spray in 0..1_000u32 {
            let given = Given { source: STRANGER, ..audio(spray as u16, spray * 160) };
            scene.give(given, &[level(77).0; 160]);
        }
    }
    assert!(scene.heard.iter().all(|sample| *sample == level(1).1));
    assert!(scene.sent.iter().all(|sent| sent.to == address(CALLER)));
    assert_eq!(scene.session.report().packets_refused, 100_000);
}

#[test]
fn every_codec_is_heard_in_its_rate() {
    for kind in [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G722, CodecKind::Opus] {
        let plan = plan(kind, 20);
        let mut scene = Scene::joined(&plan);
        let rate_hz = plan.agent.input_hz as usize;
        let mut encoder = Encoder::new(kind, rate_hz as u32, EncoderSettings::default()).unwrap();
        let payload_type = plan.leg.codec.receive_payload_type;
        let ticks = kind.rtp_clock_hz() / 50;
        for number in 0..100u16 {
            scene.run_to(u64::from(number) * 20);
            let pcm: Vec<i16> = (0..rate_hz / 50).map(|n| ((n % 32) as i16 - 16) * 500).collect();
            let mut payload = [0; 400];
            let len = encoder.encode(&pcm, &mut payload).unwrap();
            let given = Given { payload_type, ..audio(number, u32::from(number) * ticks) };
            if number % 10 != 7 {
                scene.give(given, &payload[..len]);
            }
        }
        scene.run_to(2_030);
        assert_eq!(scene.heard.len(), rate_hz * 2, "{kind:?}");
        let loud = scene.heard.iter().filter(|sample| sample.unsigned_abs() > 1_000).count();
        assert!(loud > rate_hz, "{kind:?}: {loud} loud samples");
    }
}

#[test]
fn the_callers_silence_is_told_once_and_again_after_speech() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    run(&mut scene, "0/1 1000/2/8160", 90_000);
    run(&mut scene, "90000/3/720160", 121_000);
    let silent: Vec<&String> =
        scene.events.iter().filter(|event| event.contains("LegSilent")).collect();
    assert_eq!(silent, ["31000:LegSilent { leg: LegId(0) }", "120000:LegSilent { leg: LegId(0) }"]);
}

#[test]
fn a_hold_without_a_sign_of_life_is_told_at_its_bound_and_rtcp_moves_it() {
    let plan = MediaPlan { hold_max: milliseconds(60_000), ..plan(CodecKind::Pcmu, 20) };
    let report = Report { ssrc: 7, sender: None, blocks: &[], cname: "x", bye: false };
    let mut packet = [0; 200];
    let len = report.write(&mut packet).unwrap();
    for direction in [Direction::RecvOnly, Direction::SendOnly, Direction::Inactive] {
        let mut scene = Scene::joined(&plan);
        run(&mut scene, "0/1 20/2", 1_000);
        scene
            .session
            .change(scene.now, LegId::CALLER, &LegPlan { direction, ..plan.leg.clone() })
            .unwrap();
        scene.run_to(31_000);
        scene.session.handle_rtcp(
            scene.now,
            LegId::CALLER,
            address("192.0.2.1:4001"),
            &packet[..len],
        );
        scene.run_to(90_999);
        let told = |scene: &Scene| scene.events.last().unwrap().clone();
        assert!(told(&scene).contains("LegHeard"), "{direction:?}");
        scene.run_to(400_000);
        assert_eq!(told(&scene), "91000:HeldTooLong { leg: LegId(0) }", "{direction:?}");
        let ends = scene.events.iter().filter(|event| event.contains("Held")).count();
        assert_eq!((ends, scene.events.len()), (1, 2), "{direction:?}");
    }
}

#[test]
fn early_media_of_an_outgoing_call_is_kept_and_not_the_agents_to_hear() {
    let plan = MediaPlan { outgoing: true, ..plan(CodecKind::Pcmu, 20) };
    let mut scene = Scene::new(&plan);
    for number in 0..50u16 {
        scene.run_to(u64::from(number) * 20);
        scene.give(audio(number, u32::from(number) * 160), &[0x90; 160]);
    }
    let figures = scene.session.report().early.expect("packets came");
    assert_eq!((figures.packets, figures.heard_ms, figures.sound), (50, 1_000, EarlySound::Other));
    scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
    scene.drain();
    assert!(scene.heard.is_empty(), "nothing of it is in the ring");
    assert!(scene.events.iter().any(|event| event.starts_with("980:EarlyMedia")));
    for number in 50..100u16 {
        scene.run_to(u64::from(number) * 20);
        scene.give(audio(number, u32::from(number) * 160), &[level(7).0; 160]);
    }
    // A frame's time passed between the join and the next packet.
    assert_eq!(scene.heard.len(), 51 * 160);
    assert!(scene.heard[160..].iter().all(|sample| *sample == level(7).1));
    assert!(scene.heard[..160].iter().all(|sample| *sample == 0));
    let report = scene.session.report();
    assert_eq!((report.early, report.packets_received), (Some(figures), 100));
    assert!(scene.session.take_early_media().is_none(), "it was told at the join");
}

#[test]
fn early_media_of_a_call_that_nobody_answers_is_taken_at_its_end() {
    let plan = MediaPlan { outgoing: true, ..plan(CodecKind::Pcmu, 20) };
    let mut scene = Scene::new(&plan);
    assert!(scene.session.take_early_media().is_none());
    let mut scene = Scene::new(&plan);
    scene.give(audio(1, 160), &[0xff; 160]);
    let early = scene.session.take_early_media().expect("a packet came");
    assert_eq!((early.figures.sound, early.mu_law), (EarlySound::Silence, vec![0xff; 160]));
    assert_eq!(early.figures.to_string(), "0.0 s of silence, -100 dBFS");
    assert_eq!(scene.session.report().early, Some(early.figures));
}

fn audio(sequence: u16, timestamp: u32) -> Given {
    let source = CALLER;
    Given { source, marker: false, payload_type: 0, sequence, timestamp, ssrc: 7 }
}

#[test]
fn a_lost_opus_packet_comes_from_the_next_ones_copy() {
    let concealed = |fec| {
        let plan = plan(CodecKind::Opus, 20);
        let mut scene = Scene::joined(&plan);
        let settings = EncoderSettings { fec, bitrate: Some(24_000), ..Default::default() };
        let mut encoder = Encoder::new(CodecKind::Opus, 16_000, settings).unwrap();
        let voice =
            |n: usize| (6_000.0 * (n as f64 * 0.09).sin() * (n as f64 * 0.002).sin()) as i16;
        let pcm: Vec<i16> = (0..16_000 * 4).map(voice).collect();
        for (number, part) in pcm.chunks(320).enumerate() {
            scene.run_to(number as u64 * 20);
            let mut payload = [0; 400];
            let len = encoder.encode(part, &mut payload).unwrap();
            let given = Given { payload_type: 111, ..audio(number as u16, number as u32 * 960) };
            if number % 10 != 5 {
                scene.give(given, &payload[..len]);
            }
        }
        scene.run_to(4_100);
        let report = scene.session.report();
        assert_eq!(report.mos_scale, Scale::Wideband);
        (report.concealed_ms, report.mos_received.expect("packets came"))
    };
    let (without, with) = (concealed(false), concealed(true));
    assert!(without.0 >= 400 && with.0 <= 120, "{without:?} and {with:?}");
    assert!(without.1 < 2.8 && with.1 > 3.7, "what came again was not lost: {without:?}, {with:?}");
}

#[test]
fn a_caller_who_holds_is_not_silent_and_is_watched_anew_after_it() {
    for remote in [plan(CodecKind::Pcmu, 20).leg.remote, RemoteMedia::default()] {
        for direction in [Direction::RecvOnly, Direction::SendOnly, Direction::Inactive] {
            let plan = plan(CodecKind::Pcmu, 20);
            let mut scene = Scene::joined(&plan);
            run(&mut scene, "0/1 20/2", 30);
            scene
                .session
                .change(
                    scene.now,
                    LegId::CALLER,
                    &LegPlan { direction, remote, ..plan.leg.clone() },
                )
                .unwrap();
            scene.run_to(100_000);
            scene.session.change(scene.now, LegId::CALLER, &plan.leg).unwrap();
            scene.run_to(131_000);
            assert_eq!(
                scene.events[1..],
                [
                    "102000:OneWay { leg: LegId(0), verdict: NothingCame }",
                    "130000:LegSilent { leg: LegId(0) }"
                ],
                "{direction:?} {remote:?}"
            );
        }
    }
}

#[test]
fn a_payload_number_like_rtcps_is_audio_where_rtcp_has_its_own_port() {
    for (rtcp_mux, received) in [(false, 2), (true, 1)] {
        let mut plan = plan(CodecKind::Pcmu, 20);
        plan.leg.codec.receive_payload_type = 72;
        plan.leg.remote.rtcp_mux = rtcp_mux;
        let mut scene = Scene::joined(&plan);
        for number in 1..=2 {
            let (payload_type, marker) = (72, number == 1);
            let timestamp = u32::from(number) * 160;
            scene.give(Given { payload_type, marker, ..audio(number, timestamp) }, &[0x85; 160]);
        }
        assert_eq!(scene.session.report().packets_received, received);
    }
}

#[test]
fn packets_of_the_codec_before_are_silence_for_a_second_after_a_change() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    run(&mut scene, "0/1 20/2", 30);
    scene.session.change(scene.now, LegId::CALLER, &plan(CodecKind::Pcma, 20).leg).unwrap();
    run(&mut scene, "40/3", 60);
    scene.give(Given { payload_type: 8, ..audio(4, 480) }, &[0x85; 160]);
    assert_eq!((scene.heard.len(), scene.session.report().concealed_ms), (640, 0));
    scene.run_to(1_030);
    scene.give(audio(5, 640), &[0x85; 160]);
    assert_eq!(scene.session.report().packets_refused, 0);
    scene.run_to(1_031);
    scene.give(audio(6, 800), &[0x85; 160]);
    assert_eq!(scene.session.report().packets_refused, 1);
}

/// Level in −dBov, of µ-law's overload.
fn level_of(pcm: &[i16]) -> f64 {
    let mean = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
    -20.0 * ((mean / pcm.len() as f64).sqrt() / 32_124.0).log10()
}

#[test]
fn a_pause_sounds_as_its_sender_describes_it_until_the_next_word() {
    for kind in [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus] {
        let mut plan = plan(kind, 20);
        plan.leg.pauses.comfort_noise =
            Some(ComfortNoisePlan { send_payload_type: 19, receive_payload_type: 97 });
        for number in [13, 19, 97] {
            let mut scene = Scene::joined(&plan);
            let noise = |sequence, ticks| Given { payload_type: number, ..audio(sequence, ticks) };
            scene.run_to(1_000);
            scene.give(noise(1, 160), &[35, 60]);
            scene.run_to(2_000);
            let silence_ms = scene.session.report().silence_ms;
            assert!(silence_ms > 1_800, "all of it is a pause: {silence_ms}");
            let rate = plan.agent.input_hz as usize;
            let heard = &scene.heard[rate * 3 / 2..];
            assert!((level_of(heard) - 35.0).abs() < 1.5, "{kind:?} {number}: {}", level_of(heard));
            scene.give(noise(2, 160), &[50]);
            scene.run_to(3_000);
            let heard = &scene.heard[rate * 5 / 2..];
            assert!((level_of(heard) - 50.0).abs() < 1.5, "{kind:?} {number}: {}", level_of(heard));
            assert_eq!(scene.session.report().packets_refused, 0);
        }
        let mut scene = Scene::joined(&plan);
        scene.give(Given { payload_type: 98, ..audio(0, 0) }, &[40]);
        assert_eq!(scene.session.report().packets_refused, 1, "a number that means nothing");
    }
}

#[test]
fn noise_ends_with_the_word_that_follows_and_with_a_hold() {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::joined(&plan);
    run(&mut scene, "0/1 20/2", 30);
    scene.give(Given { payload_type: 13, ..audio(3, 480) }, &[40]);
    run(&mut scene, "400/4/3200m 420/5/3360 440/6/3520", 450);
    assert!(render(&scene.heard).ends_with("4 5 6"), "{}", render(&scene.heard));
    scene.run_to(700);
    assert!(render(&scene.heard).ends_with("_ _ _ _"), "a pause of which nothing was told");
    scene.give(Given { payload_type: 13, ..audio(7, 3_680) }, &[40]);
    scene.run_to(900);
    assert!(render(&scene.heard).ends_with("~ ~ ~ ~"), "noise");
    let hold = LegPlan { direction: Direction::SendOnly, ..plan.leg.clone() };
    scene.session.change(scene.now, LegId::CALLER, &hold).unwrap();
    scene.run_to(1_200);
    assert!(render(&scene.heard).ends_with("_ _ _ _"), "hold is silence");
}
