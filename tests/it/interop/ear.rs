//! The media of a telephone whose signalling is SIPp's: PCMU at a port of the test's own. It tells
//! what is heard, and speaks when it hears, so that the edge's clock is the only one.

use super::rig::DEADLINE;
use std::f64::consts::TAU;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use voxedge::cli::demo::measure;
use voxedge::codec::g711::Law;

/// Samples of a packet of 20 ms.
const PACKET: usize = 160;
/// Packets that must be heard as wanted: half a second.
const ENOUGH: usize = 25;
/// What is louder than a line.
const LOUD_DBFS: f64 = -50.0;
/// Share of a packet's energy that a tone has.
const PURE: f64 = 0.8;
/// What the stand-in's agents say as their tone.
pub const AGENT_HZ: u32 = 1_000;

pub struct Ear {
    socket: UdpSocket,
    pub port: u16,
    sequence: u16,
}

impl Ear {
    pub fn new() -> Ear {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        let port = socket.local_addr().expect("it is bound").port();
        Ear { socket, port, sequence: 0 }
    }

    /// Until half a second of any sound was heard.
    pub fn await_sound(&mut self) {
        self.await_packets("sound", |pcm| measure::level_dbfs(pcm) > LOUD_DBFS);
    }

    /// Until half a second of a tone was heard.
    pub fn await_tone(&mut self, hz: u32) {
        self.await_packets("a tone", |pcm| is_tone(pcm, hz));
    }

    fn await_packets(&mut self, what: &str, wanted: impl Fn(&[i16]) -> bool) {
        let mut heard = 0;
        while heard < ENOUGH {
            let (pcm, _) = self.hear(what);
            heard += usize::from(wanted(&pcm));
        }
    }

    /// Says one tone for each packet that comes, until both this one and the other have heard each
    /// other. `content` counts those who have.
    pub fn talk(&mut self, said_hz: u32, heard_hz: u32, content: &AtomicUsize) {
        let mut heard = 0;
        while content.load(Ordering::SeqCst) < 2 {
            let (pcm, edge) = self.hear("the other side");
            self.say(said_hz, edge);
            heard += usize::from(is_tone(&pcm, heard_hz));
            if heard == ENOUGH {
                content.fetch_add(1, Ordering::SeqCst);
                heard += 1;
            }
        }
    }

    /// The next packet of PCMU.
    fn hear(&self, awaited: &str) -> (Vec<i16>, SocketAddr) {
        let mut packet = [0; 2_048];
        loop {
            let (len, edge) = self.socket.recv_from(&mut packet).unwrap_or_else(|error| {
                panic!("{awaited} was awaited and nothing more comes: {error}")
            });
            let payload = packet.get(12..len).unwrap_or_default();
            if packet[1] & 0x7f == 0 && !payload.is_empty() {
                let mut pcm = vec![0; payload.len()];
                Law::Mu.decode(payload, &mut pcm).expect("it has room");
                return (pcm, edge);
            }
        }
    }

    fn say(&mut self, hz: u32, edge: SocketAddr) {
        self.sequence += 1;
        let begin = u32::from(self.sequence) * PACKET as u32;
        let mut packet = vec![0; 12];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&begin.to_be_bytes());
        packet[11] = 7;
        packet.extend(tone(hz, begin, PACKET));
        // Whoever has hung up meanwhile hears no more.
        let _ = self.socket.send_to(&packet, edge);
    }
}

/// So many samples of a tone in µ-law, beginning at one of them.
pub fn tone(hz: u32, begin: u32, samples: usize) -> Vec<u8> {
    let step = TAU * f64::from(hz) / 8_000.0;
    let sample = |index| (8_000.0 * (step * f64::from(begin + index)).sin()) as i16;
    let pcm: Vec<i16> = (0..samples as u32).map(sample).collect();
    let mut encoded = vec![0; samples];
    Law::Mu.encode(&pcm, &mut encoded).expect("it has room");
    encoded
}

/// Most of it is this frequency.
fn is_tone(pcm: &[i16], hz: u32) -> bool {
    let step = TAU * f64::from(hz) / 8_000.0;
    let (mut sine, mut cosine, mut energy) = (0.0, 0.0, 0.0);
    for (index, sample) in pcm.iter().enumerate() {
        let (sample, angle) = (f64::from(*sample), step * index as f64);
        sine += sample * angle.sin();
        cosine += sample * angle.cos();
        energy += sample * sample;
    }
    let tone = 2.0 * (sine * sine + cosine * cosine) / pcm.len() as f64;
    measure::level_dbfs(pcm) > LOUD_DBFS && tone > PURE * energy
}
