//! Time as samples. [`Ticks`] count audio of any rate in one unit; the [`SampleClock`] of the uplink
//! sees that every second of a call is a second of audio: it compares what was pushed with what is
//! due since its origin, and never decides what the missing samples hold.

use crate::ground::Instant;
use std::ops::AddAssign;
use std::time::Duration;

/// An amount of audio: 48,000 to a second, which every rate divides. Sums over several rates are
/// exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Ticks(u64);

const TICKS_HZ: u32 = 48_000;
/// Ticks in a millisecond.
pub(super) const TICKS_MS: i64 = TICKS_HZ as i64 / 1_000;

impl Ticks {
    /// `samples` of a rate that divides 48,000.
    pub(super) fn of(samples: usize, rate_hz: u32) -> Ticks {
        Ticks(samples as u64 * u64::from(TICKS_HZ / rate_hz.clamp(1, TICKS_HZ)))
    }

    /// In ticks.
    pub(super) fn count(self) -> u64 {
        self.0
    }

    /// Whole milliseconds.
    pub(super) fn milliseconds(self) -> u64 {
        self.0 / u64::from(TICKS_HZ / 1_000)
    }
}

impl AddAssign for Ticks {
    fn add_assign(&mut self, more: Ticks) {
        self.0 += more.0;
    }
}

/// Samples due since an origin against samples pushed.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleClock {
    origin: Instant,
    rate_hz: u32,
    pushed: Ticks,
}

impl SampleClock {
    pub(super) fn start(now: Instant, rate_hz: u32) -> SampleClock {
        SampleClock { origin: now, rate_hz, pushed: Ticks::default() }
    }

    /// Goes on in samples of another rate.
    pub(super) fn change_rate(&mut self, rate_hz: u32) {
        self.rate_hz = rate_hz;
    }

    /// How many samples the uplink is behind real time; negative when it is ahead.
    pub(super) fn lag(&self, now: Instant) -> i64 {
        self.lag_ticks(now).div_euclid(i64::from(TICKS_HZ / self.rate_hz))
    }

    /// As [`SampleClock::lag`], in ticks.
    pub(super) fn lag_ticks(&self, now: Instant) -> i64 {
        let nanos = now.as_nanos().saturating_sub(self.origin.as_nanos());
        // 48,000 / 1,000,000,000, without an overflow for a century.
        let due = nanos.saturating_mul(6) / 125_000;
        due as i64 - self.pushed.0 as i64
    }

    /// When the uplink will be `lag` samples behind, if nothing more is pushed.
    pub(super) fn when_lagging(&self, lag: usize) -> Instant {
        let ticks = self.pushed.0 + Ticks::of(lag, self.rate_hz).0;
        self.origin + Duration::from_nanos(ticks.saturating_mul(125_000).div_ceil(6))
    }

    pub(super) fn push(&mut self, samples: usize) {
        self.pushed += Ticks::of(samples, self.rate_hz);
    }
}

/// Samples in `milliseconds` at `rate_hz`.
pub(super) fn samples_in(milliseconds: u32, rate_hz: u32) -> usize {
    milliseconds as usize * rate_hz as usize / 1_000
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

    #[test]
    fn a_change_of_rate_keeps_the_time() {
        let start = Instant::from_nanos(7);
        let mut clock = SampleClock::start(start, 8_000);
        clock.push(161);
        clock.change_rate(48_000);
        clock.push(1);
        assert_eq!(clock.lag(start), -967);
        clock.change_rate(16_000);
        assert_eq!(clock.lag(start), -323, "not a whole sample: what is pushed is pushed");
        let mut sum = Ticks::of(5, 8_000);
        sum += Ticks::of(18, 16_000);
        sum += Ticks::of(12, 24_000);
        assert_eq!(sum.milliseconds(), 2);
    }
}
