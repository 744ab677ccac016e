//! Session descriptions (SDP, RFC 8866) and the offer/answer exchange (RFC 3264): what the peer can
//! and wants to do with media, what we take of it, and the text that says so.
//!
//! ```text
//! text ──▶ payload ──▶ offer_answer ──▶ Agreed (plain values of media::plan)
//! ```
//!
//! `text` is the one door to `sdp-types`; `payload` reads codecs out of payload numbers and `fmtp` what
//! their parameters settle; `address` judges where media may go; `crypto` reads and writes media keys;
//! `control` what RTCP tells and takes; `section` picks what suits us in one media section; `offer_answer` is the machine of one dialog.
//! Nothing here sees SIP, a socket or a clock.

mod address;
mod control;
pub mod crypto;
mod description;
mod fmtp;
pub mod offer_answer;
pub mod payload;
mod section;
pub mod text;

pub use control::ExtendedReports;
pub use crypto::{SrtpPolicy, SrtpTerms};
pub use description::DescriptionText;
pub use offer_answer::{Agreed, Answered, LocalMedia, OfferAnswer, OfferFault};

#[cfg(test)]
mod tests;
