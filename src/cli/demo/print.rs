//! What the demo prints: plain, aligned, and complete without colours.

use super::Played;
use super::follow::Quality;
use super::measure;
use crate::shell::daemon::Daemon;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// What is running, and where the audio goes.
pub fn opening(daemon: &Daemon, out: &Path) {
    println!("voxedge demo: real calls on this machine; no account, no key, no network\n");
    for (transport, address) in daemon.bound() {
        println!("  sip {:<4}  {address}", transport.uri_param());
    }
    if let Some(standin) = daemon.standin() {
        println!("  agents    {} (the embedded stand-in)", standin.base_url());
    }
    println!("  admin     http://{}", daemon.admin_address());
    println!("  audio     {}\n", out.display());
}

/// One call: its ladder, its figures, and whether it is played again.
pub fn scene(number: usize, played: &Played, again: bool) {
    println!("{number}. {}\n", played.title);
    for (at, who, text) in rungs(played) {
        println!("   {:>9.1} ms  {who:<5}  {text}", at.as_secs_f64() * 1_000.0);
    }
    println!();
    for (name, value) in figures(played) {
        println!("   {name:<12} {value}");
    }
    match &played.fault {
        Some(fault) if again => {
            println!("   {:<12} {fault}", "disturbed");
            println!("   {:<12} the machine was too busy to judge: the call is made again\n", "");
        }
        Some(fault) => println!("   {:<12} {fault}\n", "FAILED"),
        None => println!("   {:<12} as it should be\n", "result"),
    }
}

/// The phone's view and the daemon's on one clock, which begins with what either did first.
fn rungs(played: &Played) -> Vec<(Duration, &'static str, String)> {
    let report = &played.report;
    let daemon_began = played.ladder.as_ref().map_or(report.began, |ladder| ladder.began());
    let zero = daemon_began.min(report.began);
    let offset = report.began.since(zero);
    let mut rungs: Vec<(Duration, &'static str, String)> =
        report.rungs.iter().map(|(at, text)| (offset + *at, "phone", text.clone())).collect();
    if let Some(ladder) = &played.ladder {
        let offset = daemon_began.since(zero);
        for rung in ladder.rungs() {
            let at = offset + Duration::from_secs_f64(rung.at_ms / 1_000.0);
            rungs.push((at, rung.lane.word(), rung.text.clone()));
        }
    }
    rungs.sort_by_key(|(at, _, _)| *at);
    rungs
}

fn figures(played: &Played) -> Vec<(&'static str, String)> {
    let report = &played.report;
    let mut figures = vec![("set-up", format!("{:.1} ms", millis(report.setup)))];
    if let Some(warning) = &report.warning {
        figures.push(("warning", warning.clone()));
    }
    if let Some(quality) = &played.quality {
        figures.push(("round trip", round_trip(quality, report.sample_rate)));
        figures.extend(stretched(quality));
        figures.push(("quality", of_codec(quality, played.alone.as_ref())));
        let (sent, heard) = (quality.sent_dbfs, quality.returned_dbfs);
        figures.push(("level", format!("{sent:.1} dBFS spoken, {heard:.1} dBFS heard")));
    } else if !report.heard.is_empty() {
        let level = measure::level_dbfs(&report.heard);
        figures.push(("level", format!("{level:.1} dBFS heard")));
    }
    if report.packets_sent > 0 {
        let (sent, received) = (report.packets_sent, report.packets_received);
        let lost = report.packets_lost;
        let late = millis(report.sent_late);
        let sent = format!("{sent} sent (at most {late:.1} ms late)");
        figures.push(("packets", format!("{sent}, {received} received, {lost} lost")));
    }
    if let Some(cdr) = &played.cdr {
        let (sip, agent) = (cdr.sip_time.as_secs_f64(), cdr.agent_time.as_secs_f64());
        let unit = if cdr.deciminutes.count() == 1 { "deciminute" } else { "deciminutes" };
        let bill = format!("{} {unit}", cdr.deciminutes.count());
        figures.push(("bill", format!("{sip:.3} s SIP, {agent:.3} s agent: {bill}")));
    }
    if let Some(wav) = &played.wav {
        figures.push(("heard", wav.display().to_string()));
    }
    figures
}

fn round_trip(quality: &Quality, rate: u32) -> String {
    let ms = |samples: usize| samples as f64 / f64::from(rate) * 1_000.0;
    let first = format!("{:.1} ms, phone to agent and back", ms(quality.delay));
    match quality.turns {
        0 => first,
        _ => format!("{first}; {:.1} ms at the end", ms(quality.last_delay)),
    }
}

/// Where the daemon made audio longer or shorter, because packets or frames came late.
fn stretched(quality: &Quality) -> Option<(&'static str, String)> {
    let (turns, percent) = (quality.turns, quality.turning * 100.0);
    let places = if turns == 1 { "place" } else { "places" };
    let words =
        format!("at {turns} {places}; {percent:.1} % of the speech is there and not compared");
    (turns > 0).then_some(("stretched", words))
}

fn of_codec(quality: &Quality, alone: Option<&Quality>) -> String {
    let figures = |quality: &Quality| {
        format!(
            "{:.1} dB segmental SNR, likeness {:.2}",
            quality.segmental_snr_db, quality.correlation
        )
    };
    match alone {
        Some(alone) => format!("{} (the codec alone: {})", figures(quality), figures(alone)),
        None => figures(quality),
    }
}

/// The table of all calls and the verdict.
pub fn verdict(played: &[Played], out: &Path) -> ExitCode {
    println!("   codec  over   set-up ms  round trip ms  segSNR dB  lost  deciminutes  result");
    for one in played {
        println!("   {}", row(one));
    }
    let failed = played.iter().filter(|one| one.fault.is_some()).count();
    if failed == 0 {
        println!("\nThe audio that the phone heard is in {}.", out.display());
        println!("Verdict: PASS. {} calls, all as they should be.", played.len());
        return ExitCode::SUCCESS;
    }
    println!("\nVerdict: FAIL. {failed} of {} calls were not as they should be.", played.len());
    ExitCode::FAILURE
}

fn row(one: &Played) -> String {
    let dash = || "-".to_owned();
    let rate = f64::from(one.report.sample_rate);
    let quality = one.quality.as_ref();
    let trip = quality
        .map_or_else(dash, |quality| format!("{:.1}", quality.delay as f64 / rate * 1_000.0));
    let snr = quality.map_or_else(dash, |quality| format!("{:.1}", quality.segmental_snr_db));
    let bill = one.cdr.as_ref().map_or_else(dash, |cdr| cdr.deciminutes.count().to_string());
    let result = match (&one.fault, one.report.status) {
        (Some(_), _) => "FAILED".to_owned(),
        (None, 200) => "ok".to_owned(),
        (None, status) => format!("ok ({status})"),
    };
    format!(
        "{:<6} {:<6} {:>9.1}  {trip:>13}  {snr:>9}  {:>4}  {bill:>11}  {result}",
        one.codec.encoding_name(),
        one.transport.uri_param(),
        millis(one.report.setup),
        one.report.packets_lost,
    )
}

/// The demo could not be run at all.
pub fn failed(words: &str) -> ExitCode {
    println!("{words}\nVerdict: FAIL. The demo could not be run.");
    ExitCode::FAILURE
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
