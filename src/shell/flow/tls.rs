//! The server side of the TLS handshake on a SIP connection. The one door to `tokio_rustls`.

use super::TlsSource;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of a TLS record that carries a handshake, and of no SIP message.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;

/// The connection after its handshake; `None` when it failed or took longer than `limit`.
pub(super) async fn accept(
    source: &TlsSource,
    stream: TcpStream,
    limit: Duration,
) -> Option<TlsStream<TcpStream>> {
    let config = source.borrow().clone();
    timeout(limit, TlsAcceptor::from(config).accept(stream)).await.ok()?.ok()
}
