//! The table of codecs: names, payload numbers, clocks and rates of each. It codes nothing.

use super::amr_wb;

/// A codec that we can negotiate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CodecKind {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s; sampled at 16 kHz though its RTP clock is 8 kHz (RFC 3551 §4.5.2).
    G722,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
    /// iLBC (RFC 3951, RFC 3952), frames of 20 or 30 ms.
    Ilbc,
    /// G.722.1 at 24 or 32 kbit/s (RFC 5577); its wider variant, Annex C, is another codec.
    G7221,
    /// AMR-WB, which is G.722.2 (RFC 4867).
    AmrWb,
}

impl CodecKind {
    /// Every codec, the most wanted first: wideband before narrowband, and among the wideband ones
    /// those first that sound best for what they cost here.
    pub const ALL: [CodecKind; 7] = [
        CodecKind::Opus,
        CodecKind::G722,
        CodecKind::AmrWb,
        CodecKind::G7221,
        CodecKind::Pcmu,
        CodecKind::Pcma,
        CodecKind::Ilbc,
    ];

    /// Whether this process can encode and decode it: what it cannot is neither offered nor answered.
    /// AMR-WB needs two libraries of the machine.
    pub fn is_available(self) -> bool {
        match self {
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Opus
            | CodecKind::Ilbc
            | CodecKind::G7221 => true,
            CodecKind::AmrWb => amr_wb::is_installed(),
        }
    }

    /// The packages of the machine that code it, by Debian's names; `None` for what is built in.
    pub fn packages(self) -> Option<&'static str> {
        match self {
            CodecKind::AmrWb => Some(amr_wb::PACKAGES),
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Opus
            | CodecKind::Ilbc
            | CodecKind::G7221 => None,
        }
    }

    /// Encoding name as it stands in `a=rtpmap` (RFC 3551 §6, RFC 3952 §4, RFC 4867 §8.2, RFC 5577
    /// §5, RFC 7587 §7). Compare without case.
    pub fn encoding_name(self) -> &'static str {
        match self {
            CodecKind::Pcmu => "PCMU",
            CodecKind::Pcma => "PCMA",
            CodecKind::G722 => "G722",
            CodecKind::Opus => "opus",
            CodecKind::Ilbc => "iLBC",
            CodecKind::G7221 => "G7221",
            CodecKind::AmrWb => "AMR-WB",
        }
    }

    /// The payload number that RFC 3551 §6 gives for good; `None` when it is dynamic.
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            CodecKind::Pcmu => Some(0),
            CodecKind::Pcma => Some(8),
            CodecKind::G722 => Some(9),
            CodecKind::Opus | CodecKind::Ilbc | CodecKind::G7221 | CodecKind::AmrWb => None,
        }
    }

    /// Clock of the RTP timestamps in hertz. G.722 keeps 8,000 by an old error (RFC 3551 §4.5.2);
    /// Opus is always 48,000 (RFC 7587 §4.1).
    pub fn rtp_clock_hz(self) -> u32 {
        match self {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::G722 | CodecKind::Ilbc => 8_000,
            CodecKind::G7221 | CodecKind::AmrWb => 16_000,
            CodecKind::Opus => 48_000,
        }
    }

    /// Channels written in `a=rtpmap`: Opus always says 2 (RFC 7587 §7), also for mono.
    pub fn channels_in_rtpmap(self) -> u8 {
        match self {
            CodecKind::Opus => 2,
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Ilbc
            | CodecKind::G7221
            | CodecKind::AmrWb => 1,
        }
    }

    /// The codec tells of pauses in its own payloads: comfort noise beside it (RFC 3389 §4) has no
    /// use.
    pub fn tells_pauses(self) -> bool {
        match self {
            CodecKind::Opus | CodecKind::AmrWb => true,
            CodecKind::Pcmu
            | CodecKind::Pcma
            | CodecKind::G722
            | CodecKind::Ilbc
            | CodecKind::G7221 => false,
        }
    }

    /// The rate (hertz) of the PCM that the codec works on when audio of `wanted_hz` comes or goes:
    /// that one, where it can, else its own; then a resampler stands between.
    pub fn pcm_rate(self, wanted_hz: u32) -> u32 {
        match self {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::Ilbc => 8_000,
            CodecKind::G722 | CodecKind::G7221 | CodecKind::AmrWb => 16_000,
            CodecKind::Opus if self.supports_rate(wanted_hz) => wanted_hz,
            CodecKind::Opus => 48_000,
        }
    }

    /// Whether the codec can work on PCM of this rate (hertz) without a resampler.
    pub fn supports_rate(self, hz: u32) -> bool {
        match self {
            CodecKind::Pcmu | CodecKind::Pcma | CodecKind::Ilbc => hz == 8_000,
            CodecKind::G722 | CodecKind::G7221 | CodecKind::AmrWb => hz == 16_000,
            CodecKind::Opus => matches!(hz, 8_000 | 12_000 | 16_000 | 24_000 | 48_000),
        }
    }
}
