//! Lies in every field of what media peers send: 100,000 seeded mutations each of RTP, RTCP,
//! telephone-events and the payloads of every codec. Nothing may panic, and what is read must
//! keep to its bounds.

use std::time::Duration;
use voxedge::codec::amr_wb::{self, Packing};
use voxedge::codec::{
    CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, G7221Rate, IlbcMode,
};
use voxedge::ground::Instant;
use voxedge::rtp::packet::{RtpHeader, RtpPacket};
use voxedge::rtp::rtcp::extended::{
    Extended, ExtendedBlock, ReferenceAnswer, Summary, VoipMetrics,
};
use voxedge::rtp::rtcp::{Block, Compound, Part, Report, SenderInfo};
use voxedge::rtp::sequence::{Reception, ReceptionReport};
use voxedge::rtp::telephone_event::{Digit, Receiver, Sending};

const MUTATIONS: u32 = 100_000;

/// Xorshift: small, seeded, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// One to five edits: bytes, bits, extremes, cuts, repeats.
    pub fn mutate(&mut self, original: &[u8]) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..=self.below(5) {
            let at = self.below(bytes.len());
            match (self.below(6), bytes.get(at).copied()) {
                (0, Some(_)) => bytes[at] = self.next() as u8,
                (1, Some(byte)) => bytes[at] = byte ^ 1 << self.below(8),
                (2, Some(_)) => bytes[at] = [0, 0x7F, 0x80, 0xFF][self.below(4)],
                (3, _) => bytes.truncate(at),
                (4, Some(byte)) => bytes.insert(at, byte),
                _ => bytes.push(self.next() as u8),
            }
        }
        bytes
    }
}

fn header(sequence: u16) -> RtpHeader {
    RtpHeader { marker: false, payload_type: 0, sequence, timestamp: 160, ssrc: 0x5555_AAAA }
}

#[test]
fn rtp_headers_that_lie_are_refused_or_read_within_their_bounds() {
    let mut random = Random(1);
    let mut originals = vec![vec![0u8; 40]; 3];
    for (number, packet) in originals.iter_mut().enumerate() {
        header(number as u16).write(packet);
    }
    // One with an extension of two words and two contributing sources, one with padding.
    originals[1][0] = 0x92;
    originals[1][20..24].copy_from_slice(&[0xBE, 0xDE, 0, 2]);
    originals[2][0] = 0xA0;
    originals[2][39] = 4;
    let mut reception = Reception::new(8_000);
    let mut read = 0;
    for round in 0..MUTATIONS {
        let packet = random.mutate(&originals[round as usize % 3]);
        if let Ok(view) = RtpPacket::parse(&packet) {
            read += 1;
            assert!(view.payload.len() + 12 <= packet.len(), "round {round}: {packet:?}");
            reception.receive(&view.header);
            let now = Instant::from_nanos(u64::from(round) * 20_000_000);
            reception.measure_jitter(now, view.header.timestamp);
            let report = reception.report().expect("a packet was received");
            assert!((-0x80_0000..0x80_0000).contains(&report.cumulative_lost));
        }
    }
    assert!(read > MUTATIONS / 4, "{read} were read");
}

/// An extended report with every block that is written.
fn whole_extended() -> Extended {
    Extended {
        ssrc: 9,
        reference_time: Some(10 << 32),
        answer: Some(ReferenceAnswer { ssrc: 1, last: 2, delay_since: 3 }),
        summary: Some(Summary { ssrc: 1, lost: Some(4), ..Summary::default() }),
        voip_metrics: Some(VoipMetrics { ssrc: 1, r_factor: Some(80), ..VoipMetrics::default() }),
    }
}

#[test]
fn rtcp_that_lies_is_refused_or_read_within_its_bounds() {
    let mut random = Random(2);
    let reception = ReceptionReport {
        ssrc: 1,
        fraction_lost: 2,
        cumulative_lost: 3,
        extended_highest: 4,
        jitter: 5,
    };
    let block = Block { reception, last_sender_report: 6, delay_since: 7 };
    let sender = SenderInfo { ntp: 8, rtp_timestamp: 9, packets: 10, octets: 11 };
    let mut originals = Vec::new();
    for (sender, blocks, bye) in [(Some(sender), 2, false), (None, 1, true), (None, 0, false)] {
        let blocks = vec![block; blocks];
        let report = Report { ssrc: 9, sender, blocks: &blocks, cname: "name@host", bye };
        let mut out = [0; 500];
        let mut len = report.write(&mut out).expect("room enough");
        if !bye {
            len += whole_extended().write(&mut out[len..]).expect("room enough");
        }
        originals.push(out[..len].to_vec());
    }
    let (mut read, mut extended) = (0, 0);
    for round in 0..MUTATIONS {
        let packet = random.mutate(&originals[round as usize % 3]);
        let Ok(compound) = Compound::parse(&packet) else { continue };
        let mut parts = 0;
        for part in compound {
            parts += 1;
            match part {
                Part::SenderReport { blocks, .. } | Part::ReceiverReport { blocks, .. } => {
                    for block in blocks {
                        let lost = block.reception.cumulative_lost;
                        assert!((-0x80_0000..0x80_0000).contains(&lost), "round {round}");
                        block.round_trip(random.next());
                    }
                }
                Part::Cname { cname, .. } => assert!(cname.len() <= 255),
                Part::Extended { blocks, .. } => {
                    for block in blocks {
                        match block {
                            ExtendedBlock::ReferenceAnswers(answers) => {
                                for answer in answers {
                                    answer.round_trip(random.next());
                                }
                            }
                            ExtendedBlock::VoipMetrics(metrics) => {
                                let known = |rating: Option<u8>| rating.is_none_or(|r| r <= 100);
                                assert!(known(metrics.r_factor), "round {round}");
                                let score = |score: Option<u8>| {
                                    score.is_none_or(|score| (10..=50).contains(&score))
                                };
                                assert!(score(metrics.mos_listening), "round {round}");
                                assert!(metrics.adaptation_rate < 16, "round {round}");
                                extended += 1;
                            }
                            ExtendedBlock::Summary(_)
                            | ExtendedBlock::ReferenceTime { .. }
                            | ExtendedBlock::Other { .. } => extended += 1,
                        }
                    }
                }
                Part::Bye { .. } | Part::Other { .. } => {}
            }
        }
        assert!((1..=packet.len() / 4).contains(&parts), "round {round}: {packet:?}");
        read += 1;
    }
    assert!(extended > MUTATIONS / 4, "{extended} blocks were read");
    assert!(read > MUTATIONS / 20, "{read} were read");
}

#[test]
fn telephone_events_that_lie_end_at_most_two_digits_a_packet() {
    let mut random = Random(3);
    let sending = Sending::new('5', 1_000, 800, 160).expect("a digit");
    let originals: Vec<Vec<u8>> = sending.map(|packet| packet.event.bytes().to_vec()).collect();
    let mut receiver = Receiver::new(8_000);
    let (mut now, mut out) = (Instant::ZERO, Vec::<Digit>::with_capacity(2));
    let mut digits = 0;
    for round in 0..MUTATIONS {
        let payload = random.mutate(&originals[round as usize % originals.len()]);
        let timestamp = if random.below(4) == 0 { random.next() as u32 } else { 1_000 };
        let marker = random.below(2) == 0;
        out.clear();
        receiver.receive(now, timestamp, marker, &payload, &mut out);
        assert!(out.len() <= 2, "round {round}: {payload:?}");
        now += Duration::from_millis(random.below(80) as u64);
        receiver.handle_timeout(now, &mut out);
        assert!(receiver.poll_timeout().is_none_or(|due| due > now), "round {round}");
        digits += out.len();
    }
    assert!(digits > 1_000, "{digits} digits");
}

#[test]
fn payloads_that_lie_decode_or_fail_and_leave_the_decoder_usable() {
    let aligned = amr_wb::Format { packing: Packing::OctetAligned, ..Default::default() };
    for (kind, format, hz) in [
        (CodecKind::Pcmu, CodecFormat::Usual, 8_000),
        (CodecKind::Pcma, CodecFormat::Usual, 8_000),
        (CodecKind::G722, CodecFormat::Usual, 16_000),
        (CodecKind::Opus, CodecFormat::Usual, 8_000),
        (CodecKind::Ilbc, CodecFormat::Ilbc(IlbcMode::Ms20), 8_000),
        (CodecKind::Ilbc, CodecFormat::Ilbc(IlbcMode::Ms30), 8_000),
        (CodecKind::G7221, CodecFormat::Usual, 16_000),
        (CodecKind::G7221, CodecFormat::G7221(G7221Rate::K24), 16_000),
        (CodecKind::AmrWb, CodecFormat::Usual, 16_000),
        (CodecKind::AmrWb, CodecFormat::AmrWb(aligned), 16_000),
    ] {
        if crate::hot_path::is_here(kind) {
            check_payloads(kind, format, hz);
        }
    }
}

fn check_payloads(kind: CodecKind, format: CodecFormat, hz: u32) {
    let mut random = Random(4);
    let frame_ms = if format == CodecFormat::Ilbc(IlbcMode::Ms30) { 30 } else { 20 };
    let frame = hz as usize / 1_000 * frame_ms;
    let settings = EncoderSettings { complexity: 0, fec: true, ..EncoderSettings::default() };
    let encoder = Encoder::with_format(kind, format, hz, settings);
    let mut encoder = encoder.expect("a rate of the codec");
    let mut decoder = Decoder::with_format(kind, format, hz).expect("a rate of the codec");
    let mut payload = [0; 400];
    let originals: Vec<Vec<u8>> = (0..20)
        .map(|number| {
            let tone = |n: usize| (n * (200 + number * 50) % 20_000) as i16 - 10_000;
            let pcm: Vec<i16> = (0..frame).map(tone).collect();
            let len = encoder.encode(&pcm, &mut payload).expect("a whole frame");
            payload[..len].to_vec()
        })
        .collect();
    let mut out = vec![0i16; hz as usize * 12 / 100];
    let (mut decoded, mut recovered) = (0, 0);
    for round in 0..MUTATIONS {
        let original = &originals[random.below(originals.len())];
        let payload = random.mutate(original);
        let room = if random.below(16) == 0 { random.below(out.len()) } else { out.len() };
        match random.below(16) {
            0 => decoder.conceal(&mut out[..room]),
            1 => {
                let frame = decoder.decode_fec(&payload, &mut out[..frame]);
                recovered += u32::from(frame.is_some());
            }
            _ => {
                if let Ok(samples) = decoder.decode(&payload, &mut out[..room]) {
                    assert!(samples > 0 && samples <= room, "{kind:?}, round {round}");
                    decoded += 1;
                }
            }
        }
    }
    // A payload that has to have one length is mostly refused.
    let least = if has_exact_length(kind) { MUTATIONS / 20 } else { MUTATIONS / 3 };
    assert!(decoded > least, "{kind:?}: {decoded} decoded");
    assert_eq!(recovered > 0, kind == CodecKind::Opus, "{kind:?}: {recovered} recovered");
    // The true stream goes on.
    for payload in &originals {
        assert_eq!(decoder.decode(payload, &mut out), Ok(frame), "{kind:?}");
    }
}

/// Whether the first bits of a payload, or the codec, settle its length.
fn has_exact_length(kind: CodecKind) -> bool {
    match kind {
        CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 | CodecKind::Opus => false,
        CodecKind::Ilbc | CodecKind::G7221 | CodecKind::AmrWb => true,
    }
}
