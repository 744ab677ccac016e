//! The account over HTTP with the real daemon: changes that survive, that touch no running call, and
//! that the manual shows; the file read again; and what must never be said.

use crate::rig::{self, ADMIN_KEY, Doors, Process, Rig, SOON, unique};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use voxedge::ground::{Secret, Transport};
use voxedge::shell::admin::client::{self, Answer, Ask};
use voxedge::ultravox::schema::sip::SIP_CONFIG;

const ECHO: &str = "00000000-0000-4000-8000-0000000000e0";
/// The change that gives the account to the API.
const BY_API: (&str, &str) =
    ("domain = \"127.0.0.1\"", "domain = \"127.0.0.1\"\nmanaged_by = \"api\"");

fn send(doors: &Doors, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let (key, body) = (Secret::new(ADMIN_KEY), body.map(Value::to_string));
    let (api_key, body) = (Some(&key), body.as_deref());
    let ask = Ask { method, path, api_key, body, certificate: None };
    client::send(doors.admin, &ask).expect("the daemon runs")
}

/// The answer's JSON, which keeps to the schema.
fn sip_config(answer: &Answer) -> Value {
    let config: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    assert_eq!((answer.status, SIP_CONFIG.check(&config)), (200, vec![]), "{config}");
    config
}

fn patch(doors: &Doors, body: Value) -> Value {
    sip_config(&send(doors, "PATCH", "/api/sip", Some(&body)))
}

#[test]
fn a_change_over_the_api_counts_at_once_and_survives_kill_9() {
    rig::run(Duration::from_secs(120), async {
        let mut process = Process::spawn(&[BY_API], &[]);
        let user = unique("api");
        let mut caller = process.caller(Transport::Udp).await;
        assert_eq!(caller.call(&user, 9_000).await.code(), 404);
        let agents = json!([{"agentId": ECHO, "toUserPattern": format!("^{user}$")}]);
        let changed = patch(&process.doors, json!({"allowedAgents": agents}));
        assert_eq!(changed["allowedAgents"], agents);
        let answer = caller.call(&user, 9_000).await;
        assert_eq!(answer.code(), 200);
        caller.hang_up(&answer).await;
        process.kill();
        let mut process = Process::spawn_in(&process.place.clone(), &[BY_API], &[]);
        let kept = sip_config(&send(&process.doors, "GET", "/api/sip", None));
        assert_eq!(kept, changed, "the file gave its start once");
        let mut caller = process.caller(Transport::Udp).await;
        let answer = caller.call(&user, 9_000).await;
        assert_eq!(answer.code(), 200);
        caller.hang_up(&answer).await;
        assert_eq!(caller.call("echo", 9_000).await.code(), 404);
        process.kill();
    });
}

#[test]
fn a_running_call_outlives_its_range_and_can_hang_up() {
    rig::run(Duration::from_secs(60), async {
        let rig = Rig::start(&[BY_API]).await;
        for transport in [Transport::Udp, Transport::Tcp] {
            patch(&rig.doors, json!({"allowedCidrRanges": ["127.0.0.0/8"]}));
            let mut caller = rig.caller(transport).await;
            let answer = caller.call("echo", 9_000).await;
            assert_eq!(answer.code(), 200, "{transport:?}");
            let ack = caller.ack(&answer);
            caller.send(&ack).await;
            patch(&rig.doors, json!({"allowedCidrRanges": ["192.0.2.0/24"]}));
            let mut stranger = rig.caller(Transport::Udp).await;
            let options = stranger.request("OPTIONS", "probe", &unique("stranger"), "", "");
            stranger.send(&options).await;
            assert_eq!(caller.bye(&answer).await, 200, "{transport:?}");
            assert!(stranger.is_quiet(), "a stranger meets silence");
        }
        rig.stop().await;
    });
}

#[test]
fn every_bad_change_names_its_field_and_changes_nothing() {
    rig::run(SOON, async {
        let rig = Rig::start(&[BY_API]).await;
        let before = sip_config(&send(&rig.doors, "GET", "/api/sip", None));
        let agent = |pattern: &str| json!({"agentId": ECHO, "toUserPattern": pattern});
        for (body, path) in [
            (json!({"allowAllAgent": true}), "allowAllAgent"),
            (json!({"allowAllAgents": "true"}), "allowAllAgents"),
            (json!({"allowedAgents": vec![agent("^a$"); 21]}), "allowedAgents"),
            (json!({"allowedAgents": [agent(&"a".repeat(201))]}), "allowedAgents[0].toUserPattern"),
            (
                json!({"allowedAgents": [agent("^a$"), agent("(")]}),
                "allowedAgents[1].toUserPattern",
            ),
            (
                json!({"allowedAgents": [agent("(a{1000}){1000}")]}),
                "allowedAgents[0].toUserPattern",
            ),
            (json!({"allowedAgents": [{"agentId": "echo"}]}), "allowedAgents[0].agentId"),
            (json!({"allowedCidrRanges": ["10.0.0.0/33"]}), "allowedCidrRanges[0]"),
            (json!({"allowedCidrRanges": ["10.0.0.0/8", "2001:db8::/32"]}), "allowedCidrRanges[1]"),
            (json!({"fallbackHandler": {}}), "fallbackHandler.url"),
            (json!({"fallbackHandler": {"url": "x"}}), "fallbackHandler.url"),
            (json!({"fallbackHandler": {"url": "http://h.example/"}}), "fallbackHandler.url"),
            (json!({"fallbackHandler": {"url": "https://10.0.0.1/"}}), "fallbackHandler.url"),
            (
                json!({"fallbackHandler": {"url": "https://h.example/", "secrets": []}}),
                "fallbackHandler.secrets",
            ),
        ] {
            let answer = send(&rig.doors, "PATCH", "/api/sip", Some(&body));
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
            let told: Value = serde_json::from_str(&answer.body).expect("it is JSON");
            assert_eq!(told["problems"][0]["path"], path, "{told}");
            assert!(told["detail"].as_str().is_some_and(|words| words.contains(path)), "{told}");
        }
        assert_eq!(sip_config(&send(&rig.doors, "GET", "/api/sip", None)), before);
        rig.stop().await;
    });
}

/// The built program with the process's configuration.
fn voxedge(process: &Process, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voxedge"));
    command.args(arguments).arg("--config").arg(process.place.path("voxedge.toml"));
    let output = command.output().expect("it was built");
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

/// Changes the process's configuration file.
fn edit(process: &Process, from: &str, to: &str) {
    let path = process.place.path("voxedge.toml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).expect("our own directory");
}

#[test]
fn a_file_is_read_again_by_command_and_by_signal() {
    rig::run(Duration::from_secs(60), async {
        let mut process = Process::spawn(&[], &[]);
        let mut caller = process.caller(Transport::Udp).await;
        let (shown, told) = voxedge(&process, &["config", "show"]);
        assert!(
            shown && told.contains("in force in the daemon") && told.contains("^echo$"),
            "{told}"
        );
        assert_eq!(voxedge(&process, &["reload"]), (true, "nothing changed\n".into()));
        edit(&process, "\"^echo$\"", "\"(\"");
        let (done, told) = voxedge(&process, &["reload"]);
        assert!(!done && told.contains("sip.allowed_agents[0].to_user_pattern"), "{told}");
        assert_eq!(caller.call("none", 9_000).await.code(), 404);
        edit(&process, "\"(\"", "\"^second$\"");
        edit(&process, "ports = \"20000-24999\"", "ports = \"20000-23999\"");
        let (done, told) = voxedge(&process, &["reload"]);
        let expected =
            "allowed_agents: changed, 4 as before\n[media] differs and takes a restart\n";
        assert_eq!((done, told.as_str()), (true, expected));
        let answer = caller.call("second", 9_000).await;
        assert_eq!(answer.code(), 200);
        caller.hang_up(&answer).await;
        assert_eq!(caller.call("echo", 9_000).await.code(), 404);
        edit(&process, "\"^second$\"", "\"^third$\"");
        process.signal("HUP");
        rig::await_some(SOON, "the signal was heard", || {
            process.log().contains("read again").then_some(())
        });
        let answer = caller.call("third", 9_000).await;
        assert_eq!(answer.code(), 200);
        caller.hang_up(&answer).await;
        let patched =
            send(&process.doors, "PATCH", "/api/sip", Some(&json!({"allowAllAgents": true})));
        assert_eq!(patched.status, 409, "{}", patched.body);
        process.kill();
        let (done, told) = voxedge(&process, &["reload"]);
        assert!(!done && told.contains("no daemon runs"), "{told}");
        let (shown, told) = voxedge(&process, &["config", "show"]);
        assert!(
            shown && told.contains("would start with this") && told.contains("^third$"),
            "{told}"
        );
    });
}

#[test]
fn a_ladder_is_shown_live_and_after_the_daemon() {
    rig::run(Duration::from_secs(60), async {
        let mut process = Process::spawn(&[], &[]);
        let mut caller = process.caller(Transport::Udp).await;
        let answer = caller.call("echo", 9_000).await;
        assert_eq!(answer.code(), 200);
        // The record is on disk a few milliseconds after the call began.
        let key = rig::await_some(SOON, "a call is up", || {
            let calls: Value = serde_json::from_str(&process.doors.get("/edge/calls")?.1).ok()?;
            calls["calls"][0]["key"].as_str().map(str::to_owned)
        });
        let (shown, live) = voxedge(&process, &["ladder", &key]);
        assert!(shown && live.contains("INVITE") && !live.contains("hung up"), "{live}");
        caller.hang_up(&answer).await;
        process.doors.await_idle();
        let (shown, ended) = voxedge(&process, &["ladder", &key]);
        assert!(shown && ended.contains("the caller hung up"), "{ended}");
        process.signal("TERM");
        assert_eq!(process.await_exit(SOON), Some(0));
        assert_eq!(voxedge(&process, &["ladder", &key]), (true, ended));
        let (shown, told) = voxedge(&process, &["ladder", "0-0"]);
        assert!(!shown && told.contains("no call has this key"), "{told}");
    });
}

/// Keys and secrets of every kind are in use, at the loudest log level, and none is ever said.
#[test]
fn no_key_and_no_secret_is_ever_said() {
    rig::run(Duration::from_secs(60), async {
        let handler = "[sip.fallback_handler]\nurl = \"https://hooks.example/\"\nsecrets = [\"signing-canary\"]\n\n[admin]";
        let changes = [
            ("[admin]", handler),
            ("base_url = \"embedded\"", "base_url = \"embedded\"\napi_key = \"ultravox-canary\""),
            ("[store]", "[log]\nlevel = \"trace\"\n[store]"),
        ];
        let process = Process::spawn(&changes, &[]);
        let key = Secret::new("ultravox-canary");
        let get = |path: &str| {
            client::request("GET", process.doors.admin, path, Some(&key)).expect("it runs").body
        };
        let mut caller = process.caller(Transport::Udp).await;
        let answer = caller.call("echo", 9_000).await;
        caller.hang_up(&answer).await;
        let wrong = Secret::new("wrong-canary");
        client::request("GET", process.doors.admin, "/api/sip", Some(&wrong)).expect("it runs");
        let pages =
            ["/api/sip", "/edge/config", "/edge/calls", "/metrics", "/health", "/api/agents"];
        for path in pages {
            let body = get(path);
            assert!(!body.contains("canary"), "{path}: {body}");
        }
        let (shown, told) = voxedge(&process, &["config", "show", "--json"]);
        assert!(shown && !told.contains("canary"), "{told}");
        let (shown, told) = voxedge(&process, &["config", "show", "--secrets"]);
        assert!(shown && told.contains("signing secret: signing-canary"), "asked for: {told}");
        assert!(!process.log().contains("canary"), "the log");
    });
}

/// The commands that the manual shows, each with the answer that it says.
#[test]
fn the_examples_of_the_manual_work() {
    rig::run(SOON, async {
        let manual = include_str!("../../README.md");
        let (_, part) = manual.split_once("\n## Configuration API\n").expect("there is a chapter");
        let part = part.split("\n## ").next().unwrap_or(part);
        let rig = Arc::new(Rig::start(&[BY_API]).await);
        let shown: Vec<&str> = part.lines().filter(|line| line.starts_with("curl ")).collect();
        assert!(shown.len() >= 4, "{shown:?}");
        for line in shown {
            let (command, body) = match line.split_once(" -d '") {
                Some((command, body)) => (command, Some(body.trim_end_matches('\''))),
                None => (line, None),
            };
            let method = command.split_once("-X ").map_or("GET", |(_, rest)| rest);
            let method = method.split(' ').next().unwrap_or(method);
            let path = command.split_once("$EDGE").expect("it names a path").1;
            let body = body.map(|body| serde_json::from_str::<Value>(body).expect("it is JSON"));
            let answer = send(&rig.doors, method, path.trim(), body.as_ref());
            assert!((200..300).contains(&answer.status), "{line}: {}", answer.body);
        }
    });
}
