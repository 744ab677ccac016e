//! A request for an outgoing call: `POST /api/agents/{agent_id}/calls` and `POST /api/calls` with
//! `medium.sip.outgoing`, as Ultravox's own API has them. The body goes on to Ultravox with
//! `serverWebSocket` in its place; everything that is not named here passes through as it came. The
//! password goes to the far end's challenge and nowhere else.

use super::policy::{Callee, OutgoingPolicy, Unwanted};
use crate::ground::Secret;
use crate::sip::digest::Credentials;
use crate::sip::msg::{Scheme, Uri};
use crate::ultravox::create_call::{self, CreateCall, CreateFault};
use crate::ultravox::duration_text;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest text of a member of `medium.sip.outgoing`.
const MEMBER_BYTES_MAX: usize = 256;
/// How long the callee may stay silent before the agent speaks first, unless the request says more.
const FALLBACK_DELAY: &str = "5s";

/// What a client asked for.
#[derive(Clone)]
pub struct OutgoingCallRequest {
    /// From the path; `None` for `POST /api/calls`.
    pub agent_id: Option<String>,
    /// The query as it came, without the question mark (`throttle`, `enableGreetingPrompt`, …).
    pub query: Option<String>,
    pub body: Value,
}

/// The body holds the password, so it is not printed.
impl std::fmt::Debug for OutgoingCallRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingCallRequest")
            .field("agent_id", &self.agent_id)
            .finish_non_exhaustive()
    }
}

/// Why no call is placed, for the answer over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DialRefusal {
    /// A member of the body is missing or wrong: its path and what is wrong. 400.
    Malformed { path: &'static str, words: String },
    /// The policy forbids the target. 403.
    Forbidden(Unwanted),
    /// As many calls as `[outgoing]` allows. 429.
    TooMany { retry_after: Duration },
    /// This edge takes no call now. 503.
    Unavailable { words: String },
    /// Ultravox refused the call: its own status and body.
    Service { status: u16, body: Value },
    /// No usable answer from Ultravox. 502, or 504 when it took too long.
    NoService(CreateFault),
    /// The call ended before it stood at Ultravox. 409.
    Ended { words: String },
}

/// A request that was read and may be dialled.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub agent_id: Option<String>,
    pub query: Option<String>,
    pub callee: Callee,
    /// From as `name-addr`.
    pub from: String,
    /// User or number of From.
    pub caller: String,
    pub credentials: Option<Credentials>,
    /// The request without its medium.
    body: Map<String, Value>,
    /// `medium.sip.outgoing` as it is shown: without the password.
    shown: Map<String, Value>,
}

impl Wanted {
    /// Reads a request and asks the policy.
    ///
    /// # Errors
    /// [`DialRefusal::Malformed`] with the path of the member, or [`DialRefusal::Forbidden`].
    pub fn read(
        request: OutgoingCallRequest,
        policy: &OutgoingPolicy,
    ) -> Result<Wanted, DialRefusal> {
        let OutgoingCallRequest { agent_id, query, body } = request;
        let Value::Object(mut body) = body else {
            return malformed("", "the body must be a JSON object");
        };
        let outgoing = take_outgoing(&mut body)?;
        let Some(to) = text(&outgoing, "to", "medium.sip.outgoing.to")? else {
            return malformed("medium.sip.outgoing.to", "is missing: give a SIP URI");
        };
        let from = text(&outgoing, "from", "medium.sip.outgoing.from")?;
        let username = text(&outgoing, "username", "medium.sip.outgoing.username")?;
        let password = text(&outgoing, "password", "medium.sip.outgoing.password")?;
        let callee = policy.admit(&to, false).map_err(|unwanted| match unwanted {
            Unwanted::Unreadable(why) => {
                DialRefusal::Malformed { path: "medium.sip.outgoing.to", words: why.to_owned() }
            }
            other => DialRefusal::Forbidden(other),
        })?;
        let (from, caller) = read_from(from.or(username.clone()), &callee)?;
        let credentials = match (username, password) {
            (Some(username), Some(password)) => {
                Some(Credentials { username, password: Secret::new(password) })
            }
            (None, Some(_)) => {
                return malformed("medium.sip.outgoing.username", "is missing beside a password");
            }
            (_, None) => None,
        };
        let mut shown = outgoing;
        shown.remove("password");
        Ok(Wanted { agent_id, query, callee, from, caller, credentials, body, shown })
    }

    /// The body of the creation: the client's, with our medium, a `joinTimeout` that covers the
    /// ringing, our metadata, and the callee as the first speaker unless the client chose.
    pub fn creation(&self, request: &CreateCall) -> Value {
        let mut body = self.body.clone();
        body.insert("medium".into(), create_call::medium(request));
        body.insert("joinTimeout".into(), duration_text(request.join_timeout).into());
        if !body.contains_key("firstSpeakerSettings") && !body.contains_key("firstSpeaker") {
            let user_first = json!({ "user": { "fallback": { "delay": FALLBACK_DELAY } } });
            body.insert("firstSpeakerSettings".into(), user_first);
        }
        let metadata = body.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            for (key, value) in &request.metadata {
                metadata.insert(key.clone(), value.as_str().into());
            }
        }
        Value::Object(body)
    }

    /// The Call object for the client: Ultravox's own, with the medium that the client sent, and
    /// without a join URL, since the call is joined here.
    pub fn shown(&self, mut call: Map<String, Value>) -> Value {
        call.insert("joinUrl".into(), Value::Null);
        call.insert("medium".into(), json!({ "sip": { "outgoing": self.shown } }));
        Value::Object(call)
    }
}

/// True when a body asks for an outgoing SIP call: such a request is ours to serve.
pub fn is_outgoing(body: &Value) -> bool {
    body.pointer("/medium/sip/outgoing").is_some()
}

fn take_outgoing(body: &mut Map<String, Value>) -> Result<Map<String, Value>, DialRefusal> {
    let Some(Value::Object(mut medium)) = body.remove("medium") else {
        return malformed("medium", "must be an object with sip.outgoing");
    };
    let Some(Value::Object(mut sip)) = medium.remove("sip") else {
        return malformed("medium.sip", "must be an object with outgoing");
    };
    if medium.values().any(|other| !other.is_null()) {
        return malformed("medium", "must have one member");
    }
    match sip.remove("outgoing") {
        Some(Value::Object(outgoing)) if sip.values().all(Value::is_null) => Ok(outgoing),
        Some(Value::Object(_)) => malformed("medium.sip", "must have one member"),
        _ => malformed("medium.sip.outgoing", "must be an object"),
    }
}

/// A text member; an empty one counts as absent.
fn text(
    from: &Map<String, Value>,
    name: &str,
    path: &'static str,
) -> Result<Option<String>, DialRefusal> {
    match from.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > MEMBER_BYTES_MAX => {
            malformed(path, "is longer than 256 bytes")
        }
        Some(Value::String(text)) if text.chars().any(char::is_control) => {
            malformed(path, "holds control characters")
        }
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => malformed(path, "must be a string"),
    }
}

/// From as `name-addr` for a call to `callee`: a SIP URI, or a number or name, which is put at the
/// callee's host.
///
/// # Errors
/// [`DialRefusal::Malformed`] when it is neither.
pub fn from_address(from: &str, callee: &Callee) -> Result<String, DialRefusal> {
    read_from(Some(from.to_owned()), callee).map(|(address, _)| address)
}

/// True for a number or a name that may stand in a From as it is.
pub fn is_plain_user(user: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-_.!~*'()".contains(c);
    !user.is_empty() && user.chars().all(plain)
}

/// From as `name-addr`, and its user: a SIP URI as it is given, or a number or name at the callee's
/// host, which is what trunks expect of their customers.
fn read_from(from: Option<String>, callee: &Callee) -> Result<(String, String), DialRefusal> {
    let path = "medium.sip.outgoing.from";
    let Some(from) = from else {
        return malformed(path, "is missing: give the number or the name that is called from");
    };
    let (scheme, user, place) = match Uri::parse(&from) {
        Ok(uri) if matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) => {
            let place = match uri.port() {
                Some(port) => format!("{}:{port}", uri.host()),
                None => uri.host().to_string(),
            };
            let scheme = if uri.scheme() == Scheme::Sips { "sips" } else { "sip" };
            (scheme, uri.user_decoded().into_owned(), place)
        }
        Ok(_) => return malformed(path, "must be a number, a name or a SIP URI"),
        Err(_) => ("sip", from.clone(), callee.place.clone()),
    };
    if !is_plain_user(&user) {
        return malformed(path, "its user is missing or has unusual characters");
    }
    Ok((format!("<{scheme}:{user}@{place}>"), user))
}

fn malformed<T>(path: &'static str, words: &str) -> Result<T, DialRefusal> {
    Err(DialRefusal::Malformed { path, words: words.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::policy::HostRule;
    use super::*;

    fn read(outgoing: Value) -> Result<Wanted, DialRefusal> {
        let hosts = vec![HostRule::parse("trunk.example.com").expect("a host")];
        let policy = OutgoingPolicy { hosts, ..OutgoingPolicy::default() };
        let body = json!({
            "medium": { "sip": { "outgoing": outgoing } },
            "templateContext": { "name": "Ada" },
            "metadata": { "own": "1" },
        });
        let agent_id = Some("0b7c2a9e-7f0e-4a6c-b7c4-93b1f4f0a2de".to_owned());
        Wanted::read(OutgoingCallRequest { agent_id, query: None, body }, &policy)
    }

    #[test]
    fn a_request_is_read_and_its_password_is_shown_to_nobody() {
        let wanted = read(json!({
            "to": "sip:+15550001@trunk.example.com", "from": "+15550100",
            "username": "us", "password": "hunter2"
        }));
        let wanted = wanted.expect("a sound request");
        assert_eq!(wanted.callee.uri, "sip:+15550001@trunk.example.com");
        assert_eq!(wanted.from, "<sip:+15550100@trunk.example.com>");
        let credentials = wanted.credentials.clone().expect("both are there");
        assert_eq!(
            (credentials.username.as_str(), credentials.password.reveal()),
            ("us", "hunter2")
        );
        let metadata = vec![("edge.call".to_owned(), "k".to_owned())];
        let request =
            CreateCall { join_timeout: Duration::from_secs(75), metadata, ..CreateCall::default() };
        let body = wanted.creation(&request);
        assert_eq!(body["joinTimeout"], "75s");
        assert_eq!(body["metadata"], json!({ "own": "1", "edge.call": "k" }));
        assert_eq!(body["templateContext"], json!({ "name": "Ada" }));
        assert_eq!(
            body["firstSpeakerSettings"],
            json!({ "user": { "fallback": { "delay": "5s" } } })
        );
        assert!(
            body["medium"].get("serverWebSocket").is_some() && body["medium"].get("sip").is_none()
        );
        let call = json!({ "callId": "c", "joinUrl": "wss://secret", "medium": body["medium"] });
        let shown = wanted.shown(call.as_object().expect("an object").clone());
        assert_eq!(
            shown,
            json!({ "callId": "c", "joinUrl": null, "medium": { "sip": { "outgoing": {
                "to": "sip:+15550001@trunk.example.com", "from": "+15550100", "username": "us"
            } } } })
        );
        for text in [format!("{wanted:?}"), body.to_string(), shown.to_string()] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        let to = "sip:1@trunk.example.com";
        let cases = [
            (json!({ "from": "1" }), "medium.sip.outgoing.to"),
            (json!({ "to": 5, "from": "1" }), "medium.sip.outgoing.to"),
            (json!({ "to": "+1555", "from": "1" }), "medium.sip.outgoing.to"),
            (json!({ "to": to }), "medium.sip.outgoing.from"),
            (json!({ "to": to, "from": "a b" }), "medium.sip.outgoing.from"),
            (json!({ "to": to, "from": "a\r\nEvil: b" }), "medium.sip.outgoing.from"),
            (json!({ "to": to, "from": "tel:+1" }), "medium.sip.outgoing.from"),
            (json!({ "to": to, "from": "1", "password": "p" }), "medium.sip.outgoing.username"),
            (json!({ "to": "x".repeat(257), "from": "1" }), "medium.sip.outgoing.to"),
            (json!("text"), "medium.sip.outgoing"),
        ];
        for (outgoing, expected) in cases {
            match read(outgoing.clone()) {
                Err(DialRefusal::Malformed { path, .. }) => {
                    assert_eq!(path, expected, "{outgoing}")
                }
                other => panic!("{outgoing}: {other:?}"),
            }
        }
        let elsewhere = read(json!({ "to": "sip:1@evil.example", "from": "1" }));
        assert!(matches!(elsewhere, Err(DialRefusal::Forbidden(Unwanted::Host))));
        let own = read(json!({ "to": to, "from": "sips:us@edge.example:5071" })).expect("sound");
        assert_eq!((own.from.as_str(), own.caller.as_str()), ("<sips:us@edge.example:5071>", "us"));
        let named = read(json!({ "to": to, "username": "us" })).expect("sound");
        assert_eq!(named.from, "<sip:us@trunk.example.com>");
    }

    #[test]
    fn the_clients_first_speaker_stays() {
        let mut wanted =
            read(json!({ "to": "sip:1@trunk.example.com", "from": "1" })).expect("sound");
        let agent = json!({ "agent": {} });
        wanted.body.insert("firstSpeakerSettings".into(), agent.clone());
        assert_eq!(wanted.creation(&CreateCall::default())["firstSpeakerSettings"], agent);
    }

    #[test]
    fn only_outgoing_sip_is_ours() {
        assert!(is_outgoing(&json!({ "medium": { "sip": { "outgoing": {} } } })));
        for other in [json!({}), json!({ "medium": { "sip": { "incoming": {} } } }), json!([])] {
            assert!(!is_outgoing(&other), "{other}");
        }
    }
}
