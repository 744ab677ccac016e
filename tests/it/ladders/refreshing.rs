//! Session refreshes of ours by re-INVITE (RFC 4028) and what a peer makes of them in its answer: media
//! that moves, hold and resume, refusals, nonsense.

use super::World;
use crate::sim::pbx::{Action, Refreshed};
use crate::sim::{ladder, settings};
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy};

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
