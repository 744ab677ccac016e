//! `voxedge route-test`: what would become of a call, by the very functions that the daemon decides
//! with. It reads the configuration, asks nobody and starts nothing; what only the agent service or
//! the fallback handler can tell is said so.

use crate::admission;
use crate::call::creation::Ingredients;
use crate::context::{self, Caller};
use crate::fallback::Question;
use crate::media::plan::AgentRates;
use crate::refusal::{Answer, Refusal, RefusalPolicy};
use crate::routing::{self, Route};
use crate::shell::config::{Config, ManagedBy, UnlistedUdp};
use crate::sip::msg::{Framing, Message, Request};
use crate::ultravox::create_call::CreateCall;
use bytes::Bytes;
use serde_json::Value;
use std::fmt::Write;
use std::net::IpAddr;
use std::process::ExitCode;

/// The call that is asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// From and To: a URI, or a name and a URI in angle brackets.
    pub from: String,
    pub to: String,
    /// Header lines, as `X-Customer-Name: Bob`.
    pub headers: Vec<String>,
    pub source: Option<IpAddr>,
}

/// Prints the answer. Success when a call would be created, or the handler asked.
pub fn route_test(config: &Config, asked: &Asked) -> ExitCode {
    match explain(config, asked) {
        Ok((text, is_taken)) => {
            print!("{text}");
            if is_taken { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            eprintln!("voxedge: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The answer in words, and whether the call would be taken.
fn explain(config: &Config, asked: &Asked) -> Result<(String, bool), String> {
    let request = invite(asked)?;
    let mut page = Page(String::new());
    if let Some(source) = asked.source {
        match admission::admit(&config.sip.account, source) {
            Some(admission) => page.row("source", &format!("{source} is admitted by {admission}")),
            None => {
                page.row("source", &format!("{source} is in no range of allowed_cidr_ranges"));
                page.row("caller", stranger(config));
                if !config.sip.registrations.is_empty() {
                    page.row("note", "a registrar's calls are admitted over their registration");
                }
                return Ok((page.0, false));
            }
        }
    }
    if config.sip.managed_by == ManagedBy::Api {
        page.row("note", "these are the file's rules; `voxedge config show` tells those in force");
    }
    let route = routing::of_to(&config.sip.account, &request.to().uri());
    page.rule(config, &request, &route);
    let caller = Caller::of(&request);
    let x_headers = context::from_headers(request.headers().lines());
    for remark in &x_headers.remarks {
        page.row("header", &remark.to_string());
    }
    let is_taken = match &route {
        Route::Allowance { agent_id, .. } | Route::Implicit { agent_id } => {
            page.row("creates", &format!("POST /api/agents/{agent_id}/calls"));
            page.json(&creation(config, &x_headers.values, &caller));
            page.row(
                "note",
                "ultravox.sip values are sent as far as the agent's contextSchema permits",
            );
            page.row("caller", "180 Ringing; 200 OK when the agent's stream is joined");
            if matches!(route, Route::Implicit { .. }) {
                page.row("", &format!("{}, if Ultravox knows no such agent", unmatched(config)));
            }
            true
        }
        Route::Fallback => {
            page.row("asks", &format!("POST {}", handler_address(config)));
            page.json(&Question::of(&request, &caller).body());
            page.row(
                "caller",
                "180 Ringing while the handler is asked, at most 5 s; then as it says:",
            );
            page.row("", "200 OK, its sipRejectCode, or 502 or 504 when it fails");
            true
        }
        Route::None => {
            page.row("caller", &status(&no_match(config, &request)));
            false
        }
    };
    Ok((page.0, is_taken))
}

/// The INVITE as the daemon would read it from a packet.
fn invite(asked: &Asked) -> Result<Request, String> {
    let lines = asked.headers.iter().chain([&asked.from, &asked.to]);
    if let Some(odd) = lines.into_iter().find(|line| line.contains(['\r', '\n', '\0'])) {
        return Err(format!("{odd:?} does not fit on one line"));
    }
    if let Some(odd) = asked.headers.iter().find(|line| !line.contains(':')) {
        return Err(format!("--header {odd:?} is no header; write --header 'X-Name: value'"));
    }
    let address = |text: &str| match text.contains('<') {
        true => text.to_owned(),
        false => format!("<{text}>"),
    };
    let (from, to) = (address(&asked.from), address(&asked.to));
    let source = asked.source.unwrap_or(IpAddr::from([192, 0, 2, 1]));
    let source = std::net::SocketAddr::new(source, 5060);
    let mut text = format!(
        "INVITE sip:route-test.invalid SIP/2.0\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bK1\r\n\
         Max-Forwards: 70\r\nFrom: {from};tag=1\r\nTo: {to}\r\nCall-ID: route-test\r\n\
         CSeq: 1 INVITE\r\n"
    );
    for header in &asked.headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    match Message::parse(Bytes::from(text), Framing::Datagram) {
        Ok(Message::Request(request)) => Ok(request),
        Ok(Message::Response(_)) => Err("this is no request".to_owned()),
        Err(fault) => Err(format!(
            "no INVITE can be made of this: {}; write URIs as in sip:+15551234567@pbx.example",
            fault.reason
        )),
    }
}

fn stranger(config: &Config) -> &'static str {
    match config.sip.unlisted_udp {
        UnlistedUdp::Silence => "silence on UDP, a closed connection on TCP and TLS",
        UnlistedUdp::Forbidden => "403 Forbidden on UDP, a closed connection on TCP and TLS",
    }
}

/// The body for the codec that is wanted most; the caller's offer may choose another.
fn creation(config: &Config, context: &serde_json::Map<String, Value>, caller: &Caller) -> Value {
    let kind = config.media.codecs.first().copied().unwrap_or(crate::codec::CodecKind::Pcmu);
    let rates = AgentRates::for_codec(kind, config.media.opus_output_hz);
    let request = CreateCall {
        input_hz: rates.input_hz,
        output_hz: rates.output_hz,
        client_buffer_ms: rates.client_buffer_ms(&[kind]),
        metadata: vec![
            ("edge.call".to_owned(), "<the call's key>".to_owned()),
            ("edge.sip_call_id".to_owned(), "<the INVITE's Call-ID>".to_owned()),
        ],
        ..CreateCall::default()
    };
    let body =
        Ingredients { request, context, caller, agent: None, handler: None, has_agent: true };
    let mut body = body.body();
    // An agent whose schema permits all of it.
    let context = context::template_context(context, Some(caller), None);
    body["templateContext"] = Value::Object(context);
    body
}

/// The handler's URL without its query, which may hold a token.
fn handler_address(config: &Config) -> String {
    let url = config.sip.account.fallback_handler().map(|handler| handler.url.as_str());
    let url = url.unwrap_or_default();
    match url.split_once('?') {
        Some((address, _)) => format!("{address}?***"),
        None => url.to_owned(),
    }
}

fn policy(config: &Config) -> RefusalPolicy {
    RefusalPolicy { no_match_status: config.sip.no_match_status }
}

fn no_match(config: &Config, request: &Request) -> Answer {
    let to = request.to();
    let refusal = match routing::to_user(&to.uri()) {
        Some(user) => Refusal::NoMatch { to_user: user.into_owned() },
        None => Refusal::NoToUser,
    };
    refusal.answer(policy(config))
}

fn status(answer: &Answer) -> String {
    format!("{}: {}", answer.status, answer.detail)
}

/// What a call gets whose agent does not exist.
fn unmatched(config: &Config) -> String {
    match routing::unmatched(&config.sip.account) {
        Route::Fallback => format!("the handler {} is asked", handler_address(config)),
        _ => {
            let refusal = Refusal::NoMatch { to_user: String::new() };
            refusal.answer(policy(config)).status.to_string()
        }
    }
}

/// Rows of a name and words.
struct Page(String);

impl Page {
    fn row(&mut self, name: &str, words: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name:<8} {words}");
    }

    fn json(&mut self, value: &Value) {
        let _ = writeln!(self.0, "{value:#}");
    }

    /// Which rule decides, and in which form the To user was found.
    fn rule(&mut self, config: &Config, request: &Request, route: &Route) {
        let to = request.to();
        let user = routing::to_user(&to.uri()).unwrap_or_default().into_owned();
        let words = match route {
            Route::Allowance { index, matched_form, .. } => {
                let allowance = config.sip.account.allowed_agents().get(*index);
                let pattern = allowance.map(|allowance| allowance.to_user_pattern.as_str());
                let form = match *matched_form == user {
                    true => "as it came".to_owned(),
                    false => format!("as {matched_form}"),
                };
                format!("{route} takes \"{user}\", {form}: {}", pattern.unwrap_or_default())
            }
            Route::Implicit { .. } => format!("{route} takes \"{user}\""),
            Route::Fallback => format!("no rule takes \"{user}\": the fallback handler decides"),
            Route::None => format!("no rule takes \"{user}\", and there is no fallback handler"),
        };
        self.row("rule", &words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::config::{self, Machine};
    use std::path::Path;

    const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";

    fn config(handler: bool) -> Config {
        let handler = match handler {
            true => {
                "[sip.fallback_handler]\nurl = \"https://h.example/x?t=t0ken\"\nsecrets = [\"s3cret\"]\n"
            }
            false => "",
        };
        let text = format!(
            "[listen]\nudp = [\"127.0.0.1:5070\"]\n[ultravox]\nbase_url = \"embedded\"\n\
             [media]\ncodecs = [\"PCMU\"]\n[sip]\nallowed_cidr_ranges = [\"198.51.100.0/24\"]\n\
             allow_all_agents = true\n[[sip.allowed_agents]]\nagent_id = \"{AGENT}\"\n\
             to_user_pattern = '^15551234567$'\n{handler}"
        );
        let (config, report) = config::read("f.toml", &text, Path::new(""), &Machine::this());
        config.unwrap_or_else(|| panic!("{report}"))
    }

    fn asked(to: &str, source: &str, headers: &[&str]) -> Asked {
        Asked {
            from: "\"Ada\" <sip:+12025550100@pbx.example>".into(),
            to: to.into(),
            headers: headers.iter().map(|line| (*line).to_owned()).collect(),
            source: source.parse().ok(),
        }
    }

    fn check(handler: bool, asked: &Asked, taken: bool, lines: &[&str]) -> String {
        let (text, is_taken) = explain(&config(handler), asked).expect("a sound call");
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with([' ', '{', '}']) || line.starts_with("         "))
            .collect();
        assert_eq!(rows, lines, "{text}");
        assert_eq!(is_taken, taken);
        text
    }

    #[test]
    fn a_number_is_taken_in_the_form_that_matched() {
        let asked = asked(
            "sip:+1-555-123-4567@edge.example",
            "198.51.100.7",
            &["X-Tier: {\"level\": 2}", "X-Ultravox: 1"],
        );
        let lines = [
            "source   198.51.100.7 is admitted by range 198.51.100.0/24",
            "rule     allowedAgents[0] takes \"+1-555-123-4567\", as 15551234567: ^15551234567$",
            "header   X-Ultravox left out: the key is reserved",
            "creates  POST /api/agents/6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11/calls",
            "note     ultravox.sip values are sent as far as the agent's contextSchema permits",
            "caller   180 Ringing; 200 OK when the agent's stream is joined",
        ];
        let text = check(false, &asked, true, &lines);
        let body: Value = json_of(&text);
        assert_eq!(crate::ultravox::schema::START_AGENT_CALL.check(&body), []);
        assert_eq!(body["templateContext"]["tier"]["level"], 2);
        assert_eq!(body["templateContext"]["ultravox"]["sip"]["caller_id"], "+12025550100");
        assert_eq!(body["medium"]["serverWebSocket"]["inputSampleRate"], 8_000);
    }

    fn json_of(text: &str) -> Value {
        let begin = text.find("\n{").expect("a body") + 1;
        let end = text.find("\n}").expect("a body") + 2;
        serde_json::from_str(&text[begin..end]).expect("it is JSON")
    }

    #[test]
    fn what_no_rule_takes_is_asked_for_or_refused() {
        let asked = asked("sip:support@edge.example", "198.51.100.7", &["X-A: b"]);
        let lines = [
            "source   198.51.100.7 is admitted by range 198.51.100.0/24",
            "rule     no rule takes \"support\": the fallback handler decides",
            "asks     POST https://h.example/x?***",
            "caller   180 Ringing while the handler is asked, at most 5 s; then as it says:",
            "         200 OK, its sipRejectCode, or 502 or 504 when it fails",
        ];
        let text = check(true, &asked, true, &lines);
        assert_eq!(json_of(&text)["sipHeaders"], serde_json::json!({"X-A": "b"}));
        assert!(!text.contains("t0ken") && !text.contains("s3cret"), "{text}");
        let lines = [
            lines[0],
            "rule     no rule takes \"support\", and there is no fallback handler",
            "caller   404 Not Found: no allowance matches the To user \"support\"",
        ];
        check(false, &asked, false, &lines);
    }

    #[test]
    fn a_stranger_and_an_implicit_agent() {
        let to = format!("sip:agent_{AGENT}@edge.example");
        let lines = [
            "source   203.0.113.5 is in no range of allowed_cidr_ranges",
            "caller   silence on UDP, a closed connection on TCP and TLS",
        ];
        check(false, &asked(&to, "203.0.113.5", &[]), false, &lines);
        let taken = format!("rule     allowAllAgents takes \"agent_{AGENT}\"");
        let creates = format!("creates  POST /api/agents/{AGENT}/calls");
        let lines = [
            taken.as_str(),
            &creates,
            "note     ultravox.sip values are sent as far as the agent's contextSchema permits",
            "caller   180 Ringing; 200 OK when the agent's stream is joined",
            "         the handler https://h.example/x?*** is asked, if Ultravox knows no such agent",
        ];
        check(true, &asked(&to, "", &[]), true, &lines);
    }

    #[test]
    fn what_is_no_call_is_told() {
        for (to, header) in
            [("sip:a@b\r\nX: y", "X-A: b"), ("sip:a@b", "no header"), ("", "X-A: b")]
        {
            let answer = explain(&config(false), &asked(to, "", &[header]));
            assert!(answer.is_err(), "{to} {header}: {answer:?}");
        }
    }
}
