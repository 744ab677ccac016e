//! Line spectral frequencies (§3.2.3 to §3.2.6): the form in which spectra are sent and mixed. Ten
//! angles in radians that rise from 0 to π. Cosines are a polynomial of our own, so that no two
//! machines differ.

use super::lsf_codebook::{HIGH, LOW, MIDDLE};
use super::{Mode, ORDER, Polynomial, SUBFRAMES_MAX};
use std::f32::consts::{PI, TAU};

/// A spectrum.
pub(super) type Lsf = [f32; ORDER];

/// What both sides believe before the first frame.
pub(super) const MEAN: Lsf = [
    0.281738, 0.445801, 0.66333, 0.962524, 1.251831, 1.533081, 1.850586, 2.137817, 2.481445,
    2.777344,
];

/// The spectrum of a predictor (§3.2.3): the angles at which the sum and the difference of A(z)
/// and its mirror image are zero, which alternate. They are sought on a grid, then by halving.
pub(super) fn from_predictor(filter: &Polynomial) -> Lsf {
    let halves = mirrored_halves(filter);
    let on_grid = halves.map(|half| GRID_COSINES.map(|cosine| value_at(&half, cosine)));
    let mut before = [f32::MAX; 2];
    let mut cell = 0;
    std::array::from_fn(|index| {
        let which = index % 2;
        while cell < GRID - 1 && on_grid[which][cell] * before[which] > 0.0 {
            before[which] = on_grid[which][cell];
            cell += 1;
        }
        let after = on_grid[which][cell];
        let turns = refine(&halves[which], cell, before[which], after);
        before[which] = if before[which] >= 0.0 { f32::MIN } else { f32::MAX };
        turns * TAU
    })
}

/// Halves the cell below a point of the grid three times, keeping the half where the sign changes;
/// the nearer end of the last one is taken, in turns.
fn refine(half: &[f32; ORDER / 2], cell: usize, mut before: f32, mut after: f32) -> f32 {
    let (mut turns, mut angle) = (GRID_TURNS[cell], GRID_ANGLES[cell]);
    for (step, turned) in HALVED_STEPS.iter().zip(HALVED_ANGLES) {
        // The cosine and sine of the difference of two angles.
        let middle_angle = [
            angle[0] * turned[0] + angle[1] * turned[1],
            angle[1] * turned[0] - angle[0] * turned[1],
        ];
        let middle = value_at(half, middle_angle[0] as f32);
        if middle * before > 0.0 && turns - step < 0.5 {
            before = middle;
        } else {
            (turns, angle, after) = (turns - step, middle_angle, middle);
        }
    }
    if after.abs() >= before.abs() { turns - HALVED_STEPS[2] } else { turns }
}

/// The two mirrored polynomials without their fixed zeros, as sums of cosines.
fn mirrored_halves(filter: &Polynomial) -> [[f32; ORDER / 2]; 2] {
    let (mut even, mut odd) = ([0.0; ORDER / 2], [0.0; ORDER / 2]);
    let (mut last_even, mut last_odd) = (1.0, 1.0);
    for k in 0..ORDER / 2 {
        last_even = filter[k + 1] + filter[ORDER - k] - last_even;
        last_odd += filter[k + 1] - filter[ORDER - k];
        (even[k], odd[k]) = (last_even, last_odd);
    }
    even[ORDER / 2 - 1] /= 2.0;
    odd[ORDER / 2 - 1] /= 2.0;
    [even, odd]
}

/// A sum of cosines where the cosine of the angle is this, by Chebyshev's recursion.
fn value_at(half: &[f32; ORDER / 2], cosine: f32) -> f32 {
    let twice = 2.0 * cosine;
    let first = twice + half[0];
    let second = twice * first - 1.0 + half[1];
    let third = twice * second - first + half[2];
    let fourth = twice * third - second + half[3];
    cosine * fourth - third + half[4]
}

/// The predictor of a spectrum (§3.2.6): product of five factors with the even angles and of five
/// with the odd ones, and the mean of the two.
pub(super) fn to_predictor(lsf: &Lsf) -> Polynomial {
    let lsf = inside(lsf);
    let cosines = lsf.map(cosine);
    let (even, odd) = (half_product(&cosines, 0), half_product(&cosines, 1));
    let mut filter = [1.0; ORDER + 1];
    for k in 1..=ORDER / 2 {
        let (sum, difference) = (even[k] + even[k - 1], odd[k] - odd[k - 1]);
        filter[k] = 0.5 * (sum + difference);
        filter[ORDER + 1 - k] = 0.5 * (sum - difference);
    }
    filter
}

/// The lower half of Π (1 - 2·cos·z + z²) over every second cosine; the upper half mirrors it.
fn half_product(cosines: &[f32; ORDER], first: usize) -> [f32; ORDER / 2 + 1] {
    // Two coefficients of zero stand in front, so that the recursion has no edge.
    let mut product = [0.0; ORDER / 2 + 3];
    product[2] = 1.0;
    for cosine in cosines.iter().skip(first).step_by(2) {
        for k in (2..product.len()).rev() {
            product[k] += product[k - 2] - 2.0 * cosine * product[k - 1];
        }
    }
    std::array::from_fn(|k| product[k + 2])
}

/// Angles that leave the open half circle are spread evenly.
fn inside(lsf: &Lsf) -> Lsf {
    let (mut low, mut high) = (lsf[0], lsf[ORDER - 1]);
    if low > 0.0 && high < PI {
        return *lsf;
    }
    if low <= 0.0 {
        low = 0.022 * TAU;
    }
    if high >= PI {
        high = 0.499 * TAU;
    }
    let step = (high - low) / (ORDER - 1) as f32;
    std::array::from_fn(|k| low + step * k as f32)
}

/// Nearest entry of each of the three codebooks (§3.2.4).
pub(super) fn quantise(lsf: &Lsf) -> [u8; 3] {
    [
        nearest(&LOW, [lsf[0], lsf[1], lsf[2]]),
        nearest(&MIDDLE, [lsf[3], lsf[4], lsf[5]]),
        nearest(&HIGH, [lsf[6], lsf[7], lsf[8], lsf[9]]),
    ]
}

fn nearest<const N: usize>(codebook: &[[f32; N]], wanted: [f32; N]) -> u8 {
    let mut best = (0, f32::MAX);
    for (index, entry) in codebook.iter().enumerate() {
        let distance: f32 = entry.iter().zip(wanted).map(|(a, b)| (b - a) * (b - a)).sum();
        if distance < best.1 {
            best = (index as u8, distance);
        }
    }
    best.0
}

/// What the indices (6, 7 and 7 bits; any bits above are not looked at) stand for, made stable.
pub(super) fn dequantise(indices: &[u8; 3]) -> Lsf {
    let low = LOW[usize::from(indices[0]) % LOW.len()];
    let middle = MIDDLE[usize::from(indices[1]) % MIDDLE.len()];
    let high = HIGH[usize::from(indices[2]) % HIGH.len()];
    let mut lsf = [0.0; ORDER];
    lsf[..3].copy_from_slice(&low);
    lsf[3..6].copy_from_slice(&middle);
    lsf[6..].copy_from_slice(&high);
    spread(&mut lsf);
    lsf
}

/// Keeps the angles apart, in order and inside of the half circle (§3.2.5): 50 Hz at least, in two
/// passes.
fn spread(lsf: &mut Lsf) {
    for _ in 0..2 {
        for k in 0..ORDER - 1 {
            let gap = lsf[k + 1] - lsf[k];
            if gap < 0.0 {
                lsf[k + 1] = lsf[k] + HALF_GAP;
                lsf[k] = lsf[k + 1] - HALF_GAP;
            } else if gap < 2.0 * HALF_GAP {
                lsf[k] -= HALF_GAP;
                lsf[k + 1] += HALF_GAP;
            }
            lsf[k] = lsf[k].clamp(0.01, ANGLE_MAX);
        }
    }
}

/// The predictor of each sub-block (§3.2.6): the spectra of the frame, mixed with the one before.
pub(super) fn interpolated(
    mode: Mode,
    previous: &Lsf,
    spectra: &[Lsf; 2],
) -> [Polynomial; SUBFRAMES_MAX] {
    let [first, last] = spectra;
    let between = |a: &Lsf, b: &Lsf, weight: f32| {
        to_predictor(&std::array::from_fn(|k| weight * a[k] + (1.0 - weight) * b[k]))
    };
    match mode {
        Mode::Ms20 => {
            let [one, two, three] =
                [0.75, 0.5, 0.25].map(|weight| between(previous, first, weight));
            let four = to_predictor(first);
            [one, two, three, four, four, four]
        }
        Mode::Ms30 => {
            let [three, four] = [2.0 / 3.0, 1.0 / 3.0].map(|weight| between(first, last, weight));
            let five = to_predictor(last);
            [between(previous, first, 0.5), to_predictor(first), three, four, five, five]
        }
    }
}

/// cos(x) for x from 0 to a little above π, right to a single bit of `f32`.
const fn cosine(x: f32) -> f32 {
    sine(std::f64::consts::FRAC_PI_2 - x as f64) as f32
}

/// sin(x) for x from -π/2 to π/2 by its series.
const fn sine(x: f64) -> f64 {
    let square = x * x;
    let mut sum = SINE[SINE.len() - 1];
    let mut n = SINE.len() - 1;
    while n > 0 {
        n -= 1;
        sum = sum * square + SINE[n];
    }
    sum * x
}

/// The sine's series: 1, -1/3!, 1/5! and so on.
const SINE: [f64; 8] = {
    let mut series = [1.0; 8];
    let mut n = 1;
    while n < series.len() {
        series[n] = -series[n - 1] / (2 * n * (2 * n + 1)) as f64;
        n += 1;
    }
    series
};

#[expect(clippy::approx_constant, reason = "the RFC's bound, which lies below π")]
const ANGLE_MAX: f32 = 3.14;
/// Least distance of two angles, halved.
const HALF_GAP: f32 = 0.0195;
/// The grid's points lie 50.8 Hz apart, in turns; halving ends at 6.35 Hz.
const STEP: f32 = 0.00635;
const HALVED_STEPS: [f32; 3] = [0.003175, 0.0015875, 0.00079375];
/// Points until half a turn is passed.
const GRID: usize = 80;
const GRID_TURNS: [f32; GRID] = {
    let mut turns = [0.0; GRID];
    let mut n = 1;
    while n < GRID {
        turns[n] = turns[n - 1] + STEP;
        n += 1;
    }
    turns
};
/// Cosine and sine of each point, and of the steps.
const GRID_ANGLES: [[f64; 2]; GRID] = angles(&GRID_TURNS);
const HALVED_ANGLES: [[f64; 2]; 3] = angles(&HALVED_STEPS);
const GRID_COSINES: [f32; GRID] = {
    let mut cosines = [0.0; GRID];
    let mut n = 0;
    while n < GRID {
        cosines[n] = GRID_ANGLES[n][0] as f32;
        n += 1;
    }
    cosines
};

const fn angles<const N: usize>(turns: &[f32; N]) -> [[f64; 2]; N] {
    let mut angles = [[0.0; 2]; N];
    let mut n = 0;
    while n < N {
        let angle = turns[n] as f64 * std::f64::consts::TAU;
        // Both are taken where the series holds: within a quarter of a turn.
        let half = sine(angle / 2.0);
        let cosine = sine(std::f64::consts::FRAC_PI_2 - angle);
        let half_cosine = sine(std::f64::consts::FRAC_PI_2 - angle / 2.0);
        angles[n] = [cosine, 2.0 * half * half_cosine];
        n += 1;
    }
    angles
}
