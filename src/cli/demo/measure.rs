//! Figures of audio that went through a call and came back: level, place, and the signal-to-noise ratio of
//! a frame; and WAV files to listen to. Pure functions over 16-bit
//! PCM of one channel; nothing here plays, records or writes a file.

/// Level of a signal that is nothing but silence, in dBFS.
pub const SILENCE_DBFS: f64 = -100.0;

/// Root-mean-square level in dB below full scale: a full-scale square is 0, a full-scale sine
/// -3.01. Silence and an empty slice are [`SILENCE_DBFS`].
pub fn level_dbfs(pcm: &[i16]) -> f64 {
    if pcm.is_empty() {
        return SILENCE_DBFS;
    }
    let mean_square = energy(pcm) / pcm.len() as f64;
    (10.0 * (mean_square / FULL_SCALE.powi(2)).log10()).max(SILENCE_DBFS)
}

/// Where sent audio stands in what came back.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Alignment {
    /// Samples by which `returned` lags `sent`.
    pub delay: usize,
    /// Normalised correlation there: 1 is the same shape, 0 no likeness, -1 inverted.
    pub correlation: f64,
}

/// Finds `sent` in `returned` by the greatest normalised cross-correlation, for delays from 0 to
/// `delay_max` samples; of equal ones the least delay. `None` when either is silent or no delay
/// leaves half of `sent` to compare. Costs `sent.len() × delay_max / 16` multiplications or so.
pub fn align(sent: &[i16], returned: &[i16], delay_max: usize) -> Option<Alignment> {
    align_by(DECIMATION, sent, returned, delay_max)
}

/// As [`align`], but at first among means of so many samples, 1 or more.
pub fn align_by(
    decimation: usize,
    sent: &[i16],
    returned: &[i16],
    delay_max: usize,
) -> Option<Alignment> {
    // Low frequencies first, where speech has most of its energy; then sample by sample.
    let reached = returned.len().min(sent.len() + delay_max + decimation);
    let returned = &returned[..reached];
    let (sent_low, returned_low) = (means(decimation, sent), means(decimation, returned));
    let coarse = best(&sent_low, &returned_low, 0..=delay_max / decimation)?;
    let near = coarse.delay * decimation;
    let (least, most) = (near.saturating_sub(2 * decimation), near + 2 * decimation);
    best(&wide(sent), &wide(returned), least..=most.min(delay_max))
}

/// Signal-to-noise ratio in dB of a frame that came back, times `gain`, against what was `sent`, clamped to
/// -10 to 35 dB as is customary for segmental figures; what did not come back is silence.
pub fn frame_snr_db(sent: &[i16], returned: &[i16], gain: f64) -> f64 {
    let heard = returned.iter().map(|sample| gain * f64::from(*sample));
    let both = sent.iter().zip(heard.chain(std::iter::repeat(0.0)));
    let noise: f64 = both.map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let snr = 10.0 * (energy(sent) / noise.max(f64::MIN_POSITIVE)).log10();
    snr.clamp(FRAME_DB_LEAST, FRAME_DB_MOST)
}

/// The factor on `returned` that leaves the least squared difference to `sent`.
pub fn matching_gain(sent: &[i16], returned: &[i16]) -> f64 {
    let product: f64 = sent.iter().zip(returned).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    match energy(returned) {
        0.0 => 0.0,
        energy => product / energy,
    }
}

/// Frames of speech below this are pauses.
pub const ACTIVE_DBFS: f64 = -50.0;

/// Bytes of the header of [`wav`].
pub const WAV_HEADER_BYTES: usize = 44;

/// A whole WAV file: RIFF header of 44 bytes, then linear PCM of 16 bits. `channels` is 1 or more
/// and `pcm` holds their samples in turn. `None` when the file would pass 4 GiB.
pub fn wav(pcm: &[i16], hz: u32, channels: u16) -> Option<Vec<u8>> {
    let data_bytes = u32::try_from(pcm.len().checked_mul(2)?).ok()?;
    let block_bytes = channels.checked_mul(2)?;
    let mut file = Vec::with_capacity(WAV_HEADER_BYTES + pcm.len() * 2);
    file.extend(b"RIFF");
    file.extend(data_bytes.checked_add(WAV_HEADER_BYTES as u32 - 8)?.to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend(1u16.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(hz.to_le_bytes());
    file.extend(hz.checked_mul(u32::from(block_bytes))?.to_le_bytes());
    file.extend(block_bytes.to_le_bytes());
    file.extend(16u16.to_le_bytes());
    file.extend(b"data");
    file.extend(data_bytes.to_le_bytes());
    file.extend(pcm.iter().flat_map(|sample| sample.to_le_bytes()));
    Some(file)
}

const FULL_SCALE: f64 = 32_768.0;
/// Bounds of one frame, customary for segmental figures.
const FRAME_DB_LEAST: f64 = -10.0;
const FRAME_DB_MOST: f64 = 35.0;
const DECIMATION: usize = 4;

fn energy(pcm: &[i16]) -> f64 {
    pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum()
}

fn wide(pcm: &[i16]) -> Vec<f32> {
    pcm.iter().map(|sample| f32::from(*sample)).collect()
}

/// Means of so many samples: a crude low-pass is enough to find a place.
fn means(count: usize, pcm: &[i16]) -> Vec<f32> {
    let mean = |some: &[i16]| some.iter().map(|s| f32::from(*s)).sum::<f32>() / count as f32;
    pcm.chunks_exact(count).map(mean).collect()
}

fn best(
    sent: &[f32],
    returned: &[f32],
    delays: std::ops::RangeInclusive<usize>,
) -> Option<Alignment> {
    let mut found: Option<Alignment> = None;
    for delay in delays {
        let Some(rest) = returned.get(delay..) else { break };
        let len = rest.len().min(sent.len());
        if len == 0 || len < sent.len() / 2 {
            break;
        }
        let (mut product, mut sent_energy, mut returned_energy) = (0.0f64, 0.0f64, 0.0f64);
        // Sums of short runs keep 32 bits exact enough, and let them be done in parallel.
        for (a, b) in sent[..len].chunks(64).zip(rest[..len].chunks(64)) {
            let sum = |x: &[f32], y: &[f32]| -> f32 { x.iter().zip(y).map(|(p, q)| p * q).sum() };
            product += f64::from(sum(a, b));
            sent_energy += f64::from(sum(a, a));
            returned_energy += f64::from(sum(b, b));
        }
        if sent_energy == 0.0 || returned_energy == 0.0 {
            continue;
        }
        let correlation = product / (sent_energy * returned_energy).sqrt();
        if found.is_none_or(|before| correlation > before.correlation) {
            found = Some(Alignment { delay, correlation });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn sentence() -> Vec<i16> {
        let bytes = include_bytes!("../../../fixtures/pcm/sentence_16k.s16le");
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    fn sine(level: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| (level * (TAU * n as f64 / 40.0).sin()).round() as i16).collect()
    }

    fn near(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{value} is not near {expected}");
    }

    #[test]
    fn levels_are_those_of_known_signals() {
        near(level_dbfs(&[i16::MIN; 100]), 0.0, 1e-9);
        near(level_dbfs(&sine(32_767.0, 4_000)), -3.01, 0.01);
        near(level_dbfs(&sine(3_276.7, 4_000)), -23.01, 0.01);
        near(level_dbfs(&sentence()), -20.0, 0.05);
        assert_eq!(level_dbfs(&[0; 100]), SILENCE_DBFS);
        assert_eq!(level_dbfs(&[]), SILENCE_DBFS);
    }

    #[test]
    fn speech_is_found_at_every_delay_quieter_and_under_noise() {
        let sent = sentence();
        let mut state = 1u32;
        for delay in [0, 1, 2, 3, 159, 160, 1_601, 15_998] {
            let mut returned = vec![0i16; delay];
            returned.extend(sent.iter().map(|sample| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                sample / 3 + (state >> 16) as i16 / 200
            }));
            let found = align(&sent, &returned, 16_000).unwrap();
            assert_eq!(found.delay, delay);
            assert!(found.correlation > 0.99, "{found:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let sent = sentence();
        assert_eq!(align(&sent, &[0; 80_000], 16_000), None);
        assert_eq!(align(&[0; 8_000], &sent, 16_000), None);
        assert_eq!(align(&sent, &sent[..sent.len() / 2 - 8], 16_000), None);
        assert_eq!(align(&[], &[], 100), None);
        let other = sine(9_000.0, sent.len());
        assert!(align(&sent, &other, 1_000).unwrap().correlation < 0.3);
    }

    #[test]
    fn the_ratio_of_a_frame_is_that_of_known_noise() {
        let sent = sine(10_000.0, 320);
        near(frame_snr_db(&sent, &sent, 1.0), 35.0, 1e-9);
        let half: Vec<i16> = sent.iter().map(|sample| sample / 2).collect();
        let gain = matching_gain(&sent, &half);
        near(gain, 2.0, 0.001);
        assert!(frame_snr_db(&sent, &half, gain) > 34.9);
        // Alternating noise of a tenth of the sine's root mean square: 20 dB below it.
        let noise = (10_000.0 / 2f64.sqrt() / 10.0) as i16;
        let noisy = |(n, s): (usize, &i16)| s + if n % 2 == 0 { noise } else { -noise };
        let noisy: Vec<i16> = sent.iter().enumerate().map(noisy).collect();
        near(frame_snr_db(&sent, &noisy, 1.0), 20.0, 0.1);
        near(frame_snr_db(&sent, &[0; 320], 1.0), 0.0, 1e-9);
        // What did not come is silence, and the worst is bounded.
        near(frame_snr_db(&sent, &[], 1.0), 0.0, 1e-9);
        near(frame_snr_db(&sent, &sent, -9.0), -10.0, 1e-9);
        near(matching_gain(&sent, &[0; 320]), 0.0, 1e-9);
    }

    #[test]
    fn wav_files_have_the_44_byte_header() {
        let file = wav(&[1, -2, 3, -4], 16_000, 2).unwrap();
        let expected =
            b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0\x80\x3e\0\0\0\xfa\0\0\x04\0\x10\0\
                         data\x08\0\0\0\x01\0\xfe\xff\x03\0\xfc\xff";
        assert_eq!(file, expected);
        assert_eq!(file.len(), WAV_HEADER_BYTES + 8);
        assert_eq!(wav(&[], 8_000, 1).unwrap().len(), WAV_HEADER_BYTES);
        assert_eq!(wav(&[], 8_000, u16::MAX), None);
    }
}
