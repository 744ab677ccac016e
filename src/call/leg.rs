//! One SIP leg of a call: its session, its offer/answer, its media port. What it does is the call's
//! matter; its clock is the ledger's.

use super::{MediaAddress, reoffer};
use crate::codec::CodecKind;
use crate::ground::ports::RtpPort;
use crate::ground::{Flow, LegId};
use crate::media::plan::LegPlan;
use crate::sdp::OfferAnswer;
use crate::sip::ua::SessionId;

/// A leg. It may be up, on its way up or down; its call knows.
#[derive(Debug)]
pub struct Leg {
    pub id: LegId,
    pub session: SessionId,
    pub flow: Flow,
    pub offer_answer: OfferAnswer,
    /// Our description for the 200, or our offer.
    pub description: String,
    /// What was agreed; `None` until then.
    pub plan: Option<LegPlan>,
    /// The codec that was agreed first; until then, the one that is expected.
    pub kind: CodecKind,
    pub media_address: MediaAddress,
    pub port: RtpPort,
    pub ports_tried: u8,
    /// A re-offer of the peer whose plan the shard has not acknowledged.
    pub pending_reoffer: Option<reoffer::Pending>,
    /// Of the plans that went to the shard.
    pub revision: u32,
}
