//! A leg that is given another leg's packets as they are: they leave in the place of our own frames,
//! which go on where none come. What becomes of their numbers is the relay's matter.

use super::{HEADER_BYTES, Outbound};
use crate::ground::{Instant, LegId};
use crate::media::relay::{Incoming, Passage, Place, Relay};
use crate::rtp::packet::RtpHeader;
use std::time::Duration;

impl Outbound {
    /// Whose packets are handed on to this leg, and since when.
    pub(in crate::media) fn relay(&self) -> Option<&Relay> {
        self.relay.as_deref()
    }

    /// What `speaker` says is handed on from a good moment on.
    pub(in crate::media) fn expect_relay(&mut self, now: Instant, speaker: LegId) {
        self.relay = Some(Box::new(Relay::new(now, speaker)));
    }

    /// The moment is there: the encoder rests.
    pub(in crate::media) fn enter_relay(&mut self, now: Instant) {
        if let Some(relay) = &mut self.relay {
            relay.enter(now);
            self.voice.encoder.reset();
        }
    }

    /// Nothing is handed on any more. Gives what was, if it was; frames of our own go on behind it.
    pub(in crate::media) fn end_relay(&mut self, now: Instant) -> Option<Box<Relay>> {
        let relay = self.relay.take().filter(|relay| relay.is_open())?;
        self.catch_up(now);
        (self.silent_frames, self.told) = (0, None);
        Some(relay)
    }

    /// Ticks of the longest packet that the peer wants.
    pub(in crate::media) fn packet_ticks(&self) -> u32 {
        self.voice.frame_ticks
    }

    /// Hands a packet on; it leaves with the next `poll_transmit`. While keys are pressed, nothing is;
    /// comfort noise is where the peer takes it.
    pub(in crate::media) fn hand_on(&mut self, now: Instant, packet: Incoming<'_>) -> Passage {
        let place = self.place(now);
        let (payload_type, ticks) = match self.noise.filter(|_| packet.is_noise) {
            Some(number) => (number, Some(self.voice.frame_ticks)),
            None => (self.voice.plan.send_payload_type, packet.ticks),
        };
        // A pause of ours that was told ends here.
        let marker = packet.header.marker || self.told.is_some();
        let header = RtpHeader { payload_type, marker, ..packet.header };
        let packet = Incoming { header, ticks, ..packet };
        let Some(relay) = &mut self.relay else { return Passage::Refused };
        if !self.open || self.muted || self.keypad.is_some() {
            return relay.follow(packet);
        }
        let passage = relay.take(now, packet, place);
        if let Passage::Taken { .. } = passage {
            self.told = None;
        }
        if let Passage::Taken { next: Some((sequence, timestamp)) } = passage {
            let ticks = packet.ticks.unwrap_or(self.voice.frame_ticks);
            self.slot = now + Duration::from_secs(ticks.into()) / place.clock_hz;
            (self.sequence, self.timestamp) = (sequence, timestamp);
        }
        passage
    }

    /// The far decoder heard this from somebody else: the encoder comes to stand where it does.
    pub(in crate::media) fn follow(&mut self, pcm: &[i16]) {
        let mut out = [0; 1_400];
        for frame in pcm.chunks_exact(self.voice.frame_samples) {
            // What it would have sent is of no use.
            let _ = self.voice.encoder.encode(frame, &mut out);
        }
    }

    fn place(&self, now: Instant) -> Place {
        let (sequence, timestamp) = (self.sequence, self.timestamp);
        // Up to one frame late is the network's jitter, or the phase of another clock.
        let near = now < self.slot + self.voice.frame;
        let start = if near { timestamp } else { self.timestamp_at(now) };
        Place { sequence, timestamp, start, clock_hz: self.voice.plan.kind.rtp_clock_hz() }
    }

    /// Writes the packet that is handed on; gives its length. Where none came for too long, or keys are
    /// pressed, frames of our own go on.
    pub(super) fn poll_relayed(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let (open, pressed) = (self.open, self.keypad.is_some());
        let relay = self.relay.as_mut().filter(|relay| open && relay.is_open())?;
        let (head, body) = buffer.split_at_mut_checked(HEADER_BYTES)?;
        if let Some((header, len)) = relay.take_packet(body) {
            RtpHeader { ssrc: self.ssrc, ..header }.write(head);
            self.counters.count(len);
            return Some(HEADER_BYTES + len);
        }
        if relay.due().is_some_and(|due| pressed || due <= now) {
            relay.interrupt();
            let moved = if pressed { 0 } else { relay.give_back() };
            self.catch_up(now);
            let clock_hz = self.voice.plan.kind.rtp_clock_hz();
            self.slot += Duration::from_secs(moved.into()) / clock_hz;
            self.silent_frames = 0;
        }
        None
    }
}
