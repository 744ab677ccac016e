//! Follows sent audio through what came back of it. The daemon makes audio longer or shorter by a pitch
//! period (2.5 to 15 ms) when packets came late or a stream nearly ran dry; from there on everything
//! lies elsewhere, though all of it is there. So each piece of the sent audio is looked for near the place of
//! its neighbour, and a path through the places that were found says where each frame lies. The two
//! frames at a place where the path turns hold audio that was never spoken so: they are not
//! compared, but counted.
//!
//! A path is free only to turn, at a price, to places that whole pieces like best: it mends neither lost
//! frames nor noise. Pure functions over 16-bit PCM of one channel.

use super::measure::{ACTIVE_DBFS, Alignment, align_by, frame_snr_db, level_dbfs, matching_gain};

/// What a round trip did to audio.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quality {
    /// How far the first and the last frame of speech lag, in samples.
    pub delay: usize,
    pub last_delay: usize,
    /// Normalised correlation of what was sent with what came back, frame by frame where it lies: 1 is
    /// the same shape, 0 no likeness.
    pub correlation: f64,
    /// Mean over the frames of speech that are compared, in dB.
    pub segmental_snr_db: f64,
    pub sent_dbfs: f64,
    /// Level of what answers `sent`.
    pub returned_dbfs: f64,
    /// How often the audio was made longer or shorter by a millisecond or more.
    pub turns: usize,
    /// Share of the frames of speech that lie at a turn: from 0 to 1.
    pub turning: f64,
}

/// Finds `sent` in `returned`, for delays from 0 to `delay_max` samples at the loudest piece, and compares
/// the two. `None` when `sent` is silent or shorter than 20 ms, or nothing like it is found.
pub fn compare(sent: &[i16], returned: &[i16], hz: u32, delay_max: usize) -> Option<Quality> {
    let grid = Grid::of(hz);
    let found = pieces(sent, returned, grid, delay_max)?;
    let gain = gain_at(sent, returned, grid, &found);
    let path = path(sent, returned, grid, &found, gain);
    let answered = answered(returned, grid, &path);
    measured(sent, &answered, grid, &path)
}

/// Length of the pieces that are looked for, in frames; they begin half as far from each other.
const PIECE_FRAMES: usize = 16;
const HOP_FRAMES: usize = PIECE_FRAMES / 2;
/// How far from its neighbour a piece is looked for, in milliseconds.
const REACH_MS: usize = 60;
/// A piece that is less like what is found for it says nothing of where the next one lies.
const LIKE: f64 = 0.4;
/// What a turn of the path costs: it must leave so much less noise in the frames after it, in dB.
const TURN_DB: f64 = 40.0;

/// Lengths at a rate, in samples.
#[derive(Clone, Copy)]
struct Grid {
    /// 20 ms.
    frame: usize,
    /// 1 ms: what the place of a piece may waver without a turn.
    waver: usize,
    reach: usize,
    /// A quarter of a millisecond, the steps in which pieces are sought at first.
    step: usize,
}

impl Grid {
    fn of(hz: u32) -> Grid {
        let millisecond = (hz as usize / 1_000).max(1);
        Grid {
            frame: millisecond * 20,
            waver: millisecond,
            reach: millisecond * REACH_MS,
            step: (hz as usize / 4_000).max(1),
        }
    }
}

/// A piece that was found: where it begins in what was sent, and how far it lags.
struct Piece {
    begin: usize,
    place: Alignment,
}

/// Where each piece with speech lies, from the loudest one in both directions.
fn pieces(sent: &[i16], returned: &[i16], grid: Grid, delay_max: usize) -> Option<Vec<Piece>> {
    let whole = sent.len() / grid.frame;
    let begins: Vec<usize> = (0..whole)
        .step_by(HOP_FRAMES)
        .map(|frame| frame * grid.frame)
        .filter(|begin| level_dbfs(piece(sent, grid, *begin)) > ACTIVE_DBFS)
        .collect();
    let level = |index: &usize| level_dbfs(piece(sent, grid, begins[*index]));
    let loudest = (0..begins.len()).max_by(|a, b| level(a).total_cmp(&level(b)))?;
    let anchor = align_by(
        grid.step,
        piece(sent, grid, begins[loudest]),
        returned.get(begins[loudest]..)?,
        delay_max,
    )?;
    let mut found = vec![Piece { begin: begins[loudest], place: anchor }];
    let ways: [&mut dyn Iterator<Item = &usize>; 2] =
        [&mut begins[loudest + 1..].iter(), &mut begins[..loudest].iter().rev()];
    for way in ways {
        let mut near = anchor.delay;
        for begin in way {
            let Some(place) = near_by(sent, returned, grid, *begin, near) else { continue };
            if place.correlation > LIKE {
                near = place.delay;
            }
            found.push(Piece { begin: *begin, place });
        }
    }
    Some(found)
}

fn piece(sent: &[i16], grid: Grid, begin: usize) -> &[i16] {
    &sent[begin..sent.len().min(begin + PIECE_FRAMES * grid.frame)]
}

fn near_by(
    sent: &[i16],
    returned: &[i16],
    grid: Grid,
    begin: usize,
    near: usize,
) -> Option<Alignment> {
    let least = near.saturating_sub(grid.reach);
    let place = align_by(
        grid.step,
        piece(sent, grid, begin),
        returned.get(begin + least..)?,
        near + grid.reach - least,
    )?;
    Some(Alignment { delay: least + place.delay, ..place })
}

/// The gain that matches all pieces best, each where it was found.
fn gain_at(sent: &[i16], returned: &[i16], grid: Grid, found: &[Piece]) -> f64 {
    let (mut wanted, mut heard) = (Vec::new(), Vec::new());
    for Piece { begin, place } in found {
        let said = piece(sent, grid, *begin);
        let Some(back) = returned.get(begin + place.delay..) else { continue };
        let len = said.len().min(back.len());
        wanted.extend_from_slice(&said[..len]);
        heard.extend_from_slice(&back[..len]);
    }
    matching_gain(&wanted, &heard)
}

/// The lag of each frame of `sent`: the sequence of the lags that were found which leaves the least noise,
/// each turn at its price.
fn path(sent: &[i16], returned: &[i16], grid: Grid, found: &[Piece], gain: f64) -> Vec<usize> {
    let mut lags: Vec<usize> = found.iter().map(|piece| piece.place.delay).collect();
    lags.sort_unstable();
    lags.dedup();
    let mut score = vec![0.0; lags.len()];
    // For each frame and lag the index of the lag before it.
    let mut before: Vec<Vec<usize>> = Vec::new();
    for (number, said) in sent.chunks_exact(grid.frame).enumerate() {
        let best = greatest(&score);
        let active = level_dbfs(said) > ACTIVE_DBFS;
        let (mut next, mut came) = (Vec::new(), Vec::new());
        for (index, lag) in lags.iter().enumerate() {
            let turns = score[best] - TURN_DB > score[index];
            let from = if turns { best } else { index };
            let cost = if turns { TURN_DB } else { 0.0 };
            let heard = frame_at(returned, number * grid.frame + lag, grid.frame);
            let snr = if active { frame_snr_db(said, heard, gain) } else { 0.0 };
            next.push(score[from] - cost + snr);
            came.push(from);
        }
        score = next;
        before.push(came);
    }
    let mut index = greatest(&score);
    let mut path: Vec<usize> = Vec::with_capacity(before.len());
    for came in before.iter().rev() {
        path.push(lags[index]);
        index = came[index];
    }
    path.reverse();
    path
}

fn greatest(score: &[f64]) -> usize {
    (0..score.len()).max_by(|a, b| score[*a].total_cmp(&score[*b])).unwrap_or(0)
}

/// As many samples of a frame as are there.
fn frame_at(returned: &[i16], begin: usize, frame: usize) -> &[i16] {
    let end = returned.len().min(begin + frame);
    returned.get(begin..end).unwrap_or_default()
}

/// What came back, put together frame by frame along the path; silence where nothing came.
fn answered(returned: &[i16], grid: Grid, path: &[usize]) -> Vec<i16> {
    let mut answered = Vec::with_capacity(path.len() * grid.frame);
    for (number, lag) in path.iter().enumerate() {
        answered.extend_from_slice(frame_at(returned, number * grid.frame + lag, grid.frame));
        answered.resize((number + 1) * grid.frame, 0);
    }
    answered
}

/// What was compared so far.
#[derive(Default)]
struct Compared {
    said: Vec<i16>,
    heard: Vec<i16>,
    /// Frames of speech that lie at a turn.
    turning: usize,
}

fn measured(sent: &[i16], answered: &[i16], grid: Grid, path: &[usize]) -> Option<Quality> {
    let turns: Vec<usize> =
        (1..path.len()).filter(|at| path[*at].abs_diff(path[at - 1]) >= grid.waver).collect();
    let active: Vec<usize> = (0..path.len())
        .filter(|number| level_dbfs(&sent[number * grid.frame..][..grid.frame]) > ACTIVE_DBFS)
        .collect();
    let mut compared = Compared::default();
    for number in &active {
        if turns.iter().any(|turn| turn == number || *turn == number + 1) {
            compared.turning += 1;
            continue;
        }
        let place = number * grid.frame..(number + 1) * grid.frame;
        compared.said.extend_from_slice(&sent[place.clone()]);
        compared.heard.extend_from_slice(&answered[place]);
    }
    let Compared { said, heard, turning } = &compared;
    let gain = matching_gain(said, heard);
    let frames = said.chunks_exact(grid.frame).zip(heard.chunks_exact(grid.frame));
    let snrs: Vec<f64> = frames.map(|(said, heard)| frame_snr_db(said, heard, gain)).collect();
    let likeness = (matching_gain(heard, said) * gain).max(0.0).sqrt();
    Some(Quality {
        delay: path[*active.first()?],
        last_delay: path[*active.last()?],
        correlation: if gain < 0.0 { -likeness } else { likeness },
        segmental_snr_db: if snrs.is_empty() {
            return None;
        } else {
            snrs.iter().sum::<f64>() / snrs.len() as f64
        },
        sent_dbfs: level_dbfs(said),
        returned_dbfs: level_dbfs(heard),
        turns: turns.len(),
        turning: *turning as f64 / active.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::super::speech::sentence;
    use super::*;
    use std::f64::consts::TAU;

    const HZ: u32 = 16_000;
    const MS: usize = 16;

    fn sine(samples: usize) -> Vec<i16> {
        (0..samples).map(|n| (9_000.0 * (TAU * n as f64 / 40.0).sin()).round() as i16).collect()
    }

    /// The sentence after a delay, with a little noise, and silence behind it.
    fn returned(delay_ms: usize) -> Vec<i16> {
        let mut state = 1u32;
        let mut returned = vec![0; delay_ms * MS];
        returned.extend(sentence(HZ).iter().map(|sample| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            sample / 2 + (state >> 16) as i16 / 500
        }));
        returned.extend([0; 500 * MS]);
        returned
    }

    fn longer(pcm: &[i16], at_ms: usize, by_ms: usize) -> Vec<i16> {
        [&pcm[..at_ms * MS], &pcm[(at_ms - by_ms) * MS..]].concat()
    }

    fn shorter(pcm: &[i16], at_ms: usize, by_ms: usize) -> Vec<i16> {
        [&pcm[..at_ms * MS], &pcm[(at_ms + by_ms) * MS..]].concat()
    }

    fn compared(returned: &[i16]) -> Quality {
        compare(&sentence(HZ), returned, HZ, 1_500 * MS).expect("found")
    }

    #[test]
    fn audio_that_only_lags_is_compared_whole() {
        for delay in [0, 40, 700] {
            let quality = compared(&returned(delay));
            assert_eq!((quality.delay, quality.last_delay), (delay * MS, delay * MS));
            assert_eq!((quality.turns, quality.turning), (0, 0.0));
            assert!(quality.segmental_snr_db > 25.0 && quality.correlation > 0.999, "{quality:?}");
        }
    }

    #[test]
    fn audio_that_was_stretched_once_in_the_middle_is_followed() {
        let straight = compared(&returned(60));
        for at in [700, 1_640, 3_000] {
            for by in [3, 15, 50] {
                for (sign, stretched) in
                    [(1, longer(&returned(60), at, by)), (-1, shorter(&returned(60), at, by))]
                {
                    let quality = compared(&stretched);
                    let by = sign * (by * MS) as i64;
                    assert_eq!(
                        quality.last_delay as i64 - quality.delay as i64,
                        by,
                        "{at} {quality:?}"
                    );
                    assert_eq!(quality.turns, 1, "{at} {by} {quality:?}");
                    let cost = straight.segmental_snr_db - quality.segmental_snr_db;
                    // What was cut out or put in is missing from at most two frames beside those left out.
                    assert!(cost < 0.02 * straight.segmental_snr_db, "{at} {by} {quality:?}");
                    assert!(quality.turning < 0.02, "{quality:?}");
                }
            }
        }
    }

    #[test]
    fn audio_that_was_stretched_again_and_again_is_followed() {
        let mut stretched = returned(60);
        for at in [800, 1_300, 1_900, 2_600, 3_100] {
            stretched = longer(&stretched, at, 9);
        }
        let quality = compared(&stretched);
        assert_eq!(quality.last_delay - quality.delay, 45 * MS, "{quality:?}");
        assert_eq!(quality.turns, 5, "{quality:?}");
        assert!(quality.correlation > 0.99 && quality.turning < 0.07, "{quality:?}");
    }

    #[test]
    fn noise_and_loss_make_no_turns_and_are_not_mended() {
        let mut lossy = returned(60);
        for frame in lossy.chunks_exact_mut(20 * MS).skip(7).step_by(10) {
            frame.fill(0);
        }
        let (quality, whole) = (compared(&lossy), compared(&returned(60)));
        assert_eq!(quality.turns, 0, "{quality:?}");
        assert!(quality.segmental_snr_db < 0.93 * whole.segmental_snr_db, "{quality:?}");
        assert!(quality.correlation < 0.98, "{quality:?}");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let sent = sentence(HZ);
        assert_eq!(compare(&sent, &[0; 80_000], HZ, 16_000), None);
        assert_eq!(compare(&[0; 16_000], &sent, HZ, 1_600), None);
        assert_eq!(compare(&sent, &[], HZ, 1_600), None);
        assert_eq!(compare(&[], &sent, HZ, 1_600), None);
        let other = compare(&sent, &sine(sent.len()), HZ, 1_600).expect("sound");
        assert!(other.correlation < 0.3 && other.segmental_snr_db < 1.0, "{other:?}");
    }

    #[test]
    fn pauses_do_not_count() {
        let mut sent = sine(6_400);
        sent.extend([0; 6_400]);
        let mut returned = sent.clone();
        returned[6_400..].fill(1_000);
        let quality = compare(&sent, &returned, HZ, 0).expect("found");
        assert!(quality.segmental_snr_db > 34.0, "{quality:?}");
    }

    #[test]
    fn g722_is_measured_at_its_known_quality() {
        let sent = sentence(HZ);
        let (mut bytes, mut returned) = (vec![0; sent.len() / 2], vec![0; sent.len()]);
        crate::codec::g722::Encoder::default().encode(&sent, &mut bytes).unwrap();
        crate::codec::g722::Decoder::default().decode(&bytes, &mut returned).unwrap();
        let quality = compare(&sent, &returned, HZ, 1_600).expect("found");
        assert_eq!((quality.delay, quality.turns), (22, 0));
        assert!((25.0..31.0).contains(&quality.segmental_snr_db), "{quality:?}");
        assert!((quality.returned_dbfs - quality.sent_dbfs).abs() < 0.3, "{quality:?}");
    }
}
