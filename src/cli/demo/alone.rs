//! What a codec alone leaves of the demo's sentence, with nothing of the daemon between: the yardstick
//! of every echo. An echo passes its codec twice, and each pass costs its own.

use super::follow::{self, Quality};
use super::phone::{format, sample_rate};
use super::speech::sentence;
use crate::codec::{CodecKind, Decoder, Encoder, EncoderSettings};
use crate::standin::sound::{LinearResampler, to_bytes, to_samples};

/// Longest payload of 20 ms of any codec.
const PAYLOAD_BYTES_MAX: usize = 1_275;
/// Silence after the sentence, so that the codec's delay cuts nothing off: 200 ms.
const TAIL_PER_SECOND: usize = 5;
/// Rates of the agent's audio in Opus calls: what it hears and what it says, in hertz.
const OPUS_AGENT_HZ: (u32, u32) = (16_000, 24_000);
/// By so much later the second pass's frames begin than those of the first, in milliseconds: a call that
/// was stretched has any of them, and codecs differ by it.
const FRAMINGS_MS: [usize; 3] = [0, 7, 13];

/// What two passes leave of the sentence: the lowest figures for any place of the frames. `None` when the
/// codec cannot be had or leaves nothing to be found.
pub fn echo(codec: CodecKind) -> Option<Quality> {
    let all = FRAMINGS_MS.map(|framing_ms| compared(codec, &twice(codec, framing_ms, |_| true)?));
    all.into_iter().reduce(|a, b| {
        let (a, b) = (a?, b?);
        let segmental_snr_db = a.segmental_snr_db.min(b.segmental_snr_db);
        Some(Quality { segmental_snr_db, correlation: a.correlation.min(b.correlation), ..a })
    })?
}

/// What came back, against the sentence.
pub fn compared(codec: CodecKind, heard: &[i16]) -> Option<Quality> {
    let rate = sample_rate(codec);
    follow::compare(&sentence(rate), heard, rate, rate as usize / TAIL_PER_SECOND)
}

/// The sentence and a pause after two passes, the agent's rates between them. Of the first pass only those
/// packets come of which `comes` says so by their number; the decoder conceals the others.
pub fn twice(
    codec: CodecKind,
    framing_ms: usize,
    comes: impl Fn(usize) -> bool,
) -> Option<Vec<i16>> {
    let rate = sample_rate(codec);
    let (heard_hz, said_hz) = match codec {
        CodecKind::Opus => OPUS_AGENT_HZ,
        _ => (rate, rate),
    };
    let mut spoken = sentence(rate);
    spoken.resize(spoken.len() + rate as usize / TAIL_PER_SECOND, 0);
    let heard = pass(codec, &spoken, (rate, heard_hz), comes)?;
    let mut said = vec![0; said_hz as usize / 1_000 * framing_ms];
    match heard_hz == said_hz {
        true => said.extend(heard),
        false => {
            let mut resampler = LinearResampler::new(heard_hz, said_hz);
            said.extend(to_samples(&resampler.resample(&to_bytes(&heard))));
        }
    }
    pass(codec, &said, (said_hz, rate), |_| true)
}

/// An encoder and a decoder of 20 ms frames.
fn pass(
    codec: CodecKind,
    pcm: &[i16],
    (from_hz, to_hz): (u32, u32),
    comes: impl Fn(usize) -> bool,
) -> Option<Vec<i16>> {
    let settings = EncoderSettings::default();
    let mut encoder = Encoder::with_format(codec, format(codec), from_hz, settings).ok()?;
    let mut decoder = Decoder::with_format(codec, format(codec), to_hz).ok()?;
    let (mut payload, mut back) = ([0; PAYLOAD_BYTES_MAX], vec![0; to_hz as usize / 50]);
    let mut heard = Vec::with_capacity(pcm.len());
    for (number, spoken) in pcm.chunks_exact(from_hz as usize / 50).enumerate() {
        let bytes = encoder.encode(spoken, &mut payload).ok()?;
        if comes(number) {
            decoder.decode(payload.get(..bytes)?, &mut back).ok()?;
        } else {
            decoder.conceal(&mut back);
        }
        heard.extend_from_slice(&back);
    }
    Some(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_passes_leave_what_is_known_of_each_codec() {
        let known = [
            (CodecKind::Pcmu, 34.5, 0.999),
            (CodecKind::Pcma, 34.5, 0.999),
            (CodecKind::G722, 25.8, 0.998),
            (CodecKind::G7221, 14.0, 0.98),
            (CodecKind::Opus, 4.4, 0.86),
            (CodecKind::AmrWb, 4.2, 0.85),
            (CodecKind::Ilbc, 1.2, 0.62),
        ];
        for (codec, snr, likeness) in known.into_iter().filter(|known| known.0.is_available()) {
            let left = echo(codec).expect("heard");
            assert!((snr..snr + 2.0).contains(&left.segmental_snr_db), "{codec:?}: {left:?}");
            assert!((likeness..likeness + 0.08).contains(&left.correlation), "{codec:?}: {left:?}");
        }
    }
}
