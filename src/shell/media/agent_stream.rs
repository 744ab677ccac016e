//! One call's stream to its agent: name, TCP, TLS, WebSocket upgrade, frames, end. Driven by its
//! shard's readiness; it owns no thread and blocks nowhere.
//!
//! ```text
//! Idle ─prepare─▶ Resolving ─▶ Connecting ─▶ Handshaking ─▶ Prepared ─join─▶ Upgrading ─▶ Open ─▶ Closing ─▶ Idle
//! ```
//!
//! `prepare` is answered by one `Prepared` or `PrepareFailed`, `join` by one `Joined` or
//! `JoinFailed`, an open stream ends with one `Closed`. A prepared connection that the far end drops
//! before `join` is made again by `join`, in silence. No fault holds more of the join URL than its
//! host (security S18).

use super::connection::{Connection, Received};
use super::readiness::Token;
use super::resolver::Question;
use super::shard::Shared;
use super::sockets::{connect_agent, connected};
use crate::ground::limits::{AGENT_FRAME_BYTES_MAX, JOIN};
use crate::ground::{CallKey, Instant, Secret, StreamId};
use crate::media::Uplink;
use crate::media::plan::{AgentClose, AgentStreamFault};
use crate::ultravox::stream::{FrameReader, Incoming, StreamUrl, Upgrade, UpgradeFault};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Silence of the far end after which we ask for a pong, and again after as long (security S18).
const PING_EVERY: Duration = Duration::from_secs(10);
/// Silence of the far end after which the stream is lost (security S18).
const DEAD_AFTER: Duration = Duration::from_secs(20);
/// One address's share of the time while there are others to try.
const CONNECT_ONE: Duration = Duration::from_millis(1_500);
/// How long a closed stream waits for the far end to see it.
const LINGER: Duration = Duration::from_secs(1);
/// Reads of the connection in one round of the shard.
const READS_PER_ROUND: usize = 8;
/// Bytes of frames that go into one TLS write.
const WRITE_BYTES: usize = 8 * 1024;
/// Data messages of ours that may wait for the socket.
const TEXTS_MAX: usize = 64;

/// What a stream tells its call.
#[derive(Debug)]
pub enum FromAgent<'a> {
    Prepared,
    PrepareFailed(AgentStreamFault),
    Joined,
    JoinFailed(AgentStreamFault),
    Audio(&'a [u8]),
    Text(&'a str),
    Closed(AgentClose),
}

/// Where a stream's tellings go.
pub type Tell<'t> = &'t mut dyn FnMut(FromAgent<'_>);

/// The stream, in whichever state.
pub struct AgentStream {
    call: CallKey,
    id: StreamId,
    token: Token,
    url: Option<StreamUrl>,
    state: State,
    /// Tells answers of the resolver apart.
    attempt: u32,
    /// Until when `prepare` is to be answered; `None` when it was, or never came.
    prepare_by: Option<Instant>,
    /// The same for `join`.
    join_by: Option<Instant>,
    texts: VecDeque<String>,
    /// Writing failed a moment ago: what lies unread is to be looked at.
    unread: bool,
}

enum State {
    Idle,
    Resolving,
    Connecting { tcp: TcpStream, until: Instant, others: VecDeque<SocketAddr> },
    Linked { connection: Connection, phase: Phase },
    Closing { connection: Connection, until: Instant },
}

enum Phase {
    Handshaking,
    Prepared,
    Upgrading(Upgrade),
    /// `mute`: the far end takes nothing more. What it said before may lie unread, a hang-up and the
    /// last words among it; reading ends the stream.
    Open {
        reader: Box<FrameReader>,
        heard: Instant,
        ping_at: Instant,
        mute: bool,
    },
}

/// What bytes did to a linked connection.
enum Next {
    Stay,
    /// The far end closed with this code, and was answered.
    Closed(u16),
    /// Frames against the protocol; a close frame said so.
    Fault,
}

impl AgentStream {
    pub fn new(call: CallKey, id: StreamId, token: Token) -> AgentStream {
        AgentStream {
            call,
            id,
            token,
            url: None,
            state: State::Idle,
            attempt: 0,
            prepare_by: None,
            join_by: None,
            texts: VecDeque::new(),
            unread: false,
        }
    }

    /// The stream's name within its call.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Nothing is open and nothing is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Joined and not ended.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Linked { phase: Phase::Open { .. }, .. })
    }

    /// Connects to the host of `join_url` and does the TLS handshake.
    pub fn prepare(
        &mut self,
        now: Instant,
        join_url: &Secret,
        shared: &mut Shared,
        tell: Tell<'_>,
    ) {
        if self.is_open() || matches!(self.state, State::Closing { .. }) {
            return;
        }
        self.state = State::Idle;
        self.prepare_by = Some(now + JOIN);
        match admitted(join_url, shared) {
            Ok(url) => {
                self.url = Some(url);
                self.begin(now, shared, tell);
            }
            Err(words) => self.fail(AgentStreamFault::BadUrl(words), tell),
        }
    }

    /// Upgrades the prepared connection, or prepares one first.
    pub fn join(&mut self, now: Instant, shared: &mut Shared, tell: Tell<'_>) {
        if self.is_open() || matches!(self.state, State::Closing { .. }) || self.join_by.is_some() {
            return;
        }
        self.join_by = Some(now + JOIN);
        if self.url.is_none() {
            let fault = AgentStreamFault::BadUrl("no join URL was given".to_owned());
            return self.fail(fault, tell);
        }
        match self.state {
            State::Idle => self.begin(now, shared, tell),
            State::Linked { phase: Phase::Prepared, .. } => self.upgrade(shared, tell),
            State::Resolving
            | State::Connecting { .. }
            | State::Linked { .. }
            | State::Closing { .. } => {}
        }
    }

    /// The resolver's answer to this stream's question number `attempt`.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        attempt: u32,
        addresses: Result<Vec<SocketAddr>, String>,
        shared: &mut Shared,
        tell: Tell<'_>,
    ) {
        if attempt != self.attempt || !matches!(self.state, State::Resolving) {
            return;
        }
        match addresses {
            Ok(addresses) => self.connect(now, addresses.into(), "no address", shared, tell),
            Err(words) => self.unreachable(&words, tell),
        }
    }

    /// The socket may have become readable or writable; `ended`: its end was reported. True when
    /// there may be more to read.
    pub fn handle_ready(
        &mut self,
        now: Instant,
        ended: bool,
        shared: &mut Shared,
        tell: Tell<'_>,
    ) -> bool {
        if let State::Connecting { tcp, .. } = &self.state {
            match connected(tcp) {
                None => return false,
                Some(Ok(())) => self.link(shared, tell),
                Some(Err(error)) => self.connect_other(now, &error.to_string(), shared, tell),
            }
        }
        if let State::Linked { connection, .. } | State::Closing { connection, .. } =
            &mut self.state
        {
            connection.note_ready(ended);
        }
        for _ in 0..READS_PER_ROUND {
            let (connection, open) = match &mut self.state {
                State::Linked { connection, phase: Phase::Open { .. } } => (connection, true),
                State::Linked { connection, .. } | State::Closing { connection, .. } => {
                    (connection, false)
                }
                State::Idle | State::Resolving | State::Connecting { .. } => return false,
            };
            // An open stream is written by `flush`; that it fails there keeps nobody from reading.
            let flushed = if open { Ok(true) } else { connection.flush() };
            match flushed.and_then(|_| connection.read(&mut shared.plain, &mut shared.tls)) {
                Ok(Received::Bytes(count)) => self.on_bytes(now, count, shared, tell),
                Ok(Received::Again) => {}
                Ok(Received::Nothing) => {
                    self.on_handshake_progress(shared, tell);
                    return false;
                }
                Ok(Received::End) => return self.on_end("the connection was closed", tell),
                Err(error) => return self.on_end(&error.to_string(), tell),
            }
            self.on_handshake_progress(shared, tell);
        }
        true
    }

    /// A deadline of `poll_timeout` may have passed.
    pub fn handle_timeout(&mut self, now: Instant, shared: &mut Shared, tell: Tell<'_>) {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if passed(self.prepare_by) || passed(self.join_by) {
            return self.fail(AgentStreamFault::TimedOut, tell);
        }
        match &mut self.state {
            State::Connecting { until, .. } if *until <= now => {
                self.connect_other(now, "no answer in time", shared, tell);
            }
            State::Linked { connection, phase: Phase::Open { heard, ping_at, mute, .. } } => {
                if now.since(*heard) >= DEAD_AFTER {
                    return self.lose(tell);
                }
                if *ping_at <= now {
                    *ping_at = now + PING_EVERY;
                    shared.frame.clear();
                    shared.writer.ping(&mut shared.frame, b"");
                    let written = match *mute {
                        true => Ok(true),
                        false => connection
                            .write(&shared.frame, &mut shared.tls)
                            .and_then(|()| connection.flush()),
                    };
                    if written.is_err() {
                        (*mute, self.unread) = (true, true);
                    }
                }
            }
            State::Closing { until, .. } if *until <= now => self.state = State::Idle,
            State::Idle
            | State::Resolving
            | State::Connecting { .. }
            | State::Linked { .. }
            | State::Closing { .. } => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Connecting { until, .. } | State::Closing { until, .. } => Some(*until),
            State::Linked { phase: Phase::Open { heard, ping_at, .. }, .. } => {
                Some((*ping_at).min(*heard + DEAD_AFTER))
            }
            State::Idle | State::Resolving | State::Linked { .. } => None,
        };
        [own, self.prepare_by, self.join_by].into_iter().flatten().min()
    }

    /// Queues one data message; false when too many wait, it is too long, or nobody would get it.
    pub fn send_text(&mut self, text: String) -> bool {
        let fits = self.texts.len() < TEXTS_MAX && text.len() <= AGENT_FRAME_BYTES_MAX;
        if fits && !matches!(self.state, State::Closing { .. }) {
            self.texts.push_back(text);
            return true;
        }
        false
    }

    /// Writes what waits: control frames, data messages, audio. While the socket takes no more,
    /// audio stays in `uplink`, which drops its oldest; under load it waits there for its next one or
    /// two frames. Returns the audio frames written.
    pub fn flush(&mut self, uplink: &mut Uplink, shared: &mut Shared) -> u64 {
        let State::Linked { connection, phase: Phase::Open { mute, .. } } = &mut self.state else {
            return 0;
        };
        if *mute {
            return 0;
        }
        let together = shared.relief.step().frames_together();
        if together > 1 && uplink.frames() < together && self.texts.is_empty() {
            // What waits is not lost: each further frame comes within its time, be it of silence.
            return 0;
        }
        let mut frames = 0;
        loop {
            match connection.flush() {
                Ok(true) => {}
                Ok(false) => return frames,
                Err(_) => break,
            }
            shared.frame.clear();
            if let Some(text) = self.texts.pop_front() {
                shared.writer.text(&mut shared.frame, &text);
            }
            while shared.frame.len() < WRITE_BYTES {
                let Some(samples) = uplink.pop() else { break };
                shared.writer.samples(&mut shared.frame, samples);
                frames += 1;
            }
            if shared.frame.is_empty() {
                return frames;
            }
            if connection.write(&shared.frame, &mut shared.tls).is_err() {
                break;
            }
        }
        (*mute, self.unread) = (true, true);
        frames
    }

    /// True once after writing failed: `handle_ready` is to read what is left, and the end.
    pub fn take_unread(&mut self) -> bool {
        std::mem::take(&mut self.unread)
    }

    /// Ends the stream from our side: a close frame with 1000 when it is open, and then the
    /// connection, which waits a moment for the far end. Nothing is told any more.
    pub fn close(&mut self, now: Instant, shared: &mut Shared) {
        (self.prepare_by, self.join_by) = (None, None);
        self.texts.clear();
        match &self.state {
            State::Linked { phase: Phase::Open { .. }, .. } => self.say_close(now, 1000, shared),
            State::Closing { .. } => {}
            State::Idle | State::Resolving | State::Connecting { .. } | State::Linked { .. } => {
                self.state = State::Idle;
            }
        }
    }

    fn begin(&mut self, now: Instant, shared: &mut Shared, tell: Tell<'_>) {
        let Some(url) = &self.url else { return };
        self.attempt = self.attempt.wrapping_add(1);
        if let Some(address) = url.address() {
            let address = SocketAddr::new(address, url.port());
            return self.connect(now, VecDeque::from([address]), "no address", shared, tell);
        }
        let question = Question {
            host: url.host().to_owned(),
            port: url.port(),
            call: self.call,
            stream: self.id,
            attempt: self.attempt,
            reply: shared.sender.clone(),
        };
        self.state = State::Resolving;
        if !shared.resolver.ask(question) {
            self.unreachable("too many names wait to be looked up", tell);
        }
    }

    /// Tries the addresses in order; `words` say what became of the one before.
    fn connect(
        &mut self,
        now: Instant,
        mut others: VecDeque<SocketAddr>,
        words: &str,
        shared: &mut Shared,
        tell: Tell<'_>,
    ) {
        let mut words = words.to_owned();
        while let Some(address) = others.pop_front() {
            let plain = self.url.as_ref().is_some_and(|url| !url.is_secure());
            if plain && !address.ip().is_loopback() {
                "plain ws is for loopback only".clone_into(&mut words);
                continue;
            }
            let begun = connect_agent(address).and_then(|tcp| {
                shared.readiness.add_stream(&tcp, self.token)?;
                Ok(tcp)
            });
            match begun {
                Ok(tcp) => {
                    let patience = if others.is_empty() { JOIN } else { CONNECT_ONE };
                    self.state = State::Connecting { tcp, until: now + patience, others };
                    return;
                }
                Err(error) => words = error.to_string(),
            }
        }
        self.unreachable(&words, tell);
    }

    /// The address that was tried did not do.
    fn connect_other(&mut self, now: Instant, words: &str, shared: &mut Shared, tell: Tell<'_>) {
        let State::Connecting { others, .. } = std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        self.connect(now, others, words, shared, tell);
    }

    /// TCP stands: begins TLS, or is prepared already without it.
    fn link(&mut self, shared: &mut Shared, tell: Tell<'_>) {
        let State::Connecting { tcp, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let Some(url) = &self.url else { return };
        let connection = match url.is_secure() {
            true => Connection::tls(tcp, &shared.settings.tls, url.host()),
            false => Ok(Connection::plain(tcp)),
        };
        match connection {
            Ok(connection) => {
                self.state = State::Linked { connection, phase: Phase::Handshaking };
            }
            Err(words) => self.unreachable(&words, tell),
        }
    }

    fn on_handshake_progress(&mut self, shared: &mut Shared, tell: Tell<'_>) {
        let State::Linked { connection, phase } = &mut self.state else { return };
        if !matches!(phase, Phase::Handshaking) || connection.is_handshaking() {
            return;
        }
        if let Err(error) = connection.flush() {
            return self.unreachable(&error.to_string(), tell);
        }
        *phase = Phase::Prepared;
        if self.prepare_by.take().is_some() {
            tell(FromAgent::Prepared);
        }
        if self.join_by.is_some() {
            self.upgrade(shared, tell);
        }
    }

    fn upgrade(&mut self, shared: &mut Shared, tell: Tell<'_>) {
        let (State::Linked { connection, phase }, Some(url)) = (&mut self.state, &self.url) else {
            return;
        };
        let (upgrade, mut request) = Upgrade::request(url, &mut shared.entropy);
        let sent = connection.write(&request, &mut shared.tls).and_then(|()| connection.flush());
        request.fill(0);
        match sent {
            Ok(_) => *phase = Phase::Upgrading(upgrade),
            Err(error) => self.unreachable(&error.to_string(), tell),
        }
    }

    /// `count` bytes lie in the shard's `plain`.
    fn on_bytes(&mut self, now: Instant, count: usize, shared: &mut Shared, tell: Tell<'_>) {
        let State::Linked { connection, phase } = &mut self.state else { return };
        let mut used = 0;
        match phase {
            Phase::Open { heard, .. } => *heard = now,
            Phase::Upgrading(upgrade) => match upgrade.handle(&shared.plain[..count]) {
                Ok(None) => return,
                Ok(Some(head)) => {
                    used = head;
                    self.join_by = None;
                    let ping_at = now + PING_EVERY;
                    *phase =
                        Phase::Open { reader: Box::default(), heard: now, ping_at, mute: false };
                    tell(FromAgent::Joined);
                }
                Err(fault) => {
                    let fault = match fault {
                        UpgradeFault::Refused(code) => AgentStreamFault::Refused(code),
                        UpgradeFault::BadHandshake(_) => {
                            AgentStreamFault::BadHandshake(fault.to_string())
                        }
                    };
                    return self.fail(fault, tell);
                }
            },
            Phase::Handshaking | Phase::Prepared => {
                let words = "the far end spoke before it was asked".to_owned();
                return self.fail(AgentStreamFault::BadHandshake(words), tell);
            }
        }
        let Phase::Open { reader, .. } = phase else { return };
        match read_frames(reader, connection, used..count, shared, tell) {
            Next::Stay => {}
            Next::Closed(code) => {
                self.say_close(now, code, shared);
                tell(FromAgent::Closed(AgentClose::Code(code)));
            }
            Next::Fault => {
                self.end_connection(now);
                tell(FromAgent::Closed(AgentClose::Lost));
            }
        }
    }

    /// The far end closed or the connection broke. False, for `handle_ready`: nothing to read.
    fn on_end(&mut self, words: &str, tell: Tell<'_>) -> bool {
        match &self.state {
            State::Linked { phase: Phase::Open { .. }, .. } => self.lose(tell),
            State::Linked { phase: Phase::Upgrading(_), .. } => {
                let words = format!("before the answer came, {words}");
                self.fail(AgentStreamFault::BadHandshake(words), tell);
            }
            State::Linked { phase: Phase::Handshaking, .. } => {
                self.unreachable(words, tell);
            }
            // A prepared connection that idles out is made again when it is needed.
            State::Linked { phase: Phase::Prepared, .. } | State::Closing { .. } => {
                self.state = State::Idle;
            }
            State::Idle | State::Resolving | State::Connecting { .. } => {}
        }
        false
    }

    /// An open stream is gone without a close frame.
    fn lose(&mut self, tell: Tell<'_>) {
        self.state = State::Idle;
        tell(FromAgent::Closed(AgentClose::Lost));
    }

    fn unreachable(&mut self, words: &str, tell: Tell<'_>) {
        let host = self.url.as_ref().map_or("", StreamUrl::host);
        let fault = AgentStreamFault::Unreachable(format!("{host}: {words}"));
        self.fail(fault, tell);
    }

    /// Answers what is not answered yet.
    fn fail(&mut self, fault: AgentStreamFault, tell: Tell<'_>) {
        self.state = State::Idle;
        let (prepare, join) = (self.prepare_by.take(), self.join_by.take());
        if prepare.is_some() {
            tell(FromAgent::PrepareFailed(fault.clone()));
        }
        if join.is_some() {
            tell(FromAgent::JoinFailed(fault));
        }
    }

    /// Sends a close frame and goes over to `Closing`.
    fn say_close(&mut self, now: Instant, code: u16, shared: &mut Shared) {
        if let State::Linked { connection, .. } = &mut self.state {
            shared.frame.clear();
            shared.writer.close(&mut shared.frame, code);
            // If it does not go out, the far end learns of the end from the connection's.
            let _ = connection.write(&shared.frame, &mut shared.tls);
        }
        self.end_connection(now);
    }

    fn end_connection(&mut self, now: Instant) {
        self.texts.clear();
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Linked { mut connection, .. } => {
                connection.finish();
                State::Closing { connection, until: now + LINGER }
            }
            state => state,
        };
    }
}

/// The join URL, when it may be used: `wss` below a configured domain, or, where the settings allow
/// it for tests and the demo, either scheme to this machine.
fn admitted(join_url: &Secret, shared: &Shared) -> Result<StreamUrl, String> {
    let url = StreamUrl::parse(join_url.reveal()).map_err(|fault| fault.to_string())?;
    let local = url.address().map_or(url.host() == "localhost", |address| address.is_loopback());
    if shared.settings.plain_ws_loopback && local {
        return Ok(url);
    }
    if !url.is_secure() {
        return Err(format!("{}: only wss is allowed", url.host()));
    }
    if !url.is_under(&shared.settings.join_hosts) {
        return Err(format!("{}: the host is in none of the configured domains", url.host()));
    }
    Ok(url)
}

/// Reads the frames in `shared.plain[range]`, answers pings, and tells the rest.
fn read_frames(
    reader: &mut FrameReader,
    connection: &mut Connection,
    range: std::ops::Range<usize>,
    shared: &mut Shared,
    tell: Tell<'_>,
) -> Next {
    let Shared { plain, frame, writer, statistics, tls, .. } = shared;
    let mut input = &plain[range];
    loop {
        match reader.read(&mut input) {
            Ok(None) => return Next::Stay,
            Ok(Some(Incoming::Binary(bytes))) => tell(FromAgent::Audio(bytes)),
            Ok(Some(Incoming::Text(text))) => tell(FromAgent::Text(text)),
            Ok(Some(Incoming::Pong)) => {}
            Ok(Some(Incoming::Ping(payload))) => {
                // A far end that pings without reading gets no pong; RFC 6455 §5.5.3 lets us
                // answer the latest only, and its next one will find the socket free.
                if matches!(connection.flush(), Ok(true)) {
                    frame.clear();
                    writer.pong(frame, payload);
                    let _ = connection.write(frame, tls).and_then(|()| connection.flush());
                }
            }
            Ok(Some(Incoming::Close(code))) => return Next::Closed(code),
            Err(fault) => {
                tracing::warn!(%fault, "the agent's stream breaks the WebSocket protocol");
                statistics.protocol_faults.add(1);
                frame.clear();
                writer.close(frame, fault.close_code());
                let _ = connection.write(frame, tls);
                return Next::Fault;
            }
        }
    }
}
