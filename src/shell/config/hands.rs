//! `[tools]`, `[transfers]`, `[keys]` and `[agent_lost]`: what agents may do to a call, and what is done
//! without them. The keys of a tool are Ultravox's names of its parameters in snake case.

use super::problem::Report;
use super::reader::{Found, Section};
use super::sip::read_password;
use crate::call::ringing::WhileRinging;
use crate::call::settings::{HandSettings, KeySettings, LostSettings, TransferSettings, WarmMode};
use crate::call::sound::Sounds;
use crate::fallback::address;
use crate::outgoing::OutgoingPolicy;
use crate::ultravox::data_message::Urgency;
use crate::ultravox::tool::{Fixed, GivenTools, TelephoneTool, is_masked};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Reads the four sections; targets are subject to `outgoing`.
pub fn read(
    root: &mut Section<'_>,
    outgoing: &OutgoingPolicy,
    base: &Path,
    report: &mut Report,
) -> HandSettings {
    let tools = read_tools(&mut root.section("tools", report), outgoing, base, report);
    let policy = Arc::new(outgoing.clone());
    let transfers = read_transfers(&mut root.section("transfers", report), policy, report);
    let keys = read_keys(&mut root.section("keys", report), report);
    let lost = read_lost(&mut root.section("agent_lost", report), outgoing, report);
    HandSettings { tools, transfers, keys, lost, sounds: Sounds::default() }
}

/// The keys of each tool's section: ours and Ultravox's names.
const COLD_KEYS: [(&str, &str); 7] = [
    ("target", "target"),
    ("from", "from"),
    ("username", "username"),
    ("password", "password"),
    ("hold_music_url", "holdMusicUrl"),
    ("sip_verb", "sipVerb"),
    ("extra_headers", "extraHeaders"),
];
const WARM_KEYS: [(&str, &str); 9] = [
    ("target", "target"),
    ("from", "from"),
    ("username", "username"),
    ("password", "password"),
    ("hold_music_url", "holdMusicUrl"),
    ("transfer_type", "transferType"),
    ("invite_headers", "inviteHeaders"),
    ("refer_headers", "referHeaders"),
    ("transfer_system_prompt_template", "transferSystemPromptTemplate"),
];
const DTMF_KEYS: [(&str, &str); 2] =
    [("tone_duration", "toneDuration"), ("space_duration", "spaceDuration")];

fn read_tools(
    section: &mut Section<'_>,
    outgoing: &OutgoingPolicy,
    base: &Path,
    report: &mut Report,
) -> GivenTools {
    let mut give = Vec::new();
    for found in section.texts("give", report).unwrap_or_default() {
        match TelephoneTool::parse(&found.value) {
            Some(tool) if give.contains(&tool) => {
                let what = format!("names {} twice", found.value);
                report.error(&found.span, "tools.give", what, "remove one of the two".into());
            }
            Some(tool) => {
                if tool != TelephoneTool::PlayDtmfSounds && outgoing.hosts.is_empty() {
                    let what = format!("gives {}, and [outgoing] allows no target", found.value);
                    let fix = "name the hosts that may be called in outgoing.allowed_hosts".into();
                    report.warning(&found.span, "tools.give", what, fix);
                }
                give.push(tool);
            }
            None => {
                let names = TelephoneTool::ALL.map(|tool| format!("\"{}\"", tool.name()));
                let what = format!("\"{}\" is no tool of the telephone", found.value);
                let fix = format!("use {}", names.join(", "));
                report.error(&found.span, "tools.give", what, fix);
            }
        }
    }
    let mut defaults = Vec::new();
    for (key, tool, keys) in [
        ("cold_transfer", TelephoneTool::ColdTransfer, &COLD_KEYS[..]),
        ("warm_transfer", TelephoneTool::WarmTransfer, &WARM_KEYS),
        ("play_dtmf_sounds", TelephoneTool::PlayDtmfSounds, &DTMF_KEYS),
    ] {
        let mut tool_section = section.section(key, report);
        let fixed = read_fixed(&mut tool_section, tool, keys, base, report);
        check_target(&tool_section, &fixed, outgoing, report);
        tool_section.finish(report);
        if fixed != Fixed::default() {
            defaults.push((tool, fixed));
        }
    }
    section.finish(report);
    GivenTools { give, defaults: defaults.into_iter().collect() }
}

fn read_fixed(
    section: &mut Section<'_>,
    tool: TelephoneTool,
    keys: &[(&'static str, &'static str)],
    base: &Path,
    report: &mut Report,
) -> Fixed {
    let mut fixed = Fixed::default();
    for (key, name) in keys {
        let Some(found) = read_parameter(section, key, report) else { continue };
        let set = check_url(key, &found.value);
        let set = set.and_then(|()| check_credential(key, &found.value));
        let set = set.and_then(|()| fixed.set(tool, name, &found.value));
        if let Err(what) = set {
            report.error(&found.span, &section.path(key), what.to_owned(), example(key).to_owned());
        }
    }
    if tool == TelephoneTool::PlayDtmfSounds {
        return fixed;
    }
    if let Some(file) = section.text("password_file", report) {
        if fixed.password.is_some() {
            let what = "stands beside password; only one of the two may".to_owned();
            let path = section.path("password_file");
            report.error(&file.span, &path, what, "remove password".to_owned());
        }
        fixed.password = read_password(section, &file.value, &file.span, base, report);
    }
    fixed
}

/// A URL of hold music that could never be fetched.
fn check_url(key: &str, value: &Value) -> Result<(), &'static str> {
    match (key, value.as_str()) {
        ("hold_music_url", Some(url)) => {
            address::check_url(url, true).map_err(|fault| fault.problem)
        }
        _ => Ok(()),
    }
}

/// What somebody copied from where it is not shown.
fn check_credential(key: &str, value: &Value) -> Result<(), &'static str> {
    match (key, value.as_str()) {
        ("username" | "password", Some(text)) if is_masked(text) => {
            Err("is masked: it stands for a value that was not shown")
        }
        _ => Ok(()),
    }
}

/// How a tool's key is written.
fn example(key: &str) -> &'static str {
    match key {
        "target" => "write it as target = \"sip:sales@pbx.example.com\"",
        "from" => "write it as from = \"+15551234567\"",
        "sip_verb" => "write \"REFER\" or \"INVITE\"",
        "transfer_type" => "write \"REFER\", \"BRIDGE\" or \"TRY_REFER\"",
        "hold_music_url" => {
            "write a full URL, as in \"https://www.example.com/hold.mp3\", or \"none\""
        }
        "transfer_system_prompt_template" => "write at most 64 KiB of text",
        "tone_duration" | "space_duration" => "write it as \"0.2s\"",
        _ if key.ends_with("_headers") => "write each as \"X-Team: sales\", at most 32 of them",
        "username" | "password" => "write the value itself",
        _ => "write plain text of at most 2048 bytes",
    }
}

/// A target that the toll-fraud policy refuses would be refused in each call.
fn check_target(
    section: &Section<'_>,
    fixed: &Fixed,
    outgoing: &OutgoingPolicy,
    report: &mut Report,
) {
    let Some(Err(unwanted)) = fixed.target.as_ref().map(|to| outgoing.admit(to, false)) else {
        return;
    };
    let span = section.key_span("target").unwrap_or(section.span().clone());
    let fix = "give a SIP address that [outgoing] allows: target = \"sip:sales@pbx.example.com\"";
    report.error(&span, &section.path("target"), unwanted.to_string(), fix.to_owned());
}

/// The value of a tool's key, as Ultravox writes it: headers are a list of `"Name: value"` here.
fn read_parameter(
    section: &mut Section<'_>,
    key: &'static str,
    report: &mut Report,
) -> Option<Found<Value>> {
    if !key.ends_with("_headers") {
        let found = section.text(key, report)?;
        let is_silence = key == "hold_music_url" && found.value == "none";
        let value = if is_silence { Value::Null } else { Value::String(found.value) };
        return Some(Found { value, span: found.span });
    }
    let path = section.path(key);
    let found = section.texts(key, report)?;
    let span = found.first().map(|one| one.span.clone())?;
    let mut headers = Map::new();
    for one in found {
        match one.value.split_once(':') {
            Some((name, value)) => {
                headers.insert(name.trim().to_owned(), value.trim().into());
            }
            None => {
                let fix = "write it as \"X-Team: sales\"".to_owned();
                report.error(&one.span, &path, "is no header".to_owned(), fix);
            }
        }
    }
    Some(Found { value: Value::Object(headers), span })
}

fn read_transfers(
    section: &mut Section<'_>,
    policy: Arc<OutgoingPolicy>,
    report: &mut Report,
) -> TransferSettings {
    let default = TransferSettings::default();
    let modes = [("second_call", WarmMode::SecondCall), ("stage", WarmMode::Stage)];
    let warm = section.word("warm", &modes, report).unwrap_or(default.warm);
    let heard = [
        ("music", WhileRinging::Music),
        ("ringback", WhileRinging::Ringback),
        ("target", WhileRinging::Target),
    ];
    let while_ringing = section.word("while_ringing", &heard, report);
    let mut seconds = |key, range, default: Duration| {
        let found = section.integer(key, range, report);
        found.map_or(default, |found| Duration::from_secs(found.value))
    };
    let ring_timeout = seconds("ring_timeout_s", 5..=180, default.ring_timeout);
    let refer_timeout = seconds("refer_timeout_s", 5..=300, default.refer_timeout);
    let briefing_max = seconds("briefing_max_s", 10..=3_600, default.briefing_max);
    let bridged_max = seconds("bridged_max_s", 10..=86_400, default.bridged_max);
    let follow_refer = section.boolean("follow_refer", report).unwrap_or(default.follow_refer);
    let replaces = section.boolean("replaces", report).unwrap_or(default.replaces);
    section.finish(report);
    TransferSettings {
        policy,
        warm,
        while_ringing: while_ringing.unwrap_or(default.while_ringing),
        ring_timeout,
        refer_timeout,
        briefing_max,
        bridged_max,
        follow_refer,
        replaces,
    }
}

fn read_keys(section: &mut Section<'_>, report: &mut Report) -> KeySettings {
    let default = KeySettings::default();
    let ignore = section.boolean("ignore", report).unwrap_or(default.ignore);
    let text = section.text("text", report);
    if let Some(found) = text.as_ref().filter(|found| !found.value.contains("{digits}")) {
        let what = "holds no {digits}: the agent would not hear which keys".to_owned();
        let fix = "write for example text = \"The caller pressed {digits}.\"".to_owned();
        report.error(&found.span, "keys.text", what, fix);
    }
    let urgencies = [Urgency::Immediate, Urgency::Soon, Urgency::Later];
    let urgencies = urgencies.map(|urgency| (urgency.as_str(), urgency));
    let urgency = section.word("urgency", &urgencies, report).unwrap_or(default.urgency);
    let pause = section.integer("pause_ms", 0..=5_000, report);
    section.finish(report);
    KeySettings {
        ignore,
        text: text.map_or(default.text, |found| found.value),
        urgency,
        pause: pause.map_or(default.pause, |found| Duration::from_millis(found.value)),
    }
}

fn read_lost(
    section: &mut Section<'_>,
    outgoing: &OutgoingPolicy,
    report: &mut Report,
) -> LostSettings {
    let default = LostSettings::default();
    let continues = section.boolean("continue", report).unwrap_or(default.continues);
    let attempts_max = section.integer("attempts_max", 1..=10, report);
    let within = section.integer("within_s", 3..=60, report);
    let failover = section.text("failover", report);
    if let Some(found) = &failover
        && let Err(unwanted) = outgoing.admit(&found.value, false)
    {
        let fix =
            "give a SIP address that [outgoing] allows: failover = \"sip:desk@pbx.example.com\"";
        report.error(&found.span, "agent_lost.failover", unwanted.to_string(), fix.to_owned());
    }
    section.finish(report);
    LostSettings {
        continues,
        attempts_max: attempts_max.map_or(default.attempts_max, |found| found.value as u8),
        within: within.map_or(default.within, |found| Duration::from_secs(found.value)),
        failover: failover.map(|found| found.value),
    }
}
