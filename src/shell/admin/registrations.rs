//! `/api/sip/registrations`: the account's registrations in the shapes of Ultravox's API. Passwords are
//! write-only.

use super::{AdminState, api};
use crate::account::FieldProblem;
use crate::billing::cdr::rfc3339;
use crate::shell::account::Registered;
use crate::switchboard::RegistrationState;
use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Registrations of one page, unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// What is known of each registration, by its id.
pub type States = BTreeMap<String, RegistrationState>;

/// A `SipRegistration` of the schema.
fn shown(one: &Registered, states: &States) -> Value {
    json!({
        "registrationId": one.id.to_string(),
        "created": rfc3339(one.created),
        "username": one.document.username,
        "proxy": one.document.proxy,
        "outboundProxy": one.document.outbound_proxy,
        "authUser": one.document.auth_user,
        "successful": states.get(&*one.id.0).and_then(|state| state.successful),
    })
}

/// The query of the list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageQuery {
    cursor: Option<String>,
    page_size: Option<usize>,
}

/// Where a page begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cursor {
    After(i64),
    Before(i64),
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let (side, place) = text.split_at_checked(1)?;
        let place = place.parse().ok()?;
        match side {
            "a" => Some(Cursor::After(place)),
            "b" => Some(Cursor::Before(place)),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Cursor::After(place) => format!("a{place}"),
            Cursor::Before(place) => format!("b{place}"),
        }
    }
}

/// `GET /api/sip/registrations`: `{results, next, previous, total}`.
pub async fn list(
    State(state): State<AdminState>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return api::problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let cursor = match query.cursor.as_deref().map(Cursor::parse) {
        Some(None) => return wrong("cursor", "is none that a list gave"),
        Some(cursor) => cursor,
        None => None,
    };
    let size = query.page_size.unwrap_or(PAGE).min(PAGE_MAX);
    if size == 0 {
        return wrong("pageSize", "must be 1 or more");
    }
    let all = state.account.registrations();
    let page = page_of(&all, cursor, size);
    let states = (state.registrations)();
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let link = |cursor: Cursor| {
        let (scheme, cursor) = (state.scheme(), cursor.text());
        format!("{scheme}://{host}/api/sip/registrations?cursor={cursor}&pageSize={size}")
    };
    let is_before = |place: i64| all.first().is_some_and(|first| first.place < place);
    let is_after = |place: i64| all.last().is_some_and(|last| last.place > place);
    let first = page.first().map(|one| one.place).filter(|place| is_before(*place));
    let last = page.last().map(|one| one.place).filter(|place| is_after(*place));
    Json(json!({
        "results": page.iter().map(|one| shown(one, &states)).collect::<Vec<_>>(),
        "next": last.map(|place| link(Cursor::After(place))),
        "previous": first.map(|place| link(Cursor::Before(place))),
        "total": all.len(),
    }))
    .into_response()
}

/// At most `size` registrations after or before a place; `all` is in order.
fn page_of(all: &[Registered], cursor: Option<Cursor>, size: usize) -> &[Registered] {
    let (from, to) = match cursor {
        None => (0, size),
        Some(Cursor::After(place)) => {
            let from = all.partition_point(|one| one.place <= place);
            (from, from.saturating_add(size))
        }
        Some(Cursor::Before(place)) => {
            let to = all.partition_point(|one| one.place < place);
            (to.saturating_sub(size), to)
        }
    };
    all.get(from..to.min(all.len())).unwrap_or_default()
}

fn wrong(path: &str, words: &str) -> Response {
    api::field_problems(&[FieldProblem::plain(path, words)])
}

/// `GET /edge/registrations`: the state of each, with the reason in words.
pub async fn states(State(state): State<AdminState>) -> Response {
    let states = (state.registrations)();
    let all = state.account.registrations();
    let shown = all.iter().map(|one| {
        let known = states.get(&*one.id.0);
        json!({
            "registrationId": one.id.to_string(),
            "username": one.document.username,
            "proxy": one.document.proxy,
            "successful": known.and_then(|known| known.successful),
            "reason": known.map(|known| known.reason.as_str()),
            "expiresAt": known.and_then(|known| known.expires_at).map(rfc3339),
        })
    });
    Json(json!({ "registrations": shown.collect::<Vec<_>>() })).into_response()
}

/// `POST /api/sip/registrations`: 201.
pub async fn create(
    State(state): State<AdminState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match api::json_body(&headers, body) {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    match state.account.register(&body).await {
        Ok(made) => (StatusCode::CREATED, Json(shown(&made, &States::new()))).into_response(),
        Err(fault) => api::refused_change(fault),
    }
}

/// `GET /api/sip/registrations/{registration_id}`.
pub async fn fetch(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    match state.account.registration(&id) {
        Some(one) => Json(shown(&one, &(state.registrations)())).into_response(),
        None => no_such(),
    }
}

/// `PATCH /api/sip/registrations/{registration_id}`.
pub async fn change(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match api::json_body(&headers, body) {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    match state.account.change_registration(&id, &body).await {
        Ok(Some(changed)) => Json(shown(&changed, &(state.registrations)())).into_response(),
        Ok(None) => no_such(),
        Err(fault) => api::refused_change(fault),
    }
}

/// `DELETE /api/sip/registrations/{registration_id}`: 204.
pub async fn remove(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    match state.account.unregister(&id).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => no_such(),
        Err(fault) => api::refused_change(fault),
    }
}

fn no_such() -> Response {
    api::problem(StatusCode::NOT_FOUND, "there is no such registration")
}
