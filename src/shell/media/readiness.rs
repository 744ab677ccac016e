//! What a shard waits with: epoll over its sockets, an event descriptor by which other threads wake
//! it, and waits to the microsecond. Datagram sockets are reported as long as something lies in
//! them (level-triggered), so that one read a packet is enough; streams are reported once for each
//! change (edge-triggered), since they are nearly always writable.
//!
//! A socket that is closed leaves the readiness by itself: the kernel forgets a description with its
//! last descriptor, and no descriptor here is ever copied.

use crate::ground::Instant;
use crate::shell::clock::Clock;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Says which socket an event is about; chosen by whoever adds the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token(pub usize);

/// The token of the wake-up, which is no socket's.
const WAKE: u64 = u64::MAX;
/// Events taken in one wait.
const EVENTS_MAX: usize = 256;

/// Something happened at a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub token: Token,
    /// A stream's far end will send nothing more, or the connection broke: its end is to be read
    /// however little lies before it.
    pub ended: bool,
}

/// The sockets of one thread.
pub struct Readiness {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    events: Vec<Event>,
}

/// Ends another thread's wait.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// # Errors
    /// Only our bug can cause one.
    pub fn wake(&self) -> io::Result<()> {
        match rustix::io::write(&*self.0, &1_u64.to_ne_bytes()) {
            // The count is at its largest: the thread is woken already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Readiness {
    /// # Errors
    /// No descriptor is left, or the kernel is older than Linux 5.11 and cannot wait to the
    /// microsecond.
    pub fn new() -> io::Result<Readiness> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let events = Vec::with_capacity(EVENTS_MAX);
        let mut readiness = Readiness { epoll, wake: Arc::new(wake), events };
        readiness.wait(Duration::ZERO).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::NOSYS.raw_os_error() => {
                io::Error::new(error.kind(), "the kernel has no epoll_pwait2: Linux 5.11 is needed")
            }
            _ => error,
        })?;
        Ok(readiness)
    }

    pub fn waker(&self) -> Waker {
        Waker(self.wake.clone())
    }

    /// Reports a datagram socket whenever something lies in it.
    ///
    /// # Errors
    /// The system's limit of watches.
    pub fn add_datagrams(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        self.add(socket, token, EventFlags::IN)
    }

    /// Reports a stream when more came, when it takes more again, and when it ends.
    ///
    /// # Errors
    /// The system's limit of watches.
    pub fn add_stream(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.add(socket, token, flags)
    }

    fn add(&self, socket: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token.0 as u64), flags)?)
    }

    /// Waits until something happens, at most `longest`. What happened is in `events` then.
    ///
    /// # Errors
    /// Only our bug can cause one. A signal ends the wait and is none.
    pub fn wait(&mut self, longest: Duration) -> io::Result<()> {
        let longest = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: longest.subsec_nanos().into(),
        };
        self.events.clear();
        let mut space = [MaybeUninit::uninit(); EVENTS_MAX];
        let happened = match epoll::wait(&self.epoll, &mut space[..], Some(&longest)) {
            Ok((happened, _)) => happened,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in happened {
            let (flags, token) = (event.flags, event.data.u64());
            if token == WAKE {
                // Its count does not matter, only that it is unready again.
                let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
                continue;
            }
            let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            let token = Token(token as usize);
            self.events.push(Event { token, ended: flags.intersects(ends) });
        }
        Ok(())
    }

    /// What happened at sockets until the last wait ended.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

/// Sleeps until `until` whatever happens at sockets.
pub fn sleep_until(until: Instant) {
    let left = until.since(Clock::instant());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    const LONG: Duration = Duration::from_secs(10);

    fn happened(readiness: &Readiness) -> Vec<(usize, bool)> {
        readiness.events().iter().map(|event| (event.token.0, event.ended)).collect()
    }

    #[test]
    fn a_wait_ends_after_its_time_and_not_early() {
        let mut readiness = Readiness::new().expect("descriptors");
        for micros in [300, 0, 700] {
            let wait = Duration::from_micros(micros);
            let start = Clock::instant();
            readiness.wait(wait).expect("a wait");
            assert_eq!(happened(&readiness), []);
            assert!(Clock::instant().since(start) >= wait);
        }
    }

    #[test]
    fn another_thread_ends_a_wait_once() {
        let mut readiness = Readiness::new().expect("descriptors");
        let waker = readiness.waker();
        let start = Clock::instant();
        let thread = std::thread::spawn(move || waker.wake());
        readiness.wait(LONG).expect("a wait");
        assert!(Clock::instant().since(start) < LONG);
        assert!(matches!(thread.join(), Ok(Ok(()))));
        readiness.wait(Duration::from_millis(1)).expect("a wait");
        assert_eq!(happened(&readiness), []);
    }

    #[test]
    fn a_datagram_is_reported_until_it_is_read() {
        let mut readiness = Readiness::new().expect("descriptors");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        readiness.add_datagrams(&socket, Token(7)).expect("a watch");
        let to = socket.local_addr().expect("an address");
        socket.send_to(b"one", to).expect("sent");
        for _ in 0..2 {
            readiness.wait(LONG).expect("a wait");
            assert_eq!(happened(&readiness), [(7, false)]);
        }
        socket.recv_from(&mut [0; 8]).expect("received");
        readiness.wait(Duration::ZERO).expect("a wait");
        assert_eq!(happened(&readiness), []);
    }

    #[test]
    fn a_stream_is_reported_once_for_each_change_and_its_end_is_told() {
        let mut readiness = Readiness::new().expect("descriptors");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let mut ours = TcpStream::connect(to).expect("connected");
        let (mut theirs, _) = listener.accept().expect("accepted");
        readiness.add_stream(&ours, Token(3)).expect("a watch");
        readiness.wait(LONG).expect("a wait");
        assert_eq!(happened(&readiness), [(3, false)], "it is writable");
        theirs.write_all(b"words").expect("sent");
        readiness.wait(LONG).expect("a wait");
        assert_eq!(happened(&readiness), [(3, false)]);
        readiness.wait(Duration::ZERO).expect("a wait");
        assert_eq!(happened(&readiness), [], "once, although it was not read");
        drop(theirs);
        readiness.wait(LONG).expect("a wait");
        assert_eq!(happened(&readiness), [(3, true)]);
        let mut text = String::new();
        ours.read_to_string(&mut text).expect("the rest");
        assert_eq!(text, "words");
        drop(ours);
        readiness.wait(Duration::ZERO).expect("a wait");
        assert_eq!(happened(&readiness), [], "a closed socket is forgotten");
    }
}
