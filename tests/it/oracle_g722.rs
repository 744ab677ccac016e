//! G.722 against FFmpeg's encoder and decoder, which share no code with ours: bytes and samples
//! equal on speech, noise, full scale, silence and sweeps. Needs `ffmpeg`, and `espeak-ng` for
//! speech of another voice than the fixture's; both are required when CI=true.

use std::io::Write;
use std::process::{Command, Stdio};
use voxedge::codec::g722::{Decoder, Encoder};

/// Sends `input` through a command; `None` when the command is not installed.
fn pipe(command: &str, arguments: &[&str], input: Vec<u8>) -> Option<Vec<u8>> {
    let mut child = Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("a started command can be waited for");
    let written = writer.join().expect("the writer does not panic");
    assert!(output.status.success(), "{command} {arguments:?}: {}", output.status);
    written.expect("the command reads all of its input");
    Some(output.stdout)
}

fn ffmpeg(arguments: &str, input: Vec<u8>) -> Option<Vec<u8>> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    pipe("ffmpeg", &arguments, input)
}

fn bytes(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn encode(pcm: &[i16]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut out = vec![0; pcm.len() / 2];
    for (frame, bytes) in pcm.chunks(320).zip(out.chunks_mut(160)) {
        assert_eq!(encoder.encode(frame, bytes), Ok(frame.len() / 2));
    }
    out
}

fn decode(payload: &[u8]) -> Vec<i16> {
    let mut decoder = Decoder::default();
    let mut out = vec![0; payload.len() * 2];
    for (bytes, frame) in payload.chunks(160).zip(out.chunks_mut(320)) {
        assert_eq!(decoder.decode(bytes, frame), Ok(frame.len()));
    }
    out
}

/// Linear congruential noise (Numerical Recipes' constants), the same as in the leaf tests.
fn noise(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |x| {
        Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    })
    .skip(1)
}

fn sweep(level: f64) -> Vec<i16> {
    let seconds = 3.0;
    let phase = |t: f64| std::f64::consts::TAU * (30.0 * t + 7_900.0 * t * t / (2.0 * seconds));
    (0..48_000).map(|n| (level * phase(f64::from(n) / 16_000.0).sin()) as i16).collect()
}

/// Names and PCM of everything that is compared. All lengths are whole frames.
fn signals() -> Vec<(String, Vec<i16>)> {
    let white = noise(1).take(64_000).map(|x| (x >> 16) as i16).collect();
    let soft = noise(2).take(64_000).map(|x| (x >> 16) as i16 / 300).collect();
    let extremes =
        noise(3).take(32_000).map(|x| if x >> 31 == 0 { i16::MIN } else { i16::MAX }).collect();
    let mut signals = vec![
        ("white noise".into(), white),
        ("soft noise".into(), soft),
        ("random extremes".into(), extremes),
        ("silence".into(), vec![0; 16_000]),
        ("least step".into(), (0..16_000).map(|n| n % 2).collect()),
        ("constant full scale".into(), vec![i16::MIN; 16_000]),
        ("full-scale sweep".into(), sweep(32_767.0)),
        ("soft sweep".into(), sweep(300.0)),
        (
            "triangle".into(),
            (0..16_000i32).map(|n| ((n % 32 - 16).abs() * 2_000 - 16_000) as i16).collect(),
        ),
    ];
    for half in [1, 2, 3, 8, 50, 400] {
        let square = |n| if n / half % 2 == 0 { i16::MIN } else { i16::MAX };
        signals.push((format!("full-scale square of {half}"), (0..16_000).map(square).collect()));
    }
    let sentence = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
    signals.push(("the fixture's sentence".into(), samples(sentence)));
    signals
}

/// Other voices than the fixture's, made on the spot.
fn speech() -> Option<Vec<(String, Vec<i16>)>> {
    let mut signals = Vec::new();
    for (voice, text) in [
        ("en-us+f3", "The quick brown fox jumps over the lazy dog, and she sells sea shells."),
        ("de", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich."),
    ] {
        let wave = pipe("espeak-ng", &["-v", voice, "--stdout", text], Vec::new())?;
        let pcm = ffmpeg("-v error -f wav -i - -f s16le -ar 16000 -ac 1 -", wave)?;
        let mut pcm = samples(&pcm);
        pcm.truncate(pcm.len() / 320 * 320);
        assert!(pcm.len() > 16_000, "speech of {voice}");
        signals.push((voice.to_string(), pcm));
    }
    Some(signals)
}

fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI needs {what}");
    eprintln!("skipped: {what} is not installed");
}

#[test]
fn bytes_and_samples_are_those_of_ffmpeg() {
    let mut signals = signals();
    match speech() {
        Some(speech) => signals.extend(speech),
        None => missing("espeak-ng with ffmpeg"),
    }
    for (name, pcm) in signals {
        let encoder = "-v error -f s16le -ar 16000 -ac 1 -i - -c:a g722 -f g722 -";
        let Some(expected) = ffmpeg(encoder, bytes(&pcm)) else { return missing("ffmpeg") };
        let payload = encode(&pcm);
        assert_eq!(payload.len(), expected.len(), "{name}");
        let differing = payload.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{name}: bytes of {} that differ", payload.len());
        check_decoder(&name, payload);
    }
    // Bytes that no encoder would send.
    check_decoder("random bytes", noise(4).take(32_000).map(|x| (x >> 24) as u8).collect());
    for byte in [0x00, 0x3F, 0x80, 0xBF, 0xC0, 0xFF] {
        check_decoder(&format!("{byte:#x} for ever"), vec![byte; 3_200]);
    }
}

fn check_decoder(name: &str, payload: Vec<u8>) {
    let ours = decode(&payload);
    let decoder = "-v error -f g722 -i - -f s16le -ar 16000 -ac 1 -";
    let Some(theirs) = ffmpeg(decoder, payload) else { return missing("ffmpeg") };
    let theirs = samples(&theirs);
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let differing = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 0, "{name}: samples of {} that differ", ours.len());
}
