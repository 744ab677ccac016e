//! Next hops by name (RFC 3263): drives a [`Locator`] with the name servers of the system
//! (`resolv.conf`) or those of `[dns] servers`. A host that the hosts file knows is taken from there
//! and its NAPTR and SRV records are not asked for. Answers are kept for their time to live, negative
//! ones too. Each search has one budget; what is not answered by then counts as unanswered. The one
//! door to `hickory_resolver`.

use crate::sip::locator::{Answer, Locator, Naptr, Question, Reach, Srv};
use crate::sip::target::{Hop, LocateFault, Target};
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// A whole search: a call that rings cannot wait longer.
const SEARCH: Duration = Duration::from_secs(5);
/// One question to one name server; it is asked once more, and the next server is asked beside it.
const QUESTION: Duration = Duration::from_millis(1_500);
/// Searches that run at once; others wait for their turn within their budget.
const SEARCHES_MAX: usize = 64;
/// Questions under way to one name server.
const QUESTIONS_MAX: usize = 1_024;
/// Records that are kept.
const KEPT_MAX: u64 = 8_192;
/// A "no" is asked again after this long, whatever its zone says: new trunks should come up soon.
const NEGATIVE_MAX: Duration = Duration::from_secs(60);

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Which name servers and which hosts file.
#[derive(Clone, Debug)]
pub struct DnsSettings {
    /// Empty: those of the system.
    pub servers: Vec<SocketAddr>,
    pub hosts: PathBuf,
}

impl Default for DnsSettings {
    fn default() -> DnsSettings {
        DnsSettings { servers: Vec::new(), hosts: HOSTS.into() }
    }
}

/// Finds next hops; clones share one memory of answers.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    settings: DnsSettings,
    /// Rebuilt when the system's files change, since a network that comes up later writes them.
    current: Mutex<(Stamps, Arc<Client>)>,
    searches: Semaphore,
}

/// When `resolv.conf` and the hosts file were written.
type Stamps = [Option<SystemTime>; 2];

struct Client {
    names: TokioResolver,
    hosts: Hosts,
}

impl Resolver {
    /// A resolver; what cannot be read of the system's files is left out with a warning.
    pub fn new(settings: DnsSettings) -> Resolver {
        let current = Mutex::new((stamps(&settings), Arc::new(Client::new(&settings))));
        Resolver(Arc::new(Shared { settings, current, searches: Semaphore::new(SEARCHES_MAX) }))
    }

    /// The next hops of `target`, best first; `seed` decides among SRV records of one priority.
    ///
    /// # Errors
    /// [`LocateFault`], after five seconds at the latest.
    pub async fn locate(
        &self,
        target: &Target,
        seed: u64,
        reach: Reach,
    ) -> Result<Vec<Hop>, LocateFault> {
        let mut locator = Locator::new(target, seed, reach);
        if let Some(result) = locator.result() {
            return result;
        }
        let deadline = Instant::now() + SEARCH;
        let Ok(Ok(_place)) = timeout_at(deadline, self.0.searches.acquire()).await else {
            return Err(LocateFault::Unanswered);
        };
        let client = self.client();
        loop {
            self.answer_all(&client, &mut locator, deadline).await;
            if let Some(result) = locator.result() {
                return result;
            }
        }
    }

    /// Asks all that the locator wants to know now, together.
    async fn answer_all(&self, client: &Arc<Client>, locator: &mut Locator, deadline: Instant) {
        let mut asked = Vec::new();
        let mut running = JoinSet::new();
        while let Some(question) = locator.poll_question() {
            let client = Arc::clone(client);
            asked.push(question.clone());
            running.spawn(async move { (client.ask(&question).await, question) });
        }
        while let Ok(Some(done)) = timeout_at(deadline, running.join_next()).await {
            let Ok((answer, question)) = done else { continue };
            locator.handle_answer(&question, answer);
        }
        // What was answered is not waited for any more, and a second answer changes nothing.
        for question in asked {
            locator.handle_answer(&question, Answer::Unanswered);
        }
    }

    fn client(&self) -> Arc<Client> {
        let stamps = stamps(&self.0.settings);
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != stamps {
            tracing::info!("resolv.conf or the hosts file has changed: it is read again");
            *current = (stamps, Arc::new(Client::new(&self.0.settings)));
        }
        Arc::clone(&current.1)
    }
}

fn stamps(settings: &DnsSettings) -> Stamps {
    let written = |path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    [written(RESOLV_CONF.as_ref()), written(settings.hosts.as_path())]
}

impl Client {
    fn new(settings: &DnsSettings) -> Client {
        let mut hosts = Hosts::default();
        let read = std::fs::File::open(&settings.hosts).and_then(|f| hosts.read_hosts_conf(f));
        if let Err(error) = read {
            tracing::warn!(%error, path = %settings.hosts.display(), "the hosts file is not read");
        }
        Client { names: names(&settings.servers), hosts }
    }

    async fn ask(&self, question: &Question) -> Answer {
        let (name, kind) = match question {
            Question::Naptr(name) => (name, RecordType::NAPTR),
            Question::Srv(name) => (name, RecordType::SRV),
            Question::A(name) => (name, RecordType::A),
            Question::Aaaa(name) => (name, RecordType::AAAA),
        };
        let Ok(mut name) = Name::from_ascii(name) else { return Answer::Nothing };
        // The search list is for bare host names only: a domain is never looked for elsewhere.
        if name.num_labels() > 1 {
            name.set_fqdn(true);
        }
        if let Some(answer) = self.of_hosts(&name, kind) {
            return answer;
        }
        match self.names.lookup(name, kind).await {
            Ok(found) => answer_of(&found, kind),
            Err(error) => fault_of(&error),
        }
    }

    /// What the hosts file says of a name, or of the host that a service name ends in.
    fn of_hosts(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let is_service = |label: &[u8]| label.first() == Some(&b'_');
        let services = name.iter().take_while(|label| is_service(label)).count();
        let host = name.trim_to(usize::from(name.num_labels()).saturating_sub(services));
        let of_kind = |kind| self.hosts.lookup_static_host(&Query::query(host.clone(), kind));
        let (v4, v6) = (of_kind(RecordType::A), of_kind(RecordType::AAAA));
        if v4.is_none() && v6.is_none() {
            return None;
        }
        let found = match kind {
            RecordType::A => v4,
            RecordType::AAAA => v6,
            _ => None,
        };
        Some(found.map_or(Answer::Nothing, |found| answer_of(&found, kind)))
    }
}

/// The client of the configured servers, or of the system's, or of this machine's as `resolv.conf`
/// has it by default.
fn names(servers: &[SocketAddr]) -> TokioResolver {
    let configured = |servers: &[SocketAddr]| {
        let servers = servers.iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
    let builder = match servers {
        [] => TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "resolv.conf cannot be read: the name server of this machine is asked");
            configured(&[here])
        }),
        servers => configured(servers),
    };
    built(builder)
}

fn built(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> TokioResolver {
    let options = builder.options_mut();
    options.timeout = QUESTION;
    options.attempts = 2;
    options.cache_size = KEPT_MAX;
    options.negative_max_ttl = Some(NEGATIVE_MAX);
    options.max_active_requests = QUESTIONS_MAX;
    options.try_tcp_on_error = true;
    builder.build().expect("a client without TLS needs nothing that can be missing")
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn answer_of(found: &Lookup, kind: RecordType) -> Answer {
    let data = || found.answers().iter().map(|record| &record.data);
    match kind {
        RecordType::NAPTR => Answer::Naptr(data().filter_map(naptr).collect()),
        RecordType::SRV => Answer::Srv(data().filter_map(srv).collect()),
        _ => Answer::Addresses(data().filter_map(RData::ip_addr).collect()),
    }
}

fn naptr(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(record) = data else { return None };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Naptr {
        order: record.order,
        preference: record.preference,
        flags: text(&record.flags),
        services: text(&record.services),
        has_regexp: !record.regexp.is_empty(),
        replacement: bare(&record.replacement),
    })
}

fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(record) = data else { return None };
    let (priority, weight, port) = (record.priority, record.weight, record.port);
    Some(Srv { priority, weight, port, host: bare(&record.target) })
}

/// A name without its final dot; the root is empty.
fn bare(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Only a server that knows the zone can say "no".
fn fault_of(error: &NetError) -> Answer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(no)) => match no.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Answer::Nothing,
            _ => Answer::Unanswered,
        },
        _ => Answer::Unanswered,
    }
}
