//! The signalling connection of the demo's phone: one UDP socket, or one stream over TCP or TLS, to one
//! server. It carries whole messages and knows nothing of calls.

use super::phone::PhoneCall;
use crate::ground::Transport;
use crate::shell::connect::{self, BoxedStream};
use crate::sip::msg::frame::{Framed, StreamFramer};
use crate::sip::msg::{Framing, Message};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as ProbeSocket};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// The phone's signalling connection.
pub(super) struct Line {
    pub(super) local: SocketAddr,
    server: SocketAddr,
    kind: LineKind,
}

enum LineKind {
    Datagram(UdpSocket),
    Stream { stream: BoxedStream, framer: StreamFramer },
}

impl Line {
    pub(super) async fn open(call: &PhoneCall) -> io::Result<Line> {
        let any = SocketAddr::new(local_ip_towards(call.server)?, 0);
        if call.transport == Transport::Udp {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(call.server).await?;
            let local = socket.local_addr()?;
            return Ok(Line { local, server: call.server, kind: LineKind::Datagram(socket) });
        }
        let stream = tokio::net::TcpStream::connect(call.server).await?;
        let local = stream.local_addr()?;
        let stream: BoxedStream = match (&call.transport, &call.tls) {
            (Transport::Tls, Some(config)) => {
                connect::tls(stream, &call.domain, Arc::clone(config)).await?
            }
            _ => Box::new(stream),
        };
        let kind = LineKind::Stream { stream, framer: StreamFramer::new(call.server) };
        Ok(Line { local, server: call.server, kind })
    }

    /// The line of a call that came in a packet: `socket` is connected to its caller.
    pub(super) fn over(socket: UdpSocket, local: SocketAddr, server: SocketAddr) -> Line {
        Line { local, server, kind: LineKind::Datagram(socket) }
    }

    pub(super) fn is_datagram(&self) -> bool {
        matches!(self.kind, LineKind::Datagram(_))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            LineKind::Datagram(socket) => socket.send(bytes).await.map(drop),
            LineKind::Stream { stream, .. } => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    pub(super) async fn receive(&mut self) -> io::Result<Message> {
        let bad = |fault: &dyn std::fmt::Debug| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} sent {fault:?}", self.server))
        };
        match &mut self.kind {
            LineKind::Datagram(socket) => {
                let mut buffer = vec![0; 65_536];
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                Message::parse(buffer.into(), Framing::Datagram).map_err(|fault| bad(&fault.reason))
            }
            LineKind::Stream { stream, framer } => loop {
                match framer.next() {
                    Ok(Some(Framed::Message(bytes))) => {
                        return Message::parse(bytes, Framing::Stream)
                            .map_err(|fault| bad(&fault.reason));
                    }
                    Ok(Some(Framed::KeepAlive | Framed::Pong)) => continue,
                    Ok(None) => {}
                    Err(_) => return Err(bad(&"a broken frame")),
                }
                let mut buffer = [0; 4_096];
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                framer.push(&buffer[..length]);
            },
        }
    }
}

/// The address that the kernel would use towards `server`; no packet is sent.
fn local_ip_towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = ProbeSocket::bind(SocketAddr::new(any, 0))?;
    probe.connect(server)?;
    Ok(probe.local_addr()?.ip())
}
