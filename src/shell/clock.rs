//! The one place that reads the clocks. Everything below the shell is told the time.

use crate::ground::{Instant, Now, WallTime};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The process's clock: monotonic time since it was first asked, and wall time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Both times, taken together. Two reads through the vDSO: some 50 ns.
    pub fn now() -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Now { at: Clock::instant(), wall: WallTime::from_unix_micros(micros) }
    }

    /// The monotonic time alone.
    pub fn instant() -> Instant {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        Instant::ZERO + START.get_or_init(std::time::Instant::now).elapsed()
    }
}

/// The clock of a loop that asks often: the wall time is read once, when it is made, and follows the
/// monotonic time from there. To be made anew in each round, or it would miss that the wall time was
/// set.
#[derive(Clone, Copy, Debug)]
pub struct RoundClock(Now);

impl RoundClock {
    /// Reads both times.
    pub fn begin() -> RoundClock {
        RoundClock(Clock::now())
    }

    /// When it was made.
    pub fn began(&self) -> Instant {
        self.0.at
    }

    /// One read through the vDSO.
    pub fn now(&self) -> Now {
        self.0.later(Clock::instant().since(self.0.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_all_threads_see_the_same() {
        let first = Clock::now();
        let second = std::thread::spawn(Clock::now).join().expect("a clock does not panic");
        let third = Clock::now();
        assert!(first.at <= second.at && second.at <= third.at);
        assert!(first.wall.unix_micros() > 1_700_000_000_000_000);
    }

    #[test]
    fn in_a_round_both_times_go_on_together() {
        let clock = RoundClock::begin();
        let (first, second) = (clock.now(), clock.now());
        assert!(clock.began() <= first.at && first.at <= second.at);
        let micros = |now: Now| now.wall.unix_micros() - clock.0.wall.unix_micros();
        assert_eq!(micros(second) as u128, second.at.since(clock.began()).as_micros());
    }
}
