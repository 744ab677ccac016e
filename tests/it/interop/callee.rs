//! SIPp is called: the daemon dials what a client asks for over its API, and SIPp plays the callee's
//! scenarios of `fixtures/sipp`, over UDP and TCP. Its exit code says that every message came as the
//! scenario wants it.

use super::phone::Phone;
use super::rig::{Edge, has};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use voxedge::billing::{CallDirection, Cdr, EndedBy};

/// One HTTP request to the admin listener: status and body.
pub(super) fn post(edge: &Edge, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&edge.admin).expect("the listener is there");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: interop\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        edge.admin,
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status, body)
}

/// Dials the phone; the client has its call.
fn dial(edge: &Edge, phone: &Phone, transport: &str) -> String {
    let transport = if transport == "u1" { "udp" } else { "tcp" };
    let body = format!(
        "{{\"medium\": {{\"sip\": {{\"outgoing\": {{\"to\": \
         \"sip:bob@127.0.0.1:{};transport={transport}\", \"from\": \"+15550100\", \
         \"username\": \"customer\", \"password\": \"a password\"}}}}}}}}",
        phone.port
    );
    let agent = "00000000-0000-4000-8000-0000000000e0";
    let (status, answer) = post(edge, &format!("/api/agents/{agent}/calls"), &body);
    assert_eq!(status, 201, "{answer}");
    assert!(answer.contains("\"joinUrl\":null") && !answer.contains("a password"), "{answer}");
    let id = answer.split("\"callId\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.expect("a call has an id").to_owned()
}

/// The scenario over both transports; gives the records.
fn called(scenario: &str) -> Vec<Cdr> {
    if !has("sipp") {
        return Vec::new();
    }
    let mut records = Vec::new();
    for transport in ["u1", "t1"] {
        let phone = Phone::start(scenario, transport);
        let edge = Edge::start_dialling(phone.port);
        dial(&edge, &phone, transport);
        phone.assert_content();
        records.extend(edge.closed(1));
    }
    for record in &records {
        assert_eq!(record.direction, CallDirection::Outgoing, "{record:#?}");
    }
    records
}

fn assert_held(records: &[Cdr]) {
    for record in records {
        assert_eq!(record.status, Some(200), "{record:#?}");
        assert_eq!(record.ended_by, Some(EndedBy::Callee), "{record:#?}");
        assert!(record.joined_at >= record.answered_at, "{record:#?}");
        assert!(record.sip_time >= Duration::from_millis(250), "{record:#?}");
    }
}

fn assert_not_answered(records: &[Cdr], status: u16) {
    for record in records {
        assert_eq!((record.status, record.answered_at), (Some(status), None), "{record:#?}");
        assert_eq!(record.sip_time, Duration::ZERO, "{record:#?}");
    }
}

#[test]
fn sipp_answers_our_call() {
    assert_held(&called("callee_answers"));
}

#[test]
fn sipp_sends_early_media_first() {
    assert_held(&called("callee_early"));
}

#[test]
fn sipp_checks_our_credentials() {
    assert_held(&called("callee_challenges"));
}

#[test]
fn sipp_refuses_our_call() {
    assert_not_answered(&called("callee_busy"), 486);
    assert_not_answered(&called("callee_declines"), 603);
    assert_not_answered(&called("callee_moved"), 302);
}

#[test]
fn sipp_rings_until_the_client_gives_up() {
    if !has("sipp") {
        return;
    }
    for transport in ["u1", "t1"] {
        let phone = Phone::start("callee_never", transport);
        let edge = Edge::start_dialling(phone.port);
        let id = dial(&edge, &phone, transport);
        edge.records_when(|list| list.iter().any(|cdr| cdr.ringing_at.is_some()));
        let path = format!("/api/calls/{id}/send_data_message");
        let (status, answer) = post(&edge, &path, "{\"type\": \"hang_up\"}");
        assert_eq!(status, 204, "{answer}");
        phone.assert_content();
        let records = edge.closed(1);
        assert_not_answered(&records, 487);
        assert_eq!(records[0].ended_by, Some(EndedBy::Client));
    }
}

#[test]
fn nobody_listens_there() {
    let edge = Edge::start_dialling(9);
    let begun = Instant::now();
    let body = "{\"medium\": {\"sip\": {\"outgoing\": {\"to\": \
                \"sip:bob@127.0.0.1:9;transport=tcp\", \"from\": \"1\"}}}}";
    let agent = "00000000-0000-4000-8000-0000000000e0";
    assert_eq!(post(&edge, &format!("/api/agents/{agent}/calls"), body).0, 201);
    let records = edge.closed(1);
    assert_not_answered(&records, 503);
    assert!(begun.elapsed() < Duration::from_secs(20), "a refused connection is known at once");
    let body = body.replace("127.0.0.1:9", "127.0.0.1:10");
    assert_eq!(post(&edge, &format!("/api/agents/{agent}/calls"), &body).0, 403);
}
