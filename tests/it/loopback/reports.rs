//! Extended reports of RTCP (RFC 3611) between the real daemon and a telephone of ours, plain and
//! encrypted: the blocks and figures on the wire, and what becomes of them in `/edge/live` and in the
//! record. The phone loses packets in bursts, tells how it hears, and makes the way look long by what
//! it says of the time that it held the daemon's reference time.

use crate::rig::{self, Caller, Rig, SOON};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use voxedge::ground::{Entropy, Transport};
use voxedge::rtp::losses;
use voxedge::rtp::packet::{HEADER_BYTES, RtpHeader, RtpPacket};
use voxedge::rtp::rtcp::extended::{
    Adaptation, Concealment, Extended, ExtendedBlock, ReferenceAnswer, Summary, VoipMetrics,
};
use voxedge::rtp::rtcp::{Block, Compound, Part, Report};
use voxedge::rtp::sequence::ReceptionReport;
use voxedge::rtp::srtp::{MasterKey, OVERHEAD_BYTES_MAX, Srtp, SrtpFault, Suite};
use voxedge::sdp::crypto::Crypto;
use voxedge::sip::msg::Response;

const LIMIT: Duration = Duration::from_secs(120);
const FRAME: Duration = Duration::from_millis(20);
/// Of each so many packets these are lost: three of a burst of four.
const ROUND: u16 = 50;
const LOST: [u16; 3] = [20, 21, 23];
/// A report of the phone's comes every so many packets.
const REPORT_EVERY: u16 = 25;
/// By so much the phone understates how long it held a reference time.
const FEIGNED: Duration = Duration::from_millis(250);
const SSRC: u32 = 0x5eed_0001;
const BLOCKS: &str = "a=rtcp-xr:voip-metrics stat-summary=loss,dup,jitt rcvr-rtt=all";
/// How the phone says it hears the daemon.
const HEARD: VoipMetrics = VoipMetrics {
    ssrc: 0,
    loss_rate: 26,
    discard_rate: 3,
    burst_density: 128,
    gap_density: 0,
    burst_ms: 120,
    gap_ms: 4_000,
    round_trip_ms: 77,
    end_system_ms: 61,
    signal_level: None,
    noise_level: None,
    echo_return_loss: None,
    gmin: losses::GMIN,
    r_factor: Some(71),
    external_r_factor: None,
    mos_listening: Some(38),
    mos_conversation: Some(36),
    concealment: Concealment::Standard,
    adaptation: Adaptation::Adaptive,
    adaptation_rate: 0,
    buffer_nominal_ms: 45,
    buffer_maximum_ms: 60,
    buffer_absolute_ms: 200,
};

#[test]
fn both_ends_tell_how_they_hear_each_other() {
    rig::run(LIMIT, reported(Transport::Udp));
}

#[test]
fn both_ends_tell_how_they_hear_each_other_over_srtcp() {
    rig::run(LIMIT, reported(Transport::Tls));
}

/// One call over this transport, encrypted over TLS.
async fn reported(transport: Transport) {
    let rig = Rig::start(&[]).await;
    let mut caller = rig.caller(transport).await;
    let socket = UdpSocket::bind((caller.local.ip(), 0)).expect("127/8 is ours");
    let key = (transport == Transport::Tls)
        .then(|| MasterKey::draw(Suite::AeadAes128Gcm, &mut Entropy::from_number(11)));
    let answer = call(&mut caller, &socket, key.clone()).await;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    assert!(text.contains(BLOCKS) && text.contains("a=rtcp-mux"), "{text}");
    socket.connect(media_of(&text)).expect("loopback");
    let (told, heard) = channel();
    let over = Arc::new(AtomicBool::new(false));
    let mut phone = Phone::new(socket, key.map(|key| srtp(&key, &text)), told);
    let until = Arc::clone(&over);
    let phone = std::thread::spawn(move || {
        phone.talk(&until);
        phone.lost
    });
    assert_reports(&heard);
    let live = rig::await_some(SOON, "the phone's report", || {
        let calls: Value = serde_json::from_str(&rig.doors.get("/edge/live")?.1).ok()?;
        let leg = calls["calls"][0]["legs"][0].clone();
        let is_told = leg["far_end"].is_object() && leg["round_trip_ms"].is_number();
        is_told.then_some(leg)
    });
    assert_live(&live, transport == Transport::Tls);
    over.store(true, Ordering::Relaxed);
    let lost = phone.join().expect("no panic");
    assert_eq!(caller.bye(&answer).await, 200);
    let record = rig::await_some(SOON, "the closed record", || {
        let calls: Value = serde_json::from_str(&rig.doors.get("/edge/calls")?.1).ok()?;
        let record = calls["calls"][0].clone();
        record["ended_at"].is_string().then_some(record)
    });
    let media = &record["media"];
    assert_eq!(media["far_end"], live["far_end"], "{record}");
    assert_eq!(media["packets_lost"], lost.len(), "{record}");
    assert_eq!(media["srtp_failures"], 0, "{record}");
    assert!(media["round_trip_us"].as_u64() >= Some(250_000), "{record}");
    assert!(media["bursts"].as_u64() >= Some(1), "{record}");
    rig.stop().await;
}

/// Calls the echo agent; with a key, that is offered.
async fn call(caller: &mut Caller, socket: &UdpSocket, key: Option<MasterKey>) -> Response {
    let port = socket.local_addr().expect("it is bound").port();
    let mut offer = rig::offer(caller.local.ip(), port, "0");
    if let Some(key) = key {
        let line = Crypto { tag: 1, key, mki: None }.write();
        offer = offer.replace("RTP/AVP", "RTP/SAVP") + &format!("a=crypto:{line}\r\n");
    }
    let offer = format!("{offer}a=rtcp-mux\r\n{BLOCKS}\r\n");
    let id = rig::unique("reports");
    let invite = caller.request("INVITE", "echo", &id, "", &offer);
    caller.send(&invite).await;
    let answer = caller.final_of(&id, &invite).await;
    assert_eq!(answer.code(), 200);
    let ack = caller.ack(&answer);
    caller.send(&ack).await;
    answer
}

/// Both directions of the phone's media.
fn srtp(own: &MasterKey, answer: &str) -> Srtp {
    let line = answer.lines().find_map(|line| line.strip_prefix("a=crypto:"));
    let theirs = line.and_then(|line| Crypto::parse(line.trim())).expect("a key in the answer");
    Srtp::new(own, &theirs.key, theirs.mki)
}

fn media_of(answer: &str) -> SocketAddr {
    let field = |prefix: &str| answer.lines().find_map(|line| line.strip_prefix(prefix));
    let address: IpAddr = field("c=IN IP4 ").and_then(|a| a.trim().parse().ok()).expect("c=");
    let port = field("m=audio ").and_then(|media| media.split(' ').next());
    SocketAddr::new(address, port.and_then(|port| port.parse().ok()).expect("m="))
}

/// What one report of the daemon's said, beside what the phone knows of it.
struct Told {
    reception: ReceptionReport,
    /// The phone lost so many up to the highest number that the report tells of.
    lost: Vec<u16>,
    metrics: VoipMetrics,
    summary: Summary,
    /// The daemon's answer names a reference time of the phone's, and comes soon.
    is_answered: bool,
}

/// The first report, and the first that knows the round trip.
fn assert_reports(heard: &Receiver<Told>) {
    let first = heard.recv_timeout(SOON).expect("a report");
    assert_counts(&first);
    // What a loaded machine delivers too late is discarded, and makes bursts longer; and a report may
    // come before the last packet of a burst is known to be lost.
    let is_cut = first.reception.extended_highest % u32::from(ROUND) == u32::from(LOST[1]) + 1;
    if first.metrics.discard_rate == 0 && !first.lost.is_empty() && !is_cut {
        assert_eq!((first.metrics.burst_density, first.metrics.burst_ms), (192, 80));
    }
    let knows = loop {
        let told = heard.recv_timeout(SOON).expect("a further report");
        assert_counts(&told);
        if told.metrics.round_trip_ms > 0 {
            break told;
        }
    };
    assert!(knows.metrics.round_trip_ms >= FEIGNED.as_millis() as u16, "{:?}", knows.metrics);
    assert!(knows.metrics.burst_ms >= 40 && knows.metrics.burst_density > 0, "{:?}", knows.metrics);
}

/// Figures that follow from which numbers were left out.
fn assert_counts(told: &Told) {
    let Told { reception, lost, metrics, summary, is_answered } = told;
    assert!(is_answered, "the daemon answers a reference time");
    assert_eq!((reception.ssrc, metrics.ssrc, summary.ssrc), (SSRC, SSRC, SSRC));
    assert_eq!(reception.cumulative_lost, lost.len() as i32, "{reception:?}");
    let expected = u64::from(reception.extended_highest & 0xffff) + 1;
    assert_eq!(metrics.loss_rate, losses::share(lost.len() as u64, expected), "{metrics:?}");
    let stretch = lost.iter().filter(|number| (summary.begin..summary.end).contains(number));
    assert_eq!(summary.lost, Some(stretch.count() as u32), "{summary:?}");
    assert_eq!((summary.duplicates, summary.jitter.is_some()), (Some(0), true));
    assert!(metrics.r_factor < Some(93) && metrics.mos_listening > Some(10), "{metrics:?}");
}

fn assert_live(leg: &Value, encrypted: bool) {
    assert_eq!((&leg["codec"], &leg["encrypted"]), (&"PCMU".into(), &encrypted.into()), "{leg}");
    let trip = leg["round_trip_ms"].as_f64().expect("it was measured");
    assert!(trip >= FEIGNED.as_millis() as f64, "{leg}");
    let missed = leg["missed_percent"].as_f64().expect("packets came");
    assert!(missed > 3.0, "three of fifty are lost: {leg}");
    assert!(leg["mos_received"].as_f64() < Some(4.4), "{leg}");
    let far_end = &leg["far_end"];
    for (name, figure) in [
        ("lost_percent", 10.2),
        ("late_percent", 1.2),
        ("burst_percent", 50.0),
        ("burst_ms", 120.0),
        ("round_trip_ms", 77.0),
        ("end_system_ms", 61.0),
        ("buffer_ms", 45.0),
        ("r_factor", 71.0),
        ("mos_listening", 3.8),
        ("mos_conversation", 3.6),
    ] {
        let told = far_end[name].as_f64().expect(name);
        assert!((told - figure).abs() < 0.01, "{name}: {far_end}");
    }
}

/// A telephone that speaks silence, loses packets and reports.
struct Phone {
    socket: UdpSocket,
    srtp: Option<Srtp>,
    told: Sender<Told>,
    lost: Vec<u16>,
    /// The daemon's stream.
    far: Option<(u32, u32)>,
    /// The daemon's reference time: its sender, its middle, its arrival.
    asked: Option<(u32, u32, Instant)>,
    /// Middles of the phone's own.
    references: Vec<u32>,
}

impl Phone {
    fn new(socket: UdpSocket, srtp: Option<Srtp>, told: Sender<Told>) -> Phone {
        let (lost, references) = (Vec::new(), Vec::new());
        Phone { socket, srtp, told, lost, far: None, asked: None, references }
    }

    /// Talks until it is over; the last packet is one that is sent.
    fn talk(&mut self, over: &AtomicBool) {
        let begun = Instant::now();
        for number in 0_u16.. {
            let is_lost = LOST.contains(&(number % ROUND));
            if is_lost {
                self.lost.push(number);
            } else {
                self.speak(number);
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
            if number % REPORT_EVERY == REPORT_EVERY - 1 {
                self.report();
            }
            self.listen(begun + FRAME * u32::from(number + 1));
        }
    }

    fn speak(&mut self, sequence: u16) {
        let timestamp = u32::from(sequence) * 160;
        let mut packet = vec![0xff; HEADER_BYTES + 160];
        RtpHeader { marker: sequence == 0, payload_type: 0, sequence, timestamp, ssrc: SSRC }
            .write(&mut packet);
        self.send(packet, Srtp::protect_rtp);
    }

    fn send(&mut self, mut packet: Vec<u8>, protect: Protect) {
        if let Some(srtp) = &mut self.srtp {
            let len = packet.len();
            packet.resize(len + OVERHEAD_BYTES_MAX, 0);
            let len = protect(srtp, &mut packet, len).expect("a sound packet");
            packet.truncate(len);
        }
        self.socket.send(&packet).expect("loopback");
    }

    /// A receiver report, then how the phone hears the daemon, its time, and the answer to the
    /// daemon's once that was held long enough.
    fn report(&mut self) {
        let Some((far, extended_highest)) = self.far else { return };
        let (fraction_lost, cumulative_lost, jitter) = (26, 1, 0);
        let reception =
            ReceptionReport { ssrc: far, fraction_lost, cumulative_lost, extended_highest, jitter };
        let blocks = [Block { reception, last_sender_report: 0, delay_since: 0 }];
        let mut packet = vec![0; 500];
        let report = Report { ssrc: SSRC, sender: None, blocks: &blocks, cname: "rig", bye: false };
        let mut len = report.write(&mut packet).expect("it fits");
        let ntp = ntp_now();
        self.references.push((ntp >> 16) as u32);
        let held = self.asked.filter(|(.., arrived)| arrived.elapsed() >= FEIGNED);
        let answer = held.map(|(ssrc, last, arrived)| {
            let held = arrived.elapsed() - FEIGNED;
            let delay_since = (held.as_nanos() * 65_536 / 1_000_000_000) as u32;
            ReferenceAnswer { ssrc, last, delay_since }
        });
        let extended = Extended {
            ssrc: SSRC,
            reference_time: Some(ntp),
            answer,
            summary: None,
            voip_metrics: Some(VoipMetrics { ssrc: far, ..HEARD }),
        };
        len += extended.write(&mut packet[len..]).expect("it fits");
        packet.truncate(len);
        self.send(packet, Srtp::protect_rtcp);
    }

    /// Takes what comes until then.
    fn listen(&mut self, until: Instant) {
        let mut buffer = [0; 2_048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.socket.set_read_timeout(Some(left)).expect("a time");
            let Ok(len) = self.socket.recv(&mut buffer) else { continue };
            let is_report = (192..=223).contains(&buffer[1]);
            let packet = match &mut self.srtp {
                None => &buffer[..len],
                Some(srtp) => {
                    let by = if is_report { Srtp::unprotect_rtcp } else { Srtp::unprotect_rtp };
                    let len = by(srtp, &mut buffer[..len]).expect("the daemon's key");
                    &buffer[..len]
                }
            };
            if is_report {
                let packet = packet.to_vec();
                self.hear_report(&packet);
            } else {
                let header = RtpPacket::parse(packet).expect("sound RTP").header;
                self.far = Some((header.ssrc, u32::from(header.sequence)));
            }
        }
    }

    fn hear_report(&mut self, packet: &[u8]) {
        let arrived = ntp_now();
        let (mut reception, mut metrics, mut summary) = (None, None, None);
        let (mut is_answered, mut reference) = (false, None);
        for part in Compound::parse(packet).expect("a sound compound") {
            match part {
                Part::SenderReport { mut blocks, .. } | Part::ReceiverReport { mut blocks, .. } => {
                    reception = blocks.next().map(|block| block.reception);
                }
                Part::Extended { ssrc, blocks } => {
                    for block in blocks {
                        match block {
                            ExtendedBlock::ReferenceTime { ntp } => reference = Some((ssrc, ntp)),
                            ExtendedBlock::ReferenceAnswers(mut answers) => {
                                is_answered = answers.any(|answer| self.is_ours(&answer, arrived));
                            }
                            ExtendedBlock::Summary(told) => summary = Some(told),
                            ExtendedBlock::VoipMetrics(told) => metrics = Some(told),
                            ExtendedBlock::Other { block_type } => panic!("block {block_type}"),
                        }
                    }
                }
                Part::Cname { .. } | Part::Bye { .. } | Part::Other { .. } => {}
            }
        }
        let (ssrc, ntp) = reference.expect("a reference time");
        assert_eq!(self.far.map(|(far, _)| far), Some(ssrc), "one source for both");
        self.asked = Some((ssrc, (ntp >> 16) as u32, Instant::now()));
        let reception = reception.expect("a report block");
        let up_to = |number: &&u16| u32::from(**number) <= reception.extended_highest & 0xffff;
        let told = Told {
            reception,
            lost: self.lost.iter().filter(up_to).copied().collect(),
            metrics: metrics.expect("VoIP metrics"),
            summary: summary.expect("a summary"),
            is_answered,
        };
        // Nobody listens any more once all was told.
        let _ = self.told.send(told);
    }

    fn is_ours(&self, answer: &ReferenceAnswer, arrived: u64) -> bool {
        let trip = answer.round_trip(arrived);
        answer.ssrc == SSRC
            && self.references.contains(&answer.last)
            && trip.is_some_and(|trip| trip < SOON)
    }
}

type Protect = fn(&mut Srtp, &mut [u8], usize) -> Result<usize, SrtpFault>;

fn ntp_now() -> u64 {
    const FROM_1900_TO_1970_S: u64 = 2_208_988_800;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    ((since.as_secs() + FROM_1900_TO_1970_S) << 32) | fraction
}
