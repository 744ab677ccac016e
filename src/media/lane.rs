//! One speaker on its way to one listener of another clock: a short ring of PCM between the packets
//! of a leg and the frames of whoever hears it. It begins to play a little after the first audio came,
//! learns from each time that it ran empty, and forgets what it learned too much. It never adds a
//! step to what it carries: it begins, ends and skips over a few milliseconds.
//!
//! ```text
//! Waiting ─first audio─▶ Due(at + margin) ─pull─▶ Playing ─ran empty─▶ Waiting, margin + 10 ms
//! ```

use super::clock::samples_in;
use super::plan::Port;
use crate::codec::CodecFault;
use crate::codec::resample::{GROWTH_MAX, Resampler};
use crate::ground::{Instant, LegId};
use std::time::Duration;

/// Over how long a source begins, ends, or goes over into another place of itself.
pub(super) const FADE_MS: u32 = 5;
/// Samples of a fade at 48 kHz.
pub(super) const FADE_SAMPLES_MAX: usize = 240;
/// Audio plays so long after it came, at first.
const MARGIN_MS: u32 = 10;
/// What is learned from running empty, and how far.
const MARGIN_STEP_MS: u32 = 10;
const MARGIN_MS_MAX: u32 = 60;
/// Audio that a lane holds at most.
const HELD_MS: u32 = 240;
/// What a lane begins with may be older than its margin by the longest packet.
const BEHIND_MS: u32 = 60;
/// A lane that nobody pulled for so long begins anew.
const STALE: Duration = Duration::from_millis(100);
/// Audio that comes this soon after the lane ran empty means that it ran empty too early.
const UNDERRUN: Duration = Duration::from_millis(100);
/// Over how long the lane looks whether it holds more than it needs.
const WATCHED_MS: u32 = 1_000;
/// Pieces of audio whose peaks are known: of 20 ms each, more than a lane holds in peace.
const PEAKS: usize = 8;
/// Samples that are resampled together.
const PIECE_SAMPLES: usize = 160;

/// Carries one speaker to one listener, at the listener's rate.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) speaker: LegId,
    pub(super) listener: Port,
    from_hz: u32,
    to_hz: u32,
    resampler: Option<Resampler>,
    /// What waits is `start..end` of it; there is as much room again behind, so that little is moved.
    samples: Box<[i16]>,
    start: usize,
    end: usize,
    margin_ms: u32,
    state: State,
    pulled: Option<Instant>,
    /// When the lane ran empty last.
    emptied: Option<Instant>,
    /// Samples until the beginning is at its full level.
    rising: usize,
    /// What was played last, and the samples over which it sinks to nothing.
    last: i16,
    sinking: usize,
    /// The least that was left after a pull, and the samples pulled since that is watched.
    least: usize,
    watched: usize,
    /// Peaks of what came lately.
    peaks: [u16; PEAKS],
    peak: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing came yet.
    Waiting,
    /// Audio came; it plays from then on.
    Due(Instant),
    Playing,
}

impl Lane {
    /// An empty lane between these rates.
    ///
    /// # Errors
    /// One of the rates is none that is resampled.
    pub(super) fn new(
        (speaker, from_hz): (LegId, u32),
        (listener, to_hz): (Port, u32),
    ) -> Result<Lane, CodecFault> {
        let resampler = match from_hz == to_hz {
            true => None,
            false => Some(Resampler::continuous(from_hz, to_hz)?),
        };
        Ok(Lane {
            speaker,
            listener,
            from_hz,
            to_hz,
            resampler,
            samples: vec![0; 2 * samples_in(HELD_MS, to_hz)].into_boxed_slice(),
            start: 0,
            end: 0,
            margin_ms: MARGIN_MS,
            state: State::Waiting,
            pulled: None,
            emptied: None,
            rising: 0,
            last: 0,
            sinking: 0,
            least: usize::MAX,
            watched: 0,
            peaks: [u16::MAX; PEAKS],
            peak: 0,
        })
    }

    /// Whether the lane serves between these rates.
    pub(super) fn fits(&self, from_hz: u32, to_hz: u32) -> bool {
        (self.from_hz, self.to_hz) == (from_hz, to_hz)
    }

    /// Whether the lane leads from one leg to the other.
    pub(super) fn is_between(&self, speaker: LegId, listener: LegId) -> bool {
        (self.speaker, self.listener) == (speaker, Port::Leg(listener))
    }

    /// Takes audio of the speaker.
    pub(super) fn push(&mut self, now: Instant, pcm: &[i16]) {
        self.peaks[self.peak] = pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        self.peak = (self.peak + 1) % PEAKS;
        if self.state == State::Waiting {
            if self.emptied.take().is_some_and(|at| now.since(at) <= UNDERRUN) {
                self.margin_ms = (self.margin_ms + MARGIN_STEP_MS).min(MARGIN_MS_MAX);
            }
            self.state = State::Due(now + Duration::from_millis(u64::from(self.margin_ms)));
        }
        let Some(mut resampler) = self.resampler.take() else { return self.store(pcm) };
        for piece in pcm.chunks(PIECE_SAMPLES) {
            let mut out = [0; PIECE_SAMPLES * GROWTH_MAX];
            // Never refused: there is room for the greatest ratio.
            let count = resampler.resample(piece, &mut out).unwrap_or(0);
            self.store(&out[..count]);
        }
        self.resampler = Some(resampler);
    }

    /// Adds what is due to `frame`; true when something of the speaker was added.
    pub(super) fn mix(&mut self, now: Instant, frame: &mut [i16]) -> bool {
        if self.pulled.is_some_and(|at| now.since(at) > STALE) {
            self.forget();
        }
        self.pulled = Some(now);
        let start = match self.state {
            State::Waiting => frame.len(),
            State::Playing => 0,
            State::Due(at) => self.samples(at.since(now)).min(frame.len()),
        };
        let sunk = self.sink(frame);
        if start == frame.len() {
            return sunk;
        }
        if self.state != State::Playing {
            self.begin(frame.len());
        }
        self.play(now, &mut frame[start..]);
        true
    }

    /// The peak of what came lately, which is more than what waits.
    pub(super) fn peak_lately(&self) -> u16 {
        self.peaks.into_iter().max().unwrap_or(0)
    }

    /// The end of the lane: writes the next milliseconds, sinking to nothing, to the front of `tail`;
    /// gives how many samples.
    pub(super) fn finish(&mut self, tail: &mut [i16]) -> usize {
        let fade = self.fade().min(tail.len());
        let tail = &mut tail[..fade];
        tail.fill(0);
        self.sink(tail);
        if self.state != State::Playing {
            return fade;
        }
        let rest = &self.samples[self.start..self.end];
        for (index, sample) in tail.iter_mut().enumerate() {
            let next = if rest.len() < fade { self.last } else { rest[index] };
            *sample = sample.saturating_add(scaled(next, fade - index - 1, fade));
        }
        fade
    }

    /// What came long before anybody listened is not played.
    fn begin(&mut self, frame: usize) {
        let most = frame + samples_in(self.margin_ms + BEHIND_MS, self.to_hz);
        self.start += self.len().saturating_sub(most);
        self.state = State::Playing;
        self.rising = self.fade();
        (self.least, self.watched) = (usize::MAX, 0);
    }

    fn play(&mut self, now: Instant, out: &mut [i16]) {
        let count = out.len().min(self.len());
        let fade = self.fade();
        let (played, rest) = out.split_at_mut(count);
        let fresh = &self.samples[self.start..self.start + count];
        let rising = self.rising.min(count);
        for (index, (place, sample)) in played.iter_mut().zip(&fresh[..rising]).enumerate() {
            let part = fade - self.rising + index;
            *place = place.saturating_add(scaled(*sample, part, fade));
        }
        for (place, sample) in played[rising..].iter_mut().zip(&fresh[rising..]) {
            *place = place.saturating_add(*sample);
        }
        self.rising -= rising;
        self.last = fresh.last().copied().unwrap_or(self.last);
        self.start += count;
        if !rest.is_empty() {
            self.state = State::Waiting;
            self.emptied = Some(now);
            self.sinking = fade;
            self.sink(rest);
            return;
        }
        self.least = self.least.min(self.len());
        self.watched += count;
        if self.watched >= samples_in(WATCHED_MS, self.to_hz) {
            self.skip_surplus();
        }
    }

    /// More waits than the margin asks for, and always did: what is too much is skipped.
    fn skip_surplus(&mut self) {
        let needed = samples_in(self.margin_ms + MARGIN_STEP_MS, self.to_hz);
        let surplus = self.least.saturating_sub(needed);
        (self.least, self.watched) = (usize::MAX, 0);
        let fade = self.fade();
        if surplus < fade || surplus + fade > self.len() {
            return;
        }
        let waiting = &mut self.samples[self.start..self.end];
        for index in 0..fade {
            let fresh = scaled(waiting[surplus + index], index + 1, fade + 1);
            let old = scaled(waiting[index], fade - index, fade + 1);
            waiting[surplus + index] = fresh.saturating_add(old);
        }
        self.start += surplus;
    }

    /// What was cut off sinks from its last sample to nothing. True when there was something.
    fn sink(&mut self, out: &mut [i16]) -> bool {
        let fade = self.fade();
        let any = self.sinking > 0;
        for place in out.iter_mut().take(self.sinking) {
            self.sinking -= 1;
            *place = place.saturating_add(scaled(self.last, self.sinking, fade));
        }
        any
    }

    /// Appends samples of the listener's rate; the oldest go when too many wait.
    fn store(&mut self, pcm: &[i16]) {
        let most = self.samples.len() / 2;
        let pcm = &pcm[pcm.len().saturating_sub(most)..];
        self.start += (self.len() + pcm.len()).saturating_sub(most);
        if self.end + pcm.len() > self.samples.len() {
            self.samples.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.samples[self.end..self.end + pcm.len()].copy_from_slice(pcm);
        self.end += pcm.len();
    }

    /// What waits is not played any more; the next audio begins anew.
    pub(super) fn forget(&mut self) {
        (self.start, self.end, self.sinking) = (0, 0, 0);
        (self.state, self.emptied) = (State::Waiting, None);
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn fade(&self) -> usize {
        samples_in(FADE_MS, self.to_hz)
    }

    fn samples(&self, span: Duration) -> usize {
        let samples = span.as_nanos() * u128::from(self.to_hz) / 1_000_000_000;
        usize::try_from(samples).unwrap_or(usize::MAX)
    }
}

/// `part` of `whole` of a sample.
pub(super) fn scaled(sample: i16, part: usize, whole: usize) -> i16 {
    (i32::from(sample) * part as i32 / whole.max(1) as i32) as i16
}
