//! Creating an agent call: the body of `POST /api/agents/{agent_id}/calls`
//! (StartAgentCallRequest with the `serverWebSocket` medium), the 201's two values that matter, and
//! what every other answer means. Error bodies never decide anything: the status and `Retry-After` do.

use super::{CallId, duration_text};
use crate::ground::{Secret, WallTime, limits};
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Longest join URL that is taken, in bytes.
const JOIN_URL_BYTES_MAX: usize = 4 * 1024;
/// Metadata keys with this prefix belong to Ultravox; ordinary clients are refused them.
const RESERVED_PREFIX: &str = "ultravox.";

/// What the daemon asks for when it creates an agent call. Everything that is not named here stays
/// as the agent's own template says.
#[derive(Clone, PartialEq, Debug)]
pub struct CreateCall {
    /// Sample rate of the caller's audio that we send, in hertz.
    pub input_hz: u32,
    /// Sample rate of the agent's audio that we want, in hertz.
    pub output_hz: u32,
    /// How far ahead of real time the agent may push, in milliseconds.
    pub client_buffer_ms: u32,
    /// The agent ends the call when no audio came for so long; values under 10 s count as 10 s.
    pub media_idle: Duration,
    pub data_messages: DataMessages,
    /// How long the call waits for its join; an unwanted call lapses after it.
    pub join_timeout: Duration,
    /// Values for the templates of the agent; left out when empty.
    pub template_context: Map<String, Value>,
    /// Our own keys (`edge.sip_call_id`); reserved ones (`ultravox.`) are left out.
    pub metadata: Vec<(String, String)>,
    /// `None` leaves the agent's own choice, as an incoming call does.
    pub first_speaker_settings: Option<Value>,
}

impl Default for CreateCall {
    /// An incoming call at 8 kHz with the limits of [`limits`].
    fn default() -> CreateCall {
        CreateCall {
            input_hz: 8_000,
            output_hz: 8_000,
            client_buffer_ms: limits::CLIENT_BUFFER_MS,
            media_idle: limits::MEDIA_IDLE,
            data_messages: DataMessages::default(),
            join_timeout: limits::JOIN_TIMEOUT,
            template_context: Map::new(),
            metadata: Vec::new(),
            first_speaker_settings: None,
        }
    }
}

/// Which data messages the agent is asked to send. `playbackClearBuffer` is always asked for: without
/// it a large client buffer would play stale speech after an interruption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataMessages {
    pub state: bool,
    pub transcript: bool,
    pub client_tool_invocation: bool,
    pub call_event: bool,
}

impl Default for DataMessages {
    /// States and tool invocations; no transcripts, which carry what callers said.
    fn default() -> DataMessages {
        DataMessages {
            state: true,
            transcript: false,
            client_tool_invocation: true,
            call_event: true,
        }
    }
}

/// The request body. Satisfies [`super::schema::START_AGENT_CALL`].
pub fn body(request: &CreateCall) -> Value {
    let mut body = Map::new();
    body.insert("medium".into(), medium(request));
    body.insert("joinTimeout".into(), duration_text(request.join_timeout).into());
    if !request.template_context.is_empty() {
        body.insert("templateContext".into(), Value::Object(request.template_context.clone()));
    }
    let metadata = own_metadata(&request.metadata);
    if !metadata.is_empty() {
        body.insert("metadata".into(), Value::Object(metadata));
    }
    if let Some(settings) = &request.first_speaker_settings {
        body.insert("firstSpeakerSettings".into(), settings.clone());
    }
    Value::Object(body)
}

/// A handler's own request body with what is the daemon's overwritten: the medium, the join timeout,
/// our metadata and, when `request` has one, the template context. All else passes through unread.
pub fn body_over(mut body: Map<String, Value>, request: &CreateCall) -> Value {
    let own_keys = own_metadata(&request.metadata);
    let mut metadata = match body.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    metadata.extend(own_keys);
    if !metadata.is_empty() {
        body.insert("metadata".into(), Value::Object(metadata));
    }
    body.insert("medium".into(), medium(request));
    body.insert("joinTimeout".into(), duration_text(request.join_timeout).into());
    if !request.template_context.is_empty() {
        body.insert("templateContext".into(), Value::Object(request.template_context.clone()));
    }
    Value::Object(body)
}

/// The `medium` object alone: it overwrites whatever medium an agent or a handler asked for.
pub fn medium(request: &CreateCall) -> Value {
    let messages = &request.data_messages;
    json!({"serverWebSocket": {
        "inputSampleRate": request.input_hz,
        "outputSampleRate": request.output_hz,
        "clientBufferSizeMs": request.client_buffer_ms,
        "mediaIdleTimeout": duration_text(request.media_idle),
        "dataMessages": {
            "callStarted": true,
            "playbackClearBuffer": true,
            "pong": true,
            "state": messages.state,
            "transcript": messages.transcript,
            "clientToolInvocation": messages.client_tool_invocation,
            "callEvent": messages.call_event,
        },
    }})
}

fn own_metadata(pairs: &[(String, String)]) -> Map<String, Value> {
    pairs
        .iter()
        .filter(|(key, _)| !key.starts_with(RESERVED_PREFIX))
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect()
}

/// A call that Ultravox created for us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    pub call_id: CallId,
    /// The credential of the media stream: who has it can join.
    pub join_url: Secret,
    /// The whole Call object but for the join URL: for the client that asked for the call.
    pub call: Map<String, Value>,
}

/// Why the body of a 201 could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerFault {
    NotJson,
    NoCallId,
    NoJoinUrl,
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnswerFault::NotJson => "the body is not a JSON object",
            AnswerFault::NoCallId => "callId is missing or unusable",
            AnswerFault::NoJoinUrl => "joinUrl is missing, null or unusable",
        })
    }
}

impl From<AnswerFault> for CreateFault {
    fn from(_: AnswerFault) -> CreateFault {
        CreateFault::BadAnswer
    }
}

/// Reads the body of a 201: `callId` and `joinUrl`. All other fields may be anything.
pub fn parse_created(body: &[u8]) -> Result<Created, AnswerFault> {
    let mut call: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| AnswerFault::NotJson)?;
    let text = |name: &str| call.get(name).and_then(Value::as_str);
    let call_id = text("callId").and_then(CallId::parse).ok_or(AnswerFault::NoCallId)?;
    let join_url =
        text("joinUrl").filter(|url| is_usable_url(url)).ok_or(AnswerFault::NoJoinUrl)?;
    let join_url = Secret::new(join_url);
    call.remove("joinUrl");
    Ok(Created { call_id, join_url, call })
}

/// How an agent call speaks, as its [`Created::call`] tells: what the body of `POST /api/calls` needs
/// for another one that sounds the same. Whatever was overridden at the creation is in it. A voice
/// excludes an external one, and overrides need a voice (StartCallRequest).
pub fn speech(call: &Map<String, Value>) -> Map<String, Value> {
    /// A member, and whether a value is of its type.
    type Member = (&'static str, fn(&Value) -> bool);
    const MEMBERS: [Member; 6] = [
        ("model", Value::is_string),
        ("temperature", Value::is_number),
        ("languageHint", Value::is_string),
        ("voice", Value::is_string),
        ("voiceOverrides", Value::is_object),
        ("externalVoice", Value::is_object),
    ];
    let told = |(name, fits): Member| {
        let value = call.get(name).filter(|value| fits(value))?;
        Some((name.to_owned(), value.clone()))
    };
    let mut speech: Map<String, Value> = MEMBERS.into_iter().filter_map(told).collect();
    match speech.contains_key("voice") {
        true => speech.remove("externalVoice"),
        false => speech.remove("voiceOverrides"),
    };
    speech
}

/// Printable ASCII within the bound: nothing that could break the upgrade request it will stand in.
fn is_usable_url(url: &str) -> bool {
    (1..=JOIN_URL_BYTES_MAX).contains(&url.len()) && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Why no agent call was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateFault {
    /// 400, 422 and every other 4xx without a row of its own: the call's configuration was refused.
    BadRequest,
    /// 404: no such agent.
    NotFound,
    /// 401, 403: our key is wrong; not the caller's fault.
    Unauthorized,
    /// 402: the account cannot pay.
    PaymentRequired,
    /// 429: a rate or concurrency limit.
    TooMany { retry_after: Option<Duration> },
    /// 503: no capacity.
    Unavailable { retry_after: Option<Duration> },
    /// Any other 5xx, with its status.
    ServerError(u16),
    /// No whole answer within the time given. The call may exist all the same.
    TimedOut,
    /// No connection, or it broke before an answer came.
    Unreachable,
    /// An answer that means nothing: a redirect, a 2xx that is not 201, a body without the values.
    BadAnswer,
}

impl CreateFault {
    /// What a status other than the expected one means. `retry_after` is the header's value as
    /// received, `now` the moment of the answer: a date is a time from then.
    pub fn from_status(status: u16, retry_after: Option<&str>, now: WallTime) -> CreateFault {
        let wait = || retry_after.and_then(|value| parse_retry_after(value, now));
        match status {
            401 | 403 => CreateFault::Unauthorized,
            402 => CreateFault::PaymentRequired,
            404 => CreateFault::NotFound,
            429 => CreateFault::TooMany { retry_after: wait() },
            400..=499 => CreateFault::BadRequest,
            503 => CreateFault::Unavailable { retry_after: wait() },
            500..=599 => CreateFault::ServerError(status),
            _ => CreateFault::BadAnswer,
        }
    }

    /// The same request may do better at once: the call layer allows itself one such retry.
    pub fn is_transient(self) -> bool {
        match self {
            CreateFault::ServerError(_) | CreateFault::Unreachable | CreateFault::BadAnswer => true,
            CreateFault::BadRequest
            | CreateFault::NotFound
            | CreateFault::Unauthorized
            | CreateFault::PaymentRequired
            | CreateFault::TooMany { .. }
            | CreateFault::Unavailable { .. }
            | CreateFault::TimedOut => false,
        }
    }
}

impl fmt::Display for CreateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CreateFault::BadRequest => {
                f.write_str("the agent service refused the call's configuration")
            }
            CreateFault::NotFound => f.write_str("the agent service knows no such agent"),
            CreateFault::Unauthorized => f.write_str("the agent service refused our API key"),
            CreateFault::PaymentRequired => f.write_str("the agent service wants payment"),
            CreateFault::TooMany { .. } => {
                f.write_str("the agent service's rate or concurrency limit is reached")
            }
            CreateFault::Unavailable { .. } => f.write_str("the agent service has no capacity"),
            CreateFault::ServerError(status) => write!(f, "the agent service failed with {status}"),
            CreateFault::TimedOut => f.write_str("the agent service did not answer in time"),
            CreateFault::Unreachable => f.write_str("the agent service cannot be reached"),
            CreateFault::BadAnswer => f.write_str("the agent service's answer cannot be used"),
        }
    }
}

/// The wait that a `Retry-After` value asks for: whole seconds, or an HTTP date (RFC 9110 §10.2.3),
/// which counts from `now`; a date that has passed is no wait. `None` when it is neither.
pub fn parse_retry_after(value: &str, now: WallTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse().ok().map(Duration::from_secs);
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = UNIX_EPOCH + Duration::from_micros(u64::try_from(now.unix_micros()).ok()?);
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn now() -> WallTime {
        // 1994-11-06T08:49:37Z, the date of RFC 9110's own samples.
        WallTime::from_unix_micros(784_111_777_000_000)
    }

    #[test]
    fn another_call_speaks_as_one_that_was_created() {
        for (call, expected) in [
            (
                json!({"callId": "c", "model": "m", "temperature": 0.5, "languageHint": "de",
                    "voice": "Susi", "voiceOverrides": {"speed": 1}, "externalVoice": null}),
                json!({"model": "m", "temperature": 0.5, "languageHint": "de", "voice": "Susi",
                    "voiceOverrides": {"speed": 1}}),
            ),
            // Either a voice of the account or an external one, and overrides of the former only.
            (
                json!({"voice": "Susi", "externalVoice": {"x": 1}, "languageHint": null}),
                json!({"voice": "Susi"}),
            ),
            (
                json!({"voice": null, "voiceOverrides": {"speed": 1}, "externalVoice": {"x": 1}}),
                json!({"externalVoice": {"x": 1}}),
            ),
            (json!({"model": 5, "temperature": "hot", "voice": {"id": 1}}), json!({})),
        ] {
            let spoken = speech(call.as_object().expect("an object"));
            assert_eq!(Value::Object(spoken.clone()), expected);
            let mut body = body(&CreateCall::default());
            body.as_object_mut().expect("an object").extend(spoken);
            assert_eq!(
                super::super::schema::check_start(&super::super::schema::START_CALL, &body),
                []
            );
        }
    }

    #[test]
    fn an_incoming_call_says_its_medium_and_join_timeout_and_nothing_it_need_not() {
        let expected = json!({
            "medium": {"serverWebSocket": {
                "inputSampleRate": 8000, "outputSampleRate": 8000,
                "clientBufferSizeMs": 30000, "mediaIdleTimeout": "40s",
                "dataMessages": {"callStarted": true, "playbackClearBuffer": true, "pong": true,
                    "state": true, "transcript": false, "clientToolInvocation": true, "callEvent": true}}},
            "joinTimeout": "15s"});
        assert_eq!(body(&CreateCall::default()), expected);
    }

    #[test]
    fn context_and_own_metadata_are_carried_and_reserved_keys_are_not() {
        let request = CreateCall {
            template_context: json!({"customer_name": "Ada"})
                .as_object()
                .expect("an object")
                .clone(),
            metadata: vec![
                ("edge.sip_call_id".into(), "c1a2@pbx.example".into()),
                ("ultravox.sip.caller_id".into(), "15550001111".into()),
            ],
            first_speaker_settings: Some(json!({"user": {}})),
            ..CreateCall::default()
        };
        let body = body(&request);
        assert_eq!(body["templateContext"], json!({"customer_name": "Ada"}));
        assert_eq!(body["metadata"], json!({"edge.sip_call_id": "c1a2@pbx.example"}));
        assert_eq!(body["firstSpeakerSettings"], json!({"user": {}}));
        assert_eq!(schema::START_AGENT_CALL.check(&body), []);
    }

    #[test]
    fn a_handlers_body_passes_but_for_what_is_the_daemons() {
        let handler = json!({
            "medium": {"webRtc": {}}, "joinTimeout": "600s", "systemPrompt": "Hi", "new": [1],
            "templateContext": {"theirs": 1}, "metadata": {"theirs": "kept", "edge.call": "forged"},
        });
        let request = CreateCall {
            template_context: json!({"ours": 2}).as_object().expect("an object").clone(),
            metadata: vec![("edge.call".into(), "1-1".into())],
            ..CreateCall::default()
        };
        let over = |handler: &Value, request: &CreateCall| {
            body_over(handler.as_object().expect("an object").clone(), request)
        };
        let body = over(&handler, &request);
        let expected = json!({
            "medium": medium(&request), "joinTimeout": "15s", "systemPrompt": "Hi", "new": [1],
            "templateContext": {"ours": 2}, "metadata": {"theirs": "kept", "edge.call": "1-1"},
        });
        assert_eq!(body, expected);
        let bare = over(&json!({"metadata": null}), &CreateCall::default());
        assert_eq!(schema::START_CALL.check(&bare), []);
        assert_eq!(schema::START_AGENT_CALL.check(&bare), []);
    }

    #[test]
    fn every_status_has_its_meaning() {
        let fault = |status| CreateFault::from_status(status, Some("7"), now());
        let wait = Some(Duration::from_secs(7));
        for (status, expected) in [
            (200, CreateFault::BadAnswer),
            (302, CreateFault::BadAnswer),
            (400, CreateFault::BadRequest),
            (401, CreateFault::Unauthorized),
            (402, CreateFault::PaymentRequired),
            (403, CreateFault::Unauthorized),
            (404, CreateFault::NotFound),
            (409, CreateFault::BadRequest),
            (422, CreateFault::BadRequest),
            (429, CreateFault::TooMany { retry_after: wait }),
            (500, CreateFault::ServerError(500)),
            (502, CreateFault::ServerError(502)),
            (503, CreateFault::Unavailable { retry_after: wait }),
            (504, CreateFault::ServerError(504)),
            (600, CreateFault::BadAnswer),
        ] {
            assert_eq!(fault(status), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(
                parse_retry_after(value, now()),
                seconds.map(Duration::from_secs),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_created_call_needs_its_id_and_its_join_url() {
        let created =
            parse_created(br#"{"callId":"0b7c","joinUrl":"wss://voice.example/x?t=1","new":[]}"#);
        let created = created.expect("both are there");
        assert_eq!(
            (created.call_id.as_str(), created.join_url.reveal()),
            ("0b7c", "wss://voice.example/x?t=1")
        );
        assert!(!format!("{created:?}").contains("voice.example"));
        for (body, fault) in [
            (&b"<html>"[..], AnswerFault::NotJson),
            (b"[]", AnswerFault::NotJson),
            (br#"{"joinUrl":"wss://a"}"#, AnswerFault::NoCallId),
            (br#"{"callId":7,"joinUrl":"wss://a"}"#, AnswerFault::NoCallId),
            (br#"{"callId":"a"}"#, AnswerFault::NoJoinUrl),
            (br#"{"callId":"a","joinUrl":null}"#, AnswerFault::NoJoinUrl),
            (br#"{"callId":"a","joinUrl":"wss://a\r\nX: y"}"#, AnswerFault::NoJoinUrl),
        ] {
            assert_eq!(parse_created(body), Err(fault), "{}", String::from_utf8_lossy(body));
        }
    }
}
