//! The stand-in's listening socket, plain or TLS. Handshakes run beside each other, so that one slow
//! client does not hold up the rest. Each connection has a cut: a fault may end it without an answer.

use crate::ground::limits;
use crate::shell::tls::ServerConfig;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes that may run at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The cut of a connection, which its handlers hold.
#[derive(Clone, Debug)]
pub struct Peer {
    cut: Arc<AtomicBool>,
}

impl Peer {
    fn new() -> Peer {
        Peer { cut: Arc::new(AtomicBool::new(false)) }
    }

    /// Ends the connection: nothing more is read or written on it.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Peer {
        stream.remote_addr().clone()
    }
}

/// The socket that listens.
pub struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<TlsStream<TcpStream>>>,
}

impl Door {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> io::Result<Door> {
        let listener = TcpListener::bind(address).await?;
        Ok(Door { listener, tls: tls.map(TlsAcceptor::from), handshakes: JoinSet::new() })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept_tcp(listener: &TcpListener) -> TcpStream {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Pacing needs small frames to leave at once; a failure only costs delay.
                    let _ = stream.set_nodelay(true);
                    return stream;
                }
                Err(error) => {
                    tracing::warn!(%error, "the stand-in could not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Listener for Door {
    type Io = Wire;
    type Addr = Peer;

    async fn accept(&mut self) -> (Wire, Peer) {
        let Some(tls) = self.tls.clone() else {
            let stream = Door::accept_tcp(&self.listener).await;
            return wire(Stream::Plain(stream));
        };
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                stream = Door::accept_tcp(&self.listener), if room => {
                    let handshake = tokio::time::timeout(limits::TLS_HANDSHAKE, tls.accept(stream));
                    self.handshakes.spawn(async move {
                        handshake.await.ok()?.ok()
                    });
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(stream)) = done {
                        return wire(Stream::Tls(Box::new(stream)));
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        self.address().map(|_| Peer::new())
    }
}

fn wire(stream: Stream) -> (Wire, Peer) {
    let peer = Peer::new();
    (Wire { stream, cut: peer.cut.clone() }, peer)
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connection.
pub struct Wire {
    stream: Stream,
    cut: Arc<AtomicBool>,
}

impl Wire {
    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Relaxed) {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
