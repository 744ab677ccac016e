//! Bridged: the caller and the target hear each other, the agents are gone, both legs bill on. What
//! comes now is the end of either leg, or the longest time.

use super::{Outcome, State, Step, TargetAgent, Transfer};
use crate::ground::Instant;

impl Transfer {
    pub(super) fn bridge(&mut self, now: Instant, out: &mut Vec<Step>) {
        self.state = State::Bridged { until: now + self.patience.bridged };
        self.agent = TargetAgent::Nobody;
        out.extend([Step::Bridge, Step::Note(Outcome::Bridged)]);
    }
}
