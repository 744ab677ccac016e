//! Transfers as whole calls: cold and warm, by REFER and by INVITE, and every way in which they go
//! wrong. What each costs is asserted beside its ladder (seed, "SIP Billing: Transfers").

use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::network::Path;
use crate::sim::pbx::{Action, Refers};
use crate::sim::{World, ladder, settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy, TransferOutcome, TransferRecord};
use voxedge::call::deed::REFUSED;
use voxedge::call::ringing::WhileRinging;
use voxedge::call::settings::{HandSettings, TransferSettings, WarmMode};
use voxedge::call::sound::Sounds;
use voxedge::ground::{Entropy, StreamId};
use voxedge::media::plan::{AgentClose, AgentStreamFault};
use voxedge::media::sound::{Ringback, ringback};
use voxedge::switchboard::{Input, Settings};
use voxedge::ultravox::create_call::CreateFault;
use voxedge::ultravox::tool::{Fixed, GivenTools, HoldMusic, SipVerb, TelephoneTool, TransferType};

pub(super) const TARGET: &str = "sip:+15550001@192.0.2.100";

/// An edge whose agents have both transfers, with these parameters fixed.
pub(super) fn edge(fixed: &Fixed, change: impl FnOnce(&mut TransferSettings)) -> Settings {
    let mut settings = settings();
    let mut transfers =
        TransferSettings { policy: Arc::clone(&settings.outgoing), ..TransferSettings::default() };
    change(&mut transfers);
    let both = [TelephoneTool::ColdTransfer, TelephoneTool::WarmTransfer];
    let defaults = both.map(|tool| (tool, fixed.clone()));
    settings.call.hands = Arc::new(HandSettings {
        transfers,
        tools: GivenTools { give: both.to_vec(), defaults: BTreeMap::from(defaults) },
        sounds: Sounds {
            ringback: Some(ringback(Ringback::Europe)),
            ..HandSettings::default().sounds
        },
        ..HandSettings::default()
    });
    settings
}

/// What the agent says to use a tool.
pub(super) fn tool(name: &str, parameters: &Value) -> String {
    json!({ "type": "client_tool_invocation", "toolName": name, "invocationId": name,
        "parameters": parameters })
    .to_string()
}

/// A caller, its agent who uses `name` two seconds after it joined, and the phone that is called.
pub(super) fn world(settings: Settings, name: &str, callee: Manner) -> World {
    let mut world = World::new(1, settings);
    let call = tool(name, &json!({ "context": "Ann has lost her card." }));
    world.service.script = Script { texts: vec![(2_000, call)], ..Script::default() };
    world.caller("sales");
    world.callee(callee);
    world.act(0, 0, Action::Invite);
    world
}

pub(super) fn to_target() -> Fixed {
    Fixed { target: Some(TARGET.into()), ..Fixed::default() }
}

fn cold(verb: SipVerb, callee: Manner) -> World {
    let fixed = Fixed { verb: Some(verb), ..to_target() };
    world(edge(&fixed, |_| {}), "coldTransfer", callee)
}

/// A warm transfer whose operator's agent does this so long after it joined.
fn warm(kind: TransferType, operator: &[(u64, String)], callee: Manner) -> World {
    warm_with(kind, None, operator, callee)
}

/// The same with headers of the REFER.
fn warm_with(
    kind: TransferType,
    refer_headers: Option<Vec<(String, String)>>,
    operator: &[(u64, String)],
    callee: Manner,
) -> World {
    let fixed = Fixed { kind: Some(kind), refer_headers, ..to_target() };
    let mut world = world(edge(&fixed, |_| {}), "warmTransfer", callee);
    world.service.further = vec![Script { texts: operator.to_vec(), ..Script::default() }];
    world
}

fn accept(ms: u64) -> Vec<(u64, String)> {
    vec![(ms, tool("acceptTransfer", &json!({})))]
}

/// Runs the scenario to its end; nothing may be left, the ladder is as it is kept, and there is one
/// closed record, which is given.
pub(super) fn check(name: &str, world: &mut World) -> Cdr {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    assert!(world.admitted.values().all(|count| *count == 0), "{name}");
    assert_eq!(world.facts.len(), 1, "{name}");
    let facts = world.facts.values().next().expect("a call");
    let record = facts.records.last().expect("a record").clone();
    let ends = facts.records.iter().filter(|cdr| cdr.is_closed() && cdr.media.is_some());
    assert_eq!(ends.count(), 1, "{name}: one end");
    let begun = world.tally.transfers.iter();
    let begun = begun.filter(|((kind, outcome), _)| *kind != "replaces" && *outcome != REFUSED);
    let begun = begun.map(|(_, count)| count).sum::<u64>();
    assert_eq!(begun, record.transfers.len() as u64, "{name}: each is counted once");
    record
}

/// Transfers as they are counted: `kind outcome`, of each so many.
fn counted(world: &World) -> String {
    let all = world.tally.transfers.iter();
    let all = all.map(|((kind, outcome), count)| format!("{count} {kind} {outcome}"));
    all.collect::<Vec<_>>().join(", ")
}

/// What the record says of the one transfer, the SIP time, and the agent's time, in milliseconds.
pub(super) fn told(record: &Cdr) -> (TransferOutcome, u128, u128) {
    assert_eq!(record.transfers.len(), 1);
    let outcome = record.transfers[0].outcome;
    (outcome, record.sip_time.as_millis(), record.agent_time.as_millis())
}

/// How long the target's leg was up.
fn leg_ms(record: &Cdr) -> u128 {
    record.transfers[0].leg_time.as_millis()
}

/// What the caller's agent was told of the transfer's end.
fn report(world: &World) -> String {
    let facts = world.facts.values().next().expect("a call");
    let told =
        facts.texts.iter().rev().find(|(stream, text)| {
            *stream == StreamId::FIRST && text.contains("user_text_message")
        });
    told.map(|(_, text)| text.clone()).unwrap_or_default()
}

#[test]
fn a_cold_refer_takes_the_caller_away_and_stops_the_clock() {
    let mut world = cold(SipVerb::Refer, Manner::default());
    let record = check("transfer_cold_refer", &mut world);
    assert_eq!(record.end.as_deref(), Some("transferred"));
    assert_eq!(record.ended_by, Some(EndedBy::Agent));
    let (outcome, sip_ms, agent_ms) = told(&record);
    // The clocks stop at the NOTIFY, whatever the BYE takes, and never run at double rate.
    assert_eq!((outcome, sip_ms), (TransferOutcome::Referred, agent_ms));
    assert!((3_900..4_200).contains(&sip_ms), "{sip_ms}");
    let (refer_to, referred_by) = &world.callers[0].referred[0];
    assert_eq!(refer_to, "<sip:+15550001@192.0.2.100>");
    assert_eq!(referred_by, "<sip:sales@edge.example>");
    assert_eq!(world.callees[0].heard, Vec::<String>::new(), "the edge itself calls nobody");
}

#[test]
fn headers_for_the_target_stand_in_refer_to_and_those_of_the_refer_on_it() {
    let team = || Some(vec![("X-Team".to_owned(), "desk 1".to_owned())]);
    let fixed = Fixed { verb: Some(SipVerb::Refer), headers: team(), ..to_target() };
    let mut cold = world(edge(&fixed, |_| {}), "coldTransfer", Manner::default());
    cold.run_out(600_000);
    let to_target = "<sip:+15550001@192.0.2.100?X-Team=desk%201>";
    assert_eq!(cold.callers[0].referred[0].0, to_target);
    assert_eq!(cold.callers[0].refer_teams, [""]);
    let mut warm = warm_with(TransferType::Refer, team(), &accept(2_000), Manner::default());
    warm.run_out(600_000);
    let (refer_to, _) = &warm.callers[0].referred[0];
    assert!(refer_to.contains("?Replaces=") && !refer_to.contains("X-Team"), "{refer_to}");
    assert_eq!(warm.callers[0].refer_teams, ["desk 1"]);
}

#[test]
fn a_refer_that_fails_brings_the_caller_back() {
    let refused = |code| Refers { answer: (5, code), ..Refers::default() };
    let told_of =
        |notifies: &[(u64, u16)]| Refers { notifies: notifies.to_vec(), ..Refers::default() };
    let refusal = |code| format!("does not transfer (SIP status {code})");
    let silence = || "did not carry it out in time".to_owned();
    let busy = (told_of(&[(10, 100), (900, 486)]), "the line is busy".to_owned());
    for (name, (refers, words), tag) in [
        ("transfer_refer_603", (refused(603), refusal(603)), "refer_refused"),
        ("transfer_refer_405", (refused(405), refusal(405)), "refer_refused"),
        ("transfer_refer_401", (refused(401), refusal(401)), "refer_refused"),
        ("transfer_refer_busy", busy, "busy"),
        ("transfer_refer_only_100", (told_of(&[(10, 100)]), silence()), "refer_timed_out"),
        ("transfer_refer_silence", (told_of(&[]), silence()), "refer_timed_out"),
    ] {
        let mut world = cold(SipVerb::Refer, Manner::default());
        world.callers[0].refers = refers;
        world.act(90_000, 0, Action::HangUp);
        let record = check(name, &mut world);
        assert!(report(&world).contains(&words), "{name}: {}", report(&world));
        assert_eq!(counted(&world), format!("1 cold_refer {tag}"), "{name}");
        let (outcome, sip_ms, agent_ms) = told(&record);
        assert_eq!((outcome, sip_ms), (TransferOutcome::Failed, agent_ms), "{name}");
        assert_eq!(record.ended_by, Some(EndedBy::Caller), "{name}");
    }
}

#[test]
fn a_bye_at_once_after_the_202_is_success() {
    let mut world = cold(SipVerb::Refer, Manner::default());
    let notifies = vec![(10, 100)];
    world.callers[0].refers = Refers { notifies, leaves: Some(60), ..Refers::default() };
    let record = check("transfer_refer_then_bye", &mut world);
    assert_eq!(record.transfers[0].outcome, TransferOutcome::Referred);
    assert_eq!(record.end.as_deref(), Some("transferred"));
}

#[test]
fn a_refer_that_fails_may_be_tried_again() {
    let mut world = cold(SipVerb::Refer, Manner::default());
    world.callers[0].refers = Refers { answer: (5, 603), ..Refers::default() };
    let again = tool("coldTransfer", &json!({}));
    world.service.script.replies = vec![("The caller is back".into(), 1_500, again)];
    world.act(60_000, 0, Action::HangUp);
    let record = check("transfer_refer_again", &mut world);
    assert_eq!(record.transfers.len(), 2);
    assert_eq!(world.callers[0].referred.len(), 2);
}

#[test]
fn a_cold_invite_is_bridged_and_both_legs_are_billed() {
    let mut world = cold(SipVerb::Invite, Manner { hangs_up: Some(5_000), ..Manner::default() });
    world.callee_speaks(4_400, 0, 200);
    let record = check("transfer_bridged", &mut world);
    let (outcome, sip_ms, agent_ms) = told(&record);
    assert_eq!(outcome, TransferOutcome::Bridged);
    assert_eq!(record.ended_by, Some(EndedBy::Target));
    // The agent's clock stops as the target answers; the first leg's goes on, the target's begins.
    assert_eq!(sip_ms, agent_ms + 2 * leg_ms(&record));
    assert!((4_900..5_200).contains(&leg_ms(&record)));
    assert!(world.callees[0].rtp_received > 150, "the target hears the caller");
    assert!(world.callers[0].rtp_received > 150, "the caller hears the target");
}

#[test]
fn a_200_may_leave_out_what_the_183_said() {
    let manner = Manner {
        early_media: Some(200),
        bare_200: true,
        hangs_up: Some(2_000),
        ..Manner::default()
    };
    let mut world = cold(SipVerb::Invite, manner.clone());
    let record = check("transfer_bridged_early_answer", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    // Without any answer to our offer there is nothing to speak with.
    let mut world = cold(SipVerb::Invite, Manner { early_media: None, ..manner });
    world.act(9_000, 0, Action::HangUp);
    let record = check("transfer_no_description", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Failed);
}

#[test]
fn the_callers_bye_ends_the_bridged_target_too() {
    let mut world = cold(SipVerb::Invite, Manner::default());
    world.act(9_000, 0, Action::HangUp);
    let record = check("transfer_bridged_caller_leaves", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
    assert!(world.callees[0].heard.contains(&"BYE".to_owned()));
}

#[test]
fn a_bridge_has_a_longest_time() {
    let fixed = Fixed { verb: Some(SipVerb::Invite), ..to_target() };
    let settings = edge(&fixed, |transfers| transfers.bridged_max = Duration::from_secs(8));
    let mut world = world(settings, "coldTransfer", Manner::default());
    world.callee_speaks(4_400, 0, 900);
    let record = check("transfer_bridged_too_long", &mut world);
    assert_eq!(record.end.as_deref(), Some("longest bridged time"));
    assert_eq!(leg_ms(&record), 8_000);
}

#[test]
fn a_target_that_does_not_take_the_call() {
    let answers = |code, extra| Manner { answers: Some((700, code, extra)), ..Manner::default() };
    let away = answers(302, "Contact: <sip:evil@203.0.113.9>\r\n");
    let (rings, silent) = (Manner { answers: None, ..Manner::default() }, Manner::default());
    let silent = Manner { silent: true, ..silent };
    for (name, manner, words, tag) in [
        ("transfer_busy", answers(486, ""), "the line is busy (SIP status 486)", "busy"),
        ("transfer_declined", answers(603, ""), "declined", "declined"),
        ("transfer_no_answer", rings, "nobody answered in time", "no_answer"),
        ("transfer_no_host", silent, "did not answer", "unreachable"),
        ("transfer_redirected_away", away, "the number has moved", "moved"),
    ] {
        let mut world = cold(SipVerb::Invite, manner);
        world.act(70_000, 0, Action::HangUp);
        let record = check(name, &mut world);
        assert!(report(&world).contains(words), "{name}: {}", report(&world));
        assert_eq!(counted(&world), format!("1 cold_invite {tag}"), "{name}");
        let (outcome, sip_ms, agent_ms) = told(&record);
        // Its ringing costs nothing.
        assert_eq!((outcome, sip_ms), (TransferOutcome::Failed, agent_ms), "{name}");
        assert_eq!(leg_ms(&record), 0, "{name}");
    }
}

#[test]
fn music_that_cannot_be_had_gives_way_to_our_own_and_the_record_says_why() {
    let music = HoldMusic::Url("https://music.example/gone.mp3".into());
    let fixed = Fixed { verb: Some(SipVerb::Invite), hold_music: Some(music), ..to_target() };
    let busy = Manner { answers: Some((700, 486, "")), ..Manner::default() };
    let mut world = world(edge(&fixed, |_| {}), "coldTransfer", busy);
    world.act(6_000, 0, Action::HangUp);
    let record = check("transfer_music_gone", &mut world);
    assert_eq!(record.sound_faults, ["the sound's server answered 404"]);
}

#[test]
fn the_caller_hangs_up_while_the_target_rings() {
    let mut world = cold(SipVerb::Invite, Manner { answers: None, ..Manner::default() });
    world.act(4_000, 0, Action::HangUp);
    let record = check("transfer_cancelled", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::GivenUp);
    assert_eq!(counted(&world), "1 cold_invite call_ended");
    let manner = Manner { answers: None, answers_at_cancel: true, ..Manner::default() };
    let mut world = cold(SipVerb::Invite, manner);
    world.act(4_000, 0, Action::HangUp);
    let record = check("transfer_late_200", &mut world);
    assert_eq!(leg_ms(&record), 0, "its 200 came too late");
    assert!(world.callees[0].heard.ends_with(&["ACK".to_owned(), "BYE".to_owned()]));
}

#[test]
fn a_target_that_the_policy_forbids_is_not_called() {
    let fixed = Fixed { target: Some("sip:1@evil.example".into()), ..Fixed::default() };
    let mut world = world(edge(&fixed, |_| {}), "coldTransfer", Manner::default());
    world.act(4_000, 0, Action::HangUp);
    world.run_out(600_000);
    let facts = world.facts.values().next().expect("a call");
    let (_, answer) = facts.texts.first().expect("a result");
    assert!(answer.contains("is not in outgoing.allowed_hosts"), "{answer}");
    assert_eq!(world.callers[0].referred.len(), 0);
    assert_eq!(facts.records.last().map(|cdr| cdr.transfers.len()), Some(0));
    assert_eq!(world.tally.tools.get(&("cold_transfer", REFUSED)), Some(&1));
    assert!(world.is_idle());
}

#[test]
fn one_transfer_at_a_time() {
    let mut world = cold(SipVerb::Invite, Manner { hangs_up: Some(900), ..Manner::default() });
    let call = tool("coldTransfer", &json!({}));
    world.service.script.texts.push((2_500, call));
    let record = check("transfer_twice", &mut world);
    assert_eq!(record.transfers.len(), 1);
    let facts = world.facts.values().next().expect("a call");
    let refused = |(_, text): &&(_, String)| text.contains("another transfer is under way");
    assert_eq!(facts.texts.iter().filter(refused).count(), 1);
}

#[test]
fn the_agent_leaves_while_the_target_rings() {
    let leaves = Some((2_500, AgentClose::Code(1000)));
    let mut world = cold(SipVerb::Invite, Manner { hangs_up: Some(900), ..Manner::default() });
    world.service.script.leaves = leaves;
    let record = check("transfer_agent_leaves", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    // With nobody to come back to, the call is over.
    let busy = Manner { answers: Some((700, 486, "")), ..Manner::default() };
    let mut world = cold(SipVerb::Invite, busy);
    world.service.script.leaves = leaves;
    let record = check("transfer_agent_left_busy", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Agent));
}

#[test]
fn a_bridged_leg_may_be_held() {
    let manner =
        Manner { reinvites: Some((1_000, "sendonly")), hangs_up: Some(3_000), ..Manner::default() };
    let mut world = cold(SipVerb::Invite, manner);
    world.act(6_000, 0, Action::Reinvite("inactive"));
    let record = check("transfer_bridged_hold", &mut world);
    assert_eq!(record.ended_by, Some(EndedBy::Target));
    assert_eq!(world.callees[0].reoffered, ["200"]);
}

#[test]
fn an_operator_takes_the_call_over_a_bridge() {
    let callee = Manner { hangs_up: Some(12_000), ..Manner::default() };
    let mut world = warm(TransferType::Bridge, &accept(6_000), callee);
    world.callee_speaks(4_400, 0, 700);
    let record = check("transfer_warm_bridge", &mut world);
    let (outcome, sip_ms, agent_ms) = told(&record);
    assert_eq!(outcome, TransferOutcome::Bridged);
    let transfer = &record.transfers[0];
    assert_eq!(transfer.operator_call_id.as_deref(), Some("call-2"));
    assert!((5_900..6_100).contains(&transfer.operator_time.as_millis()), "{transfer:?}");
    // The first leg from its answer to the end, and the operator's on top of it.
    let first_ms = sip_ms - leg_ms(&record);
    assert!(first_ms > agent_ms && (11_900..12_200).contains(&leg_ms(&record)), "{record:?}");
    let facts = world.facts.values().next().expect("a call");
    let body = &facts.creations[1];
    assert!(body["systemPrompt"].as_str().is_some_and(|text| text.contains("lost her card")));
    assert_eq!(body["selectedTools"].as_array().map(Vec::len), Some(2));
    // The operator hears the voice and the language of the caller's agent.
    for (member, value) in [
        ("model", json!("ultravox-v0.7")),
        ("temperature", json!(0.3)),
        ("languageHint", json!("de")),
        ("voice", json!("Susi")),
        ("voiceOverrides", json!({ "elevenLabs": { "speed": 1.1 } })),
        ("externalVoice", Value::Null),
    ] {
        assert_eq!(body[member], value, "{member}");
    }
}

#[test]
fn an_operator_takes_the_call_by_refer_with_replaces() {
    // The target's leg with us is replaced, so it leaves us.
    let callee = Manner { hangs_up: Some(7_500), ..Manner::default() };
    let mut world = warm(TransferType::Refer, &accept(6_000), callee.clone());
    let record = check("transfer_warm_refer", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Referred);
    assert_eq!(record.end.as_deref(), Some("transferred"));
    let (refer_to, _) = &world.callers[0].referred[0];
    assert!(refer_to.contains("?Replaces=") && refer_to.contains("to-tag%3D"), "{refer_to}");
    // The BYE of a target that was not replaced is ours.
    let mut world = warm(TransferType::Refer, &accept(6_000), Manner::default());
    check("transfer_warm_refer_we_leave", &mut world);
    assert!(world.callees[0].heard.contains(&"BYE".to_owned()));
}

#[test]
fn a_warm_refer_that_fails_is_a_refusal_or_a_bridge() {
    let refused = Refers { answer: (5, 603), ..Refers::default() };
    let mut world = warm(TransferType::Refer, &accept(6_000), Manner::default());
    world.callers[0].refers = refused.clone();
    world.act(20_000, 0, Action::HangUp);
    let record = check("transfer_warm_refer_refused", &mut world);
    let (outcome, sip_ms, agent_ms) = told(&record);
    assert_eq!((outcome, sip_ms), (TransferOutcome::Failed, agent_ms + leg_ms(&record)));
    assert!(report(&world).contains("does not transfer"), "{}", report(&world));
    let callee = Manner { hangs_up: Some(12_000), ..Manner::default() };
    let mut world = warm(TransferType::TryRefer, &accept(6_000), callee);
    world.callers[0].refers = refused;
    world.callee_speaks(4_400, 0, 700);
    let record = check("transfer_warm_try_refer", &mut world);
    let (outcome, sip_ms, agent_ms) = told(&record);
    assert_eq!(outcome, TransferOutcome::Bridged);
    assert!(sip_ms > agent_ms + leg_ms(&record), "the first leg goes on without its agent");
}

#[test]
fn a_refer_that_succeeds_while_we_bridge() {
    // Its news come when it was given up already: the parties leave us by themselves.
    let fixed = Fixed { kind: Some(TransferType::TryRefer), ..to_target() };
    let settings = edge(&fixed, |transfers| transfers.refer_timeout = Duration::from_secs(4));
    let callee = Manner { hangs_up: Some(12_500), ..Manner::default() };
    let mut world = world(settings, "warmTransfer", callee);
    world.service.further = vec![Script { texts: accept(6_000), ..Script::default() }];
    let notifies = vec![(10, 100), (6_000, 200)];
    world.callers[0].refers = Refers { notifies, leaves: Some(6_300), ..Refers::default() };
    world.callee_speaks(4_400, 0, 700);
    let record = check("transfer_warm_late_refer", &mut world);
    // One call is enough: the news end ours, and neither leg bills on.
    assert_eq!(record.end.as_deref(), Some("transferred"));
    let (outcome, sip_ms, agent_ms) = told(&record);
    assert_eq!(outcome, TransferOutcome::Referred);
    assert_eq!(counted(&world), "1 warm_try_refer bridged", "what became of it first");
    assert!(sip_ms > agent_ms + leg_ms(&record), "bridged meanwhile");
    assert_eq!(record.ended_at, record.transfers[0].decided_at);
}

#[test]
fn an_operator_who_does_not_take_the_call() {
    let refuse = tool("refuseTransfer", &json!({ "reason": "We are closed." }));
    let leaves = Manner { hangs_up: Some(3_000), ..Manner::default() };
    let rings = Manner { answers: None, ..Manner::default() };
    let refuse = vec![(4_000, refuse)];
    for (name, operator, callee, (words, tag)) in [
        (
            "transfer_warm_refused",
            refuse,
            Manner::default(),
            ("We are closed.", "operator_declined"),
        ),
        (
            "transfer_warm_operator_left",
            Vec::new(),
            leaves,
            ("hung up before taking the call", "target_hung_up"),
        ),
        ("transfer_warm_no_answer", Vec::new(), rings, ("nobody answered in time", "no_answer")),
    ] {
        let mut world = warm(TransferType::TryRefer, &operator, callee);
        world.act(60_000, 0, Action::HangUp);
        let record = check(name, &mut world);
        assert!(report(&world).contains(words), "{name}: {}", report(&world));
        assert_eq!(counted(&world), format!("1 warm_try_refer {tag}"), "{name}");
        let (outcome, sip_ms, agent_ms) = told(&record);
        // Double rate while the operator is up, and the usual one again.
        assert_eq!((outcome, sip_ms), (TransferOutcome::Failed, agent_ms + leg_ms(&record)));
    }
}

#[test]
fn no_agent_for_the_operator() {
    let operator = |script: Script| {
        let mut world = warm(TransferType::Bridge, &[], Manner::default());
        world.service.further = vec![script];
        world.act(30_000, 0, Action::HangUp);
        world
    };
    // A voice that cannot be had is no reason to have none.
    let mut world = operator(Script { texts: accept(2_000), ..Script::default() });
    world.service.script.creations =
        vec![(150, Ok(())), (150, Err(CreateFault::BadRequest)), (150, Ok(()))];
    let record = check("transfer_warm_other_voice", &mut world);
    assert_eq!(record.transfers[0].outcome, TransferOutcome::Bridged);
    let facts = world.facts.values().next().expect("a call");
    let voices: Vec<_> = facts.creations[1..].iter().map(|body| body["voice"].clone()).collect();
    assert_eq!(voices, [json!("Susi"), Value::Null]);
    let mut world = operator(Script::default());
    world.service.script.creations =
        vec![(150, Ok(())), (150, Err(CreateFault::TooMany { retry_after: None }))];
    let record = check("transfer_warm_no_call", &mut world);
    assert_eq!(leg_ms(&record), 0, "the target is not kept ringing");
    let refused = Err(AgentStreamFault::Refused(404));
    let mut world = operator(Script { join: (20, refused), ..Script::default() });
    check("transfer_warm_not_joined", &mut world);
    let gone = Err(AgentStreamFault::Unreachable("refused".into()));
    let mut world = operator(Script { prepare: (30, gone), ..Script::default() });
    check("transfer_warm_not_prepared", &mut world);
    let leaves = Some((3_000, AgentClose::Lost));
    let mut world = operator(Script { leaves, ..Script::default() });
    let record = check("transfer_warm_agent_lost", &mut world);
    assert!((3_000..3_300).contains(&record.transfers[0].operator_time.as_millis()), "{record:?}");
    assert!(report(&world).contains("was lost"), "{}", report(&world));
}

#[test]
fn the_caller_hangs_up_in_the_briefing() {
    let mut world = warm(TransferType::Bridge, &accept(60_000), Manner::default());
    world.act(8_000, 0, Action::HangUp);
    let record = check("transfer_warm_caller_leaves", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::GivenUp);
    assert_eq!(record.ended_by, Some(EndedBy::Caller));
}

#[test]
fn the_peers_refer_is_refused_unless_it_is_wanted() {
    let refer = |follow: bool, callee: Manner| {
        let settings = edge(&to_target(), |transfers| transfers.follow_refer = follow);
        let mut world = World::new(1, settings);
        world.caller("sales");
        world.callee(callee);
        world.act(0, 0, Action::Invite);
        world.act(2_000, 0, Action::Refer("+15550001"));
        world
    };
    let mut world = refer(false, Manner::default());
    world.act(4_000, 0, Action::HangUp);
    let record = check("transfer_peer_refused", &mut world);
    assert_eq!(record.transfers.len(), 0);
    assert_eq!(counted(&world), "1 peer_refer refused");
    let mut world = refer(true, Manner { hangs_up: Some(5_000), ..Manner::default() });
    world.callee_speaks(4_300, 0, 200);
    let record = check("transfer_peer_followed", &mut world);
    let (outcome, sip_ms, agent_ms) = told(&record);
    assert_eq!(outcome, TransferOutcome::HandedOver);
    assert_eq!(counted(&world), "1 peer_refer handed_over");
    // One leg at a time: the first ends as the second has the agent.
    assert!(sip_ms.abs_diff(agent_ms) < 20, "{sip_ms} {agent_ms}");
    let busy = Manner { answers: Some((700, 486, "")), ..Manner::default() };
    let mut world = refer(true, busy);
    world.act(6_000, 0, Action::HangUp);
    let record = check("transfer_peer_busy", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Failed);
}

#[test]
fn the_agent_is_lost_while_the_target_of_the_peers_refer_rings() {
    let settings = edge(&to_target(), |transfers| transfers.follow_refer = true);
    let mut world = World::new(1, settings);
    world.service.script = Script { leaves: Some((2_500, AgentClose::Lost)), ..Script::default() };
    world.caller("sales");
    world.callee(Manner { answers: Some((3_000, 200, "")), ..Manner::default() });
    world.act(0, 0, Action::Invite);
    world.act(2_000, 0, Action::Refer("+15550001"));
    let record = check("transfer_peer_agent_lost", &mut world);
    // The target has the agent that goes on, and no call in which nobody speaks.
    assert_eq!(told(&record).0, TransferOutcome::HandedOver);
    assert!(record.sip_time < Duration::from_secs(20), "{record:?}");
    assert_eq!(record.continued_as.len(), 2);
    assert!(world.ladder().contains("arrange leg 1 ← agent 1, agent 1 ← leg 1"));
}

/// A second phone of the PBX takes the call over at two seconds.
fn taken_over(allowed: bool, change: impl FnOnce(&mut World)) -> World {
    let settings = edge(&to_target(), |transfers| transfers.replaces = allowed);
    let mut world = World::new(1, settings);
    world.caller("sales");
    take_over(&mut world);
    change(&mut world);
    world
}

/// The first phone calls, and the second one replaces it.
pub(super) fn take_over(world: &mut World) {
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world.act(2_100, 1, Action::TakeOver(0));
}

#[test]
fn a_call_is_taken_over_by_an_invite_with_replaces() {
    let mut world = taken_over(true, |world| world.act(6_000, 1, Action::HangUp));
    let record = check("taken_over", &mut world);
    // One leg to the end of the second phone's call, which never rang.
    assert!((5_700..5_800).contains(&record.sip_time.as_millis()), "{record:?}");
    assert!(world.callers[1].rtp_sent > 150);
    assert_eq!((counted(&world), record.taken_over), ("1 replaces taken_over".to_owned(), 1));
    let mut world = taken_over(true, |world| {
        world.callers[1].offer = crate::sim::pbx::Offer::Late;
        world.act(6_000, 1, Action::HangUp);
    });
    check("taken_over_late_offer", &mut world);
}

#[test]
fn a_peer_that_is_replaced_while_it_has_our_refer() {
    let settings = edge(&to_target(), |transfers| transfers.replaces = true);
    let mut world = World::new(1, settings);
    let call = tool("coldTransfer", &json!({}));
    world.service.script = Script { texts: vec![(1_000, call)], ..Script::default() };
    world.caller("sales");
    world.callers[0].refers = Refers { notifies: vec![(10, 100)], ..Refers::default() };
    take_over(&mut world);
    world.act(6_000, 1, Action::HangUp);
    let record = check("taken_over_while_referring", &mut world);
    let (outcome, ..) = told(&record);
    assert_eq!(outcome, TransferOutcome::Failed);
    assert_eq!(counted(&world), "1 cold_refer refer_overtaken, 1 replaces taken_over");
    assert!(report(&world).contains("somebody else"), "{}", report(&world));
}

#[test]
fn a_call_is_not_taken_over_unless_that_is_wanted() {
    let mut world = taken_over(false, |world| world.act(6_000, 0, Action::HangUp));
    world.run_out(600_000);
    assert_eq!(world.callers[1].finals[0].0, 603);
    assert_eq!(counted(&world), "1 replaces refused");
    assert!(world.is_idle());
    assert_eq!(world.facts.len(), 2, "the refusal has its record too");
}

/// No transfer of a storm is undecided for longer: the sum of its patiences (ringing, the agent for
/// the operator, the briefing, the REFER), of which each is short there.
const UNDER_WAY_MAX_S: i64 = 10 + 10 + 10 + (9 + 32);

/// A random edge, PBX, phone and agent, with a transfer or three in the middle of it.
fn storm(seed: u64) -> World {
    let mut chance = Entropy::from_number(seed ^ 0x7a);
    let verbs = [SipVerb::Refer, SipVerb::Invite];
    let kinds = [TransferType::Refer, TransferType::Bridge, TransferType::TryRefer];
    let fixed = Fixed {
        verb: Some(verbs[chance.below(2) as usize]),
        kind: Some(kinds[chance.below(3) as usize]),
        ..to_target()
    };
    let mut world = World::new(
        seed,
        edge(&fixed, |transfers| {
            transfers.warm = [WarmMode::SecondCall, WarmMode::Stage][chance.below(2) as usize];
            transfers.refer_timeout = Duration::from_secs(1 + chance.below(8));
            transfers.ring_timeout = Duration::from_secs(2 + chance.below(8));
            transfers.briefing_max = Duration::from_secs(2 + chance.below(8));
            transfers.bridged_max = Duration::from_secs(2 + chance.below(40));
            transfers.follow_refer = chance.below(2) == 0;
            let heard = [WhileRinging::Music, WhileRinging::Ringback, WhileRinging::Target];
            transfers.while_ringing = heard[chance.below(3) as usize];
        }),
    );
    let path = Path {
        latency_ms: (1, [5, 60, 250][chance.below(3) as usize]),
        loss_permille: [0, 50, 150][chance.below(3) as usize],
        duplicate_permille: [0, 80][chance.below(2) as usize],
    };
    (world.network.up, world.network.down) = (path, path);
    let (script, further) = (agent_in_storm(&mut chance), agent_in_storm(&mut chance));
    (world.service.script, world.service.further) = (script, vec![further]);
    let caller = world.caller("sales");
    world.callers[caller].refers = Refers {
        answer: (chance.below(300), [202, 202, 202, 603][chance.below(4) as usize]),
        notifies: match chance.below(4) {
            0 => Vec::new(),
            1 => vec![(10, 100)],
            2 => vec![(10, 100), (chance.below(9_000), 486)],
            _ => vec![(10, 100), (chance.below(9_000), 200)],
        },
        leaves: (chance.below(4) == 0).then(|| chance.below(9_000)),
    };
    let codes = [200, 200, 200, 200, 486, 603];
    world.callee(Manner {
        silent: chance.below(12) == 0,
        rings: (chance.below(3) > 0).then_some(50),
        early_media: (chance.below(3) == 0).then_some(100),
        other_fork: (chance.below(4) == 0).then(|| chance.below(2_000)),
        reliable: chance.below(2) == 0,
        updates: (chance.below(4) == 0).then(|| chance.below(3_000)),
        answers: (chance.below(6) > 0)
            .then(|| (chance.below(4_000), codes[chance.below(6) as usize], "")),
        hangs_up: (chance.below(2) == 0).then(|| chance.below(12_000)),
        answers_at_cancel: chance.below(3) == 0,
        reinvites: (chance.below(4) == 0).then(|| (chance.below(4_000), "sendonly")),
        ..Manner::default()
    });
    world.callee_speaks(3_000, 0, 500);
    world.act(0, caller, Action::Invite);
    let actions = [
        Action::Reinvite("sendonly"),
        Action::Reinvite("sendrecv"),
        Action::LateReinvite,
        Action::UpdateEmpty,
        Action::Refer("+15550001"),
        Action::HangUp,
    ];
    for _ in 0..chance.below(4) {
        let action = actions[chance.below(6) as usize];
        world.act(1_000 + chance.below(20_000), caller, action);
    }
    if chance.below(8) == 0 {
        world.ports_taken = chance.below(7) as u32;
    }
    world.act(80_000, caller, Action::HangUp);
    world.edge(110_000, Input::Drain { grace: Duration::from_secs(60) });
    world
}

/// An agent that says anything at any time, and perhaps leaves.
fn agent_in_storm(chance: &mut Entropy) -> Script {
    let tools =
        ["coldTransfer", "warmTransfer", "warmTransfer", "acceptTransfer", "refuseTransfer"];
    let said = |chance: &mut Entropy| {
        let name = tools[chance.below(5) as usize];
        (500 + chance.below(14_000), tool(name, &json!({ "context": "c" })))
    };
    let faults = [CreateFault::TimedOut, CreateFault::TooMany { retry_after: None }];
    let closes = [AgentClose::Code(1000), AgentClose::Lost];
    Script {
        texts: (0..1 + chance.below(5)).map(|_| said(chance)).collect(),
        creations: vec![
            (150, Ok(())),
            (chance.below(3_000), Ok(())),
            match chance.below(5) {
                0 => (200, Err(faults[chance.below(2) as usize])),
                _ => (200, Ok(())),
            },
        ],
        join: match chance.below(8) {
            0 => (20, Err(AgentStreamFault::Refused(404))),
            _ => (chance.below(300), Ok(())),
        },
        leaves: (chance.below(4) == 0)
            .then(|| (chance.below(20_000), closes[chance.below(2) as usize])),
        ..Script::default()
    }
}

/// Whatever happens at whatever moment: one closed record, nothing left, and the SIP time is the sum
/// of the legs' times.
#[test]
fn storms_of_transfers_leave_nothing() {
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..300 {
        let mut world = storm(seed);
        world.run_out(600_000);
        let ladder = world.ladder();
        assert!(world.is_idle(), "seed {seed}: something is left\n{ladder}");
        assert!(world.admitted.values().all(|count| *count == 0), "seed {seed}\n{ladder}");
        assert_tally_is_of_records(&world, seed);
        for facts in world.facts.values() {
            let record = facts.records.last().expect("a record");
            assert!(record.is_closed(), "seed {seed}\n{ladder}");
            let ends = facts.records.iter().filter(|cdr| cdr.is_closed() && cdr.media.is_some());
            assert_eq!(ends.count(), 1, "seed {seed}: one end\n{ladder}");
            for transfer in &record.transfers {
                *outcomes.entry(format!("{:?}", transfer.outcome)).or_default() += 1;
                assert_ne!(transfer.outcome, TransferOutcome::UnderWay, "seed {seed}\n{ladder}");
                let decided = transfer.decided_at.expect("decided").unix_micros();
                let took = decided - transfer.began_at.unix_micros();
                assert!(took < UNDER_WAY_MAX_S * 1_000_000, "seed {seed}: {took} us\n{ladder}");
            }
            let handed_over = |one: &TransferRecord| one.outcome == TransferOutcome::HandedOver;
            let (Some(answered), Some(end)) = (facts.answered, facts.torn_down) else { continue };
            if !record.transfers.iter().any(handed_over) {
                let legs: Duration = record.transfers.iter().map(|one| one.leg_time).sum();
                assert_eq!(record.sip_time, end.since(answered) + legs, "seed {seed}\n{ladder}");
            }
        }
    }
    for outcome in ["Referred", "Bridged", "Failed", "GivenUp", "HandedOver"] {
        assert!(outcomes.get(outcome).is_some_and(|count| *count > 3), "{outcomes:?}");
    }
}

/// What is counted is what the records tell: each transfer and each lost agent once.
fn assert_tally_is_of_records(world: &World, seed: u64) {
    let records = || world.facts.values().filter_map(|facts| facts.records.last());
    let begun = world.tally.transfers.iter();
    let begun = begun.filter(|((kind, outcome), _)| *kind != "replaces" && *outcome != REFUSED);
    let begun: u64 = begun.map(|(_, count)| count).sum();
    let told: usize = records().map(|record| record.transfers.len()).sum();
    assert_eq!(begun, told as u64, "seed {seed}: {:?}\n{}", world.tally, world.ladder());
    let lost: u64 = world.tally.agents_lost.values().sum();
    let losses = || records().flat_map(|record| &record.agent_losses);
    assert_eq!(lost, losses().count() as u64, "seed {seed}\n{}", world.ladder());
    assert!(losses().all(|loss| loss.then.is_some()), "seed {seed}\n{}", world.ladder());
}
