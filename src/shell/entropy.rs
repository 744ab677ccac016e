//! The one place that asks the operating system for randomness. Everything else draws from an
//! `Entropy` that was seeded here.

use crate::ground::Entropy;

/// 32 bytes from the operating system.
///
/// # Errors
/// When the system has no source of randomness; nothing can be started without one.
pub fn os_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// A stream of chance with a seed from the operating system.
///
/// # Errors
/// As [`os_seed`].
pub fn from_os() -> std::io::Result<Entropy> {
    os_seed().map(Entropy::from_seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_seeds_are_alike() {
        assert_ne!(os_seed().expect("a seed"), os_seed().expect("a seed"));
        assert_ne!(from_os().expect("entropy").u64(), from_os().expect("entropy").u64());
    }
}
