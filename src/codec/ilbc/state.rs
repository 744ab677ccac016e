//! The start state (§3.5, §4.2): the stretch of the residual with the most energy, 57 or 58 samples
//! of it. An all-pass filter takes its phase apart, so that no peak stands out, and each sample is
//! sent in three bits; the filter run backwards puts it together again.

use super::filter::{all_pole, all_zero, energy, prediction};
use super::{FRAME_SAMPLES_MAX, Mode, ORDER, Polynomial, STATE_SAMPLES_MAX, SUBFRAME};

/// The two neighbouring sub-blocks with the most energy: the number of the second, from 1
/// (§3.5.1). Their outer edges count less, and so do pairs at the edge of the frame.
pub(super) fn loudest_pair(mode: Mode, residual: &[f32; FRAME_SAMPLES_MAX]) -> u8 {
    let weights: &[f32] = match mode {
        Mode::Ms20 => &[0.9, 1.0, 0.9],
        Mode::Ms30 => &[0.8, 0.9, 1.0, 0.9, 0.8],
    };
    let mut best = (1, f32::MIN);
    for (place, weight) in weights.iter().enumerate() {
        let pair = &residual[place * SUBFRAME..][..2 * SUBFRAME];
        let (rise, rest) = pair.split_at(EDGE.len());
        let (middle, fall) = rest.split_at(rest.len() - EDGE.len());
        let edge = |samples: &mut dyn Iterator<Item = &f32>| -> f32 {
            samples.zip(EDGE).map(|(sample, weight)| weight * sample * sample).sum()
        };
        let sum = edge(&mut rise.iter()) + energy(middle) + edge(&mut fall.iter().rev());
        if sum * weight > best.1 {
            best = (place as u8 + 1, sum * weight);
        }
    }
    best.0
}

/// Whether the start state lies at the beginning of its pair of sub-blocks rather than at the end.
pub(super) fn is_first(mode: Mode, pair: &[f32]) -> bool {
    let len = mode.state_samples();
    energy(&pair[..len]) > energy(&pair[pair.len() - len..])
}

/// Peak and samples for a start state of `residual` (§3.5.2, §3.5.3). `synthesis` is the predictor
/// of its first sub-block, `weighting` the filters of both; the second begins after `first` samples.
pub(super) fn encode(
    residual: &[f32],
    first: usize,
    synthesis: &Polynomial,
    weighting: &[Polynomial],
    samples: &mut [u8],
) -> u8 {
    let len = residual.len();
    let mut flat = [0.0; ORDER + STATE_SAMPLES_MAX];
    let flat = &mut flat[..ORDER + len];
    all_pass(residual.iter().copied(), synthesis, &mut flat[ORDER..]);
    let largest = flat[ORDER..].iter().fold(0.0, |largest: f32, sample| largest.max(sample.abs()));
    let peak = nearest(&PEAK_BOUNDS, f64::from(largest.max(10.0)).log10() as f32);
    let scale = LEVEL_AT_PEAK / 10f64.powf(f64::from(PEAKS[usize::from(peak)])) as f32;
    flat.iter_mut().for_each(|sample| *sample *= scale);
    // The second sub-block's filter goes on from what the first one put out.
    all_pole(&mut flat[..ORDER + first], &weighting[0]);
    all_pole(&mut flat[first..], &weighting[1]);
    quantise(&flat[ORDER..], first, weighting, samples);
    peak
}

/// Chooses each sample so that its error, and what the weighting filter makes of the errors before
/// it, is least.
fn quantise(wanted: &[f32], first: usize, weighting: &[Polynomial], samples: &mut [u8]) {
    let mut weighted = [0.0; ORDER + STATE_SAMPLES_MAX];
    for (n, (wanted, sample)) in wanted.iter().zip(samples).enumerate() {
        let filter = &weighting[usize::from(n >= first)];
        let past = weighted[n..].first_chunk().expect("past samples stand before each");
        let ringing = -prediction(past, filter);
        *sample = nearest(&LEVEL_BOUNDS, wanted - ringing);
        weighted[n + ORDER] = LEVELS[usize::from(*sample)] + ringing;
    }
}

/// The residual of a start state (§4.2), as many samples as `out` has room for.
pub(super) fn decode(peak: u8, samples: &[u8], synthesis: &Polynomial, out: &mut [f32]) {
    let peak = PEAKS[usize::from(peak) % PEAKS.len()];
    let scale = 10f64.powf(f64::from(peak)) as f32 / LEVEL_AT_PEAK;
    let levels = samples.iter().rev().map(|s| scale * LEVELS[usize::from(*s) % LEVELS.len()]);
    all_pass(levels, synthesis, out);
    out.reverse();
}

/// A(1/z)/A(z) over a stretch taken as a circle: what rings on after its end is added to its
/// beginning (§3.5.2).
fn all_pass(input: impl Iterator<Item = f32>, synthesis: &Polynomial, out: &mut [f32]) {
    let len = out.len();
    let mut signal = [0.0; ORDER + 2 * STATE_SAMPLES_MAX];
    for (place, sample) in signal[ORDER..][..len].iter_mut().zip(input) {
        *place = sample;
    }
    let mut mirrored = *synthesis;
    mirrored.reverse();
    let mut through = [0.0; ORDER + 2 * STATE_SAMPLES_MAX];
    let through = &mut through[..ORDER + 2 * len];
    all_zero(&signal[..ORDER + 2 * len], &mirrored, &mut through[ORDER..]);
    all_pole(through, synthesis);
    let (front, ringing) = through[ORDER..].split_at(len);
    for (out, (front, ringing)) in out.iter_mut().zip(front.iter().zip(ringing)) {
        *out = front + ringing;
    }
}

/// The entry that is nearest in a rising table with these bounds between neighbours; of two as near,
/// the lower one.
fn nearest(bounds: &[f32], wanted: f32) -> u8 {
    bounds.iter().map(|bound| u8::from(wanted > *bound)).sum()
}

const fn bounds<const N: usize, const ENTRIES: usize>(table: &[f32; ENTRIES]) -> [f32; N] {
    let mut bounds = [0.0; N];
    let mut n = 0;
    while n < N {
        bounds[n] = (table[n] + table[n + 1]) / 2.0;
        n += 1;
    }
    bounds
}

/// How much the outermost samples of a pair count.
const EDGE: [f32; 5] = [1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0, 4.0 / 6.0, 5.0 / 6.0];

/// What the largest sample is scaled to before it is quantised.
const LEVEL_AT_PEAK: f32 = 4.5;

/// Levels of a sample.
const LEVELS: [f32; 8] =
    [-3.719849, -2.17749, -1.130005, -0.309692, 0.444214, 1.329712, 2.436279, 3.983887];
const LEVEL_BOUNDS: [f32; 7] = bounds(&LEVELS);

/// Decimal logarithms of the largest sample.
const PEAKS: [f32; 64] = [
    1.000085, 1.071695, 1.140395, 1.206868, 1.277188, 1.351503, 1.42938, 1.500727, 1.569049,
    1.639599, 1.707071, 1.781531, 1.840799, 1.90155, 1.956695, 2.00675, 2.055474, 2.102787,
    2.142819, 2.183592, 2.217962, 2.257177, 2.295739, 2.332967, 2.369248, 2.402792, 2.43508,
    2.468598, 2.503394, 2.539284, 2.572944, 2.605036, 2.636331, 2.668939, 2.69878, 2.729101,
    2.759786, 2.789834, 2.818679, 2.848074, 2.87747, 2.906899, 2.936655, 2.967804, 3.000115,
    3.033367, 3.066355, 3.104231, 3.141499, 3.183012, 3.222952, 3.265433, 3.308441, 3.350823,
    3.395275, 3.442793, 3.490801, 3.542514, 3.604064, 3.66605, 3.740994, 3.830749, 3.93877,
    4.101764,
];
const PEAK_BOUNDS: [f32; 63] = bounds(&PEAKS);
