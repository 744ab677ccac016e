//! The pool of media ports. A call takes an even port for RTP; the odd one above it is for RTCP
//! when the peer does not multiplex (RFC 3550 §11). Ports are drawn at random, since a guessable
//! port invites RTP injection, and rest for a while after use, since late packets of the last call
//! must not reach the next one.

use super::entropy::Entropy;
use super::time::Instant;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long a returned pair is left unused while others are free.
const REST: Duration = Duration::from_secs(10);

/// An even RTP port; its RTCP port is one higher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RtpPort(pub u16);

/// Free and resting port pairs of one range.
#[derive(Debug)]
pub struct PortPool {
    free: Vec<RtpPort>,
    used: BTreeSet<RtpPort>,
    resting: VecDeque<(Instant, RtpPort)>,
}

impl PortPool {
    /// The pool of all even ports whose pair lies in `first..=last`.
    pub fn new(first: u16, last: u16) -> PortPool {
        let free =
            (first..=last).filter(|port| port % 2 == 0 && *port < last).map(RtpPort).collect();
        PortPool { free, used: BTreeSet::new(), resting: VecDeque::new() }
    }

    /// A random free pair; when only resting ones are left, the one that rested longest; `None`
    /// when all are in use.
    pub fn take(&mut self, now: Instant, entropy: &mut Entropy) -> Option<RtpPort> {
        while let Some((since, _)) = self.resting.front() {
            if now.since(*since) < REST {
                break;
            }
            self.free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        let port = if self.free.is_empty() {
            self.resting.pop_front()?.1
        } else {
            let index = entropy.below(self.free.len() as u64) as usize;
            self.free.swap_remove(index)
        };
        self.used.insert(port);
        Some(port)
    }

    /// Gives a pair back. A port that is not out is ignored.
    pub fn put_back(&mut self, now: Instant, port: RtpPort) {
        if self.used.remove(&port) {
            self.resting.push_back((now, port));
        }
    }

    /// Whether a call has this port, or the one below it.
    pub fn has_out(&self, port: u16) -> bool {
        self.used.contains(&RtpPort(port & !1))
    }

    /// Pairs that are in use now.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }

    /// Pairs that the range holds in all.
    pub fn capacity(&self) -> usize {
        self.free.len() + self.used.len() + self.resting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_even_distinct_and_come_back_after_their_rest() {
        let mut entropy = Entropy::from_number(1);
        let mut pool = PortPool::new(10_001, 10_006);
        assert_eq!(pool.capacity(), 2);
        let start = Instant::ZERO;
        let first = pool.take(start, &mut entropy).expect("two are free");
        let second = pool.take(start, &mut entropy).expect("one is free");
        assert!(first.0.is_multiple_of(2) && second.0.is_multiple_of(2) && first != second);
        assert_eq!(pool.take(start, &mut entropy), None);
        pool.put_back(start, first);
        pool.put_back(start, first);
        assert_eq!(pool.in_use(), 1);
        let out = [second.0, second.0 + 1, first.0, first.0 + 1, 1].map(|port| pool.has_out(port));
        assert_eq!(out, [true, true, false, false, false]);
        assert_eq!(pool.take(start, &mut entropy), Some(first), "resting is better than nothing");
        pool.put_back(start, first);
        pool.put_back(start + Duration::from_secs(5), second);
        let later = start + Duration::from_secs(11);
        assert_eq!(pool.take(later, &mut entropy), Some(first), "second still rests");
    }
}
