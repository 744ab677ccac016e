//! Telephone-events: DTMF digits as RTP payloads (RFC 4733, clocks of RFC 4733 §2.1 and RFC 7587).
//!
//! The receiver reports each event once, at its end, whatever subset of its packets is lost: an
//! event is known by its timestamp, and ends with an end bit, with the next event, or with 200 ms
//! of silence. It reports only digits; flash, tones and the like are passed over. No packet is
//! kept and no in-band tone is listened for.

use crate::ground::Instant;
use std::time::Duration;

/// Bytes of one event payload.
pub const EVENT_BYTES: usize = 4;

/// One payload (RFC 4733 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// 0 to 15 are the digits; see [`digit`].
    pub code: u8,
    /// The last packet of the event.
    pub end: bool,
    /// Power below 0 dBm0 in dB, 0 to 63.
    pub volume: u8,
    /// Since the event's timestamp, in clock units.
    pub duration: u16,
}

impl Event {
    /// Reads a payload; `None` when it is too short. What follows the first event is ignored.
    pub fn parse(payload: &[u8]) -> Option<Event> {
        let [code, flags, high, low] = *payload.first_chunk::<EVENT_BYTES>()?;
        Some(Event {
            code,
            end: flags & 0x80 != 0,
            volume: flags & 0x3F,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// The payload's bytes.
    pub fn bytes(&self) -> [u8; EVENT_BYTES] {
        let flags = u8::from(self.end) << 7 | (self.volume & 0x3F);
        let [high, low] = self.duration.to_be_bytes();
        [self.code, flags, high, low]
    }
}

const DIGITS: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

/// The digit of an event code (RFC 4733 §3.2); `None` for other events.
pub fn digit(code: u8) -> Option<char> {
    DIGITS.get(usize::from(code)).copied()
}

/// The event code of a digit; letters in either case.
pub fn code(digit: char) -> Option<u8> {
    let upper = digit.to_ascii_uppercase();
    DIGITS.iter().position(|known| *known == upper).map(|index| index as u8)
}

/// A digit that was pressed and let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digit {
    pub digit: char,
    /// As far as packets told; an event whose end was lost may have been longer.
    pub duration_ms: u32,
}

/// Receives the events of one stream.
pub struct Receiver {
    clock_hz: u32,
    newest: Option<Current>,
}

/// The newest event and whether it is over and reported.
struct Current {
    code: u8,
    /// Timestamp of the event's (last) segment.
    timestamp: u32,
    /// Units of earlier segments, and of this one with its wraps.
    before: u32,
    units: u32,
    heard: Instant,
    over: bool,
}

/// No packet of an event for this long ends it: four packets of 50 ms (RFC 4733 §2.6.1 leaves
/// the figure open).
const SILENCE: Duration = Duration::from_millis(200);
/// Packets of an event that lies this far back are stragglers; beyond it the sender has set its
/// clock anew.
const STRAGGLER_S: u32 = 2;

impl Receiver {
    /// For events whose timestamps tick at `clock_hz`: the agreed clock of the events.
    pub fn new(clock_hz: u32) -> Receiver {
        Receiver { clock_hz: clock_hz.max(1), newest: None }
    }

    /// Takes one packet. Digits that it ends go to `out`: its own, and one before it of which no
    /// end came; never more than two.
    pub fn receive(
        &mut self,
        now: Instant,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        out: &mut Vec<Digit>,
    ) {
        let Some(event) = Event::parse(payload) else { return };
        match &mut self.newest {
            Some(current) if current.is(&event, timestamp) => current.update(now, event.duration),
            Some(current) if current.continues(&event, timestamp, marker) => {
                current.next_segment(now, timestamp, event.duration);
            }
            Some(current)
                if self.clock_hz.saturating_mul(STRAGGLER_S)
                    >= current.timestamp.wrapping_sub(timestamp)
                    && current.timestamp != timestamp =>
            {
                return;
            }
            _ => {
                self.end(out);
                self.newest = Some(Current {
                    code: event.code,
                    timestamp,
                    before: 0,
                    units: u32::from(event.duration),
                    heard: now,
                    over: false,
                });
            }
        }
        if event.end {
            self.end(out);
        }
    }

    /// Ends an event that has gone silent.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Digit>) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.end(out);
        }
    }

    /// When an event that is under way would count as ended.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let current = self.newest.as_ref()?;
        (!current.over).then(|| current.heard + SILENCE)
    }

    /// Ends what is under way and forgets timestamps: another SSRC, or the call is over.
    pub fn restart(&mut self, out: &mut Vec<Digit>) {
        self.end(out);
        self.newest = None;
    }

    fn end(&mut self, out: &mut Vec<Digit>) {
        let Some(current) = &mut self.newest else { return };
        if std::mem::replace(&mut current.over, true) {
            return;
        }
        let units = u64::from(current.before) + u64::from(current.units);
        let duration_ms = u32::try_from(units * 1_000 / u64::from(self.clock_hz));
        if let Some(digit) = digit(current.code) {
            out.push(Digit { digit, duration_ms: duration_ms.unwrap_or(u32::MAX) });
        }
    }
}

impl Current {
    fn is(&self, event: &Event, timestamp: u32) -> bool {
        self.timestamp == timestamp && self.code == event.code
    }

    /// A long event goes on in a new segment, whose timestamp lies exactly one full duration
    /// after the last (RFC 4733 §2.5.1.3); no marker, since nothing began.
    fn continues(&self, event: &Event, timestamp: u32, marker: bool) -> bool {
        let next = self.timestamp.wrapping_add(u32::from(u16::MAX));
        !self.over && !marker && self.code == event.code && timestamp == next
    }

    /// Durations only grow; one that seems to fall far has wrapped, one that falls a little is
    /// of a late packet.
    fn update(&mut self, now: Instant, duration: u16) {
        let growth = duration.wrapping_sub(self.units as u16) as i16;
        if let (Ok(growth), false) = (u32::try_from(growth), self.over) {
            self.units = self.units.saturating_add(growth);
            self.heard = now;
        }
    }

    fn next_segment(&mut self, now: Instant, timestamp: u32, duration: u16) {
        self.before = self.before.saturating_add(u32::from(u16::MAX));
        self.units = u32::from(duration);
        self.timestamp = timestamp;
        self.heard = now;
    }
}

/// The packets of one digit that we send: one at the start, an update for each packet interval,
/// and the end three times over. Durations of more than 16 bits go on in a new segment.
pub struct Sending {
    code: u8,
    timestamp: u32,
    /// Units that are still to be told, and the units of a packet.
    left: u32,
    step: u32,
    told: u32,
    ends: u8,
    first: bool,
}

/// A packet of [`Sending`]; all of one interval's go out together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventPacket {
    /// Set on the first packet only.
    pub marker: bool,
    pub timestamp: u32,
    pub event: Event,
}

/// Times that the end is sent (RFC 4733 §2.5.1.4).
const ENDS: u8 = 3;
/// Power of the digits that we send, in -dBm0.
const VOLUME: u8 = 10;

impl Sending {
    /// A digit of `duration` clock units from `timestamp` on, with a packet for each `step` units.
    /// `None` when the character is no digit or `step` is zero or above 16 bits.
    pub fn new(digit: char, timestamp: u32, duration: u32, step: u32) -> Option<Sending> {
        let code = code(digit)?;
        if !(1..=u32::from(u16::MAX)).contains(&step) {
            return None;
        }
        let left = duration.max(1);
        Some(Sending { code, timestamp, left, step, told: 0, ends: 0, first: true })
    }
}

impl Iterator for Sending {
    type Item = EventPacket;

    fn next(&mut self) -> Option<EventPacket> {
        if self.ends == ENDS {
            return None;
        }
        if self.told == u32::from(u16::MAX) && self.left > 0 {
            self.timestamp = self.timestamp.wrapping_add(u32::from(u16::MAX));
            self.told = 0;
        }
        let room = u32::from(u16::MAX) - self.told;
        let grown = self.step.min(self.left).min(room);
        self.told += grown;
        self.left -= grown;
        let end = self.left == 0;
        self.ends += u8::from(end);
        let marker = std::mem::replace(&mut self.first, false);
        let duration = self.told as u16;
        let event = Event { code: self.code, end, volume: VOLUME, duration };
        Some(EventPacket { marker, timestamp: self.timestamp, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn give(receiver: &mut Receiver, now: Instant, packet: &EventPacket, out: &mut Vec<Digit>) {
        receiver.receive(now, packet.timestamp, packet.marker, &packet.event.bytes(), out);
    }

    #[test]
    fn payloads_read_and_write() {
        let event = Event { code: 11, end: true, volume: 10, duration: 0x1234 };
        assert_eq!(event.bytes(), [11, 0x8A, 0x12, 0x34]);
        assert_eq!(Event::parse(&event.bytes()), Some(event));
        assert_eq!(Event::parse(&[11, 0xCA, 0x12, 0x34, 9, 9]), Some(event));
        assert_eq!(Event::parse(&[11, 0x8A, 0x12]), None);
        for index in 0..=255 {
            assert_eq!(digit(index).is_some(), index < 16);
            assert_eq!(digit(index).and_then(code), digit(index).map(|_| index));
        }
        assert_eq!((code('d'), code('x')), (Some(15), None));
    }

    #[test]
    fn every_subset_of_packets_of_10_000_digits_gives_each_digit_once() {
        for clock_hz in [8_000u32, 48_000] {
            let mut receiver = Receiver::new(clock_hz);
            let (mut sent, mut out) = (Vec::new(), Vec::new());
            // The clock of the timestamps wraps on the way.
            let mut timestamp = u32::MAX - 4_000 * clock_hz / 10;
            let mut now = ms(0);
            let step = clock_hz / 50;
            for number in 0..10_000u32 {
                let digit = DIGITS[(number / 3 % 16) as usize];
                sent.push(digit);
                // Seven packets: four updates and three ends. All subsets but the empty one.
                let kept = 1 + number % 127;
                let sending = Sending::new(digit, timestamp, step * 5, step).unwrap();
                let packets: Vec<EventPacket> = sending.collect();
                assert_eq!(packets.len(), 7);
                for (index, packet) in packets.iter().enumerate() {
                    now += Duration::from_millis(20);
                    receiver.handle_timeout(now, &mut out);
                    if kept >> index & 1 == 1 {
                        give(&mut receiver, now, packet, &mut out);
                    }
                }
                let pause = [40, 60, 300][number as usize % 3];
                now += Duration::from_millis(pause);
                receiver.handle_timeout(now, &mut out);
                timestamp = timestamp.wrapping_add(clock_hz / 1_000 * (140 + pause as u32));
            }
            receiver.restart(&mut out);
            let heard: Vec<char> = out.iter().map(|digit| digit.digit).collect();
            assert_eq!(heard, sent, "at {clock_hz} Hz");
            assert!(out.iter().all(|digit| (20..=100).contains(&digit.duration_ms)));
        }
    }

    #[test]
    fn reordered_and_repeated_packets_give_each_digit_once() {
        let mut receiver = Receiver::new(8_000);
        let mut out = Vec::new();
        let one: Vec<_> = Sending::new('1', 1_000, 800, 160).unwrap().collect();
        let two: Vec<_> = Sending::new('2', 3_000, 800, 160).unwrap().collect();
        for packet in one.iter().rev().chain(&two).chain(&one).chain(two.iter().rev()) {
            give(&mut receiver, ms(5), packet, &mut out);
        }
        assert_eq!(
            out,
            [Digit { digit: '1', duration_ms: 100 }, Digit { digit: '2', duration_ms: 100 }]
        );
    }

    #[test]
    fn a_long_event_in_segments_is_one_digit() {
        for (clock_hz, seconds) in [(8_000u32, 20), (48_000, 5)] {
            for lost in 0..5 {
                let mut receiver = Receiver::new(clock_hz);
                let mut out = Vec::new();
                let sending =
                    Sending::new('#', u32::MAX - 9, clock_hz * seconds, clock_hz / 50).unwrap();
                for (index, packet) in sending.enumerate() {
                    let now = ms(20 * index as u64);
                    receiver.handle_timeout(now, &mut out);
                    if index % 5 != lost {
                        give(&mut receiver, now, &packet, &mut out);
                    }
                }
                assert_eq!(out, [Digit { digit: '#', duration_ms: seconds * 1_000 }]);
            }
        }
    }

    #[test]
    fn a_duration_that_wraps_without_a_segment_goes_on() {
        let mut receiver = Receiver::new(8_000);
        let mut out = Vec::new();
        for (index, duration) in (160..80_000u32).step_by(160).enumerate() {
            let event = Event { code: 5, end: false, volume: 0, duration: duration as u16 };
            let payload = event.bytes();
            receiver.receive(ms(20 * index as u64), 77, index == 0, &payload, &mut out);
        }
        receiver.restart(&mut out);
        assert_eq!(out, [Digit { digit: '5', duration_ms: 79_840 / 8 }]);
    }

    #[test]
    fn silence_of_200_ms_ends_a_digit_and_not_a_moment_before() {
        let mut receiver = Receiver::new(8_000);
        let mut out = Vec::new();
        assert_eq!(receiver.poll_timeout(), None);
        receiver.receive(ms(1_000), 1, true, &[3, 10, 0, 160], &mut out);
        assert_eq!(receiver.poll_timeout(), Some(ms(1_200)));
        receiver.handle_timeout(ms(1_199), &mut out);
        assert_eq!(out, []);
        receiver.handle_timeout(ms(1_200), &mut out);
        receiver.handle_timeout(ms(1_300), &mut out);
        receiver.receive(ms(1_400), 1, false, &[3, 0x8A, 0, 200], &mut out);
        assert_eq!(out, [Digit { digit: '3', duration_ms: 20 }]);
        assert_eq!(receiver.poll_timeout(), None);
    }

    #[test]
    fn stragglers_are_passed_over_and_a_clock_set_anew_is_followed() {
        let mut receiver = Receiver::new(8_000);
        let mut out = Vec::new();
        for (timestamp, code) in [(100_000, 1), (84_000, 2), (83_999, 3), (50, 4)] {
            receiver.receive(ms(0), timestamp, true, &[code, 0x80, 0, 0], &mut out);
        }
        let heard: String = out.iter().map(|digit| digit.digit).collect();
        assert_eq!(heard, "134");
    }

    #[test]
    fn what_is_no_digit_is_passed_over() {
        let mut receiver = Receiver::new(8_000);
        let mut out = Vec::new();
        for payload in [&[][..], &[1, 2, 3], &[16, 0x80, 0, 0], &[255, 0x80, 0, 0]] {
            receiver.receive(ms(0), 5, true, payload, &mut out);
        }
        assert_eq!(out, []);
        for (digit, step) in [('x', 160), ('1', 0), ('1', 65_536)] {
            assert!(Sending::new(digit, 0, 800, step).is_none());
        }
    }
}
