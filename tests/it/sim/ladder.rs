//! What a run looked like, as text: one line for each message, request and event, with its time in
//! milliseconds. A scenario's whole ladder is kept in `fixtures/ladders/`.

use std::fmt::Write;
use std::path::PathBuf;
use voxedge::billing::cdr::Cdr;
use voxedge::ground::Instant;

#[derive(Default)]
pub struct Lines(String);

impl Lines {
    pub fn push(&mut self, at: Instant, from: &str, to: &str, text: &str) {
        let ms = at.as_nanos() / 1_000_000;
        let way = format!("{from} → {to}");
        writeln!(self.0, "{ms:>6}  {way:<14}  {text}").expect("a string takes text");
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Compares a ladder with the one that is kept. `VOXEDGE_LADDERS=write` keeps the new one instead.
pub fn check(name: &str, ladder: &str) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/ladders");
    let path = directory.join(format!("{name}.txt"));
    if std::env::var("VOXEDGE_LADDERS").as_deref() == Ok("write") {
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(&path, ladder).expect("a ladder is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != ladder {
        let mut marked = String::new();
        let mut lines = expected.lines();
        for line in ladder.lines() {
            let mark = if lines.next() == Some(line) { ' ' } else { '!' };
            writeln!(marked, "{mark} {line}").expect("a string takes text");
        }
        panic!("{name} is not its ladder.\nexpected:\n{expected}\ncame (! differs):\n{marked}");
    }
}

/// A SIP message in one line: method or status, CSeq, and what this product's tests care for.
pub fn message(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let mut label = match start.strip_prefix("SIP/2.0 ") {
        Some(status) => {
            let cseq = header(head, "CSeq").unwrap_or_default();
            let method = cseq.split(' ').nth(1).unwrap_or_default();
            let number = cseq.split(' ').next().unwrap_or_default();
            format!("{} {method} {number}", status.split(' ').next().unwrap_or_default())
        }
        None => {
            let method = start.split(' ').next().unwrap_or_default();
            let cseq = header(head, "CSeq").unwrap_or_default();
            format!("{method} {}", cseq.split(' ').next().unwrap_or_default())
        }
    };
    if body.starts_with("SIP/2.0 ") {
        label.push_str(&format!("  [{}]", body.trim_end()));
    } else if !body.is_empty() {
        label.push_str(&format!("  [{}]", description(body)));
    }
    for name in ["Retry-After", "Warning", "Reason", "Accept", "Refer-To", "Subscription-State"] {
        if let Some(value) = header(head, name) {
            label.push_str(&format!("  {name}: {value}"));
        }
    }
    label
}

/// Call-ID and CSeq (number and method) of a message.
pub fn call_and_cseq(bytes: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(bytes);
    let value = |name| header(&text, name).unwrap_or_default().to_owned();
    (value("Call-ID"), value("CSeq"))
}

/// Status and To tag of a final answer.
pub fn final_answer(bytes: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let status = text.strip_prefix("SIP/2.0 ")?.get(..3)?.to_owned();
    let tag = header(&text, "To")?.split_once(";tag=").map_or("", |(_, tag)| tag).to_owned();
    (!status.starts_with('1')).then_some((status, tag))
}

/// The value of a header, spelled like this.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The version in the origin line, payload numbers and direction of a description.
fn description(body: &str) -> String {
    let line = |start: &str| body.lines().find_map(|line| line.strip_prefix(start));
    let Some(media) = line("m=audio ") else { return "no audio".into() };
    let numbers = media.split_once("RTP/AVP ").map_or("?", |(_, numbers)| numbers);
    let known = ["sendrecv", "sendonly", "recvonly", "inactive"];
    let direction = known.into_iter().find(|word| line(&format!("a={word}")).is_some());
    let version = line("o=").and_then(|origin| origin.split(' ').nth(2)).unwrap_or("?");
    format!("v{version} {numbers} {}", direction.unwrap_or("sendrecv"))
}

/// A record in one line.
pub fn record(cdr: &Cdr) -> String {
    let mut text = String::from(if cdr.is_closed() { "closed" } else { "open" });
    if let Some(status) = cdr.status {
        write!(text, " {status}").expect("a string takes text");
    }
    let (sip, agent) = (cdr.sip_time.as_millis(), cdr.agent_time.as_millis());
    write!(text, "  sip {sip}  agent {agent}  deciminutes {}", cdr.deciminutes.count())
        .expect("a string takes text");
    if let Some(by) = cdr.ended_by {
        write!(text, "  {by:?}: {}", cdr.end_reason.as_deref().unwrap_or("?"))
            .expect("a string takes text");
    }
    if let Some(media) = &cdr.media {
        write!(text, "  rtp {} in {} out", media.packets_received, media.packets_sent)
            .expect("a string takes text");
    }
    text
}
