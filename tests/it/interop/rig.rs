//! A daemon for one test: the built program with the embedded stand-in, on free ports, with a
//! folder, a certificate and a store of its own; and its records as they come to be written.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use voxedge::billing::Cdr;
use voxedge::shell::store::{Filter, Reader};

/// What anything here may take, on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often a file is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(20);
/// Starts again with other ports: another process may have taken ours meanwhile.
const STARTS_MAX: usize = 5;

/// True when the program is there; its absence is a failure where `CI` is true.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let required = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !required, "CI needs {program}: install it as `make test` does");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A new folder with a name of its own, removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("voxedge-interop-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("our own folder");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind lies in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that was free for TCP and UDP a moment ago.
pub fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = tcp.local_addr().expect("it is bound").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// How a daemon is to be started.
pub struct Start<'a> {
    /// Shortens the timers of RFC 3261.
    pub t1_ms: Option<u32>,
    /// Where its agents are.
    pub base_url: &'a str,
    /// The root certificate of theirs.
    pub root: Option<&'a str>,
    /// More sections of its configuration.
    pub more: &'a str,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Start { t1_ms: None, base_url: "embedded", root: None, more: "" }
    }
}

/// A running daemon, killed when dropped.
pub struct Edge {
    child: Child,
    folder: Folder,
    /// UDP and TCP.
    pub port: u16,
    pub tls_port: u16,
    /// Address and port of the admin listener.
    pub admin: String,
}

impl Edge {
    /// Starts it with the stand-in inside; `t1_ms` shortens the timers of RFC 3261.
    pub fn start(t1_ms: Option<u32>) -> Edge {
        Edge::start_so(&Start { t1_ms, ..Start::default() })
    }

    /// Starts it with the agents of `base_url`.
    pub fn start_with(t1_ms: Option<u32>, base_url: &str) -> Edge {
        Edge::start_so(&Start { t1_ms, base_url, ..Start::default() })
    }

    /// Starts it so that this port of this machine may be called.
    pub fn start_dialling(callee: u16) -> Edge {
        let more = format!("[outgoing]\nallowed_hosts = [\"127.0.0.1:{callee}\"]\n");
        Edge::start_so(&Start { more: &more, ..Start::default() })
    }

    /// Starts it with further sections in its configuration.
    pub fn start_configured(t1_ms: Option<u32>, base_url: &str, more: &str) -> Edge {
        Edge::start_so(&Start { t1_ms, base_url, more, root: None })
    }

    pub fn start_so(start: &Start<'_>) -> Edge {
        for _ in 0..STARTS_MAX {
            if let Some(edge) = Edge::try_start(start) {
                return edge;
            }
        }
        panic!("the daemon did not start on {STARTS_MAX} sets of ports");
    }

    fn try_start(start: &Start<'_>) -> Option<Edge> {
        let folder = Folder::new();
        let (certificate, key) =
            voxedge::shell::tls::self_signed(&["localhost", "127.0.0.1"]).expect("a certificate");
        folder.write("edge.crt", certificate);
        folder.write("edge.key", key);
        let (port, tls_port) = (free_port(), free_port());
        let config = config(port, tls_port, start.base_url) + start.more;
        let config = folder.write("edge.toml", config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxedge"));
        command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(t1_ms) = start.t1_ms {
            command.env("VOXEDGE_TEST_T1_MS", t1_ms.to_string());
        }
        if let Some(root) = start.root {
            command.env("SSL_CERT_FILE", folder.write("root.pem", root));
        }
        let mut child = command.spawn().expect("it was built");
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        let mut edge = Edge { child, folder, port, tls_port, admin: String::new() };
        // An end of the log is an end of the process: a port was taken.
        while said.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if let Some((_, admin)) = line.split_once("admin on http://") {
                edge.admin = admin.trim().to_owned();
                // The log must be read to its end, else the daemon would block on a full pipe.
                std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
                return Some(edge);
            }
        }
        eprintln!("the daemon did not start: {line}");
        None
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.0.join("edge.crt")
    }

    /// The records once `wanted` holds; the newest first.
    pub fn records_when(&self, wanted: impl Fn(&[Cdr]) -> bool) -> Vec<Cdr> {
        let end = Instant::now() + DEADLINE;
        loop {
            let reader = Reader::open(&self.folder.0.join("calls.sqlite"));
            let list = reader.and_then(|reader| reader.list(&Filter::default(), 1_000));
            let list = list.expect("the store is readable");
            if wanted(&list) {
                return list;
            }
            assert!(Instant::now() < end, "the records never came to be as wanted: {list:#?}");
            std::thread::sleep(LOOK);
        }
    }

    /// The records once there are `count` and all are closed; the newest first.
    pub fn closed(&self, count: usize) -> Vec<Cdr> {
        self.records_when(|list| list.len() == count && list.iter().all(Cdr::is_closed))
    }

    /// The only record once it is closed and holds the figures of its media, which come last.
    pub fn measured(&self) -> Vec<Cdr> {
        self.records_when(|list| {
            list.len() == 1 && list.iter().all(|cdr| cdr.is_closed() && cdr.media.is_some())
        })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(port: u16, tls_port: u16, base_url: &str) -> String {
    let agents = [("echo", "e0"), ("silent", "c0"), ("farewell", "d0")];
    let rules = agents.map(|(name, id)| {
        format!(
            "[[sip.allowed_agents]]\nagent_id = \"00000000-0000-4000-8000-0000000000{id}\"\n\
             to_user_pattern = \"^{name}$\"\n"
        )
    });
    // A range of its own for each test would leave too few; ports are drawn at random in this one.
    format!(
        "[listen]\nudp = [\"127.0.0.1:{port}\"]\ntcp = [\"127.0.0.1:{port}\"]\n\
         tls = [\"127.0.0.1:{tls_port}\"]\nadvertise = \"127.0.0.1\"\n\
         [tls]\ncertificate = \"edge.crt\"\nprivate_key = \"edge.key\"\n\
         [media]\naddress = \"127.0.0.1\"\nports = \"12000-31999\"\nshards = 1\n\
         [ultravox]\nbase_url = \"{base_url}\"\napi_key = \"interop\"\n\
         join_domains = [\"127.0.0.1\"]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = \"calls.sqlite\"\n\
         [sip]\ndomain = \"127.0.0.1\"\nallowed_cidr_ranges = [\"127.0.0.0/8\"]\n\
         allow_all_agents = true\n{}",
        rules.concat()
    )
}
