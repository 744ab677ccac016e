//! Money and records (house §7): how long legs were up, what that costs in deciminutes, and the
//! record that a call leaves behind. Pure: knows nothing of SIP messages, sockets or files.

pub mod cdr;
pub mod deciminute;
pub mod ledger;
pub mod loss;
mod stamp;
pub mod transfer;

pub use cdr::{CallDirection, Cdr, EndedBy, KeyCounts, MediaSummary, Source};
pub use deciminute::Deciminutes;
pub use ledger::{Ledger, LegClock};
pub use loss::{AgentLoss, LossEnd};
pub use transfer::{TransferKind, TransferOutcome, TransferRecord};
