//! Noise where packets should be: datagrams of every length at each reader of media, noise, pieces and
//! glued frames at every decoder, and lies to a whole session. Nothing may panic or grow, and speech
//! is heard again as soon as it comes.

use crate::hostile_media::Random;
use std::net::SocketAddr;
use std::time::Duration;
use voxedge::codec::amr_wb::{self, Packing};
use voxedge::codec::{
    CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, G7221Rate, IlbcMode,
};
use voxedge::ground::{Entropy, Instant, LegId, Now, StreamId};
use voxedge::media::MediaSession;
use voxedge::media::plan::*;
use voxedge::rtp::packet::{RtpHeader, RtpPacket};
use voxedge::rtp::rtcp::Compound;
use voxedge::rtp::srtp::{MasterKey, Mki, Srtp, Suite};
use voxedge::rtp::telephone_event::{Digit, Receiver};

/// The longest datagram that is tried: what an Ethernet carries.
const DATAGRAM_MAX: usize = 1_500;
/// Payloads of garbage for each decoder: every third length comes once.
const ROUNDS: usize = 2 * DATAGRAM_MAX;
/// Frames of speech after which a decoder is to say it as if nothing had been.
const RECOVERY_FRAMES: usize = 25;
/// And those that are then compared.
const COMPARED_FRAMES: usize = 15;

fn noise(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.next() as u8).collect()
}

#[test]
fn noise_of_every_length_is_no_rtp_rtcp_or_digit_beyond_its_bounds() {
    let mut random = Random(11);
    let mut receiver = Receiver::new(8_000);
    let (mut now, mut digits) = (Instant::ZERO, Vec::<Digit>::with_capacity(2));
    for len in 0..=DATAGRAM_MAX {
        for version in [0x00, 0x80, 0x9F, 0xA0, 0xBF] {
            let mut packet = noise(&mut random, len);
            if let Some(first) = packet.first_mut() {
                *first = (*first & 0x3F) | version;
            }
            if let Ok(view) = RtpPacket::parse(&packet) {
                assert!(view.payload.len() + 12 <= len);
            }
            if let Some(kind) = packet.get_mut(1) {
                *kind = 200 + *kind % 8;
            }
            if let Ok(compound) = Compound::parse(&packet) {
                assert!(compound.count() <= len / 4);
            }
            digits.clear();
            receiver.receive(now, random.next() as u32, len % 2 == 0, &packet, &mut digits);
            assert!(digits.len() <= 2, "{len}");
            now += Duration::from_millis(random.below(300) as u64);
        }
    }
}

#[test]
fn noise_of_every_length_is_no_srtp() {
    let mut random = Random(12);
    for (suite, mki) in
        Suite::ALL.into_iter().flat_map(|suite| [(suite, None), (suite, Mki::new(7, 4))])
    {
        let mut entropy = Entropy::from_number(12);
        let [ours, theirs] = [(); 2].map(|()| MasterKey::draw(suite, &mut entropy));
        let mut near = Srtp::new(&ours, &theirs, mki);
        for len in 0..=DATAGRAM_MAX {
            let mut packet = noise(&mut random, len);
            if let Some(first) = packet.first_mut() {
                *first = (*first & 0x1F) | 0x80;
            }
            let before = packet.clone();
            assert!(near.unprotect_rtp(&mut packet).is_err(), "{suite:?}, {len}");
            assert!(near.unprotect_rtcp(&mut packet).is_err(), "{suite:?}, {len}");
            assert_eq!(packet, before, "{suite:?}, {len}");
        }
    }
}

/// A codec in one of its formats.
struct Coder {
    kind: CodecKind,
    format: CodecFormat,
    hz: u32,
    /// Samples of a frame.
    frame: usize,
}

fn coders() -> Vec<Coder> {
    let aligned = amr_wb::Format { packing: Packing::OctetAligned, ..Default::default() };
    let coders = [
        (CodecKind::Pcmu, CodecFormat::Usual, 8_000, 20),
        (CodecKind::Pcma, CodecFormat::Usual, 8_000, 20),
        (CodecKind::G722, CodecFormat::Usual, 16_000, 20),
        (CodecKind::Opus, CodecFormat::Usual, 16_000, 20),
        (CodecKind::Opus, CodecFormat::Usual, 48_000, 20),
        (CodecKind::Ilbc, CodecFormat::Ilbc(IlbcMode::Ms20), 8_000, 20),
        (CodecKind::Ilbc, CodecFormat::Ilbc(IlbcMode::Ms30), 8_000, 30),
        (CodecKind::G7221, CodecFormat::Usual, 16_000, 20),
        (CodecKind::G7221, CodecFormat::G7221(G7221Rate::K24), 16_000, 20),
        (CodecKind::AmrWb, CodecFormat::Usual, 16_000, 20),
        (CodecKind::AmrWb, CodecFormat::AmrWb(aligned), 16_000, 20),
    ];
    coders
        .into_iter()
        .filter(|(kind, ..)| crate::hot_path::is_here(*kind))
        .map(|(kind, format, hz, ms)| Coder { kind, format, hz, frame: hz as usize / 1_000 * ms })
        .collect()
}

impl Coder {
    fn decoder(&self) -> Decoder {
        Decoder::with_format(self.kind, self.format, self.hz).expect("a rate of the codec")
    }

    /// The demo's sentence from its middle, frame by frame, and the payloads.
    fn payloads(&self, count: usize) -> Vec<Vec<u8>> {
        let speech = voxedge::cli::demo::speech::sentence(self.hz);
        let settings = EncoderSettings { complexity: 0, ..EncoderSettings::default() };
        let encoder = Encoder::with_format(self.kind, self.format, self.hz, settings);
        let mut encoder = encoder.expect("a rate of the codec");
        encoder.set_expected_loss(10);
        let mut payload = [0; 1_275];
        let packet = |pcm: &[i16]| {
            let len = encoder.encode(pcm, &mut payload).expect("a whole frame");
            payload[..len].to_vec()
        };
        speech.chunks_exact(self.frame).skip(20).take(count).map(packet).collect()
    }

    /// Something that is no frame of a well-behaved sender, by `round`.
    fn garbage(&self, round: usize, random: &mut Random, good: &[Vec<u8>]) -> Vec<u8> {
        let pick = |random: &mut Random| good[random.below(good.len())].clone();
        let mut frame = pick(random);
        match round % 6 {
            0 => return noise(random, round / 6 * 3 % DATAGRAM_MAX),
            1 => frame.truncate(random.below(frame.len())),
            2 => (0..random.below(6)).for_each(|_| frame.extend(pick(random))),
            3 => {
                let bit = random.below(frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            4 => return noise(random, frame.len()),
            _ => frame = random.mutate(&frame),
        }
        frame
    }
}

#[test]
fn speech_is_decoded_as_ever_soon_after_garbage_of_every_length() {
    for coder in coders() {
        let mut random = Random(13);
        let good = coder.payloads(RECOVERY_FRAMES + COMPARED_FRAMES);
        let undisturbed = decode(&coder, &mut coder.decoder(), &good);
        let (mut decoder, mut out) = (coder.decoder(), vec![0; 48_000 * 12 / 100]);
        for round in 0..ROUNDS {
            let payload = coder.garbage(round, &mut random, &good);
            let room = if random.below(8) == 0 { random.below(out.len()) } else { out.len() };
            if random.below(8) == 0 {
                let recovered = decoder.decode_fec(&payload, &mut out[..coder.frame]);
                assert!(recovered.is_none_or(|count| count <= coder.frame), "{:?}", coder.kind);
            }
            if let Ok(samples) = decoder.decode(&payload, &mut out[..room]) {
                assert!(samples > 0 && samples <= room, "{:?}, round {round}", coder.kind);
            }
            if random.below(4) == 0 {
                let room = random.below(2 * coder.frame);
                decoder.conceal(&mut out[..room]);
            }
            if round % 250 == 249 {
                let heard = decode(&coder, &mut decoder, &good);
                assert_alike(&coder, round, &undisturbed, &heard);
            }
        }
    }
}

fn decode(coder: &Coder, decoder: &mut Decoder, payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut out = vec![0; coder.frame];
    let mut heard = Vec::new();
    for payload in payloads {
        assert_eq!(decoder.decode(payload, &mut out), Ok(coder.frame), "{:?}", coder.kind);
        heard.extend_from_slice(&out);
    }
    heard
}

/// After its recovery a decoder says what it would have said: of the same shape and level.
fn assert_alike(coder: &Coder, round: usize, wanted: &[i16], heard: &[i16]) {
    let from = RECOVERY_FRAMES * coder.frame;
    let product = |a: &[i16], b: &[i16]| -> f64 {
        a[from..].iter().zip(&b[from..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let (own, other) = (product(wanted, wanted), product(heard, heard));
    let alike = product(wanted, heard) / (own * other).sqrt();
    let level = 10.0 * (other / own).log10();
    assert!(
        alike > 0.95,
        "{:?}, {:?}, round {round}: likeness {alike:.3}",
        coder.kind,
        coder.format
    );
    assert!(
        level.abs() < 1.0,
        "{:?}, {:?}, round {round}: {level:.1} dB",
        coder.kind,
        coder.format
    );
}

#[test]
fn a_session_that_is_lied_to_stays_on_time_and_hears_speech_again() {
    for coder in coders().iter().filter(|coder| coder.hz <= 16_000) {
        let mut call = Call::up(coder);
        let mut random = Random(14);
        for round in 0..1_500 {
            call.lie(coder, round, &mut random);
            if round % 4 == 0 {
                call.wait(Duration::from_millis(20));
            }
        }
        let (behind_ms, heard) = call.speak();
        assert!((-400..=400).contains(&behind_ms), "{:?}: {behind_ms} ms behind", coder.kind);
        assert!(heard > 1_000, "{:?}: the loudest sample is {heard}", coder.kind);
    }
}

const SOURCE: &str = "192.0.2.1:4000";
const PAYLOAD_TYPE: u8 = 111;

/// A call that is up, with its caller's good packets.
struct Call {
    session: MediaSession,
    began: Now,
    now: Now,
    source: SocketAddr,
    payloads: Vec<Vec<u8>>,
    header: RtpHeader,
    ticks: u32,
    packet: Duration,
    hz: u32,
    heard: usize,
    loudest: i32,
}

impl Call {
    fn up(coder: &Coder) -> Call {
        let source: SocketAddr = SOURCE.parse().expect("an address");
        let clock_hz = coder.kind.rtp_clock_hz();
        let packet_ms = coder.frame as u32 * 1_000 / coder.hz;
        let codec = CodecPlan {
            kind: coder.kind,
            format: coder.format,
            send_payload_type: PAYLOAD_TYPE,
            receive_payload_type: PAYLOAD_TYPE,
            ptime_ms: packet_ms as u16,
            fec: true,
        };
        let event =
            TelephoneEventPlan { send_payload_type: 101, receive_payload_type: 101, clock_hz };
        let plan = MediaPlan {
            leg: LegPlan {
                codec,
                telephone_event: Some(event),
                remote: RemoteMedia { rtp: Some(source), rtcp: Some(source), rtcp_mux: true },
                direction: Direction::SendRecv,
                srtp: None,
                signalling_source: source.ip(),
                pauses: Default::default(),
                control: Default::default(),
            },
            agent: AgentRates { input_hz: coder.hz, output_hz: coder.hz },
            rtp_timeout: Duration::from_secs(3_600),
            rtcp_only_max: Duration::from_secs(3_600),
            hold_max: Duration::from_secs(3_600),
            jitter: Default::default(),
            outgoing: false,
            cname: "c".into(),
            own: Default::default(),
        };
        let now = Now::default();
        let mut session =
            MediaSession::new(now, &plan, Entropy::from_number(14)).expect("a sound plan");
        session.handle_agent_joined(now, StreamId::FIRST);
        let header = RtpHeader {
            marker: false,
            payload_type: PAYLOAD_TYPE,
            sequence: 65_000,
            timestamp: u32::MAX - 5_000,
            ssrc: 0x5151,
        };
        Call {
            session,
            began: now,
            now,
            source,
            payloads: coder.payloads(60),
            header,
            ticks: clock_hz / 1_000 * packet_ms,
            packet: Duration::from_millis(packet_ms.into()),
            hz: coder.hz,
            heard: 0,
            loudest: 0,
        }
    }

    /// A packet of RTP or RTCP in which something is not true, or nothing is.
    fn lie(&mut self, coder: &Coder, round: usize, random: &mut Random) {
        let payload = coder.garbage(round, random, &self.payloads);
        let mut header = self.step();
        match random.below(12) {
            0 => header.sequence = random.next() as u16,
            1 => header.timestamp = random.next() as u32,
            2 => header.ssrc = random.next() as u32,
            3 => header.payload_type = [0, 13, 101, 127][random.below(4)],
            _ => {}
        }
        let mut packet = vec![0; 12];
        header.write(&mut packet);
        packet.extend(payload);
        if random.below(3) == 0 {
            packet = random.mutate(&packet);
        }
        if random.below(8) == 0
            && let Some(kind) = packet.get_mut(1)
        {
            *kind = 200 + (*kind & 7);
            self.session.handle_rtcp(self.now, LegId::CALLER, self.source, &packet);
        }
        self.session.handle_rtp(self.now, LegId::CALLER, self.source, &packet);
        self.drain();
    }

    /// The sentence twice, as a good phone sends it: how far the agent's audio is behind the clock then,
    /// in milliseconds, and its loudest sample.
    fn speak(&mut self) -> (i64, i32) {
        let payloads = self.payloads.clone();
        // The strange streams of before are over.
        self.wait(Duration::from_secs(6));
        for (number, payload) in payloads.iter().chain(&payloads).enumerate() {
            let header = self.step();
            let mut packet = vec![0; 12];
            header.write(&mut packet);
            packet.extend(payload);
            if number == payloads.len() {
                self.loudest = 0;
            }
            self.session.handle_rtp(self.now, LegId::CALLER, self.source, &packet);
            self.wait(self.packet);
        }
        let elapsed_ms = self.now.at.since(self.began.at).as_millis() as i64;
        let heard_ms = (self.heard * 1_000 / self.hz as usize) as i64;
        (elapsed_ms - heard_ms, self.loudest)
    }

    fn step(&mut self) -> RtpHeader {
        self.header.sequence = self.header.sequence.wrapping_add(1);
        self.header.timestamp = self.header.timestamp.wrapping_add(self.ticks);
        self.header
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.at + time;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            let due = due.max(self.now.at);
            self.now = self.now.later(due.since(self.now.at));
            self.session.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.now.later(end.since(self.now.at));
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1_500];
        while self.session.poll_transmit(self.now, &mut buffer).is_some() {}
        while self.session.poll_event().is_some() {}
        let uplink = self.session.uplink(StreamId::FIRST).expect("the first stream");
        while let Some(frame) = uplink.pop() {
            self.heard += frame.len();
            let loudest = frame.iter().map(|sample| i32::from(*sample).abs()).max();
            self.loudest = self.loudest.max(loudest.unwrap_or_default());
        }
    }
}
