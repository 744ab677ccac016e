//! The daemon as a whole: builds the parts in the order in which they need each other, keeps them
//! for as long as they run, and takes them down in reverse. What a part does is in its own file.

mod certificates;
mod observe;
mod reload;
mod settings;

pub use reload::reload;

use crate::call::ladder::Ladder;
use crate::ground::{CallKey, Entropy, Secret, Transport};
use crate::shell::account::{Account, AccountFault};
use crate::shell::admin::{self, ReloadFault};
use crate::shell::agent::rest::{AgentService, AgentServiceSettings};
use crate::shell::config::{BaseUrl, Config, UnlistedUdp};
use crate::shell::entropy;
use crate::shell::flow::{
    self, FlowFault, FlowSettings, FlowTasks, Flows, Patience, UnlistedSource,
};
use crate::shell::media::{Bound, MediaPlane, MediaSettings};
use crate::shell::resolver::{DnsSettings, Resolver};
use crate::shell::signalling::{Inlets, Published, Request, Signalling, Snapshot};
use crate::shell::sounds::SoundLibrary;
use crate::shell::sources::Sources;
use crate::shell::store::{Store, StoreFault, StoreThread};
use crate::shell::tls::{self, ClientConfig, Pem, TlsFault};
use crate::shell::webhook::{self, Webhook, WebhookSettings};
use crate::standin::{Standin, StandinOptions};
use crate::switchboard::Switchboard;
use certificates::Certificates;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Why the daemon does not start; each in one sentence with what to do.
#[derive(Debug)]
pub enum StartFault {
    /// The system gives no randomness.
    Entropy(std::io::Error),
    Tls(TlsFault),
    Flow(FlowFault),
    Store(StoreFault),
    Account(AccountFault),
    Media(std::io::Error),
    /// `media.address` cannot be bound, so no call would have a port.
    MediaAddress {
        address: IpAddr,
        error: std::io::Error,
    },
    Agent(String),
    Admin {
        address: SocketAddr,
        error: std::io::Error,
    },
}

impl fmt::Display for StartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartFault::Entropy(error) => write!(f, "the system gives no randomness: {error}"),
            StartFault::Agent(words) => f.write_str(words),
            StartFault::Tls(fault) => write!(f, "{fault}"),
            StartFault::Flow(fault) => write!(f, "{fault}"),
            StartFault::Store(fault) => write!(f, "{fault}"),
            StartFault::Account(fault) => write!(f, "{fault}"),
            StartFault::Media(error) => write!(f, "the media threads do not start: {error}"),
            StartFault::MediaAddress { address, error } => write!(
                f,
                "media cannot be bound to {address}: {}; see `ip address`, and correct \
                 media.address",
                match error.kind() {
                    std::io::ErrorKind::AddrNotAvailable => {
                        "no interface of this machine has that address".to_owned()
                    }
                    _ => error.to_string(),
                }
            ),
            StartFault::Admin { address, error } => write!(
                f,
                "the admin listener {address} cannot be opened: {}; choose another address under \
                 [admin] listen",
                match error.kind() {
                    std::io::ErrorKind::AddrInUse => "another program has this port".to_owned(),
                    std::io::ErrorKind::AddrNotAvailable => {
                        "no interface of this machine has it".to_owned()
                    }
                    _ => error.to_string(),
                }
            ),
        }
    }
}

impl std::error::Error for StartFault {}

/// How long peers may take to answer our BYEs when the daemon stops.
const FAREWELLS: Duration = Duration::from_secs(5);
/// Requests that may wait for the signalling task.
const REQUESTS_MAX: usize = 64;

/// A running daemon.
pub struct Daemon {
    config: Config,
    account: Arc<Account>,
    certificates: Arc<Certificates>,
    requests: mpsc::Sender<Request>,
    signalling: JoinHandle<()>,
    flows: Flows,
    flow_tasks: FlowTasks,
    media: Arc<MediaPlane>,
    store: Store,
    store_thread: StoreThread,
    standin: Option<Standin>,
    admin: JoinHandle<()>,
    admin_stop: oneshot::Sender<()>,
    admin_address: SocketAddr,
    published: Arc<Mutex<Published>>,
}

impl Daemon {
    /// Starts everything; when it returns, calls are taken.
    ///
    /// # Errors
    ///
    /// One sentence for whatever is missing, busy or unreadable. Nothing keeps running then.
    pub async fn start(config: &Config) -> Result<Daemon, StartFault> {
        let api_key = api_key(config)?;
        let standin = start_standin(config, &api_key).await?;
        let client_tls = client_tls(standin.as_ref()).map_err(StartFault::Tls)?;
        let agents = Arc::new(agent_service(config, &api_key, standin.as_ref(), &client_tls)?);
        let webhook = webhook(config)?;
        let (store, store_thread) = Store::open(&config.store.path).map_err(StartFault::Store)?;
        let (requests, request_inlet) = mpsc::channel(REQUESTS_MAX);
        let account = Account::open(
            &config.sip,
            &config.fallback,
            store.clone(),
            requests.downgrade(),
            from_os()?,
        );
        let account = Arc::new(account.map_err(StartFault::Account)?);
        let in_force = Arc::clone(&account.in_force().config);
        let sources = Arc::new(Sources::new(Arc::clone(&in_force)));
        let (media_events, media_inlet) = mpsc::unbounded_channel();
        let media = start_media(config, standin.is_some(), client_tls, media_events)?;
        let (flow_inputs, flow_inlet) = flow::inputs(crate::ground::limits::SIGNALLING_QUEUE_MAX);
        let certificates = Arc::new(Certificates::open(config).map_err(StartFault::Tls)?);
        let flow_settings = flow_settings(config, &sources, &certificates);
        let (flows, flow_tasks) =
            Flows::start(flow_settings, flow_inputs).await.map_err(StartFault::Flow)?;
        let board = Switchboard::new(settings::of(config, flows.bound()), in_force, from_os()?);
        let published = Arc::new(Mutex::new(Published::default()));
        let parts = Signalling {
            board,
            flows: flows.clone(),
            resolver: Resolver::new(DnsSettings {
                servers: config.dns.servers.clone(),
                ..DnsSettings::default()
            }),
            media: Arc::clone(&media),
            agents: Arc::clone(&agents),
            sounds: SoundLibrary::new(webhook.clone()),
            webhook,
            store: store.clone(),
            sources,
            published: Arc::clone(&published),
        };
        let inlets = Inlets { flow: flow_inlet, media: media_inlet, requests: request_inlet };
        let signalling = tokio::spawn(parts.run(inlets));
        account.begin_registrations().await.map_err(StartFault::Account)?;
        let observed = observe::Observed {
            flows: flows.clone(),
            media: Arc::clone(&media),
            store: store.clone(),
            published: Arc::clone(&published),
            ports: *config.media.ports.start()..=*config.media.ports.end(),
        };
        let lent = observe::Lent {
            account: Arc::clone(&account),
            certificates: Arc::clone(&certificates),
            agents,
            signalling: requests.downgrade(),
            ultravox_key: api_key,
        };
        let (admin, admin_stop, admin_address) = start_admin(config, observed, lent).await?;
        Ok(Daemon {
            config: config.clone(),
            account,
            certificates,
            requests,
            signalling,
            flows,
            flow_tasks,
            media,
            store,
            store_thread,
            standin,
            admin,
            admin_stop,
            admin_address,
            published,
        })
    }

    /// The SIP listeners with the addresses that they really have.
    pub fn bound(&self) -> &[(Transport, SocketAddr)] {
        self.flows.bound()
    }

    /// The first listener of a transport.
    pub fn address(&self, transport: Transport) -> Option<SocketAddr> {
        self.bound().iter().find(|(kind, _)| *kind == transport).map(|(_, address)| *address)
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The embedded stand-in, when `ultravox.base_url = "embedded"`.
    pub fn standin(&self) -> Option<&Standin> {
        self.standin.as_ref()
    }

    /// Who knocked without being listed, the one seen last first.
    pub fn unlisted(&self) -> Vec<UnlistedSource> {
        self.flows.unlisted().rows()
    }

    /// What is going on in signalling now.
    pub async fn snapshot(&self) -> Snapshot {
        let (reply, snapshot) = oneshot::channel();
        // A signalling task that is gone has nothing going on.
        let _ = self.requests.send(Request::Snapshot(reply)).await;
        snapshot.await.unwrap_or_default()
    }

    /// The ladder of a call, live or ended lately.
    pub async fn ladder(&self, call: CallKey) -> Option<Ladder> {
        let (reply, ladder) = oneshot::channel();
        let _ = self.requests.send(Request::Ladder(call, reply)).await;
        ladder.await.ok().flatten()
    }

    /// Reads the configuration file again and puts the account's rules and new certificates in force.
    /// Gives what changed, in words.
    ///
    /// # Errors
    /// Every problem of the file, or why nothing changed.
    pub async fn reload(&self) -> Result<Vec<String>, ReloadFault> {
        reload(&self.config, &self.account, &self.certificates).await
    }

    /// True while signalling and every shard make progress: what the watchdog is fed by.
    pub fn is_alive(&self) -> bool {
        observe::is_alive(&self.published, &self.media)
    }

    /// Refuses new calls, waits until running ones have ended or `grace` is over, and then for the
    /// peers' answers to our BYEs, though not for as long as RFC 3261 would (32 s).
    pub async fn drain(&self, grace: Duration) {
        let (done, drained) = oneshot::channel();
        let _ = self.requests.send(Request::Drain { grace, done }).await;
        if tokio::time::timeout(grace + FAREWELLS, drained).await.is_err() {
            tracing::warn!("some peers did not answer our BYE");
        }
    }

    /// Drains and takes every part down; the store is flushed last.
    pub async fn stop(mut self, grace: Duration) {
        self.drain(grace).await;
        self.flow_tasks.stop().await;
        drop(self.requests);
        if self.signalling.await.is_err() {
            tracing::error!("signalling had panicked");
        }
        drop(self.admin_stop);
        // A client that never ends its request must not hold the process.
        match tokio::time::timeout(FAREWELLS, &mut self.admin).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("the admin listener had panicked"),
            Err(_) => self.admin.abort(),
        }
        if let Some(media) = Arc::into_inner(self.media) {
            media.stop();
        }
        if let Some(standin) = self.standin {
            standin.stop().await;
        }
        let store_thread = self.store_thread;
        // The writer thread ends when its last record is on disk.
        let _ = tokio::task::spawn_blocking(move || store_thread.stop()).await;
    }
}

/// The configured key; the embedded stand-in gets one for this run when the file gives none.
fn api_key(config: &Config) -> Result<Secret, StartFault> {
    let embedded = config.ultravox.base_url == BaseUrl::Embedded;
    match config.ultravox.api_key.is_empty() && embedded {
        true => Ok(Secret::new(from_os()?.token(128))),
        false => Ok(config.ultravox.api_key.clone()),
    }
}

async fn start_standin(config: &Config, key: &Secret) -> Result<Option<Standin>, StartFault> {
    match &config.ultravox.base_url {
        BaseUrl::Url(_) => Ok(None),
        BaseUrl::Embedded => {
            let own = from_os()?;
            let options = StandinOptions { tls: true, ..StandinOptions::local(key.clone(), own) };
            let standin = Standin::start(options).await;
            standin.map(Some).map_err(|error| StartFault::Agent(error.to_string()))
        }
    }
}

fn from_os() -> Result<Entropy, StartFault> {
    entropy::from_os().map_err(StartFault::Entropy)
}

fn client_tls(standin: Option<&Standin>) -> Result<Arc<ClientConfig>, TlsFault> {
    let root = standin.and_then(Standin::root_certificate);
    let extra: Vec<Pem> = root.map(|pem| Pem::from_text("the stand-in", pem)).into_iter().collect();
    tls::client_config(standin.is_none(), &extra)
}

fn agent_service(
    config: &Config,
    api_key: &Secret,
    standin: Option<&Standin>,
    tls: &Arc<ClientConfig>,
) -> Result<AgentService, StartFault> {
    let base_url = match (&config.ultravox.base_url, standin) {
        (BaseUrl::Url(url), _) => url.clone(),
        (BaseUrl::Embedded, standin) => {
            standin.map(|standin| standin.base_url().to_owned()).unwrap_or_default()
        }
    };
    let settings = AgentServiceSettings {
        plain: is_loopback_http(&base_url),
        base_url,
        api_key: api_key.clone(),
        tls: Arc::clone(tls),
    };
    AgentService::new(&settings).map_err(|fault| StartFault::Agent(fault.to_string()))
}

fn webhook(config: &Config) -> Result<Webhook, StartFault> {
    let ca = config.fallback.ca.as_deref().map(Pem::read).transpose().map_err(StartFault::Tls)?;
    let settings = WebhookSettings {
        tls: tls::client_config(true, ca.as_slice()).map_err(StartFault::Tls)?,
        allowed_private: config.fallback.allowed_private.clone(),
        plain_http: config.fallback.plain_http,
        resolve: webhook::system_resolver(),
    };
    Webhook::new(settings).map_err(|fault| StartFault::Agent(fault.to_string()))
}

/// Plain HTTP is taken towards this machine only.
fn is_loopback_http(url: &str) -> bool {
    let host = url.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next());
    matches!(host, Some(Some("127.0.0.1" | "localhost")))
}

fn start_media(
    config: &Config,
    embedded: bool,
    tls: Arc<ClientConfig>,
    events: mpsc::UnboundedSender<crate::media::plan::ForCall<crate::media::plan::MediaEvent>>,
) -> Result<Arc<MediaPlane>, StartFault> {
    for address in [config.media.bind.v4, config.media.bind.v6].into_iter().flatten() {
        // Any port will do: calls take theirs when they come.
        let bound = std::net::UdpSocket::bind((address, 0));
        bound.map_err(|error| StartFault::MediaAddress { address, error })?;
    }
    let mut settings = MediaSettings::new(tls);
    settings.shards = config.media.shards.unwrap_or(settings.shards);
    settings.join_hosts = config.ultravox.join_domains.clone();
    settings.plain_ws_loopback = embedded;
    settings.refuse = Bound::new(config.media.refuse_busy_percent, config.media.refuse_lateness_ms);
    // Signalling outlives the shards; an event after its end has no receiver and no meaning.
    let sink = move |event| drop(events.send(event));
    let seed = entropy::os_seed().map_err(StartFault::Entropy)?;
    MediaPlane::start(settings, sink, seed).map(Arc::new).map_err(StartFault::Media)
}

fn flow_settings(
    config: &Config,
    sources: &Arc<Sources>,
    certificates: &Certificates,
) -> FlowSettings {
    let list = |transport, addresses: &[SocketAddr]| {
        addresses.iter().map(move |address| (transport, *address)).collect::<Vec<_>>()
    };
    let mut listeners = list(Transport::Udp, &config.listen.udp);
    listeners.extend(list(Transport::Tcp, &config.listen.tcp));
    listeners.extend(list(Transport::Tls, &config.listen.tls));
    let sources = Arc::clone(sources);
    FlowSettings {
        tls: certificates.own(),
        peer_tls: certificates.peers(),
        answer_unlisted: config.sip.unlisted_udp == UnlistedUdp::Forbidden,
        gate: Arc::new(move |source| sources.admits(source)),
        listeners,
        patience: Patience::default(),
    }
}

async fn start_admin(
    config: &Config,
    observed: observe::Observed,
    lent: observe::Lent,
) -> Result<(JoinHandle<()>, oneshot::Sender<()>, SocketAddr), StartFault> {
    let address = config.admin.listen;
    let fault = |error| StartFault::Admin { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let tls =
        config.admin.tls.as_ref().map(certificates::server).transpose().map_err(StartFault::Tls)?;
    let state = observed.admin_state(config, bound, lent);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let stopped = async move { drop(stopped.await) };
        if let Err(error) = admin::serve(listener, tls, state, stopped).await {
            tracing::error!(%error, "the admin listener broke");
        }
    });
    Ok((task, stop, bound))
}
