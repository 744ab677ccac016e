//! A world for whole calls: the real `Switchboard` and real `MediaSession`s between simulated PBXs
//! and a simulated Ultravox, on a simulated network under a virtual clock. The world plays the
//! shell: it carries out commands and drives sessions as a media shard does. Same seed, same bytes.

pub mod agent;
pub mod callee;
pub mod ladder;
pub mod network;
pub mod pbx;
pub mod registrar;

use agent::{Script, Service};
use bytes::Bytes;
use callee::{Callee, Manner};
use ladder::Lines;
use network::Network;
use pbx::{Action, Caller, Out, Wake};
use registrar::Registrar;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use voxedge::account::{
    AgentAllowance, FallbackHandler, RegistrationId, SipConfig, SipConfigDocument, compile,
};
use voxedge::billing::cdr::Cdr;
use voxedge::call::deed::Tally;
use voxedge::call::outbound::ServiceRefusal;
use voxedge::call::sound::SoundFault;
use voxedge::call::{CallSettings, MediaAddress};
use voxedge::codec::CodecKind;
use voxedge::fallback::{FallbackDecision, FallbackFault, Post};
use voxedge::ground::{
    CallKey, Entropy, Flow, FlowId, Instant, JobId, LegId, Now, StreamId, Transport, WallTime,
    limits,
};
use voxedge::media::MediaSession;
use voxedge::media::plan::{
    AgentClose, AgentRates, ForCall, LegPlan, MediaCommand, MediaEvent, MediaPlan, Port, Scene,
    Sound,
};
use voxedge::outgoing::{DialRefusal, HostRule, OutgoingCallRequest, OutgoingPolicy};
use voxedge::refusal::RefusalPolicy;
use voxedge::rtp::packet::RtpPacket;
use voxedge::rtp::rtcp::{Compound, Part};
use voxedge::sip::msg::{Framing, Message};
use voxedge::sip::registration::Binding;
use voxedge::sip::target::{Hop, LocateFault, Target, TargetHost};
use voxedge::sip::ua::{Destination, UaConfig};
use voxedge::switchboard::{Command, CreationLimits, Input, Settings, Switchboard};
use voxedge::ultravox::create_call::CreateFault;
use voxedge::ultravox::schema;
use voxedge::ultravox::stage::Stage;

/// Time between signalling and a media shard, either way.
const HAND_OVER: Duration = Duration::from_millis(1);
/// Steps of one run; more is a loop.
const STEPS_MAX: u64 = 3_000_000;

/// What is under way and when it arrives.
enum Item {
    ToEdge {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    ToPbx {
        to: usize,
        bytes: Bytes,
    },
    ToCallee {
        to: usize,
        bytes: Bytes,
    },
    WakeCallee(usize, callee::Wake),
    HangUp(String),
    RtpToEdge {
        source: SocketAddr,
        port: u16,
        bytes: Vec<u8>,
    },
    /// A callee says so many packets more.
    CalleeSpeaks {
        callee: usize,
        packets: u16,
    },
    RtpToPbx {
        to: usize,
    },
    RtpToCallee {
        to: usize,
    },
    Act(usize, Action),
    Wake(usize, Wake),
    Answer(JobId, Box<Input>),
    Command(ForCall<MediaCommand>),
    Event(ForCall<MediaEvent>),
    Stream(CallKey, StreamId, StreamStep),
    Edge(Box<Input>),
}

/// What happens on the agent's stream.
enum StreamStep {
    Prepared(MediaEvent),
    Joined(MediaEvent),
    Left(AgentClose),
    Text(String),
}

/// One call in the world's media shard.
struct Slot {
    session: MediaSession,
    rates: AgentRates,
    legs: Vec<LegSide>,
    streams: BTreeMap<StreamId, AgentSide>,
}

/// One leg's port, and where its peer listens.
struct LegSide {
    leg: LegId,
    port: u16,
    remote: Option<SocketAddr>,
}

/// The far end of one agent stream.
struct AgentSide {
    script: Script,
    joined: Option<Instant>,
    left: Option<Instant>,
    samples: u64,
}

impl AgentSide {
    fn new(script: Script) -> AgentSide {
        AgentSide { script, joined: None, left: None, samples: 0 }
    }
}

/// What became of one agent stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamFacts {
    pub stream: StreamId,
    /// For how long the agent was there, and how much it heard.
    pub span: Duration,
    pub heard: Duration,
}

/// What the checkers want to know of a call.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub sip_call_id: String,
    pub opens: u32,
    /// Opens that were answered with `BindFailed`.
    pub unbound: u32,
    pub closeds: u32,
    pub joined: Option<Instant>,
    /// The 200 left the edge for the first time.
    pub answered: Option<Instant>,
    /// The edge gave the call up: media was told to close.
    pub torn_down: Option<Instant>,
    /// For how long the agent was there, and how much it heard.
    pub agent_span: Duration,
    pub agent_heard: Duration,
    /// Media came before the agent joined: what was kept of it is heard too.
    pub early_media: bool,
    /// Each stream that was joined.
    pub streams: Vec<StreamFacts>,
    /// Data messages of the edge to its agents.
    pub texts: Vec<(StreamId, String)>,
    pub records: Vec<Cdr>,
    /// Bodies of the creations.
    pub creations: Vec<serde_json::Value>,
}

pub struct World {
    pub now: Now,
    pub board: Switchboard,
    pub network: Network,
    pub service: Service,
    /// What the fallback handler answers: milliseconds and outcome, one for each question; the last
    /// one stands for all further ones.
    pub hook: Vec<(u64, Result<FallbackDecision, FallbackFault>)>,
    pub callers: Vec<Caller>,
    pub registrars: Vec<Registrar>,
    /// What the next start would know.
    pub kept_bindings: BTreeMap<RegistrationId, Binding>,
    pub callees: Vec<Callee>,
    /// What clients heard of their requests for outgoing calls.
    pub dialled: Vec<Result<serde_json::Value, DialRefusal>>,
    /// Sources that the edge wants to hear, with how often it said so.
    pub admitted: BTreeMap<IpAddr, i32>,
    pub lines: Lines,
    pub facts: BTreeMap<CallKey, Facts>,
    /// What the calls did with their hands.
    pub tally: Tally,
    /// Scenes in which a leg is heard and hears nobody, or in which no leg hears anybody.
    pub deaf: Vec<String>,
    /// Ports that somebody else holds: so many times opening fails.
    pub ports_taken: u32,
    pub drained: u32,
    /// INVITEs that reached the edge, by Call-ID and CSeq, and the final answers (status and To
    /// tag) that it gave them. Refusals without state are no part of it: copies may fare better.
    pub invites: BTreeMap<(String, String), BTreeSet<(String, String)>>,
    /// Host names and their addresses, in the order of their priority.
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    /// Of the edge's streams: where each goes, its SSRC, and its extended reports so far.
    pub streams: BTreeMap<SocketAddr, (u32, u32)>,
    /// Peers that are spoken with over another listener than the usual one of UDP.
    pub ways: BTreeMap<SocketAddr, (Transport, SocketAddr)>,
    slots: BTreeMap<CallKey, Slot>,
    by_port: BTreeMap<u16, (CallKey, LegId)>,
    jobs: BTreeSet<JobId>,
    aborted: BTreeSet<JobId>,
    queue: BTreeMap<(Instant, u64), Item>,
    sequence: u64,
    steps: u64,
    entropy: Entropy,
}

/// The settings of the edge in the world; a scenario may change them.
pub fn settings() -> Settings {
    let address: IpAddr = [198, 51, 100, 1].into();
    Settings {
        ua: UaConfig { domain: Some("edge.example".into()), ..UaConfig::default() },
        call: CallSettings {
            codecs: vec![CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G722],
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
        ports: (40_000, 40_099),
        calls_max: 100,
        creations: CreationLimits::default(),
        outgoing: Arc::new(OutgoingPolicy {
            hosts: ["192.0.2.0/24", "trunk.example"]
                .map(|host| HostRule::parse(host).expect("a host"))
                .to_vec(),
            ..OutgoingPolicy::default()
        }),
        warn_agent: "edge.example".into(),
        epoch_s: 1,
    }
}

/// The account of the world: one named agent, all others by the implicit rule, and perhaps a handler.
pub fn account(fallback_handler: Option<FallbackHandler>) -> Arc<SipConfig> {
    let document = SipConfigDocument {
        allowed_cidr_ranges: vec!["192.0.2.0/24".into()],
        allow_all_agents: true,
        allowed_agents: vec![AgentAllowance {
            agent_id: agent::SALES.into(),
            to_user_pattern: Some("^sales$".into()),
        }],
        fallback_handler,
        domain: "edge.example".into(),
    };
    Arc::new(compile(&document).expect("a sound document").0)
}

/// The fallback handler of the world.
pub fn handler() -> FallbackHandler {
    FallbackHandler {
        url: "https://hooks.example/sip".into(),
        secrets: Some(vec!["a secret".into(), "another one".into()]),
    }
}

/// What the user agent says when it turns a request away without keeping state: a copy of it may
/// find room later.
const SHED_WORDS: [&str; 3] = [
    "no new call is taken while draining",
    "no further call is taken now",
    "this source has too much under way",
];

impl World {
    pub fn new(seed: u64, settings: Settings) -> World {
        let mut entropy = Entropy::from_number(seed);
        let wall = WallTime::from_unix_micros(1_800_000_000_000_000);
        World {
            now: Now { at: Instant::ZERO, wall },
            board: Switchboard::new(settings, account(None), entropy.fork()),
            network: Network::steady(entropy.fork()),
            service: Service {
                script: Script::default(),
                further: Vec::new(),
                random: None,
                says: None,
                created: 0,
            },
            hook: vec![(100, Err(FallbackFault::Unreachable))],
            callers: Vec::new(),
            registrars: Vec::new(),
            kept_bindings: BTreeMap::new(),
            callees: Vec::new(),
            dialled: Vec::new(),
            admitted: BTreeMap::new(),
            lines: Lines::default(),
            facts: BTreeMap::new(),
            tally: Tally::default(),
            deaf: Vec::new(),
            ports_taken: 0,
            drained: 0,
            invites: BTreeMap::new(),
            names: BTreeMap::new(),
            streams: BTreeMap::new(),
            ways: BTreeMap::new(),
            slots: BTreeMap::new(),
            by_port: BTreeMap::new(),
            jobs: BTreeSet::new(),
            aborted: BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            entropy,
        }
    }

    /// Adds a caller that will dial this user; its index.
    pub fn caller(&mut self, to_user: &str) -> usize {
        self.callers.push(Caller::new(self.callers.len(), to_user));
        self.callers.len() - 1
    }

    /// Adds a phone that can be called; its address is 192.0.2.100 and up.
    pub fn callee(&mut self, manner: Manner) -> usize {
        self.callees.push(Callee::new(self.callees.len(), manner));
        self.callees.len() - 1
    }

    /// A client asks for a call at `ms`, with these members of `medium.sip.outgoing`.
    pub fn dial(&mut self, ms: u64, outgoing: serde_json::Value) {
        let request = OutgoingCallRequest {
            agent_id: Some(agent::SALES.into()),
            query: None,
            body: serde_json::json!({ "medium": { "sip": { "outgoing": outgoing } } }),
        };
        let asked = 1 + self.sequence;
        self.edge(ms, Input::DialRequested { asked, request: Box::new(request) });
    }

    /// From `ms` on the callee says so many packets, to whichever leg has its address.
    pub fn callee_speaks(&mut self, ms: u64, callee: usize, packets: u16) {
        self.enter(at_ms(ms), Item::CalleeSpeaks { callee, packets });
    }

    /// This media of the caller's comes to the edge at `ms`, at the port that it is sent to.
    pub fn caller_sends(&mut self, ms: u64, caller: usize, bytes: Vec<u8>) {
        let source = self.callers[caller].media;
        let mut legs = self.slots.values().flat_map(|slot| &slot.legs);
        let port = legs.find(|side| side.remote == Some(source)).map(|side| side.port);
        let port = port.expect("the caller's call is up");
        self.enter(at_ms(ms), Item::RtpToEdge { source, port, bytes });
    }

    /// A client gives up the call with this Ultravox id at `ms`.
    pub fn hang_up(&mut self, ms: u64, call_id: &str) {
        self.enter(at_ms(ms), Item::HangUp(call_id.to_owned()));
    }

    /// The caller does this at `ms`.
    pub fn act(&mut self, ms: u64, caller: usize, action: Action) {
        self.enter(at_ms(ms), Item::Act(caller, action));
    }

    /// Something of the edge's own happens at `ms`: a drain, an overload.
    pub fn edge(&mut self, ms: u64, input: Input) {
        self.enter(at_ms(ms), Item::Edge(Box::new(input)));
    }

    /// Lets time pass until nothing is left to happen, or it is `ms`.
    pub fn run_out(&mut self, ms: u64) {
        while self.next().is_some_and(|next| next <= at_ms(ms)) {
            self.step();
        }
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Instant> {
        let media = self.slots.values().filter_map(|slot| slot.session.poll_timeout());
        let head = self.queue.keys().next().map(|(at, _)| *at);
        head.into_iter().chain(self.board.poll_timeout()).chain(media).min()
    }

    /// The ladder of the run so far.
    pub fn ladder(&self) -> &str {
        self.lines.text()
    }

    /// The media ports that calls have, in their order.
    pub fn open_ports(&self) -> Vec<u16> {
        self.by_port.keys().copied().collect()
    }

    /// Nothing of any call is left, in the edge or in its shard.
    pub fn is_idle(&self) -> bool {
        self.board.is_idle() && self.slots.is_empty() && self.board.poll_timeout().is_none()
    }

    fn enter(&mut self, at: Instant, item: Item) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), item);
    }

    fn enter_in(&mut self, wait: Duration, item: Item) {
        self.enter(self.now.at + wait, item);
    }

    fn say(&mut self, from: &str, to: &str, text: &str) {
        self.lines.push(self.now.at, from, to, text);
    }

    /// The next thing: what is under way first, then the edge's timers, then media's.
    fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "the world loops:\n{}", self.ladder());
        let Some(next) = self.next() else { return };
        self.now = self.now.later(next.since(self.now.at));
        if self.queue.keys().next().is_some_and(|(at, _)| *at <= self.now.at) {
            let (_, item) = self.queue.pop_first().expect("it has a first");
            self.on_item(item);
        } else if self.board.poll_timeout().is_some_and(|at| at <= self.now.at) {
            self.board.handle_timeout(self.now);
            self.carry_out();
        } else {
            let due = |slot: &Slot| slot.session.poll_timeout().is_some_and(|at| at <= self.now.at);
            let key = self.slots.iter().find(|(_, slot)| due(slot)).map(|(key, _)| *key);
            let now = self.now;
            self.with_slot(key.expect("its deadline was next"), |slot| {
                slot.session.handle_timeout(now);
            });
        }
    }

    fn on_item(&mut self, item: Item) {
        match item {
            Item::ToEdge { from, bytes } => self.on_sip(from, bytes),
            Item::ToPbx { to, bytes } => self.with_caller(to, |pbx, out| pbx.receive(&bytes, out)),
            Item::ToCallee { to, bytes } => {
                self.with_callee(to, |one, out| one.receive(&bytes, out))
            }
            Item::WakeCallee(to, wake) => self.with_callee(to, |one, out| one.wake(wake, out)),
            Item::HangUp(call_id) => {
                let waited = self.board.hang_up(self.now, &call_id);
                self.say("client", "edge", &format!("hang_up {call_id}: {waited}"));
                self.carry_out();
            }
            Item::RtpToCallee { to } => self.callees[to].rtp_received += 1,
            Item::RtpToEdge { source, port, bytes } => self.on_rtp(source, port, &bytes),
            Item::CalleeSpeaks { callee, packets } => self.on_callee_speaks(callee, packets),
            Item::RtpToPbx { to } => self.callers[to].rtp_received += 1,
            Item::Act(caller, Action::TakeOver(other)) => self.take_over(caller, other),
            Item::Act(caller, action) => self.with_caller(caller, |pbx, out| pbx.act(action, out)),
            Item::Wake(caller, wake) => self.with_caller(caller, |pbx, out| pbx.wake(&wake, out)),
            Item::Answer(job, input) => self.on_answer(job, *input),
            Item::Command(ForCall { call, what }) => self.on_media_command(call, what),
            Item::Event(event) => {
                self.say_event(&event);
                self.handle(Input::Media(event));
            }
            Item::Stream(call, stream, step) => self.on_stream(call, stream, step),
            Item::Edge(input) => self.handle(*input),
        }
    }

    fn handle(&mut self, input: Input) {
        self.board.handle(self.now, input);
        self.carry_out();
    }

    fn on_sip(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        let flow = self.flow_to(from);
        if bytes.starts_with(b"INVITE ") {
            self.invites.entry(ladder::call_and_cseq(&bytes)).or_default();
        }
        let message = Message::parse(Bytes::from(bytes), Framing::Datagram);
        let message = message.unwrap_or_else(|fault| panic!("the PBX wrote {fault:?}"));
        self.handle(Input::Message { flow, message });
    }

    fn with_caller(&mut self, index: usize, act: impl FnOnce(&mut Caller, &mut Vec<Out>)) {
        let mut outs = Vec::new();
        act(&mut self.callers[index], &mut outs);
        for out in outs {
            match out {
                Out::Send(bytes) => self.send_up(index, bytes),
                Out::Rtp(to, bytes) => {
                    self.send_rtp_up(self.callers[index].media, to.port(), bytes);
                }
                Out::Wake(wait, wake) => self.enter_in(wait, Item::Wake(index, wake)),
            }
        }
    }

    /// A caller asks for the place of another; where that one has no dialog, of nobody.
    fn take_over(&mut self, caller: usize, other: usize) {
        let former = &self.callers[other];
        let tag = former.to_tag.as_deref().unwrap_or("nobody");
        let (call_id, name) = (former.call_id(), &former.name);
        let replaces = format!("Replaces: {call_id};to-tag={tag};from-tag=from-{name}");
        self.callers[caller].headers.push(replaces);
        self.with_caller(caller, |pbx, out| pbx.act(Action::Invite, out));
    }

    fn send_rtp_up(&mut self, source: SocketAddr, port: u16, bytes: Vec<u8>) {
        for wait in self.network.arrivals(self.network.media).into_iter().flatten() {
            self.enter_in(wait, Item::RtpToEdge { source, port, bytes: bytes.clone() });
        }
    }

    /// 20 ms of µ-law, and the rest later.
    fn on_callee_speaks(&mut self, callee: usize, packets: u16) {
        let Some(left) = packets.checked_sub(1) else { return };
        let own = [self.callees[callee].media, self.callees[callee].other_media];
        let mut legs = self.slots.values().flat_map(|slot| &slot.legs);
        let found = legs.find_map(|side| {
            side.remote.filter(|remote| own.contains(remote)).map(|remote| (remote, side.port))
        });
        let speaks =
            !self.callees[callee].manner.waits_for_rtp || self.callees[callee].rtp_received > 0;
        if let Some((media, port)) = found.filter(|_| speaks) {
            // Sequence and timestamp follow the time.
            let number = u32::try_from(self.now.at.as_nanos() / 20_000_000).unwrap_or_default();
            let mut packet = vec![0x80, 0];
            packet.extend((number as u16).to_be_bytes());
            packet.extend((number * 160).to_be_bytes());
            packet.extend((callee as u32 + 900).to_be_bytes());
            packet.extend([0x55; 160]);
            self.send_rtp_up(media, port, packet);
        }
        self.enter_in(Duration::from_millis(20), Item::CalleeSpeaks { callee, packets: left });
    }

    fn with_callee(&mut self, to: usize, act: impl FnOnce(&mut Callee, &mut Vec<callee::Out>)) {
        let mut outs = Vec::new();
        act(&mut self.callees[to], &mut outs);
        let (name, address) = (self.callees[to].name.clone(), self.callees[to].address);
        for out in outs {
            match out {
                callee::Out::Send(bytes) => self.send_to_edge(&name, address, bytes),
                callee::Out::Wake(wait, wake) => self.enter_in(wait, Item::WakeCallee(to, wake)),
            }
        }
    }

    fn send_up(&mut self, from: usize, bytes: Vec<u8>) {
        let (name, address) = (self.callers[from].name.clone(), self.callers[from].address);
        self.send_to_edge(&name, address, bytes);
    }

    fn send_to_edge(&mut self, name: &str, from: SocketAddr, bytes: Vec<u8>) {
        let label = ladder::message(&bytes);
        let arrivals = self.arrivals(self.network.up, &label);
        self.say(name, "edge", &marked(&label, arrivals));
        for wait in arrivals.into_iter().flatten() {
            self.enter_in(wait, Item::ToEdge { from, bytes: bytes.clone() });
        }
    }

    fn send_down(&mut self, to: SocketAddr, bytes: Bytes) {
        let label = ladder::message(&bytes);
        if bytes.starts_with(b"REGISTER ") {
            return self.register(to, &bytes, &label);
        }
        if let Some(to) = self.callees.iter().position(|callee| callee.address == to) {
            let arrivals = self.arrivals(self.network.down, &label);
            let name = self.callees[to].name.clone();
            self.say("edge", &name, &marked(&label, arrivals));
            for wait in arrivals.into_iter().flatten() {
                self.enter_in(wait, Item::ToCallee { to, bytes: bytes.clone() });
            }
            return;
        }
        let index = self.callers.iter().position(|caller| caller.address == to);
        let index = index.unwrap_or_else(|| panic!("{label} was sent to {to}, who is nobody"));
        let arrivals = self.arrivals(self.network.down, &label);
        let name = self.callers[index].name.clone();
        if label.starts_with("200 INVITE 1 ") {
            let (id, now) = (self.callers[index].call_id(), self.now.at);
            let facts = self.facts.values_mut().find(|facts| facts.sip_call_id == id);
            let mut headers = self.callers[index].headers.iter();
            let takes_over = headers.any(|line| line.starts_with("Replaces:"));
            match facts {
                Some(facts) => {
                    facts.answered.get_or_insert(now);
                }
                None => assert!(takes_over, "an answered call has a record"),
            }
        }
        let shed =
            label.starts_with("503 ") && SHED_WORDS.iter().any(|words| label.contains(words));
        if let Some((status, tag)) = ladder::final_answer(&bytes).filter(|_| !shed)
            && let Some(answers) = self.invites.get_mut(&ladder::call_and_cseq(&bytes))
        {
            answers.insert((status, tag));
        }
        self.say("edge", &name, &marked(&label, arrivals));
        for wait in arrivals.into_iter().flatten() {
            self.enter_in(wait, Item::ToPbx { to: index, bytes: bytes.clone() });
        }
    }

    /// A REGISTER and its answer, on a network without loss.
    fn register(&mut self, to: SocketAddr, bytes: &[u8], label: &str) {
        let text = std::str::from_utf8(bytes).expect("our own text");
        let expires = ladder::header(text, "Expires").unwrap_or_default();
        self.say("edge", "registrar", &format!("{label} expires {expires}"));
        let registrar = self.registrars.iter_mut().find(|registrar| registrar.address == to);
        let registrar = registrar.unwrap_or_else(|| panic!("{label} was sent to {to}"));
        let Some(answer) = registrar.answer(text) else { return };
        self.say("registrar", "edge", &ladder::message(answer.as_bytes()));
        let message = Message::parse(Bytes::from(answer), Framing::Datagram).expect("well formed");
        let flow = self.flow_to(to);
        self.edge_in(Duration::from_millis(5), Input::Message { flow, message });
    }

    fn edge_in(&mut self, wait: Duration, input: Input) {
        self.enter_in(wait, Item::Edge(Box::new(input)));
    }

    fn arrivals(&mut self, path: network::Path, label: &str) -> [Option<Duration>; 2] {
        match self.network.is_cursed(label) {
            true => [None, None],
            false => self.network.arrivals(path),
        }
    }

    /// Does what the edge asks for.
    fn carry_out(&mut self) {
        while let Some(command) = self.board.poll_command() {
            match command {
                Command::KeepEarlyMedia { early, .. } => {
                    self.say("edge", "store", &format!("early media: {}", early.figures));
                }
                Command::Send { flow, to, bytes } => {
                    let to = match to {
                        Destination::Peer => flow.peer,
                        Destination::Address(address) => address,
                    };
                    self.send_down(to, bytes);
                }
                Command::AskFallback { job, call: _, post, budget } => {
                    self.ask_fallback(job, &post, budget);
                }
                Command::FetchAgent { job, call: _, agent_id } => self.fetch_agent(job, &agent_id),
                Command::CreateAgentCall { job, call, agent_id, prior, body, budget } => {
                    if let Some(prior) = &prior {
                        self.say("edge", "rest", &format!("goes on with {prior}"));
                    }
                    self.create_agent_call(job, call, agent_id.as_deref(), body, budget);
                }
                Command::FetchStage { job, call: _, call_id } => {
                    self.say("edge", "rest", &format!("GET stage of {call_id}"));
                    let stage = Stage { system_prompt: "Be kind.".into(), tools: Vec::new() };
                    self.begin_job(job, 60, Input::StageFetched { job, result: Ok(stage) });
                }
                Command::FetchSound { job, call: _, url, budget: _ } => self.fetch_sound(job, &url),
                Command::AbortJob(job) => {
                    assert!(self.jobs.contains(&job), "{job:?} is aborted and does not run");
                    self.say("edge", "rest", "abort");
                    self.aborted.insert(job);
                }
                Command::Media(command) => {
                    self.note_command(&command);
                    self.enter_in(HAND_OVER, Item::Command(command));
                }
                Command::Tell { call: _, deed } => self.tally.add(deed),
                Command::Record { cdr, ladder: _ } => {
                    self.say("edge", "store", &ladder::record(&cdr));
                    let facts = self.facts.entry(cdr.key).or_default();
                    facts.sip_call_id = cdr.sip_call_id.clone();
                    facts.records.push(*cdr);
                }
                Command::KeepFlow { .. }
                | Command::KeepAlive { .. }
                | Command::CloseFlow { .. } => {}
                Command::AdmitSource { address, admit } => {
                    *self.admitted.entry(address).or_default() += if admit { 1 } else { -1 };
                }
                Command::CreateOutgoing { job, call, agent_id, query: _, body, budget } => {
                    let id = agent_id.unwrap_or_default();
                    self.create_outgoing(job, call, &id, body, budget);
                }
                Command::DialAnswered { asked: _, result } => {
                    let text = match result.as_ref() {
                        Ok(call) => format!("201 {}", call["callId"].as_str().unwrap_or("?")),
                        Err(refusal) => format!("{refusal:?}"),
                    };
                    self.say("edge", "client", &text);
                    self.dialled.push(*result);
                }
                Command::Locate { ticket, target, seed: _ } => {
                    let result = self.locate(&target);
                    self.edge_soon(Input::Located { ticket, result });
                }
                Command::Connect { ticket, hop } => {
                    let result = Ok(self.flow_to(hop.address));
                    self.edge_soon(Input::Connected { ticket, result });
                }
                Command::KeepBinding { registration, binding } => {
                    self.kept_bindings.insert(registration, binding);
                }
                Command::RegistrationChanged { registration, successful, reason } => {
                    let line = format!("{registration} {successful:?} {reason}");
                    self.say("edge", "log", &line);
                }
                Command::Alarm { call: _, words } => self.say("edge", "log", &words),
                Command::Drained => {
                    self.drained += 1;
                    self.say("edge", "shell", "drained");
                }
            }
        }
    }

    /// The listener that this peer is spoken with over, and all of its own.
    fn flow_to(&self, peer: SocketAddr) -> Flow {
        let usual = (Transport::Udp, "198.51.100.1:5060".parse().expect("an address"));
        let (transport, local) = self.ways.get(&peer).copied().unwrap_or(usual);
        let id = FlowId(if local.port() == 5060 { 1 } else { local.port().into() });
        Flow { id, transport, local, peer }
    }

    /// Addresses, and the names that the scenario knows, by their way.
    fn locate(&self, target: &Target) -> Result<Vec<Hop>, LocateFault> {
        let addresses = match &target.host {
            TargetHost::Address(ip) => {
                vec![SocketAddr::new(*ip, target.port.unwrap_or(5060))]
            }
            TargetHost::Name(name) => self.names.get(name).cloned().unwrap_or_default(),
        };
        let hop = |address| {
            let transport = self.flow_to(address).transport;
            Hop { transport, address, identity: target.host.clone() }
        };
        match addresses.is_empty() {
            true => Err(LocateFault::NoSuchName),
            false => Ok(addresses.into_iter().map(hop).collect()),
        }
    }

    /// The shell's answer, a millisecond later.
    fn edge_soon(&mut self, input: Input) {
        self.enter_in(HAND_OVER, Item::Edge(Box::new(input)));
    }

    fn ask_fallback(&mut self, job: JobId, post: &Post, budget: Duration) {
        let body = String::from_utf8_lossy(&post.body);
        self.say("edge", "hook", &format!("POST {body}"));
        let signatures = post.signature.split(',').count();
        assert_eq!((post.url.as_str(), signatures), ("https://hooks.example/sip", 2));
        let (mut latency, mut result) = match self.hook.len() {
            1 => self.hook[0].clone(),
            _ => self.hook.remove(0),
        };
        let budget_ms = budget.as_millis() as u64;
        if latency > budget_ms {
            (latency, result) = (budget_ms, Err(FallbackFault::TimedOut));
        }
        self.begin_job(job, latency, Input::FallbackDecided { job, result });
    }

    /// A hundredth of a second of silence, unless the URL has no `.wav`.
    fn fetch_sound(&mut self, job: JobId, url: &str) {
        self.say("edge", "web", "GET sound");
        let sound = Sound { hz: 16_000, pcm: vec![0; 160].into(), repeats: true };
        let result = match url.ends_with(".wav") {
            true => Ok(Arc::new(sound)),
            false => Err(SoundFault::Status(404)),
        };
        self.begin_job(job, 80, Input::SoundFetched { job, result });
    }

    fn fetch_agent(&mut self, job: JobId, id: &str) {
        let script = self.service.draw();
        self.say("edge", "rest", &format!("GET agent {}", &id[..8]));
        let result = script.fetch.1.map(|()| agent::agent(id, script.schema));
        self.begin_job(job, script.fetch.0, Input::AgentFetched { job, result });
    }

    fn create_agent_call(
        &mut self,
        job: JobId,
        call: CallKey,
        id: Option<&str>,
        body: serde_json::Value,
        budget: Duration,
    ) {
        let context = body.get("templateContext").map(|context| format!("  {context}"));
        let whose = id.map_or("nobody", |id| &id[..8]);
        let text = format!("POST call of {whose}{}", context.unwrap_or_default());
        let shape = match id {
            Some(_) => &schema::START_AGENT_CALL,
            None => &schema::START_CALL,
        };
        assert_eq!(schema::check_start(shape, &body), [], "{body}");
        self.say("edge", "rest", &text);
        self.facts.entry(call).or_default().creations.push(body);
        let (mut latency, mut result) = self.service.creation();
        let budget_ms = budget.as_millis() as u64;
        if latency > budget_ms {
            (latency, result) = (budget_ms, Err(CreateFault::TimedOut));
        }
        self.begin_job(job, latency, Input::AgentCallAnswered { job, result });
    }

    fn create_outgoing(
        &mut self,
        job: JobId,
        call: CallKey,
        id: &str,
        body: serde_json::Value,
        budget: Duration,
    ) {
        let first = &body["firstSpeakerSettings"];
        let text = format!("POST call of {}  {first}  {}", &id[..8], body["joinTimeout"]);
        self.say("edge", "rest", &text);
        self.facts.entry(call).or_default().creations.push(body);
        let (mut latency, mut result) = self.service.creation();
        let budget_ms = budget.as_millis() as u64;
        if latency > budget_ms {
            (latency, result) = (budget_ms, Err(CreateFault::TimedOut));
        }
        let result = result.map_err(|fault| {
            let refused = (400, serde_json::json!({ "detail": "no" }));
            let answer = (fault == CreateFault::BadRequest).then_some(refused);
            ServiceRefusal { fault, answer }
        });
        self.begin_job(job, latency, Input::OutgoingCallAnswered { job, result });
    }

    fn begin_job(&mut self, job: JobId, latency_ms: u64, answer: Input) {
        assert!(self.jobs.insert(job), "{job:?} runs already");
        self.enter_in(Duration::from_millis(latency_ms), Item::Answer(job, Box::new(answer)));
    }

    /// An aborted job has no answer, but for one that was on its way already.
    fn on_answer(&mut self, job: JobId, input: Input) {
        self.jobs.remove(&job);
        if self.aborted.remove(&job) && self.entropy.below(4) != 0 {
            return;
        }
        let from = if matches!(input, Input::FallbackDecided { .. }) { "hook" } else { "rest" };
        let text = match &input {
            Input::FallbackDecided { result: Ok(decision), .. } => format!("{decision:?}"),
            Input::FallbackDecided { result: Err(fault), .. } => format!("{fault:?}"),
            Input::AgentFetched { result: Ok(_), .. } => "200 agent".to_owned(),
            Input::AgentCallAnswered { result: Ok(_), .. }
            | Input::OutgoingCallAnswered { result: Ok(_), .. } => "201 call".to_owned(),
            Input::StageFetched { result: Ok(_), .. } => "200 stage".to_owned(),
            Input::SoundFetched { result, .. } => format!("{result:?}"),
            Input::OutgoingCallAnswered { result: Err(refused), .. } => {
                format!("{:?}", refused.fault)
            }
            Input::AgentFetched { result: Err(fault), .. }
            | Input::AgentCallAnswered { result: Err(fault), .. } => format!("{fault:?}"),
            _ => unreachable!("jobs have no other answers"),
        };
        self.say(from, "edge", &text);
        self.handle(input);
    }

    /// Whoever speaks to somebody hears somebody: an agent, the other leg, music. A target that rings
    /// hears nobody yet, while the caller hears it and the music.
    fn note_scene(&mut self, call: CallKey, scene: &Scene) {
        let legs = |ports: Vec<Port>| -> Vec<Port> {
            ports.into_iter().filter(|port| matches!(port, Port::Leg(_))).collect()
        };
        let listeners = legs(scene.pairs().map(|(listener, _)| listener).collect());
        let speakers = legs(scene.pairs().map(|(_, speaker)| speaker).collect());
        let plays = scene.pairs().any(|(_, speaker)| speaker == Port::Sound);
        let is_deaf = |leg: &Port| !plays && !listeners.contains(leg);
        if listeners.is_empty() || speakers.iter().any(is_deaf) {
            self.deaf.push(format!("{call}: {}", arranged(scene)));
        }
    }

    fn note_command(&mut self, command: &ForCall<MediaCommand>) {
        if let MediaCommand::Arrange { scene } = &command.what {
            self.note_scene(command.call, scene);
        }
        let text = match &command.what {
            MediaCommand::Open { plan, .. } => {
                let leg = &plan.leg;
                let codec = leg.codec.kind.encoding_name();
                match leg.remote.rtp {
                    Some(_) => format!("open {codec} {:?}", leg.direction),
                    None => format!("open {codec} {:?}, {:?}", leg.direction, plan.agent),
                }
            }
            MediaCommand::Prepare { stream: StreamId::FIRST, .. } => "prepare".into(),
            MediaCommand::Join { stream: StreamId::FIRST } => "join".into(),
            MediaCommand::Change { leg: LegId::CALLER, revision, plan } => {
                let codec = plan.codec.kind.encoding_name();
                format!("change {revision} {codec} {:?}", plan.direction)
            }
            MediaCommand::SendText { stream: StreamId::FIRST, text } => format!("text {text}"),
            MediaCommand::OpenLeg { leg, plan, .. } => {
                format!("open leg {} {}", leg.0, plan.codec.kind.encoding_name())
            }
            MediaCommand::Change { leg, revision, plan } => {
                let codec = plan.codec.kind.encoding_name();
                format!("change leg {} {revision} {codec} {:?}", leg.0, plan.direction)
            }
            MediaCommand::CloseLeg { leg } => format!("close leg {}", leg.0),
            MediaCommand::Prepare { stream, .. } => format!("prepare agent {}", stream.0),
            MediaCommand::Join { stream } => format!("join agent {}", stream.0),
            MediaCommand::LeaveStream { stream } => format!("leave agent {}", stream.0),
            MediaCommand::SendText { stream, text } => format!("text to agent {} {text}", stream.0),
            MediaCommand::Arrange { scene } => format!("arrange {}", arranged(scene)),
            MediaCommand::Play { sound: None } => "play nothing".into(),
            MediaCommand::Play { sound: Some(sound) } => format!("play {sound:?}"),
            MediaCommand::Close => {
                let facts = self.facts.entry(command.call).or_default();
                facts.torn_down.get_or_insert(self.now.at);
                "close".into()
            }
            other => format!("{other:?}"),
        };
        self.say("edge", "media", &text);
    }

    fn say_event(&mut self, event: &ForCall<MediaEvent>) {
        let text = match &event.what {
            MediaEvent::Closed(report) => {
                format!("closed  rtp {} in {} out", report.packets_received, report.packets_sent)
            }
            MediaEvent::LegHeard { leg: LegId::CALLER, source } => {
                format!("caller heard at {source}")
            }
            MediaEvent::LegHeard { leg, source } => format!("leg {} heard at {source}", leg.0),
            MediaEvent::LegOpened { leg } => format!("leg {} opened", leg.0),
            MediaEvent::LegClosed { leg, report } => {
                let (received, sent) = (report.packets_received, report.packets_sent);
                format!("leg {} closed  rtp {received} in {sent} out", leg.0)
            }
            MediaEvent::AgentText { stream, text } => format!("agent {} says {text}", stream.0),
            MediaEvent::Prepared { stream: StreamId::FIRST } => "Prepared".into(),
            MediaEvent::Joined { stream: StreamId::FIRST } => "Joined".into(),
            MediaEvent::PrepareFailed { stream: StreamId::FIRST, fault } => {
                format!("PrepareFailed({fault:?})")
            }
            MediaEvent::JoinFailed { stream: StreamId::FIRST, fault } => {
                format!("JoinFailed({fault:?})")
            }
            MediaEvent::AgentEnded { stream: StreamId::FIRST } => "AgentEnded".into(),
            MediaEvent::AgentLeft { stream: StreamId::FIRST, close } => {
                format!("AgentLeft {{ close: {close:?} }}")
            }
            MediaEvent::LegSilent { leg: LegId::CALLER } => "CallerSilent".into(),
            MediaEvent::HeldTooLong { leg: LegId::CALLER } => "HeldTooLong".into(),
            MediaEvent::Changed { leg: LegId::CALLER, revision } => {
                format!("Changed {{ revision: {revision} }}")
            }
            other => format!("{other:?}"),
        };
        self.say("media", "edge", &text);
    }

    fn on_media_command(&mut self, call: CallKey, command: MediaCommand) {
        if let MediaCommand::Open { plan, port, .. } = &command {
            return self.open_media(call, plan, *port);
        }
        let now = self.now;
        // As in a shard: of a call that is not there, only the close is answered.
        let Some(slot) = self.slots.get_mut(&call) else {
            if command == MediaCommand::Close {
                self.tell(call, MediaEvent::Closed(Box::default()));
            }
            return;
        };
        match command {
            MediaCommand::Open { .. } => {}
            MediaCommand::OpenLeg { leg, plan, port, .. } => {
                self.open_leg(call, leg, &plan, port);
            }
            MediaCommand::CloseLeg { leg } => self.close_leg(call, leg),
            MediaCommand::Prepare { stream, .. } => {
                let (wait, outcome) = self.side(call, stream).script.prepare.clone();
                let event = outcome.map_or_else(
                    |fault| MediaEvent::PrepareFailed { stream, fault },
                    |()| MediaEvent::Prepared { stream },
                );
                let step = Item::Stream(call, stream, StreamStep::Prepared(event));
                self.enter_in(Duration::from_millis(wait), step);
            }
            MediaCommand::Join { stream } => {
                let (wait, outcome) = self.side(call, stream).script.join.clone();
                let event = outcome.map_or_else(
                    |fault| MediaEvent::JoinFailed { stream, fault },
                    |()| MediaEvent::Joined { stream },
                );
                let step = Item::Stream(call, stream, StreamStep::Joined(event));
                self.enter_in(Duration::from_millis(wait), step);
            }
            MediaCommand::LeaveStream { stream } => self.with_slot(call, |slot| {
                slot.session.leave_agent(now, stream);
                if let Some(side) = slot.streams.get_mut(&stream) {
                    side.left.get_or_insert(now.at);
                }
            }),
            MediaCommand::Change { leg, revision, plan } => {
                slot.session.change(now, leg, &plan).expect("a sound plan");
                for side in slot.legs.iter_mut().filter(|side| side.leg == leg) {
                    side.remote = plan.remote.rtp;
                }
                self.with_slot(call, |_| {});
                self.tell(call, MediaEvent::Changed { leg, revision });
            }
            MediaCommand::Arrange { scene } => {
                self.with_slot(call, |slot| slot.session.arrange(now, scene));
            }
            MediaCommand::Play { sound } => {
                self.with_slot(call, |slot| slot.session.play(now, sound));
            }
            MediaCommand::SendKeys { leg, keys, tone, gap } => {
                let keys: Vec<char> = keys.into_iter().map(|key| key.0).collect();
                self.with_slot(call, |slot| slot.session.send_keys(leg, &keys, tone, gap));
            }
            MediaCommand::SendText { stream, text } => self.on_text_of_edge(call, stream, text),
            MediaCommand::Close => self.close_media(call),
        }
    }

    /// The far end of a stream; a new stream gets its script here.
    fn side(&mut self, call: CallKey, stream: StreamId) -> &mut AgentSide {
        let slot = self.slots.get_mut(&call).expect("the call has a slot");
        slot.session.await_agent(self.now, stream);
        let service = &mut self.service;
        slot.streams.entry(stream).or_insert_with(|| AgentSide::new(service.draw_further()))
    }

    /// The agent hears what the edge says to it, and perhaps has an answer.
    fn on_text_of_edge(&mut self, call: CallKey, stream: StreamId, text: String) {
        let Some(slot) = self.slots.get_mut(&call) else { return };
        let side = slot.streams.get_mut(&stream).filter(|side| side.left.is_none());
        let Some(side) = side.filter(|side| side.joined.is_some()) else { return };
        let replies = &mut side.script.replies;
        let reply = replies.iter().position(|(words, ..)| text.contains(words.as_str()));
        let reply = reply.map(|index| replies.remove(index));
        self.facts.entry(call).or_default().texts.push((stream, text));
        if let Some((_, wait, answer)) = reply {
            let step = Item::Stream(call, stream, StreamStep::Text(answer));
            self.enter_in(Duration::from_millis(wait), step);
        }
    }

    fn open_media(&mut self, call: CallKey, plan: &MediaPlan, port: u16) {
        let facts = self.facts.entry(call).or_default();
        facts.opens += 1;
        if self.ports_taken > 0 {
            self.ports_taken -= 1;
            facts.unbound += 1;
            return self.tell(call, MediaEvent::BindFailed);
        }
        assert!(!self.slots.contains_key(&call), "media was opened twice");
        let session = MediaSession::new(self.now, plan, self.entropy.fork()).expect("a sound plan");
        let slot = Slot {
            session,
            rates: plan.agent,
            legs: vec![LegSide { leg: LegId::CALLER, port, remote: plan.leg.remote.rtp }],
            streams: BTreeMap::from([(StreamId::FIRST, AgentSide::new(self.service.draw()))]),
        };
        assert_eq!(self.by_port.insert(port, (call, LegId::CALLER)), None, "one port, two calls");
        self.slots.insert(call, slot);
        self.tell(call, MediaEvent::Opened);
    }

    fn open_leg(&mut self, call: CallKey, leg: LegId, plan: &LegPlan, port: u16) {
        if self.ports_taken > 0 {
            self.ports_taken -= 1;
            return self.tell(call, MediaEvent::LegBindFailed { leg });
        }
        let (now, entropy) = (self.now, self.entropy.fork());
        let slot = self.slots.get_mut(&call).expect("the call has a slot");
        if slot.session.open_leg(now, leg, plan, entropy).is_err() {
            return self.tell(call, MediaEvent::LegBindFailed { leg });
        }
        slot.legs.push(LegSide { leg, port, remote: plan.remote.rtp });
        assert_eq!(self.by_port.insert(port, (call, leg)), None, "one port, two legs");
        self.with_slot(call, |_| {});
        self.tell(call, MediaEvent::LegOpened { leg });
    }

    /// As in a shard, the close of a leg that is not there is answered too.
    fn close_leg(&mut self, call: CallKey, leg: LegId) {
        let now = self.now;
        let mut report = None;
        self.with_slot(call, |slot| {
            slot.legs.retain(|side| side.leg != leg);
            report = slot.session.close_leg(now, leg);
        });
        self.by_port.retain(|_, owner| *owner != (call, leg));
        let report = Box::new(report.unwrap_or_default());
        self.tell(call, MediaEvent::LegClosed { leg, report });
    }

    fn close_media(&mut self, call: CallKey) {
        self.with_slot(call, |_| {});
        let Some(slot) = self.slots.remove(&call) else { return };
        self.by_port.retain(|_, (owner, _)| *owner != call);
        let now = self.now.at;
        let facts = self.facts.entry(call).or_default();
        facts.closeds += 1;
        for (stream, side) in slot.streams {
            let Some(joined) = side.joined else { continue };
            let span = side.left.unwrap_or(now).since(joined);
            let heard = Duration::from_secs(side.samples) / slot.rates.input_hz;
            facts.streams.push(StreamFacts { stream, span, heard });
            if stream == StreamId::FIRST {
                facts.joined = Some(joined);
                (facts.agent_span, facts.agent_heard) = (span, heard);
            }
        }
        self.tell(call, MediaEvent::Closed(Box::new(slot.session.report())));
    }

    fn on_stream(&mut self, call: CallKey, stream: StreamId, step: StreamStep) {
        let now = self.now;
        let Some(slot) = self.slots.get_mut(&call) else { return };
        let output_hz = slot.rates.output_hz as usize;
        let Some(side) = slot.streams.get_mut(&stream) else { return };
        if side.left.is_some() {
            return;
        }
        match step {
            StreamStep::Prepared(event) => self.tell(call, event),
            StreamStep::Joined(MediaEvent::Joined { stream }) => {
                side.joined = Some(now.at);
                let (speech_ms, leaves) = (side.script.speech_ms, side.script.leaves);
                let texts = std::mem::take(&mut side.script.texts);
                self.tell(call, MediaEvent::Joined { stream });
                self.with_slot(call, |slot| {
                    slot.session.handle_agent_joined(now, stream);
                    let pcm = vec![0x11; speech_ms as usize * output_hz / 500];
                    slot.session.handle_agent_audio(now, stream, &pcm);
                });
                if let Some((wait, close)) = leaves {
                    let step = Item::Stream(call, stream, StreamStep::Left(close));
                    self.enter_in(Duration::from_millis(wait), step);
                }
                for (wait, text) in texts {
                    let step = Item::Stream(call, stream, StreamStep::Text(text));
                    self.enter_in(Duration::from_millis(wait), step);
                }
            }
            StreamStep::Joined(event) => self.tell(call, event),
            StreamStep::Text(text) if text.contains("playback_clear_buffer") => {
                self.with_slot(call, |slot| slot.session.handle_agent_clear(now, stream));
            }
            StreamStep::Text(text) => self.tell(call, MediaEvent::AgentText { stream, text }),
            StreamStep::Left(close) => {
                let name = match stream {
                    StreamId::FIRST => "agent".to_owned(),
                    StreamId(number) => format!("agent{}", number + 1),
                };
                self.say(&name, "media", &format!("{close:?}"));
                self.with_slot(call, |slot| {
                    if let Some(side) = slot.streams.get_mut(&stream) {
                        side.left = Some(now.at);
                    }
                    slot.session.handle_agent_closed(now, stream, close);
                });
            }
        }
    }

    fn on_rtp(&mut self, source: SocketAddr, port: u16, bytes: &[u8]) {
        let now = self.now;
        let Some((call, leg)) = self.by_port.get(&port).copied() else { return };
        self.with_slot(call, |slot| {
            slot.session.handle_rtp(now, leg, source, bytes);
        });
    }

    /// Works on one session and then does what that made due, as a shard does.
    fn with_slot(&mut self, call: CallKey, work: impl FnOnce(&mut Slot)) {
        let Some(slot) = self.slots.get_mut(&call) else { return };
        work(slot);
        for (stream, side) in &mut slot.streams {
            let Some(uplink) = slot.session.uplink(*stream) else { continue };
            while let Some(frame) = uplink.pop() {
                if side.left.is_none() {
                    side.samples += frame.len() as u64;
                }
            }
        }
        let (mut buffer, mut sent, mut events) = ([0; 1500], Vec::new(), Vec::new());
        while let Some(transmit) = slot.session.poll_transmit(self.now, &mut buffer) {
            sent.push(transmit.to);
            let packet = &buffer[..transmit.len];
            let stream = self.streams.entry(transmit.to).or_default();
            match RtpPacket::parse(packet) {
                Ok(view) if !(192..=223).contains(&packet[1]) => stream.0 = view.header.ssrc,
                Ok(_) | Err(_) => stream.1 += u32::from(is_extended(packet)),
            }
        }
        while let Some(event) = slot.session.poll_event() {
            events.push(event);
        }
        let ringing = slot.streams.values().all(|side| side.joined.is_none());
        for event in events {
            if ringing && matches!(event, MediaEvent::LegHeard { .. }) {
                self.facts.entry(call).or_default().early_media = true;
            }
            self.tell(call, event);
        }
        for to in sent {
            let caller = self.callers.iter().position(|caller| caller.media == to);
            let listens = |callee: &Callee| [callee.media, callee.other_media].contains(&to);
            let callee = self.callees.iter().position(listens);
            for wait in self.network.arrivals(self.network.media).into_iter().flatten() {
                match (caller, callee) {
                    (Some(to), _) => self.enter_in(wait, Item::RtpToPbx { to }),
                    (None, Some(to)) => self.enter_in(wait, Item::RtpToCallee { to }),
                    (None, None) => {}
                }
            }
        }
    }

    fn tell(&mut self, call: CallKey, what: MediaEvent) {
        self.enter_in(HAND_OVER, Item::Event(ForCall { call, what }));
    }
}

/// A compound of RTCP with an extended report in it.
fn is_extended(packet: &[u8]) -> bool {
    let mut parts = Compound::parse(packet).into_iter().flatten();
    parts.any(|part| matches!(part, Part::Extended { .. }))
}

/// Who hears whom, listeners first.
fn arranged(scene: &Scene) -> String {
    let name = |port: Port| match port {
        Port::Leg(leg) => format!("leg {}", leg.0),
        Port::Agent(stream) => format!("agent {}", stream.0),
        Port::Sound => "sound".to_owned(),
    };
    let pair = |(listener, speaker)| format!("{} ← {}", name(listener), name(speaker));
    let opened = scene.opened().map(|leg| format!("leg {} opened", leg.0));
    scene.pairs().map(pair).chain(opened).collect::<Vec<_>>().join(", ")
}

fn at_ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// The label with a word on what the network does to it.
fn marked(label: &str, arrivals: [Option<Duration>; 2]) -> String {
    let word = match arrivals {
        [None, _] => "  (lost)",
        [Some(_), None] => "",
        [Some(_), Some(_)] => "  (doubled)",
    };
    format!("{label}{word}")
}
