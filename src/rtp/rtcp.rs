//! RTCP (RFC 3550 §6): the one door to `rtcp-types`. Reads a compound packet as a short list of
//! what a call cares for, and writes reports with the CNAME into a slice without allocating. Extended
//! reports (RFC 3611) are read and written in `extended`.
//!
//! Lengths are checked over the whole compound before anything is read (appendix A.2). A broken
//! part inside sound lengths is skipped, not the compound. When to send is decided above.

pub mod extended;

use super::sequence::ReceptionReport;
use extended::{EXTENDED_REPORT, ExtendedBlocks};
use rtcp_types::{Bye, ReceiverReport, ReportBlock, RtcpPacketParser, SenderReport};
use std::time::Duration;

/// The RTP packets that a sender has sent (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// Wall time as NTP: seconds since 1900 and their fraction, 32 bits each.
    pub ntp: u64,
    /// The same moment on the RTP clock.
    pub rtp_timestamp: u32,
    pub packets: u32,
    pub octets: u32,
}

/// One report block: how a receiver hears one sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    pub reception: ReceptionReport,
    /// Middle 32 bits of the last sender report's NTP time; zero when none came.
    pub last_sender_report: u32,
    /// From that report's arrival to this block, in 1/65,536 s.
    pub delay_since: u32,
}

impl Block {
    /// Round trip to the block's writer, when the block answers a sender report of ours;
    /// `now_ntp` is the NTP time of the block's arrival. `None` also when clocks contradict.
    pub fn round_trip(&self, now_ntp: u64) -> Option<Duration> {
        round_trip(now_ntp, self.last_sender_report, self.delay_since)
    }
}

/// Round trip from the middle of an NTP time of ours that came back, how long it was held, and the
/// NTP time now. `None` when nothing came back, or clocks contradict.
fn round_trip(now_ntp: u64, ours: u32, delay_since: u32) -> Option<Duration> {
    if ours == 0 {
        return None;
    }
    let middle = (now_ntp >> 16) as u32;
    let units = middle.wrapping_sub(ours).wrapping_sub(delay_since);
    // A report of more than an hour ago is none, and the difference may fall below zero.
    (units < 3_600 << 16).then(|| Duration::from_micros((u64::from(units) * 1_000_000) >> 16))
}

/// A part of a compound packet.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    SenderReport {
        ssrc: u32,
        sender: SenderInfo,
        blocks: Blocks<'a>,
    },
    ReceiverReport {
        ssrc: u32,
        blocks: Blocks<'a>,
    },
    /// The first source's CNAME.
    Cname {
        ssrc: u32,
        cname: &'a [u8],
    },
    /// The first source that leaves. It does not end a call: only signalling does.
    Bye {
        ssrc: Option<u32>,
    },
    Extended {
        ssrc: u32,
        blocks: ExtendedBlocks<'a>,
    },
    /// Another packet type, or a part that contradicts itself.
    Other {
        packet_type: u8,
    },
}

/// The report blocks of a part.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    bytes: &'a [u8],
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let (block, rest) = self.bytes.split_at_checked(BLOCK_BYTES)?;
        self.bytes = rest;
        let block = ReportBlock::parse(block).ok()?;
        // The loss is signed, of 24 bits.
        let cumulative_lost = ((block.cumulative_lost() << 8) as i32) >> 8;
        Some(Block {
            reception: ReceptionReport {
                ssrc: block.ssrc(),
                fraction_lost: block.fraction_lost(),
                cumulative_lost,
                extended_highest: block.extended_sequence_number(),
                jitter: block.interarrival_jitter(),
            },
            last_sender_report: block.last_sender_report_timestamp(),
            delay_since: block.delay_since_last_sender_report_timestamp(),
        })
    }
}

/// A datagram that is no RTCP: lengths, versions or types contradict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtcpFault;

/// A compound packet whose lengths add up; yields its parts.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Checks one datagram. Its first packet may be of any kind (RFC 5506).
    pub fn parse(bytes: &'a [u8]) -> Result<Compound<'a>, RtcpFault> {
        let mut rest = bytes;
        loop {
            let (packet, after) = split(rest).ok_or(RtcpFault)?;
            let padded = packet[0] & 0x20 != 0;
            if padded && !after.is_empty() {
                return Err(RtcpFault);
            }
            if after.is_empty() {
                return Ok(Compound { rest: bytes });
            }
            rest = after;
        }
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let (packet, rest) = split(self.rest)?;
        self.rest = rest;
        let packet_type = packet[1];
        let part = match packet_type {
            SENDER_REPORT => sender_report(packet),
            RECEIVER_REPORT => receiver_report(packet),
            SOURCE_DESCRIPTION => cname(packet),
            BYE => Bye::parse(packet).ok().map(|bye| Part::Bye { ssrc: bye.ssrcs().next() }),
            EXTENDED_REPORT => {
                extended::read(packet).map(|(ssrc, blocks)| Part::Extended { ssrc, blocks })
            }
            _ => None,
        };
        Some(part.unwrap_or(Part::Other { packet_type }))
    }
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const BYE_BYTES: usize = 8;
const BLOCK_BYTES: usize = 24;
const SENDER_REPORT_BYTES: usize = 28;
const RECEIVER_REPORT_BYTES: usize = 8;
const BLOCKS_MAX: usize = 31;
const CNAME: u8 = 1;

/// The first packet, by its length field, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [first, packet_type, high, low] = *bytes.first_chunk()?;
    let known = first >> 6 == 2 && (192..=223).contains(&packet_type);
    let words = usize::from(u16::from_be_bytes([high, low])) + 1;
    bytes.split_at_checked(words * 4).filter(|_| known)
}

fn sender_report(packet: &[u8]) -> Option<Part<'_>> {
    let report = SenderReport::parse(packet).ok()?;
    let sender = SenderInfo {
        ntp: report.ntp_timestamp(),
        rtp_timestamp: report.rtp_timestamp(),
        packets: report.packet_count(),
        octets: report.octet_count(),
    };
    let blocks = blocks(packet, SENDER_REPORT_BYTES, report.n_reports())?;
    Some(Part::SenderReport { ssrc: report.ssrc(), sender, blocks })
}

fn receiver_report(packet: &[u8]) -> Option<Part<'_>> {
    let report = ReceiverReport::parse(packet).ok()?;
    let blocks = blocks(packet, RECEIVER_REPORT_BYTES, report.n_reports())?;
    Some(Part::ReceiverReport { ssrc: report.ssrc(), blocks })
}

fn blocks(packet: &[u8], start: usize, count: u8) -> Option<Blocks<'_>> {
    let end = start + usize::from(count) * BLOCK_BYTES;
    Some(Blocks { bytes: packet.get(start..end)? })
}

/// The CNAME of a source description's first chunk. Read here: the crate's reader allocates.
fn cname(packet: &[u8]) -> Option<Part<'_>> {
    let ssrc = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
    let mut items = packet.get(8..)?;
    loop {
        let [kind, len] = *items.first_chunk()?;
        let value = items.get(2..2 + usize::from(len))?;
        match kind {
            0 => return None,
            CNAME => return Some(Part::Cname { ssrc, cname: value }),
            _ => items = &items[2 + value.len()..],
        }
    }
}

/// What one compound of ours says.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Our own SSRC.
    pub ssrc: u32,
    /// Present when we sent RTP since the report before the last: a sender report.
    pub sender: Option<SenderInfo>,
    /// How we hear others, at most 31.
    pub blocks: &'a [Block],
    /// At most 255 bytes.
    pub cname: &'a str,
    /// We leave.
    pub bye: bool,
}

impl Report<'_> {
    /// Writes the compound (SR or RR, SDES with the CNAME, BYE) to the front of `out` and returns
    /// its length. `None` when it does not fit, or blocks or CNAME are over their bounds.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        if self.blocks.len() > BLOCKS_MAX || self.cname.len() > usize::from(u8::MAX) {
            return None;
        }
        let mut writer = Writer { out, len: 0 };
        self.write_report(&mut writer)?;
        self.write_cname(&mut writer)?;
        if self.bye {
            writer.bye(self.ssrc)?;
        }
        Some(writer.len)
    }

    fn write_report(&self, writer: &mut Writer<'_>) -> Option<()> {
        let (packet_type, fixed) = match self.sender {
            Some(_) => (SENDER_REPORT, SENDER_REPORT_BYTES),
            None => (RECEIVER_REPORT, RECEIVER_REPORT_BYTES),
        };
        let bytes = fixed + self.blocks.len() * BLOCK_BYTES;
        writer.header(self.blocks.len() as u8, packet_type, bytes)?;
        writer.word(self.ssrc)?;
        if let Some(sender) = self.sender {
            writer.word((sender.ntp >> 32) as u32)?;
            writer.word(sender.ntp as u32)?;
            writer.word(sender.rtp_timestamp)?;
            writer.word(sender.packets)?;
            writer.word(sender.octets)?;
        }
        for block in self.blocks {
            let reception = &block.reception;
            let lost = reception.cumulative_lost.clamp(-0x80_0000, 0x7F_FFFF) as u32 & 0xFF_FFFF;
            writer.word(reception.ssrc)?;
            writer.word(u32::from(reception.fraction_lost) << 24 | lost)?;
            writer.word(reception.extended_highest)?;
            writer.word(reception.jitter)?;
            writer.word(block.last_sender_report)?;
            writer.word(block.delay_since)?;
        }
        Some(())
    }

    /// One chunk with one item, ended by one to four zero bytes (RFC 3550 §6.5).
    fn write_cname(&self, writer: &mut Writer<'_>) -> Option<()> {
        let item = 2 + self.cname.len();
        let zeros = 4 - item % 4;
        writer.header(1, SOURCE_DESCRIPTION, 8 + item + zeros)?;
        writer.word(self.ssrc)?;
        writer.bytes(&[CNAME, self.cname.len() as u8])?;
        writer.bytes(self.cname.as_bytes())?;
        writer.bytes(&[0; 4][..zeros])
    }
}

/// Writes a BYE, the last packet of a compound, to the front of `out`; `None` when it does not fit.
pub fn write_bye(ssrc: u32, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer { out, len: 0 };
    writer.bye(ssrc)?;
    Some(writer.len)
}

struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn word(&mut self, word: u32) -> Option<()> {
        self.bytes(&word.to_be_bytes())
    }

    fn bye(&mut self, ssrc: u32) -> Option<()> {
        self.header(1, BYE, BYE_BYTES)?;
        self.word(ssrc)
    }

    /// A packet's first word: version 2, no padding; `bytes` is its whole length.
    fn header(&mut self, count: u8, packet_type: u8, bytes: usize) -> Option<()> {
        let words = (bytes / 4 - 1) as u32;
        self.word(u32::from(0x80 | count) << 24 | u32::from(packet_type) << 16 | words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(ssrc: u32) -> Block {
        Block {
            reception: ReceptionReport {
                ssrc,
                fraction_lost: 51,
                cumulative_lost: -3,
                extended_highest: 0x0001_0002,
                jitter: 77,
            },
            last_sender_report: 0xAABB_CCDD,
            delay_since: 65_536,
        }
    }

    fn report<'a>(blocks: &'a [Block], cname: &'a str, bye: bool) -> Report<'a> {
        let sender =
            SenderInfo { ntp: 0x0102_0304_0506_0708, rtp_timestamp: 9, packets: 10, octets: 11 };
        let sender = (!bye).then_some(sender);
        Report { ssrc: 0x1111_2222, sender, blocks, cname, bye }
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        let name = |part| match part {
            Part::SenderReport { ssrc, sender, blocks } => {
                format!("SR {ssrc:x} {sender:?} {:?}", blocks.collect::<Vec<_>>())
            }
            Part::ReceiverReport { ssrc, blocks } => {
                format!("RR {ssrc:x} {:?}", blocks.collect::<Vec<_>>())
            }
            Part::Cname { ssrc, cname } => {
                format!("CNAME {ssrc:x} {}", String::from_utf8_lossy(cname))
            }
            Part::Bye { ssrc } => format!("BYE {ssrc:x?}"),
            Part::Extended { ssrc, blocks } => format!("XR {ssrc:x} {}", blocks.count()),
            Part::Other { packet_type } => format!("other {packet_type}"),
        };
        Compound::parse(bytes).expect("a sound compound").map(name).collect()
    }

    #[test]
    fn what_we_write_reads_back_by_both_readers() {
        for cname in ["", "a", "ab", "abc", "abcd", &"x".repeat(255)] {
            for (count, bye) in [(0, false), (1, false), (1, true), (31, true)] {
                let blocks = vec![block(0xDEAD_BEEF); count];
                let report = report(&blocks, cname, bye);
                let mut out = [0; 1_500];
                let len = report.write(&mut out).unwrap();
                let mut expected = match report.sender {
                    Some(sender) => vec![format!("SR 11112222 {sender:?} {blocks:?}")],
                    None => vec![format!("RR 11112222 {blocks:?}")],
                };
                expected.push(format!("CNAME 11112222 {cname}"));
                if bye {
                    expected.push("BYE Some(11112222)".into());
                }
                assert_eq!(texts(&out[..len]), expected);
                let parsed = rtcp_types::Compound::parse(&out[..len]).unwrap();
                for packet in parsed {
                    assert!(!packet.unwrap().is_unknown());
                }
                assert_eq!(report.write(&mut out[..len]), Some(len));
                assert_eq!(report.write(&mut out[..len - 1]), None);
            }
        }
    }

    #[test]
    fn reports_over_their_bounds_are_not_written() {
        let blocks = [block(1); 32];
        let mut out = [0; 2_000];
        assert_eq!(report(&blocks, "a", false).write(&mut out), None);
        assert_eq!(report(&[], &"x".repeat(256), false).write(&mut out), None);
    }

    #[test]
    fn a_sender_report_has_the_bytes_of_the_rfc() {
        let mut out = [0; 100];
        let len = report(&[block(0xDEAD_BEEF)], "cn", false).write(&mut out).unwrap();
        let expected = [
            0x81, 200, 0, 12, 0x11, 0x11, 0x22, 0x22, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0,
            10, 0, 0, 0, 11, 0xDE, 0xAD, 0xBE, 0xEF, 51, 0xFF, 0xFF, 0xFD, 0, 1, 0, 2, 0, 0, 0, 77,
            0xAA, 0xBB, 0xCC, 0xDD, 0, 1, 0, 0, 0x81, 202, 0, 3, 0x11, 0x11, 0x22, 0x22, 1, 2,
            b'c', b'n', 0, 0, 0, 0,
        ];
        assert_eq!(&out[..len], expected);
    }

    #[test]
    fn contradicting_lengths_are_faults_and_broken_parts_are_other() {
        for fault in [
            &[][..],
            &[0x80, 201, 0],
            &[0x80, 201, 0, 1],
            &[0x40, 201, 0, 0],
            &[0x80, 191, 0, 0],
            &[0x80, 224, 0, 0],
            &[0x80, 203, 0, 0, 0x80],
            // Padding before the last packet.
            &[0xA0, 203, 0, 0, 0x80, 203, 0, 0],
        ] {
            assert_eq!(Compound::parse(fault).err(), Some(RtcpFault), "{fault:?}");
        }
        for (bytes, expected) in [
            (&[0x80, 203, 0, 0][..], "BYE None"),
            (&[0x82, 203, 0, 1, 0, 0, 0, 5], "other 203"),
            (&[0x9F, 201, 0, 1, 0, 0, 0, 5], "other 201"),
            (&[0x80, 200, 0, 1, 0, 0, 0, 5], "other 200"),
            (&[0x81, 202, 0, 2, 0, 0, 0, 5, 1, 9, 1, 1], "other 202"),
            (&[0x81, 202, 0, 2, 0, 0, 0, 5, 2, 0, 1, 0], "CNAME 5 "),
            (&[0x80, 205, 0, 1, 0, 0, 0, 5], "other 205"),
        ] {
            assert_eq!(texts(bytes), [expected], "{bytes:?}");
        }
    }

    #[test]
    fn the_round_trip_is_that_of_the_rfc_s_example() {
        // RFC 3550 §6.4.1, figure 2: A = 0xb710:8000, LSR = 0xb705:2000, DLSR = 0x0005:4000.
        let mut block = block(1);
        block.last_sender_report = 0xB705_2000;
        block.delay_since = 0x0005_4000;
        let now = 0xB44D_B710_8000_0000;
        assert_eq!(block.round_trip(now), Some(Duration::from_micros(6_125_000)));
        block.delay_since = 0x000B_6000;
        assert_eq!(block.round_trip(now), Some(Duration::ZERO));
        block.delay_since += 1;
        assert_eq!(block.round_trip(now), None, "the clocks contradict");
        block.last_sender_report = 0;
        assert_eq!(block.round_trip(now), None);
    }
}
