//! `voxedge standin`: the Ultravox-compatible agent service alone, for trying a trunk offline or for
//! another daemon's tests.

use super::Standin;
use std::process::ExitCode;

/// Runs the service until SIGTERM or Ctrl-C.
pub fn run(standin: &Standin) -> ExitCode {
    eprintln!("voxedge standin: this build holds no stand-in for {}", standin.listen);
    ExitCode::FAILURE
}
