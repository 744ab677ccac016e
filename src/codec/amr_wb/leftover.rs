//! Concealment comes in whole frames and is wanted in portions of any length: what a frame has too
//! much waits for the next portion of the same gap.

use super::library::FRAME_SAMPLES;

/// What is left of the last frame of concealment.
pub(super) struct Leftover {
    frame: [i16; FRAME_SAMPLES],
    /// The last samples of the frame, which wait.
    left: usize,
}

impl Default for Leftover {
    fn default() -> Leftover {
        Leftover { frame: [0; FRAME_SAMPLES], left: 0 }
    }
}

impl Leftover {
    /// The gap is over: what is left is not heard.
    pub(super) fn clear(&mut self) {
        self.left = 0;
    }

    /// Fills all of `out`, first with what is left, then with frames that `conceal` makes.
    pub(super) fn fill(
        &mut self,
        out: &mut [i16],
        mut conceal: impl FnMut(&mut [i16; FRAME_SAMPLES]),
    ) {
        let mut rest = out;
        while !rest.is_empty() {
            if self.left == 0 {
                conceal(&mut self.frame);
                self.left = FRAME_SAMPLES;
            }
            let count = self.left.min(rest.len());
            let start = FRAME_SAMPLES - self.left;
            let (portion, after) = rest.split_at_mut(count);
            portion.copy_from_slice(&self.frame[start..start + count]);
            self.left -= count;
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_join_to_whole_frames_and_a_new_gap_begins_a_new_one() {
        let mut leftover = Leftover::default();
        let mut next = 0;
        let mut conceal = |frame: &mut [i16; FRAME_SAMPLES]| {
            for sample in frame {
                *sample = next;
                next += 1;
            }
        };
        let mut heard = Vec::new();
        for len in [160, 240, 1, 0, 559] {
            let mut out = vec![-1; len];
            leftover.fill(&mut out, &mut conceal);
            heard.extend(out);
        }
        assert_eq!(heard, (0..960).collect::<Vec<i16>>());
        let mut out = [0; 10];
        leftover.fill(&mut out, &mut conceal);
        leftover.clear();
        leftover.fill(&mut out, &mut conceal);
        assert_eq!(out[0], 1_280);
    }
}
