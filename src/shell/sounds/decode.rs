//! Sound files into what the media plane plays: WAV (PCM of 8 to 32 bits, floats, A-law, µ-law) and
//! MP3, mixed to one channel and resampled to 16 kHz. The door to `nanomp3`. Its input is whatever a
//! stranger's server sent: every length is checked, every loop bounded, and it runs on a thread of its
//! own kind, never on the signalling one. It changes no volume.

use crate::codec::g711::Law;
use nanomp3::{Channels, SliceReader};
use std::f64::consts::PI;
use std::fmt;
use std::time::Duration;

/// The rate of what comes out.
pub const HZ: u32 = 16_000;
/// Rates that are read.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Every rate in use is a multiple of this: it bounds the phases of the filter to 640.
const RATE_STEP: u32 = 25;
const CHANNELS_MAX: usize = 8;
/// Chunks of a WAV file that are looked at.
const CHUNKS_MAX: usize = 64;
/// Lobes of the resampling filter on each side.
const LOBES: usize = 12;

/// Why a file cannot be played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeFault {
    /// Neither WAV nor MP3.
    OtherFormat,
    /// A WAV file whose form is none of those that are read: format tag and bits.
    WavFormat {
        tag: u16,
        bits: u16,
    },
    /// A WAV file that ends before its sound, or contradicts itself.
    BrokenWav,
    BrokenMp3,
    Rate(u32),
    Channels(u16),
    /// It holds no sample.
    Empty,
}

impl fmt::Display for DecodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeFault::OtherFormat => f.write_str("it is neither WAV nor MP3"),
            DecodeFault::WavFormat { tag, bits } => {
                write!(f, "its WAV format {tag} with {bits} bits is not read")
            }
            DecodeFault::BrokenWav => f.write_str("the WAV file is broken"),
            DecodeFault::BrokenMp3 => f.write_str("the MP3 file is broken"),
            DecodeFault::Rate(hz) => write!(f, "its sample rate of {hz} Hz is not read"),
            DecodeFault::Channels(count) => write!(f, "its {count} channels are not read"),
            DecodeFault::Empty => f.write_str("it holds no sound"),
        }
    }
}

/// One channel at the file's own rate.
struct Mono {
    hz: u32,
    pcm: Vec<i16>,
}

/// Reads a file; what is longer than `length_max` is cut there. Samples of one channel at [`HZ`].
///
/// # Errors
/// [`DecodeFault`].
pub fn decode(file: &[u8], length_max: Duration) -> Result<Vec<i16>, DecodeFault> {
    let mono = if file.starts_with(b"RIFF") {
        read_wav(file, length_max)?
    } else if nanomp3::detect(file) {
        read_mp3(file, length_max)?
    } else {
        return Err(DecodeFault::OtherFormat);
    };
    match mono.pcm.is_empty() {
        true => Err(DecodeFault::Empty),
        false => Ok(resample(&mono)),
    }
}

fn check_rate(hz: u32) -> Result<u32, DecodeFault> {
    match RATES.contains(&hz) && hz.is_multiple_of(RATE_STEP) {
        true => Ok(hz),
        false => Err(DecodeFault::Rate(hz)),
    }
}

fn samples_max(hz: u32, length_max: Duration) -> usize {
    usize::try_from(u64::from(hz) * length_max.as_millis() as u64 / 1_000).unwrap_or(usize::MAX)
}

fn read_mp3(file: &[u8], length_max: Duration) -> Result<Mono, DecodeFault> {
    let mut reader: SliceReader<'_, i16> = SliceReader::new(file);
    let (mut pcm, mut form) = (Vec::new(), None);
    while let Some(frame) = reader.read_frame().map_err(|_| DecodeFault::BrokenMp3)? {
        let frame = frame.to_vec();
        let channels = match reader.channels() {
            Some(Channels::Stereo) => 2,
            Some(Channels::Mono) | None => 1,
        };
        let hz = check_rate(reader.sample_rate())?;
        if *form.get_or_insert((hz, channels)) != (hz, channels) {
            return Err(DecodeFault::BrokenMp3);
        }
        pcm.extend(frame.chunks_exact(channels).map(mixed));
        if pcm.len() >= samples_max(hz, length_max) {
            pcm.truncate(samples_max(hz, length_max));
            break;
        }
    }
    let (hz, _) = form.ok_or(DecodeFault::Empty)?;
    Ok(Mono { hz, pcm })
}

/// The channels of one moment as one: their mean, so that nothing clips.
fn mixed(samples: &[i16]) -> i16 {
    let sum: i32 = samples.iter().map(|sample| i32::from(*sample)).sum();
    let count = i32::try_from(samples.len()).unwrap_or(1).max(1);
    i16::try_from(sum / count).unwrap_or(0)
}

/// How the samples of a WAV file are written.
#[derive(Clone, Copy)]
enum Form {
    Unsigned8,
    /// Little-endian, of so many bytes.
    Signed(usize),
    Float32,
    Float64,
    Law(Law),
}

impl Form {
    fn of(tag: u16, bits: u16) -> Result<Form, DecodeFault> {
        match (tag, bits) {
            (1, 8) => Ok(Form::Unsigned8),
            (1, 16 | 24 | 32) => Ok(Form::Signed(usize::from(bits / 8))),
            (3, 32) => Ok(Form::Float32),
            (3, 64) => Ok(Form::Float64),
            (6, 8) => Ok(Form::Law(Law::A)),
            (7, 8) => Ok(Form::Law(Law::Mu)),
            _ => Err(DecodeFault::WavFormat { tag, bits }),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Form::Unsigned8 | Form::Law(_) => 1,
            Form::Signed(bytes) => bytes,
            Form::Float32 => 4,
            Form::Float64 => 8,
        }
    }

    /// One sample; `bytes` are as many as [`Form::bytes`] says.
    fn sample(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Form::Unsigned8, [byte]) => (i16::from(*byte) - 128) << 8,
            (Form::Signed(_), [.., low, high]) => i16::from_le_bytes([*low, *high]),
            (Form::Float32, &[a, b, c, d]) => from_float(f32::from_le_bytes([a, b, c, d]).into()),
            (Form::Float64, &[a, b, c, d, e, f, g, h]) => {
                from_float(f64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            (Form::Law(law), [byte]) => {
                let mut pcm = [0];
                // One byte in, room for one sample out.
                let _ = law.decode(&[*byte], &mut pcm);
                pcm[0]
            }
            _ => 0,
        }
    }
}

fn from_float(value: f64) -> i16 {
    // `as` saturates, and makes nothing of what is no number.
    (value * 32_767.0).round() as i16
}

fn read_wav(file: &[u8], length_max: Duration) -> Result<Mono, DecodeFault> {
    if file.get(8..12) != Some(b"WAVE") {
        return Err(DecodeFault::OtherFormat);
    }
    let (mut rest, mut form) = (&file[12..], None);
    for _ in 0..CHUNKS_MAX {
        let Some((head, body)) = rest.split_at_checked(8) else { break };
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let chunk = body.get(..length).unwrap_or(body);
        match &head[..4] {
            b"fmt " => form = Some(read_format(chunk)?),
            b"data" => {
                let (hz, channels, form) = form.ok_or(DecodeFault::BrokenWav)?;
                // A recorder that could not go back leaves no length, or zero.
                let chunk = if length == 0 { body } else { chunk };
                let most = samples_max(hz, length_max);
                return Ok(Mono { hz, pcm: samples(chunk, channels, form, most) });
            }
            _ => {}
        }
        // Chunks begin at even places.
        rest = body.get(length + length % 2..).unwrap_or_default();
    }
    Err(DecodeFault::BrokenWav)
}

fn read_format(chunk: &[u8]) -> Result<(u32, usize, Form), DecodeFault> {
    let word = |at: usize| match chunk.get(at..at + 2) {
        Some(bytes) => Ok(u16::from_le_bytes([bytes[0], bytes[1]])),
        None => Err(DecodeFault::BrokenWav),
    };
    let (tag, channels, bits) = (word(0)?, word(2)?, word(14)?);
    let hz = check_rate(u32::from(word(4)?) | u32::from(word(6)?) << 16)?;
    if channels == 0 || usize::from(channels) > CHANNELS_MAX {
        return Err(DecodeFault::Channels(channels));
    }
    // WAVE_FORMAT_EXTENSIBLE: the tag is the beginning of the sub-format.
    let tag = if tag == 0xfffe { word(24)? } else { tag };
    Ok((hz, usize::from(channels), Form::of(tag, bits)?))
}

fn samples(data: &[u8], channels: usize, form: Form, most: usize) -> Vec<i16> {
    let moments = data.chunks_exact(form.bytes() * channels).take(most);
    let mut moment = [0; CHANNELS_MAX];
    moments
        .map(|bytes| {
            for (sample, bytes) in moment.iter_mut().zip(bytes.chunks_exact(form.bytes())) {
                *sample = form.sample(bytes);
            }
            mixed(&moment[..channels])
        })
        .collect()
}

/// To [`HZ`] by a windowed sinc (Hann's window) in polyphase form.
fn resample(mono: &Mono) -> Vec<i16> {
    if mono.hz == HZ {
        return mono.pcm.clone();
    }
    let common = greatest_divisor(mono.hz, HZ);
    let (up, down) = ((HZ / common) as usize, (mono.hz / common) as usize);
    // Half of the filter, in samples of the file: wider when the rate goes down.
    let half = LOBES * mono.hz.max(HZ).div_ceil(HZ) as usize;
    let phases: Vec<Vec<f32>> =
        (0..up).map(|phase| coefficients(phase as f64 / up as f64, half, mono.hz)).collect();
    let count = mono.pcm.len() * up / down;
    let sample = |index: usize| {
        let (at, phase) = (index * down / up, index * down % up);
        let taps = phases.get(phase).map(Vec::as_slice).unwrap_or_default();
        let (skipped, start) = match (at + 1).checked_sub(half) {
            Some(start) => (0, start),
            None => (half - at - 1, 0),
        };
        let pcm = mono.pcm.get(start..).unwrap_or_default();
        let taps = taps.get(skipped..).unwrap_or_default();
        let sum: f32 = pcm.iter().zip(taps).map(|(pcm, tap)| f32::from(*pcm) * tap).sum();
        sum.round() as i16
    };
    (0..count).map(sample).collect()
}

/// Taps for an output `offset` after a sample of the file: `half` samples up to that one, `half` after.
fn coefficients(offset: f64, half: usize, hz: u32) -> Vec<f32> {
    // A little below the lower Nyquist frequency, as a part of the file's.
    let cutoff = (f64::from(HZ) / f64::from(hz)).min(1.0) * 0.94;
    let tap = |index: usize| {
        let x = index as f64 - (half as f64 - 1.0) - offset;
        let window = 0.5 + 0.5 * (PI * x / half as f64).cos();
        let angle = PI * x * cutoff;
        let sinc = if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle };
        if x.abs() < half as f64 { cutoff * sinc * window } else { 0.0 }
    };
    let taps: Vec<f64> = (0..2 * half).map(tap).collect();
    // Each phase passes a constant as it is.
    let sum: f64 = taps.iter().sum();
    taps.into_iter().map(|tap| (tap / sum) as f32).collect()
}

fn greatest_divisor(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(300);

    /// A WAV file around `data`.
    fn wav(tag: u16, bits: u16, channels: u16, hz: u32, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        file.extend(tag.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(hz.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn every_form_of_wav_is_read() {
        let float = 0.5_f32.to_le_bytes();
        let double = (-0.5_f64).to_le_bytes();
        for (tag, bits, data, expected) in [
            (1, 8, &[128, 255, 0][..], &[0, 32_512, -32_768][..]),
            (1, 16, &[0x34, 0x12, 0xff, 0xff], &[0x1234, -1]),
            (1, 24, &[0, 0x34, 0x12, 0, 0, 0x80], &[0x1234, -32_768]),
            (1, 32, &[0, 0, 0x34, 0x12], &[0x1234]),
            (3, 32, &float, &[16_384]),
            (3, 64, &double, &[-16_384]),
            (6, 8, &[0xd5, 0x55], &[8, -8]),
            (7, 8, &[0xff, 0x00], &[0, -32_124]),
            (1, 16, &[1, 0, 2], &[1]),
        ] {
            let file = wav(tag, bits, 1, HZ, data);
            assert_eq!(decode(&file, LONG).as_deref(), Ok(expected), "{tag} {bits}");
        }
    }

    #[test]
    fn channels_are_mixed_and_a_long_file_is_cut() {
        let file = wav(1, 16, 2, HZ, &[100, 0, 200, 0, 0, 128, 0, 128]);
        assert_eq!(decode(&file, LONG), Ok(vec![150, -32_768]));
        let long = wav(1, 8, 1, HZ, &[128; 32_001]);
        assert_eq!(decode(&long, Duration::from_secs(2)).map(|pcm| pcm.len()), Ok(32_000));
    }

    #[test]
    fn an_extensible_format_and_a_missing_length_are_understood() {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x28\0\0\0\xfe\xff\x01\0\x80\x3e\0\0".to_vec();
        file.extend([0, 0, 0, 0, 2, 0, 16, 0, 22, 0, 16, 0, 4, 0, 0, 0, 1, 0]);
        file.extend([0; 14]);
        file.extend(b"data\0\0\0\0\x05\0\x06\0");
        assert_eq!(decode(&file, LONG), Ok(vec![5, 6]));
        let at = file.len() - 8;
        file[at..at + 4].copy_from_slice(&[0xff; 4]);
        assert_eq!(decode(&file, LONG), Ok(vec![5, 6]));
    }

    #[test]
    fn what_cannot_be_played_is_told() {
        let good = wav(1, 16, 1, HZ, &[0; 8]);
        for (file, fault) in [
            (b"<html>".to_vec(), DecodeFault::OtherFormat),
            (Vec::new(), DecodeFault::OtherFormat),
            (b"RIFF\0\0\0\0AVI ".to_vec(), DecodeFault::OtherFormat),
            (b"RIFF".to_vec(), DecodeFault::OtherFormat),
            (wav(2, 4, 1, HZ, &[0]), DecodeFault::WavFormat { tag: 2, bits: 4 }),
            (wav(1, 16, 1, 16_001, &[0; 2]), DecodeFault::Rate(16_001)),
            (wav(1, 16, 1, 3_975, &[0; 2]), DecodeFault::Rate(3_975)),
            (wav(1, 16, 0, HZ, &[0; 2]), DecodeFault::Channels(0)),
            (wav(1, 16, 9, HZ, &[0; 2]), DecodeFault::Channels(9)),
            (wav(1, 16, 1, HZ, &[]), DecodeFault::Empty),
            (good[..40].to_vec(), DecodeFault::BrokenWav),
            (good[..20].to_vec(), DecodeFault::BrokenWav),
        ] {
            assert_eq!(decode(&file, LONG), Err(fault), "{fault}");
        }
    }

    /// The level of a tone after resampling, in parts of what it was.
    fn gain(hz: u32, tone: f64) -> f64 {
        let step = 2.0 * PI * tone / f64::from(hz);
        let pcm: Vec<u8> = (0..hz)
            .flat_map(|index| ((10_000.0 * (f64::from(index) * step).sin()) as i16).to_le_bytes())
            .collect();
        let out = decode(&wav(1, 16, 1, hz, &pcm), LONG).expect("it is read");
        assert_eq!(out.len(), 16_000, "a second is a second at {hz}");
        let inner = &out[1_000..15_000];
        let power: f64 = inner.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        (power / inner.len() as f64).sqrt() / (10_000.0 / 2.0_f64.sqrt())
    }

    #[test]
    fn tones_keep_their_level_and_what_has_no_place_goes() {
        for hz in [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000] {
            for tone in [400.0, 1_000.0, 3_000.0] {
                let gain = gain(hz, tone);
                assert!((0.98..1.02).contains(&gain), "{tone} Hz of {hz}: {gain}");
            }
        }
        for (hz, tone) in [(44_100, 10_000.0), (48_000, 12_000.0), (32_000, 9_500.0)] {
            let gain = gain(hz, tone);
            assert!(gain < 0.01, "{tone} Hz of {hz}: {gain}");
        }
    }

    #[test]
    fn no_bytes_at_all_break_the_reader() {
        let mut entropy = crate::ground::Entropy::from_number(5);
        let good = wav(1, 24, 2, 44_100, &[7; 600]);
        for _ in 0..3_000 {
            let mut file = good.clone();
            for _ in 0..1 + entropy.below(6) {
                let at = entropy.below(file.len() as u64) as usize;
                file[at] = entropy.below(256) as u8;
            }
            file.truncate(entropy.below(file.len() as u64 + 1) as usize);
            let _ = decode(&file, LONG);
            let mut noise = vec![0xff, 0xfb, 0x90, 0x00];
            noise.extend((0..entropy.below(2_000)).map(|_| entropy.below(256) as u8));
            let _ = decode(&noise, LONG);
        }
    }
}
