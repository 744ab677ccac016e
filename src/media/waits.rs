//! How long agent audio waits between its stream and the wire: what waited as each piece came, and what
//! waits as each frame leaves. An agent that sends ahead of real time has long waits by its own choice;
//! the median of one that sends in real time is the delay that a caller hears. Fixed buckets, one
//! addition for each piece and frame.

use super::clock::Ticks;
use std::time::Duration;

/// Buckets of 10 ms up to 200 ms, of 100 ms up to 2 s, of 4 s above.
const FINE: (usize, u64) = (20, 10);
const MIDDLE: (usize, u64) = (18, 100);
const COARSE: (usize, u64) = (7, 4_000);
const BUCKETS: usize = FINE.0 + MIDDLE.0 + COARSE.0;

/// The waits of one leg.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    pieces: [u32; BUCKETS],
    longest: Duration,
    /// Sum of what waited as frames left, in milliseconds, their number, and the most.
    depth_sum_ms: u64,
    frames: u64,
    depth_max: Ticks,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            pieces: [0; BUCKETS],
            longest: Duration::ZERO,
            depth_sum_ms: 0,
            frames: 0,
            depth_max: Ticks::default(),
        }
    }
}

impl Waits {
    /// A piece came whose first sample leaves after this time, unless it is cleared.
    pub(super) fn on_piece(&mut self, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.longest = self.longest.max(wait);
        if let Some(count) = self.pieces.get_mut(bucket(ms)) {
            *count = count.saturating_add(1);
        }
    }

    /// A frame leaves of so much that waited.
    pub(super) fn on_frame(&mut self, waiting: Ticks) {
        self.depth_sum_ms += waiting.milliseconds();
        self.frames += 1;
        self.depth_max = self.depth_max.max(waiting);
    }

    /// Half of the pieces waited no longer than this; to the bound of its bucket. Zero before the first.
    pub(super) fn median_ms(&self) -> u32 {
        let total: u64 = self.pieces.iter().map(|count| u64::from(*count)).sum();
        let mut seen = 0;
        for (index, count) in self.pieces.iter().enumerate() {
            seen += u64::from(*count);
            if seen * 2 >= total && total > 0 {
                return bound_ms(index).min(self.longest_ms());
            }
        }
        0
    }

    /// The longest wait of a piece.
    pub(super) fn longest_ms(&self) -> u32 {
        u32::try_from(self.longest.as_millis()).unwrap_or(u32::MAX)
    }

    /// What waited on the average, and at most, as frames left.
    pub(super) fn depth_mean_ms(&self) -> u32 {
        u32::try_from(self.depth_sum_ms / self.frames.max(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn depth_max_ms(&self) -> u32 {
        u32::try_from(self.depth_max.milliseconds()).unwrap_or(u32::MAX)
    }
}

fn bucket(ms: u64) -> usize {
    let fine = FINE.0 as u64 * FINE.1;
    let middle = fine + MIDDLE.0 as u64 * MIDDLE.1;
    let index = if ms < fine {
        ms / FINE.1
    } else if ms < middle {
        FINE.0 as u64 + (ms - fine) / MIDDLE.1
    } else {
        (FINE.0 + MIDDLE.0) as u64 + (ms - middle) / COARSE.1
    };
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The upper bound of a bucket.
fn bound_ms(index: usize) -> u32 {
    let widths = [FINE, MIDDLE, COARSE];
    let (mut left, mut bound) = (index + 1, 0);
    for (count, width) in widths {
        let here = left.min(count);
        bound += here as u64 * width;
        left -= here;
    }
    u32::try_from(bound).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_bound_of_its_bucket() {
        for (ms, expected) in [
            (&[][..], 0),
            (&[0], 0),
            (&[0, 0, 30], 10),
            (&[25, 25, 999], 30),
            (&[150, 170, 170], 170),
            (&[5, 199, 199, 900], 200),
            (&[200, 250, 4_000], 300),
            (&[1_999, 1_999, 9_000], 2_000),
            (&[2_000, 2_000, 9_000], 6_000),
            (&[90_000, 90_000], 30_000),
        ] {
            let mut waits = Waits::default();
            for wait in ms {
                waits.on_piece(Duration::from_millis(*wait));
            }
            assert_eq!(waits.median_ms(), expected, "{ms:?}");
            let longest = ms.iter().copied().max().unwrap_or(0);
            assert_eq!(u64::from(waits.longest_ms()), longest);
        }
    }

    #[test]
    fn depth_is_what_waited_as_frames_left() {
        let mut waits = Waits::default();
        assert_eq!((waits.depth_mean_ms(), waits.depth_max_ms()), (0, 0));
        for ms in [20, 40, 60] {
            waits.on_frame(Ticks::of(ms * 8, 8_000));
        }
        assert_eq!((waits.depth_mean_ms(), waits.depth_max_ms()), (40, 60));
    }
}
