//! Carries the fallback handler's questions: one POST, once, with 5 s for all of it; and fetches hold
//! music by the same rules. Https only
//! unless the handler is on loopback or the configuration allows more; no redirect is followed and no
//! proxy of the environment is used. A name is resolved here, each address is judged
//! ([`address::is_allowed`]), and the connection goes to exactly the addresses that passed, so that a
//! name which changes its mind between the look and the connection leads nowhere else. Logs carry the
//! host, statuses and times, never a path, a body or a signature.

use crate::account::CidrRange;
use crate::call::sound::SoundFault;
use crate::fallback::{self, FallbackDecision, FallbackFault, Post, address};
use crate::ground::limits;
use crate::shell::clock::Clock;
use crate::shell::tls::ClientConfig;
use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION,
};
use reqwest::{Client, Method, Request, Response, Url, redirect};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Look-ups that run at once: the system's resolver blocks a thread for each, and may for long.
const LOOKUPS_MAX: usize = 32;
/// Addresses of one host that are looked at.
const ADDRESSES_MAX: usize = 16;
/// Connections that wait for the next question, and how long they do.
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE: Duration = Duration::from_secs(30);

/// Longest `ETag` that is kept, in bytes.
const ETAG_BYTES_MAX: usize = 256;

/// Redirects that one file is followed through.
const REDIRECTS_MAX: usize = 3;

/// A file that was asked for.
pub enum Download {
    File {
        body: Vec<u8>,
        etag: Option<String>,
    },
    /// It is as it was (304).
    Unchanged,
}

/// Turns a host's name into addresses.
pub type Resolver = Arc<dyn Fn(String) -> Lookup + Send + Sync>;
/// A look-up under way.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How handlers are reached.
#[derive(Clone)]
pub struct WebhookSettings {
    pub tls: Arc<ClientConfig>,
    /// Private addresses that may be asked (`fallback.allowed_private`).
    pub allowed_private: Vec<CidrRange>,
    /// Allows `http` beyond loopback (`fallback.plain_http`).
    pub plain_http: bool,
    pub resolve: Resolver,
}

/// The TLS configuration was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadTls;

impl fmt::Display for BadTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the TLS configuration cannot be used for the fallback handler")
    }
}

/// The client for fallback handlers. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    allowed_private: Arc<[CidrRange]>,
    plain_http: bool,
}

impl Webhook {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`BadTls`].
    pub fn new(settings: WebhookSettings) -> Result<Webhook, BadTls> {
        let allowed_private: Arc<[CidrRange]> = settings.allowed_private.into();
        let vetting =
            Vetting { resolve: settings.resolve, allowed_private: Arc::clone(&allowed_private) };
        let client = Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&settings.tls))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(vetting))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_nodelay(true)
            .build()
            .map_err(|_| BadTls)?;
        Ok(Webhook { client, allowed_private, plain_http: settings.plain_http })
    }

    /// Asks the handler, once, within `budget` and never longer than [`limits::FALLBACK`], from the
    /// look-up to the last byte of the answer.
    ///
    /// # Errors
    /// [`FallbackFault`].
    pub async fn ask(
        &self,
        post: &Post,
        budget: Duration,
    ) -> Result<FallbackDecision, FallbackFault> {
        let begun = Clock::instant();
        let budget = budget.min(limits::FALLBACK);
        let answer = tokio::time::timeout(budget, self.exchange(post)).await;
        let answer = answer.unwrap_or(Err(FallbackFault::TimedOut));
        let decided = answer.and_then(|body| fallback::read_answer(&body));
        let elapsed_ms = Clock::instant().since(begun).as_millis() as u64;
        match &decided {
            Ok(FallbackDecision::Reject { code, message }) => {
                tracing::info!(elapsed_ms, code, message, "the fallback handler rejected");
            }
            Ok(decision) => tracing::debug!(elapsed_ms, ?decision, "the fallback handler decided"),
            Err(fault) => {
                let host = Url::parse(&post.url).ok();
                let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
                tracing::warn!(elapsed_ms, host, "{fault}");
            }
        }
        decided
    }

    /// The body of a 2xx answer.
    async fn exchange(&self, post: &Post) -> Result<Vec<u8>, FallbackFault> {
        let request = self.request(post)?;
        let response = self.client.execute(request).await.map_err(|error| fault_of(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(FallbackFault::Status(status.as_u16()));
        }
        read_body(response).await
    }

    /// Fetches a file with GET, by the same rules, but that `http` will do for what is no secret. Who
    /// asks bounds the time. With the `etag` of what is known the answer may be that it has not changed.
    ///
    /// # Errors
    /// [`SoundFault`].
    pub async fn download(
        &self,
        url: &str,
        etag: Option<&str>,
        bytes_max: usize,
    ) -> Result<Download, SoundFault> {
        let mut url = self.sound_url(url)?;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.client.execute(sound_request(&url, etag)).await;
            let response = response.map_err(|error| sound_fault(&error))?;
            match response.status().as_u16() {
                200 => return read_sound(response, bytes_max).await,
                304 => return Ok(Download::Unchanged),
                301 | 302 | 303 | 307 | 308 => url = self.redirected(&url, response.headers())?,
                status => return Err(SoundFault::Status(status)),
            }
        }
        Err(SoundFault::Redirected)
    }

    /// Where a sound may be fetched from.
    fn sound_url(&self, url: &str) -> Result<Url, SoundFault> {
        address::check_url(url, true).map_err(|_| SoundFault::BadUrl)?;
        let url = Url::parse(url).map_err(|_| SoundFault::BadUrl)?;
        match self.is_refused_literal(&url) {
            true => Err(SoundFault::PrivateAddress),
            false => Ok(url),
        }
    }

    /// The next URL, judged as the first one was. Who began with TLS is not led out of it.
    fn redirected(&self, from: &Url, headers: &HeaderMap) -> Result<Url, SoundFault> {
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        let next = next.filter(|next| from.scheme() == "http" || next.scheme() == "https");
        let next = next.ok_or(SoundFault::Redirected)?;
        self.sound_url(next.as_str()).map_err(|fault| match fault {
            SoundFault::BadUrl => SoundFault::Redirected,
            fault => fault,
        })
    }

    /// An address needs no look-up, so that it is judged here; the parsed form counts, since there
    /// are many ways to write one.
    fn is_refused_literal(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse();
        literal.is_ok_and(|literal| !address::is_allowed(literal, &self.allowed_private))
    }

    fn request(&self, post: &Post) -> Result<Request, FallbackFault> {
        address::check_url(&post.url, self.plain_http).map_err(|_| FallbackFault::BadUrl)?;
        let url = Url::parse(&post.url).map_err(|_| FallbackFault::BadUrl)?;
        if self.is_refused_literal(&url) {
            return Err(FallbackFault::PrivateAddress);
        }
        let mut request = Request::new(Method::POST, url);
        sign(request.headers_mut(), post).ok_or(FallbackFault::BadUrl)?;
        *request.body_mut() = Some(Bytes::clone(&post.body).into());
        Ok(request)
    }
}

fn sound_request(url: &Url, etag: Option<&str>) -> Request {
    let mut request = Request::new(Method::GET, url.clone());
    if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        request.headers_mut().insert(IF_NONE_MATCH, etag);
    }
    request
}

fn sound_fault(error: &reqwest::Error) -> SoundFault {
    match fault_of(error) {
        FallbackFault::PrivateAddress => SoundFault::PrivateAddress,
        FallbackFault::TimedOut => SoundFault::TimedOut,
        _ if error.is_body() || error.is_decode() => SoundFault::BrokenOff,
        _ => SoundFault::Unreachable,
    }
}

/// A file of at most `bytes_max`; one that says that it is longer is not read.
async fn read_sound(mut response: Response, bytes_max: usize) -> Result<Download, SoundFault> {
    if response.content_length().is_some_and(|length| length > bytes_max as u64) {
        return Err(SoundFault::TooLong);
    }
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    let etag = etag.filter(|etag| etag.len() <= ETAG_BYTES_MAX).map(str::to_owned);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| sound_fault(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(SoundFault::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Download::File { body, etag })
}

fn sign(headers: &mut HeaderMap, post: &Post) -> Option<()> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let timestamp = HeaderValue::from_str(&post.timestamp).ok()?;
    headers.insert("x-ultravox-webhook-timestamp", timestamp);
    if !post.signature.is_empty() {
        let mut signature = HeaderValue::from_str(&post.signature).ok()?;
        signature.set_sensitive(true);
        headers.insert("x-ultravox-webhook-signature", signature);
    }
    Some(())
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("allowed_private", &self.allowed_private)
            .finish_non_exhaustive()
    }
}

/// The whole body, at most [`limits::FALLBACK_ANSWER_BYTES_MAX`].
async fn read_body(mut response: Response) -> Result<Vec<u8>, FallbackFault> {
    let most = limits::FALLBACK_ANSWER_BYTES_MAX;
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(FallbackFault::TooLong);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| fault_of(&error))? {
        if body.len() + chunk.len() > most {
            return Err(FallbackFault::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn fault_of(error: &reqwest::Error) -> FallbackFault {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NoneAllowed>() {
            return FallbackFault::PrivateAddress;
        }
        cause = error.source();
    }
    if error.is_timeout() { FallbackFault::TimedOut } else { FallbackFault::Unreachable }
}

/// The resolver that reqwest is lent: it gives only addresses that passed.
struct Vetting {
    resolve: Resolver,
    allowed_private: Arc<[CidrRange]>,
}

impl Resolve for Vetting {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = (self.resolve)(name.as_str().to_owned());
        let allowed_private = Arc::clone(&self.allowed_private);
        Box::pin(async move {
            let found = lookup.await?;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|found| address::is_allowed(found.ip(), &allowed_private))
                .take(ADDRESSES_MAX)
                .collect();
            if allowed.is_empty() {
                return Err(NoneAllowed.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The name has no address that may be asked.
#[derive(Debug)]
struct NoneAllowed;

impl fmt::Display for NoneAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address of this name may be asked")
    }
}

impl Error for NoneAllowed {}

/// The system's resolver. A look-up that nobody waits for any more keeps its place until it ends.
pub fn system_resolver() -> Resolver {
    let places = Arc::new(Semaphore::new(LOOKUPS_MAX));
    Arc::new(move |host: String| {
        let places = Arc::clone(&places);
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect);
                drop(place);
                found
            };
            tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    })
}

#[cfg(test)]
mod tests;
