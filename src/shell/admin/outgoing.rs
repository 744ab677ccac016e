//! Calls that an application asks for: `POST /api/agents/{agent_id}/calls` and `POST /api/calls`. One with
//! `medium.sip.outgoing` is dialled by this daemon and answered with Ultravox's Call object; any other
//! goes on to Ultravox as it came.

use super::{AdminState, api, pass};
use crate::account::FieldProblem;
use crate::outgoing::request::is_outgoing;
use crate::outgoing::{DialRefusal, OutgoingCallRequest};
use crate::shell::signalling::Request as Inquiry;
use crate::ultravox::create_call::CreateFault;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

/// `POST /api/agents/{agent_id}/calls`.
pub async fn create_with_agent(
    State(state): State<AdminState>,
    Path(agent_id): Path<String>,
    request: Request,
) -> Response {
    create(state, Some(agent_id), request).await
}

/// `POST /api/calls`.
pub async fn create_alone(State(state): State<AdminState>, request: Request) -> Response {
    create(state, None, request).await
}

async fn create(state: AdminState, agent_id: Option<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let read = match pass::read_body(&state, body).await {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    match json_of(&read.bytes).filter(is_outgoing) {
        None => pass::on(&state, &parts, &read).await,
        Some(body) => {
            drop(read);
            let query = parts.uri.query().map(str::to_owned);
            dial(&state, OutgoingCallRequest { agent_id, query, body }).await
        }
    }
}

/// What is no JSON is Ultravox's to refuse.
fn json_of(bytes: &Bytes) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

async fn dial(state: &AdminState, request: OutgoingCallRequest) -> Response {
    let (reply, answer) = oneshot::channel();
    let stopping = || api::problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    let Some(signalling) = state.signalling.upgrade() else { return stopping() };
    if signalling.send(Inquiry::Dial { request: Box::new(request), reply }).await.is_err() {
        return stopping();
    }
    drop(signalling);
    match answer.await {
        Ok(Ok(call)) => (StatusCode::CREATED, Json(call)).into_response(),
        Ok(Err(refusal)) => refused(refusal),
        Err(_) => stopping(),
    }
}

/// Why no call was placed.
fn refused(refusal: DialRefusal) -> Response {
    let (status, words) = match refusal {
        DialRefusal::Malformed { path, words } => {
            return api::field_problems(&[FieldProblem::plain(path, words)]);
        }
        DialRefusal::Forbidden(unwanted) => (StatusCode::FORBIDDEN, unwanted.to_string()),
        DialRefusal::TooMany { retry_after } => {
            let words = "too many outgoing calls: [outgoing] allows no more now";
            let mut answer = api::problem(StatusCode::TOO_MANY_REQUESTS, words);
            let seconds = HeaderValue::from(retry_after.as_secs().max(1));
            answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            return answer;
        }
        DialRefusal::Unavailable { words } => (StatusCode::SERVICE_UNAVAILABLE, words),
        DialRefusal::Service { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            return (status, Json(body)).into_response();
        }
        DialRefusal::NoService(CreateFault::TimedOut) => {
            (StatusCode::GATEWAY_TIMEOUT, "Ultravox did not create the call in time".to_owned())
        }
        DialRefusal::NoService(fault) => (StatusCode::BAD_GATEWAY, fault.to_string()),
        DialRefusal::Ended { words } => (StatusCode::CONFLICT, words),
    };
    api::problem(status, &words)
}

/// `POST /api/calls/{call_id}/send_data_message`. A `hang_up` ends a call of ours that still rings, which
/// Ultravox cannot; any other message, and any other call, is Ultravox's.
pub async fn send_data_message(
    State(state): State<AdminState>,
    Path(call_id): Path<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let read = match pass::read_body(&state, body).await {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    let kind = json_of(&read.bytes);
    let kind = kind.as_ref().and_then(|message| message.get("type")).and_then(Value::as_str);
    if kind == Some("hang_up") && cancels(&state, &call_id).await {
        return StatusCode::NO_CONTENT.into_response();
    }
    pass::on(&state, &parts, &read).await
}

/// True when the call is an outgoing one of ours that rang and is being given up now.
async fn cancels(state: &AdminState, call_id: &str) -> bool {
    let (reply, cancelled) = oneshot::channel();
    let ultravox_call_id = call_id.to_owned();
    let Some(signalling) = state.signalling.upgrade() else { return false };
    if signalling.send(Inquiry::HangUp { ultravox_call_id, reply }).await.is_err() {
        return false;
    }
    drop(signalling);
    cancelled.await.unwrap_or(false)
}
