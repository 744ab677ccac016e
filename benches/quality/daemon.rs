//! The whole daemon, over real sockets: a phone of our own talks to the stand-in's echo agent and hears
//! itself, in every codec at once. Each codec is passed twice; beside it stands what two passes leave
//! without the daemon.

use super::Heard;
use super::score::Scores;
use super::speech::Speech;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use voxedge::cli::demo::phone::{self, PhoneCall};
use voxedge::cli::demo::speech::resample;
use voxedge::codec::{CodecKind, Decoder, Encoder, EncoderSettings};
use voxedge::ground::{Secret, Transport};
use voxedge::shell::config::{self, Config, Machine};
use voxedge::shell::daemon::Daemon;

const CONFIG: &str = include_str!("../../config/demo.toml");
/// What is heard after the last sentence.
const TAIL: Duration = Duration::from_millis(500);
const PAYLOAD_BYTES_MAX: usize = 1_275;
/// Rates of the agent's audio in Opus calls: what it hears and what it says, Hz.
const OPUS_AGENT_HZ: (u32, u32) = (16_000, 24_000);

/// Calls in every codec that is wanted, all at once.
///
/// # Errors
/// The daemon does not start, or a call cannot be placed.
pub fn echo(wanted: &str, speech: &Speech, scores: &mut Scores) -> io::Result<()> {
    let kinds: Vec<CodecKind> = CodecKind::ALL
        .iter()
        .copied()
        .filter(|kind| kind.is_available())
        .filter(|kind| name(*kind).to_lowercase().contains(wanted))
        .collect();
    if kinds.is_empty() {
        return Ok(());
    }
    println!("calls over real sockets: {:.0} s", speech.seconds() * 1.4);
    let runtime = tokio::runtime::Runtime::new()?;
    let heard = runtime.block_on(call_all(&kinds, speech, scores.folder()))?;
    for (kind, pcm) in kinds.into_iter().zip(heard) {
        let hz = phone::sample_rate(kind);
        let talk = speech.talk(hz);
        scores.refer(&talk)?;
        scores.add(name(kind), ("echo", "daemon"), &talk, &Heard::at_once(pcm, hz))?;
        let alone = Heard::at_once(passed_twice(kind, &talk.pcm), hz);
        scores.add(name(kind), ("echo", "alone"), &talk, &alone)?;
    }
    Ok(())
}

fn name(kind: CodecKind) -> &'static str {
    kind.encoding_name()
}

async fn call_all(
    kinds: &[CodecKind],
    speech: &Speech,
    folder: &std::path::Path,
) -> io::Result<Vec<Vec<i16>>> {
    let config = prepare(folder)?;
    let started = Daemon::start(&config).await;
    let daemon = started.map_err(|fault| io::Error::other(fault.to_string()))?;
    let server = daemon.address(Transport::Udp).ok_or(io::ErrorKind::NotConnected)?;
    let mut calls = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let talk = speech.talk(phone::sample_rate(*kind));
        let seconds = talk.pcm.len() as f64 / f64::from(talk.hz);
        calls.push(tokio::spawn(phone::place(PhoneCall {
            server,
            transport: Transport::Udp,
            tls: None,
            to_user: "echo".to_owned(),
            domain: "localhost".to_owned(),
            codec: *kind,
            speech: talk.pcm,
            talk: Duration::from_secs_f64(seconds) + TAIL,
            headers: Vec::new(),
            seed: number as u64,
        })));
    }
    let mut heard = Vec::new();
    for call in calls {
        let report = call.await.map_err(io::Error::other)??;
        if report.status != 200 {
            return Err(io::Error::other(format!("{} {}", report.status, report.reason)));
        }
        heard.push(report.heard);
    }
    daemon.stop(Duration::from_secs(2)).await;
    Ok(heard)
}

/// The demo's configuration on free ports.
fn prepare(folder: &std::path::Path) -> io::Result<Config> {
    let (config, report) = config::read("config/demo.toml", CONFIG, folder, &Machine::this());
    let mut config = config.ok_or_else(|| io::Error::other(report.to_string()))?;
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    (config.listen.udp, config.listen.tcp) = (vec![free], Vec::new());
    config.admin.listen = free;
    config.ultravox.api_key = Secret::new("quality");
    let store = folder.join("calls");
    // What a run before left need not be there.
    let _ = std::fs::remove_dir_all(&store);
    std::fs::create_dir_all(&store)?;
    config.store.path = store.join("calls.sqlite");
    Ok(config)
}

/// What two encoders and decoders in a row leave, with the agent's rates between.
fn passed_twice(kind: CodecKind, pcm: &[i16]) -> Vec<i16> {
    let hz = phone::sample_rate(kind);
    let (heard_hz, said_hz) = match kind {
        CodecKind::Opus => OPUS_AGENT_HZ,
        _ => (hz, hz),
    };
    let heard = pass(kind, pcm, hz, heard_hz);
    pass(kind, &resample(&heard, heard_hz, said_hz), said_hz, hz)
}

fn pass(kind: CodecKind, pcm: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    let (format, settings) = (phone::format(kind), EncoderSettings::default());
    let mut encoder = Encoder::with_format(kind, format, from_hz, settings).expect("its rate");
    let mut decoder = Decoder::with_format(kind, format, to_hz).expect("its rate");
    let (mut payload, mut out) = ([0; PAYLOAD_BYTES_MAX], vec![0; to_hz as usize / 50]);
    let mut heard = Vec::with_capacity(pcm.len());
    for frame in pcm.chunks_exact(from_hz as usize / 50) {
        let len = encoder.encode(frame, &mut payload).expect("a whole frame");
        decoder.decode(&payload[..len], &mut out).expect("a whole frame");
        heard.extend_from_slice(&out);
    }
    heard
}
