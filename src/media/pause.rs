//! How the pauses of a leg's agent are told to its peer, by what was agreed. When they are is the
//! pacer's matter.

use super::plan::{CodecPlan, PausePlan};
use crate::codec::CodecKind;
use std::time::Duration;

/// A pause that is told by comfort noise is told again after this long.
const NOISE_INTERVAL: Duration = Duration::from_secs(1);
/// Opus tells of a pause by a frame in twenty of the usual length (RFC 7587 §3.1.3).
const OPUS_INTERVAL: Duration = Duration::from_millis(400);

/// How the peer learns of our pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// Silence is sent.
    Sent,
    /// Comfort noise under this number, now and then.
    Noise { payload_type: u8 },
    /// A frame of the codec's silence, now and then.
    Sparse,
}

impl Pause {
    pub(super) fn of(plan: &CodecPlan, pauses: PausePlan) -> Pause {
        let noise = pauses.comfort_noise.map(|noise| noise.send_payload_type);
        match (plan.kind, noise) {
            _ if !pauses.suppress => Pause::Sent,
            (CodecKind::Opus, _) if plan.format.opus().dtx => Pause::Sparse,
            // Its pauses need frames of their own (SID), which the silence of ours is not.
            (CodecKind::Opus | CodecKind::AmrWb, _) => Pause::Sent,
            (
                CodecKind::Pcmu
                | CodecKind::Pcma
                | CodecKind::G722
                | CodecKind::Ilbc
                | CodecKind::G7221,
                Some(payload_type),
            ) => Pause::Noise { payload_type },
            (_, None) => Pause::Sent,
        }
    }

    pub(super) fn interval(self) -> Duration {
        match self {
            Pause::Sent => Duration::ZERO,
            Pause::Noise { .. } => NOISE_INTERVAL,
            Pause::Sparse => OPUS_INTERVAL,
        }
    }
}
