//! Parse-level verdicts on messages in files: ours in `fixtures/`, and the 62 of RFC 4475 and RFC
//! 5118 where they are at hand. A verdict is what the message layer and the RFC's own refusals
//! decide: a status, `none` (dropped or held), or `pass` (a request that goes on to the user agent).

use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use voxedge::sip::msg::frame::{Framed, StreamFramer};
use voxedge::sip::msg::{Framing, Message, Method, Name, ParseFault, Request};
use voxedge::sip::status::{Abilities, ProtocolRefusal, judge};

/// The files that the project may not carry, or `None` with a notice. In CI they must be there.
pub fn test_data(folder: &str) -> Option<PathBuf> {
    let found = std::env::var_os("VOXEDGE_TEST_DATA")
        .map(|root| Path::new(&root).join("fixtures").join(folder));
    match found.filter(|path| path.is_dir()) {
        Some(path) => Some(path),
        None if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("CI needs VOXEDGE_TEST_DATA with fixtures/{folder}")
        }
        None => {
            eprintln!("skipped: VOXEDGE_TEST_DATA has no fixtures/{folder}");
            None
        }
    }
}

pub fn own(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder)
}

/// The rows of an `index.tsv` by column name, with the bytes of each file.
pub fn rows(folder: &Path) -> Vec<(BTreeMap<String, String>, Bytes)> {
    let index = std::fs::read_to_string(folder.join("index.tsv")).expect("an index");
    let mut lines = index.lines();
    let columns: Vec<&str> = lines.next().expect("a header line").split('\t').collect();
    let row = |line: &str| -> BTreeMap<String, String> {
        let cells = line.split('\t').map(str::to_owned);
        columns.iter().map(|column| (*column).to_owned()).zip(cells).collect()
    };
    let rows: Vec<_> = lines
        .map(row)
        .map(|row| {
            let bytes = std::fs::read(folder.join(&row["name"])).expect("a file for each row");
            (row, Bytes::from(bytes))
        })
        .collect();
    let files = std::fs::read_dir(folder).expect("a folder").count();
    assert_eq!(rows.len() + 1, files, "{}: each file has its row", folder.display());
    rows
}

fn source() -> SocketAddr {
    "192.0.2.99:50600".parse().expect("an address")
}

fn abilities() -> Abilities {
    use Method::*;
    Abilities {
        methods: vec![Invite, Ack, Bye, Cancel, Options, Prack, Update, Info, Refer, Notify],
        extensions: vec!["100rel", "timer", "replaces"],
        accepts: vec!["application/sdp"],
    }
}

fn status_of(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(8..11).expect("a status line")).into_owned()
}

fn verdict(parsed: &Result<Message, ParseFault>) -> String {
    match parsed {
        Err(fault) => match fault.answer(source()) {
            Some(answer) => {
                check_answer(&answer);
                status_of(&answer)
            }
            None => "none".into(),
        },
        Ok(Message::Response(_)) => "none".into(),
        // What belongs to a dialog is judged there.
        Ok(Message::Request(request)) if request.to().tag().is_some() => "pass".into(),
        Ok(Message::Request(request)) => match judge(request, &abilities()) {
            Ok(()) => "pass".into(),
            Err(refusal) => refusal.status.code.to_string(),
        },
    }
}

/// An answer of ours is a message itself when what it copies was well formed, and names the source.
fn check_answer(answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert!(text.contains(";received=192.0.2.99"), "{text}");
    assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{text}");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
}

/// The verdict over a stream that carries the message and then (with `follow`) an OPTIONS, in pieces
/// of `size`, and what became of the stream: `open`, `close` or `hold`.
fn stream_verdict(bytes: &[u8], size: usize, follow: bool) -> (String, &'static str) {
    let probe = b"OPTIONS sip:probe@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKp\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:u@h>\r\nCall-ID: probe\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    let mut framer = StreamFramer::new(source());
    let mut first = None;
    let all = if follow { [bytes, &probe[..]].concat() } else { bytes.to_vec() };
    for piece in all.chunks(size) {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(None) => break,
                Ok(Some(Framed::KeepAlive | Framed::Pong)) => {}
                Ok(Some(Framed::Message(bytes))) => {
                    let parsed = Message::parse(bytes, Framing::Stream);
                    let is_probe =
                        parsed.as_ref().is_ok_and(|message| message.call_id() == "probe");
                    let verdict = first.get_or_insert_with(|| verdict(&parsed)).clone();
                    if is_probe {
                        return (verdict, "open");
                    }
                }
                Err(fault) => {
                    let answer = fault.answer.map_or("none".into(), |answer| status_of(&answer));
                    return (first.unwrap_or(answer), "close");
                }
            }
        }
    }
    (first.unwrap_or("none".into()), "hold")
}

fn allows(allowed: &str, verdict: &str) -> bool {
    let passes = ["route", "2xx", "481", "404", "any"];
    allowed.split(',').any(|word| {
        word == "any" || word == verdict || (verdict == "pass" && passes.contains(&word))
    })
}

#[test]
fn own_syntax_points_have_their_exact_verdict() {
    for (row, bytes) in rows(&own("sip_syntax")) {
        let name = &row["name"];
        assert_eq!(
            verdict(&Message::parse(bytes.clone(), Framing::Datagram)),
            row["udp"],
            "{name} over UDP"
        );
        for size in [1, 7, 100_000] {
            let (verdict, after) = stream_verdict(&bytes, size, true);
            assert_eq!(verdict, row["stream"], "{name} over a stream in {size}s");
            assert!(
                row["stream_after"] == "either" || row["stream_after"] == after,
                "{name}: {after}"
            );
        }
    }
}

#[test]
fn vendor_messages_have_an_allowed_verdict() {
    for (row, bytes) in rows(&own("sip")) {
        let name = &row["name"];
        let datagram = verdict(&Message::parse(bytes.clone(), Framing::Datagram));
        assert!(allows(&row["allowed_outcome"], &datagram), "{name} over UDP: {datagram}");
        if row["allowed_outcome_stream"] != "-" {
            let (verdict, after) = stream_verdict(&bytes, 1, true);
            assert!(
                allows(&row["allowed_outcome_stream"], &verdict),
                "{name} over a stream: {verdict}"
            );
            assert_eq!(after, "open", "{name}");
        }
    }
}

#[test]
fn torture_messages_have_an_allowed_verdict() {
    let Some(folder) = test_data("torture") else { return };
    let rows = rows(&folder);
    assert_eq!(rows.len(), 62);
    for (row, bytes) in rows {
        let name = &row["name"];
        let datagram = verdict(&Message::parse(bytes.clone(), Framing::Datagram));
        assert!(allows(&row["allowed_outcome_udp"], &datagram), "{name} over UDP: {datagram}");
        for size in [1, 100_000] {
            // A head that never ends would take what follows for its own lines.
            let follow = row["stream_after"] != "skip";
            let (stream, after) = stream_verdict(&bytes, size, follow);
            assert!(
                allows(&row["allowed_outcome_stream"], &stream),
                "{name} over a stream: {stream}"
            );
            let expected = row["stream_after"].as_str();
            let fits = match expected {
                "either" => after != "hold",
                "skip" => true,
                // The second message of dblreq is cut short by its own length on purpose.
                other => other == after,
            };
            assert!(fits || name == "test.sip", "{name}: {after}, not {expected}");
        }
    }
}

fn request(folder: &str, name: &str) -> Request {
    let bytes = std::fs::read(own(folder).join(name)).expect("a fixture");
    match Message::parse(bytes.into(), Framing::Datagram) {
        Ok(Message::Request(request)) => request,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn folded_and_compact_headers_are_read_as_meant() {
    let request = request("sip_syntax", "folded-everything.sip");
    assert_eq!(request.max_forwards(), Some(70));
    assert_eq!((request.cseq().number, request.method()), (7, &Method::Invite));
    assert_eq!(request.call_id(), "fold.1@192.0.2.20");
    assert_eq!(request.from().display_name().as_deref(), Some("Al \\\""));
    assert_eq!((request.from().tag(), request.to().tag()), (Some("f1"), Some("t-1")));
    let branches: Vec<_> = request.vias().map(|via| via.branch().map(str::to_owned)).collect();
    assert_eq!(branches, ["old1", "z9hG4bKh2", "z9hG4bKh3"].map(|text| Some(text.to_owned())));
    assert_eq!(request.contacts().count(), 1);
    let contact = request.contact().expect("one");
    assert_eq!(contact.param("q"), Some(Some("0.5".into())));
    assert_eq!(request.get_named("x-new"), Some("one two"));
    assert_eq!(request.get_named("X-ODD"), Some(";;,,;;,;"));
    assert_eq!(request.get(Name::Subject), Some(""));
    assert_eq!(request.routes(), ["<sip:edge.example.com;lr;x=y;z>"]);
    assert_eq!(request.content_type().as_deref(), Some("application/sdp"));
    assert!(request.body().starts_with(b"v=0\r\n") && request.body().ends_with(b"RTP/AVP 0\r\n"));
}

#[test]
fn bytes_and_order_are_kept() {
    let binary = request("sip_syntax", "binary-multipart.sip");
    let all: Vec<u8> = (0..=255).collect();
    assert!(binary.body().windows(256).any(|part| part == all));
    let unknown = request("sip_syntax", "unknown-headers.sip");
    let names: Vec<_> =
        unknown.lines().map(|(name, _)| name).filter(|name| name.len() < 4).collect();
    assert_eq!(names, ["Via", "To", "X-b", "x-A", "X-B", "Zz"]);
    let latin1 = request("sip_syntax", "latin1-name.sip");
    assert_eq!(latin1.from().display_name().as_deref(), Some("Müller"));
    assert_eq!(latin1.get_named("X-After"), Some("still here"));
    let escapes = request("sip_syntax", "escapes-in-uris.sip");
    assert_eq!(escapes.uri().user_decoded(), "sips:a@example.org");
    let contact = escapes.contact().expect("one").uri();
    assert_eq!(contact.param("name"), Some(Some("value%41".into())));
    let extra = request("sip_syntax", "bytes-after-the-body.sip");
    assert!(extra.body().is_empty() && extra.bytes().ends_with(b"\r\n\r\n"));
}

#[test]
fn vendor_habits_are_read_as_meant() {
    let teams = request("sip", "teams-invite.sip");
    assert_eq!(
        teams.values(Name::PAssertedIdentity).collect::<Vec<_>>(),
        ["<tel:+15550142000>", "<sip:alice@example.com>"]
    );
    assert!(
        teams
            .contact()
            .expect("one")
            .as_str()
            .contains("x-c=d47f6e60f1d85282bc613f853f28bdc6/d/8/1b5c7b8e0c3f4f0a>")
    );
    let quoted = request("sip", "quoted-escapes.sip");
    assert_eq!(quoted.from().display_name().as_deref(), Some("A \"quoted, <x>;y\" name\\"));
    assert_eq!(quoted.from().uri().password(), Some("p%3Bw"));
    assert_eq!(quoted.to().display_name().as_deref(), Some("Müller, Jörg"));
    assert_eq!(quoted.contacts().count(), 2);
    let tel = request("sip", "tel-uri.sip");
    assert_eq!(
        (tel.uri().user(), tel.from().uri().user()),
        (Some("+1-555-123-4567"), Some("+15551234567"))
    );
    assert_eq!(tel.from().uri().param("npdi"), Some(None));
    let under = request("sip", "underscore-host-and-params.sip");
    assert_eq!(under.uri().host().to_string(), "my_host.local");
    assert_eq!(under.contact().expect("one").param("expires"), Some(Some("60".into())));
    let twilio = request("sip", "twilio-tls-sdes-invite.sip");
    assert_eq!(twilio.record_routes().len(), 2);
}

#[test]
fn refusals_carry_the_headers_that_the_rfc_demands() {
    let refusal = |name: &str| -> ProtocolRefusal {
        judge(&request("sip_syntax", name), &abilities()).expect_err(name)
    };
    let allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY".to_owned();
    assert_eq!(refusal("odd-token-characters.sip").headers, [("Allow", allow.clone())]);
    assert_eq!(refusal("escaped-nul.sip").headers, [("Allow", allow)]);
    assert_eq!(
        refusal("unknown-require.sip").headers,
        [("Unsupported", "nothing1, nothing2".to_owned())]
    );
    assert_eq!(
        refusal("unknown-body-type.sip").headers,
        [("Accept", "application/sdp".to_owned())]
    );
    assert_eq!(refusal("sdp-not-accepted.sip").headers, []);
}
