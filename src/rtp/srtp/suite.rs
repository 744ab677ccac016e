//! Crypto suites (RFC 4568 §6.2, RFC 6188, RFC 7714 §14.1) and what both ends agree on for each
//! direction: a master key with its salt, and the identifier that the packets may carry.

use crate::ground::Entropy;
use std::fmt;
use zeroize::Zeroize;

/// A crypto suite, the strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Suite {
    AeadAes256Gcm,
    AesCm256HmacSha1_80,
    AeadAes128Gcm,
    AesCm128HmacSha1_80,
    /// Packets of RTP have a tag of 32 bits, those of RTCP one of 80 (RFC 4568 §6.2.2).
    AesCm128HmacSha1_32,
}

impl Suite {
    /// Every suite, the strongest first.
    pub const ALL: [Suite; 5] = [
        Suite::AeadAes256Gcm,
        Suite::AesCm256HmacSha1_80,
        Suite::AeadAes128Gcm,
        Suite::AesCm128HmacSha1_80,
        Suite::AesCm128HmacSha1_32,
    ];

    /// The name in `a=crypto`.
    pub fn name(self) -> &'static str {
        match self {
            Suite::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Suite::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Suite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Suite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of that name.
    pub fn named(name: &str) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of the cipher's key: 16 or 32.
    pub fn key_bytes(self) -> usize {
        match self {
            Suite::AeadAes256Gcm | Suite::AesCm256HmacSha1_80 => 32,
            Suite::AeadAes128Gcm | Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => 16,
        }
    }

    /// Bytes of the salt: 14, and 12 for GCM.
    pub fn salt_bytes(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Bytes of the tag of an RTP packet.
    pub fn rtp_tag_bytes(self) -> usize {
        match self {
            Suite::AeadAes256Gcm | Suite::AeadAes128Gcm => 16,
            Suite::AesCm256HmacSha1_80 | Suite::AesCm128HmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32 => 4,
        }
    }

    /// Bytes of the tag of an RTCP packet.
    pub fn rtcp_tag_bytes(self) -> usize {
        if self.is_aead() { 16 } else { 10 }
    }

    pub(super) fn is_aead(self) -> bool {
        matches!(self, Suite::AeadAes256Gcm | Suite::AeadAes128Gcm)
    }
}

/// Bytes of the longest master key with its salt.
const MASTER_BYTES_MAX: usize = 46;

/// The master key and master salt of one direction, with their suite. Never printed, and wiped when
/// it goes.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    /// Key, salt, and zeros.
    bytes: [u8; MASTER_BYTES_MAX],
}

impl MasterKey {
    /// From the key followed by its salt, as `inline:` has them. `None` when the length is not the
    /// suite's.
    pub fn new(suite: Suite, key_and_salt: &[u8]) -> Option<MasterKey> {
        if key_and_salt.len() != suite.key_bytes() + suite.salt_bytes() {
            return None;
        }
        let mut bytes = [0; MASTER_BYTES_MAX];
        bytes.iter_mut().zip(key_and_salt).for_each(|(to, from)| *to = *from);
        Some(MasterKey { suite, bytes })
    }

    /// A key of our own.
    pub fn draw(suite: Suite, entropy: &mut Entropy) -> MasterKey {
        let mut bytes = [0; MASTER_BYTES_MAX];
        entropy.fill(&mut bytes[..suite.key_bytes() + suite.salt_bytes()]);
        MasterKey { suite, bytes }
    }

    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key followed by its salt: for a session description, never for a log or a record.
    pub fn reveal(&self) -> &[u8] {
        &self.bytes[..self.suite.key_bytes() + self.suite.salt_bytes()]
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.suite.key_bytes()]
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.reveal()[self.suite.key_bytes()..]
    }
}

/// In a time that does not depend on the keys.
impl PartialEq for MasterKey {
    fn eq(&self, other: &MasterKey) -> bool {
        let pairs = self.bytes.iter().zip(&other.bytes);
        let difference = pairs.fold(0, |difference, (one, other)| difference | (one ^ other));
        self.suite == other.suite && difference == 0
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(***)", self.suite.name())
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// The master key identifier that a sender announced: its packets carry it (RFC 3711 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mki {
    value: u64,
    bytes: u8,
}

impl Mki {
    /// The longest identifier (RFC 4568 §6.1).
    pub const BYTES_MAX: u8 = 128;

    /// `value` in `bytes` bytes, 1 to [`Mki::BYTES_MAX`]. `None` when it does not fit.
    pub fn new(value: u64, bytes: u8) -> Option<Mki> {
        let fits = bytes >= 8 || value.checked_shr(u32::from(bytes) * 8) == Some(0);
        ((1..=Mki::BYTES_MAX).contains(&bytes) && fits).then_some(Mki { value, bytes })
    }

    pub(super) fn bytes(self) -> usize {
        usize::from(self.bytes)
    }

    /// Whether `field`, as long as the identifier, holds it.
    pub(super) fn is(self, field: &[u8]) -> bool {
        let mut rest = self.value;
        let matches = |byte: &u8| {
            let same = *byte == rest as u8;
            rest >>= 8;
            same
        };
        field.len() == self.bytes() && field.iter().rev().all(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lengths_are_those_of_the_registry() {
        for (name, key, tags) in [
            ("AES_CM_128_HMAC_SHA1_80", 30, (10, 10)),
            ("AES_CM_128_HMAC_SHA1_32", 30, (4, 10)),
            ("AES_256_CM_HMAC_SHA1_80", 46, (10, 10)),
            ("AEAD_AES_128_GCM", 28, (16, 16)),
            ("aead_aes_256_gcm", 44, (16, 16)),
        ] {
            let suite = Suite::named(name).expect(name);
            assert_eq!((suite.rtp_tag_bytes(), suite.rtcp_tag_bytes()), tags, "{name}");
            for (bytes, fits) in [(key - 1, false), (key, true), (key + 1, false)] {
                assert_eq!(
                    MasterKey::new(suite, &vec![1; bytes]).is_some(),
                    fits,
                    "{name} {bytes}"
                );
            }
        }
        assert_eq!(Suite::named("F8_128_HMAC_SHA1_80"), None);
        assert!(Suite::ALL.is_sorted());
    }

    #[test]
    fn keys_print_nothing_and_compare_whole() {
        let mut entropy = Entropy::from_number(1);
        let [one, other] = [(); 2].map(|()| MasterKey::draw(Suite::AeadAes128Gcm, &mut entropy));
        assert_eq!(format!("{one:?}"), "AEAD_AES_128_GCM(***)");
        assert_eq!(one, MasterKey::new(Suite::AeadAes128Gcm, one.reveal()).expect("its length"));
        assert_ne!(one, other);
        let (at_80, at_32) = (Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32);
        assert_ne!(MasterKey::new(at_80, &[1; 30]), MasterKey::new(at_32, &[1; 30]));
    }

    #[test]
    fn an_identifier_is_compared_in_its_length() {
        for (value, bytes, made) in
            [(1, 1, true), (256, 1, false), (255, 1, true), (u64::MAX, 8, true), (1, 128, true)]
        {
            assert_eq!(Mki::new(value, bytes).is_some(), made, "{value}:{bytes}");
        }
        assert!(Mki::new(1, 0).is_none() && Mki::new(1, 129).is_none());
        let mki = Mki::new(258, 4).expect("it fits");
        assert!(mki.is(&[0, 0, 1, 2]));
        for wrong in [&[0, 0, 1, 3][..], &[1, 0, 1, 2], &[0, 1, 2], &[0, 0, 0, 1, 2], &[]] {
            assert!(!mki.is(wrong), "{wrong:?}");
        }
    }
}
