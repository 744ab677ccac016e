//! What a phone hears of RTP packets that came to it: each decoded in its turn and laid where its timestamp
//! puts it, as by a phone whose own buffer is never wrong.

use super::Heard;
use super::coder::Coder;
use voxedge::rtp::packet::RtpPacket;

/// Longest audio of a packet, in milliseconds.
const PACKET_MS_MAX: usize = 120;

/// A packet as it came, since the first moment of the talk.
pub struct Came {
    pub at_ms: f64,
    pub packet: Vec<u8>,
}

/// The audio of the packets of one stream. The first lies where it would be if it had been spoken when it
/// left; what is no packet of the codec is passed over.
pub fn hear(coder: &Coder, payload_type: u8, came: &[Came]) -> Heard {
    let hz = coder.back_hz;
    let mut decoder = coder.decoder(hz);
    let mut out = vec![0; hz as usize / 1_000 * PACKET_MS_MAX];
    let mut heard = Heard { pcm: Vec::new(), marks: Vec::new(), ppm: 0.0 };
    let mut first: Option<(i64, u32)> = None;
    for Came { at_ms, packet } in came {
        let Ok(packet) = RtpPacket::parse(packet) else { continue };
        if packet.header.payload_type != payload_type {
            continue;
        }
        let Ok(samples) = decoder.decode(packet.payload, &mut out) else { continue };
        let (origin, timestamp) = *first.get_or_insert_with(|| {
            let said_ms = at_ms - f64::from(coder.packet_ms);
            ((said_ms * f64::from(hz) / 1_000.0) as i64, packet.header.timestamp)
        });
        let ticks = i64::from(packet.header.timestamp.wrapping_sub(timestamp) as i32);
        let begin = origin + ticks * i64::from(hz) / i64::from(coder.kind.rtp_clock_hz());
        let Ok(begin) = usize::try_from(begin) else { continue };
        let end = begin + samples;
        if heard.pcm.len() < end {
            heard.pcm.resize(end, 0);
            heard.marks.push((end, *at_ms));
        }
        heard.pcm[begin..end].copy_from_slice(&out[..samples]);
    }
    heard
}
