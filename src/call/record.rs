//! What a call writes into its record: at the INVITE, at the answer, at each heartbeat and at the
//! end. The record's own shape is `billing::cdr`; this file only fills it in.

use crate::billing::cdr::{CallDirection, Cdr, MediaSummary, Source};
use crate::ground::{CallKey, Flow, Now, Transport};
use crate::media::plan::MediaReport;
use crate::outgoing::Wanted;
use crate::refusal::{EndCause, RefusalPolicy};
use crate::sip::msg::Request;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The record of an INVITE that has just been admitted.
pub fn open(key: CallKey, now: Now, flow: Flow, request: &Request) -> Cdr {
    let source = Source { address: flow.peer, transport: flow.transport };
    let call_id = request.call_id().to_owned();
    let mut cdr = Cdr::opened(key, CallDirection::Incoming, source, call_id, now.wall);
    let from = request.from();
    cdr.from_uri = from.uri().as_str().to_owned();
    cdr.from_display = from.display_name().map(|name| name.into_owned());
    cdr.to_uri = request.to().uri().as_str().to_owned();
    cdr
}

/// The record of a call that a client asked for. Its far end is known when it answers.
pub fn open_outgoing(key: CallKey, now: Now, wanted: &Wanted, sip_call_id: String) -> Cdr {
    let nobody = SocketAddr::new(IpAddr::from([0; 4]), 0);
    let source = Source { address: nobody, transport: Transport::Udp };
    let mut cdr = Cdr::opened(key, CallDirection::Outgoing, source, sip_call_id, now.wall);
    cdr.from_uri = wanted.from.trim_matches(['<', '>']).to_owned();
    cdr.to_uri = wanted.callee.uri.clone();
    cdr.caller_id = Some(wanted.caller.clone());
    cdr.agent_id = wanted.agent_id.clone();
    cdr.routed_by = Some("outgoing".to_owned());
    cdr
}

/// What is kept of a caller's Reason header.
const TOLD_CHARS_MAX: usize = 200;

/// Closes the record: both clocks, who ended the call and why, and the final status.
pub fn close(
    cdr: &mut Cdr,
    now: Now,
    clocks: (Duration, Duration),
    cause: &EndCause,
    policy: RefusalPolicy,
) {
    cdr.set_times(clocks.0, clocks.1);
    cdr.ended_at = Some(now.wall);
    cdr.left_at = cdr.left_at.or(cdr.joined_at.and(Some(now.wall)));
    cdr.ended_by = Some(cause.ended_by());
    cdr.end = Some(cause.label().to_owned());
    let words = cause.words(policy);
    match cause {
        EndCause::CallerCancelled => set_status(cdr, 487, "Request Terminated"),
        EndCause::CalleeRefused { .. } | EndCause::NotReached(_) | EndCause::NoAnswer => {
            let status = cause.outgoing_status();
            set_status(cdr, status.code, &status.reason);
            cdr.warning = Some(words.clone());
        }
        EndCause::HungUp if cdr.answered_at.is_none() => {
            set_status(cdr, 487, "Request Terminated");
        }
        EndCause::Refused(refusal) => {
            let status = refusal.answer(policy).status;
            set_status(cdr, status.code, &status.reason);
            cdr.warning = Some(words.clone());
        }
        _ => {}
    }
    // A Reason header that the caller sent with its BYE or CANCEL is worth more than our words.
    let told = cdr.end_reason.take();
    let told = told.map(|text| text.chars().take(TOLD_CHARS_MAX).collect::<String>());
    cdr.end_reason = Some(told.map_or(words.clone(), |told| format!("{words} ({told})")));
}

/// The final status of the INVITE.
pub fn set_status(cdr: &mut Cdr, code: u16, reason: &str) {
    cdr.status = Some(code);
    cdr.status_reason = Some(reason.to_owned());
}

/// The figures of the media session.
pub fn set_media(cdr: &mut Cdr, report: &MediaReport) {
    cdr.media = Some(MediaSummary::from(report));
}
