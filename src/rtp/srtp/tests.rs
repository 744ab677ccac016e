//! Published vectors; `rtc-srtp` as the other end in both directions, over a network that loses,
//! repeats and reorders; changes of key and source; and forgeries by the thousand.

use super::*;
use crate::ground::Entropy;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::RTCCryptoProvider;
use rtc_srtp::protection_profile::ProtectionProfile;
use std::sync::Arc;

/// Hex digits, blanks between them.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hex")).collect()
}

/// RFC 3711 B.2: the key stream of a packet, its first blocks and those around the 65,280th.
#[test]
fn the_key_stream_is_that_of_rfc_3711() {
    let counter = bytes("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().expect("16 bytes");
    let mut stream = vec![0; 0xFF02 * 16];
    transform::keystream(&bytes("2B7E151628AED2A6ABF7158809CF4F3C"), counter, &mut stream);
    for (block, expected) in [
        (0, "E03EAD0935C95E80E166B16DD92B4EB4"),
        (1, "D23513162B02D0F72A43A2FE4A5F97AB"),
        (2, "41E95B3BB0A2E8DD477901E4FCA894C0"),
        (0xFEFF, "EC8CDF7398607CB0F2D21675EA9EA1E4"),
        (0xFF00, "362B7C3C6773516318A077D7FC5073AE"),
        (0xFF01, "6A2CC3787889374FBEB4C81B17BA6C44"),
    ] {
        assert_eq!(stream[block * 16..][..16], bytes(expected), "block {block:x}");
    }
}

/// A transform of the session keys in RFC 7714 §16 and §17.
fn gcm(suite: Suite) -> Transform {
    let mut keys = SessionKeys { key: [0; 32], auth: [0; 20], salt: [0; 14] };
    keys.key.iter_mut().zip(0..).take(suite.key_bytes()).for_each(|(to, byte)| *to = byte);
    keys.salt[..12].copy_from_slice(b"Quid pro quo");
    Transform::new(suite, &keys, 16)
}

#[test]
fn gcm_packets_are_those_of_rfc_7714() {
    let place = Place { ssrc: 0x5501_a0b2, index: 0xf17b };
    let plain = bytes(
        "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
                       69736120 696e2070 61727465 73207472 6573",
    );
    for (suite, protected) in [
        (
            Suite::AeadAes128Gcm,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f
             42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            Suite::AeadAes256Gcm,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3
             b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ] {
        let mut packet = plain.clone();
        packet.resize(plain.len() + 16, 0);
        let len = gcm(suite).protect_rtp(place, &mut packet, 12, plain.len());
        assert_eq!((len, &packet), (Some(packet.len()), &bytes(protected)), "{suite:?}");
        assert_eq!(gcm(suite).unprotect_rtp(place, &mut packet, 12, None), Some(plain.len()));
        assert_eq!(packet[..plain.len()], plain);
    }
}

#[test]
fn gcm_control_packets_are_those_of_rfc_7714() {
    let place = Place { ssrc: 0x4d61_7273, index: 0x5d4 };
    let plain = bytes(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                       deadbeef deadbeef deadbeef deadbeef deadbeef",
    );
    for (suite, protected) in [
        (
            Suite::AeadAes128Gcm,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1
             730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            Suite::AeadAes256Gcm,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1
             110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ] {
        let mut packet = plain.clone();
        packet.resize(plain.len() + 20, 0);
        let len = gcm(suite).protect_rtcp(place, &mut packet, plain.len());
        assert_eq!((len, &packet), (Some(packet.len()), &bytes(protected)), "{suite:?}");
        assert_eq!(gcm(suite).rtcp_index(&packet, None), Some(0x5d4));
        assert_eq!(gcm(suite).unprotect_rtcp(place, &mut packet, None), Some(plain.len()));
        assert_eq!(packet[..plain.len()], plain);
    }
    // §17.3: tagged only. It verifies, and was never agreed to.
    let clear = bytes(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                       deadbeef deadbeef deadbeef deadbeef deadbeef 841dd968 3dd78ec9 2ae58790
                       125f62b3 000005d4",
    );
    assert_eq!(gcm(Suite::AeadAes128Gcm).rtcp_index(&clear, None), None);
}

fn provider() -> Arc<dyn RTCCryptoProvider> {
    rtc_srtp::crypto::default_provider().expect("built in")
}

/// One direction of `rtc-srtp` with our master key; its replay windows are as ours.
fn other(key: &MasterKey) -> Context {
    let profile = match key.suite() {
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Suite::AesCm256HmacSha1_80 => ProtectionProfile::Aes256CmHmacSha1_80,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
    };
    let provider = provider();
    Context::new(key.key(), key.salt(), profile, None, None, provider.crypto())
        .expect("its lengths")
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8], odd: bool) -> Vec<u8> {
    let mut packet = vec![if odd { 0x91 } else { 0x80 }, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    if odd {
        // A contributing source and an extension of two words.
        packet.extend([1, 2, 3, 4, 0xBE, 0xDE, 0, 2, 0x10, 0xFF, 0, 0, 0, 0, 0, 0]);
    }
    packet.extend(payload);
    packet
}

fn rtcp(ssrc: u32, number: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend(ssrc.to_be_bytes());
    for word in [number, 2, 3, number * 160, number] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend([0x81, 202, 0, 2]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([1, 1, b'x', 0]);
    packet
}

/// Packets in the order of a bad network: some lost, some late by up to ten, some twice.
fn shuffled(count: u32, entropy: &mut Entropy) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = Vec::new();
    for number in 0..count {
        let times = match entropy.below(20) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..times {
            order.push((u64::from(number) + entropy.below(10), number));
        }
    }
    order.sort();
    order.into_iter().map(|(_, number)| number).collect()
}

fn keys(suite: Suite, entropy: &mut Entropy) -> [MasterKey; 2] {
    [(); 2].map(|()| MasterKey::draw(suite, entropy))
}

#[test]
fn another_implementation_reads_what_we_write_over_two_wraps() {
    for suite in Suite::ALL {
        let mut entropy = Entropy::from_number(1);
        let [ours, theirs] = keys(suite, &mut entropy);
        let (mut srtp, mut far) = (Srtp::new(&ours, &theirs, None), other(&ours));
        for number in 0..67_000_u32 {
            let sequence = (65_000 + number) as u16;
            let mut payload = vec![0; entropy.below(400) as usize];
            entropy.fill(&mut payload);
            let plain = rtp(0xABCD, sequence, &payload, number % 7 == 0);
            let mut packet = plain.clone();
            packet.resize(plain.len() + OVERHEAD_BYTES_MAX, 0);
            let len = srtp.protect_rtp(&mut packet, plain.len()).expect("protected");
            assert_eq!(len, plain.len() + suite.rtp_tag_bytes());
            // The other end loses most, since it is slow.
            if number % 50 < 2 {
                let read = far.decrypt_rtp(&packet[..len]).expect("it verifies");
                assert_eq!(read[..], plain, "{suite:?} {number}");
            }
            if number % 3_000 == 0 {
                let plain = rtcp(0xABCD, number);
                packet.resize(plain.len() + OVERHEAD_BYTES_MAX, 0);
                packet[..plain.len()].copy_from_slice(&plain);
                let len = srtp.protect_rtcp(&mut packet, plain.len()).expect("protected");
                let read = far.decrypt_rtcp(&packet[..len]).expect("it verifies");
                assert_eq!(read[..], plain, "{suite:?} {number}");
            }
        }
    }
}

#[test]
fn we_read_what_another_implementation_writes_over_a_bad_network() {
    for (seed, suite) in (0..).zip(Suite::ALL) {
        let mut entropy = Entropy::from_number(seed);
        let [ours, theirs] = keys(suite, &mut entropy);
        let (mut srtp, mut far) = (Srtp::new(&ours, &theirs, None), other(&theirs));
        let plain: Vec<_> = (0..5_000_u32)
            .map(|number| {
                let payload = [number as u8; 40];
                rtp(7, (63_000 + number) as u16, &payload[..number as usize % 40], number % 9 == 0)
            })
            .collect();
        let packets: Vec<_> =
            plain.iter().map(|packet| far.encrypt_rtp(packet).expect("encrypted")).collect();
        let mut read = vec![false; plain.len()];
        for number in shuffled(plain.len() as u32, &mut entropy) {
            let number = number as usize;
            let mut packet = packets[number].to_vec();
            match srtp.unprotect_rtp(&mut packet) {
                Ok(len) => {
                    assert_eq!(packet[..len], plain[number], "{suite:?} {number}");
                    assert!(!std::mem::replace(&mut read[number], true), "{number} came twice");
                }
                Err(fault) => {
                    assert_eq!(fault, SrtpFault::Replayed, "{suite:?} {number}");
                    assert!(read[number], "{number} was refused the first time");
                    assert_eq!(packet, packets[number], "it is left as it was");
                }
            }
        }
        let heard = read.iter().filter(|read| **read).count();
        assert!(heard > 4_650 && heard < 4_850, "{heard}");
        for number in 0..300 {
            let plain = rtcp(7, number);
            let packet = far.encrypt_rtcp(&plain).expect("encrypted");
            let mut read = packet.to_vec();
            let len = srtp.unprotect_rtcp(&mut read).expect("it verifies");
            assert_eq!(read[..len], plain, "{suite:?} {number}");
            assert_eq!(srtp.unprotect_rtcp(&mut packet.to_vec()), Err(SrtpFault::Replayed));
        }
    }
}

/// Both ends of ours, the second with the keys the other way about.
fn pair(suite: Suite, seed: u64) -> (Srtp, Srtp, [MasterKey; 2]) {
    let keys = keys(suite, &mut Entropy::from_number(seed));
    (Srtp::new(&keys[0], &keys[1], None), Srtp::new(&keys[1], &keys[0], None), keys)
}

fn protect(srtp: &mut Srtp, ssrc: u32, sequence: u16) -> Vec<u8> {
    let plain = rtp(ssrc, sequence, b"the payload of a packet", false);
    let mut packet = plain.clone();
    packet.resize(plain.len() + OVERHEAD_BYTES_MAX, 0);
    let len = srtp.protect_rtp(&mut packet, plain.len()).expect("protected");
    packet.truncate(len);
    packet
}

fn check(srtp: &mut Srtp, packet: &[u8], expected: Result<(), SrtpFault>) {
    let mut copy = packet.to_vec();
    let read = srtp.unprotect_rtp(&mut copy);
    assert_eq!(read.map(|_| ()), expected);
    if expected.is_err() {
        assert_eq!(copy, packet, "what is refused is left as it was");
    }
}

#[test]
fn the_rollover_counter_outlives_a_change_with_the_same_keys() {
    let (mut near, mut far, [ours, theirs]) = pair(Suite::AesCm128HmacSha1_80, 1);
    for sequence in [65_534, 65_535, 0, 1] {
        check(&mut near, &protect(&mut far, 5, sequence), Ok(()));
    }
    near.change(&ours, &theirs, None);
    far.change(&theirs, &ours, None);
    let old = protect(&mut far, 5, 2);
    check(&mut near, &old, Ok(()));
    near.change(&ours, &theirs, None);
    check(&mut near, &old, Err(SrtpFault::Replayed));
}

#[test]
fn another_key_starts_anew_and_packets_of_the_old_one_count_until_its_first() {
    let (mut near, mut far, _) = pair(Suite::AesCm128HmacSha1_80, 2);
    for sequence in [65_535, 0, 1] {
        check(&mut near, &protect(&mut far, 5, sequence), Ok(()));
    }
    let on_its_way = [2, 3].map(|sequence| protect(&mut far, 5, sequence));
    let [fresh, also] = keys(Suite::AeadAes256Gcm, &mut Entropy::from_number(3));
    near.change(&fresh, &also, None);
    far.change(&also, &fresh, None);
    check(&mut near, &on_its_way[0], Ok(()));
    check(&mut near, &on_its_way[0], Err(SrtpFault::Replayed));
    // The counter of the new key is zero again, as a new context of the other end has it.
    let packet = other(&also).encrypt_rtp(&rtp(5, 4, b"new", false)).expect("encrypted");
    check(&mut near, &packet, Ok(()));
    check(&mut near, &on_its_way[1], Err(SrtpFault::Forged));
    check(&mut far, &protect(&mut near, 6, 1), Ok(()));
}

#[test]
fn the_first_packet_may_come_after_a_wrap() {
    let (mut near, mut far, _) = pair(Suite::AeadAes128Gcm, 4);
    let lost = protect(&mut far, 5, 65_500);
    check(&mut near, &protect(&mut far, 5, 3), Ok(()));
    check(&mut near, &lost, Ok(()));
    check(&mut near, &protect(&mut far, 5, 4), Ok(()));
}

#[test]
fn sources_are_bounded_and_the_current_one_stays() {
    let (mut near, mut far, _) = pair(Suite::AesCm128HmacSha1_32, 5);
    for sequence in [65_535, 0] {
        check(&mut near, &protect(&mut far, 0, sequence), Ok(()));
    }
    for ssrc in 1..100 {
        check(&mut near, &protect(&mut far, ssrc, 9), Ok(()));
        check(&mut near, &protect(&mut far, 0, ssrc as u16), Ok(()));
    }
    assert_eq!(near.receiver.sources.0.len(), SOURCES_MAX);
    assert_eq!(far.sender.sources.0.len(), SOURCES_MAX);
}

#[test]
fn no_key_stream_is_used_twice() {
    let (_, mut far, _) = pair(Suite::AeadAes128Gcm, 6);
    let mut packet = rtp(5, 100, b"speech", false);
    packet.resize(64, 0);
    for (sequence, sent) in [
        (100, true),
        (100, false),
        (99, true),
        (99, false),
        (101, true),
        (65_000, false),
        (30_000, true),
        (101, false),
        (102, false),
        (29_990, true),
        (29_990, false),
        (30_000, false),
    ] {
        packet[2..4].copy_from_slice(&u16::to_be_bytes(sequence));
        let len = far.protect_rtp(&mut packet.clone(), 18);
        assert_eq!(len, if sent { Ok(34) } else { Err(SrtpFault::Unprotectable) }, "{sequence}");
    }
    assert_eq!(far.protect_rtp(&mut packet[..33], 18), Err(SrtpFault::Unprotectable));
    assert_eq!(far.protect_rtp(&mut packet[..11], 11), Err(SrtpFault::Malformed));
    far.sender.sources.hear(9).rtcp = Some(RTCP_INDEX_MAX - 1);
    for sent in [true, false] {
        let mut packet = rtcp(9, 1);
        let len = packet.len();
        packet.resize(len + OVERHEAD_BYTES_MAX, 0);
        assert_eq!(far.protect_rtcp(&mut packet, len).is_ok(), sent);
    }
}

/// Puts the identifier of a key where RFC 3711 and RFC 7714 have it.
fn with_mki(packet: &[u8], suite: Suite, tag_bytes: usize, mki: &[u8]) -> Vec<u8> {
    let behind = if suite.is_aead() { 0 } else { tag_bytes };
    let (before, after) = packet.split_at(packet.len() - behind);
    [before, mki, after].concat()
}

#[test]
fn a_key_identifier_that_was_announced_is_expected() {
    for suite in Suite::ALL {
        let [ours, theirs] = keys(suite, &mut Entropy::from_number(7));
        let mut near = Srtp::new(&ours, &theirs, Mki::new(1, 4));
        let mut far = Srtp::new(&theirs, &ours, None);
        let tag = suite.rtp_tag_bytes();
        let packet = protect(&mut far, 5, 1);
        check(&mut near, &packet, Err(SrtpFault::Forged));
        check(&mut near, &with_mki(&packet, suite, tag, &[0, 0, 0, 2]), Err(SrtpFault::Forged));
        check(&mut near, &with_mki(&packet, suite, tag, &[0, 0, 0, 1]), Ok(()));
        let mut plain = rtcp(5, 1);
        let len = plain.len();
        plain.resize(len + OVERHEAD_BYTES_MAX, 0);
        let end = far.protect_rtcp(&mut plain, len).expect("protected");
        let tag = suite.rtcp_tag_bytes();
        let mut marked = with_mki(&plain[..end], suite, tag, &[0, 0, 0, 1]);
        assert_eq!(near.unprotect_rtcp(&mut marked), Ok(len), "{suite:?}");
        assert_eq!(marked[..len], rtcp(5, 1));
    }
}

/// One packet, damaged in a random way; never the packet itself.
fn damaged(packet: &[u8], entropy: &mut Entropy) -> Vec<u8> {
    loop {
        let mut forged = packet.to_vec();
        for _ in 0..=entropy.below(3) {
            let at = entropy.below(forged.len() as u64) as usize;
            match entropy.below(5) {
                0 => forged[at] ^= 1 << entropy.below(8),
                1 => forged.truncate(at.max(1)),
                2 => forged.insert(at, entropy.u32() as u8),
                3 => {
                    let tail = entropy.below(24) as usize;
                    forged.extend(std::iter::repeat_n(entropy.u32() as u8, tail));
                }
                _ => entropy.fill(&mut forged[at..]),
            }
        }
        if forged != packet {
            return forged;
        }
    }
}

#[test]
fn forged_packets_never_pass_and_change_nothing() {
    for (seed, suite) in (0..).zip(Suite::ALL) {
        let mut entropy = Entropy::from_number(seed);
        let (mut near, mut far, _) = pair(suite, seed);
        for round in 0..40_u16 {
            let (next, mut control) = (protect(&mut far, 5, round), rtcp(5, round.into()));
            let len = control.len();
            control.resize(len + OVERHEAD_BYTES_MAX, 0);
            let end = far.protect_rtcp(&mut control, len).expect("protected");
            control.truncate(end);
            let before = near.receiver.sources.0.clone();
            for _ in 0..500 {
                let forged = damaged(&next, &mut entropy);
                let mut copy = forged.clone();
                assert!(near.unprotect_rtp(&mut copy).is_err(), "{suite:?} seed {seed}");
                assert_eq!(copy, forged);
                let forged = damaged(&control, &mut entropy);
                let mut copy = forged.clone();
                assert!(near.unprotect_rtcp(&mut copy).is_err(), "{suite:?} seed {seed}");
                assert_eq!(copy, forged);
            }
            assert_eq!(near.receiver.sources.0, before);
            check(&mut near, &next, Ok(()));
            assert_eq!(near.unprotect_rtcp(&mut control), Ok(len));
        }
    }
}
