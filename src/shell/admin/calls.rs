//! Calls over HTTP: records and ladders, by our key or by Ultravox's call id, live and after; and the
//! paths of Ultravox's API that the edge adds to. A call that is not ours is Ultravox's alone.

use super::{AdminState, api, pass};
use crate::billing::Cdr;
use crate::billing::cdr::CallDirection;
use crate::call::ladder::Ladder;
use crate::ground::{CallKey, limits};
use crate::media::plan::EarlyMedia;
use crate::shell::clock::Clock;
use crate::shell::signalling::{CallName, Request as Inquiry};
use crate::shell::store::Filter;
use crate::ultravox::is_identifier;
use crate::ultravox::sip_details::{SipSide, sip_details};
use axum::Json;
use axum::body::to_bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::oneshot;

/// Records in one answer, unless asked otherwise, and at most.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 1_000;
/// Live records of one list that signalling is asked for; the others are as the store has them, at most
/// some seconds old.
const REFRESHED_MAX: usize = 50;
/// How long a list waits for signalling.
const REFRESH_WAIT: Duration = Duration::from_secs(2);
/// Seconds of one deciminute.
const DECIMINUTE_S: u64 = 6;

/// The query of `GET /edge/calls`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsQuery {
    limit: Option<usize>,
    live: Option<bool>,
    agent_id: Option<String>,
    before: Option<String>,
}

/// The whole answer. Not a `Value` on its way, which would show a score of 3.8 with sixteen digits.
#[derive(Serialize)]
struct Records {
    calls: Vec<Cdr>,
}

/// `GET /edge/calls`: `{"calls": […]}`, newest first; the first live ones as they are now.
pub async fn records(
    State(state): State<AdminState>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return api::problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let before = match query.before.as_deref().map(str::parse::<CallKey>) {
        Some(Err(())) => return api::problem(StatusCode::BAD_REQUEST, "before: not a call key"),
        Some(Ok(key)) => Some(key),
        None => None,
    };
    let filter = Filter { live: query.live, agent_id: query.agent_id, before };
    let limit = query.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    match api::read(&state, move |reader| reader.list(&filter, limit)).await {
        Ok(mut calls) => {
            refresh(&state, &mut calls).await;
            if query.live == Some(true) {
                calls.retain(|call| !call.is_closed());
            }
            Json(Records { calls }).into_response()
        }
        Err(answer) => *answer,
    }
}

/// Brings the first live records up to now; where signalling does not answer, they stay as they are.
async fn refresh(state: &AdminState, calls: &mut [Cdr]) {
    let up = calls.iter().filter(|call| !call.is_closed());
    let keys: BTreeSet<CallKey> = up.take(REFRESHED_MAX).map(|call| call.key).collect();
    if keys.is_empty() {
        return;
    }
    let Ok(Some(found)) = tokio::time::timeout(REFRESH_WAIT, live_records(state, keys)).await
    else {
        return;
    };
    for now in found {
        if let Some(call) = calls.iter_mut().find(|call| call.key == now.key) {
            *call = now;
        }
    }
}

/// Of these calls those that are up, or that ended so lately that the signalling task still has them.
async fn live_records(state: &AdminState, keys: BTreeSet<CallKey>) -> Option<Vec<Cdr>> {
    let (reply, records) = oneshot::channel();
    state.signalling.upgrade()?.send(Inquiry::Records { keys, reply }).await.ok()?;
    records.await.ok()
}

/// `GET /edge/calls/{id}`: one record, of a live call as it is now.
pub async fn record(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    match find(&state, &id).await {
        Ok(Some(found)) => Json(found.record).into_response(),
        Ok(None) => no_such_call(),
        Err(answer) => *answer,
    }
}

/// The query of `GET /edge/calls/{id}/ladder`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LadderQuery {
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

/// `GET /edge/calls/{id}/ladder`: text, or JSON for who asks for it with `format=json` or `Accept`.
pub async fn ladder(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Result<Query<LadderQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return api::problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let wants_json = accept.is_some_and(|accept| accept.contains("application/json"));
    let format = query.format.unwrap_or(if wants_json { Format::Json } else { Format::Text });
    show_ladder(&state, &id, format).await
}

/// `GET /edge/logs/{link}`: the ladder that a link of `sip_logs` leads to.
pub async fn log_link(State(state): State<AdminState>, Path(link): Path<String>) -> Response {
    match state.desk.links.find(Clock::instant(), &link) {
        Some(key) => show_ladder(&state, &key.to_string(), Format::Text).await,
        None => api::problem(StatusCode::NOT_FOUND, "this link is unknown, or has run out"),
    }
}

async fn show_ladder(state: &AdminState, id: &str, format: Format) -> Response {
    let found = match find(state, id).await {
        Ok(Some(found)) => found,
        Ok(None) => return no_such_call(),
        Err(answer) => return *answer,
    };
    let Some(ladder) = found.ladder else {
        let words = "the ladder of this call is no longer kept";
        return api::problem(StatusCode::NOT_FOUND, words);
    };
    match format {
        Format::Json => {
            let live = !found.record.is_closed();
            let key = found.record.key.to_string();
            Json(json!({ "key": key, "live": live, "ladder": ladder })).into_response()
        }
        Format::Text => {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (kind, ladder.to_string()).into_response()
        }
    }
}

/// `GET /edge/calls/{id}/early_media`: what a call that we made heard before its agent joined, as a
/// WAV file in µ-law.
pub async fn early_media(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    let key = match find(&state, &id).await {
        Ok(Some(found)) => found.record.key,
        Ok(None) => return no_such_call(),
        Err(answer) => return *answer,
    };
    let Some(early) = kept_early_media(&state, key).await else {
        let words =
            "no early media of this call is kept: it had none, or newer calls took its place";
        return api::problem(StatusCode::NOT_FOUND, words);
    };
    let kind = [(header::CONTENT_TYPE, "audio/wav")];
    (kind, wav_in_mu_law(&early.mu_law)).into_response()
}

async fn kept_early_media(state: &AdminState, key: CallKey) -> Option<EarlyMedia> {
    let (reply, early) = oneshot::channel();
    state.signalling.upgrade()?.send(Inquiry::EarlyMedia(key, reply)).await.ok()?;
    early.await.ok().flatten()
}

/// A RIFF file of format 7 (µ-law), 8 kHz, one channel, with the `fact` chunk that formats other
/// than PCM need. An odd length gets its padding byte.
fn wav_in_mu_law(audio: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(audio.len()).unwrap_or(u32::MAX);
    let padded = bytes.saturating_add(bytes % 2);
    let mut file = Vec::with_capacity(audio.len() + 60);
    file.extend(b"RIFF");
    file.extend(padded.saturating_add(50).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(18u32.to_le_bytes());
    file.extend([7u16, 1].map(u16::to_le_bytes).concat());
    file.extend([8_000u32, 8_000].map(u32::to_le_bytes).concat());
    file.extend([1u16, 8, 0].map(u16::to_le_bytes).concat());
    file.extend(b"fact");
    file.extend([4, bytes].map(u32::to_le_bytes).concat());
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    file.extend(audio);
    file.resize(file.len() + audio.len() % 2, 0);
    file
}

fn no_such_call() -> Response {
    api::problem(StatusCode::NOT_FOUND, "no call has this key")
}

/// A call that the edge knows.
struct Found {
    record: Cdr,
    /// `None` when it is no longer kept.
    ladder: Option<Ladder>,
}

/// A call by our key or by Ultravox's call id: live, else from the store.
async fn find(state: &AdminState, id: &str) -> Result<Option<Found>, Box<Response>> {
    let name = match id.parse::<CallKey>() {
        Ok(key) => CallName::Key(key),
        Err(()) if is_identifier(id) => CallName::Ultravox(id.to_owned()),
        Err(()) => return Ok(None),
    };
    if let Some((record, ladder)) = live(state, name.clone()).await {
        return Ok(Some(Found { record: *record, ladder: Some(ladder) }));
    }
    api::read(state, move |reader| {
        let record = match &name {
            CallName::Key(key) => reader.get(*key)?,
            CallName::Ultravox(id) => reader.find_by_ultravox_call(id)?,
        };
        let Some(record) = record else { return Ok(None) };
        let ladder = reader.ladder(record.key)?;
        Ok(Some(Found { record, ladder }))
    })
    .await
}

/// A call that is up, or that ended so lately that the signalling task still has it.
async fn live(state: &AdminState, name: CallName) -> Option<(Box<Cdr>, Ladder)> {
    let (reply, call) = oneshot::channel();
    state.signalling.upgrade()?.send(Inquiry::Call { name, reply }).await.ok()?;
    call.await.ok().flatten()
}

/// `GET /api/calls/{call_id}`: Ultravox's answer; a call of ours as the SIP call that it is, with its
/// `sipDetails`.
pub async fn fetch(
    State(state): State<AdminState>,
    Path(call_id): Path<String>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // The answer is read and added to: it must come plain and whole.
    for name in [header::ACCEPT_ENCODING, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
        parts.headers.remove(name);
    }
    let read = match pass::read_body(&state, body).await {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    let passed = match pass::ask(&state, &parts, &read).await {
        Ok(passed) => passed,
        Err(refused) => return *refused,
    };
    let found = match find(&state, &call_id).await {
        Ok(Some(found)) if passed.status == StatusCode::OK => found,
        Ok(_) => return pass::answer(passed),
        Err(refused) => return *refused,
    };
    let (status, mut headers) = (passed.status, passed.headers);
    // It names a body that is not the one that goes back.
    headers.remove(header::ETAG);
    let body = axum::body::Body::new(passed.body);
    let Ok(bytes) = to_bytes(body, limits::REST_BODY_BYTES_MAX).await else {
        return api::problem(StatusCode::BAD_GATEWAY, "Ultravox's answer broke off or is too long");
    };
    let filled = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(mut call)) => {
            // What the leg cost stands at the first of its agent calls, and once.
            let is_first = found.record.ultravox_call_id.as_deref() == Some(call_id.as_str());
            let details = is_first.then(|| sip_details(side_of(&found.record)));
            call.insert("sipDetails".to_owned(), details.unwrap_or(Value::Null));
            call.insert("medium".to_owned(), medium_of(&found.record));
            // The edge has joined it, or will: nobody else can.
            call.insert("joinUrl".to_owned(), Value::Null);
            Value::Object(call).to_string().into()
        }
        Ok(_) | Err(_) => bytes,
    };
    pass::answer_with(status, headers, filled)
}

/// The medium as a client of Ultravox's own SIP sees it: the stream between is the edge's affair.
fn medium_of(record: &Cdr) -> Value {
    match record.direction {
        CallDirection::Incoming => json!({ "sip": { "incoming": {} } }),
        CallDirection::Outgoing => {
            json!({ "sip": { "outgoing": { "to": record.to_uri, "from": record.from_uri } } })
        }
    }
}

fn side_of(record: &Cdr) -> SipSide {
    SipSide {
        billed: Duration::from_secs(record.deciminutes.count().saturating_mul(DECIMINUTE_S)),
        answered: record.answered_at.is_some(),
        status: record.status,
        ended: record.is_closed(),
    }
}

/// `GET /api/calls/{call_id}/sip_logs`: of a call of ours 302 to its ladder, 425 while it is up, 404
/// when the ladder is no longer kept. Of any other call Ultravox's own answer.
pub async fn sip_logs(
    State(state): State<AdminState>,
    Path(call_id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let found = match find(&state, &call_id).await {
        Ok(Some(found)) => found,
        Ok(None) => return pass::pass(State(state), request).await,
        Err(refused) => return *refused,
    };
    if !found.record.is_closed() {
        return api::problem(StatusCode::TOO_EARLY, "the call is still up");
    }
    if found.ladder.is_none() {
        return api::problem(StatusCode::NOT_FOUND, "the log of this call is no longer kept");
    }
    let Some(link) = state.desk.links.make(Clock::instant(), found.record.key) else {
        return api::problem(StatusCode::SERVICE_UNAVAILABLE, "no link can be made now");
    };
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let origin = host.map_or(String::new(), |host| format!("{}://{host}", state.scheme()));
    (StatusCode::FOUND, [(header::LOCATION, format!("{origin}/edge/logs/{link}"))]).into_response()
}
