//! More Opus calls than one media thread can encode at complexity 5: what the daemon does then, second
//! by second, and whether sound and pacing held. The caller is placed slowly enough for the daemon
//! to weigh its load between calls; what it refuses is counted.

use crate::caller::{Caller, Task};
use crate::measure::{cpu_ns, machine};
use crate::order::Order;
use crate::processes::{Daemon, FarEnd, Metrics, Setting};
use crate::stamp::Sorted;
use crate::voice::{LIKENESS_MIN, Loudness, Voice, Words};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Calls: at complexity 5 they would take more than a core, at 0 half of one.
const CALLS: usize = 190;
/// Set-ups in a second.
const RATE: usize = 12;
/// What the pacing error may be at most, in milliseconds.
const PACING_MS: f64 = 10.0;

/// Does the run and prints what was seen.
///
/// # Errors
/// A process does not start or breaks.
pub fn run(order: &Order) -> io::Result<()> {
    let opus = order.voices.iter().map(|(voice, _)| *voice).find(|voice| !voice.is_exact());
    let voice = opus.or(Voice::named("opus")).expect("it is in the table");
    let calls = order.calls.first().copied().unwrap_or(CALLS);
    println!("{}", machine());
    println!(
        "overload: {calls} calls at {RATE} a second, {}, on one media thread, all talk\n",
        voice.words()
    );
    let shards = Some(order.shards.unwrap_or(1));
    let daemon = order.daemons.first().cloned().flatten();
    let setting = Setting { voice, mode: "burst", silence_percent: 0, daemon, shards };
    let far_end = FarEnd::start(&setting)?;
    let daemon = Daemon::start(&far_end, &setting)?;
    let task = Task {
        server: daemon.sip,
        voice,
        calls,
        rate: RATE,
        warm_ms: order.warm * 1_000,
        window_ms: order.seconds * 1_000,
    };
    let caller = Caller::new(task)?;
    let over = AtomicBool::new(false);
    println!("second  calls  CPU of a core  busy  step  audio to the agent, Opus complexity");
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| watch(&daemon, &over));
        let seen = caller.run(|_| {});
        over.store(true, Ordering::Relaxed);
        seen
    })?;
    let gaps = Sorted::new(seen.gap_errors.clone());
    let said = Loudness::of(voice.rates().output_hz, &Words::period(voice, 0));
    let likeness = seen.sound.iter().map(|sound| sound.likeness(&said)).fold(1.0, f64::min);
    let loss = seen.lost as f64 * 100.0 / (seen.received + seen.lost).max(1) as f64;
    let late = Sorted::new(seen.lateness.clone()).ms(0.99);
    println!(
        "\n{} calls were up, {} refused ({})\npacing p50 / p99 / p99.9 {:.2} / {:.2} / {:.2} ms, loss \
         {loss:.3} %, likeness {likeness:.2}, caller late p99 {late:.2} ms",
        seen.up,
        seen.failed,
        seen.fault.as_deref().unwrap_or("none"),
        gaps.ms(0.5),
        gaps.ms(0.99),
        gaps.ms(0.999),
    );
    let held = gaps.ms(0.99) <= PACING_MS && likeness >= LIKENESS_MIN && loss < 0.1;
    println!("{}", if held { "pacing and sound held" } else { "pacing or sound did NOT hold" });
    Ok(())
}

/// Prints a line each second.
fn watch(daemon: &Daemon, over: &AtomicBool) {
    let pid = daemon.child.id();
    let (mut before, mut at) = (cpu_ns(pid).unwrap_or(0), Instant::now());
    let mut second = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1).saturating_sub(at.elapsed()));
        let used = cpu_ns(pid).unwrap_or(0);
        let share = used.saturating_sub(before) as f64 / at.elapsed().as_nanos() as f64;
        (before, at) = (used, Instant::now());
        second += 1;
        // One that does not answer while it is loaded is asked again a second later.
        if let Ok(metrics) = daemon.metrics() {
            print_line(second, share, &metrics);
        }
    }
}

fn print_line(second: u32, share: f64, metrics: &Metrics) {
    let step = metrics.sum("media_shard_relief");
    let words = match step as u64 {
        0 => "20 ms, 5",
        1 => "40 ms, 3",
        _ => "60 ms, 0",
    };
    println!(
        "{second:>6}  {:>5.0}  {:>11.0} %  {:>3.0}%  {step:>4.0}  {words}",
        metrics.sum("media_sessions"),
        share * 100.0,
        metrics.sum("media_shard_busy_ratio") * 100.0,
    );
}
