//! Who may ask what. A request shows one key in `X-API-Key`: the admin key, or the Ultravox key of the
//! account. Both are compared in constant time, and every failure looks the same. A source that shows
//! too many wrong keys waits, with the right key too: else it could go on guessing.

use crate::ground::{Instant, Secret, limits};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Whose key a request showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    Admin,
    Ultravox,
}

/// What a route asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// No key.
    Open,
    /// The admin key or the Ultravox key.
    EitherKey,
    /// The Ultravox key: the request goes on to Ultravox, or makes a call there.
    UltravoxKey,
}

/// The keys that open something; an empty one opens nothing.
#[derive(Clone, Debug)]
pub struct Keys {
    pub admin: Option<Secret>,
    pub ultravox: Secret,
}

/// Why a request goes no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// No key, or a wrong one.
    Unknown,
    /// The admin key, where Ultravox's is needed.
    NotAdmins,
    /// Too many wrong keys of this source: how long it waits.
    Wait(Duration),
}

impl Keys {
    /// Whose key this is. Both are always compared.
    fn holder(&self, given: &[u8]) -> Option<Holder> {
        let matches = |key: &Secret| !key.is_empty() & key.matches(given);
        let admin = self.admin.as_ref().is_some_and(matches);
        let ultravox = matches(&self.ultravox);
        // One text for both opens what either opens.
        match (ultravox, admin) {
            (true, _) => Some(Holder::Ultravox),
            (false, true) => Some(Holder::Admin),
            (false, false) => None,
        }
    }

    /// Whether a request from `source` with this key may go on; `None` holds no key and needs none.
    ///
    /// # Errors
    /// [`Denial`].
    pub fn judge(
        &self,
        failures: &Failures,
        now: Instant,
        source: IpAddr,
        right: Right,
        given: &[u8],
    ) -> Result<Option<Holder>, Denial> {
        if right == Right::Open {
            return Ok(None);
        }
        if let Some(wait) = failures.wait(now, source) {
            return Err(Denial::Wait(wait));
        }
        match (self.holder(given), right) {
            (None, _) => {
                failures.note(now, source);
                Err(Denial::Unknown)
            }
            (Some(Holder::Admin), Right::UltravoxKey) => Err(Denial::NotAdmins),
            (Some(holder), _) => Ok(Some(holder)),
        }
    }
}

/// Wrong keys by source, within a window that begins with the first of them.
#[derive(Debug, Default)]
pub struct Failures(Mutex<BTreeMap<IpAddr, (Instant, u32)>>);

impl Failures {
    /// How long the source still waits, when it does.
    fn wait(&self, now: Instant, source: IpAddr) -> Option<Duration> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = rows.get(&source)?;
        let left = limits::KEY_FAILURES_WINDOW.saturating_sub(now.since(*began));
        (*count >= limits::KEY_FAILURES_MAX && !left.is_zero()).then_some(left)
    }

    fn note(&self, now: Instant, source: IpAddr) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, (began, _)| now.since(*began) < limits::KEY_FAILURES_WINDOW);
        if rows.len() >= limits::KEY_FAILURE_SOURCES_MAX && !rows.contains_key(&source) {
            let oldest = rows.iter().min_by_key(|(_, (began, _))| *began).map(|(key, _)| *key);
            oldest.and_then(|source| rows.remove(&source));
        }
        rows.entry(source).or_insert((now, 0)).1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { admin: Some(Secret::new("admin")), ultravox: Secret::new("ultra") }
    }

    fn source(number: u8) -> IpAddr {
        ([192, 0, 2, number]).into()
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn each_key_opens_what_it_is_for() {
        let (admin, ultravox) = (Some(Holder::Admin), Some(Holder::Ultravox));
        for (right, given, expected) in [
            (Right::Open, "", Ok(None)),
            (Right::Open, "wrong", Ok(None)),
            (Right::EitherKey, "admin", Ok(admin)),
            (Right::EitherKey, "ultra", Ok(ultravox)),
            (Right::EitherKey, "", Err(Denial::Unknown)),
            (Right::EitherKey, "admi", Err(Denial::Unknown)),
            (Right::EitherKey, "admin ", Err(Denial::Unknown)),
            (Right::UltravoxKey, "ultra", Ok(ultravox)),
            (Right::UltravoxKey, "admin", Err(Denial::NotAdmins)),
            (Right::UltravoxKey, "wrong", Err(Denial::Unknown)),
        ] {
            let judged =
                keys().judge(&Failures::default(), at(0), source(1), right, given.as_bytes());
            assert_eq!(judged, expected, "{right:?} {given:?}");
        }
        let none = Keys { admin: None, ultravox: Secret::default() };
        let judged = none.judge(&Failures::default(), at(0), source(1), Right::EitherKey, b"");
        assert_eq!(judged, Err(Denial::Unknown), "an empty key opens nothing");
        let one = Keys { admin: Some(Secret::new("same")), ultravox: Secret::new("same") };
        let judged = one.judge(&Failures::default(), at(0), source(1), Right::UltravoxKey, b"same");
        assert_eq!(judged, Ok(ultravox));
    }

    #[test]
    fn a_source_that_guesses_waits_with_the_right_key_too_and_others_do_not() {
        let (keys, failures) = (keys(), Failures::default());
        let ask = |seconds, number, given: &str| {
            keys.judge(&failures, at(seconds), source(number), Right::EitherKey, given.as_bytes())
        };
        for _ in 0..limits::KEY_FAILURES_MAX {
            assert_eq!(ask(10, 1, "wrong"), Err(Denial::Unknown));
        }
        let left = limits::KEY_FAILURES_WINDOW - Duration::from_secs(5);
        assert_eq!(ask(15, 1, "wrong"), Err(Denial::Wait(left)));
        assert_eq!(ask(15, 1, "admin"), Err(Denial::Wait(left)));
        assert_eq!(ask(15, 2, "admin"), Ok(Some(Holder::Admin)));
        let open = keys.judge(&failures, at(15), source(1), Right::Open, b"");
        assert_eq!(open, Ok(None));
        let over = 10 + limits::KEY_FAILURES_WINDOW.as_secs();
        assert!(matches!(ask(over - 1, 1, "admin"), Err(Denial::Wait(_))));
        assert_eq!(ask(over, 1, "admin"), Ok(Some(Holder::Admin)));
    }

    #[test]
    fn the_table_of_failures_is_bounded() {
        let failures = Failures::default();
        for number in 0..limits::KEY_FAILURE_SOURCES_MAX as u32 + 10 {
            failures.note(at(1), std::net::Ipv4Addr::from(number).into());
        }
        let rows = failures.0.lock().expect("nobody panics").len();
        assert_eq!(rows, limits::KEY_FAILURE_SOURCES_MAX);
    }
}
