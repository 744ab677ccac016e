//! What the stand-in's agents say: a tone, a sentence and silence, as mono 16-bit little-endian PCM at
//! whatever rate a call asks for. Each is rendered once for a rate and then only sliced.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::sync::{Mutex, PoisonError};

/// One English sentence, 16 kHz.
const SENTENCE: &[u8] = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
const SENTENCE_HZ: u32 = 16_000;
/// −20 dBFS against a full-scale sine.
const TONE_PEAK: f64 = 3_276.7;
const TONE_HZ: f64 = 1_000.0;

/// Something to say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sound {
    /// 1 kHz at −20 dBFS, one second on and one second off.
    Tone,
    /// The bundled sentence, just under four seconds.
    Sentence,
    /// One second of zeros.
    Silence,
}

/// The rendered sounds by rate.
#[derive(Default)]
pub struct Sounds(Mutex<BTreeMap<(Sound, u32), Bytes>>);

impl Sounds {
    /// The PCM of `sound` at `rate_hz`.
    pub fn render(&self, sound: Sound, rate_hz: u32) -> Bytes {
        let mut rendered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rendered
            .entry((sound, rate_hz))
            .or_insert_with(|| to_bytes(&samples(sound, rate_hz)))
            .clone()
    }
}

fn samples(sound: Sound, rate_hz: u32) -> Vec<i16> {
    match sound {
        Sound::Tone => tone(rate_hz),
        Sound::Sentence => resample(&to_samples(SENTENCE), SENTENCE_HZ, rate_hz),
        Sound::Silence => vec![0; rate_hz as usize],
    }
}

fn tone(rate_hz: u32) -> Vec<i16> {
    let step = 2.0 * PI * TONE_HZ / f64::from(rate_hz);
    let on = (0..rate_hz).map(|index| (TONE_PEAK * (step * f64::from(index)).sin()).round() as i16);
    on.chain(std::iter::repeat_n(0, rate_hz as usize)).collect()
}

/// Windowed-sinc interpolation; the cut-off is at the lower of the two Nyquist frequencies.
fn resample(input: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    const LOBES: f64 = 12.0;
    if from_hz == to_hz {
        return input.to_vec();
    }
    let cutoff = (f64::from(to_hz) / f64::from(from_hz)).min(1.0);
    let half = LOBES / cutoff;
    let length = (input.len() as u64 * u64::from(to_hz) / u64::from(from_hz)) as usize;
    (0..length)
        .map(|index| {
            let centre = index as f64 * f64::from(from_hz) / f64::from(to_hz);
            let first = (centre - half).ceil().max(0.0) as usize;
            let last = ((centre + half).floor() as usize).min(input.len().saturating_sub(1));
            let sum: f64 = (first..=last)
                .map(|at| f64::from(input[at]) * kernel(at as f64 - centre, cutoff, half))
                .sum();
            sum.round().clamp(-32_768.0, 32_767.0) as i16
        })
        .collect()
}

fn kernel(distance: f64, cutoff: f64, half: f64) -> f64 {
    let window = 0.5 + 0.5 * (PI * distance / half).cos();
    let x = PI * distance * cutoff;
    let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
    cutoff * sinc * window
}

/// Samples of little-endian bytes; an odd byte at the end is left.
pub fn to_samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Little-endian bytes of samples.
pub fn to_bytes(samples: &[i16]) -> Bytes {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// True when the mean level of the frame is that of speech (about −35 dBFS) rather than of a line.
pub fn is_voice(frame: &[u8]) -> bool {
    const MEAN_MIN: u64 = 500;
    let samples = (frame.len() / 2) as u64;
    let sum: u64 = frame
        .chunks_exact(2)
        .map(|pair| u64::from(i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs()))
        .sum();
    samples > 0 && sum / samples >= MEAN_MIN
}

/// Turns a stream of frames from one rate to another by straight lines between samples: good enough
/// for an echo, and it never holds a frame back.
#[derive(Debug)]
pub struct LinearResampler {
    step: f64,
    position: f64,
    last: i16,
}

impl LinearResampler {
    pub fn new(from_hz: u32, to_hz: u32) -> LinearResampler {
        LinearResampler { step: f64::from(from_hz) / f64::from(to_hz), position: 1.0, last: 0 }
    }

    /// The frame at the other rate.
    pub fn resample(&mut self, frame: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity((frame.len() as f64 / self.step) as usize + 4);
        for pair in frame.chunks_exact(2) {
            let next = i16::from_le_bytes([pair[0], pair[1]]);
            while self.position <= 1.0 {
                let between =
                    f64::from(self.last) + self.position * (f64::from(next) - f64::from(self.last));
                out.extend_from_slice(&(between.round() as i16).to_le_bytes());
                self.position += self.step;
            }
            self.position -= 1.0;
            self.last = next;
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power_at(samples: &[i16], hz: f64, rate_hz: u32) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (index, sample) in samples.iter().enumerate() {
            let angle = 2.0 * PI * hz * index as f64 / f64::from(rate_hz);
            re += f64::from(*sample) * angle.cos();
            im += f64::from(*sample) * angle.sin();
        }
        2.0 * re.hypot(im) / samples.len() as f64
    }

    #[test]
    fn the_tone_is_one_kilohertz_at_minus_twenty_and_half_of_it_is_silence() {
        for rate_hz in [8_000, 16_000, 24_000, 48_000] {
            let samples = tone(rate_hz);
            let (on, off) = samples.split_at(rate_hz as usize);
            assert!((power_at(on, 1_000.0, rate_hz) - TONE_PEAK).abs() < 2.0, "{rate_hz}");
            assert!(off.len() == rate_hz as usize && off.iter().all(|sample| *sample == 0));
        }
    }

    #[test]
    fn resampling_keeps_a_tone_and_removes_what_the_lower_rate_cannot_hold() {
        let wave = |hz: f64| -> Vec<i16> {
            (0..16_000)
                .map(|n| (8_000.0 * (2.0 * PI * hz * f64::from(n) / 16_000.0).sin()) as i16)
                .collect()
        };
        for to_hz in [8_000, 24_000, 48_000] {
            let kept = resample(&wave(1_000.0), 16_000, to_hz);
            assert_eq!(kept.len(), to_hz as usize);
            assert!((power_at(&kept, 1_000.0, to_hz) / 8_000.0 - 1.0).abs() < 0.02, "{to_hz}");
        }
        let folded = resample(&wave(6_000.0), 16_000, 8_000);
        assert!(power_at(&folded, 2_000.0, 8_000) < 80.0, "an image 40 dB down");
    }

    #[test]
    fn the_sentence_lasts_as_long_at_every_rate() {
        let sounds = Sounds::default();
        let millis = |rate_hz: u32| {
            sounds.render(Sound::Sentence, rate_hz).len() as u64 * 500 / u64::from(rate_hz)
        };
        assert_eq!(
            (millis(8_000), millis(24_000), millis(48_000)),
            (millis(16_000), millis(16_000), millis(16_000))
        );
        assert!(is_voice(&sounds.render(Sound::Sentence, 16_000)));
        assert!(!is_voice(&sounds.render(Sound::Silence, 16_000)) && !is_voice(&[]));
    }

    #[test]
    fn the_echo_resampler_keeps_the_length_frame_by_frame() {
        let mut up = LinearResampler::new(16_000, 24_000);
        let frame = to_bytes(&[1_000; 320]);
        let lengths: Vec<usize> = (0..3).map(|_| up.resample(&frame).len()).collect();
        assert!(lengths.iter().all(|length| (958..=962).contains(length)), "{lengths:?}");
        assert!(to_samples(&up.resample(&frame)).iter().all(|sample| *sample == 1_000));
    }
}
