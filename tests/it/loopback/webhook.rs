//! Whole calls that a real HTTP handler decides on: its request, its signature, each of its answers,
//! and a handler that does wrong.

use crate::rig::{self, Rig};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use voxedge::fallback;
use voxedge::ground::Transport;
use voxedge::standin::script::ECHO;
use voxedge::standin::{Fault, FaultRule, Stage};

const LIMIT: Duration = Duration::from_secs(90);
const SECRETS: [&str; 2] = ["first-secret", "second-secret"];

/// A request as the handler got it.
#[derive(Clone, Debug)]
struct Heard {
    head: String,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Answers by the user that was called; nothing for `mute`.
async fn answer(heard: &Heard) -> Option<(String, String)> {
    let asked: Value = serde_json::from_str(&heard.body).expect("it is JSON");
    let to = asked["toUri"].as_str().expect("toUri is a text").to_owned();
    let user = to.trim_start_matches("sip:").split('@').next().unwrap_or_default();
    let ok = |body: Value| Some(("200 OK".to_owned(), body.to_string()));
    match user {
        "agent" => ok(json!({"startAgentCall": {
            "agentId": ECHO, "medium": {"webRtc": {}}, "metadata": {"shop": "3"},
            "templateContext": {"tier": "silver", "ultravox": "forged"}}})),
        "inline" => ok(json!({"startCall": {"systemPrompt": "Be brief.", "joinTimeout": "600s"}})),
        "nobody" => {
            ok(json!({"startAgentCall": {"agentId": "00000000-0000-4000-8000-0000000000ff"}}))
        }
        "refused" => ok(json!({"startCall": {"noSuchField": 1}})),
        "busy" => ok(json!({"reject": {"sipRejectCode": 486, "message": "closed today"}})),
        "declined" => ok(json!({"reject": {}})),
        "two" => ok(json!({"reject": {}, "startCall": {}})),
        "odd" => Some(("200 OK".into(), "<html>".into())),
        "broken" => Some(("500 Internal Server Error".into(), "{}".into())),
        "moved" => Some(("307 Temporary Redirect\r\nLocation: /other".into(), "{}".into())),
        "mute" => None,
        other => panic!("{other} was not to be called"),
    }
}

/// A handler on loopback; what it heard.
async fn start_handler() -> (String, Arc<Mutex<Vec<Heard>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let url = format!("http://{}/sip?token=t0ken", listener.local_addr().expect("it is bound"));
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&kept)));
        }
    });
    (url, log)
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Heard>>>) {
    let mut bytes = Vec::new();
    let heard = loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let heard = Heard { head: head.to_owned(), body: body.to_owned() };
            let length = heard.header("content-length").and_then(|text| text.parse().ok());
            if length == Some(body.len()) {
                break heard;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    log.lock().expect("no holder panics").push(heard.clone());
    match answer(&heard).await {
        Some((status, body)) => {
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            // The daemon may have hung up by now.
            let _ = stream.write_all(text.as_bytes()).await;
        }
        None => drop(stream.read_u8().await),
    }
}

/// A daemon with this handler, and nothing but it to decide.
async fn rig_with(url: &str, allowed: &str) -> Rig {
    let section = format!(
        "[sip.fallback_handler]\nurl = \"{url}\"\nsecrets = [\"{}\", \"{}\"]\n\
         [fallback]\nallowed_private = [{allowed}]\n[store]",
        SECRETS[0], SECRETS[1]
    );
    Rig::start(&[("[store]", &section)]).await
}

async fn call(rig: &Rig, user: &str) -> u16 {
    let mut caller = rig.caller(Transport::Udp).await;
    let answered = caller.call(user, 30_000).await;
    if answered.code() == 200 {
        assert_eq!(caller.hang_up(&answered).await, 200);
    }
    answered.code()
}

#[test]
fn a_real_handler_decides() {
    rig::run(LIMIT, async {
        let (url, log) = start_handler().await;
        let rig = rig_with(&url, "\"127.0.0.1/32\"").await;
        for (user, code) in [
            ("agent", 200),
            ("inline", 200),
            ("nobody", 488),
            ("refused", 488),
            ("busy", 486),
            ("declined", 603),
            ("two", 502),
            ("odd", 502),
            ("broken", 502),
            ("moved", 502),
        ] {
            assert_eq!(call(&rig, user).await, code, "{user}");
        }
        let heard = log.lock().expect("no holder panics").clone();
        assert_eq!(heard.len(), 10, "each was asked once, and no redirect followed");
        for one in &heard {
            assert!(one.head.starts_with("POST /sip?token=t0ken HTTP/1.1"), "{}", one.head);
            let timestamp = one.header("x-ultravox-webhook-timestamp").expect("it is signed");
            let secrets = SECRETS.map(str::to_owned);
            let expected = fallback::signature(&secrets, one.body.as_bytes(), timestamp);
            assert_eq!(one.header("x-ultravox-webhook-signature"), Some(expected.as_str()));
        }
        let observed = rig.daemon.standin().expect("embedded").observed();
        let [agent, inline] = &observed[..] else { panic!("two calls: {}", observed.len()) };
        assert_eq!((agent.agent_id.as_deref(), inline.agent_id.as_deref()), (Some(ECHO), None));
        assert_eq!(agent.request["templateContext"]["tier"], "silver");
        let sip = &agent.request["templateContext"]["ultravox"]["sip"];
        assert!(sip["from_uri"].as_str().is_some_and(|uri| uri.starts_with("sip:")), "{sip}");
        assert_eq!(agent.request["metadata"]["shop"], "3");
        assert!(agent.request["medium"].get("serverWebSocket").is_some());
        assert_eq!(inline.request["joinTimeout"], "15s", "orphans lapse soon");
        assert!(agent.joined && inline.joined);
        let counters = rig.daemon.snapshot().await.counters;
        assert_eq!((counters.fallback_asked, counters.fallback_failed), (10, 4));
        rig.stop().await;
    });
}

#[test]
fn a_handler_that_does_not_answer_is_a_504_and_one_that_is_gone_a_502() {
    rig::run(LIMIT, async {
        let (url, log) = start_handler().await;
        let rig = rig_with(&url, "\"127.0.0.1/32\"").await;
        let begun = Instant::now();
        assert_eq!(call(&rig, "mute").await, 504);
        assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(log.lock().expect("no holder panics").len(), 1);
        rig.stop().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        drop(listener);
        let rig = rig_with(&url, "\"127.0.0.1/32\"").await;
        assert_eq!(call(&rig, "busy").await, 502);
        rig.stop().await;
    });
}

/// A name that leads to this machine is not asked, unless its address is listed.
#[test]
fn a_private_handler_is_not_asked_unless_it_is_listed() {
    rig::run(LIMIT, async {
        let (url, log) = start_handler().await;
        let named = url.replace("127.0.0.1", "localhost");
        let rig = rig_with(&named, "").await;
        assert_eq!(call(&rig, "busy").await, 502);
        assert!(log.lock().expect("no holder panics").is_empty(), "it was asked");
        rig.stop().await;
        let rig = rig_with(&named, "\"127.0.0.0/8\", \"::1/128\"").await;
        assert_eq!(call(&rig, "busy").await, 486);
        rig.stop().await;
    });
}

/// The caller rings through a short wait, and the second creation succeeds.
#[test]
fn a_short_retry_after_is_waited_for() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let standin = rig.daemon.standin().expect("embedded");
        let busy = Fault::Status { status: 429, retry_after: Some("1".into()) };
        assert!(
            standin
                .add_fault(FaultRule { times: Some(1), ..FaultRule::always(Stage::Create, busy) })
        );
        let begun = Instant::now();
        assert_eq!(call(&rig, "echo").await, 200);
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        let figures = rig.daemon.snapshot().await.creations;
        assert_eq!((figures.waited, figures.waiting, figures.turned_away), (1, 0, 0));
        // Too long for a caller: it is told at once, and so is who comes next.
        let busy = Fault::Status { status: 503, retry_after: Some("77".into()) };
        assert!(
            standin
                .add_fault(FaultRule { times: Some(1), ..FaultRule::always(Stage::Create, busy) })
        );
        let mut caller = rig.caller(Transport::Udp).await;
        for most in [77, 60] {
            let answer = caller.call("echo", 30_000).await;
            let wait: Option<u32> =
                answer.get_named("Retry-After").and_then(|text| text.parse().ok());
            assert_eq!(answer.code(), 503);
            assert!(wait.is_some_and(|wait| (50..=most).contains(&wait)), "{wait:?}");
        }
        assert_eq!(rig.daemon.snapshot().await.creations.turned_away, 1);
        rig.stop().await;
    });
}
