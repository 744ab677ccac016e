//! The identifier of an Ultravox agent: a UUID (seed: `agentId`, format `uuid`), kept in its
//! canonical lower-case form.

use std::fmt;

/// A UUID in the form `6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AgentId(String);

impl AgentId {
    /// Reads the hyphenated form of RFC 9562 §4; digits in either case. `None` for anything else.
    pub fn parse(text: &str) -> Option<AgentId> {
        let mut groups = text.split('-');
        for length in [8, 4, 4, 4, 12] {
            let group = groups.next()?;
            if group.len() != length || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
        }
        groups.next().is_none().then(|| AgentId(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hyphenated_uuid_is_an_agent_id() {
        let canonical = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";
        let read = |text: &str| AgentId::parse(text).map(|id| id.to_string());
        assert_eq!(read(canonical).as_deref(), Some(canonical));
        assert_eq!(read(&canonical.to_uppercase()).as_deref(), Some(canonical));
        for text in [
            "",
            "echo",
            "6f1d3c520b1e4f519a532d1f6a0d9c11",
            "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c1",
            "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c111",
            "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c1g",
            "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11-",
            "{6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
