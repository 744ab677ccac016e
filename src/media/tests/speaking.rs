//! The agent's audio to the caller.

use super::*;
use crate::codec::OpusFormat;
use crate::rtp::rtcp::Report;

const WORD: i16 = 5_000;

/// What was sent, as "at kind": `s` silence, `W` speech, `m` a marker before it; a timestamp that
/// does not follow by one frame is written as the frames that it is ahead.
fn render(sent: &[Sent]) -> String {
    let mut words = Vec::new();
    let mut last: Option<&Sent> = None;
    for packet in sent {
        let silent = packet.payload.iter().all(|byte| *byte == 0xff);
        let mut word = format!("{}", Scene::ms(packet.at));
        if let Some(last) = last {
            assert_eq!(packet.sequence, last.sequence.wrapping_add(1), "the sequence goes on");
            assert_eq!(packet.ssrc, last.ssrc);
            let ticks = packet.timestamp.wrapping_sub(last.timestamp);
            assert_eq!(ticks % 160, 0);
            if ticks != 160 {
                word.push_str(&format!("+{}", ticks / 160));
            }
        }
        word.push_str(if packet.marker { "m" } else { "" });
        word.push_str(if silent { "s" } else { "W" });
        words.push(word);
        last = Some(packet);
    }
    words.join(" ")
}

/// Runs "at:what" steps (milliseconds): a number gives so many milliseconds of speech to the
/// session, `clear`, `close`, `sleep` (nobody calls till the next step), `hold`, `resume`.
fn speak(script: &str, until: u64) -> Scene {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::heard(&plan);
    let mut asleep = false;
    for step in script.split_whitespace() {
        let (at, what) = step.split_once(':').expect("at:what");
        let at = at.parse().expect("milliseconds");
        if asleep {
            scene.sleep_to(at)
        } else {
            scene.run_to(at)
        }
        asleep = what == "sleep";
        let hold = LegPlan { direction: Direction::Inactive, ..plan.leg.clone() };
        match what {
            "clear" => scene.session.handle_agent_clear(scene.now, StreamId::FIRST),
            "close" => scene.session.handle_agent_closed(
                scene.now,
                StreamId::FIRST,
                AgentClose::Code(1000),
            ),
            "hold" => scene.session.change(scene.now, LegId::CALLER, &hold).unwrap(),
            "resume" => scene.session.change(scene.now, LegId::CALLER, &plan.leg).unwrap(),
            "sleep" => {}
            ms => scene.say(&vec![WORD; ms.parse::<usize>().expect("milliseconds") * 8]),
        }
        scene.drain();
    }
    scene.run_to(until);
    scene
}

#[test]
fn ladders() {
    let mut wrong = Vec::new();
    for (what, script, until, ladder) in [
        ("silence from the join", "", 60, "0s 20s 40s 60s"),
        ("a burst starts at once, in its own phase", "25:60", 120, "0s 20s 25mW 45W 65W 85s 120s"),
        (
            "one by one: the first waits one frame",
            "25:20 45:20 65:20",
            140,
            "0s 20s 40s 45mW 65W 85W 105s 140s",
        ),
        (
            "an underrun makes the next start wait longer",
            "25:20 45:20 110:20 400:20 420:20 440:20",
            500,
            "0s 20s 40s 45mW 65W 85s 120s 140s 150mW 170s 200s 220s 240s 260s 280s 300s 320s 340s \
             360s 380s 400s 420s 440mW 460W 480W 500s",
        ),
        ("a short word is played", "25:5", 100, "0s 20s 40s 45mW 65s 100s"),
        ("clear within one frame", "25:200 70:clear", 120, "0s 20s 25mW 45W 65W 100s 120s"),
        (
            "words after a clear",
            "25:200 70:clear 75:60",
            160,
            "0s 20s 25mW 45W 65W 80mW 100W 120W 140s",
        ),
        (
            "a late wake skips, never bursts",
            "25:200 46:sleep 131:0",
            240,
            "0s 20s 25mW 45W 131+4W 145W 165W 185W 205W 225s",
        ),
        ("a late wake in silence", "25:sleep 131:0", 180, "0s 20s 131+5s 140s 160s 180s"),
        ("hold keeps the time", "0:100 30:hold 95:resume", 140, "0s 0mW 20W 100+4ms 140s"),
        ("close drains first", "0:60 10:close", 120, "0s 0mW 20W 40W 60s 100s 120s"),
    ] {
        let scene = speak(script, until);
        let got = render(&scene.sent);
        if got != ladder {
            wrong.push(format!("{what}: {script}\n  sent     {got}\n  expected {ladder}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_agents_end_is_told_when_its_last_word_was_heard() {
    let scene = speak("0:60 10:close", 500);
    let left: Vec<&String> = scene.events.iter().filter(|event| event.contains("Left")).collect();
    assert_eq!(left, ["260:AgentLeft { stream: StreamId(0), close: Code(1000) }"]);
    let scene = speak("100:close", 500);
    assert_eq!(
        scene.events,
        [
            "100:AgentEnded { stream: StreamId(0) }",
            "300:AgentLeft { stream: StreamId(0), close: Code(1000) }"
        ]
    );
    assert_eq!(Scene::ms(scene.sent.last().unwrap().at), 500, "silence goes on till the close");
}

#[test]
fn a_farewell_that_never_ends_is_cut() {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::joined(&plan);
    let nowhere = RemoteMedia { rtp: None, rtcp: None, rtcp_mux: false };
    scene
        .session
        .change(scene.now, LegId::CALLER, &LegPlan { remote: nowhere, ..plan.leg.clone() })
        .unwrap();
    scene.say(&[WORD; 800]);
    scene.session.handle_agent_closed(scene.now, StreamId::FIRST, AgentClose::Lost);
    scene.run_to(40_000);
    assert!(
        scene.events.contains(&"30000:AgentLeft { stream: StreamId(0), close: Lost }".to_string())
    );
}

#[test]
fn first_words_wait_for_an_address_and_none_is_lost() {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.leg.remote = RemoteMedia::default();
    let mut scene = Scene::joined(&plan);
    scene.say(&[WORD; 800]);
    scene.run_to(210);
    assert!(scene.sent.is_empty());
    let source = CALLER;
    let (marker, payload_type, ssrc) = (false, 0, 7);
    let given = Given { source, marker, payload_type, sequence: 1, timestamp: 0, ssrc };
    scene.give(given, &[0xff; 160]);
    scene.run_to(310);
    assert_eq!(render(&scene.sent), "210mW 230W 250W 270W 290W 310s");
    assert_eq!(scene.session.report().agent_played_ms, 100);
}

#[test]
fn odd_pieces_are_put_together() {
    let pcm: Vec<i16> = (0..1_600).map(|n| n * 20 - 16_000).collect();
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let played = |cuts: &[usize]| {
        let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
        let (mut rest, mut cut) = (&bytes[..], 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts[cut % cuts.len()].min(rest.len()));
            scene.session.handle_agent_audio(scene.now, StreamId::FIRST, piece);
            (rest, cut) = (after, cut + 1);
        }
        scene.run_to(220);
        assert_eq!(scene.session.report().agent_received_ms, 200);
        let spoken = scene.sent.iter().skip_while(|sent| !sent.marker).take(10);
        spoken.flat_map(|sent| sent.payload.clone()).collect::<Vec<u8>>()
    };
    let whole = played(&[3_200]);
    assert_eq!(whole.len(), 1_600);
    for cuts in [&[1][..], &[3, 1, 1], &[319, 321], &[2, 999, 1]] {
        assert_eq!(played(cuts), whole, "{cuts:?}");
    }
}

#[test]
fn a_queue_that_is_full_drops_and_counts() {
    let mut scene = Scene::new(&plan(CodecKind::Pcmu, 20));
    scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
    for _ in 0..40 {
        scene.session.handle_agent_audio(scene.now, StreamId::FIRST, &[0; 16_000]);
    }
    let report = scene.session.report();
    assert_eq!(report.agent_received_ms, 40_000);
    assert_eq!(report.agent_dropped_ms, 40_000 - 256 * 1_024 / 8);
    scene.session.handle_agent_clear(scene.now, StreamId::FIRST);
    assert_eq!(scene.session.report().agent_cleared_ms, 256 * 1_024 / 8);
}

#[test]
fn every_codec_and_packet_time_speaks_in_its_clock() {
    for kind in [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G722, CodecKind::Opus] {
        for ptime_ms in [10, 20, 30, 40, 60] {
            let plan = plan(kind, ptime_ms);
            let mut scene = Scene::heard(&plan);
            let hz = plan.agent.output_hz as usize;
            let tone = |n: usize| (8_000.0 * (n as f64 * 2_000.0 / hz as f64).sin()) as i16;
            scene.say(&(0..hz).map(tone).collect::<Vec<i16>>());
            scene.run_to(1_500);
            let frame_ms = match (kind, ptime_ms) {
                (CodecKind::Opus, 30) => 20,
                _ => ptime_ms,
            };
            let ticks = kind.rtp_clock_hz() / 1_000 * u32::from(frame_ms);
            for pair in scene.sent.windows(2) {
                assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
                assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(ticks), "{kind:?}");
            }
            let mut decoder = Decoder::new(kind, plan.agent.input_hz).unwrap();
            let mut pcm = [0; 2_880];
            let mut loud = 0;
            for sent in &scene.sent {
                assert_eq!(sent.payload_type, plan.leg.codec.send_payload_type);
                let count = decoder.decode(&sent.payload, &mut pcm).unwrap();
                let frame = plan.agent.input_hz as usize / 1_000 * usize::from(frame_ms);
                assert_eq!(count, frame, "{kind:?} {ptime_ms}");
                loud += pcm[..count].iter().filter(|sample| sample.unsigned_abs() > 1_000).count();
            }
            let rate = plan.agent.input_hz as usize;
            assert!((rate * 8 / 10..rate).contains(&loud), "{kind:?} {ptime_ms}: {loud} of {rate}");
        }
    }
}

#[test]
fn nothing_of_old_words_is_heard_after_a_clear() {
    for kind in [CodecKind::G722, CodecKind::Opus] {
        let plan = plan(kind, 20);
        let mut scene = Scene::heard(&plan);
        let samples = plan.agent.output_hz as usize;
        scene.say(&(0..samples).map(|n| ((n % 40) as i16 - 20) * 900).collect::<Vec<i16>>());
        scene.run_to(410);
        scene.session.handle_agent_clear(scene.now, StreamId::FIRST);
        let before = scene.sent.len();
        scene.run_to(450);
        scene.say(&vec![0; samples / 10]);
        scene.run_to(700);
        assert!(scene.sent[before..].iter().any(|sent| sent.marker), "silence was spoken");
        let mut decoder = Decoder::new(kind, plan.agent.input_hz).unwrap();
        let mut pcm = [0; 2_880];
        for sent in &scene.sent[before..] {
            let count = decoder.decode(&sent.payload, &mut pcm).unwrap();
            let peak = pcm[..count].iter().map(|sample| sample.unsigned_abs()).max();
            assert!(peak < Some(64), "{kind:?} at {}: {peak:?}", Scene::ms(sent.at));
        }
    }
}

#[test]
fn a_change_of_codec_goes_on_with_sequence_and_source() {
    let opus = plan(CodecKind::Opus, 20);
    let mut scene = Scene::new(&MediaPlan {
        agent: AgentRates { input_hz: 8_000, output_hz: 8_000 },
        ..opus.clone()
    });
    scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
    scene.run_to(100);
    let before = scene.sent.last().unwrap().clone();
    scene.session.change(scene.now, LegId::CALLER, &plan(CodecKind::Pcma, 20).leg).unwrap();
    scene.run_to(120);
    let after = scene.sent.last().unwrap();
    assert_eq!((after.payload_type, after.payload.len(), after.ssrc), (8, 160, before.ssrc));
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    scene.session.change(scene.now, LegId::CALLER, &plan(CodecKind::G722, 20).leg).unwrap();
    scene.run_to(140);
    let wide = scene.sent.last().unwrap();
    assert_eq!((wide.payload_type, wide.payload.len(), wide.ssrc), (9, 160, before.ssrc));
    assert_eq!(wide.sequence, before.sequence.wrapping_add(2));
}

#[test]
fn a_decoy_gets_fifty_packets() {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.leg.signalling_source = address("203.0.113.9:5060").ip();
    let mut scene = Scene::joined(&plan);
    scene.run_to(10_000);
    assert_eq!((scene.sent.len(), scene.reports.len() <= 1), (50, true));
}

#[test]
fn from_one_g711_law_to_the_other_no_word_is_lost() {
    let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
    scene.say(&[WORD; 4_000]);
    scene.run_to(90);
    scene.session.change(scene.now, LegId::CALLER, &plan(CodecKind::Pcma, 20).leg).unwrap();
    scene.run_to(600);
    let report = scene.session.report();
    assert_eq!((report.agent_played_ms, report.agent_dropped_ms), (500, 0));
    let mut decoder = Decoder::new(CodecKind::Pcma, 8_000).unwrap();
    let mut loud = 0;
    for sent in scene.sent.iter().filter(|sent| sent.payload_type == 8) {
        let mut pcm = [0; 160];
        decoder.decode(&sent.payload, &mut pcm).unwrap();
        loud += pcm.iter().filter(|sample| (WORD - 300..WORD + 300).contains(*sample)).count();
    }
    assert_eq!(loud, 8 * (500 - 100));
}

#[test]
fn on_hold_without_an_address_words_are_played_to_nobody() {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::heard(&plan);
    scene.say(&[WORD; 8_000]);
    scene.run_to(90);
    let direction = Direction::RecvOnly;
    let held = LegPlan { direction, remote: RemoteMedia::default(), ..plan.leg.clone() };
    for (direction, at) in [(Direction::RecvOnly, 400), (Direction::Inactive, 890)] {
        scene
            .session
            .change(scene.now, LegId::CALLER, &LegPlan { direction, ..held.clone() })
            .unwrap();
        scene.run_to(at);
    }
    assert_eq!(scene.sent.iter().filter(|sent| Scene::ms(sent.at) > 90).count(), 0);
    scene.session.change(scene.now, LegId::CALLER, &plan.leg).unwrap();
    let before = scene.sent.len();
    scene.run_to(1_090);
    let ladder = "900mW 920W 940W 960W 980W 1000s 1040s 1060s 1080s";
    assert_eq!(render(&scene.sent[before..]), ladder);
}

#[test]
fn an_address_that_does_not_answer_costs_no_word_and_its_rtcp_is_an_answer() {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.leg.signalling_source = address("203.0.113.9:5060").ip();
    let mut scene = Scene::joined(&plan);
    scene.run_to(900);
    scene.say(&[WORD; 8_000]);
    scene.run_to(3_000);
    assert_eq!((scene.sent.len(), scene.session.report().agent_dropped_ms), (50, 0));
    let report = Report { ssrc: 7, sender: None, blocks: &[], cname: "x", bye: false };
    let mut packet = [0; 200];
    let len = report.write(&mut packet).unwrap();
    scene.session.handle_rtcp(scene.now, LegId::CALLER, address(STRANGER), &packet[..len]);
    scene.drain();
    assert_eq!(scene.sent.len(), 50, "a stranger's report says nothing");
    scene.session.handle_rtcp(scene.now, LegId::CALLER, address("192.0.2.1:4001"), &packet[..len]);
    scene.run_to(3_990);
    assert_eq!(Scene::ms(scene.sent[50].at), 3_000);
    assert!(scene.sent[50].marker);
    assert_eq!(scene.session.report().agent_played_ms, 1_000);
}

#[test]
fn a_g722_spurt_is_as_clear_after_a_long_silence_as_after_a_short_one() {
    /// Samples by which G.722's two filters are late.
    const FILTERS: usize = 22;
    let mut scene = Scene::heard(&plan(CodecKind::G722, 20));
    let tone: Vec<i16> = (0..3_200).map(|n| (8_000.0 * (n as f64 * 0.4).sin()) as i16).collect();
    for at in [105, 605, 1_605, 4_605] {
        scene.run_to(at);
        scene.say(&tone);
    }
    scene.run_to(5_000);
    let mut far = Decoder::new(CodecKind::G722, 16_000).unwrap();
    let mut pcm = vec![0; scene.sent.len() * 320];
    for (sent, frame) in scene.sent.iter().zip(pcm.chunks_mut(320)) {
        far.decode(&sent.payload, frame).unwrap();
    }
    let starts = (0..scene.sent.len()).filter(|number| scene.sent[*number].marker);
    let energy =
        |pcm: &mut dyn Iterator<Item = f64>| pcm.map(|sample| sample * sample).sum::<f64>();
    let clarity: Vec<f64> = starts
        .filter(|start| *start > 0)
        .map(|start| {
            let heard = pcm[start * 320 + FILTERS..].iter().zip(&tone[..960]);
            let mut error = heard.map(|(heard, said)| f64::from(*heard) - f64::from(*said));
            let word = energy(&mut tone[..960].iter().map(|said| f64::from(*said)));
            10.0 * (word / energy(&mut error)).log10()
        })
        .collect();
    assert_eq!(clarity.len(), 4, "{clarity:.1?} dB");
    let least = clarity.iter().copied().fold(f64::MAX, f64::min);
    assert!(least > clarity[0] - 3.0 && least > 15.0, "{clarity:.1?} dB");
}

/// Agent speech from 25 ms on, and the caller's first packet at these milliseconds.
fn first_word(plan: &MediaPlan, heard_at: Option<u64>, until: u64) -> Scene {
    let mut scene = Scene::joined(plan);
    let (source, ssrc, marker) = (CALLER, 7, false);
    let given = Given { source, marker, payload_type: 0, sequence: 1, timestamp: 0, ssrc };
    if heard_at.is_some_and(|at| at < 25) {
        scene.run_to(heard_at.unwrap_or_default());
        scene.give(given, &[0xff; 160]);
    }
    scene.run_to(25);
    scene.say(&[WORD; 480]);
    if let Some(at) = heard_at.filter(|at| *at >= 25) {
        scene.run_to(at);
        scene.give(given, &[0xff; 160]);
    }
    scene.run_to(until);
    scene
}

#[test]
fn the_first_word_waits_for_the_callers_path_and_is_not_clipped() {
    let plan = plan(CodecKind::Pcmu, 20);
    let silence = |from: u64, to: u64| {
        (from..=to).step_by(20).map(|at| format!("{at}s")).collect::<Vec<_>>().join(" ")
    };
    for (heard_at, until, ladder) in [
        (Some(10), 120, "0s 20s 25mW 45W 65W 85s 120s".to_owned()),
        (Some(30), 120, "0s 20s 30mW 50W 70W 90s 120s".to_owned()),
        (Some(213), 320, format!("{} 213mW 233W 253W 273s 300s 320s", silence(0, 200))),
        (Some(399), 480, format!("{} 399mW 419W 439W 459s 480s", silence(0, 380))),
        (Some(401), 480, format!("{} 400mW 420W 440W 460s 480s", silence(0, 380))),
        (None, 480, format!("{} 400mW 420W 440W 460s 480s", silence(0, 380))),
    ] {
        let scene = first_word(&plan, heard_at, until);
        assert_eq!(render(&scene.sent), ladder, "caller heard at {heard_at:?}");
        assert_eq!(scene.session.report().agent_played_ms, 60);
    }
}

#[test]
fn a_caller_who_only_listens_is_not_waited_for() {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.leg.direction = Direction::SendOnly;
    let scene = first_word(&plan, None, 85);
    assert_eq!(render(&scene.sent), "0s 20s 25mW 45W 65W 85s");
}

#[test]
fn how_long_the_first_word_waited_is_reported() {
    let plan = plan(CodecKind::Pcmu, 20);
    for (heard_at, held_ms) in [(Some(10), 0), (Some(213), 188), (None, 375)] {
        let report = first_word(&plan, heard_at, 600).session.report();
        assert_eq!(report.agent_held_ms, held_ms, "caller heard at {heard_at:?}");
    }
}

fn told(kind: CodecKind) -> MediaPlan {
    let mut plan = plan(kind, 20);
    plan.leg.pauses = PausePlan {
        comfort_noise: Some(ComfortNoisePlan { send_payload_type: 19, receive_payload_type: 13 }),
        suppress: true,
    };
    plan
}

/// Without the marker and the timestamp, which are asserted here: it follows real time.
fn told_ladder(sent: &[Sent], ticks_per_ms: u32) -> String {
    let mut words = Vec::new();
    for pair in sent.windows(2) {
        let gone = Scene::ms(pair[1].at) - Scene::ms(pair[0].at);
        let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        let ahead = i64::from(ticks) / i64::from(ticks_per_ms) - gone as i64;
        // A talk spurt leaves up to a frame before its slot.
        assert!((-20..=20).contains(&ahead), "{pair:?}");
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1), "no packet is missing");
    }
    for packet in sent {
        let marker = if packet.marker { "m" } else { "" };
        let what = match packet.payload_type {
            19 => format!("n{}", packet.payload[0]),
            _ if packet.payload.iter().all(|byte| *byte == 0xff) => "s".to_owned(),
            _ => "W".to_owned(),
        };
        words.push(format!("{}{marker}{what}", Scene::ms(packet.at)));
    }
    words.join(" ")
}

#[test]
fn a_pause_that_is_told_leaves_three_frames_and_then_comfort_noise_each_second() {
    let mut scene = Scene::heard(&told(CodecKind::Pcmu));
    scene.run_to(1_505);
    scene.say(&vec![WORD; 60 * 8]);
    scene.run_to(3_700);
    assert_eq!(
        told_ladder(&scene.sent, 8),
        "0s 20s 40s 60n70 1060n70 1505mW 1525W 1545W 1565s 1600s 1620s 1640n70 2640n70 3640n70"
    );
    let report = scene.session.report();
    assert_eq!(report.packets_sent, scene.sent.len() as u64);
}

#[test]
fn silence_within_an_agents_stream_is_told_as_a_pause_too() {
    for kind in [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G722, CodecKind::Ilbc] {
        let mut scene = Scene::heard(&told(kind));
        let rate = told(kind).agent.output_hz as usize / 1_000;
        scene.run_to(100);
        scene.say(&[vec![WORD; 40 * rate], vec![0; 3_000 * rate], vec![WORD; 40 * rate]].concat());
        scene.run_to(3_200);
        let noise: Vec<u64> = scene
            .sent
            .iter()
            .filter(|packet| packet.payload_type == 19)
            .map(|packet| Scene::ms(packet.at))
            .collect();
        assert!((3..=4).contains(&noise.len()), "{kind:?}: {noise:?}");
        let last = scene.sent.iter().rfind(|packet| packet.marker).expect("a talk spurt");
        assert!((3_100..=3_160).contains(&Scene::ms(last.at)), "{kind:?}: {last:?}");
        assert_eq!(scene.session.report().agent_played_ms, 3_080, "{kind:?}");
    }
}

#[test]
fn pauses_are_sent_unless_both_sides_want_them_told() {
    let sparse = CodecFormat::Opus(OpusFormat { dtx: true, ..OpusFormat::default() });
    for (what, kind, format, noise, suppress, packets) in [
        ("off", CodecKind::Pcmu, CodecFormat::Usual, true, false, 501),
        ("not offered", CodecKind::Pcmu, CodecFormat::Usual, false, true, 501),
        ("told", CodecKind::Pcmu, CodecFormat::Usual, true, true, 13),
        ("Opus without usedtx", CodecKind::Opus, CodecFormat::Usual, true, true, 501),
        ("Opus with it, off", CodecKind::Opus, sparse, false, false, 501),
        ("Opus with it", CodecKind::Opus, sparse, false, true, 28),
    ] {
        let mut plan = told(kind);
        plan.leg.codec.format = format;
        plan.leg.pauses.suppress = suppress;
        plan.leg.pauses.comfort_noise = plan.leg.pauses.comfort_noise.filter(|_| noise);
        let mut scene = Scene::heard(&plan);
        scene.run_to(10_000);
        assert_eq!(scene.sent.len(), packets, "{what}");
    }
}

/// What a far decoder makes of speech, a pause of reused silence, and speech again.
#[test]
fn reused_silence_is_silent_in_every_codec_and_speech_after_it_is_whole() {
    for kind in CodecKind::ALL {
        if !super::is_here(kind) {
            continue;
        }
        let plan = plan(kind, 20);
        let mut scene = Scene::heard(&plan);
        let rate = plan.agent.output_hz;
        let frame = rate as usize / 50;
        let voice = |n: usize| {
            let turn = std::f64::consts::TAU * n as f64 / f64::from(rate);
            let tones = [180.0, 360.0, 720.0, 1_500.0].map(|hz| (turn * hz).sin());
            (3_000.0 * tones.iter().sum::<f64>()) as i16
        };
        let spoken: Vec<i16> = (0..frame * 50).map(voice).collect();
        let stream = [spoken.clone(), vec![0; frame * 100], spoken].concat();
        scene.run_to(20);
        scene.say(&stream);
        scene.run_to(4_200);
        let pcm_hz = kind.pcm_rate(rate);
        let mut decoder = Decoder::with_format(kind, plan.leg.codec.format, pcm_hz).unwrap();
        let mut heard = Vec::new();
        for packet in &scene.sent {
            let mut pcm = [0; 5_760];
            let count = decoder.decode(&packet.payload, &mut pcm).unwrap();
            heard.extend_from_slice(&pcm[..count]);
        }
        let rms = |from_ms: usize, to_ms: usize| {
            let part = &heard[from_ms * pcm_hz as usize / 1_000..to_ms * pcm_hz as usize / 1_000];
            (part.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / part.len() as f64).sqrt()
        };
        let (before, pause, after) = (rms(300, 900), rms(1_300, 2_900), rms(3_300, 3_900));
        assert!(pause < 30.0, "{kind:?}: silence of {pause}");
        assert!((after / before - 1.0).abs() < 0.1, "{kind:?}: {before} before, {after} after");
        let onset = rms(3_080, 3_200);
        assert!((onset / before - 1.0).abs() < 0.3, "{kind:?}: {before} before, {onset} at once");
    }
}
