//! `[outgoing]`: who may be called when a client asks for a call. Without the section nobody may.

use super::problem::Report;
use super::reader::Section;
use crate::outgoing::{HostRule, OutgoingPolicy};
use std::time::Duration;

/// Reads the section.
pub fn read(section: &mut Section<'_>, report: &mut Report) -> OutgoingPolicy {
    let default = OutgoingPolicy::default();
    let mut hosts = Vec::new();
    for found in section.texts("allowed_hosts", report).unwrap_or_default() {
        match HostRule::parse(&found.value) {
            Ok(rule) => hosts.push(rule),
            Err(what) => {
                let what = match what.contains(&found.value) {
                    true => what,
                    false => format!("\"{}\": {what}", found.value),
                };
                let fix =
                    "write a name, \"*.name\", an address or a CIDR range, with :port when only \
                           that port is meant"
                        .to_owned();
                report.error(&found.span, "outgoing.allowed_hosts", what, fix);
            }
        }
    }
    let allowed_prefixes = prefixes(section, "allowed_prefixes", report);
    let denied_prefixes = prefixes(section, "denied_prefixes", report);
    if hosts.is_empty() && !(allowed_prefixes.is_empty() && denied_prefixes.is_empty()) {
        let what = "has prefixes and no allowed_hosts: nobody may be called".to_owned();
        let fix =
            "name the hosts that may be called: allowed_hosts = [\"trunk.example.com\"]".into();
        report.warning(section.span(), "outgoing", what, fix);
    }
    let mut number = |key: &'static str, range| section.integer(key, range, report);
    let per_minute = number("calls_per_minute", 1..=100_000).map(|found| found.value as u32);
    let calls_max = number("calls_max", 1..=100_000).map(|found| found.value as usize);
    let length_max = number("length_max_s", 1..=86_400).map(|found| found.value);
    let ring_timeout = number("ring_timeout_s", 5..=110).map(|found| found.value);
    let redirects_max = number("redirects_max", 0..=10).map(|found| found.value as u8);
    section.finish(report);
    OutgoingPolicy {
        hosts,
        allowed_prefixes,
        denied_prefixes,
        calls_per_minute: per_minute.unwrap_or(default.calls_per_minute),
        calls_max: calls_max.unwrap_or(default.calls_max),
        length_max: length_max.map_or(default.length_max, Duration::from_secs),
        ring_timeout: ring_timeout.map_or(default.ring_timeout, Duration::from_secs),
        redirects_max: redirects_max.unwrap_or(default.redirects_max),
    }
}

/// Beginnings of numbers or names, as they stand in a URI after its separators are dropped.
fn prefixes(section: &mut Section<'_>, key: &'static str, report: &mut Report) -> Vec<String> {
    let path = section.path(key);
    let plain = |c: char| c.is_ascii_alphanumeric() || "+_.!~*'#".contains(c);
    let mut prefixes = Vec::new();
    for found in section.texts(key, report).unwrap_or_default() {
        let is_good = !found.value.is_empty()
            && found.value.chars().all(plain)
            && found.value != "+"
            && !found.value.trim_start_matches('+').contains('+');
        if is_good {
            prefixes.push(found.value);
        } else {
            let what = format!("\"{}\" is no beginning of a number or a name", found.value);
            let fix = "write for example \"+49\" or \"2\", without blanks and dashes".to_owned();
            report.error(&found.span, &path, what, fix);
        }
    }
    prefixes
}
