//! A seeded storm of calls of ours: hops that refuse connections, stay silent, challenge, fork,
//! redirect and answer late, over a network that loses, doubles and reorders, with callers who change
//! their mind. At the end of every run each call had one end, every dialog that a peer began was
//! ended by a BYE, and nothing is left.

use super::*;
use crate::ground::{Instant, Secret};
use crate::sip::digest::{Credentials, DigestClient};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::SocketAddr;

const CALLS: u64 = 5;

enum Step {
    ToUs(SocketAddr, String),
    ToPeer(SocketAddr, Bytes),
    Located(u64, usize),
    Connected(u64, Hop),
    Dial,
    Cancel(SessionId),
    Bye(SessionId),
    /// A peer sends its final answer again until it is acknowledged.
    Again {
        at: SocketAddr,
        invite: String,
        tag: String,
        text: String,
        interval_ms: u64,
    },
}

struct Storm {
    agent: UserAgent,
    chance: Entropy,
    now: Now,
    steps: BTreeMap<(Instant, u64), Step>,
    count: u64,
    out: Vec<UaOutput>,
    /// INVITEs that peers know, by branch.
    known: BTreeSet<String>,
    /// When an INVITE was sent first, by branch.
    sent: BTreeMap<String, Instant>,
    /// Of these, those whose final answer is decided.
    decided: BTreeSet<String>,
    /// Final answers that were acknowledged: branch or Call-ID, and tag.
    acked: BTreeSet<(String, String)>,
    /// Dialogs that peers answered, and those that had a BYE: Call-ID and tag.
    answered: BTreeSet<(String, String)>,
    ended: BTreeSet<(String, String)>,
    begun: BTreeSet<SessionId>,
    over: Vec<SessionId>,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let mut storm = Storm {
            agent: UserAgent::new(UaConfig::default(), Entropy::from_number(seed)),
            chance: Entropy::from_number(!seed),
            now: Now::default(),
            steps: BTreeMap::new(),
            count: 0,
            out: Vec::new(),
            known: BTreeSet::new(),
            sent: BTreeMap::new(),
            decided: BTreeSet::new(),
            acked: BTreeSet::new(),
            answered: BTreeSet::new(),
            ended: BTreeSet::new(),
            begun: BTreeSet::new(),
            over: Vec::new(),
        };
        for _ in 0..CALLS {
            storm.within(6_000, Step::Dial);
        }
        storm
    }

    fn within(&mut self, ms: u64, step: Step) {
        self.count += 1;
        let after = Duration::from_millis(self.chance.below(ms + 1));
        self.steps.insert((self.now.at + after, self.count), step);
    }

    /// One packet in five is lost, one in ten doubled; each copy takes up to 300 ms.
    fn carry(&mut self, step: impl Fn() -> Step) {
        if self.chance.below(5) == 0 {
            return;
        }
        for _ in 0..1 + u64::from(self.chance.below(10) == 0) {
            self.within(300, step());
        }
    }

    fn run(mut self, seed: u64) {
        loop {
            let step = self.steps.keys().next().copied();
            let timer = self.agent.poll_timeout();
            let at = match (step, timer) {
                (None, None) => break,
                (Some((at, _)), None) | (None, Some(at)) => at,
                (Some((at, _)), Some(timer)) => at.min(timer),
            };
            assert!(at < Instant::ZERO + secs(900), "seed {seed} never ends");
            self.now = Now::default().later(at.since(Instant::ZERO));
            match step.filter(|(due, _)| *due <= at).and_then(|key| self.steps.remove(&key)) {
                Some(step) => self.take(step),
                None => self.agent.handle_timeout(self.now, &mut self.out),
            }
            self.drain();
        }
        let over: BTreeSet<SessionId> = self.over.iter().copied().collect();
        assert_eq!(over.len(), self.over.len(), "seed {seed}: a call ended twice");
        assert_eq!(over, self.begun, "seed {seed}: each call has its end");
        let lonely: Vec<_> = self.answered.difference(&self.ended).collect();
        assert_eq!(lonely, Vec::<&(String, String)>::new(), "seed {seed}: nobody said goodbye");
        assert_eq!((self.agent.transactions(), self.agent.sessions()), (0, 0), "seed {seed}");
        assert_eq!(self.agent.requests_under_way(), 0, "seed {seed}");
        assert!(self.agent.transactions.is_empty() && self.agent.dialogs.is_empty(), "seed {seed}");
        assert!(self.agent.errands.is_empty(), "seed {seed}");
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::ToUs(from, text) => {
                let flow = flow(&from.to_string());
                self.agent.handle_message(now, flow, parse(&text), &mut self.out);
            }
            Step::ToPeer(at, bytes) => self.on_peer(at, &bytes),
            Step::Located(ticket, count) => {
                let hop = |n: usize| Hop {
                    transport: Transport::Udp,
                    address: format!("192.0.2.{}:5060", n + 1).parse().expect("an address"),
                    identity: TargetHost::Name("pbx.example.com".into()),
                };
                let result = match count {
                    0 => Err(LocateFault::NoSuchName),
                    count => Ok((0..count).map(hop).collect()),
                };
                self.agent.handle_located(now, ticket, result, &mut self.out);
            }
            Step::Connected(ticket, hop) => {
                let result = match self.chance.below(6) {
                    0 => Err(ConnectFault::Unreachable),
                    _ => Ok(flow(&hop.address.to_string())),
                };
                self.agent.handle_connected(now, ticket, result, &mut self.out);
            }
            Step::Dial => self.dial(),
            Step::Cancel(session) => drop(self.agent.cancel(now, session, None, &mut self.out)),
            Step::Bye(session) => drop(self.agent.bye(now, session, None, &mut self.out)),
            Step::Again { at, invite, tag, text, interval_ms } => {
                if interval_ms > 32_000 || self.acked.contains(&(invite.clone(), tag.clone())) {
                    return;
                }
                self.carry(|| Step::ToUs(at, text.clone()));
                let after = Duration::from_millis(interval_ms.min(4_000));
                let again = Step::Again { at, invite, tag, text, interval_ms: interval_ms * 2 };
                self.count += 1;
                self.steps.insert((self.now.at + after, self.count), again);
            }
        }
    }

    fn dial(&mut self) {
        let uri = "sip:bob@pbx.example.com";
        let mut invite =
            OutgoingRequest::new(Method::Invite, uri, "<sip:us@edge>", "<sip:bob@pbx>");
        if self.chance.below(2) == 0 {
            let password = Secret::new("x");
            let credentials = Credentials { username: "us".into(), password };
            invite.credentials = Some(DigestClient::new(credentials));
        }
        let session = self.agent.dial(self.now, invite, &mut self.out);
        self.begun.insert(session);
        if self.chance.below(3) == 0 {
            self.within(4_000, Step::Cancel(session));
        }
        // A person does not let it ring for ever.
        self.count += 1;
        self.steps.insert((self.now.at + secs(20), self.count), Step::Cancel(session));
    }

    /// A peer whose manners depend on the call and on chance.
    fn on_peer(&mut self, at: SocketAddr, bytes: &Bytes) {
        let text = String::from_utf8(bytes.to_vec()).expect("text").replace("\r\n", "\n");
        let Message::Request(request) = parse(&text) else { return };
        let branch = request.via().branch().unwrap_or_default().to_owned();
        let call = request.call_id().to_owned();
        let tag = request.to().tag().unwrap_or_default().to_owned();
        match request.method() {
            Method::Invite => self.on_invite(at, &request, branch),
            Method::Ack => {
                self.acked.insert((branch, tag.clone()));
                self.acked.insert((call, tag));
            }
            Method::Cancel => {
                let ok = reply(&request, 200, "c", "");
                self.carry(|| Step::ToUs(at, ok.clone()));
                if self.known.contains(&branch) && self.decided.insert(branch.clone()) {
                    let text = reply(&request, 487, "x", "").replace("CANCEL", "INVITE");
                    self.finish(at, branch, "x".into(), text);
                }
            }
            _ => {
                if *request.method() == Method::Bye {
                    self.ended.insert((call, tag));
                }
                let ok = reply(&request, 200, "", "");
                self.carry(|| Step::ToUs(at, ok.clone()));
            }
        }
    }

    fn on_invite(&mut self, at: SocketAddr, request: &Request, branch: String) {
        // Who hears the last copy, just before Timer B, and answers after it, finds nobody: the RFC
        // leaves that to the callee, whose 2xx is never acknowledged.
        let first = self.sent.get(&branch).copied().unwrap_or(self.now.at);
        let late = self.now.at.since(first) > secs(25);
        let silent = late || self.chance.below(5) == 0;
        if silent || !self.known.insert(branch.clone()) {
            return;
        }
        if self.chance.below(3) > 0 {
            let ringing = reply(request, 180, "a", "");
            self.carry(|| Step::ToUs(at, ringing.clone()));
        }
        self.decided.insert(branch.clone());
        let open = request.get_named("Authorization").is_some();
        let outcome = self.chance.below(10);
        if !open && outcome == 0 {
            let extra = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\n";
            return self.finish(at, branch, "a".into(), reply(request, 401, "a", extra));
        }
        match outcome {
            1 => self.finish(at, branch, "a".into(), reply(request, 503, "a", "")),
            2 => self.finish(at, branch, "a".into(), reply(request, 486, "a", "")),
            3 => {
                let extra = "Contact: <sip:c@elsewhere>\n";
                self.finish(at, branch, "a".into(), reply(request, 302, "a", extra));
            }
            // Rings, and nothing more.
            4 => drop(self.decided.remove(&branch)),
            outcome => {
                let forks = if outcome > 7 { vec!["a", "b"] } else { vec!["a"] };
                for fork in forks {
                    // Each hop and each try has tags of its own.
                    let tag = format!("{fork}{}", branch.get(24..36).unwrap_or_default());
                    let call = request.call_id().to_owned();
                    let contact = format!("Contact: <sip:bob@{at}>\n");
                    let text = reply(request, 200, &tag, &contact);
                    self.answered.insert((call.clone(), tag.clone()));
                    self.finish(at, call, tag, text);
                }
            }
        }
    }

    fn finish(&mut self, at: SocketAddr, invite: String, tag: String, text: String) {
        let again = Step::Again { at, invite, tag, text, interval_ms: 500 };
        self.within(3_000, again);
    }

    fn drain(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                UaOutput::Send { flow, to, bytes } => {
                    let at = match to {
                        Destination::Address(address) => address,
                        _ => flow.peer,
                    };
                    if bytes.starts_with(b"INVITE ") {
                        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
                        let branch = parse(&text).headers().via().branch().map(str::to_owned);
                        self.sent.entry(branch.expect("ours has one")).or_insert(self.now.at);
                    }
                    self.carry(|| Step::ToPeer(at, bytes.clone()));
                }
                UaOutput::Locate { ticket, .. } => {
                    let count = self.chance.below(8).min(3) as usize;
                    self.within(200, Step::Located(ticket, count));
                }
                UaOutput::Connect { ticket, hop } => self.within(100, Step::Connected(ticket, hop)),
                UaOutput::Event(event) => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: UaEvent) {
        match event {
            UaEvent::Answered { session, .. } => self.within(9_000, Step::Bye(session)),
            UaEvent::Closed { session, .. }
            | UaEvent::Refused { session, .. }
            | UaEvent::DialFailed { session, .. }
            | UaEvent::Ended { session, .. } => self.over.push(session),
            UaEvent::Progress { .. } | UaEvent::Moved { .. } => {}
            other => panic!("nobody calls us: {other:?}"),
        }
    }
}

fn reply(request: &Request, code: u16, tag: &str, extra: &str) -> String {
    let tag = match (request.to().tag(), tag) {
        (None, tag) if !tag.is_empty() => format!(";tag={tag}"),
        _ => String::new(),
    };
    format!(
        "SIP/2.0 {code} Status\nVia: {}\nFrom: {}\nTo: {}{tag}\nCall-ID: {}\nCSeq: {} {}\n{extra}\
         Content-Length: 0\n\n",
        request.via().as_str(),
        request.from().as_str(),
        request.to().as_str(),
        request.call_id(),
        request.cseq().number,
        request.method(),
    )
}

#[test]
fn four_hundred_storms_end_every_call_once_and_leave_nothing() {
    for seed in 0..400 {
        Storm::new(seed).run(seed);
    }
}
