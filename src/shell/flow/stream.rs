//! One SIP connection, TCP or TLS (RFC 3261 §18.3, RFC 5626 §3.5.1): bytes in, messages out, and a
//! bounded queue of writes. Three clocks guard it (security S5): the first message and every begun
//! one must come whole within `Patience::message`, however they drip; between messages the connection
//! may be idle for `Patience::idle`, or for ever while a call lives on it.

use super::{Connection, FlowInput, Flows, Write, parse, tcp};
use crate::ground::{Flow, limits};
use crate::sip::msg::frame::{FrameFault, Framed, StreamFramer};
use crate::sip::msg::{Framing, Message, Method};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes that are read at once.
const READ_BYTES: usize = 4 * 1024;
/// Messages that may wait to be written.
const WRITES_WAITING_MAX: usize = 1024;
/// How long the last writes and the other side's reading of them may take.
const LINGER: Duration = Duration::from_millis(500);

/// The right to hold one connection; given back when dropped.
pub(super) struct Place {
    flows: Flows,
    peer: SocketAddr,
}

impl Place {
    pub fn new(flows: Flows, peer: SocketAddr) -> Place {
        Place { flows, peer }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        tcp::leave(&self.flows, self.peer.ip());
    }
}

/// Serves an accepted connection to its end. `started` is when it was accepted: its first message
/// has begun with it.
pub(super) async fn run<S>(
    flows: &Flows,
    flow: Flow,
    socket: S,
    started: Instant,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    serve(flows, flow, socket, Side::Accepted { started }, || {}, stop).await;
}

/// Serves a connection of ours to its end; `opened` is called when it can be sent on.
pub(super) async fn run_dialled<S>(
    flows: &Flows,
    flow: Flow,
    socket: S,
    opened: impl FnOnce(),
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    serve(flows, flow, socket, Side::Dialled, opened, stop).await;
}

/// Who made the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Accepted {
        started: Instant,
    },
    /// We did: its other end is heard for as long as it is open, listed or not.
    Dialled,
}

async fn serve<S>(
    flows: &Flows,
    flow: Flow,
    socket: S,
    side: Side,
    opened: impl FnOnce(),
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut read, mut write) = tokio::io::split(socket);
    let (queue, writes) = mpsc::channel(WRITES_WAITING_MAX);
    let connection = Arc::new(Connection::new(queue));
    flows.connections().open.insert(flow.id, connection.clone());
    opened();
    let framer = StreamFramer::new(flow.peer);
    let passed = false;
    let mut reader = Reader { flows, flow, side, connection: &connection, framer, passed };
    if flows.0.inputs.send(FlowInput::Opened { flow }).await.is_ok() {
        let reading = async {
            match reader.run(&mut read).await {
                End::Now => {}
                End::HalfClosed => {
                    pay(&connection).await;
                    close_after_writes(&connection).await;
                }
                End::AfterWrites => close_after_writes(&connection).await,
            }
        };
        let mut stopping = stop.clone();
        let stopped = async {
            // An error means that the owner is gone, which is the same.
            let _ = stopping.wait_for(|stop| *stop).await;
            close_after_writes(&connection).await;
        };
        tokio::select! {
            () = reading => {}
            () = write_all(&mut write, writes, &connection) => {}
            () = connection.broken.notified() => {}
            () = stopped => {}
        }
    }
    flows.connections().open.remove(&flow.id);
    // While we stop, nobody may be left to take it.
    tokio::select! {
        _ = flows.0.inputs.send(FlowInput::Closed { flow }) => {}
        _ = stop.wait_for(|stop| *stop) => drop(flows.0.inputs.try_send(FlowInput::Closed { flow })),
    }
    let _ = timeout(LINGER, close(&mut read, &mut write)).await;
}

/// Lets what is queued go out, for as long as a peer that reads needs.
async fn close_after_writes(connection: &Connection) {
    let _ = timeout(LINGER, connection.queue.send(Write::Close)).await;
    tokio::time::sleep(LINGER).await;
}

/// Waits until every request has its final answer.
async fn pay(connection: &Connection) {
    let paid = async {
        while !connection.is_paid() {
            connection.paid.notified().await;
        }
    };
    let _ = timeout(limits::HALF_CLOSED, paid).await;
}

/// Why reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The other side closed without being owed anything, failed or was too slow.
    Now,
    /// The other side sends no more, and waits for answers.
    HalfClosed,
    /// The stream cannot be trusted any more; what is queued still goes out.
    AfterWrites,
}

struct Reader<'a> {
    flows: &'a Flows,
    flow: Flow,
    side: Side,
    connection: &'a Connection,
    framer: StreamFramer,
    /// A message went on to signalling: its answer may be on the way.
    passed: bool,
}

impl Reader<'_> {
    async fn run<R: AsyncRead + Unpin>(&mut self, read: &mut R) -> End {
        let patience = self.flows.0.settings.patience;
        let mut buffer = [0; READ_BYTES];
        let (mut begun, mut heard) = match self.side {
            Side::Accepted { started } => (Some(started), started),
            Side::Dialled => (None, Instant::now()),
        };
        loop {
            let deadline = match begun {
                Some(begun) => begun + patience.message,
                None => heard + patience.idle,
            };
            let len = match timeout_at(deadline, read.read(&mut buffer)).await {
                // A connection of ours is of no use any more: our requests would have no answers.
                Ok(Ok(0)) if self.side != Side::Dialled && !self.connection.is_paid() => {
                    return End::HalfClosed;
                }
                Ok(Ok(0) | Err(_)) => return End::Now,
                Ok(Ok(len)) => len,
                Err(_) if begun.is_none() && self.connection.kept.load(Ordering::Relaxed) > 0 => {
                    heard = Instant::now();
                    continue;
                }
                Err(_) => {
                    self.flows.0.counters.overdue.add();
                    return End::Now;
                }
            };
            heard = Instant::now();
            self.framer.push(buffer.get(..len).unwrap_or_default());
            match self.take_messages().await {
                Ok(taken) => {
                    if taken {
                        begun = None;
                    }
                    if self.framer.deadline_pending() {
                        begun = begun.or(Some(heard));
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Passes on what is whole; true when there was a message or a keep-alive.
    async fn take_messages(&mut self) -> Result<bool, End> {
        let mut taken = false;
        loop {
            let pinged = self.connection.pinged.load(Ordering::Relaxed);
            match self.framer.next_or_pong(pinged) {
                Ok(None) => return Ok(taken),
                Ok(Some(Framed::Pong)) => {
                    taken = true;
                    self.connection.pinged.store(false, Ordering::Relaxed);
                    let pong = FlowInput::Pong { flow: self.flow };
                    self.flows.0.inputs.send(pong).await.map_err(|_| End::Now)?;
                }
                Ok(Some(Framed::KeepAlive)) => {
                    taken = true;
                    self.answer(b"\r\n".to_vec());
                }
                Ok(Some(Framed::Message(bytes))) => {
                    taken = true;
                    self.on_message(bytes).await?;
                }
                Err(FrameFault { answer, .. }) => {
                    self.flows.0.counters.malformed.add();
                    self.settle().await;
                    if let Some(answer) = answer {
                        self.answer(answer);
                    }
                    return Err(End::AfterWrites);
                }
            }
        }
    }

    /// Waits while signalling is full: the peer's window fills, which slows it down. A source that
    /// was taken off the list since the connection was made is no longer heard.
    async fn on_message(&mut self, bytes: Bytes) -> Result<(), End> {
        let flow = self.flow;
        if self.side != Side::Dialled && !self.flows.admits(flow.peer.ip()) {
            self.flows.0.unlisted.note(flow.peer.ip(), flow.transport);
            return Err(End::Now);
        }
        let counters = &self.flows.0.counters;
        let parsed = parse::guarded(counters, || Message::parse(bytes, Framing::Stream));
        match parsed.ok_or(End::Now)? {
            Ok(message) => {
                if is_owed(&message) {
                    self.connection.owe();
                }
                let passed = self.flows.0.inputs.send(FlowInput::Message { flow, message }).await;
                self.flows.0.counters.received.add();
                self.passed = true;
                passed.map_err(|_| End::Now)
            }
            Err(fault) => {
                self.flows.0.counters.malformed.add();
                if let Some(answer) = fault.answer(flow.peer) {
                    self.answer(answer);
                }
                Ok(())
            }
        }
    }

    /// Waits until signalling has taken what was passed on, so that its answers are queued before
    /// the connection's last one.
    async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.passed && self.flows.0.inputs.send(FlowInput::Settle { done }).await.is_ok() {
            // A signalling task that is stuck must not hold the connection.
            let _ = timeout(LINGER, settled).await;
        }
    }

    fn answer(&self, bytes: Vec<u8>) {
        self.flows.send_on_connection(self.flow.id, Bytes::from(bytes));
    }
}

/// Whether a message is to be answered.
fn is_owed(message: &Message) -> bool {
    matches!(message, Message::Request(request) if *request.method() != Method::Ack)
}

/// Writes what is queued until the queue says to close or the connection fails.
async fn write_all<W: AsyncWrite + Unpin>(
    write: &mut W,
    mut writes: mpsc::Receiver<Write>,
    connection: &Connection,
) {
    while let Some(Write::Bytes(bytes)) = writes.recv().await {
        let sent = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        if sent.await.is_err() {
            return;
        }
        connection.backlog.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
}

/// Ends our side, then reads a little: closing with unread bytes would reset the connection and
/// could take our last answer with it.
async fn close<S: AsyncRead + AsyncWrite>(read: &mut ReadHalf<S>, write: &mut WriteHalf<S>) {
    let _ = write.shutdown().await;
    let mut buffer = [0; READ_BYTES];
    while matches!(read.read(&mut buffer).await, Ok(len) if len > 0) {}
}
