//! How long a gap is concealed. What a codec makes up fades in the codec's own way, slower or faster;
//! here it ends for all of them alike, without a buzz that stays and without a step: it sinks to nothing
//! over the last of 120 ms, and what comes after it rises from where it was left. It makes no sound, and
//! silence that follows is not its matter.
//!
//! ```text
//! level  ───────────────────╲           ╱────────
//!        the codec's own    ╲▁▁▁▁▁▁▁▁▁╱
//!        0             80  120 ms      the caller again
//! ```

use super::clock::samples_in;

/// Concealment of one gap; silence follows. Longer gains little (PESQ, 3 % lost in bursts: from 120 to
/// 160 ms 0.00 to 0.05 by codec, from 60 to 120 ms up to 0.15), and is a sound that nobody makes.
const CONCEAL_MS: u32 = 120;
/// The last of it sinks to nothing.
const SINK_MS: u32 = 40;
/// Good audio rises for this long at most; more takes from the word.
const RISE_MS: u32 = 5;

/// The level of one stream about a gap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fade {
    /// Samples of concealment that are left for this gap.
    left: usize,
    /// Of the last sample, beside what the codec gave: 0 to 1.
    level: f32,
}

impl Fade {
    /// Nothing was heard that could go on.
    pub(super) fn new() -> Fade {
        Fade { left: 0, level: 1.0 }
    }

    /// Good audio came: the next gap may be concealed.
    pub(super) fn restore(&mut self, rate_hz: u32) {
        self.left = samples_in(CONCEAL_MS, rate_hz);
    }

    /// Samples that may be made up yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Counts in samples of another rate.
    pub(super) fn change_rate(&mut self, from_hz: u32, to_hz: u32) {
        self.left = (self.left as u64 * u64::from(to_hz) / u64::from(from_hz.max(1))) as usize;
    }

    /// Brings what the codec made up to its level.
    pub(super) fn sink(&mut self, rate_hz: u32, pcm: &mut [i16]) {
        let sinking = samples_in(SINK_MS, rate_hz) as f32;
        for sample in pcm {
            self.left = self.left.saturating_sub(1);
            self.level = (self.left as f32 / sinking).min(1.0);
            *sample = (f32::from(*sample) * self.level) as i16;
        }
    }

    /// Good audio that is heard next.
    pub(super) fn rise(&mut self, rate_hz: u32, pcm: &mut [i16]) {
        let step = 1.0 / samples_in(RISE_MS, rate_hz).max(1) as f32;
        for sample in pcm {
            if self.level >= 1.0 {
                return;
            }
            *sample = (f32::from(*sample) * self.level) as i16;
            self.level += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_keeps_its_level_then_sinks_to_nothing_and_good_audio_rises() {
        for (hz, cuts) in [(8_000, 160), (16_000, 40), (48_000, 960)] {
            let per_ms = hz as usize / 1_000;
            let mut fade = Fade::new();
            assert_eq!(fade.left(), 0);
            fade.restore(hz);
            let mut pcm = vec![10_000; fade.left()];
            pcm.chunks_mut(cuts).for_each(|piece| fade.sink(hz, piece));
            assert_eq!((pcm.len(), fade.left()), (120 * per_ms, 0));
            assert!(pcm[..79 * per_ms].iter().all(|sample| *sample == 10_000));
            let steepest = pcm.windows(2).map(|pair| pair[0] - pair[1]).max();
            assert!(pcm.is_sorted_by(|one, next| one >= next) && steepest < Some(40));
            assert_eq!(pcm.last(), Some(&0));
            let mut pcm = vec![10_000; 10 * per_ms];
            pcm.chunks_mut(per_ms).for_each(|piece| fade.rise(hz, piece));
            assert!(pcm.is_sorted() && pcm[0] == 0 && pcm[4 * per_ms] < 10_000);
            assert!(pcm[5 * per_ms + 1..].iter().all(|sample| *sample == 10_000));
        }
    }

    #[test]
    fn a_short_gap_changes_nothing_and_good_audio_is_left_as_it_is() {
        let mut fade = Fade::new();
        let mut pcm = [10_000; 320];
        fade.rise(8_000, &mut pcm);
        fade.restore(8_000);
        fade.sink(8_000, &mut pcm);
        fade.rise(8_000, &mut pcm);
        assert_eq!(pcm, [10_000; 320]);
        fade.change_rate(8_000, 48_000);
        assert_eq!(fade.left(), 80 * 48);
    }
}
