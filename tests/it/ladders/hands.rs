//! The hands of a call: keys of the caller on their way to the agent, and the agent's telephone tools.

use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use crate::sim::{World, ladder, settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use voxedge::billing::KeyCounts;
use voxedge::call::deed::{REFUSED, Tally};
use voxedge::call::settings::{HandSettings, KeySettings, TransferSettings, WarmMode};
use voxedge::ground::{CallKey, LegId, StreamId};
use voxedge::media::plan::{AgentClose, ForCall, Key, MediaEvent};
use voxedge::outgoing::OutgoingPolicy;
use voxedge::switchboard::Input;
use voxedge::ultravox::data_message::{ServerMessage, Urgency};
use voxedge::ultravox::tool::{Fixed, GivenTools, SipVerb, TelephoneTool};

/// A world whose caller dials at once and hangs up at 60 s, with an agent that was given the tools.
fn world(keys: KeySettings) -> World {
    world_with(keys, |_| {})
}

fn world_with(keys: KeySettings, adjust: impl FnOnce(&mut TransferSettings)) -> World {
    let mut settings = settings();
    let bridge = Fixed { verb: Some(SipVerb::Invite), ..Fixed::default() };
    let defaults = BTreeMap::from([(TelephoneTool::ColdTransfer, bridge)]);
    let tools = GivenTools { give: TelephoneTool::ALL.to_vec(), defaults };
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
    let digit = Key(digit);
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

/// Runs the scenario to its end; what it is counted as, and its record's keys.
fn check(name: &str, mut world: World) -> (Tally, KeyCounts) {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    let facts = world.facts.values().next().expect("a call");
    let record = facts.records.last().expect("a record");
    assert!(record.is_closed(), "{name}");
    (world.tally.clone(), record.keys)
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
    let (tally, keys) = check("keys_reach_the_agent", world);
    assert_eq!(keys, KeyCounts { rfc4733: 3, info: 1, ..KeyCounts::default() }, "each once");
    assert_eq!(tally.keys_received, BTreeMap::from([("info", 1), ("rfc4733", 3)]));
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
    let (tally, keys) = check("agent_presses_keys", world);
    assert_eq!(keys, KeyCounts { sent_by_agent: 3, ..KeyCounts::default() });
    assert_eq!(tally.keys_sent, BTreeMap::from([("agent", 3)]));
    let once = [(("play_dtmf_sounds", "begun"), 1), (("play_dtmf_sounds", "refused"), 1)];
    assert_eq!(tally.tools, BTreeMap::from(once));
}

#[test]
fn after_a_hand_over_keys_are_pressed_towards_the_new_party() {
    let mut world = world_with(KeySettings::default(), |transfers| transfers.follow_refer = true);
    world.callee(Manner { hangs_up: Some(9_000), ..Manner::default() });
    world.callee_speaks(3_300, 0, 400);
    world.act(1_000, 0, Action::Refer("+15550001"));
    // These are still being pressed towards the caller when its leg goes.
    invoke(&mut world, 2_000, "playDtmfSounds", json!({"digits": "123456789012"}));
    invoke(&mut world, 5_000, "playDtmfSounds", json!({"digits": "12#"}));
    check("keys_after_hand_over", world);
}

#[test]
fn an_agent_that_is_lost_after_a_hand_over_is_missed_by_the_new_party() {
    let mut world = world_with(KeySettings::default(), |transfers| transfers.follow_refer = true);
    world.callee(Manner { hangs_up: Some(9_000), ..Manner::default() });
    world.callee_speaks(3_300, 0, 400);
    world.act(1_000, 0, Action::Refer("+15550001"));
    lose(&mut world, 5_000);
    check("lost_after_hand_over", world);
}

#[test]
fn keys_pass_between_bridged_legs_once() {
    let mut world = bridged(true);
    press(&mut world, 5_000, '1');
    world.act(5_010, 0, Action::Info(RELAY, "Signal=1\r\nDuration=100\r\n"));
    world.act(5_500, 0, Action::Info(RELAY, "Signal=#\r\nDuration=65535\r\n"));
    let digit = Key('7');
    let target = MediaEvent::Digit { leg: LegId(1), digit, duration_ms: 120 };
    media(&mut world, 6_000, target);
    let (tally, keys) = check("keys_over_a_bridge", world);
    let three = KeyCounts { rfc4733: 2, info: 1, passed_on: 3, ..KeyCounts::default() };
    assert_eq!((keys, tally.keys_sent), (three, BTreeMap::from([("bridge", 3)])));
    // Without telephone-events keys are tones, which pass in the audio.
    let mut tones = bridged(false);
    media(&mut tones, 6_000, MediaEvent::Digit { leg: LegId(1), digit, duration_ms: 120 });
    let (tally, keys) = check("tones_over_a_bridge", tones);
    assert_eq!(keys, KeyCounts { inband: 1, ..KeyCounts::default() });
    assert_eq!((tally.keys_sent.len(), tally.keys_received["inband"]), (0, 1));
}

#[test]
fn keys_that_wait_when_a_transfer_begins_are_the_agents_still() {
    let mut world = bridged(false);
    press(&mut world, 900, '1');
    check("keys_before_a_transfer", world);
}

#[test]
fn keys_that_come_while_the_agent_is_lost_wait_for_the_next() {
    let mut world = world(KeySettings::default());
    press(&mut world, 1_900, '1');
    lose(&mut world, 2_000);
    press(&mut world, 2_050, '2');
    world.act(12_000, 0, Action::HangUp);
    check("keys_while_the_agent_is_lost", world);
}

#[test]
fn a_peers_refer_is_refused_while_an_agent_is_looked_for() {
    let mut world = world_with(KeySettings::default(), |transfers| transfers.follow_refer = true);
    world.service.script.creations = vec![(150, Ok(())), (3_000, Ok(()))];
    lose(&mut world, 2_000);
    world.act(2_500, 0, Action::Refer("+15550001"));
    world.act(12_000, 0, Action::HangUp);
    check("lost_agent_and_refer", world);
}

/// A cold transfer at one second to a phone that answers, with telephone-events or without. It hangs up
/// five seconds later.
fn bridged(events: bool) -> World {
    let mut world = world(KeySettings::default());
    world.callee(Manner { hangs_up: Some(5_000), events, ..Manner::default() });
    world.callee_speaks(3_300, 0, 200);
    let parameters = json!({"target": "sip:+15550001@192.0.2.100"});
    invoke(&mut world, 1_000, "coldTransfer", parameters);
    world
}

/// The agent's stream breaks.
fn lose(world: &mut World, ms: u64) {
    let stream = StreamId::FIRST;
    media(world, ms, MediaEvent::AgentEnded { stream });
    media(world, ms, MediaEvent::AgentLeft { stream, close: AgentClose::Lost });
}

#[test]
fn what_a_tool_cannot_do_is_told_to_the_model() {
    let mut world = world(KeySettings::default());
    invoke(&mut world, 1_000, "playDtmfSounds", json!({"digits": "call me"}));
    invoke(&mut world, 1_100, "coldTransfer", json!({}));
    invoke(&mut world, 1_200, "coldTransfer", json!({"target": "sip:900@elsewhere.example"}));
    invoke(&mut world, 1_300, "look_up", json!({}));
    let (tally, _) = check("tools_refused", world);
    let refused = [("play_dtmf_sounds", 1), ("cold_transfer", 2), ("unknown", 1)];
    let refused = refused.map(|(tool, count)| ((tool, REFUSED), count));
    assert_eq!(tally.tools, BTreeMap::from(refused));
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
