//! Starts daemon and far end, lets the caller do its task, judges whether the run is valid, and
//! prints the table. An invalid run has no figures, only its reason.

use crate::caller::{Caller, FIRST_CALLS, Moment, Seen, Task};
use crate::measure::{cpu_ns, machine, rss_kib, softirq_ns};
use crate::stamp::Sorted;
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that the daemon may take to be ready.
const READY: Duration = Duration::from_secs(20);
/// Goals at 300 calls with the burst far end.
const GOALS: &str = "≤ 830     ≤ 24.0              ≤ 1.00               ≤ 2.00";

/// What the arguments ask for.
#[derive(Clone, Debug)]
pub struct Order {
    calls: Vec<usize>,
    seconds: u64,
    warm: u64,
    runs: usize,
    rate: usize,
    modes: Vec<&'static str>,
}

impl Order {
    /// `None` when help is asked for.
    ///
    /// # Errors
    /// Words on the argument that cannot be meant.
    pub fn parse(arguments: &[String]) -> Result<Option<Order>, String> {
        let mut order = Order {
            calls: vec![10, 100, 300],
            seconds: 5,
            warm: 4,
            runs: 1,
            rate: 50,
            modes: vec!["burst", "eager"],
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            if matches!(word.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            let value = words.next().ok_or_else(|| format!("{word}: a value is missing"))?;
            let number = |least: u64| match value.parse::<u64>() {
                Ok(number) if number >= least => Ok(number),
                _ => Err(format!("{word}: {value} is no number of at least {least}")),
            };
            match word.as_str() {
                "--calls" => {
                    let calls: Result<Vec<usize>, _> = value.split(',').map(str::parse).collect();
                    order.calls = calls
                        .ok()
                        .filter(|all| all.iter().all(|n| (1..=3_000).contains(n)))
                        .ok_or_else(|| format!("{word}: {value} is no list of 1 to 3000"))?;
                }
                "--seconds" => order.seconds = number(1)?,
                "--warm" => order.warm = number(4)?,
                "--runs" => order.runs = number(1)? as usize,
                "--rate" => order.rate = number(1)? as usize,
                "--far-end" => {
                    order.modes = match value.as_str() {
                        "burst" => vec!["burst"],
                        "eager" => vec!["eager"],
                        "both" => vec!["burst", "eager"],
                        _ => return Err(format!("{word}: burst, eager or both")),
                    }
                }
                _ => return Err(format!("{word} is not known")),
            }
        }
        Ok(Some(order))
    }
}

/// Figures of a valid run.
struct Figures {
    /// µs of the daemon's CPU time for each second of a call.
    cpu_us: f64,
    /// KiB of resident memory for each call beyond the first ten.
    rss_kib: f64,
    uplink: [f64; 3],
    pacing: [f64; 2],
    round_trip: f64,
    setup: [f64; 2],
    skipped: u64,
    silent: u64,
    loss_percent: f64,
    lateness: f64,
    caller_percent: f64,
    far_end_percent: f64,
}

/// Does all runs and prints them.
///
/// # Errors
/// A process does not start or breaks.
pub fn run(order: &Order) -> io::Result<()> {
    println!("{}", machine());
    println!(
        "PCMU by RTP/UDP ↔ s16le 8 kHz by WebSocket over TLS 1.3, 20 ms; daemon, far end and caller \
         on this machine, over loopback;\n{} s after {} s of warm-up; CPU in µs per call-second, \
         RSS in KiB per call, times in ms\n",
        order.seconds, order.warm
    );
    println!(
        "far end calls run   CPU       RSS   uplink p50 / p99 / p99.9   pacing p99 / p99.9   \
         setup p50 / p99   echo p50  late  silent  loss %  load of caller, far end"
    );
    println!("goal      300       {GOALS}");
    for mode in &order.modes {
        for calls in &order.calls {
            let mut least: Option<f64> = None;
            for number in 1..=order.runs {
                let start = format!("{mode:<7} {calls:>5} {number:>3}");
                match one(order, *calls, mode)? {
                    Ok(figures) => {
                        least = Some(least.map_or(figures.cpu_us, |us| us.min(figures.cpu_us)));
                        println!("{start}   {}", row(&figures));
                    }
                    Err(reason) => println!("{start}   not measured: {reason}"),
                }
            }
            if let Some(us) = least.filter(|_| order.runs > 1) {
                println!("{mode:<7} {calls:>5} min   {us:<5.0} = {:.0} calls a core", 1e6 / us);
            }
        }
    }
    Ok(())
}

fn row(f: &Figures) -> String {
    let [p50, p99, p999] = f.uplink;
    let ([near, far], [soon, late]) = (f.pacing, f.setup);
    let uplink = format!("{p50:.2} / {p99:.2} / {p999:.2}");
    let pacing = format!("{near:.2} / {far:.2}");
    let setup = format!("{soon:.1} / {late:.1}");
    format!(
        "{:<7.0} {:>5.1}   {uplink:<24}   {pacing:<18}   {setup:<15}   {:<8.1}  {:<4}  {:<6}  \
         {:<6.3}  {:.0} %, {:.0} % (caller late p99 {:.2})",
        f.cpu_us,
        f.rss_kib,
        f.round_trip,
        f.skipped,
        f.silent,
        f.loss_percent,
        f.caller_percent,
        f.far_end_percent,
        f.lateness,
    )
}

/// What is read at the ends of the window.
#[derive(Clone, Copy, Default)]
struct Reading {
    daemon: u64,
    far_end: u64,
    caller: u64,
    softirq: u64,
    at: Option<Instant>,
}

/// One run with processes of its own; the inner error is why it is not valid.
fn one(order: &Order, calls: usize, mode: &str) -> io::Result<Result<Figures, String>> {
    let mut far_end = FarEnd::start(mode)?;
    let daemon = Daemon::start(&far_end)?;
    let task = Task {
        server: daemon.sip,
        calls,
        rate: order.rate,
        warm_ms: order.warm * 1_000,
        window_ms: order.seconds * 1_000,
    };
    let caller = Caller::new(task)?;
    let own = std::process::id();
    let (daemon_pid, far_end_pid) = (daemon.child.id(), far_end.child.id());
    let idle = rss_kib(daemon_pid)?;
    let read = || Reading {
        daemon: cpu_ns(daemon_pid).unwrap_or(0),
        far_end: cpu_ns(far_end_pid).unwrap_or(0),
        caller: cpu_ns(own).unwrap_or(0),
        softirq: softirq_ns(),
        at: Some(Instant::now()),
    };
    let (mut begin, mut end) = (Reading::default(), Reading::default());
    let (mut base, mut full) = (0, 0);
    let seen = caller.run(|moment| match moment {
        Moment::Base => base = rss_kib(daemon_pid).unwrap_or(0),
        Moment::Begin => {
            far_end.say("mark");
            begin = read();
        }
        Moment::End => {
            end = read();
            far_end.say("report");
            full = rss_kib(daemon_pid).unwrap_or(0);
        }
    })?;
    let Some(seconds) = end.at.zip(begin.at).map(|(end, begin)| (end - begin).as_secs_f64()) else {
        return Ok(Err("the window never began".into()));
    };
    let heard = far_end.report()?;
    let share = |to: u64, from: u64| to.saturating_sub(from) as f64 / 1e7 / seconds;
    let (first, kib) = match calls > FIRST_CALLS {
        true => (FIRST_CALLS, full as f64 - base as f64),
        false => (0, full as f64 - idle as f64),
    };
    let count = |name: &str| heard.get(name).and_then(Value::as_u64).unwrap_or(0);
    let ms = |name: &str| heard.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let (up_lost, down_lost) = (count("lost"), seen.lost);
    let sums = (count("frames") + up_lost, seen.received + down_lost);
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let loss = percent(up_lost, sums.0).max(percent(down_lost, sums.1));
    let daemon_ns = end.daemon.saturating_sub(begin.daemon);
    let setup = Sorted::new(seen.setups.clone());
    let gaps = Sorted::new(seen.gap_errors.clone());
    let figures = Figures {
        cpu_us: daemon_ns as f64 / 1e3 / seconds / calls as f64,
        rss_kib: kib / (calls - first) as f64,
        uplink: [ms("p50_ms"), ms("p99_ms"), ms("p999_ms")],
        pacing: [gaps.ms(0.99), gaps.ms(0.999)],
        round_trip: Sorted::new(seen.round_trips.clone()).ms(0.5),
        setup: [setup.ms(0.5), setup.ms(0.99)],
        skipped: seen.skipped,
        silent: seen.silent,
        loss_percent: loss,
        lateness: Sorted::new(seen.lateness.clone()).ms(0.99),
        caller_percent: share(end.caller, begin.caller),
        far_end_percent: share(end.far_end, begin.far_end),
    };
    let spilled = percent(end.softirq.saturating_sub(begin.softirq), daemon_ns);
    let strays = (count("unstamped"), spilled);
    let fault = fault(&figures, &seen, calls, count("streams") as usize, strays);
    Ok(fault.map_or(Ok(figures), |reason| Err(format!("{reason}{}", daemon.last_words()))))
}

/// Why a run is not valid.
fn fault(
    figures: &Figures,
    seen: &Seen,
    calls: usize,
    streams: usize,
    (unstamped, spilled): (u64, f64),
) -> Option<String> {
    let faults = [
        (seen.up != calls || streams != calls, {
            let words = seen.fault.as_deref().unwrap_or("no call failed");
            format!("{} calls and {streams} streams of {calls} were up ({words})", seen.up)
        }),
        (figures.loss_percent >= 0.1, format!("loss of {:.2} %", figures.loss_percent)),
        (figures.lateness >= 5.0, format!("the caller was late: p99 {:.1} ms", figures.lateness)),
        (
            figures.caller_percent >= 90.0 || figures.far_end_percent >= 90.0,
            format!(
                "caller at {:.0} %, far end at {:.0} % of a core",
                figures.caller_percent, figures.far_end_percent
            ),
        ),
        (seen.corrupt > 0, format!("{} frames came back changed", seen.corrupt)),
        (
            unstamped as f64 > seen.sent as f64 / 1e3,
            format!("the agent heard {unstamped} frames that nobody spoke"),
        ),
        (
            seen.silent as f64 > seen.received as f64 / 1e2,
            format!("{} of {} packets were silence", seen.silent, seen.received),
        ),
        (spilled > 5.0, format!("ksoftirqd took {spilled:.0} % of what the daemon did")),
    ];
    let found: Vec<String> =
        faults.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// The far end's process.
struct FarEnd {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
    certificate: String,
}

impl FarEnd {
    fn start(mode: &str) -> io::Result<FarEnd> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["far-end", mode])
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

    fn say(&mut self, word: &str) {
        if let Some(input) = &mut self.child.stdin {
            // One that is gone is seen when its report is missing.
            let _ = writeln!(input, "{word}");
        }
    }

    fn report(&mut self) -> io::Result<Value> {
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
struct Daemon {
    child: Child,
    directory: PathBuf,
    sip: SocketAddr,
}

impl Daemon {
    fn start(far_end: &FarEnd) -> io::Result<Daemon> {
        let directory = std::env::temp_dir().join(format!("voxedge-load-{}", far_end.port));
        fs::create_dir_all(&directory)?;
        let sip = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let root = directory.join("far-end.pem");
        fs::write(&root, &far_end.certificate)?;
        let config = directory.join("load.toml");
        fs::write(&config, configuration(sip, admin, far_end.port, &directory))?;
        let log = fs::File::create(directory.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_voxedge"))
            .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
            .env("SSL_CERT_FILE", &root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut daemon = Daemon { child, directory, sip };
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
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        let line = log
            .lines()
            .rev()
            .find(bad)
            .or(log.lines().last().filter(|_| !log.contains("listening")));
        line.map_or(String::new(), |line| format!("; the daemon said: {line}"))
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

fn configuration(sip: SocketAddr, admin: SocketAddr, far_end: u16, directory: &Path) -> String {
    let store = directory.join("calls.sqlite");
    format!(
        "[listen]\nudp = [\"{sip}\"]\nadvertise = \"127.0.0.1\"\n\
         [media]\naddress = \"127.0.0.1\"\nports = \"10000-29999\"\n\
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
