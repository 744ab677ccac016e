//! Every route of the listener with the right that it needs, in one table; the router is built from
//! it, and the tests walk it row by row. Requests are counted by class.

use super::keys::Right;
use super::{
    AdminState, account, api, calls, health, live, metrics, outgoing, pass, registrations, unlisted,
};
use axum::routing::{MethodFilter, MethodRouter, any, on};

/// One row: a method (`*`: all that no other row of the path names), a path, and what it needs.
#[derive(Debug)]
pub struct Row {
    pub method: &'static str,
    pub path: &'static str,
    pub right: Right,
    pub class: Class,
    endpoint: Endpoint,
}

/// What requests are counted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Health and metrics.
    Watch,
    /// The account's configuration and its registrations.
    Account,
    /// Records and ladders.
    Records,
    /// Calls: what the edge answers itself, or adds to.
    Calls,
    /// Passed through to Ultravox.
    Passed,
}

impl Class {
    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Watch => "watch",
            Class::Account => "account",
            Class::Records => "records",
            Class::Calls => "calls",
            Class::Passed => "passed",
        }
    }
}

/// What a row leads to.
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Health,
    Ready,
    Metrics,
    Sip,
    ChangeSip,
    ListRegistrations,
    CreateRegistration,
    FetchRegistration,
    ChangeRegistration,
    RemoveRegistration,
    RegistrationStates,
    NoSuchSip,
    Records,
    Record,
    Ladder,
    EarlyMedia,
    Live,
    Unlisted,
    LogLink,
    Reload,
    InForce,
    CreateWithAgent,
    CreateAlone,
    FetchCall,
    SendDataMessage,
    SipLogs,
    Pass,
}

const fn row(
    method: &'static str,
    path: &'static str,
    right: Right,
    class: Class,
    endpoint: Endpoint,
) -> Row {
    Row { method, path, right, class, endpoint }
}

const AGENT_CALLS: &str = "/api/agents/{agent_id}/calls";
const REGISTRATIONS: &str = "/api/sip/registrations";
const REGISTRATION: &str = "/api/sip/registrations/{registration_id}";

/// The whole table. A path that is not in it is answered 404.
pub const ROUTES: &[Row] = &[
    row("GET", "/health", Right::Open, Class::Watch, Endpoint::Health),
    row("GET", "/ready", Right::Open, Class::Watch, Endpoint::Ready),
    row("GET", "/metrics", Right::Open, Class::Watch, Endpoint::Metrics),
    row("GET", "/api/sip", Right::EitherKey, Class::Account, Endpoint::Sip),
    row("PATCH", "/api/sip", Right::EitherKey, Class::Account, Endpoint::ChangeSip),
    row("GET", REGISTRATIONS, Right::EitherKey, Class::Account, Endpoint::ListRegistrations),
    row("POST", REGISTRATIONS, Right::EitherKey, Class::Account, Endpoint::CreateRegistration),
    row("GET", REGISTRATION, Right::EitherKey, Class::Account, Endpoint::FetchRegistration),
    row("PATCH", REGISTRATION, Right::EitherKey, Class::Account, Endpoint::ChangeRegistration),
    row("DELETE", REGISTRATION, Right::EitherKey, Class::Account, Endpoint::RemoveRegistration),
    // What Ultravox has below this path is ours to answer: never passed on.
    row("*", "/api/sip/", Right::EitherKey, Class::Account, Endpoint::NoSuchSip),
    row("*", "/api/sip/{*rest}", Right::EitherKey, Class::Account, Endpoint::NoSuchSip),
    row("GET", "/edge/calls", Right::EitherKey, Class::Records, Endpoint::Records),
    row("GET", "/edge/calls/{id}", Right::EitherKey, Class::Records, Endpoint::Record),
    row("GET", "/edge/calls/{id}/ladder", Right::EitherKey, Class::Records, Endpoint::Ladder),
    row(
        "GET",
        "/edge/calls/{id}/early_media",
        Right::EitherKey,
        Class::Records,
        Endpoint::EarlyMedia,
    ),
    row("GET", "/edge/live", Right::EitherKey, Class::Records, Endpoint::Live),
    // The link itself is the credential, as with Ultravox's own log links.
    row("GET", "/edge/logs/{link}", Right::Open, Class::Records, Endpoint::LogLink),
    row(
        "GET",
        "/edge/registrations",
        Right::EitherKey,
        Class::Account,
        Endpoint::RegistrationStates,
    ),
    row("GET", "/edge/unlisted", Right::EitherKey, Class::Records, Endpoint::Unlisted),
    row("GET", "/edge/config", Right::EitherKey, Class::Account, Endpoint::InForce),
    row("POST", "/edge/reload", Right::EitherKey, Class::Account, Endpoint::Reload),
    row("POST", AGENT_CALLS, Right::UltravoxKey, Class::Calls, Endpoint::CreateWithAgent),
    row("*", AGENT_CALLS, Right::UltravoxKey, Class::Passed, Endpoint::Pass),
    row("POST", "/api/calls", Right::UltravoxKey, Class::Calls, Endpoint::CreateAlone),
    row("*", "/api/calls", Right::UltravoxKey, Class::Passed, Endpoint::Pass),
    row("GET", "/api/calls/{call_id}", Right::UltravoxKey, Class::Calls, Endpoint::FetchCall),
    row("*", "/api/calls/{call_id}", Right::UltravoxKey, Class::Passed, Endpoint::Pass),
    row(
        "POST",
        "/api/calls/{call_id}/send_data_message",
        Right::UltravoxKey,
        Class::Calls,
        Endpoint::SendDataMessage,
    ),
    row(
        "*",
        "/api/calls/{call_id}/send_data_message",
        Right::UltravoxKey,
        Class::Passed,
        Endpoint::Pass,
    ),
    row(
        "GET",
        "/api/calls/{call_id}/sip_logs",
        Right::UltravoxKey,
        Class::Calls,
        Endpoint::SipLogs,
    ),
    row("*", "/api/calls/{call_id}/sip_logs", Right::UltravoxKey, Class::Passed, Endpoint::Pass),
    row("*", "/api/{*rest}", Right::UltravoxKey, Class::Passed, Endpoint::Pass),
];

impl Row {
    /// The row's handler, without its guard.
    pub(super) fn handler(&self) -> MethodRouter<AdminState> {
        let filter = match self.method {
            "GET" => Some(MethodFilter::GET),
            "POST" => Some(MethodFilter::POST),
            "PATCH" => Some(MethodFilter::PATCH),
            "DELETE" => Some(MethodFilter::DELETE),
            _ => None,
        };
        macro_rules! to {
            ($handler:expr) => {
                match filter {
                    Some(filter) => on(filter, $handler),
                    None => any($handler),
                }
            };
        }
        match self.endpoint {
            Endpoint::Health => to!(health::health),
            Endpoint::Ready => to!(health::ready),
            Endpoint::Metrics => to!(metrics::metrics),
            Endpoint::Sip => to!(account::sip),
            Endpoint::ChangeSip => to!(account::change_sip),
            Endpoint::ListRegistrations => to!(registrations::list),
            Endpoint::CreateRegistration => to!(registrations::create),
            Endpoint::FetchRegistration => to!(registrations::fetch),
            Endpoint::ChangeRegistration => to!(registrations::change),
            Endpoint::RemoveRegistration => to!(registrations::remove),
            Endpoint::RegistrationStates => to!(registrations::states),
            Endpoint::NoSuchSip => to!(api::no_such_path),
            Endpoint::Records => to!(calls::records),
            Endpoint::Record => to!(calls::record),
            Endpoint::Ladder => to!(calls::ladder),
            Endpoint::EarlyMedia => to!(calls::early_media),
            Endpoint::Live => to!(live::live),
            Endpoint::Unlisted => to!(unlisted::unlisted),
            Endpoint::LogLink => to!(calls::log_link),
            Endpoint::Reload => to!(account::reload),
            Endpoint::InForce => to!(account::in_force),
            Endpoint::CreateWithAgent => to!(outgoing::create_with_agent),
            Endpoint::CreateAlone => to!(outgoing::create_alone),
            Endpoint::FetchCall => to!(calls::fetch),
            Endpoint::SendDataMessage => to!(outgoing::send_data_message),
            Endpoint::SipLogs => to!(calls::sip_logs),
            Endpoint::Pass => to!(pass::pass),
        }
    }
}
