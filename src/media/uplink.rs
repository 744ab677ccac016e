//! The ring between a media session and the agent's socket: whole PCM frames of 20 ms, at most
//! [`UPLINK_FRAMES_MAX`]. When the socket does not take them the oldest goes and is counted, so that
//! the agent hears the present. Before the agent joined, the ring keeps the caller's first words.
//! It allocates once, when it is made.

use crate::ground::limits::UPLINK_FRAMES_MAX;

/// Milliseconds of audio in one frame.
pub const FRAME_MS: u32 = 20;

/// Bounded ring of PCM frames for the agent, mono, in the agent's input rate.
#[derive(Debug)]
pub struct Uplink {
    samples: Box<[i16]>,
    frame_samples: usize,
    /// Index of the oldest sample; always the start of a frame.
    head: usize,
    /// Samples kept; what is beyond the last whole frame waits for its rest.
    kept: usize,
    open: bool,
    dropped_frames: u64,
}

impl Uplink {
    /// A closed, empty ring for audio of `rate_hz` (8,000 to 48,000).
    pub fn new(rate_hz: u32) -> Uplink {
        let frame_samples = (rate_hz * FRAME_MS / 1_000).max(1) as usize;
        Uplink {
            samples: vec![0; frame_samples * UPLINK_FRAMES_MAX].into_boxed_slice(),
            frame_samples,
            head: 0,
            kept: 0,
            open: false,
            dropped_frames: 0,
        }
    }

    /// Lets frames out: the agent has joined. Frames that wait come first.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Appends samples; when there is no room the oldest whole frames are dropped.
    pub fn push(&mut self, pcm: &[i16]) {
        let mut rest = pcm;
        while !rest.is_empty() {
            if self.kept == self.samples.len() {
                self.drop_oldest();
            }
            let tail = (self.head + self.kept) % self.samples.len();
            let room = (self.samples.len() - self.kept).min(self.samples.len() - tail);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.samples[tail..tail + now.len()].copy_from_slice(now);
            self.kept += now.len();
            rest = later;
        }
    }

    /// Takes the oldest whole frame; `None` when there is none, or the agent has not joined.
    pub fn pop(&mut self) -> Option<&[i16]> {
        if !self.open || self.kept < self.frame_samples {
            return None;
        }
        let start = self.head;
        self.advance();
        self.samples.get(start..start + self.frame_samples)
    }

    /// Whole frames that wait.
    pub fn frames(&self) -> usize {
        self.kept / self.frame_samples
    }

    /// Samples in one frame.
    pub fn frame_samples(&self) -> usize {
        self.frame_samples
    }

    /// Frames dropped since the agent joined, since its socket did not take them.
    pub fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    fn drop_oldest(&mut self) {
        self.advance();
        if self.open {
            self.dropped_frames += 1;
        }
    }

    /// The head moves one frame on; an empty ring starts again at its first frame, so that a call
    /// whose agent keeps up touches one frame of memory only.
    fn advance(&mut self) {
        self.kept -= self.frame_samples;
        self.head = (self.head + self.frame_samples) % self.samples.len();
        if self.kept == 0 {
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(from: i16, count: i16) -> Vec<i16> {
        (from..from + count).collect()
    }

    #[test]
    fn nothing_comes_out_before_the_agent_joined_and_then_the_newest_half_second_does() {
        let mut uplink = Uplink::new(8_000);
        for frame in 0..30 {
            uplink.push(&[frame; 160]);
        }
        assert!(uplink.pop().is_none());
        uplink.open();
        assert_eq!(uplink.frames(), UPLINK_FRAMES_MAX);
        assert_eq!(uplink.pop().map(|frame| frame[0]), Some(5));
        assert_eq!(uplink.dropped_frames(), 0, "before the join nothing counts as refused");
    }

    #[test]
    fn pushes_of_any_length_come_out_as_whole_frames_in_order() {
        let mut uplink = Uplink::new(8_000);
        uplink.open();
        let mut out = Vec::new();
        for start in (0..3_200).step_by(50) {
            uplink.push(&ramp(start, 50));
            while let Some(frame) = uplink.pop() {
                assert_eq!(frame.len(), 160);
                out.extend_from_slice(frame);
            }
        }
        assert_eq!(out, ramp(0, 3_200));
    }

    #[test]
    fn a_full_ring_drops_the_oldest_and_counts() {
        let mut uplink = Uplink::new(8_000);
        uplink.open();
        uplink.push(&[7; 80]);
        for frame in 0..26 {
            uplink.push(&[frame; 160]);
        }
        assert_eq!(uplink.dropped_frames(), 2);
        assert_eq!(uplink.pop().map(|frame| (frame[0], frame[159])), Some((1, 2)));
    }
}
