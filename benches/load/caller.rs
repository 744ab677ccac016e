//! The caller: one thread that sets calls up by SIP over UDP at a set rate, then speaks in slots of
//! one millisecond (call `i` in slot `i mod 20`), hears what comes back, and hangs up. One RTP socket
//! serves some 50 calls, which are told apart by the daemon's ports. Of a codec that loses bits it sends
//! payloads that were made before the run, and decodes what a few calls hear.

use crate::echo::{Echo, Piece, SILENCE};
use crate::signalling::{Dialog, Heard};
use crate::stamp::{FRAME, Pattern, Stamp, now};
use crate::voice::{JUDGED, Loudness, Voice};
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use voxedge::codec::Decoder;
use voxedge::rtp::packet::{HEADER_BYTES, RtpHeader, RtpPacket};

/// Calls that share an RTP socket.
const CALLS_PER_SOCKET: usize = 50;
const MS: u64 = 1_000_000;
const FRAME_MS: u64 = 20;
const FRAME_NS: u64 = FRAME_MS * MS;
/// More than a frame of any codec has, in bytes and in samples.
const PAYLOAD_BYTES_MAX: usize = 1_400;
const SAMPLES_MAX: usize = 5_760;
/// Frames of the sentence between two calls.
const SHIFT_FRAMES: usize = 29;
/// Packets taken from one socket before due sends have their turn again.
const DRAIN: usize = 32;
/// A call that was not answered by then has failed.
const SETUP_NS: u64 = 10_000 * MS;
/// A request without an answer is sent again after this (RFC 3261 §17.1.1.2, T1).
const RESEND_NS: u64 = 500 * MS;
/// Calls that are up before the base of the memory slope is taken.
pub const FIRST_CALLS: usize = 10;
/// How long answers to the last BYE are waited for.
const LEAVE_NS: u64 = 3_000 * MS;
const SIP: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub server: SocketAddr,
    pub voice: Voice,
    pub calls: usize,
    /// Set-ups, and hang-ups, in a second.
    pub rate: usize,
    pub warm_ms: u64,
    pub window_ms: u64,
}

/// A moment that the caller tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The first calls are up, and a second is over: the base of the memory slope.
    Base,
    Begin,
    End,
}

/// What the caller saw. Counters are of the window.
#[derive(Default)]
pub struct Seen {
    pub up: usize,
    /// What went wrong with calls, the first of them in words.
    pub failed: usize,
    pub fault: Option<String>,
    pub setups: Vec<u64>,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub silent: u64,
    /// Pieces that are neither silence nor a frame that was sent.
    pub changed: u64,
    /// Frames of our own that did not come back between two that did.
    pub skipped: u64,
    pub lateness: Vec<u64>,
    pub gap_errors: Vec<u64>,
    pub round_trips: Vec<u64>,
    /// What the judged calls heard.
    pub sound: Vec<Loudness>,
}

enum State {
    Waiting,
    Inviting { sent: u64, resend: u64 },
    Up,
    Leaving { resend: u64 },
    Over,
}

struct Call {
    dialog: Dialog,
    state: State,
    remote: Option<SocketAddr>,
    number: u16,
    timestamp: u32,
    ssrc: u32,
    heard: Option<Arrival>,
    echo: Echo,
    last_echo: Option<u16>,
    /// The last payload, of a codec that loses bits: silence is one payload again and again.
    last_payload: Vec<u8>,
}

impl Call {
    /// Finds the frames of the echo; counts them while it is measured.
    fn hear_echo(
        &mut self,
        pattern: &Pattern,
        at: u64,
        payload: &[u8],
        mut seen: Option<&mut Seen>,
    ) {
        let last = &mut self.last_echo;
        self.echo.take(pattern, at, payload, |piece| {
            let before = match piece {
                Piece::Frame(stamp, _) => last.replace(stamp.number),
                Piece::Silence | Piece::Changed => None,
            };
            let Some(seen) = &mut seen else { return };
            match piece {
                Piece::Frame(stamp, came) => {
                    let step = before.map_or(1, |before| stamp.number.wrapping_sub(before));
                    seen.skipped += u64::from(step.wrapping_sub(1).min(1_000));
                    seen.round_trips.push(came.saturating_sub(stamp.sent));
                }
                Piece::Silence => seen.silent += 1,
                Piece::Changed => seen.changed += 1,
            }
        });
    }
}

/// Listens to one call.
struct Judge {
    decoder: Decoder,
    loudness: Loudness,
}

#[derive(Clone, Copy)]
struct Arrival {
    at: u64,
    sequence: u16,
    speech: bool,
}

/// Times are in nanoseconds.
#[derive(Clone, Copy)]
enum Phase {
    First,
    Base { until: u64 },
    Rest,
    Warm { until: u64 },
    Window { until: u64 },
    Leaving { next: usize },
}

struct Group {
    rtp: UdpSocket,
    /// Bound, so that reports find a port; never read.
    _rtcp: UdpSocket,
    ready: bool,
}

pub struct Caller {
    task: Task,
    poll: Poll,
    timer: OwnedFd,
    sip: UdpSocket,
    groups: Vec<Group>,
    calls: Vec<Call>,
    /// The sentence, unless each payload is stamped.
    payloads: Vec<Vec<u8>>,
    /// Of the first calls.
    judges: Vec<Judge>,
    /// Index of the call, and one more, by the daemon's port.
    by_port: Vec<u16>,
    pattern: Pattern,
    /// In milliseconds.
    next_slot: u64,
    /// Calls placed, and when the next is to be placed or to end.
    placed: usize,
    next_at: u64,
    up: usize,
    measuring: bool,
    seen: Seen,
}

impl Caller {
    /// # Errors
    /// No sockets.
    pub fn new(task: Task) -> io::Result<Caller> {
        let poll = Poll::new()?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut sip = UdpSocket::bind(any)?;
        poll.registry().register(&mut sip, SIP, Interest::READABLE)?;
        let local = sip.local_addr()?;
        let mut groups = Vec::new();
        for index in 0..task.calls.div_ceil(CALLS_PER_SOCKET) {
            let (mut rtp, rtcp) = bind_pair()?;
            poll.registry().register(&mut rtp, Token(index), Interest::READABLE)?;
            groups.push(Group { rtp, _rtcp: rtcp, ready: false });
        }
        let mut calls = Vec::new();
        for index in 0..task.calls {
            let port = groups[index / CALLS_PER_SOCKET].rtp.local_addr()?.port();
            calls.push(Call {
                dialog: Dialog::new(index, task.server, local, port, task.voice),
                state: State::Waiting,
                remote: None,
                number: 0,
                timestamp: index as u32 * 7_919,
                ssrc: 0x1000_0000 + index as u32,
                heard: None,
                echo: Echo::new(index as u16),
                last_echo: None,
                last_payload: Vec::new(),
            });
        }
        let (mut payloads, mut judges) = (Vec::new(), Vec::new());
        if !task.voice.is_exact() {
            payloads = task.voice.payloads();
            judges.resize_with(task.calls.min(JUDGED), || Judge::new(task.voice));
        }
        let timer = tick(&poll)?;
        Ok(Caller {
            task,
            poll,
            timer,
            sip,
            groups,
            calls,
            payloads,
            judges,
            by_port: vec![0; 65_536],
            pattern: Pattern::new(),
            next_slot: now() / MS + 1,
            placed: 0,
            next_at: 0,
            up: 0,
            measuring: false,
            seen: Seen::default(),
        })
    }

    /// Does the task and tells of its moments, in whose functions no time may be lost.
    ///
    /// # Errors
    /// A socket or the loop broke.
    pub fn run(mut self, mut tell: impl FnMut(Moment)) -> io::Result<Seen> {
        let mut events = Events::with_capacity(256);
        let mut phase = Phase::First;
        self.next_at = now();
        loop {
            self.turn(&mut events)?;
            let now = now();
            let all = self.calls.len();
            let first = all.min(FIRST_CALLS);
            phase = match phase {
                Phase::First if self.place(first, now) => Phase::Base { until: now + 1_000 * MS },
                Phase::Base { until } if now >= until => {
                    tell(Moment::Base);
                    self.next_at = now;
                    Phase::Rest
                }
                Phase::Rest if self.place(all, now) => {
                    Phase::Warm { until: now + self.task.warm_ms * MS }
                }
                Phase::Warm { until } if now >= until => {
                    tell(Moment::Begin);
                    self.measuring = true;
                    Phase::Window { until: now + self.task.window_ms * MS }
                }
                Phase::Window { until } if now >= until => {
                    tell(Moment::End);
                    self.measuring = false;
                    self.seen.up = self.up;
                    self.seen.sound = self.judges.drain(..).map(|judge| judge.loudness).collect();
                    self.next_at = now;
                    Phase::Leaving { next: 0 }
                }
                Phase::Leaving { next } if next < all && now >= self.next_at => {
                    self.hang_up(next, now);
                    self.next_at += self.between();
                    Phase::Leaving { next: next + 1 }
                }
                Phase::Leaving { next } if next == all => {
                    let over = |call: &Call| matches!(call.state, State::Over);
                    if self.calls.iter().all(over) || now >= self.next_at + LEAVE_NS {
                        return Ok(self.seen);
                    }
                    phase
                }
                _ => phase,
            };
        }
    }

    fn between(&self) -> u64 {
        1_000_000_000 / self.task.rate.max(1) as u64
    }

    /// Places the next of the first `count` calls when its time has come; true when all are up or
    /// have failed.
    fn place(&mut self, count: usize, now: u64) -> bool {
        if self.placed < count && now >= self.next_at {
            self.invite(self.placed, now);
            self.placed += 1;
            self.next_at += self.between();
        }
        self.placed >= count && self.up + self.seen.failed >= count
    }

    /// Waits for the next slot or packet; sends what is due and takes what came.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let busy = self.groups.iter().any(|group| group.ready);
        let wait = busy.then_some(std::time::Duration::ZERO);
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut signalled = false;
        for event in events.iter() {
            match event.token() {
                SIP => signalled = true,
                // It goes on only when it was read.
                TIMER => drop(rustix::io::read(&self.timer, &mut [0; 8])),
                Token(index) => self.groups[index].ready = true,
            }
        }
        self.speak();
        for index in 0..self.groups.len() {
            if self.groups[index].ready {
                self.groups[index].ready = self.listen(index);
            }
        }
        if signalled {
            self.hear_signalling();
        }
        if self.next_slot.is_multiple_of(50) {
            self.resend(now());
        }
        Ok(())
    }

    /// Sends the packets of all slots that have begun.
    fn speak(&mut self) {
        while now() >= self.next_slot * MS {
            let mut index = (self.next_slot % FRAME_MS) as usize;
            while index < self.calls.len() {
                self.speak_one(index, self.next_slot * MS);
                index += FRAME_MS as usize;
            }
            self.next_slot += 1;
        }
    }

    fn speak_one(&mut self, index: usize, due: u64) {
        let call = &mut self.calls[index];
        let (State::Up, Some(remote)) = (&call.state, call.remote) else { return };
        let voice = self.task.voice;
        let mut packet = [0; HEADER_BYTES + PAYLOAD_BYTES_MAX];
        let header = RtpHeader {
            marker: call.number == 0,
            payload_type: voice.payload_type(),
            sequence: call.number,
            timestamp: call.timestamp,
            ssrc: call.ssrc,
        };
        header.write(&mut packet);
        let sent = now();
        let place = usize::from(call.number) + index * SHIFT_FRAMES;
        let payload = &mut packet[HEADER_BYTES..];
        let length = match self.payloads.get(place % self.payloads.len().max(1)) {
            Some(frame) => {
                payload[..frame.len()].copy_from_slice(frame);
                frame.len()
            }
            None => {
                let payload = payload.first_chunk_mut().expect("a frame has room");
                let stamp = Stamp { sent, number: call.number, call: index as u16 };
                stamp.write(&self.pattern, payload);
                FRAME
            }
        };
        // A packet that the system does not take is seen as lost at the far end.
        let packet = &packet[..HEADER_BYTES + length];
        let _ = self.groups[index / CALLS_PER_SOCKET].rtp.send_to(packet, remote);
        call.number = call.number.wrapping_add(1);
        call.timestamp = call.timestamp.wrapping_add(voice.frame_ticks());
        if self.measuring {
            self.seen.sent += 1;
            self.seen.lateness.push(sent.saturating_sub(due));
        }
    }

    /// True when there may be more.
    fn listen(&mut self, group: usize) -> bool {
        let mut buffer = [0; 2_048];
        for _ in 0..DRAIN {
            match self.groups[group].rtp.recv_from(&mut buffer) {
                Ok((length, source)) => self.hear(now(), source, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {}
            }
        }
        true
    }

    fn hear(&mut self, at: u64, source: SocketAddr, packet: &[u8]) {
        let index = usize::from(self.by_port[usize::from(source.port())]);
        let Some(call) = index.checked_sub(1).and_then(|index| self.calls.get_mut(index)) else {
            return;
        };
        let Ok(view) = RtpPacket::parse(packet) else {
            self.seen.changed += u64::from(self.measuring);
            return;
        };
        let sequence = view.header.sequence;
        let exact = self.task.voice.is_exact();
        let speech = match exact {
            true => view.payload.iter().any(|byte| *byte != SILENCE),
            false => call.last_payload != view.payload,
        };
        if !exact {
            call.last_payload.clear();
            call.last_payload.extend_from_slice(view.payload);
        }
        let before = call.heard.replace(Arrival { at, sequence, speech });
        if exact {
            let seen = self.measuring.then_some(&mut self.seen);
            call.hear_echo(&self.pattern, at, view.payload, seen);
        }
        if let Some(judge) = self.judges.get_mut(index - 1) {
            judge.hear(view.payload, self.measuring);
        }
        if !self.measuring {
            return;
        }
        let seen = &mut self.seen;
        seen.received += 1;
        if let Some(before) = before {
            let step = sequence.wrapping_sub(before.sequence);
            seen.lost += u64::from(step.wrapping_sub(1).min(1_000));
            // A talk spurt has a phase of its own: only within it there is a grid.
            if step == 1 && speech && before.speech && !view.header.marker {
                seen.gap_errors.push(at.saturating_sub(before.at).abs_diff(FRAME_NS));
            }
        }
    }

    fn invite(&mut self, index: usize, now: u64) {
        let call = &mut self.calls[index];
        call.state = State::Inviting { sent: now, resend: now + RESEND_NS };
        // A lost datagram is sent again.
        let _sent = self.sip.send_to(&call.dialog.invite(), self.task.server);
    }

    fn hang_up(&mut self, index: usize, now: u64) {
        let call = &mut self.calls[index];
        if !matches!(call.state, State::Up) {
            call.state = State::Over;
        } else {
            call.state = State::Leaving { resend: now + RESEND_NS };
            self.up -= 1;
            let _ = self.sip.send_to(&call.dialog.bye(), self.task.server);
        }
    }

    fn resend(&mut self, now: u64) {
        for index in 0..self.calls.len() {
            let call = &mut self.calls[index];
            let again = match &mut call.state {
                State::Inviting { sent, .. } if now > *sent + SETUP_NS => {
                    call.state = State::Over;
                    self.seen.fail("no final answer in time".into());
                    continue;
                }
                State::Inviting { resend, .. } if now > *resend => {
                    *resend = now + RESEND_NS;
                    call.dialog.invite()
                }
                State::Leaving { resend } if now > *resend => {
                    *resend = now + RESEND_NS;
                    call.dialog.bye()
                }
                _ => continue,
            };
            let _ = self.sip.send_to(&again, self.task.server);
        }
    }

    fn hear_signalling(&mut self) {
        let mut buffer = [0; 8_192];
        while let Ok((length, _)) = self.sip.recv_from(&mut buffer) {
            let Some((index, heard)) = Heard::of(&buffer[..length], self.task.server) else {
                continue;
            };
            let Some(call) = self.calls.get_mut(index) else { continue };
            match heard {
                Heard::Answered { tag, contact, media } => {
                    if let State::Inviting { sent, .. } = call.state {
                        self.seen.setups.push(now().saturating_sub(sent));
                        call.dialog.established(tag, contact);
                        call.remote = Some(media);
                        call.state = State::Up;
                        self.up += 1;
                        self.by_port[usize::from(media.port())] = index as u16 + 1;
                    }
                    let _ = self.sip.send_to(&call.dialog.ack(), self.task.server);
                }
                Heard::Refused { status, tag } => {
                    if matches!(call.state, State::Inviting { .. }) {
                        call.state = State::Over;
                        self.seen.fail(format!("the INVITE was answered by {status}"));
                    }
                    let _ = self.sip.send_to(&call.dialog.ack_refusal(&tag), self.task.server);
                }
                Heard::Left => call.state = State::Over,
                Heard::Ended { answer, reason } => {
                    if matches!(call.state, State::Up) {
                        call.state = State::Over;
                        self.up -= 1;
                        self.seen.fail(format!("the daemon hung up: {reason}"));
                    }
                    let _ = self.sip.send_to(&answer, self.task.server);
                }
            }
        }
    }
}

impl Judge {
    fn new(voice: Voice) -> Judge {
        let hz = voice.rates().output_hz;
        let decoder = Decoder::new(voice.kind, hz).expect("a codec that was found to be available");
        Judge { decoder, loudness: Loudness::new(hz) }
    }

    /// Decodes each payload, so that the decoder goes on; what it gives counts in the window.
    fn hear(&mut self, payload: &[u8], measuring: bool) {
        let mut pcm = [0; SAMPLES_MAX];
        // What cannot be decoded is missing in the judgement.
        let count = self.decoder.decode(payload, &mut pcm).unwrap_or(0);
        match measuring {
            true => self.loudness.push(&pcm[..count]),
            false => self.loudness.clear(),
        }
    }
}

impl Seen {
    fn fail(&mut self, words: String) {
        self.failed += 1;
        self.fault.get_or_insert(words);
    }
}

/// Two ports that follow each other, the even one first (RFC 3550 §11).
fn bind_pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let address = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    for _ in 0..1_000 {
        let rtp = UdpSocket::bind(address(0))?;
        let port = rtp.local_addr()?.port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind(address(port + 1))
        {
            return Ok((rtp, rtcp));
        }
    }
    Err(io::Error::other("no pair of ports is free"))
}

/// Wakes the loop every millisecond.
fn tick(poll: &Poll) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let every = Timespec { tv_sec: 0, tv_nsec: MS as i64 };
    let first = Timespec { tv_sec: 0, tv_nsec: (MS - now() % MS) as i64 };
    let setting = Itimerspec { it_interval: every, it_value: first };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    Ok(timer)
}
