//! The codecs as a phone uses them: what is agreed, at which rates, and what the phone's encoder makes
//! of speech.

use std::time::Duration;
use voxedge::cli::demo::phone::Wording;
use voxedge::codec::amr_wb::{self, Mode, ModeSet};
use voxedge::codec::{
    CodecFormat, CodecKind, Decoder, Encoder, EncoderSettings, G7221Rate, IlbcMode,
};

/// Longest payload of any codec's packet here.
const PAYLOAD_BYTES_MAX: usize = 1_275;
/// What phones send Opus at, bit/s.
const OPUS_BITRATE: u32 = 32_000;
/// The loss for which a phone adds redundancy, in percent.
const EXPECTED_LOSS: u8 = 5;

/// One way of using a codec.
#[derive(Clone, Copy)]
pub struct Coder {
    pub name: &'static str,
    pub kind: CodecKind,
    pub format: CodecFormat,
    /// Rate at which the phone codes, Hz.
    pub caller_hz: u32,
    /// Rate at which the agent hears, Hz.
    pub agent_hz: u32,
    /// Rate at which the agent speaks and the phone decodes, Hz.
    pub back_hz: u32,
    pub packet_ms: u16,
    /// Opus: the phone adds redundancy.
    pub fec: bool,
}

/// Every codec in every format and rate that sounds different.
pub fn all() -> Vec<Coder> {
    use CodecKind::{AmrWb, G722, G7221, Ilbc, Opus, Pcma, Pcmu};
    let coder = |name, kind, format, hz| {
        let (caller_hz, agent_hz, back_hz, packet_ms, fec) = (hz, hz, hz, 20, false);
        Coder { name, kind, format, caller_hz, agent_hz, back_hz, packet_ms, fec }
    };
    let opus = |name, agent_hz, back_hz| {
        let usual = coder(name, Opus, CodecFormat::Usual, 48_000);
        Coder { agent_hz, back_hz, ..usual }
    };
    let amr_wb = |number| {
        let modes = ModeSet::of(Mode::new(number).into_iter());
        CodecFormat::AmrWb(amr_wb::Format { modes, ..Default::default() })
    };
    let ilbc_30 = coder("iLBC 30 ms", Ilbc, CodecFormat::Ilbc(IlbcMode::Ms30), 8_000);
    vec![
        coder("PCMU", Pcmu, CodecFormat::Usual, 8_000),
        coder("PCMA", Pcma, CodecFormat::Usual, 8_000),
        coder("iLBC 20 ms", Ilbc, CodecFormat::Ilbc(IlbcMode::Ms20), 8_000),
        Coder { packet_ms: 30, ..ilbc_30 },
        opus("Opus 8 kHz", 8_000, 8_000),
        coder("G.722", G722, CodecFormat::Usual, 16_000),
        coder("G.722.1 24", G7221, CodecFormat::G7221(G7221Rate::K24), 16_000),
        coder("G.722.1 32", G7221, CodecFormat::G7221(G7221Rate::K32), 16_000),
        coder("AMR-WB 12.65", AmrWb, amr_wb(2), 16_000),
        coder("AMR-WB 23.85", AmrWb, amr_wb(8), 16_000),
        opus("Opus 16 kHz", 16_000, 16_000),
        Coder { fec: true, ..opus("Opus 16 kHz FEC", 16_000, 16_000) },
        opus("Opus 24 kHz", 24_000, 24_000),
        opus("Opus 48 kHz", 48_000, 48_000),
    ]
}

impl Coder {
    pub fn is_wanted(&self, word: &str) -> bool {
        self.name.to_lowercase().contains(word)
    }

    /// How a phone asks for it.
    pub fn wording(&self) -> Wording {
        let usual = Wording { packet_ms: self.packet_ms, ..Wording::of(self.kind) };
        let fmtp = match self.format {
            CodecFormat::Ilbc(IlbcMode::Ms30) => "mode=30",
            CodecFormat::G7221(G7221Rate::K24) => "bitrate=24000",
            CodecFormat::AmrWb(_) if self.name.ends_with("12.65") => "mode-set=2",
            CodecFormat::AmrWb(_) => "mode-set=8",
            CodecFormat::Usual if self.fec => "useinbandfec=1",
            _ => usual.fmtp,
        };
        Wording { fmtp, ..usual }
    }

    /// Time that a packet holds.
    pub fn packet(&self) -> Duration {
        Duration::from_millis(self.packet_ms.into())
    }

    /// Samples of a packet at a rate.
    pub fn packet_samples(&self, hz: u32) -> usize {
        hz as usize / 1_000 * usize::from(self.packet_ms)
    }

    /// The phone's packets of some speech at `caller_hz`.
    pub fn encode(&self, pcm: &[i16]) -> Vec<Vec<u8>> {
        let bitrate = (self.kind == CodecKind::Opus).then_some(OPUS_BITRATE);
        let settings = EncoderSettings { bitrate, complexity: 9, ..EncoderSettings::default() };
        let mut encoder = Encoder::with_format(self.kind, self.format, self.caller_hz, settings)
            .expect("a rate of the codec");
        encoder.set_expected_loss(if self.fec { EXPECTED_LOSS } else { 0 });
        packets(&mut encoder, pcm, self.packet_samples(self.caller_hz))
    }

    /// As [`Coder::encode`] with the settings of the daemon, from the agent's rate.
    pub fn encode_back(&self, pcm: &[i16]) -> Vec<Vec<u8>> {
        let settings = EncoderSettings::default();
        let mut encoder = Encoder::with_format(self.kind, self.format, self.back_hz, settings)
            .expect("a rate of the codec");
        packets(&mut encoder, pcm, self.packet_samples(self.back_hz))
    }

    pub fn decoder(&self, hz: u32) -> Decoder {
        Decoder::with_format(self.kind, self.format, hz).expect("a rate of the codec")
    }
}

fn packets(encoder: &mut Encoder, pcm: &[i16], samples: usize) -> Vec<Vec<u8>> {
    let mut payload = [0; PAYLOAD_BYTES_MAX];
    let packet = |pcm: &[i16]| {
        let len = encoder.encode(pcm, &mut payload).expect("a whole packet");
        payload[..len].to_vec()
    };
    pcm.chunks_exact(samples).map(packet).collect()
}
