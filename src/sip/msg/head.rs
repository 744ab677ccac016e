//! The head of a message as lines (RFC 3261 §7.3, §25): one scan that gives the start line and an
//! offset for each header. A head without folds and with UTF-8 only is scanned where it lies; any
//! other is first written anew, each fold as one blank and each Latin-1 line as UTF-8.
//!
//! Only CRLF ends a line. A bare CR or LF never does: it makes the message malformed, so no two
//! readers on its way can see different headers. NUL is allowed only as a quoted pair.

use super::fault::FaultReason;
use super::lex::{is_blank, is_blank_byte, is_token_byte, latin1, trim, trim_start};
use super::name::Name;
use crate::ground::limits;
use bytes::Bytes;

/// Part of the head's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Offsets within a head, which is far below 4 GiB.
    pub fn new(start: usize, end: usize) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: offset(start), end: offset(end) }
    }
}

/// One header line, unfolded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub name: Name,
    /// The name as received, without blanks before the colon.
    pub name_span: Span,
    /// The value, trimmed.
    pub value: Span,
    /// The received bytes were Latin-1; they are copied back as such.
    pub latin1: bool,
}

/// A scanned head.
#[derive(Clone)]
pub(super) struct Head {
    text: Bytes,
    pub start_line: Span,
    pub lines: Vec<Line>,
}

/// What the scanner does with a line that it cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnBadLine {
    Refuse,
    /// For answering a malformed request with what can be read of it.
    Skip,
}

/// The index after the empty line that ends the head. `from` is where the search may begin: no head
/// ends before it.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at = control(bytes, at)? + 1;
        if at >= 4 && bytes.get(at - 4..at) == Some(b"\r\n\r\n") {
            return Some(at);
        }
    }
}

/// The index of the first byte from `from` on that is CR, LF, NUL or another control character below
/// 14; most lines have only the two at their end. Eight bytes are looked at together.
fn control(bytes: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.get(from..)?.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte below 14; what borrows from it lies above the first.
        let low = word.wrapping_sub(ONES * 14) & !word & HIGH;
        if low != 0 {
            return Some(from + index * 8 + low.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| *byte < 14)?;
    Some(from + words.len() * 8 + found)
}

impl Head {
    /// Scans `bytes`, which end after the head's empty line (or earlier when `Skip`).
    pub fn scan(bytes: &Bytes, mode: OnBadLine) -> Result<Head, FaultReason> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            match scan_lines(text, &[], mode) {
                Err(Stop::Folded) => {}
                Err(Stop::Fault(reason)) => return Err(reason),
                Ok((start_line, lines)) => {
                    return Ok(Head { text: bytes.clone(), start_line, lines });
                }
            }
        }
        let (text, latin1) = rewrite(bytes);
        match scan_lines(&text, &latin1, mode) {
            Ok((start_line, lines)) => Ok(Head { text: text.into(), start_line, lines }),
            Err(Stop::Folded) => Err(FaultReason::BadHeaderLine),
            Err(Stop::Fault(reason)) => Err(reason),
        }
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        let bytes = self.text.get(span.start as usize..span.end as usize).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The start line, without its CRLF.
    pub fn start_line(&self) -> &str {
        self.text(self.start_line)
    }

    /// The lines with this name, in order.
    pub fn named(&self, name: Name) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.name == name)
    }

    /// The value of the first line with this name.
    pub fn value(&self, name: Name) -> Option<&str> {
        self.named(name).next().map(|line| self.text(line.value))
    }
}

enum Stop {
    /// A fold, where folds were not yet taken out.
    Folded,
    Fault(FaultReason),
}

type Lines = (Span, Vec<Line>);

fn scan_lines(text: &str, latin1: &[bool], mode: OnBadLine) -> Result<Lines, Stop> {
    let nul = text.contains('\0');
    let mut lines = Vec::with_capacity(LINES_USUAL);
    let mut start_line = Span::default();
    let (mut at, mut index) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let end = line_end(rest, mode).map_err(Stop::Fault)?;
        let line = rest.get(..end).unwrap_or_default();
        if index == 0 {
            start_line = Span::new(at, at + end);
        } else if line.is_empty() {
            break;
        } else if line.starts_with(is_blank) && (index > 1 || mode == OnBadLine::Refuse) {
            return Err(Stop::Folded);
        } else {
            let read = read_line(line, at, latin1.get(index).copied().unwrap_or(false))
                .filter(|_| mode == OnBadLine::Refuse || !line.contains(['\r', '\n']))
                .filter(|_| !nul || !has_bare_nul(line));
            match read {
                Some(_) if lines.len() >= limits::HEADERS_MAX => match mode {
                    OnBadLine::Refuse => return Err(Stop::Fault(FaultReason::TooManyHeaders)),
                    OnBadLine::Skip => break,
                },
                Some(line) => lines.push(line),
                None if mode == OnBadLine::Skip => {}
                None => return Err(Stop::Fault(FaultReason::BadHeaderLine)),
            }
        }
        at += end + 2;
        index += 1;
    }
    Ok((start_line, lines))
}

/// Room for the header lines of nearly all messages, so that a parse allocates once.
const LINES_USUAL: usize = 40;

/// The length of the first line. Only CRLF ends it.
fn line_end(rest: &str, mode: OnBadLine) -> Result<usize, FaultReason> {
    // Nearly always the first CR or LF is the CR of the CRLF that ends it.
    let bytes = rest.as_bytes();
    let mut at = 0;
    while let Some(found) = control(bytes, at) {
        match bytes.get(found..found + 2) {
            Some(b"\r\n") => return Ok(found),
            Some([b'\r' | b'\n', _]) | None => break,
            Some(_) => at = found + 1,
        }
    }
    let mut from = 0;
    loop {
        let found = rest.get(from..).and_then(|tail| tail.find('\n'));
        let line = rest.get(..found.map_or(rest.len(), |found| from + found)).unwrap_or_default();
        let whole = found.is_none() || line.ends_with('\r');
        let end = if found.is_some() && whole { line.len() - 1 } else { line.len() };
        // Looked for only when it ends the search: else a head of LFs would cost its square.
        let bare = || !whole || line.get(..end).is_some_and(|line| line.contains('\r'));
        if mode == OnBadLine::Refuse && bare() {
            return Err(FaultReason::BareLineEnd);
        }
        if whole {
            return Ok(end);
        }
        from = line.len() + 1;
    }
}

fn read_line(line: &str, at: usize, latin1: bool) -> Option<Line> {
    let bytes = line.as_bytes();
    let name_end = bytes.iter().position(|byte| !is_token_byte(*byte)).filter(|end| *end > 0)?;
    let blanks = bytes.get(name_end..)?.iter().position(|byte| !is_blank_byte(*byte))?;
    let colon = name_end + blanks;
    let value = line.get(colon..)?.strip_prefix(':')?;
    let from = at + colon + 1 + (value.len() - trim_start(value).len());
    Some(Line {
        name: Name::parse(line.get(..name_end)?),
        name_span: Span::new(at, at + name_end),
        value: Span::new(from, from + trim(value).len()),
        latin1,
    })
}

fn has_bare_nul(line: &str) -> bool {
    let mut escaped = false;
    line.bytes().any(|byte| {
        let bare = byte == 0 && !escaped;
        escaped = byte == b'\\' && !escaped;
        bare
    })
}

/// The head with each fold as one blank and Latin-1 lines as UTF-8, and for each line whether it
/// was Latin-1. The start line cannot be folded: a blank after it stays, and is refused by the scan.
fn rewrite(bytes: &[u8]) -> (String, Vec<bool>) {
    let mut logical: Vec<Vec<u8>> = Vec::with_capacity(LINES_USUAL);
    for raw in crlf_lines(bytes) {
        let folded = logical.len() > 1 && raw.first().copied().is_some_and(is_blank_byte);
        match logical.last_mut() {
            Some(line) if folded => {
                while line.last().copied().is_some_and(is_blank_byte) {
                    line.pop();
                }
                line.push(b' ');
                line.extend(raw.iter().skip_while(|byte| is_blank_byte(**byte)));
            }
            _ => logical.push(raw.to_vec()),
        }
        if raw.is_empty() {
            break;
        }
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    let mut flags = Vec::with_capacity(logical.len());
    for line in logical {
        match String::from_utf8(line) {
            Ok(line) => {
                text.push_str(&line);
                flags.push(false);
            }
            Err(fault) => {
                text.push_str(&latin1(fault.as_bytes()));
                flags.push(true);
            }
        }
        text.push_str("\r\n");
    }
    (text, flags)
}

fn crlf_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let current = rest?;
        let end = current.windows(2).position(|pair| pair == b"\r\n");
        rest = end.and_then(|end| current.get(end + 2..)).filter(|rest| !rest.is_empty());
        current.get(..end.unwrap_or(current.len()))
    })
}
