//! Challenges as they come (RFC 3261 §20.27, §20.44, RFC 7616 §3.3): the `WWW-Authenticate` and
//! `Proxy-Authenticate` lines of one answer, taken apart. Several challenges may stand on one line or
//! on several. Other schemes (Bearer, RFC 8898) are passed over, never answered.

use super::{Algorithm, DigestFault};
use crate::ground::limits;
use crate::sip::msg::{Headers, Name, is_token, quoted_end, split_commas, unquote};

/// How much of a request the answer covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protection {
    /// No `qop` was offered (RFC 2069; FRITZ!Box).
    Legacy,
    Auth,
    /// The body too; taken only when it is all that is offered.
    AuthInt,
}

/// One challenge that can be answered. Values are without their quotes and escapes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    pub algorithm: Algorithm,
    /// Whether the algorithm was named, so that the answer names it too.
    pub names_algorithm: bool,
    pub protection: Protection,
    pub stale: bool,
}

/// The challenges of one header, in order, each read or refused.
///
/// # Errors
/// `TooMany` when a bound of `ground::limits` is passed.
pub(super) fn read(
    headers: &Headers,
    name: Name,
) -> Result<Vec<Result<Challenge, DigestFault>>, DigestFault> {
    let mut schemes: Vec<Parts<'_>> = Vec::new();
    for element in headers.values(name) {
        match Element::read(element) {
            Element::Scheme { scheme, param } => {
                if schemes.len() == limits::CHALLENGES_MAX {
                    return Err(DigestFault::TooMany);
                }
                schemes.push(Parts { scheme, params: param.into_iter().collect(), is_whole: true });
            }
            Element::Param(param) => {
                let Some(parts) = schemes.last_mut() else { return Err(DigestFault::Malformed) };
                if parts.params.len() == limits::CHALLENGE_PARAMS_MAX {
                    return Err(DigestFault::TooMany);
                }
                parts.params.push(param);
            }
            Element::Other => {
                let Some(parts) = schemes.last_mut() else { return Err(DigestFault::Malformed) };
                parts.is_whole = false;
            }
        }
    }
    Ok(schemes.iter().map(Parts::challenge).collect())
}

type Param<'a> = (&'a str, &'a str);

/// One element of the comma list.
enum Element<'a> {
    /// `Digest realm="x"`, or a scheme without parameters.
    Scheme {
        scheme: &'a str,
        param: Option<Param<'a>>,
    },
    Param(Param<'a>),
    /// Neither: it spoils the challenge that it stands in.
    Other,
}

impl<'a> Element<'a> {
    fn read(text: &'a str) -> Element<'a> {
        if let Some(param) = read_param(text) {
            return Element::Param(param);
        }
        let (scheme, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        if !is_token(scheme) {
            return Element::Other;
        }
        let param = read_param(rest);
        // The credentials of other schemes (`Negotiate YII…==`) are no parameters.
        let is_digest = scheme.eq_ignore_ascii_case("Digest");
        if param.is_none() && is_digest && !rest.trim().is_empty() {
            return Element::Other;
        }
        Element::Scheme { scheme, param }
    }
}

/// `name = value` with blanks allowed around the sign.
fn read_param(text: &str) -> Option<Param<'_>> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_good = match value.starts_with('"') {
        true => quoted_end(value) == Some(value.len()),
        false => !value.contains('"'),
    };
    (is_token(name) && is_good).then_some((name, value))
}

struct Parts<'a> {
    scheme: &'a str,
    params: Vec<Param<'a>>,
    /// False when something that is no parameter stood among them.
    is_whole: bool,
}

impl Parts<'_> {
    /// The value of a parameter that may come once.
    fn value(&self, name: &str) -> Result<Option<String>, DigestFault> {
        let mut values = self.params.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((_, value)) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(DigestFault::Malformed);
        }
        if value.len() > limits::CHALLENGE_VALUE_BYTES_MAX {
            return Err(DigestFault::TooMany);
        }
        Ok(Some(unquote(value).into_owned()))
    }

    fn challenge(&self) -> Result<Challenge, DigestFault> {
        if !self.scheme.eq_ignore_ascii_case("Digest") {
            return Err(DigestFault::Unsupported);
        }
        if !self.is_whole {
            return Err(DigestFault::Malformed);
        }
        let algorithm = self.value("algorithm")?;
        let names_algorithm = algorithm.is_some();
        let algorithm = match algorithm {
            None => Algorithm::default(),
            Some(word) => Algorithm::parse(&word).ok_or(DigestFault::Unsupported)?,
        };
        Ok(Challenge {
            realm: self.value("realm")?.ok_or(DigestFault::Malformed)?,
            nonce: self.value("nonce")?.ok_or(DigestFault::Malformed)?,
            opaque: self.value("opaque")?,
            algorithm,
            names_algorithm,
            protection: protection(self.value("qop")?.as_deref())?,
            stale: self.value("stale")?.is_some_and(|word| word.eq_ignore_ascii_case("true")),
        })
    }
}

/// The best of the `qop` words; unknown ones are passed over (RFC 7616 §3.3). An empty list is none.
fn protection(qop: Option<&str>) -> Result<Protection, DigestFault> {
    let Some(list) = qop.filter(|list| !list.trim().is_empty()) else {
        return Ok(Protection::Legacy);
    };
    let offers = |word: &str| split_commas(list).any(|offer| offer.eq_ignore_ascii_case(word));
    match (offers("auth"), offers("auth-int")) {
        (true, _) => Ok(Protection::Auth),
        (false, true) => Ok(Protection::AuthInt),
        (false, false) => Err(DigestFault::Unsupported),
    }
}
