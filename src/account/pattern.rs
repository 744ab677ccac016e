//! A regular expression of the customer's. The one door to `regex`: a linear-time engine, so that
//! no pattern can stall a call. What it does not know (look-around, back-references) is refused
//! when it is configured, with words, never at call time.

use crate::ground::limits;
use regex::{Error, Regex, RegexBuilder};

/// A compiled pattern. It is searched, not matched whole: `^` and `$` anchor it where they are
/// written. Case counts.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Why a pattern is refused, and what to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternFault {
    pub problem: String,
    pub fix: String,
}

impl Pattern {
    /// Compiles a `toUserPattern`.
    ///
    /// # Errors
    /// More than 200 characters, more than the compiled bound, or not of the engine's dialect.
    pub fn compile(text: &str) -> Result<Pattern, PatternFault> {
        let length = text.chars().count();
        if length > limits::TO_USER_PATTERN_CHARS_MAX {
            return Err(PatternFault {
                problem: format!("the pattern has {length} characters"),
                fix: format!(
                    "shorten it to {} or divide it between several entries",
                    limits::TO_USER_PATTERN_CHARS_MAX
                ),
            });
        }
        RegexBuilder::new(text)
            .size_limit(limits::PATTERN_COMPILED_BYTES_MAX)
            .dfa_size_limit(limits::PATTERN_COMPILED_BYTES_MAX)
            .build()
            .map(Pattern)
            .map_err(|error| explain(text, &error))
    }

    /// The pattern that matches `text` whole and nothing else, as text.
    pub fn literal(text: &str) -> String {
        format!("^{}$", regex::escape(text).replace("\\-", "-"))
    }

    /// Whether the pattern is found anywhere in `subject`.
    pub fn is_match(&self, subject: &str) -> bool {
        self.0.is_match(subject)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// True when any text matches, as with `.*`: rules after it are never reached.
    pub fn matches_everything(&self) -> bool {
        matches!(self.as_str(), "" | ".*" | "^.*" | ".*$" | "^.*$" | "^" | "$" | "(.*)" | "^(.*)$")
    }
}

fn explain(text: &str, error: &Error) -> PatternFault {
    let fault = |problem: &str, fix: &str| PatternFault {
        problem: problem.to_owned(),
        fix: fix.to_owned(),
    };
    let message = error.to_string();
    if matches!(error, Error::CompiledTooBig(_)) {
        return fault("the pattern grows too large when compiled", "use smaller repeat counts");
    }
    if message.contains("look-around") {
        return fault(
            "look-ahead and look-behind are not supported",
            "list what is to match, and put an earlier entry before what is not to",
        );
    }
    if message.contains("backreference") {
        return fault("back-references are not supported", "write the repeated part out");
    }
    if text.contains("\\Z") {
        return fault("\\Z is not supported", "write $ for the end of the user part");
    }
    let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let problem = format!("this is no regular expression: {last}");
    fault(&problem, "escape characters that are meant literally, as in \\+ or \\.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_searched_and_case_counts() {
        let check = |pattern: &str, subject: &str| {
            Pattern::compile(pattern).expect("compiles").is_match(subject)
        };
        assert!(check("sales", "my-sales-line") && !check("^sales$", "my-sales-line"));
        assert!(!check("^sales$", "Sales") && check("(?i)^sales$", "Sales"));
        assert!(check(".*", "") && check("", "anything"));
        assert!(!check("^sales$", "sales\n"), "a line end is no end");
    }

    #[test]
    fn what_the_engine_cannot_do_is_explained() {
        for (pattern, problem) in [
            ("^(?!sales)".to_owned(), "look-ahead"),
            ("(?<=x)y".to_owned(), "look-ahead"),
            (r"(a)\1".to_owned(), "back-references"),
            (r"^sales\Z".to_owned(), "\\Z"),
            ("(a{1000}){1000}".to_owned(), "too large"),
            ("(".to_owned(), "unclosed group"),
            ("+15551234567".to_owned(), "repetition"),
            ("x".repeat(201), "201 characters"),
        ] {
            let fault = Pattern::compile(&pattern).expect_err(&pattern);
            assert!(fault.problem.contains(problem), "{pattern}: {}", fault.problem);
            assert!(!fault.fix.is_empty());
        }
        assert!(Pattern::compile(&"é".repeat(200)).is_ok(), "characters, not bytes");
    }

    #[test]
    fn a_literal_pattern_reads_as_the_seed_writes_it() {
        let text = "agent_6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";
        assert_eq!(Pattern::literal(text), format!("^{text}$"));
        let dotted = Pattern::compile(&Pattern::literal("a.b+c")).expect("compiles");
        assert!(dotted.is_match("a.b+c") && !dotted.is_match("axb+c"));
    }
}
