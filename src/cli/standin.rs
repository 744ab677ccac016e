//! `voxedge standin`: the Ultravox-compatible agent service alone, for trying a trunk offline or for
//! another daemon's tests.

use super::Standin as Arguments;
use crate::ground::Secret;
use crate::shell::config::{Log, LogFormat, LogLevel};
use crate::shell::{entropy, log};
use crate::standin::conversation::Pace;
use crate::standin::script;
use crate::standin::{Standin, StandinOptions};
use std::process::ExitCode;

/// The key that this service takes.
const API_KEY: &str = "standin";

/// Runs the service until SIGTERM or Ctrl-C.
pub fn run(arguments: &Arguments) -> ExitCode {
    log::start(&Log { format: LogFormat::Text, level: LogLevel::Info });
    let served = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(serve(arguments)),
        Err(error) => Err(format!("the runtime cannot start: {error}")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("voxedge standin: {sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> Result<(), String> {
    let entropy =
        entropy::from_os().map_err(|error| format!("the system gives no randomness: {error}"))?;
    let pace = if arguments.eager { Pace::Eager } else { Pace::Burst(u32::from(arguments.burst)) };
    let options = StandinOptions {
        listen: arguments.listen,
        tls: arguments.tls,
        pace,
        ..StandinOptions::local(Secret::new(API_KEY), entropy)
    };
    let standin = Standin::start(options).await.map_err(|fault| fault.to_string())?;
    println!("stand-in agent service at {} with X-API-Key {API_KEY}", standin.base_url());
    println!("agents:");
    for (name, agent_id) in AGENTS {
        println!("  {name:<9} {agent_id}");
    }
    if let Some(certificate) = standin.root_certificate() {
        println!("certificate to trust:\n{certificate}");
    }
    wait_for_end().await?;
    standin.stop().await;
    Ok(())
}

/// The agents that every stand-in has.
pub const AGENTS: [(&str, &str); 7] = [
    ("echo", script::ECHO),
    ("tone", script::TONE),
    ("speech", script::SPEECH),
    ("silent", script::SILENT),
    ("farewell", script::FAREWELL),
    ("barge-in", script::BARGE_IN),
    ("strict", script::STRICT),
];

/// Until SIGTERM or Ctrl-C.
async fn wait_for_end() -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| format!("SIGTERM cannot be awaited: {error}"))?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        outcome = tokio::signal::ctrl_c() => {
            outcome.map_err(|error| format!("Ctrl-C cannot be awaited: {error}"))
        }
    }
}
