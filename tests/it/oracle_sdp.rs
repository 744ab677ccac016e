//! `webrtc-sdp` as a second reader of session descriptions: what we write must read the same there,
//! and where the two readers of a peer's text disagree, the reason stands here.
//!
//! | `webrtc-sdp` | why we differ |
//! |---|---|
//! | has no `m=image` and no transports but WebRTC's: the section is gone | an answer needs every section (RFC 3264 §6) |
//! | `k=` is an error | obsolete (RFC 8866 §5.12) and harmless; old gateways send it |
//! | errors in `o=`, `s=`, `t=`, `b=` and unknown lines | a call needs none of them |
//! | drops attributes that it has no exact form for | `a=sendonly ` or an odd rtpmap hurts nobody |
//! | takes a broken `c=` or an `m=` line without formats as a warning | media without an address cannot be had: refused |
//! | keeps characters in `m=` that are in no token | they would go into our answer: refused |
//! | a bare CR is a blank | it ends a line, so that no text of a peer can hold one |

use std::collections::BTreeSet;
use voxedge::codec::CodecKind;
use voxedge::ground::Entropy;
use voxedge::sdp::{LocalMedia, OfferAnswer, text};
use webrtc_sdp::attribute_type::{SdpAttribute, SdpAttributeType};
use webrtc_sdp::media_type::{SdpFormatList, SdpMedia};

/// What both readers can say of one section.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    media: String,
    port: u32,
    proto: String,
    formats: Vec<String>,
    rtpmaps: BTreeSet<String>,
    direction: Option<&'static str>,
    rtcp_mux: bool,
}

const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];

fn ours(body: &[u8]) -> Result<Vec<Seen>, String> {
    let session = text::parse(body)?;
    let section = |section: &text::MediaSection| {
        let attributes = &section.attributes;
        let named: Vec<&str> =
            DIRECTIONS.into_iter().filter(|word| attributes.first(word).is_some()).collect();
        let formats = section.formats.clone();
        Seen {
            media: section.media.clone(),
            port: u32::from(section.port),
            proto: section.proto.clone(),
            rtpmaps: attributes.all("rtpmap").map(canonical_rtpmap).collect(),
            formats,
            direction: if named.len() == 1 { named.first().copied() } else { None },
            rtcp_mux: attributes.first("rtcp-mux").is_some(),
        }
    };
    Ok(session.media.iter().map(section).collect())
}

/// `96 opus/48000/2` whatever its blanks and leading zeros are; one channel need not be written.
fn canonical_rtpmap(value: &str) -> String {
    let number = |text: &str| text.parse::<u32>().map_or(text.to_owned(), |n| n.to_string());
    let (payload, name) = value.split_once([' ', '\t']).unwrap_or((value, ""));
    let mut parts: Vec<String> = name
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .split('/')
        .take(3)
        .map(str::to_owned)
        .collect();
    for part in parts.iter_mut().skip(1) {
        *part = number(part);
    }
    if parts.len() == 3 && ["0", "1"].contains(&parts[2].as_str()) {
        parts.pop();
    }
    format!("{} {}", number(payload), parts.join("/"))
}

fn theirs(body: &[u8]) -> Result<Vec<Seen>, String> {
    let text = String::from_utf8_lossy(body);
    let session = webrtc_sdp::parse_sdp(&text, false).map_err(|fault| fault.to_string())?;
    Ok(session.media.iter().map(their_section).collect())
}

fn their_section(section: &SdpMedia) -> Seen {
    let formats = match section.get_formats() {
        SdpFormatList::Integers(numbers) => numbers.iter().map(u32::to_string).collect(),
        SdpFormatList::Strings(texts) => texts.clone(),
        SdpFormatList::Unknown(text) => text.split_whitespace().map(str::to_owned).collect(),
    };
    let rtpmap = |attribute: &&SdpAttribute| match attribute {
        SdpAttribute::Rtpmap(map) => {
            let channels = match map.channels {
                None | Some(0 | 1) => String::new(),
                Some(count) => format!("/{count}"),
            };
            Some(format!("{} {}/{}{channels}", map.payload_type, map.codec_name, map.frequency))
        }
        _ => None,
    };
    let types = [
        SdpAttributeType::Sendrecv,
        SdpAttributeType::Sendonly,
        SdpAttributeType::Recvonly,
        SdpAttributeType::Inactive,
    ];
    let named: Vec<&str> = types
        .into_iter()
        .zip(DIRECTIONS)
        .filter_map(|(kind, word)| section.get_attribute(kind).map(|_| word))
        .collect();
    Seen {
        media: section.get_type().to_string(),
        port: section.get_port(),
        proto: section.get_proto().to_string(),
        formats,
        rtpmaps: section
            .get_attributes_of_type(SdpAttributeType::Rtpmap)
            .iter()
            .filter_map(rtpmap)
            .collect(),
        direction: if named.len() == 1 { named.first().copied() } else { None },
        rtcp_mux: section.get_attribute(SdpAttributeType::RtcpMux).is_some(),
    }
}

fn local() -> LocalMedia {
    LocalMedia {
        address: "203.0.113.1".parse().expect("address"),
        port: 30_000,
        ptime_ms: 20,
        codecs: vec![CodecKind::Opus, CodecKind::G722, CodecKind::Pcmu, CodecKind::Pcma],
        telephone_event: true,
        opus_fec: true,
        extended: Default::default(),
        silence_suppression: false,
        srtp: Default::default(),
        own: Default::default(),
    }
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sdp");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("fixtures") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if name.ends_with(".sdp") {
            found.push((name, std::fs::read(&path).expect("fixture")));
        }
    }
    found.sort();
    assert_eq!(found.len(), 14);
    found
}

#[test]
fn what_we_write_reads_the_same_elsewhere() {
    let mut written =
        vec![OfferAnswer::new(u64::MAX >> 1, &mut Entropy::from_number(1)).offer(&local())];
    for (_, body) in fixtures() {
        written.extend(
            OfferAnswer::new(7, &mut Entropy::from_number(1))
                .answer(&body, &local())
                .map(|answered| answered.text),
        );
    }
    assert!(written.len() >= 8);
    for text in &written {
        let known: Vec<Seen> = ours(text.as_bytes()).expect("ours");
        let seen = theirs(text.as_bytes()).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        assert_eq!(seen, known, "{text}");
    }
}

#[test]
fn fixtures_read_the_same_but_for_the_listed_ones() {
    for (name, body) in fixtures() {
        let (ours, theirs) = (ours(&body), theirs(&body));
        match name.as_str() {
            "bad-no-version.sdp" => assert!(ours.is_err() && theirs.is_err(), "{name}"),
            // `k=` is a hard error there.
            "obsolete-lines.sdp" => assert!(ours.is_ok() && theirs.is_err(), "{name}"),
            // It has no `m=image`.
            "t38.sdp" => {
                assert_eq!(ours.map(|seen| seen.len()), Ok(1), "{name}");
                assert!(theirs.is_ok_and(|seen| seen.is_empty()), "{name}");
            }
            _ => assert_eq!(ours, theirs, "{name}"),
        }
    }
}

/// Why we may refuse what the other reader takes.
const REFUSED_HERE: [&str; 6] =
    ["Connection", "Media fmt", "Media port", "Media proto", "Media num-ports", "tokens"];

/// One byte changed, 30,000 times: where both read the text they read the same.
#[test]
fn mutations_read_alike_but_for_the_listed_reasons() {
    let fixtures = fixtures();
    let mut entropy = Entropy::from_number(8866);
    let mut alike = 0_u32;
    for round in 0..30_000_usize {
        let (name, body) = &fixtures[round % fixtures.len()];
        let mut body = body.clone();
        let at = entropy.below(body.len() as u64) as usize;
        body[at] = b"0123456789 /:=acmv\r\n"[entropy.below(20) as usize];
        let bare_cr = |pair: &[u8]| pair.first() == Some(&b'\r') && pair.last() != Some(&b'\n');
        if body.windows(2).any(bare_cr) {
            continue;
        }
        match (ours(&body), theirs(&body)) {
            (Ok(ours), Ok(theirs)) => {
                compare(&ours, &theirs, &format!("{name}, round {round}"));
                alike += 1;
            }
            (Err(fault), Ok(_)) => {
                // `v=00` is version zero there.
                let known =
                    fault.ends_with(": 00") || REFUSED_HERE.iter().any(|why| fault.contains(why));
                assert!(known, "{name}, round {round}: {fault}");
            }
            (Ok(_) | Err(_), Err(_)) => {}
        }
    }
    assert!(alike > 10_000, "{alike} is too few to mean anything");
}

fn compare(ours: &[Seen], theirs: &[Seen], what: &str) {
    let is_known = |seen: &&Seen| {
        let media = ["audio", "video", "application"].contains(&seen.media.as_str());
        let proto = ["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVPF"];
        media && proto.iter().any(|proto| proto.eq_ignore_ascii_case(&seen.proto))
    };
    if !ours.iter().all(|seen| is_known(&seen)) {
        // The lines of a section that it drops fall to the section before.
        assert!(theirs.len() <= ours.len(), "{what}");
        return;
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let numbers = |seen: &Seen| -> Vec<Option<u32>> {
            seen.formats.iter().map(|text| text.parse().ok()).collect()
        };
        assert_eq!((&ours.media, ours.port), (&theirs.media, theirs.port), "{what}");
        assert!(ours.proto.eq_ignore_ascii_case(&theirs.proto), "{what}");
        assert_eq!(numbers(ours), numbers(theirs), "{what}");
        let rtpmaps_fit = theirs.rtpmaps.iter().all(|map| ours.rtpmaps.contains(map));
        assert!(rtpmaps_fit, "{what}: {:?} {:?}", ours.rtpmaps, theirs.rtpmaps);
        let agrees = theirs.direction.is_none() || theirs.direction == ours.direction;
        assert!(agrees && (ours.rtcp_mux || !theirs.rtcp_mux), "{what}");
    }
}
