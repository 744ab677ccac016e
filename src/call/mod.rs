//! One call: what it does from INVITE to its record (house §4, §9). A `Call` owns its legs (session,
//! offer/answer, leg clock, media port), its transfer, its jobs and its record. It is a leaf machine: what
//! happened comes in by `on_*`, what is to be done goes out as [`Act`]s, which the Switchboard turns
//! into SIP, REST and media commands. It never sees a transaction, a socket or a codec.
//!
//! ```text
//! SettingUp ──agent call created, media open──▶ Joining ──101──▶ Answered ──▶ Ending ──▶ gone
//!     │ 180 at once; the handler asked when no      │ 503 when refused   │ BYE either way
//!     │ allowance matched; agent read, turn awaited, │                   │
//!     │ agent call created                          │                    │
//!     └── CANCEL 487 · refusal ─────────────────────┴────────────────────┴──▶ Ending
//! ```
//!
//! An outgoing call is dialled between its creation and its joining (`outbound`).
//!
//! `finish` is the only teardown, from every state.

mod act;
pub mod creation;
pub mod deed;
pub mod early;
pub mod handover;
pub mod inbound;
pub mod keys;
pub mod ladder;
pub mod leg;
pub mod lost;
mod one_way;
pub mod outbound;
pub mod record;
pub mod referring;
pub mod reoffer;
pub mod ringing;
mod second;
pub mod settings;
pub mod sound;
mod staging;
mod steps;
mod streams;
pub mod takeover;
pub mod tool;
pub mod transfer;

pub use act::Act;

use crate::billing::LossEnd;
use crate::billing::cdr::Cdr;
use crate::billing::ledger::Ledger;
use crate::codec::CodecKind;
use crate::context::Caller;
use crate::fallback::Question;
use crate::ground::ports::{OwnPorts, RtpPort};
use crate::ground::{CallKey, Flow, Instant, JobId, LegId, Now, Secret, StreamId};
use crate::media::plan::{AgentClose, AgentRates, DelayBounds, MediaCommand, MediaReport};
use crate::refusal::{EndCause, Refusal, RefusalPolicy};
use crate::routing::Route;
use crate::sdp::{Agreed, DescriptionText, ExtendedReports, OfferAnswer, SrtpPolicy};
use crate::sip::ua::SessionId;
use crate::ultravox::agent::Agent;
use creation::Creation;
use handover::Transferring;
use keys::Keys;
use ladder::{Ladder, Lane};
use leg::{Closing, JobPurpose, Leg, Second};
use lost::Lost;
use outbound::Outgoing;
use serde_json::{Map, Value};
use settings::HandSettings;
use sound::Music;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tool::Tools;

/// Where a call stands.
#[derive(Debug)]
pub enum State {
    /// The caller hears ringing.
    SettingUp { media_open: bool, agent: AgentTrack },
    /// An outgoing call: the callee's phone rings.
    Dialling,
    /// The upgrade of the agent stream is under way; an outgoing call's callee has answered.
    Joining,
    /// 200 was sent; `acked` when its ACK came.
    Answered { acked: bool },
    /// Finished; what is still awaited before the last trace goes.
    Ending { dialog_closing: bool, media_closing: bool },
}

/// The agent's side of the set-up.
#[derive(Debug)]
pub enum AgentTrack {
    /// The fallback handler was asked.
    Deciding,
    /// Waiting for the agent's context schema; `doubted` is what was remembered of the agent when a
    /// creation was refused for it.
    Fetching { doubted: Option<Arc<Agent>> },
    /// Waiting for the turn to create the agent call.
    Waiting,
    /// Waiting for the 201.
    Creating,
    /// The call stands at Ultravox; media is not open yet.
    Created { join_url: Secret },
    /// TCP and TLS to the agent's host are under way.
    Preparing,
}

/// What a call keeps of its configuration for as long as it lives.
#[derive(Clone, Debug)]
pub struct CallSettings {
    pub codecs: Vec<CodecKind>,
    pub opus_output_hz: u32,
    pub ptime_ms: u16,
    /// Whether extended reports of RTCP are agreed to.
    pub extended: ExtendedReports,
    /// Pauses of ours are told, not sent, where the peer takes that.
    pub silence_suppression: bool,
    pub srtp: Arc<settings::SrtpSettings>,
    pub setup: Duration,
    pub rtp_timeout: Duration,
    pub rtcp_only_max: Duration,
    pub hold_max: Duration,
    pub jitter: DelayBounds,
    pub refusals: RefusalPolicy,
    /// Tools, transfers, keys, and a lost agent.
    pub hands: Arc<HandSettings>,
}

/// One call. See the module's head for its states.
#[derive(Debug)]
pub struct Call {
    pub key: CallKey,
    pub state: State,
    /// The leg that the call began with: the caller's, or of an outgoing call the callee's.
    pub first: Leg,
    pub settings: CallSettings,
    pub route: Route,
    /// `None` until the fallback handler decides, and for a call without an agent.
    pub agent_id: Option<String>,
    /// What the fallback handler would be asked, while it may be.
    pub question: Option<Box<Question>>,
    /// The request body that the fallback handler gave.
    pub handler_body: Option<Map<String, Value>>,
    /// The template context from `X-` headers, and the caller's identity for the automatic values.
    pub context: Map<String, Value>,
    pub caller: Caller,
    /// The INVITE's offer; `None` for a late offer.
    pub offer: Option<DescriptionText>,
    pub rates: AgentRates,
    /// The second leg: a transfer's target.
    pub second: Option<Box<Second>>,
    /// The transfer under way, or its bridge.
    pub transfer: Option<Box<Transferring>>,
    /// Dialogs and legs on their way out.
    pub closing: Vec<Closing>,
    /// Legs and agent streams that were numbered so far.
    pub legs_begun: u32,
    pub streams_begun: u32,
    /// The stream of the agent that the call is for.
    pub agent: StreamId,
    /// How it ended, while the caller has a transfer to wait for.
    pub agent_close: Option<AgentClose>,
    /// What the agent that goes on for it is to hear of a transfer.
    pub owed_report: Option<String>,
    /// The first leg is one that we dialled, for a peer that left: its time ends then.
    pub handed_over_until: Option<Instant>,
    /// What the shell works on for this call.
    pub jobs: Vec<(JobId, JobPurpose)>,
    /// The creation under way.
    pub creation: Option<Box<Creation>>,
    /// What only an outgoing call has.
    pub outgoing: Option<Box<Outgoing>>,
    /// The telephone tools that the agent was offered.
    pub tools: Tools,
    /// How the agent speaks ([`crate::ultravox::create_call::speech`]).
    pub speech: Map<String, Value>,
    /// The agent was lost, and another is looked for.
    pub lost: Option<Box<Lost>>,
    /// Stages that agents were put into.
    pub stages_begun: u32,
    /// What the first leg hears while it waits.
    pub music: Music,
    /// Keys of the caller's side that the agent is to hear of.
    pub keys: Keys,
    pub ledger: Ledger,
    pub agent_joined: Option<Instant>,
    pub agent_time: Duration,
    pub deadline: Option<Instant>,
    pub ladder: Ladder,
    pub cdr: Cdr,
}

/// Where media is bound and what is written into descriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaAddress {
    pub bind: IpAddr,
    pub advertise: IpAddr,
}

/// What the offer gave, or what we will offer.
#[derive(Debug)]
pub struct Negotiated {
    /// The caller's offer; `None` when ours goes out in the 200 (late offer).
    pub offer: Option<DescriptionText>,
    pub offer_answer: OfferAnswer,
    /// Our description for the 200.
    pub description: DescriptionText,
    pub agreed: Option<Agreed>,
    /// The codec that was agreed, or of a late offer the one that we like best.
    pub kind: CodecKind,
    pub address: MediaAddress,
    /// The policy for SRTP of the peer that we call, where it has one of its own.
    pub target_srtp: Option<SrtpPolicy>,
}

/// What a call is made of: each part was decided by its own room.
#[derive(Debug)]
pub struct Opening {
    pub key: CallKey,
    pub session: SessionId,
    pub flow: Flow,
    pub settings: CallSettings,
    pub route: Route,
    pub agent_id: Option<String>,
    pub question: Option<Box<Question>>,
    pub context: Map<String, Value>,
    pub caller: Caller,
    pub port: RtpPort,
    pub negotiated: Negotiated,
    /// Where its media must not go.
    pub own: OwnPorts,
}

/// Live legs write a heartbeat this often: one deciminute.
pub const HEARTBEAT: Duration = Duration::from_secs(6);

impl Call {
    /// A call that has not begun; `begin` rings.
    pub fn new(now: Now, opening: Opening, mut cdr: Cdr) -> Call {
        let negotiated = opening.negotiated;
        cdr.codec = Some(negotiated.kind.encoding_name().to_owned());
        let rates = match &negotiated.agreed {
            Some(agreed) => {
                AgentRates::for_codec(agreed.codec.kind, opening.settings.opus_output_hz)
            }
            None => AgentRates::for_choice(&opening.settings.codecs),
        };
        let mut call = Call {
            key: opening.key,
            state: State::SettingUp { media_open: false, agent: AgentTrack::Deciding },
            first: Leg {
                id: LegId::CALLER,
                session: opening.session,
                flow: opening.flow,
                offer_answer: negotiated.offer_answer,
                description: negotiated.description,
                plan: None,
                kind: negotiated.kind,
                media_address: negotiated.address,
                target_srtp: negotiated.target_srtp,
                offered_to: None,
                port: opening.port,
                ports_tried: 0,
                own: opening.own,
                pending_reoffer: None,
                revision: 0,
                admitted: Vec::new(),
                early: Vec::new(),
            },
            second: None,
            transfer: None,
            closing: Vec::new(),
            legs_begun: 1,
            streams_begun: 1,
            agent: StreamId::FIRST,
            agent_close: None,
            owed_report: None,
            handed_over_until: None,
            settings: opening.settings,
            route: opening.route,
            agent_id: opening.agent_id,
            question: opening.question,
            handler_body: None,
            context: opening.context,
            caller: opening.caller,
            offer: negotiated.offer,
            rates,
            jobs: Vec::new(),
            creation: None,
            outgoing: None,
            tools: Tools::default(),
            speech: Map::new(),
            lost: None,
            stages_begun: 0,
            music: Music::default(),
            keys: Keys::default(),
            ledger: Ledger::default(),
            agent_joined: None,
            agent_time: Duration::ZERO,
            deadline: None,
            ladder: Ladder::new(now.at),
            cdr,
        };
        call.first.plan = negotiated.agreed.map(|agreed| call.first.plan_of(&agreed));
        call
    }

    /// The call is up: both sides hear each other.
    pub fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }

    /// The call has ended and only waits for its traces to go.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }

    /// A leg of this call was dialled by us, and counts against `[outgoing]`.
    pub fn is_dialled(&self) -> bool {
        self.outgoing.is_some() || self.second.is_some() || self.handed_over_until.is_some()
    }

    /// When this call wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let transfer = self.transfer.as_ref().and_then(|transfer| transfer.machine.deadline());
        let lost = self.lost.as_ref().map(|lost| lost.poll_timeout());
        [self.deadline, self.keys.poll_timeout(), lost, transfer].into_iter().flatten().min()
    }

    /// Ends the call, whatever its state: the one teardown. Each part is told what its own state
    /// demands; the clocks stop; the record is closed. A second call does nothing.
    pub fn finish(&mut self, now: Now, cause: EndCause, out: &mut Vec<Act>) {
        if self.is_ending() {
            return;
        }
        let answered = self.is_answered() || self.is_outgoing_up();
        let cause = if answered { cause } else { cause.before_answer() };
        let dialog_closing = match self.outgoing {
            Some(_) => self.end_outgoing(&cause, out),
            None => self.end_dialog(answered, &cause, out),
        };
        out.extend(self.jobs.drain(..).map(|(job, _)| Act::AbortJob(job)));
        self.ledger.stop_all(now.at);
        let joined = self.cdr.joined_at.is_some() && self.lost.is_none();
        let stream = self.agent;
        out.push(Act::AgentDone { stream, joined });
        self.close_transfer(now, out);
        self.settle_loss(LossEnd::Ended, out);
        self.drop_second(now, cause.reason_header(), out);
        self.agent_left(now.at);
        self.first.pending_reoffer = None;
        (self.deadline, self.lost, self.keys) = (None, None, Keys::default());
        self.state = State::Ending { dialog_closing, media_closing: true };
        self.close_record(now, &cause);
        out.push(Act::Media(MediaCommand::Close));
        out.push(Act::Record);
    }

    /// Says good-bye as the dialog's state demands; true when an answer is awaited.
    fn end_dialog(&mut self, answered: bool, cause: &EndCause, out: &mut Vec<Act>) -> bool {
        match cause {
            // The user agent has answered these itself.
            EndCause::CallerHungUp | EndCause::CallerCancelled | EndCause::CalleeHungUp => false,
            EndCause::Refused(refusal) if !answered => {
                self.refuse(refusal.clone(), out);
                false
            }
            EndCause::AgentHungUp
            | EndCause::AgentLost(_)
            | EndCause::CallerSilent
            | EndCause::HeldTooLong
            | EndCause::NeverAcked
            | EndCause::BadAnswer
            | EndCause::Drained
            | EndCause::Refused(_)
            | EndCause::CalleeRefused { .. }
            | EndCause::NotReached(_)
            | EndCause::NoAnswer
            | EndCause::HungUp
            | EndCause::TooLong
            | EndCause::Transferred
            | EndCause::TargetHungUp
            | EndCause::TargetSilent
            | EndCause::BridgedTooLong
            | EndCause::SessionExpired
            | EndCause::Bug => {
                let session = self.first.session;
                out.push(Act::Bye { session, reason: cause.reason_header() });
                true
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<Act>) {
        out.push(Act::Refuse(refusal.answer(self.settings.refusals)));
    }

    fn close_record(&mut self, now: Now, cause: &EndCause) {
        let policy = self.settings.refusals;
        self.note(now, Lane::Edge, format!("end: {}", cause.words(policy)));
        let clocks = (self.ledger.sip_time(now.at), self.agent_time);
        record::close(&mut self.cdr, now, clocks, cause, policy);
    }

    /// A session is gone from the user agent's tables.
    pub fn on_dialog_closed(&mut self, session: SessionId, out: &mut Vec<Act>) {
        for closing in self.closing.iter_mut().filter(|closing| closing.session == session) {
            closing.awaits_dialog = false;
        }
        if let (State::Ending { dialog_closing, .. }, true) =
            (&mut self.state, self.first.session == session)
        {
            *dialog_closing = false;
        }
        self.release_closed(out);
    }

    /// Lets go of what has ended, of the call itself at last.
    fn release_closed(&mut self, out: &mut Vec<Act>) {
        let over = self.closing.extract_if(.., |closing| closing.is_over());
        out.extend(over.map(|closing| Act::Release(Box::new(closing))));
        let State::Ending { dialog_closing: false, media_closing: false } = self.state else {
            return;
        };
        if self.closing.is_empty() {
            out.push(Act::Gone);
        }
    }

    /// Media is closed; its report completes the record.
    pub fn on_media_closed(&mut self, now: Now, report: MediaReport, out: &mut Vec<Act>) {
        record::set_media(&mut self.cdr, &report);
        if !self.is_ending() {
            self.finish(now, EndCause::Bug, out);
        }
        for closing in &mut self.closing {
            closing.awaits_media = false;
        }
        if let State::Ending { media_closing, .. } = &mut self.state {
            *media_closing = false;
            out.push(Act::Record);
        }
        self.release_closed(out);
    }

    /// Adds a line to the ladder.
    pub fn note(&mut self, now: Now, lane: Lane, text: impl Into<String>) {
        self.ladder.push(now.at, lane, text.into());
    }

    /// Stops the agent's clock; a second time changes nothing.
    fn agent_left(&mut self, at: Instant) {
        if let Some(joined) = self.agent_joined.take() {
            self.agent_time += at.since(joined);
        }
    }

    /// Seconds both clocks show now: SIP time (red) and agent time (blue).
    pub fn clocks(&self, at: Instant) -> (Duration, Duration) {
        let running = self.agent_joined.map_or(Duration::ZERO, |joined| at.since(joined));
        (self.ledger.sip_time(at), self.agent_time + running)
    }
}

#[cfg(test)]
mod tests;
