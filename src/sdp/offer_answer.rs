//! The offer/answer exchange of one dialog (RFC 3264, RFC 6337; RFC 6141 for what fails): answers
//! the peer's offers, makes our own for an INVITE that brought none, and reads the answer to it.
//!
//! ```text
//!          answer(offer) ──▶ Answered           repeat() ──▶ our text again
//! Stable ◀────────────────────────────┐  accept_refresh(answer) when that went out as an offer
//!    └── offer() ──▶ LocalOffer ── accept_answer(answer) ──▶ Agreed
//! ```
//!
//! A peer's offer is answered in the call that brings it, so no state waits for our answer.
//! Whatever fails leaves the agreed session as it was. The version in `o=` rises by one when our text
//! changes and only then. No address but ours ever stands in what we write.
//!
//! SRTP (RFC 4568) is agreed on the terms of [`LocalMedia::srtp`]: an encrypted section is preferred to
//! a plain one, a plain profile with keys is answered with keys (RFC 8643), and what asks for SRTP is
//! never answered with plain RTP. Our key stays as long as the peer's does.

mod refresh;

use super::control::{self, ExtendedReports};
use super::crypto::{self, Crypto, KeySource, SrtpPolicy, SrtpTerms};
use super::payload::{self, Encoding, Form, PayloadFormat};
use super::section::{self, Allowed, Candidate, Profile};
use super::text::{self, LocalDescription, LocalSection, MediaSection, SessionDescription};
use crate::codec::CodecKind;
use crate::ground::Entropy;
use crate::ground::ports::OwnPorts;
use crate::media::plan::{
    CodecPlan, ControlPlan, Direction, PausePlan, RemoteMedia, SrtpPlan, TelephoneEventPlan,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Our side of the media of one leg.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalMedia {
    /// The address that the description gives: as the peer can reach it.
    pub address: IpAddr,
    /// Our RTP port.
    pub port: u16,
    /// Milliseconds of each packet that we wish to send and get: 10 to 60.
    pub ptime_ms: u16,
    /// What we can decode and encode, best first.
    pub codecs: Vec<CodecKind>,
    /// Whether telephone-events are agreed to.
    pub telephone_event: bool,
    /// Whether we ask for in-band FEC in Opus (RFC 7587 §6.1 `useinbandfec`).
    pub opus_fec: bool,
    /// Whether extended reports of RTCP are agreed to (RFC 3611).
    pub extended: ExtendedReports,
    /// Whether pauses of ours are told where the peer takes that: then comfort noise is offered too.
    /// It is answered in any case.
    pub silence_suppression: bool,
    pub srtp: SrtpTerms,
    /// Where media must not go: back to us.
    pub own: OwnPorts,
}

/// What both sides settled on. With the signalling source it is a `media::plan::LegPlan`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreed {
    pub codec: CodecPlan,
    pub telephone_event: Option<TelephoneEventPlan>,
    pub pauses: PausePlan,
    pub remote: RemoteMedia,
    pub control: ControlPlan,
    /// Seen from us.
    pub direction: Direction,
    /// The most milliseconds of one packet that the peer takes, when it says so.
    pub maxptime_ms: Option<u16>,
    pub srtp: Option<SrtpPlan>,
}

/// An offer that was answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Answered {
    /// Our answer, to be sent as `application/sdp`.
    pub text: String,
    pub agreed: Agreed,
}

/// The text may hold keys.
impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

/// Why there is no agreement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OfferFault {
    /// The text breaks the grammar; says where.
    Malformed(String),
    /// Audio that we could reach, in no codec of ours.
    NoCommonCodec,
    /// No section of audio over RTP that is not refused: fax (T.38), video, or nothing at all.
    NoAudio,
    /// All audio wants SRTP, which is turned off; plain RTP would betray what the peer asked for.
    EncryptedOnly,
    /// All audio wants SRTP, and no `a=crypto` line is one that we can do: other suites, weakening
    /// parameters, or keys from DTLS.
    NoUsableKeys,
    /// Media keys would go, or came, over signalling that others can read.
    KeysInClear,
    /// Only plain RTP is offered, and SRTP is required.
    PlainOnly,
    /// The media address is multicast, broadcast, loopback, link-local, our own, no address, or of
    /// an address family that we do not have.
    BadAddress,
    /// The answer does not fit our offer (RFC 3264 §6), or there was no offer.
    AnswerMismatch,
    /// Our own offer has no answer yet (RFC 3264 §4: one at a time).
    OfferPending,
}

impl fmt::Display for OfferFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OfferFault::Malformed(fault) => {
                return write!(f, "the session description cannot be read: {fault}");
            }
            OfferFault::NoCommonCodec => "no codec in common",
            OfferFault::NoAudio => "no audio over RTP is offered",
            OfferFault::EncryptedOnly => "only encrypted media (SRTP) is offered, which is off",
            OfferFault::NoUsableKeys => {
                "encrypted media without a=crypto keys that can be used (SDES; not DTLS-SRTP)"
            }
            OfferFault::KeysInClear => "media keys (a=crypto) in signalling that is not TLS",
            OfferFault::PlainOnly => "only plain RTP is offered, and SRTP is required",
            OfferFault::BadAddress => "media cannot be sent to the address given",
            OfferFault::AnswerMismatch => "the answer does not fit the offer",
            OfferFault::OfferPending => "an offer of ours has no answer yet",
        })
    }
}

impl std::error::Error for OfferFault {}

/// The exchange of one dialog.
#[derive(Clone, Debug)]
pub struct OfferAnswer {
    session_id: u64,
    /// Of the text that was sent last; zero before the first.
    version: u64,
    sent: Option<LocalDescription>,
    state: State,
    /// The numbers that the peer last gave to what we know, and all that it ever used: a number
    /// keeps its meaning for the whole session (RFC 3264 §8.3.2).
    numbers: BTreeMap<Encoding, u8>,
    used: BTreeSet<u8>,
    keys: KeySource,
    /// The keys that were agreed on last, with the tag of their lines.
    srtp: Option<(u32, SrtpPlan)>,
}

#[derive(Clone, Debug)]
enum State {
    Stable,
    LocalOffer {
        local: LocalMedia,
        formats: Vec<(Encoding, u8)>,
        crypto: Vec<Crypto>,
        /// What was agreed before the offer: it stands again when the offer fails.
        before: Option<LocalDescription>,
    },
}

impl OfferAnswer {
    /// `session_id` is the id of `o=`: random, kept for the life of the dialog. Media keys of ours come
    /// from a seed that is drawn here.
    pub fn new(session_id: u64, entropy: &mut Entropy) -> OfferAnswer {
        OfferAnswer {
            session_id,
            version: 0,
            sent: None,
            state: State::Stable,
            numbers: BTreeMap::new(),
            used: BTreeSet::new(),
            keys: KeySource::new(entropy),
            srtp: None,
        }
    }

    /// Answers an offer, the first or a later one.
    ///
    /// # Errors
    /// Nothing suits, or our own offer is open; all stays as it was.
    pub fn answer(&mut self, offer: &[u8], local: &LocalMedia) -> Result<Answered, OfferFault> {
        if matches!(self.state, State::LocalOffer { .. }) {
            return Err(OfferFault::OfferPending);
        }
        let session = text::parse(offer).map_err(OfferFault::Malformed)?;
        let (index, mut agreed, offered) = choose_section(&session, local)?;
        let keys = offered.map(|offered| self.answer_keys(offered));
        agreed.srtp = keys.as_ref().map(|(_, plan)| plan.clone());
        let audio = Encoding::of(agreed.codec.kind, agreed.codec.format);
        let mut formats = vec![(audio, agreed.codec.receive_payload_type)];
        formats.extend(agreed.pauses.comfort_noise.map(|noise| {
            let clock_hz = agreed.codec.kind.rtp_clock_hz();
            (Encoding::ComfortNoise { clock_hz }, noise.receive_payload_type)
        }));
        formats.extend(agreed.telephone_event.map(|event| {
            let encoding = Encoding::TelephoneEvent { clock_hz: event.clock_hz };
            (encoding, event.receive_payload_type)
        }));
        let describe = |(at, section): (usize, &MediaSection)| {
            if at != index {
                return section::refuse(section);
            }
            let CodecPlan { format, ptime_ms, .. } = agreed.codec;
            let (format, mux) = (Some(format), agreed.remote.rtcp_mux);
            let (proto, direction) = (&section.proto, agreed.direction);
            let mut ours =
                section::describe(local, proto, &formats, format, ptime_ms, direction, mux);
            section::add_extended(&mut ours, agreed.control.extended);
            LocalSection { crypto: keys.iter().map(our_line).collect(), ..ours }
        };
        let sections = session.media.iter().enumerate().map(describe).collect();
        self.srtp = keys;
        if let Some(section) = session.media.get(index) {
            self.remember(&payload::formats(section));
        }
        Ok(Answered { text: self.publish(local.address, sections), agreed })
    }

    /// The keys of our answer to a line that we take. A new key of the peer's gets a new one of ours, so
    /// that both ends start anew; else both go on.
    fn answer_keys(&mut self, offered: Crypto) -> (u32, SrtpPlan) {
        let before = self.srtp.as_ref().filter(|(_, plan)| plan.receive == offered.key);
        let send = match before {
            Some((_, plan)) => plan.send.clone(),
            None => self.keys.draw(offered.key.suite()),
        };
        (offered.tag, SrtpPlan { send, receive: offered.key, mki: offered.mki })
    }

    /// The keys of our offer: those in use, those of the offer that it replaces, or new ones.
    fn offered_keys(&mut self, audio: Option<&LocalSection>, terms: SrtpTerms) -> Vec<Crypto> {
        match (&self.srtp, audio) {
            (Some(keys), _) => vec![our_line(keys)],
            (None, Some(section)) => section.crypto.clone(),
            (None, None) if terms.may_encrypt() => self.keys.offer(),
            (None, None) => Vec::new(),
        }
    }

    /// Our offer: every codec of ours, and every suite of SRTP where the terms allow it: with a plain
    /// profile unless it is required. The first one of a dialog has one section; a later one keeps
    /// the sections, profile, numbers and keys of the session. An open offer is replaced. One whose
    /// terms are not such that [`SrtpTerms::may_offer`] has no keys, and is not to be sent.
    pub fn offer(&mut self, local: &LocalMedia) -> String {
        let formats = self.offered_formats(local);
        let before = match &self.state {
            State::Stable => self.sent.clone(),
            State::LocalOffer { before, .. } => before.clone(),
        };
        let mut sections = self.sent.as_ref().map(|sent| sent.sections.clone()).unwrap_or_default();
        let audio = sections.iter_mut().find(|section| section.port != 0);
        let crypto = self.offered_keys(audio.as_deref(), local.srtp);
        let proto = match (local.srtp.policy, local.srtp.keys_are_safe) {
            (SrtpPolicy::Required, true) => "RTP/SAVP",
            (SrtpPolicy::Required, false) | (SrtpPolicy::Off | SrtpPolicy::Allowed, _) => "RTP/AVP",
        };
        let proto = audio.as_ref().map_or(proto, |section| section.proto.as_str());
        let (ptime_ms, both) = (local.ptime_ms, Direction::SendRecv);
        let mut ours = section::describe(local, proto, &formats, None, ptime_ms, both, false);
        section::add_extended(&mut ours, control::offered(local.extended));
        let ours = LocalSection { crypto: crypto.clone(), ..ours };
        match audio {
            Some(section) => *section = ours,
            None => sections.push(ours),
        }
        self.state = State::LocalOffer { local: local.clone(), formats, crypto, before };
        self.publish(local.address, sections)
    }

    /// Reads the answer to our offer. Either way the offer is done with; when it fails, what was
    /// agreed before stands again.
    ///
    /// # Errors
    /// The answer refuses the audio, breaks RFC 3264 §6, or there was no offer.
    pub fn accept_answer(&mut self, answer: &[u8]) -> Result<Agreed, OfferFault> {
        let state = std::mem::replace(&mut self.state, State::Stable);
        let State::LocalOffer { local, formats, crypto, before } = state else {
            return Err(OfferFault::AnswerMismatch);
        };
        self.used.extend(formats.iter().map(|(_, number)| *number));
        // Our offers leave RTCP a port of its own.
        let allowed = Allowed { rtcp_mux: false, extended: control::offered(local.extended) };
        let agreed = self.read_answer(answer, &local, allowed, (&formats, &crypto));
        if agreed.is_err() && self.sent != before {
            // The next description differs from the offer, which was the last to go out.
            self.version += 1;
            self.sent = before;
        }
        agreed
    }

    fn read_answer(
        &mut self,
        answer: &[u8],
        local: &LocalMedia,
        allowed: Allowed,
        (offered, crypto): (&[(Encoding, u8)], &[Crypto]),
    ) -> Result<Agreed, OfferFault> {
        let session = text::parse(answer).map_err(OfferFault::Malformed)?;
        let ours = self.sent.as_ref().map_or(&[][..], |sent| sent.sections.as_slice());
        let section = matching_section(&session, ours)?;
        let formats = payload::formats(section);
        let candidates: Vec<_> =
            formats.iter().filter_map(|format| answered_candidate(format, offered)).collect();
        let srtp = answered_crypto(section, crypto, local.srtp)?;
        let agreed = section::agree(&session, section, &candidates, local, allowed)?;
        self.remember(&formats);
        self.srtp = srtp;
        Ok(Agreed { srtp: self.srtp.as_ref().map(|(_, plan)| plan.clone()), ..agreed })
    }

    /// What our open offer describes.
    pub fn offered(&self) -> Option<&LocalMedia> {
        match &self.state {
            State::LocalOffer { local, .. } => Some(local),
            State::Stable => None,
        }
    }

    /// An offer of ours went out, and its answer has not come.
    pub fn awaits_answer(&self) -> bool {
        matches!(self.state, State::LocalOffer { .. })
    }

    /// Our open offer is for encrypted media only.
    pub fn demands_srtp(&self) -> bool {
        self.offered().is_some_and(|local| local.srtp.policy == SrtpPolicy::Required)
    }

    /// Our last description, word for word, version included: for a refresh that changes nothing.
    /// `None` before the first.
    pub fn repeat(&self) -> Option<String> {
        self.sent.as_ref().map(|sent| sent.print(self.version))
    }

    fn publish(&mut self, address: IpAddr, sections: Vec<LocalSection>) -> String {
        let description = LocalDescription { session_id: self.session_id, address, sections };
        if self.sent.as_ref() != Some(&description) {
            self.version += 1;
        }
        let text = description.print(self.version);
        self.sent = Some(description);
        text
    }

    fn remember(&mut self, formats: &[PayloadFormat]) {
        for format in formats {
            self.used.insert(format.number);
            self.numbers.extend(format.encoding.map(|encoding| (encoding, format.number)));
        }
    }

    /// All of ours with numbers: the session's own, else the usual ones, else free dynamic ones.
    fn offered_formats(&self, local: &LocalMedia) -> Vec<(Encoding, u8)> {
        let forms = |kind: &CodecKind| {
            let kind = *kind;
            Form::all(kind).iter().map(move |form| Encoding::Audio(kind, *form))
        };
        let mut encodings: Vec<_> = local.codecs.iter().flat_map(forms).collect();
        if local.silence_suppression {
            let telling = local.codecs.iter().filter(|kind| !kind.tells_pauses());
            let clocks: BTreeSet<u32> = telling.map(|kind| kind.rtp_clock_hz()).collect();
            encodings
                .extend(clocks.into_iter().map(|clock_hz| Encoding::ComfortNoise { clock_hz }));
        }
        if local.telephone_event {
            let clocks: BTreeSet<u32> =
                local.codecs.iter().map(|kind| kind.rtp_clock_hz()).collect();
            encodings
                .extend(clocks.into_iter().map(|clock_hz| Encoding::TelephoneEvent { clock_hz }));
        }
        let mut used = self.used.clone();
        let mut formats = Vec::with_capacity(encodings.len());
        for encoding in encodings {
            let usual = payload::default_number(encoding);
            // A codec does not take the number that everybody knows events by.
            let is_audio = matches!(encoding, Encoding::Audio(..));
            let is_free = |number: &u8| {
                let is_of_events = is_audio && *number == payload::EVENTS_USUAL;
                !is_of_events && !used.contains(number)
            };
            let free = || [usual].into_iter().chain(96..=127).find(is_free);
            let Some(number) = self.numbers.get(&encoding).copied().or_else(free) else { continue };
            used.insert(number);
            formats.push((encoding, number));
        }
        formats
    }
}

/// The first audio section that suits, an encrypted one before a plain one, with what is agreed on it
/// and the keys that it brings. When none does, the fault of the first whose security suits; security
/// is the fault only when it is everywhere.
fn choose_section(
    session: &SessionDescription,
    local: &LocalMedia,
) -> Result<(usize, Agreed, Option<Crypto>), OfferFault> {
    let mut fault = OfferFault::NoAudio;
    let mut plain = None;
    for (index, section) in session.media.iter().enumerate() {
        if !section.media.eq_ignore_ascii_case("audio") || section.port == 0 {
            continue;
        }
        let security = match section::profile(&section.proto) {
            Profile::Plain => crypto::of_offer(section, false, local.srtp),
            Profile::Encrypted => crypto::of_offer(section, true, local.srtp),
            Profile::Other => Err(OfferFault::NoAudio),
        };
        let found = security.and_then(|crypto| {
            let candidates = offered_candidates(section, local);
            let extended = control::answerable(local.extended);
            let allowed = Allowed { rtcp_mux: true, extended };
            let found = section::agree(session, section, &candidates, local, allowed);
            found.map(|found| (found, crypto))
        });
        match found {
            Ok((agreed, Some(crypto))) => return Ok((index, agreed, Some(crypto))),
            Ok((agreed, None)) => plain = plain.or(Some((index, agreed, None))),
            Err(found) if fault == OfferFault::NoAudio || is_of_security(&fault) => {
                let keep = found == OfferFault::NoAudio
                    || is_of_security(&found) && is_of_security(&fault);
                fault = if keep { fault } else { found };
            }
            Err(_) => {}
        }
    }
    plain.ok_or(fault)
}

fn our_line((tag, plan): &(u32, SrtpPlan)) -> Crypto {
    Crypto { tag: *tag, key: plan.send.clone(), mki: None }
}

fn is_of_security(fault: &OfferFault) -> bool {
    match fault {
        OfferFault::EncryptedOnly
        | OfferFault::NoUsableKeys
        | OfferFault::KeysInClear
        | OfferFault::PlainOnly => true,
        OfferFault::Malformed(_)
        | OfferFault::NoCommonCodec
        | OfferFault::NoAudio
        | OfferFault::BadAddress
        | OfferFault::AnswerMismatch
        | OfferFault::OfferPending => false,
    }
}

/// The keys of an answer to our lines, with their tag. An answer without any makes plain what was
/// offered with a plain profile, unless SRTP is required.
fn answered_crypto(
    section: &MediaSection,
    offered: &[Crypto],
    terms: SrtpTerms,
) -> Result<Option<(u32, SrtpPlan)>, OfferFault> {
    if let Some((ours, taken)) = crypto::of_answer(section, offered) {
        let (send, receive, mki) = (ours.key.clone(), taken.key, taken.mki);
        return Ok(Some((ours.tag, SrtpPlan { send, receive, mki })));
    }
    // AVP answered by AVPF and the reverse is common and harmless.
    match section::profile(&section.proto) {
        Profile::Plain if terms.policy == SrtpPolicy::Required => Err(OfferFault::PlainOnly),
        Profile::Plain => Ok(None),
        Profile::Encrypted | Profile::Other => Err(OfferFault::AnswerMismatch),
    }
}

/// The formats of an offer that we have too, in our order of preference; one number serves both
/// directions (RFC 3264 §6.1).
fn offered_candidates(section: &MediaSection, local: &LocalMedia) -> Vec<Candidate> {
    let mut ranked: Vec<(usize, Candidate)> = Vec::new();
    for format in payload::formats(section) {
        let Some(encoding) = format.encoding else { continue };
        let rank = match encoding {
            Encoding::Audio(kind, _) => local.codecs.iter().position(|have| *have == kind),
            Encoding::TelephoneEvent { .. } => local.telephone_event.then_some(usize::MAX),
            Encoding::ComfortNoise { .. } => Some(usize::MAX),
        };
        let Some(rank) = rank else { continue };
        let number = format.number;
        ranked.push((rank, Candidate { encoding, send: number, receive: number, format }));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The answer's section that belongs to our audio (RFC 3264 §6: same count, same order).
fn matching_section<'a>(
    session: &'a SessionDescription,
    ours: &[LocalSection],
) -> Result<&'a MediaSection, OfferFault> {
    let mut found = None;
    if session.media.len() != ours.len() {
        return Err(OfferFault::AnswerMismatch);
    }
    for (theirs, ours) in session.media.iter().zip(ours) {
        let fits = theirs.media.eq_ignore_ascii_case(&ours.media);
        if !fits || ours.port == 0 && theirs.port != 0 {
            return Err(OfferFault::AnswerMismatch);
        }
        if ours.port != 0 {
            found = Some(theirs);
        }
    }
    let section = found.ok_or(OfferFault::AnswerMismatch)?;
    if section.port == 0 {
        return Err(OfferFault::NoAudio);
    }
    Ok(section)
}

/// A format of an answer that we offered. The answer may number it anew; a number that it leaves
/// unnamed, or names without the parameters, means what it meant in our offer.
fn answered_candidate(format: &PayloadFormat, offered: &[(Encoding, u8)]) -> Option<Candidate> {
    let send = format.number;
    let by_number = offered.iter().find_map(|(encoding, number)| {
        let meant = format.meant_as(*encoding).filter(|_| *number == send)?;
        Some((*encoding, *number, meant))
    });
    if let Some((encoding, receive, meant)) = by_number {
        let mut format = format.clone();
        format.format = meant;
        return Some(Candidate { encoding, send, receive, format });
    }
    let by_name = offered.iter().find(|(encoding, _)| Some(*encoding) == format.encoding);
    let (encoding, receive) = *by_name?;
    Some(Candidate { encoding, send, receive, format: format.clone() })
}
