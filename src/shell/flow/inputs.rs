//! The way from the flows into the signalling task: two bounded queues. What belongs to a dialog
//! (responses, and requests with a To tag) overtakes what may begin one, so that calls which are up
//! are served while a crowd knocks. A CANCEL has no To tag: it never overtakes its INVITE. Nothing of
//! a flow is lost to the overtaking; its end comes last.

use super::FlowInput;
use crate::sip::msg::Message;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendError, TryRecvError, TrySendError};

/// Inputs of dialogs that are taken in a row while others wait.
const IN_A_ROW_MAX: usize = 64;

/// A pair of queues that hold `max` inputs each.
pub fn inputs(max: usize) -> (FlowSender, FlowReceiver) {
    let (dialogs, from_dialogs) = mpsc::channel(max);
    let (others, from_others) = mpsc::channel(max);
    let receiver = FlowReceiver { dialogs: from_dialogs, others: from_others, in_a_row: 0 };
    (FlowSender { dialogs, others }, receiver)
}

/// The flows' end.
#[derive(Clone, Debug)]
pub struct FlowSender {
    dialogs: mpsc::Sender<FlowInput>,
    others: mpsc::Sender<FlowInput>,
}

/// The signalling task's end.
#[derive(Debug)]
pub struct FlowReceiver {
    dialogs: mpsc::Receiver<FlowInput>,
    others: mpsc::Receiver<FlowInput>,
    in_a_row: usize,
}

impl FlowSender {
    /// Waits while the queue is full.
    ///
    /// # Errors
    /// The signalling task is gone.
    pub async fn send(&self, input: FlowInput) -> Result<(), SendError<FlowInput>> {
        self.queue_of(&input).send(input).await
    }

    /// Does not wait.
    ///
    /// # Errors
    /// The queue is full, or the signalling task is gone.
    #[expect(clippy::result_large_err, reason = "the input comes back to be dropped at once")]
    pub fn try_send(&self, input: FlowInput) -> Result<(), TrySendError<FlowInput>> {
        self.queue_of(&input).try_send(input)
    }

    fn queue_of(&self, input: &FlowInput) -> &mpsc::Sender<FlowInput> {
        match input {
            FlowInput::Message { message, .. } if is_of_dialog(message) => &self.dialogs,
            FlowInput::Pong { .. } => &self.dialogs,
            FlowInput::Message { .. }
            | FlowInput::Opened { .. }
            | FlowInput::Closed { .. }
            | FlowInput::Settle { .. } => &self.others,
        }
    }
}

impl FlowReceiver {
    /// The next input; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<FlowInput> {
        if let Ok(input) = self.try_recv() {
            return Some(input);
        }
        self.in_a_row = 0;
        tokio::select! {
            biased;
            Some(input) = self.dialogs.recv() => Some(input),
            Some(input) = self.others.recv() => Some(input),
            else => None,
        }
    }

    /// The next input that is there.
    ///
    /// # Errors
    /// None is there, or no more will come.
    pub fn try_recv(&mut self) -> Result<FlowInput, TryRecvError> {
        if self.in_a_row < IN_A_ROW_MAX
            && let Ok(input) = self.dialogs.try_recv()
        {
            self.in_a_row += 1;
            return Ok(input);
        }
        self.in_a_row = 0;
        self.others.try_recv().or_else(|_| self.dialogs.try_recv())
    }

    /// Inputs that wait and may begin dialogs.
    pub fn waiting(&self) -> usize {
        self.others.len()
    }
}

fn is_of_dialog(message: &Message) -> bool {
    match message {
        Message::Response(_) => true,
        Message::Request(request) => request.to().tag().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::{Flow, FlowId, Transport};
    use crate::sip::msg::Framing;
    use bytes::Bytes;

    fn flow() -> Flow {
        let [local, peer] = ["192.0.2.1:5060", "192.0.2.9:5060"].map(|at| at.parse().expect("one"));
        Flow { id: FlowId(1), transport: Transport::Tcp, local, peer }
    }

    fn message(method: &str, to_tag: &str) -> FlowInput {
        let text = format!(
            "{method} sip:u@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:u@h>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        );
        let message = Message::parse(Bytes::from(text), Framing::Datagram).expect("a request");
        FlowInput::Message { flow: flow(), message }
    }

    fn name(input: &FlowInput) -> String {
        match input {
            FlowInput::Message { message: Message::Request(request), .. } => {
                let tag = request.to().tag().map(|_| " in dialog").unwrap_or_default();
                format!("{}{tag}", request.method())
            }
            FlowInput::Closed { .. } => "closed".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn drained(mut receiver: FlowReceiver) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(input) = receiver.recv().await {
            seen.push(name(&input));
        }
        seen
    }

    #[tokio::test]
    async fn dialogs_overtake_what_may_begin_one() {
        let (sender, receiver) = inputs(8);
        for (method, tag) in [("INVITE", ""), ("CANCEL", ""), ("BYE", ";tag=x"), ("ACK", ";tag=x")]
        {
            sender.try_send(message(method, tag)).expect("room");
        }
        sender.send(FlowInput::Closed { flow: flow() }).await.expect("room");
        drop(sender);
        let order = ["BYE in dialog", "ACK in dialog", "INVITE", "CANCEL", "closed"];
        assert_eq!(drained(receiver).await, order);
    }

    #[tokio::test]
    async fn a_crowd_of_invites_leaves_room_for_dialogs_and_is_not_starved_by_them() {
        let (sender, mut receiver) = inputs(2 * IN_A_ROW_MAX);
        let mut shed = 0;
        for _ in 0..3 * IN_A_ROW_MAX {
            shed += usize::from(sender.try_send(message("INVITE", "")).is_err());
        }
        assert_eq!((shed, receiver.waiting()), (IN_A_ROW_MAX, 2 * IN_A_ROW_MAX));
        for _ in 0..2 * IN_A_ROW_MAX {
            sender.try_send(message("BYE", ";tag=x")).expect("room for dialogs");
        }
        let mut first_invite = 0;
        while name(&receiver.try_recv().expect("many wait")) != "INVITE" {
            first_invite += 1;
        }
        assert_eq!(first_invite, IN_A_ROW_MAX);
    }
}
