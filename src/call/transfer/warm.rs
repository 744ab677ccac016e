//! The briefing: an agent speaks with the target, here called the operator, who takes the call or does
//! not. The agent is a second call or another stage of the caller's; the machine sees one thing
//! that becomes ready, joins and may be lost.

use super::{Briefing, Failure, Manner, State, Step, TargetAgent, Transfer};
use crate::ground::Instant;

impl Transfer {
    /// The operator is there: now its agent is wanted.
    pub(super) fn greet(&mut self, now: Instant, out: &mut Vec<Step>) {
        self.state = State::Greeting { until: now + self.patience.greeting };
        if self.agent == TargetAgent::Ready {
            self.join(now, out);
        }
    }

    pub(super) fn on_agent_ready(&mut self, now: Instant, out: &mut Vec<Step>) {
        if self.agent != TargetAgent::Awaited {
            return;
        }
        self.agent = TargetAgent::Ready;
        if matches!(self.state, State::Greeting { .. }) {
            self.join(now, out);
        }
    }

    /// A second call's stream is joined, which takes a moment; a stage is entered at once.
    fn join(&mut self, now: Instant, out: &mut Vec<Step>) {
        self.agent = TargetAgent::Joining;
        match self.briefing {
            Briefing::SecondCall => out.push(Step::JoinAgent),
            Briefing::Stage => self.on_agent_joined(now, out),
            Briefing::Cold => {}
        }
    }

    pub(super) fn on_agent_joined(&mut self, now: Instant, out: &mut Vec<Step>) {
        if let (State::Greeting { .. }, TargetAgent::Joining) = (self.state, self.agent) {
            self.agent = TargetAgent::Joined;
            self.state = State::Briefing { until: now + self.patience.briefing };
            out.push(Step::Brief(self.briefing));
        }
    }

    /// There is no agent for the target. When the operator has agreed already, none is needed.
    pub(super) fn on_agent_lost(&mut self, failure: Failure, out: &mut Vec<Step>) {
        if self.agent == TargetAgent::Nobody {
            return;
        }
        self.agent = TargetAgent::Nobody;
        match self.state {
            State::Opening
            | State::Ringing { .. }
            | State::Greeting { .. }
            | State::Briefing { .. } => self.fail(failure, out),
            State::Referring { .. } | State::Bridged { .. } | State::Over => {}
        }
    }

    /// The operator takes the call.
    pub(super) fn on_accepted(&mut self, now: Instant, out: &mut Vec<Step>) {
        let State::Briefing { .. } = self.state else { return };
        match self.manner {
            Manner::Refer | Manner::TryRefer => self.refer(now, out),
            Manner::Bridge | Manner::HandOver => self.bridge(now, out),
        }
    }

    /// The operator does not take the call.
    pub(super) fn on_declined(&mut self, reason: Option<String>, out: &mut Vec<Step>) {
        if let State::Briefing { .. } = self.state {
            self.fail(Failure::Declined(reason), out);
        }
    }
}
