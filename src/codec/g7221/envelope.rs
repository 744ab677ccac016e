//! The amplitude envelope (§3.2, §3.3, §4.1): the power of each region in steps of 3.01 dB, the
//! lowest region's as it is and each other's as its difference to the one below.

use super::bits::{BitReader, BitWriter};
use super::codes::POWER_DIFFERENCES;
use super::prefix::{PrefixDecoder, code};
use super::{REGION, REGIONS, Spectrum};

/// Powers of the regions: the root mean square of a region's coefficients is two to the power of
/// half of this number.
pub type Powers = [i16; REGIONS];

/// The number in the bit stream is larger by this (the transforms are scaled by 2^−3.5).
const OFFSET: i16 = 7;

/// Powers that the encoder sends and the decoder believes.
const POWER_MIN: i16 = -8 - OFFSET;
const POWER_MAX: i16 = 31 - OFFSET;
/// The lowest region's, so that zero never stands in the bit stream.
const FIRST_POWER_MIN: i16 = 1 - OFFSET;

const DIFFERENCE_MIN: i16 = -12;
const DIFFERENCE_MAX: i16 = 11;

/// Bits of the lowest region's power.
const FIRST_BITS: u32 = 5;

/// Measures the powers and brings them into the range and the steps that can be sent.
pub fn measure(spectrum: &Spectrum) -> Powers {
    let mut powers = [0; REGIONS];
    let (regions, _) = spectrum.coefficients.as_chunks::<REGION>();
    for (power, region) in powers.iter_mut().zip(regions) {
        *power = power_of(region, spectrum.shift);
    }
    // Valleys are filled up to where the next peak can be climbed in one step.
    for region in (0..REGIONS - 1).rev() {
        powers[region] = powers[region].max(powers[region + 1] - DIFFERENCE_MAX);
    }
    powers[0] = powers[0].clamp(FIRST_POWER_MIN, POWER_MAX);
    for region in 1..REGIONS {
        let power = powers[region].clamp(POWER_MIN, POWER_MAX);
        powers[region] = power.max(powers[region - 1] + DIFFERENCE_MIN);
    }
    powers
}

fn power_of(region: &[i16; REGION], shift: i32) -> i16 {
    /// The sum of squares of a region at the upper bound of a step: √2 · 20 · 2^10.
    const BOUND: i64 = 28_963;
    let squares = |sum: i64, x: &i16| sum + i64::from(*x) * i64::from(*x);
    let energy = region.iter().fold(0, squares).min(i64::from(i32::MAX));
    let bits = 64 - energy.leading_zeros() as i32;
    // The energy as 15 bits, as if it were truncated to 16 first.
    let mantissa = if bits > 16 { energy >> (bits - 16) } else { energy << (16 - bits) } >> 1;
    let step = bits - 16 + i32::from(mantissa >= BOUND);
    (step + 11 - 2 * shift) as i16
}

/// Bits that these powers take.
pub fn bits(powers: &Powers) -> u32 {
    FIRST_BITS + codes(powers).map(|(_, length)| length).sum::<u32>()
}

pub fn write(powers: &Powers, bits: &mut BitWriter<'_>) {
    bits.push((powers[0] + OFFSET) as u32, FIRST_BITS);
    codes(powers).for_each(|(code, length)| bits.push(code, length));
}

fn codes(powers: &Powers) -> impl Iterator<Item = (u32, u32)> {
    powers.array_windows().zip(&POWER_DIFFERENCES).map(|([below, power], codes)| {
        let difference = power - below;
        debug_assert!((DIFFERENCE_MIN..=DIFFERENCE_MAX).contains(&difference));
        code(codes[(difference - DIFFERENCE_MIN).clamp(0, 23) as usize])
    })
}

/// The envelope of a received frame.
pub struct Envelope {
    pub powers: Powers,
    /// Every power is one that an encoder sends.
    pub valid: bool,
}

/// Reads an envelope; it is shorter than the shortest frame.
pub fn read(bits: &mut BitReader<'_>) -> Envelope {
    static DECODERS: [PrefixDecoder<24>; REGIONS - 1] = decoders();
    let mut power = bits.take(FIRST_BITS) as i16 - OFFSET;
    let mut envelope = Envelope { powers: [power; REGIONS], valid: true };
    for (decoded, decoder) in envelope.powers[1..].iter_mut().zip(&DECODERS) {
        power += decoder.decode(bits).unwrap_or_default() as i16 + DIFFERENCE_MIN;
        envelope.valid &= (POWER_MIN..=POWER_MAX).contains(&power);
        // What the tables of the decoder hold; a frame beyond is not used.
        *decoded = power.clamp(-24, 39);
    }
    envelope
}

const fn decoders() -> [PrefixDecoder<24>; REGIONS - 1] {
    let mut decoders = [const { PrefixDecoder::new(&POWER_DIFFERENCES[0]) }; REGIONS - 1];
    let mut region = 1;
    while region < REGIONS - 1 {
        decoders[region] = PrefixDecoder::new(&POWER_DIFFERENCES[region]);
        region += 1;
    }
    decoders
}
