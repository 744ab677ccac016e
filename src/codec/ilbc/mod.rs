//! iLBC (RFC 3951; on RTP RFC 3952): speech at 8 kHz in frames of 20 ms (38 bytes) or 30 ms
//! (50 bytes), each decodable without the frames before it, so that a loss harms little else.
//!
//! A frame is a spectrum (`lsf`), a stretch of the prediction residual that is sent sample by
//! sample (`state`), and the rest of the residual as sums of vectors from what is already decoded
//! (`codebook`, chosen by `search`, in the order of `excitation`). The decoder smooths the residual
//! over its pitch periods (`enhancer`) and repeats it where a frame is missing (`concealment`).
//!
//! Arithmetic is `f32` in a fixed order, so the same bits come out on every machine. Nothing is
//! allocated. No bit pattern of a payload can lead out of a table: each field is as wide as its
//! table is long, or is judged in `bitstream`. RTP and SDP (`mode=`) are not seen here.

mod bitstream;
mod codebook;
mod concealment;
mod decoder;
mod encoder;
mod enhancer;
mod excitation;
mod filter;
mod lpc;
mod lsf;
mod lsf_codebook;
mod search;
mod state;

pub use decoder::Decoder;
pub use encoder::Encoder;

/// Length of the frames, fixed for a stream (RFC 3952 §5, `mode=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 160 samples in 38 bytes: 15.2 kbit/s.
    Ms20,
    /// 240 samples in 50 bytes: 13.33 kbit/s.
    Ms30,
}

impl Mode {
    /// Samples in a frame.
    pub const fn frame_samples(self) -> usize {
        match self {
            Mode::Ms20 => 160,
            Mode::Ms30 => 240,
        }
    }

    /// Bytes in a frame.
    pub const fn frame_bytes(self) -> usize {
        match self {
            Mode::Ms20 => 38,
            Mode::Ms30 => 50,
        }
    }

    /// Sub-blocks of 40 samples in a frame.
    const fn subframes(self) -> usize {
        self.frame_samples() / SUBFRAME
    }

    /// Spectra that a frame carries (§3.2).
    const fn spectra(self) -> usize {
        match self {
            Mode::Ms20 => 1,
            Mode::Ms30 => 2,
        }
    }

    /// Samples of the start state that are sent one by one (§3.5).
    const fn state_samples(self) -> usize {
        match self {
            Mode::Ms20 => 57,
            Mode::Ms30 => 58,
        }
    }

    /// Stretches of the residual that are coded from the codebook (§3.6): the rest of the start
    /// state, then each sub-block outside of it.
    const fn segments(self) -> usize {
        self.subframes() - 1
    }
}

/// Samples in a sub-block.
const SUBFRAME: usize = 40;
const SUBFRAMES_MAX: usize = 6;
const FRAME_SAMPLES_MAX: usize = SUBFRAME * SUBFRAMES_MAX;
const STATE_SAMPLES_MAX: usize = 58;
const SEGMENTS_MAX: usize = SUBFRAMES_MAX - 1;

/// Order of the prediction.
const ORDER: usize = 10;

/// The polynomial A(z) of a predictor, lowest power first; the first is always 1.
type Polynomial = [f32; ORDER + 1];

#[cfg(test)]
mod tests;
