//! The real daemon for tests: in this process, or as a process of its own. Each has free loopback
//! ports, a folder, a store and a certificate of its own, the configuration of the demo but for
//! what the test changes, and callers with source addresses that nobody else uses.

pub mod dns;

use bytes::Bytes;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use voxedge::ground::{Entropy, Secret, Transport};
use voxedge::shell::admin::client;
use voxedge::shell::config::{self, Config, Machine};
use voxedge::shell::connect::{self, BoxedStream};
use voxedge::shell::daemon::Daemon;
use voxedge::shell::tls::{self, ClientConfig, Pem};
use voxedge::sip::msg::frame::{Framed, StreamFramer};
use voxedge::sip::msg::{Builder, Framing, Message, Method, Request, Response};
use voxedge::sip::status::StatusLine;
use voxedge::standin::{Standin, StandinOptions};

const DEMO: &str = include_str!("../../config/demo.toml");
/// Longest wait for anything that must happen at once; only a hang or a loss meets it.
pub const SOON: Duration = Duration::from_secs(20);
/// The demo's allowance that a test turns into one for every user.
pub const EVERY_USER: (&str, &str) = ("\"^echo$\"", "'(?s)^.*$'");
/// The demo's admin key.
pub const ADMIN_KEY: &str = "demo";

/// Runs `test` on a runtime of its own, with a limit that only a hang can meet.
pub fn run(limit: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test hangs") });
}

/// Looks again until `found` gives something; fails after `limit` with `what`.
pub fn await_some<T>(limit: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "{what} within {limit:?}");
        // What is asked for is in another process and tells nobody.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A source address in 127/8 that no other caller of this test run has.
pub fn source() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let group = number / 250;
    let (second, third) = (16 + (group / 250) as u8, (group % 250) as u8);
    IpAddr::V4(Ipv4Addr::new(127, second, third, 1 + (number % 250) as u8))
}

/// A word that nobody else in this test run has.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{word}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory of its own, removed at its end.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Place {
        let name = unique(&format!("voxedge-rig-{}-", std::process::id()));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Place(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A certificate for loopback in this place, and the trust in it.
    fn certify(&self) -> Arc<ClientConfig> {
        let (certificate, key) = tls::self_signed(&["localhost", "127.0.0.1"]).expect("good names");
        std::fs::write(self.path("edge.crt"), &certificate).expect("our own directory");
        std::fs::write(self.path("edge.key"), &key).expect("our own directory");
        let pem = Pem::from_text("the rig's certificate", &certificate);
        tls::client_config(false, &[pem]).expect("a good certificate")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a daemon listens.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub tls: SocketAddr,
    pub admin: SocketAddr,
}

impl Doors {
    /// Ports that were free a moment ago.
    pub fn free() -> Doors {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let packets = std::net::UdpSocket::bind(any).expect("loopback is there");
        let streams = [(); 3].map(|()| std::net::TcpListener::bind(any).expect("loopback"));
        let [tcp, tls, admin] =
            [0, 1, 2].map(|index: usize| streams[index].local_addr().expect("it is bound"));
        Doors { udp: packets.local_addr().expect("it is bound"), tcp, tls, admin }
    }

    pub fn of(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
        }
    }

    /// GET on the admin listener: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let key = Secret::new(ADMIN_KEY);
        let answer = client::request("GET", self.admin, path, Some(&key)).ok()?;
        Some((answer.status, answer.body))
    }

    /// One figure of `/metrics`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("voxedge_{name} ")));
        line.and_then(|value| value.parse().ok())
    }

    /// Waits until nothing is left of any call: no transaction, dialog, session or port. Figures are
    /// published each second, so an OPTIONS is sent first: they are of now when it is counted.
    pub fn await_idle(&self) {
        let figures = ["sip_transactions", "sip_dialogs", "media_sessions", "media_ports_in_use"];
        let before = await_some(SOON, "a figure", || self.metric("sip_received_total"));
        let socket = std::net::UdpSocket::bind((source(), 0)).expect("127/8 is ours");
        let (local, id) = (socket.local_addr().expect("it is bound"), unique("idle"));
        let options = format!(
            "OPTIONS sip:probe@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{id}\r\n\
             From: <sip:rig@localhost>;tag=1\r\nTo: <sip:probe@localhost>\r\nCall-ID: {id}\r\n\
             CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(options.as_bytes(), self.udp).expect("loopback");
        await_some(SOON, "new figures", || {
            self.metric("sip_received_total").filter(|received| *received > before)
        });
        await_some(Duration::from_secs(90), "everything was given back", || {
            let (_, page) = self.get("/metrics")?;
            let zero = |name: &&str| page.contains(&format!("\nvoxedge_{name} 0\n"));
            figures.iter().all(zero).then_some(())
        });
    }
}

/// The demo's configuration at these doors, with each change (what stands there, what shall).
pub fn config_text(doors: &Doors, changes: &[(&str, &str)]) -> String {
    let mut text = DEMO.to_owned();
    let listen = format!("tcp = [\"{}\"]\ntls = [\"{}\"]", doors.tcp, doors.tls);
    let own = [
        ("udp = [\"127.0.0.1:5070\"]", format!("udp = [\"{}\"]", doors.udp)),
        ("tcp = [\"127.0.0.1:5070\"]", listen),
        ("listen = \"127.0.0.1:8080\"", format!("listen = \"{}\"", doors.admin)),
        ("../out/demo/calls.sqlite", "calls.sqlite".to_owned()),
        // A key for this run, unless the test gives one.
        ("base_url = \"embedded\"\napi_key = \"demo\"", "base_url = \"embedded\"".to_owned()),
        ("unlisted_udp = \"403\"", "unlisted_udp = \"silence\"".to_owned()),
        (
            "[media]",
            "[tls]\ncertificate = \"edge.crt\"\nprivate_key = \"edge.key\"\n[media]".to_owned(),
        ),
    ];
    let changes = changes.iter().map(|(from, to)| (*from, (*to).to_owned()));
    for (from, to) in own.into_iter().chain(changes) {
        assert!(text.contains(from), "the demo's configuration has no {from}");
        text = text.replacen(from, &to, 1);
    }
    text
}

/// A daemon in this process.
pub struct Rig {
    pub daemon: Daemon,
    pub doors: Doors,
    pub trust: Arc<ClientConfig>,
    _place: Place,
}

impl Rig {
    /// Starts with the demo's configuration and these changes.
    pub async fn start(changes: &[(&str, &str)]) -> Rig {
        Rig::start_as(changes, |_| {}).await
    }

    /// With settings that no file may hold.
    pub async fn start_as(changes: &[(&str, &str)], adjust: impl FnOnce(&mut Config)) -> Rig {
        let place = Place::new();
        let trust = place.certify();
        let text = config_text(&Doors::free(), changes);
        let (config, report) = config::read("rig", &text, &place.0, &Machine::this());
        let mut config = config.unwrap_or_else(|| panic!("{report}"));
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listen = &mut config.listen;
        (listen.udp, listen.tcp, listen.tls) = (vec![any], vec![any], vec![any]);
        config.admin.listen = any;
        adjust(&mut config);
        let daemon = Daemon::start(&config).await.expect("it starts on free ports");
        let of = |transport| daemon.address(transport).expect("it listens");
        let doors = Doors {
            udp: of(Transport::Udp),
            tcp: of(Transport::Tcp),
            tls: of(Transport::Tls),
            admin: daemon.admin_address(),
        };
        Rig { daemon, doors, trust, _place: place }
    }

    pub async fn caller(&self, transport: Transport) -> Caller {
        Caller::connect(&self.doors, transport, source(), &self.trust).await
    }

    pub async fn stop(self) {
        self.daemon.stop(Duration::ZERO).await;
    }
}

/// An agent service of its own for daemons in other processes, which its memory is not part of.
pub struct Service {
    pub standin: Standin,
    /// The change that points a configuration at it.
    ultravox: String,
    /// The file with its root certificate.
    root: String,
}

impl Service {
    pub async fn start(place: &Place, api_key: &str, entropy: Entropy) -> Service {
        let options = StandinOptions::local(Secret::new(api_key), entropy);
        let standin = Standin::start(StandinOptions { tls: true, ..options }).await;
        let standin = standin.expect("loopback is there");
        let root = place.path("root.pem");
        let certificate = standin.root_certificate().expect("it serves TLS");
        std::fs::write(&root, certificate).expect("our own directory");
        let ultravox = format!(
            "base_url = \"{}\"\napi_key = \"{api_key}\"\njoin_domains = [\"127.0.0.1\"]",
            standin.base_url()
        );
        Service { standin, ultravox, root: root.display().to_string() }
    }

    pub fn change(&self) -> (&str, &str) {
        ("base_url = \"embedded\"", &self.ultravox)
    }

    /// Makes a daemon trust it.
    pub fn trust(&self) -> (&str, &str) {
        ("SSL_CERT_FILE", &self.root)
    }
}

/// A daemon in a process of its own; killed when dropped.
pub struct Process {
    pub child: Child,
    pub doors: Doors,
    pub trust: Arc<ClientConfig>,
    /// What it wrote to standard error.
    pub log: Arc<Mutex<String>>,
    pub place: Arc<Place>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    /// Starts in a new place and waits until `/ready` says so.
    pub fn spawn(changes: &[(&str, &str)], environment: &[(&str, &str)]) -> Process {
        Process::spawn_in(&Arc::new(Place::new()), changes, environment)
    }

    /// Starts in a place where another may have been before.
    pub fn spawn_in(
        place: &Arc<Place>,
        changes: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Process {
        // A port that was free may be taken by now: then with others.
        for _ in 0..5 {
            let trust = place.certify();
            let doors = Doors::free();
            let path = place.path("voxedge.toml");
            std::fs::write(&path, config_text(&doors, changes)).expect("our own directory");
            let mut process = Process::launch(place, doors, trust, &path, environment);
            let ready = await_some(SOON, "ready or ended", || {
                if process.child.try_wait().expect("it is our child").is_some() {
                    return Some(false);
                }
                (doors.get("/ready")?.0 == 200).then_some(true)
            });
            if ready {
                return process;
            }
            let log = process.log();
            assert!(log.contains("nother program has this port"), "it ended: {log}");
        }
        panic!("no port stays free");
    }

    fn launch(
        place: &Arc<Place>,
        doors: Doors,
        trust: Arc<ClientConfig>,
        config: &Path,
        environment: &[(&str, &str)],
    ) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxedge"));
        command.arg("run").arg("--config").arg(config).stderr(Stdio::piped());
        command.stdout(Stdio::null()).envs(environment.iter().copied());
        let mut child = command.spawn().expect("it was built");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("no reader panics");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Process { child, doors, trust, log, place: Arc::clone(place), reader: Some(reader) }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("no reader panics").clone()
    }

    pub async fn caller(&self, transport: Transport) -> Caller {
        Caller::connect(&self.doors, transport, source(), &self.trust).await
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill is there");
        assert!(sent.success());
    }

    /// The exit code when it ends by itself in time.
    pub fn await_exit(&mut self, limit: Duration) -> Option<i32> {
        let child = &mut self.child;
        let status = await_some(limit, "it ended", || child.try_wait().expect("it is our child"));
        self.reader.take().map(std::thread::JoinHandle::join);
        status.code()
    }

    /// Ends at once, without a word to anybody.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reader.take().map(std::thread::JoinHandle::join);
    }

    /// Resident memory in KiB, threads and descriptors, as the kernel tells.
    pub fn footprint(&self) -> Footprint {
        let root = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(root.join("status")).expect("it runs");
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("the kernel tells it")
        };
        let files = std::fs::read_dir(root.join("fd")).expect("it runs").count();
        Footprint { rss_kib: field("VmRSS:"), threads: field("Threads:"), files }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub rss_kib: u64,
    pub threads: u64,
    pub files: usize,
}

/// One caller's signalling: a packet socket or a connection.
pub struct Caller {
    pub local: SocketAddr,
    pub server: SocketAddr,
    pub transport: Transport,
    wire: Wire,
}

enum Wire {
    Packets(UdpSocket),
    Stream { stream: BoxedStream, framer: StreamFramer },
}

/// What a caller met.
#[derive(Debug)]
pub enum Heard {
    Message(Message),
    /// The connection was closed.
    Closed,
    /// Nothing until the deadline.
    Nothing,
}

impl Caller {
    pub async fn connect(
        doors: &Doors,
        transport: Transport,
        source: IpAddr,
        trust: &Arc<ClientConfig>,
    ) -> Caller {
        let server = doors.of(transport);
        let any = SocketAddr::new(source, 0);
        if transport == Transport::Udp {
            let socket = UdpSocket::bind(any).await.expect("127/8 is ours");
            socket.connect(server).await.expect("loopback");
            let local = socket.local_addr().expect("it is bound");
            return Caller { local, server, transport, wire: Wire::Packets(socket) };
        }
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(any).expect("127/8 is ours");
        let stream = socket.connect(server).await.expect("the daemon listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let local = stream.local_addr().expect("it is connected");
        let stream: BoxedStream = match transport {
            Transport::Tls => {
                connect::tls(stream, "localhost", Arc::clone(trust)).await.expect("a handshake")
            }
            Transport::Udp | Transport::Tcp => Box::new(stream),
        };
        let wire = Wire::Stream { stream, framer: StreamFramer::new(server) };
        Caller { local, server, transport, wire }
    }

    /// Sends; false when the connection is closed.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        match &mut self.wire {
            Wire::Packets(socket) => socket.send(bytes).await.is_ok(),
            Wire::Stream { stream, .. } => {
                stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
            }
        }
    }

    /// Sends each byte as a write of its own.
    pub async fn send_in_bytes(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes.chunks(1) {
            if !self.send(byte).await {
                return false;
            }
        }
        true
    }

    /// Says that nothing more comes from us.
    pub async fn end_writing(&mut self) {
        if let Wire::Stream { stream, .. } = &mut self.wire {
            // It may be closed already.
            let _ = stream.shutdown().await;
        }
    }

    /// The next message; a BYE is answered as well.
    pub async fn receive(&mut self, limit: Duration) -> Heard {
        let heard = match tokio::time::timeout(limit, self.next()).await {
            Ok(Some(message)) => Heard::Message(message),
            Ok(None) => Heard::Closed,
            Err(_) => Heard::Nothing,
        };
        if let Heard::Message(Message::Request(request)) = &heard
            && request.method() == &Method::Bye
        {
            let ok = Builder::response(request, &StatusLine::of(200), self.server).finish();
            self.send(&ok.expect("an answer repeats what was read")).await;
        }
        heard
    }

    async fn next(&mut self) -> Option<Message> {
        match &mut self.wire {
            Wire::Packets(socket) => {
                let mut buffer = vec![0; 65_536];
                loop {
                    // An error tells of an earlier packet of ours.
                    let Ok(length) = socket.recv(&mut buffer).await else { continue };
                    return Some(parse(
                        Bytes::copy_from_slice(&buffer[..length]),
                        Framing::Datagram,
                    ));
                }
            }
            Wire::Stream { stream, framer } => loop {
                match framer.next().expect("the daemon frames well") {
                    Some(Framed::Message(bytes)) => return Some(parse(bytes, Framing::Stream)),
                    Some(Framed::KeepAlive | Framed::Pong) => continue,
                    None => {}
                }
                let mut buffer = [0; 4_096];
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    // A lone line end answers a keep-alive (RFC 5626 §3.5.1).
                    Ok(2) if buffer.starts_with(b"\r\n") => {}
                    Ok(length) => framer.push(&buffer[..length]),
                }
            },
        }
    }

    /// An OPTIONS of its own that is answered at once, over packets sent again when lost. What came
    /// before its answer; `None` when the connection was closed instead.
    pub async fn fence(&mut self) -> Option<Vec<Message>> {
        let id = unique("fence");
        let options = self.request("OPTIONS", "probe", &id, "", "");
        self.send(&options).await;
        self.until_answer(&id, Some(&options)).await.1
    }

    /// Receives until the final answer with this Call-ID: it, and all before it.
    pub async fn until_answer(
        &mut self,
        call_id: &str,
        again: Option<&[u8]>,
    ) -> (Option<Response>, Option<Vec<Message>>) {
        let (mut before, end) = (Vec::new(), Instant::now() + SOON);
        loop {
            match self.receive(Duration::from_secs(1)).await {
                Heard::Message(Message::Response(answer))
                    if answer.call_id() == call_id && answer.code() >= 200 =>
                {
                    return (Some(answer), Some(before));
                }
                Heard::Message(message) => before.push(message),
                Heard::Closed => return (None, None),
                Heard::Nothing => {
                    assert!(Instant::now() < end, "no answer to {call_id}");
                    if let (Some(again), Wire::Packets(_)) = (again, &self.wire) {
                        self.send(again).await;
                    }
                }
            }
        }
    }

    /// A request outside a dialog. `headers` are whole lines.
    pub fn request(&self, method: &str, user: &str, id: &str, headers: &str, body: &str) -> Bytes {
        let (via, local) = (self.transport.via_token(), self.local);
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let length = body.len();
        Bytes::from(format!(
            "{method} sip:{user}@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/{via} {local};branch=z9hG4bK{id};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:caller@localhost>;tag=f{id}\r\nTo: <sip:{user}@localhost>\r\n\
             Call-ID: {id}\r\nCSeq: 1 {method}\r\nContact: <sip:caller@{local}>\r\n\
             {headers}{kind}Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// An INVITE that offers PCMU at this port.
    pub fn invite(&self, user: &str, id: &str, rtp_port: u16) -> Bytes {
        self.request("INVITE", user, id, "", &offer(self.local.ip(), rtp_port, "0"))
    }

    /// The ACK of a final answer to an INVITE: within the transaction unless it is a 2xx.
    pub fn ack(&self, answer: &Response) -> Bytes {
        self.within("ACK", answer, answer.cseq().number)
    }

    /// A request in the dialog that a 200 made.
    pub fn within(&self, method: &str, answer: &Response, cseq: u32) -> Bytes {
        let accepted = answer.code() < 300;
        let target = match answer.contact() {
            Some(contact) if accepted => contact.uri().as_str().to_owned(),
            _ => "sip:probe@127.0.0.1".to_owned(),
        };
        let via = match accepted {
            true => format!(
                "SIP/2.0/{} {};branch=z9hG4bK{};rport",
                self.transport.via_token(),
                self.local,
                unique(method)
            ),
            false => answer.via().as_str().to_owned(),
        };
        let (from, to) = (answer.from().as_str().to_owned(), answer.to().as_str().to_owned());
        Bytes::from(format!(
            "{method} {target} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\n\
             To: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            answer.call_id()
        ))
    }

    /// Acknowledges and hangs up an answered call; waits for the answer to the BYE.
    pub async fn hang_up(&mut self, answer: &Response) -> u16 {
        let ack = self.ack(answer);
        self.send(&ack).await;
        self.bye(answer).await
    }

    /// BYE in an acknowledged call, and the status of its answer.
    pub async fn bye(&mut self, answer: &Response) -> u16 {
        let bye = self.within("BYE", answer, answer.cseq().number.saturating_add(1));
        self.send(&bye).await;
        let end = Instant::now() + SOON;
        loop {
            match self.receive(Duration::from_secs(1)).await {
                Heard::Message(Message::Response(ended))
                    if ended.cseq().method == &Method::Bye
                        && ended.call_id() == answer.call_id() =>
                {
                    return ended.code();
                }
                Heard::Message(_) => {}
                Heard::Closed => return 0,
                Heard::Nothing => {
                    assert!(Instant::now() < end, "no answer to BYE");
                    if self.transport == Transport::Udp {
                        self.send(&bye).await;
                    }
                }
            }
        }
    }

    /// Places a call and gives its final answer; a refusal is acknowledged.
    pub async fn call(&mut self, user: &str, rtp_port: u16) -> Response {
        let id = unique("call");
        let invite = self.invite(user, &id, rtp_port);
        self.send(&invite).await;
        self.final_of(&id, &invite).await
    }

    /// The final answer to an INVITE that was sent; a refusal is acknowledged.
    pub async fn final_of(&mut self, call_id: &str, invite: &[u8]) -> Response {
        let (answer, _) = self.until_answer(call_id, Some(invite)).await;
        let answer = answer.expect("the connection stays open");
        if answer.code() >= 300 {
            let ack = self.ack(&answer);
            self.send(&ack).await;
        }
        answer
    }

    /// True when nothing waits to be read.
    pub fn is_quiet(&self) -> bool {
        match &self.wire {
            Wire::Packets(socket) => socket.try_recv(&mut [0; 16]).is_err(),
            Wire::Stream { .. } => true,
        }
    }
}

/// An offer with these payload numbers.
pub fn offer(address: IpAddr, port: u16, numbers: &str) -> String {
    format!(
        "v=0\r\no=rig 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {numbers}\r\na=sendrecv\r\n"
    )
}

/// What a daemon sends can be read, but for an answer that repeats what was malformed: of that the
/// outline is given.
fn parse(bytes: Bytes, framing: Framing) -> Message {
    Message::parse(bytes.clone(), framing).unwrap_or_else(|fault| {
        let text = String::from_utf8_lossy(&bytes);
        let outline = outline(&text).and_then(|text| Message::parse(text.into(), framing).ok());
        outline.unwrap_or_else(|| panic!("{:?} in {text}", fault.reason))
    })
}

/// Status and `received` of a refusal of ours, the rest made up; whether a To got its tag is kept.
fn outline(text: &str) -> Option<String> {
    let (status_line, rest) = text.split_once("\r\n")?;
    let refused = status_line.starts_with("SIP/2.0 4") || status_line.starts_with("SIP/2.0 5");
    let line = |name: &str| rest.split("\r\n").find(|line| line.starts_with(name));
    let received = line("Via:")?.split(";received=").nth(1)?;
    let received = received.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let tagged = line("To:").is_none_or(|to| to.contains(";tag="));
    let tag = if tagged { ";tag=odd" } else { "" };
    refused.then(|| {
        format!(
            "{status_line}\r\nVia: SIP/2.0/UDP odd;branch=z9hG4bKodd;received={received}\r\n\
             From: <sip:odd@odd>;tag=odd\r\nTo: <sip:odd@odd>{tag}\r\nCall-ID: odd\r\n\
             CSeq: 1 ODD\r\nContent-Length: 0\r\n\r\n"
        )
    })
}

/// A request as the daemon reads it, when it does.
pub fn read_request(bytes: &Bytes) -> Option<Request> {
    match Message::parse(bytes.clone(), Framing::Datagram) {
        Ok(Message::Request(request)) => Some(request),
        Ok(Message::Response(_)) | Err(_) => None,
    }
}
