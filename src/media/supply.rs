//! Agent audio on its way to the encoder: resampled to the codec's rate when the agent's stream has
//! another, and queued in the codec's form. G.711 is kept encoded, all else as samples. It knows no
//! time: when a frame leaves is the pacer's matter.
//!
//! Counts are in [`Ticks`], so that they add up across rates and changes of codec.

use super::clock::{Ticks, samples_in};
use super::lane::{FADE_MS, scaled};
use super::plan::playout_bytes_in_second;
use super::playout::PlayoutQueue;
use super::stretch::Stretch;
use crate::codec::g711::Law;
use crate::codec::resample::{GROWTH_MAX, Resampler};
use crate::codec::{CodecFault, CodecKind};
use crate::ground::limits::PLAYOUT_BYTES_MAX;
use std::time::Duration;

/// Samples that are brought into the queue's form together.
const PIECE_SAMPLES: usize = 160;
/// Room for what waits from the start: a quarter of a second of G.711, 128 ms of samples at 16 kHz.
const FIRST_BYTES_ENCODED: usize = 2 * 1024;
const FIRST_BYTES: usize = 4 * 1024;
/// Samples that one piece can become.
const GROWN_SAMPLES: usize = PIECE_SAMPLES * GROWTH_MAX;

/// What is looked at when the queue is made shorter or longer, and by how much at most.
const STRETCHED_MS: u32 = 30;
const CHANGE_MS_MAX: u32 = 15;
/// Samples of both at 48 kHz.
const STRETCHED_SAMPLES: usize = 48 * (STRETCHED_MS + CHANGE_MS_MAX) as usize;

/// What became of agent audio that was pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Taken {
    pub(super) received: Ticks,
    /// The queue was full.
    pub(super) dropped: Ticks,
}

/// The agent's audio that waits, in the form of one codec.
pub(super) struct Supply {
    queue: PlayoutQueue,
    kind: CodecKind,
    /// Rate of the agent's stream.
    agent_hz: u32,
    /// Rate of what is queued: the codec's.
    rate_hz: u32,
    resampler: Option<Resampler>,
    /// First byte of a sample whose second byte has not come yet.
    odd: Option<u8>,
    /// For a stream that is paced by another clock.
    stretch: Stretch,
    /// Samples of the codec's rate until a word that was cut into is at its full level.
    rising: usize,
}

/// A supply in another form, ready to take over what waits.
pub(super) struct Successor {
    supply: Supply,
    /// From the old rate to the new one.
    bridge: Option<Resampler>,
}

impl Successor {
    /// Samples a second of the new form.
    pub(super) fn rate_hz(&self) -> u32 {
        self.supply.rate_hz
    }
}

impl Supply {
    /// # Errors
    /// The agent's rate is none that we know.
    pub(super) fn new(kind: CodecKind, agent_hz: u32) -> Result<Supply, CodecFault> {
        Supply::with_limit(kind, agent_hz, PLAYOUT_BYTES_MAX)
    }

    fn with_limit(kind: CodecKind, agent_hz: u32, limit: usize) -> Result<Supply, CodecFault> {
        let rate_hz = kind.pcm_rate(agent_hz);
        let resampler = match rate_hz == agent_hz {
            true => None,
            false => Some(Resampler::of_spurts(agent_hz, rate_hz)?),
        };
        let first = if law(kind).is_some() { FIRST_BYTES_ENCODED } else { FIRST_BYTES };
        let queue = PlayoutQueue::new(limit, first);
        let stretch = Stretch::new(rate_hz);
        Ok(Supply { queue, kind, agent_hz, rate_hz, resampler, odd: None, stretch, rising: 0 })
    }

    /// Samples a second of what is queued.
    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Takes agent audio: 16-bit little-endian samples, cut anywhere.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let mut rest = bytes;
        if let (Some(low), Some((high, after))) = (self.odd, rest.split_first()) {
            self.odd = None;
            self.push_piece(&[i16::from_le_bytes([low, *high])], &mut taken);
            rest = after;
        }
        let (whole, tail) = rest.split_at(rest.len() & !1);
        if let [low] = tail {
            self.odd = Some(*low);
        }
        if self.resampler.is_none() && law(self.kind).is_none() && self.rising == 0 {
            let dropped = (whole.len() - self.queue.push(whole, 2)) / 2;
            taken.received += Ticks::of(whole.len() / 2, self.agent_hz);
            taken.dropped += Ticks::of(dropped, self.agent_hz);
            return taken;
        }
        for piece in whole.chunks(PIECE_SAMPLES * 2) {
            let mut pcm = [0; PIECE_SAMPLES];
            let samples = read_samples(piece, &mut pcm);
            self.push_piece(&pcm[..samples], &mut taken);
        }
        taken
    }

    /// Nothing waits, in the queue or in the filter.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.resampler.as_ref().is_some_and(Resampler::holds)
    }

    /// Samples that can be popped.
    pub(super) fn len(&self) -> usize {
        self.queue.len() / self.unit()
    }

    /// What the filter keeps back of a spurt until it ends.
    pub(super) fn held_back(&self) -> Duration {
        let samples = self.resampler.as_ref().map_or(0, Resampler::held_len);
        Duration::from_secs(samples as u64) / self.rate_hz
    }

    /// No more audio is there in time: what the filter kept back comes into the queue.
    pub(super) fn finish_spurt(&mut self) {
        let Some(resampler) = &mut self.resampler else { return };
        let mut pcm = [0; Resampler::FINISH_MAX];
        let count = resampler.finish(&mut pcm);
        // A queue that is full has no end of a spurt to wait for.
        self.store(&pcm[..count]);
    }

    /// Takes samples of G.711 to the front of `out`; gives how many.
    pub(super) fn pop_encoded(&mut self, out: &mut [u8]) -> usize {
        self.queue.pop(out)
    }

    /// Takes linear samples to the front of `out`; gives how many.
    pub(super) fn pop(&mut self, out: &mut [i16]) -> usize {
        let mut taken = 0;
        for piece in out.chunks_mut(PIECE_SAMPLES) {
            let mut bytes = [0; PIECE_SAMPLES * 2];
            let count = self.queue.pop(&mut bytes[..piece.len() * self.unit()]) / self.unit();
            taken += match law(self.kind) {
                // Fails for nothing but an empty piece.
                Some(law) => law.decode(&bytes[..count], piece).unwrap_or(0),
                None => read_samples(&bytes[..count * 2], piece),
            };
        }
        taken
    }

    /// Takes up to `most` samples out of what waits next, where it is not heard; gives how many.
    pub(super) fn shorten(&mut self, most: usize) -> usize {
        let mut pcm = [0; STRETCHED_SAMPLES];
        let count = self.peek(&mut pcm);
        let most = most.min(samples_in(CHANGE_MS_MAX, self.rate_hz));
        let changed = self.stretch.shorten(&mut pcm[..count], most);
        if changed == 0 || !self.replace(count, &pcm[..count - changed]) {
            return 0;
        }
        changed
    }

    /// Makes what waits next longer by some milliseconds, where it is not heard; gives by how many
    /// samples.
    pub(super) fn lengthen(&mut self) -> usize {
        let mut pcm = [0; STRETCHED_SAMPLES];
        let count = self.peek(&mut pcm);
        let most = samples_in(CHANGE_MS_MAX, self.rate_hz);
        let changed = self.stretch.lengthen(&mut pcm, count, most);
        if changed == 0 || !self.replace(count, &pcm[..count + changed]) {
            return 0;
        }
        changed
    }

    /// What waits next, as linear samples at the front of `pcm`; gives how many.
    fn peek(&self, pcm: &mut [i16; STRETCHED_SAMPLES]) -> usize {
        let unit = self.unit();
        let mut bytes = [0; 2 * STRETCHED_SAMPLES];
        let wanted = samples_in(STRETCHED_MS, self.rate_hz).min(STRETCHED_SAMPLES) * unit;
        let count = self.queue.peek(&mut bytes[..wanted]);
        match law(self.kind) {
            Some(law) => law.decode(&bytes[..count], pcm).unwrap_or(0),
            None => read_samples(&bytes[..count], pcm),
        }
    }

    /// Puts `pcm` in the place of the first `count` samples; false where there is no room.
    fn replace(&mut self, count: usize, pcm: &[i16]) -> bool {
        let mut bytes = [0; 2 * STRETCHED_SAMPLES];
        let len = self.write_samples(pcm, &mut bytes);
        self.queue.replace_front(count * self.unit(), &bytes[..len])
    }

    /// `pcm` in the queue's form at the front of `bytes`; gives its length.
    fn write_samples(&self, pcm: &[i16], bytes: &mut [u8]) -> usize {
        match law(self.kind) {
            Some(law) => law.encode(pcm, bytes).unwrap_or(0),
            None => {
                for (pair, sample) in bytes.chunks_exact_mut(2).zip(pcm) {
                    pair.copy_from_slice(&sample.to_le_bytes());
                }
                pcm.len() * 2
            }
        }
    }

    /// The next audio may begin within a word: it rises from nothing.
    pub(super) fn rise(&mut self) {
        self.rising = samples_in(FADE_MS, self.rate_hz);
    }

    /// Takes samples that sink to nothing to the front of `out`; gives how many.
    pub(super) fn pop_sinking(&mut self, out: &mut [i16]) -> usize {
        let taken = self.pop(out);
        for (index, sample) in out[..taken].iter_mut().enumerate() {
            *sample = scaled(*sample, taken - index - 1, taken);
        }
        taken
    }

    /// Drops up to `samples` unplayed.
    pub(super) fn skip(&mut self, samples: usize) -> Ticks {
        Ticks::of(self.queue.skip(samples * self.unit()) / self.unit(), self.rate_hz)
    }

    /// Forgets all that waits.
    pub(super) fn clear(&mut self) -> Ticks {
        let mut samples = self.queue.clear() / self.unit();
        self.odd = None;
        if let Some(resampler) = &mut self.resampler {
            samples += resampler.held_len();
            resampler.reset();
        }
        Ticks::of(samples, self.rate_hz)
    }

    /// The supply that another codec needs; `None` when this one serves.
    pub(super) fn prepare(&self, kind: CodecKind) -> Result<Option<Successor>, CodecFault> {
        if kind == self.kind {
            return Ok(None);
        }
        let supply = Supply::with_limit(kind, self.agent_hz, self.limit_for(kind))?;
        let bridge = match supply.rate_hz == self.rate_hz {
            true => None,
            false => Some(Resampler::of_spurts(self.rate_hz, supply.rate_hz)?),
        };
        Ok(Some(Successor { supply, bridge }))
    }

    /// Goes on in another form: all that waits is brought into it, and no word is lost.
    pub(super) fn hand_over(&mut self, next: Successor) {
        let Successor { mut supply, mut bridge } = next;
        self.finish_spurt();
        supply.odd = self.odd.take();
        let mut pcm = [0; PIECE_SAMPLES];
        loop {
            let count = self.pop(&mut pcm);
            if count == 0 {
                break;
            }
            supply.store_across(&pcm[..count], bridge.as_mut());
        }
        if let Some(bridge) = &mut bridge {
            let mut tail = [0; Resampler::FINISH_MAX];
            let count = bridge.finish(&mut tail);
            supply.store(&tail[..count]);
        }
        *self = supply;
    }

    /// Bytes that may wait in another codec's form: the bound, or what takes as much time as fits
    /// now, since the agent was told at the call's creation how far it may send ahead.
    fn limit_for(&self, kind: CodecKind) -> usize {
        let bytes = |kind| playout_bytes_in_second(kind, self.agent_hz);
        let same_time = self.queue.limit() as u64 * bytes(kind) / bytes(self.kind);
        usize::try_from(same_time & !1).unwrap_or(PLAYOUT_BYTES_MAX).max(PLAYOUT_BYTES_MAX)
    }

    fn push_piece(&mut self, pcm: &[i16], taken: &mut Taken) {
        taken.received += Ticks::of(pcm.len(), self.agent_hz);
        let Some(resampler) = &mut self.resampler else {
            let dropped = pcm.len() - self.store(pcm);
            taken.dropped += Ticks::of(dropped, self.rate_hz);
            return;
        };
        let mut grown = [0; GROWN_SAMPLES];
        // Never refused: there is room for the greatest ratio.
        let count = resampler.resample(pcm, &mut grown).unwrap_or(0);
        let dropped = count - self.store(&grown[..count]);
        taken.dropped += Ticks::of(dropped, self.rate_hz);
    }

    fn store_across(&mut self, pcm: &[i16], bridge: Option<&mut Resampler>) {
        let Some(bridge) = bridge else {
            self.store(pcm);
            return;
        };
        let mut grown = [0; GROWN_SAMPLES];
        let count = bridge.resample(pcm, &mut grown).unwrap_or(0);
        self.store(&grown[..count]);
    }

    /// Queues samples of the codec's rate; gives how many there was room for.
    fn store(&mut self, pcm: &[i16]) -> usize {
        if self.rising > 0 {
            return self.store_rising(pcm);
        }
        self.store_pieces(pcm)
    }

    fn store_rising(&mut self, pcm: &[i16]) -> usize {
        let fade = samples_in(FADE_MS, self.rate_hz);
        let mut stored = 0;
        for piece in pcm.chunks(PIECE_SAMPLES) {
            let mut risen = [0; PIECE_SAMPLES];
            for (place, sample) in risen.iter_mut().zip(piece) {
                *place = scaled(*sample, fade - self.rising.min(fade), fade);
                self.rising = self.rising.saturating_sub(1);
            }
            stored += self.store_pieces(&risen[..piece.len()]);
        }
        stored
    }

    fn store_pieces(&mut self, pcm: &[i16]) -> usize {
        let unit = self.unit();
        let mut stored = 0;
        for piece in pcm.chunks(PIECE_SAMPLES) {
            let mut bytes = [0; PIECE_SAMPLES * 2];
            let len = self.write_samples(piece, &mut bytes);
            stored += self.queue.push(&bytes[..len], unit) / unit;
        }
        stored
    }

    /// Bytes of one sample in the queue.
    fn unit(&self) -> usize {
        if law(self.kind).is_some() { 1 } else { 2 }
    }
}

/// The law of a codec that is queued encoded; one byte is one sample.
pub(super) fn law(kind: CodecKind) -> Option<Law> {
    match kind {
        CodecKind::Pcmu => Some(Law::Mu),
        CodecKind::Pcma => Some(Law::A),
        CodecKind::G722
        | CodecKind::Opus
        | CodecKind::Ilbc
        | CodecKind::G7221
        | CodecKind::AmrWb => None,
    }
}

/// 16-bit little-endian samples; an odd byte at the end is left. Gives how many.
fn read_samples(bytes: &[u8], pcm: &mut [i16]) -> usize {
    for (sample, pair) in pcm.iter_mut().zip(bytes.chunks_exact(2)) {
        *sample = i16::from_le_bytes([pair[0], pair[1]]);
    }
    (bytes.len() / 2).min(pcm.len())
}
