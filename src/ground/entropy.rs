//! The one source of chance. A machine draws only from the `Entropy` that it was built with, so the
//! same seed and the same inputs give the same commands, byte for byte. ChaCha with 12 rounds: tags
//! and branches that it makes cannot be guessed (security: a blind spoofer must not be able to ACK).

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::Duration;

/// A seeded stream of random values.
pub struct Entropy(ChaCha12Rng);

impl Entropy {
    /// The shell passes 32 bytes from the operating system; simulations pass a fixed seed.
    pub fn from_seed(seed: [u8; 32]) -> Entropy {
        Entropy(ChaCha12Rng::from_seed(seed))
    }

    /// A seed for tests and simulations.
    pub fn from_number(seed: u64) -> Entropy {
        Entropy(ChaCha12Rng::seed_from_u64(seed))
    }

    /// An independent stream for a part (a media session, a shard), drawn from this one.
    pub fn fork(&mut self) -> Entropy {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        Entropy::from_seed(seed)
    }

    /// A stream for what may be guessed, as when a report is sent.
    pub fn fork_chance(&mut self) -> Chance {
        Chance(self.0.next_u64())
    }

    /// 32 random bits (SSRC, first timestamp).
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            bound => scaled(self.0.next_u64(), bound),
        }
    }

    /// A duration between `from` and `to`, both included, in whole milliseconds.
    pub fn duration(&mut self, from: Duration, to: Duration) -> Duration {
        between(from, to, self.0.next_u64())
    }

    /// A token of lower-case hex digits that carries `bits` random bits (a multiple of 4): To tags
    /// and Via branches use 128.
    pub fn token(&mut self, bits: usize) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        (0..bits / 4).map(|_| char::from(HEX[(self.0.next_u32() & 15) as usize])).collect()
    }

    /// A version 4 UUID (RFC 9562 §5.4) in its hyphenated form.
    pub fn uuid(&mut self) -> String {
        let number = (u128::from(self.u64()) << 64) | u128::from(self.u64());
        let version = (number & !(0xf000 << 64) & !(0xc << 60)) | (0x4000 << 64) | (0x8 << 60);
        hyphenated(version)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// Random values in eight bytes (splitmix64), where [`Entropy`] takes three hundred: each leg has one.
/// Whoever sees some of them can guess the rest.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// A duration between `from` and `to`, both included, in whole milliseconds.
    pub fn duration(&mut self, from: Duration, to: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        between(from, to, mixed ^ (mixed >> 31))
    }
}

/// 64 random bits as a number in `0..bound`.
fn scaled(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

fn between(from: Duration, to: Duration, bits: u64) -> Duration {
    let span = to.saturating_sub(from).as_millis() as u64;
    from + Duration::from_millis(scaled(bits, span.saturating_add(1)))
}

/// The 8-4-4-4-12 form of a UUID.
pub fn hyphenated(uuid: u128) -> String {
    let digits = format!("{uuid:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_stream_and_forks_differ() {
        let (mut a, mut b) = (Entropy::from_number(7), Entropy::from_number(7));
        assert_eq!(a.token(128), b.token(128));
        let mut fork = a.fork();
        assert_ne!(fork.u64(), b.fork().u64().wrapping_add(1));
        assert_ne!(a.u64(), fork.u64());
        assert_eq!(a.token(128).len(), 32);
    }

    #[test]
    fn below_stays_below() {
        let mut entropy = Entropy::from_number(1);
        assert!((0..1000).all(|_| entropy.below(3) < 3));
        assert_eq!(entropy.below(0), 0);
    }
    #[test]
    fn chances_are_spread_over_the_whole_range_and_differ() {
        let mut entropy = Entropy::from_number(1);
        let (from, to) = (Duration::from_millis(100), Duration::from_millis(109));
        let mut seen = [0; 10];
        let (mut one, mut other) = (entropy.fork_chance(), entropy.fork_chance());
        let mut same = 0;
        for _ in 0..1_000 {
            let (a, b) = (one.duration(from, to), other.duration(from, to));
            seen[a.as_millis() as usize - 100] += 1;
            same += u32::from(a == b);
        }
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
        assert!(same < 200, "{same}");
        assert_eq!(one.duration(to, from), to, "no range");
    }
}
