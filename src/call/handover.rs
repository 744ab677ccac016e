//! The call's side of a transfer: what it is begun with, what is told to the machine in
//! [`super::transfer`], and what carries out each of its steps with this call's legs, streams and record.
//! A refusal, and every failure, comes back to the agent in words; one transfer at a time.

use super::deed::{self, Deed};
use super::ladder::Lane;
use super::leg::{Errand, JobPurpose};
use super::referring::Notified;
use super::settings::{TransferSettings, WarmMode};
use super::tool::{ColdTransfer, HoldMusic, Invocation, SipVerb, TransferType, WarmTransfer};
use super::transfer::{Briefing, Happened, Manner, Patience, Step, Transfer};
use super::{Act, Call};
use crate::billing::{TransferKind, TransferOutcome, TransferRecord};
use crate::ground::{Now, StreamId, limits};
use crate::outgoing::{Callee, request};
use crate::refusal::EndCause;
use crate::sip::digest::{Credentials, DigestClient};
use crate::sip::refer::ReferTarget;

/// A transfer with all that its steps need.
#[derive(Debug)]
pub struct Transferring {
    pub machine: Transfer,
    /// The stream whose agent asked for it; `None`: nobody is told.
    pub(super) asked_by: Option<StreamId>,
    /// The peer whose REFER is followed.
    notified: Option<Notified>,
    pub(super) errand: Errand,
    pub(super) refer_headers: Vec<(String, String)>,
    pub(super) music: HoldMusic,
    pub(super) brief: Brief,
    /// The second agent call.
    pub(super) operator: Option<super::streams::Operator>,
    /// The stage of the caller's agent, when it speaks with the target itself.
    pub(super) staging: Option<super::staging::Staging>,
}

/// What the target's agent is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Brief {
    pub(super) template: Option<String>,
    pub(super) context: String,
}

/// A transfer as it is asked for.
struct Asked {
    kind: TransferKind,
    manner: Manner,
    briefing: Briefing,
    target: String,
    from: Option<String>,
    credentials: Option<Credentials>,
    invite_headers: Vec<(String, String)>,
    refer_headers: Vec<(String, String)>,
    music: HoldMusic,
    brief: Brief,
    notified: Option<Notified>,
}

impl Transferring {
    /// The credentials of a cold REFER are for it alone: there is no INVITE that they could be for.
    pub(super) fn refer_credentials(&self) -> Option<DigestClient> {
        let is_cold = self.machine.briefing() == Briefing::Cold;
        let is_refer = self.machine.manner() == Manner::Refer;
        self.errand.credentials.clone().filter(|_| is_cold && is_refer)
    }

    /// What a REFER passes on to the target. When it rings already, it has its headers.
    pub(super) fn target_headers(&self) -> Vec<(String, String)> {
        match self.machine.briefing() {
            Briefing::Cold => self.errand.headers.clone(),
            Briefing::SecondCall | Briefing::Stage => Vec::new(),
        }
    }

    /// Where the news of a REFER that is followed go.
    pub(super) fn notified(&self) -> Option<Notified> {
        self.notified
    }
}

impl Call {
    /// The agent passes the caller on without a word to the target.
    pub(super) fn begin_cold(
        &mut self,
        now: Now,
        invocation: Invocation,
        cold: ColdTransfer,
        out: &mut Vec<Act>,
    ) {
        let (kind, manner) = match cold.verb {
            SipVerb::Refer => (TransferKind::ColdRefer, Manner::Refer),
            SipVerb::Invite => (TransferKind::ColdInvite, Manner::Bridge),
        };
        let asked = Asked {
            kind,
            manner,
            briefing: Briefing::Cold,
            target: cold.target,
            from: cold.from,
            credentials: cold.credentials,
            invite_headers: cold.headers,
            refer_headers: Vec::new(),
            music: cold.music,
            brief: Brief::default(),
            notified: None,
        };
        self.begin_transfer(now, Some(invocation.stream), asked, out);
    }

    /// The agent speaks with the target before it passes the caller on.
    pub(super) fn begin_warm(
        &mut self,
        now: Now,
        invocation: Invocation,
        warm: WarmTransfer,
        out: &mut Vec<Act>,
    ) {
        let (kind, manner) = match warm.kind {
            TransferType::Refer => (TransferKind::WarmRefer, Manner::Refer),
            TransferType::Bridge => (TransferKind::WarmBridge, Manner::Bridge),
            TransferType::TryRefer => (TransferKind::WarmTryRefer, Manner::TryRefer),
        };
        let briefing = match self.settings.hands.transfers.warm {
            WarmMode::SecondCall => Briefing::SecondCall,
            WarmMode::Stage => Briefing::Stage,
        };
        let asked = Asked {
            kind,
            manner,
            briefing,
            target: warm.target,
            from: warm.from,
            credentials: warm.credentials,
            invite_headers: warm.invite_headers,
            refer_headers: warm.refer_headers,
            music: warm.music,
            brief: Brief { template: warm.prompt_template, context: warm.context },
            notified: None,
        };
        self.begin_transfer(now, Some(invocation.stream), asked, out);
    }

    /// The agent is lost and none can be had: the caller goes to `target`, or the call ends.
    pub fn begin_failover(&mut self, now: Now, target: &str, out: &mut Vec<Act>) {
        let asked = Asked {
            kind: TransferKind::Failover,
            manner: Manner::Bridge,
            briefing: Briefing::Cold,
            target: target.to_owned(),
            from: None,
            credentials: None,
            invite_headers: Vec::new(),
            refer_headers: Vec::new(),
            music: HoldMusic::default(),
            brief: Brief::default(),
            notified: None,
        };
        self.begin_transfer(now, None, asked, out);
    }

    /// The first leg's peer wants the agent to go over to somebody else.
    pub(super) fn follow_referral(
        &mut self,
        now: Now,
        notified: Notified,
        target: ReferTarget,
        out: &mut Vec<Act>,
    ) {
        let replaces = target.replaces.map(|replaces| ("Replaces".into(), replaces.to_string()));
        let asked = Asked {
            kind: TransferKind::PeerRefer,
            manner: Manner::HandOver,
            briefing: Briefing::Cold,
            target: target.uri,
            from: None,
            credentials: None,
            invite_headers: replaces.into_iter().collect(),
            refer_headers: Vec::new(),
            music: HoldMusic::default(),
            brief: Brief::default(),
            notified: Some(notified),
        };
        self.begin_transfer(now, None, asked, out);
    }

    /// The operator takes the call.
    pub(super) fn on_operator_accepts(
        &mut self,
        now: Now,
        invocation: &Invocation,
        out: &mut Vec<Act>,
    ) {
        if self.briefs(invocation.stream) {
            self.note(now, Lane::Agent, "the operator takes the call");
            self.drive(now, Happened::Accepted, out);
        }
    }

    /// The operator does not take the call.
    pub(super) fn on_operator_refuses(
        &mut self,
        now: Now,
        invocation: &Invocation,
        reason: Option<String>,
        out: &mut Vec<Act>,
    ) {
        if self.briefs(invocation.stream) {
            self.note(now, Lane::Agent, "the operator does not take the call");
            self.drive(now, Happened::Declined(reason), out);
        }
    }

    /// The agent of this stream speaks with the target of a transfer.
    pub(super) fn briefs(&self, stream: StreamId) -> bool {
        let Some(transferring) = &self.transfer else { return false };
        match transferring.machine.briefing() {
            Briefing::Cold => false,
            Briefing::Stage => stream == self.agent,
            Briefing::SecondCall => {
                transferring.operator.as_ref().is_some_and(|operator| operator.stream == stream)
            }
        }
    }

    fn begin_transfer(
        &mut self,
        now: Now,
        asked_by: Option<StreamId>,
        asked: Asked,
        out: &mut Vec<Act>,
    ) {
        let (callee, from) = match self.admit_transfer(&asked) {
            Ok(admitted) => admitted,
            Err(words) => {
                let (kind, outcome) = (asked.kind, deed::REFUSED);
                out.push(Act::Tell(Deed::Transfer { kind, outcome }));
                let whom = (asked_by, asked.notified);
                return self.refuse_transfer(now, whom, &words, out);
            }
        };
        self.settle_keys(now, out);
        self.note(now, Lane::Edge, format!("transfer begins: {}", kind_words(asked.kind)));
        let record = TransferRecord::begun(asked.kind, callee.uri.clone(), now.wall);
        self.cdr.transfers.push(record);
        let errand = Errand {
            tried: vec![callee.uri.clone()],
            home: callee.place.clone(),
            callee,
            from,
            headers: asked.invite_headers,
            credentials: asked.credentials.map(DigestClient::new),
        };
        let patience = patience(&self.settings.hands.transfers);
        let mut steps = Vec::new();
        let plan = (asked.manner, asked.briefing);
        let machine = Transfer::begin(now.at, plan, patience, &mut steps);
        self.transfer = Some(Box::new(Transferring {
            machine,
            asked_by,
            notified: asked.notified,
            errand,
            refer_headers: asked.refer_headers,
            music: asked.music,
            brief: asked.brief,
            operator: None,
            staging: None,
        }));
        out.push(Act::Record);
        self.take_steps(now, steps, out);
    }

    /// Whether any transfer may begin now.
    ///
    /// # Errors
    /// Why not, in words for the agent.
    pub(super) fn may_transfer(&self) -> Result<(), &'static str> {
        if !self.is_answered() {
            Err("the call is not up")
        } else if self.lost.is_some() {
            Err("the agent is lost, another one is looked for")
        } else if self.transfer.is_some() {
            Err("another transfer is under way; wait for its end")
        } else if self.cdr.transfers.len() >= limits::TRANSFERS_MAX {
            Err("too many transfers were tried in this call")
        } else if self.closing.len() >= limits::CLOSING_LEGS_MAX {
            Err("the lines of former transfers are still closing; try again later")
        } else {
            Ok(())
        }
    }

    /// Whether this transfer may begin now: whom it calls, and as whom.
    fn admit_transfer(&self, asked: &Asked) -> Result<(Callee, String), String> {
        self.may_transfer()?;
        let policy = &self.settings.hands.transfers.policy;
        let callee = policy.admit(&asked.target, false).map_err(|unwanted| unwanted.to_string())?;
        let from = asked.from.clone().or_else(|| self.own_number());
        let from = from.unwrap_or_else(|| "anonymous".into());
        let from = request::from_address(&from, &callee)
            .map_err(|_| "the number to call from cannot be used".to_owned())?;
        Ok((callee, from))
    }

    /// As whom a target is called: as the caller, or as whoever made an outgoing call.
    fn own_number(&self) -> Option<String> {
        let number = match &self.outgoing {
            Some(outgoing) => Some(outgoing.wanted.caller.clone()),
            None => self.cdr.caller_id.clone(),
        };
        number.filter(|number| request::is_plain_user(number))
    }

    fn refuse_transfer(
        &mut self,
        now: Now,
        (asked_by, notified): (Option<StreamId>, Option<Notified>),
        words: &str,
        out: &mut Vec<Act>,
    ) {
        self.note(now, Lane::Edge, format!("transfer refused: {words}"));
        match (asked_by, notified) {
            (Some(stream), _) => {
                self.report_to_agent(stream, &format!("The transfer failed: {words}."), out);
            }
            (None, Some(notified)) => out.push(Act::NotifyReferral { notified, code: 503 }),
            (None, None) => self.finish(now, EndCause::AgentLost(None), out),
        }
    }

    /// Tells the transfer what happened, and does what it wants.
    pub(super) fn drive(&mut self, now: Now, what: Happened, out: &mut Vec<Act>) {
        let Some(transferring) = &mut self.transfer else { return };
        let mut steps = Vec::new();
        transferring.machine.handle(now.at, what, &mut steps);
        self.take_steps(now, steps, out);
    }

    fn take_steps(&mut self, now: Now, steps: Vec<Step>, out: &mut Vec<Act>) {
        for step in steps {
            if self.is_ending() {
                return;
            }
            self.take_step(now, step, out);
        }
        if self.transfer.as_ref().is_some_and(|transferring| transferring.machine.is_over()) {
            self.let_go_of_transfer(now, out);
        }
    }

    /// Nothing of a transfer outlives it: not its agent call, not what the shell works on for it.
    pub(super) fn let_go_of_transfer(&mut self, now: Now, out: &mut Vec<Act>) {
        self.end_operator(now, out);
        self.abort_jobs(JobPurpose::Stage, out);
        self.abort_jobs(JobPurpose::Sound, out);
        self.transfer = None;
    }

    fn take_step(&mut self, now: Now, step: Step, out: &mut Vec<Act>) {
        match step {
            Step::Hold => self.hold_caller(now, out),
            Step::OpenLeg => {
                if let Some(transferring) = &self.transfer {
                    out.push(Act::AskLeg(Box::new(transferring.errand.clone())));
                }
            }
            Step::Dial => self.dial_second(now, out),
            Step::ReadyAgent(briefing) => self.ready_agent(now, briefing, out),
            Step::JoinAgent => self.join_operator(now, out),
            Step::Brief(briefing) => self.brief(now, briefing, out),
            Step::Refer { replaces } => self.refer(now, replaces, out),
            Step::Bridge => self.bridge(now, out),
            Step::HandOver => self.hand_over(now, out),
            Step::DropTarget => self.drop_second(now, None, out),
            Step::DismissAgent(briefing) => self.dismiss_agent(now, briefing, out),
            Step::Resume => self.resume(now, out),
            Step::Note(outcome) => self.note_outcome(now, &outcome, out),
            Step::Report(failure) => self.report_failure(now, &failure, out),
            Step::Finish(cause) => self.finish(now, cause, out),
        }
    }

    /// The call ends with a transfer under way, or bridged: its record is closed, its agent leaves.
    pub(super) fn close_transfer(&mut self, now: Now, out: &mut Vec<Act>) {
        if self.transfer.is_none() {
            return;
        }
        self.let_go_of_transfer(now, out);
        let record = self.cdr.transfers.last_mut();
        if let Some(record) = record.filter(|one| one.outcome == TransferOutcome::UnderWay) {
            record.decide(now.wall, TransferOutcome::GivenUp);
            let (kind, outcome) = (record.kind, deed::CALL_ENDED);
            out.push(Act::Tell(Deed::Transfer { kind, outcome }));
        }
    }
}

fn patience(settings: &TransferSettings) -> Patience {
    Patience {
        ring: settings.ring_timeout,
        greeting: limits::CREATE_CALL,
        briefing: settings.briefing_max,
        // The UA gives a REFER up by then; the transfer ends in any case.
        refer: settings.refer_timeout + limits::TRANSACTION,
        bridged: settings.bridged_max,
    }
}

fn kind_words(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::ColdRefer => "cold, by REFER",
        TransferKind::ColdInvite => "cold, by INVITE",
        TransferKind::WarmRefer => "warm, by REFER",
        TransferKind::WarmBridge => "warm, bridged",
        TransferKind::WarmTryRefer => "warm, by REFER or bridged",
        TransferKind::Failover => "the agent is lost, to the fail-over target",
        TransferKind::PeerRefer => "the peer's REFER is followed",
    }
}
