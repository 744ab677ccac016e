//! AMR-WB (ITU-T G.722.2) on RTP (RFC 4867): frames of 20 ms at 16 kHz in nine modes, 6.60 to 23.85
//! kbit/s, with comfort noise for pauses. [`payload`] packs frames, [`library`] codes speech, through
//! two libraries that the machine may or may not have; without them there is no codec here.
//!
//! What the peer asks of our sending arrives in its packets: a mode request (CMR) is followed within
//! the modes that the description allows, at the frames where the description lets a mode change.

mod concealment;
mod leftover;
pub mod library;
pub mod payload;

use super::CodecFault;
use concealment::Concealment;
use leftover::Leftover;
use library::{FRAME_SAMPLES, SpeechDecoder, SpeechEncoder};
use payload::{FRAMES_MAX, NO_DATA, Payload, SID, SPEECH_LOST, Stored};
pub use payload::{Mode, Packing};

/// What a description says of the codec (RFC 4867 §8.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Format {
    pub packing: Packing,
    /// `mode-set`: the modes that either side may send; `None` where nothing restricts them.
    pub modes: Option<ModeSet>,
    /// `mode-change-period=2`: our mode changes at every second frame only.
    pub every_second_frame: bool,
    /// `mode-change-neighbor=1`: our mode changes to the next higher or lower one of the set only.
    pub neighbours_only: bool,
}

impl Format {
    /// The highest mode that either side may send.
    pub fn best_mode(self) -> Mode {
        let mode = self.modes.unwrap_or(ModeSet::ALL).modes().next_back();
        mode.expect("a set of modes holds one")
    }
}

/// A set of modes, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ModeSet(u16);

impl ModeSet {
    pub const ALL: ModeSet = ModeSet((1 << Mode::COUNT) - 1);

    /// The set of these modes; `None` for no mode.
    pub fn of(modes: impl Iterator<Item = Mode>) -> Option<ModeSet> {
        let bits = modes.fold(0, |bits, mode| bits | 1 << mode.number());
        (bits != 0).then_some(ModeSet(bits))
    }

    /// The modes from the lowest upwards.
    pub fn modes(self) -> impl DoubleEndedIterator<Item = Mode> {
        (0..Mode::COUNT).filter(move |number| self.0 >> number & 1 == 1).filter_map(Mode::new)
    }

    /// The highest mode up to `most`; the lowest when all are above.
    fn up_to(self, most: Mode) -> Option<Mode> {
        let below = self.modes().rfind(|mode| *mode <= most);
        below.or_else(|| self.modes().next())
    }
}

/// Debian's packages of the two libraries.
pub const PACKAGES: &str = "libopencore-amrwb0 libvo-amrwbenc0";

/// Whether both libraries are installed here.
pub fn is_installed() -> bool {
    library::functions().is_some()
}

/// Payloads in, PCM at 16 kHz out.
pub struct Decoder {
    speech: SpeechDecoder,
    packing: Packing,
    requested: Option<Mode>,
    /// The sender told of a pause (SID): what is missing is its comfort noise.
    pausing: bool,
    received: ReceivedModes,
    concealment: Concealment,
    leftover: Leftover,
}

/// The modes in which speech came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReceivedModes {
    /// Frames in each.
    frames: [u32; Mode::COUNT as usize],
    last: Option<Mode>,
}

impl ReceivedModes {
    fn count(&mut self, mode: Mode) {
        let frames = &mut self.frames[usize::from(mode.number())];
        *frames = frames.saturating_add(1);
        self.last = Some(mode);
    }

    /// That of the last frame; `None` before the first.
    pub fn last(&self) -> Option<Mode> {
        self.last
    }

    /// That of most frames, the higher one of two; `None` before the first.
    pub fn usual(&self) -> Option<Mode> {
        let modes = self.last.map(|_| ModeSet::ALL.modes());
        modes?.max_by_key(|mode| self.frames[usize::from(mode.number())])
    }
}

impl Decoder {
    /// # Errors
    /// [`CodecFault::LibraryAbsent`].
    pub fn new(packing: Packing) -> Result<Decoder, CodecFault> {
        let speech = SpeechDecoder::new().ok_or(CodecFault::LibraryAbsent)?;
        Ok(Decoder {
            speech,
            packing,
            requested: None,
            pausing: false,
            received: ReceivedModes::default(),
            concealment: Concealment::default(),
            leftover: Leftover::default(),
        })
    }

    /// Decodes the frames of one payload to the front of `out`, 320 samples each; gives how many
    /// samples. Frames without data are comfort noise, lost and damaged ones concealment.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        let payload = Payload::read(self.packing, payload)?;
        let samples = payload.frames * FRAME_SAMPLES;
        let out = out.get_mut(..samples).ok_or(CodecFault::OutputTooSmall)?;
        self.leftover.clear();
        self.requested = payload.request.or(self.requested);
        for (frame, pcm) in payload.frames().zip(out.chunks_exact_mut(FRAME_SAMPLES)) {
            if let Ok(pcm) = pcm.try_into() {
                self.decode_frame(frame, pcm);
            }
        }
        Ok(samples)
    }

    fn decode_frame(&mut self, frame: Stored, pcm: &mut [i16; FRAME_SAMPLES]) {
        self.pausing = match frame.frame_type() {
            SID => true,
            NO_DATA | SPEECH_LOST => self.pausing,
            _ => false,
        };
        if !frame.is_good() || matches!(frame.frame_type(), NO_DATA | SPEECH_LOST) {
            stand_in(&mut self.speech, &mut self.concealment, self.pausing, pcm);
            return;
        }
        self.speech.decode(&frame, pcm);
        match Mode::new(frame.frame_type()) {
            None => self.concealment.rest(),
            Some(mode) => {
                self.received.count(mode);
                self.concealment.remember(&frame, pcm);
            }
        }
    }

    /// Fills all of `out` with speech that stands for what is lost; in a pause, with comfort noise.
    pub fn conceal(&mut self, out: &mut [i16]) {
        let (speech, concealment) = (&mut self.speech, &mut self.concealment);
        let pausing = self.pausing;
        self.leftover.fill(out, |pcm| stand_in(speech, concealment, pausing, pcm));
    }

    /// The sender pauses: what is missing is not lost, and [`Decoder::conceal`] makes its comfort
    /// noise for as long as the pause lasts.
    pub fn is_pausing(&self) -> bool {
        self.pausing
    }

    /// The modes in which speech came so far.
    pub fn received(&self) -> &ReceivedModes {
        &self.received
    }

    /// The mode that the peer last asked us to send in.
    pub fn requested(&self) -> Option<Mode> {
        self.requested
    }
}

/// A frame in the place of one that did not come.
fn stand_in(
    speech: &mut SpeechDecoder,
    concealment: &mut Concealment,
    pausing: bool,
    pcm: &mut [i16; FRAME_SAMPLES],
) {
    match concealment.frame() {
        Some(frame) => {
            speech.decode(&frame, pcm);
            concealment.shape(pcm);
        }
        None => speech.decode(&Stored::empty(if pausing { NO_DATA } else { SPEECH_LOST }), pcm),
    }
}

/// Samples of the frames in a payload; `None` when it is not whole.
pub(super) fn samples(packing: Packing, payload: &[u8]) -> Option<usize> {
    Payload::read(packing, payload).ok().map(|payload| payload.frames * FRAME_SAMPLES)
}

/// Whether a payload ends in a pause.
pub(super) fn tells_pause(packing: Packing, payload: &[u8]) -> bool {
    let last = Payload::read(packing, payload).ok().and_then(|payload| payload.frames().last());
    last.is_some_and(|frame| matches!(frame.frame_type(), SID | NO_DATA))
}

/// PCM at 16 kHz in, payloads out.
pub struct Encoder {
    speech: SpeechEncoder,
    format: Format,
    dtx: bool,
    mode: Mode,
    /// The mode that is striven for.
    wanted: Mode,
    /// Frames so far, even or odd.
    odd: bool,
}

impl Encoder {
    /// An encoder that begins in the best mode of the set. `dtx`: pauses are sent as SID frames.
    ///
    /// # Errors
    /// [`CodecFault::LibraryAbsent`].
    pub fn new(format: Format, dtx: bool) -> Result<Encoder, CodecFault> {
        let speech = SpeechEncoder::new().ok_or(CodecFault::LibraryAbsent)?;
        let mode = format.best_mode();
        Ok(Encoder { speech, format, dtx, mode, wanted: mode, odd: false })
    }

    /// Encodes whole frames of 20 ms as one payload; gives its length.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        let count = pcm.len() / FRAME_SAMPLES;
        if count == 0 || count > FRAMES_MAX || !pcm.len().is_multiple_of(FRAME_SAMPLES) {
            return Err(CodecFault::BadFrameLength);
        }
        let mut frames = [Stored::empty(NO_DATA); FRAMES_MAX];
        for (frame, pcm) in frames.iter_mut().zip(pcm.chunks_exact(FRAME_SAMPLES)) {
            if let Ok(pcm) = pcm.try_into() {
                self.approach();
                *frame = self.speech.encode(self.mode, pcm, self.dtx);
            }
        }
        payload::write(self.format.packing, None, &frames[..count], out)
    }

    /// The peer asks for this mode: the highest of the set that is not above it is striven for.
    pub fn request(&mut self, mode: Mode) {
        let modes = self.format.modes.unwrap_or(ModeSet::ALL);
        self.wanted = modes.up_to(mode).unwrap_or(self.wanted);
    }

    /// The mode of the last frame.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Forgets the words before: a frame of silence takes the place of what was looked ahead.
    pub fn reset(&mut self) {
        self.speech.encode(self.mode, &[0; FRAME_SAMPLES], false);
    }

    /// Changes the mode where the description lets it change.
    fn approach(&mut self) {
        self.odd = !self.odd;
        let may_change = self.odd || !self.format.every_second_frame;
        if self.mode == self.wanted || !may_change {
            return;
        }
        let modes = self.format.modes.unwrap_or(ModeSet::ALL);
        let next = match self.wanted > self.mode {
            true => modes.modes().find(|mode| *mode > self.mode),
            false => modes.modes().rfind(|mode| *mode < self.mode),
        };
        self.mode = next.filter(|_| self.format.neighbours_only).unwrap_or(self.wanted);
    }
}

/// Writes the payload that tells of a silent pause to the front of `out`, as the library makes it when
/// silence has lasted; gives its length.
///
/// # Errors
/// [`CodecFault::LibraryAbsent`]; it makes none.
pub fn silent_pause(format: Format, out: &mut [u8]) -> Result<usize, CodecFault> {
    let mut encoder = Encoder::new(format, true)?;
    let mut told = 0;
    for _ in 0..PAUSE_FRAMES_MAX {
        let len = encoder.encode(&[0; FRAME_SAMPLES], out)?;
        let payload = out.get(..len).ok_or(CodecFault::OutputTooSmall)?;
        let frame = Payload::read(format.packing, payload)?.frames().next();
        told += u32::from(frame.is_some_and(|frame| frame.frame_type() == SID));
        // The first one only says that speech is over; the second describes the noise.
        if told == 2 {
            return Ok(len);
        }
    }
    Err(CodecFault::Library)
}

/// Frames of silence in which a second SID comes for sure: seven of hangover, and eight between two.
const PAUSE_FRAMES_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the libraries are here. They belong to what tests install: without them a test of the
    /// codec fails where CI=true, and says so elsewhere.
    fn installed() -> bool {
        let installed = is_installed();
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(installed || !ci, "apt-get install libopencore-amrwb0 libvo-amrwbenc0");
        if !installed {
            eprintln!("skipped: libopencore-amrwb0 or libvo-amrwbenc0 is not installed");
        }
        installed
    }

    fn speech() -> Vec<i16> {
        let sentence = include_bytes!("../../fixtures/pcm/sentence_16k.s16le");
        sentence.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    fn mode(number: u8) -> Mode {
        Mode::new(number).unwrap()
    }

    fn set(numbers: &[u8]) -> Option<ModeSet> {
        ModeSet::of(numbers.iter().map(|number| mode(*number)))
    }

    fn energy(pcm: &[i16]) -> f64 {
        pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len().max(1) as f64
    }

    /// Frame type of the first frame.
    fn frame_type(packing: Packing, payload: &[u8]) -> u8 {
        Payload::read(packing, payload).unwrap().frames().next().unwrap().frame_type()
    }

    #[test]
    fn speech_keeps_its_level_in_every_mode_and_packing() {
        if !installed() {
            return;
        }
        for packing in [Packing::BandwidthEfficient, Packing::OctetAligned] {
            for number in [0, 2, 8] {
                let format = Format { packing, modes: set(&[number]), ..Format::default() };
                let mut encoder = Encoder::new(format, false).unwrap();
                let mut decoder = Decoder::new(packing).unwrap();
                let (mut payload, mut heard) = ([0; 200], Vec::new());
                for pcm in speech().chunks_exact(3 * FRAME_SAMPLES) {
                    let len = encoder.encode(pcm, &mut payload).unwrap();
                    let mut out = [0; 3 * FRAME_SAMPLES];
                    assert_eq!(decoder.decode(&payload[..len], &mut out), Ok(960));
                    assert_eq!(frame_type(packing, &payload[..len]), number);
                    heard.extend(out);
                }
                let ratio = energy(&heard) / energy(&speech());
                assert!((0.6..1.4).contains(&ratio), "{packing:?} {number}: {ratio}");
            }
        }
    }

    #[test]
    fn the_mode_follows_requests_as_the_description_allows() {
        if !installed() {
            return;
        }
        let packing = Packing::OctetAligned;
        let sent = |format: Format, request: u8, frames: usize| -> Vec<u8> {
            let mut encoder = Encoder::new(format, false).unwrap();
            encoder.encode(&[0; FRAME_SAMPLES], &mut [0; 62]).unwrap();
            encoder.request(mode(request));
            let next = |_| {
                let mut out = [0; 62];
                let len = encoder.encode(&[0; FRAME_SAMPLES], &mut out).unwrap();
                frame_type(packing, &out[..len])
            };
            (0..frames).map(next).collect()
        };
        let free = Format { packing, ..Format::default() };
        assert_eq!(sent(free, 2, 2), [2, 2]);
        let some = Format { modes: set(&[0, 1, 4]), ..free };
        assert_eq!(sent(some, 8, 1), [4], "the best of the set");
        assert_eq!(sent(some, 3, 1), [1], "not above what is asked");
        assert_eq!(sent(Format { modes: set(&[4, 7]), ..free }, 2, 1), [4], "the lowest there is");
        let second = Format { every_second_frame: true, ..free };
        assert_eq!(sent(second, 2, 3), [8, 2, 2], "frames 0 and 2 may change");
        let steps = Format { modes: set(&[0, 1, 2, 8]), neighbours_only: true, ..free };
        assert_eq!(sent(steps, 0, 4), [2, 1, 0, 0]);
        let slow = Format { every_second_frame: true, ..steps };
        assert_eq!(sent(slow, 1, 5), [8, 2, 2, 1, 1]);
    }

    #[test]
    fn a_request_stands_until_the_next_one() {
        if !installed() {
            return;
        }
        let mut decoder = Decoder::new(Packing::OctetAligned).unwrap();
        let mut out = [0; FRAME_SAMPLES];
        for (cmr, expected) in [(15, None), (2, Some(2)), (15, Some(2)), (0, Some(0))] {
            decoder.decode(&[cmr << 4, NO_DATA << 3 | 4], &mut out).unwrap();
            assert_eq!(decoder.requested().map(Mode::number), expected);
        }
    }

    #[test]
    fn the_modes_of_speech_are_counted_and_no_pause() {
        if !installed() {
            return;
        }
        let packing = Packing::OctetAligned;
        let mut decoder = Decoder::new(packing).unwrap();
        let mut out = [0; FRAME_SAMPLES];
        for (number, usual, last) in [
            (None, None, None),
            (Some(2), Some(2), Some(2)),
            (Some(8), Some(8), Some(8)),
            (Some(2), Some(2), Some(2)),
            (Some(7), Some(2), Some(7)),
            (None, Some(2), Some(7)),
        ] {
            let mut payload = vec![0xF0, NO_DATA << 3 | 4];
            if let Some(number) = number {
                let format = Format { packing, modes: set(&[number]), ..Format::default() };
                let mut encoder = Encoder::new(format, false).unwrap();
                payload = vec![0; 62];
                let len = encoder.encode(&speech()[..FRAME_SAMPLES], &mut payload).unwrap();
                payload.truncate(len);
            }
            decoder.decode(&payload, &mut out).unwrap();
            decoder.conceal(&mut out);
            let received = decoder.received();
            assert_eq!(received.usual(), usual.map(mode), "{number:?}: of two the higher");
            assert_eq!(received.last(), last.map(mode), "{number:?}");
        }
    }

    #[test]
    fn a_pause_is_comfort_noise_for_as_long_as_it_lasts() {
        if !installed() {
            return;
        }
        let mut encoder = Encoder::new(Format::default(), true).unwrap();
        let mut decoder = Decoder::new(Packing::BandwidthEfficient).unwrap();
        let mut seed = 1u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as i16 - 128
        };
        let (mut sids, mut out) = (0, [0; FRAME_SAMPLES]);
        for _ in 0..100 {
            let pcm: [i16; FRAME_SAMPLES] = std::array::from_fn(|_| noise());
            let mut payload = [0; 62];
            let len = encoder.encode(&pcm, &mut payload).unwrap();
            match frame_type(Packing::BandwidthEfficient, &payload[..len]) {
                NO_DATA => decoder.conceal(&mut out),
                kind => {
                    sids += u32::from(kind == SID);
                    decoder.decode(&payload[..len], &mut out).unwrap();
                    assert_eq!(decoder.is_pausing(), kind == SID);
                }
            }
        }
        assert!(sids > 3, "{sids} SID frames");
        let mut long = [0; 16_000];
        decoder.conceal(&mut long);
        let (first, last) = (energy(&long[..1_600]), energy(&long[14_400..]));
        assert!(first > 20.0 && last > first / 4.0, "{first} {last}");
    }

    #[test]
    fn lost_speech_is_concealed_and_fades() {
        if !installed() {
            return;
        }
        let mut encoder = Encoder::new(Format::default(), false).unwrap();
        let mut decoder = Decoder::new(Packing::BandwidthEfficient).unwrap();
        let (mut payload, mut out) = ([0; 62], [0; FRAME_SAMPLES]);
        for pcm in speech()[8_000..].chunks_exact(FRAME_SAMPLES).take(20) {
            let len = encoder.encode(pcm, &mut payload).unwrap();
            decoder.decode(&payload[..len], &mut out).unwrap();
        }
        let before = energy(&out);
        decoder.conceal(&mut out[..200]);
        assert!(!decoder.is_pausing() && energy(&out[..200]) > before / 20.0);
        let mut long = [0; 16_000];
        decoder.conceal(&mut long);
        assert!(energy(&long[15_000..]) < before / 50.0, "{}", energy(&long[15_000..]));
    }

    /// Level of `heard` beside `whole`, in dB, on average over frames that speak.
    fn beside(levels: &[(f64, f64)]) -> f64 {
        let sum: f64 =
            levels.iter().map(|(heard, whole)| 10.0 * (heard.max(1.0) / whole).log10()).sum();
        sum / levels.len() as f64
    }

    #[test]
    fn a_lost_frame_is_bridged_and_leaves_no_dip_behind_it() {
        if !installed() {
            return;
        }
        for number in [2, 8] {
            let format = Format { modes: set(&[number]), ..Format::default() };
            let mut encoder = Encoder::new(format, false).unwrap();
            let mut payload = [0; 62];
            let payloads: Vec<Vec<u8>> = speech()
                .chunks_exact(FRAME_SAMPLES)
                .map(|pcm| {
                    let len = encoder.encode(pcm, &mut payload).unwrap();
                    payload[..len].to_vec()
                })
                .collect();
            let decode = |lost: &dyn Fn(usize) -> bool| -> Vec<f64> {
                let mut decoder = Decoder::new(Packing::BandwidthEfficient).unwrap();
                let mut pcm = [0; FRAME_SAMPLES];
                let frame = |(number, payload): (usize, &Vec<u8>)| {
                    match lost(number) {
                        true => decoder.conceal(&mut pcm),
                        false => assert_eq!(decoder.decode(payload, &mut pcm), Ok(320)),
                    }
                    energy(&pcm)
                };
                payloads.iter().enumerate().map(frame).collect()
            };
            let whole = decode(&|_| false);
            let mut after = [(); 4].map(|()| Vec::new());
            for phase in 0..10 {
                let heard = decode(&|number| number % 10 == phase && number > 10);
                for lost in (phase + 20..whole.len() - 4).step_by(10) {
                    for (frames, levels) in after.iter_mut().enumerate() {
                        let at = lost + frames;
                        if whole[lost - 1..=at].iter().all(|energy| *energy > 1e5) {
                            levels.push((heard[at], whole[at]));
                        }
                    }
                }
            }
            let levels = after.map(|levels| beside(&levels));
            assert!(levels[0] > -4.0, "mode {number}: {levels:.1?} dB");
            assert!(
                levels[1..].iter().all(|level| *level > -2.0),
                "mode {number}: {levels:.1?} dB"
            );
            assert!(levels.iter().all(|level| *level < 1.0), "mode {number}: {levels:.1?} dB");
        }
    }

    #[test]
    fn no_payload_makes_the_library_fail() {
        if !installed() {
            return;
        }
        let mut seed = 5u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let mut out = [0; FRAMES_MAX * FRAME_SAMPLES];
        for packing in [Packing::BandwidthEfficient, Packing::OctetAligned] {
            let mut decoder = Decoder::new(packing).unwrap();
            let mut decoded = 0;
            for _ in 0..4_000 {
                // The right length for its type, and random in all else.
                let mut frame = Stored::empty([0, 1, 2, 8, 8, SID, NO_DATA][next() as usize % 7]);
                let mut octets = *frame.octets();
                octets[1..].fill_with(|| next() as u8);
                octets[0] ^= if next() % 8 == 0 { 4 } else { 0 };
                frame = Stored::from_octets(octets);
                let mut payload = [0; 62];
                let len = payload::write(packing, None, &[frame], &mut payload).unwrap();
                decoded += usize::from(decoder.decode(&payload[..len], &mut out).is_ok());
                if next() % 5 == 0 {
                    decoder.conceal(&mut out[..320]);
                }
            }
            assert_eq!(decoded, 4_000);
        }
    }

    #[test]
    fn wrong_lengths_are_faults() {
        if !installed() {
            return;
        }
        let mut encoder = Encoder::new(Format::default(), false).unwrap();
        for len in [0, 160, 319, 321, 13 * FRAME_SAMPLES] {
            let encoded = encoder.encode(&vec![0; len], &mut [0; 1_000]);
            assert_eq!(encoded, Err(CodecFault::BadFrameLength), "{len}");
        }
        let none = encoder.encode(&[0; FRAME_SAMPLES], &mut [0; 10]);
        assert_eq!(none, Err(CodecFault::OutputTooSmall));
        let mut decoder = Decoder::new(Packing::OctetAligned).unwrap();
        let (sid, mut small) = ([0xF0, SID << 3 | 4, 0, 0, 0, 0, 0], [0; 319]);
        assert_eq!(decoder.decode(&sid, &mut small), Err(CodecFault::OutputTooSmall));
        assert_eq!(decoder.decode(&[], &mut [0; 320]), Err(CodecFault::BadPayload));
    }
}
