//! Media keys in offers and answers: what is taken under which terms, and when keys change.

use super::super::crypto::Crypto;
use super::*;
use crate::media::plan::SrtpPlan;
use crate::rtp::srtp::{Mki, Suite};

const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
const OTHER_KEY: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";

fn terms(policy: SrtpPolicy, keys_are_safe: bool) -> LocalMedia {
    LocalMedia { srtp: SrtpTerms { policy, keys_are_safe }, ..local() }
}

fn safe() -> LocalMedia {
    terms(SrtpPolicy::Allowed, true)
}

fn line(tag: u32, suite: &str, key: &str) -> String {
    format!("a=crypto:{tag} {suite} inline:{key}")
}

fn at_80(tag: u32, key: &str) -> String {
    line(tag, "AES_CM_128_HMAC_SHA1_80", key)
}

/// Profile and keys of each section of a text of ours.
fn sections(text: &str) -> Vec<(String, u16, Vec<Crypto>)> {
    let session = text::parse(text.as_bytes()).expect("ours is readable");
    let section = |section: &text::MediaSection| {
        let lines = section.attributes.all("crypto").map(Crypto::parse);
        let lines = lines.collect::<Option<_>>().expect("ours are all readable");
        (section.proto.clone(), section.port, lines)
    };
    session.media.iter().map(section).collect()
}

/// What the answer to `lines` is: profile, suite and tag of the section taken; the plan has the keys of
/// both texts.
fn taken(lines: &[&str], local: &LocalMedia) -> Result<(usize, Option<(Suite, u32)>), OfferFault> {
    let text = offer(lines);
    let answered = opened(1).answer(text.as_bytes(), local)?;
    let (ours, theirs) = (sections(&answered.text), text::parse(text.as_bytes()).expect("read"));
    let at = ours.iter().position(|(_, port, _)| *port != 0).expect("one is taken");
    let (proto, _, crypto) = &ours[at];
    assert_eq!(*proto, theirs.media[at].proto);
    let lines = theirs.media[at].attributes.all("crypto");
    let lines: Vec<_> = lines.filter_map(Crypto::parse).collect();
    assert!(crypto.len() <= 1, "an answer has one line");
    let Some(ours) = crypto.first() else {
        assert_eq!(answered.agreed.srtp, None);
        return Ok((at, None));
    };
    let theirs = lines.iter().find(|line| line.tag == ours.tag).expect("a tag of the offer's");
    assert_eq!(theirs.key.suite(), ours.key.suite());
    let (send, receive, mki) = (ours.key.clone(), theirs.key.clone(), theirs.mki);
    assert_ne!(send, receive);
    assert_eq!(answered.agreed.srtp, Some(SrtpPlan { send, receive, mki }));
    Ok((at, Some((ours.key.suite(), ours.tag))))
}

#[test]
fn the_terms_decide_what_an_offer_comes_to() {
    use SrtpPolicy::{Allowed, Off, Required};
    let keys = at_80(7, KEY);
    let sdes = ["m=audio 4000 RTP/SAVP 0", &keys];
    let best_effort = ["m=audio 4000 RTP/AVP 0", &keys];
    let plain = ["m=audio 4000 RTP/AVP 0"];
    let weak = format!("{keys} UNENCRYPTED_SRTP");
    let weak = ["m=audio 4000 RTP/SAVPF 0", &weak];
    let dtls = ["m=audio 4000 UDP/TLS/RTP/SAVP 0", "a=fingerprint:sha-256 AB", &keys];
    let encrypted = Ok((0, Some((Suite::AesCm128HmacSha1_80, 7))));
    for (policy, is_safe, lines, expected) in [
        (Off, true, &sdes[..], Err(OfferFault::EncryptedOnly)),
        (Off, true, &best_effort, Ok((0, None))),
        (Off, true, &plain, Ok((0, None))),
        (Off, true, &dtls, Err(OfferFault::EncryptedOnly)),
        (Allowed, true, &sdes, encrypted.clone()),
        (Allowed, true, &best_effort, encrypted.clone()),
        (Allowed, true, &plain, Ok((0, None))),
        (Allowed, true, &weak, Err(OfferFault::NoUsableKeys)),
        (Allowed, true, &dtls, Err(OfferFault::NoUsableKeys)),
        (Allowed, false, &sdes, Err(OfferFault::KeysInClear)),
        (Allowed, false, &best_effort, Ok((0, None))),
        (Allowed, false, &plain, Ok((0, None))),
        (Required, true, &sdes, encrypted.clone()),
        (Required, true, &best_effort, encrypted.clone()),
        (Required, true, &plain, Err(OfferFault::PlainOnly)),
        (Required, true, &weak, Err(OfferFault::NoUsableKeys)),
        (Required, true, &dtls, Err(OfferFault::NoUsableKeys)),
        (Required, false, &sdes, Err(OfferFault::KeysInClear)),
        (Required, false, &best_effort, Err(OfferFault::KeysInClear)),
        (Required, false, &plain, Err(OfferFault::PlainOnly)),
    ] {
        let found = taken(lines, &terms(policy, is_safe));
        assert_eq!(found, expected, "{policy:?} {is_safe} {lines:?}");
    }
}

#[test]
fn the_first_line_that_we_can_do_is_taken_and_an_encrypted_section_before_a_plain_one() {
    let (first, second) = (at_80(1, KEY), line(2, "AES_CM_128_HMAC_SHA1_32", OTHER_KEY));
    let unknown = line(1, "F8_128_HMAC_SHA1_80", KEY);
    let gcm = line(9, "AEAD_AES_256_GCM", &"A".repeat(59));
    let mki = format!("{first}|2^31|1:1");
    let (at_80, at_32) = (Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32);
    for (lines, expected) in [
        (vec!["m=audio 4000 RTP/SAVP 0", &first, &second], (0, Some((at_80, 1)))),
        (vec!["m=audio 4000 RTP/SAVP 0", &unknown, &second], (0, Some((at_32, 2)))),
        (vec!["m=audio 4000 RTP/SAVPF 0", &gcm], (0, Some((Suite::AeadAes256Gcm, 9)))),
        (vec!["m=audio 4000 RTP/SAVP 0", &mki], (0, Some((at_80, 1)))),
        (vec!["m=audio 4000 RTP/AVP 0", "m=audio 4000 RTP/SAVP 0", &first], (1, Some((at_80, 1)))),
        (vec!["m=audio 4000 RTP/SAVP 0", &first, "m=audio 4000 RTP/AVP 0"], (0, Some((at_80, 1)))),
        (vec!["m=audio 4000 RTP/SAVP 18", &first, "m=audio 4000 RTP/AVP 0"], (1, None)),
        (vec!["m=audio 4000 RTP/SAVP 0", "m=audio 4000 RTP/AVP 0"], (1, None)),
    ] {
        assert_eq!(taken(&lines, &safe()), Ok(expected), "{lines:?}");
    }
    let codec = taken(&["m=audio 4000 RTP/SAVP 18", &first], &safe());
    assert_eq!(codec, Err(OfferFault::NoCommonCodec));
    let required = terms(SrtpPolicy::Required, true);
    let both = ["m=audio 4000 RTP/SAVP 18", &first, "m=audio 4000 RTP/AVP 0"];
    assert_eq!(taken(&both, &required), Err(OfferFault::NoCommonCodec));
}

fn answer(exchange: &mut OfferAnswer, lines: &[&str]) -> SrtpPlan {
    let answered = exchange.answer(offer(lines).as_bytes(), &safe()).expect("an answer");
    answered.agreed.srtp.expect("it is encrypted")
}

#[test]
fn keys_stay_with_the_peers_and_change_with_them() {
    let mut exchange = opened(1);
    let (first, later) = (at_80(1, KEY), at_80(4, KEY));
    let begun = answer(&mut exchange, &["m=audio 4000 RTP/SAVP 0", &first]);
    let again = answer(&mut exchange, &["m=audio 4000 RTP/SAVP 0", &first, "a=sendonly"]);
    assert_eq!(again, begun);
    let other_tag = answer(&mut exchange, &["m=audio 4000 RTP/SAVP 0", &later]);
    assert_eq!(other_tag, begun);
    let changed = answer(&mut exchange, &["m=audio 4000 RTP/SAVP 0", &at_80(1, OTHER_KEY)]);
    assert!(changed.send != begun.send && changed.receive != begun.receive);
    let broken = exchange.answer(offer(&["m=audio 4000 RTP/SAVP 0"]).as_bytes(), &safe());
    assert_eq!(broken, Err(OfferFault::NoUsableKeys));
    let again = answer(&mut exchange, &["m=audio 4000 RTP/SAVP 0", &at_80(1, OTHER_KEY)]);
    assert_eq!(again, changed, "what fails leaves the keys as they were");
    let text = exchange.offer(&safe());
    let [(proto, _, lines)] = &sections(&text)[..] else { panic!("one section") };
    assert_eq!(proto, "RTP/SAVP");
    assert_eq!(lines.iter().map(|line| &line.key).collect::<Vec<_>>(), [&changed.send]);
    let back = offer(&["m=audio 4000 RTP/SAVP 0", &at_80(1, KEY)]);
    let agreed = exchange.accept_answer(back.as_bytes()).expect("it fits").srtp;
    assert_eq!(agreed, Some(SrtpPlan { send: changed.send, ..begun }));
}

#[test]
fn our_offer_has_every_suite_and_its_answer_one() {
    for (policy, is_safe, expected) in [
        (SrtpPolicy::Off, true, ("RTP/AVP", 0)),
        (SrtpPolicy::Allowed, false, ("RTP/AVP", 0)),
        (SrtpPolicy::Allowed, true, ("RTP/AVP", 5)),
        (SrtpPolicy::Required, true, ("RTP/SAVP", 5)),
    ] {
        let local = terms(policy, is_safe);
        assert_eq!(local.srtp.may_offer(), Ok(()));
        let text = opened(3).offer(&local);
        let [(proto, _, lines)] = &sections(&text)[..] else { panic!("one section") };
        assert_eq!((proto.as_str(), lines.len()), expected);
        assert!(lines.iter().zip(Suite::ALL).all(|(line, suite)| line.key.suite() == suite));
    }
    let unsafe_terms = SrtpTerms { policy: SrtpPolicy::Required, keys_are_safe: false };
    assert_eq!(unsafe_terms.may_offer(), Err(OfferFault::KeysInClear));
}

#[test]
fn an_answer_takes_a_line_of_ours_or_none() {
    use SrtpPolicy::{Allowed, Required};
    let at_80 = at_80(4, KEY);
    let marked = format!("{at_80}|1:4");
    let other_suite = line(1, "AES_CM_128_HMAC_SHA1_80", KEY);
    let unknown_tag = line(6, "AES_CM_128_HMAC_SHA1_80", KEY);
    let mismatch = Err(OfferFault::AnswerMismatch);
    for (policy, lines, expected) in [
        (Allowed, vec!["m=audio 4000 RTP/AVP 0", &at_80], Ok(Some(None))),
        (Allowed, vec!["m=audio 4000 RTP/SAVP 0", &at_80], Ok(Some(None))),
        (Allowed, vec!["m=audio 4000 RTP/AVP 0", &marked], Ok(Some(Mki::new(1, 4)))),
        (Allowed, vec!["m=audio 4000 RTP/AVP 0"], Ok(None)),
        (Allowed, vec!["m=audio 4000 RTP/AVP 0", &unknown_tag], Ok(None)),
        (Allowed, vec!["m=audio 4000 RTP/SAVP 0"], mismatch.clone()),
        (Required, vec!["m=audio 4000 RTP/SAVP 0", &at_80], Ok(Some(None))),
        (Required, vec!["m=audio 4000 RTP/SAVP 0", &other_suite], mismatch.clone()),
        (Required, vec!["m=audio 4000 RTP/SAVP 0", &unknown_tag], mismatch.clone()),
        (Required, vec!["m=audio 4000 RTP/AVP 0"], Err(OfferFault::PlainOnly)),
        (Required, vec!["m=audio 4000 RTP/SAVP 0"], mismatch),
    ] {
        let mut exchange = opened(5);
        let ours = sections(&exchange.offer(&terms(policy, true)));
        let agreed = exchange.accept_answer(offer(&lines).as_bytes());
        let found = agreed.map(|agreed| agreed.srtp.map(|plan| (plan.send, plan.mki)));
        let ours = &ours[0].2[3].key;
        let expected = expected.map(|mki| mki.map(|mki| (ours.clone(), mki)));
        assert_eq!(found, expected, "{policy:?} {lines:?}");
        assert_eq!(exchange.offered(), None, "answered or not, the offer is done with");
    }
}

#[test]
fn nothing_prints_a_key() {
    let mut exchange = opened(1);
    let text = offer(&["m=audio 4000 RTP/SAVP 0", &at_80(1, KEY)]);
    let answered = exchange.answer(text.as_bytes(), &safe()).expect("an answer");
    let ours = &sections(&answered.text)[0].2[0];
    let ours = ours.write().split(':').next_back().expect("a key").to_owned();
    let session = text::parse(text.as_bytes()).expect("readable");
    let printed = format!("{answered:?} {exchange:?} {session:?}");
    assert!(printed.contains("***") && !printed.contains(KEY) && !printed.contains(&ours));
    exchange.offer(&safe());
    let printed = format!("{exchange:?}");
    assert!(!printed.contains(KEY) && !printed.contains(&ours), "{printed}");
}
