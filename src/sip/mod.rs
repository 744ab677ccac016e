//! SIP as bytes and as machines: messages, the RFC's own refusals, transactions, dialogs, sessions
//! and the user agent. Knows nothing of Ultravox, accounts or sockets.

pub mod destination;
pub mod dialog;
pub mod digest;
pub mod locator;
pub mod msg;
pub mod offering;
pub mod peer;
pub mod refer;
pub mod registration;
pub mod reliable;
pub mod replaces;
pub mod session;
pub mod session_timer;
pub mod status;
pub mod target;
pub mod transaction;
pub mod ua;

#[cfg(test)]
mod testing;
