//! What the tests of the four machines share: times in milliseconds and the list of all that a
//! machine does when it is left alone.

use super::{Effect, Timer};
use crate::ground::Instant;
use bytes::Bytes;
use std::time::Duration;

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn at(millis: u64) -> Instant {
    Instant::ZERO + ms(millis)
}

pub(super) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(super) fn send(text: &'static str) -> Effect {
    Effect::Send(bytes(text))
}

/// The same message sent at each of `times` (milliseconds).
pub(super) fn sends(times: &[u64], text: &'static str) -> Vec<(u64, Effect)> {
    times.iter().map(|time| (*time, send(text))).collect()
}

/// Calls `step` at each deadline that it returns and lists what came out, with the milliseconds.
pub(super) fn fire_all(
    mut step: impl FnMut(Instant, &mut Vec<Effect>) -> Option<(Instant, Timer)>,
) -> Vec<(u64, Effect)> {
    let mut fired = Vec::new();
    let mut out = Vec::new();
    let mut next = step(Instant::ZERO, &mut out);
    while let Some((deadline, _)) = next {
        next = step(deadline, &mut out);
        let millis = deadline.as_nanos() / 1_000_000;
        fired.extend(out.drain(..).map(|effect| (millis, effect)));
    }
    fired
}
