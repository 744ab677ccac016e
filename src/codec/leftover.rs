//! Concealment of codecs whose frames have one length, handed out in portions of any length: what a
//! frame has too much waits for the next portion of the same gap.

/// Samples of the longest frame: 20 ms at 16 kHz; 30 ms at 8 kHz are fewer.
const FRAME_SAMPLES_MAX: usize = 320;

/// What is left of the last frame of concealment.
pub struct Leftover {
    frame: [i16; FRAME_SAMPLES_MAX],
    /// Samples of a frame; the last `left` of them wait.
    frame_samples: usize,
    left: usize,
}

impl Leftover {
    /// For frames of `frame_samples`, at most 320.
    pub fn new(frame_samples: usize) -> Leftover {
        let frame_samples = frame_samples.clamp(1, FRAME_SAMPLES_MAX);
        Leftover { frame: [0; FRAME_SAMPLES_MAX], frame_samples, left: 0 }
    }

    /// The gap is over: what is left is not heard.
    pub fn clear(&mut self) {
        self.left = 0;
    }

    /// Fills all of `out`, first with what is left, then with whole frames that `conceal` makes.
    pub fn fill(&mut self, out: &mut [i16], mut conceal: impl FnMut(&mut [i16])) {
        let mut rest = out;
        while !rest.is_empty() {
            if self.left == 0 {
                conceal(&mut self.frame[..self.frame_samples]);
                self.left = self.frame_samples;
            }
            let count = self.left.min(rest.len());
            let start = self.frame_samples - self.left;
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
        let mut leftover = Leftover::new(240);
        let mut next = 0;
        let mut conceal = |frame: &mut [i16]| {
            assert_eq!(frame.len(), 240);
            for sample in frame {
                *sample = next;
                next += 1;
            }
        };
        let mut heard = Vec::new();
        for len in [160, 160, 1, 0, 399] {
            let mut out = vec![-1; len];
            leftover.fill(&mut out, &mut conceal);
            heard.extend(out);
        }
        assert_eq!(heard, (0..720).collect::<Vec<i16>>());
        let mut out = [0; 10];
        leftover.fill(&mut out, &mut conceal);
        leftover.clear();
        leftover.fill(&mut out, &mut conceal);
        assert_eq!(out[0], 960);
    }
}
