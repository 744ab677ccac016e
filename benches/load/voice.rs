//! What the calls of a run speak. PCMU carries stamps and comes back byte for byte (`stamp.rs`). A
//! codec that loses bits carries the fixture's sentence, both ways, again and again; whether that
//! is what arrives is seen by its loudness every 5 ms, which no codec changes much and nothing else has.

use std::sync::Arc;
use voxedge::codec::resample::Resampler;
use voxedge::codec::{CodecKind, Encoder, EncoderSettings};
use voxedge::media::plan::AgentRates;

/// Frames of 20 ms that the agent is ahead of its words.
pub const AHEAD_FRAMES: u64 = 3;
/// What the likeness must be at least. The sentence and a shifted one are below 0.4.
pub const LIKENESS_MIN: f64 = 0.8;
/// Streams whose sound is looked at.
pub const JUDGED: usize = 4;
const FRAMES_PER_SECOND: u32 = 50;
const LEVELS_PER_SECOND: u32 = 200;
/// Payload number of codecs that have none of their own.
const DYNAMIC: u8 = 96;

/// One row of the table: a codec at one rate of the agent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voice {
    pub name: &'static str,
    pub kind: CodecKind,
    /// Samples a second of the agent's words in Opus.
    pub opus_output_hz: u32,
    /// Calls at once that two cores carry beside the caller and the far end.
    pub calls: usize,
    /// The goal of calls on one core: while the agent talks, and while it is silent half the time.
    pub goals: [Option<u32>; 2],
}

const fn voice(
    name: &'static str,
    kind: CodecKind,
    opus_output_hz: u32,
    calls: usize,
    goals: [Option<u32>; 2],
) -> Voice {
    Voice { name, kind, opus_output_hz, calls, goals }
}

/// All of them, in the order of the table.
pub const VOICES: [Voice; 5] = [
    voice("pcmu", CodecKind::Pcmu, 24_000, 300, [Some(1_200), None]),
    voice("g722", CodecKind::G722, 24_000, 150, [Some(600), None]),
    voice("opus", CodecKind::Opus, 16_000, 60, [Some(150), Some(250)]),
    voice("opus24", CodecKind::Opus, 24_000, 60, [None, None]),
    voice("amrwb", CodecKind::AmrWb, 24_000, 30, [Some(95), None]),
];

impl Voice {
    pub fn named(name: &str) -> Option<Voice> {
        VOICES.into_iter().find(|voice| voice.name == name)
    }

    /// Every byte comes back as it was sent.
    pub fn is_exact(self) -> bool {
        self.kind == CodecKind::Pcmu
    }

    pub fn rates(self) -> AgentRates {
        AgentRates::for_codec(self.kind, self.opus_output_hz)
    }

    pub fn payload_type(self) -> u8 {
        self.kind.static_payload_type().unwrap_or(DYNAMIC)
    }

    /// Steps of the RTP timestamp in a frame of 20 ms.
    pub fn frame_ticks(self) -> u32 {
        self.kind.rtp_clock_hz() / FRAMES_PER_SECOND
    }

    /// The encoding as `a=rtpmap` names it.
    pub fn encoding(self) -> String {
        let (name, clock) = (self.kind.encoding_name(), self.kind.rtp_clock_hz());
        match self.kind.channels_in_rtpmap() {
            1 => format!("{name}/{clock}"),
            channels => format!("{name}/{clock}/{channels}"),
        }
    }

    /// What a call does, in the table's head.
    pub fn words(self) -> String {
        let AgentRates { input_hz, output_hz } = self.rates();
        format!("{} by RTP ↔ s16le {input_hz} Hz in, {output_hz} Hz out", self.kind.encoding_name())
    }

    /// The sentence as payloads.
    pub fn payloads(self) -> Vec<Vec<u8>> {
        let hz = self.rates().input_hz;
        let mut encoder = Encoder::new(self.kind, hz, EncoderSettings::default())
            .expect("a codec that was found to be available, at a rate of its own");
        let pcm = sentence(hz);
        let frames = pcm.chunks_exact((hz / FRAMES_PER_SECOND) as usize);
        let encode = |frame: &[i16]| {
            let mut payload = vec![0; 1_275];
            let length = encoder.encode(frame, &mut payload).expect("a whole frame");
            payload.truncate(length);
            payload
        };
        frames.map(encode).collect()
    }
}

/// The fixture's sentence, a whole number of frames.
pub fn sentence(hz: u32) -> Vec<i16> {
    let bytes = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
    let pcm: Vec<i16> =
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    if hz == 16_000 {
        return pcm;
    }
    let mut resampler = Resampler::continuous(16_000, hz).expect("a rate of the agent's");
    let mut out = vec![0; resampler.output_len(pcm.len())];
    let count = resampler.resample(&pcm, &mut out).expect("there is room");
    out.truncate(count);
    out
}

/// The agent's words: the sentence, then silence for `silence_percent` of the time, and again.
#[derive(Clone)]
pub struct Words {
    frames: Arc<Vec<Vec<u8>>>,
    /// Frames of the sentence and of its silence.
    period: u64,
}

impl Words {
    pub fn new(voice: Voice, silence_percent: u64) -> Words {
        let hz = voice.rates().output_hz;
        let bytes = |frame: &[i16]| frame.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let pcm = sentence(hz);
        let frames: Vec<_> =
            pcm.chunks_exact((hz / FRAMES_PER_SECOND) as usize).map(bytes).collect();
        let period = frames.len() as u64 * 100 / (100 - silence_percent.min(90));
        Words { frames: Arc::new(frames), period }
    }

    /// The frame of this number, `None` while the agent is silent.
    pub fn frame(&self, number: u64) -> Option<&[u8]> {
        let place = usize::try_from(number % self.period).ok()?;
        self.frames.get(place).map(Vec::as_slice)
    }

    /// All of a period at once, as samples.
    pub fn period(voice: Voice, silence_percent: u64) -> Vec<i16> {
        let words = Words::new(voice, silence_percent);
        let mut pcm = sentence(voice.rates().output_hz);
        let frame = pcm.len() / words.frames.len();
        pcm.resize(frame * words.period as usize, 0);
        pcm
    }
}

/// Loudness every 5 ms, in dB.
pub struct Loudness {
    levels: Vec<f32>,
    part: Vec<i16>,
    part_samples: usize,
}

impl Loudness {
    pub fn new(hz: u32) -> Loudness {
        let part_samples = (hz / LEVELS_PER_SECOND) as usize;
        Loudness { levels: Vec::new(), part: Vec::new(), part_samples }
    }

    pub fn of(hz: u32, pcm: &[i16]) -> Loudness {
        let mut loudness = Loudness::new(hz);
        loudness.push(pcm);
        loudness
    }

    pub fn push(&mut self, pcm: &[i16]) {
        for sample in pcm {
            self.part.push(*sample);
            if self.part.len() == self.part_samples {
                let square = |sample: &i16| f32::from(*sample) * f32::from(*sample);
                let mean = self.part.iter().map(square).sum::<f32>() / self.part_samples as f32;
                // Noise of a codec in silence is no loudness.
                self.levels.push(10.0 * (mean + 1_000.0).log10());
                self.part.clear();
            }
        }
    }

    pub fn clear(&mut self) {
        self.levels.clear();
    }

    /// How much this is like some stretch of `whole`, said again and again: the correlation at the
    /// best place, 1 at most; 0 for less than a second.
    pub fn likeness(&self, whole: &Loudness) -> f64 {
        if self.levels.len() < LEVELS_PER_SECOND as usize || whole.levels.is_empty() {
            return 0.0;
        }
        let at = |shift: usize| {
            let other = whole.levels.iter().cycle().skip(shift);
            correlation(&self.levels, other)
        };
        (0..whole.levels.len()).map(at).fold(0.0, f64::max)
    }
}

fn correlation<'a>(ours: &[f32], others: impl Iterator<Item = &'a f32> + Clone) -> f64 {
    let count = ours.len() as f64;
    let mean = |sum: f64| sum / count;
    let our_mean = mean(ours.iter().map(|level| f64::from(*level)).sum());
    let other_mean = mean(others.clone().take(ours.len()).map(|level| f64::from(*level)).sum());
    let (mut both, mut own, mut other) = (0.0, 0.0, 0.0);
    for (a, b) in ours.iter().zip(others) {
        let (a, b) = (f64::from(*a) - our_mean, f64::from(*b) - other_mean);
        both += a * b;
        own += a * a;
        other += b * b;
    }
    both / (own * other).sqrt().max(f64::MIN_POSITIVE)
}
