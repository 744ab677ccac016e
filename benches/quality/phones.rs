//! Phones on real sockets: they call the daemon's echo agent all at once, send packets that were encoded
//! before at the times that a simulated network would deliver them, and keep what comes back. How late
//! the machine let each phone send is measured: a phone that is late is another network.

use super::coder::Coder;
use super::ear::Came;
use super::network::Arrival;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use voxedge::cli::demo::phone::{Dialled, PhoneCall, Up};
use voxedge::ground::Transport;
use voxedge::rtp::packet::RtpHeader;

/// From the last answer to the first packet.
const BREATH: Duration = Duration::from_millis(200);
/// What is listened to after the last packet.
const TAIL: Duration = Duration::from_millis(800);
/// How often ears look whether the call is over.
const GLANCE: Duration = Duration::from_millis(100);
const PACKET_BYTES_MAX: usize = 1_500;
/// Calls placed so far: each has an identity of its own.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// What one phone does.
pub struct Talk<'a> {
    pub coder: &'a Coder,
    /// More packets than there are payloads begin again with the first.
    pub payloads: &'a [Vec<u8>],
    /// When packets leave the phone: as late as its network is slow.
    pub departures: Vec<Arrival>,
}

/// What became of it.
pub struct Talked {
    pub came: Vec<Came>,
    /// How late each packet left, in milliseconds.
    pub late_ms: Vec<f64>,
}

impl Talked {
    pub fn latest_ms(&self) -> f64 {
        self.late_ms.iter().copied().fold(0.0, f64::max)
    }
}

/// Places a call for each talk, has them all talk at once, and hangs up.
///
/// # Errors
/// A call is refused or a socket fails.
pub async fn talk(server: SocketAddr, talks: &[Talk<'_>]) -> io::Result<Vec<Talked>> {
    let mut calls = Vec::new();
    for talk in talks {
        calls.push(dial(server, talk.coder).await?);
    }
    let talked = tokio::task::block_in_place(|| converse(&calls, talks));
    for call in calls {
        call.hang_up().await?;
    }
    talked
}

async fn dial(server: SocketAddr, coder: &Coder) -> io::Result<Up> {
    let call = PhoneCall {
        server,
        transport: Transport::Udp,
        tls: None,
        to_user: "echo".to_owned(),
        domain: "localhost".to_owned(),
        codec: coder.kind,
        speech: Vec::new(),
        talk: Duration::ZERO,
        headers: Vec::new(),
        seed: CALLS.fetch_add(1, Ordering::Relaxed),
    };
    match Dialled::place(call, coder.wording()).await? {
        Dialled::Answered(up) => Ok(*up),
        Dialled::Refused(report) => {
            let (name, status, reason) = (coder.name, report.status, report.reason);
            Err(io::Error::other(format!("{name}: {status} {reason}")))
        }
    }
}

/// One mouth for all phones, an ear for each.
fn converse(calls: &[Up], talks: &[Talk]) -> io::Result<Vec<Talked>> {
    let begin = Instant::now() + BREATH;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ears: Vec<_> = calls
            .iter()
            .map(|call| {
                let (media, stop) = (call.media(), &stop);
                scope.spawn(move || listen(&media, begin, stop))
            })
            .collect();
        let spoken = speak(calls, talks, begin);
        stop.store(true, Ordering::Relaxed);
        let mut talked = Vec::new();
        for (ear, late_ms) in ears.into_iter().zip(spoken?) {
            let came = ear.join().map_err(|_| io::Error::other("an ear failed"))??;
            talked.push(Talked { came, late_ms });
        }
        Ok(talked)
    })
}

/// Sends every phone's packets when they are due; gives how late each was.
fn speak(calls: &[Up], talks: &[Talk], begin: Instant) -> io::Result<Vec<Vec<f64>>> {
    let mut due: Vec<(Duration, usize, usize)> = Vec::new();
    for (call, talk) in talks.iter().enumerate() {
        due.extend(talk.departures.iter().map(|one| (one.at, call, one.packet)));
    }
    due.sort_unstable();
    let sockets: Vec<Arc<UdpSocket>> = calls.iter().map(Up::media).collect();
    let mut late_ms = vec![Vec::new(); calls.len()];
    for (at, call, number) in &due {
        let due = begin + *at;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        late_ms[*call].push(due.elapsed().as_secs_f64() * 1_000.0);
        let talk = &talks[*call];
        let packet = packet(talk.coder, *number, &talk.payloads[number % talk.payloads.len()]);
        sockets[*call].send_to(&packet, calls[*call].remote)?;
    }
    std::thread::sleep(TAIL);
    Ok(late_ms)
}

fn packet(coder: &Coder, number: usize, payload: &[u8]) -> Vec<u8> {
    let clock = coder.kind.rtp_clock_hz() / 1_000 * u32::from(coder.packet_ms);
    let header = RtpHeader {
        marker: number == 0,
        payload_type: coder.wording().payload_type,
        sequence: number as u16,
        timestamp: (number as u32).wrapping_mul(clock),
        ssrc: 7,
    };
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let head = header.write(&mut packet);
    packet.truncate(head);
    packet.extend_from_slice(payload);
    packet
}

/// Keeps what comes from the talk's first moment on.
fn listen(media: &UdpSocket, begin: Instant, stop: &AtomicBool) -> io::Result<Vec<Came>> {
    media.set_read_timeout(Some(GLANCE))?;
    let mut came = Vec::new();
    let mut packet = [0; PACKET_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let Ok((bytes, _)) = media.recv_from(&mut packet) else { continue };
        let at = Instant::now();
        if at >= begin {
            let at_ms = at.duration_since(begin).as_secs_f64() * 1_000.0;
            came.push(Came { at_ms, packet: packet[..bytes].to_vec() });
        }
    }
    Ok(came)
}
