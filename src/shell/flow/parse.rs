//! A catch round the parser: bytes of strangers that it fails on by a bug of ours cost one message,
//! never a listener.

use super::counters::Counters;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `read` gives, or `None` when it panicked.
pub(super) fn guarded<T>(counters: &Counters, read: impl FnOnce() -> T) -> Option<T> {
    // Whatever `read` was given is dropped with it.
    let parsed = catch_unwind(AssertUnwindSafe(read)).ok();
    if parsed.is_none() {
        counters.parser_panics.add();
        tracing::error!("the parser panicked; the message is dropped");
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_message_and_is_counted() {
        let counters = Counters::default();
        let parse = |text: &str| text.parse::<u32>().expect("a bug of ours");
        let parsed: Vec<_> =
            ["1", "x", "2"].map(|text| guarded(&counters, || parse(text))).to_vec();
        assert_eq!(parsed, [Some(1), None, Some(2)]);
        assert_eq!(counters.snapshot(0, 0).parser_panics, 1);
    }
}
