//! Filters and sums over plain slices. Sliding sums keep their terms in order and work on many
//! outputs at once, which the compiler turns into vector instructions.

use super::{ORDER, Polynomial};

/// Outputs that a sliding sum works on together. A caller saves time by asking for a multiple.
pub(super) const LANES: usize = 16;

/// `out[p]` = Σ `taps[j]`·`signal[p + j]`, for `signal` of at least the length of both, less one.
pub(super) fn slide(signal: &[f32], taps: &[f32], out: &mut [f32]) {
    debug_assert!(signal.len() + 1 >= out.len() + taps.len());
    let mut rest = signal;
    let mut blocks = out.chunks_exact_mut(LANES);
    for block in &mut blocks {
        let mut sums = [0.0; LANES];
        for (tap, window) in taps.iter().zip(rest.windows(LANES)) {
            let window: &[f32; LANES] = window.first_chunk().expect("windows have this length");
            for (sum, sample) in sums.iter_mut().zip(window) {
                *sum += tap * sample;
            }
        }
        block.copy_from_slice(&sums);
        rest = &rest[LANES..];
    }
    for (place, out) in blocks.into_remainder().iter_mut().enumerate() {
        *out = rest[place..].iter().zip(taps).map(|(sample, tap)| sample * tap).sum();
    }
}

/// Σ `a[i]`·`b[i]` over the shorter length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDTH: usize = 8;
    let mut sums = [0.0; WIDTH];
    let (a_blocks, a_rest) = a.as_chunks::<WIDTH>();
    let (b_blocks, b_rest) = b.as_chunks::<WIDTH>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..WIDTH {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let pairs = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
    (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]) + rest
}

pub(super) fn energy(signal: &[f32]) -> f32 {
    dot(signal, signal)
}

/// 1/A(z) in place. `signal` begins with `ORDER` samples of past output.
///
/// Eight samples are made at once: what the output before them leaves of each, and then, by the
/// filter's response to a single pulse, what they do to each other.
pub(super) fn all_pole(signal: &mut [f32], filter: &Polynomial) {
    let mut taps = [0.0; ORDER + 1 + TOGETHER];
    for (tap, coefficient) in taps.iter_mut().zip(filter) {
        *tap = -coefficient;
    }
    let response = response(filter);
    let mut start = ORDER;
    while start + TOGETHER <= signal.len() {
        let (past, block) = signal[start - ORDER..start + TOGETHER].split_at_mut(ORDER);
        let past: &[f32; ORDER] = past.first_chunk().expect("cut to this length");
        let block: &mut [f32; TOGETHER] = block.first_chunk_mut().expect("cut to this length");
        // Two sums for each sample, so that one addition need not wait for the other.
        let (mut even, mut odd) = (*block, [0.0; TOGETHER]);
        for back in [10, 8, 6, 4, 2] {
            add_scaled(&mut even, past[ORDER - back], eight(&taps, back));
            add_scaled(&mut odd, past[ORDER - back + 1], eight(&taps, back - 1));
        }
        add_scaled(&mut even, 1.0, &odd);
        let (mut sum, mut other) = ([0.0; TOGETHER], [0.0; TOGETHER]);
        for place in [0, 2, 4, 6] {
            add_scaled(&mut sum, even[place], eight(&response, TOGETHER - 1 - place));
            add_scaled(&mut other, even[place + 1], eight(&response, TOGETHER - 2 - place));
        }
        add_scaled(&mut sum, 1.0, &other);
        *block = sum;
        start += TOGETHER;
    }
    for end in start..signal.len() {
        let past: &[f32; ORDER] = signal[end - ORDER..].first_chunk().expect("cut to this length");
        signal[end] -= prediction(past, filter);
    }
}

/// Samples of a recursive filter that are made together.
const TOGETHER: usize = 8;

#[inline(always)]
fn eight(from: &[f32], start: usize) -> &[f32; TOGETHER] {
    from[start..].first_chunk().expect("tables are padded for this")
}

#[inline(always)]
fn add_scaled(sums: &mut [f32; TOGETHER], scale: f32, terms: &[f32; TOGETHER]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += scale * term;
    }
}

/// The first samples that 1/A(z) makes of a single pulse, after the silence before it.
fn response(filter: &Polynomial) -> [f32; 2 * TOGETHER - 1] {
    let mut response = [0.0; ORDER + TOGETHER];
    response[ORDER] = 1.0;
    for end in ORDER + 1..response.len() {
        let past = response[end - ORDER..].first_chunk().expect("silence stands before the pulse");
        response[end] = -prediction(past, filter);
    }
    *response.last_chunk().expect("longer than this")
}

/// Σ `a[k]`·`y[n - k]` over the last `ORDER` samples of output, oldest first. The newest comes last
/// into the sum, for the next sample waits for it.
pub(super) fn prediction(past: &[f32; ORDER], filter: &Polynomial) -> f32 {
    let term = |k: usize| filter[k] * past[ORDER - k];
    let old = (term(10) + term(9)) + (term(8) + term(7));
    let middle = (term(6) + term(5)) + (term(4) + term(3));
    ((old + middle) + term(2)) + term(1)
}

/// A(z) over `signal`, which begins with `ORDER` samples of the past; `out` is that much shorter.
pub(super) fn all_zero(signal: &[f32], filter: &Polynomial, out: &mut [f32]) {
    let mut taps = *filter;
    taps.reverse();
    slide(signal, &taps, out);
}

/// A high-pass filter of second order (§3.1, §4.8).
pub(super) struct HighPass {
    zeros: [f32; 3],
    poles: [f32; 2],
    /// The last two samples that went in and that came out, newest first.
    input: [f32; 2],
    output: [f32; 2],
}

impl HighPass {
    /// Takes hum and offset from the input (§3.1): 90 Hz.
    pub(super) fn before_coding() -> HighPass {
        HighPass::new([0.92727436, -1.8544941, 0.92727436], [-1.9059465, 0.9114024])
    }

    /// Takes what is below 65 Hz from the output (§4.8).
    pub(super) fn after_decoding() -> HighPass {
        HighPass::new([0.9398058, -1.8795834, 0.9398058], [-1.9330735, 0.935892])
    }

    fn new(zeros: [f32; 3], poles: [f32; 2]) -> HighPass {
        HighPass { zeros, poles, input: [0.0; 2], output: [0.0; 2] }
    }

    /// Filters a frame in place.
    pub(super) fn run(&mut self, frame: &mut [f32]) {
        for sample in frame.iter_mut() {
            let new = *sample;
            let zeros =
                self.zeros[0] * new + self.zeros[1] * self.input[0] + self.zeros[2] * self.input[1];
            let out = zeros - self.poles[1] * self.output[1] - self.poles[0] * self.output[0];
            self.input = [new, self.input[0]];
            self.output = [out, self.output[0]];
            *sample = out;
        }
        settle(&mut self.output);
    }

    pub(super) fn reset(&mut self) {
        (self.input, self.output) = ([0.0; 2], [0.0; 2]);
    }
}

/// Ends the decay of a filter in silence, before its numbers become so small that the processor
/// is slow with them.
pub(super) fn settle(memory: &mut [f32]) {
    if memory.iter().all(|sample| sample.abs() < 1e-6) {
        memory.fill(0.0);
    }
}
