//! A call's ladder: what crossed the edge, in order, on one clock. Bounded; the last line of a full
//! ladder says how many are missing. Texts hold no secret, no number and no description.

use crate::ground::Instant;
use crate::ground::limits::LADDER_LINES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Between whom a line of the ladder passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Caller and edge: signalling.
    Sip,
    /// Caller and edge: RTP.
    Media,
    /// Edge and Ultravox: REST and the agent stream.
    Agent,
    /// Edge and the fallback handler.
    Hook,
    /// Inside the edge: decisions.
    Edge,
}

impl Lane {
    /// The lane's word, padded by the reader.
    pub fn word(self) -> &'static str {
        match self {
            Lane::Sip => "sip",
            Lane::Media => "media",
            Lane::Agent => "agent",
            Lane::Hook => "hook",
            Lane::Edge => "edge",
        }
    }
}

/// One line: milliseconds since the INVITE, the lane and what passed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rung {
    pub at_ms: f64,
    pub lane: Lane,
    pub text: String,
}

/// The rungs of one call, at most [`LADDER_LINES_MAX`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ladder {
    #[serde(skip, default)]
    began: Instant,
    rungs: Vec<Rung>,
    /// Lines for which there was no room.
    left_out: u32,
}

impl Ladder {
    /// An empty ladder whose clock begins with the INVITE.
    pub fn new(began: Instant) -> Ladder {
        Ladder { began, rungs: Vec::new(), left_out: 0 }
    }

    /// When the INVITE came, on the process's clock.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Adds a line; when the ladder is full the last line counts what is left out.
    pub fn push(&mut self, at: Instant, lane: Lane, text: String) {
        let at_ms = (at.since(self.began).as_micros() as f64) / 1_000.0;
        if self.rungs.len() < LADDER_LINES_MAX {
            self.rungs.push(Rung { at_ms, lane, text });
            return;
        }
        self.left_out += 1;
        if let Some(last) = self.rungs.last_mut() {
            let text = format!("({} lines left out) {text}", self.left_out);
            *last = Rung { at_ms, lane, text };
        }
    }

    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rung in &self.rungs {
            writeln!(f, "{:>10.1} ms  {:<5}  {}", rung.at_ms, rung.lane.word(), rung.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ladder_says_how_many_lines_are_missing() {
        let mut ladder = Ladder::new(Instant::ZERO);
        for n in 0..LADDER_LINES_MAX + 3 {
            ladder.push(Instant::ZERO, Lane::Sip, format!("line {n}"));
        }
        assert_eq!(ladder.rungs().len(), LADDER_LINES_MAX);
        let last = &ladder.rungs()[LADDER_LINES_MAX - 1];
        assert_eq!(last.text, format!("(3 lines left out) line {}", LADDER_LINES_MAX + 2));
    }

    #[test]
    fn a_ladder_prints_aligned() {
        let began = Instant::from_nanos(5_000_000_000);
        let mut ladder = Ladder::new(began);
        ladder.push(began, Lane::Sip, "INVITE".into());
        let later = Instant::from_nanos(5_012_340_000);
        ladder.push(later, Lane::Agent, "call created".into());
        let text = "       0.0 ms  sip    INVITE\n      12.3 ms  agent  call created\n";
        assert_eq!(ladder.to_string(), text);
    }
}
