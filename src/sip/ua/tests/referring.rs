//! Ladders of REFERs of ours: what goes out, what the peers of the field answer, the notifications.

use super::*;
use crate::ground::Secret;
use crate::sip::digest::{Credentials, DigestClient};

const REFER: &str = "REFER sip:a@192.0.2.1:5062";

impl World {
    fn refer(&mut self) -> Result<Vec<String>, Busy> {
        let referral = Referral {
            refer_to: "<sip:bob@example.com>".into(),
            referred_by: Some("<sip:us@example.com>".into()),
            headers: vec![("X-Why".into(), "transfer".into())],
            patience: secs(30),
        };
        self.agent.refer(self.now, SessionId(1), referral, &mut self.out)?;
        Ok(self.shown())
    }

    /// A call whose REFER was taken with 202.
    fn referred() -> World {
        let mut world = World::udp().connected();
        assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
        assert_eq!(world.answer_ours("202 Accepted"), ["ReferProgress 1 202"]);
        world
    }

    fn notify(&mut self, cseq: u32, event: &str, state: &str, fragment: &str) -> Vec<String> {
        let text = notify(cseq, event, state, fragment);
        self.receive(&text)
    }
}

fn notify(cseq: u32, event: &str, state: &str, fragment: &str) -> String {
    let lines = format!(
        "Event: {event}\nSubscription-State: {state}\nContent-Type: message/sipfrag;version=2.0\n\
         Content-Length: {}\n\n{fragment}",
        fragment.len()
    );
    request("NOTIFY", cseq, "TAG").replace("Content-Length: 0\n\n", &lines)
}

#[test]
fn a_referral_to_its_good_end() {
    let mut world = World::udp().connected();
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    assert_eq!(world.header("Refer-To"), ["<sip:bob@example.com>"]);
    assert_eq!(world.header("Referred-By"), ["<sip:us@example.com>"]);
    assert_eq!(world.header("X-Why"), ["transfer"]);
    assert_eq!(world.header("Contact"), ["<sip:192.0.2.10:5060;transport=udp>"]);
    assert_eq!(world.refer(), Err(Busy::Open));
    assert_eq!(world.answer_ours("202 Accepted"), ["ReferProgress 1 202"]);
    let trying = world.notify(2, "refer", "active;expires=60", "SIP/2.0 100 Trying");
    assert_eq!(trying, ["200 NOTIFY", "ReferProgress 1 100"]);
    let copy = world.notify(2, "refer", "active;expires=60", "SIP/2.0 100 Trying");
    assert_eq!(copy, ["200 NOTIFY"], "a copy");
    let ringing = world.notify(3, "refer;id=1", "active", "SIP/2.0 180 Ringing");
    assert_eq!(ringing, ["200 NOTIFY", "ReferProgress 1 180"]);
    let old = notify(2, "refer", "active", "SIP/2.0 183 Late").replace("NOTIFY2", "NOTIFY2b");
    assert_eq!(world.receive(&old), ["500 NOTIFY"], "out of order");
    let done = world.notify(4, "refer", "terminated;reason=noresource", "SIP/2.0 200 OK");
    assert_eq!(done, ["200 NOTIFY", "ReferDone 1 Succeeded { code: 200 }"]);
    let after = world.notify(5, "refer", "terminated", "SIP/2.0 200 OK");
    assert_eq!(after, ["481 NOTIFY"], "the subscription is over");
    assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    world.end_clean();
}

#[test]
fn a_referral_waits_for_the_ack_of_the_answer() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    assert_eq!(world.refer(), Ok(Vec::new()));
    assert_eq!(world.refer(), Err(Busy::Open));
    let acked = world.receive(&request("ACK", 1, "TAG"));
    assert!(acked.contains(&REFER.to_owned()), "{acked:?}");
    assert_eq!(world.header("Refer-To"), ["<sip:bob@example.com>"]);
    assert_eq!(world.answer_ours("202 Accepted"), ["ReferProgress 1 202"]);
    let copy = world.receive(&request("ACK", 1, "TAG"));
    assert!(!copy.contains(&REFER.to_owned()), "{copy:?}");
    assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    world.end_clean();
}

#[test]
fn a_notification_may_come_before_the_202_and_after_our_bye() {
    let mut world = World::udp().connected();
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let accepted = world.answer_to_ours("202 Accepted", "");
    let early = world.notify(2, "Refer", "active", "SIP/2.0 100 Trying");
    assert_eq!(early, ["200 NOTIFY", "ReferProgress 1 100"]);
    assert_eq!(world.receive(&accepted), ["ReferProgress 1 202"]);
    assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"]);
    let bye = world.sent.clone();
    let late = world.notify(3, "refer", "terminated", "SIP/2.0 200 OK");
    assert_eq!(late, ["200 NOTIFY"], "nobody asks any more, but the peer is answered");
    world.sent = bye;
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    assert_eq!(world.notify(4, "refer", "active", "SIP/2.0 200 OK"), ["481 NOTIFY"]);
    world.end_clean();
}

#[test]
fn refusals_of_the_refer_leave_the_call() {
    for status in ["603 Decline", "405 Method Not Allowed", "401 Unauthorized", "481 No"] {
        let mut world = World::udp().connected();
        assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
        let (code, reason) = status.split_once(' ').expect("both");
        let done = format!("ReferDone 1 Refused {{ code: {code}, reason: {reason:?} }}");
        assert_eq!(world.answer_ours(status), [done]);
        assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]), "another try is allowed");
        world.receive(&request("BYE", 2, "TAG"));
        world.end_clean();
    }
    let mut world = World::udp().connected();
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let lines = world.pass(secs(32));
    let done = "32000 ReferDone 1 Refused { code: 408, reason: \"Request Timeout\" }";
    assert_eq!(lines.last().map(String::as_str), Some(done));
    assert_eq!(world.agent.sessions(), 1);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn a_challenge_to_the_refer_is_answered_and_the_new_number_is_known() {
    let mut world = World::udp().connected();
    let credentials = Credentials { username: "us".into(), password: Secret::new("x") };
    let given = world.agent.give_credentials(SessionId(1), DigestClient::new(credentials));
    assert_eq!(given, Ok(()));
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"";
    let challenged = world.answer_to_ours("401 Who", challenge);
    assert_eq!(world.receive(&challenged), [REFER]);
    assert_eq!(world.header("CSeq"), ["2 REFER"]);
    assert_eq!(world.header("Refer-To"), ["<sip:bob@example.com>"]);
    assert_eq!(world.answer_ours("202 Accepted"), ["ReferProgress 1 202"]);
    assert_eq!(world.notify(2, "refer;id=9", "active", "SIP/2.0 200 OK"), ["481 NOTIFY"]);
    let done = world.notify(3, "refer;id=2", "terminated", "SIP/2.0 486 Busy Here");
    assert_eq!(done, ["200 NOTIFY", "ReferDone 1 Failed { code: 486, reason: \"Busy Here\" }"]);
    world.receive(&request("BYE", 4, "TAG"));
    world.end_clean();

    let mut world = World::udp().connected();
    let credentials = Credentials { username: "us".into(), password: Secret::new("x") };
    let given = world.agent.give_credentials(SessionId(1), DigestClient::new(credentials));
    assert_eq!(given, Ok(()));
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let challenged = world.answer_to_ours("401 Who", challenge);
    world.receive(&challenged);
    let again = world.answer_to_ours("401 Who", challenge);
    let refused = "ReferDone 1 Refused { code: 401, reason: \"Who\" }";
    assert_eq!(world.receive(&again), [refused], "the password is wrong");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn silence_after_the_202_is_no_success() {
    let mut world = World::referred();
    assert_eq!(world.pass(secs(30)), ["30000 ReferDone 1 TimedOut"]);
    let late = world.notify(2, "refer", "terminated", "SIP/2.0 200 OK");
    let told = ["200 NOTIFY", "ReferDone 1 Succeeded { code: 200 }"];
    assert_eq!(late, told, "the parties have each other after all");
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();

    let mut world = World::referred();
    for cseq in 2..12 {
        let trying = world.notify(cseq, "refer", "active", "SIP/2.0 100 Trying");
        assert_eq!(trying, ["200 NOTIFY", "ReferProgress 1 100"]);
        world.pass(millis(2_900));
    }
    assert_eq!(world.pass(secs(1)), ["1000 ReferDone 1 TimedOut"]);
    world.receive(&request("BYE", 12, "TAG"));
    world.end_clean();

    let mut world = World::referred();
    let over = world.notify(2, "refer", "terminated;reason=timeout", "");
    assert_eq!(over, ["200 NOTIFY", "ReferDone 1 TimedOut"]);
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

#[test]
fn late_news_of_an_earlier_referral_is_not_that_of_the_next() {
    let mut world = World::referred();
    assert_eq!(world.pass(secs(30)), ["30000 ReferDone 1 TimedOut"]);
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let second = world.sent.clone();
    let late = world.notify(2, "refer", "active", "SIP/2.0 200 OK");
    assert_eq!(late, ["200 NOTIFY"], "the next one was not taken yet");
    let late = world.notify(3, "refer;id=1", "terminated", "SIP/2.0 200 OK");
    assert_eq!(late, ["200 NOTIFY"]);
    assert_eq!(world.notify(4, "refer;id=1", "active", "SIP/2.0 200 OK"), ["481 NOTIFY"]);
    world.sent = second;
    assert_eq!(world.answer_ours("202 Accepted"), ["ReferProgress 1 202"]);
    let done = world.notify(5, "refer;id=2", "terminated", "SIP/2.0 503 No");
    assert_eq!(done, ["200 NOTIFY", "ReferDone 1 Failed { code: 503, reason: \"No\" }"]);
    world.receive(&request("BYE", 6, "TAG"));
    world.end_clean();
}

#[test]
fn a_bye_of_the_peer_tells_whether_it_had_accepted() {
    let mut world = World::referred();
    let shown = world.receive(&request("BYE", 2, "TAG"));
    assert_eq!(shown, ["200 BYE", "ReferDone 1 PeerLeft { accepted: true }", "Ended 1 -"]);
    world.end_clean();
    let mut world = World::udp().connected();
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let late = world.answer_to_ours("202 Accepted", "");
    let shown = world.receive(&request("BYE", 2, "TAG"));
    assert_eq!(shown, ["200 BYE", "ReferDone 1 PeerLeft { accepted: false }", "Ended 1 -"]);
    assert_eq!(world.receive(&late), Vec::<String>::new());
    assert_eq!(world.refer(), Err(Busy::Gone));
    world.end_clean();
}

#[test]
fn without_a_subscription_the_202_is_the_end() {
    let mut world = World::udp().connected();
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    let accepted = world.answer_to_ours("202 Accepted", "Refer-Sub: false");
    assert_eq!(world.receive(&accepted), ["ReferDone 1 Succeeded { code: 202 }"]);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn notifications_of_nothing_and_of_other_events() {
    let mut world = World::udp().connected();
    assert_eq!(world.notify(2, "refer", "active", "SIP/2.0 200 OK"), ["481 NOTIFY"]);
    let other = world.notify(3, "talk", "active", "");
    assert!(other.len() == 1 && other[0].starts_with("InDialog 1 "), "{other:?}");
    let none = world.receive(&request("NOTIFY", 4, "TAG"));
    assert!(none.len() == 1 && none[0].starts_with("InDialog 1 "), "{none:?}");
    assert_eq!(world.refer(), Ok(vec![REFER.to_owned()]));
    world.answer_ours("202 Accepted");
    let odd = notify(5, "refer", "active", "SIP/2.0 200 OK").replace("message/sipfrag", "text/x");
    assert_eq!(world.receive(&odd), ["200 NOTIFY"], "not a fragment");
    let evil = "refer;id=nonsense";
    assert_eq!(world.notify(6, evil, "active", "SIP/2.0 200 OK"), ["481 NOTIFY"]);
    world.receive(&request("BYE", 7, "TAG"));
    world.end_clean();
}

#[test]
fn line_breaks_in_a_referral_fail_it() {
    let mut world = World::udp().connected();
    let referral = Referral {
        refer_to: "<sip:bob@example.com>\r\nEvil: x".into(),
        referred_by: None,
        headers: Vec::new(),
        patience: secs(30),
    };
    let asked = world.agent.refer(world.now, SessionId(1), referral, &mut world.out);
    assert_eq!(asked, Ok(()));
    let done = "ReferDone 1 Refused { code: 400, reason: \"Bad Request\" }";
    assert_eq!(world.shown(), [done]);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn the_peers_tag_comes_first_in_what_replaces_us() {
    let mut world = World::udp().connected();
    let expected = format!("c1;to-tag=them;from-tag={}", world.tag);
    assert_eq!(world.agent.replaces_value(SessionId(1)), Some(expected));
    assert_eq!(world.agent.replaces_value(SessionId(2)), None);
    world.receive(&request("BYE", 2, "TAG"));
    let untagged = |text: String| text.replace("<sip:a@192.0.2.1>;tag=them", "<sip:a@192.0.2.1>");
    world.receive(&untagged(request("INVITE", 1, "").replace("c1", "c2")));
    let value = world.agent.replaces_value(SessionId(2)).expect("a session");
    assert!(value.starts_with("c2;to-tag=0;from-tag="), "{value}");
    world.receive(&request("INVITE", 1, "").replace("c1", "c;3").replace("INVITE1", "other"));
    assert_eq!(world.agent.replaces_value(SessionId(3)), None, "not to be written");
}
