//! RTP packets (RFC 3550 §5.1): the one door to `rtp-rs`. Reads a packet as a view into the
//! datagram and writes a header before a payload that already stands in its buffer. Nothing is
//! allocated; header extensions and contributing sources are skipped, padding is cut.

use rtp_rs::{RtpPacketBuilder, RtpReader, RtpReaderError};

/// Bytes of the header that we send: no extension, no contributing sources.
pub const HEADER_BYTES: usize = 12;

/// The fixed fields of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpHeader {
    /// For audio: the first packet after silence (RFC 3551 §4.1).
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    pub sequence: u16,
    /// In units of the payload's clock.
    pub timestamp: u32,
    pub ssrc: u32,
}

impl RtpHeader {
    /// Writes the header to the front of `out` and returns its length, [`HEADER_BYTES`]. `out`
    /// must hold that many and the payload type be below 128: both are ours to know.
    pub fn write(&self, out: &mut [u8]) -> usize {
        RtpPacketBuilder::new()
            .marked(self.marker)
            .payload_type(self.payload_type)
            .sequence(self.sequence.into())
            .timestamp(self.timestamp)
            .ssrc(self.ssrc)
            .build_into(out)
            .expect("twelve bytes of room and an agreed payload type")
    }
}

/// Names the reader: `RtpPacket::parse(bytes)`.
pub struct RtpPacket;

/// One packet, seen in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtpView<'a> {
    pub header: RtpHeader,
    /// Without padding; may be empty (keep-alives).
    pub payload: &'a [u8],
}

/// Why a datagram is no RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtpFault {
    /// Shorter than its header says.
    Truncated,
    /// Not version 2: STUN, DTLS, or garbage.
    Version,
    /// A padding length of zero or beyond the payload.
    Padding,
}

impl RtpPacket {
    /// Reads one datagram.
    pub fn parse(bytes: &[u8]) -> Result<RtpView<'_>, RtpFault> {
        let reader = RtpReader::new(bytes).map_err(|error| match error {
            RtpReaderError::BufferTooShort(_) | RtpReaderError::HeadersTruncated { .. } => {
                RtpFault::Truncated
            }
            RtpReaderError::UnsupportedVersion(_) => RtpFault::Version,
            RtpReaderError::PaddingLengthInvalid(_) => RtpFault::Padding,
        })?;
        let header = RtpHeader {
            marker: reader.mark(),
            payload_type: reader.payload_type(),
            sequence: reader.sequence_number().into(),
            timestamp: reader.timestamp(),
            ssrc: reader.ssrc(),
        };
        Ok(RtpView { header, payload: reader.payload() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written from the picture in RFC 3550 §5.1 alone.
    fn independent(bytes: &[u8]) -> Option<RtpView<'_>> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (first, second) = (word(0)?, word(8)?);
        let mut start = 12 + 4 * (first >> 24 & 15) as usize;
        if first >> 28 & 1 == 1 {
            start += 4 + 4 * (word(start)? & 0xFFFF) as usize;
        }
        let padding = if first >> 29 & 1 == 1 { usize::from(*bytes.last()?) } else { 0 };
        let end = bytes.len().checked_sub(padding)?;
        let zero_padding = first >> 29 & 1 == 1 && padding == 0;
        let payload = bytes.get(start..end).filter(|_| first >> 30 == 2 && !zero_padding)?;
        let (marker, payload_type) = (first >> 23 & 1 == 1, (first >> 16 & 127) as u8);
        let (sequence, timestamp) = (first as u16, word(4)?);
        Some(RtpView {
            header: RtpHeader { marker, payload_type, sequence, timestamp, ssrc: second },
            payload,
        })
    }

    #[test]
    fn packets_read_as_the_picture_says() {
        let header = RtpHeader {
            marker: true,
            payload_type: 101,
            sequence: 0xFFFE,
            timestamp: 0x0102_0304,
            ssrc: 0xA0B0_C0D0,
        };
        let mut plain = vec![0; 12];
        assert_eq!(header.write(&mut plain), HEADER_BYTES);
        let expected = [0x80, 0xE5, 0xFF, 0xFE, 1, 2, 3, 4, 0xA0, 0xB0, 0xC0, 0xD0];
        assert_eq!(plain, expected);
        plain.extend([7, 8, 9]);
        let with = |first: u8, insert: &[u8], tail: &[u8]| {
            let mut packet = plain.clone();
            packet[0] = first;
            packet.splice(12..12, insert.iter().copied());
            packet.extend(tail);
            packet
        };
        type Row<'a> = (Vec<u8>, Result<&'a [u8], RtpFault>);
        let rows: [Row; 14] = [
            (plain.clone(), Ok(&[7, 8, 9])),
            (plain[..12].to_vec(), Ok(&[])),
            (plain[..11].to_vec(), Err(RtpFault::Truncated)),
            (Vec::new(), Err(RtpFault::Truncated)),
            (with(0x82, &[0; 8], &[]), Ok(&[7, 8, 9])),
            (with(0x8F, &[0; 8], &[]), Err(RtpFault::Truncated)),
            (with(0x90, &[0xBE, 0xDE, 0, 1, 1, 2, 3, 4], &[]), Ok(&[7, 8, 9])),
            (with(0x90, &[0xBE, 0xDE, 0xFF, 0xFF], &[]), Err(RtpFault::Truncated)),
            (with(0xA0, &[], &[0, 2]), Ok(&[7, 8, 9])),
            (with(0xA0, &[], &[5]), Err(RtpFault::Padding)),
            (with(0xA0, &[], &[0]), Err(RtpFault::Padding)),
            (with(0xA0, &[], &[4]), Ok(&[])),
            (with(0x40, &[], &[]), Err(RtpFault::Version)),
            (with(0x00, &[], &[]), Err(RtpFault::Version)),
        ];
        for (packet, expected) in rows {
            let read = RtpPacket::parse(&packet);
            assert_eq!(read.map(|view| view.payload), expected, "{packet:?}");
            if let Ok(view) = read {
                assert_eq!(view.header, header);
            }
        }
    }

    #[test]
    fn random_packets_read_as_an_independent_reader_reads_them() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut valid = 0;
        for round in 0..200_000 {
            let len = (random() % 64) as usize;
            let mut packet: Vec<u8> = (0..len).map(|_| random() as u8).collect();
            if let Some(first) = packet.first_mut() {
                // Mostly version 2, and few contributing sources, so that many are valid.
                *first = if random() % 8 == 0 { *first } else { 0x80 | (*first & 0x33) };
            }
            if len > 15 && random() % 2 == 0 {
                packet[14] = 0;
                packet[15] %= 8;
                packet[len - 1] %= 32;
            }
            let expected = independent(&packet);
            valid += u32::from(expected.is_some());
            assert_eq!(RtpPacket::parse(&packet).ok(), expected, "round {round}: {packet:?}");
        }
        assert!(valid > 40_000, "only {valid} packets were valid");
    }
}
