//! RTP and its companions: packets, reception accounting, losses, RTCP, telephone-events and SRTP. This floor
//! says what bytes mean; pacing, jitter buffers and sockets live above.

pub mod losses;
pub mod packet;
pub mod rtcp;
pub mod sequence;
pub mod srtp;
pub mod telephone_event;

/// Whether a packet that came on a multiplexed port is RTCP: its second byte is an RTCP packet
/// type, which RTP payload numbers with their marker bit must not look like (RFC 5761 §4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [first, 192..=223, ..] if first >> 6 == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplexed_packets_are_told_apart_by_their_second_byte() {
        for (packet, rtcp) in [
            (&[0x80, 200][..], true),
            (&[0x81, 223], true),
            (&[0x80, 191], false),
            (&[0x80, 224], false),
            (&[0x80, 0], false),
            (&[0x80, 0x80], false),
            (&[0x00, 200], false),
            (&[0x80], false),
            (&[], false),
        ] {
            assert_eq!(is_rtcp(packet), rtcp, "{packet:?}");
        }
    }
}
