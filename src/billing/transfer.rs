//! What a record tells of a transfer: who was to take the call over, how, what became of it, and how
//! long the target's leg was up. The times are labels; the leg's duration is part of the call's SIP
//! time already.

use super::stamp;
use crate::ground::WallTime;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a call was to be passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    ColdRefer,
    ColdInvite,
    WarmRefer,
    WarmBridge,
    WarmTryRefer,
    /// To the configured target, since the agent was lost.
    Failover,
    /// By a REFER of the peer, which was followed.
    PeerRefer,
}

impl TransferKind {
    /// As in records and metrics.
    pub fn label(self) -> &'static str {
        match self {
            TransferKind::ColdRefer => "cold_refer",
            TransferKind::ColdInvite => "cold_invite",
            TransferKind::WarmRefer => "warm_refer",
            TransferKind::WarmBridge => "warm_bridge",
            TransferKind::WarmTryRefer => "warm_try_refer",
            TransferKind::Failover => "failover",
            TransferKind::PeerRefer => "peer_refer",
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferOutcome {
    UnderWay,
    /// The peer took the call away from us (RFC 3515).
    Referred,
    /// Both legs went on here.
    Bridged,
    /// The agent went over to the target.
    HandedOver,
    /// The caller was back with its agent.
    Failed,
    /// The call ended meanwhile.
    GivenUp,
}

/// One transfer of a call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TransferRecord {
    pub kind: TransferKind,
    /// The URI that was called or referred to.
    pub target: String,
    #[serde(with = "stamp::wall")]
    pub began_at: WallTime,
    /// The target's leg was answered.
    #[serde(with = "stamp::wall_option")]
    pub answered_at: Option<WallTime>,
    /// Decided, one way or another.
    #[serde(with = "stamp::wall_option")]
    pub decided_at: Option<WallTime>,
    pub outcome: TransferOutcome,
    /// Why it failed, in a few fixed words.
    pub reason: Option<String>,
    /// The SIP status behind the failure.
    pub status: Option<u16>,
    /// How long the target's leg was up.
    #[serde(rename = "leg_time_ms", with = "stamp::millis")]
    pub leg_time: Duration,
    /// Ultravox's id of the agent call that briefed the target.
    pub operator_call_id: Option<String>,
    /// For how long its stream was joined.
    #[serde(rename = "operator_time_ms", with = "stamp::millis")]
    pub operator_time: Duration,
}

impl TransferRecord {
    /// A transfer as it begins.
    pub fn begun(kind: TransferKind, target: String, began_at: WallTime) -> TransferRecord {
        TransferRecord {
            kind,
            target,
            began_at,
            answered_at: None,
            decided_at: None,
            outcome: TransferOutcome::UnderWay,
            reason: None,
            status: None,
            leg_time: Duration::ZERO,
            operator_call_id: None,
            operator_time: Duration::ZERO,
        }
    }

    /// What became of it; the last word counts, since a bridge may still become a referral.
    pub fn decide(&mut self, now: WallTime, outcome: TransferOutcome) {
        self.decided_at = Some(now);
        self.outcome = outcome;
    }
}
