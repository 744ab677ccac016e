//! SIP over the network: listeners, connections and the way out (RFC 3261 §18). A packet's source is
//! admitted before a byte of it is parsed; what comes through is framed, parsed and passed to the
//! signalling task; what is malformed is answered here, to the packet's source and nowhere else.
//! Decides nothing about calls. Every task is joined by [`FlowTasks::stop`].

mod bind;
mod counters;
mod resolve;
mod stream;
mod tcp;
mod tls;
mod udp;
mod unlisted;

pub use bind::FlowFault;
pub use counters::FlowCounters;
pub use unlisted::{UnlistedSource, UnlistedSources};

use crate::ground::{Flow, FlowId, Transport, limits};
use crate::shell::tls::ServerConfig;
use crate::sip::destination::Destination;
use crate::sip::msg::Message;
use bytes::Bytes;
use counters::Counters;
use resolve::Lookup;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Whether a source may speak to us. Called for each packet and each connection, with IPv4-mapped
/// addresses as IPv4; must not block.
pub type SourceGate = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The TLS configuration of the listeners; a new value serves the connections that come after it.
pub type TlsSource = watch::Receiver<Arc<ServerConfig>>;

/// What to listen on and whom to hear.
#[derive(Clone)]
pub struct FlowSettings {
    /// Port 0 takes a free one; see [`Flows::bound`].
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// Needed by TLS listeners; when there, TCP listeners take TLS too, told by its first byte.
    pub tls: Option<TlsSource>,
    pub gate: SourceGate,
    /// Answer unlisted UDP requests with 403 instead of silence.
    pub answer_unlisted: bool,
    pub patience: Patience,
}

/// How long a connection may take for what (security S5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    pub handshake: Duration,
    /// The first message, and every begun one.
    pub message: Duration,
    /// Between messages, without a call.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            handshake: limits::TLS_HANDSHAKE,
            message: limits::STREAM_MESSAGE,
            idle: limits::STREAM_IDLE,
        }
    }
}

/// What comes in, in the order in which it came on its flow.
#[derive(Debug)]
pub enum FlowInput {
    Opened {
        flow: Flow,
    },
    Message {
        flow: Flow,
        message: Message,
    },
    /// The connection is gone; nothing can be sent on it any more.
    Closed {
        flow: Flow,
    },
    /// To be told when all that came before it was handled.
    Settle {
        done: oneshot::Sender<()>,
    },
}

/// The handle to all flows; clones are the same flows.
#[derive(Clone)]
pub struct Flows(Arc<Shared>);

/// The tasks behind the flows. Dropping it ends them all.
pub struct FlowTasks {
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

struct Shared {
    settings: FlowSettings,
    inputs: mpsc::Sender<FlowInput>,
    lookups: mpsc::Sender<Lookup>,
    next_flow: AtomicU64,
    /// Filled by `start` and never changed.
    packets: BTreeMap<FlowId, Arc<UdpSocket>>,
    bound: Vec<(Transport, SocketAddr)>,
    connections: Mutex<Connections>,
    unlisted: UnlistedSources,
    counters: Counters,
}

#[derive(Default)]
struct Connections {
    open: BTreeMap<FlowId, Arc<Connection>>,
    /// Accepted connections by source, those in their handshake included.
    by_source: BTreeMap<IpAddr, usize>,
    all: usize,
}

/// The sending side of one connection.
struct Connection {
    queue: mpsc::Sender<Write>,
    /// Bytes in the queue.
    backlog: AtomicUsize,
    /// A live call is on it: it may be idle.
    kept: AtomicBool,
    /// It must close now.
    broken: Notify,
}

enum Write {
    Bytes(Bytes),
    /// Close when all before it is written.
    Close,
}

impl Flows {
    /// Binds all listeners, then starts their tasks.
    ///
    /// # Errors
    /// The first listener that cannot be bound, and what to do about it. Nothing runs then.
    pub async fn start(
        settings: FlowSettings,
        inputs: mpsc::Sender<FlowInput>,
    ) -> Result<(Flows, FlowTasks), FlowFault> {
        let (mut packets, mut acceptors, mut bound) = (BTreeMap::new(), Vec::new(), Vec::new());
        let next_flow = AtomicU64::new(1);
        for (transport, address) in &settings.listeners {
            if *transport == Transport::Udp {
                let (socket, local) = bind::udp(*address)?;
                // So that the first send finds the socket ready.
                let _ = socket.writable().await;
                packets.insert(FlowId(next_flow.fetch_add(1, Ordering::Relaxed)), Arc::new(socket));
                bound.push((*transport, local));
            } else {
                if *transport == Transport::Tls && settings.tls.is_none() {
                    return Err(FlowFault::NoCertificate { address: *address });
                }
                let (listener, local) = bind::tcp(*transport, *address)?;
                acceptors.push((*transport, listener));
                bound.push((*transport, local));
            }
        }
        let (lookups, lookup_queue) = mpsc::channel(resolve::LOOKUPS_WAITING_MAX);
        let (connections, counters, unlisted) = Default::default();
        let shared = Shared {
            settings,
            inputs,
            lookups,
            next_flow,
            packets,
            bound,
            connections,
            unlisted,
            counters,
        };
        let flows = Flows(Arc::new(shared));
        let (stopping, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (id, socket) in &flows.0.packets {
            tasks.spawn(udp::receive(flows.clone(), *id, socket.clone(), stop.clone()));
        }
        for (transport, listener) in acceptors {
            tasks.spawn(tcp::accept(flows.clone(), transport, listener, stop.clone()));
        }
        tasks.spawn(resolve::run(flows.clone(), lookup_queue, stop));
        Ok((flows, FlowTasks { tasks, stopping }))
    }

    /// Sends one message. Never waits: a packet that the kernel does not take is lost as on the
    /// wire; a connection whose backlog is full is closed; a flow that is gone is counted.
    pub fn send(&self, flow: Flow, to: Destination, bytes: Bytes) {
        if flow.transport.is_reliable() {
            self.send_on_connection(flow.id, bytes);
            return;
        }
        match to {
            Destination::Peer => self.send_packet(flow.id, flow.peer, &bytes),
            Destination::Address(address) if address.is_ipv4() == flow.local.is_ipv4() => {
                self.send_packet(flow.id, address, &bytes);
            }
            Destination::Address(_) => self.send_packet(flow.id, flow.peer, &bytes),
            Destination::Name { host, port } => {
                let lookup = Lookup { flow, host, port: port.unwrap_or(SIP_PORT), bytes };
                if let Err(unsent) = self.0.lookups.try_send(lookup) {
                    let lookup = unsent.into_inner();
                    self.send_packet(flow.id, flow.peer, &lookup.bytes);
                }
            }
        }
    }

    /// The flow of packets to `peer`, from the first listener of its address family.
    pub fn packets_to(&self, peer: SocketAddr) -> Option<Flow> {
        self.0.packets.iter().find_map(|(id, socket)| {
            let local = canonical(socket.local_addr().ok()?);
            let fits = local.is_ipv4() == peer.is_ipv4();
            fits.then_some(Flow { id: *id, transport: Transport::Udp, local, peer })
        })
    }

    /// Keeps an idle connection open while calls are on it, or no longer. Nothing for packets.
    pub fn keep(&self, flow: FlowId, keep: bool) {
        if let Some(connection) = self.connections().open.get(&flow) {
            connection.kept.store(keep, Ordering::Relaxed);
        }
    }

    /// The listeners with the addresses that they really have.
    pub fn bound(&self) -> &[(Transport, SocketAddr)] {
        &self.0.bound
    }

    /// The table of sources that knocked without being listed.
    pub fn unlisted(&self) -> &UnlistedSources {
        &self.0.unlisted
    }

    /// What was counted since the start.
    pub fn counters(&self) -> FlowCounters {
        let open = self.connections().all;
        self.0.counters.snapshot(open, self.0.unlisted.total())
    }

    fn send_packet(&self, id: FlowId, to: SocketAddr, bytes: &[u8]) {
        let sent =
            self.0.packets.get(&id).is_some_and(|socket| socket.try_send_to(bytes, to).is_ok());
        if !sent {
            self.0.counters.unsent.add();
        }
    }

    fn send_on_connection(&self, id: FlowId, bytes: Bytes) {
        let found = self.connections().open.get(&id).cloned();
        match found {
            Some(connection) if connection.enqueue(bytes) => {}
            Some(connection) => {
                self.0.counters.overflowed.add();
                connection.broken.notify_one();
            }
            None => self.0.counters.unsent.add(),
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, source: IpAddr) -> bool {
        (self.0.settings.gate)(source)
    }

    fn new_flow_id(&self) -> FlowId {
        FlowId(self.0.next_flow.fetch_add(1, Ordering::Relaxed))
    }
}

impl Connection {
    fn new(queue: mpsc::Sender<Write>) -> Connection {
        let (backlog, kept, broken) = Default::default();
        Connection { queue, backlog, kept, broken }
    }

    /// False when the backlog is full.
    fn enqueue(&self, bytes: Bytes) -> bool {
        let len = bytes.len();
        let before = self.backlog.fetch_add(len, Ordering::Relaxed);
        before + len <= limits::STREAM_WRITE_BACKLOG_BYTES_MAX
            && self.queue.try_send(Write::Bytes(bytes)).is_ok()
    }
}

impl FlowTasks {
    /// Closes all listeners and connections, writing what is queued for at most a second, and
    /// waits for the tasks.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A listener's or a peer's address with IPv4-mapped IPv6 as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The port of a host that names none (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

#[cfg(test)]
mod tests;
