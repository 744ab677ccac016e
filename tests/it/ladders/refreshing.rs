//! Session refreshes of ours by re-INVITE (RFC 4028) and what a peer makes of them in its answer: media
//! that moves, hold and resume, refusals, nonsense.

use super::World;
use super::transfers::{edge, to_target};
use crate::sim::callee::{self, Manner, REFRESH};
use crate::sim::pbx::{Action, Refreshed};
use crate::sim::{ladder, settings};
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy, TransferOutcome};
use voxedge::ultravox::tool::{Fixed, SipVerb};

/// A call of 100 s that we refresh every 45 s; the re-INVITEs are answered like this.
fn refreshed(answers: &[Refreshed]) -> World {
    let mut world = World::new(1, settings());
    world.caller("sales");
    let timer = ["Supported: timer", "Session-Expires: 90;refresher=uas"];
    world.callers[0].headers = timer.map(str::to_owned).to_vec();
    world.callers[0].refreshed = answers.to_vec();
    world.act(0, 0, Action::Invite);
    world.act(100_000, 0, Action::HangUp);
    world
}

fn check(name: &str, world: &mut World) -> Cdr {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    let facts = world.facts.values().next().expect("a call");
    facts.records.last().expect("a record").clone()
}

/// The plans that went to media after the first.
fn changes(world: &World) -> Vec<String> {
    let words = |line: &str| line.split_once("media    change ").map(|(_, plan)| plan.to_owned());
    world.ladder().lines().filter_map(words).collect()
}

#[test]
fn media_that_moves_in_the_answer_is_followed() {
    let mut world = refreshed(&[Refreshed::Moves(4400)]);
    let record = check("refresh_moves", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
    assert_eq!(changes(&world), ["1 PCMU SendRecv"]);
    // Both ways at the new port: nothing of either is missed for longer than the answer takes.
    let sent_ms = 20 * world.callers[0].rtp_received;
    assert!((99_600..=99_900).contains(&sent_ms), "{sent_ms}");
    let facts = world.facts.values().next().expect("a call");
    assert!(facts.agent_span.abs_diff(facts.agent_heard) < Duration::from_millis(100), "{facts:?}");
    let media = record.media.expect("its figures");
    assert!(media.packets_received + 10 > world.callers[0].rtp_sent, "{media:?}");
}

#[test]
fn a_peer_may_hold_and_resume_in_its_answers() {
    let mut world = refreshed(&[Refreshed::Turns("inactive"), Refreshed::Turns("sendrecv")]);
    let record = check("refresh_holds", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller), "45 s of silence are no lost caller");
    assert_eq!(changes(&world), ["1 PCMU Inactive", "2 PCMU SendRecv"]);
}

#[test]
fn an_answer_that_says_the_same_or_nothing_of_use_changes_nothing() {
    let mut world = refreshed(&[]);
    check("refresh_same", &mut world);
    assert_eq!(changes(&world), Vec::<String>::new());
    let nonsense = "v=0\r\no=pbx 7 9 IN IP4 192.0.2.10\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";
    let mut world = refreshed(&[Refreshed::Nonsense(nonsense)]);
    let record = check("refresh_unusable", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
    assert_eq!(changes(&world), Vec::<String>::new());
}

#[test]
fn a_refusal_ends_the_call_only_when_the_peer_knows_none() {
    let mut world = refreshed(&[Refreshed::Refused(488)]);
    let record = check("refresh_refused", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
    assert!(record.sip_time > Duration::from_secs(99), "{:?}", record.sip_time);
    for (name, answer, until_s) in [
        ("refresh_481", Refreshed::Refused(481), 45..46),
        // A third of the interval before its end nobody has refreshed it (RFC 4028 §10).
        ("refresh_silence", Refreshed::Silence, 60..61),
    ] {
        let mut world = refreshed(&[answer]);
        let record = check(name, &mut world);
        assert!(until_s.contains(&record.sip_time.as_secs()), "{name}: {:?}", record.sip_time);
    }
}

/// The caller talks to a target that the agent transferred it to, whose session we refresh every 45 s; the
/// re-INVITEs are answered like this. The caller hangs up after 110 s.
fn bridged(answers: &'static [callee::Refreshed]) -> World {
    let fixed = Fixed { verb: Some(SipVerb::Invite), ..to_target() };
    let target =
        Manner { answers: Some((1_000, 200, REFRESH)), refreshed: answers, ..Manner::default() };
    let mut world = super::transfers::world(edge(&fixed, |_| {}), "coldTransfer", target);
    world.callee_speaks(3_500, 0, 5_000);
    world.act(110_000, 0, Action::HangUp);
    world
}

/// How long the second leg was up, in seconds; the transfer went well whatever came after it.
fn bridged_s(record: &Cdr) -> f64 {
    let [transfer] = &record.transfers[..] else { panic!("{record:?}") };
    assert_eq!(transfer.outcome, TransferOutcome::Bridged, "{transfer:?}");
    transfer.leg_time.as_secs_f64()
}

#[test]
fn the_session_of_a_second_leg_is_refreshed_too() {
    let mut world = bridged(&[callee::Refreshed::Same]);
    let record = check("second_leg_refresh_same", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
    assert_eq!(world.callees[0].refreshes, 2);
    assert_eq!(changes(&world), ["leg 1 1 PCMU SendRecv"], "at its answer alone");
    assert!((106.0..107.5).contains(&bridged_s(&record)), "{record:?}");
}

#[test]
fn a_second_leg_that_moves_in_its_answer_is_followed() {
    let mut world = bridged(&[callee::Refreshed::Moves, callee::Refreshed::Same]);
    let record = check("second_leg_refresh_moves", &mut world);
    assert_eq!(changes(&world), ["leg 1 1 PCMU SendRecv", "leg 1 2 PCMU SendRecv"]);
    // Both hear each other at the new port: nothing is missed for longer than the answer takes.
    let second = record.further_media.first().expect("the figures of its leg");
    assert!(second.packets_received + 10 > 5_000, "{second:?}");
    assert!(world.callees[0].rtp_received > 5_200, "{}", world.callees[0].rtp_received);
}

#[test]
fn one_refusal_of_a_second_leg_ends_nothing() {
    let mut world = bridged(&[callee::Refreshed::Refused(488), callee::Refreshed::Same]);
    let record = check("second_leg_refresh_refused_once", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
    assert!((106.0..107.5).contains(&bridged_s(&record)), "{record:?}");
}

#[test]
fn a_second_leg_that_is_not_refreshed_ends() {
    for (name, answer, lasted_s) in [
        // It is asked again until a third of the interval before its end, and the call with it.
        ("second_leg_refresh_refused", &[callee::Refreshed::Refused(488)][..], 59.5..61.0),
        ("second_leg_refresh_481", &[callee::Refreshed::Refused(481)], 44.5..46.0),
        ("second_leg_refresh_silence", &[callee::Refreshed::Silence], 59.5..61.0),
    ] {
        let mut world = bridged(answer);
        let record = check(name, &mut world);
        assert!(lasted_s.contains(&bridged_s(&record)), "{name}: {record:?}");
    }
}
