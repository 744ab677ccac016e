//! What the operator sees of a running daemon: health and metrics, gathered when somebody asks.

use super::certificates::Certificates;
use crate::ground::Secret;
use crate::shell::account::Account;
use crate::shell::admin::health::Health;
use crate::shell::admin::metrics::{
    HandFigures, MediaFigures, SetupFigures, SipFigures, Snapshot, StoreFigures,
};
use crate::shell::admin::{AdminState, Keys, Reload, States};
use crate::shell::agent::rest::AgentService;
use crate::shell::clock::Clock;
use crate::shell::config::Config;
use crate::shell::flow::Flows;
use crate::shell::media::{CallView, HistogramSnapshot, MediaPlane, ShardSnapshot};
use crate::shell::signalling::{self, Published, Request, Totals};
use crate::shell::store::Store;
use crate::switchboard::RegistrationState;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A part that has not moved for so long is stuck: it publishes, or begins a round, each second.
const STUCK: Duration = Duration::from_secs(5);

/// The parts that are looked at.
#[derive(Clone)]
pub struct Observed {
    pub flows: Flows,
    pub media: Arc<MediaPlane>,
    pub store: Store,
    pub published: Arc<Mutex<Published>>,
    pub ports: RangeInclusive<u16>,
}

impl Observed {
    /// What the admin listener is lent. It holds the media plane weakly, so that the daemon alone
    /// decides when the shards end.
    pub fn admin_state(self, config: &Config, listen: SocketAddr, lent: Lent) -> AdminState {
        let Observed { flows, media, store, published, ports } = self;
        let weak = Arc::downgrade(&media);
        let seen = Arc::new(Seen { flows, media: weak, store, published, ports });
        let (for_metrics, for_health) = (Arc::clone(&seen), Arc::clone(&seen));
        let (for_legs, for_strangers) = (Arc::clone(&seen), Arc::clone(&seen));
        let for_list = seen;
        AdminState {
            keys: Keys { admin: config.admin.api_key.clone(), ultravox: lent.ultravox_key },
            listen,
            secure: config.admin.tls.is_some(),
            reload: reload_of(config.clone(), Arc::clone(&lent.account), lent.certificates),
            registrations: Arc::new(move || for_list.registrations()),
            account: lent.account,
            agents: lent.agents,
            signalling: lent.signalling,
            desk: Arc::default(),
            legs: Arc::new(move || Box::pin(legs(for_legs.ask_legs()))),
            unlisted: Arc::new(move || for_strangers.flows.unlisted().rows()),
            metrics: Arc::new(move || for_metrics.metrics()),
            health: Arc::new(move || for_health.health()),
            store: Arc::new(config.store.path.clone()),
        }
    }
}

/// The parts that the admin listener speaks to.
pub struct Lent {
    pub account: Arc<Account>,
    pub certificates: Arc<Certificates>,
    pub agents: Arc<AgentService>,
    pub signalling: mpsc::WeakSender<Request>,
    pub ultravox_key: Secret,
}

fn reload_of(running: Config, account: Arc<Account>, certificates: Arc<Certificates>) -> Reload {
    let running = Arc::new(running);
    Arc::new(move || {
        let (running, account) = (Arc::clone(&running), Arc::clone(&account));
        let certificates = Arc::clone(&certificates);
        Box::pin(async move { super::reload(&running, &account, &certificates).await })
    })
}

struct Seen {
    flows: Flows,
    media: Weak<MediaPlane>,
    store: Store,
    published: Arc<Mutex<Published>>,
    ports: RangeInclusive<u16>,
}

/// How long the media threads have to tell how their calls go.
const TELLING: Duration = Duration::from_secs(2);

async fn legs(asked: Vec<oneshot::Receiver<Vec<CallView>>>) -> Vec<CallView> {
    let mut views = Vec::new();
    for answer in asked {
        if let Ok(Ok(told)) = tokio::time::timeout(TELLING, answer).await {
            views.extend(told);
        }
    }
    views
}

impl Seen {
    /// The media plane is let go of before its threads are waited for.
    fn ask_legs(&self) -> Vec<oneshot::Receiver<Vec<CallView>>> {
        self.media.upgrade().map(|media| media.views()).unwrap_or_default()
    }

    fn published(&self) -> Published {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of each registration, as of the last second.
    fn registrations(&self) -> States {
        let all = self.published().snapshot.registrations;
        all.into_iter().map(|one| (one.id.to_string(), one)).collect()
    }

    fn metrics(&self) -> Snapshot {
        let published = self.published();
        let (snapshot, totals) = (&published.snapshot, &published.totals);
        let flows = self.flows.counters();
        Snapshot {
            uptime: Clock::instant().since(crate::ground::Instant::ZERO),
            calls_live: snapshot.calls.len() as u64,
            calls_total: snapshot.counters.invites,
            calls_answered: snapshot.counters.answered,
            calls_by_status: totals.by_status.clone(),
            deciminutes: totals.deciminutes,
            sip_time: totals.sip_time,
            agent_time: totals.agent_time,
            sip: SipFigures {
                messages_received: totals.messages_received,
                messages_sent: totals.messages_sent,
                unlisted: flows.unlisted,
                malformed: flows.malformed,
                too_fast: flows.too_fast,
                muted: flows.muted,
                parser_panics: flows.parser_panics,
                connects: flows.connects,
                connects_failed: flows.connects_failed,
                tls_resumed: flows.resumed,
                shed: flows.shed,
                transactions: snapshot.transactions as u64,
                registrations: outcomes(&snapshot.registrations),
                dialogs: snapshot.sessions as u64,
                connections: flows.connections,
            },
            setup: SetupFigures {
                waiting: snapshot.creations.waiting as u64,
                waited: snapshot.creations.waited,
                wait_total: snapshot.creations.wait_total,
                turned_away: snapshot.creations.turned_away,
                lapsing: snapshot.creations.lapsing as u64,
                fallback_asked: snapshot.counters.fallback_asked,
                fallback_failed: snapshot.counters.fallback_failed,
                outgoing: snapshot.counters.outgoing,
                outgoing_refused: snapshot.counters.outgoing_refused,
            },
            hands: HandFigures {
                tally: totals.hands.clone(),
                transferring: transfers(snapshot, false),
                legs_bridged: 2 * transfers(snapshot, true),
            },
            media: self.media_figures(snapshot.ports_in_use, totals),
            store: StoreFigures::from(&**self.store.counters()),
            requests: Default::default(),
            draining: snapshot.draining,
        }
    }

    fn media_figures(&self, ports_in_use: usize, totals: &Totals) -> MediaFigures {
        let closed = &totals.media;
        let shards = self.media.upgrade().map(|media| media.snapshot()).unwrap_or_default();
        let sum = |figure: fn(&ShardSnapshot) -> u64| shards.iter().map(figure).sum();
        MediaFigures {
            sessions: sum(|shard| shard.sessions),
            agent_streams: sum(|shard| shard.agent_streams),
            ports_in_use: ports_in_use as u64,
            ports_capacity: u64::from(self.ports.end() - self.ports.start()).div_ceil(2),
            packets_received: sum(|shard| shard.packets_received),
            packets_sent: sum(|shard| shard.packets_sent),
            packets_lost: closed.packets_lost,
            packets_late: closed.packets_late,
            shortened: Duration::from_millis(closed.shortened_ms),
            lengthened: Duration::from_millis(closed.lengthened_ms),
            packets_refused: closed.packets_refused,
            srtp_failures: closed.srtp_failures,
            concealed: Duration::from_millis(closed.concealed_ms),
            frames_late: closed.frames_late,
            uplink_dropped_frames: closed.uplink_dropped_frames,
            agent_underruns: closed.agent_underruns.into(),
            agent_shortened: Duration::from_millis(closed.agent_shortened_ms),
            agent_lengthened: Duration::from_millis(closed.agent_lengthened_ms),
            one_way: totals.one_way.clone(),
            mos_received: totals.mos_received,
            mos_sent: totals.mos_sent,
            mos_far_end: totals.mos_far_end,
            shard_busy: shards.iter().map(|shard| shard.busy_permille as f64 / 1_000.0).collect(),
            shard_relief: shards.iter().map(|shard| shard.relief).collect(),
            pacing_lateness: together(shards.iter().map(|shard| shard.pacing_lateness)),
            forwarding_delay: together(shards.iter().map(|shard| shard.forwarding_delay)),
        }
    }

    fn health(&self) -> Health {
        let published = self.published();
        let stuck = self.media.upgrade().map(|media| stuck_shards(&media)).unwrap_or_default();
        Health {
            signalling_alive: Clock::instant().since(published.at) < STUCK,
            shards_stuck: stuck,
            draining: published.snapshot.draining,
            full: published.snapshot.full,
            store_failing: StoreFigures::from(&**self.store.counters()).failing,
            started: true,
            calls: published.snapshot.calls.len(),
        }
    }
}

/// Registrations that are up, that are down, and whose outcome is not known yet.
fn outcomes(all: &[RegistrationState]) -> [u64; 3] {
    let count = |outcome| all.iter().filter(|one| one.successful == outcome).count() as u64;
    [count(Some(true)), count(Some(false)), count(None)]
}

/// Live transfers that are bridged, or that are not.
fn transfers(snapshot: &signalling::Snapshot, bridged: bool) -> u64 {
    snapshot.calls.iter().filter(|call| call.bridged == Some(bridged)).count() as u64
}

fn together(shards: impl Iterator<Item = HistogramSnapshot>) -> HistogramSnapshot {
    shards.fold(HistogramSnapshot::default(), HistogramSnapshot::plus)
}

fn stuck_shards(media: &MediaPlane) -> Vec<usize> {
    let now = Clock::instant();
    let beats = media.heartbeats();
    let stuck = beats.iter().enumerate().filter(|(_, beat)| now.since(**beat) >= STUCK);
    stuck.map(|(shard, _)| shard).collect()
}

/// True while signalling and every shard make progress.
pub fn is_alive(published: &Mutex<Published>, media: &MediaPlane) -> bool {
    let at = published.lock().unwrap_or_else(PoisonError::into_inner).at;
    Clock::instant().since(at) < STUCK && stuck_shards(media).is_empty()
}
