//! Ladders of offers by UPDATE before an INVITE of ours is answered (RFC 3311 §5, RFC 6337 §3.1). Those
//! of the other role stand in `update_refreshes_and_offers_and_waits_its_turn`.

use super::client::{Caller, ONE};
use super::*;

const RELIABLE: &str = "Contact: <sip:bob@192.0.2.1:5060>\nRequire: 100rel";

impl Caller {
    /// Rings; the forks `a` and `b` have answered our offer, each with a PRACK, `c` without.
    fn settled() -> Caller {
        let mut caller = Caller::ringing_nowhere(Caller::invite());
        for fork in ["a", "b"] {
            let shown = caller.reply("183 Progress", fork, &format!("{RELIABLE}\nRSeq: 1\n\nv=0"));
            assert_eq!(shown, [format!("PRACK 2 → {ONE}"), "Progress 1 183 v=0".to_owned()]);
        }
        caller.reply("183 Progress", "c", "Contact: <sip:bob@192.0.2.1:5060>\n\nv=0");
        for back in 0..2 {
            caller.reply_to(("PRACK", back), "200 OK", "", "");
        }
        caller.shown();
        caller.world.flow = caller.request("INVITE", 0).0;
        caller
    }

    /// A request of a fork in its early dialog.
    fn hear(&mut self, method: &str, fork: &str, cseq: u32, body: &str) -> Vec<String> {
        let (_, invite) = self.request("INVITE", 0);
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
        let text = format!(
            "{method} sip:us@edge SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{method}{fork}{cseq}\n\
             From: <sip:bob@pbx>;tag={fork}\nTo: {}\nCall-ID: {}\nCSeq: {cseq} {method}\n\
             Contact: <sip:{fork}@192.0.2.1:5060>\n{kind}Content-Length: {}\n\n{body}",
            invite.from().as_str(),
            invite.call_id(),
            body.len()
        );
        self.world.receive(&text)
    }

    /// The token of the offer that was told last.
    fn answers(&mut self, told: &[String]) -> RequestToken {
        let words: Vec<&str> = told.last().expect("an event").split(' ').collect();
        assert_eq!(words[0], "Reoffered", "{told:?}");
        RequestToken(words[2].parse().expect("a token"))
    }

    fn answer(&mut self, token: RequestToken) -> Vec<String> {
        let world = &mut self.world;
        let body = Some(("application/sdp", &b"v=0 ours"[..]));
        assert_eq!(world.agent.answer(world.now, token, body, &mut world.out), Ok(()));
        self.world.shown()
    }
}

#[test]
fn an_offer_reaches_the_call_once_ours_was_answered_reliably() {
    let mut caller = Caller::settled();
    assert_eq!(caller.hear("UPDATE", "c", 1, "v=0"), ["491 UPDATE"], "it may never have come");
    assert_eq!(caller.hear("UPDATE", "d", 1, "v=0"), ["491 UPDATE"], "nobody we know");
    let told = caller.hear("UPDATE", "a", 7, "v=0");
    assert!(told[0].ends_with("UPDATE body of a"), "{told:?}");
    let token = caller.answers(&told);
    assert_eq!(caller.hear("UPDATE", "a", 7, "v=0"), Vec::<String>::new(), "a copy waits too");
    assert_eq!(caller.hear("UPDATE", "a", 8, "v=0"), ["500 UPDATE"], "one at a time");
    assert_eq!(caller.world.header("Retry-After").len(), 1);
    let other = caller.hear("UPDATE", "b", 1, "v=0");
    let other = caller.answers(&other);
    assert_eq!(caller.answer(token), ["200 UPDATE"]);
    assert!(caller.world.sent.ends_with("v=0 ours"));
    assert_eq!(caller.hear("UPDATE", "a", 7, "v=0"), ["200 UPDATE"], "its copy");
    assert_eq!(caller.hear("UPDATE", "a", 6, "v=0"), ["500 UPDATE"], "out of order");
    let world = &mut caller.world;
    let refused = StatusLine::of(488);
    assert_eq!(world.agent.reject(world.now, other, &refused, &[], &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["488 UPDATE"]);
    let again = caller.hear("UPDATE", "a", 9, "v=0");
    let again = caller.answers(&again);
    assert_eq!(caller.answer(again), ["200 UPDATE"]);
    // The dialog goes on with the numbers that its early self has seen.
    caller.reply("200 OK", "a", "Contact: <sip:bob@192.0.2.1:5060>");
    assert_eq!(caller.hear("INFO", "a", 9, ""), ["500 INFO"]);
    let world = &mut caller.world;
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Ok(()));
    assert_eq!(caller.shown(), [format!("BYE 3 → {ONE}")], "after its PRACK");
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}

#[test]
fn an_offer_that_the_answer_overtakes_is_answered_in_the_call() {
    let mut caller = Caller::settled();
    let told = caller.hear("UPDATE", "a", 1, "v=0");
    let token = caller.answers(&told);
    let other = caller.hear("UPDATE", "b", 1, "v=0");
    let other = caller.answers(&other);
    // The other fork is over, whoever answers it.
    let shown = caller.reply("200 OK", "a", "Contact: <sip:bob@192.0.2.1:5060>");
    let ack = format!("ACK 1 → {ONE}");
    assert_eq!(shown, [ack.as_str(), "487 → 192.0.2.1:5060", "Answered 1 -"]);
    let world = &mut caller.world;
    assert_eq!(world.agent.answer(world.now, other, None, &mut world.out), Err(Gone));
    assert_eq!(caller.answer(token), ["200 UPDATE"]);
    let shown = caller.hear("BYE", "a", 2, "");
    assert_eq!(shown, ["200 BYE", "Ended 1 -"]);
    caller.end_clean();
}

#[test]
fn an_offer_that_the_end_overtakes_gets_487() {
    let mut caller = Caller::settled();
    let told = caller.hear("UPDATE", "a", 1, "v=0");
    let token = caller.answers(&told);
    let shown = caller.reply("486 Busy Here", "a", "");
    let ack = format!("ACK 1 → {ONE}");
    assert_eq!(shown, [ack.as_str(), "487 → 192.0.2.1:5060", "Refused 1 486"]);
    let world = &mut caller.world;
    assert_eq!(world.agent.answer(world.now, token, None, &mut world.out), Err(Gone));
    // One that nobody answers is over some time, and the next one is taken.
    let mut caller = Caller::settled();
    caller.hear("UPDATE", "a", 1, "v=0");
    caller.pass(Duration::from_secs(33));
    let told = caller.hear("UPDATE", "a", 2, "v=0");
    let token = caller.answers(&told);
    assert_eq!(caller.answer(token), ["200 UPDATE"]);
    assert_eq!(caller.world.agent.counters().unanswered, 1);
    caller.reply("486 Busy Here", "a", "");
    caller.end_clean();
}
