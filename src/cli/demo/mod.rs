//! The demo: starts the daemon on loopback with the embedded stand-in, places real calls into it,
//! one for each codec and over each transport, has it place one over HTTP, and shows what happened: a
//! ladder on one clock, the set-up time, the round trip of the audio, its quality against what was
//! spoken, and the bill.
//! It needs no account, no key and no network, and ends with a verdict.

pub mod alone;
mod callee;
mod ear;
pub mod follow;
mod judge;
mod line;
pub mod measure;
pub mod phone;
pub mod print;
pub mod speech;

use crate::billing::cdr::Cdr;
use crate::call::ladder::Ladder;
use crate::codec::CodecKind;
use crate::ground::{Secret, Transport};
use crate::outgoing::{HostPattern, HostRule};
use crate::shell::admin::client::{self, Ask};
use crate::shell::config::{self, Config, Machine};
use crate::shell::daemon::{Daemon, StartFault};
use crate::shell::store::Filter;
use crate::shell::tls::{self, ClientConfig, Pem};
use callee::Waiting;
use follow::Quality;
use judge::{Expect, Fault, judge};
use phone::{PhoneCall, PhoneReport};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The demo's configuration: the same file that `voxedge run --config config/demo.toml` takes.
const CONFIG: &str = include_str!("../../../config/demo.toml");
/// The stand-in's agent that sends the caller's audio back.
const ECHO: &str = "00000000-0000-4000-8000-0000000000e0";
/// The stand-in's agent that says a sentence.
const SPEECH: &str = "00000000-0000-4000-8000-0000000000b0";
/// Longest round trip that is looked for.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(1_500);
/// How often a scene is played again whose sound failed while the machine stood still.
const AGAIN: usize = 3;
/// More than there are scenes: each call has an identity of its own.
const SEEDS_APART: usize = 1_000;
/// A phone whose packets leave later than this cannot tell a bad call from a busy machine.
const LATE: Duration = Duration::from_millis(10);
/// What follows the sentence before the phone hangs up: the echo's way back.
const TAIL: Duration = Duration::from_millis(800);

/// One call of the demo.
#[derive(Clone)]
struct Scene {
    title: &'static str,
    begun_by: BegunBy,
    to_user: String,
    codec: CodecKind,
    transport: Transport,
    expect: Expect,
}

/// Who begins the call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BegunBy {
    /// The phone calls the daemon.
    Phone,
    /// An application asks the daemon to call the phone: `POST /api/agents/{agent_id}/calls`.
    Application,
}

/// A scene with all that was seen of it.
pub struct Played {
    pub title: &'static str,
    pub codec: CodecKind,
    pub transport: Transport,
    pub report: PhoneReport,
    pub quality: Option<Quality>,
    /// What the codec alone leaves of an echo.
    pub alone: Option<Quality>,
    pub cdr: Option<Cdr>,
    pub ladder: Option<Ladder>,
    pub wav: Option<PathBuf>,
    /// Why the scene did not come out as it should.
    pub fault: Option<Fault>,
}

/// The calls of the demo, but for those whose codec this machine has no libraries for.
fn scenes() -> Vec<Scene> {
    let echo = |title, codec, transport, segmental_snr_db| Scene {
        title,
        begun_by: BegunBy::Phone,
        to_user: format!("agent_{ECHO}"),
        codec,
        transport,
        expect: Expect::Echo { segmental_snr_db },
    };
    let scenes = vec![
        echo("PCMU over UDP to the echo agent", CodecKind::Pcmu, Transport::Udp, 25.0),
        echo("PCMA over TCP to the echo agent", CodecKind::Pcma, Transport::Tcp, 25.0),
        echo("G.722 over TLS to the echo agent", CodecKind::G722, Transport::Tls, 10.0),
        echo("Opus over UDP to the echo agent", CodecKind::Opus, Transport::Udp, 2.0),
        echo("AMR-WB over UDP to the echo agent", CodecKind::AmrWb, Transport::Udp, 2.0),
        echo("G.722.1 over UDP to the echo agent", CodecKind::G7221, Transport::Udp, 2.0),
        echo("iLBC over UDP to the echo agent", CodecKind::Ilbc, Transport::Udp, 1.0),
        Scene {
            title: "G.722 over UDP to an agent that speaks first",
            begun_by: BegunBy::Phone,
            to_user: format!("agent_{SPEECH}"),
            codec: CodecKind::G722,
            transport: Transport::Udp,
            expect: Expect::Voice,
        },
        Scene {
            begun_by: BegunBy::Application,
            ..echo(
                "The echo agent calls the phone, asked by HTTP: G.722 over UDP",
                CodecKind::G722,
                Transport::Udp,
                10.0,
            )
        },
        Scene {
            title: "A number that no rule matches",
            begun_by: BegunBy::Phone,
            to_user: "nobody".to_owned(),
            codec: CodecKind::Pcmu,
            transport: Transport::Tcp,
            expect: Expect::Refused(404),
        },
    ];
    scenes.into_iter().filter(|scene| scene.codec.is_available()).collect()
}

/// Runs the demo; the audio goes to `out`.
pub fn run(out: &Path) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return print::failed(&format!("the runtime does not start: {error}")),
    };
    match runtime.block_on(play_all(out)) {
        Ok(played) => print::verdict(&played, out),
        Err(words) => print::failed(&words),
    }
}

async fn play_all(out: &Path) -> Result<Vec<Played>, String> {
    let because = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    std::fs::create_dir_all(out).map_err(because("the folder for the audio cannot be made"))?;
    let (mut config, trust) = prepare(out)?;
    let mut waiting = Vec::new();
    for _ in 0..=AGAIN {
        let phone = Waiting::open().await.map_err(because("the phone to be called has no port"))?;
        let host = HostPattern::Address(phone.address.ip());
        config.outgoing.hosts.push(HostRule { host, port: Some(phone.address.port()) });
        waiting.push(phone);
    }
    let daemon = Daemon::start(&config).await.map_err(|fault: StartFault| fault.to_string())?;
    print::opening(&daemon, out);
    let mut played = Vec::new();
    for (number, scene) in (1..).zip(scenes()) {
        for attempt in 0.. {
            let called = waiting.pop_if(|_| scene.begun_by == BegunBy::Application);
            let stage = (&config, &trust);
            let turn = (number, attempt);
            let result = play(&daemon, stage, scene.clone(), called, turn, out).await;
            let one = result.map_err(because("a call could not be placed"))?;
            let again = attempt < AGAIN && was_disturbed(&one);
            print::scene(number, &one, again);
            if !again {
                played.push(one);
                break;
            }
        }
    }
    daemon.stop(Duration::from_secs(2)).await;
    Ok(played)
}

/// Whether the scene failed by its sound alone while the phone or the daemon could not keep its time.
fn was_disturbed(played: &Played) -> bool {
    let late = played.cdr.as_ref().and_then(|cdr| cdr.media).map_or(0, |media| media.frames_late);
    let busy = late > 0 || played.report.sent_late > LATE;
    busy && matches!(played.fault, Some(Fault::Sound(_)))
}

/// The demo's configuration on free ports, with a certificate of its own, and a store beside the
/// audio that starts empty.
fn prepare(out: &Path) -> Result<(Config, Arc<ClientConfig>), String> {
    let (config, report) = config::read("config/demo.toml", CONFIG, out, &Machine::this());
    let mut config = config.ok_or_else(|| report.to_string())?;
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    config.listen.udp = vec![free];
    config.listen.tcp = vec![free];
    config.listen.tls = vec![free];
    config.admin.listen = free;
    let own = crate::shell::entropy::from_os().map_err(|error| error.to_string())?.token(128);
    config.ultravox.api_key = Secret::new(own);
    config.store.path = out.join("calls.sqlite");
    remove_store(&config.store.path);
    let (certificate, key) =
        tls::self_signed(&["localhost", "127.0.0.1"]).map_err(|fault| fault.to_string())?;
    let files = (out.join("demo.crt"), out.join("demo.key"));
    std::fs::write(&files.0, &certificate)
        .and_then(|()| write_private(&files.1, &key))
        .map_err(|error| format!("the demo's certificate cannot be written: {error}"))?;
    let client_ca = None;
    config.tls = Some(config::Tls { certificate: files.0, private_key: files.1, client_ca });
    let trust =
        tls::client_config(false, &[Pem::from_text("the demo's certificate", &certificate)]);
    Ok((config, trust.map_err(|fault| fault.to_string())?))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}

fn remove_store(path: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // What is not there need not go.
        let _ = std::fs::remove_file(name);
    }
}

async fn play(
    daemon: &Daemon,
    (config, trust): (&Config, &Arc<ClientConfig>),
    scene: Scene,
    called: Option<Waiting>,
    (number, attempt): (usize, usize),
    out: &Path,
) -> io::Result<Played> {
    let rate = phone::sample_rate(scene.codec);
    let speech = speech::sentence(rate);
    let seconds = speech.len() as f64 / f64::from(rate);
    let server = daemon.address(scene.transport).ok_or(io::ErrorKind::NotConnected)?;
    let call = PhoneCall {
        server,
        transport: scene.transport,
        tls: Some(Arc::clone(trust)),
        to_user: scene.to_user.clone(),
        domain: "localhost".to_owned(),
        codec: scene.codec,
        speech: speech.clone(),
        talk: Duration::from_secs_f64(seconds) + TAIL,
        headers: vec![("X-Customer-Name".to_owned(), "Ada".to_owned())],
        seed: (attempt * SEEDS_APART + number) as u64,
    };
    let report = match called {
        None => phone::place(call).await?,
        Some(waiting) => be_called(daemon, config, waiting, call).await?,
    };
    let delay_max = (f64::from(rate) * ROUND_TRIP_MAX.as_secs_f64()) as usize;
    // An agent with words of its own is heard, not compared.
    let (quality, alone) = match scene.expect {
        Expect::Echo { .. } => {
            (follow::compare(&speech, &report.heard, rate, delay_max), alone::echo(scene.codec))
        }
        Expect::Voice | Expect::Refused(_) => (None, None),
    };
    let (cdr, ladder) = records(daemon, config, &report).await;
    let wav = write_wav(out, number, &scene, &report)?;
    let fault = judge(&scene.expect, &report, (quality.as_ref(), alone.as_ref()), cdr.as_ref());
    let Scene { title, codec, transport, .. } = scene;
    Ok(Played { title, codec, transport, report, quality, alone, cdr, ladder, wav, fault })
}

/// Asks the daemon for a call to a phone that waits for it.
async fn be_called(
    daemon: &Daemon,
    config: &Config,
    waiting: Waiting,
    call: PhoneCall,
) -> io::Result<PhoneReport> {
    let to = format!("sip:phone@{}", waiting.address);
    let body = serde_json::json!({"medium": {"sip": {"outgoing": {"to": to, "from": "agent"}}}});
    let (admin, key) = (daemon.admin_address(), config.ultravox.api_key.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let (path, body) = (format!("/api/agents/{ECHO}/calls"), body.to_string());
        let (api_key, body) = (Some(&key), Some(body.as_str()));
        client::send(admin, &Ask { method: "POST", path: &path, api_key, body, certificate: None })
    });
    match asked.await.map_err(io::Error::other)? {
        Ok(answer) if answer.status == 201 => waiting.answer(call).await,
        Ok(answer) => Err(io::Error::other(format!("{}: {}", answer.status, answer.body.trim()))),
        Err(fault) => Err(io::Error::other(format!("{fault:?}"))),
    }
}

/// The daemon's own record and ladder of the call.
async fn records(
    daemon: &Daemon,
    config: &Config,
    report: &PhoneReport,
) -> (Option<Cdr>, Option<Ladder>) {
    let store = daemon.store().clone();
    let path = config.store.path.clone();
    let call_id = report.call_id.clone();
    let found = tokio::task::spawn_blocking(move || {
        store.flush();
        let reader = crate::shell::store::Reader::open(&path).ok()?;
        let list = reader.list(&Filter::default(), 10).ok()?;
        list.into_iter().find(|cdr| cdr.sip_call_id == call_id)
    });
    let cdr = found.await.ok().flatten();
    let ladder = match &cdr {
        Some(cdr) => daemon.ladder(cdr.key).await,
        None => None,
    };
    (cdr, ladder)
}

fn write_wav(
    out: &Path,
    number: usize,
    scene: &Scene,
    report: &PhoneReport,
) -> io::Result<Option<PathBuf>> {
    let Some(file) = measure::wav(&report.heard, report.sample_rate, 1) else { return Ok(None) };
    if report.heard.is_empty() {
        return Ok(None);
    }
    let codec = scene.codec.encoding_name().to_lowercase();
    let name = format!("{number}-{codec}-{}.wav", scene.transport.uri_param());
    let path = out.join(name);
    std::fs::write(&path, file)?;
    Ok(Some(path))
}
