//! One shard of the media plane: a thread with one readiness loop that owns its calls for life. Each
//! round does, in this order, what is due, the commands, and a bounded amount of receiving, so that
//! a flood of packets cannot starve the pacing of sent audio; then it waits for the next deadline
//! or the next readiness. It never ticks; only once a second, when nothing happens, it shows life.
//!
//! A panic in one call ends that call: the round keeps a marker of the call in hand.

use super::MediaSettings;
use super::call::{Call, OpenFault};
use super::resolver::Resolver;
use super::sockets::WaitTimer;
use super::statistics::ShardStatistics;
use crate::ground::{CallKey, Entropy, Instant, Now, TimerIndex};
use crate::media::plan::{ForCall, MediaCommand, MediaEvent, MediaPlan};
use crate::shell::clock::Clock;
use crate::ultravox::stream::FrameWriter;
use mio::{Events, Poll, Registry, Token, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Inputs that may wait for a shard.
const INPUTS_MAX: usize = 8_192;
/// Inputs taken in one round.
const INPUTS_PER_ROUND: usize = 64;
/// Calls read from in one round.
const RECEIVES_PER_ROUND: usize = 128;
/// Readiness events taken in one round.
const EVENTS_PER_ROUND: usize = 1_024;
/// The longest wait, so that the heartbeat goes on.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The window over which the load is measured.
const LOAD_WINDOW: Duration = Duration::from_millis(500);
/// Panics outside any call after which the thread gives up; the watchdog then sees it.
const OWN_PANICS_MAX: u32 = 16;
/// A TLS record's largest plaintext (RFC 8446 §5.1).
const PLAIN_BYTES: usize = 16 * 1024;
/// More than any datagram that a session takes.
const PACKET_BYTES: usize = 2_048;

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// What comes to a shard from outside.
pub enum Input {
    Command(ForCall<MediaCommand>),
    Resolved { call: CallKey, attempt: u32, addresses: Result<Vec<SocketAddr>, String> },
    Stop,
}

/// Sends to a shard and wakes it.
#[derive(Clone)]
pub struct ShardSender {
    inputs: SyncSender<Input>,
    waker: Arc<Waker>,
}

impl ShardSender {
    /// Waits when the shard's queue is full, which only a shard that is stuck lets it be. An input
    /// to a shard that has ended is dropped.
    pub fn send(&self, input: Input) {
        if self.inputs.send(input).is_err() {
            return;
        }
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a media shard cannot be woken");
        }
    }
}

/// What a socket of a call is for; together with the call's index it makes the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    Rtp,
    Rtcp,
    Agent,
}

impl TokenKind {
    pub fn token(self, index: usize) -> Token {
        Token(index * 4 + self as usize)
    }
}

/// What all calls of a shard share: the loop's registry, one set of buffers, and chance.
pub struct Shared {
    pub registry: Registry,
    pub settings: Arc<MediaSettings>,
    pub statistics: Arc<ShardStatistics>,
    pub resolver: Resolver,
    pub sender: ShardSender,
    pub entropy: Entropy,
    pub writer: FrameWriter,
    /// A datagram as it came.
    pub packet: Box<[u8; PACKET_BYTES]>,
    /// A packet to send.
    pub transmit: Box<[u8; 1500]>,
    /// Bytes from an agent, out of TLS.
    pub plain: Box<[u8; PLAIN_BYTES]>,
    /// Frames to an agent, before TLS.
    pub frame: Vec<u8>,
}

/// Where a shard's events go, and the counters of what does not go there.
pub struct Outlet {
    pub events: Box<dyn Fn(ForCall<MediaEvent>) + Send>,
    pub statistics: Arc<ShardStatistics>,
    pub forward_transcripts: bool,
}

impl Outlet {
    pub fn tell(&self, call: CallKey, what: MediaEvent) {
        (self.events)(ForCall { call, what });
    }
}

/// The loop's state.
pub struct Shard {
    poll: Poll,
    timer: WaitTimer,
    inputs: Receiver<Input>,
    shared: Shared,
    outlet: Outlet,
    events: Events,
    calls: Vec<Option<Box<Call>>>,
    free: Vec<usize>,
    by_key: BTreeMap<CallKey, usize>,
    timers: TimerIndex<usize>,
    /// Calls with something to read.
    receiving: VecDeque<usize>,
    inputs_left: bool,
    /// The call that is being worked on; it is the one to end when that panics.
    in_hand: Option<usize>,
    load: Load,
    #[cfg(test)]
    panic_on: Option<CallKey>,
}

/// Measures the part of the time that is work.
struct Load {
    window_began: Instant,
    worked: Duration,
}

impl Shard {
    /// Makes the loop. It runs when `run` is called, on the thread that is to own it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(
        settings: Arc<MediaSettings>,
        resolver: Resolver,
        events: Box<dyn Fn(ForCall<MediaEvent>) + Send>,
        mut entropy: Entropy,
    ) -> io::Result<(Shard, ShardSender)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let timer = WaitTimer::new(poll.registry(), TIMER)?;
        let (sender, inputs) = sync_channel(INPUTS_MAX);
        let sender = ShardSender { inputs: sender, waker };
        let statistics = Arc::new(ShardStatistics::default());
        let outlet = Outlet {
            events,
            statistics: statistics.clone(),
            forward_transcripts: settings.forward_transcripts,
        };
        let shared = Shared {
            registry: poll.registry().try_clone()?,
            settings,
            statistics,
            resolver,
            sender: sender.clone(),
            writer: FrameWriter::new(entropy.fork()),
            entropy,
            packet: Box::new([0; PACKET_BYTES]),
            transmit: Box::new([0; 1500]),
            plain: Box::new([0; PLAIN_BYTES]),
            frame: Vec::with_capacity(PLAIN_BYTES),
        };
        let now = Clock::instant();
        shared.statistics.heartbeat.set(now.as_nanos());
        let shard = Shard {
            poll,
            timer,
            inputs,
            shared,
            outlet,
            events: Events::with_capacity(EVENTS_PER_ROUND),
            calls: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            timers: TimerIndex::default(),
            receiving: VecDeque::new(),
            inputs_left: false,
            in_hand: None,
            load: Load { window_began: now, worked: Duration::ZERO },
            #[cfg(test)]
            panic_on: None,
        };
        Ok((shard, sender))
    }

    pub fn statistics(&self) -> Arc<ShardStatistics> {
        self.shared.statistics.clone()
    }

    /// Runs until it is told to stop; then closes every call.
    pub fn run(mut self) {
        let mut own_panics = 0;
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.round())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => match self.in_hand.take() {
                    Some(index) => self.bury(index),
                    None => {
                        own_panics += 1;
                        tracing::error!("a media shard panicked outside any call");
                        if own_panics > OWN_PANICS_MAX {
                            return;
                        }
                    }
                },
            }
        }
        let now = Clock::now();
        for call in self.calls.iter_mut().flatten() {
            call.close(now, &mut self.shared, &self.outlet);
        }
    }

    /// One round; false when the shard is to stop.
    fn round(&mut self) -> bool {
        self.wait();
        let now = Clock::now();
        self.shared.statistics.heartbeat.set(now.at.as_nanos());
        self.note_readiness();
        self.serve_deadlines(now);
        let go_on = self.take_inputs();
        self.receive();
        self.load.worked += Clock::instant().since(now.at);
        if let Some(permille) = self.load.measure(Clock::instant()) {
            self.shared.statistics.busy_permille.set(permille);
        }
        go_on
    }

    fn wait(&mut self) {
        let now = Clock::instant();
        let next = self.timers.next();
        let busy = self.inputs_left
            || !self.receiving.is_empty()
            || next.is_some_and(|deadline| deadline <= now);
        let wait = if busy { Duration::ZERO } else { HEARTBEAT };
        if let Some(deadline) = next.filter(|deadline| !busy && deadline.since(now) < HEARTBEAT)
            && let Err(error) = self.timer.set(deadline.since(now))
        {
            tracing::error!(%error, "the media timer cannot be set");
        }
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => {
                self.events.clear();
                tracing::error!(%error, "the media loop cannot wait");
            }
        }
    }

    fn note_readiness(&mut self) {
        for event in &self.events {
            let Token(token) = event.token();
            let index = token / 4;
            let Some(call) = self.calls.get_mut(index).and_then(Option::as_mut) else { continue };
            match token % 4 {
                kind if kind == TokenKind::Rtp as usize => call.ready.rtp = true,
                kind if kind == TokenKind::Rtcp as usize => call.ready.rtcp = true,
                _ => call.ready.agent = true,
            }
            if !std::mem::replace(&mut call.queued, true) {
                self.receiving.push_back(index);
            }
        }
    }

    fn serve_deadlines(&mut self, now: Now) {
        for _ in 0..self.timers.len() {
            let Some(index) = self.timers.pop_due(now.at) else { return };
            self.with_call(index, |call, shared, outlet| {
                let now = Clock::now();
                if let Some(due) = call.media_due().filter(|due| *due <= now.at) {
                    shared.statistics.pacing_lateness.record(now.at.since(due));
                }
                call.handle_timeout(now, shared, outlet);
            });
        }
    }

    /// False when one of the inputs was `Stop`.
    fn take_inputs(&mut self) -> bool {
        for _ in 0..INPUTS_PER_ROUND {
            let Ok(input) = self.inputs.try_recv() else {
                self.inputs_left = false;
                return true;
            };
            match input {
                Input::Stop => return false,
                Input::Command(ForCall {
                    call,
                    what: MediaCommand::Open { plan, address, port },
                }) if !self.by_key.contains_key(&call) => {
                    self.open(call, &plan, (address, port));
                }
                Input::Command(ForCall { call, what }) => {
                    let Some(index) = self.by_key.get(&call).copied() else {
                        self.on_unknown(call, &what);
                        continue;
                    };
                    if what == MediaCommand::Close {
                        self.by_key.remove(&call);
                    }
                    #[cfg(test)]
                    let panic_now = self.panic_on == Some(call);
                    self.with_call(index, |call, shared, outlet| {
                        #[cfg(test)]
                        assert!(!panic_now, "as the test asked for");
                        call.handle_command(Clock::now(), what, shared, outlet);
                    });
                }
                Input::Resolved { call, attempt, addresses } => {
                    let Some(index) = self.by_key.get(&call).copied() else { continue };
                    self.with_call(index, |call, shared, outlet| {
                        call.handle_resolved(Clock::now(), attempt, addresses, shared, outlet);
                    });
                }
            }
        }
        self.inputs_left = true;
        true
    }

    /// Whoever closes waits for `Closed`, also when nothing was bound or all is closed already.
    fn on_unknown(&mut self, call: CallKey, what: &MediaCommand) {
        if *what == MediaCommand::Close {
            self.outlet.tell(call, MediaEvent::Closed(Box::default()));
        }
    }

    fn open(&mut self, key: CallKey, plan: &MediaPlan, at: (IpAddr, u16)) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() - 1
        });
        match Call::open(Clock::now(), key, index, plan, at, &mut self.shared) {
            Ok(call) => {
                self.calls[index] = Some(Box::new(call));
                self.by_key.insert(key, index);
                self.outlet.tell(key, MediaEvent::Opened);
                self.with_call(index, |_, _, _| {});
            }
            Err(fault) => {
                self.free.push(index);
                match fault {
                    OpenFault::Bind(error) => {
                        tracing::debug!(call = %key, %error, "a media port cannot be bound");
                        self.outlet.tell(key, MediaEvent::BindFailed);
                    }
                    OpenFault::Session(words) => {
                        self.outlet.tell(key, MediaEvent::Broken(words));
                        self.outlet.tell(key, MediaEvent::Closed(Box::default()));
                    }
                }
            }
        }
    }

    /// Reads from the calls that have something, in turn, until the round's share is used up or a
    /// deadline is due.
    fn receive(&mut self) {
        for _ in 0..RECEIVES_PER_ROUND.min(self.receiving.len()) {
            let Some(index) = self.receiving.pop_front() else { return };
            if let Some(Some(call)) = self.calls.get_mut(index) {
                call.queued = false;
            }
            self.with_call(index, |call, shared, outlet| call.receive(shared, outlet));
            if self.timers.next().is_some_and(|deadline| deadline <= Clock::instant()) {
                return;
            }
        }
    }

    /// Works on one call and then does what that made due; the call is in hand meanwhile.
    fn with_call(&mut self, index: usize, work: impl FnOnce(&mut Call, &mut Shared, &Outlet)) {
        let Some(Some(call)) = self.calls.get_mut(index) else { return };
        self.in_hand = Some(index);
        work(call, &mut self.shared, &self.outlet);
        let deadline = call.settle(Clock::now(), &mut self.shared, &self.outlet);
        self.in_hand = None;
        if call.is_over() {
            self.release(index);
            return;
        }
        let more = call.ready.rtp || call.ready.rtcp || call.ready.agent;
        if more && !std::mem::replace(&mut call.queued, true) {
            self.receiving.push_back(index);
        }
        self.timers.set(index, deadline);
    }

    fn release(&mut self, index: usize) -> Option<Box<Call>> {
        self.timers.set(index, None);
        self.receiving.retain(|other| *other != index);
        let call = self.calls.get_mut(index)?.take()?;
        // A closed call that only lingers may have its key's successor here already.
        if self.by_key.get(&call.key()) == Some(&index) {
            self.by_key.remove(&call.key());
        }
        self.free.push(index);
        Some(call)
    }

    /// Ends a call whose session panicked.
    fn bury(&mut self, index: usize) {
        let Some(call) = self.release(index) else { return };
        tracing::error!(call = %call.key(), "a media session panicked: the call is ended");
        self.shared.statistics.panics.add(1);
        call.bury(&mut self.shared, &self.outlet);
    }
}

impl Load {
    /// The share of the window that was work, in thousandths, when a window is over.
    fn measure(&mut self, now: Instant) -> Option<u64> {
        let window = now.since(self.window_began);
        if window < LOAD_WINDOW {
            return None;
        }
        let worked = std::mem::take(&mut self.worked);
        self.window_began = now;
        u64::try_from(worked.as_nanos() * 1_000 / window.as_nanos()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::CodecKind;
    use crate::media::plan::{AgentRates, CodecPlan, Direction, LegPlan, RemoteMedia};
    use crate::shell::tls;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::mpsc::channel;

    fn open(call: CallKey, port: u16) -> Input {
        let codec = CodecPlan {
            kind: CodecKind::Pcma,
            send_payload_type: 8,
            receive_payload_type: 8,
            ptime_ms: 20,
            fec: false,
        };
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let leg = LegPlan {
            codec,
            telephone_event: None,
            remote: RemoteMedia { rtp: None, rtcp: None, rtcp_mux: true },
            direction: Direction::SendRecv,
            signalling_source: address,
        };
        let agent = AgentRates { input_hz: 8_000, output_hz: 8_000 };
        let rtp_timeout = Duration::from_secs(30);
        let plan = Box::new(MediaPlan { leg, agent, rtp_timeout, cname: "x".into() });
        Input::Command(ForCall { call, what: MediaCommand::Open { plan, address, port } })
    }

    #[test]
    fn a_panic_in_one_call_ends_that_call_only() {
        let (broken, sound) = (CallKey(1), CallKey(2));
        let (told, events) = channel();
        let settings = MediaSettings::new(tls::client_config(false, &[]).expect("no roots"));
        let (resolver, _threads) = Resolver::start().expect("threads");
        let (mut shard, sender) = Shard::new(
            Arc::new(settings),
            resolver,
            Box::new(move |event| told.send(event).expect("the test listens")),
            Entropy::from_number(1),
        )
        .expect("a loop");
        shard.panic_on = Some(broken);
        let statistics = shard.statistics();
        let thread = std::thread::spawn(move || shard.run());
        let next = || {
            let event = events.recv_timeout(Duration::from_secs(10)).expect("an event in time");
            (event.call, event.what)
        };
        sender.send(open(broken, 0));
        sender.send(open(sound, 0));
        assert_eq!(next(), (broken, MediaEvent::Opened));
        assert_eq!(next(), (sound, MediaEvent::Opened));
        sender.send(Input::Command(ForCall { call: broken, what: MediaCommand::Join }));
        let words = "the media session panicked".to_owned();
        assert_eq!(next(), (broken, MediaEvent::Broken(words)));
        assert_eq!(next(), (broken, MediaEvent::Closed(Box::default())));
        sender.send(Input::Command(ForCall { call: broken, what: MediaCommand::Close }));
        assert_eq!(next(), (broken, MediaEvent::Closed(Box::default())), "every close is answered");
        sender.send(Input::Command(ForCall { call: sound, what: MediaCommand::Close }));
        assert_eq!(next(), (sound, MediaEvent::Closed(Box::default())));
        assert_eq!((statistics.panics.value(), statistics.sessions.value()), (1, 0));
        sender.send(open(broken, 0));
        assert_eq!(next(), (broken, MediaEvent::Opened), "the key and the slot are free again");
        sender.send(Input::Stop);
        assert_eq!(next(), (broken, MediaEvent::Closed(Box::default())));
        assert!(thread.join().is_ok());
    }

    #[test]
    fn a_flood_of_packets_does_not_keep_a_command_waiting() {
        let call = CallKey(1);
        let (told, events) = channel();
        let settings = MediaSettings::new(tls::client_config(false, &[]).expect("no roots"));
        let (resolver, _threads) = Resolver::start().expect("threads");
        let events_of = Box::new(move |event| told.send(event).expect("the test listens"));
        let (mut shard, sender) =
            Shard::new(Arc::new(settings), resolver, events_of, Entropy::from_number(1))
                .expect("a loop");
        let probe = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = probe.local_addr().expect("an address");
        drop(probe);
        sender.send(open(call, to.port()));
        assert!(shard.round());
        let flood = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for _ in 0..100 {
            flood.send_to(&[0x80; 172], to).expect("sent");
        }
        sender.send(Input::Command(ForCall { call, what: MediaCommand::Join }));
        assert!(shard.round());
        let received = shard.shared.statistics.packets_received.value();
        assert!((1..=16).contains(&received), "{received}");
        assert!(!shard.receiving.is_empty(), "the rest has its turn in the next round");
        let told: Vec<_> = events.try_iter().map(|event| event.what).collect();
        assert!(matches!(told[..], [MediaEvent::Opened, MediaEvent::JoinFailed(_)]), "{told:?}");
    }
}
