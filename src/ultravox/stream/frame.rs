//! WebSocket frames as a client sees them (RFC 6455 §5): read incrementally, bounded by
//! `ground::limits`, and written masked. Binary payload is handed out in the pieces in which it
//! arrives, so that no message of audio is ever buffered; text is put together and checked as
//! UTF-8 when it is whole. The writer appends header, payload and mask to one buffer.

use crate::ground::Entropy;
use crate::ground::limits::{AGENT_FRAME_BYTES_MAX, AGENT_MESSAGE_BYTES_MAX};
use std::fmt;

const CONTROL_BYTES_MAX: usize = 125;
/// Text capacity that is kept between messages; a longer message's memory is given back.
const TEXT_BYTES_KEPT: usize = 4 * 1024;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What the far end sent.
#[derive(PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// Some bytes of a binary message, never empty; where messages begin and end does not matter.
    Binary(&'a [u8]),
    /// One whole text message.
    Text(&'a str),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    Pong,
    /// The close frame's code; 1005 when it holds none. No frame is read after it.
    Close(u16),
}

/// What the far end did against RFC 6455 or our bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFault {
    ReservedBits,
    UnknownOpcode,
    /// A server must not mask (§5.1).
    Masked,
    /// A control frame of more than 125 bytes, or a fragmented one (§5.5).
    BadControl,
    /// A continuation without a begun message, or a new message inside one (§5.4).
    BadFragment,
    FrameTooLarge,
    MessageTooLarge,
    NotUtf8,
    /// A close frame of one byte, or with a code that must not be on the wire (§7.4).
    BadClose,
}

impl FrameFault {
    /// The code of the close frame that answers it (§7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            FrameFault::FrameTooLarge | FrameFault::MessageTooLarge => 1009,
            FrameFault::NotUtf8 => 1007,
            FrameFault::ReservedBits
            | FrameFault::UnknownOpcode
            | FrameFault::Masked
            | FrameFault::BadControl
            | FrameFault::BadFragment
            | FrameFault::BadClose => 1002,
        }
    }
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameFault::ReservedBits => "a reserved bit is set",
            FrameFault::UnknownOpcode => "an opcode is not known",
            FrameFault::Masked => "a frame from the server is masked",
            FrameFault::BadControl => "a control frame is too long or fragmented",
            FrameFault::BadFragment => "fragments of messages are out of order",
            FrameFault::FrameTooLarge => "a frame is too large",
            FrameFault::MessageTooLarge => "a message is too large",
            FrameFault::NotUtf8 => "a text message is not UTF-8",
            FrameFault::BadClose => "a close frame is malformed",
        })
    }
}

/// The message whose fragments are being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Message {
    None,
    Text,
    Binary,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Header,
    /// `left` payload bytes of a data frame; `last` is its FIN bit.
    Data {
        left: usize,
        last: bool,
    },
    Control {
        opcode: u8,
        length: usize,
    },
    Closed,
}

/// Reads frames from bytes as they arrive.
#[derive(Debug)]
pub struct FrameReader {
    step: Step,
    message: Message,
    message_bytes: usize,
    header: [u8; 10],
    header_length: usize,
    control: [u8; CONTROL_BYTES_MAX],
    control_length: usize,
    text: Vec<u8>,
    text_is_out: bool,
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader::new()
    }
}

impl FrameReader {
    pub fn new() -> FrameReader {
        FrameReader {
            step: Step::Header,
            message: Message::None,
            message_bytes: 0,
            header: [0; 10],
            header_length: 0,
            control: [0; CONTROL_BYTES_MAX],
            control_length: 0,
            text: Vec::new(),
            text_is_out: false,
        }
    }

    /// Reads from the front of `input`, which is moved past what was read. `None` when more bytes
    /// are needed (`input` is empty then) or after a close frame. Call until `None`.
    ///
    /// # Errors
    /// [`FrameFault`]; the stream is of no more use then.
    pub fn read<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Incoming<'r>>, FrameFault> {
        if std::mem::take(&mut self.text_is_out) {
            self.text.clear();
            self.text.shrink_to(TEXT_BYTES_KEPT);
        }
        loop {
            match self.step {
                Step::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                Step::Header => {
                    if !self.take_header(input)? {
                        return Ok(None);
                    }
                }
                Step::Data { left, last } => {
                    let piece = take(input, left);
                    if piece.is_empty() && left > 0 {
                        return Ok(None);
                    }
                    let whole = piece.len() == left;
                    self.step = match whole {
                        true => Step::Header,
                        false => Step::Data { left: left - piece.len(), last },
                    };
                    let ended = whole && last;
                    let kind = self.message;
                    if ended {
                        self.message = Message::None;
                        self.message_bytes = 0;
                    }
                    if kind == Message::Text {
                        self.text.extend_from_slice(piece);
                        if ended {
                            self.text_is_out = true;
                            let text = std::str::from_utf8(&self.text);
                            return Ok(Some(Incoming::Text(
                                text.map_err(|_| FrameFault::NotUtf8)?,
                            )));
                        }
                    } else if !piece.is_empty() {
                        return Ok(Some(Incoming::Binary(piece)));
                    }
                }
                Step::Control { opcode, length } => {
                    let piece = take(input, length - self.control_length);
                    let end = self.control_length + piece.len();
                    self.control[self.control_length..end].copy_from_slice(piece);
                    self.control_length = end;
                    if end < length {
                        return Ok(None);
                    }
                    self.control_length = 0;
                    self.step = if opcode == CLOSE { Step::Closed } else { Step::Header };
                    let payload = &self.control[..length];
                    return Ok(Some(match opcode {
                        CLOSE => Incoming::Close(close_code_of(payload)?),
                        PING => Incoming::Ping(payload),
                        _ => Incoming::Pong,
                    }));
                }
            }
        }
    }

    /// Gathers a header; true when it was whole and the next step is set.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, FrameFault> {
        while self.header_length < header_bytes(&self.header[..self.header_length]) {
            let Some((first, rest)) = input.split_first() else { return Ok(false) };
            self.header[self.header_length] = *first;
            self.header_length += 1;
            *input = rest;
        }
        let header = self.header;
        self.header_length = 0;
        self.step = self.judge(header)?;
        Ok(true)
    }

    fn judge(&mut self, header: [u8; 10]) -> Result<Step, FrameFault> {
        let [first, second, ..] = header;
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(FrameFault::ReservedBits);
        }
        if second & 0x80 != 0 {
            return Err(FrameFault::Masked);
        }
        let length = match second {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => header[2..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            short => u64::from(short),
        };
        if opcode >= CLOSE {
            if !matches!(opcode, CLOSE | PING | PONG) {
                return Err(FrameFault::UnknownOpcode);
            }
            if !last || length > CONTROL_BYTES_MAX as u64 {
                return Err(FrameFault::BadControl);
            }
            return Ok(Step::Control { opcode, length: length as usize });
        }
        self.message = match (opcode, self.message) {
            (TEXT, Message::None) => Message::Text,
            (BINARY, Message::None) => Message::Binary,
            (CONTINUATION, Message::Text | Message::Binary) => self.message,
            (TEXT | BINARY | CONTINUATION, _) => return Err(FrameFault::BadFragment),
            _ => return Err(FrameFault::UnknownOpcode),
        };
        if length > AGENT_FRAME_BYTES_MAX as u64 {
            return Err(FrameFault::FrameTooLarge);
        }
        self.message_bytes += length as usize;
        if self.message_bytes > AGENT_MESSAGE_BYTES_MAX {
            return Err(FrameFault::MessageTooLarge);
        }
        Ok(Step::Data { left: length as usize, last })
    }
}

/// Bytes that the header has in all, as far as `begun` tells.
fn header_bytes(begun: &[u8]) -> usize {
    match begun.get(1).map(|second| second & 0x7f) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    }
}

/// Up to `length` bytes off the front of `input`.
fn take<'i>(input: &mut &'i [u8], length: usize) -> &'i [u8] {
    let (piece, rest) = input.split_at(length.min(input.len()));
    *input = rest;
    piece
}

fn close_code_of(payload: &[u8]) -> Result<u16, FrameFault> {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() { Ok(1005) } else { Err(FrameFault::BadClose) };
    };
    if std::str::from_utf8(reason).is_err() {
        return Err(FrameFault::NotUtf8);
    }
    match u16::from_be_bytes([*high, *low]) {
        1004..=1006 | 1015 => Err(FrameFault::BadClose),
        code @ 1000..=4999 => Ok(code),
        _ => Err(FrameFault::BadClose),
    }
}

/// Writes masked frames (§5.3). One for many streams: it holds nothing but its source of masks,
/// each of which is fresh.
pub struct FrameWriter(Entropy);

impl FrameWriter {
    pub fn new(entropy: Entropy) -> FrameWriter {
        FrameWriter(entropy)
    }

    /// One binary message: `samples` as s16le.
    pub fn samples(&mut self, out: &mut Vec<u8>, samples: &[i16]) {
        let key = self.header(out, BINARY, samples.len() * 2);
        let start = out.len();
        out.resize(start + samples.len() * 2, 0);
        let (pairs, odd) = samples.as_chunks::<2>();
        let (words, tail) = out[start..].as_chunks_mut::<4>();
        for (word, [first, second]) in words.iter_mut().zip(pairs) {
            let plain = u32::from(*first as u16) | u32::from(*second as u16) << 16;
            *word = (plain ^ key).to_le_bytes();
        }
        if let ([sample], [low, high]) = (odd, tail) {
            [*low, *high] = (*sample as u16 ^ key as u16).to_le_bytes();
        }
    }

    /// One text message.
    pub fn text(&mut self, out: &mut Vec<u8>, text: &str) {
        self.frame(out, TEXT, text.as_bytes());
    }

    /// `payload` beyond 125 bytes is cut off.
    pub fn ping(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, PING, &payload[..payload.len().min(CONTROL_BYTES_MAX)]);
    }

    /// The answer to a ping. `payload` beyond 125 bytes is cut off.
    pub fn pong(&mut self, out: &mut Vec<u8>, payload: &[u8]) {
        self.frame(out, PONG, &payload[..payload.len().min(CONTROL_BYTES_MAX)]);
    }

    /// A close frame with `code`; an empty one for 1005, which must not be on the wire.
    pub fn close(&mut self, out: &mut Vec<u8>, code: u16) {
        match code {
            1005 => self.frame(out, CLOSE, &[]),
            code => self.frame(out, CLOSE, &code.to_be_bytes()),
        }
    }

    fn frame(&mut self, out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
        let key = self.header(out, opcode, payload.len());
        let start = out.len();
        out.extend_from_slice(payload);
        let (words, tail) = out[start..].as_chunks_mut::<4>();
        for word in words {
            *word = (u32::from_le_bytes(*word) ^ key).to_le_bytes();
        }
        for (byte, mask) in tail.iter_mut().zip(key.to_le_bytes()) {
            *byte ^= mask;
        }
    }

    /// Writes the header of an unfragmented frame; returns its mask as a little-endian word.
    fn header(&mut self, out: &mut Vec<u8>, opcode: u8, length: usize) -> u32 {
        let key = self.0.u32();
        out.push(0x80 | opcode);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..126), _) => out.push(0x80 | short),
            (_, Ok(medium)) => {
                out.push(0x80 | 126);
                out.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&key.to_le_bytes());
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `bytes` read as, one line each; the fault, when there is one, last. Fed in pieces of
    /// `step` bytes.
    fn read_in(bytes: &[u8], step: usize) -> Vec<String> {
        let mut reader = FrameReader::new();
        let mut lines: Vec<String> = Vec::new();
        let mut binary = Vec::new();
        for mut piece in bytes.chunks(step) {
            loop {
                match reader.read(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Incoming::Binary(part))) => {
                        assert!(!part.is_empty());
                        binary.extend_from_slice(part);
                    }
                    Ok(Some(other)) => {
                        if !binary.is_empty() {
                            lines.push(format!("Binary {:?}", std::mem::take(&mut binary)));
                        }
                        lines.push(format!("{other:?}"));
                    }
                    Err(fault) => {
                        lines.push(format!("{fault:?} {}", fault.close_code()));
                        return lines;
                    }
                }
            }
            assert!(piece.is_empty());
        }
        if !binary.is_empty() {
            lines.push(format!("Binary {binary:?}"));
        }
        lines
    }

    fn check(bytes: &[u8], expected: &[&str]) {
        for step in [1, 2, 3, bytes.len().max(1)] {
            assert_eq!(read_in(bytes, step), expected, "in steps of {step}");
        }
    }

    fn sized(first: u8, length: u64) -> Vec<u8> {
        let mut frame = vec![first, 127];
        frame.extend(length.to_be_bytes());
        frame
    }

    #[test]
    fn the_frames_of_the_rfc_are_read() {
        check(&[0x81, 5, b'H', b'e', b'l', b'l', b'o'], &[r#"Text("Hello")"#]);
        check(&[0x01, 3, b'H', b'e', b'l', 0x80, 2, b'l', b'o'], &[r#"Text("Hello")"#]);
        check(&[0x89, 2, 7, 8], &["Ping([7, 8])"]);
        check(&[0x8a, 0], &["Pong"]);
        check(&[0x82, 3, 1, 2, 3], &["Binary [1, 2, 3]"]);
        check(&[0x82, 126, 0, 2, 1, 2], &["Binary [1, 2]"]);
        check(&[0x82, 0, 0x81, 0], &[r#"Text("")"#]);
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        check(
            &[0x01, 1, b'a', 0x89, 0, 0x00, 0, 0x80, 1, b'b', 0x02, 1, 9, 0x8a, 0, 0x80, 1, 8],
            &["Ping([])", r#"Text("ab")"#, "Binary [9]", "Pong", "Binary [8]"],
        );
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        check(&[0x88, 2, 3, 0xe8, 0x81, 1, b'x'], &["Close(1000)"]);
        check(&[0x88, 0], &["Close(1005)"]);
        check(&[0x88, 4, 0x10, 0x04, b'o', b'k'], &["Close(4100)"]);
    }

    #[test]
    fn faults_carry_their_close_code() {
        let cases: [(&[u8], &str); 16] = [
            (&[0xc1, 0], "ReservedBits 1002"),
            (&[0x83, 0], "UnknownOpcode 1002"),
            (&[0x8b, 0], "UnknownOpcode 1002"),
            (&[0x81, 0x80], "Masked 1002"),
            (&[0x09, 0], "BadControl 1002"),
            (&[0x89, 126, 0, 126], "BadControl 1002"),
            (&[0x80, 0], "BadFragment 1002"),
            (&[0x01, 0, 0x81, 0], "BadFragment 1002"),
            (&[0x02, 0, 0x82, 0], "BadFragment 1002"),
            (&[0x88, 1, 3], "BadClose 1002"),
            (&[0x88, 2, 0x03, 0xed], "BadClose 1002"),
            (&[0x88, 2, 0x03, 0xee], "BadClose 1002"),
            (&[0x88, 2, 0x03, 0xe7], "BadClose 1002"),
            (&[0x88, 2, 0x13, 0x88], "BadClose 1002"),
            (&[0x88, 3, 0x03, 0xe8, 0xff], "NotUtf8 1007"),
            (&[0x81, 2, 0xc3, 0x28], "NotUtf8 1007"),
        ];
        for (bytes, fault) in cases {
            check(bytes, &[fault]);
        }
    }

    #[test]
    fn both_sides_of_the_bounds() {
        let frame = |length: usize| {
            let mut bytes = sized(0x82, length as u64);
            bytes.resize(10 + length, 1);
            bytes
        };
        assert_eq!(read_in(&frame(AGENT_FRAME_BYTES_MAX), 4096).len(), 1);
        assert_eq!(read_in(&frame(AGENT_FRAME_BYTES_MAX + 1), 4096), ["FrameTooLarge 1009"]);
        check(&sized(0x82, u64::MAX), &["FrameTooLarge 1009"]);
        let mut message = Vec::new();
        for part in 0..4 {
            let mut bytes = frame(AGENT_FRAME_BYTES_MAX);
            bytes[0] = if part == 0 { 0x02 } else { 0x00 };
            message.extend(bytes);
        }
        message.extend([0x80, 0]);
        assert_eq!(read_in(&message, 65_536).len(), 1, "exactly the largest message");
        let end = message.len() - 2;
        message.truncate(end);
        message.extend([0x80, 1]);
        assert_eq!(read_in(&message, 65_536), ["MessageTooLarge 1009"]);
        assert_eq!(read_in(&[message.clone(), vec![1]].concat(), 65_536).len(), 1);
    }

    #[test]
    fn a_long_text_gives_its_memory_back() {
        let mut bytes = vec![0x81, 126, 0xff, 0xff];
        bytes.resize(4 + 0xffff, b'x');
        let mut reader = FrameReader::new();
        let mut input = &bytes[..];
        let text = reader.read(&mut input).expect("a text");
        assert_eq!(
            text.map(|text| matches!(text, Incoming::Text(t) if t.len() == 0xffff)),
            Some(true)
        );
        assert_eq!(reader.read(&mut input), Ok(None));
        assert!(reader.text.capacity() <= TEXT_BYTES_KEPT);
    }

    /// Takes the mask off a client frame, so that a reader takes it for a server's.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        assert!(frame[1] & 0x80 != 0, "a client must mask");
        let at = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let mut bytes = frame[..at].to_vec();
        bytes[1] &= 0x7f;
        let (key, payload) = frame[at..].split_at(4);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[test]
    fn what_is_written_reads_back_at_every_length() {
        let mut writer = FrameWriter::new(Entropy::from_number(3));
        for length in (0..300).chain([65_535, 65_536, 70_001]) {
            let text = "x".repeat(length);
            let mut out = Vec::new();
            writer.text(&mut out, &text);
            assert_eq!(read_in(&unmasked(&out), 65_536), [format!("Text({text:?})")]);
        }
        for length in (1..200).chain([960, 32_768]) {
            let samples: Vec<i16> = (0..length).map(|n| (n as i16).wrapping_mul(-7919)).collect();
            let mut out = vec![1, 2, 3];
            writer.samples(&mut out, &samples);
            let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            assert_eq!(read_in(&unmasked(&out[3..]), 100_000), [format!("Binary {bytes:?}")]);
        }
    }

    #[test]
    fn control_frames_are_written() {
        let mut writer = FrameWriter::new(Entropy::from_number(4));
        let mut written = |write: &dyn Fn(&mut FrameWriter, &mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut writer, &mut out);
            read_in(&unmasked(&out), 1_000)
        };
        assert_eq!(written(&|writer, out| writer.close(out, 1000)), ["Close(1000)"]);
        assert_eq!(written(&|writer, out| writer.close(out, 1005)), ["Close(1005)"]);
        assert_eq!(written(&|writer, out| writer.ping(out, &[1])), ["Ping([1])"]);
        assert_eq!(written(&|writer, out| writer.ping(out, &[1; 126])).len(), 1);
        assert_eq!(written(&|writer, out| writer.pong(out, &[1])), ["Pong"]);
    }

    #[test]
    fn masks_are_fresh_for_each_frame() {
        let mut writer = FrameWriter::new(Entropy::from_number(5));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        writer.samples(&mut first, &[0; 4]);
        writer.samples(&mut second, &[0; 4]);
        assert_ne!(first[2..6], second[2..6]);
    }

    #[test]
    fn random_bytes_and_mutated_frames_never_panic_nor_depend_on_the_pieces() {
        let mut entropy = Entropy::from_number(6);
        let good = [0x01, 1, b'a', 0x89, 1, 9, 0x80, 1, b'b', 0x82, 126, 0, 3, 1, 2, 3, 0x88, 0];
        for round in 0..20_000 {
            let mut bytes = good.to_vec();
            if round % 2 == 0 {
                entropy.fill(&mut bytes);
            } else {
                let at = entropy.below(bytes.len() as u64) as usize;
                bytes[at] = entropy.u32() as u8;
            }
            assert_eq!(read_in(&bytes, 1), read_in(&bytes, bytes.len()), "{bytes:?}");
        }
    }
}
