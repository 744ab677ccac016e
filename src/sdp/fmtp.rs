//! Format parameters (`a=fmtp`) of each codec, read from a peer's description and written into ours:
//! iLBC (RFC 3952 §5), AMR-WB (RFC 4867 §8), G.722.1 (RFC 5577 §5), Opus (RFC 7587 §6 and §7).
//!
//! A format whose parameters ask for what we do not have is none of ours. What we do not know is
//! passed over, as all of these RFCs say.

use super::payload::{Encoding, Form, parameter};
use crate::codec::amr_wb::{self, Mode, ModeSet, Packing};
use crate::codec::{CodecFormat, CodecKind, G7221Rate, IlbcMode, OpusFormat};

/// What the parameters of a payload number make of its codec; `None` for none of ours.
pub(super) fn read(kind: CodecKind, fmtp: &str) -> Option<(Form, CodecFormat)> {
    match kind {
        CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 => {
            Some((Form::Only, CodecFormat::Usual))
        }
        CodecKind::Opus => Some((Form::Only, CodecFormat::Opus(read_opus(fmtp)))),
        CodecKind::Ilbc => Some((Form::Only, CodecFormat::Ilbc(read_ilbc(fmtp)))),
        CodecKind::G7221 => {
            let rate = read_g7221(fmtp)?;
            Some((Form::G7221(rate), CodecFormat::G7221(rate)))
        }
        CodecKind::AmrWb => {
            let format = read_amr_wb(fmtp)?;
            Some((Form::AmrWb(format.packing), CodecFormat::AmrWb(format)))
        }
    }
}

/// Limits on what we send. What makes no sense limits nothing. `stereo` asks for what we need not
/// give: we answer, and send, mono (§7).
fn read_opus(fmtp: &str) -> OpusFormat {
    let number = |name| parameter(fmtp, name).and_then(|value| value.parse::<u32>().ok());
    let usual = OpusFormat::default();
    let within = |range: std::ops::RangeInclusive<u32>| move |value: &u32| range.contains(value);
    OpusFormat {
        playback_hz: number("maxplaybackrate")
            .filter(within(8_000..=48_000))
            .unwrap_or(usual.playback_hz),
        bitrate_max: number("maxaveragebitrate")
            .filter(within(6_000..=510_000))
            .unwrap_or(usual.bitrate_max),
        constant: number("cbr") == Some(1),
        dtx: number("usedtx") == Some(1),
    }
}

/// 30 ms unless 20 are asked for; between two wishes the longer one counts (§5).
fn read_ilbc(fmtp: &str) -> IlbcMode {
    match parameter(fmtp, "mode") {
        Some("20") => IlbcMode::Ms20,
        _ => IlbcMode::Ms30,
    }
}

/// The bit rate must stand there (§5). Others than ours belong to other codecs of that name.
fn read_g7221(fmtp: &str) -> Option<G7221Rate> {
    match parameter(fmtp, "bitrate")? {
        "24000" => Some(G7221Rate::K24),
        "32000" => Some(G7221Rate::K32),
        _ => None,
    }
}

/// CRC, robust sorting and interleaving are not ours (§8.1); each of them is refused with its format.
fn read_amr_wb(fmtp: &str) -> Option<amr_wb::Format> {
    let is_on = |name| parameter(fmtp, name).is_some_and(|value| value != "0");
    if is_on("crc") || is_on("robust-sorting") || is_on("interleaving") {
        return None;
    }
    if parameter(fmtp, "channels").is_some_and(|value| value != "1") {
        return None;
    }
    let packing = match parameter(fmtp, "octet-align") {
        None | Some("0") => Packing::BandwidthEfficient,
        Some("1") => Packing::OctetAligned,
        Some(_) => return None,
    };
    let modes = match parameter(fmtp, "mode-set") {
        None => None,
        Some(list) => Some(read_mode_set(list)?),
    };
    Some(amr_wb::Format {
        packing,
        modes,
        every_second_frame: parameter(fmtp, "mode-change-period") == Some("2"),
        neighbours_only: parameter(fmtp, "mode-change-neighbor") == Some("1"),
    })
}

/// Numbers from 0 to 8 with commas between; anything else is no set.
fn read_mode_set(list: &str) -> Option<ModeSet> {
    let mode = |word: &str| word.trim().parse().ok().and_then(Mode::new);
    let modes: Option<Vec<Mode>> = list.split(',').map(mode).collect();
    ModeSet::of(modes?.into_iter())
}

/// Our parameters for an encoding; `None` where it has none. An answer repeats what was `agreed`; an
/// offer has no such thing and says what we like best, in packets of `ptime_ms`.
pub(super) fn write(
    encoding: Encoding,
    agreed: Option<CodecFormat>,
    ptime_ms: u16,
    opus_fec: bool,
) -> Option<String> {
    let (kind, form) = match encoding {
        Encoding::TelephoneEvent { .. } => return Some("0-15".to_owned()),
        Encoding::ComfortNoise { .. } => return None,
        Encoding::Audio(kind, form) => (kind, form),
    };
    match (kind, form) {
        (CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722, _) => None,
        (CodecKind::Opus, _) => Some(format!("minptime=10;useinbandfec={}", u8::from(opus_fec))),
        (CodecKind::Ilbc, _) => {
            let mode = agreed.map_or_else(|| offered_mode(ptime_ms), CodecFormat::ilbc);
            Some(format!("mode={}", if mode == IlbcMode::Ms20 { 20 } else { 30 }))
        }
        (_, Form::G7221(rate)) => {
            Some(format!("bitrate={}", if rate == G7221Rate::K24 { 24_000 } else { 32_000 }))
        }
        (_, Form::AmrWb(packing)) => {
            let parameters = match agreed {
                Some(format) => write_amr_wb(format.amr_wb()),
                // Our offers are kept short: an INVITE of 1,300 bytes has to go over TCP.
                None if packing == Packing::OctetAligned => "octet-align=1".to_owned(),
                None => return None,
            };
            Some(parameters)
        }
        (CodecKind::G7221 | CodecKind::AmrWb, Form::Only) => None,
    }
}

/// The frame length of iLBC that fills packets of `ptime_ms`.
fn offered_mode(ptime_ms: u16) -> IlbcMode {
    match ptime_ms.is_multiple_of(20) || !ptime_ms.is_multiple_of(30) {
        true => IlbcMode::Ms20,
        false => IlbcMode::Ms30,
    }
}

/// What restricts both sides is repeated in full (§8.3.1). That our mode may keep to every
/// second frame (`mode-change-capability=2`) is what gateways to GSM networks need to know.
fn write_amr_wb(format: amr_wb::Format) -> String {
    let mut words = Vec::new();
    if format.packing == Packing::OctetAligned {
        words.push("octet-align=1".to_owned());
    }
    if let Some(modes) = format.modes {
        let modes: Vec<String> = modes.modes().map(|mode| mode.number().to_string()).collect();
        words.push(format!("mode-set={}", modes.join(",")));
    }
    if format.every_second_frame {
        words.push("mode-change-period=2".to_owned());
    }
    words.push("mode-change-capability=2".to_owned());
    if format.neighbours_only {
        words.push("mode-change-neighbor=1".to_owned());
    }
    words.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opus(playback_hz: u32, bitrate_max: u32, constant: bool, dtx: bool) -> CodecFormat {
        CodecFormat::Opus(OpusFormat { playback_hz, bitrate_max, constant, dtx })
    }

    #[test]
    fn opus_limits_are_read_and_nonsense_limits_nothing() {
        let full = "maxplaybackrate=16000; maxaveragebitrate=20000;stereo=1;cbr=1;useinbandfec=1; UseDtx=1";
        for (fmtp, expected) in [
            ("", opus(48_000, 510_000, false, false)),
            (full, opus(16_000, 20_000, true, true)),
            ("maxplaybackrate=7999;maxaveragebitrate=5999", opus(48_000, 510_000, false, false)),
            ("maxplaybackrate=x;maxaveragebitrate=-1;cbr=", opus(48_000, 510_000, false, false)),
            ("maxaveragebitrate=99999999999999999999", opus(48_000, 510_000, false, false)),
        ] {
            assert_eq!(read(CodecKind::Opus, fmtp), Some((Form::Only, expected)), "{fmtp}");
        }
    }

    #[test]
    fn ilbc_is_of_30_ms_unless_20_are_said() {
        for (fmtp, mode) in [
            ("", IlbcMode::Ms30),
            ("mode=20", IlbcMode::Ms20),
            ("Mode = 20", IlbcMode::Ms20),
            ("mode=30", IlbcMode::Ms30),
            ("mode=40", IlbcMode::Ms30),
            ("mode=", IlbcMode::Ms30),
        ] {
            let expected = (Form::Only, CodecFormat::Ilbc(mode));
            assert_eq!(read(CodecKind::Ilbc, fmtp), Some(expected), "{fmtp}");
        }
    }

    #[test]
    fn g7221_has_a_bit_rate_or_is_none_of_ours() {
        let rate = |fmtp| read(CodecKind::G7221, fmtp).map(|(_, format)| format.g7221());
        assert_eq!(rate("bitrate=24000"), Some(G7221Rate::K24));
        assert_eq!(rate("BitRate=32000"), Some(G7221Rate::K32));
        assert_eq!(rate("bitrate=16000"), None);
        assert_eq!(rate(""), None);
    }

    #[test]
    fn amr_wb_is_taken_with_what_we_have_and_its_restrictions_repeated() {
        for (fmtp, ours) in [
            ("", "mode-change-capability=2"),
            ("octet-align=0", "mode-change-capability=2"),
            ("octet-align=1", "octet-align=1;mode-change-capability=2"),
            ("mode-set=0,1,2; max-red=0", "mode-set=0,1,2;mode-change-capability=2"),
            (
                "mode-set=8, 2 ,0;octet-align=1;crc=0;robust-sorting=0",
                "octet-align=1;mode-set=0,2,8;mode-change-capability=2",
            ),
            (
                "mode-change-period=2;mode-change-neighbor=1;mode-change-capability=2;max-red=220",
                "mode-change-period=2;mode-change-capability=2;mode-change-neighbor=1",
            ),
        ] {
            let (form, format) = read(CodecKind::AmrWb, fmtp).expect(fmtp);
            let encoding = Encoding::Audio(CodecKind::AmrWb, form);
            assert_eq!(write(encoding, Some(format), 20, true).as_deref(), Some(ours), "{fmtp}");
        }
        for fmtp in [
            "octet-align=1;crc=1",
            "octet-align=1; robust-sorting=1",
            "interleaving=30",
            "octet-align=2",
            "octet-align=",
            "channels=2",
            "mode-set=",
            "mode-set=9",
            "mode-set=0;mode-set=1,x",
            "mode-set=0,,1",
        ] {
            let first = fmtp.starts_with("mode-set=0;");
            assert_eq!(read(CodecKind::AmrWb, fmtp).is_some(), first, "{fmtp}");
        }
    }
}
