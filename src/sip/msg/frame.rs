//! Cutting a stream into messages (RFC 3261 §7.5, §18.3, RFC 5626 §4.4.1). Only Content-Length says
//! where a message ends, and only one that every reader reads alike: a missing, repeated, signed or
//! oversized one is answered and the connection is given up, since nothing after it can be trusted.

use super::fault::{FaultReason, ParseFault};
use super::head::{Head, OnBadLine, head_end};
use super::message::content_length;
use crate::ground::limits;
use bytes::{Buf, Bytes, BytesMut};
use std::net::SocketAddr;

/// What was cut out of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Framed {
    /// One whole message, for `Message::parse` with `Framing::Stream`.
    Message(Bytes),
    /// A double CRLF: answer with one CRLF (RFC 5626 §3.5.1).
    KeepAlive,
    /// A single CRLF while one was waited for: the answer to our keep-alive.
    Pong,
}

/// The stream cannot be read on. Send the answer, if any, then close.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameFault {
    pub reason: FaultReason,
    pub answer: Option<Vec<u8>>,
}

/// The receiving side of one connection. Holds at most one message and what was pushed since.
#[derive(Debug)]
pub struct StreamFramer {
    source: SocketAddr,
    buffer: BytesMut,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Before the first byte of a message.
    Between,
    /// Looking for the end of the first line, from here.
    StartLine(usize),
    /// Looking for the empty line, from here.
    Head(usize),
    /// The message is this long.
    Body(usize),
    /// A fault was given; nothing more comes.
    Broken,
}

impl StreamFramer {
    /// For a connection whose other end is `source`.
    pub fn new(source: SocketAddr) -> StreamFramer {
        StreamFramer { source, buffer: BytesMut::new(), stage: Stage::Between }
    }

    /// Takes what was read. Call `next` until it gives `None` before pushing more: that keeps the
    /// buffer within one message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Broken {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next message or keep-alive; `None` when more bytes are needed.
    #[expect(clippy::should_implement_trait, reason = "a fallible cursor, not an iterator")]
    pub fn next(&mut self) -> Result<Option<Framed>, FrameFault> {
        self.next_or_pong(false)
    }

    /// The same; `pinged` while a keep-alive of ours waits for its answer, so that a single CRLF
    /// between messages is that answer.
    ///
    /// # Errors
    /// As [`StreamFramer::next`].
    pub fn next_or_pong(&mut self, pinged: bool) -> Result<Option<Framed>, FrameFault> {
        if pinged && self.stage == Stage::Between && self.takes_pong() {
            return Ok(Some(Framed::Pong));
        }
        loop {
            self.stage = match self.stage {
                Stage::Between => match self.skip_line_ends() {
                    Gap::KeepAlive => return Ok(Some(Framed::KeepAlive)),
                    Gap::More => return Ok(None),
                    Gap::Message => Stage::StartLine(0),
                },
                Stage::StartLine(from) => match self.find_start_line(from)? {
                    Some(stage) => stage,
                    None => return Ok(None),
                },
                Stage::Head(from) => match head_end(&self.buffer, from) {
                    Some(end) => Stage::Body(self.message_len(end)?),
                    None => {
                        self.stage = Stage::Head(self.buffer.len());
                        return self.wait_for_head().map(|()| None);
                    }
                },
                Stage::Body(len) if self.buffer.len() >= len => {
                    self.stage = Stage::Between;
                    return Ok(Some(Framed::Message(self.buffer.split_to(len).freeze())));
                }
                Stage::Body(_) | Stage::Broken => return Ok(None),
            };
        }
    }

    /// True when a message has begun and is not whole: the deadline for a message runs.
    pub fn deadline_pending(&self) -> bool {
        !matches!(self.stage, Stage::Between | Stage::Broken)
    }

    /// Bytes held.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// A CRLF that is not the first half of the other end's own keep-alive, as far as is known.
    fn takes_pong(&mut self) -> bool {
        let lone = match self.buffer.as_ref() {
            [b'\r', b'\n', b'\r', ..] => false,
            [b'\r', b'\n', ..] => true,
            _ => false,
        };
        if lone {
            self.buffer.advance(2);
        }
        lone
    }

    fn skip_line_ends(&mut self) -> Gap {
        loop {
            match self.buffer.as_ref() {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    self.buffer.advance(4);
                    return Gap::KeepAlive;
                }
                [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return Gap::More,
                [b'\r', b'\n', ..] => self.buffer.advance(2),
                _ => return Gap::Message,
            }
        }
    }

    /// A first line that is not SIP ends the connection at once: another protocol speaks, and what
    /// follows it must never be read as a message.
    fn find_start_line(&mut self, from: usize) -> Result<Option<Stage>, FrameFault> {
        let tail = self.buffer.get(from..).unwrap_or_default();
        let Some(end) = tail.iter().position(|byte| *byte == b'\n').map(|at| from + at) else {
            self.stage = Stage::StartLine(self.buffer.len());
            return self.wait_for_head().map(|()| None);
        };
        let line = self.buffer.get(..end).unwrap_or_default().trim_ascii_end();
        let speaks = |word: Option<&[u8]>| {
            word.and_then(|word| word.get(..4))
                .is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
        };
        let words = |byte: &u8| *byte == b' ' || *byte == b'\t';
        if !speaks(line.split(words).next()) && !speaks(line.rsplit(words).next()) {
            return Err(self.fault(FaultReason::NotSip, self.buffer.len()));
        }
        Ok(Some(Stage::Head(0)))
    }

    fn wait_for_head(&mut self) -> Result<(), FrameFault> {
        if self.buffer.len() > limits::STREAM_MESSAGE_BYTES_MAX {
            return Err(self.fault(FaultReason::TooLarge, self.buffer.len()));
        }
        Ok(())
    }

    fn message_len(&mut self, head_len: usize) -> Result<usize, FrameFault> {
        let bytes = Bytes::copy_from_slice(self.buffer.get(..head_len).unwrap_or_default());
        let body_len = Head::scan(&bytes, OnBadLine::Refuse)
            .and_then(|head| content_length(&head))
            .and_then(|length| length.ok_or(FaultReason::LengthMissing));
        let total = body_len.map(|length| head_len.saturating_add(length));
        match total {
            Ok(total) if total <= limits::STREAM_MESSAGE_BYTES_MAX => Ok(total),
            Ok(_) => Err(self.fault(FaultReason::TooLarge, head_len)),
            Err(reason) => Err(self.fault(reason, head_len)),
        }
    }

    fn fault(&mut self, reason: FaultReason, len: usize) -> FrameFault {
        let bytes = self.buffer.split_to(len.min(self.buffer.len())).freeze();
        self.stage = Stage::Broken;
        self.buffer = BytesMut::new();
        let answer = ParseFault::new(reason, bytes).answer(self.source);
        FrameFault { reason, answer }
    }
}

enum Gap {
    KeepAlive,
    More,
    Message,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "192.0.2.9:5060";

    fn options(lines: &str, body: &str) -> String {
        format!(
            "OPTIONS sip:u@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:u@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n{lines}\r\n{body}"
        )
    }

    /// What comes out of `text` in pieces of `size`: `m<bytes>` and `k`, then the fault.
    fn cut(text: &str, size: usize) -> Vec<String> {
        let mut framer = StreamFramer::new(SOURCE.parse().expect("an address"));
        let mut seen = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            framer.push(piece);
            loop {
                match framer.next() {
                    Ok(None) => break,
                    Ok(Some(Framed::KeepAlive)) => seen.push("k".into()),
                    Ok(Some(Framed::Pong)) => seen.push("p".into()),
                    Ok(Some(Framed::Message(bytes))) => seen.push(format!("m{}", bytes.len())),
                    Err(fault) => {
                        let code = fault.answer.map_or("-".into(), |answer| {
                            String::from_utf8_lossy(answer.get(8..11).unwrap_or_default())
                                .into_owned()
                        });
                        seen.push(format!("{} {code}", fault.reason));
                        return seen;
                    }
                }
            }
        }
        if framer.deadline_pending() {
            seen.push("pending".into());
        }
        seen
    }

    #[test]
    fn messages_are_cut_alike_however_they_are_split() {
        let one = options("l: 3\r\n", "abc");
        let none = options("Content-Length : 0\r\n", "");
        let folded = options("Content-Length:\r\n 3\r\n", "abc");
        let (m1, m2, m3) =
            (format!("m{}", one.len()), format!("m{}", none.len()), format!("m{}", folded.len()));
        let all = format!("\r\n{one}{none}\r\n\r\n\r\n{folded}\r\n\r\n{one}");
        for size in 1..=all.len() {
            assert_eq!(cut(&all, size), [&m1, &m2, "k", &m3, "k", &m1], "pieces of {size}");
        }
    }

    #[test]
    fn lying_lengths_are_answered_and_end_the_stream() {
        let cases = [
            ("", "missing Content-Length 400"),
            ("l: -1\r\n", "bad Content-Length 400"),
            ("l: 0\r\nContent-Length: 3\r\n", "repeated Content-Length 400"),
            ("l: 0\r\nl: 0\r\n", "repeated Content-Length 400"),
            ("l: 4294967295\r\n", "message too large 513"),
            ("l: 4294967299\r\n", "message too large 513"),
            ("l: 18446744073709551615\r\n", "message too large 513"),
            ("l: 18446744073709551616\r\n", "bad Content-Length 400"),
            ("l: 18446744073709551619\r\n", "bad Content-Length 400"),
            ("X: a\nb\r\nl: 0\r\n", "bare CR or LF in headers 400"),
        ];
        for (lines, expected) in cases {
            for size in [1, 7, 4096] {
                let text = format!("{}{}", options(lines, "abc"), options("l: 0\r\n", ""));
                assert_eq!(cut(&text, size), [expected], "{lines:?}");
            }
        }
    }

    #[test]
    fn a_foreign_protocol_is_closed_on_at_its_first_line() {
        let post = format!("POST / HTTP/1.1\r\nHost: h\r\n\r\n{}", options("l: 0\r\n", ""));
        assert_eq!(cut(&post, 1), ["not SIP -"]);
        assert_eq!(cut("GARBAGE\n", 1), ["not SIP -"]);
    }

    #[test]
    fn a_single_line_end_answers_our_keep_alive_only_while_it_is_waited_for() {
        let mut framer = StreamFramer::new(SOURCE.parse().expect("an address"));
        let mut fed = |bytes: &[u8], pinged| {
            framer.push(bytes);
            framer.next_or_pong(pinged).expect("nothing is wrong")
        };
        assert_eq!(fed(b"\r\n", true), Some(Framed::Pong));
        assert_eq!(fed(b"\r\n\r\n", true), Some(Framed::KeepAlive));
        assert_eq!(fed(b"\r", true), None);
        assert_eq!(fed(b"\n", true), Some(Framed::Pong));
        assert_eq!(fed(b"\r\n", false), None);
        assert_eq!(fed(b"\r\n", false), Some(Framed::KeepAlive));
        let message = options("Content-Length: 0\r\n", "");
        assert_eq!(fed(format!("\r\n{message}").as_bytes(), true), Some(Framed::Pong));
        assert_eq!(fed(b"", true), Some(Framed::Message(Bytes::from(message))));
    }

    #[test]
    fn what_is_begun_is_pending_and_bounded() {
        assert_eq!(cut(&options("l: 4\r\n", "abc"), 5), ["pending"]);
        assert_eq!(cut("OPTIONS", 5), ["pending"]);
        assert_eq!(cut("\r\n", 1), [""; 0]);
        let endless = format!(
            "OPTIONS sip:u@h SIP/2.0\r\nX: {}",
            "a".repeat(limits::STREAM_MESSAGE_BYTES_MAX)
        );
        assert_eq!(cut(&endless, 1000), ["message too large -"]);
        assert_eq!(
            cut(&"a".repeat(limits::STREAM_MESSAGE_BYTES_MAX + 1), 1000),
            ["message too large -"]
        );
    }
}
