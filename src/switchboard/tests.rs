//! What only the inside can do: a step that panics. Whole calls are in `tests/it/ladders.rs`.

use super::*;
use crate::account::{SipConfigDocument, compile};
use crate::call::settings::{HandSettings, TransferSettings};
use crate::codec::CodecKind;
use crate::ground::{Flow, LegId, StreamId, Transport, WallTime, limits};
use crate::media::plan::MediaEvent;
use crate::outgoing::{HostRule, OutgoingCallRequest};
use crate::refusal::RefusalPolicy;
use crate::sip::msg::{Framing, Message};
use crate::sip::target::{Hop, TargetHost};
use crate::ultravox::CallId;
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::Created;
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const AGENT: &str = "0b7c2a9e-7f0e-4a6c-b7c4-93b1f4f0a2de";
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                     m=audio 4000 RTP/AVP 0\r\n";

struct Bench {
    board: Switchboard,
    now: Now,
    tag: String,
}

impl Bench {
    fn new() -> Bench {
        let address = [198, 51, 100, 1].into();
        let settings = Settings {
            ua: UaConfig::default(),
            call: CallSettings {
                codecs: vec![CodecKind::Pcmu],
                opus_output_hz: 24_000,
                ptime_ms: 20,
                extended: Default::default(),
                silence_suppression: false,
                srtp: Default::default(),
                setup: limits::SETUP,
                rtp_timeout: limits::RTP_TIMEOUT,
                rtcp_only_max: limits::RTCP_ONLY_MAX,
                hold_max: limits::HOLD_MAX,
                jitter: Default::default(),
                refusals: RefusalPolicy::default(),
                hands: Default::default(),
            },
            media_v4: Some(MediaAddress { bind: address, advertise: address }),
            media_v6: None,
            advertised: Vec::new(),
            own_addresses: Vec::new(),
            ports: (40_000, 40_009),
            calls_max: 9,
            creations: CreationLimits::default(),
            outgoing: Arc::new(OutgoingPolicy {
                hosts: vec![HostRule::parse("192.0.2.1").expect("a host")],
                ..OutgoingPolicy::default()
            }),
            warn_agent: "edge.example".into(),
            epoch_s: 1,
        };
        let document = SipConfigDocument {
            allowed_cidr_ranges: vec!["192.0.2.0/24".into()],
            allow_all_agents: true,
            domain: "edge.example".into(),
            ..SipConfigDocument::default()
        };
        let (config, _) = compile(&document).expect("a sound document");
        let entropy = Entropy::from_number(1);
        let board = Switchboard::new(settings, Arc::new(config), entropy);
        let now = Now { at: Instant::ZERO, wall: WallTime::default() };
        Bench { board, now, tag: String::new() }
    }

    /// What the board asks for, one word or line for each command.
    fn commands(&mut self) -> Vec<String> {
        let mut shown = Vec::new();
        while let Some(command) = self.board.poll_command() {
            shown.push(match command {
                Command::Send { bytes, .. } => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let tag = text.split_once("edge.example>;tag=").map(|(_, rest)| rest);
                    let tag = tag.and_then(|rest| rest.split("\r\n").next());
                    self.tag = tag.map_or_else(|| self.tag.clone(), str::to_owned);
                    text.split(" sip:").next().and_then(|line| line.lines().next()).unwrap().into()
                }
                Command::Media(ForCall { what: MediaCommand::Close, .. }) => "close".into(),
                Command::Media(_) => "media".into(),
                Command::Record { cdr, .. } => match cdr.is_closed() {
                    true => format!("closed {:?} {:?}", cdr.status, cdr.ended_by.expect("ended")),
                    false => "record".into(),
                },
                Command::FetchAgent { .. } => "fetch".into(),
                Command::CreateAgentCall { .. } => "create".into(),
                Command::KeepFlow { keep, .. } => format!("keep {keep}"),
                other => format!("{other:?}"),
            });
        }
        shown
    }

    fn receive(&mut self, method: &str, body: &str) {
        let tag = if method == "ACK" { format!(";tag={}", self.tag) } else { String::new() };
        let text = format!(
            "{method} sip:agent_{AGENT}@edge.example SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK{method}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@192.0.2.1>;tag=a\r\nTo: <sip:agent_{AGENT}@edge.example>{tag}\r\n\
             Call-ID: c\r\nCSeq: 1 {method}\r\nContact: <sip:a@192.0.2.1:5060>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let message = Message::parse(Bytes::from(text), Framing::Datagram).expect("it is sound");
        let flow = Flow {
            id: FlowId(1),
            transport: Transport::Udp,
            local: "198.51.100.1:5060".parse().expect("an address"),
            peer: "192.0.2.1:5060".parse().expect("an address"),
        };
        self.board.handle(self.now, Input::Message { flow, message });
    }

    /// Lets the one call's next step panic, as a bug would.
    fn break_call(&mut self) -> Vec<String> {
        let key = self.board.calls().next().expect("one call").key;
        let (board, now) = (&mut self.board, self.now);
        let broken = catch_unwind(AssertUnwindSafe(|| {
            board.step(now, key, |_, _| panic!("as the test asked for"));
        }));
        assert!(broken.is_err());
        self.board.handle_panic(self.now);
        assert_eq!((self.board.calls().count(), self.board.ports_in_use()), (0, 0));
        assert!(self.board.by_session.is_empty() && self.board.jobs.is_empty());
        self.commands()
    }

    /// Later than every timer of the RFC.
    fn is_idle_in_a_minute(&mut self) -> bool {
        for _ in 0..60 {
            self.now = self.now.later(Duration::from_secs(1));
            self.board.handle_timeout(self.now);
        }
        self.board.is_idle() && self.board.poll_timeout().is_none()
    }
}

#[test]
fn a_panic_while_it_rings_refuses_that_call_and_nothing_else() {
    let mut bench = Bench::new();
    bench.receive("INVITE", OFFER);
    let begun =
        ["SIP/2.0 100 Trying", "keep true", "SIP/2.0 180 Ringing", "record", "media", "fetch"];
    assert_eq!(bench.commands(), begun);
    let ended =
        ["close", "keep false", "closed Some(500) Edge", "SIP/2.0 500 Server Internal Error"];
    assert_eq!(bench.break_call(), ended);
    assert_eq!(bench.board.counters().broken, 1);
    assert!(bench.is_idle_in_a_minute());
}

/// A call that is up.
fn answered() -> (Bench, CallKey) {
    let mut bench = Bench::new();
    bench.receive("INVITE", OFFER);
    let key = bench.board.calls().next().expect("one call").key;
    let agent = Agent {
        agent_id: AGENT.into(),
        published_revision_id: None,
        context_schema: None,
        tools: Vec::new(),
    };
    let created = Created {
        call_id: CallId::parse("c-1").expect("an identifier"),
        join_url: crate::ground::Secret::new("wss://voice.ultravox.ai/1"),
        call: serde_json::Map::new(),
    };
    let media = |what| Input::Media(ForCall { call: key, what });
    for input in [
        media(MediaEvent::Opened),
        Input::AgentFetched { job: JobId(1), result: Ok(agent) },
        Input::AgentCallAnswered { job: JobId(2), result: Ok(created) },
        media(MediaEvent::Prepared { stream: StreamId::FIRST }),
        media(MediaEvent::Joined { stream: StreamId::FIRST }),
    ] {
        bench.board.handle(bench.now, input);
    }
    let commands = bench.commands();
    assert!(commands.contains(&"SIP/2.0 200 OK".to_owned()), "{commands:?}");
    bench.receive("ACK", "");
    assert_eq!(bench.commands(), Vec::<String>::new());
    (bench, key)
}

#[test]
fn a_panic_after_the_answer_says_bye() {
    let (mut bench, _) = answered();
    let ended = ["close", "keep false", "closed Some(200) Edge", "BYE"];
    assert_eq!(bench.break_call(), ended);
    assert!(bench.is_idle_in_a_minute());
}

#[test]
fn a_panic_in_a_transfer_ends_both_legs() {
    let (mut bench, key) = answered();
    let transfers = TransferSettings {
        policy: Arc::clone(&bench.board.settings.outgoing),
        ..TransferSettings::default()
    };
    let call = bench.board.calls.get_mut(&key).expect("the call");
    call.settings.hands = Arc::new(HandSettings { transfers, ..HandSettings::default() });
    let now = bench.now;
    bench.board.step(now, key, |call, out| call.begin_failover(now, "sip:b@192.0.2.1", out));
    let opened = MediaEvent::LegOpened { leg: LegId(1) };
    bench.board.handle(now, Input::Media(ForCall { call: key, what: opened }));
    assert_eq!((bench.board.ports_in_use(), bench.board.user_agent().sessions()), (2, 2));
    let ended = bench.break_call();
    assert!(ended.contains(&"BYE".to_owned()), "{ended:?}");
    assert_eq!(bench.board.ports_in_use(), 0);
    assert!(bench.is_idle_in_a_minute());
}

/// Everything that an INVITE has taken by then is given back: the session, the port, the record.
#[test]
fn a_panic_on_the_way_of_an_invite_leaks_nothing() {
    // A count that cannot go on is where the test lets the step panic: before all else, and when
    // the port is taken and the call is in its map.
    for is_late in [false, true] {
        let mut bench = Bench::new();
        match is_late {
            false => bench.board.counters.invites = u64::MAX,
            true => drop(bench.board.calls_on_flow.insert(FlowId(1), usize::MAX)),
        }
        let broken = catch_unwind(AssertUnwindSafe(|| bench.receive("INVITE", OFFER)));
        assert!(broken.is_err());
        assert_eq!(bench.board.ports_in_use(), usize::from(is_late), "the port was taken");
        bench.board.calls_on_flow.clear();
        bench.board.counters.invites = 0;
        bench.board.handle_panic(bench.now);
        assert_eq!((bench.board.calls().count(), bench.board.ports_in_use()), (0, 0));
        let refused = "SIP/2.0 500 Server Internal Error".to_owned();
        let commands = bench.commands();
        assert_eq!(commands.last(), Some(&refused), "{commands:?}");
        let closed = commands.iter().filter(|line| *line == "closed Some(500) Edge").count();
        assert_eq!(closed, usize::from(is_late), "{commands:?}");
        assert_eq!(bench.board.counters().broken, 1);
        bench.receive("INVITE", "");
        assert!(bench.is_idle_in_a_minute());
    }
}

#[test]
fn a_panic_while_a_callee_rings_cancels_and_records_it() {
    let mut bench = Bench::new();
    let outgoing = serde_json::json!({ "to": "sip:b@192.0.2.1", "from": "1" });
    let body = serde_json::json!({ "medium": { "sip": { "outgoing": outgoing } } });
    let request = Box::new(OutgoingCallRequest { agent_id: Some(AGENT.into()), query: None, body });
    bench.board.handle(bench.now, Input::DialRequested { asked: 7, request });
    let key = bench.board.calls().next().expect("one call").key;
    let created = Created {
        call_id: CallId::parse("c-1").expect("an identifier"),
        join_url: crate::ground::Secret::new("wss://voice.ultravox.ai/1"),
        call: serde_json::Map::new(),
    };
    let opened = Input::Media(ForCall { call: key, what: MediaEvent::Opened });
    bench.board.handle(bench.now, opened);
    let answered = Input::OutgoingCallAnswered { job: JobId(1), result: Ok(created) };
    bench.board.handle(bench.now, answered);
    let mut asked = None;
    while let Some(command) = bench.board.poll_command() {
        if let Command::Locate { ticket, .. } = command {
            asked = Some(ticket);
        }
    }
    let address = "192.0.2.1:5060".parse().expect("an address");
    let identity = TargetHost::Address([192, 0, 2, 1].into());
    let hop = Hop { transport: Transport::Udp, address, identity };
    let located = Input::Located { ticket: asked.expect("it is located"), result: Ok(vec![hop]) };
    bench.board.handle(bench.now, located);
    let ended = bench.break_call();
    assert!(ended.contains(&"closed Some(500) Edge".to_owned()), "{ended:?}");
    assert_eq!((bench.board.user_agent().sessions(), bench.board.counters().broken), (0, 1));
    assert!(bench.is_idle_in_a_minute());
}

#[test]
fn other_addresses_of_the_machine_are_our_media_only_where_it_is_bound_to_all() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let at = |bind: &str, given: &str| Some(MediaAddress { bind: ip(bind), advertise: ip(given) });
    let mut settings = Bench::new().board.settings;
    settings.advertised = vec![(([10, 0, 0, 5], 5060).into(), ip("198.51.100.5"))];
    settings.own_addresses = ["10.0.0.5", "::ffff:10.0.0.6", "2001:db8::5"].map(ip).to_vec();
    for (v4, v6, expected) in [
        (at("10.0.0.1", "203.0.113.1"), None, "10.0.0.1 198.51.100.5 203.0.113.1"),
        (
            at("0.0.0.0", "203.0.113.1"),
            at("2001:db8::1", "2001:db8::1"),
            "0.0.0.0 10.0.0.5 198.51.100.5 203.0.113.1 ::ffff:10.0.0.6 2001:db8::1",
        ),
        (
            at("10.0.0.1", "10.0.0.1"),
            at("::", "2001:db8::1"),
            "10.0.0.1 198.51.100.5 :: 2001:db8::1 2001:db8::5",
        ),
    ] {
        (settings.media_v4, settings.media_v6) = (v4, v6);
        let own: Vec<String> = settings.addresses().iter().map(IpAddr::to_string).collect();
        assert_eq!(own.join(" "), expected);
    }
}
