//! Calls that a customer asks us to place: who may be called ([`policy`], security S14), and what a
//! request for one says ([`request`]). Pure rules: nothing here dials.

pub mod policy;
pub mod request;

pub use policy::{Callee, HostPattern, HostRule, Limiter, OutgoingPolicy, Unwanted, needs_tls};
pub use request::{DialRefusal, OutgoingCallRequest, Wanted};
