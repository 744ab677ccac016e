//! The quantised coefficients (§3.5, §4.3): each region is cut into vectors of two, four or five
//! coefficients, which are quantised alike and coded together, followed by their signs.

use super::REGION;
use super::bits::{BitReader, BitWriter};
use super::categories::Category;
use super::codes;
use super::fixed::saturate;
use super::prefix::{PrefixDecoder, code};

/// How a category quantises vectors of so many coefficients, with a code for each vector.
struct Codebook<const DIMENSION: usize, const VECTORS: usize> {
    /// Magnitudes in steps that a coefficient can have, with zero.
    values: u32,
    /// One by the step, in units of 2^−15.
    inverse_step: i32,
    /// What is added before the quotient is truncated, in units of 2^−13 and of 2^−15.
    rounding: i32,
    rounding_low: i16,
    /// Magnitudes of the decoder by steps of the encoder, in units of 2^−12.
    centroids: [i16; 16],
    codes: &'static [u32; VECTORS],
    decoder: PrefixDecoder<VECTORS>,
    steps: [Steps; VECTORS],
}

/// A vector without its signs: four bits for each coefficient's magnitude in steps, the first in
/// the lowest, and above them how many are not zero.
type Steps = u32;

/// Where in `Steps` the number of signs stands.
const SIGN_BITS_AT: u32 = 20;

/// The numbers of the Recommendation for a category.
struct Quantiser {
    inverse_step: i32,
    rounding: i32,
    rounding_low: i16,
    centroids: &'static [i16],
}

/// Categories 0 to 6; 7 is not coded.
static BOOK_0: Codebook<2, 196> = Codebook::new(
    &codes::VECTORS_0,
    Quantiser {
        inverse_step: 23_167,
        rounding: 2_457,
        rounding_low: 2,
        centroids: &[
            0, 1_606, 3_119, 4_586, 6_049, 7_502, 8_941, 10_406, 11_851, 13_292, 14_736, 16_146,
            17_566, 19_351,
        ],
    },
);
static BOOK_1: Codebook<2, 100> = Codebook::new(
    &codes::VECTORS_1,
    Quantiser {
        inverse_step: 16_384,
        rounding: 2_703,
        rounding_low: 1,
        centroids: &[0, 2_229, 4_341, 6_401, 8_471, 10_531, 12_583, 14_588, 16_673, 18_924],
    },
);
static BOOK_2: Codebook<2, 49> = Codebook::new(
    &codes::VECTORS_2,
    Quantiser {
        inverse_step: 11_585,
        rounding: 2_949,
        rounding_low: 0,
        centroids: &[0, 3_055, 5_998, 8_929, 11_806, 14_680, 17_680],
    },
);
static BOOK_3: Codebook<4, 625> = Codebook::new(
    &codes::VECTORS_3,
    Quantiser {
        inverse_step: 8_192,
        rounding: 3_195,
        rounding_low: 0,
        centroids: &[0, 4_121, 8_192, 12_259, 16_322],
    },
);
static BOOK_4: Codebook<4, 256> = Codebook::new(
    &codes::VECTORS_4,
    Quantiser {
        inverse_step: 5_793,
        rounding: 3_440,
        rounding_low: 3,
        centroids: &[0, 5_413, 11_071, 16_315],
    },
);
static BOOK_5: Codebook<5, 243> = Codebook::new(
    &codes::VECTORS_5,
    Quantiser {
        inverse_step: 4_096,
        rounding: 3_686,
        rounding_low: 2,
        centroids: &[0, 6_785, 14_300],
    },
);
static BOOK_6: Codebook<5, 32> = Codebook::new(
    &codes::VECTORS_6,
    Quantiser { inverse_step: 2_896, rounding: 4_096, rounding_low: 0, centroids: &[0, 8_044] },
);

/// One by the root mean square of a power of −24 to 39, in units of 2^−15: 2^−(power / 2).
static INVERSE_RMS: [i16; 64] = [
    32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767,
    32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767, 32_767,
    32_767, 23_170, 16_384, 11_585, 8_192, 5_793, 4_096, 2_896, 2_048, 1_448, 1_024, 724, 512, 362,
    256, 181, 128, 91, 64, 45, 32, 23, 16, 11, 8, 6, 4, 3, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0,
];

/// A region as codes: of each vector the code and its signs, with a one before its first bit; zero
/// stands for no vector.
#[derive(Clone, Copy, Default)]
pub struct CodedRegion {
    vectors: [u32; REGION / 2],
    bits: i32,
}

impl CodedRegion {
    /// Quantises coefficients whose power is `power`, both raised by the same scale. The noise
    /// category has no code and no bits.
    pub fn new(category: Category, power: i16, coefficients: &[i16; REGION]) -> CodedRegion {
        match category {
            0 => BOOK_0.encode(power, coefficients),
            1 => BOOK_1.encode(power, coefficients),
            2 => BOOK_2.encode(power, coefficients),
            3 => BOOK_3.encode(power, coefficients),
            4 => BOOK_4.encode(power, coefficients),
            5 => BOOK_5.encode(power, coefficients),
            6 => BOOK_6.encode(power, coefficients),
            _ => CodedRegion::default(),
        }
    }

    pub fn bits(&self) -> i32 {
        self.bits
    }

    pub fn write(&self, bits: &mut BitWriter<'_>) {
        for vector in self.vectors.iter().take_while(|vector| **vector != 0) {
            let (code, length) = code(*vector);
            bits.push(code, length);
        }
    }
}

/// The frame ended within the region: all of it is to be filled with noise.
pub struct OutOfBits;

/// Reads the coefficients of a region; `rms` is the root mean square of its coefficients, as the
/// decoder's scale has it. The noise category has none, and leaves them as they are.
pub fn read(
    category: Category,
    rms: i16,
    bits: &mut BitReader<'_>,
    coefficients: &mut [i16; REGION],
) -> Result<(), OutOfBits> {
    match category {
        0 => BOOK_0.decode(rms, bits, coefficients),
        1 => BOOK_1.decode(rms, bits, coefficients),
        2 => BOOK_2.decode(rms, bits, coefficients),
        3 => BOOK_3.decode(rms, bits, coefficients),
        4 => BOOK_4.decode(rms, bits, coefficients),
        5 => BOOK_5.decode(rms, bits, coefficients),
        6 => BOOK_6.decode(rms, bits, coefficients),
        _ => Ok(()),
    }
}

impl<const DIMENSION: usize, const VECTORS: usize> Codebook<DIMENSION, VECTORS> {
    const fn new(codes: &'static [u32; VECTORS], quantiser: Quantiser) -> Self {
        let values = quantiser.centroids.len() as u32;
        assert!(VECTORS == (values as usize).pow(DIMENSION as u32));
        let mut centroids = [0; 16];
        let (found, _) = centroids.split_at_mut(quantiser.centroids.len());
        found.copy_from_slice(quantiser.centroids);
        Codebook {
            values,
            inverse_step: quantiser.inverse_step,
            rounding: quantiser.rounding,
            rounding_low: quantiser.rounding_low,
            centroids,
            codes,
            decoder: PrefixDecoder::new(codes),
            steps: steps::<DIMENSION, VECTORS>(values),
        }
    }

    fn encode(&self, power: i16, coefficients: &[i16; REGION]) -> CodedRegion {
        let steps = self.quantise(power, coefficients);
        let mut coded = CodedRegion::default();
        let (steps, _) = steps.as_chunks::<DIMENSION>();
        let (vectors, _) = coefficients.as_chunks::<DIMENSION>();
        for ((coded_vector, steps), vector) in coded.vectors.iter_mut().zip(steps).zip(vectors) {
            let (mut symbol, mut signs, mut sign_bits) = (0, 0, 0);
            for (step, coefficient) in steps.iter().zip(vector) {
                let coded = u32::from(*step != 0);
                symbol = symbol * self.values + *step as u32;
                signs = signs << coded | (u32::from(*coefficient > 0) & coded);
                sign_bits += coded;
            }
            *coded_vector = self.codes[symbol as usize] << sign_bits | signs;
            coded.bits += 31 - coded_vector.leading_zeros() as i32;
        }
        coded
    }

    /// The magnitudes in steps: quotients by step and root mean square, rounded up from less than
    /// a half, with 17 bits of the quotient's factor.
    fn quantise(&self, power: i16, coefficients: &[i16; REGION]) -> [i16; REGION] {
        let inverse_rms = i32::from(INVERSE_RMS[(power + 24).clamp(0, 63) as usize]);
        let factor = (self.inverse_step * inverse_rms + 4_096) >> 13;
        let (factor, factor_low) = ((factor >> 2) as i16, (factor & 3) as i16);
        let largest = self.values as i16 - 1;
        let mut steps = [0; REGION];
        for (step, coefficient) in steps.iter_mut().zip(coefficients) {
            let magnitude = coefficient.saturating_abs();
            // The lower product is kept in 15 bits and a sign.
            let low = (magnitude.wrapping_mul(factor_low) << 1) >> 1;
            let low = low.wrapping_add(self.rounding_low) >> 2;
            let quotient = i32::from(magnitude).wrapping_mul(i32::from(factor));
            let quotient = quotient.wrapping_add(self.rounding).wrapping_add(i32::from(low));
            *step = saturate(quotient >> 13).min(largest);
        }
        steps
    }

    fn decode(
        &self,
        rms: i16,
        bits: &mut BitReader<'_>,
        coefficients: &mut [i16; REGION],
    ) -> Result<(), OutOfBits> {
        let levels = self
            .centroids
            .map(|centroid| (i32::from(rms).wrapping_mul(i32::from(centroid)) >> 12) as i16);
        let (vectors, _) = coefficients.as_chunks_mut::<DIMENSION>();
        for vector in vectors {
            let symbol = self.decoder.decode(bits).ok_or(OutOfBits)?;
            let mut steps = self.steps.get(symbol).copied().unwrap_or_default();
            let sign_bits = steps >> SIGN_BITS_AT;
            if bits.left() < sign_bits as i32 {
                return Err(OutOfBits);
            }
            let mut signs = bits.peek();
            bits.skip(sign_bits);
            for coefficient in vector {
                let level = levels[(steps & 15) as usize];
                steps >>= 4;
                *coefficient = if signs >> 31 == 0 { level.wrapping_neg() } else { level };
                // A sign is used up only by a level that is not zero.
                signs <<= u32::from(level != 0);
            }
        }
        Ok(())
    }
}

const fn steps<const DIMENSION: usize, const VECTORS: usize>(values: u32) -> [Steps; VECTORS] {
    let mut table = [0; VECTORS];
    let mut symbol = 0;
    while symbol < VECTORS {
        let (mut rest, mut at) = (symbol as u32, DIMENSION);
        while at > 0 {
            at -= 1;
            let step = rest % values;
            rest /= values;
            table[symbol] |= step << (4 * at);
            table[symbol] += ((step != 0) as u32) << SIGN_BITS_AT;
        }
        symbol += 1;
    }
    table
}
