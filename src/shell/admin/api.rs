//! What all JSON routes share: the form of an error, the reading of a body, and the store. The mirror
//! of `refusal` for HTTP: failures become status codes in this module and its neighbours only.
//!
//! An error is `{"detail": "…"}`, as the Ultravox API writes it. One that concerns members of a body
//! names each of them: `{"detail": "…", "problems": [{"path", "problem", "fix"}, …]}`.

use super::AdminState;
use crate::account::FieldProblem;
use crate::shell::account::ChangeFault;
use crate::shell::store::StoreFault;
use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

/// An error as JSON.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

/// A 400 that names every member which is wrong.
pub fn field_problems(problems: &[FieldProblem]) -> Response {
    let told = |problem: &FieldProblem| match problem.path.as_str() {
        "" => problem.problem.clone(),
        path => format!("{path}: {}", problem.problem),
    };
    let detail = problems.iter().map(told).collect::<Vec<_>>().join("; ");
    let body = json!({ "detail": detail, "problems": problems });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// Any path that is not served.
pub async fn no_such_path() -> Response {
    problem(StatusCode::NOT_FOUND, "there is no such path")
}

/// A body of JSON. Another type is refused: a web page can send forms and text to anywhere without
/// asking, JSON it cannot.
///
/// # Errors
/// The answer: 413, 415 or 400.
pub fn json_body(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Value, Box<Response>> {
    let body = body.map_err(|error| Box::new(problem(error.status(), &error.body_text())))?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_ascii_lowercase());
    if kind.as_deref() != Some("application/json") {
        let words = "send JSON, with Content-Type: application/json";
        return Err(Box::new(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, words)));
    }
    serde_json::from_slice(&body).map_err(|error| {
        let fault = FieldProblem::plain("", format!("the body is not JSON: {error}"));
        Box::new(field_problems(&[fault]))
    })
}

/// Why a change of the account was not made.
pub fn refused_change(fault: ChangeFault) -> Response {
    let status = match &fault {
        ChangeFault::Invalid(problems) => return field_problems(problems),
        ChangeFault::ManagedBy(_) => StatusCode::CONFLICT,
        ChangeFault::Store(fault) => {
            tracing::error!(%fault, "the account cannot be kept");
            let words = "the change cannot be kept on disk now: nothing was changed";
            return problem(StatusCode::SERVICE_UNAVAILABLE, words);
        }
        ChangeFault::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &fault.to_string())
}

/// Reads the store off the runtime's threads, since the disk may take its time.
///
/// # Errors
/// The answer: 503.
pub async fn read<T: Send + 'static>(
    state: &AdminState,
    act: impl FnOnce(&crate::shell::store::Reader) -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, Box<Response>> {
    let state = state.clone();
    let reading = move || state.reader().and_then(|reader| act(&reader));
    let fault = match tokio::task::spawn_blocking(reading).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(fault)) => fault.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%fault, "call records cannot be read");
    let words = "the call records cannot be read now";
    Err(Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, words)))
}
