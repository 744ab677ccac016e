//! The media plane's pure part (house §5): one [`MediaSession`] for each call. RTP, agent audio and
//! the session's own deadlines come in; packets, agent audio, digits and reports go out.
//!
//! ```text
//! caller ─RTP─▶ latch ─▶ jitter ─▶ decode ─▶ sample clock ─▶ Uplink ─▶ (shard) ─▶ agent
//! caller ◀─RTP─ latch ◀─ pacer  ◀─ encode ◀─ PlayoutQueue ◀─ (shard) ◀────────── agent
//! ```
//!
//! How late packets may come follows the network (`delay`); where the caller's clock and ours part, audio
//! is made shorter or longer (`balance`, `stretch`).
//!
//! That is the usual call. Where legs hear each other, an agent hears several, or a sound is played,
//! it goes by the bridge:
//!
//! ```text
//! leg ─decode─▶ lane ─┐
//! leg ─decode─▶ lane ─┼─▶ frame of a leg (with its agent's words) ─▶ encode, or of an agent
//! sound ──▶ player ───┘
//! ```
//!
//! Two legs of one codec that hear each other and nobody else are given each other's packets as they
//! come: no decoder, lane or encoder is in the way, and no delay.
//!
//! Codec and agent mostly have one rate; where they do not, audio is resampled behind the decoder,
//! and before the playout queue.
//!
//! Nothing here allocates, locks, logs or makes a system call once a session is built; signalling
//! and SDP are never seen: `plan` is the whole vocabulary.

mod balance;
mod bridge;
mod clock;
mod control;
pub mod delay;
mod early;
mod fade;
mod guard;
mod inbound;
pub mod jitter;
mod key_ear;
mod keys;
mod lane;
pub mod latch;
mod leg;
mod outbound;
mod pace;
mod pause;
pub mod plan;
mod player;
pub mod playout;
pub mod quality;
mod reception;
mod relay;
mod session;
pub mod sound;
mod stream;
pub mod stretch;
mod supply;
pub mod uplink;
mod voice;
mod waits;
mod witness;

#[cfg(test)]
mod tests;

pub use session::{Channel, LegFault, MediaSession, Transmit};
pub use uplink::Uplink;
