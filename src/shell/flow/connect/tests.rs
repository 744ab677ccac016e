//! Connections to peers on loopback: what is made, shared, refused and given up.

use super::super::{FlowInput, FlowReceiver, FlowSettings, FlowTasks, Patience, inputs};
use super::*;
use crate::shell::tls::{
    PeerTarget, PeerTlsSettings, Pem, ServerConfig, self_signed, server_config,
};
use crate::sip::destination::Destination;
use crate::sip::msg::Message;
use crate::sip::target::TargetHost;
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

const OPTIONS: &str = "OPTIONS sip:u@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n\
    From: <sip:a@b>;tag=1\r\nTo: <sip:u@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

struct Bench {
    flows: Flows,
    tasks: FlowTasks,
    inputs: FlowReceiver,
}

/// A UDP listener on loopback; nobody is listed.
async fn bench(tls: PeerTlsSettings, patience: Patience) -> Bench {
    bench_at(vec![(Transport::Udp, loopback())], tls, patience).await
}

async fn bench_at(
    listeners: Vec<(Transport, SocketAddr)>,
    tls: PeerTlsSettings,
    patience: Patience,
) -> Bench {
    let settings = FlowSettings {
        listeners,
        tls: None,
        peer_tls: watch::channel(Arc::new(PeerTls::new(&tls).expect("good files"))).1,
        gate: Arc::new(|_| false),
        answer_unlisted: false,
        patience,
    };
    let (sender, inputs) = inputs(limits::SIGNALLING_QUEUE_MAX);
    let (flows, tasks) = Flows::start(settings, sender).await.expect("loopback can be bound");
    Bench { flows, tasks, inputs }
}

async fn plain() -> Bench {
    bench(PeerTlsSettings::default(), Patience::default()).await
}

impl Bench {
    async fn next(&mut self) -> FlowInput {
        let next = timeout(Duration::from_secs(20), self.inputs.recv()).await;
        next.expect("something happens").expect("the flows are up")
    }

    async fn opened(&mut self) -> Flow {
        match self.next().await {
            FlowInput::Opened { flow } => flow,
            other => panic!("{other:?}"),
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn hop(transport: Transport, address: SocketAddr, identity: &str) -> Hop {
    let identity = match identity.parse() {
        Ok(address) => TargetHost::Address(address),
        Err(_) => TargetHost::Name(identity.to_owned()),
    };
    Hop { transport, address, identity }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(loopback()).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

#[tokio::test]
async fn a_connection_is_made_once_for_a_hop_and_again_when_it_is_gone() {
    let mut bench = plain().await;
    let (listener, address) = listener().await;
    let tcp = hop(Transport::Tcp, address, "pbx.test");
    let flow = bench.flows.connect(tcp.clone()).await.expect("it listens");
    assert_eq!((flow.peer, flow.transport), (address, Transport::Tcp));
    assert_eq!(bench.flows.connect(tcp.clone()).await, Ok(flow));
    let (mut socket, _) = listener.accept().await.expect("a connection");
    assert_eq!(bench.opened().await, flow);
    bench.flows.send(flow, Destination::Peer, Bytes::from_static(b"hello"));
    let mut read = [0; 5];
    socket.read_exact(&mut read).await.expect("open");
    assert_eq!(&read, b"hello");
    // The other end speaks although it is not listed: we called it.
    socket.write_all(OPTIONS.as_bytes()).await.expect("open");
    let FlowInput::Message { flow: from, message } = bench.next().await else { panic!() };
    assert!(from == flow && matches!(message, Message::Request(_)));
    let other = hop(Transport::Tcp, address, "other.test");
    let second = bench.flows.connect(other).await.expect("it listens");
    assert_ne!(second.id, flow.id, "another identity has a connection of its own");
    assert_eq!(bench.opened().await, second);
    // An answer is owed; a hard end does not wait for it.
    socket.set_zero_linger().expect("a TCP socket");
    drop(socket);
    assert!(matches!(bench.next().await, FlowInput::Closed { flow: closed } if closed == flow));
    let third = loop {
        let third = bench.flows.connect(tcp.clone()).await.expect("it listens");
        if third.id != flow.id {
            break third;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(third.peer, address);
    assert_eq!(bench.flows.counters().connects, 3);
    bench.tasks.stop().await;
}

#[tokio::test]
async fn all_who_ask_for_a_hop_share_one_attempt() {
    let bench = plain().await;
    let (listener, address) = listener().await;
    let wanted = hop(Transport::Tcp, address, "pbx.test");
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let (flows, wanted) = (bench.flows.clone(), wanted.clone());
        asking.spawn(async move { flows.connect(wanted).await });
    }
    let flows = asking.join_all().await;
    assert!(flows.iter().all(|flow| flow.is_ok() && *flow == flows[0]), "{flows:?}");
    assert_eq!(bench.flows.counters().connects, 1);
    drop(listener);
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_dead_peer_is_told_at_once_or_when_its_time_is_over() {
    let short = Duration::from_millis(100);
    let patience = Patience { connect: short, handshake: short, ..Patience::default() };
    let bench = bench(PeerTlsSettings::default(), patience).await;
    let (listener, address) = listener().await;
    let fault = bench.flows.connect(hop(Transport::Tls, address, "pbx.test")).await;
    let words = "no TLS handshake within 0.1 s".to_owned();
    assert_eq!(fault, Err(ConnectFault::Tls(words)));
    drop(listener);
    for transport in [Transport::Tcp, Transport::Tls] {
        let fault = bench.flows.connect(hop(transport, address, "pbx.test")).await;
        assert_eq!(fault, Err(ConnectFault::Unreachable));
    }
    assert_eq!(bench.flows.counters().connects_failed, 3);
    bench.tasks.stop().await;
}

#[tokio::test]
async fn packets_leave_from_the_listener_and_the_hop_alone_is_heard() {
    let mut bench = plain().await;
    let local = bench.flows.bound()[0].1;
    let peer = UdpSocket::bind("127.0.0.2:0").await.expect("127/8 is ours");
    let stranger = UdpSocket::bind("127.0.0.3:0").await.expect("127/8 is ours");
    let address = peer.local_addr().expect("bound");
    let flow = bench.flows.connect(hop(Transport::Udp, address, "pbx.test")).await;
    let flow = flow.expect("a listener of that family");
    assert_eq!((flow.local, flow.peer), (local, address));
    bench.flows.ping(flow);
    let mut read = [0; 16];
    let (len, from) = peer.recv_from(&mut read).await.expect("a packet");
    assert_eq!((&read[..len], from), (&b"\r\n\r\n"[..], local));
    stranger.send_to(OPTIONS.as_bytes(), local).await.expect("sent");
    peer.send_to(OPTIONS.as_bytes(), local).await.expect("sent");
    assert!(matches!(bench.next().await, FlowInput::Message { flow: from, .. } if from == flow));
    assert!(bench.inputs.try_recv().is_err());
    assert_eq!(bench.flows.unlisted().total(), 1);
    // Held as a registrar it is heard too.
    bench.flows.admit_source("127.0.0.3".parse().expect("an address"), true);
    stranger.send_to(OPTIONS.as_bytes(), local).await.expect("sent");
    assert!(matches!(bench.next().await, FlowInput::Message { .. }));
    let v6 = bench.flows.connect(hop(Transport::Udp, "[::1]:5060".parse().expect("v6"), "h"));
    assert_eq!(v6.await, Err(ConnectFault::NoSocket));
    bench.tasks.stop().await;
}

#[tokio::test]
async fn our_end_is_named_as_peers_reach_it() {
    let (first, second): (SocketAddr, SocketAddr) =
        ("127.0.0.1:0".parse().expect("one"), "127.0.0.31:0".parse().expect("one"));
    let listeners =
        vec![(Transport::Udp, second), (Transport::Udp, first), (Transport::Tcp, first)];
    let bench = bench_at(listeners, PeerTlsSettings::default(), Patience::default()).await;
    let at = |index: usize| bench.flows.bound()[index].1;
    let (_listener, address) = listener().await;
    let flow = bench.flows.connect(hop(Transport::Tcp, address, "pbx.test")).await;
    assert_eq!(flow.expect("it listens").local, at(2), "with the listener's port");
    let flow = bench.flows.connect(hop(Transport::Udp, address, "pbx.test")).await;
    assert_eq!(flow.expect("a listener").local, at(1), "where the kernel would send from");
    let reach = bench.flows.reach();
    assert!(reach.packets.v4 && !reach.packets.v6 && reach.connections.v4);
    bench.tasks.stop().await;
}

/// A TLS server with a certificate for `names`.
struct Peer {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    certificate: Pem,
}

impl Peer {
    async fn start(names: &[&str]) -> Peer {
        let (certificate, key) = self_signed(names).expect("good names");
        let certificate = Pem::from_text("peer.pem", &certificate);
        let key = Pem::from_text("peer.key", &key);
        let config = server_config(&certificate, &key, None).expect("a pair");
        Peer::with(certificate, config).await
    }

    async fn with(certificate: Pem, config: Arc<ServerConfig>) -> Peer {
        let (listener, address) = listener().await;
        Peer { listener, address, acceptor: TlsAcceptor::from(config), certificate }
    }

    fn trusted(&self) -> PeerTlsSettings {
        PeerTlsSettings { ca: Some(self.certificate.clone()), ..PeerTlsSettings::default() }
    }

    /// Connects and answers the handshake: our result, and the name that was asked for.
    async fn meet(
        &self,
        flows: &Flows,
        identity: &str,
    ) -> (Result<Flow, ConnectFault>, Option<tokio_rustls::server::TlsStream<TcpStream>>) {
        let connect = flows.connect(hop(Transport::Tls, self.address, identity));
        let serve = async {
            let (socket, _) = self.listener.accept().await.expect("a connection");
            self.acceptor.accept(socket).await.ok()
        };
        tokio::join!(connect, serve)
    }
}

fn tls_words(result: Result<Flow, ConnectFault>) -> String {
    match result {
        Err(ConnectFault::Tls(words)) => words,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_must_be_made_out_to_the_target_and_trusted() {
    let peer = Peer::start(&["pbx.test", "*.wild.test", "127.0.0.1"]).await;
    let bench = bench(peer.trusted(), Patience::default()).await;
    let (flow, stream) = peer.meet(&bench.flows, "pbx.test").await;
    assert_eq!(flow.expect("the right name").transport, Transport::Tls);
    let stream = stream.expect("a handshake");
    assert_eq!(stream.get_ref().1.server_name(), Some("pbx.test"), "the name is sent as SNI");
    let (flow, stream) = peer.meet(&bench.flows, "127.0.0.1").await;
    assert!(flow.is_ok(), "an address in the certificate");
    assert_eq!(stream.expect("a handshake").get_ref().1.server_name(), None);
    for (identity, found) in [
        ("other.test", "made out to pbx.test, *.wild.test, 127.0.0.1, not to other.test"),
        ("a.wild.test", "not to a.wild.test"),
        ("127.0.0.9", "not to 127.0.0.9"),
    ] {
        let words = tls_words(peer.meet(&bench.flows, identity).await.0);
        assert!(words.contains(found), "{words}");
    }
    bench.tasks.stop().await;

    let wild = PeerTlsSettings { wildcards: true, ..peer.trusted() };
    let bench = self::bench(wild, Patience::default()).await;
    assert!(peer.meet(&bench.flows, "a.wild.test").await.0.is_ok());
    bench.tasks.stop().await;

    let bench = plain().await;
    let words = tls_words(peer.meet(&bench.flows, "pbx.test").await.0);
    assert!(words.contains("of no authority that is trusted here"), "{words}");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_session_is_resumed_for_the_same_target() {
    let peer = Peer::start(&["pbx.test", "two.test"]).await;
    let mut bench = bench(peer.trusted(), Patience::default()).await;
    for (identity, resumed) in [("pbx.test", 0), ("pbx.test", 1), ("two.test", 1), ("pbx.test", 2)]
    {
        let (flow, stream) = peer.meet(&bench.flows, identity).await;
        let (flow, mut stream) = (flow.expect("trusted"), stream.expect("a handshake"));
        assert_eq!(bench.flows.counters().resumed, resumed, "{identity}");
        assert_eq!(bench.opened().await, flow);
        // The tickets come with the first data.
        stream.write_all(OPTIONS.as_bytes()).await.expect("open");
        assert!(matches!(bench.next().await, FlowInput::Message { .. }));
        bench.flows.send(flow, Destination::Peer, Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n"));
        stream.shutdown().await.expect("open");
        assert!(matches!(bench.next().await, FlowInput::Closed { .. }));
        while bench.flows.outgoing().0.values().any(|peer| matches!(peer, super::Peer::Open(_))) {
            tokio::task::yield_now().await;
        }
    }
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_target_sees_the_certificate_that_is_meant_for_it() {
    let pem = |name: &str, pair: &(String, String)| {
        (Pem::from_text(name, &pair.0), Pem::from_text(name, &pair.1))
    };
    let ours = pem("ours", &self_signed(&["edge.test"]).expect("a name"));
    let theirs = pem("theirs", &self_signed(&["pbx.test", "two.test"]).expect("names"));
    let config = server_config(&theirs.0, &theirs.1, Some(&ours.0)).expect("a pair and a CA");
    let peer = Peer::with(theirs.0.clone(), config).await;
    let targets = vec![PeerTarget {
        host: "pbx.test".to_owned(),
        certificate: Some(ours),
        ca: Some(theirs.0),
    }];
    let settings = PeerTlsSettings { targets, ..PeerTlsSettings::default() };
    let bench = bench(settings, Patience::default()).await;
    let (flow, stream) = peer.meet(&bench.flows, "pbx.test").await;
    assert!(flow.is_ok() && stream.is_some(), "{flow:?}");
    let words = tls_words(peer.meet(&bench.flows, "two.test").await.0);
    assert!(words.contains("no authority"), "that CA is for the other target: {words}");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_keep_alive_is_answered_with_a_pong() {
    let mut bench = plain().await;
    let (listener, address) = listener().await;
    let flow = bench.flows.connect(hop(Transport::Tcp, address, "pbx.test")).await;
    let flow = flow.expect("it listens");
    let (mut socket, _) = listener.accept().await.expect("a connection");
    assert_eq!(bench.opened().await, flow);
    for _ in 0..2 {
        bench.flows.ping(flow);
        let mut read = [0; 4];
        socket.read_exact(&mut read).await.expect("open");
        assert_eq!(&read, b"\r\n\r\n");
        socket.write_all(b"\r\n").await.expect("open");
        assert!(matches!(bench.next().await, FlowInput::Pong { flow: from } if from == flow));
    }
    bench.tasks.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_unless_it_is_kept() {
    let short = Duration::from_millis(50);
    let patience = Patience { message: short, idle: short * 4, ..Patience::default() };
    let mut bench = bench(PeerTlsSettings::default(), patience).await;
    let (listener, address) = listener().await;
    let kept = bench.flows.connect(hop(Transport::Tcp, address, "kept.test")).await;
    let kept = kept.expect("it listens");
    bench.flows.keep(kept.id, true);
    assert_eq!(bench.opened().await, kept);
    let idle = bench.flows.connect(hop(Transport::Tcp, address, "idle.test")).await;
    let idle = idle.expect("it listens");
    assert_eq!(bench.opened().await, idle);
    let sockets = [listener.accept().await, listener.accept().await];
    assert!(matches!(bench.next().await, FlowInput::Closed { flow } if flow == idle));
    bench.flows.keep(kept.id, false);
    assert!(matches!(bench.next().await, FlowInput::Closed { flow } if flow == kept));
    drop(sockets);
    bench.tasks.stop().await;
}
