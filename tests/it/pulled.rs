//! The network is pulled out while the daemon registers, dials and lets a phone ring, and put back. In a
//! network namespace of its own, which needs user namespaces; where the machine permits none, that test
//! is skipped with a word, and the one on loopback says the least. Nothing may hang or be left, and each
//! record says what happened.
//!
//! Three processes play it: the test, the edge in the first namespace (this program, started again), and
//! the callee in the second (started by the edge). A veth pair joins them: `edge`, and `pbx`.

use crate::rig::{self, Rig, SOON, await_some};
use bytes::Bytes;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use voxedge::account::RegistrationDocument;
use voxedge::ground::Secret;
use voxedge::shell::admin::client::{self, Ask};
use voxedge::sip::msg::{Builder, Framing, Message, Method, Name};
use voxedge::sip::status::StatusLine;

const ECHO: &str = "00000000-0000-4000-8000-0000000000e0";
const KEY: &str = "application";
const EDGE: &str = "10.9.0.1";
const PBX: &str = "10.9.0.2";
/// Which part this process plays.
const PART: &str = "VOXEDGE_TEST_PULLED";

/// This program again, in namespaces of its own, to play one part.
fn play(part: &str, namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(std::env::current_exe().expect("we run"));
    command.args(["--exact", "pulled::the_parts", "--nocapture", "--test-threads=1"]);
    command.env(PART, part).stdout(Stdio::piped()).stdin(Stdio::piped());
    command
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let done = Command::new(words.next().expect("a program")).args(words).status();
    assert!(done.is_ok_and(|status| status.success()), "{command}");
}

#[test]
fn a_network_that_is_pulled_while_it_dials_leaves_records_and_nothing_else() {
    let permitted = Command::new("unshare").args(["-Urn", "ip", "link"]).output();
    if !permitted.is_ok_and(|ended| ended.status.success()) {
        eprintln!("skipped: no network namespace may be made here");
        return;
    }
    // RFC 3261's timers a tenth as long.
    let edge = play("edge", &["-Urn"]).env("VOXEDGE_TEST_T1_MS", "50").output();
    let edge = edge.expect("it was permitted a moment ago");
    let said = String::from_utf8_lossy(&edge.stdout);
    assert!(
        edge.status.success() && said.contains("played to the end"),
        "{said}\n{}",
        String::from_utf8_lossy(&edge.stderr)
    );
}

/// Plays its part only when started for it.
#[test]
fn the_parts() {
    match std::env::var(PART).as_deref() {
        Ok("edge") => rig::run(Duration::from_secs(150), edge()),
        Ok("callee") => callee(),
        _ => {}
    }
}

/// The callee's process, and what it says that it heard.
struct Callee {
    process: Child,
    heard: mpsc::Receiver<String>,
}

impl Callee {
    /// Starts it with the far end of the cable.
    fn start() -> Callee {
        run("ip link add edge type veth peer name pbx");
        let mut process = play("callee", &["-n"]).spawn().expect("we are root here");
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, heard) = mpsc::channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some(word) = line.strip_prefix("heard ") {
                    let _ = sender.send(word.to_owned());
                }
            }
        });
        let mut callee = Callee { process, heard };
        callee.expect("nothing");
        run(&format!("ip link set pbx netns {}", callee.process.id()));
        let mut stdin = callee.process.stdin.take().expect("it is piped");
        stdin.write_all(b"the cable is yours\n").expect("it waits");
        callee.expect("the cable");
        callee
    }

    fn expect(&mut self, word: &str) {
        while self.heard.recv_timeout(SOON).unwrap_or_else(|_| panic!("no {word}")) != word {}
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes every registration, and rings for every call.
fn callee() {
    println!("\nheard nothing");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the edge says when");
    run("ip link set lo up");
    run(&format!("ip address add {PBX}/24 dev pbx"));
    run("ip link set pbx up");
    let socket = UdpSocket::bind((PBX, 5060)).expect("the address is ours");
    println!("\nheard the cable");
    let mut buffer = [0; 65_536];
    loop {
        let (length, source) = socket.recv_from(&mut buffer).expect("a socket");
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let Ok(Message::Request(request)) = Message::parse(bytes, Framing::Datagram) else {
            continue;
        };
        let answer = |code| {
            let contact = match request.method() {
                Method::Register => {
                    request.headers().values(Name::Contact).next().unwrap_or_default().to_owned()
                }
                _ => format!("<sip:callee@{PBX}>"),
            };
            let answer = Builder::response(&request, &StatusLine::of(code), source);
            let answer = answer.to_tag("callee").header("Contact", &contact);
            let bytes = answer.finish().expect("it repeats what was read");
            // The cable may be out.
            let _ = socket.send_to(&bytes, source);
        };
        match request.method() {
            Method::Invite => answer(180),
            Method::Ack => {}
            _ => answer(200),
        }
        println!("\nheard {}", request.method().as_str());
    }
}

fn cable(state: &str) {
    run(&format!("ip link set edge {state}"));
}

async fn edge() {
    run("ip link set lo up");
    let mut callee = Callee::start();
    run(&format!("ip address add {EDGE}/24 dev edge"));
    let key = "base_url = \"embedded\"\napi_key = \"application\"";
    let policy = "allowed_hosts = [\"10.9.0.0/24\"]\nring_timeout_s = 5";
    let changes = [("base_url = \"embedded\"", key), ("allowed_hosts = [\"127.0.0.1\"]", policy)];
    let rig = Rig::start_as(&changes, |config| {
        config.listen.udp.push(format!("{EDGE}:5060").parse().expect("an address"));
        config.sip.registrations.push(RegistrationDocument {
            username: "edge".into(),
            password: Secret::new("secret"),
            proxy: PBX.into(),
            ..RegistrationDocument::default()
        });
    })
    .await;
    registers_when_the_cable_is_in(&rig, &mut callee);
    cable("down");
    for (to, statuses) in [
        (format!("sip:callee@{PBX}"), [408, 503]),
        (format!("sip:callee@{PBX};transport=tcp"), [408, 503]),
    ] {
        let record = ended(&rig, &place(&rig, &to));
        assert!(statuses.iter().any(|status| record["status"] == *status), "{record}");
        assert_eq!((&record["ended_by"], &record["deciminutes"]), (&json!("edge"), &json!(0)));
    }
    cable("up");
    let call = place(&rig, &format!("sip:callee@{PBX}"));
    callee.expect("INVITE");
    ringing(&rig, &call);
    cable("down");
    let record = ended(&rig, &call);
    assert_eq!((&record["status"], &record["deciminutes"]), (&json!(480), &json!(0)), "{record}");
    cable("up");
    let call = place(&rig, &format!("sip:callee@{PBX}"));
    ringing(&rig, &call);
    callee.expect("CANCEL");
    assert_eq!(ended(&rig, &call)["status"], 480, "it works as before");
    rig.doors.await_idle();
    let call = place(&rig, &format!("sip:callee@{PBX}"));
    ringing(&rig, &call);
    cable("down");
    rig.stop().await;
    println!("\nplayed to the end");
}

fn registers_when_the_cable_is_in(rig: &Rig, callee: &mut Callee) {
    let outcome = |wanted: &str| {
        await_some(SOON, wanted, || {
            let (_, page) = rig.doors.get("/metrics")?;
            page.contains(&format!("sip_registrations{{outcome=\"{wanted}\"}} 1\n")).then_some(())
        });
    };
    outcome("down");
    cable("up");
    callee.expect("REGISTER");
    outcome("up");
}

/// Places a call and gives Ultravox's id of it.
fn place(rig: &Rig, to: &str) -> String {
    let (key, path) = (Secret::new(KEY), format!("/api/agents/{ECHO}/calls"));
    let body = json!({"medium": {"sip": {"outgoing": {"to": to, "from": "caller"}}}}).to_string();
    let (api_key, body) = (Some(&key), Some(body.as_str()));
    let ask = Ask { method: "POST", path: &path, api_key, body, certificate: None };
    let answer = client::send(rig.doors.admin, &ask).expect("the daemon runs");
    let call: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    assert_eq!(answer.status, 201, "{call}");
    call["callId"].as_str().expect("a text").to_owned()
}

/// The record of the call, once it is as `wanted`.
fn record(rig: &Rig, call: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    await_some(SOON, what, || {
        let (_, body) = rig.doors.get(&format!("/edge/calls/{call}"))?;
        serde_json::from_str::<Value>(&body).ok().filter(&wanted)
    })
}

fn ringing(rig: &Rig, call: &str) {
    record(rig, call, "it rings", |record| !record["ringing_at"].is_null());
}

fn ended(rig: &Rig, call: &str) -> Value {
    record(rig, call, "the end of the call", |record| !record["ended_at"].is_null())
}

/// The least of it, wherever the tests run: the callee's program ends while its phone rings.
#[test]
fn a_callee_that_vanishes_while_it_rings_is_told_by_the_record() {
    rig::run(Duration::from_secs(60), async {
        let socket = UdpSocket::bind((rig::source(), 0)).expect("127/8 is ours");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        let address = socket.local_addr().expect("it is bound");
        let key = "base_url = \"embedded\"\napi_key = \"application\"";
        let policy = format!("allowed_hosts = [\"{address}\"]\nring_timeout_s = 5");
        let changes =
            [("base_url = \"embedded\"", key), ("allowed_hosts = [\"127.0.0.1\"]", &policy)];
        let rig = Rig::start(&changes).await;
        let call = place(&rig, &format!("sip:callee@{address}"));
        let mut buffer = [0; 65_536];
        let (length, source) = socket.recv_from(&mut buffer).expect("the INVITE");
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let Ok(Message::Request(request)) = Message::parse(bytes, Framing::Datagram) else {
            panic!("the daemon dials with an INVITE");
        };
        let answer = Builder::response(&request, &StatusLine::of(180), source).to_tag("callee");
        let answer = answer.header("Contact", "<sip:callee@127.0.0.1>").finish();
        socket.send_to(&answer.expect("it repeats what was read"), source).expect("loopback");
        ringing(&rig, &call);
        drop(socket);
        let record = ended(&rig, &call);
        assert_eq!((&record["status"], &record["sip_time_ms"]), (&json!(480), &json!(0)));
        rig.stop().await;
    });
}
