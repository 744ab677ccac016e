//! Reaching a peer over real sockets: the user agent with the real resolver, the real flows and a
//! name server of the test's own. Dead hops, a choice by NAPTR, certificates with right and wrong
//! names, names that move, and connections that are shared by the right identity only.

use crate::rig::dns::NameServer;
use crate::rig::{SOON, run, source};
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use voxedge::ground::{Entropy, Transport, limits};
use voxedge::shell::clock::Clock;
use voxedge::shell::flow::{
    FlowInput, FlowReceiver, FlowSettings, FlowTasks, Flows, Patience, inputs,
};
use voxedge::shell::resolver::{DnsSettings, Resolver};
use voxedge::shell::tls::{self, PeerTls, PeerTlsSettings, Pem};
use voxedge::sip::msg::frame::{Framed, StreamFramer};
use voxedge::sip::msg::{Builder, Framing, Message, Method};
use voxedge::sip::status::StatusLine;
use voxedge::sip::target::{ConnectFault, Hop, LocateFault};
use voxedge::sip::ua::{DialFault, OutgoingRequest, UaConfig, UaEvent, UaOutput, UserAgent};

const LIMIT: Duration = Duration::from_secs(120);

/// The user agent and what drives it.
struct Edge {
    agent: UserAgent,
    flows: Flows,
    tasks: FlowTasks,
    inputs: FlowReceiver,
    resolver: Resolver,
    jobs: JoinSet<Found>,
    outputs: Vec<UaOutput>,
}

enum Found {
    Located(u64, Result<Vec<Hop>, LocateFault>),
    Connected(u64, Result<voxedge::ground::Flow, ConnectFault>),
}

impl Edge {
    /// An edge that lists nobody and asks `names`.
    async fn start(names: &NameServer, ca: Option<Pem>) -> Edge {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = PeerTlsSettings { ca, ..PeerTlsSettings::default() };
        let peer_tls = Arc::new(PeerTls::new(&settings).expect("good files"));
        let settings = FlowSettings {
            listeners: vec![(Transport::Udp, any)],
            tls: None,
            peer_tls: watch::Sender::new(peer_tls).subscribe(),
            gate: Arc::new(|_| false),
            answer_unlisted: false,
            patience: Patience::default(),
        };
        let (sender, inputs) = inputs(limits::SIGNALLING_QUEUE_MAX);
        let (flows, tasks) = Flows::start(settings, sender).await.expect("loopback");
        let hosts = "/dev/null".into();
        let resolver = Resolver::new(DnsSettings { servers: vec![names.address], hosts });
        let agent = UserAgent::new(UaConfig::default(), Entropy::from_number(11));
        let (jobs, outputs) = Default::default();
        Edge { agent, flows, tasks, inputs, resolver, jobs, outputs }
    }

    fn request(method: Method, to: &str) -> OutgoingRequest {
        OutgoingRequest::new(method, to, "<sip:edge@edge.test>", &format!("<{to}>"))
    }

    /// Calls and gives the first event that ends the dialling.
    async fn dial(&mut self, to: &str) -> UaEvent {
        let request = Edge::request(Method::Invite, to);
        self.agent.dial(Clock::now(), request, &mut self.outputs);
        self.until(|event| !matches!(event, UaEvent::Progress { .. })).await
    }

    /// Sends OPTIONS and gives the hop that answered.
    async fn options(&mut self, to: &str) -> Hop {
        let request = Edge::request(Method::Options, to);
        self.agent.send(Clock::now(), request, &mut self.outputs);
        match self.until(|_| true).await {
            UaEvent::Responded { hop, response, .. } => {
                assert_eq!(response.code(), 200);
                hop.expect("it was located")
            }
            other => panic!("{other:?}"),
        }
    }

    /// Drives everything until an event that is `wanted`.
    async fn until(&mut self, wanted: impl Fn(&UaEvent) -> bool) -> UaEvent {
        loop {
            if let Some(event) = self.carry_out(&wanted) {
                return event;
            }
            let now = Clock::now();
            let wake = self.agent.poll_timeout().map(|at| at.since(now.at));
            tokio::select! {
                Some(input) = self.inputs.recv() => match input {
                    FlowInput::Message { flow, message } => {
                        self.agent.handle_message(Clock::now(), flow, message, &mut self.outputs);
                    }
                    FlowInput::Closed { flow } => {
                        self.agent.handle_flow_closed(Clock::now(), flow.id, &mut self.outputs);
                    }
                    FlowInput::Opened { .. } | FlowInput::Pong { .. } => {}
                    FlowInput::Settle { done } => drop(done.send(())),
                },
                Some(found) = self.jobs.join_next() => match found.expect("no panic") {
                    Found::Located(ticket, hops) => {
                        self.agent.handle_located(Clock::now(), ticket, hops, &mut self.outputs);
                    }
                    Found::Connected(ticket, flow) => {
                        self.agent.handle_connected(Clock::now(), ticket, flow, &mut self.outputs);
                    }
                },
                () = tokio::time::sleep(wake.unwrap_or(SOON)) => {
                    self.agent.handle_timeout(Clock::now(), &mut self.outputs);
                }
            }
        }
    }

    fn carry_out(&mut self, wanted: &impl Fn(&UaEvent) -> bool) -> Option<UaEvent> {
        let mut found = None;
        for output in std::mem::take(&mut self.outputs) {
            match output {
                UaOutput::Send { flow, to, bytes } => self.flows.send(flow, to, bytes),
                UaOutput::Locate { ticket, target, seed } => {
                    let (resolver, reach) = (self.resolver.clone(), self.flows.reach());
                    self.jobs.spawn(async move {
                        Found::Located(ticket, resolver.locate(&target, seed, reach).await)
                    });
                }
                UaOutput::Connect { ticket, hop } => {
                    let flows = self.flows.clone();
                    self.jobs
                        .spawn(async move { Found::Connected(ticket, flows.connect(hop).await) });
                }
                UaOutput::Event(event) if found.is_none() && wanted(&event) => found = Some(event),
                UaOutput::Event(_) => {}
            }
        }
        found
    }
}

/// A peer that answers every request with 200, or none.
struct Callee {
    address: SocketAddr,
    /// Requests but ACK that came.
    asked: Arc<AtomicUsize>,
    /// Connections that were accepted.
    accepted: Arc<AtomicUsize>,
    /// The name that the last TLS client asked for.
    sni: Arc<Mutex<Option<String>>>,
    _task: JoinSet<()>,
}

impl Callee {
    fn new(address: SocketAddr) -> Callee {
        let (asked, accepted, sni, _task) = Default::default();
        Callee { address, asked, accepted, sni, _task }
    }

    async fn udp(address: IpAddr, answers: bool) -> Callee {
        let socket = UdpSocket::bind((address, 0)).await.expect("127/8 is ours");
        let mut callee = Callee::new(socket.local_addr().expect("bound"));
        let asked = Arc::clone(&callee.asked);
        callee._task.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let bytes = Bytes::copy_from_slice(&buffer[..len]);
                let answer = answer(bytes, Framing::Datagram, from, &asked);
                if let Some(answer) = answer.filter(|_| answers) {
                    socket.send_to(&answer, from).await.expect("loopback");
                }
            }
        });
        callee
    }

    async fn stream(address: IpAddr, acceptor: Option<TlsAcceptor>) -> Callee {
        let listener = TcpListener::bind((address, 0)).await.expect("127/8 is ours");
        let mut callee = Callee::new(listener.local_addr().expect("bound"));
        let (asked, accepted) = (Arc::clone(&callee.asked), Arc::clone(&callee.accepted));
        let sni = Arc::clone(&callee.sni);
        callee._task.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((socket, from)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (asked, acceptor, sni) = (Arc::clone(&asked), acceptor.clone(), sni.clone());
                serving.spawn(async move {
                    match acceptor {
                        None => serve(socket, from, &asked).await,
                        Some(acceptor) => {
                            // The client may not trust us.
                            let Ok(socket) = acceptor.accept(socket).await else { return };
                            let name = socket.get_ref().1.server_name().map(str::to_owned);
                            *sni.lock().expect("no panic") = name;
                            serve(socket, from, &asked).await;
                        }
                    }
                });
            }
        });
        callee
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    from: SocketAddr,
    asked: &AtomicUsize,
) {
    let mut framer = StreamFramer::new(from);
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = socket.read(&mut buffer).await {
        framer.push(&buffer[..len]);
        while let Ok(Some(framed)) = framer.next() {
            let Framed::Message(bytes) = framed else { continue };
            if let Some(answer) = answer(bytes, Framing::Stream, from, asked) {
                // The client may be gone.
                let _ = socket.write_all(&answer).await;
            }
        }
    }
}

fn answer(bytes: Bytes, framing: Framing, from: SocketAddr, asked: &AtomicUsize) -> Option<Bytes> {
    let Ok(Message::Request(request)) = Message::parse(bytes, framing) else { return None };
    if *request.method() == Method::Ack {
        return None;
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = Builder::response(&request, &StatusLine::of(200), from).to_tag("callee");
    Some(answer.header("Contact", "<sip:callee@127.0.0.1>").finish().expect("no line breaks"))
}

/// A certificate for `names` and a server that shows it.
fn certified(names: &[&str]) -> (Pem, TlsAcceptor) {
    let (certificate, key) = tls::self_signed(names).expect("good names");
    let (certificate, key) = (Pem::from_text("peer", &certificate), Pem::from_text("key", &key));
    let config = tls::server_config(&certificate, &key, None).expect("a pair");
    (certificate, TlsAcceptor::from(config))
}

#[test]
fn two_of_three_servers_are_dead_and_the_call_is_up_within_four_seconds() {
    run(LIMIT, async {
        let dead = [Callee::udp(source(), false).await, Callee::udp(source(), false).await];
        let alive = Callee::udp(source(), true).await;
        let mut zone = String::new();
        for (priority, callee) in dead.iter().chain([&alive]).enumerate() {
            let (ip, port) = (callee.address.ip(), callee.address.port());
            zone += &format!("_sip._udp.pbx.test 60 SRV {priority} 1 {port} h{priority}.test\n");
            zone += &format!("h{priority}.test 60 A {ip}\n");
        }
        let names = NameServer::start(&zone);
        let mut edge = Edge::start(&names, None).await;
        let begun = Instant::now();
        let event = edge.dial("sip:bob@pbx.test").await;
        let took = begun.elapsed();
        let UaEvent::Answered { flow, .. } = event else { panic!("{event:?}") };
        assert_eq!(flow.peer, alive.address);
        eprintln!("two of three servers dead: up in {took:?}");
        assert!(took >= Duration::from_millis(2_400), "each of them has its 1.2 s: {took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        let tried = dead.each_ref().map(Callee::asked);
        assert!(tried.iter().all(|tried| *tried > 0), "{tried:?}");

        let again = Instant::now();
        let event = edge.dial("sip:bob@pbx.test").await;
        assert!(matches!(event, UaEvent::Answered { .. }), "{event:?}");
        eprintln!("with the dead ones known: up in {:?}", again.elapsed());
        assert!(again.elapsed() < Duration::from_millis(1_200), "nobody waited for the dead");
        edge.tasks.stop().await;
    });
}

#[test]
fn naptr_chooses_tls_and_the_certificate_must_be_the_domains() {
    run(LIMIT, async {
        // The certificate is the domain's, not that of the host which SRV names.
        let (certificate, acceptor) = certified(&["pbx.test"]);
        let secure = Callee::stream(source(), Some(acceptor)).await;
        let plain = Callee::udp(source(), true).await;
        let zone = |domain: &str| {
            format!(
                "{domain} 60 NAPTR 10 1 s SIPS+D2T - _sips._tcp.{domain}
                 {domain} 60 NAPTR 20 1 s SIP+D2U - _sip._udp.{domain}
                 _sips._tcp.{domain} 60 SRV 1 1 {} secure.test
                 _sip._udp.{domain} 60 SRV 1 1 {} plain.test\n",
                secure.address.port(),
                plain.address.port()
            )
        };
        let hosts = format!(
            "secure.test 60 A {}\nplain.test 60 A {}",
            secure.address.ip(),
            plain.address.ip()
        );
        let names = NameServer::start(&(zone("pbx.test") + &zone("other.test") + &hosts));
        let mut edge = Edge::start(&names, Some(certificate)).await;
        let event = edge.dial("sip:bob@pbx.test").await;
        let UaEvent::Answered { flow, .. } = event else { panic!("{event:?}") };
        assert_eq!((flow.transport, flow.peer), (Transport::Tls, secure.address));
        assert_eq!(secure.sni.lock().expect("no panic").as_deref(), Some("pbx.test"));

        // Another domain on the same host proves nothing; a sip URI may go on without TLS.
        let event = edge.dial("sip:bob@other.test").await;
        let UaEvent::Answered { flow, .. } = event else { panic!("{event:?}") };
        assert_eq!((flow.transport, flow.peer), (Transport::Udp, plain.address));
        // A sips URI may not.
        let event = edge.dial("sips:bob@other.test").await;
        let UaEvent::DialFailed { fault, .. } = event else { panic!("{event:?}") };
        let DialFault::NotConnected(ConnectFault::Tls(words)) = fault else { panic!("{fault:?}") };
        assert!(words.contains("made out to pbx.test, not to other.test"), "{words}");
        edge.tasks.stop().await;
    });
}

#[test]
fn a_name_that_moves_is_followed() {
    run(LIMIT, async {
        let (here, there) = (source(), source());
        let first = Callee::udp(here, true).await;
        let second = Callee::udp(there, true).await;
        let zone = |callee: &Callee| {
            let (ip, port) = (callee.address.ip(), callee.address.port());
            format!("_sip._udp.pbx.test 0 SRV 1 1 {port} h.test\nh.test 0 A {ip}")
        };
        let names = NameServer::start(&zone(&first));
        let mut edge = Edge::start(&names, None).await;
        assert_eq!(edge.options("sip:pbx.test;transport=udp").await.address, first.address);
        names.set(&zone(&second));
        assert_eq!(edge.options("sip:pbx.test;transport=udp").await.address, second.address);
        assert_eq!((first.asked(), second.asked()), (1, 1));
        edge.tasks.stop().await;
    });
}

#[test]
fn a_connection_is_shared_by_one_identity_only() {
    run(LIMIT, async {
        let (certificate, acceptor) = certified(&["one.test", "two.test"]);
        for acceptor in [None, Some(acceptor)] {
            let word = if acceptor.is_some() { "tls" } else { "tcp" };
            let callee = Callee::stream(source(), acceptor).await;
            let ip = callee.address.ip();
            let names = NameServer::start(&format!("one.test 60 A {ip}\ntwo.test 60 A {ip}"));
            let mut edge = Edge::start(&names, Some(certificate.clone())).await;
            for (host, connections) in [("one", 1), ("one", 1), ("two", 2), ("one", 2), ("two", 2)]
            {
                let uri = format!("sip:{host}.test:{};transport={word}", callee.address.port());
                assert_eq!(edge.options(&uri).await.address, callee.address);
                assert_eq!(callee.accepted(), connections, "{host} over {word}");
            }
            assert_eq!(callee.asked(), 5);
            edge.tasks.stop().await;
        }
    });
}
