//! Ladders of re-INVITEs of ours: the answer, the late offer, glare, refusals, the ends of the call.

use super::client::{ANSWER, Caller, ONE};
use super::*;
use bytes::Bytes;

const INVITE: &str = "INVITE sip:a@192.0.2.1:5062";
const ACK: &str = "ACK sip:a@192.0.2.1:5062";

impl World {
    fn reoffer(&mut self, offer: Option<&'static str>) -> Result<Vec<String>, Busy> {
        let offer = offer.map(|text| Bytes::from_static(text.as_bytes()));
        self.agent.reoffer(self.now, SessionId(1), offer, &mut self.out)?;
        Ok(self.shown())
    }

    /// The answer to our re-INVITE; the request that was sent last may be another by now.
    fn answer_reinvite(&mut self, reinvite: &str, status: &str, extra: &str) -> Vec<String> {
        let last = std::mem::replace(&mut self.sent, reinvite.to_owned());
        let answer = self.answer_to_ours(status, extra);
        self.sent = last;
        self.receive(&answer)
    }
}

fn lines(text: &[&str]) -> Vec<String> {
    text.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn an_offer_of_ours_is_answered_and_acknowledged_for_each_copy() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    assert_eq!(world.header("CSeq"), ["1 INVITE"]);
    assert_eq!(world.header("Contact"), ["<sip:192.0.2.10:5060;transport=udp>"]);
    assert!(invite.ends_with("\r\n\r\nv=1"));
    assert_eq!(world.reoffer(Some("v=2")), Err(Busy::Open));
    assert_eq!(world.answer_ours("100 Trying"), Vec::<String>::new());
    let moved = "Contact: <sip:b@192.0.2.1:5099>\nAllow: REFER\n\nv=answer";
    let shown = world.answer_reinvite(&invite, "200 OK", moved);
    assert_eq!(shown, ["ACK sip:b@192.0.2.1:5099", "ReofferAnswered 1 v=answer"]);
    assert_eq!(world.header("CSeq"), ["1 ACK"]);
    let ack = world.sent.clone();
    assert_eq!(world.answer_reinvite(&invite, "200 OK", moved), ["ACK sip:b@192.0.2.1:5099"]);
    assert_eq!(world.sent, ack);
    assert_eq!(world.agent.peer_of(SessionId(1)).expect("up").refer, Some(true));
    assert_eq!(world.reoffer(Some("v=2")), Ok(lines(&["INVITE sip:b@192.0.2.1:5099"])));
    assert_eq!(world.header("CSeq"), ["2 INVITE"]);
    assert_eq!(world.answer_ours("488 No"), ["ACK sip:b@192.0.2.1:5099", "ReofferRefused 1 488"]);
    assert_eq!(world.agent.sessions(), 1, "all stays as it was");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn without_an_offer_of_ours_the_ack_waits_for_our_answer() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(None), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    assert_eq!(world.header("Content-Type"), Vec::<String>::new());
    let offer = "Contact: <sip:a@192.0.2.1:5062>\n\nv=offer";
    assert_eq!(world.answer_reinvite(&invite, "200 OK", offer), ["ReofferAnswered 1 v=offer"]);
    assert_eq!(world.answer_reinvite(&invite, "200 OK", offer), Vec::<String>::new());
    assert_eq!(world.receive(&request("INVITE", 2, "TAG")), ["100 INVITE", "491 INVITE"]);
    world.receive(&request("ACK", 2, "TAG-branch"));
    assert_eq!(world.reoffer(Some("v=1")), Err(Busy::Open));
    let answer = || Bytes::from_static(b"v=answer");
    let paid = world.agent.acknowledge(world.now, SessionId(1), answer(), &mut world.out);
    assert_eq!(paid, Ok(()));
    assert_eq!(world.shown(), [ACK]);
    assert!(world.sent.ends_with("\r\n\r\nv=answer"));
    let again = world.agent.acknowledge(world.now, SessionId(1), answer(), &mut world.out);
    assert_eq!(again, Err(Gone));
    assert_eq!(world.answer_reinvite(&invite, "200 OK", offer), [ACK], "a copy");
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

#[test]
fn an_owed_ack_goes_out_before_our_bye_and_is_not_owed_for_ever() {
    let offer = "Contact: <sip:a@192.0.2.1:5062>\n\nv=offer";
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(None), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    world.answer_reinvite(&invite, "200 OK", offer);
    assert_eq!(world.bye(), [ACK, "BYE sip:a@192.0.2.1:5062"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    world.end_clean();

    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(None), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    world.answer_reinvite(&invite, "200 OK", offer);
    assert_eq!(world.pass(secs(32)), Vec::<String>::new());
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])), "the peer gave up");
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();

    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(None), Ok(lines(&[INVITE])));
    let shown = world.answer_ours("200 OK");
    assert_eq!(shown, [ACK, "ReofferAnswered 1 -"], "no offer, nothing to answer");
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

#[test]
fn after_a_glare_it_goes_out_again_and_at_last_gives_up() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    for cseq in 2..=6 {
        assert_eq!(world.answer_ours("491 Pending"), [ACK]);
        assert_eq!(world.reoffer(Some("v=2")), Err(Busy::Open));
        let again = world.pass(secs(2));
        assert!(again[0].ends_with(INVITE), "{again:?}");
        assert_eq!(world.header("CSeq"), [format!("{cseq} INVITE")]);
        assert!(world.sent.ends_with("v=1"));
    }
    assert_eq!(world.answer_ours("491 Pending"), [ACK, "ReofferRefused 1 491"]);
    assert_eq!(world.reoffer(Some("v=2")), Ok(lines(&[INVITE])));
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn who_chose_the_call_id_waits_longer() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    caller.reply("200 OK", "them", ANSWER);
    let world = &mut caller.world;
    let offer = Some(Bytes::from_static(b"v=1"));
    assert_eq!(world.agent.reoffer(world.now, SessionId(1), offer, &mut world.out), Ok(()));
    assert_eq!(caller.shown(), ["INVITE 2 → 192.0.2.1:5060"]);
    assert_eq!(caller.reply("491 Pending", "", ""), ["ACK 2 → 192.0.2.1:5060"]);
    assert_eq!(caller.pass(millis(2_099)), Vec::<String>::new());
    let again = caller.pass(millis(1_901));
    assert!(again[0].ends_with(&format!("INVITE 3 → {ONE}")), "{again:?}");
    let shown = caller.reply("200 OK", "", ANSWER);
    assert_eq!(shown, ["ACK 3 → 192.0.2.1:5060", "ReofferAnswered 1 v=0 answer"]);
    let world = &mut caller.world;
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Ok(()));
    assert_eq!(caller.shown(), ["BYE 4 → 192.0.2.1:5060"]);
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}

#[test]
fn an_offer_of_the_peer_takes_the_place_of_one_that_waits() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    assert_eq!(world.receive(&request("INVITE", 2, "TAG")), ["100 INVITE", "491 INVITE"]);
    world.receive(&request("ACK", 2, "TAG-branch"));
    assert_eq!(world.receive(&request("UPDATE", 3, "TAG")), ["491 UPDATE"]);
    assert_eq!(world.answer_reinvite(&invite, "491 Pending", ""), [ACK]);
    let token = world.agent.transactions.len();
    assert!(token > 0);
    let shown = world.receive(&request("INVITE", 4, "TAG"));
    assert_eq!(shown[..2], ["100 INVITE", "ReofferRefused 1 491"]);
    assert!(shown[2].starts_with("Reoffered 1 "), "{shown:?}");
    assert_eq!(world.reoffer(Some("v=2")), Err(Busy::Open), "theirs is open");
    let token = RequestToken(shown[2].split(' ').nth(2).expect("one").parse().expect("a number"));
    let sdp = Some(("application/sdp", &b"v=0"[..]));
    assert_eq!(world.agent.answer(world.now, token, sdp, &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["200 INVITE"]);
    assert_eq!(world.reoffer(Some("v=2")), Err(Busy::Open), "no ACK yet");
    world.receive(&request("ACK", 4, "TAG"));
    assert_eq!(world.reoffer(Some("v=2")), Ok(lines(&[INVITE])));
    world.receive(&request("BYE", 5, "TAG"));
    world.end_clean();
}

#[test]
fn a_500_with_a_wait_is_tried_again_and_one_without_is_not() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    assert_eq!(world.answer_reinvite(&invite, "500 Later", "Retry-After: 3"), [ACK]);
    assert_eq!(world.pass(millis(2_999)), Vec::<String>::new());
    assert_eq!(world.pass(millis(1)), [format!("1 {INVITE}")]);
    assert_eq!(world.answer_ours("500 Broken"), [ACK, "ReofferRefused 1 500"]);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn a_481_a_408_and_silence_end_the_call() {
    for status in ["481 No Such Call", "408 Late"] {
        let mut world = World::udp().connected();
        assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
        let code = &status[..3];
        let expected = [
            ACK.to_owned(),
            format!("ReofferRefused 1 {code}"),
            "BYE sip:a@192.0.2.1:5062".into(),
            format!("Ended 1 SIP;cause={code}"),
        ];
        assert_eq!(world.answer_ours(status), expected);
        assert_eq!(world.agent.sessions(), 0);
        world.answer_ours("200 OK");
        world.end_clean();
    }
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let shown = world.pass(secs(32));
    let expected = [
        "32000 ReofferRefused 1 408",
        "32000 BYE sip:a@192.0.2.1:5062",
        "32000 Ended 1 SIP;cause=408",
    ];
    assert_eq!(shown[6..], expected);
    world.end_clean();
}

#[test]
fn a_re_invite_that_rings_on_is_cancelled_and_changes_nothing() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    world.answer_reinvite(&invite, "180 Ringing", "");
    world.pass(secs(20));
    world.answer_reinvite(&invite, "180 Ringing", "");
    assert_eq!(world.pass(secs(12)), ["12000 CANCEL sip:a@192.0.2.1:5062"]);
    world.answer_ours("200 OK");
    let shown = world.answer_reinvite(&invite, "487 Terminated", "");
    assert_eq!(shown, [ACK, "ReofferRefused 1 487"]);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn an_answer_after_the_end_of_the_call_is_acknowledged_and_not_told() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    let bye = request("BYE", 2, "TAG");
    assert_eq!(world.receive(&bye), ["200 BYE", "Ended 1 -"]);
    assert_eq!(world.answer_reinvite(&invite, "200 OK", ANSWER), ["ACK sip:bob@192.0.2.1:5060"]);
    assert_eq!(world.reoffer(Some("v=1")), Err(Busy::Gone));
    world.end_clean();

    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    world.receive(&request("BYE", 2, "TAG"));
    let shown = world.answer_reinvite(&invite, "180 Ringing", "");
    assert_eq!(shown, ["CANCEL sip:a@192.0.2.1:5062"], "nobody waits for it");
    world.answer_ours("200 OK");
    assert_eq!(world.answer_reinvite(&invite, "487 Terminated", ""), [ACK]);
    world.end_clean();
}

#[test]
fn before_the_answer_there_is_nothing_to_offer_again() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    assert_eq!(world.reoffer(Some("v=1")), Err(Busy::Open));
    world.accept();
    assert_eq!(world.reoffer(Some("v=1")), Err(Busy::Open), "the first ACK is due");
    world.receive(&request("ACK", 1, "TAG"));
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn an_ack_goes_where_the_dialog_lives_by_then() {
    let mut world = World::on(stream("203.0.113.1:40000")).connected();
    assert_eq!(world.reoffer(None), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    let offer = "Contact: <sip:a@192.0.2.1:5062>\n\nv=offer";
    assert_eq!(world.answer_reinvite(&invite, "200 OK", offer), ["ReofferAnswered 1 v=offer"]);
    world.agent.handle_flow_closed(world.now, world.flow.id, &mut world.out);
    assert_eq!(world.shown(), ["FlowLost 1"]);
    world.flow = Flow { id: FlowId(7), ..stream("203.0.113.1:40001") };
    let info = world.receive(&request("INFO", 2, "TAG"));
    assert_eq!(info[0], "Moved 1 7");
    let answer = Bytes::from_static(b"v=answer");
    let paid = world.agent.acknowledge(world.now, SessionId(1), answer, &mut world.out);
    assert_eq!(paid, Ok(()));
    let flows: Vec<u64> = world
        .out
        .iter()
        .filter_map(|output| match output {
            UaOutput::Send { flow, .. } => Some(flow.id.0),
            _ => None,
        })
        .collect();
    assert_eq!(flows, [7]);
    assert_eq!(world.shown(), [ACK]);
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

#[test]
fn other_requests_pass_an_open_re_invite() {
    let mut world = World::udp().connected();
    assert_eq!(world.reoffer(Some("v=1")), Ok(lines(&[INVITE])));
    let invite = world.sent.clone();
    assert_eq!(world.receive(&request("OPTIONS", 2, "TAG")), ["200 OPTIONS"]);
    let info = world.receive(&request("INFO", 3, "TAG"));
    assert!(info.len() == 1 && info[0].starts_with("InDialog 1 "), "{info:?}");
    let refresh = request("UPDATE", 4, "TAG").replace(
        "Content-Type: application/sdp\nContent-Length: 3\n\nv=0",
        "Content-Length: 0\n\n",
    );
    let update = world.receive(&refresh);
    assert!(update.len() == 1 && update[0].ends_with("UPDATE -"), "{update:?}");
    let shown = world.answer_reinvite(&invite, "200 OK", "");
    assert_eq!(shown, [ACK, "ReofferAnswered 1 -"]);
    world.receive(&request("BYE", 5, "TAG"));
    world.pass(secs(5));
    world.end_clean();
}
