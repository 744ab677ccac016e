//! What goes into the Switchboard and what comes out: the whole contract with the shell, as values.

use crate::account::{Registration, RegistrationId, SipConfig};
use crate::billing::cdr::Cdr;
use crate::call::deed::Deed;
use crate::call::ladder::Ladder;
use crate::call::outbound::ServiceRefusal;
use crate::call::sound::SoundFault;
use crate::fallback::{FallbackDecision, FallbackFault, Post};
use crate::ground::{CallKey, Flow, FlowId, JobId};
use crate::media::plan::{EarlyMedia, ForCall, MediaCommand, MediaEvent, Sound};
use crate::outgoing::{DialRefusal, OutgoingCallRequest};
use crate::sip::msg::Message;
use crate::sip::registration::Binding;
use crate::sip::target::{ConnectFault, Hop, LocateFault, Target};
use crate::sip::ua::Destination;
use crate::ultravox::CallId;
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::{CreateFault, Created};
use crate::ultravox::stage::Stage;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A message from an admitted source, framed and parsed.
    Message {
        flow: Flow,
        message: Message,
    },
    /// The other end of a connection answered our keep-alive.
    Pong {
        flow: FlowId,
    },
    /// A TCP or TLS connection closed.
    FlowClosed {
        flow: FlowId,
    },
    FallbackDecided {
        job: JobId,
        result: Result<FallbackDecision, FallbackFault>,
    },
    AgentFetched {
        job: JobId,
        result: Result<Agent, CreateFault>,
    },
    AgentCallAnswered {
        job: JobId,
        result: Result<Created, CreateFault>,
    },
    StageFetched {
        job: JobId,
        result: Result<Stage, CreateFault>,
    },
    SoundFetched {
        job: JobId,
        result: Result<Arc<Sound>, SoundFault>,
    },
    /// A client asks for an outgoing call; answered by [`Command::DialAnswered`] with the same number.
    DialRequested {
        asked: u64,
        request: Box<OutgoingCallRequest>,
    },
    OutgoingCallAnswered {
        job: JobId,
        result: Result<Created, ServiceRefusal>,
    },
    /// The hops of a target, in the order in which they are to be tried.
    Located {
        ticket: u64,
        result: Result<Vec<Hop>, LocateFault>,
    },
    /// A flow that carries requests to a hop.
    Connected {
        ticket: u64,
        result: Result<Flow, ConnectFault>,
    },
    Media(ForCall<MediaEvent>),
    ConfigReplaced(Arc<SipConfig>),
    /// These registrations and no others from now on, and what an earlier process left of their
    /// bindings. Those that stay as they were are left alone.
    RegistrationsReplaced {
        registrations: Vec<Registration>,
        bindings: BTreeMap<RegistrationId, Binding>,
    },
    /// Measured media load: new calls are refused while `true`.
    Overload(bool),
    /// SIGTERM: refuse new calls, let running ones go on for `grace`, then end them.
    Drain {
        grace: Duration,
    },
}

/// What is to be done. Jobs are answered by an [`Input`] with the same id, tickets by one with the
/// same ticket.
#[derive(Debug)]
pub enum Command {
    Send {
        flow: Flow,
        to: Destination,
        bytes: Bytes,
    },
    /// Find the hops of a target (RFC 3263); `seed` decides among equal SRV records by weight.
    Locate {
        ticket: u64,
        target: Target,
        seed: u64,
    },
    /// Find or make a flow to a hop; its answers are let in.
    Connect {
        ticket: u64,
        hop: Hop,
    },
    /// Send this request to the fallback handler, and read its decision.
    AskFallback {
        call: CallKey,
        job: JobId,
        post: Box<Post>,
        budget: Duration,
    },
    FetchAgent {
        call: CallKey,
        job: JobId,
        agent_id: String,
    },
    CreateAgentCall {
        call: CallKey,
        job: JobId,
        /// `None`: the body says all, as for `POST /api/calls`.
        agent_id: Option<String>,
        /// The agent call whose history it goes on with (`priorCallId`).
        prior: Option<CallId>,
        body: Value,
        budget: Duration,
    },
    /// Read the present stage of an agent call.
    FetchStage {
        call: CallKey,
        job: JobId,
        call_id: CallId,
    },
    /// Fetch a sound, decode it, and bring it to the rate of our own sounds.
    FetchSound {
        call: CallKey,
        job: JobId,
        url: String,
        budget: Duration,
    },
    /// Create the agent call of an outgoing call; the client hears what Ultravox says.
    CreateOutgoing {
        call: CallKey,
        job: JobId,
        /// `None`: the body says all, as for `POST /api/calls`.
        agent_id: Option<String>,
        query: Option<String>,
        body: Value,
        budget: Duration,
    },
    /// The Call object for the client, or why there is none.
    DialAnswered {
        asked: u64,
        result: Box<Result<Value, DialRefusal>>,
    },
    /// Nobody waits for this job any more.
    AbortJob(JobId),
    Media(ForCall<MediaCommand>),
    /// Keep what an outgoing call heard before its agent joined, for whoever asks.
    KeepEarlyMedia {
        call: CallKey,
        early: Box<EarlyMedia>,
    },
    /// Count what a call did, and tell it in the log.
    Tell {
        call: CallKey,
        deed: Deed,
    },
    /// Write this record as it stands, and keep its ladder; the last one of a call is closed.
    Record {
        cdr: Box<Cdr>,
        ladder: Ladder,
    },
    /// The flow carries a live call or a binding (keep it open when idle), or no longer does. Counted.
    KeepFlow {
        flow: FlowId,
        keep: bool,
    },
    /// Send a keep-alive (RFC 5626 §4.4.1); over TCP and TLS the answer is [`Input::Pong`].
    KeepAlive {
        flow: Flow,
    },
    /// Nobody is there any more: close the connection. Comes back as [`Input::FlowClosed`].
    CloseFlow {
        flow: FlowId,
    },
    /// Hear this address although no range lists it (a registrar, a callee), or no longer. Each `true` is taken
    /// back by a `false`.
    AdmitSource {
        address: IpAddr,
        admit: bool,
    },
    /// What the next start has to know of a binding, so that it adds none.
    KeepBinding {
        registration: RegistrationId,
        binding: Binding,
    },
    /// A registration has another outcome than before.
    RegistrationChanged {
        registration: RegistrationId,
        successful: Option<bool>,
        /// In words, without secrets.
        reason: String,
    },
    /// A refusal that somebody should look at, in words without secrets.
    Alarm {
        call: CallKey,
        words: String,
    },
    /// The last call of a drain has ended, and no registration is left.
    Drained,
}
