//! The two processes beside the caller: the far end, which is this program in another part, and the
//! daemon, by its command line and with a directory of its own.

use crate::voice::Voice;
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that the daemon may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// How the processes are started.
#[derive(Clone, Debug)]
pub struct Setting {
    pub voice: Voice,
    /// `burst` or `eager`.
    pub mode: &'static str,
    pub silence_percent: u64,
    /// The daemon's program; `None` for the one of this build.
    pub daemon: Option<PathBuf>,
    /// Media threads; `None` for what the daemon takes by itself.
    pub shards: Option<usize>,
}

/// The far end's process.
pub struct FarEnd {
    pub child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
    certificate: String,
}

impl FarEnd {
    pub fn start(setting: &Setting) -> io::Result<FarEnd> {
        let Setting { voice, mode, silence_percent, .. } = setting;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["far-end", mode, voice.name, &silence_percent.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let (port, certificate) = (0, String::new());
        let mut far_end = FarEnd { child, lines: BufReader::new(stdout), port, certificate };
        let told = far_end.report()?;
        far_end.port = told["port"].as_u64().and_then(|port| port.try_into().ok()).unwrap_or(0);
        far_end.certificate = told["certificate"].as_str().unwrap_or_default().to_owned();
        Ok(far_end)
    }

    pub fn say(&mut self, word: &str) {
        if let Some(input) = &mut self.child.stdin {
            // One that is gone is seen when its report is missing.
            let _ = writeln!(input, "{word}");
        }
    }

    pub fn report(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| io::Error::other("the far end ended"))
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The daemon's process, with a directory of its own.
pub struct Daemon {
    pub child: Child,
    directory: PathBuf,
    pub sip: SocketAddr,
    admin: SocketAddr,
}

impl Daemon {
    pub fn start(far_end: &FarEnd, setting: &Setting) -> io::Result<Daemon> {
        let directory = std::env::temp_dir().join(format!("voxedge-load-{}", far_end.port));
        fs::create_dir_all(&directory)?;
        let sip = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let root = directory.join("far-end.pem");
        fs::write(&root, &far_end.certificate)?;
        let config = directory.join("load.toml");
        let text = configuration(sip, admin, far_end.port, &directory, setting);
        fs::write(&config, text)?;
        let log = fs::File::create(directory.join("log"))?;
        let own = Path::new(env!("CARGO_BIN_EXE_voxedge"));
        let program = setting.daemon.as_deref().unwrap_or(own);
        let child = Command::new(program)
            .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
            .env("SSL_CERT_FILE", &root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut daemon = Daemon { child, directory, sip, admin };
        let deadline = Instant::now() + READY;
        while !is_ready(admin) {
            if daemon.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "the daemon does not start{}",
                    daemon.last_words()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// The last warning or error of the log, for the reason of a run that is not valid.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        let line = log
            .lines()
            .rev()
            .find(bad)
            .or(log.lines().last().filter(|_| !log.contains("listening")));
        line.map_or(String::new(), |line| format!("; the daemon said: {line}"))
    }

    /// How often its media threads have changed how far they relieve themselves.
    pub fn relief_changes(&self) -> usize {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("a media shard's load")).count()
    }

    /// Its metrics, in Prometheus' text form.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> io::Result<Metrics> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(
            b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: load\r\nConnection: close\r\n\r\n",
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Metrics(text))
    }
}

/// What the daemon said of itself.
pub struct Metrics(String);

impl Metrics {
    /// The sum of a metric over its labels; 0 when there is none of this name.
    pub fn sum(&self, name: &str) -> f64 {
        let value = |line: &str| {
            let rest = line.strip_prefix("voxedge_")?.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            rest.split_whitespace().last()?.parse::<f64>().ok()
        };
        self.0.lines().filter_map(value).sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It is of no more use; what it leaves goes with its directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn configuration(
    sip: SocketAddr,
    admin: SocketAddr,
    far_end: u16,
    directory: &Path,
    setting: &Setting,
) -> String {
    let shards = setting.shards.map_or(String::new(), |count| format!("shards = {count}\n"));
    let opus_hz = setting.voice.opus_output_hz;
    let store = directory.join("calls.sqlite");
    format!(
        "[listen]\nudp = [\"{sip}\"]\nadvertise = \"127.0.0.1\"\n\
         [media]\naddress = \"127.0.0.1\"\nports = \"10000-29999\"\n\
         opus_output_hz = {opus_hz}\n{shards}\
         [ultravox]\nbase_url = \"https://127.0.0.1:{far_end}\"\napi_key = \"load\"\n\
         join_domains = [\"127.0.0.1\"]\n\
         [sip]\ndomain = \"127.0.0.1\"\nallowed_cidr_ranges = [\"127.0.0.0/8\"]\n\
         allow_all_agents = true\n\
         [admin]\nlisten = \"{admin}\"\napi_key = \"load\"\n\
         [store]\npath = \"{}\"\n[limits]\ncalls_max = 4000\n",
        store.display()
    )
}

fn is_ready(admin: SocketAddr) -> bool {
    let asked = TcpStream::connect(admin).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    asked.is_ok_and(|answer| answer.ends_with(b"200"))
}
