//! The account over HTTP: `GET` and `PATCH /api/sip` in the shapes of Ultravox's API, and our own
//! `/edge/config` and `/edge/reload`. Signing secrets are write-only: a key that reads the
//! configuration need not be able to sign. Secrets that the daemon made are told once, in the answer
//! to the change that made them.

use super::{AdminState, ReloadFault, api};
use crate::account::SipConfigDocument;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;

/// The document as it is shown.
fn shown(document: &SipConfigDocument) -> SipConfigDocument {
    let mut document = document.clone();
    if let Some(handler) = &mut document.fallback_handler {
        handler.secrets = None;
    }
    document
}

/// `GET /api/sip`: the schema's `SipConfig`.
pub async fn sip(State(state): State<AdminState>) -> Response {
    Json(shown(&state.account.in_force().document)).into_response()
}

/// `PATCH /api/sip`: members that are named replace those in force.
pub async fn change_sip(
    State(state): State<AdminState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match api::json_body(&headers, body) {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    match state.account.change(&body).await {
        Ok(changed) if changed.made_secrets => {
            Json(changed.in_force.document.clone()).into_response()
        }
        Ok(changed) => Json(shown(&changed.in_force.document)).into_response(),
        Err(fault) => api::refused_change(fault),
    }
}

/// `GET /edge/config`: what is in force, who manages it, and its revision.
pub async fn in_force(State(state): State<AdminState>) -> Response {
    let in_force = state.account.in_force();
    let body = json!({
        "managedBy": state.account.managed_by().as_str(),
        "revision": in_force.revision,
        "sip": shown(&in_force.document),
    });
    Json(body).into_response()
}

/// `POST /edge/reload`: `{"changes": […]}`.
pub async fn reload(State(state): State<AdminState>) -> Response {
    match (state.reload)().await {
        Ok(changes) => Json(json!({ "changes": changes })).into_response(),
        Err(ReloadFault::Refused(words)) => api::problem(StatusCode::BAD_REQUEST, &words),
        Err(ReloadFault::Change(fault)) => api::refused_change(fault),
    }
}
