//! The life of the process under SIGTERM, seen from outside: no call is needed for it to end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon without calls ends with 0 as soon as it is told, and not at the end of its grace.
#[test]
fn an_idle_daemon_ends_at_once() {
    let folder = std::env::temp_dir().join(format!("voxedge-drain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let free = || {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        probe.local_addr().expect("an address").port()
    };
    let (sip, admin) = (free(), free());
    let config = folder.join("drain.toml");
    let text = format!(
        "[listen]\ntcp = [\"127.0.0.1:{sip}\"]\n[media]\naddress = \"127.0.0.1\"\n\
         ports = \"20000-20999\"\n[ultravox]\nbase_url = \"embedded\"\n[sip]\ndomain = \"localhost\"\n\
         allowed_cidr_ranges = [\"127.0.0.1/32\"]\nallow_all_agents = true\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n[store]\npath = \"calls.sqlite\"\n\
         [limits]\ngrace_s = 60\n"
    );
    std::fs::write(&config, text).expect("written");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_voxedge"))
        .args(["run", "--config"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", admin)).is_err() {
        assert!(Instant::now() < deadline, "the admin listener comes up");
        std::thread::yield_now();
    }
    let told = Instant::now();
    let killed = Command::new("kill").arg(daemon.id().to_string()).status().expect("kill");
    assert!(killed.success());
    let deadline = told + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = daemon.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > deadline {
            daemon.kill().expect("killed");
            panic!("an idle daemon does not end");
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
    std::fs::remove_dir_all(&folder).expect("cleaned");
}
