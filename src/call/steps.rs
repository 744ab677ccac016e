//! The steps of a transfer as they are carried out: who hears whom from then on, what the record says,
//! and what the agent is told when the caller is back. When each comes is the machine's matter
//! ([`super::transfer`]).

use super::deed::Deed;
use super::ladder::Lane;
use super::tool::HoldMusic;
use super::transfer::{Briefing, Failure, Outcome};
use super::{Act, Call};
use crate::billing::TransferOutcome;
use crate::ground::Now;
use crate::media::plan::{MediaCommand, Port, Scene};
use crate::refusal::EndCause;

impl Call {
    /// The caller hears music; its agent hears nobody, and is heard by nobody.
    pub(super) fn hold_caller(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(transferring) = &self.transfer else { return };
        let music = transferring.music.clone();
        let words = match music {
            HoldMusic::None => "in silence",
            HoldMusic::Default | HoldMusic::Url(_) => "with music",
        };
        self.note(now, Lane::Media, format!("{} on hold {words}", self.far_end()));
        let scene = Scene::new().hearing(Port::Leg(self.first.id), Port::Sound);
        out.push(Act::Media(MediaCommand::Arrange { scene }));
        self.play_music(&music, out);
    }

    /// The target and its agent hear each other; the caller goes on hearing music.
    pub(super) fn brief(&mut self, now: Now, briefing: Briefing, out: &mut Vec<Act>) {
        let Some(second) = self.second_id() else { return };
        let operator = self.transfer.as_ref().and_then(|transfer| transfer.operator.as_ref());
        let stream = match (briefing, operator) {
            (Briefing::SecondCall, Some(operator)) => operator.stream,
            _ => self.agent,
        };
        if briefing == Briefing::Stage {
            self.enter_stage(now, out);
        }
        self.note(now, Lane::Media, "the agent speaks with the target");
        let scene = Scene::new()
            .talking(Port::Leg(second), Port::Agent(stream))
            .hearing(Port::Leg(self.first.id), Port::Sound);
        out.push(Act::Media(MediaCommand::Arrange { scene }));
    }

    /// Both legs hear each other; every agent leaves.
    pub(super) fn bridge(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(second) = self.second_id() else { return };
        self.note(now, Lane::Media, format!("{} and target bridged", self.far_end()));
        let scene = Scene::new().talking(Port::Leg(self.first.id), Port::Leg(second));
        out.push(Act::Media(MediaCommand::Arrange { scene }));
        self.stop_music(out);
        self.end_operator(now, out);
        self.leave_agent(now, out);
        self.tools.forget_keys();
        out.push(Act::Record);
    }

    /// The caller and its agent hear each other again. Without an agent that is the end, unless it
    /// left meanwhile: see [`Call::report_failure`].
    pub(super) fn resume(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.agent_close.is_some() {
            return;
        }
        if self.agent_joined.is_none() {
            return self.finish(now, EndCause::AgentLost(None), out);
        }
        self.note(now, Lane::Media, format!("{} back with the agent", self.far_end()));
        let scene = Scene::new().talking(Port::Leg(self.first.id), Port::Agent(self.agent));
        out.push(Act::Media(MediaCommand::Arrange { scene }));
        self.stop_music(out);
    }

    /// The agent of the call leaves since nobody needs it any more: its clock stops.
    fn leave_agent(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.agent_joined.is_none() {
            return;
        }
        let stream = self.agent;
        self.agent_left(now.at);
        self.cdr.left_at = Some(now.wall);
        self.note(now, Lane::Agent, "the agent leaves");
        out.push(Act::Media(MediaCommand::LeaveStream { stream }));
        out.push(Act::AgentDone { stream, joined: true });
    }

    pub(super) fn note_outcome(&mut self, now: Now, outcome: &Outcome, out: &mut Vec<Act>) {
        if let Outcome::Failed(_) = outcome {
            self.notify_peer(now, outcome, out);
        }
        let words = match outcome {
            Outcome::Referred => "transfer done: the peer has the target".to_owned(),
            Outcome::Bridged => "transfer done: bridged".to_owned(),
            Outcome::HandedOver => "transfer done: the target has the agent".to_owned(),
            Outcome::Failed(failure) => format!("transfer failed: {}", failure.label()),
        };
        self.note(now, Lane::Edge, words);
        let Some(record) = self.cdr.transfers.last_mut() else { return };
        if record.outcome == TransferOutcome::UnderWay {
            let (kind, outcome) = (record.kind, outcome.tag());
            out.push(Act::Tell(Deed::Transfer { kind, outcome }));
        }
        let decided = match outcome {
            Outcome::Referred => TransferOutcome::Referred,
            Outcome::Bridged => TransferOutcome::Bridged,
            Outcome::HandedOver => TransferOutcome::HandedOver,
            Outcome::Failed(failure) => {
                record.reason = Some(failure.label().to_owned());
                record.status = failure.status();
                TransferOutcome::Failed
            }
        };
        record.decide(now.wall, decided);
        out.push(Act::Record);
    }

    /// Tells the agent why the caller is back. One that left meanwhile is missed now: the words are
    /// kept for the agent that goes on with its call.
    pub(super) fn report_failure(&mut self, now: Now, failure: &Failure, out: &mut Vec<Act>) {
        let asked_by = self.transfer.as_ref().and_then(|transferring| transferring.asked_by);
        let words = format!("{} The caller is back with you.", failure.words());
        match (asked_by, self.agent_close.take()) {
            (asked_by, Some(close)) => {
                self.owed_report = asked_by.map(|_| words);
                self.let_go_of_transfer(now, out);
                self.on_agent_left(now, close, out);
            }
            (Some(stream), None) => self.report_to_agent(stream, &words, out),
            (None, None) => {}
        }
    }

    /// An agent that joined in the place of a lost one hears what became of the transfer.
    pub(super) fn tell_owed_report(&mut self, out: &mut Vec<Act>) {
        if let Some(words) = self.owed_report.take() {
            self.report_to_agent(self.agent, &words, out);
        }
    }
}
