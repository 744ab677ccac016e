//! A registration as the API takes it: made new from a body (`POST /api/sip/registrations`), or changed
//! in the members that a body names (`PATCH`). Every problem is told with its path. Read-only members
//! are left unread, as the published schema has it; no problem ever shows a password.

use super::change::FieldProblem;
use super::registration::{
    Registration, RegistrationDocument, RegistrationId, RegistrationProblem,
};
use crate::ground::Secret;
use crate::ultravox::schema::Shape;
use crate::ultravox::schema::sip::{NEW_SIP_REGISTRATION, PATCHED_SIP_REGISTRATION};
use serde_json::{Map, Value};

/// The members that only the daemon writes.
const READ_ONLY: [&str; 3] = ["registrationId", "created", "successful"];

impl From<RegistrationProblem> for FieldProblem {
    fn from(problem: RegistrationProblem) -> FieldProblem {
        let path = problem.field.to_string();
        FieldProblem { path, problem: problem.problem, fix: problem.fix }
    }
}

/// A new registration from a body.
///
/// # Errors
/// Every problem of the body.
pub fn create(
    id: RegistrationId,
    body: &Value,
) -> Result<(RegistrationDocument, Registration), Vec<FieldProblem>> {
    apply(id, &NEW_SIP_REGISTRATION, &RegistrationDocument::default(), body)
}

/// The registration with the members that the body names.
///
/// # Errors
/// Every problem of the body.
pub fn patch(
    id: RegistrationId,
    current: &RegistrationDocument,
    body: &Value,
) -> Result<(RegistrationDocument, Registration), Vec<FieldProblem>> {
    apply(id, &PATCHED_SIP_REGISTRATION, current, body)
}

fn apply(
    id: RegistrationId,
    shape: &Shape,
    current: &RegistrationDocument,
    body: &Value,
) -> Result<(RegistrationDocument, Registration), Vec<FieldProblem>> {
    let mut body = body.clone();
    for member in READ_ONLY {
        body.as_object_mut().and_then(|members| members.remove(member));
    }
    let mut problems: Vec<FieldProblem> = shape
        .check(&body)
        .into_iter()
        .map(|problem| FieldProblem::plain(problem.path, problem.what.to_string()))
        .collect();
    let document = merge(current, &body.as_object().cloned().unwrap_or_default());
    let whole_is_wrong = problems.iter().any(|problem| problem.path.is_empty());
    match Registration::compile(id, &document) {
        Ok(registration) if problems.is_empty() => Ok((document, registration)),
        Ok(_) => Err(problems),
        Err(found) => {
            let found = found.into_iter().map(FieldProblem::from);
            for problem in found {
                let is_told = problems.iter().any(|told| told.path == problem.path);
                if !is_told && !whole_is_wrong {
                    problems.push(problem);
                }
            }
            Err(problems)
        }
    }
}

fn merge(current: &RegistrationDocument, members: &Map<String, Value>) -> RegistrationDocument {
    let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
    // `null` removes, absence keeps.
    let optional = |name: &str, kept: &Option<String>| match members.get(name) {
        Some(value) => value.as_str().map(str::to_owned),
        None => kept.clone(),
    };
    RegistrationDocument {
        username: text("username").unwrap_or_else(|| current.username.clone()),
        password: text("password").map_or_else(|| current.password.clone(), Secret::new),
        proxy: text("proxy").unwrap_or_else(|| current.proxy.clone()),
        outbound_proxy: optional("outboundProxy", &current.outbound_proxy),
        auth_user: optional("authUser", &current.auth_user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id() -> RegistrationId {
        RegistrationId("r1".into())
    }

    fn paths<T>(result: Result<T, Vec<FieldProblem>>) -> Vec<String> {
        let problems = result.err().expect("it has problems");
        assert!(!format!("{problems:?}").contains("canary"));
        problems.into_iter().map(|problem| problem.path).collect()
    }

    fn good() -> Value {
        json!({"username": "sales", "password": "canary", "proxy": "pbx.example",
               "outboundProxy": "proxy.example", "authUser": null})
    }

    #[test]
    fn a_registration_is_made_and_changed_in_the_members_that_are_named() {
        let (document, _) = create(id(), &good()).expect("good");
        assert_eq!(document.outbound_proxy.as_deref(), Some("proxy.example"));
        let body = json!({"outboundProxy": null, "authUser": "auth", "successful": true,
                          "registrationId": 7, "created": "never"});
        let (changed, compiled) = patch(id(), &document, &body).expect("good");
        assert_eq!((changed.outbound_proxy, changed.auth_user), (None, Some("auth".into())));
        assert_eq!((changed.username.as_str(), changed.password.reveal()), ("sales", "canary"));
        assert_eq!(compiled.settings.credentials.username, "auth");
        let same = patch(id(), &document, &json!({})).expect("nothing is named");
        assert_eq!(same.0, document);
    }

    #[test]
    fn every_problem_has_its_path() {
        assert_eq!(paths(create(id(), &json!([]))), [""]);
        assert_eq!(paths(create(id(), &json!({}))), ["username", "password", "proxy"]);
        let (document, _) = create(id(), &good()).expect("good");
        for (body, expected) in [
            (json!({"username": "u".repeat(61)}), vec!["username"]),
            (json!({"username": null}), vec!["username"]),
            (json!({"password": ""}), vec!["password"]),
            (json!({"password": 7}), vec!["password"]),
            (
                json!({"proxy": "p".repeat(101), "authUser": "a".repeat(61)}),
                vec!["proxy", "authUser"],
            ),
            (json!({"proxy": "sip:alice@pbx.example"}), vec!["proxy"]),
            (json!({"realm": "x", "outboundProxy": "a b"}), vec!["realm", "outboundProxy"]),
        ] {
            assert_eq!(paths(patch(id(), &document, &body)), expected, "{body}");
        }
    }
}
