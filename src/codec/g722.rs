//! G.722 at 64 kbit/s (ITU-T G.722, mode 1): 16 kHz audio in two sub-bands of ADPCM, six bits for
//! the lower and two for the upper of each pair of samples.
//!
//! Output is bit-exact with FFmpeg in both directions (`tests/it/oracle_g722.rs`). Block and
//! variable names follow the Recommendation's figures in words: quadrature mirror filters (QMF,
//! §3.1 and §4.4), quantisers (§3.3), scale factor adaptation (§3.5), prediction (§3.6). Modes 2
//! and 3, which steal bits for data, do not exist on RTP (RFC 3551 §4.5.2).
//!
//! A frame is worked on in two passes, filter and prediction, so that the filter runs over plain
//! arrays; history is moved once for each block, never for each sample.

use super::CodecFault;
use super::plc::Concealer;

/// PCM in, one byte for each two samples out.
pub struct Encoder {
    bands: Bands,
    /// The tail of what came before, then the block at hand.
    samples: [i16; HISTORY + 2 * BLOCK],
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { bands: Bands::new(), samples: [0; HISTORY + 2 * BLOCK] }
    }
}

impl Encoder {
    /// Encodes an even number of samples to the front of `out`; returns the number of bytes.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        if !pcm.len().is_multiple_of(2) {
            return Err(CodecFault::BadFrameLength);
        }
        let out = out.get_mut(..pcm.len() / 2).ok_or(CodecFault::OutputTooSmall)?;
        for (block, bytes) in pcm.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
            self.samples[HISTORY..HISTORY + block.len()].copy_from_slice(block);
            let mut bands = [(0, 0); BLOCK];
            self.analyse(&mut bands[..bytes.len()]);
            for ((low, high), byte) in bands.iter().zip(bytes) {
                *byte = self.bands.quantise(*low, *high);
            }
            self.samples.copy_within(block.len()..block.len() + HISTORY, 0);
        }
        Ok(pcm.len() / 2)
    }

    /// Comes to stand where a decoder does that was given `payload` in the place of what is encoded.
    pub fn follow(&mut self, payload: &[u8]) {
        for byte in payload {
            self.bands.reconstruct(*byte);
        }
    }

    /// The next audio does not go on from the last; a decoder that heard that is still followed.
    pub fn cut(&mut self) {
        self.samples = [0; HISTORY + 2 * BLOCK];
    }

    /// The transmitting QMF (§3.1) over the block that stands in `samples`: lower and upper band.
    fn analyse(&self, bands: &mut [(i32, i32)]) {
        let windows = self.samples.windows(TAPS).step_by(2);
        for (window, (low, high)) in windows.zip(bands) {
            let window = window.first_chunk().expect("windows have this length");
            let (even, odd) = branches(window);
            (*low, *high) = (odd.wrapping_add(even) >> 14, odd.wrapping_sub(even) >> 14);
        }
    }
}

/// Bytes in, two samples for each out.
pub struct Decoder {
    bands: Bands,
    /// Sum and difference of the two bands, alternating: history, then the block at hand.
    pairs: [i16; HISTORY + 2 * BLOCK],
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { bands: Bands::new(), pairs: [0; HISTORY + 2 * BLOCK] }
    }
}

impl Decoder {
    /// Decodes to the front of `out`; returns the number of samples. An empty payload is refused,
    /// every other one is valid.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        if payload.is_empty() {
            return Err(CodecFault::BadPayload);
        }
        let samples = payload.len() * 2;
        let out = out.get_mut(..samples).ok_or(CodecFault::OutputTooSmall)?;
        for (block, pcm) in payload.chunks(BLOCK).zip(out.chunks_mut(2 * BLOCK)) {
            for (byte, pair) in block.iter().zip(self.pairs[HISTORY..].chunks_exact_mut(2)) {
                let (low, high) = self.bands.reconstruct(*byte);
                pair[0] = (low + high) as i16;
                pair[1] = (low - high) as i16;
            }
            self.synthesise(pcm);
        }
        Ok(samples)
    }

    /// The receiving QMF (§4.4) over the block that stands in `pairs`.
    fn synthesise(&mut self, pcm: &mut [i16]) {
        let windows = self.pairs.windows(TAPS).step_by(2);
        for (window, samples) in windows.zip(pcm.chunks_exact_mut(2)) {
            let window = window.first_chunk().expect("windows have this length");
            let (even, odd) = branches(window);
            (samples[0], samples[1]) = (clip16(odd >> 11), clip16(even >> 11));
        }
        self.pairs.copy_within(pcm.len()..pcm.len() + HISTORY, 0);
    }
}

/// A decoder with concealment.
pub struct ConcealingDecoder {
    decoder: Decoder,
    concealer: Concealer,
}

impl ConcealingDecoder {
    pub fn new() -> ConcealingDecoder {
        ConcealingDecoder { decoder: Decoder::default(), concealer: Concealer::new(16_000) }
    }

    /// As [`Decoder::decode`]; the first frame after a gap is joined to the concealment.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        let samples = self.decoder.decode(payload, out)?;
        self.concealer.receive(&mut out[..samples]);
        Ok(samples)
    }

    /// Fills all of `out` with concealment.
    pub fn conceal(&mut self, out: &mut [i16]) {
        self.concealer.conceal(out);
    }
}

impl Default for ConcealingDecoder {
    fn default() -> ConcealingDecoder {
        ConcealingDecoder::new()
    }
}

/// Pairs of samples that one pass takes: a 20 ms frame.
const BLOCK: usize = 160;
/// Taps of the mirror filters; the newest pair is part of the window.
const TAPS: usize = 24;
const HISTORY: usize = TAPS - 2;

/// Every second tap of the QMF impulse response (table 4 of the Recommendation, without the
/// scaling by 2^-13); the other half is its mirror image.
const HALF: [i16; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Both branches of the filters over a window of alternating samples: the even ones meet one half of
/// the response, the odd ones its mirror image. The magnitudes of each half sum to 6,482, so that no
/// window can overflow a sum.
#[inline(always)]
fn branches(window: &[i16; TAPS]) -> (i32, i32) {
    let (mut even, mut odd) = (0i32, 0i32);
    for (index, tap) in HALF.iter().enumerate() {
        let mirrored = HALF[HALF.len() - 1 - index];
        let (first, second) = (window[2 * index], window[2 * index + 1]);
        even = even.wrapping_add(i32::from(first).wrapping_mul(i32::from(*tap)));
        odd = odd.wrapping_add(i32::from(second).wrapping_mul(i32::from(mirrored)));
    }
    (even, odd)
}

/// Both sub-bands. Encoder and decoder run the same prediction on the same quantised differences,
/// which is what keeps them in step.
#[derive(Clone)]
struct Bands {
    low: Band,
    high: Band,
}

impl Bands {
    fn new() -> Bands {
        Bands { low: Band::new(8), high: Band::new(2) }
    }

    /// One byte from one sample of each band.
    #[inline(always)]
    fn quantise(&mut self, low: i32, high: i32) -> u8 {
        let high_code = self.high.quantise_high(high);
        let low_code = self.low.quantise_low(low);
        self.high.adapt_high(high_code);
        self.low.adapt_low(low_code);
        (high_code << 6 | low_code) as u8
    }

    /// The reconstructed sample of each band from one byte.
    #[inline(always)]
    fn reconstruct(&mut self, byte: u8) -> (i32, i32) {
        let (low_code, high_code) = (usize::from(byte & 63), usize::from(byte >> 6));
        let low_difference = self.low.scaled(LOW_LEVELS_6_BIT[low_code]);
        let low = (low_difference + self.low.prediction).clamp(-16_384, 16_383);
        let high_difference = self.high.scaled(HIGH_LEVELS[high_code]);
        let high = (high_difference + self.high.prediction).clamp(-16_384, 16_383);
        self.low.adapt_low(low_code);
        self.high.adapt_high(high_code);
        (low, high)
    }
}

/// One sub-band's ADPCM: a quantiser with an adaptive scale, and a predictor of two poles and six
/// zeros.
#[derive(Clone)]
struct Band {
    /// Logarithm of the scale factor, 11 fractional bits (nabla in the Recommendation).
    log_scale: i32,
    /// Quantiser scale factor (delta).
    scale: i32,
    /// Predicted sample (s) and the part of it that the zeros give (s_z).
    prediction: i32,
    zeros_prediction: i32,
    /// Last reconstructed sample, doubled (r).
    reconstructed: i32,
    /// Pole coefficients a1, a2 at 2^-14.
    poles: [i32; 2],
    /// Zero coefficients b1 to b6 at 2^-14 and the last differences, doubled; two lanes of each
    /// only fill the vector, their differences stay zero.
    zeros: [i16; LANES],
    differences: [i16; LANES],
    /// Whether the last two partial reconstructions (p) were negative, the newest first.
    negative: [bool; 2],
}

const LANES: usize = 8;
const ZEROS: usize = 6;

impl Band {
    fn new(scale: i32) -> Band {
        Band {
            log_scale: 0,
            scale,
            prediction: 0,
            zeros_prediction: 0,
            reconstructed: 0,
            poles: [0; 2],
            zeros: [0; LANES],
            differences: [0; LANES],
            negative: [false; 2],
        }
    }

    #[inline(always)]
    fn scaled(&self, level: i16) -> i32 {
        (i32::from(level) * self.scale) >> 10
    }

    /// Six-bit code of the lower band: the number of decision levels below the difference.
    #[inline(always)]
    fn quantise_low(&self, sample: i32) -> usize {
        let difference = i32::from(clip16(sample - self.prediction));
        let magnitude = if difference < 0 { !difference } else { difference };
        let limit = (magnitude + 1) << 10;
        let scale = self.scale as i16;
        let mut above = 0i32;
        for decision in &LOW_DECISIONS {
            above += i32::from(limit > i32::from(*decision) * i32::from(scale));
        }
        let code = match (difference < 0, above) {
            (false, _) => 61 - above,
            (true, 0 | 1) => 63 - above,
            (true, _) => 33 - above,
        };
        code as usize
    }

    /// Two-bit code of the upper band.
    #[inline(always)]
    fn quantise_high(&self, sample: i32) -> usize {
        let difference = i32::from(clip16(sample - self.prediction));
        let magnitude = if difference < 0 { !difference } else { difference };
        let inner = magnitude < (HIGH_DECISION * self.scale) >> 8;
        usize::from(inner) | usize::from(difference >= 0) << 1
    }

    /// The lower band predicts from the four upper bits of its code only, so that modes 2 and 3
    /// could take the others away.
    #[inline(always)]
    fn adapt_low(&mut self, code: usize) {
        let code = code >> 2;
        self.predict(self.scaled(LOW_LEVELS_4_BIT[code]));
        let log = ((self.log_scale * 127) >> 7) + LOW_LOG_STEPS[code];
        self.log_scale = log.clamp(0, 18_432);
        self.scale = linear(self.log_scale - (8 << 11));
    }

    #[inline(always)]
    fn adapt_high(&mut self, code: usize) {
        self.predict(self.scaled(HIGH_LEVELS[code]));
        let log = ((self.log_scale * 127) >> 7) + HIGH_LOG_STEPS[code & 1];
        self.log_scale = log.clamp(0, 22_528);
        self.scale = linear(self.log_scale - (10 << 11));
    }

    /// Adapts poles and zeros to the quantised difference and predicts the next sample (§3.6).
    #[inline(always)]
    fn predict(&mut self, difference: i32) {
        self.adapt_poles(self.zeros_prediction + difference < 0);
        self.adapt_zeros(difference);
        let reconstructed = i32::from(clip16((self.prediction + difference) * 2));
        let poles =
            ((self.poles[0] * reconstructed) >> 15) + ((self.poles[1] * self.reconstructed) >> 15);
        self.prediction = i32::from(clip16(self.zeros_prediction + poles));
        self.reconstructed = reconstructed;
    }

    #[inline(always)]
    fn adapt_poles(&mut self, negative: bool) {
        let first = if negative == self.negative[0] { -1 } else { 1 };
        let second = if negative == self.negative[1] { 128 } else { -128 };
        self.negative = [negative, self.negative[0]];
        let [a1, a2] = self.poles;
        let a2 = ((first * a1.clamp(-8_191, 8_191)) >> 5) + second + ((a2 * 127) >> 7);
        let a2 = a2.clamp(-12_288, 12_288);
        let limit = 15_360 - a2;
        let a1 = ((a1 * 255) >> 8) - 192 * first;
        self.poles = [a1.clamp(-limit, limit), a2];
    }

    /// Each zero leaks by 1/256 and moves by 128 towards the sign of its correlation; a difference
    /// of zero moves none. All values keep within 16 bits: coefficients by the leak, differences
    /// since the largest level times the largest scale is 12,404.
    #[inline(always)]
    fn adapt_zeros(&mut self, difference: i32) {
        let now = difference as i16;
        let moving = if difference == 0 { 0 } else { -1i16 };
        let mut sum = 0i32;
        let mut newer = [0i16; LANES];
        newer[0] = now.wrapping_mul(2);
        newer[1..ZEROS].copy_from_slice(&self.differences[..ZEROS - 1]);
        for ((zero, older), new) in self.zeros.iter_mut().zip(&self.differences).zip(&newer) {
            let opposite = (older ^ now) >> 15;
            let step = ((opposite & -256) + 128) & moving;
            let leaked = zero.wrapping_add(zero.wrapping_neg() >> 8);
            *zero = leaked.wrapping_add(step);
            sum = sum.wrapping_add(i32::from(*new).wrapping_mul(i32::from(*zero)) >> 15);
        }
        self.differences = newer;
        self.zeros_prediction = sum;
    }
}

#[inline(always)]
fn clip16(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// Scale factor from its logarithm: five bits choose the mantissa, the rest shifts it (§3.5).
#[inline(always)]
fn linear(log: i32) -> i32 {
    let mantissa = i32::from(MANTISSAS[((log >> 6) & 31) as usize]);
    match log >> 11 {
        shift if shift < 0 => mantissa >> -shift,
        shift => mantissa << shift,
    }
}

/// 2^(k/32) at 2^11.
static MANTISSAS: [i16; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// Decision levels of the 60-level quantiser of the lower band.
static LOW_DECISIONS: [i16; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023,
    1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];

/// Output levels of the lower band by its four-bit code (codes 0 and 15 are the smallest).
static LOW_LEVELS_4_BIT: [i16; 16] =
    [0, -2557, -1612, -1121, -786, -530, -323, -150, 2557, 1612, 1121, 786, 530, 323, 150, 0];

/// Output levels of the lower band by its six-bit code; the first four are never sent.
static LOW_LEVELS_6_BIT: [i16; 64] = [
    -17, -17, -17, -17, -3101, -2738, -2376, -2088, -1873, -1689, -1535, -1399, -1279, -1170,
    -1072, -982, -899, -822, -750, -682, -618, -558, -501, -447, -396, -347, -300, -254, -211,
    -170, -130, -91, 3101, 2738, 2376, 2088, 1873, 1689, 1535, 1399, 1279, 1170, 1072, 982, 899,
    822, 750, 682, 618, 558, 501, 447, 396, 347, 300, 254, 211, 170, 130, 91, 54, 17, -54, -17,
];

/// How much each four-bit code of the lower band moves the logarithm of the scale.
static LOW_LOG_STEPS: [i32; 16] =
    [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];

/// Output levels of the upper band by its code, and its one decision level at 2^-8.
static HIGH_LEVELS: [i16; 4] = [-926, -202, 926, 202];
const HIGH_DECISION: i32 = 141;
static HIGH_LOG_STEPS: [i32; 2] = [798, -214];

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// FNV-1a, enough to pin a stream.
    fn checksum(bytes: impl IntoIterator<Item = u8>) -> u64 {
        bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    fn noise(samples: usize) -> Vec<i16> {
        let mut state = 1u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i16
        };
        std::iter::repeat_with(next).take(samples).collect()
    }

    /// A triangle of 500 Hz: exact in integers on every machine, unlike a sine.
    fn triangle(samples: usize) -> Vec<i16> {
        (0..samples as i32).map(|n| ((n % 32 - 16).abs() * 2_000 - 16_000) as i16).collect()
    }

    fn round_trip(pcm: &[i16]) -> (Vec<u8>, Vec<i16>) {
        let (mut bytes, mut returned) = (vec![0; pcm.len() / 2], vec![0; pcm.len()]);
        assert_eq!(Encoder::default().encode(pcm, &mut bytes), Ok(pcm.len() / 2));
        assert_eq!(Decoder::default().decode(&bytes, &mut returned), Ok(pcm.len()));
        (bytes, returned)
    }

    #[test]
    fn streams_are_pinned() {
        // Verified equal to FFmpeg's g722 encoder and decoder (tests/it/oracle_g722.rs).
        for (name, pcm, expected) in [
            ("noise", noise(16_000), (0xdcf6_135b_b285_593e, 0x439e_0099_3906_4071)),
            ("triangle", triangle(16_000), (0x455e_aefc_a079_a1c5, 0xc949_dab2_1e52_dcd1)),
            ("silence", vec![0; 3_200], (0xadca_c5e0_0939_9dd6, 0x47a9_8e6f_defb_3b1c)),
        ] {
            let (bytes, returned) = round_trip(&pcm);
            let linear = returned.into_iter().flat_map(i16::to_le_bytes);
            assert_eq!((checksum(bytes), checksum(linear)), expected, "{name}");
        }
    }

    #[test]
    fn any_split_into_frames_gives_the_same_stream() {
        let pcm = noise(4_000);
        let (whole, decoded) = round_trip(&pcm);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let (mut bytes, mut samples) = (Vec::new(), Vec::new());
        for part in pcm.chunks(14) {
            let (mut some, mut back) = ([0; 7], [0; 14]);
            let len = encoder.encode(part, &mut some).unwrap();
            let returned = decoder.decode(&some[..len], &mut back).unwrap();
            bytes.extend_from_slice(&some[..len]);
            samples.extend_from_slice(&back[..returned]);
        }
        assert_eq!(bytes, whole);
        assert_eq!(samples, decoded);
    }

    #[test]
    fn a_tone_of_either_band_comes_back_22_samples_later() {
        for (hz, least_db) in [(440.0, 25.0), (3_000.0, 18.0), (6_000.0, 10.0)] {
            let tone = |n: usize| (8_000.0 * (TAU * hz * n as f64 / 16_000.0).sin()) as i16;
            let pcm: Vec<i16> = (0..8_000).map(tone).collect();
            let (_, returned) = round_trip(&pcm);
            let (mut signal, mut noise) = (0.0, 0.0);
            for (sent, heard) in pcm[2_000..7_000].iter().zip(&returned[2_022..]) {
                signal += f64::from(*sent).powi(2);
                noise += (f64::from(*sent) - f64::from(*heard)).powi(2);
            }
            let snr = 10.0 * (signal / noise).log10();
            assert!(snr > least_db, "{hz} Hz: {snr:.1} dB");
        }
    }

    #[test]
    fn lengths_are_checked() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.encode(&[0; 3], &mut [0; 9]), Err(CodecFault::BadFrameLength));
        assert_eq!(encoder.encode(&[0; 4], &mut [0; 1]), Err(CodecFault::OutputTooSmall));
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&[], &mut [0; 9]), Err(CodecFault::BadPayload));
        assert_eq!(decoder.decode(&[0; 2], &mut [0; 3]), Err(CodecFault::OutputTooSmall));
    }
}
