//! Codecs behind one enum with static dispatch.

/// A codec that we can negotiate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CodecKind {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s; sampled at 16 kHz though its RTP clock is 8 kHz (RFC 3551 §4.5.2).
    G722,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
}
