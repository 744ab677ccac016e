//! How speech sounds after a call: sentences of real voices go through every codec and the daemon's
//! media path over clean and bad networks, and PESQ scores what comes out beside what the codec alone
//! leaves. The bad networks are simulated: seeded, under a virtual clock, in the same `MediaSession`
//! that a media thread drives; then the same packets cross the whole daemon and real sockets.
//! `benches/README.md` says what each figure is.

mod alone;
mod call;
mod coder;
mod daemon;
mod ear;
mod network;
mod phones;
mod score;
mod speech;

use coder::Coder;
use score::Scores;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
quality of voxedge: cargo bench --bench quality -- [options]

  --only WORD       codecs whose name holds this                 [all]
  --passes N        loss patterns for each network               [3]
  --out FOLDER      where WAV files and scores are left          [target/quality]
  --picture FILE    a plot of the scores as SVG                  [none]
  --python PROGRAM  with pesq, numpy and matplotlib              [a virtual environment in the folder]
  --without-daemon  no calls over real sockets
  --only-daemon     nothing but calls over real sockets";

/// What the arguments ask for.
struct Order {
    only: String,
    passes: u64,
    out: PathBuf,
    picture: Option<PathBuf>,
    python: Option<PathBuf>,
    /// Under the virtual clock.
    session: bool,
    /// Over real sockets.
    daemon: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match parse(&words) {
        Ok(Some(order)) => match run(&order) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("quality: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(words) => {
            eprintln!("quality: {words}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: &[String]) -> Result<Option<Order>, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let mut order = Order {
        only: String::new(),
        passes: 3,
        out: target.join("quality"),
        picture: None,
        python: None,
        session: true,
        daemon: true,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word}: a value is missing"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--only" => order.only = value()?.to_lowercase(),
            "--passes" => {
                let count = value()?.parse().ok().filter(|count| (1..=100).contains(count));
                order.passes = count.ok_or("--passes: 1 to 100")?;
            }
            "--out" => order.out = value()?.into(),
            "--picture" => order.picture = Some(value()?.into()),
            "--python" => order.python = Some(value()?.into()),
            "--without-daemon" => order.daemon = false,
            "--only-daemon" => order.session = false,
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(Some(order))
}

fn run(order: &Order) -> std::io::Result<()> {
    let speech = speech::find()?;
    println!("{} sentences, {:.0} s: {}", speech.sentences.len(), speech.seconds(), speech.source);
    let mut scores = Scores::begin(&order.out, order.python.as_deref())?;
    let mut coders = coder::all();
    coders.retain(|coder| coder.is_wanted(&order.only));
    for coder in coders.iter().filter(|coder| !coder.kind.is_available()) {
        println!("{}: not measured, its libraries are not installed", coder.name);
    }
    coders.retain(|coder| coder.kind.is_available());
    for coder in coders.iter().filter(|_| order.session) {
        hear(coder, &speech, order.passes, &mut scores)?;
    }
    if order.daemon {
        daemon::echo(&coders, &speech, &mut scores)?;
    }
    scores.print(order.picture.as_deref())
}

/// A codec over every network, caller to agent, and back over a clean one.
fn hear(
    coder: &Coder,
    speech: &speech::Speech,
    passes: u64,
    scores: &mut Scores,
) -> std::io::Result<()> {
    let payloads = coder.encode(&speech.talk(coder.caller_hz).pcm);
    let talk = speech.talk(coder.agent_hz);
    scores.refer(&talk)?;
    let all: Vec<usize> = (0..payloads.len()).collect();
    let alone = alone::decode(coder, &payloads, &all, true);
    scores.add(coder.name, ("clean", "alone"), &talk, &alone)?;
    for network in network::ALL {
        for pass in 0..if network.is_chance() { passes } else { 1 } {
            let count = payloads.len() * network.rounds();
            let arrivals = network.arrivals(count, coder.packet(), pass);
            let mut heard = call::caller_to_agent(coder, &payloads, &arrivals);
            heard.ppm = network.ppm();
            scores.add(coder.name, (network.name(), "daemon"), &talk, &heard)?;
            if !network.loses() {
                continue;
            }
            let came: Vec<usize> = arrivals.iter().map(|arrival| arrival.packet).collect();
            for (variant, conceals) in [("ideal", true), ("silence", false)] {
                let heard = alone::decode(coder, &payloads, &came, conceals);
                scores.add(coder.name, (network.name(), variant), &talk, &heard)?;
            }
        }
    }
    let talk = speech.talk(coder.back_hz);
    scores.refer(&talk)?;
    let heard = call::agent_to_caller(coder, &talk.pcm);
    scores.add(coder.name, ("back", "daemon"), &talk, &heard)?;
    scores.add(coder.name, ("back", "alone"), &talk, &alone::back(coder, &talk.pcm))?;
    println!("{}: heard", coder.name);
    Ok(())
}

/// What somebody heard: audio from the call's first moment on, and when each piece of it was there.
pub struct Heard {
    pub pcm: Vec<i16>,
    /// Samples that had come by a time, in milliseconds since the call's first moment.
    pub marks: Vec<(usize, f64)>,
    /// Millionths by which the speaker's clock was fast.
    pub ppm: f64,
}
