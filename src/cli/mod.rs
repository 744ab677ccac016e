//! Floor 6: the commands that a person types, and the door to `clap`. Each command is a file; this
//! one reads the arguments and dispatches. Exit codes: 0 done, 1 failed or refused, 2 wrong
//! arguments.

pub mod account;
mod ask;
pub mod calls;
pub mod check;
pub mod demo;
pub mod ladder;
pub mod live;
pub mod registrations;
pub mod route_test;
pub mod run;
pub mod standin;
pub mod unlisted;

use crate::shell::config::{self, Config, Loaded};
use clap::{Args, Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

/// The SIP edge for Ultravox voice agents: a PBX or carrier dials it, an agent answers.
#[derive(Parser, Debug)]
#[command(name = "voxedge", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  voxedge demo                                   real calls on this machine: no account, no key
  voxedge run --config config/demo.toml          the same set-up, kept up for your softphone
  voxedge check --config /etc/voxedge/voxedge.toml   every problem of a configuration, with its fix
  voxedge run --config /etc/voxedge/voxedge.toml     serve your agents
  voxedge route-test --to sip:sales@edge.example     who would take this call, and why
  voxedge calls --limit 20                       the last calls, with what each one costs";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon until SIGTERM; then drain: running calls may end, new ones get 503
    #[command(after_help = RUN_EXAMPLES)]
    Run(ConfigFile),
    /// Read a configuration and tell every problem at once, with line, key and fix
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Have the running daemon read its configuration file again; running calls go on
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload(ConfigFile),
    /// Show the account's rules that are in force, and who manages them
    #[command(after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Show the state of each registration, with the reason of its last outcome
    #[command(after_help = REGISTRATIONS_EXAMPLES)]
    Registrations(ConfigFile),
    /// Show who knocked without being in an allowed range: look here when no call comes in
    #[command(after_help = UNLISTED_EXAMPLES)]
    Unlisted(ConfigFile),
    /// Show what crossed the edge in one call, live or ended
    #[command(after_help = LADDER_EXAMPLES)]
    Ladder(Ladder),
    /// Place real calls through this machine to the stand-in agents, and show what happened
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Tell what would become of a call: admission, rule, agent, and what the caller would get
    #[command(after_help = ROUTE_TEST_EXAMPLES)]
    RouteTest(RouteTest),
    /// List call records: from the daemon when it runs, else from its store
    #[command(after_help = CALLS_EXAMPLES)]
    Calls(Calls),
    /// Run the Ultravox-compatible stand-in agent service alone
    #[command(after_help = STANDIN_EXAMPLES)]
    Standin(Standin),
}

const RUN_EXAMPLES: &str = "\
Examples:
  voxedge run --config config/demo.toml    loopback, stand-in agents: call it from a softphone
  voxedge run                              with /etc/voxedge/voxedge.toml, as the service does

SIGTERM or Ctrl-C drains: new calls get 503, running ones end by themselves or with a BYE after
limits.grace_s. A second signal ends at once.";

const CHECK_EXAMPLES: &str = "\
Examples:
  voxedge check --config voxedge.toml           exit 0 when the daemon would start with it
  voxedge check --config voxedge.toml --bind    try the addresses too (not while the daemon runs)";

const ROUTE_TEST_EXAMPLES: &str = "\
Examples:
  voxedge route-test --to sip:+15551234567@edge.example --source 198.51.100.7
  voxedge route-test --from '\"Ada\" <sip:+12025550100@pbx.example>' --to sip:support@edge.example \
      --header 'X-Customer-Name: Ada' --header 'X-Cart: {\"items\": 2}'

It decides as the daemon does, from the configuration file alone: no packet is sent, and neither
Ultravox nor the fallback handler is asked. Exit 0 when the call would be taken.";

const DEMO_EXAMPLES: &str = "\
Examples:
  voxedge demo                  a call per codec over UDP, TCP and TLS, each with its ladder
  voxedge demo --out heard      leave the heard audio there, as WAV files";

const CALLS_EXAMPLES: &str = "\
Examples:
  voxedge calls                              the last 20 calls as a table, numbers masked
  voxedge calls --full --limit 100           with whole numbers
  voxedge calls --live                       how each leg of the running calls sounds just now
  voxedge calls --json | jq '.[].deciminutes'    for programs: every field of each record";

const RELOAD_EXAMPLES: &str = "\
Examples:
  voxedge reload                            with /etc/voxedge/voxedge.toml, as the service does
  voxedge reload --config voxedge.toml      prints what changed; a file with an error changes nothing

The daemon does the same on SIGHUP (systemctl reload voxedge). Only [sip] is put in force; other
sections take a restart, and that is said.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  voxedge config show                 who manages the account, and its rules in force
  voxedge config show --json          in the shape of GET /api/sip
  voxedge config show --secrets       what the fallback handler's requests are signed with, too";

const REGISTRATIONS_EXAMPLES: &str = "\
Examples:
  voxedge registrations                            of the service
  voxedge registrations --config voxedge.toml      of the daemon with this configuration";

const UNLISTED_EXAMPLES: &str = "\
Examples:
  voxedge unlisted                            of the service
  voxedge unlisted --config voxedge.toml      of the daemon with this configuration";

const LADDER_EXAMPLES: &str = "\
Examples:
  voxedge ladder 6ab13b80-1                               by the key that voxedge calls shows
  voxedge ladder 6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11     by Ultravox's call id
  voxedge ladder 6ab13b80-1 --json";

const STANDIN_EXAMPLES: &str = "\
Examples:
  voxedge standin                                 on 127.0.0.1:8900, agent audio in bursts of 100 ms
  voxedge standin --listen 127.0.0.1:9443 --tls   https and wss, with a certificate made for it
  voxedge standin --eager                         send agent audio in 20 ms frames, on time";

/// Where the configuration is.
#[derive(Args, Debug)]
struct ConfigFile {
    /// The configuration file (TOML); config/voxedge.toml of the project documents every key
    #[arg(long, short, value_name = "FILE", default_value = "/etc/voxedge/voxedge.toml")]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Try to bind every address of [listen], [media] and [admin] as well
    #[arg(long)]
    bind: bool,
}

#[derive(Args, Debug)]
struct ConfigCommand {
    #[command(subcommand)]
    what: ConfigVerb,
}

#[derive(Subcommand, Debug)]
enum ConfigVerb {
    /// Print what is in force
    Show(Show),
}

#[derive(Args, Debug)]
struct Show {
    #[command(flatten)]
    file: ConfigFile,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    /// The signing secrets of the fallback handler too
    #[arg(long)]
    secrets: bool,
}

#[derive(Args, Debug)]
struct Ladder {
    #[command(flatten)]
    file: ConfigFile,
    /// Our key of the call, or Ultravox's call id
    #[arg(value_name = "CALL")]
    call: String,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct RouteTest {
    #[command(flatten)]
    file: ConfigFile,
    /// Who calls: a URI, or a display name and a URI in angle brackets
    #[arg(long, value_name = "URI", default_value = "sip:+12025550100@pbx.example")]
    from: String,
    /// Who is called, as in the INVITE's To header
    #[arg(long, value_name = "URI")]
    to: String,
    /// A header of the INVITE; may be given again
    #[arg(long = "header", value_name = "'NAME: VALUE'")]
    headers: Vec<String>,
    /// Address that the packet comes from; without it admission is not looked at
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
}

#[derive(Args, Debug)]
struct Demo {
    /// Directory for the heard audio
    #[arg(long, value_name = "DIR", default_value = "out/demo")]
    out: PathBuf,
}

#[derive(Args, Debug)]
struct Calls {
    #[command(flatten)]
    file: ConfigFile,
    /// One call alone, by its key or the id of any of its agent calls, with all of these
    #[arg(value_name = "ID", conflicts_with_all = ["limit", "live"])]
    id: Option<String>,
    /// Every field of each record as JSON, for programs
    #[arg(long)]
    json: bool,
    /// How many calls, newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Show phone numbers whole
    #[arg(long)]
    full: bool,
    /// The calls that are up now, each leg with its loss, jitter, round trip and scores
    #[arg(long, conflicts_with = "limit")]
    live: bool,
}

/// How the stand-in is run.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct Standin {
    /// Address of the REST API and the agent streams
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8900")]
    pub listen: SocketAddr,
    /// Serve https and wss, with a certificate made for this run
    #[arg(long)]
    pub tls: bool,
    /// Send agent audio in bursts of this many milliseconds, as the real service does
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(20..=1000), conflicts_with = "eager")]
    pub burst: u16,
    /// Send agent audio in 20 ms frames, on time
    #[arg(long)]
    pub eager: bool,
}

/// Reads the arguments of the process and does what they say.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(file) => match load(&file) {
            Ok(loaded) => run::run(loaded),
            Err(code) => code,
        },
        Command::Check(check) => check::check(&check.file.config, check.bind),
        Command::RouteTest(asked) => match load(&asked.file) {
            Ok(loaded) => {
                let RouteTest { file: _, from, to, headers, source } = asked;
                let asked = route_test::Asked { from, to, headers, source };
                route_test::route_test(&loaded.config, &asked)
            }
            Err(code) => code,
        },
        Command::Demo(demo) => demo::run(&demo.out),
        Command::Calls(Calls { file, json, full, live: true, id: _, limit: _ }) => {
            with_config(&file, |config| live::live(config, json, full))
        }
        Command::Calls(calls) => match load(&calls.file) {
            Ok(loaded) => match &calls.id {
                Some(id) => calls::call(&loaded.config, id, calls.json, calls.full),
                None => {
                    let limit = usize::from(calls.limit);
                    calls::calls(&loaded.config, limit, calls.json, calls.full)
                }
            },
            Err(code) => code,
        },
        Command::Reload(file) => with_config(&file, account::reload),
        Command::Config(ConfigCommand { what: ConfigVerb::Show(show) }) => {
            with_config(&show.file, |config| account::show(config, show.json, show.secrets))
        }
        Command::Registrations(file) => with_config(&file, registrations::registrations),
        Command::Unlisted(file) => with_config(&file, unlisted::unlisted),
        Command::Ladder(ladder) => with_config(&ladder.file, |config| {
            self::ladder::ladder(config, &ladder.call, ladder.json)
        }),
        Command::Standin(standin) => standin::run(&standin),
    }
}

/// Loads the configuration for a command that only reads it.
fn with_config(file: &ConfigFile, act: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match load(file) {
        Ok(loaded) => act(&loaded.config),
        Err(code) => code,
    }
}

/// The configuration, or its problems on standard error and a failure.
fn load(file: &ConfigFile) -> Result<Loaded, ExitCode> {
    config::load(&file.config).map_err(|report| {
        eprint!("{report}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace()).map(|arguments| arguments.command)
    }

    #[test]
    fn the_arguments_are_well_defined() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_take_their_arguments_and_defaults() {
        let Ok(Command::Calls(calls)) = parse("voxedge calls --json --limit 7 --config a.toml")
        else {
            panic!("these are good arguments");
        };
        assert!(calls.json && !calls.full && calls.limit == 7);
        assert_eq!(calls.file.config, PathBuf::from("a.toml"));
        let Ok(Command::Standin(standin)) = parse("voxedge standin --eager") else {
            panic!("these are good arguments");
        };
        assert!(standin.eager && !standin.tls && standin.listen.ip().is_loopback());
        for bad in [
            "voxedge",
            "voxedge dance",
            "voxedge calls --limit 0",
            "voxedge standin --eager --burst 60",
            "voxedge standin --listen here",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_help_of_each_command_shows_examples() {
        let mut command = Arguments::command();
        assert!(command.render_long_help().to_string().contains("voxedge demo"));
        for name in
            ["run", "check", "reload", "config", "route-test", "ladder", "demo", "calls", "standin"]
        {
            let sub = command.find_subcommand_mut(name).expect("it is a command");
            let help = sub.render_long_help().to_string();
            assert!(help.contains(&format!("Examples:\n  voxedge {name}")), "{help}");
        }
    }
}
