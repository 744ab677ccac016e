//! One agent stream as the session sees it: how it stands, and what the agent hears. An agent that
//! hears one leg is given its audio as it comes; one that hears several, or nobody, is given frames
//! by its own clock. Either way a second of call is a second of audio from the join on.

use super::bridge::Bridge;
use super::clock::{SampleClock, Ticks, samples_in};
use super::lane::{FADE_MS, FADE_SAMPLES_MAX, scaled};
use super::plan::{AgentClose, Port};
use super::uplink::{FRAME_MS, Uplink};
use crate::ground::{Instant, LegId, StreamId};

/// Samples of a frame at 48 kHz.
const FRAME_SAMPLES_MAX: usize = 960;
/// The agent is never given more than this at once; a process that slept longer has lost it.
const LAG_MS_MAX: u32 = 1_000;

/// How an agent's stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AgentState {
    /// Whom it is to hear is kept, nothing is sent.
    Awaited,
    Joined,
    /// The stream ended; its last words are being played, until `until` at the latest. `played`:
    /// the last one left and is on its way.
    Leaving {
        close: AgentClose,
        until: Instant,
        played: bool,
    },
    Left,
}

/// Whom an agent hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hearing {
    /// This leg alone, packet by packet.
    Leg(LegId),
    /// Several, or nobody: frames of the bridge.
    Frames,
}

/// An agent stream of the call.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) state: AgentState,
    pub(super) uplink: Uplink,
    hz: u32,
    hearing: Hearing,
    /// Counts what the agent was given since its join.
    clock: Option<SampleClock>,
    /// The last sample that it was given.
    last: i16,
    /// Samples until what it hears now is at its full level.
    rising: usize,
    /// What it said while nobody heard it.
    unheard: Ticks,
}

impl Stream {
    /// A stream that is awaited, for audio of `hz`.
    pub(super) fn new(id: StreamId, hz: u32, hearing: Hearing) -> Stream {
        Stream {
            id,
            state: AgentState::Awaited,
            uplink: Uplink::new(hz),
            hz,
            hearing,
            clock: None,
            last: 0,
            rising: 0,
            unheard: Ticks::default(),
        }
    }

    /// The agent was there and its stream has not ended.
    pub(super) fn is_joined(&self) -> bool {
        self.state == AgentState::Joined
    }

    /// The stream can be given up for another.
    pub(super) fn is_over(&self) -> bool {
        self.state == AgentState::Left
    }

    /// The agent hears this leg, and it alone.
    pub(super) fn hears_alone(&self, leg: LegId) -> bool {
        self.hearing == Hearing::Leg(leg)
    }

    /// The agent is given frames of the bridge.
    pub(super) fn hears_frames(&self) -> bool {
        self.hearing == Hearing::Frames
    }

    /// The agent said so much while nobody heard it.
    pub(super) fn drop_unheard(&mut self, samples: usize, hz: u32) {
        self.unheard += Ticks::of(samples, hz);
    }

    pub(super) fn unheard_ms(&self) -> u64 {
        self.unheard.milliseconds()
    }

    /// What was kept flows, and the clock begins.
    pub(super) fn join(&mut self, now: Instant) {
        self.state = AgentState::Joined;
        self.clock = Some(SampleClock::start(now, self.hz));
        self.uplink.open();
    }

    /// The agent hears somebody else from now on: what it heard sinks, what comes rises.
    pub(super) fn set_hearing(&mut self, hearing: Hearing) {
        if hearing == self.hearing {
            return;
        }
        self.hearing = hearing;
        if !self.is_joined() {
            return;
        }
        let fade = samples_in(FADE_MS, self.hz).min(FADE_SAMPLES_MAX);
        let mut tail = [0; FADE_SAMPLES_MAX];
        for (index, sample) in tail[..fade].iter_mut().enumerate() {
            *sample = scaled(self.last, fade - index - 1, fade);
        }
        self.rising = 0;
        self.push(&tail[..fade]);
        self.rising = fade;
    }

    /// Gives the agent audio.
    pub(super) fn push(&mut self, pcm: &[i16]) {
        let Some(last) = pcm.last() else { return };
        self.last = *last;
        if let Some(clock) = &mut self.clock {
            clock.push(pcm.len());
        }
        if self.rising == 0 {
            return self.uplink.push(pcm);
        }
        let fade = samples_in(FADE_MS, self.hz).min(FADE_SAMPLES_MAX);
        let (head, rest) = pcm.split_at(self.rising.min(pcm.len()));
        let mut risen = [0; FADE_SAMPLES_MAX];
        for (place, sample) in risen.iter_mut().zip(head) {
            *place = scaled(*sample, fade - self.rising.min(fade), fade);
            self.rising -= 1;
        }
        self.uplink.push(&risen[..head.len().min(FADE_SAMPLES_MAX)]);
        self.uplink.push(rest);
    }

    /// Frames that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut bridge: Option<&mut Bridge>) {
        let frame = samples_in(FRAME_MS, self.hz).min(FRAME_SAMPLES_MAX);
        let longest = samples_in(LAG_MS_MAX, self.hz) as i64;
        if let Some(clock) = self.clock.as_mut().filter(|clock| clock.lag(now) > longest) {
            clock.push((clock.lag(now) - longest) as usize);
        }
        while self.poll_timeout().is_some_and(|due| due <= now) {
            let mut pcm = [0; FRAME_SAMPLES_MAX];
            if let Some(bridge) = &mut bridge {
                bridge.mix(now, Port::Agent(self.id), &mut pcm[..frame]);
            }
            self.push(&pcm[..frame]);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.hearing != Hearing::Frames || !self.is_joined() {
            return None;
        }
        let clock = self.clock.as_ref()?;
        Some(clock.when_lagging(samples_in(FRAME_MS, self.hz).min(FRAME_SAMPLES_MAX)))
    }
}
