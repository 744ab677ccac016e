//! Ultravox's wire shapes: what the REST bodies and the data messages mean, and which fields, types
//! and bounds both sides keep to. Bytes and JSON values in, plain values out, and back. This module
//! opens no connection and asks no clock.

pub mod agent;
pub mod create_call;
pub mod data_message;
pub mod schema;
pub mod sip_details;
pub mod stage;
pub mod stream;
pub mod tool;

use std::fmt;
use std::time::Duration;

/// Ultravox's own identifier of a call (`callId`, a UUID). Never a SIP Call-ID, never a `CallKey`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(Box<str>);

impl CallId {
    /// Letters, digits and hyphens, 1 to 64 of them: safe in a path, a log and a record.
    pub fn parse(text: &str) -> Option<CallId> {
        is_identifier(text).then(|| CallId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True for what may stand in a path segment as an id: 1 to 64 letters, digits and hyphens.
pub fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A duration in the protobuf form of JSON: `15s`, `0.384s`; at most nine decimals.
pub fn duration_text(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if nanos == 0 {
        return format!("{seconds}s");
    }
    let decimals = format!("{nanos:09}");
    format!("{seconds}.{}s", decimals.trim_end_matches('0'))
}

/// Reads `^(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,9})?s$`. The schema allows a minus sign, which no
/// duration of ours can mean: `None`, as for everything else that does not fit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if (1..=9).contains(&decimals.len()) => (whole, decimals),
        Some(_) => return None,
        None => (number, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !(1..=12).contains(&whole.len()) || leading_zero || !digits(whole) || !digits(decimals) {
        return None;
    }
    let nanos: u32 = format!("{decimals:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_the_protobuf_form_and_read_back() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(15), "15s"),
            (Duration::from_millis(384), "0.384s"),
            (Duration::new(3600, 1), "3600.000000001s"),
        ] {
            assert_eq!(duration_text(duration), text);
            assert_eq!(parse_duration(text), Some(duration));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "s", "15", "-1s", "01s", "1.s", "1.0000000001s", ".5s", "1e3s", "1234567890123s"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_call_id_is_safe_in_a_path() {
        assert!(CallId::parse("6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11").is_some());
        for text in ["", "../x", "a b", "a\r\n", &"a".repeat(65)] {
            assert_eq!(CallId::parse(text), None, "{text:?}");
        }
    }
}
