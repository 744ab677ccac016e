//! Ladders of requests of ours in a dialog: what they say, what their answers mean for the call.

use super::*;
use crate::ground::Secret;
use crate::sip::digest::{Credentials, DigestClient};
use bytes::Bytes;

const PEER: &str = "sip:a@192.0.2.1:5062";

impl World {
    fn ask(&mut self, method: Method) -> Vec<String> {
        let body = Some(("application/dtmf-relay".to_owned(), Bytes::from_static(b"Signal=1")));
        let request = DialogRequest { body, ..DialogRequest::new(method) };
        let asked = self.agent.request(self.now, SessionId(1), request, &mut self.out);
        assert!(asked.is_ok());
        self.shown()
    }
}

/// The answers of events, without the number of the request.
fn answered(lines: &[String]) -> Vec<String> {
    let told = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["RequestAnswered", session, _, code] => format!("RequestAnswered {session} {code}"),
            _ => line.clone(),
        }
    };
    lines.iter().map(told).collect()
}

#[test]
fn an_info_goes_out_once_and_its_answer_comes_back() {
    let mut world = World::udp().connected();
    assert_eq!(world.ask(Method::Info), [format!("INFO {PEER}")]);
    assert_eq!(world.header("CSeq"), ["1 INFO"]);
    assert_eq!(world.header("Content-Type"), ["application/dtmf-relay"]);
    assert_eq!(world.header("Contact"), Vec::<String>::new());
    assert_eq!(world.pass(millis(500)), [format!("500 INFO {PEER}")]);
    assert_eq!(world.answer_ours("100 Trying"), Vec::<String>::new());
    assert_eq!(answered(&world.answer_ours("200 OK")), ["RequestAnswered 1 200"]);
    assert_eq!(world.answer_ours("200 OK"), Vec::<String>::new(), "a copy");
    assert_eq!(world.ask(Method::Options), [format!("OPTIONS {PEER}")]);
    assert_eq!(world.header("CSeq"), ["2 OPTIONS"]);
    assert_eq!(answered(&world.answer_ours("405 No")), ["RequestAnswered 1 405"]);
    assert_eq!(world.ask(Method::Update), [format!("UPDATE {PEER}")]);
    assert_eq!(world.header("Contact"), ["<sip:192.0.2.10:5060;transport=udp>"]);
    let moved = world.answer_to_ours("200 OK", "Contact: <sip:b@192.0.2.1:5099>");
    assert_eq!(answered(&world.receive(&moved)), ["RequestAnswered 1 200"]);
    assert_eq!(world.bye(), ["BYE sip:b@192.0.2.1:5099"], "the target was refreshed");
    assert_eq!(world.header("CSeq"), ["4 BYE"]);
    world.answer_ours("200 OK");
    world.end_clean();
}

#[test]
fn silence_is_a_408_and_a_dead_flow_a_503() {
    let mut world = World::udp().connected();
    world.ask(Method::Info);
    let lines = answered(&world.pass(secs(32)));
    assert_eq!(lines.len(), 11, "ten copies and the end");
    assert!(lines.last().is_some_and(|line| line.starts_with("32000 RequestAnswered")));
    assert!(lines.last().is_some_and(|line| line.ends_with("408")));
    assert_eq!(world.agent.sessions(), 1, "silence to an INFO is no end");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();

    let mut world = World::on(stream("203.0.113.1:40000")).connected();
    world.ask(Method::Info);
    world.agent.handle_flow_closed(world.now, world.flow.id, &mut world.out);
    assert_eq!(world.shown(), ["FlowLost 1", "Locate 192.0.2.1:5062 tcp"]);
    let lost = world.located(Err(LocateFault::Unanswered));
    assert_eq!(answered(&lost), ["RequestAnswered 1 503"]);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn the_dialog_lives_on_the_connection_that_brought_an_answer() {
    let mut world = World::on(stream("203.0.113.1:40000")).connected();
    world.agent.handle_flow_closed(world.now, world.flow.id, &mut world.out);
    world.shown();
    assert_eq!(world.ask(Method::Info), ["Locate 192.0.2.1:5062 tcp"]);
    let hop = world.hop("192.0.2.1:5062", Transport::Tcp);
    world.located(Ok(vec![hop]));
    let anew = Flow { id: FlowId(9), ..stream("192.0.2.1:5062") };
    assert_eq!(world.connected_to(Ok(anew)), [format!("INFO {PEER}")]);
    let shown = world.answer_ours("200 OK");
    assert_eq!(answered(&shown), ["Moved 1 9", "RequestAnswered 1 200"]);
    assert_eq!(world.bye(), [format!("BYE {PEER}")], "nothing is looked for");
    world.answer_ours("200 OK");
    world.end_clean();
}

#[test]
fn a_481_ends_the_call_where_the_request_is_of_the_call() {
    for (method, ends) in [
        (Method::Info, true),
        (Method::Update, true),
        (Method::Notify, false),
        (Method::Message, false),
        (Method::Options, false),
    ] {
        let mut world = World::udp().connected();
        world.ask(method.clone());
        let shown = answered(&world.answer_ours("481 No Such Call"));
        if ends {
            let farewell = format!("BYE {PEER}");
            assert_eq!(shown, ["RequestAnswered 1 481", &farewell, "Ended 1 SIP;cause=481"]);
            assert_eq!(world.header("Reason"), ["SIP;cause=481"]);
            assert_eq!(world.answer_ours("481 No"), Vec::<String>::new());
            assert_eq!(world.agent.sessions(), 0);
        } else {
            assert_eq!(shown, ["RequestAnswered 1 481"], "{method}");
            world.receive(&request("BYE", 2, "TAG"));
        }
        world.end_clean();
    }
}

#[test]
fn requests_that_outlive_their_call_are_forgotten() {
    let mut world = World::udp().connected();
    world.ask(Method::Info);
    let late = world.answer_to_ours("200 OK", "");
    world.receive(&request("BYE", 2, "TAG"));
    assert_eq!(world.receive(&late), Vec::<String>::new());
    let request = DialogRequest::new(Method::Info);
    let gone = world.agent.request(world.now, SessionId(1), request, &mut world.out);
    assert_eq!(gone, Err(Gone));
    world.end_clean();

    let mut early = World::udp();
    early.receive(&super::request("INVITE", 1, ""));
    let request = DialogRequest::new(Method::Info);
    let gone = early.agent.request(early.now, SessionId(1), request, &mut early.out);
    assert_eq!(gone, Err(Gone), "not answered yet");
}

#[test]
fn challenges_are_answered_with_the_credentials_of_the_session() {
    let mut world = World::udp().connected();
    let credentials = Credentials { username: "us".into(), password: Secret::new("x") };
    let given = world.agent.give_credentials(SessionId(1), DigestClient::new(credentials));
    assert_eq!(given, Ok(()));
    world.ask(Method::Info);
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"";
    // Another request goes out between the two tries.
    let challenged = world.answer_to_ours("401 Who", challenge);
    world.ask(Method::Options);
    assert_eq!(world.receive(&challenged), [format!("INFO {PEER}")]);
    assert_eq!(world.header("CSeq"), ["3 INFO"]);
    assert_eq!(world.header("Authorization").len(), 1);
    assert_eq!(answered(&world.answer_ours("200 OK")), ["RequestAnswered 1 200"]);
    world.ask(Method::Info);
    assert!(world.header("Authorization")[0].contains("nc=00000002"), "the nonce is used on");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn what_cannot_be_written_and_what_is_too_much_is_answered_too() {
    let mut world = World::udp().connected();
    let evil = vec![("X-A".to_owned(), "a\r\nEvil: b".to_owned())];
    let request = DialogRequest { headers: evil, ..DialogRequest::new(Method::Info) };
    let asked = world.agent.request(world.now, SessionId(1), request, &mut world.out);
    assert!(asked.is_ok());
    assert_eq!(answered(&world.shown()), ["RequestAnswered 1 400"]);
    for _ in 0..32 {
        assert_eq!(world.ask(Method::Info), [format!("INFO {PEER}")]);
    }
    assert_eq!(answered(&world.ask(Method::Info)), ["RequestAnswered 1 503"]);
    world.answer_ours("200 OK");
    assert_eq!(world.ask(Method::Info), [format!("INFO {PEER}")], "there is room again");
    world.receive(&super::request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn the_notification_of_a_referral_says_how_it_goes() {
    let mut world = World::udp().connected();
    for (code, state) in [(180, "active;expires=60"), (486, "terminated;reason=noresource")] {
        let notify = DialogRequest::notify_referral(7, code);
        let asked = world.agent.request(world.now, SessionId(1), notify, &mut world.out);
        assert!(asked.is_ok());
        assert_eq!(world.shown(), [format!("NOTIFY {PEER}")]);
        assert_eq!(world.header("Event"), ["refer;id=7"]);
        assert_eq!(world.header("Subscription-State"), [state]);
        assert_eq!(world.header("Content-Type"), ["message/sipfrag;version=2.0"]);
        assert_eq!(world.header("Contact").len(), 1);
        assert!(world.sent.contains(&format!("\r\n\r\nSIP/2.0 {code} ")), "{}", world.sent);
        world.answer_ours("200 OK");
    }
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn the_peers_abilities_are_those_of_its_last_word() {
    let mut world = World::udp();
    let invite = request("INVITE", 1, "").replace("Max-", "Allow: INVITE, UPDATE\nMax-");
    world.receive(&invite);
    let peer = world.agent.peer_of(SessionId(1)).expect("a session");
    assert_eq!((peer.update, peer.refer, peer.replaces), (Some(true), Some(false), false));
    world.accept();
    world.receive(&request("ACK", 1, "TAG"));
    let again = request("INVITE", 2, "TAG")
        .replace("Max-", "Allow: INVITE, REFER\nSupported: replaces\nMax-");
    world.receive(&again);
    let peer = world.agent.peer_of(SessionId(1)).expect("a session");
    assert_eq!((peer.update, peer.refer, peer.replaces), (Some(false), Some(true), true));
    assert_eq!(world.agent.peer_of(SessionId(2)), None);
}
