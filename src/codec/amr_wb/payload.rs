//! AMR-WB frames in an RTP payload (RFC 4867 §4.3 and §4.4), one channel, both packings, without
//! CRC, robust sorting and interleaving: those are never agreed to.
//!
//! ```text
//! bandwidth-efficient   CMR 4 | F FT Q 6 for each frame | bits of each frame | 0 to 7 bits of padding
//! octet-aligned         CMR 4, 0 4 | F FT Q 0 0 8 for each frame | octets of each frame
//! ```
//!
//! A payload is judged whole before a frame of it is given out: one that is too short or too long for
//! its table of contents, or that names a type of the future, is refused. A frame is given in the
//! form of the storage format (§5.3), which is also the form of the speech coder: a header octet, then
//! the bits.

use crate::codec::CodecFault;

/// How frames lie in a payload (`octet-align`, RFC 4867 §8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Packing {
    #[default]
    BandwidthEfficient,
    OctetAligned,
}

/// A speech mode, 0 (6.60 kbit/s) to 8 (23.85 kbit/s).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mode(u8);

impl Mode {
    /// How many modes there are: 6.60, 8.85, 12.65, 14.25, 15.85, 18.25, 19.85, 23.05, 23.85 kbit/s.
    pub const COUNT: u8 = 9;

    /// `None` above 8.
    pub fn new(number: u8) -> Option<Mode> {
        (number < Mode::COUNT).then_some(Mode(number))
    }

    /// Its number: 0 to 8.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Frame types beside the speech modes (3GPP TS 26.201 table 1a). 10 to 13 are for future use.
pub(super) const SID: u8 = 9;
pub(super) const SPEECH_LOST: u8 = 14;
pub(super) const NO_DATA: u8 = 15;
/// A mode request that requests nothing.
const NO_REQUEST: u8 = 15;

/// Bits of a frame by its type: speech modes, then SID.
const FRAME_BITS: [usize; 10] = [132, 177, 253, 285, 317, 365, 397, 461, 477, 40];

/// Octets of the longest frame with its header.
pub const STORED_BYTES_MAX: usize = 61;
/// Frames in one payload: 240 ms, the most that descriptions name as `maxptime`.
pub const FRAMES_MAX: usize = 12;

/// One frame in the storage format: header octet, bits, zeros behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    octets: [u8; STORED_BYTES_MAX],
}

impl Stored {
    /// A frame that is nothing but its type.
    pub(super) fn empty(frame_type: u8) -> Stored {
        let mut octets = [0; STORED_BYTES_MAX];
        octets[0] = frame_type << 3 | 4;
        Stored { octets }
    }

    /// What the encoder wrote: a header octet and the bits behind it.
    pub(super) fn from_octets(octets: [u8; STORED_BYTES_MAX]) -> Stored {
        Stored { octets }
    }

    /// All octets; those behind the frame are zero.
    pub fn octets(&self) -> &[u8; STORED_BYTES_MAX] {
        &self.octets
    }

    /// Header and bits: what a file of the storage format holds of the frame.
    pub fn storage(&self) -> &[u8] {
        let len = 1 + bits_of(self.frame_type()).unwrap_or(0).div_ceil(8);
        &self.octets[..len]
    }

    /// 0 to 8 speech, 9 SID, 14 lost, 15 nothing.
    pub fn frame_type(&self) -> u8 {
        self.octets[0] >> 3 & 15
    }

    /// The sender of the payload says that the frame is not damaged.
    pub fn is_good(&self) -> bool {
        self.octets[0] & 4 != 0
    }
}

/// Bits of a frame type; `None` for those of the future.
fn bits_of(frame_type: u8) -> Option<usize> {
    match frame_type {
        SPEECH_LOST | NO_DATA => Some(0),
        _ => FRAME_BITS.get(usize::from(frame_type)).copied(),
    }
}

/// A payload that was judged and found whole.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    bits: Bits<'a>,
    packing: Packing,
    /// The mode that the peer asks us to send in; `None` when it asks nothing.
    pub request: Option<Mode>,
    /// Frames in it: 1 to 12.
    pub frames: usize,
}

impl<'a> Payload<'a> {
    /// Judges a payload.
    ///
    /// # Errors
    /// [`CodecFault::BadPayload`]: empty, of a wrong length, with a frame type of the future, or with
    /// more than [`FRAMES_MAX`] frames.
    pub fn read(packing: Packing, payload: &'a [u8]) -> Result<Payload<'a>, CodecFault> {
        let bits = Bits(payload);
        let entry_bits = packing.entry_bits();
        let request = bits.number(0, 4).ok_or(CodecFault::BadPayload)?;
        let mut at = packing.head_bits();
        let (mut frames, mut speech_bits) = (0, 0);
        loop {
            let entry = bits.number(at, 6).ok_or(CodecFault::BadPayload)?;
            at += entry_bits;
            frames += 1;
            let len = bits_of(entry >> 1 & 15).ok_or(CodecFault::BadPayload)?;
            speech_bits += packing.padded(len);
            if entry & 0x20 == 0 {
                break;
            }
            if frames == FRAMES_MAX {
                return Err(CodecFault::BadPayload);
            }
        }
        if (at + speech_bits).div_ceil(8) != payload.len() {
            return Err(CodecFault::BadPayload);
        }
        Ok(Payload { bits, packing, request: Mode::new(request), frames })
    }

    /// The frames in their order.
    pub fn frames(&self) -> impl Iterator<Item = Stored> + use<'a> {
        let (bits, packing, frames) = (self.bits, self.packing, self.frames);
        let mut at = packing.head_bits() + frames * packing.entry_bits();
        (0..frames).map(move |index| {
            let entry = packing.head_bits() + index * packing.entry_bits();
            // The payload was judged: every bit that is read is there.
            let entry = bits.number(entry, 6).unwrap_or(0);
            let mut frame = Stored::empty(entry >> 1 & 15);
            frame.octets[0] = entry << 2 & 0x7C;
            let len = bits_of(frame.frame_type()).unwrap_or(0);
            bits.copy(at, len, &mut frame.octets[1..]);
            at += packing.padded(len);
            frame
        })
    }
}

/// Writes frames as one payload; gives its length. `request` is the mode that the peer shall send
/// in.
///
/// # Errors
/// [`CodecFault::BadFrameLength`] for none or more than [`FRAMES_MAX`] frames,
/// [`CodecFault::OutputTooSmall`] when `out` does not hold them.
pub fn write(
    packing: Packing,
    request: Option<Mode>,
    frames: &[Stored],
    out: &mut [u8],
) -> Result<usize, CodecFault> {
    if frames.is_empty() || frames.len() > FRAMES_MAX {
        return Err(CodecFault::BadFrameLength);
    }
    let len_of = |frame: &Stored| bits_of(frame.frame_type()).unwrap_or(0);
    let head = packing.head_bits() + frames.len() * packing.entry_bits();
    let speech: usize = frames.iter().map(|frame| packing.padded(len_of(frame))).sum();
    let len = (head + speech).div_ceil(8);
    let out = out.get_mut(..len).ok_or(CodecFault::OutputTooSmall)?;
    out.fill(0);
    put(out, 0, 4, request.map_or(NO_REQUEST, Mode::number));
    let mut at = packing.head_bits();
    for (index, frame) in frames.iter().enumerate() {
        let follows = u8::from(index + 1 < frames.len()) << 5;
        put(out, at, 6, follows | frame.octets[0] >> 2 & 0x1F);
        at += packing.entry_bits();
    }
    for frame in frames {
        let len = len_of(frame);
        for (index, octet) in frame.octets[1..].iter().enumerate().take(len.div_ceil(8)) {
            let held = (len - index * 8).min(8);
            put(out, at + index * 8, held, octet >> (8 - held));
        }
        at += packing.padded(len);
    }
    Ok(len)
}

impl Packing {
    /// Bits before the table of contents.
    fn head_bits(self) -> usize {
        match self {
            Packing::BandwidthEfficient => 4,
            Packing::OctetAligned => 8,
        }
    }

    /// Bits from one entry of the table of contents to the next.
    fn entry_bits(self) -> usize {
        match self {
            Packing::BandwidthEfficient => 6,
            Packing::OctetAligned => 8,
        }
    }

    /// Bits that a frame of `len` bits takes.
    fn padded(self, len: usize) -> usize {
        match self {
            Packing::BandwidthEfficient => len,
            Packing::OctetAligned => len.div_ceil(8) * 8,
        }
    }
}

/// Octets as a row of bits, the highest first.
#[derive(Clone, Copy, Debug)]
struct Bits<'a>(&'a [u8]);

impl Bits<'_> {
    /// `len` bits (at most 8) from `at` as a number; `None` past the end.
    fn number(self, at: usize, len: usize) -> Option<u8> {
        let first = u16::from(*self.0.get(at / 8)?) << 8;
        let second = match at % 8 + len > 8 {
            true => u16::from(*self.0.get(at / 8 + 1)?),
            false => 0,
        };
        let aligned = (first | second) << (at % 8);
        Some((aligned >> (16 - len)) as u8)
    }

    /// Copies `len` bits from `at` to the front of `out`, filled up with zeros.
    fn copy(self, at: usize, len: usize, out: &mut [u8]) {
        for (index, octet) in out.iter_mut().enumerate().take(len.div_ceil(8)) {
            let held = (len - index * 8).min(8);
            *octet = self.number(at + index * 8, held).unwrap_or(0) << (8 - held);
        }
    }
}

/// Puts the `len` (at most 8) lowest bits of `number` at bit `at` of octets that are zero there.
fn put(out: &mut [u8], at: usize, len: usize, number: u8) {
    let spread = (u16::from(number) << (16 - len)) >> (at % 8);
    let [first, second] = spread.to_be_bytes();
    if let Some(octet) = out.get_mut(at / 8) {
        *octet |= first;
    }
    if let Some(octet) = out.get_mut(at / 8 + 1) {
        *octet |= second;
    }
}

#[cfg(test)]
mod tests {
    use super::Packing::{BandwidthEfficient, OctetAligned};
    use super::*;

    /// A frame whose bits are a pattern of its own.
    fn frame(frame_type: u8, seed: u8) -> Stored {
        let mut frame = Stored::empty(frame_type);
        let len = bits_of(frame_type).unwrap();
        for (index, octet) in frame.octets[1..].iter_mut().enumerate().take(len.div_ceil(8)) {
            *octet = (index as u8).wrapping_mul(37) ^ seed;
            let held = (len - index * 8).min(8);
            *octet &= 0xFF << (8 - held);
        }
        frame
    }

    fn written(packing: Packing, request: Option<Mode>, frames: &[Stored]) -> Vec<u8> {
        let mut out = [0xAA; 1_000];
        let len = write(packing, request, frames, &mut out).unwrap();
        out[..len].to_vec()
    }

    #[test]
    fn every_type_comes_back_bit_for_bit_alone_and_together() {
        for packing in [BandwidthEfficient, OctetAligned] {
            let types = [0, 1, 2, 3, 4, 5, 6, 7, 8, SID, SPEECH_LOST, NO_DATA];
            let all: Vec<Stored> = types.iter().map(|kind| frame(*kind, 0x5A ^ kind)).collect();
            for count in 1..=all.len() {
                for request in [None, Mode::new(0), Mode::new(8)] {
                    let frames = &all[all.len() - count..];
                    let payload = written(packing, request, frames);
                    let read = Payload::read(packing, &payload).unwrap();
                    assert_eq!((read.request, read.frames), (request, count));
                    assert_eq!(read.frames().collect::<Vec<_>>(), frames, "{packing:?} {count}");
                }
            }
        }
    }

    #[test]
    fn payloads_have_the_octets_of_the_rfc() {
        // One 6.60 frame: 4 + 6 + 132 bits, and 1 + 1 + 17 octets (RFC 4867 §4.3.5, §4.4.5).
        let first = frame(0, 0xFF);
        let payload = written(BandwidthEfficient, None, &[first]);
        assert_eq!(payload.len(), 18);
        // CMR 1111, F 0, FT 0000, Q 1, then the first bits of 0xFF.
        assert_eq!(payload[..2], [0xF0, 0x7F]);
        let payload = written(OctetAligned, Mode::new(8), &[first]);
        assert_eq!((payload.len(), &payload[..3]), (19, &[0x80, 0x04, 0xFF][..]));
        // Two frames, the second a SID: the first entry says that one follows.
        let payload = written(OctetAligned, None, &[first, frame(SID, 1)]);
        assert_eq!((payload.len(), &payload[..3]), (25, &[0xF0, 0x84, 0x4C][..]));
        let nothing = written(BandwidthEfficient, None, &[Stored::empty(NO_DATA)]);
        assert_eq!(nothing, [0xF7, 0xC0]);
        let largest = written(BandwidthEfficient, None, &[frame(8, 3)]);
        assert_eq!(largest.len(), 61);
    }

    #[test]
    fn a_damaged_frame_says_so() {
        let payload = [0xF0, 0x04 & !4, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        let mut sid = payload;
        sid[1] = SID << 3;
        let read = Payload::read(OctetAligned, &sid).unwrap();
        let frames: Vec<Stored> = read.frames().collect();
        assert_eq!((frames[0].frame_type(), frames[0].is_good()), (SID, false));
        assert!(frame(SID, 0).is_good());
    }

    #[test]
    fn lengths_that_do_not_fit_and_types_of_the_future_are_refused() {
        for packing in [BandwidthEfficient, OctetAligned] {
            let whole = written(packing, None, &[frame(2, 1), frame(8, 2)]);
            for len in 0..whole.len() {
                assert!(Payload::read(packing, &whole[..len]).is_err(), "{packing:?} {len}");
            }
            let long = [&whole[..], &[0]].concat();
            assert!(Payload::read(packing, &long).is_err(), "{packing:?}");
        }
        for future in 10..=13u8 {
            assert!(Payload::read(OctetAligned, &[0xF0, future << 3 | 4]).is_err());
        }
        let mut endless = vec![0xF0];
        endless.extend([0x80 | NO_DATA << 3 | 4; FRAMES_MAX]);
        endless.push(NO_DATA << 3 | 4);
        assert_eq!(Payload::read(OctetAligned, &endless).err(), Some(CodecFault::BadPayload));
        endless.remove(1);
        assert_eq!(Payload::read(OctetAligned, &endless).map(|read| read.frames), Ok(FRAMES_MAX));
    }

    #[test]
    fn requests_of_the_future_request_nothing() {
        for (cmr, request) in [(0, Mode::new(0)), (8, Mode::new(8)), (9, None), (14, None)] {
            let read =
                Payload::read(OctetAligned, &[cmr << 4, NO_DATA << 3 | 4]).map(|p| p.request);
            assert_eq!(read, Ok(request), "{cmr}");
        }
    }

    #[test]
    fn no_room_and_no_frames_are_faults() {
        let frames = [frame(8, 0); FRAMES_MAX + 1];
        let mut out = [0; 61];
        assert_eq!(write(OctetAligned, None, &[], &mut out), Err(CodecFault::BadFrameLength));
        assert_eq!(write(OctetAligned, None, &frames, &mut out), Err(CodecFault::BadFrameLength));
        let one = write(OctetAligned, None, &frames[..1], &mut out);
        assert_eq!(one, Err(CodecFault::OutputTooSmall));
        assert_eq!(write(BandwidthEfficient, None, &frames[..1], &mut out), Ok(61));
    }

    #[test]
    fn random_payloads_are_read_or_refused_and_never_reach_past_their_end() {
        let mut seed = 7u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let mut readable = 0;
        for _ in 0..200_000 {
            let len = next() as usize % 80;
            let mut payload: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            if let [_, entry, ..] = payload.as_mut_slice()
                && next() % 2 == 0
            {
                *entry &= 0x7F;
            }
            for packing in [BandwidthEfficient, OctetAligned] {
                let Ok(read) = Payload::read(packing, &payload) else { continue };
                readable += 1;
                assert_eq!(read.frames().count(), read.frames);
                let frames: Vec<Stored> = read.frames().collect();
                let again = written(packing, read.request, &frames);
                let reread = Payload::read(packing, &again).unwrap();
                assert_eq!(reread.frames().collect::<Vec<_>>(), frames);
            }
        }
        assert!(readable > 1_000, "{readable}");
    }
}
