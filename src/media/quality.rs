//! How a leg sounds, as one figure: a mean opinion score by the E-model of ITU-T G.107, with its
//! defaults for all that a packet edge cannot see (noise, loudness, echo). It judges figures, never
//! audio. MOS-LQ leaves delay out, MOS-CQ takes it in (RFC 3611 §4.7.5).
//!
//! All is told on the narrowband scale, whose best is R = 93.2, MOS 4.41, so that codecs compare, the
//! categories of G.109 hold and RFC 3611 has a field for it. A wideband codec is rated on the scale of
//! G.107.1 first, which goes on above it to R = 129, where no codec and no loss is: what it keeps above
//! 93.2 is room in which loss cannot be told from a perfect narrowband call. Delay is taken off after.
//!
//! | codec | Ie | Bpl | from |
//! |---|---|---|---|
//! | PCMU, PCMA | 0 | 25.1 | G.113 appendix I: G.711 with concealment (4.3 without) |
//! | AMR-WB | 20 wideband | 4.3 | G.113 appendix IV, both ears: the mode of 12.65 kbit/s |
//! | Opus | 8 wideband | 4.6 | no row: AMR-WB's of 23.05 kbit/s, the nearest in rate and sound |
//! | G.722, G.722.1 | 20 wideband | 4.3 | no row with loss that could be checked: AMR-WB's of 12.65 kbit/s |
//! | iLBC | 11 | 19 | no row: G.729A's, which iLBC was made to match; it loses better than that |
//!
//! The rows were checked in works that quote the tables, not in the Recommendation itself, which calls
//! them provisional. Appendix IV knows robustness to loss for listening with both ears only; with one
//! ear 12.65 kbit/s impairs by 13, and nobody says how it loses. What Opus recovers by its redundancy
//! (FEC) counts as lost here, so that its score is a lower bound.

use crate::codec::CodecKind;
use std::time::Duration;

/// Basic signal-to-noise ratio less simultaneous impairments, of G.107's defaults: the best of a
/// narrowband codec, and the end of the scale that is told.
const R_BEST: f64 = 93.2;
/// The same of a wideband codec (G.107.1 §7.1).
const R_BEST_WIDEBAND: f64 = 129.0;
/// The worst equipment impairment that loss leads to (G.107 §7.5, G.107.1 §7.5).
const IMPAIRMENT_MAX: f64 = 95.0;
/// Bursts beyond this were not checked against listeners (G.107 annex A).
const BURST_RATIO_MAX: f64 = 2.0;

/// Packets that were not played: lost on the way, or too late.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loss {
    /// Of all that were sent, 0 to 100.
    pub percent: f64,
    /// How long losses last, of what they would if each fell by chance (G.107 §7.5): 1 and more.
    pub burst_ratio: f64,
}

impl Loss {
    /// Loss by chance.
    pub fn random(percent: f64) -> Loss {
        Loss { percent, burst_ratio: 1.0 }
    }

    /// `lost` of `all`, in so many runs; `None` of nothing.
    pub fn of(lost: u64, all: u64, runs: u64) -> Option<Loss> {
        let percent = percent(lost, all)?;
        let mean_run = lost as f64 / runs.max(1) as f64;
        let burst_ratio = (mean_run * (1.0 - percent / 100.0)).clamp(1.0, BURST_RATIO_MAX);
        Some(Loss { percent, burst_ratio })
    }
}

/// The score in conversation, of audio on its way one way with that delay from mouth to ear. In
/// hundredths' steps, 1 to 4.41.
pub fn mos(kind: CodecKind, loss: Loss, delay: Duration) -> f32 {
    hundredths(score_of(r_factor(kind, loss, delay)))
}

/// The score of listening alone.
pub fn mos_listening(kind: CodecKind, loss: Loss) -> f32 {
    mos(kind, loss, Duration::ZERO)
}

/// The rating R on the narrowband scale (G.107 §7.1): what is best, less the impairments by codec and
/// loss, and by delay. At most 93.2; below zero when nothing is understood.
pub fn r_factor(kind: CodecKind, loss: Loss, delay: Duration) -> f64 {
    let (best, codec, robustness) = match kind {
        CodecKind::Pcmu | CodecKind::Pcma => (R_BEST, 0.0, 25.1),
        CodecKind::Ilbc => (R_BEST, 11.0, 19.0),
        CodecKind::AmrWb | CodecKind::G722 | CodecKind::G7221 => (R_BEST_WIDEBAND, 20.0, 4.3),
        CodecKind::Opus => (R_BEST_WIDEBAND, 8.0, 4.6),
    };
    let percent = loss.percent.clamp(0.0, 100.0);
    let bursts = loss.burst_ratio.clamp(1.0, BURST_RATIO_MAX);
    let share = percent / (percent / bursts + robustness);
    let equipment = codec + (IMPAIRMENT_MAX - codec) * share.min(1.0);
    (best - equipment).min(R_BEST) - delay_impairment(delay)
}

fn hundredths(score: f64) -> f32 {
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
    use CodecKind::{AmrWb, G722, Ilbc, Opus, Pcma, Pcmu};

    /// R by hand from the Recommendations' formulas, to a tenth, and its score.
    #[test]
    fn the_score_follows_codec_loss_and_delay() {
        for (kind, percent, burst_ratio, delay_ms, r, score) in [
            (Pcmu, 0.0, 1.0, 0, 93.2, 4.41),
            (Pcma, 0.0, 1.0, 100, 93.2, 4.41),
            (Pcmu, 1.0, 1.0, 20, 89.6, 4.33),
            (Pcmu, 3.0, 1.0, 20, 83.1, 4.13),
            (Pcmu, 5.0, 1.0, 20, 77.4, 3.92),
            (Pcmu, 5.0, 2.0, 20, 76.0, 3.86),
            (Pcmu, 20.0, 1.0, 20, 51.1, 2.63),
            (Pcmu, 100.0, 1.0, 20, 17.3, 1.18),
            (G722, 0.0, 1.0, 20, 93.2, 4.41),
            (G722, 1.0, 1.0, 20, 93.2, 4.41),
            (G722, 3.0, 1.0, 20, 78.2, 3.95),
            (AmrWb, 5.0, 1.0, 20, 68.7, 3.53),
            (AmrWb, 5.0, 1.5, 20, 59.9, 3.09),
            (Opus, 0.0, 1.0, 50, 93.2, 4.41),
            (Opus, 3.0, 1.0, 50, 86.7, 4.25),
            (Opus, 10.0, 1.0, 50, 61.4, 3.17),
            (Opus, 0.0, 1.0, 400, 69.1, 3.56),
            (Ilbc, 0.0, 1.0, 50, 82.2, 4.10),
            (Ilbc, 3.0, 1.0, 50, 70.7, 3.63),
            (Pcmu, 0.0, 1.0, 150, 93.0, 4.41),
            (Pcmu, 0.0, 1.0, 200, 90.2, 4.34),
            (Pcmu, 0.0, 1.0, 400, 69.1, 3.56),
        ] {
            let (loss, delay) = (Loss { percent, burst_ratio }, Duration::from_millis(delay_ms));
            let found = r_factor(kind, loss, delay);
            assert!((found - r).abs() < 0.06, "{kind:?} {loss:?} {delay_ms} ms: R {found}");
            let found = mos(kind, loss, delay);
            assert!((found - score).abs() < 0.001, "{kind:?} {loss:?} {delay_ms} ms: MOS {found}");
            assert!(mos_listening(kind, loss) >= found, "delay is not heard by listening");
        }
    }

    #[test]
    fn losses_that_come_together_weigh_more_than_their_share() {
        for (lost, all, runs, percent, burst_ratio) in [
            (0, 100, 0, 0.0, 1.0),
            (5, 100, 5, 5.0, 1.0),
            (5, 100, 3, 5.0, 1.583),
            (5, 100, 1, 5.0, 2.0),
            (100, 100, 1, 100.0, 1.0),
            (7, 5, 2, 100.0, 1.0),
        ] {
            let loss = Loss::of(lost, all, runs).expect("some were sent");
            assert!((loss.percent - percent).abs() < 1e-9, "{lost} of {all}: {loss:?}");
            assert!((loss.burst_ratio - burst_ratio).abs() < 1e-3, "{lost} of {all}: {loss:?}");
        }
        assert_eq!(Loss::of(3, 0, 1), None);
    }

    #[test]
    fn scores_stay_between_one_and_the_best_of_the_scale() {
        let longest = Duration::from_secs(3_600);
        for (r, score) in [(-50.0, 1.0), (3.0, 1.0), (50.0, 2.575), (100.0, 4.5), (120.0, 4.5)] {
            assert!((score_of(r) - score).abs() < 1e-9, "{r}: {}", score_of(r));
        }
        for percent in [f64::MIN, -1.0, 0.0, 101.0, f64::MAX] {
            for burst_ratio in [f64::MIN, 0.0, 1.0, f64::MAX] {
                for kind in CodecKind::ALL {
                    let loss = Loss { percent, burst_ratio };
                    for delay in [Duration::ZERO, longest] {
                        let score = mos(kind, loss, delay);
                        assert!((1.0..=4.41).contains(&score), "{kind:?} {loss:?}: {score}");
                    }
                }
            }
        }
        for kind in CodecKind::ALL {
            let score = |percent| mos(kind, Loss::random(percent), Duration::from_millis(80));
            let scores: Vec<f32> = (0..=100).map(f64::from).map(score).collect();
            assert!(scores.is_sorted_by(|one, next| one >= next), "loss never sounds better");
        }
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
