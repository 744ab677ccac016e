//! Accounting of one received stream: extended sequence numbers (RFC 3550 appendix A.1), loss
//! (A.3) and interarrival jitter (A.8), kept over changes of the sender's SSRC.
//!
//! The first packet counts at once, without A.1's probation: the address was checked before, and
//! a call must not lose its first word. This module orders and counts; it holds no packets.

use super::packet::RtpHeader;
use crate::ground::Instant;
use std::time::Duration;

/// What one packet's number says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// A new stream begins with this packet: the first ever, another SSRC, or numbers that
    /// jumped and went on from there. Whatever waits of the old one is over.
    Started { extended: u32 },
    /// The next packet, or one further on after `missing` that have not come (yet).
    Ahead { extended: u32, missing: u16 },
    /// Older than the newest: reordered or a duplicate, which only a buffer can tell.
    Behind { extended: u32 },
    /// A jump too far to follow. Drop it; if the next number follows it, that one restarts.
    Strayed,
}

/// A report block's figures (RFC 3550 §6.4.1), all but the two times of the last sender report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceptionReport {
    pub ssrc: u32,
    /// Lost since the last report, of 256; zero when duplicates outweigh.
    pub fraction_lost: u8,
    /// 24 bits, signed: duplicates make it fall below zero.
    pub cumulative_lost: i32,
    pub extended_highest: u32,
    /// In units of the RTP clock.
    pub jitter: u32,
}

/// One peer's stream as it is received.
pub struct Reception {
    clock_hz: u32,
    stream: Option<Stream>,
    /// Totals of streams that are over.
    expected_before: u64,
    received_before: u64,
    jitter_max: u32,
}

/// What is known of one SSRC; names as in A.1 and A.3.
struct Stream {
    ssrc: u32,
    base: u32,
    highest: u32,
    /// The number after a stray, which would confirm it.
    confirming: Option<u16>,
    received: u32,
    expected_prior: u32,
    received_prior: u32,
    /// Last transit time and jitter, in clock units; jitter at 2^-4 (A.8).
    transit: Option<u32>,
    jitter: u32,
}

/// A gap of more than this is a restart: one minute of 20 ms packets (A.1).
const DROPOUT_MAX: u16 = 3_000;
/// Packets this far behind are late, beyond it a restart (A.1).
const MISORDER_MAX: u16 = 100;

impl Reception {
    /// An account of a stream whose timestamps tick at `clock_hz`.
    pub fn new(clock_hz: u32) -> Reception {
        Reception {
            clock_hz: clock_hz.max(1),
            stream: None,
            expected_before: 0,
            received_before: 0,
            jitter_max: 0,
        }
    }

    /// Counts one packet and places its number.
    pub fn receive(&mut self, header: &RtpHeader) -> Arrival {
        let number = header.sequence;
        match &mut self.stream {
            Some(stream) if stream.ssrc == header.ssrc => {
                if let Some(arrival) = stream.place(number) {
                    return arrival;
                }
            }
            _ => {}
        }
        self.start(header.ssrc, number)
    }

    /// Takes one packet into the jitter (A.8). Only packets whose timestamp says when they were
    /// sampled count: not telephone-events, which repeat theirs. Gives the difference of its transit
    /// time from that of the packet before, in units of the RTP clock.
    pub fn measure_jitter(&mut self, now: Instant, timestamp: u32) -> Option<u32> {
        let stream = self.stream.as_mut()?;
        let ticks = u128::from(now.as_nanos()) * u128::from(self.clock_hz) / 1_000_000_000;
        let transit = (ticks as u32).wrapping_sub(timestamp);
        let before = stream.transit.replace(transit)?;
        let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
        // A jump of more than a second is a new time base, not jitter.
        if difference > self.clock_hz {
            return None;
        }
        stream.jitter = stream.jitter + difference - ((stream.jitter + 8) >> 4);
        self.jitter_max = self.jitter_max.max(stream.jitter >> 4);
        Some(difference)
    }

    /// The figures of a report block, and begins the next interval. `None` before the first packet.
    pub fn report(&mut self) -> Option<ReceptionReport> {
        let stream = self.stream.as_mut()?;
        let expected = stream.expected();
        let interval = expected.wrapping_sub(stream.expected_prior);
        let received = stream.received.wrapping_sub(stream.received_prior);
        stream.expected_prior = expected;
        stream.received_prior = stream.received;
        let lost = i64::from(interval) - i64::from(received);
        let fraction_lost = if interval == 0 || lost <= 0 {
            0
        } else {
            ((lost << 8) / i64::from(interval)).min(255) as u8
        };
        let cumulative = i64::from(expected) - i64::from(stream.received);
        Some(ReceptionReport {
            ssrc: stream.ssrc,
            fraction_lost,
            cumulative_lost: cumulative.clamp(-0x80_0000, 0x7F_FFFF) as i32,
            extended_highest: stream.highest,
            jitter: stream.jitter >> 4,
        })
    }

    /// The SSRC that is received now.
    pub fn ssrc(&self) -> Option<u32> {
        self.stream.as_ref().map(|stream| stream.ssrc)
    }

    /// Packets that were expected and never came, over all SSRCs.
    pub fn lost(&self) -> u64 {
        let now = |f: fn(&Stream) -> u32| self.stream.as_ref().map_or(0, |s| u64::from(f(s)));
        let expected = self.expected_before + now(Stream::expected);
        expected.saturating_sub(self.received_before + now(|stream| stream.received))
    }

    /// Interarrival jitter now.
    pub fn jitter(&self) -> Duration {
        self.duration(self.stream.as_ref().map_or(0, |stream| stream.jitter >> 4))
    }

    /// The largest interarrival jitter so far.
    pub fn jitter_max(&self) -> Duration {
        self.duration(self.jitter_max)
    }

    fn duration(&self, ticks: u32) -> Duration {
        Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(self.clock_hz))
    }

    fn start(&mut self, ssrc: u32, number: u16) -> Arrival {
        if let Some(old) = &self.stream {
            self.expected_before += u64::from(old.expected());
            self.received_before += u64::from(old.received);
        }
        let extended = u32::from(number);
        self.stream = Some(Stream {
            ssrc,
            base: extended,
            highest: extended,
            confirming: None,
            received: 1,
            expected_prior: 0,
            received_prior: 0,
            transit: None,
            jitter: 0,
        });
        Arrival::Started { extended }
    }
}

impl Stream {
    /// Places a number of this stream; `None` when it begins a new one.
    fn place(&mut self, number: u16) -> Option<Arrival> {
        let newest = self.highest as u16;
        let ahead = number.wrapping_sub(newest);
        let behind = newest.wrapping_sub(number);
        if (1..DROPOUT_MAX).contains(&ahead) {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
            self.received = self.received.wrapping_add(1);
            self.confirming = None;
            Some(Arrival::Ahead { extended: self.highest, missing: ahead - 1 })
        } else if behind <= MISORDER_MAX {
            self.received = self.received.wrapping_add(1);
            Some(Arrival::Behind { extended: self.highest.wrapping_sub(u32::from(behind)) })
        } else if self.confirming == Some(number) {
            None
        } else {
            self.confirming = Some(number.wrapping_add(1));
            Some(Arrival::Strayed)
        }
    }

    fn expected(&self) -> u32 {
        self.highest.wrapping_sub(self.base).wrapping_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(ssrc: u32, sequence: u16) -> RtpHeader {
        RtpHeader { marker: false, payload_type: 0, sequence, timestamp: 0, ssrc }
    }

    fn arrivals(numbers: &[u16]) -> (Reception, Vec<Arrival>) {
        let mut reception = Reception::new(8_000);
        let arrivals = numbers.iter().map(|n| reception.receive(&header(1, *n))).collect();
        (reception, arrivals)
    }

    #[test]
    fn numbers_are_placed() {
        use Arrival::*;
        let (_, placed) = arrivals(&[65_534, 65_535, 1, 0, 1, 3_000, 3_101, 3_000]);
        assert_eq!(
            placed,
            [
                Started { extended: 65_534 },
                Ahead { extended: 65_535, missing: 0 },
                Ahead { extended: 65_537, missing: 1 },
                Behind { extended: 65_536 },
                Behind { extended: 65_537 },
                Ahead { extended: 68_536, missing: 2_998 },
                Ahead { extended: 68_637, missing: 100 },
                Strayed,
            ]
        );
    }

    #[test]
    fn both_edges_of_dropout_and_misorder() {
        use Arrival::*;
        for (second, expected) in [
            (10_000, Behind { extended: 10_000 }),
            (12_999, Ahead { extended: 12_999, missing: 2_998 }),
            (13_000, Strayed),
            (9_900, Behind { extended: 9_900 }),
            (9_899, Strayed),
        ] {
            assert_eq!(arrivals(&[10_000, second]).1[1], expected, "{second}");
        }
    }

    #[test]
    fn a_jump_is_followed_when_the_next_packet_confirms_it() {
        use Arrival::*;
        let (reception, placed) = arrivals(&[100, 40_000, 40_001, 40_002]);
        assert_eq!(
            placed[1..],
            [Strayed, Started { extended: 40_001 }, Ahead { extended: 40_002, missing: 0 }]
        );
        assert_eq!(reception.lost(), 0);
        let (_, placed) = arrivals(&[100, 40_000, 101, 40_001]);
        assert_eq!(placed[2..], [Ahead { extended: 101, missing: 0 }, Strayed]);
    }

    #[test]
    fn another_ssrc_starts_at_once_and_totals_go_on() {
        let mut reception = Reception::new(8_000);
        for (ssrc, number) in [(1, 10), (1, 14), (2, 500), (2, 502)] {
            reception.receive(&header(ssrc, number));
        }
        assert_eq!(reception.lost(), 4);
        assert_eq!(reception.ssrc(), Some(2));
        let report = reception.report().unwrap();
        assert_eq!((report.ssrc, report.cumulative_lost, report.extended_highest), (2, 1, 502));
    }

    #[test]
    fn loss_is_reported_by_interval_and_in_all() {
        let mut reception = Reception::new(8_000);
        assert_eq!(reception.report(), None);
        let send = |reception: &mut Reception, numbers: &[u16]| {
            for number in numbers {
                reception.receive(&header(7, *number));
            }
            let report = reception.report().unwrap();
            (report.fraction_lost, report.cumulative_lost)
        };
        assert_eq!(send(&mut reception, &[1, 2, 4]), (64, 1));
        assert_eq!(send(&mut reception, &[5, 6]), (0, 1));
        assert_eq!(send(&mut reception, &[6, 6, 7]), (0, -1));
        assert_eq!(send(&mut reception, &[]), (0, -1));
        assert_eq!(send(&mut reception, &[1_006]), (255, 997));
    }

    #[test]
    fn numbers_extend_over_several_cycles() {
        let mut reception = Reception::new(8_000);
        for number in 0..200_000u32 {
            reception.receive(&header(1, number as u16));
        }
        assert_eq!(reception.report().unwrap().extended_highest, 199_999);
        assert_eq!(reception.lost(), 0);
    }

    #[test]
    fn jitter_follows_the_appendix() {
        let mut reception = Reception::new(8_000);
        reception.receive(&header(1, 0));
        let mut expected = 0.0f64;
        for n in 0..500u64 {
            // Every second packet comes 5 ms (40 ticks) late.
            let late = n % 2 * 5_000_000;
            let now = Instant::from_nanos(n * 20_000_000 + late);
            reception.measure_jitter(now, (n * 160) as u32);
            if n > 0 {
                expected += (40.0 - expected) / 16.0;
            }
        }
        let jitter = reception.report().unwrap().jitter;
        assert!((f64::from(jitter) - expected).abs() <= 1.0, "{jitter} against {expected}");
        assert_eq!(reception.jitter().as_micros() as u32 / 1_000, jitter / 8);
        assert_eq!(reception.jitter_max(), reception.jitter());
        // A new time base is no jitter.
        reception.measure_jitter(Instant::from_nanos(10_000_000_000), 3_000_000_000);
        assert_eq!(reception.report().unwrap().jitter, jitter);
    }
}
