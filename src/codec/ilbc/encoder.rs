//! The encoder (§3): PCM in, payloads out.

use super::bitstream::{self, Parameters};
use super::codebook::{self, MEMORY};
use super::excitation::Layout;
use super::filter::{HighPass, all_zero};
use super::lpc::{self, WINDOW};
use super::lsf::{self, Lsf};
use super::search::search;
use super::{FRAME_SAMPLES_MAX, Mode, ORDER, Polynomial, SUBFRAME, SUBFRAMES_MAX, state};
use crate::codec::CodecFault;

/// PCM at 8 kHz in, iLBC out.
pub struct Encoder {
    mode: Mode,
    high_pass: HighPass,
    /// The end of what came before, then the frame at hand (§3.2.1).
    speech: [f32; SPEECH],
    /// The last spectrum as it was measured and as it was sent.
    measured: Lsf,
    sent: Lsf,
}

impl Encoder {
    pub fn new(mode: Mode) -> Encoder {
        Encoder {
            mode,
            high_pass: HighPass::before_coding(),
            speech: [0.0; SPEECH],
            measured: lsf::MEAN,
            sent: lsf::MEAN,
        }
    }

    /// Encodes the frames of a packet, one or more (RFC 3952 §3.2), to the front of `out`; returns
    /// the number of bytes. On a fault nothing was encoded.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        let (samples, bytes) = (self.mode.frame_samples(), self.mode.frame_bytes());
        if pcm.is_empty() || !pcm.len().is_multiple_of(samples) {
            return Err(CodecFault::BadFrameLength);
        }
        let bytes_all = pcm.len() / samples * bytes;
        let out = out.get_mut(..bytes_all).ok_or(CodecFault::OutputTooSmall)?;
        for (frame, payload) in pcm.chunks_exact(samples).zip(out.chunks_exact_mut(bytes)) {
            bitstream::pack(self.mode, &self.parameters(frame), payload);
        }
        Ok(bytes_all)
    }

    fn parameters(&mut self, pcm: &[i16]) -> Parameters {
        self.take_speech(pcm);
        let mut parameters = Parameters::default();
        let filters = self.analyse(&mut parameters);
        let residual = self.residual(&filters.synthesis);
        encode_residual(self.mode, &residual, &filters, &mut parameters);
        parameters
    }

    /// Moves the frame to the end of the speech that is looked at.
    fn take_speech(&mut self, pcm: &[i16]) {
        self.speech.copy_within(pcm.len().., 0);
        let frame = &mut self.speech[SPEECH - pcm.len()..];
        for (place, sample) in frame.iter_mut().zip(pcm) {
            *place = f32::from(*sample);
        }
        self.high_pass.run(frame);
    }

    /// Measures and quantises the spectra (§3.2), and mixes them for the sub-blocks.
    fn analyse(&mut self, parameters: &mut Parameters) -> Filters {
        let newest = self.speech.last_chunk().expect("speech is longer than the window");
        let newest = lpc::predictor(newest, &lpc::ASYMMETRIC);
        let first = match self.mode {
            Mode::Ms20 => newest,
            Mode::Ms30 => {
                let middle = self.speech.first_chunk().expect("speech is longer than the window");
                lpc::predictor(middle, &lpc::HANNING)
            }
        };
        let measured = [lsf::from_predictor(&first), lsf::from_predictor(&newest)];
        parameters.lsf = measured.map(|lsf| lsf::quantise(&lsf));
        let sent = parameters.lsf.map(|indices| lsf::dequantise(&indices));
        let filters = Filters {
            synthesis: lsf::interpolated(self.mode, &self.sent, &sent),
            weighting: lsf::interpolated(self.mode, &self.measured, &measured)
                .map(|filter| lpc::widened(&filter, WEIGHTING_CHIRP)),
        };
        (self.measured, self.sent) = (measured[1], sent[1]);
        filters
    }

    /// What the predictors leave of the frame (§3.3).
    fn residual(&self, synthesis: &[Polynomial; SUBFRAMES_MAX]) -> [f32; FRAME_SAMPLES_MAX] {
        let mut residual = [0.0; FRAME_SAMPLES_MAX];
        let start = SPEECH - self.mode.frame_samples() - ORDER;
        let speech = self.speech[start..].windows(ORDER + SUBFRAME).step_by(SUBFRAME);
        let blocks = residual.chunks_exact_mut(SUBFRAME);
        for ((speech, filter), block) in speech.zip(synthesis).zip(blocks) {
            all_zero(speech, filter, block);
        }
        residual
    }
}

/// The filters of each sub-block.
struct Filters {
    /// A(z) as the decoder knows it.
    synthesis: [Polynomial; SUBFRAMES_MAX],
    /// Hides the error under the speech (§3.4): A(z) as it was measured, with its poles far in.
    weighting: [Polynomial; SUBFRAMES_MAX],
}

/// The start state and then each segment, from what the decoder will have by then (§3.5, §3.6).
fn encode_residual(
    mode: Mode,
    residual: &[f32; FRAME_SAMPLES_MAX],
    filters: &Filters,
    parameters: &mut Parameters,
) {
    let block = state::loudest_pair(mode, residual);
    let pair = &residual[usize::from(block - 1) * SUBFRAME..][..2 * SUBFRAME];
    parameters.state_block = block;
    parameters.state_first = state::is_first(mode, pair);
    let layout = Layout::new(mode, block, parameters.state_first);
    let mut decoded = [0.0; FRAME_SAMPLES_MAX];
    encode_state(mode, &layout, residual, filters, parameters, &mut decoded);
    let mut memory = [0.0; MEMORY];
    for (index, choice) in parameters.segments[..mode.segments()].iter_mut().enumerate() {
        let segment = layout.segment(index);
        let memory = &mut memory[..segment.memory_len()];
        segment.load_memory(&decoded, memory);
        let mut target = [0.0; SUBFRAME];
        let target = segment.take(residual, &mut target);
        let weighting = &filters.weighting[segment.start / SUBFRAME];
        *choice = search(index, target, memory, weighting);
        codebook::construct(memory, choice, target);
        segment.put(target, &mut decoded);
    }
}

fn encode_state(
    mode: Mode,
    layout: &Layout,
    residual: &[f32; FRAME_SAMPLES_MAX],
    filters: &Filters,
    parameters: &mut Parameters,
    decoded: &mut [f32; FRAME_SAMPLES_MAX],
) {
    let (len, subframe) = (mode.state_samples(), layout.state_subframe());
    let place = layout.state_start()..layout.state_start() + len;
    let samples = &mut parameters.state[..len];
    let first = if parameters.state_first { SUBFRAME } else { len - SUBFRAME };
    let synthesis = &filters.synthesis[subframe];
    let weighting = &filters.weighting[subframe..subframe + 2];
    let state = &residual[place.clone()];
    parameters.state_peak = state::encode(state, first, synthesis, weighting, samples);
    state::decode(parameters.state_peak, samples, synthesis, &mut decoded[place]);
}

/// Speech that is looked at: a window, and 7.5 ms before it.
const SPEECH: usize = WINDOW + 60;
const WEIGHTING_CHIRP: f32 = 0.4222;
