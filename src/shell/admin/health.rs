//! Whether the daemon lives, and whether it takes new calls: 200, or 503 with the reasons as JSON.
//! A draining daemon is healthy and not ready.

use super::AdminState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What the daemon knows of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Signalling made progress since the last look.
    pub signalling_alive: bool,
    /// Shards that made none.
    pub shards_stuck: Vec<usize>,
    /// SIGTERM came.
    pub draining: bool,
    /// No further call is taken: calls, ports or load.
    pub full: bool,
    /// Records cannot be written now.
    pub store_failing: bool,
    /// Listeners are up and the agent service can be addressed.
    pub started: bool,
    pub calls: usize,
}

impl Health {
    /// Why the process should be restarted; empty when it lives.
    pub fn ills(&self) -> Vec<String> {
        let mut ills = Vec::new();
        if !self.signalling_alive {
            ills.push("signalling makes no progress".to_owned());
        }
        for shard in &self.shards_stuck {
            ills.push(format!("media shard {shard} makes no progress"));
        }
        ills
    }

    /// Why no new call should be sent here; empty when calls are taken. A store that fails is no
    /// reason: its records wait in memory, and calls go on.
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = self.ills();
        if !self.started {
            refusals.push("starting".to_owned());
        }
        if self.draining {
            refusals.push("draining".to_owned());
        }
        if self.full {
            refusals.push("at capacity".to_owned());
        }
        refusals
    }
}

fn answer(word: &str, reasons: Vec<String>, health: &Health) -> Response {
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let warnings: &[&str] =
        if health.store_failing { &["call records wait in memory: look at the disk"] } else { &[] };
    let body = json!({
        word: reasons.is_empty(),
        "reasons": reasons,
        "warnings": warnings,
        "calls": health.calls,
    });
    (status, Json(body)).into_response()
}

/// `GET /health`.
pub async fn health(State(state): State<AdminState>) -> Response {
    let health = (state.health)();
    answer("healthy", health.ills(), &health)
}

/// `GET /ready`.
pub async fn ready(State(state): State<AdminState>) -> Response {
    let health = (state.health)();
    answer("ready", health.refusals(), &health)
}
