//! One joined call of the stand-in: the WebSocket on one side, a [`Conversation`] on the other. One
//! task for each call; frames of sounds are slices of what was rendered once.

use super::World;
use super::conversation::{Conversation, EndReason, Output};
use super::fault::{Fault, Stage};
use super::record::{SharedCall, lock};
use crate::shell::clock::Clock;
use crate::ultravox::data_message::{ClientMessage, ToolOutcome};
use crate::ultravox::schema::{Problem, check_client_message};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Outputs that are sent before the socket is read again.
const OUTPUTS_MAX: usize = 64;
/// How long one frame may take to be sent.
const SEND: Duration = Duration::from_secs(10);
/// How long a close frame waits for its answer.
const CLOSE: Duration = Duration::from_secs(1);
/// How long to wait when nothing is due.
const FAR: Duration = Duration::from_secs(3_600);
/// "Going away": the stand-in stops.
const GOING_AWAY: u16 = 1001;
/// A close frame without a code (RFC 6455 §7.1.5).
const NO_CODE: u16 = 1005;

/// Serves the call to its end.
pub async fn serve(world: Arc<World>, socket: WebSocket, call: SharedCall) {
    let (script, medium, call_id, tools) = {
        let record = lock(&call);
        let call_id = record.observed(Clock::instant()).call_id;
        (record.script.clone(), record.medium.clone(), call_id, record.client_tools())
    };
    let Some(medium) = medium else { return };
    let input_hz = medium.input_hz;
    let fault = world.faults.strike(Stage::Media, Some(&script.agent_id));
    let now = Clock::instant();
    let mut conversation =
        Conversation::new(now, &call_id, script, medium, world.pace, world.sounds.clone());
    conversation.set_tools(tools);
    let mut line = Line {
        world,
        socket,
        call,
        conversation,
        trap: fault.map(|fault| Trap::new(fault, input_hz)),
    };
    let reason = line.run().await;
    lock(&line.call).on_end(Clock::instant(), reason);
    line.world.on_change();
}

/// A media fault that waits for its moment.
struct Trap {
    fault: Fault,
    bytes_left: u64,
}

impl Trap {
    fn new(fault: Fault, input_hz: u32) -> Trap {
        let after_ms = match &fault {
            Fault::Drop { after_audio_ms } | Fault::Close { after_audio_ms, .. } => *after_audio_ms,
            _ => 0,
        };
        Trap { fault, bytes_left: after_ms * u64::from(input_hz) / 500 }
    }
}

/// The stage that a tool's result begins.
fn new_stage(message: &ClientMessage) -> Option<Value> {
    let outcome = match message {
        ClientMessage::ClientToolResult { outcome, .. } => outcome,
        ClientMessage::ForcedAgent { tool, .. } => &tool.as_ref()?.outcome,
        _ => return None,
    };
    match outcome {
        ToolOutcome::NewStage { result } => serde_json::from_str(result).ok(),
        _ => None,
    }
}

struct Line {
    world: Arc<World>,
    socket: WebSocket,
    call: SharedCall,
    conversation: Conversation,
    trap: Option<Trap>,
}

impl Line {
    async fn run(&mut self) -> EndReason {
        let world = self.world.clone();
        loop {
            for _ in 0..OUTPUTS_MAX {
                let Some(output) = self.conversation.poll_output(Clock::instant()) else { break };
                if let Some(reason) = self.perform(output).await {
                    return reason;
                }
            }
            if let Some(reason) = self.spring_trap().await {
                return reason;
            }
            let deadline = self.conversation.poll_timeout();
            let wait = deadline.map_or(FAR, |at| at.since(Clock::instant()));
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => {
                        if let Some(reason) = self.on_message(message).await {
                            return reason;
                        }
                    }
                    Some(Err(_)) | None => return EndReason::ConnectionError,
                },
                () = tokio::time::sleep(wait) => {}
                () = world.stopped() => {
                    return self.close(GOING_AWAY, EndReason::ConnectionError).await;
                }
            }
        }
    }

    async fn on_message(&mut self, message: Message) -> Option<EndReason> {
        let now = Clock::instant();
        match message {
            Message::Binary(frame) => {
                lock(&self.call).on_audio(now, &frame);
                self.conversation.handle_audio(now, &frame);
                if let Some(trap) = &mut self.trap {
                    trap.bytes_left = trap.bytes_left.saturating_sub(frame.len() as u64);
                }
            }
            Message::Text(text) => self.on_text(text.as_str()),
            Message::Close(frame) => {
                lock(&self.call).on_client_close(frame.map_or(NO_CODE, |frame| frame.code));
                // Reading on sends the answer to the close frame.
                let _ = tokio::time::timeout(CLOSE, self.socket.recv()).await;
                return Some(EndReason::Hangup);
            }
            Message::Ping(_) | Message::Pong(_) => {}
        }
        None
    }

    fn on_text(&mut self, text: &str) {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let problems = check_client_message(&value);
        lock(&self.call).on_text(text, problems.iter().map(Problem::to_string));
        let type_name = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let message = ClientMessage::parse(text);
        if let Some(result) = new_stage(&message) {
            let (stage_id, _) = self.world.draw_ids();
            let mut record = lock(&self.call);
            record.begin_stage(stage_id, Clock::now().wall, &result);
            self.conversation.set_tools(record.client_tools());
        }
        self.conversation.handle_message(Clock::instant(), &message, type_name);
        self.world.on_change();
    }

    /// A reason when the call is over.
    async fn perform(&mut self, output: Output) -> Option<EndReason> {
        match output {
            Output::Binary(frame) => {
                lock(&self.call).on_sent(frame.len());
                self.send(Message::Binary(frame)).await
            }
            Output::Text(text) => self.send(Message::Text(text.into())).await,
            Output::Close { code, end_reason } => Some(self.close(code, end_reason).await),
            Output::Drop => Some(EndReason::ConnectionError),
        }
    }

    async fn send(&mut self, message: Message) -> Option<EndReason> {
        let world = self.world.clone();
        tokio::select! {
            sent = tokio::time::timeout(SEND, self.socket.send(message)) => match sent {
                Ok(Ok(())) => None,
                Ok(Err(_)) | Err(_) => Some(EndReason::ConnectionError),
            },
            () = world.stopped() => Some(EndReason::ConnectionError),
        }
    }

    /// Sends a close frame and reads on until the client's, for a moment.
    async fn close(&mut self, code: u16, reason: EndReason) -> EndReason {
        lock(&self.call).on_server_close(code);
        let frame = Message::Close(Some(CloseFrame { code, reason: "".into() }));
        let farewell = async {
            if self.socket.send(frame).await.is_ok() {
                while let Some(Ok(message)) = self.socket.recv().await {
                    if let Message::Close(Some(frame)) = message {
                        lock(&self.call).on_client_close(frame.code);
                    }
                }
            }
        };
        let _ = tokio::time::timeout(CLOSE, farewell).await;
        reason
    }

    async fn spring_trap(&mut self) -> Option<EndReason> {
        let trap = self.trap.take_if(|trap| trap.bytes_left == 0)?;
        match trap.fault {
            Fault::Drop { .. } => Some(EndReason::ConnectionError),
            Fault::Close { code, .. } => Some(self.close(code, EndReason::ConnectionError).await),
            Fault::Oversize { bytes } => self.send(Message::Binary(vec![0; bytes].into())).await,
            Fault::Garbage => {
                let text = self.send(Message::Text("{not json".into())).await;
                match text {
                    None => self.send(Message::Binary(Bytes::from_static(&[1, 2, 3]))).await,
                    ended => ended,
                }
            }
            Fault::NeverReads => {
                self.world.stopped().await;
                Some(EndReason::ConnectionError)
            }
            Fault::Status { .. }
            | Fault::Slow { .. }
            | Fault::NeverAnswers
            | Fault::BadJson
            | Fault::MissingJoinUrl
            | Fault::Redirect { .. } => None,
        }
    }
}
