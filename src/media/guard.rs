//! SRTP between a leg and its sockets: what comes is verified and decrypted before anything looks at
//! it, what goes is protected last. Packets that do not verify are counted and dropped; they end
//! nothing, and no plain packet passes.

use super::plan::SrtpPlan;
use crate::rtp::srtp::{Srtp, SrtpFault};

/// Longer datagrams are no media.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// The keys of one leg and what was done with them.
pub(super) struct Guard {
    srtp: Srtp,
    /// Where a received packet is decrypted.
    plain: [u8; DATAGRAM_BYTES_MAX],
    failures: u64,
}

impl Guard {
    pub(super) fn new(plan: &SrtpPlan) -> Guard {
        let srtp = Srtp::new(&plan.send, &plan.receive, plan.mki);
        Guard { srtp, plain: [0; DATAGRAM_BYTES_MAX], failures: 0 }
    }

    /// Follows a new offer/answer: a direction whose key stays goes on.
    pub(super) fn change(&mut self, plan: &SrtpPlan) {
        self.srtp.change(&plan.send, &plan.receive, plan.mki);
    }

    /// Packets in both directions that SRTP could not let through.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// The RTP packet of a datagram.
    pub(super) fn open_rtp(&mut self, datagram: &[u8]) -> Option<&[u8]> {
        self.open(datagram, Srtp::unprotect_rtp)
    }

    /// The RTCP packet of a datagram.
    pub(super) fn open_rtcp(&mut self, datagram: &[u8]) -> Option<&[u8]> {
        self.open(datagram, Srtp::unprotect_rtcp)
    }

    /// Protects the RTP packet in the first `len` bytes; its new length.
    pub(super) fn close_rtp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let protected = self.srtp.protect_rtp(buffer, len);
        self.counted(protected)
    }

    /// Protects the RTCP packet in the first `len` bytes; its new length.
    pub(super) fn close_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let protected = self.srtp.protect_rtcp(buffer, len);
        self.counted(protected)
    }

    fn open(
        &mut self,
        datagram: &[u8],
        by: fn(&mut Srtp, &mut [u8]) -> Result<usize, SrtpFault>,
    ) -> Option<&[u8]> {
        let opened = match self.plain.get_mut(..datagram.len()) {
            Some(packet) => {
                packet.copy_from_slice(datagram);
                by(&mut self.srtp, packet)
            }
            None => Err(SrtpFault::Malformed),
        };
        let len = self.counted(opened)?;
        self.plain.get(..len)
    }

    fn counted(&mut self, done: Result<usize, SrtpFault>) -> Option<usize> {
        self.failures += u64::from(done.is_err());
        done.ok()
    }
}
