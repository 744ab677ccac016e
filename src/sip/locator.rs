//! From a target to its next hops (RFC 3263 §4): NAPTR by order and preference, SRV by priority and
//! weight (RFC 2782), then A and AAAA. It asks questions and is given the answers; whoever drives it
//! keeps the time. Each step that does not depend on another is asked at once.
//!
//! ```text
//! literal address                    nothing is asked
//! name with a port                   A, AAAA
//! name with a transport, or sips     SRV of that transport; none: A, AAAA with the default port
//! bare name                          NAPTR → SRV of each service in order
//!                                    no NAPTR: SRV of UDP, TCP and TLS; the first that has one wins
//!                                    no SRV either: A, AAAA over UDP, port 5060
//! ```
//!
//! A name server that is silent about an SRV record is not taken for a "no": the request would go to
//! the web server of the domain. It never remembers an answer: time to live is the resolver's.

mod weigh;

use super::target::{Hop, LocateFault, Target, TargetHost};
use crate::ground::{Entropy, Transport};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Hops of one target; more cannot be tried within a call's set-up.
pub const HOPS_MAX: usize = 16;
/// Records of one answer that are read.
const RECORDS_MAX: usize = 32;
/// Services of one NAPTR answer that are followed.
const SERVICES_MAX: usize = 8;
/// Addresses of one name and family.
const ADDRESSES_MAX: usize = 8;

/// The address families that we can send from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// What can be reached from here. Packets leave from a listening socket; connections need a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    pub packets: Families,
    pub connections: Families,
}

impl Reach {
    fn of(&self, transport: Transport) -> Families {
        if transport.is_reliable() { self.connections } else { self.packets }
    }
}

/// What is asked of a name server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Question {
    Naptr(String),
    Srv(String),
    A(String),
    Aaaa(String),
}

/// A NAPTR record (RFC 3403 §4.1), as far as RFC 3263 uses it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub services: String,
    /// A record with a rewriting rule is not followed.
    pub has_regexp: bool,
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Empty: the service is decidedly not offered.
    pub host: String,
}

/// What a name server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Naptr(Vec<Naptr>),
    Srv(Vec<Srv>),
    Addresses(Vec<IpAddr>),
    /// No such name, or no such record.
    Nothing,
    /// No answer, or one that says nothing about the name (SERVFAIL, REFUSED).
    Unanswered,
}

/// One search for next hops. Ask every [`Locator::poll_question`], give each answer to
/// [`Locator::handle_answer`], until [`Locator::result`] is there.
pub struct Locator {
    identity: TargetHost,
    reach: Reach,
    entropy: Entropy,
    unasked: VecDeque<Question>,
    waiting: BTreeSet<Question>,
    answers: BTreeMap<Question, Answer>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// NAPTR of a bare name.
    Services {
        host: String,
    },
    /// SRV of these services, best first.
    Servers {
        host: String,
        services: Vec<Service>,
        rule: Rule,
    },
    /// A and AAAA of these servers, best first.
    Addresses {
        servers: Vec<Server>,
    },
    Ended(Result<Vec<Hop>, LocateFault>),
}

/// How several services go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// The domain named them in order: all of them count.
    All,
    /// We guessed them: the first that is there counts.
    First,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Service {
    transport: Transport,
    /// The name that has the SRV records, or, for flag `A`, the addresses.
    at: Question,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Server {
    transport: Transport,
    host: String,
    port: u16,
}

impl Locator {
    /// Begins a search; `seed` decides among SRV records of one priority.
    pub fn new(target: &Target, seed: u64, reach: Reach) -> Locator {
        let mut locator = Locator {
            identity: target.host.clone(),
            reach,
            entropy: Entropy::from_number(seed),
            unasked: VecDeque::new(),
            waiting: BTreeSet::new(),
            answers: BTreeMap::new(),
            stage: Stage::Ended(Err(LocateFault::NoSuchName)),
        };
        locator.begin(target);
        locator
    }

    /// The next question; each is given once. Several may be under way together.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.unasked.pop_front()
    }

    /// A question was answered; an answer that nobody waits for is ignored.
    pub fn handle_answer(&mut self, question: &Question, answer: Answer) {
        if self.waiting.remove(question) {
            self.answers.insert(question.clone(), answer);
            if self.waiting.is_empty() {
                self.advance();
            }
        }
    }

    /// The hops, best first, none of them twice; `None` while questions are open.
    pub fn result(&self) -> Option<Result<Vec<Hop>, LocateFault>> {
        match &self.stage {
            Stage::Ended(result) => Some(result.clone()),
            Stage::Services { .. } | Stage::Servers { .. } | Stage::Addresses { .. } => None,
        }
    }

    fn begin(&mut self, target: &Target) {
        let transport = target.transport.unwrap_or(Transport::Udp);
        match (&target.host, target.port, target.transport) {
            (TargetHost::Address(address), port, _) => {
                let port = port.unwrap_or(default_port(transport));
                let address = SocketAddr::new(*address, port);
                let identity = self.identity.clone();
                self.stage = Stage::Ended(Ok(vec![Hop { transport, address, identity }]));
            }
            (TargetHost::Name(host), Some(port), _) => {
                self.ask_addresses(vec![Server { transport, host: host.clone(), port }]);
            }
            (TargetHost::Name(host), None, Some(transport)) => {
                self.ask_servers(host.clone(), vec![guessed(transport, host)], Rule::First);
            }
            (TargetHost::Name(host), None, None) => {
                self.ask(Question::Naptr(host.clone()));
                self.stage = Stage::Services { host: host.clone() };
            }
        }
    }

    fn ask(&mut self, question: Question) {
        if !self.answers.contains_key(&question) && self.waiting.insert(question.clone()) {
            self.unasked.push_back(question);
        }
    }

    fn ask_servers(&mut self, host: String, services: Vec<Service>, rule: Rule) {
        for service in &services {
            if let Question::Srv(_) = service.at {
                self.ask(service.at.clone());
            }
        }
        self.stage = Stage::Servers { host, services, rule };
        self.advance_when_answered();
    }

    fn ask_addresses(&mut self, mut servers: Vec<Server>) {
        servers.truncate(HOPS_MAX);
        for server in &servers {
            let families = self.reach.of(server.transport);
            if literal(&server.host).is_some() {
                continue;
            }
            if families.v4 {
                self.ask(Question::A(server.host.clone()));
            }
            if families.v6 {
                self.ask(Question::Aaaa(server.host.clone()));
            }
        }
        self.stage = Stage::Addresses { servers };
        self.advance_when_answered();
    }

    fn advance_when_answered(&mut self) {
        if self.waiting.is_empty() {
            self.advance();
        }
    }

    /// All questions of this stage are answered.
    fn advance(&mut self) {
        let ended = Stage::Ended(Err(LocateFault::NoSuchName));
        match std::mem::replace(&mut self.stage, ended) {
            Stage::Services { host } => self.on_services(host),
            Stage::Servers { host, services, rule } => self.on_servers(host, &services, rule),
            Stage::Addresses { servers } => self.stage = Stage::Ended(self.hops(&servers)),
            Stage::Ended(result) => self.stage = Stage::Ended(result),
        }
    }

    /// Some name servers know nothing of NAPTR and fail: that is a "no".
    fn on_services(&mut self, host: String) {
        let records = match self.answers.get(&Question::Naptr(host.clone())) {
            Some(Answer::Naptr(records)) => records.as_slice(),
            _ => &[],
        };
        let of_sip = |record: &&Naptr| is_of_sip(&record.services);
        let mut records: Vec<&Naptr> = records.iter().take(RECORDS_MAX).filter(of_sip).collect();
        if records.is_empty() {
            let guesses = [Transport::Udp, Transport::Tcp, Transport::Tls];
            let services = guesses.map(|transport| guessed(transport, &host)).to_vec();
            return self.ask_servers(host, services, Rule::First);
        }
        records.sort_by_key(|record| (record.order, record.preference));
        let services = records.into_iter().filter_map(service);
        let services: Vec<Service> = services.take(SERVICES_MAX).collect();
        if services.is_empty() {
            self.stage = Stage::Ended(Err(LocateFault::NoTransport));
        } else {
            self.ask_servers(host, services, Rule::All);
        }
    }

    fn on_servers(&mut self, host: String, services: &[Service], rule: Rule) {
        let (mut servers, mut refused) = (Vec::new(), false);
        for service in services {
            if rule == Rule::First && !servers.is_empty() {
                break;
            }
            match (&service.at, self.answers.get(&service.at)) {
                (Question::A(name) | Question::Aaaa(name), _) => {
                    servers.push(server(service.transport, name));
                }
                (_, Some(Answer::Srv(records))) => {
                    let mut records: Vec<Srv> = records.iter().take(RECORDS_MAX).cloned().collect();
                    let count = records.len();
                    records.retain(|record| !record.host.is_empty());
                    refused |= records.len() < count;
                    servers.extend(weigh::in_order(records, &mut self.entropy).into_iter().map(
                        |Srv { host, port, .. }| Server {
                            transport: service.transport,
                            host,
                            port,
                        },
                    ));
                }
                (_, Some(_) | None) => {}
            }
        }
        let first = services.first().map_or(Transport::Udp, |service| service.transport);
        if !servers.is_empty() {
            self.ask_addresses(servers);
        } else if services.iter().any(|service| self.is_unanswered(&service.at)) {
            self.stage = Stage::Ended(Err(LocateFault::Unanswered));
        } else if refused {
            self.stage = Stage::Ended(Err(LocateFault::NoTransport));
        } else {
            self.ask_addresses(vec![server(first, &host)]);
        }
    }

    fn hops(&self, servers: &[Server]) -> Result<Vec<Hop>, LocateFault> {
        let mut hops: Vec<Hop> = Vec::new();
        for Server { transport, host, port } in servers {
            let of_name = [Question::A(host.clone()), Question::Aaaa(host.clone())];
            let families = self.reach.of(*transport);
            let found = of_name.iter().flat_map(|question| self.addresses(question));
            for address in literal(host).into_iter().chain(found) {
                let usable = if address.is_ipv4() { families.v4 } else { families.v6 };
                let address = SocketAddr::new(address, *port);
                let hop = Hop { transport: *transport, address, identity: self.identity.clone() };
                if usable && !hops.contains(&hop) && hops.len() < HOPS_MAX {
                    hops.push(hop);
                }
            }
        }
        let mut asked = self.answers.keys();
        match hops.is_empty() {
            false => Ok(hops),
            true if asked.any(|question| self.is_unanswered(question)) => {
                Err(LocateFault::Unanswered)
            }
            true => Err(LocateFault::NoSuchName),
        }
    }

    fn addresses(&self, question: &Question) -> impl Iterator<Item = IpAddr> {
        let found = match self.answers.get(question) {
            Some(Answer::Addresses(addresses)) => addresses.as_slice(),
            _ => &[],
        };
        found.iter().take(ADDRESSES_MAX).map(IpAddr::to_canonical)
    }

    fn is_unanswered(&self, question: &Question) -> bool {
        self.answers.get(question) == Some(&Answer::Unanswered)
    }
}

/// The port of a transport when none is named (RFC 3261 §19.1.2).
pub fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
    }
}

fn server(transport: Transport, host: &str) -> Server {
    Server { transport, host: host.to_owned(), port: default_port(transport) }
}

/// An address where RFC 2782 wants a name, as zones sometimes have it.
fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

/// The SRV name of a transport (RFC 3263 §4.1).
fn guessed(transport: Transport, host: &str) -> Service {
    let prefix = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    };
    Service { transport, at: Question::Srv(format!("{prefix}.{host}")) }
}

/// Whether a NAPTR speaks of SIP at all; a domain may have others, for telephone numbers or mail.
fn is_of_sip(services: &str) -> bool {
    let protocol = services.split_once('+').map_or("", |(protocol, _)| protocol);
    protocol.eq_ignore_ascii_case("SIP") || protocol.eq_ignore_ascii_case("SIPS")
}

/// The service of a NAPTR that we can follow.
fn service(record: &Naptr) -> Option<Service> {
    const SERVICES: [(&str, Transport); 3] =
        [("SIPS+D2T", Transport::Tls), ("SIP+D2T", Transport::Tcp), ("SIP+D2U", Transport::Udp)];
    let named = |(word, _): &&(&str, Transport)| record.services.eq_ignore_ascii_case(word);
    let (_, transport) = *SERVICES.iter().find(named)?;
    let name = record.replacement.clone();
    if record.has_regexp || name.is_empty() {
        return None;
    }
    let at = match record.flags.as_str() {
        "s" | "S" => Question::Srv(name),
        "a" | "A" => Question::A(name),
        _ => return None,
    };
    Some(Service { transport, at })
}

#[cfg(test)]
mod tests;
