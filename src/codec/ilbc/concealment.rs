//! What stands for a residual that did not come (§4.5): the last one repeated at its pitch, mixed
//! with noise by how periodic it was, and fading. Speech is made of it with the last predictor.

use super::filter::{dot, energy};
use super::{FRAME_SAMPLES_MAX, Mode, ORDER, Polynomial, SUBFRAME};

/// What is known of the frame before.
pub(super) struct Concealment {
    mode: Mode,
    residual: [f32; FRAME_SAMPLES_MAX],
    predictor: Polynomial,
    /// Frames that are missing in a row up to now.
    missing: usize,
    /// Pitch and how periodic the residual was, 0 to 1, at the start of the gap.
    pitch: usize,
    periodicity: f32,
    noise: u32,
}

impl Concealment {
    pub(super) fn new(mode: Mode) -> Concealment {
        let mut predictor = [0.0; ORDER + 1];
        predictor[0] = 1.0;
        Concealment {
            mode,
            residual: [0.0; FRAME_SAMPLES_MAX],
            predictor,
            missing: 0,
            pitch: 120,
            periodicity: 0.0,
            noise: 777,
        }
    }

    /// Remembers a frame that came, and the predictor at its end.
    pub(super) fn remember(&mut self, residual: &[f32; FRAME_SAMPLES_MAX], last: &Polynomial) {
        self.residual = *residual;
        self.predictor = *last;
        self.missing = 0;
    }

    /// Makes up a frame. `lag` is the pitch that the enhancer saw last (20 to 118 samples).
    pub(super) fn conceal(&mut self, lag: usize) -> ([f32; FRAME_SAMPLES_MAX], Polynomial) {
        if self.missing == 0 {
            (self.pitch, self.periodicity) = self.pitch_near(lag);
        }
        self.missing += 1;
        let frame = self.mode.frame_samples();
        let (mut pitched, mut noise) = self.repeated(frame);
        let voiced = ((self.periodicity.sqrt() - 0.4) / 0.3).clamp(0.0, 1.0);
        for (n, (sample, noise)) in pitched.iter_mut().zip(&mut noise).enumerate() {
            let gain = self.gain() * [1.0, 0.95, 0.9][n / (2 * SUBFRAME)];
            *noise *= gain;
            *sample = gain * voiced * *sample + (1.0 - voiced) * *noise;
        }
        let quiet = energy(&pitched[..frame]) < QUIET * QUIET * frame as f32;
        self.residual = if quiet { noise } else { pitched };
        (self.residual, self.predictor)
    }

    /// The last residual continued with its pitch, and the same with periods drawn by lot. Periods
    /// under 10 ms are taken twice, so that the sound is less even.
    fn repeated(&mut self, frame: usize) -> ([f32; FRAME_SAMPLES_MAX], [f32; FRAME_SAMPLES_MAX]) {
        let lag = if self.pitch < 80 { 2 * self.pitch } else { self.pitch };
        let (mut pitched, mut noise) = ([0.0; FRAME_SAMPLES_MAX], [0.0; FRAME_SAMPLES_MAX]);
        let before = &self.residual[..frame];
        let earlier =
            |made: &[f32; FRAME_SAMPLES_MAX], n: usize, lag: usize| match n.checked_sub(lag) {
                Some(n) => made[n],
                None => before[frame + n - lag],
            };
        for n in 0..frame {
            self.noise = self.noise.wrapping_mul(69_069).wrapping_add(1) & 0x7FFF_FFFF;
            noise[n] = earlier(&noise, n, 50 + self.noise as usize % 70);
            pitched[n] = earlier(&pitched, n, lag);
        }
        (pitched, noise)
    }

    /// The lag within three samples of `lag` at which the end of the residual is likest to what
    /// was before it, and how alike.
    fn pitch_near(&self, lag: usize) -> (usize, f32) {
        let frame = &self.residual[..self.mode.frame_samples()];
        let mut best = (lag, 0.0, f32::MIN);
        for lag in lag - 3..=lag + 3 {
            let compared = COMPARED.min(frame.len() - lag);
            let now = &frame[frame.len() - compared..];
            let then = &frame[frame.len() - compared - lag..][..compared];
            let (product, before) = (dot(now, then), energy(then));
            let taken_away = if before > 0.0 { product * product / before } else { 0.0 };
            if taken_away > best.2 {
                let both = (before * energy(now)).sqrt();
                let alike = if both > 0.0 { product.abs() / both } else { 0.0 };
                best = (lag, alike, taken_away);
            }
        }
        (best.0, best.1)
    }

    /// Level of a missing frame beside the one before it; silence after 160 ms.
    fn gain(&self) -> f32 {
        match self.missing * self.mode.frame_samples() {
            0..=320 => 1.0,
            321..=640 => 0.9,
            641..=960 => 0.7,
            961..=1280 => 0.5,
            _ => 0.0,
        }
    }
}

/// Samples that are compared for the pitch.
const COMPARED: usize = 60;
/// Below this level (root mean square) a repeated pitch would be heard more than what it replaces.
const QUIET: f32 = 30.0;
