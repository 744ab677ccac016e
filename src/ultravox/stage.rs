//! Call stages: what `GET /api/calls/{call_id}/stages` and `…/stages/{id}/tools` tell of the present
//! one, and the result that begins another (`responseType: new-stage`). A stage keeps what it does not
//! name from the one before; prompt and tools are named here, so that they can be put back.

use super::CallId;
use serde_json::{Map, Value, json};

/// Stages and tools that are looked at.
const ITEMS_MAX: usize = 256;

/// The prompt and the tools of a stage.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    pub system_prompt: String,
    /// As `selectedTools` of a new stage.
    pub tools: Vec<Value>,
}

/// The answer tells of no stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoStage;

impl Stage {
    /// The id of the last stage and its prompt, from the list of a call's stages.
    ///
    /// # Errors
    /// [`NoStage`].
    pub fn last(stages: &[u8]) -> Result<(CallId, String), NoStage> {
        let stages: Value = serde_json::from_slice(stages).map_err(|_| NoStage)?;
        let stages = stages.get("results").and_then(Value::as_array).ok_or(NoStage)?;
        let created = |stage: &&Value| {
            stage.get("created").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        // The order of the list is not stated.
        let last = stages.iter().take(ITEMS_MAX).max_by_key(created).ok_or(NoStage)?;
        let id = last.get("callStageId").and_then(Value::as_str).and_then(CallId::parse);
        let prompt = last.get("systemPrompt").and_then(Value::as_str).unwrap_or_default();
        Ok((id.ok_or(NoStage)?, prompt.to_owned()))
    }

    /// A stage of this prompt with the tools of the list of its tools.
    ///
    /// # Errors
    /// [`NoStage`].
    pub fn with_tools(system_prompt: String, tools: &[u8]) -> Result<Stage, NoStage> {
        let tools: Vec<Value> = serde_json::from_slice(tools).map_err(|_| NoStage)?;
        let tools = tools.iter().take(ITEMS_MAX).filter_map(selected).collect();
        Ok(Stage { system_prompt, tools })
    }

    /// `result` of the tool result that begins this stage; `words` are what the model reads as the
    /// tool's own result.
    pub fn result(&self, words: &str) -> String {
        json!({"systemPrompt": self.system_prompt, "selectedTools": self.tools,
            "toolResultText": words})
        .to_string()
    }
}

/// The SelectedTool of a CallTool: by its id where it has one, else with its definition.
fn selected(tool: &Value) -> Option<Value> {
    let name = tool.get("name").and_then(Value::as_str)?;
    if let Some(id) = tool.get("toolId").and_then(Value::as_str) {
        return Some(json!({"toolId": id, "nameOverride": name}));
    }
    let definition = tool.get("definition").and_then(Value::as_object)?;
    let mut temporary: Map<String, Value> =
        definition.iter().filter(|(_, value)| !value.is_null()).map(clone_member).collect();
    temporary.insert("modelToolName".into(), name.into());
    Some(json!({ "temporaryTool": temporary }))
}

fn clone_member((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_is_the_one_that_was_made_last() {
        let stages = json!({"results": [
            {"callStageId": "s-2", "created": "2026-11-21T10:05:00Z", "systemPrompt": "second"},
            {"callStageId": "s-1", "created": "2026-11-21T10:00:00Z", "systemPrompt": "first"}]});
        let last = Stage::last(stages.to_string().as_bytes());
        let id = CallId::parse("s-2").expect("an id");
        assert_eq!(last, Ok((id, "second".into())));
        for body in ["", "[]", r#"{"results":[]}"#, r#"{"results":[{"callStageId":"../x"}]}"#] {
            assert_eq!(Stage::last(body.as_bytes()), Err(NoStage), "{body}");
        }
    }

    #[test]
    fn tools_are_put_back_by_id_or_by_their_definition() {
        let tools = json!([
            {"callToolId": "x", "toolId": "t-1", "name": "look_up", "definition": {"http": {}}},
            {"callToolId": "y", "toolId": null, "name": "coldTransfer", "definition":
                {"description": "d", "dynamicParameters": [], "http": null, "client": {}}},
            {"callToolId": "z"}]);
        let stage = Stage::with_tools("Hi".into(), tools.to_string().as_bytes()).expect("a stage");
        let cold = json!({"temporaryTool": {"modelToolName": "coldTransfer", "description": "d",
            "dynamicParameters": [], "client": {}}});
        assert_eq!(stage.tools, [json!({"toolId": "t-1", "nameOverride": "look_up"}), cold]);
        let result: Value = serde_json::from_str(&stage.result("OK")).expect("JSON");
        assert_eq!(
            (&result["systemPrompt"], &result["toolResultText"]),
            (&json!("Hi"), &json!("OK"))
        );
        assert_eq!(Stage::with_tools(String::new(), b"{}"), Err(NoStage));
    }
}
