//! Digest access authentication as a client (RFC 3261 §22, RFC 7616, RFC 8760; RFC 2617 and 2069 for
//! old registrars): MD5, SHA-256 and SHA-512-256, each also as `-sess`, with `qop=auth`, with
//! `auth-int` when nothing else is offered, and without `qop`.
//!
//! A [`DigestClient`] belongs to one peer and is used for requests to it alone: credentials never
//! answer a stranger's challenge. It pins the realm of each protection space, never goes from a
//! stronger hash to a weaker one, and answers a nonce that was refused no second time. It hashes no
//! user names (`userhash`) and checks no `rspauth`.

mod challenge;
#[cfg(test)]
mod tests;

use super::msg::{Headers, Method, Name, Response, split_commas, unquote};
use crate::ground::{Entropy, Secret, limits};
use challenge::{Challenge, Protection};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use std::fmt::Write;

/// A user name and its password; the password never prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    pub username: String,
    pub password: Secret,
}

/// Why a challenge is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestFault {
    /// Our answer to a fresh nonce was refused: the name or the password is wrong.
    Refused,
    /// No challenge with a scheme, an algorithm and a `qop` that are spoken here.
    Unsupported,
    /// The peer asked for another realm before.
    OtherRealm,
    /// The peer asked for a stronger algorithm before.
    Downgrade,
    /// No challenge is there, or none can be read.
    Malformed,
    /// More challenges or longer values than any honest peer sends, or `stale` without end.
    TooMany,
}

/// A hash and whether it makes a session key. Ordered by strength.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Algorithm {
    hash: Hash,
    is_session: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Hash {
    /// What is meant when a challenge names none (RFC 2617 §3.2.1).
    #[default]
    Md5,
    Sha256,
    Sha512Half,
}

/// The protection spaces of one peer: what its registrar or user agent asked for (401), and what its
/// proxy asked for (407). A clone goes with each request; who sends requests keeps the one that came
/// back, so that nonces are used on.
#[derive(Clone, Debug)]
pub struct DigestClient {
    credentials: Credentials,
    origin: Space,
    proxy: Space,
}

/// One protection space.
#[derive(Clone, Debug, Default)]
struct Space {
    /// The realm that was asked for first.
    realm: Option<String>,
    /// The strongest hash that was asked for.
    strongest: Option<Hash>,
    current: Option<Current>,
    /// Answers refused in a row.
    refusals: u8,
}

/// The challenge that is being answered.
#[derive(Clone, Debug)]
struct Current {
    challenge: Challenge,
    /// How many requests were answered with this nonce.
    nonce_count: u32,
    /// The client's nonce of a `-sess` key, which lives as long as the nonce (RFC 7616 §3.4.2).
    session_cnonce: Option<String>,
    /// True from an answer to what the peer says of it.
    is_pending: bool,
}

/// `stale=true` in answer to fresh nonces: so many times and no more.
const STALE_MAX: u8 = 2;

impl DigestClient {
    pub fn new(credentials: Credentials) -> DigestClient {
        DigestClient { credentials, origin: Space::default(), proxy: Space::default() }
    }

    /// Whose credentials these are.
    pub fn username(&self) -> &str {
        &self.credentials.username
    }

    /// A 401 or 407 came: takes its challenges. The strongest algorithm wins, and among equals the
    /// first. The other header is read too when it is there (RFC 3261 §22.3: a forking proxy joins
    /// them); its faults matter only when it stands alone.
    ///
    /// # Errors
    /// [`DigestFault`]: the request is not to be sent again. The next request starts without a nonce.
    pub fn challenged(&mut self, response: &Response) -> Result<(), DigestFault> {
        let headers = response.headers();
        let read = |space: &mut Space, name| {
            headers.get(name).is_some().then(|| space.challenged(headers, name))
        };
        let origin = read(&mut self.origin, Name::WwwAuthenticate);
        let proxy = read(&mut self.proxy, Name::ProxyAuthenticate);
        let (own, other) = if response.code() == 407 { (proxy, origin) } else { (origin, proxy) };
        own.or(other).unwrap_or(Err(DigestFault::Malformed))
    }

    /// A final answer other than 401 and 407 came: takes a `nextnonce` (RFC 7616 §3.5).
    pub fn accepted(&mut self, response: &Response) {
        self.origin.accepted(response.headers(), "Authentication-Info");
        self.proxy.accepted(response.headers(), "Proxy-Authentication-Info");
    }

    /// `Authorization` and `Proxy-Authorization`, name and value, for the next request; none before
    /// the first challenge. `uri` is the Request-URI as it is sent. Counts the nonce up, so that each
    /// call is for one request.
    pub fn authorize(
        &mut self,
        method: &Method,
        uri: &str,
        body: &[u8],
        entropy: &mut Entropy,
    ) -> Vec<(&'static str, String)> {
        let spaces =
            [("Authorization", &mut self.origin), ("Proxy-Authorization", &mut self.proxy)];
        let mut headers = Vec::new();
        for (name, space) in spaces {
            let Some(current) = space.current.as_mut() else { continue };
            if current.is_pending {
                // Another request goes out, so the last one was not refused.
                space.refusals = 0;
            }
            let cnonce = format!("{:016x}{:016x}", entropy.u64(), entropy.u64());
            let asked = Asked { method, uri, body };
            headers.push((name, current.answer(&self.credentials, &asked, cnonce)));
        }
        headers
    }
}

impl Space {
    fn challenged(&mut self, headers: &Headers, name: Name) -> Result<(), DigestFault> {
        let last = self.current.take();
        let best = self.best(challenge::read(headers, name)?)?;
        let was_answered = last.as_ref().is_some_and(|current| current.is_pending);
        if let Some(last) = last.filter(|_| was_answered) {
            self.refusals += 1;
            // A nonce that was good for one request may be used up: a new one is answered once.
            let is_used_up = last.nonce_count > 1 && self.refusals == 1;
            let fault = match best.stale {
                true => (self.refusals > STALE_MAX).then_some(DigestFault::TooMany),
                false => (!is_used_up).then_some(DigestFault::Refused),
            };
            if let Some(fault) = fault {
                self.refusals = 0;
                return Err(fault);
            }
            if last.challenge.nonce == best.nonce {
                self.take(best, last.nonce_count);
                return Ok(());
            }
        }
        self.take(best, 0);
        Ok(())
    }

    /// The strongest challenge that may be answered.
    fn best(&self, offers: Vec<Result<Challenge, DigestFault>>) -> Result<Challenge, DigestFault> {
        let mut best: Option<Challenge> = None;
        let mut fault = DigestFault::Malformed;
        for offer in offers {
            match offer.and_then(|challenge| self.admit(challenge)) {
                Ok(challenge) => {
                    let hash = challenge.algorithm.hash;
                    if best.as_ref().is_none_or(|best| best.algorithm.hash < hash) {
                        best = Some(challenge);
                    }
                }
                Err(found) => fault = found.graver(fault),
            }
        }
        best.ok_or(fault)
    }

    fn admit(&self, challenge: Challenge) -> Result<Challenge, DigestFault> {
        if self.realm.as_ref().is_some_and(|realm| *realm != challenge.realm) {
            return Err(DigestFault::OtherRealm);
        }
        if self.strongest.is_some_and(|strongest| challenge.algorithm.hash < strongest) {
            return Err(DigestFault::Downgrade);
        }
        Ok(challenge)
    }

    fn take(&mut self, challenge: Challenge, nonce_count: u32) {
        self.realm = Some(challenge.realm.clone());
        self.strongest = Some(challenge.algorithm.hash);
        self.current =
            Some(Current { challenge, nonce_count, session_cnonce: None, is_pending: false });
    }

    fn accepted(&mut self, headers: &Headers, name: &str) {
        self.refusals = 0;
        let Some(current) = self.current.as_mut() else { return };
        current.is_pending = false;
        let next = headers.lines_named(name).flat_map(split_commas).find_map(|param| {
            let (name, value) = param.split_once('=')?;
            name.trim().eq_ignore_ascii_case("nextnonce").then(|| unquote(value.trim()))
        });
        let fits =
            |nonce: &str| !nonce.is_empty() && nonce.len() <= limits::CHALLENGE_VALUE_BYTES_MAX;
        if let Some(nonce) = next.filter(|nonce| fits(nonce) && **nonce != current.challenge.nonce)
        {
            current.challenge.nonce = nonce.into_owned();
            current.nonce_count = 0;
            current.session_cnonce = None;
        }
    }
}

impl DigestFault {
    /// Of the faults of several challenges, the one that says most.
    fn graver(self, other: DigestFault) -> DigestFault {
        let weight = |fault: DigestFault| match fault {
            DigestFault::Malformed => 0,
            DigestFault::TooMany => 1,
            DigestFault::Unsupported => 2,
            DigestFault::OtherRealm => 3,
            DigestFault::Downgrade => 4,
            DigestFault::Refused => 5,
        };
        if weight(self) < weight(other) { other } else { self }
    }
}

/// What an answer is made for.
struct Asked<'a> {
    method: &'a Method,
    uri: &'a str,
    body: &'a [u8],
}

impl Current {
    /// The value of the header (RFC 7616 §3.4).
    fn answer(&mut self, credentials: &Credentials, asked: &Asked<'_>, cnonce: String) -> String {
        let Challenge { realm, nonce, opaque, algorithm, .. } = &self.challenge;
        self.nonce_count = self.nonce_count.saturating_add(1);
        self.is_pending = true;
        let cnonce = match algorithm.is_session {
            true => self.session_cnonce.get_or_insert(cnonce).clone(),
            false => cnonce,
        };
        let Credentials { username, password } = credentials;
        let count = format!("{:08x}", self.nonce_count);
        let hash = |text: &str| algorithm.hash.hex(text.as_bytes());
        let mut a1 = hash(&format!("{username}:{realm}:{}", password.reveal()));
        if algorithm.is_session {
            a1 = hash(&format!("{a1}:{nonce}:{cnonce}"));
        }
        let Asked { method, uri, body } = asked;
        let (a2, qop) = match self.challenge.protection {
            Protection::Legacy => (format!("{method}:{uri}"), None),
            Protection::Auth => (format!("{method}:{uri}"), Some("auth")),
            Protection::AuthInt => {
                (format!("{method}:{uri}:{}", algorithm.hash.hex(body)), Some("auth-int"))
            }
        };
        let a2 = hash(&a2);
        let response = match qop {
            None => hash(&format!("{a1}:{nonce}:{a2}")),
            Some(qop) => hash(&format!("{a1}:{nonce}:{count}:{cnonce}:{qop}:{a2}")),
        };
        let mut value = format!("Digest username={}, realm={}", quote(username), quote(realm));
        let _ = write!(value, ", nonce={}, uri=\"{uri}\", response=\"{response}\"", quote(nonce));
        if self.challenge.names_algorithm {
            let _ = write!(value, ", algorithm={}", algorithm.name());
        }
        if let Some(opaque) = opaque {
            let _ = write!(value, ", opaque={}", quote(opaque));
        }
        if qop.is_some() || algorithm.is_session {
            let _ = write!(value, ", cnonce=\"{cnonce}\"");
        }
        if let Some(qop) = qop {
            let _ = write!(value, ", qop={qop}, nc={count}");
        }
        value
    }
}

/// A quoted string (RFC 3261 §25.1).
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if character == '"' || character == '\\' {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

impl Algorithm {
    /// The word of a challenge, in any case.
    fn parse(word: &str) -> Option<Algorithm> {
        let hashes = [Hash::Md5, Hash::Sha256, Hash::Sha512Half];
        let mut all = hashes
            .into_iter()
            .flat_map(|hash| [false, true].map(|is_session| Algorithm { hash, is_session }));
        all.find(|algorithm| algorithm.name().eq_ignore_ascii_case(word))
    }

    fn name(self) -> &'static str {
        match (self.hash, self.is_session) {
            (Hash::Md5, false) => "MD5",
            (Hash::Md5, true) => "MD5-sess",
            (Hash::Sha256, false) => "SHA-256",
            (Hash::Sha256, true) => "SHA-256-sess",
            (Hash::Sha512Half, false) => "SHA-512-256",
            (Hash::Sha512Half, true) => "SHA-512-256-sess",
        }
    }
}

impl Hash {
    /// The hash of `bytes` in lower-case hexadecimal digits.
    fn hex(self, bytes: &[u8]) -> String {
        match self {
            Hash::Md5 => hex(&Md5::digest(bytes)),
            Hash::Sha256 => hex(&Sha256::digest(bytes)),
            Hash::Sha512Half => hex(&Sha512_256::digest(bytes)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
