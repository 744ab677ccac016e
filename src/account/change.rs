//! A change of the account as the API takes it (`PATCH /api/sip`): members that are named replace
//! those of the document, all others stay. Everything is checked before anything counts, and every
//! problem is told with its path. Read-only members are left unread, as the published schema has it.

use super::SipConfig;
use super::compile::{self, Severity};
use super::document::{AgentAllowance, FallbackHandler, SipConfigDocument};
use crate::ground::Entropy;
use crate::ultravox::schema::sip;
use serde_json::{Map, Value};

/// Random bits of a signing secret that we make.
const SECRET_BITS: usize = 256;
/// The member of the document that only the daemon writes.
const READ_ONLY: &str = "domain";

/// A problem of one member of a request.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct FieldProblem {
    /// Members joined by dots, list places in brackets: `allowedAgents[3].toUserPattern`. Empty for
    /// the whole body.
    pub path: String,
    pub problem: String,
    /// What to do; empty where the problem says it.
    pub fix: String,
}

impl FieldProblem {
    /// A problem whose words say what to do.
    pub fn plain(path: impl Into<String>, problem: impl Into<String>) -> FieldProblem {
        FieldProblem { path: path.into(), problem: problem.into(), fix: String::new() }
    }
}

impl From<compile::Problem> for FieldProblem {
    fn from(problem: compile::Problem) -> FieldProblem {
        let path = problem.place.to_string();
        FieldProblem { path, problem: problem.problem, fix: problem.fix }
    }
}

/// A change that may be made.
#[derive(Debug)]
pub struct Change {
    pub document: SipConfigDocument,
    pub config: SipConfig,
    /// The members whose values differ now, by their names in the API.
    pub changed: Vec<&'static str>,
    /// The signing secrets were made here, since neither the change nor the document had any.
    pub made_secrets: bool,
    pub warnings: Vec<FieldProblem>,
}

/// Applies a body to the document `current`.
///
/// # Errors
/// Every problem of the body.
pub fn patch(
    current: &SipConfigDocument,
    body: &Value,
    entropy: &mut Entropy,
) -> Result<Change, Vec<FieldProblem>> {
    let mut body = body.clone();
    body.as_object_mut().and_then(|members| members.remove(READ_ONLY));
    let mut problems: Vec<FieldProblem> = sip::PATCHED_SIP_CONFIG
        .check(&body)
        .into_iter()
        .map(|problem| FieldProblem::plain(problem.path, problem.what.to_string()))
        .collect();
    let members = body.as_object().cloned().unwrap_or_default();
    check_ranges(current, &members, &mut problems);
    let mut document = merge(current, &members);
    let made_secrets = complete_secrets(&mut document, entropy);
    let (config, found) = match compile::compile(&document) {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(problems) => (None, problems),
    };
    let mut warnings = Vec::new();
    for problem in found {
        let severity = problem.severity;
        let problem = FieldProblem::from(problem);
        let is_told = problems.iter().any(|told| covers(&told.path, &problem.path));
        match severity {
            Severity::Warning => warnings.push(problem),
            Severity::Error if is_told => {}
            Severity::Error => problems.push(problem),
        }
    }
    match config {
        Some(config) if problems.is_empty() => {
            let changed = differences(current, &document);
            Ok(Change { document, config, changed, made_secrets, warnings })
        }
        _ => Err(problems),
    }
}

/// Gives a handler without secrets one that cannot be guessed; true when it did.
pub fn complete_secrets(document: &mut SipConfigDocument, entropy: &mut Entropy) -> bool {
    match &mut document.fallback_handler {
        Some(handler) if handler.secrets.is_none() => {
            handler.secrets = Some(vec![entropy.token(SECRET_BITS)]);
            true
        }
        _ => false,
    }
}

/// The members in which two documents differ, by their names in the API.
pub fn differences(one: &SipConfigDocument, other: &SipConfigDocument) -> Vec<&'static str> {
    let all = [
        ("allowedCidrRanges", one.allowed_cidr_ranges != other.allowed_cidr_ranges),
        ("allowAllAgents", one.allow_all_agents != other.allow_all_agents),
        ("allowedAgents", one.allowed_agents != other.allowed_agents),
        ("fallbackHandler", one.fallback_handler != other.fallback_handler),
        ("domain", one.domain != other.domain),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// What differs between two documents in words for an operator, a line each; no secret is in them.
pub fn describe(old: &SipConfigDocument, new: &SipConfigDocument) -> Vec<String> {
    let mut lines = Vec::new();
    let (were, are) = (&old.allowed_cidr_ranges, &new.allowed_cidr_ranges);
    if were != are {
        let gone =
            were.iter().filter(|range| !are.contains(range)).map(|range| format!("-{range}"));
        let come =
            are.iter().filter(|range| !were.contains(range)).map(|range| format!("+{range}"));
        let list = come.chain(gone).collect::<Vec<_>>().join(" ");
        let list = if list.is_empty() { "in another order".to_owned() } else { list };
        lines.push(format!("allowed_cidr_ranges: {list}"));
    }
    if old.allow_all_agents != new.allow_all_agents {
        lines.push(format!("allow_all_agents: {}", new.allow_all_agents));
    }
    if old.allowed_agents != new.allowed_agents {
        let (were, are) = (old.allowed_agents.len(), new.allowed_agents.len());
        lines.push(match were == are {
            true => format!("allowed_agents: changed, {are} as before"),
            false => format!("allowed_agents: {are}, were {were}"),
        });
    }
    let words = match (&old.fallback_handler, &new.fallback_handler) {
        (Some(old), Some(new)) if old.url != new.url => Some(format!("now {}", new.url)),
        (Some(old), Some(new)) if old.secrets != new.secrets => Some("other secrets".to_owned()),
        (None, Some(new)) => Some(format!("now {}", new.url)),
        (Some(_), None) => Some("removed".to_owned()),
        (Some(_), Some(_)) | (None, None) => None,
    };
    lines.extend(words.map(|words| format!("fallback_handler: {words}")));
    if old.domain != new.domain {
        lines.push(format!("domain: {}", new.domain));
    }
    lines
}

/// Whether a problem at `path` says enough of `inner`, which is it or lies in it.
fn covers(path: &str, inner: &str) -> bool {
    inner.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The API's schema has IPv4 ranges only. An IPv6 range that came from the file may stay.
fn check_ranges(
    current: &SipConfigDocument,
    members: &Map<String, Value>,
    problems: &mut Vec<FieldProblem>,
) {
    let ranges = members.get("allowedCidrRanges").and_then(Value::as_array);
    for (index, range) in ranges.into_iter().flatten().enumerate() {
        let Some(range) = range.as_str().filter(|range| range.contains(':')) else { continue };
        if !current.allowed_cidr_ranges.iter().any(|known| known == range) {
            problems.push(FieldProblem {
                path: format!("allowedCidrRanges[{index}]"),
                problem: "is no IPv4 range; the API takes no others".to_owned(),
                fix: "IPv6 ranges stand in the configuration file: [sip] allowed_cidr_ranges"
                    .to_owned(),
            });
        }
    }
}

/// The document with what the body says. Of a member that is of the wrong shape, which is told
/// already, as much is read as can be, so that the rest of it is checked too.
fn merge(current: &SipConfigDocument, members: &Map<String, Value>) -> SipConfigDocument {
    let mut document = current.clone();
    if let Some(ranges) = members.get("allowedCidrRanges").and_then(Value::as_array) {
        document.allowed_cidr_ranges = ranges.iter().map(range_of).collect();
    }
    if let Some(all) = members.get("allowAllAgents").and_then(Value::as_bool) {
        document.allow_all_agents = all;
    }
    if let Some(agents) = members.get("allowedAgents").and_then(Value::as_array) {
        document.allowed_agents = agents.iter().map(agent_of).collect();
    }
    match members.get("fallbackHandler") {
        Some(Value::Null) => document.fallback_handler = None,
        Some(Value::Object(handler)) => {
            let known = current.fallback_handler.as_ref();
            document.fallback_handler = Some(handler_of(handler, known));
        }
        Some(_) | None => {}
    }
    document
}

/// Stands where no text was, so that the places of the others stay theirs.
const NO_RANGE: &str = "192.0.2.0/32";
const NO_AGENT: &str = "00000000-0000-0000-0000-000000000000";

fn range_of(range: &Value) -> String {
    range.as_str().unwrap_or(NO_RANGE).to_owned()
}

fn agent_of(agent: &Value) -> AgentAllowance {
    let text = |name: &str| agent.get(name).and_then(Value::as_str).map(str::to_owned);
    AgentAllowance {
        agent_id: text("agentId").unwrap_or_else(|| NO_AGENT.to_owned()),
        to_user_pattern: text("toUserPattern"),
    }
}

/// Secrets that are not named stay as they are: a client that reads the handler, which hides them,
/// and writes it back must not change what requests are signed with.
fn handler_of(handler: &Map<String, Value>, known: Option<&FallbackHandler>) -> FallbackHandler {
    let texts = |list: &Vec<Value>| {
        list.iter().map(|text| text.as_str().unwrap_or("-").to_owned()).collect::<Vec<String>>()
    };
    let secrets = handler.get("secrets").and_then(Value::as_array).map(texts);
    FallbackHandler {
        url: handler.get("url").and_then(Value::as_str).unwrap_or_default().to_owned(),
        secrets: secrets.or_else(|| known.and_then(|known| known.secrets.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";

    fn current() -> SipConfigDocument {
        SipConfigDocument {
            allowed_cidr_ranges: vec!["198.51.100.7/32".into(), "2001:db8::/64".into()],
            allow_all_agents: true,
            allowed_agents: vec![AgentAllowance {
                agent_id: AGENT.into(),
                to_user_pattern: Some("^sales$".into()),
            }],
            fallback_handler: Some(FallbackHandler {
                url: "https://hooks.example/sip".into(),
                secrets: Some(vec!["canary".into()]),
            }),
            domain: "edge.example".into(),
        }
    }

    fn apply(body: Value) -> Result<Change, Vec<FieldProblem>> {
        patch(&current(), &body, &mut Entropy::from_number(1))
    }

    fn check_paths(body: Value, expected: &[&str]) {
        let problems = apply(body.clone()).expect_err("it has problems");
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, expected, "{body} {problems:#?}");
        assert!(problems.iter().all(|problem| !problem.problem.is_empty()));
    }

    #[test]
    fn members_that_are_named_replace_and_all_others_stay() {
        let nothing = apply(json!({})).expect("an empty change");
        assert_eq!((nothing.document, nothing.changed.len()), (current(), 0));
        let change = apply(json!({"allowAllAgents": false, "allowedAgents": []})).expect("good");
        let expected =
            SipConfigDocument { allow_all_agents: false, allowed_agents: vec![], ..current() };
        assert_eq!(change.document, expected);
        assert_eq!(change.changed, ["allowAllAgents", "allowedAgents"]);
        let gone = apply(json!({"fallbackHandler": null})).expect("good");
        assert_eq!(gone.document.fallback_handler, None);
        let same = apply(json!({"domain": "other.example"})).expect("read-only: left unread");
        assert_eq!(same.document, current());
        apply(json!({"domain": 7})).expect("read-only: left unread");
    }

    #[test]
    fn secrets_stay_unless_they_are_named_and_are_made_where_none_are() {
        let secrets = |change: &Change| {
            let handler = change.document.fallback_handler.clone().expect("there is one");
            handler.secrets.expect("there are some")
        };
        let url = "https://other.example/sip";
        let kept = apply(json!({"fallbackHandler": {"url": url}})).expect("good");
        assert_eq!((secrets(&kept), kept.made_secrets), (vec!["canary".to_owned()], false));
        let named = json!({"fallbackHandler": {"url": url, "secrets": ["a", "b"]}});
        assert_eq!(secrets(&apply(named).expect("good")), ["a", "b"]);
        let bare = SipConfigDocument { fallback_handler: None, ..current() };
        let body = json!({"fallbackHandler": {"url": url}});
        let made = patch(&bare, &body, &mut Entropy::from_number(1)).expect("good");
        assert!(made.made_secrets && secrets(&made)[0].len() == 64);
        let other = patch(&bare, &body, &mut Entropy::from_number(2)).expect("good");
        assert_ne!(secrets(&made), secrets(&other));
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_path() {
        check_paths(json!([]), &[""]);
        check_paths(json!({"allowAllAgent": true}), &["allowAllAgent"]);
        check_paths(json!({"allowAllAgents": "yes"}), &["allowAllAgents"]);
        check_paths(json!({"allowedAgents": null}), &["allowedAgents"]);
        check_paths(
            json!({
                "allowedCidrRanges": ["10.0.0.0/8", 7, "10.0.0.0/33", "2001:db8:1::/64", "nowhere"],
                "allowedAgents": [
                    {"toUserPattern": "("},
                    {"agentId": "echo"},
                    {"agentId": AGENT, "toUserPattern": "a".repeat(201)},
                    {"agentId": AGENT, "toUserPattern": null},
                    {"agentId": AGENT, "pattern": "x"},
                    7,
                ],
                "fallbackHandler": {"secrets": ["ok", 7, "b".repeat(121)]},
            }),
            &[
                "allowedCidrRanges[1]",
                "allowedAgents[0].agentId",
                "allowedAgents[1].agentId",
                "allowedAgents[2].toUserPattern",
                "allowedAgents[3].toUserPattern",
                "allowedAgents[4].pattern",
                "allowedAgents[5]",
                "fallbackHandler.url",
                "fallbackHandler.secrets[1]",
                "allowedCidrRanges[3]",
                "allowedCidrRanges[2]",
                "allowedCidrRanges[4]",
                "allowedAgents[0].toUserPattern",
                "fallbackHandler.secrets[2]",
            ],
        );
    }

    #[test]
    fn a_change_is_described_without_its_secrets() {
        assert_eq!(describe(&current(), &current()), Vec::<String>::new());
        let mut new = current();
        new.allowed_cidr_ranges = vec!["198.51.100.7/32".into(), "10.0.0.0/8".into()];
        new.allowed_agents.clear();
        new.allow_all_agents = false;
        new.fallback_handler = new
            .fallback_handler
            .map(|handler| FallbackHandler { secrets: Some(vec!["canary2".into()]), ..handler });
        let lines = describe(&current(), &new);
        let expected = [
            "allowed_cidr_ranges: +10.0.0.0/8 -2001:db8::/64",
            "allow_all_agents: false",
            "allowed_agents: 0, were 1",
            "fallback_handler: other secrets",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn twenty_agents_and_two_hundred_characters_are_enough() {
        let agents = |count: usize, chars: usize| {
            let pattern = format!("^{}$", "a".repeat(chars - 2));
            json!({"allowedAgents": vec![json!({"agentId": AGENT, "toUserPattern": pattern}); count]})
        };
        assert_eq!(apply(agents(20, 200)).expect("good").document.allowed_agents.len(), 20);
        check_paths(agents(21, 200), &["allowedAgents"]);
        check_paths(agents(1, 201), &["allowedAgents[0].toUserPattern"]);
    }

    #[test]
    fn an_ipv6_range_of_the_file_may_stay_and_no_other_may_come() {
        let change = apply(json!({"allowedCidrRanges": ["2001:db8::/64", "10.0.0.0/8"]}));
        assert_eq!(change.expect("it was there").document.allowed_cidr_ranges.len(), 2);
        check_paths(json!({"allowedCidrRanges": ["2001:db8::/65"]}), &["allowedCidrRanges[0]"]);
        let mapped = json!({"allowedCidrRanges": ["::ffff:10.0.0.0/104"]});
        check_paths(mapped, &["allowedCidrRanges[0]"]);
    }
}
