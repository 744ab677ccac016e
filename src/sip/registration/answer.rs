//! What the answers to a REGISTER mean (RFC 3261 §10.2.4, §10.2.8, §21): which binding is ours and
//! how long it stands, what is tried again at once, what waits and for how long.
//!
//! | answer | then |
//! |---|---|
//! | 2xx with our contact, or with none | bound; refresh early |
//! | 423 with Min-Expires | at once with that, one time |
//! | 3xx within the registrar's own domain | at once there, two times |
//! | 401, 407 that is not to be answered; 403, 404, other 3xx, 4xx, 6xx | slow back-off |
//! | 408, 429, 430, 480, 486, 491, 5xx, nobody | back-off, not before Retry-After |

use super::pace::{Cause, Registrar, refresh_after};
use super::{Activity, FAILURE_LEAP, Live, RegistrationClient, RegistrationOutput, Try, Wait};
use crate::ground::{Entropy, Flow, Instant, Transport, limits};
use crate::sip::digest::{DigestClient, DigestFault};
use crate::sip::msg::{Name, NameAddr, Response, Scheme, Uri};
use crate::sip::target::{Target, TargetHost};
use std::time::Duration;

/// Why nobody answered a REGISTER, or why its challenge was not answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    Digest(DigestFault),
    /// Nobody was found or nobody answered: in words for the operator.
    Nobody(String),
}

/// The final answer to a REGISTER, and what the user agent knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    pub response: &'a Response,
    /// The flow that it came on.
    pub flow: Flow,
    /// Our Contact URI on that flow, as it was sent.
    pub contact: &'a str,
}

/// Characters of a peer's reason phrase that are shown.
const REASON_CHARS_MAX: usize = 80;

impl RegistrationClient {
    /// The final answer to the REGISTER that is under way. `credentials` are those that it was sent
    /// with, as they are now.
    pub fn handle_response(
        &mut self,
        now: Instant,
        answered: Answered<'_>,
        credentials: Option<DigestClient>,
        registrar: &mut Registrar,
        entropy: &mut Entropy,
        out: &mut Vec<RegistrationOutput>,
    ) {
        self.binding.cseq = self.binding.cseq.max(answered.response.cseq().number);
        if let Some(credentials) = credentials {
            self.credentials = credentials;
        }
        self.note_answer(registrar, out);
        let response = answered.response;
        let attempt = match self.activity.clone() {
            Activity::Trying(attempt) => attempt,
            Activity::Clearing { refresh_at, unwanted_until } => {
                return match unwanted_until {
                    Some(_) => self.begin_leaving(now, registrar, out),
                    None => self.rest(now, refresh_at, entropy),
                };
            }
            Activity::Leaving { .. } => return self.end(out),
            Activity::Waiting { .. } | Activity::Gone => return,
        };
        let code = response.code();
        if (200..300).contains(&code) {
            return self.on_bound(now, &answered, attempt, registrar, entropy, out);
        }
        if attempt.unwanted_until.is_some() {
            return self.begin_leaving(now, registrar, out);
        }
        match code {
            423 if self.take_min_expires(response, attempt) => {
                self.register(Try { is_longer: true, ..attempt }, out);
            }
            300..400 if self.take_redirect(response, attempt) => {
                self.register(Try { redirects: attempt.redirects + 1, ..attempt }, out);
            }
            _ => {
                let reason = self.reason(response);
                let at_least = retry_after(response);
                self.fail(now, cause_of(code), (reason, at_least), registrar, entropy, out);
            }
        }
    }

    /// The REGISTER that is under way was answered by nobody.
    pub fn handle_failure(
        &mut self,
        now: Instant,
        failure: Failure,
        registrar: &mut Registrar,
        entropy: &mut Entropy,
        out: &mut Vec<RegistrationOutput>,
    ) {
        self.binding.cseq += FAILURE_LEAP;
        let (cause, reason) = match failure {
            Failure::Digest(fault) => {
                self.note_answer(registrar, out);
                (Cause::Refusal, digest_words(fault).to_owned())
            }
            Failure::Nobody(words) => {
                registrar.note_down();
                (Cause::Trouble, words)
            }
        };
        match self.activity.clone() {
            Activity::Trying(Try { unwanted_until: Some(_), .. })
            | Activity::Clearing { unwanted_until: Some(_), .. }
            | Activity::Leaving { .. } => self.end(out),
            Activity::Trying(_) => {
                self.fail(now, cause, (reason, None), registrar, entropy, out);
            }
            Activity::Clearing { refresh_at, .. } => self.rest(now, refresh_at, entropy),
            Activity::Waiting { .. } | Activity::Gone => {}
        }
    }

    fn note_answer(&self, registrar: &mut Registrar, out: &mut Vec<RegistrationOutput>) {
        if registrar.note_up() {
            out.push(RegistrationOutput::RegistrarIsBack);
        }
    }

    fn on_bound(
        &mut self,
        now: Instant,
        answered: &Answered<'_>,
        attempt: Try,
        registrar: &mut Registrar,
        entropy: &mut Entropy,
        out: &mut Vec<RegistrationOutput>,
    ) {
        let granted = self.granted(answered);
        if granted.is_zero() {
            let reason = "the registrar bound nothing: it gave our contact no time".to_owned();
            return self.fail(now, Cause::Trouble, (reason, None), registrar, entropy, out);
        }
        (self.troubles, self.refusals) = (0, 0);
        let before = self.live.replace(Live { flow: answered.flow, expires_at: now + granted });
        let former = std::mem::replace(&mut self.binding.contact, answered.contact.to_owned());
        if attempt.unwanted_until.is_some() {
            return self.begin_leaving(now, registrar, out);
        }
        out.push(RegistrationOutput::Keep(self.binding.clone()));
        if before.is_none_or(|before| before.flow != answered.flow) {
            let flow_timer = answered.response.get_named("Flow-Timer");
            let flow_timer = flow_timer.and_then(|seconds| seconds.parse().ok());
            out.push(RegistrationOutput::Bound { flow: answered.flow, flow_timer });
        }
        self.show(Some(true), "registered".into(), out);
        let refresh_at = now + refresh_after(granted, entropy);
        self.rest(now, refresh_at, entropy);
        let others = || contacts(answered.response).map(|(address, _)| address);
        let is_there = !former.is_empty()
            && !same_place(&former, answered.contact)
            && others().any(|address| same_place(&former, address.uri().as_str()));
        if is_there {
            self.activity = Activity::Clearing { refresh_at, unwanted_until: None };
            let contact = super::RegisterContact::Former(former);
            self.send(contact, Duration::ZERO, Some(answered.flow), out);
        }
    }

    /// Waits until the binding wants to be refreshed, or made again when it was lost meanwhile.
    fn rest(&mut self, now: Instant, refresh_at: Instant, entropy: &mut Entropy) {
        match self.live {
            Some(_) => {
                self.activity = Activity::Waiting { until: refresh_at, what_for: Wait::Refresh };
            }
            None => self.reconnect(now, entropy),
        }
    }

    /// For how long our binding stands: our own contact's `expires` among all that are listed, else
    /// the Expires header, else what was asked for (RFC 3261 §10.2.4).
    fn granted(&self, answered: &Answered<'_>) -> Duration {
        let response = answered.response;
        let instance = format!("<urn:uuid:{}>", self.binding.call_id);
        let by_instance = contacts(response).find(|(address, _)| {
            address.param("+sip.instance").flatten().is_some_and(|value| value == instance)
                && same_place(answered.contact, address.uri().as_str())
        });
        let own = by_instance.or_else(|| {
            contacts(response)
                .find(|(address, _)| same_place(answered.contact, address.uri().as_str()))
        });
        let seconds = own.and_then(|(_, expires)| expires).or_else(|| response.expires());
        let granted = seconds.map_or(self.expires, |seconds| Duration::from_secs(seconds.into()));
        granted.min(limits::REGISTRATION_EXPIRES_MAX)
    }

    /// 423: true when the registrar wants a time that may be asked for.
    fn take_min_expires(&mut self, response: &Response, attempt: Try) -> bool {
        let wanted = response.get(Name::MinExpires).and_then(|value| value.parse::<u64>().ok());
        let Some(wanted) = wanted.map(Duration::from_secs) else { return false };
        let is_better = wanted > self.expires && wanted <= limits::REGISTRATION_EXPIRES_MAX;
        if attempt.is_longer || !is_better {
            return false;
        }
        self.expires = wanted;
        true
    }

    /// 3xx: true when it leads to a host of the registrar's own domain and to no weaker transport.
    /// Nowhere else would our credentials be safe.
    fn take_redirect(&mut self, response: &Response, attempt: Try) -> bool {
        if attempt.redirects >= limits::REDIRECTS_MAX {
            return false;
        }
        let registrar = &self.settings.registrar;
        let found = contacts(response).find_map(|(address, _)| {
            let uri = address.uri();
            let target = Target::of_uri(&uri).ok()?;
            may_follow(registrar, &target).then(|| without_user(&uri, &target))
        });
        self.redirected = found;
        self.redirected.is_some()
    }

    /// The answer in words.
    fn reason(&self, response: &Response) -> String {
        let phrase: String =
            response.reason().chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        let code = response.code();
        let said = format!("the registrar says {code} {phrase}");
        let said = said.trim_end();
        match code {
            300..=399 => format!("{said}, to a place outside its own domain"),
            401 | 407 => format!("{said} without a challenge that can be answered"),
            423 => format!("{said} and names no time that can be asked for"),
            _ => said.to_owned(),
        }
    }
}

/// What a refusal with this code means for the next try.
fn cause_of(code: u16) -> Cause {
    match code {
        408 | 423 | 429 | 430 | 480 | 486 | 491 | 500..600 => Cause::Trouble,
        _ => Cause::Refusal,
    }
}

fn digest_words(fault: DigestFault) -> &'static str {
    match fault {
        DigestFault::Refused => "wrong user name or password: the registrar refused our answer",
        DigestFault::Unsupported => {
            "the registrar asks for a kind of authentication not spoken here"
        }
        DigestFault::OtherRealm => {
            "the registrar asks for another realm than before; change the registration if this is meant"
        }
        DigestFault::Downgrade => {
            "the registrar asks for a weaker digest than before; change the registration if this is \
             meant"
        }
        DigestFault::Malformed => "the registrar's challenge cannot be read",
        DigestFault::TooMany => "the registrar's challenges have no end",
    }
}

/// `Retry-After` without its comment and parameters (RFC 3261 §20.33).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.get(Name::RetryAfter)?;
    let digits = value.split([';', '(', ' ', '\t']).next()?;
    digits.parse().ok().map(Duration::from_secs)
}

/// The listed contacts, each with its `expires`; more than anyone needs are not looked at.
fn contacts(response: &Response) -> impl Iterator<Item = (NameAddr<'_>, Option<u32>)> {
    response.contacts().take(limits::REGISTERED_CONTACTS_MAX).map(|address| {
        let expires = address.param("expires").flatten();
        let seconds = expires.and_then(|value| value.parse().ok());
        (address, seconds)
    })
}

/// Whether two URIs lead to the same user at the same host and port. Registrars change parameters;
/// these they keep.
fn same_place(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (Uri::parse(one), Uri::parse(other)) else { return false };
    let host = |uri: &Uri<'_>| uri.host().to_string().to_ascii_lowercase();
    let port = |uri: &Uri<'_>| uri.port().unwrap_or(default_port(uri));
    one.user_decoded() == other.user_decoded()
        && host(&one) == host(&other)
        && port(&one) == port(&other)
}

fn default_port(uri: &Uri<'_>) -> u16 {
    let over_tls = uri.param("transport").flatten().is_some_and(|word| word == "tls");
    if uri.scheme() == Scheme::Sips || over_tls { 5061 } else { 5060 }
}

/// The same host, or one below it; TLS stays TLS.
fn may_follow(registrar: &Target, target: &Target) -> bool {
    let is_safe = |target: &Target| target.secure || target.transport == Some(Transport::Tls);
    let is_own = match (&registrar.host, &target.host) {
        (TargetHost::Name(own), TargetHost::Name(other)) => {
            let below = other.strip_suffix(own.as_str());
            below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
        }
        (own, other) => own == other,
    };
    is_own && (is_safe(target) || !is_safe(registrar))
}

/// The redirect's place as a Request-URI (RFC 3261 §10.2: no user).
fn without_user(uri: &Uri<'_>, target: &Target) -> String {
    let scheme = if target.secure { "sips" } else { "sip" };
    let mut text = format!("{scheme}:{}", uri.host().to_string().to_ascii_lowercase());
    if let Some(port) = uri.port() {
        text = format!("{text}:{port}");
    }
    match target.transport.filter(|_| !target.secure) {
        Some(transport) => format!("{text};transport={}", transport.uri_param()),
        None => text,
    }
}
