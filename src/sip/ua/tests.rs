//! Ladders of the user agent: what comes in as text, the whole list of what goes out as lines.

mod asking;
mod client;
mod early;
mod inside_storm;
mod referring;
mod refreshing;
mod reliably;
mod reoffering;
mod replacing;
mod storm;

use super::*;
use crate::ground::Transport;
use crate::sip::status::StatusLine;
use crate::sip::target::{ConnectFault, Hop, LocateFault, Target, TargetHost};
use crate::sip::testing::{flow, parse, stream};
use std::time::Duration;

/// A user agent under a clock of its own, seen from one peer.
struct World {
    agent: UserAgent,
    now: Now,
    flow: Flow,
    out: Vec<UaOutput>,
    /// Our To tag, from the last answer that had one.
    tag: String,
    /// The last bytes that were sent.
    sent: String,
    /// Tickets of what was asked to be located.
    tickets: Vec<u64>,
    /// The hop that was asked for last.
    asked: Option<(u64, Hop)>,
}

impl World {
    fn on(flow: Flow) -> World {
        let agent = UserAgent::new(UaConfig::default(), Entropy::from_number(7));
        let (tag, sent, tickets) = (String::new(), String::new(), Vec::new());
        World { agent, now: Now::default(), flow, out: Vec::new(), tag, sent, tickets, asked: None }
    }

    fn udp() -> World {
        World::on(flow("192.0.2.1:5062"))
    }

    /// Hands in a message and lists what came out.
    fn receive(&mut self, text: &str) -> Vec<String> {
        let message = parse(&text.replace("TAG", &self.tag));
        self.agent.handle_message(self.now, self.flow, message, &mut self.out);
        self.shown()
    }

    /// Lets `by` pass and lists all that happens, each line with the milliseconds since `by` began.
    fn pass(&mut self, by: Duration) -> Vec<String> {
        let (start, end) = (self.now, self.now.later(by));
        let mut lines = Vec::new();
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end.at) {
            self.now = start.later(at.since(start.at));
            self.agent.handle_timeout(self.now, &mut self.out);
            let millis = at.since(start.at).as_millis();
            lines.extend(self.shown().into_iter().map(|line| format!("{millis} {line}")));
        }
        self.now = end;
        lines
    }

    /// `200 INVITE`, `BYE sip:…`, or the event's name with its session.
    fn shown(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for output in std::mem::take(&mut self.out) {
            lines.push(match output {
                UaOutput::Event(event) => shown_event(&event),
                UaOutput::Locate { ticket, target, .. } => {
                    self.tickets.push(ticket);
                    shown_target(&target)
                }
                UaOutput::Connect { ticket, hop } => {
                    let line = format!("Connect {} {}", hop.transport.uri_param(), hop.address);
                    self.asked = Some((ticket, hop));
                    line
                }
                UaOutput::Send { bytes, .. } => {
                    self.sent = String::from_utf8(bytes.to_vec()).expect("text");
                    match parse(&self.sent.replace("\r\n", "\n")) {
                        Message::Response(response) => {
                            self.tag = response.to().tag().unwrap_or(&self.tag).to_owned();
                            format!("{} {}", response.code(), response.cseq().method)
                        }
                        Message::Request(request) => {
                            format!("{} {}", request.method(), request.uri().as_str())
                        }
                    }
                }
            });
        }
        lines
    }

    fn header(&self, name: &str) -> Vec<String> {
        let message = parse(&self.sent.replace("\r\n", "\n"));
        message.headers().lines_named(name).map(String::from).collect()
    }

    /// An answered and acknowledged call.
    fn connected(mut self) -> World {
        self.receive(&request("INVITE", 1, ""));
        self.accept();
        self.receive(&request("ACK", 1, "TAG"));
        self
    }

    fn accept(&mut self) -> Vec<String> {
        let body = Some(("application/sdp", &b"v=0"[..]));
        let result = self.agent.accept(self.now, SessionId(1), &[], body, &mut self.out);
        assert_eq!(result, Ok(()));
        self.shown()
    }

    fn bye(&mut self) -> Vec<String> {
        let reason = Some("Q.850;cause=16");
        let result = self.agent.bye(self.now, SessionId(1), reason, &mut self.out);
        assert_eq!(result, Ok(()));
        self.shown()
    }

    fn hop(&self, address: &str, transport: Transport) -> Hop {
        let identity = TargetHost::Name("pbx.example.com".into());
        Hop { transport, address: address.parse().expect("an address"), identity }
    }

    /// The answer to the last `Locate`.
    fn located(&mut self, result: Result<Vec<Hop>, LocateFault>) -> Vec<String> {
        let ticket = self.tickets.pop().expect("something was asked");
        self.agent.handle_located(self.now, ticket, result, &mut self.out);
        self.shown()
    }

    /// The answer to the last `Connect`.
    fn connected_to(&mut self, result: Result<Flow, ConnectFault>) -> Vec<String> {
        let (ticket, _) = self.asked.take().expect("something was asked");
        self.agent.handle_connected(self.now, ticket, result, &mut self.out);
        self.shown()
    }

    /// The answer of the peer to the request that we sent last.
    fn answer_ours(&mut self, status: &str) -> Vec<String> {
        let answer = self.answer_to_ours(status, "");
        self.receive(&answer)
    }

    /// The text of such an answer, with further header lines and, after an empty line, a body.
    fn answer_to_ours(&self, status: &str, extra: &str) -> String {
        let head = ["Via", "From", "To", "Call-ID", "CSeq"]
            .map(|name| format!("{name}: {}\n", self.header(name).join(", ")))
            .concat();
        let (lines, body) = extra.split_once("\n\n").unwrap_or((extra, ""));
        let lines = if lines.is_empty() { String::new() } else { format!("{lines}\n") };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
        let length = body.len();
        format!("SIP/2.0 {status}\n{head}{lines}{kind}Content-Length: {length}\n\n{body}")
    }

    /// After all timers nothing may be left.
    fn end_clean(mut self) {
        self.pass(Duration::from_secs(70));
        assert_eq!((self.agent.transactions(), self.agent.sessions()), (0, 0));
        assert!(self.agent.transactions.is_empty() && self.agent.dialogs.is_empty());
        assert!(self.agent.errands.is_empty());
        assert_eq!(self.agent.poll_timeout(), None);
    }
}

fn shown_event(event: &UaEvent) -> String {
    match event {
        UaEvent::Invited { session, .. } => format!("Invited {}", session.0),
        UaEvent::Cancelled { session, reason } => {
            format!("Cancelled {} {}", session.0, reason.as_deref().unwrap_or("-"))
        }
        UaEvent::Confirmed { session, body } => {
            format!("Confirmed {} {}", session.0, if body.is_some() { "body" } else { "-" })
        }
        UaEvent::NeverAcked { session } => format!("NeverAcked {}", session.0),
        UaEvent::Reoffered { session, fork, token, method, body } => {
            let body = if body.is_some() { "body" } else { "-" };
            let fork = fork.as_ref().map(|fork| format!(" of {fork}")).unwrap_or_default();
            format!("Reoffered {} {} {method} {body}{fork}", session.0, token.0)
        }
        UaEvent::ReoffersAck { session, body } => {
            format!("ReoffersAck {} {}", session.0, if body.is_some() { "body" } else { "-" })
        }
        UaEvent::InDialog { session, token, request } => {
            format!("InDialog {} {} {}", session.0, token.0, request.method())
        }
        UaEvent::Ended { session, reason } => {
            format!("Ended {} {}", session.0, reason.as_deref().unwrap_or("-"))
        }
        UaEvent::Closed { session, outcome } => format!("Closed {} {outcome:?}", session.0),
        UaEvent::FlowLost { session } => format!("FlowLost {}", session.0),
        UaEvent::Moved { session, flow } => format!("Moved {} {}", session.0, flow.id.0),
        UaEvent::WayFound { session, flow } => {
            let (transport, peer) = (flow.transport.uri_param(), flow.peer);
            format!("WayFound {} {transport} {peer}", session.0)
        }
        UaEvent::Progress { session, code, body, .. } => {
            let body = body.as_ref().map(|(_, body)| String::from_utf8_lossy(body).into_owned());
            format!("Progress {} {code} {}", session.0, body.unwrap_or("-".into()))
        }
        UaEvent::Answered { session, body, .. } => {
            let body = body.as_ref().map(|(_, body)| String::from_utf8_lossy(body).into_owned());
            format!("Answered {} {}", session.0, body.unwrap_or("-".into()))
        }
        UaEvent::Refused { session, code, contacts, retry_after, .. } => {
            let wait = retry_after.map(|wait| format!(" {wait:?}")).unwrap_or_default();
            format!("Refused {} {code}{wait} {}", session.0, contacts.join(" ")).trim_end().into()
        }
        UaEvent::DialFailed { session, fault } => format!("DialFailed {} {fault:?}", session.0),
        UaEvent::RequestAnswered { session, request, code, .. } => {
            format!("RequestAnswered {} {} {code}", session.0, request.0)
        }
        UaEvent::ReofferAnswered { session, body } => {
            let body = body.as_ref().map(|(_, body)| String::from_utf8_lossy(body).into_owned());
            format!("ReofferAnswered {} {}", session.0, body.unwrap_or("-".into()))
        }
        UaEvent::ReofferRefused { session, code, .. } => {
            format!("ReofferRefused {} {code}", session.0)
        }
        UaEvent::ReferProgress { session, code, .. } => {
            format!("ReferProgress {} {code}", session.0)
        }
        UaEvent::ReferDone { session, outcome } => format!("ReferDone {} {outcome:?}", session.0),
        UaEvent::Expired { session } => format!("Expired {}", session.0),
        UaEvent::Responded { request, response, hop, credentials, .. } => {
            let hop = hop.as_ref().map(|hop| hop.address.to_string());
            let known = if credentials.is_some() { " credentials" } else { "" };
            let hop = hop.unwrap_or("-".into());
            format!("Responded {} {} {hop}{known}", request.0, response.code())
        }
        UaEvent::RequestFailed { request, fault } => {
            format!("RequestFailed {} {fault:?}", request.0)
        }
    }
}

fn shown_target(target: &Target) -> String {
    let host = match &target.host {
        TargetHost::Address(address) => address.to_string(),
        TargetHost::Name(name) => name.clone(),
    };
    let transport = target.transport.map(|transport| format!(" {}", transport.uri_param()));
    let port = target.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("Locate {host}{port}{}", transport.unwrap_or_default())
}

/// A request of the peer; each has a branch of its own, CANCEL and a non-2xx ACK (no tag) that of
/// the INVITE. `to` is the To tag.
fn request(method: &str, cseq: u32, to: &str) -> String {
    let of_invite = method == "CANCEL" || method == "ACK" && to == "TAG-branch";
    let branch = if of_invite { format!("INVITE{cseq}") } else { format!("{method}{cseq}") };
    let to = match to {
        "" => String::new(),
        "TAG-branch" => ";tag=TAG".into(),
        tag => format!(";tag={tag}"),
    };
    let with_sdp = matches!(method, "INVITE" | "UPDATE");
    let (body, kind) = if with_sdp { ("v=0", "Content-Type: application/sdp\n") } else { ("", "") };
    format!(
        "{method} sip:agent@example.com SIP/2.0\n\
         Via: SIP/2.0/UDP 192.0.2.1:5062;rport;branch=z9hG4bK{branch}\n\
         Max-Forwards: 70\nFrom: <sip:a@192.0.2.1>;tag=them\nTo: <sip:agent@example.com>{to}\n\
         Call-ID: c1\nCSeq: {cseq} {method}\nContact: <sip:a@192.0.2.1:5062>\n\
         {kind}Content-Length: {}\n\n{body}",
        body.len()
    )
}

const REPEATS: [u32; 10] =
    [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_call_from_invite_to_the_peers_bye() {
    for flow in [flow("192.0.2.1:5062"), stream("192.0.2.1:40000")] {
        let mut world = World::on(flow);
        assert_eq!(world.receive(&request("INVITE", 1, "")), ["100 INVITE", "Invited 1"]);
        assert_eq!(world.header("Server"), Vec::<String>::new(), "a 100 carries nothing of ours");
        assert_eq!(world.agent.ring(world.now, SessionId(1), 180, &mut world.out), Ok(()));
        assert_eq!(world.shown(), ["180 INVITE"]);
        let tag = world.tag.clone();
        assert_eq!(tag.len(), 32, "128 random bits");
        assert_eq!(world.accept(), ["200 INVITE"]);
        assert_eq!(world.tag, tag);
        assert_eq!(world.receive(&request("ACK", 1, "TAG")), ["Confirmed 1 -"]);
        assert_eq!(world.receive(&request("ACK", 1, "TAG")), Vec::<String>::new());
        let bye = request("BYE", 2, "TAG").replace("Max-", "Reason: Q.850;cause=16\nMax-");
        assert_eq!(world.receive(&bye), ["200 BYE", "Ended 1 Q.850;cause=16"]);
        let again = request("BYE", 3, "TAG");
        assert_eq!(world.receive(&again), ["481 BYE"]);
        world.end_clean();
    }
}

#[test]
fn a_copy_of_the_bye_gets_the_same_200_on_udp() {
    let mut world = World::udp().connected();
    world.receive(&request("BYE", 2, "TAG"));
    let first = world.sent.clone();
    world.pass(secs(31));
    assert_eq!(world.receive(&request("BYE", 2, "TAG")), ["200 BYE"]);
    assert_eq!(world.sent, first);
    world.pass(secs(1));
    assert_eq!(world.receive(&request("BYE", 2, "TAG")), ["481 BYE"]);
    world.end_clean();
}

#[test]
fn seven_copies_of_the_invite_make_one_call_and_one_tag() {
    let mut world = World::udp();
    let invite = request("INVITE", 1, "");
    assert_eq!(world.receive(&invite), ["100 INVITE", "Invited 1"]);
    assert_eq!(world.receive(&invite), ["100 INVITE"]);
    assert_eq!(world.agent.ring(world.now, SessionId(1), 183, &mut world.out), Ok(()));
    world.shown();
    let tag = world.tag.clone();
    assert_eq!(world.receive(&invite), ["183 INVITE"]);
    world.accept();
    assert_eq!(world.receive(&invite), ["200 INVITE"]);
    assert_eq!(world.tag, tag);
    world.receive(&request("ACK", 1, "TAG"));
    assert_eq!(world.receive(&invite), Vec::<String>::new(), "absorbed after the ACK");
    world.receive(&request("BYE", 2, "TAG"));
    assert_eq!(world.receive(&invite), Vec::<String>::new(), "does not ring again");
    world.end_clean();
}

#[test]
fn a_lost_ack_repeats_the_200_on_every_transport_and_then_says_so() {
    for flow in [flow("192.0.2.1:5062"), stream("192.0.2.1:40000")] {
        let mut world = World::on(flow);
        world.receive(&request("INVITE", 1, ""));
        world.accept();
        let mut expected: Vec<String> =
            REPEATS.iter().map(|at| format!("{at} 200 INVITE")).collect();
        expected.push("32000 NeverAcked 1".into());
        assert_eq!(world.pass(secs(32)), expected);
        assert_eq!(world.agent.sessions(), 1, "the call layer ends it");
        assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"]);
        assert_eq!(world.answer_ours("481 Gone"), ["Closed 1 Answered(481)"]);
        world.end_clean();
    }
}

#[test]
fn our_bye_waits_for_the_ack_of_the_200() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    assert_eq!(world.bye(), Vec::<String>::new());
    assert_eq!(world.pass(millis(600)), ["500 200 INVITE"]);
    assert_eq!(world.receive(&request("INFO", 2, "TAG")), ["481 INFO"]);
    assert_eq!(world.receive(&request("ACK", 1, "TAG")), ["BYE sip:a@192.0.2.1:5062"]);
    assert_eq!(world.header("Reason"), ["Q.850;cause=16"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    assert_eq!(world.answer_ours("200 OK"), Vec::<String>::new());
    world.end_clean();
}

#[test]
fn our_bye_goes_out_when_the_ack_never_comes() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    world.bye();
    let lines = world.pass(secs(32));
    assert_eq!(lines.last().map(String::as_str), Some("32000 BYE sip:a@192.0.2.1:5062"));
    let mut expected: Vec<String> =
        REPEATS.iter().map(|at| format!("{at} BYE sip:a@192.0.2.1:5062")).collect();
    expected.push("32000 Closed 1 TimedOut".into());
    assert_eq!(world.pass(secs(32)), expected);
    world.end_clean();
}

#[test]
fn challenges_to_our_bye_are_not_answered() {
    for status in ["401 Unauthorized", "407 Proxy Authentication Required", "408 Late", "500 No"] {
        let mut world = World::udp().connected();
        world.bye();
        assert_eq!(world.answer_ours("100 Trying"), Vec::<String>::new());
        let code = &status[..3];
        assert_eq!(world.answer_ours(status), [format!("Closed 1 Answered({code})")]);
        world.end_clean();
    }
}

#[test]
fn byes_that_cross_end_the_call_once() {
    let mut world = World::udp().connected();
    world.bye();
    let crossing = request("BYE", 2, "TAG");
    assert_eq!(world.receive(&crossing), ["200 BYE", "Closed 1 Crossed"]);
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Err(Gone));
    world.end_clean();
}

#[test]
fn a_bye_before_the_answer_ends_the_invite_too() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    assert_eq!(world.agent.ring(world.now, SessionId(1), 180, &mut world.out), Ok(()));
    world.shown();
    let bye = request("BYE", 2, "TAG");
    assert_eq!(world.receive(&bye), ["200 BYE", "487 INVITE", "Cancelled 1 -"]);
    assert_eq!(world.receive(&request("ACK", 1, "TAG-branch")), Vec::<String>::new());
    world.end_clean();
}

#[test]
fn cancel_before_the_answer_and_its_copy() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    let cancel = request("CANCEL", 1, "").replace("Max-", "Reason: SIP;cause=200\nMax-");
    let expected = ["200 CANCEL", "487 INVITE", "Cancelled 1 SIP;cause=200"];
    assert_eq!(world.receive(&cancel), expected);
    assert_eq!(world.receive(&cancel), ["200 CANCEL"]);
    let result = world.agent.accept(world.now, SessionId(1), &[], None, &mut world.out);
    assert_eq!(result, Err(Gone));
    assert_eq!(world.pass(millis(500)), ["500 487 INVITE"]);
    assert_eq!(world.receive(&request("ACK", 1, "TAG-branch")), Vec::<String>::new());
    assert_eq!(world.pass(secs(4)), Vec::<String>::new());
    world.end_clean();
}

#[test]
fn cancel_after_the_answer_has_no_effect_and_without_a_match_gets_481() {
    let mut world = World::udp();
    assert_eq!(world.receive(&request("CANCEL", 1, "")), ["481 CANCEL"]);
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    assert_eq!(world.receive(&request("CANCEL", 1, "")), ["200 CANCEL"]);
    assert_eq!(world.receive(&request("ACK", 1, "TAG")), ["Confirmed 1 -"]);
    assert_eq!(world.receive(&request("CANCEL", 9, "")), ["481 CANCEL"]);
    world.flow = flow("192.0.2.99:5062");
    assert_eq!(world.receive(&request("CANCEL", 1, "")), ["481 CANCEL"], "a stranger's");
}

#[test]
fn the_cancel_race_has_one_final_answer_whenever_it_comes() {
    for step in 0..=100 {
        let mut world = World::udp();
        world.receive(&request("INVITE", 1, ""));
        let mut finals = Vec::new();
        for tick in 0..=100 {
            if tick == step {
                finals.extend(world.receive(&request("CANCEL", 1, "")));
            }
            if tick == 50 {
                let body = Some(("application/sdp", &b"v=0"[..]));
                let _ = world.agent.accept(world.now, SessionId(1), &[], body, &mut world.out);
                finals.extend(world.shown());
            }
            world.pass(millis(5));
        }
        let answers: Vec<&String> = finals.iter().filter(|line| line.ends_with("INVITE")).collect();
        let expected = if step <= 50 { "487 INVITE" } else { "200 INVITE" };
        assert_eq!(answers, [expected], "CANCEL at {} ms", step * 5);
    }
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    let status = StatusLine::new(404, "No\r\nInjected: x");
    let headers = [("Warning", "399 edge \"no rule\""), ("X-Bad", "a\r\nb")];
    let result = world.agent.refuse(world.now, SessionId(1), &status, &headers, &mut world.out);
    assert_eq!(result, Ok(()));
    assert_eq!(world.shown(), ["404 INVITE"]);
    assert!(world.sent.starts_with("SIP/2.0 404 Not Found\r\n") && !world.sent.contains("X-Bad"));
    assert_eq!(world.header("Warning"), ["399 edge \"no rule\""]);
    assert_eq!(world.agent.sessions(), 0);
    assert_eq!(world.pass(millis(1_500)), ["500 404 INVITE", "1500 404 INVITE"]);
    world.receive(&request("ACK", 1, "TAG-branch"));
    assert_eq!(world.pass(secs(40)), Vec::<String>::new());
    world.end_clean();
}

#[test]
fn merged_requests_and_loops_get_482() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    let merged = request("INVITE", 1, "").replace("z9hG4bKINVITE1", "z9hG4bKother");
    assert_eq!(world.receive(&merged), ["482 INVITE"]);
    assert_eq!(world.agent.sessions(), 1);
    let mut looping = World::udp().connected();
    looping.bye();
    let ours = looping.header("Via").join("");
    let looped = request("INVITE", 5, "").replace("Max-", &format!("Via: {ours}\nMax-"));
    assert_eq!(looping.receive(&looped), ["482 INVITE"]);
    assert_eq!(looping.agent.counters().loops, 1);
}

#[test]
fn without_a_magic_cookie_rfc_2543_matching_holds() {
    for branch in ["", ";branch=1"] {
        let legacy = |method: &str, cseq: u32, call_id: &str, to: &str| {
            let text = request(method, cseq, to).replace("Call-ID: c1", call_id);
            let start = text.find(";branch=").expect("a branch");
            let end = start + text[start..].find('\n').expect("a line end");
            format!("{}{branch}{}", &text[..start], &text[end..])
        };
        let mut world = World::udp();
        let first = legacy("INVITE", 1, "Call-ID: c1", "");
        assert_eq!(world.receive(&first), ["100 INVITE", "Invited 1"]);
        assert_eq!(world.receive(&first), ["100 INVITE"]);
        let second = legacy("INVITE", 1, "Call-ID: c2", "");
        assert_eq!(world.receive(&second), ["100 INVITE", "Invited 2"]);
        let status = StatusLine::of(486);
        let refused = world.agent.refuse(world.now, SessionId(2), &status, &[], &mut world.out);
        assert_eq!(refused, Ok(()));
        assert_eq!(world.shown(), ["486 INVITE"]);
        world.receive(&legacy("ACK", 1, "Call-ID: c2", "wrong"));
        assert_eq!(world.pass(millis(500)), ["500 486 INVITE"], "not our tag");
        world.receive(&legacy("ACK", 1, "Call-ID: c2", "TAG"));
        assert_eq!(world.pass(secs(20)), Vec::<String>::new());
        let cancel = legacy("CANCEL", 1, "Call-ID: c1", "");
        assert_eq!(world.receive(&cancel), ["200 CANCEL", "487 INVITE", "Cancelled 1 -"]);
        world.end_clean();
    }
}

#[test]
fn the_same_branch_from_two_sources_makes_two_calls() {
    let mut world = World::udp();
    let invite = request("INVITE", 1, "");
    assert_eq!(world.receive(&invite), ["100 INVITE", "Invited 1"]);
    world.flow = flow("198.51.100.1:5062");
    let other = invite.replace("Call-ID: c1", "Call-ID: c9");
    assert_eq!(world.receive(&other), ["100 INVITE", "Invited 2"]);
    assert_eq!(world.receive(&invite), ["482 INVITE"], "the first call, seen by another way");
}

#[test]
fn an_ack_with_the_branch_of_the_invite_confirms_the_call() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    assert_eq!(world.receive(&request("ACK", 1, "TAG-branch")), ["Confirmed 1 -"]);
}

#[test]
fn guards_run_in_the_order_dialog_cseq_state() {
    let mut world = World::udp().connected();
    let swapped = request("BYE", 1, "them").replace("tag=them\nTo", "tag=TAG\nTo");
    assert_eq!(world.receive(&swapped), ["481 BYE"]);
    let tag = world.agent.dialogs.keys().next().expect("a dialog").clone();
    let inside = |method: &str, cseq: u32| request(method, cseq, &tag);
    assert_eq!(world.receive(&inside("INFO", 5)), ["InDialog 1 2 INFO"]);
    assert_eq!(world.receive(&inside("INVITE", 4)), ["100 INVITE", "500 INVITE"]);
    assert_eq!(world.receive(&inside("MESSAGE", 5)), ["500 MESSAGE"]);
    assert_eq!(world.receive(&request("INVITE", 9, "nobody")), ["481 INVITE"]);
    let foreign = inside("BYE", 9).replace("Call-ID: c1", "Call-ID: c2");
    assert_eq!(world.receive(&foreign), ["481 BYE"]);
    let foreign = inside("BYE", 9).replace("tag=them", "tag=others");
    assert_eq!(world.receive(&foreign), ["481 BYE"]);
    assert_eq!(world.receive(&inside("PRACK", 6)), ["481 PRACK"]);
    assert_eq!(world.receive(&inside("OPTIONS", 7)), ["200 OPTIONS"]);
    assert_eq!(world.receive(&inside("SUBSCRIBE", 8)), ["405 SUBSCRIBE"]);
    assert_eq!(world.receive(&inside("NEWMETHOD", 9)), ["501 NEWMETHOD"]);
    let status = StatusLine::of(200);
    let token = RequestToken(2);
    let agent = &mut world.agent;
    assert_eq!(agent.respond(world.now, token, &status, &[], None, &mut world.out), Ok(()));
    assert_eq!(agent.respond(world.now, token, &status, &[], None, &mut world.out), Err(Gone));
    assert_eq!(world.shown(), ["200 INFO"]);
    assert_eq!(world.receive(&inside("INFO", 5)), ["200 INFO"]);
    assert_eq!(world.receive(&inside("BYE", 9)), ["200 BYE", "Ended 1 -"]);
    world.end_clean();
}

#[test]
fn a_re_invite_is_answered_repeated_and_acknowledged() {
    let mut world = World::udp().connected();
    let moved =
        request("INVITE", 2, "TAG").replace("a@192.0.2.1:5062>\n", "b@192.0.2.1:5099;x=y>\n");
    assert_eq!(world.receive(&moved), ["100 INVITE", "Reoffered 1 2 INVITE body"]);
    assert_eq!(world.receive(&request("INVITE", 3, "TAG")), ["100 INVITE", "500 INVITE"]);
    assert_eq!(world.header("Retry-After").len(), 1);
    let sdp = Some(("application/sdp", &b"v=0"[..]));
    assert_eq!(world.agent.answer(world.now, RequestToken(2), sdp, &mut world.out), Ok(()));
    assert_eq!(world.agent.answer(world.now, RequestToken(2), sdp, &mut world.out), Err(Gone));
    assert_eq!(world.shown(), ["200 INVITE"]);
    assert_eq!(world.pass(millis(500)), ["500 500 INVITE", "500 200 INVITE"]);
    assert_eq!(world.receive(&request("ACK", 3, "TAG-branch")), Vec::<String>::new());
    assert_eq!(world.receive(&request("ACK", 2, "TAG")), ["ReoffersAck 1 -"]);
    assert_eq!(world.bye(), ["BYE sip:b@192.0.2.1:5099;x=y"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    world.end_clean();
}

#[test]
fn a_rejected_re_invite_leaves_the_target_and_cancel_ends_an_open_one() {
    let mut world = World::udp().connected();
    let moved = request("INVITE", 2, "TAG").replace("a@192.0.2.1:5062>\n", "b@192.0.2.1:5099>\n");
    world.receive(&moved);
    let status = StatusLine::of(488);
    let agent = &mut world.agent;
    assert_eq!(agent.reject(world.now, RequestToken(2), &status, &[], &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["488 INVITE"]);
    world.receive(&request("ACK", 2, "TAG-branch"));
    assert_eq!(
        world.receive(&request("INVITE", 3, "TAG")),
        ["100 INVITE", "Reoffered 1 3 INVITE body"]
    );
    let cancel = request("CANCEL", 3, "TAG");
    assert_eq!(world.receive(&cancel), ["200 CANCEL", "487 INVITE"]);
    world.receive(&request("ACK", 3, "TAG-branch"));
    let sdp = Some(("application/sdp", &b"v=0"[..]));
    assert_eq!(world.agent.answer(world.now, RequestToken(3), sdp, &mut world.out), Err(Gone));
    assert_eq!(
        world.receive(&request("INVITE", 4, "TAG")),
        ["100 INVITE", "Reoffered 1 4 INVITE body"]
    );
    let bye = request("BYE", 5, "TAG");
    assert_eq!(world.receive(&bye), ["200 BYE", "487 INVITE", "Ended 1 -"]);
    world.receive(&request("ACK", 4, "TAG-branch"));
    world.end_clean();
}

#[test]
fn update_refreshes_and_offers_and_waits_its_turn() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    assert_eq!(world.agent.ring(world.now, SessionId(1), 180, &mut world.out), Ok(()));
    world.shown();
    assert_eq!(world.receive(&request("UPDATE", 2, "TAG")), ["500 UPDATE"], "an offer is open");
    let refresh = |cseq: u32| {
        request("UPDATE", cseq, "TAG").replace(
            "Content-Type: application/sdp\nContent-Length: 3\n\nv=0",
            "Session-Expires: 1800;refresher=uac\nContent-Length: 0\n\n",
        )
    };
    assert_eq!(world.receive(&refresh(3)), ["200 UPDATE"]);
    world.accept();
    world.receive(&request("ACK", 1, "TAG"));
    assert_eq!(world.receive(&refresh(4)), ["Reoffered 1 4 UPDATE -"]);
    assert_eq!(world.receive(&request("UPDATE", 5, "TAG")), ["500 UPDATE"]);
    assert_eq!(world.agent.answer(world.now, RequestToken(4), None, &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["200 UPDATE"]);
    assert_eq!(world.header("Contact"), ["<sip:192.0.2.10:5060;transport=udp>"]);
    assert_eq!(world.header("Session-Expires"), ["1800;refresher=uas"]);
    world.receive(&request("BYE", 6, "TAG"));
    world.end_clean();
}

#[test]
fn an_offer_that_crosses_our_late_offer_gets_491() {
    let mut world = World::udp();
    let late = request("INVITE", 1, "").replace(
        "Content-Type: application/sdp\nContent-Length: 3\n\nv=0",
        "Content-Length: 0\n\n",
    );
    world.receive(&late);
    world.accept();
    assert_eq!(world.receive(&request("INVITE", 2, "TAG")), ["100 INVITE", "491 INVITE"]);
    world.receive(&request("ACK", 2, "TAG-branch"));
    assert_eq!(world.receive(&request("UPDATE", 3, "TAG")), ["491 UPDATE"]);
    let ack = request("ACK", 1, "TAG").replace(
        "Content-Length: 0\n\n",
        "Content-Type: application/sdp\nContent-Length: 3\n\nv=0",
    );
    assert_eq!(world.receive(&ack), ["Confirmed 1 body"]);
    world.receive(&request("BYE", 4, "TAG"));
    world.end_clean();
}

#[test]
fn record_routes_come_back_in_order_and_lead_our_bye() {
    let mut world = World::udp();
    let routes =
        "Record-Route: <sip:198.51.100.1;r2=on;lr>\nRecord-Route: <sip:10.0.0.1:5080;lr=on>\n";
    world.receive(&request("INVITE", 1, "").replace("Max-", &format!("{routes}Max-")));
    let both = ["<sip:198.51.100.1;r2=on;lr>", "<sip:10.0.0.1:5080;lr=on>"];
    assert_eq!(world.agent.ring(world.now, SessionId(1), 180, &mut world.out), Ok(()));
    world.shown();
    assert_eq!(world.header("Record-Route"), both);
    world.accept();
    assert_eq!(world.header("Record-Route"), both);
    world.receive(&request("ACK", 1, "TAG"));
    world.bye();
    assert_eq!(world.header("Route"), both);
    assert_eq!(world.header("CSeq"), ["1 BYE"]);
    assert_eq!(world.header("Max-Forwards"), ["70"]);
    let via = world.header("Via").join("");
    assert!(via.starts_with("SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bK"), "{via}");
}

#[test]
fn options_and_new_calls_follow_the_door() {
    let mut world = World::udp();
    assert_eq!(world.receive(&request("OPTIONS", 1, "")), ["200 OPTIONS"]);
    assert_eq!(world.header("Accept"), ["application/sdp"]);
    assert_eq!(world.header("Allow").len(), 1);
    let first = world.tag.clone();
    world.receive(&request("OPTIONS", 1, ""));
    assert_eq!(world.tag, first, "a copy gets the same tag");
    for availability in [Availability::Draining, Availability::Full] {
        world.agent.set_availability(availability);
        for method in ["OPTIONS", "INVITE"] {
            assert_eq!(world.receive(&request(method, 1, "")), [format!("503 {method}")]);
            assert_eq!(world.header("Retry-After").len(), 1);
        }
    }
    assert_eq!((world.agent.transactions(), world.agent.sessions()), (0, 0));
    assert_eq!(world.agent.poll_timeout(), None);
}

#[test]
fn running_calls_are_served_while_draining() {
    let mut world = World::udp().connected();
    world.agent.set_availability(Availability::Draining);
    assert_eq!(
        world.receive(&request("INVITE", 2, "TAG")),
        ["100 INVITE", "Reoffered 1 2 INVITE body"]
    );
    assert_eq!(world.receive(&request("BYE", 3, "TAG")), ["200 BYE", "487 INVITE", "Ended 1 -"]);
}

#[test]
fn what_needs_a_dialog_or_an_extension_is_refused_without_state() {
    let cases = [
        ("BYE", "481"),
        ("UPDATE", "481"),
        ("INFO", "481"),
        ("NOTIFY", "481"),
        ("REGISTER", "405"),
        ("MESSAGE", "405"),
        ("PRACK", "481"),
        ("RE%47IST", "501"),
    ];
    let mut world = World::udp();
    for (method, code) in cases {
        assert_eq!(world.receive(&request(method, 1, "")), [format!("{code} {method}")]);
    }
    let required = request("INVITE", 1, "").replace("Max-", "Require: timer, precondition\nMax-");
    assert_eq!(world.receive(&required), ["420 INVITE"]);
    assert_eq!(world.header("Unsupported"), ["precondition"]);
    assert_eq!(world.receive(&request("ACK", 1, "")), Vec::<String>::new());
    assert_eq!((world.agent.transactions(), world.agent.sessions()), (0, 0));
}

#[test]
fn a_source_has_its_caps_and_others_do_not_feel_them() {
    let mut world = World::udp();
    let invite = |number: u32| {
        request("INVITE", 1, "").replace("Call-ID: c1", &format!("Call-ID: d{number}"))
    };
    for number in 0..50 {
        assert_eq!(world.receive(&invite(number)).len(), 2);
    }
    assert_eq!(world.receive(&invite(50)), ["503 INVITE"]);
    world.flow = flow("198.51.100.1:5060");
    assert_eq!(world.receive(&invite(51)).len(), 2);
    world.flow = flow("192.0.2.1:5062");
    let status = StatusLine::of(486);
    for session in 1..=50 {
        let refused =
            world.agent.refuse(world.now, SessionId(session), &status, &[], &mut world.out);
        assert_eq!(refused, Ok(()));
    }
    world.shown();
    for number in 100..150 {
        assert_eq!(world.receive(&invite(number)).len(), 2);
    }
    assert_eq!(world.agent.transactions.open_of(world.flow.peer.ip()), 100);
    assert_eq!(world.agent.counters().shed, 1);
}

#[test]
fn a_closed_flow_is_told_and_our_bye_leaves_on_a_new_connection() {
    let mut world = World::on(stream("203.0.113.1:40000"));
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    world.receive(&request("ACK", 1, "TAG"));
    let id = world.flow.id;
    world.agent.handle_flow_closed(world.now, id, &mut world.out);
    world.agent.handle_flow_closed(world.now, id, &mut world.out);
    assert_eq!(world.shown(), ["FlowLost 1"]);
    assert_eq!(world.agent.bye(world.now, SessionId(1), None, &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["Locate 192.0.2.1:5062 tcp"]);
    let hop = world.hop("192.0.2.1:5062", Transport::Tcp);
    assert_eq!(world.located(Ok(vec![hop])), ["Connect tcp 192.0.2.1:5062"]);
    let anew = Flow { id: FlowId(9), ..stream("192.0.2.1:5062") };
    assert_eq!(world.connected_to(Ok(anew)), ["BYE sip:a@192.0.2.1:5062"]);
    assert_eq!(world.header("CSeq"), ["1 BYE"]);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    world.end_clean();
}

#[test]
fn a_bye_whose_connection_breaks_goes_out_again_on_another() {
    let mut world = World::on(stream("203.0.113.1:40000"));
    world.receive(&request("INVITE", 1, ""));
    world.accept();
    world.receive(&request("ACK", 1, "TAG"));
    assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"]);
    let id = world.flow.id;
    world.agent.handle_flow_closed(world.now, id, &mut world.out);
    assert_eq!(world.shown(), ["FlowLost 1", "Locate 192.0.2.1:5062 tcp"]);
    assert_eq!(world.located(Err(LocateFault::Unanswered)), ["Closed 1 FlowLost"]);
    world.end_clean();
}

#[test]
fn a_bye_to_a_name_is_located_and_goes_to_the_source_when_that_fails() {
    for found in [true, false] {
        let mut world = World::udp();
        let by_name = |text: String| {
            text.replace("Contact: <sip:a@192.0.2.1:5062>", "Contact: <sip:a@pbx.example.com>")
        };
        world.receive(&by_name(request("INVITE", 1, "")));
        world.accept();
        world.receive(&request("ACK", 1, "TAG"));
        assert_eq!(world.bye(), ["Locate pbx.example.com udp"]);
        if found {
            let hop = world.hop("192.0.2.77:5060", Transport::Udp);
            assert_eq!(world.located(Ok(vec![hop])), ["Connect udp 192.0.2.77:5060"]);
            let sent = world.connected_to(Ok(flow("192.0.2.77:5060")));
            assert_eq!(sent, ["BYE sip:a@pbx.example.com"]);
        } else {
            let sent = world.located(Err(LocateFault::NoSuchName));
            assert_eq!(sent, ["BYE sip:a@pbx.example.com"]);
        }
        assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
        world.end_clean();
    }
}

#[test]
fn a_dialog_that_is_heard_on_another_flow_has_moved() {
    let mut world = World::on(stream("203.0.113.1:40000")).connected();
    world.flow = Flow { id: FlowId(7), ..stream("203.0.113.1:40001") };
    let reinvite = world.receive(&request("INVITE", 2, "TAG"));
    assert_eq!(reinvite, ["Moved 1 7", "100 INVITE", "Reoffered 1 2 INVITE body"]);
    let answered = world.agent.answer(world.now, RequestToken(2), None, &mut world.out);
    assert_eq!(answered, Ok(()));
    assert_eq!(world.shown(), ["200 INVITE"]);
    assert_eq!(world.receive(&request("ACK", 2, "TAG")), ["ReoffersAck 1 -"]);
    world.receive(&request("BYE", 3, "TAG"));
    world.end_clean();
}

#[test]
fn stray_responses_are_dropped_and_counted() {
    let mut world = World::udp().connected();
    world.bye();
    let via = world.header("Via").join("");
    let other = format!(
        "SIP/2.0 200 OK\nVia: {via}\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\nFrom: <sip:a@h>;tag=1\n\
         To: <sip:b@h>\nCall-ID: c1\nCSeq: 1 BYE\nContent-Length: 0\n\n"
    );
    assert_eq!(world.receive(&other), Vec::<String>::new());
    let other =
        other.replace("Via: SIP/2.0/UDP h;branch=z9hG4bKx\n", "").replace("1 BYE", "1 INFO");
    assert_eq!(world.receive(&other), Vec::<String>::new());
    assert_eq!(world.agent.counters().stray_responses, 2);
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
}

#[test]
fn an_unanswered_info_owes_a_100_and_gets_no_408() {
    let mut world = World::udp().connected();
    world.receive(&request("INFO", 2, "TAG"));
    assert_eq!(world.pass(secs(40)), ["3500 100 INFO"]);
    assert_eq!(world.agent.transactions(), 0);
    assert_eq!(world.agent.counters().unanswered, 1);
    assert_eq!(world.agent.sessions(), 1);
}

#[test]
fn the_dialog_tells_what_the_call_layer_asks() {
    let world = World::udp().connected();
    let dialog = world.agent.dialog(SessionId(1)).expect("a session");
    assert_eq!((dialog.call_id(), dialog.remote_tag()), ("c1", Some("them")));
    assert_eq!(dialog.local_tag(), world.tag);
}
