//! RTCP of one leg (RFC 3550 §6): our reports every five seconds or so, the round trip and the
//! reception figures. A BYE of the peer ends nothing: only signalling ends a call. It decides what
//! a report says and when; where it goes is the session's matter.

use super::outbound::Outbound;
use crate::ground::{Entropy, Instant, Now};
use crate::rtp::packet::RtpHeader;
use crate::rtp::rtcp::{Block, Blocks, Compound, Part, Report, SenderInfo};
use crate::rtp::sequence::Reception;
use std::time::Duration;

/// Reports come at random between half and one and a half times five seconds (RFC 3550 §6.2).
const INTERVAL_MIN: Duration = Duration::from_millis(2_500);
const INTERVAL_MAX: Duration = Duration::from_millis(7_500);

/// The control channel of one leg.
pub(super) struct Control {
    cname: String,
    ssrc: u32,
    entropy: Entropy,
    /// When the next report is due; `None` before the agent joined.
    next: Option<Instant>,
    reception: Reception,
    /// Figures of receptions with another clock, before the codec changed.
    lost_before: u64,
    jitter_max_before: Duration,
    /// The peer's last sender report: the middle of its NTP time, and its arrival.
    sender_report: Option<(u32, Instant)>,
    /// Packets that we had sent at the last two reports.
    sent_before: [u32; 2],
    round_trip: Duration,
    /// Of our packets, by the peer's last report, in percent.
    peer_loss_percent: u8,
    /// Of our packets, since the first, by the peer's last report; `None` before one came.
    peer_lost: Option<u64>,
}

impl Control {
    pub(super) fn new(cname: &str, ssrc: u32, clock_hz: u32, entropy: Entropy) -> Control {
        Control {
            cname: cname.into(),
            ssrc,
            entropy,
            next: None,
            reception: Reception::new(clock_hz),
            lost_before: 0,
            jitter_max_before: Duration::ZERO,
            sender_report: None,
            sent_before: [0; 2],
            round_trip: Duration::ZERO,
            peer_loss_percent: 0,
            peer_lost: None,
        }
    }

    /// Reports begin: the first after half the time of the others (RFC 3550 §6.2).
    pub(super) fn start(&mut self, now: Instant) {
        self.next = Some(now + self.entropy.duration(INTERVAL_MIN, INTERVAL_MAX) / 2);
    }

    /// The codec changed; the RTP clock is another from now on.
    pub(super) fn change_clock(&mut self, clock_hz: u32) {
        self.lost_before += self.reception.lost();
        self.jitter_max_before = self.jitter_max();
        self.reception = Reception::new(clock_hz);
    }

    /// Accounts for one packet of the caller's. `audio`: its timestamp is its sampling time.
    pub(super) fn handle_received(&mut self, now: Instant, header: &RtpHeader, audio: bool) {
        self.reception.receive(header);
        if audio {
            self.reception.measure_jitter(now, header.timestamp);
        }
    }

    /// Takes a compound packet of the peer's; false when it is none.
    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8]) -> bool {
        let Ok(compound) = Compound::parse(packet) else { return false };
        for part in compound {
            match part {
                Part::SenderReport { sender, blocks, .. } => {
                    self.sender_report = Some(((sender.ntp >> 16) as u32, now.at));
                    self.on_blocks(now, blocks);
                }
                Part::ReceiverReport { blocks, .. } => self.on_blocks(now, blocks),
                Part::Cname { .. } | Part::Bye { .. } | Part::Other { .. } => {}
            }
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Writes the report that is due into `buffer`; gives its length.
    pub(super) fn poll_report(
        &mut self,
        now: Now,
        outbound: &Outbound,
        buffer: &mut [u8],
    ) -> Option<usize> {
        self.next.filter(|next| *next <= now.at)?;
        self.next = Some(now.at + self.entropy.duration(INTERVAL_MIN, INTERVAL_MAX));
        let counters = outbound.counters();
        let sender = (counters.packets != self.sent_before[0]).then(|| SenderInfo {
            ntp: now.wall.ntp(),
            rtp_timestamp: outbound.timestamp_at(now.at),
            packets: counters.packets,
            octets: counters.payload_bytes,
        });
        self.sent_before = [self.sent_before[1], counters.packets];
        let block = self.block(now.at);
        let blocks = block.as_slice();
        let (ssrc, cname) = (self.ssrc, self.cname.as_str());
        Report { ssrc, sender, blocks, cname, bye: false }.write(buffer)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost_before + self.reception.lost()
    }

    pub(super) fn jitter(&self) -> Duration {
        self.reception.jitter()
    }

    pub(super) fn jitter_max(&self) -> Duration {
        self.reception.jitter_max().max(self.jitter_max_before)
    }

    /// Round trip by the peer's last report; zero when never measured.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// How much of what we send the peer misses, by its last report.
    pub(super) fn peer_loss_percent(&self) -> u8 {
        self.peer_loss_percent
    }

    /// How many of our packets the peer missed by its last report; `None` when it never told.
    pub(super) fn peer_lost(&self) -> Option<u64> {
        self.peer_lost
    }

    fn on_blocks(&mut self, now: Now, blocks: Blocks<'_>) {
        for block in blocks {
            if block.reception.ssrc != self.ssrc {
                continue;
            }
            let lost = u32::from(block.reception.fraction_lost) * 100;
            self.peer_loss_percent = lost.div_ceil(256) as u8;
            // Below zero where duplicates outweigh.
            self.peer_lost = Some(block.reception.cumulative_lost.try_into().unwrap_or(0));
            if let Some(round_trip) = block.round_trip(now.wall.ntp()) {
                self.round_trip = round_trip;
            }
        }
    }

    fn block(&mut self, now: Instant) -> Option<Block> {
        let reception = self.reception.report()?;
        let (last_sender_report, delay_since) = match self.sender_report {
            Some((middle, arrived)) => {
                let units = (now.since(arrived).as_nanos() << 16) / 1_000_000_000;
                (middle, u32::try_from(units).unwrap_or(u32::MAX))
            }
            None => (0, 0),
        };
        Some(Block { reception, last_sender_report, delay_since })
    }
}
