//! The configuration file: TOML in, a checked [`Config`] out, or every problem at once, each with
//! file, line, key, what is wrong and the fix. Relative paths are relative to the file. Key files
//! are read here, once, so that no later part of the daemon opens them. Calls in progress never see
//! a change.
//!
//! `reader` turns the TOML into sections that remember their lines, `sections` reads each section
//! (`sip` the account's), `checks` compares sections with each other and with the machine, `problem` is the report.

mod advertise;
mod checks;
mod fallback;
mod files;
mod hands;
mod outgoing;
pub mod peers;
pub mod problem;
mod reader;
mod sections;
mod sip;
mod srtp;

pub use advertise::{Advertised, ListenerAdvertised};
pub use checks::Machine;
pub use problem::{Problem, Report, Severity};

use crate::account::{CidrRange, RegistrationDocument, SipConfig};
use crate::call::settings::{HandSettings, SrtpSettings};
use crate::codec::CodecKind;
use crate::ground::Secret;
use crate::media::plan::DelayBounds;
use crate::outgoing::OutgoingPolicy;
use crate::sdp::ExtendedReports;
use crate::switchboard::CreationLimits;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A configuration that was read without an error, with the warnings that came up.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub path: PathBuf,
    /// Warnings only.
    pub report: Report,
}

/// Everything that an operator may set; defaults are filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from, when it was.
    pub file: Option<PathBuf>,
    pub listen: Listen,
    pub tls: Option<Tls>,
    pub peers: Peers,
    pub dns: Dns,
    pub media: Media,
    /// `[srtp]`: on what terms media is encrypted.
    pub srtp: SrtpSettings,
    pub ultravox: Ultravox,
    pub sip: Sip,
    pub fallback: Fallback,
    pub admin: Admin,
    pub store: Store,
    pub limits: Limits,
    /// `[outgoing]`: who may be called.
    pub outgoing: OutgoingPolicy,
    /// `[tools]`, `[transfers]`, `[keys]`, `[agent_lost]`; the sounds are the daemon's to make.
    pub hands: HandSettings,
    pub log: Log,
}

/// `[listen]`: where SIP is heard. At least one address in all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    pub udp: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    pub tls: Vec<SocketAddr>,
    /// Hosts that peers reach us at (addresses, or a name), for Contact; the local address of the
    /// flow where there is none.
    pub advertise: Advertised,
    /// Listeners with others.
    pub listeners: Vec<ListenerAdvertised>,
}

/// `[tls]`: PEM files. Present whenever `listen.tls` is not empty; TCP listeners then serve a TLS
/// ClientHello as well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    /// Clients must show a certificate of this CA: a second lock, beside the allowlist.
    pub client_ca: Option<PathBuf>,
}

/// The rest of `[tls]`: peers that we connect to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peers {
    /// Trusted beside the system's roots.
    pub ca: Option<PathBuf>,
    /// Certificates for `*.example.com` are accepted.
    pub wildcards: bool,
    pub targets: Vec<PeerFiles>,
}

/// `[[tls.targets]]`: one peer with trust or a certificate of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFiles {
    /// The host of the target, in lower case.
    pub host: String,
    /// What we show it: certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Trusted for this peer in place of all else.
    pub ca: Option<PathBuf>,
}

/// `[dns]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dns {
    /// Empty: those of `resolv.conf`.
    pub servers: Vec<SocketAddr>,
}

/// Addresses that media sockets are bound to. A family without one is served on the address of its
/// SIP listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bind {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

/// `[media]`: where RTP is heard, and what is agreed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    pub bind: Bind,
    /// Addresses written into SDP; the local address of the call's signalling where there is none.
    pub advertise: Advertised,
    pub ports: RangeInclusive<u16>,
    /// Media threads; `None`: one per core.
    pub shards: Option<usize>,
    /// New calls are refused when every shard works this part of its time, in percent: 10 to 100.
    pub refuse_busy_percent: u8,
    /// The same, when its frames leave this late (99th percentile): 1 to 1,000 ms.
    pub refuse_lateness_ms: u16,
    /// Codecs that are agreed to, the most wanted first.
    pub codecs: Vec<CodecKind>,
    /// Rate of the agent's audio in Opus calls: 16,000, 24,000 or 48,000.
    pub opus_output_hz: u32,
    /// Milliseconds of audio in a packet unless the peer asks otherwise: 10 to 60.
    pub ptime_ms: u16,
    /// Whether extended reports of RTCP are agreed to.
    pub rtcp_xr: ExtendedReports,
    /// Pauses of ours are told, not sent, where the peer takes that.
    pub silence_suppression: bool,
    /// Bounds of the jitter buffer's target.
    pub jitter: DelayBounds,
}

/// `[ultravox]`: the service that the agents live in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ultravox {
    pub base_url: BaseUrl,
    /// Empty for the embedded stand-in when the file gives none.
    pub api_key: Secret,
    /// Join URLs must point at these hosts or below them.
    pub join_domains: Vec<String>,
    /// How fast, and how many at once, agent calls are created.
    pub creations: CreationLimits,
}

/// `[fallback]`: where the fallback handler may be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fallback {
    /// Private addresses that may be asked all the same.
    pub allowed_private: Vec<CidrRange>,
    /// Allows `http://` beyond loopback.
    pub plain_http: bool,
    /// Trusted beside the system's roots.
    pub ca: Option<PathBuf>,
}

/// Where the REST API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BaseUrl {
    /// The stand-in inside this process.
    Embedded,
    /// Without a trailing slash.
    Url(String),
}

/// Who may change the account while the daemon runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManagedBy {
    /// The file: an operator edits it and reloads.
    File,
    /// `PATCH /api/sip`: the file gives the start, and is not read for it again.
    Api,
}

impl ManagedBy {
    pub fn as_str(self) -> &'static str {
        match self {
            ManagedBy::File => "file",
            ManagedBy::Api => "api",
        }
    }
}

/// `[sip]`: the account's rules, compiled, and what strangers meet.
#[derive(Clone, Debug)]
pub struct Sip {
    pub managed_by: ManagedBy,
    /// Checked: each of them compiles.
    pub registrations: Vec<RegistrationDocument>,
    pub account: Arc<SipConfig>,
    /// Status for a call that no rule matches.
    pub no_match_status: u16,
    pub unlisted_udp: UnlistedUdp,
}

/// What an unlisted UDP source gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnlistedUdp {
    Silence,
    Forbidden,
}

/// `[admin]`: health, metrics, the account's configuration and the records over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Without one, what asks for a key opens to the account's Ultravox key alone.
    pub api_key: Option<Secret>,
    /// Plain HTTP without it.
    pub tls: Option<Tls>,
}

/// `[store]`: where the records are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    pub path: PathBuf,
}

/// `[limits]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    pub calls_max: usize,
    pub early_calls_per_source_max: usize,
    pub rtp_timeout: Duration,
    pub rtcp_only_max: Duration,
    pub hold_max: Duration,
    /// The session interval that is asked for (RFC 4028); zero: only the peer's.
    pub session_interval: Duration,
    /// How long running calls may go on after SIGTERM.
    pub grace: Duration,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

/// Phone numbers and addresses appear at `Debug` and below only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Reads, checks and completes the file at `path`. The error holds every problem found, warnings
/// among them, and at least one error.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    match files::text(path, files::CONFIG_BYTES_MAX) {
        Ok(text) => {
            let base = path.parent().unwrap_or(Path::new(""));
            let (config, report) = read(&name, &text, base, &Machine::this());
            match config {
                Some(config) => {
                    let config = Config { file: Some(path.to_path_buf()), ..config };
                    Ok(Loaded { config, path: path.to_path_buf(), report })
                }
                None => Err(report),
            }
        }
        Err(error) => {
            let what = format!("cannot be read: {}", problem::io_words(&error));
            let fix =
                "give a readable TOML file with --config; config/voxedge.toml is a documented \
                       example"
                    .to_owned();
            Err(Report::of_file(&name, what, fix))
        }
    }
}

/// The pure part of [`load`], but for the files that the text names: `base` is where relative paths
/// start. The configuration is `None` exactly when the report holds an error.
pub fn read(name: &str, text: &str, base: &Path, machine: &Machine) -> (Option<Config>, Report) {
    let mut report = Report::new(name, text);
    let config = reader::with_root(text, &mut report, |root, report| {
        let mut config = sections::read(root, base, report);
        checks::check(&mut config, machine, report);
        config
    });
    report.sort();
    let config = if report.has_errors() { None } else { config };
    (config.map(|checked| checked.config), report)
}

#[cfg(test)]
mod tests;
