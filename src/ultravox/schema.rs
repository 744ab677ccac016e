//! Field names, types and bounds of Ultravox's published API, as far as the edge and the stand-in use
//! them, written down by hand as constant tables. `tests/it/schema.rs` compares the tables with the
//! published OpenAPI document; the stand-in refuses bodies that break them. Data messages are in no
//! OpenAPI document: their tables follow the prose pages.

pub mod sip;

use super::parse_duration;
use serde_json::{Map, Value};
use std::fmt;

/// Problems that one check reports at most.
const PROBLEMS_MAX: usize = 32;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// A text of at most so many characters.
    LimitedText {
        chars_max: usize,
    },
    /// A text of one of these values.
    Choice(&'static [&'static str]),
    /// A duration in the protobuf form, `15s`.
    Duration,
    Uuid,
    /// ISO 8601; checked for its outline only.
    DateTime,
    /// A whole number within these bounds, both included.
    Integer {
        min: i64,
        max: i64,
    },
    Number,
    Flag,
    /// An object of a known shape.
    Object(&'static Shape),
    /// A list of objects of a known shape.
    Objects(&'static Shape),
    Texts,
    /// An object whose values are texts.
    TextMap,
    /// An object with any members.
    FreeObject,
    /// A list of anything.
    FreeList,
    /// Anything: a part of the API that passes through unread.
    Any,
}

/// One member of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub nullable: bool,
}

impl Field {
    const fn required(self) -> Field {
        Field { required: true, ..self }
    }

    const fn nullable(self) -> Field {
        Field { nullable: true, ..self }
    }
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false, nullable: false }
}

/// An object: its name in the OpenAPI document and its members.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub fields: &'static [Field],
    /// Members that are not in the table are refused, as a protobuf reader does.
    pub closed: bool,
    /// At most one of the members may be set (a protobuf `oneof`).
    pub one_of: bool,
}

/// What is wrong with one value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Members joined by dots, list places in brackets: `medium.serverWebSocket.inputSampleRate`.
    pub path: String,
    pub what: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// The ways in which a value can be wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    Missing,
    Unknown,
    NotNullable,
    /// The kind that was wanted, in words.
    Wants(&'static str),
    OutOfRange {
        min: i64,
        max: i64,
    },
    TooLong {
        chars_max: usize,
    },
    ReservedKey,
    OnlyOneOf,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("this field is required"),
            Fault::Unknown => f.write_str("no such field"),
            Fault::NotNullable => f.write_str("this field may not be null"),
            Fault::Wants(kind) => write!(f, "must be {kind}"),
            Fault::OutOfRange { min, max } => write!(f, "must be between {min} and {max}"),
            Fault::TooLong { chars_max } => {
                write!(f, "must have at most {chars_max} characters")
            }
            Fault::ReservedKey => f.write_str("keys may not start with \"ultravox.\""),
            Fault::OnlyOneOf => f.write_str("only one of its members may be set"),
        }
    }
}

impl Shape {
    /// All problems of `value`, at most 32; empty when it fits.
    pub fn check(&self, value: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_object(self, value, "", &mut problems);
        problems.truncate(PROBLEMS_MAX);
        problems
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn push(problems: &mut Vec<Problem>, path: &str, what: Fault) {
    if problems.len() < PROBLEMS_MAX {
        problems.push(Problem { path: path.to_owned(), what });
    }
}

fn check_object(shape: &Shape, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let Some(members) = value.as_object() else {
        return push(problems, path, Fault::Wants("an object"));
    };
    for field in shape.fields {
        let path = join(path, field.name);
        match members.get(field.name) {
            None if field.required => push(problems, &path, Fault::Missing),
            None => {}
            Some(Value::Null) if field.nullable || matches!(field.kind, Kind::Any) => {}
            Some(Value::Null) => push(problems, &path, Fault::NotNullable),
            Some(value) => check_value(&field.kind, value, &path, problems),
        }
    }
    if shape.one_of && members.len() > 1 {
        push(problems, path, Fault::OnlyOneOf);
    }
    if shape.closed {
        check_unknown(shape, members, path, problems);
    }
}

fn check_unknown(
    shape: &Shape,
    members: &Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for name in members.keys().filter(|name| shape.field(name).is_none()) {
        push(problems, &join(path, name), Fault::Unknown);
    }
}

fn check_value(kind: &Kind, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut want = |fits: bool, words: &'static str| {
        if !fits {
            push(problems, path, Fault::Wants(words));
        }
    };
    let text = value.as_str();
    match kind {
        Kind::Text => want(text.is_some(), "a string"),
        Kind::LimitedText { chars_max } => match text {
            None => want(false, "a string"),
            Some(text) if text.chars().count() > *chars_max => {
                push(problems, path, Fault::TooLong { chars_max: *chars_max })
            }
            Some(_) => {}
        },
        Kind::Choice(names) => {
            want(text.is_some_and(|text| names.contains(&text)), "one of the documented values")
        }
        Kind::Duration => want(
            text.is_some_and(|text| parse_duration(text).is_some()),
            "a duration such as \"15s\"",
        ),
        Kind::Uuid => want(text.is_some_and(is_uuid), "a UUID"),
        Kind::DateTime => want(text.is_some_and(is_date_time), "an ISO 8601 time"),
        Kind::Integer { min, max } => match value.as_i64() {
            None => want(false, "a whole number"),
            Some(number) if number < *min || number > *max => {
                push(problems, path, Fault::OutOfRange { min: *min, max: *max })
            }
            Some(_) => {}
        },
        Kind::Number => want(value.is_number(), "a number"),
        Kind::Flag => want(value.is_boolean(), "true or false"),
        Kind::Object(shape) => check_object(shape, value, path, problems),
        Kind::Objects(shape) => match value.as_array() {
            None => want(false, "a list"),
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    check_object(shape, item, &format!("{path}[{index}]"), problems);
                }
            }
        },
        Kind::Texts => match value.as_array() {
            None => want(false, "a list of strings"),
            Some(items) => {
                for (index, _) in items.iter().enumerate().filter(|(_, item)| !item.is_string()) {
                    push(problems, &format!("{path}[{index}]"), Fault::Wants("a string"));
                }
            }
        },
        Kind::TextMap => {
            let all = value.as_object().is_some_and(|map| map.values().all(Value::is_string));
            want(all, "an object of strings");
        }
        Kind::FreeObject => want(value.is_object(), "an object"),
        Kind::FreeList => want(value.is_array(), "a list"),
        Kind::Any => {}
    }
}

/// The 8-4-4-4-12 form.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_date_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes.is_ascii()
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
}

/// Checks a request to start a call: the shape, and that no metadata key is a reserved one.
pub fn check_start(shape: &Shape, body: &Value) -> Vec<Problem> {
    let mut problems = shape.check(body);
    let metadata = body.get("metadata").and_then(Value::as_object);
    for key in metadata.into_iter().flat_map(Map::keys) {
        if key.starts_with("ultravox.") {
            push(&mut problems, &join("metadata", key), Fault::ReservedKey);
        }
    }
    problems
}

/// Checks one message of a client; a type that is not in the tables is a problem of its own.
pub fn check_client_message(message: &Value) -> Vec<Problem> {
    let name = message.get("type").and_then(Value::as_str).unwrap_or_default();
    match CLIENT_MESSAGES.iter().find(|shape| shape.name == name) {
        Some(shape) => shape.check(message),
        None => vec![Problem { path: "type".into(), what: Fault::Unknown }],
    }
}

const fn open(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, fields, closed: false, one_of: false }
}

const fn closed(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, fields, closed: true, one_of: false }
}

const fn one_of(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, fields, closed: true, one_of: true }
}

const OUTPUT_MEDIA: Kind =
    Kind::Choice(&["MESSAGE_MEDIUM_UNSPECIFIED", "MESSAGE_MEDIUM_VOICE", "MESSAGE_MEDIUM_TEXT"]);
const RETENTION: Kind = Kind::Choice(&[
    "CALL_RETENTION_POLICY_UNSPECIFIED",
    "CALL_RETENTION_POLICY_RETAIN",
    "CALL_RETENTION_POLICY_AUTO_DELETE",
]);
/// The document names no allowed rates; all that is known to work lies in this range.
const SAMPLE_RATE: Kind = Kind::Integer { min: 8_000, max: 48_000 };

/// `dataMessages`: which messages the server sends.
pub static ENABLED_DATA_MESSAGES: Shape = closed(
    "ultravox.v1.EnabledDataMessages",
    &[
        field("pong", Kind::Flag),
        field("state", Kind::Flag),
        field("transcript", Kind::Flag),
        field("clientToolInvocation", Kind::Flag),
        field("dataConnectionToolInvocation", Kind::Flag),
        field("playbackClearBuffer", Kind::Flag),
        field("callStarted", Kind::Flag),
        field("debug", Kind::Flag),
        field("callEvent", Kind::Flag),
        field("toolUsed", Kind::Flag),
        field("userStartedSpeaking", Kind::Flag),
        field("userStoppedSpeaking", Kind::Flag),
        field("invokingTool", Kind::Flag),
    ],
);

/// `medium.serverWebSocket`.
pub static WEB_SOCKET_MEDIUM: Shape = closed(
    "ultravox.v1.CallMedium_WebSocketMedium",
    &[
        field("inputSampleRate", SAMPLE_RATE).required(),
        field("outputSampleRate", SAMPLE_RATE),
        field("clientBufferSizeMs", Kind::Integer { min: 0, max: i32::MAX as i64 }),
        field("dataMessages", Kind::Object(&ENABLED_DATA_MESSAGES)),
        field("mediaIdleTimeout", Kind::Duration),
    ],
);

/// `medium`: one member at most.
pub static CALL_MEDIUM: Shape = one_of(
    "ultravox.v1.CallMedium",
    &[
        field("webRtc", Kind::FreeObject),
        field("twilio", Kind::FreeObject),
        field("serverWebSocket", Kind::Object(&WEB_SOCKET_MEDIUM)),
        field("telnyx", Kind::FreeObject),
        field("plivo", Kind::FreeObject),
        field("exotel", Kind::FreeObject),
        field("sip", Kind::Object(&sip::SIP_MEDIUM)),
    ],
);

pub static AGENT_GREETING: Shape = closed(
    "ultravox.v1.FirstSpeakerSettings_AgentGreeting",
    &[
        field("uninterruptible", Kind::Flag),
        field("text", Kind::Text),
        field("prompt", Kind::Text),
        field("delay", Kind::Duration),
    ],
);

pub static FALLBACK_GREETING: Shape = closed(
    "ultravox.v1.FallbackAgentGreeting",
    &[field("delay", Kind::Duration), field("text", Kind::Text), field("prompt", Kind::Text)],
);

pub static USER_GREETING: Shape = closed(
    "ultravox.v1.FirstSpeakerSettings_UserGreeting",
    &[field("fallback", Kind::Object(&FALLBACK_GREETING))],
);

pub static FIRST_SPEAKER_SETTINGS: Shape = one_of(
    "ultravox.v1.FirstSpeakerSettings",
    &[field("user", Kind::Object(&USER_GREETING)), field("agent", Kind::Object(&AGENT_GREETING))],
);

pub static CALLBACK: Shape =
    closed("ultravox.v1.Callback", &[field("url", Kind::Text), field("secrets", Kind::Texts)]);

pub static CALLBACKS: Shape = closed(
    "ultravox.v1.Callbacks",
    &[
        field("joined", Kind::Object(&CALLBACK)),
        field("ended", Kind::Object(&CALLBACK)),
        field("billed", Kind::Object(&CALLBACK)),
    ],
);

const PARAMETER_PLACE: Kind = Kind::Choice(&[
    "PARAMETER_LOCATION_UNSPECIFIED",
    "PARAMETER_LOCATION_QUERY",
    "PARAMETER_LOCATION_PATH",
    "PARAMETER_LOCATION_HEADER",
    "PARAMETER_LOCATION_BODY",
]);

pub static DYNAMIC_PARAMETER: Shape = closed(
    "ultravox.v1.DynamicParameter",
    &[
        field("name", Kind::Text),
        field("location", PARAMETER_PLACE),
        field("schema", Kind::FreeObject),
        field("required", Kind::Flag),
    ],
);

pub static BASE_TOOL_DEFINITION: Shape = closed(
    "ultravox.v1.BaseToolDefinition",
    &[
        field("modelToolName", Kind::Text),
        field("description", Kind::Text),
        field("dynamicParameters", Kind::Objects(&DYNAMIC_PARAMETER)),
        field("staticParameters", Kind::FreeList),
        field("automaticParameters", Kind::FreeList),
        field("requirements", Kind::FreeObject),
        field("timeout", Kind::Duration),
        field("precomputable", Kind::Flag),
        field("http", Kind::FreeObject),
        field("client", Kind::FreeObject),
        field("dataConnection", Kind::FreeObject),
        field(
            "defaultReaction",
            Kind::Choice(&[
                "AGENT_REACTION_UNSPECIFIED",
                "AGENT_REACTION_SPEAKS",
                "AGENT_REACTION_LISTENS",
                "AGENT_REACTION_SPEAKS_ONCE",
            ]),
        ),
        field("staticResponse", Kind::FreeObject),
    ],
);

pub static SELECTED_TOOL: Shape = closed(
    "ultravox.v1.SelectedTool",
    &[
        field("toolId", Kind::Text),
        field("toolName", Kind::Text),
        field("temporaryTool", Kind::Object(&BASE_TOOL_DEFINITION)),
        field("nameOverride", Kind::Text),
        field("descriptionOverride", Kind::Text),
        field("authTokens", Kind::TextMap),
        field("parameterOverrides", Kind::FreeObject),
        field("transitionId", Kind::Text),
    ],
);

pub static TOOL_OVERRIDES: Shape = closed(
    "ultravox.v1.ToolOverrides",
    &[
        field("remove", Kind::Texts),
        field("removeAll", Kind::Flag),
        field("add", Kind::Objects(&SELECTED_TOOL)),
    ],
);

/// Body of `POST /api/agents/{agent_id}/calls`.
pub static START_AGENT_CALL: Shape = closed(
    "ultravox.v1.StartAgentCallRequest",
    &[
        field("templateContext", Kind::FreeObject),
        field("initialMessages", Kind::FreeList),
        field("metadata", Kind::TextMap),
        field("medium", Kind::Object(&CALL_MEDIUM)),
        field("joinTimeout", Kind::Duration),
        field("maxDuration", Kind::Duration),
        field("recordingEnabled", Kind::Flag),
        field("initialOutputMedium", OUTPUT_MEDIA),
        field("firstSpeakerSettings", Kind::Object(&FIRST_SPEAKER_SETTINGS)),
        field("dataConnection", Kind::FreeObject),
        field("experimentalSettings", Kind::FreeObject),
        field("callbacks", Kind::Object(&CALLBACKS)),
        field("voice", Kind::Text),
        field("voiceOverrides", Kind::FreeObject),
        field("toolOverrides", Kind::Object(&TOOL_OVERRIDES)),
        field("retentionPolicy", RETENTION),
        field("sharedSecrets", Kind::Texts),
        field("agentId", Kind::Text),
    ],
);

/// Body of `POST /api/calls`.
pub static START_CALL: Shape = closed(
    "ultravox.v1.StartCallRequest",
    &[
        field("systemPrompt", Kind::Text),
        field("temperature", Kind::Number),
        field("model", Kind::Text),
        field("voice", Kind::Text),
        field("externalVoice", Kind::FreeObject),
        field("languageHint", Kind::Text),
        field("initialMessages", Kind::FreeList),
        field("joinTimeout", Kind::Duration),
        field("maxDuration", Kind::Duration),
        field("timeExceededMessage", Kind::Text),
        field("inactivityMessages", Kind::FreeList),
        field("selectedTools", Kind::Objects(&SELECTED_TOOL)),
        field("medium", Kind::Object(&CALL_MEDIUM)),
        field("recordingEnabled", Kind::Flag),
        field(
            "firstSpeaker",
            Kind::Choice(&[
                "FIRST_SPEAKER_UNSPECIFIED",
                "FIRST_SPEAKER_AGENT",
                "FIRST_SPEAKER_USER",
            ]),
        ),
        field("transcriptOptional", Kind::Flag),
        field("initialOutputMedium", OUTPUT_MEDIA),
        field("vadSettings", Kind::FreeObject),
        field("firstSpeakerSettings", Kind::Object(&FIRST_SPEAKER_SETTINGS)),
        field("experimentalSettings", Kind::FreeObject),
        field("metadata", Kind::TextMap),
        field("initialState", Kind::FreeObject),
        field("dataConnection", Kind::FreeObject),
        field("callbacks", Kind::Object(&CALLBACKS)),
        field("voiceOverrides", Kind::FreeObject),
        field("retentionPolicy", RETENTION),
        field("sharedSecrets", Kind::Texts),
    ],
);

/// `reject` of a fallback handler's answer.
pub static SIP_REJECTION: Shape = closed(
    "ultravox.v1.SipRejection",
    &[field("sipRejectCode", Kind::Integer { min: 400, max: 699 }), field("message", Kind::Text)],
);

/// A fallback handler's answer: exactly one of them.
pub static SIP_FALLBACK_RESPONSE: Shape = one_of(
    "ultravox.v1.SipFallbackHandlerResponse",
    &[
        field("startAgentCall", Kind::Object(&START_AGENT_CALL)),
        field("startCall", Kind::Object(&START_CALL)),
        field("reject", Kind::Object(&SIP_REJECTION)),
    ],
);

/// The answer to both requests, and of `GET /api/calls/{id}`. New members are tolerated.
pub static CALL: Shape = open(
    "Call",
    &[
        field("callId", Kind::Uuid).required(),
        field("clientVersion", Kind::Text).required().nullable(),
        field("created", Kind::DateTime).required(),
        field("joined", Kind::DateTime).required().nullable(),
        field("ended", Kind::DateTime).required().nullable(),
        field(
            "endReason",
            Kind::Choice(&[
                "unjoined",
                "hangup",
                "agent_hangup",
                "timeout",
                "connection_error",
                "system_error",
            ]),
        )
        .required()
        .nullable(),
        field("billedDuration", Kind::Text).required().nullable(),
        field("billedSideInputTokens", Kind::Integer { min: 0, max: i64::MAX })
            .required()
            .nullable(),
        field("billedSideOutputTokens", Kind::Integer { min: 0, max: i64::MAX })
            .required()
            .nullable(),
        field("billingStatus", BILLING_STATUS).required(),
        field("firstSpeaker", Kind::Choice(&["FIRST_SPEAKER_AGENT", "FIRST_SPEAKER_USER"]))
            .required(),
        field("firstSpeakerSettings", Kind::Object(&FIRST_SPEAKER_SETTINGS)).required(),
        field(
            "initialOutputMedium",
            Kind::Choice(&["MESSAGE_MEDIUM_VOICE", "MESSAGE_MEDIUM_TEXT"]),
        )
        .required(),
        field("joinTimeout", Kind::Text),
        field("joinUrl", Kind::Text).required().nullable(),
        field("maxDuration", Kind::Text),
        field("medium", Kind::Object(&CALL_MEDIUM)).nullable(),
        field("recordingEnabled", Kind::Flag),
        field("shortSummary", Kind::Text).required().nullable(),
        field("summary", Kind::Text).required().nullable(),
        field("agent", Kind::FreeObject).required(),
        field("agentId", Kind::Text).required().nullable(),
        field("experimentalSettings", Kind::Any).required(),
        field("metadata", Kind::TextMap).required(),
        field("initialState", Kind::FreeObject).required(),
        field("requestContext", Kind::Any).required(),
        field("sipDetails", Kind::Object(&sip::SIP_DETAILS)).required().nullable(),
    ],
);

const BILLING_STATUS: Kind = Kind::Choice(&[
    "BILLING_STATUS_UNSPECIFIED",
    "BILLING_STATUS_PENDING",
    "BILLING_STATUS_FREE_CONSOLE",
    "BILLING_STATUS_FREE_ZERO_EFFECTIVE_DURATION",
    "BILLING_STATUS_FREE_MINUTES",
    "BILLING_STATUS_FREE_SYSTEM_ERROR",
    "BILLING_STATUS_FREE_OTHER",
    "BILLING_STATUS_BILLED",
    "BILLING_STATUS_REFUNDED",
]);

/// The parts of an agent's template that the edge reads.
pub static CALL_TEMPLATE: Shape = open(
    "ultravox.v1.CallTemplate",
    &[
        field("medium", Kind::Object(&CALL_MEDIUM)),
        field("joinTimeout", Kind::Duration),
        field("maxDuration", Kind::Duration),
        field("selectedTools", Kind::Objects(&SELECTED_TOOL)),
        field("contextSchema", Kind::FreeObject),
        field("firstSpeakerSettings", Kind::Object(&FIRST_SPEAKER_SETTINGS)),
        field("systemPrompt", Kind::Text),
    ],
);

/// The answer of `GET /api/agents/{id}`.
pub static AGENT: Shape = open(
    "Agent",
    &[
        field("agentId", Kind::Uuid).required(),
        field("publishedRevisionId", Kind::Uuid).required().nullable(),
        field("name", Kind::Text),
        field("created", Kind::DateTime).required(),
        field("callTemplate", Kind::Object(&CALL_TEMPLATE)).nullable(),
        field("statistics", Kind::FreeObject).required(),
    ],
);

/// Every table that has its like in the published document.
pub static PUBLISHED: &[&Shape] = &[
    &ENABLED_DATA_MESSAGES,
    &WEB_SOCKET_MEDIUM,
    &CALL_MEDIUM,
    &AGENT_GREETING,
    &FALLBACK_GREETING,
    &USER_GREETING,
    &FIRST_SPEAKER_SETTINGS,
    &CALLBACK,
    &CALLBACKS,
    &DYNAMIC_PARAMETER,
    &BASE_TOOL_DEFINITION,
    &SELECTED_TOOL,
    &TOOL_OVERRIDES,
    &START_AGENT_CALL,
    &START_CALL,
    &SIP_REJECTION,
    &SIP_FALLBACK_RESPONSE,
    &CALL,
    &CALL_TEMPLATE,
    &AGENT,
    &sip::AGENT_ALLOWANCE,
    &sip::FALLBACK_HANDLER,
    &sip::SIP_CONFIG,
    &sip::PATCHED_SIP_CONFIG,
    &sip::SIP_REGISTRATION,
    &sip::NEW_SIP_REGISTRATION,
    &sip::PATCHED_SIP_REGISTRATION,
    &sip::SIP_REGISTRATIONS,
    &sip::SIP_OUTGOING,
    &sip::SIP_MEDIUM,
    &sip::SIP_DETAILS,
];

const TYPE: Field = field("type", Kind::Text).required();
const URGENCY: Field = field("urgency", Kind::Choice(&["immediate", "soon", "later"]));

/// Messages that a client may send, named by their `type`.
pub static CLIENT_MESSAGES: &[Shape] = &[
    closed("ping", &[TYPE, field("timestamp", Kind::Number).required()]),
    closed(
        "user_text_message",
        &[TYPE, field("text", Kind::Text).required(), URGENCY, field("threadId", Kind::Text)],
    ),
    closed(
        "set_output_medium",
        &[TYPE, field("medium", Kind::Choice(&["voice", "text"])).required()],
    ),
    closed(
        "client_tool_result",
        &[
            TYPE,
            field("invocationId", Kind::Text).required(),
            field("result", Kind::Text),
            field(
                "responseType",
                Kind::Choice(&["tool-response", "hang-up", "new-stage", "send-to-thread"]),
            ),
            field("agentReaction", Kind::Choice(&["speaks", "listens", "speaks-once"])),
            field("errorType", Kind::Choice(&["undefined", "implementation-error"])),
            field("errorMessage", Kind::Text),
            field("updateCallState", Kind::FreeObject),
        ],
    ),
    closed(
        "forced_agent_message",
        &[
            TYPE,
            field("content", Kind::Text),
            field("toolCalls", Kind::FreeList),
            field("knownToolResults", Kind::FreeList),
            field("uninterruptible", Kind::Flag),
            URGENCY,
            field("threadId", Kind::Text),
        ],
    ),
    closed("hang_up", &[TYPE, field("message", Kind::Text)]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(body: Value) -> Vec<String> {
        check_start(&START_AGENT_CALL, &body).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_body_that_fits_has_no_problems() {
        let body = json!({"medium": {"serverWebSocket": {"inputSampleRate": 8000, "mediaIdleTimeout": "40s"}},
            "joinTimeout": "15s", "metadata": {"a": "b"}, "templateContext": {"x": {"y": null}},
            "firstSpeakerSettings": {"agent": {"delay": "0.3s"}},
            "toolOverrides": {"remove": ["coldTransfer"], "add": [{"temporaryTool": {
                "modelToolName": "coldTransfer", "dynamicParameters": [], "client": {}}}]}});
        assert_eq!(problems(body), Vec::<String>::new());
        assert_eq!(problems(json!({})), Vec::<String>::new());
    }

    #[test]
    fn each_way_of_being_wrong_is_named_with_its_path() {
        let rows = [
            (json!([]), ": must be an object"),
            (json!({"templatecontext": {}}), "templatecontext: no such field"),
            (json!({"joinTimeout": 15}), "joinTimeout: must be a duration such as \"15s\""),
            (json!({"joinTimeout": null}), "joinTimeout: this field may not be null"),
            (json!({"metadata": {"n": 1}}), "metadata: must be an object of strings"),
            (
                json!({"metadata": {"ultravox.x": "1"}}),
                "metadata.ultravox.x: keys may not start with \"ultravox.\"",
            ),
            (
                json!({"medium": {"webRtc": {}, "sip": {}}}),
                "medium: only one of its members may be set",
            ),
            (
                json!({"medium": {"serverWebSocket": {}}}),
                "medium.serverWebSocket.inputSampleRate: this field is required",
            ),
            (
                json!({"medium": {"serverWebSocket": {"inputSampleRate": 7999}}}),
                "medium.serverWebSocket.inputSampleRate: must be between 8000 and 48000",
            ),
            (
                json!({"medium": {"serverWebSocket": {"inputSampleRate": 8000.5}}}),
                "medium.serverWebSocket.inputSampleRate: must be a whole number",
            ),
            (json!({"recordingEnabled": "yes"}), "recordingEnabled: must be true or false"),
            (
                json!({"retentionPolicy": "KEEP"}),
                "retentionPolicy: must be one of the documented values",
            ),
            (json!({"sharedSecrets": [1]}), "sharedSecrets[0]: must be a string"),
            (
                json!({"toolOverrides": {"add": [{}, {"id": 1}]}}),
                "toolOverrides.add[1].id: no such field",
            ),
        ];
        for (body, expected) in rows {
            assert_eq!(problems(body.clone()), [expected], "{body}");
        }
    }

    #[test]
    fn problems_are_bounded() {
        let body: Map<String, Value> = (0..1000).map(|n| (format!("f{n}"), Value::Null)).collect();
        assert_eq!(START_AGENT_CALL.check(&Value::Object(body)).len(), PROBLEMS_MAX);
    }

    #[test]
    fn client_messages_of_unknown_type_or_with_wrong_fields_are_problems() {
        let check =
            |value| check_client_message(&value).iter().map(Problem::to_string).collect::<Vec<_>>();
        assert_eq!(check(json!({"type": "ping", "timestamp": 1})), Vec::<String>::new());
        assert_eq!(check(json!({"type": "dance"})), ["type: no such field"]);
        assert_eq!(check(json!({"type": "ping"})), ["timestamp: this field is required"]);
        assert_eq!(
            check(
                json!({"type": "client_tool_result", "invocationId": "i", "agent_reaction": "speaks"})
            ),
            ["agent_reaction: no such field"]
        );
    }
}
