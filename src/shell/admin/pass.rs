//! What the edge does not answer itself goes on to Ultravox and back: method, path, query, body,
//! status and headers unchanged, but for those that belong to one connection. The answer streams
//! through; the request's body is read first, up to a bound.

use super::{AdminState, api};
use crate::ground::limits;
use crate::shell::agent::rest::{PassFault, Passed};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::SemaphorePermit;

/// Passes the request on.
pub async fn pass(State(state): State<AdminState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match read_body(&state, body).await {
        Ok(read) => on(&state, &parts, &read).await,
        Err(refused) => *refused,
    }
}

/// Passes on a request whose body was read, and gives Ultravox's answer.
pub async fn on(state: &AdminState, parts: &Parts, read: &Read<'_>) -> Response {
    match ask(state, parts, read).await {
        Ok(passed) => answer(passed),
        Err(refused) => *refused,
    }
}

/// The whole body of a request, with the turn that it takes: so many are in memory at once, and no more.
pub struct Read<'s> {
    pub bytes: Bytes,
    _turn: SemaphorePermit<'s>,
}

/// The whole body of a request that goes on, when it is its turn.
///
/// # Errors
/// The answer: 413, also when the client broke off.
pub async fn read_body(state: &AdminState, body: Body) -> Result<Read<'_>, Box<Response>> {
    let stopping = |_| {
        let words = "the daemon is stopping";
        Box::new(api::problem(StatusCode::SERVICE_UNAVAILABLE, words))
    };
    let _turn = state.desk.passing.acquire().await.map_err(stopping)?;
    let read = to_bytes(body, limits::PASSED_BODY_BYTES_MAX).await;
    read.map(|bytes| Read { bytes, _turn }).map_err(|_| {
        let words = format!(
            "the body is longer than {} bytes, or broke off",
            limits::PASSED_BODY_BYTES_MAX
        );
        Box::new(api::problem(StatusCode::PAYLOAD_TOO_LARGE, &words))
    })
}

/// Ultravox's answer to the request.
///
/// # Errors
/// The answer when there is none: 400, 502 or 504.
pub async fn ask(
    state: &AdminState,
    parts: &Parts,
    read: &Read<'_>,
) -> Result<Passed, Box<Response>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let passed =
        state.agents.pass(parts.method.clone(), path, &parts.headers, read.bytes.clone()).await;
    passed.map_err(|fault| {
        let (status, words) = match fault {
            PassFault::BadPath => {
                (StatusCode::BAD_REQUEST, "this path cannot be passed on as it is written")
            }
            PassFault::Unreachable => (StatusCode::BAD_GATEWAY, "Ultravox cannot be reached"),
            PassFault::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "Ultravox did not answer in time"),
        };
        Box::new(api::problem(status, words))
    })
}

/// The answer, with its body as it comes.
pub fn answer(passed: Passed) -> Response {
    let mut response = Response::new(Body::new(passed.body));
    *response.status_mut() = passed.status;
    *response.headers_mut() = passed.headers;
    response
}

/// The answer with another body of the same kind.
pub fn answer_with(
    passed_status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response {
    let mut response = body.clone().into_response();
    *response.status_mut() = passed_status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}
