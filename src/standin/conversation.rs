//! One agent in one call, without a socket: a script, the pacing of what it says, and the reaction to
//! what it hears. Like the product's machines it is told the time and asked for outputs.
//!
//! Audio may run ahead of real time by the call's `clientBufferSizeMs`; the machine keeps the moment
//! at which the client will have played everything, and sends when the lead has shrunk enough.

use super::script::{AgentScript, Step};
use super::sound::{LinearResampler, Sound, Sounds, is_voice};
use crate::ground::Instant;
use crate::ultravox::data_message::{AgentState, ClientMessage, Role, ServerMessage, Words};
use crate::ultravox::parse_duration;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Steps that are taken in one go; more would be a script that only repeats itself.
const STEPS_MAX: usize = 64;
/// Echo that waits for its turn: beyond it the oldest is dropped.
const ECHO_FRAMES_MAX: usize = 512;
/// Voice of the caller that counts as speaking.
const VOICE_MS: u64 = 60;
/// Ultravox takes a shorter `mediaIdleTimeout` as this.
const MEDIA_IDLE_MIN: Duration = Duration::from_secs(10);

/// How audio is cut and how far it may run ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// 20 ms frames, ahead of real time up to the client's buffer.
    Eager,
    /// Frames of so many milliseconds, ahead of real time up to the client's buffer.
    Burst(u32),
    /// 20 ms frames, at most 60 ms ahead whatever the client's buffer is.
    RealTime,
}

impl Pace {
    fn frame_ms(self) -> u64 {
        match self {
            Pace::Eager | Pace::RealTime => 20,
            Pace::Burst(ms) => u64::from(ms.clamp(1, 1_000)),
        }
    }

    fn lead(self, buffer_ms: u64) -> Duration {
        let most = match self {
            Pace::Eager | Pace::Burst(_) => buffer_ms,
            Pace::RealTime => buffer_ms.min(60),
        };
        Duration::from_millis(most.max(self.frame_ms()))
    }
}

/// The medium that a call asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Medium {
    pub input_hz: u32,
    pub output_hz: u32,
    pub buffer_ms: u64,
    pub media_idle: Option<Duration>,
    pub max_duration: Option<Duration>,
    /// The `dataMessages` object.
    pub data_messages: Value,
}

impl Medium {
    /// Reads a body that its schema has passed; `None` when it asks for another medium.
    pub fn of(body: &Value) -> Option<Medium> {
        let medium = body.pointer("/medium/serverWebSocket")?;
        let number = |name: &str| medium.get(name).and_then(Value::as_u64);
        let duration =
            |value: Option<&Value>| value.and_then(Value::as_str).and_then(parse_duration);
        let input_hz = u32::try_from(number("inputSampleRate")?).ok()?;
        let output_hz = number("outputSampleRate").and_then(|hz| u32::try_from(hz).ok());
        Some(Medium {
            input_hz,
            output_hz: output_hz.unwrap_or(input_hz),
            buffer_ms: number("clientBufferSizeMs").unwrap_or(60),
            media_idle: duration(medium.get("mediaIdleTimeout"))
                .map(|idle| idle.max(MEDIA_IDLE_MIN)),
            max_duration: duration(body.get("maxDuration")),
            data_messages: medium.get("dataMessages").cloned().unwrap_or_default(),
        })
    }

    /// The flag of a message, or its documented default.
    fn wants(&self, flag: &str, default: bool) -> bool {
        self.data_messages.get(flag).and_then(Value::as_bool).unwrap_or(default)
    }
}

/// What the socket is to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    Binary(Bytes),
    Text(String),
    Close { code: u16, end_reason: EndReason },
    Drop,
}

/// `endReason` of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndReason {
    Unjoined,
    Hangup,
    AgentHangup,
    Timeout,
    ConnectionError,
}

impl EndReason {
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Unjoined => "unjoined",
            EndReason::Hangup => "hangup",
            EndReason::AgentHangup => "agent_hangup",
            EndReason::Timeout => "timeout",
            EndReason::ConnectionError => "connection_error",
        }
    }
}

/// The agent's side of one joined call.
pub struct Conversation {
    script: Arc<AgentScript>,
    sounds: Arc<Sounds>,
    medium: Medium,
    pace: Pace,
    joined: Instant,
    step: usize,
    /// Set when the step that waits was entered.
    waiting_since: Option<Instant>,
    /// What is being said, cut from the front.
    saying: Bytes,
    echo: VecDeque<Bytes>,
    echo_bytes: usize,
    resampler: Option<LinearResampler>,
    /// When the client will have played everything that was sent.
    played_until: Instant,
    heard_bytes: u64,
    heard_last: Instant,
    voice_ms: u64,
    /// The last message whose type a script may wait for.
    last_message: Option<String>,
    control: VecDeque<Output>,
    transcripts: u64,
    /// Client tools that may be called.
    tools: BTreeSet<String>,
    invocations: u64,
    /// The invocation that has no result yet.
    awaited: Option<String>,
    /// The last text of the user's side that a script may wait for.
    last_text: Option<String>,
    closed: bool,
}

impl Conversation {
    /// Begins as the join does: `call_started`, then the script.
    pub fn new(
        now: Instant,
        call_id: &str,
        script: Arc<AgentScript>,
        medium: Medium,
        pace: Pace,
        sounds: Arc<Sounds>,
    ) -> Conversation {
        let differs = medium.input_hz != medium.output_hz;
        let resampler = differs.then(|| LinearResampler::new(medium.input_hz, medium.output_hz));
        let mut conversation = Conversation {
            script,
            sounds,
            medium,
            pace,
            joined: now,
            step: 0,
            waiting_since: None,
            saying: Bytes::new(),
            echo: VecDeque::new(),
            echo_bytes: 0,
            resampler,
            played_until: now,
            heard_bytes: 0,
            heard_last: now,
            voice_ms: 0,
            last_message: None,
            control: VecDeque::new(),
            transcripts: 0,
            tools: BTreeSet::new(),
            invocations: 0,
            awaited: None,
            last_text: None,
            closed: false,
        };
        let started = ServerMessage::CallStarted { call_id: Some(call_id.to_owned()) };
        conversation.tell("callStarted", &started);
        conversation
    }

    /// The client tools of the call, or of its next stage.
    pub fn set_tools(&mut self, tools: BTreeSet<String>) {
        self.tools = tools;
    }

    /// A binary frame of the caller's audio.
    pub fn handle_audio(&mut self, now: Instant, frame: &Bytes) {
        self.heard_bytes += frame.len() as u64;
        self.heard_last = now;
        let frame_ms = frame.len() as u64 * 500 / u64::from(self.medium.input_hz);
        self.voice_ms = if is_voice(frame) { self.voice_ms + frame_ms } else { 0 };
        if self.script.interruptible && self.voice_ms >= VOICE_MS && self.is_speaking(now) {
            self.interrupt(now);
        }
        if self.script.echo && !frame.is_empty() {
            let frame = match &mut self.resampler {
                Some(resampler) => resampler.resample(frame),
                None => frame.clone(),
            };
            self.echo_bytes += frame.len();
            self.echo.push_back(frame);
            if self.echo.len() > ECHO_FRAMES_MAX {
                self.echo_bytes -= self.echo.pop_front().map_or(0, |frame| frame.len());
            }
        }
    }

    /// A data message of the client.
    pub fn handle_message(&mut self, now: Instant, message: &ClientMessage, type_name: &str) {
        self.last_message = Some(type_name.to_owned());
        match message {
            ClientMessage::Ping { timestamp } => {
                self.tell("pong", &ServerMessage::Pong { timestamp: *timestamp });
            }
            ClientMessage::HangUp { .. } => self.close(1000, EndReason::AgentHangup),
            ClientMessage::ForcedAgent { content, .. } => {
                self.transcript(content.clone());
                self.saying = self.sounds.render(Sound::Sentence, self.medium.output_hz);
            }
            ClientMessage::UserText { text, .. } => self.last_text = Some(text.clone()),
            ClientMessage::ClientToolResult { invocation_id, .. } => {
                self.awaited.take_if(|awaited| awaited == invocation_id);
            }
            ClientMessage::SetOutputMedium { .. }
            | ClientMessage::Unknown { .. }
            | ClientMessage::Malformed => {}
        }
        self.run_script(now);
    }

    /// What to do now; ask until `None`, then sleep until [`Conversation::poll_timeout`].
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        if !self.closed {
            self.check_limits(now);
            self.run_script(now);
        }
        self.control.pop_front().or_else(|| self.next_frame(now).map(Output::Binary))
    }

    /// When to ask again although nothing was heard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let step = self.script.steps.get(self.step);
        let waits = match (step, self.waiting_since) {
            (Some(Step::Wait { ms }), Some(since)) => Some(since + Duration::from_millis(*ms)),
            (Some(Step::AwaitPlayed), _) => Some(self.played_until),
            _ => None,
        };
        let frame = self.has_frame().then(|| self.frame_due());
        [waits, frame, self.idle_at(), self.over_at()].into_iter().flatten().min()
    }

    fn idle_at(&self) -> Option<Instant> {
        self.medium.media_idle.map(|idle| self.heard_last + idle)
    }

    fn over_at(&self) -> Option<Instant> {
        self.medium.max_duration.map(|longest| self.joined + longest)
    }

    fn check_limits(&mut self, now: Instant) {
        if self.idle_at().is_some_and(|at| at <= now) {
            self.close(1008, EndReason::ConnectionError);
        } else if self.over_at().is_some_and(|at| at <= now) {
            self.close(1000, EndReason::Timeout);
        }
    }

    fn close(&mut self, code: u16, end_reason: EndReason) {
        if !self.closed {
            self.closed = true;
            self.control.push_back(Output::Close { code, end_reason });
            self.drop_audio();
        }
    }

    fn drop_audio(&mut self) {
        self.saying.clear();
        self.echo.clear();
        self.echo_bytes = 0;
    }

    fn is_speaking(&self, now: Instant) -> bool {
        !self.saying.is_empty() || self.played_until > now
    }

    /// The order of the true service: the buffer is cleared first, then the state leaves `speaking`.
    fn interrupt(&mut self, now: Instant) {
        self.clear_buffer(now);
        self.tell("state", &ServerMessage::State(AgentState::Listening));
    }

    fn clear_buffer(&mut self, now: Instant) {
        self.drop_audio();
        self.played_until = now;
        self.tell("playbackClearBuffer", &ServerMessage::PlaybackClearBuffer);
    }

    fn tell(&mut self, flag: &str, message: &ServerMessage) {
        if self.medium.wants(flag, true) {
            self.control.push_back(Output::Text(message.to_text()));
        }
    }

    fn transcript(&mut self, text: String) {
        self.transcripts += 1;
        let message = ServerMessage::Transcript {
            role: Role::Agent,
            medium: "voice".into(),
            words: Words::Text(text),
            is_final: true,
            ordinal: self.transcripts,
        };
        self.tell("transcript", &message);
    }

    /// Takes steps until one has to wait.
    fn run_script(&mut self, now: Instant) {
        let script = self.script.clone();
        for _ in 0..STEPS_MAX {
            let Some(step) = script.steps.get(self.step).filter(|_| !self.closed) else { return };
            if !self.take(now, step) {
                return;
            }
            self.waiting_since = None;
            self.step = if *step == Step::Repeat { 0 } else { self.step + 1 };
        }
    }

    /// True when the step is done.
    fn take(&mut self, now: Instant, step: &Step) -> bool {
        let entered = self.waiting_since.is_none();
        let since = *self.waiting_since.get_or_insert(now);
        match step {
            Step::Wait { ms } => return now >= since + Duration::from_millis(*ms),
            Step::AwaitAudio { ms } => {
                return self.heard_bytes * 500 / u64::from(self.medium.input_hz) >= *ms;
            }
            Step::AwaitVoice => return self.voice_ms >= VOICE_MS,
            Step::AwaitMessage { name } => {
                return self.last_message.take_if(|last| last == name).is_some();
            }
            Step::AwaitText { text } => {
                return self.last_text.take_if(|last| last.contains(text.as_str())).is_some();
            }
            Step::InvokeTool { tool, parameters } => self.invoke(tool, parameters),
            Step::AwaitResult => return self.awaited.is_none(),
            Step::AwaitPlayed => return self.saying.is_empty() && now >= self.played_until,
            Step::Say { sound } => {
                if entered {
                    self.saying = self.sounds.render(*sound, self.medium.output_hz);
                }
                return self.saying.is_empty();
            }
            Step::State { state } => self.tell("state", &ServerMessage::State(state.state())),
            Step::Transcript { text } => self.transcript(text.clone()),
            Step::Send { message } => self.control.push_back(Output::Text(message.to_string())),
            Step::SendRaw { text } => self.control.push_back(Output::Text(text.clone())),
            Step::SendBytes { bytes } => {
                self.control.push_back(Output::Binary(vec![0; *bytes].into()))
            }
            Step::ClearBuffer => self.clear_buffer(now),
            Step::Close { code } => {
                let normal = *code == 1000;
                self.close(
                    *code,
                    if normal { EndReason::AgentHangup } else { EndReason::ConnectionError },
                );
            }
            Step::Drop => {
                self.closed = true;
                self.drop_audio();
                self.control.push_back(Output::Drop);
            }
            Step::Repeat => {}
        }
        true
    }

    fn invoke(&mut self, tool: &str, parameters: &Value) {
        if !self.tools.contains(tool) {
            return;
        }
        self.invocations += 1;
        let invocation_id = format!("tool-{}", self.invocations);
        self.awaited = Some(invocation_id.clone());
        let (tool_name, parameters) = (tool.to_owned(), parameters.clone());
        let message = ServerMessage::ClientToolInvocation { tool_name, invocation_id, parameters };
        self.tell("clientToolInvocation", &message);
    }

    fn frame_bytes(&self) -> usize {
        (self.pace.frame_ms() * u64::from(self.medium.output_hz) / 1_000 * 2) as usize
    }

    /// There is something to send, apart from whether its time has come. Echo in bursts waits until
    /// a burst is together.
    fn has_frame(&self) -> bool {
        match self.pace {
            Pace::Eager | Pace::RealTime => !self.saying.is_empty() || !self.echo.is_empty(),
            Pace::Burst(_) => !self.saying.is_empty() || self.echo_bytes >= self.frame_bytes(),
        }
    }

    /// When the lead has shrunk so far that one more frame fits.
    fn frame_due(&self) -> Instant {
        let frame = Duration::from_millis(self.pace.frame_ms());
        self.played_until + frame - self.pace.lead(self.medium.buffer_ms)
    }

    fn next_frame(&mut self, now: Instant) -> Option<Bytes> {
        if !self.has_frame() || self.frame_due() > now {
            return None;
        }
        let frame = if self.saying.is_empty() { self.next_echo()? } else { self.next_saying() };
        let nanos = frame.len() as u64 * 500_000_000 / u64::from(self.medium.output_hz);
        self.played_until = self.played_until.max(now) + Duration::from_nanos(nanos);
        Some(frame)
    }

    fn next_saying(&mut self) -> Bytes {
        let length = self.frame_bytes().min(self.saying.len());
        self.saying.split_to(length)
    }

    fn next_echo(&mut self) -> Option<Bytes> {
        let Pace::Burst(_) = self.pace else {
            let frame = self.echo.pop_front()?;
            self.echo_bytes -= frame.len();
            return Some(frame);
        };
        let mut burst = Vec::with_capacity(self.echo_bytes);
        for frame in self.echo.drain(..) {
            burst.extend_from_slice(&frame);
        }
        self.echo_bytes = 0;
        Some(burst.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, built_in};
    use super::super::sound::to_bytes;
    use super::*;
    use crate::ultravox::data_message::{Reaction, ToolOutcome, Urgency};
    use serde_json::json;

    fn medium(buffer_ms: u64) -> Medium {
        Medium {
            input_hz: 8_000,
            output_hz: 8_000,
            buffer_ms,
            media_idle: None,
            max_duration: None,
            data_messages: json!({"callStarted": false, "transcript": false}),
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(1_000 + ms)
    }

    fn start(script: AgentScript, medium: Medium, pace: Pace) -> Conversation {
        Conversation::new(at(0), "c1", Arc::new(script), medium, pace, Arc::new(Sounds::default()))
    }

    fn agent(agent_id: &str) -> AgentScript {
        built_in().into_iter().find(|agent| agent.agent_id == agent_id).expect("built in")
    }

    fn steps(steps: Vec<Step>) -> AgentScript {
        AgentScript { steps, ..agent(script::SILENT) }
    }

    fn drain(conversation: &mut Conversation, ms: u64) -> Vec<Output> {
        std::iter::from_fn(|| conversation.poll_output(at(ms))).collect()
    }

    fn audio_ms(outputs: &[Output]) -> u64 {
        let bytes = outputs
            .iter()
            .map(|output| if let Output::Binary(frame) = output { frame.len() } else { 0 });
        bytes.sum::<usize>() as u64 / 16
    }

    fn texts(outputs: &[Output]) -> Vec<&str> {
        fn text(output: &Output) -> Option<&str> {
            if let Output::Text(text) = output { Some(text.as_str()) } else { None }
        }
        outputs.iter().filter_map(text).collect()
    }

    const STATE_SPEAKING: &str = r#"{"type":"state","state":"speaking"}"#;
    const STATE_LISTENING: &str = r#"{"type":"state","state":"listening"}"#;
    const CLEAR: &str = r#"{"type":"playback_clear_buffer"}"#;

    #[test]
    fn audio_runs_ahead_by_the_clients_buffer_and_then_keeps_pace() {
        for (buffer_ms, pace, lead_ms) in [
            (60, Pace::Eager, 60),
            (1_000, Pace::Eager, 1_000),
            (1_000, Pace::Burst(100), 1_000),
            (60, Pace::Burst(100), 100),
            (1_000, Pace::RealTime, 60),
            (0, Pace::Eager, 20),
        ] {
            let mut tone = start(agent(script::TONE), medium(buffer_ms), pace);
            assert_eq!(audio_ms(&drain(&mut tone, 0)), lead_ms, "{pace:?} {buffer_ms}");
            let frame_ms = pace.frame_ms();
            assert_eq!(tone.poll_timeout(), Some(at(frame_ms)), "{pace:?} {buffer_ms}");
            assert_eq!(audio_ms(&drain(&mut tone, frame_ms - 1)), 0);
            let later: u64 = (1..=300).map(|n| audio_ms(&drain(&mut tone, n * frame_ms))).sum();
            assert_eq!(later, 300 * frame_ms, "a second for each second");
        }
    }

    #[test]
    fn speech_is_announced_said_and_followed_by_listening_when_it_was_played() {
        let mut speech = start(agent(script::SPEECH), medium(30_000), Pace::Eager);
        let first = drain(&mut speech, 0);
        assert_eq!((texts(&first), audio_ms(&first)), (vec![STATE_SPEAKING], 3_840));
        assert_eq!(speech.poll_timeout(), Some(at(3_840)));
        assert_eq!(drain(&mut speech, 3_839), []);
        assert_eq!(texts(&drain(&mut speech, 3_840)), [STATE_LISTENING]);
        assert_eq!(speech.poll_timeout(), None, "then it listens");
    }

    #[test]
    fn the_farewell_agent_hangs_up_after_its_words() {
        let mut farewell = start(agent(script::FAREWELL), medium(30_000), Pace::Eager);
        drain(&mut farewell, 0);
        let last = drain(&mut farewell, 3_840);
        assert_eq!(
            last.last(),
            Some(&Output::Close { code: 1000, end_reason: EndReason::AgentHangup })
        );
        assert_eq!((drain(&mut farewell, 9_000), farewell.poll_timeout()), (vec![], None));
    }

    #[test]
    fn a_caller_who_speaks_clears_the_buffer_before_the_state_changes() {
        let mut barge_in = start(agent(script::BARGE_IN), medium(30_000), Pace::Eager);
        drain(&mut barge_in, 0);
        let (loud, quiet) = (to_bytes(&[3_000; 160]), to_bytes(&[3; 160]));
        for (ms, frame) in [(20, &loud), (40, &loud), (60, &quiet), (80, &loud), (100, &loud)] {
            barge_in.handle_audio(at(ms), frame);
            assert_eq!(drain(&mut barge_in, ms), [], "{ms} ms: too short to be speech");
        }
        barge_in.handle_audio(at(120), &loud);
        let outputs = drain(&mut barge_in, 120);
        assert_eq!(texts(&outputs)[..2], [CLEAR, STATE_LISTENING]);
    }

    #[test]
    fn the_echo_sends_each_frame_back_as_it_came() {
        let mut echo = start(agent(script::ECHO), medium(60), Pace::Eager);
        for n in 0..50 {
            let frame = to_bytes(&[n; 160]);
            echo.handle_audio(at(u64::from(n.unsigned_abs()) * 20), &frame);
            assert_eq!(drain(&mut echo, u64::from(n.unsigned_abs()) * 20), [Output::Binary(frame)]);
        }
        let mut bursts = start(agent(script::ECHO), medium(30_000), Pace::Burst(100));
        let sizes: Vec<u64> = (0..10)
            .map(|n| {
                bursts.handle_audio(at(n * 20), &to_bytes(&[1; 160]));
                audio_ms(&drain(&mut bursts, n * 20))
            })
            .collect();
        assert_eq!(sizes, [0, 0, 0, 0, 100, 0, 0, 0, 0, 100]);
    }

    #[test]
    fn an_echo_that_cannot_be_sent_is_bounded() {
        let mut echo = start(agent(script::ECHO), medium(60), Pace::Eager);
        for _ in 0..ECHO_FRAMES_MAX * 3 {
            echo.handle_audio(at(0), &to_bytes(&[1; 160]));
        }
        assert_eq!((echo.echo.len(), echo.echo_bytes), (ECHO_FRAMES_MAX, ECHO_FRAMES_MAX * 320));
    }

    #[test]
    fn a_script_waits_for_time_audio_and_messages() {
        let script = steps(vec![
            Step::Wait { ms: 100 },
            Step::SendRaw { text: "waited".into() },
            Step::AwaitAudio { ms: 40 },
            Step::SendRaw { text: "heard".into() },
            Step::AwaitMessage { name: "user_text_message".into() },
            Step::SendBytes { bytes: 3 },
            Step::Drop,
        ]);
        let mut conversation = start(script, medium(60), Pace::Eager);
        assert_eq!(
            (drain(&mut conversation, 99), conversation.poll_timeout()),
            (vec![], Some(at(199)))
        );
        assert_eq!(drain(&mut conversation, 199), [Output::Text("waited".into())]);
        conversation.handle_audio(at(200), &to_bytes(&[0; 319]));
        assert_eq!(drain(&mut conversation, 200), []);
        conversation.handle_audio(at(220), &to_bytes(&[0; 1]));
        assert_eq!(drain(&mut conversation, 220), [Output::Text("heard".into())]);
        let ping = ClientMessage::Ping { timestamp: 2.0 };
        conversation.handle_message(at(230), &ping, "ping");
        assert_eq!(texts(&drain(&mut conversation, 230)), [r#"{"type":"pong","timestamp":2.0}"#]);
        conversation.handle_message(at(240), &ClientMessage::Malformed, "user_text_message");
        assert_eq!(
            drain(&mut conversation, 240),
            [Output::Binary(vec![0; 3].into()), Output::Drop]
        );
    }

    #[test]
    fn a_script_calls_the_tools_of_its_call_and_waits_for_their_results() {
        let invoke =
            |tool: &str| Step::InvokeTool { tool: tool.into(), parameters: json!({"a": 1}) };
        let script = steps(vec![
            Step::AwaitText { text: "0".into() },
            invoke("none"),
            invoke("coldTransfer"),
            Step::AwaitResult,
            Step::SendRaw { text: "done".into() },
        ]);
        let mut conversation = start(script, medium(60), Pace::Eager);
        conversation.set_tools(["coldTransfer".to_owned()].into());
        drain(&mut conversation, 0);
        for (text, invoked) in [("12", 0), ("40", 1)] {
            let text = ClientMessage::UserText { text: text.into(), urgency: Urgency::Immediate };
            conversation.handle_message(at(10), &text, "user_text_message");
            assert_eq!(drain(&mut conversation, 10).len(), invoked);
        }
        let outcome = || ToolOutcome::Result { result: "OK".into(), reaction: Reaction::Listens };
        for (id, said) in [("tool-9", 0), ("tool-1", 1)] {
            let result =
                ClientMessage::ClientToolResult { invocation_id: id.into(), outcome: outcome() };
            conversation.handle_message(at(20), &result, "client_tool_result");
            assert_eq!(drain(&mut conversation, 20).len(), said);
        }
    }

    #[test]
    fn a_script_that_only_repeats_itself_does_not_spin() {
        let mut conversation = start(steps(vec![Step::Repeat]), medium(60), Pace::Eager);
        assert_eq!(drain(&mut conversation, 0), []);
    }

    #[test]
    fn a_silent_line_and_the_longest_duration_end_the_call() {
        let body = |more: Value| {
            let mut body = json!({"medium": {"serverWebSocket": {"inputSampleRate": 8000, "mediaIdleTimeout": "1s"}}});
            body.as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            Medium::of(&body).expect("our medium")
        };
        let mut idle = start(agent(script::SILENT), body(json!({})), Pace::Eager);
        drain(&mut idle, 0);
        assert_eq!(idle.poll_timeout(), Some(at(10_000)), "under 10 s counts as 10 s");
        assert_eq!(drain(&mut idle, 9_999), []);
        let close = |code, end_reason| vec![Output::Close { code, end_reason }];
        assert_eq!(drain(&mut idle, 10_000), close(1008, EndReason::ConnectionError));
        let mut long =
            start(agent(script::SILENT), body(json!({"maxDuration": "5s"})), Pace::Eager);
        drain(&mut long, 0);
        assert_eq!(drain(&mut long, 5_000), close(1000, EndReason::Timeout));
    }

    #[test]
    fn a_message_that_was_not_asked_for_is_not_sent() {
        let quiet =
            Medium { data_messages: json!({"state": false, "callStarted": true}), ..medium(60) };
        let mut conversation = start(
            steps(vec![Step::State { state: script::StateName::Thinking }]),
            quiet,
            Pace::Eager,
        );
        assert_eq!(
            texts(&drain(&mut conversation, 0)),
            [r#"{"type":"call_started","callId":"c1"}"#]
        );
    }
}
