//! Ladders of reliable provisional answers in both roles (RFC 3262).

use super::client::{Caller, ONE};
use super::*;

/// An INVITE that requires reliable answers.
fn requiring() -> String {
    request("INVITE", 1, "").replace("Max-", "Require: 100rel\nMax-")
}

fn prack(cseq: u32, rack: &str) -> String {
    request("PRACK", cseq, "TAG").replace("Max-", &format!("RAck: {rack}\nMax-"))
}

impl World {
    fn ring(&mut self, code: u16) -> Vec<String> {
        assert_eq!(self.agent.ring(self.now, SessionId(1), code, &mut self.out), Ok(()));
        self.shown()
    }

    fn rseq(&self) -> String {
        self.header("RSeq").join("")
    }
}

#[test]
fn ringing_is_repeated_until_its_prack() {
    let mut world = World::udp();
    world.receive(&requiring());
    assert_eq!(world.ring(180), ["180 INVITE"]);
    assert_eq!(world.header("Require"), ["100rel"]);
    let first: u32 = world.rseq().parse().expect("a number");
    assert!((1..1 << 31).contains(&first));
    assert_eq!(world.ring(183), Vec::<String>::new(), "one at a time");
    let repeated = ["500 180 INVITE", "1500 180 INVITE", "3500 180 INVITE"];
    assert_eq!(world.pass(secs(4)), repeated);
    assert_eq!(world.receive(&prack(2, &format!("{} 1 INVITE", first + 1))), ["481 PRACK"]);
    assert_eq!(world.receive(&prack(3, &format!("{first} 2 INVITE"))), ["481 PRACK"]);
    assert_eq!(world.receive(&request("PRACK", 4, "TAG")), ["481 PRACK"]);
    let good = prack(5, &format!("{first} 1 INVITE"));
    assert_eq!(world.receive(&good), ["200 PRACK", "183 INVITE"], "the next one goes out");
    assert_eq!(world.rseq(), (first + 1).to_string());
    assert_eq!(world.receive(&good), ["200 PRACK"], "a copy");
    let again = prack(6, &format!("{first} 1 INVITE"));
    assert_eq!(world.receive(&again), ["481 PRACK"], "it was acknowledged");
    let second = prack(7, &format!("{} 1 INVITE", first + 1));
    assert_eq!(world.receive(&second), ["200 PRACK"]);
    assert_eq!(world.accept(), ["200 INVITE"]);
    assert_eq!(world.header("RSeq"), Vec::<String>::new());
    world.receive(&request("ACK", 1, "TAG"));
    world.receive(&request("BYE", 8, "TAG"));
    world.end_clean();
}

#[test]
fn the_answer_does_not_wait_and_a_late_prack_fits() {
    let mut world = World::udp();
    world.receive(&requiring());
    world.ring(180);
    let rack = format!("{} 1 INVITE", world.rseq());
    assert_eq!(world.accept(), ["200 INVITE"]);
    world.receive(&request("ACK", 1, "TAG"));
    assert_eq!(world.pass(secs(2)), Vec::<String>::new(), "nothing is repeated");
    assert_eq!(world.receive(&prack(2, &rack)), ["200 PRACK"]);
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

#[test]
fn without_a_prack_the_call_is_refused_after_32_s() {
    let mut world = World::udp();
    world.receive(&requiring());
    world.ring(180);
    let lines = world.pass(secs(32));
    let end = ["32000 504 INVITE", "32000 Cancelled 1 SIP;cause=504;text=\"No PRACK\""];
    assert_eq!(lines[6..], end);
    assert_eq!(world.agent.sessions(), 0);
    world.receive(&request("ACK", 1, "TAG-branch"));
    world.end_clean();
}

#[test]
fn who_only_supports_it_gets_plain_ringing_and_who_offers_nothing_none() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, "").replace("Max-", "Supported: 100rel\nMax-"));
    assert_eq!(world.ring(180), ["180 INVITE"]);
    assert_eq!(world.header("RSeq"), Vec::<String>::new());
    assert_eq!(world.receive(&prack(2, "1 1 INVITE")), ["481 PRACK"]);
    let mut world = World::udp();
    let late = requiring().replace(
        "Content-Type: application/sdp\nContent-Length: 3\n\nv=0",
        "Content-Length: 0\n\n",
    );
    world.receive(&late);
    assert_eq!(world.ring(180), Vec::<String>::new(), "it would have to offer");
    assert_eq!(world.accept(), ["200 INVITE"]);
}

const RELIABLE: &str = "Contact: <sip:bob@192.0.2.1:5060>\nRequire: 100rel";

#[test]
fn each_reliable_answer_of_the_callee_gets_its_prack_once() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    let (_, invite) = caller.request("INVITE", 0);
    assert_eq!(invite.get_named("Supported"), Some("100rel, replaces, timer"));
    let ringing = caller.reply("180 Ringing", "a", &format!("{RELIABLE}\nRSeq: 9"));
    assert_eq!(ringing, [format!("PRACK 2 → {ONE}"), "Progress 1 180 -".to_owned()]);
    let (_, sent) = caller.request("PRACK", 0);
    assert_eq!(sent.get_named("RAck"), Some("9 1 INVITE"));
    assert_eq!(sent.to().tag(), Some("a"));
    assert_eq!(sent.uri().as_str(), "sip:bob@192.0.2.1:5060");
    let copy = caller.reply("180 Ringing", "a", &format!("{RELIABLE}\nRSeq: 9"));
    assert_eq!(copy, Vec::<String>::new());
    let ahead = caller.reply("183 Progress", "a", &format!("{RELIABLE}\nRSeq: 11"));
    assert_eq!(ahead, Vec::<String>::new(), "number 10 comes first");
    let early = caller.reply("183 Progress", "a", &format!("{RELIABLE}\nRSeq: 10\n\nv=0 early"));
    assert_eq!(early, [format!("PRACK 3 → {ONE}"), "Progress 1 183 v=0 early".to_owned()]);
    let other = caller.reply("183 Progress", "b", &format!("{RELIABLE}\nRSeq: 77"));
    assert_eq!(other, [format!("PRACK 2 → {ONE}"), "Progress 1 183 -".to_owned()], "a fork");
    let answered = caller.reply("200 OK", "a", "Contact: <sip:bob@192.0.2.1:5060>");
    let expected = [format!("ACK 1 → {ONE}"), "Answered 1 -".to_owned()];
    assert_eq!(answered, expected, "the fork's answer came before");
    for back in 0..3 {
        caller.reply_to(("PRACK", back), "200 OK", "", "");
    }
    assert_eq!(caller.shown(), Vec::<String>::new());
    let world = &mut caller.world;
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Ok(()));
    assert_eq!(caller.shown(), [format!("BYE 4 → {ONE}")], "after its PRACKs");
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}

#[test]
fn a_challenged_prack_goes_out_again_in_its_dialog() {
    let mut caller = Caller::ringing_nowhere(Caller::with_credentials());
    caller.reply("183 Progress", "a", &format!("{RELIABLE}\nRSeq: 1"));
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"";
    caller.reply_to(("PRACK", 0), "401 Who", "", challenge);
    assert_eq!(caller.shown(), [format!("PRACK 3 → {ONE}")]);
    assert!(caller.request("PRACK", 0).1.get_named("Authorization").is_some());
    caller.reply_to(("PRACK", 0), "481 What", "", "");
    assert_eq!(caller.shown(), Vec::<String>::new());
    assert_eq!(caller.reply("486 Busy", "a", "").last().map(String::as_str), Some("Refused 1 486"));
    caller.end_clean();
}

#[test]
fn a_reliable_answer_to_a_re_invite_is_acknowledged_too() {
    let mut world = World::udp().connected();
    assert_eq!(world.agent.reoffer(world.now, SessionId(1), None, &mut world.out), Ok(()));
    world.shown();
    let ringing = world.answer_to_ours("180 Ringing", "Require: 100rel\nRSeq: 5");
    assert_eq!(world.receive(&ringing), ["PRACK sip:a@192.0.2.1:5062"]);
    assert_eq!(world.header("RAck"), ["5 1 INVITE"]);
    assert_eq!(world.header("CSeq"), ["2 PRACK"]);
    assert_eq!(world.receive(&ringing), Vec::<String>::new());
    world.answer_ours("200 OK");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}
