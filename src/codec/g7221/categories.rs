//! The categorisation (§3.4, §4.2, §6): both ends compute from the envelope and the free bits how
//! finely each region is quantised, and sixteen variants of it among which the encoder chooses.

use super::REGIONS;
use super::envelope::Powers;

/// How finely a region is quantised: 0 finest, 6 coarsest, 7 only noise.
pub type Category = u8;

/// The category that is not coded at all.
pub const NOISE: Category = 7;

/// Variants of a categorisation; its number has four bits in the frame.
pub const VARIANTS: usize = 16;
pub const VARIANT_BITS: u32 = 4;

/// Bits that a region of each category is expected to take.
const EXPECTED_BITS: [i32; 8] = [52, 47, 43, 37, 29, 22, 16, 0];

/// All variants: the finest, and from each to the next the region that goes one category up.
pub struct Categorisation {
    /// The categories of the finest variant.
    pub categories: [Category; REGIONS],
    pub coarsened: [u8; VARIANTS - 1],
}

impl Categorisation {
    /// The variants for an envelope, when so many bits are left for the coefficients.
    pub fn new(powers: &Powers, free_bits: i32) -> Categorisation {
        /// Above this many bits a region takes more than is expected, so that fewer are counted on.
        const EXACT_BITS: i32 = 320;
        let surplus = (free_bits - EXACT_BITS).max(0);
        let bits = free_bits - surplus + surplus * 5 / 8;
        let offset = offset(powers, bits);
        Search::new(powers, offset).run(bits)
    }
}

/// The category of a power under an offset: one for each 6.02 dB.
fn category(power: i16, offset: i32) -> Category {
    ((offset - i32::from(power)) >> 1).clamp(0, i32::from(NOISE)) as Category
}

fn expected_bits(category: Category) -> i32 {
    EXPECTED_BITS[usize::from(category & 7)]
}

/// The largest offset of −32 to 31 that leaves at most 32 of the bits unused.
fn offset(powers: &Powers, bits: i32) -> i32 {
    let mut offset = -32;
    for step in [32, 16, 8, 4, 2, 1] {
        let expected = |power: &i16| expected_bits(category(*power, offset + step));
        if powers.iter().map(expected).sum::<i32>() >= bits - 32 {
            offset += step;
        }
    }
    offset
}

/// The search for the variants, from the raw categories outwards to finer and coarser ones.
struct Search {
    /// What the offset leaves of each region's power: how much it wants to be quantised.
    excess: [i32; REGIONS],
    finest: [Category; REGIONS],
    coarsest: [Category; REGIONS],
    /// The regions in the order in which they are coarsened, from the middle outwards.
    order: [u8; 2 * VARIANTS],
    first: usize,
    end: usize,
}

impl Search {
    fn new(powers: &Powers, offset: i32) -> Search {
        let categories = powers.map(|power| category(power, offset));
        Search {
            excess: powers.map(|power| offset - i32::from(power)),
            finest: categories,
            coarsest: categories,
            order: [0; 2 * VARIANTS],
            first: VARIANTS,
            end: VARIANTS,
        }
    }

    fn run(mut self, bits: i32) -> Categorisation {
        let raw = self.finest.iter().copied().map(expected_bits).sum::<i32>();
        let (mut most, mut least) = (raw, raw);
        for _ in 1..VARIANTS {
            if most + least <= 2 * bits {
                most += self.refine();
            } else {
                least += self.coarsen();
            }
        }
        let mut coarsened = [0; VARIANTS - 1];
        coarsened.copy_from_slice(&self.order[self.first..self.end]);
        Categorisation { categories: self.finest, coarsened }
    }

    /// Makes the region finer that has the most power for its category, of equals the lowest;
    /// returns the change in bits.
    fn refine(&mut self) -> i32 {
        let candidates = (0..REGIONS).filter(|region| self.finest[*region] > 0);
        let region = candidates.min_by_key(|region| self.gap(&self.finest, *region)).unwrap_or(0);
        let category = self.finest[region];
        self.finest[region] = category.saturating_sub(1);
        self.first -= 1;
        self.order[self.first] = region as u8;
        expected_bits(self.finest[region]) - expected_bits(category)
    }

    /// Makes the region coarser that has the least power for its category, of equals the highest;
    /// returns the change in bits.
    fn coarsen(&mut self) -> i32 {
        let candidates = (0..REGIONS).filter(|region| self.coarsest[*region] < NOISE);
        let region = candidates.max_by_key(|region| self.gap(&self.coarsest, *region)).unwrap_or(0);
        let category = self.coarsest[region];
        self.coarsest[region] = (category + 1).min(NOISE);
        self.order[self.end] = region as u8;
        self.end += 1;
        expected_bits(self.coarsest[region]) - expected_bits(category)
    }

    fn gap(&self, categories: &[Category; REGIONS], region: usize) -> i32 {
        self.excess[region] - 2 * i32::from(categories[region])
    }
}
