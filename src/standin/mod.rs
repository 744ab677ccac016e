//! An Ultravox-compatible agent service in the same binary: REST and media streams, plain or TLS. It
//! serves the demo, the tests, the load kit, and whoever wants to try a trunk without the internet.
//! It keeps to the published schema strictly, sees everything, and does wrong on demand.
//!
//! Its agents have fixed ids; scripts add more:
//!
//! | agent    | `agentId`                              | what it does |
//! |----------|----------------------------------------|--------------|
//! | echo     | `00000000-0000-4000-8000-0000000000e0` | sends the caller's audio back |
//! | tone     | `00000000-0000-4000-8000-0000000000a0` | 1 kHz at −20 dBFS, one second on, one off |
//! | speech   | `00000000-0000-4000-8000-0000000000b0` | says a sentence, then listens until told to hang up |
//! | barge_in | `00000000-0000-4000-8000-0000000000b1` | says it again after each interruption by the caller |
//! | silent   | `00000000-0000-4000-8000-0000000000c0` | sends nothing |
//! | farewell | `00000000-0000-4000-8000-0000000000d0` | says a sentence and hangs up with 1000 |
//! | strict   | `00000000-0000-4000-8000-0000000000f0` | as speech; refuses template context beyond `customer_name` and `ultravox.sip.caller_id` |
//!//! | transfer | `00000000-0000-4000-8000-0000000000f1` | as speech; has the telephone tools, and transfers when 0 is pressed |
//!
//! One task for each call; all tasks are owned by the [`Standin`] and end with it.

pub mod context;
pub mod conversation;
pub mod fault;
mod http;
mod listener;
mod media;
pub mod record;
pub mod script;
pub mod sound;
mod tools;

pub use conversation::Pace;
pub use fault::{Fault, FaultRule, Stage};
pub use record::Observed;
pub use script::AgentScript;

use crate::ground::{Entropy, Secret, WallTime};
use crate::shell::clock::Clock;
use crate::shell::tls::{self, Pem, TlsFault};
use axum::extract::ws::WebSocket;
use fault::Faults;
use listener::{Door, Peer};
use record::{Calls, SharedCall};
use sound::Sounds;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Agents in all.
const AGENTS_MAX: usize = 1_000;
/// Upgraded sockets that wait for their task.
const ARRIVALS_MAX: usize = 1_024;
/// How long the tasks may take to end.
const STOP: Duration = Duration::from_secs(5);

/// How to start.
pub struct StandinOptions {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Serves https and wss with a fresh self-signed certificate.
    pub tls: bool,
    /// The host in the URLs that are given out; `None`: the address of `listen`.
    pub host: Option<String>,
    pub api_key: Secret,
    pub pace: Pace,
    pub faults: Vec<FaultRule>,
    /// Agents beside the built-in ones.
    pub agents: Vec<AgentScript>,
    /// More live calls than this are refused with 429.
    pub calls_max: Option<usize>,
    /// Bytes of each caller's audio that are kept.
    pub capture_bytes_max: usize,
    pub entropy: Entropy,
}

impl StandinOptions {
    /// Plain, eager, on any port of the loopback address, without faults.
    pub fn local(api_key: Secret, entropy: Entropy) -> StandinOptions {
        StandinOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: false,
            host: None,
            api_key,
            pace: Pace::Eager,
            faults: Vec::new(),
            agents: Vec::new(),
            calls_max: None,
            capture_bytes_max: 0,
            entropy,
        }
    }
}

/// Why the stand-in did not start.
#[derive(Debug)]
pub enum StandinFault {
    Listen { address: SocketAddr, error: std::io::Error },
    Tls(TlsFault),
}

impl fmt::Display for StandinFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StandinFault::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}")
            }
            StandinFault::Tls(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for StandinFault {}

/// A joined stream on its way to its task.
pub(crate) struct Arrival {
    socket: WebSocket,
    call: SharedCall,
}

/// What all parts of one stand-in share.
pub(crate) struct World {
    api_key: Secret,
    pace: Pace,
    /// `ws://host:port`: the beginning of join URLs.
    stream_origin: String,
    started: WallTime,
    calls_max: Option<usize>,
    faults: Faults,
    sounds: Arc<Sounds>,
    agents: Mutex<BTreeMap<String, Arc<AgentScript>>>,
    calls: Mutex<Calls>,
    entropy: Mutex<Entropy>,
    sockets: mpsc::Sender<Arrival>,
    changes: watch::Sender<u64>,
    stopping: watch::Receiver<bool>,
}

impl World {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, Arc<AgentScript>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agent(&self, agent_id: &str) -> Option<Arc<AgentScript>> {
        self.agents().get(agent_id).cloned()
    }

    fn all_agents(&self) -> Vec<Arc<AgentScript>> {
        self.agents().values().cloned().collect()
    }

    /// Adds or replaces an agent; false when there are too many.
    fn add_agent(&self, script: AgentScript) -> bool {
        let mut agents = self.agents();
        let room = agents.len() < AGENTS_MAX || agents.contains_key(&script.agent_id);
        if room {
            agents.insert(script.agent_id.clone(), Arc::new(script));
        }
        room
    }

    /// A fresh call id (a version 4 UUID) and a join token of 128 bits.
    fn draw_ids(&self) -> (String, String) {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        (entropy.uuid(), entropy.token(128))
    }

    /// Tells those who wait in [`Standin::wait_until`].
    fn on_change(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns when the stand-in stops.
    async fn stopped(&self) {
        // An error says that the stand-in is gone, which is a stop as well.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }
}

/// A running stand-in. Dropping it ends its tasks; [`Standin::stop`] lets them end well.
pub struct Standin {
    world: Arc<World>,
    address: SocketAddr,
    base_url: String,
    root_certificate: Option<String>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Standin {
    /// Listens and serves; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StandinFault`].
    pub async fn start(options: StandinOptions) -> Result<Standin, StandinFault> {
        let ip = match options.listen.ip() {
            ip if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        let host = options.host.clone().unwrap_or_else(|| ip.to_string());
        let (config, root_certificate) = if options.tls {
            let (certificate, key) =
                tls::self_signed(&[&host, "localhost", "127.0.0.1"]).map_err(StandinFault::Tls)?;
            let pem = |text: &str| Pem::from_text("the stand-in's certificate", text);
            let config = tls::server_config(&pem(&certificate), &pem(&key), None)
                .map_err(StandinFault::Tls)?;
            (Some(config), Some(certificate))
        } else {
            (None, None)
        };
        let unbound = |error| StandinFault::Listen { address: options.listen, error };
        let door = Door::bind(options.listen, config).await.map_err(unbound)?;
        let address = door.address().map_err(unbound)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let place = format!("{host}:{}", address.port());
        let (rest_scheme, stream_scheme) =
            if options.tls { ("https", "wss") } else { ("http", "ws") };
        let (stop, stopping) = watch::channel(false);
        let (sockets, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let world =
            Arc::new(world(options, format!("{stream_scheme}://{place}"), sockets, stopping));
        let base_url = format!("{rest_scheme}://{place}");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(door, world.clone()));
        tasks.spawn(attend(world.clone(), arrivals));
        Ok(Standin { world, address, base_url, root_certificate, stop, tasks })
    }

    /// `http://127.0.0.1:40001`: what the edge takes as the agent service's base URL.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate to trust, in PEM format, when TLS is on.
    pub fn root_certificate(&self) -> Option<&str> {
        self.root_certificate.as_deref()
    }

    /// What came in until now, by call in order of creation.
    pub fn observed(&self) -> Vec<Observed> {
        self.world.calls().observed(Clock::instant())
    }

    /// Waits until what was seen is as `wanted`, looking again after each creation, join, text
    /// message and end. Gives what was seen then. The caller sets the time limit.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&[Observed]) -> bool) -> Vec<Observed> {
        let mut changes = self.world.changes.subscribe();
        loop {
            let observed = self.observed();
            if wanted(&observed) || changes.changed().await.is_err() {
                return observed;
            }
        }
    }

    /// Adds a fault; false when there are too many.
    pub fn add_fault(&self, rule: FaultRule) -> bool {
        self.world.faults.add(rule)
    }

    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Adds or replaces an agent; false when there are too many.
    pub fn add_agent(&self, script: AgentScript) -> bool {
        self.world.add_agent(script)
    }

    /// Closes every stream with 1001, refuses what is new, and returns when all tasks have ended.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP, ended).await.is_err() {
            tracing::warn!("the stand-in's tasks did not end in time");
            self.tasks.shutdown().await;
        }
    }
}

impl fmt::Debug for Standin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standin").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

fn world(
    options: StandinOptions,
    stream_origin: String,
    sockets: mpsc::Sender<Arrival>,
    stopping: watch::Receiver<bool>,
) -> World {
    let agents = script::built_in().into_iter().chain(options.agents);
    World {
        api_key: options.api_key,
        pace: options.pace,
        stream_origin,
        started: Clock::now().wall,
        calls_max: options.calls_max,
        faults: Faults::new(options.faults),
        sounds: Arc::new(Sounds::default()),
        agents: Mutex::new(
            agents.map(|script| (script.agent_id.clone(), Arc::new(script))).collect(),
        ),
        calls: Mutex::new(Calls::new(options.capture_bytes_max)),
        entropy: Mutex::new(options.entropy),
        sockets,
        changes: watch::Sender::new(0),
        stopping,
    }
}

/// Serves HTTP until the stop; then ends idle connections and waits for the others.
async fn serve(door: Door, world: Arc<World>) {
    let service = http::router(world.clone()).into_make_service_with_connect_info::<Peer>();
    let stopped = async move { world.stopped().await };
    if let Err(error) = axum::serve(door, service).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the stand-in stopped serving");
    }
}

/// Owns the task of each joined call.
async fn attend(world: Arc<World>, mut arrivals: mpsc::Receiver<Arrival>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            Some(Arrival { socket, call }) = arrivals.recv() => {
                calls.spawn(media::serve(world.clone(), socket, call));
            }
            Some(ended) = calls.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a call of the stand-in failed");
                }
            }
            () = world.stopped() => break,
        }
    }
    while calls.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ultravox::schema;
    use serde_json::json;

    fn some_world() -> (World, watch::Sender<bool>) {
        let options = StandinOptions::local(Secret::new("k"), Entropy::from_number(1));
        let (stop, stopping) = watch::channel(false);
        (world(options, "ws://127.0.0.1:1".into(), mpsc::channel(1).0, stopping), stop)
    }

    #[test]
    fn call_ids_are_version_4_uuids_and_never_the_same() {
        let (world, _stop) = some_world();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let (call_id, token) = world.draw_ids();
            assert!(schema::is_uuid(&call_id) && call_id.as_bytes()[14] == b'4', "{call_id}");
            assert!(b"89ab".contains(&call_id.as_bytes()[19]), "{call_id}");
            assert_eq!(token.len(), 32);
            assert!(seen.insert(call_id) && seen.insert(token));
        }
    }

    #[test]
    fn a_created_call_is_written_as_the_published_schema_says() {
        let (world, _stop) = some_world();
        let script = world.agent(script::ECHO).expect("built in");
        let (call_id, token) = world.draw_ids();
        let new = record::NewCall {
            call_id,
            token: Secret::new(token),
            agent_id: Some(script.agent_id.clone()),
            script,
            medium: None,
            join_timeout: Duration::from_secs(30),
            prior: None,
            tools: Vec::new(),
            request: json!({"metadata": {"a": "b"}, "medium": {"serverWebSocket": {"inputSampleRate": 8000}}}),
        };
        let now = Clock::now();
        let call = world.calls().create(now.at, now.wall, new);
        let body = http::call_json(&world, &record::lock(&call));
        assert_eq!(schema::CALL.check(&body), []);
        assert_eq!(body["metadata"], json!({"a": "b"}));
        assert!(body["joinUrl"].as_str().expect("a URL").starts_with("ws://127.0.0.1:1/calls/"));
    }
}
