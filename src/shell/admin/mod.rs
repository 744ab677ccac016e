//! The admin listener: plain HTTP, on loopback unless the operator says otherwise. Health,
//! readiness and metrics need no key; the account's configuration and the call records need
//! `X-API-Key`. A wrong key, no key and no configured key give the same 401. Requests with a `Host`
//! that is not ours are refused (rebinding), bodies are bounded, and no CORS header is ever sent.
//!
//! ```text
//! GET   /health          200 while signalling and every shard make progress, else 503 with reasons
//! GET   /ready           200 when new calls are taken, else 503 with the reason
//! GET   /metrics         Prometheus text
//! GET   /api/sip         the account's configuration, by the schema of the Ultravox API
//! PATCH /api/sip         409: the configuration is managed by the file
//! GET   /edge/calls      the records, newest first: ?limit=, ?live=, ?agent_id=, ?before=
//! GET   /edge/calls/{key}
//! ```

mod api;
pub mod client;
pub mod health;
pub mod metrics;

use crate::account::SipConfigDocument;
use crate::ground::Secret;
use crate::shell::store::{Reader, StoreCounters, StoreFault};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Bytes of a request body; larger ones get 413.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the daemon lends to its admin listener. Closures are called for each request and must not
/// wait.
#[derive(Clone)]
pub struct AdminState {
    /// `None`: `/api` and `/edge` answer 401 to everybody.
    pub api_key: Option<Secret>,
    /// The address that the listener is bound to.
    pub listen: SocketAddr,
    /// The account as it stands.
    pub account: Arc<dyn Fn() -> SipConfigDocument + Send + Sync>,
    pub metrics: Arc<dyn Fn() -> metrics::Snapshot + Send + Sync>,
    pub health: Arc<dyn Fn() -> health::Health + Send + Sync>,
    /// The database that the records are read from.
    pub store: Arc<PathBuf>,
}

impl AdminState {
    fn reader(&self) -> Result<Reader, StoreFault> {
        Reader::open(&self.store)
    }
}

/// The counters of the store as metrics.
impl From<&StoreCounters> for metrics::StoreFigures {
    fn from(counters: &StoreCounters) -> metrics::StoreFigures {
        use std::sync::atomic::Ordering::Relaxed;
        metrics::StoreFigures {
            written: counters.written.load(Relaxed),
            commits: counters.commits.load(Relaxed),
            failures: counters.failures.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            waiting: counters.waiting.load(Relaxed),
            failing: counters.failing.load(Relaxed),
        }
    }
}

/// Serves until `stop` resolves; requests in progress are finished.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(stop).await
}

/// Every route of the listener, with its guards.
pub fn router(state: AdminState) -> Router {
    let guarded = Router::new()
        .route("/api/sip", get(api::sip).patch(api::sip_is_managed_by_file))
        .route("/edge/calls", get(api::calls))
        .route("/edge/calls/{key}", get(api::call))
        .route_layer(middleware::from_fn_with_state(state.clone(), require_key));
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .merge(guarded)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), require_own_host))
        .with_state(state)
}

/// The key, compared in constant time; every failure looks the same.
async fn require_key(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let given = request.headers().get("x-api-key").map_or(&b""[..], |value| value.as_bytes());
    let admitted = state.api_key.as_ref().is_some_and(|key| !key.is_empty() && key.matches(given));
    if admitted {
        next.run(request).await
    } else {
        api::problem(StatusCode::UNAUTHORIZED, "X-API-Key is missing or wrong")
    }
}

/// Refuses names that a web page in the operator's browser could have pointed at us. On loopback
/// only loopback names are ours; on another address any literal address or the operator's proxy is.
async fn require_own_host(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let name = host.map(host_name).unwrap_or_default();
    let literal = name.parse::<std::net::IpAddr>();
    let ours = match (&literal, state.listen.ip().is_loopback()) {
        (Ok(address), true) => address.is_loopback(),
        (Ok(_), false) => true,
        (Err(_), true) => name.eq_ignore_ascii_case("localhost"),
        (Err(_), false) => !name.is_empty(),
    };
    if ours {
        next.run(request).await
    } else {
        api::problem(StatusCode::MISDIRECTED_REQUEST, "this Host is not served here")
            .into_response()
    }
}

/// The host of `host[:port]`, IPv6 without its brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests;
