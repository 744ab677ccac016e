//! The customer's SIP configuration: the document as the API and the file write it, and the
//! `SipConfig` that is compiled from it and correct by construction. What a call asks of it is
//! answered by `admission` and `routing`. Nothing here knows SIP messages.

pub mod agent_id;
pub mod change;
pub mod compile;
pub mod document;
pub mod enrol;
pub mod pattern;
pub mod range;
pub mod registration;

pub use agent_id::AgentId;
pub use change::{Change, FieldProblem};
pub use compile::{Allowance, Place, Problem, Severity, SipConfig, compile};
pub use document::{AgentAllowance, FallbackHandler, SipConfigDocument};
pub use pattern::Pattern;
pub use range::CidrRange;
pub use registration::{
    Registration, RegistrationDocument, RegistrationField, RegistrationId, RegistrationProblem,
};
