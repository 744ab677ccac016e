//! Ladders of session timers: what is negotiated in both roles, refreshes of ours, a peer that is gone.

use super::client::{Caller, ONE};
use super::*;

const INVITE: &str = "INVITE sip:a@192.0.2.1:5062";
const UPDATE: &str = "UPDATE sip:a@192.0.2.1:5062";
const ACK: &str = "ACK sip:a@192.0.2.1:5062";

/// A request of the peer with these lines.
fn timed(method: &str, cseq: u32, to: &str, lines: &str) -> String {
    request(method, cseq, to).replace("Max-", &format!("{lines}Max-"))
}

impl World {
    /// An answered call whose INVITE had these lines.
    fn timed(lines: &str) -> World {
        let mut world = World::udp();
        world.receive(&timed("INVITE", 1, "", lines));
        world.accept();
        world
    }

    fn confirmed(mut self) -> World {
        self.receive(&request("ACK", 1, "TAG"));
        self
    }
}

#[test]
fn the_callers_timer_is_kept_and_the_peer_that_stays_silent_is_told() {
    let world = World::timed("Supported: timer\nSession-Expires: 600;refresher=uac\n");
    assert_eq!(world.header("Session-Expires"), ["600;refresher=uac"]);
    assert_eq!(world.header("Require"), ["timer"]);
    let mut world = world.confirmed();
    assert_eq!(world.pass(secs(567)), Vec::<String>::new());
    let refresh = timed("UPDATE", 2, "TAG", "k: timer\nx: 600;refresher=uac\n").replace(
        "Content-Type: application/sdp\nContent-Length: 3\n\nv=0",
        "Content-Length: 0\n\n",
    );
    let shown = world.receive(&refresh);
    assert_eq!(shown, ["Reoffered 1 2 UPDATE -"]);
    assert_eq!(world.agent.answer(world.now, RequestToken(2), None, &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["200 UPDATE"]);
    assert_eq!(world.header("Session-Expires"), ["600;refresher=uac"]);
    assert_eq!(world.pass(secs(567)), Vec::<String>::new(), "it was refreshed");
    assert_eq!(world.pass(secs(2)), ["1000 Expired 1"]);
    assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    world.end_clean();
}

#[test]
fn our_refresh_is_an_update_where_the_peer_takes_it() {
    let lines = "Allow: INVITE, UPDATE\nSupported: timer\nSession-Expires: 1800\n";
    let mut world = World::timed(lines).confirmed();
    assert_eq!(world.pass(secs(899)), Vec::<String>::new());
    assert_eq!(world.pass(secs(1)), [format!("1000 {UPDATE}")]);
    assert_eq!(world.header("Session-Expires"), ["1800;refresher=uac"]);
    assert_eq!(world.header("Content-Length"), ["0"]);
    let ok = world.answer_to_ours("200 OK", "Require: timer\nSession-Expires: 1800;refresher=uac");
    assert_eq!(world.receive(&ok), Vec::<String>::new());
    assert_eq!(world.pass(secs(900)), [format!("900000 {UPDATE}")], "and so on");
    let ok = world.answer_to_ours("200 OK", "Session-Expires: 1800;refresher=uas");
    world.receive(&ok);
    assert_eq!(world.pass(secs(1_768)), ["1768000 Expired 1"], "it was the peer's turn");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn else_it_is_a_re_invite_with_the_description_that_the_peer_knows() {
    let mut world = World::timed("Supported: timer\nSession-Expires: 200\n").confirmed();
    assert_eq!(world.pass(secs(100)), [format!("100000 {INVITE}")]);
    assert!(world.sent.ends_with("\r\n\r\nv=0"), "{}", world.sent);
    assert_eq!(world.header("Session-Expires"), ["200;refresher=uac"]);
    let extra = "Session-Expires: 200;refresher=uac\n\nv=answer";
    let ok = world.answer_to_ours("200 OK", extra);
    assert_eq!(world.receive(&ok), [ACK, "ReofferAnswered 1 v=answer"]);
    // A refusal is the answer of a peer that lives; the next refresh comes before the end.
    assert_eq!(world.pass(secs(100)), [format!("100000 {INVITE}")]);
    assert_eq!(world.answer_ours("488 Not Now"), [ACK]);
    assert_eq!(world.pass(secs(35)), [format!("34000 {INVITE}"), format!("34500 {INVITE}")]);
    let ok = world.answer_to_ours("200 OK", "Session-Expires: 200;refresher=uac");
    assert_eq!(world.receive(&ok), [ACK, "ReofferAnswered 1 -"]);
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn a_peer_whose_allow_was_not_true_gets_the_re_invite() {
    let lines = "Allow: UPDATE\nSupported: timer\nSession-Expires: 200\n";
    let mut world = World::timed(lines).confirmed();
    assert_eq!(world.pass(secs(100)), [format!("100000 {UPDATE}")]);
    assert_eq!(world.answer_ours("405 Not Allowed"), [INVITE]);
    world.answer_ours("200 OK");
    assert_eq!(world.pass(secs(400)), Vec::<String>::new(), "its 200 turned the timer off");
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn a_refresh_that_nobody_knows_or_answers_ends_the_call() {
    let lines = "Allow: UPDATE\nSupported: timer\nSession-Expires: 200\n";
    let mut world = World::timed(lines).confirmed();
    world.pass(secs(100));
    let gone = world.answer_ours("481 No Such Call");
    assert_eq!(gone, ["BYE sip:a@192.0.2.1:5062", "Ended 1 SIP;cause=481"]);
    world.answer_ours("481 No");
    world.end_clean();
    let mut world = World::timed(lines).confirmed();
    world.pass(secs(100));
    let shown = world.pass(secs(32));
    assert_eq!(shown[10..], ["32000 BYE sip:a@192.0.2.1:5062", "32000 Ended 1 SIP;cause=408"]);
    world.end_clean();
}

#[test]
fn too_short_an_interval_gets_422_in_every_request() {
    let short = "Supported: timer\nSession-Expires: 60\n";
    let mut world = World::udp();
    assert_eq!(world.receive(&timed("INVITE", 1, "", short)), ["422 INVITE"]);
    assert_eq!(world.header("Min-SE"), ["90"]);
    assert_eq!(world.agent.sessions(), 0);
    let mut world = World::udp().connected();
    assert_eq!(world.receive(&timed("UPDATE", 2, "TAG", short)), ["422 UPDATE"]);
    assert_eq!(world.header("Min-SE"), ["90"]);
    let reinvite = world.receive(&timed("INVITE", 3, "TAG", short));
    assert_eq!(reinvite, ["100 INVITE", "422 INVITE"]);
    world.receive(&request("ACK", 3, "TAG-branch"));
    world.receive(&request("BYE", 4, "TAG"));
    world.end_clean();
}

#[test]
fn our_own_wish_needs_a_peer_that_knows_timers() {
    let world = World::timed("Supported: timer\n");
    assert_eq!(world.header("Session-Expires"), ["1800;refresher=uas"]);
    let world = World::timed("");
    assert_eq!(world.header("Session-Expires"), Vec::<String>::new());
    assert_eq!(world.header("Supported"), ["100rel, replaces, timer"]);
}

#[test]
fn a_call_of_ours_asks_obeys_a_422_and_keeps_what_was_agreed() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    let asked = |caller: &Caller, name: &str| {
        caller.request("INVITE", 0).1.get_named(name).unwrap_or_default().to_owned()
    };
    assert_eq!(asked(&caller, "Session-Expires"), "1800");
    let again = caller.reply("422 Too Small", "x", "Min-SE: 3600");
    assert_eq!(again, [format!("ACK 1 → {ONE}"), format!("INVITE 2 → {ONE}")]);
    assert_eq!(asked(&caller, "Session-Expires"), "3600");
    assert_eq!(asked(&caller, "Min-SE"), "3600");
    let refused = caller.reply("422 Too Small", "x", "Min-SE: 90");
    assert_eq!(refused, [format!("ACK 2 → {ONE}"), "Refused 1 422".to_owned()], "nothing new");
    caller.end_clean();

    let mut caller = Caller::ringing_nowhere(Caller::invite());
    let timed = "Contact: <sip:bob@192.0.2.1:5060>\nAllow: UPDATE\nRequire: timer\n\
                 Session-Expires: 300;refresher=uac\n\nv=0 answer";
    caller.reply("200 OK", "them", timed);
    assert_eq!(caller.pass(secs(150)), [format!("150000 UPDATE 2 → {ONE}")]);
    caller.reply_to(("UPDATE", 0), "422 Too Small", "", "Min-SE: 400");
    assert_eq!(caller.shown(), [format!("UPDATE 3 → {ONE}")]);
    let (_, update) = caller.request("UPDATE", 0);
    assert_eq!(update.get_named("Session-Expires"), Some("400;refresher=uac"));
    assert_eq!(update.get_named("Min-SE"), Some("400"));
    caller.reply_to(("UPDATE", 0), "200 OK", "", "Session-Expires: 400;refresher=uac");
    assert_eq!(caller.pass(secs(200)), [format!("200000 UPDATE 4 → {ONE}")]);
    caller.reply_to(("UPDATE", 0), "200 OK", "", "");
    let world = &mut caller.world;
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Ok(()));
    caller.shown();
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}

#[test]
fn without_a_wish_only_the_peers_timer_counts() {
    let config = UaConfig { session_interval: Duration::ZERO, ..UaConfig::default() };
    let mut world = World::udp();
    world.agent = UserAgent::new(config, Entropy::from_number(7));
    world.receive(&timed("INVITE", 1, "", "Supported: timer\n"));
    world.accept();
    assert_eq!(world.header("Session-Expires"), Vec::<String>::new());
    world.receive(&request("ACK", 1, "TAG"));
    let reinvite = timed("INVITE", 2, "TAG", "Supported: timer\nSession-Expires: 100\n");
    world.receive(&reinvite);
    assert_eq!(world.agent.answer(world.now, RequestToken(2), None, &mut world.out), Ok(()));
    assert_eq!(world.header_of_next("Session-Expires"), ["100;refresher=uas"]);
    world.receive(&request("ACK", 2, "TAG"));
    assert_eq!(world.pass(secs(50)), [format!("50000 {INVITE}")]);
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

impl World {
    /// A header of what was sent since the last look.
    fn header_of_next(&mut self, name: &str) -> Vec<String> {
        self.shown();
        self.header(name)
    }
}
