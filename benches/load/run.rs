//! Starts daemon and far end, lets the caller do its task, judges whether the run is valid, and
//! prints the table. An invalid run has no figures, only its reason.

use crate::caller::{Caller, FIRST_CALLS, Moment, Seen, Task};
use crate::measure::{cpu_ns, machine, rss_kib, softirq_ns};
use crate::order::Order;
use crate::processes::{Daemon, FarEnd, Metrics, Setting};
use crate::stamp::Sorted;
use crate::voice::{LIKENESS_MIN, Loudness, Voice, Words};
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

/// How long records of the last calls may take to be counted.
const COUNTED: Duration = Duration::from_secs(3);
/// Audio is made longer or shorter by at least so many seconds at a time, and so many pieces of the echo
/// are another then: what it is joined from, and what lies before and behind.
const STRETCH_MIN: f64 = 0.0025;
const PIECES_PER_STRETCH: f64 = 4.0;
/// Goals at 300 calls of PCMU with the burst far end.
const GOALS: &str = "≤ 830     ≤ 24.0              ≤ 1.00               ≤ 2.00";

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
    changed: u64,
    loss_percent: f64,
    lateness: f64,
    caller_percent: f64,
    far_end_percent: f64,
    /// Of what the agent and the caller heard to what was said, the least of the judged calls.
    likeness: Option<[f64; 2]>,
}

/// Does all runs and prints them.
///
/// # Errors
/// A process does not start or breaks.
pub fn run(order: &Order) -> io::Result<()> {
    println!("{}", machine());
    println!(
        "RTP/UDP ↔ s16le by WebSocket over TLS 1.3, 20 ms; daemon, far end and caller on this machine, \
         over loopback;\n{} s after {} s of warm-up; CPU in µs per call-second, RSS in KiB per call, \
         times in ms",
        order.seconds, order.warm
    );
    for (voice, silence_percent) in &order.voices {
        if !voice.kind.is_available() {
            println!("\n{}: left out, its libraries are missing", voice.words());
            continue;
        }
        print_head(*voice, *silence_percent);
        for mode in order.modes_of(*voice) {
            for calls in order.calls_of(*voice) {
                let setting = Setting {
                    voice: *voice,
                    mode,
                    silence_percent: *silence_percent,
                    daemon: None,
                    shards: order.shards,
                };
                repeat(order, calls, setting)?;
            }
        }
    }
    Ok(())
}

fn print_head(voice: Voice, silence_percent: u64) {
    let silent = match silence_percent {
        0 => String::new(),
        percent => format!(", agent silent {percent} % of the time"),
    };
    println!("\n{}{silent}", voice.words());
    println!(
        "far end calls run   CPU       RSS   uplink p50 / p99 / p99.9   pacing p99 / p99.9   \
         setup p50 / p99   echo p50  late  silent  loss %  load of caller, far end"
    );
    let goal = voice.goals[usize::from(silence_percent >= 50)];
    match goal.filter(|_| !voice.is_exact()) {
        Some(goal) => {
            println!("goal            ≤ {:<7.0} = {goal} calls a core", 1e6 / f64::from(goal))
        }
        None if voice.is_exact() => println!("goal      300       {GOALS}"),
        None => {}
    }
}

/// All runs of one row, the builds of the daemon in turn.
fn repeat(order: &Order, calls: usize, mut setting: Setting) -> io::Result<()> {
    let mode = setting.mode;
    let mut least: Vec<Option<f64>> = vec![None; order.daemons.len()];
    for number in 1..=order.runs {
        for (place, daemon) in order.daemons.iter().enumerate() {
            setting.daemon.clone_from(daemon);
            let build = if order.daemons.len() > 1 { LETTERS[place % LETTERS.len()] } else { " " };
            let start = format!("{mode:<7} {calls:>5} {number:>3}{build}");
            match one(order, calls, &setting)? {
                Ok(figures) => {
                    let before = least[place].unwrap_or(f64::INFINITY);
                    least[place] = Some(before.min(figures.cpu_us));
                    println!("{start}  {}", row(&figures));
                }
                Err(reason) => println!("{start}  not measured: {reason}"),
            }
        }
    }
    for (place, us) in least.into_iter().enumerate() {
        let Some(us) = us else { continue };
        let build = if order.daemons.len() > 1 { LETTERS[place % LETTERS.len()] } else { " " };
        println!("{mode:<7} {calls:>5} min{build}  {us:<5.0} = {:.0} calls a core", 1e6 / us);
    }
    Ok(())
}

/// Names of the builds.
const LETTERS: [&str; 4] = ["a", "b", "c", "d"];

fn row(f: &Figures) -> String {
    let [p50, p99, p999] = f.uplink;
    let ([near, far], [soon, late]) = (f.pacing, f.setup);
    let uplink = match p50.is_nan() {
        true => String::from("–"),
        false => format!("{p50:.2} / {p99:.2} / {p999:.2}"),
    };
    let echo = if f.round_trip.is_nan() { "–".into() } else { format!("{:.1}", f.round_trip) };
    let pacing = format!("{near:.2} / {far:.2}");
    let setup = format!("{soon:.1} / {late:.1}");
    let likeness = match f.likeness {
        None => String::new(),
        Some([agent, caller]) => format!(", likeness {agent:.2} {caller:.2}"),
    };
    let changed = match f.changed {
        0 => String::new(),
        count => format!(", {count} frames made longer or shorter"),
    };
    format!(
        "{:<7.0} {:>5.1}   {uplink:<24}   {pacing:<18}   {setup:<15}   {echo:<8}  {:<4}  {:<6}  \
         {:<6.3}  {:.0} %, {:.0} % (caller late p99 {:.2}){likeness}{changed}",
        f.cpu_us,
        f.rss_kib,
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
fn one(order: &Order, calls: usize, setting: &Setting) -> io::Result<Result<Figures, String>> {
    let voice = setting.voice;
    let mut far_end = FarEnd::start(setting)?;
    let daemon = Daemon::start(&far_end, setting)?;
    let task = Task {
        server: daemon.sip,
        voice,
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
    let (mut changes, mut relieved) = (0, false);
    let seen = caller.run(|moment| match moment {
        Moment::Base => base = rss_kib(daemon_pid).unwrap_or(0),
        Moment::Begin => {
            far_end.say("mark");
            changes = daemon.relief_changes();
            begin = read();
        }
        Moment::End => {
            end = read();
            far_end.say("report");
            full = rss_kib(daemon_pid).unwrap_or(0);
            let step = daemon.metrics().map_or(0.0, |metrics| metrics.sum("media_shard_relief"));
            relieved = step > 0.0 || daemon.relief_changes() > changes;
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
    let (mut up_lost, down_lost) = (count("lost"), seen.lost);
    let mut up = count("frames");
    let metrics = metrics_after(&daemon)?;
    if !voice.is_exact() {
        // Silence and concealment take the place of what is lost: the daemon's own count, of whole calls.
        up_lost =
            (metrics.sum("rtp_lost_total") + metrics.sum("uplink_dropped_frames_total")) as u64;
        up = metrics.sum("rtp_received_total") as u64;
    }
    let likeness = (!voice.is_exact()).then(|| {
        let said = Words::period(voice, setting.silence_percent);
        let whole = Loudness::of(voice.rates().output_hz, &said);
        let heard = seen.sound.iter().map(|sound| sound.likeness(&whole));
        [ms("likeness"), heard.fold(1.0, f64::min)]
    });
    let sums = (up + up_lost, seen.received + down_lost);
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
        changed: seen.changed,
        loss_percent: loss,
        lateness: Sorted::new(seen.lateness.clone()).ms(0.99),
        caller_percent: share(end.caller, begin.caller),
        far_end_percent: share(end.far_end, begin.far_end),
        likeness,
    };
    let spilled = percent(end.softirq.saturating_sub(begin.softirq), daemon_ns);
    let stretched = metrics.sum("agent_lengthened_seconds_total")
        + metrics.sum("agent_shortened_seconds_total");
    let strays = Strays { unstamped: count("unstamped"), spilled, stretched };
    let fault = match relieved {
        true => Some("the daemon relieved itself of load".into()),
        false => fault(&figures, &seen, calls, count("streams") as usize, &strays),
    };
    Ok(fault.map_or(Ok(figures), |reason| Err(format!("{reason}{}", daemon.last_words()))))
}

/// The metrics when all calls are closed.
fn metrics_after(daemon: &Daemon) -> io::Result<Metrics> {
    let deadline = Instant::now() + COUNTED;
    loop {
        let metrics = daemon.metrics()?;
        if metrics.sum("media_sessions") == 0.0 || Instant::now() > deadline {
            return Ok(metrics);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What may be no more than a little.
struct Strays {
    /// Frames that the agent heard and nobody spoke.
    unstamped: u64,
    /// Time of ksoftirqd, of what the daemon took, in percent.
    spilled: f64,
    /// Seconds by which the daemon says that it made audio longer or shorter.
    stretched: f64,
}

impl Strays {
    /// Pieces of the echo that this may have changed.
    fn changed_max(&self) -> f64 {
        self.stretched / STRETCH_MIN * PIECES_PER_STRETCH
    }
}

/// Why a run is not valid.
fn fault(
    figures: &Figures,
    seen: &Seen,
    calls: usize,
    streams: usize,
    strays: &Strays,
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
        (
            seen.changed as f64 > strays.changed_max(),
            format!(
                "{} frames came back changed, and the daemon stretched only {:.3} s",
                seen.changed, strays.stretched
            ),
        ),
        (
            strays.unstamped as f64 > seen.sent as f64 / 1e3,
            format!("the agent heard {} frames that nobody spoke", strays.unstamped),
        ),
        (
            (seen.silent + seen.changed) as f64 > seen.received as f64 / 1e2,
            format!(
                "{} of {} frames were silence and {} changed",
                seen.silent, seen.received, seen.changed
            ),
        ),
        (
            figures.likeness.is_some_and(|both| both.iter().any(|like| *like < LIKENESS_MIN)),
            format!("the sound is not what was said: likeness {:?}", figures.likeness),
        ),
        (
            strays.spilled > 5.0,
            format!("ksoftirqd took {:.0} % of what the daemon did", strays.spilled),
        ),
    ];
    let found: Vec<String> =
        faults.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect();
    (!found.is_empty()).then(|| found.join("; "))
}
