//! The bits of a frame (§3.8, RFC 3952 §3.1). Each field is cut into up to three parts, and the
//! parts stand in the payload by how much their loss would hurt: all of class 1, then 2, then 3,
//! in each the fields in the same order. The last bit says that the frame is empty.

use super::{Mode, SEGMENTS_MAX, STATE_SAMPLES_MAX};

/// What a frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Parameters {
    /// Indices of the spectra: one of 20 ms, two of 30 ms.
    pub(super) lsf: [[u8; 3]; 2],
    /// The sub-block, from 1, that ends the two in which the start state lies.
    pub(super) state_block: u8,
    /// The start state is at the beginning of its two sub-blocks, not at the end.
    pub(super) state_first: bool,
    /// Index of its peak.
    pub(super) state_peak: u8,
    pub(super) state: [u8; STATE_SAMPLES_MAX],
    /// The rest of the residual in the order of coding; the first is that of the start state.
    pub(super) segments: [Choice; SEGMENTS_MAX],
}

/// A sum of three codebook vectors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Choice {
    pub(super) vectors: [u8; 3],
    pub(super) gains: [u8; 3],
}

/// Writes a frame to the `frame_bytes` of `out`.
pub(super) fn pack(mode: Mode, parameters: &Parameters, out: &mut [u8]) {
    let fields = parameters.to_fields(mode);
    let mut writer = Writer { out: out.iter_mut(), bits: 0, held: 0 };
    for class in 0..CLASSES {
        for (value, split) in fields.iter().zip(splits(mode)) {
            let below: u8 = split[class + 1..].iter().sum();
            writer.put(u32::from(*value) >> below, split[class]);
        }
    }
    writer.put(0, 1);
}

/// Reads a frame; `None` when it says that it is empty, or names a start state that cannot be:
/// such a frame is as good as lost.
pub(super) fn unpack(mode: Mode, payload: &[u8]) -> Option<Parameters> {
    let mut fields = [0; FIELDS_MAX];
    let mut reader = Reader { bytes: payload.iter(), bits: 0, held: 0 };
    for class in 0..CLASSES {
        for (value, split) in fields.iter_mut().zip(splits(mode)) {
            *value = (u32::from(*value) << split[class] | reader.take(split[class])) as u8;
        }
    }
    if reader.take(1) == 1 {
        return None;
    }
    let parameters = Parameters::from_fields(mode, &fields);
    let possible = 1..mode.subframes();
    possible.contains(&usize::from(parameters.state_block)).then_some(parameters)
}

impl Parameters {
    fn to_fields(&self, mode: Mode) -> [u8; FIELDS_MAX] {
        let mut copy = self.clone();
        copy.segments[1].fold();
        let mut fields = [0; FIELDS_MAX];
        let mut places = fields.iter_mut();
        copy.visit(mode, |value| {
            if let Some(place) = places.next() {
                *place = *value;
            }
        });
        fields
    }

    fn from_fields(mode: Mode, fields: &[u8; FIELDS_MAX]) -> Parameters {
        let mut parameters = Parameters::default();
        let mut values = fields.iter();
        parameters.visit(mode, |place| *place = values.next().copied().unwrap_or(0));
        parameters.segments[1].unfold();
        parameters
    }

    /// Shows each field in the order of the payload.
    fn visit(&mut self, mode: Mode, mut show: impl FnMut(&mut u8)) {
        self.lsf[..mode.spectra()].as_flattened_mut().iter_mut().for_each(&mut show);
        show(&mut self.state_block);
        let mut first = u8::from(self.state_first);
        show(&mut first);
        self.state_first = first == 1;
        show(&mut self.state_peak);
        self.state[..mode.state_samples()].iter_mut().for_each(&mut show);
        let (extra, subframes) = self.segments[..mode.segments()].split_at_mut(1);
        for segments in [extra, subframes] {
            segments.iter_mut().for_each(|choice| choice.vectors.iter_mut().for_each(&mut show));
            segments.iter_mut().for_each(|choice| choice.gains.iter_mut().for_each(&mut show));
        }
    }
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            lsf: [[0; 3]; 2],
            state_block: 0,
            state_first: false,
            state_peak: 0,
            state: [0; STATE_SAMPLES_MAX],
            segments: [Choice::default(); SEGMENTS_MAX],
        }
    }
}

impl Choice {
    /// The second and third vector of the first whole sub-block are sent in seven bits, for only
    /// 44 and 20 of each half of the codebook are searched (§3.6.4.1).
    fn fold(&mut self) {
        for index in &mut self.vectors[1..] {
            *index -= match *index {
                0..108 => 0,
                108..236 => 64,
                236.. => 128,
            };
        }
    }

    fn unfold(&mut self) {
        for index in &mut self.vectors[1..] {
            *index += match *index {
                44..108 => 64,
                108..128 => 128,
                _ => 0,
            };
        }
    }
}

/// Bits from the most significant down.
struct Writer<'a> {
    out: std::slice::IterMut<'a, u8>,
    bits: u32,
    held: u8,
}

impl Writer<'_> {
    /// Appends the `count` lowest bits of `value` (up to 8).
    fn put(&mut self, value: u32, count: u8) {
        self.bits = self.bits << count | value & ((1 << count) - 1);
        self.held += count;
        if self.held >= 8 {
            self.held -= 8;
            if let Some(byte) = self.out.next() {
                *byte = (self.bits >> self.held) as u8;
            }
        }
    }
}

struct Reader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    bits: u32,
    held: u8,
}

impl Reader<'_> {
    /// The next `count` bits (up to 8); zeros after the end.
    fn take(&mut self, count: u8) -> u32 {
        if self.held < count {
            self.bits = self.bits << 8 | u32::from(self.bytes.next().copied().unwrap_or(0));
            self.held += 8;
        }
        self.held -= count;
        self.bits >> self.held & ((1 << count) - 1)
    }
}

const CLASSES: usize = 3;
const FIELDS_20: usize = 3 + 3 + 57 + 3 * 6;
const FIELDS_MAX: usize = 6 + 3 + 58 + 5 * 6;

/// How many bits of a field stand in each class.
type Split = [u8; CLASSES];

fn splits(mode: Mode) -> &'static [Split] {
    match mode {
        Mode::Ms20 => &SPLITS_20,
        Mode::Ms30 => &SPLITS_30,
    }
}

const SPLITS_20: [Split; FIELDS_20] = laid_out(
    &[[6, 0, 0], [7, 0, 0], [7, 0, 0]],
    // Block, position and peak of the start state.
    [[2, 0, 0], [1, 0, 0], [6, 0, 0]],
    57,
    // Vectors and gains: of the rest of the start state, then of the sub-blocks.
    &[
        [[6, 0, 1], [0, 0, 7], [0, 0, 7]],
        [[2, 0, 3], [1, 1, 2], [0, 0, 3]],
        [[7, 0, 1], [0, 0, 7], [0, 0, 7]],
        [[0, 0, 8], [0, 0, 8], [0, 0, 8]],
        [[1, 2, 2], [1, 1, 2], [0, 0, 3]],
        [[1, 1, 3], [0, 2, 2], [0, 0, 3]],
    ],
);

const SPLITS_30: [Split; FIELDS_MAX] = laid_out(
    &[[6, 0, 0], [7, 0, 0], [7, 0, 0], [6, 0, 0], [7, 0, 0], [7, 0, 0]],
    [[3, 0, 0], [1, 0, 0], [6, 0, 0]],
    58,
    &[
        [[4, 2, 1], [0, 0, 7], [0, 0, 7]],
        [[1, 1, 3], [1, 1, 2], [0, 0, 3]],
        [[6, 1, 1], [0, 0, 7], [0, 0, 7]],
        [[0, 7, 1], [0, 0, 8], [0, 0, 8]],
        [[0, 7, 1], [0, 0, 8], [0, 0, 8]],
        [[0, 7, 1], [0, 0, 8], [0, 0, 8]],
        [[1, 2, 2], [1, 2, 1], [0, 0, 3]],
        [[0, 2, 3], [0, 2, 2], [0, 0, 3]],
        [[0, 1, 4], [0, 1, 3], [0, 0, 3]],
        [[0, 1, 4], [0, 1, 3], [0, 0, 3]],
    ],
);

const fn laid_out<const N: usize>(
    lsf: &[Split],
    state: [Split; 3],
    state_samples: usize,
    choices: &[[Split; 3]],
) -> [Split; N] {
    let mut splits = [[0, 1, 2]; N];
    let mut n = 0;
    while n < lsf.len() {
        splits[n] = lsf[n];
        n += 1;
    }
    n = 0;
    while n < 3 {
        splits[lsf.len() + n] = state[n];
        n += 1;
    }
    n = 0;
    while n < 3 * choices.len() {
        splits[lsf.len() + 3 + state_samples + n] = choices[n / 3][n % 3];
        n += 1;
    }
    splits
}
