//! How a leg sounds, as one figure: a mean opinion score in conversation (MOS-CQ, RFC 3611 §4.7.5)
//! by the E-model of ITU-T G.107, with its defaults for all that a packet edge cannot see (noise,
//! loudness, echo). It judges figures, never audio.
//!
//! All is on the narrowband scale, whose best is R = 93.2, MOS 4.41, so that codecs compare. A
//! wideband codec sounds better than that scale can say: it is taken for as good as G.711 where
//! nothing is lost. Loss is taken for random; a burst of the same share sounds worse.
//!
//! | codec | Ie | Bpl | source |
//! |---|---|---|---|
//! | PCMU, PCMA | 0 | 25.1 | G.113 appendix I: G.711 with concealment |
//! | G.722, G.722.1, AMR-WB, Opus | 0 | 10 | Ie: wideband, at the scale's end. Bpl: that of GSM EFR |
//! | iLBC | 11 | 19 | those of G.729A, which iLBC was made to match; G.113 has no row for it |
//!
//! What Opus recovers by its redundancy (FEC) counts as lost here, so that its score is a lower bound.

use crate::codec::CodecKind;
use std::time::Duration;

/// Basic signal-to-noise ratio less simultaneous impairments, of G.107's defaults.
const R_BEST: f64 = 93.2;
/// The worst equipment impairment that loss leads to (G.107 §7.4).
const IMPAIRMENT_MAX: f64 = 95.0;

/// The score of audio on its way one way: percent of its packets that were not played (0 to 100, lost
/// or late), and the delay from mouth to ear. In hundredths' steps, 1 to 4.41.
pub fn mos(kind: CodecKind, loss_percent: f64, delay: Duration) -> f32 {
    let score = score_of(r_factor(kind, loss_percent, delay));
    ((score * 100.0).round() / 100.0) as f32
}

/// Packets of `all` that were not played, in percent; `None` when there were none.
pub fn percent(lost: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| lost.min(all) as f64 * 100.0 / all as f64)
}

/// What a codec itself delays beyond its packet: look-ahead, and overlap or filters behind it.
pub fn lookahead(kind: CodecKind) -> Duration {
    Duration::from_micros(match kind {
        CodecKind::Pcmu | CodecKind::Pcma => 0,
        CodecKind::G722 => 1_500,
        CodecKind::AmrWb => 5_940,
        CodecKind::Opus => 6_500,
        CodecKind::Ilbc => 10_000,
        CodecKind::G7221 => 20_000,
    })
}

/// The rating R (G.107 §7.1): what is best, less the impairments by delay, codec and loss.
fn r_factor(kind: CodecKind, loss_percent: f64, delay: Duration) -> f64 {
    let (codec, robustness) = match kind {
        CodecKind::Pcmu | CodecKind::Pcma => (0.0, 25.1),
        CodecKind::G722 | CodecKind::G7221 | CodecKind::AmrWb | CodecKind::Opus => (0.0, 10.0),
        CodecKind::Ilbc => (11.0, 19.0),
    };
    let loss = loss_percent.clamp(0.0, 100.0);
    let equipment = codec + (IMPAIRMENT_MAX - codec) * loss / (loss + robustness);
    R_BEST - delay_impairment(delay) - equipment
}

/// Idd, the impairment by too long a delay where echo is cancelled (G.107 §7.3).
fn delay_impairment(delay: Duration) -> f64 {
    let milliseconds = delay.as_secs_f64() * 1_000.0;
    if milliseconds <= 100.0 {
        return 0.0;
    }
    let x = (milliseconds / 100.0).log2();
    let root = |base: f64| (1.0 + base.powi(6)).powf(1.0 / 6.0);
    25.0 * (root(x) - 3.0 * root(x / 3.0) + 2.0)
}

/// From R to the mean opinion score (G.107 annex B), whose curve dips below 1 near its foot.
fn score_of(r: f64) -> f64 {
    if r >= 100.0 {
        return 4.5;
    }
    let r = r.max(0.0);
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

/// Upper bounds of a [`Scores`]' buckets. From 2.58 on they part the categories of G.109: nearly all
/// users dissatisfied, many, some, satisfied, very satisfied.
pub const SCORE_BOUNDS: [f32; 7] = [1.5, 2.0, 2.58, 3.1, 3.6, 4.03, 4.34];

/// A distribution of scores.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Scores {
    /// Scores in each bucket of [`SCORE_BOUNDS`]; the last is for better ones.
    pub counts: [u64; SCORE_BOUNDS.len() + 1],
    pub sum: f64,
}

impl Scores {
    pub fn add(&mut self, score: f32) {
        let bucket = SCORE_BOUNDS.partition_point(|bound| *bound < score);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += f64::from(score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CodecKind::{G722, Ilbc, Opus, Pcma, Pcmu};

    /// R by hand from the Recommendation's formulas, to a tenth, and its score.
    #[test]
    fn the_score_follows_codec_loss_and_delay() {
        for (kind, loss, delay_ms, r, score) in [
            (Pcmu, 0.0, 0, 93.2, 4.41),
            (Pcma, 0.0, 100, 93.2, 4.41),
            (Pcmu, 1.0, 20, 89.6, 4.33),
            (Pcmu, 3.0, 20, 83.1, 4.13),
            (Pcmu, 5.0, 20, 77.4, 3.92),
            (Pcmu, 20.0, 20, 51.1, 2.63),
            (Pcmu, 100.0, 20, 17.3, 1.18),
            (G722, 3.0, 20, 71.3, 3.66),
            (Opus, 0.0, 50, 93.2, 4.41),
            (Ilbc, 0.0, 50, 82.2, 4.10),
            (Ilbc, 3.0, 50, 70.7, 3.63),
            (Pcmu, 0.0, 150, 93.0, 4.41),
            (Pcmu, 0.0, 200, 90.2, 4.34),
            (Pcmu, 0.0, 400, 69.1, 3.56),
        ] {
            let delay = Duration::from_millis(delay_ms);
            let found = r_factor(kind, loss, delay);
            assert!((found - r).abs() < 0.06, "{kind:?} {loss} % {delay_ms} ms: R {found}");
            let found = mos(kind, loss, delay);
            assert!((found - score).abs() < 0.001, "{kind:?} {loss} % {delay_ms} ms: MOS {found}");
        }
    }

    #[test]
    fn scores_stay_between_one_and_the_best_of_the_scale() {
        let longest = Duration::from_secs(3_600);
        for (r, score) in [(-50.0, 1.0), (3.0, 1.0), (50.0, 2.575), (100.0, 4.5), (120.0, 4.5)] {
            assert!((score_of(r) - score).abs() < 1e-9, "{r}: {}", score_of(r));
        }
        for loss in [f64::MIN, -1.0, 0.0, 101.0, f64::MAX] {
            for kind in CodecKind::ALL {
                let score = mos(kind, loss, longest);
                assert!((1.0..=4.41).contains(&score), "{kind:?} {loss}: {score}");
            }
        }
        let scores: Vec<f32> =
            (0..=100).map(|loss| mos(Opus, f64::from(loss), Duration::from_millis(80))).collect();
        assert!(scores.is_sorted_by(|one, next| one >= next), "loss never sounds better");
    }

    #[test]
    fn a_share_of_nothing_is_unknown() {
        assert_eq!((percent(0, 0), percent(5, 0), percent(0, 7)), (None, None, Some(0.0)));
        assert_eq!((percent(1, 4), percent(9, 4)), (Some(25.0), Some(100.0)));
    }

    #[test]
    fn scores_fall_into_the_bucket_that_they_do_not_exceed() {
        let mut scores = Scores::default();
        for score in [1.0, 1.5, 1.51, 4.34, 4.35, 4.41] {
            scores.add(score);
        }
        assert_eq!(scores.counts, [2, 1, 0, 0, 0, 0, 1, 2]);
        assert!((scores.sum - 17.11).abs() < 1e-4, "{}", scores.sum);
    }
}
