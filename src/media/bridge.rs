//! Where several meet: what legs say on its way to other legs, and to agents that hear several; the
//! sound that is played; and the last milliseconds of whatever a leg ceased to hear. A call of one
//! caller and one agent has no bridge. It allocates when signalling arranges who hears whom, and
//! never for a packet.

use super::lane::{FADE_SAMPLES_MAX, Lane};
use super::plan::{Port, Scene, Sound};
use super::player::{Player, length};
use crate::codec::CodecFault;
use crate::ground::{Instant, LegId};
use std::sync::Arc;
use std::time::Duration;

/// After a sound's last sample, until the last frame with it has left.
const LAST_FRAME: Duration = Duration::from_millis(60);

/// Who is in the call, with the rate at which each speaks or listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates<'a> {
    /// Each leg with the rate of its decoder and that of its encoder.
    pub(super) legs: &'a [(LegId, u32, u32)],
    pub(super) agent_hz: u32,
}

impl Rates<'_> {
    fn speaks(&self, leg: LegId) -> Option<u32> {
        self.legs.iter().find(|(id, ..)| *id == leg).map(|(_, from_hz, _)| *from_hz)
    }

    fn listens(&self, port: Port) -> Option<u32> {
        match port {
            Port::Leg(leg) => self.legs.iter().find(|(id, ..)| *id == leg).map(|(.., hz)| *hz),
            Port::Agent(_) => Some(self.agent_hz),
            Port::Sound => None,
        }
    }
}

/// The lanes, players and rests of one call.
#[derive(Debug, Default)]
pub(super) struct Bridge {
    lanes: Vec<Lane>,
    players: Vec<Player>,
    rests: Vec<Rest>,
    sound: Option<Playing>,
}

/// The sound that is played, since when, and whether its end is to be told.
#[derive(Debug)]
struct Playing {
    sound: Arc<Sound>,
    /// Somebody has heard it from then on.
    since: Option<Instant>,
    told: bool,
}

/// The last milliseconds of what a leg heard before.
#[derive(Debug)]
struct Rest {
    listener: LegId,
    samples: [i16; FADE_SAMPLES_MAX],
    count: usize,
}

impl Bridge {
    /// Plays another sound from its start, or none.
    pub(super) fn play(&mut self, sound: Option<Arc<Sound>>) {
        let players = std::mem::take(&mut self.players);
        for player in players {
            self.end_player(player);
        }
        self.sound = sound.map(|sound| Playing { sound, since: None, told: false });
    }

    /// Follows a scene: what ends sinks, what begins rises, what stays goes on. `mixed`: agents that
    /// hear by frames.
    ///
    /// # Errors
    /// A rate is none that is resampled.
    pub(super) fn arrange(
        &mut self,
        now: Instant,
        scene: &Scene,
        rates: Rates<'_>,
        mixed: impl Fn(Port) -> bool,
    ) -> Result<(), CodecFault> {
        let wanted = |speaker: LegId, listener: Port| {
            let direct = matches!(listener, Port::Agent(_)) && !mixed(listener);
            let hears = scene.hears(listener, Port::Leg(speaker)) && !direct;
            hears.then(|| rates.speaks(speaker).zip(rates.listens(listener))).flatten()
        };
        // Packets that begin to be handed on leave a rest too, and take no room for it.
        self.rests.reserve(rates.legs.len());
        for lane in std::mem::take(&mut self.lanes) {
            match wanted(lane.speaker, lane.listener) {
                Some((from_hz, to_hz)) if lane.fits(from_hz, to_hz) => self.lanes.push(lane),
                Some(_) | None => self.end_lane(lane),
            }
        }
        for (listener, speaker) in scene.pairs() {
            let Port::Leg(speaker) = speaker else { continue };
            let Some((from_hz, to_hz)) = wanted(speaker, listener) else { continue };
            let known = |lane: &Lane| (lane.speaker, lane.listener) == (speaker, listener);
            if !self.lanes.iter().any(known) {
                self.lanes.push(Lane::new((speaker, from_hz), (listener, to_hz))?);
            }
        }
        self.arrange_sound(now, scene, rates)
    }

    /// Whether a leg hears other legs or the sound.
    pub(super) fn accompanies(&self, listener: LegId) -> bool {
        let port = Port::Leg(listener);
        self.lanes.iter().any(|lane| lane.listener == port)
            || self.players.iter().any(|player| player.listener == listener)
    }

    /// Whether the last milliseconds of something are still to be heard by a leg.
    pub(super) fn has_rest(&self, listener: LegId) -> bool {
        self.rests.iter().any(|rest| rest.listener == listener)
    }

    /// What the leg hears of the speaker comes another way from now on: what is left of it here sinks.
    pub(super) fn part(&mut self, speaker: LegId, listener: LegId) {
        let (mut tail, mut count) = ([0; FADE_SAMPLES_MAX], 0);
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_between(speaker, listener)) {
            count = lane.finish(&mut tail);
            lane.forget();
        }
        self.add_rest(listener, &tail[..count]);
    }

    /// The peak of what the speaker said lately; the highest there is where that is not known.
    pub(super) fn peak_lately(&self, speaker: LegId, listener: LegId) -> u16 {
        let mut lanes = self.lanes.iter();
        let lane = lanes.find(|lane| lane.is_between(speaker, listener));
        lane.map_or(u16::MAX, Lane::peak_lately)
    }

    /// A leg said this.
    pub(super) fn push(&mut self, now: Instant, speaker: LegId, pcm: &[i16]) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.speaker == speaker) {
            lane.push(now, pcm);
        }
    }

    /// Adds all that `listener` hears to a frame; true when there was anything.
    pub(super) fn mix(&mut self, now: Instant, listener: Port, frame: &mut [i16]) -> bool {
        let mut any = false;
        for lane in self.lanes.iter_mut().filter(|lane| lane.listener == listener) {
            any |= lane.mix(now, frame);
        }
        let Port::Leg(leg) = listener else { return any };
        for player in self.players.iter_mut().filter(|player| player.listener == leg) {
            any |= player.mix(frame);
        }
        self.rests.retain(|rest| {
            if rest.listener != leg {
                return true;
            }
            for (place, sample) in frame.iter_mut().zip(&rest.samples[..rest.count]) {
                *place = place.saturating_add(*sample);
            }
            any = true;
            false
        });
        any
    }

    /// The last milliseconds of an agent that the leg ceased to hear.
    pub(super) fn add_rest(&mut self, listener: LegId, tail: &[i16]) {
        let count = tail.len().min(FADE_SAMPLES_MAX);
        if count == 0 {
            return;
        }
        let known = self.rests.iter_mut().find(|rest| rest.listener == listener);
        let Some(rest) = known else {
            let mut samples = [0; FADE_SAMPLES_MAX];
            samples[..count].copy_from_slice(&tail[..count]);
            return self.rests.push(Rest { listener, samples, count });
        };
        for (place, sample) in rest.samples.iter_mut().zip(&tail[..count]) {
            *place = place.saturating_add(*sample);
        }
        rest.count = rest.count.max(count);
    }

    /// True once, when a sound that does not repeat has been played.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let over = self.poll_timeout().is_some_and(|due| due <= now);
        if let Some(playing) = self.sound.as_mut().filter(|_| over) {
            playing.told = true;
        }
        over
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let playing = self.sound.as_ref().filter(|playing| !playing.told)?;
        let since = playing.since.filter(|_| !playing.sound.repeats)?;
        Some(since + length(&playing.sound) + LAST_FRAME)
    }

    fn arrange_sound(
        &mut self,
        now: Instant,
        scene: &Scene,
        rates: Rates<'_>,
    ) -> Result<(), CodecFault> {
        let wanted = |leg: LegId| {
            let hears = scene.hears(Port::Leg(leg), Port::Sound);
            hears.then(|| rates.listens(Port::Leg(leg))).flatten()
        };
        let mut moved = Vec::new();
        for player in std::mem::take(&mut self.players) {
            match wanted(player.listener) {
                Some(hz) if hz == player.rate_hz() => self.players.push(player),
                Some(_) => {
                    // Another rate: the sound goes on where it was.
                    moved.push((player.listener, player.position()));
                    self.end_player(player);
                }
                None => self.end_player(player),
            }
        }
        let Some(playing) = &mut self.sound else { return Ok(()) };
        for (leg, _, hz) in rates.legs {
            let plays = self.players.iter().any(|player| player.listener == *leg);
            if plays || wanted(*leg).is_none() {
                continue;
            }
            let since = *playing.since.get_or_insert(now);
            let gone = now.since(since).as_nanos() * u128::from(playing.sound.hz) / 1_000_000_000;
            let position = usize::try_from(gone).unwrap_or(usize::MAX);
            let position = match playing.sound.repeats {
                true => position % playing.sound.pcm.len().max(1),
                false => position,
            };
            let before = moved.iter().find(|(listener, _)| listener == leg);
            let position = before.map_or(position, |(_, position)| *position);
            self.players.push(Player::new(playing.sound.clone(), position, (*leg, *hz))?);
        }
        Ok(())
    }

    fn end_lane(&mut self, mut lane: Lane) {
        let Port::Leg(listener) = lane.listener else { return };
        let mut tail = [0; FADE_SAMPLES_MAX];
        let count = lane.finish(&mut tail);
        self.add_rest(listener, &tail[..count]);
    }

    fn end_player(&mut self, mut player: Player) {
        let mut tail = [0; FADE_SAMPLES_MAX];
        let count = player.finish(&mut tail);
        self.add_rest(player.listener, &tail[..count]);
    }
}
