//! TLS for all of the product: SIP listeners (RFC 5630, TLS 1.2 and 1.3), agent streams and REST.
//! The one door to `rustls` and its roots and to `rcgen`; who drives a connection takes the types
//! from here. The crypto provider is ring. No ALPN is offered, since neither SIP nor the agent
//! stream has a protocol name; 0-RTT is never used, since what it carries can be replayed.

mod identity;
mod peer;
pub mod pinned;

pub use peer::{PeerTarget, PeerTls, PeerTlsSettings, server_name, words};

use crate::ground::WallTime;
use crate::shell::clock::Clock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
pub use rustls::pki_types::ServerName;
pub use rustls::unbuffered;
pub use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

/// Why TLS could not be set up; each names the file to look at.
#[derive(Debug)]
pub enum TlsFault {
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    /// The file holds no PEM certificate.
    NoCertificate {
        path: PathBuf,
    },
    /// The file holds no PEM private key (PKCS#8, SEC1 or PKCS#1).
    NoKey {
        path: PathBuf,
    },
    BadCertificate {
        path: PathBuf,
        detail: String,
    },
    BadKey {
        path: PathBuf,
        detail: String,
    },
    KeyMismatch {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// A bundle of roots without one that can be used.
    NoRoots {
        path: PathBuf,
    },
    Provider(String),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsFault::Unreadable { path, error } => write!(f, "{}: {error}", path.display()),
            TlsFault::NoCertificate { path } => {
                write!(f, "{}: no certificate in PEM format", path.display())
            }
            TlsFault::NoKey { path } => {
                write!(f, "{}: no private key in PEM format", path.display())
            }
            TlsFault::BadCertificate { path, detail } => {
                write!(f, "{}: the certificate cannot be used: {detail}", path.display())
            }
            TlsFault::BadKey { path, detail } => {
                write!(f, "{}: the private key cannot be used: {detail}", path.display())
            }
            TlsFault::KeyMismatch { certificate, key } => write!(
                f,
                "{}: the private key does not belong to the certificate in {}",
                key.display(),
                certificate.display()
            ),
            TlsFault::NoRoots { path } => {
                write!(f, "{}: no root certificate that can be used", path.display())
            }
            TlsFault::Provider(detail) => write!(f, "TLS cannot be set up: {detail}"),
        }
    }
}

impl std::error::Error for TlsFault {}

/// A text in PEM format and where it came from, for the words of a fault.
#[derive(Clone, Debug)]
pub struct Pem {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Pem {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TlsFault::Unreadable`].
    pub fn read(path: &Path) -> Result<Pem, TlsFault> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Pem { path: path.to_owned(), bytes }),
            Err(error) => Err(TlsFault::Unreadable { path: path.to_owned(), error }),
        }
    }

    /// A text that never was in a file.
    pub fn from_text(name: &str, text: &str) -> Pem {
        Pem { path: PathBuf::from(name), bytes: text.as_bytes().to_vec() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match parsed {
            Ok(chain) if chain.is_empty() => {
                Err(TlsFault::NoCertificate { path: self.path.clone() })
            }
            Ok(chain) => Ok(chain),
            Err(error) => {
                Err(TlsFault::BadCertificate { path: self.path.clone(), detail: error.to_string() })
            }
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsFault> {
        use rustls::pki_types::pem::Error;
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            Error::NoItemsFound => TlsFault::NoKey { path: self.path.clone() },
            other => TlsFault::BadKey { path: self.path.clone(), detail: other.to_string() },
        })
    }
}

/// A listener's configuration: a certificate chain with its key (ECDSA, Ed25519 or RSA), and, when
/// `client_ca` is given, only clients with a certificate from it. A certificate that has expired
/// still starts, with a warning: an old certificate must not take the trunk down with it.
///
/// # Errors
/// [`TlsFault`]: which file, and what is wrong with it.
pub fn server_config(
    certificate: &Pem,
    key: &Pem,
    client_ca: Option<&Pem>,
) -> Result<Arc<ServerConfig>, TlsFault> {
    let chain = certificate.certificates()?;
    let private = key.key()?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Provider(error.to_string()))?;
    let builder = match client_ca {
        Some(ca) => builder.with_client_cert_verifier(client_verifier(ca)?),
        None => builder.with_no_client_auth(),
    };
    let not_after = chain.first().and_then(|first| not_after(first));
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| pair_fault(error, certificate, key))?;
    config.ticketer =
        ring::Ticketer::new().map_err(|error| TlsFault::Provider(error.to_string()))?;
    if not_after.is_some_and(|end| end <= Clock::now().wall) {
        tracing::warn!(path = %certificate.path.display(), "the TLS certificate has expired");
    }
    Ok(Arc::new(config))
}

/// What is wrong with a certificate and its key together.
fn pair_fault(error: rustls::Error, certificate: &Pem, key: &Pem) -> TlsFault {
    use rustls::Error;
    let path = key.path.clone();
    match error {
        Error::InconsistentKeys(_) => {
            TlsFault::KeyMismatch { certificate: certificate.path.clone(), key: path }
        }
        Error::InvalidCertificate(detail) => {
            TlsFault::BadCertificate { path: certificate.path.clone(), detail: words_for(&detail) }
        }
        other => TlsFault::BadKey { path, detail: other.to_string() },
    }
}

/// When the first certificate of `certificate` ends; `None` when it does not say so readably.
///
/// # Errors
/// When there is no certificate in it.
pub fn expiry(certificate: &Pem) -> Result<Option<WallTime>, TlsFault> {
    Ok(certificate.certificates()?.first().and_then(|first| not_after(first)))
}

/// A client's configuration, to be shared by all connections, since it holds the sessions to
/// resume. Trusts the system's roots (Mozilla's built-in list when the system has none) when
/// `system_roots` is set, and those in `extra_roots` in any case.
///
/// # Errors
/// [`TlsFault::NoRoots`] and others about `extra_roots`.
pub fn client_config(
    system_roots: bool,
    extra_roots: &[Pem],
) -> Result<Arc<ClientConfig>, TlsFault> {
    let mut roots = match system_roots {
        true => self::system_roots(),
        false => RootCertStore::empty(),
    };
    for pem in extra_roots {
        add_roots(&mut roots, pem)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Provider(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A fresh self-signed ECDSA certificate for `names` (DNS names or literal addresses), for the
/// stand-in, the demo and tests: `(certificate PEM, key PEM)`. The certificate is its own root.
///
/// # Errors
/// [`TlsFault::BadCertificate`] for a name that cannot stand in a certificate.
pub fn self_signed(names: &[&str]) -> Result<(String, String), TlsFault> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| {
        TlsFault::BadCertificate { path: "self-signed".into(), detail: error.to_string() }
    })?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// Makes ring the provider of whoever builds a TLS configuration elsewhere (the HTTP client).
/// Calling it again changes nothing.
pub fn install_provider() {
    // An error says that one is installed already: by an earlier call of ours.
    let _ = ring::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

/// The system's roots, or Mozilla's built-in list when it has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!("the system has no root certificates: the built-in list is used");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn client_verifier(ca: &Pem) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let mut roots = RootCertStore::empty();
    add_roots(&mut roots, ca)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsFault::Provider(error.to_string()))
}

fn add_roots(roots: &mut RootCertStore, pem: &Pem) -> Result<(), TlsFault> {
    let (added, _) = roots.add_parsable_certificates(pem.certificates()?);
    if added == 0 {
        return Err(TlsFault::NoRoots { path: pem.path.clone() });
    }
    Ok(())
}

fn words_for(error: &CertificateError) -> String {
    match error {
        CertificateError::BadEncoding => "it is no X.509 certificate".to_owned(),
        other => other.to_string(),
    }
}

/// `notAfter` of a certificate (RFC 5280 §4.1): Certificate → tbsCertificate → version, serial,
/// signature, issuer, validity. Only what leads there is read.
fn not_after(certificate: &[u8]) -> Option<WallTime> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut body, _) = element(certificate)?;
    if body.first() == Some(&VERSION) {
        body = element(body)?.2;
    }
    for _serial_signature_issuer in 0..3 {
        body = element(body)?.2;
    }
    let (tag, validity, _) = element(body)?;
    let (_, _, rest) = element(validity).filter(|_| tag == SEQUENCE)?;
    let (tag, text, _) = element(rest)?;
    time_of(tag, std::str::from_utf8(text).ok()?)
}

/// One DER element off the front: tag, content, rest.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (length, rest) = match *first {
        short @ 0..=127 => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time_of(tag: u8, text: &str) -> Option<WallTime> {
    let digits = text.strip_suffix('Z').filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (0x17, 12) => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (0x18, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar, with the year begun in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + day_of_year
        - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(WallTime::from_unix_micros(seconds * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn pair(names: &[&str]) -> (Pem, Pem) {
        let (certificate, key) = self_signed(names).expect("names are valid");
        (Pem::from_text("cert.pem", &certificate), Pem::from_text("key.pem", &key))
    }

    /// Shakes hands in memory, sends `ping` and reads it at the server; the client's fault if any.
    fn shake(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
        name: &str,
    ) -> Result<(), String> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(client, name).expect("a client");
        let mut server = ServerConnection::new(server).expect("a server");
        client.writer().write_all(b"ping").expect("room");
        let mut wire = Vec::new();
        for _ in 0..4 {
            client.write_tls(&mut wire).expect("memory");
            server.read_tls(&mut &wire[..]).expect("memory");
            wire.clear();
            let judged = server.process_new_packets();
            server.write_tls(&mut wire).expect("memory");
            client.read_tls(&mut &wire[..]).expect("memory");
            wire.clear();
            client.process_new_packets().map_err(|error| error.to_string())?;
            judged.map_err(|error| format!("server: {error}"))?;
        }
        let mut read = [0; 4];
        server.reader().read_exact(&mut read).expect("data");
        assert_eq!(&read, b"ping");
        assert!(client.alpn_protocol().is_none());
        Ok(())
    }

    #[test]
    fn a_self_signed_certificate_is_its_own_root_for_its_names_only() {
        let (certificate, key) = pair(&["localhost", "127.0.0.1"]);
        let server = server_config(&certificate, &key, None).expect("a pair");
        let client = client_config(false, &[certificate]).expect("roots");
        for name in ["localhost", "127.0.0.1"] {
            assert_eq!(shake(client.clone(), server.clone(), name), Ok(()));
        }
        let wrong = shake(client, server.clone(), "other.example").expect_err("a wrong name");
        assert!(wrong.contains("not valid for name"), "{wrong}");
        let stranger = client_config(false, &[pair(&["localhost"]).0]).expect("roots");
        assert!(shake(stranger, server, "localhost").is_err());
    }

    #[test]
    fn a_client_ca_keeps_clients_without_certificate_out() {
        let (certificate, key) = pair(&["localhost"]);
        let server = server_config(&certificate, &key, Some(&certificate)).expect("a pair");
        let client = client_config(false, &[certificate]).expect("roots");
        assert!(shake(client, server, "localhost").is_err());
    }

    #[test]
    fn each_fault_names_its_file() {
        let (certificate, key) = pair(&["localhost"]);
        let (_, other_key) = pair(&["localhost"]);
        let text = |certificate: &Pem, key: &Pem, ca: Option<&Pem>| {
            server_config(certificate, key, ca).expect_err("a fault").to_string()
        };
        let junk = Pem::from_text("junk.pem", "no PEM");
        let torn = Pem::from_text(
            "torn.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        assert_eq!(text(&junk, &key, None), "junk.pem: no certificate in PEM format");
        assert_eq!(text(&certificate, &junk, None), "junk.pem: no private key in PEM format");
        assert_eq!(
            text(&certificate, &certificate, None),
            "cert.pem: no private key in PEM format"
        );
        assert_eq!(
            text(&certificate, &other_key, None),
            "key.pem: the private key does not belong to the certificate in cert.pem"
        );
        assert!(text(&torn, &key, None).contains("torn.pem"));
        assert_eq!(
            text(&certificate, &key, Some(&torn)),
            "torn.pem: no root certificate that can be used"
        );
        let missing = Pem::read(Path::new("/nowhere/cert.pem")).expect_err("no file").to_string();
        assert!(missing.starts_with("/nowhere/cert.pem: "), "{missing}");
        assert!(self_signed(&["é"]).is_err());
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let mut params = rcgen::CertificateParams::new(vec!["h".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(2031, 2, 28);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let end = expiry(&Pem::from_text("x", &pem)).expect("a certificate").expect("a date");
        assert_eq!(end.unix_micros(), 1_930_003_200_000_000);
    }

    #[test]
    fn dates_of_certificates() {
        let at = |tag, text| time_of(tag, text).map(|time| time.unix_micros() / 1_000_000);
        assert_eq!(at(0x17, "700101000000Z"), Some(0));
        assert_eq!(at(0x17, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(0x18, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(at(0x18, "99991231235959Z"), Some(253_402_300_799));
        for (tag, bad) in [(0x17, "7001010000Z"), (0x17, "701301000000Z"), (0x18, "x")] {
            assert_eq!(at(tag, bad), None);
        }
        assert_eq!(not_after(&[0x30, 0x82]), None);
    }

    #[test]
    fn the_system_or_the_built_in_list_gives_roots() {
        assert!(client_config(true, &[]).is_ok());
    }
}
