//! Agents that were read lately: their context schemas decide which automatic values are sent.
//! Bounded, and each entry is read again after a while.

use crate::ground::Instant;
use crate::ultravox::agent::Agent;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a read agent counts as current.
const FRESH: Duration = Duration::from_secs(60);
/// Agents that are kept; the oldest makes place.
const AGENTS_MAX: usize = 256;

/// Agents by id, with the time of their reading.
#[derive(Debug, Default)]
pub struct AgentCache {
    agents: BTreeMap<String, (Instant, Arc<Agent>)>,
}

impl AgentCache {
    /// The agent, when it was read less than a minute ago.
    pub fn fresh(&self, now: Instant, agent_id: &str) -> Option<Arc<Agent>> {
        let (read, agent) = self.agents.get(agent_id)?;
        (now.since(*read) < FRESH).then(|| Arc::clone(agent))
    }

    pub fn keep(&mut self, now: Instant, agent_id: &str, agent: Arc<Agent>) {
        if self.agents.len() >= AGENTS_MAX && !self.agents.contains_key(agent_id) {
            let oldest = self.agents.iter().min_by_key(|(_, (read, _))| *read);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                self.agents.remove(&id);
            }
        }
        self.agents.insert(agent_id.to_owned(), (now, agent));
    }

    /// Drops an agent, so that the next call reads it again.
    pub fn forget(&mut self, agent_id: &str) {
        self.agents.remove(agent_id);
    }
}
