//! Outgoing calls: asked for by a client, dialled, joined when the callee answers. Each ends in one
//! record, with the status that `sipDetails` is made of.

use super::with;
use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::network::Path;
use crate::sim::{World, ladder, settings};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::cdr::CallDirection;
use voxedge::call::settings::SrtpSettings;
use voxedge::ground::Entropy;
use voxedge::media::plan::{AgentClose, AgentStreamFault};
use voxedge::outgoing::{DialRefusal, HostRule, OutgoingPolicy, Unwanted};
use voxedge::sdp::SrtpPolicy;
use voxedge::switchboard::Input;
use voxedge::ultravox::create_call::CreateFault;
use voxedge::ultravox::sip_details::termination_reason;

fn target() -> Value {
    json!({ "to": "sip:+15550001@192.0.2.100", "from": "+15550100" })
}

/// A world with one phone of this manner, which is dialled at once.
fn calling(manner: Manner) -> World {
    scripted(manner, Script::default())
}

fn scripted(manner: Manner, script: Script) -> World {
    let mut world = World::new(1, settings());
    world.service.script = script;
    world.callee(manner);
    world.dial(0, target());
    world
}

/// Runs to the end: the ladder is as it is kept, nothing is left, and there is one closed record with
/// this reason for the client.
fn check(name: &str, mut world: World, reason: &str) {
    world.run_out(600_000);
    ladder::check(&format!("outgoing_{name}"), world.ladder());
    assert!(world.is_idle(), "{name}: something is left\n{}", world.ladder());
    assert!(world.admitted.values().all(|count| *count == 0), "{name}: {:?}", world.admitted);
    let facts: Vec<_> = world.facts.values().collect();
    assert_eq!(facts.len(), 1, "{name}: one call");
    let record = facts[0].records.last().expect("a record");
    assert!(record.is_closed() && record.direction == CallDirection::Outgoing);
    let given = termination_reason(record.answered_at.is_some(), record.status);
    assert_eq!(given, format!("SIP_TERMINATION_{reason}"), "{name}: {:?}", record.status);
    for text in [world.ladder().to_owned(), format!("{record:?}")] {
        assert!(!text.contains("voice.ultravox.ai"), "{name}: a join URL is a secret");
    }
}

#[test]
fn what_the_callee_says_reaches_its_leg() {
    let manner = Manner { hangs_up: Some(3_000), ..Manner::default() };
    let mut world = calling(manner);
    world.callee_speaks(3_000, 0, 50);
    world.run_out(600_000);
    assert!(world.ladder().contains("closed  rtp 50 in"), "{}", world.ladder());
}

#[test]
fn the_callee_answers_and_hangs_up() {
    let manner = Manner { hangs_up: Some(3_000), ..Manner::default() };
    let mut world = scripted(manner, Script { speech_ms: 400, ..Script::default() });
    world.run_out(600_000);
    let facts = world.facts.values().next().expect("a call").clone();
    let record = facts.records.last().expect("a record");
    assert_eq!(record.answered_at.is_some(), record.joined_at.is_some());
    assert_eq!(record.sip_time, Duration::from_millis(3_010), "from the answer, ringing is free");
    assert!(record.agent_time < record.sip_time, "the agent joins after the answer");
    assert!(world.callees[0].rtp_received >= 20, "the callee hears the agent");
    let created = world.dialled[0].as_ref().expect("a call");
    assert_eq!(created["joinUrl"], Value::Null);
    assert_eq!(created["medium"], json!({ "sip": { "outgoing": target() } }));
    check("answered", world, "NORMAL");
}

#[test]
fn the_agent_hangs_up_on_a_callee() {
    let leaves = Some((1_000, AgentClose::Code(1000)));
    let script = Script { leaves, ..Script::default() };
    check("agent_hangs_up", scripted(Manner::default(), script), "NORMAL");
}

#[test]
fn busy_declined_and_unknown() {
    for (name, code, reason) in [
        ("busy", 486, "BUSY"),
        ("declined", 603, "REJECTED"),
        ("not_found", 404, "INVALID_NUMBER"),
        ("unavailable", 503, "DESTINATION_UNAVAILABLE"),
    ] {
        let manner = Manner { answers: Some((700, code, "")), ..Manner::default() };
        check(name, calling(manner), reason);
    }
}

#[test]
fn nobody_answers_the_phone() {
    let manner = Manner { answers: None, ..Manner::default() };
    check("no_answer", calling(manner), "TIMEOUT");
}

#[test]
fn nobody_is_there() {
    check("down", calling(Manner { silent: true, ..Manner::default() }), "TIMEOUT");
    let mut world = World::new(1, settings());
    world.dial(0, json!({ "to": "sip:1@trunk.example", "from": "2" }));
    check("no_address", world, "DESTINATION_UNAVAILABLE");
}

#[test]
fn two_of_three_hops_are_dead() {
    let mut world = World::new(1, settings());
    for silent in [true, true, false] {
        world.callee(Manner { silent, answers: Some((200, 200, "")), ..Manner::default() });
    }
    let addresses = world.callees.iter().map(|callee| callee.address).collect();
    world.names.insert("trunk.example".into(), addresses);
    world.callees[2].manner.hangs_up = Some(1_000);
    world.dial(0, json!({ "to": "sip:1@trunk.example", "from": "2" }));
    world.run_out(3_999);
    let facts = world.facts.values().next().expect("a call");
    assert!(facts.records.last().is_some_and(|cdr| cdr.answered_at.is_some()), "up in 4 s");
    check("two_hops_dead", world, "NORMAL");
}

#[test]
fn the_client_gives_up_while_it_rings() {
    let mut world = calling(Manner { answers: None, ..Manner::default() });
    world.hang_up(1_500, "another");
    world.hang_up(2_000, "call-1");
    world.hang_up(2_500, "call-1");
    check("given_up", world, "CANCELED");
}

#[test]
fn a_200_that_crosses_the_cancel_is_ended() {
    let manner = Manner { answers: None, answers_at_cancel: true, ..Manner::default() };
    let mut world = calling(manner);
    world.hang_up(2_000, "call-1");
    check("late_200", world, "CANCELED");
}

#[test]
fn a_call_that_is_up_is_not_given_up() {
    let manner = Manner { hangs_up: Some(2_000), ..Manner::default() };
    let mut world = calling(manner);
    world.hang_up(3_000, "call-1");
    world.run_out(600_000);
    assert!(world.ladder().contains("hang_up call-1: false"), "{}", world.ladder());
    assert!(world.is_idle());
}

#[test]
fn a_challenge_is_answered_with_the_clients_credentials() {
    let manner = Manner { challenges: true, hangs_up: Some(500), ..Manner::default() };
    let mut world = World::new(1, settings());
    world.callee(manner.clone());
    let mut outgoing = target();
    outgoing["username"] = "us".into();
    outgoing["password"] = "a password".into();
    world.dial(0, outgoing);
    world.run_out(600_000);
    let authorization = world.callees[0].authorization.clone().expect("an answer");
    assert!(authorization.contains("username=\"us\""), "{authorization}");
    assert!(!world.ladder().contains("a password") && !authorization.contains("a password"));
    check("challenged", world, "NORMAL");
    check("challenged_without_credentials", calling(manner), "REJECTED");
}

#[test]
fn a_redirection_is_followed_where_the_policy_allows() {
    let moved = |contact| Manner { answers: Some((300, 302, contact)), ..Manner::default() };
    let there = "Contact: <sip:evil@203.0.113.9>;q=1, <sip:+15550002@192.0.2.101>;q=0.5\r\n";
    let mut world = calling(moved(there));
    world.callee(Manner { hangs_up: Some(500), ..Manner::default() });
    check("redirected", world, "NORMAL");
    let mut world = calling(moved("Contact: <sip:evil@203.0.113.9>\r\n"));
    world.callee(Manner::default());
    check("redirected_to_a_stranger", world, "UNKNOWN");
    // Round and round: nobody is called twice.
    let mut world = calling(moved("Contact: <sip:+15550002@192.0.2.101>\r\n"));
    world.callee(moved("Contact: <sip:+15550001@192.0.2.100>\r\n"));
    check("redirected_in_a_circle", world, "UNKNOWN");
}

#[test]
fn credentials_do_not_follow_a_redirection() {
    let mut world = World::new(1, settings());
    let there = "Contact: <sip:+15550002@192.0.2.101>\r\n";
    world.callee(Manner { answers: Some((300, 302, there)), ..Manner::default() });
    world.callee(Manner { challenges: true, ..Manner::default() });
    let mut outgoing = target();
    outgoing["username"] = "us".into();
    outgoing["password"] = "a password".into();
    world.dial(0, outgoing);
    world.run_out(600_000);
    assert_eq!(world.callees[1].authorization, None);
    assert_eq!(world.callees[1].heard, ["INVITE", "ACK"]);
    assert!(world.is_idle());
}

#[test]
fn early_media_is_heard_by_nobody() {
    let manner = Manner {
        early_media: Some(100),
        answers: Some((1_500, 200, "")),
        hangs_up: Some(1_000),
        ..Manner::default()
    };
    check("early_media", calling(manner), "NORMAL");
}

#[test]
fn the_agent_cannot_be_had() {
    let refused = |fault| Script { creations: vec![(150, Err(fault))], ..Script::default() };
    let world = scripted(Manner::default(), refused(CreateFault::BadRequest));
    check("create_400", world, "REJECTED");
    let mut world = scripted(Manner::default(), refused(CreateFault::PaymentRequired));
    world.run_out(600_000);
    assert_eq!(world.dialled, [Err(DialRefusal::NoService(CreateFault::PaymentRequired))]);
    assert_eq!(world.callees[0].heard, Vec::<String>::new(), "nobody is rung for nothing");
    let gone = (30, Err(AgentStreamFault::Unreachable("refused".into())));
    let script = Script { prepare: gone.clone(), ..Script::default() };
    check("agent_gone", scripted(Manner::default(), script), "NORMAL");
    let script = Script { join: (20, Err(AgentStreamFault::Refused(404))), ..Script::default() };
    check("join_refused", scripted(Manner::default(), script), "NORMAL");
}

#[test]
fn a_drain_cancels_what_still_rings_at_its_end() {
    let mut world = calling(Manner { answers: None, ..Manner::default() });
    world.edge(1_000, Input::Drain { grace: Duration::from_secs(2) });
    world.dial(1_500, target());
    check("drained", world, "DESTINATION_UNAVAILABLE");
}

#[test]
fn the_longest_call_time_is_kept() {
    let mut settings = settings();
    settings.outgoing = Arc::new(OutgoingPolicy {
        length_max: Duration::from_secs(8),
        ..OutgoingPolicy::clone(&settings.outgoing)
    });
    let mut world = World::new(1, settings);
    world.callee(Manner::default());
    world.dial(0, target());
    check("too_long", world, "NORMAL");
}

#[test]
fn requests_that_are_not_served() {
    let mut settings = settings();
    settings.outgoing = Arc::new(OutgoingPolicy {
        calls_per_minute: 2,
        ..OutgoingPolicy::clone(&settings.outgoing)
    });
    let mut world = World::new(1, settings);
    world.callee(Manner { hangs_up: Some(100), ..Manner::default() });
    world.dial(0, json!({ "to": "sip:1@evil.example", "from": "2" }));
    world.dial(10, json!({ "from": "2" }));
    for ms in [20, 30, 40] {
        world.dial(ms, target());
    }
    world.run_out(600_000);
    assert!(world.is_idle());
    assert_eq!(world.dialled.iter().filter(|result| result.is_ok()).count(), 2);
    let refusals: Vec<_> =
        world.dialled.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refusals[0], &DialRefusal::Forbidden(Unwanted::Host));
    assert!(matches!(refusals[1], DialRefusal::Malformed { path: "medium.sip.outgoing.to", .. }));
    assert!(matches!(refusals[2], DialRefusal::TooMany { .. }));
    assert_eq!((world.board.counters().outgoing, world.board.counters().outgoing_refused), (2, 3));
}

#[test]
fn calls_both_ways_do_not_disturb_each_other() {
    let mut world = with(Script::default());
    world.callee(Manner { hangs_up: Some(1_000), ..Manner::default() });
    world.dial(100, target());
    world.act(4_000, 0, crate::sim::pbx::Action::HangUp);
    world.run_out(600_000);
    assert!(world.is_idle());
    assert_eq!(world.facts.len(), 2);
    assert!(world.facts.values().all(|facts| {
        facts.records.last().is_some_and(|cdr| cdr.status == Some(200) && cdr.is_closed())
    }));
}

/// Phones of every manner, a network that loses, doubles and reorders, agents that fail in every way,
/// clients who change their mind: each call has one record in the end, and nothing is left.
#[test]
fn a_hundred_storms_leave_nothing() {
    let (mut answered, mut joined) = (0, 0);
    for seed in 0..100 {
        let mut world = World::new(seed, settings());
        let mut chance = Entropy::from_number(!seed);
        world.service.random = Some(Entropy::from_number(seed ^ 0xabc));
        let path = Path { latency_ms: (1, 250), loss_permille: 120, duplicate_permille: 80 };
        (world.network.up, world.network.down) = (path, path);
        let codes = [200, 200, 200, 200, 486, 503, 603, 302, 404];
        for number in 0..3_u64 {
            let code = codes[chance.below(codes.len() as u64) as usize];
            let there = "Contact: <sip:2@192.0.2.101>\r\n";
            world.callee(Manner {
                silent: chance.below(8) == 0,
                challenges: chance.below(4) == 0,
                rings: (chance.below(3) > 0).then_some(50),
                early_media: (chance.below(4) == 0).then_some(100),
                answers: (chance.below(6) > 0)
                    .then(|| (chance.below(4_000), code, if code == 302 { there } else { "" })),
                hangs_up: (chance.below(2) == 0).then(|| chance.below(5_000)),
                answers_at_cancel: chance.below(3) == 0,
                bare_200: false,
                reinvites: (chance.below(4) == 0).then(|| (chance.below(900), "sendonly")),
                events: false,
                refreshed: &[],
                other_fork: None,
                other_fork_rings: None,
                reliable: false,
                updates: None,
                encrypts: false,
                waits_for_rtp: false,
            });
            let mut outgoing = target();
            outgoing["to"] = format!("sip:{number}@192.0.2.{}", 100 + number).into();
            if chance.below(2) == 0 {
                outgoing["username"] = "us".into();
                outgoing["password"] = "a password".into();
            }
            world.dial(chance.below(3_000), outgoing);
            if chance.below(3) == 0 {
                let call = format!("call-{}", 1 + chance.below(3));
                world.hang_up(chance.below(8_000), &call);
            }
        }
        world.edge(60_000, Input::Drain { grace: Duration::from_secs(30) });
        world.run_out(900_000);
        assert!(world.is_idle(), "seed {seed}: something is left\n{}", world.ladder());
        assert_eq!((world.dialled.len(), world.facts.len()), (3, 3), "seed {seed}");
        assert!(world.admitted.values().all(|count| *count == 0), "seed {seed}");
        for facts in world.facts.values() {
            let record = facts.records.last().expect("a record");
            let ends = facts.records.iter().filter(|cdr| cdr.is_closed() && cdr.media.is_some());
            assert!(record.is_closed() && record.status.is_some(), "seed {seed}: {record:?}");
            assert_eq!(ends.count(), 1, "seed {seed}: one end\n{}", world.ladder());
            assert!(record.joined_at.is_none() || record.answered_at.is_some(), "seed {seed}");
            answered += u32::from(record.answered_at.is_some());
            joined += u32::from(record.joined_at.is_some());
        }
        assert!(!world.ladder().contains("a password"), "seed {seed}");
    }
    assert!(answered > 40 && joined > 30, "{answered} answered, {joined} joined");
}

/// A call to a plain telephone whose address has this policy; whether the agent joined.
fn to_a_target_with(policy: SrtpPolicy, insecure_signalling: bool) -> (World, bool) {
    let mut settings = settings();
    let rule = HostRule::parse("192.0.2.100").expect("a host");
    let targets = vec![(rule, policy)];
    let srtp = SrtpSettings { targets, insecure_signalling, ..SrtpSettings::default() };
    settings.call.srtp = Arc::new(srtp);
    let mut world = World::new(1, settings);
    world.callee(Manner { hangs_up: Some(3_000), ..Manner::default() });
    world.dial(0, target());
    world.run_out(600_000);
    let record = world.facts.values().next().and_then(|facts| facts.records.last());
    let joined = record.is_some_and(|record| record.joined_at.is_some());
    (world, joined)
}

#[test]
fn a_targets_policy_for_srtp_decides_what_it_is_offered_and_what_it_may_answer() {
    let (world, _) = to_a_target_with(SrtpPolicy::Required, false);
    let [Err(DialRefusal::Unavailable { words })] = &world.dialled[..] else {
        panic!("{:?}", world.dialled)
    };
    assert!(words.contains("TLS"), "{words}");
    let (world, joined) = to_a_target_with(SrtpPolicy::Required, true);
    assert!(!joined, "a plain answer to an encrypted offer\n{}", world.ladder());
    for policy in [SrtpPolicy::Off, SrtpPolicy::Allowed] {
        let (world, joined) = to_a_target_with(policy, true);
        assert!(joined, "{policy:?}\n{}", world.ladder());
    }
}
