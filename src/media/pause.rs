//! How the pauses of a leg's agent are told to its peer, by what was agreed. When they are is the
//! pacer's matter.

use super::plan::{CodecPlan, PausePlan};
use crate::codec::{CodecKind, amr_wb};
use std::time::Duration;

/// A pause that is told by comfort noise is told again after this long.
const NOISE_INTERVAL: Duration = Duration::from_secs(1);
/// Opus tells of a pause by a frame in twenty of the usual length (RFC 7587 §3.1.3).
const OPUS_INTERVAL: Duration = Duration::from_millis(400);

/// AMR-WB: a SID in eight frames (3GPP TS 26.193 §5.1.2).
const SID_INTERVAL: Duration = Duration::from_millis(160);
/// The longest payload of one SID.
const SID_BYTES_MAX: usize = 80;

/// How the peer learns of our pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// Silence is sent.
    Sent,
    /// Comfort noise under this number, now and then.
    Noise { payload_type: u8 },
    /// A frame of the codec's silence, now and then.
    Sparse,
    /// A frame of the codec's own that describes the pause, now and then.
    Sid,
}

impl Pause {
    pub(super) fn of(plan: &CodecPlan, pauses: PausePlan) -> Pause {
        let noise = pauses.comfort_noise.map(|noise| noise.send_payload_type);
        match (plan.kind, noise) {
            _ if !pauses.suppress => Pause::Sent,
            (CodecKind::Opus, _) if plan.format.opus().dtx => Pause::Sparse,
            (CodecKind::Opus, _) => Pause::Sent,
            (CodecKind::AmrWb, _) => Pause::Sid,
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
            Pause::Sid => SID_INTERVAL,
        }
    }
}

/// The payload of [`Pause::Sid`]; `None` where the codec makes none.
pub(super) fn sid(plan: &CodecPlan) -> Option<Box<[u8]>> {
    let mut payload = [0; SID_BYTES_MAX];
    let len = amr_wb::silent_pause(plan.format.amr_wb(), &mut payload).ok()?;
    payload.get(..len).map(Into::into)
}
