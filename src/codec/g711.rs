//! G.711, A-law and µ-law (ITU-T G.711), by tables that the compiler works out.
//!
//! Of the readings in use this one takes the one's complement of negative samples, as the
//! reference software of ITU-T G.191 does: others differ by one step at some decision boundaries,
//! which no ear can tell. The whole tables are pinned by checksum in the tests. Encoding needs
//! the upper 12 (A) or 14 (µ) bits of a sample only, so the tables are 4 and 16 KiB and exact.

use super::CodecFault;

/// Which of the two companding laws.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Law {
    /// µ-law: 14-bit range, North America and Japan; payload number 0.
    Mu,
    /// A-law: 13-bit range, elsewhere; payload number 8.
    A,
}

impl Law {
    /// One byte for each sample, to the front of `out`; returns the number of bytes.
    pub fn encode(self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        let out = out.get_mut(..pcm.len()).ok_or(CodecFault::OutputTooSmall)?;
        match self {
            Law::Mu => {
                for (byte, sample) in out.iter_mut().zip(pcm) {
                    *byte = MU_FROM_LINEAR[(*sample as u16 >> 2) as usize];
                }
            }
            Law::A => {
                for (byte, sample) in out.iter_mut().zip(pcm) {
                    *byte = A_FROM_LINEAR[(*sample as u16 >> 4) as usize];
                }
            }
        }
        Ok(pcm.len())
    }

    /// One sample for each byte, to the front of `out`; returns the number of samples. An empty
    /// payload is refused, every other one is valid.
    pub fn decode(self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        if payload.is_empty() {
            return Err(CodecFault::BadPayload);
        }
        let out = out.get_mut(..payload.len()).ok_or(CodecFault::OutputTooSmall)?;
        let table = match self {
            Law::Mu => &LINEAR_FROM_MU,
            Law::A => &LINEAR_FROM_A,
        };
        for (sample, byte) in out.iter_mut().zip(payload) {
            *sample = table[*byte as usize];
        }
        Ok(payload.len())
    }

    /// The byte that decodes to zero: what digital silence is made of.
    pub fn silence(self) -> u8 {
        match self {
            Law::Mu => 0xFF,
            Law::A => 0xD5,
        }
    }
}

static LINEAR_FROM_MU: [i16; 256] = linear_from_mu();
static LINEAR_FROM_A: [i16; 256] = linear_from_a();
static MU_FROM_LINEAR: [u8; 1 << 14] = mu_from_linear();
static A_FROM_LINEAR: [u8; 1 << 12] = a_from_linear();

/// Table 2b of G.711 at 16 bits: bytes are inverted on the line; the bias of 33 (at 14 bits)
/// makes each segment twice the one before.
const fn linear_from_mu() -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let inverted = !(byte as i32);
        let segment = (inverted >> 4) & 7;
        let step = 8 << segment;
        let magnitude = (0x80 << segment) + step * (inverted & 15) + step / 2 - 4 * MU_BIAS;
        table[byte] = if byte & 0x80 == 0 { -magnitude } else { magnitude } as i16;
        byte += 1;
    }
    table
}

/// Table 1b of G.711 at 16 bits: even bits are inverted on the line; the lowest two segments
/// have the same step.
const fn linear_from_a() -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let plain = byte as i32 ^ 0x55;
        let segment = (plain >> 4) & 7;
        let within = ((plain & 15) << 4) + 8;
        let magnitude = if segment == 0 { within } else { (within + 0x100) << (segment - 1) };
        table[byte] = if byte & 0x80 == 0 { -magnitude } else { magnitude } as i16;
        byte += 1;
    }
    table
}

/// Index: the upper 14 bits of the sample, as they stand in two's complement.
const fn mu_from_linear() -> [u8; 1 << 14] {
    let mut table = [0; 1 << 14];
    let mut index = 0;
    while index < 1 << 14 {
        let negative = index >= 1 << 13;
        let magnitude = if negative { (1 << 14) - 1 - index as i32 } else { index as i32 };
        let mut biased = magnitude + MU_BIAS;
        if biased > 0x1FFF {
            biased = 0x1FFF;
        }
        // The leading one of a biased magnitude stands at bit 5 (segment 0) to 12 (segment 7).
        let segment = 26 - biased.leading_zeros() as i32;
        let code = (segment << 4) | ((biased >> (segment + 1)) & 15);
        table[index] = !code as u8 & if negative { 0x7F } else { 0xFF };
        index += 1;
    }
    table
}

/// Index: the upper 12 bits of the sample, as they stand in two's complement.
const fn a_from_linear() -> [u8; 1 << 12] {
    let mut table = [0; 1 << 12];
    let mut index = 0;
    while index < 1 << 12 {
        let negative = index >= 1 << 11;
        let magnitude = if negative { (1 << 12) - 1 - index as i32 } else { index as i32 };
        let code = if magnitude < 16 {
            magnitude
        } else {
            let segment = 28 - magnitude.leading_zeros() as i32;
            (segment << 4) | ((magnitude >> (segment - 1)) & 15)
        };
        table[index] = (code as u8 | if negative { 0 } else { 0x80 }) ^ 0x55;
        index += 1;
    }
    table
}

const MU_BIAS: i32 = 33;

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a, enough to pin a table.
    fn checksum(bytes: impl Iterator<Item = u8>) -> u64 {
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    fn encoded(law: Law) -> Vec<u8> {
        let pcm: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let mut out = vec![0; pcm.len()];
        assert_eq!(law.encode(&pcm, &mut out), Ok(65_536));
        out
    }

    fn decoded(law: Law) -> Vec<i16> {
        let payload: Vec<u8> = (0..=255).collect();
        let mut out = vec![0; 256];
        assert_eq!(law.decode(&payload, &mut out), Ok(256));
        out
    }

    /// The rule of the reference software, sample by sample, written the long way round.
    fn reference(law: Law, sample: i16) -> u8 {
        let magnitude = i32::from(if sample < 0 { !sample } else { sample });
        let sign = if sample < 0 { 0 } else { 0x80u8 };
        match law {
            Law::A => {
                let mut mantissa = magnitude >> 4;
                let mut exponent = 0;
                if mantissa > 15 {
                    exponent = 1;
                    while mantissa > 31 {
                        mantissa >>= 1;
                        exponent += 1;
                    }
                    mantissa -= 16;
                }
                (sign | (exponent << 4) | mantissa as u8) ^ 0x55
            }
            Law::Mu => {
                let biased = ((magnitude >> 2) + 33).min(0x1FFF);
                let mut segment = 1;
                let mut rest = biased >> 6;
                while rest != 0 {
                    segment += 1;
                    rest >>= 1;
                }
                sign | ((8 - segment as u8) << 4) | (15 - ((biased >> segment) & 15)) as u8
            }
        }
    }

    #[test]
    fn encoding_is_the_reference_rule_for_every_sample() {
        for law in [Law::Mu, Law::A] {
            for (sample, byte) in (i16::MIN..=i16::MAX).zip(encoded(law)) {
                assert_eq!(byte, reference(law, sample), "{law:?} {sample}");
            }
        }
    }

    #[test]
    fn tables_are_pinned() {
        let of = |law| {
            let linear = decoded(law).into_iter().flat_map(i16::to_le_bytes);
            (checksum(encoded(law).into_iter()), checksum(linear))
        };
        assert_eq!(of(Law::Mu), (0x04ec_1f08_3fd7_8c2d, 0xb91e_65d6_8481_a1a8));
        assert_eq!(of(Law::A), (0xf030_666e_b780_cf25, 0x693a_40ca_62a3_d2a5));
    }

    #[test]
    fn known_values_of_the_recommendation() {
        // Table 2b: the largest µ-law value is 8,031 of 14 bits, the least 0; table 1b: 4,032 of 13.
        let mu = decoded(Law::Mu);
        assert_eq!((mu[0x80], mu[0x00], mu[0xFF], mu[0x7F]), (32_124, -32_124, 0, 0));
        let a = decoded(Law::A);
        assert_eq!((a[0xAA], a[0x2A], a[0xD5], a[0x55]), (32_256, -32_256, 8, -8));
        assert_eq!(Law::A.silence() as usize, 0xD5);
        assert_eq!(mu[Law::Mu.silence() as usize], 0);
    }

    #[test]
    fn every_byte_comes_back_but_the_second_zero_of_mu_law() {
        for law in [Law::Mu, Law::A] {
            let mut again = [0; 256];
            law.encode(&decoded(law), &mut again).unwrap();
            for (byte, returned) in (0..=255).zip(again) {
                let expected = if law == Law::Mu && byte == 0x7F { 0xFF } else { byte };
                assert_eq!(returned, expected, "{law:?} {byte:#x}");
            }
        }
    }

    #[test]
    fn outputs_too_small_and_empty_payloads_are_faults() {
        let mut one = [0i16; 1];
        assert_eq!(Law::A.decode(&[1, 2], &mut one), Err(CodecFault::OutputTooSmall));
        assert_eq!(Law::A.decode(&[], &mut one), Err(CodecFault::BadPayload));
        assert_eq!(Law::Mu.encode(&[1, 2], &mut [0]), Err(CodecFault::OutputTooSmall));
    }
}
