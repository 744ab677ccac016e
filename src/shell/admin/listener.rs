//! The admin listener's socket, plain or TLS. Handshakes run beside each other, so that one slow
//! client does not hold up the rest. Each connection tells whence it came.

use crate::ground::limits;
use crate::shell::tls::ServerConfig;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes that may run at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Whence a request came; IPv4-mapped addresses are IPv4 ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source(pub IpAddr);

impl Connected<IncomingStream<'_, Door>> for Source {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Source {
        Source(stream.remote_addr().ip().to_canonical())
    }
}

/// The socket that listens.
pub struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<(Wire, SocketAddr)>>,
}

impl Door {
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Door {
        Door { listener, tls: tls.map(TlsAcceptor::from), handshakes: JoinSet::new() }
    }
}

impl Listener for Door {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let Some(tls) = self.tls.clone() else {
            let (stream, peer) = accept_tcp(&self.listener).await;
            return (Wire::Plain(stream), peer);
        };
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                (stream, peer) = accept_tcp(&self.listener), if room => {
                    let handshake = tokio::time::timeout(limits::TLS_HANDSHAKE, tls.accept(stream));
                    self.handshakes.spawn(async move {
                        let stream = handshake.await.ok()?.ok()?;
                        Some((Wire::Tls(Box::new(stream)), peer))
                    });
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn accept_tcp(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A failure only costs delay.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
