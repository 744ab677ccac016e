//! Files that the configuration is, or names: read whole, within a bound, so that a device, a log or
//! a disk image given by mistake is an error and not all of the memory.

use std::io::{Error, ErrorKind, Read};
use std::path::Path;

/// The configuration itself: the most registrations that an account may have, written at length.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// A key or a password, which stands on one line.
pub const KEY_BYTES_MAX: u64 = 4 << 10;
/// Certificates with their chain, or a bundle of authorities.
pub const PEM_BYTES_MAX: u64 = 4 << 20;

/// The text of the file at `path`, of at most `bytes_max` bytes.
///
/// # Errors
/// As `std::fs::read_to_string`, and `FileTooLarge`.
pub fn text(path: &Path, bytes_max: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let words = format!("it has more than {bytes_max} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, words));
    }
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_and_what_is_no_text_is_told() {
        let kind = |path: &str, max| text(Path::new(path), max).map_err(|error| error.kind());
        assert_eq!(kind("/dev/null", 0), Ok(String::new()));
        assert_eq!(kind("/dev/zero", KEY_BYTES_MAX), Err(ErrorKind::FileTooLarge));
        assert_eq!(kind("/", 9), Err(ErrorKind::IsADirectory));
        let own = file!();
        let len = std::fs::metadata(own).expect("our own source").len();
        assert!(kind(own, len).is_ok_and(|text| text.len() as u64 == len));
        assert_eq!(kind(own, len - 1), Err(ErrorKind::FileTooLarge));
    }
}
