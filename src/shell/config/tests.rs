//! A bad file in, the exact report out.

use super::*;
use crate::ground::WallTime;
use crate::shell::tls;

mod hands;

fn machine() -> Machine {
    Machine {
        ephemeral: Some(32_768..=60_999),
        reserved: Vec::new(),
        codecs: CodecKind::ALL.to_vec(),
        today: WallTime::default(),
    }
}

fn report(text: &str) -> String {
    let (config, report) = read("f.toml", text, Path::new("/nowhere"), &machine());
    assert_eq!(config.is_some(), !report.has_errors());
    report.to_string()
}

const GOOD: &str = r#"
[listen]
udp = ["127.0.0.1:5060"]
[ultravox]
base_url = "embedded"
[sip]
allowed_cidr_ranges = ["127.0.0.0/8"]
allow_all_agents = true
[admin]
api_key = "k"
"#;

#[test]
fn defaults_are_filled_in_and_say_nothing() {
    let (config, found) = read("f.toml", GOOD, Path::new(""), &machine());
    assert_eq!(found.to_string(), "");
    let config = config.expect("no error was found");
    assert_eq!(config.sip.account.domain(), "127.0.0.1");
    assert_eq!(config.media.ports, 10_000..=32_767);
    assert_eq!(config.media.codecs[0], CodecKind::Opus);
    assert_eq!(config.sip.no_match_status, 404);
    assert_eq!(config.sip.unlisted_udp, UnlistedUdp::Silence);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.limits.calls_max, 1_000);
    assert_eq!(config.ultravox.join_domains, ["ultravox.ai"]);
    assert_eq!(config.log, Log { format: LogFormat::Text, level: LogLevel::Info });
}

#[test]
fn every_problem_comes_at_once_with_line_key_and_fix() {
    let text = r#"[listen]
udp = ["0.0.0.0", "127.0.0.1:5060", "127.0.0.1:5060"]
advertize = "203.0.113.5"
[media]
ports = "40000-20000"
ptime_ms = "20"
codecs = ["opus", "g729"]
opus_output_hz = 44100
[ultravox]
api_key_file = "no-such-key"
[sip]
allow_all_agents = "yes"
allowed_cidr_ranges = ["0.0.0.0/0"]
no_match_status = 200
unlisted_udp = "drop"
[[sip.allowed_agents]]
agent = "x"
[admin]
listen = "0.0.0.0:8080"
api_key = ""
[store]
path = 7
[log]
level = "loud"
[sipp]
"#;
    let expected = r#"f.toml:2: error: listen.udp: "0.0.0.0" is not address:port
    fix: write for example "0.0.0.0:5060" or "[::]:5060"
f.toml:2: error: listen.udp: names 127.0.0.1:5060 twice
    fix: remove one of the two
f.toml:3: error: listen.advertize: is not a known key
    fix: did you mean advertise?
f.toml:5: error: media.ports: "40000-20000" is no range of ports
    fix: write ports = "10000-32767": first, dash, last, from 1024 up, three at least
f.toml:6: error: media.ptime_ms: must be a whole number, not text
    fix: write it as ptime_ms = 20
f.toml:7: error: media.codecs: "g729" is no codec of this daemon
    fix: use some of opus, G722, AMR-WB, G7221, PCMU, PCMA, iLBC
f.toml:8: error: media.opus_output_hz: 44100 is no rate that Opus decodes to
    fix: use 16000, 24000 or 48000 (8000 and 12000 work as well)
f.toml:10: error: ultravox.api_key_file: /nowhere/no-such-key cannot be read: there is no such file
    fix: put the key into /nowhere/no-such-key with mode 0600
f.toml:12: error: sip.allow_all_agents: must be true or false, not text
    fix: write it as allow_all_agents = true
f.toml:13: warning: sip.allowed_cidr_ranges[0]: 0.0.0.0/0 admits calls from anywhere
    fix: list the addresses of your SIP systems instead
f.toml:14: error: sip.no_match_status: 200 is out of bounds
    fix: give a number from 400 to 699
f.toml:15: error: sip.unlisted_udp: "drop" is not known here
    fix: use one of "silence", "403"
f.toml:16: error: sip.allowed_agents[0].agent_id: is missing
    fix: add agent_id = "…", the agent's UUID
f.toml:17: error: sip.allowed_agents[0].agent: is not a known key
    fix: did you mean agent_id?
f.toml:19: warning: admin.listen: 0.0.0.0:8080 can be reached from other machines, in clear text
    fix: use "127.0.0.1:8080", or set admin.certificate and admin.private_key
f.toml:20: error: admin.api_key: is empty
    fix: give it a value, or leave the key out
f.toml:22: error: store.path: must be text, not a whole number
    fix: write it as path = "…"
f.toml:24: error: log.level: "loud" is not known here
    fix: use one of "error", "warn", "info", "debug", "trace"
f.toml:25: error: sipp: is not a known key
    fix: did you mean sip?
"#;
    assert_eq!(report(text), expected);
}

#[test]
fn an_empty_file_names_what_is_needed() {
    let expected = r#"f.toml:1: error: listen: names no address to hear SIP on
    fix: add udp = ["0.0.0.0:5060"] under [listen]
f.toml:1: error: ultravox: has neither api_key_file nor api_key
    fix: add api_key_file = "/etc/voxedge/ultravox_api_key" under [ultravox], or base_url = "embedded" to try without an account
f.toml:1: warning: sip.allowed_cidr_ranges: is empty: every caller is a stranger, and no call comes in
    fix: name your PBX or carrier: allowed_cidr_ranges = ["203.0.113.10/32"]
f.toml:1: warning: sip.allowed_agents: names no agent: no call finds one
    fix: set allow_all_agents = true, or add [[sip.allowed_agents]] with agent_id and to_user_pattern
f.toml:1: warning: admin: has no api_key_file: /edge and /api/sip will open to the Ultravox key alone, and the commands of this program cannot ask the daemon
    fix: head -c 32 /dev/urandom | base64 > admin_api_key, chmod 0600 it, and name it in admin.api_key_file
"#;
    assert_eq!(report(""), expected);
}

#[test]
fn a_fix_says_what_was_meant_and_what_is_missing_hides_nothing() {
    let text = r#"[listen]
udp = ["0.0.0.0:5060", "127.0.0.1:5060"]
advertise = "edge example"
[ultravox]
base_url = "embedded"
creations_per_second = "5"
[sip]
allowed_cidr_ranges = ["10.0.0.0/8"]
allow_all_agents = "no"
[[sip.allowed_agents]]
to_user_pattern = "(sales"
[sip.fallback_handler]
secrets = []
[[sip.registrations]]
username = "201"
proxy = "pbx.example.com;transport=carrier"
[[sip.registrations]]
username = "202"
password = "x"
proxy = "pbx.example.com"
[[sip.registrations]]
username = "202"
password = "x"
proxy = "PBX.example.com"
[admin]
api_key = "k"
[store]
path = "/dev/null/calls.sqlite"
[limits]
grace_s = 6e1
[outgoing]
allowed_hosts = ["https://trunk.example.com"]
"#;
    let expected = r#"f.toml:2: error: listen.udp: 0.0.0.0:5060 and 127.0.0.1:5060 cannot both be opened
    fix: keep the wildcard, which hears every address of its family, or name each address
f.toml:3: error: listen.advertise: "edge example" is no host
    fix: give an address or a name without a port: advertise = "203.0.113.5"
f.toml:6: error: ultravox.creations_per_second: must be a whole number, not text
    fix: write it as creations_per_second = 5
f.toml:9: error: sip.allow_all_agents: must be true or false, not text
    fix: write it as allow_all_agents = false
f.toml:10: error: sip.allowed_agents[0].agent_id: is missing
    fix: add agent_id = "…", the agent's UUID
f.toml:11: error: sip.allowed_agents[0].to_user_pattern: this is no regular expression: unclosed group
    fix: escape characters that are meant literally, as in \+ or \.
f.toml:12: error: sip.fallback_handler.url: is missing
    fix: add url = "https://…", where the handler listens
f.toml:13: error: sip.fallback_handler.secrets: 0 secrets are given
    fix: give 1 to 10, or leave the key out and one is made
f.toml:14: error: sip.registrations[0].password_file: has neither password_file nor password
    fix: add password_file = "…", a file with mode 0600
f.toml:16: error: sip.registrations[0].proxy: this transport is not spoken
    fix: choose udp, tcp or tls
f.toml:21: error: sip.registrations[2]: registers 202 at PBX.example.com a second time
    fix: remove one of the two: each would undo the other's binding
f.toml:28: error: store.path: /dev/null is a file, not a directory
    fix: name a file: path = "/var/lib/voxedge/calls.sqlite"
f.toml:30: error: limits.grace_s: must be a whole number, not a number with a point
    fix: write it as grace_s = 60
f.toml:32: error: outgoing.allowed_hosts: "https://trunk.example.com": "https:" is no IP address
    fix: write a name, "*.name", an address or a CIDR range, with :port when only that port is meant
"#;
    assert_eq!(report(text), expected);
    let twice = format!("{GOOD}[listen]\ntcp = [\"127.0.0.1:5060\"]\n");
    let expected = "f.toml:11: error: not TOML: duplicate key\n    fix: it stands above already: \
                    keep one of the two, with the keys of both\n";
    assert_eq!(report(&twice), expected);
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let text = "[listen]\nudp = [\"127.0.0.1:5060\"\n[media]\n";
    let found = report(text);
    assert!(found.starts_with("f.toml:"), "{found}");
    assert!(found.contains("error: not TOML: "), "{found}");
}

#[test]
fn sections_that_do_not_fit_together_are_told() {
    let text = GOOD
        .replace(
            "udp = [\"127.0.0.1:5060\"]",
            "udp = [\"0.0.0.0:33000\"]\ntcp = [\"127.0.0.1:8080\"]\ntls = [\"0.0.0.0:8080\"]",
        )
        .replace(
            "[ultravox]",
            "[media]\nports = \"32000-34001\"\n[limits]\ncalls_max = 1002\n[ultravox]",
        );
    let expected = r#"f.toml:3: error: listen.udp: 0.0.0.0:33000 lies within media.ports
    fix: move one of the two; 5060 with 10000-32767 is usual
f.toml:3: warning: listen.advertise: is missing while 0.0.0.0:33000 listens on every address
    fix: add advertise = "<the address that your PBX reaches>" under [listen]; without it this machine's main address is named, which is wrong behind NAT
f.toml:5: error: tls.certificate: is missing, and listen.tls needs it
    fix: add certificate = "/etc/voxedge/tls/….pem" under [tls]
f.toml:5: error: tls.private_key: is missing, and listen.tls needs it
    fix: add private_key = "/etc/voxedge/tls/….pem" under [tls]
f.toml:5: error: listen.tls: 0.0.0.0:8080 is in listen.tcp too
    fix: remove it here: a TCP listener serves TLS clients as well when [tls] is set
f.toml:7: warning: media.ports: 32000-34001 overlaps the ports that the kernel gives to outgoing connections (32768-34001)
    fix: choose ports below them, or reserve: sysctl -w net.ipv4.ip_local_reserved_ports=32768-34001
f.toml:7: warning: media.ports: holds 1001 pairs of ports for limits.calls_max = 1002
    fix: widen media.ports (two for each call) or lower limits.calls_max
f.toml:15: error: admin.listen: 127.0.0.1:8080 is used for SIP as well
    fix: give admin.listen a port of its own: "127.0.0.1:8081"
"#;
    assert_eq!(report(&text), expected);
}

#[test]
fn the_bounds_of_the_jitter_buffer_are_read_and_must_be_in_order() {
    let with = |keys: &str| GOOD.replace("[ultravox]", &format!("[media]\n{keys}\n[ultravox]"));
    let text = with("jitter_min_ms = 0\njitter_max_ms = 500");
    let (loaded, problems) = read("f.toml", &text, Path::new(""), &machine());
    assert_eq!(problems.to_string(), "");
    let jitter = loaded.expect("a sound file").media.jitter;
    assert_eq!((jitter.min.as_millis(), jitter.max.as_millis()), (0, 500));
    let told = report(&with("jitter_min_ms = 300"));
    assert!(told.contains("jitter_min_ms: 300 ms at least, but jitter_max_ms is 200 ms"), "{told}");
    assert!(told.contains("fix: set jitter_max_ms = 300 or more"), "{told}");
    let told = report(&with("jitter_max_ms = 501"));
    assert!(told.contains("jitter_max_ms: 501 is out of bounds"), "{told}");
}

#[test]
fn reserved_ports_are_not_contested() {
    let text = GOOD.replace("[ultravox]", "[media]\nports = \"40000-49999\"\n[ultravox]");
    let reserved = vec![5_000..=5_001, 40_000..=49_999];
    let machine = Machine { reserved, ..machine() };
    assert_eq!(read("f.toml", &text, Path::new(""), &machine).1.to_string(), "");
    assert!(report(&text).contains("ip_local_reserved_ports=40000-49999"));
}

#[test]
fn key_files_are_read_trimmed_and_watched() {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("voxedge-keys-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let key = directory.join("key");
    std::fs::write(&key, "canary-key\n").expect("a key file");
    let text = GOOD.replace("api_key = \"k\"", "api_key_file = \"key\"");
    let with_mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&key, permissions).expect("our own file");
        read("f.toml", &text, &directory, &machine())
    };
    let (config, quiet) = with_mode(0o600);
    assert_eq!(quiet.to_string(), "");
    let key_read = config.and_then(|config| config.admin.api_key).expect("a key");
    assert_eq!(key_read.reveal(), "canary-key");
    let (config, loud) = with_mode(0o644);
    assert!(!format!("{config:?}{loud}").contains("canary"), "keys never print");
    let expected = format!(
        "f.toml:10: warning: admin.api_key_file: {0} may be read by others (mode 0644)\n    \
         fix: chmod 0600 {0}\n",
        key.display()
    );
    assert_eq!(loud.to_string(), expected);
    std::fs::write(&key, "two words\n").expect("a key file");
    assert!(with_mode(0o600).1.to_string().contains("does not hold one key"));
    std::fs::write(&key, "k".repeat(4_097)).expect("a key file");
    assert!(with_mode(0o600).1.to_string().contains("cannot be read: it has more than 4096 bytes"));
    std::fs::remove_dir_all(&directory).expect("our own directory");
}

#[test]
fn clear_text_to_a_stranger_is_refused_but_loopback_is_fine() {
    let with =
        |url: &str| report(&GOOD.replace("\"embedded\"", &format!("\"{url}\"\napi_key = \"k\"")));
    assert!(with("http://api.example.com").contains("clear text"));
    assert!(with("ftp://api.example.com").contains("is no base URL"));
    assert_eq!(with("http://127.0.0.1:9000/"), "");
    assert_eq!(with("https://api.ultravox.ai"), "");
}

#[test]
fn the_examples_of_the_project_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let demo = std::fs::read_to_string(root.join("demo.toml")).expect("it is in the project");
    let (config, found) = read("demo.toml", &demo, &root, &machine());
    assert_eq!(found.to_string(), "");
    assert_eq!(config.map(|config| config.ultravox.base_url), Some(BaseUrl::Embedded));
    let text = std::fs::read_to_string(root.join("voxedge.toml")).expect("it is in the project");
    // Its addresses are to be replaced.
    let (config, found) = read("voxedge.toml", &text, &root, &machine());
    assert!(config.is_some(), "{found}");
    let kept = found.problems().iter().filter(|problem| problem.what.contains("the example's"));
    let kept: Vec<&str> = kept.map(|problem| problem.key.as_str()).collect();
    assert_eq!(kept, ["listen.advertise", "sip.allowed_cidr_ranges[0]"], "{found}");
    let text = text.replace("\"203.0.113.5\"", "\"203.0.113.6\"");
    let text = text.replace("\"198.51.100.7/32\"", "\"198.51.100.8/32\"");
    // Its keys are credentials of the service: where that does not run, they are warned of.
    let (_, found) = read("voxedge.toml", &text, &root, &machine());
    for warning in found.problems() {
        assert!(warning.key.ends_with("api_key_file") && warning.what.contains("cannot be read"));
        assert!(warning.fix.contains("LoadCredential="), "{found}");
    }
    let text = text.lines().map(|line| match line.starts_with("api_key_file") {
        true => "api_key = \"k\"",
        false => line,
    });
    let text = text.collect::<Vec<_>>().join("\n");
    assert_eq!(read("voxedge.toml", &text, &root, &machine()).1.to_string(), "");
}

/// Uncomments every key of the production example: all of them must be known, and what is shown as
/// the default must be one.
#[test]
fn the_documented_example_knows_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/voxedge.toml");
    let text = std::fs::read_to_string(path).expect("it is in the project");
    let is_key = |line: &&str| {
        let line = line.trim_start_matches("# ");
        let name = line.split(" = ").next().unwrap_or("");
        line.starts_with('[') && line.ends_with(']')
            || line.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let keys = text.lines().filter(is_key).map(|line| line.trim_start_matches("# "));
    let keys = keys.collect::<Vec<_>>().join("\n");
    let found = report(&keys);
    assert!(!found.contains("not a known key") && !found.contains("not TOML"), "{found}\n{keys}");
    let count = |word: &str| keys.matches(word).count();
    assert_eq!(
        (count("tls = "), count("client_ca"), count("grace_s"), count("level")),
        (1, 1, 1, 1)
    );
}

#[test]
fn the_accounts_problems_stand_at_their_own_lines() {
    let rules = r#"allow_all_agents = true
[[sip.allowed_agents]]
agent_id = "echo"
[[sip.allowed_agents]]
agent_id = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11"
to_user_pattern = "(""#;
    let found = report(&GOOD.replace("allow_all_agents = true", rules));
    let lines: Vec<&str> = found.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(lines.len(), 2, "{found}");
    assert!(lines[0].starts_with("f.toml:10: error: sip.allowed_agents[0].agent_id: "), "{found}");
    assert!(lines[1].starts_with("f.toml:13: error: sip.allowed_agents[1].to_user_pattern: "));
}

#[test]
fn certificates_are_tried_as_the_server_will_use_them() {
    let directory = std::env::temp_dir().join(format!("voxedge-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let (certificate, key) = tls::self_signed(&["sip.example.com"]).expect("a certificate");
    let (_, other) = tls::self_signed(&["sip.example.com"]).expect("a certificate");
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(name);
        std::fs::write(&path, text).expect("our own directory");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    };
    write("chain.pem", &certificate);
    write("key.pem", &key);
    write("other.pem", &other);
    write("junk.pem", "junk");
    write("locked.pem", &key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"));
    let with = |certificate: &str, key: &str, today: WallTime| {
        let tls = format!(
            "tls = [\"127.0.0.1:5061\"]\n[tls]\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\"\n[ultravox]"
        );
        let machine = Machine { today, ..machine() };
        read("f.toml", &GOOD.replace("[ultravox]", &tls), &directory, &machine).1.to_string()
    };
    let today = WallTime::from_unix_micros(1_790_000_000_000_000);
    assert_eq!(with("chain.pem", "key.pem", today), "");
    let mismatch = with("chain.pem", "other.pem", today);
    assert!(mismatch.contains("f.toml:5: error: tls: ") && mismatch.contains("other.pem"));
    assert!(with("junk.pem", "key.pem", today).contains("junk.pem holds no PEM block"));
    assert!(with("chain.pem", "none.pem", today).contains("there is no such file"));
    assert!(
        with("chain.pem", "locked.pem", today).contains("locked.pem is locked with a passphrase")
    );
    let far = WallTime::from_unix_micros(i64::MAX / 2);
    assert!(with("chain.pem", "key.pem", far).contains("f.toml:5: warning: tls.certificate: "));
    std::fs::remove_dir_all(&directory).expect("our own directory");
}

#[test]
fn a_handler_is_read_and_told_of_when_it_would_never_be_asked() {
    let found = |handler: &str, fallback: &str| {
        let text = format!(
            "[listen]\nudp = [\"127.0.0.1:5070\"]\n[ultravox]\nbase_url = \"embedded\"\n\
             creations_per_second = 5\ncalls_concurrent_max = 7\n[sip]\nallow_all_agents = true\n\
             allowed_cidr_ranges = [\"10.0.0.0/8\"]\n[sip.fallback_handler]\n{handler}\n\
             [fallback]\n{fallback}\n[admin]\napi_key = \"k\"\n"
        );
        let machine =
            Machine { ephemeral: None, codecs: CodecKind::ALL.to_vec(), ..Machine::this() };
        let (config, report) = read("f.toml", &text, Path::new(""), &machine);
        (config, report.to_string())
    };
    let secret = "secrets = [\"s3cret\"]";
    let (config, report) = found(&format!("url = \"https://h.example/\"\n{secret}"), "");
    let config = config.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(report, "");
    let handler = config.sip.account.fallback_handler().expect("it was given");
    assert_eq!(handler.secrets.as_deref(), Some(&["s3cret".to_owned()][..]));
    let creations = config.ultravox.creations;
    assert_eq!((creations.per_second, creations.per_minute), (Some(5), None));
    assert_eq!((creations.concurrent, creations.waiting_max), (Some(7), 100));
    for (url, fallback, problem) in [
        ("http://h.example/", "", "would send callers' numbers in clear text"),
        ("http://h.example/", "plain_http = true", ""),
        ("http://127.0.0.1:9/", "", "points at a private address"),
        ("http://127.0.0.1:9/", "allowed_private = [\"127.0.0.1/32\"]", ""),
        ("https://169.254.169.254/", "", "points at a private address"),
        ("https://h.example/", "allowed_private = [\"10.1.2.3\"]", "has no prefix length"),
    ] {
        let (config, report) = found(&format!("url = \"{url}\"\n{secret}"), fallback);
        assert_eq!(config.is_some(), problem.is_empty(), "{url}: {report}");
        assert!(report.contains(problem), "{url}: {report}");
    }
    let (config, report) = found(secret, "");
    assert!(
        config.is_none() && report.contains("sip.fallback_handler.url: is missing"),
        "{report}"
    );
}

#[test]
fn a_codec_that_the_machine_lacks_is_left_out_and_told() {
    let lacking = CodecKind::ALL.into_iter().filter(|kind| *kind != CodecKind::AmrWb).collect();
    let machine = Machine { codecs: lacking, ..machine() };
    let check = |codecs: &str, severity: &str, left: Option<Vec<CodecKind>>| {
        let text = format!("{GOOD}{codecs}");
        let (config, found) = read("f.toml", &text, Path::new(""), &machine);
        assert_eq!(config.map(|config| config.media.codecs), left);
        let told =
            "media.codecs: AMR-WB is neither offered nor answered: its libraries are missing";
        let fix = "    fix: apt-get install libopencore-amrwb0 libvo-amrwbenc0";
        assert_eq!(found.to_string(), format!("f.toml{severity}: {told}\n{fix}\n"));
    };
    check("", ": note", Some(machine.codecs.clone()));
    let two = "[media]\ncodecs = [\"amr-wb\", \"pcmu\"]\n";
    check(two, ":12: warning", Some(vec![CodecKind::Pcmu]));
    check("[media]\ncodecs = [\"AMR-WB\"]\n", ":12: error", None);
}
