//! A registration with a customer's PBX: the document as the API and the file write it
//! (`SipRegistration` of the published schema), and the [`Registration`] that is compiled from it.
//! The registrar is a host, `host:port` or a SIP URI; a `transport` parameter chooses TCP or TLS.

use crate::ground::Secret;
use crate::sip::digest::Credentials;
use crate::sip::msg::{Host, Scheme, Uri};
use crate::sip::registration::RegistrationSettings;
use crate::sip::target::{Target, TargetFault};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// Characters of `username` and `authUser`, and of `proxy` and `outboundProxy` (schema: `maxLength`).
const USER_CHARS_MAX: usize = 60;
const PROXY_CHARS_MAX: usize = 100;
/// Bytes of a password.
const PASSWORD_BYTES_MAX: usize = 256;

/// A registration as written. The password is write-only: there is no way to serialize it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationDocument {
    /// The user to register as; at most 60 characters.
    pub username: String,
    #[serde(deserialize_with = "secret")]
    pub password: Secret,
    /// The registrar; at most 100 characters.
    pub proxy: String,
    /// Where requests for the registrar are sent, when that is another place.
    #[serde(default)]
    pub outbound_proxy: Option<String>,
    /// The name in digests, when it is not `username`.
    #[serde(default)]
    pub auth_user: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Names a registration for as long as it is configured: the `registrationId` of the API.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegistrationId(pub Arc<str>);

impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A checked registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    pub id: RegistrationId,
    pub settings: Arc<RegistrationSettings>,
}

/// A member of the document. `Display` gives the API's name, `toml_key` the file's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RegistrationField {
    Username,
    Password,
    Proxy,
    OutboundProxy,
    AuthUser,
}

impl RegistrationField {
    pub fn toml_key(self) -> &'static str {
        match self {
            RegistrationField::Username => "username",
            RegistrationField::Password => "password",
            RegistrationField::Proxy => "proxy",
            RegistrationField::OutboundProxy => "outbound_proxy",
            RegistrationField::AuthUser => "auth_user",
        }
    }
}

impl fmt::Display for RegistrationField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RegistrationField::OutboundProxy => "outboundProxy",
            RegistrationField::AuthUser => "authUser",
            other => other.toml_key(),
        })
    }
}

/// One problem of a registration, with what to do about it. Never shows the password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationProblem {
    pub field: RegistrationField,
    pub problem: String,
    pub fix: String,
}

impl Registration {
    /// Checks a document.
    ///
    /// # Errors
    /// All of its problems.
    pub fn compile(
        id: RegistrationId,
        document: &RegistrationDocument,
    ) -> Result<Registration, Vec<RegistrationProblem>> {
        let mut problems = Vec::new();
        check_user(RegistrationField::Username, &document.username, &mut problems);
        check_password(&document.password, &mut problems);
        let field = RegistrationField::Proxy;
        let registrar = Server::read(&document.proxy)
            .map_err(|(problem, fix)| problems.push(RegistrationProblem { field, problem, fix }));
        let outbound = document.outbound_proxy.as_deref().map(|proxy| {
            let field = RegistrationField::OutboundProxy;
            Server::read(proxy).map_err(|(problem, fix)| {
                problems.push(RegistrationProblem { field, problem, fix })
            })
        });
        if let Some(user) = &document.auth_user {
            check_user(RegistrationField::AuthUser, user, &mut problems);
        }
        let (Ok(registrar), Ok(outbound)) = (registrar, outbound.transpose()) else {
            return Err(problems);
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let settings = Arc::new(settings(document, registrar, outbound));
        Ok(Registration { id, settings })
    }
}

fn settings(
    document: &RegistrationDocument,
    registrar: Server,
    outbound: Option<Server>,
) -> RegistrationSettings {
    let scheme = if registrar.target.secure { "sips" } else { "sip" };
    let user = escape_user(&document.username);
    let username = document.auth_user.as_ref().unwrap_or(&document.username).clone();
    let routes = outbound.iter().map(|server| format!("<{};lr>", server.uri)).collect();
    RegistrationSettings {
        address_of_record: format!("{scheme}:{user}@{}", registrar.host),
        target: outbound.map_or(registrar.target.clone(), |server| server.target),
        registrar: registrar.target,
        request_uri: registrar.uri,
        routes,
        user,
        credentials: Credentials { username, password: document.password.clone() },
    }
}

/// A registrar or proxy, read.
struct Server {
    /// The whole URI, without a user.
    uri: String,
    /// The host as it stands in URIs.
    host: String,
    target: Target,
}

impl Server {
    /// # Errors
    /// The problem and what to do about it.
    fn read(text: &str) -> Result<Server, (String, String)> {
        let example = || {
            "write a host, as in pbx.example, 192.0.2.7:5070 or \
                          sip:pbx.example:5061;transport=tls"
                .to_owned()
        };
        if text.is_empty() {
            return Err(("it is empty".into(), example()));
        }
        if text.chars().count() > PROXY_CHARS_MAX {
            let problem = format!("it has more than {PROXY_CHARS_MAX} characters");
            return Err((problem, example()));
        }
        let lower = text.to_ascii_lowercase();
        let whole = match text.parse::<Ipv6Addr>() {
            Ok(address) => format!("sip:[{address}]"),
            Err(_) if lower.starts_with("sip:") || lower.starts_with("sips:") => text.to_owned(),
            Err(_) => format!("sip:{text}"),
        };
        let no_server = || (format!("\"{}\" is no SIP server", text.escape_debug()), example());
        let uri = Uri::parse(&whole).map_err(|_| no_server())?;
        if uri.user().is_some() {
            let fix = "leave out what is before the @; the user is `username`".to_owned();
            return Err(("it names a user".into(), fix));
        }
        let is_known = |param: &str| {
            let name = param.split('=').next().unwrap_or_default();
            ["", "transport", "lr"].iter().any(|known| name.eq_ignore_ascii_case(known))
        };
        if uri.has_headers() || !uri.params_text().split(';').all(is_known) {
            let fix = "leave out everything but ;transport=".to_owned();
            return Err(("it has parts that mean nothing here".into(), fix));
        }
        let target = Target::of_uri(&uri).map_err(|fault| match fault {
            TargetFault::NotSip => no_server(),
            TargetFault::Transport => {
                ("this transport is not spoken".into(), "choose udp, tcp or tls".into())
            }
            TargetFault::SecureOverUdp => {
                ("sips does not go over udp".into(), "leave ;transport=udp out".into())
            }
        })?;
        Ok(Server::of(&uri, target))
    }

    /// The URI with what means something: host, port and transport.
    fn of(uri: &Uri<'_>, target: Target) -> Server {
        let host = match uri.host() {
            Host::Name(name) => name.trim_end_matches('.').to_ascii_lowercase(),
            address => address.to_string(),
        };
        let secure = uri.scheme() == Scheme::Sips;
        let scheme = if secure { "sips" } else { "sip" };
        let mut text = format!("{scheme}:{host}");
        if let Some(port) = uri.port() {
            text = format!("{text}:{port}");
        }
        if let Some(transport) = target.transport.filter(|_| !secure) {
            text = format!("{text};transport={}", transport.uri_param());
        }
        Server { uri: text, host, target }
    }
}

fn check_user(field: RegistrationField, user: &str, problems: &mut Vec<RegistrationProblem>) {
    let count = user.chars().count();
    let problem = if count == 0 {
        "it is empty".to_owned()
    } else if count > USER_CHARS_MAX {
        format!("it has {count} characters")
    } else if user.chars().any(char::is_control) {
        "it holds a control character".to_owned()
    } else {
        return;
    };
    let fix = format!("give it 1 to {USER_CHARS_MAX} characters");
    problems.push(RegistrationProblem { field, problem, fix });
}

fn check_password(password: &Secret, problems: &mut Vec<RegistrationProblem>) {
    let text = password.reveal();
    let problem = if text.is_empty() {
        "it is empty".to_owned()
    } else if text.len() > PASSWORD_BYTES_MAX {
        format!("it has more than {PASSWORD_BYTES_MAX} bytes")
    } else if text.chars().any(char::is_control) {
        "it holds a control character".to_owned()
    } else {
        return;
    };
    let fix = format!("give it 1 to {PASSWORD_BYTES_MAX} bytes in one line");
    problems.push(RegistrationProblem { field: RegistrationField::Password, problem, fix });
}

/// The user part of a URI (RFC 3261 §25.1: `unreserved` and `user-unreserved` stand as they are).
fn escape_user(user: &str) -> String {
    let mut escaped = String::with_capacity(user.len());
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(proxy: &str) -> RegistrationDocument {
        RegistrationDocument {
            username: "sales".into(),
            password: Secret::new("s3cret"),
            proxy: proxy.into(),
            ..RegistrationDocument::default()
        }
    }

    fn compile(document: &RegistrationDocument) -> Result<Registration, Vec<String>> {
        let problems = |problems: Vec<RegistrationProblem>| {
            problems
                .iter()
                .map(|problem| format!("{}: {}", problem.field, problem.problem))
                .collect()
        };
        Registration::compile(RegistrationId("r1".into()), document).map_err(problems)
    }

    #[test]
    fn registrars_are_read_or_refused() {
        let cases = [
            ("PBX.example", Ok("sip:sales@pbx.example sip:pbx.example")),
            ("pbx.example.:5070", Ok("sip:sales@pbx.example sip:pbx.example:5070")),
            ("192.0.2.7:5070", Ok("sip:sales@192.0.2.7 sip:192.0.2.7:5070")),
            ("2001:db8::1", Ok("sip:sales@[2001:db8::1] sip:[2001:db8::1]")),
            ("[2001:db8::1]:5070", Ok("sip:sales@[2001:db8::1] sip:[2001:db8::1]:5070")),
            (
                "sip:pbx.example:5061;transport=TLS",
                Ok("sip:sales@pbx.example sip:pbx.example:5061;transport=tls"),
            ),
            (
                "pbx.example;transport=tcp;lr",
                Ok("sip:sales@pbx.example sip:pbx.example;transport=tcp"),
            ),
            ("sips:pbx.example", Ok("sips:sales@pbx.example sips:pbx.example")),
            ("", Err("proxy: it is empty")),
            ("sip:alice@pbx.example", Err("proxy: it names a user")),
            ("pbx.example;transport=sctp", Err("proxy: this transport is not spoken")),
            ("sips:pbx.example;transport=udp", Err("proxy: sips does not go over udp")),
            ("pbx.example;maddr=192.0.2.9", Err("proxy: it has parts that mean nothing here")),
            ("pbx.example?Route=x", Err("proxy: it has parts that mean nothing here")),
            ("pbx example", Err("proxy: \"pbx example\" is no SIP server")),
            ("pbx.example:70000", Err("proxy: \"pbx.example:70000\" is no SIP server")),
            ("1.2.3", Err("proxy: \"1.2.3\" is no SIP server")),
        ];
        for (proxy, expected) in cases {
            let compiled = compile(&document(proxy)).map(|registration| {
                let settings = registration.settings;
                format!("{} {}", settings.address_of_record, settings.request_uri)
            });
            let expected =
                expected.map(str::to_owned).map_err(|words: &str| vec![words.to_owned()]);
            assert_eq!(compiled, expected, "{proxy}");
        }
    }

    #[test]
    fn users_are_escaped_and_an_outbound_proxy_becomes_a_route() {
        let mut document = document("trunk.example");
        document.username = "al ice@x#1+2".into();
        document.auth_user = Some("auth".into());
        document.outbound_proxy = Some("proxy.trunk.example;transport=tcp".into());
        let settings = compile(&document).expect("good").settings;
        assert_eq!(settings.address_of_record, "sip:al%20ice%40x%231+2@trunk.example");
        assert_eq!(settings.routes, ["<sip:proxy.trunk.example;transport=tcp;lr>"]);
        assert_eq!(settings.credentials.username, "auth");
        assert_ne!(settings.target, settings.registrar);
    }

    #[test]
    fn all_problems_come_at_once_on_both_sides_of_each_limit() {
        let mut document = document(&format!("{}.example", "a".repeat(60)));
        document.username = "ü".repeat(60);
        document.password = Secret::new("p".repeat(256));
        assert!(compile(&document).is_ok());
        document.username = "ü".repeat(61);
        document.password = Secret::new("p".repeat(257));
        document.proxy = format!("{0}.{0}", "a".repeat(50));
        document.outbound_proxy = Some(String::new());
        document.auth_user = Some("a\nb".into());
        assert_eq!(
            compile(&document).expect_err("five problems"),
            [
                "username: it has 61 characters",
                "password: it has more than 256 bytes",
                "proxy: it has more than 100 characters",
                "outboundProxy: it is empty",
                "authUser: it holds a control character",
            ]
        );
    }

    #[test]
    fn the_document_has_the_schemas_names_and_hides_the_password() {
        let json = json!({
            "username": "sales", "password": "s3cret", "proxy": "pbx.example",
            "outboundProxy": null, "authUser": "auth",
        });
        let read: RegistrationDocument = serde_json::from_value(json).expect("reads");
        let expected =
            RegistrationDocument { auth_user: Some("auth".into()), ..document("pbx.example") };
        assert_eq!(read, expected);
        let compiled = compile(&read).expect("good");
        assert!(!format!("{read:?} {compiled:?}").contains("s3cret"));
        let unknown = json!({"username": "u", "password": "p", "proxy": "h", "realm": "r"});
        assert!(serde_json::from_value::<RegistrationDocument>(unknown).is_err());
    }
}
