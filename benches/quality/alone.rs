//! What a codec leaves without the daemon: each packet decoded in its turn, and for those that never
//! came either the codec's concealment, with nothing late and nothing waited for, or silence.

use super::Heard;
use super::coder::Coder;

/// The audio of packets of which `came` arrived, in that order, as the agent would hear it.
pub fn decode(coder: &Coder, payloads: &[Vec<u8>], came: &[usize], conceals: bool) -> Heard {
    let samples = coder.packet_samples(coder.agent_hz);
    let mut decoder = coder.decoder(coder.agent_hz);
    let mut pcm = Vec::with_capacity(payloads.len() * samples);
    let mut out = vec![0; samples];
    for (number, payload) in payloads.iter().enumerate() {
        out.fill(0);
        if came.binary_search(&number).is_ok() {
            decoder.decode(payload, &mut out).expect("a whole packet");
        } else if conceals {
            let next =
                payloads.get(number + 1).filter(|_| came.binary_search(&(number + 1)).is_ok());
            if next.and_then(|next| decoder.decode_fec(next, &mut out)).is_none() {
                decoder.conceal(&mut out);
            }
        }
        pcm.extend_from_slice(&out);
    }
    Heard::at_once(pcm, coder.agent_hz)
}

/// The agent's words as the daemon encodes them, decoded by the phone.
pub fn back(coder: &Coder, pcm: &[i16]) -> Heard {
    let mut decoder = coder.decoder(coder.back_hz);
    let mut out = vec![0; coder.packet_samples(coder.back_hz)];
    let mut heard = Vec::with_capacity(pcm.len());
    for payload in coder.encode_back(pcm) {
        decoder.decode(&payload, &mut out).expect("a whole packet");
        heard.extend_from_slice(&out);
    }
    Heard::at_once(heard, coder.back_hz)
}
