//! Opening the listening sockets. IPv6 sockets are for IPv6 only, so that one address family never
//! hides in the other; UDP gets a large receive buffer, since a burst comes faster than one task runs.

use super::canonical;
use crate::ground::Transport;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, UdpSocket};

/// Why a listener could not be opened.
#[derive(Debug)]
pub enum FlowFault {
    Bind {
        transport: Transport,
        address: SocketAddr,
        error: io::Error,
    },
    /// A TLS listener without a certificate.
    NoCertificate {
        address: SocketAddr,
    },
}

impl fmt::Display for FlowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, address, error) = match self {
            FlowFault::NoCertificate { address } => {
                return write!(
                    f,
                    "SIP TLS listener {address}: no certificate and key are configured"
                );
            }
            FlowFault::Bind { transport, address, error } => (transport, address, error),
        };
        let word = transport.via_token();
        write!(f, "the SIP {word} listener {address} cannot be opened: ")?;
        let port = address.port();
        match error.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "another program has this port; find it with `ss -lnp sport = :{port}` and stop \
                 it, or choose another port under [listen]"
            ),
            io::ErrorKind::AddrNotAvailable => f.write_str(
                "no interface of this machine has that address; see `ip address`, or listen on \
                 0.0.0.0 or [::]",
            ),
            io::ErrorKind::PermissionDenied => f.write_str(
                "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port under [listen]",
            ),
            _ => write!(f, "{error}; correct the address under [listen]"),
        }
    }
}

impl std::error::Error for FlowFault {}

/// What is asked of the kernel; it may give less (`net.core.rmem_max`).
const UDP_RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Connections that may wait to be accepted.
const ACCEPT_BACKLOG: i32 = 1024;

/// A UDP socket and the address that it really has.
pub(super) fn udp(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), FlowFault> {
    let open = || {
        let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
        socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = canonical(socket.local_addr()?);
        Ok((socket, local))
    };
    open().map_err(|error| FlowFault::Bind { transport: Transport::Udp, address, error })
}

/// A listening TCP socket, for TCP or TLS, and the address that it really has.
pub(super) fn tcp(
    transport: Transport,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), FlowFault> {
    let open = || {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        // A restart must not wait for the connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = canonical(listener.local_addr()?);
        Ok((listener, local))
    };
    open().map_err(|error| FlowFault::Bind { transport, address, error })
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
