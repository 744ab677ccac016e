//! One audio section, judged: which of its formats we take, where media goes, which way it flows
//! and in what portions. The same rules serve a peer's offer and its answer to ours; they differ
//! only in who orders the candidates.

use super::address::{self, MediaAddress};
use super::control;
use super::fmtp;
use super::offer_answer::{Agreed, LocalMedia, OfferFault};
use super::payload::{self, Encoding, PayloadFormat};
use super::text::{LocalSection, MediaSection, SessionDescription};
use crate::codec::{CodecFormat, CodecKind};
use crate::media::plan::{
    CodecPlan, ComfortNoisePlan, Direction, ExtendedPlan, PausePlan, RemoteMedia,
    TelephoneEventPlan,
};
use std::net::SocketAddr;

/// Numbers that collide with RTCP packet types on a shared port (RFC 5761 §4).
const RTCP_CONFLICT: std::ops::RangeInclusive<u8> = 64..=95;

/// A format that both sides know, with its number in each direction.
pub(super) struct Candidate {
    pub(super) encoding: Encoding,
    /// The peer's number: what we send with.
    pub(super) send: u8,
    /// Our number: what the peer sends with.
    pub(super) receive: u8,
    pub(super) format: PayloadFormat,
}

/// What kind of transport an `m=audio` line wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Profile {
    /// `RTP/AVP` or `RTP/AVPF`.
    Plain,
    /// SRTP, its keys in the description or from DTLS.
    Encrypted,
    Other,
}

/// What of RTCP can be agreed to.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    /// RTP and RTCP on one port (RFC 5761).
    pub(super) rtcp_mux: bool,
    pub(super) extended: ExtendedPlan,
}

pub(super) fn profile(proto: &str) -> Profile {
    let proto = proto.to_ascii_uppercase();
    match proto.as_str() {
        "RTP/AVP" | "RTP/AVPF" => Profile::Plain,
        _ if proto.ends_with("/SAVP") || proto.ends_with("/SAVPF") => Profile::Encrypted,
        _ => Profile::Other,
    }
}

/// Agrees on one section. `candidates` come best first; `allowed`: what our own side has, or lets the
/// peer's offer ask for.
pub(super) fn agree(
    session: &SessionDescription,
    section: &MediaSection,
    candidates: &[Candidate],
    local: &LocalMedia,
    allowed: Allowed,
) -> Result<Agreed, OfferFault> {
    let (kind, chosen) = candidates
        .iter()
        .find_map(|candidate| match candidate.encoding {
            Encoding::Audio(kind, _) => Some((kind, candidate)),
            Encoding::TelephoneEvent { .. } | Encoding::ComfortNoise { .. } => None,
        })
        .ok_or(OfferFault::NoCommonCodec)?;
    let event = telephone_event(candidates, kind);
    let noise = comfort_noise(candidates, kind);
    let numbers = [
        Some(chosen.receive),
        event.map(|event| event.receive_payload_type),
        noise.map(|noise| noise.receive_payload_type),
    ];
    let conflict = numbers.iter().flatten().any(|number| RTCP_CONFLICT.contains(number));
    let (remote, may_send) = transport(session, section, local, allowed.rtcp_mux && !conflict)?;
    let maxptime = number_ms(section, &chosen.format, "maxptime");
    let format = chosen.format.format;
    let asked = number_ms(section, &chosen.format, "ptime").unwrap_or(local.ptime_ms.into());
    let codec = CodecPlan {
        kind,
        format,
        send_payload_type: chosen.send,
        receive_payload_type: chosen.receive,
        ptime_ms: format.packet_ms(kind, asked.min(maxptime.unwrap_or(asked))),
        fec: kind == CodecKind::Opus && chosen.format.parameter("useinbandfec") == Some("1"),
    };
    let direction = section.attributes.direction().or_else(|| session.attributes.direction());
    Ok(Agreed {
        codec,
        telephone_event: event,
        pauses: PausePlan { comfort_noise: noise, suppress: local.silence_suppression },
        remote,
        control: control::agree(session, section, allowed.extended),
        direction: mirror(direction.unwrap_or(Direction::SendRecv), may_send),
        srtp: None,
        maxptime_ms: maxptime.map(|ms| u16::try_from(ms).unwrap_or(u16::MAX)),
    })
}

/// The events whose clock is the codec's (RFC 4733 §2.1); else those at 8 kHz, which gateways use beside Opus too.
fn telephone_event(candidates: &[Candidate], kind: CodecKind) -> Option<TelephoneEventPlan> {
    [kind.rtp_clock_hz(), 8_000].into_iter().find_map(|clock_hz| {
        let wanted = Encoding::TelephoneEvent { clock_hz };
        let event = candidates.iter().find(|candidate| candidate.encoding == wanted)?;
        Some(TelephoneEventPlan {
            send_payload_type: event.send,
            receive_payload_type: event.receive,
            clock_hz,
        })
    })
}

/// Comfort noise of the codec's clock (RFC 3389 §4). A codec with pauses of its own needs none.
fn comfort_noise(candidates: &[Candidate], kind: CodecKind) -> Option<ComfortNoisePlan> {
    let wanted = Encoding::ComfortNoise { clock_hz: kind.rtp_clock_hz() };
    let noise = candidates.iter().find(|candidate| candidate.encoding == wanted)?;
    let (send_payload_type, receive_payload_type) = (noise.send, noise.receive);
    (!kind.tells_pauses()).then_some(ComfortNoisePlan { send_payload_type, receive_payload_type })
}

/// Where the peer listens, and whether it wants anything sent there. A media-level `c=` wins.
fn transport(
    session: &SessionDescription,
    section: &MediaSection,
    local: &LocalMedia,
    may_mux: bool,
) -> Result<(RemoteMedia, bool), OfferFault> {
    let own = SocketAddr::new(local.address.to_canonical(), local.port);
    let text = section.connection.as_deref().or(session.connection.as_deref());
    let text = text.ok_or_else(|| OfferFault::Malformed("no c= line".to_owned()))?;
    let rtcp_mux = may_mux && section.attributes.first("rtcp-mux").is_some();
    let nowhere = RemoteMedia { rtp: None, rtcp: None, rtcp_mux };
    let ip = match address::judge(text, own.ip()) {
        MediaAddress::Literal(ip) => ip,
        MediaAddress::Name => return Ok((nowhere, true)),
        MediaAddress::Hold => return Ok((nowhere, false)),
        MediaAddress::Bad => return Err(OfferFault::BadAddress),
    };
    let rtp = SocketAddr::new(ip, section.port);
    if rtp == own {
        return Err(OfferFault::BadAddress);
    }
    let named = section.attributes.first("rtcp");
    let next = section.port.checked_add(1).map(|port| SocketAddr::new(ip, port));
    let rtcp = if rtcp_mux {
        Some(rtp)
    } else {
        named.and_then(|value| address::rtcp_target(value, ip, own)).or(next)
    };
    // This call's other port, or one of another call.
    if local.own.has(rtp) || rtcp.is_some_and(|rtcp| local.own.has(rtcp)) {
        return Err(OfferFault::BadAddress);
    }
    Ok((RemoteMedia { rtp: Some(rtp), rtcp, rtcp_mux }, true))
}

/// The peer's direction seen from us (RFC 3264 §6.1); nothing is sent to a held address.
fn mirror(theirs: Direction, may_send: bool) -> Direction {
    match (theirs, may_send) {
        (Direction::SendRecv, true) => Direction::SendRecv,
        (Direction::SendRecv, false) | (Direction::SendOnly, _) => Direction::RecvOnly,
        (Direction::RecvOnly, true) => Direction::SendOnly,
        (Direction::RecvOnly, false) | (Direction::Inactive, _) => Direction::Inactive,
    }
}

/// `a=ptime` or `a=maxptime`, else the format parameter of that name, as some write it for Opus.
/// Zero and what is no number count as absent; a huge number is held at the largest.
fn number_ms(section: &MediaSection, format: &PayloadFormat, name: &str) -> Option<u32> {
    let text = section.attributes.first(name).or_else(|| format.parameter(name))?;
    let digits = text.split('.').next().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ms = digits.parse().unwrap_or(u32::MAX);
    (ms != 0).then_some(ms)
}

/// Our audio section, without keys: `formats` in order with their numbers; in an answer with what was
/// `agreed` of the codec.
pub(super) fn describe(
    local: &LocalMedia,
    proto: &str,
    formats: &[(Encoding, u8)],
    agreed: Option<CodecFormat>,
    ptime_ms: u16,
    direction: Direction,
    rtcp_mux: bool,
) -> LocalSection {
    let mut attributes = Vec::new();
    for (encoding, number) in formats {
        attributes.push(("rtpmap", Some(payload::rtpmap(*number, *encoding))));
        if let Some(fmtp) = fmtp::write(*encoding, agreed, ptime_ms, local.opus_fec) {
            attributes.push(("fmtp", Some(format!("{number} {fmtp}"))));
        }
    }
    attributes.push(("ptime", Some(ptime_ms.to_string())));
    let word = match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    };
    attributes.push((word, None));
    if rtcp_mux {
        attributes.push(("rtcp-mux", None));
    }
    LocalSection {
        media: "audio".to_owned(),
        port: local.port,
        proto: proto.to_owned(),
        formats: formats.iter().map(|(_, number)| number.to_string()).collect(),
        attributes,
        crypto: Vec::new(),
    }
}

/// Names the extended reports of RTCP in our section.
pub(super) fn add_extended(section: &mut LocalSection, plan: ExtendedPlan) {
    if let Some(value) = control::write(plan) {
        section.attributes.push(("rtcp-xr", Some(value)));
    }
}

/// A refused section: the peer's `m=` line with port zero and its first format (RFC 3264 §6).
pub(super) fn refuse(section: &MediaSection) -> LocalSection {
    LocalSection {
        media: section.media.clone(),
        port: 0,
        proto: section.proto.clone(),
        formats: section.formats.iter().take(1).cloned().collect(),
        attributes: Vec::new(),
        crypto: Vec::new(),
    }
}
