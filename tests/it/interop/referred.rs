//! SIPp is referred by the agent (RFC 3515): every manner in which a peer takes a REFER, each with a
//! daemon of its own. A REFER that succeeds takes us out of the call; one that fails brings the caller
//! back to an agent that knows why, speaks on and hangs up.

use super::agents::{AGENT, Agents, FAILED, agent, tool, uses};
use super::ear::{AGENT_HZ, Ear};
use super::phone::Phone;
use super::rig::has;
use serde_json::json;
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy, TransferKind, TransferOutcome};

/// Where the target is: nobody here calls it.
const TARGET: u16 = 9;

/// Plays it; `back`: the caller hears the agent again. Gives the record and what the agent was told.
fn referred(scenario: &str, transport: &str, back: bool) -> (Cdr, Vec<String>) {
    let known = json!({"username": "edge", "password": "a password"});
    let how = if scenario == "refer_challenged" { known } else { json!({}) };
    let cold = tool("coldTransfer", TARGET, how);
    let agents = Agents::start(vec![agent(cold, uses("coldTransfer", json!({}), FAILED))]);
    let edge = agents.edge(TARGET, "[transfers]\nrefer_timeout_s = 5\n");
    let mut ear = Ear::new();
    let phone = Phone::heard_call(scenario, transport, ear.port, AGENT, edge.port);
    if back {
        ear.await_tone(AGENT_HZ);
    }
    phone.assert_content();
    let record = edge.closed(1).remove(0);
    assert_eq!(record.status, Some(200), "{record:#?}");
    assert_eq!(record.transfers.len(), 1, "{record:#?}");
    assert_eq!(record.transfers[0].kind, TransferKind::ColdRefer);
    assert_eq!(record.transfers[0].leg_time, Duration::ZERO, "it has no leg of ours");
    (record, agents.told())
}

/// The call left us: its clock stopped when the news came.
fn assert_succeeded(scenario: &str) {
    if !has("sipp") {
        return;
    }
    for transport in ["u1", "t1"] {
        let (record, told) = referred(scenario, transport, false);
        let transfer = &record.transfers[0];
        assert_eq!(transfer.outcome, TransferOutcome::Referred, "{record:#?}");
        assert_eq!(record.ended_by, Some(EndedBy::Agent), "{record:#?}");
        assert_eq!(record.end.as_deref(), Some("transferred"), "{record:#?}");
        let (answered, decided) = (record.answered_at, transfer.decided_at);
        let (Some(answered), Some(decided)) = (answered, decided) else { panic!("{record:#?}") };
        let up = Duration::from_micros((decided.unix_micros() - answered.unix_micros()) as u64);
        let apart = up.abs_diff(record.sip_time);
        assert!(apart < Duration::from_millis(5), "the clock stops there: {record:#?}");
        assert_eq!(told, [""; 0], "nobody is there to be told");
    }
}

/// The caller was back, and the agent knew why.
fn assert_failed(
    scenario: &str,
    transport: &str,
    (reason, status): (&str, Option<u16>),
    words: &str,
) {
    if !has("sipp") {
        return;
    }
    let (record, told) = referred(scenario, transport, true);
    let transfer = &record.transfers[0];
    assert_eq!(transfer.outcome, TransferOutcome::Failed, "{record:#?}");
    assert_eq!(
        (transfer.reason.as_deref(), transfer.status),
        (Some(reason), status),
        "{record:#?}"
    );
    assert_eq!(record.ended_by, Some(EndedBy::Agent), "{record:#?}");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(words), "{told:?}");
}

#[test]
fn sipp_follows_the_agents_refer() {
    assert_succeeded("refer_follows");
}

#[test]
fn sipp_leaves_as_soon_as_it_has_accepted_the_refer() {
    assert_succeeded("refer_leaves");
}

#[test]
fn sipp_challenges_the_refer_and_gets_the_credentials() {
    assert_succeeded("refer_challenged");
}

#[test]
fn sipp_accepts_the_refer_and_says_nothing_more() {
    assert_failed("refer_silent", "u1", ("no news of the REFER", None), "in time");
}

#[test]
fn sipp_notifies_of_nothing_but_100() {
    assert_failed("refer_trying", "t1", ("no news of the REFER", None), "in time");
}

#[test]
fn sipp_notifies_that_the_target_is_busy() {
    assert_failed("refer_fails", "u1", ("REFER failed", Some(486)), "the line is busy");
}

#[test]
fn sipp_refuses_the_refer() {
    assert_failed("refer_603", "u1", ("REFER refused", Some(603)), "does not transfer");
    assert_failed("refer_405", "t1", ("REFER refused", Some(405)), "does not transfer");
}

#[test]
fn sipp_challenges_the_refer_of_somebody_without_credentials() {
    assert_failed("refer_401", "u1", ("REFER refused", Some(401)), "does not transfer");
}
