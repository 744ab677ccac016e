//! What an agent of the stand-in does in a call: a list of steps, as a value or as JSON. The agents
//! that come with the stand-in are scripts too; their ids are fixed and documented in `standin`.

use super::sound::Sound;
use crate::ultravox::data_message::AgentState;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One step. The next one begins when this one is done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    Wait {
        ms: u64,
    },
    /// Until so many milliseconds of the caller's audio have come since the join.
    AwaitAudio {
        ms: u64,
    },
    /// Until the caller speaks (60 ms above the level of a line).
    AwaitVoice,
    /// Until a data message of this `type` comes.
    AwaitMessage {
        name: String,
    },
    /// Until a `user_text_message` with this in its text comes: keys of the caller.
    AwaitText {
        text: String,
    },
    /// Calls a client tool. One that the call does not have is passed over.
    InvokeTool {
        tool: String,
        #[serde(default)]
        parameters: Value,
    },
    /// Until the last tool that was called has its result.
    AwaitResult,
    /// Until the client must have played everything that was sent.
    AwaitPlayed,
    /// Sends a sound; done when the last of it is on the wire, which may be ahead of real time.
    Say {
        sound: Sound,
    },
    /// A `state` message.
    State {
        state: StateName,
    },
    /// A final agent `transcript`.
    Transcript {
        text: String,
    },
    /// Any JSON as a text frame.
    Send {
        message: Value,
    },
    /// Any text as a text frame: garbage.
    SendRaw {
        text: String,
    },
    /// A binary frame of so many zero bytes, at once: odd, empty or larger than is allowed.
    SendBytes {
        bytes: usize,
    },
    /// `playback_clear_buffer`.
    ClearBuffer,
    /// A WebSocket close frame.
    Close {
        code: u16,
    },
    /// The connection ends without a close frame.
    Drop,
    /// Goes back to the first step.
    Repeat,
}

/// The names of `state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    Idle,
    Listening,
    Thinking,
    Speaking,
}

impl StateName {
    pub fn state(self) -> AgentState {
        match self {
            StateName::Idle => AgentState::Idle,
            StateName::Listening => AgentState::Listening,
            StateName::Thinking => AgentState::Thinking,
            StateName::Speaking => AgentState::Speaking,
        }
    }
}

/// An agent of the stand-in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentScript {
    /// A UUID.
    pub agent_id: String,
    pub name: String,
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Sends the caller's audio back.
    #[serde(default)]
    pub echo: bool,
    /// Stops talking, with `playback_clear_buffer`, when the caller speaks.
    #[serde(default)]
    pub interruptible: bool,
    /// JSON Schema that a call's template context must satisfy.
    #[serde(default)]
    pub context_schema: Option<Value>,
    /// `selectedTools` of its template.
    #[serde(default)]
    pub tools: Vec<Value>,
}

pub const ECHO: &str = "00000000-0000-4000-8000-0000000000e0";
pub const TONE: &str = "00000000-0000-4000-8000-0000000000a0";
pub const SPEECH: &str = "00000000-0000-4000-8000-0000000000b0";
pub const SILENT: &str = "00000000-0000-4000-8000-0000000000c0";
pub const FAREWELL: &str = "00000000-0000-4000-8000-0000000000d0";
pub const BARGE_IN: &str = "00000000-0000-4000-8000-0000000000b1";
pub const STRICT: &str = "00000000-0000-4000-8000-0000000000f0";
pub const TRANSFER: &str = "00000000-0000-4000-8000-0000000000f1";

/// The agents that every stand-in has.
pub fn built_in() -> Vec<AgentScript> {
    let agent = |agent_id: &str, name: &str, steps: Vec<Step>| AgentScript {
        agent_id: agent_id.into(),
        name: name.into(),
        steps,
        echo: false,
        interruptible: false,
        context_schema: None,
        tools: Vec::new(),
    };
    let close = Step::Close { code: 1000 };
    vec![
        AgentScript { echo: true, ..agent(ECHO, "echo", vec![]) },
        agent(TONE, "tone", vec![Step::Say { sound: Sound::Tone }, Step::Repeat]),
        agent(SPEECH, "speech", speaks()),
        agent(SILENT, "silent", vec![]),
        agent(FAREWELL, "farewell", [speaks(), vec![close]].concat()),
        AgentScript {
            interruptible: true,
            ..agent(BARGE_IN, "barge_in", [speaks(), vec![Step::AwaitVoice, Step::Repeat]].concat())
        },
        AgentScript {
            context_schema: Some(json!({
                "type": "object",
                "properties": {
                    "customer_name": {"type": "string"},
                    "ultravox": {"type": "object", "additionalProperties": false, "properties": {
                        "sip": {"type": "object", "additionalProperties": false, "properties": {
                            "caller_id": {"type": "string"}}}}},
                },
                "additionalProperties": false,
            })),
            ..agent(STRICT, "strict", speaks())
        },
        AgentScript {
            tools: [("coldTransfer", "0"), ("warmTransfer", "1")]
                .map(|(name, user)| {
                    let target = format!("sip:{user}@127.0.0.1");
                    json!({"toolName": name, "parameterOverrides": {"target": target}})
                })
                .into_iter()
                .chain([json!({"toolName": "hangUp"}), json!({"toolName": "playDtmfSounds"})])
                .collect(),
            ..agent(TRANSFER, "transfer", [speaks(), transfers()].concat())
        },
    ]
}

fn speaks() -> Vec<Step> {
    vec![
        Step::State { state: StateName::Speaking },
        Step::Transcript { text: "(the bundled sentence)".into() },
        Step::Say { sound: Sound::Sentence },
        Step::AwaitPlayed,
        Step::State { state: StateName::Listening },
    ]
}

/// The caller presses 0.
fn transfers() -> Vec<Step> {
    let tool = "coldTransfer".to_owned();
    vec![
        Step::AwaitText { text: "0".into() },
        Step::InvokeTool { tool, parameters: json!({}) },
        Step::AwaitResult,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ultravox::schema::is_uuid;

    #[test]
    fn built_in_agents_have_distinct_uuids_and_names() {
        let agents = built_in();
        assert!(agents.iter().all(|agent| is_uuid(&agent.agent_id)));
        for (index, agent) in agents.iter().enumerate() {
            assert!(
                agents[..index]
                    .iter()
                    .all(|other| other.agent_id != agent.agent_id && other.name != agent.name)
            );
        }
    }

    #[test]
    fn a_script_reads_from_json_and_back() {
        let text = r#"{"agentId":"00000000-0000-4000-8000-000000000001","name":"x","interruptible":true,"steps":[
            {"do":"wait","ms":5},{"do":"say","sound":"tone"},{"do":"state","state":"thinking"},
            {"do":"send","message":{"type":"future"}},{"do":"send_bytes","bytes":3},{"do":"clear_buffer"},
            {"do":"await_message","name":"hang_up"},{"do":"close","code":4598}]}"#;
        let agent: AgentScript = serde_json::from_str(text).expect("a script");
        assert_eq!(agent.steps.len(), 8);
        assert_eq!(agent.steps[7], Step::Close { code: 4598 });
        let again = serde_json::to_string(&agent).expect("JSON");
        assert_eq!(serde_json::from_str::<AgentScript>(&again).expect("the same"), agent);
        assert!(serde_json::from_str::<Step>(r#"{"do":"wait","s":5}"#).is_err());
        assert!(serde_json::from_str::<Step>(r#"{"do":"sing"}"#).is_err());
    }
}
