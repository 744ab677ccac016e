//! Codecs with parameters, as whole offers and answers: AMR-WB (RFC 4867 §8.3), G.722.1 (RFC 5577 §5),
//! iLBC (RFC 3952 §5), Opus (RFC 7587 §7).

use super::{local, offer, opened};
use crate::codec::CodecKind::{AmrWb, G722, G7221, Ilbc, Opus, Pcma, Pcmu};
use crate::codec::amr_wb::{self, Mode, ModeSet, Packing};
use crate::codec::{CodecFormat, CodecKind, G7221Rate, IlbcMode, opus};
use crate::sdp::{Agreed, LocalMedia, OfferAnswer, OfferFault};

fn with(codecs: &[CodecKind]) -> LocalMedia {
    LocalMedia { codecs: codecs.to_vec(), ..local() }
}

/// Our answer's media lines joined with ` | `, and what is agreed.
fn answered(lines: &[&str], local: &LocalMedia) -> Result<(String, Agreed), OfferFault> {
    let answered = opened(7).answer(offer(lines).as_bytes(), local)?;
    let media: Vec<&str> = answered.text.lines().skip(5).collect();
    Ok((media.join(" | "), answered.agreed))
}

fn check(lines: &[&str], codecs: &[CodecKind], ours: &str, format: CodecFormat, ptime_ms: u16) {
    let (text, agreed) = answered(lines, &with(codecs)).expect("an answer");
    let expected = format!("{ours} | a=ptime:{ptime_ms} | a=sendrecv");
    assert_eq!(text, expected, "{lines:?}");
    assert_eq!((agreed.codec.format, agreed.codec.ptime_ms), (format, ptime_ms), "{lines:?}");
}

fn modes(numbers: &[u8]) -> Option<ModeSet> {
    ModeSet::of(numbers.iter().filter_map(|number| Mode::new(*number)))
}

#[test]
fn amr_wb_is_answered_in_the_packing_and_the_modes_of_the_offer() {
    let usual = amr_wb::Format::default();
    let aligned = amr_wb::Format { packing: Packing::OctetAligned, ..usual };
    check(
        &["m=audio 4000 RTP/AVP 98 0", "a=rtpmap:98 AMR-WB/16000"],
        &[AmrWb, Pcmu],
        "m=audio 30000 RTP/AVP 98 | a=rtpmap:98 AMR-WB/16000 | \
         a=fmtp:98 mode-change-capability=2",
        CodecFormat::AmrWb(usual),
        20,
    );
    check(
        &[
            "m=audio 4000 RTP/AVP 98",
            "a=rtpmap:98 amr-wb/16000/1",
            "a=fmtp:98 octet-align=1; mode-set=0,1,2; mode-change-period=2",
            "a=ptime:30",
            "a=maxptime:240",
        ],
        &[AmrWb],
        "m=audio 30000 RTP/AVP 98 | a=rtpmap:98 AMR-WB/16000 | a=fmtp:98 octet-align=1;\
         mode-set=0,1,2;mode-change-period=2;mode-change-capability=2",
        CodecFormat::AmrWb(amr_wb::Format {
            modes: modes(&[0, 1, 2]),
            every_second_frame: true,
            ..aligned
        }),
        20,
    );
}

#[test]
fn of_several_amr_wb_formats_the_first_that_is_ours_is_taken() {
    let lines = [
        "m=audio 4000 RTP/AVP 97 98 99 100 8",
        "a=rtpmap:97 AMR-WB/16000/2",
        "a=rtpmap:98 AMR-WB/16000",
        "a=fmtp:98 octet-align=1; crc=1",
        "a=rtpmap:99 AMR-WB/16000",
        "a=fmtp:99 octet-align=1; interleaving=10",
        "a=rtpmap:100 AMR-WB/16000",
        "a=fmtp:100 octet-align=1; max-red=220",
    ];
    let (text, agreed) = answered(&lines, &with(&[AmrWb, Pcma])).expect("an answer");
    assert!(text.starts_with("m=audio 30000 RTP/AVP 100 |"), "{text}");
    assert_eq!(agreed.codec.format.amr_wb().packing, Packing::OctetAligned);
    let (text, _) = answered(&lines[..6], &with(&[AmrWb, Pcma])).expect("an answer");
    assert!(text.starts_with("m=audio 30000 RTP/AVP 8 |"), "{text}");
    let none = answered(&lines[..6], &with(&[AmrWb, Pcmu]));
    assert_eq!(none.map(|(text, _)| text), Err(OfferFault::NoCommonCodec));
}

#[test]
fn g7221_has_a_number_for_each_bit_rate() {
    let lines = [
        "m=audio 4000 RTP/AVP 115 116 102",
        "a=rtpmap:115 G7221/16000",
        "a=rtpmap:116 G7221/16000",
        "a=fmtp:116 bitrate=24000",
        "a=rtpmap:102 G7221/16000",
        "a=fmtp:102 bitrate=32000",
    ];
    check(
        &lines,
        &[G7221],
        "m=audio 30000 RTP/AVP 116 | a=rtpmap:116 G7221/16000 | a=fmtp:116 bitrate=24000",
        CodecFormat::G7221(G7221Rate::K24),
        20,
    );
    let annex_c =
        ["m=audio 4000 RTP/AVP 115", "a=rtpmap:115 G7221/32000", "a=fmtp:115 bitrate=32000"];
    assert!(answered(&annex_c, &with(&[G7221])).is_err());
}

#[test]
fn ilbc_takes_the_mode_of_the_offer_and_packets_of_whole_frames() {
    for (fmtp, ptime, mode, packets) in [
        ("a=fmtp:97 mode=20", "a=ptime:20", IlbcMode::Ms20, 20),
        ("a=fmtp:97 mode=20", "a=ptime:30", IlbcMode::Ms20, 20),
        ("a=fmtp:97 mode=20", "a=ptime:50", IlbcMode::Ms20, 40),
        ("a=fmtp:97 mode=30", "a=ptime:20", IlbcMode::Ms30, 30),
        ("a=x", "a=ptime:60", IlbcMode::Ms30, 60),
        ("a=x", "a=x", IlbcMode::Ms30, 30),
        ("a=x", "a=maxptime:20", IlbcMode::Ms30, 30),
    ] {
        let lines = ["m=audio 4000 RTP/AVP 97", "a=rtpmap:97 iLBC/8000", fmtp, ptime];
        let ms = if mode == IlbcMode::Ms20 { 20 } else { 30 };
        let ours =
            format!("m=audio 30000 RTP/AVP 97 | a=rtpmap:97 iLBC/8000 | a=fmtp:97 mode={ms}");
        check(&lines, &[Ilbc], &ours, CodecFormat::Ilbc(mode), packets);
    }
}

#[test]
fn opus_limits_of_the_peer_are_agreed_and_stereo_is_answered_mono() {
    let limits = "a=fmtp:96 maxplaybackrate=16000;stereo=1;sprop-stereo=1;maxaveragebitrate=20000;\
                  cbr=1;usedtx=1;useinbandfec=1";
    check(
        &["m=audio 4000 RTP/AVP 96", "a=rtpmap:96 opus/48000/2", limits],
        &[Opus],
        "m=audio 30000 RTP/AVP 96 | a=rtpmap:96 opus/48000/2 | \
         a=fmtp:96 minptime=10;useinbandfec=1",
        CodecFormat::Opus(opus::Format {
            playback_hz: 16_000,
            bitrate_max: 20_000,
            constant: true,
            dtx: true,
        }),
        20,
    );
}

/// Our offer of every codec, with its exchange.
fn every_codec() -> (OfferAnswer, String) {
    let mut exchange = opened(5);
    let text = exchange.offer(&with(&[Opus, AmrWb, G7221, G722, Pcmu, Ilbc]));
    (exchange, text)
}

#[test]
fn an_offer_has_a_number_for_each_form() {
    let (_, text) = every_codec();
    let media: Vec<&str> = text.lines().skip(5).collect();
    let expected = [
        "m=audio 30000 RTP/AVP 96 97 98 99 100 9 0 102 101 103 104",
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 minptime=10;useinbandfec=1",
        "a=rtpmap:97 AMR-WB/16000",
        "a=rtpmap:98 AMR-WB/16000",
        "a=fmtp:98 octet-align=1",
        "a=rtpmap:99 G7221/16000",
        "a=fmtp:99 bitrate=32000",
        "a=rtpmap:100 G7221/16000",
        "a=fmtp:100 bitrate=24000",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:102 iLBC/8000",
        "a=fmtp:102 mode=20",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
        "a=rtpmap:103 telephone-event/16000",
        "a=fmtp:103 0-15",
        "a=rtpmap:104 telephone-event/48000",
        "a=fmtp:104 0-15",
        "a=ptime:20",
        "a=sendrecv",
    ];
    assert_eq!(media, expected);
}

#[test]
fn answers_are_read_with_their_parameters() {
    let aligned = amr_wb::Format { packing: Packing::OctetAligned, ..amr_wb::Format::default() };
    let wide = CodecFormat::AmrWb(amr_wb::Format { modes: modes(&[2]), ..aligned });
    let check = |lines: &[&str], kind, format, send, receive| {
        let (mut exchange, _) = every_codec();
        let agreed = exchange.accept_answer(offer(lines).as_bytes()).expect("agreed").codec;
        let have =
            (agreed.kind, agreed.format, agreed.send_payload_type, agreed.receive_payload_type);
        assert_eq!(have, (kind, format, send, receive), "{lines:?}");
    };
    let amr = [
        "m=audio 4000 RTP/AVP 98",
        "a=rtpmap:98 AMR-WB/16000",
        "a=fmtp:98 octet-align=1;mode-set=2",
    ];
    check(&amr, AmrWb, wide, 98, 98);
    // Numbered anew: the parameters tell which of ours is meant.
    let anew =
        ["m=audio 4000 RTP/AVP 110", "a=rtpmap:110 AMR-WB/16000", "a=fmtp:110 octet-align=1"];
    check(&anew, AmrWb, CodecFormat::AmrWb(aligned), 110, 98);
    // The parameters are left out: the number tells.
    let bare = ["m=audio 4000 RTP/AVP 98", "a=rtpmap:98 AMR-WB/16000"];
    check(&bare, AmrWb, CodecFormat::AmrWb(aligned), 98, 98);
    let siren = ["m=audio 4000 RTP/AVP 100", "a=rtpmap:100 G7221/16000"];
    check(&siren, G7221, CodecFormat::G7221(G7221Rate::K24), 100, 100);
    let unnamed = ["m=audio 4000 RTP/AVP 99"];
    check(&unnamed, G7221, CodecFormat::G7221(G7221Rate::K32), 99, 99);
    // iLBC: 30 ms when the answer does not say 20 as well (RFC 3952 §5).
    for (fmtp, mode) in [("a=fmtp:102 mode=20", IlbcMode::Ms20), ("a=x", IlbcMode::Ms30)] {
        let lines = ["m=audio 4000 RTP/AVP 102", "a=rtpmap:102 iLBC/8000", fmtp];
        check(&lines, Ilbc, CodecFormat::Ilbc(mode), 102, 102);
    }
}

#[test]
fn the_codec_clocks_events() {
    let lines = [
        "m=audio 4000 RTP/AVP 98 101 102",
        "a=rtpmap:98 AMR-WB/16000",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:102 telephone-event/16000",
    ];
    let (_, agreed) = answered(&lines, &with(&[AmrWb])).expect("an answer");
    assert_eq!(agreed.telephone_event.map(|event| event.clock_hz), Some(16_000));
}
