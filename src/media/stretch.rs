//! Time-scale modification: makes a frame of PCM shorter or longer by one pitch period, so that speech
//! keeps its pitch and its words and only takes another time. Of all lags from 2.5 to 15 ms the one is
//! taken at which the frame resembles itself most, and there the frame goes over into itself, one lag
//! later (shorter) or earlier (longer), by overlap-add where the two differ least (waveform similarity:
//! Verhelst and Roelands, WSOLA, ICASSP 1993; for packets: Liang, Färber and Girod, IEEE Transactions
//! on Multimedia 5(4), 2003).
//!
//! | the frame holds | what is done |
//! |---|---|
//! | silence | cut or repeated anywhere, without a search |
//! | a voice, a tone, the edge of a pause | by one period, or in the pause |
//! | noise no louder than the line has anyway | at the likest place, though it is not very like |
//! | a transient, a consonant, a step of level | refused: the next frame is tried |
//!
//! It works on the frame it is lent, looks at no other, delays nothing, and knows neither time nor why
//! it is asked. Its work for a frame is bounded, and nothing is done for a frame that it is not asked for.

/// Of a longer frame only so much is looked at.
const FRAME_MS_MAX: usize = 30;
/// Lags that are tried, in quarters of a millisecond: voices of 67 to 400 Hz.
const LAG_QUARTERS_MIN: usize = 10;
const LAG_QUARTERS_MAX: usize = 60;
/// Samples of a frame at 4 kHz, at which lags are sought first.
const COARSE_MAX: usize = FRAME_MS_MAX * 4;
/// Samples of a frame at 48 kHz.
const FRAME_SAMPLES_MAX: usize = FRAME_MS_MAX * 48;
/// The overlap in quarters of a millisecond: what there is room for, within these.
const OVERLAP_QUARTERS_MIN: usize = 10;
const OVERLAP_QUARTERS_MAX: usize = 28;
/// Mean square of what counts as silence: −60 dB of full scale.
const SILENCE: f32 = 1_024.0;
/// Likeness from which two stretches of a voice join unheard; 1 is equality, 0 chance.
const LIKE: f32 = 0.85;
/// Likeness that is asked of background noise, in which any two stretches sound alike.
const LIKE_NOISE: f32 = 0.2;
/// Background is what is at most 6 dB louder than the quietest of late.
const BACKGROUND: f32 = 4.0;
/// The quietest is forgotten by so much for each frame: 6 dB in about half a second.
const FORGETTING: f32 = 1.06;
/// Frames that are heard before the quietest of them counts as background.
const LEARNING: u32 = 25;

/// Shortens and lengthens frames of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Samples in a quarter of a millisecond.
    quarter: usize,
    /// Mean square of the quietest frame of late.
    floor: f32,
    heard: u32,
}

/// Where a frame resembles itself: `overlap` samples from `place` on, and those one `period` later.
#[derive(Clone, Copy, Debug)]
struct Likeness {
    place: usize,
    period: usize,
    overlap: usize,
}

impl Stretch {
    /// For PCM of `hz` samples a second (8,000 to 48,000, a multiple of 4,000).
    pub fn new(hz: u32) -> Stretch {
        Stretch { quarter: (hz / 4_000).max(1) as usize, floor: f32::MAX, heard: 0 }
    }

    /// Takes up to `most` samples out of `frame`; gives how many. What is left of it is at its front.
    /// Zero where it would be heard, and for a frame under 5 ms. 20 ms serve every voice; in shorter
    /// frames low ones are refused.
    pub fn shorten(&mut self, frame: &mut [i16], most: usize) -> usize {
        let Some(found) = self.find(frame, most) else { return 0 };
        let Likeness { place, period, overlap } = found;
        for index in place..place + overlap {
            let (old, new) = (frame[index], frame[index + period]);
            frame[index] = mixed(old, new, index - place, overlap);
        }
        frame.copy_within(place + overlap + period.., place + overlap);
        period
    }

    /// Makes the frame that is the first `count` samples of `buffer` longer by up to `most` samples, as
    /// far as the buffer has room; gives by how many. Zero as for [`Stretch::shorten`].
    pub fn lengthen(&mut self, buffer: &mut [i16], count: usize, most: usize) -> usize {
        let count = count.min(buffer.len());
        let most = most.min(buffer.len() - count);
        let Some(found) = self.find(&buffer[..count], most) else { return 0 };
        let Likeness { place, period, overlap } = found;
        let again = place + period;
        buffer.copy_within(place + overlap..count, again + overlap);
        // From the end, since what is read may be overwritten further on.
        for index in (0..overlap).rev() {
            let (old, new) = (buffer[again + index], buffer[place + index]);
            buffer[again + index] = mixed(old, new, index, overlap);
        }
        period
    }

    fn find(&mut self, frame: &[i16], most: usize) -> Option<Likeness> {
        let shortest = (LAG_QUARTERS_MIN + OVERLAP_QUARTERS_MIN) * self.quarter;
        let frame = &frame[..frame.len().min(FRAME_MS_MAX * 4 * self.quarter)];
        if frame.len() < shortest || most == 0 {
            return None;
        }
        let level = mean_square(frame);
        self.floor = (self.floor * FORGETTING).min(level.max(1.0));
        self.heard = self.heard.saturating_add(1);
        if level <= SILENCE {
            let overlap = OVERLAP_QUARTERS_MIN * self.quarter;
            let period = most.min(frame.len() / 2);
            return Some(Likeness { place: 0, period, overlap: overlap.min(frame.len() - period) });
        }
        let background = self.heard >= LEARNING && level <= self.floor * BACKGROUND;
        let wanted = if background { LIKE_NOISE } else { LIKE };
        let period = self.period(frame, most)?;
        self.place(frame, period, wanted)
    }

    /// The lag at which the frame resembles itself most: sought at 4 kHz, then sample by sample.
    fn period(&self, frame: &[i16], most: usize) -> Option<usize> {
        let mut coarse = [0.0; COARSE_MAX];
        let sums = frame.chunks_exact(self.quarter);
        let count = sums.len().min(COARSE_MAX);
        for (place, quarter) in coarse.iter_mut().zip(sums) {
            *place = quarter.iter().map(|sample| f32::from(*sample)).sum();
        }
        let room = (frame.len() / self.quarter).checked_sub(OVERLAP_QUARTERS_MIN)?;
        let longest = LAG_QUARTERS_MAX.min(room).min(most / self.quarter);
        let near = likest(&coarse[..count], LAG_QUARTERS_MIN..=longest)? * self.quarter;
        let mut fine = [0.0; FRAME_SAMPLES_MAX];
        for (place, sample) in fine.iter_mut().zip(frame) {
            *place = f32::from(*sample);
        }
        let least = (LAG_QUARTERS_MIN * self.quarter).max(near.saturating_sub(self.quarter - 1));
        likest(&fine[..frame.len()], least..=(near + self.quarter - 1).min(longest * self.quarter))
    }

    /// The place where the frame and itself one period later differ least; none where they differ too
    /// much even there.
    fn place(&self, frame: &[i16], period: usize, wanted: f32) -> Option<Likeness> {
        let pairs = frame.len().checked_sub(period)?;
        let overlap = pairs.min(OVERLAP_QUARTERS_MAX * self.quarter);
        let difference = |index: usize| {
            let step = i64::from(frame[index]) - i64::from(frame[index + period]);
            step * step
        };
        let mut sum: i64 = (0..overlap).map(difference).sum();
        let mut best = (sum, 0);
        for place in 1..=pairs - overlap {
            sum += difference(place + overlap - 1) - difference(place - 1);
            if sum < best.0 {
                best = (sum, place);
            }
        }
        let (least, place) = best;
        let energy = mean_square(&frame[place..place + overlap])
            + mean_square(&frame[place + period..place + period + overlap]);
        let difference = least as f32 / overlap.max(1) as f32;
        let like = difference <= SILENCE || 1.0 - difference / energy.max(1.0) >= wanted;
        like.then_some(Likeness { place, period, overlap })
    }
}

/// The lag at which `pcm` resembles itself most. Likeness is twice the product over the energies: a
/// step of level counts against it as much as another form does.
fn likest(pcm: &[f32], lags: std::ops::RangeInclusive<usize>) -> Option<usize> {
    let mut best = None;
    let mut most = f32::MIN;
    for lag in lags {
        let (Some(early), Some(late)) = (pcm.get(..pcm.len().saturating_sub(lag)), pcm.get(lag..))
        else {
            break;
        };
        let (mut product, mut energy) = ([0.0f32; 8], [0.0f32; 8]);
        for (early, late) in early.chunks(8).zip(late.chunks(8)) {
            for (lane, (one, other)) in early.iter().zip(late).enumerate() {
                product[lane] += one * other;
                energy[lane] += one * one + other * other;
            }
        }
        let likeness = product.iter().sum::<f32>() / energy.iter().sum::<f32>().max(1.0);
        if likeness > most {
            (best, most) = (Some(lag), likeness);
        }
    }
    best
}

fn mean_square(pcm: &[i16]) -> f32 {
    let sum: i64 = pcm.iter().map(|sample| i64::from(*sample) * i64::from(*sample)).sum();
    sum as f32 / pcm.len().max(1) as f32
}

/// From `old` to `new`, `index` of `count` samples on the way.
fn mixed(old: i16, new: i16, index: usize, count: usize) -> i16 {
    let (risen, whole) = (index as i32 + 1, count as i32 + 1);
    ((i32::from(old) * (whole - risen) + i32::from(new) * risen) / whole) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn sine(hz: f64, rate: u32, level: f64, count: usize) -> Vec<i16> {
        let step = TAU * hz / f64::from(rate);
        (0..count).map(|n| (level * (step * n as f64).sin()) as i16).collect()
    }

    fn noise(level: f64, count: usize) -> Vec<i16> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..count).map(|_| (level * 1.732 * next()) as i16).collect()
    }

    fn speech() -> Vec<i16> {
        let sentence = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
        sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    fn steepest(pcm: &[i16]) -> i32 {
        let steps = pcm.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs());
        steps.max().unwrap_or(0)
    }

    fn rms(pcm: &[i16]) -> f64 {
        f64::from(mean_square(pcm)).sqrt()
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Way {
        Shorter,
        Longer,
    }
    const WAYS: [Way; 2] = [Way::Shorter, Way::Longer];

    /// All frames of `pcm` the given way: what is heard, by how much each frame changed, frames tried.
    fn stretched(pcm: &[i16], hz: u32, frame_ms: usize, way: Way) -> (Vec<i16>, Vec<usize>) {
        let mut stretch = Stretch::new(hz);
        let frame = frame_ms * hz as usize / 1_000;
        let most = 15 * hz as usize / 1_000;
        let (mut out, mut changes) = (Vec::new(), Vec::new());
        for whole in pcm.chunks_exact(frame) {
            let mut buffer = whole.to_vec();
            let changed = match way {
                Way::Shorter => stretch.shorten(&mut buffer, most),
                Way::Longer => {
                    buffer.resize(frame + most, 0);
                    stretch.lengthen(&mut buffer, frame, most)
                }
            };
            let left = if way == Way::Shorter { frame - changed } else { frame + changed };
            out.extend_from_slice(&buffer[..left]);
            changes.push(changed);
        }
        (out, changes)
    }

    fn changed(changes: &[usize]) -> usize {
        changes.iter().filter(|change| **change > 0).count()
    }

    /// Hertz by the zero crossings upwards.
    fn pitch(pcm: &[i16], rate: u32) -> f64 {
        let up = pcm.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        up as f64 * f64::from(rate) / pcm.len() as f64
    }

    #[test]
    fn a_tone_of_any_rate_keeps_its_pitch_its_level_and_its_smoothness() {
        for rate in [8_000, 16_000, 24_000, 48_000] {
            for hz in [90.0, 133.0, 210.0, 350.0, 440.0, 1_004.0] {
                for way in WAYS {
                    let tone = sine(hz, rate, 9_000.0, 2 * rate as usize);
                    let (heard, changes) = stretched(&tone, rate, 20, way);
                    let label = format!("{hz} Hz at {rate}, {way:?}");
                    assert_eq!(changed(&changes), 100, "{label}");
                    assert!((pitch(&heard, rate) / hz - 1.0).abs() < 0.02, "{label}");
                    assert!((rms(&heard) / rms(&tone) - 1.0).abs() < 0.03, "{label}");
                    let steps = f64::from(steepest(&heard)) / f64::from(steepest(&tone));
                    assert!(steps < 1.15, "{label}: {steps}");
                }
            }
        }
    }

    #[test]
    fn the_length_changes_by_exactly_what_is_told_and_by_no_more_than_asked() {
        for way in WAYS {
            let speech = speech();
            let (heard, changes) = stretched(&speech, 16_000, 20, way);
            let sum: usize = changes.iter().sum();
            let wanted = match way {
                Way::Shorter => speech.len() - sum,
                Way::Longer => speech.len() + sum,
            };
            assert_eq!(heard.len(), wanted);
            assert!(changes.iter().all(|change| *change <= 240));
        }
        let mut stretch = Stretch::new(8_000);
        let tone = sine(160.0, 8_000, 9_000.0, 160);
        assert_eq!(stretch.shorten(&mut tone.clone(), 0), 0);
        assert_eq!(stretch.shorten(&mut tone.clone(), 42), 0, "a period has 50 samples");
        assert_eq!(stretch.shorten(&mut tone.clone(), 50), 50);
        assert_eq!(stretch.shorten(&mut [0; 160], 7), 7, "silence has no period");
        assert_eq!(stretch.shorten(&mut tone[..39].to_vec(), 120), 0, "too short a frame");
        assert_eq!(stretch.shorten(&mut [], 120), 0);
        let mut full = tone.clone();
        assert_eq!(stretch.lengthen(&mut full, 160, 120), 0, "no room");
        assert_eq!(full, tone);
    }

    #[test]
    fn most_of_a_sentence_can_be_stretched_and_no_join_is_steeper_than_speech_is() {
        let speech = speech();
        for way in WAYS {
            for (frame_ms, least) in [(10, 15), (20, 60), (30, 50)] {
                let frame = frame_ms * 16;
                let (heard, changes) = stretched(&speech, 16_000, frame_ms, way);
                let label = format!("{way:?}, {frame_ms} ms");
                assert!(changed(&changes) * 100 > changes.len() * least, "{label}: {changes:?}");
                assert!((rms(&heard) / rms(&speech) - 1.0).abs() < 0.1, "{label}");
                let mut start = 0;
                for (index, change) in changes.iter().enumerate() {
                    let end =
                        start + if way == Way::Shorter { frame - change } else { frame + change };
                    // With the sample before, so that the seam of two frames is looked at too.
                    let spoken = &speech[(index * frame).saturating_sub(1)..(index + 1) * frame];
                    let step = steepest(&heard[start.saturating_sub(1)..end]);
                    assert!(step <= steepest(spoken) + 60, "{label}, frame {index}: {step}");
                    start = end;
                }
            }
        }
    }

    #[test]
    fn a_pause_is_cut_to_the_sample_and_nothing_is_added_to_it() {
        for way in WAYS {
            let pause = noise(25.0, 8_000);
            let (heard, changes) = stretched(&pause, 8_000, 20, way);
            assert!(changes.iter().all(|change| *change == 80), "half a frame: {changes:?}");
            assert!(rms(&heard) < 26.0 && rms(&heard) > 20.0);
        }
    }

    #[test]
    fn the_noise_of_a_line_is_stretched_once_it_is_known_and_a_louder_one_is_not() {
        for (rate, way) in [(8_000, Way::Shorter), (8_000, Way::Longer), (16_000, Way::Shorter)] {
            let line = noise(300.0, 4 * rate as usize);
            let (heard, changes) = stretched(&line, rate, 20, way);
            assert_eq!(changed(&changes[..24]), 0, "nobody knows yet that it is the background");
            assert!(changed(&changes[24..]) > 60, "{rate}: {}", changed(&changes));
            assert!((rms(&heard) / rms(&line) - 1.0).abs() < 0.1);
            let hiss = noise(3_000.0, 320);
            let loud: Vec<i16> = [&line[..rate as usize], &hiss].concat();
            let (_, changes) = stretched(&loud, rate, 20, way);
            assert_eq!(changed(&changes[50..]), 0, "a consonant is no background");
        }
    }

    #[test]
    fn transients_are_refused() {
        let mut click = vec![0i16; 160];
        click[100..108].copy_from_slice(&[9_000, -14_000, 16_000, -9_000, 6_000, -3_000, 900, 0]);
        let mut onset = sine(170.0, 8_000, 12_000.0, 160);
        for (index, sample) in onset.iter_mut().enumerate() {
            let rise = (index as f64 / 12.0).exp() / (160.0f64 / 12.0).exp();
            *sample = (f64::from(*sample) * rise) as i16;
        }
        let hiss = noise(4_000.0, 160);
        for (label, frame) in [("onset", onset), ("hiss", hiss)] {
            let mut stretch = Stretch::new(8_000);
            let before = frame.clone();
            let mut buffer = frame;
            let shortened = stretch.shorten(&mut buffer, 120);
            let quiet = rms(&before[..shortened + 57]) < 200.0;
            assert!(shortened == 0 || quiet, "{label}: only what is quiet may go");
        }
        let mut stretch = Stretch::new(8_000);
        let taken = stretch.shorten(&mut click, 120);
        let loudest = click[..160 - taken].iter().map(|sample| sample.abs()).max();
        assert_eq!(loudest, Some(16_000), "what is cut is beside the click");
    }

    #[test]
    fn extremes_and_any_length_do_no_harm() {
        for rate in [8_000, 12_000, 16_000, 24_000, 48_000] {
            for count in (0..200).chain([960, 1_440, 1_441, 5_760]) {
                let square =
                    |n: usize| if (n / 35).is_multiple_of(2) { i16::MIN } else { i16::MAX };
                let frame: Vec<i16> = (0..count).map(square).collect();
                let mut stretch = Stretch::new(rate);
                for most in [1, 40, 700, usize::MAX] {
                    let taken = stretch.shorten(&mut frame.clone(), most);
                    assert!(taken <= count.min(most));
                    let mut buffer = [frame.clone(), vec![0; 300]].concat();
                    assert!(stretch.lengthen(&mut buffer, count, most) <= most.min(300));
                    assert!(stretch.lengthen(&mut buffer, usize::MAX, most) == 0);
                }
            }
        }
    }
}
