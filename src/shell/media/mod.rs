//! The media plane: as many shards as the settings say, each one thread that owns its calls' sockets
//! and sessions from `Open` to `Closed` (house §5). Signalling sends commands and gets events; no
//! media crosses between threads.

mod agent_stream;
mod call;
mod connection;
mod load;
mod readiness;
mod resolver;
mod shard;
mod sockets;
mod statistics;

pub use load::Bound;
pub use statistics::{BUCKETS_US, HistogramSnapshot, ShardSnapshot};

use crate::ground::{CallKey, Entropy, Instant};
use crate::media::plan::{ForCall, LegView, MediaCommand, MediaEvent};
use crate::shell::tls::ClientConfig;
use load::Placement;
use resolver::Resolver;
use shard::{Input, Shard, ShardSender};
use statistics::ShardStatistics;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// How a media plane is set up.
#[derive(Clone)]
pub struct MediaSettings {
    /// Threads, one for each core; at least one is started.
    pub shards: usize,
    /// Whom the agent streams trust; shared, so that TLS sessions are resumed.
    pub tls: Arc<ClientConfig>,
    /// Domains below which a join URL's host must lie: `ultravox.ai` unless configured.
    pub join_hosts: Vec<String>,
    /// For tests and the demo: a join URL may name this machine, with `wss` or with plain `ws`.
    pub plain_ws_loopback: bool,
    /// Hand the agent's transcripts to signalling; they end in the shard otherwise.
    pub forward_transcripts: bool,
    /// From here new calls are refused; shards relieve themselves some way below it.
    pub refuse: Bound,
}

impl MediaSettings {
    /// The settings of production: a shard for each core, Ultravox's domain, `wss` only.
    pub fn new(tls: Arc<ClientConfig>) -> MediaSettings {
        MediaSettings {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            tls,
            join_hosts: vec!["ultravox.ai".to_owned()],
            plain_ws_loopback: false,
            forward_transcripts: false,
            refuse: Bound::REFUSE,
        }
    }
}

/// The running media plane.
pub struct MediaPlane {
    shards: Vec<Handle>,
    placement: Arc<Mutex<Placement>>,
    resolver: Option<Resolver>,
    resolver_threads: Vec<JoinHandle<()>>,
}

/// A call's legs as they go just now.
#[derive(Clone, PartialEq, Debug)]
pub struct CallView {
    pub call: CallKey,
    pub legs: Vec<LegView>,
}

struct Handle {
    sender: ShardSender,
    statistics: Arc<ShardStatistics>,
    thread: JoinHandle<()>,
}

impl MediaPlane {
    /// Starts the threads. `events` is called on them, so it must neither block nor panic.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub fn start(
        settings: MediaSettings,
        events: impl Fn(ForCall<MediaEvent>) + Send + Clone + 'static,
        seed: [u8; 32],
    ) -> io::Result<MediaPlane> {
        let mut entropy = Entropy::from_seed(seed);
        let settings = Arc::new(settings);
        let (resolver, resolver_threads) = Resolver::start()?;
        let placement = Placement::new(settings.shards, settings.refuse);
        let placement = Arc::new(Mutex::new(placement));
        let mut shards = Vec::new();
        for number in 0..settings.shards.max(1) {
            let (events, placement) = (events.clone(), Arc::clone(&placement));
            let events = Box::new(move |event: ForCall<MediaEvent>| {
                if matches!(event.what, MediaEvent::Closed(_) | MediaEvent::BindFailed) {
                    lock(&placement).closed(event.call);
                }
                events(event);
            });
            let (shard, sender) =
                Shard::new(settings.clone(), resolver.clone(), events, entropy.fork())?;
            let statistics = shard.statistics();
            let thread = std::thread::Builder::new()
                .name(format!("media-{number}"))
                .spawn(move || shard.run())?;
            shards.push(Handle { sender, statistics, thread });
        }
        Ok(MediaPlane { shards, placement, resolver: Some(resolver), resolver_threads })
    }

    /// Hands a command to the call's shard, which `Open` chooses. Commands of one call are done in
    /// order.
    pub fn send(&self, call: CallKey, command: MediaCommand) {
        let shard = match command {
            MediaCommand::Open { .. } => lock(&self.placement).open(call),
            _ => lock(&self.placement).shard_of(call),
        };
        if let Some(shard) = self.shards.get(shard) {
            shard.sender.send(Input::Command(ForCall { call, what: command }));
        }
    }

    /// The shard that owns a call, for the whole of its life.
    pub fn shard_of(&self, call: CallKey) -> usize {
        lock(&self.placement).shard_of(call)
    }

    /// Weighs all shards, which is to be done once a second; true when none of them has room for a
    /// further call.
    pub fn weigh(&self) -> bool {
        let shards = self.snapshot();
        lock(&self.placement).weigh(&shards)
    }

    /// When each shard last began a round. A shard that works begins one at least every second.
    pub fn heartbeats(&self) -> Vec<Instant> {
        let beat = |shard: &Handle| Instant::from_nanos(shard.statistics.heartbeat.value());
        self.shards.iter().map(beat).collect()
    }

    /// All shards' counters as they are now.
    pub fn snapshot(&self) -> Vec<ShardSnapshot> {
        self.shards.iter().map(|shard| shard.statistics.snapshot()).collect()
    }

    /// Asks each shard how its calls go just now; each answers in its next round. One that has no
    /// room for the question is left out.
    pub fn views(&self) -> Vec<oneshot::Receiver<Vec<CallView>>> {
        let ask = |shard: &Handle| {
            let (reply, answer) = oneshot::channel();
            shard.sender.try_send(Input::Show(reply)).then_some(answer)
        };
        self.shards.iter().filter_map(ask).collect()
    }

    /// Closes all calls, with their last events, and ends the threads. A name look-up that the
    /// system has not answered is not waited for.
    pub fn stop(mut self) {
        for shard in &self.shards {
            shard.sender.send(Input::Stop);
        }
        for shard in self.shards.drain(..) {
            let Handle { thread, sender, .. } = shard;
            if thread.join().is_err() {
                tracing::error!("a media shard had panicked");
            }
            drop(sender);
        }
        self.resolver = None;
        for thread in self.resolver_threads.drain(..).filter(JoinHandle::is_finished) {
            // Its only results are the answers that it sent.
            let _ = thread.join();
        }
    }
}

/// Whoever panicked with it held a map that is whole between any two steps.
fn lock(placement: &Mutex<Placement>) -> MutexGuard<'_, Placement> {
    placement.lock().unwrap_or_else(PoisonError::into_inner)
}
