//! REFER, both ways (RFC 3515): ours, which asks the first leg's peer to call a transfer's target, and
//! the peer's, which asks the same of us. The peer's is refused unless the configuration says
//! otherwise; when it is followed, the agent goes over to the target and the peer leaves.

use super::deed::{Deed, REFUSED};
use super::handover::Transferring;
use super::ladder::Lane;
use super::leg::{Closing, Second};
use super::transfer::{Happened, Outcome, ReferEnd, ReferFault};
use super::{Act, Call};
use crate::billing::TransferKind;
use crate::ground::Now;
use crate::media::plan::{MediaCommand, Port, Scene};
use crate::refusal::{ReferRefusal, Refusal};
use crate::sip::digest::DigestClient;
use crate::sip::refer::{ReferOutcome, ReferTarget};
use crate::sip::ua::{RequestToken, SessionId};
use std::time::Duration;

/// A REFER as the call wants it.
#[derive(Clone, Debug)]
pub struct ReferWish {
    pub session: SessionId,
    /// Whom the peer is to call.
    pub target: String,
    /// The target's dialog with us, which the peer's call replaces (RFC 3891).
    pub replaces: Option<SessionId>,
    /// For the INVITE to the target: a cold transfer's `extraHeaders`, whichever its verb. They stand in
    /// Refer-To.
    pub target_headers: Vec<(String, String)>,
    /// Of the REFER itself: a warm transfer's `referHeaders`, as its `inviteHeaders` are the INVITE's.
    pub headers: Vec<(String, String)>,
    /// Who asks (RFC 3892).
    pub referred_by: String,
    /// What answers a challenge of the peer, when this REFER was given any.
    pub credentials: Option<DigestClient>,
    /// How long the outcome is waited for.
    pub patience: Duration,
}

/// The peer's REFER that is being followed: where its news go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notified {
    pub session: SessionId,
    /// The CSeq number of the REFER.
    pub cseq: u32,
}

impl Call {
    /// Asks the first leg's peer to call the target itself.
    pub(super) fn refer(&mut self, now: Now, replaces: bool, out: &mut Vec<Act>) {
        let second = self.second.as_deref().map(|second| second.leg.session);
        let Some(transferring) = &self.transfer else { return };
        let us = match self.outgoing {
            Some(_) => &self.cdr.from_uri,
            None => &self.cdr.to_uri,
        };
        let wish = ReferWish {
            session: self.first.session,
            target: transferring.errand.callee.uri.clone(),
            replaces: second.filter(|_| replaces),
            target_headers: transferring.target_headers(),
            headers: transferring.refer_headers.clone(),
            referred_by: format!("<{us}>"),
            credentials: transferring.refer_credentials(),
            patience: self.settings.hands.transfers.refer_timeout,
        };
        self.note(now, Lane::Sip, format!("REFER  edge → {}", self.far_end()));
        out.push(Act::Refer(Box::new(wish)));
    }

    /// Our REFER could not be sent.
    pub fn on_refer_unsent(&mut self, now: Now, out: &mut Vec<Act>) {
        self.note(now, Lane::Sip, "the REFER could not be sent");
        self.drive(now, Happened::Refer(ReferEnd::Failed(ReferFault::Unsent)), out);
    }

    /// How our REFER goes.
    pub fn on_refer_progress(&mut self, now: Now, code: u16) {
        self.note(now, Lane::Sip, format!("{code} of the REFER  {} → edge", self.far_end()));
    }

    /// Our REFER in this session came to its end. That of a dialog which was replaced meanwhile was
    /// given up with it.
    pub fn on_refer_done(
        &mut self,
        now: Now,
        session: SessionId,
        outcome: &ReferOutcome,
        out: &mut Vec<Act>,
    ) {
        if session != self.first.session {
            return;
        }
        let (words, end) = match outcome {
            ReferOutcome::Succeeded { code } => {
                (format!("the REFER succeeded with {code}"), ReferEnd::Referred)
            }
            ReferOutcome::PeerLeft { accepted: true } => {
                ("the peer left after its 202".to_owned(), ReferEnd::Referred)
            }
            ReferOutcome::PeerLeft { accepted: false } => {
                ("the peer left".to_owned(), ReferEnd::PeerLeft)
            }
            ReferOutcome::Refused { code, .. } => (
                format!("the REFER was refused with {code}"),
                ReferEnd::Failed(ReferFault::Refused { code: *code }),
            ),
            ReferOutcome::Failed { code, .. } => (
                format!("the REFER failed with {code}"),
                ReferEnd::Failed(ReferFault::Failed { code: *code }),
            ),
            ReferOutcome::TimedOut => {
                ("no end of the REFER was told".to_owned(), ReferEnd::Failed(ReferFault::Silent))
            }
        };
        self.note(now, Lane::Sip, words);
        self.drive(now, Happened::Refer(end), out);
    }

    /// A REFER of a peer. `refer_to` as it came.
    pub fn on_peer_refers(
        &mut self,
        now: Now,
        session: SessionId,
        (token, cseq): (RequestToken, u32),
        refer_to: Option<&str>,
        out: &mut Vec<Act>,
    ) {
        let who = self.who(session);
        self.note(now, Lane::Sip, format!("REFER  {who} → edge"));
        match self.admit_referral(session, refer_to) {
            Ok(target) => {
                self.note(now, Lane::Sip, format!("202 Accepted  edge → {who}"));
                let notified = Notified { session, cseq };
                out.push(Act::Respond { token, status: Refusal::accepted_referral() });
                out.push(Act::NotifyReferral { notified, code: 100 });
                self.follow_referral(now, notified, target, out);
            }
            Err(refusal) => {
                let status = refusal.status();
                self.note(now, Lane::Sip, format!("{}  edge → {who}", status.code));
                let (kind, outcome) = (TransferKind::PeerRefer, REFUSED);
                out.push(Act::Tell(Deed::Transfer { kind, outcome }));
                out.push(Act::Respond { token, status });
            }
        }
    }

    fn admit_referral(
        &self,
        session: SessionId,
        refer_to: Option<&str>,
    ) -> Result<ReferTarget, ReferRefusal> {
        let transfers = &self.settings.hands.transfers;
        if !transfers.follow_refer || session != self.first.session {
            return Err(ReferRefusal::NotFollowed);
        }
        let target = refer_to.and_then(ReferTarget::parse).ok_or(ReferRefusal::BadTarget)?;
        let admitted = transfers.policy.admit(&target.uri, false);
        admitted.map_err(|_| ReferRefusal::NotAllowed)?;
        match self.may_transfer() {
            Ok(()) => Ok(target),
            Err(_) => Err(ReferRefusal::Busy),
        }
    }

    /// Tells the peer how the REFER that it sent goes.
    pub(super) fn notify_peer(&mut self, now: Now, outcome: &Outcome, out: &mut Vec<Act>) {
        let notified = self.transfer.as_deref().and_then(Transferring::notified);
        let Some(notified) = notified else { return };
        let code = match outcome {
            Outcome::Failed(failure) => failure.status().unwrap_or(503),
            Outcome::Referred | Outcome::Bridged | Outcome::HandedOver => 200,
        };
        self.note(now, Lane::Sip, format!("NOTIFY {code}  edge → {}", self.far_end()));
        out.push(Act::NotifyReferral { notified, code });
    }

    /// The target takes the place of the first leg, whose peer wanted it so and leaves.
    pub(super) fn hand_over(&mut self, now: Now, out: &mut Vec<Act>) {
        let Some(second) = self.second.take() else { return };
        let Second { leg, .. } = *second;
        self.notify_peer(now, &Outcome::HandedOver, out);
        let former = std::mem::replace(&mut self.first, leg);
        self.ledger.end(now.at, former.id);
        self.note(now, Lane::Media, "the target speaks with the agent");
        let scene = Scene::new().talking(Port::Leg(self.first.id), Port::Agent(self.agent));
        out.push(Act::Media(MediaCommand::Arrange { scene }));
        self.stop_music(out);
        self.give_up_keys(out);
        self.note(now, Lane::Sip, "BYE  edge → the former peer");
        out.push(Act::Bye { session: former.session, reason: None });
        out.push(Act::Media(MediaCommand::CloseLeg { leg: former.id }));
        self.closing.push(Closing {
            session: former.session,
            flow: former.flow.id,
            admitted: former.admitted,
            port: Some((former.id, former.port)),
            awaits_dialog: true,
            awaits_media: true,
        });
        let until = now.at + self.settings.hands.transfers.policy.length_max;
        let until = *self.handed_over_until.get_or_insert(until);
        self.deadline = Some(self.deadline.map_or(until, |deadline| deadline.min(until)));
        // An agent that left while the target rang is missed by now.
        if let Some(close) = self.agent_close.take() {
            self.let_go_of_transfer(now, out);
            self.on_agent_left(now, close, out);
        }
    }
}
