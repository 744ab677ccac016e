//! Keeps the house in order: floors, doors, purity, sizes. It reads the source text line by line, so
//! its rules are simple on purpose; an offender is named by file and line. Tests inside `src` are
//! free: they are cut out before anything is looked at.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The floors of the house: a module uses its own floor and those below it.
const FLOORS: [(&str, u8); 24] = [
    ("ground", 0),
    ("sip/msg", 1),
    // The status line is a value of messages; a parse fault names one.
    ("sip/status", 1),
    ("rtp", 1),
    ("codec", 1),
    ("ultravox", 1),
    ("sip", 2),
    // Offer/answer speaks in the plain values of media::plan; both are on one floor.
    ("sdp", 2),
    ("media", 2),
    ("account", 3),
    ("admission", 3),
    ("routing", 3),
    ("context", 3),
    ("outgoing", 3),
    ("fallback", 3),
    ("billing", 3),
    ("call", 4),
    ("refusal", 4),
    ("switchboard", 4),
    ("shell", 5),
    ("standin", 5),
    ("cli", 6),
    ("main", 6),
    ("lib", 6),
];

/// The highest floor on which nothing reads a clock, opens a socket or waits.
const PURE_MAX: u8 = 4;

/// Rooms that do not see each other although their floors would allow it: who, what, but for.
const WALLS: [(&str, &str, &str); 4] = [
    ("media", "call", ""),
    ("call", "media", "media/plan"),
    ("sip", "ultravox", ""),
    ("billing", "sip", ""),
];

/// Each third-party crate and the rooms that may name it. `*` is the whole house: crates that are
/// vocabulary rather than machinery.
const DOORS: [(&str, &[&str]); 41] = [
    ("aes", &["rtp/srtp"]),
    ("aes_gcm", &["rtp/srtp"]),
    ("axum", &["shell/admin", "standin"]),
    ("base64", &["ultravox/stream", "sdp/crypto"]),
    ("bytes", &["*"]),
    ("clap", &["cli/mod"]),
    ("ctr", &["rtp/srtp"]),
    ("getrandom", &["shell/entropy"]),
    ("hickory_resolver", &["shell/resolver"]),
    ("hmac", &["fallback", "rtp/srtp"]),
    ("httpdate", &["ultravox/create_call"]),
    ("ipnet", &["account/range"]),
    ("libloading", &["codec/amr_wb/library"]),
    ("md5", &["sip/digest"]),
    ("nanomp3", &["shell/sounds"]),
    ("opus", &["codec/opus"]),
    ("rand_chacha", &["ground/entropy"]),
    ("rcgen", &["shell/tls"]),
    ("regex", &["account/pattern"]),
    ("reqwest", &["shell/agent/rest", "shell/webhook"]),
    ("rtcp_types", &["rtp/rtcp"]),
    ("rtp_rs", &["rtp/packet"]),
    ("rusqlite", &["shell/store"]),
    ("rustix", &["shell/media/readiness", "shell/media/sockets"]),
    ("rustls", &["shell/tls"]),
    ("rustls_native_certs", &["shell/tls"]),
    ("sd_notify", &["shell/supervise"]),
    ("sdp_types", &["sdp/text"]),
    ("serde", &["*"]),
    ("serde_json", &["*"]),
    ("sha1", &["ultravox/stream", "rtp/srtp"]),
    ("sha2", &["sip/digest", "fallback"]),
    ("socket2", &["shell/flow/bind", "shell/media/sockets"]),
    ("time", &["billing/stamp"]),
    ("tokio", &["shell", "standin", "cli"]),
    ("tokio_rustls", &["shell", "standin"]),
    ("toml", &["shell/config/reader"]),
    ("tracing", &["*"]),
    ("tracing_subscriber", &["shell/log"]),
    ("webpki_roots", &["shell/tls"]),
    ("zeroize", &["rtp/srtp", "sdp/crypto"]),
];

/// What pure code never says, and why.
const IMPURE: [(&str, &str); 13] = [
    ("tokio", "machines do not wait"),
    ("async fn", "machines do not wait"),
    ("async move", "machines do not wait"),
    ("Instant::now", "time comes in as an argument"),
    ("SystemTime", "time comes in as an argument"),
    ("HashMap", "its order is chance: use BTreeMap"),
    ("HashSet", "its order is chance: use BTreeSet"),
    ("println!", "machines say things in their outputs"),
    ("dbg!", "machines say things in their outputs"),
    ("std::fs", "files are the shell's"),
    ("std::thread", "threads are the shell's"),
    ("UdpSocket", "sockets are the shell's"),
    ("TcpStream", "sockets are the shell's"),
];

/// The one file that may say `unsafe`: it calls C.
const UNSAFE: &str = "codec/amr_wb/library";

/// What no code outside tests says.
const NEVER: [(&str, &str); 6] = [
    (".unwrap()", "say the belief: expect(\"…\"), or handle it"),
    ("todo!(", "finish it"),
    ("unimplemented!(", "finish it"),
    ("dbg!(", "remove it"),
    ("#[allow(", "use #[expect(…, reason = \"…\")]"),
    ("std::process::exit", "return an ExitCode"),
];

/// Lines of code, without blank lines, comments and tests.
const LINES_WORRY: usize = 500;
const LINES_MAX: usize = 800;

/// A source file without its tests.
struct Source {
    /// `shell/admin/mod` for `src/shell/admin/mod.rs`.
    name: String,
    path: String,
    /// Line number and text; comments and tests are gone.
    lines: Vec<(usize, String)>,
}

impl Source {
    /// True when the file is `room` or lies in it.
    fn is_in(&self, room: &str) -> bool {
        is_in(&self.name, room)
    }
}

fn is_in(name: &str, room: &str) -> bool {
    name.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The floor of a module path written with slashes; the longest room that fits.
fn floor(name: &str) -> Option<u8> {
    let fits = FLOORS.iter().filter(|(room, _)| is_in(name, room));
    fits.max_by_key(|(room, _)| room.len()).map(|(_, floor)| *floor)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).expect("the source tree is readable");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry is readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files_under(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file of `src` that is no test.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_under(&root().join("src"), &mut paths);
    let mut tests = BTreeSet::new();
    let mut sources = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("source is UTF-8");
        let (lines, test_modules) = without_tests(&text);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.expect("a source file has a name");
        let parent = path.parent().expect("a source file lies somewhere");
        let home = match stem.as_str() {
            "mod" | "lib" | "main" => parent.to_path_buf(),
            _ => parent.join(&stem),
        };
        for module in test_modules {
            tests.insert(home.join(format!("{module}.rs")));
            tests.insert(home.join(&module).join("mod.rs"));
        }
        let below = path.strip_prefix(root().join("src")).expect("it was found there");
        let name = below.with_extension("").to_string_lossy().replace('\\', "/");
        let name = name.strip_suffix("/mod").map(str::to_owned).unwrap_or(name);
        sources.push((path.clone(), name, lines));
    }
    let is_test = |path: &Path| {
        tests.iter().any(|test| {
            path == test || test.ends_with("mod.rs") && path.starts_with(test.with_file_name(""))
        })
    };
    sources
        .into_iter()
        .filter(|(path, _, _)| !is_test(path))
        .map(|(path, name, lines)| {
            let path = path.strip_prefix(root()).expect("it was found there").display().to_string();
            Source { name, path, lines }
        })
        .collect()
}

/// The numbered lines of code without comments and `#[cfg(test)]` items, and the names of modules
/// that are tests.
fn without_tests(text: &str) -> (Vec<(usize, String)>, Vec<String>) {
    let mut kept = Vec::new();
    let mut modules = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let code = line.trim_start();
        if code.starts_with("#[cfg(test)]") {
            let indent = &line[..line.len() - code.len()];
            let end = format!("{indent}}}");
            let mut is_open = false;
            for (_, line) in lines.by_ref() {
                let code = line.trim();
                if !is_open && (code.starts_with("#[") || code.starts_with("//")) {
                    continue;
                }
                if !is_open && code.ends_with(';') {
                    let module = code.trim_end_matches(';').split_once("mod ");
                    modules.extend(module.map(|(_, name)| name.trim().to_owned()));
                    break;
                }
                let on_one_line = !is_open && code.ends_with('}');
                is_open = true;
                if line == end || on_one_line {
                    break;
                }
            }
        } else if !code.is_empty() && !code.starts_with("//") {
            kept.push((index + 1, line.to_owned()));
        }
    }
    (kept, modules)
}

/// The paths that a line names after `crate::`, as slashes: `crate::media::plan::X` is
/// `media/plan/X`. A brace list names each of its first words.
fn crate_paths(line: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, found) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + found.len()..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches(':').replace("::", "/");
        match rest[end..].strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or(list);
                for item in list.split(',') {
                    let word = item.trim().split("::").next().unwrap_or("");
                    paths.push(format!("{path}/{word}").trim_start_matches('/').to_owned());
                }
            }
            None => paths.push(path),
        }
    }
    paths
}

/// Whether a line names the crate `krate`: `use krate…` or `krate::…`, not as a part of a longer
/// path or word.
fn names_crate(line: &str, krate: &str) -> bool {
    line.match_indices(krate).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + krate.len()..]);
        let free = !before.ends_with(|c: char| c.is_alphanumeric() || "_:\".-".contains(c));
        let is_use = before.trim_start().trim_start_matches("pub ").trim_start() == "use "
            && after.starts_with(';');
        free && (after.starts_with("::") || is_use)
    })
}

/// Fails with every offence.
fn verdict(offences: &[String]) {
    let mut list = String::new();
    for offence in offences {
        let _ = writeln!(list, "  {offence}");
    }
    assert!(offences.is_empty(), "{} offences against the house:\n{list}", offences.len());
}

#[test]
fn arrows_point_down() {
    let mut offences = Vec::new();
    for source in sources() {
        let Some(own) = floor(&source.name) else {
            offences.push(format!("{}: stands on no floor: add it to FLOORS", source.path));
            continue;
        };
        for (number, line) in &source.lines {
            for path in crate_paths(line) {
                if floor(&path).is_some_and(|other| other > own) {
                    offences.push(format!(
                        "{}:{number}: floor {own} names crate::{} on a floor above it",
                        source.path,
                        path.replace('/', "::")
                    ));
                }
                for (room, hidden, but) in WALLS {
                    let sees = source.is_in(room) && is_in(&path, hidden);
                    if sees && (but.is_empty() || !is_in(&path, but)) {
                        offences.push(format!(
                            "{}:{number}: {room} does not see {hidden}",
                            source.path
                        ));
                    }
                }
            }
        }
    }
    verdict(&offences);
}

#[test]
fn each_crate_has_one_door() {
    let mut offences = Vec::new();
    for source in sources() {
        let shadows = |krate: &str| {
            let own = format!("mod {krate};");
            source.lines.iter().any(|(_, line)| line.trim_start().trim_start_matches("pub ") == own)
        };
        for (krate, doors) in DOORS {
            let is_door = |door: &&str| *door == "*" || source.is_in(door.trim_end_matches("/mod"));
            if doors.iter().any(is_door) || shadows(krate) {
                continue;
            }
            for (number, line) in source.lines.iter().filter(|(_, line)| names_crate(line, krate)) {
                offences.push(format!(
                    "{}:{number}: names {krate}, whose door is {}: {}",
                    source.path,
                    doors.join(", "),
                    line.trim()
                ));
            }
        }
    }
    verdict(&offences);
}

#[test]
fn every_dependency_stands_in_the_table_of_doors() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let section = manifest.split("[dependencies]").nth(1).expect("a package has dependencies");
    let section = section.split("\n[").next().unwrap_or(section);
    let mut offences = Vec::new();
    let mut named = BTreeSet::new();
    for line in section.lines() {
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = name.trim().replace('-', "_");
        let known = DOORS.iter().any(|(krate, _)| *krate == name);
        if !known && !line.starts_with('#') {
            offences.push(format!("Cargo.toml: {name} has no door: add it to DOORS"));
        }
        named.insert(name);
    }
    for (krate, _) in DOORS {
        if !named.contains(krate) {
            offences.push(format!("tests/it/tidy.rs: {krate} has a door and is no dependency"));
        }
    }
    verdict(&offences);
}

#[test]
fn the_lower_floors_are_pure() {
    let mut offences = Vec::new();
    for source in sources() {
        if floor(&source.name).is_none_or(|floor| floor > PURE_MAX) {
            continue;
        }
        for (number, line) in &source.lines {
            for (word, why) in IMPURE.iter().filter(|(word, _)| line.contains(word)) {
                offences.push(format!("{}:{number}: says {word}: {why}", source.path));
            }
            let louder = ["debug!", "info!", "warn!", "error!"];
            let logs = louder.iter().any(|word| line.contains(&format!("tracing::{word}")));
            if source.is_in("media") && logs {
                offences.push(format!("{}:{number}: logs in the packet path", source.path));
            }
        }
    }
    verdict(&offences);
}

#[test]
fn unsafe_stands_in_one_file() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.name != UNSAFE) {
        for (number, line) in &source.lines {
            if line.contains("unsafe ") || line.contains("unsafe_code") {
                offences.push(format!("{}:{number}: unsafe: {}", source.path, line.trim()));
            }
        }
    }
    verdict(&offences);
}

#[test]
fn no_code_says_what_none_should() {
    let mut offences = Vec::new();
    for source in sources() {
        for (number, line) in &source.lines {
            for (word, why) in NEVER.iter().filter(|(word, _)| line.contains(word)) {
                offences.push(format!("{}:{number}: says {word}: {why}", source.path));
            }
        }
    }
    verdict(&offences);
}

/// A path in the code is one of an installed system, never one of the machine that it was written
/// on: first words that are directories of this machine, and of no system in general, are told.
#[test]
fn no_path_of_a_workshop_is_named() {
    const SYSTEM: [&str; 10] =
        ["bin", "boot", "dev", "etc", "lib", "proc", "run", "sys", "usr", "var"];
    let is_foreign = |word: &str| {
        let is_word = !word.is_empty() && word.chars().all(char::is_alphanumeric);
        is_word && !SYSTEM.contains(&word) && Path::new("/").join(word).is_dir()
    };
    let mut paths = Vec::new();
    for directory in ["src", "tests", "benches"] {
        if root().join(directory).is_dir() {
            files_under(&root().join(directory), &mut paths);
        }
    }
    let mut offences = Vec::new();
    for path in paths.iter().filter(|path| !path.ends_with("tidy.rs")) {
        let text = std::fs::read_to_string(path).expect("source is UTF-8");
        for (index, line) in text.lines().enumerate() {
            let starts = ['"', ' ', '`', '='];
            let first_words = line.match_indices('/').filter_map(|(at, _)| {
                let (first, _) = line[at + 1..].split_once('/')?;
                line[..at].ends_with(starts).then_some(first)
            });
            for word in first_words {
                if is_foreign(word) {
                    let place = path.strip_prefix(root()).unwrap_or(path).display();
                    offences.push(format!("{place}:{}: names a path in /{word}", index + 1));
                }
            }
        }
    }
    verdict(&offences);
}

#[test]
fn files_are_small() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.lines.len();
        if lines > LINES_MAX {
            offences.push(format!("{}: {lines} lines: split it by noun", source.path));
        } else if lines > LINES_WORRY {
            eprintln!("{}: {lines} lines of code: worry at {LINES_WORRY}", source.path);
        }
    }
    verdict(&offences);
}

mod rules {
    //! The rules themselves, on text that breaks them.

    use super::*;

    #[test]
    fn tests_and_comments_are_cut_out() {
        let text = "use a;\n// b\nfn c() {}\n#[cfg(test)]\nmod tests {\n    y { z }\n    x.unwrap()\n}\nfn d() {}\n\
                    #[cfg(test)]\nmod far;\n#[cfg(test)]\npub(crate) mod near;\nfn e() {}\n";
        let (lines, modules) = without_tests(text);
        let kept: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(kept, ["use a;", "fn c() {}", "fn d() {}", "fn e() {}"]);
        assert_eq!(lines.last().map(|(number, _)| *number), Some(14));
        assert_eq!(modules, ["far", "near"]);
    }

    #[test]
    fn paths_and_floors_are_read() {
        let named = crate_paths("use crate::media::plan::{LegPlan, Direction};");
        assert_eq!(named, ["media/plan/LegPlan", "media/plan/Direction"]);
        assert_eq!(crate_paths("use crate::{account, shell::tls};"), ["account", "shell"]);
        assert_eq!(crate_paths("let x = crate::call::Call::new();"), ["call/Call/new"]);
        assert_eq!(
            (floor("sip/msg/uri"), floor("sip/ua"), floor("call")),
            (Some(1), Some(2), Some(4))
        );
        assert_eq!((floor("callers"), floor("shell/admin/api")), (None, Some(5)));
    }

    #[test]
    fn a_crate_is_told_from_a_word() {
        for line in ["use opus::Encoder;", "    let x = opus::x();", "use opus;", "&opus::Y"] {
            assert!(names_crate(line, "opus"), "{line}");
        }
        for line in ["use super::opus::X;", "mod opus;", "self.opus", "\"opus::\"", "my_opus::x"] {
            assert!(!names_crate(line, "opus"), "{line}");
        }
    }
}
