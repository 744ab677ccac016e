//! The modulated lapped transform (§3.1) and its inverse (§4.7): windows over two frames around the
//! type IV cosine transform, with a scale that uses the 16 bits well.

use super::dct;
use super::fixed::{products, rounded};
use super::trigonometry::{ANALYSIS_WINDOW, SYNTHESIS_WINDOW};
use super::{FRAME, Spectrum};

const HALF: usize = FRAME / 2;

/// The encoder's transform, with the samples of the frame before.
pub struct Analysis {
    before: [i16; FRAME],
}

impl Analysis {
    pub fn new() -> Analysis {
        Analysis { before: [0; FRAME] }
    }

    /// The spectrum of the frame before and this one.
    pub fn transform(&mut self, samples: &[i16; FRAME]) -> Spectrum {
        let mut folded = self.fold(samples);
        self.before = *samples;
        let shift = headroom(&folded);
        for sample in &mut folded {
            *sample = if shift < 0 { *sample >> 1 } else { shifted_left(*sample, shift) };
        }
        Spectrum { coefficients: dct::analyse(&folded), shift }
    }

    /// Windows the two frames and folds them to the length of one.
    fn fold(&self, samples: &[i16; FRAME]) -> [i16; FRAME] {
        let (rising, falling) = ANALYSIS_WINDOW.split_at(HALF);
        let (early, late) = self.before.split_at(HALF);
        let mut folded = [0; FRAME];
        let (first, second) = folded.split_at_mut(HALF);
        for n in 0..HALF {
            let m = HALF - 1 - n;
            first[n] = rounded::<15>(products(rising[m], early[m], falling[n], late[n]));
        }
        let (early, late) = samples.split_at(HALF);
        for n in 0..HALF {
            let m = HALF - 1 - n;
            second[n] = rounded::<15>(products(falling[m], early[n], -rising[n], late[m]));
        }
        folded
    }
}

/// By how many bits samples can be raised before the transform, −1 to 9, from their largest and
/// their mean magnitude.
fn headroom(samples: &[i16; FRAME]) -> i32 {
    let magnitudes = samples.iter().map(|sample| i32::from(sample.saturating_abs()));
    let largest = magnitudes.clone().max().unwrap_or_default();
    let total = magnitudes.fold(0i32, i32::wrapping_add);
    let shift = if largest >= 14_000 {
        0
    } else {
        let largest = if largest < 438 { largest + 1 } else { largest };
        match (largest * 9_587 * 2) >> 20 {
            0 => 9,
            // Leading zeros of a 16-bit word after its sign (`norm_s`), less six.
            scaled => scaled.leading_zeros() as i32 - 17 - 6,
        }
    };
    if largest < total >> 7 { shift - 1 } else { shift }
}

fn shifted_left(sample: i16, shift: i32) -> i16 {
    super::fixed::saturate(i32::from(sample) << shift)
}

/// The decoder's transform, with the half of the frame before that reaches into the next.
pub struct Synthesis {
    overlap: [i16; HALF],
}

impl Synthesis {
    pub fn new() -> Synthesis {
        Synthesis { overlap: [0; HALF] }
    }

    /// The next frame of samples.
    pub fn transform(&mut self, spectrum: &Spectrum, samples: &mut [i16; FRAME]) {
        let mut unfolded = dct::synthesise(&spectrum.coefficients);
        for sample in &mut unfolded {
            *sample = match spectrum.shift {
                shift @ 0.. => *sample >> shift,
                shift => shifted_left(*sample, -shift),
            };
        }
        let (current, next) = unfolded.split_at(HALF);
        let (rising, falling) = SYNTHESIS_WINDOW.split_at(HALF);
        let (first, second) = samples.split_at_mut(HALF);
        for n in 0..HALF {
            let m = HALF - 1 - n;
            let sum = products(rising[n], current[m], falling[m], self.overlap[n]);
            first[n] = rounded::<13>(sum);
        }
        for n in 0..HALF {
            let m = HALF - 1 - n;
            let sum = products(falling[n], current[n], -rising[m], self.overlap[m]);
            second[n] = rounded::<13>(sum);
        }
        self.overlap.copy_from_slice(next);
    }
}
