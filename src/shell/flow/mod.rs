//! SIP over the network: listeners, connections and the way out (RFC 3261 §18). A packet's source is
//! admitted before a byte of it is parsed; what comes through is framed, parsed and passed to the
//! signalling task; what is malformed is answered here, to the packet's source and nowhere else.
//! Connections of ours to next hops are read in the same way. Decides nothing about calls. Every task is joined by [`FlowTasks::stop`].

mod admitted;
mod bind;
mod connect;
mod counters;
mod inputs;
mod mute;
mod pace;
mod parse;
mod stream;
mod tcp;
mod tls;
mod udp;
mod unlisted;

pub use bind::FlowFault;
pub use connect::PeerTlsSource;
pub use counters::FlowCounters;
pub use inputs::{FlowReceiver, FlowSender, inputs};
pub use unlisted::{UnlistedSource, UnlistedSources};

use crate::ground::{Flow, FlowId, Transport, limits};
use crate::shell::clock::Clock;
use crate::shell::tls::ServerConfig;
use crate::sip::destination::Destination;
use crate::sip::msg::Message;
use crate::sip::target::Hop;
use admitted::Admitted;
use bytes::Bytes;
use connect::Outgoing;
use counters::Counters;
use mute::Mute;
use pace::Pace;
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
    /// For connections of ours.
    pub peer_tls: PeerTlsSource,
    pub gate: SourceGate,
    /// Answer unlisted UDP requests with 403 instead of silence.
    pub answer_unlisted: bool,
    pub patience: Patience,
}

/// How long a connection may take for what (security S5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// A TCP connection of ours.
    pub connect: Duration,
    pub handshake: Duration,
    /// The first message, and every begun one.
    pub message: Duration,
    /// Between messages, without a call.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: limits::TCP_CONNECT,
            handshake: limits::TLS_HANDSHAKE,
            message: limits::STREAM_MESSAGE,
            idle: limits::STREAM_IDLE,
        }
    }
}

/// What comes in.
#[derive(Debug)]
pub enum FlowInput {
    Opened {
        flow: Flow,
    },
    Message {
        flow: Flow,
        message: Message,
    },
    /// The other end answered our keep-alive (RFC 5626 §4.4.1).
    Pong {
        flow: Flow,
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
    inputs: FlowSender,
    dials: mpsc::Sender<Hop>,
    next_flow: AtomicU64,
    /// Filled by `start` and never changed.
    packets: BTreeMap<FlowId, Arc<UdpSocket>>,
    bound: Vec<(Transport, SocketAddr)>,
    connections: Mutex<Connections>,
    outgoing: Mutex<Outgoing>,
    admitted: Admitted,
    packet_pace: Pace,
    handshake_pace: Pace,
    mute: Mute,
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
    /// Calls and registrations that are on it: it may be idle.
    kept: AtomicUsize,
    /// Final answers that we owe to its requests.
    owed: AtomicUsize,
    /// The last of them was queued.
    paid: Notify,
    /// A keep-alive of ours is not answered yet.
    pinged: AtomicBool,
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
        inputs: FlowSender,
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
        let (dials, dial_queue) = mpsc::channel(connect::DIALS_WAITING_MAX);
        let (connections, outgoing, admitted) = Default::default();
        let (counters, unlisted) = Default::default();
        let shared = Shared {
            settings,
            inputs,
            dials,
            next_flow,
            packets,
            bound,
            connections,
            outgoing,
            admitted,
            packet_pace: Pace::of_packets(),
            handshake_pace: Pace::of_handshakes(),
            mute: Mute::default(),
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
        tasks.spawn(connect::run(flows.clone(), dial_queue, stop.clone()));
        tasks.spawn(mute::run(flows.clone(), stop));
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
        }
    }

    /// Keeps an idle connection open while calls or registrations are on it; each tells when it no
    /// longer is. Nothing for packets.
    pub fn keep(&self, flow: FlowId, keep: bool) {
        if let Some(connection) = self.connections().open.get(&flow) {
            let step = |kept: usize| Some(if keep { kept + 1 } else { kept.saturating_sub(1) });
            // It always gives a number.
            let _ = connection.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        }
    }

    /// Closes a connection on which nobody is there any more. Its end comes as
    /// [`FlowInput::Closed`]. Nothing for packets.
    pub fn close(&self, flow: FlowId) {
        if let Some(connection) = self.connections().open.get(&flow) {
            connection.broken.notify_one();
        }
    }

    /// Hears an address that no range lists, until it was told otherwise as often.
    pub fn admit_source(&self, address: IpAddr, admit: bool) {
        let address = address.to_canonical();
        self.0.admitted.hold(Clock::instant(), address, admit);
        if admit {
            self.0.mute.lift(address);
        }
    }

    /// Sends a keep-alive (RFC 5626 §4.4.1). On a connection the other end answers with
    /// [`FlowInput::Pong`]; over UDP it only keeps the way through a NAT open.
    pub fn ping(&self, flow: Flow) {
        const PING: &[u8] = b"\r\n\r\n";
        if !flow.transport.is_reliable() {
            self.send_packet(flow.id, flow.peer, PING);
            return;
        }
        if let Some(connection) = self.connections().open.get(&flow.id) {
            connection.pinged.store(true, Ordering::Relaxed);
        }
        self.send_on_connection(flow.id, Bytes::from_static(PING));
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
        self.0.admitted.prolong(Clock::instant(), to.ip());
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
        (self.0.settings.gate)(source) || self.0.admitted.admits(Clock::instant(), source)
    }

    fn new_flow_id(&self) -> FlowId {
        FlowId(self.0.next_flow.fetch_add(1, Ordering::Relaxed))
    }
}

impl Connection {
    fn new(queue: mpsc::Sender<Write>) -> Connection {
        let (backlog, kept, owed) = Default::default();
        let (paid, pinged, broken) = Default::default();
        Connection { queue, backlog, kept, owed, paid, pinged, broken }
    }

    /// A request came that must be answered.
    fn owe(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether no final answer is owed.
    fn is_paid(&self) -> bool {
        self.owed.load(Ordering::Relaxed) == 0
    }

    /// False when the backlog is full.
    fn enqueue(&self, bytes: Bytes) -> bool {
        let len = bytes.len();
        if is_final(&bytes) {
            let less = |owed: usize| owed.checked_sub(1);
            let before = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            if before == Ok(1) {
                self.paid.notify_one();
            }
        }
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

/// Whether a message of ours is a final answer.
fn is_final(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"SIP/2.0 ").is_some_and(|rest| matches!(rest.first(), Some(b'2'..=b'6')))
}

/// A listener's or a peer's address with IPv4-mapped IPv6 as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
