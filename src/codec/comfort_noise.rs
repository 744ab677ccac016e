//! Comfort noise (RFC 3389): what a pause sounds like when its sender tells of it instead of sending
//! it. The payload is a level and, if the sender cares, a spectrum as reflection coefficients:
//!
//! ```text
//! | 0 | level, −dBov | coefficient 1 | coefficient 2 | …       k = 258 · (n − 127) / 32768
//! ```
//!
//! The signs are those of the senders in use: a positive first coefficient lifts the treble. A
//! generator draws white noise from its seed and gives it that spectrum and level; what changes,
//! changes over some milliseconds. It knows no RTP, and no payload makes it loud.

/// Coefficients that are followed; further ones describe what nobody hears in a pause.
const ORDER_MAX: usize = 12;
/// No pause is louder (in −dBov): what claims to be is held here.
const LEVEL_LOUDEST: u8 = 24;
/// Amplitude of a square wave of 0 dBov: µ-law's ±8031 of 14 bits in 16 (RFC 3389 §3.1).
const OVERLOAD: f32 = 32_124.0;
/// Beyond this a resonance would ring for longer than the pause.
const REFLECTION_MAX: f32 = 0.98;
/// What was described last is approached in steps, each by an eighth of the way: a time constant of
/// 16 ms.
const STEP_MS: u32 = 2;
const STEP_PART: f32 = 0.125;

/// The payload that tells of white noise at `level` (−dBov, 0 to 127).
pub fn payload(level: u8) -> [u8; 1] {
    [level.min(127)]
}

/// What a payload describes.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Description {
    /// Root of the mean square, in samples.
    rms: f32,
    reflection: [f32; ORDER_MAX],
}

impl Description {
    /// `None` where the payload is none of RFC 3389: empty, or its first bit is set.
    fn read(payload: &[u8]) -> Option<Description> {
        let (level, coefficients) = payload.split_first().filter(|(level, _)| **level < 128)?;
        let mut reflection = [0.0; ORDER_MAX];
        for (place, index) in reflection.iter_mut().zip(coefficients) {
            let value = 258.0 * (f32::from(*index) - 127.0) / 32_768.0;
            *place = value.clamp(-REFLECTION_MAX, REFLECTION_MAX);
        }
        let level = (*level).max(LEVEL_LOUDEST);
        Some(Description { rms: OVERLOAD * 10f32.powf(f32::from(level) / -20.0), reflection })
    }
}

/// Makes the noise of one stream's pauses.
#[derive(Debug)]
pub struct Generator {
    target: Option<Description>,
    /// What is heard now, on its way to the target.
    rms: f32,
    reflection: [f32; ORDER_MAX],
    /// White noise times this goes into the filter.
    gain: f32,
    /// The backward errors of the lattice.
    memory: [f32; ORDER_MAX],
    step_samples: usize,
    /// Samples until the next step.
    left: usize,
    chance: u32,
}

impl Generator {
    /// For PCM of `hz`. `seed`: two streams with one seed have the same noise.
    pub fn new(hz: u32, seed: u32) -> Generator {
        Generator {
            target: None,
            rms: 0.0,
            reflection: [0.0; ORDER_MAX],
            gain: 0.0,
            memory: [0.0; ORDER_MAX],
            step_samples: step_samples(hz),
            left: 0,
            // Zero is the one state that this kind of generator never leaves.
            chance: seed | 1,
        }
    }

    /// Goes on at another rate.
    pub fn change_rate(&mut self, hz: u32) {
        self.step_samples = step_samples(hz);
        self.left = self.left.min(self.step_samples);
    }

    /// The sender described its pause. What cannot be read ends the noise.
    pub fn describe(&mut self, payload: &[u8]) {
        self.target = Description::read(payload);
        if self.target.is_none() {
            self.rest();
        }
    }

    /// A pause was described and has not ended.
    pub fn is_on(&self) -> bool {
        self.target.is_some()
    }

    /// The pause is over; the next one begins from silence.
    pub fn rest(&mut self) {
        self.target = None;
        (self.rms, self.gain, self.left) = (0.0, 0.0, 0);
        self.memory = [0.0; ORDER_MAX];
    }

    /// Fills all of `out`; with silence where no pause was described.
    pub fn fill(&mut self, out: &mut [i16]) {
        let Some(target) = self.target else { return out.fill(0) };
        for sample in out {
            if self.left == 0 {
                self.left = self.step_samples;
                self.approach(&target);
            }
            self.left -= 1;
            *sample = self.next() as i16;
        }
    }

    fn approach(&mut self, target: &Description) {
        self.rms += (target.rms - self.rms) * STEP_PART;
        let mut part = 1.0;
        for (have, wanted) in self.reflection.iter_mut().zip(&target.reflection) {
            *have += (*wanted - *have) * STEP_PART;
            part *= 1.0 - *have * *have;
        }
        // A lattice lifts the power of white noise by the product of 1 / (1 − k²).
        self.gain = self.rms * part.sqrt();
    }

    /// One sample: the all-pole lattice, driven by white noise of mean square one.
    fn next(&mut self) -> f32 {
        let mut forward = self.white() * self.gain;
        for index in (0..ORDER_MAX).rev() {
            forward -= self.reflection[index] * self.memory[index];
            if index + 1 < ORDER_MAX {
                self.memory[index + 1] = self.memory[index] + self.reflection[index] * forward;
            }
        }
        self.memory[0] = forward;
        forward
    }

    /// The sum of two even chances has its peaks at 2.4 times its mean level, as soft noise has.
    fn white(&mut self) -> f32 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        let (one, other) = (self.chance & 0xFFFF, self.chance >> 16);
        const UNIT: f32 = 26_755.0;
        ((one + other) as f32 - 65_535.0) / UNIT
    }
}

fn step_samples(hz: u32) -> usize {
    (hz * STEP_MS / 1_000).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(pcm: &[i16]) -> f32 {
        let mean = pcm.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>();
        -20.0 * ((mean / pcm.len() as f32).sqrt() / OVERLOAD).log10()
    }

    fn settled(hz: u32, payload: &[u8]) -> Vec<i16> {
        let mut generator = Generator::new(hz, 7);
        generator.describe(payload);
        let mut pcm = vec![0; hz as usize * 3];
        generator.fill(&mut pcm);
        pcm.split_off(hz as usize)
    }

    /// Correlation of neighbours: the first reflection coefficient with its sign turned.
    fn correlation(pcm: &[i16], lag: usize) -> f32 {
        let product = |(one, other): (&i16, &i16)| f32::from(*one) * f32::from(*other);
        let with = |lag: usize| pcm[lag..].iter().zip(pcm).map(product).sum::<f32>();
        with(lag) / with(0)
    }

    #[test]
    fn the_level_is_what_was_described_whatever_the_spectrum() {
        for hz in [8_000, 16_000, 48_000] {
            for (payload, expected) in [
                (&[30][..], 30.0),
                (&[40], 40.0),
                (&[50, 127, 127], 50.0),
                (&[40, 27], 40.0),
                (&[45, 227, 60], 45.0),
                (&[40, 20, 180, 100, 140, 127, 110, 120, 130, 125, 127], 40.0),
                (&[60, 0], 60.0),
                (&[60, 255, 255], 60.0),
                (&[0], 24.0),
                (&[23, 127], 24.0),
            ] {
                let have = level(&settled(hz, payload));
                assert!((have - expected).abs() < 1.5, "{payload:?} at {hz}: −{have} dBov");
            }
        }
    }

    #[test]
    fn the_spectrum_is_what_was_described() {
        for (coefficient, expected) in [(27, 0.787), (127, 0.0), (227, -0.787), (77, 0.394)] {
            let have = correlation(&settled(8_000, &[30, coefficient]), 1);
            assert!((have - expected).abs() < 0.03, "{coefficient}: {have}");
        }
        // What FFmpeg's encoder says of noise below 800 Hz, and that noise's own correlation.
        let theirs = [0x2e, 0x0d, 0xe0, 0x3a, 0xc3, 0x57, 0xa9, 0x53, 0x94, 0x60, 0x93];
        let (pcm, near) = (settled(8_000, &theirs), 0.888);
        assert!((correlation(&pcm, 1) - near).abs() < 0.03 && (level(&pcm) - 46.0).abs() < 1.0);
        // k2 alone: r(2) = −k2, r(1) = 0.
        let pcm = settled(8_000, &[30, 127, 40]);
        let (near, far) = (correlation(&pcm, 1), correlation(&pcm, 2));
        assert!(near.abs() < 0.03 && (far - 0.685).abs() < 0.03, "{near} {far}");
    }

    #[test]
    fn what_is_no_description_is_silence_and_the_quietest_level_too() {
        for payload in [&[][..], &[0x80], &[0xff, 1, 2, 3], &[127]] {
            let pcm = settled(8_000, payload);
            assert!(pcm.iter().all(|sample| *sample == 0), "{payload:?}");
        }
        assert_eq!((payload(70), payload(200)), ([70], [127]));
    }

    #[test]
    fn noise_rises_from_silence_and_a_new_level_is_reached_without_a_step() {
        let mut generator = Generator::new(8_000, 7);
        let mut pcm = [1; 160];
        generator.fill(&mut pcm);
        assert_eq!((pcm, generator.is_on()), ([0; 160], false));
        generator.describe(&[30]);
        let mut levels = Vec::new();
        for block in 0..60 {
            if block == 30 {
                generator.describe(&[50, 40, 160]);
            }
            generator.fill(&mut pcm);
            levels.extend(pcm.chunks(40).map(level));
        }
        assert!(levels[0] > 36.0, "the first 5 ms are faint: {levels:?}");
        assert!((levels[12..120].iter().sum::<f32>() / 108.0 - 30.0).abs() < 1.0, "{levels:?}");
        assert!(levels[120] < 40.0, "the first 5 ms are as before: {levels:?}");
        assert!((levels[160..].iter().sum::<f32>() / 80.0 - 50.0).abs() < 2.0, "{levels:?}");
        generator.rest();
        generator.fill(&mut pcm);
        assert_eq!(pcm, [0; 160]);
    }

    #[test]
    fn no_sequence_of_payloads_is_loud_or_breaks_anything() {
        let mut chance = 1u64;
        let mut draw = move |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 33) % below
        };
        for round in 0..20_000u32 {
            let mut generator = Generator::new([8_000, 16_000, 24_000][round as usize % 3], round);
            for _ in 0..4 {
                let len = draw(40) as usize;
                let payload: Vec<u8> = (0..len).map(|_| draw(256) as u8).collect();
                generator.describe(&payload);
                let mut pcm = [0; 160];
                generator.fill(&mut pcm);
                // Nothing overflows: the level itself is bounded, and so are its peaks.
                let peak = pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
                assert!(peak < 20_000, "{round}: {peak} {payload:?}");
            }
        }
    }

    #[test]
    fn one_seed_is_one_noise_and_another_is_another() {
        let noise = |seed| {
            let mut generator = Generator::new(8_000, seed);
            generator.describe(&[40]);
            let mut pcm = [0; 800];
            generator.fill(&mut pcm);
            pcm
        };
        assert_eq!(noise(0), noise(1), "zero is no state of its own");
        assert_ne!(noise(2), noise(4));
        assert_eq!(noise(9), noise(9));
    }
}
