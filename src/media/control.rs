//! RTCP of one leg (RFC 3550 §6): our reports every five seconds or so, the round trip and the
//! reception figures; extended reports (RFC 3611) where they were agreed. A BYE of the peer ends
//! nothing: only signalling ends a call. It decides what a report says and when; where it goes is the
//! leg's matter.
//!
//! A session of two members whose senders are known needs no reconsideration (§6.3.3): the interval is
//! five seconds, or what the description's bandwidth for RTCP asks for, times one half to one and a
//! half. A description without any bandwidth for it gets none.

use super::outbound::Outbound;
use super::plan::ControlPlan;
use super::quality::{self, Coding, Loss};
use super::reception::Account;
use crate::ground::entropy::Chance;
use crate::ground::{Instant, Now};
use crate::rtp::losses;
use crate::rtp::packet::RtpHeader;
use crate::rtp::rtcp::extended::{
    Adaptation, Concealment, Extended, ExtendedBlock, ExtendedBlocks, ReferenceAnswer, VoipMetrics,
};
use crate::rtp::rtcp::{self, Block, Blocks, Compound, Part, Report, SenderInfo};
use crate::rtp::sequence::ReceptionReport;
use std::time::Duration;

/// The mean time between two reports (RFC 3550 §6.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// However little bandwidth there is, a report comes after this time.
const INTERVAL_MAX: Duration = Duration::from_secs(120);
/// The peer and we.
const MEMBERS: u64 = 2;
/// Bytes below RTCP that count as its bandwidth too: IPv4 and UDP (§6.2).
const LOWER_BYTES: usize = 28;

/// How a leg is played, for who is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// What we hear.
    pub(super) coding: Coding,
    /// Of audio in one packet.
    pub(super) packet: Duration,
    /// From mouth to ear, one way.
    pub(super) delay: Duration,
    /// What of it this end takes, both ways together.
    pub(super) own_delay: Duration,
    pub(super) buffer: Buffer,
}

/// The jitter buffer's delay: now, the largest so far, and the largest that there can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub(super) nominal: Duration,
    pub(super) maximum: Duration,
    pub(super) absolute: Duration,
    pub(super) adaptive: bool,
}

/// What a compound packet of the peer's was, beside what was taken from it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Told {
    /// It has a sender or receiver report, so it tells what the peer hears. A goodbye or an
    /// application's packet may come without one.
    pub(super) report: bool,
    pub(super) bye: bool,
}

/// The control channel of one leg.
pub(super) struct Control {
    cname: String,
    ssrc: u32,
    chance: Chance,
    plan: ControlPlan,
    /// Reports have begun: the leg is live.
    started: bool,
    /// The next report is the last, with a BYE.
    leaving: bool,
    /// When the next report is due; `None` before the agent joined.
    next: Option<Instant>,
    /// Mean bytes of a compound, ours and theirs, with what is below them (§6.3.3).
    mean_bytes: usize,
    account: Account,
    /// The peer's last sender report: the middle of its NTP time, and its arrival.
    sender_report: Option<(u32, Instant)>,
    /// The same of its last reference time (RFC 3611 §4.4), with its SSRC.
    reference_time: Option<(u32, u32, Instant)>,
    /// Packets that we had sent at the last two reports.
    sent_before: [u32; 2],
    round_trip: Duration,
    /// Of our packets, by the peer's last report: of 256 since the one before, and all since the
    /// first; `None` before one came.
    peer_fraction_lost: u8,
    peer_lost: Option<u64>,
    /// How the peer hears us by its extended reports.
    far_end: Option<VoipMetrics>,
}

impl Control {
    pub(super) fn new(cname: &str, ssrc: u32, clock_hz: u32, chance: Chance) -> Control {
        Control {
            cname: cname.into(),
            ssrc,
            chance,
            plan: ControlPlan::default(),
            started: false,
            leaving: false,
            next: None,
            mean_bytes: 128 + LOWER_BYTES,
            account: Account::new(clock_hz),
            sender_report: None,
            reference_time: None,
            sent_before: [0; 2],
            round_trip: Duration::ZERO,
            peer_fraction_lost: 0,
            peer_lost: None,
            far_end: None,
        }
    }

    /// Reports begin: the first after half the time of the others (RFC 3550 §6.2).
    pub(super) fn start(&mut self, now: Instant) {
        self.started = true;
        self.next = self.interval().map(|interval| now + interval / 2);
    }

    /// Follows a new offer/answer.
    pub(super) fn change(&mut self, now: Instant, plan: ControlPlan) {
        let silent = self.plan.bits_per_s == Some(0);
        self.plan = plan;
        if self.started && silent != (plan.bits_per_s == Some(0)) {
            self.start(now);
        }
    }

    /// The last report is due now, with a BYE, if there was one before or RTP (§6.3.7).
    pub(super) fn leave(&mut self, now: Instant) {
        if self.next.is_some() {
            self.leaving = true;
            self.next = Some(now);
        }
    }

    /// The codec changed; the RTP clock is another from now on.
    pub(super) fn change_clock(&mut self, clock_hz: u32) {
        self.account.change_clock(clock_hz);
    }

    /// Accounts for one packet of the peer's. `audio`: its timestamp is its sampling time.
    pub(super) fn handle_received(&mut self, now: Instant, header: &RtpHeader, audio: bool) {
        self.account.receive(now, header, audio);
    }

    /// The packet that came last was too late to be played.
    pub(super) fn handle_discarded(&mut self) {
        self.account.discard();
    }

    /// Takes a compound packet of the peer's. `None` when it is no such packet.
    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8]) -> Option<Told> {
        let compound = Compound::parse(packet).ok()?;
        let mut told = Told::default();
        self.count_bytes(packet.len());
        for part in compound {
            match part {
                Part::SenderReport { sender, blocks, .. } => {
                    self.sender_report = Some(((sender.ntp >> 16) as u32, now.at));
                    told.report = true;
                    self.on_blocks(now, blocks);
                }
                Part::ReceiverReport { blocks, .. } => {
                    told.report = true;
                    self.on_blocks(now, blocks);
                }
                Part::Extended { ssrc, blocks } => self.on_extended(now, ssrc, blocks),
                Part::Bye { .. } => told.bye = true,
                Part::Cname { .. } | Part::Other { .. } => {}
            }
        }
        Some(told)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Writes the report that is due into `buffer`; gives its length.
    pub(super) fn poll_report(
        &mut self,
        now: Now,
        outbound: &Outbound,
        manner: &Manner,
        buffer: &mut [u8],
    ) -> Option<usize> {
        self.next.filter(|next| *next <= now.at)?;
        let leaving = std::mem::take(&mut self.leaving);
        self.next = match leaving {
            true => None,
            false => self.interval().map(|interval| now.at + interval),
        };
        let counters = outbound.counters();
        if leaving && counters.packets == 0 && self.sent_before == [0; 2] {
            return None;
        }
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
        let mut len = Report { ssrc, sender, blocks, cname, bye: false }.write(buffer)?;
        let highest = block.map(|block| block.reception.extended_highest as u16);
        // The buffer has room for all of it: about 300 bytes.
        len += self.extended(now, highest, manner).write(buffer.get_mut(len..)?)?;
        if leaving {
            len += rtcp::write_bye(ssrc, buffer.get_mut(len..)?)?;
        }
        self.count_bytes(len);
        Some(len)
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Round trip by the peer's last report; zero when never measured.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// How much of what we send the peer misses, by its last report.
    pub(super) fn peer_loss_percent(&self) -> u8 {
        (u32::from(self.peer_fraction_lost) * 100).div_ceil(256) as u8
    }

    /// The same in conversation's terms; `None` when it never told.
    pub(super) fn peer_loss_lately(&self) -> Option<Loss> {
        self.peer_lost?;
        Some(Loss::random(f64::from(self.peer_fraction_lost) * 100.0 / 256.0))
    }

    /// How many of our packets the peer missed by its last report; `None` when it never told.
    pub(super) fn peer_lost(&self) -> Option<u64> {
        self.peer_lost
    }

    /// How the peer hears us by its last extended report.
    pub(super) fn far_end(&self) -> Option<VoipMetrics> {
        self.far_end
    }

    /// Until the next report; `None` when there is to be none.
    fn interval(&mut self) -> Option<Duration> {
        let mean = match self.plan.bits_per_s {
            None => INTERVAL,
            Some(0) => return None,
            Some(bits) => {
                let millis = self.mean_bytes as u64 * 8 * MEMBERS * 1_000 / u64::from(bits);
                Duration::from_millis(millis).clamp(INTERVAL, INTERVAL_MAX)
            }
        };
        Some(self.chance.duration(mean / 2, mean + mean / 2))
    }

    fn count_bytes(&mut self, bytes: usize) {
        self.mean_bytes = (bytes + LOWER_BYTES + 15 * self.mean_bytes) / 16;
    }

    fn on_blocks(&mut self, now: Now, blocks: Blocks<'_>) {
        for block in blocks {
            if block.reception.ssrc != self.ssrc {
                continue;
            }
            self.peer_fraction_lost = block.reception.fraction_lost;
            // Below zero where duplicates outweigh.
            self.peer_lost = Some(block.reception.cumulative_lost.try_into().unwrap_or(0));
            if let Some(round_trip) = block.round_trip(now.wall.ntp()) {
                self.round_trip = round_trip;
            }
        }
    }

    fn on_extended(&mut self, now: Now, ssrc: u32, blocks: ExtendedBlocks<'_>) {
        for block in blocks {
            match block {
                ExtendedBlock::ReferenceTime { ntp } => {
                    self.reference_time = Some((ssrc, (ntp >> 16) as u32, now.at));
                }
                ExtendedBlock::ReferenceAnswers(answers) => {
                    let ours = answers.filter(|answer| answer.ssrc == self.ssrc);
                    let measured = ours.filter_map(|answer| answer.round_trip(now.wall.ntp()));
                    if let Some(round_trip) = measured.last() {
                        self.round_trip = round_trip;
                    }
                }
                ExtendedBlock::VoipMetrics(metrics) if metrics.ssrc == self.ssrc => {
                    self.far_end = Some(metrics);
                }
                // A summary tells nothing that the report blocks do not tell of us.
                ExtendedBlock::VoipMetrics(_)
                | ExtendedBlock::Summary(_)
                | ExtendedBlock::Other { .. } => {}
            }
        }
    }

    fn block(&mut self, now: Instant) -> Option<Block> {
        let reception: ReceptionReport = self.account.report()?;
        let (last_sender_report, delay_since) = match self.sender_report {
            Some((middle, arrived)) => (middle, units_since(now, arrived)),
            None => (0, 0),
        };
        Some(Block { reception, last_sender_report, delay_since })
    }

    /// What was agreed of extended reports.
    fn extended(&mut self, now: Now, highest: Option<u16>, manner: &Manner) -> Extended {
        let wanted = self.plan.extended;
        if wanted.is_empty() {
            return Extended::default();
        }
        let answer =
            self.reference_time.filter(|_| wanted.reference_time).map(|(ssrc, last, arrived)| {
                ReferenceAnswer { ssrc, last, delay_since: units_since(now.at, arrived) }
            });
        let summary = highest.filter(|_| wanted.summary);
        let summary = summary.and_then(|highest| self.account.summarise(highest));
        Extended {
            ssrc: self.ssrc,
            reference_time: wanted.reference_time.then(|| now.wall.ntp()),
            answer,
            summary,
            voip_metrics: wanted.voip_metrics.then(|| self.voip_metrics(manner)).flatten(),
        }
    }

    /// How we hear the peer. `None` before its first packet.
    fn voip_metrics(&self, manner: &Manner) -> Option<VoipMetrics> {
        let ssrc = self.account.ssrc()?;
        let tally = self.account.tally();
        let loss = Loss::of(tally.missed(), tally.expected, tally.runs)?;
        let packet_ms = manner.packet.as_millis() as u64;
        let length = |packets: u64| half(packets.saturating_mul(packet_ms));
        let millis = |span: Duration| half(span.as_millis() as u64);
        // The fields are those of G.107 whatever the codec (RFC 3611 §4.7.5).
        let rating = |delay| quality::narrowband_rating(manner.coding, loss, delay);
        let score = |delay| Some((quality::score_of(rating(delay)) * 10.0).round() as u8);
        Some(VoipMetrics {
            ssrc,
            loss_rate: losses::share(tally.lost, tally.expected),
            discard_rate: losses::share(tally.discarded, tally.expected),
            burst_density: tally.bursts.density(),
            gap_density: tally.gaps.density(),
            burst_ms: length(tally.bursts.mean_packets()),
            gap_ms: length(tally.gaps.mean_packets()),
            round_trip_ms: millis(self.round_trip),
            end_system_ms: millis(manner.own_delay),
            gmin: losses::GMIN,
            r_factor: Some(rating(manner.delay).round() as u8),
            mos_listening: score(Duration::ZERO),
            mos_conversation: score(manner.delay),
            concealment: Concealment::Standard,
            adaptation: match manner.buffer.adaptive {
                true => Adaptation::Adaptive,
                false => Adaptation::Fixed,
            },
            buffer_nominal_ms: millis(manner.buffer.nominal),
            buffer_maximum_ms: millis(manner.buffer.maximum),
            buffer_absolute_ms: millis(manner.buffer.absolute),
            ..VoipMetrics::default()
        })
    }
}

/// In 1/65,536 s.
fn units_since(now: Instant, arrived: Instant) -> u32 {
    u32::try_from((now.since(arrived).as_nanos() << 16) / 1_000_000_000).unwrap_or(u32::MAX)
}

fn half(figure: u64) -> u16 {
    u16::try_from(figure).unwrap_or(u16::MAX)
}
