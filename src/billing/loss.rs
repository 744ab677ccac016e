//! What a record tells of an agent that was lost while its caller was not: when, how its stream ended,
//! and what followed.

use super::stamp;
use crate::ground::WallTime;
use serde::{Deserialize, Serialize};

/// What followed the loss of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossEnd {
    /// Another agent call went on with the conversation.
    Recalled,
    /// The caller went to the configured target.
    FailedOver,
    /// The call ended: nobody could be had, or the caller left meanwhile.
    Ended,
}

impl LossEnd {
    /// As in records and metrics.
    pub fn label(self) -> &'static str {
        match self {
            LossEnd::Recalled => "recalled",
            LossEnd::FailedOver => "failed_over",
            LossEnd::Ended => "ended",
        }
    }
}

/// One agent that was lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentLoss {
    #[serde(with = "stamp::wall")]
    pub lost_at: WallTime,
    /// The code that its stream was closed with; `None`: it broke.
    pub close: Option<u16>,
    /// `None` while another agent is looked for.
    pub then: Option<LossEnd>,
}
