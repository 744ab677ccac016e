//! What stands for speech that was lost: the last good frame decoded once more, no louder than the
//! speech before it, and fading. The decoder's own way is not taken: opencore's falls by some 14 dB in
//! the first lost frame and takes three good ones to come back, which is heard more than the gap.
//! Comfort noise of pauses is the library's, and never comes here.

use super::library::FRAME_SAMPLES;
use super::payload::{SPEECH_LOST, Stored};

/// How much louder than the speech before it a repeated frame may become in the decoder.
const GROWTH_MAX: f32 = 1.25;
/// Samples of 10 ms, over which the voice comes back to its level after a gap.
const REJOIN_SAMPLES: usize = 160;
/// Samples of a gap that keep the level, and those after which it is silent.
const FADE_START: usize = 2 * FRAME_SAMPLES;
const FADE_END: usize = 8 * FRAME_SAMPLES;

/// What is known of the speech before a gap, and of the gap.
pub(super) struct Concealment {
    /// The last good frame; `None` where nothing was said yet, or a pause came after it.
    last: Option<Stored>,
    /// Root mean square of its second half, and of the last that stood for it, which is no louder.
    before: f32,
    level: f32,
    /// Samples that are missing up to now.
    missing: usize,
    /// Level of the last sample that was made up, beside what the decoder gave.
    gain: f32,
    /// What the decoder made of the repeated frame grew: its pitch feeds on itself.
    grows: bool,
}

impl Default for Concealment {
    fn default() -> Concealment {
        Concealment { last: None, before: 0.0, level: 0.0, missing: 0, gain: 1.0, grows: false }
    }
}

impl Concealment {
    /// A good frame of speech was decoded; after a gap its level rises from that of the gap's end.
    pub(super) fn remember(&mut self, frame: &Stored, pcm: &mut [i16; FRAME_SAMPLES]) {
        if std::mem::take(&mut self.missing) > 0 {
            let from = self.gain;
            for (index, sample) in pcm[..REJOIN_SAMPLES].iter_mut().enumerate() {
                let risen = index as f32 / REJOIN_SAMPLES as f32;
                *sample = (f32::from(*sample) * (from + (1.0 - from) * risen)) as i16;
            }
        }
        (self.last, self.grows) = (Some(*frame), false);
        self.before = level(&pcm[FRAME_SAMPLES / 2..]);
        self.level = self.before;
    }

    /// A pause: what is missing after it is noise, which the library makes.
    pub(super) fn rest(&mut self) {
        *self = Concealment::default();
    }

    /// What the decoder is given in the place of a lost frame; `None` when nothing is known to repeat.
    /// Where it grew louder of that, it is told of a loss once, by which it falls; else it would shout
    /// after the gap.
    pub(super) fn frame(&self) -> Option<Stored> {
        let calming = Stored::empty(SPEECH_LOST);
        self.last.map(|last| if self.grows { calming } else { last })
    }

    /// Brings what the decoder made of [`Concealment::frame`] to its level.
    pub(super) fn shape(&mut self, pcm: &mut [i16; FRAME_SAMPLES]) {
        let loud = level(pcm);
        let quieter = (self.level / loud.max(1.0)).min(1.0);
        self.level = self.level.min(loud);
        self.grows = loud > self.before * GROWTH_MAX;
        for sample in pcm.iter_mut() {
            let left = FADE_END.saturating_sub(self.missing) as f32;
            self.gain = quieter * (left / (FADE_END - FADE_START) as f32).min(1.0);
            self.missing = (self.missing + 1).min(FADE_END);
            *sample = (f32::from(*sample) * self.gain) as i16;
        }
    }
}

fn level(pcm: &[i16]) -> f32 {
    let energy: f32 = pcm.iter().map(|sample| f32::from(*sample).powi(2)).sum();
    (energy / pcm.len().max(1) as f32).sqrt()
}
