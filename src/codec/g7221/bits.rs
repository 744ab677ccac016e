//! A frame as a row of bits, the first in the highest bit of the first byte (§3.8, RFC 5577 §3).
//! Frames of both rates are whole words of four bytes, by which they are written and read.

/// A word of a frame.
type Word = [u8; 4];

/// Writes bits into a frame; what goes beyond its end is dropped.
pub struct BitWriter<'a> {
    words: std::slice::IterMut<'a, Word>,
    /// Bits that are not yet a word, right-aligned.
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitWriter<'a> {
    pub fn new(frame: &'a mut [u8]) -> BitWriter<'a> {
        let (words, rest) = frame.as_chunks_mut();
        debug_assert!(rest.is_empty(), "frames are whole words");
        BitWriter { words: words.iter_mut(), pending: 0, pending_bits: 0 }
    }

    /// Appends the lowest `bits` (at most 32) of `value`, which has none above them.
    #[inline]
    pub fn push(&mut self, value: u32, bits: u32) {
        self.pending = self.pending << bits | u64::from(value);
        self.pending_bits += bits;
        if self.pending_bits >= 32 {
            self.pending_bits -= 32;
            if let Some(word) = self.words.next() {
                *word = ((self.pending >> self.pending_bits) as u32).to_be_bytes();
            }
        }
    }

    /// Fills the frame up with ones (§3.8).
    pub fn finish(mut self) {
        let missing = 32 - self.pending_bits;
        self.push(u32::MAX >> self.pending_bits, missing);
        self.words.for_each(|word| *word = [0xff; 4]);
    }
}

/// Reads the bits of a frame; after its end come zeros.
pub struct BitReader<'a> {
    words: std::slice::Iter<'a, Word>,
    /// The next bits, left-aligned, then zeros.
    ahead: u64,
    ahead_bits: i32,
    left: i32,
}

impl<'a> BitReader<'a> {
    pub fn new(frame: &'a [u8]) -> BitReader<'a> {
        let (words, rest) = frame.as_chunks();
        debug_assert!(rest.is_empty(), "frames are whole words");
        let left = 32 * words.len() as i32;
        BitReader { words: words.iter(), ahead: 0, ahead_bits: 0, left }
    }

    /// Bits that were not read yet.
    #[inline]
    pub fn left(&self) -> i32 {
        self.left
    }

    /// The next 32 bits, the first in the highest, without reading them.
    #[inline]
    pub fn peek(&mut self) -> u32 {
        if self.ahead_bits < 32
            && let Some(word) = self.words.next()
        {
            self.ahead |= u64::from(u32::from_be_bytes(*word)) << (32 - self.ahead_bits);
            self.ahead_bits += 32;
        }
        (self.ahead >> 32) as u32
    }

    /// Reads `bits`, 1 to 32, right-aligned; no more than are left.
    #[inline]
    pub fn take(&mut self, bits: u32) -> u32 {
        let value = self.peek() >> (32 - bits);
        self.skip(bits);
        value
    }

    /// Leaves out `bits` of those that were last peeked, and no more than are left.
    #[inline]
    pub fn skip(&mut self, bits: u32) {
        self.ahead <<= bits;
        self.ahead_bits -= bits as i32;
        self.left -= bits as i32;
    }
}
