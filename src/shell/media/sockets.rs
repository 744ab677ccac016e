//! The sockets of a call's media. UDP ports are bound for one call and marked Expedited Forwarding
//! (RFC 3246); the agent's TCP connection keeps little in the kernel, so that audio that cannot be
//! sent is dropped by us, oldest first.

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

/// The DSCP Expedited Forwarding in the place of the former TOS octet.
const EXPEDITED_FORWARDING: u32 = 46 << 2;
/// `SO_SNDBUF` of the agent's connection: about half a second of audio with the kernel's overhead.
const AGENT_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Binds a UDP port for media.
///
/// # Errors
/// The port is taken, or the address is not ours.
pub fn bind_media(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    // A mark that the system refuses costs priority in the network, not the call.
    let marked = match address {
        IpAddr::V4(_) => socket.set_tos_v4(EXPEDITED_FORWARDING),
        IpAddr::V6(_) => socket.set_tclass_v6(EXPEDITED_FORWARDING),
    };
    if let Err(error) = marked {
        tracing::debug!(%error, "media packets are not marked");
    }
    Ok(socket.into())
}

/// Starts to connect to an agent's host; the socket becomes writable when it is decided.
///
/// # Errors
/// No socket, or no route.
pub fn connect_agent(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(AGENT_SEND_BUFFER_BYTES)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// The outcome of [`connect_agent`]: `None` while it is open.
pub fn connected(tcp: &TcpStream) -> Option<io::Result<()>> {
    match tcp.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Some(Err(error)),
    }
    match tcp.peer_addr() {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::Ipv4Addr;

    #[test]
    fn a_media_socket_is_marked_and_its_port_is_taken() {
        let first = bind_media(Ipv4Addr::LOCALHOST.into(), 0).expect("a free port");
        assert_eq!(SockRef::from(&first).tos_v4().expect("a mark"), 0xb8);
        let port = first.local_addr().expect("an address").port();
        let second = bind_media(Ipv4Addr::LOCALHOST.into(), port);
        assert_eq!(second.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert!(bind_media(Ipv4Addr::new(192, 0, 2, 1).into(), 0).is_err());
    }
}
