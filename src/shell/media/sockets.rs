//! The sockets of a call's media, and the timer that ends a shard's wait on time. UDP ports are
//! bound for one call and marked Expedited Forwarding (RFC 3246); the agent's TCP connection keeps
//! little in the kernel, so that audio that cannot be sent is dropped by us, oldest first.

use mio::net::{TcpStream, UdpSocket};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

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
    Ok(UdpSocket::from_std(socket.into()))
}

/// Starts to connect to an agent's host; the socket becomes writable when it is decided.
///
/// # Errors
/// No socket, or no route.
pub fn connect_agent(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_send_buffer_size(AGENT_SEND_BUFFER_BYTES)?;
    Ok(tcp)
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

/// A kernel timer in the readiness loop: the loop's own time-out is in whole milliseconds.
#[derive(Debug)]
pub struct WaitTimer(OwnedFd);

impl WaitTimer {
    /// A timer that wakes `registry`'s loop with `token`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(registry: &Registry, token: Token) -> io::Result<WaitTimer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(WaitTimer(fd))
    }

    /// Wakes the loop once after `wait`, in place of what was set before. It need not be read: each
    /// setting makes it unready again.
    ///
    /// # Errors
    /// Only our bug can cause one.
    pub fn set(&self, wait: Duration) -> io::Result<()> {
        // Zero would switch the timer off.
        let wait = wait.max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let setting = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::Ipv4Addr;
    use std::time::Instant;

    #[test]
    fn a_media_socket_is_marked_and_its_port_is_taken() {
        let first = bind_media(Ipv4Addr::LOCALHOST.into(), 0).expect("a free port");
        assert_eq!(SockRef::from(&first).tos_v4().expect("a mark"), 0xb8);
        let port = first.local_addr().expect("an address").port();
        let second = bind_media(Ipv4Addr::LOCALHOST.into(), port);
        assert_eq!(second.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert!(bind_media(Ipv4Addr::new(192, 0, 2, 1).into(), 0).is_err());
    }

    #[test]
    fn the_timer_wakes_again_and_again_and_not_early() {
        let mut poll = Poll::new().expect("a poll");
        let timer = WaitTimer::new(poll.registry(), Token(7)).expect("a timer");
        let mut events = Events::with_capacity(4);
        for micros in [300, 0, 700] {
            let wait = Duration::from_micros(micros);
            let start = Instant::now();
            timer.set(wait).expect("a timer");
            poll.poll(&mut events, Some(Duration::from_secs(5))).expect("a wait");
            assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(7)]);
            assert!(start.elapsed() >= wait);
        }
    }
}
