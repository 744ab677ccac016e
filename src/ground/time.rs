//! Time as plain values. `Now` carries the monotonic instant that decides everything and the wall
//! time that labels records and RTCP sender reports. No clock is read here: the shell does that.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds since the process (or the simulation) began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The beginning of the process.
    pub const ZERO: Instant = Instant(0);
    /// Later than anything that happens; never reached.
    pub const FAR: Instant = Instant(u64::MAX);

    /// The instant that lies `nanos` nanoseconds after the beginning.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the beginning.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::FAR`]; a duration of 584 years is not told from a longer one.
    fn add(self, rhs: Duration) -> Instant {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::ZERO`].
    fn sub(self, rhs: Duration) -> Instant {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// Wall time in microseconds since the Unix epoch. A label only: no decision rests on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WallTime(i64);

impl WallTime {
    /// The wall time `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix_micros(micros: i64) -> WallTime {
        WallTime(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// The 64-bit NTP timestamp of RTCP sender reports (RFC 3550 §4): seconds since 1900 in the
    /// high word, the fraction of a second in the low one.
    pub fn ntp(self) -> u64 {
        const UNIX_TO_NTP_S: i64 = 2_208_988_800;
        let seconds = (self.0.div_euclid(1_000_000) + UNIX_TO_NTP_S) as u64;
        let micros = self.0.rem_euclid(1_000_000) as u64;
        (seconds << 32) | ((micros << 32) / 1_000_000)
    }
}

/// The only clock a machine sees: both times, taken together by the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Decides everything; never goes backwards.
    pub at: Instant,
    /// Labels records; may jump.
    pub wall: WallTime,
}

impl Now {
    /// The same moment `by` later on both clocks (used by simulations and tests).
    pub fn later(self, by: Duration) -> Now {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Now { at: self.at + by, wall: WallTime(self.wall.0.saturating_add(micros)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_of_the_unix_epoch_and_half_a_second_later() {
        assert_eq!(WallTime::from_unix_micros(0).ntp(), 2_208_988_800 << 32);
        assert_eq!(WallTime::from_unix_micros(500_000).ntp() & 0xffff_ffff, 0x8000_0000);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::FAR + Duration::from_secs(1), Instant::FAR);
        assert_eq!(Instant::ZERO.since(Instant::from_nanos(5)), Duration::ZERO);
    }
}
