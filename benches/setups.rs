//! Calls set up and taken down on one core without media: the whole of signalling, each message
//! over a real UDP socket of loopback. Counted is the edge's part: reading the socket, parsing,
//! routing, dialogs and transactions, the answer, the record's values, and writing the socket. The
//! caller's part, REST, TLS to the agent and the disk are not in it; their answers are there at once.
//! Time is virtual, at 250 calls a second, so that finished transactions are kept as they would be.
//!
//! Then the agent's tool call: the time from its message, as a media thread hands it over, to the REFER
//! or INVITE in the socket. The name look-up and the port that a second leg binds are answered at once.

use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use voxedge::account::{SipConfig, SipConfigDocument, compile};
use voxedge::call::settings::{HandSettings, TransferSettings};
use voxedge::call::{CallSettings, MediaAddress};
use voxedge::codec::CodecKind;
use voxedge::ground::{
    CallKey, Entropy, Flow, FlowId, Now, Secret, StreamId, Transport, WallTime, limits,
};
use voxedge::media::plan::{ForCall, MediaCommand, MediaEvent};
use voxedge::outgoing::{HostRule, OutgoingPolicy};
use voxedge::refusal::RefusalPolicy;
use voxedge::sip::msg::{Framing, Message, Response};
use voxedge::sip::target::Hop;
use voxedge::sip::ua::UaConfig;
use voxedge::switchboard::{Command, CreationLimits, Input, Settings, Switchboard};
use voxedge::ultravox::CallId;
use voxedge::ultravox::agent::Agent;
use voxedge::ultravox::create_call::Created;
use voxedge::ultravox::data_message::ServerMessage;
use voxedge::ultravox::tool::{Fixed, GivenTools, SipVerb, TelephoneTool};

const AGENT: &str = "00000000-0000-4000-8000-0000000000e0";
/// Calls of one run, and runs; the best one is told, since nothing makes a run too fast.
const CALLS: u32 = 2_000;
const RUNS: u32 = 5;
/// Virtual time from one call to the next.
const STEP: Duration = Duration::from_millis(4);
const TRANSFERS: u32 = 500;

fn main() {
    let mut edge = Edge::new();
    let mut number = 0;
    let mut best = Duration::MAX;
    for _ in 0..=RUNS {
        let before = edge.worked;
        for _ in 0..CALLS {
            edge.call(number);
            number += 1;
        }
        best = best.min((edge.worked - before) / CALLS);
    }
    let calls_per_second = 1e6 / best.as_micros() as f64;
    println!(
        "set-up and end of a call without media: {} µs of one core, {calls_per_second:.0} calls a \
         second (goal 1000); {number} calls, {} of them answered, {} commands",
        best.as_micros(),
        edge.answered,
        edge.commands
    );
    assert_eq!(edge.answered, number, "every call is answered");
    for (verb, method) in [(SipVerb::Refer, "REFER"), (SipVerb::Invite, "INVITE")] {
        tell_transfers(verb, method);
    }
}

fn tell_transfers(verb: SipVerb, method: &'static str) {
    let mut edge = Edge::with_transfers(verb);
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..TRANSFERS {
        times.push(edge.transfer(number, method));
    }
    times.sort();
    let part = |permille: usize| times[times.len() * permille / 1_000].as_micros();
    println!(
        "tool call to {method} on the wire: median {} µs, p99 {} µs (goal 5000), {} transfers",
        part(500),
        part(990),
        times.len()
    );
}

/// The edge between two sockets, and the caller at the other one.
struct Edge {
    board: Switchboard,
    now: Now,
    own: UdpSocket,
    caller: UdpSocket,
    flow: Flow,
    worked: Duration,
    answered: u32,
    commands: u64,
    /// Of the call that was opened last.
    call: CallKey,
}

impl Edge {
    fn new() -> Edge {
        Edge::of(|_| {})
    }

    /// One whose agents have a cold transfer of this kind to the caller's own socket.
    fn with_transfers(verb: SipVerb) -> Edge {
        Edge::of(|settings| {
            let host = HostRule::parse("127.0.0.0/8").expect("a range");
            let policy = OutgoingPolicy {
                hosts: vec![host],
                calls_per_minute: TRANSFERS * 2,
                calls_max: TRANSFERS as usize * 2,
                ..OutgoingPolicy::default()
            };
            settings.outgoing = Arc::new(policy);
            let transfers = TransferSettings {
                policy: Arc::clone(&settings.outgoing),
                ..TransferSettings::default()
            };
            let target = Some("sip:+15550001@127.0.0.1".to_owned());
            let fixed = Fixed { target, verb: Some(verb), ..Fixed::default() };
            let tool = TelephoneTool::ColdTransfer;
            let tools = GivenTools { give: vec![tool], defaults: [(tool, fixed)].into() };
            settings.call.hands =
                Arc::new(HandSettings { transfers, tools, ..HandSettings::default() });
        })
    }

    fn of(change: impl FnOnce(&mut Settings)) -> Edge {
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let local = own.local_addr().expect("an address");
        let peer = caller.local_addr().expect("an address");
        let mut settings = settings(local.ip());
        change(&mut settings);
        Edge {
            board: Switchboard::new(settings, account(), Entropy::from_number(1)),
            now: Now { wall: WallTime::from_unix_micros(1_800_000_000_000_000), ..Now::default() },
            own,
            caller,
            flow: Flow { id: FlowId(1), transport: Transport::Udp, local, peer },
            worked: Duration::ZERO,
            answered: 0,
            commands: 0,
            call: CallKey(0),
        }
    }

    /// One call from INVITE to the answer of BYE.
    fn call(&mut self, number: u32) {
        self.now = self.now.later(STEP);
        let answer = self.request(&invite(number, self.flow)).expect("the INVITE is answered");
        assert_eq!(answer.code(), 200, "{}", answer.reason());
        let to = format!("To: {}\r\n", answer.to().as_str());
        assert!(self.request(&within("ACK", 1, number, &to, self.flow)).is_none());
        let bye = self.request(&within("BYE", 2, number, &to, self.flow));
        assert_eq!(bye.map(|answer| answer.code()), Some(200));
        self.answered += 1;
    }

    /// One call whose agent transfers it: the time until `method` has left. The caller hangs up then.
    fn transfer(&mut self, number: u32, method: &str) -> Duration {
        self.now = self.now.later(STEP);
        let answer = self.request(&invite(number, self.flow)).expect("the INVITE is answered");
        let to = format!("To: {}\r\n", answer.to().as_str());
        self.request(&within("ACK", 1, number, &to, self.flow));
        let text = ServerMessage::ClientToolInvocation {
            tool_name: "coldTransfer".into(),
            invocation_id: "1".into(),
            parameters: Default::default(),
        };
        let what = MediaEvent::AgentText { stream: StreamId::FIRST, text: text.to_text() };
        let start = Instant::now();
        self.board.handle(self.now, Input::Media(ForCall { call: self.call, what }));
        let (mut left, mut sent) = (None, 0);
        while let Some(command) = self.board.poll_command() {
            if let Command::Send { bytes, .. } = &command {
                self.own.send_to(bytes, self.flow.peer).expect("sent");
                sent += 1;
                if bytes.starts_with(method.as_bytes()) {
                    left.get_or_insert_with(|| start.elapsed());
                }
            }
            if let Some(input) = outcome(command, self.flow) {
                self.board.handle(self.now, input);
            }
        }
        for _ in 0..sent {
            self.caller.recv(&mut [0; 4_096]).expect("received");
        }
        self.caller
            .send_to(within("BYE", 2, number, &to, self.flow).as_bytes(), self.flow.local)
            .expect("sent");
        for _ in 0..self.serve() {
            self.caller.recv(&mut [0; 4_096]).expect("received");
        }
        left.expect("the transfer left")
    }

    /// Sends one request; the edge works until nothing is left to do. The final answer to it.
    fn request(&mut self, text: &str) -> Option<Response> {
        self.caller.send_to(text.as_bytes(), self.flow.local).expect("sent");
        let start = Instant::now();
        let sent = self.serve();
        self.worked += start.elapsed();
        let mut last = None;
        for _ in 0..sent {
            let mut buffer = [0; 4_096];
            let length = self.caller.recv(&mut buffer).expect("received");
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            match Message::parse(bytes, Framing::Datagram) {
                Ok(Message::Response(response)) => last = Some(response),
                // The REFER or INVITE of a call before, which nobody answers, goes out again.
                Ok(Message::Request(_)) => {}
                other => panic!("the edge wrote {other:?}"),
            }
        }
        last
    }

    /// Reads one message and does all that comes of it; the messages sent.
    fn serve(&mut self) -> usize {
        let mut buffer = [0; 4_096];
        let (length, _) = self.own.recv_from(&mut buffer).expect("received");
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let message = Message::parse(bytes, Framing::Datagram).expect("well formed");
        if self.board.poll_timeout().is_some_and(|at| at <= self.now.at) {
            self.board.handle_timeout(self.now);
        }
        self.board.handle(self.now, Input::Message { flow: self.flow, message });
        let mut sent = 0;
        while let Some(command) = self.board.poll_command() {
            self.commands += 1;
            if let Command::Send { bytes, .. } = &command {
                self.own.send_to(bytes, self.flow.peer).expect("sent");
                sent += 1;
            }
            if let Command::Media(ForCall { call, what: MediaCommand::Open { .. } }) = &command {
                self.call = *call;
            }
            if let Some(input) = outcome(command, self.flow) {
                self.board.handle(self.now, input);
            }
        }
        sent
    }
}

/// What REST and the media plane say to a command, when they say anything.
fn outcome(command: Command, flow: Flow) -> Option<Input> {
    match command {
        Command::Locate { ticket, target, .. } => {
            let identity = target.host;
            let hop = Hop { transport: Transport::Udp, address: flow.peer, identity };
            Some(Input::Located { ticket, result: Ok(vec![hop]) })
        }
        Command::Connect { ticket, .. } => Some(Input::Connected { ticket, result: Ok(flow) }),
        Command::FetchAgent { job, agent_id, .. } => {
            let agent = Agent {
                agent_id,
                published_revision_id: None,
                context_schema: None,
                tools: Vec::new(),
            };
            Some(Input::AgentFetched { job, result: Ok(agent) })
        }
        Command::CreateAgentCall { job, .. } => {
            let created = Created {
                call_id: CallId::parse("call-1").expect("an identifier"),
                join_url: Secret::new("wss://voice.ultravox.ai/calls/1"),
                call: Default::default(),
            };
            Some(Input::AgentCallAnswered { job, result: Ok(created) })
        }
        Command::Media(ForCall { call, what }) => {
            let event = match what {
                MediaCommand::Open { .. } => MediaEvent::Opened,
                MediaCommand::Prepare { stream, .. } => MediaEvent::Prepared { stream },
                MediaCommand::Join { stream } => MediaEvent::Joined { stream },
                MediaCommand::Change { leg, revision, .. } => MediaEvent::Changed { leg, revision },
                MediaCommand::Close => MediaEvent::Closed(Box::default()),
                MediaCommand::OpenLeg { leg, .. } => MediaEvent::LegOpened { leg },
                MediaCommand::CloseLeg { leg } => {
                    MediaEvent::LegClosed { leg, report: Box::default() }
                }
                MediaCommand::SendText { .. }
                | MediaCommand::LeaveStream { .. }
                | MediaCommand::Arrange { .. }
                | MediaCommand::Play { .. }
                | MediaCommand::SendKeys { .. } => return None,
            };
            Some(Input::Media(ForCall { call, what: event }))
        }
        _ => None,
    }
}

fn invite(number: u32, flow: Flow) -> String {
    let ip = flow.peer.ip();
    let offer = format!(
        "v=0\r\no=bench {number} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-15\r\na=ptime:20\r\n"
    );
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n", offer.len());
    let to = format!("To: <sip:agent_{AGENT}@{}>\r\n", flow.local.ip());
    head("INVITE", 1, number, &to, flow) + &body + &offer
}

fn within(method: &str, cseq: u32, number: u32, to: &str, flow: Flow) -> String {
    head(method, cseq, number, to, flow) + "Content-Length: 0\r\n\r\n"
}

fn head(method: &str, cseq: u32, number: u32, to: &str, flow: Flow) -> String {
    let Flow { local, peer, .. } = flow;
    let ip: IpAddr = peer.ip();
    let addressed = |server: SocketAddr| format!("sip:agent_{AGENT}@{server}");
    format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {peer};branch=z9hG4bK{method}{number};rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Bench\" <sip:+15550100100@{ip}>;tag=b{number}\r\n{to}\
         Call-ID: {number}@bench\r\nCSeq: {cseq} {method}\r\nContact: <sip:bench@{peer}>\r\n\
         Allow: INVITE, ACK, BYE, CANCEL, OPTIONS\r\nSupported: timer\r\nUser-Agent: bench\r\n\
         X-Account: 42\r\n",
        addressed(local)
    )
}

fn settings(address: IpAddr) -> Settings {
    Settings {
        ua: UaConfig::default(),
        call: CallSettings {
            codecs: vec![CodecKind::Pcmu, CodecKind::Pcma],
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
        ports: (40_000, 49_999),
        calls_max: 1_000,
        creations: CreationLimits::default(),
        outgoing: Arc::default(),
        warn_agent: "bench".into(),
        epoch_s: 1,
    }
}

fn account() -> Arc<SipConfig> {
    let document = SipConfigDocument {
        allowed_cidr_ranges: vec!["127.0.0.0/8".into()],
        allow_all_agents: true,
        allowed_agents: Vec::new(),
        fallback_handler: None,
        domain: "bench.example".into(),
    };
    Arc::new(compile(&document).expect("a sound document").0)
}
