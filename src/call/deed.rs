//! What calls do with their hands, as it is counted over all calls and told in the log: transfers by how
//! they ended, keys, tools, agents that were lost. Fixed words only: no target, no key, nothing that a
//! peer or an agent sent.

use super::keys::KeyPath;
use super::{Act, Call};
use crate::billing::{LossEnd, TransferKind};
use std::collections::BTreeMap;

/// One thing that a call did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A transfer was decided for the first time, or refused before it began. `outcome` is a label of
    /// [`super::transfer::Outcome`], [`REFUSED`] or [`CALL_ENDED`].
    Transfer { kind: TransferKind, outcome: &'static str },
    /// Somebody wanted the place of a leg's peer (RFC 3891), and took it or did not.
    Replaces { taken: bool },
    /// A key that a party of the call pressed; one that came twice counts once.
    KeyReceived(KeyPath),
    /// Keys are pressed towards a leg: those of a bridge from now on, those of an agent to their end.
    KeysSent { sender: KeySender, count: u32 },
    /// An agent invoked a tool of ours.
    Tool { tool: &'static str, begun: bool },
    /// An agent was lost, and this followed.
    AgentLost(LossEnd),
}

/// Who pressed keys towards a leg.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeySender {
    Agent,
    /// The other leg of a bridge.
    Bridge,
}

impl KeySender {
    pub fn label(self) -> &'static str {
        match self {
            KeySender::Agent => "agent",
            KeySender::Bridge => "bridge",
        }
    }
}

/// A transfer that was not allowed to begin.
pub const REFUSED: &str = "refused";
/// A transfer whose call ended under it.
pub const CALL_ENDED: &str = "call_ended";

/// Deeds since the start, by the words of the metrics' labels. Both are fixed, so it stays small.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// By kind and outcome.
    pub transfers: BTreeMap<(&'static str, &'static str), u64>,
    pub keys_received: BTreeMap<&'static str, u64>,
    pub keys_sent: BTreeMap<&'static str, u64>,
    /// By tool and whether it was begun or refused.
    pub tools: BTreeMap<(&'static str, &'static str), u64>,
    /// By what followed.
    pub agents_lost: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn add(&mut self, deed: Deed) {
        let (place, count) = match deed {
            Deed::Transfer { kind, outcome } => {
                (self.transfers.entry((kind.label(), outcome)).or_default(), 1)
            }
            Deed::Replaces { taken } => {
                let outcome = if taken { "taken_over" } else { REFUSED };
                (self.transfers.entry(("replaces", outcome)).or_default(), 1)
            }
            Deed::KeyReceived(path) => (self.keys_received.entry(path.label()).or_default(), 1),
            Deed::KeysSent { sender, count } => {
                (self.keys_sent.entry(sender.label()).or_default(), count.into())
            }
            Deed::Tool { tool, begun } => {
                let outcome = if begun { "begun" } else { REFUSED };
                (self.tools.entry((tool, outcome)).or_default(), 1)
            }
            Deed::AgentLost(end) => (self.agents_lost.entry(end.label()).or_default(), 1),
        };
        *place += count;
    }
}

impl Call {
    /// What followed the loss of an agent is known; a loss has one end.
    pub(super) fn settle_loss(&mut self, end: LossEnd, out: &mut Vec<Act>) {
        let open = self.cdr.agent_losses.last_mut().filter(|loss| loss.then.is_none());
        if let Some(loss) = open {
            loss.then = Some(end);
            out.push(Act::Tell(Deed::AgentLost(end)));
        }
    }
}
