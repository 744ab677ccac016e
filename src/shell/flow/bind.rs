//! Opening the listening sockets. IPv6 sockets are for IPv6 only, so that one address family never
//! hides in the other; UDP gets a large receive buffer, since a burst comes faster than one task runs.
//! Packets of chosen sources can be dropped in the kernel.

use super::canonical;
use crate::ground::Transport;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
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

/// Drops packets of these sources in the kernel; an empty list drops none.
pub(super) fn mute(socket: &UdpSocket, sources: &[IpAddr]) -> io::Result<()> {
    let is_ipv4 = socket.local_addr()?.is_ipv4();
    let of_family = sources.iter().filter(|source| source.is_ipv4() == is_ipv4);
    let words = of_family.map(|source| match source {
        IpAddr::V4(address) => vec![(IPV4_SOURCE, u32::from(*address))],
        IpAddr::V6(address) => {
            let octets = address.octets();
            let (words, _) = octets.as_chunks::<4>();
            let words = words.iter().map(|word| u32::from_be_bytes(*word));
            (IPV6_SOURCE..).step_by(4).zip(words).collect()
        }
    });
    let mut program: Vec<SockFilter> = words.flat_map(|words| drop_when_equal(&words)).collect();
    let socket = SockRef::from(socket);
    if program.is_empty() {
        return match socket.detach_filter() {
            // There was none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            detached => detached,
        };
    }
    program.push(SockFilter::new(RETURN, 0, 0, WHOLE_PACKET));
    socket.attach_filter(&program)
}

/// Where the source address begins in an IPv4 header, and in an IPv6 header.
const IPV4_SOURCE: u32 = 12;
const IPV6_SOURCE: u32 = 8;
/// Classic BPF (linux/filter.h): load a word, jump when it equals, return how much is kept; the
/// network header begins at this offset.
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const NETWORK_HEADER: u32 = 0xfff0_0000;
const WHOLE_PACKET: u32 = u32::MAX;

/// Drops the packet when each word (offset in the network header, value) is there; else falls through.
fn drop_when_equal(words: &[(u32, u32)]) -> Vec<SockFilter> {
    let mut program = Vec::with_capacity(2 * words.len() + 1);
    for (index, (offset, value)) in words.iter().enumerate() {
        // Over the loads and jumps that are left, and the return.
        let rest = 2 * (words.len() - index - 1) + 1;
        let rest = u8::try_from(rest).unwrap_or(u8::MAX);
        program.push(SockFilter::new(LOAD_WORD, 0, 0, NETWORK_HEADER + offset));
        program.push(SockFilter::new(JUMP_EQUAL, 0, rest, *value));
    }
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn open(address: &str) -> (UdpSocket, SocketAddr) {
        udp(address.parse().expect("an address")).expect("loopback")
    }

    /// Sends a byte from each, then one from the first that must come: which ones came?
    async fn heard(to: &UdpSocket, from: &[&UdpSocket], last: &UdpSocket) -> Vec<u8> {
        let address = to.local_addr().expect("bound");
        for (number, socket) in from.iter().enumerate() {
            socket.send_to(&[number as u8], address).await.expect("loopback");
        }
        last.send_to(&[0xff], address).await.expect("loopback");
        let mut came = Vec::new();
        loop {
            let mut byte = [0];
            let received = tokio::time::timeout(Duration::from_secs(20), to.recv(&mut byte)).await;
            received.expect("the last one comes").expect("a packet");
            match byte {
                [0xff] => return came,
                [number] => came.push(number),
            }
        }
    }

    #[tokio::test]
    async fn muted_sources_are_dropped_in_the_kernel_and_no_others() {
        let (edge, _) = open("127.0.0.1:0").await;
        let (one, _) = open("127.0.0.21:0").await;
        let (two, _) = open("127.0.0.22:0").await;
        let (last, _) = open("127.0.0.23:0").await;
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(heard(&edge, &[&one, &two], &last).await, [0, 1]);
        mute(&edge, &[address("127.0.0.21"), address("::1")]).expect("a filter");
        assert_eq!(heard(&edge, &[&one, &two], &last).await, [1]);
        mute(&edge, &[address("127.0.0.21"), address("127.0.0.22")]).expect("a filter");
        assert!(heard(&edge, &[&one, &two], &last).await.is_empty());
        for _ in 0..2 {
            mute(&edge, &[address("::1")]).expect("none of this family");
            assert_eq!(heard(&edge, &[&one, &two], &last).await, [0, 1]);
        }
    }

    #[tokio::test]
    async fn muted_ipv6_sources_match_in_all_four_words() {
        let (edge, to) = open("[::1]:0").await;
        let (peer, _) = open("[::1]:0").await;
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let others = ["::2", "1::1", "0:0:1::1", "::1:0:1", "127.0.0.1"].map(address);
        mute(&edge, &others).expect("a filter");
        assert_eq!(heard(&edge, &[&peer], &peer).await, [0]);
        let all: Vec<IpAddr> = others.into_iter().chain([address("::1")]).collect();
        mute(&edge, &all).expect("a filter");
        peer.send_to(b"x", to).await.expect("loopback");
        mute(&edge, &[]).expect("it is taken off");
        assert!(heard(&edge, &[], &peer).await.is_empty(), "it was dropped when it came");
    }

    #[tokio::test]
    async fn as_many_as_may_be_muted_fit_into_a_filter() {
        let (v4, _) = open("127.0.0.1:0").await;
        let (v6, _) = open("[::1]:0").await;
        for number in 0..64_u32 {
            let v4_all: Vec<IpAddr> =
                (0..=number).map(|n| IpAddr::V4(std::net::Ipv4Addr::from(n))).collect();
            let v6_all: Vec<IpAddr> =
                (0..=number).map(|n| IpAddr::V6(u128::from(n).into())).collect();
            mute(&v4, &v4_all).expect("it fits");
            mute(&v6, &v6_all).expect("it fits");
        }
    }
}
