//! Security S9 over the real daemon: attackers spray every media port before, while and after a call
//! is set up. What they say is heard by nobody, and nothing is sent to them.

use crate::rig::{self, Rig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use voxedge::cli::demo::phone::{self, PhoneCall};
use voxedge::cli::demo::{measure, speech};
use voxedge::codec::CodecKind;
use voxedge::ground::{Entropy, Transport};
use voxedge::rtp::packet::RtpHeader;

const LIMIT: Duration = Duration::from_secs(180);
/// What all attackers together send at least.
const PACKETS: u64 = 100_000;
/// Media ports of the daemon.
const PORTS: u16 = 40;

/// 20 ms of a loud tone of 1 kHz in µ-law, cut off flat.
fn tone() -> Vec<u8> {
    (0..160).map(|sample| if sample % 8 < 4 { 0x80 } else { 0x00 }).collect()
}

/// Sends to all ports until it is told to stop, and gives the number of packets that came back.
struct Attacker {
    thread: JoinHandle<u64>,
}

impl Attacker {
    /// Everything at once: agreed and other payload numbers, guessed SSRCs, jumps and sequences.
    fn flooding(seed: u64, first: u16, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> Attacker {
        let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
        let mut chance = Entropy::from_number(seed);
        let (socket, tone) = (socket(), tone());
        let thread = std::thread::spawn(move || {
            let mut back = 0;
            let mut sequence = 0_u16;
            let mut packet = [0; 172];
            while !stop.load(Ordering::Relaxed) {
                sequence = sequence.wrapping_add(1);
                for port in first..first + PORTS {
                    let kinds = [0, 8, 13, 101, 111, chance.below(128) as u8];
                    let header = RtpHeader {
                        marker: chance.below(20) == 0,
                        payload_type: kinds[chance.below(6) as usize],
                        sequence: if chance.below(4) == 0 { chance.u32() as u16 } else { sequence },
                        timestamp: u32::from(sequence) * 160,
                        ssrc: if chance.below(4) == 0 { chance.u32() } else { 7 },
                    };
                    header.write(&mut packet);
                    packet[12..].copy_from_slice(&tone);
                    back += shoot(&socket, port, &packet);
                }
                sent.fetch_add(u64::from(PORTS), Ordering::Relaxed);
                // A machine with few cores still has a call to carry.
                std::thread::park_timeout(Duration::from_millis(1));
            }
            back + drained(&socket)
        });
        Attacker { thread }
    }

    /// A stream as a telephone would send it, to every port.
    fn patient(first: u16, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> Attacker {
        let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
        let (socket, tone) = (socket(), tone());
        let thread = std::thread::spawn(move || {
            let mut back = 0;
            let begun = Instant::now();
            let mut packet = [0; 172];
            for sequence in 0_u16.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let timestamp = u32::from(sequence) * 160;
                let header =
                    RtpHeader { marker: false, payload_type: 0, sequence, timestamp, ssrc: 9 };
                header.write(&mut packet);
                packet[12..].copy_from_slice(&tone);
                for port in first..first + PORTS {
                    back += shoot(&socket, port, &packet);
                }
                sent.fetch_add(u64::from(PORTS), Ordering::Relaxed);
                let due = begun + Duration::from_millis(20) * u32::from(sequence);
                std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
            back + drained(&socket)
        });
        Attacker { thread }
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((rig::source(), 0)).expect("127/8 is ours");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// Sends one packet; counts what came back.
fn shoot(socket: &UdpSocket, port: u16, packet: &[u8]) -> u64 {
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    // Most ports are closed: the error of one packet is told with another.
    let _ = socket.send_to(packet, to);
    drained(socket)
}

fn drained(socket: &UdpSocket) -> u64 {
    let mut buffer = [0; 2_048];
    let mut count = 0;
    loop {
        match socket.recv_from(&mut buffer) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(_) => return count,
        }
    }
}

#[test]
fn whoever_sprays_the_media_ports_is_heard_by_nobody_and_gets_nothing() {
    rig::run(LIMIT, async {
        let first = 25_000 + (std::process::id() % 100) as u16 * PORTS;
        let rig = Rig::start_as(&[], |config| {
            config.media.ports = first..=first + PORTS - 1;
        })
        .await;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let attackers = [
            Attacker::flooding(1, first, &stop, &sent),
            Attacker::flooding(2, first, &stop, &sent),
            Attacker::patient(first, &stop, &sent),
        ];
        let spoken = speech::sentence(8_000)[..8_000].to_vec();
        let report = phone::place(PhoneCall {
            server: rig.doors.udp,
            transport: Transport::Udp,
            tls: None,
            to_user: "echo".to_owned(),
            domain: "127.0.0.1".to_owned(),
            codec: CodecKind::Pcmu,
            speech: spoken.clone(),
            talk: Duration::from_secs(5),
            headers: Vec::new(),
            seed: 1,
        })
        .await
        .expect("a call");
        let spare = rig::SOON;
        rig::await_some(spare * 4, "all packets", || {
            (sent.load(Ordering::Relaxed) >= PACKETS).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        let back: u64 =
            attackers.into_iter().map(|attacker| attacker.thread.join().expect("no panic")).sum();
        assert_eq!(report.status, 200, "{:?}", report.warning);
        assert_eq!(back, 0, "nothing is sent to who sprays");
        let heard = |piece: &[i16]| measure::align(piece, &report.heard, report.heard.len());
        let likeness = spoken.chunks_exact(2_000).filter_map(heard).map(|at| at.correlation);
        let best = likeness.fold(0.0, f64::max);
        assert!(best > 0.9, "the caller hears itself: {best}");
        // The echo of what was said is over by then; an attacker's tone would go on.
        let rest = report.heard.get(28_000..).unwrap_or_default();
        assert!(rest.len() > 4_000, "{} samples", report.heard.len());
        let level = measure::level_dbfs(rest);
        assert!(level < -45.0, "{level} dBFS after the words");
        let refused = || rig.doors.metric("rtp_refused_total").filter(|refused| *refused > 500.0);
        rig::await_some(spare, "what was refused is counted", refused);
        rig.stop().await;
    });
}

#[test]
fn no_media_goes_to_a_port_of_ours_whoever_names_it() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut caller = rig.caller(Transport::Udp).await;
        let answer = caller.call("echo", 30_000).await;
        let answer_text = String::from_utf8_lossy(answer.body()).into_owned();
        let port = answer_text.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port of ours");
        let mut other = rig.caller(Transport::Udp).await;
        for (named, code) in [(port, 488), (port + 1, 488)] {
            let id = rig::unique("own");
            let offer = rig::offer(home, named, "0");
            let invite = other.request("INVITE", "echo", &id, "", &offer);
            other.send(&invite).await;
            assert_eq!(other.final_of(&id, &invite).await.code(), code, "{named}");
        }
        assert_eq!(caller.hang_up(&answer).await, 200);
        rig.stop().await;
    });
}
