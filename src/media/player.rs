//! A sound of our own on its way to one listener: brought to the listener's rate as it plays, begun
//! and ended without a click, and repeated if it is a sound that repeats. It counts samples, not
//! time.

use super::clock::samples_in;
use super::lane::{FADE_MS, scaled};
use super::plan::Sound;
use crate::codec::CodecFault;
use crate::codec::resample::{RATES_HZ, Resampler};
use crate::ground::LegId;
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds that are taken from the sound together: a whole number of samples at every rate.
const PIECE_MS: u32 = 5;
/// Samples of a piece at 48 kHz.
const PIECE_SAMPLES_MAX: usize = 240;

/// Plays one sound to one leg.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) listener: LegId,
    sound: Arc<Sound>,
    to_hz: u32,
    resampler: Option<Resampler>,
    position: usize,
    /// Samples of the piece that was begun, at the listener's rate, and how many of them were played.
    piece: [i16; PIECE_SAMPLES_MAX],
    played: usize,
    filled: usize,
}

impl Player {
    /// From `position` samples into the sound.
    ///
    /// # Errors
    /// One of the rates is none that is resampled.
    pub(super) fn new(
        sound: Arc<Sound>,
        position: usize,
        (listener, to_hz): (LegId, u32),
    ) -> Result<Player, CodecFault> {
        if !RATES_HZ.contains(&sound.hz) {
            return Err(CodecFault::UnknownRate { hz: sound.hz });
        }
        let resampler = match sound.hz == to_hz {
            true => None,
            false => Some(Resampler::continuous(sound.hz, to_hz)?),
        };
        let piece = [0; PIECE_SAMPLES_MAX];
        Ok(Player { listener, sound, to_hz, resampler, position, piece, played: 0, filled: 0 })
    }

    pub(super) fn rate_hz(&self) -> u32 {
        self.to_hz
    }

    /// How far the sound was played.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Adds the sound to `frame`; false when it is over.
    pub(super) fn mix(&mut self, frame: &mut [i16]) -> bool {
        let mut rest = frame;
        let mut any = false;
        while !rest.is_empty() {
            if self.played == self.filled {
                any |= self.fill();
            } else {
                any = true;
            }
            let count = rest.len().min(self.filled - self.played);
            let (now, later) = rest.split_at_mut(count);
            for (place, sample) in now.iter_mut().zip(&self.piece[self.played..]) {
                *place = place.saturating_add(*sample);
            }
            self.played += count;
            rest = later;
        }
        any
    }

    /// Writes the next milliseconds, sinking to nothing, to the front of `tail`; gives how many
    /// samples.
    pub(super) fn finish(&mut self, tail: &mut [i16]) -> usize {
        let fade = samples_in(FADE_MS, self.to_hz).min(tail.len());
        let tail = &mut tail[..fade];
        tail.fill(0);
        self.mix(tail);
        for (index, sample) in tail.iter_mut().enumerate() {
            *sample = scaled(*sample, fade - index - 1, fade);
        }
        fade
    }

    /// Takes the next piece of the sound; false when it holds nothing of it any more.
    fn fill(&mut self) -> bool {
        let mut taken = [0; PIECE_SAMPLES_MAX];
        let taken = &mut taken[..samples_in(PIECE_MS, self.sound.hz).min(PIECE_SAMPLES_MAX)];
        let any = self.take(taken);
        self.played = 0;
        self.filled = match &mut self.resampler {
            // A stream without end gives as much time as it takes.
            Some(resampler) => resampler.resample(taken, &mut self.piece).unwrap_or(0),
            None => {
                self.piece[..taken.len()].copy_from_slice(taken);
                taken.len()
            }
        };
        if self.filled == 0 {
            self.piece.fill(0);
            self.filled = samples_in(PIECE_MS, self.to_hz).clamp(1, PIECE_SAMPLES_MAX);
        }
        any
    }

    fn take(&mut self, out: &mut [i16]) -> bool {
        let length = self.sound.pcm.len();
        let fade = samples_in(FADE_MS, self.sound.hz);
        let begun = self.position < length;
        for place in out {
            if self.position >= length {
                if !self.sound.repeats || length == 0 {
                    return begun;
                }
                self.position = 0;
            }
            let edge = self.position.min(length - 1 - self.position).min(fade);
            *place = scaled(self.sound.pcm[self.position], edge, fade);
            self.position += 1;
        }
        true
    }
}

/// How long a sound plays once.
pub(super) fn length(sound: &Sound) -> Duration {
    Duration::from_secs(sound.pcm.len() as u64) / sound.hz.max(1)
}
