//! The ring between a media session and the agent's socket: PCM, at most [`UPLINK_FRAMES_MAX`] frames
//! of 20 ms. It comes out in pieces of up to a frame, and at once: what is less than a frame does not
//! wait for its rest, since the silence before a first packet may be of any length, and each later
//! packet's end would then wait for the next packet. When the socket does not take them the oldest
//! goes and is counted, so that the agent hears the present. Before the agent joined, the ring keeps
//! the caller's first words.
//!
//! It is made for a clean network and an agent that keeps up: it takes more room when packets are
//! released together after a gap, and its full room only while an agent does not keep up.

use crate::ground::limits::UPLINK_FRAMES_MAX;

/// Milliseconds of audio in one frame.
pub const FRAME_MS: u32 = 20;

/// Frames that there is room for from the start: a packet of 40 ms, whatever waits of the one before.
const FRAMES_AT_FIRST: usize = 2;
/// The next size, which is kept: a gap's worth of packets that are released at once.
const FRAMES_OF_A_GAP: usize = 8;

/// Bounded ring of PCM frames for the agent, mono, in the agent's input rate.
#[derive(Debug)]
pub struct Uplink {
    samples: Box<[i16]>,
    frame_samples: usize,
    /// Index of the oldest sample.
    head: usize,
    /// Samples kept.
    kept: usize,
    open: bool,
    dropped_frames: u64,
}

impl Uplink {
    /// A closed, empty ring for audio of `rate_hz` (8,000 to 48,000).
    pub fn new(rate_hz: u32) -> Uplink {
        let frame_samples = (rate_hz * FRAME_MS / 1_000).max(1) as usize;
        Uplink {
            samples: silence(frame_samples * FRAMES_AT_FIRST),
            frame_samples,
            head: 0,
            kept: 0,
            open: false,
            dropped_frames: 0,
        }
    }

    /// Lets samples out: the agent has joined. What waits comes first.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Appends samples; when there is no room the oldest frames are dropped.
    pub fn push(&mut self, pcm: &[i16]) {
        let mut rest = pcm;
        if self.kept + pcm.len() > self.samples.len() {
            self.grow(self.kept + pcm.len());
        }
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

    /// Takes the oldest samples, up to a frame; `None` when there are none, or the agent has not
    /// joined.
    pub fn pop(&mut self) -> Option<&[i16]> {
        let count = self.frame_samples.min(self.kept).min(self.samples.len() - self.head);
        if !self.open || count == 0 {
            self.shrink();
            return None;
        }
        let start = self.head;
        self.advance(count);
        self.samples.get(start..start + count)
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
        self.advance(self.frame_samples.min(self.kept));
        if self.open {
            self.dropped_frames += 1;
        }
    }

    /// The head moves on; an empty ring starts again at its beginning, so that a call whose agent
    /// keeps up touches one frame of memory only.
    fn advance(&mut self, count: usize) {
        self.kept -= count;
        self.head = (self.head + count) % self.samples.len();
        if self.kept == 0 {
            self.head = 0;
        }
    }

    /// Takes the next size that holds `wanted` samples, or the full room: the agent does not keep up, or
    /// has not joined.
    fn grow(&mut self, wanted: usize) {
        let gap = self.frame_samples * FRAMES_OF_A_GAP;
        let room = if wanted <= gap { gap } else { self.frame_samples * UPLINK_FRAMES_MAX };
        if self.samples.len() >= room {
            return;
        }
        let mut samples = silence(room);
        let first = self.kept.min(self.samples.len() - self.head);
        samples[..first].copy_from_slice(&self.samples[self.head..self.head + first]);
        samples[first..self.kept].copy_from_slice(&self.samples[..self.kept - first]);
        (self.samples, self.head) = (samples, 0);
    }

    /// Gives the room back that only a slow agent needs, once all was taken.
    fn shrink(&mut self) {
        if self.kept == 0 && self.samples.len() > self.frame_samples * FRAMES_OF_A_GAP {
            self.samples = silence(self.frame_samples * FRAMES_AT_FIRST);
        }
    }
}

fn silence(samples: usize) -> Box<[i16]> {
    vec![0; samples].into_boxed_slice()
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
    fn pushes_of_any_length_come_out_at_once_in_order_and_at_most_a_frame_at_a_time() {
        let mut uplink = Uplink::new(8_000);
        uplink.open();
        let mut out = Vec::new();
        let mut start = 0;
        for length in [50, 160, 200, 0, 1_999, 3, 320].repeat(3) {
            uplink.push(&ramp(start, length));
            start += length;
            while let Some(frame) = uplink.pop() {
                assert!((1..=160).contains(&frame.len()));
                out.extend_from_slice(frame);
            }
            assert_eq!(out.len(), start as usize, "nothing waits");
        }
        assert_eq!(out, ramp(0, start));
    }

    #[test]
    fn the_end_of_the_ring_is_no_end_of_the_audio() {
        let mut uplink = Uplink::new(8_000);
        uplink.open();
        uplink.push(&ramp(0, 3_950));
        let mut out = uplink.pop().expect("a frame").to_vec();
        uplink.push(&ramp(3_950, 200));
        while let Some(frame) = uplink.pop() {
            out.extend_from_slice(frame);
        }
        assert_eq!((out, uplink.dropped_frames()), (ramp(0, 4_150), 0));
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

    #[test]
    fn room_is_taken_as_it_is_needed_and_what_only_a_slow_agent_needs_is_given_back() {
        let mut uplink = Uplink::new(8_000);
        uplink.open();
        let mut out = Vec::new();
        for start in [0, 320, 640] {
            uplink.push(&ramp(start, 320));
            while let Some(frame) = uplink.pop() {
                out.extend_from_slice(frame);
            }
            assert_eq!(uplink.samples.len(), 160 * FRAMES_AT_FIRST);
        }
        uplink.push(&ramp(960, 240));
        assert_eq!(uplink.pop().map(<[i16]>::len), Some(160));
        uplink.push(&ramp(1_200, 200));
        assert_eq!(uplink.samples.len(), 160 * FRAMES_AT_FIRST, "the ring goes round");
        uplink.push(&ramp(1_400, 1_000));
        assert_eq!(uplink.samples.len(), 160 * FRAMES_OF_A_GAP);
        uplink.push(&ramp(2_400, 1_000));
        assert_eq!(uplink.samples.len(), 160 * UPLINK_FRAMES_MAX);
        out.extend(ramp(960, 160));
        while let Some(frame) = uplink.pop() {
            out.extend_from_slice(frame);
        }
        assert_eq!((out, uplink.dropped_frames()), (ramp(0, 3_400), 0));
        assert_eq!(uplink.samples.len(), 160 * FRAMES_AT_FIRST);
        uplink.push(&ramp(0, 700));
        while uplink.pop().is_some() {}
        assert_eq!(uplink.samples.len(), 160 * FRAMES_OF_A_GAP, "kept: gaps come again");
    }
}
