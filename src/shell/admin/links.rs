//! Links to ladders that work without a key for a short time, as Ultravox's own log links do. Whoever
//! has a link can read that one ladder. Bounded; the oldest makes place.

use crate::ground::{CallKey, Instant};
use crate::shell::entropy;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a link works.
const LIFE: Duration = Duration::from_secs(600);
const LINKS_MAX: usize = 1_024;
const BITS: usize = 256;

/// The links that work.
#[derive(Debug, Default)]
pub struct LogLinks(Mutex<BTreeMap<String, (Instant, CallKey)>>);

impl LogLinks {
    /// A new link; `None` when the system gives no randomness.
    pub fn make(&self, now: Instant, key: CallKey) -> Option<String> {
        let link = entropy::from_os().ok()?.token(BITS);
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, (made, _)| now.since(*made) < LIFE);
        if links.len() >= LINKS_MAX {
            let oldest = links.iter().min_by_key(|(_, (made, _))| *made);
            let oldest = oldest.map(|(link, _)| link.clone());
            oldest.and_then(|link| links.remove(&link));
        }
        links.insert(link.clone(), (now, key));
        Some(link)
    }

    /// The call that a link leads to.
    pub fn find(&self, now: Instant, link: &str) -> Option<CallKey> {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, key) = links.get(link)?;
        (now.since(*made) < LIFE).then_some(*key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_its_call_for_a_while() {
        let (links, at) =
            (LogLinks::default(), |seconds| Instant::ZERO + Duration::from_secs(seconds));
        let link = links.make(at(5), CallKey(7)).expect("there is randomness");
        assert_eq!(link.len(), 64);
        assert_eq!(links.find(at(604), &link), Some(CallKey(7)));
        assert_eq!(links.find(at(605), &link), None);
        assert_eq!(links.find(at(5), "other"), None);
        for number in 0..LINKS_MAX as u64 + 5 {
            links.make(at(6), CallKey(number));
        }
        assert_eq!(links.0.lock().expect("nobody panics").len(), LINKS_MAX);
        assert_eq!(links.find(at(6), &link), None, "the oldest made place");
    }
}
