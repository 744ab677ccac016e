//! Prefix codes from the tables of `codes`: a symbol is the place of its code in the table.

use super::bits::BitReader;

/// The code of a symbol as its bits and their number.
#[inline(always)]
pub fn code(marked: u32) -> (u32, u32) {
    let length = 31 - marked.leading_zeros();
    (marked ^ 1 << length, length)
}

/// Decodes a complete prefix code of up to `SYMBOLS` symbols and 16 bits: a table for the first
/// eight bits, then a tree.
pub struct PrefixDecoder<const SYMBOLS: usize> {
    /// By the first eight bits: a leaf with its length above, or the inner node that they lead to.
    roots: [u16; 1 << ROOT_BITS],
    nodes: [[u16; 2]; SYMBOLS],
}

const ROOT_BITS: u32 = 8;

/// An entry that is a symbol, not a node. In `roots` four bits above the symbol hold its length
/// less one, which is at most seven there.
const LEAF: u16 = 1 << 15;
const LENGTH_AT: u32 = 12;
const SYMBOL: u16 = (1 << 10) - 1;
/// No code of the table leads here; the last node, which no tree of these tables needs.
const NOWHERE: u16 = LEAF;

impl<const SYMBOLS: usize> PrefixDecoder<SYMBOLS> {
    /// From the codes with a one before them. Of symbols with the same code the first is decoded.
    pub const fn new(codes: &[u32; SYMBOLS]) -> PrefixDecoder<SYMBOLS> {
        let mut nodes = [[NOWHERE; 2]; SYMBOLS];
        let mut used = 1;
        let mut symbol = SYMBOLS;
        while symbol > 0 {
            symbol -= 1;
            let mut bit = 31 - codes[symbol].leading_zeros();
            let mut node = 0;
            while bit > 1 {
                bit -= 1;
                let branch = (codes[symbol] >> bit & 1) as usize;
                if nodes[node][branch] == NOWHERE {
                    nodes[node][branch] = used;
                    used += 1;
                }
                node = nodes[node][branch] as usize;
            }
            nodes[node][(codes[symbol] & 1) as usize] = LEAF | symbol as u16;
        }
        PrefixDecoder { roots: roots(&nodes), nodes }
    }

    /// Reads a symbol, at most 16 bits. `None` when the frame ends within its code; then all bits
    /// have been read.
    #[inline(always)]
    pub fn decode(&self, bits: &mut BitReader<'_>) -> Option<usize> {
        let ahead = bits.peek();
        let mut entry = self.roots[(ahead >> (32 - ROOT_BITS)) as usize];
        let mut length = u32::from(entry >> LENGTH_AT & 7) + 1;
        if entry & LEAF == 0 {
            length = ROOT_BITS;
            while entry & LEAF == 0 && length < 16 {
                length += 1;
                let node = self.nodes.get(usize::from(entry))?;
                entry = node[(ahead >> (32 - length) & 1) as usize];
            }
        }
        if bits.left() < length as i32 {
            bits.skip(bits.left().max(0) as u32);
            return None;
        }
        bits.skip(length);
        Some(usize::from(entry & SYMBOL))
    }
}

const fn roots<const SYMBOLS: usize>(nodes: &[[u16; 2]; SYMBOLS]) -> [u16; 1 << ROOT_BITS] {
    let mut roots = [0; 1 << ROOT_BITS];
    let mut first_bits = 0;
    while first_bits < 1 << ROOT_BITS {
        let (mut entry, mut length) = (0, 0);
        while entry & LEAF == 0 && length < ROOT_BITS {
            length += 1;
            entry = nodes[entry as usize][first_bits >> (ROOT_BITS - length) & 1];
        }
        if entry & LEAF != 0 {
            entry |= (length as u16 - 1) << LENGTH_AT;
        }
        roots[first_bits] = entry;
        first_bits += 1;
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::super::bits::{BitReader, BitWriter};
    use super::super::codes;
    use super::{PrefixDecoder, code};

    /// Every row of 16 bits begins with the code of the symbol that is read from it, and of two
    /// symbols with the same code the first is read.
    fn check<const SYMBOLS: usize>(codes: &[u32; SYMBOLS]) {
        let decoder = PrefixDecoder::new(codes);
        for word in 0..=u16::MAX {
            let frame = [word.to_be_bytes(), [0; 2]].concat();
            let mut bits = BitReader::new(&frame);
            let symbol = decoder.decode(&mut bits).expect("no code is longer");
            let (code, length) = code(codes[symbol]);
            assert_eq!(u32::from(word) >> (16 - length), code, "{word:016b}");
            assert_eq!(bits.left(), 32 - length as i32);
            let first = codes.iter().position(|other| *other == codes[symbol]);
            assert_eq!(first, Some(symbol));
        }
    }

    #[test]
    fn codes_are_complete() {
        codes::POWER_DIFFERENCES.iter().for_each(check);
        check(&codes::VECTORS_0);
        check(&codes::VECTORS_1);
        check(&codes::VECTORS_2);
        check(&codes::VECTORS_3);
        check(&codes::VECTORS_4);
        check(&codes::VECTORS_5);
        check(&codes::VECTORS_6);
    }

    #[test]
    fn a_code_that_the_frame_cuts_off_is_none_and_uses_up_the_rest() {
        let decoder = PrefixDecoder::new(&codes::VECTORS_3);
        for symbol in [0, 1, 200, 624] {
            let (code, length) = code(codes::VECTORS_3[symbol]);
            // The code ends with the frame, and then one bit too late.
            let before = 32 - length;
            for (zeros, whole) in [(before, true), (before + 1, false)] {
                let mut frame = [0; 4];
                let mut writer = BitWriter::new(&mut frame);
                writer.push(0, zeros);
                writer.push(code, length);
                writer.finish();
                let mut bits = BitReader::new(&frame);
                bits.peek();
                bits.skip(zeros);
                assert_eq!(decoder.decode(&mut bits).is_some(), whole, "{symbol}");
                assert_eq!(bits.left(), 0);
            }
        }
    }
}
