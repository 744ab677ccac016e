//! The encoder's search (§3.6.2, §3.6.4, §3.7): which three vectors of the codebook, with which
//! gains, come nearest to a segment, heard through the weighting filter. Each stage takes the best
//! vector for what the stages before it left.
//!
//! The unfiltered half of the codebook is searched whole, the filtered half only around the best of
//! the first.

use super::bitstream::Choice;
use super::codebook::{
    GAINS_FIRST, MEMORY, PERIOD_MIN, REPEATED, cuts, filter_memory, gain_levels, gain_scale,
    half_size, repeat,
};
use super::filter::{LANES, all_pole, dot, energy, slide};
use super::{ORDER, Polynomial, SUBFRAME};

/// The choice for `target`, which follows `memory`; both in the direction of coding. `index` is the
/// segment's number.
pub(super) fn search(
    index: usize,
    target: &[f32],
    memory: &[f32],
    weighting: &Polynomial,
) -> Choice {
    let mut weighted = [0.0; ORDER + MEMORY + SUBFRAME];
    let weighted = &mut weighted[..ORDER + memory.len() + target.len()];
    weighted[ORDER..][..memory.len()].copy_from_slice(memory);
    weighted[ORDER + memory.len()..].copy_from_slice(target);
    // Memory is silent as far as nothing is decoded: there the filter has nothing to do.
    let silent = memory.iter().take_while(|sample| **sample == 0.0).count();
    all_pole(&mut weighted[silent..], weighting);
    let (memory, target) = weighted[ORDER..].split_at(memory.len());
    let codebook = WeightedCodebook::new(memory, target.len(), range(index, 0));

    let mut choice = Choice::default();
    let mut left = [0.0; SUBFRAME];
    let left = &mut left[..target.len()];
    left.copy_from_slice(target);
    let mut sum = [0.0; SUBFRAME];
    let mut gain = 1.0;
    for stage in 0..3 {
        let best = codebook.best(left, stage, range(index, stage));
        choice.vectors[stage] = best.index as u8;
        (choice.gains[stage], gain) = quantise_gain(stage, best.gain, gain);
        let mut vector = [0.0; SUBFRAME];
        let vector = &mut vector[..target.len()];
        codebook.vector(best.index, vector);
        for ((left, sum), sample) in left.iter_mut().zip(&mut sum).zip(vector) {
            *left -= gain * *sample;
            *sum += gain * *sample;
        }
    }
    choice.gains[0] = corrected_gain(choice.gains[0], energy(target), energy(&sum));
    choice
}

/// Unfiltered cuts that a stage looks at (§3.6.4.1).
fn range(segment: usize, stage: usize) -> usize {
    match (segment, stage) {
        (0, _) => 58,
        (1, 1..) => 44,
        _ => 108,
    }
}

/// The best vector so far.
#[derive(Clone, Copy)]
struct Best {
    index: usize,
    gain: f32,
    /// How much of the target's energy it takes away.
    measure: f32,
}

/// Memory through the weighting filter, and what every stage needs of it.
struct WeightedCodebook {
    len: usize,
    memory_len: usize,
    /// Weighted memory, then as much of silence as sums over many cuts may read.
    memory: [f32; MEMORY + LANES],
    filtered: [f32; MEMORY + LANES],
    /// 1/energy of each cut, by its number.
    inverse: [f32; CUTS],
    inverse_filtered: [f32; CUTS],
    /// Repeated vectors and 1/energy.
    repeated: [[f32; SUBFRAME]; REPEATED],
    inverse_repeated: [f32; REPEATED],
}

impl WeightedCodebook {
    fn new(memory: &[f32], len: usize, range: usize) -> WeightedCodebook {
        let mut codebook = WeightedCodebook {
            len,
            memory_len: memory.len(),
            memory: [0.0; MEMORY + LANES],
            filtered: [0.0; MEMORY + LANES],
            inverse: [0.0; CUTS],
            inverse_filtered: [0.0; CUTS],
            repeated: [[0.0; SUBFRAME]; REPEATED],
            inverse_repeated: [0.0; REPEATED],
        };
        let filtered = &mut codebook.filtered[..memory.len()];
        codebook.memory[..memory.len()].copy_from_slice(memory);
        filter_memory(memory, filtered);
        inverse_energies(memory, len, &mut codebook.inverse[..range]);
        inverse_energies(filtered, len, &mut codebook.inverse_filtered[..range]);
        if len == SUBFRAME {
            let vectors = codebook.repeated.iter_mut().zip(&mut codebook.inverse_repeated);
            for (past, (vector, inverse)) in vectors.enumerate() {
                repeat(memory, PERIOD_MIN + past, vector);
                *inverse = inverse_of(energy(vector));
            }
        }
        codebook
    }

    /// The best vector for `target`: of the unfiltered half, then of the filtered one near it.
    fn best(&self, target: &[f32], stage: usize, range: usize) -> Best {
        let mut best = Best { index: 0, gain: 0.0, measure: MEASURE_MIN };
        self.try_cuts(target, stage, false, (0, range), &mut best);
        if self.len == SUBFRAME {
            self.try_repeated(target, stage, false, (0, REPEATED), &mut best);
        }
        let (near_cuts, near_repeated) = self.neighbours(best.index, range);
        self.try_cuts(target, stage, true, near_cuts, &mut best);
        self.try_repeated(target, stage, true, near_repeated, &mut best);
        best
    }

    /// Which 34 filtered vectors are tried when unfiltered vector `index` was the best: cuts from
    /// and to, and repeated vectors from and to. Those of a whole sub-block lie on a circle.
    fn neighbours(&self, index: usize, range: usize) -> ((usize, usize), (usize, usize)) {
        let none = (0, 0);
        if self.len < SUBFRAME {
            let low = index.saturating_sub(NEIGHBOURS / 2).min(range - NEIGHBOURS);
            return ((low, low + NEIGHBOURS), none);
        }
        let all = self.cuts();
        match index.checked_sub(NEIGHBOURS / 2) {
            None => {
                let over = NEIGHBOURS / 2 - index;
                ((0, NEIGHBOURS - over), (REPEATED - over, REPEATED))
            }
            Some(low) if index < all => {
                let low = low.min(range - NEIGHBOURS);
                ((low, low + NEIGHBOURS), none)
            }
            Some(low) => {
                let first = low.saturating_sub(all);
                ((0, NEIGHBOURS - (REPEATED - first)), (first, REPEATED))
            }
        }
    }

    /// Tries the cuts with these numbers.
    fn try_cuts(
        &self,
        target: &[f32],
        stage: usize,
        filtered: bool,
        (from, to): (usize, usize),
        best: &mut Best,
    ) {
        let (source, inverse) = if filtered {
            (&self.filtered, &self.inverse_filtered)
        } else {
            (&self.memory, &self.inverse)
        };
        // Higher numbers lie earlier in memory.
        let first = self.memory_len - self.len - to.saturating_sub(1);
        let mut products = [0.0; CUTS_PADDED];
        let padded = (to - from).next_multiple_of(LANES);
        slide(&source[first..], target, &mut products[..padded]);
        products[..to - from].reverse();
        let offset = if filtered { from + self.half() } else { from };
        offer(&products[..to - from], &inverse[from..to], stage, offset, best);
    }

    /// Tries the repeated vectors with these numbers, from 0.
    fn try_repeated(
        &self,
        target: &[f32],
        stage: usize,
        filtered: bool,
        (from, to): (usize, usize),
        best: &mut Best,
    ) {
        let mut products = [0.0; REPEATED];
        let mut inverse = self.inverse_repeated;
        for past in from..to {
            if filtered {
                let mut vector = [0.0; SUBFRAME];
                repeat(&self.filtered[..self.memory_len], PERIOD_MIN + past, &mut vector);
                products[past] = dot(&vector, target);
                inverse[past] = inverse_of(energy(&vector));
            } else {
                products[past] = dot(&self.repeated[past], target);
            }
        }
        let half = if filtered { self.half() } else { 0 };
        let offset = half + self.cuts() + from;
        offer(&products[from..to], &inverse[from..to], stage, offset, best);
    }

    fn vector(&self, index: usize, vector: &mut [f32]) {
        let (source, index) = match index.checked_sub(self.half()) {
            Some(index) => (&self.filtered, index),
            None => (&self.memory, index),
        };
        super::codebook::cut(&source[..self.memory_len], index, vector);
    }

    fn cuts(&self) -> usize {
        cuts(self.memory_len, self.len)
    }

    fn half(&self) -> usize {
        half_size(self.memory_len, self.len)
    }
}

/// Takes the vector whose product with the target promises most, if it is better than `best`. The
/// first stage takes none that points away from the target; no stage takes one with a gain above
/// 1.3.
fn offer(products: &[f32], inverse: &[f32], stage: usize, offset: usize, best: &mut Best) {
    let mut measures = [MEASURE_MIN; CUTS_PADDED];
    let measures = &mut measures[..products.len()];
    for ((measure, product), inverse) in measures.iter_mut().zip(products).zip(inverse) {
        let gain = product * inverse;
        let allowed = (gain.abs() < GAIN_MAX) & ((stage > 0) | (*product > 0.0));
        *measure = if allowed { product * gain } else { MEASURE_MIN };
    }
    let greatest = greatest(measures);
    if greatest > best.measure
        && let Some(place) = measures.iter().position(|measure| *measure == greatest)
    {
        let gain = products[place] * inverse[place];
        *best = Best { index: offset + place, gain, measure: greatest };
    }
}

/// The greatest of some numbers, none of which is not a number.
fn greatest(numbers: &[f32]) -> f32 {
    let (blocks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::MIN; LANES];
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for block in blocks {
        for (lane, number) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, *number);
        }
    }
    lanes.iter().chain(rest).fold(f32::MIN, |a, b| larger(a, *b))
}

/// 1/energy of each cut of `len` samples, the latest first. From one to the next a sample comes in
/// and one goes.
fn inverse_energies(memory: &[f32], len: usize, out: &mut [f32]) {
    let start = memory.len() - len;
    let mut energy = energy(&memory[start..]);
    for (place, out) in out.iter_mut().enumerate() {
        *out = inverse_of(energy);
        if let Some(new) = (start - place).checked_sub(1) {
            energy += memory[new] * memory[new] - memory[new + len] * memory[new + len];
        }
    }
}

fn inverse_of(energy: f32) -> f32 {
    if energy > 0.0 { 1.0 / (energy + 2.220446e-16) } else { 0.0 }
}

/// The nearest level of a stage (§3.6.4.2): its index and the gain.
fn quantise_gain(stage: usize, wanted: f32, gain_before: f32) -> (u8, f32) {
    let scale = gain_scale(stage, gain_before);
    let mut best = (0, 0.0, f32::MAX);
    for (index, level) in gain_levels(stage).iter().enumerate() {
        let error = (wanted - scale * level) * (wanted - scale * level);
        if error < best.2 {
            best = (index as u8, scale * level, error);
        }
    }
    (best.0, best.1)
}

/// Raises the first gain, to twice at most, where the sum of the three vectors is weaker than the
/// target (§3.7).
fn corrected_gain(index: u8, wanted: f32, reached: f32) -> u8 {
    let gain = GAINS_FIRST[usize::from(index)];
    let mut corrected = index;
    for (higher, level) in GAINS_FIRST.iter().enumerate().skip(usize::from(index)) {
        let stays_below = reached * level * level < wanted * gain * gain;
        if stays_below && GAINS_FIRST[usize::from(corrected)] < 2.0 * gain {
            corrected = higher as u8;
        }
    }
    corrected
}

/// Filtered vectors that are tried.
const NEIGHBOURS: usize = 34;
/// Cuts of the longest memory.
const CUTS: usize = cuts(MEMORY, SUBFRAME);
const CUTS_PADDED: usize = CUTS.next_multiple_of(LANES);
const GAIN_MAX: f32 = 1.3;
const MEASURE_MIN: f32 = -1e7;
