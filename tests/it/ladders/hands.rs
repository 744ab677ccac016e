//! The hands of a call: keys of the caller on their way to the agent, and the agent's telephone tools.

use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use crate::sim::{World, ladder, settings};
use serde_json::{Value, json};
use std::sync::Arc;
use voxedge::call::settings::{HandSettings, KeySettings, TransferSettings, WarmMode};
use voxedge::ground::{CallKey, LegId, StreamId};
use voxedge::media::plan::{ForCall, MediaEvent};
use voxedge::outgoing::OutgoingPolicy;
use voxedge::switchboard::Input;
use voxedge::ultravox::data_message::{ServerMessage, Urgency};
use voxedge::ultravox::tool::{GivenTools, TelephoneTool};

/// A world whose caller dials at once and hangs up at 60 s, with an agent that was given the tools.
fn world(keys: KeySettings) -> World {
    world_with(keys, |_| {})
}

fn world_with(keys: KeySettings, adjust: impl FnOnce(&mut TransferSettings)) -> World {
    let mut settings = settings();
    let tools = GivenTools { give: TelephoneTool::ALL.to_vec(), ..GivenTools::default() };
    let policy = Arc::new(OutgoingPolicy::clone(&settings.outgoing));
    let mut transfers = TransferSettings { policy, ..TransferSettings::default() };
    adjust(&mut transfers);
    let hands = HandSettings { tools, transfers, keys, ..HandSettings::default() };
    settings.call.hands = Arc::new(hands);
    let mut world = World::new(1, settings);
    world.service.script = Script::default();
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world.act(60_000, 0, Action::HangUp);
    world
}

const CALL: CallKey = CallKey(1 << 32 | 1);

fn media(world: &mut World, ms: u64, what: MediaEvent) {
    world.edge(ms, Input::Media(ForCall { call: CALL, what }));
}

fn press(world: &mut World, ms: u64, digit: char) {
    media(world, ms, MediaEvent::Digit { leg: LegId::CALLER, digit, duration_ms: 100 });
}

fn invoke(world: &mut World, ms: u64, tool_name: &str, parameters: Value) {
    let invocation = ServerMessage::ClientToolInvocation {
        tool_name: tool_name.into(),
        invocation_id: format!("i-{ms}"),
        parameters,
    };
    let text = invocation.to_text();
    media(world, ms, MediaEvent::AgentText { stream: StreamId::FIRST, text });
}

fn check(name: &str, mut world: World) {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    let facts = world.facts.values().next().expect("a call");
    let record = facts.records.last().expect("a record");
    assert!(record.is_closed(), "{name}");
}

const RELAY: &str = "application/dtmf-relay";

#[test]
fn keys_by_rtp_and_by_info_reach_the_agent_as_one_message() {
    let mut world = world(KeySettings::default());
    press(&mut world, 1_000, '1');
    world.act(1_010, 0, Action::Info(RELAY, "Signal=1\r\nDuration=100\r\n"));
    world.act(1_500, 0, Action::Info(RELAY, "Signal=#\r\nDuration=100\r\n"));
    press(&mut world, 1_600, '#');
    press(&mut world, 2_000, '1');
    // 750 ms later the message is due; the next key begins another one.
    press(&mut world, 2_751, '7');
    check("keys_reach_the_agent", world);
}

#[test]
fn an_info_that_is_no_key_is_refused() {
    let mut world = world(KeySettings::default());
    world.act(1_000, 0, Action::Info("text/plain", "5"));
    world.act(2_000, 0, Action::Info(RELAY, "Signal=55\r\n"));
    world.act(3_000, 0, Action::Info(RELAY, "Signal=16\r\n"));
    check("info_without_a_key", world);
}

#[test]
fn keys_are_told_by_the_settings_or_not_at_all() {
    let settings = KeySettings {
        text: "pressed: {digits}".into(),
        urgency: Urgency::Later,
        ..KeySettings::default()
    };
    let mut told = world(settings);
    press(&mut told, 1_000, '1');
    check("keys_by_template", told);
    let mut ignored = world(KeySettings { ignore: true, ..KeySettings::default() });
    press(&mut ignored, 1_000, '1');
    check("keys_ignored", ignored);
}

#[test]
fn the_agent_presses_keys_and_hears_when_they_were_pressed() {
    let mut world = world(KeySettings::default());
    invoke(&mut world, 1_000, "playDtmfSounds", json!({"digits": "12#"}));
    invoke(&mut world, 1_100, "playDtmfSounds", json!({"digits": "9"}));
    check("agent_presses_keys", world);
}

#[test]
fn what_a_tool_cannot_do_is_told_to_the_model() {
    let mut world = world(KeySettings::default());
    invoke(&mut world, 1_000, "playDtmfSounds", json!({"digits": "call me"}));
    invoke(&mut world, 1_100, "coldTransfer", json!({}));
    invoke(&mut world, 1_200, "coldTransfer", json!({"target": "sip:900@elsewhere.example"}));
    invoke(&mut world, 1_300, "look_up", json!({}));
    check("tools_refused", world);
}

#[test]
fn the_agent_briefs_the_operator_in_a_stage_and_has_its_own_back_on_refusal() {
    let refused = staged("refuseTransfer", json!({"reason": "in a meeting"}));
    check("warm_stage_refused", refused);
    let mut accepted = staged("acceptTransfer", json!({}));
    accepted.act(12_000, 0, Action::HangUp);
    check("warm_stage_accepted", accepted);
}

/// A warm transfer by stages whose operator answers; the agent calls this tool at 9 s.
fn staged(tool: &str, parameters: Value) -> World {
    let mut world = world_with(KeySettings::default(), |transfers| {
        transfers.warm = WarmMode::Stage;
    });
    world.callee(Manner::default());
    let target = json!({"target": "sip:+15550001@192.0.2.100", "context": "Ada, order 7"});
    invoke(&mut world, 1_000, "warmTransfer", target);
    invoke(&mut world, 9_000, tool, parameters);
    world
}
