//! SIP transactions (RFC 3261 §17 with RFC 6026 and RFC 4320): four machines that keep the bytes to
//! send again, codes and times. They never look inside a message, own no map and ask no clock; the
//! user agent finds the right one by its key and carries out what they ask.
//!
//! | machine | states | timers |
//! |---|---|---|
//! | [`ServerInvite`] | Proceeding, Completed, Confirmed, Accepted | G H I L |
//! | [`Server`] | Trying, Proceeding, Completed | the 100 of RFC 4320, F, J |
//! | [`ClientInvite`] | Calling, Proceeding, Completed, Accepted | A B D M |
//! | [`Client`] | Trying, Proceeding, Completed | E F K |

mod client;
mod client_invite;
pub mod key;
mod server;
mod server_invite;
#[cfg(test)]
mod testing;
pub mod timing;

pub use client::Client;
pub use client_invite::ClientInvite;
pub use key::{ClientKey, ServerKey};
pub use server::Server;
pub use server_invite::ServerInvite;
pub use timing::{Timer, Timing};

use bytes::Bytes;

/// What a transaction asks of its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Put these bytes on the transaction's flow.
    Send(Bytes),
    /// Build a 100 for the request and hand it in with `Server::trying` (RFC 4320 §4.1).
    OweTrying,
    /// The response that was just handed in is news for the transaction user.
    PassUp,
    /// The peer stayed silent for 64 × T1: Timer B, F or H fired.
    TimedOut,
    /// The transport reported that the request cannot be sent (RFC 3261 §17.1.4).
    TransportFailed,
}
