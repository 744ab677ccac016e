//! The agent as `GET /api/agents/{agent_id}` tells it: which revision is published, which context it
//! takes, which tools it has. Everything else of the answer is ignored.

use super::tool::AgentTool;
use serde_json::Value;

/// Tools of one agent that are looked at.
const TOOLS_MAX: usize = 256;

/// What the edge needs to know of an agent.
#[derive(Clone, PartialEq, Debug)]
pub struct Agent {
    pub agent_id: String,
    /// Changes when the agent does: what was remembered of it is then out of date.
    pub published_revision_id: Option<String>,
    /// JSON Schema of the template context; creation of a call must satisfy it. `None`: not stated.
    pub context_schema: Option<Value>,
    /// The agent's tools, `selectedTools`.
    pub tools: Vec<AgentTool>,
}

/// The answer is not an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAnAgent;

impl Agent {
    /// Reads the answer's body. Only `agentId` must be there.
    pub fn parse(body: &[u8]) -> Result<Agent, NotAnAgent> {
        let value: Value = serde_json::from_slice(body).map_err(|_| NotAnAgent)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let template = value.get("callTemplate");
        let schema = template.and_then(|template| template.get("contextSchema"));
        Ok(Agent {
            agent_id: text("agentId").ok_or(NotAnAgent)?,
            published_revision_id: text("publishedRevisionId"),
            context_schema: schema.filter(|schema| schema.is_object()).cloned(),
            tools: template.map(tools).unwrap_or_default(),
        })
    }
}

fn tools(template: &Value) -> Vec<AgentTool> {
    let tools = template.get("selectedTools").and_then(Value::as_array);
    tools.into_iter().flatten().take(TOOLS_MAX).map(AgentTool::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_agent_is_read_with_its_schema_and_its_tools() {
        let body = json!({"agentId": "a1", "publishedRevisionId": "r7", "statistics": {"calls": 3},
            "callTemplate": {"contextSchema": {"type": "object"}, "selectedTools": [
                {"toolName": "hangUp"}, {"toolId": "x", "nameOverride": "coldTransfer"},
                {"temporaryTool": {"modelToolName": "look_up"}}, {"toolId": "nameless"}]}});
        let agent = Agent::parse(body.to_string().as_bytes()).expect("an agent");
        assert_eq!(
            (agent.agent_id.as_str(), agent.published_revision_id.as_deref(), agent.context_schema),
            ("a1", Some("r7"), Some(json!({"type": "object"})))
        );
        let names: Vec<_> = agent.tools.iter().map(|tool| tool.name.as_deref()).collect();
        assert_eq!(names, [Some("hangUp"), Some("coldTransfer"), Some("look_up"), None]);
    }

    #[test]
    fn a_bare_agent_is_enough_and_anything_else_is_none() {
        let agent =
            Agent::parse(br#"{"agentId":"a1","publishedRevisionId":null,"callTemplate":null}"#);
        let agent = agent.expect("only agentId is needed");
        assert_eq!(
            (agent.published_revision_id, agent.context_schema, agent.tools.len()),
            (None, None, 0)
        );
        for body in [&b"{}"[..], b"[]", b"", br#"{"agentId":5}"#] {
            assert_eq!(Agent::parse(body), Err(NotAnAgent));
        }
    }
}
