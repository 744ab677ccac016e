//! Opus (RFC 6716): the one door to libopus. Voice mode, one channel, discontinuous transmission only
//! where the peer asks for it; a stereo packet comes out mixed to mono, as libopus does it.
//!
//! libopus decodes straight to the rate that it is asked for, so no resampler stands beside it.
//! A library call that fails leaves the stream usable; nothing is allocated after `new`.

use super::{CodecFault, CodecKind, EncoderSettings};
use ::opus::packet;
use ::opus::{Application, Bandwidth, Bitrate, Channels, Error, ErrorCode};

/// What the peer asks of our sending (RFC 7587 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// `maxplaybackrate`: the highest sample rate that the peer plays, in hertz; no more bandwidth is
    /// sent than it has.
    pub playback_hz: u32,
    /// `maxaveragebitrate`, in bit/s.
    pub bitrate_max: u32,
    /// `cbr=1`: all packets of a length have the same size.
    pub constant: bool,
    /// `usedtx=1`: pauses are told instead of coded.
    pub dtx: bool,
}

impl Default for Format {
    /// No limits (RFC 7587 §6.1).
    fn default() -> Format {
        Format { playback_hz: 48_000, bitrate_max: 510_000, constant: false, dtx: false }
    }
}

impl Format {
    /// Ticks of 48 kHz in a packet; `None` when it is none.
    pub(super) fn ticks(payload: &[u8]) -> Option<u32> {
        let samples =
            packet::get_nb_samples(payload, 48_000).ok().filter(|_| !payload.is_empty())?;
        u32::try_from(samples).ok().filter(|ticks| *ticks > 0)
    }

    /// Whether a packet tells of a pause.
    pub(super) fn tells_pause(payload: &[u8]) -> bool {
        payload.len() <= PAUSE_BYTES_MAX
    }
}

/// Payloads in, mono PCM out.
pub struct OpusDecoder {
    library: ::opus::Decoder,
    hz: u32,
    /// The last packet told of a pause.
    pausing: bool,
}

impl OpusDecoder {
    /// A decoder to 8,000, 12,000, 16,000, 24,000 or 48,000 Hz.
    pub fn new(output_hz: u32) -> Result<OpusDecoder, CodecFault> {
        let refused = CodecFault::UnsupportedRate { kind: CodecKind::Opus, hz: output_hz };
        let library = ::opus::Decoder::new(output_hz, Channels::Mono)
            .map_err(|error| fault(&error, refused))?;
        Ok(OpusDecoder { library, hz: output_hz, pausing: false })
    }

    /// Decodes one packet; its duration, up to 120 ms, comes from its TOC byte (RFC 6716 §3.1).
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        // libopus takes an empty packet for a lost one.
        if payload.is_empty() {
            return Err(CodecFault::BadPayload);
        }
        let samples =
            packet::get_nb_samples(payload, self.hz).map_err(|_| CodecFault::BadPayload)?;
        if samples == 0 {
            return Err(CodecFault::BadPayload);
        }
        let out = out.get_mut(..samples).ok_or(CodecFault::OutputTooSmall)?;
        let decoded = self.library.decode(payload, out, false);
        self.pausing = decoded.is_ok() && payload.len() <= PAUSE_BYTES_MAX;
        decoded.map_err(|error| fault(&error, CodecFault::Library))
    }

    /// The last packet told of a pause (RFC 6716 §2.1.9); its comfort noise is libopus' concealment.
    pub fn is_pausing(&self) -> bool {
        self.pausing
    }

    /// libopus' own concealment for all of `out`, a multiple of 2.5 ms; anything else is silence.
    pub fn conceal(&mut self, out: &mut [i16]) {
        let longest = (self.hz / 1_000 * PACKET_MS_MAX) as usize;
        for part in out.chunks_mut(longest) {
            let filled = self.library.decode(&[], part, false).unwrap_or(0);
            if let Some(rest) = part.get_mut(filled..) {
                rest.fill(0);
            }
        }
    }

    /// The lost frame before `next_payload` from the payload's redundant copy; `None` without one.
    pub fn decode_fec(&mut self, next_payload: &[u8], out: &mut [i16]) -> Option<usize> {
        if !carries_fec(next_payload) || out.is_empty() {
            return None;
        }
        self.library.decode(next_payload, out, true).ok()
    }
}

/// A packet of one or two bytes codes no audio: the sender pauses.
const PAUSE_BYTES_MAX: usize = 2;
/// The longest Opus packet (RFC 6716 §2.1.4).
const PACKET_MS_MAX: u32 = 120;

/// Whether the first frame of a packet holds a redundant copy of the frame before it: only SILK
/// and hybrid frames can, and they say so in a flag that follows their voice-activity flags, one
/// for each 20 ms and channel (RFC 6716 §4.2.3, §4.2.4). The flags are even odds at the very
/// start of the range coder, which makes them plain bits.
fn carries_fec(payload: &[u8]) -> bool {
    let (Some(toc), Some(first)) = (payload.first(), first_frame_byte(payload)) else {
        return false;
    };
    let silk_frames = match toc >> 3 {
        configuration @ 0..=11 => (configuration & 3).max(1),
        12..=15 => 1,
        _ => return false,
    };
    let mid = (first >> (7 - silk_frames)) & 1 == 1;
    let side = toc & 4 != 0 && (first >> (6 - 2 * silk_frames)) & 1 == 1;
    mid || side
}

/// The first byte of a packet's first frame, `None` when that frame is empty (RFC 6716 §3.2).
fn first_frame_byte(payload: &[u8]) -> Option<u8> {
    let (toc, rest) = payload.split_first()?;
    let (count, mut rest) = match toc & 3 {
        0 | 1 => return rest.first().copied(),
        2 => (0x82, rest),
        _ => rest.split_first().map(|(count, rest)| (*count, rest))?,
    };
    if count & 0x40 != 0 {
        while let (255, after) = rest.split_first()? {
            rest = after;
        }
        rest = rest.get(1..)?;
    }
    if count & 0x80 != 0 {
        if *rest.first()? == 0 {
            return None;
        }
        for _ in 1..count & 0x3F {
            let bytes = if *rest.first()? < 252 { 1 } else { 2 };
            rest = rest.get(bytes..)?;
        }
    }
    rest.first().copied()
}

/// Mono PCM in, packets out.
pub struct OpusEncoder {
    library: ::opus::Encoder,
    hz: u32,
}

impl OpusEncoder {
    /// An encoder from 8,000, 12,000, 16,000, 24,000 or 48,000 Hz.
    pub fn new(
        input_hz: u32,
        format: Format,
        settings: EncoderSettings,
    ) -> Result<OpusEncoder, CodecFault> {
        let refused = CodecFault::UnsupportedRate { kind: CodecKind::Opus, hz: input_hz };
        let mut library = ::opus::Encoder::new(input_hz, Channels::Mono, Application::Voip)
            .map_err(|error| fault(&error, refused))?;
        let allowed = format.bitrate_max.clamp(BITRATE_MIN, BITRATE_MAX);
        let bitrate = match settings.bitrate {
            Some(rate @ BITRATE_MIN..=BITRATE_MAX) => Bitrate::Bits(rate.min(allowed) as i32),
            Some(_) => return Err(CodecFault::BadSetting),
            None if allowed < usual_bitrate(input_hz) => Bitrate::Bits(allowed as i32),
            None => Bitrate::Auto,
        };
        if settings.complexity > COMPLEXITY_MAX {
            return Err(CodecFault::BadSetting);
        }
        library
            .set_complexity(i32::from(settings.complexity))
            .and_then(|()| library.set_bitrate(bitrate))
            .and_then(|()| library.set_dtx(settings.dtx || format.dtx))
            .and_then(|()| library.set_vbr(!format.constant))
            .and_then(|()| library.set_max_bandwidth(bandwidth(format.playback_hz)))
            .map_err(|error| fault(&error, CodecFault::BadSetting))?;
        let mut encoder = OpusEncoder { library, hz: input_hz };
        encoder.set_expected_loss(if settings.fec { FEC_LOSS_PERCENT } else { 0 });
        Ok(encoder)
    }

    /// Encodes 2.5, 5, 10, 20, 40, 60, 80, 100 or 120 ms as one packet. `out` bounds its size.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        let per_2_5_ms = (self.hz / 400) as usize;
        let whole = pcm.len().is_multiple_of(per_2_5_ms);
        let steps = pcm.len() / per_2_5_ms;
        if !whole || !matches!(steps, 1 | 2 | 4 | 8 | 16 | 24 | 32 | 40 | 48) {
            return Err(CodecFault::BadFrameLength);
        }
        if out.len() < OUTPUT_BYTES_MIN {
            return Err(CodecFault::OutputTooSmall);
        }
        self.library.encode(pcm, out).map_err(|error| fault(&error, CodecFault::Library))
    }

    /// Begins a new stream; settings stay.
    pub fn reset(&mut self) {
        self.library.reset_state().expect("libopus resets a state that it made");
    }

    /// Complexity 0 to 10; more is taken as 10.
    pub fn set_complexity(&mut self, complexity: u8) {
        let within = i32::from(complexity.min(COMPLEXITY_MAX));
        self.library.set_complexity(within).expect("libopus takes every complexity from 0 to 10");
    }

    /// In-band FEC for this loss in percent (above 100 is 100); 0 turns it off.
    pub fn set_expected_loss(&mut self, percent: u8) {
        let within = i32::from(percent.min(100));
        self.library
            .set_inband_fec(within > 0)
            .and_then(|()| self.library.set_packet_loss_perc(within))
            .expect("libopus takes every loss from 0 to 100 percent");
    }
}

/// The bandwidth that a sample rate holds (RFC 7587 §3.1.1).
fn bandwidth(playback_hz: u32) -> Bandwidth {
    match playback_hz {
        0..12_000 => Bandwidth::Narrowband,
        12_000..16_000 => Bandwidth::Mediumband,
        16_000..24_000 => Bandwidth::Wideband,
        24_000..48_000 => Bandwidth::Superwideband,
        _ => Bandwidth::Fullband,
    }
}

/// What libopus chooses by itself for mono in frames of 20 ms or more.
fn usual_bitrate(hz: u32) -> u32 {
    60 * 50 + hz
}

const BITRATE_MIN: u32 = 6_000;
const BITRATE_MAX: u32 = 510_000;
const COMPLEXITY_MAX: u8 = 10;
/// Loss that FEC reckons with until RTCP has told the true one.
const FEC_LOSS_PERCENT: u8 = 10;
/// libopus cannot say anything in less.
const OUTPUT_BYTES_MIN: usize = 3;

fn fault(error: &Error, otherwise: CodecFault) -> CodecFault {
    match error.code() {
        ErrorCode::InvalidPacket => CodecFault::BadPayload,
        ErrorCode::BufferTooSmall => CodecFault::OutputTooSmall,
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn tone(hz: u32, samples: usize) -> Vec<i16> {
        let voiced = |n: usize, f: f64| (TAU * f * n as f64 / f64::from(hz)).sin();
        (0..samples)
            .map(|n| (6_000.0 * (voiced(n, 220.0) + 0.5 * voiced(n, 700.0))) as i16)
            .collect()
    }

    fn energy(pcm: &[i16]) -> f64 {
        pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len().max(1) as f64
    }

    #[test]
    fn every_rate_carries_a_tone_at_its_level() {
        for hz in [8_000u32, 12_000, 16_000, 24_000, 48_000] {
            let mut encoder =
                OpusEncoder::new(hz, Format::default(), EncoderSettings::default()).unwrap();
            let mut decoder = OpusDecoder::new(hz).unwrap();
            let frame = hz as usize / 50;
            let pcm = tone(hz, frame * 20);
            let (mut payload, mut out) = ([0; 1_275], vec![0; frame]);
            for part in pcm.chunks(frame) {
                let len = encoder.encode(part, &mut payload).unwrap();
                assert_eq!(decoder.decode(&payload[..len], &mut out), Ok(frame), "{hz} Hz");
            }
            let ratio = energy(&out) / energy(&pcm);
            assert!((0.8..1.25).contains(&ratio), "{hz} Hz: energy ratio {ratio}");
        }
    }

    #[test]
    fn fec_brings_back_the_lost_frame_and_is_not_claimed_where_there_is_none() {
        for fec in [false, true] {
            let settings = EncoderSettings { fec, bitrate: Some(24_000), ..Default::default() };
            let mut encoder = OpusEncoder::new(16_000, Format::default(), settings).unwrap();
            let mut decoder = OpusDecoder::new(16_000).unwrap();
            let (mut payload, mut out) = ([0; 1_275], [0; 320]);
            let mut recovered = 0;
            for (number, part) in tone(16_000, 320 * 50).chunks(320).enumerate() {
                let len = encoder.encode(part, &mut payload).unwrap();
                if number % 2 == 1 && number > 10 {
                    continue;
                }
                if number > 10 && decoder.decode_fec(&payload[..len], &mut out) == Some(320) {
                    recovered += 1;
                    assert!(energy(&out) > 5e6, "frame {number}: {}", energy(&out));
                }
                decoder.decode(&payload[..len], &mut out).unwrap();
            }
            assert_eq!(recovered > 4, fec, "{recovered} frames recovered with fec {fec}");
        }
    }

    #[test]
    fn the_peers_limits_are_kept() {
        let sent = |format: Format, pcm: &[i16]| -> Vec<Vec<u8>> {
            let mut encoder = OpusEncoder::new(24_000, format, EncoderSettings::default()).unwrap();
            let mut next = |part: &[i16]| {
                let mut payload = [0; 1_275];
                let len = encoder.encode(part, &mut payload).unwrap();
                payload[..len].to_vec()
            };
            pcm.chunks(480).map(&mut next).collect()
        };
        let voice = tone(24_000, 480 * 100);
        let bytes = |packets: &[Vec<u8>]| packets[20..].iter().map(Vec::len).sum::<usize>();
        let free = sent(Format::default(), &voice);
        let slow = sent(Format { bitrate_max: 10_000, ..Format::default() }, &voice);
        // 80 packets of 20 ms at 10 kbit/s are 2,000 bytes on average of all sounds.
        assert!(bytes(&slow) < 2_800 && bytes(&free) > 2_800, "{} {}", bytes(&slow), bytes(&free));
        let constant = sent(Format { constant: true, ..Format::default() }, &voice);
        assert!(constant.iter().all(|packet| packet.len() == constant[0].len()));
        let narrow = sent(Format { playback_hz: 8_000, ..Format::default() }, &voice);
        let widths = narrow.iter().map(|packet| packet::get_bandwidth(packet).unwrap());
        assert!(widths.into_iter().all(|width| width == Bandwidth::Narrowband));
        let mut decoder = OpusDecoder::new(16_000).unwrap();
        let silence = sent(Format { dtx: true, ..Format::default() }, &[0; 480 * 50]);
        let last = silence.iter().min_by_key(|packet| packet.len()).unwrap();
        assert!(last.len() <= PAUSE_BYTES_MAX, "{} bytes", last.len());
        decoder.decode(&silence[0], &mut [0; 320]).unwrap();
        assert!(!decoder.is_pausing());
        decoder.decode(last, &mut [0; 320]).unwrap();
        assert!(decoder.is_pausing());
    }

    #[test]
    fn a_stereo_packet_comes_out_as_mono_and_its_length_from_the_packet() {
        let mut stereo =
            ::opus::Encoder::new(48_000, Channels::Stereo, Application::Audio).unwrap();
        let mono = tone(48_000, 1_920);
        let both: Vec<i16> = mono.iter().flat_map(|s| [*s, *s]).collect();
        let mut payload = [0; 1_275];
        let mut decoder = OpusDecoder::new(16_000).unwrap();
        let mut out = [0; 1_920];
        for _ in 0..5 {
            let len = stereo.encode(&both, &mut payload).unwrap();
            assert_eq!(decoder.decode(&payload[..len], &mut out), Ok(640));
        }
        let ratio = energy(&out[..640]) / energy(&mono);
        assert!((0.7..1.4).contains(&ratio), "energy ratio {ratio}");
    }

    #[test]
    fn concealment_fills_all_and_fades() {
        let mut encoder =
            OpusEncoder::new(16_000, Format::default(), EncoderSettings::default()).unwrap();
        let mut decoder = OpusDecoder::new(16_000).unwrap();
        let mut payload = [0; 1_275];
        let mut out = vec![0; 320];
        for part in tone(16_000, 320 * 20).chunks(320) {
            let len = encoder.encode(part, &mut payload).unwrap();
            decoder.decode(&payload[..len], &mut out).unwrap();
        }
        decoder.conceal(&mut out);
        assert!(energy(&out) > 1e6);
        let mut long = vec![77; 16_000];
        decoder.conceal(&mut long);
        assert!(energy(&long[15_000..]) < 1e4, "{}", energy(&long[15_000..]));
        let mut odd = vec![77; 7];
        decoder.conceal(&mut odd);
        assert_eq!(odd, [0; 7]);
    }

    #[test]
    fn wrong_lengths_rates_and_settings_are_faults() {
        let settings = EncoderSettings::default();
        assert!(OpusDecoder::new(44_100).is_err());
        assert!(OpusEncoder::new(44_100, Format::default(), settings).is_err());
        for bad in [
            EncoderSettings { complexity: 11, ..settings },
            EncoderSettings { bitrate: Some(5_999), ..settings },
            EncoderSettings { bitrate: Some(510_001), ..settings },
        ] {
            assert_eq!(
                OpusEncoder::new(16_000, Format::default(), bad).err(),
                Some(CodecFault::BadSetting)
            );
        }
        let mut encoder = OpusEncoder::new(16_000, Format::default(), settings).unwrap();
        let mut payload = [0; 1_275];
        for len in [0, 1, 39, 41, 120, 321, 4_000] {
            let pcm = vec![0; len];
            assert_eq!(
                encoder.encode(&pcm, &mut payload),
                Err(CodecFault::BadFrameLength),
                "{len}"
            );
        }
        assert_eq!(encoder.encode(&[0; 320], &mut []), Err(CodecFault::OutputTooSmall));
        let mut decoder = OpusDecoder::new(16_000).unwrap();
        assert_eq!(decoder.decode(&[], &mut [0; 320]), Err(CodecFault::BadPayload));
        // A 20 ms packet that does not fit, then a frame count of zero (RFC 6716 §3.2.5, R5).
        assert_eq!(decoder.decode(&[0x48, 0, 0], &mut [0; 319]), Err(CodecFault::OutputTooSmall));
        assert_eq!(decoder.decode(&[0x4B, 0], &mut [0; 320]), Err(CodecFault::BadPayload));
    }
}
