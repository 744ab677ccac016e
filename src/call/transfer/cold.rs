//! The way to the target: port, INVITE, ringing, answer. Without a briefing the answer brings both
//! parties together at once.

use super::{Briefing, Failure, Manner, Outcome, State, Step, Transfer};
use crate::ground::Instant;

impl Transfer {
    pub(super) fn on_leg_ready(&mut self, now: Instant, out: &mut Vec<Step>) {
        if self.state == State::Opening {
            self.state = State::Ringing { until: now + self.patience.ring };
            out.push(Step::Dial);
        }
    }

    /// No port, busy, declined, not reached.
    pub(super) fn on_not_answered(&mut self, failure: Failure, out: &mut Vec<Step>) {
        if matches!(self.state, State::Opening | State::Ringing { .. }) {
            self.fail(failure, out);
        }
    }

    pub(super) fn on_answered(&mut self, now: Instant, out: &mut Vec<Step>) {
        let State::Ringing { .. } = self.state else { return };
        match (self.briefing, self.manner) {
            (Briefing::Cold, Manner::HandOver) => {
                self.state = State::Over;
                out.extend([Step::Note(Outcome::HandedOver), Step::HandOver]);
            }
            (Briefing::Cold, Manner::Refer | Manner::Bridge | Manner::TryRefer) => {
                self.bridge(now, out);
            }
            (Briefing::SecondCall | Briefing::Stage, _) => self.greet(now, out),
        }
    }

    /// The caller's agent left: whoever is on the way to somebody else goes on; who has come back by
    /// then is alone. In a stage it was the target's agent too.
    pub(super) fn on_caller_agent_left(&mut self, out: &mut Vec<Step>) {
        if self.briefing == Briefing::Stage {
            self.on_agent_lost(Failure::NoAgent("it left"), out);
        }
    }
}
