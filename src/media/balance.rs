//! Whether the audio of a leg runs ahead of the clock of whoever hears it, or behind: a sender's
//! crystal is some parts in a million off, routes change, stalls are filled. It looks at the packets
//! that came soonest, window by window, so that jitter is not taken for drift, and says when audio is to
//! be shortened or lengthened; how is the matter of `stretch`.
//!
//! ```text
//!   shorten      |        leave it        |  lengthen
//! ───────────────┼────────────────────────┼──────────▶ lag before the soonest packet
//!             −50 ms      0           the most that leaves room for the target
//! ```

use super::clock::TICKS_MS;
use crate::ground::Instant;
use std::time::Duration;

/// What is to become of the next audio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Shorter,
    Longer,
}

/// Audio may be this far ahead of the clock: ticks of 48 kHz, as all amounts here.
const AHEAD_MAX: i64 = 50 * TICKS_MS;
/// What is off by so much more is made good as fast as the audio lets; less than that takes its time.
const URGENT: i64 = 30 * TICKS_MS;
const PACE: Duration = Duration::from_millis(100);
/// Half of the window in which the soonest packet is sought.
const WINDOW: Duration = Duration::from_secs(1);

/// Watches one leg's lag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Balance {
    /// The least lag of the window's first half, and of its second until now; since when.
    least: [i64; 2],
    turned: Instant,
    /// A whole half was watched: the soonest packet of it was soon.
    known: bool,
    /// Nothing is done before.
    rests_until: Instant,
}

impl Balance {
    pub(super) fn new() -> Balance {
        Balance {
            least: [i64::MAX; 2],
            turned: Instant::ZERO,
            known: false,
            rests_until: Instant::ZERO,
        }
    }

    /// A packet is about to be played while the audio lags by `lag`.
    pub(super) fn observe(&mut self, now: Instant, lag: i64) {
        if now.since(self.turned) >= WINDOW {
            self.known = self.least[1] != i64::MAX;
            self.least = [self.least[1], i64::MAX];
            self.turned = now;
        }
        self.least[1] = self.least[1].min(lag);
    }

    /// What is to be done now, when the soonest packet may find the audio at most `behind_max` behind.
    pub(super) fn wanted(&self, now: Instant, behind_max: i64) -> Option<Way> {
        let least = self.least[0].min(self.least[1]);
        let (way, by) = if least < -AHEAD_MAX {
            (Way::Shorter, -AHEAD_MAX - least)
        } else if self.known && least > behind_max {
            (Way::Longer, least - behind_max)
        } else {
            return None;
        };
        (by >= URGENT || now >= self.rests_until).then_some(way)
    }

    /// The audio was shortened or lengthened by so much.
    pub(super) fn correct(&mut self, now: Instant, way: Way, by: i64) {
        let moved = match way {
            Way::Shorter => by,
            Way::Longer => -by,
        };
        for least in self.least.iter_mut().filter(|least| **least != i64::MAX) {
            *least += moved;
        }
        self.rests_until = now + PACE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(5_000_000_000) + Duration::from_millis(ms)
    }

    /// Packets each 20 ms for two seconds, the soonest (each fifth) at `least` ms, the others later.
    fn watched(least: i64) -> Balance {
        let mut balance = Balance::new();
        for number in 0..100u64 {
            let late = if number % 5 == 2 { 0 } else { 70 };
            balance.observe(at(number * 20), (least + late) * TICKS_MS);
        }
        balance
    }

    #[test]
    fn only_the_soonest_packets_count() {
        for (least, wanted) in [
            (-100, Some(Way::Shorter)),
            (-51, Some(Way::Shorter)),
            (-50, None),
            (0, None),
            (50, None),
            (51, Some(Way::Longer)),
        ] {
            assert_eq!(watched(least).wanted(at(2_000), 50 * TICKS_MS), wanted, "{least}");
        }
    }

    #[test]
    fn a_surplus_is_seen_at_once_and_a_lack_when_a_window_was_watched() {
        let mut balance = Balance::new();
        balance.observe(at(0), 80 * TICKS_MS);
        balance.observe(at(990), 80 * TICKS_MS);
        assert_eq!(balance.wanted(at(990), 0), None);
        balance.observe(at(1_000), 80 * TICKS_MS);
        assert_eq!(balance.wanted(at(1_000), 0), Some(Way::Longer));
        balance.observe(at(1_001), -60 * TICKS_MS);
        assert_eq!(balance.wanted(at(1_001), 0), Some(Way::Shorter));
    }

    #[test]
    fn what_was_done_counts_and_small_steps_take_their_time() {
        let mut balance = watched(-60);
        balance.correct(at(2_000), Way::Shorter, 5 * TICKS_MS);
        assert_eq!(balance.wanted(at(2_099), 0), None);
        assert_eq!(balance.wanted(at(2_100), 0), Some(Way::Shorter));
        balance.correct(at(2_100), Way::Shorter, 5 * TICKS_MS);
        assert_eq!(balance.wanted(at(2_300), 0), None);
        let mut balance = watched(-120);
        balance.correct(at(2_000), Way::Shorter, 10 * TICKS_MS);
        assert_eq!(balance.wanted(at(2_000), 0), Some(Way::Shorter), "much is urgent");
        let mut balance = watched(60);
        balance.correct(at(2_000), Way::Longer, 12 * TICKS_MS);
        assert_eq!(balance.wanted(at(2_500), 50 * TICKS_MS), None);
    }
}
