//! `sipDetails` of a call, as `GET /api/calls/{id}` has it: what the SIP side is billed for, and why it
//! ended.

use super::duration_text;
use serde_json::{Value, json};
use std::time::Duration;

/// The SIP side of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SipSide {
    /// Billed so far.
    pub billed: Duration,
    pub answered: bool,
    /// Final status of the INVITE, once there is one.
    pub status: Option<u16>,
    pub ended: bool,
}

/// The member's value. Satisfies [`super::schema::sip::SIP_DETAILS`].
pub fn sip_details(side: SipSide) -> Value {
    let reason = side.ended.then(|| termination_reason(side.answered, side.status));
    json!({ "billedDuration": duration_text(side.billed), "terminationReason": reason })
}

/// One of [`super::schema::sip::TERMINATION_REASONS`]. Ultravox's own table is not published; one
/// platform reads its reasons as the SIP codes that are first in each row here.
pub fn termination_reason(answered: bool, status: Option<u16>) -> &'static str {
    match status {
        _ if answered => "SIP_TERMINATION_NORMAL",
        Some(200..=299) => "SIP_TERMINATION_NORMAL",
        Some(404 | 410 | 416 | 484 | 485 | 604) => "SIP_TERMINATION_INVALID_NUMBER",
        Some(480 | 408 | 504) => "SIP_TERMINATION_TIMEOUT",
        Some(486 | 600) => "SIP_TERMINATION_BUSY",
        Some(487) => "SIP_TERMINATION_CANCELED",
        Some(603 | 401 | 403 | 407 | 488 | 606 | 607 | 608) => "SIP_TERMINATION_REJECTED",
        Some(500..=599) => "SIP_TERMINATION_DESTINATION_UNAVAILABLE",
        Some(_) | None => "SIP_TERMINATION_UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::sip::{SIP_DETAILS, TERMINATION_REASONS};
    use super::*;

    #[test]
    fn every_status_has_a_reason_of_the_schema() {
        for answered in [true, false] {
            for status in (100..=699).map(Some).chain([None]) {
                assert!(TERMINATION_REASONS.contains(&termination_reason(answered, status)));
            }
        }
        for (status, word) in [
            (404, "INVALID_NUMBER"),
            (480, "TIMEOUT"),
            (503, "DESTINATION_UNAVAILABLE"),
            (486, "BUSY"),
            (487, "CANCELED"),
            (603, "REJECTED"),
            (302, "UNKNOWN"),
        ] {
            let reason = termination_reason(false, Some(status));
            assert_eq!(reason, format!("SIP_TERMINATION_{word}"), "{status}");
        }
        assert_eq!(termination_reason(true, Some(500)), "SIP_TERMINATION_NORMAL");
    }

    #[test]
    fn details_keep_to_the_schema_while_live_and_after() {
        let live = SipSide {
            billed: Duration::from_secs(12),
            answered: true,
            status: Some(200),
            ended: false,
        };
        let shown = sip_details(live);
        assert_eq!(shown, json!({"billedDuration": "12s", "terminationReason": null}));
        assert_eq!(SIP_DETAILS.check(&shown), []);
        let ended = sip_details(SipSide { ended: true, ..live });
        assert_eq!(ended["terminationReason"], "SIP_TERMINATION_NORMAL");
        assert_eq!(SIP_DETAILS.check(&ended), []);
    }
}
