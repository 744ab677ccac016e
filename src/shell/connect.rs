//! Outgoing TLS over tokio, for the demo's phone and later for trunks: SNI and the checked identity
//! are the name that was asked for (RFC 5922), never an address that DNS gave.

use crate::shell::tls::{ClientConfig, ServerName};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A stream connection, plain or encrypted.
pub type BoxedStream = Box<dyn Duplex>;

/// What a SIP connection needs of its stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Does the TLS handshake as a client, towards `name`.
///
/// # Errors
///
/// When `name` is no host name or address, or the handshake fails.
pub async fn tls(
    stream: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<BoxedStream> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(stream))
}
