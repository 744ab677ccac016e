//! The windows and rotations of the transforms (§3.1, §4.7), computed at compile time. Scales and
//! roundings are those that give the Recommendation's tables, number for number.

use super::FRAME;
use std::f64::consts::{FRAC_PI_2, PI};

/// Window of the encoder's transform, a rising quarter of a sine.
pub static ANALYSIS_WINDOW: [i16; FRAME] = window(18_318.0);

/// Window of the decoder's transform.
pub static SYNTHESIS_WINDOW: [i16; FRAME] = window(18_095.718_5);

/// Points of the smallest transforms, which are done by definition.
pub const CORE: usize = 10;

/// Cosines of a transform of `CORE` points, a row for each input.
pub type Core = [[i16; CORE]; CORE];

pub static ANALYSIS_CORE: Core = core(0.32 * 32_768.0);
pub static SYNTHESIS_CORE: Core = core(0.9 * 32_768.0);

/// The rotations that join two transforms of `HALF` points to one of twice as many: cosine and
/// sine of (n + ½) π / 4 `HALF`, and both with every second sign turned.
pub struct Rotations<const HALF: usize> {
    pub cosine: [i16; HALF],
    pub minus_sine: [i16; HALF],
    pub turned_cosine: [i16; HALF],
    pub turned_sine: [i16; HALF],
}

/// The rotations of all sizes of one direction.
pub struct RotationSet {
    pub of_10: Rotations<10>,
    pub of_20: Rotations<20>,
    pub of_40: Rotations<40>,
    pub of_80: Rotations<80>,
    pub of_160: Rotations<160>,
}

pub static ANALYSIS_ROTATIONS: RotationSet = rotation_set(29_828.12);
pub static SYNTHESIS_ROTATIONS: RotationSet = rotation_set(18_427.0);

const fn window(scale: f64) -> [i16; FRAME] {
    let mut window = [0; FRAME];
    let mut n = 0;
    while n < FRAME {
        window[n] = (scale * sine((n as f64 + 0.5) * FRAC_PI_2 / FRAME as f64)) as i16;
        n += 1;
    }
    window
}

const fn core(scale: f64) -> Core {
    let mut core = [[0; CORE]; CORE];
    let mut at = 0;
    while at < CORE * CORE {
        let (n, k) = (at / CORE, at % CORE);
        // The angle in fortieths of π, brought into the first quarter of the circle.
        let turn = (2 * n + 1) * (2 * k + 1) % 80;
        let half_turn = if turn > 40 { 80 - turn } else { turn };
        core[n][k] = if half_turn > 20 {
            -nearest(scale * cosine((40 - half_turn) as f64 * PI / 40.0))
        } else {
            nearest(scale * cosine(half_turn as f64 * PI / 40.0))
        };
        at += 1;
    }
    core
}

const fn rotation_set(scale: f64) -> RotationSet {
    RotationSet {
        of_10: rotations(scale),
        of_20: rotations(scale),
        of_40: rotations(scale),
        of_80: rotations(scale),
        of_160: rotations(scale),
    }
}

const fn rotations<const HALF: usize>(scale: f64) -> Rotations<HALF> {
    let mut set = Rotations {
        cosine: [0; HALF],
        minus_sine: [0; HALF],
        turned_cosine: [0; HALF],
        turned_sine: [0; HALF],
    };
    let mut n = 0;
    while n < HALF {
        let angle = (n as f64 + 0.5) * PI / (4 * HALF) as f64;
        let (cosine, sine) = (nearest(scale * cosine(angle)), nearest(scale * sine(angle)));
        let sign = if n % 2 == 0 { 1 } else { -1 };
        set.cosine[n] = cosine;
        set.minus_sine[n] = -sine;
        set.turned_cosine[n] = sign * cosine;
        set.turned_sine[n] = sign * sine;
        n += 1;
    }
    set
}

/// The nearest integer to a number that is not negative.
const fn nearest(x: f64) -> i16 {
    (x + 0.5) as i16
}

/// Sine of 0 to π/2 by its series, whose last term here is below 1e-18.
const fn sine(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (x, x, 2);
    while n < 24 {
        term *= -x * x / (n * (n + 1)) as f64;
        sum += term;
        n += 2;
    }
    sum
}

/// Cosine of 0 to π/2.
const fn cosine(x: f64) -> f64 {
    sine(FRAC_PI_2 - x)
}
