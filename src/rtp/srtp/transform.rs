//! The two transforms of SRTP, on a packet in place: AES in counter mode with HMAC-SHA1 (RFC 3711
//! §4.1.1, §4.2.1; RFC 6188) and AES-GCM (RFC 7714 §8, §9). The one door to the ciphers. A packet that
//! does not verify is left as it was.
//!
//! ```text
//! CM    header │ body* │ [E│index] │ MKI │ tag      tag over all before the MKI, and the rollover counter
//! GCM   header │ body* │ tag │ [E│index] │ MKI      *: encrypted;  [ ]: RTCP only
//! ```

use super::keys::SessionKeys;
use super::suite::{Mki, Suite};
use aes::cipher::consts::{U12, U16};
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipherCore};
use aes::{Aes128Enc, Aes256Enc};
use aes_gcm::AesGcm;
use aes_gcm::aead::AeadInOut;
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::Zeroize;

/// Bytes of the word with the E bit and the index of SRTCP.
const INDEX_BYTES: usize = 4;
/// Set in that word: the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;
/// Bytes of an RTCP packet that stay readable: its first header and the sender's SSRC.
const RTCP_CLEAR_BYTES: usize = 8;

/// The source of a packet and its index there; for RTCP the explicit one of 31 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) ssrc: u32,
    pub(super) index: u64,
}

/// The transform of one protocol and one direction.
pub(super) struct Transform {
    cipher: Cipher,
    salt: [u8; 14],
    tag_bytes: usize,
}

enum Cipher {
    Cm { aes: Aes, auth: Hmac<Sha1> },
    Gcm(Gcm),
}

enum Aes {
    Key128(Aes128Enc),
    Key256(Aes256Enc),
}

enum Gcm {
    Key128(AesGcm<Aes128Enc, U12>),
    Key256(AesGcm<Aes256Enc, U12>),
}

impl Transform {
    pub(super) fn new(suite: Suite, keys: &SessionKeys, tag_bytes: usize) -> Transform {
        let mut short = [0; 16];
        short.copy_from_slice(&keys.key[..16]);
        let cipher = match suite {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => {
                Cipher::Cm { aes: Aes::Key128(Aes128Enc::new(&short.into())), auth: auth(keys) }
            }
            Suite::AesCm256HmacSha1_80 => {
                Cipher::Cm { aes: Aes::Key256(Aes256Enc::new(&keys.key.into())), auth: auth(keys) }
            }
            Suite::AeadAes128Gcm => Cipher::Gcm(Gcm::Key128(AesGcm::new(&short.into()))),
            Suite::AeadAes256Gcm => Cipher::Gcm(Gcm::Key256(AesGcm::new(&keys.key.into()))),
        };
        short.zeroize();
        Transform { cipher, salt: keys.salt, tag_bytes }
    }

    /// Protects the first `len` bytes of `buffer`, a packet whose header has `header` bytes, and
    /// returns the new length. `None` when the buffer has no room.
    pub(super) fn protect_rtp(
        &self,
        place: Place,
        buffer: &mut [u8],
        header: usize,
        len: usize,
    ) -> Option<usize> {
        let (packet, room) = buffer.split_at_mut_checked(len)?;
        let tag = room.get_mut(..self.tag_bytes)?;
        let (clear, body) = packet.split_at_mut_checked(header)?;
        match &self.cipher {
            Cipher::Cm { aes, auth } => {
                aes.apply(self.counter(place), body);
                let rollover = ((place.index >> 16) as u32).to_be_bytes();
                write_tag(auth, &[packet, &rollover], tag);
            }
            Cipher::Gcm(gcm) => gcm.seal(self.nonce(place), clear, body, tag)?,
        }
        Some(len + self.tag_bytes)
    }

    /// Checks a whole datagram and decrypts it; returns the length without what SRTP added. `None` when
    /// it does not verify.
    pub(super) fn unprotect_rtp(
        &self,
        place: Place,
        packet: &mut [u8],
        header: usize,
        mki: Option<Mki>,
    ) -> Option<usize> {
        match &self.cipher {
            Cipher::Cm { aes, auth } => {
                let (packet, tag) = split_tail(packet, self.tag_bytes)?;
                let packet = cut_mki(packet, mki)?;
                let rollover = ((place.index >> 16) as u32).to_be_bytes();
                check_tag(auth, &[packet, &rollover], tag)?;
                aes.apply(self.counter(place), packet.get_mut(header..)?);
                Some(packet.len())
            }
            Cipher::Gcm(gcm) => {
                let (packet, tag) = split_tail(cut_mki(packet, mki)?, self.tag_bytes)?;
                let (clear, body) = packet.split_at_mut_checked(header)?;
                gcm.open(self.nonce(place), clear, body, tag)?;
                Some(packet.len())
            }
        }
    }

    /// Protects a compound packet of `len` bytes in the same way.
    pub(super) fn protect_rtcp(
        &self,
        place: Place,
        buffer: &mut [u8],
        len: usize,
    ) -> Option<usize> {
        let word = (place.index as u32 | ENCRYPTED).to_be_bytes();
        let end = len + INDEX_BYTES + self.tag_bytes;
        let (packet, trailer) = buffer.get_mut(..end)?.split_at_mut_checked(len)?;
        let (clear, body) = packet.split_at_mut_checked(RTCP_CLEAR_BYTES)?;
        match &self.cipher {
            Cipher::Cm { aes, auth } => {
                let (index, tag) = trailer.split_at_mut_checked(INDEX_BYTES)?;
                index.copy_from_slice(&word);
                aes.apply(self.counter(place), body);
                write_tag(auth, &[packet, &word], tag);
            }
            Cipher::Gcm(gcm) => {
                let (tag, index) = trailer.split_at_mut_checked(self.tag_bytes)?;
                index.copy_from_slice(&word);
                gcm.seal(self.nonce(place), &with_word(clear, word), body, tag)?;
            }
        }
        Some(end)
    }

    /// The index that a datagram of SRTCP names. `None` when it is too short, or not encrypted: that
    /// was never agreed to.
    pub(super) fn rtcp_index(&self, packet: &[u8], mki: Option<Mki>) -> Option<u64> {
        let behind = mki.map_or(0, Mki::bytes)
            + match &self.cipher {
                Cipher::Cm { .. } => self.tag_bytes,
                Cipher::Gcm(_) => 0,
            };
        let end = packet.len().checked_sub(behind)?;
        let word = packet.get(..end)?.last_chunk().map(|word| u32::from_be_bytes(*word))?;
        (word & ENCRYPTED != 0).then_some(u64::from(word & !ENCRYPTED))
    }

    /// Checks a whole datagram of SRTCP and decrypts it, as for RTP.
    pub(super) fn unprotect_rtcp(
        &self,
        place: Place,
        packet: &mut [u8],
        mki: Option<Mki>,
    ) -> Option<usize> {
        match &self.cipher {
            Cipher::Cm { aes, auth } => {
                let (packet, tag) = split_tail(packet, self.tag_bytes)?;
                let packet = cut_mki(packet, mki)?;
                check_tag(auth, &[packet], tag)?;
                let (packet, _) = split_tail(packet, INDEX_BYTES)?;
                aes.apply(self.counter(place), packet.get_mut(RTCP_CLEAR_BYTES..)?);
                Some(packet.len())
            }
            Cipher::Gcm(gcm) => {
                let (packet, index) = split_tail(cut_mki(packet, mki)?, INDEX_BYTES)?;
                let word = index.first_chunk().copied()?;
                let (packet, tag) = split_tail(packet, self.tag_bytes)?;
                let (clear, body) = packet.split_at_mut_checked(RTCP_CLEAR_BYTES)?;
                gcm.open(self.nonce(place), &with_word(clear, word), body, tag)?;
                Some(packet.len())
            }
        }
    }

    /// The first counter block of AES-CM (RFC 3711 §4.1.1).
    fn counter(&self, place: Place) -> [u8; 16] {
        let salt = self.salt.iter().fold(0, |salt, byte| salt << 8 | u128::from(*byte));
        let at = u128::from(place.ssrc) << 64 ^ u128::from(place.index) << 16;
        (salt << 16 ^ at).to_be_bytes()
    }

    /// The initialisation vector of GCM (RFC 7714 §8.1, §9.1).
    fn nonce(&self, place: Place) -> [u8; 12] {
        let at = u128::from(place.ssrc) << 48 ^ u128::from(place.index);
        let mut nonce = [0; 12];
        for (to, (at, salt)) in
            nonce.iter_mut().zip(at.to_be_bytes().into_iter().skip(4).zip(self.salt))
        {
            *to = at ^ salt;
        }
        nonce
    }
}

impl Drop for Transform {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl Aes {
    fn apply(&self, counter: [u8; 16], body: &mut [u8]) {
        match self {
            Aes::Key128(aes) => apply(aes, counter, body),
            Aes::Key256(aes) => apply(aes, counter, body),
        }
    }
}

impl Gcm {
    fn seal(&self, nonce: [u8; 12], clear: &[u8], body: &mut [u8], to: &mut [u8]) -> Option<()> {
        let (nonce, body) = (&nonce.into(), body.into());
        let tag = match self {
            Gcm::Key128(gcm) => gcm.encrypt_inout_detached(nonce, clear, body),
            Gcm::Key256(gcm) => gcm.encrypt_inout_detached(nonce, clear, body),
        };
        to.copy_from_slice(&tag.ok()?);
        Some(())
    }

    fn open(&self, nonce: [u8; 12], clear: &[u8], body: &mut [u8], tag: &[u8]) -> Option<()> {
        let (nonce, body) = (&nonce.into(), body.into());
        let tag: [u8; 16] = tag.try_into().ok()?;
        let opened = match self {
            Gcm::Key128(gcm) => gcm.decrypt_inout_detached(nonce, clear, body, &tag.into()),
            Gcm::Key256(gcm) => gcm.decrypt_inout_detached(nonce, clear, body, &tag.into()),
        };
        opened.ok()
    }
}

/// Adds the key stream of AES in counter mode to `body`; `key` has 16 or 32 bytes.
pub(super) fn keystream(key: &[u8], counter: [u8; 16], body: &mut [u8]) {
    if let Ok(aes) = Aes128Enc::new_from_slice(key) {
        apply(&aes, counter, body);
    } else {
        let aes = Aes256Enc::new_from_slice(key).expect("a suite's key has 16 or 32 bytes");
        apply(&aes, counter, body);
    }
}

fn apply<C>(aes: &C, counter: [u8; 16], body: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    CtrCore::<&C, Ctr128BE>::inner_iv_init(aes, &counter.into())
        .apply_keystream_partial(body.into());
}

fn auth(keys: &SessionKeys) -> Hmac<Sha1> {
    KeyInit::new_from_slice(&keys.auth).expect("HMAC takes keys of any length")
}

fn write_tag(auth: &Hmac<Sha1>, parts: &[&[u8]], tag: &mut [u8]) {
    let mut auth = auth.clone();
    parts.iter().for_each(|part| auth.update(part));
    tag.iter_mut().zip(auth.finalize().into_bytes()).for_each(|(to, from)| *to = from);
}

/// In a time that does not depend on the tag.
fn check_tag(auth: &Hmac<Sha1>, parts: &[&[u8]], tag: &[u8]) -> Option<()> {
    let mut auth = auth.clone();
    parts.iter().for_each(|part| auth.update(part));
    auth.verify_truncated_left(tag).ok()
}

fn split_tail(packet: &mut [u8], bytes: usize) -> Option<(&mut [u8], &mut [u8])> {
    let at = packet.len().checked_sub(bytes)?;
    packet.split_at_mut_checked(at)
}

fn cut_mki(packet: &mut [u8], mki: Option<Mki>) -> Option<&mut [u8]> {
    let Some(mki) = mki else { return Some(packet) };
    let (packet, field) = split_tail(packet, mki.bytes())?;
    mki.is(field).then_some(packet)
}

/// What GCM authenticates of an RTCP packet beside its body (RFC 7714 §9.2).
fn with_word(clear: &[u8], word: [u8; 4]) -> [u8; RTCP_CLEAR_BYTES + INDEX_BYTES] {
    let mut both = [0; RTCP_CLEAR_BYTES + INDEX_BYTES];
    both.iter_mut().zip(clear.iter().chain(&word)).for_each(|(to, from)| *to = *from);
    both
}
