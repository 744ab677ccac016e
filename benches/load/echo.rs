//! Finds the stamped frames in what comes back of a call. They stand one in each packet until the daemon
//! makes audio longer or shorter, as it does when a stream nearly ran dry; from then on a frame
//! begins in one packet and ends in the next.

use crate::stamp::{FRAME, Pattern, STAMP, Stamp};

/// µ-law silence.
pub const SILENCE: u8 = 0xFF;

/// What a piece of the echo is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A whole frame, and when the packet with its first byte came, in nanoseconds.
    Frame(Stamp, u64),
    Silence,
    /// Neither silence nor a frame that was sent.
    Changed,
}

/// The echo of one call.
pub struct Echo {
    call: u16,
    /// A frame that began in an earlier packet, or bytes that may become its stamp.
    begun: Vec<u8>,
    /// When they came.
    at: u64,
}

impl Echo {
    pub fn new(call: u16) -> Echo {
        Echo { call, begun: Vec::new(), at: 0 }
    }

    /// Tells the pieces that a payload ends.
    pub fn take(
        &mut self,
        pattern: &Pattern,
        at: u64,
        payload: &[u8],
        mut tell: impl FnMut(Piece),
    ) {
        let mut bytes = std::mem::take(&mut self.begun);
        let older = bytes.len();
        bytes.extend_from_slice(payload);
        let mut from = 0;
        while let Some((stamp, offset)) = self.next(&bytes[from..]) {
            tell_between(&bytes[from..from + offset], &mut tell);
            from += offset;
            let Some(rest) = bytes.get(from + STAMP..from + FRAME) else { break };
            let came = if from < older { self.at } else { at };
            let whole = rest == pattern.of(stamp);
            tell(if whole { Piece::Frame(stamp, came) } else { Piece::Changed });
            from += FRAME;
        }
        if self.next(&bytes[from..]).is_none() {
            let tail = tail(&bytes[from..]);
            tell_between(&bytes[from..bytes.len() - tail], &mut tell);
            from = bytes.len() - tail;
        }
        if from >= older {
            self.at = at;
        }
        bytes.drain(..from);
        self.begun = bytes;
    }

    /// The next stamp of this call, and where it stands. What precedes a stamp may look like its first byte:
    /// then the number of the call is wrong.
    fn next(&self, bytes: &[u8]) -> Option<(Stamp, usize)> {
        (0..bytes.len()).find_map(|offset| {
            let stamp = Stamp::read(&bytes[offset..])?;
            (stamp.call == self.call).then_some((stamp, offset))
        })
    }
}

/// Bytes at the end that may be the begin of a stamp.
fn tail(bytes: &[u8]) -> usize {
    bytes.iter().rev().take(STAMP - 1).take_while(|byte| Stamp::may_hold(**byte)).count()
}

fn tell_between(bytes: &[u8], tell: &mut impl FnMut(Piece)) {
    if !bytes.is_empty() {
        let silent = bytes.iter().all(|byte| *byte == SILENCE);
        tell(if silent { Piece::Silence } else { Piece::Changed });
    }
}
