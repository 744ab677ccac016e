//! The media plane's pure part (house §5): one [`MediaSession`] for each call. RTP, agent audio and
//! the session's own deadlines come in; packets, agent audio, digits and reports go out.
//!
//! ```text
//! caller ─RTP─▶ latch ─▶ jitter ─▶ decode ─▶ sample clock ─▶ Uplink ─▶ (shard) ─▶ agent
//! caller ◀─RTP─ latch ◀─ pacer  ◀─ encode ◀─ PlayoutQueue ◀─ (shard) ◀────────── agent
//! ```
//!
//! Codec and agent mostly have one rate; where they do not, audio is resampled behind the decoder,
//! and before the playout queue.
//!
//! Nothing here allocates, locks, logs or makes a system call once a session is built; signalling
//! and SDP are never seen: `plan` is the whole vocabulary.

mod clock;
mod control;
mod early;
mod inbound;
pub mod jitter;
pub mod latch;
mod outbound;
pub mod plan;
pub mod playout;
mod session;
mod supply;
pub mod topology;
pub mod uplink;

#[cfg(test)]
mod tests;

pub use session::{Channel, MediaSession, Transmit};
pub use uplink::Uplink;
