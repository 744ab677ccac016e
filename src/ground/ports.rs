//! The pool of media ports. A call takes an even port for RTP; the odd one above it is for RTCP
//! when the peer does not multiplex (RFC 3550 §11). Ports are drawn at random, since a guessable
//! port invites RTP injection, and rest for a while after use, since late packets of the last call
//! must not reach the next one.

use super::entropy::Entropy;
use super::time::Instant;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// The used pairs once more, for [`OwnPorts`]: a bit for each.
    out: Arc<[AtomicU64]>,
}

/// Bits of all pairs.
const WORDS: usize = (1 << 15) / 64;

/// Our own ends of media: addresses of this machine, and the ports that calls have just now. Who holds
/// one sees what the pool does, on any thread. It only tells whether media would come back to us.
#[derive(Clone, Default)]
pub struct OwnPorts {
    addresses: Arc<[IpAddr]>,
    out: Arc<[AtomicU64]>,
}

impl OwnPorts {
    /// Whether a call of ours has this address, or the port below it.
    pub fn has(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        if !self.addresses.contains(&ip) {
            return false;
        }
        let (word, bit) = place(RtpPort(address.port()));
        self.out.get(word).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }
}

/// Equal when they tell of the same pool.
impl PartialEq for OwnPorts {
    fn eq(&self, other: &OwnPorts) -> bool {
        let neither = self.out.is_empty() && other.out.is_empty();
        self.addresses == other.addresses && (neither || Arc::ptr_eq(&self.out, &other.out))
    }
}

impl Eq for OwnPorts {}

impl fmt::Debug for OwnPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnPorts at {:?}", self.addresses)
    }
}

/// Where the bit of a pair is.
fn place(port: RtpPort) -> (usize, u64) {
    let pair = usize::from(port.0 / 2);
    (pair / 64, 1 << (pair % 64))
}

impl PortPool {
    /// The pool of all even ports whose pair lies in `first..=last`.
    pub fn new(first: u16, last: u16) -> PortPool {
        let free =
            (first..=last).filter(|port| port % 2 == 0 && *port < last).map(RtpPort).collect();
        let out = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        PortPool { free, used: BTreeSet::new(), resting: VecDeque::new(), out }
    }

    /// The ports that are out, at these addresses of this machine.
    pub fn own(&self, addresses: &[IpAddr]) -> OwnPorts {
        let known = addresses.iter().map(IpAddr::to_canonical).filter(|ip| !ip.is_unspecified());
        OwnPorts { addresses: known.collect(), out: Arc::clone(&self.out) }
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
        let (word, bit) = place(port);
        if let Some(word) = self.out.get(word) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Some(port)
    }

    /// Gives a pair back. A port that is not out is ignored.
    pub fn put_back(&mut self, now: Instant, port: RtpPort) {
        if self.used.remove(&port) {
            self.resting.push_back((now, port));
            let (word, bit) = place(port);
            if let Some(word) = self.out.get(word) {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
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
        let ours: IpAddr = [192, 0, 2, 1].into();
        let own = pool.own(&[ours, [0; 4].into()]);
        let has = |port| own.has(SocketAddr::new(ours, port));
        let out = [second.0, second.0 + 1, first.0, first.0 + 1, 1].map(has);
        assert_eq!(out, [true, true, false, false, false]);
        let mapped = "[::ffff:192.0.2.1]".trim_matches(['[', ']']).parse().expect("an address");
        assert!(own.has(SocketAddr::new(mapped, second.0)));
        for elsewhere in [[192, 0, 2, 2], [0; 4]] {
            assert!(!own.has(SocketAddr::new(elsewhere.into(), second.0)), "{elsewhere:?}");
        }
        assert!(!OwnPorts::default().has(SocketAddr::new(ours, second.0)));
        assert_eq!(pool.take(start, &mut entropy), Some(first), "resting is better than nothing");
        assert!(own.has(SocketAddr::new(ours, first.0)), "it follows the pool");
        pool.put_back(start, first);
        pool.put_back(start + Duration::from_secs(5), second);
        let later = start + Duration::from_secs(11);
        assert_eq!(pool.take(later, &mut entropy), Some(first), "second still rests");
    }
}
