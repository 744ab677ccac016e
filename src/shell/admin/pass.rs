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

/// Passes the request on.
pub async fn pass(State(state): State<AdminState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(_turn) = state.desk.passing.acquire().await else {
        return api::problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    };
    match read_body(body).await {
        Ok(body) => match ask(&state, &parts, body).await {
            Ok(passed) => answer(passed),
            Err(refused) => *refused,
        },
        Err(refused) => *refused,
    }
}

/// The whole body of a request that goes on.
///
/// # Errors
/// The answer: 413, or 400 when the client broke off.
pub async fn read_body(body: Body) -> Result<Bytes, Box<Response>> {
    to_bytes(body, limits::PASSED_BODY_BYTES_MAX).await.map_err(|_| {
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
pub async fn ask(state: &AdminState, parts: &Parts, body: Bytes) -> Result<Passed, Box<Response>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let passed = state.agents.pass(parts.method.clone(), path, &parts.headers, body).await;
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
