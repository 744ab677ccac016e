//! FFmpeg's decoder, which shares no code with ours, is the oracle: it hears what our encoder
//! sends, and our decoder is measured beside it. `ffmpeg` and `espeak-ng` are required when
//! CI=true; without them those tests say that they skip.

use super::bitstream::{Choice, Parameters, pack, unpack};
use super::filter::{HighPass, all_pole};
use super::*;
use crate::codec::CodecFault;
use std::io::Write;
use std::process::{Command, Stdio};

const MODES: [Mode; 2] = [Mode::Ms20, Mode::Ms30];

fn encode(mode: Mode, pcm: &[i16]) -> Vec<u8> {
    let mut encoder = Encoder::new(mode);
    let mut out = vec![0; pcm.len() / mode.frame_samples() * mode.frame_bytes()];
    let frames = pcm.chunks_exact(mode.frame_samples());
    for (frame, bytes) in frames.zip(out.chunks_exact_mut(mode.frame_bytes())) {
        assert_eq!(encoder.encode(frame, bytes), Ok(mode.frame_bytes()));
    }
    out
}

/// Decodes; the frames for which `is_lost` says so are concealed.
fn decode(mode: Mode, payload: &[u8], is_lost: impl Fn(usize) -> bool) -> Vec<i16> {
    let mut decoder = Decoder::new(mode);
    let samples = mode.frame_samples();
    let mut out = vec![0; payload.len() / mode.frame_bytes() * samples];
    let frames = payload.chunks_exact(mode.frame_bytes()).zip(out.chunks_exact_mut(samples));
    for (number, (bytes, pcm)) in frames.enumerate() {
        if is_lost(number) {
            decoder.conceal(pcm);
        } else {
            assert_eq!(decoder.decode(bytes, pcm), Ok(samples));
        }
    }
    out
}

/// Decodes without the enhancer and its delay, as FFmpeg does.
fn decode_plainly(mode: Mode, payload: &[u8]) -> Vec<i16> {
    let mut spectrum = lsf::MEAN;
    let mut high_pass = HighPass::after_decoding();
    let mut speech = [0.0; ORDER + FRAME_SAMPLES_MAX];
    let samples = mode.frame_samples();
    let mut out = Vec::new();
    for frame in payload.chunks_exact(mode.frame_bytes()) {
        let parameters = unpack(mode, frame).expect("an encoder's frame");
        let mut spectra = parameters.lsf.map(|indices| lsf::dequantise(&indices));
        if mode == Mode::Ms20 {
            spectra[1] = spectra[0];
        }
        let predictors = lsf::interpolated(mode, &spectrum, &spectra);
        spectrum = spectra[1];
        let residual = excitation::decode(mode, &parameters, &predictors);
        speech.copy_within(samples..samples + ORDER, 0);
        speech[ORDER..].copy_from_slice(&residual);
        for (subframe, predictor) in predictors[..mode.subframes()].iter().enumerate() {
            all_pole(&mut speech[subframe * SUBFRAME..][..ORDER + SUBFRAME], predictor);
        }
        let mut pcm = speech;
        high_pass.run(&mut pcm[ORDER..ORDER + samples]);
        out.extend(pcm[ORDER..ORDER + samples].iter().map(|sample| *sample as i16));
    }
    out
}

/// Linear congruential noise (Numerical Recipes' constants).
fn noise(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |x| {
        Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    })
    .skip(1)
}

/// Something like a voice, the same on every machine: pulses whose distance glides, and noise,
/// through two resonances.
fn voice(samples: usize) -> Vec<i16> {
    let mut noise = noise(7).map(|x| f64::from(x >> 16) / 32_768.0 - 1.0);
    let (mut past, mut next_pulse) = ([[0.0f64; 2]; 2], 0);
    let mut voice = Vec::new();
    for n in 0..samples {
        let mut sample = 40.0 * noise.next().unwrap();
        if n == next_pulse {
            sample += 3_000.0;
            next_pulse += 55 + n / 400 % 30;
        }
        for (past, [a, b]) in past.iter_mut().zip([[1.72, -0.9], [0.9, -0.86]]) {
            sample += a * past[0] + b * past[1];
            *past = [sample, past[0]];
        }
        voice.push((sample * 0.35).clamp(-32_000.0, 32_000.0) as i16);
    }
    voice
}

fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Greatest size of a sample.
fn peak(pcm: &[i16]) -> u16 {
    pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0)
}

/// Greatest step from one sample to the next.
fn step(pcm: &[i16]) -> i32 {
    pcm.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap_or(0)
}

/// Mean over blocks of 20 ms above -50 dBFS of their signal-to-noise ratio in decibels, at the best
/// delay.
fn segmental_snr(wanted: &[i16], heard: &[i16]) -> f64 {
    let block = 160;
    let loud = block as f64 * (32_768.0f64 * 10f64.powf(-2.5)).powi(2);
    let at_delay = |delay: usize| {
        let mut ratios = Vec::new();
        for (wanted, heard) in wanted.chunks_exact(block).zip(heard[delay..].chunks_exact(block)) {
            let energy: f64 = wanted.iter().map(|x| f64::from(*x).powi(2)).sum();
            let error =
                wanted.iter().zip(heard).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            if energy > loud {
                ratios.push(10.0 * (energy / error.sum::<f64>().max(1.0)).log10());
            }
        }
        ratios.iter().sum::<f64>() / ratios.len() as f64
    };
    (0..=120).map(at_delay).fold(f64::MIN, f64::max)
}

fn bytes(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

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

fn ffmpeg_decodes(mode: Mode, payload: &[u8]) -> Option<Vec<i16>> {
    let mut file = match mode {
        Mode::Ms20 => b"#!iLBC20\n".to_vec(),
        Mode::Ms30 => b"#!iLBC30\n".to_vec(),
    };
    file.extend_from_slice(payload);
    Some(samples(&ffmpeg("-v error -f ilbc -i - -f s16le -ar 8000 -ac 1 -", file)?))
}

fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI needs {what}");
    eprintln!("skipped: {what} is not installed");
}

/// Four voices made on the spot, at 8 kHz. The signal-to-noise ratio depends on the speech by half a
/// decibel: the RFC's own encoder, heard by FFmpeg, reaches 3.86 and 3.72 dB on this one, 3.44 and
/// 3.65 dB on the fixture's sentence.
fn speech() -> Option<Vec<i16>> {
    const TEXT: &str = "The quick brown fox jumps over the lazy dog, and she sells sea shells by \
                        the sea shore. Twelve boxers hunt Victor over the dyke.";
    let mut speech = Vec::new();
    for voice in ["en-us", "en-us+f3", "de+f2", "en-gb"] {
        let spoken = ["-v", voice, "-s", "160", "--stdout", TEXT];
        let wave = pipe("espeak-ng", &spoken, Vec::new())?;
        let pcm = ffmpeg("-v error -f wav -i - -f s16le -ar 8000 -ac 1 -", wave)?;
        assert!(pcm.len() > 32_000, "speech of {voice}");
        speech.extend(samples(&pcm));
    }
    // Whole frames of both lengths.
    speech.truncate(speech.len() / 480 * 480);
    Some(speech)
}

#[test]
fn ffmpeg_hears_what_we_send() {
    let Some(pcm) = speech() else { return missing("ffmpeg with espeak-ng") };
    for (mode, expected) in [(Mode::Ms20, 3.9), (Mode::Ms30, 3.6)] {
        let payload = encode(mode, &pcm);
        let heard = ffmpeg_decodes(mode, &payload).expect("ffmpeg has just run");
        let snr = segmental_snr(&pcm, &heard);
        eprintln!("{mode:?}: FFmpeg hears our encoder at {snr:.2} dB");
        assert!((snr - expected).abs() < 0.3, "{mode:?}: {snr} dB");
    }
}

/// What our decoder makes before the enhancer must be what FFmpeg decodes, within 0.1 dB; with it, which
/// FFmpeg has not, it may give up 0.3 dB of the signal-to-noise ratio for a rounder sound.
#[test]
fn our_decoder_hears_what_ffmpeg_hears() {
    let Some(pcm) = speech() else { return missing("ffmpeg with espeak-ng") };
    for mode in MODES {
        let payload = encode(mode, &pcm);
        let theirs = ffmpeg_decodes(mode, &payload).expect("ffmpeg has just run");
        let plain = decode_plainly(mode, &payload);
        let alike = segmental_snr(&theirs, &plain);
        let (snr_theirs, snr_plain) = (segmental_snr(&pcm, &theirs), segmental_snr(&pcm, &plain));
        let snr_ours = segmental_snr(&pcm, &decode(mode, &payload, |_| false));
        eprintln!(
            "{mode:?}: FFmpeg {snr_theirs:.2} dB, ours {snr_plain:.2} dB and {snr_ours:.2} dB \
             enhanced; ours to FFmpeg's {alike:.1} dB"
        );
        assert!((snr_theirs - snr_plain).abs() < 0.1, "{mode:?}: {snr_theirs}, {snr_plain}");
        assert!((snr_theirs - snr_ours).abs() < 0.3, "{mode:?}: {snr_theirs}, {snr_ours}");
        assert!(alike > 20.0, "{mode:?}: {alike} dB");
    }
}

#[test]
fn the_same_bits_and_samples_come_out_on_every_machine() {
    let pcm = voice(9_600);
    let sums = MODES.map(|mode| {
        let payload = encode(mode, &pcm);
        let heard = decode(mode, &payload, |number| number % 7 == 6);
        (fnv(payload), fnv(bytes(&heard)))
    });
    let expected = [
        (0x8DD3_D372_7985_6A6F, 0xE4EC_4ACE_2B20_52B6),
        (0x5848_EA45_2ECC_0633, 0x79E7_F99E_BBBB_3BF2),
    ];
    assert_eq!(sums, expected, "{sums:#x?}");
}

#[test]
fn no_random_payload_makes_the_decoder_panic() {
    decode_random(50_000);
}

#[test]
#[ignore = "takes a minute in a debug build; run with --release"]
fn no_random_payload_of_a_million_makes_the_decoder_panic() {
    decode_random(500_000);
}

/// Random frames of both lengths, this many each; after each hundred speech is understood again.
fn decode_random(frames: usize) {
    let pcm = voice(960);
    for mode in MODES {
        let good = encode(mode, &pcm);
        let mut decoder = Decoder::new(mode);
        let mut random = noise(3).map(|x| (x >> 24) as u8);
        let mut payload = [0; 50];
        let payload = &mut payload[..mode.frame_bytes()];
        let mut out = [0; FRAME_SAMPLES_MAX];
        for number in 0..frames {
            payload.fill_with(|| random.next().unwrap());
            // Half of all would only say that they are empty.
            payload[mode.frame_bytes() - 1] &= if number % 16 == 0 { 0xFF } else { 0xFE };
            assert_eq!(decoder.decode(payload, &mut out), Ok(mode.frame_samples()));
            if number % 100 == 99 {
                for frame in good.chunks_exact(mode.frame_bytes()) {
                    assert_eq!(decoder.decode(frame, &mut out), Ok(mode.frame_samples()));
                }
                assert!(peak(&out) > 500 && peak(&out) < 32_000, "{mode:?}: {}", peak(&out));
            }
        }
    }
}

#[test]
fn every_field_survives_the_payload() {
    for mode in MODES {
        let mut random = noise(11).map(|x| (x >> 24) as u8);
        let mut payload = [0; 50];
        let payload = &mut payload[..mode.frame_bytes()];
        let mut checked = 0;
        while checked < 500 {
            payload.fill_with(|| random.next().unwrap());
            let Some(parameters) = unpack(mode, payload) else { continue };
            let mut again = [0xAA; 50];
            let again = &mut again[..mode.frame_bytes()];
            pack(mode, &parameters, again);
            assert_eq!(again, payload, "{mode:?}");
            checked += 1;
        }
    }
}

#[test]
fn fields_stand_where_the_rfc_puts_them() {
    let mut parameters = Parameters { state_block: 2, ..Parameters::default() };
    parameters.lsf[0] = [0b10_0001, 0b100_0001, 0b100_0011];
    parameters.state_first = true;
    parameters.state_peak = 0b11_0011;
    parameters.state[0] = 0b100;
    parameters.state[1] = 0b011;
    parameters.segments[0] = Choice { vectors: [0b100_0001, 0, 0], gains: [0b1_0110, 0, 0] };
    parameters.segments[2] = Choice { vectors: [0; 3], gains: [0, 0, 0b101] };
    let mut payload = [0; 38];
    pack(Mode::Ms20, &parameters, &mut payload);
    // Class 1: the spectrum in 20 bits, block, position and peak in 9; class 2 begins at bit 48
    // with the first bit of each sample of the start state; the last gain ends before the last bit.
    assert_eq!(payload[..4], [0b1000_0110, 0b0000_1100, 0b0011_1011, 0b1001_1100]);
    assert_eq!(payload[4], 0b0001_0000, "vector and gain in the start state");
    assert_eq!(payload[6], 0b1000_0000);
    assert_eq!(payload[37], 0b0000_1010);
}

#[test]
fn one_vector_of_the_first_sub_block_is_sent_in_seven_bits() {
    for (sent, index) in [(0, 0), (43, 43), (44, 108), (107, 171), (108, 236), (127, 255)] {
        let mut parameters = Parameters { state_block: 1, ..Parameters::default() };
        parameters.segments[1].vectors = [200, index, index];
        let mut payload = [0; 38];
        pack(Mode::Ms20, &parameters, &mut payload);
        assert_eq!(unpack(Mode::Ms20, &payload), Some(parameters.clone()), "{sent}");
        // The same seven bits in a segment that is not folded.
        parameters.segments[1].vectors = [200, 0, 0];
        parameters.segments[0].vectors = [0, sent, sent];
        let mut other = [0; 38];
        pack(Mode::Ms20, &parameters, &mut other);
        let ones = |payload: [u8; 38]| payload.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(payload), ones(other), "{sent}");
    }
}

#[test]
fn a_frame_that_says_it_is_empty_is_concealed() {
    let pcm = voice(4_800);
    for mode in MODES {
        let mut payload = encode(mode, &pcm);
        let lost = decode(mode, &payload, |number| number == 5 || number == 8);
        let frame = mode.frame_bytes();
        payload[6 * frame - 1] |= 1;
        // No start state lies in block 0.
        let (byte, others) = match mode {
            Mode::Ms20 => (2, 0b1111_0011),
            Mode::Ms30 => (5, 0b0001_1111),
        };
        payload[8 * frame + byte] &= others;
        assert_eq!(unpack(mode, &payload[8 * frame..9 * frame]), None);
        assert_eq!(decode(mode, &payload, |_| false), lost, "{mode:?}");
    }
}

#[test]
fn a_payload_may_hold_several_frames() {
    let pcm = voice(1_920);
    for mode in MODES {
        let payload = encode(mode, &pcm);
        let mut out = vec![0; pcm.len()];
        assert_eq!(Decoder::new(mode).decode(&payload, &mut out), Ok(pcm.len()));
        assert_eq!(out, decode(mode, &payload, |_| false));
    }
}

#[test]
fn a_wrong_length_is_refused_and_changes_nothing() {
    let pcm = voice(4_800);
    for mode in MODES {
        let payload = encode(mode, &pcm);
        let expected = decode(mode, &payload, |_| false);
        let mut decoder = Decoder::new(mode);
        let mut heard = Vec::new();
        for frame in payload.chunks_exact(mode.frame_bytes()) {
            let mut out = [0; FRAME_SAMPLES_MAX];
            for wrong in [&[][..], &frame[1..], &payload[..mode.frame_bytes() + 1]] {
                assert_eq!(decoder.decode(wrong, &mut out), Err(CodecFault::BadPayload));
            }
            let short = &mut out[..mode.frame_samples() - 1];
            assert_eq!(decoder.decode(frame, short), Err(CodecFault::OutputTooSmall));
            assert_eq!(decoder.decode(frame, &mut out), Ok(mode.frame_samples()));
            heard.extend_from_slice(&out[..mode.frame_samples()]);
        }
        assert_eq!(heard, expected);
    }
}

#[test]
fn the_encoder_takes_whole_frames() {
    let pcm = voice(1_920);
    for mode in MODES {
        let mut encoder = Encoder::new(mode);
        let mut out = [0; 12 * 50];
        for wrong in [0, mode.frame_samples() - 1, mode.frame_samples() + 1, 600] {
            assert_eq!(encoder.encode(&pcm[..wrong], &mut out), Err(CodecFault::BadFrameLength));
        }
        let expected = encode(mode, &pcm);
        let short = &mut out[..expected.len() - 1];
        assert_eq!(encoder.encode(&pcm, short), Err(CodecFault::OutputTooSmall));
        assert_eq!(encoder.encode(&pcm, &mut out), Ok(expected.len()));
        assert_eq!(out[..expected.len()], expected);
    }
}

#[test]
fn extremes_are_coded_without_harm() {
    let random = || noise(5).map(|x| (x >> 16) as i16);
    let signals: [Vec<i16>; 6] = [
        vec![0; 48_000],
        vec![i16::MIN; 4_800],
        (0..4_800).map(|n| if n / 40 % 2 == 0 { i16::MIN } else { i16::MAX }).collect(),
        (0..4_800).map(|n| if n % 2 == 0 { i16::MIN } else { i16::MAX }).collect(),
        random().take(4_800).collect(),
        random().take(4_800).map(|x| x % 3).collect(),
    ];
    for mode in MODES {
        for (number, pcm) in signals.iter().enumerate() {
            let heard = decode(mode, &encode(mode, pcm), |_| false);
            let (loud, end) = (peak(pcm), &heard[heard.len() - 480..]);
            assert!(loud > 3 || peak(end) < 40, "{mode:?}, signal {number}: {}", peak(end));
        }
    }
}

#[test]
fn a_lost_frame_is_bridged_and_a_long_gap_fades() {
    let pcm = voice(24_000);
    for mode in MODES {
        let payload = encode(mode, &pcm);
        let frame = mode.frame_samples();
        let whole = decode(mode, &payload, |_| false);
        let around = 40 * frame..48 * frame;
        let one = decode(mode, &payload, |number| number == 42);
        let (level, lost) = (peak(&whole[around.clone()]), &one[around.clone()]);
        assert!(peak(lost) <= level + level / 4, "{mode:?}: {} of {level}", peak(lost));
        assert!(step(lost) <= step(&whole[around.clone()]) * 5 / 4, "{mode:?}: a click");
        assert!(peak(&one[42 * frame..43 * frame]) > level / 4, "{mode:?}: a hole");

        let gap = 42..42 + 3_840 / frame;
        let long = decode(mode, &payload, |number| gap.contains(&number));
        let levels = [0, 1, 2, 3].map(|part| peak(&long[42 * frame + part * 640..][..640]));
        assert!(levels[0] > levels[1] && levels[1] > levels[2], "{mode:?}: {levels:?}");
        assert!(levels[3] < 20, "{mode:?}: silent at the end, {levels:?}");
        // Two frames after the gap, speech is what it would have been.
        let back = (gap.end + 2) * frame..(gap.end + 12) * frame;
        let snr =
            segmental_snr(&whole[back.clone()], &[&long[back.clone()], &[0; 160][..]].concat());
        assert!(snr > 12.0, "{mode:?}: {snr} dB after the gap");
        let recovery = gap.end * frame..back.end;
        assert!(peak(&long[recovery.clone()]) <= peak(&whole[recovery]) * 5 / 4, "{mode:?}");
    }
}

#[test]
fn concealment_comes_in_pieces_of_any_length() {
    let pcm = voice(4_800);
    for mode in MODES {
        let frame = mode.frame_samples();
        let payload = encode(mode, &pcm);
        let mut decoders = [Decoder::new(mode), Decoder::new(mode)];
        let mut out = [0; 2 * FRAME_SAMPLES_MAX];
        for bytes in payload.chunks_exact(mode.frame_bytes()).take(12) {
            for decoder in &mut decoders {
                assert_eq!(decoder.decode(bytes, &mut out), Ok(frame));
            }
        }
        let level = peak(&out[..frame]);
        let mut pieces = [0; 2 * FRAME_SAMPLES_MAX];
        let [whole, pieced] = &mut decoders;
        whole.conceal(&mut out[..2 * frame]);
        for piece in pieces[..2 * frame].chunks_mut(20) {
            pieced.conceal(piece);
        }
        assert_eq!(out, pieces, "{mode:?}");

        // A frame begun and not ended passes into the next one without a step.
        pieced.conceal(&mut pieces[..60]);
        let before = pieces[59];
        let next = &payload[15 * mode.frame_bytes()..][..mode.frame_bytes()];
        assert_eq!(pieced.decode(next, &mut pieces), Ok(frame));
        let jump = (i32::from(pieces[0]) - i32::from(before)).abs();
        assert!(jump < i32::from(level), "{mode:?}: {jump} at level {level}");
        pieced.conceal(&mut []);
    }
}
