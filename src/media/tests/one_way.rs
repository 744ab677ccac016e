//! Verdicts on media that flows one way only, through the session.

use super::*;
use crate::rtp::rtcp::{Block, Report, SenderInfo, write_bye};
use crate::rtp::sequence::ReceptionReport;

fn audio(number: u16) -> Given {
    let timestamp = u32::from(number) * 160;
    let (source, marker, payload_type, ssrc) = (CALLER, false, 0, 7);
    Given { source, marker, payload_type, sequence: number, timestamp, ssrc }
}

/// The verdicts that were told, with their time.
fn verdicts(scene: &Scene) -> Vec<&str> {
    let told = scene.events.iter().filter(|event| event.contains("OneWay"));
    told.map(String::as_str).collect()
}

/// A sender report of the caller's, with a block about `ssrc` where one is given.
fn report(scene: &mut Scene, ssrc: Option<u32>) {
    let (ssrc, known) = (ssrc.unwrap_or_default(), ssrc.is_some());
    let (fraction_lost, cumulative_lost, extended_highest, jitter) = (0, 0, 9, 0);
    let reception =
        ReceptionReport { ssrc, fraction_lost, cumulative_lost, extended_highest, jitter };
    let blocks = [Block { reception, last_sender_report: 0, delay_since: 0 }];
    let sender = SenderInfo { ntp: 1 << 40, rtp_timestamp: 0, packets: 9, octets: 9 };
    let blocks = &blocks[..usize::from(known)];
    let report = Report { ssrc: 7, sender: Some(sender), blocks, cname: "x", bye: false };
    let mut packet = [0; 200];
    let len = report.write(&mut packet).expect("it fits");
    control(scene, &packet[..len]);
}

/// An RTCP packet of the caller's.
fn control(scene: &mut Scene, packet: &[u8]) {
    let source = address("192.0.2.1:4001");
    scene.session.handle_rtcp(scene.now, LegId::CALLER, source, packet);
    scene.drain();
}

#[test]
fn what_came_instead_is_told_two_seconds_after_the_answer() {
    let verdict = |kind: &str| format!("2000:OneWay {{ leg: LegId(0), verdict: {kind} }}");
    let elsewhere = format!("FromElsewhere {{ source: {STRANGER} }}");
    for (given, kind) in [
        (None, "NothingCame"),
        (Some(Given { source: STRANGER, ..audio(1) }), &*elsewhere),
        (Some(Given { source: STRANGER, payload_type: 18, ..audio(1) }), &*elsewhere),
        (Some(Given { payload_type: 18, ..audio(1) }), "WrongPayload { payload_type: 18 }"),
    ] {
        let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
        scene.run_to(1_000);
        if let Some(given) = given {
            scene.give(given, &[0xff; 160]);
        }
        scene.run_to(20_000);
        assert_eq!(verdicts(&scene), [verdict(kind)], "{given:?}");
    }
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    scene.run_to(1_000);
    report(&mut scene, None);
    scene.run_to(20_000);
    assert_eq!(verdicts(&scene), [verdict("OnlyControl")]);
}

#[test]
fn one_packet_of_the_peer_is_enough_and_hold_needs_none() {
    let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
    scene.run_to(20_000);
    assert!(verdicts(&scene).is_empty(), "it was heard before the join");
    let mut scene = Scene::joined(&plan(CodecKind::Pcmu, 20));
    scene.run_to(1_999);
    scene.give(audio(1), &[0xff; 160]);
    scene.run_to(20_000);
    assert!(verdicts(&scene).is_empty(), "silence is media too");
    let mut held = plan(CodecKind::Pcmu, 20);
    held.leg.direction = Direction::Inactive;
    let mut scene = Scene::joined(&held);
    scene.run_to(20_000);
    assert!(verdicts(&scene).is_empty(), "on hold");
}

#[test]
fn each_new_agreement_is_judged_once_and_a_refresh_is_none() {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::joined(&plan);
    scene.run_to(5_000);
    scene.session.change(scene.now, LegId::CALLER, &plan.leg).expect("the same plan");
    scene.run_to(10_000);
    let held = LegPlan { direction: Direction::Inactive, ..plan.leg.clone() };
    scene.session.change(scene.now, LegId::CALLER, &held).expect("a sound plan");
    scene.run_to(20_000);
    scene.session.change(scene.now, LegId::CALLER, &plan.leg).expect("a sound plan");
    scene.run_to(25_000);
    let expected = ["2000", "22000"]
        .map(|at| format!("{at}:OneWay {{ leg: LegId(0), verdict: NothingCame }}"));
    assert_eq!(verdicts(&scene), expected);
}

#[test]
fn a_peer_whose_reports_know_nothing_of_us_hears_nothing() {
    for knows_us in [false, true] {
        let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
        scene.run_to(1_900);
        report(&mut scene, None);
        scene.run_to(3_000);
        let ours = scene.sent[0].ssrc;
        report(&mut scene, knows_us.then_some(ours));
        scene.run_to(8_000);
        report(&mut scene, None);
        let expected = ["3000:OneWay { leg: LegId(0), verdict: NothingArrived }"];
        assert_eq!(verdicts(&scene), if knows_us { &[][..] } else { &expected[..] });
    }
}

/// As baresip opens a NAT with an application's packet, and ends with a goodbye that has no report.
#[test]
fn control_packets_without_a_report_say_nothing_of_what_the_peer_hears() {
    let mut scene = Scene::heard(&plan(CodecKind::Pcmu, 20));
    scene.run_to(3_000);
    control(&mut scene, b"\x80\xcc\x00\x03\x00\x00\x00\x07PING\x00\x00\x00\x00");
    let mut goodbye = [0; 16];
    let len = write_bye(7, &mut goodbye).expect("it fits");
    control(&mut scene, &goodbye[..len]);
    assert!(verdicts(&scene).is_empty(), "{:?}", verdicts(&scene));
    report(&mut scene, None);
    assert_eq!(verdicts(&scene).len(), 1, "a report without a block on us does");
}
