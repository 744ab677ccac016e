//! Ladders of requests of ours: finding the way, fail-over, challenges, forks, CANCEL. Each test
//! plays the shell (located, connected) and the peers.

use super::*;
use crate::ground::Secret;
use crate::sip::digest::{Credentials, DigestClient, DigestFault};
use crate::sip::msg::Method;
use crate::sip::target::TargetFault;

/// What was sent, in order, and to whom.
pub(super) struct Caller {
    pub(super) world: World,
    sent: Vec<(Flow, String)>,
}

pub(super) const ONE: &str = "192.0.2.1:5060";
const TWO: &str = "192.0.2.2:5060";
const THREE: &str = "192.0.2.3:5060";

impl Caller {
    fn new() -> Caller {
        Caller { world: World::udp(), sent: Vec::new() }
    }

    pub(super) fn invite() -> OutgoingRequest {
        let uri = "sip:bob@pbx.example.com";
        let mut invite =
            OutgoingRequest::new(Method::Invite, uri, "<sip:us@edge>", "<sip:bob@pbx>");
        invite.body = Some(("application/sdp".into(), "v=0".into()));
        invite
    }

    pub(super) fn with_credentials() -> OutgoingRequest {
        let credentials =
            Credentials { username: "us".into(), password: Secret::new("a password") };
        OutgoingRequest { credentials: Some(DigestClient::new(credentials)), ..Caller::invite() }
    }

    /// Dials, and finds these hops.
    fn dialled(request: OutgoingRequest, hops: &[&str]) -> Caller {
        let mut caller = Caller::new();
        caller.dial(request);
        assert_eq!(caller.shown(), ["Locate pbx.example.com"]);
        caller.locate(hops);
        caller
    }

    /// Dials one hop; the INVITE is out.
    pub(super) fn ringing_nowhere(request: OutgoingRequest) -> Caller {
        let mut caller = Caller::dialled(request, &[ONE]);
        assert_eq!(caller.shown(), ["Connect udp 192.0.2.1:5060"]);
        caller.connect();
        assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060"]);
        caller
    }

    fn dial(&mut self, request: OutgoingRequest) -> SessionId {
        self.world.agent.dial(self.world.now, request, &mut self.world.out)
    }

    fn locate(&mut self, hops: &[&str]) {
        let hops = hops.iter().map(|hop| self.world.hop(hop, Transport::Udp)).collect();
        self.play(|world| {
            let ticket = world.tickets.pop().expect("something was asked");
            world.agent.handle_located(world.now, ticket, Ok(hops), &mut world.out);
        });
    }

    /// The hop that was asked for last can be sent to.
    fn connect(&mut self) {
        self.play(|world| {
            let (ticket, hop) = world.asked.clone().expect("something was asked");
            let flow = match hop.transport {
                Transport::Udp => flow(&hop.address.to_string()),
                transport => Flow {
                    id: FlowId(100 + u64::from(hop.address.port())),
                    transport,
                    ..stream(&hop.address.to_string())
                },
            };
            world.agent.handle_connected(world.now, ticket, Ok(flow), &mut world.out);
        });
    }

    fn fail_to_connect(&mut self) {
        self.play(|world| {
            let (ticket, _) = world.asked.clone().expect("something was asked");
            let fault = Err(ConnectFault::Unreachable);
            world.agent.handle_connected(world.now, ticket, fault, &mut world.out);
        });
    }

    fn play(&mut self, act: impl FnOnce(&mut World)) {
        act(&mut self.world);
    }

    /// What came out since the last look: requests with their CSeq number and where they go.
    pub(super) fn shown(&mut self) -> Vec<String> {
        let outputs = std::mem::take(&mut self.world.out);
        outputs.into_iter().map(|output| self.line(output)).collect()
    }

    fn line(&mut self, output: UaOutput) -> String {
        match output {
            UaOutput::Event(event) => shown_event(&event),
            UaOutput::Locate { ticket, target, .. } => {
                self.world.tickets.push(ticket);
                shown_target(&target)
            }
            UaOutput::Connect { ticket, hop } => {
                let line = format!("Connect {} {}", hop.transport.uri_param(), hop.address);
                self.world.asked = Some((ticket, hop));
                line
            }
            UaOutput::Send { flow, to, bytes } => {
                let text = String::from_utf8(bytes.to_vec()).expect("text");
                let to = match to {
                    Destination::Peer => flow.peer,
                    Destination::Address(address) => address,
                };
                let tcp = if flow.transport.is_reliable() { " tcp" } else { "" };
                let line = match parse(&text.replace("\r\n", "\n")) {
                    Message::Request(request) => {
                        let cseq = request.cseq();
                        format!("{} {} → {to}{tcp}", request.method(), cseq.number)
                    }
                    Message::Response(response) => format!("{} → {to}", response.code()),
                };
                self.sent.push((flow, text));
                line
            }
        }
    }

    /// Lets time pass; each line with the milliseconds.
    pub(super) fn pass(&mut self, by: Duration) -> Vec<String> {
        let (start, end) = (self.world.now, self.world.now.later(by));
        let mut lines = Vec::new();
        while let Some(at) = self.world.agent.poll_timeout().filter(|at| *at <= end.at) {
            self.world.now = start.later(at.since(start.at));
            self.world.agent.handle_timeout(self.world.now, &mut self.world.out);
            let millis = at.since(start.at).as_millis();
            lines.extend(self.shown().into_iter().map(|line| format!("{millis} {line}")));
        }
        self.world.now = end;
        lines
    }

    /// The n-th last request that begins so.
    pub(super) fn request(&self, method: &str, back: usize) -> (Flow, Request) {
        let fits = self.sent.iter().rev().filter(|(_, text)| text.starts_with(method));
        let (flow, text) = fits.clone().nth(back).expect("it was sent");
        match parse(&text.replace("\r\n", "\n")) {
            Message::Request(request) => (*flow, request),
            Message::Response(_) => panic!("a response"),
        }
    }

    /// A peer answers the n-th last request of this method.
    pub(super) fn reply_to(
        &mut self,
        (method, back): (&str, usize),
        status: &str,
        tag: &str,
        extra: &str,
    ) {
        let (flow, request) = self.request(method, back);
        let to = request.to();
        let tag = match (to.tag(), tag) {
            (None, tag) if !tag.is_empty() => format!(";tag={tag}"),
            _ => String::new(),
        };
        let (head, body) = extra.split_once("\n\n").unwrap_or((extra, ""));
        let head = if head.is_empty() { String::new() } else { format!("{}\n", head.trim_end()) };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
        let text = format!(
            "SIP/2.0 {status}\nVia: {}\nFrom: {}\nTo: {}{tag}\nCall-ID: {}\nCSeq: {} {}\n\
             {head}{kind}Content-Length: {}\n\n{body}",
            request.via().as_str(),
            request.from().as_str(),
            to.as_str(),
            request.call_id(),
            request.cseq().number,
            request.method(),
            body.len()
        );
        self.play(|world| {
            world.agent.handle_message(world.now, flow, parse(&text), &mut world.out);
        });
    }

    /// A peer answers the last INVITE; what came of it.
    pub(super) fn reply(&mut self, status: &str, tag: &str, extra: &str) -> Vec<String> {
        self.reply_to(("INVITE", 0), status, tag, extra);
        self.shown()
    }

    fn cancel(&mut self) -> Vec<String> {
        let world = &mut self.world;
        let reason = Some("SIP;cause=487;text=\"No answer\"");
        let done = world.agent.cancel(world.now, SessionId(1), reason, &mut world.out);
        assert_eq!(done, Ok(()));
        self.shown()
    }

    /// After all timers nothing may be left.
    pub(super) fn end_clean(mut self) {
        self.pass(Duration::from_secs(140));
        self.world.end_clean();
    }
}

const CONTACT: &str = "Contact: <sip:bob@192.0.2.1:5060>";
pub(super) const ANSWER: &str = "Contact: <sip:bob@192.0.2.1:5060>\n\nv=0 answer";

#[test]
fn a_call_from_dialling_to_our_bye() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    assert_eq!(caller.reply("100 Trying", "", ""), Vec::<String>::new());
    assert_eq!(caller.reply("180 Ringing", "them", CONTACT), ["Progress 1 180 -"]);
    let early = caller.reply("183 Session Progress", "them", "X: y\n\nv=0 early");
    assert_eq!(early, ["Progress 1 183 v=0 early"]);
    let answered = ["ACK 1 → 192.0.2.1:5060", "Answered 1 v=0 answer"];
    assert_eq!(caller.reply("200 OK", "them", ANSWER), answered);
    assert_eq!(caller.reply("200 OK", "them", ANSWER), ["ACK 1 → 192.0.2.1:5060"], "each copy");
    let (_, invite) = caller.request("INVITE", 0);
    let (_, ack) = caller.request("ACK", 0);
    assert_eq!((ack.call_id(), ack.from().tag()), (invite.call_id(), invite.from().tag()));
    assert_eq!(ack.to().tag(), Some("them"));
    assert_ne!(ack.via().branch(), invite.via().branch(), "a transaction of its own");
    assert_eq!(ack.uri().as_str(), "sip:bob@192.0.2.1:5060");
    let world = &mut caller.world;
    assert_eq!(world.agent.cancel(world.now, SessionId(1), None, &mut world.out), Err(Gone));
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Ok(()));
    assert_eq!(caller.shown(), ["BYE 2 → 192.0.2.1:5060"]);
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    assert_eq!(caller.shown(), ["Closed 1 Answered(200)"]);
    caller.end_clean();
}

#[test]
fn the_invite_says_what_it_must() {
    let caller = Caller::ringing_nowhere(Caller::invite());
    let (_, invite) = caller.request("INVITE", 0);
    let contact = invite.contact().expect("one").as_str().to_owned();
    assert_eq!(contact, "<sip:192.0.2.10:5060;transport=udp>");
    assert_eq!(invite.from().tag().map(str::len), Some(32), "128 random bits");
    assert_eq!((invite.to().tag(), invite.max_forwards()), (None, Some(70)));
    assert_eq!(
        (invite.body(), invite.content_type().as_deref()),
        (&b"v=0"[..], Some("application/sdp"))
    );
    for name in ["Allow", "Supported", "User-Agent"] {
        assert!(invite.get_named(name).is_some(), "{name}");
    }
}

#[test]
fn the_callees_requests_and_its_bye_are_those_of_any_session() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    caller.reply("200 OK", "them", ANSWER);
    let (flow, invite) = caller.request("INVITE", 0);
    let from_them = |method: &str, cseq: u32| {
        format!(
            "{method} sip:us@edge SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{method}{cseq}\n\
             From: <sip:bob@pbx>;tag=them\nTo: {}\nCall-ID: {}\nCSeq: {cseq} {method}\n\
             Contact: <sip:bob@192.0.2.1>\nContent-Length: 0\n\n",
            invite.from().as_str(),
            invite.call_id()
        )
    };
    caller.world.flow = flow;
    let reinvite = caller.world.receive(&from_them("INVITE", 1));
    assert_eq!(reinvite, ["100 INVITE", "Reoffered 1 2 INVITE -"], "its numbers are its own");
    let bye = caller.world.receive(&from_them("BYE", 2));
    assert_eq!(bye, ["200 BYE", "487 INVITE", "Ended 1 -"]);
    caller.end_clean();
}

#[test]
fn early_requests_of_the_callee_do_not_end_the_call() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    caller.reply("180 Ringing", "them", CONTACT);
    let (flow, invite) = caller.request("INVITE", 0);
    caller.world.flow = flow;
    for (method, body, expected) in [
        ("UPDATE", "", "200 UPDATE"),
        ("UPDATE", "v=0", "491 UPDATE"),
        ("INFO", "", "200 INFO"),
        ("BYE", "", "481 BYE"),
    ] {
        let text = format!(
            "{method} sip:us@edge SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{method}\n\
             From: <sip:bob@pbx>;tag=them\nTo: {}\nCall-ID: {}\nCSeq: 1 {method}\n\
             Content-Length: {}\n\n{body}",
            invite.from().as_str(),
            invite.call_id(),
            body.len()
        );
        assert_eq!(caller.world.receive(&text), [expected]);
        let stranger = text.replace(invite.call_id(), "another");
        assert_eq!(caller.world.receive(&stranger), [format!("481 {method}")]);
    }
    assert_eq!(
        caller.reply("486 Busy Here", "them", ""),
        ["ACK 1 → 192.0.2.1:5060", "Refused 1 486"]
    );
    caller.end_clean();
}

#[test]
fn refusals_are_acknowledged_and_passed_up_whole() {
    let cases = [
        ("486 Busy Here", "", "Refused 1 486"),
        ("603 Decline", "", "Refused 1 603"),
        ("503 Service Unavailable", "Retry-After: 7 (soon);duration=3", "Refused 1 503 7s"),
        (
            "302 Moved",
            "Contact: <sip:a@one>;q=0.7, <sip:b@two>",
            "Refused 1 302 <sip:a@one>;q=0.7 <sip:b@two>",
        ),
        ("401 Unauthorized", "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"", "Refused 1 401"),
    ];
    for (status, extra, expected) in cases {
        let mut caller = Caller::ringing_nowhere(Caller::invite());
        let shown = caller.reply(status, "them", extra);
        assert_eq!(shown, ["ACK 1 → 192.0.2.1:5060", expected]);
        let (_, invite) = caller.request("INVITE", 0);
        let (_, ack) = caller.request("ACK", 0);
        assert_eq!(ack.via().branch(), invite.via().branch(), "the same transaction");
        assert_eq!((ack.uri().as_str(), ack.to().tag()), ("sip:bob@pbx.example.com", Some("them")));
        assert_eq!(caller.reply(status, "them", extra), ["ACK 1 → 192.0.2.1:5060"], "each copy");
        caller.end_clean();
    }
}

#[test]
fn silence_of_1200_ms_asks_the_next_hop_and_the_last_one_has_timer_b() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.1:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060"]);
    let first = caller.pass(millis(1_200));
    assert_eq!(first, ["500 INVITE 1 → 192.0.2.1:5060", "1200 Connect udp 192.0.2.2:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.2:5060"]);
    let (_, again) = caller.request("INVITE", 0);
    let (_, before) = caller.request("INVITE", 1);
    assert_eq!((again.call_id(), again.from().tag()), (before.call_id(), before.from().tag()));
    assert_ne!(again.via().branch(), before.via().branch());
    let lines = caller.pass(secs(32));
    assert_eq!(lines.len(), 7, "six more to the second hop, none to the first: {lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("32000 DialFailed 1 TimedOut"));
    caller.end_clean();
}

#[test]
fn three_hops_two_dead_the_call_is_up_in_time() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO, THREE]);
    caller.shown();
    caller.connect();
    caller.pass(millis(1_200));
    caller.connect();
    caller.pass(millis(1_200));
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.3:5060"]);
    assert!(caller.world.now.at.as_nanos() < 4_000_000_000);
    caller.reply("200 OK", "them", ANSWER);
    caller.shown();
    let mut again = OutgoingRequest { call_id: Some("again".into()), ..Caller::invite() };
    again.from_tag = Some("again".into());
    caller.dial(again);
    assert_eq!(caller.shown(), ["Locate pbx.example.com"]);
    caller.locate(&[ONE, TWO, THREE]);
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.3:5060"], "the dead are passed over");
    caller.connect();
    caller.reply("486 Busy Here", "x", "");
    caller.pass(secs(31));
    caller.dial(Caller::invite());
    caller.shown();
    caller.locate(&[ONE, TWO, THREE]);
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.1:5060"], "and forgiven after 30 s");
    caller.fail_to_connect();
    caller.shown();
    caller.fail_to_connect();
    caller.shown();
    caller.fail_to_connect();
    assert_eq!(caller.shown(), ["DialFailed 3 NotConnected(Unreachable)"]);
    let bye = caller.world.agent.bye(caller.world.now, SessionId(1), None, &mut caller.world.out);
    assert_eq!(bye, Ok(()));
    caller.shown();
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}

#[test]
fn a_late_200_of_an_abandoned_try_gets_ack_and_bye() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    caller.shown();
    caller.connect();
    caller.pass(millis(1_200));
    caller.connect();
    caller.shown();
    caller.reply_to(("INVITE", 0), "180 Ringing", "second", CONTACT);
    caller.reply_to(("INVITE", 2), "200 OK", "first", ANSWER);
    let shown = caller.shown();
    let bye = ["Progress 1 180 -", "ACK 1 → 192.0.2.1:5060", "BYE 2 → 192.0.2.1:5060"];
    assert_eq!(shown, bye);
    assert_eq!(caller.request("BYE", 0).1.to().tag(), Some("first"));
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    let other = "Contact: <sip:bob@192.0.2.2:5060>\n\nv=0 two";
    caller.reply_to(("INVITE", 0), "200 OK", "second", other);
    assert_eq!(caller.shown(), ["ACK 1 → 192.0.2.2:5060", "Answered 1 v=0 two"]);
    let dialog = caller.world.agent.dialog(SessionId(1)).expect("it stands");
    assert_eq!(dialog.remote_tag(), Some("second"));
    caller
        .world
        .agent
        .bye(caller.world.now, SessionId(1), None, &mut caller.world.out)
        .expect("up");
    caller.end_clean();
}

#[test]
fn an_abandoned_try_that_rings_after_all_is_cancelled() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    caller.shown();
    caller.connect();
    caller.pass(millis(1_200));
    caller.connect();
    caller.shown();
    caller.reply_to(("INVITE", 2), "180 Ringing", "first", CONTACT);
    assert_eq!(caller.shown(), ["CANCEL 1 → 192.0.2.1:5060"]);
    caller.reply_to(("CANCEL", 0), "200 OK", "", "");
    caller.reply_to(("INVITE", 2), "487 Request Terminated", "first", "");
    assert_eq!(caller.shown(), ["ACK 1 → 192.0.2.1:5060"]);
    let shown = caller.reply("486 Busy Here", "second", "");
    assert_eq!(shown, ["ACK 1 → 192.0.2.2:5060", "Refused 1 486"]);
    caller.end_clean();
}

#[test]
fn a_silent_hop_is_taken_up_again_when_no_other_can_be_reached() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    caller.shown();
    caller.connect();
    caller.pass(millis(1_200));
    caller.fail_to_connect();
    assert_eq!(caller.shown(), Vec::<String>::new());
    assert_eq!(caller.pass(millis(1)), ["0 INVITE 1 → 192.0.2.1:5060"]);
    caller.reply_to(("INVITE", 0), "200 OK", "them", ANSWER);
    assert_eq!(caller.shown(), ["ACK 1 → 192.0.2.1:5060", "Answered 1 v=0 answer"]);
    caller
        .world
        .agent
        .bye(caller.world.now, SessionId(1), None, &mut caller.world.out)
        .expect("up");
    caller.end_clean();
}

#[test]
fn a_flow_that_stood_before_is_waited_for_like_a_single_way() {
    let mut caller = Caller::new();
    let flow = Some(flow("192.0.2.9:5060"));
    caller.dial(OutgoingRequest { flow, ..Caller::invite() });
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.9:5060"]);
    let again = ["500 INVITE 1 → 192.0.2.9:5060", "1500 INVITE 1 → 192.0.2.9:5060"];
    assert_eq!(caller.pass(secs(3)), again, "its copies, and nobody is looked for");
    assert_eq!(caller.reply("180 Ringing", "x", CONTACT), ["Progress 1 180 -"]);
    let shown = caller.reply("486 Busy Here", "x", "");
    assert_eq!(shown, ["ACK 1 → 192.0.2.9:5060", "Refused 1 486"]);
    caller.end_clean();
    // A peer that is gone is looked for once it can answer no more.
    let mut caller = Caller::new();
    caller.dial(OutgoingRequest { flow, ..Caller::invite() });
    caller.shown();
    let lines = caller.pass(secs(32));
    assert_eq!(lines.last().map(String::as_str), Some("32000 Locate pbx.example.com"));
}

#[test]
fn a_503_asks_the_next_hop_and_is_the_answer_when_none_is_better() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    caller.shown();
    caller.connect();
    caller.shown();
    let shown = caller.reply("503 Service Unavailable", "x", "Retry-After: 9");
    assert_eq!(shown, ["ACK 1 → 192.0.2.1:5060", "Connect udp 192.0.2.2:5060"]);
    caller.fail_to_connect();
    assert_eq!(caller.shown(), ["Refused 1 503 9s"]);
    caller.end_clean();
}

#[test]
fn what_rang_once_is_not_rung_elsewhere() {
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    caller.shown();
    caller.connect();
    caller.shown();
    caller.reply("180 Ringing", "x", CONTACT);
    assert_eq!(caller.pass(secs(40)), Vec::<String>::new(), "no time-out but the caller's own");
    assert_eq!(caller.reply("408 Late", "x", ""), ["ACK 1 → 192.0.2.1:5060", "Refused 1 408"]);
    caller.end_clean();
}

#[test]
fn a_target_that_is_none_fails_at_once() {
    for (uri, fault) in [
        ("tel:+15550001", "BadTarget(NotSip)"),
        ("sip:a@h;transport=sctp", "BadTarget(Transport)"),
        ("sips:a@h;transport=udp", "BadTarget(SecureOverUdp)"),
    ] {
        let mut caller = Caller::new();
        caller.dial(OutgoingRequest { request_uri: uri.into(), ..Caller::invite() });
        assert_eq!(caller.shown(), [format!("DialFailed 1 {fault}")], "{uri}");
        caller.end_clean();
    }
    assert_eq!(Caller::invite().target().map(|target| target.secure), Ok(false));
    let routed = OutgoingRequest { routes: vec!["<sips:p;lr>".into()], ..Caller::invite() };
    assert_eq!(routed.target().map(|target| target.secure), Ok(true));
    let broken = OutgoingRequest { routes: vec!["<".into()], ..Caller::invite() };
    assert_eq!(broken.target(), Err(TargetFault::NotSip));
}

#[test]
fn a_shell_that_stays_silent_is_not_waited_for() {
    let mut caller = Caller::new();
    caller.dial(Caller::invite());
    caller.shown();
    assert_eq!(caller.pass(secs(10)), ["10000 DialFailed 1 NotLocated(Unanswered)"]);
    let mut caller = Caller::dialled(Caller::invite(), &[ONE, TWO]);
    caller.shown();
    let lines = caller.pass(secs(12));
    let last = "12000 DialFailed 1 NotConnected(Unreachable)";
    assert_eq!(lines, ["2000 Connect udp 192.0.2.2:5060", last]);
    caller.connect();
    assert_eq!(caller.shown(), Vec::<String>::new(), "too late");
    caller.end_clean();
}

#[test]
fn line_breaks_never_reach_the_wire() {
    let evil = vec![("X-A".to_owned(), "a\r\nEvil: b".to_owned())];
    let mut caller = Caller::dialled(OutgoingRequest { headers: evil, ..Caller::invite() }, &[ONE]);
    caller.shown();
    caller.connect();
    assert_eq!(caller.shown(), ["DialFailed 1 Unwritable"]);
    caller.end_clean();
}

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"";

#[test]
fn a_challenge_is_answered_on_the_hop_that_made_it() {
    let mut caller = Caller::ringing_nowhere(Caller::with_credentials());
    assert!(caller.request("INVITE", 0).1.get_named("Authorization").is_none());
    let shown = caller.reply("401 Unauthorized", "x", CHALLENGE);
    assert_eq!(shown, ["ACK 1 → 192.0.2.1:5060", "INVITE 2 → 192.0.2.1:5060"]);
    let (_, again) = caller.request("INVITE", 0);
    let (_, before) = caller.request("INVITE", 1);
    assert_eq!((again.call_id(), again.from().tag()), (before.call_id(), before.from().tag()));
    assert_eq!(again.to().tag(), None);
    let authorization = again.get_named("Authorization").expect("an answer").to_owned();
    assert!(authorization.contains("uri=\"sip:bob@pbx.example.com\""), "{authorization}");
    assert!(!authorization.contains("a password"));
    let answered = ["ACK 2 → 192.0.2.1:5060", "Answered 1 v=0 answer"];
    assert_eq!(caller.reply("200 OK", "them", ANSWER), answered);
    let (_, ack) = caller.request("ACK", 0);
    assert_eq!(ack.get_named("Authorization"), Some(authorization.as_str()), "§22.1");
    caller
        .world
        .agent
        .bye(caller.world.now, SessionId(1), None, &mut caller.world.out)
        .expect("up");
    assert_eq!(caller.shown(), ["BYE 3 → 192.0.2.1:5060"]);
    let (_, bye) = caller.request("BYE", 0);
    let authorization = bye.get_named("Authorization").expect("the same space").to_owned();
    assert!(authorization.contains("nc=00000002"), "{authorization}");
    caller.reply_to(("BYE", 0), "407 Proxy", "", &CHALLENGE.replace("WWW-", "Proxy-"));
    assert_eq!(caller.shown(), ["BYE 4 → 192.0.2.1:5060"]);
    assert!(caller.request("BYE", 0).1.get_named("Proxy-Authorization").is_some());
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    assert_eq!(caller.shown(), ["Closed 1 Answered(200)"]);
    caller.end_clean();
}

#[test]
fn a_wrong_password_and_another_realm_end_the_call() {
    let other = CHALLENGE.replace("realm=\"pbx\"", "realm=\"stranger\"");
    for (second, fault) in
        [(CHALLENGE.to_owned(), DigestFault::Refused), (other, DigestFault::OtherRealm)]
    {
        let mut caller = Caller::ringing_nowhere(Caller::with_credentials());
        caller.reply("401 Unauthorized", "x", CHALLENGE);
        let shown = caller.reply("401 Unauthorized", "y", &second);
        let failed = format!("DialFailed 1 Digest({fault:?})");
        assert_eq!(shown, ["ACK 2 → 192.0.2.1:5060", failed.as_str()]);
        caller.end_clean();
    }
}

#[test]
fn the_first_2xx_wins_and_other_forks_are_ended() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    assert_eq!(caller.reply("180 Ringing", "a", CONTACT), ["Progress 1 180 -"]);
    assert_eq!(caller.reply("183 Progress", "b", "X: y\n\nv=0 b"), ["Progress 1 183 v=0 b"]);
    assert_eq!(
        caller.reply("200 OK", "a", ANSWER).last().map(String::as_str),
        Some("Answered 1 v=0 answer")
    );
    let shown = caller.reply("200 OK", "b", ANSWER);
    assert_eq!(shown, ["ACK 1 → 192.0.2.1:5060", "BYE 2 → 192.0.2.1:5060"]);
    assert_eq!(caller.request("BYE", 0).1.to().tag(), Some("b"));
    assert_eq!(caller.reply("200 OK", "b", ANSWER), ["ACK 1 → 192.0.2.1:5060"], "its copy");
    assert_eq!(caller.request("ACK", 0).1.to().tag(), Some("b"));
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    assert_eq!(caller.world.agent.sessions(), 1);
    caller
        .world
        .agent
        .bye(caller.world.now, SessionId(1), None, &mut caller.world.out)
        .expect("up");
    assert_eq!(caller.request("BYE", 0).1.to().tag(), Some("b"));
    caller.shown();
    assert_eq!(caller.request("BYE", 0).1.to().tag(), Some("a"));
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}

#[test]
fn a_cancel_waits_for_a_provisional() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    assert_eq!(caller.cancel(), Vec::<String>::new());
    assert_eq!(caller.pass(millis(500)), ["500 INVITE 1 → 192.0.2.1:5060"]);
    assert_eq!(caller.reply("180 Ringing", "x", CONTACT), ["CANCEL 1 → 192.0.2.1:5060"]);
    let (_, invite) = caller.request("INVITE", 0);
    let (_, cancel) = caller.request("CANCEL", 0);
    assert_eq!(cancel.via().as_str(), invite.via().as_str());
    assert_eq!((cancel.uri().as_str(), cancel.to().tag()), (invite.uri().as_str(), None));
    assert_eq!(cancel.get_named("Reason"), Some("SIP;cause=487;text=\"No answer\""));
    assert_eq!(caller.reply("183 Progress", "x", CONTACT), Vec::<String>::new(), "sent once");
    caller.reply_to(("CANCEL", 0), "200 OK", "x", "");
    assert_eq!(caller.shown(), Vec::<String>::new());
    let ended = ["ACK 1 → 192.0.2.1:5060", "Closed 1 Answered(487)"];
    assert_eq!(caller.reply("487 Request Terminated", "x", ""), ended);
    caller.end_clean();
}

#[test]
fn cancel_before_anything_was_sent_ends_it_at_once() {
    let mut caller = Caller::new();
    caller.dial(Caller::invite());
    caller.shown();
    assert_eq!(caller.cancel(), ["Closed 1 Unsent"]);
    caller.locate(&[ONE]);
    assert_eq!(caller.shown(), Vec::<String>::new());
    let world = &mut caller.world;
    assert_eq!(world.agent.cancel(world.now, SessionId(1), None, &mut world.out), Err(Gone));
    caller.end_clean();
    let mut caller = Caller::dialled(Caller::invite(), &[ONE]);
    caller.shown();
    assert_eq!(caller.cancel(), ["Closed 1 Unsent"]);
    caller.connect();
    assert_eq!(caller.shown(), Vec::<String>::new());
    caller.end_clean();
}

#[test]
fn a_200_that_crosses_our_cancel_is_acknowledged_and_ended() {
    for provisional in [true, false] {
        let mut caller = Caller::ringing_nowhere(Caller::invite());
        if provisional {
            caller.reply("180 Ringing", "x", CONTACT);
        }
        caller.cancel();
        let shown = caller.reply("200 OK", "x", ANSWER);
        let ended = ["ACK 1 → 192.0.2.1:5060", "BYE 2 → 192.0.2.1:5060", "Closed 1 Answered(200)"];
        assert_eq!(shown, ended);
        caller.reply_to(("BYE", 0), "200 OK", "", "");
        assert_eq!(caller.reply("200 OK", "x", ANSWER), ["ACK 1 → 192.0.2.1:5060"]);
        caller.end_clean();
    }
}

#[test]
fn a_cancelled_call_that_never_ends_is_given_up_after_32_s() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    caller.reply("180 Ringing", "x", CONTACT);
    caller.cancel();
    caller.reply_to(("CANCEL", 0), "200 OK", "x", "");
    assert_eq!(caller.pass(secs(32)), ["32000 Closed 1 TimedOut"]);
    caller.end_clean();
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    caller.cancel();
    let lines = caller.pass(secs(32));
    assert_eq!(lines.last().map(String::as_str), Some("32000 Closed 1 TimedOut"));
    caller.end_clean();
}

#[test]
fn a_challenge_after_cancel_is_not_answered() {
    let mut caller = Caller::ringing_nowhere(Caller::with_credentials());
    caller.reply("100 Trying", "", "");
    caller.cancel();
    let shown = caller.reply("401 Unauthorized", "x", CHALLENGE);
    assert_eq!(shown, ["ACK 1 → 192.0.2.1:5060", "Closed 1 Answered(401)"]);
    caller.end_clean();
}

#[test]
fn a_large_invite_goes_over_tcp_and_back_to_udp_when_that_fails() {
    let large = || {
        let body = Some(("application/sdp".into(), vec![b'v'; 1_200].into()));
        OutgoingRequest { body, ..Caller::invite() }
    };
    let mut caller = Caller::dialled(large(), &[ONE]);
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.1:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["Connect tcp 192.0.2.1:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060 tcp"]);
    let (_, invite) = caller.request("INVITE", 0);
    assert_eq!(invite.via().transport(), "TCP");
    assert_eq!(
        invite.contact().expect("one").uri().param("transport").flatten().as_deref(),
        Some("tcp")
    );
    caller.reply("486 Busy Here", "x", "");
    caller.end_clean();

    let mut caller = Caller::dialled(large(), &[ONE]);
    caller.shown();
    caller.connect();
    caller.shown();
    caller.fail_to_connect();
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.1:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060"]);
    caller.reply("486 Busy Here", "x", "");
    caller.end_clean();

    let uri = "sip:bob@pbx.example.com;transport=udp";
    let mut caller = Caller::new();
    caller.dial(OutgoingRequest { request_uri: uri.into(), ..large() });
    assert_eq!(caller.shown(), ["Locate pbx.example.com udp"]);
    caller.locate(&[ONE]);
    caller.shown();
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060"], "the URI says UDP");
    caller.reply("486 Busy Here", "x", "");
    caller.end_clean();
}

#[test]
fn exactly_1300_bytes_stay_on_udp() {
    let probe = Caller::ringing_nowhere(Caller::invite());
    // A body of three bytes has a length of one digit, the others have three.
    let own = probe.sent[0].1.len() - "v=0".len() + 2;
    for (length, expected) in [
        (1_300 - own, "INVITE 1 → 192.0.2.1:5060"),
        (1_300 - own + 1, "Connect tcp 192.0.2.1:5060"),
    ] {
        let body = Some(("application/sdp".into(), vec![b'v'; length].into()));
        let mut caller = Caller::dialled(OutgoingRequest { body, ..Caller::invite() }, &[ONE]);
        caller.shown();
        caller.connect();
        assert_eq!(caller.shown(), [expected], "{length}");
    }
}

#[test]
fn a_connection_that_closes_before_any_answer_is_a_reason_to_go_on() {
    let mut caller = Caller::new();
    caller.dial(Caller::invite());
    caller.shown();
    let hops = [ONE, TWO].map(|hop| caller.world.hop(hop, Transport::Tcp)).to_vec();
    let ticket = caller.world.tickets.pop().expect("one");
    caller.world.agent.handle_located(caller.world.now, ticket, Ok(hops), &mut caller.world.out);
    caller.shown();
    caller.connect();
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060 tcp"]);
    let (flow, _) = caller.request("INVITE", 0);
    caller.world.agent.handle_flow_closed(caller.world.now, flow.id, &mut caller.world.out);
    assert_eq!(caller.shown(), ["Connect tcp 192.0.2.2:5060"]);
    caller.connect();
    caller.shown();
    caller.reply("180 Ringing", "x", CONTACT);
    let (flow, _) = caller.request("INVITE", 0);
    caller.world.agent.handle_flow_closed(caller.world.now, flow.id, &mut caller.world.out);
    assert_eq!(caller.shown(), ["DialFailed 1 FlowLost"], "it rang");
    caller.end_clean();
}

#[test]
fn an_ack_to_a_name_is_located_once_and_repeated_for_copies() {
    let mut caller = Caller::ringing_nowhere(Caller::invite());
    let named =
        "Contact: <sip:bob@sbc.example.com>\nRecord-Route: <sip:edge.example.com;lr>\n\nv=0";
    let shown = caller.reply("200 OK", "them", named);
    assert_eq!(shown, ["Locate edge.example.com udp", "Answered 1 v=0"]);
    assert_eq!(caller.reply("200 OK", "them", named), Vec::<String>::new(), "still sought");
    caller.locate(&[TWO]);
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.2:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["ACK 1 → 192.0.2.2:5060"]);
    assert_eq!(caller.request("ACK", 0).1.routes(), ["<sip:edge.example.com;lr>"]);
    assert_eq!(caller.reply("200 OK", "them", named), ["ACK 1 → 192.0.2.2:5060"]);
    caller
        .world
        .agent
        .bye(caller.world.now, SessionId(1), None, &mut caller.world.out)
        .expect("up");
    assert_eq!(caller.shown(), ["Locate edge.example.com udp"]);
    caller.end_clean();
}

#[test]
fn a_request_alone_is_answered_with_its_hop_and_its_credentials() {
    let mut caller = Caller::new();
    let register = OutgoingRequest {
        method: Method::Register,
        body: None,
        cseq: Some(41),
        call_id: Some("kept".into()),
        from_tag: Some("tag".into()),
        ..Caller::with_credentials()
    };
    let id = caller.world.agent.send(caller.world.now, register.clone(), &mut caller.world.out);
    caller.shown();
    caller.locate(&[ONE, TWO]);
    caller.shown();
    caller.connect();
    assert_eq!(caller.shown(), ["REGISTER 41 → 192.0.2.1:5060"]);
    caller.reply_to(("REGISTER", 0), "401 Unauthorized", "x", CHALLENGE);
    assert_eq!(caller.shown(), ["REGISTER 42 → 192.0.2.1:5060"]);
    let (_, sent) = caller.request("REGISTER", 0);
    assert_eq!((sent.call_id(), sent.from().tag()), ("kept", Some("tag")));
    caller.reply_to(("REGISTER", 0), "200 OK", "x", "");
    let responded = format!("Responded {} 200 192.0.2.1:5060 credentials", id.0);
    assert_eq!(caller.shown(), [responded]);
    // The flow that stands is used at once; when it is silent the target is located.
    let flow = Some(flow("192.0.2.9:5060"));
    let again = OutgoingRequest { flow, ..register };
    let id = caller.world.agent.send(caller.world.now, again, &mut caller.world.out);
    assert_eq!(caller.shown(), ["REGISTER 41 → 192.0.2.9:5060"]);
    let lines = caller.pass(secs(32));
    assert_eq!(lines.last().map(String::as_str), Some("32000 Locate pbx.example.com"));
    caller.play(|world| {
        let ticket = world.tickets.pop().expect("one");
        let nothing = Err(LocateFault::NoSuchName);
        world.agent.handle_located(world.now, ticket, nothing, &mut world.out);
    });
    let failed = format!("RequestFailed {} NotLocated(NoSuchName)", id.0);
    assert_eq!(caller.shown(), [failed]);
    caller.end_clean();
}

/// An INVITE whose body depends on its way.
fn by_way() -> OutgoingRequest {
    OutgoingRequest { body: None, body_by_way: true, ..Caller::with_credentials() }
}

impl Caller {
    fn describe(&mut self, body: Option<&'static str>) -> Result<(), Gone> {
        let body = body.map(|body| ("application/sdp".to_owned(), body.into()));
        self.world.agent.describe(self.world.now, SessionId(1), body, &mut self.world.out)
    }
}

#[test]
fn a_body_that_depends_on_the_way_is_asked_for_on_each() {
    let mut caller = Caller::dialled(by_way(), &[ONE, TWO]);
    assert_eq!(caller.describe(Some("too early")), Err(Gone));
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.1:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["WayFound 1 udp 192.0.2.1:5060"], "nothing is sent before");
    assert_eq!(caller.describe(Some("one")), Ok(()));
    assert_eq!(caller.shown(), ["INVITE 1 → 192.0.2.1:5060"]);
    assert_eq!(caller.describe(Some("twice")), Err(Gone));
    // The answer to a challenge goes the same way, with the same body.
    let shown = caller.reply("401 Unauthorized", "x", CHALLENGE);
    assert_eq!(shown, ["ACK 1 → 192.0.2.1:5060", "INVITE 2 → 192.0.2.1:5060"]);
    assert!(
        caller.sent.iter().all(|(_, text)| !text.starts_with("INVITE") || text.ends_with("one"))
    );
    let shown = caller.reply("503 Unavailable", "x", "");
    assert_eq!(shown, ["ACK 2 → 192.0.2.1:5060", "Connect udp 192.0.2.2:5060"]);
    caller.connect();
    assert_eq!(caller.shown(), ["WayFound 1 udp 192.0.2.2:5060"]);
    assert_eq!(caller.describe(Some("two")), Ok(()));
    assert_eq!(caller.shown(), ["INVITE 2 → 192.0.2.2:5060"]);
    assert!(caller.sent.last().is_some_and(|(_, text)| text.ends_with("two")));
}

#[test]
fn a_way_without_a_body_is_passed_over_and_a_cancel_meets_none() {
    let mut caller = Caller::dialled(by_way(), &[ONE, TWO]);
    caller.shown();
    caller.connect();
    caller.shown();
    assert_eq!(caller.describe(None), Ok(()));
    assert_eq!(caller.shown(), ["Connect udp 192.0.2.2:5060"]);
    caller.connect();
    caller.shown();
    assert_eq!(caller.describe(None), Ok(()));
    assert_eq!(caller.shown(), ["DialFailed 1 NoBody"]);
    caller.end_clean();
    let mut caller = Caller::dialled(by_way(), &[ONE]);
    caller.shown();
    caller.connect();
    let (agent, now) = (&mut caller.world.agent, caller.world.now);
    agent.cancel(now, SessionId(1), None, &mut caller.world.out).expect("it is not answered");
    assert_eq!(caller.shown(), ["WayFound 1 udp 192.0.2.1:5060", "Closed 1 Unsent"]);
    assert_eq!(caller.describe(Some("late")), Err(Gone));
    caller.end_clean();
}

/// One way is silent over UDP, the next one over TCP is given `second` and breaks.
fn silent_then_broken(second: &'static str) -> (Caller, Vec<String>) {
    let mut caller = Caller::new();
    caller.dial(by_way());
    caller.shown();
    let ways = [(ONE, Transport::Udp), (TWO, Transport::Tcp)];
    let hops = ways.map(|(hop, transport)| caller.world.hop(hop, transport)).to_vec();
    let ticket = caller.world.tickets.pop().expect("one");
    caller.world.agent.handle_located(caller.world.now, ticket, Ok(hops), &mut caller.world.out);
    caller.shown();
    caller.connect();
    assert_eq!(caller.describe(Some("one")), Ok(()));
    caller.pass(millis(1_200));
    caller.connect();
    assert_eq!(caller.describe(Some(second)), Ok(()));
    let shown = caller.shown();
    assert_eq!(shown.last().map(String::as_str), Some("INVITE 1 → 192.0.2.2:5060 tcp"));
    let (flow, _) = caller.request("INVITE", 0);
    caller.world.agent.handle_flow_closed(caller.world.now, flow.id, &mut caller.world.out);
    let shown = caller.shown();
    (caller, shown)
}

#[test]
fn a_silent_way_is_taken_up_again_only_while_its_body_is_the_last_one() {
    let (mut caller, shown) = silent_then_broken("one");
    assert_eq!(shown, Vec::<String>::new());
    assert_eq!(caller.pass(millis(1)), ["0 INVITE 1 → 192.0.2.1:5060"]);
    caller.reply("486 Busy Here", "x", "");
    caller.end_clean();
    let (mut caller, shown) = silent_then_broken("two");
    assert_eq!(shown, ["DialFailed 1 FlowLost"]);
    // Its late answer is to what nobody goes by any more.
    caller.reply_to(("INVITE", 1), "200 OK", "them", ANSWER);
    assert_eq!(caller.shown(), ["ACK 1 → 192.0.2.1:5060", "BYE 2 → 192.0.2.1:5060"]);
    caller.reply_to(("BYE", 0), "200 OK", "", "");
    caller.end_clean();
}
