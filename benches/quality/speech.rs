//! What is said: sentences of real voices from Debian's `pocketsphinx-testdata` where it is installed,
//! else of espeak-ng, else the demo's one sentence; each at the same level, with pauses between.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use voxedge::cli::demo::measure::{WAV_HEADER_BYTES, level_dbfs};
use voxedge::cli::demo::speech::{resample, sentence};

/// Rate at which sentences are kept, Hz.
const HZ: u32 = 16_000;
/// Level of each sentence (ITU-T P.56 as custom has it).
const LEVEL_DBFS: f64 = -26.0;
/// Silence before each sentence and after the last, milliseconds.
const PAUSE_MS: usize = 900;

/// Five read by a woman for LibriVox, five by men.
const RECORDINGS: [&str; 10] = [
    "librivox/sense_and_sensibility_01_austen_64kb-0870.wav",
    "cards/005.wav",
    "librivox/sense_and_sensibility_01_austen_64kb-0880.wav",
    "goforward.raw",
    "librivox/sense_and_sensibility_01_austen_64kb-0890.wav",
    "numbers.raw",
    "librivox/sense_and_sensibility_01_austen_64kb-0920.wav",
    "something.raw",
    "librivox/sense_and_sensibility_01_austen_64kb-0930.wav",
    "cards/002.wav",
];
const FOLDER: &str = "/usr/share/pocketsphinx/test/data";

/// Sentences of two kinds of voices for espeak-ng.
const WRITTEN: [(&str, &str); 8] = [
    ("en-us+f3", "The next train to the airport leaves in twelve minutes from platform nine."),
    ("en-gb", "Please read the last four digits of your card, slowly and clearly."),
    ("en-us+f2", "A large size in stockings is hard to sell, she said, and closed the book."),
    ("en-us", "We could not find your order, so I will ask a colleague to call you back."),
    ("en-gb+f4", "The boy was there when the sun rose over the quiet harbour."),
    ("en-gb-scotland", "Kick the ball straight and follow through, then wait for the others."),
    ("en-gb+f1", "Four hours of steady work faced us before the shop could open."),
    ("en-us+m7", "It snowed, rained and hailed the same morning, and nobody was surprised."),
];

pub struct Speech {
    /// Each at 16 kHz.
    pub sentences: Vec<Vec<i16>>,
    /// In words.
    pub source: String,
}

/// All sentences in a row at one rate.
pub struct Talk {
    pub hz: u32,
    pub pcm: Vec<i16>,
    /// Where each sentence stands, in samples.
    pub places: Vec<std::ops::Range<usize>>,
}

/// The best speech that this machine has.
///
/// # Errors
/// A recording is there and cannot be read.
pub fn find() -> io::Result<Speech> {
    if Path::new(FOLDER).is_dir() {
        let recordings = RECORDINGS.iter().map(|name| recording(&Path::new(FOLDER).join(name)));
        let sentences = recordings.collect::<io::Result<Vec<_>>>()?;
        let source = "real voices (pocketsphinx-testdata), five of a woman and five of men".into();
        return Ok(Speech { sentences, source });
    }
    let written: Vec<_> = WRITTEN.iter().map_while(|(voice, words)| spoken(voice, words)).collect();
    let (sentences, source) = match written.len() == WRITTEN.len() {
        true => (written, "synthetic voices (espeak-ng); pocketsphinx-testdata has real ones"),
        false => (vec![sentence(HZ)], "the demo's (neither pocketsphinx-testdata nor espeak-ng)"),
    };
    let sentences = sentences.into_iter().map(levelled).collect();
    Ok(Speech { sentences, source: source.into() })
}

fn recording(path: &Path) -> io::Result<Vec<i16>> {
    let bytes = std::fs::read(path)?;
    let head = if bytes.starts_with(b"RIFF") { WAV_HEADER_BYTES } else { 0 };
    Ok(levelled(samples(bytes.get(head..).unwrap_or_default())))
}

fn spoken(voice: &str, words: &str) -> Option<Vec<i16>> {
    let mut command = Command::new("espeak-ng");
    command.args(["-v", voice, "--stdout", words]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let hz = u32::from_le_bytes(output.stdout.get(24..28)?.try_into().ok()?);
    Some(resample(&samples(output.stdout.get(WAV_HEADER_BYTES..)?), hz, HZ))
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn levelled(pcm: Vec<i16>) -> Vec<i16> {
    let factor = 10f64.powf((LEVEL_DBFS - level_dbfs(&pcm)) / 20.0);
    pcm.iter().map(|sample| (f64::from(*sample) * factor) as i16).collect()
}

impl Speech {
    pub fn seconds(&self) -> f64 {
        let samples: usize = self.sentences.iter().map(Vec::len).sum();
        samples as f64 / f64::from(HZ)
    }

    /// The sentences in a row, in whole packets of 60 ms.
    pub fn talk(&self, hz: u32) -> Talk {
        let pause = PAUSE_MS * hz as usize / 1_000;
        let (mut pcm, mut places) = (Vec::new(), Vec::new());
        for sentence in &self.sentences {
            pcm.resize(pcm.len() + pause, 0);
            let begin = pcm.len();
            pcm.extend(resample(sentence, HZ, hz));
            places.push(begin..pcm.len());
        }
        let packet = hz as usize * 60 / 1_000;
        pcm.resize((pcm.len() + pause).next_multiple_of(packet), 0);
        Talk { hz, pcm, places }
    }
}
