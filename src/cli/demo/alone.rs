//! What a codec alone leaves of the demo's sentence, with nothing of the daemon between: the yardstick
//! of codecs that keep the sound and not the waveform. An echo passes such a codec twice, and each pass
//! costs its own.

use super::measure::{self, Quality};
use super::phone::{format, sample_rate};
use super::speech::sentence;
use crate::codec::{CodecKind, Decoder, Encoder, EncoderSettings};

/// Longest payload of 20 ms of any codec.
const PAYLOAD_BYTES_MAX: usize = 1_275;
/// Silence after the sentence, so that the codec's delay cuts nothing off: 200 ms.
const TAIL_PER_SECOND: usize = 5;

/// The sentence after so many passes through an encoder and a decoder of 20 ms frames. `None` when the
/// codec cannot be had or leaves nothing to be found.
pub fn after_passes(codec: CodecKind, passes: usize) -> Option<Quality> {
    let rate = sample_rate(codec);
    let sent = sentence(rate);
    let mut heard = sent.clone();
    heard.resize(sent.len() + rate as usize / TAIL_PER_SECOND, 0);
    for _ in 0..passes {
        heard = pass(codec, &heard)?;
    }
    measure::compare(&sent, &heard, rate, rate as usize / TAIL_PER_SECOND)
}

fn pass(codec: CodecKind, pcm: &[i16]) -> Option<Vec<i16>> {
    let rate = sample_rate(codec);
    let settings = EncoderSettings::default();
    let mut encoder = Encoder::with_format(codec, format(codec), rate, settings).ok()?;
    let mut decoder = Decoder::with_format(codec, format(codec), rate).ok()?;
    let frame = rate as usize / 50;
    let (mut payload, mut back) = ([0; PAYLOAD_BYTES_MAX], vec![0; frame]);
    let mut heard = Vec::with_capacity(pcm.len());
    for spoken in pcm.chunks_exact(frame) {
        let bytes = encoder.encode(spoken, &mut payload).ok()?;
        let samples = decoder.decode(payload.get(..bytes)?, &mut back).ok()?;
        heard.extend_from_slice(back.get(..samples)?);
    }
    Some(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_through_ilbc_costs_its_own() {
        let [one, two] = [1, 2].map(|passes| after_passes(CodecKind::Ilbc, passes).expect("heard"));
        assert!((3.6..4.2).contains(&one.segmental_snr_db), "{one:?}");
        assert!((0.6..1.0).contains(&two.segmental_snr_db), "{two:?}");
        assert!((0.55..0.65).contains(&two.alignment.correlation), "{two:?}");
    }

    #[test]
    fn g711_keeps_the_waveform() {
        let two = after_passes(CodecKind::Pcmu, 2).expect("heard");
        assert!(two.segmental_snr_db > 30.0 && two.alignment.correlation > 0.99, "{two:?}");
    }
}
