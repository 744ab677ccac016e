//! What the kit's arguments ask for.

use crate::voice::{VOICES, Voice};
use std::path::PathBuf;

/// The share of time for which the agent is silent in the rows that show it.
const HALF: u64 = 50;

/// What to do.
pub enum Wish {
    Help,
    Run(Order),
    Overload(Order),
}

/// The runs that are wanted.
#[derive(Clone, Debug)]
pub struct Order {
    /// Codecs, each with the percentage of time for which the agent is silent.
    pub voices: Vec<(Voice, u64)>,
    /// Empty: what suits each codec.
    pub calls: Vec<usize>,
    pub seconds: u64,
    pub warm: u64,
    pub runs: usize,
    pub rate: usize,
    /// Empty: what suits each codec.
    pub modes: Vec<&'static str>,
    /// Builds of the daemon, in turn; `None` is the one of this build.
    pub daemons: Vec<Option<PathBuf>>,
    pub shards: Option<usize>,
}

impl Order {
    /// # Errors
    /// Words on the argument that cannot be meant.
    pub fn parse(arguments: &[String]) -> Result<Wish, String> {
        let pcmu = VOICES[0];
        let mut order = Order {
            voices: vec![(pcmu, 0)],
            calls: Vec::new(),
            seconds: 5,
            warm: 4,
            runs: 1,
            rate: 50,
            modes: Vec::new(),
            daemons: vec![None],
            shards: None,
        };
        let mut silence = 0;
        let mut overload = false;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(Wish::Help),
                "--overload" => {
                    overload = true;
                    continue;
                }
                _ => {}
            }
            let value = words.next().ok_or_else(|| format!("{word}: a value is missing"))?;
            match word.as_str() {
                "--silence" => silence = number(word, value, 0, 90)?,
                _ => order.set(word, value)?,
            }
        }
        for (voice, percent) in &mut order.voices {
            *percent = (*percent).max(if voice.is_exact() { 0 } else { silence });
        }
        Ok(if overload { Wish::Overload(order) } else { Wish::Run(order) })
    }

    fn set(&mut self, word: &str, value: &str) -> Result<(), String> {
        let many = u64::from(u32::MAX);
        match word {
            "--codec" => self.voices = voices(value)?,
            "--calls" => {
                let calls: Result<Vec<usize>, _> = value.split(',').map(str::parse).collect();
                self.calls = calls
                    .ok()
                    .filter(|all| all.iter().all(|n| (1..=3_000).contains(n)))
                    .ok_or_else(|| format!("{word}: {value} is no list of 1 to 3000"))?;
            }
            "--seconds" => self.seconds = number(word, value, 1, many)?,
            "--warm" => self.warm = number(word, value, 4, many)?,
            "--runs" => self.runs = number(word, value, 1, many)? as usize,
            "--rate" => self.rate = number(word, value, 1, many)? as usize,
            "--shards" => self.shards = Some(number(word, value, 1, 64)? as usize),
            "--daemon" => {
                self.daemons = value.split(',').map(|path| Some(PathBuf::from(path))).collect();
            }
            "--far-end" => {
                self.modes = match value {
                    "burst" => vec!["burst"],
                    "eager" => vec!["eager"],
                    "both" => vec!["burst", "eager"],
                    _ => return Err(format!("{word}: burst, eager or both")),
                }
            }
            _ => return Err(format!("{word} is not known")),
        }
        Ok(())
    }

    /// The counts of calls for a codec.
    pub fn calls_of(&self, voice: Voice) -> Vec<usize> {
        match self.calls.is_empty() {
            false => self.calls.clone(),
            true if self.voices.len() == 1 && voice.is_exact() => vec![10, 100, 300],
            true => vec![voice.calls],
        }
    }

    /// The far ends for a codec.
    pub fn modes_of(&self, voice: Voice) -> Vec<&'static str> {
        match self.modes.is_empty() {
            false => self.modes.clone(),
            true if self.voices.len() == 1 && voice.is_exact() => vec!["burst", "eager"],
            true => vec!["burst"],
        }
    }
}

fn number(word: &str, value: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = value.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{word}: {value} is no number of at least {least}"))
}

fn voices(value: &str) -> Result<Vec<(Voice, u64)>, String> {
    let opus_too = |voice: Voice| match voice.name.starts_with("opus") {
        true => vec![(voice, 0), (voice, HALF)],
        false => vec![(voice, 0)],
    };
    if value == "all" {
        return Ok(VOICES.into_iter().flat_map(opus_too).collect());
    }
    let named = |name: &str| Voice::named(name).map(|voice| (voice, 0));
    let known: Option<Vec<_>> = value.split(',').map(named).collect();
    known.ok_or_else(|| format!("--codec: {value} is none of pcmu, g722, opus, opus24, amrwb, all"))
}
