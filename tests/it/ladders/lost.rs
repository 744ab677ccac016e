//! An agent that is lost while the caller is not: another agent call goes on, or the caller hears good-bye.

use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use crate::sim::{World, ladder, settings};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::LossEnd::{self, Ended, FailedOver, Recalled};
use voxedge::billing::cdr::{Cdr, EndedBy};
use voxedge::billing::{TransferKind, TransferOutcome};
use voxedge::call::settings::{HandSettings, LostSettings, TransferSettings};
use voxedge::call::sound::Sounds;
use voxedge::ground::{CallKey, StreamId};
use voxedge::media::plan::{AgentClose, ForCall, MediaEvent, Sound};
use voxedge::switchboard::Input;
use voxedge::ultravox::create_call::CreateFault;
use voxedge::ultravox::tool::{Fixed, GivenTools, HoldMusic, SipVerb, TelephoneTool};

const CALL: CallKey = CallKey(1 << 32 | 1);
/// When the first agent is lost, in milliseconds.
const LOST_MS: u64 = 2_000;

/// A world whose caller dials at once and hangs up at 20 s; the agent's stream breaks at [`LOST_MS`].
fn losing(creations: &[(u64, Result<(), CreateFault>)], hands: HandSettings) -> World {
    let mut settings = settings();
    settings.call.hands = Arc::new(hands);
    let mut world = World::new(1, settings);
    world.service.script = Script { creations: creations.to_vec(), ..Script::default() };
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world.act(20_000, 0, Action::HangUp);
    lose(&mut world, LOST_MS, StreamId::FIRST);
    world
}

const TARGET: &str = "sip:+15550001@192.0.2.100";

/// Hands that may call [`TARGET`].
fn transferring() -> HandSettings {
    let policy = Arc::clone(&settings().outgoing);
    let transfers = TransferSettings { policy, ..TransferSettings::default() };
    HandSettings { transfers, ..HandSettings::default() }
}

fn lose(world: &mut World, ms: u64, stream: StreamId) {
    for what in [
        MediaEvent::AgentEnded { stream },
        MediaEvent::AgentLeft { stream, close: AgentClose::Lost },
    ] {
        world.edge(ms, Input::Media(ForCall { call: CALL, what }));
    }
}

fn check(name: &str, then: &[LossEnd], mut world: World) -> Cdr {
    world.run_out(600_000);
    ladder::check(name, world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    let facts: Vec<_> = world.facts.values().collect();
    assert_eq!(facts.len(), 1, "{name}: one call");
    let record = facts[0].records.last().expect("a record").clone();
    assert!(record.is_closed(), "{name}");
    let told: Vec<LossEnd> = record.agent_losses.iter().filter_map(|loss| loss.then).collect();
    assert_eq!((told.as_slice(), record.agent_losses.len()), (then, then.len()), "{name}");
    let counted: u64 = world.tally.agents_lost.values().sum();
    assert_eq!(counted, then.len() as u64, "{name}");
    record
}

#[test]
fn another_agent_call_goes_on_where_the_lost_one_was() {
    let record = check(
        "lost_agent_continued",
        &[Recalled],
        losing(&[(150, Ok(()))], HandSettings::default()),
    );
    assert_eq!(record.continued_as, ["call-2"]);
    assert_eq!(
        (record.ended_by, record.ultravox_call_id.as_deref()),
        (Some(EndedBy::Caller), Some("call-1"))
    );
    let gap = record.sip_time.saturating_sub(record.agent_time);
    assert!(gap > Duration::from_millis(150) && gap < Duration::from_secs(1), "{gap:?}");
}

#[test]
fn the_new_agent_waits_for_the_end_of_the_prompt() {
    let sound = Sound { hz: 8_000, pcm: vec![0; 8_000].into(), repeats: false };
    let sounds = Sounds { lost: Some(Arc::new(sound)), ..Sounds::default() };
    let mut world = losing(&[(150, Ok(()))], HandSettings { sounds, ..HandSettings::default() });
    let played = ForCall { call: CALL, what: MediaEvent::SoundPlayed };
    world.edge(LOST_MS + 1_000, Input::Media(played));
    let record = check("lost_agent_prompt", &[Recalled], world);
    assert_eq!(record.continued_as, ["call-2"]);
}

#[test]
fn a_greeting_that_is_refused_is_left_out() {
    let refused = Err(CreateFault::BadRequest);
    let creations = [(150, Ok(())), (80, refused), (90, Ok(()))];
    let record =
        check("lost_agent_ungreeted", &[Recalled], losing(&creations, HandSettings::default()));
    assert_eq!(record.continued_as.len(), 1);
}

#[test]
fn without_another_agent_the_call_ends_with_a_reason() {
    let refused = [(150, Ok(())), (80, Err(CreateFault::Unauthorized))];
    let record = check("lost_agent_refused", &[Ended], losing(&refused, HandSettings::default()));
    assert_eq!(record.ended_by, Some(EndedBy::Agent));
    let late = [(150, Ok(())), (30_000, Ok(()))];
    let record = check("lost_agent_too_late", &[Ended], losing(&late, HandSettings::default()));
    assert_eq!((record.ended_by, record.continued_as.len()), (Some(EndedBy::Agent), 0));
    let lost = LostSettings { continues: false, ..LostSettings::default() };
    let hands = HandSettings { lost, ..HandSettings::default() };
    check("lost_agent_missed_by_nobody", &[Ended], losing(&[(150, Ok(()))], hands));
}

#[test]
fn nobody_is_called_again_for_ever() {
    let mut world = losing(&[(150, Ok(()))], HandSettings::default());
    lose(&mut world, 4_000, StreamId(1));
    lose(&mut world, 6_000, StreamId(2));
    let record = check("lost_agent_thrice", &[Recalled, Recalled, Ended], world);
    assert_eq!(record.continued_as, ["call-2", "call-3"]);
    assert_eq!(record.ended_by, Some(EndedBy::Agent));
}

#[test]
fn a_caller_who_leaves_meanwhile_is_not_called_for() {
    let mut world = losing(&[(150, Ok(())), (5_000, Ok(()))], HandSettings::default());
    world.act(3_000, 0, Action::HangUp);
    let record = check("lost_agent_caller_leaves", &[Ended], world);
    assert_eq!((record.ended_by, record.continued_as.len()), (Some(EndedBy::Caller), 0));
}

#[test]
fn music_that_comes_late_does_not_take_the_prompts_place() {
    let sound = Sound { hz: 8_000, pcm: vec![0; 8_000].into(), repeats: false };
    let sounds = Sounds { lost: Some(Arc::new(sound)), ..Sounds::default() };
    let music = HoldMusic::Url("https://music.example/a.wav".into());
    let cold = Fixed {
        target: Some(TARGET.into()),
        verb: Some(SipVerb::Invite),
        hold_music: Some(music),
        ..Fixed::default()
    };
    let tools = GivenTools {
        give: vec![TelephoneTool::ColdTransfer],
        defaults: BTreeMap::from([(TelephoneTool::ColdTransfer, cold)]),
    };
    let mut world = losing(&[(150, Ok(()))], HandSettings { sounds, tools, ..transferring() });
    world.callee(Manner { rings: None, answers: Some((20, 486, "")), ..Manner::default() });
    // The agent leaves, the target is busy at once, and only then the music comes.
    let text = json!({ "type": "client_tool_invocation", "toolName": "coldTransfer",
        "invocationId": "t", "parameters": {} })
    .to_string();
    let invoked = MediaEvent::AgentText { stream: StreamId::FIRST, text };
    world.edge(LOST_MS - 5, Input::Media(ForCall { call: CALL, what: invoked }));
    let record = check("lost_agent_late_music", &[Recalled], world);
    assert_eq!(record.continued_as, ["call-2"]);
}

#[test]
fn a_lost_agents_caller_goes_to_the_failover_target() {
    let mut hands = transferring();
    hands.lost.failover = Some(TARGET.into());
    let mut world = losing(&[(150, Ok(())), (80, Err(CreateFault::Unauthorized))], hands);
    world.callee(Manner { hangs_up: Some(3_000), ..Manner::default() });
    world.callee_speaks(LOST_MS + 2_200, 0, 120);
    let record = check("lost_agent_failover", &[FailedOver], world);
    assert_eq!(record.ended_by, Some(EndedBy::Target));
    let transfer = &record.transfers[0];
    assert_eq!(
        (transfer.kind, transfer.outcome),
        (TransferKind::Failover, TransferOutcome::Bridged)
    );
    assert_eq!(transfer.leg_time.as_secs(), 3);
}
