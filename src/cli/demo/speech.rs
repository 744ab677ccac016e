//! The sentence that the demo speaks, at the rate of each codec. Bundled at 16 kHz; other rates come
//! from a windowed-sinc interpolation, computed once before a call and never in one.

/// The bundled sentence, 16 kHz mono s16le.
const SENTENCE_16K: &[u8] = include_bytes!("../../../fixtures/pcm/sentence_16k.s16le");
/// Rate of the bundled sentence, in hertz.
const SENTENCE_HZ: u32 = 16_000;
/// Zero crossings of the sinc on each side.
const REACH: f64 = 24.0;

/// The sentence at `rate` hertz.
pub fn sentence(rate: u32) -> Vec<i16> {
    let pcm: Vec<i16> =
        SENTENCE_16K.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    resample(&pcm, SENTENCE_HZ, rate)
}

/// Band-limited interpolation from one rate to another.
pub fn resample(pcm: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz {
        return pcm.to_vec();
    }
    let ratio = f64::from(to_hz) / f64::from(from_hz);
    // Below the lower of both Nyquist frequencies, with room for the filter's slope.
    let cutoff = ratio.min(1.0) * 0.94;
    let reach = (REACH / cutoff).ceil() as i64;
    let length = (pcm.len() as f64 * ratio) as usize;
    (0..length).map(|n| interpolate(pcm, n as f64 / ratio, cutoff, reach)).collect()
}

fn interpolate(pcm: &[i16], at: f64, cutoff: f64, reach: i64) -> i16 {
    let centre = at.floor() as i64;
    let mut sum = 0.0;
    for index in centre - reach + 1..=centre + reach {
        let Some(sample) = usize::try_from(index).ok().and_then(|i| pcm.get(i)) else { continue };
        let distance = at - index as f64;
        sum += f64::from(*sample) * kernel(distance, cutoff, reach as f64);
    }
    sum.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

/// A sinc of the cutoff under a Hann window.
fn kernel(distance: f64, cutoff: f64, reach: f64) -> f64 {
    let x = std::f64::consts::PI * distance * cutoff;
    let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
    let window = 0.5 + 0.5 * (std::f64::consts::PI * distance / reach).cos();
    cutoff * sinc * window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_level_and_its_pitch_at_each_rate() {
        let tone = |rate: u32| -> Vec<i16> {
            let step = 2.0 * std::f64::consts::PI * 1_000.0 / f64::from(rate);
            (0..rate / 5).map(|n| ((f64::from(n) * step).sin() * 8_000.0) as i16).collect()
        };
        for rate in [8_000, 24_000, 48_000] {
            let (ours, ideal) = (resample(&tone(16_000), 16_000, rate), tone(rate));
            let edge = rate as usize / 50;
            let worst = (edge..ideal.len() - edge)
                .map(|n| (i32::from(ours[n]) - i32::from(ideal[n])).abs())
                .max();
            assert!(worst < Some(40), "{rate}: {worst:?}");
        }
    }

    #[test]
    fn the_sentence_lasts_as_long_at_each_rate() {
        let seconds = |rate: u32| sentence(rate).len() as f64 / f64::from(rate);
        assert!((seconds(8_000) - seconds(48_000)).abs() < 0.001);
        assert!((1.0..10.0).contains(&seconds(16_000)));
    }
}
