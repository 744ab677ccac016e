//! A seeded storm: callers over a network that loses, doubles and reorders, a call layer that
//! answers when it likes. At the end of every run each INVITE had exactly one final answer, each
//! session one end, and nothing is left; the same seed sends the same bytes.

use super::*;
use crate::ground::Instant;
use crate::sip::status::StatusLine;
use crate::sip::testing::{flow, parse};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

const CALLS: u64 = 4;

enum Step {
    ToUs(String),
    ToPeer(Bytes),
    /// A caller sends a request, again with the doubled interval until it is answered.
    Ask {
        call: u64,
        method: &'static str,
        cseq: u32,
        interval_ms: u64,
    },
    Ring(SessionId),
    Decide(SessionId),
    Answer(RequestToken),
    Bye(SessionId),
}

#[derive(Default)]
struct Caller {
    to_tag: String,
    /// Method and CSeq of what was answered; asked no more.
    answered: BTreeSet<(String, u32)>,
    up: bool,
}

struct Storm {
    agent: UserAgent,
    chance: Entropy,
    now: Now,
    steps: BTreeMap<(Instant, u64), Step>,
    count: u64,
    callers: Vec<Caller>,
    out: Vec<UaOutput>,
    /// Final answers by Call-ID and CSeq of the INVITE.
    finals: BTreeMap<(String, u32), BTreeSet<u16>>,
    invited: BTreeSet<SessionId>,
    ended: Vec<SessionId>,
    digest: DefaultHasher,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let mut storm = Storm {
            agent: UserAgent::new(UaConfig::default(), Entropy::from_number(seed)),
            chance: Entropy::from_number(!seed),
            now: Now::default(),
            steps: BTreeMap::new(),
            count: 0,
            callers: (0..CALLS).map(|_| Caller::default()).collect(),
            out: Vec::new(),
            finals: BTreeMap::new(),
            invited: BTreeSet::new(),
            ended: Vec::new(),
            digest: DefaultHasher::new(),
        };
        for call in 0..CALLS {
            storm.ask_within(5_000, call, "INVITE", 1);
            if storm.chance.below(3) == 0 {
                storm.ask_within(8_000, call, "CANCEL", 1);
            }
        }
        storm
    }

    fn run(mut self, seed: u64) -> u64 {
        loop {
            let step = self.steps.keys().next().copied();
            let timer = self.agent.poll_timeout();
            let at = match (step, timer) {
                (None, None) => break,
                (Some((at, _)), None) | (None, Some(at)) => at,
                (Some((at, _)), Some(timer)) => at.min(timer),
            };
            self.now = Now::default().later(at.since(Instant::ZERO));
            assert!(at < Instant::ZERO + Duration::from_secs(400), "seed {seed} never ends");
            match step.filter(|(due, _)| *due <= at).and_then(|key| self.steps.remove(&key)) {
                Some(step) => self.take(step),
                None => self.agent.handle_timeout(self.now, &mut self.out),
            }
            self.drain();
        }
        for (invite, codes) in &self.finals {
            assert_eq!(codes.len(), 1, "seed {seed}: {invite:?} was answered {codes:?}");
        }
        let ended: BTreeSet<SessionId> = self.ended.iter().copied().collect();
        assert_eq!(ended.len(), self.ended.len(), "seed {seed}: a session ended twice");
        assert_eq!(ended, self.invited, "seed {seed}: each session has its end");
        assert_eq!((self.agent.transactions(), self.agent.sessions()), (0, 0), "seed {seed}");
        assert!(self.agent.transactions.is_empty() && self.agent.dialogs.is_empty(), "seed {seed}");
        self.digest.finish()
    }

    fn at(&mut self, within_ms: u64, step: Step) {
        self.count += 1;
        let after = Duration::from_millis(self.chance.below(within_ms + 1));
        self.steps.insert((self.now.at + after, self.count), step);
    }

    fn ask_within(&mut self, within_ms: u64, call: u64, method: &'static str, cseq: u32) {
        self.at(within_ms, Step::Ask { call, method, cseq, interval_ms: 500 });
    }

    /// One packet in five is lost, one in ten doubled; each copy takes up to 300 ms.
    fn carry(&mut self, step: impl Fn() -> Step) {
        if self.chance.below(5) == 0 {
            return;
        }
        for _ in 0..1 + u64::from(self.chance.below(10) == 0) {
            self.at(300, step());
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        let sdp = Some(("application/sdp", &b"v=0"[..]));
        match step {
            Step::ToUs(text) => {
                let message = parse(&text);
                self.agent.handle_message(now, flow("192.0.2.1:5062"), message, &mut self.out);
            }
            Step::ToPeer(bytes) => self.on_peer(&bytes),
            Step::Ask { call, method, cseq, interval_ms } => {
                self.ask(call, method, cseq, interval_ms)
            }
            Step::Ring(session) => {
                let _ = self.agent.ring(now, session, 180, &mut self.out);
            }
            Step::Decide(session) if self.chance.below(10) < 7 => {
                if self.agent.accept(now, session, &[], sdp, &mut self.out).is_ok() {
                    self.at(40_000, Step::Bye(session));
                }
            }
            Step::Decide(session) => {
                let status = StatusLine::of(486);
                if self.agent.refuse(now, session, &status, &[], &mut self.out).is_ok() {
                    self.ended.push(session);
                }
            }
            Step::Answer(token) if self.chance.below(5) == 0 => {
                let _ = self.agent.reject(now, token, &StatusLine::of(488), &[], &mut self.out);
            }
            Step::Answer(token) => {
                let _ = self.agent.answer(now, token, sdp, &mut self.out);
            }
            Step::Bye(session) => {
                let _ = self.agent.bye(now, session, None, &mut self.out);
            }
        }
    }

    fn ask(&mut self, call: u64, method: &'static str, cseq: u32, interval_ms: u64) {
        let caller = &self.callers[call as usize];
        if interval_ms > 32_000 || caller.answered.contains(&(method.to_owned(), cseq)) {
            return;
        }
        let branch = if method == "CANCEL" { "INVITE" } else { method };
        let text = request(call, method, cseq, branch, &caller.to_tag);
        self.carry(|| Step::ToUs(text.clone()));
        let again = Step::Ask { call, method, cseq, interval_ms: interval_ms * 2 };
        self.count += 1;
        self.steps.insert((self.now.at + Duration::from_millis(interval_ms), self.count), again);
    }

    /// A caller answers our BYE, acknowledges finals, and goes on when its call is up.
    fn on_peer(&mut self, bytes: &Bytes) {
        let text = String::from_utf8(bytes.to_vec()).expect("text").replace("\r\n", "\n");
        let message = parse(&text);
        let call: u64 = message.headers().call_id()[1..].parse().expect("a number");
        let cseq = message.headers().cseq().number;
        let response = match &message {
            Message::Response(response) => response,
            Message::Request(_) => {
                let lines = text.lines().filter(|line| {
                    ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                        .iter()
                        .any(|name| line.starts_with(name))
                });
                let head: Vec<&str> = lines.collect();
                let answer = format!("SIP/2.0 200 OK\n{}\nContent-Length: 0\n\n", head.join("\n"));
                return self.carry(|| Step::ToUs(answer.clone()));
            }
        };
        let (code, method) = (response.code(), response.cseq().method.as_str().to_owned());
        let tag = response.to().tag().unwrap_or_default().to_owned();
        let caller = &mut self.callers[call as usize];
        caller.answered.insert((method.clone(), cseq));
        if method != "INVITE" || code < 200 {
            return;
        }
        let (branch, up) = if code < 300 { ("ACK", true) } else { ("INVITE", false) };
        let ack = request(call, "ACK", cseq, branch, &tag);
        let first = up && !caller.up;
        caller.up |= up;
        if first {
            caller.to_tag = tag;
        }
        self.carry(|| Step::ToUs(ack.clone()));
        if first {
            if self.chance.below(2) == 0 {
                self.ask_within(9_000, call, "INVITE", 2);
                self.ask_within(9_000, call, "INVITE", 4);
            }
            self.ask_within(9_000, call, "INFO", 3);
            if self.chance.below(2) == 0 {
                self.ask_within(20_000, call, "BYE", 5);
            }
        }
    }

    fn drain(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                UaOutput::Send { bytes, .. } => {
                    bytes.hash(&mut self.digest);
                    self.note_answer(&bytes);
                    self.carry(|| Step::ToPeer(bytes.clone()));
                }
                UaOutput::Event(event) => self.on_event(event),
                UaOutput::Locate { .. } | UaOutput::Connect { .. } => panic!("a literal address"),
            }
        }
    }

    fn note_answer(&mut self, bytes: &Bytes) {
        let text = String::from_utf8(bytes.to_vec()).expect("text").replace("\r\n", "\n");
        let Message::Response(response) = parse(&text) else { return };
        if *response.cseq().method == Method::Invite {
            let key = (response.call_id().to_owned(), response.cseq().number);
            let codes = self.finals.entry(key).or_default();
            if response.code() >= 200 {
                codes.insert(response.code());
            }
        }
    }

    fn on_event(&mut self, event: UaEvent) {
        match event {
            UaEvent::Invited { session, .. } => {
                self.invited.insert(session);
                self.at(200, Step::Ring(session));
                self.at(3_000, Step::Decide(session));
            }
            UaEvent::Cancelled { session, .. }
            | UaEvent::Ended { session, .. }
            | UaEvent::Closed { session, .. } => self.ended.push(session),
            UaEvent::NeverAcked { session } => self.at(0, Step::Bye(session)),
            UaEvent::Reoffered { token, .. } => self.at(1_000, Step::Answer(token)),
            UaEvent::InDialog { token, .. } => {
                let ok = StatusLine::of(200);
                let done = self.agent.respond(self.now, token, &ok, &[], None, &mut self.out);
                assert_eq!(done, Ok(()));
                self.drain();
            }
            UaEvent::Confirmed { .. }
            | UaEvent::ReoffersAck { .. }
            | UaEvent::FlowLost { .. }
            | UaEvent::Moved { .. } => {}
            other => panic!("nothing was dialled: {other:?}"),
        }
    }
}

fn request(call: u64, method: &str, cseq: u32, branch: &str, to_tag: &str) -> String {
    let to = if to_tag.is_empty() || method == "CANCEL" {
        String::new()
    } else {
        format!(";tag={to_tag}")
    };
    format!(
        "{method} sip:agent@example.com SIP/2.0\n\
         Via: SIP/2.0/UDP 192.0.2.1:5062;rport;branch=z9hG4bK{call}{branch}{cseq}\n\
         From: <sip:a@192.0.2.1>;tag=t{call}\nTo: <sip:agent@example.com>{to}\nCall-ID: s{call}\n\
         CSeq: {cseq} {method}\nContact: <sip:a@192.0.2.1:5062>\nContent-Length: 0\n\n"
    )
}

#[test]
fn six_hundred_storms_leave_nothing_and_answer_each_invite_once() {
    for seed in 0..600 {
        Storm::new(seed).run(seed);
    }
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    for seed in 0..20 {
        assert_eq!(Storm::new(seed).run(seed), Storm::new(seed).run(seed), "seed {seed}");
    }
    assert_ne!(Storm::new(1).run(1), Storm::new(2).run(2));
}
