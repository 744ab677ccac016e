//! How fast is polite (RFC 5626 §4.5): what all registrations with one registrar share. A registrar
//! that was down is not overrun when it comes back, and a wrong password is not tried so often that
//! the registrar bans our address.

use crate::ground::{Entropy, Instant, limits};
use std::time::Duration;

/// One registrar, as far as all of its registrations have it in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Registrar {
    /// Registrations that live here.
    pub registrations: usize,
    /// When the next first REGISTER may go out.
    next_place: Instant,
    /// When the next removal may go out.
    next_leave: Instant,
    /// Nothing answers.
    is_down: bool,
}

impl Registrar {
    /// The next place in the row of first REGISTERs: at most 20 in a second. `now` when it is free.
    pub fn reserve(&mut self, now: Instant) -> Instant {
        let place = self.next_place.max(now);
        self.next_place = place + limits::REGISTER_INTERVAL;
        place
    }

    /// The next place in the row of removals, which are known by their nonces and go faster.
    pub fn reserve_leave(&mut self, now: Instant) -> Instant {
        let place = self.next_leave.max(now);
        self.next_leave = place + limits::UNREGISTER_INTERVAL;
        place
    }

    /// A registration found nobody.
    pub fn note_down(&mut self) {
        self.is_down = true;
    }

    /// A registration was answered; true when the registrar was down before.
    pub fn note_up(&mut self) -> bool {
        std::mem::take(&mut self.is_down)
    }

    /// The longest back-off: raised with the number of registrations, so that all of them together
    /// stay within the row even when none is answered.
    fn back_off_max(&self) -> Duration {
        let all = u32::try_from(self.registrations).unwrap_or(u32::MAX);
        // A drawn back-off is three quarters of its bound on average.
        let row = limits::REGISTER_INTERVAL.saturating_mul(all).saturating_mul(4) / 3;
        limits::BACK_OFF_MAX.max(row)
    }
}

/// Why tries fail, which decides how soon the next one comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Nobody answers, or the answer is that it cannot be done now.
    Trouble,
    /// The registrar does not want us as we are: only the operator can mend it.
    Refusal,
}

/// The wait after `failures` tries in a row: 50 to 100 % of a bound that doubles.
pub(super) fn back_off(
    cause: Cause,
    failures: u32,
    registrar: &Registrar,
    entropy: &mut Entropy,
) -> Duration {
    let (start, max) = match cause {
        Cause::Trouble => (limits::BACK_OFF_START, registrar.back_off_max()),
        Cause::Refusal => (limits::REFUSED_BACK_OFF_START, limits::REFUSED_BACK_OFF_MAX),
    };
    let doublings = failures.saturating_sub(1).min(16);
    let bound = start.saturating_mul(1 << doublings).min(max);
    entropy.duration(bound / 2, bound)
}

/// When a binding of `granted` is refreshed: early enough that one try may time out, but never
/// before its half is over; spread over a tenth.
pub(super) fn refresh_after(granted: Duration, entropy: &mut Entropy) -> Duration {
    let margin = (granted / 10).max(limits::REFRESH_MARGIN).min(granted / 2);
    let latest = granted.saturating_sub(margin);
    entropy.duration(latest / 10 * 9, latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_offs_double_within_their_bounds() {
        let mut entropy = Entropy::from_number(7);
        let mut row = |cause, registrations, failures, bounds: (f64, f64)| {
            let registrar = Registrar { registrations, ..Registrar::default() };
            let drawn: Vec<Duration> =
                (0..200).map(|_| back_off(cause, failures, &registrar, &mut entropy)).collect();
            let seconds = |from, to| Duration::from_secs_f64(from)..=Duration::from_secs_f64(to);
            let (half, whole) = bounds;
            assert!(drawn.iter().all(|wait| seconds(half, whole).contains(wait)), "{drawn:?}");
            // They fill their bounds.
            let tenth = (whole - half) / 10.0;
            assert!(drawn.iter().any(|wait| seconds(half, half + tenth).contains(wait)));
            assert!(drawn.iter().any(|wait| seconds(whole - tenth, whole).contains(wait)));
        };
        row(Cause::Trouble, 1, 1, (2.5, 5.0));
        row(Cause::Trouble, 1, 2, (5.0, 10.0));
        row(Cause::Trouble, 1, 5, (30.0, 60.0));
        row(Cause::Trouble, 1, 500, (30.0, 60.0));
        row(Cause::Trouble, 900, 500, (30.0, 60.0));
        row(Cause::Trouble, 9_000, 500, (300.0, 600.0));
        row(Cause::Refusal, 1, 1, (90.0, 180.0));
        row(Cause::Refusal, 1, 50, (900.0, 1_800.0));
    }

    #[test]
    fn refreshes_leave_time_for_a_second_try() {
        let mut entropy = Entropy::from_number(7);
        for (granted_s, from_s, to_s) in
            [(3_600, 2_916, 3_240), (300, 234, 260), (120, 72, 80), (60, 27, 30), (2, 0, 1)]
        {
            for _ in 0..50 {
                let wait = refresh_after(Duration::from_secs(granted_s), &mut entropy);
                let bounds = Duration::from_secs(from_s)..=Duration::from_secs(to_s);
                assert!(bounds.contains(&wait), "{granted_s}: {wait:?}");
            }
        }
    }

    #[test]
    fn the_row_takes_twenty_in_a_second() {
        let mut registrar = Registrar::default();
        let now = Instant::from_nanos(5_000_000_000);
        let places: Vec<Instant> = (0..40).map(|_| registrar.reserve(now)).collect();
        assert_eq!(places.first(), Some(&now));
        let in_first = places.iter().filter(|place| place.since(now) < Duration::from_secs(1));
        assert_eq!(in_first.count(), 20);
        assert!(!registrar.note_up());
        registrar.note_down();
        assert!(registrar.note_up() && !registrar.note_up());
    }
}
