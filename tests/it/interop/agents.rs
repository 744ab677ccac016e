//! Agents that use their telephone tools, and a daemon that calls them: what one was told is asked of
//! the stand-in.

use super::rig::{DEADLINE, Edge, Start};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use voxedge::ground::{Entropy, Secret};
use voxedge::standin::script::{SPEECH, Step};
use voxedge::standin::sound::Sound;
use voxedge::standin::{AgentScript, FaultRule, Observed, Standin, StandinOptions};
use voxedge::ultravox::tool::ACCEPT;

/// The agent that has a tool, as a user of the daemon.
pub const AGENT: &str = "agent_00000000-0000-4000-8000-000000000901";

/// The words with which every failure begins but that of an operator who declines.
pub const FAILED: &str = "transfer failed";

/// The stand-in with its runtime.
pub struct Agents {
    // Before the runtime on which it lives.
    standin: Standin,
    runtime: Runtime,
}

impl Agents {
    pub fn start(agents: Vec<AgentScript>) -> Agents {
        Agents::start_with(agents, Vec::new())
    }

    pub fn start_with(agents: Vec<AgentScript>, faults: Vec<FaultRule>) -> Agents {
        let runtime = Runtime::new().expect("a runtime");
        let options = StandinOptions {
            agents,
            faults,
            tls: true,
            ..StandinOptions::local(Secret::new("interop"), Entropy::from_number(9))
        };
        let standin = runtime.block_on(Standin::start(options));
        Agents { standin: standin.expect("loopback has free ports"), runtime }
    }

    /// A daemon that may call this port, with more sections of its configuration.
    pub fn edge(&self, target: u16, more: &str) -> Edge {
        self.edge_for(&format!("127.0.0.1:{target}"), more)
    }

    /// The same with an address.
    pub fn edge_for(&self, target: &str, more: &str) -> Edge {
        let more = format!("[outgoing]\nallowed_hosts = [\"{target}\"]\n{more}");
        let (base_url, root) = (self.standin.base_url(), self.standin.root_certificate());
        Edge::start_so(&Start { base_url, root, more: &more, ..Start::default() })
    }

    /// What was seen of the calls once it is as wanted.
    pub fn seen_when(&self, wanted: impl Fn(&[Observed]) -> bool) -> Vec<Observed> {
        self.runtime.block_on(async {
            let seen = tokio::time::timeout(DEADLINE, self.standin.wait_until(&wanted)).await;
            seen.unwrap_or_else(|_| panic!("never so: {:#?}", self.standin.observed()))
        })
    }

    /// What the first call's agent was told as messages of the user's side.
    pub fn told(&self) -> Vec<String> {
        let seen = self.seen_when(|seen| !seen.is_empty());
        texts(&seen[0], "user_text_message", "text")
    }
}

/// One member of the data messages of a type that an agent was sent.
pub fn texts(call: &Observed, type_name: &str, member: &str) -> Vec<String> {
    let values = call.texts.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let values = values.filter(|value| value["type"] == type_name);
    values.map(|value| value[member].as_str().unwrap_or_default().to_owned()).collect()
}

/// An agent with one telephone tool, which it uses as these steps say.
pub fn agent(tool: Value, steps: Vec<Step>) -> AgentScript {
    AgentScript {
        agent_id: AGENT.trim_start_matches("agent_").to_owned(),
        name: "passes on".to_owned(),
        steps,
        echo: false,
        interruptible: false,
        context_schema: None,
        tools: vec![tool],
    }
}

/// A tool that passes the caller on to this port; `how` are more of its fixed parameters.
pub fn tool(name: &str, target: u16, how: Value) -> Value {
    tool_to(name, &format!("127.0.0.1:{target}"), how)
}

/// The same to an address.
pub fn tool_to(name: &str, target: &str, how: Value) -> Value {
    let mut fixed = json!({"target": format!("sip:sales@{target}")});
    let (Some(members), Value::Object(how)) = (fixed.as_object_mut(), how) else {
        panic!("parameters are an object")
    };
    members.extend(how);
    json!({"toolName": name, "parameterOverrides": fixed})
}

pub fn invoke(tool: &str, parameters: Value) -> Vec<Step> {
    vec![Step::InvokeTool { tool: tool.to_owned(), parameters }, Step::AwaitResult]
}

/// Uses the tool after a moment, when the ACK must be there: SIPp, which sends it, takes nothing
/// before. When it hears that the caller is back it says its tone and hangs up.
pub fn uses(tool: &str, parameters: Value, failed: &str) -> Vec<Step> {
    let back = [
        Step::AwaitText { text: failed.to_owned() },
        Step::Say { sound: Sound::Tone },
        Step::AwaitPlayed,
        Step::Close { code: 1000 },
    ];
    let moment = vec![Step::Wait { ms: 500 }];
    [moment, invoke(tool, parameters), back.to_vec()].concat()
}

/// The agent that briefs the operator: the stand-in's for calls without an agent of their own.
pub fn briefer(steps: Vec<Step>) -> AgentScript {
    AgentScript {
        agent_id: SPEECH.to_owned(),
        name: "briefs".to_owned(),
        tools: Vec::new(),
        ..agent(Value::Null, steps)
    }
}

/// Its operator takes every call, after a moment.
pub fn accepts() -> AgentScript {
    briefer([vec![Step::Wait { ms: 300 }], invoke(ACCEPT, json!({}))].concat())
}
