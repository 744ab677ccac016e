//! Whole calls, step by step: each test is a scenario, and its whole ladder is kept as text in
//! `fixtures/ladders/`. `VOXEDGE_LADDERS=write` writes them anew; read the difference.

mod agent_calls;
mod bounds;
mod fallback;
mod hands;
mod lost;
mod outgoing;
mod own_ports;
mod refreshing;
mod reports;
mod ringing;
mod transfers;
mod ways;

use crate::sim::agent::{OTHER, Script};
use crate::sim::network::Path;
use crate::sim::pbx::{Action, Offer};
use crate::sim::{World, ladder, settings};
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::EndedBy;
use voxedge::call::settings::{HandSettings, LostSettings};
use voxedge::media::plan::{AgentClose, AgentStreamFault};
use voxedge::switchboard::Input;
use voxedge::ultravox::create_call::CreateFault;

/// A world with one caller, who dials at once. The caller hears 180 at 10 ms, the agent is read at
/// 45 ms, its call created at 195 ms, the stream joined at 248 ms; the caller has the 200 at 254 ms.
fn world() -> World {
    with(Script::default())
}

fn with(script: Script) -> World {
    let mut world = World::new(1, settings());
    world.service.script = script;
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world
}

/// The same with the caller's hang-up at `ms`.
fn until(ms: u64) -> World {
    let mut world = world();
    world.act(ms, 0, Action::HangUp);
    world
}

fn offering(offer: Offer) -> World {
    let mut world = world();
    world.callers[0].offer = offer;
    world
}

fn creating(outcomes: &[(u64, Result<(), CreateFault>)]) -> World {
    with(Script { creations: outcomes.to_vec(), ..Script::default() })
}

/// Runs the scenario to its end; then nothing may be left, and the ladder is as it is kept.
fn check(name: &str, mut world: World) {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
}

#[test]
fn the_caller_hangs_up() {
    let mut world = with(Script { speech_ms: 400, ..Script::default() });
    world.act(3_000, 0, Action::HangUp);
    check("caller_hangs_up", world);
}

#[test]
fn the_agent_hangs_up_and_its_last_words_are_played_first() {
    let leaves = Some((1_000, AgentClose::Code(1000)));
    check("agent_hangs_up", with(Script { speech_ms: 1_500, leaves, ..Script::default() }));
}

#[test]
fn the_agent_stream_is_lost() {
    check("agent_lost", losing(AgentClose::Lost));
    check("agent_lost_with_code", losing(AgentClose::Code(1011)));
}

/// The agent goes like this, and no other is asked for (`ladders/lost` asks).
fn losing(close: AgentClose) -> World {
    let lost = LostSettings { continues: false, ..LostSettings::default() };
    let mut settings = settings();
    settings.call.hands = Arc::new(HandSettings { lost, ..HandSettings::default() });
    let mut world = World::new(1, settings);
    world.service.script = Script { leaves: Some((700, close)), ..Script::default() };
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world
}

#[test]
fn cancel_at_every_stage() {
    check("cancel_agent_read", until(25));
    check("cancel_call_created", until(100));
    check("cancel_stream_prepared", until(210));
    check("cancel_joining", until(230));
    check("cancel_crosses_200", until(251));
    check("cancel_before_180", until(1));
}

#[test]
fn a_bye_before_the_answer() {
    let mut world = world();
    world.act(100, 0, Action::EarlyBye);
    check("early_bye", world);
}

#[test]
fn the_agent_call_is_refused() {
    for (name, fault) in [
        ("create_400", CreateFault::BadRequest),
        ("create_404", CreateFault::NotFound),
        ("create_401", CreateFault::Unauthorized),
        ("create_402", CreateFault::PaymentRequired),
        ("create_429", CreateFault::TooMany { retry_after: Some(Duration::from_secs(40)) }),
    ] {
        check(name, creating(&[(150, Err(fault))]));
    }
}

#[test]
fn a_transient_fault_is_tried_once_more() {
    let broken = (150, Err(CreateFault::ServerError(502)));
    let busy = (150, Err(CreateFault::Unavailable { retry_after: Some(Duration::from_secs(30)) }));
    let mut world = creating(&[broken, (150, Ok(()))]);
    world.act(1_500, 0, Action::HangUp);
    check("create_502_then_ok", world);
    check("create_502_twice", creating(&[broken, broken]));
    check("create_503", creating(&[busy]));
}

#[test]
fn ultravox_does_not_answer_in_time() {
    check("create_timeout", creating(&[(60_000, Ok(()))]));
    check("agent_not_read", with(Script { fetch: (40_000, Ok(())), ..Script::default() }));
    let prepare = (60_000, Ok(()));
    check("stream_not_ready", with(Script { prepare, ..Script::default() }));
}

#[test]
fn an_agent_that_does_not_exist() {
    let fetch = (40, Err(CreateFault::NotFound));
    check("agent_404_allowance", with(Script { fetch, ..Script::default() }));
    for (name, fetch, creation) in [
        ("agent_404_implicit", fetch, Ok(())),
        ("create_404_implicit", (40, Ok(())), Err(CreateFault::NotFound)),
    ] {
        let mut world = World::new(1, settings());
        world.service.script =
            Script { fetch, creations: vec![(150, creation)], ..Script::default() };
        world.caller(&format!("agent_{OTHER}"));
        world.act(0, 0, Action::Invite);
        check(name, world);
    }
}

#[test]
fn an_agent_that_cannot_be_read_is_called_without_automatic_values() {
    let mut world =
        with(Script { fetch: (40, Err(CreateFault::Unreachable)), ..Script::default() });
    world.act(1_000, 0, Action::HangUp);
    check("agent_not_readable", world);
}

#[test]
fn the_agent_stream_cannot_be_had() {
    let prepare = (30, Err(AgentStreamFault::Unreachable("connection refused".into())));
    check("prepare_fails", with(Script { prepare, ..Script::default() }));
    let join = (20, Err(AgentStreamFault::Refused(404)));
    check("join_refused", with(Script { join, ..Script::default() }));
}

#[test]
fn an_offer_that_cannot_be_taken() {
    check("no_common_codec", offering(Offer::NoCommon));
    check("unknown_body", offering(Offer::Text));
}

#[test]
fn nobody_is_meant() {
    let mut world = World::new(1, settings());
    world.caller("nobody");
    world.act(0, 0, Action::Invite);
    check("no_match", world);
}

#[test]
fn a_late_offer() {
    let mut world = offering(Offer::Late);
    world.act(1_000, 0, Action::HangUp);
    check("late_offer", world);
    let mut world = offering(Offer::Late);
    world.callers[0].ack_describes = false;
    check("late_offer_without_answer", world);
    let mut world = offering(Offer::Late);
    world.callers[0].ack_numbers = "9 101";
    world.act(1_000, 0, Action::HangUp);
    check("late_offer_wideband", world);
}

#[test]
fn a_reoffer_of_another_codec() {
    let mut world = until(3_000);
    world.act(1_000, 0, Action::Reoffer("9 101"));
    world.act(2_000, 0, Action::Reoffer("0 101"));
    check("codec_changes", world);
}

#[test]
fn the_ack_is_lost() {
    let mut world = world();
    world.callers[0].acks = false;
    check("never_acked", world);
    let mut world = until(2_000);
    world.network.lose.push(("ACK 1", 2));
    check("ack_lost_twice", world);
}

#[test]
fn the_200_is_lost() {
    let mut world = until(4_000);
    world.network.lose.push(("200 INVITE", 3));
    check("ok_lost_thrice", world);
    let mut world = world_without_voice();
    world.network.lose.push(("200 INVITE", 99));
    check("ok_never_comes", world);
}

fn world_without_voice() -> World {
    let mut world = world();
    world.callers[0].speaks = false;
    world
}

#[test]
fn copies_of_the_invite() {
    let mut world = until(1_000);
    world.act(2, 0, Action::CopyInvite);
    world.act(150, 0, Action::CopyInvite);
    world.act(250, 0, Action::CopyInvite);
    check("invite_copies", world);
    let mut world = until(4_000);
    world.network.lose.push(("INVITE", 2));
    check("invite_lost_twice", world);
}

#[test]
fn a_refusal_is_repeated_until_it_is_acknowledged() {
    let mut world = creating(&[(150, Err(CreateFault::BadRequest))]);
    world.network.lose.push(("488", 2));
    check("refusal_lost_twice", world);
}

#[test]
fn hold_and_resume() {
    let mut world = until(4_000);
    world.act(1_000, 0, Action::Reinvite("sendonly"));
    world.act(2_000, 0, Action::Reinvite("inactive"));
    world.act(3_000, 0, Action::Reinvite("sendrecv"));
    check("hold_and_resume", world);
    let mut world = until(3_000);
    world.act(1_000, 0, Action::Update("inactive"));
    world.act(2_000, 0, Action::Update("sendrecv"));
    check("hold_by_update", world);
}

#[test]
fn a_refresh_changes_nothing() {
    let mut world = until(3_000);
    world.act(1_000, 0, Action::Refresh);
    world.act(1_500, 0, Action::UpdateEmpty);
    world.act(2_000, 0, Action::LateReinvite);
    check("refresh", world);
}

#[test]
fn an_unusable_reoffer_is_refused_and_the_call_goes_on() {
    let mut world = until(3_000);
    world.act(1_000, 0, Action::BadReinvite);
    world.act(2_000, 0, Action::Refresh);
    check("bad_reoffer", world);
}

#[test]
fn a_caller_who_falls_silent() {
    let mut world = world();
    world.act(2_000, 0, Action::StopVoice);
    check("caller_silent", world);
    let mut world = until(45_000);
    world.act(2_000, 0, Action::Reinvite("inactive"));
    check("silent_on_hold", world);
    let mut world = until(45_000);
    world.act(2_000, 0, Action::Reinvite("sendonly"));
    check("silent_on_hold_without_music", world);
    let mut settings = settings();
    settings.call.hold_max = Duration::from_secs(60);
    let mut world = World::new(1, settings);
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world.act(2_000, 0, Action::Reinvite("inactive"));
    check("held_too_long", world);
}

#[test]
fn a_caller_who_is_never_heard() {
    let mut world = world_without_voice();
    world.act(4_000, 0, Action::HangUp);
    world.run_out(600_000);
    ladder::check("caller_never_heard", world.ladder());
    let facts = world.facts.values().next().expect("a call");
    let record = facts.records.last().expect("a record");
    let [told] = &record.one_way[..] else { panic!("one verdict: {:?}", record.one_way) };
    assert!(told.starts_with("no RTP from the caller: "), "{told}");
    assert_eq!(record.ended_by, Some(EndedBy::Caller), "the call went on");
}

#[test]
fn a_port_that_somebody_else_holds() {
    let mut world = until(1_000);
    world.ports_taken = 1;
    check("another_port", world);
    let mut world = world_without_voice();
    world.ports_taken = 99;
    check("no_port_binds", world);
}

#[test]
fn a_cancel_while_the_port_is_tried() {
    let mut world = until(0);
    world.network.up = Path::steady(0);
    world.network.down = Path::steady(0);
    world.ports_taken = 1;
    check("cancel_and_bind_failed", world);
}

/// Two pairs of ports for three callers.
#[test]
fn every_port_is_in_use() {
    let mut world =
        World::new(1, voxedge::switchboard::Settings { ports: (40_000, 40_003), ..settings() });
    for (caller, ms) in [(0, 0), (1, 500), (2, 1_000)] {
        world.caller("sales");
        world.act(ms, caller, Action::Invite);
        world.act(2_000, caller, Action::HangUp);
    }
    check("ports_exhausted", world);
}

#[test]
fn a_drain_lets_calls_go_on_until_the_grace_is_over() {
    let mut world = world();
    world.caller("sales");
    world.edge(1_000, Input::Drain { grace: Duration::from_secs(2) });
    world.act(1_500, 1, Action::Invite);
    check("drain_at_grace", world);
    let mut world = until(2_000);
    world.edge(1_000, Input::Drain { grace: Duration::from_secs(60) });
    check("drain_waits_for_the_last_call", world);
    let mut world = world_without_voice();
    world.edge(100, Input::Drain { grace: Duration::ZERO });
    check("drain_while_ringing", world);
}

#[test]
fn options_tell_whether_calls_are_taken() {
    let mut world = World::new(1, settings());
    world.caller("sales");
    world.act(0, 0, Action::Options);
    world.edge(500, Input::Overload(true));
    world.act(1_000, 0, Action::Options);
    world.edge(1_500, Input::Overload(false));
    world.act(2_000, 0, Action::Options);
    world.edge(2_500, Input::Drain { grace: Duration::from_secs(9) });
    world.act(3_000, 0, Action::Options);
    check("options", world);
}

#[test]
fn a_heartbeat_every_six_seconds() {
    check("heartbeat", until(13_000));
}

/// The clock runs from the joining at 249 ms until the BYE comes, 5 ms after it was sent.
#[test]
fn deciminutes_at_their_edge() {
    for (name, hang_up, expected) in
        [("5999", 6_243, (5_999, 1)), ("6000", 6_244, (6_000, 1)), ("6001", 6_245, (6_001, 2))]
    {
        let mut world = until(hang_up);
        world.run_out(60_000);
        let facts = world.facts.values().next().expect("one call");
        let last = facts.records.last().expect("a record");
        let billed = (last.sip_time.as_millis(), last.deciminutes.count());
        assert_eq!(billed, expected, "{name}\n{}", world.ladder());
        assert_eq!(last.agent_time, last.sip_time, "{name}");
    }
}

const HEADERS: [&str; 4] = [
    "X-Customer-Name: Bob",
    "X-Account: {\"tier\": 2}",
    "P-Asserted-Identity: \"Ann Lee\" <sip:+15550111@carrier.example>",
    "User-Agent: desk phone",
];

#[test]
fn headers_and_identity_reach_the_agent() {
    let mut world = until(1_000);
    world.callers[0].headers = HEADERS.map(str::to_owned).to_vec();
    check("context", world);
}

#[test]
fn a_strict_schema_keeps_automatic_values_out() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": {"customer_name": {"type": "string"}, "account": {"type": "object"}},
        "additionalProperties": false,
    });
    let mut world = with(Script { schema: Some(schema), ..Script::default() });
    world.callers[0].headers = HEADERS.map(str::to_owned).to_vec();
    world.act(1_000, 0, Action::HangUp);
    check("context_strict", world);
}

/// The second call within a minute finds the agent read already.
#[test]
fn an_agent_is_read_once_in_a_minute() {
    let mut world = until(1_000);
    world.caller("sales");
    world.act(2_000, 1, Action::Invite);
    world.act(3_000, 1, Action::HangUp);
    check("agent_cached", world);
}
