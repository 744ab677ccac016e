//! `[sip]`: the account's rules as the file writes them, and what strangers meet. The rules are
//! compiled here, so that their problems are told at their own lines.

use super::problem::{Report, io_words};
use super::reader::{Found, Section};
use super::sections::{Places, warn_of_mode};
use super::{Listen, ManagedBy, Sip, UnlistedUdp, files};
use crate::account::{
    self, AgentAllowance, FallbackHandler, Place, Registration, RegistrationDocument,
    RegistrationId, SipConfig, SipConfigDocument,
};
use crate::ground::{Secret, limits};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Reads the section.
pub fn read(
    section: &mut Section<'_>,
    listen: &Listen,
    places: &mut Places,
    base: &Path,
    report: &mut Report,
) -> Sip {
    let mut document = SipConfigDocument::default();
    let domain = section.text("domain", report);
    places.domain = domain.as_ref().map_or(section.span().clone(), |found| found.span.clone());
    let first = listen.udp.iter().chain(&listen.tcp).chain(&listen.tls).next();
    document.domain = domain
        .map(|found| found.value)
        .or(listen.advertise.any_host())
        .or(first.map(|address| address.ip().to_string()))
        .unwrap_or_default();
    places.cidr_ranges = section.key_span("allowed_cidr_ranges").unwrap_or(section.span().clone());
    for range in section.texts("allowed_cidr_ranges", report).unwrap_or_default() {
        document.allowed_cidr_ranges.push(range.value);
        places.cidr_range.push(range.span);
    }
    document.allow_all_agents = section.boolean("allow_all_agents", report).unwrap_or(false);
    places.agents = section.key_span("allowed_agents").unwrap_or(section.span().clone());
    places.agents_named = section.key_span("allowed_agents").is_some();
    for mut entry in section.sections("allowed_agents", report) {
        document.allowed_agents.push(read_agent(&mut entry, places, report));
    }
    document.fallback_handler =
        read_handler(&mut section.section("fallback_handler", report), places, report);
    let mut registrations = Vec::new();
    for mut entry in section.sections("registrations", report) {
        let Some(one) = read_registration(&mut entry, base, report) else { continue };
        if registrations.iter().any(|other| is_same_binding(other, &one)) {
            let what = format!("registers {} at {} a second time", one.username, one.proxy);
            let fix = "remove one of the two: each would undo the other's binding".to_owned();
            report.error(entry.span(), entry.name(), what, fix);
        }
        registrations.push(one);
    }
    if registrations.len() > limits::REGISTRATIONS_MAX {
        let what = format!("{} registrations are given", registrations.len());
        let fix = format!("keep at most {}", limits::REGISTRATIONS_MAX);
        report.error(section.span(), "sip.registrations", what, fix);
    }
    let managers = [("file", ManagedBy::File), ("api", ManagedBy::Api)];
    let managed_by = section.word("managed_by", &managers, report).unwrap_or(ManagedBy::File);
    let no_match_status = section
        .integer("no_match_status", 400..=699, report)
        .map_or(404, |found| found.value as u16);
    let words = [("silence", UnlistedUdp::Silence), ("403", UnlistedUdp::Forbidden)];
    let unlisted_udp = section.word("unlisted_udp", &words, report).unwrap_or(UnlistedUdp::Silence);
    section.finish(report);
    let account = Arc::new(compile_account(&document, places, report));
    Sip { managed_by, registrations, account, no_match_status, unlisted_udp }
}

/// Whether both are one user of one registrar.
fn is_same_binding(one: &RegistrationDocument, other: &RegistrationDocument) -> bool {
    one.username == other.username
        && one.proxy.eq_ignore_ascii_case(&other.proxy)
        && one.outbound_proxy == other.outbound_proxy
}

fn read_agent(entry: &mut Section<'_>, places: &mut Places, report: &mut Report) -> AgentAllowance {
    let agent_id = entry.text("agent_id", report);
    if agent_id.is_none() && entry.key_span("agent_id").is_none() {
        let fix = "add agent_id = \"…\", the agent's UUID".to_owned();
        report.error(entry.span(), &entry.path("agent_id"), "is missing".into(), fix);
    }
    let pattern = entry.text("to_user_pattern", report);
    entry.finish(report);
    // The pattern is checked all the same.
    let agent_id = agent_id.unwrap_or_else(|| {
        let value = "00000000-0000-4000-8000-000000000000".to_owned();
        Found { value, span: entry.span().clone() }
    });
    let pattern_span = pattern.as_ref().map_or(entry.span().clone(), |found| found.span.clone());
    places.agent_id.push(agent_id.span);
    places.agent_pattern.push(pattern_span);
    let to_user_pattern = pattern.map(|found| found.value);
    AgentAllowance { agent_id: agent_id.value, to_user_pattern }
}

/// `[sip.fallback_handler]`, when it is there.
fn read_handler(
    section: &mut Section<'_>,
    places: &mut Places,
    report: &mut Report,
) -> Option<FallbackHandler> {
    let url = section.text("url", report);
    let secrets = section.texts("secrets", report);
    section.finish(report);
    if !section.is_present() {
        return None;
    }
    places.handler_url = url.as_ref().map_or(section.span().clone(), |found| found.span.clone());
    places.handler_secrets = section.key_span("secrets").unwrap_or(section.span().clone());
    if url.is_none() && section.key_span("url").is_none() {
        let fix = "add url = \"https://…\", where the handler listens".to_owned();
        report.error(section.span(), &section.path("url"), "is missing".to_owned(), fix);
    }
    let secrets = secrets.map(|found| {
        places.handler_secret = found.iter().map(|one| one.span.clone()).collect();
        found.into_iter().map(|one| one.value).collect()
    });
    // A handler without a place is an error already; its secrets are checked all the same.
    let url = url.map_or_else(|| "https://handler.invalid/".to_owned(), |found| found.value);
    Some(FallbackHandler { url, secrets })
}

/// One entry of `[[sip.registrations]]`.
fn read_registration(
    entry: &mut Section<'_>,
    base: &Path,
    report: &mut Report,
) -> Option<RegistrationDocument> {
    let mut spans: Vec<(&str, Range<usize>)> = Vec::new();
    let mut text = |key: &'static str, report: &mut Report| {
        let found = entry.text(key, report)?;
        spans.push((key, found.span));
        Some(found.value)
    };
    let (username, proxy) = (text("username", report), text("proxy", report));
    let (outbound_proxy, auth_user) = (text("outbound_proxy", report), text("auth_user", report));
    let (inline, file) = (text("password", report), text("password_file", report));
    for (key, found) in [("username", &username), ("proxy", &proxy)] {
        if found.is_none() && entry.key_span(key).is_none() {
            let fix = format!("add {key} = \"…\"");
            report.error(entry.span(), &entry.path(key), "is missing".to_owned(), fix);
        }
    }
    let span_of = |key: &str| {
        let found = spans.iter().find(|(known, _)| *known == key);
        found.map_or(entry.span().clone(), |(_, span)| span.clone())
    };
    let password = match (inline, file) {
        (Some(password), None) => Some(Secret::new(password)),
        (None, Some(file)) => read_password(entry, &file, &span_of("password_file"), base, report),
        (Some(_), Some(_)) => {
            let what = "stands beside password; only one of the two may".to_owned();
            let (span, path) = (span_of("password_file"), entry.path("password_file"));
            report.error(&span, &path, what, "remove password".to_owned());
            None
        }
        (None, None) => {
            let what = "has neither password_file nor password".to_owned();
            let fix = "add password_file = \"…\", a file with mode 0600".to_owned();
            report.error(entry.span(), &entry.path("password_file"), what, fix);
            None
        }
    };
    entry.finish(report);
    let is_whole = username.is_some() && password.is_some() && proxy.is_some();
    // What is missing was told; the rest is checked all the same, beside values that do no harm.
    let document = RegistrationDocument {
        username: username.unwrap_or_else(|| "missing".to_owned()),
        password: password.unwrap_or_else(|| Secret::new("missing")),
        proxy: proxy.unwrap_or_else(|| "registrar.invalid".to_owned()),
        outbound_proxy,
        auth_user,
    };
    let problems = Registration::compile(RegistrationId("file".into()), &document).err();
    for problem in problems.into_iter().flatten() {
        let key = problem.field.toml_key();
        report.error(&span_of(key), &entry.path(key), problem.problem, problem.fix);
    }
    is_whole.then_some(document)
}

/// The one line of a password file.
pub(super) fn read_password(
    entry: &Section<'_>,
    file: &str,
    span: &Range<usize>,
    base: &Path,
    report: &mut Report,
) -> Option<Secret> {
    let (path, name) = (base.join(file), entry.path("password_file"));
    match files::text(&path, files::KEY_BYTES_MAX) {
        Ok(text) => {
            warn_of_mode(&path, &name, span, report);
            let password = text.trim_end_matches(['\r', '\n']);
            let is_line = !password.is_empty() && !password.contains(['\r', '\n']);
            if !is_line {
                let what = format!("{} does not hold one password", path.display());
                let fix = "put the password on one line, and nothing else into the file".to_owned();
                report.error(span, &name, what, fix);
            }
            is_line.then(|| Secret::new(password))
        }
        Err(error) => {
            let what = format!("{} cannot be read: {}", path.display(), io_words(&error));
            let fix = format!("put the password into {} with mode 0600", path.display());
            report.error(span, &name, what, fix);
            None
        }
    }
}

/// Compiles the rules, and tells their problems at the places in the file that they come from.
fn compile_account(
    document: &SipConfigDocument,
    places: &Places,
    report: &mut Report,
) -> SipConfig {
    let (config, problems) = match account::compile(document) {
        Ok((config, warnings)) => (config, warnings),
        Err(problems) => (SipConfig::default(), problems),
    };
    for problem in problems {
        let span = match problem.place {
            Place::Domain => Some(&places.domain),
            Place::FallbackUrl => Some(&places.handler_url),
            Place::FallbackSecrets => Some(&places.handler_secrets),
            Place::FallbackSecret(index) => places.handler_secret.get(index),
            Place::AllowedCidrRanges => Some(&places.cidr_ranges),
            Place::CidrRange(index) => places.cidr_range.get(index),
            Place::AllowedAgents => Some(&places.agents),
            Place::AgentId(index) => places.agent_id.get(index),
            Place::ToUserPattern(index) => places.agent_pattern.get(index),
        };
        let span = span.unwrap_or(&places.agents);
        let key = format!("sip.{}", problem.place.toml_path());
        match problem.severity {
            account::Severity::Error => report.error(span, &key, problem.problem, problem.fix),
            account::Severity::Warning => report.warning(span, &key, problem.problem, problem.fix),
        }
    }
    check_rules(document, places, report);
    config
}

/// Rules that are well-formed and let nobody in.
fn check_rules(document: &SipConfigDocument, places: &Places, report: &mut Report) {
    if document.allowed_cidr_ranges.is_empty() {
        let what = "is empty: every caller is a stranger, and no call comes in".to_owned();
        let fix = "name your PBX or carrier: allowed_cidr_ranges = [\"203.0.113.10/32\"]".into();
        report.warning(&places.cidr_ranges, "sip.allowed_cidr_ranges", what, fix);
    }
    let asks = document.fallback_handler.is_some();
    if !places.agents_named && !document.allow_all_agents && !asks {
        let what = "names no agent: no call finds one".to_owned();
        let fix = "set allow_all_agents = true, or add [[sip.allowed_agents]] with agent_id and \
                   to_user_pattern"
            .to_owned();
        report.warning(&places.agents, "sip.allowed_agents", what, fix);
    }
}
