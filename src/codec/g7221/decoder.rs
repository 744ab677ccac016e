//! The decoder (§4): frames to samples, noise where nothing was coded (§4.4), and what stands in
//! for lost and broken frames: the spectrum before once more (§4.6). Where the Recommendation is silent
//! then, it sinks from frame to frame, its signs drawn by lot, so that no frame's buzz repeats.

use super::bits::BitReader;
use super::categories::{Categorisation, NOISE, VARIANT_BITS, VARIANTS};
use super::envelope::{self, Powers};
use super::mlt::Synthesis;
use super::vectors::{self, OutOfBits};
use super::{BitRate, FRAME, REGION, Spectrum};
use crate::codec::CodecFault;

/// Frames of 60 or 80 bytes in, 16 kHz PCM out.
pub struct Decoder {
    rate: BitRate,
    synthesis: Synthesis,
    noise: Noise,
    /// The spectrum for a lost frame, and whether one was made of it already.
    last: Spectrum,
    repeated: bool,
    signs: Noise,
    /// A frame of concealment, of which the last `concealed` samples are not used yet.
    concealment: [i16; FRAME],
    concealed: usize,
}

impl Decoder {
    pub fn new(rate: BitRate) -> Decoder {
        Decoder {
            rate,
            synthesis: Synthesis::new(),
            noise: Noise { words: [1; 4] },
            last: Spectrum::SILENCE,
            repeated: false,
            signs: Noise { words: [1; 4] },
            concealment: [0; FRAME],
            concealed: 0,
        }
    }

    /// Decodes a payload of one or more frames to the front of `out`, 320 samples for each; returns
    /// the number of samples. A payload that is not whole frames is refused. A frame whose bits
    /// contradict themselves counts as lost (§4.6) and is concealed.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        let frames = payload.chunks_exact(self.rate.frame_bytes());
        if frames.len() == 0 || !frames.remainder().is_empty() {
            return Err(CodecFault::BadPayload);
        }
        let count = frames.len();
        let (blocks, _) = out.as_chunks_mut::<FRAME>();
        let blocks = blocks.get_mut(..count).ok_or(CodecFault::OutputTooSmall)?;
        self.concealed = 0;
        for (frame, samples) in frames.zip(blocks) {
            match read(frame, &mut self.noise) {
                Some(spectrum) => {
                    self.synthesis.transform(&spectrum, samples);
                    (self.last, self.repeated) = (spectrum, false);
                }
                None => self.stand_in(samples),
            }
        }
        Ok(count * FRAME)
    }

    /// Fills `out` with what stands in for lost frames: the spectrum before once more, and then
    /// again, each time by 2 dB lower. When `out` ends within a frame, the next concealment goes on
    /// there, and the next decoded frame leaves the rest out.
    pub fn conceal(&mut self, out: &mut [i16]) {
        let mut out = out;
        while !out.is_empty() {
            if self.concealed == 0 {
                let mut samples = [0; FRAME];
                self.stand_in(&mut samples);
                self.concealment = samples;
                self.concealed = FRAME;
            }
            let ready = &self.concealment[FRAME - self.concealed..];
            let count = ready.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&ready[..count]);
            self.concealed -= count;
            out = later;
        }
    }

    fn stand_in(&mut self, samples: &mut [i16; FRAME]) {
        if std::mem::replace(&mut self.repeated, true) {
            self.sink();
        }
        self.synthesis.transform(&self.last, samples);
    }

    /// Makes the spectrum quieter, and its signs others.
    fn sink(&mut self) {
        for sixteen in self.last.coefficients.chunks_mut(16) {
            let mut signs = self.signs.next();
            for coefficient in sixteen {
                let quieter = (i32::from(*coefficient) * SUNK / 32_768) as i16;
                *coefficient = if signs & 1 == 0 { quieter } else { -quieter };
                signs >>= 1;
            }
        }
    }
}

/// Level of a repeated spectrum beside the one before it, in 32,768ths: −2 dB.
const SUNK: i32 = 26_029;

/// The spectrum of a frame; `None` when its bits contradict themselves.
fn read(frame: &[u8], noise: &mut Noise) -> Option<Spectrum> {
    let mut bits = BitReader::new(frame);
    let envelope = envelope::read(&mut bits);
    let variant = bits.take(VARIANT_BITS) as usize;
    let categorisation = Categorisation::new(&envelope.powers, bits.left());
    let mut categories = categorisation.categories;
    for region in categorisation.coarsened.iter().take(variant) {
        let category = &mut categories[usize::from(*region)];
        *category = (*category + 1).min(NOISE);
    }

    let (rms, shift) = scaled_rms(&envelope.powers);
    let mut spectrum = Spectrum { shift, ..Spectrum::SILENCE };
    let (regions, _) = spectrum.coefficients.as_chunks_mut::<REGION>();
    let mut out_of_bits = false;
    for ((region, category), rms) in regions.iter_mut().zip(categories).zip(rms) {
        let category = if out_of_bits { NOISE } else { category };
        match vectors::read(category, rms, &mut bits, region) {
            Ok(()) => noise.fill(category, rms, region),
            Err(OutOfBits) => {
                out_of_bits = true;
                noise.fill(NOISE, rms, region);
            }
        }
    }
    let whole = ends_well(&mut bits, out_of_bits, variant);
    (whole && envelope.valid).then_some(spectrum)
}

/// Whether a frame ends as an encoder ends it: what is left are ones, and only the coarsest variant
/// is cut off (§4.5).
fn ends_well(bits: &mut BitReader<'_>, out_of_bits: bool, variant: usize) -> bool {
    let left = bits.left() - i32::from(out_of_bits);
    match left {
        1.. => (0..left).all(|_| bits.take(1) == 1),
        0 => true,
        _ => variant == VARIANTS - 1,
    }
}

/// Root mean squares of the regions as fixed-point numbers, raised by the bits that are returned,
/// −1 to 9, so that neither their sum nor the largest becomes too large for the transform.
fn scaled_rms(powers: &Powers) -> ([i16; 14], i32) {
    let rms = |power: i16| RMS[(power + 24).clamp(0, 63) as usize];
    let mut total = powers.iter().map(|power| rms(*power)).fold(0, i16::saturating_add);
    let mut largest = powers.iter().copied().max().unwrap_or_default() + 24;
    let mut shift = 9;
    while shift >= 0 && (total >= 8 || largest > 28) {
        shift -= 1;
        total >>= 1;
        largest -= 2;
    }
    (powers.map(|power| rms(power + 2 * shift)), i32::from(shift))
}

/// The root mean square of a power of −24 to 39: 2^(power / 2).
static RMS: [i16; 64] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 6, 8,
    11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1_024, 1_448, 2_048, 2_896, 4_096,
    5_793, 8_192, 11_585, 16_384, 23_170, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Fills what was not coded with noise of random sign (§4.4).
struct Noise {
    words: [i16; 4],
}

impl Noise {
    /// Fills the zeros of a region, for the categories that leave many; all of it for the category
    /// that is not coded.
    fn fill(&mut self, category: u8, rms: i16, region: &mut [i16; REGION]) {
        let factor = match category {
            5 => 5_793,
            6 => 8_192,
            NOISE => 23_170,
            _ => return,
        };
        let level = ((i32::from(rms) * factor) >> 15) as i16;
        for half in region.chunks_exact_mut(REGION / 2) {
            let mut signs = self.next();
            for coefficient in half {
                if category == NOISE || *coefficient == 0 {
                    *coefficient = if signs & 1 == 0 { -level } else { level };
                    signs >>= 1;
                }
            }
        }
    }

    /// The next random word, by the Recommendation's recurrence over the four before.
    fn next(&mut self) -> i16 {
        let [newest, second, third, oldest] = self.words;
        let sum = newest.wrapping_add(oldest);
        let word = if sum < 0 { sum.wrapping_add(1) } else { sum };
        self.words = [word, newest, second, third];
        word
    }
}
