//! (being built)
pub mod stream;
