//! `voxedge run`: the daemon, until SIGTERM and its drain. SIGHUP reads the file again.

use crate::ground::Transport;
use crate::shell::config::{Config, Loaded};
use crate::shell::daemon::Daemon;
use crate::shell::{log, supervise};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Starts logging, tells the configuration's warnings, and runs the daemon.
pub fn run(loaded: Loaded) -> ExitCode {
    log::start(&loaded.config.log);
    for problem in loaded.report.problems() {
        tracing::warn!(
            file = %loaded.path.display(),
            line = problem.line,
            fix = problem.fix,
            "{}: {}",
            problem.key,
            problem.what
        );
    }
    daemon(&loaded)
}

/// Runs until SIGTERM or SIGINT and its drain; a second signal ends the drain at once.
fn daemon(loaded: &Loaded) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match serve(&loaded.config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(words) => {
                tracing::error!("{words}");
                ExitCode::FAILURE
            }
        }
    });
    // A name look-up that hangs must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve(config: &Config) -> Result<(), String> {
    let signals = |error: std::io::Error| format!("signals cannot be awaited: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(signals)?;
    let daemon = Daemon::start(config).await.map_err(|fault| fault.to_string())?;
    announce(&daemon, config);
    supervise::ready();
    let mut watch = supervise::interval();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&daemon).await,
            _ = watch.tick() => if daemon.is_alive() { supervise::feed() },
        }
    }
    supervise::stopping();
    let grace = config.limits.grace;
    tracing::info!(grace_s = grace.as_secs(), "draining: new calls get 503");
    tokio::select! {
        () = daemon.drain(grace) => {}
        _ = terminate.recv() => tracing::warn!("second signal: ending the calls now"),
        _ = interrupt.recv() => tracing::warn!("second signal: ending the calls now"),
    }
    daemon.stop(Duration::ZERO).await;
    tracing::info!("stopped");
    Ok(())
}

/// SIGHUP. What changed is logged where it is changed.
async fn reload(daemon: &Daemon) {
    match daemon.reload().await {
        Ok(changes) => {
            for line in changes {
                tracing::info!("reload: {line}");
            }
            tracing::info!("the configuration file was read again");
        }
        Err(fault) => tracing::error!("nothing was reloaded: {fault}"),
    }
}

/// What listens where, in one line each.
fn announce(daemon: &Daemon, config: &Config) {
    for (transport, address) in daemon.bound() {
        tracing::info!("listening for SIP over {} on {address}", transport.via_token());
    }
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    tracing::info!("admin on {scheme}://{}", daemon.admin_address());
    tracing::info!("the account is managed by: {}", config.sip.managed_by.as_str());
    if let Some(standin) = daemon.standin() {
        tracing::info!("agents: the embedded stand-in at {}", standin.base_url());
        let host = dialled(daemon.bound());
        for (name, agent_id) in super::standin::AGENTS {
            tracing::info!("  {name:<9} call sip:agent_{agent_id}@{host}");
        }
    }
}

/// What a phone puts after the `@`: the first listener, by its address where it has one.
fn dialled(bound: &[(Transport, SocketAddr)]) -> String {
    match bound.first() {
        Some((_, address)) if address.ip().is_unspecified() => {
            format!("<this host>:{}", address.port())
        }
        Some((_, address)) => address.to_string(),
        None => "<this host>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_told_where_the_agents_are() {
        for (bound, expected) in [
            ("127.0.0.1:5070", "127.0.0.1:5070"),
            ("[::1]:5070", "[::1]:5070"),
            ("0.0.0.0:5060", "<this host>:5060"),
        ] {
            let bound = bound.parse().expect("an address");
            assert_eq!(dialled(&[(Transport::Udp, bound)]), expected);
        }
    }
}
