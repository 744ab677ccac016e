//! The parts of the file that say how calls are handed on: `[fallback]`, and the bounds on the
//! creation of agent calls in `[ultravox]`.

use super::problem::Report;
use super::reader::Section;
use super::sections::{Places, pem};
use super::{Fallback, Sip};
use crate::account::CidrRange;
use crate::fallback::address;
use crate::ground::limits;
use crate::switchboard::CreationLimits;
use std::ops::RangeInclusive;
use std::path::Path;

/// The keys of `[ultravox]` that bound how agent calls are created.
pub fn read_creations(section: &mut Section<'_>, report: &mut Report) -> CreationLimits {
    let mut number = |key, bounds: RangeInclusive<u64>| {
        section.integer(key, bounds, report).map(|found| found.value as u32)
    };
    CreationLimits {
        per_second: number("creations_per_second", 1..=1_000),
        per_minute: number("creations_per_minute", 1..=60_000),
        concurrent: number("calls_concurrent_max", 1..=100_000),
        waiting_max: number("creations_waiting_max", 0..=1_000)
            .map_or(limits::CREATIONS_WAITING_MAX, |most| most as usize),
    }
}

/// `[fallback]`.
pub fn read(section: &mut Section<'_>, base: &Path, report: &mut Report) -> Fallback {
    let mut allowed_private = Vec::new();
    for text in section.texts("allowed_private", report).unwrap_or_default() {
        match CidrRange::parse(&text.value) {
            Ok(range) => allowed_private.push(range),
            Err(fault) => {
                let path = section.path("allowed_private");
                report.error(&text.span, &path, fault.problem, fault.fix);
            }
        }
    }
    let plain_http = section.boolean("plain_http", report).unwrap_or(false);
    let ca = pem(section, "ca", "CERTIFICATE", base, report);
    section.finish(report);
    Fallback { allowed_private, plain_http, ca }
}

/// Tells of a handler whose URL would never be asked.
pub fn check_url(sip: &Sip, fallback: &Fallback, places: &Places, report: &mut Report) {
    let Some(handler) = sip.account.fallback_handler() else { return };
    if let Err(fault) = address::check_url(&handler.url, fallback.plain_http) {
        let key = "sip.fallback_handler.url";
        report.error(&places.handler_url, key, fault.problem.into(), fault.fix.into());
    } else if address::is_refused_literal(&handler.url, &fallback.allowed_private) {
        let what = "points at a private address, which is not asked".to_owned();
        let fix = "list it: allowed_private = [\"127.0.0.1/32\"] under [fallback]".to_owned();
        report.error(&places.handler_url, "sip.fallback_handler.url", what, fix);
    }
}
