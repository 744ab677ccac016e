//! Our REFER, from the sending to the end of its news (RFC 3515): what it means for the two parties.
//! The user agent follows the NOTIFYs; here only the outcome is seen.

use super::{Briefing, Failure, Manner, Outcome, ReferEnd, State, Step, Transfer};
use crate::ground::Instant;
use crate::refusal::EndCause;

impl Transfer {
    /// Asks the first leg's peer to call the target.
    pub(super) fn refer(&mut self, now: Instant, out: &mut Vec<Step>) {
        self.state = State::Referring { until: now + self.patience.refer, target_left: false };
        out.push(Step::Refer { replaces: self.briefing != Briefing::Cold });
    }

    pub(super) fn on_refer_end(&mut self, now: Instant, end: ReferEnd, out: &mut Vec<Step>) {
        match end {
            ReferEnd::Referred => self.on_referred(out),
            ReferEnd::PeerLeft => self.end(EndCause::CallerHungUp, out),
            ReferEnd::Failed(fault) => self.on_refer_failed(now, Failure::Refer(fault), out),
        }
    }

    /// The parties have each other. Also late, when both legs are bridged by then: one call is enough.
    fn on_referred(&mut self, out: &mut Vec<Step>) {
        match self.state {
            State::Referring { .. } => {
                out.push(Step::Note(Outcome::Referred));
                self.end(EndCause::Transferred, out);
            }
            State::Bridged { .. } if self.manner == Manner::TryRefer => {
                out.push(Step::Note(Outcome::Referred));
                self.end(EndCause::Transferred, out);
            }
            State::Bridged { .. }
            | State::Opening
            | State::Ringing { .. }
            | State::Greeting { .. }
            | State::Briefing { .. }
            | State::Over => {}
        }
    }

    /// The peer does not do it. With the bridge to fall back on the parties are brought together here.
    fn on_refer_failed(&mut self, now: Instant, failure: Failure, out: &mut Vec<Step>) {
        let State::Referring { target_left, .. } = self.state else { return };
        match (self.manner, self.briefing) {
            (Manner::TryRefer, Briefing::SecondCall | Briefing::Stage) if !target_left => {
                self.bridge(now, out);
            }
            (Manner::TryRefer, Briefing::Cold) => {
                self.manner = Manner::Bridge;
                self.state = State::Opening;
                out.push(Step::OpenLeg);
            }
            _ => self.fail(failure, out),
        }
    }
}
