//! RTCP and telephone-events through the session.

use super::*;
use crate::media::quality::{self, Coding, Loss};
use crate::rtp::rtcp::{Block, Compound, Part, Report, SenderInfo};
use crate::rtp::sequence::ReceptionReport;

fn audio(number: u16) -> Given {
    let timestamp = u32::from(number) * 160;
    let (source, marker, payload_type, ssrc) = (CALLER, false, 0, 7);
    Given { source, marker, payload_type, sequence: number, timestamp, ssrc }
}

#[test]
fn reports_come_every_five_seconds_or_so_and_say_what_was_heard() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    for number in 0..3_000u16 {
        scene.run_to(u64::from(number) * 20);
        if number % 10 != 5 {
            scene.give(audio(number), &[0xff; 160]);
        }
    }
    let times: Vec<u64> = scene.reports.iter().map(|report| Scene::ms(report.0)).collect();
    assert!((1_250..=3_750).contains(&times[0]), "{times:?}");
    for pair in times.windows(2) {
        assert!((2_500..=7_500).contains(&(pair[1] - pair[0])), "{times:?}");
    }
    assert!((9..=14).contains(&times.len()), "{times:?}");
    let (at, to, channel, bytes) = scene.reports.last().unwrap();
    assert_eq!((*to, *channel), (address("192.0.2.1:4001"), Channel::Rtcp));
    let parts: Vec<Part<'_>> = Compound::parse(bytes).unwrap().collect();
    let [Part::SenderReport { ssrc, sender, mut blocks }, Part::Cname { cname, .. }] = parts[..]
    else {
        panic!("{parts:?}")
    };
    assert_eq!((ssrc, cname), (scene.sent[0].ssrc, &b"c7f3"[..]));
    let first = &scene.sent[0];
    let ticks = sender.rtp_timestamp.wrapping_sub(first.timestamp);
    assert_eq!(u64::from(ticks) / 8, Scene::ms(*at));
    assert_eq!(u64::from(sender.packets), Scene::ms(*at).div_ceil(20));
    let reception = blocks.next().unwrap().reception;
    assert_eq!((reception.ssrc, reception.fraction_lost / 4), (7, 25 / 4));
    let report = scene.session.report();
    assert_eq!((report.packets_lost, report.jitter_us < 200), (300, true), "{report:?}");
    let score = quality::mos(Coding::G711, Loss::random(10.0), milliseconds(80));
    assert_eq!((report.mos_received, report.mos_sent), (Some(score), None), "{report:?}");
}

#[test]
fn a_multiplexed_report_goes_where_rtp_goes() {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.leg.remote.rtcp_mux = true;
    let mut scene = Scene::joined(&plan);
    scene.run_to(4_000);
    let (_, to, channel, _) = &scene.reports[0];
    assert_eq!((*to, *channel), (address(CALLER), Channel::Rtp));
}

#[test]
fn the_round_trip_comes_from_the_answer_to_our_report() {
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    scene.run_to(4_000);
    let (sent_at, _, _, bytes) = scene.reports[0].clone();
    let Some(Part::SenderReport { ssrc, sender, .. }) = Compound::parse(&bytes).unwrap().next()
    else {
        panic!("we have sent RTP")
    };
    let reception = ReceptionReport {
        ssrc,
        fraction_lost: 0,
        cumulative_lost: 20,
        extended_highest: 1,
        jitter: 0,
    };
    let last_sender_report = (sender.ntp >> 16) as u32;
    let waited = scene.now.at.since(sent_at) - milliseconds(80);
    let delay_since = (waited.as_micros() * 65_536 / 1_000_000) as u32;
    let block = Block { reception, last_sender_report, delay_since };
    let answer = Report { ssrc: 7, sender: None, blocks: &[block], cname: "x", bye: true };
    let mut packet = [0; 200];
    let len = answer.write(&mut packet).unwrap();
    scene.session.handle_rtcp(scene.now, LegId::CALLER, address("192.0.2.1:4001"), &packet[..len]);
    let round_trip = scene.session.report().round_trip_us;
    assert!((79_900..80_100).contains(&round_trip), "{round_trip}");
    let report = scene.session.report();
    let delay = Duration::from_micros(u64::from(round_trip) / 2) + milliseconds(80);
    let score = quality::mos(Coding::G711, Loss::random(20.0 * 100.0 / 201.0), delay);
    assert_eq!((report.packets_sent, report.mos_sent), (201, Some(score)));
    assert_eq!(report.mos_received, None);
    let silent = "2000:OneWay { leg: LegId(0), verdict: NothingCame }";
    assert_eq!(scene.events, [silent], "a BYE ends nothing");
    scene.session.handle_rtcp(scene.now, LegId::CALLER, address(STRANGER), &packet[..len]);
    assert_eq!(scene.session.report().packets_refused, 1);
}

/// What comes from the peer, "seconds:what" in order: `rtp`, `cn`, `event`, `rtcp`, `bye` (RTCP's),
/// `hold`, `resume`; the last second is how long is waited. Gives when its silence was told.
fn silence_told(script: &str) -> Vec<String> {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::joined(&plan);
    for (sequence, step) in script.split_whitespace().enumerate() {
        let (seconds, what) = step.split_once(':').expect("seconds:what");
        let seconds: u64 = seconds.parse().expect("seconds");
        scene.run_to(seconds * 1_000);
        let (sequence, timestamp) = (sequence as u16, seconds as u32 * 8_000);
        let given = |payload_type| Given { payload_type, timestamp, ..audio(sequence) };
        let hold = LegPlan { direction: Direction::Inactive, ..plan.leg.clone() };
        match what {
            "rtp" => scene.give(given(0), &[0xff; 160]),
            "cn" => scene.give(given(13), &[60]),
            "event" => scene.give(given(101), &[1, 0x80 | 10, 3, 0x20]),
            "rtcp" | "bye" => {
                let sender = SenderInfo { ntp: 1 << 40, rtp_timestamp: 0, packets: 0, octets: 0 };
                let bye = what == "bye";
                let report = Report { ssrc: 7, sender: Some(sender), blocks: &[], cname: "x", bye };
                let mut packet = [0; 200];
                let len = report.write(&mut packet).unwrap();
                let source = address("192.0.2.1:4001");
                scene.session.handle_rtcp(scene.now, LegId::CALLER, source, &packet[..len]);
            }
            "hold" => scene.session.change(scene.now, LegId::CALLER, &hold).unwrap(),
            "resume" => scene.session.change(scene.now, LegId::CALLER, &plan.leg).unwrap(),
            _ => assert_eq!(what, "end"),
        }
        scene.drain();
    }
    let told = |event: &&String| event.contains("Silent") || event.contains("HeldTooLong");
    let brief = |event: &String| event.split(" {").next().unwrap_or_default().to_owned();
    scene.events.iter().filter(told).map(brief).collect()
}

/// Time-outs of the scenes: 30 s without a sign of life, 600 s without RTP, 1,800 s on hold.
#[test]
fn what_is_alive_though_it_says_nothing() {
    let rtcp = |from: u64, to: u64| {
        (from..=to).step_by(5).map(|second| format!("{second}:rtcp ")).collect::<String>()
    };
    let (minute, long) = (rtcp(1, 61), rtcp(1, 701));
    for (what, script, told) in [
        ("nothing at all", "0:rtp 90:end".to_owned(), vec!["30000:LegSilent"]),
        ("nothing, from the start", "40:end".to_owned(), vec!["30000:LegSilent"]),
        (
            "comfort noise now and then",
            "0:rtp 1:cn 20:cn 40:cn 60:cn 61:rtp 80:end".to_owned(),
            vec![],
        ),
        ("one comfort noise and no more", "0:rtp 1:cn 40:end".to_owned(), vec!["31000:LegSilent"]),
        ("a pause of a minute with RTCP alone", format!("0:rtp {minute}62:rtp 80:end"), vec![]),
        ("RTCP that ends as well", format!("0:rtp {minute}120:end"), vec!["91000:LegSilent"]),
        ("RTCP alone for eleven minutes", format!("0:rtp {long}702:end"), vec!["600000:LegSilent"]),
        ("keys alone", "0:rtp 25:event 50:event 75:event 100:end".to_owned(), vec![]),
        ("its stream was ended by RTCP", "0:rtp 10:bye 500:end".to_owned(), vec![]),
        ("and it never came back", "0:rtp 10:bye 700:end".to_owned(), vec!["600000:LegSilent"]),
        (
            "and it came back and died",
            "0:rtp 10:bye 50:rtp 100:end".to_owned(),
            vec!["80000:LegSilent"],
        ),
        ("hold", "0:rtp 5:hold 1000:resume 1020:end".to_owned(), vec![]),
        ("a hold that never ends", "0:rtp 5:hold 2000:end".to_owned(), vec!["1805000:HeldTooLong"]),
        (
            "a hold, and nothing after it",
            "0:rtp 5:hold 100:resume 140:end".to_owned(),
            vec!["130000:LegSilent"],
        ),
        (
            "each silence is told once",
            "0:rtp 40:rtp 100:end".to_owned(),
            vec!["30000:LegSilent", "70000:LegSilent"],
        ),
    ] {
        assert_eq!(silence_told(&script), told, "{what}");
    }
}

/// The packets of a digit of 100 ms: five updates and three ends, 20 ms apart; the bits of `lost`
/// say which are not delivered.
fn press(scene: &mut Scene, code: u8, number: &mut u16, start_ms: u64, lost: u32) {
    let timestamp = u32::from(*number) * 160;
    for packet in 0..8u16 {
        scene.run_to(start_ms + u64::from(packet.min(5)) * 20);
        let given = Given { payload_type: 101, marker: packet == 0, timestamp, ..audio(*number) };
        let [high, low] = ((packet + 1).min(5) * 160).to_be_bytes();
        let end = u8::from(packet >= 5) << 7;
        if lost & (1 << packet) == 0 {
            scene.give(given, &[code, end | 10, high, low]);
        }
        *number += 1;
    }
}

#[test]
fn a_digit_is_told_once_whatever_is_lost_and_the_audio_goes_on() {
    for lost in (0..255u32).filter(|lost| lost.count_ones() < 8) {
        let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
        let mut number = 0;
        while number < 10 {
            scene.run_to(u64::from(number) * 20);
            scene.give(audio(number), &[level(1).0; 160]);
            number += 1;
        }
        press(&mut scene, 11, &mut number, 200, lost);
        scene.run_to(1_000);
        let digits: Vec<&String> =
            scene.events.iter().filter(|event| event.contains("Digit")).collect();
        assert_eq!(digits.len(), 1, "lost {lost:08b}: {digits:?}");
        assert!(digits[0].ends_with("'#'"), "{digits:?}");
        assert!(digits[0].contains("digit: Key,"), "{digits:?}");
        let behind = 1_000 * 8 - scene.heard.len() as i64;
        assert!((480..=640).contains(&behind), "lost {lost:08b}: {behind}");
        assert!(scene.heard[1_600..].iter().all(|sample| *sample == 0) || lost & 1 == 1);
        assert_eq!(scene.session.report().digits, 1);
    }
}
