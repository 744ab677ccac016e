//! The REST client of the agent service: creates agent calls and reads agents. The one door to
//! `reqwest`. A request is tried once; whether to try again is the call layer's to decide. Redirects
//! are not followed and no proxy of the environment is used. Logs carry statuses, times and the names
//! of refused fields, never a body, the API key or a join URL.

mod pass;

pub use pass::{PassFault, Passed};

use crate::call::outbound::ServiceRefusal;
use crate::ground::{Secret, limits};
use crate::shell::clock::Clock;
use crate::shell::tls::ClientConfig;
use crate::ultravox::agent::Agent;
use crate::ultravox::create_call::{CreateFault, Created, parse_created};
use crate::ultravox::stage::Stage;
use crate::ultravox::{CallId, is_identifier};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, Response, Url, redirect};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to come up, so that a retry still fits into the set-up.
const CONNECT: Duration = Duration::from_secs(3);
/// Connections that wait for the next request, and how long they do.
const IDLE_CONNECTIONS_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(60);
/// Tools of one agent whose ids are looked up, and how long each may take: callers ring meanwhile.
const DOUBTFUL_TOOLS_MAX: usize = 4;
const TOOL: Duration = Duration::from_secs(3);
/// Names of refused fields that one log line holds.
const LOGGED_FIELDS_MAX: usize = 8;

/// Where the service is and how to be let in.
#[derive(Clone, Debug)]
pub struct AgentServiceSettings {
    /// `https://api.ultravox.ai`; a path in it is kept.
    pub base_url: String,
    pub api_key: Secret,
    pub tls: Arc<ClientConfig>,
    /// Allows `http`: a test setting.
    pub plain: bool,
}

/// Why the settings cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SettingsFault {
    /// Not an absolute URL with a host.
    BadUrl,
    /// `http` without the test setting, or another scheme.
    NotHttps,
    /// The key is empty or holds characters that no header can carry.
    BadKey,
    /// The TLS configuration was not taken.
    BadTls,
}

impl fmt::Display for SettingsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SettingsFault::BadUrl => "the agent service's base URL is not an absolute URL",
            SettingsFault::NotHttps => "the agent service's base URL must begin with https://",
            SettingsFault::BadKey => {
                "the Ultravox API key is missing or holds unusable characters: look at \
                 ultravox.api_key_file"
            }
            SettingsFault::BadTls => "the TLS configuration cannot be used for the agent service",
        })
    }
}

impl std::error::Error for SettingsFault {}

/// The agent service. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct AgentService {
    client: Client,
    base_url: Url,
    api_key: HeaderValue,
}

impl AgentService {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`SettingsFault`].
    pub fn new(settings: &AgentServiceSettings) -> Result<AgentService, SettingsFault> {
        let base_url = parse_base(&settings.base_url, settings.plain)?;
        let mut api_key =
            HeaderValue::from_str(settings.api_key.reveal()).map_err(|_| SettingsFault::BadKey)?;
        if api_key.is_empty() {
            return Err(SettingsFault::BadKey);
        }
        api_key.set_sensitive(true);
        let client = Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&settings.tls))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_nodelay(true)
            .build()
            .map_err(|_| SettingsFault::BadTls)?;
        Ok(AgentService { client, base_url, api_key })
    }

    /// `POST /api/agents/{agent_id}/calls`, or `POST /api/calls` for a call without an agent, once,
    /// within `budget` and never longer than [`limits::CREATE_CALL`].
    ///
    /// # Errors
    /// [`CreateFault`]: what anything but a usable 201 means. After `TimedOut` the call may exist.
    pub async fn create_agent_call(
        &self,
        agent_id: Option<&str>,
        body: &Value,
        budget: Duration,
    ) -> Result<Created, CreateFault> {
        let url = match agent_id {
            Some(agent_id) => self.url(&["api", "agents", agent_id, "calls"]),
            None => self.url(&["api", "calls"]),
        };
        self.create(url, body, budget).await
    }

    /// `POST /api/calls?priorCallId=…`: a call that goes on where an earlier one was.
    ///
    /// # Errors
    /// As [`AgentService::create_agent_call`].
    pub async fn continue_call(
        &self,
        prior: &CallId,
        body: &Value,
        budget: Duration,
    ) -> Result<Created, CreateFault> {
        let mut url = self.url(&["api", "calls"]);
        if let Some(url) = &mut url {
            url.query_pairs_mut().append_pair("priorCallId", prior.as_str());
        }
        self.create(url, body, budget).await
    }

    async fn create(
        &self,
        url: Option<Url>,
        body: &Value,
        budget: Duration,
    ) -> Result<Created, CreateFault> {
        let url = url.ok_or(CreateFault::NotFound)?;
        let mut request = self.request(Method::POST, url, budget);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
        let body = self.answer(request, 201).await?;
        parse_created(&body).map_err(|fault| {
            tracing::warn!(%fault, "the agent service created a call that cannot be used");
            fault.into()
        })
    }

    /// The creation of an outgoing call for a client, whose query goes along: as
    /// [`AgentService::create_agent_call`], but the client hears a refusal in Ultravox's own words.
    ///
    /// # Errors
    /// [`ServiceRefusal`].
    pub async fn create_outgoing(
        &self,
        agent_id: Option<&str>,
        query: Option<&str>,
        body: &Value,
        budget: Duration,
    ) -> Result<Created, ServiceRefusal> {
        let url = match agent_id {
            Some(agent_id) => self.url(&["api", "agents", agent_id, "calls"]),
            None => self.url(&["api", "calls"]),
        };
        let unanswered = |fault| ServiceRefusal { fault, answer: None };
        let mut url = url.ok_or_else(|| unanswered(CreateFault::NotFound))?;
        url.set_query(query);
        let mut request = self.request(Method::POST, url, budget);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
        let response = self.client.execute(request).await.map_err(|error| {
            let fault = fault_of(&error);
            tracing::warn!(agent_id, %fault, "no answer from the agent service");
            unanswered(fault)
        })?;
        let status = response.status().as_u16();
        let retry_after = header(response.headers(), RETRY_AFTER.as_str());
        let bytes = read_body(response).await;
        if status == 201 {
            let created = parse_created(&bytes.map_err(unanswered)?);
            return created.map_err(|fault| unanswered(fault.into()));
        }
        let fault = CreateFault::from_status(status, retry_after.as_deref(), Clock::now().wall);
        tracing::warn!(
            agent_id,
            status,
            ?retry_after,
            "the agent service refused an outgoing call"
        );
        let words = serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or(Value::Null);
        Err(ServiceRefusal { fault, answer: Some((status, words)) })
    }

    /// `GET /api/agents/{agent_id}`, once, within [`limits::CREATE_CALL`].
    ///
    /// # Errors
    /// [`CreateFault`], as for a creation.
    pub async fn fetch_agent(&self, agent_id: &str) -> Result<Agent, CreateFault> {
        let url = self.url(&["api", "agents", agent_id]).ok_or(CreateFault::NotFound)?;
        let request = self.request(Method::GET, url, limits::CREATE_CALL);
        let body = self.answer(request, 200).await?;
        let mut agent = Agent::parse(&body).map_err(|_| CreateFault::BadAnswer)?;
        let doubtful = agent.tools.iter_mut().filter(|tool| tool.doubtful_id().is_some());
        for tool in doubtful.take(DOUBTFUL_TOOLS_MAX) {
            let Some(id) = tool.doubtful_id().map(str::to_owned) else { continue };
            // What cannot be read stays as it is: Ultravox's own tool.
            if let Ok((name, is_public)) = self.fetch_tool_name(&id).await {
                tool.name_it(&name, is_public);
            }
        }
        Ok(agent)
    }

    /// `GET /api/tools/{tool_id}`: its name, and whether it is one of Ultravox's own.
    async fn fetch_tool_name(&self, tool_id: &str) -> Result<(String, bool), CreateFault> {
        let url = self.url(&["api", "tools", tool_id]).ok_or(CreateFault::NotFound)?;
        let body = self.answer(self.request(Method::GET, url, TOOL), 200).await?;
        let tool: Value = serde_json::from_slice(&body).map_err(|_| CreateFault::BadAnswer)?;
        let own = tool.pointer("/definition/modelToolName").or_else(|| tool.get("name"));
        let name = own.and_then(Value::as_str).ok_or(CreateFault::BadAnswer)?;
        Ok((name.to_owned(), tool.get("ownership").and_then(Value::as_str) == Some("public")))
    }

    /// The present stage of a call: `GET /api/calls/{call_id}/stages`, then the tools of the last.
    ///
    /// # Errors
    /// [`CreateFault`], as for a creation.
    pub async fn fetch_stage(&self, call_id: &CallId) -> Result<Stage, CreateFault> {
        let stages = self.url(&["api", "calls", call_id.as_str(), "stages"]);
        let stages = stages.ok_or(CreateFault::NotFound)?;
        let body = self.answer(self.request(Method::GET, stages, limits::CREATE_CALL), 200).await?;
        let (stage_id, prompt) = Stage::last(&body).map_err(|_| CreateFault::BadAnswer)?;
        let path = ["api", "calls", call_id.as_str(), "stages", stage_id.as_str(), "tools"];
        let tools = self.url(&path).ok_or(CreateFault::NotFound)?;
        let body = self.answer(self.request(Method::GET, tools, limits::CREATE_CALL), 200).await?;
        Stage::with_tools(prompt, &body).map_err(|_| CreateFault::BadAnswer)
    }

    /// The service's address for a log: scheme, host and port.
    pub fn origin(&self) -> String {
        self.base_url.origin().ascii_serialization()
    }

    /// `None` when a segment is no identifier: it would change the path.
    fn url(&self, segments: &[&str]) -> Option<Url> {
        if !segments.iter().all(|segment| is_identifier(segment)) {
            return None;
        }
        let mut url = self.base_url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }

    fn request(&self, method: Method, url: Url, budget: Duration) -> Request {
        let mut request = Request::new(method, url);
        let headers = request.headers_mut();
        headers.insert("x-api-key", self.api_key.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        *request.timeout_mut() = Some(budget.min(limits::CREATE_CALL));
        request
    }

    /// Sends `request` and gives the body of an answer with the status `wanted`.
    async fn answer(&self, request: Request, wanted: u16) -> Result<Vec<u8>, CreateFault> {
        let begun = Clock::instant();
        let path = request.url().path().to_owned();
        let response = self.client.execute(request).await.map_err(|error| {
            let fault = fault_of(&error);
            tracing::warn!(path, %fault, "no answer from the agent service");
            fault
        })?;
        let status = response.status().as_u16();
        let elapsed_ms = Clock::instant().since(begun).as_millis() as u64;
        if status == wanted {
            tracing::debug!(path, status, elapsed_ms, "the agent service answered");
            return read_body(response).await;
        }
        let retry_after = header(response.headers(), RETRY_AFTER.as_str());
        let fault = CreateFault::from_status(status, retry_after.as_deref(), Clock::now().wall);
        let fields = refused_fields(&read_body(response).await.unwrap_or_default());
        tracing::warn!(
            path,
            status,
            elapsed_ms,
            ?retry_after,
            ?fields,
            "the agent service refused"
        );
        Err(fault)
    }
}

impl fmt::Debug for AgentService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentService").field("origin", &self.origin()).finish_non_exhaustive()
    }
}

fn parse_base(text: &str, plain: bool) -> Result<Url, SettingsFault> {
    let url = Url::parse(text).map_err(|_| SettingsFault::BadUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if plain => {}
        _ => return Err(SettingsFault::NotHttps),
    }
    let credentials = !url.username().is_empty() || url.password().is_some();
    if !url.has_host() || credentials || url.query().is_some() || url.fragment().is_some() {
        return Err(SettingsFault::BadUrl);
    }
    Ok(url)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A connection that does not come up is `Unreachable` even when its own time ran out: nothing was
/// asked yet, so that a second try cannot make a second call. One that broke later is `Unreachable`
/// too (mostly a pooled connection that the service had closed): the one retry may then leave an
/// orphan, which lapses by its `joinTimeout`.
fn fault_of(error: &reqwest::Error) -> CreateFault {
    if error.is_connect() {
        CreateFault::Unreachable
    } else if error.is_timeout() {
        CreateFault::TimedOut
    } else if error.is_decode() || error.is_body() {
        CreateFault::BadAnswer
    } else {
        CreateFault::Unreachable
    }
}

/// The whole body, at most [`limits::REST_BODY_BYTES_MAX`].
async fn read_body(mut response: Response) -> Result<Vec<u8>, CreateFault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| fault_of(&error))? {
        if body.len() + chunk.len() > limits::REST_BODY_BYTES_MAX {
            tracing::warn!(
                limit = limits::REST_BODY_BYTES_MAX,
                "the agent service's answer is too long"
            );
            return Err(CreateFault::BadAnswer);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Names of the top members of an error's JSON: they tell which field was refused and, unlike their
/// texts, hold nothing that a caller said.
fn refused_fields(body: &[u8]) -> Vec<String> {
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return Vec::new() };
    let printable = |name: &String| name.chars().filter(|c| !c.is_control()).take(80).collect();
    members.keys().take(LOGGED_FIELDS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::tls;

    pub fn service(
        base_url: &str,
        api_key: &str,
        plain: bool,
    ) -> Result<AgentService, SettingsFault> {
        let tls = tls::client_config(false, &[]).expect("no roots are fine");
        let settings = AgentServiceSettings {
            base_url: base_url.into(),
            api_key: Secret::new(api_key),
            tls,
            plain,
        };
        AgentService::new(&settings)
    }

    #[test]
    fn settings_that_cannot_work_are_refused_at_once() {
        for (base_url, key, plain, expected) in [
            ("https://api.ultravox.ai", "k", false, None),
            ("http://127.0.0.1:1", "k", true, None),
            ("http://127.0.0.1:1", "k", false, Some(SettingsFault::NotHttps)),
            ("ftp://host", "k", true, Some(SettingsFault::NotHttps)),
            ("api.ultravox.ai", "k", false, Some(SettingsFault::BadUrl)),
            ("https://user:pass@host", "k", false, Some(SettingsFault::BadUrl)),
            ("https://host/?a=b", "k", false, Some(SettingsFault::BadUrl)),
            ("https://host", "", false, Some(SettingsFault::BadKey)),
            ("https://host", "a\nb", false, Some(SettingsFault::BadKey)),
        ] {
            assert_eq!(service(base_url, key, plain).err(), expected, "{base_url}");
        }
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        let service = service("https://host/base/", "k", false).expect("settings are good");
        let url = |id| service.url(&["api", "agents", id]).map(String::from);
        assert_eq!(url("a-1"), Some("https://host/base/api/agents/a-1".into()));
        for id in ["..", "a/b", "a?b", "a#b", "", "%2e%2e"] {
            assert_eq!(url(id), None, "{id:?}");
        }
    }

    #[test]
    fn a_log_names_refused_fields_and_never_their_texts() {
        let body = br#"{"templateContext.ultravox": ["15550001111 is not allowed"], "b\n": 1}"#;
        assert_eq!(refused_fields(body), ["templateContext.ultravox", "b"]);
        assert_eq!(refused_fields(b"<html>"), Vec::<String>::new());
        assert!(
            !format!("{:?}", service("https://host", "secret-key", false)).contains("secret-key")
        );
    }
}
