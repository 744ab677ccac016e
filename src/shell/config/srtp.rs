//! `[srtp]`: on what terms media is encrypted, for all listeners and peers and for single ones.

use super::Listen;
use super::problem::Report;
use super::reader::{Found, Section};
use crate::call::settings::SrtpSettings;
use crate::outgoing::HostRule;
use crate::sdp::SrtpPolicy;
use std::net::SocketAddr;

const POLICIES: [(&str, SrtpPolicy); 3] = [
    ("off", SrtpPolicy::Off),
    ("allowed", SrtpPolicy::Allowed),
    ("required", SrtpPolicy::Required),
];

/// Reads the section. A policy that no call could meet is told.
pub(super) fn read(
    section: &mut Section<'_>,
    listen: &Listen,
    report: &mut Report,
) -> SrtpSettings {
    let policy = section.word("policy", &POLICIES, report).unwrap_or_default();
    let insecure_signalling = section.boolean("insecure_signalling", report).unwrap_or(false);
    let mut listeners: Vec<(SocketAddr, SrtpPolicy)> = Vec::new();
    for mut entry in section.sections("listeners", report) {
        let Some((listener, policy)) = read_listener(&mut entry, listen, report) else { continue };
        let is_tls = listen.tls.contains(&listener.value);
        if policy == SrtpPolicy::Required && !is_tls && !insecure_signalling {
            unmeetable(&entry, report);
        }
        if listeners.iter().any(|(other, _)| *other == listener.value) {
            let what = format!("names {} a second time", listener.value);
            report.error(&listener.span, &entry.path("listen"), what, "remove one".to_owned());
        }
        listeners.push((listener.value, policy));
    }
    let targets = read_targets(section, report);
    let has_tls = !listen.tls.is_empty();
    if policy == SrtpPolicy::Required && !has_tls && !insecure_signalling {
        unmeetable(section, report);
    }
    section.finish(report);
    SrtpSettings { policy, listeners, targets, insecure_signalling }
}

/// `[[srtp.targets]]`: hosts as `outgoing.allowed_hosts` has them.
fn read_targets(section: &mut Section<'_>, report: &mut Report) -> Vec<(HostRule, SrtpPolicy)> {
    let mut targets: Vec<(HostRule, SrtpPolicy)> = Vec::new();
    for mut entry in section.sections("targets", report) {
        let host = entry.text("host", report);
        let policy = entry.word("policy", &POLICIES, report);
        for (key, fix) in [
            ("host", "add host = \"trunk.example.com\""),
            ("policy", "add policy = \"off\", \"allowed\" or \"required\""),
        ] {
            if entry.key_span(key).is_none() {
                report.error(entry.span(), &entry.path(key), "is missing".into(), fix.into());
            }
        }
        entry.finish(report);
        let Some(host) = host else { continue };
        match HostRule::parse(&host.value) {
            Ok(rule) if targets.iter().any(|(other, _)| *other == rule) => {
                let what = format!("names {} a second time", host.value);
                report.error(&host.span, &entry.path("host"), what, "remove one".to_owned());
            }
            Ok(rule) => targets.extend(policy.map(|policy| (rule, policy))),
            Err(what) => {
                let fix = "write a name, \"*.name\", an address or a CIDR range, with :port when \
                           only that port is meant";
                report.error(&host.span, &entry.path("host"), what, fix.to_owned());
            }
        }
    }
    targets
}

fn read_listener(
    entry: &mut Section<'_>,
    listen: &Listen,
    report: &mut Report,
) -> Option<(Found<SocketAddr>, SrtpPolicy)> {
    let text = entry.text("listen", report);
    let policy = entry.word("policy", &POLICIES, report);
    let wrote_policy = entry.key_span("policy").is_some();
    entry.finish(report);
    let Some(text) = text else {
        if entry.key_span("listen").is_none() {
            let fix = "add listen = \"0.0.0.0:5061\", as it stands under [listen]".to_owned();
            report.error(entry.span(), &entry.path("listen"), "is missing".to_owned(), fix);
        }
        return None;
    };
    if !wrote_policy {
        let fix = "add policy = \"off\", \"allowed\" or \"required\"".to_owned();
        report.error(entry.span(), &entry.path("policy"), "is missing".to_owned(), fix);
    }
    let all = || listen.udp.iter().chain(&listen.tcp).chain(&listen.tls);
    let known = text.value.parse().ok().filter(|address| all().any(|have| have == address));
    let Some(address) = known else {
        let what = format!("\"{}\" is no address of [listen]", text.value);
        let fix = "write it as udp, tcp or tls under [listen] have it".to_owned();
        report.error(&text.span, &entry.path("listen"), what, fix);
        return None;
    };
    Some((Found { value: address, span: text.span }, policy?))
}

/// Keys go over TLS only, and there is none.
fn unmeetable(section: &Section<'_>, report: &mut Report) {
    let span = section.key_span("policy").unwrap_or(section.span().clone());
    let what = "is \"required\" where no SIP over TLS is heard: calls would be refused, since media keys go \
                over TLS only"
        .to_owned();
    let fix = "add tls = [\"0.0.0.0:5061\"] under [listen], or insecure_signalling = true under \
               [srtp] where nobody else can read the signalling"
        .to_owned();
    report.warning(&span, &section.path("policy"), what, fix);
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, read as read_file};
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> (Option<SrtpSettings>, String) {
        let text = format!(
            "[listen]\nudp = [\"0.0.0.0:5060\"]\nadvertise = \"192.0.2.1\"\n\
             [ultravox]\nbase_url = \"embedded\"\n[sip]\nallowed_cidr_ranges = [\"127.0.0.0/8\"]\n\
             allow_all_agents = true\n[admin]\napi_key = \"k\"\n{text}"
        );
        let machine = Machine { ephemeral: None, ..Machine::this() };
        let (config, report) = read_file("f.toml", &text, Path::new(""), &machine);
        (config.map(|config| config.srtp), report.to_string())
    }

    #[test]
    fn the_section_is_read_and_its_defaults_are_safe() {
        assert_eq!(read(""), (Some(SrtpSettings::default()), String::new()));
        assert_eq!(SrtpSettings::default().policy, SrtpPolicy::Allowed);
        let (settings, report) = read(
            "[srtp]\npolicy = \"off\"\ninsecure_signalling = true\n\
             [[srtp.listeners]]\nlisten = \"0.0.0.0:5060\"\npolicy = \"required\"\n\
             [[srtp.targets]]\nhost = \"*.example.com\"\npolicy = \"allowed\"\n",
        );
        let listener = "0.0.0.0:5060".parse().expect("an address");
        let expected = SrtpSettings {
            policy: SrtpPolicy::Off,
            listeners: vec![(listener, SrtpPolicy::Required)],
            targets: vec![(HostRule::parse("*.example.com").expect("a host"), SrtpPolicy::Allowed)],
            insecure_signalling: true,
        };
        assert_eq!(settings, Some(expected), "{report}");
    }

    #[test]
    fn each_problem_is_told() {
        for (text, words) in [
            ("[srtp]\npolicy = \"on\"", "\"on\" is not known here"),
            ("[srtp]\npolicy = \"required\"", "where no SIP over TLS is heard"),
            (
                "[[srtp.listeners]]\nlisten = \"0.0.0.0:5060\"\npolicy = \"required\"",
                "where no SIP over TLS is heard",
            ),
            ("[[srtp.listeners]]\npolicy = \"off\"", "srtp.listeners[0].listen: is missing"),
            (
                "[[srtp.listeners]]\nlisten = \"0.0.0.0:5060\"",
                "srtp.listeners[0].policy: is missing",
            ),
            (
                "[[srtp.listeners]]\nlisten = \"0.0.0.0:5062\"\npolicy = \"off\"",
                "is no address of [listen]",
            ),
            ("[[srtp.targets]]\npolicy = \"off\"", "srtp.targets[0].host: is missing"),
            ("[[srtp.targets]]\nhost = \"a.example\"", "srtp.targets[0].policy: is missing"),
            ("[[srtp.targets]]\nhost = \"a@b\"\npolicy = \"off\"", "srtp.targets[0].host: "),
            (
                "[[srtp.targets]]\nhost = \"a.example\"\npolicy = \"off\"\n\
                 [[srtp.targets]]\nhost = \"a.example\"\npolicy = \"allowed\"",
                "names a.example a second time",
            ),
            (
                "[[srtp.listeners]]\nlisten = \"0.0.0.0:5060\"\npolicy = \"off\"\n\
                 [[srtp.listeners]]\nlisten = \"0.0.0.0:5060\"\npolicy = \"off\"",
                "names 0.0.0.0:5060 a second time",
            ),
        ] {
            let (settings, report) = read(text);
            assert!(report.contains(words), "{words} in\n{report}");
            assert_eq!(settings.is_some(), words.contains("TLS"), "{report}");
        }
    }
}
