//! Extended reports (RFC 3611): packets of type 207 made of blocks. Reads and writes those that a
//! call cares for: VoIP metrics (7), statistics summary (6), receiver reference time (4) and the answer
//! to it (5, DLRR). Other blocks are passed over. What is measured, and when it is told, is decided
//! above.

use super::{Writer, round_trip};
use std::time::Duration;

pub(super) const EXTENDED_REPORT: u8 = 207;
const REFERENCE_TIME: u8 = 4;
const REFERENCE_ANSWER: u8 = 5;
const SUMMARY: u8 = 6;
const VOIP_METRICS: u8 = 7;
/// Bytes of a packet before its blocks, of a block before its contents, and of contents.
const HEADER_BYTES: usize = 8;
const BLOCK_HEADER_BYTES: usize = 4;
const REFERENCE_TIME_BYTES: usize = 8;
const ANSWER_BYTES: usize = 12;
const SUMMARY_BYTES: usize = 36;
const VOIP_METRICS_BYTES: usize = 32;
/// Flags of a summary: it tells of losses, duplicates, jitter (§4.6). Ours never tells of hops.
const TELLS_LOSSES: u8 = 0x80;
const TELLS_DUPLICATES: u8 = 0x40;
const TELLS_JITTER: u8 = 0x20;
/// A figure of eight bits that is not known (§4.7).
const UNKNOWN: u8 = 127;

/// How concealment is done (§4.7.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Concealment {
    #[default]
    Unspecified,
    Disabled,
    Enhanced,
    Standard,
}

/// Whether a jitter buffer follows the jitter (§4.7.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Adaptation {
    #[default]
    Unknown,
    Fixed,
    Adaptive,
}

/// How a receiver hears one sender (§4.7): cumulative since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VoipMetrics {
    /// The sender that it is about.
    pub ssrc: u32,
    /// Of 256: lost on the way, and discarded by the jitter buffer.
    pub loss_rate: u8,
    pub discard_rate: u8,
    /// Of 256: lost or discarded in bursts, and in the gaps between them; with their mean lengths.
    pub burst_density: u8,
    pub gap_density: u8,
    pub burst_ms: u16,
    pub gap_ms: u16,
    /// Between the RTP interfaces; zero when not known.
    pub round_trip_ms: u16,
    /// In this end, from its RTP interface to the ear and back from the mouth; zero when not known.
    pub end_system_ms: u16,
    /// In dBm0.
    pub signal_level: Option<i8>,
    pub noise_level: Option<i8>,
    /// Residual echo return loss in dB.
    pub echo_return_loss: Option<u8>,
    pub gmin: u8,
    /// 0 to 100.
    pub r_factor: Option<u8>,
    /// Of another network behind this end.
    pub external_r_factor: Option<u8>,
    /// Mean opinion scores in tenths, 10 to 50: of listening, and in conversation.
    pub mos_listening: Option<u8>,
    pub mos_conversation: Option<u8>,
    pub concealment: Concealment,
    pub adaptation: Adaptation,
    /// How fast the buffer adapts, 0 to 15.
    pub adaptation_rate: u8,
    /// The jitter buffer's delay: now, the largest so far, and the largest that there can be.
    pub buffer_nominal_ms: u16,
    pub buffer_maximum_ms: u16,
    pub buffer_absolute_ms: u16,
}

/// Losses, duplicates and jitter over a stretch of one sender's packets (§4.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    pub ssrc: u32,
    /// The first number of the stretch, and the number after its last.
    pub begin: u16,
    pub end: u16,
    pub lost: Option<u32>,
    pub duplicates: Option<u32>,
    pub jitter: Option<JitterSummary>,
}

/// Differences of transit time between packets, in units of the RTP clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JitterSummary {
    pub least: u32,
    pub most: u32,
    pub mean: u32,
    pub deviation: u32,
}

/// The answer to a reference time of ours (§4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReferenceAnswer {
    /// Whose reference time it answers.
    pub ssrc: u32,
    /// The middle 32 bits of that time.
    pub last: u32,
    /// From its arrival to this answer, in 1/65,536 s.
    pub delay_since: u32,
}

impl ReferenceAnswer {
    /// Round trip to the answer's writer, as for report blocks.
    pub fn round_trip(&self, now_ntp: u64) -> Option<Duration> {
        round_trip(now_ntp, self.last, self.delay_since)
    }
}

/// One block of an extended report.
#[derive(Clone, Copy, Debug)]
pub enum ExtendedBlock<'a> {
    ReferenceTime {
        ntp: u64,
    },
    ReferenceAnswers(ReferenceAnswers<'a>),
    Summary(Summary),
    VoipMetrics(VoipMetrics),
    /// Another block type, or one whose length is not its type's.
    Other {
        block_type: u8,
    },
}

/// The answers of one block, at most as many as a packet has room for.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceAnswers<'a> {
    bytes: &'a [u8],
}

impl Iterator for ReferenceAnswers<'_> {
    type Item = ReferenceAnswer;

    fn next(&mut self) -> Option<ReferenceAnswer> {
        let (answer, rest) = self.bytes.split_at_checked(ANSWER_BYTES)?;
        self.bytes = rest;
        let mut fields = Fields(answer);
        Some(ReferenceAnswer {
            ssrc: fields.word()?,
            last: fields.word()?,
            delay_since: fields.word()?,
        })
    }
}

/// The blocks of an extended report whose lengths add up.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedBlocks<'a> {
    rest: &'a [u8],
}

/// The sender and the blocks of a packet of type 207, without padding. `None` when the blocks'
/// lengths do not add up to the packet's.
pub(super) fn read(packet: &[u8]) -> Option<(u32, ExtendedBlocks<'_>)> {
    let (header, blocks) = packet.split_at_checked(HEADER_BYTES)?;
    let padding = match header.first()? & 0x20 {
        0 => 0,
        _ => usize::from(*packet.last()?),
    };
    let blocks = blocks.get(..blocks.len().checked_sub(padding)?)?;
    let mut rest = blocks;
    while !rest.is_empty() {
        rest = split(rest)?.1;
    }
    Some((Fields(header.get(4..)?).word()?, ExtendedBlocks { rest: blocks }))
}

fn split(blocks: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_, _, high, low] = *blocks.first_chunk()?;
    let words = usize::from(u16::from_be_bytes([high, low])) + 1;
    blocks.split_at_checked(words * 4)
}

impl<'a> Iterator for ExtendedBlocks<'a> {
    type Item = ExtendedBlock<'a>;

    fn next(&mut self) -> Option<ExtendedBlock<'a>> {
        let (block, rest) = split(self.rest)?;
        self.rest = rest;
        let (&[block_type, flags, ..], contents) =
            block.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
        let known = match (block_type, contents.len()) {
            (REFERENCE_TIME, REFERENCE_TIME_BYTES) => reference_time(contents),
            (REFERENCE_ANSWER, bytes) if bytes % ANSWER_BYTES == 0 => {
                Some(ExtendedBlock::ReferenceAnswers(ReferenceAnswers { bytes: contents }))
            }
            (SUMMARY, SUMMARY_BYTES) => summary(flags, contents).map(ExtendedBlock::Summary),
            (VOIP_METRICS, VOIP_METRICS_BYTES) => {
                voip_metrics(contents).map(ExtendedBlock::VoipMetrics)
            }
            _ => None,
        };
        Some(known.unwrap_or(ExtendedBlock::Other { block_type }))
    }
}

fn reference_time<'a>(contents: &[u8]) -> Option<ExtendedBlock<'a>> {
    let mut fields = Fields(contents);
    let (seconds, fraction) = (fields.word()?, fields.word()?);
    Some(ExtendedBlock::ReferenceTime { ntp: u64::from(seconds) << 32 | u64::from(fraction) })
}

fn summary(flags: u8, contents: &[u8]) -> Option<Summary> {
    let mut fields = Fields(contents);
    let (ssrc, begin, end) = (fields.word()?, fields.half()?, fields.half()?);
    let (lost, duplicates) = (fields.word()?, fields.word()?);
    let jitter = JitterSummary {
        least: fields.word()?,
        most: fields.word()?,
        mean: fields.word()?,
        deviation: fields.word()?,
    };
    Some(Summary {
        ssrc,
        begin,
        end,
        lost: (flags & TELLS_LOSSES != 0).then_some(lost),
        duplicates: (flags & TELLS_DUPLICATES != 0).then_some(duplicates),
        jitter: (flags & TELLS_JITTER != 0).then_some(jitter),
    })
}

fn voip_metrics(contents: &[u8]) -> Option<VoipMetrics> {
    let mut fields = Fields(contents);
    let level = |byte: u8| (byte != UNKNOWN).then_some(byte as i8);
    let rating = |byte: u8| Some(byte).filter(|rating| *rating <= 100);
    let score = |byte: u8| Some(byte).filter(|score| (10..=50).contains(score));
    let mut metrics = VoipMetrics {
        ssrc: fields.word()?,
        loss_rate: fields.byte()?,
        discard_rate: fields.byte()?,
        burst_density: fields.byte()?,
        gap_density: fields.byte()?,
        burst_ms: fields.half()?,
        gap_ms: fields.half()?,
        round_trip_ms: fields.half()?,
        end_system_ms: fields.half()?,
        signal_level: level(fields.byte()?),
        noise_level: level(fields.byte()?),
        echo_return_loss: Some(fields.byte()?).filter(|loss| *loss != UNKNOWN),
        gmin: fields.byte()?,
        r_factor: rating(fields.byte()?),
        external_r_factor: rating(fields.byte()?),
        mos_listening: score(fields.byte()?),
        mos_conversation: score(fields.byte()?),
        ..VoipMetrics::default()
    };
    let receiver = fields.byte()?;
    fields.byte()?;
    metrics.concealment = match receiver >> 6 {
        1 => Concealment::Disabled,
        2 => Concealment::Enhanced,
        3 => Concealment::Standard,
        _ => Concealment::Unspecified,
    };
    metrics.adaptation = match receiver >> 4 & 3 {
        2 => Adaptation::Fixed,
        3 => Adaptation::Adaptive,
        _ => Adaptation::Unknown,
    };
    metrics.adaptation_rate = receiver & 15;
    metrics.buffer_nominal_ms = fields.half()?;
    metrics.buffer_maximum_ms = fields.half()?;
    metrics.buffer_absolute_ms = fields.half()?;
    Some(metrics)
}

/// Reads fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn half(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
}

/// What one extended report of ours says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extended {
    /// Our own SSRC.
    pub ssrc: u32,
    /// The time by our clock as NTP: whoever gets it may answer it.
    pub reference_time: Option<u64>,
    /// The answer to the peer's reference time.
    pub answer: Option<ReferenceAnswer>,
    pub summary: Option<Summary>,
    pub voip_metrics: Option<VoipMetrics>,
}

impl Extended {
    /// Writes the packet to the front of `out`, behind which a compound goes on, and returns its
    /// length; zero when there is nothing to say. `None` when it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let sizes = [
            self.reference_time.map(|_| REFERENCE_TIME_BYTES),
            self.answer.map(|_| ANSWER_BYTES),
            self.summary.map(|_| SUMMARY_BYTES),
            self.voip_metrics.map(|_| VOIP_METRICS_BYTES),
        ];
        let blocks: usize = sizes.iter().flatten().map(|size| BLOCK_HEADER_BYTES + size).sum();
        if blocks == 0 {
            return Some(0);
        }
        let mut writer = Writer { out, len: 0 };
        writer.header(0, EXTENDED_REPORT, HEADER_BYTES + blocks)?;
        writer.word(self.ssrc)?;
        if let Some(ntp) = self.reference_time {
            block_header(&mut writer, REFERENCE_TIME, 0, REFERENCE_TIME_BYTES)?;
            writer.word((ntp >> 32) as u32)?;
            writer.word(ntp as u32)?;
        }
        if let Some(answer) = &self.answer {
            block_header(&mut writer, REFERENCE_ANSWER, 0, ANSWER_BYTES)?;
            writer.word(answer.ssrc)?;
            writer.word(answer.last)?;
            writer.word(answer.delay_since)?;
        }
        if let Some(summary) = &self.summary {
            write_summary(&mut writer, summary)?;
        }
        if let Some(metrics) = &self.voip_metrics {
            write_voip_metrics(&mut writer, metrics)?;
        }
        Some(writer.len)
    }
}

fn block_header(writer: &mut Writer<'_>, block_type: u8, flags: u8, bytes: usize) -> Option<()> {
    writer.bytes(&[block_type, flags])?;
    writer.bytes(&((bytes / 4) as u16).to_be_bytes())
}

fn write_summary(writer: &mut Writer<'_>, summary: &Summary) -> Option<()> {
    let flag = |told: bool, flag: u8| if told { flag } else { 0 };
    let flags = flag(summary.lost.is_some(), TELLS_LOSSES)
        | flag(summary.duplicates.is_some(), TELLS_DUPLICATES)
        | flag(summary.jitter.is_some(), TELLS_JITTER);
    block_header(writer, SUMMARY, flags, SUMMARY_BYTES)?;
    writer.word(summary.ssrc)?;
    writer.word(u32::from(summary.begin) << 16 | u32::from(summary.end))?;
    writer.word(summary.lost.unwrap_or(0))?;
    writer.word(summary.duplicates.unwrap_or(0))?;
    let JitterSummary { least, most, mean, deviation } = summary.jitter.unwrap_or_default();
    for figure in [least, most, mean, deviation] {
        writer.word(figure)?;
    }
    // Hops, of which nothing is told.
    writer.word(0)
}

fn write_voip_metrics(writer: &mut Writer<'_>, metrics: &VoipMetrics) -> Option<()> {
    block_header(writer, VOIP_METRICS, 0, VOIP_METRICS_BYTES)?;
    writer.word(metrics.ssrc)?;
    writer.bytes(&[
        metrics.loss_rate,
        metrics.discard_rate,
        metrics.burst_density,
        metrics.gap_density,
    ])?;
    writer.word(u32::from(metrics.burst_ms) << 16 | u32::from(metrics.gap_ms))?;
    writer.word(u32::from(metrics.round_trip_ms) << 16 | u32::from(metrics.end_system_ms))?;
    let level = |level: Option<i8>| level.map_or(UNKNOWN, |level| level as u8);
    let known = |figure: Option<u8>| figure.unwrap_or(UNKNOWN);
    writer.bytes(&[
        level(metrics.signal_level),
        level(metrics.noise_level),
        known(metrics.echo_return_loss),
        metrics.gmin,
        known(metrics.r_factor),
        known(metrics.external_r_factor),
        known(metrics.mos_listening),
        known(metrics.mos_conversation),
        receiver_configuration(metrics),
        0,
    ])?;
    writer.bytes(&metrics.buffer_nominal_ms.to_be_bytes())?;
    writer.word(u32::from(metrics.buffer_maximum_ms) << 16 | u32::from(metrics.buffer_absolute_ms))
}

fn receiver_configuration(metrics: &VoipMetrics) -> u8 {
    let concealment = match metrics.concealment {
        Concealment::Unspecified => 0,
        Concealment::Disabled => 1,
        Concealment::Enhanced => 2,
        Concealment::Standard => 3,
    };
    let adaptation = match metrics.adaptation {
        Adaptation::Unknown => 0,
        Adaptation::Fixed => 2,
        Adaptation::Adaptive => 3,
    };
    concealment << 6 | adaptation << 4 | metrics.adaptation_rate & 15
}

#[cfg(test)]
mod tests {
    use super::super::{Compound, Part};
    use super::*;

    fn metrics() -> VoipMetrics {
        VoipMetrics {
            ssrc: 0xDEAD_BEEF,
            loss_rate: 12,
            discard_rate: 3,
            burst_density: 179,
            gap_density: 2,
            burst_ms: 260,
            gap_ms: 10_000,
            round_trip_ms: 41,
            end_system_ms: 130,
            signal_level: Some(-18),
            noise_level: None,
            echo_return_loss: None,
            gmin: 16,
            r_factor: Some(83),
            external_r_factor: None,
            mos_listening: Some(42),
            mos_conversation: Some(41),
            concealment: Concealment::Standard,
            adaptation: Adaptation::Adaptive,
            adaptation_rate: 5,
            buffer_nominal_ms: 60,
            buffer_maximum_ms: 100,
            buffer_absolute_ms: 300,
        }
    }

    /// Every block, with its bytes by hand from the figures of §4.4 to §4.7.
    fn whole() -> (Extended, Vec<u8>) {
        let summary = Summary {
            ssrc: 0xDEAD_BEEF,
            begin: 0xFFF0,
            end: 0x0010,
            lost: Some(2),
            duplicates: Some(1),
            jitter: Some(JitterSummary { least: 1, most: 900, mean: 30, deviation: 44 }),
        };
        let report = Extended {
            ssrc: 0x1111_2222,
            reference_time: Some(0x0102_0304_0506_0708),
            answer: Some(ReferenceAnswer { ssrc: 7, last: 0xB705_2000, delay_since: 0x0005_4000 }),
            summary: Some(summary),
            voip_metrics: Some(metrics()),
        };
        let bytes = [
            &[0x80, 207, 0, 27, 0x11, 0x11, 0x22, 0x22][..],
            &[4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8],
            &[5, 0, 0, 3, 0, 0, 0, 7, 0xB7, 5, 0x20, 0, 0, 5, 0x40, 0],
            &[6, 0xE0, 0, 9, 0xDE, 0xAD, 0xBE, 0xEF, 0xFF, 0xF0, 0, 0x10],
            &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 3, 132, 0, 0, 0, 30, 0, 0, 0, 44],
            &[0, 0, 0, 0],
            &[7, 0, 0, 8, 0xDE, 0xAD, 0xBE, 0xEF, 12, 3, 179, 2, 1, 4, 0x27, 0x10],
            &[0, 41, 0, 130, 0xEE, 127, 127, 16, 83, 127, 42, 41, 0xF5, 0, 0, 60],
            &[0, 100, 1, 44],
        ];
        (report, bytes.concat())
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        for part in Compound::parse(bytes).expect("sound lengths") {
            let Part::Extended { ssrc, blocks } = part else {
                texts.push(format!("{part:?}"));
                continue;
            };
            texts.push(format!("XR {ssrc:x}"));
            texts.extend(blocks.map(|block| match block {
                ExtendedBlock::ReferenceAnswers(answers) => {
                    format!("{:?}", answers.collect::<Vec<_>>())
                }
                block => format!("{block:?}"),
            }));
        }
        texts
    }

    #[test]
    fn each_block_has_the_bytes_of_the_rfc_and_reads_back() {
        let (report, expected) = whole();
        let mut out = [0; 200];
        let len = report.write(&mut out).expect("it fits");
        assert_eq!(&out[..len], expected);
        let Extended { answer: Some(answer), summary: Some(summary), .. } = report else {
            panic!("all blocks are there")
        };
        let read = [
            "XR 11112222".to_owned(),
            format!("{:?}", ExtendedBlock::ReferenceTime { ntp: 0x0102_0304_0506_0708 }),
            format!("{:?}", [answer]),
            format!("{:?}", ExtendedBlock::Summary(summary)),
            format!("{:?}", ExtendedBlock::VoipMetrics(metrics())),
        ];
        assert_eq!(texts(&expected), read);
        assert_eq!(report.write(&mut out[..len]), Some(len));
        for short in 0..len {
            assert_eq!(report.write(&mut out[..short]), None, "{short} bytes");
        }
        assert_eq!(Extended { ssrc: 1, ..Extended::default() }.write(&mut out), Some(0));
        let trip = answer.round_trip(0xB44D_B710_8000_0000);
        assert_eq!(trip, Some(Duration::from_micros(6_125_000)), "the example of RFC 3550 §6.4.1");
    }

    #[test]
    fn figures_that_are_unknown_or_out_of_range_are_none() {
        let (_, mut bytes) = whole();
        let at = bytes.len() - 16;
        for (place, byte) in [(0, 127), (4, 101), (5, 255), (6, 9), (7, 51), (8, 0x1F)] {
            bytes[at + place] = byte;
        }
        let expected = VoipMetrics {
            signal_level: None,
            r_factor: None,
            external_r_factor: None,
            mos_listening: None,
            mos_conversation: None,
            concealment: Concealment::Unspecified,
            adaptation: Adaptation::Unknown,
            adaptation_rate: 15,
            ..metrics()
        };
        assert_eq!(texts(&bytes)[4], format!("{:?}", ExtendedBlock::VoipMetrics(expected)));
    }

    #[test]
    fn unknown_blocks_are_passed_over_and_lengths_that_lie_are_refused() {
        for (bytes, expected) in [
            (&[0x80, 207, 0, 1, 0, 0, 0, 5][..], &["XR 5"][..]),
            // A block of another type, one of ours with another length, then one that is known.
            (
                &[
                    0x80, 207, 0, 8, 0, 0, 0, 5, 99, 1, 0, 1, 1, 2, 3, 4, 7, 0, 0, 0, 5, 0, 0, 0,
                    4, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2,
                ],
                &[
                    "XR 5",
                    "Other { block_type: 99 }",
                    "Other { block_type: 7 }",
                    "[]",
                    "ReferenceTime { ntp: 4294967298 }",
                ],
            ),
            // Padding, as the last packet of a compound may have.
            (
                &[0xA0, 207, 0, 3, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 0, 4],
                &["XR 5", "Other { block_type: 1 }"],
            ),
            (&[0x80, 207, 0, 0], &["Other { packet_type: 207 }"]),
            (&[0x80, 207, 0, 2, 0, 0, 0, 5, 4, 0, 0, 2], &["Other { packet_type: 207 }"]),
            (&[0x80, 207, 0, 2, 0, 0, 0, 5, 4, 0, 0xFF, 0xFF], &["Other { packet_type: 207 }"]),
            (&[0xA0, 207, 0, 2, 0, 0, 0, 5, 4, 0, 0, 9], &["Other { packet_type: 207 }"]),
        ] {
            assert_eq!(texts(bytes), expected, "{bytes:?}");
        }
    }
}
