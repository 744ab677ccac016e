//! G.722.1 at 24 and 32 kbit/s (ITU-T G.722.1, the 7 kHz mode; RTP payload RFC 5577): 16 kHz audio
//! in frames of 20 ms, each a modulated lapped transform of 40 ms whose coefficients below 7 kHz
//! are coded in 14 regions of 500 Hz.
//!
//! Bit-exact with the fixed-point arithmetic of the Recommendation in both directions, with and
//! without lost frames (`tests/it/vectors_g7221.rs`). A frame goes through
//!
//! ```text
//! encoder  mlt → envelope → categories → vectors → bits
//! decoder  bits → envelope → categories → vectors, noise fill → mlt
//! ```
//!
//! A codec never sees RTP, and keeps no frame but what the overlap of the transform needs and the
//! spectrum that stands in for a lost one. Annex C (14 kHz) is not here.

mod bias;
mod bits;
mod categories;
mod codes;
mod dct;
mod decoder;
mod encoder;
mod envelope;
mod fixed;
mod mlt;
mod prefix;
mod trigonometry;
mod vectors;

pub use decoder::Decoder;
pub use encoder::Encoder;

/// Samples of a frame of 20 ms, and coefficients of its transform.
pub const FRAME: usize = 320;

/// Regions of the spectrum that are coded, from the lowest; above 7 kHz nothing is.
const REGIONS: usize = 14;

/// Coefficients of a region.
const REGION: usize = 20;

/// Coefficients of all regions.
const CODED: usize = REGIONS * REGION;

/// A spectrum as fixed-point numbers: the coefficients times two to the power of `shift`.
#[derive(Clone)]
struct Spectrum {
    coefficients: [i16; FRAME],
    shift: i32,
}

impl Spectrum {
    const SILENCE: Spectrum = Spectrum { coefficients: [0; FRAME], shift: 0 };
}

/// The bit rate, which is agreed for a stream (`bitrate` in SDP, RFC 5577 §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BitRate {
    /// 24 kbit/s: 60 bytes a frame.
    K24,
    /// 32 kbit/s: 80 bytes a frame.
    K32,
}

impl BitRate {
    /// Bytes of one frame.
    pub const fn frame_bytes(self) -> usize {
        match self {
            BitRate::K24 => 60,
            BitRate::K32 => 80,
        }
    }
}

#[cfg(test)]
mod tests;
