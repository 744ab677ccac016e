//! The media plane's pure part (house §5). Filled in by its files; see `plan` for the vocabulary.

pub mod plan;
