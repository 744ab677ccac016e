//! SRTP and SRTCP (RFC 3711; RFC 6188 for keys of 256 bits, RFC 7714 for GCM): packets are protected
//! and unprotected in place, without allocating. Keys come from the signalling; this module never
//! sees it.
//!
//! A packet that does not verify changes nothing: not the rollover counter, not the replay window, not
//! the packet. What is replayed, forged or too short is an error for the caller to count and drop.
//! A key stream is never used twice: a sequence number that was used is refused.

mod index;
mod keys;
mod suite;
mod transform;

#[cfg(test)]
mod tests;

pub use suite::{MasterKey, Mki, Suite};

use index::Window;
use keys::{Protocol, SessionKeys};
use std::fmt;
use transform::{Place, Transform};

/// The most bytes that protection adds to an RTP or RTCP packet of ours.
pub const OVERHEAD_BYTES_MAX: usize = 20;
/// Sources of one key that are known at a time; the one not heard for longest makes place.
const SOURCES_MAX: usize = 16;
/// SRTCP has indices of 31 bits (RFC 3711 §3.4).
const RTCP_INDEX_MAX: u64 = (1 << 31) - 1;
/// The first index of SRTCP: one, as libsrtp's.
const RTCP_INDEX_FIRST: u64 = 1;

/// Why a packet is not let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SrtpFault {
    /// No RTP or RTCP, or too short for what SRTP adds to it.
    Malformed,
    /// It was accepted before, or is so old that nobody can tell.
    Replayed,
    /// Its tag does not verify: forged, damaged, or of another key.
    Forged,
    /// Ours cannot be protected: no room, a number used before, or the key's lifetime is over.
    Unprotectable,
}

/// Both directions of one leg.
pub struct Srtp {
    sender: Sender,
    receiver: Receiver,
    /// The peer's key before the last change: its packets are on their way until the first one of the
    /// new key is here.
    receiver_before: Option<Box<Receiver>>,
}

impl Srtp {
    /// `send` is our key, `receive` the peer's, whose packets carry `mki` when it announced one.
    pub fn new(send: &MasterKey, receive: &MasterKey, mki: Option<Mki>) -> Srtp {
        Srtp {
            sender: Sender::new(send),
            receiver: Receiver::new(receive, mki),
            receiver_before: None,
        }
    }

    /// Follows a new offer/answer. A direction whose key stays goes on with its rollover counter; one
    /// with another key starts anew.
    pub fn change(&mut self, send: &MasterKey, receive: &MasterKey, mki: Option<Mki>) {
        if self.sender.key != *send {
            self.sender = Sender::new(send);
        }
        if self.receiver.key != *receive {
            let fresh = Receiver::new(receive, mki);
            let before = std::mem::replace(&mut self.receiver, fresh);
            self.receiver_before = Some(Box::new(before));
        }
        self.receiver.mki = mki;
    }

    /// Protects the RTP packet in the first `len` bytes of `buffer`; returns its new length.
    ///
    /// # Errors
    /// [`SrtpFault::Malformed`] and [`SrtpFault::Unprotectable`].
    pub fn protect_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpFault> {
        self.sender.protect_rtp(buffer, len)
    }

    /// Protects the RTCP packet in the first `len` bytes of `buffer`; returns its new length.
    ///
    /// # Errors
    /// [`SrtpFault::Malformed`] and [`SrtpFault::Unprotectable`].
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpFault> {
        self.sender.protect_rtcp(buffer, len)
    }

    /// Verifies and decrypts one datagram of RTP; its first bytes, as many as are returned, are the
    /// packet.
    ///
    /// # Errors
    /// All but [`SrtpFault::Unprotectable`]; nothing has changed then.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpFault> {
        self.unprotect(packet, Receiver::unprotect_rtp)
    }

    /// Verifies and decrypts one datagram of RTCP, in the same way.
    ///
    /// # Errors
    /// All but [`SrtpFault::Unprotectable`]; nothing has changed then.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpFault> {
        self.unprotect(packet, Receiver::unprotect_rtcp)
    }

    fn unprotect(
        &mut self,
        packet: &mut [u8],
        by: fn(&mut Receiver, &mut [u8]) -> Result<usize, SrtpFault>,
    ) -> Result<usize, SrtpFault> {
        let unprotected = by(&mut self.receiver, packet);
        match (unprotected, &mut self.receiver_before) {
            (Ok(len), before) => {
                *before = None;
                Ok(len)
            }
            (Err(_), Some(before)) => by(before, packet),
            (Err(fault), None) => Err(fault),
        }
    }
}

impl fmt::Debug for Srtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Srtp({:?}, {:?})", self.sender.key, self.receiver.key)
    }
}

/// Our key and what was sent with it.
struct Sender {
    key: MasterKey,
    rtp: Transform,
    rtcp: Transform,
    sources: Sources<Sent>,
}

/// What was sent of each protocol. An index is never used twice; one that was overtaken may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sent {
    rtp: Option<Window>,
    rtcp: Option<u64>,
}

impl Sender {
    fn new(key: &MasterKey) -> Sender {
        let (rtp, rtcp) = transforms(key);
        Sender { key: key.clone(), rtp, rtcp, sources: Sources::new() }
    }

    fn protect_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpFault> {
        let packet = buffer.get(..len).ok_or(SrtpFault::Malformed)?;
        let header = Header::of_rtp(packet).ok_or(SrtpFault::Malformed)?;
        let sent = self.sources.find(header.ssrc).copied().unwrap_or_default();
        let index = match sent.rtp {
            None => Some(u64::from(header.sequence)),
            Some(window) => {
                window.index_of(header.sequence).filter(|index| window.is_fresh(*index))
            }
        };
        let index = index.ok_or(SrtpFault::Unprotectable)?;
        let place = Place { ssrc: header.ssrc, index };
        let end = self.rtp.protect_rtp(place, buffer, header.bytes, len);
        let end = end.ok_or(SrtpFault::Unprotectable)?;
        let sent = self.sources.hear(header.ssrc);
        sent.rtp.get_or_insert(Window::starting(index)).accept(index);
        Ok(end)
    }

    fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpFault> {
        let packet = buffer.get(..len).ok_or(SrtpFault::Malformed)?;
        let ssrc = ssrc_of_rtcp(packet).ok_or(SrtpFault::Malformed)?;
        let sent = self.sources.find(ssrc).copied().unwrap_or_default();
        let index = sent.rtcp.map_or(RTCP_INDEX_FIRST, |last| last + 1);
        if index > RTCP_INDEX_MAX {
            return Err(SrtpFault::Unprotectable);
        }
        let end = self.rtcp.protect_rtcp(Place { ssrc, index }, buffer, len);
        let end = end.ok_or(SrtpFault::Unprotectable)?;
        *self.sources.hear(ssrc) = Sent { rtcp: Some(index), ..sent };
        Ok(end)
    }
}

/// The peer's key and what was accepted under it.
struct Receiver {
    key: MasterKey,
    mki: Option<Mki>,
    rtp: Transform,
    rtcp: Transform,
    sources: Sources<Heard>,
}

/// What was accepted of each protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Heard {
    rtp: Option<Window>,
    rtcp: Option<Window>,
}

impl Receiver {
    fn new(key: &MasterKey, mki: Option<Mki>) -> Receiver {
        let (rtp, rtcp) = transforms(key);
        Receiver { key: key.clone(), mki, rtp, rtcp, sources: Sources::new() }
    }

    fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpFault> {
        let header = Header::of_rtp(packet).ok_or(SrtpFault::Malformed)?;
        let window = self.sources.find(header.ssrc).and_then(|heard| heard.rtp);
        let number = u64::from(header.sequence);
        let guesses = match window {
            // Before the first packet the counter is zero, or one when the numbers began shortly
            // before their wrap and the packets up to it were lost.
            None => [Some(number), (number < 0x8000).then_some(1 << 16 | number)],
            Some(window) => {
                let index = window.index_of(header.sequence).ok_or(SrtpFault::Replayed)?;
                if !window.is_fresh(index) {
                    return Err(SrtpFault::Replayed);
                }
                [Some(index), None]
            }
        };
        for index in guesses.into_iter().flatten() {
            let place = Place { ssrc: header.ssrc, index };
            let Some(len) = self.rtp.unprotect_rtp(place, packet, header.bytes, self.mki) else {
                continue;
            };
            let heard = self.sources.hear(header.ssrc);
            heard.rtp.get_or_insert(Window::starting(index)).accept(index);
            return Ok(len);
        }
        Err(SrtpFault::Forged)
    }

    fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpFault> {
        let ssrc = ssrc_of_rtcp(packet).ok_or(SrtpFault::Malformed)?;
        let index = self.rtcp.rtcp_index(packet, self.mki).ok_or(SrtpFault::Malformed)?;
        let window = self.sources.find(ssrc).and_then(|heard| heard.rtcp);
        if window.is_some_and(|window| !window.is_fresh(index)) {
            return Err(SrtpFault::Replayed);
        }
        let len = self.rtcp.unprotect_rtcp(Place { ssrc, index }, packet, self.mki);
        let len = len.ok_or(SrtpFault::Forged)?;
        let heard = self.sources.hear(ssrc);
        heard.rtcp.get_or_insert(Window::starting(index)).accept(index);
        Ok(len)
    }
}

fn transforms(key: &MasterKey) -> (Transform, Transform) {
    let suite = key.suite();
    let transform =
        |protocol, tag_bytes| Transform::new(suite, &SessionKeys::derive(key, protocol), tag_bytes);
    (
        transform(Protocol::Rtp, suite.rtp_tag_bytes()),
        transform(Protocol::Rtcp, suite.rtcp_tag_bytes()),
    )
}

/// What is known of each SSRC, the last one first.
struct Sources<T>(Vec<(u32, T)>);

impl<T: Default> Sources<T> {
    fn new() -> Sources<T> {
        Sources(Vec::with_capacity(SOURCES_MAX))
    }

    fn find(&self, ssrc: u32) -> Option<&T> {
        self.0.iter().find(|(have, _)| *have == ssrc).map(|(_, known)| known)
    }

    /// Of a source whose packet was verified or sent.
    fn hear(&mut self, ssrc: u32) -> &mut T {
        let at = self.0.iter().position(|(have, _)| *have == ssrc).unwrap_or_else(|| {
            self.0.truncate(SOURCES_MAX - 1);
            self.0.push((ssrc, T::default()));
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
        &mut self.0[0].1
    }
}

/// What the header of an RTP packet says that SRTP needs.
struct Header {
    sequence: u16,
    ssrc: u32,
    /// Its bytes, with contributing sources and extension: they stay readable.
    bytes: usize,
}

impl Header {
    fn of_rtp(packet: &[u8]) -> Option<Header> {
        let (&[first, _, high, low, _, _, _, _, s0, s1, s2, s3], _) = packet.split_first_chunk()?;
        let mut bytes = 12 + 4 * usize::from(first & 0x0F);
        if first & 0x10 != 0 {
            let (_, length) = packet.get(bytes..bytes + 4)?.split_last_chunk()?;
            bytes += 4 + 4 * usize::from(u16::from_be_bytes(*length));
        }
        let fits = first >> 6 == 2 && bytes <= packet.len();
        fits.then_some(Header {
            sequence: u16::from_be_bytes([high, low]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            bytes,
        })
    }
}

/// The sender of a compound packet: its first part names it.
fn ssrc_of_rtcp(packet: &[u8]) -> Option<u32> {
    let ([first, _, _, _, ssrc @ ..], _) = packet.split_first_chunk::<8>()?;
    (first >> 6 == 2).then_some(u32::from_be_bytes(*ssrc))
}
