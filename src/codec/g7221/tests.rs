use super::{BitRate, Decoder, Encoder, FRAME};
use crate::codec::CodecFault;

const RATES: [BitRate; 2] = [BitRate::K24, BitRate::K32];

/// Linear congruential noise (Numerical Recipes' constants).
fn noise(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |x| {
        Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    })
    .skip(1)
}

/// Two seconds in whole numbers only, of everything that takes another path: silence, soft and loud
/// noise, triangles from low to high, clicks, a square wave at full scale.
fn signal() -> Vec<i16> {
    let mut words = noise(7).map(|word| (word >> 16) as i16);
    let mut white = |level: i16| words.next().unwrap_or_default() / level;
    let triangle = |n: i32, period: i32, level: i32| {
        let phase = n % period;
        (level - 2 * level * (phase - period / 2).abs() / (period / 2)) as i16
    };
    (0..100 * FRAME as i32)
        .map(|n| match n / (10 * FRAME as i32) {
            0 => 0,
            1 => white(4_000),
            2 => triangle(n, 160, 12_000) + white(200),
            3 => triangle(n, 37, 9_000),
            4 => white(1),
            5 => triangle(n, 12 + n / 700, 3_000) + white(50),
            6 if n % 500 == 0 => i16::MAX,
            6 => white(9_000),
            7 if n / 8 % 2 == 0 => i16::MIN,
            7 => i16::MAX,
            8 => white(8) + triangle(n, 1_000, 20_000),
            _ => triangle(n, 100, 300),
        })
        .collect()
}

fn encode(rate: BitRate, pcm: &[i16]) -> Vec<u8> {
    let mut out = vec![0; pcm.len() / FRAME * rate.frame_bytes()];
    assert_eq!(Encoder::new(rate).encode(pcm, &mut out), Ok(out.len()));
    out
}

/// FNV-1a of 64 bits.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[test]
fn the_bits_of_every_kind_of_signal_stay_what_they_are() {
    let hashes = RATES.map(|rate| hash(encode(rate, &signal())));
    assert_eq!(hashes, [0x399c_8829_34af_c23d, 0xf3db_78cf_782e_ff7a], "{hashes:#018x?}");
}

#[test]
fn the_samples_of_good_lost_and_broken_frames_stay_what_they_are() {
    let hashes = RATES.map(|rate| {
        let mut payloads = encode(rate, &signal());
        let mut broken = noise(11);
        let mut decoder = Decoder::new(rate);
        let mut pcm = vec![0; 100 * FRAME];
        let frames = payloads.chunks_mut(rate.frame_bytes()).zip(pcm.chunks_mut(FRAME));
        for (number, (payload, samples)) in frames.enumerate() {
            match number % 9 {
                4 => {
                    decoder.conceal(samples);
                    continue;
                }
                7 => payload[(number / 9) % 5] ^= broken.next().unwrap_or_default() as u8,
                _ => {}
            }
            assert_eq!(decoder.decode(payload, samples), Ok(FRAME));
        }
        hash(pcm.into_iter().flat_map(i16::to_le_bytes))
    });
    assert_eq!(hashes, [0x526a_d5a7_6e59_b8c2, 0x8afc_da2c_3d3d_fd37], "{hashes:#018x?}");
}

/// The ratio of signal and error in decibels, when the output is a frame late.
fn signal_to_error(pcm: &[i16], decoded: &[i16]) -> f64 {
    let (mut power, mut error) = (0.0, 0.0);
    for (sample, decoded) in pcm.iter().zip(&decoded[FRAME..]) {
        power += f64::from(*sample).powi(2);
        error += (f64::from(*sample) - f64::from(*decoded)).powi(2);
    }
    10.0 * (power / error).log10()
}

#[test]
fn a_chord_comes_back_a_frame_later() {
    let chord = |n: i32| {
        [(440.0, 4_000.0), (1_250.0, 3_000.0), (3_300.0, 1_500.0)]
            .map(|(hz, level): (f64, f64)| {
                level * (std::f64::consts::TAU * hz * f64::from(n) / 16_000.0).sin()
            })
            .iter()
            .sum::<f64>() as i16
    };
    let pcm: Vec<i16> = (0..50 * FRAME as i32).map(chord).collect();
    for (rate, least_decibels) in [(BitRate::K24, 20.0), (BitRate::K32, 22.0)] {
        let mut decoded = vec![0; pcm.len()];
        Decoder::new(rate).decode(&encode(rate, &pcm), &mut decoded).expect("whole frames");
        let ratio = signal_to_error(&pcm, &decoded);
        assert!(ratio > least_decibels, "{rate:?}: {ratio:.1} dB");
    }
}

#[test]
fn silence_stays_silent() {
    for rate in RATES {
        let mut decoded = vec![0; 20 * FRAME];
        let payload = encode(rate, &[0; 20 * FRAME]);
        Decoder::new(rate).decode(&payload, &mut decoded).expect("whole frames");
        let loudest = decoded.iter().map(|sample| sample.unsigned_abs()).max();
        assert!(loudest < Some(16), "{rate:?}: {loudest:?}");
    }
}

#[test]
fn many_frames_in_one_payload_are_as_one_after_the_other() {
    for rate in RATES {
        let payload = encode(rate, &signal()[20 * FRAME..26 * FRAME]);
        let (mut together, mut single) = ([0; 6 * FRAME], [0; 6 * FRAME]);
        assert_eq!(Decoder::new(rate).decode(&payload, &mut together), Ok(6 * FRAME));
        let mut decoder = Decoder::new(rate);
        for (frame, samples) in payload.chunks(rate.frame_bytes()).zip(single.chunks_mut(FRAME)) {
            assert_eq!(decoder.decode(frame, samples), Ok(FRAME));
        }
        assert!(together == single);
    }
}

#[test]
fn wrong_lengths_are_refused_and_change_nothing() {
    for rate in RATES {
        let bytes = rate.frame_bytes();
        let payload = encode(rate, &signal()[20 * FRAME..30 * FRAME]);
        let (mut disturbed, mut plain) = (Decoder::new(rate), Decoder::new(rate));
        let (mut a, mut b) = ([0; FRAME], [0; FRAME]);
        let mut large = [0; 4 * FRAME];
        for frame in payload.chunks(bytes) {
            for wrong in [0, 1, bytes - 1, bytes + 1, 2 * bytes - 1] {
                let refused = disturbed.decode(&payload[..wrong], &mut large);
                assert_eq!(refused, Err(CodecFault::BadPayload), "{wrong} bytes");
            }
            let short = disturbed.decode(frame, &mut large[..FRAME - 1]);
            assert_eq!(short, Err(CodecFault::OutputTooSmall));
            let short = disturbed.decode(&payload[..2 * bytes], &mut large[..2 * FRAME - 1]);
            assert_eq!(short, Err(CodecFault::OutputTooSmall));
            assert_eq!(disturbed.decode(frame, &mut a), plain.decode(frame, &mut b));
            assert!(a == b);
        }

        let (mut disturbed, mut plain) = (Encoder::new(rate), Encoder::new(rate));
        let (mut a, mut b) = ([0; 80], [0; 80]);
        for samples in signal()[20 * FRAME..30 * FRAME].chunks(FRAME) {
            for wrong in [0, 1, FRAME - 1, FRAME + 1] {
                let refused = disturbed.encode(&signal()[..wrong], &mut a);
                assert_eq!(refused, Err(CodecFault::BadFrameLength), "{wrong} samples");
            }
            let short = disturbed.encode(samples, &mut a[..bytes - 1]);
            assert_eq!(short, Err(CodecFault::OutputTooSmall));
            assert_eq!(disturbed.encode(samples, &mut a), plain.encode(samples, &mut b));
            assert_eq!(a, b);
        }
    }
}

#[test]
fn a_reset_encoder_is_a_new_one() {
    let pcm = signal();
    let mut encoder = Encoder::new(BitRate::K24);
    let mut out = vec![0; 100 * 60];
    encoder.encode(&pcm, &mut out).expect("whole frames");
    encoder.reset();
    encoder.encode(&pcm, &mut out).expect("whole frames");
    assert!(out == encode(BitRate::K24, &pcm));
}

#[test]
fn concealment_repeats_the_spectrum_then_sinks_whatever_the_lengths() {
    for rate in RATES {
        let payload = encode(rate, &signal()[20 * FRAME..25 * FRAME]);
        let concealed = |lengths: &[usize]| {
            let mut decoder = Decoder::new(rate);
            decoder.decode(&payload, &mut [0; 5 * FRAME]).expect("whole frames");
            let mut out = [0; 40 * FRAME];
            let mut rest = &mut out[..];
            for length in lengths.iter().cycle() {
                let (now, later) = rest.split_at_mut((*length).min(rest.len()));
                decoder.conceal(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            out
        };
        let whole = concealed(&[FRAME]);
        let level = |frame: usize| {
            let samples = &whole[frame * FRAME..][..FRAME];
            samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>().sqrt()
        };
        assert!(level(0) > 20_000.0, "{rate:?}: {}", level(0));
        for frame in 1..12 {
            let fall = level(frame + 3) / level(frame);
            assert!(fall < 0.9, "{rate:?} {frame}: {fall:.2} in three frames");
        }
        assert!(level(39) < level(0) / 100.0, "{rate:?}: {}", level(39));
        for lengths in [&[40][..], &[160], &[40, 320, 80], &[4 * FRAME]] {
            assert!(concealed(lengths) == whole, "{lengths:?}");
        }
    }
}

#[test]
fn a_frame_after_half_a_concealed_one_is_decoded_from_its_beginning() {
    let payload = encode(BitRate::K32, &signal()[20 * FRAME..22 * FRAME]);
    let (first, second) = payload.split_at(80);
    let decode = |concealed: usize| {
        let mut decoder = Decoder::new(BitRate::K32);
        let mut out = [0; FRAME];
        decoder.decode(first, &mut out).expect("a whole frame");
        decoder.conceal(&mut out[..concealed]);
        decoder.decode(second, &mut out).expect("a whole frame");
        let after = out;
        decoder.conceal(&mut out);
        (after, out)
    };
    assert!(decode(FRAME / 2) == decode(FRAME));
}

#[test]
fn no_payload_makes_a_decoder_panic() {
    for rate in RATES {
        let mut words = noise(3);
        let mut decoder = Decoder::new(rate);
        let (mut payload, mut out) = ([0; 80], [0; FRAME]);
        let payload = &mut payload[..rate.frame_bytes()];
        for number in 0..150_000 {
            let (chunks, _) = payload.as_chunks_mut::<4>();
            chunks.iter_mut().zip(&mut words).for_each(|(bytes, word)| {
                *bytes = (word ^ word >> 15).to_be_bytes();
            });
            // Random powers soon leave their range: half of the frames begin with likely ones.
            if number % 2 == 0 {
                payload[..8].copy_from_slice(&[0x8a, 0xb4, 0x10, 0xf3, 0x52, 0x08, 0x11, 0x3a]);
            }
            assert_eq!(decoder.decode(payload, &mut out), Ok(FRAME));
        }
    }
}

#[test]
fn no_damage_to_a_frame_makes_a_decoder_panic() {
    for rate in RATES {
        let clean = encode(rate, &signal());
        let mut words = noise(5).map(|word| word as usize >> 8);
        let mut decoder = Decoder::new(rate);
        let (mut frame, mut out) = ([0; 80], [0; FRAME]);
        let frame = &mut frame[..rate.frame_bytes()];
        for clean in clean.chunks(rate.frame_bytes()).cycle().take(20_000) {
            frame.copy_from_slice(clean);
            for _ in 0..3 {
                let (at, bit) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
                frame[at % clean.len()] ^= 1 << (bit % 8);
            }
            assert_eq!(decoder.decode(frame, &mut out), Ok(FRAME));
        }
    }
}
