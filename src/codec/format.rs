//! What a description settles of a codec beyond its name: frame length, bit rate, packing, limits.
//! Values only; `sdp` reads and writes them, the coders are made by them.

use super::{CodecKind, G7221Rate, IlbcMode, OpusFormat, amr_wb, g7221};

/// The parameters of one codec. Where a kind and a format meet, the format is that kind's; one of
/// another kind counts as [`CodecFormat::Usual`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CodecFormat {
    /// What the codec is without parameters: iLBC of 30 ms, G.722.1 of 32 kbit/s, AMR-WB
    /// bandwidth-efficient in any mode, Opus without limits.
    #[default]
    Usual,
    Opus(OpusFormat),
    Ilbc(IlbcMode),
    G7221(G7221Rate),
    AmrWb(amr_wb::Format),
}

/// Packet times in milliseconds that we send.
const PACKET_MS_MIN: u32 = 10;
const PACKET_MS_MAX: u32 = 60;

impl CodecFormat {
    /// Milliseconds of audio in each packet that we send: the longest that the codec's frames make
    /// up within `wish_ms`, from 10 to 60; one frame where the wish is shorter.
    pub fn packet_ms(self, kind: CodecKind, wish_ms: u32) -> u16 {
        let wish_ms = wish_ms.clamp(PACKET_MS_MIN, PACKET_MS_MAX);
        let lengths: &[u16] = match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 => &[60, 50, 40, 30, 20, 10],
            // An Opus frame has 10, 20, 40 or 60 ms (RFC 6716 §2.1.4); one frame goes in a packet.
            CodecKind::Opus => &[60, 40, 20, 10],
            CodecKind::Ilbc => match self.ilbc() {
                IlbcMode::Ms20 => &[60, 40, 20],
                IlbcMode::Ms30 => &[60, 30],
            },
            CodecKind::G7221 | CodecKind::AmrWb => &[60, 40, 20],
        };
        let fits = |length: &u16| u32::from(*length) <= wish_ms;
        let shortest = lengths.last().copied().unwrap_or(20);
        lengths.iter().copied().find(fits).unwrap_or(shortest)
    }

    /// Whether a peer of this format understands what was made for one of the `other`, and gets no
    /// more of it than it asked for.
    pub fn takes(self, kind: CodecKind, other: CodecFormat) -> bool {
        match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 => true,
            CodecKind::Opus => {
                let OpusFormat { bitrate_max, constant, .. } = self.opus();
                bitrate_max >= OpusFormat::default().bitrate_max && !constant
            }
            CodecKind::Ilbc => self.ilbc() == other.ilbc(),
            CodecKind::G7221 => self.g7221() == other.g7221(),
            CodecKind::AmrWb => self.amr_wb() == other.amr_wb(),
        }
    }

    /// RTP ticks of the audio in a payload, by its framing alone; `None` when it is no whole number
    /// of frames.
    pub fn ticks(self, kind: CodecKind, payload: &[u8]) -> Option<u32> {
        let frames = |bytes: usize, ticks: usize| {
            let whole = !payload.is_empty() && payload.len().is_multiple_of(bytes);
            whole.then_some(payload.len() / bytes * ticks)
        };
        let ticks = match kind {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 => frames(1, 1)?,
            CodecKind::Opus => return OpusFormat::ticks(payload),
            CodecKind::Ilbc => frames(self.ilbc().frame_bytes(), self.ilbc().frame_samples())?,
            CodecKind::G7221 => frames(self.g7221().frame_bytes(), g7221::FRAME)?,
            CodecKind::AmrWb => amr_wb::samples(self.amr_wb().packing, payload)?,
        };
        u32::try_from(ticks).ok()
    }

    /// Whether a payload tells of a pause: until the next one its sender's comfort noise is to be heard.
    pub fn tells_pause(self, kind: CodecKind, payload: &[u8]) -> bool {
        match kind {
            CodecKind::Opus => OpusFormat::tells_pause(payload),
            CodecKind::AmrWb => amr_wb::tells_pause(self.amr_wb().packing, payload),
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Ilbc
            | CodecKind::G7221 => false,
        }
    }

    pub fn opus(self) -> OpusFormat {
        if let CodecFormat::Opus(format) = self { format } else { OpusFormat::default() }
    }

    pub fn ilbc(self) -> IlbcMode {
        if let CodecFormat::Ilbc(mode) = self { mode } else { IlbcMode::Ms30 }
    }

    pub fn g7221(self) -> G7221Rate {
        if let CodecFormat::G7221(rate) = self { rate } else { G7221Rate::K32 }
    }

    pub fn amr_wb(self) -> amr_wb::Format {
        if let CodecFormat::AmrWb(format) = self { format } else { amr_wb::Format::default() }
    }
}
