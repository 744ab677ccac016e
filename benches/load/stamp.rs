//! What is written into the audio so that both ends can measure it. µ-law → linear → µ-law gives
//! every byte back (but 0x7F, the second zero), so a payload can carry its send time, its number
//! and its call as nibbles, 0x20 to 0x2F, before a pattern that its number decides.

use rustix::time::{ClockId, clock_gettime};
use voxedge::codec::g711::Law;

/// Bytes of a 20 ms frame of G.711.
pub const FRAME: usize = 160;
/// Bytes that hold the stamp: 64 bits of time, 16 of number, 16 of call.
pub const STAMP: usize = 24;
const NIBBLE: u8 = 0x20;

/// Nanoseconds of the machine's monotonic clock: the same in all processes.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A frame's stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub sent: u64,
    pub number: u16,
    pub call: u16,
}

impl Stamp {
    /// Fills a payload: the stamp and its pattern.
    pub fn write(self, pattern: &Pattern, payload: &mut [u8; FRAME]) {
        let (stamp, rest) = payload.split_at_mut(STAMP);
        let words = [(self.sent, 16), (u64::from(self.number), 4), (u64::from(self.call), 4)];
        let mut bytes = stamp.iter_mut();
        for (word, nibbles) in words {
            for (nibble, byte) in (0..nibbles).rev().zip(&mut bytes) {
                *byte = NIBBLE | (word >> (nibble * 4) & 0xF) as u8;
            }
        }
        rest.copy_from_slice(pattern.of(self));
    }

    /// The stamp at the head of a payload, when there is one.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let stamp = payload.get(..STAMP)?;
        if !stamp.iter().copied().all(Stamp::may_hold) {
            return None;
        }
        let word = |range: std::ops::Range<usize>| {
            stamp[range].iter().fold(0u64, |word, byte| word << 4 | u64::from(byte & 0xF))
        };
        Some(Stamp { sent: word(0..16), number: word(16..20) as u16, call: word(20..24) as u16 })
    }

    /// Whether a stamp is made of such bytes.
    pub fn may_hold(byte: u8) -> bool {
        byte & 0xF0 == NIBBLE
    }

    /// The stamp of a frame of 16-bit little-endian samples.
    pub fn read_linear(frame: &[u8]) -> Option<Stamp> {
        let (mut pcm, mut encoded) = ([0i16; STAMP], [0u8; STAMP]);
        for (sample, pair) in pcm.iter_mut().zip(frame.get(..STAMP * 2)?.chunks_exact(2)) {
            *sample = i16::from_le_bytes([pair[0], pair[1]]);
        }
        Law::Mu.encode(&pcm, &mut encoded).ok()?;
        Stamp::read(&encoded)
    }
}

/// The bytes behind the stamps: of all loudnesses, and other ones for each frame.
pub struct Pattern([u8; 512]);

impl Pattern {
    pub fn new() -> Pattern {
        let mut state = 0x2545_F491u32;
        Pattern(std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match (state >> 24) as u8 {
                0x7F => 0xFF,
                byte => byte,
            }
        }))
    }

    pub fn of(&self, stamp: Stamp) -> &[u8] {
        let from = (usize::from(stamp.number) * 7 + usize::from(stamp.call) * 31) % 256;
        &self.0[from..from + FRAME - STAMP]
    }
}

/// Nanoseconds, sorted, to ask for quantiles.
pub struct Sorted(Vec<u64>);

impl Sorted {
    pub fn new(mut values: Vec<u64>) -> Sorted {
        values.sort_unstable();
        Sorted(values)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The quantile in milliseconds, not a number when nothing was measured.
    pub fn ms(&self, quantile: f64) -> f64 {
        let rank = (self.0.len() as f64 * quantile).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |value| *value as f64 / 1e6)
    }
}
