//! Offer/answer as text in, text out; the fixtures of `fixtures/sdp`; generated offers against a
//! second reading of RFC 3264 §6; and hostile bodies.

mod codecs;

use super::*;
use crate::codec::CodecKind::{self, G722, Opus, Pcma, Pcmu};
use crate::ground::Entropy;
use crate::media::plan::Direction;
use std::collections::BTreeMap;
use std::net::SocketAddr;

mod own;
mod refresh;
mod srtp;

fn local() -> LocalMedia {
    LocalMedia {
        address: "203.0.113.1".parse().expect("address"),
        port: 30_000,
        ptime_ms: 20,
        codecs: vec![Opus, G722, Pcmu, Pcma],
        telephone_event: true,
        opus_fec: true,
        extended: Default::default(),
        silence_suppression: false,
        srtp: SrtpTerms::default(),
        own: Default::default(),
    }
}

fn opened(session_id: u64) -> OfferAnswer {
    OfferAnswer::new(session_id, &mut Entropy::from_number(session_id))
}

fn body(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

const HEAD: [&str; 5] =
    ["v=0", "o=- 1 1 IN IP4 198.51.100.7", "s=-", "c=IN IP4 198.51.100.7", "t=0 0"];

fn offer(lines: &[&str]) -> String {
    body(&[&HEAD, lines].concat())
}

/// The lines of the answer after its session part, and what was agreed.
fn check(lines: &[&str], answer: &[&str]) -> Agreed {
    let mut exchange = opened(77);
    let answered = exchange.answer(offer(lines).as_bytes(), &local()).expect("an answer");
    let head = ["v=0", "o=- 77 1 IN IP4 203.0.113.1", "s=-", "c=IN IP4 203.0.113.1", "t=0 0"];
    assert_eq!(answered.text, body(&[&head, answer].concat()));
    answered.agreed
}

fn check_fault(lines: &[&str], fault: OfferFault) {
    let answered = opened(77).answer(offer(lines).as_bytes(), &local());
    assert_eq!(answered, Err(fault), "{lines:?}");
}

#[test]
fn an_ordinary_offer_gets_a_tidy_answer() {
    let agreed = check(
        &[
            "m=audio 4000 RTP/AVP 8 0 18 101",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-16",
        ],
        &[
            "m=audio 30000 RTP/AVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-15",
            "a=ptime:20",
            "a=sendrecv",
        ],
    );
    assert_eq!((agreed.codec.kind, agreed.direction), (Pcmu, Direction::SendRecv));
    assert_eq!(agreed.remote.rtp, "198.51.100.7:4000".parse().ok());
    assert_eq!(agreed.remote.rtcp, "198.51.100.7:4001".parse().ok());
}

#[test]
fn extended_reports_are_answered_where_they_are_offered_and_offered_where_that_is_configured() {
    let answer = |line: &str| {
        let mut lines = vec!["m=audio 30000 RTP/AVP 0", "a=rtpmap:0 PCMU/8000"];
        lines.extend(["a=ptime:20", "a=sendrecv"]);
        lines.extend((!line.is_empty()).then_some(line));
        lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()
    };
    let plain = "m=audio 4000 RTP/AVP 0";
    for (line, expected) in [
        ("a=rtcp-xr:voip-metrics pkt-loss-rle", "a=rtcp-xr:voip-metrics"),
        ("a=rtcp-xr:pkt-loss-rle=200", ""),
        ("a=rtcp-xr", ""),
        (
            "a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics",
            "a=rtcp-xr:voip-metrics stat-summary=loss,dup,jitt rcvr-rtt=all",
        ),
    ] {
        let expected = answer(expected);
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        let agreed = check(&[plain, line], &expected);
        assert_eq!(agreed.control.extended.is_empty(), expected.len() == 4, "{line}");
    }
    let whole = "a=rtcp-xr:voip-metrics stat-summary=loss,dup,jitt rcvr-rtt=all";
    for (extended, offered, answered) in [
        (ExtendedReports::Off, false, false),
        (ExtendedReports::Answered, false, false),
        (ExtendedReports::Offered, true, true),
    ] {
        let local = LocalMedia { extended, ..local() };
        let mut exchange = opened(77);
        assert_eq!(exchange.offer(&local).contains(whole), offered, "{extended:?}");
        let answer = offer(&[plain, "a=rtcp-xr:voip-metrics"]);
        let agreed = exchange.accept_answer(answer.as_bytes()).expect("it fits");
        assert_eq!(agreed.control.extended.voip_metrics, answered, "{extended:?}");
        assert!(!agreed.control.extended.summary);
        let theirs = offer(&[plain, "a=rtcp-xr:voip-metrics"]);
        let answered = opened(78).answer(theirs.as_bytes(), &local).expect("an answer");
        let named = answered.text.contains("a=rtcp-xr:voip-metrics\r\n");
        assert_eq!(named, extended != ExtendedReports::Off);
    }
}

#[test]
fn the_bandwidth_of_rtcp_is_read_where_both_halves_are_given() {
    for (session, media, bits_per_s) in [
        (&[][..], &["b=AS:64"][..], None),
        (&["b=RS:0", "b=RR:0"], &[], Some(0)),
        (&["b=RS:0", "b=RR:0"], &["b=RR:800"], Some(800)),
        (&[], &["b=RS:600", "b=RR:2000"], Some(2_600)),
        (&[], &["b=RR:0"], None),
        (&[], &["b=RS:4294967295", "b=RR:9"], Some(u32::MAX)),
        (&[], &["b=RS:99999999999", "b=RR:9"], None),
        (&[], &["b=RS:x", "b=RR:", "b=nonsense"], None),
    ] {
        let lines = [session, &["m=audio 4000 RTP/AVP 0"], media].concat();
        let answered = opened(1).answer(offer(&lines).as_bytes(), &local()).expect("an answer");
        assert_eq!(answered.agreed.control.bits_per_s, bits_per_s, "{lines:?}");
        assert!(!answered.text.contains("b="), "{}", answered.text);
    }
}

#[test]
fn comfort_noise_is_answered_where_it_is_offered_in_the_codecs_clock() {
    let noise = |agreed: &Agreed| {
        agreed
            .pauses
            .comfort_noise
            .map(|noise| (noise.send_payload_type, noise.receive_payload_type))
    };
    let narrow = ["a=rtpmap:0 PCMU/8000", "a=rtpmap:13 CN/8000", "a=ptime:20", "a=sendrecv"];
    let lines = [&["m=audio 30000 RTP/AVP 0 13"], &narrow[..]].concat();
    let agreed = check(&["m=audio 4000 RTP/AVP 18 0 13"], &lines);
    assert_eq!((noise(&agreed), agreed.pauses.suppress), (Some((13, 13)), false));
    let agreed = check(
        &["m=audio 4000 RTP/AVP 0 19"],
        &[
            "m=audio 30000 RTP/AVP 0 19",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:19 CN/8000",
            "a=ptime:20",
            "a=sendrecv",
        ],
    );
    assert_eq!(noise(&agreed), Some((19, 19)), "the number that it had before");
    // Opus has pauses of its own, and a wider clock is another one.
    for lines in [
        &["m=audio 4000 RTP/AVP 96 13", "a=rtpmap:96 opus/48000/2"][..],
        &["m=audio 4000 RTP/AVP 96 97", "a=rtpmap:96 opus/48000/2", "a=rtpmap:97 CN/48000"],
        &["m=audio 4000 RTP/AVP 0 97", "a=rtpmap:97 CN/16000"],
    ] {
        let answered = opened(77).answer(offer(lines).as_bytes(), &local()).expect("an answer");
        assert_eq!(noise(&answered.agreed), None, "{lines:?}");
        assert!(!answered.text.contains("CN/"), "{}", answered.text);
    }
    let wide = LocalMedia { codecs: vec![CodecKind::G7221], ..local() };
    let lines = [
        "m=audio 4000 RTP/AVP 102 13 97",
        "a=rtpmap:102 G7221/16000",
        "a=fmtp:102 bitrate=32000",
        "a=rtpmap:97 CN/16000",
    ];
    let answered = opened(77).answer(offer(&lines).as_bytes(), &wide).expect("an answer");
    assert_eq!(noise(&answered.agreed), Some((97, 97)));
}

#[test]
fn comfort_noise_is_offered_where_pauses_are_to_be_told() {
    let codecs = vec![Opus, CodecKind::G7221, Pcmu];
    let telling = LocalMedia { codecs, silence_suppression: true, ..local() };
    let mut exchange = opened(77);
    let text = exchange.offer(&telling);
    assert!(text.contains("a=rtpmap:13 CN/8000\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:105 CN/16000\r\n"), "{text}");
    assert!(!text.contains("CN/48000"), "{text}");
    let answer = offer(&["m=audio 4000 RTP/AVP 0 118", "a=rtpmap:118 CN/8000"]);
    let agreed = exchange.accept_answer(answer.as_bytes()).expect("agreed");
    let noise = agreed.pauses.comfort_noise.expect("noise");
    assert_eq!((noise.send_payload_type, noise.receive_payload_type), (118, 13));
    assert!(agreed.pauses.suppress);
    let silent = LocalMedia { silence_suppression: false, ..telling };
    assert!(!opened(77).offer(&silent).contains("CN/"));
}

#[test]
fn opus_keeps_its_number_and_takes_the_events_at_its_clock() {
    let agreed = check(
        &[
            "m=audio 4000 RTP/AVPF 102 9 101 103",
            "a=fmtp:102 useinbandfec=1; maxptime=40",
            "a=rtpmap:102 opus/48000/2",
            "a=rtpmap:101 telephone-event/8000",
            "a=rtpmap:103 telephone-event/48000",
            "a=rtcp:5001 IN IP4 198.51.100.9",
            "a=rtcp-mux",
        ],
        &[
            "m=audio 30000 RTP/AVPF 102 103",
            "a=rtpmap:102 opus/48000/2",
            "a=fmtp:102 minptime=10;useinbandfec=1",
            "a=rtpmap:103 telephone-event/48000",
            "a=fmtp:103 0-15",
            "a=ptime:20",
            "a=sendrecv",
            "a=rtcp-mux",
        ],
    );
    assert!(agreed.codec.fec && agreed.remote.rtcp_mux);
    assert_eq!(agreed.remote.rtcp, agreed.remote.rtp);
    assert_eq!(agreed.maxptime_ms, Some(40));
    assert_eq!(agreed.telephone_event.map(|event| event.clock_hz), Some(48_000));
}

#[test]
fn sections_keep_their_order_and_all_but_one_are_refused() {
    check(
        &[
            "m=video 5000 RTP/AVP 96 97",
            "m=audio 4000 RTP/SAVP 0",
            "m=audio 4002 RTP/AVP 18",
            "m=audio 4004/2 RTP/AVP 8",
            "m=audio 4006 RTP/AVP 0",
            "m=image 6000 udptl t38",
            "m=application 9 TCP/BFCP *",
        ],
        &[
            "m=video 0 RTP/AVP 96",
            "m=audio 0 RTP/SAVP 0",
            "m=audio 0 RTP/AVP 18",
            "m=audio 30000 RTP/AVP 8",
            "a=rtpmap:8 PCMA/8000",
            "a=ptime:20",
            "a=sendrecv",
            "m=audio 0 RTP/AVP 0",
            "m=image 0 udptl t38",
            "m=application 0 TCP/BFCP *",
        ],
    );
}

#[test]
fn direction_is_mirrored_and_a_held_address_is_never_sent_to() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    for (connection, direction, ours, word) in [
        ("198.51.100.7", "a=sendrecv", SendRecv, "sendrecv"),
        ("198.51.100.7", "a=sendonly", RecvOnly, "recvonly"),
        ("198.51.100.7", "a=recvonly", SendOnly, "sendonly"),
        ("198.51.100.7", "a=inactive", Inactive, "inactive"),
        ("0.0.0.0", "a=sendrecv", RecvOnly, "recvonly"),
        ("0.0.0.0", "a=sendonly", RecvOnly, "recvonly"),
        ("0.0.0.0", "a=recvonly", Inactive, "inactive"),
        ("0.0.0.0", "a=inactive", Inactive, "inactive"),
    ] {
        let connection = format!("c=IN IP4 {connection}");
        let lines = ["m=audio 4000 RTP/AVP 0", connection.as_str(), direction];
        let word = format!("a={word}");
        let agreed = check(
            &lines,
            &["m=audio 30000 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=ptime:20", word.as_str()],
        );
        assert_eq!(agreed.direction, ours, "{lines:?}");
        assert_eq!(agreed.remote.rtp.is_none(), connection.ends_with("0.0.0.0"));
    }
}

#[test]
fn a_direction_of_the_session_applies_where_the_section_says_nothing() {
    let check = |session: &str, media: &str, direction| {
        let lines = [session, "m=audio 4000 RTP/AVP 0", media];
        let answered = opened(1).answer(offer(&lines).as_bytes(), &local());
        assert_eq!(answered.map(|answered| answered.agreed.direction), Ok(direction));
    };
    check("a=sendonly", "a=label:1", Direction::RecvOnly);
    check("a=sendonly", "a=sendrecv", Direction::SendRecv);
}

#[test]
fn packets_have_a_length_that_the_peer_and_the_codec_can_do() {
    for (format, ptime, maxptime, expected) in [
        ("0", "", "", 20),
        ("0", "10", "", 10),
        ("0", "30", "", 30),
        ("0", "60", "", 60),
        ("0", "61", "", 60),
        ("0", "25", "", 20),
        ("0", "9", "", 10),
        ("0", "0", "", 20),
        ("0", "-20", "", 20),
        ("0", "20.0", "", 20),
        ("0", "twenty", "", 20),
        ("0", "4294967316", "", 60),
        ("0", "99999999999999999999999", "", 60),
        ("0", "40", "30", 30),
        ("0", "", "10", 10),
        ("0", "", "5", 10),
        ("0", "30", "150", 30),
        ("0", "30", "0", 30),
        ("96", "30", "", 20),
        ("96", "50", "", 40),
        ("96", "120", "", 60),
    ] {
        let (media, ptime, maxptime) = (
            format!("m=audio 4000 RTP/AVP {format}"),
            format!("a=ptime:{ptime}"),
            format!("a=maxptime:{maxptime}"),
        );
        let lines = [media.as_str(), "a=rtpmap:96 opus/48000/2", ptime.as_str(), maxptime.as_str()];
        let answered = opened(1).answer(offer(&lines).as_bytes(), &local()).expect("answered");
        assert_eq!(answered.agreed.codec.ptime_ms, expected, "{lines:?}");
        assert!(answered.text.contains(&format!("a=ptime:{expected}\r\n")));
    }
}

#[test]
fn what_cannot_be_agreed_has_its_own_fault() {
    check_fault(&[], OfferFault::NoAudio);
    check_fault(&["m=audio 0 RTP/AVP 0"], OfferFault::NoAudio);
    check_fault(&["m=image 4000 udptl t38"], OfferFault::NoAudio);
    check_fault(&["m=audio 4000 TCP/RTP/AVP 0"], OfferFault::NoAudio);
    check_fault(&["m=audio 4000 RTP/AVP 18 101"], OfferFault::NoCommonCodec);
    check_fault(
        &["m=audio 4000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"],
        OfferFault::NoCommonCodec,
    );
    check_fault(&["m=audio 4000 RTP/SAVP 0"], OfferFault::NoUsableKeys);
    check_fault(&["m=audio 4000 UDP/TLS/RTP/SAVPF 0"], OfferFault::NoUsableKeys);
    check_fault(&["m=audio 4000 RTP/SAVP 0", "m=audio 4000 RTP/AVP 18"], OfferFault::NoCommonCodec);
    check_fault(&["m=audio 4000 RTP/AVP 0", "c=IN IP4 224.0.1.1/16"], OfferFault::BadAddress);
    check_fault(&["m=audio 4000 RTP/AVP 0", "c=IN IP4 127.0.0.1"], OfferFault::BadAddress);
    check_fault(&["m=audio 30000 RTP/AVP 0", "c=IN IP4 203.0.113.1"], OfferFault::BadAddress);
    check_fault(&["m=audio 4000 RTP/AVP 0", "c=IN IP6 2001:db8::6"], OfferFault::BadAddress);
    let no_address = "v=0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let fault = opened(1).answer(no_address.as_bytes(), &local());
    assert_eq!(fault, Err(OfferFault::Malformed("no c= line".to_owned())));
}

#[test]
fn a_host_name_is_taken_and_media_waits_for_the_peers_packets() {
    let lines = ["m=audio 4000 RTP/AVP 0", "c=IN IP4 gw.example.com"];
    let answered = opened(1).answer(offer(&lines).as_bytes(), &local()).expect("answered");
    assert_eq!(answered.agreed.remote.rtp, None);
    assert_eq!(answered.agreed.direction, Direction::SendRecv);
}

#[test]
fn rtcp_is_not_multiplexed_where_numbers_would_collide() {
    let lines = ["m=audio 4000 RTP/AVP 72", "a=rtpmap:72 opus/48000/2", "a=rtcp-mux"];
    let answered = opened(1).answer(offer(&lines).as_bytes(), &local()).expect("answered");
    assert!(!answered.agreed.remote.rtcp_mux && !answered.text.contains("mux"));
}

#[test]
fn the_version_rises_with_a_change_and_only_then() {
    let mut exchange = opened(9);
    assert_eq!(exchange.repeat(), None);
    let mut version = |lines: &[&str]| {
        let before = exchange.repeat();
        match exchange.answer(offer(lines).as_bytes(), &local()) {
            Ok(answered) => {
                assert_eq!(exchange.repeat().as_deref(), Some(answered.text.as_str()));
                let origin = answered.text.lines().nth(1).expect("o=").to_owned();
                origin.split(' ').nth(2).and_then(|number| number.parse::<u64>().ok())
            }
            Err(_) => {
                assert_eq!(exchange.repeat(), before, "a failed re-offer changes nothing");
                None
            }
        }
    };
    assert_eq!(version(&["m=audio 4000 RTP/AVP 0"]), Some(1));
    assert_eq!(version(&["m=audio 4000 RTP/AVP 0"]), Some(1));
    assert_eq!(version(&["m=audio 4000 RTP/AVP 0", "a=sendonly"]), Some(2));
    assert_eq!(version(&["m=image 4000 udptl t38"]), None);
    assert_eq!(version(&["m=audio 4000 RTP/AVP 0", "a=sendonly"]), Some(2));
    assert_eq!(version(&["m=audio 4010 RTP/AVP 0"]), Some(3));
    assert_eq!(version(&["m=audio 4010 RTP/AVP 0", "m=video 1 RTP/AVP 96"]), Some(4));
}

fn late_offer(exchange: &mut OfferAnswer) -> String {
    let text = exchange.offer(&local());
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 30000 RTP/AVP 96 9 0 8 101 100"]);
    text
}

#[test]
fn a_late_offer_holds_all_that_we_have() {
    let text = late_offer(&mut opened(5));
    let expected = [
        "v=0",
        "o=- 5 1 IN IP4 203.0.113.1",
        "s=-",
        "c=IN IP4 203.0.113.1",
        "t=0 0",
        "m=audio 30000 RTP/AVP 96 9 0 8 101 100",
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 minptime=10;useinbandfec=1",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
        "a=rtpmap:100 telephone-event/48000",
        "a=fmtp:100 0-15",
        "a=ptime:20",
        "a=sendrecv",
    ];
    assert_eq!(text, body(&expected));
}

#[test]
fn an_answer_may_order_and_number_anew() {
    let mut exchange = opened(5);
    late_offer(&mut exchange);
    let lines = [
        "m=audio 4000 RTP/AVP 8 111 105",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:105 telephone-event/8000",
        "a=ptime:30",
    ];
    let agreed = exchange.accept_answer(offer(&lines).as_bytes()).expect("agreed");
    assert_eq!((agreed.codec.kind, agreed.codec.ptime_ms), (Pcma, 30));
    let event = agreed.telephone_event.expect("events");
    assert_eq!((event.send_payload_type, event.receive_payload_type), (105, 101));

    let mut exchange = opened(5);
    late_offer(&mut exchange);
    let lines = ["m=audio 4000 RTP/AVPF 111 0", "a=rtpmap:111 opus/48000/2", "a=recvonly"];
    let agreed = exchange.accept_answer(offer(&lines).as_bytes()).expect("agreed");
    assert_eq!((agreed.codec.send_payload_type, agreed.codec.receive_payload_type), (111, 96));
    assert_eq!((agreed.direction, agreed.telephone_event), (Direction::SendOnly, None));

    let mut exchange = opened(5);
    late_offer(&mut exchange);
    let agreed = exchange.accept_answer(offer(&["m=audio 4000 RTP/AVP 96"]).as_bytes());
    assert_eq!(agreed.map(|agreed| agreed.codec.kind), Ok(Opus), "a number left unnamed is ours");
}

#[test]
fn an_answer_that_does_not_fit_is_refused_and_the_offer_is_done_with() {
    for (lines, fault) in [
        (&[][..], OfferFault::AnswerMismatch),
        (&["m=audio 4000 RTP/AVP 0", "m=audio 4002 RTP/AVP 0"], OfferFault::AnswerMismatch),
        (&["m=video 4000 RTP/AVP 0"], OfferFault::AnswerMismatch),
        (&["m=audio 4000 RTP/SAVP 0"], OfferFault::AnswerMismatch),
        (&["m=audio 0 RTP/AVP 0"], OfferFault::NoAudio),
        (&["m=audio 4000 RTP/AVP 18"], OfferFault::NoCommonCodec),
        (&["m=audio 4000 RTP/AVP 0", "c=IN IP4 239.1.1.1"], OfferFault::BadAddress),
    ] {
        let mut exchange = opened(5);
        late_offer(&mut exchange);
        assert_eq!(exchange.accept_answer(offer(lines).as_bytes()), Err(fault), "{lines:?}");
        let again = exchange.accept_answer(offer(&["m=audio 4000 RTP/AVP 0"]).as_bytes());
        assert_eq!(again, Err(OfferFault::AnswerMismatch));
    }
}

#[test]
fn one_offer_at_a_time() {
    let mut exchange = opened(5);
    let text = late_offer(&mut exchange);
    let theirs = offer(&["m=audio 4000 RTP/AVP 0"]);
    assert_eq!(exchange.answer(theirs.as_bytes(), &local()), Err(OfferFault::OfferPending));
    assert_eq!(exchange.offer(&local()), text, "an offer made again is the same");
    exchange.accept_answer(theirs.as_bytes()).expect("agreed");
    exchange.answer(theirs.as_bytes(), &local()).expect("answered");
}

#[test]
fn a_later_offer_keeps_the_sections_and_numbers_of_the_session() {
    let mut exchange = opened(5);
    let lines = [
        "m=video 5000 RTP/AVP 96",
        "m=audio 4000 RTP/AVPF 101 0 100 96",
        "a=rtpmap:101 opus/48000/2",
        "a=rtpmap:100 telephone-event/8000",
        "a=rtpmap:96 AMR-WB/16000",
    ];
    exchange.answer(offer(&lines).as_bytes(), &local()).expect("answered");
    let text = exchange.offer(&local());
    let media: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(media, ["m=video 0 RTP/AVP 96", "m=audio 30000 RTP/AVPF 101 9 0 8 100 97"]);
    let answer = offer(&["m=video 0 RTP/AVP 96", "m=audio 4000 RTP/AVPF 9"]);
    let agreed = exchange.accept_answer(answer.as_bytes()).expect("agreed");
    assert_eq!(agreed.codec.kind, G722);
}

#[test]
fn a_failed_offer_of_ours_leaves_what_was_agreed() {
    let mut exchange = opened(5);
    let theirs = offer(&["m=audio 4000 RTP/AVP 0"]);
    let first = exchange.answer(theirs.as_bytes(), &local()).expect("answered").text;
    exchange.offer(&local());
    exchange.accept_answer(b"nonsense").expect_err("no answer");
    let third = first.replace("o=- 5 1 IN", "o=- 5 3 IN");
    assert_eq!(exchange.repeat(), Some(third.clone()), "the offer was version 2");
    let again = exchange.answer(theirs.as_bytes(), &local()).expect("answered").text;
    assert_eq!(again, third);
}

#[test]
fn bundled_sections_are_refused_one_by_one_and_no_group_is_answered() {
    check(
        &[
            "a=group:BUNDLE a v",
            "m=audio 4000 RTP/AVPF 0",
            "a=mid:a",
            "m=video 0 RTP/AVPF 96",
            "a=bundle-only",
            "a=mid:v",
        ],
        &[
            "m=audio 30000 RTP/AVPF 0",
            "a=rtpmap:0 PCMU/8000",
            "a=ptime:20",
            "a=sendrecv",
            "m=video 0 RTP/AVPF 96",
        ],
    );
}

#[test]
fn every_fixture_has_its_outcome() {
    let index = include_str!("../../fixtures/sdp/index.tsv");
    let mut seen = 0;
    for row in index.lines().skip(1) {
        let name = row.split('\t').next().expect("a name");
        let path = format!("{}/fixtures/sdp/{name}", env!("CARGO_MANIFEST_DIR"));
        let offer = std::fs::read(&path).expect("fixture");
        let mut ours = local();
        if name == "ipv6.sdp" {
            ours.address = "2001:db8::1".parse().expect("address");
        }
        let answered = opened(1).answer(&offer, &ours);
        check_fixture(name, answered);
        seen += 1;
    }
    assert_eq!(seen, 14);
}

fn check_fixture(name: &str, answered: Result<Answered, OfferFault>) {
    let fault = match name {
        "bad-no-version.sdp" => Some(OfferFault::Malformed("No version line".to_owned())),
        "dtls-srtp.sdp" => Some(OfferFault::NoUsableKeys),
        "teams.sdp" | "twilio-srtp-sdes.sdp" => Some(OfferFault::KeysInClear),
        "multicast.sdp" => Some(OfferFault::BadAddress),
        "t38.sdp" => Some(OfferFault::NoAudio),
        _ => None,
    };
    if let Some(fault) = fault {
        assert_eq!(answered, Err(fault), "{name}");
        return;
    }
    let answered = answered.unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let agreed = answered.agreed;
    let media = answered.text.lines().filter(|line| line.starts_with("m="));
    let media: Vec<&str> = media.collect();
    let rtp = agreed.remote.rtp.map(|rtp| rtp.to_string()).unwrap_or_default();
    let (line, kind, address) = match name {
        "cisco-cube.sdp" => ("m=audio 30000 RTP/AVP 0 19 101", Pcmu, "192.0.2.10:17210"),
        "freeswitch.sdp" => ("m=audio 30000 RTP/AVP 102 103", Opus, "198.51.100.77:28336"),
        "ipv6.sdp" => ("m=audio 30000 RTP/AVP 0", Pcmu, "[2001:db8::6]:5004"),
        "lf-line-ends.sdp" => ("m=audio 30000 RTP/AVP 0 101", Pcmu, "203.0.113.22:14538"),
        "linphone.sdp" => ("m=audio 30000 RTP/AVPF 96 101", Opus, "192.168.1.10:7078"),
        "media-level-connection.sdp" => ("m=audio 30000 RTP/AVP 0", Pcmu, "203.0.113.9:4000"),
        "obsolete-lines.sdp" => ("m=audio 30000 RTP/AVP 0", Pcmu, "203.0.113.9:4000"),
        "polycom-g7221.sdp" => ("m=audio 30000 RTP/AVP 9 127", G722, "203.0.113.8:2222"),
        _ => panic!("a fixture without an expectation: {name}"),
    };
    assert_eq!((media[0], agreed.codec.kind, rtp.as_str()), (line, kind, address), "{name}");
    match name {
        "linphone.sdp" => assert_eq!(media[1], "m=video 0 RTP/AVPF 96"),
        "media-level-connection.sdp" => assert_eq!(agreed.direction, Direction::RecvOnly),
        "freeswitch.sdp" => {
            assert_eq!(agreed.telephone_event.map(|event| event.clock_hz), Some(48_000));
            assert_eq!(agreed.remote.rtcp, "198.51.100.77:28337".parse().ok());
        }
        "ipv6.sdp" => assert_eq!(agreed.remote.rtcp, "[2001:db8::6]:5005".parse().ok()),
        _ => {}
    }
}

/// One generated section, as the oracle knows it.
struct Wanted {
    media: &'static str,
    proto: &'static str,
    port: u16,
    direction: Option<&'static str>,
    /// Number and rtpmap, `None` for a bare number.
    formats: Vec<(u8, Option<&'static str>)>,
}

fn generate(entropy: &mut Entropy) -> (Vec<Wanted>, String) {
    let mut pick = |bound: u64| entropy.below(bound) as usize;
    let mut sections = Vec::new();
    for _ in 0..=pick(4) {
        let (media, proto) = [
            ("audio", "RTP/AVP"),
            ("audio", "RTP/AVP"),
            ("audio", "RTP/AVPF"),
            ("audio", "RTP/SAVP"),
            ("video", "RTP/AVP"),
            ("image", "udptl"),
        ][pick(6)];
        let port = if pick(6) == 0 { 0 } else { 2_000 + pick(60_000) as u16 };
        let directions =
            [None, None, Some("sendrecv"), Some("sendonly"), Some("recvonly"), Some("inactive")];
        let direction = directions[pick(6)];
        let mut formats: Vec<(u8, Option<&'static str>)> = Vec::new();
        for _ in 0..=pick(6) {
            let (number, rtpmap) = [
                (0, None),
                (0, Some("PCMU/8000")),
                (8, None),
                (9, Some("G722/8000")),
                (18, None),
                (13, Some("CN/8000")),
                (96 + pick(32) as u8, Some("opus/48000/2")),
                (96 + pick(32) as u8, Some("telephone-event/8000")),
                (96 + pick(32) as u8, Some("telephone-event/48000")),
                (96 + pick(32) as u8, Some("AMR-WB/16000")),
            ][pick(10)];
            if formats.iter().all(|(have, _)| *have != number) {
                formats.push((number, rtpmap));
            }
        }
        sections.push(Wanted { media, proto, port, direction, formats });
    }
    let mut lines: Vec<String> = HEAD.iter().map(|line| (*line).to_owned()).collect();
    for section in &sections {
        let numbers: Vec<String> =
            section.formats.iter().map(|(number, _)| number.to_string()).collect();
        lines.push(format!(
            "m={} {} {} {}",
            section.media,
            section.port,
            section.proto,
            numbers.join(" ")
        ));
        for (number, rtpmap) in section.formats.iter().rev() {
            lines.extend(rtpmap.map(|rtpmap| format!("a=rtpmap:{number} {rtpmap}")));
        }
        lines.extend(section.direction.map(|direction| format!("a={direction}")));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    (sections, body(&lines))
}

/// A second reading of RFC 3264 §6: whatever the answer is, it must keep every rule.
fn judge(sections: &[Wanted], answer: &str, seed: u64) {
    assert!(answer.ends_with("\r\n") && !answer.replace("\r\n", "").contains(['\r', '\n']));
    let mut parts = answer.split("m=");
    let session = parts.next().expect("session part");
    assert!(session.contains("\r\ns=-\r\n") && session.ends_with("t=0 0\r\n"), "seed {seed}");
    let answers: Vec<&str> = parts.collect();
    assert_eq!(answers.len(), sections.len(), "seed {seed}: one section each, in order");
    let mut accepted = 0;
    for (wanted, answer) in sections.iter().zip(&answers) {
        let mut lines = answer.lines();
        let words: Vec<&str> = lines.next().expect("m=").split(' ').collect();
        let attributes: Vec<&str> = lines.collect();
        assert_eq!((words[0], words[2]), (wanted.media, wanted.proto), "seed {seed}");
        assert!(words.len() > 3, "seed {seed}: at least one format");
        if words[1] == "0" {
            continue;
        }
        accepted += 1;
        assert!(wanted.port != 0 && wanted.media == "audio", "seed {seed}: refused stays refused");
        assert!(!wanted.proto.contains("SAVP"), "seed {seed}: never plain for encrypted");
        let offered: BTreeMap<String, Option<&str>> =
            wanted.formats.iter().map(|(number, rtpmap)| (number.to_string(), *rtpmap)).collect();
        let mut audio = 0;
        for number in &words[3..] {
            let Some(rtpmap) = offered.get(*number) else {
                panic!("seed {seed}: {number} not offered")
            };
            let line = attributes
                .iter()
                .find_map(|line| line.strip_prefix(&format!("a=rtpmap:{number} ")));
            let line = line.expect("a rtpmap for each");
            let usual = match *number {
                "0" => "PCMU/8000",
                "13" | "19" => "CN/8000",
                _ => "PCMA/8000",
            };
            assert_eq!(line, rtpmap.unwrap_or(usual), "seed {seed}: a number keeps its meaning");
            let beside = line.starts_with("telephone-event") || line.starts_with("CN/");
            audio += usize::from(!beside);
        }
        assert_eq!(audio, 1, "seed {seed}: one codec, and no events alone");
        let ours = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
        let ours: Vec<&&str> = attributes.iter().filter(|line| ours.contains(line)).collect();
        let expected = match wanted.direction {
            None | Some("sendrecv") => "a=sendrecv",
            Some("sendonly") => "a=recvonly",
            Some("recvonly") => "a=sendonly",
            _ => "a=inactive",
        };
        assert_eq!(ours, [&expected], "seed {seed}: the direction is the mirror image");
    }
    assert_eq!(accepted, 1, "seed {seed}");
}

/// Whether any section could have been taken.
fn possible(sections: &[Wanted]) -> bool {
    let ours = |(number, rtpmap): &(u8, Option<&str>)| match rtpmap {
        None => [0, 8].contains(number),
        Some(name) => ["PCMU/8000", "G722/8000", "opus/48000/2"].contains(name),
    };
    sections.iter().any(|section| {
        let plain = section.media == "audio" && !section.proto.contains("SAVP");
        plain && section.port != 0 && section.formats.iter().any(ours)
    })
}

#[test]
fn generated_offers_are_answered_by_the_rules_of_rfc_3264() {
    let mut answered = 0;
    for seed in 0..5_000 {
        let (sections, text) = generate(&mut Entropy::from_number(seed));
        match opened(seed).answer(text.as_bytes(), &local()) {
            Ok(answer) => {
                judge(&sections, &answer.text, seed);
                answered += 1;
            }
            Err(fault) => assert!(!possible(&sections), "seed {seed}: {fault} for {text}"),
        }
    }
    assert!(answered > 1_000, "{answered} is too few to mean anything");
}

#[test]
fn hostile_bodies_never_panic_nor_leak_into_the_answer() {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sdp")).expect("fixtures")
    {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|ext| ext == "sdp") {
            seeds.push(std::fs::read(path).expect("fixture"));
        }
    }
    seeds.sort();
    let mut entropy = Entropy::from_number(4566);
    let mut exchange = opened(1);
    for round in 0..100_000_u32 {
        let body = mutate(&seeds[round as usize % seeds.len()], &mut entropy);
        if let Ok(answered) = exchange.answer(&body, &local()) {
            assert!(
                !answered.text.replace("\r\n", "").contains(['\r', '\n', '\0']),
                "round {round}"
            );
            assert!((10..=60).contains(&answered.agreed.codec.ptime_ms));
            let remote = answered.agreed.remote;
            let is_bad = |to: SocketAddr| to.ip().is_multicast() || to.ip().is_loopback();
            assert!(![remote.rtp, remote.rtcp].into_iter().flatten().any(is_bad), "round {round}");
        }
        if round % 8 == 0 {
            exchange.offer(&local());
            let _ = exchange.accept_answer(&body);
        }
    }
    assert!(exchange.repeat().is_some_and(|text| text.len() < 64 * 1024));
}

fn mutate(seed: &[u8], entropy: &mut Entropy) -> Vec<u8> {
    let mut body = seed.to_vec();
    for _ in 0..=entropy.below(4) {
        let at = entropy.below(body.len() as u64) as usize;
        match entropy.below(6) {
            0 => body[at] = entropy.u32() as u8,
            1 => body.truncate(at.max(1)),
            2 => body[at] = b"\r\n\0\xff/:= ;9-"[entropy.below(11) as usize],
            3 => {
                let piece = body[at..].to_vec();
                body.extend_from_slice(&piece);
            }
            4 => drop(body.drain(at..(at + 9).min(body.len() - 1).max(at))),
            _ => {
                let digits = b"99999999999999999999";
                body.splice(at..at, digits.iter().copied());
            }
        }
    }
    body
}
