//! Why a transfer brought nobody together, in words for the agent, which explains it to the caller,
//! and for the record. Never a number or a name of somebody.

use super::ReferFault;
use crate::refusal::Unreached;
use std::borrow::Cow;

/// Characters of an operator's reason that are passed on.
const REASON_CHARS_MAX: usize = 500;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No port, no room, not allowed now: in words.
    NoLeg(Cow<'static, str>),
    /// The target's side answered the INVITE with this status.
    Refused {
        code: u16,
    },
    NotReached(Unreached),
    NoAnswer,
    /// Its answer cannot be used.
    BadAnswer,
    /// It hung up before it had the caller.
    TargetLeft,
    /// Its media stopped.
    TargetSilent,
    /// The agent for the target cannot be had, or was lost.
    NoAgent(&'static str),
    /// The operator did not take the call.
    Declined(Option<String>),
    /// The briefing took too long.
    Undecided,
    /// The caller's side did not carry it out.
    Refer(ReferFault),
}

impl Failure {
    /// One or two sentences for the agent.
    pub fn words(&self) -> String {
        match self {
            Failure::NoLeg(why) => format!("The transfer failed: {why}."),
            Failure::Refused { code } => {
                format!("The transfer failed: {} (SIP status {code}).", status_told(*code).1)
            }
            Failure::NotReached(unreached) => {
                format!("The transfer failed: {}.", unreached.words())
            }
            Failure::NoAnswer => "The transfer failed: nobody answered in time.".into(),
            Failure::BadAnswer => {
                "The transfer failed: the target's telephone cannot be understood.".into()
            }
            Failure::TargetLeft => {
                "The transfer failed: the person called hung up before taking the call.".into()
            }
            Failure::TargetSilent => {
                "The transfer failed: nothing was heard from the person called.".into()
            }
            Failure::NoAgent(why) => {
                format!("The transfer failed: the agent for the person called was lost ({why}).")
            }
            Failure::Declined(None) => "The person called did not take the call.".into(),
            Failure::Declined(Some(reason)) => {
                let reason: String =
                    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
                format!("The person called did not take the call. Their reason: {reason}")
            }
            Failure::Undecided => {
                "The transfer failed: the person called did not decide in time.".into()
            }
            Failure::Refer(fault) => refer_words(*fault),
        }
    }

    /// The failure in a few fixed words, for the record and the ladder.
    pub fn label(&self) -> &'static str {
        match self {
            Failure::NoLeg(_) => "no line for the target",
            Failure::Refused { .. } => "the target refused",
            Failure::NotReached(_) => "the target was not reached",
            Failure::NoAnswer => "the target did not answer",
            Failure::BadAnswer => "unusable answer of the target",
            Failure::TargetLeft => "the target hung up",
            Failure::TargetSilent => "no media from the target",
            Failure::NoAgent(_) => "no agent for the target",
            Failure::Declined(_) => "the operator declined",
            Failure::Undecided => "the briefing took too long",
            Failure::Refer(ReferFault::Refused { .. }) => "REFER refused",
            Failure::Refer(ReferFault::Failed { .. }) => "REFER failed",
            Failure::Refer(ReferFault::Silent) => "no news of the REFER",
            Failure::Refer(ReferFault::Unsent) => "REFER not sent",
            Failure::Refer(ReferFault::Replaced) => "REFER overtaken",
        }
    }

    /// The failure as a label of metrics: in a word, by what the operator would look for.
    pub fn tag(&self) -> &'static str {
        match self {
            Failure::NoLeg(_) => "no_line",
            Failure::Refused { code } => status_told(*code).0,
            Failure::NotReached(Unreached::Credentials) => "credentials",
            Failure::NotReached(
                Unreached::Unknown
                | Unreached::Unreachable
                | Unreached::Silent
                | Unreached::Unwritable
                | Unreached::KeysInClear,
            ) => "unreachable",
            Failure::NoAnswer => "no_answer",
            Failure::BadAnswer => "unusable_answer",
            Failure::TargetLeft => "target_hung_up",
            Failure::TargetSilent => "target_silent",
            Failure::NoAgent(_) => "no_agent",
            Failure::Declined(_) => "operator_declined",
            Failure::Undecided => "undecided",
            Failure::Refer(ReferFault::Refused { .. }) => "refer_refused",
            Failure::Refer(ReferFault::Failed { code }) => status_told(*code).0,
            Failure::Refer(ReferFault::Silent) => "refer_timed_out",
            Failure::Refer(ReferFault::Unsent) => "refer_unsent",
            Failure::Refer(ReferFault::Replaced) => "refer_overtaken",
        }
    }

    /// The SIP status behind it, if there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Failure::Refused { code }
            | Failure::Refer(ReferFault::Refused { code } | ReferFault::Failed { code }) => {
                Some(*code)
            }
            Failure::NoLeg(_)
            | Failure::NotReached(_)
            | Failure::NoAnswer
            | Failure::BadAnswer
            | Failure::TargetLeft
            | Failure::TargetSilent
            | Failure::NoAgent(_)
            | Failure::Declined(_)
            | Failure::Undecided
            | Failure::Refer(ReferFault::Silent | ReferFault::Unsent | ReferFault::Replaced) => {
                None
            }
        }
    }
}

fn refer_words(fault: ReferFault) -> String {
    let system = "The transfer failed: the caller's telephone system";
    match fault {
        ReferFault::Refused { code } => format!("{system} does not transfer (SIP status {code})."),
        ReferFault::Failed { code } => {
            format!("The transfer failed: {} (SIP status {code}).", status_told(code).1)
        }
        ReferFault::Silent => format!("{system} did not carry it out in time."),
        ReferFault::Unsent => format!("{system} is busy with another change."),
        ReferFault::Replaced => {
            "The transfer failed: somebody else took the caller's place meanwhile.".into()
        }
    }
}

/// What a final status means: in a word for metrics, and in words for a person.
fn status_told(code: u16) -> (&'static str, &'static str) {
    match code {
        404 | 410 | 484 | 604 => ("no_such_number", "the number is not in service"),
        408 | 480 | 487 => ("no_answer", "nobody answered"),
        486 | 600 => ("busy", "the line is busy"),
        403 | 603 | 606 => ("declined", "the call was declined"),
        300..=399 => ("moved", "the number has moved"),
        401 | 407 => ("credentials", "the telephone network wants other credentials"),
        _ => ("failed", "the call could not be completed"),
    }
}
