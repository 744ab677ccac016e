//! Outgoing calls as an application places them: over HTTP, with the real daemon, its agents inside, and
//! a callee on a socket of its own.

use crate::rig::{self, Rig, SOON, await_some};
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use voxedge::ground::Secret;
use voxedge::shell::admin::client::{self, Answer, Ask};
use voxedge::shell::config::{Advertised, Config, ListenerAdvertised};
use voxedge::sip::msg::{Builder, Framing, Message, Method, Request};
use voxedge::sip::status::StatusLine;
use voxedge::ultravox::schema;

const ECHO: &str = "00000000-0000-4000-8000-0000000000e0";
const KEY: &str = "application";

/// A daemon that may call this address and no other.
async fn rig_for(callee: SocketAddr) -> Rig {
    rig_as(callee, |_| {}).await
}

async fn rig_as(callee: SocketAddr, adjust: impl FnOnce(&mut Config)) -> Rig {
    let policy = format!("allowed_hosts = [\"{callee}\"]");
    let key = "base_url = \"embedded\"\napi_key = \"application\"";
    let changes =
        [("base_url = \"embedded\"", key), ("allowed_hosts = [\"127.0.0.1\"]", policy.as_str())];
    Rig::start_as(&changes, adjust).await
}

/// A telephone that is called.
struct Callee {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Callee {
    fn new() -> Callee {
        let socket = UdpSocket::bind((rig::source(), 0)).expect("127/8 is ours");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        let address = socket.local_addr().expect("it is bound");
        Callee { socket, address }
    }

    /// The next request of this method; others, copies among them, are passed over.
    fn expect(&self, method: &Method) -> (Request, SocketAddr) {
        let mut buffer = [0; 65_536];
        await_some(SOON, method.as_str(), || {
            let (length, source) = self.socket.recv_from(&mut buffer).ok()?;
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            match Message::parse(bytes, Framing::Datagram).expect("the daemon writes well") {
                Message::Request(request) if request.method() == method => Some((request, source)),
                Message::Request(_) | Message::Response(_) => None,
            }
        })
    }

    fn answer(&self, (request, source): &(Request, SocketAddr), code: u16, description: &str) {
        let contact = format!("<sip:callee@{}>", self.address);
        let answer = Builder::response(request, &StatusLine::of(code), *source).to_tag("callee");
        let answer = answer.header("Contact", &contact);
        let answer = match description {
            "" => answer,
            text => answer.body("application/sdp", text.as_bytes()),
        };
        let bytes = answer.finish().expect("an answer repeats what was read");
        self.socket.send_to(&bytes, source).expect("loopback");
    }
}

fn send(rig: &Rig, method: &str, path: &str, key: &str, body: Option<Value>) -> Answer {
    let (key, body) = (Secret::new(key), body.map(|body| body.to_string()));
    let (api_key, body) = (Some(&key), body.as_deref());
    let ask = Ask { method, path, api_key, body, certificate: None };
    client::send(rig.doors.admin, &ask).expect("the daemon runs")
}

fn outgoing(to: &str) -> Value {
    json!({"medium": {"sip": {"outgoing": {
        "to": to, "from": "caller", "username": "us", "password": "password-canary"}}}})
}

/// Places a call and gives Ultravox's id of it.
fn place(rig: &Rig, callee: &Callee) -> String {
    let to = format!("sip:callee@{}", callee.address);
    let path = format!("/api/agents/{ECHO}/calls");
    let answer = send(rig, "POST", &path, KEY, Some(outgoing(&to)));
    let call: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    assert_eq!((answer.status, schema::CALL.check(&call)), (201, vec![]), "{call}");
    assert_eq!(
        (&call["joinUrl"], &call["medium"]["sip"]["outgoing"]["to"]),
        (&Value::Null, &json!(to))
    );
    assert!(!answer.body.contains("canary"), "{call}");
    call["callId"].as_str().expect("a text").to_owned()
}

fn details(rig: &Rig, call_id: &str) -> Value {
    let answer = send(rig, "GET", &format!("/api/calls/{call_id}"), KEY, None);
    let call: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    assert_eq!((answer.status, schema::CALL.check(&call)), (200, vec![]), "{call}");
    let called = call["medium"]["sip"]["outgoing"]["to"].as_str().unwrap_or_default();
    assert!(called.starts_with("sip:") && call["joinUrl"].is_null(), "{call}");
    call["sipDetails"].clone()
}

#[test]
fn a_call_that_rings_is_watched_and_ended_by_a_hang_up_message() {
    rig::run(Duration::from_secs(60), async {
        let callee = Callee::new();
        let rig = rig_for(callee.address).await;
        let call_id = place(&rig, &callee);
        let invite = callee.expect(&Method::Invite);
        callee.answer(&invite, 180, "");
        let live = details(&rig, &call_id);
        assert_eq!(live, json!({"billedDuration": "0s", "terminationReason": null}));
        let logs = format!("/api/calls/{call_id}/sip_logs");
        assert_eq!(send(&rig, "GET", &logs, KEY, None).status, 425);
        let message = format!("/api/calls/{call_id}/send_data_message");
        let hang_up = json!({"type": "hang_up"});
        assert_eq!(send(&rig, "POST", &message, KEY, Some(hang_up)).status, 204);
        let cancel = callee.expect(&Method::Cancel);
        callee.answer(&cancel, 200, "");
        callee.answer(&invite, 487, "");
        callee.expect(&Method::Ack);
        let ended = await_some(SOON, "the end", || {
            Some(details(&rig, &call_id)).filter(|details| !details["terminationReason"].is_null())
        });
        assert_eq!(ended["terminationReason"], "SIP_TERMINATION_CANCELED");
        let link = await_some(SOON, "the log", || {
            let answer = send(&rig, "GET", &logs, KEY, None);
            (answer.status == 302).then(|| answer.header("location").expect("a link").to_owned())
        });
        let path = link.split_once("/edge/").expect("it leads here").1;
        let log = client::request("GET", rig.doors.admin, &format!("/edge/{path}"), None);
        let log = log.expect("the daemon runs");
        assert!(
            log.status == 200 && log.body.contains("the client gave the call up"),
            "{}",
            log.body
        );
        assert!(!log.body.contains("canary"), "{}", log.body);
        rig.stop().await;
    });
}

#[test]
fn a_call_that_is_answered_ends_with_the_callees_bye() {
    rig::run(Duration::from_secs(60), async {
        let callee = Callee::new();
        let rig = rig_for(callee.address).await;
        let call_id = place(&rig, &callee);
        let invite = callee.expect(&Method::Invite);
        callee.answer(&invite, 200, &rig::offer(callee.address.ip(), 9_000, "0"));
        let (ack, source) = callee.expect(&Method::Ack);
        let contact = invite.0.contact().expect("we can be reached").uri().as_str().to_owned();
        let (from, to) = (ack.to().as_str().to_owned(), ack.from().as_str().to_owned());
        let bye = format!(
            "BYE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
             From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
            callee.address,
            ack.call_id()
        );
        callee.socket.send_to(bye.as_bytes(), source).expect("loopback");
        let ended = await_some(SOON, "the end", || {
            Some(details(&rig, &call_id)).filter(|details| !details["terminationReason"].is_null())
        });
        assert_eq!(ended["terminationReason"], "SIP_TERMINATION_NORMAL");
        rig.stop().await;
    });
}

#[test]
fn a_call_gives_the_address_of_the_listener_that_it_goes_out_by() {
    rig::run(Duration::from_secs(60), async {
        let callee = Callee::new();
        let given = Advertised { v4: Some([127, 0, 0, 7].into()), ..Advertised::default() };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let rig = rig_as(callee.address, |config| {
            config.listen.listeners = vec![ListenerAdvertised { listen, advertise: given }];
        })
        .await;
        place(&rig, &callee);
        let invite = callee.expect(&Method::Invite);
        let description = String::from_utf8_lossy(invite.0.body()).into_owned();
        assert!(description.contains("\r\nc=IN IP4 127.0.0.7\r\n"), "{description}");
        assert!(!description.contains("127.0.0.1"), "{description}");
        let ours = format!("127.0.0.7:{}", rig.doors.udp.port());
        let contact = invite.0.contact().expect("we can be reached").uri().as_str().to_owned();
        assert!(contact.contains(&ours), "{contact}");
        assert!(invite.0.via().as_str().contains(&ours), "{}", invite.0.via().as_str());
        callee.answer(&invite, 486, "");
        callee.expect(&Method::Ack);
        rig.stop().await;
    });
}

#[test]
fn only_the_right_key_and_a_named_host_are_dialled() {
    rig::run(Duration::from_secs(60), async {
        let rig = rig_for(([127, 0, 0, 1], 5_060).into()).await;
        let answer =
            |key: &str, body: Value| send(&rig, "POST", "/api/calls", key, Some(body)).status;
        assert_eq!(answer(KEY, outgoing("sip:1@192.0.2.1")), 403);
        assert_eq!(answer(KEY, outgoing("+15550001111")), 400);
        assert_eq!(answer(rig::ADMIN_KEY, outgoing("sip:1@127.0.0.1")), 403);
        assert_eq!(answer("wrong", outgoing("sip:1@127.0.0.1")), 401);
        rig.stop().await;
    });
}
