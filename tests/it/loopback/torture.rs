//! Every message of the fixture folders against the daemon with an agent behind every user, over
//! UDP, TCP and TLS, whole and byte by byte: its outcome, its answer's headers, what became of the
//! connection, and that nothing went anywhere but to its source.

use crate::rig::{self, Caller, EVERY_USER, Heard, Rig, SOON};
use crate::torture_parse::{own, rows, test_data};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use voxedge::ground::Transport;
use voxedge::sip::msg::{Message, Method, Response};

/// Longest time for one folder over all transports.
const LIMIT: Duration = Duration::from_secs(300);
/// Messages that are under way at once.
const AT_ONCE: usize = 6;
/// Bytes that an answer out of a dialog may have beyond its request.
const AMPLIFIED_BYTES_MAX: usize = 512;
/// Offers with encrypted media only: taken over TLS, since the keys of others were seen by everybody.
const ENCRYPTED_ONLY: [&str; 2] = ["teams-invite.sip", "twilio-tls-sdes-invite.sip"];

/// One message and what must come of it.
#[derive(Clone)]
struct Case {
    name: String,
    bytes: Bytes,
    packet: String,
    stream: String,
    /// Over TLS, where it is not that of `stream`.
    tls: Option<&'static str>,
    after: String,
    answer_has: String,
}

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
enum Way {
    Packet,
    Whole(Transport),
    InBytes(Transport),
}

const WAYS: [Way; 5] = [
    Way::Packet,
    Way::Whole(Transport::Tcp),
    Way::InBytes(Transport::Tcp),
    Way::Whole(Transport::Tls),
    Way::InBytes(Transport::Tls),
];

#[test]
fn the_messages_of_rfc_4475_and_rfc_5118_have_their_outcomes() {
    let Some(folder) = test_data("torture") else { return };
    let cases = cases(&folder, |row| Case {
        packet: row["allowed_outcome_udp"].clone(),
        stream: row["allowed_outcome_stream"].clone(),
        after: row["stream_after"].clone(),
        answer_has: row["answer_has"].clone(),
        ..unjudged(row)
    });
    assert_eq!(cases.len(), 62);
    check_all(cases);
}

#[test]
fn messages_as_vendors_write_them_have_their_outcomes() {
    let cases = cases(&own("sip"), |row| {
        let with_agent = &row["with_agent"];
        let packet =
            if with_agent.is_empty() { &row["allowed_outcome"] } else { with_agent }.clone();
        let encrypted = ENCRYPTED_ONLY.contains(&row["name"].as_str());
        let (packet, tls) = if encrypted { ("488".into(), Some("2xx")) } else { (packet, None) };
        let stream = match row["allowed_outcome_stream"].as_str() {
            "-" => "-".to_owned(),
            _ => packet.clone(),
        };
        Case { packet, stream, tls, after: "either".into(), ..unjudged(row) }
    });
    check_all(cases);
}

#[test]
fn syntax_points_have_their_outcomes() {
    let cases = cases(&own("sip_syntax"), |row| {
        // What goes on to the user agent is answered somehow, but not as a syntax fault.
        let outcome = |verdict: &str| match verdict {
            "pass" => "2xx,404,405,480,481,488,603,none".to_owned(),
            other => other.to_owned(),
        };
        Case {
            packet: outcome(&row["udp"]),
            stream: outcome(&row["stream"]),
            after: row["stream_after"].clone(),
            ..unjudged(row)
        }
    });
    check_all(cases);
}

fn cases(folder: &Path, judge: impl Fn(&BTreeMap<String, String>) -> Case) -> Vec<Case> {
    rows(folder).iter().map(|(row, bytes)| Case { bytes: bytes.clone(), ..judge(row) }).collect()
}

fn unjudged(row: &BTreeMap<String, String>) -> Case {
    Case {
        name: row["name"].clone(),
        bytes: Bytes::new(),
        packet: String::new(),
        stream: String::new(),
        tls: None,
        after: String::new(),
        answer_has: String::new(),
    }
}

/// Sends every case in every way and tells all offences at once.
fn check_all(cases: Vec<Case>) {
    rig::run(LIMIT, async move {
        let rig = Arc::new(Rig::start(&[EVERY_USER]).await);
        let (mut running, mut offences) = (JoinSet::new(), Vec::new());
        let mut number = 0u32;
        for way in WAYS {
            for case in &cases {
                number += 1;
                if running.len() >= AT_ONCE {
                    offences
                        .extend(running.join_next().await.map(|ended| ended.expect("no panic")));
                }
                running.spawn(check(Arc::clone(&rig), case.clone(), way, number));
            }
        }
        offences.extend(running.join_all().await);
        let offences: Vec<String> = offences.into_iter().flatten().collect();
        assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
        let rig = Arc::into_inner(rig).expect("all cases ended");
        assert!(rig.daemon.is_alive());
        rig.stop().await;
    });
}

/// The offences of one case.
async fn check(rig: Arc<Rig>, case: Case, way: Way, number: u32) -> Vec<String> {
    let case = Case { bytes: Bytes::from(with_own_ids(&case.bytes, number)), ..case };
    let (transport, allowed) = match way {
        Way::Packet => (Transport::Udp, &case.packet),
        Way::Whole(transport) | Way::InBytes(transport) => (transport, &case.stream),
    };
    let allowed = match (transport, case.tls) {
        (Transport::Tls, Some(outcome)) => outcome,
        _ => allowed.as_str(),
    };
    if allowed == "-" {
        return Vec::new();
    }
    let mut caller = rig.caller(transport).await;
    let decoy = decoy(&case, caller.local);
    match way {
        Way::InBytes(_) => caller.send_in_bytes(&case.bytes).await,
        Way::Packet | Way::Whole(_) => caller.send(&case.bytes).await,
    };
    let (heard, after) = match transport {
        Transport::Udp => (caller.fence().await.expect("packets do not close"), "open"),
        Transport::Tcp | Transport::Tls => on_stream(&mut caller, &case.after).await,
    };
    let (outcome, answers) = settle(&mut caller, heard, after).await;
    let mut offences = Vec::new();
    let in_dialog = rig::read_request(&case.bytes).is_some_and(|r| r.to().tag().is_some());
    // An INVITE with a To tag of no dialog is no new call (RFC 3261 §12.2.2).
    let stray = outcome == "481" && in_dialog;
    if !(allows(allowed, &outcome) || stray && allowed.contains("route")) {
        offences.push(format!("outcome {outcome}, allowed {allowed}"));
    }
    if transport != Transport::Udp
        && !matches!(case.after.as_str(), "either" | "skip")
        && case.after != after
    {
        offences.push(format!("the connection is {after}, must be {}", case.after));
    }
    if decoy.is_some_and(|decoy| decoy.recv(&mut [0; 16]).is_ok()) {
        offences.push("a packet went to the address of the Via".into());
    }
    for answer in &answers {
        offences.extend(check_answer(&case, answer, caller.local));
    }
    offences.into_iter().map(|offence| format!("{way:?} {}: {offence}", case.name)).collect()
}

/// What a stream brings after the message, and what became of it.
async fn on_stream(caller: &mut Caller, after: &str) -> (Vec<Message>, &'static str) {
    let patient = matches!(after, "hold" | "skip");
    if !patient {
        let id = rig::unique("fence");
        let options = caller.request("OPTIONS", "probe", &id, "", "");
        // A closed connection is seen below.
        let _ = caller.send(&options).await;
        let mut heard = Vec::new();
        loop {
            match caller.receive(SOON).await {
                Heard::Message(Message::Response(answer)) if answer.call_id() == id => {
                    return (heard, "open");
                }
                Heard::Message(message) => heard.push(message),
                Heard::Closed => return (heard, "close"),
                Heard::Nothing => return (heard, "hold"),
            }
        }
    }
    if after == "hold" {
        let id = rig::unique("fence");
        let options = caller.request("OPTIONS", "probe", &id, "", "");
        let _ = caller.send(&options).await;
    }
    // The daemon answers what is whole before it sees our end.
    caller.end_writing().await;
    let mut heard = Vec::new();
    loop {
        match caller.receive(SOON).await {
            Heard::Message(message) => heard.push(message),
            Heard::Closed => return (heard, "hold"),
            Heard::Nothing => return (heard, "neither answered nor closed"),
        }
    }
}

/// Waits for the final answers that are still owed, ends what was answered, and gives the first
/// final answer's outcome with all final answers.
async fn settle(caller: &mut Caller, heard: Vec<Message>, after: &str) -> (String, Vec<Response>) {
    let mut answers: Vec<Response> = Vec::new();
    let mut owed: Vec<String> = Vec::new();
    for message in heard {
        let Message::Response(answer) = message else { continue };
        if answer.code() >= 200 {
            owed.retain(|call_id| call_id != answer.call_id());
            answers.push(answer);
        } else if !owed.iter().any(|call_id| call_id == answer.call_id()) {
            owed.push(answer.call_id().to_owned());
        }
    }
    if after != "close" {
        for call_id in owed {
            let (answer, _) = caller.until_answer(&call_id, None).await;
            answers.extend(answer);
        }
        for answer in &answers {
            if answer.cseq().method != &Method::Invite {
                continue;
            }
            if answer.code() < 300 {
                // A late offer without an answer in its ACK was ended by the edge.
                let ended = caller.hang_up(answer).await;
                assert!(matches!(ended, 200 | 481), "BYE was answered with {ended}");
            } else {
                let ack = caller.ack(answer);
                caller.send(&ack).await;
            }
        }
    }
    let outcome = answers.first().map_or("none".to_owned(), |answer| answer.code().to_string());
    (outcome, answers)
}

fn allows(allowed: &str, outcome: &str) -> bool {
    let code: u16 = outcome.parse().unwrap_or(0);
    allowed.split(',').any(|word| match word {
        "any" => true,
        "2xx" => (200..300).contains(&code),
        "route" => matches!(code, 200..300 | 404 | 480 | 488 | 603),
        other => other == outcome,
    })
}

/// What the answer must repeat, and where it says that the request came from.
fn check_answer(case: &Case, answer: &Response, source: SocketAddr) -> Vec<String> {
    let mut offences = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            let text = String::from_utf8_lossy(answer.bytes()).into_owned();
            offences.push(format!("{what} in {text}"));
        }
    };
    // What a forged source could be made to receive (the 200 of a call needs a listed one's agent).
    let call = answer.code() < 300 && answer.cseq().method == &Method::Invite;
    must(call || answer.bytes().len() <= case.bytes.len() + AMPLIFIED_BYTES_MAX, "amplified");
    must(answer.via().received() == Some(source.ip()), "no received");
    must(answer.to().tag().is_some(), "To without a tag");
    for item in case.answer_has.split(" | ").filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once(": ").expect("a header");
        must(answer.lines_named(name).any(|line| line.contains(value)), item);
    }
    let Some(request) = rig::read_request(&case.bytes) else { return offences };
    if answer.call_id() != request.call_id() {
        // The second message of a stream.
        return offences;
    }
    must(answer.from().as_str() == request.from().as_str(), "another From");
    must(answer.to().as_str().starts_with(request.to().as_str()), "another To");
    must(answer.cseq().number == request.cseq().number, "another CSeq");
    must(answer.cseq().method == request.cseq().method, "another method");
    must(answer.vias().count() == request.vias().count(), "Vias are missing");
    for (theirs, ours) in request.vias().zip(answer.vias()).skip(1) {
        must(theirs.as_str() == ours.as_str(), "another Via");
    }
    must(answer.via().branch() == request.via().branch(), "another branch");
    offences
}

/// Listens where the top Via says that answers go, at the source's address.
fn decoy(case: &Case, source: SocketAddr) -> Option<UdpSocket> {
    let port = rig::read_request(&case.bytes)
        .map_or(Some(5060), |request| request.via().port().or(Some(5060)))?;
    let decoy = UdpSocket::bind(SocketAddr::new(source.ip(), port)).ok()?;
    decoy.set_nonblocking(true).expect("a socket");
    Some(decoy)
}

/// The message with a branch and a Call-ID of its own, as long as those it came with.
fn with_own_ids(bytes: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let lower = bytes[..head].to_ascii_lowercase();
    let find = |needle: &[u8]| lower.windows(needle.len()).position(|part| part == needle);
    if let Some(at) = find(b"branch=") {
        let end = value_end(&lower, at + 7);
        let cookie = if lower[at + 7..end].starts_with(b"z9hg4bk") { 7 } else { 0 };
        number_tail(&mut bytes[at + 7 + cookie..end], number);
    }
    let call_id = find(b"\r\ncall-id").map(|at| at + 9).or(find(b"\r\ni:").map(|at| at + 3));
    if let Some(at) = call_id {
        let blank = |byte: &u8| b": \t\r\n".contains(byte);
        let start = at + lower[at..].iter().take_while(|byte| blank(byte)).count();
        let value = start..value_end(&lower, start);
        number_tail(&mut bytes[value], number);
    }
    bytes
}

fn value_end(lower: &[u8], start: usize) -> usize {
    let ends = |byte: &u8| b" \t\r\n;,".contains(byte);
    lower[start..].iter().position(ends).map_or(lower.len(), |length| start + length)
}

/// Writes `number` over the last letters and digits before any `@`, in base 36.
fn number_tail(value: &mut [u8], mut number: u32) {
    let end = value.iter().position(|byte| *byte == b'@').unwrap_or(value.len());
    let places = value[..end].iter_mut().rev().filter(|byte| byte.is_ascii_alphanumeric()).take(3);
    for place in places {
        *place = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
}
