//! Keys by their tones (ITU-T Q.23, Q.24), for legs that agreed to no telephone-events: in windows of
//! 12.75 ms that overlap by half, the energy at the eight frequencies (Goertzel) is weighed against
//! each other and against all there is. A key is told once, at its end. Speech that hits a window
//! does not last: a key is one only after 32 ms.
//!
//! | what is asked of a window | |
//! |---|---|
//! | each tone alone | above −34 dBm0 |
//! | one against the other (twist) | within 10 dB |
//! | each against its three neighbours | 8 dB above |
//! | both against all | 70 % |

use super::keys::{COLUMNS_HZ, KEYS, ROWS_HZ};
use crate::rtp::telephone_event::Digit;
use std::f32::consts::TAU;

/// A window in samples at 8 kHz: a compromise between telling rows apart and being quick.
const WINDOW: usize = 102;
/// Windows on end that hold the same key: 32 ms.
const HITS: u32 = 4;
/// Windows on end without it that end a key.
const MISSES: u32 = 3;
/// Mean square of a tone of −34 dBm0.
const LEVEL: f32 = 95_000.0;
/// 10 dB and 8 dB.
const TWIST: f32 = 10.0;
const NEIGHBOURS: f32 = 6.31;
const PART_OF_ALL: f32 = 0.7;
/// Keys that may wait to be told.
const DIGITS_MAX: usize = 8;

/// Listens to one leg.
pub(super) struct KeyEar {
    hz: u32,
    /// Twice the cosine of each frequency's step, rows first.
    turns: [f32; 8],
    /// Two windows, half a window apart.
    banks: [Bank; 2],
    window: usize,
    candidate: Option<(char, u32)>,
    /// The key that is pressed, the windows that held it and those since that did not.
    pressed: Option<(char, u32, u32)>,
    digits: Vec<Digit>,
}

#[derive(Clone, Copy, Default)]
struct Bank {
    last: [f32; 8],
    before: [f32; 8],
    energy: f32,
    count: usize,
}

impl KeyEar {
    /// For audio of `hz`: 8,000, 16,000, 24,000 or 48,000.
    pub(super) fn new(hz: u32) -> KeyEar {
        let frequency =
            |index: usize| if index < 4 { ROWS_HZ[index] } else { COLUMNS_HZ[index - 4] };
        let turns = std::array::from_fn(|n| 2.0 * (TAU * frequency(n) / hz as f32).cos());
        let window = WINDOW * hz as usize / 8_000;
        let mut banks = [Bank::default(); 2];
        banks[1].count = window / 2;
        let digits = Vec::with_capacity(DIGITS_MAX);
        KeyEar { hz, turns, banks, window, candidate: None, pressed: None, digits }
    }

    /// The rate of the audio that it takes.
    pub(super) fn rate_hz(&self) -> u32 {
        self.hz
    }

    /// Takes audio of the leg.
    pub(super) fn hear(&mut self, pcm: &[i16]) {
        let mut rest = pcm;
        while !rest.is_empty() {
            let room = self.banks.iter().map(|bank| self.window - bank.count).min().unwrap_or(1);
            let (now, later) = rest.split_at(room.min(rest.len()));
            for index in 0..self.banks.len() {
                self.banks[index].take(now, &self.turns);
                if self.banks[index].count == self.window {
                    let found = self.banks[index].judge(&self.turns);
                    self.banks[index] = Bank::default();
                    self.on_window(found);
                }
            }
            rest = later;
        }
    }

    /// The next key that ended.
    pub(super) fn take(&mut self) -> Option<Digit> {
        (!self.digits.is_empty()).then(|| self.digits.remove(0))
    }

    fn on_window(&mut self, found: Option<char>) {
        let Some((key, hits, misses)) = &mut self.pressed else {
            let before = self.candidate.filter(|(key, _)| Some(*key) == found);
            self.candidate = found.map(|key| (key, before.map_or(1, |(_, hits)| hits + 1)));
            if let Some((key, hits)) = self.candidate.filter(|(_, hits)| *hits >= HITS) {
                self.pressed = Some((key, hits, 0));
            }
            return;
        };
        if found == Some(*key) {
            *hits += 1 + *misses;
            *misses = 0;
            return;
        }
        *misses += 1;
        self.candidate = match (found, self.candidate) {
            (Some(key), Some((known, hits))) if key == known => Some((key, hits + 1)),
            (found, _) => found.map(|key| (key, 1)),
        };
        if *misses >= MISSES {
            let samples = (*hits as usize + 1) * self.window / 2;
            let duration_ms = (samples * 1_000 / self.hz as usize) as u32;
            let digit = Digit { digit: *key, duration_ms };
            self.pressed = None;
            if self.digits.len() < DIGITS_MAX {
                self.digits.push(digit);
            }
        }
    }
}

impl Bank {
    fn take(&mut self, pcm: &[i16], turns: &[f32; 8]) {
        for sample in pcm {
            let sample = f32::from(*sample);
            self.energy += sample * sample;
            let states = self.last.iter_mut().zip(&mut self.before);
            for ((last, before), turn) in states.zip(turns) {
                let next = sample + turn * *last - *before;
                (*before, *last) = (*last, next);
            }
        }
        self.count += pcm.len();
    }

    /// The key that the window holds.
    fn judge(&self, turns: &[f32; 8]) -> Option<char> {
        let count = self.count as f32;
        let power: [f32; 8] = std::array::from_fn(|index| {
            let (last, before) = (self.last[index], self.before[index]);
            2.0 * (last * last + before * before - turns[index] * last * before) / (count * count)
        });
        let (rows, columns) = power.split_at(4);
        let (row, low) = loudest(rows)?;
        let (column, high) = loudest(columns)?;
        let twisted = high > low * TWIST || low > high * TWIST;
        let part = (low + high) / (self.energy / count).max(1.0);
        let clear = low >= LEVEL && high >= LEVEL && !twisted && part >= PART_OF_ALL;
        clear.then(|| KEYS[row][column])
    }
}

/// The place and power of one that stands out among its neighbours.
fn loudest(power: &[f32]) -> Option<(usize, f32)> {
    let (place, loud) = power.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let others = power.iter().enumerate().filter(|(other, _)| *other != place);
    let stands_out = others.into_iter().all(|(_, other)| *other * NEIGHBOURS <= loud);
    stands_out.then_some((place, loud))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::g711::Law;

    /// Both tones of a key at these levels in dBm0, off their frequencies by `off`.
    fn key(key: char, ms: usize, levels: (f32, f32), off: f32, hz: u32) -> Vec<i16> {
        let row = KEYS.iter().position(|keys| keys.contains(&key)).unwrap();
        let column = KEYS[row].iter().position(|known| *known == key).unwrap();
        let peak = |level: f32| 32_768.0 * 10f32.powf((level - 3.17) / 20.0);
        let wave = |hz_of: f32, n: usize| (TAU * hz_of * off * n as f32 / hz as f32).sin();
        (0..ms * hz as usize / 1_000)
            .map(|n| {
                let low = peak(levels.0) * wave(ROWS_HZ[row], n);
                (low + peak(levels.1) * wave(COLUMNS_HZ[column], n)) as i16
            })
            .collect()
    }

    fn silence(ms: usize, hz: u32) -> Vec<i16> {
        vec![0; ms * hz as usize / 1_000]
    }

    /// As a line of G.711 gives it, with noise of this peak.
    fn line(pcm: &[i16], noise: i16, law: Law) -> Vec<i16> {
        let mut seed = 1u32;
        let noisy: Vec<i16> = pcm
            .iter()
            .map(|sample| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                sample.saturating_add(
                    ((i32::from((seed >> 16) as i16) * i32::from(noise)) >> 15) as i16,
                )
            })
            .collect();
        let mut bytes = vec![0; noisy.len()];
        law.encode(&noisy, &mut bytes).unwrap();
        let mut out = vec![0; noisy.len()];
        law.decode(&bytes, &mut out).unwrap();
        out
    }

    /// Hears in pieces of odd lengths, and a moment of silence behind.
    fn heard(pcm: &[i16], hz: u32) -> Vec<Digit> {
        let mut ear = KeyEar::new(hz);
        let mut digits = Vec::new();
        for piece in [pcm, &silence(100, hz)].concat().chunks(37) {
            ear.hear(piece);
            digits.extend(std::iter::from_fn(|| ear.take()));
        }
        digits
    }

    fn keys_of(digits: &[Digit]) -> String {
        digits.iter().map(|digit| digit.digit).collect()
    }

    const ALL: &str = "0123456789*#ABCD";

    #[test]
    fn every_key_is_heard_once_at_many_levels_twists_lengths_and_noises() {
        for (ms, pause, levels, off, noise) in [
            (100, 100, (-9.0, -7.0), 1.0, 0),
            (40, 40, (-9.0, -7.0), 1.0, 0),
            (40, 40, (-9.0, -7.0), 1.0, 300),
            (50, 50, (-3.0, -3.0), 1.0, 1_000),
            (50, 50, (-28.0, -28.0), 1.0, 60),
            (60, 50, (-12.0, -5.0), 1.0, 300),
            (60, 50, (-7.0, -13.0), 1.0, 300),
            (60, 50, (-10.0, -10.0), 1.015, 200),
            (60, 50, (-10.0, -10.0), 0.985, 200),
            (400, 50, (-10.0, -10.0), 1.0, 500),
        ] {
            for law in [Law::Mu, Law::A] {
                let press = |one| [key(one, ms, levels, off, 8_000), silence(pause, 8_000)];
                let pcm: Vec<i16> = ALL.chars().flat_map(press).flatten().collect();
                let digits = heard(&line(&pcm, noise, law), 8_000);
                assert_eq!(keys_of(&digits), ALL, "{ms} ms {levels:?} {off} {noise} {law:?}");
                for digit in digits {
                    let apart = digit.duration_ms.abs_diff(ms as u32);
                    assert!(apart <= 24, "{digit:?} of {ms} ms {levels:?} {off} {noise} {law:?}");
                }
            }
        }
    }

    #[test]
    fn our_own_tones_are_heard_at_every_rate() {
        use super::super::keys::{Keypad, Press, Slot};
        for rate_hz in [8_000, 16_000, 24_000, 48_000] {
            let mut keypad = Keypad::default();
            let keys: Vec<char> = ALL.chars().collect();
            let length = std::time::Duration::from_millis(20);
            keypad.press(&keys, length * 4, length * 3);
            let slot = Slot { length, timestamp: 0, event_hz: None, rate_hz };
            let mut frame = silence(20, rate_hz);
            let mut pcm = Vec::new();
            while keypad.fill(slot, &mut frame) == Press::Audio {
                pcm.extend_from_slice(&frame);
            }
            assert_eq!(keys_of(&heard(&pcm, rate_hz)), ALL, "{rate_hz}");
            assert_eq!((keypad.take_done(), keypad.is_idle()), (1, true));
        }
    }

    #[test]
    fn what_is_too_short_too_faint_too_twisted_or_off_is_no_key() {
        for (what, pcm) in [
            ("22 ms", key('5', 22, (-9.0, -7.0), 1.0, 8_000)),
            ("faint", key('5', 200, (-40.0, -40.0), 1.0, 8_000)),
            ("twisted", key('5', 200, (-24.0, -10.0), 1.0, 8_000)),
            ("the other way", key('5', 200, (-10.0, -24.0), 1.0, 8_000)),
            ("off", key('5', 200, (-10.0, -10.0), 1.04, 8_000)),
            ("a row alone", key('5', 200, (-10.0, -70.0), 1.0, 8_000)),
            ("a column alone", key('5', 200, (-70.0, -10.0), 1.0, 8_000)),
        ] {
            assert_eq!(heard(&pcm, 8_000), [], "{what}");
        }
    }

    #[test]
    fn a_dropout_does_not_make_two_of_one() {
        let mut pcm = key('9', 200, (-9.0, -7.0), 1.0, 8_000);
        pcm[800..880].fill(0);
        assert_eq!(keys_of(&heard(&pcm, 8_000)), "9");
        let two = [key('9', 60, (-9.0, -7.0), 1.0, 8_000), silence(40, 8_000)].concat().repeat(2);
        assert_eq!(keys_of(&heard(&two, 8_000)), "99");
        let along =
            [key('1', 80, (-9.0, -7.0), 1.0, 8_000), key('2', 80, (-9.0, -7.0), 1.0, 8_000)];
        assert_eq!(keys_of(&heard(&along.concat(), 8_000)), "12");
    }

    #[test]
    fn speech_and_tones_of_the_network_press_no_key() {
        let sentence = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
        let wide: Vec<i16> =
            sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(heard(&wide, 16_000), []);
        // The same voice at other pitches: read at other speeds.
        for step in 8..40 {
            let faster: Vec<i16> = (0..).map_while(|n| wide.get(n * step / 10).copied()).collect();
            assert_eq!(heard(&faster, 8_000), [], "{step}");
        }
        let music = crate::media::sound::hold_music();
        assert_eq!(heard(&music.pcm, music.hz), []);
        for pair in [(440.0, 480.0), (480.0, 620.0), (350.0, 440.0), (1_400.0, 2_060.0)] {
            let wave = |hz: f32, n: usize| (TAU * hz * n as f32 / 8_000.0).sin();
            let pcm: Vec<i16> = (0..8_000)
                .map(|n| (6_000.0 * (wave(pair.0, n) + wave(pair.1, n))) as i16)
                .collect();
            assert_eq!(heard(&pcm, 8_000), [], "{pair:?}");
        }
    }
}
