//! SIPp as the caller and SIPp as whom the agent passes it on to: both legs are the daemon's. What each
//! of the two hears is heard by the test, which speaks for them too.

use super::agents::{
    AGENT, Agents, FAILED, accepts, agent, briefer, invoke, texts, tool, tool_to, uses,
};
use super::ear::{AGENT_HZ, Ear, tone};
use super::kamailio::{self, Kamailio};
use super::phone::Phone;
use super::rig::{Edge, Start, has};
use serde_json::json;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy, TransferKind, TransferOutcome};
use voxedge::standin::AgentScript;
use voxedge::standin::script::Step;
use voxedge::standin::sound::Sound;
use voxedge::ultravox::tool::{ACCEPT, REFUSE};

const CALLER_HZ: u32 = 500;
const TARGET_HZ: u32 = 750;
const EARLY_HZ: u32 = 1_200;

/// Two telephones, the daemon between them, and its agents.
struct Bridge {
    agents: Agents,
    edge: Edge,
    caller: (Phone, Ear),
    target: (Phone, Ear),
    /// Between the daemon and the target, where there is one.
    _gateway: Option<Kamailio>,
}

impl Bridge {
    /// The caller calls the agent, which uses `name` at once; `more` are agents beside it.
    fn begin(
        caller: &str,
        target: &str,
        name: &str,
        how: serde_json::Value,
        more: Vec<AgentScript>,
    ) -> Bridge {
        let ears = (Ear::new(), Ear::new());
        let phone = Phone::heard(target, ears.1.port);
        let place = format!("127.0.0.1:{}", phone.port);
        Bridge::set_up(caller, (phone, place, None), ears, (name, how), more)
    }

    /// The same with a proxy that records its route before the target.
    fn begin_behind_a_proxy(
        target: &str,
        name: &str,
        how: serde_json::Value,
        more: Vec<AgentScript>,
    ) -> Bridge {
        let ears = (Ear::new(), Ear::new());
        let phone = Phone::heard(target, ears.1.port);
        let (gateway, place) = Kamailio::gateway_to(phone.port);
        Bridge::set_up("heard_caller", (phone, place, Some(gateway)), ears, (name, how), more)
    }

    fn set_up(
        caller: &str,
        (phone, place, gateway): (Phone, String, Option<Kamailio>),
        ears: (Ear, Ear),
        (name, how): (&str, serde_json::Value),
        more: Vec<AgentScript>,
    ) -> Bridge {
        let target = phone.scenario();
        let failed = if target == "operator_waits" { "did not take the call" } else { FAILED };
        let parameters = json!({"context": "The caller is Ada and wants to pay."});
        let passes_on = agent(tool_to(name, &place, how), uses(name, parameters, failed));
        let agents = Agents::start([vec![passes_on], more].concat());
        let edge = agents.edge_for(&place, "[transfers]\nring_timeout_s = 5\n");
        let call = Phone::heard_call(caller, "u1", ears.0.port, AGENT, edge.port);
        let (caller, target) = ((call, ears.0), (phone, ears.1));
        Bridge { agents, edge, caller, target, _gateway: gateway }
    }

    /// The caller hears music; then both hear each other.
    fn talk(&mut self) {
        self.caller.1.await_sound();
        talk_both(&mut self.caller.1, &mut self.target.1);
    }

    /// Both telephones saw what they want; gives the record.
    fn end(self) -> (Cdr, Agents) {
        self.caller.0.assert_content();
        self.target.0.assert_content();
        let record = self.edge.closed(1).remove(0);
        assert_eq!(record.transfers.len(), 1, "{record:#?}");
        (record, self.agents)
    }
}

/// Until both hear each other.
fn talk_both(caller: &mut Ear, target: &mut Ear) {
    let content = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| target.talk(TARGET_HZ, CALLER_HZ, &content));
        caller.talk(CALLER_HZ, TARGET_HZ, &content);
    });
}

/// Both legs went on here, and are billed to their ends, the agent's time only until the bridge.
fn assert_bridged(record: &Cdr, kind: TransferKind, ended_by: EndedBy) {
    let transfer = &record.transfers[0];
    assert_eq!((transfer.kind, transfer.outcome), (kind, TransferOutcome::Bridged), "{record:#?}");
    assert_eq!(record.ended_by, Some(ended_by), "{record:#?}");
    let (Some(answered), Some(ended)) = (record.answered_at, record.ended_at) else {
        panic!("{record:#?}")
    };
    let up = Duration::from_micros((ended.unix_micros() - answered.unix_micros()) as u64);
    assert!(transfer.leg_time >= Duration::from_millis(500), "{record:#?}");
    let apart = record.sip_time.abs_diff(up + transfer.leg_time);
    assert!(apart < Duration::from_millis(20), "both legs: {record:#?}");
    assert!(record.agent_time < up, "the agent has left before: {record:#?}");
}

fn assert_back(record: &Cdr, reason: &str, status: Option<u16>) {
    let transfer = &record.transfers[0];
    assert_eq!(transfer.outcome, TransferOutcome::Failed, "{record:#?}");
    assert_eq!(
        (transfer.reason.as_deref(), transfer.status),
        (Some(reason), status),
        "{record:#?}"
    );
    assert_eq!(record.ended_by, Some(EndedBy::Agent), "{record:#?}");
}

#[test]
fn sipp_is_bridged_to_sipp_and_the_target_hangs_up() {
    if !has("sipp") {
        return;
    }
    let invite = json!({"sipVerb": "INVITE"});
    let mut bridge =
        Bridge::begin("heard_caller", "operator_stays", "coldTransfer", invite, vec![]);
    bridge.talk();
    let (record, agents) = bridge.end();
    assert_bridged(&record, TransferKind::ColdInvite, EndedBy::Target);
    assert_eq!(agents.told(), [""; 0]);
}

#[test]
fn what_sipp_plays_before_it_answers_is_heard_by_the_caller() {
    if !has("sipp") {
        return;
    }
    let ears = (Ear::new(), Ear::new());
    // A second of it, again and again.
    let target = Phone::heard_early("operator_early", ears.1.port, &tone(EARLY_HZ, 0, 8_000));
    let fixed = json!({"sipVerb": "INVITE"});
    let passes_on = agent(
        tool("coldTransfer", target.port, fixed),
        uses("coldTransfer", json!({"context": "-"}), FAILED),
    );
    let agents = Agents::start(vec![passes_on]);
    let edge = agents.edge(target.port, "[transfers]\nwhile_ringing = \"target\"\n");
    let call = Phone::heard_call("heard_caller", "u1", ears.0.port, AGENT, edge.port);
    let (caller, target) = ((call, ears.0), (target, ears.1));
    let mut bridge = Bridge { agents, edge, caller, target, _gateway: None };
    bridge.caller.1.await_tone(EARLY_HZ);
    // Its answer has another description, where both are heard.
    bridge.talk();
    let (record, _) = bridge.end();
    assert_bridged(&record, TransferKind::ColdInvite, EndedBy::Target);
}

#[test]
fn sipp_is_bridged_to_sipp_and_the_caller_hangs_up() {
    if !has("sipp") {
        return;
    }
    let invite = json!({"sipVerb": "INVITE", "holdMusicUrl": null});
    let bridge =
        Bridge::begin("heard_caller_leaves", "operator_waits", "coldTransfer", invite, vec![]);
    let (record, _) = bridge.end();
    assert_bridged(&record, TransferKind::ColdInvite, EndedBy::Caller);
}

#[test]
fn sipp_does_not_take_the_call_and_the_agent_is_back() {
    if !has("sipp") {
        return;
    }
    for (target, reason, status, words) in [
        ("callee_busy", "the target refused", Some(486), "the line is busy"),
        ("callee_declines", "the target refused", Some(603), "the call was declined"),
        ("callee_never", "the target did not answer", None, "nobody answered"),
    ] {
        let invite = json!({"sipVerb": "INVITE"});
        let mut bridge = Bridge::begin("heard_caller", target, "coldTransfer", invite, vec![]);
        bridge.caller.1.await_tone(AGENT_HZ);
        let (record, agents) = bridge.end();
        assert_back(&record, reason, status);
        assert_eq!(record.transfers[0].leg_time, Duration::ZERO, "ringing is free");
        let told = agents.told();
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }
}

/// The agent's second call has told the operator what the first one knows.
fn assert_briefed(record: &Cdr, agents: &Agents) {
    let seen = agents.seen_when(|seen| seen.len() == 2);
    let (first, second) = (&seen[0], &seen[1]);
    assert_eq!(record.ultravox_call_id.as_ref(), Some(&first.call_id));
    assert_eq!(record.transfers[0].operator_call_id.as_ref(), Some(&second.call_id));
    let prompt = second.request["systemPrompt"].as_str().unwrap_or_default();
    assert!(prompt.contains("Ada and wants to pay"), "{prompt}");
    assert!(record.transfers[0].operator_time > Duration::ZERO, "{record:#?}");
}

#[test]
fn an_operator_takes_the_call_and_is_bridged() {
    if !has("sipp") {
        return;
    }
    let how = json!({"transferType": "BRIDGE"});
    let mut bridge =
        Bridge::begin("heard_caller", "operator_stays", "warmTransfer", how, vec![accepts()]);
    bridge.talk();
    let (record, agents) = bridge.end();
    assert_bridged(&record, TransferKind::WarmBridge, EndedBy::Target);
    assert_briefed(&record, &agents);
}

#[test]
fn an_operator_takes_the_call_and_is_bridged_since_the_refer_is_refused() {
    if !has("sipp") {
        return;
    }
    let how = json!({"transferType": "TRY_REFER"});
    let mut bridge =
        Bridge::begin("warm_refer_refused", "operator_stays", "warmTransfer", how, vec![accepts()]);
    bridge.talk();
    let (record, agents) = bridge.end();
    assert_bridged(&record, TransferKind::WarmTryRefer, EndedBy::Target);
    assert_briefed(&record, &agents);
}

#[test]
fn an_operator_takes_the_call_by_a_refer_that_replaces() {
    if !has("sipp") {
        return;
    }
    let how = json!({"transferType": "REFER"});
    let bridge =
        Bridge::begin("warm_refer_follows", "operator_waits", "warmTransfer", how, vec![accepts()]);
    let (record, agents) = bridge.end();
    assert_eq!(record.transfers[0].outcome, TransferOutcome::Referred, "{record:#?}");
    assert_eq!(record.end.as_deref(), Some("transferred"), "{record:#?}");
    assert!(record.transfers[0].leg_time > Duration::ZERO, "{record:#?}");
    assert_briefed(&record, &agents);
}

#[test]
fn an_operator_does_not_take_the_call_and_says_why() {
    if !has("sipp") {
        return;
    }
    let hears_out = vec![Step::Wait { ms: 300 }];
    let refuses = briefer([hears_out, invoke(REFUSE, json!({"reason": "in a meeting"}))].concat());
    let how = json!({"transferType": "BRIDGE"});
    let mut bridge =
        Bridge::begin("heard_caller", "operator_waits", "warmTransfer", how, vec![refuses]);
    bridge.caller.1.await_tone(AGENT_HZ);
    let (record, agents) = bridge.end();
    assert_back(&record, "the operator declined", None);
    let billed = record.transfers[0].leg_time;
    assert!(billed >= Duration::from_millis(300), "the briefing is billed: {record:#?}");
    let told = agents.told();
    assert!(told.len() == 1 && told[0].contains("in a meeting"), "{told:?}");
}

#[test]
fn the_agent_itself_asks_the_operator_in_a_stage_of_its_own() {
    if !has("sipp") {
        return;
    }
    let (mut ear, target_ear) = (Ear::new(), Ear::new());
    let target = Phone::heard("operator_waits", target_ear.port);
    let briefs = vec![Step::AwaitMessage { name: "forced_agent_message".into() }];
    let warm = invoke("warmTransfer", json!({"context": "The caller is Ada."}));
    let refuses = invoke(REFUSE, json!({"reason": "in a meeting"}));
    let back = vec![
        Step::AwaitText { text: "in a meeting".into() },
        Step::Say { sound: Sound::Tone },
        Step::AwaitPlayed,
        Step::Close { code: 1000 },
    ];
    let tool = tool("warmTransfer", target.port, json!({}));
    let agents = Agents::start(vec![agent(tool, [warm, briefs, refuses, back].concat())]);
    let edge = agents.edge(target.port, "[transfers]\nwarm = \"stage\"\n");
    let caller = Phone::heard_call("heard_caller", "u1", ear.port, AGENT, edge.port);
    ear.await_tone(AGENT_HZ);
    caller.assert_content();
    target.assert_content();
    assert_back(&edge.closed(1)[0], "the operator declined", None);
    let seen = agents.seen_when(|seen| seen.len() == 1);
    let stages = texts(&seen[0], "forced_agent_message", "type").len();
    assert_eq!(stages, 2, "into the operator's stage, and back: {:#?}", seen[0].texts);
    assert_eq!(seen[0].text_problems, [""; 0]);
}

#[test]
fn the_agent_itself_bridges_an_operator_who_accepts_in_a_stage() {
    if !has("sipp") {
        return;
    }
    let (mut ear, mut target_ear) = (Ear::new(), Ear::new());
    let target = Phone::heard("operator_stays", target_ear.port);
    let briefs = vec![
        Step::AwaitMessage { name: "forced_agent_message".into() },
        Step::Wait { ms: 300 },
        Step::InvokeTool { tool: ACCEPT.to_owned(), parameters: json!({}) },
    ];
    let moment = vec![Step::Wait { ms: 500 }];
    let warm = invoke("warmTransfer", json!({"context": "The caller is Ada."}));
    let tool = tool("warmTransfer", target.port, json!({"transferType": "BRIDGE"}));
    let agents = Agents::start(vec![agent(tool, [moment, warm, briefs].concat())]);
    let edge = agents.edge(target.port, "[transfers]\nwarm = \"stage\"\n");
    let caller = Phone::heard_call("heard_caller", "u1", ear.port, AGENT, edge.port);
    ear.await_sound();
    talk_both(&mut ear, &mut target_ear);
    caller.assert_content();
    target.assert_content();
    let record = edge.closed(1).remove(0);
    assert_bridged(&record, TransferKind::WarmBridge, EndedBy::Target);
    assert_eq!(record.transfers[0].operator_call_id, None, "one agent call did it all");
    let seen = agents.seen_when(|seen| seen.len() == 1 && seen[0].end_reason.is_some());
    let stages = texts(&seen[0], "forced_agent_message", "type").len();
    assert_eq!(stages, 1, "into the operator's stage: {:#?}", seen[0].texts);
    assert_eq!(seen[0].text_problems, [""; 0]);
}

#[test]
fn a_target_behind_a_proxy_that_stays_on_the_way_is_bridged() {
    if !kamailio::installed() {
        return;
    }
    let invite = json!({"sipVerb": "INVITE"});
    let mut bridge =
        Bridge::begin_behind_a_proxy("routed_operator", "coldTransfer", invite, vec![]);
    bridge.talk();
    let (record, _) = bridge.end();
    assert_bridged(&record, TransferKind::ColdInvite, EndedBy::Target);
    let how = json!({"transferType": "BRIDGE"});
    let mut bridge =
        Bridge::begin_behind_a_proxy("routed_operator", "warmTransfer", how, vec![accepts()]);
    bridge.talk();
    let (record, agents) = bridge.end();
    assert_bridged(&record, TransferKind::WarmBridge, EndedBy::Target);
    assert_briefed(&record, &agents);
}

#[test]
fn session_timers_are_refreshed_on_both_legs_of_a_bridge() {
    if !has("sipp") {
        return;
    }
    let invite = json!({"sipVerb": "INVITE"});
    let mut bridge =
        Bridge::begin("timed_caller", "timed_operator", "coldTransfer", invite, vec![]);
    // They hear each other before, while and after their timers are refreshed.
    bridge.talk();
    let (record, _) = bridge.end();
    assert_bridged(&record, TransferKind::ColdInvite, EndedBy::Target);
}

#[test]
fn sipp_refers_the_agent_to_somebody_else() {
    if !has("sipp") {
        return;
    }
    let target = Phone::start("callee_answers", "u1");
    let agents = Agents::start(Vec::new());
    let edge = agents.edge(target.port, "[transfers]\nfollow_refer = true\n");
    Phone::refers("peer_refers", target.port, "echo", edge.port).assert_content();
    target.assert_content();
    let record = edge.closed(1).remove(0);
    let transfer = &record.transfers[0];
    let done = (transfer.kind, transfer.outcome);
    assert_eq!(done, (TransferKind::PeerRefer, TransferOutcome::HandedOver), "{record:#?}");
    agents.seen_when(|seen| seen.len() == 1 && seen[0].end_reason.is_some());
}

#[test]
fn sipp_takes_a_call_over() {
    if !has("sipp") {
        return;
    }
    let edge =
        Edge::start_so(&Start { more: "[transfers]\nreplaces = true\n", ..Start::default() });
    Phone::call("takes_over", "u1", "echo", edge.port).assert_content();
    let record = edge.closed(1).remove(0);
    assert_eq!(record.ended_by, Some(EndedBy::Caller), "{record:#?}");
    assert!(record.sip_time >= Duration::from_millis(450), "one clock for both: {record:#?}");
}
