//! The sample clock of the uplink: every second of a call is a second of audio. It compares what was
//! pushed with what is due since its origin; it never decides what the missing samples hold.

use crate::ground::Instant;
use std::time::Duration;

/// Samples due since an origin against samples pushed.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleClock {
    origin: Instant,
    rate_hz: u32,
    pushed: u64,
}

impl SampleClock {
    pub(super) fn start(now: Instant, rate_hz: u32) -> SampleClock {
        SampleClock { origin: now, rate_hz, pushed: 0 }
    }

    /// How many samples the uplink is behind real time; negative when it is ahead.
    pub(super) fn lag(&self, now: Instant) -> i64 {
        let nanos = now.since(self.origin).as_nanos();
        let due = nanos * u128::from(self.rate_hz) / 1_000_000_000;
        i64::try_from(due).unwrap_or(i64::MAX) - self.pushed as i64
    }

    /// When the uplink will be `lag` samples behind, if nothing more is pushed.
    pub(super) fn when_lagging(&self, lag: usize) -> Instant {
        let samples = u128::from(self.pushed) + lag as u128;
        let nanos = (samples * 1_000_000_000).div_ceil(u128::from(self.rate_hz));
        self.origin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn push(&mut self, samples: usize) {
        self.pushed += samples as u64;
    }
}

/// Samples in `milliseconds` at `rate_hz`.
pub(super) fn samples_in(milliseconds: u32, rate_hz: u32) -> usize {
    milliseconds as usize * rate_hz as usize / 1_000
}

/// Whole milliseconds of `samples` at `rate_hz`.
pub(super) fn milliseconds_of(samples: u64, rate_hz: u32) -> u64 {
    samples * 1_000 / u64::from(rate_hz.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_and_its_deadline_agree_to_the_nanosecond() {
        let start = Instant::from_nanos(7);
        let mut clock = SampleClock::start(start, 8_000);
        clock.push(160);
        assert_eq!(clock.lag(start), -160);
        let at = clock.when_lagging(640);
        assert_eq!(at, start + Duration::from_millis(100));
        assert_eq!((clock.lag(at), clock.lag(at - Duration::from_nanos(1))), (640, 639));
    }
}
