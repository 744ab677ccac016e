//! Payload numbers and what they stand for: `a=rtpmap` and `a=fmtp` (RFC 8866 §6.6, §6.15), the
//! static numbers of RFC 3551 that need no rtpmap, and the encoding names of our codecs (RFC 3551,
//! RFC 4733, RFC 7587). Order of lines does not matter; unknown formats are kept as unknown.

use super::text::MediaSection;
use crate::codec::CodecKind;

/// Every codec that a description may name.
const KINDS: [CodecKind; 4] = [CodecKind::Opus, CodecKind::G722, CodecKind::Pcmu, CodecKind::Pcma];

/// What we know a payload number to stand for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Encoding {
    Audio(CodecKind),
    /// RFC 4733 events; the clock of their timestamps in hertz.
    TelephoneEvent {
        clock_hz: u32,
    },
}

/// One format of an `m=audio` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadFormat {
    pub number: u8,
    /// `None` for what we cannot decode: never chosen.
    pub encoding: Option<Encoding>,
    /// True when an `a=rtpmap` named the encoding; false for a bare number.
    pub named: bool,
    /// The raw value of its `a=fmtp`, empty when it has none.
    fmtp: String,
}

impl PayloadFormat {
    /// The value of a format parameter, by case-insensitive name. Parameters are divided by `;`
    /// with or without blanks.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|part| {
            let (have, value) = part.split_once('=')?;
            have.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
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
        formats.push(PayloadFormat {
            number,
            encoding: rtpmap.map_or_else(|| static_encoding(number), read_rtpmap),
            named: rtpmap.is_some(),
            fmtp: value_for(section, "fmtp", number).unwrap_or_default().to_owned(),
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

/// Reads `<encoding name>/<clock rate>[/<channels>]`.
fn read_rtpmap(value: &str) -> Option<Encoding> {
    let mut parts = value.split('/').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let clock_hz: u32 = parts.next().and_then(|clock| clock.parse().ok()).unwrap_or(0);
    let channels = parts.next().unwrap_or("1");
    if name.eq_ignore_ascii_case("telephone-event") {
        let is_known = [8_000, 16_000, 32_000, 48_000].contains(&clock_hz) && channels == "1";
        return is_known.then_some(Encoding::TelephoneEvent { clock_hz });
    }
    let is_named = |kind: &CodecKind| kind.encoding_name().eq_ignore_ascii_case(name);
    let kind = KINDS.into_iter().find(is_named)?;
    // RFC 7587 §7 demands `/2` of Opus; devices that leave it out mean the same stream.
    let fits = channels == "1" || channels == kind.channels_in_rtpmap().to_string();
    (clock_hz == kind.rtp_clock_hz() && fits).then_some(Encoding::Audio(kind))
}

fn static_encoding(number: u8) -> Option<Encoding> {
    let kind = KINDS.into_iter().find(|kind| kind.static_payload_type() == Some(number))?;
    Some(Encoding::Audio(kind))
}

/// The number that we give an encoding when nothing else is agreed (RFC 3551 §6; dynamic ones from
/// 96 upwards).
pub fn default_number(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Audio(kind) => kind.static_payload_type().unwrap_or(96),
        Encoding::TelephoneEvent { clock_hz: 8_000 } => 101,
        Encoding::TelephoneEvent { .. } => 100,
    }
}

/// The value of our `a=rtpmap` for `number`.
pub fn rtpmap(number: u8, encoding: Encoding) -> String {
    match encoding {
        Encoding::Audio(kind) => {
            let channels = match kind.channels_in_rtpmap() {
                1 => String::new(),
                channels => format!("/{channels}"),
            };
            format!("{number} {}/{}{channels}", kind.encoding_name(), kind.rtp_clock_hz())
        }
        Encoding::TelephoneEvent { clock_hz } => format!("{number} telephone-event/{clock_hz}"),
    }
}

/// The value of our `a=fmtp` for `number`, where the encoding has one.
pub fn fmtp(number: u8, encoding: Encoding, opus_fec: bool) -> Option<String> {
    match encoding {
        Encoding::Audio(CodecKind::Opus) => {
            Some(format!("{number} minptime=10;useinbandfec={}", u8::from(opus_fec)))
        }
        Encoding::TelephoneEvent { .. } => Some(format!("{number} 0-15")),
        Encoding::Audio(_) => None,
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
        let audio = |kind| Some(Encoding::Audio(kind));
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
    }

    #[test]
    fn parameters_are_read_with_and_without_blanks_and_before_the_rtpmap() {
        let fmtp = "a=fmtp:102 useinbandfec=1; MaxPtime=40 ;minptime=10";
        let lines = format!("m=audio 1 RTP/AVP 102\r\n{fmtp}\r\na=rtpmap:102 opus/48000/2");
        let formats = check(&lines, &[(102, Some(Encoding::Audio(CodecKind::Opus)))]);
        let format = formats.first().expect("one");
        let read =
            ["useinbandfec", "maxptime", "minptime", "ptime"].map(|name| format.parameter(name));
        assert_eq!(read, [Some("1"), Some("40"), Some("10"), None]);
    }
}
