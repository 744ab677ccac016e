//! Data messages: the text frames of the agent stream, one JSON object with a `type` each. Both
//! directions are read and written here, since the edge and the stand-in speak the same words. An
//! unknown type is normal: it is told apart by name, counted by its owner, and changes nothing.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Characters of an unknown type's name that are kept.
const TYPE_NAME_CHARS_MAX: usize = 48;
/// Names of unknown types that are counted apart; the rest is counted together.
const UNKNOWN_NAMES_MAX: usize = 32;

/// What the agent is doing (`state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentState {
    Idle,
    Listening,
    Thinking,
    Speaking,
    /// A state that is newer than this table.
    Other,
}

impl AgentState {
    pub fn parse(text: &str) -> AgentState {
        match text {
            "idle" => AgentState::Idle,
            "listening" => AgentState::Listening,
            "thinking" => AgentState::Thinking,
            "speaking" => AgentState::Speaking,
            _ => AgentState::Other,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            AgentState::Idle => "idle",
            AgentState::Listening => "listening",
            AgentState::Thinking => "thinking",
            AgentState::Speaking => "speaking",
            AgentState::Other => "other",
        }
    }
}

/// Who said the words of a transcript.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    User,
    Agent,
}

/// The words of a transcript: the whole, or what is added to the words of the same `ordinal`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Words {
    Text(String),
    Delta(String),
}

/// Agent → edge.
#[derive(Clone, PartialEq, Debug)]
pub enum ServerMessage {
    CallStarted {
        call_id: Option<String>,
    },
    State(AgentState),
    /// `medium` is `voice` or `text`, as received.
    Transcript {
        role: Role,
        medium: String,
        words: Words,
        is_final: bool,
        ordinal: u64,
    },
    /// Everything that was not yet played is to be dropped.
    PlaybackClearBuffer,
    ClientToolInvocation {
        tool_name: String,
        invocation_id: String,
        parameters: Value,
    },
    Pong {
        timestamp: f64,
    },
    Debug {
        message: String,
    },
    /// An object with a `type` that is not in this table, or a known one without its fields.
    Unknown {
        type_name: String,
    },
    /// Not a JSON object with a `type`.
    Malformed,
}

impl ServerMessage {
    /// Reads one text frame. Never fails: what cannot be used is `Unknown` or `Malformed`.
    pub fn parse(text: &str) -> ServerMessage {
        let Some(message) = Fields::parse(text) else { return ServerMessage::Malformed };
        let known = match message.type_name() {
            "call_started" => Some(ServerMessage::CallStarted { call_id: message.text("callId") }),
            "state" => {
                message.text("state").map(|state| ServerMessage::State(AgentState::parse(&state)))
            }
            "transcript" => transcript(&message),
            "playback_clear_buffer" => Some(ServerMessage::PlaybackClearBuffer),
            "client_tool_invocation" => tool_invocation(&message),
            "pong" => {
                message.number("timestamp").map(|timestamp| ServerMessage::Pong { timestamp })
            }
            "debug" => message.text("message").map(|message| ServerMessage::Debug { message }),
            _ => None,
        };
        known.unwrap_or_else(|| ServerMessage::Unknown { type_name: message.printable_type() })
    }

    /// The text frame that carries this message; `Unknown` becomes a message with its type alone
    /// and `Malformed` an empty object.
    pub fn to_text(&self) -> String {
        let value = match self {
            ServerMessage::CallStarted { call_id } => {
                json!({"type": "call_started", "callId": call_id})
            }
            ServerMessage::State(state) => json!({"type": "state", "state": state.as_str()}),
            ServerMessage::Transcript { role, medium, words, is_final, ordinal } => {
                let role = if *role == Role::User { "user" } else { "agent" };
                let (name, text) = match words {
                    Words::Text(text) => ("text", text),
                    Words::Delta(text) => ("delta", text),
                };
                json!({"type": "transcript", "role": role, "medium": medium, name: text,
                    "final": is_final, "ordinal": ordinal})
            }
            ServerMessage::PlaybackClearBuffer => json!({"type": "playback_clear_buffer"}),
            ServerMessage::ClientToolInvocation { tool_name, invocation_id, parameters } => json!({
                "type": "client_tool_invocation", "toolName": tool_name,
                "invocationId": invocation_id, "parameters": parameters}),
            ServerMessage::Pong { timestamp } => json!({"type": "pong", "timestamp": timestamp}),
            ServerMessage::Debug { message } => json!({"type": "debug", "message": message}),
            ServerMessage::Unknown { type_name } => json!({"type": type_name}),
            ServerMessage::Malformed => json!({}),
        };
        value.to_string()
    }
}

/// User transcripts come whole; an agent's grow by `delta`, with an empty `text` beside it at times.
fn transcript(message: &Fields) -> Option<ServerMessage> {
    let role = match message.text("role")?.as_str() {
        "user" => Role::User,
        "agent" => Role::Agent,
        _ => return None,
    };
    let text = message.text("text").filter(|text| !text.is_empty());
    let words = match (text, message.text("delta")) {
        (Some(text), _) => Words::Text(text),
        (None, Some(delta)) => Words::Delta(delta),
        (None, None) => Words::Text(String::new()),
    };
    Some(ServerMessage::Transcript {
        role,
        medium: message.text("medium").unwrap_or_else(|| "voice".into()),
        words,
        is_final: message.flag("final"),
        ordinal: message.count("ordinal"),
    })
}

fn tool_invocation(message: &Fields) -> Option<ServerMessage> {
    Some(ServerMessage::ClientToolInvocation {
        tool_name: message.text("toolName")?,
        invocation_id: message.text("invocationId")?,
        parameters: message.value("parameters").unwrap_or_else(|| json!({})),
    })
}

/// When a message takes effect (`urgency`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Interrupts the agent and lets it answer now.
    Immediate,
    /// Is answered next.
    Soon,
    /// Only adds context; the agent does not speak because of it.
    Later,
}

impl Urgency {
    pub fn parse(text: &str) -> Option<Urgency> {
        match text {
            "immediate" => Some(Urgency::Immediate),
            "soon" => Some(Urgency::Soon),
            "later" => Some(Urgency::Later),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Urgency::Immediate => "immediate",
            Urgency::Soon => "soon",
            Urgency::Later => "later",
        }
    }
}

/// How the agent goes on after a tool's result (`agentReaction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Speaks,
    Listens,
    SpeaksOnce,
}

impl Reaction {
    pub fn parse(text: &str) -> Option<Reaction> {
        match text {
            "speaks" => Some(Reaction::Speaks),
            "listens" => Some(Reaction::Listens),
            "speaks-once" => Some(Reaction::SpeaksOnce),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Reaction::Speaks => "speaks",
            Reaction::Listens => "listens",
            Reaction::SpeaksOnce => "speaks-once",
        }
    }
}

/// How a client tool ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToolOutcome {
    Result {
        result: String,
        reaction: Reaction,
    },
    /// `hang-up`: the agent ends the call; `result` may hold JSON with `strict` and `message`.
    HangUp {
        result: String,
    },
    /// `new-stage`: the agent goes on with the prompt and the tools of `result`, which is JSON.
    NewStage {
        result: String,
    },
    /// `errorType: undefined`: no such tool here.
    UnknownTool,
    /// `errorType: implementation-error`; the message is not shown to the model.
    Failed {
        message: String,
    },
}

/// A call of a tool that the agent did not make itself, and its result, which is known.
#[derive(Clone, PartialEq, Debug)]
pub struct KnownTool {
    pub invocation_id: String,
    pub name: String,
    pub arguments: Value,
    pub outcome: ToolOutcome,
}

/// Edge → agent.
#[derive(Clone, PartialEq, Debug)]
pub enum ClientMessage {
    Ping {
        timestamp: f64,
    },
    UserText {
        text: String,
        urgency: Urgency,
    },
    ForcedAgent {
        content: String,
        uninterruptible: bool,
        urgency: Urgency,
        /// A tool that the agent is made to call, with its result.
        tool: Option<Box<KnownTool>>,
    },
    ClientToolResult {
        invocation_id: String,
        outcome: ToolOutcome,
    },
    /// `message` is a spoken farewell; empty for none.
    HangUp {
        message: String,
    },
    SetOutputMedium {
        medium: String,
    },
    Unknown {
        type_name: String,
    },
    Malformed,
}

impl ClientMessage {
    /// Reads one text frame; tolerant as [`ServerMessage::parse`]. An absent `urgency` is `soon`, an
    /// absent `agentReaction` is `speaks` (the documented defaults).
    pub fn parse(text: &str) -> ClientMessage {
        let Some(message) = Fields::parse(text) else { return ClientMessage::Malformed };
        let urgency = || match message.text("urgency") {
            Some(text) => Urgency::parse(&text),
            None => Some(Urgency::Soon),
        };
        let known = match message.type_name() {
            "ping" => {
                message.number("timestamp").map(|timestamp| ClientMessage::Ping { timestamp })
            }
            "user_text_message" => message
                .text("text")
                .zip(urgency())
                .map(|(text, urgency)| ClientMessage::UserText { text, urgency }),
            "forced_agent_message" => urgency().map(|urgency| ClientMessage::ForcedAgent {
                content: message.text("content").unwrap_or_default(),
                uninterruptible: message.flag("uninterruptible"),
                urgency,
                tool: known_tool(&message).map(Box::new),
            }),
            "client_tool_result" => tool_result(&message),
            "hang_up" => {
                Some(ClientMessage::HangUp { message: message.text("message").unwrap_or_default() })
            }
            "set_output_medium" => {
                message.text("medium").map(|medium| ClientMessage::SetOutputMedium { medium })
            }
            _ => None,
        };
        known.unwrap_or_else(|| ClientMessage::Unknown { type_name: message.printable_type() })
    }

    /// The text frame that carries this message.
    pub fn to_text(&self) -> String {
        let value = match self {
            ClientMessage::Ping { timestamp } => json!({"type": "ping", "timestamp": timestamp}),
            ClientMessage::UserText { text, urgency } => {
                json!({"type": "user_text_message", "text": text, "urgency": urgency.as_str()})
            }
            ClientMessage::ForcedAgent { content, uninterruptible, urgency, tool } => {
                let mut value = json!({
                    "type": "forced_agent_message", "content": content,
                    "uninterruptible": uninterruptible, "urgency": urgency.as_str()});
                if let Some(tool) = tool {
                    let KnownTool { invocation_id, name, arguments, outcome } = tool.as_ref();
                    value["toolCalls"] =
                        json!([{"id": invocation_id, "name": name, "arguments": arguments}]);
                    value["knownToolResults"] =
                        json!([with_outcome(json!({"invocationId": invocation_id}), outcome)]);
                }
                value
            }
            ClientMessage::ClientToolResult { invocation_id, outcome } => {
                tool_result_value(invocation_id, outcome)
            }
            ClientMessage::HangUp { message } => json!({"type": "hang_up", "message": message}),
            ClientMessage::SetOutputMedium { medium } => {
                json!({"type": "set_output_medium", "medium": medium})
            }
            ClientMessage::Unknown { type_name } => json!({"type": type_name}),
            ClientMessage::Malformed => json!({}),
        };
        value.to_string()
    }
}

/// The first tool call of a `forced_agent_message` with the result that belongs to it.
fn known_tool(message: &Fields) -> Option<KnownTool> {
    let first = |name: &str| message.0.get(name)?.as_array()?.first()?.as_object().cloned();
    let (call, result) = (Fields(first("toolCalls")?), Fields(first("knownToolResults")?));
    let invocation_id = call.text("id")?;
    if result.text("invocationId")? != invocation_id {
        return None;
    }
    Some(KnownTool {
        invocation_id,
        name: call.text("name")?,
        arguments: call.value("arguments").unwrap_or_else(|| json!({})),
        outcome: outcome(&result)?,
    })
}

fn tool_result(message: &Fields) -> Option<ClientMessage> {
    let invocation_id = message.text("invocationId")?;
    Some(ClientMessage::ClientToolResult { invocation_id, outcome: outcome(message)? })
}

fn outcome(message: &Fields) -> Option<ToolOutcome> {
    let result = message.text("result").unwrap_or_default();
    let reaction = message.text("agentReaction");
    match (message.text("errorType").as_deref(), message.text("responseType").as_deref()) {
        (Some("undefined"), _) => Some(ToolOutcome::UnknownTool),
        (Some(_), _) => {
            let message = message.text("errorMessage").unwrap_or_default();
            Some(ToolOutcome::Failed { message })
        }
        (None, Some("hang-up")) => Some(ToolOutcome::HangUp { result }),
        (None, Some("new-stage")) => Some(ToolOutcome::NewStage { result }),
        (None, None | Some("tool-response")) => {
            let reaction =
                reaction.map_or(Some(Reaction::Speaks), |text| Reaction::parse(&text))?;
            Some(ToolOutcome::Result { result, reaction })
        }
        (None, Some(_)) => None,
    }
}

fn tool_result_value(invocation_id: &str, outcome: &ToolOutcome) -> Value {
    let value = json!({"type": "client_tool_result", "invocationId": invocation_id});
    with_outcome(value, outcome)
}

fn with_outcome(mut value: Value, outcome: &ToolOutcome) -> Value {
    let more = match outcome {
        ToolOutcome::Result { result, reaction } => json!({
            "result": result, "responseType": "tool-response", "agentReaction": reaction.as_str()}),
        ToolOutcome::HangUp { result } => json!({"result": result, "responseType": "hang-up"}),
        ToolOutcome::NewStage { result } => json!({"result": result, "responseType": "new-stage"}),
        ToolOutcome::UnknownTool => json!({"errorType": "undefined"}),
        ToolOutcome::Failed { message } => {
            json!({"errorType": "implementation-error", "errorMessage": message})
        }
    };
    if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
        fields.extend(more);
    }
    value
}

/// The members of one message; every getter is tolerant of absence and of a wrong type.
struct Fields(Map<String, Value>);

impl Fields {
    /// `None` unless `text` is a JSON object with a textual `type`.
    fn parse(text: &str) -> Option<Fields> {
        let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        fields.get("type")?.is_string().then_some(Fields(fields))
    }

    fn type_name(&self) -> &str {
        self.0.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// The type's name for a log or a counter: short, without control characters.
    fn printable_type(&self) -> String {
        self.type_name().chars().filter(|c| !c.is_control()).take(TYPE_NAME_CHARS_MAX).collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn count(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// Counts messages of unknown types by name, with a bound on the names.
#[derive(Clone, Default, Debug)]
pub struct UnknownTypes {
    counts: BTreeMap<String, u64>,
    others: u64,
}

impl UnknownTypes {
    pub fn count(&mut self, type_name: &str) {
        if let Some(count) = self.counts.get_mut(type_name) {
            *count += 1;
        } else if self.counts.len() < UNKNOWN_NAMES_MAX {
            self.counts.insert(type_name.to_owned(), 1);
        } else {
            self.others += 1;
        }
    }

    /// Names with their counts, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// Messages whose names found no place.
    pub fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str, expected: ServerMessage) {
        assert_eq!(ServerMessage::parse(text), expected, "{text}");
    }

    fn unknown(name: &str) -> ServerMessage {
        ServerMessage::Unknown { type_name: name.into() }
    }

    #[test]
    fn server_messages_are_read() {
        server(
            r#"{"type":"call_started","callId":"c1"}"#,
            ServerMessage::CallStarted { call_id: Some("c1".into()) },
        );
        server(
            r#"{"type":"state","state":"speaking"}"#,
            ServerMessage::State(AgentState::Speaking),
        );
        server(r#"{"type":"state","state":"dreaming"}"#, ServerMessage::State(AgentState::Other));
        server(r#"{"type":"playback_clear_buffer","extra":1}"#, ServerMessage::PlaybackClearBuffer);
        server(r#"{"type":"pong","timestamp":12.5}"#, ServerMessage::Pong { timestamp: 12.5 });
        server(
            r#"{"type":"client_tool_invocation","toolName":"coldTransfer","invocationId":"i1","parameters":{"to":"x"}}"#,
            ServerMessage::ClientToolInvocation {
                tool_name: "coldTransfer".into(),
                invocation_id: "i1".into(),
                parameters: json!({"to": "x"}),
            },
        );
    }

    #[test]
    fn a_transcript_grows_by_delta_even_beside_an_empty_text() {
        let agent = |words, is_final| ServerMessage::Transcript {
            role: Role::Agent,
            medium: "voice".into(),
            words,
            is_final,
            ordinal: 2,
        };
        let head = r#"{"type":"transcript","role":"agent","medium":"voice","ordinal":2"#;
        server(
            &format!(r#"{head},"text":"Hi","final":false}}"#),
            agent(Words::Text("Hi".into()), false),
        );
        server(
            &format!(r#"{head},"text":"","delta":" there"}}"#),
            agent(Words::Delta(" there".into()), false),
        );
        server(
            &format!(r#"{head},"text":"Hi there","delta":null,"final":true}}"#),
            agent(Words::Text("Hi there".into()), true),
        );
        server(r#"{"type":"transcript","role":"narrator","text":"x"}"#, unknown("transcript"));
    }

    #[test]
    fn what_is_not_known_is_named_and_what_is_no_message_is_malformed() {
        server(r#"{"type":"user_started_speaking"}"#, unknown("user_started_speaking"));
        server(r#"{"type":"client_tool_invocation"}"#, unknown("client_tool_invocation"));
        server("{\"type\":\"a\\u0007b\"}", unknown("ab"));
        for text in ["", "null", "[]", "{}", r#"{"type":7}"#, "{", "\u{0}"] {
            server(text, ServerMessage::Malformed);
        }
        let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(500));
        server(&long, unknown(&"x".repeat(48)));
    }

    #[test]
    fn server_messages_read_back_as_they_were_written() {
        for message in [
            ServerMessage::CallStarted { call_id: Some("c".into()) },
            ServerMessage::State(AgentState::Thinking),
            ServerMessage::PlaybackClearBuffer,
            ServerMessage::Pong { timestamp: 0.25 },
            ServerMessage::Debug { message: "x\n\"".into() },
            ServerMessage::ClientToolInvocation {
                tool_name: "t".into(),
                invocation_id: "i".into(),
                parameters: json!({"a": [1]}),
            },
            ServerMessage::Transcript {
                role: Role::User,
                medium: "text".into(),
                words: Words::Delta("d".into()),
                is_final: true,
                ordinal: 9,
            },
            unknown("later_one"),
        ] {
            assert_eq!(ServerMessage::parse(&message.to_text()), message);
        }
    }

    #[test]
    fn client_messages_read_back_as_they_were_written_and_satisfy_the_schema() {
        let result =
            |outcome| ClientMessage::ClientToolResult { invocation_id: "i1".into(), outcome };
        for message in [
            ClientMessage::Ping { timestamp: 1.0 },
            ClientMessage::UserText { text: "12#".into(), urgency: Urgency::Immediate },
            ClientMessage::ForcedAgent {
                content: "Bye".into(),
                uninterruptible: true,
                urgency: Urgency::Later,
                tool: None,
            },
            ClientMessage::ForcedAgent {
                content: String::new(),
                uninterruptible: false,
                urgency: Urgency::Immediate,
                tool: Some(Box::new(KnownTool {
                    invocation_id: "k1".into(),
                    name: "warmTransfer".into(),
                    arguments: json!({"context": "Ada"}),
                    outcome: ToolOutcome::NewStage { result: r#"{"systemPrompt":"Hi"}"#.into() },
                })),
            },
            ClientMessage::HangUp { message: String::new() },
            ClientMessage::SetOutputMedium { medium: "text".into() },
            result(ToolOutcome::Result { result: "OK".into(), reaction: Reaction::SpeaksOnce }),
            result(ToolOutcome::HangUp { result: r#"{"strict":true}"#.into() }),
            result(ToolOutcome::NewStage { result: "{}".into() }),
            result(ToolOutcome::UnknownTool),
            result(ToolOutcome::Failed { message: "no route".into() }),
        ] {
            let text = message.to_text();
            assert_eq!(ClientMessage::parse(&text), message, "{text}");
            let value: Value = serde_json::from_str(&text).expect("we write JSON");
            assert_eq!(super::super::schema::check_client_message(&value), [], "{text}");
        }
    }

    #[test]
    fn absent_fields_of_a_client_message_take_their_documented_defaults() {
        assert_eq!(
            ClientMessage::parse(r#"{"type":"user_text_message","text":"1"}"#),
            ClientMessage::UserText { text: "1".into(), urgency: Urgency::Soon }
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type":"hang_up"}"#),
            ClientMessage::HangUp { message: String::new() }
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type":"user_text_message","text":"1","urgency":"now"}"#),
            ClientMessage::Unknown { type_name: "user_text_message".into() }
        );
        assert_eq!(ClientMessage::parse("no"), ClientMessage::Malformed);
    }

    #[test]
    fn unknown_types_are_counted_by_name_within_a_bound() {
        let mut unknown = UnknownTypes::default();
        for number in 0..UNKNOWN_NAMES_MAX + 5 {
            unknown.count(&format!("type{number:02}"));
        }
        unknown.count("type00");
        assert_eq!(unknown.iter().next(), Some(("type00", 2)));
        assert_eq!((unknown.iter().count(), unknown.others()), (UNKNOWN_NAMES_MAX, 5));
    }
}
