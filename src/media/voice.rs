//! What a leg hears in its codec: the encoder of a plan, the length of its frames, and silence, which is
//! encoded once and not for each frame. It knows no time and no queue.

use super::clock::samples_in;
use super::plan::CodecPlan;
use super::supply::law;
use crate::codec::{CodecFault, CodecKind, Encoder, EncoderSettings, g722};
use std::time::Duration;

/// Samples of the longest frame: 60 ms at 48 kHz.
pub(super) const FRAME_SAMPLES_MAX: usize = 2_880;
/// Frames of silence that are encoded as they come. After them the far decoder has come to rest, and
/// one frame serves for all that follow.
const SETTLED_FRAMES: u32 = 3;
/// The same in milliseconds for G.722, whose predictors take their time.
const SETTLED_G722_MS: u32 = 400;

/// The encoder's side of a plan; made anew when the codec changes.
pub(super) struct Voice {
    pub(super) plan: CodecPlan,
    pub(super) encoder: Encoder,
    /// One frame of silence, encoded after so many that nothing changes any more.
    pub(super) silence: Box<[u8]>,
    /// Frames of silence until then, and what they leave behind in the encoder.
    pub(super) settled_frames: u32,
    pub(super) rest: Option<Box<g722::Rest>>,
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
        let rest = encoder.rest();
        encoder.reset();
        Ok(Voice {
            plan: *plan,
            encoder,
            silence,
            settled_frames,
            rest,
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
        let pcm = [0; FRAME_SAMPLES_MAX];
        let encoded = self.encoder.encode(&pcm[..self.frame_samples], out);
        encoded.unwrap_or_else(|_| self.write_silence(out))
    }
}

/// Frame time: the plan's packet time, in what lengths the codec has.
fn frame_ms(plan: &CodecPlan) -> u32 {
    plan.format.packet_ms(plan.kind, u32::from(plan.ptime_ms)).into()
}
