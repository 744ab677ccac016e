//! The order in which the residual of a frame is coded (§3.6.1, §4.3), the same on both sides: the
//! start state, the rest of its two sub-blocks, the sub-blocks after them, and then, backwards in
//! time, those before. Each is made of what is decoded already.

use super::bitstream::Parameters;
use super::codebook::{self, MEMORY, MEMORY_SHORT};
use super::{FRAME_SAMPLES_MAX, Mode, Polynomial, SUBFRAME, SUBFRAMES_MAX, state};

/// A stretch of the residual that is coded from the codebook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) start: usize,
    pub(super) len: usize,
    /// Coded from its last sample to its first, from what comes after it.
    backward: bool,
    /// From where to where the residual is decoded before this segment: memory ends here.
    known: (usize, usize),
}

/// The place of the start state: first sample and the two sub-blocks around it.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    mode: Mode,
    /// First sample of the two sub-blocks, and the one after them.
    around: (usize, usize),
    first: bool,
}

impl Layout {
    /// `block` as in [`Parameters::state_block`], within its bounds.
    pub(super) fn new(mode: Mode, block: u8, first: bool) -> Layout {
        let end = (usize::from(block) + 1) * SUBFRAME;
        Layout { mode, around: (end - 2 * SUBFRAME, end), first }
    }

    /// First sample of the start state.
    pub(super) fn state_start(&self) -> usize {
        if self.first { self.around.0 } else { self.around.1 - self.mode.state_samples() }
    }

    /// The first of the two sub-blocks.
    pub(super) fn state_subframe(&self) -> usize {
        self.around.0 / SUBFRAME
    }

    /// Number `index` of the segments in the order of coding; 0 is in the start state's sub-blocks.
    pub(super) fn segment(&self, index: usize) -> Segment {
        let (low, high) = self.around;
        let after = (self.mode.frame_samples() - high) / SUBFRAME;
        if index == 0 {
            let len = 2 * SUBFRAME - self.mode.state_samples();
            let start = if self.first { high - len } else { low };
            Segment { start, len, backward: !self.first, known: self.around }
        } else if index <= after {
            let start = high + (index - 1) * SUBFRAME;
            Segment { start, len: SUBFRAME, backward: false, known: (low, start) }
        } else {
            let start = low - (index - after) * SUBFRAME;
            let known = (start + SUBFRAME, self.mode.frame_samples());
            Segment { start, len: SUBFRAME, backward: true, known }
        }
    }
}

impl Segment {
    /// Samples of memory that its codebook has.
    pub(super) fn memory_len(&self) -> usize {
        if self.len == SUBFRAME { MEMORY } else { MEMORY_SHORT }
    }

    /// What its codebook is made of, nearest last: the decoded residual beside it, and silence
    /// where that is too short. The size is that of `memory_len`.
    pub(super) fn load_memory(&self, decoded: &[f32; FRAME_SAMPLES_MAX], memory: &mut [f32]) {
        memory.fill(0.0);
        if self.backward {
            let beside = &decoded[self.start + self.len..self.known.1];
            for (place, sample) in memory.iter_mut().rev().zip(beside) {
                *place = *sample;
            }
        } else {
            let beside = &decoded[self.known.0..self.start];
            for (place, sample) in memory.iter_mut().rev().zip(beside.iter().rev()) {
                *place = *sample;
            }
        }
    }

    /// Copies the segment to the front of `out`, in the direction of coding; returns that part.
    pub(super) fn take<'a>(
        &self,
        residual: &[f32; FRAME_SAMPLES_MAX],
        out: &'a mut [f32; SUBFRAME],
    ) -> &'a mut [f32] {
        let out = &mut out[..self.len];
        out.copy_from_slice(&residual[self.start..][..self.len]);
        if self.backward {
            out.reverse();
        }
        out
    }

    /// Puts what `take` would give back into its place.
    pub(super) fn put(&self, samples: &[f32], residual: &mut [f32; FRAME_SAMPLES_MAX]) {
        let place = &mut residual[self.start..][..self.len];
        place.copy_from_slice(&samples[..self.len]);
        if self.backward {
            place.reverse();
        }
    }
}

/// The residual that a frame stands for.
pub(super) fn decode(
    mode: Mode,
    parameters: &Parameters,
    synthesis: &[Polynomial; SUBFRAMES_MAX],
) -> [f32; FRAME_SAMPLES_MAX] {
    let mut residual = [0.0; FRAME_SAMPLES_MAX];
    let layout = Layout::new(mode, parameters.state_block, parameters.state_first);
    let state_samples = mode.state_samples();
    state::decode(
        parameters.state_peak,
        &parameters.state[..state_samples],
        &synthesis[layout.state_subframe()],
        &mut residual[layout.state_start()..][..state_samples],
    );
    let mut memory = [0.0; MEMORY];
    for (index, choice) in parameters.segments[..mode.segments()].iter().enumerate() {
        let segment = layout.segment(index);
        let memory = &mut memory[..segment.memory_len()];
        segment.load_memory(&residual, memory);
        let mut vector = [0.0; SUBFRAME];
        codebook::construct(memory, choice, &mut vector[..segment.len]);
        segment.put(&vector, &mut residual);
    }
    residual
}
