//! The adaptive codebook (§3.6.3, §4.4): vectors cut from the residual that is decoded already,
//! its most recent samples repeated, and the same of the residual after a filter; and the gains
//! with which three of them are added.
//!
//! For a whole sub-block and its 147 samples of memory the indices are: 0 to 107 a cut that many
//! samples before the end, 108 to 127 the last 20 to 39 samples repeated, 128 to 255 the same two
//! from the filtered memory. The short segment in the start state has cuts alone.

use super::SUBFRAME;
use super::bitstream::Choice;
use super::filter::slide;

/// Memory of a whole sub-block, and of the short segment in the start state (§3.6.1).
pub(super) const MEMORY: usize = 147;
pub(super) const MEMORY_SHORT: usize = 85;
/// Repeated vectors: this many, from the shortest period on.
pub(super) const REPEATED: usize = 20;
pub(super) const PERIOD_MIN: usize = 20;
/// The joint of a repeated vector: samples over which one copy passes into the next.
const JOINT: usize = 5;

/// Vectors that are cut out of `memory` samples.
pub(super) const fn cuts(memory: usize, len: usize) -> usize {
    memory - len + 1
}

/// All vectors of one kind, unfiltered or filtered.
pub(super) const fn half_size(memory: usize, len: usize) -> usize {
    if len == SUBFRAME { cuts(memory, len) + REPEATED } else { cuts(memory, len) }
}

/// The sum of the vectors that `choice` names, to all of `out`. `memory` ends where `out` begins.
pub(super) fn construct(memory: &[f32], choice: &Choice, out: &mut [f32]) {
    let half = half_size(memory.len(), out.len());
    let mut filtered = [0.0; MEMORY];
    let filtered = &mut filtered[..memory.len()];
    if choice.vectors.iter().any(|index| usize::from(*index) >= half) {
        filter_memory(memory, filtered);
    }
    let mut gain = 1.0;
    out.fill(0.0);
    for (stage, (index, gain_index)) in choice.vectors.iter().zip(choice.gains).enumerate() {
        gain = gain_at(stage, gain_index, gain);
        let (source, index) = match usize::from(*index).checked_sub(half) {
            Some(index) => (&*filtered, index),
            None => (memory, usize::from(*index)),
        };
        let mut vector = [0.0; SUBFRAME];
        let vector = &mut vector[..out.len()];
        cut(source, index, vector);
        for (sum, sample) in out.iter_mut().zip(vector) {
            *sum += gain * *sample;
        }
    }
}

/// Vector number `index` of one half of the codebook.
pub(super) fn cut(memory: &[f32], index: usize, vector: &mut [f32]) {
    match cuts(memory.len(), vector.len()).checked_sub(index + 1) {
        Some(start) => vector.copy_from_slice(&memory[start..][..vector.len()]),
        None => {
            // A short segment has no repeated vectors; indices that no encoder sends are taken
            // for the last.
            let past = index - cuts(memory.len(), vector.len());
            repeat(memory, PERIOD_MIN + past.min(REPEATED - 1), vector);
        }
    }
}

/// The last `period` samples, again and again; each copy but the first is led in over five
/// samples (§3.6.3.3).
pub(super) fn repeat(memory: &[f32], period: usize, vector: &mut [f32]) {
    let last = &memory[memory.len() - period..];
    let before = &memory[memory.len() - period - JOINT..][..JOINT];
    for copy in vector.chunks_mut(period) {
        copy.copy_from_slice(&last[..copy.len()]);
    }
    let joint = &mut vector[period.saturating_sub(JOINT)..];
    for (place, (copy, earlier)) in joint.iter_mut().zip(before).enumerate() {
        let weight = 0.2 * place as f32;
        *copy = (1.0 - weight) * *copy + weight * earlier;
    }
}

/// The filtered memory (§3.6.3.2); beyond the ends stands silence.
pub(super) fn filter_memory(memory: &[f32], out: &mut [f32]) {
    let mut padded = [0.0; MEMORY + EXPANSION.len() - 1];
    let padded = &mut padded[..memory.len() + EXPANSION.len() - 1];
    padded[3..3 + memory.len()].copy_from_slice(memory);
    slide(padded, &EXPANSION, out);
}

/// The levels of a stage (§3.6.4.2).
pub(super) fn gain_levels(stage: usize) -> &'static [f32] {
    match stage {
        0 => &GAINS_FIRST,
        1 => &GAINS_SECOND,
        _ => &GAINS_THIRD,
    }
}

/// What the levels of a stage are multiplied with: the size of the gain before, at least 0.1; 1
/// for the first stage.
pub(super) fn gain_scale(stage: usize, gain_before: f32) -> f32 {
    if stage == 0 { 1.0 } else { gain_before.abs().max(0.1) }
}

fn gain_at(stage: usize, index: u8, gain_before: f32) -> f32 {
    let levels = gain_levels(stage);
    gain_scale(stage, gain_before) * levels[usize::from(index) % levels.len()]
}

/// The filter that doubles the codebook, in the order in which it slides over memory.
const EXPANSION: [f32; 8] =
    [-0.033691, 0.08374, -0.144043, 0.713379, 0.806152, -0.184326, 0.108887, -0.03418];

pub(super) const GAINS_FIRST: [f32; 32] = [
    0.037476, 0.075012, 0.112488, 0.150024, 0.1875, 0.224976, 0.262512, 0.299988, 0.337524, 0.375,
    0.412476, 0.450012, 0.487488, 0.525024, 0.5625, 0.599976, 0.637512, 0.674988, 0.712524, 0.75,
    0.787476, 0.825012, 0.862488, 0.900024, 0.9375, 0.974976, 1.012512, 1.049988, 1.087524, 1.125,
    1.162476, 1.200012,
];
const GAINS_SECOND: [f32; 16] = [
    -1.049988, -0.900024, -0.75, -0.599976, -0.450012, -0.299988, -0.150024, 0.0, 0.150024,
    0.299988, 0.450012, 0.599976, 0.75, 0.900024, 1.049988, 1.200012,
];
const GAINS_THIRD: [f32; 8] = [-1.0, -0.659973, -0.330017, 0.0, 0.25, 0.5, 0.75, 1.0];
