//! What callers, strangers and operators can count on: refusals, silence, draining, records after a
//! crash, secrets, start-up faults, and the admin listener.

use crate::rig::{
    self, ADMIN_KEY, Caller, Doors, Heard, Place, Process, Rig, SOON, Service, config_text,
};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::{Cdr, EndedBy};
use voxedge::ground::{Entropy, Transport};
use voxedge::shell::store::{Filter, Reader};
use voxedge::standin::{Fault, FaultRule, Stage};
use voxedge::ultravox::schema::is_uuid;

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn without_a_common_codec_a_call_is_refused_with_its_warning() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            let mut caller = rig.caller(transport).await;
            let id = rig::unique("codec");
            let offer = rig::offer(caller.local.ip(), 30_000, "18 4");
            let invite = caller.request("INVITE", "echo", &id, "", &offer);
            caller.send(&invite).await;
            let answer = caller.final_of(&id, &invite).await;
            assert_eq!(answer.code(), 488);
            let warning = answer.get_named("Warning").expect("it says why");
            assert!(warning.starts_with("305 "), "{warning}");
        }
        let snapshot = rig.daemon.snapshot().await;
        assert_eq!((snapshot.counters.answered, snapshot.ports_in_use), (0, 0));
        let created = rig.daemon.standin().expect("embedded").observed();
        assert!(created.is_empty(), "no agent was asked");
        rig.stop().await;
    });
}

/// The bound is put at zero, which every measurement passes.
#[test]
fn when_every_media_shard_is_at_its_bound_new_calls_get_503_and_running_ones_go_on() {
    rig::run(LIMIT, async {
        let rig = Rig::start_as(&[], |config| config.media.refuse_busy_percent = 0).await;
        let mut caller = rig.caller(Transport::Udp).await;
        let running = rig::unique("before");
        let offer = rig::offer(caller.local.ip(), 30_000, "0");
        let invite = caller.request("INVITE", "echo", &running, "", &offer);
        caller.send(&invite).await;
        let first = caller.final_of(&running, &invite).await;
        assert_eq!(first.code(), 200, "nothing was weighed twice yet");
        let deadline = tokio::time::Instant::now() + LIMIT / 2;
        while !rig.daemon.snapshot().await.full {
            assert!(tokio::time::Instant::now() < deadline, "the load was never seen");
            tokio::task::yield_now().await;
        }
        let late = rig::unique("late");
        let invite = caller.request("INVITE", "echo", &late, "", &offer);
        caller.send(&invite).await;
        let answer = caller.final_of(&late, &invite).await;
        assert_eq!(answer.code(), 503);
        assert!(answer.get_named("Retry-After").is_some());
        assert_eq!(rig.daemon.snapshot().await.calls.len(), 1);
        let relief =
            || rig.doors.metric("media_shard_relief{shard=\"0\"}").filter(|step| *step == 2.0);
        rig::await_some(SOON, "all relief there is", relief);
        rig.stop().await;
    });
}

#[test]
fn a_stranger_meets_silence_and_leaves_no_trace_but_a_count() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[("127.0.0.0/8", "127.0.0.1/32")]).await;
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let listed =
            async |transport| Caller::connect(&rig.doors, transport, home, &rig.trust).await;
        let mut friend = listed(Transport::Udp).await;
        let mut knocker = Caller::connect(&rig.doors, Transport::Udp, stranger, &rig.trust).await;
        let methods = ["INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK", "UPDATE", "DANCE"];
        for method in methods {
            let id = rig::unique("knock");
            let request = knocker.request(method, "echo", &id, "", "");
            assert!(knocker.send(&request).await);
        }
        assert!(knocker.send(b"\r\n\r\n").await && knocker.send(b"junk").await);
        // One task reads the socket in order: who came first was seen first.
        friend.fence().await.expect("packets do not close");
        assert!(knocker.is_quiet(), "not one byte to a stranger");

        let mut knocker = Caller::connect(&rig.doors, Transport::Tcp, stranger, &rig.trust).await;
        assert!(matches!(knocker.receive(SOON).await, Heard::Closed), "closed without a byte");

        let rows = rig.daemon.unlisted();
        let count = |transport| {
            let row = rows.iter().find(|row| row.address == stranger && row.transport == transport);
            row.map(|row| row.count)
        };
        assert_eq!(count(Transport::Udp), Some(methods.len() as u64 + 2));
        assert_eq!(count(Transport::Tcp), Some(1));
        let snapshot = rig.daemon.snapshot().await;
        assert_eq!(snapshot.counters.invites, 0);
        assert_eq!((snapshot.sessions, snapshot.ports_in_use), (0, 0));
        assert_eq!(rig.doors.metric("sip_unlisted_total"), Some(methods.len() as f64 + 3.0));
        rig.stop().await;
    });
}

#[test]
fn answers_go_to_the_packets_source_whatever_the_via_says() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let decoy = std::net::UdpSocket::bind((rig::source(), 0)).expect("127/8 is ours");
        decoy.set_nonblocking(true).expect("a socket");
        let there = decoy.local_addr().expect("it is bound");
        let ip = there.ip();
        let mut caller = rig.caller(Transport::Udp).await;
        let own = format!("SIP/2.0/UDP {};", caller.local);
        let vias = [
            format!("SIP/2.0/UDP {there};"),
            format!("SIP/2.0/UDP {there};maddr={ip};ttl=1;"),
            format!("SIP/2.0/UDP {there};received={ip};"),
            format!("SIP/2.0/UDP {};maddr={ip};", caller.local),
        ];
        for via in &vias {
            for (method, user, code) in [("OPTIONS", "echo", 200), ("INVITE", "nobody", 404)] {
                let id = rig::unique("via");
                let request = caller.request(method, user, &id, "", "");
                let text = String::from_utf8_lossy(&request).replace(&own, via);
                assert!(text.contains(via.as_str()));
                caller.send(text.as_bytes()).await;
                let (answer, _) = caller.until_answer(&id, Some(text.as_bytes())).await;
                let answer = answer.expect("packets do not close");
                assert_eq!(answer.code(), code, "{via}");
                if method == "INVITE" {
                    let ack = caller.ack(&answer);
                    caller.send(&ack).await;
                }
            }
        }
        caller.fence().await.expect("packets do not close");
        assert!(decoy.recv(&mut [0; 16]).is_err(), "a packet went where the Via said");
        rig.stop().await;
    });
}

#[test]
fn a_draining_daemon_refuses_the_new_and_keeps_the_running() {
    rig::run(LIMIT, async {
        let mut process = Process::spawn(&[("[store]", "[limits]\ngrace_s = 30\n[store]")], &[]);
        let mut running = process.caller(Transport::Tcp).await;
        let call = running.call("echo", 30_000).await;
        assert_eq!(call.code(), 200);
        let ack = running.ack(&call);
        running.send(&ack).await;
        // A connection from before, since the listeners may close.
        let mut late = process.caller(Transport::Udp).await;
        late.fence().await.expect("packets do not close");
        process.signal("TERM");
        let doors = process.doors;
        rig::await_some(SOON, "not ready", || (doors.get("/ready")?.0 == 503).then_some(()));
        assert_eq!(doors.get("/health").map(|(status, _)| status), Some(200));

        let id = rig::unique("drain");
        let options = late.request("OPTIONS", "probe", &id, "", "");
        late.send(&options).await;
        let (answer, _) = late.until_answer(&id, Some(&options)).await;
        assert_eq!(answer.expect("packets do not close").code(), 503);
        let refused = late.call("echo", 30_000).await;
        assert_eq!(refused.code(), 503);
        assert!(refused.get_named("Retry-After").is_some());

        let info = running.within("INFO", &call, 2);
        running.send(&info).await;
        let (answer, _) = running.until_answer(call.call_id(), None).await;
        assert_eq!(answer.expect("the connection stays").code(), 200, "the running call lives");
        let bye = running.within("BYE", &call, 3);
        running.send(&bye).await;
        let (answer, _) = running.until_answer(call.call_id(), None).await;
        assert_eq!(answer.expect("the connection stays").code(), 200);
        assert_eq!(process.await_exit(SOON), Some(0), "{}", process.log());
    });
}

fn records(place: &Place) -> Vec<Cdr> {
    let reader = Reader::open(&place.path("calls.sqlite")).expect("the store is there");
    reader.list(&Filter::default(), 10).expect("it reads")
}

#[test]
fn after_kill_9_the_record_is_closed_at_its_last_heartbeat() {
    rig::run(LIMIT, async {
        let place = Arc::new(Place::new());
        let mut process = Process::spawn_in(&place, &[], &[]);
        let mut caller = process.caller(Transport::Udp).await;
        let call = caller.call("echo", 30_000).await;
        let ack = caller.ack(&call);
        caller.send(&ack).await;
        let six = Duration::from_secs(6);
        let live = rig::await_some(SOON, "a heartbeat", || {
            records(&place).pop().filter(|record| record.sip_time >= six)
        });
        assert_eq!(live.ended_at, None);
        process.kill();
        let last = records(&place).pop().expect("it was written");
        let again = Process::spawn_in(&place, &[], &[]);
        let closed = records(&place).pop().expect("it is kept");
        assert_eq!(closed.ended_by, Some(EndedBy::NodeLost));
        assert_eq!(closed.sip_time, last.sip_time, "the last heartbeat is what is billed");
        assert_eq!(closed.deciminutes, last.deciminutes);
        let ended = closed.ended_at.expect("it is closed").unix_micros();
        let answered = closed.answered_at.expect("it was answered").unix_micros();
        let seconds = (ended - answered) as f64 / 1e6;
        assert!((5.0..12.0).contains(&seconds), "closed {seconds} s after the answer");
        drop(again);
    });
}

#[test]
fn neither_the_key_nor_a_join_url_is_ever_logged() {
    const KEY: &str = "canaryAA.b7Xq2canaryKeyZ9";
    const CALLS: usize = 4;
    rig::run(LIMIT, async {
        let own = || Entropy::from_number(97);
        let place = Arc::new(Place::new());
        let service = Service::start(&place, KEY, own()).await;
        let changes = [service.change(), ("[store]", "[log]\nlevel = \"trace\"\n[store]")];
        let environment = [service.trust(), ("RUST_LOG", "trace")];
        let mut process = Process::spawn_in(&place, &changes, &environment);
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            let mut caller = process.caller(transport).await;
            let call = caller.call("echo", 30_000).await;
            assert_eq!(call.code(), 200, "{}", process.log());
            assert_eq!(caller.hang_up(&call).await, 200);
        }
        let refusal = Fault::Status { status: 403, retry_after: None };
        assert!(service.standin.add_fault(FaultRule::always(Stage::Join, refusal)));
        let mut caller = process.caller(Transport::Udp).await;
        assert_eq!(caller.call("echo", 30_000).await.code(), 503);
        assert_eq!(service.standin.observed().len(), CALLS);
        process.signal("TERM");
        assert_eq!(process.await_exit(SOON), Some(0));

        let log = process.log();
        assert!(log.lines().count() > 10, "something is logged at trace: {log}");
        let mut drawn = own();
        for observed in service.standin.observed() {
            let token = {
                let _ = (drawn.u64(), drawn.u64());
                drawn.token(128)
            };
            assert!(!log.contains(&token), "the join token of {}", observed.call_id);
        }
        assert!(!log.contains(KEY) && !log.contains("canary"), "the API key");
        assert!(!log.contains(ADMIN_KEY) || !log.contains("X-API-Key"), "the admin key");
        for name in ["calls.sqlite", "calls.sqlite-wal"] {
            let bytes = std::fs::read(place.path(name)).unwrap_or_default();
            let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!has(KEY), "the API key is in {name}");
        }
        service.standin.stop().await;
    });
}

fn voxedge(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_voxedge");
    Command::new(program).args(arguments).output().expect("it was built")
}

/// What a start with this configuration says when it must fail.
fn failure(place: &Place, text: &str) -> String {
    let path = place.path("voxedge.toml");
    std::fs::write(&path, text).expect("our own directory");
    let output = voxedge(&["run", "--config", &path.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn what_prevents_a_start_is_said_in_a_sentence() {
    let place = Place::new();
    let (certificate, key) = voxedge::shell::tls::self_signed(&["localhost"]).expect("a good name");
    std::fs::write(place.path("edge.crt"), certificate).expect("our own directory");
    std::fs::write(place.path("edge.key"), key).expect("our own directory");

    let busy = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let taken = busy.local_addr().expect("it is bound");
    let said = failure(&place, &config_text(&Doors { udp: taken, ..Doors::free() }, &[]));
    assert!(
        said.contains(&taken.to_string()) && said.contains("nother program has this port"),
        "{said}"
    );

    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let taken = busy.local_addr().expect("it is bound");
    let said = failure(&place, &config_text(&Doors { tls: taken, ..Doors::free() }, &[]));
    assert!(
        said.contains(&taken.to_string()) && said.contains("nother program has this port"),
        "{said}"
    );
    let said = failure(&place, &config_text(&Doors { admin: taken, ..Doors::free() }, &[]));
    assert!(said.contains(&taken.to_string()) && said.contains("admin"), "{said}");

    let missing = config_text(&Doors::free(), &[("edge.crt", "no-such.crt")]);
    let said = failure(&place, &missing);
    assert!(said.contains("no-such.crt"), "{said}");

    std::fs::write(place.path("edge.key"), "no key at all").expect("our own directory");
    let said = failure(&place, &config_text(&Doors::free(), &[]));
    assert!(said.contains("edge.key"), "{said}");
    let last = said.lines().last().expect("it says something");
    assert!(last.len() < 300, "a sentence, no report: {last}");
}

#[test]
fn calls_are_listed_while_the_daemon_runs_and_after() {
    rig::run(LIMIT, async {
        let mut process = Process::spawn(&[], &[]);
        let path = process.place.path("voxedge.toml").display().to_string();
        let empty = voxedge(&["calls", "--config", &path]);
        assert_eq!(String::from_utf8_lossy(&empty.stdout), "no calls yet\n");

        let mut caller = process.caller(Transport::Udp).await;
        let call = caller.call("echo", 30_000).await;
        assert_eq!(caller.hang_up(&call).await, 200);
        assert_eq!(caller.call("nobody", 30_000).await.code(), 404);
        let list = || {
            let output = voxedge(&["calls", "--config", &path, "--json"]);
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice::<Value>(&output.stdout).expect("it is JSON")
        };
        let both = |list: &Value| {
            let list = list.as_array().expect("a list");
            list.len() == 2
                && list.iter().all(|record| !record["media"].is_null() || record["status"] == 404)
        };
        let running = rig::await_some(SOON, "both records", || Some(list()).filter(both));
        assert_eq!((&running[0]["status"], &running[1]["status"]), (&404.into(), &200.into()));
        assert_eq!(running[1]["sip_call_id"], call.call_id());
        let table = || {
            let output = voxedge(&["calls", "--config", &path]);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let shown = table();
        assert!(shown.contains("404 Not Found") && shown.contains("PCMU"), "{shown}");
        process.signal("TERM");
        assert_eq!(process.await_exit(SOON), Some(0), "{}", process.log());
        assert_eq!(list(), running, "the store holds what the daemon told");
        assert_eq!(table(), shown);
    });
}

#[test]
fn the_admin_listener_tells_the_account_health_and_figures() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let doors = rig.doors;
        let (status, body) = rig::await_some(SOON, "an answer", || doors.get("/api/sip"));
        assert_eq!(status, 200);
        let account: Value = serde_json::from_str(&body).expect("it is JSON");
        check_account(&account);
        assert_eq!(account["domain"], "127.0.0.1");
        assert_eq!(account["allowedCidrRanges"], serde_json::json!(["127.0.0.0/8"]));
        assert_eq!(account["allowedAgents"].as_array().map(Vec::len), Some(4));

        rig::await_some(SOON, "ready", || (doors.get("/ready")?.0 == 200).then_some(()));
        assert_eq!(doors.get("/health").map(|(status, _)| status), Some(200));
        let mut caller = rig.caller(Transport::Udp).await;
        let call = caller.call("echo", 30_000).await;
        assert_eq!(caller.hang_up(&call).await, 200);
        let answered = || doors.metric("calls_answered_total").filter(|answered| *answered == 1.0);
        rig::await_some(SOON, "the call is counted", answered);
        assert!(doors.metric("sip_received_total").is_some_and(|count| count >= 3.0));
        rig.stop().await;
    });
}

/// `SipConfig` of the published API: its members, their types and bounds, and no others.
fn check_account(account: &Value) {
    let account = account.as_object().expect("an object");
    for required in ["allowedAgents", "domain"] {
        assert!(account.contains_key(required), "{required} is required");
    }
    for (name, value) in account {
        let good = match name.as_str() {
            "allowedCidrRanges" => value
                .as_array()
                .is_some_and(|ranges| ranges.iter().all(|range| range.as_str().is_some())),
            "allowAllAgents" => value.is_boolean(),
            "allowedAgents" => value
                .as_array()
                .is_some_and(|agents| agents.len() <= 20 && agents.iter().all(is_allowance)),
            "fallbackHandler" => value.is_null() || value["url"].is_string(),
            "domain" => value.is_string(),
            _ => false,
        };
        assert!(good, "{name}: {value}");
    }
}

fn is_allowance(value: &Value) -> bool {
    let members = value.as_object().is_some_and(|allowance| {
        allowance.keys().all(|name| name == "agentId" || name == "toUserPattern")
    });
    let pattern = &value["toUserPattern"];
    let fits =
        pattern.is_null() || pattern.as_str().is_some_and(|text| text.chars().count() <= 200);
    members && fits && value["agentId"].as_str().is_some_and(is_uuid)
}
