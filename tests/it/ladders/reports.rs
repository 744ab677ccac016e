//! Extended reports of RTCP (RFC 3611) in whole calls: who asks for them gets them, as long as it asks,
//! and what it reports is in the record.

use super::with;
use crate::sim::World;
use crate::sim::agent::Script;
use crate::sim::pbx::Action;
use voxedge::billing::Cdr;
use voxedge::rtp::rtcp::Report;
use voxedge::rtp::rtcp::extended::{Extended, VoipMetrics};

const ASKS: &str = "a=rtcp-mux\r\na=rtcp-xr:voip-metrics rcvr-rtt=all\r\n";
const ASKS_NOT: &str = "a=rtcp-mux\r\n";

/// Two calls of a minute: the first caller asks for extended reports, the second does not.
fn two_calls() -> World {
    let mut world = with(Script::default());
    world.caller("sales");
    world.callers[0].media_lines = ASKS;
    world.callers[1].media_lines = ASKS_NOT;
    world.act(100, 1, Action::Invite);
    for caller in [0, 1] {
        world.act(60_000, caller, Action::HangUp);
    }
    world
}

/// Extended reports that each caller got so far.
fn reported(world: &World) -> [u32; 2] {
    [0, 1].map(|caller: usize| world.streams[&world.callers[caller].media].1)
}

fn finish(world: &mut World) -> Vec<Cdr> {
    world.run_out(600_000);
    assert!(world.is_idle(), "something is left\n{}", world.ladder());
    let last = world.facts.values().filter_map(|facts| facts.records.last());
    last.cloned().collect()
}

#[test]
fn who_asks_gets_extended_reports_about_every_five_seconds() {
    let mut world = two_calls();
    world.run_out(59_000);
    let [asked, other] = reported(&world);
    assert!((8..=24).contains(&asked) && other == 0, "{asked} and {other}");
    finish(&mut world);
}

#[test]
fn a_description_that_asks_no_more_ends_them_and_one_that_asks_begins_them() {
    let mut world = two_calls();
    world.run_out(20_000);
    let [before, none] = reported(&world);
    assert!(before >= 2 && none == 0, "{before} and {none}");
    (world.callers[0].media_lines, world.callers[1].media_lines) = (ASKS_NOT, ASKS);
    for caller in [0, 1] {
        world.act(20_000, caller, Action::Reinvite("sendrecv"));
    }
    world.run_out(59_000);
    let [after, begun] = reported(&world);
    assert!(after <= before + 1 && begun >= 5, "{before}, {after} and {begun}");
    finish(&mut world);
}

#[test]
fn what_a_peer_reports_of_our_audio_is_in_its_record() {
    let mut world = two_calls();
    world.run_out(10_000);
    let (ssrc, _) = world.streams[&world.callers[0].media];
    let about = |ssrc, r_factor| VoipMetrics {
        ssrc,
        loss_rate: 26,
        r_factor: Some(r_factor),
        mos_conversation: Some(36),
        ..VoipMetrics::default()
    };
    // One about somebody else's stream follows, and changes nothing.
    for (ms, ssrc, r_factor) in [(10_000, ssrc, 71), (11_000, ssrc ^ 1, 12)] {
        let mut bytes = vec![0; 300];
        let report = Report { ssrc: 9, sender: None, blocks: &[], cname: "pbx", bye: false };
        let mut len = report.write(&mut bytes).expect("it fits");
        let voip_metrics = Some(about(ssrc, r_factor));
        let extended = Extended { ssrc: 9, voip_metrics, ..Extended::default() };
        len += extended.write(&mut bytes[len..]).expect("it fits");
        bytes.truncate(len);
        world.caller_sends(ms, 0, bytes);
    }
    let records = finish(&mut world);
    let of = |record: &Cdr| record.media.and_then(|media| media.far_end);
    let told = records.iter().filter_map(of).collect::<Vec<_>>();
    let [far_end] = &told[..] else { panic!("{told:?}") };
    assert_eq!((far_end.lost_percent, far_end.r_factor), (10.2, Some(71)));
    assert_eq!((far_end.mos_listening, far_end.mos_conversation), (None, Some(3.6)));
}
