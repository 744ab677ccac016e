//! What goes up from the user agent and down to the flows: plain values.

use super::draft::RequestId;
use crate::ground::Flow;
use crate::sip::destination::Destination;
use crate::sip::digest::{DigestClient, DigestFault};
use crate::sip::msg::{Method, Request, Response};
use crate::sip::refer::ReferOutcome;
use crate::sip::target::{ConnectFault, Hop, LocateFault, Target, TargetFault};
use bytes::Bytes;
use std::time::Duration;

/// Names a session for the life of the user agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Names no session, ever.
    pub const NONE: SessionId = SessionId(0);
}

/// Names a request of the peer that the call layer has to answer; also its server transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestToken(pub u64);

/// The session or the request is no longer in a state for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// Why a request that needs the dialog for itself cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Busy {
    /// The session is gone, or is being ended.
    Gone,
    /// Something of the same kind is under way, or the session is not answered yet: later.
    Open,
}

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
    Send {
        flow: Flow,
        to: Destination,
        bytes: Bytes,
    },
    /// Find the hops of a target (RFC 3263), `seed` for the weights of SRV. Answered by
    /// `handle_located`.
    Locate {
        ticket: u64,
        target: Target,
        seed: u64,
    },
    /// Find or make a flow to this hop. Answered by `handle_connected`.
    Connect {
        ticket: u64,
        hop: Hop,
    },
    Event(UaEvent),
}

/// What happened to a session.
#[derive(Clone, Debug)]
pub enum UaEvent {
    /// A new call. 100 went out; everything that the RFC itself refuses was refused. With `replaces`
    /// the caller is to take the place of the peer of that session (RFC 3891); answering does not end
    /// it, the call layer says `bye` to it.
    Invited { session: SessionId, flow: Flow, request: Request, replaces: Option<SessionId> },
    /// The caller gave up before our answer, by CANCEL or by BYE: 487 went out, the session is gone.
    Cancelled { session: SessionId, reason: Option<String> },
    /// The ACK of our 2xx; its body answers a late offer.
    Confirmed { session: SessionId, body: Body },
    /// 64 × T1 without the ACK of a 2xx. The session stays: the call layer says `bye`.
    NeverAcked { session: SessionId },
    /// A re-INVITE or UPDATE. Without a body an UPDATE only refreshes and a re-INVITE wants our
    /// offer. Answered with `answer` or `reject`. With `fork` it is an offer of that fork's, by UPDATE,
    /// before anybody answered our INVITE: the fork has answered our own by then.
    Reoffered {
        session: SessionId,
        fork: Option<String>,
        token: RequestToken,
        method: Method,
        body: Body,
    },
    /// The ACK of a re-INVITE's 2xx.
    ReoffersAck { session: SessionId, body: Body },
    /// Any other request in the dialog: INFO, REFER, MESSAGE, a NOTIFY that is not of our REFER.
    /// Answered with `respond`.
    InDialog { session: SessionId, token: RequestToken, request: Request },
    /// The final answer to a [`super::UserAgent::request`], challenges included. 408 when none came in
    /// 64 × T1, 503 when no flow could carry it, 400 when it cannot be written.
    RequestAnswered { session: SessionId, request: RequestId, code: u16, reason: String },
    /// A 2xx to our re-INVITE. With an offer of ours its ACK is out and `body` is the answer; else
    /// `body` is the peer's offer and the ACK waits for [`super::UserAgent::acknowledge`]. Without a
    /// body the ACK is out in any case. Also the answer to a refresh of the session timer's, which
    /// nobody asked for: then `body` answers the description that holds.
    ReofferAnswered { session: SessionId, body: Body },
    /// Our re-INVITE was refused, tries after a glare included: all stays as it was. 491 also when an
    /// offer of the peer's took the place of ours, which is told next: who still wants something offers
    /// it anew after that. 408 when no answer came; after that and after 481 the session ends
    /// ([`UaEvent::Ended`] follows).
    ReofferRefused { session: SessionId, code: u16, reason: String },
    /// How our REFER goes: its 2xx, then each provisional status that the peer notifies.
    ReferProgress { session: SessionId, code: u16, reason: String },
    /// Our REFER came to its end, once.
    ReferDone { session: SessionId, outcome: ReferOutcome },
    /// The peer did not refresh the session in time (RFC 4028 §10). The session stays: the call layer
    /// says `bye`.
    Expired { session: SessionId },
    /// The peer's BYE after our answer: 200 went out, the session is gone. Also when the peer does not
    /// know the dialog any more or is silent to what it must answer: then the reason says `SIP;cause=`
    /// and the status.
    Ended { session: SessionId, reason: Option<String> },
    /// Our BYE or CANCEL is over: the session is gone.
    Closed { session: SessionId, outcome: ByeOutcome },
    /// The connection that the dialog lived on is closed. The session stays.
    FlowLost { session: SessionId },
    /// The peer was heard on another flow: the dialog lives there now.
    Moved { session: SessionId, flow: Flow },
    /// An INVITE of ours whose body depends on its way is to go out on this flow. Answered at once with
    /// [`super::UserAgent::describe`]. It comes again for each other flow that is tried.
    WayFound { session: SessionId, flow: Flow },
    /// A provisional answer above 100 to our INVITE. Several forks may send theirs; a body that
    /// describes media holds for the fork that sent it, which its To tag names (empty without one).
    Progress { session: SessionId, flow: Flow, fork: String, code: u16, reason: String, body: Body },
    /// Our INVITE was answered with 2xx by this fork, and the ACK is out. The session is like any
    /// other now.
    Answered { session: SessionId, flow: Flow, fork: String, body: Body },
    /// Our INVITE was refused with 300 to 699, other hops and challenges included. The session is
    /// gone. `contacts` are those of a 3xx, as received.
    Refused {
        session: SessionId,
        code: u16,
        reason: String,
        contacts: Vec<String>,
        retry_after: Option<Duration>,
    },
    /// Our INVITE was answered by nobody. The session is gone.
    DialFailed { session: SessionId, fault: DialFault },
    /// The final answer to a request outside dialogs, with the hop that gave it (`None` on a flow
    /// that stood before) and the credentials as they are now.
    Responded {
        request: RequestId,
        response: Box<Response>,
        flow: Flow,
        hop: Option<Hop>,
        credentials: Option<Box<DigestClient>>,
    },
    /// A request outside dialogs was answered by nobody.
    RequestFailed { request: RequestId, fault: DialFault },
}

/// Why a request of ours has no answer that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DialFault {
    /// The Request-URI, or the first route, names nothing that a request can be sent to.
    BadTarget(TargetFault),
    NotLocated(LocateFault),
    NotConnected(ConnectFault),
    /// No answer in 64 × T1 from the last hop.
    TimedOut,
    /// The connection closed before the final answer.
    FlowLost,
    /// A challenge that is not to be answered, or whose answer was refused.
    Digest(DigestFault),
    /// A header that cannot be written.
    Unwritable,
    /// The call layer has no body for the way that was found.
    NoBody,
}

/// How our BYE or CANCEL ended. The call is over in every case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByeOutcome {
    /// A final answer with this code, of the BYE or of the INVITE that was cancelled. A challenge is
    /// answered when the session has credentials.
    Answered(u16),
    /// No answer in 64 × T1.
    TimedOut,
    /// No flow could carry it.
    FlowLost,
    /// The peer's own BYE crossed it, or came while it waited for the ACK.
    Crossed,
    /// Cancelled before the INVITE went out.
    Unsent,
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
