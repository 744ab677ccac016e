//! What a call asks of the Switchboard, which turns it into SIP, REST, media commands and records.

use super::deed::Deed;
use super::leg::{Closing, Errand};
use super::referring::{Notified, ReferWish};
use crate::fallback::Question;
use crate::ground::{Instant, JobId, StreamId};
use crate::media::plan::{EarlyMedia, MediaCommand};
use crate::outgoing::DialRefusal;
use crate::refusal::Answer;
use crate::sdp::DescriptionText;
use crate::sip::status::StatusLine;
use crate::sip::ua::{RequestToken, SessionId};
use crate::ultravox::CallId;
use serde_json::Value;
use std::time::Duration;

/// What a call asks of the Switchboard.
#[derive(Debug)]
pub enum Act {
    /// 180 Ringing.
    Ring,
    /// 200 OK with our description.
    Accept {
        description: DescriptionText,
    },
    /// A final answer that ends the INVITE.
    Refuse(Answer),
    /// BYE, or its wait for the ACK first.
    Bye {
        session: SessionId,
        reason: Option<&'static str>,
    },
    /// 200 to a re-INVITE or UPDATE.
    AnswerReoffer {
        token: RequestToken,
        description: Option<DescriptionText>,
    },
    /// 488 to a re-INVITE or UPDATE; media stays as it is (RFC 6141).
    RejectReoffer {
        token: RequestToken,
        answer: Answer,
    },
    /// Ask the fallback handler which agent takes the call.
    AskFallback {
        question: Box<Question>,
        budget: Duration,
    },
    /// Read the agent (its context schema); `again` when what is remembered of it is doubted.
    FetchAgent {
        agent_id: String,
        again: bool,
    },
    /// Ask for the turn to create the agent call of this stream; later than `until` it is of no use.
    AskTurn {
        stream: StreamId,
        until: Instant,
    },
    /// Create the agent call of an outgoing call; the body is complete.
    CreateOutgoing {
        agent_id: Option<String>,
        query: Option<String>,
        body: Value,
        budget: Duration,
    },
    /// Tell the client that asked for an outgoing call what became of its request.
    AnswerDial {
        asked: u64,
        result: Box<Result<Value, DialRefusal>>,
    },
    /// Call the present callee, with our description as the offer.
    Dial,
    /// Give up the INVITE of ours that is under way.
    Cancel {
        session: SessionId,
        reason: Option<&'static str>,
    },
    /// Give the second leg of this transfer a port and an offer, another one when it has them.
    AskLeg(Box<Errand>),
    /// Call the second leg's target, with our description as the offer.
    DialSecond,
    /// Ask a peer to call somebody else.
    Refer(Box<ReferWish>),
    /// A final answer to an in-dialog request.
    Respond {
        token: RequestToken,
        status: StatusLine,
    },
    /// Tell a peer how the REFER that it sent goes.
    NotifyReferral {
        notified: Notified,
        code: u16,
    },
    /// Nothing is left of a dialog, and of the leg that it belonged to.
    Release(Box<Closing>),
    /// Create the agent call of this stream, with an agent or without; the body is complete.
    CreateAgentCall {
        stream: StreamId,
        agent_id: Option<String>,
        /// The agent call whose history it goes on with.
        prior: Option<CallId>,
        body: Value,
        budget: Duration,
    },
    /// Read the present stage of an agent call: its prompt and its tools.
    FetchStage {
        call_id: CallId,
    },
    /// Fetch a sound and decode it.
    FetchSound {
        url: String,
        budget: Duration,
    },
    /// The agent call of this stream is over, or will never be; `joined` when it was.
    AgentDone {
        stream: StreamId,
        joined: bool,
    },
    /// Give up a job that nobody waits for any more.
    AbortJob(JobId),
    Media(MediaCommand),
    /// Keep what an outgoing call heard before its agent joined, for diagnosis.
    KeepEarlyMedia(Box<EarlyMedia>),
    /// Count what the call did, and tell it in the log.
    Tell(Deed),
    /// Write the record as it stands.
    Record,
    /// The port could not be bound: hand out another and open media again.
    AnotherPort,
    /// Nothing of this call is left to wait for; it is dropped and its port returned.
    Gone,
}
