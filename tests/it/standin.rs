//! The REST client and the agent stream's framing against the stand-in, over loopback sockets.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use voxedge::ground::{Entropy, Secret};
use voxedge::shell::agent::{AgentService, AgentServiceSettings};
use voxedge::shell::tls::{self, Pem, ServerName};
use voxedge::standin::script::{BARGE_IN, ECHO, FAREWELL, SILENT, SPEECH, STRICT, Step, TONE};
use voxedge::standin::{
    AgentScript, Fault, FaultRule, Observed, Pace, Stage, Standin, StandinOptions,
};
use voxedge::ultravox::create_call::{self, CreateCall, CreateFault, Created};
use voxedge::ultravox::data_message::{AgentState, ClientMessage, ServerMessage, Urgency};
use voxedge::ultravox::stream::{FrameReader, FrameWriter, Incoming, StreamUrl, Upgrade};

const KEY: &str = "abcdefgh.0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(20);
const BUDGET: Duration = Duration::from_secs(5);

/// Runs `test` on a runtime of its own, with a limit that only a hang can meet.
fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") });
}

fn options() -> StandinOptions {
    StandinOptions::local(Secret::new(KEY), Entropy::from_number(7))
}

async fn start(options: StandinOptions) -> (Standin, AgentService) {
    let standin = Standin::start(options).await.expect("loopback is there");
    let service = service(&standin, KEY);
    (standin, service)
}

fn service(standin: &Standin, key: &str) -> AgentService {
    let roots: Vec<Pem> =
        standin.root_certificate().map(|pem| Pem::from_text("root", pem)).into_iter().collect();
    let settings = AgentServiceSettings {
        base_url: standin.base_url().into(),
        api_key: Secret::new(key),
        tls: tls::client_config(false, &roots).expect("a configuration"),
        plain: true,
    };
    AgentService::new(&settings).expect("the settings are good")
}

fn body() -> Value {
    create_call::body(&CreateCall::default())
}

async fn create(service: &AgentService, agent_id: &str) -> Result<Created, CreateFault> {
    service.create_agent_call(Some(agent_id), &body(), BUDGET).await
}

/// A media stream as the edge opens it, with the product's own framing.
struct Client {
    wire: Box<dyn Wire>,
    reader: FrameReader,
    writer: FrameWriter,
    pending: Vec<u8>,
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

#[derive(PartialEq, Debug)]
enum Got {
    Audio(Vec<u8>),
    Message(ServerMessage),
    Close(u16),
    /// The connection ended without a close frame.
    End,
}

impl Client {
    /// `Err` is the status of a refused upgrade; 0 when there was no answer at all.
    async fn join(standin: &Standin, join_url: &Secret) -> Result<Client, u16> {
        let url = StreamUrl::parse(join_url.reveal()).expect("a stream URL");
        let tcp = TcpStream::connect(standin.address()).await.expect("it listens");
        let mut wire: Box<dyn Wire> = match standin.root_certificate() {
            None => Box::new(tcp),
            Some(pem) => {
                let config =
                    tls::client_config(false, &[Pem::from_text("root", pem)]).expect("a root");
                let name = ServerName::try_from("127.0.0.1").expect("a name");
                let connector = tokio_rustls::TlsConnector::from(config);
                Box::new(connector.connect(name, tcp).await.expect("the root is trusted"))
            }
        };
        let (mut upgrade, request) = Upgrade::request(&url, &mut Entropy::from_number(1));
        wire.write_all(&request).await.expect("written");
        let mut buffer = vec![0; 65_536];
        loop {
            let count = wire.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return Err(0);
            }
            match upgrade.handle(&buffer[..count]) {
                Ok(None) => {}
                Ok(Some(used)) => {
                    let pending = buffer[used..count].to_vec();
                    let writer = FrameWriter::new(Entropy::from_number(2));
                    return Ok(Client { wire, reader: FrameReader::new(), writer, pending });
                }
                Err(fault) => {
                    let text = fault.to_string();
                    return Err(text
                        .rsplit(' ')
                        .next()
                        .and_then(|code| code.parse().ok())
                        .unwrap_or(1));
                }
            }
        }
    }

    async fn send_audio(&mut self, samples: &[i16]) {
        let mut out = Vec::new();
        self.writer.samples(&mut out, samples);
        self.wire.write_all(&out).await.expect("written");
    }

    async fn send(&mut self, message: &ClientMessage) {
        self.send_text(&message.to_text()).await;
    }

    async fn send_text(&mut self, text: &str) {
        let mut out = Vec::new();
        self.writer.text(&mut out, text);
        self.wire.write_all(&out).await.expect("written");
    }

    async fn close(&mut self, code: u16) {
        let mut out = Vec::new();
        self.writer.close(&mut out, code);
        self.wire.write_all(&out).await.expect("written");
    }

    async fn next(&mut self) -> Got {
        loop {
            let mut input = self.pending.as_slice();
            let got = match self.reader.read(&mut input) {
                Ok(Some(Incoming::Binary(bytes))) => Some(Got::Audio(bytes.to_vec())),
                Ok(Some(Incoming::Text(text))) => Some(Got::Message(ServerMessage::parse(text))),
                Ok(Some(Incoming::Close(code))) => Some(Got::Close(code)),
                Ok(Some(Incoming::Ping(_) | Incoming::Pong) | None) => None,
                Err(fault) => Some(Got::Close(fault.close_code())),
            };
            let left = input.len();
            let read = self.pending.len() - left;
            self.pending.drain(..read);
            if let Some(got) = got {
                return got;
            }
            if left == 0 {
                let mut buffer = vec![0; 65_536];
                match self.wire.read(&mut buffer).await {
                    Ok(count) if count > 0 => self.pending.extend_from_slice(&buffer[..count]),
                    Ok(_) | Err(_) => return Got::End,
                }
            }
        }
    }

    /// Samples of audio until something else comes.
    async fn audio_until_other(&mut self) -> (u64, Got) {
        let mut bytes = 0;
        loop {
            match self.next().await {
                Got::Audio(frame) => bytes += frame.len() as u64,
                other => return (bytes / 2, other),
            }
        }
    }
}

async fn join(standin: &Standin, service: &AgentService, agent_id: &str) -> Client {
    let created = create(service, agent_id).await.expect("created");
    let mut client = Client::join(standin, &created.join_url).await.expect("joined");
    let started = ServerMessage::CallStarted { call_id: Some(created.call_id.to_string()) };
    assert_eq!(client.next().await, Got::Message(started));
    client
}

fn last_end(observed: &[Observed]) -> Option<&'static str> {
    observed.last().and_then(|seen| seen.end_reason)
}

#[test]
fn each_fault_of_the_service_has_its_meaning() {
    run(async {
        let (standin, service) = start(options()).await;
        let seven = Some(Duration::from_secs(7));
        let status = |status| Fault::Status { status, retry_after: Some("7".into()) };
        for (fault, expected) in [
            (status(400), CreateFault::BadRequest),
            (status(401), CreateFault::Unauthorized),
            (status(402), CreateFault::PaymentRequired),
            (status(403), CreateFault::Unauthorized),
            (status(404), CreateFault::NotFound),
            (status(422), CreateFault::BadRequest),
            (status(429), CreateFault::TooMany { retry_after: seven }),
            (status(500), CreateFault::ServerError(500)),
            (status(503), CreateFault::Unavailable { retry_after: seven }),
            (
                Fault::Status { status: 503, retry_after: None },
                CreateFault::Unavailable { retry_after: None },
            ),
            (Fault::Drop { after_audio_ms: 0 }, CreateFault::Unreachable),
            (Fault::BadJson, CreateFault::BadAnswer),
            (Fault::MissingJoinUrl, CreateFault::BadAnswer),
            (Fault::Oversize { bytes: 1024 * 1024 + 1 }, CreateFault::BadAnswer),
            (Fault::Redirect { location: "http://127.0.0.1:1/".into() }, CreateFault::BadAnswer),
        ] {
            standin.add_fault(FaultRule {
                times: Some(1),
                ..FaultRule::always(Stage::Create, fault.clone())
            });
            assert_eq!(create(&service, ECHO).await, Err(expected), "{fault:?}");
        }
        assert!(create(&service, ECHO).await.is_ok(), "the faults are used up");
        standin.stop().await;
    });
}

#[test]
fn a_service_that_does_not_answer_times_out_and_one_that_is_gone_is_unreachable() {
    run(async {
        let (standin, service) = start(options()).await;
        standin.add_fault(FaultRule::always(Stage::Create, Fault::NeverAnswers));
        let body = body();
        let short = service.create_agent_call(Some(ECHO), &body, Duration::from_millis(50)).await;
        assert_eq!(short, Err(CreateFault::TimedOut));
        standin.clear_faults();
        standin.add_fault(FaultRule::always(Stage::Create, Fault::Slow { ms: 30 }));
        assert!(create(&service, ECHO).await.is_ok(), "late, but in time");
        standin.stop().await;
        assert_eq!(create(&service, ECHO).await, Err(CreateFault::Unreachable));
    });
}

#[test]
fn a_date_in_retry_after_is_a_wait_from_now() {
    run(async {
        let (standin, service) = start(options()).await;
        let date = Some("Fri, 31 Dec 2100 23:59:59 GMT".into());
        standin.add_fault(FaultRule::always(
            Stage::Create,
            Fault::Status { status: 429, retry_after: date },
        ));
        let Err(CreateFault::TooMany { retry_after: Some(wait) }) = create(&service, ECHO).await
        else {
            panic!("a date is read");
        };
        assert!(wait > Duration::from_secs(365 * 24 * 3_600), "{wait:?}");
        standin.stop().await;
    });
}

#[test]
fn a_wrong_key_and_an_unknown_agent_are_refused() {
    run(async {
        let (standin, service_with_key) = start(options()).await;
        let stranger = service(&standin, "wrong");
        assert_eq!(create(&stranger, ECHO).await, Err(CreateFault::Unauthorized));
        assert_eq!(stranger.fetch_agent(ECHO).await, Err(CreateFault::Unauthorized));
        let unknown = "00000000-0000-4000-8000-00000000ffff";
        assert_eq!(create(&service_with_key, unknown).await, Err(CreateFault::NotFound));
        assert_eq!(service_with_key.fetch_agent(unknown).await, Err(CreateFault::NotFound));
        assert_eq!(create(&service_with_key, "../calls").await, Err(CreateFault::NotFound));
        assert_eq!(standin.observed(), []);
        standin.stop().await;
    });
}

#[test]
fn bodies_that_break_the_schema_or_the_agents_context_are_refused() {
    run(async {
        let (standin, service) = start(options()).await;
        let try_body = async |agent_id: &str, body: Value| {
            service.create_agent_call(Some(agent_id), &body, BUDGET).await.err()
        };
        let with = |name: &str, value: Value| {
            let mut body = body();
            body[name] = value;
            body
        };
        let refused = Some(CreateFault::BadRequest);
        assert_eq!(try_body(ECHO, with("joinTimeout", json!(15))).await, refused);
        assert_eq!(try_body(ECHO, with("metadata", json!({"ultravox.x": "y"}))).await, refused);
        assert_eq!(try_body(ECHO, with("unknownField", json!(1))).await, refused);
        assert_eq!(try_body(ECHO, with("medium", json!({"webRtc": {}}))).await, refused);
        assert_eq!(try_body(ECHO, json!({})).await, refused, "no medium that the stand-in has");
        assert_eq!(try_body(STRICT, with("templateContext", json!({"pin": 1}))).await, refused);
        assert_eq!(
            try_body(STRICT, with("templateContext", json!({"customer_name": "Ada"}))).await,
            None
        );
        assert_eq!(try_body(ECHO, with("templateContext", json!({"pin": 1}))).await, None);
        let observed = standin.observed();
        assert_eq!(observed.len(), 2);
        assert_eq!(observed[0].request["templateContext"], json!({"customer_name": "Ada"}));
        standin.stop().await;
    });
}

#[test]
fn an_agent_is_fetched_with_its_context_schema() {
    run(async {
        let (standin, service) = start(options()).await;
        let strict = service.fetch_agent(STRICT).await.expect("it is there");
        let schema = strict.context_schema.expect("it has one");
        assert_eq!(
            (strict.agent_id.as_str(), &schema["additionalProperties"]),
            (STRICT, &json!(false))
        );
        assert_eq!(service.fetch_agent(ECHO).await.expect("it is there").context_schema, None);
        standin.add_fault(FaultRule::always(Stage::Fetch, Fault::BadJson));
        assert_eq!(service.fetch_agent(ECHO).await, Err(CreateFault::BadAnswer));
        standin.stop().await;
    });
}

#[test]
fn the_echo_agent_returns_what_was_said_and_everything_is_counted() {
    run(async {
        let (standin, service) =
            start(StandinOptions { capture_bytes_max: 4_000, ..options() }).await;
        let mut client = join(&standin, &service, ECHO).await;
        let mut said = Vec::new();
        for n in 0..10 {
            let frame = [n * 100; 160];
            client.send_audio(&frame).await;
            said.extend(frame.iter().flat_map(|sample| sample.to_le_bytes()));
        }
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            match client.next().await {
                Got::Audio(frame) => heard.extend(frame),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, said);
        client.send(&ClientMessage::Ping { timestamp: 1.5 }).await;
        assert_eq!(client.next().await, Got::Message(ServerMessage::Pong { timestamp: 1.5 }));
        client
            .send(&ClientMessage::UserText { text: "5".into(), urgency: Urgency::Immediate })
            .await;
        client.send_text(r#"{"type":"user_text_message","txt":"5"}"#).await;
        client.close(1000).await;
        assert_eq!(client.next().await, Got::Close(1000));
        let seen = standin.wait_until(|all| last_end(all).is_some()).await.remove(0);
        assert_eq!(
            (seen.samples_received, seen.frames_received, seen.samples_sent),
            (1_600, 10, 1_600)
        );
        assert_eq!(seen.samples_per_second.iter().sum::<u32>(), 1_600);
        assert_eq!(
            (seen.end_reason, seen.client_close, seen.server_close),
            (Some("hangup"), Some(1000), None)
        );
        assert_eq!((seen.texts.len(), seen.capture), (3, said));
        assert_eq!(seen.text_problems, ["text: this field is required", "txt: no such field"]);
        assert_eq!(seen.request, body());
        standin.stop().await;
    });
}

#[test]
fn speech_comes_ahead_of_time_and_a_hang_up_closes_with_1000() {
    for pace in [Pace::Eager, Pace::Burst(100)] {
        run(async {
            let (standin, service) = start(StandinOptions { pace, ..options() }).await;
            let mut client = join(&standin, &service, SPEECH).await;
            assert_eq!(
                client.next().await,
                Got::Message(ServerMessage::State(AgentState::Speaking))
            );
            let mut samples = 0;
            while samples < 3 * 8_000 {
                match client.next().await {
                    Got::Audio(frame) => samples += frame.len() / 2,
                    other => panic!("{other:?}"),
                }
            }
            client.send(&ClientMessage::HangUp { message: String::new() }).await;
            assert_eq!(client.audio_until_other().await.1, Got::Close(1000));
            client.close(1000).await;
            let seen = standin.wait_until(|all| last_end(all).is_some()).await.remove(0);
            assert_eq!((seen.end_reason, seen.server_close), (Some("agent_hangup"), Some(1000)));
            assert!(seen.joined_ms < 3_000, "three seconds of speech in {} ms", seen.joined_ms);
            standin.stop().await;
        });
    }
}

#[test]
fn a_caller_who_speaks_stops_the_agent() {
    run(async {
        let (standin, service) = start(options()).await;
        let mut client = join(&standin, &service, BARGE_IN).await;
        assert_eq!(client.next().await, Got::Message(ServerMessage::State(AgentState::Speaking)));
        for _ in 0..4 {
            client.send_audio(&[5_000; 160]).await;
        }
        assert_eq!(
            client.audio_until_other().await.1,
            Got::Message(ServerMessage::PlaybackClearBuffer)
        );
        assert_eq!(client.next().await, Got::Message(ServerMessage::State(AgentState::Listening)));
        standin.stop().await;
    });
}

#[test]
fn a_join_url_works_once_with_its_token_and_only_in_time() {
    run(async {
        let (standin, service) = start(options()).await;
        let created = create(&service, SILENT).await.expect("created");
        let url = created.join_url.reveal();
        let join = async |url: &str| Client::join(&standin, &Secret::new(url)).await.err();
        assert_eq!(join(&format!("{url}0")).await, Some(403));
        let (call, rest) = (created.call_id.as_str(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(join(&url.replace(call, rest)).await, Some(404));
        let mut first = Client::join(&standin, &created.join_url).await.expect("the first join");
        assert_eq!(join(url).await, Some(409));
        assert!(matches!(first.next().await, Got::Message(ServerMessage::CallStarted { .. })));
        let late = CreateCall { join_timeout: Duration::ZERO, ..CreateCall::default() };
        let late = service
            .create_agent_call(Some(SILENT), &create_call::body(&late), BUDGET)
            .await
            .expect("created");
        assert_eq!(join(late.join_url.reveal()).await, Some(410));
        assert_eq!(last_end(&standin.observed()), Some("unjoined"));
        standin.stop().await;
    });
}

#[test]
fn upgrades_are_refused_dropped_and_left_unanswered_on_demand() {
    run(async {
        let (standin, service) = start(options()).await;
        for (fault, expected) in [
            (Fault::Status { status: 403, retry_after: None }, 403),
            (Fault::Status { status: 404, retry_after: None }, 404),
            (Fault::Status { status: 503, retry_after: None }, 503),
            (Fault::Drop { after_audio_ms: 0 }, 0),
        ] {
            standin
                .add_fault(FaultRule { times: Some(1), ..FaultRule::always(Stage::Join, fault) });
            let created = create(&service, ECHO).await.expect("created");
            assert_eq!(Client::join(&standin, &created.join_url).await.err(), Some(expected));
        }
        standin.add_fault(FaultRule::always(Stage::Join, Fault::NeverAnswers));
        let created = create(&service, ECHO).await.expect("created");
        let join = Client::join(&standin, &created.join_url);
        assert!(tokio::time::timeout(Duration::from_millis(50), join).await.is_err());
        standin.stop().await;
    });
}

#[test]
fn a_stream_is_dropped_closed_flooded_and_filled_with_garbage_on_demand() {
    run(async {
        let (standin, service) = start(options()).await;
        let joined = async |fault: Fault| {
            standin
                .add_fault(FaultRule { times: Some(1), ..FaultRule::always(Stage::Media, fault) });
            join(&standin, &service, SILENT).await
        };
        let mut dropped = joined(Fault::Drop { after_audio_ms: 40 }).await;
        dropped.send_audio(&[0; 160]).await;
        dropped.send_audio(&[0; 160]).await;
        assert_eq!(dropped.next().await, Got::End);
        let mut closed = joined(Fault::Close { code: 4598, after_audio_ms: 0 }).await;
        assert_eq!(closed.next().await, Got::Close(4598));
        let mut flooded = joined(Fault::Oversize { bytes: 300 * 1024 }).await;
        let mut outcome = flooded.next().await;
        while let Got::Audio(_) = outcome {
            outcome = flooded.next().await;
        }
        assert_eq!(outcome, Got::Close(1009), "our reader refuses the frame");
        let mut garbage = joined(Fault::Garbage).await;
        assert_eq!(garbage.next().await, Got::Message(ServerMessage::Malformed));
        assert_eq!(garbage.next().await, Got::Audio(vec![1, 2, 3]));
        let reasons: Vec<_> =
            standin.observed().iter().map(|seen| (seen.end_reason, seen.server_close)).collect();
        assert_eq!(reasons[0], (Some("connection_error"), None));
        assert_eq!(reasons[1].1, Some(4598));
        standin.stop().await;
    });
}

#[test]
fn a_script_of_ones_own_runs_and_calls_are_limited_when_asked() {
    run(async {
        let script = AgentScript {
            agent_id: "00000000-0000-4000-8000-000000000123".into(),
            name: "mine".into(),
            steps: vec![
                Step::Send { message: json!({"type": "user_started_speaking"}) },
                Step::AwaitMessage { name: "user_text_message".into() },
                Step::ClearBuffer,
                Step::Close { code: 1008 },
            ],
            echo: false,
            interruptible: false,
            context_schema: None,
            tools: Vec::new(),
        };
        let id = script.agent_id.clone();
        let (standin, service) =
            start(StandinOptions { agents: vec![script], calls_max: Some(1), ..options() }).await;
        let mut client = join(&standin, &service, &id).await;
        let unknown = ServerMessage::Unknown { type_name: "user_started_speaking".into() };
        assert_eq!(client.next().await, Got::Message(unknown));
        let full = CreateFault::TooMany { retry_after: Some(Duration::from_secs(1)) };
        assert_eq!(create(&service, ECHO).await, Err(full));
        client.send(&ClientMessage::UserText { text: "1".into(), urgency: Urgency::Soon }).await;
        assert_eq!(client.next().await, Got::Message(ServerMessage::PlaybackClearBuffer));
        assert_eq!(client.next().await, Got::Close(1008));
        client.close(1008).await;
        standin.wait_until(|all| last_end(all).is_some()).await;
        assert!(create(&service, ECHO).await.is_ok());
        standin.stop().await;
    });
}

#[test]
fn everything_works_over_tls_and_an_untrusted_certificate_is_unreachable() {
    run(async {
        let (standin, service) = start(StandinOptions { tls: true, ..options() }).await;
        assert!(standin.base_url().starts_with("https://127.0.0.1:"));
        let mut client = join(&standin, &service, TONE).await;
        assert!(matches!(client.next().await, Got::Audio(frame) if frame.len() == 320));
        let settings = AgentServiceSettings {
            base_url: standin.base_url().into(),
            api_key: Secret::new(KEY),
            tls: tls::client_config(false, &[]).expect("no roots"),
            plain: false,
        };
        let wary = AgentService::new(&settings).expect("the settings are good");
        assert_eq!(create(&wary, ECHO).await, Err(CreateFault::Unreachable));
        standin.stop().await;
    });
}

#[test]
fn the_farewell_is_whole_and_a_stop_closes_streams_with_1001() {
    run(async {
        let (standin, service) =
            start(StandinOptions { pace: Pace::Burst(100), ..options() }).await;
        let standin = Arc::new(standin);
        let mut farewell = join(&standin, &service, FAREWELL).await;
        assert_eq!(farewell.next().await, Got::Message(ServerMessage::State(AgentState::Speaking)));
        let mut silent = join(&standin, &service, SILENT).await;
        let (samples, _) = farewell.audio_until_other().await;
        assert_eq!(samples, 30_720, "3.84 s at 8 kHz");
        assert_eq!(farewell.next().await, Got::Close(1000));
        let standin = Arc::into_inner(standin).expect("the only one");
        let (got, ()) = tokio::join!(silent.next(), standin.stop());
        assert_eq!(got, Got::Close(1001));
    });
}
