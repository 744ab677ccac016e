//! The whole listener over loopback: an account in a store of its own, a service to pass on to that
//! tells what it was asked, and a signalling task that only agrees.

use super::health::Health;
use super::*;
use crate::account::AgentAllowance;
use crate::account::{FallbackHandler, SipConfigDocument, compile};
use crate::billing::{CallDirection, Cdr, Source as CallSource};
use crate::call::ladder::{Ladder, Lane};
use crate::ground::{CallKey, Entropy, Instant, Secret, Transport, WallTime};
use crate::media::plan::{EarlyFigures, EarlyMedia, EarlySound};
use crate::outgoing::{DialRefusal, OutgoingCallRequest, Unwanted};
use crate::shell::agent::rest::AgentServiceSettings;
use crate::shell::config::{Fallback, ManagedBy, Sip, UnlistedUdp};
use crate::shell::signalling::CallName;
use crate::shell::store::{Store, StoreThread};
use crate::shell::tls::{self, Pem};
use crate::ultravox::create_call::CreateFault;
use axum::extract::Request as HttpRequest;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::Duration;

const AGENT: &str = "6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11";
/// The agent call of the second record.
const ULTRAVOX_CALL: &str = "0b7c2a9e-7f0e-4a6c-b7c4-93b1f4f0a2de";
const ADMIN: Option<&str> = Some("admin-canary");
const ULTRAVOX: Option<&str> = Some("ultravox-canary");
const SIGNING: &str = "signing-canary";

/// A running listener with two records in its store.
struct Edge {
    address: SocketAddr,
    health: Arc<Mutex<Health>>,
    directory: PathBuf,
    certificate: Option<Pem>,
    _store: StoreThread,
    _signalling: mpsc::Sender<Inquiry>,
    runtime: tokio::runtime::Runtime,
}

/// How an edge is started.
#[derive(Clone, Copy)]
struct With {
    managed_by: ManagedBy,
    admin_key: Option<&'static str>,
    tls: bool,
    first: First,
}

const BY_FILE: With =
    With { managed_by: ManagedBy::File, admin_key: ADMIN, tls: false, first: First::Unknown };
const BY_API: With = With { managed_by: ManagedBy::Api, ..BY_FILE };

impl Edge {
    fn start(name: &str, with: With) -> Edge {
        let directory =
            std::env::temp_dir().join(format!("voxedge-admin-{name}-{}", std::process::id()));
        let path = directory.join("calls.sqlite");
        let (store, thread) = Store::open(&path).expect("a new store");
        (1..=2).for_each(|number| store.write(record(number)));
        let mut ladder = Ladder::new(Instant::ZERO);
        ladder.push(Instant::ZERO, Lane::Sip, "→ INVITE".into());
        store.keep_ladder(record(2).key, &ladder);
        assert!(store.flush());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let (signalling, inbox) = mpsc::channel(8);
        runtime.spawn(agree(inbox, with.first));
        let entropy = Entropy::from_number(7);
        let account = Account::open(
            &sip(with.managed_by),
            &Fallback::default(),
            store,
            signalling.downgrade(),
            entropy,
        );
        let upstream = runtime.block_on(mirror());
        let settings = AgentServiceSettings {
            base_url: format!("http://{upstream}"),
            api_key: Secret::new(ULTRAVOX.expect("it is one")),
            tls: tls::client_config(false, &[]).expect("no roots are fine"),
            plain: true,
        };
        let health = Health { signalling_alive: true, started: true, ..Health::default() };
        let health = Arc::new(Mutex::new(health));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shown = health.clone();
        let state = AdminState {
            keys: Keys {
                admin: with.admin_key.map(Secret::new),
                ultravox: settings.api_key.clone(),
            },
            listen: address,
            secure: with.tls,
            account: Arc::new(account.expect("a good account")),
            agents: Arc::new(AgentService::new(&settings).expect("good settings")),
            signalling: signalling.downgrade(),
            reload: Arc::new(|| {
                Box::pin(async { Err(ReloadFault::Refused("no file here".into())) })
            }),
            registrations: Arc::new(Default::default),
            unlisted: Arc::new(strangers),
            metrics: Arc::new(metrics::Snapshot::default),
            legs: Arc::new(|| Box::pin(async { Vec::new() })),
            health: Arc::new(move || shown.lock().expect("no panic").clone()),
            store: Arc::new(path),
            desk: Arc::default(),
        };
        let (certificate, tls) = match with.tls {
            true => {
                let (certificate, key) = tls::self_signed(&["edge.example"]).expect("a good name");
                let certificate = Pem::from_text("certificate", &certificate);
                let config = tls::server_config(&certificate, &Pem::from_text("key", &key), None);
                (Some(certificate), Some(config.expect("a good pair")))
            }
            false => (None, None),
        };
        runtime.spawn(serve(listener, tls, state, std::future::pending()));
        let (_store, _signalling) = (thread, signalling);
        drop(_inside);
        Edge { address, health, directory, certificate, _store, _signalling, runtime }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&str>,
    ) -> client::Answer {
        let api_key = key.map(Secret::new);
        let (api_key, certificate) = (api_key.as_ref(), self.certificate.as_ref());
        let ask = client::Ask { method, path, api_key, body, certificate };
        client::send(self.address, &ask).expect("it runs")
    }

    fn ask(&self, method: &str, path: &str, key: Option<&str>) -> (u16, Value) {
        let answer = self.send(method, path, key, None);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    fn patch(&self, body: Value) -> (u16, Value) {
        self.tell("PATCH", "/api/sip", body)
    }

    /// Sends JSON with the admin key.
    fn tell(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.send(method, path, ADMIN, Some(&body.to_string()));
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    /// What the listener answers to these bytes.
    fn raw(&self, text: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.address).expect("it listens");
        stream.write_all(text.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Puts every configuration in force, and knows no call.
/// One call of the store was ours and heard an odd number of bytes, all of them ASCII.
fn early_media_of(key: CallKey) -> Option<EarlyMedia> {
    let figures =
        EarlyFigures { packets: 1, heard_ms: 20, level_dbfs: -100, sound: EarlySound::Silence };
    (key == record(2).key).then(|| EarlyMedia { figures, mu_law: vec![0x7f; 61] })
}

/// What signalling knows of the first record's call, and the store does not yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Unknown,
    /// It talks for seven seconds by now.
    Talks,
    /// It did, and has ended.
    Ended,
    /// Nothing: it does not answer.
    Stuck,
}

fn known(first: First) -> Option<Cdr> {
    let mut live = record(1);
    live.set_times(Duration::from_secs(7), Duration::from_secs(7));
    if first == First::Ended {
        live.ended_at = Some(WallTime::from_unix_micros(1_790_000_007_000_000));
    }
    matches!(first, First::Talks | First::Ended).then_some(live)
}

async fn agree(mut inbox: mpsc::Receiver<Inquiry>, first: First) {
    let mut unanswered = Vec::new();
    while let Some(inquiry) = inbox.recv().await {
        match inquiry {
            Inquiry::Reconfigure { done, .. } => drop(done.send(())),
            Inquiry::Dial { request, reply } => drop(reply.send(dialled(&request))),
            Inquiry::HangUp { ultravox_call_id, reply } => {
                let _ = reply.send(ultravox_call_id == ULTRAVOX_CALL);
            }
            Inquiry::ReplaceRegistrations { done, .. } => drop(done.send(())),
            Inquiry::Call { name, reply } => {
                let live = known(first).filter(|live| name == CallName::Key(live.key));
                let found = live.map(|live| (Box::new(live), Ladder::new(Instant::ZERO)));
                drop(reply.send(found));
            }
            Inquiry::Records { reply, .. } if first == First::Stuck => unanswered.push(reply),
            Inquiry::Records { keys, reply } => {
                let live = known(first).filter(|live| keys.contains(&live.key));
                drop(reply.send(live.into_iter().collect()));
            }
            Inquiry::EarlyMedia(key, reply) => drop(reply.send(early_media_of(key))),
            _ => {}
        }
    }
}

/// The far end of every dial: the user of `to` says what becomes of it.
fn dialled(request: &OutgoingCallRequest) -> Result<Value, DialRefusal> {
    let to = request.body.pointer("/medium/sip/outgoing/to").and_then(Value::as_str);
    let words = || "words".to_owned();
    match to.unwrap_or_default() {
        "malformed" => {
            Err(DialRefusal::Malformed { path: "medium.sip.outgoing.to", words: words() })
        }
        "forbidden" => Err(DialRefusal::Forbidden(Unwanted::Host)),
        "many" => Err(DialRefusal::TooMany { retry_after: Duration::from_secs(7) }),
        "full" => Err(DialRefusal::Unavailable { words: words() }),
        "refused" => Err(DialRefusal::Service { status: 402, body: json!({"detail": "pay"}) }),
        "late" => Err(DialRefusal::NoService(CreateFault::TimedOut)),
        "gone" => Err(DialRefusal::NoService(CreateFault::Unreachable)),
        "over" => Err(DialRefusal::Ended { words: words() }),
        _ => {
            Ok(json!({"callId": ULTRAVOX_CALL, "agent": request.agent_id, "query": request.query}))
        }
    }
}

/// A service that tells what it was asked; the query may name a status.
async fn mirror() -> SocketAddr {
    async fn tell(request: HttpRequest) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.expect("it comes whole");
        let headers: Vec<String> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("plain")))
            .collect();
        let seen = json!({
            "method": parts.method.as_str(),
            "path": parts.uri.path_and_query().expect("there is one").as_str(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
            "sipDetails": null,
        });
        let status = parts.uri.query().and_then(|query| query.strip_prefix("status="));
        let status = status.and_then(|text| text.parse().ok()).unwrap_or(StatusCode::OK);
        let headers =
            [("location", "https://elsewhere.example/x"), ("x-theirs", "1"), ("keep-alive", "9")];
        (status, headers, seen.to_string()).into_response()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let router = Router::new().fallback(tell);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn sip(managed_by: ManagedBy) -> Sip {
    let document = SipConfigDocument {
        allowed_agents: vec![AgentAllowance {
            agent_id: AGENT.into(),
            to_user_pattern: Some("^sales$".into()),
        }],
        fallback_handler: Some(FallbackHandler {
            url: "https://hooks.example/sip".into(),
            secrets: Some(vec![SIGNING.into()]),
        }),
        domain: "sip.example.com".into(),
        ..SipConfigDocument::default()
    };
    let account = Arc::new(compile(&document).expect("good rules").0);
    Sip {
        managed_by,
        registrations: vec![],
        account,
        no_match_status: 404,
        unlisted_udp: UnlistedUdp::Silence,
    }
}

fn record(number: u64) -> Cdr {
    let source = CallSource { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
    let opened = WallTime::from_unix_micros(1_790_000_000_000_000);
    let key = CallKey(0x6ab0_0000 << 32 | number);
    let mut record =
        Cdr::opened(key, CallDirection::Incoming, source, format!("{number}@pbx"), opened);
    if number == 2 {
        record.ultravox_call_id = Some(ULTRAVOX_CALL.into());
        record.answered_at = Some(opened);
        record.ended_at = Some(opened);
        record.set_times(std::time::Duration::from_secs(37), std::time::Duration::from_secs(36));
        record.status = Some(200);
    }
    record
}

/// A path that the row matches.
fn path_of(row: &Row) -> String {
    let path = row.path.replace("{call_id}", ULTRAVOX_CALL).replace("{link}", "none");
    let path = path.replace("{registration_id}", AGENT).replace("{agent_id}", AGENT);
    path.replace("{id}", "6ab00000-2").replace("{*rest}", "x/y")
}

#[test]
fn every_row_of_the_table_needs_what_it_says() {
    let wrong = json!({ "detail": "X-API-Key is missing or wrong" });
    for row in ROUTES {
        // Each row has an edge of its own, since wrong keys are counted.
        let edge = Edge::start(&format!("row-{}", row.path.replace('/', "_") + row.method), BY_API);
        let method = if row.method == "*" { "PUT" } else { row.method };
        let (path, place) = (path_of(row), format!("{} {}", row.method, row.path));
        for key in [None, Some(""), Some("wrong"), Some("admin-canar"), Some("admin-canary2")] {
            let answer = edge.ask(method, &path, key);
            match row.right {
                Right::Open => assert!(answer.0 != 401 && answer.0 != 403, "{place}"),
                Right::EitherKey | Right::UltravoxKey => {
                    assert_eq!(answer, (401, wrong.clone()), "{place} {key:?}");
                }
            }
        }
        let (admin, _) = edge.ask(method, &path, ADMIN);
        let (ultravox, _) = edge.ask(method, &path, ULTRAVOX);
        assert!(ultravox != 401 && ultravox != 403 && ultravox < 500, "{place}: {ultravox}");
        match row.right {
            Right::Open | Right::EitherKey => assert_eq!(admin, ultravox, "{place}"),
            Right::UltravoxKey => assert_eq!(admin, 403, "{place}"),
        }
    }
}

#[test]
fn without_an_admin_key_the_ultravox_key_opens_and_an_empty_one_does_not() {
    let edge = Edge::start("nokey", With { admin_key: None, ..BY_FILE });
    assert_eq!(edge.ask("GET", "/api/sip", Some("")).0, 401);
    assert_eq!(edge.ask("GET", "/api/sip", ULTRAVOX).0, 200);
}

#[test]
fn a_source_with_too_many_wrong_keys_waits() {
    let edge = Edge::start("guess", BY_FILE);
    for _ in 0..limits::KEY_FAILURES_MAX {
        assert_eq!(edge.ask("GET", "/api/sip", Some("guess")).0, 401);
    }
    let answer = edge.send("GET", "/api/sip", ADMIN, None);
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").expect("it says when").parse().expect("seconds");
    assert!((1..=limits::KEY_FAILURES_WINDOW.as_secs() + 1).contains(&wait));
    assert_eq!(edge.ask("GET", "/health", None).0, 200);
}

#[test]
fn the_account_of_a_file_is_shown_and_not_changed() {
    let edge = Edge::start("file", BY_FILE);
    let expected = json!({
        "allowedCidrRanges": [], "allowAllAgents": false,
        "allowedAgents": [{ "agentId": AGENT, "toUserPattern": "^sales$" }],
        "fallbackHandler": { "url": "https://hooks.example/sip" }, "domain": "sip.example.com",
    });
    assert_eq!(edge.ask("GET", "/api/sip", ADMIN), (200, expected.clone()));
    assert_eq!(edge.ask("GET", "/api/sip", ULTRAVOX), (200, expected.clone()));
    let (status, body) = edge.patch(json!({"allowAllAgents": true}));
    assert_eq!(status, 409);
    assert!(body["detail"].as_str().is_some_and(|text| text.contains("voxedge reload")), "{body}");
    assert_eq!(edge.ask("DELETE", "/api/sip", ADMIN).0, 405);
    let (_, shown) = edge.ask("GET", "/edge/config", ADMIN);
    assert_eq!(shown, json!({"managedBy": "file", "revision": 0, "sip": expected}));
}

#[test]
fn the_account_of_the_api_is_changed_whole_or_not_at_all() {
    let edge = Edge::start("api", BY_API);
    let (status, before) = edge.ask("GET", "/api/sip", ADMIN);
    assert_eq!(status, 200);
    let bad = json!({"allowAllAgents": true, "allowedAgents": [{"agentId": AGENT, "toUserPattern": "("}]});
    let (status, told) = edge.patch(bad);
    assert_eq!(
        (status, &told["problems"][0]["path"]),
        (400, &json!("allowedAgents[0].toUserPattern"))
    );
    assert!(
        told["detail"].as_str().is_some_and(|detail| detail.contains("toUserPattern")),
        "{told}"
    );
    assert_eq!(edge.ask("GET", "/api/sip", ADMIN).1, before, "nothing of it counts");
    let (status, after) = edge.patch(json!({"allowAllAgents": true, "domain": "mine.example"}));
    assert_eq!(status, 200);
    let mut expected = before;
    expected["allowAllAgents"] = json!(true);
    assert_eq!(after, expected, "domain is read-only");
    assert_eq!(edge.ask("GET", "/api/sip", ADMIN).1, expected);
    assert_eq!(edge.ask("GET", "/edge/config", ADMIN).1["revision"], 2);
    edge.patch(json!({"allowAllAgents": true}));
    assert_eq!(edge.ask("GET", "/edge/config", ADMIN).1["revision"], 2, "nothing changed");
}

#[test]
fn made_secrets_are_told_once_and_others_never() {
    let edge = Edge::start("secrets", BY_API);
    let handler = json!({"fallbackHandler": {"url": "https://other.example/"}});
    let (status, kept) = edge.patch(handler.clone());
    assert_eq!((status, &kept["fallbackHandler"]), (200, &handler["fallbackHandler"]));
    assert_eq!(edge.patch(json!({"fallbackHandler": null})).1["fallbackHandler"], Value::Null);
    let (_, made) = edge.patch(handler.clone());
    let secret = made["fallbackHandler"]["secrets"][0].as_str().expect("it is told").to_owned();
    assert_eq!(secret.len(), 64);
    for path in ["/api/sip", "/edge/config", "/metrics", "/health"] {
        let body = edge.send("GET", path, ADMIN, None).body;
        assert!(!body.contains(&secret) && !body.contains("canary"), "{path}: {body}");
    }
    let file = std::fs::metadata(edge.directory.join("calls.sqlite")).expect("it is there");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

const REGISTRATIONS: &str = "/api/sip/registrations";

fn registration(username: &str) -> Value {
    json!({"username": username, "password": "password-canary", "proxy": "pbx.example"})
}

#[test]
fn registrations_are_made_changed_and_removed_by_the_schema() {
    use crate::ultravox::schema::sip::SIP_REGISTRATION;
    let edge = Edge::start("registrations", BY_API);
    let (status, made) = edge.tell("POST", REGISTRATIONS, registration("sales"));
    assert_eq!((status, SIP_REGISTRATION.check(&made)), (201, vec![]), "{made}");
    let id = made["registrationId"].as_str().expect("a text").to_owned();
    let place = format!("{REGISTRATIONS}/{id}");
    let expected = json!({
        "registrationId": id, "created": made["created"], "username": "sales",
        "proxy": "pbx.example", "outboundProxy": null, "authUser": null, "successful": null,
    });
    assert_eq!(made, expected, "the password is write-only");
    assert_eq!(edge.ask("GET", &place, ADMIN), (200, expected.clone()));
    let patch = json!({"authUser": "auth", "successful": true, "registrationId": "mine"});
    let (status, changed) = edge.tell("PATCH", &place, patch);
    let seen = (status, &changed["authUser"], &changed["successful"]);
    assert_eq!(seen, (200, &json!("auth"), &Value::Null));
    assert_eq!(changed["registrationId"], id, "read-only");
    for (body, path) in [
        (json!({"username": "u".repeat(61)}), "username"),
        (json!({"proxy": null}), "proxy"),
        (json!({"realm": "x"}), "realm"),
    ] {
        let (status, told) = edge.tell("PATCH", &place, body);
        assert_eq!((status, &told["problems"][0]["path"]), (400, &json!(path)), "{told}");
    }
    let (status, told) = edge.tell("POST", REGISTRATIONS, json!({"username": "x"}));
    let paths: Vec<&Value> =
        told["problems"].as_array().expect("a list").iter().map(|one| &one["path"]).collect();
    assert_eq!((status, paths), (400, vec![&json!("password"), &json!("proxy")]));
    assert_eq!(edge.send("DELETE", &place, ADMIN, None).status, 204);
    for (method, status) in [("GET", 404), ("DELETE", 404), ("PUT", 405)] {
        assert_eq!(edge.ask(method, &place, ADMIN).0, status, "{method}");
    }
    let by_file = Edge::start("registrations-file", BY_FILE);
    assert_eq!(by_file.tell("POST", REGISTRATIONS, registration("sales")).0, 409);
    assert_eq!(by_file.ask("DELETE", &place, ADMIN).0, 409);
}

#[test]
fn registrations_are_listed_in_pages_that_bear_removals() {
    use crate::ultravox::schema::sip::SIP_REGISTRATIONS;
    let edge = Edge::start("pages", BY_API);
    let made: Vec<String> = (0..5)
        .map(|number| {
            let body = registration(&format!("user{number}"));
            let (status, made) = edge.tell("POST", REGISTRATIONS, body);
            assert_eq!(status, 201, "{made}");
            made["registrationId"].as_str().expect("a text").to_owned()
        })
        .collect();
    let page = |path: &str| {
        let (status, page) = edge.ask("GET", path, ADMIN);
        assert_eq!((status, SIP_REGISTRATIONS.check(&page)), (200, vec![]), "{page}");
        let users = page["results"].as_array().expect("a list").iter();
        let users: Vec<String> = users.map(|one| one["username"].to_string()).collect();
        let link = |name: &str| {
            let origin = format!("http://{}", edge.address);
            page[name].as_str().map(|link| link.strip_prefix(&origin).expect("ours").to_owned())
        };
        (users.join(" ").replace('"', ""), link("previous"), link("next"))
    };
    let (users, previous, next) = page(REGISTRATIONS);
    assert_eq!((users.as_str(), previous, next), ("user0 user1 user2 user3 user4", None, None));
    let (users, previous, next) = page(&format!("{REGISTRATIONS}?pageSize=2"));
    assert_eq!((users.as_str(), previous), ("user0 user1", None));
    // What a page began with may be gone when the next one is asked for.
    edge.send("DELETE", &format!("{REGISTRATIONS}/{}", made[1]), ADMIN, None);
    let (users, previous, next) = page(&next.expect("there are more"));
    assert_eq!(users, "user2 user3");
    let (last, _, end) = page(&next.expect("there is one more"));
    assert_eq!((last.as_str(), end), ("user4", None));
    let (users, start, _) = page(&previous.expect("there are some before"));
    assert_eq!((users.as_str(), start), ("user0", None));
    for bad in ["?cursor=x", "?cursor=", "?pageSize=0", "?pageSize=-1", "?page=2"] {
        assert_eq!(edge.ask("GET", &format!("{REGISTRATIONS}{bad}"), ADMIN).0, 400, "{bad}");
    }
}

#[test]
fn a_body_that_is_no_json_is_told_apart() {
    let edge = Edge::start("body", BY_API);
    let answer = edge.send("PATCH", "/api/sip", ADMIN, Some("{"));
    assert_eq!(answer.status, 400, "{}", answer.body);
    let host =
        format!("Host: {}\r\nX-API-Key: admin-canary\r\nConnection: close\r\n", edge.address);
    let form = edge.raw(&format!(
        "PATCH /api/sip HTTP/1.1\r\n{host}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}"
    ));
    assert!(form.starts_with("HTTP/1.1 415 "), "{form}");
    let long = format!("\"{}\"", "x".repeat(limits::ADMIN_BODY_BYTES_MAX));
    assert_eq!(edge.send("PATCH", "/api/sip", ADMIN, Some(&long)).status, 413);
}

#[test]
fn records_are_listed_and_found_by_either_id() {
    let edge = Edge::start("calls", BY_FILE);
    let keys = |path: &str| {
        let (status, body) = edge.ask("GET", path, ADMIN);
        assert_eq!(status, 200, "{body}");
        let calls = body["calls"].as_array().cloned().unwrap_or_default();
        calls.iter().map(|call| call["key"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys("/edge/calls"), ["\"6ab00000-2\"", "\"6ab00000-1\""]);
    assert_eq!(keys("/edge/calls?limit=1"), ["\"6ab00000-2\""]);
    assert_eq!(keys("/edge/calls?before=6ab00000-2"), ["\"6ab00000-1\""]);
    assert_eq!(keys("/edge/calls?live=true&limit=9"), ["\"6ab00000-1\""]);
    assert_eq!(keys("/edge/calls?live=false"), ["\"6ab00000-2\""]);
    assert_eq!(keys("/edge/live"), ["\"6ab00000-1\""]);
    for bad in ["?limit=-1", "?before=zz", "?order=up", "?live=perhaps"] {
        assert_eq!(edge.ask("GET", &format!("/edge/calls{bad}"), ADMIN).0, 400, "{bad}");
    }
    for id in ["6ab00000-2", ULTRAVOX_CALL] {
        let (status, one) = edge.ask("GET", &format!("/edge/calls/{id}"), ADMIN);
        assert_eq!((status, &one["sip_call_id"]), (200, &json!("2@pbx")), "{id}");
    }
    for id in ["6ab00000-9", AGENT, "%2e%2e"] {
        assert_eq!(edge.ask("GET", &format!("/edge/calls/{id}"), ADMIN).0, 404, "{id}");
        assert_eq!(edge.ask("GET", &format!("/edge/calls/{id}/ladder"), ADMIN).0, 404, "{id}");
    }
}

fn strangers() -> Vec<UnlistedSource> {
    let address = [198, 51, 100, 9].into();
    let (transport, last_seen) =
        (Transport::Tls, WallTime::from_unix_micros(1_790_000_000_000_000));
    vec![UnlistedSource { address, transport, count: 3, last_seen }]
}

#[test]
fn who_is_not_listed_is_told_to_who_has_a_key() {
    let edge = Edge::start("unlisted", BY_FILE);
    assert_eq!(edge.ask("GET", "/edge/unlisted", None).0, 401);
    let told = json!({"sources": [{"address": "198.51.100.9", "transport": "tls", "count": 3,
                                   "lastSeen": "2026-09-21T14:13:20.000Z"}]});
    assert_eq!(edge.ask("GET", "/edge/unlisted", ADMIN), (200, told));
}

#[test]
fn a_live_call_of_the_list_is_as_it_is_now() {
    for (name, first, ms, live) in [
        ("rings", First::Unknown, 0, 1),
        ("talks", First::Talks, 7_000, 1),
        ("ended", First::Ended, 7_000, 0),
        ("stuck", First::Stuck, 0, 1),
    ] {
        let edge = Edge::start(name, With { first, ..BY_FILE });
        let calls = edge.ask("GET", "/edge/calls", ADMIN).1;
        let times = [0, 1].map(|at| calls["calls"][at]["sip_time_ms"].clone());
        assert_eq!(times, [json!(37_000), json!(ms)], "{name}");
        let up = edge.ask("GET", "/edge/calls?live=true", ADMIN).1;
        assert_eq!(up["calls"].as_array().map(Vec::len), Some(live), "{name}");
    }
}

#[test]
fn early_media_is_a_wav_file_in_mu_law() {
    let edge = Edge::start("early", BY_FILE);
    let key = record(2).key;
    let answer = edge.send("GET", &format!("/edge/calls/{key}/early_media"), ADMIN, None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/wav")));
    let file = answer.body.as_bytes();
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((&file[..4], &file[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    assert_eq!((number(4) as usize, file.len()), (file.len() - 8, 58 + 62));
    // Format 7, one channel; 8,000 samples and as many bytes a second; 8 bits.
    assert_eq!([16, 20, 24, 28].map(number), [18, 7 | 1 << 16, 8_000, 8_000]);
    assert_eq!(
        (&file[38..42], number(46), &file[50..54], number(54)),
        (&b"fact"[..], 61, &b"data"[..], 61)
    );
    let other = record(1).key;
    assert_eq!(edge.ask("GET", &format!("/edge/calls/{other}/early_media"), ADMIN).0, 404);
    assert_eq!(edge.ask("GET", "/edge/calls/nobody/early_media", ADMIN).0, 404);
    assert_eq!(edge.ask("GET", &format!("/edge/calls/{key}/early_media"), None).0, 401);
}

#[test]
fn a_ladder_is_text_or_json_and_a_link_leads_to_it() {
    let edge = Edge::start("ladder", BY_FILE);
    let text = "       0.0 ms  sip    → INVITE\n";
    for id in ["6ab00000-2", ULTRAVOX_CALL] {
        let answer = edge.send("GET", &format!("/edge/calls/{id}/ladder"), ADMIN, None);
        assert_eq!((answer.status, answer.body.as_str()), (200, text));
    }
    let (_, ladder) = edge.ask("GET", "/edge/calls/6ab00000-2/ladder?format=json", ADMIN);
    assert_eq!(
        (&ladder["live"], &ladder["ladder"]["rungs"][0]),
        (&json!(false), &json!({"at_ms": 0.0, "lane": "sip", "text": "→ INVITE"}))
    );
    assert_eq!(edge.ask("GET", "/edge/calls/6ab00000-1/ladder", ADMIN).0, 404, "none is kept");
    let logs = edge.send("GET", &format!("/api/calls/{ULTRAVOX_CALL}/sip_logs"), ULTRAVOX, None);
    assert_eq!(logs.status, 302);
    let link = logs.header("location").expect("it leads somewhere");
    let path = link.strip_prefix(&format!("http://{}", edge.address)).expect("it leads here");
    let followed = edge.send("GET", path, None, None);
    assert_eq!((followed.status, followed.body.as_str()), (200, text));
    assert_eq!(edge.send("GET", "/edge/logs/0", None, None).status, 404);
}

#[test]
fn a_call_of_ours_gets_its_sip_details_and_others_pass_unchanged() {
    let edge = Edge::start("details", BY_FILE);
    let ours = edge.ask("GET", &format!("/api/calls/{ULTRAVOX_CALL}"), ULTRAVOX).1;
    let details = json!({"billedDuration": "42s", "terminationReason": "SIP_TERMINATION_NORMAL"});
    assert_eq!(ours["sipDetails"], details);
    assert_eq!(ours["path"], format!("/api/calls/{ULTRAVOX_CALL}"), "the rest is theirs");
    let other = edge.ask("GET", &format!("/api/calls/{AGENT}"), ULTRAVOX).1;
    assert_eq!(other["sipDetails"], Value::Null);
    let (status, refused) =
        edge.ask("GET", &format!("/api/calls/{ULTRAVOX_CALL}?status=404"), ULTRAVOX);
    assert_eq!((status, &refused["sipDetails"]), (404, &Value::Null));
}

#[test]
fn everything_else_passes_as_it_came_with_the_configured_key() {
    let edge = Edge::start("pass", BY_FILE);
    let host = format!("Host: {}\r\nX-API-Key: ultravox-canary\r\n", edge.address);
    let answer = edge.raw(&format!(
        "POST /api/voices/a%2Fb?x=1&y=%20 HTTP/1.1\r\n{host}Connection: close, X-Hop\r\nX-Hop: 1\r\n\
         X-Mine: 2\r\nContent-Type: application/octet-stream\r\nContent-Length: 5\r\n\r\nhello"
    ));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let seen: Value = serde_json::from_str(body).expect("the mirror answers JSON");
    assert_eq!(
        (&seen["method"], &seen["path"], &seen["body"]),
        (&json!("POST"), &json!("/api/voices/a%2Fb?x=1&y=%20"), &json!("hello"))
    );
    let headers = seen["headers"].to_string();
    for there in
        ["x-mine: 2", "x-api-key: ultravox-canary", "content-type: application/octet-stream"]
    {
        assert!(headers.contains(there), "{there} in {headers}");
    }
    let own_host = format!("host: {}", edge.address);
    for absent in ["x-hop", &own_host, "connection"] {
        assert!(!headers.contains(absent), "{absent} in {headers}");
    }
    let head = head.to_ascii_lowercase();
    assert!(head.contains("x-theirs: 1") && !head.contains("keep-alive: 9"), "{head}");
    for status in [201, 204, 302, 402, 404, 429, 500, 503] {
        let answer = edge.send("GET", &format!("/api/agents?status={status}"), ULTRAVOX, None);
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("location"), Some("https://elsewhere.example/x"));
    }
    let big = "x".repeat(3 << 20);
    let echoed = edge.send("PUT", "/api/corpora", ULTRAVOX, Some(&big));
    assert_eq!(echoed.status, 200);
    assert!(echoed.body.contains(&big), "a long body passes both ways");
    assert_eq!(edge.ask("GET", "/api/../x", ULTRAVOX).0, 400);
    assert_eq!(edge.ask("GET", "/api/sip/else", ULTRAVOX).0, 404, "ours, never passed on");
    assert_eq!(edge.ask("GET", "/other", ULTRAVOX).0, 404);
    let metrics = edge.send("GET", "/metrics", None, None).body;
    assert!(metrics.contains("voxedge_http_requests_total{class=\"passed\",status=\"429\"} 1\n"));
}

#[test]
fn an_outgoing_call_is_dialled_here_and_any_other_passes() {
    let edge = Edge::start("dial", BY_FILE);
    let ask = |path: &str, body: &Value| {
        let answer = edge.send("POST", path, ULTRAVOX, Some(&body.to_string()));
        let told: Value = serde_json::from_str(&answer.body).expect("it is JSON");
        (answer.status, told, answer.header("retry-after").map(str::to_owned))
    };
    let outgoing = |to: &str| json!({"medium": {"sip": {"outgoing": {"to": to, "from": "1"}}}});
    let (status, call, _) = ask(&format!("/api/agents/{AGENT}/calls?throttle=t"), &outgoing("x"));
    let expected = json!({"callId": ULTRAVOX_CALL, "agent": AGENT, "query": "throttle=t"});
    assert_eq!((status, call), (201, expected));
    let (status, call, _) = ask("/api/calls", &outgoing("x"));
    assert_eq!((status, &call["agent"], &call["query"]), (201, &Value::Null, &Value::Null));
    for (to, status, retry_after) in [
        ("malformed", 400, None),
        ("forbidden", 403, None),
        ("many", 429, Some("7")),
        ("full", 503, None),
        ("refused", 402, None),
        ("late", 504, None),
        ("gone", 502, None),
        ("over", 409, None),
    ] {
        let (found, told, wait) = ask("/api/calls", &outgoing(to));
        assert_eq!((found, wait.as_deref()), (status, retry_after), "{to}: {told}");
        assert!(told["detail"].as_str().is_some_and(|words| !words.is_empty()), "{to}: {told}");
    }
    for body in [json!({}), json!({"medium": {"sip": {"incoming": {}}}}), json!({"medium": null})] {
        let (status, seen, _) = ask("/api/calls?status=201", &body);
        assert_eq!((status, &seen["body"]), (201, &json!(body.to_string())), "it passes");
    }
    let seen = edge.ask("GET", "/api/calls?cursor=x", ULTRAVOX).1;
    assert_eq!((&seen["method"], &seen["path"]), (&json!("GET"), &json!("/api/calls?cursor=x")));
}

#[test]
fn hang_up_ends_a_call_that_rings_and_other_messages_pass() {
    let edge = Edge::start("hang-up", BY_FILE);
    let send = |call: &str, body: Value| {
        let path = format!("/api/calls/{call}/send_data_message");
        edge.send("POST", &path, ULTRAVOX, Some(&body.to_string()))
    };
    assert_eq!(send(ULTRAVOX_CALL, json!({"type": "hang_up"})).status, 204);
    let other = send(AGENT, json!({"type": "hang_up"}));
    assert!(other.status == 200 && other.body.contains("hang_up"), "{}", other.body);
    let text = send(ULTRAVOX_CALL, json!({"type": "user_text_message", "text": "hello"}));
    assert!(text.status == 200 && text.body.contains("hello"), "{}", text.body);
    let deleted = edge.ask("DELETE", &format!("/api/calls/{ULTRAVOX_CALL}"), ULTRAVOX).1;
    assert_eq!(deleted["method"], "DELETE", "DELETE keeps its meaning");
}

#[test]
fn the_listener_speaks_tls_to_who_knows_its_certificate() {
    let mut edge = Edge::start("tls", With { tls: true, ..BY_FILE });
    assert_eq!(edge.ask("GET", "/api/sip", ADMIN).0, 200);
    assert_eq!(edge.ask("GET", "/health", None).0, 200);
    let (other, _) = tls::self_signed(&["edge.example"]).expect("a good name");
    edge.certificate = Some(Pem::from_text("another", &other));
    let certificate = edge.certificate.as_ref();
    let ask =
        client::Ask { method: "GET", path: "/health", api_key: None, body: None, certificate };
    assert!(matches!(client::send(edge.address, &ask), Err(client::ClientFault::Broken(_))));
    edge.runtime.block_on(async {});
}

#[test]
fn a_draining_edge_is_healthy_and_not_ready() {
    let edge = Edge::start("health", BY_FILE);
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
    let edge = Edge::start("host", BY_FILE);
    for (host, status) in [
        ("Host: 127.0.0.1:8080\r\n", "200"),
        ("Host: localhost\r\n", "200"),
        ("Host: [::1]:8080\r\n", "200"),
        ("Host: evil.example\r\n", "421"),
        ("Host: 203.0.113.5\r\n", "421"),
        ("", "421"),
    ] {
        let answer = edge.raw(&format!("GET /health HTTP/1.1\r\n{host}Connection: close\r\n\r\n"));
        assert_eq!(answer.get(9..12), Some(status), "{host}");
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
