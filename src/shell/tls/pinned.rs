//! A client that trusts one certificate and nothing else: the commands of this program towards the
//! daemon's own admin listener. They read the certificate from the same file as the daemon, so neither
//! its names nor who signed it matter; that the other end has its key does.

use super::{Pem, TlsFault, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, StreamOwned,
};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// A blocking connection to whoever has the key of the first certificate in `certificate`.
///
/// # Errors
/// When the certificate cannot be used, or the handshake cannot begin; one that fails is told by the
/// first read or write.
pub fn connect(
    stream: TcpStream,
    certificate: &Pem,
) -> Result<StreamOwned<ClientConnection, TcpStream>, TlsFault> {
    let chain = certificate.certificates()?;
    let first = chain.into_iter().next();
    let pinned = first.ok_or_else(|| TlsFault::NoCertificate { path: certificate.path.clone() })?;
    let set_up = |error: Error| TlsFault::Provider(error.to_string());
    let provider = provider();
    let verifier = Arc::new(Pinned { certificate: pinned, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(set_up)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("it is a name");
    let connection = ClientConnection::new(Arc::new(config), name).map_err(set_up)?;
    Ok(StreamOwned::new(connection, stream))
}

/// True when a read ended since the other end closed without a word: HTTP tells its own length.
pub fn is_rough_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
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
