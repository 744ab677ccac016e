//! The signalling brain, one for each process (house §3): owns the SIP user agent, every call, the
//! account's configuration, the media ports and the billing clocks. [`Input`]s come in with a time,
//! [`Command`]s come out. It never touches a socket, a clock, a task or a random source but its own.
//!
//! Every call that is listed here is in exactly one map; `Call::finish` is its only end.

mod agents;
mod carrying;
mod creations;
mod events;
mod input;
mod invited;
mod legs;
mod outgoing;
mod registrations;
mod setup;
mod takeover;
#[cfg(test)]
mod tests;

pub use creations::{CreationFigures, CreationLimits};
pub use input::{Command, Input};
pub use registrations::RegistrationState;

use crate::account::SipConfig;
use crate::billing::cdr::Cdr;
use crate::call::ladder::Ladder;
use crate::call::leg::JobPurpose;
use crate::call::{Call, CallSettings, MediaAddress, record};
use crate::ground::ports::{OwnPorts, PortPool, RtpPort};
use crate::ground::{CallKey, Entropy, Flow, FlowId, Instant, JobId, Now, TimerIndex};
use crate::media::plan::{ForCall, MediaCommand};
use crate::media::sound::hold_music;
use crate::outgoing::{DialRefusal, Limiter, OutgoingPolicy};
use crate::refusal::EndCause;
use crate::sip::ua::{Availability, Gone, SessionId, UaConfig, UaOutput, UserAgent};
use agents::AgentCache;
use creations::Creations;
use registrations::Registrations;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What a Switchboard is built with. All of it is checked by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub ua: UaConfig,
    pub call: CallSettings,
    /// Where media is bound and what descriptions say, by address family.
    pub media_v4: Option<MediaAddress>,
    pub media_v6: Option<MediaAddress>,
    /// What the descriptions of a listener's calls say in its place: bound address and what is given
    /// out, one for each family.
    pub advertised: Vec<(SocketAddr, IpAddr)>,
    /// Further addresses of this machine, as far as they are known. Where media is bound to all of their
    /// family, none goes to its own ports there.
    pub own_addresses: Vec<IpAddr>,
    /// First and last port of the media range.
    pub ports: (u16, u16),
    pub calls_max: usize,
    pub creations: CreationLimits,
    /// Who may be called, and how often.
    pub outgoing: Arc<OutgoingPolicy>,
    /// The name in `Warning` headers: the domain, or the product's.
    pub warn_agent: String,
    /// High half of the call keys of this process: its start in Unix seconds.
    pub epoch_s: u32,
}

/// Counters since the start; the shell publishes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub invites: u64,
    pub answered: u64,
    pub refused: u64,
    pub cancelled: u64,
    pub ended: u64,
    pub broken: u64,
    /// Questions to the fallback handler, and those that brought no decision.
    pub fallback_asked: u64,
    pub fallback_failed: u64,
    /// Outgoing calls that were placed, and requests for one that were refused.
    pub outgoing: u64,
    pub outgoing_refused: u64,
}

/// Who wants to be called at a deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Owner {
    UserAgent,
    Registrations,
    Call(CallKey),
    Creations,
    Drain,
}

/// What is needed to end a call whose step failed by our own bug.
#[derive(Clone, Debug)]
struct Skeleton {
    key: CallKey,
    /// Of the leg that the call began with, and its port; `None` while a new call has none yet.
    session: SessionId,
    port: Option<RtpPort>,
    /// The further legs and dialogs: a transfer's target, those on their way out.
    others: Vec<(SessionId, Option<RtpPort>)>,
    /// The record of a new call that is in no map yet.
    cdr: Option<Box<Cdr>>,
}

/// The signalling brain. See the module's head.
pub struct Switchboard {
    settings: Settings,
    config: Arc<SipConfig>,
    ua: UserAgent,
    /// Boxed, since a tree's nodes keep room for more of them than they hold.
    calls: BTreeMap<CallKey, Box<Call>>,
    by_session: BTreeMap<SessionId, CallKey>,
    jobs: BTreeMap<JobId, (CallKey, JobPurpose)>,
    /// Live calls on each stream connection: it is kept open while there are any.
    calls_on_flow: BTreeMap<FlowId, usize>,
    agents: AgentCache,
    creations: Creations,
    registrations: Registrations,
    ports: PortPool,
    /// The same as calls and their media see it.
    own: OwnPorts,
    dialled: Limiter,
    timers: TimerIndex<Owner>,
    entropy: Entropy,
    calls_begun: u32,
    jobs_begun: u64,
    overloaded: bool,
    draining: bool,
    drained: bool,
    counters: Counters,
    in_hand: Option<Skeleton>,
    out: VecDeque<Command>,
}

impl Settings {
    /// Every address that media of ours may come back by: where it is bound, and what is given out for
    /// it. Beside a specific address, the machine's others may have the same ports for somebody else.
    fn addresses(&self) -> Vec<IpAddr> {
        let media = [self.media_v4, self.media_v6].into_iter().flatten();
        let is_open = |ip: &IpAddr| {
            let mut binds = media.clone().map(|address| address.bind);
            binds.any(|bind| bind.is_unspecified() && bind.is_ipv4() == ip.to_canonical().is_ipv4())
        };
        let further = self.own_addresses.iter().copied().filter(is_open);
        let given = self.advertised.iter().map(|(_, given)| *given);
        let bound = media.clone().flat_map(|address| [address.bind, address.advertise]);
        let all: BTreeSet<_> = bound.chain(given).chain(further).collect();
        all.into_iter().collect()
    }
}

impl Switchboard {
    pub fn new(
        mut settings: Settings,
        config: Arc<SipConfig>,
        mut entropy: Entropy,
    ) -> Switchboard {
        let sounds = &mut Arc::make_mut(&mut settings.call.hands).sounds;
        // Who waits hears something, unless the agent's settings say otherwise.
        sounds.hold.get_or_insert_with(hold_music);
        let ports = PortPool::new(settings.ports.0, settings.ports.1);
        Switchboard {
            ua: UserAgent::new(settings.ua.clone(), entropy.fork()),
            own: ports.own(&settings.addresses()),
            ports,
            creations: Creations::new(settings.creations),
            settings,
            config,
            calls: BTreeMap::new(),
            by_session: BTreeMap::new(),
            jobs: BTreeMap::new(),
            calls_on_flow: BTreeMap::new(),
            agents: AgentCache::default(),
            registrations: Registrations::new(entropy.fork()),
            dialled: Limiter::default(),
            timers: TimerIndex::default(),
            entropy,
            calls_begun: 0,
            jobs_begun: 0,
            overloaded: false,
            draining: false,
            drained: false,
            counters: Counters::default(),
            in_hand: None,
            out: VecDeque::new(),
        }
    }

    /// Takes what happened. Drain [`Switchboard::poll_command`] afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Message { flow, message } => {
                self.with_ua(now, |ua, out| ua.handle_message(now, flow, message, out));
            }
            Input::FlowClosed { flow } => {
                self.with_ua(now, |ua, out| ua.handle_flow_closed(now, flow, out));
                self.on_registrar_lost(now, flow);
            }
            Input::Pong { flow } => self.on_pong(now, flow),
            Input::RegistrationsReplaced { registrations, bindings } => {
                self.replace_registrations(now, registrations, bindings);
            }
            Input::FallbackDecided { job, result } => self.on_fallback_decided(now, job, result),
            Input::AgentFetched { job, result } => self.on_agent_fetched(now, job, result),
            Input::AgentCallAnswered { job, result } => self.on_agent_call(now, job, result),
            Input::StageFetched { job, result } => self.on_stage_fetched(now, job, result),
            Input::SoundFetched { job, result } => self.on_sound_fetched(now, job, result),
            Input::DialRequested { asked, request } => {
                self.on_dial_requested(now, asked, *request);
            }
            Input::OutgoingCallAnswered { job, result } => {
                self.on_outgoing_call(now, job, result);
            }
            Input::Located { ticket, result } => {
                self.on_found(ticket, &result);
                self.with_ua(now, |ua, out| ua.handle_located(now, ticket, result, out));
            }
            Input::Connected { ticket, result } => {
                self.with_ua(now, |ua, out| ua.handle_connected(now, ticket, result, out));
            }
            Input::Media(ForCall { call, what }) => self.on_media(now, call, what),
            Input::ConfigReplaced(config) => self.config = config,
            Input::Overload(overloaded) => {
                self.overloaded = overloaded;
                self.set_availability();
            }
            Input::Drain { grace } => self.begin_drain(now, grace),
        }
        self.give_turns(now);
        self.settle();
    }

    /// Runs what is due at `now`. Always allowed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(owner) = self.timers.pop_due(now.at) {
            match owner {
                Owner::UserAgent => self.with_ua(now, |ua, out| ua.handle_timeout(now, out)),
                Owner::Registrations => self.on_registrations_due(now),
                Owner::Call(key) => self.step(now, key, |call, out| call.on_timeout(now, out)),
                // Turns are given after each round.
                Owner::Creations => {}
                Owner::Drain => self.end_all(now),
            }
        }
        self.give_turns(now);
        self.settle();
    }

    /// The next thing to be done.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.out.pop_front()
    }

    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// A step panicked: ends the call that was in hand from its skeleton, and nothing else.
    pub fn handle_panic(&mut self, now: Now) {
        self.counters.broken += 1;
        let Some(skeleton) = self.in_hand.take() else { return };
        let mut outputs = Vec::new();
        let answered = self.end_broken(now, skeleton.session, &mut outputs);
        for (session, port) in &skeleton.others {
            self.end_broken(now, *session, &mut outputs);
            if let Some(port) = port {
                self.ports.put_back(now.at, *port);
            }
        }
        self.jobs.retain(|_, (key, _)| *key != skeleton.key);
        self.timers.set(Owner::Call(skeleton.key), None);
        if let Some(port) = skeleton.port {
            self.ports.put_back(now.at, port);
        }
        self.creations.forget(now.at, skeleton.key, answered);
        let policy = self.settings.call.refusals;
        if let Some(mut call) = self.calls.remove(&skeleton.key) {
            self.media(skeleton.key, MediaCommand::Close);
            self.release_call(&call);
            let asked = call.outgoing.as_mut().and_then(|outgoing| outgoing.asked.take());
            if let Some(asked) = asked {
                let words = EndCause::Bug.words(self.settings.call.refusals);
                self.answer_dial(asked, Err(DialRefusal::Ended { words }));
            }
            // Plain assignments only: the call's own steps are not to be trusted any more.
            let clocks = call.clocks(now.at);
            let cause = if answered { EndCause::Bug } else { EndCause::Bug.before_answer() };
            if !call.cdr.is_closed() {
                record::close(&mut call.cdr, now, clocks, &cause, policy);
            }
            let (cdr, ladder) = (Box::new(call.cdr), call.ladder);
            self.out.push_back(Command::Record { cdr, ladder });
        } else if let Some(mut cdr) = skeleton.cdr {
            let clocks = (Duration::ZERO, Duration::ZERO);
            record::close(&mut cdr, now, clocks, &EndCause::Bug.before_answer(), policy);
            self.out.push_back(Command::Record { cdr, ladder: Ladder::new(now.at) });
        }
        self.take_ua_outputs(now, outputs);
        self.settle();
    }

    /// Calls that exist, ending ones included.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().map(Box::as_ref)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Media port pairs in use.
    pub fn ports_in_use(&self) -> usize {
        self.ports.in_use()
    }

    /// How callers wait for the creation of their agent calls.
    pub fn creation_figures(&self, now: Instant) -> CreationFigures {
        self.creations.figures(now)
    }

    pub fn user_agent(&self) -> &UserAgent {
        &self.ua
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// No further call is taken now.
    pub fn is_full(&self) -> bool {
        self.overloaded || self.calls.len() >= self.settings.calls_max
    }

    /// Nothing is left: no call, dialog, transaction, job, port or claim to an agent call.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.creations.is_empty()
            && self.by_session.is_empty()
            && self.jobs.is_empty()
            && self.calls_on_flow.is_empty()
            && self.ports.in_use() == 0
            && self.ua.sessions() == 0
            && self.ua.transactions() == 0
            && self.ua.requests_under_way() == 0
    }

    /// Calls the user agent and acts on what it says.
    fn with_ua(&mut self, now: Now, act: impl FnOnce(&mut UserAgent, &mut Vec<UaOutput>)) {
        let mut outputs = Vec::new();
        act(&mut self.ua, &mut outputs);
        self.take_ua_outputs(now, outputs);
    }

    /// A verb whose session or request may be gone by now: its event says so, or has said so.
    fn tell(
        &mut self,
        now: Now,
        verb: impl FnOnce(&mut UserAgent, &mut Vec<UaOutput>) -> Result<(), Gone>,
    ) {
        self.with_ua(now, |ua, out| {
            let _: Result<(), Gone> = verb(ua, out);
        });
    }

    fn take_ua_outputs(&mut self, now: Now, outputs: Vec<UaOutput>) {
        for output in outputs {
            match output {
                UaOutput::Send { flow, to, bytes } => {
                    self.out.push_back(Command::Send { flow, to, bytes });
                }
                UaOutput::Locate { ticket, target, seed } => {
                    self.on_search(ticket, &target);
                    self.out.push_back(Command::Locate { ticket, target, seed });
                }
                UaOutput::Connect { ticket, hop } => {
                    self.out.push_back(Command::Connect { ticket, hop });
                }
                UaOutput::Event(event) => self.on_ua_event(now, event),
            }
        }
    }

    fn media(&mut self, call: CallKey, what: MediaCommand) {
        self.out.push_back(Command::Media(ForCall { call, what }));
    }

    /// The last trace of a call: its port, its flow's count, its entries.
    fn forget(&mut self, now: Now, key: CallKey) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.counters.ended += 1;
        for (job, _) in &call.jobs {
            self.jobs.remove(job);
        }
        self.ports.put_back(now.at, call.first.port);
        self.timers.set(Owner::Call(key), None);
        self.release_call(&call);
        // The call has ended each claim of its own; one that it missed would hold a place for ever.
        self.creations.forget(now.at, key, true);
        self.set_availability();
    }

    fn hold_flow(&mut self, flow: FlowId) {
        let count = self.calls_on_flow.entry(flow).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.out.push_back(Command::KeepFlow { flow, keep: true });
        }
    }

    fn release_flow(&mut self, flow: FlowId) {
        let Some(count) = self.calls_on_flow.get_mut(&flow) else { return };
        *count -= 1;
        if *count == 0 {
            self.calls_on_flow.remove(&flow);
            self.out.push_back(Command::KeepFlow { flow, keep: false });
        }
    }

    /// A call's dialog lives on another flow now: that one is kept open, the old one is not.
    fn on_moved(&mut self, session: SessionId, flow: Flow) {
        let key = self.by_session.get(&session);
        let Some(call) = key.and_then(|key| self.calls.get_mut(key)) else { return };
        let Some(old) = call.move_session(session, flow) else { return };
        self.hold_flow(flow.id);
        self.release_flow(old);
    }

    fn begin_drain(&mut self, now: Now, grace: Duration) {
        if self.draining && grace.is_zero() {
            self.drop_registrations();
        } else {
            self.leave_registrars(now);
        }
        self.draining = true;
        // A second drain (a shorter grace) is told of its end too.
        self.drained = false;
        self.set_availability();
        let end = match grace.is_zero() {
            true => now.at,
            false => now.at + grace,
        };
        self.timers.set(Owner::Drain, Some(end));
    }

    fn end_all(&mut self, now: Now) {
        let keys: Vec<CallKey> = self.calls.keys().copied().collect();
        for key in keys {
            self.step(now, key, |call, out| call.finish(now, EndCause::Drained, out));
        }
    }

    fn set_availability(&mut self) {
        let availability = if self.draining {
            Availability::Draining
        } else if self.is_full() {
            Availability::Full
        } else {
            Availability::Open
        };
        self.ua.set_availability(availability);
    }

    /// After each round: the user agent's deadline, and whether a drain is over.
    fn settle(&mut self) {
        self.timers.set(Owner::UserAgent, self.ua.poll_timeout());
        self.timers.set(Owner::Creations, self.creations.poll_timeout());
        self.timers.set(Owner::Registrations, self.registrations.poll_timeout());
        let is_over = self.calls.is_empty() && self.registrations.is_empty();
        if self.draining && !self.drained && is_over {
            self.drained = true;
            self.timers.set(Owner::Drain, None);
            self.out.push_back(Command::Drained);
        }
    }
}

/// The content type of a session description.
const SDP: &str = "application/sdp";
