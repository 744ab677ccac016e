//! The fallback handler (seed, "Fallback Handler"): the customer's webhook that decides on calls which
//! no allowance matches. Here is what it is asked, how the request is signed, and what its answer
//! means: exactly one of `startAgentCall`, `startCall` and `reject`, or a fault. The one door to HMAC.
//! This module opens no connection and asks no clock; `shell::webhook` carries the request.
//!
//! The answer's call bodies stay opaque: what the daemon does not know passes through to Ultravox,
//! and what is the daemon's own is overwritten where the call is created (`call::creation`).

pub mod address;

use crate::account::{AgentId, FallbackHandler};
use crate::billing::cdr::rfc3339;
use crate::context::{self, Caller};
use crate::ground::{WallTime, limits};
use crate::sip::msg::Request;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use std::fmt;

/// `sipRejectCode` when the handler names none.
const REJECT_CODE: u16 = 603;
/// What is kept of a rejection's message.
const MESSAGE_CHARS_MAX: usize = 200;

/// What the handler is told about a call: exactly the five members of the published body.
#[derive(Clone, PartialEq)]
pub struct Question {
    caller_id: Option<String>,
    from_display_name: Option<String>,
    from_uri: String,
    to_uri: String,
    /// `X-` headers by their names as received; of a repeated one the first.
    sip_headers: Map<String, Value>,
}

impl Question {
    /// The question about an INVITE. The caller is anonymous to the handler as it is to the agent.
    pub fn of(request: &Request, caller: &Caller) -> Question {
        let mut sip_headers: Map<String, Value> = Map::new();
        for (name, value) in context::x_headers(request.headers().lines()).0 {
            let is_repeated = sip_headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            if !is_repeated {
                sip_headers.insert(name.to_owned(), Value::from(value));
            }
        }
        Question {
            caller_id: caller.caller_id.clone(),
            from_display_name: caller.from_display_name.clone(),
            from_uri: caller.from_uri.clone(),
            to_uri: request.to().uri().as_str().to_owned(),
            sip_headers,
        }
    }

    /// The request body.
    pub fn body(&self) -> Value {
        json!({
            "callerId": self.caller_id,
            "fromDisplayName": self.from_display_name,
            "fromUri": self.from_uri,
            "toUri": self.to_uri,
            "sipHeaders": self.sip_headers,
        })
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

/// One request to the handler, complete and signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Post {
    pub url: String,
    pub body: Bytes,
    /// `X-Ultravox-Webhook-Timestamp`, ISO 8601.
    pub timestamp: String,
    /// `X-Ultravox-Webhook-Signature`: one digest for each secret, separated by commas.
    pub signature: String,
}

impl Post {
    pub fn new(handler: &FallbackHandler, question: &Question, now: WallTime) -> Post {
        let body = Bytes::from(question.body().to_string());
        let timestamp = rfc3339(now);
        let secrets = handler.secrets.as_deref().unwrap_or_default();
        let signature = signature(secrets, &body, &timestamp);
        Post { url: handler.url.clone(), body, timestamp, signature }
    }
}

/// A URL may hold a token and the body holds numbers: neither is shown.
impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}

/// HMAC-SHA256 over the body's bytes followed by the timestamp's text, in lower-case hex, one for
/// each secret and separated by commas.
pub fn signature(secrets: &[String], body: &[u8], timestamp: &str) -> String {
    let digests: Vec<String> =
        secrets.iter().map(|secret| digest(secret, body, timestamp)).collect();
    digests.join(",")
}

fn digest(secret: &str, body: &[u8], timestamp: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let mut mac = mac.expect("HMAC takes a key of any length");
    mac.update(body);
    mac.update(timestamp.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the handler decided.
#[derive(Clone, PartialEq)]
pub enum FallbackDecision {
    /// Create the call with this agent; `body` is the handler's StartAgentCallRequest.
    StartAgentCall { agent_id: AgentId, body: Map<String, Value> },
    /// Create the call without an agent; `body` is the handler's StartCallRequest.
    StartCall { body: Map<String, Value> },
    /// Refuse the caller with `code`, 400 to 699; `message` is for the log and the record.
    Reject { code: u16, message: Option<String> },
}

/// Prompts and context are the customer's: they are not shown.
impl fmt::Debug for FallbackDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FallbackDecision::StartAgentCall { agent_id, .. } => {
                write!(f, "StartAgentCall({agent_id})")
            }
            FallbackDecision::StartCall { .. } => f.write_str("StartCall"),
            FallbackDecision::Reject { code, .. } => write!(f, "Reject({code})"),
        }
    }
}

/// Why no decision came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FallbackFault {
    /// No whole answer within [`limits::FALLBACK`].
    TimedOut,
    /// The name, the connection or TLS failed, or the connection broke.
    Unreachable,
    /// The handler's URL is not one that is asked: no https, or no host.
    BadUrl,
    /// The handler's host has no address but private ones, which are not listed.
    PrivateAddress,
    /// An answer with another status than 2xx; redirects are not followed.
    Status(u16),
    /// An answer of more than [`limits::FALLBACK_ANSWER_BYTES_MAX`].
    TooLong,
    /// Not JSON, or nested deeper than [`limits::FALLBACK_DEPTH_MAX`].
    NotJson,
    /// Not exactly one of the three.
    NotOneOfThree { found: usize },
    /// This member is missing, or of a wrong type or value.
    Member(&'static str),
}

impl fmt::Display for FallbackFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FallbackFault::TimedOut => f.write_str("the fallback handler did not answer in time"),
            FallbackFault::Unreachable => f.write_str("the fallback handler cannot be reached"),
            FallbackFault::BadUrl => {
                f.write_str("the fallback handler's URL is not an https address")
            }
            FallbackFault::PrivateAddress => f.write_str(
                "the fallback handler's address is private and not in fallback.allowed_private",
            ),
            FallbackFault::Status(status) => {
                write!(f, "the fallback handler answered {status}")
            }
            FallbackFault::TooLong => f.write_str("the fallback handler's answer is too long"),
            FallbackFault::NotJson => f.write_str("the fallback handler's answer cannot be read"),
            FallbackFault::NotOneOfThree { found } => write!(
                f,
                "the fallback handler's answer has {found} of startAgentCall, startCall and reject"
            ),
            FallbackFault::Member(name) => {
                write!(f, "the fallback handler's answer has no usable {name}")
            }
        }
    }
}

/// Reads the body of a 2xx answer. Members that are null count as absent; further members are
/// passed over.
///
/// # Errors
/// [`FallbackFault`], never the first three of them.
pub fn read_answer(body: &[u8]) -> Result<FallbackDecision, FallbackFault> {
    if body.len() > limits::FALLBACK_ANSWER_BYTES_MAX {
        return Err(FallbackFault::TooLong);
    }
    if nesting(body) > limits::FALLBACK_DEPTH_MAX {
        return Err(FallbackFault::NotJson);
    }
    let answer: Value = serde_json::from_slice(body).map_err(|_| FallbackFault::NotJson)?;
    let Value::Object(mut answer) = answer else { return Err(FallbackFault::NotJson) };
    let chosen: Vec<&str> = ["startAgentCall", "startCall", "reject"]
        .into_iter()
        .filter(|name| answer.get(*name).is_some_and(|member| !member.is_null()))
        .collect();
    let [chosen] = chosen[..] else {
        return Err(FallbackFault::NotOneOfThree { found: chosen.len() });
    };
    match (chosen, answer.remove(chosen)) {
        ("startAgentCall", Some(Value::Object(body))) => start_agent_call(body),
        ("startCall", Some(Value::Object(body))) => {
            check_metadata(&body, "startCall.metadata")?;
            Ok(FallbackDecision::StartCall { body })
        }
        ("reject", Some(Value::Object(body))) => reject(&body),
        ("startAgentCall", _) => Err(FallbackFault::Member("startAgentCall")),
        ("startCall", _) => Err(FallbackFault::Member("startCall")),
        _ => Err(FallbackFault::Member("reject")),
    }
}

fn start_agent_call(mut body: Map<String, Value>) -> Result<FallbackDecision, FallbackFault> {
    let agent_id = body.remove("agentId");
    let agent_id = agent_id.as_ref().and_then(Value::as_str).and_then(AgentId::parse);
    let agent_id = agent_id.ok_or(FallbackFault::Member("startAgentCall.agentId"))?;
    let context = body.get("templateContext").filter(|context| !context.is_null());
    if context.is_some_and(|context| !context.is_object()) {
        return Err(FallbackFault::Member("startAgentCall.templateContext"));
    }
    check_metadata(&body, "startAgentCall.metadata")?;
    Ok(FallbackDecision::StartAgentCall { agent_id, body })
}

/// What the daemon adds to must be an object; all other members are Ultravox's to judge.
fn check_metadata(body: &Map<String, Value>, name: &'static str) -> Result<(), FallbackFault> {
    match body.get("metadata") {
        None | Some(Value::Null | Value::Object(_)) => Ok(()),
        Some(_) => Err(FallbackFault::Member(name)),
    }
}

fn reject(body: &Map<String, Value>) -> Result<FallbackDecision, FallbackFault> {
    let present = |name: &str| body.get(name).filter(|member| !member.is_null());
    let code = match present("sipRejectCode") {
        None => REJECT_CODE,
        Some(code) => {
            let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
            let code = code.filter(|code| (400..=699).contains(code));
            code.ok_or(FallbackFault::Member("reject.sipRejectCode"))?
        }
    };
    let message = match present("message") {
        None => None,
        Some(Value::String(text)) => Some(clean(text)).filter(|text| !text.is_empty()),
        Some(_) => return Err(FallbackFault::Member("reject.message")),
    };
    Ok(FallbackDecision::Reject { code, message })
}

/// The text on one line, bounded.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

/// The deepest nesting of arrays and objects in a JSON text, told before anything is built from it.
fn nesting(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (true, _) => {}
            (false, b'"') => in_string = true,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Entropy;
    use crate::sip::msg::{Framing, Message};

    const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";

    fn question(headers: &str) -> Question {
        let text = format!(
            "INVITE sip:support@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
             To: <sip:support@edge.example>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{headers}\r\n\r\n"
        );
        let message = Message::parse(Bytes::from(text), Framing::Datagram).expect("well-formed");
        let Message::Request(request) = message else { panic!("a request") };
        Question::of(&request, &Caller::of(&request))
    }

    #[test]
    fn the_body_has_the_five_members_and_no_other() {
        let asked = question(
            "From: \"Ada\" <sip:+12025550100@pbx.example>;tag=1\r\nX-Customer-Name: Ada\r\n\
             X-Cart: {\"items\":2}\r\nx-cart: again\r\nSubject: no",
        );
        let expected = json!({
            "callerId": "+12025550100", "fromDisplayName": "Ada",
            "fromUri": "sip:+12025550100@pbx.example", "toUri": "sip:support@edge.example",
            "sipHeaders": {"X-Customer-Name": "Ada", "X-Cart": "{\"items\":2}"},
        });
        assert_eq!(asked.body(), expected);
        let hidden = question("From: <sip:a@b>;tag=1\r\nPrivacy: id");
        let expected = json!({
            "callerId": null, "fromDisplayName": null,
            "fromUri": "sip:anonymous@anonymous.invalid", "toUri": "sip:support@edge.example",
            "sipHeaders": {},
        });
        assert_eq!(hidden.body(), expected);
    }

    /// The digests were made with `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_signature_covers_the_body_and_the_timestamp_once_for_each_secret() {
        let secrets = ["key".to_owned(), "other key".to_owned()];
        let text = "The quick brown fox jumps over the lazy dog";
        let (body, timestamp) = text.as_bytes().split_at(20);
        let timestamp = std::str::from_utf8(timestamp).expect("ASCII");
        let first = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
        assert_eq!(signature(&secrets[..1], body, timestamp), first);
        let second = "f8944853f8ee38411902a67755331b3bf98393e0ceb45482d22a8d581f0d7b10";
        assert_eq!(signature(&secrets, body, timestamp), format!("{first},{second}"));
        assert_eq!(signature(&[], body, timestamp), "");
    }

    fn check(answer: &str, expected: Result<FallbackDecision, FallbackFault>) {
        assert_eq!(read_answer(answer.as_bytes()), expected, "{answer}");
    }

    #[test]
    fn one_of_the_three_is_read() {
        let agent_id = AgentId::parse(AGENT).expect("a UUID");
        let body = json!({"templateContext": {"a": 1}, "newField": [1]});
        let body = body.as_object().expect("an object").clone();
        check(
            &format!(
                r#"{{"startAgentCall":{{"agentId":"{AGENT}","templateContext":{{"a":1}},"newField":[1]}}}}"#
            ),
            Ok(FallbackDecision::StartAgentCall { agent_id, body }),
        );
        let prompt = json!({"systemPrompt": "Hi"});
        let body = prompt.as_object().expect("an object").clone();
        check(
            r#"{"startCall":{"systemPrompt":"Hi"},"reject":null,"note":1}"#,
            Ok(FallbackDecision::StartCall { body }),
        );
        let reject = |code, message: Option<&str>| {
            Ok(FallbackDecision::Reject { code, message: message.map(str::to_owned) })
        };
        check(r#"{"reject":{}}"#, reject(603, None));
        check(r#"{"reject":{"sipRejectCode":400}}"#, reject(400, None));
        check(
            r#"{"reject":{"sipRejectCode":699,"message":"not\r\nnow"}}"#,
            reject(699, Some("notnow")),
        );
    }

    /// What the published shape takes is read, and what it refuses for its one-of or the bounds of a
    /// rejection is a fault here too.
    #[test]
    fn answers_are_read_as_the_published_shape_says() {
        let agent = json!({"agentId": AGENT, "toolOverrides": {"removeAll": true}});
        for (answer, is_good) in [
            (json!({"startAgentCall": agent}), true),
            (json!({"startCall": {"systemPrompt": "Hi", "medium": {"webRtc": {}}}}), true),
            (json!({"startCall": {}}), true),
            (json!({"reject": {"sipRejectCode": 400, "message": "no"}}), true),
            (json!({"reject": {"sipRejectCode": 399}}), false),
            (json!({"reject": {"sipRejectCode": 700}}), false),
            (json!({"reject": {"message": 5}}), false),
            (json!({"reject": {}, "startCall": {}}), false),
            (json!({"startCall": "Hi"}), false),
        ] {
            let problems = crate::ultravox::schema::SIP_FALLBACK_RESPONSE.check(&answer);
            assert_eq!(problems.is_empty(), is_good, "{answer}: {problems:?}");
            let read = read_answer(answer.to_string().as_bytes());
            assert_eq!(read.is_ok(), is_good, "{answer}: {read:?}");
        }
    }

    #[test]
    fn anything_else_is_a_fault_of_the_handler() {
        use FallbackFault as F;
        check("", Err(F::NotJson));
        check("<html>", Err(F::NotJson));
        check("[]", Err(F::NotJson));
        check("{}", Err(F::NotOneOfThree { found: 0 }));
        check(r#"{"reject":null}"#, Err(F::NotOneOfThree { found: 0 }));
        check(r#"{"reject":{},"startCall":{}}"#, Err(F::NotOneOfThree { found: 2 }));
        let all = r#"{"reject":{},"startCall":{},"startAgentCall":{}}"#;
        check(all, Err(F::NotOneOfThree { found: 3 }));
        check(r#"{"reject":7}"#, Err(F::Member("reject")));
        check(r#"{"startCall":[]}"#, Err(F::Member("startCall")));
        check(r#"{"startAgentCall":"x"}"#, Err(F::Member("startAgentCall")));
        for code in ["399", "700", "-1", "486.5", "\"486\"", "70000", "true"] {
            let answer = format!(r#"{{"reject":{{"sipRejectCode":{code}}}}}"#);
            check(&answer, Err(F::Member("reject.sipRejectCode")));
        }
        check(r#"{"reject":{"message":5}}"#, Err(F::Member("reject.message")));
        for agent in ["{}", r#"{"agentId":5}"#, r#"{"agentId":"../x"}"#] {
            let answer = format!(r#"{{"startAgentCall":{agent}}}"#);
            check(&answer, Err(F::Member("startAgentCall.agentId")));
        }
        let odd = format!(r#"{{"startAgentCall":{{"agentId":"{AGENT}","templateContext":[]}}}}"#);
        check(&odd, Err(F::Member("startAgentCall.templateContext")));
        check(r#"{"startCall":{"metadata":[]}}"#, Err(F::Member("startCall.metadata")));
    }

    #[test]
    fn size_and_depth_are_bounded_on_both_sides() {
        let deep = |levels: usize| {
            let inner = levels - 2;
            let lists = format!("{}{}", "[".repeat(inner), "]".repeat(inner));
            format!(r#"{{"startCall":{{"initialState":{lists}}}}}"#)
        };
        assert!(read_answer(deep(limits::FALLBACK_DEPTH_MAX).as_bytes()).is_ok());
        check(&deep(limits::FALLBACK_DEPTH_MAX + 1), Err(FallbackFault::NotJson));
        check(&"[".repeat(200_000), Err(FallbackFault::NotJson));
        let long = |bytes: usize| {
            let empty = r#"{"startCall":{"systemPrompt":""}}"#;
            empty.replace(r#""""#, &format!("\"{}\"", "[".repeat(bytes - empty.len())))
        };
        assert!(read_answer(long(limits::FALLBACK_ANSWER_BYTES_MAX).as_bytes()).is_ok());
        check(&long(limits::FALLBACK_ANSWER_BYTES_MAX + 1), Err(FallbackFault::TooLong));
    }

    /// Whatever bytes come, there is a bounded decision or a fault.
    #[test]
    fn broken_answers_are_faults() {
        let mut entropy = Entropy::from_number(502);
        let good = format!(
            r#"{{"startAgentCall":{{"agentId":"{AGENT}","templateContext":{{"a":["é",1e3,null]}}}}}}"#
        );
        for _ in 0..5_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..=entropy.below(4) {
                let at = entropy.below(bytes.len() as u64) as usize;
                match entropy.below(3) {
                    0 => bytes[at] = entropy.below(256) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"{}[]\",:\\0"[entropy.below(9) as usize]),
                }
            }
            if let Ok(FallbackDecision::StartAgentCall { body, .. }) = read_answer(&bytes) {
                assert!(body.get("templateContext").is_none_or(|c| c.is_object() || c.is_null()));
            }
        }
    }

    #[test]
    fn neither_numbers_nor_secrets_are_shown() {
        let handler = FallbackHandler {
            url: "https://h.example/?token=t0ken".into(),
            secrets: Some(vec!["s3cret".into()]),
        };
        let asked = question("From: <sip:+12025550100@pbx.example>;tag=1");
        let post = Post::new(&handler, &asked, WallTime::from_unix_micros(0));
        assert_eq!(post.timestamp, "1970-01-01T00:00:00.000Z");
        let shown = format!("{asked:?}{post:?}");
        for hidden in ["2025550100", "t0ken", "s3cret", &post.signature] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
