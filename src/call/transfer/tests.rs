//! The machine alone: what happened in, steps out, each case one story.

use super::*;
use std::borrow::Cow;

const PATIENCE: Patience = Patience {
    ring: Duration::from_secs(45),
    greeting: Duration::from_secs(10),
    briefing: Duration::from_secs(180),
    refer: Duration::from_secs(60),
    bridged: Duration::from_secs(3_600),
};

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

/// Plays a story and tells the steps of each moment, the first ones among them.
fn play(manner: Manner, briefing: Briefing, story: &[(u64, Happened)]) -> (Transfer, Vec<String>) {
    let mut steps = Vec::new();
    let mut transfer = Transfer::begin(at(0), (manner, briefing), PATIENCE, &mut steps);
    let mut told = vec![words(&steps)];
    for (seconds, what) in story {
        steps.clear();
        transfer.handle(at(*seconds), what.clone(), &mut steps);
        told.push(words(&steps));
    }
    (transfer, told)
}

fn words(steps: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Note(Outcome::Failed(failure)) => format!("failed({})", failure.label()),
        Step::Note(outcome) => format!("{outcome:?}").to_lowercase(),
        Step::Report(_) => "report".into(),
        Step::Finish(cause) => format!("finish({})", cause.label()),
        Step::Refer { replaces: true } => "refer-replacing".into(),
        Step::Refer { replaces: false } => "refer".into(),
        Step::ReadyAgent(_) => "ready".into(),
        Step::Brief(_) => "brief".into(),
        Step::DismissAgent(_) => "dismiss".into(),
        other => format!("{other:?}").to_lowercase(),
    };
    steps.iter().map(step).collect::<Vec<_>>().join(" ")
}

fn check(manner: Manner, briefing: Briefing, story: &[(u64, Happened)], expected: &[&str]) {
    let (_, told) = play(manner, briefing, story);
    assert_eq!(told, expected, "{manner:?} {briefing:?} {story:?}");
}

fn failed(fault: ReferFault) -> Happened {
    Happened::Refer(ReferEnd::Failed(fault))
}

fn busy() -> Happened {
    Happened::NotAnswered(Failure::Refused { code: 486 })
}

const REFERRED: Happened = Happened::Refer(ReferEnd::Referred);

/// A warm transfer up to the briefing: its happenings and what they bring.
fn briefed() -> Vec<(u64, Happened)> {
    vec![
        (0, Happened::LegReady),
        (1, Happened::AgentReady),
        (5, Happened::Answered),
        (6, Happened::AgentJoined),
    ]
}

const BRIEFED: [&str; 5] = ["hold openleg ready", "dial", "", "joinagent", "brief"];

fn check_warm(manner: Manner, then: &[(u64, Happened)], expected: &[&str]) {
    let story = [briefed(), then.to_vec()].concat();
    let expected = [&BRIEFED[..], expected].concat();
    check(manner, Briefing::SecondCall, &story, &expected);
}

#[test]
fn a_cold_refer_has_no_second_leg() {
    use Briefing::Cold;
    use Manner::Refer;
    let begin = "hold refer";
    check(Refer, Cold, &[(9, REFERRED)], &[begin, "referred finish(transferred)"]);
    for (fault, label) in [
        (ReferFault::Refused { code: 405 }, "REFER refused"),
        (ReferFault::Failed { code: 486 }, "REFER failed"),
        (ReferFault::Silent, "no news of the REFER"),
        (ReferFault::Unsent, "REFER not sent"),
    ] {
        let back = format!("failed({label}) resume report");
        check(Refer, Cold, &[(9, failed(fault)), (10, REFERRED)], &[begin, &back, ""]);
    }
    let late = [(59, Happened::Timeout), (60, Happened::Timeout)];
    check(Refer, Cold, &late, &[begin, "", "failed(no news of the REFER) resume report"]);
    let left = Happened::Refer(ReferEnd::PeerLeft);
    check(Refer, Cold, &[(9, left)], &[begin, "finish(caller hung up)"]);
}

#[test]
fn a_cold_invite_is_bridged_until_either_side_leaves() {
    use Briefing::Cold;
    use Manner::Bridge;
    let up = [(0, Happened::LegReady), (5, Happened::Answered)];
    let began = ["hold openleg", "dial", "bridge bridged"];
    for (what, end) in [
        ((60, Happened::TargetLeft), "finish(target hung up)"),
        ((3_605, Happened::Timeout), "finish(longest bridged time)"),
        ((3_604, Happened::Timeout), ""),
        ((60, Happened::CallerAgentLeft), ""),
        (
            (60, Happened::TargetLost(Failure::TargetSilent, EndCause::TargetSilent)),
            "finish(no media from the target)",
        ),
    ] {
        let story = [&up[..], &[what]].concat();
        check(Bridge, Cold, &story, &[&began[..], &[end]].concat());
    }
}

#[test]
fn a_target_that_cannot_be_had_brings_the_caller_back() {
    use Briefing::Cold;
    use Manner::Bridge;
    let back = |label: &str| format!("droptarget failed({label}) resume report");
    let no_leg = Happened::LegFailed(Failure::NoLeg(Cow::Borrowed("no line is free now")));
    check(Bridge, Cold, &[(0, no_leg)], &["hold openleg", &back("no line for the target")]);
    let ready = (0, Happened::LegReady);
    for (what, label) in [
        ((3, busy()), "the target refused"),
        ((45, Happened::Timeout), "the target did not answer"),
        (
            (3, Happened::NotAnswered(Failure::NotReached(crate::refusal::Unreached::Silent))),
            "the target was not reached",
        ),
    ] {
        let story = [ready.clone(), what, (50, Happened::Answered)];
        check(Bridge, Cold, &story, &["hold openleg", "dial", &back(label), ""]);
    }
    check(Bridge, Cold, &[ready, (44, Happened::Timeout)], &["hold openleg", "dial", ""]);
}

#[test]
fn an_operator_takes_the_call() {
    let accepted = (20, Happened::Accepted);
    check_warm(Manner::Bridge, std::slice::from_ref(&accepted), &["bridge bridged"]);
    for manner in [Manner::Refer, Manner::TryRefer] {
        check_warm(
            manner,
            &[accepted.clone(), (25, REFERRED)],
            &["refer-replacing", "referred finish(transferred)"],
        );
        // Its leg is replaced before the news of that comes.
        check_warm(
            manner,
            &[accepted.clone(), (24, Happened::TargetLeft), (25, REFERRED)],
            &["refer-replacing", "droptarget", "referred finish(transferred)"],
        );
    }
}

#[test]
fn a_refer_that_fails_is_a_refusal_or_a_bridge() {
    let accepted = (20, Happened::Accepted);
    let refused = (25, failed(ReferFault::Refused { code: 603 }));
    let back = "dismiss failed(REFER refused) resume report";
    check_warm(
        Manner::Refer,
        &[accepted.clone(), refused.clone()],
        &["refer-replacing", &format!("droptarget {back}")],
    );
    check_warm(
        Manner::TryRefer,
        &[accepted.clone(), refused.clone()],
        &["refer-replacing", "bridge bridged"],
    );
    // With the operator gone there is nobody to bridge with.
    check_warm(
        Manner::TryRefer,
        &[accepted.clone(), (24, Happened::TargetLeft), refused.clone()],
        &["refer-replacing", "droptarget", back],
    );
    // The REFER succeeds late: one call of the two parties is enough.
    check_warm(
        Manner::TryRefer,
        &[accepted, refused, (60, REFERRED)],
        &["refer-replacing", "bridge bridged", "referred finish(transferred)"],
    );
}

#[test]
fn an_operator_who_does_not_take_the_call_brings_the_caller_back() {
    let back = |label: &str| format!("droptarget dismiss failed({label}) resume report");
    for (what, label) in [
        ((20, Happened::Declined(Some("busy".into()))), "the operator declined"),
        ((20, Happened::TargetLeft), "the target hung up"),
        ((186, Happened::Timeout), "the briefing took too long"),
    ] {
        check_warm(Manner::TryRefer, &[what, (190, Happened::Accepted)], &[&back(label), ""]);
    }
    // Without its agent there is nothing to dismiss.
    let lost = (20, Happened::AgentLost(Failure::NoAgent("it left")));
    let alone = "droptarget failed(no agent for the target) resume report";
    check_warm(Manner::TryRefer, &[lost], &[alone]);
}

#[test]
fn an_operator_waits_for_its_agent() {
    let begin = ["hold openleg ready", "dial", ""];
    let story = [
        (0, Happened::LegReady),
        (5, Happened::Answered),
        (8, Happened::AgentReady),
        (9, Happened::AgentJoined),
    ];
    check(
        Manner::Bridge,
        Briefing::SecondCall,
        &story,
        &[&begin[..], &["joinagent", "brief"]].concat(),
    );
    let story = [(0, Happened::LegReady), (5, Happened::Answered), (15, Happened::Timeout)];
    let back = "droptarget dismiss failed(no agent for the target) resume report";
    check(Manner::Bridge, Briefing::SecondCall, &story, &[&begin[..], &[back]].concat());
    // Its agent cannot be had: the target is not kept ringing for nothing.
    let story = [(0, Happened::LegReady), (2, Happened::AgentLost(Failure::NoAgent("no")))];
    let back = "droptarget failed(no agent for the target) resume report";
    check(Manner::Bridge, Briefing::SecondCall, &story, &["hold openleg ready", "dial", back]);
}

#[test]
fn a_stage_needs_no_joining_and_ends_with_its_agent() {
    let story = [
        (0, Happened::LegReady),
        (1, Happened::AgentReady),
        (5, Happened::Answered),
        (9, Happened::CallerAgentLeft),
    ];
    let expected = [
        "hold openleg ready",
        "dial",
        "",
        "brief",
        "droptarget failed(no agent for the target) resume report",
    ];
    check(Manner::TryRefer, Briefing::Stage, &story, &expected);
}

#[test]
fn the_agent_goes_over_when_the_peers_refer_is_followed() {
    let story = [(0, Happened::LegReady), (5, Happened::Answered), (6, Happened::TargetLeft)];
    let expected = ["hold openleg", "dial", "handedover handover", ""];
    check(Manner::HandOver, Briefing::Cold, &story, &expected);
}

/// Any story ends within bounds: no happening at any moment leaves a transfer that waits for nothing.
#[test]
fn no_story_leaves_a_transfer_without_an_end() {
    let happenings = [
        Happened::LegReady,
        Happened::Answered,
        busy(),
        Happened::TargetLeft,
        Happened::AgentReady,
        Happened::AgentJoined,
        Happened::AgentLost(Failure::NoAgent("lost")),
        Happened::Accepted,
        Happened::Declined(None),
        Happened::CallerAgentLeft,
        REFERRED,
        failed(ReferFault::Silent),
        Happened::Timeout,
    ];
    let mut entropy = crate::ground::Entropy::from_number(7);
    let manners = [Manner::Refer, Manner::Bridge, Manner::TryRefer, Manner::HandOver];
    let briefings = [Briefing::Cold, Briefing::SecondCall, Briefing::Stage];
    for _ in 0..20_000 {
        let manner = manners[entropy.below(4) as usize];
        let briefing = briefings[entropy.below(3) as usize];
        let mut steps = Vec::new();
        let mut transfer = Transfer::begin(at(0), (manner, briefing), PATIENCE, &mut steps);
        let mut now = Instant::ZERO;
        for _ in 0..entropy.below(24) {
            now += Duration::from_secs(entropy.below(60));
            let what = happenings[entropy.below(happenings.len() as u64) as usize].clone();
            transfer.handle(now, what, &mut steps);
        }
        let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
        let reports = count(|step| matches!(step, Step::Report(_)));
        let ends = count(|step| matches!(step, Step::Finish(_) | Step::HandOver));
        assert!(reports + ends <= 1, "{steps:?}");
        assert_eq!(reports + ends == 1, transfer.is_over(), "{steps:?}");
        match transfer.state() {
            // The shard answers, or the user agent does.
            State::Opening | State::Referring { .. } | State::Over => {}
            _ => assert!(transfer.deadline().is_some()),
        }
    }
}
