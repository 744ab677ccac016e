//! The TLS handshakes on a SIP connection, as server and as client. The one door of the flows to
//! `tokio_rustls`.

use super::TlsSource;
use crate::shell::tls::{ClientConfig, HandshakeKind, server_name, words};
use crate::sip::target::TargetHost;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The first byte of a TLS record that carries a handshake, and of no SIP message.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;

/// A connection of ours.
pub(super) type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// The connection after its handshake; `None` when it failed or took longer than `limit`.
pub(super) async fn accept(
    source: &TlsSource,
    stream: TcpStream,
    limit: Duration,
) -> Option<TlsStream<TcpStream>> {
    let config = source.borrow().clone();
    timeout(limit, TlsAcceptor::from(config).accept(stream)).await.ok()?.ok()
}

/// A connection of ours after its handshake with a peer that proved to be `identity`, and whether an
/// earlier session was resumed; else why not, in words for the operator.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    identity: &TargetHost,
    stream: TcpStream,
    limit: Duration,
) -> Result<(ClientStream, bool), String> {
    let name =
        server_name(identity).ok_or_else(|| "the host can stand in no certificate".to_owned())?;
    match timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => {
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            Ok((stream, resumed))
        }
        Ok(Err(error)) => Err(words(&error)),
        Err(_) => Err(format!("no TLS handshake within {} s", limit.as_secs_f32())),
    }
}
