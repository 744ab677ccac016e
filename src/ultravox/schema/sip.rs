//! The shapes of Ultravox's SIP configuration API and of a call's SIP medium. Members that the
//! document marks read-only stand in the tables; who takes a request removes them first.

use super::{Field, Kind, Shape, closed, field, one_of};
use crate::ground::limits;

/// Characters of a registration's texts (OAS: maxLength).
pub const USERNAME_CHARS_MAX: usize = 60;
pub const PROXY_CHARS_MAX: usize = 100;

/// An entry of `allowedAgents`.
pub static AGENT_ALLOWANCE: Shape = closed(
    "AgentAllowance",
    &[
        field("agentId", Kind::Uuid).required(),
        field("toUserPattern", Kind::LimitedText { chars_max: limits::TO_USER_PATTERN_CHARS_MAX }),
    ],
);

pub static FALLBACK_HANDLER: Shape = closed(
    "FallbackHandler",
    &[field("url", Kind::Text).required(), field("secrets", Kind::Texts)],
);

const CIDR_RANGES: Field = field("allowedCidrRanges", Kind::Texts);
const ALLOW_ALL: Field = field("allowAllAgents", Kind::Flag);
const AGENTS: Field = field("allowedAgents", Kind::Objects(&AGENT_ALLOWANCE));
const HANDLER: Field = field("fallbackHandler", Kind::Object(&FALLBACK_HANDLER)).nullable();
const DOMAIN: Field = field("domain", Kind::Text);

/// The answer of `GET` and `PATCH /api/sip`.
pub static SIP_CONFIG: Shape =
    closed("SipConfig", &[CIDR_RANGES, ALLOW_ALL, AGENTS.required(), HANDLER, DOMAIN.required()]);

/// The body of `PATCH /api/sip`.
pub static PATCHED_SIP_CONFIG: Shape =
    closed("PatchedSipConfig", &[CIDR_RANGES, ALLOW_ALL, AGENTS, HANDLER, DOMAIN]);

const REGISTRATION_ID: Field = field("registrationId", Kind::Text);
const CREATED: Field = field("created", Kind::DateTime);
const USERNAME: Field = field("username", Kind::LimitedText { chars_max: USERNAME_CHARS_MAX });
const PASSWORD: Field = field("password", Kind::Text);
const PROXY: Field = field("proxy", Kind::LimitedText { chars_max: PROXY_CHARS_MAX });
const OUTBOUND_PROXY: Field =
    field("outboundProxy", Kind::LimitedText { chars_max: PROXY_CHARS_MAX }).nullable();
const AUTH_USER: Field =
    field("authUser", Kind::LimitedText { chars_max: USERNAME_CHARS_MAX }).nullable();
const SUCCESSFUL: Field = field("successful", Kind::Flag).nullable();

/// A registration as it is answered: all that is required but the password, which is write-only.
pub static SIP_REGISTRATION: Shape = closed(
    "SipRegistration",
    &[
        REGISTRATION_ID.required(),
        CREATED.required(),
        USERNAME.required(),
        PASSWORD,
        PROXY.required(),
        OUTBOUND_PROXY,
        AUTH_USER,
        SUCCESSFUL.required(),
    ],
);

/// The body of `POST /api/sip/registrations`.
pub static NEW_SIP_REGISTRATION: Shape = closed(
    "SipRegistration",
    &[
        REGISTRATION_ID,
        CREATED,
        USERNAME.required(),
        PASSWORD.required(),
        PROXY.required(),
        OUTBOUND_PROXY,
        AUTH_USER,
        SUCCESSFUL,
    ],
);

/// The body of `PATCH /api/sip/registrations/{registration_id}`.
pub static PATCHED_SIP_REGISTRATION: Shape = closed(
    "PatchedSipRegistration",
    &[REGISTRATION_ID, CREATED, USERNAME, PASSWORD, PROXY, OUTBOUND_PROXY, AUTH_USER, SUCCESSFUL],
);

/// The answer of `GET /api/sip/registrations`.
pub static SIP_REGISTRATIONS: Shape = closed(
    "PaginatedSipRegistrationList",
    &[
        field("next", Kind::Text).nullable(),
        field("previous", Kind::Text).nullable(),
        field("results", Kind::Objects(&SIP_REGISTRATION)).required(),
        field("total", Kind::Integer { min: 0, max: i64::MAX }),
    ],
);

/// `medium.sip.outgoing`.
pub static SIP_OUTGOING: Shape = closed(
    "ultravox.v1.SipMedium_SipOutgoing",
    &[
        field("to", Kind::Text),
        field("from", Kind::Text),
        field("username", Kind::Text),
        field("password", Kind::Text),
    ],
);

/// `medium.sip`.
pub static SIP_MEDIUM: Shape = one_of(
    "ultravox.v1.CallMedium_SipMedium",
    &[field("incoming", Kind::FreeObject), field("outgoing", Kind::Object(&SIP_OUTGOING))],
);

/// Why a call's SIP side ended, as Ultravox names it.
pub const TERMINATION_REASONS: [&str; 8] = [
    "SIP_TERMINATION_NORMAL",
    "SIP_TERMINATION_INVALID_NUMBER",
    "SIP_TERMINATION_TIMEOUT",
    "SIP_TERMINATION_DESTINATION_UNAVAILABLE",
    "SIP_TERMINATION_BUSY",
    "SIP_TERMINATION_CANCELED",
    "SIP_TERMINATION_REJECTED",
    "SIP_TERMINATION_UNKNOWN",
];

/// `sipDetails` of a call.
pub static SIP_DETAILS: Shape = closed(
    "CallSipDetails",
    &[
        field("billedDuration", Kind::Text).required().nullable(),
        field("terminationReason", Kind::Choice(&TERMINATION_REASONS)).required().nullable(),
    ],
);
