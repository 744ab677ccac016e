//! The hands of a call with the real daemon and the stand-in: the agent's telephone tools, the caller's
//! keys by both ways, and an agent that is lost.

use crate::rig::{self, Caller, Heard, Rig, SOON};
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use voxedge::ground::Transport;
use voxedge::sip::msg::{Builder, Message, Method, Response};
use voxedge::sip::status::StatusLine;
use voxedge::standin::script::{ECHO, SILENT, TRANSFER};
use voxedge::standin::{Fault, FaultRule, Observed, Stage, Standin};

const LIMIT: Duration = Duration::from_secs(90);

fn standin(rig: &Rig) -> &Standin {
    rig.daemon.standin().expect("the demo's configuration embeds it")
}

/// A call that is up: its signalling, the answer, and its media socket.
struct Call {
    caller: Caller,
    answer: Response,
    rtp: UdpSocket,
    sequence: u16,
    cseq: u32,
}

impl Call {
    /// Calls the agent, offering PCMU and telephone-events.
    async fn to(rig: &Rig, agent_id: &str) -> Call {
        let mut caller = rig.caller(Transport::Tcp).await;
        let rtp = UdpSocket::bind((caller.local.ip(), 0)).await.expect("127/8 is ours");
        let port = rtp.local_addr().expect("it is bound").port();
        let id = rig::unique("hands");
        let events = "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n";
        let offer = rig::offer(caller.local.ip(), port, "0 101") + events;
        let invite = caller.request("INVITE", &format!("agent_{agent_id}"), &id, "", &offer);
        caller.send(&invite).await;
        let answer = caller.final_of(&id, &invite).await;
        assert_eq!(answer.code(), 200);
        let ack = caller.ack(&answer);
        caller.send(&ack).await;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        let port = body.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port");
        let edge = SocketAddr::new(caller.server.ip(), port);
        rtp.connect(edge).await.expect("loopback");
        let cseq = answer.cseq().number;
        Call { caller, answer, rtp, sequence: 0, cseq }
    }

    async fn send_rtp(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) {
        self.sequence += 1;
        let mut packet = vec![0x80, payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, 7]);
        packet.extend(payload);
        self.rtp.send(&packet).await.expect("loopback");
    }

    /// One key as an event of RFC 4733: its end comes three times.
    async fn press(&mut self, event: u8, timestamp: u32) {
        self.send_rtp(101, timestamp, &[event, 10, 0, 160]).await;
        for _ in 0..3 {
            self.send_rtp(101, timestamp, &[event, 0x80 | 10, 3, 32]).await;
        }
    }

    async fn info(&mut self, content_type: &str, body: &str) -> u16 {
        self.cseq += 1;
        let bare = self.caller.within("INFO", &self.answer, self.cseq);
        let bare = String::from_utf8_lossy(&bare).into_owned();
        let length = format!("Content-Type: {content_type}\r\nContent-Length: {}", body.len());
        let info = bare.replace("Content-Length: 0", &length) + body;
        self.caller.send(info.as_bytes()).await;
        loop {
            match self.caller.receive(SOON).await {
                Heard::Message(Message::Response(answer))
                    if answer.cseq().method == &Method::Info =>
                {
                    return answer.code();
                }
                Heard::Message(_) => {}
                Heard::Closed | Heard::Nothing => panic!("no answer to INFO"),
            }
        }
    }

    async fn hang_up(mut self) {
        let answer = Response::clone(&self.answer);
        let bye = self.caller.within("BYE", &answer, self.cseq + 1);
        self.caller.send(&bye).await;
        loop {
            match self.caller.receive(SOON).await {
                Heard::Message(Message::Response(ended)) if ended.cseq().method == &Method::Bye => {
                    assert_eq!(ended.code(), 200);
                    return;
                }
                Heard::Message(_) => {}
                Heard::Closed | Heard::Nothing => panic!("no answer to BYE"),
            }
        }
    }
}

/// Waits until this metric has this value.
fn counts(rig: &Rig, name: &str, value: f64) {
    rig::await_some(SOON, name, || rig.doors.metric(name).filter(|count| *count == value));
}

/// The texts of the last call's data messages of this type.
fn texts(seen: &[Observed], type_name: &str) -> Vec<Value> {
    let texts = seen.last().into_iter().flat_map(|call| &call.texts);
    let values = texts.filter_map(|text| serde_json::from_str::<Value>(text).ok());
    values.filter(|value| value["type"] == type_name).collect()
}

#[test]
fn keys_by_rtp_and_by_info_reach_the_agent_as_one_message() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[("[admin]", "[keys]\npause_ms = 2000\n[admin]")]).await;
        let mut call = Call::to(&rig, SILENT).await;
        call.press(1, 8_000).await;
        let relay = "application/dtmf-relay";
        assert_eq!(call.info(relay, "Signal=1\r\nDuration=100\r\n").await, 200);
        assert_eq!(call.info(relay, "Signal=#\r\nDuration=100\r\n").await, 200);
        assert_eq!(call.info("text/plain", "5").await, 415);
        call.press(2, 16_000).await;
        let told = |seen: &[Observed]| !texts(seen, "user_text_message").is_empty();
        let seen = standin(&rig).wait_until(told).await;
        let messages = texts(&seen, "user_text_message");
        assert_eq!(messages[0]["urgency"], "immediate");
        let mut keys: Vec<char> = messages[0]["text"].as_str().expect("a text").chars().collect();
        // RTP and signalling go by different ways: which comes first is not theirs to say.
        keys.sort_unstable();
        assert_eq!(keys, ['#', '1', '2']);
        // Of the key that came both ways, the first counts: 2 and 1, or 1 and 2.
        let ways = ["rfc4733", "info"];
        let metrics = ways.map(|way| format!("keys_received_total{{way=\"{way}\"}}"));
        rig::await_some(SOON, "three keys", || {
            let counts = metrics.each_ref().map(|name| rig.doors.metric(name));
            (counts == [Some(2.0), Some(1.0)] || counts == [Some(1.0), Some(2.0)]).then_some(())
        });
        call.hang_up().await;
        rig.stop().await;
    });
}

#[test]
fn an_agents_built_in_tools_become_client_tools_and_are_answered() {
    rig::run(LIMIT, async {
        // Nobody may be a target: the tool is refused with words.
        let nobody = ("allowed_hosts = [\"127.0.0.1\"]", "allowed_hosts = []");
        let rig = Rig::start(&[nobody]).await;
        let mut call = Call::to(&rig, TRANSFER).await;
        let request = standin(&rig).observed().last().expect("a call").request.clone();
        let overrides = &request["toolOverrides"];
        let telephone = json!(["coldTransfer", "warmTransfer", "playDtmfSounds"]);
        assert_eq!(overrides["remove"], telephone);
        let added = overrides["add"].as_array().expect("a list");
        let names: Vec<&Value> =
            added.iter().map(|tool| &tool["temporaryTool"]["modelToolName"]).collect();
        assert_eq!(names, telephone.as_array().expect("a list").iter().collect::<Vec<_>>());
        assert!(!request.to_string().contains("sip:0@"), "targets stay with the edge");
        call.press(0, 8_000).await;
        let answered = |seen: &[Observed]| !texts(seen, "client_tool_result").is_empty();
        let seen = standin(&rig).wait_until(answered).await;
        let result = &texts(&seen, "client_tool_result")[0];
        let words = result["result"].as_str().expect("words for the model");
        assert!(words.starts_with("Error: ") && words.contains("allowed_hosts"), "{words}");
        assert_eq!(
            (&result["invocationId"], &result["agentReaction"]),
            (&json!("tool-1"), &json!("speaks"))
        );
        assert_eq!(seen.last().expect("a call").text_problems, Vec::<String>::new());
        call.hang_up().await;
        rig.stop().await;
    });
}

#[test]
fn a_cold_transfer_reaches_the_callers_side_and_its_refusal_the_agent() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let mut call = Call::to(&rig, TRANSFER).await;
        call.press(0, 8_000).await;
        let refer = loop {
            match call.caller.receive(SOON).await {
                Heard::Message(Message::Request(request)) if request.method() == &Method::Refer => {
                    break request;
                }
                Heard::Message(_) => {}
                Heard::Closed | Heard::Nothing => panic!("no REFER"),
            }
        };
        assert_eq!(refer.get_named("Refer-To"), Some("<sip:0@127.0.0.1>"));
        let refused: Bytes = Builder::response(&refer, &StatusLine::of(603), call.caller.server)
            .finish()
            .expect("an answer repeats what was read");
        call.caller.send(&refused).await;
        let told = |seen: &[Observed]| texts(seen, "user_text_message").len() > 1;
        let seen = standin(&rig).wait_until(told).await;
        let words = texts(&seen, "user_text_message")[1]["text"].to_string();
        assert!(words.contains("<instruction>"), "{words}");
        assert_eq!(texts(&seen, "client_tool_result")[0]["agentReaction"], "listens");
        counts(&rig, "transfers_total{kind=\"cold_refer\",outcome=\"refer_refused\"}", 1.0);
        counts(&rig, "agent_tools_total{tool=\"cold_transfer\",outcome=\"begun\"}", 1.0);
        counts(&rig, "transfers_under_way", 0.0);
        call.hang_up().await;
        rig.stop().await;
    });
}

#[test]
fn an_agent_that_is_lost_is_followed_by_one_that_goes_on() {
    rig::run(LIMIT, async {
        let rig = Rig::start(&[]).await;
        let once = FaultRule { times: Some(1), ..FaultRule::always(Stage::Media, drop_soon()) };
        assert!(standin(&rig).add_fault(once));
        let call = Call::to(&rig, ECHO).await;
        let goes_on = |seen: &[Observed]| seen.len() == 2 && seen[1].joined;
        let seen = standin(&rig).wait_until(goes_on).await;
        assert_eq!(seen[0].end_reason, Some("connection_error"));
        assert_eq!(seen[1].prior_call_id.as_ref(), Some(&seen[0].call_id));
        assert!(seen[1].request["firstSpeakerSettings"]["agent"]["prompt"].is_string());
        // The daemon knows of the join a little later than the far end.
        counts(&rig, "agents_lost_total{then=\"recalled\"}", 1.0);
        call.hang_up().await;
        let ended = |seen: &[Observed]| seen.iter().all(|call| call.end_reason.is_some());
        standin(&rig).wait_until(ended).await;
        let reader = rig.daemon.store().reader().expect("the store is open");
        let record = rig::await_some(SOON, "the record", || {
            let found = reader.find_by_ultravox_call(&seen[0].call_id).expect("it can be read");
            found.filter(|record| record.is_closed())
        });
        assert_eq!(record.continued_as, [seen[1].call_id.clone()]);
        rig.stop().await;
    });
}

fn drop_soon() -> Fault {
    Fault::Drop { after_audio_ms: 1_000 }
}
