//! The whole daemon, over real sockets and in real time: phones in every codec and on every network talk to
//! the stand-in's echo agent and hear themselves, many at once. Each echo has passed its codec twice;
//! beside it stand what two passes leave without the daemon, and what the same packets leave under the
//! virtual clock, which shows what the real machine costs.

use super::coder::Coder;
use super::ear;
use super::network::{self, Network};
use super::phones::{self, Talk, Talked};
use super::score::Scores;
use super::speech::Speech;
use super::{Heard, alone, call};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use voxedge::ground::{Secret, Transport};
use voxedge::media::plan::AgentRates;
use voxedge::shell::config::{self, Config, Machine};
use voxedge::shell::daemon::Daemon;

const CONFIG: &str = include_str!("../../config/demo.toml");
/// The agent's audio in Opus calls, Hz: that at which it hears, so that the echo is not resampled.
const OPUS_OUTPUT_HZ: u32 = 16_000;
/// Calls that begin at once and last as long; those on drifting clocks last on beside them.
const CALLS_TOGETHER: usize = 24;
/// How often the talk is repeated where the clocks drift, in real time.
const DRIFT_ROUNDS: usize = 3;
/// A call whose phone sent a packet later than this is void: it was another network.
const LATE_MS_MAX: f64 = 15.0;
/// How often a void call is placed again.
const AGAIN: usize = 2;

/// One call to be made: what is said in its codec and how the network treats it.
struct Planned<'a> {
    coder: &'a Coder,
    payloads: &'a [Vec<u8>],
    network: Network,
}

/// Calls in every codec that is wanted on every network, and their scores.
///
/// # Errors
/// The daemon does not start, a call cannot be placed, or a file cannot be written.
pub fn echo(coders: &[Coder], speech: &Speech, scores: &mut Scores) -> io::Result<()> {
    let coders: Vec<&Coder> = coders.iter().filter(|coder| is_asked_for(coder)).collect();
    if coders.is_empty() {
        return Ok(());
    }
    let said = |coder: &&Coder| coder.encode(&speech.talk(coder.caller_hz).pcm);
    let payloads: Vec<Vec<Vec<u8>>> = coders.iter().map(said).collect();
    let planned: Vec<Planned> = network::ALL
        .into_iter()
        .flat_map(|network| coders.iter().zip(&payloads).map(move |both| (network, both)))
        .map(|(network, (coder, payloads))| Planned { coder, payloads, network })
        .collect();
    let runtime = tokio::runtime::Runtime::new()?;
    let talked = runtime.block_on(talk_all(&planned, speech, scores.folder()))?;
    tell_lateness(&talked);
    for (planned, talked) in planned.iter().zip(&talked) {
        score(planned, talked, speech, scores)?;
    }
    Ok(())
}

/// Whether the daemon ever asks an agent for the rates of this row.
fn is_asked_for(coder: &Coder) -> bool {
    let rates = AgentRates::for_codec(coder.kind, OPUS_OUTPUT_HZ);
    coder.kind.is_available()
        && (coder.agent_hz, coder.back_hz) == (rates.input_hz, rates.output_hz)
}

/// Every call, in the order that they were planned; void ones were tried again.
async fn talk_all(
    planned: &[Planned<'_>],
    speech: &Speech,
    folder: &Path,
) -> io::Result<Vec<Talked>> {
    let config = prepare(folder)?;
    let started = Daemon::start(&config).await;
    let daemon = started.map_err(|fault| io::Error::other(fault.to_string()))?;
    let server = daemon.address(Transport::Udp).ok_or(io::ErrorKind::NotConnected)?;
    let mut talked: Vec<Option<Talked>> = planned.iter().map(|_| None).collect();
    for round in 0..=AGAIN {
        let open: Vec<usize> = (0..planned.len())
            .filter(|index| talked[*index].as_ref().is_none_or(is_void))
            .collect();
        if open.is_empty() {
            break;
        }
        let (long, short): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|index| planned[**index].rounds() > 1);
        let seconds =
            speech.seconds() * 1.4 * DRIFT_ROUNDS.max(short.len().div_ceil(CALLS_TOGETHER)) as f64;
        let again = if round == 0 { "" } else { " again, whose phones were late" };
        println!("calls over real sockets: {}{again}; up to {seconds:.0} s", open.len());
        let (long, short) = tokio::join!(
            talk_in_turn(server, planned, &long),
            talk_in_turn(server, planned, &short)
        );
        for (index, one) in long?.into_iter().chain(short?) {
            let better = talked[index].as_ref().is_none_or(|old| one.latest_ms() < old.latest_ms());
            if better {
                talked[index] = Some(one);
            }
        }
    }
    daemon.stop(Duration::from_secs(2)).await;
    Ok(talked.into_iter().flatten().collect())
}

/// These calls, so many together.
async fn talk_in_turn(
    server: SocketAddr,
    planned: &[Planned<'_>],
    indices: &[usize],
) -> io::Result<Vec<(usize, Talked)>> {
    let mut talked = Vec::new();
    for together in indices.chunks(CALLS_TOGETHER) {
        let talks: Vec<Talk> = together.iter().map(|index| planned[*index].talk()).collect();
        talked.extend(together.iter().copied().zip(phones::talk(server, &talks).await?));
    }
    Ok(talked)
}

impl<'a> Planned<'a> {
    fn rounds(&self) -> usize {
        if self.network.rounds() > 1 { DRIFT_ROUNDS } else { 1 }
    }

    fn talk(&self) -> Talk<'a> {
        let count = self.payloads.len() * self.rounds();
        let departures = self.network.arrivals(count, self.coder.packet(), 0);
        Talk { coder: self.coder, payloads: self.payloads, departures }
    }
}

fn is_void(talked: &Talked) -> bool {
    talked.latest_ms() > LATE_MS_MAX
}

/// How busy the machine was, as the phones felt it.
fn tell_lateness(talked: &[Talked]) {
    let mut late: Vec<f64> = talked.iter().flat_map(|one| one.late_ms.iter().copied()).collect();
    late.sort_by(f64::total_cmp);
    let part = |share: f64| late.get((late.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    let void = talked.iter().filter(|one| is_void(one)).count();
    println!(
        "the phones' packets left late by {:.2} ms in the middle, {:.2} at 99 %, {:.1} at most; \
         {void} of {} calls void (later than {LATE_MS_MAX} ms)",
        part(0.5),
        part(0.99),
        late.last().copied().unwrap_or(0.0),
        talked.len(),
    );
}

/// The echo by the daemon unless it is void, by the session under the virtual clock, and by the codec alone.
fn score(
    planned: &Planned,
    talked: &Talked,
    speech: &Speech,
    scores: &mut Scores,
) -> io::Result<()> {
    let Planned { coder, payloads, network } = planned;
    let (name, talk) = (coder.name, speech.talk(coder.back_hz));
    scores.refer(&talk)?;
    let with_clock = |heard: Heard| Heard { ppm: network.ppm(), ..heard };
    if !is_void(talked) {
        let heard = ear::hear(coder, coder.wording().payload_type, &talked.came);
        scores.add(name, (network.name(), "echo"), &talk, &with_clock(heard))?;
    }
    let heard = call::echo(coder, payloads, &planned.talk().departures);
    scores.add(name, (network.name(), "echo session"), &talk, &with_clock(heard))?;
    if *network == Network::Clean {
        let all: Vec<usize> = (0..payloads.len()).collect();
        let once = alone::decode(coder, payloads, &all, true);
        let twice = alone::back(coder, &once.pcm);
        scores.add(name, (network.name(), "echo alone"), &talk, &twice)?;
    }
    Ok(())
}

/// The demo's configuration on free ports.
fn prepare(folder: &Path) -> io::Result<Config> {
    let (config, report) = config::read("config/demo.toml", CONFIG, folder, &Machine::this());
    let mut config = config.ok_or_else(|| io::Error::other(report.to_string()))?;
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    (config.listen.udp, config.listen.tcp) = (vec![free], Vec::new());
    config.admin.listen = free;
    config.ultravox.api_key = Secret::new("quality");
    config.media.opus_output_hz = OPUS_OUTPUT_HZ;
    let store = folder.join("calls");
    // What a run before left need not be there.
    let _ = std::fs::remove_dir_all(&store);
    std::fs::create_dir_all(&store)?;
    config.store.path = store.join("calls.sqlite");
    Ok(config)
}
