//! The creation of agent calls under Ultravox's limits: turns, refusals for lack of capacity, calls
//! that nobody will join, and agents that changed.

use super::{Script, World, check, creating, settings};
use crate::sim::pbx::Action;
use serde_json::json;
use std::time::Duration;
use voxedge::switchboard::{CreationLimits, Settings};
use voxedge::ultravox::create_call::CreateFault;

fn busy(retry_after_s: u64) -> CreateFault {
    CreateFault::TooMany { retry_after: Some(Duration::from_secs(retry_after_s)) }
}

/// `callers` dial at once, and hang up `after_ms` later.
fn limited(limits: CreationLimits, callers: usize, after_ms: u64) -> World {
    let mut world = World::new(1, Settings { creations: limits, ..settings() });
    for index in 0..callers {
        world.caller("sales");
        world.callers[index].speaks = false;
        world.act(index as u64, index, Action::Invite);
        world.act(after_ms, index, Action::HangUp);
    }
    world
}

#[test]
fn a_short_retry_after_is_waited_for_while_it_rings() {
    let mut world = creating(&[(150, Err(busy(3))), (150, Ok(()))]);
    world.act(5_000, 0, Action::HangUp);
    check("create_429_then_ok", world);
    // It does not end: after some answers the caller is told when to come again.
    check("create_429_always", creating(&[(150, Err(busy(1)))]));
    // Two waits of 12 s do not fit into the set-up.
    check("create_429_twice_long", creating(&[(150, Err(busy(12)))]));
}

#[test]
fn a_cancel_leaves_the_queue() {
    let mut world = creating(&[(150, Err(busy(10))), (150, Ok(()))]);
    world.act(2_000, 0, Action::HangUp);
    check("cancel_waiting", world);
}

#[test]
fn callers_wait_for_their_turn_in_order() {
    let limits = CreationLimits { per_second: Some(1), ..CreationLimits::default() };
    check("turns", limited(limits, 3, 4_000));
}

#[test]
fn a_caller_who_could_not_wait_so_long_is_told_at_once() {
    let limits = CreationLimits { per_minute: Some(1), ..CreationLimits::default() };
    check("turn_too_late", limited(limits, 2, 1_000));
    let limits = CreationLimits { per_second: Some(1), waiting_max: 0, ..limits };
    check("turn_queue_full", limited(CreationLimits { per_minute: None, ..limits }, 2, 2_000));
}

/// The first caller's creation may have made a call: the second waits until that has lapsed.
#[test]
fn a_creation_that_timed_out_holds_its_place_until_it_lapses() {
    let limits = CreationLimits { concurrent: Some(1), ..CreationLimits::default() };
    let mut world = World::new(1, Settings { creations: limits, ..settings() });
    world.service.script.creations = vec![(60_000, Ok(())), (150, Ok(()))];
    for (index, ms) in [(0, 0), (1, 8_000)] {
        world.caller("sales");
        world.callers[index].speaks = false;
        world.act(ms, index, Action::Invite);
    }
    world.act(30_000, 1, Action::HangUp);
    check("orphan_lapses", world);
}

#[test]
fn an_agent_that_changed_is_read_again_once() {
    let strict = json!({"type": "object", "additionalProperties": false});
    for (name, schema) in [("agent_changed", Some(strict)), ("agent_unchanged", None)] {
        let mut world = World::new(1, settings());
        let bad = (150, Err(CreateFault::BadRequest));
        let ok = (150, Ok(()));
        let creations = vec![ok, bad, if schema.is_some() { ok } else { bad }];
        world.service.script = Script { creations, ..Script::default() };
        for (index, ms) in [(0, 0), (1, 2_000)] {
            world.caller("sales");
            world.callers[index].speaks = false;
            world.act(ms, index, Action::Invite);
            world.act(ms + 1_000, index, Action::HangUp);
        }
        world.run_out(1_900);
        world.service.script.schema = schema;
        check(name, world);
    }
}

#[test]
fn headers_beyond_the_bounds_are_dropped_and_noted() {
    let mut world = super::until(1_000);
    let long = "a".repeat(2_040);
    let headers = (0..5).map(|n| format!("X-H{n}: {long}"));
    let forged = ["X-Ultravox.Sip.Caller_Id: 911".to_owned()];
    world.callers[0].headers = forged.into_iter().chain(headers).collect();
    world.run_out(60_000);
    let facts = world.facts.values().next().expect("one call");
    let last = facts.records.last().expect("a record");
    let expected = [
        "X-H3 left out: beyond 8 KiB of X- headers",
        "X-H4 left out: beyond 8 KiB of X- headers",
        "X-Ultravox.Sip.Caller_Id left out: the key is reserved",
    ];
    assert_eq!(last.header_remarks, expected);
    let context = &facts.creations[0]["templateContext"];
    let keys: Vec<&String> = context.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["h0", "h1", "h2", "ultravox"]);
    assert_eq!(context["ultravox"]["sip"]["caller_id"], "+15550100");
}
