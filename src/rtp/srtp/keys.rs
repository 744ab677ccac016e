//! Session keys out of a master key (RFC 3711 §4.3; RFC 6188 §3 for 256 bits; RFC 7714 §11 for the
//! shorter salt of GCM). The key derivation rate is zero: each key is derived once.

use super::suite::MasterKey;
use super::transform::keystream;
use zeroize::Zeroize;

/// Which of the two protocols a session key is for; the numbers are the labels of §4.3.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Rtp = 0,
    Rtcp = 3,
}

/// Bytes of the key of HMAC-SHA1 (RFC 3711 §5.2).
const AUTH_BYTES: usize = 20;

/// What the transform of one protocol and one direction works with. Wiped when it goes.
pub(super) struct SessionKeys {
    /// As long as the suite's key; the rest is zero.
    pub(super) key: [u8; 32],
    pub(super) auth: [u8; AUTH_BYTES],
    /// As long as the suite's salt; the rest is zero.
    pub(super) salt: [u8; 14],
}

impl SessionKeys {
    pub(super) fn derive(master: &MasterKey, protocol: Protocol) -> SessionKeys {
        let suite = master.suite();
        let mut keys = SessionKeys { key: [0; 32], auth: [0; AUTH_BYTES], salt: [0; 14] };
        let label = protocol as u8;
        expand(master, label, &mut keys.key[..suite.key_bytes()]);
        if !suite.is_aead() {
            expand(master, label + 1, &mut keys.auth);
        }
        expand(master, label + 2, &mut keys.salt[..suite.salt_bytes()]);
        keys
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.auth.zeroize();
        self.salt.zeroize();
    }
}

/// The pseudo-random function of §4.3.3: the key stream of AES in counter mode at the master salt with
/// the label in its eighth byte.
fn expand(master: &MasterKey, label: u8, out: &mut [u8]) {
    let mut start = [0; 16];
    start.iter_mut().zip(master.salt()).for_each(|(to, from)| *to = *from);
    start[7] ^= label;
    out.fill(0);
    keystream(master.key(), start, out);
}

#[cfg(test)]
mod tests {
    use super::super::suite::Suite;
    use super::super::tests::bytes;
    use super::*;

    fn check(suite: Suite, master: &str, label: u8, derived: &str) {
        let master = MasterKey::new(suite, &bytes(master)).expect("its length");
        let mut out = vec![0; bytes(derived).len()];
        expand(&master, label, &mut out);
        assert_eq!(out, bytes(derived), "{suite:?} label {label}");
    }

    /// RFC 3711 B.3.
    #[test]
    fn keys_are_derived_as_in_rfc_3711() {
        let master = "E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6";
        let suite = Suite::AesCm128HmacSha1_80;
        check(suite, master, 0, "C61E7A93744F39EE10734AFE3FF7A087");
        check(suite, master, 2, "30CBBC08863D8C85D49DB34A9AE1");
        check(
            suite,
            master,
            1,
            "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE
             E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25
             6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2",
        );
        let master = MasterKey::new(suite, &bytes(master)).expect("its length");
        let keys = SessionKeys::derive(&master, Protocol::Rtp);
        assert_eq!(keys.key[..16], bytes("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(keys.auth[..], bytes("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
        assert_eq!(keys.salt[..], bytes("30CBBC08863D8C85D49DB34A9AE1"));
    }

    /// RFC 6188 §7.2.
    #[test]
    fn keys_of_256_bits_are_derived_as_in_rfc_6188() {
        let master = "F0F04914B513F2763A1B1FA130F10E2998F6F6E43E4309D1E622A0E332B9F1B6
                      3B04803DE51EE7C96423AB5B78D2";
        let suite = Suite::AesCm256HmacSha1_80;
        check(suite, master, 0, "5BA1064E30EC51613CAD926C5A28EF731EC7FB397F70A960653CAF06554CD8C4");
        check(suite, master, 2, "FA31791685CA444A9E07C6C64E93");
    }
}
