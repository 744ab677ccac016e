//! How a command asks the daemon that runs: over its admin listener, with the key and the certificate
//! of the configuration that both read.

use crate::shell::admin::client::{self, Answer, Ask, ClientFault};
use crate::shell::config::Config;
use crate::shell::tls::Pem;
use serde_json::Value;

/// Why the daemon gave nothing.
#[derive(Debug)]
pub enum Silence {
    /// No daemon runs with this configuration, or no key is configured to ask it with.
    NotThere(String),
    /// It runs and does not help: in words.
    Refused(String),
}

impl Silence {
    pub fn words(self) -> String {
        match self {
            Silence::NotThere(words) | Silence::Refused(words) => words,
        }
    }
}

/// A request to the daemon; its answer when that is 200.
///
/// # Errors
/// [`Silence`].
pub fn daemon(config: &Config, method: &str, path: &str) -> Result<Answer, Silence> {
    let (listen, own) = (config.admin.listen, &config.ultravox.api_key);
    let key = config.admin.api_key.as_ref().or((!own.is_empty()).then_some(own));
    let Some(key) = key else {
        let words = "no key is configured to ask the daemon with: set admin.api_key_file";
        return Err(Silence::NotThere(words.to_owned()));
    };
    let certificate = config.admin.tls.as_ref().map(|tls| Pem::read(&tls.certificate)).transpose();
    let certificate = certificate.map_err(|fault| Silence::Refused(fault.to_string()))?;
    let (api_key, certificate) = (Some(key), certificate.as_ref());
    match client::send(listen, &Ask { method, path, api_key, body: None, certificate }) {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(Silence::Refused(refusal(config, &answer))),
        Err(ClientFault::NotRunning) => Err(Silence::NotThere(format!(
            "no daemon runs with this configuration: nobody listens at {listen}"
        ))),
        Err(ClientFault::Broken(_) | ClientFault::BadAnswer) => Err(Silence::Refused(format!(
            "what listens at {listen} is no voxedge with this configuration: correct [admin]"
        ))),
    }
}

fn refusal(config: &Config, answer: &Answer) -> String {
    if answer.status == 401 {
        let listen = config.admin.listen;
        return format!(
            "the daemon at {listen} has another key: give the configuration that it runs with"
        );
    }
    let body: Option<Value> = serde_json::from_str(&answer.body).ok();
    let detail = body.as_ref().and_then(|body| body.get("detail")).and_then(Value::as_str);
    match detail {
        Some(detail) => detail.trim_end().to_owned(),
        None => format!("the daemon at {} answers {}", config.admin.listen, answer.status),
    }
}
