//! Payload numbers and what they stand for: `a=rtpmap` and `a=fmtp` (RFC 8866 §6.6, §6.15), the
//! static numbers of RFC 3551 that need no rtpmap, and the encoding names of our codecs. What the
//! parameters of each codec mean is [`super::fmtp`]'s. Order of lines does not matter; unknown formats
//! are kept as unknown.

use super::fmtp;
use super::text::MediaSection;
use crate::codec::amr_wb::{self, Packing};
use crate::codec::{CodecFormat, CodecKind, G7221Rate};

/// What we know a payload number to stand for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Encoding {
    Audio(CodecKind, Form),
    /// RFC 4733 events; the clock of their timestamps in hertz.
    TelephoneEvent {
        clock_hz: u32,
    },
    /// RFC 3389 comfort noise; the clock of the codec whose pauses it tells of.
    ComfortNoise {
        clock_hz: u32,
    },
}

/// Forms of a codec that one stream never mixes: each has payload numbers of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Form {
    /// The codec's only one; parameters are agreed on, not numbered.
    Only,
    G7221(G7221Rate),
    AmrWb(Packing),
}

impl Encoding {
    /// The codec in the form that we like best.
    pub fn audio(kind: CodecKind) -> Encoding {
        Encoding::Audio(kind, Form::all(kind)[0])
    }

    /// What is agreed on, as a payload number stands for it.
    pub(super) fn of(kind: CodecKind, format: CodecFormat) -> Encoding {
        let form = match kind {
            CodecKind::G7221 => Form::G7221(format.g7221()),
            CodecKind::AmrWb => Form::AmrWb(format.amr_wb().packing),
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Opus
            | CodecKind::Ilbc => Form::Only,
        };
        Encoding::Audio(kind, form)
    }

    /// The codec's format that is said by nothing but the form.
    fn format(self) -> CodecFormat {
        match self {
            Encoding::Audio(_, Form::G7221(rate)) => CodecFormat::G7221(rate),
            Encoding::Audio(_, Form::AmrWb(packing)) => {
                CodecFormat::AmrWb(amr_wb::Format { packing, ..amr_wb::Format::default() })
            }
            Encoding::Audio(_, Form::Only)
            | Encoding::TelephoneEvent { .. }
            | Encoding::ComfortNoise { .. } => CodecFormat::Usual,
        }
    }
}

impl Form {
    /// The forms of a codec, the most wanted first.
    pub(super) fn all(kind: CodecKind) -> &'static [Form] {
        match kind {
            CodecKind::G7221 => &[Form::G7221(G7221Rate::K32), Form::G7221(G7221Rate::K24)],
            CodecKind::AmrWb => {
                &[Form::AmrWb(Packing::BandwidthEfficient), Form::AmrWb(Packing::OctetAligned)]
            }
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Opus
            | CodecKind::Ilbc => &[Form::Only],
        }
    }
}

/// One format of an `m=audio` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadFormat {
    pub number: u8,
    /// `None` for what we cannot decode: never chosen.
    pub encoding: Option<Encoding>,
    /// What its parameters settle of the codec.
    pub format: CodecFormat,
    /// True when an `a=rtpmap` named the encoding; false for a bare number.
    pub named: bool,
    /// The codec that its rtpmap or static number names, also where its parameters are none of ours.
    kind: Option<CodecKind>,
    /// The raw value of its `a=fmtp`, empty when it has none.
    fmtp: String,
}

impl PayloadFormat {
    /// The value of a format parameter, by case-insensitive name. Parameters are divided by `;`
    /// with or without blanks.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        parameter(&self.fmtp, name)
    }

    /// What is settled when an answer gives this number, which our offer gave to `offered`: `None`
    /// where the answer says that the number means something else now.
    pub(super) fn meant_as(&self, offered: Encoding) -> Option<CodecFormat> {
        let Encoding::Audio(kind, form) = offered else {
            return (!self.named).then_some(CodecFormat::Usual);
        };
        match (self.named, self.fmtp.is_empty()) {
            (false, true) => Some(offered.format()),
            (false, false) => {
                fmtp::read(kind, &self.fmtp).filter(|(have, _)| *have == form).map(|(_, read)| read)
            }
            (true, true) => {
                (form != Form::Only && self.kind == Some(kind)).then(|| offered.format())
            }
            (true, false) => None,
        }
    }
}

/// The value of a parameter in the value of an `a=fmtp`.
pub(super) fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (have, value) = part.split_once('=')?;
        have.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// The formats of an RTP section in the peer's order. What is no payload number of RTP (0–127) is
/// left out; a number that is listed twice counts once.
pub fn formats(section: &MediaSection) -> Vec<PayloadFormat> {
    let mut formats: Vec<PayloadFormat> = Vec::new();
    for text in &section.formats {
        let Some(number) = payload_number(text) else { continue };
        if formats.iter().any(|format| format.number == number) {
            continue;
        }
        let rtpmap = value_for(section, "rtpmap", number);
        let name = rtpmap.map_or_else(|| static_name(number), read_rtpmap);
        let fmtp = value_for(section, "fmtp", number).unwrap_or_default();
        let (encoding, format) = match name {
            Some(Name::Audio(kind)) => fmtp::read(kind, fmtp)
                .map(|(form, format)| (Encoding::Audio(kind, form), format))
                .unzip(),
            Some(Name::TelephoneEvent { clock_hz }) => {
                (Some(Encoding::TelephoneEvent { clock_hz }), None)
            }
            Some(Name::ComfortNoise { clock_hz }) => {
                (Some(Encoding::ComfortNoise { clock_hz }), None)
            }
            None => (None, None),
        };
        formats.push(PayloadFormat {
            number,
            encoding,
            format: format.unwrap_or_default(),
            named: rtpmap.is_some(),
            kind: name.and_then(Name::kind),
            fmtp: fmtp.to_owned(),
        });
    }
    formats
}

fn payload_number(text: &str) -> Option<u8> {
    text.parse().ok().filter(|number| *number < 128)
}

/// The rest of the first `a=<name>:<number> <rest>`.
fn value_for<'a>(section: &'a MediaSection, name: &'static str, number: u8) -> Option<&'a str> {
    section.attributes.all(name).find_map(|value| {
        let (have, rest) = value.split_once([' ', '\t'])?;
        (payload_number(have) == Some(number)).then(|| rest.trim())
    })
}

/// What an rtpmap names, before parameters are looked at.
#[derive(Clone, Copy)]
enum Name {
    Audio(CodecKind),
    TelephoneEvent { clock_hz: u32 },
    ComfortNoise { clock_hz: u32 },
}

impl Name {
    fn kind(self) -> Option<CodecKind> {
        match self {
            Name::Audio(kind) => Some(kind),
            Name::TelephoneEvent { .. } | Name::ComfortNoise { .. } => None,
        }
    }
}

/// Reads `<encoding name>/<clock rate>[/<channels>]`.
fn read_rtpmap(value: &str) -> Option<Name> {
    let mut parts = value.split('/').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let clock_hz: u32 = parts.next().and_then(|clock| clock.parse().ok()).unwrap_or(0);
    let channels = parts.next().unwrap_or("1");
    let is_known = [8_000, 16_000, 32_000, 48_000].contains(&clock_hz) && channels == "1";
    if name.eq_ignore_ascii_case("telephone-event") {
        return is_known.then_some(Name::TelephoneEvent { clock_hz });
    }
    if name.eq_ignore_ascii_case("CN") {
        return is_known.then_some(Name::ComfortNoise { clock_hz });
    }
    let is_named = |kind: &CodecKind| kind.encoding_name().eq_ignore_ascii_case(name);
    let kind = CodecKind::ALL.into_iter().find(is_named)?;
    // RFC 7587 §7 demands `/2` of Opus; devices that leave it out mean the same stream.
    let fits = channels == "1" || channels == kind.channels_in_rtpmap().to_string();
    (clock_hz == kind.rtp_clock_hz() && fits).then_some(Name::Audio(kind))
}

fn static_name(number: u8) -> Option<Name> {
    if NOISE_NUMBERS.contains(&number) {
        return Some(Name::ComfortNoise { clock_hz: 8_000 });
    }
    let is_its = |kind: &CodecKind| kind.static_payload_type() == Some(number);
    CodecKind::ALL.into_iter().find(is_its).map(Name::Audio)
}

/// Comfort noise at 8 kHz: its number (RFC 3551 §6), and the one that gateways gave it before it had
/// one, which is reserved since then.
const NOISE_NUMBERS: [u8; 2] = [13, 19];

/// The number that most of the world gives to events at 8 kHz.
pub(super) const EVENTS_USUAL: u8 = 101;

/// The number that we give an encoding when nothing else is agreed (RFC 3551 §6; dynamic ones from
/// 96 upwards).
pub fn default_number(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Audio(kind, _) => kind.static_payload_type().unwrap_or(96),
        Encoding::TelephoneEvent { clock_hz: 8_000 } => EVENTS_USUAL,
        Encoding::TelephoneEvent { .. } => 100,
        Encoding::ComfortNoise { clock_hz: 8_000 } => NOISE_NUMBERS[0],
        Encoding::ComfortNoise { .. } => 105,
    }
}

/// The value of our `a=rtpmap` for `number`.
pub fn rtpmap(number: u8, encoding: Encoding) -> String {
    match encoding {
        Encoding::Audio(kind, _) => {
            let channels = match kind.channels_in_rtpmap() {
                1 => String::new(),
                channels => format!("/{channels}"),
            };
            format!("{number} {}/{}{channels}", kind.encoding_name(), kind.rtp_clock_hz())
        }
        Encoding::TelephoneEvent { clock_hz } => format!("{number} telephone-event/{clock_hz}"),
        Encoding::ComfortNoise { clock_hz } => format!("{number} CN/{clock_hz}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    fn check(lines: &str, expected: &[(u8, Option<Encoding>)]) -> Vec<PayloadFormat> {
        let body = format!("v=0\r\nc=IN IP4 192.0.2.1\r\n{lines}\r\n");
        let session = text::parse(body.as_bytes()).expect("readable");
        let have = formats(session.media.first().expect("a section"));
        let pairs: Vec<_> = have.iter().map(|format| (format.number, format.encoding)).collect();
        assert_eq!(pairs, expected, "{lines}");
        have
    }

    #[test]
    fn numbers_mean_what_rtpmap_says_else_what_rfc_3551_says() {
        let audio = |kind| Some(Encoding::audio(kind));
        let (pcmu, pcma) = (audio(CodecKind::Pcmu), audio(CodecKind::Pcma));
        let (g722, opus) = (audio(CodecKind::G722), audio(CodecKind::Opus));
        let event = |clock_hz| Some(Encoding::TelephoneEvent { clock_hz });
        let (two, one) = ("a=rtpmap:96 OPUS/48000/2", "a=rtpmap:97 opus/48000");
        check("m=audio 1 RTP/AVP 0 8 9 18", &[(0, pcmu), (8, pcma), (9, g722), (18, None)]);
        check("m=audio 1 RTP/AVP 0\r\na=rtpmap:0 pcma/8000/1", &[(0, pcma)]);
        check(&format!("m=audio 1 RTP/AVP 96 97\r\n{one}\r\n{two}"), &[(96, opus), (97, opus)]);
        check("m=audio 1 RTP/AVP 96\r\na=rtpmap:96 opus/16000/2", &[(96, None)]);
        check("m=audio 1 RTP/AVP 9\r\na=rtpmap:9 G722/16000", &[(9, None)]);
        check("m=audio 1 RTP/AVP 96 128 x 0 0 -1", &[(96, None), (0, pcmu)]);
        check("m=audio 1 RTP/AVP 99\r\na=rtpmap:99 telephone-event/16000", &[(99, event(16_000))]);
        check("m=audio 1 RTP/AVP 99\r\na=rtpmap:99 Telephone-Event/8000", &[(99, event(8_000))]);
        check("m=audio 1 RTP/AVP 99\r\na=rtpmap:99\r\na=rtpmap:99 telephone-event", &[(99, None)]);
        let noise = |clock_hz| Some(Encoding::ComfortNoise { clock_hz });
        check("m=audio 1 RTP/AVP 13 19", &[(13, noise(8_000)), (19, noise(8_000))]);
        check("m=audio 1 RTP/AVP 98\r\na=rtpmap:98 cn/16000", &[(98, noise(16_000))]);
        check("m=audio 1 RTP/AVP 98\r\na=rtpmap:98 CN/11025", &[(98, None)]);
    }

    #[test]
    fn parameters_are_read_with_and_without_blanks_and_before_the_rtpmap() {
        let fmtp = "a=fmtp:102 useinbandfec=1; MaxPtime=40 ;minptime=10";
        let lines = format!("m=audio 1 RTP/AVP 102\r\n{fmtp}\r\na=rtpmap:102 opus/48000/2");
        let formats = check(&lines, &[(102, Some(Encoding::audio(CodecKind::Opus)))]);
        let format = formats.first().expect("one");
        let read =
            ["useinbandfec", "maxptime", "minptime", "ptime"].map(|name| format.parameter(name));
        assert_eq!(read, [Some("1"), Some("40"), Some("10"), None]);
    }
}
