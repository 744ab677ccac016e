//! A seeded storm of requests in dialogs: both sides offer, refer, refresh and inform over a network that
//! loses, doubles and reorders, and cross each other; or over connections that break and are made anew.
//! The peer is another user agent, so that both roles and every glare are played by the real thing. At the end of every run each session ended once,
//! each request had its one answer, and nothing is left on either side.

use super::*;
use crate::ground::Instant;
use bytes::Bytes;
use std::collections::BTreeSet;

const CALLS: u64 = 3;
const SDP: &[u8] = b"v=0";

/// Which of the two user agents.
type Side = usize;

enum Step {
    /// On the connection with this number.
    Arrive(Side, u64, Bytes),
    /// The connection between the two breaks.
    Break,
    Dial,
    Accept(Side, SessionId),
    Answer(Side, RequestToken),
    Respond(Side, RequestToken, u16),
    Notify(Side, SessionId, u32, u16),
    Act(Side, SessionId),
    Acknowledge(Side, SessionId),
    Bye(Side, SessionId),
    Located(Side, u64),
    Connected(Side, u64),
}

/// What one side heard of its own requests.
#[derive(Default)]
struct Heard {
    /// Requests, re-INVITEs and referrals that have no end yet.
    asked: BTreeSet<(SessionId, RequestId)>,
    offers: BTreeSet<SessionId>,
    referrals: BTreeSet<SessionId>,
    alive: BTreeSet<SessionId>,
    ended: Vec<SessionId>,
    done: u32,
    glares: u32,
}

struct Storm {
    agents: [UserAgent; 2],
    heard: [Heard; 2],
    transport: Transport,
    /// Over streams, the number of the connection that is up.
    connection: u64,
    chance: Entropy,
    now: Now,
    steps: BTreeMap<(Instant, u64), Step>,
    count: u64,
}

impl Storm {
    fn new(seed: u64, transport: Transport) -> Storm {
        let config = || UaConfig { session_interval: secs(90), ..UaConfig::default() };
        let agent = |number| UserAgent::new(config(), Entropy::from_number(number));
        let mut storm = Storm {
            agents: [agent(seed), agent(seed ^ 0xffff)],
            heard: [Heard::default(), Heard::default()],
            transport,
            connection: 1,
            chance: Entropy::from_number(!seed),
            now: Now::default(),
            steps: BTreeMap::new(),
            count: 0,
        };
        for _ in 0..CALLS {
            storm.within(3_000, Step::Dial);
        }
        if transport.is_reliable() {
            for _ in 0..4 {
                storm.within(120_000, Step::Break);
            }
        }
        storm
    }

    fn within(&mut self, ms: u64, step: Step) {
        self.count += 1;
        let after = Duration::from_millis(self.chance.below(ms + 1));
        self.steps.insert((self.now.at + after, self.count), step);
    }

    fn run(mut self, seed: u64) -> (u32, u32) {
        loop {
            let step = self.steps.keys().next().copied();
            let timers = self.agents.iter().filter_map(UserAgent::poll_timeout);
            let Some(at) = timers.chain(step.map(|(at, _)| at)).min() else { break };
            assert!(at < Instant::ZERO + secs(1_200), "seed {seed} never ends");
            self.now = Now::default().later(at.since(Instant::ZERO));
            match step.filter(|(due, _)| *due <= at).and_then(|key| self.steps.remove(&key)) {
                Some(step) => self.take(step),
                None => {
                    for side in 0..2 {
                        self.with(side, |agent, now, out| agent.handle_timeout(now, out));
                    }
                }
            }
        }
        for (side, (agent, heard)) in self.agents.iter().zip(&self.heard).enumerate() {
            let ended: BTreeSet<SessionId> = heard.ended.iter().copied().collect();
            assert_eq!(ended.len(), heard.ended.len(), "seed {seed}/{side}: ended twice");
            assert!(heard.alive.is_empty(), "seed {seed}/{side}: {:?} never ended", heard.alive);
            assert!(heard.asked.is_empty(), "seed {seed}/{side}: {:?} unanswered", heard.asked);
            assert!(heard.offers.is_empty(), "seed {seed}/{side}: {:?} open", heard.offers);
            assert!(heard.referrals.is_empty(), "seed {seed}/{side}: {:?} open", heard.referrals);
            assert_eq!((agent.transactions(), agent.sessions()), (0, 0), "seed {seed}/{side}");
            assert_eq!(agent.requests_under_way(), 0, "seed {seed}/{side}");
            assert!(agent.transactions.is_empty() && agent.dialogs.is_empty(), "seed {seed}");
            assert!(agent.errands.is_empty(), "seed {seed}/{side}");
        }
        let heard = &self.heard;
        (heard[0].done + heard[1].done, heard[0].glares + heard[1].glares)
    }

    /// Lets one side act, then sends what it says and takes what it tells.
    fn with<T>(
        &mut self,
        side: Side,
        act: impl FnOnce(&mut UserAgent, Now, &mut Vec<UaOutput>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let result = act(&mut self.agents[side], self.now, &mut out);
        for output in out {
            match output {
                UaOutput::Send { flow, bytes, .. } => self.carry(1 - side, flow, &bytes),
                UaOutput::Connect { ticket, .. } => self.within(20, Step::Connected(side, ticket)),
                UaOutput::Locate { ticket, .. } => self.within(20, Step::Located(side, ticket)),
                UaOutput::Event(event) => self.on_event(side, event),
            }
        }
        result
    }

    /// One packet in eight is lost, one in ten doubled; each takes up to 300 ms. A stream delivers all
    /// as long as it is up; what it does not keep is the order of two.
    fn carry(&mut self, to: Side, flow: Flow, bytes: &Bytes) {
        let copies = match self.transport.is_reliable() {
            true => 1,
            false if self.chance.below(8) == 0 => 0,
            false => 1 + u64::from(self.chance.below(10) == 0),
        };
        for _ in 0..copies {
            self.within(300, Step::Arrive(to, flow.id.0, bytes.clone()));
        }
    }

    /// The flow on which a side hears the other now.
    fn way(&self, side: Side) -> Flow {
        let local = address(side).parse().expect("an address");
        let (id, transport) = (FlowId(self.connection), self.transport);
        Flow { id, transport, local, ..flow(address(1 - side)) }
    }

    fn take(&mut self, step: Step) {
        let sdp = Some(("application/sdp", SDP));
        match step {
            Step::Break => {
                let broken = FlowId(self.connection);
                self.connection += 1;
                for side in 0..2 {
                    self.with(side, |agent, now, out| agent.handle_flow_closed(now, broken, out));
                }
            }
            Step::Arrive(_, connection, _) if connection != self.connection => {}
            Step::Arrive(side, _, bytes) => {
                let text = String::from_utf8(bytes.to_vec()).expect("text").replace("\r\n", "\n");
                let flow = self.way(side);
                self.with(side, |agent, now, out| {
                    agent.handle_message(now, flow, parse(&text), out);
                });
            }
            Step::Located(side, ticket) => {
                let hop = Hop {
                    transport: self.transport,
                    address: address(1 - side).parse().expect("an address"),
                    identity: TargetHost::Name("pbx.example.com".into()),
                };
                self.with(side, |agent, now, out| {
                    agent.handle_located(now, ticket, Ok(vec![hop]), out);
                });
            }
            Step::Connected(side, ticket) => {
                let flow = self.way(side);
                self.with(side, |agent, now, out| {
                    agent.handle_connected(now, ticket, Ok(flow), out);
                });
            }
            Step::Dial => self.dial(),
            Step::Accept(side, session) => {
                let _ = self.with(side, |agent, now, out| {
                    agent.ring(now, session, 180, out)?;
                    agent.accept(now, session, &[], sdp, out)
                });
            }
            Step::Answer(side, token) => {
                let rejects = self.chance.below(6) == 0;
                let _ = self.with(side, |agent, now, out| match rejects {
                    true => agent.reject(now, token, &StatusLine::of(488), &[], out),
                    false => agent.answer(now, token, sdp, out),
                });
            }
            Step::Respond(side, token, code) => {
                let status = StatusLine::of(code);
                let _ = self.with(side, |agent, now, out| {
                    agent.respond(now, token, &status, &[], None, out)
                });
            }
            Step::Notify(side, session, cseq, code) => {
                let request = DialogRequest::notify_referral(cseq, code);
                self.ask(side, session, request);
            }
            Step::Acknowledge(side, session) => {
                let answer = Bytes::from_static(SDP);
                let _ =
                    self.with(side, |agent, now, out| agent.acknowledge(now, session, answer, out));
            }
            Step::Bye(side, session) => {
                let _ = self.with(side, |agent, now, out| agent.bye(now, session, None, out));
                // After our goodbye nobody asks for answers.
                self.forget(side, session);
            }
            Step::Act(side, session) => self.act(side, session),
        }
    }

    fn dial(&mut self) {
        let uri = format!("sip:bob@{}", address(1));
        let mut invite =
            OutgoingRequest::new(Method::Invite, &uri, "<sip:us@edge>", "<sip:bob@pbx>");
        invite.body = Some(("application/sdp".into(), SDP.into()));
        if self.chance.below(2) == 0 {
            invite.headers.push(("Require".into(), "100rel".into()));
        }
        let session = self.with(0, |agent, now, out| agent.dial(now, invite, out));
        self.heard[0].alive.insert(session);
    }

    /// Something that a call layer may want, at any time.
    fn act(&mut self, side: Side, session: SessionId) {
        if !self.heard[side].alive.contains(&session) {
            return;
        }
        match self.chance.below(6) {
            0 => self.ask(side, session, DialogRequest::new(Method::Info)),
            1 => self.ask(side, session, DialogRequest::new(Method::Update)),
            2 | 3 => {
                let offer = (self.chance.below(3) > 0).then(|| Bytes::from_static(SDP));
                let wished =
                    self.with(side, |agent, now, out| agent.reoffer(now, session, offer, out));
                if wished.is_ok() {
                    assert!(self.heard[side].offers.insert(session), "one at a time");
                }
            }
            4 => {
                let referral = Referral {
                    refer_to: "<sip:c@example.com>".into(),
                    referred_by: None,
                    headers: Vec::new(),
                    patience: secs(20),
                };
                let asked =
                    self.with(side, |agent, now, out| agent.refer(now, session, referral, out));
                if asked.is_ok() {
                    assert!(self.heard[side].referrals.insert(session), "one at a time");
                }
            }
            _ => self.ask(side, session, DialogRequest::new(Method::Options)),
        }
        self.within(6_000, Step::Act(side, session));
    }

    fn ask(&mut self, side: Side, session: SessionId, request: DialogRequest) {
        let mut out = Vec::new();
        let asked = self.agents[side].request(self.now, session, request, &mut out);
        if let Ok(id) = asked {
            self.heard[side].asked.insert((session, id));
        }
        self.with(side, |_, _, waiting| waiting.append(&mut out));
    }

    /// The session is over for this side: its requests have no answers any more.
    fn forget(&mut self, side: Side, session: SessionId) {
        let heard = &mut self.heard[side];
        heard.asked.retain(|(of, _)| *of != session);
        heard.offers.remove(&session);
        heard.referrals.remove(&session);
    }

    fn on_event(&mut self, side: Side, event: UaEvent) {
        match event {
            UaEvent::Invited { session, .. } => {
                self.heard[side].alive.insert(session);
                self.within(2_000, Step::Accept(side, session));
            }
            UaEvent::Answered { session, .. } | UaEvent::Confirmed { session, .. } => {
                self.within(500, Step::Act(side, session));
                self.within(500, Step::Act(side, session));
                self.within(240_000, Step::Bye(side, session));
            }
            UaEvent::Reoffered { token, .. } => self.within(900, Step::Answer(side, token)),
            UaEvent::InDialog { session, token, request } => {
                let refer = *request.method() == Method::Refer;
                let code = if refer && self.chance.below(4) == 0 { 603 } else { 202 };
                self.within(300, Step::Respond(side, token, code));
                if refer && code == 202 {
                    let cseq = request.cseq().number;
                    for code in [100, 180, 200] {
                        self.within(9_000, Step::Notify(side, session, cseq, code));
                    }
                }
            }
            UaEvent::RequestAnswered { session, request, .. } => {
                assert!(self.heard[side].asked.remove(&(session, request)), "once");
                self.heard[side].done += 1;
            }
            UaEvent::ReofferAnswered { session, .. } => {
                self.heard[side].offers.remove(&session);
                self.heard[side].done += 1;
                self.within(200, Step::Acknowledge(side, session));
            }
            UaEvent::ReofferRefused { session, code, .. } => {
                assert!(self.heard[side].offers.remove(&session), "once, and asked for");
                self.heard[side].glares += u32::from(code == 491);
            }
            UaEvent::ReferDone { session, .. } => {
                assert!(self.heard[side].referrals.remove(&session), "once");
                self.heard[side].done += 1;
            }
            UaEvent::Expired { session } | UaEvent::NeverAcked { session } => {
                self.within(0, Step::Bye(side, session));
            }
            UaEvent::Ended { session, .. }
            | UaEvent::Closed { session, .. }
            | UaEvent::Cancelled { session, .. }
            | UaEvent::Refused { session, .. }
            | UaEvent::DialFailed { session, .. } => {
                assert!(!self.heard[side].referrals.contains(&session), "its end is told first");
                self.forget(side, session);
                self.heard[side].alive.remove(&session);
                self.heard[side].ended.push(session);
            }
            UaEvent::ReferProgress { .. }
            | UaEvent::ReoffersAck { .. }
            | UaEvent::Progress { .. }
            | UaEvent::FlowLost { .. }
            | UaEvent::Moved { .. } => {}
            other => panic!("nobody asked for this: {other:?}"),
        }
    }
}

fn address(side: Side) -> &'static str {
    ["192.0.2.1:5060", "192.0.2.2:5060"][side]
}

#[test]
fn a_hundred_storms_in_dialogs_end_everything_once_and_leave_nothing() {
    let (mut done, mut glares) = (0, 0);
    for seed in 0..100 {
        let (more, crossed) = Storm::new(seed, Transport::Udp).run(seed);
        done += more;
        glares += crossed;
    }
    assert!(done > 1_500, "the storm was none: {done}");
    assert!(glares > 3, "nothing crossed: {glares}");
}

#[test]
fn sixty_storms_over_connections_that_break_leave_nothing_either() {
    let mut done = 0;
    for seed in 1_000..1_060 {
        done += Storm::new(seed, Transport::Tcp).run(seed).0;
    }
    assert!(done > 900, "the storm was none: {done}");
}
