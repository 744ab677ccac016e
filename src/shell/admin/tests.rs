//! The whole listener over loopback.

use super::health::Health;
use super::*;
use crate::account::AgentAllowance;
use crate::billing::{CallDirection, Cdr, Source};
use crate::ground::{CallKey, Transport, WallTime};
use crate::shell::store::Store;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::sync::Mutex;

const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";

/// A running listener with two records in its store.
struct Edge {
    address: SocketAddr,
    health: Arc<Mutex<Health>>,
    directory: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Edge {
    fn start(name: &str, api_key: Option<&str>) -> Edge {
        let directory =
            std::env::temp_dir().join(format!("voxedge-admin-{name}-{}", std::process::id()));
        let path = directory.join("calls.sqlite");
        let (store, thread) = Store::open(&path).expect("a new store");
        (1..=2).for_each(|number| store.write(record(number)));
        thread.stop();
        let health = Health { signalling_alive: true, started: true, ..Health::default() };
        let health = Arc::new(Mutex::new(health));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shown = health.clone();
        let document = SipConfigDocument {
            allowed_agents: vec![AgentAllowance {
                agent_id: AGENT.into(),
                to_user_pattern: Some("^sales$".into()),
            }],
            domain: "sip.example.com".into(),
            ..SipConfigDocument::default()
        };
        let state = AdminState {
            api_key: api_key.map(Secret::new),
            listen: address,
            account: Arc::new(move || document.clone()),
            metrics: Arc::new(metrics::Snapshot::default),
            health: Arc::new(move || shown.lock().expect("no panic").clone()),
            store: Arc::new(path),
        };
        runtime.spawn(serve(listener, state, std::future::pending()));
        Edge { address, health, directory, _runtime: runtime }
    }

    fn ask(&self, method: &str, path: &str, key: Option<&str>) -> (u16, Value) {
        let key = key.map(Secret::new);
        let answer = client::request(method, self.address, path, key.as_ref()).expect("it runs");
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    /// The status line for a request with this `Host`.
    fn status_for_host(&self, host: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.address).expect("it listens");
        let head = format!("GET /health HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text.chars().skip(9).take(3).collect()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn record(number: u64) -> Cdr {
    let source = Source { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
    let opened = WallTime::from_unix_micros(1_790_000_000_000_000);
    let key = CallKey(0x6ab0_0000 << 32 | number);
    Cdr::opened(key, CallDirection::Incoming, source, format!("{number}@pbx"), opened)
}

#[test]
fn every_guarded_route_gives_the_same_401_without_the_key() {
    let edge = Edge::start("guard", Some("right"));
    let bare = Edge::start("nokey", None);
    let wrong = json!({ "detail": "X-API-Key is missing or wrong" });
    for (method, path) in [
        ("GET", "/api/sip"),
        ("PATCH", "/api/sip"),
        ("GET", "/edge/calls"),
        ("GET", "/edge/calls/6ab00000-1"),
        ("GET", "/edge/calls/none"),
    ] {
        for key in [None, Some(""), Some("wrong"), Some("righ"), Some("right ."), Some("rightt")] {
            assert_eq!(edge.ask(method, path, key), (401, wrong.clone()), "{path} {key:?}");
        }
        assert_ne!(edge.ask(method, path, Some("right")).0, 401, "{path}");
        assert_eq!(bare.ask(method, path, Some("")), (401, wrong.clone()), "no key configured");
    }
    for open in ["/health", "/ready"] {
        assert_eq!(edge.ask("GET", open, None).0, 200);
    }
    assert_eq!(
        client::request("GET", edge.address, "/metrics", None).expect("it runs").status,
        200
    );
}

#[test]
fn the_account_is_shown_by_the_schema_and_changed_by_its_file_only() {
    let edge = Edge::start("account", Some("k"));
    let expected = json!({
        "allowedCidrRanges": [], "allowAllAgents": false,
        "allowedAgents": [{ "agentId": AGENT, "toUserPattern": "^sales$" }],
        "fallbackHandler": null, "domain": "sip.example.com",
    });
    assert_eq!(edge.ask("GET", "/api/sip", Some("k")), (200, expected));
    let (status, body) = edge.ask("PATCH", "/api/sip", Some("k"));
    assert_eq!(status, 409);
    assert!(body["detail"].as_str().is_some_and(|text| text.contains("managed by file")));
    assert_eq!(edge.ask("DELETE", "/api/sip", Some("k")).0, 405);
}

#[test]
fn records_are_listed_and_found() {
    let edge = Edge::start("calls", Some("k"));
    let keys = |path: &str| {
        let (status, body) = edge.ask("GET", path, Some("k"));
        assert_eq!(status, 200, "{body}");
        let calls = body["calls"].as_array().cloned().unwrap_or_default();
        calls.iter().map(|call| call["key"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("/edge/calls"), ["\"6ab00000-2\"", "\"6ab00000-1\""]);
    assert_eq!(keys("/edge/calls?limit=1"), ["\"6ab00000-2\""]);
    assert_eq!(keys("/edge/calls?before=6ab00000-2"), ["\"6ab00000-1\""]);
    assert_eq!(keys("/edge/calls?live=true&limit=9").len(), 2);
    assert_eq!(keys("/edge/calls?live=false"), Vec::<String>::new());
    for bad in ["?limit=-1", "?before=zz", "?order=up", "?live=perhaps"] {
        assert_eq!(edge.ask("GET", &format!("/edge/calls{bad}"), Some("k")).0, 400, "{bad}");
    }
    let (status, one) = edge.ask("GET", "/edge/calls/6ab00000-1", Some("k"));
    assert_eq!((status, &one["sip_call_id"]), (200, &json!("1@pbx")));
    assert_eq!(edge.ask("GET", "/edge/calls/6ab00000-9", Some("k")).0, 404);
    std::fs::remove_file(edge.directory.join("calls.sqlite")).expect("our own file");
    assert_eq!(edge.ask("GET", "/edge/calls", Some("k")).0, 503);
}

#[test]
fn a_draining_edge_is_healthy_and_not_ready() {
    let edge = Edge::start("health", None);
    edge.health.lock().expect("no panic").draining = true;
    assert_eq!(edge.ask("GET", "/health", None).0, 200);
    let (status, body) = edge.ask("GET", "/ready", None);
    assert_eq!((status, &body["reasons"]), (503, &json!(["draining"])));
    *edge.health.lock().expect("no panic") =
        Health { started: true, shards_stuck: vec![1], store_failing: true, ..Health::default() };
    let (status, body) = edge.ask("GET", "/health", None);
    let reasons = json!(["signalling makes no progress", "media shard 1 makes no progress"]);
    assert_eq!((status, &body["reasons"]), (503, &reasons));
    assert_eq!(body["warnings"], json!(["call records wait in memory: look at the disk"]));
}

#[test]
fn a_foreign_host_is_turned_away() {
    let edge = Edge::start("host", None);
    for (host, status) in [
        ("Host: 127.0.0.1:8080\r\n", "200"),
        ("Host: localhost\r\n", "200"),
        ("Host: [::1]:8080\r\n", "200"),
        ("Host: evil.example\r\n", "421"),
        ("Host: 203.0.113.5\r\n", "421"),
        ("", "421"),
    ] {
        assert_eq!(edge.status_for_host(host), status, "{host}");
    }
}

#[test]
fn nobody_there_is_told_apart_from_an_answer() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let fault = client::request("GET", address, "/health", None).expect_err("nobody listens");
    assert!(matches!(fault, client::ClientFault::NotRunning));
}
