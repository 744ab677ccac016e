//! 100,000 seeded mutations of the message fixtures: nothing panics, a packet and a stream of single
//! bytes are read alike, what is read prints to something that reads the same, and nothing that is
//! written holds a line break from what was read.

use crate::torture_parse::{own, rows};
use bytes::Bytes;
use std::net::SocketAddr;
use voxedge::ground::Entropy;
use voxedge::sip::msg::frame::{Framed, StreamFramer};
use voxedge::sip::msg::{Builder, Framing, Message, Name};
use voxedge::sip::status::StatusLine;

const MUTATIONS: u64 = 100_000;
const DELIMITERS: [&[u8]; 20] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n ",
    b"\r\n\r\n",
    b":",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"=",
    b"@",
    b"[",
    b"]",
    b"%",
    b" ",
    b"\0",
    b"\xff",
];

fn source() -> SocketAddr {
    "192.0.2.99:50600".parse().expect("an address")
}

pub fn mutate(bytes: &mut Vec<u8>, entropy: &mut Entropy) {
    for _ in 0..=entropy.below(4) {
        let len = bytes.len() as u64;
        let at = entropy.below(len + 1) as usize;
        let run = at..(at + entropy.below(41) as usize).min(bytes.len());
        match entropy.below(7) {
            0 => bytes.insert(at, entropy.u32() as u8),
            1 => drop(bytes.drain(at..(at + 1).min(len as usize))),
            2 => {
                let delimiter = DELIMITERS[entropy.below(DELIMITERS.len() as u64) as usize];
                bytes.splice(at..at, delimiter.iter().copied());
            }
            3 => bytes.truncate(at.max(1)),
            4 => drop(bytes.drain(run)),
            5 => {
                let copied = bytes[run].to_vec();
                let to = entropy.below(bytes.len() as u64 + 1) as usize;
                bytes.splice(to..to, copied);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << entropy.below(8);
                }
            }
        }
    }
}

#[test]
fn mutated_messages_are_read_one_way_or_refused() {
    let corpus: Vec<Bytes> = ["sip", "sip_syntax"]
        .into_iter()
        .flat_map(|folder| rows(&own(folder)))
        .map(|(_, bytes)| bytes)
        .collect();
    let (mut requests, mut faults) = (0, 0);
    for seed in 0..MUTATIONS {
        let mut entropy = Entropy::from_number(seed);
        let mut bytes = corpus[entropy.below(corpus.len() as u64) as usize].to_vec();
        mutate(&mut bytes, &mut entropy);
        let bytes = Bytes::from(bytes);
        let datagram = Message::parse(bytes.clone(), Framing::Datagram);
        match &datagram {
            Ok(message) => {
                check_views(message, seed);
                check_print(message, seed);
                requests += 1;
            }
            Err(fault) => {
                if let Some(answer) = fault.answer(source()) {
                    check_lines(
                        &answer,
                        &["Via", "From", "To", "Call-ID", "CSeq", "Content-Length"],
                        seed,
                    );
                }
                faults += 1;
            }
        }
        check_stream(&bytes, datagram.ok(), seed);
    }
    assert!(requests > 10_000 && faults > 10_000, "both sides are met: {requests} and {faults}");
}

/// All views of what was accepted can be asked for, and what is guaranteed is there.
fn check_views(message: &Message, seed: u64) {
    assert!(!message.call_id().is_empty() && message.vias().count() > 0, "seed {seed}");
    assert!(
        !message.from().as_str().is_empty() && !message.to().as_str().is_empty(),
        "seed {seed}"
    );
    for (name, value) in message.lines() {
        assert!(!name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']), "seed {seed}");
    }
    for contact in message.contacts() {
        let uri = contact.uri();
        let _ = (uri.user_decoded(), uri.param("x"), uri.headers().count(), contact.display_name());
    }
    let _ = (
        message.expires(),
        message.content_type(),
        message.max_forwards(),
        message.via().received(),
    );
}

/// A request printed from its own headers reads the same, and prints the same again; an answer to
/// it is a message that holds only the lines it should.
fn check_print(message: &Message, seed: u64) {
    let Message::Request(request) = message else { return };
    let answer = Builder::response(request, &StatusLine::of(486), source()).to_tag("t").finish();
    let answer = answer.expect("an answer needs nothing of the caller");
    check_lines(&answer, &["Via", "From", "To", "Call-ID", "CSeq", "Content-Length"], seed);
    let parsed = Message::parse(answer, Framing::Stream)
        .unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    assert_eq!(parsed.vias().count(), request.vias().count(), "seed {seed}");
    assert_eq!(
        (parsed.call_id(), parsed.cseq()),
        (request.call_id(), request.cseq()),
        "seed {seed}"
    );
    assert_eq!(
        (parsed.from().tag(), parsed.from().uri()),
        (request.from().tag(), request.from().uri())
    );
    let Some(printed) = print(message) else { return };
    let again = Message::parse(printed.clone(), Framing::Stream)
        .unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    assert_eq!(print(&again), Some(printed), "seed {seed}");
    let kept = |message: &Message| -> Vec<(String, String)> {
        let of_body =
            |name: &str| matches!(Name::parse(name), Name::ContentLength | Name::ContentType);
        let lines = message.lines().filter(|(name, _)| !of_body(name));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    assert_eq!(kept(&again), kept(message), "seed {seed}");
    assert_eq!(again.body(), message.body(), "seed {seed}");
}

/// The request written anew; `None` when a quoted NUL is in it, which we never write ourselves.
fn print(message: &Message) -> Option<Bytes> {
    let Message::Request(request) = message else { return None };
    let mut builder = Builder::request(request.method(), request.uri().as_str());
    for (name, value) in request.lines() {
        if !matches!(Name::parse(name), Name::ContentLength | Name::ContentType) {
            builder = builder.header(name, value);
        }
    }
    builder.body(request.get(Name::ContentType).unwrap_or("x/y"), request.body()).finish().ok()
}

fn check_lines(bytes: &[u8], names: &[&str], seed: u64) {
    let text = String::from_utf8_lossy(bytes);
    let head = text.strip_suffix("\r\n\r\n").unwrap_or_else(|| panic!("seed {seed}: {text}"));
    for line in head.split("\r\n").skip(1) {
        assert!(!line.contains(['\r', '\n']), "seed {seed}: {text}");
        let name = line.split(':').next().unwrap_or_default();
        assert!(names.contains(&name), "seed {seed}: {line}");
    }
}

/// A stream that brings the bytes one by one gives the message that a packet gives. Only what lies
/// in the nature of streams differs: a needed Content-Length, and waiting for what does not come.
fn check_stream(bytes: &Bytes, datagram: Option<Message>, seed: u64) {
    let mut framer = StreamFramer::new(source());
    let mut framed = None;
    'pieces: for byte in bytes.iter() {
        framer.push(&[*byte]);
        loop {
            match framer.next() {
                Ok(None) => break,
                Ok(Some(Framed::KeepAlive | Framed::Pong)) => {}
                Ok(Some(Framed::Message(message))) => {
                    framed = Some(message);
                    break 'pieces;
                }
                Err(fault) => {
                    if let Some(answer) = fault.answer {
                        check_lines(
                            &answer,
                            &["Via", "From", "To", "Call-ID", "CSeq", "Content-Length"],
                            seed,
                        );
                    }
                    break 'pieces;
                }
            }
        }
    }
    let with_length = datagram.filter(|message| message.get(Name::ContentLength).is_some());
    assert!(
        framed.is_some() || with_length.is_none(),
        "seed {seed}: a packet was read, a stream not"
    );
    let Some(framed) = framed else { return };
    let stream = Message::parse(framed.clone(), Framing::Stream).map_err(|fault| fault.reason);
    let packet = Message::parse(framed, Framing::Datagram).map_err(|fault| fault.reason);
    let whole = |parsed: Result<Message, _>| {
        parsed.map(|message| (message.bytes().clone(), message.body().to_vec()))
    };
    let (stream, packet) = (whole(stream), whole(packet));
    assert_eq!(stream, packet, "seed {seed}");
    if let Some(message) = with_length {
        assert_eq!(stream.map(|(bytes, _)| bytes), Ok(message.bytes().clone()), "seed {seed}");
    }
}
