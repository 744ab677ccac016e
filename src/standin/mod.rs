//! An Ultravox-compatible agent service in the same binary.

pub mod conversation;
pub mod script;
pub mod sound;
