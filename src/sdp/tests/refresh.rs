//! Answers to our description when it goes out once more.

use super::*;
use crate::media::plan::Direction::{Inactive, RecvOnly, SendOnly, SendRecv};

/// We answered an offer of G.722 and PCMU with this direction.
fn agreed(direction: &str) -> OfferAnswer {
    let mut exchange = opened(5);
    let line = format!("a={direction}");
    let theirs =
        offer(&["m=audio 4000 RTP/AVP 9 0 101", "a=rtpmap:101 telephone-event/8000", &line]);
    exchange.answer(theirs.as_bytes(), &local()).expect("answered");
    exchange
}

#[test]
fn the_peer_may_move_hold_and_resume_in_its_answer() {
    for (held, lines, port, direction) in [
        ("sendrecv", &["m=audio 4000 RTP/AVP 9"][..], 4000, SendRecv),
        ("sendrecv", &["m=audio 5002 RTP/AVP 9 101"], 5002, SendRecv),
        ("sendrecv", &["m=audio 4000 RTP/AVP 9", "a=sendonly"], 4000, RecvOnly),
        ("sendrecv", &["m=audio 4000 RTP/AVP 9", "a=inactive"], 4000, Inactive),
        ("sendrecv", &["m=audio 4000 RTP/AVP 9", "a=recvonly"], 4000, SendOnly),
        // On hold by the peer we only listen: an answer opens no more than that.
        ("sendonly", &["m=audio 4000 RTP/AVP 9", "a=sendonly"], 4000, RecvOnly),
        ("sendonly", &["m=audio 4000 RTP/AVP 9", "a=sendrecv"], 4000, RecvOnly),
        ("inactive", &["m=audio 4000 RTP/AVP 9"], 4000, Inactive),
    ] {
        let mut exchange = agreed(held);
        let before = exchange.repeat();
        let read = exchange.accept_refresh(offer(lines).as_bytes(), &local()).expect("agreed");
        assert_eq!((read.codec.kind, read.direction), (G722, direction), "{held} {lines:?}");
        assert_eq!(read.remote.rtp.map(|at| at.port()), Some(port), "{held} {lines:?}");
        assert_eq!(exchange.repeat(), before, "our side stands");
    }
}

#[test]
fn another_codec_may_be_chosen_of_those_that_our_description_has() {
    // Our own offer had all of them; the refresh is that offer once more.
    let mut exchange = opened(5);
    exchange.offer(&local());
    let answer = offer(&["m=audio 4000 RTP/AVP 9"]);
    exchange.accept_answer(answer.as_bytes()).expect("agreed");
    let other = offer(&["m=audio 4000 RTP/AVP 0"]);
    let read = exchange.accept_refresh(other.as_bytes(), &local()).expect("agreed");
    assert_eq!(read.codec.kind, Pcmu);
    // An answer of ours has one.
    let read = agreed("sendrecv").accept_refresh(other.as_bytes(), &local());
    assert_eq!(read, Err(OfferFault::NoCommonCodec));
}

#[test]
fn what_is_no_answer_changes_nothing() {
    for answer in [
        offer(&["m=audio 0 RTP/AVP 9"]),
        offer(&["m=audio 4000 RTP/AVP 9", "m=video 0 RTP/AVP 96"]),
        offer(&["m=audio 4000 RTP/SAVP 9"]),
        "nonsense".to_owned(),
    ] {
        let mut exchange = agreed("sendrecv");
        let before = exchange.repeat();
        exchange.accept_refresh(answer.as_bytes(), &local()).expect_err(&answer);
        assert_eq!(exchange.repeat(), before);
    }
    let none = opened(5).accept_refresh(offer(&["m=audio 4000 RTP/AVP 9"]).as_bytes(), &local());
    assert_eq!(none, Err(OfferFault::AnswerMismatch), "nothing went out");
}

#[test]
fn an_offer_that_was_refused_leaves_what_was_agreed() {
    let mut exchange = agreed("sendrecv");
    let first = exchange.repeat().expect("it was sent");
    exchange.offer(&local());
    exchange.withdraw();
    assert!(!exchange.awaits_answer());
    assert_eq!(exchange.repeat(), Some(first.replace("o=- 5 1 IN", "o=- 5 3 IN")));
    let before = exchange.repeat();
    exchange.withdraw();
    assert_eq!(exchange.repeat(), before, "there is none");
}

#[test]
fn a_refresh_keeps_the_keys_unless_the_peer_changes_its_own() {
    let safe = LocalMedia {
        srtp: SrtpTerms { policy: SrtpPolicy::Allowed, keys_are_safe: true },
        ..local()
    };
    let key =
        |letter: &str| format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}", letter.repeat(40));
    let theirs = offer(&["m=audio 4000 RTP/SAVP 0", &key("A")]);
    let mut exchange = opened(5);
    let first = exchange.answer(theirs.as_bytes(), &safe).expect("answered").agreed.srtp;
    let same = exchange.accept_refresh(theirs.as_bytes(), &safe).expect("agreed").srtp;
    assert_eq!(same, first);
    let other = offer(&["m=audio 4000 RTP/SAVP 0", &key("B")]);
    let (first, other) = (first.expect("keys"), exchange.accept_refresh(other.as_bytes(), &safe));
    let other = other.expect("agreed").srtp.expect("keys");
    assert!(other.send == first.send && other.receive != first.receive);
}

/// Both sides' part of RTCP stands while both descriptions have it, whoever offered it first.
#[test]
fn rtcp_stays_as_it_was_agreed() {
    let theirs = ["m=audio 4000 RTP/AVP 0", "a=rtcp-mux", "a=rtcp-xr:voip-metrics"];
    let mut exchange = opened(5);
    let first = exchange.answer(offer(&theirs).as_bytes(), &local()).expect("answered").agreed;
    assert!(first.remote.rtcp_mux && first.control.extended.voip_metrics);
    let again = exchange.accept_refresh(offer(&theirs).as_bytes(), &local()).expect("agreed");
    assert_eq!((again.remote, again.control), (first.remote, first.control));
    let without = exchange.accept_refresh(offer(&theirs[..1]).as_bytes(), &local());
    let without = without.expect("agreed");
    assert!(!without.remote.rtcp_mux && !without.control.extended.voip_metrics);
    // Our own offer has neither.
    let mut exchange = opened(6);
    exchange.offer(&local());
    exchange.accept_answer(offer(&theirs).as_bytes()).expect("agreed");
    let again = exchange.accept_refresh(offer(&theirs).as_bytes(), &local()).expect("agreed");
    assert!(!again.remote.rtcp_mux && !again.control.extended.voip_metrics);
}
