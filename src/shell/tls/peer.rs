//! TLS towards SIP peers, as their client: whom we trust, whom their certificate must name, and what
//! we show them. A peer is named by the host of its target, never by an address that DNS gave. Each
//! target with settings of its own has a configuration of its own, so that its sessions, its trust and
//! our certificate for it are never mixed with another's.

use super::identity::Identities;
use super::{Pem, TlsFault, add_roots, provider, system_roots};
use crate::sip::target::TargetHost;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What `[tls]` says of peers that we connect to.
#[derive(Clone, Debug, Default)]
pub struct PeerTlsSettings {
    /// Trust the system's roots.
    pub system_roots: bool,
    /// Trusted as well.
    pub ca: Option<Pem>,
    /// Accept `*.example.com`, which RFC 5922 forbids and some carriers use.
    pub wildcards: bool,
    pub targets: Vec<PeerTarget>,
}

/// One peer with settings of its own.
#[derive(Clone, Debug)]
pub struct PeerTarget {
    /// The host of the target, in lower case.
    pub host: String,
    /// Our certificate and its key for this peer.
    pub certificate: Option<(Pem, Pem)>,
    /// Only certificates of this CA are taken from this peer.
    pub ca: Option<Pem>,
}

/// The client configurations for SIP peers.
pub struct PeerTls {
    others: Arc<ClientConfig>,
    targets: BTreeMap<String, Arc<ClientConfig>>,
}

impl PeerTls {
    /// Reads all certificates and keys.
    ///
    /// # Errors
    /// [`TlsFault`] for the first file that cannot be used.
    pub fn new(settings: &PeerTlsSettings) -> Result<PeerTls, TlsFault> {
        let mut common = match settings.system_roots {
            true => system_roots(),
            false => RootCertStore::empty(),
        };
        if let Some(ca) = &settings.ca {
            add_roots(&mut common, ca)?;
        }
        let common = Arc::new(common);
        let mut targets = BTreeMap::new();
        for target in &settings.targets {
            let roots = match &target.ca {
                Some(ca) => {
                    let mut own = RootCertStore::empty();
                    add_roots(&mut own, ca)?;
                    Arc::new(own)
                }
                None => Arc::clone(&common),
            };
            let config = client(roots, settings.wildcards, target.certificate.as_ref())?;
            targets.insert(target.host.clone(), config);
        }
        Ok(PeerTls { others: client(common, settings.wildcards, None)?, targets })
    }

    /// The configuration for a peer. It remembers the peer's sessions.
    pub fn config_for(&self, identity: &TargetHost) -> Arc<ClientConfig> {
        let host = match identity {
            TargetHost::Name(name) => name.clone(),
            TargetHost::Address(address) => address.to_string(),
        };
        Arc::clone(self.targets.get(&host).unwrap_or(&self.others))
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("targets", &self.targets.keys()).finish_non_exhaustive()
    }
}

/// The name under which a peer is asked for; addresses are not sent as SNI (RFC 6066 §3). `None` for
/// a host that can stand in no certificate.
pub fn server_name(identity: &TargetHost) -> Option<ServerName<'static>> {
    match identity {
        TargetHost::Name(name) => ServerName::try_from(name.clone()).ok(),
        TargetHost::Address(address) => Some(ServerName::IpAddress((*address).into())),
    }
}

/// Why a handshake failed, for the operator.
pub fn words(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the certificate is of no authority that is trusted here (name it as ca under [tls])"
                .to_owned()
        }
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(own)))) => {
            own.to_string()
        }
        Some(Error::InvalidCertificate(fault)) => format!("the certificate is refused: {fault}"),
        Some(Error::AlertReceived(alert)) => {
            format!("the peer ended the handshake: {alert:?} (it may want a certificate of ours)")
        }
        Some(other) => other.to_string(),
        None => format!("the handshake was cut off: {error}"),
    }
}

fn client(
    roots: Arc<RootCertStore>,
    wildcards: bool,
    own: Option<&(Pem, Pem)>,
) -> Result<Arc<ClientConfig>, TlsFault> {
    let verifier = Arc::new(PeerVerifier { roots, wildcards, provider: provider() });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Provider(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = own else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let (chain, private) = (certificate.certificates()?, key.key()?);
    let config = builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| super::pair_fault(error, certificate, key))?;
    Ok(Arc::new(config))
}

/// The usual chain of trust, and the names by the rules of SIP.
#[derive(Debug)]
struct PeerVerifier {
    roots: Arc<RootCertStore>,
    wildcards: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let (roots, chain) = (&self.roots, intermediates);
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms)?;
        let host = match server_name {
            ServerName::DnsName(name) => TargetHost::Name(name.as_ref().to_ascii_lowercase()),
            ServerName::IpAddress(address) => TargetHost::Address((*address).into()),
            _ => return Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        };
        let names = Identities::of(end_entity)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        names.check(&host, self.wildcards).map_err(|other| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(other))))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
