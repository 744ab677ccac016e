//! The demo: whole calls against the embedded agent service, measured.

pub mod measure;

use std::path::Path;
use std::process::ExitCode;

/// Runs the demo; heard audio goes to `out`.
pub fn run(out: &Path) -> ExitCode {
    eprintln!("voxedge demo: this build holds no demo; nothing was written to {}", out.display());
    ExitCode::FAILURE
}
