//! A thousand registrations with one registrar: what they cost the signalling thread, and how long
//! they take under the politeness of twenty first REGISTERs a second. The switchboard is the real one;
//! its registrar is a function, its network has no delay, and its clock is virtual.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use voxedge::account::{
    Registration, RegistrationDocument, RegistrationId, SipConfigDocument, compile,
};
use voxedge::call::{CallSettings, MediaAddress};
use voxedge::codec::CodecKind;
use voxedge::ground::{Entropy, Flow, FlowId, Instant, Now, Secret, Transport, limits};
use voxedge::refusal::RefusalPolicy;
use voxedge::sip::msg::{Framing, Message};
use voxedge::sip::target::{Hop, TargetHost};
use voxedge::sip::ua::UaConfig;
use voxedge::switchboard::{Command, CreationLimits, Input, Settings, Switchboard};

const USERS: usize = 1_000;
const REGISTRAR: &str = "192.0.2.5:5060";
/// Virtual time after which all have been refreshed several times.
const HOUR: Duration = Duration::from_secs(3_600);

/// The edge, its registrar, and the virtual clock.
struct World {
    board: Switchboard,
    now: Now,
    registers: u64,
    challenges: u64,
    busy: Duration,
}

impl World {
    /// One input and everything that follows from it at once.
    fn handle(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let begun = std::time::Instant::now();
            self.board.handle(self.now, input);
            self.busy += begun.elapsed();
            self.answer_commands(&mut inputs);
        }
    }

    fn handle_timeout(&mut self) {
        let begun = std::time::Instant::now();
        self.board.handle_timeout(self.now);
        self.busy += begun.elapsed();
        let mut inputs = VecDeque::new();
        self.answer_commands(&mut inputs);
        for input in inputs {
            self.handle(input);
        }
    }

    fn answer_commands(&mut self, inputs: &mut VecDeque<Input>) {
        let peer: SocketAddr = REGISTRAR.parse().expect("an address");
        let local = "198.51.100.1:5060".parse().expect("an address");
        let flow = Flow { id: FlowId(1), transport: Transport::Udp, local, peer };
        while let Some(command) = self.board.poll_command() {
            match command {
                Command::Locate { ticket, target, seed: _ } => {
                    let hop =
                        Hop { transport: Transport::Udp, address: peer, identity: target.host };
                    inputs.push_back(Input::Located { ticket, result: Ok(vec![hop]) });
                }
                Command::Connect { ticket, hop } => {
                    assert_eq!(hop.identity, TargetHost::Address(peer.ip()));
                    inputs.push_back(Input::Connected { ticket, result: Ok(flow) });
                }
                Command::Send { bytes, .. } => {
                    if let Some(answer) = self.register(&bytes) {
                        let message = Message::parse(answer, Framing::Datagram);
                        let message = message.expect("the registrar writes well");
                        inputs.push_back(Input::Message { flow, message });
                    }
                }
                _ => {}
            }
        }
    }

    /// The registrar: a challenge, then five minutes.
    fn register(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.starts_with("REGISTER "))?;
        let copied: String = text
            .split_inclusive("\r\n")
            .filter(|line| {
                ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .collect();
        self.registers += 1;
        let (status, more) = if text.contains("\r\nAuthorization: ") {
            ("200 OK", "Expires: 300\r\n".to_owned())
        } else {
            self.challenges += 1;
            let nonce = self.challenges;
            let challenge = format!(
                "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"{nonce}\", algorithm=SHA-256, qop=\"auth\"\r\n"
            );
            ("401 Unauthorized", challenge)
        };
        Some(format!("SIP/2.0 {status}\r\n{copied}{more}Content-Length: 0\r\n\r\n").into())
    }

    fn successful(&self) -> usize {
        let all = self.board.registrations(self.now);
        all.iter().filter(|one| one.successful == Some(true)).count()
    }

    /// Runs until `end`, or until all are up when that is asked.
    fn run(&mut self, end: Instant, until_up: bool) {
        let mut checks = 0_u64;
        while let Some(at) = self.board.poll_timeout().filter(|at| *at < end) {
            self.now = self.now.later(at.since(self.now.at));
            self.handle_timeout();
            checks += 1;
            if until_up && checks.is_multiple_of(50) && self.successful() == USERS {
                return;
            }
        }
    }
}

fn settings() -> Settings {
    let address: IpAddr = [198, 51, 100, 1].into();
    Settings {
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
            refusals: RefusalPolicy::default(),
            hands: Default::default(),
            rtcp_only_max: limits::RTCP_ONLY_MAX,
            hold_max: limits::HOLD_MAX,
            jitter: Default::default(),
        },
        media_v4: Some(MediaAddress { bind: address, advertise: address }),
        media_v6: None,
        advertised: Vec::new(),
        own_addresses: Vec::new(),
        ports: (40_000, 40_099),
        calls_max: 100,
        creations: CreationLimits::default(),
        outgoing: Arc::default(),
        warn_agent: "edge.example".into(),
        epoch_s: 1,
    }
}

fn registration(number: usize) -> Registration {
    let document = RegistrationDocument {
        username: format!("user{number}"),
        password: Secret::new("secret"),
        proxy: REGISTRAR.into(),
        ..RegistrationDocument::default()
    };
    let id = RegistrationId(format!("r{number:04}").into());
    Registration::compile(id, &document).expect("a good registration")
}

fn main() {
    let (config, _) = compile(&SipConfigDocument::default()).expect("an empty document is good");
    let board = Switchboard::new(settings(), Arc::new(config), Entropy::from_number(1));
    let now = Now::default();
    let busy = Duration::ZERO;
    let mut world = World { board, now, registers: 0, challenges: 0, busy };
    let registrations = (0..USERS).map(registration).collect();
    world.handle(Input::RegistrationsReplaced { registrations, bindings: BTreeMap::new() });
    world.run(Instant::ZERO + HOUR, true);
    let (took, busy, sent) = (world.now.at.since(Instant::ZERO), world.busy, world.registers);
    assert_eq!(world.successful(), USERS, "all are up");
    println!(
        "registrations: {USERS} up after {:.1} s (20 first REGISTERs a second), {sent} REGISTERs, \
         {:.0} µs of signalling each user",
        took.as_secs_f64(),
        busy.as_secs_f64() * 1e6 / USERS as f64
    );
    world.run(Instant::ZERO + HOUR, false);
    let (refreshes, spent) = (world.registers - sent, world.busy - busy);
    assert_eq!(world.successful(), USERS, "all stay up");
    let hours = HOUR.saturating_sub(took).as_secs_f64();
    println!(
        "registrations: refreshing {USERS} for an hour: {refreshes} REGISTERs ({:.1} a second), \
         {:.0} µs each, {:.3} % of one core",
        refreshes as f64 / hours,
        spent.as_secs_f64() * 1e6 / refreshes as f64,
        spent.as_secs_f64() * 100.0 / hours
    );
}
