//! Outgoing connections (RFC 3261 §18.1.1, RFC 3263 §4.2, RFC 5626 §4.2): a hop becomes a flow. UDP
//! leaves from a listening socket. A connection of ours is read by the same code as an accepted one,
//! and used again only for the same hop: transport, address and identity, by which our certificate
//! for the peer is chosen too. An accepted connection is never used for a hop: its other end proved
//! no name. Whoever asks for a hop that is being connected waits for the same attempt.

use super::{Flows, canonical, stream, tls};
use crate::ground::{Flow, FlowId, Transport, limits};
use crate::shell::clock::Clock;
use crate::shell::tls::PeerTls;
use crate::sip::locator::{Families, Reach};
use crate::sip::target::{ConnectFault, Hop};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Hops that may wait for their connection to be begun.
pub(super) const DIALS_WAITING_MAX: usize = 256;

/// The TLS configurations for peers; a new value serves the connections that are made after it.
pub type PeerTlsSource = watch::Receiver<Arc<PeerTls>>;

type Reply = oneshot::Sender<Result<Flow, ConnectFault>>;

/// The connections of ours, by hop.
#[derive(Default)]
pub(super) struct Outgoing(BTreeMap<Hop, Peer>);

enum Peer {
    /// Who waits for it.
    Dialling(Vec<Reply>),
    Open(Flow),
}

impl Flows {
    /// A flow to `hop`: the listening socket for UDP, an open connection of ours to exactly this hop,
    /// or a new one. The hop's answers and requests are heard from now on, listed or not: over UDP for
    /// [`limits::HOP_ADMITTED`] after the last request to it, on a connection for as long as it is open.
    ///
    /// # Errors
    /// [`ConnectFault`], within `Patience::connect` and `Patience::handshake`.
    pub async fn connect(&self, hop: Hop) -> Result<Flow, ConnectFault> {
        if hop.transport == Transport::Udp {
            let flow = self.packet_flow(hop.address).ok_or(ConnectFault::NoSocket)?;
            self.0.admitted.admit_for_a_while(Clock::instant(), flow.peer.ip());
            self.0.mute.lift(flow.peer.ip());
            return Ok(flow);
        }
        let (reply, connected) = oneshot::channel();
        if let Some(flow) = self.join(&hop, reply)? {
            return Ok(flow);
        }
        // A reply that is dropped: the flows are being taken down.
        connected.await.unwrap_or(Err(ConnectFault::Unreachable))
    }

    /// What can be sent to from here: packets leave from listeners, connections by any route.
    pub fn reach(&self) -> Reach {
        let listens = |v4: bool, packets: bool| {
            let of_kind = |transport: Transport| !packets || transport == Transport::Udp;
            self.0.bound.iter().any(|(kind, at)| of_kind(*kind) && at.is_ipv4() == v4)
        };
        let v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
        let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
        Reach {
            packets: Families { v4: listens(true, true), v6: listens(false, true) },
            connections: Families {
                v4: listens(true, false) || source_towards(v4).is_some(),
                v6: listens(false, false) || source_towards(v6).is_some(),
            },
        }
    }

    /// The open flow, or `None` when the reply will tell.
    fn join(&self, hop: &Hop, reply: Reply) -> Result<Option<Flow>, ConnectFault> {
        let mut outgoing = self.outgoing();
        let full = outgoing.0.len() >= limits::OUTGOING_CONNECTIONS_MAX;
        match outgoing.0.get_mut(hop) {
            Some(Peer::Open(flow)) => return Ok(Some(*flow)),
            Some(Peer::Dialling(waiting)) if waiting.len() < limits::SIGNALLING_QUEUE_MAX => {
                waiting.push(reply);
            }
            Some(Peer::Dialling(_)) => return Err(ConnectFault::Unreachable),
            None if full || self.0.dials.try_send(hop.clone()).is_err() => {
                self.0.counters.connects_failed.add();
                return Err(ConnectFault::Unreachable);
            }
            None => drop(outgoing.0.insert(hop.clone(), Peer::Dialling(vec![reply]))),
        }
        Ok(None)
    }

    /// The listening socket that a packet to `address` leaves from: the one on the address that the
    /// kernel would send from, else one on all addresses, else any of the family that can reach it.
    fn packet_flow(&self, address: SocketAddr) -> Option<Flow> {
        let address = canonical(address);
        let source = source_towards(address);
        let rank = |local: IpAddr| match () {
            () if Some(local) == source => 0,
            () if local.is_unspecified() => 1,
            () if !local.is_loopback() || address.ip().is_loopback() => 2,
            () => 3,
        };
        let sockets = self.0.packets.iter().filter_map(|(id, socket)| {
            let local = canonical(socket.local_addr().ok()?);
            Some((rank(local.ip()), *id, local))
        });
        let fitting = sockets
            .filter(|(rank, _, local)| *rank < 3 && local.is_ipv4() == address.is_ipv4())
            .min();
        let (_, id, local) = fitting?;
        Some(Flow { id, transport: Transport::Udp, local, peer: address })
    }

    /// Our end of a connection as peers reach it: with the port of our listener when there is one for
    /// it, since nobody can connect to the port that a connection of ours has.
    fn advertised_end(&self, transport: Transport, local: SocketAddr) -> SocketAddr {
        let listener = self.0.bound.iter().find(|(kind, at)| {
            let covers = at.ip() == local.ip() || at.ip().is_unspecified();
            *kind == transport && at.is_ipv4() == local.is_ipv4() && covers
        });
        SocketAddr::new(local.ip(), listener.map_or(local.port(), |(_, at)| at.port()))
    }

    fn settle_dial(&self, hop: &Hop, result: &Result<Flow, ConnectFault>) {
        let mut outgoing = self.outgoing();
        let before = match result {
            Ok(flow) => outgoing.0.insert(hop.clone(), Peer::Open(*flow)),
            Err(_) => outgoing.0.remove(hop),
        };
        drop(outgoing);
        if let Some(Peer::Dialling(waiting)) = before {
            for reply in waiting {
                // Whoever asked may have given up.
                let _ = reply.send(result.clone());
            }
        }
    }

    /// The connection is gone: the hop is connected anew when it is asked for.
    fn forget_hop(&self, hop: &Hop, id: FlowId) {
        let mut outgoing = self.outgoing();
        if matches!(outgoing.0.get(hop), Some(Peer::Open(flow)) if flow.id == id) {
            outgoing.0.remove(hop);
        }
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.0.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to what is asked for and serves the connections, until told to stop.
pub(super) async fn run(
    flows: Flows,
    mut dials: mpsc::Receiver<Hop>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(hop) = dials.recv() => {
                connections.spawn(dial(flows.clone(), hop, stop.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// One connection from its attempt to its end.
async fn dial(flows: Flows, hop: Hop, mut stop: watch::Receiver<bool>) {
    let established = tokio::select! {
        established = establish(&flows, &hop) => established,
        _ = stop.wait_for(|stop| *stop) => Err(ConnectFault::Unreachable),
    };
    let (flow, socket) = match established {
        Ok((flow, socket)) => (flow, socket),
        Err(fault) => {
            flows.0.counters.connects_failed.add();
            return flows.settle_dial(&hop, &Err(fault));
        }
    };
    flows.0.counters.connects.add();
    let settled = flows.clone();
    let opened = || settled.settle_dial(&hop, &Ok(flow));
    match socket {
        Socket::Plain(socket) => {
            stream::run_dialled(&flows, flow, socket, opened, stop).await;
        }
        Socket::Tls(socket) => {
            stream::run_dialled(&flows, flow, *socket, opened, stop).await;
        }
    }
    flows.forget_hop(&hop, flow.id);
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<tls::ClientStream>),
}

async fn establish(flows: &Flows, hop: &Hop) -> Result<(Flow, Socket), ConnectFault> {
    let patience = flows.0.settings.patience;
    let begun = Instant::now();
    let socket = match timeout(patience.connect, TcpStream::connect(hop.address)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            tracing::debug!(%error, peer = %hop.address, "a peer cannot be connected to");
            return Err(ConnectFault::Unreachable);
        }
        Err(_) => return Err(ConnectFault::Unreachable),
    };
    // Without Nagle: each message is one write.
    let _ = socket.set_nodelay(true);
    let local = socket.local_addr().map_err(|_| ConnectFault::Unreachable)?;
    let flow = Flow {
        id: flows.new_flow_id(),
        transport: hop.transport,
        local: flows.advertised_end(hop.transport, canonical(local)),
        peer: canonical(hop.address),
    };
    if hop.transport == Transport::Tcp {
        return Ok((flow, Socket::Plain(socket)));
    }
    let config = flows.0.settings.peer_tls.borrow().config_for(&hop.identity);
    let secured = tls::connect(config, &hop.identity, socket, patience.handshake).await;
    match secured {
        Ok((socket, resumed)) => {
            if resumed {
                flows.0.counters.resumed.add();
            }
            tracing::debug!(peer = %flow.peer, resumed, took = ?begun.elapsed(), "TLS is up");
            Ok((flow, Socket::Tls(Box::new(socket))))
        }
        Err(words) => {
            flows.0.counters.handshakes_failed.add();
            tracing::warn!(words, "a peer's TLS is refused");
            Err(ConnectFault::Tls(words))
        }
    }
}

/// The address that the kernel would send from; no packet is sent. `None` without a route.
fn source_towards(address: SocketAddr) -> Option<IpAddr> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let probe = std::net::UdpSocket::bind(any).ok()?;
    probe.connect(address).ok()?;
    Some(probe.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests;
