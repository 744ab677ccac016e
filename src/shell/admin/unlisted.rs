//! `GET /edge/unlisted`: who knocked without being in an allowed range, the one seen last first. The
//! first thing to look at when a PBX's calls do not come in.

use super::AdminState;
use crate::billing::cdr::rfc3339;
use crate::shell::flow::UnlistedSource;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `{"sources": [{address, transport, count, lastSeen}]}`: packets, or connections, since the source
/// was first seen; the table is bounded, and forgets who was not seen for longest.
pub async fn unlisted(State(state): State<AdminState>) -> Response {
    let sources: Vec<Value> = (state.unlisted)().iter().map(row).collect();
    Json(json!({ "sources": sources })).into_response()
}

fn row(source: &UnlistedSource) -> Value {
    json!({
        "address": source.address,
        "transport": source.transport.uri_param(),
        "count": source.count,
        "lastSeen": rfc3339(source.last_seen),
    })
}
