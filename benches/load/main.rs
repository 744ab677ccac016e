//! The load kit: what a call costs the daemon, and what the daemon costs the call. Three processes
//! on one machine: the daemon (the `voxedge` of this build, over its command line), a far end that
//! plays the agent service, and this one, which calls. `benches/README.md` says how to repeat the
//! figures and what makes a run valid.

mod caller;
mod far_end;
mod measure;
mod run;
mod signalling;
mod stamp;

use run::Order;
use std::process::ExitCode;

const HELP: &str = "\
load kit of voxedge: cargo bench --bench load -- [options]

  --calls N[,N…]        calls at once                         [10,100,300]
  --seconds N           length of the measured window         [5]
  --warm N              seconds before it, at least 4         [4]
  --runs N              runs of each; the minimum counts      [1]
  --rate N              calls set up in a second              [50]
  --far-end MODE        burst (100 ms), eager (20 ms) or both [both]

For the record: --seconds 20 --runs 3, on a machine with nothing else to do.";

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [role, mode] = &arguments[..]
        && role == "far-end"
    {
        return verdict(far_end::run(mode == "eager"));
    }
    match Order::parse(&arguments) {
        Ok(Some(order)) => verdict(run::run(&order)),
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(words) => {
            eprintln!("load: {words}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn verdict(outcome: std::io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
