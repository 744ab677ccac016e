//! The re-INVITE of ours in a session (RFC 3261 §14.1): at most one, from the wish to the answer. It
//! is tried again after 491 and the like, a few times; it never writes a message and draws no chance.
//!
//! ```text
//! Idle ─▶ Asked ─ 2xx ─▶ Idle, or Owed until our answer to the peer's offer goes out with the ACK
//!          │  ▲ └ refused ─▶ Idle
//!      491 ▼  │ the wait is over
//!         Waiting ─ an offer of the peer's ─▶ Idle: what we offered is out of date
//! ```

use crate::ground::{Entropy, Instant, Secret};
use bytes::Bytes;
use std::time::Duration;

/// What a re-INVITE of ours says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnOffer {
    /// `None`: the peer is asked for its offer.
    pub description: Option<Bytes>,
    /// Only to keep the session alive (RFC 4028): its end is nobody's news but for the answer.
    pub is_refresh: bool,
    /// Refusals that did not mean no.
    tries: u8,
}

/// Where the re-INVITE of ours stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Offering {
    #[default]
    Idle,
    /// It is out.
    Asked(OwnOffer),
    /// It goes out again.
    Waiting { offer: OwnOffer, until: Instant },
    /// The peer offered in its 2xx: the ACK waits for our answer. Who does not answer in time has
    /// lost the peer's patience.
    Owed { ack: OwedAck, until: Instant },
}

/// What an ACK repeats of its INVITE, which may be forgotten by then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwedAck {
    /// Names the INVITE.
    pub invite: u64,
    pub cseq: u32,
    /// What answered a challenge in it.
    pub authorization: Vec<(&'static str, Secret)>,
}

/// How long to wait after a refusal that does not mean no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// 491: the one who chose the Call-ID waits longer (§14.1).
    Glare { is_call_id_ours: bool },
    /// 500 with a Retry-After (§14.2).
    After(Duration),
    /// At once: 422.
    Now,
}

impl OwnOffer {
    pub fn new(description: Option<Bytes>, is_refresh: bool) -> OwnOffer {
        OwnOffer { description, is_refresh, tries: 0 }
    }
}

impl Offering {
    /// True while a request or an answer of ours is on its way: an offer of the peer's crosses it.
    pub fn is_open(&self) -> bool {
        match self {
            Offering::Asked(_) | Offering::Owed { .. } => true,
            Offering::Idle | Offering::Waiting { .. } => false,
        }
    }

    /// True when nothing is wished.
    pub fn is_idle(&self) -> bool {
        *self == Offering::Idle
    }

    /// The wish that is out, which is over now.
    pub fn take_asked(&mut self) -> Option<OwnOffer> {
        match std::mem::take(self) {
            Offering::Asked(offer) => Some(offer),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The wish that waits, when its time has come or it is dropped.
    pub fn take_waiting(&mut self) -> Option<OwnOffer> {
        match std::mem::take(self) {
            Offering::Waiting { offer, .. } => Some(offer),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Lets a refused wish wait for another try; gives it back when it had enough of them.
    pub fn wait(
        &mut self,
        now: Instant,
        mut offer: OwnOffer,
        again: Again,
        entropy: &mut Entropy,
    ) -> Result<(), OwnOffer> {
        let (from, to) = match again {
            Again::Glare { is_call_id_ours: true } => (2_100, 4_000),
            Again::Glare { is_call_id_ours: false } => (0, 2_000),
            Again::After(wait) if wait > WAIT_MAX => return Err(offer),
            Again::After(wait) => {
                let millis = u64::try_from(wait.as_millis()).unwrap_or_default();
                (millis, millis)
            }
            Again::Now => (0, 0),
        };
        if offer.tries >= TRIES_MAX {
            return Err(offer);
        }
        offer.tries += 1;
        let wait = entropy.duration(Duration::from_millis(from), Duration::from_millis(to));
        *self = Offering::Waiting { offer, until: now + wait };
        Ok(())
    }

    /// The wish goes out, now or when the last request in either direction is over.
    pub fn postpone(&mut self, now: Instant) {
        if let Offering::Waiting { until, .. } = self {
            *until = now + POSTPONED;
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        match self {
            Offering::Waiting { until, .. } | Offering::Owed { until, .. } => Some(*until),
            Offering::Idle | Offering::Asked(_) => None,
        }
    }
}

/// How often a re-INVITE goes out again.
const TRIES_MAX: u8 = 5;
/// The longest Retry-After that a re-INVITE waits for: what §14.2 lets the peer say.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between looks at whether the peer's own request is over.
const POSTPONED: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(again: Again) -> Vec<u128> {
        let mut entropy = Entropy::from_number(3);
        let mut offering = Offering::default();
        let mut waits = Vec::new();
        let mut offer = OwnOffer::new(None, false);
        while offering.wait(Instant::ZERO, offer, again, &mut entropy).is_ok() {
            let until = offering.next_deadline().expect("it waits");
            waits.push(until.since(Instant::ZERO).as_millis());
            offer = offering.take_waiting().expect("it waits");
        }
        waits
    }

    #[test]
    fn the_owner_of_the_call_id_waits_longer_and_nobody_for_ever() {
        let owner = waits(Again::Glare { is_call_id_ours: true });
        assert!(owner.iter().all(|wait| (2_100..=4_000).contains(wait)), "{owner:?}");
        let other = waits(Again::Glare { is_call_id_ours: false });
        assert!(other.iter().all(|wait| *wait <= 2_000), "{other:?}");
        assert_eq!((owner.len(), other.len()), (5, 5));
        assert_eq!(waits(Again::After(Duration::from_secs(10))), [10_000; 5]);
        assert_eq!(waits(Again::After(Duration::from_secs(11))), Vec::<u128>::new());
        assert_eq!(waits(Again::Now), [0; 5]);
    }

    #[test]
    fn a_wish_is_in_one_place() {
        let offer = OwnOffer::new(Some(Bytes::from_static(b"v=0")), false);
        let mut offering = Offering::Asked(offer.clone());
        assert!(offering.is_open() && offering.take_waiting().is_none());
        assert_eq!(offering.take_asked(), Some(offer));
        assert!(offering.is_idle() && offering.next_deadline().is_none());
        let ack = OwedAck { invite: 1, cseq: 2, authorization: Vec::new() };
        let mut owed = Offering::Owed { ack, until: Instant::FAR };
        assert!(owed.is_open() && owed.take_asked().is_none() && owed.take_waiting().is_none());
        assert!(owed.is_open(), "looking takes nothing away");
    }
}
