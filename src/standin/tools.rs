//! The tools of a call: those of its agent's template, or of its request, with the overrides of the
//! request. As strict as the service is known or must be thought to be: only a tool that is there is
//! removed, and no name stands twice.

use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The tools of a call with an agent. `Err`: the path of the member, and what is wrong.
pub fn of_agent(template: &[Value], request: &Value) -> Result<Vec<Value>, (String, String)> {
    let overrides = request.get("toolOverrides").cloned().unwrap_or_default();
    let list = |name: &str| overrides.get(name).and_then(Value::as_array).cloned();
    let remove_all = overrides.get("removeAll") == Some(&json!(true));
    let mut tools = if remove_all { Vec::new() } else { template.to_vec() };
    let remove = list("remove").unwrap_or_default();
    if remove_all && !remove.is_empty() {
        let words = "may not be given with removeAll".to_owned();
        return Err(("toolOverrides.remove".to_owned(), words));
    }
    for removed in remove.iter().filter_map(Value::as_str) {
        let before = tools.len();
        tools.retain(|tool| name(tool) != Some(removed));
        if tools.len() == before {
            let words = format!("the agent has no tool {removed}");
            return Err(("toolOverrides.remove".to_owned(), words));
        }
    }
    tools.extend(list("add").unwrap_or_default());
    checked(tools, "toolOverrides.add")
}

/// The tools of a call without an agent; `prior` are those of the call that it goes on with.
pub fn of_request(
    request: &Value,
    prior: Option<Vec<Value>>,
) -> Result<Vec<Value>, (String, String)> {
    let selected = request.get("selectedTools").and_then(Value::as_array).cloned();
    checked(selected.or(prior).unwrap_or_default(), "selectedTools")
}

fn checked(tools: Vec<Value>, path: &str) -> Result<Vec<Value>, (String, String)> {
    let mut names = BTreeSet::new();
    match tools.iter().filter_map(name).find(|name| !names.insert(*name)) {
        Some(twice) => Err((path.to_owned(), format!("there are two tools {twice}"))),
        None => Ok(tools),
    }
}

/// The model-facing name of a tool.
fn name(tool: &Value) -> Option<&str> {
    let own = || tool.pointer("/temporaryTool/modelToolName").or_else(|| tool.get("toolName"));
    tool.get("nameOverride").or_else(own).and_then(Value::as_str)
}

/// The names of those that the client answers.
pub fn of_client(tools: &[Value]) -> BTreeSet<String> {
    let client = tools.iter().filter(|tool| tool.pointer("/temporaryTool/client").is_some());
    client.filter_map(name).map(str::to_owned).collect()
}

/// As `GET …/tools` tells them: CallTool.
pub fn call_tools(tools: &[Value]) -> Value {
    let tool = |(index, tool): (usize, &Value)| {
        let mut definition = tool.get("temporaryTool").cloned().unwrap_or_else(|| json!({}));
        if let Some(members) = definition.as_object_mut() {
            members.remove("modelToolName");
        }
        json!({
            "callToolId": format!("00000000-0000-4000-8000-{index:012}"),
            "toolId": tool.get("toolId").cloned().unwrap_or_default(),
            "name": name(tool),
            "definition": definition,
        })
    };
    Value::Array(tools.iter().enumerate().map(tool).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Value {
        json!({"temporaryTool": {"modelToolName": name, "description": "d", "client": {}}})
    }

    #[test]
    fn overrides_remove_what_is_there_and_add_what_is_not() {
        let template = [json!({"toolName": "hangUp"}), json!({"toolName": "coldTransfer"})];
        let tools = |overrides: Value| of_agent(&template, &json!({"toolOverrides": overrides}));
        let replaced = tools(json!({"remove": ["coldTransfer"], "add": [client("coldTransfer")]}));
        let replaced = replaced.expect("it fits");
        assert_eq!(replaced, [json!({"toolName": "hangUp"}), client("coldTransfer")]);
        assert_eq!(of_client(&replaced), ["coldTransfer".to_owned()].into());
        for overrides in [
            json!({"remove": ["warmTransfer"]}),
            json!({"add": [client("coldTransfer")]}),
            json!({"removeAll": true, "remove": ["hangUp"]}),
        ] {
            assert!(tools(overrides.clone()).is_err(), "{overrides}");
        }
        let none: [Value; 0] = [];
        assert_eq!(tools(json!({"removeAll": true})).as_deref(), Ok(&none[..]));
    }

    #[test]
    fn a_call_that_goes_on_keeps_its_tools_unless_it_names_others() {
        let prior = || Some(vec![client("a")]);
        assert_eq!(of_request(&json!({}), prior()), Ok(vec![client("a")]));
        let own = json!({"selectedTools": [client("b")]});
        assert_eq!(of_request(&own, prior()), Ok(vec![client("b")]));
        assert!(of_request(&json!({"selectedTools": [client("b"), client("b")]}), None).is_err());
    }

    #[test]
    fn tools_are_told_as_call_tools() {
        let told = call_tools(&[json!({"toolId": "t", "nameOverride": "x"}), client("y")]);
        assert_eq!((&told[0]["toolId"], &told[0]["name"]), (&json!("t"), &json!("x")));
        let definition = json!({"description": "d", "client": {}});
        assert_eq!((&told[1]["toolId"], &told[1]["definition"]), (&Value::Null, &definition));
    }
}
