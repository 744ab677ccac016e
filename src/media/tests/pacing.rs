//! The agent's queue over a long time: streams whose clock is not ours, bursts ahead of time, stalls,
//! and the first words of each spurt.

use super::*;

/// What the agent says over and over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Saying {
    /// A tone without end, in which each click is a step.
    Tone,
    /// A sentence with its pauses.
    Sentence,
}

fn said(saying: Saying, hz: u32) -> Vec<i16> {
    let step = std::f64::consts::TAU * 250.0 / f64::from(hz);
    match saying {
        Saying::Tone => {
            (0..hz as usize).map(|n| (8_000.0 * (step * n as f64).sin()) as i16).collect()
        }
        Saying::Sentence => {
            let sentence = include_bytes!("../../../fixtures/pcm/sentence_16k.s16le");
            let pcm = sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
            pcm.step_by(16_000 / hz as usize).collect()
        }
    }
}

/// A stream that an agent sends in pieces of 20 ms.
struct Stream {
    kind: CodecKind,
    saying: Saying,
    /// Microseconds between two pieces of 20 ms, and how late each may come.
    piece_us: u64,
    late_us: u64,
    seconds: u64,
}

struct Outcome {
    /// What waited on the average as pieces came, in milliseconds: from 5 s to 10 s, and in the last 10 s.
    before: u64,
    after: u64,
    longest: u64,
    /// What the caller heard from the first word on, and its rate.
    heard: Vec<i16>,
    report: MediaReport,
}

impl Stream {
    fn play(&self) -> Outcome {
        let mut plan = plan(self.kind, 20);
        let hz = self.kind.pcm_rate(16_000);
        plan.agent = AgentRates { input_hz: hz, output_hz: hz };
        plan.rtp_timeout = Duration::from_secs(100_000);
        let mut scene = Scene::heard(&plan);
        let source = said(self.saying, hz);
        let mut decoder = Decoder::with_format(self.kind, plan.leg.codec.format, hz).unwrap();
        let mut chance = Entropy::from_number(self.piece_us);
        let (mut early, mut late, mut longest) = (Vec::new(), Vec::new(), 0);
        let (mut heard, mut taken) = (Vec::new(), 0);
        let frame = hz as usize / 50;
        for piece in 0..self.seconds * 1_000_000 / self.piece_us {
            let due = piece * self.piece_us;
            scene.run_until(
                milliseconds(100) + Duration::from_micros(due + chance.below(self.late_us + 1)),
            );
            let pcm: Vec<i16> = (0..frame).map(|n| source[(taken + n) % source.len()]).collect();
            taken += frame;
            scene.say(&pcm);
            let waiting = u64::from(scene.session.report().agent_queue_ms);
            match due / 1_000_000 {
                5..10 => early.push(waiting),
                second if second + 10 >= self.seconds => late.push(waiting),
                _ => {}
            }
            if due > 20_000_000 {
                longest = longest.max(waiting);
            }
            for packet in scene.sent.drain(..) {
                let mut pcm = [0; 960];
                let count = decoder.decode(&packet.payload, &mut pcm).unwrap();
                heard.extend_from_slice(&pcm[..count]);
            }
        }
        let mean = |waits: &[u64]| waits.iter().sum::<u64>() / waits.len() as u64;
        let report = scene.session.report();
        Outcome { before: mean(&early), after: mean(&late), longest, heard, report }
    }
}

fn largest_step(pcm: &[i16]) -> u16 {
    pcm.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap_or(0)
}

/// Judges a stream that plays for long: its delay, its smoothness, its sum.
fn check(stream: &Stream) -> MediaReport {
    let what = format!("{:?}, {:?}, {} us", stream.kind, stream.saying, stream.piece_us);
    let Outcome { before, after, longest, heard, report } = stream.play();
    assert!(after.abs_diff(before) <= 60, "{what}: {before} ms before, {after} ms after");
    assert!(longest <= before + 100, "{what}: up to {longest} ms");
    assert!(report.agent_underruns <= 2, "{what}: {report:?}");
    assert_eq!((report.agent_dropped_ms, report.agent_cleared_ms), (0, 0), "{what}");
    let played = report.agent_received_ms + report.agent_lengthened_ms - report.agent_shortened_ms;
    let left = u64::from(report.agent_queue_ms);
    assert!(played.abs_diff(report.agent_played_ms + left) <= 1, "{what}: {report:?}");
    // Twenty seconds are past the start and what it took to know the stream's pace.
    let hz = stream.kind.pcm_rate(16_000);
    let own = largest_step(&said(stream.saying, hz));
    let heard = &heard[20 * hz as usize..];
    assert!(largest_step(heard) <= own + own / 3 + 400, "{what}: {own}, {}", largest_step(heard));
    report
}

#[test]
fn a_stream_of_another_clock_keeps_its_delay_for_an_hour() {
    for piece_us in [19_980, 20_020] {
        drift(Saying::Sentence, piece_us, 3_600);
    }
}

/// As much drift in a sixth of the time, of a sound in which no join can hide.
#[test]
fn a_stream_of_another_clock_has_no_clicks() {
    for piece_us in [19_880, 20_120] {
        drift(Saying::Tone, piece_us, 600);
    }
}

fn drift(saying: Saying, piece_us: u64, seconds: u64) {
    let kind = CodecKind::Pcmu;
    let report = check(&Stream { kind, saying, piece_us, late_us: 8_000, seconds });
    let (longer, shorter) = (report.agent_lengthened_ms, report.agent_shortened_ms);
    let (wanted, other) = if piece_us < 20_000 { (shorter, longer) } else { (longer, shorter) };
    assert!((3_300..=3_900).contains(&wanted), "{report:?}");
    assert!(other < 200, "{report:?}");
}

/// Ten times as fast or slow for a tenth of the time: as much drift, in the codecs whose test build
/// takes its time.
#[test]
fn a_stream_of_another_clock_keeps_its_delay_in_every_codec() {
    for kind in [CodecKind::Pcma, CodecKind::G722, CodecKind::Opus, CodecKind::Ilbc] {
        for piece_us in [19_800, 20_200] {
            let seconds = if kind == CodecKind::Ilbc { 60 } else { 240 };
            check(&Stream { kind, saying: Saying::Sentence, piece_us, late_us: 5_000, seconds });
        }
    }
}

#[test]
fn a_stream_of_our_own_clock_is_left_as_it_is() {
    let (kind, saying) = (CodecKind::Pcmu, Saying::Tone);
    let report = check(&Stream { kind, saying, piece_us: 20_000, late_us: 3_000, seconds: 120 });
    assert_eq!(report.agent_shortened_ms, 0);
    assert!(report.agent_lengthened_ms < 60, "the first frames find their distance: {report:?}");
    assert!(report.agent_wait_median_ms <= 50 && report.agent_wait_max_ms <= 60, "{report:?}");
}

#[test]
fn what_a_stall_held_up_is_made_up_for() {
    let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
    let source = said(Saying::Tone, 8_000);
    let piece = |number: u64| {
        let from = number as usize * 160;
        (from..from + 160).map(|n| source[n % 8_000]).collect::<Vec<i16>>()
    };
    for number in 0..4_000u64 {
        let due = number * 20;
        // Nothing comes for a second and a half; then all of it does.
        let stalled = (15_000..16_500).contains(&due);
        scene.run_until(milliseconds(100 + if stalled { 16_500 } else { due }));
        scene.say(&piece(number));
    }
    let report = scene.session.report();
    assert!(report.agent_queue_max_ms > 1_300, "it waited: {report:?}");
    assert!(report.agent_queue_ms <= 90, "and does no more: {report:?}");
    assert!((1_200..1_600).contains(&report.agent_shortened_ms), "{report:?}");
    assert_eq!(report.agent_dropped_ms, 0);
}

/// Sentences that come ahead of time, in one piece or in bursts, are played to the bit.
#[test]
fn what_an_agent_sends_ahead_is_not_touched() {
    let sentence: Vec<i16> =
        said(Saying::Sentence, 8_000).into_iter().cycle().take(96_000).collect();
    for (piece, every_ms) in [(96_000, 0), (8_000, 400), (800, 50), (1_600, 190)] {
        let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
        for turn in 0..6u64 {
            for (number, pcm) in sentence.chunks(piece).enumerate() {
                scene.run_until(milliseconds(100 + turn * 14_000 + number as u64 * every_ms));
                scene.say(pcm);
            }
        }
        scene.run_until(milliseconds(90_000));
        let report = scene.session.report();
        let changed = (report.agent_shortened_ms, report.agent_lengthened_ms);
        assert_eq!((changed, report.agent_played_ms), ((0, 0), 72_000), "{piece}");
        let spoken: Vec<u8> = spurts(&scene.sent).concat();
        let mut bytes = vec![0; sentence.len()];
        crate::codec::g711::Law::Mu.encode(&sentence, &mut bytes).unwrap();
        assert!(spoken == bytes.repeat(6), "{piece}: bit for bit");
    }
}

/// The payloads of each talk spurt; a frame that is all silence ends one.
fn spurts(sent: &[Sent]) -> Vec<Vec<u8>> {
    let mut spurts: Vec<Vec<u8>> = Vec::new();
    let mut talking = false;
    for packet in sent {
        talking = packet.marker && packet.payload_type == 0 || talking;
        if packet.marker {
            spurts.push(Vec::new());
        }
        if talking && let Some(spurt) = spurts.last_mut() {
            spurt.extend_from_slice(&packet.payload);
        }
        talking &= spurts.last().is_some_and(|spurt| spurt.len() < 96_000);
    }
    spurts
}

#[test]
fn a_paced_stream_is_cleared_within_a_frame_too() {
    let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
    let tone = said(Saying::Tone, 8_000);
    for number in 0..1_000usize {
        scene.run_until(Duration::from_micros(100_000 + number as u64 * 19_800));
        scene.say(&tone[number % 50 * 160..][..160]);
    }
    let at = scene.now.at;
    scene.session.handle_agent_clear(scene.now, StreamId::FIRST);
    scene.drain();
    scene.run_until(Duration::from_secs(25));
    let after: Vec<&Sent> = scene.sent.iter().filter(|packet| packet.at > at).collect();
    assert!(after.len() > 100);
    assert!(after.iter().all(|packet| packet.payload.iter().all(|byte| *byte == 0xff)));
    let report = scene.session.report();
    assert!(report.agent_shortened_ms > 50 && report.agent_cleared_ms < 100, "{report:?}");
}

/// A word that is known by each of its samples: a ramp.
fn ramp(length_ms: usize) -> Vec<i16> {
    (0..length_ms * 8).map(|n| 1_000 + 20 * n as i16).collect()
}

/// Steps "at:what"; see the match. Gives what was sent in PCM from the first sound on.
fn first_words(outgoing: bool, named: bool, script: &str) -> Vec<i16> {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.outgoing = outgoing;
    let open = plan.leg.clone();
    if !named {
        plan.leg.remote = RemoteMedia::default();
    }
    let mut scene = Scene::new(&plan);
    let given = Given {
        source: CALLER,
        marker: false,
        payload_type: 0,
        sequence: 0,
        timestamp: 0,
        ssrc: 7,
    };
    let second = StreamId(1);
    let mut heard = 0;
    for step in script.split_whitespace() {
        let (at, what) = step.split_once(':').expect("at:what");
        scene.run_to(at.parse().expect("milliseconds"));
        let bytes: Vec<u8> = ramp(60).iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let operator = Port::Agent(second);
        match what {
            "join" => scene.session.handle_agent_joined(scene.now, StreamId::FIRST),
            "say" => scene.session.handle_agent_audio(scene.now, StreamId::FIRST, &bytes),
            "heard" => {
                heard += 1;
                let (sequence, timestamp) = (heard, u32::from(heard) * 160);
                scene.give(Given { sequence, timestamp, ..given }, &[0xff; 160]);
            }
            "named" => scene.session.change(scene.now, LegId::CALLER, &open).unwrap(),
            "hold" | "resume" => {
                let direction =
                    if what == "hold" { Direction::Inactive } else { Direction::SendRecv };
                let plan = LegPlan { direction, ..open.clone() };
                scene.session.change(scene.now, LegId::CALLER, &plan).unwrap();
            }
            "clear" => scene.session.handle_agent_clear(scene.now, StreamId::FIRST),
            "second" => {
                scene.session.handle_agent_joined(scene.now, second);
                let arranged = super::super::plan::Scene::new();
                let arranged = arranged.talking(Port::Leg(LegId::CALLER), operator);
                scene.session.arrange(scene.now, arranged);
            }
            "say2" => scene.session.handle_agent_audio(scene.now, second, &bytes),
            _ => panic!("{what}"),
        }
        scene.drain();
    }
    scene.run_to(2_000);
    let mut decoder = Decoder::new(CodecKind::Pcmu, 8_000).unwrap();
    let mut pcm = Vec::new();
    for packet in &scene.sent {
        let mut frame = [0; 480];
        let count = decoder.decode(&packet.payload, &mut frame).unwrap();
        pcm.extend_from_slice(&frame[..count]);
    }
    pcm.into_iter().skip_while(|sample| *sample == 0).collect()
}

#[test]
fn the_first_sample_of_the_first_word_is_played_whatever_it_meets() {
    let mut word = ramp(60);
    let mut bytes = vec![0; word.len()];
    crate::codec::g711::Law::Mu.encode(&word, &mut bytes).unwrap();
    crate::codec::g711::Law::Mu.decode(&bytes, &mut word).unwrap();
    for (what, outgoing, named, script) in [
        ("in the instant of the join", false, true, "0:heard 10:join 10:say"),
        ("before the caller was heard", false, true, "0:join 0:say 213:heard"),
        ("the caller is never heard", false, true, "0:join 0:say"),
        ("before the caller's address is known", false, false, "0:join 5:say 300:named 310:heard"),
        ("the caller is heard first, then named", false, false, "0:join 5:say 100:heard 300:named"),
        ("after early media", true, true, "0:heard 20:heard 40:heard 50:join 51:say"),
        ("an outgoing call whose callee is not heard yet", true, true, "0:join 1:say 200:heard"),
        ("right after a hold", false, true, "0:heard 0:join 100:hold 300:resume 300:say"),
        ("right after a clear", false, true, "0:heard 0:join 100:clear 100:say"),
        (
            "a second agent in the instant of its scene",
            false,
            true,
            "0:heard 0:join 500:second 500:say2",
        ),
        ("a second agent just after it", false, true, "0:heard 0:join 500:second 503:say2"),
    ] {
        let mut heard = first_words(outgoing, named, script);
        heard.truncate(heard.iter().rposition(|sample| *sample != 0).map_or(0, |last| last + 1));
        // An agent that is arranged anew may be within a word: its first 5 ms rise.
        let risen = if what.contains("second agent") { 40 } else { 0 };
        assert!(heard.len() + 2 >= word.len(), "{what}: {} samples", heard.len());
        let (start, from) = (heard.len() - (word.len() - risen), risen);
        assert_eq!(&heard[start..], &word[from..], "{what}");
        assert!(start <= risen, "{what}: nothing comes before it");
    }
}
