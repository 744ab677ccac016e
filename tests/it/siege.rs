//! A daemon under siege: connections that idle or drip (security S5), and a flood of packets from an
//! address that is not listed (S3). Calls of listed callers come through all the same.

use crate::rig::{self, Process, SOON};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use voxedge::ground::Transport;

const LIMIT: Duration = Duration::from_secs(180);
const IDLE: usize = 500;
const DRIPPING: usize = 100;
/// Below what one source may hold.
const PER_SOURCE: usize = 25;
const FLOOD_MIN: u64 = 20_000;
const CALLS_MIN: usize = 5;
/// An address that the flood test does not list.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

#[test]
fn idle_and_dripping_connections_keep_no_caller_out() {
    rig::run(LIMIT, async {
        let process = Process::spawn(&[], &[]);
        let before = process.footprint().files;
        let mut held = Vec::new();
        let mut source = rig::source();
        for number in 0..IDLE + DRIPPING {
            if number % PER_SOURCE == 0 {
                source = rig::source();
            }
            held.push(connect(source, process.doors.tcp).await);
        }
        rig::await_some(SOON, "all are connected", || {
            let open = process.doors.metric("sip_connections")?;
            (open >= (IDLE + DRIPPING) as f64).then_some(())
        });
        let stop = Arc::new(AtomicBool::new(false));
        let dripping = tokio::spawn(drip(held.split_off(IDLE), Arc::clone(&stop)));
        for transport in [Transport::Tcp, Transport::Tls, Transport::Udp] {
            let mut caller = process.caller(transport).await;
            let begun = Instant::now();
            let answer = caller.call("echo", 40_000).await;
            let took = begun.elapsed();
            assert_eq!(answer.code(), 200, "over {transport:?}");
            eprintln!(
                "besieged by {IDLE} + {DRIPPING} connections: up over {transport:?} in {took:?}"
            );
            assert!(
                took < Duration::from_secs(10),
                "a busy machine takes seconds, a siege for ever"
            );
            assert_eq!(caller.hang_up(&answer).await, 200);
        }
        stop.store(true, Ordering::Relaxed);
        drop(dripping.await.expect("no panic"));
        drop(held);
        process.doors.await_idle();
        rig::await_some(SOON, "the descriptors came back", || {
            // The caller's connections and the admin's own may still be closing.
            (process.footprint().files <= before + 8).then_some(())
        });
    });
}

async fn connect(source: IpAddr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source, 0)).expect("127/8 is ours");
    socket.connect(server).await.expect("the daemon listens")
}

/// One byte after the other of a message that never becomes whole, on each connection.
async fn drip(mut streams: Vec<TcpStream>, stop: Arc<AtomicBool>) -> Vec<TcpStream> {
    let head = b"OPTIONS sip:drip@127.0.0.1 SIP/2.0\r\nSubject: ";
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for at in 0.. {
        tick.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let byte = head.get(at).copied().unwrap_or(b'x');
        for stream in &mut streams {
            // The daemon may have closed it: its time was over.
            let _ = stream.write_all(&[byte]).await;
        }
    }
    streams
}

#[test]
fn a_flood_of_a_stranger_keeps_no_caller_out() {
    rig::run(LIMIT, async {
        let listed = (
            "allowed_cidr_ranges = [\"127.0.0.0/8\"]",
            "allowed_cidr_ranges = [\"127.16.0.0/12\"]",
        );
        let process = Process::spawn(&[listed], &[]);
        let memory = process.footprint().rss_kib;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let flooding = {
            let (stop, sent, server) = (Arc::clone(&stop), Arc::clone(&sent), process.doors.udp);
            std::thread::spawn(move || flood(server, &stop, &sent))
        };
        let begun = Instant::now();
        let mut number = 0;
        while number < CALLS_MIN || sent.load(Ordering::Relaxed) < FLOOD_MIN {
            number += 1;
            let mut caller = process.caller(Transport::Udp).await;
            let answer = caller.call("echo", 40_002).await;
            assert_eq!(answer.code(), 200, "call {number}");
            assert_eq!(caller.hang_up(&answer).await, 200, "call {number}");
        }
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let answered = flooding.join().expect("no panic");
        assert_eq!(answered, 0, "the stranger got bytes back");
        let sent = sent.load(Ordering::Relaxed);
        let seen = process.doors.metric("sip_unlisted_total").expect("a figure");
        eprintln!(
            "{sent} packets in {took:?}, {seen} of them reached the process, {number} calls up"
        );
        assert!(seen > 0.0);
        let muted = process.doors.metric("sip_muted_total").expect("a figure");
        assert!(muted >= 1.0 && seen < sent as f64, "{muted} times muted");
        process.doors.await_idle();
        let grown = process.footprint().rss_kib.saturating_sub(memory);
        assert!(grown < 64 * 1024, "{grown} KiB more than before");
        let lines = process.log().lines().filter(|line| line.contains("unlisted")).count();
        assert!(lines as u64 <= 2 + took.as_secs() / 5, "{lines} lines of log");
    });
}

/// INVITEs as fast as they go; gives the number of packets that came back.
fn flood(server: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> usize {
    let socket = UdpSocket::bind((STRANGER, 0)).expect("127/8 is ours");
    let local = socket.local_addr().expect("it is bound");
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let invite = format!(
            "INVITE sip:echo@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{number}\r\n\
             From: <sip:flood@{local}>;tag={number}\r\nTo: <sip:echo@{server}>\r\n\
             Call-ID: flood{number}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n\
             Contact: <sip:flood@{local}>\r\nContent-Length: 0\r\n\r\n"
        );
        // The kernel may be full.
        let _ = socket.send_to(invite.as_bytes(), server);
    }
    socket.set_nonblocking(true).expect("a socket");
    std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count()
}
