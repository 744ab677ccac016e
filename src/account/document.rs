//! The account's SIP configuration as written: the document of `GET /api/sip`, with the names of the
//! published schema. The configuration file gives the same document in snake case. Nothing is
//! checked here but shape; `compile` judges.

use serde::{Deserialize, Serialize};

/// The API's `SipConfig`. All fields are written; `allowedAgents` and `domain` are required by the
/// schema, the others have its defaults when read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SipConfigDocument {
    /// CIDR ranges from which calls are accepted; none admits nobody.
    pub allowed_cidr_ranges: Vec<String>,
    /// Adds a last rule `agent_<agent_id>@<any domain>` for every agent of the account.
    pub allow_all_agents: bool,
    /// In order of precedence; at most 20.
    pub allowed_agents: Vec<AgentAllowance>,
    /// Asked when no allowance matches; `null` when there is none.
    pub fallback_handler: Option<FallbackHandler>,
    /// Read-only: the domain that calls are sent to.
    pub domain: String,
}

/// Which To users reach an agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentAllowance {
    /// A UUID.
    pub agent_id: String,
    /// At most 200 characters; `^agent_<agent_id>$` when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_user_pattern: Option<String>,
}

/// The webhook that decides on calls that match no allowance.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackHandler {
    pub url: String,
    /// One to ten, of at most 120 characters each; one is made when they are not given. They sign
    /// requests; neither `Debug` nor a log shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
}

impl std::fmt::Debug for FallbackHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FallbackHandler").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_document_has_the_schemas_names_and_defaults() {
        let json = json!({
            "allowedCidrRanges": ["198.51.100.7/32"],
            "allowAllAgents": true,
            "allowedAgents": [
                {"agentId": "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11", "toUserPattern": "^sales$"},
                {"agentId": "0b7c2a9e-7f0e-4a6c-b7c4-93b1f4f0a2de"},
            ],
            "fallbackHandler": {"url": "https://hooks.example/sip", "secrets": ["s3cret"]},
            "domain": "edge.example",
        });
        let document: SipConfigDocument = serde_json::from_value(json.clone()).expect("reads");
        assert_eq!(serde_json::to_value(&document).expect("writes"), json);
        let empty: SipConfigDocument = serde_json::from_value(json!({})).expect("reads");
        let written = json!({
            "allowedCidrRanges": [], "allowAllAgents": false, "allowedAgents": [],
            "fallbackHandler": null, "domain": "",
        });
        assert_eq!(serde_json::to_value(&empty).expect("writes"), written);
        let unknown = serde_json::from_value::<SipConfigDocument>(json!({"allowAllAgent": true}));
        assert!(unknown.is_err());
        assert!(!format!("{document:?}").contains("s3cret"));
    }
}
