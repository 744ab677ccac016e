//! The one place that knows SIP codes for the product's failures (house §6). The RFC's own faults
//! (400, 405, 415, 420, 481 …) are chosen in `sip::status`; everything that goes wrong with an
//! agent, a rule, media or capacity becomes a status here, one match each and no wildcard arm.
//! An answer carries two texts: the reason phrase for the wire, and the detail for the log, the
//! call record, the ladder and the `Warning` header (RFC 3261 §20.43).

use crate::billing::cdr::EndedBy;
use crate::fallback::FallbackFault;
use crate::media::plan::AgentStreamFault;
use crate::sdp::OfferFault;
use crate::sip::status::StatusLine;
use crate::sip::ua::DialFault;
use crate::ultravox::create_call::CreateFault;
use std::time::Duration;

/// Why an INVITE is not answered with 200, grouped by whose fault it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The source lies in no allowed range any more (the door lets nobody else in).
    NotListed,
    /// No allowance matches and no fallback handler is configured.
    NoMatch { to_user: String },
    /// The To URI has no user part to match.
    NoToUser,
    /// The offer cannot be used.
    Offer(OfferFault),
    /// A body that is no session description.
    UnreadableBody { content_type: String },
    /// The fallback handler made no decision.
    Fallback(FallbackFault),
    /// The fallback handler rejected the call with this status, 400 to 699.
    Rejected { code: u16 },
    /// Agent calls are not created fast enough for this caller to wait.
    NoTurn { retry_after: Duration },
    /// Ultravox did not create the call.
    AgentCall(CreateFault),
    /// The agent stream could not be prepared or joined.
    AgentStream(AgentStreamFault),
    /// The whole set-up took longer than its budget, in this stage.
    SetupTimedOut(Stage),
    /// As many calls as `limits.calls_max` allows are up.
    Full,
    /// The media plane is near its limit: audio would suffer.
    Overloaded,
    /// SIGTERM came; running calls go on, new ones go elsewhere.
    Draining,
    /// Every media port is in use.
    PortsExhausted,
    /// No media port could be bound.
    BindFailed,
    /// The caller's connection closed while it rang: nobody is there to be answered.
    CallerLost,
    /// Taking a call over is not allowed here, or the leg is not up (RFC 3891 §3).
    NotReplaced,
    /// A new offer came while the last one was not answered (RFC 3311 §5.2).
    OfferPending,
    /// Our own bug.
    Bug,
}

/// What a call waits for while its caller hears ringing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Fallback,
    Agent,
    Turn,
    AgentCall,
    AgentStream,
    Media,
}

/// Why a REFER of the peer is not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferRefusal {
    /// The configuration does not want it (`transfers.follow_refer`), or it came on another leg.
    NotFollowed,
    /// Refer-To is missing or cannot be read.
    BadTarget,
    /// `[outgoing]` does not allow the target.
    NotAllowed,
    /// Another transfer is under way.
    Busy,
}

impl ReferRefusal {
    pub fn status(self) -> StatusLine {
        StatusLine::of(match self {
            ReferRefusal::NotFollowed => 603,
            ReferRefusal::BadTarget => 400,
            ReferRefusal::NotAllowed => 403,
            ReferRefusal::Busy => 491,
        })
    }
}

/// How a refusal looks on the wire and in the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: StatusLine,
    /// Seconds for `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// `warn-code` of RFC 3261 §20.43.
    pub warn_code: u16,
    /// One sentence for operators. It never holds a secret, nor the caller's number.
    pub detail: String,
    /// Someone should look: our key, our account or our code is at fault.
    pub alarm: bool,
}

/// What the operator may choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusalPolicy {
    /// Status for a call that no allowance matches: 404 unless configured otherwise.
    pub no_match_status: u16,
}

impl Default for RefusalPolicy {
    fn default() -> Self {
        RefusalPolicy { no_match_status: 404 }
    }
}

/// `Retry-After` when nobody told us a better figure.
const RETRY_AFTER_S: u32 = 5;
/// `Retry-After` of an offer that came too early: 0 to 10 s (RFC 3311 §5.2).
const OFFER_RETRY_S: u32 = 2;
/// Warn-code for anything that no other code fits.
const MISCELLANEOUS: u16 = 399;
/// Warn-code "incompatible media format".
const INCOMPATIBLE_MEDIA: u16 = 305;
/// Warn-code "incompatible network address formats".
const INCOMPATIBLE_ADDRESS: u16 = 301;

impl Refusal {
    /// A REFER of the peer that is followed (RFC 3515 §2.4.2).
    pub fn accepted_referral() -> StatusLine {
        StatusLine::of(202)
    }

    /// The refusal in a word, for the log: it holds nothing that a peer sent.
    pub fn label(&self) -> &'static str {
        match self {
            Refusal::NotListed => "source not listed",
            Refusal::NoMatch { .. } | Refusal::NoToUser => "no allowance matches",
            Refusal::Offer(_) => "offer not usable",
            Refusal::UnreadableBody { .. } => "body not read",
            Refusal::Fallback(_) => "fallback handler failed",
            Refusal::Rejected { .. } => "rejected by the fallback handler",
            Refusal::NoTurn { .. } => "no turn for the agent call",
            Refusal::AgentCall(_) => "agent call not created",
            Refusal::AgentStream(_) => "agent stream not joined",
            Refusal::SetupTimedOut(_) => "set-up timed out",
            Refusal::Full => "full",
            Refusal::Overloaded => "overloaded",
            Refusal::Draining => "draining",
            Refusal::PortsExhausted => "no media port left",
            Refusal::BindFailed => "no media port can be bound",
            Refusal::CallerLost => "connection lost while ringing",
            Refusal::NotReplaced => "not taken over",
            Refusal::OfferPending => "an offer is pending",
            Refusal::Bug => "internal error",
        }
    }

    /// The status, the headers and the words of this refusal.
    pub fn answer(&self, policy: RefusalPolicy) -> Answer {
        match self {
            Refusal::NotListed => plain(403, "the source lies in no allowed range"),
            Refusal::NoMatch { to_user } => Answer {
                status: StatusLine::of(policy.no_match_status),
                ..plain(404, &format!("no allowance matches the To user \"{to_user}\""))
            },
            Refusal::NoToUser => Answer {
                status: StatusLine::of(policy.no_match_status),
                ..plain(404, "the To URI has no user part, so no allowance can match")
            },
            Refusal::Offer(fault) => offer(fault),
            Refusal::UnreadableBody { content_type } => {
                plain(415, &format!("a body of type {content_type} is not read here"))
            }
            Refusal::Fallback(fault) => fallback(fault),
            Refusal::Rejected { code } => plain(*code, "the fallback handler rejected the call"),
            Refusal::NoTurn { retry_after } => retry(
                Some(*retry_after),
                "agent calls cannot be created as fast as callers come (ultravox.creations_per_second)",
            ),
            Refusal::AgentCall(fault) => agent_call(fault),
            Refusal::AgentStream(fault) => agent_stream(fault),
            Refusal::SetupTimedOut(stage) => timed_out(*stage),
            Refusal::Full => busy("as many calls are up as limits.calls_max allows"),
            Refusal::Overloaded => busy("the media plane is at its limit"),
            Refusal::Draining => busy("this edge is draining; try another"),
            Refusal::PortsExhausted => busy("every media port is in use (media.ports)"),
            Refusal::BindFailed => Answer {
                alarm: true,
                ..busy("no media port could be bound (media.address, media.ports)")
            },
            Refusal::CallerLost => plain(487, "the caller's connection closed while it rang"),
            Refusal::NotReplaced => {
                plain(603, "calls are not taken over here (transfers.replaces)")
            }
            Refusal::OfferPending => Answer {
                retry_after_s: Some(OFFER_RETRY_S),
                ..plain(500, "the last offer has no answer yet")
            },
            Refusal::Bug => {
                Answer { alarm: true, ..plain(500, "internal error; the log has the details") }
            }
        }
    }
}

fn offer(fault: &OfferFault) -> Answer {
    let (warn_code, detail) = match fault {
        OfferFault::Malformed(what) => {
            (MISCELLANEOUS, format!("the session description cannot be read: {what}"))
        }
        OfferFault::NoCommonCodec => {
            (INCOMPATIBLE_MEDIA, "the offer has no codec in common with this edge".into())
        }
        OfferFault::NoAudio => (INCOMPATIBLE_MEDIA, "the offer has no audio that we take".into()),
        OfferFault::EncryptedOnly => {
            (INCOMPATIBLE_MEDIA, "the offer has encrypted media only, and srtp.policy is off".into())
        }
        OfferFault::NoUsableKeys => (
            INCOMPATIBLE_MEDIA,
            "the offer has encrypted media only, and no a=crypto line of a suite that we have \
             (DTLS-SRTP is not taken)"
                .into(),
        ),
        OfferFault::KeysInClear => (
            INCOMPATIBLE_MEDIA,
            "SRTP keys need signalling over TLS, or srtp.insecure_signalling where nobody else can \
             read it"
                .into(),
        ),
        OfferFault::PlainOnly => {
            (INCOMPATIBLE_MEDIA, "plain RTP is not taken: srtp.policy is required".into())
        }
        OfferFault::BadAddress => {
            (INCOMPATIBLE_ADDRESS, "the media address cannot be sent to".into())
        }
        OfferFault::AnswerMismatch => (MISCELLANEOUS, "the answer does not fit our offer".into()),
        OfferFault::OfferPending => (MISCELLANEOUS, "our own offer has no answer yet".into()),
    };
    Answer { warn_code, ..plain(488, &detail) }
}

fn fallback(fault: &FallbackFault) -> Answer {
    let detail = fault.to_string();
    match fault {
        FallbackFault::TimedOut => plain(504, &detail),
        FallbackFault::BadUrl | FallbackFault::PrivateAddress => alarm(502, &detail),
        FallbackFault::Unreachable
        | FallbackFault::Status(_)
        | FallbackFault::TooLong
        | FallbackFault::NotJson
        | FallbackFault::NotOneOfThree { .. }
        | FallbackFault::Member(_) => plain(502, &detail),
    }
}

fn agent_call(fault: &CreateFault) -> Answer {
    match fault {
        CreateFault::BadRequest => plain(488, "Ultravox refused the call's configuration"),
        CreateFault::NotFound => plain(488, "Ultravox knows no such agent"),
        CreateFault::Unauthorized => alarm(500, "Ultravox refused our API key (ultravox.api_key)"),
        CreateFault::PaymentRequired => {
            alarm(503, "Ultravox wants payment (402): look at the account's billing")
        }
        CreateFault::TooMany { retry_after } => {
            retry(*retry_after, "Ultravox has no free call for this account now (429)")
        }
        CreateFault::Unavailable { retry_after } => {
            retry(*retry_after, "Ultravox lacks capacity now (503)")
        }
        CreateFault::ServerError(code) => {
            busy(&format!("Ultravox answered {code} when the call was created"))
        }
        CreateFault::TimedOut => plain(504, "Ultravox did not create the call in time"),
        CreateFault::Unreachable => busy("Ultravox could not be reached"),
        CreateFault::BadAnswer => busy("Ultravox's answer could not be read"),
    }
}

fn agent_stream(fault: &AgentStreamFault) -> Answer {
    match fault {
        AgentStreamFault::BadUrl(why) => {
            alarm(503, &format!("the agent stream's address cannot be used: {why}"))
        }
        AgentStreamFault::Unreachable(why) => {
            busy(&format!("the agent stream could not be reached: {why}"))
        }
        AgentStreamFault::Refused(code) => {
            busy(&format!("the agent stream refused to be joined ({code})"))
        }
        AgentStreamFault::BadHandshake(why) => {
            busy(&format!("the agent stream's handshake failed: {why}"))
        }
        AgentStreamFault::TimedOut => busy("the agent stream was not joined in time"),
    }
}

fn timed_out(stage: Stage) -> Answer {
    match stage {
        Stage::Fallback => plain(504, "the fallback handler did not answer in time"),
        Stage::Agent => plain(504, "the agent could not be read in time"),
        Stage::Turn => busy("the agent call's turn did not come in time"),
        Stage::AgentCall => plain(504, "Ultravox did not create the call in time"),
        Stage::AgentStream => busy("the agent stream was not joined in time"),
        Stage::Media => busy("media was not ready in time"),
    }
}

fn plain(code: u16, detail: &str) -> Answer {
    Answer {
        status: StatusLine::of(code),
        retry_after_s: None,
        warn_code: MISCELLANEOUS,
        detail: detail.to_owned(),
        alarm: false,
    }
}

fn alarm(code: u16, detail: &str) -> Answer {
    Answer { alarm: true, ..plain(code, detail) }
}

fn busy(detail: &str) -> Answer {
    Answer { retry_after_s: Some(RETRY_AFTER_S), ..plain(503, detail) }
}

fn retry(after: Option<Duration>, detail: &str) -> Answer {
    let seconds = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let seconds =
        after.map_or(RETRY_AFTER_S, |wait| u32::try_from(seconds(wait)).unwrap_or(u32::MAX).max(1));
    Answer { retry_after_s: Some(seconds), ..plain(503, detail) }
}

/// Why a call that was answered, or given up by its caller, ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndCause {
    /// BYE from the caller.
    CallerHungUp,
    /// CANCEL, or BYE before the answer.
    CallerCancelled,
    /// The agent closed its stream with 1000.
    AgentHungUp,
    /// The agent stream broke, or was closed with this other code.
    AgentLost(Option<u16>),
    /// No media from the caller for `limits.rtp_timeout`.
    CallerSilent,
    /// On hold, with no sign of life for `limits.hold_max`.
    HeldTooLong,
    /// The 200 was never acknowledged.
    NeverAcked,
    /// The answer in the ACK cannot be used, or is missing.
    BadAnswer,
    /// The grace period of a drain ran out.
    Drained,
    /// Refused before the answer.
    Refused(Refusal),
    /// BYE from the callee of an outgoing call.
    CalleeHungUp,
    /// The callee's side refused an outgoing call with this status.
    CalleeRefused { code: u16, reason: String },
    /// Nobody answered the INVITE of an outgoing call.
    NotReached(Unreached),
    /// The callee's phone rang for as long as `outgoing.ring_timeout_s` allows.
    NoAnswer,
    /// The client gave up an outgoing call.
    HungUp,
    /// As long as `outgoing.length_max_s` allows.
    TooLong,
    /// The caller has the target of a transfer, by a REFER that succeeded.
    Transferred,
    /// BYE of a transfer's target, after both legs were bridged.
    TargetHungUp,
    /// No media from a bridged target, or no sign of life on hold.
    TargetSilent,
    /// Bridged for as long as `transfers.bridged_max_s` allows.
    BridgedTooLong,
    /// A session timer ran out: no refresh came (RFC 4028 §10).
    SessionExpired,
    /// Our own bug, after the answer.
    Bug,
}

/// Why the callee's side of an outgoing call gave no answer that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreached {
    /// The name has no address, or no name server told it.
    Unknown,
    /// Refused, unreachable, lost, or no TLS.
    Unreachable,
    /// Reached and silent.
    Silent,
    /// It wants other credentials than those that were given.
    Credentials,
    /// A message that cannot be written.
    Unwritable,
    /// SRTP is required on the only ways to it, and keys would go in the clear.
    KeysInClear,
}

impl Unreached {
    /// What a fault of the user agent means for the call.
    pub fn of(fault: &DialFault) -> Unreached {
        match fault {
            DialFault::BadTarget(_) | DialFault::NotLocated(_) => Unreached::Unknown,
            DialFault::NotConnected(_) | DialFault::FlowLost => Unreached::Unreachable,
            DialFault::TimedOut => Unreached::Silent,
            DialFault::Digest(_) => Unreached::Credentials,
            DialFault::Unwritable => Unreached::Unwritable,
            DialFault::NoBody => Unreached::KeysInClear,
        }
    }

    /// The status that the record gets (RFC 3261 §8.1.3.1: 408 for silence, 503 for the network).
    fn status(self) -> u16 {
        match self {
            Unreached::Unknown | Unreached::Unreachable => 503,
            Unreached::Silent => 408,
            Unreached::Credentials => 403,
            Unreached::Unwritable => 500,
            Unreached::KeysInClear => 488,
        }
    }

    /// One sentence for the record and the ladder.
    pub fn words(self) -> &'static str {
        match self {
            Unreached::Unknown => "the callee's host has no address",
            Unreached::Unreachable => "the callee's host cannot be reached",
            Unreached::Silent => "the callee's host did not answer",
            Unreached::Credentials => "the callee's side refused our credentials",
            Unreached::Unwritable => "the INVITE could not be written",
            Unreached::KeysInClear => {
                "SRTP is required towards the callee, whose host is not reached over TLS"
            }
        }
    }
}

/// What is kept of a reason phrase that a peer wrote.
const REASON_CHARS_MAX: usize = 80;

impl EndCause {
    /// The `Reason` header of our BYE (RFC 3326, Q.850 causes); `None` when the caller ended it.
    pub fn reason_header(&self) -> Option<&'static str> {
        match self {
            EndCause::CallerHungUp
            | EndCause::CallerCancelled
            | EndCause::Refused(_)
            | EndCause::CalleeHungUp
            | EndCause::CalleeRefused { .. }
            | EndCause::NotReached(_) => None,
            EndCause::NoAnswer => Some("Q.850;cause=19;text=\"No answer\""),
            EndCause::HungUp => Some("Q.850;cause=16;text=\"Call given up\""),
            EndCause::TooLong => Some("Q.850;cause=16;text=\"Longest call time reached\""),
            EndCause::AgentHungUp => Some("Q.850;cause=16;text=\"Agent hung up\""),
            EndCause::AgentLost(_) => Some("Q.850;cause=41;text=\"Agent stream lost\""),
            EndCause::CallerSilent => Some("Q.850;cause=102;text=\"No media received\""),
            EndCause::HeldTooLong => Some("Q.850;cause=102;text=\"On hold for too long\""),
            EndCause::NeverAcked => Some("Q.850;cause=102;text=\"No ACK received\""),
            EndCause::BadAnswer => Some("SIP;cause=488;text=\"Not Acceptable Here\""),
            EndCause::Drained => Some("Q.850;cause=38;text=\"Edge is shutting down\""),
            EndCause::Transferred => Some("Q.850;cause=16;text=\"Call transferred\""),
            EndCause::TargetHungUp => Some("Q.850;cause=16;text=\"Target hung up\""),
            EndCause::TargetSilent => Some("Q.850;cause=102;text=\"No media received\""),
            EndCause::BridgedTooLong => Some("Q.850;cause=16;text=\"Longest call time reached\""),
            EndCause::SessionExpired => Some("SIP;cause=408;text=\"Session timer expired\""),
            EndCause::Bug => Some("SIP;cause=500;text=\"Server Internal Error\""),
        }
    }

    /// What ends a call that was not answered is a refusal, unless its caller gave up.
    pub fn before_answer(self) -> EndCause {
        match self {
            EndCause::CallerHungUp
            | EndCause::CallerCancelled
            | EndCause::Refused(_)
            | EndCause::CalleeRefused { .. }
            | EndCause::NotReached(_)
            | EndCause::NoAnswer
            | EndCause::HungUp => self,
            EndCause::Drained => EndCause::Refused(Refusal::Draining),
            EndCause::AgentHungUp
            | EndCause::AgentLost(_)
            | EndCause::CallerSilent
            | EndCause::HeldTooLong
            | EndCause::NeverAcked
            | EndCause::BadAnswer
            | EndCause::CalleeHungUp
            | EndCause::TooLong
            | EndCause::Transferred
            | EndCause::TargetHungUp
            | EndCause::TargetSilent
            | EndCause::BridgedTooLong
            | EndCause::SessionExpired
            | EndCause::Bug => EndCause::Refused(Refusal::Bug),
        }
    }

    /// The final status of an outgoing call that was not answered.
    pub fn outgoing_status(&self) -> StatusLine {
        match self {
            EndCause::CalleeRefused { code, reason } => {
                let plain = |c: &char| !c.is_control();
                let reason: String = reason.chars().filter(plain).take(REASON_CHARS_MAX).collect();
                match reason.is_empty() {
                    true => StatusLine::of(*code),
                    false => StatusLine::new(*code, reason),
                }
            }
            EndCause::NotReached(unreached) => StatusLine::of(unreached.status()),
            EndCause::NoAnswer => StatusLine::of(480),
            _ => StatusLine::of(500),
        }
    }

    /// Who ended it.
    pub fn ended_by(&self) -> EndedBy {
        match self {
            EndCause::CallerHungUp
            | EndCause::CallerCancelled
            | EndCause::CallerSilent
            | EndCause::HeldTooLong
            | EndCause::Refused(Refusal::CallerLost) => EndedBy::Caller,
            EndCause::AgentHungUp | EndCause::AgentLost(_) | EndCause::Transferred => {
                EndedBy::Agent
            }
            EndCause::TargetHungUp | EndCause::TargetSilent => EndedBy::Target,
            EndCause::CalleeHungUp | EndCause::CalleeRefused { .. } => EndedBy::Callee,
            EndCause::HungUp => EndedBy::Client,
            EndCause::NeverAcked
            | EndCause::BadAnswer
            | EndCause::Drained
            | EndCause::Refused(_)
            | EndCause::NotReached(_)
            | EndCause::NoAnswer
            | EndCause::TooLong
            | EndCause::BridgedTooLong
            | EndCause::SessionExpired
            | EndCause::Bug => EndedBy::Edge,
        }
    }

    /// The end in a word, for the log: it holds nothing that a peer sent.
    pub fn label(&self) -> &'static str {
        match self {
            EndCause::CallerHungUp => "caller hung up",
            EndCause::CallerCancelled => "caller gave up",
            EndCause::AgentHungUp => "agent hung up",
            EndCause::AgentLost(_) => "agent stream lost",
            EndCause::CallerSilent => "no media from the caller",
            EndCause::HeldTooLong => "held too long",
            EndCause::NeverAcked => "answer never acknowledged",
            EndCause::BadAnswer => "unusable answer in the ACK",
            EndCause::Drained => "drained",
            EndCause::Refused(refusal) => refusal.label(),
            EndCause::CalleeHungUp => "callee hung up",
            EndCause::CalleeRefused { .. } => "callee refused",
            EndCause::NotReached(_) => "callee not reached",
            EndCause::NoAnswer => "no answer",
            EndCause::HungUp => "given up by the client",
            EndCause::TooLong => "longest call time",
            EndCause::Transferred => "transferred",
            EndCause::TargetHungUp => "target hung up",
            EndCause::TargetSilent => "no media from the target",
            EndCause::BridgedTooLong => "longest bridged time",
            EndCause::SessionExpired => "session timer expired",
            EndCause::Bug => "internal error",
        }
    }

    /// One sentence for the record and the ladder.
    pub fn words(&self, policy: RefusalPolicy) -> String {
        match self {
            EndCause::CallerHungUp => "the caller hung up".into(),
            EndCause::CallerCancelled => "the caller gave up before the answer".into(),
            EndCause::AgentHungUp => "the agent hung up".into(),
            EndCause::AgentLost(None) => "the agent stream broke".into(),
            EndCause::AgentLost(Some(code)) => format!("the agent stream closed with {code}"),
            EndCause::CallerSilent => "no media came from the caller".into(),
            EndCause::HeldTooLong => "the caller held the call and gave no sign of life".into(),
            EndCause::NeverAcked => "the caller never acknowledged the answer".into(),
            EndCause::BadAnswer => "the caller's ACK brought no usable media description".into(),
            EndCause::Drained => "the edge was shut down".into(),
            EndCause::Refused(refusal) => refusal.answer(policy).detail,
            EndCause::CalleeHungUp => "the callee hung up".into(),
            EndCause::CalleeRefused { .. } => {
                let status = self.outgoing_status();
                format!("the callee's side answered {} {}", status.code, status.reason)
            }
            EndCause::NotReached(unreached) => unreached.words().into(),
            EndCause::NoAnswer => "the callee did not answer in time".into(),
            EndCause::HungUp => "the client gave the call up".into(),
            EndCause::TooLong => "the call was as long as outgoing.length_max_s allows".into(),
            EndCause::Transferred => "the call was transferred".into(),
            EndCause::TargetHungUp => "the transfer's target hung up".into(),
            EndCause::TargetSilent => "no media came from the transfer's target".into(),
            EndCause::BridgedTooLong => {
                "the legs were bridged for as long as transfers.bridged_max_s allows".into()
            }
            EndCause::SessionExpired => "the session was not refreshed in time".into(),
            EndCause::Bug => "internal error; the log has the details".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(refusal: Refusal, expected: &str) {
        let answer = refusal.answer(RefusalPolicy::default());
        let retry = answer.retry_after_s.map_or(String::new(), |s| format!(" retry {s}"));
        let alarm = if answer.alarm { " alarm" } else { "" };
        let line = format!(
            "{} {}{retry}{alarm} | {} {}",
            answer.status.code, answer.status.reason, answer.warn_code, answer.detail
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn each_failure_has_its_status() {
        use CreateFault as C;
        use Refusal as R;
        check(R::NotListed, "403 Forbidden | 399 the source lies in no allowed range");
        check(
            R::NoMatch { to_user: "sales".into() },
            "404 Not Found | 399 no allowance matches the To user \"sales\"",
        );
        check(
            R::Offer(OfferFault::NoCommonCodec),
            "488 Not Acceptable Here | 305 the offer has no codec in common with this edge",
        );
        check(
            R::Offer(OfferFault::PlainOnly),
            "488 Not Acceptable Here | 305 plain RTP is not taken: srtp.policy is required",
        );
        check(
            R::AgentCall(C::TooMany { retry_after: Some(Duration::from_secs(17)) }),
            "503 Service Unavailable retry 17 | 399 Ultravox has no free call for this account now (429)",
        );
        check(
            R::AgentCall(C::Unauthorized),
            "500 Server Internal Error alarm | 399 Ultravox refused our API key (ultravox.api_key)",
        );
        check(
            R::AgentCall(C::PaymentRequired),
            "503 Service Unavailable alarm | 399 Ultravox wants payment (402): look at the account's billing",
        );
        check(
            R::AgentCall(C::TimedOut),
            "504 Server Time-out | 399 Ultravox did not create the call in time",
        );
        check(
            R::AgentCall(C::BadRequest),
            "488 Not Acceptable Here | 399 Ultravox refused the call's configuration",
        );
        check(
            R::Fallback(FallbackFault::TimedOut),
            "504 Server Time-out | 399 the fallback handler did not answer in time",
        );
        check(
            R::Fallback(FallbackFault::Status(302)),
            "502 Bad Gateway | 399 the fallback handler answered 302",
        );
        check(
            R::Fallback(FallbackFault::PrivateAddress),
            "502 Bad Gateway alarm | 399 the fallback handler's address is private and not in fallback.allowed_private",
        );
        check(
            R::Rejected { code: 486 },
            "486 Busy Here | 399 the fallback handler rejected the call",
        );
        check(
            R::NoTurn { retry_after: Duration::from_millis(1_500) },
            "503 Service Unavailable retry 2 | 399 agent calls cannot be created as fast as callers come (ultravox.creations_per_second)",
        );
        check(
            R::AgentStream(AgentStreamFault::Refused(404)),
            "503 Service Unavailable retry 5 | 399 the agent stream refused to be joined (404)",
        );
        check(
            R::SetupTimedOut(Stage::AgentCall),
            "504 Server Time-out | 399 Ultravox did not create the call in time",
        );
        check(
            R::Draining,
            "503 Service Unavailable retry 5 | 399 this edge is draining; try another",
        );
    }

    #[test]
    fn the_operator_chooses_the_status_of_a_call_without_a_match() {
        let policy = RefusalPolicy { no_match_status: 603 };
        let answer = Refusal::NoMatch { to_user: "x".into() }.answer(policy);
        assert_eq!((answer.status.code, answer.status.reason.as_ref()), (603, "Decline"));
    }
}
