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
}
