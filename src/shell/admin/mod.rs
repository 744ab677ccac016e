//! The admin listener: HTTP or HTTPS, on loopback unless the operator says otherwise. It watches the
//! daemon, configures the account, shows records and ladders, and stands before Ultravox's API: what
//! the edge does not answer itself is passed on. `routes` is the table of all paths with the right
//! that each needs, `keys` judges the key. Requests with a `Host` that is not ours are refused
//! (rebinding), bodies are bounded, and no CORS header of ours is ever sent.
//!
//! ```text
//! GET    /health, /ready, /metrics      no key
//! GET    /api/sip                       the account's configuration, as Ultravox's API has it
//! PATCH  /api/sip                       changes it, when the API manages the account
//! GET    /api/sip/registrations         and POST; GET, PATCH, DELETE with /{registration_id}
//! GET    /api/calls/{id}                Ultravox's answer with our sipDetails
//! POST   /api/calls                     and /api/agents/{id}/calls: with medium.sip.outgoing a call
//!                                       that this daemon dials
//! POST   /api/calls/{id}/send_data_message   hang_up ends a call that rings
//! GET    /api/calls/{id}/sip_logs       302 to the ladder of a call of ours
//! *      /api/…                         passed through to Ultravox
//! GET    /edge/calls, /edge/calls/{id}, /edge/calls/{id}/ladder,
//!        /edge/calls/{id}/early_media
//! GET    /edge/live                     the legs of running calls, as their media goes just now
//! GET    /edge/registrations            the state of each, with the reason in words
//! GET    /edge/unlisted                 who knocked without being in an allowed range
//! GET    /edge/config                   what is in force, and who manages it
//! POST   /edge/reload                   reads the configuration file again
//! ```

mod account;
pub mod api;
mod calls;
pub mod client;
pub mod health;
mod keys;
mod links;
mod listener;
pub mod live;
pub mod metrics;
mod outgoing;
mod pass;
mod registrations;
mod routes;
mod unlisted;

pub use keys::{Failures, Holder, Keys, Right};
pub use links::LogLinks;
pub use registrations::States;
pub use routes::{Class, ROUTES, Row};

use crate::ground::limits;
use crate::shell::account::Account;
use crate::shell::agent::rest::AgentService;
use crate::shell::clock::Clock;
use crate::shell::flow::UnlistedSource;
use crate::shell::media::CallView;
use crate::shell::signalling::Request as Inquiry;
use crate::shell::store::{Reader, StoreCounters, StoreFault};
use crate::shell::tls::ServerConfig;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use keys::Denial;
use listener::{Door, Source};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

/// Reads the configuration file again: what changed in words, or why nothing did.
pub type Reload = Arc<
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<String>, ReloadFault>> + Send>>
        + Send
        + Sync,
>;

/// Why the file was not put in force.
#[derive(Debug)]
pub enum ReloadFault {
    /// It has errors: its report, or there is no file.
    Refused(String),
    Change(crate::shell::account::ChangeFault),
}

impl std::fmt::Display for ReloadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReloadFault::Refused(words) => f.write_str(words.trim_end()),
            ReloadFault::Change(fault) => write!(f, "{fault}"),
        }
    }
}

/// Asks the media threads; what does not answer in time is left out.
pub type Legs = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<CallView>> + Send>> + Send + Sync>;

/// What the daemon lends to its admin listener. Closures are called for each request and must not
/// wait.
#[derive(Clone)]
pub struct AdminState {
    pub keys: Keys,
    /// The address that the listener is bound to.
    pub listen: SocketAddr,
    /// The listener speaks TLS.
    pub secure: bool,
    pub account: Arc<Account>,
    pub agents: Arc<AgentService>,
    /// Where live calls are asked for; weak, since the daemon alone decides when signalling ends.
    pub signalling: mpsc::WeakSender<Inquiry>,
    pub reload: Reload,
    /// What is known of the registrations.
    pub registrations: Arc<dyn Fn() -> States + Send + Sync>,
    /// Who knocked without being listed, the one seen last first.
    pub unlisted: Arc<dyn Fn() -> Vec<UnlistedSource> + Send + Sync>,
    pub metrics: Arc<dyn Fn() -> metrics::Snapshot + Send + Sync>,
    /// How the legs of running calls go just now.
    pub legs: Legs,
    pub health: Arc<dyn Fn() -> health::Health + Send + Sync>,
    /// The database that the records are read from.
    pub store: Arc<PathBuf>,
    pub desk: Arc<Desk>,
}

/// What the listener keeps for itself.
pub struct Desk {
    failures: Failures,
    links: LogLinks,
    requests: Mutex<BTreeMap<(Class, u16), u64>>,
    /// One for each request that may be passed on at once.
    passing: Semaphore,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            failures: Failures::default(),
            links: LogLinks::default(),
            requests: Mutex::default(),
            passing: Semaphore::new(limits::PASSED_MAX),
        }
    }
}

impl Desk {
    fn count(&self, class: Class, status: StatusCode) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((class, status.as_u16())).or_default() += 1;
    }

    /// Requests answered since the start, by class and status.
    pub fn requests(&self) -> BTreeMap<(&'static str, u16), u64> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests
            .iter()
            .map(|((class, status), count)| ((class.as_str(), *status), *count))
            .collect()
    }
}

impl AdminState {
    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

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

/// Serves until `stop` resolves, over TLS when `tls` is given; requests in progress are finished.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    state: AdminState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<Source>();
    axum::serve(Door::new(listener, tls), service).with_graceful_shutdown(stop).await
}

/// Every route of the listener, with its guards.
fn router(state: AdminState) -> Router {
    let mut router = Router::new();
    for row in ROUTES {
        let guarded = Guarded { state: state.clone(), row };
        let guard = middleware::from_fn_with_state(guarded, guard);
        router = router.route(row.path, row.handler().layer(guard));
    }
    router
        .fallback(api::no_such_path)
        .layer(axum::extract::DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), require_own_host))
        .with_state(state)
}

#[derive(Clone)]
struct Guarded {
    state: AdminState,
    row: &'static Row,
}

/// The key of each request, and its count.
async fn guard(
    State(Guarded { state, row }): State<Guarded>,
    ConnectInfo(source): ConnectInfo<Source>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get("x-api-key").map_or(&b""[..], |value| value.as_bytes());
    let (failures, now) = (&state.desk.failures, Clock::instant());
    let answer = match state.keys.judge(failures, now, source.0, row.right, given) {
        Ok(holder) => {
            holder.map(|holder| request.extensions_mut().insert(holder));
            next.run(request).await
        }
        Err(Denial::Unknown) => {
            tracing::debug!(source = %source.0, path = row.path, "a request without a right key");
            api::problem(StatusCode::UNAUTHORIZED, "X-API-Key is missing or wrong")
        }
        Err(Denial::NotAdmins) => api::problem(
            StatusCode::FORBIDDEN,
            "this goes on to Ultravox: send the account's Ultravox key in X-API-Key, not the admin \
             key",
        ),
        Err(Denial::Wait(wait)) => {
            let words = "too many wrong keys came from this address: try again later";
            let mut answer = api::problem(StatusCode::TOO_MANY_REQUESTS, words);
            let seconds = HeaderValue::from(wait.as_secs() + 1);
            answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            answer
        }
    };
    state.desk.count(row.class, answer.status());
    answer
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
