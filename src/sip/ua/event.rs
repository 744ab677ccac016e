//! What goes up from the user agent and down to the flows: plain values.

use crate::ground::Flow;
use crate::sip::destination::Destination;
use crate::sip::msg::{Method, Request};
use bytes::Bytes;

/// Names a session for the life of the user agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Names a request of the peer that the call layer has to answer; also its server transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestToken(pub u64);

/// The session or the request is no longer in a state for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// Whether new calls are taken. OPTIONS and new INVITEs get 503 + Retry-After unless `Open`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Availability {
    #[default]
    Open,
    Draining,
    Full,
}

/// A body with its content type in lower case.
pub type Body = Option<(String, Bytes)>;

/// One thing to do.
#[derive(Clone, Debug)]
pub enum UaOutput {
    Send { flow: Flow, to: Destination, bytes: Bytes },
    Event(UaEvent),
}

/// What happened to a session.
#[derive(Clone, Debug)]
pub enum UaEvent {
    /// A new call. 100 went out; everything that the RFC itself refuses was refused.
    Invited { session: SessionId, flow: Flow, request: Request },
    /// The caller gave up before our answer, by CANCEL or by BYE: 487 went out, the session is gone.
    Cancelled { session: SessionId, reason: Option<String> },
    /// The ACK of our 2xx; its body answers a late offer.
    Confirmed { session: SessionId, body: Body },
    /// 64 × T1 without the ACK of a 2xx. The session stays: the call layer says `bye`.
    NeverAcked { session: SessionId },
    /// A re-INVITE or UPDATE. Without a body an UPDATE only refreshes and a re-INVITE wants our
    /// offer. Answered with `answer` or `reject`.
    Reoffered { session: SessionId, token: RequestToken, method: Method, body: Body },
    /// The ACK of a re-INVITE's 2xx.
    ReoffersAck { session: SessionId, body: Body },
    /// Any other request in the dialog: INFO, REFER, NOTIFY, MESSAGE. Answered with `respond`.
    InDialog { session: SessionId, token: RequestToken, request: Request },
    /// The peer's BYE after our answer: 200 went out, the session is gone.
    Ended { session: SessionId, reason: Option<String> },
    /// Our BYE is over: the session is gone.
    Closed { session: SessionId, outcome: ByeOutcome },
    /// The connection that the dialog lived on is closed. The session stays.
    FlowLost { session: SessionId },
}

/// How our BYE ended. The call is over in every case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByeOutcome {
    /// A final answer with this code. 401 and 407 are not answered with credentials.
    Answered(u16),
    /// No answer in 64 × T1.
    TimedOut,
    /// The flow could not carry it.
    FlowLost,
    /// The peer's own BYE crossed it, or came while it waited for the ACK.
    Crossed,
}

/// What was counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UaCounters {
    /// Requests that came in, copies included.
    pub requests: u64,
    /// Requests that a transaction knew: answered again or absorbed.
    pub copies: u64,
    /// Responses that no transaction waits for.
    pub stray_responses: u64,
    /// ACKs that no transaction and no session waits for, copies included.
    pub stray_acks: u64,
    /// Requests that were answered without state, except for OPTIONS.
    pub refused: u64,
    /// Of these, those for want of room: draining, full, or a cap of the source.
    pub shed: u64,
    /// 482 for a merged request or a loop.
    pub loops: u64,
    /// Final answers to INVITE whose ACK never came.
    pub never_acknowledged: u64,
    /// In-dialog requests that the call layer did not answer in 64 × T1.
    pub unanswered: u64,
    /// Headers or messages that could not be written (our bug, or text from elsewhere).
    pub unwritable: u64,
}
