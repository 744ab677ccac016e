//! The type IV discrete cosine transform of 320 points (§3.1, §4.7) in the fixed-point steps of the
//! Recommendation: sums and differences of neighbours split it five times in two, the 32 transforms
//! of ten points that are left are done by definition, and rotations join them again.

use super::FRAME;
use super::bias;
use super::fixed::{products, rounded};
use super::trigonometry::{
    ANALYSIS_CORE, ANALYSIS_ROTATIONS, CORE, Core, RotationSet, Rotations, SYNTHESIS_CORE,
    SYNTHESIS_ROTATIONS,
};

type Points = [i16; FRAME];

/// The encoder's transform. Each splitting halves, so that nothing overflows.
pub fn analyse(samples: &Points) -> Points {
    let mut a = [0; FRAME];
    let mut b = [0; FRAME];
    for ((biased, sample), bias) in b.iter_mut().zip(samples).zip(&bias::ANALYSIS) {
        *biased = sample.saturating_add(*bias);
    }
    let halves = |x, y| (half_sum(x, y), half_difference(x, y));
    split(320, &b, &mut a, halves);
    split(160, &a, &mut b, halves);
    split(80, &b, &mut a, halves);
    split(40, &a, &mut b, halves);
    split(20, &b, &mut a, halves);
    transform_cores(&ANALYSIS_CORE, &mut a);
    join_all::<15>(&ANALYSIS_ROTATIONS, a)
}

/// The decoder's transform. Only the first splitting halves; dither and bias keep the rounding
/// without direction.
pub fn synthesise(coefficients: &Points) -> Points {
    let mut a = [0; FRAME];
    let mut b = [0; FRAME];
    for (n, &[for_sum, for_difference]) in bias::DITHER.iter().enumerate() {
        let (x, y) = (coefficients[2 * n], coefficients[2 * n + 1]);
        a[n] = half_sum(x.saturating_add(for_sum), y);
        a[FRAME - 1 - n] = half_difference(x.saturating_add(for_difference), y);
    }
    // A difference is the sum with the negative, which is saturated first: −(−32,768) is 32,767.
    let sums = |x: i16, y: i16| (x.saturating_add(y), x.saturating_add(y.saturating_neg()));
    split(160, &a, &mut b, sums);
    split(80, &b, &mut a, sums);
    split(40, &a, &mut b, sums);
    split(20, &b, &mut a, sums);
    transform_cores(&SYNTHESIS_CORE, &mut a);
    let mut samples = join_all::<14>(&SYNTHESIS_ROTATIONS, a);
    for (sample, bias) in samples.iter_mut().zip(&bias::SYNTHESIS) {
        *sample = sample.saturating_add(*bias);
    }
    samples
}

/// `(x + y) / 2` rounded down, in 16 bits: the bits that differ count half, common ones whole.
#[inline(always)]
fn half_sum(x: i16, y: i16) -> i16 {
    ((x ^ y) >> 1).wrapping_add(x & y)
}

/// `(x − y) / 2` rounded down, in 16 bits: the bits that differ count half, and of them those of
/// `y` are taken off whole.
#[inline(always)]
fn half_difference(x: i16, y: i16) -> i16 {
    ((x ^ y) >> 1).wrapping_sub(!x & y)
}

/// Splits transforms of `span` points into two each: sums of neighbours to the first half,
/// differences to the second, backwards.
#[inline(always)]
fn split(
    span: usize,
    from: &Points,
    to: &mut Points,
    mut sum_and_difference: impl FnMut(i16, i16) -> (i16, i16),
) {
    for (from, to) in from.chunks_exact(span).zip(to.chunks_exact_mut(span)) {
        let (sums, differences) = to.split_at_mut(span / 2);
        let outputs = sums.iter_mut().zip(differences.iter_mut().rev());
        for (pair, (sum, difference)) in from.chunks_exact(2).zip(outputs) {
            (*sum, *difference) = sum_and_difference(pair[0], pair[1]);
        }
    }
}

/// The transforms of ten points, each in its place.
fn transform_cores(core: &Core, points: &mut Points) {
    let (blocks, _) = points.as_chunks_mut::<CORE>();
    for block in blocks {
        let magnitude = block.iter().map(|x| u32::from(x.unsigned_abs())).sum::<u32>();
        // No factor of a core is above 29,400: then no sum of doubled products can saturate.
        *block = if magnitude < (1 << 30) / 29_400 {
            transform_small_core(core, block)
        } else {
            transform_any_core(core, block)
        };
    }
}

#[inline(always)]
fn transform_small_core(core: &Core, points: &[i16; CORE]) -> [i16; CORE] {
    let mut sums = [0i32; CORE];
    for (point, row) in points.iter().zip(core) {
        for (sum, factor) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(i32::from(*point).wrapping_mul(i32::from(*factor)));
        }
    }
    sums.map(rounded::<15>)
}

/// The same with saturation after each product, as the Recommendation accumulates.
#[cold]
fn transform_any_core(core: &Core, points: &[i16; CORE]) -> [i16; CORE] {
    let mut sums = [0i32; CORE];
    for (point, row) in points.iter().zip(core) {
        for (sum, factor) in sums.iter_mut().zip(row) {
            *sum = sum.saturating_add(2 * i32::from(*point) * i32::from(*factor));
        }
    }
    sums.map(|sum| (sum.saturating_add(1 << 15) >> 16) as i16)
}

fn join_all<const SHIFT: u32>(rotations: &RotationSet, mut a: Points) -> Points {
    let mut b = [0; FRAME];
    join::<SHIFT, 10>(&rotations.of_10, &a, &mut b);
    join::<SHIFT, 20>(&rotations.of_20, &b, &mut a);
    join::<SHIFT, 40>(&rotations.of_40, &a, &mut b);
    join::<SHIFT, 80>(&rotations.of_80, &b, &mut a);
    join::<SHIFT, 160>(&rotations.of_160, &a, &mut b);
    b
}

/// Joins transforms of `HALF` points, two at a time.
#[inline(always)]
fn join<const SHIFT: u32, const HALF: usize>(
    rotations: &Rotations<HALF>,
    from: &Points,
    to: &mut Points,
) {
    let (from, _) = from.as_chunks::<HALF>();
    let (to, _) = to.as_chunks_mut::<HALF>();
    for (from, to) in from.chunks_exact(2).zip(to.chunks_exact_mut(2)) {
        let [x, y] = from else { continue };
        let [low, high] = to else { continue };
        for n in 0..HALF {
            let sum = products(rotations.cosine[n], x[n], rotations.turned_sine[n], y[n]);
            low[n] = rounded::<SHIFT>(sum);
        }
        for n in 0..HALF {
            let sum = products(rotations.minus_sine[n], x[n], rotations.turned_cosine[n], y[n]);
            high[HALF - 1 - n] = rounded::<SHIFT>(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    /// The transform by its definition, times `gain`.
    fn definition(points: &Points, gain: f64) -> [f64; FRAME] {
        let angle = PI / FRAME as f64;
        std::array::from_fn(|k| {
            let cosine = |n: usize| (angle * (n as f64 + 0.5) * (k as f64 + 0.5)).cos();
            let terms = points.iter().enumerate().map(|(n, x)| f64::from(*x) * cosine(n));
            gain * terms.sum::<f64>()
        })
    }

    fn assert_near(transformed: &Points, expected: &[f64; FRAME], error_max: f64) {
        for (k, (found, expected)) in transformed.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error < error_max, "{k}: {found} for {expected:.1}");
        }
    }

    #[test]
    fn both_transforms_are_the_cosine_transform() {
        let mut word = 1u32;
        let mut noise = |level: i32| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((word >> 16) as i32 % (2 * level) - level) as i16
        };
        for _ in 0..20 {
            let samples: Points = std::array::from_fn(|_| noise(14_000));
            assert_near(&analyse(&samples), &definition(&samples, 1.0 / 160.0), 4.0);
            let coefficients: Points = std::array::from_fn(|_| noise(200));
            let gain = 0.45 * (18_427.0f64 / 16_384.0).powi(5);
            assert_near(&synthesise(&coefficients), &definition(&coefficients, gain), 16.0);
        }
    }

    #[test]
    fn halves_are_those_of_wider_numbers() {
        let edges = [i16::MIN, -32_767, -3, -2, -1, 0, 1, 2, 3, 12_345, 32_766, i16::MAX];
        for x in edges {
            for y in edges {
                let (wide_x, wide_y) = (i32::from(x), i32::from(y));
                assert_eq!(i32::from(half_sum(x, y)), (wide_x + wide_y) >> 1, "{x} {y}");
                assert_eq!(i32::from(half_difference(x, y)), (wide_x - wide_y) >> 1, "{x} {y}");
            }
        }
    }

    #[test]
    fn a_core_that_may_saturate_is_the_same_as_long_as_it_does_not() {
        for core in [&ANALYSIS_CORE, &SYNTHESIS_CORE] {
            let points = [3_000, -3_600, 1, 0, -1, 7_000, -7_000, 15_000, -300, 320];
            assert_eq!(transform_small_core(core, &points), transform_any_core(core, &points));
        }
        let loud = transform_any_core(&SYNTHESIS_CORE, &[i16::MAX; CORE]);
        assert_eq!(loud[0], i16::MAX);
    }
}
