//! Kamailio as the registrar: the daemon registers with digest over UDP, TCP and TLS, calls that
//! Kamailio routes to the registration reach the agent, and what Kamailio holds is asked of Kamailio.
//! A second one stands between them as the outbound proxy, or between a caller and us as a proxy that
//! stays on the way of the dialog.
//! Each test has one of its own, with its ports and folder; it is ended by its process id.

use super::agents::{AGENT, Agents, agent, invoke, tool};
use super::phone::Phone;
use super::rig::{Folder, free_port, has};
use crate::rig::{Place, Process, SOON, await_some, unique};
use serde_json::json;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use voxedge::billing::{Cdr, EndedBy, TransferOutcome};
use voxedge::ground::{Entropy, Secret};
use voxedge::shell::store::{Filter, Reader};
use voxedge::sip::digest::{Credentials, DigestClient};
use voxedge::sip::msg::{Framing, Message, Method, Response};
use voxedge::standin::script::Step;

/// Longest wait for what takes a refresh or a back-off on a loaded machine.
const LONG: Duration = Duration::from_secs(90);
/// For how long Kamailio binds at most: so briefly that a test can wait for it, and so long that none
/// does.
const BRIEFLY_S: u32 = 8;
const LONG_S: u32 = 600;

/// Where the outbound proxy is: not where the registrar is, and in no allowed range.
const PROXY: &str = "127.0.0.9";

fn filled_in(template: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(template.to_owned(), |text, (word, value)| {
        assert!(text.contains(word), "{word} is not in the template");
        text.replace(word, value)
    })
}

/// A running Kamailio, ended when dropped.
pub(super) struct Kamailio {
    child: Child,
    folder: Folder,
    port: u16,
    tls_port: u16,
}

impl Kamailio {
    fn start(algorithm: &str, expires_s: u32) -> Kamailio {
        let folder = Folder::new();
        let (certificate, key) =
            voxedge::shell::tls::self_signed(&["localhost", "127.0.0.1"]).expect("a certificate");
        folder.write("kamailio.crt", certificate);
        folder.write("kamailio.key", key);
        let (port, tls_port) = (free_port(), free_port());
        let template = include_str!("../../../fixtures/kamailio/kamailio.cfg");
        let config = [
            ("@port@", port.to_string()),
            ("@tls_port@", tls_port.to_string()),
            ("@folder@", folder.0.display().to_string()),
            ("@expires@", expires_s.to_string()),
            ("@algorithm@", algorithm.to_owned()),
            ("@password@", "secret".to_owned()),
        ];
        folder.write("kamailio.cfg", filled_in(template, &config));
        let child = Kamailio::launch(&folder);
        let kamailio = Kamailio { child, folder, port, tls_port };
        kamailio.await_up();
        kamailio
    }

    /// One that only passes on, at [`PROXY`].
    fn outbound_proxy() -> Kamailio {
        Kamailio::proxy_by(include_str!("../../../fixtures/kamailio/outbound_proxy.cfg"))
    }

    /// One that passes on and stays on the way of the dialog, at [`PROXY`].
    fn record_routing_proxy() -> Kamailio {
        Kamailio::proxy_by(include_str!("../../../fixtures/kamailio/record_route.cfg"))
    }

    /// One that passes new calls for itself on to this telephone, and stays on the way; where it is.
    pub(super) fn gateway_to(target: u16) -> (Kamailio, String) {
        let template = include_str!("../../../fixtures/kamailio/gateway.cfg");
        let kamailio =
            Kamailio::proxy_by(&filled_in(template, &[("@target@", target.to_string())]));
        let place = format!("{PROXY}:{}", kamailio.port);
        (kamailio, place)
    }

    fn proxy_by(template: &str) -> Kamailio {
        let (folder, port) = (Folder::new(), free_port());
        let config = [("@address@", PROXY.to_owned()), ("@port@", port.to_string())];
        folder.write("kamailio.cfg", filled_in(template, &config));
        let child = Kamailio::launch(&folder);
        let kamailio = Kamailio { child, folder, port, tls_port: 0 };
        await_some(LONG, "the proxy has its port", || {
            UdpSocket::bind((PROXY, port)).is_err().then_some(())
        });
        kamailio
    }

    fn launch(folder: &Folder) -> Child {
        let log = std::fs::File::create(folder.0.join("kamailio.log")).expect("our own folder");
        Command::new("kamailio")
            .arg("-f")
            .arg(folder.0.join("kamailio.cfg"))
            .args(["-DD", "-E", "-m", "32", "-M", "8"])
            .arg("-Y")
            .arg(&folder.0)
            .arg("-w")
            .arg(&folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it is installed")
    }

    /// Until it challenges.
    fn await_up(&self) {
        await_some(LONG, &format!("Kamailio is up: {}", self.log()), || {
            let code = self.ask(1, &[], Duration::from_millis(200)).map(|answer| answer.code());
            (code == Some(401)).then_some(())
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("kamailio.log")).unwrap_or_default()
    }

    /// Ends it with all its processes; its table is gone with it.
    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &id]).status();
        let end = Instant::now() + SOON;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn restart(&mut self) {
        self.stop();
        self.child = Kamailio::launch(&self.folder);
        self.await_up();
    }

    /// The contacts that it holds for `sales`, as it lists them (RFC 3261 §10.2.3: no Contact asks).
    fn contacts(&self) -> Vec<String> {
        let password = Secret::new("secret");
        let credentials = Credentials { username: "sales".into(), password };
        let mut client = DigestClient::new(credentials);
        let first = self.ask(1, &[], SOON).expect("a challenge");
        client.challenged(&first).expect("digest");
        let mut entropy = Entropy::from_number(1);
        let uri = format!("sip:127.0.0.1:{}", self.port);
        let headers = client.authorize(&Method::Register, &uri, b"", &mut entropy);
        let answer = self.ask(2, &headers, SOON).expect("its table");
        assert_eq!(answer.code(), 200, "{}", self.log());
        answer.contacts().map(|contact| contact.uri().as_str().to_owned()).collect()
    }

    fn ask(&self, cseq: u32, headers: &[(&str, String)], limit: Duration) -> Option<Response> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let local = socket.local_addr().expect("it is bound");
        let id = unique("ask");
        let more: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!(
            "REGISTER sip:127.0.0.1:{} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{id}\r\n\
             From: <sip:sales@127.0.0.1>;tag=1\r\nTo: <sip:sales@127.0.0.1>\r\nCall-ID: {id}\r\n\
             CSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\n{more}Content-Length: 0\r\n\r\n",
            self.port
        );
        socket.connect(("127.0.0.1", self.port)).expect("loopback");
        socket.set_read_timeout(Some(limit)).expect("a limit");
        // A port that nobody has yet refuses; a lost answer is asked for by the caller again.
        socket.send(text.as_bytes()).ok()?;
        let mut buffer = vec![0; 16 * 1024];
        let len = socket.recv(&mut buffer).ok()?;
        buffer.truncate(len);
        match Message::parse(buffer.into(), Framing::Datagram) {
            Ok(Message::Response(response)) => Some(response),
            other => panic!("Kamailio wrote {other:?}"),
        }
    }

    /// The registrar's name for this transport, as a customer writes it.
    fn proxy(&self, transport: &str) -> String {
        match transport {
            "udp" => format!("127.0.0.1:{}", self.port),
            "tcp" => format!("sip:127.0.0.1:{};transport=tcp", self.port),
            _ => format!("sip:127.0.0.1:{};transport=tls", self.tls_port),
        }
    }

    /// Changes of the configuration: the registration, and no range that would admit anybody here.
    fn registration(&self, transport: &str, password: &str) -> String {
        format!(
            "[[sip.registrations]]\nusername = \"sales\"\npassword = \"{password}\"\nproxy = \"{}\"\n\
             [admin]",
            self.proxy(transport)
        )
    }

    fn trust(&self) -> String {
        let path = self.folder.0.join("kamailio.crt");
        format!("[tls]\nca = \"{}\"\ncertificate = \"edge.crt\"", path.display())
    }

    fn edge(&self, place: &Arc<Place>, transport: &str, password: &str) -> Process {
        self.edge_with(place, &self.registration(transport, password))
    }

    fn edge_with(&self, place: &Arc<Place>, registration: &str) -> Process {
        let trust = self.trust();
        let changes = [
            ("allowed_cidr_ranges = [\"127.0.0.0/8\"]", "allowed_cidr_ranges = [\"192.0.2.0/24\"]"),
            ("\"^echo$\"", "\"^sales$\""),
            ("[admin]", registration),
            ("[tls]\ncertificate = \"edge.crt\"", trust.as_str()),
        ];
        Process::spawn_in(place, &changes, &[])
    }

    /// SIPp calls `sales` at Kamailio.
    fn call(&self) {
        let folder = Folder::new();
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sipp/call.xml");
        let output = Command::new("sipp")
            .current_dir(&folder.0)
            .arg("-sf")
            .arg(scenario)
            .args(["-s", "sales", "-t", "u1", "-i", "127.0.0.1", "-m", "1", "-nostdin"])
            .args(["-p", &free_port().to_string(), "-timeout", "40", "-timeout_error"])
            .args(["-trace_err", "-error_file", "errors.log"])
            .arg(format!("127.0.0.1:{}", self.port))
            .stdin(Stdio::null())
            .output()
            .expect("it is installed");
        let errors = std::fs::read_to_string(folder.0.join("errors.log")).unwrap_or_default();
        assert!(output.status.success(), "{errors}\n{}", self.log());
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn installed() -> bool {
    has("kamailio") && has("sipp")
}

/// `successful` of the only registration, as the API tells it.
fn successful(edge: &Process) -> Option<bool> {
    let (status, body) = edge.doors.get("/api/sip/registrations")?;
    assert_eq!(status, 200, "{body}");
    let list: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    list["results"][0]["successful"].as_bool()
}

fn await_successful(edge: &Process, wanted: bool) {
    await_some(LONG, &format!("successful is {wanted}"), || {
        (successful(edge) == Some(wanted)).then_some(())
    });
}

fn closed_record(place: &Place) -> Cdr {
    await_some(SOON, "a closed record", || {
        let reader = Reader::open(&place.path("calls.sqlite")).ok()?;
        let list = reader.list(&Filter::default(), 10).ok()?;
        list.into_iter().find(Cdr::is_closed)
    })
}

#[test]
fn kamailio_routes_calls_to_the_registration_over_each_transport() {
    if !installed() {
        return;
    }
    for (transport, algorithm) in [("udp", "MD5"), ("tcp", "SHA-256"), ("tls", "MD5")] {
        let (kamailio, place) = (Kamailio::start(algorithm, BRIEFLY_S), Arc::new(Place::new()));
        let edge = kamailio.edge(&place, transport, "secret");
        await_successful(&edge, true);
        let contacts = kamailio.contacts();
        assert_eq!(contacts.len(), 1, "{contacts:?}");
        let own = format!("transport={transport}");
        assert!(contacts[0].starts_with("sip:sales@127.0.0.1:") && contacts[0].ends_with(&own));
        kamailio.call();
        let record = closed_record(&place);
        assert_eq!(record.status, Some(200), "{transport}: {record:#?}");
        assert_eq!(record.admitted_by.as_deref(), Some("registration sales@127.0.0.1"));
        assert_eq!(record.source.transport.uri_param(), transport);
        drop(edge);
    }
}

#[test]
fn an_outbound_proxy_carries_the_registration_and_its_calls() {
    if !installed() {
        return;
    }
    let (kamailio, proxy) = (Kamailio::start("SHA-256", LONG_S), Kamailio::outbound_proxy());
    let place = Arc::new(Place::new());
    let registration = kamailio
        .registration("udp", "secret")
        .replace("[admin]", &format!("outbound_proxy = \"{PROXY}:{}\"\n[admin]", proxy.port));
    let edge = kamailio.edge_with(&place, &registration);
    await_successful(&edge, true);
    assert_eq!(kamailio.contacts().len(), 1);
    kamailio.call();
    let record = closed_record(&place);
    assert_eq!(record.status, Some(200), "{record:#?}");
    assert_eq!(record.admitted_by.as_deref(), Some("registration sales@127.0.0.1"));
    assert_eq!(record.source.address.to_string(), format!("{PROXY}:{}", proxy.port));
}

/// The scenario through a proxy that stays between; the agent refers the caller when 0 is pressed.
fn between(scenario: &str) -> (Cdr, Vec<String>) {
    let proxy = Kamailio::record_routing_proxy();
    let pressed = vec![Step::AwaitText { text: "0".into() }];
    let steps = [pressed, invoke("coldTransfer", json!({}))].concat();
    let agents = Agents::start(vec![agent(tool("coldTransfer", 9, json!({})), steps)]);
    let edge = agents.edge(9, "[keys]\npause_ms = 50\n");
    let by = format!("{PROXY}:{}", proxy.port);
    Phone::call_by(scenario, &by, AGENT, edge.port).assert_content();
    let record = edge.closed(1).remove(0);
    assert_eq!(record.status, Some(200), "{record:#?}");
    assert_eq!(record.source.address.to_string(), by, "it was never by-passed: {}", proxy.log());
    (record, agents.told())
}

#[test]
fn a_proxy_that_stays_on_the_way_carries_hold_and_the_callers_bye() {
    if installed() {
        let (record, told) = between("routed_leaves");
        assert_eq!(record.ended_by, Some(EndedBy::Caller), "{record:#?}");
        assert_eq!(told, [""; 0]);
    }
}

#[test]
fn a_proxy_that_stays_on_the_way_carries_the_agents_refer_and_our_bye() {
    if installed() {
        let (record, told) = between("routed_referred");
        assert_eq!(record.transfers[0].outcome, TransferOutcome::Referred, "{record:#?}");
        assert_eq!(record.ended_by, Some(EndedBy::Agent), "{record:#?}");
        assert_eq!(told, ["0"]);
    }
}

#[test]
fn a_registrar_that_is_killed_and_started_again_has_the_binding_back() {
    if !installed() {
        return;
    }
    for transport in ["udp", "tcp"] {
        let (mut kamailio, place) = (Kamailio::start("MD5", BRIEFLY_S), Arc::new(Place::new()));
        let edge = kamailio.edge(&place, transport, "secret");
        await_successful(&edge, true);
        kamailio.stop();
        await_successful(&edge, false);
        kamailio.restart();
        await_successful(&edge, true);
        assert_eq!(kamailio.contacts().len(), 1, "{transport}");
        kamailio.call();
        assert_eq!(closed_record(&place).status, Some(200), "{transport}");
    }
}

#[test]
fn a_wrong_password_is_told_and_binds_nothing() {
    if !installed() {
        return;
    }
    let (kamailio, place) = (Kamailio::start("MD5", LONG_S), Arc::new(Place::new()));
    let edge = kamailio.edge(&place, "udp", "wrong");
    await_successful(&edge, false);
    assert_eq!(kamailio.contacts(), [""; 0]);
    let log = edge.log();
    assert!(log.contains("wrong user name or password"), "{log}");
    assert!(!log.contains("\"wrong\"") && !log.contains("response="), "{log}");
}

#[test]
fn a_registration_that_is_removed_or_drained_leaves_nothing() {
    if !installed() {
        return;
    }
    let (kamailio, place) = (Kamailio::start("MD5", LONG_S), Arc::new(Place::new()));
    let mut edge = kamailio.edge(&place, "udp", "secret");
    await_successful(&edge, true);
    let path = place.path("voxedge.toml");
    let text = std::fs::read_to_string(&path).expect("our own file");
    let without = text.replace(&kamailio.registration("udp", "secret"), "[admin]");
    assert_ne!(text, without);
    std::fs::write(&path, without).expect("our own file");
    edge.signal("HUP");
    await_some(SOON, "it is removed", || kamailio.contacts().is_empty().then_some(()));

    std::fs::write(&path, text).expect("our own file");
    edge.signal("HUP");
    await_some(LONG, "it is back", || (kamailio.contacts().len() == 1).then_some(()));
    edge.signal("TERM");
    assert_eq!(edge.await_exit(SOON), Some(0));
    assert_eq!(kamailio.contacts(), [""; 0], "the drain removed it");
}

#[test]
fn a_daemon_that_was_killed_comes_back_with_one_binding() {
    if !installed() {
        return;
    }
    for transport in ["udp", "tls"] {
        let (kamailio, place) = (Kamailio::start("MD5", LONG_S), Arc::new(Place::new()));
        let mut edge = kamailio.edge(&place, transport, "secret");
        await_successful(&edge, true);
        let before = kamailio.contacts();
        edge.kill();
        // On other ports: the Contact is another one, and the former is removed.
        let edge = kamailio.edge(&place, transport, "secret");
        await_successful(&edge, true);
        await_some(SOON, "one binding", || (kamailio.contacts().len() == 1).then_some(()));
        assert_ne!(kamailio.contacts(), before, "{transport}");
        drop(edge);
    }
}
