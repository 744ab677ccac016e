//! What the demo's phone hears: each packet's audio where its timestamp puts it on the timeline of what
//! the phone itself speaks, and the count of those that never came.

use crate::ground::Instant;

/// What the phone hears, on the timeline of its own speech.
pub(super) struct Heard {
    spoken_from: Instant,
    sample_rate: u32,
    rtp_clock_hz: u32,
    anchor: Option<(usize, u32, u16)>,
    last_sequence: u16,
    pub(super) samples: Vec<i16>,
    pub(super) packets: u64,
    pub(super) lost: u64,
    pub(super) first_sound: Option<Instant>,
}

/// A sample above this is taken for sound (about −50 dBFS).
const AUDIBLE: u16 = 100;
/// Longest recording, in seconds: later packets are counted only.
const HEARD_SECONDS_MAX: usize = 600;

impl Heard {
    pub(super) fn new(spoken_from: Instant, sample_rate: u32, rtp_clock_hz: u32) -> Heard {
        Heard {
            spoken_from,
            sample_rate,
            rtp_clock_hz,
            anchor: None,
            last_sequence: 0,
            samples: Vec::new(),
            packets: 0,
            lost: 0,
            first_sound: None,
        }
    }

    pub(super) fn place(&mut self, now: Instant, sequence: u16, timestamp: u32, pcm: &[i16]) {
        self.packets += 1;
        let rate = u64::from(self.sample_rate);
        let (index, first, _) = *self.anchor.get_or_insert_with(|| {
            let late = now.since(self.spoken_from).as_micros() as u64;
            self.last_sequence = sequence.wrapping_sub(1);
            ((late * rate / 1_000_000) as usize, timestamp, sequence)
        });
        let step = sequence.wrapping_sub(self.last_sequence);
        if step > 0 && step < 1_000 {
            self.lost += u64::from(step - 1);
            self.last_sequence = sequence;
        }
        let ticks = timestamp.wrapping_sub(first) as i32;
        let offset = i64::from(ticks) * i64::from(self.sample_rate) / i64::from(self.rtp_clock_hz);
        let Ok(at) = usize::try_from(index as i64 + offset) else { return };
        if at + pcm.len() > HEARD_SECONDS_MAX * self.sample_rate as usize {
            return;
        }
        if self.samples.len() < at + pcm.len() {
            self.samples.resize(at + pcm.len(), 0);
        }
        self.samples[at..at + pcm.len()].copy_from_slice(pcm);
        if self.first_sound.is_none() && pcm.iter().any(|s| s.unsigned_abs() > AUDIBLE) {
            self.first_sound = Some(now);
        }
    }
}
