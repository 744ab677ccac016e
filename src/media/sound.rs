//! Sounds of our own, made once for the process: hold music, ringing, and what a caller hears when the
//! agent is lost. All are computed, at 8 kHz, quiet, and begin and end in silence, so that those
//! that repeat do so without a seam. It plays nothing.

use super::plan::Sound;
use std::f32::consts::TAU;
use std::sync::{Arc, OnceLock};

/// Rate of all sounds here: that of most legs, and more than these sounds hold.
const HZ: u32 = 8_000;
/// Peak of a tone of the network: −16 dBm0.
const TONE_PEAK: f32 = 3_600.0;
/// Peak of one note of the music.
const NOTE_PEAK: f32 = 1_500.0;
/// Over how long tones rise and sink.
const RAMP_SECONDS: f32 = 0.01;

/// How a telephone rings at the far end (ITU-T E.180, supplement 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ringback {
    /// 425 Hz, 1 s on, 4 s off.
    #[default]
    Europe,
    /// 440 and 480 Hz, 2 s on, 4 s off.
    NorthAmerica,
}

/// Hold music: broken chords, 16 s long, again and again.
pub fn hold_music() -> Arc<Sound> {
    static SOUND: OnceLock<Arc<Sound>> = OnceLock::new();
    SOUND.get_or_init(|| Arc::new(sound(music(), true))).clone()
}

/// The target of a transfer is rung.
pub fn ringback(country: Ringback) -> Arc<Sound> {
    static EUROPE: OnceLock<Arc<Sound>> = OnceLock::new();
    static NORTH_AMERICA: OnceLock<Arc<Sound>> = OnceLock::new();
    let (place, tones, on, off): (_, &[f32], _, _) = match country {
        Ringback::Europe => (&EUROPE, &[425.0], 1.0, 4.0),
        Ringback::NorthAmerica => (&NORTH_AMERICA, &[440.0, 480.0], 2.0, 4.0),
    };
    let make = || {
        let mut pcm = silence(on + off);
        for hz in tones {
            let peak = TONE_PEAK / tones.len() as f32;
            add(&mut pcm, 0.0, on, |at| peak * (TAU * hz * at).sin() * edges(at, on));
        }
        Arc::new(sound(pcm, true))
    };
    place.get_or_init(make).clone()
}

/// The agent is lost: three soft falling notes, once, and a moment of silence.
pub fn lost_agent() -> Arc<Sound> {
    static SOUND: OnceLock<Arc<Sound>> = OnceLock::new();
    let make = || {
        let mut pcm = silence(1.4);
        for (begin, hz) in [(0.05, 659.26), (0.3, 523.25), (0.55, 440.0)] {
            pluck(&mut pcm, begin, 0.8, hz, 2.0 * NOTE_PEAK);
        }
        Arc::new(sound(pcm, false))
    };
    SOUND.get_or_init(make).clone()
}

/// Eight chords of 2 s, each broken into seven notes of an eighth and a rest.
fn music() -> Vec<f32> {
    const C: [f32; 4] = [130.81, 261.63, 329.63, 392.00];
    const A: [f32; 4] = [110.00, 220.00, 261.63, 329.63];
    const F: [f32; 4] = [87.31, 220.00, 261.63, 349.23];
    const G: [f32; 4] = [98.00, 246.94, 293.66, 392.00];
    const E: [f32; 4] = [82.41, 246.94, 329.63, 392.00];
    const ORDER: [usize; 7] = [0, 1, 2, 3, 2, 3, 1];
    let mut pcm = silence(16.0);
    for (bar, chord) in [C, A, F, G, C, E, F, G].iter().enumerate() {
        for (beat, note) in ORDER.iter().enumerate() {
            let begin = bar as f32 * 2.0 + beat as f32 * 0.25;
            // All has died away when the music begins again.
            let length = (16.0 - begin).min(1.2);
            pluck(&mut pcm, begin, length, 2.0 * chord[*note], NOTE_PEAK);
        }
    }
    pcm
}

/// One note of a plucked string: harmonics that die away, the higher the sooner.
fn pluck(pcm: &mut [f32], begin: f32, length: f32, hz: f32, peak: f32) {
    add(pcm, begin, length, |at| {
        let harmonic = |number: f32, part: f32| {
            let decay = (-at * (2.5 + 2.0 * number)).exp();
            part * decay * (TAU * hz * number * at).sin()
        };
        let wave = harmonic(1.0, 1.0) + harmonic(2.0, 0.4) + harmonic(3.0, 0.15);
        peak * wave * edges(at, length)
    });
}

/// Adds `wave`, of seconds since its begin.
fn add(pcm: &mut [f32], begin: f32, length: f32, wave: impl Fn(f32) -> f32) {
    let start = (begin * HZ as f32) as usize;
    let count = (length * HZ as f32) as usize;
    for (index, sample) in pcm.iter_mut().skip(start).take(count).enumerate() {
        *sample += wave(index as f32 / HZ as f32);
    }
}

/// The level that rises from and sinks to nothing at the ends.
fn edges(at: f32, length: f32) -> f32 {
    (at.min(length - at) / RAMP_SECONDS).clamp(0.0, 1.0)
}

fn silence(seconds: f32) -> Vec<f32> {
    vec![0.0; (seconds * HZ as f32) as usize]
}

fn sound(wave: Vec<f32>, repeats: bool) -> Sound {
    let pcm = wave.into_iter().map(|value| value as i16).collect();
    Sound { hz: HZ, pcm, repeats }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest step from one sample to the next, the seam of a repeated sound included.
    fn step(sound: &Sound) -> u16 {
        let mut pcm = sound.pcm.to_vec();
        pcm.extend(sound.repeats.then(|| sound.pcm[0]));
        pcm.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().expect("samples")
    }

    #[test]
    fn sounds_are_quiet_and_without_steps_and_made_once() {
        for (what, sound, again, ms) in [
            ("music", hold_music(), hold_music(), 16_000),
            ("Europe", ringback(Ringback::Europe), ringback(Ringback::Europe), 5_000),
            (
                "North America",
                ringback(Ringback::NorthAmerica),
                ringback(Ringback::NorthAmerica),
                6_000,
            ),
            ("lost", lost_agent(), lost_agent(), 1_400),
        ] {
            assert!(Arc::ptr_eq(&sound, &again), "{what}");
            assert_eq!(sound.pcm.len() as u64 * 1_000 / u64::from(sound.hz), ms, "{what}");
            let peak = sound.pcm.iter().map(|sample| sample.unsigned_abs()).max();
            assert!((1_500..10_000).contains(&peak.expect("samples")), "{what}: {peak:?}");
            assert!(step(&sound) < 4_500, "{what}: {}", step(&sound));
            let ends = [sound.pcm[0], *sound.pcm.last().expect("samples")];
            assert!(ends.iter().all(|sample| sample.unsigned_abs() < 60), "{what}: {ends:?}");
        }
    }

    #[test]
    fn ringing_has_its_cadence() {
        let loud = |sound: &Sound, second: f32| {
            let start = (second * HZ as f32) as usize;
            sound.pcm[start..start + 80].iter().any(|sample| sample.unsigned_abs() > 1_000)
        };
        let (europe, america) = (ringback(Ringback::Europe), ringback(Ringback::NorthAmerica));
        let at = |sound: &Sound| [0.1, 0.9, 1.1, 1.9, 2.1, 4.9].map(|second| loud(sound, second));
        assert_eq!(at(&europe), [true, true, false, false, false, false]);
        assert_eq!(at(&america), [true, true, true, true, false, false]);
    }
}
