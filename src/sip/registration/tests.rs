//! Registrations against scripted registrars under a virtual clock: each script is the registrar's
//! answers in order, each expectation the whole talk.

use super::pace::Cause;
use super::*;
use crate::ground::{Secret, Transport};
use crate::sip::digest::DigestFault;
use crate::sip::msg::{Message, Response, Uri};
use crate::sip::testing::{flow, parse, stream};
use std::collections::{BTreeMap, BTreeSet};

const CONTACT: &str = "sip:sales@192.0.2.10:5060;transport=udp";

fn settings(registrar: &str) -> Arc<RegistrationSettings> {
    let target = Target::of_uri(&Uri::parse(registrar).expect("a URI")).expect("a target");
    Arc::new(RegistrationSettings {
        user: "sales".into(),
        address_of_record: "sip:sales@pbx.example".into(),
        request_uri: registrar.into(),
        registrar: target.clone(),
        routes: Vec::new(),
        target,
        credentials: Credentials { username: "sales".into(), password: Secret::new("s3cret") },
    })
}

fn response(code: u16, cseq: u32, lines: &[&str]) -> Response {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let text = format!(
        "SIP/2.0 {code} Reason\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:s@pbx.example>;tag=1\n\
         To: <sip:s@pbx.example>;tag=2\nCall-ID: c\nCSeq: {cseq} REGISTER\n{lines}Content-Length: 0\n\n"
    );
    match parse(&text) {
        Message::Response(response) => response,
        Message::Request(_) => panic!("a request: {text}"),
    }
}

/// What the registrar does with the next REGISTER.
enum Reply {
    Answer(u16, &'static [&'static str]),
    Silence,
    Digest(DigestFault),
}
use Reply::{Answer, Digest, Silence};

/// One client and its log.
struct Talk {
    client: RegistrationClient,
    registrar: Registrar,
    entropy: Entropy,
    now: Instant,
    flow: Flow,
    contact: String,
    log: Vec<String>,
}

impl Talk {
    fn new(registrar: &str, known: Option<Binding>) -> Talk {
        let mut entropy = Entropy::from_number(11);
        let now = Instant::ZERO;
        let client = RegistrationClient::new(settings(registrar), known, now, &mut entropy);
        let mut registrar = Registrar::default();
        registrar.registrations = 1;
        let flow = flow("198.51.100.1:5060");
        Talk { client, registrar, entropy, now, flow, contact: CONTACT.into(), log: Vec::new() }
    }

    /// Goes to the next deadline and lets the client act.
    fn wake(&mut self) -> Option<Box<Register>> {
        self.now = self.now.max(self.client.poll_timeout().expect("it waits for something"));
        let mut out = Vec::new();
        self.client.handle_timeout(self.now, &mut self.registrar, &mut out);
        self.note(out)
    }

    /// Writes outputs down; the REGISTER among them is returned.
    fn note(&mut self, out: Vec<RegistrationOutput>) -> Option<Box<Register>> {
        let mut sent = None;
        for output in out {
            let line = match output {
                RegistrationOutput::Send(register) => {
                    let contact = match &register.contact {
                        RegisterContact::Own { user, .. } => format!("own {user}"),
                        RegisterContact::Former(uri) => format!("former {uri}"),
                    };
                    let (uri, cseq) = (&register.request_uri, register.cseq);
                    let expires = register.expires.as_secs();
                    let again = if register.flow.is_some() { " same flow" } else { "" };
                    let line = format!("{cseq} {uri} {contact} {expires}{again}");
                    sent = Some(register);
                    line
                }
                RegistrationOutput::Keep(binding) => {
                    format!("keep {} {}", binding.cseq, binding.contact)
                }
                RegistrationOutput::Bound { flow, flow_timer } => {
                    format!("bound {} {flow_timer:?}", flow.transport.via_token())
                }
                RegistrationOutput::Unbound => "unbound".into(),
                RegistrationOutput::RegistrarIsBack => "back".into(),
                RegistrationOutput::Changed => {
                    let status = self.client.status();
                    format!("{:?} {}", status.successful, status.reason)
                }
                RegistrationOutput::Gone => "gone".into(),
            };
            self.log.push(line);
        }
        sent
    }

    fn reply(&mut self, register: &Register, reply: &Reply) -> Option<Box<Register>> {
        let mut out = Vec::new();
        let (now, entropy) = (self.now, &mut self.entropy);
        match reply {
            Answer(code, lines) => {
                let response = response(*code, register.cseq, lines);
                let contact = self.contact.clone();
                let answered = Answered { response: &response, flow: self.flow, contact: &contact };
                let credentials = Some(register.credentials.clone());
                self.client.handle_response(
                    now,
                    answered,
                    credentials,
                    &mut self.registrar,
                    entropy,
                    &mut out,
                );
            }
            Silence => {
                self.now += Duration::from_secs(32);
                let failure = Failure::Nobody("no answer from the registrar".into());
                self.client.handle_failure(
                    self.now,
                    failure,
                    &mut self.registrar,
                    entropy,
                    &mut out,
                );
            }
            Digest(fault) => {
                let failure = Failure::Digest(*fault);
                self.client.handle_failure(now, failure, &mut self.registrar, entropy, &mut out);
            }
        }
        self.note(out)
    }

    /// Plays the whole script; waits are noted in seconds.
    fn play(&mut self, script: &[Reply]) {
        let mut next = None;
        for reply in script {
            let register = loop {
                if let Some(register) = next.take() {
                    break register;
                }
                let before = self.now;
                let woken = self.wake();
                let waited = self.now.since(before).as_secs();
                if waited > 0 {
                    let at = self.log.len() - usize::from(woken.is_some());
                    self.log.insert(at, format!("after {waited} s"));
                }
                next = woken;
            };
            next = self.reply(&register, reply);
        }
        if let Some(register) = next {
            self.log.push(format!("still open: {}", register.cseq));
        }
    }

    fn leave(&mut self) -> Option<Box<Register>> {
        let mut out = Vec::new();
        self.client.leave(self.now, &mut self.registrar, &mut out);
        self.note(out)
    }

    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.log), expected);
    }

    fn next_in(&self) -> u64 {
        self.client.poll_timeout().expect("a deadline").since(self.now).as_secs()
    }
}

/// 200 with our own contact for five minutes.
const OK: Reply = Answer(200, &["Contact: <sip:sales@192.0.2.10:5060;transport=udp>;expires=300"]);

const REGISTRAR: &str = "sip:pbx.example";

#[test]
fn a_binding_is_refreshed_for_ever_on_its_flow() {
    let mut talk = Talk::new(REGISTRAR, None);
    assert_eq!(talk.client.status().successful, None);
    talk.play(&[OK, OK, OK]);
    let keep = |cseq| format!("keep {cseq} {CONTACT}");
    talk.expect(&[
        "1 sip:pbx.example own sales 300",
        &keep(1),
        "bound UDP None",
        "Some(true) registered",
        "after 256 s",
        "2 sip:pbx.example own sales 300 same flow",
        &keep(2),
        "after 238 s",
        "3 sip:pbx.example own sales 300 same flow",
        &keep(3),
    ]);
    let status = talk.client.status();
    assert_eq!(status.expires_at, Some(talk.now + Duration::from_secs(300)));
}

#[test]
fn our_own_contact_is_found_among_many() {
    let rows: [(&[&str], u64); 7] = [
        (
            &[
                "Contact: <sip:sales@192.0.2.99>;expires=9, <sip:sales@192.0.2.10:5060;transport=udp>;expires=120",
            ],
            120,
        ),
        (
            &[
                "Contact: <sip:sales@192.0.2.99>;expires=9",
                "Contact: <sip:Sales@192.0.2.10>;expires=9",
                "Contact: <sip:s%61les@192.0.2.10;ob>;q=1;expires=\"120\"",
            ],
            120,
        ),
        (&["Contact: <sip:sales@192.0.2.10>", "Expires: 600"], 600),
        (&["Contact: <sip:sales@10.9.9.9:1024>;expires=77", "Expires: 200"], 200),
        (&["Expires: 60"], 60),
        (&[], 300),
        (&["Contact: <sip:sales@192.0.2.10>;expires=4294967295"], 86_400),
    ];
    for (lines, expected) in rows {
        let mut talk = Talk::new(REGISTRAR, None);
        talk.play(&[Answer(200, lines)]);
        let ends = talk.client.status().expires_at.expect("bound");
        assert_eq!(ends.since(talk.now).as_secs(), expected, "{lines:?}");
    }
}

#[test]
fn a_registrar_that_binds_nothing_is_not_believed() {
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[Answer(200, &["Contact: <sip:sales@192.0.2.10>;expires=0"])]);
    talk.expect(&[
        "1 sip:pbx.example own sales 300",
        "Some(false) the registrar bound nothing: it gave our contact no time",
    ]);
}

#[test]
fn a_longer_time_is_asked_for_once() {
    let mut talk = Talk::new(REGISTRAR, None);
    let brief = || Answer(423, &["Min-Expires: 1800"]);
    talk.play(&[brief(), Answer(200, &["Expires: 1800"])]);
    talk.expect(&[
        "1 sip:pbx.example own sales 300",
        "2 sip:pbx.example own sales 1800",
        &format!("keep 2 {CONTACT}"),
        "bound UDP None",
        "Some(true) registered",
    ]);
    // Too long, shorter than what was asked for, unreadable, or again and again: a back-off.
    let rows: [&[Reply]; 4] = [
        &[Answer(423, &["Min-Expires: 86401"])],
        &[Answer(423, &["Min-Expires: 60"])],
        &[Answer(423, &["Min-Expires: -1"])],
        &[Answer(423, &["Min-Expires: 400"]), Answer(423, &["Min-Expires: 500"])],
    ];
    for script in rows {
        let mut talk = Talk::new(REGISTRAR, None);
        talk.play(script);
        let reason = talk.client.status().reason;
        assert_eq!(reason, "the registrar says 423 Reason and names no time that can be asked for");
        assert!((2..=5).contains(&talk.next_in()));
    }
}

#[test]
fn trouble_backs_off_and_looks_for_the_registrar_anew() {
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[Silence, Answer(500, &[]), Answer(408, &[]), Silence, OK]);
    talk.expect(&[
        "1 sip:pbx.example own sales 300",
        "Some(false) no answer from the registrar",
        "after 4 s",
        "12 sip:pbx.example own sales 300",
        "back",
        "Some(false) the registrar says 500 Reason",
        "after 5 s",
        "13 sip:pbx.example own sales 300",
        "Some(false) the registrar says 408 Reason",
        "after 14 s",
        "14 sip:pbx.example own sales 300",
        "Some(false) no answer from the registrar",
        "after 36 s",
        "25 sip:pbx.example own sales 300",
        "back",
        &format!("keep 25 {CONTACT}"),
        "bound UDP None",
        "Some(true) registered",
    ]);
}

#[test]
fn a_retry_after_is_obeyed_within_its_bound() {
    let rows = [
        ("Retry-After: 120", 120..=132),
        ("Retry-After: 120 (busy);duration=60", 120..=132),
        ("Retry-After: 1", 2..=5),
        ("Retry-After: 999999", 3_600..=3_960),
        ("Retry-After: soon", 2..=5),
    ];
    for (line, expected) in rows {
        let mut talk = Talk::new(REGISTRAR, None);
        let register = talk.wake().expect("the first");
        let response = response(503, register.cseq, &[line]);
        let answered = Answered { response: &response, flow: talk.flow, contact: CONTACT };
        let mut out = Vec::new();
        let (now, entropy) = (talk.now, &mut talk.entropy);
        talk.client.handle_response(now, answered, None, &mut talk.registrar, entropy, &mut out);
        assert!(expected.contains(&talk.next_in()), "{line}: {}", talk.next_in());
        // Another registration's luck does not shorten what the registrar asked for.
        talk.client.hasten(talk.now);
        let is_told = line.contains("120") || line.contains("9999") || line.ends_with('1');
        assert_eq!(talk.next_in() > 1, is_told, "{line}");
    }
}

#[test]
fn refusals_are_repeated_slowly() {
    let rows: [(Reply, &str); 8] = [
        (
            Digest(DigestFault::Refused),
            "wrong user name or password: the registrar refused our answer",
        ),
        (
            Digest(DigestFault::OtherRealm),
            "the registrar asks for another realm than before; change the registration if this is meant",
        ),
        (
            Digest(DigestFault::Downgrade),
            "the registrar asks for a weaker digest than before; change the registration if this is meant",
        ),
        (Answer(403, &[]), "the registrar says 403 Reason"),
        (Answer(404, &[]), "the registrar says 404 Reason"),
        (
            Answer(401, &[]),
            "the registrar says 401 Reason without a challenge that can be answered",
        ),
        (Answer(603, &[]), "the registrar says 603 Reason"),
        (
            Answer(302, &["Contact: <sip:elsewhere.example>"]),
            "the registrar says 302 Reason, to a place outside its own domain",
        ),
    ];
    for (reply, reason) in rows {
        let mut talk = Talk::new(REGISTRAR, None);
        talk.play(&[reply]);
        let status = talk.client.status();
        assert_eq!((status.successful, status.reason.as_str()), (Some(false), reason));
        assert!((90..=180).contains(&talk.next_in()), "{reason}");
    }
    // A wrong password is tried fewer than five times in any ten minutes.
    let mut talk = Talk::new(REGISTRAR, None);
    let mut tries = Vec::new();
    for _ in 0..12 {
        let register = talk.wake().expect("a try");
        tries.push(talk.now);
        talk.reply(&register, &Digest(DigestFault::Refused));
    }
    let within = |from: &Instant| {
        tries
            .iter()
            .filter(|at| **at >= *from && at.since(*from) < Duration::from_secs(600))
            .count()
    };
    assert!(tries.iter().all(|at| within(at) < 5), "{tries:?}");
}

#[test]
fn redirects_are_followed_within_the_registrars_domain_only() {
    let rows = [
        ("sip:pbx.example", "<sip:node2.pbx.example:5070>", Some("sip:node2.pbx.example:5070")),
        (
            "sip:pbx.example",
            "<sip:s@PBX.example;transport=tcp>",
            Some("sip:pbx.example;transport=tcp"),
        ),
        ("sip:192.0.2.1", "<sip:192.0.2.1:5090>", Some("sip:192.0.2.1:5090")),
        (
            "sip:pbx.example;transport=tls",
            "<sip:b.pbx.example;transport=tls>",
            Some("sip:b.pbx.example;transport=tls"),
        ),
        ("sip:pbx.example;transport=tls", "<sip:b.pbx.example>", None),
        ("sip:pbx.example", "<sip:pbx.example.evil.example>", None),
        ("sip:pbx.example", "<sip:evilpbx.example>", None),
        ("sip:192.0.2.1", "<sip:192.0.2.2>", None),
        ("sip:pbx.example", "<tel:+15550001>", None),
    ];
    for (registrar, contact, expected) in rows {
        let mut talk = Talk::new(registrar, None);
        let register = talk.wake().expect("the first");
        let line = format!("Contact: {contact}");
        let response = response(302, register.cseq, &[&line]);
        let answered = Answered { response: &response, flow: talk.flow, contact: CONTACT };
        let mut out = Vec::new();
        let (now, entropy) = (talk.now, &mut talk.entropy);
        talk.client.handle_response(now, answered, None, &mut talk.registrar, entropy, &mut out);
        let next = talk.note(out).map(|register| register.request_uri);
        assert_eq!(next.as_deref(), expected, "{registrar} to {contact}");
    }
    // Two in a row and no third; the next try begins at the registrar again.
    let mut talk = Talk::new(REGISTRAR, None);
    let move_on = || Answer(302, &["Contact: <sip:a.pbx.example>"]);
    talk.play(&[move_on(), move_on(), move_on()]);
    assert_eq!(talk.log.iter().filter(|line| line.contains("sip:a.pbx.example")).count(), 2);
    talk.log.clear();
    talk.play(&[OK]);
    assert!(talk.log.iter().any(|line| line.contains(" sip:pbx.example own")), "{:?}", talk.log);
}

#[test]
fn a_binding_outlives_trouble_until_it_ends_and_not_a_refusal() {
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[OK]);
    talk.log.clear();
    talk.play(&[Silence, Silence]);
    talk.expect(&[
        "after 256 s",
        "2 sip:pbx.example own sales 300 same flow",
        "after 2 s",
        "13 sip:pbx.example own sales 300",
    ]);
    // 256 + 32 + 2 + 32 s are more than the 300 s of the binding.
    assert!(talk.client.status().successful == Some(true));
    assert_eq!(talk.next_in(), 0);
    talk.wake();
    talk.expect(&["unbound", "Some(false) the binding ran out before it could be refreshed"]);

    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[OK, Answer(403, &[])]);
    let status = talk.client.status();
    assert_eq!(status.successful, Some(false));
    assert!(status.expires_at.is_some(), "the registrar may still send calls");
}

#[test]
fn a_lost_connection_is_made_anew_at_once() {
    let mut talk = Talk::new("sip:pbx.example;transport=tcp", None);
    talk.flow = stream("198.51.100.1:5060");
    talk.play(&[Answer(200, &["Expires: 300", "Flow-Timer: 60"])]);
    assert!(talk.log.contains(&"bound TCP Some(60)".to_owned()), "{:?}", talk.log);
    talk.log.clear();
    let mut out = Vec::new();
    talk.client.handle_flow_lost(talk.now, FlowId(77), &mut talk.entropy, &mut out);
    assert!(out.is_empty(), "another flow is nothing of ours");
    let flow = talk.flow.id;
    talk.client.handle_flow_lost(talk.now, flow, &mut talk.entropy, &mut out);
    talk.note(out);
    assert!(talk.next_in() <= 1);
    talk.flow.id = FlowId(3);
    talk.play(&[Answer(200, &["Expires: 300"])]);
    let keep = format!("keep 2 {CONTACT}");
    talk.expect(&[
        "unbound",
        "Some(false) the connection to the registrar was lost",
        "2 sip:pbx.example;transport=tcp own sales 300",
        &keep,
        "bound TCP None",
        "Some(true) registered",
    ]);
}

#[test]
fn only_our_own_binding_is_removed() {
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[OK]);
    talk.log.clear();
    let register = talk.leave().expect("a removal");
    talk.reply(&register, &Answer(200, &["Contact: <sip:sales@192.0.2.99>;expires=900"]));
    talk.expect(&[&format!("2 sip:pbx.example former {CONTACT} 0 same flow"), "unbound", "gone"]);
    assert_eq!(talk.client.poll_timeout(), None);
    // Nobody answers: five seconds and no more.
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[OK]);
    talk.log.clear();
    talk.leave();
    assert_eq!(talk.next_in(), 5);
    talk.wake();
    assert_eq!(talk.log.last().map(String::as_str), Some("gone"));
    // Nothing was ever bound: nothing is sent.
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[Answer(403, &[])]);
    talk.log.clear();
    assert!(talk.leave().is_none());
    talk.expect(&["gone"]);
}

#[test]
fn leaving_while_a_register_is_under_way_waits_for_its_answer() {
    let mut talk = Talk::new(REGISTRAR, None);
    let register = talk.wake().expect("the first");
    assert!(talk.leave().is_none());
    let removal = talk.reply(&register, &OK).expect("a removal");
    talk.reply(&removal, &Answer(200, &[]));
    talk.expect(&[
        "1 sip:pbx.example own sales 300",
        &format!("2 sip:pbx.example former {CONTACT} 0 same flow"),
        "unbound",
        "gone",
    ]);
    let mut talk = Talk::new(REGISTRAR, None);
    talk.wake();
    talk.leave();
    talk.wake();
    assert_eq!(talk.log.last().map(String::as_str), Some("gone"), "no answer for five seconds");
}

#[test]
fn a_restart_goes_on_with_its_binding() {
    let known = Binding { call_id: "0b9e-1".into(), cseq: 41, contact: CONTACT.into() };
    let mut talk = Talk::new(REGISTRAR, Some(known.clone()));
    talk.play(&[OK]);
    assert_eq!(talk.client.binding().call_id, "0b9e-1");
    assert!(talk.log.first().is_some_and(|line| line.starts_with("1042 ")), "{:?}", talk.log);

    // Our address is another one now: the former contact is removed, and only when it is there.
    let mut talk = Talk::new(REGISTRAR, Some(known));
    talk.contact = "sip:sales@192.0.2.11:5060;transport=udp".into();
    let both = Answer(
        200,
        &["Contact: <sip:sales@192.0.2.10:5060;transport=udp>;expires=120, \
           <sip:sales@192.0.2.11>;expires=300, <sip:sales@192.0.2.99>;expires=300"],
    );
    talk.play(&[both, Answer(200, &[])]);
    let log = talk.log.join("\n");
    assert!(log.ends_with(&format!("1043 sip:pbx.example former {CONTACT} 0 same flow")), "{log}");
    assert!((234..=260).contains(&talk.next_in()));
}

#[test]
fn the_instance_is_a_uuid_and_the_same_in_every_register() {
    let mut talk = Talk::new(REGISTRAR, None);
    let first = talk.wake().expect("the first");
    talk.reply(&first, &OK);
    let second = talk.wake().expect("a refresh");
    assert_eq!(first.contact, second.contact);
    let RegisterContact::Own { params, .. } = first.contact else { panic!("our own contact") };
    let id = params.strip_prefix(";+sip.instance=\"<urn:uuid:").expect("an instance");
    let (id, rest) = id.split_once('>').expect("its end");
    assert_eq!((id.len(), rest), (36, "\";expires=300"));
    assert_eq!((id.get(14..15), id.matches('-').count()), (Some("4"), 4));
}

#[test]
fn nothing_of_it_prints_the_password() {
    let mut talk = Talk::new(REGISTRAR, None);
    let register = talk.wake().expect("the first");
    assert!(!format!("{:?} {register:?}", talk.client).contains("s3cret"));
}

/// A registrar that is down for ten minutes, with a thousand registrations.
struct Outage {
    clients: Vec<RegistrationClient>,
    registrar: Registrar,
    entropy: Entropy,
    timers: BTreeSet<(Instant, usize)>,
    /// When a REGISTER is answered, or given up.
    answers: BTreeMap<(Instant, usize), (u32, bool)>,
    /// When each first REGISTER went out.
    sent: Vec<Instant>,
}

impl Outage {
    fn new(count: usize) -> Outage {
        let mut entropy = Entropy::from_number(5);
        let settings = settings(REGISTRAR);
        let mut client =
            || RegistrationClient::new(settings.clone(), None, Instant::ZERO, &mut entropy);
        let clients: Vec<_> = (0..count).map(|_| client()).collect();
        let timers = (0..count).map(|index| (Instant::ZERO, index)).collect();
        let mut registrar = Registrar::default();
        registrar.registrations = count;
        let (answers, sent) = (BTreeMap::new(), Vec::new());
        Outage { clients, registrar, entropy, timers, answers, sent }
    }

    /// Runs to `end`. A REGISTER that goes out in `down` is given up after `patience`; with patience
    /// its copies may find the registrar back (Timer E: every 4 s).
    fn run(&mut self, end: Instant, down: std::ops::Range<Instant>, patience: Duration) {
        loop {
            let timer = self.timers.first().copied();
            let answer = self.answers.first_key_value().map(|(key, _)| *key);
            let Some(next) = timer.into_iter().chain(answer).min().filter(|(at, _)| *at < end)
            else {
                return;
            };
            let (now, index) = next;
            let mut out = Vec::new();
            if answer == Some(next) {
                let (cseq, is_good) = self.answers.remove(&next).expect("it is there");
                self.answer(now, index, cseq, is_good, &mut out);
            } else {
                self.timers.pop_first();
                if let Some(client) = self.clients.get_mut(index) {
                    client.handle_timeout(now, &mut self.registrar, &mut out);
                }
            }
            for output in out {
                match output {
                    RegistrationOutput::Send(register) => {
                        let is_refresh = self.clients[index].flow().is_some();
                        if !is_refresh {
                            self.sent.push(now);
                        }
                        let given_up = now + patience;
                        let (at, is_good) = if !down.contains(&now) {
                            (now + Duration::from_millis(20), true)
                        } else if given_up > down.end {
                            (down.end + Duration::from_millis(self.entropy.below(4_000)), true)
                        } else {
                            (given_up, false)
                        };
                        self.answers.insert((at, index), (register.cseq, is_good));
                    }
                    RegistrationOutput::RegistrarIsBack => {
                        for index in 0..self.clients.len() {
                            self.clients[index].hasten(now);
                            self.enter(index);
                        }
                    }
                    _ => {}
                }
            }
            self.enter(index);
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        index: usize,
        cseq: u32,
        is_good: bool,
        out: &mut Vec<RegistrationOutput>,
    ) {
        let client = &mut self.clients[index];
        let (registrar, entropy) = (&mut self.registrar, &mut self.entropy);
        if is_good {
            let response = response(200, cseq, &["Expires: 300"]);
            let flow = flow("198.51.100.1:5060");
            let answered = Answered { response: &response, flow, contact: CONTACT };
            client.handle_response(now, answered, None, registrar, entropy, out);
        } else {
            let failure = Failure::Nobody("no answer".into());
            client.handle_failure(now, failure, registrar, entropy, out);
        }
    }

    fn enter(&mut self, index: usize) {
        self.timers.retain(|(_, other)| *other != index);
        if let Some(at) = self.clients[index].poll_timeout() {
            self.timers.insert((at, index));
        }
    }

    fn successful(&self) -> usize {
        let up = |client: &&RegistrationClient| client.status().successful == Some(true);
        self.clients.iter().filter(up).count()
    }

    /// The most first REGISTERs within any second.
    fn peak(&self) -> usize {
        let within = |from: Instant| {
            self.sent
                .iter()
                .filter(move |at| **at >= from && at.since(from) < Duration::from_secs(1))
        };
        self.sent.iter().map(|from| within(*from).count()).max().unwrap_or_default()
    }
}

#[test]
fn a_thousand_registrations_survive_ten_minutes_without_their_registrar() {
    let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
    // Silence (Timer F) and a port that refuses at once.
    for patience in [Duration::from_secs(32), Duration::from_millis(1)] {
        let mut outage = Outage::new(1_000);
        let down = at(120)..at(720);
        outage.run(at(100), down.clone(), patience);
        assert_eq!(outage.successful(), 1_000, "up before it");
        outage.run(at(719), down.clone(), patience);
        assert_eq!(outage.successful(), 0, "{patience:?}: none at its end");
        outage.run(at(780), down, patience);
        assert_eq!(outage.successful(), 1_000, "{patience:?}: all back after a minute");
        assert!(outage.peak() <= 20, "{patience:?}: {} in a second", outage.peak());
        let events = outage.clients.iter().filter(|client| client.troubles > 0).count();
        assert_eq!(events, 0);
    }
}

#[test]
fn refused_registrations_do_not_come_back_with_the_others() {
    let mut talk = Talk::new(REGISTRAR, None);
    talk.play(&[Digest(DigestFault::Refused)]);
    let before = talk.next_in();
    talk.client.hasten(talk.now);
    assert_eq!(talk.next_in(), before);
    let waits = matches!(
        talk.client.activity,
        Activity::Waiting { what_for: Wait::BackOff(Cause::Refusal), .. }
    );
    assert!(waits && talk.flow.transport == Transport::Udp);
}
