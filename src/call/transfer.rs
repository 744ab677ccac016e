//! A transfer: what an agent's tool, a lost agent or the peer's REFER begins, until the call has left
//! us, both legs are bridged, or the caller is back with the agent. A leaf machine: what happened
//! comes in by [`Transfer::handle`], what the call is to do goes out as [`Step`]s. It knows no
//! session, port, stream or URL; its call does.
//!
//! ```text
//!            ┌──────────────── warm ─────────────────┐
//! Opening ──▶ Ringing ──200──▶ Greeting ──agent──▶ Briefing ──accepted──▶ Referring | Bridged
//!    │           │ └──200, cold──────────▶ Bridged     │                      │         │
//!    │           │ busy, silent            │ BYE       │ refused, left, lost  │         ▼
//!    └───────────┴────────── the caller is back with its agent ───────────────┘        gone
//!
//! Referring ──accepted and followed──▶ gone      the cold REFER begins here: no second leg
//!     └── refused, failed, silent ──▶ back, or Bridged where that was asked for (TRY_REFER)
//! ```
//!
//! Whoever ends a bridged leg ends the call. Every state but Opening, where a port
//! is bound, is bounded by a time.

mod bridge;
mod cold;
mod failure;
mod referral;
mod warm;

#[cfg(test)]
mod tests;

pub use failure::Failure;

use crate::ground::Instant;
use crate::refusal::EndCause;
use std::time::Duration;

/// How the two parties are brought together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// The first leg's peer calls the target itself (RFC 3515).
    Refer,
    /// Both legs stay here.
    Bridge,
    /// REFER, and the bridge when that fails.
    TryRefer,
    /// The agent goes over to the target and the first leg's peer leaves: its own REFER is followed.
    HandOver,
}

/// Who speaks with the target before that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Briefing {
    /// Nobody: a cold transfer.
    Cold,
    /// An agent call of its own; the caller's agent is parked.
    SecondCall,
    /// The caller's agent, in another stage of its call.
    Stage,
}

/// What waits for whom at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// The target's ringing.
    pub ring: Duration,
    /// From the target's answer until its agent is there.
    pub greeting: Duration,
    /// The talk of the agent with the target.
    pub briefing: Duration,
    /// Our REFER, from its sending to the end of its news.
    pub refer: Duration,
    /// Bridged legs.
    pub bridged: Duration,
}

/// What happened, as the call tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// The second leg has its port and its offer.
    LegReady,
    /// It cannot have one.
    LegFailed(Failure),
    /// The target answered and its description is agreed.
    Answered,
    /// The target was not reached, or did not take the call.
    NotAnswered(Failure),
    /// The target's leg ended after its answer.
    TargetLeft,
    /// The target's leg failed after its answer: silent, or not to be understood.
    TargetLost(Failure, EndCause),
    /// The target's agent is prepared: a second call's stream stands, or the stage is read.
    AgentReady,
    /// The target's agent joined.
    AgentJoined,
    /// It cannot be had, or left.
    AgentLost(Failure),
    /// The operator takes the call.
    Accepted,
    /// The operator does not, perhaps with a reason.
    Declined(Option<String>),
    /// The caller's own agent has left.
    CallerAgentLeft,
    /// What became of our REFER.
    Refer(ReferEnd),
    Timeout,
}

/// What became of a REFER of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferEnd {
    /// The peer has the target, or left as it promised.
    Referred,
    /// The peer left without having promised anything.
    PeerLeft,
    Failed(ReferFault),
}

/// Why a REFER of ours brought nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferFault {
    /// The REFER itself was answered with this status.
    Refused { code: u16 },
    /// A NOTIFY told this of the target.
    Failed { code: u16 },
    /// No news came in time.
    Silent,
    /// It could not be sent now.
    Unsent,
    /// Somebody else took the place of the peer that it was sent to.
    Replaced,
}

/// What the call is to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The caller hears music and no agent hears the caller.
    Hold,
    /// Give the second leg a port and an offer.
    OpenLeg,
    Dial,
    /// Get the target's agent ready.
    ReadyAgent(Briefing),
    /// Let it join.
    JoinAgent,
    /// The target and its agent hear each other.
    Brief(Briefing),
    /// REFER on the first leg; `replaces` the target's dialog with us.
    Refer {
        replaces: bool,
    },
    /// Both legs hear each other; every agent leaves.
    Bridge,
    /// The target and the caller's agent hear each other, and the caller's leg ends.
    HandOver,
    /// CANCEL or BYE to the target.
    DropTarget,
    /// The target's agent leaves, or gets its former stage back.
    DismissAgent(Briefing),
    /// The caller and its agent hear each other again.
    Resume,
    /// The transfer is done for the record.
    Note(Outcome),
    /// The agent is told why the caller is back.
    Report(Failure),
    /// The call is over.
    Finish(EndCause),
}

/// How a transfer ended, for the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Referred,
    Bridged,
    HandedOver,
    Failed(Failure),
}

impl Outcome {
    /// As a label of metrics.
    pub fn tag(&self) -> &'static str {
        match self {
            Outcome::Referred => "referred",
            Outcome::Bridged => "bridged",
            Outcome::HandedOver => "handed_over",
            Outcome::Failed(failure) => failure.tag(),
        }
    }
}

/// Where a transfer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The second leg's port is being bound.
    Opening,
    /// The target's phone rings; the caller hears music.
    Ringing { until: Instant },
    /// The target answered; its agent is not there yet.
    Greeting { until: Instant },
    /// The agent speaks with the target.
    Briefing { until: Instant },
    /// Our REFER is out. `target_left`: the target's leg is gone, as it should when it is replaced.
    Referring { until: Instant, target_left: bool },
    /// The caller and the target hear each other.
    Bridged { until: Instant },
    /// Done: the caller is back, or the call is over.
    Over,
}

/// The agent for the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TargetAgent {
    /// A cold transfer has none.
    Nobody,
    Awaited,
    Ready,
    Joining,
    Joined,
}

/// One transfer. See the module's head.
#[derive(Debug)]
pub struct Transfer {
    manner: Manner,
    briefing: Briefing,
    patience: Patience,
    state: State,
    agent: TargetAgent,
}

impl Transfer {
    /// Begins a transfer; its first steps go to `out`.
    pub fn begin(
        now: Instant,
        (manner, briefing): (Manner, Briefing),
        patience: Patience,
        out: &mut Vec<Step>,
    ) -> Transfer {
        let agent = match briefing {
            Briefing::Cold => TargetAgent::Nobody,
            Briefing::SecondCall | Briefing::Stage => TargetAgent::Awaited,
        };
        let mut transfer = Transfer { manner, briefing, patience, state: State::Opening, agent };
        out.push(Step::Hold);
        match (manner, briefing) {
            (Manner::Refer | Manner::TryRefer, Briefing::Cold) => transfer.refer(now, out),
            (_, Briefing::Cold) => out.push(Step::OpenLeg),
            (_, Briefing::SecondCall | Briefing::Stage) => {
                out.extend([Step::OpenLeg, Step::ReadyAgent(briefing)]);
            }
        }
        transfer
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn manner(&self) -> Manner {
        self.manner
    }

    pub fn briefing(&self) -> Briefing {
        self.briefing
    }

    /// The target's phone rings.
    pub fn is_ringing(&self) -> bool {
        matches!(self.state, State::Ringing { .. })
    }

    /// Both legs are bridged: the agents have left.
    pub fn is_bridged(&self) -> bool {
        matches!(self.state, State::Bridged { .. })
    }

    /// Nothing more will come of it.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The caller hears music.
    pub fn holds_caller(&self) -> bool {
        !matches!(self.state, State::Bridged { .. } | State::Over)
    }

    /// When it wants `Happened::Timeout`.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ringing { until }
            | State::Greeting { until }
            | State::Briefing { until }
            | State::Referring { until, .. }
            | State::Bridged { until } => Some(until),
            State::Opening | State::Over => None,
        }
    }

    /// Takes what happened. What does not fit the state is late and changes nothing.
    pub fn handle(&mut self, now: Instant, what: Happened, out: &mut Vec<Step>) {
        match what {
            Happened::LegReady => self.on_leg_ready(now, out),
            Happened::LegFailed(failure) | Happened::NotAnswered(failure) => {
                self.on_not_answered(failure, out);
            }
            Happened::Answered => self.on_answered(now, out),
            Happened::TargetLeft => {
                self.on_target_left(EndCause::TargetHungUp, Failure::TargetLeft, out)
            }
            Happened::TargetLost(failure, cause) => self.on_target_left(cause, failure, out),
            Happened::AgentReady => self.on_agent_ready(now, out),
            Happened::AgentJoined => self.on_agent_joined(now, out),
            Happened::AgentLost(failure) => self.on_agent_lost(failure, out),
            Happened::Accepted => self.on_accepted(now, out),
            Happened::Declined(reason) => self.on_declined(reason, out),
            Happened::CallerAgentLeft => self.on_caller_agent_left(out),
            Happened::Refer(end) => self.on_refer_end(now, end, out),
            Happened::Timeout => self.on_timeout(now, out),
        }
    }

    /// The target's leg ended after its answer, from the other side.
    fn on_target_left(&mut self, cause: EndCause, failure: Failure, out: &mut Vec<Step>) {
        match self.state {
            State::Bridged { .. } => self.end(cause, out),
            State::Greeting { .. } | State::Briefing { .. } => self.fail(failure, out),
            // The REFER's target replaces our dialog by its own: its BYE may be faster than the news.
            State::Referring { until, .. } => {
                self.state = State::Referring { until, target_left: true };
                out.push(Step::DropTarget);
            }
            State::Opening | State::Ringing { .. } | State::Over => {}
        }
    }

    fn on_timeout(&mut self, now: Instant, out: &mut Vec<Step>) {
        if self.deadline().is_none_or(|until| until > now) {
            return;
        }
        match self.state {
            State::Ringing { .. } => self.fail(Failure::NoAnswer, out),
            State::Greeting { .. } => self.fail(Failure::NoAgent("it was not ready in time"), out),
            State::Briefing { .. } => self.fail(Failure::Undecided, out),
            State::Bridged { .. } => self.end(EndCause::BridgedTooLong, out),
            State::Referring { .. } => {
                self.on_refer_end(now, ReferEnd::Failed(ReferFault::Silent), out);
            }
            State::Opening | State::Over => {}
        }
    }

    /// The caller goes back to its agent, which is told why.
    fn fail(&mut self, failure: Failure, out: &mut Vec<Step>) {
        let has_leg = match self.state {
            State::Opening | State::Ringing { .. } => true,
            State::Greeting { .. } | State::Briefing { .. } | State::Bridged { .. } => true,
            State::Referring { target_left, .. } => self.briefing != Briefing::Cold && !target_left,
            State::Over => return,
        };
        self.state = State::Over;
        if has_leg {
            out.push(Step::DropTarget);
        }
        if self.agent != TargetAgent::Nobody {
            out.push(Step::DismissAgent(self.briefing));
        }
        out.extend([
            Step::Note(Outcome::Failed(failure.clone())),
            Step::Resume,
            Step::Report(failure),
        ]);
    }

    /// The call is over.
    fn end(&mut self, cause: EndCause, out: &mut Vec<Step>) {
        self.state = State::Over;
        out.push(Step::Finish(cause));
    }
}
