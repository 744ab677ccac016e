//! The flows over loopback: what is admitted, answered, passed on and closed.

use super::*;
use crate::shell::tls::{PeerTls, PeerTlsSettings, Pem, client_config, self_signed, server_config};
use crate::sip::msg::Builder;
use crate::sip::status::StatusLine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

const OPTIONS: &str = "OPTIONS sip:u@h SIP/2.0\r\nVia: SIP/2.0/UDP decoy.example;branch=z9hG4bK1;rport\r\n\
    From: <sip:a@b>;tag=1\r\nTo: <sip:u@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

struct Bench {
    flows: Flows,
    tasks: FlowTasks,
    inputs: FlowReceiver,
    certificate: Pem,
}

fn peer_tls(settings: PeerTlsSettings) -> PeerTlsSource {
    watch::channel(Arc::new(PeerTls::new(&settings).expect("good files"))).1
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// UDP, TCP and TLS on loopback; the gate says `listed` to everyone.
async fn bench(listed: bool, answer_unlisted: bool, patience: Patience) -> Bench {
    let (certificate, key) = self_signed(&["localhost"]).expect("a certificate");
    let (certificate, key) = (Pem::from_text("test", &certificate), Pem::from_text("test", &key));
    let config = server_config(&certificate, &key, None).expect("a configuration");
    let (_keeper, tls) = watch::channel(config);
    let settings = FlowSettings {
        listeners: [Transport::Udp, Transport::Tcp, Transport::Tls]
            .map(|kind| (kind, loopback()))
            .to_vec(),
        tls: Some(tls),
        peer_tls: peer_tls(PeerTlsSettings::default()),
        gate: Arc::new(move |_| listed),
        answer_unlisted,
        patience,
    };
    let (sender, inputs) = inputs(limits::SIGNALLING_QUEUE_MAX);
    let (flows, tasks) = Flows::start(settings, sender).await.expect("loopback can be bound");
    Bench { flows, tasks, inputs, certificate }
}

async fn listed() -> Bench {
    bench(true, false, Patience::default()).await
}

impl Bench {
    fn address(&self, transport: Transport) -> SocketAddr {
        let bound = self.flows.bound().iter().find(|(kind, _)| *kind == transport);
        bound.expect("all are bound").1
    }

    async fn connect(&self, transport: Transport) -> TcpStream {
        TcpStream::connect(self.address(transport)).await.expect("it listens")
    }

    /// The next message; what opens before it is skipped.
    async fn message(&mut self) -> (Flow, Message) {
        loop {
            match self.inputs.recv().await.expect("the flows are up") {
                FlowInput::Message { flow, message } => return (flow, message),
                FlowInput::Opened { .. } | FlowInput::Settle { .. } | FlowInput::Pong { .. } => {}
                FlowInput::Closed { flow } => panic!("{flow:?} closed"),
            }
        }
    }

    /// Answers the next message with 200.
    async fn answer(&mut self) -> Flow {
        let (flow, message) = self.message().await;
        let Message::Request(request) = message else { panic!("a request was sent") };
        let answer = Builder::response(&request, &StatusLine::of(200), flow.peer).to_tag("t");
        self.flows.send(flow, Destination::Peer, answer.finish().expect("no line breaks"));
        flow
    }
}

async fn read_until<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(stream.read_u8().await.expect("the stream goes on"));
    }
    String::from_utf8(text).expect("UTF-8")
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("a clean end");
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test]
async fn a_packet_comes_in_and_its_answer_goes_to_its_source() {
    let mut bench = listed().await;
    let phone = UdpSocket::bind(loopback()).await.expect("a port");
    let own = phone.local_addr().expect("bound");
    for text in ["\r\n\r\n", "\0", "junk", OPTIONS] {
        phone.send_to(text.as_bytes(), bench.address(Transport::Udp)).await.expect("sent");
    }
    let flow = bench.answer().await;
    assert_eq!(
        (flow.peer, flow.local, flow.transport),
        (own, bench.address(Transport::Udp), Transport::Udp)
    );
    let mut buffer = [0; 2048];
    let (len, from) = phone.recv_from(&mut buffer).await.expect("an answer");
    let text = String::from_utf8_lossy(&buffer[..len]);
    assert_eq!(from, flow.local);
    let stamp = format!(
        "Via: SIP/2.0/UDP decoy.example;branch=z9hG4bK1;rport={};received=127.0.0.1\r\n",
        own.port()
    );
    assert!(text.starts_with("SIP/2.0 200 OK\r\n") && text.contains(&stamp), "{text}");
    assert_eq!((bench.flows.counters().received, bench.flows.counters().malformed), (1, 1));
    bench.tasks.stop().await;
}

#[tokio::test]
async fn packets_go_to_addresses_from_the_listening_socket() {
    let mut bench = listed().await;
    let phone = UdpSocket::bind(loopback()).await.expect("a port");
    let proxy = UdpSocket::bind(loopback()).await.expect("a port");
    phone.send_to(OPTIONS.as_bytes(), bench.address(Transport::Udp)).await.expect("sent");
    let (flow, _) = bench.message().await;
    let there = proxy.local_addr().expect("bound");
    let v6 = SocketAddr::new("::1".parse().expect("an address"), there.port());
    let mut buffer = [0; 16];
    for (to, socket) in [
        (Destination::Address(there), &proxy),
        (Destination::Peer, &phone),
        (Destination::Address(v6), &phone),
    ] {
        bench.flows.send(flow, to.clone(), Bytes::from_static(b"x"));
        let (len, from) = socket.recv_from(&mut buffer).await.expect("a packet");
        assert_eq!((len, from), (1, flow.local), "{to:?}");
    }
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_malformed_packet_is_answered_at_once() {
    let bench = listed().await;
    let phone = UdpSocket::bind(loopback()).await.expect("a port");
    let text = OPTIONS.replace("CSeq: 1 OPTIONS", "CSeq: 1 BYE");
    phone.send_to(text.as_bytes(), bench.address(Transport::Udp)).await.expect("sent");
    let mut buffer = [0; 2048];
    let (len, _) = phone.recv_from(&mut buffer).await.expect("an answer");
    let text = String::from_utf8_lossy(&buffer[..len]);
    assert!(text.starts_with("SIP/2.0 400 Bad Request (CSeq method differs"), "{text}");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_stream_in_single_bytes_gives_the_same_messages() {
    let mut bench = listed().await;
    let mut phone = bench.connect(Transport::Tcp).await;
    phone.set_nodelay(true).expect("a TCP socket");
    for byte in format!("\r\n\r\n{OPTIONS}\r\n{OPTIONS}").bytes() {
        phone.write_all(&[byte]).await.expect("open");
    }
    assert_eq!(read_until(&mut phone, "\r\n").await, "\r\n", "the answer to the keep-alive");
    let flow = bench.answer().await;
    assert_eq!((flow.peer, flow.transport), (phone.local_addr().expect("open"), Transport::Tcp));
    assert_eq!(bench.answer().await, flow);
    for _ in 0..2 {
        assert!(read_until(&mut phone, "\r\n\r\n").await.starts_with("SIP/2.0 200 OK\r\n"));
    }
    drop(phone);
    assert!(
        matches!(bench.inputs.recv().await, Some(FlowInput::Closed { flow: closed }) if closed == flow)
    );
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_tls_hello_is_served_as_tls_on_both_kinds_of_listener() {
    let mut bench = listed().await;
    let client = client_config(false, std::slice::from_ref(&bench.certificate)).expect("a root");
    for transport in [Transport::Tcp, Transport::Tls] {
        let socket = bench.connect(transport).await;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut phone =
            TlsConnector::from(client.clone()).connect(name, socket).await.expect("trusted");
        phone.write_all(OPTIONS.as_bytes()).await.expect("open");
        assert_eq!(bench.answer().await.transport, Transport::Tls);
        assert!(read_until(&mut phone, "\r\n\r\n").await.starts_with("SIP/2.0 200 OK\r\n"));
        drop(phone);
        assert!(matches!(bench.inputs.recv().await, Some(FlowInput::Closed { .. })));
    }
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_lying_length_is_answered_and_the_connection_closed() {
    let mut bench = listed().await;
    let mut phone = bench.connect(Transport::Tcp).await;
    let text = OPTIONS.replace("Content-Length: 0", "Content-Length: -999") + OPTIONS;
    phone.write_all(text.as_bytes()).await.expect("open");
    let answer = read_all(phone).await;
    assert!(answer.starts_with("SIP/2.0 400 Bad Request (bad Content-Length)\r\n"), "{answer}");
    assert_eq!(answer.matches("SIP/2.0 4").count(), 1);
    assert!(matches!(bench.inputs.recv().await, Some(FlowInput::Opened { .. })));
    assert!(matches!(bench.inputs.recv().await, Some(FlowInput::Closed { .. })), "no message");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn an_unlisted_source_meets_silence_or_a_closed_door() {
    let mut bench = bench(false, false, Patience::default()).await;
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut phone = bench.connect(transport).await;
        // The other side may have closed before this is written.
        let _ = phone.write_all(OPTIONS.as_bytes()).await;
        let mut text = Vec::new();
        let _ = phone.read_to_end(&mut text).await;
        assert!(text.is_empty(), "{transport:?}");
    }
    let phone = UdpSocket::bind(loopback()).await.expect("a port");
    phone.send_to(OPTIONS.as_bytes(), bench.address(Transport::Udp)).await.expect("sent");
    while bench.flows.unlisted().total() < 3 {
        tokio::task::yield_now().await;
    }
    let rows = bench.flows.unlisted().rows();
    let mut kinds: Vec<_> = rows.iter().map(|row| (row.transport, row.count)).collect();
    kinds.sort();
    assert_eq!(kinds, [(Transport::Udp, 1), (Transport::Tcp, 1), (Transport::Tls, 1)]);
    assert!(bench.inputs.try_recv().is_err(), "nothing came through");
    assert!(phone.try_recv(&mut [0; 16]).is_err(), "nothing went out");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn an_unlisted_packet_gets_403_when_configured() {
    let bench = bench(false, true, Patience::default()).await;
    let phone = UdpSocket::bind(loopback()).await.expect("a port");
    let ack = OPTIONS.replace("OPTIONS", "ACK");
    for text in [ack.as_str(), OPTIONS] {
        phone.send_to(text.as_bytes(), bench.address(Transport::Udp)).await.expect("sent");
    }
    let mut buffer = [0; 2048];
    let (len, _) = phone.recv_from(&mut buffer).await.expect("an answer");
    let text = String::from_utf8_lossy(&buffer[..len]);
    assert!(
        text.starts_with("SIP/2.0 403 Forbidden\r\n") && text.contains("CSeq: 1 OPTIONS\r\n"),
        "{text}"
    );
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_peer_that_closed_its_side_gets_the_answers_that_it_is_owed() {
    let mut bench = listed().await;
    let mut phone = bench.connect(Transport::Tcp).await;
    phone.write_all(format!("{OPTIONS}{OPTIONS}").as_bytes()).await.expect("open");
    phone.shutdown().await.expect("open");
    let (flow, message) = bench.message().await;
    bench.message().await;
    let Message::Request(request) = message else { panic!("a request was sent") };
    // Long after the end was read: the other messages of a busy machine come first.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(bench.inputs.try_recv().is_err(), "it is not closed yet");
    for code in [180, 200, 486] {
        let answer = Builder::response(&request, &StatusLine::of(code), flow.peer).to_tag("t");
        bench.flows.send(flow, Destination::Peer, answer.finish().expect("no line breaks"));
    }
    let text = read_all(phone).await;
    assert_eq!(text.matches("SIP/2.0 ").count(), 3, "{text}");
    assert!(matches!(bench.inputs.recv().await, Some(FlowInput::Closed { .. })));
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_owed_nothing_is_closed_when_it_closes() {
    let mut bench = listed().await;
    let mut phone = bench.connect(Transport::Tcp).await;
    phone.write_all(OPTIONS.as_bytes()).await.expect("open");
    bench.answer().await;
    assert!(read_until(&mut phone, "\r\n\r\n").await.starts_with("SIP/2.0 200 OK"));
    phone.shutdown().await.expect("open");
    assert!(matches!(bench.inputs.recv().await, Some(FlowInput::Closed { .. })));
    bench.tasks.stop().await;
}

#[tokio::test]
async fn handshakes_of_one_source_are_slowed_down() {
    let bench = listed().await;
    let mut tries = 0;
    while bench.flows.counters().too_fast == 0 {
        let mut phone = bench.connect(Transport::Tcp).await;
        // The other side may have closed already: it has too many of us.
        let _ = phone.write_all(&[tls::HANDSHAKE_RECORD]).await;
        tries += 1;
        assert!(tries < 5_000, "each of them is let in");
        tokio::task::yield_now().await;
    }
    assert!(bench.flows.counters().handshakes_failed > 0, "the first ones were begun");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn packets_of_one_source_are_slowed_down_and_others_are_not() {
    let mut bench = listed().await;
    let (id, local) = (FlowId(1), bench.address(Transport::Udp));
    let flow = |peer: &str| {
        let peer = peer.parse().expect("an address");
        Flow { id, transport: Transport::Udp, local, peer }
    };
    for _ in 0..10 * limits::PACKETS_PER_SOURCE {
        udp::on_packet(&bench.flows, &flow("192.0.2.1:5060"), b"\r\n\r\n");
    }
    assert!(bench.flows.counters().too_fast > 0);
    udp::on_packet(&bench.flows, &flow("192.0.2.2:5060"), OPTIONS.as_bytes());
    assert_eq!(bench.message().await.0, flow("192.0.2.2:5060"));
    bench.tasks.stop().await;
}

fn hasty() -> Patience {
    let short = Duration::from_millis(50);
    Patience { connect: short, handshake: short, message: short, idle: short }
}

#[tokio::test]
async fn what_drips_or_idles_is_closed_when_its_time_is_over() {
    let mut bench = bench(true, false, hasty()).await;
    let silent = bench.connect(Transport::Tcp).await;
    let no_hello = bench.connect(Transport::Tls).await;
    let mut half = bench.connect(Transport::Tcp).await;
    half.write_all(&OPTIONS.as_bytes()[..40]).await.expect("open");
    let mut idle = bench.connect(Transport::Tcp).await;
    idle.write_all(OPTIONS.as_bytes()).await.expect("open");
    for phone in [silent, no_hello, half, idle] {
        assert_eq!(read_all(phone).await, "");
    }
    assert_eq!(bench.message().await.0.transport, Transport::Tcp);
    while bench.flows.counters().connections > 0 {
        tokio::task::yield_now().await;
    }
    let counters = bench.flows.counters();
    assert_eq!((counters.overdue, counters.handshakes_failed), (3, 1));
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_drip_does_not_move_the_deadline_and_a_call_keeps_an_idle_flow() {
    let mut bench = bench(true, false, hasty()).await;
    let mut kept = bench.connect(Transport::Tcp).await;
    kept.write_all(OPTIONS.as_bytes()).await.expect("open");
    let (flow, _) = bench.message().await;
    bench.flows.keep(flow.id, true);
    let mut drip = bench.connect(Transport::Tcp).await;
    let mut written = 0;
    // The drip outlives its deadline by far unless the deadline is absolute.
    while drip.write_all(b"O").await.is_ok() && drip.try_read(&mut [0; 1]).is_err() {
        tokio::task::yield_now().await;
        written += 1;
        assert!(written < limits::STREAM_MESSAGE_BYTES_MAX * 4, "never closed");
    }
    bench.flows.send(flow, Destination::Peer, Bytes::from_static(b"still here\r\n"));
    assert_eq!(read_until(&mut kept, "\r\n").await, "still here\r\n");
    bench.flows.keep(flow.id, false);
    assert_eq!(read_all(kept).await, "");
    bench.tasks.stop().await;
}

#[tokio::test]
async fn one_source_cannot_hold_all_connections() {
    let bench = listed().await;
    let mut open = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_SOURCE_MAX {
        open.push(bench.connect(Transport::Tcp).await);
    }
    let one_more = bench.connect(Transport::Tcp).await;
    assert_eq!(read_all(one_more).await, "");
    assert_eq!(bench.flows.counters().refused, 1);
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_closed() {
    let mut bench = listed().await;
    let mut phone = bench.connect(Transport::Tcp).await;
    phone.write_all(OPTIONS.as_bytes()).await.expect("open");
    let (flow, _) = bench.message().await;
    let piece = Bytes::from(vec![b'x'; limits::STREAM_WRITE_BACKLOG_BYTES_MAX / 4]);
    while bench.flows.counters().overflowed == 0 {
        bench.flows.send(flow, Destination::Peer, piece.clone());
        tokio::task::yield_now().await;
    }
    assert!(matches!(bench.inputs.recv().await, Some(FlowInput::Closed { .. })));
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_busy_port_is_named_with_what_to_do() {
    let taken = std::net::UdpSocket::bind(loopback()).expect("a port");
    let address = taken.local_addr().expect("bound");
    let settings = FlowSettings {
        listeners: vec![(Transport::Udp, address)],
        tls: None,
        peer_tls: peer_tls(PeerTlsSettings::default()),
        gate: Arc::new(|_| true),
        answer_unlisted: false,
        patience: Patience::default(),
    };
    let (sender, _inputs) = inputs(1);
    let fault = Flows::start(settings.clone(), sender.clone()).await.err().expect("it is taken");
    let words = fault.to_string();
    assert!(
        words.contains(&format!("UDP listener {address}")) && words.contains("ss -lnp"),
        "{words}"
    );
    let settings = FlowSettings { listeners: vec![(Transport::Tls, loopback())], ..settings };
    let fault = Flows::start(settings, sender).await.err().expect("no certificate");
    assert!(fault.to_string().contains("no certificate"), "{fault}");
}
