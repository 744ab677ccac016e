//! Leaves what was heard, sentence by sentence, as WAV files with a list of what they are, and has
//! `score.py` score it: PESQ against what was said. Without Python or its packages the segmental
//! signal-to-noise ratio is printed instead.

use super::Heard;
use super::speech::Talk;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use voxedge::cli::demo::{follow, measure};

/// What is kept around a sentence, in milliseconds: the longest delay comes after it.
const BEFORE_MS: usize = 300;
const AFTER_MS: usize = 900;
/// The longest delay that is looked for without Python, in milliseconds.
const DELAY_MS_MAX: usize = 300;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/quality/score.py");
const PACKAGES: [&str; 4] = ["numpy", "scipy", "pesq", "matplotlib"];

pub struct Scores {
    folder: PathBuf,
    /// One with the packages.
    python: Option<PathBuf>,
    /// Rows of tab-separated words, one for each sentence that was heard.
    rows: String,
    files: usize,
}

impl Heard {
    /// Audio of which each sample was there when it was due.
    pub fn at_once(pcm: Vec<i16>, hz: u32) -> Heard {
        let per_ms = hz as usize / 1_000;
        let marks = (1..=pcm.len() / per_ms).map(|ms| (ms * per_ms, ms as f64 - 0.5)).collect();
        Heard { pcm, marks, ppm: 0.0 }
    }

    /// How long after they were due by the speaker's clock the samples of a range were there, in
    /// milliseconds on average.
    fn wait_ms(&self, range: std::ops::Range<usize>, hz: u32) -> f64 {
        let per_ms = f64::from(hz) / 1_000.0;
        let (mut sum, mut count, mut from) = (0.0, 0usize, 0usize);
        for (to, at) in &self.marks {
            let piece = from.max(range.start)..(*to).min(range.end);
            if !piece.is_empty() {
                let middle = (piece.start + piece.end) as f64 / 2.0 / per_ms;
                sum += (at - middle) * piece.len() as f64;
                count += piece.len();
            }
            from = *to;
        }
        let due_ms = (range.start + range.end) as f64 / 2.0 / per_ms;
        sum / count.max(1) as f64 + due_ms * self.ppm / (1e6 + self.ppm)
    }
}

impl Scores {
    /// Looks for Python first: `python`, or a virtual environment in the folder that is made now.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn begin(folder: &Path, python: Option<&Path>) -> io::Result<Scores> {
        std::fs::create_dir_all(folder)?;
        let python = match python {
            Some(python) => Some(python.to_owned()).filter(|python| has_packages(python)),
            None => environment(&folder.join("python")),
        };
        if python.is_none() {
            println!("no Python with {}: segmental SNR instead of PESQ", PACKAGES.join(", "));
        }
        Ok(Scores { folder: folder.to_owned(), python, rows: String::new(), files: 0 })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves what is said at the rate of those who hear it.
    pub fn refer(&self, talk: &Talk) -> io::Result<()> {
        write_wav(&self.folder.join(format!("said-{}.wav", talk.hz)), &talk.pcm, talk.hz)
    }

    /// Adds a call. Of a talk that was repeated one sentence of each round is taken, each in its turn; where
    /// there are fewer rounds than sentences, all of the last round.
    pub fn add(
        &mut self,
        name: &str,
        (network, variant): (&str, &str),
        talk: &Talk,
        heard: &Heard,
    ) -> io::Result<()> {
        let in_samples = |ms: usize| ms * talk.hz as usize / 1_000;
        let (before, after) = (in_samples(BEFORE_MS), in_samples(AFTER_MS));
        let sentences = talk.places.len();
        let rounds = (heard.pcm.len() / talk.pcm.len()).max(1);
        let in_one = (rounds < sentences).then_some(rounds - 1);
        let last = if in_one.is_some() { sentences } else { rounds };
        let file = format!("heard-{:04}.wav", self.files);
        let mut clips = Vec::new();
        for turn in 0..last {
            let round = in_one.unwrap_or(turn);
            let said = talk.places[turn % sentences].clone();
            let begin = round * talk.pcm.len() + said.start;
            let end = begin + said.len();
            let mut clip = heard.pcm.get(begin - before..).unwrap_or_default().to_vec();
            clip.resize(before + said.len() + after, 0);
            let wait = heard.wait_ms(begin..end, talk.hz);
            let _ = writeln!(
                self.rows,
                "{name}\t{network}\t{variant}\t{}\t{}\t{}\t{file}\t{}\t{}\t{before}\t{wait:.2}",
                talk.hz,
                said.start,
                said.len(),
                clips.len(),
                clip.len(),
            );
            if self.python.is_none() {
                let (words, delay_max) = (&talk.pcm[said], in_samples(DELAY_MS_MAX));
                let ratio = follow::compare(words, &clip[before..], talk.hz, delay_max);
                let ratio = ratio.map_or(f64::NAN, |quality| quality.segmental_snr_db);
                println!("{name:16} {network:14} {variant:10} {turn:2}  {ratio:6.1} dB");
            }
            clips.extend(clip);
        }
        self.files += 1;
        write_wav(&self.folder.join(file), &clips, talk.hz)
    }

    /// Scores all and prints the tables.
    ///
    /// # Errors
    /// The list cannot be written, or the script fails.
    pub fn print(&self, picture: Option<&Path>) -> io::Result<()> {
        std::fs::write(self.folder.join("heard.tsv"), &self.rows)?;
        let Some(python) = &self.python else { return Ok(()) };
        let mut command = Command::new(python);
        command.arg(SCRIPT).arg(&self.folder).args(picture);
        match command.status()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("score.py failed")),
        }
    }
}

/// The Python of a virtual environment that has the packages, made when it is not there.
fn environment(folder: &Path) -> Option<PathBuf> {
    let python = folder.join("bin/python");
    if has_packages(&python) {
        return Some(python);
    }
    println!("making a Python environment with {}", PACKAGES.join(", "));
    let quiet = |command: &mut Command| {
        let ended =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success())
    };
    let made = quiet(Command::new("python3").args(["-m", "venv"]).arg(folder));
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let filled = made && quiet(Command::new(&python).args(install).args(PACKAGES));
    filled.then_some(python)
}

fn has_packages(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {}", PACKAGES.join(", "))]);
    let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}

fn write_wav(path: &Path, pcm: &[i16], hz: u32) -> io::Result<()> {
    let file = measure::wav(pcm, hz, 1).ok_or(io::ErrorKind::FileTooLarge)?;
    std::fs::write(path, file)
}
