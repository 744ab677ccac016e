//! `[tools]`, `[transfers]`, `[keys]`, `[agent_lost]`, `[srtp]` and `media.codecs`: what is wrong with each
//! value, where, and how it is mended; and what good ones come to.

use super::*;
use crate::call::ringing::WhileRinging;
use crate::call::settings::{HandSettings, KeySettings, LostSettings, TransferSettings, WarmMode};
use crate::ultravox::data_message::Urgency;
use crate::ultravox::tool::{Fixed, HoldMusic, SipVerb, TelephoneTool, TransferType};

/// Good lines; what is tried begins at line 20.
const BEFORE: &str = r#"[listen]
udp = ["127.0.0.1:5060"]

[ultravox]
base_url = "embedded"

[sip]
allowed_cidr_ranges = ["127.0.0.0/8"]
allow_all_agents = true

[outgoing]
allowed_hosts = ["pbx.example.com"]
denied_prefixes = ["1900"]

[admin]
api_key = "k"

[log]
level = "info"
"#;

fn read_after(text: &str) -> (Option<Config>, String) {
    let text = format!("{BEFORE}{text}");
    let (config, report) = read("f.toml", &text, Path::new("/nowhere"), &machine());
    (config, report.to_string())
}

/// Each row is what a file says, and after the arrow the whole report of it.
fn check(table: &str) {
    for row in table.split("----\n") {
        let (text, expected) = row.split_once("=>\n").expect("an arrow");
        let (config, report) = read_after(text.trim_start_matches('\n'));
        assert!(config.is_none(), "{text}");
        assert_eq!(report, expected, "{text}");
    }
}

#[test]
fn each_wrong_value_of_transfers_is_told() {
    check(
        r#"
[transfers]
warm = "conference"
ring_timeout_s = 4
refer_timeout_s = 301
briefing_max_s = 9
bridged_max_s = 86401
follow_refer = "yes"
replaces = 1
ring_timeout = 5
while_ringing = "silence"
=>
f.toml:21: error: transfers.warm: "conference" is not known here
    fix: use one of "second_call", "stage"
f.toml:22: error: transfers.ring_timeout_s: 4 is out of bounds
    fix: give a number from 5 to 180
f.toml:23: error: transfers.refer_timeout_s: 301 is out of bounds
    fix: give a number from 5 to 300
f.toml:24: error: transfers.briefing_max_s: 9 is out of bounds
    fix: give a number from 10 to 3600
f.toml:25: error: transfers.bridged_max_s: 86401 is out of bounds
    fix: give a number from 10 to 86400
f.toml:26: error: transfers.follow_refer: must be true or false, not text
    fix: write it as follow_refer = true
f.toml:27: error: transfers.replaces: must be true or false, not a whole number
    fix: write it as replaces = true
f.toml:28: error: transfers.ring_timeout: is not a known key
    fix: did you mean ring_timeout_s?
f.toml:29: error: transfers.while_ringing: "silence" is not known here
    fix: use one of "music", "ringback", "target"
----
[transfers]
warm = ""
ring_timeout_s = "45"
refer_timeout_s = 4
briefing_max_s = 3601
bridged_max_s = -1
=>
f.toml:21: error: transfers.warm: is empty
    fix: give it a value, or leave the key out
f.toml:22: error: transfers.ring_timeout_s: must be a whole number, not text
    fix: write it as ring_timeout_s = 45
f.toml:23: error: transfers.refer_timeout_s: 4 is out of bounds
    fix: give a number from 5 to 300
f.toml:24: error: transfers.briefing_max_s: 3601 is out of bounds
    fix: give a number from 10 to 3600
f.toml:25: error: transfers.bridged_max_s: -1 is out of bounds
    fix: give a number from 10 to 86400
"#,
    );
}

#[test]
fn each_wrong_value_of_keys_is_told() {
    check(
        r#"
[keys]
ignore = 0
text = "The caller pressed a key."
urgency = "now"
pause_ms = 5001
digits = 4
=>
f.toml:21: error: keys.ignore: must be true or false, not a whole number
    fix: write it as ignore = true
f.toml:22: error: keys.text: holds no {digits}: the agent would not hear which keys
    fix: write for example text = "The caller pressed {digits}."
f.toml:23: error: keys.urgency: "now" is not known here
    fix: use one of "immediate", "soon", "later"
f.toml:24: error: keys.pause_ms: 5001 is out of bounds
    fix: give a number from 0 to 5000
f.toml:25: error: keys.digits: is not a known key
    fix: remove it; known here: ignore, text, urgency, pause_ms
----
[keys]
text = ""
pause_ms = 1.5
=>
f.toml:21: error: keys.text: is empty
    fix: give it a value, or leave the key out
f.toml:22: error: keys.pause_ms: must be a whole number, not a number with a point
    fix: write it as pause_ms = 1
"#,
    );
}

#[test]
fn each_wrong_value_of_agent_lost_is_told() {
    check(
        r#"
[agent_lost]
continue = "true"
attempts_max = 0
within_s = 2
failover = "sip:desk@elsewhere.example"
fail_over = "x"
=>
f.toml:21: error: agent_lost.continue: must be true or false, not text
    fix: write it as continue = true
f.toml:22: error: agent_lost.attempts_max: 0 is out of bounds
    fix: give a number from 1 to 10
f.toml:23: error: agent_lost.within_s: 2 is out of bounds
    fix: give a number from 3 to 60
f.toml:24: error: agent_lost.failover: the target's host, at this port, is not in outgoing.allowed_hosts
    fix: give a SIP address that [outgoing] allows: failover = "sip:desk@pbx.example.com"
f.toml:25: error: agent_lost.fail_over: is not a known key
    fix: did you mean failover?
----
[agent_lost]
attempts_max = 11
within_s = 61
failover = "desk"
=>
f.toml:21: error: agent_lost.attempts_max: 11 is out of bounds
    fix: give a number from 1 to 10
f.toml:22: error: agent_lost.within_s: 61 is out of bounds
    fix: give a number from 3 to 60
f.toml:23: error: agent_lost.failover: the target cannot be called: it is no SIP URI
    fix: give a SIP address that [outgoing] allows: failover = "sip:desk@pbx.example.com"
----
[agent_lost]
failover = "tel:+15551234567"
=>
f.toml:21: error: agent_lost.failover: the target cannot be called: it must begin with sip: or sips:
    fix: give a SIP address that [outgoing] allows: failover = "sip:desk@pbx.example.com"
----
[agent_lost]
failover = "sip:19005551234@pbx.example.com"
=>
f.toml:21: error: agent_lost.failover: the target begins with one of outgoing.denied_prefixes
    fix: give a SIP address that [outgoing] allows: failover = "sip:desk@pbx.example.com"
"#,
    );
}

#[test]
fn each_wrong_value_of_tools_is_told() {
    check(
        r#"
[tools]
give = ["coldTransfer", "coldTransfer", "hangUp", 3]
gives = []
=>
f.toml:21: error: tools.give: must be a list of texts, not a whole number
    fix: write it as give = ["…", "…"]
f.toml:21: error: tools.give: names coldTransfer twice
    fix: remove one of the two
f.toml:21: error: tools.give: "hangUp" is no tool of the telephone
    fix: use "coldTransfer", "warmTransfer", "playDtmfSounds"
f.toml:22: error: tools.gives: is not a known key
    fix: did you mean give?
----
[tools]
give = "coldTransfer"
cold_transfer = "REFER"
=>
f.toml:21: error: tools.give: must be a list of texts, not text
    fix: write it as give = ["…", "…"]
f.toml:22: error: tools.cold_transfer: must be a section, not text
    fix: write it as [tools.cold_transfer]
----
[tools.cold_transfer]
target = "sip:desk@elsewhere.example"
sip_verb = "BYE"
from = "\u0007"
username = "***"
password = "****"
password_file = "no-such-file"
hold_music_url = "ftp://www.example.com/a.mp3"
extra_headers = ["Via: x", "X-Team"]
transfer_type = "REFER"
=>
f.toml:21: error: tools.cold_transfer.target: the target's host, at this port, is not in outgoing.allowed_hosts
    fix: give a SIP address that [outgoing] allows: target = "sip:sales@pbx.example.com"
f.toml:22: error: tools.cold_transfer.sip_verb: must be REFER or INVITE
    fix: write "REFER" or "INVITE"
f.toml:23: error: tools.cold_transfer.from: holds control characters
    fix: write it as from = "+15551234567"
f.toml:24: error: tools.cold_transfer.username: is masked: it stands for a value that was not shown
    fix: write the value itself
f.toml:25: error: tools.cold_transfer.password: is masked: it stands for a value that was not shown
    fix: write the value itself
f.toml:26: error: tools.cold_transfer.password_file: /nowhere/no-such-file cannot be read: there is no such file
    fix: put the password into /nowhere/no-such-file with mode 0600
f.toml:27: error: tools.cold_transfer.hold_music_url: is no web address
    fix: write a full URL, as in "https://www.example.com/hold.mp3", or "none"
f.toml:28: error: tools.cold_transfer.extra_headers: is no header
    fix: write it as "X-Team: sales"
f.toml:28: error: tools.cold_transfer.extra_headers: holds a header that is not the tool's to set: names should begin with X-
    fix: write each as "X-Team: sales", at most 32 of them
f.toml:29: error: tools.cold_transfer.transfer_type: is not a known key
    fix: remove it; known here: target, from, username, password, hold_music_url, sip_verb, extra_headers, password_file
----
[tools.cold_transfer]
target = 5
sip_verb = ["REFER"]
hold_music_url = "https://user:pass@www.example.com/a.mp3"
extra_headers = "X-Team: sales"
=>
f.toml:21: error: tools.cold_transfer.target: must be text, not a whole number
    fix: write it as target = "…"
f.toml:22: error: tools.cold_transfer.sip_verb: must be text, not a list
    fix: write it as sip_verb = "…"
f.toml:23: error: tools.cold_transfer.hold_music_url: holds a name or password
    fix: write a full URL, as in "https://www.example.com/hold.mp3", or "none"
f.toml:24: error: tools.cold_transfer.extra_headers: must be a list of texts, not text
    fix: write it as extra_headers = ["…", "…"]
----
[tools.warm_transfer]
target = "sip:desk@pbx.example.com?X=1"
transfer_type = "ATTENDED"
invite_headers = ["X-A: 1", "Contact: evil"]
refer_headers = [1]
transfer_system_prompt_template = "  "
sip_verb = "INVITE"
=>
f.toml:21: error: tools.warm_transfer.target: the target cannot be called: it holds headers
    fix: give a SIP address that [outgoing] allows: target = "sip:sales@pbx.example.com"
f.toml:22: error: tools.warm_transfer.transfer_type: must be REFER, BRIDGE or TRY_REFER
    fix: write "REFER", "BRIDGE" or "TRY_REFER"
f.toml:23: error: tools.warm_transfer.invite_headers: holds a header that is not the tool's to set: names should begin with X-
    fix: write each as "X-Team: sales", at most 32 of them
f.toml:24: error: tools.warm_transfer.refer_headers: must be a list of texts, not a whole number
    fix: write it as refer_headers = ["…", "…"]
f.toml:25: error: tools.warm_transfer.transfer_system_prompt_template: is empty
    fix: write at most 64 KiB of text
f.toml:26: error: tools.warm_transfer.sip_verb: is not a known key
    fix: remove it; known here: target, from, username, password, hold_music_url, transfer_type, invite_headers, refer_headers, transfer_system_prompt_template, password_file
----
[tools.play_dtmf_sounds]
tone_duration = "200"
space_duration = "0.01s"
target = "sip:a@b"
=>
f.toml:21: error: tools.play_dtmf_sounds.tone_duration: must be a duration such as "0.2s"
    fix: write it as "0.2s"
f.toml:22: error: tools.play_dtmf_sounds.space_duration: must be between 0.04s and 5s
    fix: write it as "0.2s"
f.toml:23: error: tools.play_dtmf_sounds.target: is not a known key
    fix: remove it; known here: tone_duration, space_duration
----
[tools.play_dtmf_sounds]
tone_duration = 0.2
space_duration = "6s"
=>
f.toml:21: error: tools.play_dtmf_sounds.tone_duration: must be text, not a number with a point
    fix: write it as tone_duration = "…"
f.toml:22: error: tools.play_dtmf_sounds.space_duration: must be between 0.04s and 5s
    fix: write it as "0.2s"
"#,
    );
}

#[test]
fn what_a_tool_may_hold_is_bounded() {
    let many: Vec<String> = (0..33).map(|n| format!("\"X-{n}: 1\"")).collect();
    let (many, long) = (many.join(", "), "x".repeat(2_049));
    let template = "x".repeat(65_537);
    for (section, key, value, what, fix) in [
        (
            "cold",
            "extra_headers",
            format!("[{many}]"),
            "holds too many headers",
            "write each as \"X-Team: sales\", at most 32 of them",
        ),
        (
            "warm",
            "refer_headers",
            format!("[\"X-Team: {long}\"]"),
            "holds a header value that is too long or has control characters",
            "write each as \"X-Team: sales\", at most 32 of them",
        ),
        ("cold", "username", format!("\"{long}\""), "is too long", "write the value itself"),
        (
            "warm",
            "transfer_system_prompt_template",
            format!("\"{template}\""),
            "is too long",
            "write at most 64 KiB of text",
        ),
    ] {
        let (config, report) =
            read_after(&format!("[tools.{section}_transfer]\n{key} = {value}\n"));
        let path = format!("tools.{section}_transfer.{key}");
        assert_eq!(report, format!("f.toml:21: error: {path}: {what}\n    fix: {fix}\n"));
        assert!(config.is_none(), "{key}");
    }
}

#[test]
fn tools_that_may_call_nobody_are_warned_of() {
    let outgoing =
        "[outgoing]\nallowed_hosts = [\"pbx.example.com\"]\ndenied_prefixes = [\"1900\"]\n";
    let text = BEFORE.replace(outgoing, "");
    let text = format!("{text}[tools]\ngive = [\"playDtmfSounds\", \"warmTransfer\"]\n");
    let (config, report) = read("f.toml", &text, Path::new(""), &machine());
    let expected = "f.toml:18: warning: tools.give: gives warmTransfer, and [outgoing] allows no target\n    \
                    fix: name the hosts that may be called in outgoing.allowed_hosts\n";
    assert_eq!((report.to_string().as_str(), config.is_some()), (expected, true));
}

#[test]
fn each_wrong_value_of_srtp_is_told() {
    check(
        r#"
[srtp]
policy = "on"
insecure_signalling = "no"
listeners = "0.0.0.0:5061"
polices = true
=>
f.toml:21: error: srtp.policy: "on" is not known here
    fix: use one of "off", "allowed", "required"
f.toml:22: error: srtp.insecure_signalling: must be true or false, not text
    fix: write it as insecure_signalling = false
f.toml:23: error: srtp.listeners: must be a list of sections, not text
    fix: write it as [[srtp.listeners]]
f.toml:24: error: srtp.polices: is not a known key
    fix: did you mean policy?
----
[srtp]
policy = true
=>
f.toml:21: error: srtp.policy: must be text, not true or false
    fix: write it as policy = "…"
----
[[srtp.listeners]]
policy = "off"
=>
f.toml:20: error: srtp.listeners[0].listen: is missing
    fix: add listen = "0.0.0.0:5061", as it stands under [listen]
----
[[srtp.listeners]]
listen = "127.0.0.1:5060"
=>
f.toml:20: error: srtp.listeners[0].policy: is missing
    fix: add policy = "off", "allowed" or "required"
----
[[srtp.listeners]]
listen = "127.0.0.1:5062"
policy = "off"
[[srtp.listeners]]
listen = "pbx.example.com"
policy = "of"
ports = 1
=>
f.toml:21: error: srtp.listeners[0].listen: "127.0.0.1:5062" is no address of [listen]
    fix: write it as udp, tcp or tls under [listen] have it
f.toml:24: error: srtp.listeners[1].listen: "pbx.example.com" is no address of [listen]
    fix: write it as udp, tcp or tls under [listen] have it
f.toml:25: error: srtp.listeners[1].policy: "of" is not known here
    fix: use one of "off", "allowed", "required"
f.toml:26: error: srtp.listeners[1].ports: is not a known key
    fix: remove it; known here: listen, policy
----
[[srtp.listeners]]
listen = "127.0.0.1:5060"
policy = "off"
[[srtp.listeners]]
listen = "127.0.0.1:5060"
policy = "allowed"
=>
f.toml:24: error: srtp.listeners[1].listen: names 127.0.0.1:5060 a second time
    fix: remove one
"#,
    );
}

#[test]
fn a_policy_that_no_call_can_meet_is_warned_of() {
    let what = "is \"required\" where no SIP over TLS is heard: calls would be refused, since media keys go over TLS only";
    let fix = "add tls = [\"0.0.0.0:5061\"] under [listen], or insecure_signalling = true under [srtp] where nobody else can read the signalling";
    let own = "[[srtp.listeners]]\nlisten = \"127.0.0.1:5060\"\npolicy = \"required\"\n";
    for (text, place) in [
        ("[srtp]\npolicy = \"required\"\n", "f.toml:21: warning: srtp.policy"),
        (own, "f.toml:22: warning: srtp.listeners[0].policy"),
    ] {
        let (config, report) = read_after(text);
        assert_eq!(report, format!("{place}: {what}\n    fix: {fix}\n"));
        assert!(config.is_some(), "{text}");
    }
    let (config, report) =
        read_after("[srtp]\npolicy = \"required\"\ninsecure_signalling = true\n");
    assert_eq!((report.as_str(), config.is_some()), ("", true));
}

#[test]
fn each_wrong_value_of_codecs_is_told() {
    check(
        r#"
[media]
codecs = ["opus", "g729", "PCMU", "pcmu", 8]
=>
f.toml:21: error: media.codecs: must be a list of texts, not a whole number
    fix: write it as codecs = ["…", "…"]
f.toml:21: error: media.codecs: "g729" is no codec of this daemon
    fix: use some of opus, G722, AMR-WB, G7221, PCMU, PCMA, iLBC
f.toml:21: error: media.codecs: names pcmu twice
    fix: remove one of the two
----
[media]
codecs = []
=>
f.toml:21: error: media.codecs: is empty: every call would be refused
    fix: name at least one of opus, G722, AMR-WB, G7221, PCMU, PCMA, iLBC, or leave the key out
----
[media]
codecs = "opus"
=>
f.toml:21: error: media.codecs: must be a list of texts, not text
    fix: write it as codecs = ["…", "…"]
----
[media]
codecs = [""]
=>
f.toml:21: error: media.codecs: "" is no codec of this daemon
    fix: use some of opus, G722, AMR-WB, G7221, PCMU, PCMA, iLBC
"#,
    );
}

#[test]
fn good_hands_come_to_what_was_written() {
    let text = r#"[tools]
give = ["coldTransfer", "playDtmfSounds"]
[tools.cold_transfer]
target = "sip:sales@pbx.example.com"
sip_verb = "INVITE"
hold_music_url = "http://www.example.com/hold.wav"
extra_headers = ["X-Team: sales"]
[tools.warm_transfer]
transfer_type = "REFER"
hold_music_url = "none"
[transfers]
warm = "stage"
while_ringing = "target"
ring_timeout_s = 5
refer_timeout_s = 300
briefing_max_s = 10
bridged_max_s = 86400
follow_refer = true
replaces = true
[keys]
ignore = true
text = "{digits}"
urgency = "later"
pause_ms = 0
[agent_lost]
continue = false
attempts_max = 10
within_s = 60
failover = "sip:desk@pbx.example.com"
"#;
    let (config, report) = read_after(text);
    assert_eq!(report, "");
    let HandSettings { tools, transfers, keys, lost, sounds: _ } =
        config.expect("it is good").hands;
    assert_eq!(tools.give, [TelephoneTool::ColdTransfer, TelephoneTool::PlayDtmfSounds]);
    let cold = Fixed {
        target: Some("sip:sales@pbx.example.com".into()),
        verb: Some(SipVerb::Invite),
        hold_music: Some(HoldMusic::Url("http://www.example.com/hold.wav".into())),
        headers: Some(vec![("X-Team".into(), "sales".into())]),
        ..Fixed::default()
    };
    let warm = Fixed {
        kind: Some(TransferType::Refer),
        hold_music: Some(HoldMusic::None),
        ..Fixed::default()
    };
    let expected = [(TelephoneTool::ColdTransfer, cold), (TelephoneTool::WarmTransfer, warm)];
    assert_eq!(tools.defaults, expected.into());
    let seconds = std::time::Duration::from_secs;
    let wanted = TransferSettings {
        policy: std::sync::Arc::clone(&transfers.policy),
        warm: WarmMode::Stage,
        while_ringing: WhileRinging::Target,
        ring_timeout: seconds(5),
        refer_timeout: seconds(300),
        briefing_max: seconds(10),
        bridged_max: seconds(86_400),
        follow_refer: true,
        replaces: true,
    };
    assert_eq!(transfers, wanted);
    let wanted = KeySettings {
        ignore: true,
        text: "{digits}".into(),
        urgency: Urgency::Later,
        pause: seconds(0),
    };
    assert_eq!(keys, wanted);
    let failover = Some("sip:desk@pbx.example.com".to_owned());
    let wanted = LostSettings { continues: false, attempts_max: 10, within: seconds(60), failover };
    assert_eq!(lost, wanted);
}
