//! Faults on demand: what the stand-in does wrong, where, for whom and how often. A test gives them
//! at the start, a person posts them to `/standin/faults`.

use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// Rules that may stand at once.
const RULES_MAX: usize = 64;

/// Where a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A REST request that creates a call.
    Create,
    /// `GET /api/agents/{agent_id}`.
    Fetch,
    /// The upgrade of the media stream.
    Join,
    /// The media stream after its join.
    Media,
}

/// What goes wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Answers with this HTTP status (create, fetch, join).
    Status {
        status: u16,
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Does the right thing, but later (create, fetch, join).
    Slow { ms: u64 },
    /// Never answers (create, fetch, join).
    NeverAnswers,
    /// Closes the TCP connection without an answer (create, fetch, join), or without a close frame
    /// after so many milliseconds of the caller's audio (media).
    Drop {
        #[serde(default)]
        after_audio_ms: u64,
    },
    /// A 201 or 200 whose body is not JSON (create, fetch).
    BadJson,
    /// A 201 whose `joinUrl` is null (create).
    MissingJoinUrl,
    /// A body or a binary frame of so many bytes (create, fetch, media).
    Oversize { bytes: usize },
    /// Redirects to another place (create, fetch).
    Redirect { location: String },
    /// A close frame with this code after so many milliseconds of the caller's audio (media).
    Close {
        code: u16,
        #[serde(default)]
        after_audio_ms: u64,
    },
    /// Text that is not JSON, and a binary frame of three bytes (media).
    Garbage,
    /// Never reads the socket after the join (media).
    NeverReads,
}

/// A fault with its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultRule {
    pub stage: Stage,
    /// `None`: every agent.
    #[serde(default)]
    pub agent_id: Option<String>,
    #[serde(flatten)]
    pub fault: Fault,
    /// How often it strikes; `None`: always.
    #[serde(default)]
    pub times: Option<u32>,
}

impl FaultRule {
    /// A fault that always strikes everyone.
    pub fn always(stage: Stage, fault: Fault) -> FaultRule {
        FaultRule { stage, agent_id: None, fault, times: None }
    }
}

/// The rules that stand.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<FaultRule>>);

impl Faults {
    pub fn new(rules: Vec<FaultRule>) -> Faults {
        Faults(Mutex::new(rules))
    }

    /// Adds a rule; false when there are too many.
    pub fn add(&self, rule: FaultRule) -> bool {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rules.len() < RULES_MAX;
        if room {
            rules.push(rule);
        }
        room
    }

    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The first rule that strikes here now; counts it.
    pub fn strike(&self, stage: Stage, agent_id: Option<&str>) -> Option<Fault> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rule: &FaultRule| {
            let everyone = rule.agent_id.is_none();
            rule.stage == stage && (everyone || rule.agent_id.as_deref() == agent_id)
        };
        let index = rules.iter().position(fits)?;
        let rule = rules.get_mut(index)?;
        let fault = rule.fault.clone();
        if let Some(times) = &mut rule.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                rules.remove(index);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_at_its_place_for_its_agent_and_as_often_as_it_says() {
        let rule: FaultRule = serde_json::from_str(
            r#"{"stage":"create","agentId":"a","fault":"status","status":429,"retry_after":"7","times":2}"#,
        )
        .expect("a rule");
        let fault = Fault::Status { status: 429, retry_after: Some("7".into()) };
        let faults = Faults::new(vec![rule]);
        assert_eq!(faults.strike(Stage::Fetch, Some("a")), None);
        assert_eq!(faults.strike(Stage::Create, Some("b")), None);
        assert_eq!(faults.strike(Stage::Create, None), None);
        assert_eq!(faults.strike(Stage::Create, Some("a")), Some(fault.clone()));
        assert_eq!(faults.strike(Stage::Create, Some("a")), Some(fault));
        assert_eq!(faults.strike(Stage::Create, Some("a")), None);
    }

    #[test]
    fn rules_are_bounded_and_can_be_cleared() {
        let faults = Faults::default();
        let rule = FaultRule::always(Stage::Join, Fault::NeverAnswers);
        let added = (0..RULES_MAX + 1).filter(|_| faults.add(rule.clone())).count();
        assert_eq!(added, RULES_MAX);
        assert_eq!(faults.strike(Stage::Join, Some("any")), Some(Fault::NeverAnswers));
        faults.clear();
        assert_eq!(faults.strike(Stage::Join, Some("any")), None);
    }
}
