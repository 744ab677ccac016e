//! Media keys in a session description: `a=crypto` (RFC 4568 §9.1), read and written, and the terms
//! on which a leg may be encrypted. A line whose parameters would weaken SRTP, or which we cannot do
//! as it says, is no line to us: another one is taken, or none. Keys are never printed.

use super::offer_answer::OfferFault;
use super::text::MediaSection;
use crate::ground::Entropy;
use crate::rtp::srtp::{MasterKey, Mki, Suite};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use zeroize::Zeroize;

/// Whether media is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SrtpPolicy {
    /// Never: who wants nothing else is refused.
    Off,
    /// When the peer wants it too.
    #[default]
    Allowed,
    /// Always: plain RTP is refused.
    Required,
}

/// On what terms a leg may be encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SrtpTerms {
    pub policy: SrtpPolicy,
    /// Nobody on the way reads the description: the signalling is TLS, or we were told to take it
    /// for safe.
    pub keys_are_safe: bool,
}

impl SrtpTerms {
    /// Whether we can make an offer at all.
    ///
    /// # Errors
    /// [`OfferFault::KeysInClear`]: it would have to hold keys, and anybody could read them.
    pub fn may_offer(self) -> Result<(), OfferFault> {
        match (self.policy, self.keys_are_safe) {
            (SrtpPolicy::Required, false) => Err(OfferFault::KeysInClear),
            (SrtpPolicy::Off | SrtpPolicy::Allowed, _) | (SrtpPolicy::Required, true) => Ok(()),
        }
    }

    /// Keys may be given and taken.
    pub(super) fn may_encrypt(self) -> bool {
        self.policy != SrtpPolicy::Off && self.keys_are_safe
    }
}

/// One `a=crypto` line: what its writer sends with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crypto {
    /// Names the line; an answer repeats the tag of the one that it takes.
    pub tag: u32,
    pub key: MasterKey,
    /// The writer's packets carry it.
    pub mki: Option<Mki>,
}

impl Crypto {
    /// Reads the value of `a=crypto`. `None` when it is broken or nothing that we do: another suite, a
    /// parameter that takes encryption or authentication away, a key derivation rate, several keys.
    pub fn parse(value: &str) -> Option<Crypto> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().filter(|tag| tag.len() <= 9)?;
        let tag = tag.bytes().all(|byte| byte.is_ascii_digit()).then(|| tag.parse().ok())??;
        let suite = Suite::named(words.next()?)?;
        let (key, mki) = read_key(suite, words.next()?)?;
        words.all(is_harmless).then_some(Crypto { tag, key, mki })
    }

    /// The value of our `a=crypto`.
    pub fn write(&self) -> String {
        let key = base64::prelude::BASE64_STANDARD.encode(self.key.reveal());
        format!("{} {} inline:{key}", self.tag, self.key.suite().name())
    }
}

/// A session parameter that changes nothing for us: a hint at the size of the replay window (§6.3.6),
/// or one that its writer marks as optional (§6.3.7). All others weaken or change what is sent.
fn is_harmless(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    name.eq_ignore_ascii_case("WSH") || parameter.starts_with('-')
}

/// `inline:<key and salt>[|<lifetime>][|<MKI>:<length>]` (§6.1).
fn read_key(suite: Suite, params: &str) -> Option<(MasterKey, Option<Mki>)> {
    let (method, info) = params.split_once(':')?;
    if !method.eq_ignore_ascii_case("inline") || info.contains(';') {
        return None;
    }
    let mut parts = info.split('|');
    let key = decode(suite, parts.next()?)?;
    let (mut lifetime, mut mki) = (None, None);
    for part in parts {
        match part.split_once(':') {
            Some((value, bytes)) if mki.is_none() => {
                mki = Some(Mki::new(value.parse().ok()?, bytes.parse().ok()?)?);
            }
            None if lifetime.is_none() && mki.is_none() => lifetime = Some(read_lifetime(part)?),
            _ => return None,
        }
    }
    Some((key, mki))
}

/// Packets that a key is good for: `2^n` or a number, up to 2^48. Its writer makes a new key in time.
fn read_lifetime(text: &str) -> Option<u64> {
    let packets = match text.strip_prefix("2^") {
        Some(power) => 1_u64.checked_shl(power.parse().ok()?)?,
        None => text.parse().ok()?,
    };
    (1..=1 << 48).contains(&packets).then_some(packets)
}

/// Base64, with or without its padding.
fn decode(suite: Suite, text: &str) -> Option<MasterKey> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
    let mut bytes = [0; 64];
    let decoded = BASE64.decode_slice(text, &mut bytes).ok();
    let key = decoded.and_then(|len| MasterKey::new(suite, bytes.get(..len)?));
    bytes.zeroize();
    key
}

/// What the security of one offered section comes to: encrypted with the first line that we can do, or
/// plain. `encrypted_only`: its profile is one of SRTP.
pub(super) fn of_offer(
    section: &MediaSection,
    encrypted_only: bool,
    terms: SrtpTerms,
) -> Result<Option<Crypto>, OfferFault> {
    let lines = || section.attributes.all("crypto").find_map(Crypto::parse);
    let by_dtls = encrypted_only && !is_keyed_here(&section.proto);
    let offered = if by_dtls { None } else { lines() };
    match (offered, terms.policy) {
        (_, SrtpPolicy::Off) if encrypted_only => Err(OfferFault::EncryptedOnly),
        (None, _) if encrypted_only => Err(OfferFault::NoUsableKeys),
        (Some(_), _) if encrypted_only && !terms.keys_are_safe => Err(OfferFault::KeysInClear),
        (Some(crypto), _) if terms.may_encrypt() => Ok(Some(crypto)),
        (Some(_), SrtpPolicy::Required) => Err(OfferFault::KeysInClear),
        (None, SrtpPolicy::Required) => Err(OfferFault::PlainOnly),
        (_, SrtpPolicy::Off | SrtpPolicy::Allowed) => Ok(None),
    }
}

/// Whether a profile of SRTP has its keys in the description; others have them from DTLS.
fn is_keyed_here(proto: &str) -> bool {
    ["RTP/SAVP", "RTP/SAVPF"].iter().any(|name| proto.eq_ignore_ascii_case(name))
}

/// The line of an answer that takes one of `offered`; an answer has one.
pub(super) fn of_answer<'a>(
    section: &MediaSection,
    offered: &'a [Crypto],
) -> Option<(&'a Crypto, Crypto)> {
    let taken = section.attributes.all("crypto").find_map(Crypto::parse)?;
    let ours = offered.iter().find(|ours| ours.tag == taken.tag)?;
    (ours.key.suite() == taken.key.suite()).then_some((ours, taken))
}

/// Where keys of ours come from: a seed drawn once, and changed by every key, so that no key tells of
/// those before it.
#[derive(Clone)]
pub(super) struct KeySource([u8; 32]);

impl KeySource {
    pub(super) fn new(entropy: &mut Entropy) -> KeySource {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        KeySource(seed)
    }

    pub(super) fn draw(&mut self, suite: Suite) -> MasterKey {
        let mut entropy = Entropy::from_seed(self.0);
        entropy.fill(&mut self.0);
        MasterKey::draw(suite, &mut entropy)
    }

    /// A line for each suite, the strongest first.
    pub(super) fn offer(&mut self) -> Vec<Crypto> {
        let line = |(suite, tag)| Crypto { tag, key: self.draw(suite), mki: None };
        Suite::ALL.into_iter().zip(1..).map(line).collect()
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySource(***)")
    }
}

impl Drop for KeySource {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

    #[test]
    fn lines_are_read_with_lifetime_and_identifier() {
        let long = format!("{KEY}AAAAAAAAAAAAAAAAAAAAAA==");
        let short = "A".repeat(38);
        for (line, expected) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Some((1, None))),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:32"), Some((1, Some((1, 32))))),
            (format!("12 aes_cm_128_hmac_sha1_32  INLINE:{KEY}|2^48"), Some((12, None))),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4 WSH=64"), Some((1, Some((1, 4))))),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1048576 -X=1"), Some((1, None))),
            (format!("3 AES_256_CM_HMAC_SHA1_80 inline:{long}"), Some((3, None))),
            (format!("4 AEAD_AES_128_GCM inline:{short}=="), Some((4, None))),
            (format!("4 AEAD_AES_128_GCM inline:{short}|2^31|1:1"), Some((4, Some((1, 1))))),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTCP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} WSH=64 UNAUTHENTICATED_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=1"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} FEC_ORDER=FEC_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} X"), None),
            (format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4;inline:{KEY}|2:4"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^49"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^99"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|0"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4|2^20"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|256:1"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:129"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|x:1"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}", &KEY[..36]), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}AAAA"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}", "A".repeat(4_000)), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}", KEY.replace('V', "!")), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 uri:{KEY}"), None),
            (format!("1234567890 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), None),
            (format!("-1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), None),
            (format!("+1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), None),
            ("1 AES_CM_128_HMAC_SHA1_80".to_owned(), None),
            ("1".to_owned(), None),
            (String::new(), None),
        ] {
            let read = Crypto::parse(&line);
            let mki = |(value, bytes)| Mki::new(value, bytes).expect("it fits");
            let expected = expected.map(|(tag, expected)| (tag, expected.map(mki)));
            assert_eq!(read.as_ref().map(|crypto| (crypto.tag, crypto.mki)), expected, "{line}");
            let again = read.as_ref().and_then(|crypto| Crypto::parse(&crypto.write()));
            assert_eq!(again.map(|crypto| crypto.key), read.map(|crypto| crypto.key), "{line}");
        }
    }

    #[test]
    fn keys_of_ours_differ_and_are_repeatable() {
        let offer = |seed| KeySource::new(&mut Entropy::from_number(seed)).offer();
        assert_eq!(offer(1), offer(1));
        let (one, other) = (offer(1), offer(2));
        let suites: Vec<_> = one.iter().map(|line| line.key.suite()).collect();
        assert_eq!(suites, Suite::ALL);
        for (index, line) in one.iter().enumerate() {
            assert!(other.iter().chain(&one[index + 1..]).all(|two| two.key != line.key));
            let text = format!("{line:?}{:?}", KeySource::new(&mut Entropy::from_number(1)));
            assert!(text.contains("***") && !text.contains(&line.write()[30..]), "{text}");
        }
    }
}
