//! What an outgoing call heard before its agent joined: ringing tones, announcements, a mailbox. It
//! is played to nobody, and kept for whoever asks why a call went wrong: the last ten seconds as
//! µ-law at 8 kHz, and what they are in figures. Packets are taken as they come, without a jitter
//! buffer. It is made by the first packet; calls without early media have none.

use super::clock::Ticks;
use super::plan::{EarlyFigures, EarlyMedia, EarlySound};
use crate::codec::g711::Law;
use crate::codec::resample::Resampler;
use crate::codec::{CodecFault, CodecKind, Decoder};
use std::f32::consts::TAU;

/// Rate of what is kept.
const RATE_HZ: u32 = 8_000;
/// Bytes that are kept: ten seconds.
pub(super) const KEPT_BYTES_MAX: usize = 10 * RATE_HZ as usize;
/// The storage grows by a second at a time.
const GROWTH_BYTES: usize = RATE_HZ as usize;
/// Samples of the longest packet: 120 ms of Opus at 8 kHz, or 1,400 bytes of G.722.
const PACKET_SAMPLES_MAX: usize = 2_800;
/// Samples that are judged together: 40 ms tell tones apart that lie 25 Hz apart.
const JUDGED_SAMPLES: usize = 320;
/// Below this mean square (−50 dBFS) a frame is silence.
const SILENCE: f32 = 32_768.0 * 32_768.0 / 100_000.0;
/// The part of a frame's energy that one tone or a pair must have.
const TONAL_PART: f32 = 0.7;
/// The tones of telephone networks, alone and in pairs (ITU-T E.180, supplement 2).
const SINGLES_HZ: [f32; 4] = [400.0, 425.0, 440.0, 450.0];
const PAIRS_HZ: [(f32, f32); 4] = [(440.0, 480.0), (480.0, 620.0), (350.0, 440.0), (400.0, 450.0)];

/// The ear of an outgoing call before the join.
pub(super) struct EarlyEar {
    kind: CodecKind,
    decoder: Decoder,
    resampler: Option<Resampler>,
    /// The ring of what is kept; `oldest` is its begin once it is full.
    kept: Vec<u8>,
    oldest: usize,
    frame: [i16; JUDGED_SAMPLES],
    filled: usize,
    packets: u32,
    heard: Ticks,
    energy: f64,
    samples: u64,
    frames: u32,
    loud_frames: u32,
    tonal_frames: u32,
}

impl EarlyEar {
    pub(super) fn new(kind: CodecKind) -> Result<EarlyEar, CodecFault> {
        let (decoder, resampler) = decoding(kind)?;
        Ok(EarlyEar {
            kind,
            decoder,
            resampler,
            kept: Vec::new(),
            oldest: 0,
            frame: [0; JUDGED_SAMPLES],
            filled: 0,
            packets: 0,
            heard: Ticks::default(),
            energy: 0.0,
            samples: 0,
            frames: 0,
            loud_frames: 0,
            tonal_frames: 0,
        })
    }

    /// Takes the payload of one packet. What cannot be decoded is passed over.
    pub(super) fn hear(&mut self, kind: CodecKind, payload: &[u8]) {
        if kind != self.kind {
            let Ok((decoder, resampler)) = decoding(kind) else { return };
            (self.kind, self.decoder, self.resampler) = (kind, decoder, resampler);
        }
        self.packets = self.packets.saturating_add(1);
        let mut pcm = [0; PACKET_SAMPLES_MAX];
        let Ok(count) = self.decoder.decode(payload, &mut pcm) else { return };
        let Some(resampler) = &mut self.resampler else {
            return self.keep(&pcm[..count]);
        };
        let mut narrow = [0; PACKET_SAMPLES_MAX];
        let count = resampler.resample(&pcm[..count], &mut narrow).unwrap_or(0);
        self.keep(&narrow[..count]);
    }

    /// What it was in figures.
    pub(super) fn figures(&self) -> EarlyFigures {
        let mean_square = self.energy / self.samples.max(1) as f64;
        let level = 10.0 * (mean_square / 32_768.0f64.powi(2)).log10();
        EarlyFigures {
            packets: self.packets,
            heard_ms: self.heard.milliseconds(),
            level_dbfs: level.clamp(-100.0, 0.0).round() as i8,
            sound: self.sound(),
        }
    }

    /// All that is kept, from the oldest to the newest.
    pub(super) fn finish(mut self) -> EarlyMedia {
        let figures = self.figures();
        self.kept.rotate_left(self.oldest);
        EarlyMedia { figures, mu_law: self.kept }
    }

    /// One frame in fifty may be loud in silence: a click. Four fifths of what is loud must be tones,
    /// since their edges are none.
    fn sound(&self) -> EarlySound {
        if self.loud_frames * 50 <= self.frames {
            EarlySound::Silence
        } else if self.tonal_frames * 5 >= self.loud_frames * 4 {
            EarlySound::Tones
        } else {
            EarlySound::Other
        }
    }

    fn keep(&mut self, pcm: &[i16]) {
        self.heard += Ticks::of(pcm.len(), RATE_HZ);
        self.samples += pcm.len() as u64;
        for sample in pcm {
            self.energy += f64::from(*sample).powi(2);
            self.frame[self.filled] = *sample;
            self.filled += 1;
            if self.filled == JUDGED_SAMPLES {
                self.filled = 0;
                self.judge();
            }
        }
        let mut bytes = [0; PACKET_SAMPLES_MAX];
        let count = Law::Mu.encode(pcm, &mut bytes).unwrap_or(0);
        self.store(&bytes[..count]);
    }

    fn store(&mut self, bytes: &[u8]) {
        let (fresh, over) = bytes.split_at(bytes.len().min(KEPT_BYTES_MAX - self.kept.len()));
        if self.kept.capacity() < self.kept.len() + fresh.len() {
            self.kept.reserve_exact(GROWTH_BYTES.max(fresh.len()));
        }
        self.kept.extend_from_slice(fresh);
        for byte in over {
            self.kept[self.oldest] = *byte;
            self.oldest = (self.oldest + 1) % KEPT_BYTES_MAX;
        }
    }

    fn judge(&mut self) {
        self.frames += 1;
        let square = |sample: &i16| f32::from(*sample) * f32::from(*sample);
        let mean_square = self.frame.iter().map(square).sum::<f32>() / JUDGED_SAMPLES as f32;
        if mean_square < SILENCE {
            return;
        }
        self.loud_frames += 1;
        let part = |hz| power(&self.frame, hz) / mean_square;
        let single = SINGLES_HZ.into_iter().any(|hz| part(hz) >= TONAL_PART);
        let pair = |(low, high)| part(low) + part(high) >= TONAL_PART;
        if single || PAIRS_HZ.into_iter().any(pair) {
            self.tonal_frames += 1;
        }
    }
}

/// Mean square of the part of `frame` at `hz`, by Goertzel's recursion.
fn power(frame: &[i16], hz: f32) -> f32 {
    let turn = 2.0 * (TAU * hz / RATE_HZ as f32).cos();
    let (mut last, mut before) = (0.0f32, 0.0f32);
    for sample in frame {
        (last, before) = (f32::from(*sample) + turn * last - before, last);
    }
    let square = last * last + before * before - turn * last * before;
    2.0 * square / (frame.len() as f32).powi(2)
}

fn decoding(kind: CodecKind) -> Result<(Decoder, Option<Resampler>), CodecFault> {
    let rate_hz = kind.pcm_rate(RATE_HZ);
    let resampler = match rate_hz == RATE_HZ {
        true => None,
        false => Some(Resampler::continuous(rate_hz, RATE_HZ)?),
    };
    Ok((Decoder::new(kind, rate_hz)?, resampler))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Encoder, EncoderSettings};

    fn tones(parts: &[(f32, f32)], seconds: f32) -> Vec<i16> {
        let value = |n: usize| {
            let wave = |(hz, level): &(f32, f32)| level * (TAU * hz * n as f32 / 8_000.0).sin();
            parts.iter().map(wave).sum::<f32>() as i16
        };
        (0..(seconds * 8_000.0) as usize).map(value).collect()
    }

    /// Ringing: so long on, so long off, three times.
    fn cadence(on: Vec<i16>, off_seconds: f32) -> Vec<i16> {
        let off = vec![0; (off_seconds * 8_000.0) as usize];
        [on, off].concat().repeat(3)
    }

    fn heard(kind: CodecKind, pcm: &[i16], rate_hz: u32) -> EarlyMedia {
        let mut ear = EarlyEar::new(kind).unwrap();
        let mut encoder = Encoder::new(kind, rate_hz, EncoderSettings::default()).unwrap();
        for frame in pcm.chunks_exact(rate_hz as usize / 50) {
            let mut payload = [0; 400];
            let len = encoder.encode(frame, &mut payload).unwrap();
            ear.hear(kind, &payload[..len]);
        }
        ear.finish()
    }

    fn speech() -> Vec<i16> {
        let sentence = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
        sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn ringing_and_busy_are_tones_and_speech_and_noise_are_not() {
        let american = cadence(tones(&[(440.0, 4_000.0), (480.0, 4_000.0)], 2.0), 4.0);
        let british = cadence(tones(&[(400.0, 4_000.0), (450.0, 4_000.0)], 0.4), 0.2);
        let european = cadence(tones(&[(425.0, 6_000.0)], 1.0), 4.0);
        let busy = cadence(tones(&[(480.0, 4_000.0), (620.0, 4_000.0)], 0.5), 0.5);
        let faint = cadence(tones(&[(425.0, 200.0)], 1.0), 4.0);
        let mut seed = 1u32;
        let noise: Vec<i16> = (0..40_000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 19) as i16 - 4_096
            })
            .collect();
        let narrow: Vec<i16> = speech().into_iter().step_by(2).collect();
        let tone_of_a_voice = tones(&[(210.0, 4_000.0), (420.0, 3_000.0), (630.0, 2_000.0)], 3.0);
        for (what, pcm, sound) in [
            ("ringing, North America", american, EarlySound::Tones),
            ("ringing, United Kingdom", british, EarlySound::Tones),
            ("ringing, Europe", european, EarlySound::Tones),
            ("busy", busy, EarlySound::Tones),
            ("faint ringing", faint, EarlySound::Tones),
            ("nothing", vec![0; 24_000], EarlySound::Silence),
            ("hiss", tones(&[(1_000.0, 30.0)], 3.0), EarlySound::Silence),
            ("noise", noise, EarlySound::Other),
            ("speech", narrow, EarlySound::Other),
            ("a hum", tone_of_a_voice, EarlySound::Other),
        ] {
            for kind in [CodecKind::Pcmu, CodecKind::Pcma] {
                let figures = heard(kind, &pcm, 8_000).figures;
                assert_eq!(figures.sound, sound, "{what}: {figures:?}");
            }
        }
    }

    #[test]
    fn wideband_is_kept_narrow_and_measured() {
        for kind in [CodecKind::G722, CodecKind::Opus] {
            let early = heard(kind, &speech(), 16_000);
            let frames = speech().len() / 320;
            assert_eq!(early.figures.packets as usize, frames);
            assert_eq!(early.figures.heard_ms, frames as u64 * 20);
            assert_eq!(early.mu_law.len(), frames * 160);
            assert_eq!(early.figures.sound, EarlySound::Other, "{kind:?}");
            assert!((-35..=-10).contains(&early.figures.level_dbfs), "{:?}", early.figures);
        }
    }

    #[test]
    fn the_last_ten_seconds_are_kept_in_order() {
        let mut ear = EarlyEar::new(CodecKind::Pcmu).unwrap();
        for number in 0..701u32 {
            ear.hear(CodecKind::Pcmu, &[0x80 + (number % 120) as u8; 160]);
            assert!(ear.kept.capacity() <= KEPT_BYTES_MAX);
        }
        let early = ear.finish();
        let expected: Vec<u8> = (201..701).flat_map(|n| [0x80 + (n % 120) as u8; 160]).collect();
        assert_eq!((early.figures.heard_ms, early.mu_law == expected), (14_020, true));
        let mut ear = EarlyEar::new(CodecKind::Pcmu).unwrap();
        ear.hear(CodecKind::Pcmu, &[1; 160]);
        ear.hear(CodecKind::Pcmu, &[]);
        ear.hear(CodecKind::Pcma, &[0xd5; 80]);
        assert!(ear.kept.capacity() <= GROWTH_BYTES);
        let early = ear.finish();
        assert_eq!((early.mu_law.len(), early.figures.packets), (240, 3));
    }
}
