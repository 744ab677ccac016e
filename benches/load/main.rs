//! The load kit: what a call costs the daemon, and what the daemon costs the call. Three processes
//! on one machine: the daemon (the `voxedge` of this build, over its command line), a far end that
//! plays the agent service, and this one, which calls. `benches/README.md` says how to repeat the
//! figures and what makes a run valid.

mod caller;
mod echo;
mod far_end;
mod measure;
mod order;
mod overload;
mod processes;
mod run;
mod signalling;
mod stamp;
mod voice;

use far_end::Part;
use order::{Order, Wish};
use std::process::ExitCode;
use voice::Voice;

const HELP: &str = "\
load kit of voxedge: cargo bench --bench load -- [options]

  --codec NAME[,NAME…]  pcmu, g722, opus, opus24 (24 kHz from the agent),
                        amrwb; all: each of them, and Opus with an agent
                        that is silent half the time               [pcmu]
  --calls N[,N…]        calls at once        [pcmu 10,100,300; all: as fits]
  --silence PERCENT     of the time the agent is silent, 0 to 90      [0]
  --seconds N           length of the measured window                 [5]
  --warm N              seconds before it, at least 4                 [4]
  --runs N              runs of each; the minimum counts              [1]
  --rate N              calls set up in a second                     [50]
  --far-end MODE        burst (100 ms), eager (20 ms) or both   [pcmu: both]
  --daemon PATH[,PATH]  other builds of the daemon, in turn
  --shards N            media threads of the daemon         [one per core]
  --overload            instead: more Opus calls than one media thread can
                        encode at complexity 5; shows what it does

For the record: --seconds 20 --runs 3, on a machine with nothing else to do.";

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [role, mode, name, silence] = &arguments[..]
        && role == "far-end"
        && let (Some(voice), Ok(silence_percent)) = (Voice::named(name), silence.parse())
    {
        return verdict(far_end::run(Part { voice, eager: mode == "eager", silence_percent }));
    }
    match Order::parse(&arguments) {
        Ok(Wish::Run(order)) => verdict(run::run(&order)),
        Ok(Wish::Overload(order)) => verdict(overload::run(&order)),
        Ok(Wish::Help) => {
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
