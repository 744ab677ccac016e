//! AMR-WB against FFmpeg's own decoder, which shares no code with the library behind ours: what we
//! encode in each mode, it decodes to the same sound as we do. Needs `ffmpeg` and the two AMR-WB
//! libraries; both are required when CI=true.

use std::io::Write;
use std::process::{Command, Stdio};
use voxedge::codec::amr_wb::payload::Payload;
use voxedge::codec::amr_wb::{Decoder, Encoder, Format, Mode, ModeSet, Packing, is_installed};

const FRAME: usize = 320;

fn speech() -> Vec<i16> {
    let sentence = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
    sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// What we make of `pcm` in a mode: the storage format (RFC 4867 §5), and our own decoding.
fn coded(mode: Mode, packing: Packing, pcm: &[i16]) -> (Vec<u8>, Vec<i16>) {
    let format = Format { packing, modes: ModeSet::of([mode].into_iter()), ..Format::default() };
    let mut encoder = Encoder::new(format, false).expect("the libraries are installed");
    let mut decoder = Decoder::new(packing).expect("the libraries are installed");
    let (mut file, mut heard) = (b"#!AMR-WB\n".to_vec(), Vec::new());
    for frame in pcm.chunks_exact(FRAME) {
        let (mut payload, mut out) = ([0; 62], [0; FRAME]);
        let len = encoder.encode(frame, &mut payload).expect("a whole frame");
        assert_eq!(decoder.decode(&payload[..len], &mut out), Ok(FRAME));
        heard.extend(out);
        let payload = Payload::read(packing, &payload[..len]).expect("our own payload");
        payload.frames().for_each(|frame| file.extend(frame.storage()));
    }
    (file, heard)
}

/// FFmpeg's decoding of a file; `None` when it is not installed.
fn ffmpeg(file: Vec<u8>) -> Option<Vec<i16>> {
    let mut child = Command::new("ffmpeg")
        .args("-loglevel error -f amr -i pipe:0 -f s16le -ar 16000 pipe:1".split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let writer = std::thread::spawn(move || stdin.write_all(&file));
    let output = child.wait_with_output().expect("a started command can be waited for");
    writer.join().expect("the writer does not panic").expect("the command reads its input");
    assert!(output.status.success(), "ffmpeg: {}", output.status);
    let pairs = output.stdout.chunks_exact(2);
    Some(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// Mean over the frames that hold speech, in dB.
fn segmental_snr(wanted: &[i16], heard: &[i16]) -> f64 {
    let (mut sum, mut frames) = (0.0, 0.0);
    for (wanted, heard) in wanted.chunks_exact(FRAME).zip(heard.chunks_exact(FRAME)) {
        let energy: f64 = wanted.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        let pairs = wanted.iter().zip(heard);
        let noise: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        if energy > 100.0 * 100.0 * FRAME as f64 {
            sum += 10.0 * (energy / noise.max(1.0)).log10();
            frames += 1.0;
        }
    }
    assert!(frames > 50.0, "{frames} frames of speech");
    sum / frames
}

#[test]
fn ffmpeg_hears_what_we_hear_in_every_mode() {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    if !is_installed() {
        assert!(!is_ci, "apt-get install libopencore-amrwb0 libvo-amrwbenc0");
        return eprintln!("skipped: the AMR-WB libraries are not installed");
    }
    let pcm = speech();
    for number in 0..Mode::COUNT {
        let mode = Mode::new(number).expect("a mode");
        for packing in [Packing::BandwidthEfficient, Packing::OctetAligned] {
            let (file, ours) = coded(mode, packing, &pcm);
            let Some(theirs) = ffmpeg(file) else {
                assert!(!is_ci, "apt-get install ffmpeg");
                return eprintln!("skipped: ffmpeg is not installed");
            };
            assert_eq!(ours.len(), theirs.len(), "mode {number} {packing:?}");
            let likeness = segmental_snr(&ours, &theirs);
            // Integers here, floats there; in the lowest two the noise above 6.4 kHz differs more.
            let least = if number < 2 { 18.0 } else { 27.0 };
            println!("mode {number} {packing:?}: {likeness:.1} dB");
            assert!(likeness > least, "mode {number} {packing:?}: {likeness:.1} dB");
        }
    }
}
