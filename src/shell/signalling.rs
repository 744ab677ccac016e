//! The one task that drives the Switchboard: inputs come in by channels, commands go out to flows,
//! the media plane, REST and the store. Jobs (REST) sit in one join set; no other task is made.
//! A panic in one call's step ends that call and nothing else.
//!
//! It decides nothing: what a call does is in `call`, who may come in is in `flow` and `admission`.

use crate::account::{Registration, RegistrationId, SipConfig};
use crate::billing::cdr::{Cdr, MediaSummary};
use crate::call::Call;
use crate::call::deed::{Deed, Tally};
use crate::call::ladder::Ladder;
use crate::ground::limits::{EARLY_MEDIA_KEPT_MAX, SIGNALLING_QUEUE_MAX};
use crate::ground::{CallKey, Instant, JobId};
use crate::media::plan::{EarlyMedia, ForCall, MediaEvent};
use crate::media::quality::{Scores, ScoresByScale};
use crate::outgoing::{DialRefusal, OutgoingCallRequest};
use crate::shell::account::binding_json;
use crate::shell::agent::rest::AgentService;
use crate::shell::clock::Clock;
use crate::shell::flow::{FlowInput, FlowReceiver, Flows};
use crate::shell::media::MediaPlane;
use crate::shell::resolver::Resolver;
use crate::shell::sounds::SoundLibrary;
use crate::shell::sources::Sources;
use crate::shell::store::Store;
use crate::shell::webhook::Webhook;
use crate::sip::registration::Binding;
use crate::sip::target::Target;
use crate::switchboard::{
    Command, Counters, CreationFigures, Input, RegistrationState, Switchboard,
};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{Instrument, Span};

/// How a call is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallName {
    Key(CallKey),
    /// By Ultravox's call id.
    Ultravox(String),
}

/// What the rest of the shell may ask of the signalling task.
#[derive(Debug)]
pub enum Request {
    /// Stop taking calls, let running ones go on for `grace`; answered when the last has ended.
    Drain { grace: Duration, done: oneshot::Sender<()> },
    /// What is going on now.
    Snapshot(oneshot::Sender<Snapshot>),
    /// The ladder of a call, live or ended lately.
    Ladder(CallKey, oneshot::Sender<Option<Ladder>>),
    /// What an outgoing call heard before its agent joined, while it is kept.
    EarlyMedia(CallKey, oneshot::Sender<Option<EarlyMedia>>),
    /// A call that is up, or ended lately: its record as of now, and its ladder.
    Call { name: CallName, reply: oneshot::Sender<Option<(Box<Cdr>, Ladder)>> },
    /// The records, as of now, of those of these calls that are up or ended lately; in no order.
    Records { keys: BTreeSet<CallKey>, reply: oneshot::Sender<Vec<Cdr>> },
    /// The account's registrations: all that are wanted, and the bindings that an earlier process
    /// left. Answered when they are taken over.
    ReplaceRegistrations {
        registrations: Vec<Registration>,
        bindings: BTreeMap<RegistrationId, Binding>,
        done: oneshot::Sender<()>,
    },
    /// Place an outgoing call; answered with Ultravox's Call object, or with why there is none.
    Dial { request: Box<OutgoingCallRequest>, reply: oneshot::Sender<Dialled> },
    /// End the outgoing call with this Ultravox id while it is not up yet; `false` when there is none.
    HangUp { ultravox_call_id: String, reply: oneshot::Sender<bool> },
    /// The account's configuration was replaced; answered when it is in force.
    Reconfigure { config: Arc<SipConfig>, done: oneshot::Sender<()> },
}

/// The Call object of an outgoing call, as the client gets it, or why there is none.
pub type Dialled = Result<serde_json::Value, DialRefusal>;

/// A copy of the Switchboard's visible state.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub counters: Counters,
    pub creations: CreationFigures,
    pub calls: Vec<LiveCall>,
    pub ports_in_use: usize,
    pub transactions: usize,
    pub sessions: usize,
    pub registrations: Vec<RegistrationState>,
    pub strays: u64,
    pub draining: bool,
    /// No further call is taken: calls, ports or load.
    pub full: bool,
    /// No call, dialog, transaction, job or port is left.
    pub idle: bool,
}

/// One call that is up, as the operator sees it.
#[derive(Clone, Debug)]
pub struct LiveCall {
    pub key: CallKey,
    pub answered: bool,
    pub sip_time: Duration,
    pub agent_time: Duration,
    /// Of its transfer, when one is under way: true once both legs are bridged.
    pub bridged: Option<bool>,
}

/// What the closed calls since the start add up to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub by_status: BTreeMap<u16, u64>,
    pub deciminutes: u64,
    pub sip_time: Duration,
    pub agent_time: Duration,
    /// Media figures, added up.
    pub media: MediaSummary,
    /// How legs sounded to us, and we to them; one score for each leg.
    pub mos_received: ScoresByScale,
    pub mos_sent: ScoresByScale,
    /// By the extended reports of the legs that send them.
    pub mos_far_end: Scores,
    /// Directions of legs that carried nothing, by kind.
    pub one_way: BTreeMap<&'static str, u64>,
    /// Transfers, keys, tools, lost agents: as they happen.
    pub hands: Tally,
    pub messages_received: u64,
    pub messages_sent: u64,
}

/// What the signalling task publishes once a second, for health and metrics.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// When it was written: the proof of life.
    pub at: Instant,
    pub snapshot: Snapshot,
    pub totals: Totals,
}

/// Everything that the signalling task drives.
pub struct Signalling {
    pub board: Switchboard,
    pub flows: Flows,
    pub resolver: Resolver,
    pub media: Arc<MediaPlane>,
    pub agents: Arc<AgentService>,
    pub webhook: Webhook,
    pub sounds: SoundLibrary,
    pub store: Store,
    /// The gate of the flows.
    pub sources: Arc<Sources>,
    pub published: Arc<Mutex<Published>>,
}

/// The ends of the channels into the signalling task.
pub struct Inlets {
    pub flow: FlowReceiver,
    pub media: mpsc::UnboundedReceiver<ForCall<MediaEvent>>,
    pub requests: mpsc::Receiver<Request>,
}

/// Ended calls whose ladders are kept.
const ENDED_MAX: usize = 1_000;
/// Inputs that one round takes before commands and timers have their turn again.
const ROUND: usize = 64;
/// Overload is declared when this many messages wait, and taken back at a quarter of it.
const QUEUE_HIGH: usize = SIGNALLING_QUEUE_MAX / 4;

impl Signalling {
    /// Runs until the request channel closes.
    pub async fn run(self, mut inlets: Inlets) {
        let mut task = Task {
            parts: self,
            jobs: JoinSet::new(),
            running: BTreeMap::new(),
            drains: Vec::new(),
            dials: BTreeMap::new(),
            dials_asked: 0,
            ended: BTreeMap::new(),
            early: BTreeMap::new(),
            totals: Totals::default(),
            spans: BTreeMap::new(),
            queue_high: false,
            media_full: false,
        };
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = task.parts.board.poll_timeout();
            let wake = deadline.map(|at| tokio::time::Instant::now() + at.since(Clock::instant()));
            tokio::select! {
                biased;
                request = inlets.requests.recv() => match request {
                    Some(request) => task.on_request(request),
                    None => break,
                },
                Some(event) = inlets.media.recv() => {
                    task.handle(Input::Media(event));
                    for _ in 0..ROUND {
                        let Ok(event) = inlets.media.try_recv() else { break };
                        task.handle(Input::Media(event));
                    }
                }
                Some(done) = task.jobs.join_next() => task.on_job_done(done),
                () = sleep_until(wake) => {}
                _ = second.tick() => {
                    task.publish();
                    task.weigh_media();
                }
                Some(input) = inlets.flow.recv() => {
                    task.on_flow(input);
                    for _ in 0..ROUND {
                        let Ok(input) = inlets.flow.try_recv() else { break };
                        task.on_flow(input);
                    }
                    task.weigh_queue(inlets.flow.waiting());
                }
            }
            task.handle_due();
        }
        task.jobs.shutdown().await;
    }
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// What is kept of a call after its end: the store has it too, a few milliseconds later.
struct Ended {
    cdr: Box<Cdr>,
    ladder: Ladder,
    media_counted: bool,
}

/// The running task: the parts and what is under way.
struct Task {
    parts: Signalling,
    jobs: JoinSet<Input>,
    running: BTreeMap<JobId, AbortHandle>,
    drains: Vec<oneshot::Sender<()>>,
    /// Clients that wait for the answer to their request for an outgoing call.
    dials: BTreeMap<u64, oneshot::Sender<Dialled>>,
    dials_asked: u64,
    /// Calls that ended lately, at most [`ENDED_MAX`]; older ones make place.
    ended: BTreeMap<CallKey, Ended>,
    /// Early media of calls that we made, at most [`EARLY_MEDIA_KEPT_MAX`].
    early: BTreeMap<CallKey, EarlyMedia>,
    totals: Totals,
    /// Spans of the calls that are up.
    spans: BTreeMap<CallKey, Voice>,
    /// Messages age in the queue.
    queue_high: bool,
    /// No media shard has room for a further call.
    media_full: bool,
}

impl Task {
    fn on_request(&mut self, request: Request) {
        match request {
            Request::Drain { grace, done } => {
                self.drains.push(done);
                self.handle(Input::Drain { grace });
            }
            Request::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Request::Ladder(key, reply) => drop(reply.send(self.ladder(key))),
            Request::EarlyMedia(key, reply) => drop(reply.send(self.early.get(&key).cloned())),
            Request::Dial { request, reply } => {
                self.dials_asked += 1;
                self.dials.insert(self.dials_asked, reply);
                self.handle(Input::DialRequested { asked: self.dials_asked, request });
            }
            Request::HangUp { ultravox_call_id, reply } => {
                let mut waited = false;
                self.guarded(|board, now| waited = board.hang_up(now, &ultravox_call_id));
                // Whoever asked may have given up waiting.
                let _ = reply.send(waited);
            }
            Request::Call { name, reply } => drop(reply.send(self.call(&name))),
            Request::Records { keys, reply } => drop(reply.send(self.records(&keys))),
            Request::ReplaceRegistrations { registrations, bindings, done } => {
                self.handle(Input::RegistrationsReplaced { registrations, bindings });
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
            Request::Reconfigure { config, done } => {
                let peers = self.parts.board.calls().map(|call| call.first.flow.peer.ip());
                self.parts.sources.replace(Clock::instant(), Arc::clone(&config), peers);
                self.handle(Input::ConfigReplaced(config));
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
        }
    }

    fn on_flow(&mut self, input: FlowInput) {
        match input {
            FlowInput::Message { flow, message } => {
                self.totals.messages_received += 1;
                self.handle(Input::Message { flow, message });
            }
            FlowInput::Closed { flow } => self.handle(Input::FlowClosed { flow: flow.id }),
            FlowInput::Pong { flow } => self.handle(Input::Pong { flow: flow.id }),
            FlowInput::Opened { .. } => {}
            // The connection may have given up waiting.
            FlowInput::Settle { done } => drop(done.send(())),
        }
    }

    fn on_job_done(&mut self, done: Result<Input, tokio::task::JoinError>) {
        match done {
            Ok(input) => {
                if let Input::FallbackDecided { job, .. }
                | Input::AgentFetched { job, .. }
                | Input::AgentCallAnswered { job, .. }
                | Input::StageFetched { job, .. }
                | Input::SoundFetched { job, .. }
                | Input::OutgoingCallAnswered { job, .. } = &input
                {
                    self.running.remove(job);
                }
                self.handle(input);
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::error!(%error, "a REST job failed by our own bug"),
        }
    }

    /// When messages age in the queue, new INVITEs are shed with 503; dialogs go on.
    fn weigh_queue(&mut self, waiting: usize) {
        let high = if self.queue_high { waiting > QUEUE_HIGH / 4 } else { waiting > QUEUE_HIGH };
        if high != self.queue_high {
            tracing::warn!(waiting, high, "signalling queue");
            self.set_overload(high, self.media_full);
        }
    }

    /// The same when every media shard is at its bound, before the audio of the calls suffers.
    fn weigh_media(&mut self) {
        let full = self.parts.media.weigh();
        if full != self.media_full {
            tracing::warn!(full, "media shards");
            self.set_overload(self.queue_high, full);
        }
    }

    fn set_overload(&mut self, queue_high: bool, media_full: bool) {
        let before = self.queue_high || self.media_full;
        (self.queue_high, self.media_full) = (queue_high, media_full);
        let overloaded = queue_high || media_full;
        if overloaded != before {
            self.handle(Input::Overload(overloaded));
        }
    }

    fn handle(&mut self, input: Input) {
        if let Input::Media(ForCall { call, what: MediaEvent::OneWay { verdict, .. } }) = &input {
            let kind = verdict.label();
            tracing::warn!(parent: &self.span(*call), kind, "media flows one way only");
            *self.totals.one_way.entry(kind).or_default() += 1;
        }
        self.guarded(|board, now| board.handle(now, input));
    }

    fn handle_due(&mut self) {
        let now = Clock::now();
        if self.parts.board.poll_timeout().is_some_and(|at| at <= now.at) {
            self.guarded(|board, now| board.handle_timeout(now));
        }
    }

    /// One round of the Switchboard; a panic costs the call in hand, not the process.
    fn guarded(&mut self, act: impl FnOnce(&mut Switchboard, crate::ground::Now)) {
        let now = Clock::now();
        let board = &mut self.parts.board;
        if catch_unwind(AssertUnwindSafe(|| act(board, now))).is_err() {
            tracing::error!("a call's step panicked; that call is ended");
            self.parts.board.handle_panic(now);
        }
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.parts.board.poll_command() {
            match command {
                Command::Send { flow, to, bytes } => {
                    self.totals.messages_sent += 1;
                    self.parts.flows.send(flow, to, bytes);
                }
                Command::KeepFlow { flow, keep } => self.parts.flows.keep(flow, keep),
                Command::KeepAlive { flow } => self.parts.flows.ping(flow),
                Command::AdmitSource { address, admit } => {
                    self.parts.flows.admit_source(address, admit);
                }
                Command::CloseFlow { flow } => self.parts.flows.close(flow),
                Command::KeepBinding { registration, binding } => {
                    self.parts.store.keep_binding(registration.to_string(), binding_json(&binding));
                }
                Command::RegistrationChanged { registration, successful, reason } => {
                    match successful {
                        Some(true) => tracing::info!(%registration, "{reason}"),
                        _ => tracing::warn!(%registration, "{reason}"),
                    }
                }
                Command::Locate { ticket, target, seed } => self.locate(ticket, target, seed),
                Command::Connect { ticket, hop } => {
                    let flows = self.parts.flows.clone();
                    self.jobs.spawn(async move {
                        Input::Connected { ticket, result: flows.connect(hop).await }
                    });
                }
                Command::Media(ForCall { call, what }) => self.parts.media.send(call, what),
                Command::KeepEarlyMedia { call, early } => {
                    self.early.insert(call, *early);
                    while self.early.len() > EARLY_MEDIA_KEPT_MAX {
                        self.early.pop_first();
                    }
                }
                Command::Tell { call, deed } => self.tell(call, deed),
                Command::Record { cdr, ladder } => self.record(cdr, ladder),
                Command::AskFallback { call, job, post, budget } => {
                    let webhook = self.parts.webhook.clone();
                    self.begin_job(call, job, async move {
                        Input::FallbackDecided { job, result: webhook.ask(&post, budget).await }
                    });
                }
                Command::FetchStage { call, job, call_id } => {
                    let agents = Arc::clone(&self.parts.agents);
                    self.begin_job(call, job, async move {
                        Input::StageFetched { job, result: agents.fetch_stage(&call_id).await }
                    });
                }
                Command::FetchSound { call, job, url, budget } => {
                    let sounds = self.parts.sounds.clone();
                    self.begin_job(call, job, async move {
                        Input::SoundFetched { job, result: sounds.fetch(&url, budget).await }
                    });
                }
                Command::FetchAgent { call, job, agent_id } => {
                    self.fetch_agent(call, job, agent_id);
                }
                Command::CreateAgentCall { call, job, agent_id, prior, body, budget } => {
                    let agents = Arc::clone(&self.parts.agents);
                    self.begin_job(call, job, async move {
                        let result = match prior {
                            Some(prior) => agents.continue_call(&prior, &body, budget).await,
                            None => {
                                let agent_id = agent_id.as_deref();
                                agents.create_agent_call(agent_id, &body, budget).await
                            }
                        };
                        Input::AgentCallAnswered { job, result }
                    });
                }
                Command::CreateOutgoing { call, job, agent_id, query, body, budget } => {
                    let agents = Arc::clone(&self.parts.agents);
                    self.begin_job(call, job, async move {
                        let (agent_id, query) = (agent_id.as_deref(), query.as_deref());
                        let result = agents.create_outgoing(agent_id, query, &body, budget).await;
                        Input::OutgoingCallAnswered { job, result }
                    });
                }
                Command::DialAnswered { asked, result } => {
                    if let Some(reply) = self.dials.remove(&asked) {
                        // The client may have given up waiting.
                        let _ = reply.send(*result);
                    }
                }
                Command::AbortJob(job) => {
                    if let Some(handle) = self.running.remove(&job) {
                        handle.abort();
                    }
                }
                Command::Alarm { call, words } => {
                    let _in_call = self.span(call).entered();
                    tracing::error!("{words}");
                }
                Command::Drained => {
                    for done in self.drains.drain(..) {
                        // Whoever drained may have given up waiting.
                        let _ = done.send(());
                    }
                }
            }
        }
    }

    fn tell(&mut self, call: CallKey, deed: Deed) {
        self.totals.hands.add(deed);
        let _in_call = self.span(call).entered();
        log_deed(deed);
    }

    fn record(&mut self, cdr: Box<Cdr>, ladder: Ladder) {
        let voice = self.spans.entry(cdr.key).or_insert_with(|| Voice::of(cdr.key));
        let _in_call = voice.span.clone().entered();
        let turn = Turn::of(&cdr);
        if let Some(turn) = turn.filter(|turn| voice.told != Some(*turn)) {
            let before = voice.told.replace(turn);
            log_turn(before, turn, &cdr);
        }
        if cdr.is_closed() {
            self.spans.remove(&cdr.key);
            self.record_end(&cdr, ladder);
        }
        self.parts.store.write(*cdr);
    }

    /// A record is closed at the call's end, and once more when its media figures are there; each
    /// part counts once.
    fn record_end(&mut self, cdr: &Cdr, ladder: Ladder) {
        while self.ended.len() >= ENDED_MAX && !self.ended.contains_key(&cdr.key) {
            self.ended.pop_first();
        }
        let counted = self.ended.get(&cdr.key).map(|ended| ended.media_counted);
        if counted.is_none() {
            self.totals.add(cdr);
            log_end(cdr);
        }
        self.parts.store.keep_ladder(cdr.key, &ladder);
        let media = cdr.media.filter(|_| counted != Some(true));
        if media.is_some() {
            for media in cdr.media.iter().chain(&cdr.further_media) {
                self.totals.add_media(media);
            }
        }
        let media_counted = counted == Some(true) || media.is_some();
        let kept = Box::new(cdr.clone());
        self.ended.insert(cdr.key, Ended { cdr: kept, ladder, media_counted });
    }

    fn publish(&mut self) {
        let peers = self.parts.board.calls().map(|call| call.first.flow.peer.ip());
        self.parts.sources.keep(Clock::instant(), peers);
        let published = Published {
            at: Clock::instant(),
            snapshot: self.snapshot(),
            totals: self.totals.clone(),
        };
        let mut slot = self.parts.published.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = published;
    }

    fn ladder(&self, key: CallKey) -> Option<Ladder> {
        let live = self.parts.board.calls().find(|call| call.key == key);
        live.map(|call| call.ladder.clone())
            .or_else(|| self.ended.get(&key).map(|ended| ended.ladder.clone()))
    }

    fn call(&self, name: &CallName) -> Option<(Box<Cdr>, Ladder)> {
        let is_it = |call: &&Call| match name {
            CallName::Key(key) => call.key == *key,
            CallName::Ultravox(id) => call.cdr.has_ultravox_call(id),
        };
        let Some(call) = self.parts.board.calls().find(is_it) else {
            return self.ended_call(name);
        };
        Some((Box::new(record_of(call)), call.ladder.clone()))
    }

    fn records(&self, keys: &BTreeSet<CallKey>) -> Vec<Cdr> {
        let live = self.parts.board.calls().filter(|call| keys.contains(&call.key));
        let mut found: Vec<Cdr> = live.map(record_of).collect();
        let live: BTreeSet<CallKey> = found.iter().map(|cdr| cdr.key).collect();
        let ended = keys.difference(&live).filter_map(|key| self.ended.get(key));
        found.extend(ended.map(|ended| Cdr::clone(&ended.cdr)));
        found
    }

    fn ended_call(&self, name: &CallName) -> Option<(Box<Cdr>, Ladder)> {
        let ended = match name {
            CallName::Key(key) => self.ended.get(key)?,
            CallName::Ultravox(id) => {
                let is_it = |ended: &&Ended| ended.cdr.has_ultravox_call(id);
                self.ended.values().rev().find(is_it)?
            }
        };
        Some((ended.cdr.clone(), ended.ladder.clone()))
    }

    fn locate(&mut self, ticket: u64, target: Target, seed: u64) {
        let resolver = self.parts.resolver.clone();
        let reach = self.parts.flows.reach();
        self.jobs.spawn(async move {
            Input::Located { ticket, result: resolver.locate(&target, seed, reach).await }
        });
    }

    fn fetch_agent(&mut self, call: CallKey, job: JobId, agent_id: String) {
        let agents = Arc::clone(&self.parts.agents);
        self.begin_job(call, job, async move {
            Input::AgentFetched { job, result: agents.fetch_agent(&agent_id).await }
        });
    }

    /// A REST job, in its call's span; its answer comes back as an input.
    fn begin_job(
        &mut self,
        call: CallKey,
        job: JobId,
        work: impl Future<Output = Input> + Send + 'static,
    ) {
        let handle = self.jobs.spawn(work.instrument(self.span(call)));
        self.running.insert(job, handle);
    }

    /// The span of a call: every line about it carries its key.
    fn span(&self, call: CallKey) -> Span {
        self.spans.get(&call).map_or_else(|| call_span(call), |voice| voice.span.clone())
    }

    fn snapshot(&self) -> Snapshot {
        let board = &self.parts.board;
        let now = Clock::now();
        let live = |call: &crate::call::Call| {
            let (sip_time, agent_time) = call.clocks(now.at);
            LiveCall {
                key: call.key,
                answered: call.is_answered(),
                sip_time,
                agent_time,
                bridged: call.transfer.as_ref().map(|transfer| transfer.machine.is_bridged()),
            }
        };
        Snapshot {
            counters: board.counters(),
            creations: board.creation_figures(now.at),
            calls: board.calls().map(live).collect(),
            ports_in_use: board.ports_in_use(),
            transactions: board.user_agent().transactions(),
            registrations: board.registrations(now),
            sessions: board.user_agent().sessions(),
            strays: board.user_agent().counters().stray_responses,
            draining: board.is_draining(),
            full: board.is_full(),
            idle: board.is_idle() && self.running.is_empty(),
        }
    }
}

impl Totals {
    fn add(&mut self, cdr: &Cdr) {
        *self.by_status.entry(cdr.status.unwrap_or_default()).or_default() += 1;
        self.deciminutes += cdr.deciminutes.count();
        self.sip_time += cdr.sip_time;
        self.agent_time += cdr.agent_time;
    }

    fn add_media(&mut self, media: &MediaSummary) {
        self.media.packets_lost += media.packets_lost;
        self.media.packets_late += media.packets_late;
        self.media.shortened_ms += media.shortened_ms;
        self.media.lengthened_ms += media.lengthened_ms;
        self.media.packets_refused += media.packets_refused;
        self.media.srtp_failures += media.srtp_failures;
        self.media.concealed_ms += media.concealed_ms;
        self.media.frames_late += media.frames_late;
        self.media.uplink_dropped_frames += media.uplink_dropped_frames;
        self.media.agent_underruns = self.media.agent_underruns.wrapping_add(media.agent_underruns);
        self.media.agent_shortened_ms += media.agent_shortened_ms;
        self.media.agent_lengthened_ms += media.agent_lengthened_ms;
        let far_end = media.far_end.and_then(|far_end| far_end.mos_conversation);
        for (scores, score) in
            [(&mut self.mos_received, media.mos_received), (&mut self.mos_sent, media.mos_sent)]
        {
            score.into_iter().for_each(|score| scores.add(media.mos_scale, score));
        }
        // It need not be on the scale of our own scores.
        far_end.into_iter().for_each(|score| self.mos_far_end.add(score));
    }
}

/// A call's record as of now.
fn record_of(call: &Call) -> Cdr {
    let mut cdr = call.cdr.clone();
    if !cdr.is_closed() {
        let (sip_time, agent_time) = call.clocks(Clock::now().at);
        cdr.set_times(sip_time, agent_time);
    }
    cdr
}

fn call_span(call: CallKey) -> Span {
    tracing::info_span!("call", key = %call)
}

/// How a live call speaks in the log.
struct Voice {
    span: Span,
    /// The turn that was told last. A record is written many times for one turn.
    told: Option<Turn>,
}

impl Voice {
    fn of(call: CallKey) -> Voice {
        Voice { span: call_span(call), told: None }
    }
}

/// Where a live call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Ours: its agent call stands, the callee's phone does not ring yet.
    Dialled,
    /// `decided`: who answers is known; the fallback handler says it while the caller waits.
    Rings {
        decided: bool,
    },
    Up,
}

impl Turn {
    fn of(cdr: &Cdr) -> Option<Turn> {
        let rings = cdr.ringing_at.is_some();
        match cdr.answered_at {
            _ if cdr.is_closed() => None,
            Some(_) => Some(Turn::Up),
            None if rings => Some(Turn::Rings { decided: cdr.agent_id.is_some() }),
            None => cdr.ultravox_call_id.is_some().then_some(Turn::Dialled),
        }
    }
}

/// A call's turn, once. Numbers are for debug only.
fn log_turn(before: Option<Turn>, turn: Turn, cdr: &Cdr) {
    let (agent_id, rule) = (&cdr.agent_id, &cdr.routed_by);
    match (before, turn) {
        (_, Turn::Dialled) => tracing::info!(agent_id, rule, "call is dialled"),
        (Some(Turn::Rings { .. }), Turn::Rings { .. }) => {
            return tracing::info!(agent_id, rule, "call is routed");
        }
        (_, Turn::Rings { .. }) => tracing::info!(agent_id, rule, "call rings"),
        (_, Turn::Up) => return tracing::debug!("call is up"),
    }
    tracing::debug!(source = %cdr.source.address, from = %cdr.from_uri, to = %cdr.to_uri);
}

/// What a call did with its hands.
fn log_deed(deed: Deed) {
    match deed {
        Deed::Transfer { kind, outcome } => {
            tracing::info!(kind = kind.label(), outcome, "transfer decided");
        }
        Deed::Replaces { taken } => tracing::info!(taken, "INVITE with Replaces"),
        Deed::KeyReceived(path) => tracing::debug!(way = path.label(), "key received"),
        Deed::KeysSent { sender, count } => {
            tracing::debug!(sender = sender.label(), count, "keys sent");
        }
        Deed::Tool { tool, begun } => tracing::debug!(tool, begun, "tool of the agent"),
        Deed::AgentLost(end) => tracing::warn!(then = end.label(), "an agent was lost"),
    }
}

/// One line for each call that ended.
fn log_end(cdr: &Cdr) {
    tracing::info!(
        status = cdr.status,
        codec = cdr.codec,
        sip_ms = cdr.sip_time.as_millis() as u64,
        agent_ms = cdr.agent_time.as_millis() as u64,
        deciminutes = cdr.deciminutes.count(),
        end = cdr.end,
        "call ended"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{CallDirection, EndedBy, Source};
    use crate::ground::{Transport, WallTime};

    #[test]
    fn each_turn_of_a_call_is_told_apart_from_the_one_before() {
        let (at, now) = (([192, 0, 2, 7], 5060).into(), WallTime::default());
        let source = Source { address: at, transport: Transport::Udp };
        let mut cdr = Cdr::opened(CallKey(1), CallDirection::Outgoing, source, "c".into(), now);
        assert_eq!(Turn::of(&cdr), None, "it is only asked for");
        cdr.ultravox_call_id = Some("c".into());
        assert_eq!(Turn::of(&cdr), Some(Turn::Dialled));
        cdr.ringing_at = Some(now);
        assert_eq!(Turn::of(&cdr), Some(Turn::Rings { decided: false }), "a handler is asked");
        cdr.agent_id = Some("echo".into());
        assert_eq!(Turn::of(&cdr), Some(Turn::Rings { decided: true }));
        cdr.answered_at = Some(now);
        assert_eq!(Turn::of(&cdr), Some(Turn::Up));
        (cdr.ended_at, cdr.ended_by) = (Some(now), Some(EndedBy::Caller));
        assert_eq!(Turn::of(&cdr), None, "its end has a line of its own");
    }
}
