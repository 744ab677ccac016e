//! The unit of SIP billing: six seconds, each begun one counted (seed, "SIP Billing"). A call is
//! rounded once, on the sum of its legs' time; this is the only place in the product that rounds.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Tenths of a minute, as billed. Made from a duration and from nothing else.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Deciminutes(u64);

impl Deciminutes {
    /// The deciminutes of a call whose legs were up for `sip_time` together: the ceiling of six
    /// seconds. Zero stays zero, so a call that was never answered costs nothing.
    pub const fn billed_for(sip_time: Duration) -> Deciminutes {
        const NANOS: u128 = 6_000_000_000;
        Deciminutes(sip_time.as_nanos().div_ceil(NANOS) as u64)
    }

    /// The number of begun six-second units.
    pub const fn count(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Deciminutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_begun_six_seconds_is_one_deciminute() {
        let rows = [
            (0, 0),
            (1, 1),
            (5_999, 1),
            (6_000, 1),
            (6_001, 2),
            (11_999, 2),
            (12_000, 2),
            (12_001, 3),
            (49_000, 9),
            (3_600_000, 600),
        ];
        for (millis, expected) in rows {
            let billed = Deciminutes::billed_for(Duration::from_millis(millis));
            assert_eq!(billed.count(), expected, "{millis} ms");
        }
    }

    #[test]
    fn a_nanosecond_over_the_edge_begins_a_unit() {
        let edge = Duration::from_secs(6);
        assert_eq!(Deciminutes::billed_for(edge - Duration::from_nanos(1)).count(), 1);
        assert_eq!(Deciminutes::billed_for(edge).count(), 1);
        assert_eq!(Deciminutes::billed_for(edge + Duration::from_nanos(1)).count(), 2);
    }
}
