//! Requests of an application that go on to Ultravox as they came. Headers that belong to one
//! connection stay behind (RFC 9110 §7.6.1), and so does the host; the key is the configured one. A
//! redirect is not followed: its Location goes back. A path goes on byte for byte, or not at all.

use super::AgentService;
use crate::ground::limits;
use bytes::Bytes;
use reqwest::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request, StatusCode, Url};

/// Headers of one connection, and those that we write ourselves.
const OURS: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-unsafe-api-key",
];

/// An answer whose body is still to come.
pub struct Passed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// Why a request got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassFault {
    /// The path would not arrive as it is written.
    BadPath,
    Unreachable,
    TimedOut,
}

impl AgentService {
    /// Sends a request on. `path` begins with `/` and may hold a query.
    ///
    /// # Errors
    /// [`PassFault`].
    pub async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Passed, PassFault> {
        let url = self.place(path).ok_or(PassFault::BadPath)?;
        let mut request = Request::new(method, url);
        *request.headers_mut() = without_own(headers);
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(CONTENT_LENGTH);
        request.headers_mut().insert("x-api-key", self.api_key.clone());
        let has_body = !body.is_empty() || headers.contains_key(CONTENT_LENGTH);
        *request.body_mut() = has_body.then(|| Body::from(body));
        *request.timeout_mut() = Some(limits::PASSED);
        let response = self.client.execute(request).await.map_err(|error| {
            tracing::warn!(timed_out = error.is_timeout(), "a passed request got no answer");
            if error.is_timeout() && !error.is_connect() {
                PassFault::TimedOut
            } else {
                PassFault::Unreachable
            }
        })?;
        let (status, headers) = (response.status(), without_own(response.headers()));
        tracing::debug!(status = status.as_u16(), "passed through");
        Ok(Passed { status, headers, body: Body::from(response) })
    }

    /// The base URL with this path; `None` when it would be changed on the way, as `..` would be.
    fn place(&self, path: &str) -> Option<Url> {
        let base = self.base_url.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}{path}")).ok()?;
        let (own, query) = match path.split_once('?') {
            Some((own, query)) => (own, Some(query)),
            None => (path, None),
        };
        let base_path = self.base_url.path().trim_end_matches('/');
        let kept = url.path().strip_prefix(base_path) == Some(own) && url.query() == query;
        (kept && url.origin() == self.base_url.origin()).then_some(url)
    }
}

/// The headers of the message itself.
fn without_own(headers: &HeaderMap) -> HeaderMap {
    let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> = listed
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len());
    let is_own = |name: &HeaderName| {
        OURS.contains(&name.as_str()) || named.iter().any(|own| own == name.as_str())
    };
    for (name, value) in headers.iter().filter(|(name, _)| !is_own(name)) {
        kept.append(name, HeaderValue::clone(value));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::*;

    #[test]
    fn a_path_goes_on_as_it_is_written_or_not_at_all() {
        let plain = service("https://host", "k", false).expect("settings are good");
        let below = service("https://host/base/", "k", false).expect("settings are good");
        for path in ["/api/calls", "/api/calls/?cursor=a%2Fb&pageSize=5", "/api/x%20y", "/api/a?"] {
            let url = |service: &AgentService| service.place(path).map(String::from);
            assert_eq!(url(&plain), Some(format!("https://host{path}")));
            assert_eq!(url(&below), Some(format!("https://host/base{path}")));
        }
        for path in ["/api/../x", "/api/%2e%2e/x", "/api/./x", "//other/x#y", "/api/a b"] {
            assert_eq!(plain.place(path), None, "{path}");
        }
    }

    #[test]
    fn headers_of_one_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "a"),
            ("connection", "close, X-Mine"),
            ("x-mine", "b"),
            ("te", "trailers"),
            ("x-api-key", "theirs"),
            ("x-other", "c"),
            ("x-other", "d"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let kept = without_own(&headers);
        let kept: Vec<(&str, &str)> = kept
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("plain")))
            .collect();
        assert_eq!(kept, [("accept", "a"), ("x-other", "c"), ("x-other", "d")]);
    }
}
