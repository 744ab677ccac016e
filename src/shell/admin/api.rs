//! The JSON routes: the account's configuration as the Ultravox API writes it, and the call
//! records. The mirror of `refusal` for HTTP: failures become status codes here only.

use super::AdminState;
use crate::billing::Cdr;
use crate::ground::CallKey;
use crate::shell::store::{Filter, StoreFault};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

/// Records in one answer, unless asked otherwise, and at most.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 1_000;

/// An error as JSON: `{"detail": …}`, the form that the Ultravox API uses.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

/// `GET /api/sip`: the schema's `SipConfig`. The signing secrets of a fallback handler are
/// write-only here: a key that can read the configuration need not be able to sign.
pub async fn sip(State(state): State<AdminState>) -> Response {
    let mut document = (state.account)();
    if let Some(handler) = &mut document.fallback_handler {
        handler.secrets = None;
    }
    Json(document).into_response()
}

/// `PATCH /api/sip`: the file and the API never both manage the account.
pub async fn sip_is_managed_by_file() -> Response {
    problem(
        StatusCode::CONFLICT,
        "this configuration is managed by file: edit [sip] in the configuration file, run \
         `voxedge check`, then restart the daemon",
    )
}

/// The query of `GET /edge/calls`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsQuery {
    limit: Option<usize>,
    live: Option<bool>,
    agent_id: Option<String>,
    before: Option<String>,
}

/// `GET /edge/calls`: `{"calls": […]}`, newest first.
pub async fn calls(
    State(state): State<AdminState>,
    query: Result<Query<CallsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let before = match query.before.as_deref().map(str::parse::<CallKey>) {
        Some(Err(())) => return problem(StatusCode::BAD_REQUEST, "before: not a call key"),
        Some(Ok(key)) => Some(key),
        None => None,
    };
    let filter = Filter { live: query.live, agent_id: query.agent_id, before };
    let limit = query.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    match read(move || state.reader()?.list(&filter, limit)).await {
        Ok(calls) => Json(json!({ "calls": calls })).into_response(),
        Err(answer) => answer,
    }
}

/// `GET /edge/calls/{key}`: one record.
pub async fn call(State(state): State<AdminState>, Path(key): Path<String>) -> Response {
    let Ok(key) = key.parse::<CallKey>() else {
        return problem(StatusCode::NOT_FOUND, "no call has this key");
    };
    let found: Result<Option<Cdr>, Response> = read(move || state.reader()?.get(key)).await;
    match found {
        Ok(Some(record)) => Json(record).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, "no call has this key"),
        Err(answer) => answer,
    }
}

/// Reads the store off the runtime's threads, since the disk may take its time.
async fn read<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, Response> {
    let fault = match tokio::task::spawn_blocking(act).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(fault)) => fault.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%fault, "call records cannot be read");
    Err(problem(StatusCode::SERVICE_UNAVAILABLE, "the call records cannot be read now"))
}
