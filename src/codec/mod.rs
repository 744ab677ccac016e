//! Codecs behind one enum with static dispatch: G.711, G.722, G.722.1, Opus, iLBC and AMR-WB;
//! later codecs are one more variant each. A decoder and an encoder take all their memory in `new`: nothing is allocated
//! per frame. The decoder carries its concealment with it, so that the caller only says which
//! frame is missing.
//!
//! Every codec speaks 16-bit linear PCM, one channel. Each has one rate, but Opus decodes to and
//! encodes from any of its own. No codec sees RTP headers, and no payload, however broken, makes one
//! panic.

pub mod amr_wb;
pub mod comfort_noise;
pub mod format;
pub mod g711;
pub mod g722;
pub mod g7221;
pub mod ilbc;
pub mod kind;
pub mod opus;
pub mod plc;
pub mod resample;

pub use format::CodecFormat;
pub use g7221::BitRate as G7221Rate;
pub use ilbc::Mode as IlbcMode;
pub use kind::CodecKind;
pub use opus::Format as OpusFormat;

use std::fmt;

/// Why a codec did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodecFault {
    /// Our fault: this codec has no such PCM rate; a resampler would be needed.
    UnsupportedRate { kind: CodecKind, hz: u32 },
    /// Our fault: a rate that no resampler knows.
    UnknownRate { hz: u32 },
    /// The machine's: the libraries that code it are not installed, or have no memory.
    LibraryAbsent,
    /// Our fault: a setting out of its range (complexity 0 to 10, bit rate 6,000 to 510,000).
    BadSetting,
    /// Our fault: PCM of a length that the codec cannot encode as one frame.
    BadFrameLength,
    /// The frame does not fit into the output that was lent; nothing was consumed.
    OutputTooSmall,
    /// The peer's fault: an empty or corrupt payload. Conceal in its place.
    BadPayload,
    /// The codec library refused for another reason.
    Library,
}

impl fmt::Display for CodecFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecFault::UnsupportedRate { kind, hz } => {
                write!(f, "{} does not work at {hz} Hz", kind.encoding_name())
            }
            CodecFault::UnknownRate { hz } => write!(f, "no audio is kept at {hz} Hz"),
            CodecFault::LibraryAbsent => f.write_str("the codec's libraries are not installed"),
            CodecFault::BadSetting => f.write_str("codec setting out of range"),
            CodecFault::BadFrameLength => f.write_str("no frame of this length"),
            CodecFault::OutputTooSmall => f.write_str("output too small for the frame"),
            CodecFault::BadPayload => f.write_str("empty or corrupt payload"),
            CodecFault::Library => f.write_str("the codec library failed"),
        }
    }
}

impl std::error::Error for CodecFault {}

/// One direction of one stream: payloads in, PCM out, with concealment of what is missing.
pub struct Decoder {
    state: DecoderState,
}

enum DecoderState {
    G711(g711::Law, Box<plc::Concealer>),
    G722(Box<g722::ConcealingDecoder>),
    Opus(opus::OpusDecoder),
    Ilbc(IlbcMode, Box<ilbc::Decoder>),
    G7221(Box<g7221::Decoder>),
    AmrWb(Box<amr_wb::Decoder>),
}

impl Decoder {
    /// A decoder of the codec's usual format to PCM of `output_hz`: 8,000 for G.711 and iLBC; 16,000
    /// for G.722, G.722.1 and AMR-WB; 8,000, 12,000, 16,000, 24,000 or 48,000 for Opus.
    pub fn new(kind: CodecKind, output_hz: u32) -> Result<Decoder, CodecFault> {
        Decoder::with_format(kind, CodecFormat::Usual, output_hz)
    }

    /// As [`Decoder::new`], for what a description settled.
    pub fn with_format(
        kind: CodecKind,
        format: CodecFormat,
        output_hz: u32,
    ) -> Result<Decoder, CodecFault> {
        if !kind.supports_rate(output_hz) {
            return Err(CodecFault::UnsupportedRate { kind, hz: output_hz });
        }
        let g711 = |law| DecoderState::G711(law, Box::new(plc::Concealer::new(output_hz)));
        let state = match kind {
            CodecKind::Pcmu => g711(g711::Law::Mu),
            CodecKind::Pcma => g711(g711::Law::A),
            CodecKind::G722 => DecoderState::G722(Box::default()),
            CodecKind::Opus => DecoderState::Opus(opus::OpusDecoder::new(output_hz)?),
            CodecKind::Ilbc => {
                let mode = format.ilbc();
                DecoderState::Ilbc(mode, Box::new(ilbc::Decoder::new(mode)))
            }
            CodecKind::G7221 => DecoderState::G7221(Box::new(g7221::Decoder::new(format.g7221()))),
            CodecKind::AmrWb => {
                DecoderState::AmrWb(Box::new(amr_wb::Decoder::new(format.amr_wb().packing)?))
            }
        };
        Ok(Decoder { state })
    }

    /// Decodes one payload to the front of `out` and returns the number of samples. The length of
    /// the audio is what the payload holds, not what the stream's `ptime` says. On a fault the
    /// state is as before, so that concealment can take the frame's place.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecFault> {
        match &mut self.state {
            DecoderState::G711(law, concealer) => {
                let samples = law.decode(payload, out)?;
                concealer.receive(&mut out[..samples]);
                Ok(samples)
            }
            DecoderState::G722(decoder) => decoder.decode(payload, out),
            DecoderState::Opus(decoder) => decoder.decode(payload, out),
            DecoderState::Ilbc(mode, decoder) => {
                if let Some(other) = sent_in_another(*mode, payload) {
                    (*mode, **decoder) = (other, ilbc::Decoder::new(other));
                }
                decoder.decode(payload, out)
            }
            DecoderState::G7221(decoder) => decoder.decode(payload, out),
            DecoderState::AmrWb(decoder) => decoder.decode(payload, out),
        }
    }

    /// Fills all of `out` (a multiple of 2.5 ms) with what the missing audio may have been:
    /// repeated pitch that fades to silence within 160 ms, or the codec's own concealment where it has
    /// one.
    pub fn conceal(&mut self, out: &mut [i16]) {
        match &mut self.state {
            DecoderState::G711(_, concealer) => concealer.conceal(out),
            DecoderState::G722(decoder) => decoder.conceal(out),
            DecoderState::Opus(decoder) => decoder.conceal(out),
            DecoderState::Ilbc(_, decoder) => decoder.conceal(out),
            DecoderState::G7221(decoder) => decoder.conceal(out),
            DecoderState::AmrWb(decoder) => decoder.conceal(out),
        }
    }

    /// The sender pauses and said so in the codec's own way (SID, DTX): what is missing is not lost,
    /// and [`Decoder::conceal`] makes its comfort noise for as long as the pause lasts.
    pub fn is_pausing(&self) -> bool {
        match &self.state {
            DecoderState::G711(..)
            | DecoderState::G722(_)
            | DecoderState::Ilbc(..)
            | DecoderState::G7221(_) => false,
            DecoderState::Opus(decoder) => decoder.is_pausing(),
            DecoderState::AmrWb(decoder) => decoder.is_pausing(),
        }
    }

    /// The mode that the peer last asked us to send in (CMR, RFC 4867 §4.3.1); only AMR-WB has them.
    pub fn requested_mode(&self) -> Option<amr_wb::Mode> {
        match &self.state {
            DecoderState::G711(..)
            | DecoderState::G722(_)
            | DecoderState::Ilbc(..)
            | DecoderState::G7221(_)
            | DecoderState::Opus(_) => None,
            DecoderState::AmrWb(decoder) => decoder.requested(),
        }
    }

    /// The modes in which speech came so far; only AMR-WB has them.
    pub fn received_modes(&self) -> Option<&amr_wb::ReceivedModes> {
        match &self.state {
            DecoderState::G711(..)
            | DecoderState::G722(_)
            | DecoderState::Ilbc(..)
            | DecoderState::G7221(_)
            | DecoderState::Opus(_) => None,
            DecoderState::AmrWb(decoder) => Some(decoder.received()),
        }
    }

    /// Recovers the frame before `next_payload` from its in-band FEC (RFC 6716 §4.2.5) to the
    /// front of `out`, which must be as long as the missing frame. `None` when the payload
    /// carries none, and for codecs without FEC: conceal instead, then decode `next_payload`.
    pub fn decode_fec(&mut self, next_payload: &[u8], out: &mut [i16]) -> Option<usize> {
        match &mut self.state {
            DecoderState::G711(..)
            | DecoderState::G722(_)
            | DecoderState::Ilbc(..)
            | DecoderState::G7221(_)
            | DecoderState::AmrWb(_) => None,
            DecoderState::Opus(decoder) => decoder.decode_fec(next_payload, out),
        }
    }
}

/// The mode that a payload of iLBC is in when it cannot be in the agreed one: some peers send what
/// they like, and the length tells (RFC 3952 §3.2).
fn sent_in_another(agreed: IlbcMode, payload: &[u8]) -> Option<IlbcMode> {
    let fits = |mode: IlbcMode| payload.len().is_multiple_of(mode.frame_bytes());
    let other = match agreed {
        IlbcMode::Ms20 => IlbcMode::Ms30,
        IlbcMode::Ms30 => IlbcMode::Ms20,
    };
    (!payload.is_empty() && !fits(agreed) && fits(other)).then_some(other)
}

/// What an encoder may vary on our own side. What does not concern a codec it ignores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncoderSettings {
    /// Opus complexity, 0 to 10.
    pub complexity: u8,
    /// Opus in-band FEC: costs 27 to 53 % more encoding time; only when the peer asks for it and
    /// loses packets.
    pub fec: bool,
    /// Opus bit rate in bit/s, 6,000 to 510,000; `None` leaves libopus its choice for the rate.
    pub bitrate: Option<u32>,
    /// Opus and AMR-WB: pauses are told instead of coded. Opus does it too where the peer asks for it.
    pub dtx: bool,
}

impl Default for EncoderSettings {
    /// Complexity 5: nine costs 43 % more for little (performance measurements of libopus 1.6.1).
    fn default() -> EncoderSettings {
        EncoderSettings { complexity: 5, fec: false, bitrate: None, dtx: false }
    }
}

/// One direction of one stream: PCM in, payloads out.
pub struct Encoder {
    state: EncoderState,
}

enum EncoderState {
    G711(g711::Law),
    G722(Box<g722::Encoder>),
    Opus(opus::OpusEncoder),
    Ilbc(IlbcMode, Box<ilbc::Encoder>),
    G7221(Box<g7221::Encoder>),
    AmrWb(Box<amr_wb::Encoder>),
}

impl Encoder {
    /// An encoder of the codec's usual format from PCM of `input_hz`; the rates are those of
    /// [`Decoder::new`].
    pub fn new(
        kind: CodecKind,
        input_hz: u32,
        settings: EncoderSettings,
    ) -> Result<Encoder, CodecFault> {
        Encoder::with_format(kind, CodecFormat::Usual, input_hz, settings)
    }

    /// As [`Encoder::new`], for what a description settled.
    pub fn with_format(
        kind: CodecKind,
        format: CodecFormat,
        input_hz: u32,
        settings: EncoderSettings,
    ) -> Result<Encoder, CodecFault> {
        if !kind.supports_rate(input_hz) {
            return Err(CodecFault::UnsupportedRate { kind, hz: input_hz });
        }
        let state = match kind {
            CodecKind::Pcmu => EncoderState::G711(g711::Law::Mu),
            CodecKind::Pcma => EncoderState::G711(g711::Law::A),
            CodecKind::G722 => EncoderState::G722(Box::default()),
            CodecKind::Opus => {
                EncoderState::Opus(opus::OpusEncoder::new(input_hz, format.opus(), settings)?)
            }
            CodecKind::Ilbc => {
                let mode = format.ilbc();
                EncoderState::Ilbc(mode, Box::new(ilbc::Encoder::new(mode)))
            }
            CodecKind::G7221 => EncoderState::G7221(Box::new(g7221::Encoder::new(format.g7221()))),
            CodecKind::AmrWb => {
                let encoder = amr_wb::Encoder::new(format.amr_wb(), settings.dtx)?;
                EncoderState::AmrWb(Box::new(encoder))
            }
        };
        Ok(Encoder { state })
    }

    /// Encodes one packet to the front of `out` and returns the number of bytes. G.711 takes any
    /// length, G.722 any even one, Opus 2.5, 5, 10, 20, 40, 60, 80, 100 or 120 ms, iLBC, G.722.1
    /// and AMR-WB whole frames.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecFault> {
        match &mut self.state {
            EncoderState::G711(law) => law.encode(pcm, out),
            EncoderState::G722(encoder) => encoder.encode(pcm, out),
            EncoderState::Opus(encoder) => encoder.encode(pcm, out),
            EncoderState::Ilbc(_, encoder) => encoder.encode(pcm, out),
            EncoderState::G7221(encoder) => encoder.encode(pcm, out),
            EncoderState::AmrWb(encoder) => encoder.encode(pcm, out),
        }
    }

    /// The mode that the last frame was sent in; only AMR-WB has them.
    pub fn mode(&self) -> Option<amr_wb::Mode> {
        match &self.state {
            EncoderState::G711(_)
            | EncoderState::G722(_)
            | EncoderState::Opus(_)
            | EncoderState::Ilbc(..)
            | EncoderState::G7221(_) => None,
            EncoderState::AmrWb(encoder) => Some(encoder.mode()),
        }
    }

    /// Forgets what was encoded before: the next frame begins a stream, and holds nothing of audio
    /// that was looked ahead. Settings stay.
    pub fn reset(&mut self) {
        match &mut self.state {
            EncoderState::G711(_) => {}
            EncoderState::G722(encoder) => **encoder = g722::Encoder::default(),
            EncoderState::Opus(encoder) => encoder.reset(),
            EncoderState::Ilbc(mode, encoder) => **encoder = ilbc::Encoder::new(*mode),
            EncoderState::G7221(encoder) => encoder.reset(),
            EncoderState::AmrWb(encoder) => encoder.reset(),
        }
    }

    /// Forgets audio as [`Encoder::reset`] does, in the middle of a stream: where the decoder follows each
    /// step of the encoder, which is G.722, both stay in step.
    pub fn cut(&mut self) {
        match &mut self.state {
            EncoderState::G722(encoder) => encoder.cut(),
            EncoderState::G711(_)
            | EncoderState::Opus(_)
            | EncoderState::Ilbc(..)
            | EncoderState::G7221(_)
            | EncoderState::AmrWb(_) => self.reset(),
        }
    }

    /// The decoder is given `payload`, which was not encoded just now. Only where it follows each step of
    /// the encoder, which is G.722, has that to be known; others find their way by themselves.
    pub fn follow(&mut self, payload: &[u8]) {
        match &mut self.state {
            EncoderState::G722(encoder) => encoder.follow(payload),
            EncoderState::G711(_)
            | EncoderState::Opus(_)
            | EncoderState::Ilbc(..)
            | EncoderState::G7221(_)
            | EncoderState::AmrWb(_) => {}
        }
    }

    /// Sets the Opus complexity (0 to 10, above is 10): the overload ladder. Others ignore it.
    pub fn set_complexity(&mut self, complexity: u8) {
        match &mut self.state {
            EncoderState::G711(_)
            | EncoderState::G722(_)
            | EncoderState::Ilbc(..)
            | EncoderState::G7221(_)
            | EncoderState::AmrWb(_) => {}
            EncoderState::Opus(encoder) => encoder.set_complexity(complexity),
        }
    }

    /// Turns Opus in-band FEC on for this expected loss in percent, or off with 0.
    pub fn set_expected_loss(&mut self, percent: u8) {
        match &mut self.state {
            EncoderState::G711(_)
            | EncoderState::G722(_)
            | EncoderState::Ilbc(..)
            | EncoderState::G7221(_)
            | EncoderState::AmrWb(_) => {}
            EncoderState::Opus(encoder) => encoder.set_expected_loss(percent),
        }
    }

    /// The peer asks us to send in this mode; only AMR-WB has them.
    pub fn request_mode(&mut self, mode: amr_wb::Mode) {
        match &mut self.state {
            EncoderState::G711(_)
            | EncoderState::G722(_)
            | EncoderState::Ilbc(..)
            | EncoderState::G7221(_)
            | EncoderState::Opus(_) => {}
            EncoderState::AmrWb(encoder) => encoder.request(mode),
        }
    }
}
