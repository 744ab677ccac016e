//! What a leg hears in its codec: the encoder of a plan, the length of its frames, and silence, which is
//! encoded once and not for each frame. It knows no time and no queue.

use super::clock::samples_in;
use super::plan::CodecPlan;
use super::supply::law;
use crate::codec::{CodecFault, CodecKind, Encoder, EncoderSettings};
use std::time::Duration;

/// Samples of the longest frame: 60 ms at 48 kHz.
pub(super) const FRAME_SAMPLES_MAX: usize = 2_880;
/// Frames of silence that are encoded as they come. After them the far decoder has come to rest, and
/// one frame serves for all that follow.
const SETTLED_FRAMES: u32 = 3;
/// The same in milliseconds for G.722, whose predictors take their time. For as long as that again they
/// follow the one frame; then it changes nothing any more.
const SETTLED_G722_MS: u32 = 400;

/// The encoder's side of a plan; made anew when the codec changes.
pub(super) struct Voice {
    pub(super) plan: CodecPlan,
    pub(super) encoder: Encoder,
    /// One frame of silence, encoded after so many that nothing changes any more.
    pub(super) silence: Box<[u8]>,
    /// Frames of silence until then, and how often the one has left since.
    pub(super) settled_frames: u32,
    repeated: u32,
    pub(super) frame: Duration,
    pub(super) frame_samples: usize,
    pub(super) frame_ticks: u32,
}

impl Voice {
    pub(super) fn new(plan: &CodecPlan, rate_hz: u32) -> Result<Voice, CodecFault> {
        let frame_ms = frame_ms(plan);
        let frame_samples = samples_in(frame_ms, rate_hz).min(FRAME_SAMPLES_MAX);
        let settings = EncoderSettings::default();
        let mut encoder = Encoder::with_format(plan.kind, plan.format, rate_hz, settings)?;
        let (pcm, mut encoded) = ([0; FRAME_SAMPLES_MAX], [0; 1_400]);
        let mut len = 0;
        let follows = plan.kind == CodecKind::G722;
        let settled_frames =
            if follows { SETTLED_G722_MS.div_ceil(frame_ms) } else { SETTLED_FRAMES };
        for _ in 0..=settled_frames {
            len = encoder.encode(&pcm[..frame_samples], &mut encoded)?;
        }
        let silence = encoded[..len].into();
        encoder.reset();
        Ok(Voice {
            plan: *plan,
            encoder,
            silence,
            settled_frames,
            repeated: 0,
            frame: Duration::from_millis(u64::from(frame_ms)),
            frame_samples,
            frame_ticks: samples_in(frame_ms, plan.kind.rtp_clock_hz()) as u32,
        })
    }

    pub(super) fn write_silence(&self, out: &mut [u8]) -> usize {
        let len = self.silence.len().min(out.len());
        out[..len].copy_from_slice(&self.silence[..len]);
        len
    }

    /// The frame of silence of this number since the last word. The first of them carry what the
    /// encoder looked ahead, and bring the far decoder to rest.
    pub(super) fn write_quiet(&mut self, number: u32, out: &mut [u8]) -> usize {
        if law(self.plan.kind).is_some() || number > self.settled_frames {
            return self.write_silence(out);
        }
        self.repeated = 0;
        let pcm = [0; FRAME_SAMPLES_MAX];
        let encoded = self.encoder.encode(&pcm[..self.frame_samples], out);
        encoded.unwrap_or_else(|_| self.write_silence(out))
    }

    /// The frame of silence of this number leaves for the far decoder.
    pub(super) fn on_quiet_sent(&mut self, number: u32) {
        if number > self.settled_frames && self.repeated < self.settled_frames {
            self.repeated += 1;
            self.encoder.follow(&self.silence);
        }
    }
}

/// Frame time: the plan's packet time, in what lengths the codec has.
fn frame_ms(plan: &CodecPlan) -> u32 {
    plan.format.packet_ms(plan.kind, u32::from(plan.ptime_ms)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{CodecFormat, Decoder};

    /// Signal to noise of a word of 60 ms behind a pause of `quiet` frames, in dB: 33 to 36 in step, 4 to
    /// 13 out of step.
    fn clarity_behind(quiet: u32) -> f64 {
        let plan = CodecPlan {
            kind: CodecKind::G722,
            format: CodecFormat::Usual,
            send_payload_type: 9,
            receive_payload_type: 9,
            ptime_ms: 20,
            fec: false,
        };
        let mut voice = Voice::new(&plan, 16_000).unwrap();
        let mut far = Decoder::new(CodecKind::G722, 16_000).unwrap();
        let (mut payload, mut pcm) = ([0; 160], [0; 320]);
        let vowel = |n: usize| {
            let phase = std::f64::consts::TAU * 170.0 * n as f64 / 16_000.0;
            (1..8).map(|k| (f64::from(k * k) + f64::from(k) * phase).sin() * 1_500.0).sum::<f64>()
        };
        let said: Vec<i16> = (0..320 * 30).map(|n| vowel(n) as i16).collect();
        for frame in said.chunks(320) {
            voice.encoder.encode(frame, &mut payload).unwrap();
            far.decode(&payload, &mut pcm).unwrap();
        }
        for number in 1..=quiet {
            let len = voice.write_quiet(number, &mut payload);
            voice.on_quiet_sent(number);
            far.decode(&payload[..len], &mut pcm).unwrap();
        }
        let mut heard = Vec::new();
        for frame in said[..4 * 320].chunks(320) {
            voice.encoder.encode(frame, &mut payload).unwrap();
            far.decode(&payload, &mut pcm).unwrap();
            heard.extend(pcm);
        }
        let pairs = || said[..960].iter().zip(&heard[FILTERS..]).map(|(a, b)| (*a, *b));
        let energy = |value: f64| value * value;
        let word: f64 = pairs().map(|(said, _)| energy(said.into())).sum();
        let error: f64 =
            pairs().map(|(said, heard)| energy(f64::from(said) - f64::from(heard))).sum();
        10.0 * (word / error).log10()
    }

    /// Samples by which G.722's two filters are late.
    const FILTERS: usize = 22;

    #[test]
    fn the_first_word_of_g722_is_as_clear_behind_a_pause_of_any_length() {
        let whole = clarity_behind(10);
        for quiet in [1, 19, 20, 21, 23, 30, 39, 40, 41, 60, 500] {
            let behind = clarity_behind(quiet);
            assert!(behind > whole - 6.0, "{quiet}: {behind:.1} dB, {whole:.1} where all is coded");
        }
    }
}
