//! One SIP leg of a call: its session, its offer/answer, its media port. A call begins with one leg;
//! a transfer's target is a second one. What a leg does is the call's matter; its clock is the
//! ledger's.

use super::early::EarlyDialog;
use super::ringing::Ringing;
use super::{Act, CallSettings, MediaAddress, reoffer};
use crate::codec::{CodecFormat, CodecKind};
use crate::ground::ports::{OwnPorts, RtpPort};
use crate::ground::{Flow, FlowId, LegId, StreamId};
use crate::media::plan::{
    CodecPlan, ControlPlan, Direction, LegPlan, MediaCommand, PausePlan, RemoteMedia,
};
use crate::outgoing::Callee;
use crate::sdp::payload::{self, Encoding};
use crate::sdp::{Agreed, DescriptionText, LocalMedia, OfferAnswer, SrtpPolicy, SrtpTerms};
use crate::sip::digest::DigestClient;
use crate::sip::ua::SessionId;
use std::fmt;
use std::net::IpAddr;

/// A leg. It may be up, on its way up or down; its call knows.
pub struct Leg {
    pub id: LegId,
    pub session: SessionId,
    pub flow: Flow,
    pub offer_answer: OfferAnswer,
    /// Our description for the 200, or our offer.
    pub description: DescriptionText,
    /// What was agreed; `None` until then.
    pub plan: Option<LegPlan>,
    /// The codec that was agreed first; until then, the one that is expected.
    pub kind: CodecKind,
    pub media_address: MediaAddress,
    /// We called a peer that has a policy of its own for SRTP.
    pub target_srtp: Option<SrtpPolicy>,
    /// Whom our present offer went to, by Request-URI. `None` before it went out.
    pub offered_to: Option<String>,
    pub port: RtpPort,
    pub ports_tried: u8,
    /// Where its media must not go.
    pub own: OwnPorts,
    /// A re-offer of the peer whose plan the shard has not acknowledged.
    pub pending_reoffer: Option<reoffer::Pending>,
    /// Of the plans that went to the shard.
    pub revision: u32,
    /// Addresses that may send requests of this dialog, listed or not.
    pub admitted: Vec<IpAddr>,
    /// Forks of our INVITE that described their media before one of them answered.
    pub early: Vec<EarlyDialog>,
}

/// Without descriptions, which may hold SRTP keys.
impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg")
            .field("id", &self.id)
            .field("session", &self.session)
            .field("flow", &self.flow)
            .field("kind", &self.kind)
            .field("port", &self.port)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Leg {
    /// The leg's plan from an agreed description.
    pub fn plan_of(&self, agreed: &Agreed) -> LegPlan {
        LegPlan {
            codec: agreed.codec,
            telephone_event: agreed.telephone_event,
            pauses: agreed.pauses,
            remote: agreed.remote,
            control: agreed.control,
            direction: agreed.direction,
            srtp: agreed.srtp.clone(),
            signalling_source: self.flow.peer.ip(),
        }
    }

    /// What is known of the leg before the peer's answer came.
    pub fn provisional_plan(&self, ptime_ms: u16) -> LegPlan {
        let payload_type = payload::default_number(Encoding::audio(self.kind));
        LegPlan {
            codec: CodecPlan {
                kind: self.kind,
                format: CodecFormat::Usual,
                send_payload_type: payload_type,
                receive_payload_type: payload_type,
                ptime_ms,
                fec: false,
            },
            telephone_event: None,
            pauses: PausePlan::default(),
            remote: RemoteMedia::default(),
            control: ControlPlan::default(),
            // Where SRTP is demanded, nothing is heard or said before there are keys.
            direction: match self.offer_answer.demands_srtp() {
                true => Direction::Inactive,
                false => Direction::SendRecv,
            },
            srtp: None,
            signalling_source: self.flow.peer.ip(),
        }
    }

    /// Whom we call with it is another one, or is reached by another way: a new offer takes the place of
    /// the former one. What a former callee described does not count any more, and media waits for
    /// the answer as it did at first.
    pub fn renew_offer(&mut self, offer: RenewedOffer, ptime_ms: u16, out: &mut Vec<Act>) {
        let (had_plan, demanded) = (self.plan.take().is_some(), self.offer_answer.demands_srtp());
        (self.offer_answer, self.description) = (offer.offer_answer, offer.description);
        self.media_address = offer.address;
        self.forget_forks();
        if !had_plan && demanded == self.offer_answer.demands_srtp() {
            return;
        }
        self.revision += 1;
        out.push(Act::Media(MediaCommand::Change {
            leg: self.id,
            revision: self.revision,
            plan: Box::new(self.provisional_plan(ptime_ms)),
        }));
    }

    /// Makes `plan` the one in force.
    pub(super) fn take_plan(&mut self, plan: LegPlan, out: &mut Vec<Act>) {
        self.plan = Some(plan.clone());
        self.revision += 1;
        out.push(Act::Media(MediaCommand::Change {
            leg: self.id,
            revision: self.revision,
            plan: Box::new(plan),
        }));
    }

    /// The media that we offer or answer with; `codecs` in preference order.
    pub fn local_media(
        &self,
        codecs: Vec<CodecKind>,
        settings: &CallSettings,
        srtp: SrtpTerms,
    ) -> LocalMedia {
        LocalMedia {
            address: self.media_address.advertise,
            port: self.port.0,
            ptime_ms: settings.ptime_ms,
            codecs,
            telephone_event: true,
            opus_fec: true,
            extended: settings.extended,
            silence_suppression: settings.silence_suppression,
            srtp,
            own: self.own.clone(),
        }
    }
}

/// An offer in the place of one that went out, or was to.
#[derive(Debug)]
pub struct RenewedOffer {
    pub offer_answer: OfferAnswer,
    pub description: DescriptionText,
    pub address: MediaAddress,
}

/// Whom a second leg calls, and with what.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Who is dialled now: another one after a 3xx.
    pub callee: Callee,
    /// From as `name-addr`.
    pub from: String,
    pub headers: Vec<(String, String)>,
    /// What answers challenges of the target that was asked for; nobody else's.
    pub credentials: Option<DigestClient>,
    /// Where that is.
    pub home: String,
    /// Everybody who was dialled, by Request-URI.
    pub tried: Vec<String>,
}

impl Errand {
    /// The credentials for the present target: those of another place stay at home.
    pub fn credentials_here(&self) -> Option<DigestClient> {
        self.credentials.clone().filter(|_| self.callee.place == self.home)
    }
}

/// The second leg: a transfer's target.
#[derive(Debug)]
pub struct Second {
    pub leg: Leg,
    pub errand: Errand,
    pub progress: Progress,
    /// What is heard of it before it answers.
    pub ringing: Ringing,
}

/// How far a leg that we dial is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// No INVITE is out.
    Bound,
    Ringing,
    /// Answered: a BYE ends it.
    Up,
    /// Its session is gone.
    Gone,
}

/// A dialog on its way out while the call goes on, or until it is gone; with the leg's port when the
/// leg goes too.
#[derive(Debug)]
pub struct Closing {
    pub session: SessionId,
    pub flow: FlowId,
    pub admitted: Vec<IpAddr>,
    /// The port, until media has let go of it.
    pub port: Option<(LegId, RtpPort)>,
    /// The end of the dialog is awaited.
    pub awaits_dialog: bool,
    /// `LegClosed` is awaited.
    pub awaits_media: bool,
}

impl Closing {
    pub fn is_over(&self) -> bool {
        !self.awaits_dialog && !self.awaits_media
    }
}

/// The jobs of a call that the shell works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobPurpose {
    /// The way to the agent call: who takes it, what the agent is like.
    SetUp,
    /// The agent call of this stream.
    Creation(StreamId),
    /// The stage of the caller's agent, to be restored.
    Stage,
    /// Audio of our own.
    Sound,
}
