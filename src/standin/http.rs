//! The stand-in's HTTP side: the agent service's REST paths, the upgrade of media streams, and its own
//! `/standin` paths for faults and observations. Bodies are checked against `ultravox::schema`; a
//! refusal is a 400 that names each field with its problems.

#![expect(clippy::result_large_err, reason = "an axum response is the error, moved once a request")]

use super::conversation::Medium;
use super::fault::{Fault, FaultRule, Stage};
use super::listener::Peer;
use super::record::{CallRecord, JoinFault, NewCall, SharedCall, StageRecord, lock};
use super::script::{self, AgentScript};
use super::{Arrival, World, context, tools};
use crate::ground::{Secret, WallTime, limits};
use crate::shell::clock::Clock;
use crate::ultravox::{parse_duration, schema};
use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `joinTimeout` when a request names none.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

type Shared = State<Arc<World>>;
type Peered = ConnectInfo<Peer>;
type Queries = Query<BTreeMap<String, String>>;

/// All paths.
pub fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/api/agents", get(list_agents))
        .route("/api/agents/{agent_id}", get(fetch_agent))
        .route("/api/agents/{agent_id}/calls", post(create_agent_call))
        .route("/api/calls", post(create_call))
        .route("/api/calls/{call_id}", get(fetch_call))
        .route("/api/calls/{call_id}/stages", get(list_stages))
        .route("/api/calls/{call_id}/stages/{stage_id}/tools", get(list_stage_tools))
        .route("/calls/{call_id}/server_web_socket", any(join))
        .route("/standin/faults", post(add_fault).delete(clear_faults))
        .route("/standin/agents", post(add_agent))
        .route("/standin/calls", get(list_observed))
        .with_state(world)
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn refuse(status: u16, detail: &str) -> Response {
    answer(status, &json!({"detail": detail}))
}

/// `{path: [problem, …], …}`, as a field-error map.
fn field_problems(problems: impl Iterator<Item = (String, String)>) -> Response {
    let mut fields: Map<String, Value> = Map::new();
    for (path, what) in problems {
        let name = if path.is_empty() { "detail".to_owned() } else { path };
        let texts = fields.entry(name).or_insert_with(|| json!([]));
        texts.as_array_mut().map(|texts| texts.push(what.into())).unwrap_or_default();
    }
    answer(400, &Value::Object(fields))
}

fn check_key(world: &World, headers: &HeaderMap) -> Result<(), Response> {
    let key = headers.get("x-api-key").map(|value| value.as_bytes()).unwrap_or_default();
    if !key.is_empty() && world.api_key.matches(key) {
        return Ok(());
    }
    Err(refuse(401, "Invalid API key."))
}

/// What a fault leaves to be done by the handler.
#[derive(PartialEq)]
enum Twist {
    None,
    NullJoinUrl,
}

/// Lets a fault strike. `Err` is the answer instead of the right one.
async fn strike(
    world: &World,
    peer: &Peer,
    stage: Stage,
    agent_id: Option<&str>,
) -> Result<Twist, Response> {
    let created = if stage == Stage::Create { 201 } else { 200 };
    match world.faults.strike(stage, agent_id) {
        None => Ok(Twist::None),
        Some(Fault::Status { status, retry_after }) => {
            let mut response = refuse(status, "a fault on demand");
            if let Some(value) = retry_after.and_then(|value| value.parse().ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            Err(response)
        }
        Some(Fault::Slow { ms }) => {
            // Either way the right answer follows: in time, or as the stand-in stops.
            let _ = tokio::time::timeout(Duration::from_millis(ms), world.stopped()).await;
            Ok(Twist::None)
        }
        Some(Fault::NeverAnswers) => {
            world.stopped().await;
            Err(refuse(503, "the stand-in stops"))
        }
        Some(Fault::Drop { .. }) => {
            peer.cut();
            Err(refuse(500, "never sent"))
        }
        Some(Fault::BadJson) => Err(answer_text(created, "{\"callId\": ")),
        Some(Fault::MissingJoinUrl) => Ok(Twist::NullJoinUrl),
        Some(Fault::Oversize { bytes }) => Err(answer_text(created, &"x".repeat(bytes))),
        Some(Fault::Redirect { location }) => {
            let mut response = refuse(307, "elsewhere");
            if let Ok(value) = location.parse() {
                response.headers_mut().insert(header::LOCATION, value);
            }
            Err(response)
        }
        Some(Fault::Close { .. } | Fault::Garbage | Fault::NeverReads) => Ok(Twist::None),
    }
}

fn answer_text(status: u16, body: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_owned()).into_response()
}

fn parse_body(body: &[u8]) -> Result<Value, Response> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body).map_err(|_| refuse(400, "JSON parse error."))
}

async fn create_agent_call(
    State(world): Shared,
    ConnectInfo(peer): Peered,
    Path(agent_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let twist = strike(&world, &peer, Stage::Create, Some(&agent_id)).await?;
    let script = world.agent(&agent_id).ok_or_else(|| refuse(404, "Not found."))?;
    let body = parse_body(&body)?;
    let problems = schema::check_start(&schema::START_AGENT_CALL, &body);
    if !problems.is_empty() {
        return Err(field_problems(problems.into_iter().map(|p| (p.path, p.what.to_string()))));
    }
    if let Some(wanted) = &script.context_schema {
        let context = body.get("templateContext").cloned().unwrap_or_else(|| json!({}));
        let problems = context::check(wanted, &context);
        if !problems.is_empty() {
            return Err(field_problems(problems.into_iter()));
        }
    }
    let medium = Medium::of(&body).ok_or_else(other_medium)?;
    let tools = tools::of_agent(&script.tools, &body).map_err(one_problem)?;
    let opening = Opening { script, agent_id: Some(agent_id), prior: None, medium, tools };
    let call = open(&world, opening, body)?;
    Ok(created(&world, &call, twist))
}

/// Without an agent the call speaks the sentence; with `priorCallId` it goes on as that call did.
async fn create_call(
    State(world): Shared,
    ConnectInfo(peer): Peered,
    Query(queries): Queries,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let twist = strike(&world, &peer, Stage::Create, None).await?;
    let body = parse_body(&body)?;
    let problems = schema::check_start(&schema::START_CALL, &body);
    if !problems.is_empty() {
        return Err(field_problems(problems.into_iter().map(|p| (p.path, p.what.to_string()))));
    }
    let prior = queries.get("priorCallId").cloned();
    if prior.is_some() && body.get("initialMessages").is_some() {
        let words = "may not be given with priorCallId".to_owned();
        return Err(one_problem(("initialMessages".to_owned(), words)));
    }
    let before = match &prior {
        Some(id) => {
            let call = world.calls().find(id);
            Some(call.ok_or_else(|| refuse(400, "priorCallId: no such call"))?)
        }
        None => None,
    };
    let before = before.map(|call| {
        let record = lock(&call);
        let tools = record.stages.last().map(|stage| stage.tools.clone());
        (record.script.clone(), record.medium.clone(), tools)
    });
    let (script, prior_medium, prior_tools) = match before {
        Some(before) => before,
        None => {
            let script = world.agent(script::SPEECH);
            (script.ok_or_else(|| refuse(500, "no speech agent"))?, None, None)
        }
    };
    let medium = Medium::of(&body).or(prior_medium).ok_or_else(other_medium)?;
    let tools = tools::of_request(&body, prior_tools).map_err(one_problem)?;
    let call = open(&world, Opening { script, agent_id: None, prior, medium, tools }, body)?;
    Ok(created(&world, &call, twist))
}

fn one_problem(problem: (String, String)) -> Response {
    field_problems(std::iter::once(problem))
}

/// What a new call is, apart from its request.
struct Opening {
    script: Arc<AgentScript>,
    agent_id: Option<String>,
    prior: Option<String>,
    medium: Medium,
    tools: Vec<Value>,
}

fn other_medium() -> Response {
    one_problem(("medium".into(), "the stand-in has serverWebSocket only".into()))
}

fn open(world: &World, opening: Opening, body: Value) -> Result<SharedCall, Response> {
    let now = Clock::now();
    let mut calls = world.calls();
    if world.calls_max.is_some_and(|most| calls.live(now.at) >= most) {
        let mut response = refuse(429, "Concurrency limit reached.");
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        return Err(response);
    }
    let join_timeout = body.get("joinTimeout").and_then(Value::as_str).and_then(parse_duration);
    let (call_id, token) = world.draw_ids();
    let new = NewCall {
        call_id,
        token: Secret::new(token),
        agent_id: opening.agent_id,
        script: opening.script,
        medium: Some(opening.medium),
        join_timeout: join_timeout.unwrap_or(JOIN_TIMEOUT),
        prior: opening.prior,
        tools: opening.tools,
        request: body,
    };
    let call = calls.create(now.at, now.wall, new);
    drop(calls);
    world.on_change();
    Ok(call)
}

fn created(world: &World, call: &SharedCall, twist: Twist) -> Response {
    let mut body = call_json(world, &lock(call));
    if twist == Twist::NullJoinUrl {
        body["joinUrl"] = Value::Null;
    }
    answer(201, &body)
}

/// A Call of the published schema, with every member that it requires.
pub fn call_json(world: &World, record: &CallRecord) -> Value {
    let seen = record.observed(Clock::instant());
    let request = &seen.request;
    let (joined, ended) = record.walls();
    let part = |name: &str, absent: Value| request.get(name).cloned().unwrap_or(absent);
    let join_url = format!(
        "{}/calls/{}/server_web_socket?token={}",
        world.stream_origin,
        seen.call_id,
        record.token.reveal()
    );
    json!({
        "callId": seen.call_id,
        "clientVersion": null,
        "created": iso_time(record.created_wall),
        "joined": joined.map(iso_time),
        "ended": ended.map(iso_time),
        "endReason": seen.end_reason,
        "billedDuration": null,
        "billedSideInputTokens": null,
        "billedSideOutputTokens": null,
        "billingStatus": "BILLING_STATUS_PENDING",
        "firstSpeaker": "FIRST_SPEAKER_AGENT",
        "firstSpeakerSettings": part("firstSpeakerSettings", json!({"agent": {}})),
        "initialOutputMedium": "MESSAGE_MEDIUM_VOICE",
        "joinTimeout": part("joinTimeout", json!("30s")),
        "joinUrl": join_url,
        "model": part("model", json!("ultravox-v0.7")),
        "temperature": part("temperature", json!(0)),
        "languageHint": part("languageHint", json!("en")),
        "voice": part("voice", json!("Mark")),
        "externalVoice": part("externalVoice", Value::Null),
        "voiceOverrides": part("voiceOverrides", Value::Null),
        "maxDuration": part("maxDuration", json!("3600s")),
        "medium": part("medium", Value::Null),
        "recordingEnabled": part("recordingEnabled", json!(false)),
        "shortSummary": null,
        "summary": null,
        "agent": {"agentId": seen.agent_id, "name": record.script.name},
        "agentId": seen.agent_id,
        "experimentalSettings": null,
        "metadata": part("metadata", json!({})),
        "initialState": part("initialState", json!({})),
        "requestContext": part("templateContext", json!({})),
        "sipDetails": null,
    })
}

/// `2026-11-21T11:08:11.000000Z`, by the days-to-date rule of the proleptic Gregorian calendar.
fn iso_time(wall: WallTime) -> String {
    let micros = wall.unix_micros();
    let (days, within) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (within / 1_000_000, within % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// An Agent of the published schema.
fn agent_json(world: &World, script: &AgentScript) -> Value {
    let mut template = json!({"systemPrompt": "", "joinTimeout": "30s", "maxDuration": "3600s",
        "selectedTools": script.tools});
    if let Some(schema) = &script.context_schema {
        template["contextSchema"] = schema.clone();
    }
    json!({
        "agentId": script.agent_id,
        "publishedRevisionId": script.agent_id,
        "name": script.name,
        "created": iso_time(world.started),
        "callTemplate": template,
        "statistics": {"calls": 0},
    })
}

async fn fetch_agent(
    State(world): Shared,
    ConnectInfo(peer): Peered,
    Path(agent_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    strike(&world, &peer, Stage::Fetch, Some(&agent_id)).await?;
    let script = world.agent(&agent_id).ok_or_else(|| refuse(404, "Not found."))?;
    Ok(answer(200, &agent_json(&world, &script)))
}

async fn list_agents(State(world): Shared, headers: HeaderMap) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let results: Vec<Value> =
        world.all_agents().iter().map(|script| agent_json(&world, script)).collect();
    Ok(answer(
        200,
        &json!({"next": null, "previous": null, "total": results.len(), "results": results}),
    ))
}

async fn fetch_call(
    State(world): Shared,
    Path(call_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let call = world.calls().find(&call_id).ok_or_else(|| refuse(404, "Not found."))?;
    let body = call_json(&world, &lock(&call));
    Ok(answer(200, &body))
}

async fn list_stages(
    State(world): Shared,
    Path(call_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let call = world.calls().find(&call_id).ok_or_else(|| refuse(404, "Not found."))?;
    let record = lock(&call);
    let stage = |stage: &StageRecord| {
        json!({"callId": call_id, "callStageId": stage.stage_id, "systemPrompt": stage.system_prompt,
            "created": iso_time(stage.created_wall), "model": "ultravox-v0.7"})
    };
    let results: Vec<Value> = record.stages.iter().map(stage).collect();
    Ok(answer(200, &json!({"next": null, "previous": null, "results": results})))
}

async fn list_stage_tools(
    State(world): Shared,
    Path((call_id, stage_id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let call = world.calls().find(&call_id).ok_or_else(|| refuse(404, "Not found."))?;
    let record = lock(&call);
    let stage = record.stages.iter().find(|stage| stage.stage_id == stage_id);
    let stage = stage.ok_or_else(|| refuse(404, "Not found."))?;
    Ok(answer(200, &tools::call_tools(&stage.tools)))
}

/// The upgrade. The URL is the credential: no key is asked for, and it works once.
async fn join(
    State(world): Shared,
    ConnectInfo(peer): Peered,
    Path(call_id): Path<String>,
    Query(queries): Queries,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Response> {
    let agent_id = world.calls().find(&call_id).map(|call| lock(&call).script.agent_id.clone());
    strike(&world, &peer, Stage::Join, agent_id.as_deref()).await?;
    let token = queries.get("token").map(String::as_str).unwrap_or_default();
    let joined = world.calls().join(Clock::instant(), &call_id, token);
    let call = joined.map_err(|fault| match fault {
        JoinFault::NoSuchCall => refuse(404, "No such call."),
        JoinFault::WrongToken => refuse(403, "Not your call."),
        JoinFault::AlreadyJoined => refuse(409, "The call has been joined."),
        JoinFault::TooLate => refuse(410, "The join timeout is over."),
    })?;
    world.on_change();
    let sockets = world.sockets.clone();
    let upgrade = upgrade
        .max_frame_size(limits::AGENT_FRAME_BYTES_MAX)
        .max_message_size(limits::AGENT_MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(|socket| async move {
        // When nobody takes the socket the stand-in stops, and the socket closes with it.
        let _ = sockets.send(Arrival { socket, call }).await;
    }))
}

async fn add_fault(
    State(world): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let rule: FaultRule =
        serde_json::from_slice(&body).map_err(|error| refuse(400, &error.to_string()))?;
    if !world.faults.add(rule) {
        return Err(refuse(409, "too many rules"));
    }
    Ok(answer(201, &json!({})))
}

async fn clear_faults(State(world): Shared, headers: HeaderMap) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    world.faults.clear();
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn add_agent(
    State(world): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let script: AgentScript =
        serde_json::from_slice(&body).map_err(|error| refuse(400, &error.to_string()))?;
    if !schema::is_uuid(&script.agent_id) {
        return Err(refuse(400, "agentId must be a UUID"));
    }
    if !world.add_agent(script) {
        return Err(refuse(409, "too many agents"));
    }
    Ok(answer(201, &json!({})))
}

async fn list_observed(State(world): Shared, headers: HeaderMap) -> Result<Response, Response> {
    check_key(&world, &headers)?;
    let observed = world.calls().observed(Clock::instant());
    let results: Vec<Value> = observed.iter().map(super::record::Observed::to_json).collect();
    Ok(answer(200, &json!({"results": results})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_are_written_as_iso_8601() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_795_259_291, "2026-11-21T11:08:11.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(iso_time(WallTime::from_unix_micros(seconds * 1_000_000)), text);
        }
    }
}
