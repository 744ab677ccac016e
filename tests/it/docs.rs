//! The manual is true: every key, command, metric and package that README.md names is known, and
//! every one that is known is in README.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use voxedge::codec::CodecKind;
use voxedge::shell::admin::metrics;
use voxedge::shell::config::{self, Machine};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("it is in the project")
}

/// What `config::read` finds wrong with `text`, line by line.
fn problems(text: &str) -> Vec<String> {
    let machine = Machine { ephemeral: None, codecs: CodecKind::ALL.to_vec(), ..Machine::this() };
    let (_, report) = config::read("f.toml", text, Path::new("absent"), &machine);
    report.to_string().lines().map(str::to_owned).collect()
}

/// Sections of the configuration as they are written in a file.
const SECTIONS: [&str; 27] = [
    "[listen]",
    "[[listen.listeners]]",
    "[tls]",
    "[[tls.targets]]",
    "[dns]",
    "[media]",
    "[srtp]",
    "[[srtp.listeners]]",
    "[[srtp.targets]]",
    "[ultravox]",
    "[sip]",
    "[[sip.allowed_agents]]",
    "[sip.fallback_handler]",
    "[[sip.registrations]]",
    "[fallback]",
    "[admin]",
    "[store]",
    "[limits]",
    "[outgoing]",
    "[tools]",
    "[tools.cold_transfer]",
    "[tools.warm_transfer]",
    "[tools.play_dtmf_sounds]",
    "[transfers]",
    "[keys]",
    "[agent_lost]",
    "[log]",
];

/// `[section] key` of every key that the reader knows: it lists them when it meets one that it does
/// not know.
fn known_keys() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for section in SECTIONS {
        let found = problems(&format!("{section}\nqqqqqqqqqqqqqqqq = 1\n"));
        let listed = found.iter().find_map(|line| line.trim().split_once("known here: "));
        let (_, listed) = listed.expect("an unknown key is told with the known ones");
        known.extend(listed.split(", ").map(|key| format!("{section} {key}")));
    }
    known
}

/// The sections that the root knows are the ones of this test.
#[test]
fn every_section_is_looked_at() {
    let found = problems("qqqqqqqqqqqqqqqq = 1\n");
    let listed = found.iter().find_map(|line| line.trim().split_once("known here: "));
    let (_, listed) = listed.expect("an unknown key is told with the known ones");
    let named = SECTIONS.iter().filter(|section| !section.contains('.'));
    let named: Vec<&str> = named.map(|section| section.trim_matches(['[', ']'])).collect();
    assert_eq!(listed.split(", ").collect::<Vec<_>>(), named);
}

/// The rows of the tables under `### [section]`: section, key, example.
fn documented_keys(manual: &str) -> Vec<(String, String, String)> {
    let (_, part) = manual.split_once("\n## Configuration\n").expect("there is a reference");
    let part = part.split("\n## ").next().unwrap_or(part);
    let mut rows = Vec::new();
    let mut section = "";
    for line in part.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            section = title.trim_matches('`');
        } else if line.starts_with("| `") {
            // A `|` inside a cell is written `\|`.
            let line = line.replace("\\|", "\u{0}");
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 4, "{line}");
            let plain = |cell: &str| cell.trim_matches('`').replace('\u{0}', "|");
            rows.push((section.to_owned(), plain(cells[0]), plain(cells[2])));
        }
    }
    rows
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let known = known_keys();
    let rows = documented_keys(&text_of("README.md"));
    let documented: BTreeSet<String> =
        rows.iter().map(|(section, key, _)| format!("{section} {key}")).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_example_file_has_every_key_and_no_other() {
    let mut shown = BTreeSet::new();
    let mut section = String::new();
    for line in text_of("config/voxedge.toml").lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let key = line.split(" = ").next().unwrap_or_default();
        if line.starts_with('[') && line.ends_with(']') {
            section = line.to_owned();
        } else if line.contains(" = ") && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            shown.insert(format!("{section} {key}"));
        }
    }
    let mut known = known_keys();
    // These are told in the words beside their file, or are sections of their own.
    for elsewhere in [
        "[ultravox] api_key",
        "[admin] api_key",
        "[sip] allowed_agents",
        "[sip] fallback_handler",
        "[sip] registrations",
        "[[sip.registrations]] password",
        "[tls] targets",
        "[srtp] listeners",
        "[srtp] targets",
        "[listen] listeners",
        "[tools] cold_transfer",
        "[tools] warm_transfer",
        "[tools] play_dtmf_sounds",
        "[tools.cold_transfer] password",
        "[tools.warm_transfer] password",
    ] {
        assert!(known.remove(elsewhere), "{elsewhere}");
    }
    assert_eq!(shown, known);
    let text = text_of("config/voxedge.toml");
    assert_eq!(text.matches("api_key = \"…\"").count(), 2, "both are told in words");
}

/// The examples of the reference, put together, are a configuration: nothing is wrong with it but
/// that the files it names are not on this machine.
#[test]
fn the_examples_of_the_reference_are_valid() {
    let mut text = String::new();
    let mut last = String::new();
    for (section, key, example) in documented_keys(&text_of("README.md")) {
        let sections = [
            "allowed_agents",
            "fallback_handler",
            "registrations",
            "targets",
            "listeners",
            "cold_transfer",
            "warm_transfer",
            "play_dtmf_sounds",
        ];
        let in_place = ["api_key", "password"];
        if sections.iter().chain(&in_place).any(|word| *word == key) {
            continue;
        }
        if section != last {
            text.push_str(&format!("{section}\n"));
            last = section;
        }
        text.push_str(&format!("{key} = {example}\n"));
    }
    let found = problems(&text);
    let wrong = found.iter().filter(|line| line.contains("error: "));
    let wrong: Vec<&String> =
        wrong.filter(|line| !line.contains("there is no such file")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}\nin\n{text}");
}

/// Every block of TOML in the manual can be read; fragments need not be whole.
#[test]
fn the_blocks_of_the_manual_are_valid() {
    let manual = text_of("README.md");
    let blocks: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let wrong = problems(block).into_iter().filter(|line| line.contains("error: "));
        let missing = |line: &String| {
            let absent = ["there is no such file", "names no address", "has neither"];
            absent.iter().any(|words| line.contains(words))
        };
        let wrong: Vec<String> = wrong.filter(|line| !missing(line)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\nin\n{block}");
    }
}

/// The commands that a text shows: from each word `voxedge` at the start of a command to its end.
fn commands_in(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        let shown = line.split("  ").next().unwrap_or(line);
        let spans = line.split('`').skip(1).step_by(2);
        for part in shown.split("&&").chain(spans) {
            let part = part.split(['|', '#']).next().unwrap_or(part);
            let mut words = part.split_whitespace().filter(|word| *word != "sudo");
            let program = words.next().unwrap_or_default();
            let words: Vec<String> = words.map(str::to_owned).collect();
            let is_command = words.first().is_some_and(|word| {
                let commands = [
                    "run",
                    "check",
                    "reload",
                    "config",
                    "registrations",
                    "unlisted",
                    "route-test",
                    "calls",
                    "ladder",
                    "demo",
                    "standin",
                ];
                commands.contains(&word.as_str())
            });
            if (program == "voxedge" || program.ends_with("/voxedge")) && is_command {
                commands.push(words);
            }
        }
    }
    commands
}

#[test]
fn every_command_that_is_shown_is_one() {
    let mut shown = BTreeSet::new();
    for name in [
        "README.md",
        "CHANGELOG.md",
        "config/voxedge.toml",
        "config/demo.toml",
        "systemd/voxedge.service",
    ] {
        shown.extend(commands_in(&text_of(name)));
    }
    assert!(shown.len() >= 8, "{shown:?}");
    for words in shown {
        let program = env!("CARGO_BIN_EXE_voxedge");
        let output =
            Command::new(program).args(&words).arg("--help").output().expect("it is built");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "voxedge {}: {told}", words.join(" "));
    }
}

#[test]
fn every_metric_is_in_the_manual_and_no_other() {
    let page = metrics::render(&metrics::Snapshot::default());
    let real: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE voxedge_")?.split(' ').next())
        .collect();
    let manual = text_of("README.md");
    let (_, part) = manual.split_once("**Metrics.**").expect("there is a list");
    let part = part.split("\n**").next().unwrap_or(part);
    let named: BTreeSet<&str> = part
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    assert_eq!(named, real);
}

/// Names of the packages in one section of Cargo.toml.
fn packages(section: &str) -> BTreeSet<String> {
    let manifest = text_of("Cargo.toml");
    let part = manifest.split(section).nth(1).expect("the section is there");
    let part = part.split("\n[").next().unwrap_or(part);
    let names = part.lines().filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

#[test]
fn every_package_has_its_reason_in_the_manual() {
    let manual = text_of("README.md");
    let (_, part) = manual.split_once("\n## Dependencies\n").expect("there is a table");
    let part = part.split("\n## ").next().unwrap_or(part);
    let mut named: BTreeSet<String> = part
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('`').nth(1).map(str::to_owned))
        .collect();
    // Two of the first list were replaced.
    for gone in ["audiopus", "g722"] {
        assert!(named.remove(gone), "{gone}");
    }
    let mut used = packages("[dependencies]");
    used.extend(packages("[dev-dependencies]"));
    assert_eq!(named, used);
}

/// Links within the project lead somewhere.
#[test]
fn links_lead_somewhere() {
    let manual = text_of("README.md");
    let headings: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    for link in manual.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let is_there = match link.strip_prefix('#') {
            Some(heading) => headings.contains(heading),
            None => root().join(link).exists(),
        };
        assert!(is_there, "{link}");
    }
}
