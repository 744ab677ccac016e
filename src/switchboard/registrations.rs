//! The registrations of the account (RFC 3261 §10, RFC 5626): every [`RegistrationClient`], the
//! registrars that they share, and the flows on which their bindings live. A call that comes over such
//! a flow, or from a registrar to the user that we registered there, is admitted by its registration.
//! Says what is to be sent; the user agent finds the way.

use super::{Command, Switchboard};
use crate::account::{Registration, RegistrationId};
use crate::admission::Admission;
use crate::ground::{Entropy, Flow, FlowId, Instant, Now, TimerIndex, Transport, WallTime, limits};
use crate::sip::digest::DigestClient;
use crate::sip::msg::{Method, NameAddr, Request, Response, Uri};
use crate::sip::registration::{
    Answered, Binding, Failure, KeepAlive, KeepAliveOutput, Register, RegisterContact, Registrar,
    RegistrationClient, RegistrationOutput, RegistrationSettings,
};
use crate::sip::target::{ConnectFault, Hop, LocateFault, Target};
use crate::sip::ua::{DialFault, OutgoingRequest, OwnContact, RequestId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A registration as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationState {
    pub id: RegistrationId,
    /// `user@registrar`.
    pub name: Arc<str>,
    /// `None` until the first outcome.
    pub successful: Option<bool>,
    /// The last outcome in words, without secrets.
    pub reason: String,
    /// When the binding ends unless it is refreshed.
    pub expires_at: Option<WallTime>,
}

/// Names a client: a registration that was changed has another one than before.
type Handle = u64;

/// Whose deadline it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Waiter {
    Client(Handle),
    Flow(FlowId, SocketAddr),
}

#[derive(Debug)]
struct Member {
    registration: Registration,
    name: Arc<str>,
    client: RegistrationClient,
}

/// A flow with bindings on it.
#[derive(Debug)]
struct BoundFlow {
    flow: Flow,
    keep_alive: KeepAlive,
    members: BTreeSet<Handle>,
}

/// All registrations, those included that are being removed.
pub(super) struct Registrations {
    members: BTreeMap<Handle, Member>,
    /// Those that are wanted.
    by_id: BTreeMap<RegistrationId, Handle>,
    registrars: BTreeMap<Target, Registrar>,
    /// What a registrar's name was found to mean last.
    addresses: BTreeMap<Target, BTreeSet<IpAddr>>,
    /// Searches for a registrar that are under way.
    searches: BTreeMap<u64, Target>,
    /// Sources that are heard for the sake of bindings.
    heard: BTreeSet<IpAddr>,
    requests: BTreeMap<RequestId, Handle>,
    flows: BTreeMap<(FlowId, SocketAddr), BoundFlow>,
    timers: TimerIndex<Waiter>,
    entropy: Entropy,
    last: Handle,
}

impl Registrations {
    pub(super) fn new(entropy: Entropy) -> Registrations {
        Registrations {
            members: BTreeMap::new(),
            by_id: BTreeMap::new(),
            registrars: BTreeMap::new(),
            addresses: BTreeMap::new(),
            searches: BTreeMap::new(),
            heard: BTreeSet::new(),
            requests: BTreeMap::new(),
            flows: BTreeMap::new(),
            timers: TimerIndex::default(),
            entropy,
            last: 0,
        }
    }

    /// When something here wants to act.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Nothing is left, not even a removal that waits for its answer.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The registration over which this INVITE came: on the flow of a binding, or from its registrar
    /// to the user that is bound. Of several on one flow the one whose user is called.
    fn admitting(&self, flow: Flow, request: &Request) -> Option<&Member> {
        let called = request.uri().user_decoded();
        let to = request.to();
        let to = to.uri().user_decoded();
        let is_called = |member: &&Member, user: &str| member.user() == user;
        if let Some(bound) = self.flows.get(&(flow.id, flow.peer)) {
            let on_flow = || bound.members.iter().filter_map(|handle| self.members.get(handle));
            return on_flow()
                .find(|member| is_called(member, &called))
                .or_else(|| on_flow().find(|member| is_called(member, &to)))
                .or_else(|| on_flow().next());
        }
        let source = flow.peer.ip();
        let at_source = |member: &&Member| self.sources(member).any(|address| address == source);
        self.members.values().filter(at_source).find(|member| is_called(member, &called))
    }

    /// The registration that a call of ours to this callee goes by: at the host that is called, of the
    /// user who calls or of these credentials; one with a binding before one without.
    fn serving(&self, callee: &str, from: &str, username: Option<&str>) -> Option<&Member> {
        let callee = Target::of_uri(&Uri::parse(callee).ok()?).ok()?;
        let from = NameAddr::parse(from).ok();
        let caller = from.map(|from| from.uri().user_decoded().into_owned());
        let serves = |member: &&&Member| {
            let settings = &member.registration.settings;
            let is_users = caller.as_ref() == Some(&member.user())
                || username == Some(settings.credentials.username.as_str());
            is_users && serves_host(settings, &callee)
        };
        let wanted = || self.by_id.values().filter_map(|handle| self.members.get(handle));
        let all: Vec<&Member> = wanted().collect();
        let bound = all.iter().filter(serves).find(|member| member.client.flow().is_some());
        bound.or_else(|| all.iter().find(|member| serves(member))).copied()
    }

    /// Where calls over a binding may come from: the other end of its flow, and the addresses of its
    /// registrar. Nowhere without a binding.
    fn sources<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = IpAddr> + use<'a> {
        let bound = member.client.flow().map(|flow| flow.peer.ip());
        let found = bound.and_then(|_| self.addresses.get(&member.registration.settings.target));
        bound.into_iter().chain(found.into_iter().flatten().copied())
    }

    fn insert(&mut self, now: Now, registration: Registration, known: Option<Binding>) -> Handle {
        self.last += 1;
        let handle = self.last;
        let settings = Arc::clone(&registration.settings);
        self.registrars.entry(settings.target.clone()).or_default().registrations += 1;
        let name = settings.address_of_record.split_once(':').map_or("", |(_, name)| name).into();
        let client = RegistrationClient::new(settings, known, now.at, &mut self.entropy);
        self.by_id.insert(registration.id.clone(), handle);
        self.members.insert(handle, Member { registration, name, client });
        self.settle(handle);
        handle
    }

    /// One step of one client.
    fn step(
        &mut self,
        handle: Handle,
        act: impl FnOnce(
            &mut RegistrationClient,
            &mut Registrar,
            &mut Entropy,
            &mut Vec<RegistrationOutput>,
        ),
    ) -> Vec<RegistrationOutput> {
        let mut out = Vec::new();
        if let Some(member) = self.members.get_mut(&handle) {
            let target = member.registration.settings.target.clone();
            let registrar = self.registrars.entry(target).or_default();
            act(&mut member.client, registrar, &mut self.entropy, &mut out);
        }
        self.settle(handle);
        out
    }

    fn settle(&mut self, handle: Handle) {
        let deadline = self.members.get(&handle).and_then(|member| member.client.poll_timeout());
        self.timers.set(Waiter::Client(handle), deadline);
    }

    /// The registration is not wanted any more, or another client has it now.
    fn forget_id(&mut self, handle: Handle) {
        let Some(member) = self.members.get(&handle) else { return };
        let id = &member.registration.id;
        if self.by_id.get(id) == Some(&handle) {
            self.by_id.remove(id);
        }
    }

    /// True when some other client of the same registrar is bound on this flow: then the sources that
    /// are heard stay the same without this one.
    fn is_doubled(&self, handle: Handle, bound: &BoundFlow) -> bool {
        let target = |handle: &Handle| {
            self.members.get(handle).map(|member| &member.registration.settings.target)
        };
        let other = bound.members.iter().find(|other| **other != handle);
        other.is_some_and(|other| target(other) == target(&handle))
    }

    /// The client's last trace but its flow.
    fn remove(&mut self, handle: Handle) {
        self.forget_id(handle);
        let Some(member) = self.members.remove(&handle) else { return };
        self.timers.set(Waiter::Client(handle), None);
        self.requests.retain(|_, other| *other != handle);
        let target = &member.registration.settings.target;
        if let Some(registrar) = self.registrars.get_mut(target) {
            registrar.registrations = registrar.registrations.saturating_sub(1);
            if registrar.registrations == 0 {
                self.registrars.remove(target);
                self.addresses.remove(target);
            }
        }
    }

    /// Clients that share a registrar with this one.
    fn neighbours(&self, handle: Handle) -> Vec<Handle> {
        let target = |member: &Member| member.registration.settings.target.clone();
        let Some(own) = self.members.get(&handle).map(target) else { return Vec::new() };
        let same = self.members.iter().filter(|(_, member)| target(member) == own);
        same.map(|(handle, _)| *handle).collect()
    }
}

impl Member {
    /// The user that is registered, without escapes.
    fn user(&self) -> String {
        let address = NameAddr::parse(&self.registration.settings.address_of_record);
        address.map(|address| address.uri().user_decoded().into_owned()).unwrap_or_default()
    }

    /// Only the password or its user differ: the binding is the same.
    fn binds_like(&self, registration: &Registration) -> bool {
        let (one, other) = (&self.registration.settings, &registration.settings);
        one.address_of_record == other.address_of_record
            && one.request_uri == other.request_uri
            && one.routes == other.routes
    }
}

impl Switchboard {
    /// The registrations as they are now, in the order of their ids.
    pub fn registrations(&self, now: Now) -> Vec<RegistrationState> {
        let all = &self.registrations;
        let shown = |handle: &Handle| {
            let member = all.members.get(handle)?;
            let status = member.client.status();
            let wall = |at: Instant| now.later(at.since(now.at)).wall;
            Some(RegistrationState {
                id: member.registration.id.clone(),
                name: Arc::clone(&member.name),
                successful: status.successful,
                reason: status.reason,
                expires_at: status.expires_at.map(wall),
            })
        };
        all.by_id.values().filter_map(shown).collect()
    }

    /// These registrations and no others from now on; a binding that is known goes on.
    pub(super) fn replace_registrations(
        &mut self,
        now: Now,
        wanted: Vec<Registration>,
        mut bindings: BTreeMap<RegistrationId, Binding>,
    ) {
        if self.draining {
            return;
        }
        let ids: BTreeSet<_> = wanted.iter().map(|registration| registration.id.clone()).collect();
        let gone: Vec<Handle> = self
            .registrations
            .by_id
            .iter()
            .filter(|(id, _)| !ids.contains(*id))
            .map(|(_, handle)| *handle)
            .collect();
        for handle in gone {
            self.leave_registrar(now, handle);
        }
        for registration in wanted {
            let known = bindings.remove(&registration.id);
            self.want_registration(now, registration, known);
        }
    }

    fn want_registration(&mut self, now: Now, wanted: Registration, known: Option<Binding>) {
        let before = self.registrations.by_id.get(&wanted.id).copied();
        let member = before.and_then(|handle| self.registrations.members.get(&handle));
        let known = match (before, member) {
            (Some(_), Some(member)) if member.registration == wanted => return,
            (Some(handle), Some(member)) if member.binds_like(&wanted) => {
                let binding = member.client.binding().clone();
                self.unbind(handle);
                self.registrations.remove(handle);
                self.hear_registrars();
                Some(binding)
            }
            (Some(handle), _) => {
                self.leave_registrar(now, handle);
                None
            }
            (None, _) => known,
        };
        self.registrations.insert(now, wanted, known);
    }

    /// Removes the binding and the registration; on a drain all of them.
    fn leave_registrar(&mut self, now: Now, handle: Handle) {
        self.registrations.forget_id(handle);
        self.on_registration(now, handle, |client, registrar, _, out| {
            client.leave(now.at, registrar, out);
        });
    }

    pub(super) fn leave_registrars(&mut self, now: Now) {
        let all: Vec<Handle> = self.registrations.members.keys().copied().collect();
        for handle in all {
            self.leave_registrar(now, handle);
        }
    }

    /// Lets go without a word: a second drain does not wait.
    pub(super) fn drop_registrations(&mut self) {
        let all: Vec<Handle> = self.registrations.members.keys().copied().collect();
        for handle in all {
            self.unbind(handle);
            self.registrations.remove(handle);
        }
        self.hear_registrars();
    }

    pub(super) fn on_registrations_due(&mut self, now: Now) {
        while let Some(waiter) = self.registrations.timers.pop_due(now.at) {
            match waiter {
                Waiter::Client(handle) => {
                    self.on_registration(now, handle, |client, registrar, _, out| {
                        client.handle_timeout(now.at, registrar, out);
                    });
                }
                Waiter::Flow(flow, peer) => self.on_keep_alive(now, (flow, peer)),
            }
        }
    }

    /// The final answer to a request of ours outside dialogs.
    pub(super) fn on_registrar_answered(
        &mut self,
        now: Now,
        request: RequestId,
        response: &Response,
        flow: Flow,
        credentials: Option<DigestClient>,
    ) {
        let Some(handle) = self.registrations.requests.remove(&request) else { return };
        let Some(member) = self.registrations.members.get(&handle) else { return };
        let own = own_contact(member.client.settings().user.clone(), String::new());
        let secure = is_secure(&member.registration);
        let contact = self.ua.config().contact_uri(&flow, secure, &own);
        self.on_registration(now, handle, |client, registrar, entropy, out| {
            let answered = Answered { response, flow, contact: &contact };
            client.handle_response(now.at, answered, credentials, registrar, entropy, out);
        });
    }

    pub(super) fn on_registrar_silent(&mut self, now: Now, request: RequestId, fault: &DialFault) {
        let Some(handle) = self.registrations.requests.remove(&request) else { return };
        let failure = failure_of(fault);
        self.on_registration(now, handle, |client, registrar, entropy, out| {
            client.handle_failure(now.at, failure, registrar, entropy, out);
        });
    }

    /// A connection closed: the bindings on it are of no use.
    pub(super) fn on_registrar_lost(&mut self, now: Now, flow: FlowId) {
        let bound = self.registrations.flows.iter().filter(|((id, _), _)| *id == flow);
        let handles: Vec<Handle> =
            bound.flat_map(|(_, bound)| bound.members.iter().copied()).collect();
        for handle in handles {
            self.on_registration(now, handle, |client, _, entropy, out| {
                client.handle_flow_lost(now.at, flow, entropy, out);
            });
        }
    }

    /// A name is looked for, which may be a registrar's.
    pub(super) fn on_search(&mut self, ticket: u64, target: &Target) {
        if self.registrations.registrars.contains_key(target) {
            self.registrations.searches.insert(ticket, target.clone());
        }
    }

    /// What a name means: any of a registrar's hosts may send us its calls.
    pub(super) fn on_found(&mut self, ticket: u64, result: &Result<Vec<Hop>, LocateFault>) {
        let Some(target) = self.registrations.searches.remove(&ticket) else { return };
        if let (Ok(hops), true) = (result, self.registrations.registrars.contains_key(&target)) {
            let hosts = hops.iter().take(limits::REGISTRAR_ADDRESSES_MAX);
            let hosts = hosts.map(|hop| hop.address.ip()).collect();
            self.registrations.addresses.insert(target, hosts);
            self.hear_registrars();
        }
    }

    /// Has the flows hear the sources of all bindings and no others.
    fn hear_registrars(&mut self) {
        let all = &mut self.registrations;
        let wanted: BTreeSet<IpAddr> =
            all.members.values().flat_map(|member| all.sources(member)).collect();
        let before = std::mem::replace(&mut all.heard, wanted.clone());
        let admit = |address: &IpAddr, admit| Command::AdmitSource { address: *address, admit };
        self.out.extend(wanted.difference(&before).map(|address| admit(address, true)));
        self.out.extend(before.difference(&wanted).map(|address| admit(address, false)));
    }

    /// A registrar answered a keep-alive.
    pub(super) fn on_pong(&mut self, now: Now, flow: FlowId) {
        let all = &mut self.registrations;
        for (key, bound) in all.flows.iter_mut().filter(|((id, _), _)| *id == flow) {
            bound.keep_alive.handle_pong(now.at, &mut all.entropy);
            all.timers.set(Waiter::Flow(key.0, key.1), bound.keep_alive.poll_timeout());
        }
    }

    /// The registration that admits an INVITE.
    pub(super) fn admit_over_registration(
        &self,
        flow: Flow,
        request: &Request,
    ) -> Option<Admission> {
        let member = self.registrations.admitting(flow, request)?;
        Some(Admission::Registration(Arc::clone(&member.name)))
    }

    /// A call of ours to the host of a registration goes as its REGISTERs do: by its outbound proxy,
    /// on the flow of its binding while there is one, from the address that is bound, and with its
    /// credentials where the call has none of its own.
    pub(super) fn send_by_registration(&self, invite: &mut OutgoingRequest) {
        let username = invite.credentials.as_ref().map(DigestClient::username);
        let all = &self.registrations;
        let Some(member) = all.serving(&invite.request_uri, &invite.from, username) else { return };
        let settings = &member.registration.settings;
        invite.routes.clone_from(&settings.routes);
        invite.flow = member.client.flow();
        let own = || DigestClient::new(settings.credentials.clone());
        invite.credentials.get_or_insert_with(own);
        invite.own_contact = own_contact(settings.user.clone(), String::new());
    }

    pub(super) fn goes_by_registration(
        &self,
        callee: &str,
        from: &str,
        username: Option<&str>,
    ) -> bool {
        self.registrations.serving(callee, from, username).is_some()
    }

    fn on_registration(
        &mut self,
        now: Now,
        handle: Handle,
        act: impl FnOnce(
            &mut RegistrationClient,
            &mut Registrar,
            &mut Entropy,
            &mut Vec<RegistrationOutput>,
        ),
    ) {
        for output in self.registrations.step(handle, act) {
            match output {
                RegistrationOutput::Send(register) => self.send_register(now, handle, *register),
                RegistrationOutput::Keep(binding) => {
                    if let Some(member) = self.registrations.members.get(&handle) {
                        let registration = member.registration.id.clone();
                        self.out.push_back(Command::KeepBinding { registration, binding });
                    }
                }
                RegistrationOutput::Bound { flow, flow_timer } => {
                    self.unbind(handle);
                    self.bind(now, handle, flow, flow_timer);
                }
                RegistrationOutput::Unbound => self.unbind(handle),
                RegistrationOutput::RegistrarIsBack => {
                    for neighbour in self.registrations.neighbours(handle) {
                        self.registrations.step(neighbour, |client, _, _, _| client.hasten(now.at));
                    }
                }
                RegistrationOutput::Changed => self.tell_registration(handle),
                RegistrationOutput::Gone => self.registrations.remove(handle),
            }
        }
    }

    fn tell_registration(&mut self, handle: Handle) {
        let Some(member) = self.registrations.members.get(&handle) else { return };
        let status = member.client.status();
        self.out.push_back(Command::RegistrationChanged {
            registration: member.registration.id.clone(),
            successful: status.successful,
            reason: status.reason,
        });
    }

    fn send_register(&mut self, now: Now, handle: Handle, register: Register) {
        let address = format!("<{}>", register.address_of_record);
        let expires = register.expires.as_secs();
        let (contact, own_contact) = match register.contact {
            RegisterContact::Own { user, params } => (None, own_contact(user, params)),
            RegisterContact::Former(uri) => {
                (Some(format!("<{uri}>;expires={expires}")), OwnContact::default())
            }
        };
        let request = OutgoingRequest {
            call_id: Some(register.call_id),
            cseq: Some(register.cseq),
            routes: register.routes,
            contact,
            own_contact,
            headers: vec![("Expires".into(), expires.to_string())],
            credentials: Some(register.credentials),
            flow: register.flow,
            ..OutgoingRequest::new(Method::Register, &register.request_uri, &address, &address)
        };
        let mut outputs = Vec::new();
        let id = self.ua.send(now, request, &mut outputs);
        // Before its outputs: the end of the request may be among them.
        self.registrations.requests.insert(id, handle);
        self.take_ua_outputs(now, outputs);
    }

    fn bind(&mut self, now: Now, handle: Handle, flow: Flow, flow_timer: Option<u32>) {
        let all = &mut self.registrations;
        let key = (flow.id, flow.peer);
        if let Some(bound) = all.flows.get_mut(&key) {
            bound.members.insert(handle);
            let is_heard = all.flows.get(&key).is_some_and(|bound| all.is_doubled(handle, bound));
            if !is_heard {
                self.hear_registrars();
            }
            return;
        }
        let keep_alive = KeepAlive::new(now.at, flow.transport, flow_timer, &mut all.entropy);
        all.timers.set(Waiter::Flow(flow.id, flow.peer), keep_alive.poll_timeout());
        let members = BTreeSet::from([handle]);
        all.flows.insert(key, BoundFlow { flow, keep_alive, members });
        self.out.push_back(Command::KeepFlow { flow: flow.id, keep: true });
        self.hear_registrars();
    }

    fn unbind(&mut self, handle: Handle) {
        let mut bound = self.registrations.flows.iter_mut();
        let Some((key, bound)) = bound.find(|(_, bound)| bound.members.contains(&handle)) else {
            return;
        };
        let (key, flow) = (*key, bound.flow);
        bound.members.remove(&handle);
        let all = &self.registrations;
        if all.flows.get(&key).is_some_and(|bound| all.is_doubled(handle, bound)) {
            return;
        }
        let Some(bound) = self.registrations.flows.get(&key) else { return };
        if bound.members.is_empty() {
            self.registrations.flows.remove(&key);
            self.registrations.timers.set(Waiter::Flow(key.0, key.1), None);
            self.out.push_back(Command::KeepFlow { flow: flow.id, keep: false });
        }
        self.hear_registrars();
    }

    fn on_keep_alive(&mut self, now: Now, key: (FlowId, SocketAddr)) {
        let all = &mut self.registrations;
        let Some(bound) = all.flows.get_mut(&key) else { return };
        let mut out = Vec::new();
        bound.keep_alive.handle_timeout(now.at, &mut all.entropy, &mut out);
        all.timers.set(Waiter::Flow(key.0, key.1), bound.keep_alive.poll_timeout());
        let flow = bound.flow;
        for output in out {
            match output {
                KeepAliveOutput::Ping => self.out.push_back(Command::KeepAlive { flow }),
                // Its end comes back as an input, for the calls on it too.
                KeepAliveOutput::Failed => {
                    self.out.push_back(Command::CloseFlow { flow: flow.id });
                }
            }
        }
    }
}

/// The registrar's host is called, by its transport or by none that is named, at its port: where none
/// is named that of the registrar's transport (RFC 3261 §19.1.2).
fn serves_host(settings: &RegistrationSettings, callee: &Target) -> bool {
    let registrar = &settings.registrar;
    let is_tls = |target: &Target| target.transport == Some(Transport::Tls);
    let default = if is_tls(registrar) { 5061 } else { 5060 };
    let port = |target: &Target| target.port.unwrap_or(default);
    let is_there = (&registrar.host, port(registrar)) == (&callee.host, port(callee));
    let by_it = callee.transport.is_none() || callee.transport == registrar.transport;
    is_there && by_it && (!callee.secure || is_tls(registrar) && is_tls(&settings.target))
}

fn own_contact(user: String, params: String) -> OwnContact {
    OwnContact { user: Some(user), params }
}

/// Whether our Contact is a sips URI (RFC 3261 §8.1.1.8).
fn is_secure(registration: &Registration) -> bool {
    registration.settings.registrar.secure || registration.settings.target.secure
}

/// What kept a REGISTER from being answered, for the operator.
fn failure_of(fault: &DialFault) -> Failure {
    Failure::Nobody(match fault {
        DialFault::Digest(fault) => return Failure::Digest(*fault),
        DialFault::BadTarget(_) => "the registrar's name leads nowhere".into(),
        DialFault::NotLocated(LocateFault::NoSuchName) => {
            "the registrar's name has no address in DNS".into()
        }
        DialFault::NotLocated(LocateFault::Unanswered) => {
            "no name server answers for the registrar's name".into()
        }
        DialFault::NotLocated(LocateFault::NoTransport) => {
            "DNS names no transport for the registrar that is spoken here".into()
        }
        DialFault::NotConnected(ConnectFault::Unreachable) => {
            "the registrar cannot be connected to".into()
        }
        DialFault::NotConnected(ConnectFault::Tls(words)) => {
            format!("no TLS with the registrar: {words}")
        }
        DialFault::NotConnected(ConnectFault::NoSocket) => {
            "no listener of ours can carry requests to the registrar; see [sip] listen".into()
        }
        DialFault::TimedOut => "no answer from the registrar".into(),
        DialFault::FlowLost => "the connection closed before the registrar answered".into(),
        DialFault::Unwritable | DialFault::NoBody => "the request cannot be written".into(),
    })
}
