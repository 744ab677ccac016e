//! What the flows count: plain numbers for the operator.

use std::sync::atomic::{AtomicU64, Ordering};

/// One growing number.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub received: Count,
    pub malformed: Count,
    pub shed: Count,
    pub unsent: Count,
    pub overflowed: Count,
    pub refused: Count,
    pub handshakes_failed: Count,
    pub overdue: Count,
    pub too_fast: Count,
    pub parser_panics: Count,
    pub connects: Count,
    pub connects_failed: Count,
    pub resumed: Count,
    pub muted: Count,
}

/// The numbers at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowCounters {
    /// Messages passed to signalling.
    pub received: u64,
    /// Bytes of listed sources that were no message.
    pub malformed: u64,
    /// Packets dropped because signalling was full.
    pub shed: u64,
    /// Messages of ours that could not be sent.
    pub unsent: u64,
    /// Connections closed because their backlog was full.
    pub overflowed: u64,
    /// Connections of listed sources closed at accept: too many.
    pub refused: u64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// Connections closed because a message or any sign of life did not come in time.
    pub overdue: u64,
    /// Packets and TLS handshakes of listed sources that came faster than one source may.
    pub too_fast: u64,
    /// Messages that the parser failed on by our own bug; each cost only itself.
    pub parser_panics: u64,
    /// Connections of ours that were made.
    pub connects: u64,
    /// Connections of ours that could not be made.
    pub connects_failed: u64,
    /// TLS sessions of ours that were resumed.
    pub resumed: u64,
    /// Times that an unlisted source was muted in the kernel.
    pub muted: u64,
    /// Connections open now.
    pub connections: u64,
    /// Packets and connections of unlisted sources.
    pub unlisted: u64,
}

impl Counters {
    pub fn snapshot(&self, connections: usize, unlisted: u64) -> FlowCounters {
        FlowCounters {
            received: self.received.value(),
            malformed: self.malformed.value(),
            shed: self.shed.value(),
            unsent: self.unsent.value(),
            overflowed: self.overflowed.value(),
            refused: self.refused.value(),
            handshakes_failed: self.handshakes_failed.value(),
            overdue: self.overdue.value(),
            too_fast: self.too_fast.value(),
            parser_panics: self.parser_panics.value(),
            connects: self.connects.value(),
            connects_failed: self.connects_failed.value(),
            resumed: self.resumed.value(),
            muted: self.muted.value(),
            connections: connections as u64,
            unlisted,
        }
    }
}
