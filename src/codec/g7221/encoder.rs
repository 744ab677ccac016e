//! The encoder (§3): samples to frames, and the choice of the categorisation that fills a frame
//! (§3.6). It keeps one frame of samples for the overlap, nothing else.

use super::bits::BitWriter;
use super::categories::{Categorisation, VARIANT_BITS, VARIANTS};
use super::envelope::{self, Powers};
use super::mlt::Analysis;
use super::vectors::CodedRegion;
use super::{BitRate, CODED, FRAME, REGION, REGIONS, Spectrum};
use crate::codec::CodecFault;

/// 16 kHz PCM in, frames of 60 or 80 bytes out.
pub struct Encoder {
    rate: BitRate,
    analysis: Analysis,
}

impl Encoder {
    pub fn new(rate: BitRate) -> Encoder {
        Encoder { rate, analysis: Analysis::new() }
    }

    /// Encodes whole frames of 320 samples, at least one, to the front of `out`; returns the number
    /// of bytes. On a fault nothing is encoded.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        let (frames, rest) = pcm.as_chunks::<FRAME>();
        if frames.is_empty() || !rest.is_empty() {
            return Err(CodecFault::BadFrameLength);
        }
        let bytes = frames.len() * self.rate.frame_bytes();
        let out = out.get_mut(..bytes).ok_or(CodecFault::OutputTooSmall)?;
        for (samples, payload) in frames.iter().zip(out.chunks_exact_mut(self.rate.frame_bytes())) {
            write(self.analysis.transform(samples), payload);
        }
        Ok(bytes)
    }

    /// Forgets what was encoded before: the next frame begins a stream.
    pub fn reset(&mut self) {
        self.analysis = Analysis::new();
    }
}

/// Codes a spectrum into a frame.
fn write(mut spectrum: Spectrum, frame: &mut [u8]) {
    let powers = envelope::measure(&spectrum);
    let free_bits = 8 * frame.len() as i32 - (envelope::bits(&powers) + VARIANT_BITS) as i32;
    let categorisation = Categorisation::new(&powers, free_bits);
    let raised = raised_powers(&powers, &mut spectrum);
    let (variant, regions) = fill(&categorisation, free_bits, &raised, &spectrum);

    let mut bits = BitWriter::new(frame);
    envelope::write(&powers, &mut bits);
    bits.push(variant as u32, VARIANT_BITS);
    regions.iter().for_each(|region| region.write(&mut bits));
    bits.finish();
}

/// The powers on the scale of the coefficients; those of loud regions are halved together with
/// their coefficients until they are in the range of the quantiser.
fn raised_powers(powers: &Powers, spectrum: &mut Spectrum) -> Powers {
    let raise = 2 * spectrum.shift as i16;
    let (regions, _) = spectrum.coefficients.as_chunks_mut::<REGION>();
    let mut raised = *powers;
    for (power, region) in raised.iter_mut().zip(regions) {
        *power += raise;
        let halvings = (*power + 24 - 39) >> 1;
        if halvings > 0 {
            *power -= 2 * halvings;
            for coefficient in region {
                // Half a unit is added before the shift, whatever the shift.
                let halves = (i32::from(*coefficient) << 1) + 1;
                *coefficient = (halves >> (halvings + 1)) as i16;
            }
        }
    }
    raised
}

/// Finds the finest variant that fits, from the middle (§3.6); if none does, the coarsest is cut
/// off where the frame ends.
fn fill(
    categorisation: &Categorisation,
    free_bits: i32,
    powers: &Powers,
    spectrum: &Spectrum,
) -> (usize, [CodedRegion; REGIONS]) {
    let (coefficients, _) = spectrum.coefficients[..CODED].as_chunks::<REGION>();
    let mut categories = categorisation.categories;
    let mut variant = VARIANTS / 2 - 1;
    for region in &categorisation.coarsened[..variant] {
        categories[usize::from(*region)] += 1;
    }
    let code =
        |region: usize, category| CodedRegion::new(category, powers[region], &coefficients[region]);
    let mut regions: [CodedRegion; REGIONS] =
        std::array::from_fn(|region| code(region, categories[region]));
    let mut bits = regions.iter().map(CodedRegion::bits).sum::<i32>();
    let mut recode = |region: usize, category| {
        let coded = code(region, category);
        let change = coded.bits() - regions[region].bits();
        regions[region] = coded;
        change
    };
    while bits < free_bits && variant > 0 {
        variant -= 1;
        let region = usize::from(categorisation.coarsened[variant]);
        categories[region] -= 1;
        bits += recode(region, categories[region]);
    }
    while bits > free_bits && variant < VARIANTS - 1 {
        let region = usize::from(categorisation.coarsened[variant]);
        categories[region] += 1;
        bits += recode(region, categories[region]);
        variant += 1;
    }
    (variant, regions)
}
