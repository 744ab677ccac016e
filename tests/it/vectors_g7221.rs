//! G.722.1 against the vectors of the Recommendation, which the project may not carry: speech of
//! 321 frames at both rates, encoded, decoded, and decoded with lost frames, bit for bit.

use crate::torture_parse::test_data;
use std::path::Path;
use voxedge::codec::g7221::{BitRate, Decoder, Encoder, FRAME};

const FRAMES: usize = 321;

/// The frames that are lost in the vectors with frame errors.
const LOST: [usize; 12] = [4, 25, 77, 83, 108, 131, 138, 190, 224, 284, 305, 319];

const RATES: [(BitRate, &str); 2] = [(BitRate::K24, "24000"), (BitRate::K32, "32000")];

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    std::fs::read(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// 16-bit words, low byte first.
fn words(folder: &Path, name: &str) -> Vec<u16> {
    let bytes = bytes(folder, name);
    let (pairs, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty(), "{name} holds whole words");
    pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
}

/// Asserts equal samples in the 14 bits that the vectors have: the two lowest are cleared there.
fn assert_samples(name: &str, decoded: &[i16], expected: &[u16]) {
    assert_eq!(decoded.len(), expected.len(), "{name}");
    for (number, (frame, expected)) in decoded.chunks(FRAME).zip(expected.chunks(FRAME)).enumerate()
    {
        let frame: Vec<i16> = frame.iter().map(|sample| sample & !3).collect();
        let expected: Vec<i16> = expected.iter().map(|sample| *sample as i16).collect();
        assert_eq!(frame, expected, "{name}, frame {number}");
    }
}

#[test]
fn the_encoder_gives_the_packets_of_the_vectors() {
    const WAV_HEADER: usize = 22;
    let Some(folder) = test_data("g7221") else { return };
    let input = words(&folder, "g722_1_enc_in.wav").split_off(WAV_HEADER);
    let input: Vec<i16> = input.into_iter().map(|sample| sample as i16).collect();
    assert_eq!(input.len(), FRAMES * FRAME);
    for (rate, name) in RATES {
        let expected = bytes(&folder, &format!("g722_1_enc_out_{name}_be.pak"));
        assert_eq!(expected.len(), FRAMES * rate.frame_bytes());
        let mut encoder = Encoder::new(rate);
        let frames = input.chunks(FRAME).zip(expected.chunks(rate.frame_bytes()));
        for (number, (samples, expected)) in frames.enumerate() {
            let mut packet = [0; 80];
            let length = encoder.encode(samples, &mut packet).expect("a whole frame");
            assert_eq!(&packet[..length], expected, "{name}, frame {number}");
        }
    }
}

#[test]
fn the_decoder_gives_the_samples_of_the_vectors() {
    let Some(folder) = test_data("g7221") else { return };
    for (rate, name) in RATES {
        let packets = bytes(&folder, &format!("g722_1_enc_out_{name}_be.pak"));
        let expected = words(&folder, &format!("g722_1_dec_out_{name}.pcm"));
        let mut decoded = vec![0; FRAMES * FRAME];
        let mut decoder = Decoder::new(rate);
        for (packet, samples) in packets.chunks(rate.frame_bytes()).zip(decoded.chunks_mut(FRAME)) {
            assert_eq!(decoder.decode(packet, samples), Ok(FRAME));
        }
        assert_samples(name, &decoded, &expected);
    }
}

/// The frames of an ITU bit stream (G.192): a word that says whether the frame arrived, the number
/// of its bits, and a word for each bit.
fn frames_of_bit_stream(words: &[u16], rate: BitRate) -> Vec<Option<Vec<u8>>> {
    let bits = 8 * rate.frame_bytes();
    let frame = |frame: &[u16]| {
        assert_eq!(usize::from(frame[1]), bits);
        let bit = |word: &u16| match word {
            0x0081 => 1,
            0x007f => 0,
            other => panic!("{other:#06x} is no bit"),
        };
        let byte = |eight: &[u16]| eight.iter().fold(0, |byte, word| byte << 1 | bit(word));
        match frame[0] {
            0x6b21 => Some(frame[2..].chunks(8).map(byte).collect()),
            0x6b20 => None,
            other => panic!("{other:#06x} is no frame"),
        }
    };
    words.chunks(2 + bits).map(frame).collect()
}

#[test]
fn lost_frames_are_concealed_as_in_the_vectors() {
    let Some(folder) = test_data("g7221") else { return };
    for (rate, name) in RATES {
        let stream = words(&folder, &format!("g722_1_dec_in_{name}_fe.itu"));
        let frames = frames_of_bit_stream(&stream, rate);
        let lost: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].is_none()).collect();
        assert_eq!((frames.len(), &lost[..]), (FRAMES, &LOST[..]));
        let expected = words(&folder, &format!("g722_1_dec_out_{name}_fe.pcm"));
        let mut decoded = vec![0; FRAMES * FRAME];
        let mut decoder = Decoder::new(rate);
        for (frame, samples) in frames.iter().zip(decoded.chunks_mut(FRAME)) {
            match frame {
                Some(packet) => assert_eq!(decoder.decode(packet, samples), Ok(FRAME)),
                None => decoder.conceal(samples),
            }
        }
        assert_samples(name, &decoded, &expected);
    }
}
