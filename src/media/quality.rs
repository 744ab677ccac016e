//! How a leg sounds, as one figure: a mean opinion score by the E-model of ITU-T G.107 (narrowband) and
//! G.107.1 (wideband), with their defaults for all that a packet edge cannot see (noise, loudness,
//! echo). It judges figures, never audio. MOS-LQ leaves delay out, MOS-CQ takes it in (RFC 3611 §4.7.5).
//!
//! Each codec is rated on the scale of its band. The two do not compare: listeners to whom the best is
//! wideband give narrowband less, so that 4.2 of G.722 is a better sound than 4.2 of PCMU. Whoever
//! tells a score tells its [`Scale`].
//!
//! | audio | scale | Ie | Bpl | from |
//! |---|---|---|---|---|
//! | PCMU, PCMA | narrowband | 0 | 25.1 | G.113 appendix I: G.711 with concealment (4.3 without) |
//! | iLBC 20, 30 ms | narrowband | 16, 16 | 32, 41 | fitted to the bench `quality` |
//! | AMR-WB | wideband | 8 to 56 | 4.3 to 4.9 | G.113 appendix IV, tables IV.3 and IV.4: by mode |
//! | G.722 | wideband | 14 | 5.4 | fitted |
//! | G.722.1 24, 32 kbit/s | wideband | 33, 28 | 9.7, 9.1 | fitted |
//! | Opus | wideband | 11 | 6 | fitted at 16 kHz; whatever its rate |
//! | Opus with redundancy | wideband | 11 | 31 | fitted: each packet's copy comes with the next |
//!
//! G.113's rows were read in works that quote its tables; it calls them provisional. Appendix IV knows
//! how codecs lose for listening with both ears only, so that its rows of both ears are used. "Fitted" is
//! the least square error over 0, 1, 3 and 5 % of loss between the scores that PESQ gives our own decoder
//! and concealment (the manual's "How it sounds": P.862.1 and P.862.2) and those of the model.

use crate::codec::{CodecFormat, CodecKind, G7221Rate, IlbcMode, amr_wb};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What R is before any impairment, with the defaults of G.107: the best of a narrowband codec.
const R_BEST: f64 = 93.2;
/// The same of a wideband codec (G.107.1 §7.1).
const R_BEST_WIDEBAND: f64 = 129.0;
/// What brings a wideband R to the curve of scores (G.107.1 annex A).
const WIDEBAND_STRETCH: f64 = 1.29;
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

/// What scores are to be read against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// 300 to 3,400 Hz; the best is 4.41.
    #[default]
    Narrowband,
    /// 50 to 7,000 Hz; the best is 4.5.
    Wideband,
}

impl Scale {
    pub const ALL: [Scale; 2] = [Scale::Narrowband, Scale::Wideband];

    /// The scale of a codec's scores.
    pub fn of(kind: CodecKind) -> Scale {
        match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::Ilbc => Scale::Narrowband,
            CodecKind::G722 | CodecKind::G7221 | CodecKind::AmrWb | CodecKind::Opus => {
                Scale::Wideband
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Scale::Narrowband => "narrowband",
            Scale::Wideband => "wideband",
        }
    }
}

/// What audio is coded in, as far as it decides how that sounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Coding {
    G711,
    G722,
    G7221(G7221Rate),
    AmrWb(amr_wb::Mode),
    /// `redundant`: what is lost mostly comes again with the next packet (FEC).
    Opus {
        redundant: bool,
    },
    Ilbc(IlbcMode),
}

impl Coding {
    /// Of a codec by its description. `mode` is that in which AMR-WB really came or goes; where
    /// nobody knows it, the best that the description allows.
    pub fn of(
        kind: CodecKind,
        format: CodecFormat,
        mode: Option<amr_wb::Mode>,
        redundant: bool,
    ) -> Coding {
        match kind {
            CodecKind::Pcmu | CodecKind::Pcma => Coding::G711,
            CodecKind::G722 => Coding::G722,
            CodecKind::G7221 => Coding::G7221(format.g7221()),
            CodecKind::AmrWb => Coding::AmrWb(mode.unwrap_or_else(|| format.amr_wb().best_mode())),
            CodecKind::Opus => Coding::Opus { redundant },
            CodecKind::Ilbc => Coding::Ilbc(format.ilbc()),
        }
    }

    /// Ie and Bpl, each on its codec's scale.
    fn impairment(self) -> (Scale, f64, f64) {
        use Scale::{Narrowband, Wideband};
        match self {
            Coding::G711 => (Narrowband, 0.0, 25.1),
            Coding::Ilbc(IlbcMode::Ms20) => (Narrowband, 16.0, 32.0),
            Coding::Ilbc(IlbcMode::Ms30) => (Narrowband, 16.0, 41.0),
            Coding::G722 => (Wideband, 14.0, 5.4),
            Coding::G7221(G7221Rate::K24) => (Wideband, 33.0, 9.7),
            Coding::G7221(G7221Rate::K32) => (Wideband, 28.0, 9.1),
            Coding::Opus { redundant: false } => (Wideband, 11.0, 6.0),
            Coding::Opus { redundant: true } => (Wideband, 11.0, 31.0),
            Coding::AmrWb(mode) => {
                let (codec, robustness) = AMR_WB[usize::from(mode.number())];
                (Wideband, codec, robustness)
            }
        }
    }
}

/// Ie and Bpl of AMR-WB's modes, 6.60 to 23.85 kbit/s, with both ears (G.113 tables IV.3 and IV.4). That
/// 23.85 is worse than 23.05 was heard so. Nobody published Ie of 14.25, 18.25 and 19.85, nor Bpl but of
/// 12.65, 23.05 and 23.85: those lie between their neighbours by bit rate, or are the nearest.
const AMR_WB: [(f64, f64); amr_wb::Mode::COUNT as usize] = [
    (56.0, 4.3),
    (41.0, 4.3),
    (20.0, 4.3),
    (18.5, 4.3),
    (17.0, 4.4),
    (14.0, 4.5),
    (12.0, 4.5),
    (8.0, 4.6),
    (10.0, 4.9),
];

/// The score in conversation on its codec's scale, of audio on its way one way with that delay from
/// mouth to ear. In hundredths' steps, 1 to 4.5.
pub fn mos(coding: Coding, loss: Loss, delay: Duration) -> f32 {
    hundredths(score_of(rating(coding, loss, delay)))
}

/// The score of listening alone.
pub fn mos_listening(coding: Coding, loss: Loss) -> f32 {
    mos(coding, loss, Duration::ZERO)
}

/// The rating that a score is read from: R of the narrowband scale (G.107 §7.1), at most 93.2, or Rx of
/// the wideband one (G.107.1 annex A), at most 100; what is best, less the impairments by codec and
/// loss, and by delay. Below zero when nothing is understood.
pub fn rating(coding: Coding, loss: Loss, delay: Duration) -> f64 {
    let (scale, codec, robustness) = coding.impairment();
    let percent = loss.percent.clamp(0.0, 100.0);
    let bursts = loss.burst_ratio.clamp(1.0, BURST_RATIO_MAX);
    let share = percent / (percent / bursts + robustness);
    let equipment = codec + (IMPAIRMENT_MAX - codec) * share.min(1.0);
    let impaired = equipment + delay_impairment(delay);
    match scale {
        Scale::Narrowband => R_BEST - impaired,
        Scale::Wideband => (R_BEST_WIDEBAND - impaired) / WIDEBAND_STRETCH,
    }
}

/// The rating on the narrowband scale, at most 93.2, for who knows no other. The wideband scale goes on
/// where that ends (G.107.1 §7.1: R up to 129), so that what is better counts as its best.
pub fn narrowband_rating(coding: Coding, loss: Loss, delay: Duration) -> f64 {
    let rating = rating(coding, loss, delay);
    match coding.impairment().0 {
        Scale::Narrowband => rating,
        Scale::Wideband => (rating * WIDEBAND_STRETCH).min(R_BEST),
    }
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

/// Idd, the impairment by too long a delay where echo is cancelled (G.107 §7.3; one for both scales).
fn delay_impairment(delay: Duration) -> f64 {
    let milliseconds = delay.as_secs_f64() * 1_000.0;
    if milliseconds <= 100.0 {
        return 0.0;
    }
    let x = (milliseconds / 100.0).log2();
    let root = |base: f64| (1.0 + base.powi(6)).powf(1.0 / 6.0);
    25.0 * (root(x) - 3.0 * root(x / 3.0) + 2.0)
}

/// From a rating to the mean opinion score (G.107 annex B), whose curve dips below 1 near its foot.
pub fn score_of(r: f64) -> f64 {
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

/// Distributions of scores, one for each scale.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ScoresByScale {
    narrowband: Scores,
    wideband: Scores,
}

impl ScoresByScale {
    pub fn add(&mut self, scale: Scale, score: f32) {
        match scale {
            Scale::Narrowband => self.narrowband.add(score),
            Scale::Wideband => self.wideband.add(score),
        }
    }

    pub fn of(&self, scale: Scale) -> &Scores {
        match scale {
            Scale::Narrowband => &self.narrowband,
            Scale::Wideband => &self.wideband,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPUS: Coding = Coding::Opus { redundant: false };
    const OPUS_FEC: Coding = Coding::Opus { redundant: true };

    #[test]
    fn a_wideband_codec_is_the_best_of_the_narrowband_scale_until_it_is_worse() {
        let rated = |coding, percent| {
            let rating = narrowband_rating(coding, Loss::random(percent), Duration::ZERO);
            (rating * 10.0).round() / 10.0
        };
        for percent in [0.0, 1.0, 10.0] {
            let rating = rating(Coding::G711, Loss::random(percent), Duration::ZERO);
            assert_eq!(rated(Coding::G711, percent), (rating * 10.0).round() / 10.0);
        }
        // 129 less Ie of the codec and of the loss: 14 + 81 · 5 / (5 + 5.4), and 56 of AMR-WB at 6.60.
        assert_eq!([0.0, 5.0].map(|percent| rated(Coding::G722, percent)), [93.2, 76.1]);
        assert_eq!(rated(amr_wb(0), 0.0), 73.0);
    }

    fn amr_wb(mode: u8) -> Coding {
        Coding::AmrWb(amr_wb::Mode::new(mode).expect("0 to 8"))
    }

    fn all() -> impl Iterator<Item = Coding> {
        let others = [
            Coding::G711,
            Coding::G722,
            Coding::G7221(G7221Rate::K24),
            Coding::G7221(G7221Rate::K32),
            OPUS,
            OPUS_FEC,
            Coding::Ilbc(IlbcMode::Ms20),
            Coding::Ilbc(IlbcMode::Ms30),
        ];
        others.into_iter().chain((0..amr_wb::Mode::COUNT).map(amr_wb))
    }

    /// Ratings by hand from the Recommendations' formulas and tables, to a tenth, and their scores.
    #[test]
    fn the_score_follows_codec_loss_and_delay() {
        let pcmu = Coding::G711;
        for (coding, percent, burst_ratio, delay_ms, r, score) in [
            (pcmu, 0.0, 1.0, 0, 93.2, 4.41),
            (pcmu, 0.0, 1.0, 100, 93.2, 4.41),
            (pcmu, 1.0, 1.0, 20, 89.6, 4.33),
            (pcmu, 3.0, 1.0, 20, 83.1, 4.13),
            (pcmu, 5.0, 1.0, 20, 77.4, 3.92),
            (pcmu, 5.0, 2.0, 20, 76.0, 3.86),
            (pcmu, 20.0, 1.0, 20, 51.1, 2.63),
            (pcmu, 100.0, 1.0, 20, 17.3, 1.18),
            (pcmu, 0.0, 1.0, 150, 93.0, 4.41),
            (pcmu, 0.0, 1.0, 200, 90.2, 4.34),
            (pcmu, 0.0, 1.0, 400, 69.1, 3.56),
            (amr_wb(0), 0.0, 1.0, 20, 56.6, 2.92),
            (amr_wb(1), 0.0, 1.0, 20, 68.2, 3.51),
            (amr_wb(2), 0.0, 1.0, 20, 84.5, 4.18),
            (amr_wb(2), 2.0, 1.0, 20, 66.0, 3.41),
            (amr_wb(2), 5.0, 1.0, 20, 53.2, 2.75),
            (amr_wb(2), 5.0, 1.5, 20, 46.4, 2.39),
            (amr_wb(7), 0.0, 1.0, 20, 93.8, 4.42),
            (amr_wb(7), 3.0, 1.0, 20, 67.2, 3.46),
            (amr_wb(8), 0.0, 1.0, 20, 92.2, 4.39),
            (amr_wb(8), 0.0, 1.0, 400, 73.6, 3.76),
        ] {
            let (loss, delay) = (Loss { percent, burst_ratio }, Duration::from_millis(delay_ms));
            let found = rating(coding, loss, delay);
            assert!((found - r).abs() < 0.06, "{coding:?} {loss:?} {delay_ms} ms: R {found}");
            let found = mos(coding, loss, delay);
            assert!((found - score).abs() < 0.001, "{coding:?} {loss:?} {delay_ms} ms: {found}");
            assert!(mos_listening(coding, loss) >= found, "delay is not heard by listening");
        }
    }

    /// What the bench `quality` measured with PESQ at 0, 1, 3 and 5 % of random loss.
    #[test]
    fn fitted_scores_are_those_that_were_measured() {
        for (coding, measured) in [
            (Coding::Ilbc(IlbcMode::Ms20), [3.92, 3.82, 3.61, 3.43]),
            (Coding::Ilbc(IlbcMode::Ms30), [3.93, 3.82, 3.65, 3.56]),
            (Coding::G722, [4.28, 4.02, 3.50, 2.98]),
            (Coding::G7221(G7221Rate::K24), [3.79, 3.58, 3.31, 2.96]),
            (Coding::G7221(G7221Rate::K32), [3.96, 3.73, 3.43, 3.06]),
            (OPUS, [4.37, 4.10, 3.63, 3.15]),
            (OPUS_FEC, [4.35, 4.31, 4.20, 4.10]),
        ] {
            for (percent, measured) in [0.0, 1.0, 3.0, 5.0].into_iter().zip(measured) {
                let found = mos_listening(coding, Loss::random(percent));
                let apart = (found - measured).abs();
                assert!(apart < 0.1, "{coding:?} {percent} %: {found}, measured {measured}");
            }
        }
    }

    /// The published rows beside our own measurements: nearer than the bands are to each other.
    #[test]
    fn published_scores_are_near_to_what_was_measured() {
        for (coding, measured) in [
            (Coding::G711, [4.44, 4.23, 3.91, 3.59]),
            (amr_wb(2), [3.85, 3.58, 3.13, 2.73]),
            (amr_wb(8), [4.23, 3.89, 3.33, 2.82]),
        ] {
            for (percent, measured) in [0.0, 1.0, 3.0, 5.0].into_iter().zip(measured) {
                let found = mos_listening(coding, Loss::random(percent));
                let apart = (found - measured).abs();
                assert!(apart < 0.35, "{coding:?} {percent} %: {found}, measured {measured}");
            }
        }
    }

    #[test]
    fn a_coding_is_on_the_scale_of_its_codec() {
        for kind in CodecKind::ALL {
            let coding = Coding::of(kind, CodecFormat::Usual, None, false);
            assert_eq!(coding.impairment().0, Scale::of(kind), "{kind:?}");
        }
        let best = Coding::of(CodecKind::AmrWb, CodecFormat::Usual, None, false);
        assert_eq!(best, amr_wb(8), "nobody knows the mode");
        let mode = amr_wb::Mode::new(3);
        assert_eq!(Coding::of(CodecKind::AmrWb, CodecFormat::Usual, mode, false), amr_wb(3));
        for scale in Scale::ALL {
            let name = serde_json::to_string(&scale).expect("a word");
            assert_eq!(name, format!("\"{}\"", scale.name()));
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
                for coding in all() {
                    let loss = Loss { percent, burst_ratio };
                    for delay in [Duration::ZERO, longest] {
                        let score = mos(coding, loss, delay);
                        assert!((1.0..=4.42).contains(&score), "{coding:?} {loss:?}: {score}");
                    }
                }
            }
        }
        for coding in all() {
            let score = |percent| mos(coding, Loss::random(percent), Duration::from_millis(80));
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
