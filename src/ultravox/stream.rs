//! The client side of the agent's media stream, without I/O: a WebSocket (RFC 6455) over which
//! binary messages are raw mono s16le PCM and text messages are one JSON data message each.
//!
//! - `url`: the join URL, taken apart (RFC 6455 §3);
//! - `upgrade`: the opening handshake (§4.1, §4.2.2);
//! - `frame`: reading and writing frames (§5), within the bounds of `ground::limits`.
//!
//! No extension is offered (PCM gains nothing from `permessage-deflate` and would wait for it) and
//! no sub-protocol. The join URL is the credential: nothing here prints more of it than its host.

mod frame;
mod upgrade;
mod url;

pub use frame::{FrameFault, FrameReader, FrameWriter, Incoming};
pub use upgrade::{Upgrade, UpgradeFault};
pub use url::{StreamUrl, UrlFault};

use serde::Deserialize;
use std::borrow::Cow;

/// What a data message is to the media plane, told from its `type` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataMessageKind {
    /// `playback_clear_buffer`: all that is not played yet is to be dropped.
    PlaybackClearBuffer,
    /// `state`: listening, thinking, speaking.
    State,
    /// `transcript`.
    Transcript,
    /// `pong`: the answer to a data-message ping.
    Pong,
    /// Any other type: for signalling to judge.
    Other,
}

impl DataMessageKind {
    /// Looks at `type` without building the message; `None` when `text` is no JSON object with one.
    pub fn of(text: &str) -> Option<DataMessageKind> {
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        let typed: Typed<'_> = serde_json::from_str(text).ok()?;
        Some(match typed.kind.as_ref() {
            "playback_clear_buffer" => DataMessageKind::PlaybackClearBuffer,
            "state" => DataMessageKind::State,
            "transcript" => DataMessageKind::Transcript,
            "pong" => DataMessageKind::Pong,
            _ => DataMessageKind::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_from_the_type() {
        let cases = [
            (r#"{"type":"playback_clear_buffer"}"#, Some(DataMessageKind::PlaybackClearBuffer)),
            (r#"{"state":"idle","type":"state"}"#, Some(DataMessageKind::State)),
            (r#"{"type":"transcript","delta":"type"}"#, Some(DataMessageKind::Transcript)),
            (r#"{"x":{"type":"pong"},"type":"po\u006eg"}"#, Some(DataMessageKind::Pong)),
            (r#"{"type":"client_tool_invocation"}"#, Some(DataMessageKind::Other)),
            (r#"{"x":{"type":"pong"}}"#, None),
            (r#"{"type":7}"#, None),
            (r#"{"type":"pong""#, None),
            ("", None),
        ];
        for (text, kind) in cases {
            assert_eq!(DataMessageKind::of(text), kind, "{text}");
        }
    }
}
