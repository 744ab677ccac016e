//! Which agent takes a call: the user part of the To URI against the account's allowances (seed,
//! "Routing Calls"). In the list's order, the first match wins, the implicit rule of
//! `allowAllAgents` comes last. Patterns are searched, case counts, and the user is percent-decoded
//! first. A telephone number is tried as it came, and then with and without its leading `+`.

use crate::account::{AgentId, SipConfig};
use crate::ground::limits;
use crate::sip::msg::{Scheme, Uri};
use std::borrow::Cow;
use std::fmt;

/// Where a call goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// `allowedAgents[index]` matched.
    Allowance {
        index: usize,
        agent_id: AgentId,
        /// The form of the To user that the pattern was found in.
        matched_form: String,
    },
    /// `agent_<agent_id>` under `allowAllAgents`. When Ultravox knows no such agent, the call is
    /// routed by [`unmatched`] as if nothing had matched.
    Implicit { agent_id: AgentId },
    /// Nothing matched and the account has a fallback handler: it decides.
    Fallback,
    /// Nothing matched: the call is refused.
    None,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Allowance { index, .. } => write!(f, "allowedAgents[{index}]"),
            Route::Implicit { .. } => f.write_str("allowAllAgents"),
            Route::Fallback => f.write_str("fallbackHandler"),
            Route::None => f.write_str("no match"),
        }
    }
}

/// The To user that is routed by: the decoded user part of a SIP URI (empty when it has none, which
/// only a catch-all takes) or the number of a `tel:` URI. `None` for URIs of other schemes.
pub fn to_user<'a>(to: &Uri<'a>) -> Option<Cow<'a, str>> {
    match to.scheme() {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => Some(to.user_decoded()),
        Scheme::Other => None,
    }
}

/// Routes a call by its decoded To user. One of more than 256 bytes matches nothing.
pub fn route(config: &SipConfig, to_user: &str) -> Route {
    if to_user.len() > limits::TO_USER_BYTES_MAX {
        return unmatched(config);
    }
    let forms = forms(to_user);
    for (index, allowance) in config.allowed_agents().iter().enumerate() {
        let found = forms.iter().find(|form| allowance.to_user_pattern.is_match(form));
        if let Some(form) = found {
            let agent_id = allowance.agent_id.clone();
            return Route::Allowance { index, agent_id, matched_form: form.to_string() };
        }
    }
    let implicit = to_user.strip_prefix("agent_").filter(|_| config.allow_all_agents());
    match implicit.and_then(AgentId::parse) {
        Some(agent_id) => Route::Implicit { agent_id },
        None => unmatched(config),
    }
}

/// Routes a call by its To URI. One of a scheme without a user matches nothing.
pub fn of_to(config: &SipConfig, to: &Uri<'_>) -> Route {
    match to_user(to) {
        Some(user) => route(config, &user),
        None => unmatched(config),
    }
}

/// Where a call goes that no allowance matches.
pub fn unmatched(config: &SipConfig) -> Route {
    if config.fallback_handler().is_some() { Route::Fallback } else { Route::None }
}

/// The user as it came and, for a telephone number, the bare number with and without `+`. Visual
/// separators (RFC 3966 §5.1.1) and parameters (RFC 3261 §19.1.6) are no part of the number.
fn forms(to_user: &str) -> Vec<Cow<'_, str>> {
    let mut forms = vec![Cow::Borrowed(to_user)];
    let subscriber = to_user.split(';').next().unwrap_or_default();
    let digits = subscriber.strip_prefix('+').unwrap_or(subscriber);
    let is_number = digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b"-.()".contains(&byte));
    if is_number {
        let bare: String = digits.chars().filter(char::is_ascii_digit).collect();
        let with_plus = format!("+{bare}");
        let pair = if subscriber.starts_with('+') { [with_plus, bare] } else { [bare, with_plus] };
        for form in pair {
            if form != to_user {
                forms.push(Cow::Owned(form));
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AgentAllowance, FallbackHandler, SipConfigDocument, compile};
    use crate::ground::Entropy;

    const AGENTS: [&str; 4] = [
        "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11",
        "0b7c2a9e-7f0e-4a6c-b7c4-93b1f4f0a2de",
        "11111111-2222-4333-8444-555555555555",
        "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
    ];

    fn config(patterns: &[Option<&str>], allow_all_agents: bool, fallback: bool) -> SipConfig {
        let agents =
            patterns.iter().zip(AGENTS.iter().cycle()).map(|(pattern, agent)| AgentAllowance {
                agent_id: (*agent).to_owned(),
                to_user_pattern: pattern.map(str::to_owned),
            });
        let handler = FallbackHandler { url: "https://hooks.example/".into(), secrets: None };
        let document = SipConfigDocument {
            allow_all_agents,
            allowed_agents: agents.collect(),
            fallback_handler: fallback.then_some(handler),
            ..SipConfigDocument::default()
        };
        compile(&document).expect("compiles").0
    }

    /// `user => rule [form]` by a list of patterns.
    fn check(patterns: &[Option<&str>], cases: &[(&str, &str)]) {
        let config = config(patterns, true, false);
        for (user, expected) in cases {
            let route = route(&config, user);
            let mut text = route.to_string();
            if let Route::Allowance { matched_form, .. } = &route {
                text = format!("{text} {matched_form}");
            }
            assert_eq!(text, *expected, "{user} by {patterns:?}");
        }
    }

    #[test]
    fn the_seeds_examples() {
        check(
            &[Some("^sales$")],
            &[("sales", "allowedAgents[0] sales"), ("Sales", "no match"), ("presales", "no match")],
        );
        check(
            &[Some("^15551234567$|^15557654321$")],
            &[
                ("15551234567", "allowedAgents[0] 15551234567"),
                ("+15551234567", "allowedAgents[0] 15551234567"),
                ("15557654321", "allowedAgents[0] 15557654321"),
                ("+1-555-765-4321", "allowedAgents[0] 15557654321"),
                ("+1(555)765.4321", "allowedAgents[0] 15557654321"),
                ("115551234567", "no match"),
                ("15551234568", "no match"),
            ],
        );
        check(
            &[Some(".*")],
            &[
                ("anything", "allowedAgents[0] anything"),
                ("", "allowedAgents[0] "),
                ("+1", "allowedAgents[0] +1"),
            ],
        );
    }

    #[test]
    fn the_default_pattern_and_the_implicit_rule() {
        let listed = format!("agent_{}", AGENTS[0]);
        let other = format!("agent_{}", AGENTS[3]);
        let first = format!("allowedAgents[0] {listed}");
        check(&[None], &[(&listed, &first), (&other, "allowAllAgents")]);
        let none = "no match";
        let (long, caps) = (format!("{other}x"), other.to_uppercase());
        check(&[None], &[("agent_echo", none), (&long, none), (&caps, none), ("agent_", none)]);
        let closed = config(&[None], false, false);
        assert_eq!(route(&closed, &other), Route::None);
        let agent_id = AgentId::parse(AGENTS[3]).expect("an id");
        assert_eq!(route(&config(&[], true, true), &other), Route::Implicit { agent_id });
    }

    #[test]
    fn the_first_match_wins_and_the_implicit_rule_is_last() {
        let other = format!("agent_{}", AGENTS[3]);
        let patterns = [Some("^sales"), Some("sales|help"), Some("^agent_a")];
        let third = format!("allowedAgents[2] {other}");
        check(
            &patterns,
            &[
                ("sales", "allowedAgents[0] sales"),
                ("presales", "allowedAgents[1] presales"),
                ("help", "allowedAgents[1] help"),
                (&other, &third),
            ],
        );
    }

    #[test]
    fn numbers_match_with_or_without_their_plus() {
        check(
            &[Some(r"^\+1555\d{7}$"), Some(r"^44\d+$")],
            &[
                ("+15551234567", "allowedAgents[0] +15551234567"),
                ("15551234567", "allowedAgents[0] +15551234567"),
                ("+1-555-123-4567", "allowedAgents[0] +15551234567"),
                ("+15551234567;npdi=yes", "allowedAgents[0] +15551234567"),
                ("+442071234567", "allowedAgents[1] 442071234567"),
                ("442071234567", "allowedAgents[1] 442071234567"),
                ("++442071234567", "no match"),
                ("44abc", "no match"),
                ("+", "no match"),
                ("-", "no match"),
            ],
        );
    }

    #[test]
    fn what_matches_nothing_goes_to_the_handler_or_nowhere() {
        assert_eq!(route(&config(&[Some("^a$")], true, true), "b"), Route::Fallback);
        assert_eq!(route(&config(&[Some("^a$")], true, false), "b"), Route::None);
        let long = "a".repeat(257);
        let catch_all = config(&[Some(".*")], false, false);
        assert_eq!(route(&catch_all, &long), Route::None);
        assert!(matches!(route(&catch_all, &long[1..]), Route::Allowance { index: 0, .. }));
    }

    #[test]
    fn a_number_and_its_plus_form_always_take_the_same_way() {
        let mut entropy = Entropy::from_number(3966);
        for _ in 0..2_000 {
            let length = 1 + entropy.below(15) as usize;
            let digits: String =
                (0..length).map(|_| char::from(b'0' + entropy.below(10) as u8)).collect();
            let part = &digits[..1 + entropy.below(length as u64) as usize];
            let pattern = match entropy.below(4) {
                0 => format!("^{part}"),
                1 => format!(r"^\+{part}"),
                2 => format!("^{part}$"),
                _ => format!(r"^\+?{part}\d*$"),
            };
            let config = config(&[Some(&pattern)], false, false);
            let is_taken = |user: &str| route(&config, user) != Route::None;
            let plus = format!("+{digits}");
            assert_eq!(is_taken(&digits), is_taken(&plus), "{digits} by {pattern}");
            let is_whole = part.len() == digits.len();
            assert_eq!(is_taken(&digits), is_whole || !pattern.ends_with(&format!("{part}$")));
        }
    }

    #[test]
    fn to_users_are_decoded_and_other_schemes_have_none() {
        for (uri, user) in [
            ("sip:sales@edge.example", Some("sales")),
            ("sips:%73ales@edge.example:5061;transport=tls", Some("sales")),
            ("sip:edge.example", Some("")),
            ("tel:+1-555-123-4567;phone-context=x", Some("+1-555-123-4567")),
            ("mailto:sales@edge.example", None),
        ] {
            let parsed = Uri::parse(uri).expect(uri);
            assert_eq!(to_user(&parsed).as_deref(), user, "{uri}");
        }
    }

    #[test]
    fn the_worst_patterns_stay_linear() {
        // None is found, so that every rule is tried on every form to its end.
        let classes = r"(?:\pL+\d*)*".repeat(14) + "[b-d]";
        let nested = "(?:a?){50}".repeat(10) + "a{50}[b-d]";
        let alternatives = r"(x+x+)+y|(a|aa)+[b-d]|(.*)*[b-d]|([a-z]+)*\d|(a|b|ab)*c".to_owned();
        let patterns = [classes.as_str(), nested.as_str(), alternatives.as_str()];
        let config = config(&patterns.map(Some).repeat(6), false, false);
        let subject = "aéa中".repeat(36) + "!";
        assert_eq!(subject.len(), 253);
        // A backtracking engine would not end on this subject within the age of the universe.
        for _ in 0..20 {
            assert_eq!(route(&config, &subject), Route::None);
        }
    }
}
