//! What an operator touches: the unit file's exposure, and the commands of the built program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The built program with these arguments.
fn voxedge(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_voxedge");
    Command::new(program).args(arguments).current_dir(root()).output().expect("it was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of its own for one test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("voxedge-ops-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Place(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("our own directory");
        path.display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The unit scores at most 1.5 of 10. Required where `CI` is set; elsewhere it needs systemd.
#[test]
fn the_unit_exposes_little() {
    let unit = root().join("systemd/voxedge.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=15", "--no-pager"]).arg(&unit);
    match command.output() {
        Ok(output) => assert!(
            output.status.success(),
            "the unit is more exposed than 1.5:\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        ),
        Err(error) if std::env::var_os("CI").is_some() => panic!("systemd-analyze: {error}"),
        Err(error) => eprintln!("skipped: systemd-analyze: {error}"),
    }
}

#[test]
fn the_unit_says_what_the_daemon_needs() {
    let unit =
        std::fs::read_to_string(root().join("systemd/voxedge.service")).expect("it is there");
    let example = std::fs::read_to_string(root().join("config/voxedge.toml")).expect("it is there");
    for line in ["Type=notify", "WatchdogSec=20", "LimitCORE=0", "StateDirectory=voxedge"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    for name in ["ultravox_api_key", "admin_api_key"] {
        assert!(unit.contains(&format!("LoadCredential={name}:")), "{name}");
        assert!(example.contains(&format!("credentials/voxedge.service/{name}\"")), "{name}");
    }
}

#[test]
fn check_tells_every_problem_and_its_exit_code() {
    let place = Place::new("check");
    let good = voxedge(&["check", "--config", "config/demo.toml"]);
    assert_eq!(text(&good.stdout), "config/demo.toml: good, 0 warnings\n");
    assert!(good.status.success());
    let bad = place.write("bad.toml", "[listen]\nudp = [\"here\"]\n[ultravox]\nbase_url = 7\n");
    let bad = voxedge(&["check", "--config", &bad]);
    let told = text(&bad.stdout);
    assert_eq!(bad.status.code(), Some(1), "{told}");
    assert!(told.contains("bad.toml:2: error: listen.udp: \"here\" is not address:port"), "{told}");
    assert!(told.contains("bad.toml:4: error: ultravox.base_url: must be text"), "{told}");
    let none = voxedge(&["check", "--config", "no-such-file.toml"]);
    assert!(text(&none.stdout).contains("there is no such file"));
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(voxedge(&["dance"]).status.code(), Some(2));
}

/// Such a daemon would be ready, and refuse every call for want of a port.
#[test]
fn a_media_address_of_another_machine_keeps_the_daemon_from_starting() {
    let place = Place::new("media-address");
    let config = place.write(
        "voxedge.toml",
        "[listen]\nudp = [\"127.0.0.1:5069\"]\n[ultravox]\nbase_url = \"embedded\"\n[media]\n\
         address = \"203.0.113.1\"\n[admin]\nlisten = \"127.0.0.1:0\"\napi_key = \"k\"\n\
         [sip]\nallow_all_agents = true\nallowed_cidr_ranges = [\"127.0.0.0/8\"]\n\
         [store]\npath = \"calls.sqlite\"\n",
    );
    let told = text(&voxedge(&["check", "--bind", "--config", &config]).stdout);
    assert!(
        told.contains("media.address: 203.0.113.1:0/udp is no address of this machine"),
        "{told}"
    );
    let run = voxedge(&["run", "--config", &config]);
    assert_eq!(run.status.code(), Some(1));
    let told = text(&run.stderr);
    assert!(told.contains("media cannot be bound to 203.0.113.1: no interface"), "{told}");
}

#[test]
fn calls_reads_the_store_when_no_daemon_runs() {
    use voxedge::billing::{CallDirection, Cdr, Source};
    use voxedge::ground::{CallKey, Transport, WallTime};
    use voxedge::shell::store::Store;
    let place = Place::new("calls");
    let config = place.write(
        "voxedge.toml",
        "[listen]\nudp = [\"127.0.0.1:5060\"]\n[ultravox]\nbase_url = \"embedded\"\n\
         [store]\npath = \"calls.sqlite\"\n",
    );
    let before = voxedge(&["calls", "--config", &config]);
    assert_eq!(before.status.code(), Some(1));
    assert!(text(&before.stderr).contains("no call was recorded yet"), "{before:?}");

    let path = Path::new(&config).with_file_name("calls.sqlite");
    let (store, thread) = Store::open(&path).expect("a new store");
    let source = Source { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
    let opened = WallTime::from_unix_micros(1_790_000_000_000_000);
    let key = CallKey(0x6ab1_3b80 << 32 | 1);
    let mut record = Cdr::opened(key, CallDirection::Incoming, source, "c".into(), opened);
    record.from_uri = "sip:+15550001234@pbx.example".into();
    store.write(record);
    thread.stop();
    let table = text(&voxedge(&["calls", "--config", &config]).stdout);
    assert!(table.contains("6ab13b80-1") && table.contains("+********234"), "{table}");
    assert!(!table.contains("5550001234"), "numbers are masked");
    let json = voxedge(&["calls", "--config", &config, "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
    assert_eq!(json[0]["from_uri"], "sip:+15550001234@pbx.example");
}

/// The records of a process that is killed without warning are there afterwards. The process is this
/// test program, started again to play the part.
#[test]
fn records_survive_kill_9() {
    use std::io::BufRead;
    use voxedge::billing::EndedBy;
    use voxedge::shell::store::{Filter, Reader, Store};
    let place = Place::new("kill");
    let path = place.0.join("calls.sqlite");
    let mut victim = Command::new(std::env::current_exe().expect("we run"))
        .args(["--exact", "ops::the_part_of_the_victim", "--nocapture", "--test-threads=1"])
        .env("VOXEDGE_TEST_VICTIM", &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("we can be started again");
    let said = std::io::BufReader::new(victim.stdout.take().expect("it is piped"));
    let flushed = said.lines().any(|line| line.is_ok_and(|line| line.ends_with("flushed")));
    victim.kill().expect("it waits to be killed");
    victim.wait().expect("it was ours");
    assert!(flushed, "the victim wrote its records first");
    let (store, thread) = Store::open(&path).expect("the log is replayed");
    let records = Reader::open(&path).and_then(|reader| reader.list(&Filter::default(), 1_000));
    let records = records.expect("it reads");
    assert_eq!(records.len(), 300, "what was flushed is there");
    assert!(records.iter().all(|record| record.ended_by == Some(EndedBy::NodeLost)));
    drop(store);
    thread.stop();
}

/// Plays its part only when started by the test above.
#[test]
fn the_part_of_the_victim() {
    use voxedge::billing::{CallDirection, Cdr, Source};
    use voxedge::ground::{CallKey, Transport, WallTime};
    use voxedge::shell::store::Store;
    let Some(path) = std::env::var_os("VOXEDGE_TEST_VICTIM") else { return };
    let (store, _thread) = Store::open(Path::new(&path)).expect("a new store");
    let source = Source { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
    for number in 1..=300 {
        let opened = WallTime::from_unix_micros(1_790_000_000_000_000);
        let key = CallKey(number);
        store.write(Cdr::opened(key, CallDirection::Incoming, source, "c".into(), opened));
    }
    assert!(store.flush());
    println!("\nflushed");
    loop {
        std::thread::park();
    }
}
