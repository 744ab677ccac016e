//! Text that never prints. API keys, passwords and join URLs live in a `Secret`, whose `Debug` and
//! `Display` give `***`; only `reveal` hands the text out, and only to who sends it on the wire.

use std::fmt;

/// A secret text. It has no `Serialize`, and its printed form is always `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself: for the wire, never for a log or a record.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in a time that depends on the lengths only.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let mut difference = own.len() ^ candidate.len();
        for (index, byte) in candidate.iter().enumerate() {
            let mine = own.get(index).copied().unwrap_or(0);
            difference |= usize::from(mine ^ byte);
        }
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // Best effort without unsafe: the buffer is overwritten before it is freed.
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars_and_compares_whole() {
        let secret = Secret::new("abc");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(secret.matches(b"abc"));
        for wrong in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!secret.matches(wrong));
        }
    }
}
