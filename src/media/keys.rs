//! Keys that we press towards a leg, one after the other: telephone-events (RFC 4733 §2.5) where the
//! leg agreed to them, else the two tones of each key in the audio (ITU-T Q.23). It says what each
//! frame of the leg holds while keys are pressed; when frames leave is the pacer's matter.
//!
//! ```text
//! event   | first, marker | update … | end | end | end | gap        one packet for each frame
//! tones   | rising | tone …          | sinking | gap
//! ```

use super::clock::samples_in;
use crate::ground::limits::KEYS_WAITING_MAX;
use crate::rtp::telephone_event::{EventPacket, Sending, code};
use std::collections::VecDeque;
use std::f32::consts::TAU;
use std::time::Duration;

/// The tones of the rows and columns of the keypad, in hertz (ITU-T Q.23).
pub(super) const ROWS_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
pub(super) const COLUMNS_HZ: [f32; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
/// The keys by row and column.
pub(super) const KEYS: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// Peaks of the tones: −9 and −7 dBm0, the higher one louder as lines damp it more.
const ROW_PEAK: f32 = 8_000.0;
const COLUMN_PEAK: f32 = 10_000.0;
/// Over how long a tone rises and sinks.
const RAMP_MS: u32 = 5;
/// What receivers are sure to hear and to tell apart (ITU-T Q.24), and the longest that is pressed.
const TONE_MIN: Duration = Duration::from_millis(40);
const TONE_MAX: Duration = Duration::from_secs(10);
const GAP_MIN: Duration = Duration::from_millis(40);

/// The leg's frame that is to be filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) length: Duration,
    pub(super) timestamp: u32,
    /// Clock of the leg's telephone-events, where they were agreed.
    pub(super) event_hz: Option<u32>,
    pub(super) rate_hz: u32,
}

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Press {
    Event(EventPacket),
    /// The audio that was written: a tone, or silence between two.
    Audio,
    /// No key is pressed any more.
    Nothing,
}

/// The keys that are to be pressed.
#[derive(Default)]
pub(super) struct Keypad {
    orders: VecDeque<Order>,
    stage: Stage,
    /// Orders that were done and are to be told.
    done: u32,
}

struct Order {
    keys: VecDeque<char>,
    tone: Duration,
    gap: Duration,
}

#[derive(Default)]
enum Stage {
    #[default]
    Next,
    Event {
        sending: Sending,
        gap: Duration,
    },
    Tone {
        hz: [f32; 2],
        /// Samples written, and samples in all.
        at: usize,
        length: usize,
        gap: Duration,
    },
    Gap(Duration),
}

impl Keypad {
    /// Presses these after what waits. What is no key is left out, and what goes beyond the bound.
    pub(super) fn press(&mut self, keys: &[char], tone: Duration, gap: Duration) {
        let waiting: usize = self.orders.iter().map(|order| order.keys.len()).sum();
        let room = KEYS_WAITING_MAX.saturating_sub(waiting);
        let known = keys.iter().copied().filter(|key| code(*key).is_some());
        let (tone, gap) = (tone.clamp(TONE_MIN, TONE_MAX), gap.clamp(GAP_MIN, TONE_MAX));
        self.orders.push_back(Order { keys: known.take(room).collect(), tone, gap });
    }

    /// Orders that were done since the last question.
    pub(super) fn take_done(&mut self) -> u32 {
        std::mem::take(&mut self.done)
    }

    /// Nothing is pressed and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.orders.is_empty() && matches!(self.stage, Stage::Next)
    }

    /// What the next frame holds; its audio is written to `pcm`.
    pub(super) fn fill(&mut self, slot: Slot, pcm: &mut [i16]) -> Press {
        loop {
            match &mut self.stage {
                Stage::Next => {
                    let Some(order) = self.orders.front_mut() else { return Press::Nothing };
                    match order.keys.pop_front() {
                        Some(key) => self.stage = begin(key, order.tone, order.gap, slot),
                        None => {
                            self.orders.pop_front();
                            self.done += 1;
                        }
                    }
                }
                // Telephone-events are agreed no more: the key ends here.
                Stage::Event { gap, .. } if slot.event_hz.is_none() => {
                    self.stage = Stage::Gap(*gap);
                }
                Stage::Event { sending, gap } => match sending.next() {
                    Some(packet) => return Press::Event(packet),
                    // The ends that were repeated are part of the gap.
                    None => self.stage = Stage::Gap(gap.saturating_sub(slot.length * 2)),
                },
                Stage::Tone { hz, at, length, gap } => {
                    write_tones(*hz, slot.rate_hz, *at, *length, pcm);
                    *at += pcm.len();
                    if *at >= *length {
                        let quiet = Duration::from_secs((*at - *length) as u64) / slot.rate_hz;
                        self.stage = Stage::Gap(gap.saturating_sub(quiet));
                    }
                    return Press::Audio;
                }
                Stage::Gap(left) if left.is_zero() => self.stage = Stage::Next,
                Stage::Gap(left) => {
                    *left = left.saturating_sub(slot.length);
                    pcm.fill(0);
                    return Press::Audio;
                }
            }
        }
    }
}

fn begin(key: char, tone: Duration, gap: Duration, slot: Slot) -> Stage {
    let units = |span: Duration, hz: u32| (span.as_millis() as u64 * u64::from(hz) / 1_000) as u32;
    if let Some(hz) = slot.event_hz {
        let sending = Sending::new(key, slot.timestamp, units(tone, hz), units(slot.length, hz));
        return sending.map_or(Stage::Next, |sending| Stage::Event { sending, gap });
    }
    let length = units(tone, slot.rate_hz) as usize;
    tones_of(key).map_or(Stage::Next, |hz| Stage::Tone { hz, at: 0, length, gap })
}

/// The two tones of a key.
fn tones_of(key: char) -> Option<[f32; 2]> {
    let key = key.to_ascii_uppercase();
    let row = KEYS.iter().position(|keys| keys.contains(&key))?;
    let column = KEYS[row].iter().position(|known| *known == key)?;
    Some([ROWS_HZ[row], COLUMNS_HZ[column]])
}

/// The samples from `at` on of tones that are `length` long; silence behind them.
fn write_tones(hz: [f32; 2], rate_hz: u32, at: usize, length: usize, pcm: &mut [i16]) {
    let ramp = samples_in(RAMP_MS, rate_hz);
    // Phases are taken within a second, so that they stay exact: all tones are whole hertz.
    let wave =
        |hz: f32, n: usize| (TAU * hz * (n % rate_hz as usize) as f32 / rate_hz as f32).sin();
    for (index, sample) in pcm.iter_mut().enumerate() {
        let n = at + index;
        if n >= length {
            *sample = 0;
            continue;
        }
        let level = (n + 1).min(length - n).min(ramp) as f32 / ramp as f32;
        let value = ROW_PEAK * wave(hz[0], n) + COLUMN_PEAK * wave(hz[1], n);
        *sample = (level * value) as i16;
    }
}
