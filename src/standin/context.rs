//! The agents' context schemas: the part of JSON Schema that they use (`type`, `properties`,
//! `required`, `additionalProperties`, `enum`). Keywords beyond these are ignored.

use serde_json::Value;

/// Nesting that is followed.
const DEPTH_MAX: usize = 16;

/// Paths and words of everything in `context` that `schema` does not allow.
pub fn check(schema: &Value, context: &Value) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    check_at(schema, context, "templateContext", 0, &mut problems);
    problems
}

fn check_at(
    schema: &Value,
    value: &Value,
    path: &str,
    depth: usize,
    out: &mut Vec<(String, String)>,
) {
    if depth > DEPTH_MAX {
        return;
    }
    let mut wrong = |path: &str, what: String| out.push((path.to_owned(), what));
    if let Some(name) = schema.get("type").and_then(Value::as_str)
        && !is_of_type(value, name)
    {
        return wrong(path, format!("must be of type {name}"));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        wrong(path, "is not one of the allowed values".into());
    }
    let Some(members) = value.as_object() else { return };
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = name.as_str().filter(|name| !members.contains_key(*name)) {
            wrong(&format!("{path}.{name}"), "is required".into());
        }
    }
    for (name, member) in members {
        let path = format!("{path}.{name}");
        let own = schema.get("properties").and_then(|properties| properties.get(name));
        match (own, schema.get("additionalProperties")) {
            (Some(own), _) => check_at(own, member, &path, depth + 1, out),
            (None, Some(Value::Bool(false))) => out.push((path, "is not allowed".into())),
            (None, Some(rest)) => check_at(rest, member, &path, depth + 1, out),
            (None, None) => {}
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{STRICT, built_in};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_strict_agent_takes_what_it_names_and_nothing_else() {
        let strict =
            built_in().into_iter().find(|agent| agent.agent_id == STRICT).expect("built in");
        let schema = strict.context_schema.expect("it has one");
        let paths = |context| {
            check(&schema, &context).into_iter().map(|(path, _)| path).collect::<Vec<_>>()
        };
        let none: Vec<String> = vec![];
        assert_eq!(paths(json!({})), none);
        assert_eq!(
            paths(json!({"customer_name": "Ada", "ultravox": {"sip": {"caller_id": "1"}}})),
            none
        );
        assert_eq!(
            paths(
                json!({"customer_name": 5, "x": 1, "ultravox": {"sip": {"from_uri": "sip:a@b"}}})
            ),
            [
                "templateContext.customer_name",
                "templateContext.x",
                "templateContext.ultravox.sip.from_uri"
            ]
        );
    }

    #[test]
    fn required_members_enumerations_and_open_members_are_checked() {
        let schema = json!({"required": ["a"], "properties": {"b": {"enum": [1, 2]}},
            "additionalProperties": {"type": "integer"}});
        let rows = [
            (json!({"a": 1, "b": 2}), 0),
            (json!({"b": 2}), 1),
            (json!({"a": 1, "b": 3}), 1),
            (json!({"a": "x"}), 1),
            (json!({"a": 1, "z": 1.5}), 1),
        ];
        for (context, problems) in rows {
            assert_eq!(check(&schema, &context).len(), problems, "{context}");
        }
    }
}
