//! A registration with one registrar, as a client (RFC 3261 §10.2, RFC 5626 §4.5): keeps one binding
//! of ours alive for as long as it is wanted, and never gives up. It says when to send a REGISTER and
//! what is in it; how the registrar is found, challenges and fail-over are the user agent's.
//!
//! ```text
//!                    ┌────────── refresh, early ──────────┐
//! Waiting ─ its time ▼  2xx                               │
//!    ▲ ──────────▶ Trying ───▶ bound: Waiting to refresh ─┘
//!    └─ back-off ────┘ failed; 423 and 3xx try again at once
//!
//! leave: Leaving ── any answer, or 5 s ─▶ Gone
//! ```
//!
//! The Call-ID, the sequence number and the Contact outlive the process ([`Binding`]), so that a
//! restart refreshes its binding and adds none. Only that binding is ever removed.

mod answer;
mod keep_alive;
mod pace;
#[cfg(test)]
mod tests;

pub use answer::{Answered, Failure};
pub use keep_alive::{KeepAlive, KeepAliveOutput};
pub use pace::Registrar;

use super::digest::{Credentials, DigestClient};
use super::target::Target;
use crate::ground::{Entropy, Flow, FlowId, Instant, limits};
use pace::{Cause, back_off};
use std::sync::Arc;
use std::time::Duration;

/// Who registers where. Checked by whoever makes it: all texts are good in a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationSettings {
    /// The user part of our addresses, escaped.
    pub user: String,
    /// The URI that is registered: From and To.
    pub address_of_record: String,
    /// The Request-URI: the registrar without a user.
    pub request_uri: String,
    /// What the Request-URI names.
    pub registrar: Target,
    /// Pre-loaded Route values.
    pub routes: Vec<String>,
    /// Where requests are sent: the first route, or the registrar.
    pub target: Target,
    pub credentials: Credentials,
}

/// What a restart has to know of a binding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    pub call_id: String,
    /// The highest sequence number that was used.
    pub cseq: u32,
    /// Our Contact URI as it was registered last; empty before the first time.
    pub contact: String,
}

/// A REGISTER to be sent.
#[derive(Clone, Debug)]
pub struct Register {
    pub request_uri: String,
    pub address_of_record: String,
    pub routes: Vec<String>,
    pub call_id: String,
    pub cseq: u32,
    pub contact: RegisterContact,
    /// Zero removes the contact.
    pub expires: Duration,
    pub credentials: DigestClient,
    /// Tried first; `None` looks for the registrar anew.
    pub flow: Option<Flow>,
}

/// The Contact of a REGISTER.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegisterContact {
    /// Our address on the flow that carries the request, with this user and these header parameters.
    Own { user: String, params: String },
    /// A URI that was registered before.
    Former(String),
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum RegistrationOutput {
    /// Answered by `handle_response` or `handle_failure`.
    Send(Box<Register>),
    /// Remember this for the next start.
    Keep(Binding),
    /// The binding lives on this flow now: keep it open, ping it, take calls from it.
    Bound { flow: Flow, flow_timer: Option<u32> },
    /// There is no binding any more.
    Unbound,
    /// The registrar answers again after it did not: the others that wait for it may try.
    RegistrarIsBack,
    /// [`Status`] has changed.
    Changed,
    /// Nothing is left of it.
    Gone,
}

/// What the operator sees.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// `None` until the first outcome.
    pub successful: Option<bool>,
    /// The last outcome in words, without secrets.
    pub reason: String,
    /// When the binding ends unless it is refreshed.
    pub expires_at: Option<Instant>,
}

/// A restart skips so many sequence numbers: those that were used and not yet written down.
const RESTART_LEAP: u32 = 1_000;
/// Numbers that a try which failed may have used for answers to challenges.
const FAILURE_LEAP: u32 = 10;
/// After a connection broke: the wait before the first try, at most.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// The client of one registration.
#[derive(Clone, Debug)]
pub struct RegistrationClient {
    settings: Arc<RegistrationSettings>,
    binding: Binding,
    credentials: DigestClient,
    activity: Activity,
    /// The binding that the registrar holds.
    live: Option<Live>,
    /// Failed tries in a row, by what they mean.
    troubles: u32,
    refusals: u32,
    /// What is asked for; a 423 raises it.
    expires: Duration,
    /// Where a 3xx sent us; forgotten when that fails.
    redirected: Option<String>,
    status: Status,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Activity {
    Waiting {
        until: Instant,
        what_for: Wait,
    },
    Trying(Try),
    /// A former contact of ours is being removed.
    Clearing {
        refresh_at: Instant,
        unwanted_until: Option<Instant>,
    },
    /// Our binding is being removed.
    Leaving {
        /// When the REGISTER goes out; `None` when it has.
        place: Option<Instant>,
        until: Instant,
    },
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// The start.
    Turn,
    /// The reserved place in the registrar's row.
    Place,
    BackOff(Cause),
    /// A Retry-After, which is obeyed whatever else happens.
    Bidden,
    Refresh,
}

/// A try that is under way, and what was tried in it already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Try {
    redirects: u8,
    /// It asks for the time that a 423 wanted.
    is_longer: bool,
    /// The registration is not wanted any more: what is bound is removed again, and the answer is
    /// waited for no longer than this.
    unwanted_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Live {
    flow: Flow,
    expires_at: Instant,
}

impl RegistrationClient {
    /// Begins at the first `handle_timeout`. `known` is what a former life left.
    pub fn new(
        settings: Arc<RegistrationSettings>,
        known: Option<Binding>,
        now: Instant,
        entropy: &mut Entropy,
    ) -> RegistrationClient {
        let leap = |known: Binding| Binding {
            cseq: known.cseq.saturating_add(RESTART_LEAP) % (u32::MAX >> 1),
            ..known
        };
        let fresh = || Binding { call_id: uuid(entropy), cseq: 0, contact: String::new() };
        let credentials = DigestClient::new(settings.credentials.clone());
        RegistrationClient {
            settings,
            binding: known.map_or_else(fresh, leap),
            credentials,
            activity: Activity::Waiting { until: now, what_for: Wait::Turn },
            live: None,
            troubles: 0,
            refusals: 0,
            expires: limits::REGISTRATION_EXPIRES,
            redirected: None,
            status: Status { reason: "not tried yet".into(), ..Status::default() },
        }
    }

    pub fn settings(&self) -> &RegistrationSettings {
        &self.settings
    }

    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    pub fn status(&self) -> Status {
        let expires_at = self.live.map(|live| live.expires_at);
        Status { expires_at, ..self.status.clone() }
    }

    /// The flow of the binding.
    pub fn flow(&self) -> Option<Flow> {
        self.live.map(|live| live.flow)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let expires_at = self.live.map(|live| live.expires_at);
        match &self.activity {
            Activity::Waiting { until, .. } => Some(expires_at.unwrap_or(*until).min(*until)),
            Activity::Trying(Try { unwanted_until, .. })
            | Activity::Clearing { unwanted_until, .. } => {
                [*unwanted_until, expires_at].into_iter().flatten().min()
            }
            Activity::Leaving { place, until } => Some(place.unwrap_or(*until)),
            Activity::Gone => None,
        }
    }

    /// Lets it act when its time has come; always allowed.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        registrar: &mut Registrar,
        out: &mut Vec<RegistrationOutput>,
    ) {
        if self.live.is_some_and(|live| live.expires_at <= now) {
            self.lose_binding("the binding ran out before it could be refreshed", out);
        }
        match self.activity.clone() {
            Activity::Waiting { until, what_for } if until <= now => match what_for {
                Wait::Place | Wait::Refresh => self.register(Try::default(), out),
                Wait::Turn | Wait::BackOff(_) | Wait::Bidden => match registrar.reserve(now) {
                    place if place <= now => self.register(Try::default(), out),
                    until => {
                        self.activity = Activity::Waiting { until, what_for: Wait::Place };
                    }
                },
            },
            Activity::Trying(Try { unwanted_until: Some(until), .. })
            | Activity::Clearing { unwanted_until: Some(until), .. }
            | Activity::Leaving { until, .. }
                if until <= now =>
            {
                self.end(out);
            }
            Activity::Leaving { place: Some(place), until } if place <= now => {
                self.activity = Activity::Leaving { place: None, until };
                self.unregister(out);
            }
            Activity::Waiting { .. }
            | Activity::Trying(_)
            | Activity::Clearing { .. }
            | Activity::Leaving { .. }
            | Activity::Gone => {}
        }
    }

    /// A connection closed, or nobody is there on it any more.
    pub fn handle_flow_lost(
        &mut self,
        now: Instant,
        flow: FlowId,
        entropy: &mut Entropy,
        out: &mut Vec<RegistrationOutput>,
    ) {
        if self.live.is_none_or(|live| live.flow.id != flow || !live.flow.transport.is_reliable()) {
            return;
        }
        self.lose_binding("the connection to the registrar was lost", out);
        if let Activity::Waiting { .. } = self.activity {
            self.reconnect(now, entropy);
        }
    }

    fn reconnect(&mut self, now: Instant, entropy: &mut Entropy) {
        let until = now + entropy.duration(Duration::ZERO, RECONNECT_MAX);
        self.activity = Activity::Waiting { until, what_for: Wait::BackOff(Cause::Trouble) };
    }

    /// Another registration found the registrar answering again: a back-off that waited for that is
    /// over.
    pub fn hasten(&mut self, now: Instant) {
        if let Activity::Waiting { until, what_for: Wait::BackOff(Cause::Trouble) } =
            &mut self.activity
        {
            *until = (*until).min(now);
        }
    }

    /// Removes the binding, as far as there may be one, and ends.
    pub fn leave(
        &mut self,
        now: Instant,
        registrar: &mut Registrar,
        out: &mut Vec<RegistrationOutput>,
    ) {
        match &mut self.activity {
            Activity::Leaving { .. } | Activity::Gone => {}
            // One request at a time: its answer says what there is to be removed.
            Activity::Trying(Try { unwanted_until, .. })
            | Activity::Clearing { unwanted_until, .. } => {
                *unwanted_until = Some(now + limits::UNREGISTER);
            }
            Activity::Waiting { .. } => self.begin_leaving(now, registrar, out),
        }
    }

    fn begin_leaving(
        &mut self,
        now: Instant,
        registrar: &mut Registrar,
        out: &mut Vec<RegistrationOutput>,
    ) {
        if self.live.is_none() && self.binding.contact.is_empty() {
            return self.end(out);
        }
        let place = registrar.reserve_leave(now);
        let until = place + limits::UNREGISTER;
        self.activity = Activity::Leaving { place: Some(place), until };
        self.handle_timeout(now, registrar, out);
    }

    /// Sends the REGISTER of a try. A flow that carries the binding is used again; without one, or
    /// after a failure, the registrar is looked for anew.
    fn register(&mut self, attempt: Try, out: &mut Vec<RegistrationOutput>) {
        self.activity = Activity::Trying(attempt);
        let user = self.settings.user.clone();
        let instance = &self.binding.call_id;
        let contact = RegisterContact::Own {
            user,
            params: format!(
                ";+sip.instance=\"<urn:uuid:{instance}>\";expires={}",
                self.expires.as_secs()
            ),
        };
        let is_sound = self.troubles == 0 && self.refusals == 0 && attempt.redirects == 0;
        let flow = self.flow().filter(|_| is_sound);
        self.send(contact, self.expires, flow, out);
    }

    /// Removes our binding and no other (RFC 3261 §10.2.2).
    fn unregister(&mut self, out: &mut Vec<RegistrationOutput>) {
        let contact = RegisterContact::Former(self.binding.contact.clone());
        self.send(contact, Duration::ZERO, self.flow(), out);
    }

    fn send(
        &mut self,
        contact: RegisterContact,
        expires: Duration,
        flow: Option<Flow>,
        out: &mut Vec<RegistrationOutput>,
    ) {
        self.binding.cseq += 1;
        let settings = &self.settings;
        let request_uri = self.redirected.as_ref().unwrap_or(&settings.request_uri).clone();
        out.push(RegistrationOutput::Send(Box::new(Register {
            request_uri,
            address_of_record: settings.address_of_record.clone(),
            routes: settings.routes.clone(),
            call_id: self.binding.call_id.clone(),
            cseq: self.binding.cseq,
            contact,
            expires,
            credentials: self.credentials.clone(),
            flow,
        })));
    }

    /// The try failed: waits, and says why when that changes what the operator sees. A binding that
    /// still stands keeps the registration successful until it ends, unless we are refused.
    fn fail(
        &mut self,
        now: Instant,
        cause: Cause,
        (reason, at_least): (String, Option<Duration>),
        registrar: &Registrar,
        entropy: &mut Entropy,
        out: &mut Vec<RegistrationOutput>,
    ) {
        let failures = match cause {
            Cause::Trouble => &mut self.troubles,
            Cause::Refusal => &mut self.refusals,
        };
        *failures = failures.saturating_add(1);
        let mut wait = back_off(cause, *failures, registrar, entropy);
        let mut what_for = Wait::BackOff(cause);
        if let Some(least) = at_least.map(|least| least.min(limits::RETRY_AFTER_MAX)) {
            // Spread, so that not all come back in the same moment.
            wait = wait.max(least + entropy.duration(Duration::ZERO, least / 10));
            what_for = Wait::Bidden;
        }
        self.redirected = None;
        self.activity = Activity::Waiting { until: now + wait, what_for };
        if self.live.is_none() || cause == Cause::Refusal {
            self.show(Some(false), reason, out);
        }
    }

    fn lose_binding(&mut self, reason: &str, out: &mut Vec<RegistrationOutput>) {
        self.live = None;
        out.push(RegistrationOutput::Unbound);
        self.show(Some(false), reason.to_owned(), out);
    }

    fn show(
        &mut self,
        successful: Option<bool>,
        reason: String,
        out: &mut Vec<RegistrationOutput>,
    ) {
        if (self.status.successful, &self.status.reason) != (successful, &reason) {
            self.status = Status { successful, reason, expires_at: None };
            out.push(RegistrationOutput::Changed);
        }
    }

    fn end(&mut self, out: &mut Vec<RegistrationOutput>) {
        self.activity = Activity::Gone;
        if self.live.take().is_some() {
            out.push(RegistrationOutput::Unbound);
        }
        out.push(RegistrationOutput::Gone);
    }
}

/// A random UUID (RFC 9562 §5.4).
fn uuid(entropy: &mut Entropy) -> String {
    let high = entropy.u64() & !0xf000 | 0x4000;
    let low = entropy.u64() & !(0b11 << 62) | (0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
