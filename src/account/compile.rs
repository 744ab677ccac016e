//! From the document to a `SipConfig` that is correct by construction, or to all its problems at
//! once, each with its place and its fix in words. Nothing is refused at call time that could be
//! refused here.

use super::agent_id::AgentId;
use super::document::{AgentAllowance, FallbackHandler, SipConfigDocument};
use super::pattern::Pattern;
use super::range::CidrRange;
use crate::fallback::address::check_url;
use crate::ground::limits;
use std::fmt;

/// Secrets of a fallback handler, and the characters of one (seed: `maxItems`, `maxLength`).
const SECRETS_MAX: usize = 10;
const SECRET_CHARS_MAX: usize = 120;
/// Bytes of a domain name (RFC 1035 §2.3.4).
const DOMAIN_BYTES_MAX: usize = 253;

/// The checked configuration that calls are judged by.
#[derive(Clone, Debug, Default)]
pub struct SipConfig {
    allowed_cidr_ranges: Vec<CidrRange>,
    allow_all_agents: bool,
    allowed_agents: Vec<Allowance>,
    fallback_handler: Option<FallbackHandler>,
    domain: String,
}

/// An entry of `allowedAgents`, compiled.
#[derive(Clone, Debug)]
pub struct Allowance {
    pub agent_id: AgentId,
    pub to_user_pattern: Pattern,
}

impl SipConfig {
    pub fn allowed_cidr_ranges(&self) -> &[CidrRange] {
        &self.allowed_cidr_ranges
    }

    pub fn allow_all_agents(&self) -> bool {
        self.allow_all_agents
    }

    /// In order of precedence; at most 20.
    pub fn allowed_agents(&self) -> &[Allowance] {
        &self.allowed_agents
    }

    pub fn fallback_handler(&self) -> Option<&FallbackHandler> {
        self.fallback_handler.as_ref()
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The document that says the same, with every default written out: what `GET /api/sip` gives.
    pub fn document(&self) -> SipConfigDocument {
        let allowance = |allowance: &Allowance| AgentAllowance {
            agent_id: allowance.agent_id.to_string(),
            to_user_pattern: Some(allowance.to_user_pattern.as_str().to_owned()),
        };
        SipConfigDocument {
            allowed_cidr_ranges: self
                .allowed_cidr_ranges
                .iter()
                .map(CidrRange::to_string)
                .collect(),
            allow_all_agents: self.allow_all_agents,
            allowed_agents: self.allowed_agents.iter().map(allowance).collect(),
            fallback_handler: self.fallback_handler.clone(),
            domain: self.domain.clone(),
        }
    }
}

/// Where in the document a problem is. `Display` gives the API's path, `toml_path` the file's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    Domain,
    AllowedCidrRanges,
    CidrRange(usize),
    AllowedAgents,
    AgentId(usize),
    ToUserPattern(usize),
    FallbackUrl,
    FallbackSecrets,
    FallbackSecret(usize),
}

impl Place {
    /// The path inside the `[sip]` table, for example `allowed_agents[3].to_user_pattern`.
    pub fn toml_path(self) -> String {
        match self {
            Place::Domain => "domain".to_owned(),
            Place::AllowedCidrRanges => "allowed_cidr_ranges".to_owned(),
            Place::CidrRange(index) => format!("allowed_cidr_ranges[{index}]"),
            Place::AllowedAgents => "allowed_agents".to_owned(),
            Place::AgentId(index) => format!("allowed_agents[{index}].agent_id"),
            Place::ToUserPattern(index) => format!("allowed_agents[{index}].to_user_pattern"),
            Place::FallbackUrl => "fallback_handler.url".to_owned(),
            Place::FallbackSecrets => "fallback_handler.secrets".to_owned(),
            Place::FallbackSecret(index) => format!("fallback_handler.secrets[{index}]"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Domain => f.write_str("domain"),
            Place::AllowedCidrRanges => f.write_str("allowedCidrRanges"),
            Place::CidrRange(index) => write!(f, "allowedCidrRanges[{index}]"),
            Place::AllowedAgents => f.write_str("allowedAgents"),
            Place::AgentId(index) => write!(f, "allowedAgents[{index}].agentId"),
            Place::ToUserPattern(index) => write!(f, "allowedAgents[{index}].toUserPattern"),
            Place::FallbackUrl => f.write_str("fallbackHandler.url"),
            Place::FallbackSecrets => f.write_str("fallbackHandler.secrets"),
            Place::FallbackSecret(index) => write!(f, "fallbackHandler.secrets[{index}]"),
        }
    }
}

/// Whether a problem keeps the configuration from being used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    Error,
    Warning,
}

/// One problem, with what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub severity: Severity,
    pub place: Place,
    pub problem: String,
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.fix)
    }
}

/// Checks and compiles a document. Warnings come with the configuration.
///
/// # Errors
/// Every problem of the document in its order, warnings among them, when one at least is an error.
pub fn compile(document: &SipConfigDocument) -> Result<(SipConfig, Vec<Problem>), Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    let config = SipConfig {
        allowed_cidr_ranges: compile_ranges(&document.allowed_cidr_ranges, &mut problems),
        allow_all_agents: document.allow_all_agents,
        allowed_agents: compile_agents(&document.allowed_agents, &mut problems),
        fallback_handler: document.fallback_handler.clone(),
        domain: document.domain.clone(),
    };
    check_handler(document.fallback_handler.as_ref(), &mut problems);
    check_domain(&document.domain, &mut problems);
    let is_error = |problem: &Problem| problem.severity == Severity::Error;
    if problems.0.iter().any(is_error) { Err(problems.0) } else { Ok((config, problems.0)) }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn error(&mut self, place: Place, problem: impl Into<String>, fix: impl Into<String>) {
        let (problem, fix) = (problem.into(), fix.into());
        self.0.push(Problem { severity: Severity::Error, place, problem, fix });
    }

    fn warning(&mut self, place: Place, problem: impl Into<String>, fix: impl Into<String>) {
        let (problem, fix) = (problem.into(), fix.into());
        self.0.push(Problem { severity: Severity::Warning, place, problem, fix });
    }
}

fn compile_ranges(texts: &[String], problems: &mut Problems) -> Vec<CidrRange> {
    if texts.len() > limits::CIDR_RANGES_MAX {
        let problem = format!("{} ranges are given", texts.len());
        let fix = format!("join neighbours: at most {} may stand here", limits::CIDR_RANGES_MAX);
        problems.error(Place::AllowedCidrRanges, problem, fix);
        return Vec::new();
    }
    let mut ranges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match CidrRange::parse(text) {
            Ok(range) => {
                if range.is_everything() {
                    let problem = format!("{range} admits calls from anywhere");
                    let fix = "list the addresses of your SIP systems instead";
                    problems.warning(Place::CidrRange(index), problem, fix);
                }
                ranges.push(range);
            }
            Err(fault) => problems.error(Place::CidrRange(index), fault.problem, fault.fix),
        }
    }
    ranges
}

fn compile_agents(agents: &[AgentAllowance], problems: &mut Problems) -> Vec<Allowance> {
    if agents.len() > limits::ALLOWED_AGENTS_MAX {
        let problem = format!("{} agents are given", agents.len());
        let fix = format!(
            "keep at most {}; one pattern may hold several users, as in ^(sales|help)$",
            limits::ALLOWED_AGENTS_MAX
        );
        problems.error(Place::AllowedAgents, problem, fix);
    }
    let mut allowances = Vec::new();
    let mut catch_all = None;
    for (index, agent) in agents.iter().enumerate().take(limits::ALLOWED_AGENTS_MAX) {
        if let Some(first) = catch_all {
            let problem = format!("this entry is never reached: entry {first} takes every call");
            problems.warning(Place::ToUserPattern(index), problem, "put the catch-all last");
        }
        let Some(allowance) = compile_agent(index, agent, problems) else { continue };
        if catch_all.is_none() && allowance.to_user_pattern.matches_everything() {
            catch_all = Some(index);
        }
        allowances.push(allowance);
    }
    allowances
}

fn compile_agent(
    index: usize,
    agent: &AgentAllowance,
    problems: &mut Problems,
) -> Option<Allowance> {
    let agent_id = AgentId::parse(&agent.agent_id);
    if agent_id.is_none() {
        let problem = format!("\"{}\" is no agent id", agent.agent_id.escape_debug());
        let fix = "write the agent's UUID, as in 6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";
        problems.error(Place::AgentId(index), problem, fix);
    }
    let pattern = match (&agent.to_user_pattern, &agent_id) {
        (Some(pattern), _) => pattern.clone(),
        (None, Some(agent_id)) => Pattern::literal(&format!("agent_{agent_id}")),
        (None, None) => return None,
    };
    match Pattern::compile(&pattern) {
        Ok(to_user_pattern) => Some(Allowance { agent_id: agent_id?, to_user_pattern }),
        Err(fault) => {
            problems.error(Place::ToUserPattern(index), fault.problem, fault.fix);
            None
        }
    }
}

fn check_handler(handler: Option<&FallbackHandler>, problems: &mut Problems) {
    let Some(handler) = handler else { return };
    // Whether plain HTTP will do is the operator's to say: it is judged where the handler is asked.
    if let Err(fault) = check_url(&handler.url, true) {
        problems.error(Place::FallbackUrl, format!("this {}", fault.problem), fault.fix);
    }
    let Some(secrets) = &handler.secrets else { return };
    if secrets.is_empty() || secrets.len() > SECRETS_MAX {
        let problem = format!("{} secrets are given", secrets.len());
        let fix = format!("give 1 to {SECRETS_MAX}, or leave the key out and one is made");
        problems.error(Place::FallbackSecrets, problem, fix);
    }
    for (index, secret) in secrets.iter().enumerate().take(SECRETS_MAX) {
        if secret.is_empty() || secret.chars().count() > SECRET_CHARS_MAX {
            let fix = format!("give it 1 to {SECRET_CHARS_MAX} characters");
            problems.error(Place::FallbackSecret(index), "this secret is empty or too long", fix);
        }
    }
}

/// The domain only labels: calls are never refused for their domain, so it may be empty.
fn check_domain(domain: &str, problems: &mut Problems) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if domain.len() > DOMAIN_BYTES_MAX || !domain.bytes().all(is_plain) {
        let problem = format!("\"{}\" is no domain name", domain.escape_debug());
        problems.error(Place::Domain, problem, "write a host name, as in sip.example.com");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";

    fn allowance(agent_id: &str, pattern: Option<&str>) -> AgentAllowance {
        AgentAllowance {
            agent_id: agent_id.to_owned(),
            to_user_pattern: pattern.map(str::to_owned),
        }
    }

    #[test]
    fn all_problems_come_at_once_each_with_its_place() {
        let document = SipConfigDocument {
            allowed_cidr_ranges: vec![
                "10.0.0.0/8".into(),
                "10.0.0.1/8".into(),
                "0.0.0.0/0".into(),
                "nowhere".into(),
            ],
            allowed_agents: vec![
                allowance("echo", None),
                allowance(AGENT, Some("(")),
                allowance("echo", Some("(?=x)")),
            ],
            fallback_handler: Some(FallbackHandler { url: "hooks".into(), secrets: Some(vec![]) }),
            domain: "two words".into(),
            ..SipConfigDocument::default()
        };
        let problems = compile(&document).expect_err("many problems");
        let places: Vec<String> =
            problems.iter().map(|problem| problem.place.to_string()).collect();
        let expected = [
            "allowedCidrRanges[1]",
            "allowedCidrRanges[2]",
            "allowedCidrRanges[3]",
            "allowedAgents[0].agentId",
            "allowedAgents[1].toUserPattern",
            "allowedAgents[2].agentId",
            "allowedAgents[2].toUserPattern",
            "fallbackHandler.url",
            "fallbackHandler.secrets",
            "domain",
        ];
        assert_eq!(places, expected);
        assert_eq!(problems[1].severity, Severity::Warning);
        assert_eq!(problems[4].place.toml_path(), "allowed_agents[1].to_user_pattern");
    }

    #[test]
    fn a_good_document_compiles_and_reads_back_with_its_defaults() {
        let mut document = SipConfigDocument {
            allowed_cidr_ranges: vec!["198.51.100.0/24".into(), "2001:db8::/32".into()],
            allow_all_agents: true,
            allowed_agents: vec![
                allowance(&AGENT.to_uppercase(), None),
                allowance(AGENT, Some(".*")),
            ],
            fallback_handler: None,
            domain: "edge.example".into(),
        };
        let (config, warnings) = compile(&document).expect("compiles");
        assert_eq!(warnings, []);
        document.allowed_agents[0] = allowance(AGENT, Some(&format!("^agent_{AGENT}$")));
        assert_eq!(config.document(), document);
        assert_eq!(compile(&config.document()).expect("again").0.document(), document);
    }

    #[test]
    fn twenty_agents_and_not_one_more() {
        let agents = |count| SipConfigDocument {
            allowed_agents: vec![allowance(AGENT, Some("^a$")); count],
            ..SipConfigDocument::default()
        };
        assert_eq!(compile(&agents(20)).expect("twenty").0.allowed_agents().len(), 20);
        let problems = compile(&agents(21)).expect_err("one too many");
        assert_eq!(
            problems.iter().map(|problem| problem.place).collect::<Vec<_>>(),
            [Place::AllowedAgents]
        );
    }

    #[test]
    fn entries_behind_a_catch_all_are_pointed_out() {
        let document = SipConfigDocument {
            allowed_agents: vec![allowance(AGENT, Some(".*")), allowance(AGENT, Some("^sales$"))],
            ..SipConfigDocument::default()
        };
        let (_, warnings) = compile(&document).expect("compiles");
        let places: Vec<Place> = warnings.iter().map(|warning| warning.place).collect();
        assert_eq!(places, [Place::ToUserPattern(1)]);
    }

    #[test]
    fn an_empty_document_is_good_and_admits_nobody() {
        let (config, warnings) = compile(&SipConfigDocument::default()).expect("compiles");
        assert!(config.allowed_cidr_ranges().is_empty() && warnings.is_empty());
    }
}
