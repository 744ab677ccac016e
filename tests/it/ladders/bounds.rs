//! What a transfer may take at most, and what of it belongs to whom: the time of a leg that we dialled,
//! its place among the calls that `[outgoing]` allows, an answer that came early, keys over a bridge.

use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use crate::sim::{World, ladder, settings};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy, TransferOutcome};
use voxedge::call::settings::{HandSettings, TransferSettings};
use voxedge::ground::{CallKey, LegId, StreamId};
use voxedge::media::plan::{ForCall, Key, MediaEvent};
use voxedge::outgoing::OutgoingPolicy;
use voxedge::switchboard::{Input, Settings};
use voxedge::ultravox::tool::{Fixed, GivenTools, SipVerb, TelephoneTool};

const CALL: CallKey = CallKey(1 << 32 | 1);
/// To the second phone.
const MOVED: &str = "Contact: <sip:+15550002@192.0.2.101>\r\n";

/// An edge whose agents bridge to the first phone, by this policy for what we dial.
fn edge(change: impl FnOnce(&mut OutgoingPolicy)) -> Settings {
    let mut settings = settings();
    let mut policy = OutgoingPolicy::clone(&settings.outgoing);
    change(&mut policy);
    settings.outgoing = Arc::new(policy);
    let cold = Fixed {
        target: Some("sip:+15550001@192.0.2.100".into()),
        verb: Some(SipVerb::Invite),
        ..Fixed::default()
    };
    let transfers = TransferSettings {
        policy: Arc::clone(&settings.outgoing),
        follow_refer: true,
        ..TransferSettings::default()
    };
    let tools = GivenTools {
        give: vec![TelephoneTool::ColdTransfer],
        defaults: BTreeMap::from([(TelephoneTool::ColdTransfer, cold)]),
    };
    settings.call.hands = Arc::new(HandSettings { tools, transfers, ..HandSettings::default() });
    settings
}

fn calling(settings: Settings) -> World {
    let mut world = World::new(1, settings);
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world
}

/// The agent passes the caller on.
fn transfer(world: &mut World, ms: u64) {
    let text = json!({ "type": "client_tool_invocation", "toolName": "coldTransfer",
        "invocationId": "t", "parameters": {} })
    .to_string();
    let what = MediaEvent::AgentText { stream: StreamId::FIRST, text };
    world.edge(ms, Input::Media(ForCall { call: CALL, what }));
}

fn check(name: &str, world: &mut World) -> Cdr {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    let record = world.facts.values().find_map(|facts| facts.records.last()).cloned();
    let record = record.expect("a record");
    assert!(record.is_closed(), "{name}");
    record
}

#[test]
fn a_target_that_the_agent_went_over_to_has_the_time_and_the_place_of_a_call_of_ours() {
    let mut world = calling(edge(|policy| {
        policy.length_max = Duration::from_secs(8);
        policy.calls_max = 1;
    }));
    world.callee(Manner::default());
    world.callee_speaks(3_100, 0, 600);
    world.act(1_000, 0, Action::Refer("+15550001"));
    // Handed over by now; the leg that we dialled takes the only place.
    world.dial(6_000, json!({ "to": "sip:+15550002@192.0.2.101", "from": "+15559990000" }));
    let record = check("handed_over_too_long", &mut world);
    assert_eq!(record.transfers[0].outcome, TransferOutcome::HandedOver);
    assert_eq!(
        (record.ended_by, record.end.as_deref()),
        (Some(EndedBy::Edge), Some("longest call time"))
    );
    assert!(record.transfers[0].leg_time <= Duration::from_secs(8), "{record:?}");
    assert!(world.dialled[0].is_err(), "{:?}", world.dialled);
    assert!(world.callees[0].heard.contains(&"BYE".to_owned()));
}

#[test]
fn an_early_answer_is_that_of_the_target_that_gave_it() {
    let early = Manner {
        early_media: Some(100),
        reliable: true,
        answers: Some((700, 302, MOVED)),
        ..Manner::default()
    };
    let bare = Manner { bare_200: true, ..Manner::default() };
    let mut world = calling(edge(|_| {}));
    world.callee(early.clone());
    world.callee(bare.clone());
    transfer(&mut world, 2_000);
    world.act(12_000, 0, Action::HangUp);
    let record = check("early_answer_of_another_target", &mut world);
    let (outcome, reason) = (record.transfers[0].outcome, record.transfers[0].reason.as_deref());
    assert_eq!((outcome, reason), (TransferOutcome::Failed, Some("unusable answer of the target")));
    // The same of a call that we make.
    let mut world = World::new(1, edge(|_| {}));
    world.callee(early);
    world.callee(bare);
    world.dial(0, json!({ "to": "sip:+15550001@192.0.2.100", "from": "+15559990000" }));
    let record = check("early_answer_of_another_callee", &mut world);
    assert_eq!(record.end.as_deref(), Some("unusable answer in the ACK"), "{record:?}");
}

#[test]
fn keys_over_a_bridge_are_bounded() {
    let mut world = calling(edge(|_| {}));
    world.callee(Manner { hangs_up: Some(12_000), events: true, ..Manner::default() });
    world.callee_speaks(3_100, 0, 700);
    transfer(&mut world, 1_000);
    for _ in 0..40 {
        let what = MediaEvent::Digit { leg: LegId::CALLER, digit: Key('5'), duration_ms: 100 };
        world.edge(5_000, Input::Media(ForCall { call: CALL, what }));
    }
    // Those on their way have been pressed by now: there is place again.
    let what = MediaEvent::Digit { leg: LegId(1), digit: Key('6'), duration_ms: 100 };
    world.edge(13_000, Input::Media(ForCall { call: CALL, what }));
    world.run_out(600_000);
    assert!(world.is_idle(), "{}", world.ladder());
    let record = world.facts.values().find_map(|facts| facts.records.last()).expect("a record");
    assert_eq!((record.keys.rfc4733, record.keys.passed_on), (41, 33), "{record:?}");
}
