//! The `voxedge` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    voxedge::cli::main()
}
