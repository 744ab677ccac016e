//! Whether an agent's `contextSchema` (JSON Schema) lets a value in at a path. A strict agent
//! refuses a call for one value too many, so what cannot be told is left out. Read: `properties`,
//! `patternProperties`, `additionalProperties`, `unevaluatedProperties`, `propertyNames`, `type`,
//! `enum`, `const`, `minLength`, `maxLength`, `pattern`, local `$ref`, `allOf`, `anyOf`, `oneOf`,
//! and `not`, `if`, `dependentRequired`, `dependentSchemas`, `dependencies` as far as the value
//! cannot change what they say. `maxProperties` lets nothing in.

use crate::account::Pattern;
use serde_json::{Map, Value};

/// Schemas that one question may look at: references and combinations could multiply them.
const STEPS_MAX: u32 = 2_000;

/// Words of which a schema has at least one; an object of schemas by stage has none.
const SCHEMA_WORDS: [&str; 22] = [
    "$schema",
    "$ref",
    "$defs",
    "definitions",
    "type",
    "properties",
    "patternProperties",
    "required",
    "additionalProperties",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "description",
    "not",
    "if",
    "enum",
    "const",
    "title",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
];

/// Whether `text` may stand at `path`. A map of schemas, one for each stage of the agent, must
/// permit it in every stage.
pub(super) fn permits(schema: &Value, path: &[&str], text: &str) -> bool {
    let is_schema =
        |map: &Map<String, Value>| SCHEMA_WORDS.iter().any(|word| map.contains_key(*word));
    match schema {
        Value::Object(map) if !is_schema(map) && map.values().all(Value::is_object) => {
            map.values().all(|stage| permits_one(stage, path, text))
        }
        _ => permits_one(schema, path, text),
    }
}

fn permits_one(root: &Value, path: &[&str], text: &str) -> bool {
    let mut question = Question { root, text, path_len: path.len(), steps: STEPS_MAX };
    question.permits(root, path)
}

struct Question<'a> {
    root: &'a Value,
    text: &'a str,
    /// Of the whole path: as long as this, a path begins at the top.
    path_len: usize,
    steps: u32,
}

impl<'a> Question<'a> {
    fn permits(&mut self, schema: &'a Value, path: &[&str]) -> bool {
        let Some(left) = self.steps.checked_sub(1) else { return false };
        self.steps = left;
        let map = match schema {
            Value::Object(map) => map,
            Value::Bool(answer) => return *answer,
            _ => return false,
        };
        self.permits_combined(map, path)
            && self.permits_conditions(map, path)
            && match path.split_first() {
                None => permits_text(map, self.text),
                Some((key, rest)) => self.permits_property(map, key, rest),
            }
    }

    /// `$ref` and the combining words.
    fn permits_combined(&mut self, map: &'a Map<String, Value>, path: &[&str]) -> bool {
        if let Some(reference) = map.get("$ref") {
            match self.resolve(reference) {
                Some(target) if self.permits(target, path) => {}
                _ => return false,
            }
        }
        if !list(map, "allOf").iter().all(|schema| self.permits(schema, path)) {
            return false;
        }
        // At the top other values stand beside ours, and which choice they fit is not known here.
        let is_ours = path.len() < self.path_len;
        ["anyOf", "oneOf"].into_iter().all(|word| {
            let choices = list(map, word);
            let is_open = |schema: &Value| {
                schema == &Value::Bool(true) || schema.as_object().is_some_and(Map::is_empty)
            };
            let mut permits = |schema| self.permits(schema, path);
            match is_ours || choices.iter().any(is_open) {
                true => choices.is_empty() || choices.iter().any(&mut permits),
                false => choices.iter().all(&mut permits),
            }
        })
    }

    /// The words that look at what stands beside the value, or turn an answer round: whatever they
    /// say without the value, they must say with it.
    fn permits_conditions(&mut self, map: &'a Map<String, Value>, path: &[&str]) -> bool {
        if let Some(denied) = map.get("not") {
            let is_free = match path.first() {
                Some(key) => is_blind_to(denied, key),
                None => is_of_text(denied).is_some_and(|denied| !permits_text(denied, self.text)),
            };
            if !is_free {
                return false;
            }
        }
        if let Some(condition) = map.get("if") {
            let is_free = path.first().is_some_and(|key| is_blind_to(condition, key));
            let branches = ["then", "else"].into_iter().filter_map(|word| map.get(word));
            if !is_free || !branches.into_iter().all(|schema| self.permits(schema, path)) {
                return false;
            }
        }
        let Some(key) = path.first() else { return true };
        let depends = |word: &str| map.get(word).is_some_and(|all| all.get(key).is_some());
        !map.contains_key("maxProperties")
            && !["dependentRequired", "dependentSchemas", "dependencies"].into_iter().any(depends)
    }

    fn permits_property(&mut self, map: &'a Map<String, Value>, key: &str, rest: &[&str]) -> bool {
        let names = map.get("propertyNames").and_then(Value::as_object);
        if !has_type(map, "object") || names.is_some_and(|names| !permits_text(names, key)) {
            return false;
        }
        let own = own_schemas(map, key);
        if !own.is_empty() {
            return own.into_iter().all(|schema| self.permits(schema, rest));
        }
        if let Some(additional) = map.get("additionalProperties") {
            return self.permits(additional, rest);
        }
        match map.get("unevaluatedProperties") {
            Some(unevaluated) => self.declares_below(map, key) || self.permits(unevaluated, rest),
            None => true,
        }
    }

    /// Whether a schema that `map` refers to or combines declares the property.
    fn declares_below(&mut self, map: &'a Map<String, Value>, key: &str) -> bool {
        let Some(left) = self.steps.checked_sub(1) else { return false };
        self.steps = left;
        let reference = map.get("$ref").and_then(|reference| self.resolve(reference));
        let combined = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|word| list(map, word));
        let below: Vec<&Value> = reference.into_iter().chain(combined).collect();
        below.into_iter().filter_map(Value::as_object).any(|map| {
            !own_schemas(map, key).is_empty()
                || map.contains_key("additionalProperties")
                || self.declares_below(map, key)
        })
    }

    /// A reference inside this schema, such as `#/$defs/sip`.
    fn resolve(&self, reference: &Value) -> Option<&'a Value> {
        self.root.pointer(reference.as_str()?.strip_prefix('#')?)
    }
}

/// Whether a schema gives the same answer with and without the property: it names it nowhere, and
/// has only words that name what they look at.
fn is_blind_to(schema: &Value, key: &str) -> bool {
    let map = match schema {
        Value::Object(map) => map,
        other => return other.is_boolean(),
    };
    map.iter().all(|(word, value)| match word.as_str() {
        "type" | "title" | "description" | "$comment" => true,
        "properties" => value.get(key).is_none(),
        "required" => value.as_array().is_some_and(|names| !names.iter().any(|name| name == key)),
        _ => false,
    })
}

/// A schema of none but the words that `permits_text` reads.
fn is_of_text(schema: &Value) -> Option<&Map<String, Value>> {
    let known = ["type", "const", "enum", "minLength", "maxLength", "pattern"];
    schema.as_object().filter(|map| map.keys().all(|word| known.contains(&word.as_str())))
}

/// What `properties` and `patternProperties` say of the property.
fn own_schemas<'a>(map: &'a Map<String, Value>, key: &str) -> Vec<&'a Value> {
    let named = map.get("properties").and_then(|properties| properties.get(key));
    let patterns = map.get("patternProperties").and_then(Value::as_object);
    let matching = patterns.into_iter().flatten().filter(|(pattern, _)| {
        Pattern::compile(pattern).is_ok_and(|pattern| pattern.is_match(key))
    });
    named.into_iter().chain(matching.map(|(_, schema)| schema)).collect()
}

/// Whether the text is of the type, among the values, within the lengths and of the pattern.
fn permits_text(map: &Map<String, Value>, text: &str) -> bool {
    let is_text = |value: &Value| value.as_str() == Some(text);
    let length = text.chars().count() as u64;
    let bound = |word: &str| map.get(word).and_then(Value::as_u64);
    let pattern = map.get("pattern").and_then(Value::as_str);
    has_type(map, "string")
        && map.get("const").is_none_or(is_text)
        && map
            .get("enum")
            .is_none_or(|values| values.as_array().is_some_and(|all| all.iter().any(is_text)))
        && bound("minLength").is_none_or(|least| length >= least)
        && bound("maxLength").is_none_or(|most| length <= most)
        && pattern
            .is_none_or(|pattern| Pattern::compile(pattern).is_ok_and(|found| found.is_match(text)))
}

fn has_type(map: &Map<String, Value>, wanted: &str) -> bool {
    match map.get("type") {
        None => true,
        Some(Value::Array(types)) => types.iter().any(|one| one.as_str() == Some(wanted)),
        Some(one) => one.as_str() == Some(wanted),
    }
}

fn list<'a>(map: &'a Map<String, Value>, word: &str) -> &'a [Value] {
    map.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Which of `ultravox.sip.caller_id` and `ultravox.sip.from_uri` the schema lets in.
    fn check(schema: Value, caller_id: bool, from_uri: bool) {
        let ask = |name, text| permits(&schema, &["ultravox", "sip", name], text);
        let have = (ask("caller_id", "+12025550100"), ask("from_uri", "sip:a@b"));
        assert_eq!(have, (caller_id, from_uri), "{schema}");
    }

    fn nested(sip: Value) -> Value {
        json!({"type": "object", "properties": {"ultravox": {"properties": {"sip": sip}}}})
    }

    #[test]
    fn open_schemas_let_everything_in() {
        check(json!({}), true, true);
        check(json!(true), true, true);
        check(json!({"type": "object", "properties": {"name": {"type": "string"}}}), true, true);
        check(json!({"type": "object", "additionalProperties": true}), true, true);
        check(nested(json!({"type": "object"})), true, true);
        check(nested(json!({"additionalProperties": {"type": "string"}})), true, true);
    }

    #[test]
    fn closed_schemas_let_in_what_they_declare() {
        check(json!(false), false, false);
        check(json!({"type": "object", "additionalProperties": false}), false, false);
        check(json!({"properties": {"ultravox": false}}), false, false);
        check(json!({"properties": {"ultravox": {"type": "string"}}}), false, false);
        check(json!({"properties": {"ultravox": {}}, "additionalProperties": false}), true, true);
        let ultravox = json!({"properties": {"ultravox": {"additionalProperties": false}}});
        check(ultravox, false, false);
        let caller = json!({"caller_id": {"type": "string"}});
        check(nested(json!({"properties": caller, "additionalProperties": false})), true, false);
        check(nested(json!({"properties": caller})), true, true);
        check(nested(json!({"additionalProperties": {"type": "number"}})), false, false);
    }

    #[test]
    fn leaves_are_judged_by_their_value() {
        let leaf = |leaf: Value| nested(json!({"properties": {"caller_id": leaf}}));
        check(leaf(json!({"type": ["null", "string"]})), true, true);
        check(leaf(json!({"type": "integer"})), false, true);
        check(leaf(json!({"enum": ["+12025550100"]})), true, true);
        check(leaf(json!({"enum": ["x", 1]})), false, true);
        check(leaf(json!({"const": "x"})), false, true);
        check(leaf(json!({"maxLength": 12, "minLength": 12})), true, true);
        check(leaf(json!({"maxLength": 11})), false, true);
        check(leaf(json!({"pattern": r"^\+\d+$"})), true, true);
        check(leaf(json!({"pattern": "^x"})), false, true);
        check(leaf(json!({"pattern": "(?=x)"})), false, true);
    }

    #[test]
    fn patterns_names_references_and_combinations_count() {
        let from = json!({"^from_": {"type": "string"}});
        check(
            nested(json!({"patternProperties": from, "additionalProperties": false})),
            false,
            true,
        );
        check(nested(json!({"propertyNames": {"pattern": "^caller"}})), true, false);
        let defs = json!({
            "$defs": {"sip": {"properties": {"from_uri": {}}, "additionalProperties": false}},
            "properties": {"ultravox": {"properties": {"sip": {"$ref": "#/$defs/sip"}}}},
        });
        check(defs, false, true);
        check(nested(json!({"$ref": "https://elsewhere.example/schema"})), false, false);
        check(json!({"allOf": [{}, {"additionalProperties": false}]}), false, false);
        check(json!({"anyOf": [{}, {"additionalProperties": false}]}), true, true);
        check(json!({"oneOf": [false, {"properties": {"ultravox": false}}]}), false, false);
        let (vip, closed) = (json!({"required": ["vip"]}), json!({"additionalProperties": false}));
        check(json!({"anyOf": [vip, closed]}), false, false);
        check(json!({"anyOf": [vip, {"required": ["name"]}]}), true, true);
        check(nested(json!({"anyOf": [{"type": "null"}, {"type": "object"}]})), true, true);
        let member = json!({"properties": {"caller_id": {}}});
        let unevaluated = json!({"allOf": [member], "unevaluatedProperties": false});
        check(nested(unevaluated), true, false);
    }

    #[test]
    fn conditions_let_in_what_cannot_change_them() {
        // At the top other values stand beside ours, which are not known here.
        let vip = json!({"properties": {"tier": {"const": "vip"}}, "required": ["tier"]});
        let named = json!({"required": ["name"]});
        check(json!({"if": vip, "then": named}), true, true);
        let closed = json!({"additionalProperties": false});
        check(json!({"if": vip, "then": named, "else": closed}), false, false);
        let ours = json!({"required": ["ultravox"]});
        check(json!({"if": ours, "then": named}), false, false);
        check(json!({"if": {"minProperties": 2}, "then": named}), false, false);
        check(json!({"not": vip}), true, true);
        check(json!({"not": ours}), false, false);
        check(json!({"not": {"properties": {"ultravox": {"type": "object"}}}}), false, false);
        check(json!({"not": {"maxProperties": 1}}), false, false);
        check(json!({"maxProperties": 9}), false, false);
        for word in ["dependentRequired", "dependentSchemas", "dependencies"] {
            check(json!({word: {"ultravox": ["name"]}}), false, false);
            check(json!({word: {"name": ["tier"]}}), true, true);
        }
    }

    #[test]
    fn a_leaf_may_be_denied_by_its_text() {
        let leaf = |leaf: Value| nested(json!({"properties": {"caller_id": leaf}}));
        check(leaf(json!({"not": {"const": "anonymous"}})), true, true);
        check(leaf(json!({"not": {"pattern": "^\\+1"}})), false, true);
        check(leaf(json!({"not": {"format": "email"}})), false, true);
        check(leaf(json!({"not": {}})), false, true);
        check(leaf(json!({"not": false})), false, true);
        check(leaf(json!({"if": {"const": "x"}, "then": false})), false, true);
    }

    #[test]
    fn every_stage_must_agree() {
        let strict = json!({"type": "object", "additionalProperties": false});
        check(json!({"greeting": {"type": "object"}, "billing": strict}), false, false);
        check(json!({"greeting": {"type": "object"}, "billing": {}}), true, true);
    }

    #[test]
    fn circles_and_bombs_end() {
        check(json!({"$ref": "#"}), false, false);
        let mut bomb = json!({"anyOf": [false, false]});
        for _ in 0..60 {
            bomb = json!({"anyOf": [bomb, {"allOf": [bomb.clone()]}], "type": "object"});
            if bomb.to_string().len() > 100_000 {
                break;
            }
        }
        check(bomb, false, false);
        let again = json!({"$ref": "#/$defs/a"});
        let twice = json!({"$defs": {"a": {"allOf": [again, again]}},
                           "$ref": "#/$defs/a"});
        check(twice, false, false);
    }
}
