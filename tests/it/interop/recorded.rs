//! Codecs that neither baresip nor SIPp can code: SIPp plays recorded RTP to the echo agent, and what
//! comes back to its media port is kept, decoded and compared with what was said. G.722.1 is recorded
//! from the reference encoder where its vectors are there, iLBC from our own; FFmpeg decodes the
//! answer in iLBC, our decoder that in G.722.1, which the vectors hold to the reference.

use super::phone::Phone;
use super::rig::{DEADLINE, Edge, free_port, has};
use crate::torture_parse::test_data;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;
use voxedge::billing::Cdr;
use voxedge::cli::demo::measure;
use voxedge::cli::demo::speech;
use voxedge::codec::{
    CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, G7221Rate, IlbcMode,
};
use voxedge::rtp::packet::{RtpHeader, RtpPacket};

const PAYLOAD_TYPE: u8 = 98;
/// SIPp's own media port lies this far below the one that its description names.
const PORT_OFFSET: u16 = 10;
/// What was said begins to come back at most so long after the edge's first packet, in milliseconds:
/// SIPp takes its time to play.
const BEGIN_MAX_MS: usize = 3_000;
/// How far the place of a piece may be from where the first second says, in milliseconds.
const PLACE_MS: usize = 300;
/// Pieces of speech that are compared each for itself, in milliseconds: a loaded machine may hold up
/// a packet, after which all stands elsewhere.
const PIECE_MS: usize = 300;
/// What is louder is speech.
const SPEECH_DBFS: f64 = -40.0;
/// Share of the likeness of two passes without a daemon that a piece must keep.
const LIKENESS_LEFT: f64 = 0.9;
/// Calls that a busy machine is given.
const CALLS_MAX: usize = 4;
/// Share of the pieces that must be found so.
const PIECES_FOUND: f64 = 0.6;
/// Speech that fits into the pause of the scenario with its echo.
const SPOKEN_MS: usize = 3_600;

/// A codec in one of its formats.
#[derive(Clone, Copy)]
struct Recorded {
    kind: CodecKind,
    format: CodecFormat,
    rtpmap: &'static str,
    fmtp: &'static str,
    hz: u32,
    packet_ms: usize,
    /// The vectors' packets of the reference encoder.
    reference: Option<&'static str>,
}

const ILBC_20: Recorded = Recorded {
    kind: CodecKind::Ilbc,
    format: CodecFormat::Ilbc(IlbcMode::Ms20),
    rtpmap: "iLBC/8000",
    fmtp: "mode=20",
    hz: 8_000,
    packet_ms: 20,
    reference: None,
};
const ILBC_30: Recorded = Recorded {
    format: CodecFormat::Ilbc(IlbcMode::Ms30),
    fmtp: "mode=30",
    packet_ms: 30,
    ..ILBC_20
};
const G7221_24: Recorded = Recorded {
    kind: CodecKind::G7221,
    format: CodecFormat::G7221(G7221Rate::K24),
    rtpmap: "G7221/16000",
    fmtp: "bitrate=24000",
    hz: 16_000,
    packet_ms: 20,
    reference: Some("g722_1_enc_out_24000_be.pak"),
};
const G7221_32: Recorded = Recorded {
    format: CodecFormat::G7221(G7221Rate::K32),
    fmtp: "bitrate=32000",
    reference: Some("g722_1_enc_out_32000_be.pak"),
    ..G7221_24
};

#[test]
fn sipp_plays_ilbc_of_20_ms() {
    hold(&ILBC_20);
}

#[test]
fn sipp_plays_ilbc_of_30_ms() {
    hold(&ILBC_30);
}

#[test]
fn sipp_plays_g722_1_of_24_kbit() {
    hold(&G7221_24);
}

#[test]
fn sipp_plays_g722_1_of_32_kbit() {
    hold(&G7221_32);
}

/// What was said must come back as alike as two passes through the codec leave it. A machine that is
/// too busy to send in time is given further calls.
fn hold(codec: &Recorded) {
    if !has("sipp") || !may_play() {
        return;
    }
    let edge = Edge::start(None);
    for call in 1..=CALLS_MAX {
        let (found, all) = play(codec, &edge, call);
        eprintln!("{}: {found} of {all} pieces", codec.fmtp);
        assert!(all > 5, "{all} pieces speak");
        if f64::from(found) > PIECES_FOUND * f64::from(all) {
            return;
        }
    }
    panic!("{}: none of {CALLS_MAX} calls brought back what was said", codec.fmtp);
}

/// One call, the so-maniest of the edge: how many pieces of what was said came back, and of how many.
fn play(codec: &Recorded, edge: &Edge, call: usize) -> (u32, u32) {
    let (said, payloads) = codec.recording();
    let ear = ear();
    let port = ear.local_addr().expect("it is bound").port();
    let phone = Phone::plays(
        "recorded",
        &[("codec", codec.rtpmap), ("parameters", codec.fmtp)],
        port - PORT_OFFSET,
        &codec.pcap(&payloads),
        ("echo", edge.port),
    );
    let listener = std::thread::spawn(move || listen(&ear));
    phone.assert_content();
    codec.assert_record(&edge.closed(call)[0]);
    let heard = codec.decode(&listener.join().expect("it hears until nothing comes"));
    let once = codec.decode_in_row(&payloads);
    let twice = codec.decode_in_row(&codec.encode(&once));
    let (mut found, mut all) = (0, 0);
    let [heard_at, twice_at] = [&heard, &twice].map(|returned| codec.begin(&said, returned));
    let piece = PIECE_MS * codec.hz as usize / 1_000;
    for (number, said) in said.chunks_exact(piece).enumerate() {
        if measure::level_dbfs(said) > SPEECH_DBFS {
            let back = codec.likeness(said, number * piece + heard_at, &heard);
            let alone = codec.likeness(said, number * piece + twice_at, &twice);
            all += 1;
            found += u32::from(back > LIKENESS_LEFT * alone);
        }
    }
    (found, all)
}

impl Recorded {
    /// What is said, and its packets.
    fn recording(&self) -> (Vec<i16>, Vec<Vec<u8>>) {
        let most = SPOKEN_MS * self.hz as usize / 1_000;
        if let Some((name, folder)) = self.reference.zip(test_data("g7221")) {
            let read = |name: &str| std::fs::read(folder.join(name)).expect("it is in the data");
            let wave = read("g722_1_enc_in.wav");
            let said = samples(&wave[measure::WAV_HEADER_BYTES..])[..most].to_vec();
            let packed = read(name);
            let frames = packed.chunks_exact(self.frame_bytes()).take(SPOKEN_MS / self.packet_ms);
            return (said, frames.map(<[u8]>::to_vec).collect());
        }
        let mut said = speech::sentence(self.hz);
        said.truncate(most);
        let payloads = self.encode(&said);
        (said, payloads)
    }

    fn frame_bytes(&self) -> usize {
        match self.kind {
            CodecKind::Ilbc => self.format.ilbc().frame_bytes(),
            _ => self.format.g7221().frame_bytes(),
        }
    }

    fn frame_samples(&self) -> usize {
        self.hz as usize / 1_000 * self.packet_ms
    }

    fn encode(&self, pcm: &[i16]) -> Vec<Vec<u8>> {
        let settings = EncoderSettings::default();
        let encoder = Encoder::with_format(self.kind, self.format, self.hz, settings);
        let mut encoder = encoder.expect("a rate of the codec");
        let mut payload = [0; 200];
        let packet = |pcm: &[i16]| {
            let len = encoder.encode(pcm, &mut payload).expect("a whole frame");
            payload[..len].to_vec()
        };
        pcm.chunks_exact(self.frame_samples()).map(packet).collect()
    }

    /// Where the first second of what was said stands in what came back.
    fn begin(&self, said: &[i16], returned: &[i16]) -> usize {
        let longest = BEGIN_MAX_MS * self.hz as usize / 1_000;
        let second = &said[..self.hz as usize];
        let window = &returned[..(second.len() + longest).min(returned.len())];
        measure::align(second, window, longest).map_or(0, |place| place.delay)
    }

    /// How like a piece of what was said its likest place around this one of what came back is.
    fn likeness(&self, said: &[i16], at: usize, returned: &[i16]) -> f64 {
        let around = PLACE_MS * self.hz as usize / 1_000;
        let from = at.saturating_sub(around).min(returned.len());
        let window = &returned[from..(at + said.len() + around).min(returned.len())];
        measure::align(said, window, 2 * around).map_or(0.0, |place| place.correlation)
    }

    /// Our decoder on packets that all came.
    fn decode_in_row(&self, payloads: &[Vec<u8>]) -> Vec<i16> {
        let decoder = Decoder::with_format(self.kind, self.format, self.hz);
        let mut decoder = decoder.expect("a rate of the codec");
        let mut out = vec![0; self.frame_samples()];
        let mut heard = Vec::new();
        for payload in payloads {
            let samples = decoder.decode(payload, &mut out).expect("a whole frame");
            heard.extend_from_slice(&out[..samples]);
        }
        heard
    }

    /// What an ear of others makes of the answer: FFmpeg where it knows the codec.
    fn decode(&self, payloads: &[Vec<u8>]) -> Vec<i16> {
        let frame = self.frame_bytes();
        let whole = payloads.iter().all(|payload| payload.len() == frame);
        assert!(whole, "{}: one frame of {frame} bytes in each packet", self.fmtp);
        if self.kind != CodecKind::Ilbc || !has("ffmpeg") {
            return self.decode_in_row(payloads);
        }
        let mut file = format!("#!iLBC{}\n", self.packet_ms).into_bytes();
        file.extend(payloads.concat());
        let mut child = Command::new("ffmpeg")
            .args("-v error -f ilbc -i - -f s16le -ar 8000 -ac 1 -".split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is installed");
        let mut stdin = child.stdin.take().expect("it is piped");
        let writer = std::thread::spawn(move || stdin.write_all(&file));
        let output = child.wait_with_output().expect("it runs");
        writer.join().expect("it writes").expect("ffmpeg reads all");
        samples(&output.stdout)
    }

    /// The packets as a capture of Ethernet (the format of libpcap); addresses and ports are SIPp's to
    /// fill in.
    fn pcap(&self, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xA1B2_C3D4u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(word.to_le_bytes());
        }
        let ticks = self.kind.rtp_clock_hz() / 1_000 * self.packet_ms as u32;
        for (number, payload) in payloads.iter().enumerate() {
            let (sequence, timestamp) = (number as u16, number as u32 * ticks);
            let marker = number == 0;
            let payload_type = PAYLOAD_TYPE;
            let header = RtpHeader { marker, payload_type, sequence, timestamp, ssrc: 0x51 };
            let mut rtp = [0; 12];
            header.write(&mut rtp);
            let udp = (8 + rtp.len() + payload.len()) as u16;
            let mut frame = vec![0; 12];
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + udp).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
            frame.extend([0x1F, 0x40, 0x1F, 0x42]);
            frame.extend(udp.to_be_bytes());
            frame.extend([0, 0]);
            frame.extend(rtp);
            frame.extend(payload);
            let at_ms = (number * self.packet_ms) as u32;
            let (seconds, micros, len) = (at_ms / 1_000, at_ms % 1_000 * 1_000, frame.len() as u32);
            for word in [seconds, micros, len, len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(frame);
        }
        file
    }

    fn assert_record(&self, record: &Cdr) {
        assert_eq!(record.codec.as_deref(), Some(self.kind.encoding_name()), "{record:#?}");
        assert_eq!(record.status, Some(200), "{record:#?}");
    }
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// SIPp plays captures through a raw socket, which takes a right that root has; a missing one is a
/// failure where `CI` is true.
fn may_play() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
    const NET_RAW: u32 = 13;
    let may = bits.is_some_and(|bits| bits >> NET_RAW & 1 == 1);
    let required = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(may || !required, "CI needs CAP_NET_RAW: SIPp plays captures through a raw socket");
    if !may {
        eprintln!("skipped: SIPp plays captures through a raw socket, which needs CAP_NET_RAW");
    }
    may
}

/// A socket with the ports free that SIPp takes below it.
fn ear() -> UdpSocket {
    loop {
        let port = free_port().max(PORT_OFFSET + 1_024);
        let is_free = |offset| UdpSocket::bind(("127.0.0.1", port - offset)).is_ok();
        let below = (PORT_OFFSET - 3..=PORT_OFFSET).all(is_free);
        if let Some(socket) = UdpSocket::bind(("127.0.0.1", port)).ok().filter(|_| below) {
            socket.set_read_timeout(Some(DEADLINE)).expect("a time limit");
            return socket;
        }
    }
}

/// The payloads that come, in order; until nothing came for a second.
fn listen(ear: &UdpSocket) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut buffer = [0; 2_048];
    let mut next = None;
    while let Ok((len, _)) = ear.recv_from(&mut buffer) {
        ear.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
        let packet = RtpPacket::parse(&buffer[..len]).expect("RTP");
        if packet.header.payload_type != PAYLOAD_TYPE {
            continue;
        }
        let sequence = packet.header.sequence;
        assert_eq!(sequence, next.unwrap_or(sequence), "loopback keeps packets in order");
        next = Some(sequence.wrapping_add(1));
        payloads.push(packet.payload.to_vec());
    }
    payloads
}
