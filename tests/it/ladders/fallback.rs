//! Calls on which the fallback handler decides: each answer, each fault and each race.

use super::{Script, World, check, settings};
use crate::sim::agent::OTHER;
use crate::sim::pbx::Action;
use crate::sim::{account, handler};
use serde_json::json;
use voxedge::account::AgentId;
use voxedge::fallback::{FallbackDecision, FallbackFault};
use voxedge::switchboard::Input;
use voxedge::ultravox::create_call::CreateFault;

type Outcome = Result<FallbackDecision, FallbackFault>;

/// A world with a handler and one caller, who dials a user that no rule matches.
fn asking(outcomes: &[(u64, Outcome)]) -> World {
    dialling("support", Script::default(), outcomes)
}

fn dialling(user: &str, script: Script, outcomes: &[(u64, Outcome)]) -> World {
    let mut world = World::new(1, settings());
    world.edge(0, Input::ConfigReplaced(account(Some(handler()))));
    world.service.script = script;
    world.hook = outcomes.to_vec();
    world.caller(user);
    world.act(0, 0, Action::Invite);
    world
}

fn start_agent_call(body: serde_json::Value) -> FallbackDecision {
    let agent_id = AgentId::parse(OTHER).expect("a UUID");
    FallbackDecision::StartAgentCall { agent_id, body: body.as_object().expect("object").clone() }
}

fn start_call() -> FallbackDecision {
    let body =
        json!({"systemPrompt": "Be brief.", "metadata": {"shop": "3"}, "medium": {"webRtc": {}}});
    FallbackDecision::StartCall { body: body.as_object().expect("object").clone() }
}

fn reject(code: u16) -> FallbackDecision {
    FallbackDecision::Reject { code, message: Some("closed today".into()) }
}

#[test]
fn the_handler_names_an_agent_and_its_context_wins() {
    let body = json!({"templateContext": {"tier": "silver", "ultravox": {"sip": "forged"}},
        "firstSpeakerSettings": {"user": {}}});
    let mut world = asking(&[(100, Ok(start_agent_call(body)))]);
    world.callers[0].headers =
        vec!["X-Tier: gold".into(), "X-Shop: 3".into(), "X-Ultravox: {\"sip\": \"forged\"}".into()];
    world.act(1_000, 0, Action::HangUp);
    check("fallback_agent", world);
}

#[test]
fn the_handler_starts_a_call_without_an_agent() {
    let mut world = asking(&[(100, Ok(start_call()))]);
    world.callers[0].headers = vec!["X-Tier: gold".into()];
    world.act(1_000, 0, Action::HangUp);
    world.run_out(60_000);
    let facts = world.facts.values().next().expect("one call");
    let body = &facts.creations[0];
    assert_eq!(body["systemPrompt"], "Be brief.");
    assert_eq!(body["medium"].get("webRtc"), None, "the medium is ours");
    assert_eq!(body["medium"]["serverWebSocket"]["inputSampleRate"], 8_000);
    assert_eq!(body["joinTimeout"], "15s");
    assert_eq!(body["metadata"]["shop"], "3");
    assert_eq!(body["metadata"]["edge.sip_call_id"], facts.sip_call_id.as_str());
    assert_eq!(body.get("templateContext"), None, "there is no template to fill");
    check("fallback_call", world);
}

#[test]
fn the_handler_rejects() {
    check("fallback_reject", asking(&[(100, Ok(reject(486)))]));
    let mut world = asking(&[(100, Ok(reject(603)))]);
    world.run_out(60_000);
    let facts = world.facts.values().next().expect("one call");
    let last = facts.records.last().expect("a record");
    assert_eq!((last.status, last.routed_by.as_deref()), (Some(603), Some("fallbackHandler")));
    let told = "the fallback handler rejected the call (closed today)";
    assert_eq!(last.end_reason.as_deref(), Some(told));
    assert!(!world.ladder().contains("Warning: 399 edge.example \"closed"), "for the record only");
}

#[test]
fn the_handler_makes_no_decision() {
    check("fallback_timeout", asking(&[(9_000, Ok(reject(486)))]));
    check("fallback_unreachable", asking(&[(30, Err(FallbackFault::Unreachable))]));
    let two = FallbackFault::NotOneOfThree { found: 2 };
    check("fallback_two_of_three", asking(&[(30, Err(two))]));
    check("fallback_private", asking(&[(30, Err(FallbackFault::PrivateAddress))]));
}

#[test]
fn the_call_that_the_handler_wanted_cannot_be_created() {
    for (name, fetch, creation) in [
        ("fallback_agent_404", Err(CreateFault::NotFound), Ok(())),
        ("fallback_create_400", Ok(()), Err(CreateFault::BadRequest)),
    ] {
        let script =
            Script { fetch: (40, fetch), creations: vec![(150, creation)], ..Script::default() };
        let decision = start_agent_call(json!({}));
        check(name, dialling("support", script, &[(100, Ok(decision))]));
    }
    let busy = CreateFault::Unavailable { retry_after: None };
    let script = Script { creations: vec![(150, Err(busy))], ..Script::default() };
    check("fallback_create_503", dialling("support", script, &[(100, Ok(start_call()))]));
}

#[test]
fn the_caller_gives_up_while_the_handler_is_asked() {
    let mut world = asking(&[(2_000, Ok(start_call()))]);
    world.act(500, 0, Action::HangUp);
    check("fallback_cancel", world);
    let mut world = asking(&[(100, Ok(start_call()))]);
    world.act(102, 0, Action::HangUp);
    check("fallback_cancel_crosses_decision", world);
}

#[test]
fn the_handler_is_asked_when_the_implicit_rule_names_no_agent() {
    let user = format!("agent_{OTHER}");
    let fetch = (40, Err(CreateFault::NotFound));
    let missing = || Script { fetch, ..Script::default() };
    let mut world = dialling(&user, missing(), &[(100, Ok(start_call()))]);
    world.act(1_000, 0, Action::HangUp);
    check("fallback_after_implicit", world);
    let mut world = dialling(&user, missing(), &[(100, Ok(start_call()))]);
    world.edge(20, Input::ConfigReplaced(account(None)));
    check("fallback_removed", world);
}

/// A call that a rule takes is none of the handler's business.
#[test]
fn the_handler_is_not_asked_when_a_rule_matches() {
    let mut world = dialling("sales", Script::default(), &[(100, Ok(reject(486)))]);
    world.act(1_000, 0, Action::HangUp);
    world.run_out(60_000);
    assert!(!world.ladder().contains("hook"), "{}", world.ladder());
}

#[test]
fn a_drain_ends_the_question() {
    let mut world = asking(&[(2_000, Ok(start_call()))]);
    world.edge(500, Input::Drain { grace: std::time::Duration::ZERO });
    check("fallback_drain", world);
}
