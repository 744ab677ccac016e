//! `voxedge run`: the daemon, until SIGTERM and its drain.

use crate::shell::config::Loaded;
use crate::shell::log;
use std::process::ExitCode;

/// Starts logging, tells the configuration's warnings, and runs the daemon.
pub fn run(loaded: Loaded) -> ExitCode {
    log::start(&loaded.config.log);
    for problem in loaded.report.problems() {
        tracing::warn!(
            file = %loaded.path.display(),
            line = problem.line,
            key = problem.key,
            fix = problem.fix,
            "{}",
            problem.what
        );
    }
    daemon(loaded)
}

/// The seam to the shell.
fn daemon(loaded: Loaded) -> ExitCode {
    tracing::error!(file = %loaded.path.display(), "this build holds no daemon");
    ExitCode::FAILURE
}
