//! One shard of the media plane: a thread with one readiness loop that owns its calls for life. Each
//! round does, in this order, what is due, the commands, and a bounded amount of receiving, so that
//! a flood of packets cannot starve the pacing of sent audio; then it waits for the next deadline
//! or the next readiness. It never ticks; only once a second, when nothing happens, it shows life.
//!
//! Going to sleep and waking costs as much as a packet. So when rounds follow each other closely
//! the next one begins [`SPACING`] after the last and finds more to do; a packet or deadline that
//! comes after a pause is served at once.
//!
//! A panic in one call ends that call: the round keeps a marker of the call in hand.

use super::call::{Call, OpenFault};
use super::connection::{Buffers, PLAIN_BYTES};
use super::load::{Figures, Relief, ReliefLadder};
use super::readiness::{Readiness, Token, Waker, sleep_until};
use super::resolver::Resolver;
use super::statistics::{HistogramSnapshot, ShardStatistics};
use super::{CallView, MediaSettings};
use crate::ground::limits::{LEGS_MAX, STREAMS_MAX};
use crate::ground::{CallKey, Entropy, Instant, Now, SlotTimers, StreamId};
use crate::media::plan::{ForCall, MediaCommand, MediaEvent, MediaPlan};
use crate::shell::clock::{Clock, RoundClock};
use crate::ultravox::stream::FrameWriter;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Inputs that may wait for a shard.
const INPUTS_MAX: usize = 8_192;
/// Inputs taken in one round.
const INPUTS_PER_ROUND: usize = 64;
/// Calls read from in one round.
const RECEIVES_PER_ROUND: usize = 128;
/// The longest wait, so that the heartbeat goes on.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The window over which the load is measured.
const LOAD_WINDOW: Duration = Duration::from_millis(500);
/// Panics outside any call after which the thread gives up; the watchdog then sees it.
const OWN_PANICS_MAX: u32 = 16;
/// Bytes of frames to an agent in the usual case.
const FRAME_BYTES: usize = 16 * 1024;
/// More than any datagram that a session takes.
const PACKET_BYTES: usize = 2_048;

/// From the beginning of one round to that of the next, when they follow closely. It adds half of
/// it to the delay of a busy shard's packets.
const SPACING: Duration = Duration::from_micros(250);

/// What comes to a shard from outside.
pub enum Input {
    Command(ForCall<MediaCommand>),
    Resolved {
        call: CallKey,
        stream: StreamId,
        attempt: u32,
        addresses: Result<Vec<SocketAddr>, String>,
    },
    /// How all calls go just now is to be told.
    Show(oneshot::Sender<Vec<CallView>>),
    Stop,
}

/// Sends to a shard and wakes it.
#[derive(Clone)]
pub struct ShardSender {
    inputs: SyncSender<Input>,
    waker: Waker,
}

impl ShardSender {
    /// Waits when the shard's queue is full, which only a shard that is stuck lets it be. An input
    /// to a shard that has ended is dropped.
    pub fn send(&self, input: Input) {
        if self.inputs.send(input).is_err() {
            return;
        }
        self.wake();
    }

    /// The same without waiting: false when there is no room.
    pub fn try_send(&self, input: Input) -> bool {
        let sent = self.inputs.try_send(input).is_ok();
        if sent {
            self.wake();
        }
        sent
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a media shard cannot be woken");
        }
    }
}

/// What a socket of a call is for: the place of its leg or stream in the call. Together with the
/// call's index it makes the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    Rtp(usize),
    Rtcp(usize),
    Agent(usize),
}

/// Sockets that one call can have: two for each leg, one for each stream.
const SOCKETS_MAX: usize = 2 * LEGS_MAX + STREAMS_MAX;

impl TokenKind {
    pub fn token(self, index: usize) -> Token {
        let place = match self {
            TokenKind::Rtp(leg) => leg,
            TokenKind::Rtcp(leg) => LEGS_MAX + leg,
            TokenKind::Agent(stream) => 2 * LEGS_MAX + stream,
        };
        Token(index * SOCKETS_MAX + place)
    }

    /// The call's index and the socket.
    fn of(Token(token): Token) -> (usize, TokenKind) {
        let (index, place) = (token / SOCKETS_MAX, token % SOCKETS_MAX);
        let kind = match place.checked_sub(LEGS_MAX) {
            None => TokenKind::Rtp(place),
            Some(leg) if leg < LEGS_MAX => TokenKind::Rtcp(leg),
            Some(other) => TokenKind::Agent(other - LEGS_MAX),
        };
        (index, kind)
    }
}

/// What all calls of a shard share: the loop's readiness and clock, one set of buffers, and chance.
pub struct Shared {
    pub readiness: Readiness,
    /// The round's; it is read again for each call.
    pub clock: RoundClock,
    pub settings: Arc<MediaSettings>,
    pub statistics: Arc<ShardStatistics>,
    /// How far the shard spares itself.
    pub relief: ReliefLadder,
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
    /// Room for TLS.
    pub tls: Buffers,
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
    inputs: Receiver<Input>,
    shared: Shared,
    outlet: Outlet,
    calls: Vec<Option<Box<Call>>>,
    free: Vec<usize>,
    by_key: BTreeMap<CallKey, usize>,
    timers: SlotTimers,
    /// Calls with something to read.
    receiving: VecDeque<usize>,
    inputs_left: bool,
    /// The call that is being worked on; it is the one to end when that panics.
    in_hand: Option<usize>,
    load: Load,
    /// When the last round but one began.
    began_before: Instant,
    #[cfg(test)]
    panic_on: Option<CallKey>,
}

/// Measures the part of the time that is work, and how late the window's deadlines were served.
struct Load {
    window_began: Instant,
    worked: Duration,
    /// Of all deadlines before the window.
    lateness: HistogramSnapshot,
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
        let readiness = Readiness::new()?;
        let (sender, inputs) = sync_channel(INPUTS_MAX);
        let sender = ShardSender { inputs: sender, waker: readiness.waker() };
        let statistics = Arc::new(ShardStatistics::default());
        let outlet = Outlet {
            events,
            statistics: statistics.clone(),
            forward_transcripts: settings.forward_transcripts,
        };
        let shared = Shared {
            readiness,
            clock: RoundClock::begin(),
            relief: ReliefLadder::new(settings.refuse),
            settings,
            statistics,
            resolver,
            sender: sender.clone(),
            writer: FrameWriter::new(entropy.fork()),
            entropy,
            packet: Box::new([0; PACKET_BYTES]),
            transmit: Box::new([0; 1500]),
            plain: Box::new([0; PLAIN_BYTES]),
            tls: Buffers::default(),
            frame: Vec::with_capacity(FRAME_BYTES),
        };
        let now = shared.clock.began();
        shared.statistics.heartbeat.set(now.as_nanos());
        let shard = Shard {
            inputs,
            shared,
            outlet,
            calls: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            timers: SlotTimers::default(),
            receiving: VecDeque::new(),
            inputs_left: false,
            in_hand: None,
            load: Load {
                window_began: now,
                worked: Duration::ZERO,
                lateness: HistogramSnapshot::default(),
            },
            began_before: Instant::ZERO,
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
        self.began_before = self.shared.clock.began();
        self.shared.clock = RoundClock::begin();
        let began = self.shared.clock.began();
        self.shared.statistics.heartbeat.set(began.as_nanos());
        self.note_readiness();
        self.serve_deadlines(began);
        let go_on = self.take_inputs();
        self.receive();
        let now = self.shared.clock.now().at;
        self.load.worked += now.since(began);
        if let Some(figures) = self.load.measure(now, &self.shared.statistics) {
            self.shared.statistics.busy_permille.set(figures.busy_permille);
            if let Some(relief) = self.shared.relief.weigh(figures) {
                self.relieve(relief, figures);
            }
        }
        go_on
    }

    /// The ladder took a step: the calls follow.
    fn relieve(&mut self, relief: Relief, figures: Figures) {
        let Figures { busy_permille, lateness } = figures;
        tracing::warn!(busy_permille, ?lateness, step = relief.step(), "a media shard's load");
        self.shared.statistics.relief.set(relief.step());
        for index in 0..self.calls.len() {
            self.with_call(index, |call, _, _, _| call.follow(relief));
        }
    }

    fn wait(&mut self) {
        let left_over = self.inputs_left || !self.receiving.is_empty();
        let began = self.shared.clock.began();
        if !left_over && began.since(self.began_before) < SPACING * 2 {
            sleep_until(began + SPACING);
        }
        let longest = match self.timers.next() {
            _ if left_over => Duration::ZERO,
            Some(deadline) => deadline.since(Clock::instant()).min(HEARTBEAT),
            None => HEARTBEAT,
        };
        if let Err(error) = self.shared.readiness.wait(longest) {
            tracing::error!(%error, "the media loop cannot wait");
        }
    }

    fn note_readiness(&mut self) {
        for event in self.shared.readiness.events() {
            let (index, kind) = TokenKind::of(event.token);
            let Some(call) = self.calls.get_mut(index).and_then(Option::as_mut) else { continue };
            call.ready.note(kind, event.ended);
            if !std::mem::replace(&mut call.queued, true) {
                self.receiving.push_back(index);
            }
        }
    }

    /// Serves what is due at `now`, each at most once.
    fn serve_deadlines(&mut self, now: Instant) {
        for _ in 0..self.timers.len() {
            let Some(index) = self.timers.pop_due(now) else { return };
            self.with_call(index, |call, now, shared, outlet| {
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
                Input::Show(reply) => {
                    let now = self.shared.clock.now();
                    let calls = self.calls.iter().flatten();
                    // Whoever asked may have gone.
                    let _ = reply.send(calls.filter_map(|call| call.view(now)).collect());
                }
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
                    self.with_call(index, |call, now, shared, outlet| {
                        #[cfg(test)]
                        assert!(!panic_now, "as the test asked for");
                        call.handle_command(now, what, shared, outlet);
                    });
                }
                Input::Resolved { call, stream, attempt, addresses } => {
                    let Some(index) = self.by_key.get(&call).copied() else { continue };
                    self.with_call(index, |call, now, shared, outlet| {
                        call.handle_resolved(now, (stream, attempt), addresses, shared, outlet);
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
        let now = self.shared.clock.now();
        match Call::open(now, key, index, plan, at, &mut self.shared) {
            Ok(call) => {
                self.calls[index] = Some(Box::new(call));
                self.by_key.insert(key, index);
                self.outlet.tell(key, MediaEvent::Opened);
                self.with_call(index, |_, _, _, _| {});
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

    /// Reads from the calls that have something, in turn, until the round's share is used up. What
    /// becomes due meanwhile goes before the next call's.
    fn receive(&mut self) {
        for _ in 0..RECEIVES_PER_ROUND.min(self.receiving.len()) {
            let Some(index) = self.receiving.pop_front() else { return };
            if let Some(Some(call)) = self.calls.get_mut(index) {
                call.queued = false;
            }
            self.with_call(index, |call, now, shared, outlet| call.receive(now, shared, outlet));
            let now = self.shared.clock.now().at;
            if self.timers.next().is_some_and(|deadline| deadline <= now) {
                self.serve_deadlines(now);
            }
        }
    }

    /// Works on one call and then does what that made due; the call is in hand meanwhile.
    fn with_call(&mut self, index: usize, work: impl FnOnce(&mut Call, Now, &mut Shared, &Outlet)) {
        let Some(Some(call)) = self.calls.get_mut(index) else { return };
        self.in_hand = Some(index);
        work(call, self.shared.clock.now(), &mut self.shared, &self.outlet);
        let deadline = call.settle(self.shared.clock.now(), &mut self.shared, &self.outlet);
        self.in_hand = None;
        if call.is_over() {
            self.release(index);
            return;
        }
        if call.ready.is_any() && !std::mem::replace(&mut call.queued, true) {
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
    /// What the window was like, when one is over.
    fn measure(&mut self, now: Instant, statistics: &ShardStatistics) -> Option<Figures> {
        let window = now.since(self.window_began);
        if window < LOAD_WINDOW {
            return None;
        }
        let worked = std::mem::take(&mut self.worked);
        self.window_began = now;
        let busy_permille = worked.as_nanos() * 1_000 / window.as_nanos();
        let before = std::mem::replace(&mut self.lateness, statistics.pacing_lateness.snapshot());
        let lateness = self.lateness.since(&before);
        Some(Figures::new(u64::try_from(busy_permille).unwrap_or(u64::MAX), &lateness))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{CodecFormat, CodecKind};
    use crate::ground::StreamId;
    use crate::media::plan::{AgentRates, CodecPlan, Direction, LegPlan, RemoteMedia};
    use crate::shell::tls;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::mpsc::channel;

    fn open(call: CallKey, port: u16) -> Input {
        let codec = CodecPlan {
            kind: CodecKind::Pcma,
            format: CodecFormat::Usual,
            send_payload_type: 8,
            receive_payload_type: 8,
            ptime_ms: 20,
            fec: false,
        };
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let leg = LegPlan {
            codec,
            telephone_event: None,
            pauses: Default::default(),
            remote: RemoteMedia { rtp: None, rtcp: None, rtcp_mux: true },
            control: Default::default(),
            direction: Direction::SendRecv,
            srtp: None,
            signalling_source: address,
        };
        let agent = AgentRates { input_hz: 8_000, output_hz: 8_000 };
        let rtp_timeout = Duration::from_secs(30);
        let plan = Box::new(MediaPlan {
            leg,
            agent,
            rtp_timeout,
            rtcp_only_max: rtp_timeout,
            hold_max: rtp_timeout,
            jitter: Default::default(),
            outgoing: false,
            cname: "x".into(),
            own: Default::default(),
        });
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
        sender.send(Input::Command(ForCall {
            call: broken,
            what: MediaCommand::Join { stream: StreamId::FIRST },
        }));
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
        sender.send(Input::Command(ForCall {
            call,
            what: MediaCommand::Join { stream: StreamId::FIRST },
        }));
        assert!(shard.round());
        let received = shard.shared.statistics.packets_received.value();
        assert_eq!(received, 1, "the rest has its turn in the next rounds");
        let told: Vec<_> = events.try_iter().map(|event| event.what).collect();
        assert!(
            matches!(told[..], [MediaEvent::Opened, MediaEvent::JoinFailed { .. }]),
            "{told:?}"
        );
    }
}
