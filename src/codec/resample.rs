//! Sample rates into each other: 8, 16, 24 and 48 kHz, for a leg whose codec has another rate than
//! the agent's stream. One linear-phase low-pass filter for each ratio, a windowed sinc in polyphase
//! form (Kaiser's window, 70 dB), in integers: the same samples come out however they are cut.
//!
//! | of the lower rate's Nyquist frequency | gain |
//! |---|---|
//! | up to 0.9 | flat within 0.1 dB |
//! | 1.0 | −6 dB |
//! | from 1.1 | below −60 dB |
//!
//! What lies between 1.0 and 1.1 folds to between 0.9 and 1.0: above 3,600 Hz at 8 kHz, where a
//! telephone line ends. A narrower edge would cost twice the delay and the time. It counts exactly: N
//! samples in give N times the ratio out, for ever. Filters are made once for the process; a
//! resampler allocates when it is made, and never later. It knows no codec.

use super::CodecFault;
use std::sync::OnceLock;
use std::time::Duration;

/// Rates that are resampled, in hertz.
pub const RATES_HZ: [u32; 4] = [8_000, 16_000, 24_000, 48_000];

/// Samples out for one sample in, at most: 8 to 48 kHz.
pub const GROWTH_MAX: usize = 6;
/// The filter's length and delay, in samples of the lower rate.
const LENGTH: usize = 48;
const DELAY: usize = LENGTH / 2;
/// Taps of the longest phase: 48 to 8 kHz in one.
const TAPS_MAX: usize = LENGTH * GROWTH_MAX;
/// Samples in that are filtered together.
const BLOCK: usize = 160;
/// Taps that are multiplied together.
const LANES: usize = 8;
/// The shortest row of coefficients: [`LENGTH`] and zeros. Of 48 taps the compiler makes a line of
/// code without the processor's sums of products, of 56 a loop with them, in half the time.
const TAPS_MIN: usize = 56;
/// Bits behind the point of a coefficient. The absolute values of a phase add up to less than four,
/// so that the sum of its products with 16-bit samples fits into 32 bits.
const SCALE_BITS: u32 = 14;
/// Shape of Kaiser's window for 70 dB.
const KAISER_BETA: f64 = 0.1102 * (70.0 - 8.7);

/// One stream of PCM from one rate to another.
///
/// A continuous stream comes out [`Resampler::delay`] later. A stream of spurts comes out with no
/// delay before it, while its last samples lie in the filter until [`Resampler::finish`].
#[derive(Debug)]
pub struct Resampler {
    filter: &'static Filter,
    /// The newest samples that the next output may still need, oldest first.
    history: Box<[i16]>,
    /// Where the next output lies after the next input, in steps of the common multiple of both
    /// rates: `filter.up` steps to a sample in, `filter.down` to a sample out.
    next: usize,
    /// Where the first output of a stream lies.
    first: usize,
}

/// The coefficients of one ratio.
#[derive(Debug)]
struct Filter {
    up: usize,
    down: usize,
    /// Taps of each phase.
    taps: usize,
    /// `up` phases of `taps` coefficients, for samples from the oldest to the newest.
    phases: Box<[i16]>,
    /// Which sample of its window the first phase gives as it is: a filter whose edge is the lower
    /// Nyquist frequency puts samples between those that are there, which stay.
    copied: Option<usize>,
    /// How two samples become one.
    half: Option<HalfBand>,
    /// The filter's middle in steps: its delay.
    center: usize,
    delay: Duration,
}

impl Resampler {
    /// For a stream without end.
    ///
    /// # Errors
    /// One of the rates is none of [`RATES_HZ`].
    pub fn continuous(from_hz: u32, to_hz: u32) -> Result<Resampler, CodecFault> {
        let filter = filter(from_hz, to_hz)?;
        Ok(Resampler::starting_at(filter, 0))
    }

    /// For a stream of spurts: each is given in pieces, then finished.
    ///
    /// # Errors
    /// One of the rates is none of [`RATES_HZ`].
    pub fn of_spurts(from_hz: u32, to_hz: u32) -> Result<Resampler, CodecFault> {
        let filter = filter(from_hz, to_hz)?;
        Ok(Resampler::starting_at(filter, filter.center))
    }

    fn starting_at(filter: &'static Filter, first: usize) -> Resampler {
        let history = vec![0; filter.taps - 1].into_boxed_slice();
        Resampler { filter, history, next: first, first }
    }

    /// How much later a continuous stream comes out: 24 samples of the lower rate, 3 ms at 8 kHz.
    pub fn delay(&self) -> Duration {
        if self.first == 0 { self.filter.delay } else { Duration::ZERO }
    }

    /// How many samples the next `count` in will give.
    pub fn output_len(&self, count: usize) -> usize {
        let Filter { up, down, .. } = *self.filter;
        (count * up).saturating_sub(self.next).div_ceil(down)
    }

    /// Takes all of `pcm`; gives how many samples were written to the front of `out`.
    ///
    /// # Errors
    /// `out` is shorter than [`Resampler::output_len`] says; nothing was taken.
    pub fn resample(&mut self, pcm: &[i16], out: &mut [i16]) -> Result<usize, CodecFault> {
        if out.len() < self.output_len(pcm.len()) {
            return Err(CodecFault::OutputTooSmall);
        }
        let mut written = 0;
        for block in pcm.chunks(BLOCK) {
            written += self.filter_block(block, &mut out[written..]);
        }
        Ok(written)
    }

    /// The end of a spurt: gives what still lies in the filter, at most
    /// [`Resampler::FINISH_MAX`] samples, and begins anew.
    pub fn finish(&mut self, out: &mut [i16]) -> usize {
        let Filter { up, center, .. } = *self.filter;
        let count = self.held_len();
        let mut tail = [0; Resampler::FINISH_MAX + GROWTH_MAX];
        if count > 0 {
            // Never refused: `tail` takes what the whole delay of any ratio gives.
            let _ = self.resample(&[0; LENGTH * GROWTH_MAX][..center.div_ceil(up)], &mut tail);
        }
        let count = count.min(out.len());
        out[..count].copy_from_slice(&tail[..count]);
        self.reset();
        count
    }

    /// Samples that [`Resampler::finish`] gives at most: 3 ms at 48 kHz.
    pub const FINISH_MAX: usize = DELAY * GROWTH_MAX;

    /// Samples that [`Resampler::finish`] would give now.
    pub fn held_len(&self) -> usize {
        self.first.saturating_sub(self.next).div_ceil(self.filter.down)
    }

    /// Whether samples of a spurt lie in the filter.
    pub fn holds(&self) -> bool {
        self.held_len() > 0
    }

    /// Forgets what was taken: a stream begins.
    pub fn reset(&mut self) {
        self.history.fill(0);
        self.next = self.first;
    }

    fn filter_block(&mut self, block: &[i16], out: &mut [i16]) -> usize {
        let Filter { up, down, .. } = *self.filter;
        let kept = self.history.len();
        let mut line = [0; TAPS_MAX + BLOCK];
        line[..kept].copy_from_slice(&self.history);
        line[kept..kept + block.len()].copy_from_slice(block);
        let written = self.output_len(block.len());
        self.filter.run(self.next, &line[..kept + block.len()], &mut out[..written]);
        self.next = self.next + written * down - block.len() * up;
        self.history.copy_from_slice(&line[block.len()..block.len() + kept]);
        written
    }
}

impl Filter {
    fn new(from_hz: u32, to_hz: u32) -> Filter {
        let common = greatest_common_divisor(from_hz, to_hz);
        let (up, down) = ((to_hz / common) as usize, (from_hz / common) as usize);
        let ratio = up.max(down);
        let taps = match (up, down) {
            (1, 2) => 2 * TAPS_MIN,
            _ => (LENGTH * ratio / up).max(TAPS_MIN),
        };
        let center = DELAY * ratio;
        let mut phases = vec![0; up * taps].into_boxed_slice();
        for (phase, row) in phases.chunks_exact_mut(taps).enumerate() {
            quantise(row, |age| prototype(phase + age * up, ratio));
        }
        let lower_hz = from_hz.min(to_hz);
        let delay = Duration::from_secs(DELAY as u64) / lower_hz;
        let one = |row: &[i16]| row.iter().position(|coefficient| *coefficient == 1 << SCALE_BITS);
        let copied = phases.get(..taps).and_then(one);
        let half = ((up, down) == (1, 2)).then(|| HalfBand::new(&phases));
        Filter { up, down, taps, phases, copied, half, center, delay }
    }

    /// Fills `out`, whose first sample lies at step `next` of `line`'s. The samples of a phase, which
    /// all have the same coefficients, are made one after the other.
    fn run(&self, next: usize, line: &[i16], out: &mut [i16]) {
        if let Some(half) = &self.half {
            return half.run(line.get(next..).unwrap_or(&[]), out);
        }
        for turn in 0..self.up.min(out.len()) {
            let step = next + turn * self.down;
            let (phase, line) = (step % self.up, line.get(step / self.up..).unwrap_or(&[]));
            let row = &self.phases[phase * self.taps..][..self.taps];
            let strides = Strides { line, down: self.down, out: &mut out[turn..], up: self.up };
            match (self.copied.filter(|_| phase == 0), self.taps) {
                (Some(place), _) => strides.copy(place),
                (None, TAPS_MIN) => strides.filter::<TAPS_MIN>(row),
                (None, 72) => strides.filter::<72>(row),
                (None, 144) => strides.filter::<144>(row),
                (None, _) => strides.filter::<TAPS_MAX>(row),
            }
        }
    }
}

/// The samples out of one phase: every `up`-th of `out`, from windows of `line` that lie `down` apart.
struct Strides<'a> {
    line: &'a [i16],
    down: usize,
    out: &'a mut [i16],
    up: usize,
}

impl Strides<'_> {
    fn copy(self, place: usize) {
        let samples = self.line.iter().skip(place).step_by(self.down);
        for (out, sample) in self.out.iter_mut().step_by(self.up).zip(samples) {
            *out = *sample;
        }
    }

    fn filter<const N: usize>(self, row: &[i16]) {
        let Some(row) = row.first_chunk::<N>() else { return };
        let windows = self.line.array_windows::<N>().step_by(self.down);
        for (out, window) in self.out.iter_mut().step_by(self.up).zip(windows) {
            *out = rounded(product(window, row));
        }
    }
}

/// A filter of 2:1: of its coefficients every second is zero, but for the middle one.
#[derive(Debug)]
struct HalfBand {
    middle: i32,
    /// The others, at the first, third, … of a window.
    sides: [i16; TAPS_MIN],
}

impl HalfBand {
    /// Where the middle lies in a window: behind it are as many samples as the filter delays.
    const MIDDLE: usize = 2 * TAPS_MIN - 1 - 2 * DELAY;

    /// From all `2 * TAPS_MIN` coefficients.
    fn new(row: &[i16]) -> HalfBand {
        let mut sides = [0; TAPS_MIN];
        for (side, pair) in sides.iter_mut().zip(row.as_chunks::<2>().0) {
            *side = pair[0];
        }
        HalfBand { middle: row.get(HalfBand::MIDDLE).copied().unwrap_or(0).into(), sides }
    }

    /// Fills `out` with a sample for every second window of `line`.
    fn run(&self, line: &[i16], out: &mut [i16]) {
        let mut evens = [0; TAPS_MIN + BLOCK / 2];
        let mut odds = [0; TAPS_MIN + BLOCK / 2];
        for ((even, odd), pair) in evens.iter_mut().zip(&mut odds).zip(line.as_chunks::<2>().0) {
            (*even, *odd) = (pair[0], pair[1]);
        }
        if let (Some(even), [last]) = (evens.get_mut(line.len() / 2), line.as_chunks::<2>().1) {
            *even = *last;
        }
        let (windows, middles) = (evens.array_windows::<TAPS_MIN>(), &odds[HalfBand::MIDDLE / 2..]);
        for ((place, window), middle) in out.iter_mut().zip(windows).zip(middles) {
            let sides = product(window, &self.sides);
            *place = rounded(sides.wrapping_add(self.middle * i32::from(*middle)));
        }
    }
}

#[inline]
fn product<const N: usize>(line: &[i16; N], row: &[i16; N]) -> i32 {
    let mut sums = [0i32; LANES];
    let pieces = line.as_chunks::<LANES>().0.iter().zip(row.as_chunks::<LANES>().0);
    for (samples, coefficients) in pieces {
        for ((sum, sample), coefficient) in sums.iter_mut().zip(samples).zip(coefficients) {
            // Never wraps, by the scale; a check would keep the processor from doing several at once.
            *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(i32::from(*coefficient)));
        }
    }
    sums.into_iter().fold(0, i32::wrapping_add)
}

#[inline]
fn rounded(sum: i32) -> i16 {
    let rounded = sum.saturating_add(1 << (SCALE_BITS - 1)) >> SCALE_BITS;
    rounded.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// The filter's value `step` steps after its begin; one step is a sample of the common multiple.
fn prototype(step: usize, ratio: usize) -> f64 {
    let middle = (DELAY * ratio) as f64;
    let from_middle = step as f64 - middle;
    if from_middle.abs() >= middle {
        return 0.0;
    }
    let sinc = match step == DELAY * ratio {
        true => 1.0,
        false => {
            let angle = std::f64::consts::PI * from_middle / ratio as f64;
            angle.sin() / angle
        }
    };
    let place = from_middle / middle;
    sinc * bessel_i0(KAISER_BETA * (1.0 - place * place).sqrt()) / bessel_i0(KAISER_BETA)
}

/// Writes one phase, `value(age)` for a sample of this age, as integers whose sum is exactly one: a
/// level that does not change passes every phase alike, and makes no tone of the phases' own.
fn quantise(row: &mut [i16], value: impl Fn(usize) -> f64) {
    let one = f64::from(1 << SCALE_BITS);
    let sum: f64 = (0..row.len()).map(&value).sum();
    for (age, coefficient) in row.iter_mut().rev().enumerate() {
        *coefficient = (value(age) / sum * one).round() as i16;
    }
    let excess =
        row.iter().map(|coefficient| i32::from(*coefficient)).sum::<i32>() - (1 << SCALE_BITS);
    if let Some(largest) = row.iter_mut().max_by_key(|coefficient| coefficient.unsigned_abs()) {
        *largest -= excess as i16;
    }
}

/// The modified Bessel function of the first kind and order zero, by its series.
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The filter of a pair of rates, made when it is first asked for.
fn filter(from_hz: u32, to_hz: u32) -> Result<&'static Filter, CodecFault> {
    static FILTERS: [OnceLock<Filter>; RATES_HZ.len() * RATES_HZ.len()] =
        [const { OnceLock::new() }; RATES_HZ.len() * RATES_HZ.len()];
    let place = |hz| RATES_HZ.iter().position(|rate| *rate == hz);
    let unknown = |hz| CodecFault::UnknownRate { hz };
    let from = place(from_hz).ok_or(unknown(from_hz))?;
    let to = place(to_hz).ok_or(unknown(to_hz))?;
    let made = FILTERS.get(from * RATES_HZ.len() + to).ok_or(unknown(to_hz))?;
    Ok(made.get_or_init(|| Filter::new(from_hz, to_hz)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn pairs() -> impl Iterator<Item = (u32, u32)> {
        let from = RATES_HZ.into_iter();
        from.flat_map(|from| RATES_HZ.into_iter().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    fn tone(hz: f64, rate_hz: u32, samples: usize) -> Vec<i16> {
        let step = TAU * hz / f64::from(rate_hz);
        (0..samples).map(|n| (16_000.0 * (step * n as f64).sin()).round() as i16).collect()
    }

    fn run(resampler: &mut Resampler, pcm: &[i16]) -> Vec<i16> {
        let mut out = vec![0; resampler.output_len(pcm.len())];
        let count = resampler.resample(pcm, &mut out).expect("there is room");
        assert_eq!(count, out.len());
        out
    }

    /// Level of the part of `pcm` at `hz`, in dB of the tone that [`tone`] makes.
    fn level_db(pcm: &[i16], hz: f64, rate_hz: u32) -> f64 {
        let step = TAU * hz / f64::from(rate_hz);
        let (mut sine, mut cosine, mut weight) = (0.0, 0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            // A smooth window, so that a tone between the bins counts whole.
            let window = (TAU / 2.0 * (n as f64 + 0.5) / pcm.len() as f64).sin().powi(2);
            sine += window * f64::from(*sample) * (step * n as f64).sin();
            cosine += window * f64::from(*sample) * (step * n as f64).cos();
            weight += window;
        }
        20.0 * (2.0 * sine.hypot(cosine) / weight / 16_000.0).max(1e-9).log10()
    }

    fn all_db(pcm: &[i16]) -> f64 {
        let energy: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        20.0 * ((2.0 * energy / pcm.len() as f64).sqrt() / 16_000.0).max(1e-9).log10()
    }

    /// A tone of `part` of the lower Nyquist frequency through the ratio, settled.
    fn swept(from_hz: u32, to_hz: u32, part: f64) -> (f64, Vec<i16>) {
        let hz = part * f64::from(from_hz.min(to_hz)) / 2.0;
        let mut resampler = Resampler::continuous(from_hz, to_hz).expect("known rates");
        let out = run(&mut resampler, &tone(hz, from_hz, from_hz as usize / 4));
        let settled = out.len() / 8;
        (hz, out[settled..].to_vec())
    }

    #[test]
    fn tones_up_to_nine_tenths_of_the_edge_pass_flat_and_alone() {
        for (from_hz, to_hz) in pairs() {
            for part in [0.01, 0.1, 0.25, 0.5, 0.7, 0.8, 0.85, 0.9] {
                let (hz, out) = swept(from_hz, to_hz, part);
                let gain = level_db(&out, hz, to_hz);
                assert!(gain.abs() < 0.1, "{from_hz} to {to_hz}, {hz} Hz: {gain:.3} dB");
                let rest: Vec<i16> = without_tone(&out, hz, to_hz);
                let noise = all_db(&rest);
                assert!(noise < -60.0, "{from_hz} to {to_hz}, {hz} Hz: images {noise:.1} dB");
            }
        }
    }

    /// `pcm` less its part at `hz`, by least squares.
    fn without_tone(pcm: &[i16], hz: f64, rate_hz: u32) -> Vec<i16> {
        let step = TAU * hz / f64::from(rate_hz);
        let (mut ss, mut sc, mut cc, mut ys, mut yc) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            let (s, c) = (step * n as f64).sin_cos();
            let y = f64::from(*sample);
            (ss, sc, cc, ys, yc) = (ss + s * s, sc + s * c, cc + c * c, ys + y * s, yc + y * c);
        }
        let determinant = ss * cc - sc * sc;
        let (a, b) = ((ys * cc - yc * sc) / determinant, (yc * ss - ys * sc) / determinant);
        let fitted = |n: usize| a * (step * n as f64).sin() + b * (step * n as f64).cos();
        pcm.iter().enumerate().map(|(n, y)| (f64::from(*y) - fitted(n)).round() as i16).collect()
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_sixty_decibels_down() {
        for (from_hz, to_hz) in pairs().filter(|(from, to)| from > to) {
            for part in [1.1, 1.2, 1.45, 1.7, 1.95, 2.0, 2.3, 2.9, 4.1, 5.0, 5.8] {
                let nyquist_ratio = f64::from(from_hz) / f64::from(to_hz);
                if part >= nyquist_ratio {
                    continue;
                }
                let (hz, out) = swept(from_hz, to_hz, part);
                let left = all_db(&out);
                assert!(left < -60.0, "{from_hz} to {to_hz}, {hz} Hz: {left:.1} dB are left");
            }
        }
    }

    #[test]
    fn an_impulse_comes_out_after_the_delay_and_a_level_stays_as_it_is() {
        for (from_hz, to_hz) in pairs() {
            let mut resampler = Resampler::continuous(from_hz, to_hz).expect("known rates");
            let delay = resampler.delay();
            assert_eq!(delay, Duration::from_secs(24) / from_hz.min(to_hz));
            let mut impulse = vec![0; from_hz as usize / 50];
            let at = from_hz as usize / 500;
            impulse[at] = i16::MAX;
            let out = run(&mut resampler, &impulse);
            let peak = (0..out.len()).max_by_key(|n| out[*n]).expect("some");
            let expected = Duration::from_millis(2) + delay;
            let seconds = peak as f64 / f64::from(to_hz);
            let error = (seconds - expected.as_secs_f64()).abs() * f64::from(to_hz);
            assert!(error < 0.51, "{from_hz} to {to_hz}: {error} samples beside");
            for value in [i16::MAX, i16::MIN, 1_000, -1] {
                resampler.reset();
                let out = run(&mut resampler, &vec![value; from_hz as usize / 20]);
                let settled = &out[out.len() / 2..];
                assert!(settled.iter().all(|sample| *sample == value), "{from_hz} to {to_hz}");
            }
        }
    }

    #[test]
    fn the_loudest_noise_does_not_wrap() {
        for (from_hz, to_hz) in pairs() {
            let filter = filter(from_hz, to_hz).expect("known rates");
            for (phase, row) in filter.phases.chunks_exact(filter.taps).enumerate() {
                let sum: i64 = row.iter().map(|c| i64::from(c.unsigned_abs())).sum();
                assert!(sum * 32_768 + 8_192 < i64::from(i32::MAX), "{from_hz} to {to_hz}");
                // The worst input for this phase: full scale by the coefficients' signs.
                let worst: Vec<i16> =
                    row.iter().map(|c| if *c < 0 { i16::MIN } else { i16::MAX }).collect();
                let pieces = worst.as_chunks().0.iter().zip(row.as_chunks().0);
                let sums = pieces.map(|(line, row)| product::<LANES>(line, row));
                let sum = sums.fold(0, i32::wrapping_add);
                assert_eq!(rounded(sum), i16::MAX, "{from_hz} to {to_hz}, {phase}");
            }
        }
    }

    #[test]
    fn the_cut_of_the_pieces_changes_no_bit() {
        for (from_hz, to_hz) in pairs() {
            let speech = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
            let pcm = speech.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
            let pcm: Vec<i16> = pcm.take(8_000).collect();
            let mut resampler = Resampler::continuous(from_hz, to_hz).expect("known rates");
            let whole = run(&mut resampler, &pcm);
            for cuts in [&[1][..], &[160], &[7, 0, 331, 2], &[480, 1, 1]] {
                resampler.reset();
                let (mut rest, mut cut, mut out) = (&pcm[..], 0, Vec::new());
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(cuts[cut % cuts.len()].min(rest.len()));
                    out.extend(run(&mut resampler, piece));
                    (rest, cut) = (after, cut + 1);
                }
                assert_eq!(out, whole, "{from_hz} to {to_hz}, {cuts:?}");
            }
        }
    }

    #[test]
    fn ten_hours_of_frames_are_counted_to_the_sample() {
        for (from_hz, to_hz) in pairs() {
            let mut resampler = Resampler::continuous(from_hz, to_hz).expect("known rates");
            let frame = from_hz as usize / 50;
            let (mut given, mut taken) = (0u64, 0u64);
            // Frames of 20 ms with odd rests, by the count alone: the filter's place is all that
            // could drift.
            for number in 0..1_800_000usize {
                let count = frame - number % 3 + (number + 1) % 3;
                let out = resampler.output_len(count);
                let Filter { up, down, .. } = *resampler.filter;
                resampler.next = resampler.next + out * down - count * up;
                (given, taken) = (given + count as u64, taken + out as u64);
            }
            let exact = (given * u64::from(to_hz)).div_ceil(u64::from(from_hz));
            assert_eq!(taken, exact, "{from_hz} to {to_hz}");
            let before = resampler.next;
            let mut out = [0; 2_000];
            let count = resampler.resample(&[0; 333], &mut out).expect("there is room");
            let Filter { up, down, .. } = *resampler.filter;
            assert_eq!(before + count * down, resampler.next + 333 * up, "as it was counted");
        }
    }

    #[test]
    fn a_spurt_comes_out_whole_without_delay() {
        for (from_hz, to_hz) in pairs() {
            let mut resampler = Resampler::of_spurts(from_hz, to_hz).expect("known rates");
            assert!(resampler.delay().is_zero() && !resampler.holds());
            for _ in 0..2 {
                let mut pcm = tone(300.0, from_hz, from_hz as usize / 10);
                let mut out = Vec::new();
                for piece in pcm.chunks(from_hz as usize / 50) {
                    out.extend(run(&mut resampler, piece));
                }
                assert!(resampler.holds());
                let mut tail = [0; Resampler::FINISH_MAX];
                let count = resampler.finish(&mut tail);
                out.extend(&tail[..count]);
                assert_eq!(out.len(), to_hz as usize / 10, "{from_hz} to {to_hz}");
                pcm = tone(300.0, to_hz, to_hz as usize / 10);
                // The middle is the tone itself, at its own time.
                let edge = to_hz as usize / 100;
                let differ = |(a, b): (&i16, &i16)| (i32::from(*a) - i32::from(*b)).abs();
                let middle = edge..pcm.len() - edge;
                let worst = out[middle.clone()].iter().zip(&pcm[middle]).map(differ).max();
                assert!(worst < Some(40), "{from_hz} to {to_hz}: {worst:?}");
                assert!(!resampler.holds());
                assert_eq!(resampler.finish(&mut tail), 0, "nothing is left");
            }
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let fault = Resampler::continuous(44_100, 8_000).map(|_| ());
        assert_eq!(fault, Err(CodecFault::UnknownRate { hz: 44_100 }));
        let mut resampler = Resampler::continuous(8_000, 16_000).expect("known rates");
        let refused = resampler.resample(&[1; 160], &mut [0; 319]);
        assert_eq!(refused, Err(CodecFault::OutputTooSmall));
        assert_eq!(resampler.output_len(160), 320, "nothing was taken");
        assert_eq!(resampler.resample(&[], &mut []), Ok(0));
    }

    #[test]
    fn equal_rates_pass_every_bit() {
        let pcm = tone(3_000.0, 8_000, 400);
        let mut resampler = Resampler::continuous(8_000, 8_000).expect("known rates");
        let out = run(&mut resampler, &pcm);
        assert_eq!(out[24..], pcm[..376]);
    }
}
