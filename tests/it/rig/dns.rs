//! An authoritative name server on loopback. A test writes its zone and changes it while it serves;
//! each question is counted.

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NAPTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The server; it ends when it is dropped.
pub struct NameServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Vec<Entry>>,
    asked: Mutex<BTreeMap<(String, RecordType), usize>>,
    stopping: AtomicBool,
}

/// One line of the zone; without data the name is not answered at all, or with SERVFAIL.
struct Entry {
    name: Name,
    ttl: u32,
    data: Option<RData>,
    servfail: bool,
}

impl NameServer {
    /// Starts with a zone; see [`NameServer::set`].
    pub fn start(zone: &str) -> NameServer {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
        let address = socket.local_addr().expect("it is bound");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a valid time");
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || served.serve(&socket));
        let server = NameServer { address, shared, thread: Some(thread) };
        server.set(zone);
        server
    }

    /// Replaces the zone: lines of `name ttl TYPE data`, with `A`, `AAAA`, `CNAME`, `SRV`, `NAPTR`
    /// (`order preference flags services regexp replacement`, `-` for an empty text), and `SILENT`
    /// and `SERVFAIL` for names that get no answer or a failure.
    pub fn set(&self, zone: &str) {
        let lines = zone.lines().map(str::trim).filter(|line| !line.is_empty());
        *lock(&self.shared.zone) = lines.map(entry).collect();
    }

    /// How often a question was asked.
    pub fn asked(&self, name: &str, kind: RecordType) -> usize {
        let key = (self::name(name).to_ascii(), kind);
        lock(&self.shared.asked).get(&key).copied().unwrap_or(0)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while !self.stopping.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            let Ok(query) = Message::from_vec(&buffer[..len]) else { continue };
            if let Some(answer) = self.answer(&query) {
                let bytes = answer.to_vec().expect("our own records can be written");
                // Whoever asked may be gone.
                let _ = socket.send_to(&bytes, from);
            }
        }
    }

    fn answer(&self, query: &Message) -> Option<Message> {
        let question: &Query = query.queries.first()?;
        let key = (question.name().to_lowercase().to_ascii(), question.query_type());
        *lock(&self.asked).entry(key).or_default() += 1;
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.authoritative = true;
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(question.clone());
        let zone = lock(&self.zone);
        let mut name = question.name().clone();
        let mut known = false;
        // An alias is followed within the zone.
        for _ in 0..8 {
            let of_name = || zone.iter().filter(|entry| entry.name == name);
            known |= of_name().next().is_some();
            if of_name().any(|entry| entry.data.is_none() && !entry.servfail) {
                return None;
            }
            if of_name().any(|entry| entry.servfail) {
                answer.metadata.response_code = ResponseCode::ServFail;
                return Some(answer);
            }
            let records = |kind| {
                let of_kind = move |entry: &&Entry| {
                    entry.data.as_ref().is_some_and(|data| data.record_type() == kind)
                };
                of_name().filter(of_kind).filter_map(record)
            };
            answer.add_answers(records(question.query_type()));
            let alias = records(RecordType::CNAME).next();
            let Some(alias) = alias else { break };
            let RData::CNAME(target) = &alias.data else { break };
            name = target.0.clone();
            answer.add_answer(alias);
        }
        if answer.answers.is_empty() {
            let code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
            answer.metadata.response_code = code;
            let root = Name::root();
            let soa = SOA::new(root.clone(), root.clone(), 1, 3600, 600, 86_400, 30);
            answer.add_authority(Record::from_rdata(root, 30, RData::SOA(soa)));
        }
        Some(answer)
    }
}

fn record(entry: &Entry) -> Option<Record> {
    let data = entry.data.clone()?;
    Some(Record::from_rdata(entry.name.clone(), entry.ttl, data))
}

fn entry(line: &str) -> Entry {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u16>().expect("a number");
    let text = |at: usize| match words[at] {
        "-" => Box::default(),
        text => text.as_bytes().into(),
    };
    let data = match words[2] {
        "A" => Some(RData::A(A(words[3].parse().expect("IPv4")))),
        "AAAA" => Some(RData::AAAA(AAAA(words[3].parse().expect("IPv6")))),
        "CNAME" => Some(RData::CNAME(CNAME(name(words[3])))),
        "SRV" => Some(RData::SRV(SRV::new(number(3), number(4), number(5), name(words[6])))),
        "NAPTR" => Some(RData::NAPTR(NAPTR::new(
            number(3),
            number(4),
            text(5),
            text(6),
            text(7),
            name(words[8]),
        ))),
        "SILENT" | "SERVFAIL" => None,
        other => panic!("no record type of this server: {other}"),
    };
    let ttl = words[1].parse().expect("seconds");
    Entry { name: name(words[0]), ttl, data, servfail: words[2] == "SERVFAIL" }
}

/// An absolute name.
fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the server does not panic")
}
