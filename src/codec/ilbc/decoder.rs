//! The decoder (§4): payloads in, PCM out, and concealment where payloads are missing.

use super::concealment::Concealment;
use super::enhancer::Enhancer;
use super::filter::{HighPass, all_pole, settle};
use super::lsf::{self, Lsf};
use super::{
    FRAME_SAMPLES_MAX, Mode, ORDER, Polynomial, SUBFRAME, SUBFRAMES_MAX, bitstream, excitation,
};
use crate::codec::CodecFault;

/// iLBC in, PCM at 8 kHz out; 5 ms late with frames of 20 ms, 10 ms with frames of 30 ms.
pub struct Decoder {
    mode: Mode,
    /// The last spectrum that came.
    spectrum: Lsf,
    concealment: Concealment,
    enhancer: Enhancer,
    /// Pitch at the end of the residual, 20 to 118 samples.
    lag: usize,
    /// Predictors of the sub-blocks that the enhancer holds back.
    late_predictors: [Polynomial; 2],
    /// The last samples before the high-pass filter.
    synthesis: [f32; ORDER],
    high_pass: HighPass,
    /// The last made-up frame, and from where on nobody has heard it yet.
    made_up: [i16; FRAME_SAMPLES_MAX],
    heard: usize,
}

impl Decoder {
    pub fn new(mode: Mode) -> Decoder {
        let mut through = [0.0; ORDER + 1];
        through[0] = 1.0;
        Decoder {
            mode,
            spectrum: lsf::MEAN,
            concealment: Concealment::new(mode),
            enhancer: Enhancer::new(mode),
            lag: 20,
            late_predictors: [through; 2],
            synthesis: [0.0; ORDER],
            high_pass: HighPass::after_decoding(),
            made_up: [0; FRAME_SAMPLES_MAX],
            heard: mode.frame_samples(),
        }
    }

    /// Decodes the frames of a payload, one or more (RFC 3952 §3.2), to the front of `out`; returns
    /// the number of samples. A payload that is no whole number of frames is refused, and leaves
    /// the state as it was; a frame that says that it is empty is concealed.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        let (bytes, samples) = (self.mode.frame_bytes(), self.mode.frame_samples());
        if payload.is_empty() || !payload.len().is_multiple_of(bytes) {
            return Err(CodecFault::BadPayload);
        }
        let samples_all = payload.len() / bytes * samples;
        let out = out.get_mut(..samples_all).ok_or(CodecFault::OutputTooSmall)?;
        for (frame, pcm) in payload.chunks_exact(bytes).zip(out.chunks_exact_mut(samples)) {
            match bitstream::unpack(self.mode, frame) {
                Some(parameters) => self.decode_frame(&parameters, pcm),
                None => self.conceal_frame(pcm),
            }
            self.join(pcm);
        }
        Ok(samples_all)
    }

    /// Fills all of `out` with what the missing audio may have been. Where that is no whole number
    /// of frames, the next call, or the start of the next payload, goes on from there.
    pub fn conceal(&mut self, out: &mut [i16]) {
        let frame = self.mode.frame_samples();
        let mut rest = out;
        while !rest.is_empty() {
            if self.heard == frame {
                let mut pcm = [0; FRAME_SAMPLES_MAX];
                self.conceal_frame(&mut pcm[..frame]);
                self.made_up = pcm;
                self.heard = 0;
            }
            let count = rest.len().min(frame - self.heard);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&self.made_up[self.heard..][..count]);
            self.heard += count;
            rest = later;
        }
    }

    /// Where a made-up frame was heard in part, a decoded one grows out of its rest.
    fn join(&mut self, pcm: &mut [i16]) {
        let rest = &self.made_up[self.heard..self.mode.frame_samples()];
        let overlap = rest.len().min(SUBFRAME);
        for (n, (sample, made_up)) in pcm.iter_mut().zip(&rest[..overlap]).enumerate() {
            let rise = (n + 1) as f32 / (overlap + 1) as f32;
            *sample = (f32::from(*sample) * rise + f32::from(*made_up) * (1.0 - rise)) as i16;
        }
        self.heard = self.mode.frame_samples();
    }

    fn decode_frame(&mut self, parameters: &bitstream::Parameters, pcm: &mut [i16]) {
        let mut spectra = parameters.lsf.map(|indices| lsf::dequantise(&indices));
        if self.mode == Mode::Ms20 {
            spectra[1] = spectra[0];
        }
        let predictors = lsf::interpolated(self.mode, &self.spectrum, &spectra);
        self.spectrum = spectra[1];
        let residual = excitation::decode(self.mode, parameters, &predictors);
        self.concealment.remember(&residual, &predictors[SUBFRAMES_MAX - 1]);
        self.speak(&residual, false, &predictors, pcm);
    }

    fn conceal_frame(&mut self, pcm: &mut [i16]) {
        let (residual, predictor) = self.concealment.conceal(self.lag);
        self.speak(&residual, true, &[predictor; SUBFRAMES_MAX], pcm);
    }

    /// Enhances a residual and makes speech of it (§4.6 to §4.8).
    fn speak(
        &mut self,
        residual: &[f32; FRAME_SAMPLES_MAX],
        made_up: bool,
        predictors: &[Polynomial; SUBFRAMES_MAX],
        pcm: &mut [i16],
    ) {
        let (enhanced, lag) = self.enhancer.enhance(residual, made_up);
        self.lag = lag;
        let mut speech = [0.0; ORDER + FRAME_SAMPLES_MAX];
        let speech = &mut speech[..ORDER + pcm.len()];
        speech[..ORDER].copy_from_slice(&self.synthesis);
        speech[ORDER..].copy_from_slice(&enhanced[..pcm.len()]);
        let late = self.enhancer.delay() / SUBFRAME;
        let held_back = self.late_predictors[2 - late..].iter();
        for (subframe, predictor) in
            held_back.chain(predictors).take(pcm.len() / SUBFRAME).enumerate()
        {
            all_pole(&mut speech[subframe * SUBFRAME..][..ORDER + SUBFRAME], predictor);
        }
        let last = self.mode.subframes() - 2;
        self.late_predictors.copy_from_slice(&predictors[last..last + 2]);
        self.keep_bounded(speech);
        let speech = &mut speech[ORDER..];
        self.high_pass.run(speech);
        for (out, sample) in pcm.iter_mut().zip(speech) {
            *out = (*sample + 0.5f32.copysign(*sample)) as i16;
        }
    }

    /// Remembers the end of the speech. Bits that no encoder sends can make a predictor that
    /// never comes to rest: then all begins anew from silence.
    fn keep_bounded(&mut self, speech: &mut [f32]) {
        let bounded = speech.iter().all(|sample| sample.abs() < SPEECH_MAX);
        if !bounded {
            speech.fill(0.0);
            self.high_pass.reset();
        }
        self.synthesis.copy_from_slice(&speech[speech.len() - ORDER..]);
        settle(&mut self.synthesis);
    }
}

/// Far above full scale, so that honest overload is only clipped.
const SPEECH_MAX: f32 = 1e7;
