//! The stand-in's memory: which calls were created, which joined, what came in and how they ended.
//! Tests and the load kit read it as [`Observed`] values.

use super::conversation::{EndReason, Medium};
use super::script::AgentScript;
use super::tools;
use crate::ground::{Instant, Secret, WallTime};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Calls that are remembered; the oldest ended one makes place.
const CALLS_MAX: usize = 10_000;
/// Text messages of one call that are kept.
const TEXTS_MAX: usize = 256;
/// Stages of one call.
const STAGES_MAX: usize = 64;
/// Seconds of one call whose samples are counted apart.
const SECONDS_MAX: usize = 4 * 3_600;

/// What the stand-in saw of one call. A copy: the call may go on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Observed {
    pub call_id: String,
    /// `None`: created without an agent.
    pub agent_id: Option<String>,
    /// `priorCallId` of the request that created the call.
    pub prior_call_id: Option<String>,
    /// The body of the request that created the call.
    pub request: Value,
    pub joined: bool,
    /// Milliseconds from the creation to the join.
    pub joined_after_ms: Option<u64>,
    /// Milliseconds from the join to the end, or to now.
    pub joined_ms: u64,
    pub samples_received: u64,
    pub frames_received: u64,
    /// Frames with an odd number of bytes: half a sample.
    pub odd_frames: u64,
    /// Samples that came in each whole or begun second since the join.
    pub samples_per_second: Vec<u32>,
    /// The longest time between two frames, in milliseconds.
    pub longest_gap_ms: u64,
    pub samples_sent: u64,
    pub texts: Vec<String>,
    /// Text messages that broke the documented shapes, in words.
    pub text_problems: Vec<String>,
    /// Code of the client's close frame (1005: without a code).
    pub client_close: Option<u16>,
    /// Code of our close frame.
    pub server_close: Option<u16>,
    /// `endReason`; `None` while the call is live.
    pub end_reason: Option<&'static str>,
    /// The caller's audio, little-endian, when the stand-in captures.
    pub capture: Vec<u8>,
}

impl Observed {
    /// For `GET /standin/calls`: everything but the capture.
    pub fn to_json(&self) -> Value {
        json!({
            "callId": self.call_id, "agentId": self.agent_id,
            "priorCallId": self.prior_call_id, "request": self.request,
            "joined": self.joined, "joinedAfterMs": self.joined_after_ms, "joinedMs": self.joined_ms,
            "samplesReceived": self.samples_received, "framesReceived": self.frames_received,
            "oddFrames": self.odd_frames, "samplesPerSecond": self.samples_per_second,
            "longestGapMs": self.longest_gap_ms, "samplesSent": self.samples_sent,
            "texts": self.texts, "textProblems": self.text_problems,
            "clientClose": self.client_close, "serverClose": self.server_close,
            "endReason": self.end_reason,
        })
    }
}

/// One call.
pub struct CallRecord {
    pub script: Arc<AgentScript>,
    pub medium: Option<Medium>,
    pub token: Secret,
    pub created: Instant,
    pub created_wall: WallTime,
    pub join_timeout: Duration,
    /// The prompts and tools of the call, the present one last.
    pub stages: Vec<StageRecord>,
    joined_at: Option<Instant>,
    ended_at: Option<Instant>,
    last_frame_at: Option<Instant>,
    capture_bytes_max: usize,
    seen: Observed,
}

/// One stage of a call.
pub struct StageRecord {
    pub stage_id: String,
    pub created_wall: WallTime,
    pub system_prompt: Value,
    /// `selectedTools`.
    pub tools: Vec<Value>,
}

/// Why a stream may not be joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinFault {
    NoSuchCall,
    WrongToken,
    AlreadyJoined,
    TooLate,
}

impl CallRecord {
    /// Takes a frame of the caller's audio into account.
    pub fn on_audio(&mut self, now: Instant, frame: &[u8]) {
        let samples = (frame.len() / 2) as u32;
        self.seen.samples_received += u64::from(samples);
        self.seen.frames_received += 1;
        self.seen.odd_frames += (frame.len() % 2) as u64;
        let begun = self.joined_at.unwrap_or(now);
        let gap = now.since(self.last_frame_at.unwrap_or(begun)).as_millis() as u64;
        self.seen.longest_gap_ms = self.seen.longest_gap_ms.max(gap);
        self.last_frame_at = Some(now);
        let second = now.since(begun).as_secs() as usize;
        if second < SECONDS_MAX {
            if self.seen.samples_per_second.len() <= second {
                self.seen.samples_per_second.resize(second + 1, 0);
            }
            self.seen.samples_per_second[second] += samples;
        }
        let room = self.capture_bytes_max.saturating_sub(self.seen.capture.len());
        self.seen.capture.extend_from_slice(&frame[..frame.len().min(room)]);
    }

    pub fn on_text(&mut self, text: &str, problems: impl Iterator<Item = String>) {
        if self.seen.texts.len() < TEXTS_MAX {
            self.seen.texts.push(text.to_owned());
            self.seen.text_problems.extend(problems);
        }
    }

    /// The names of the tools that the client answers.
    pub fn client_tools(&self) -> BTreeSet<String> {
        self.stages.last().map(|stage| tools::of_client(&stage.tools)).unwrap_or_default()
    }

    /// Begins the stage that the JSON of a `new-stage` result describes; what it does not name stays.
    pub fn begin_stage(&mut self, stage_id: String, created_wall: WallTime, result: &Value) {
        let part = |name: &str| result.get(name).filter(|value| !value.is_null());
        let last = self.stages.last();
        let system_prompt = part("systemPrompt").or(last.map(|stage| &stage.system_prompt));
        let tools = part("selectedTools").and_then(Value::as_array);
        let stage = StageRecord {
            stage_id,
            created_wall,
            system_prompt: system_prompt.cloned().unwrap_or_default(),
            tools: tools.or(last.map(|stage| &stage.tools)).cloned().unwrap_or_default(),
        };
        if self.stages.len() < STAGES_MAX {
            self.stages.push(stage);
        }
    }

    pub fn on_sent(&mut self, bytes: usize) {
        self.seen.samples_sent += (bytes / 2) as u64;
    }

    pub fn on_client_close(&mut self, code: u16) {
        self.seen.client_close = Some(code);
    }

    pub fn on_server_close(&mut self, code: u16) {
        self.seen.server_close = Some(code);
    }

    /// The end of the stream. The first reason stays.
    pub fn on_end(&mut self, now: Instant, reason: EndReason) {
        if self.ended_at.is_none() {
            self.ended_at = Some(now);
            self.seen.end_reason = Some(reason.as_str());
        }
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.joined_at.is_none() && now.since(self.created) > self.join_timeout
    }

    fn is_live(&self, now: Instant) -> bool {
        self.ended_at.is_none() && !self.is_expired(now)
    }

    /// What was seen until `now`.
    pub fn observed(&self, now: Instant) -> Observed {
        let mut seen = self.seen.clone();
        if self.is_expired(now) {
            seen.end_reason = Some(EndReason::Unjoined.as_str());
        }
        if let Some(joined_at) = self.joined_at {
            seen.joined = true;
            seen.joined_after_ms = Some(joined_at.since(self.created).as_millis() as u64);
            seen.joined_ms = self.ended_at.unwrap_or(now).since(joined_at).as_millis() as u64;
        }
        seen
    }

    /// Wall times of the join and the end.
    pub fn walls(&self) -> (Option<WallTime>, Option<WallTime>) {
        let wall = |at: Instant| {
            let micros = i64::try_from(at.since(self.created).as_micros()).unwrap_or(i64::MAX);
            WallTime::from_unix_micros(self.created_wall.unix_micros().saturating_add(micros))
        };
        (self.joined_at.map(wall), self.ended_at.map(wall))
    }
}

/// A call that several parts hold: its own lock, so that calls do not wait for each other.
pub type SharedCall = Arc<Mutex<CallRecord>>;

/// The lock of a call; a poisoned one is taken over, since records are plain counters.
pub fn lock(call: &SharedCall) -> MutexGuard<'_, CallRecord> {
    call.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that a new call is made of.
pub struct NewCall {
    pub call_id: String,
    pub token: Secret,
    /// `None` for a call without an agent.
    pub agent_id: Option<String>,
    pub script: Arc<AgentScript>,
    pub medium: Option<Medium>,
    pub join_timeout: Duration,
    pub prior: Option<String>,
    /// The tools that it begins with.
    pub tools: Vec<Value>,
    pub request: Value,
}

/// All calls, by their id and in order of creation.
#[derive(Default)]
pub struct Calls {
    by_id: BTreeMap<String, SharedCall>,
    order: Vec<String>,
    capture_bytes_max: usize,
}

impl Calls {
    /// No calls yet; `capture_bytes_max` bytes of each caller's audio will be kept.
    pub fn new(capture_bytes_max: usize) -> Calls {
        Calls { capture_bytes_max, ..Calls::default() }
    }

    /// Remembers a new call.
    pub fn create(&mut self, now: Instant, wall: WallTime, new: NewCall) -> SharedCall {
        if self.order.len() >= CALLS_MAX {
            self.forget_one(now);
        }
        let stage = StageRecord {
            // The first stage has the call's own id.
            stage_id: new.call_id.clone(),
            created_wall: wall,
            system_prompt: new.request.get("systemPrompt").cloned().unwrap_or_default(),
            tools: new.tools,
        };
        let seen = Observed {
            call_id: new.call_id.clone(),
            agent_id: new.agent_id,
            prior_call_id: new.prior,
            request: new.request,
            ..Observed::default()
        };
        let call = Arc::new(Mutex::new(CallRecord {
            script: new.script,
            medium: new.medium,
            token: new.token,
            created: now,
            created_wall: wall,
            join_timeout: new.join_timeout,
            stages: vec![stage],
            joined_at: None,
            ended_at: None,
            last_frame_at: None,
            capture_bytes_max: self.capture_bytes_max,
            seen,
        }));
        self.order.push(new.call_id.clone());
        self.by_id.insert(new.call_id, call.clone());
        call
    }

    fn forget_one(&mut self, now: Instant) {
        let over = |id: &String| self.by_id.get(id).is_none_or(|call| !lock(call).is_live(now));
        let index = self.order.iter().position(over).unwrap_or(0);
        let id = self.order.remove(index);
        self.by_id.remove(&id);
    }

    pub fn find(&self, call_id: &str) -> Option<SharedCall> {
        self.by_id.get(call_id).cloned()
    }

    /// Checks a join URL and uses it up.
    ///
    /// # Errors
    /// [`JoinFault`]: nothing was joined.
    pub fn join(&self, now: Instant, call_id: &str, token: &str) -> Result<SharedCall, JoinFault> {
        let call = self.find(call_id).ok_or(JoinFault::NoSuchCall)?;
        let mut record = lock(&call);
        if !record.token.matches(token.as_bytes()) {
            return Err(JoinFault::WrongToken);
        }
        if record.joined_at.is_some() {
            return Err(JoinFault::AlreadyJoined);
        }
        if record.is_expired(now) {
            return Err(JoinFault::TooLate);
        }
        record.joined_at = Some(now);
        drop(record);
        Ok(call)
    }

    /// Calls that hold a place: live, or waiting for their join.
    pub fn live(&self, now: Instant) -> usize {
        self.by_id.values().filter(|call| lock(call).is_live(now)).count()
    }

    /// All calls in order of creation.
    pub fn observed(&self, now: Instant) -> Vec<Observed> {
        let calls = self.order.iter().filter_map(|id| self.by_id.get(id));
        calls.map(|call| lock(call).observed(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::built_in;
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn create(calls: &mut Calls, call_id: &str) -> SharedCall {
        let script = built_in().remove(0);
        let new = NewCall {
            call_id: call_id.into(),
            token: Secret::new("t"),
            agent_id: Some(script.agent_id.clone()),
            script: Arc::new(script),
            medium: None,
            join_timeout: Duration::from_secs(15),
            prior: None,
            tools: Vec::new(),
            request: Value::Null,
        };
        calls.create(at(0), WallTime::default(), new)
    }

    #[test]
    fn a_join_url_works_once_with_its_token_and_in_time() {
        let mut calls = Calls::default();
        create(&mut calls, "a");
        create(&mut calls, "b");
        let join = |ms, id, token| calls.join(at(ms), id, token).map(drop);
        assert_eq!(join(1, "c", "t"), Err(JoinFault::NoSuchCall));
        assert_eq!(join(1, "a", "u"), Err(JoinFault::WrongToken));
        assert_eq!(join(15_000, "a", "t"), Ok(()));
        assert_eq!(join(15_000, "a", "t"), Err(JoinFault::AlreadyJoined));
        assert_eq!(join(15_001, "b", "t"), Err(JoinFault::TooLate));
        assert_eq!(calls.live(at(15_001)), 1);
        let reasons: Vec<_> =
            calls.observed(at(15_001)).into_iter().map(|seen| seen.end_reason).collect();
        assert_eq!(reasons, [None, Some("unjoined")]);
    }

    #[test]
    fn samples_are_counted_by_the_second_of_their_coming() {
        let mut calls = Calls { capture_bytes_max: 100, ..Calls::default() };
        create(&mut calls, "a");
        let call = calls.join(at(500), "a", "t").expect("it is there");
        let mut record = lock(&call);
        for ms in [500, 520, 1_499, 1_500, 3_600] {
            record.on_audio(at(ms), &[0; 320]);
        }
        record.on_audio(at(3_601), &[0; 3]);
        record.on_end(at(4_000), EndReason::Hangup);
        record.on_end(at(5_000), EndReason::ConnectionError);
        let seen = record.observed(at(9_000));
        assert_eq!(seen.samples_per_second, [480, 160, 0, 161]);
        assert_eq!((seen.samples_received, seen.frames_received, seen.odd_frames), (801, 6, 1));
        assert_eq!(
            (seen.longest_gap_ms, seen.joined_ms, seen.joined_after_ms),
            (2_100, 3_500, Some(500))
        );
        assert_eq!((seen.end_reason, seen.capture.len()), (Some("hangup"), 100));
    }

    #[test]
    fn the_oldest_ended_call_is_forgotten_first() {
        let mut calls = Calls::default();
        for n in 0..CALLS_MAX {
            create(&mut calls, &n.to_string());
        }
        lock(&calls.find("7").expect("remembered")).on_end(at(1), EndReason::Hangup);
        create(&mut calls, "new");
        assert!(
            calls.find("7").is_none() && calls.find("0").is_some() && calls.find("new").is_some()
        );
    }
}
