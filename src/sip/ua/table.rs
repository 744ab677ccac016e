//! The transactions of the user agent: records, the keys that find them, and what each source
//! address holds. One entry point, [`Transactions::settle`], drops what has ended and keeps timers
//! and counts right; nothing else removes a record.

use super::errand::ErrandId;
use super::{Owner, RequestToken, SessionId};
use crate::ground::{Flow, FlowId, TimerIndex};
use crate::sip::destination::Destination;
use crate::sip::msg::Request;
use crate::sip::transaction::key::MergeKey;
use crate::sip::transaction::{Client, ClientInvite, ClientKey, Server, ServerInvite, ServerKey};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A server transaction of either kind.
#[derive(Debug)]
pub(super) enum ServerMachine {
    Invite(ServerInvite),
    Other(Server),
}

/// A request that was received, with all that answering it needs.
#[derive(Debug)]
pub(super) struct ServerRecord {
    pub(super) machine: ServerMachine,
    /// `None` once nothing is left to answer: copies of it are absorbed for 32 seconds more.
    request: Option<Arc<Request>>,
    pub(super) flow: Flow,
    pub(super) session: SessionId,
    pub(super) local_tag: String,
    pub(super) key: ServerKey,
    merge: Option<MergeKey>,
    counted: bool,
}

/// A client transaction of either kind.
#[derive(Debug)]
pub(super) enum ClientMachine {
    Invite(ClientInvite),
    Other(Client),
}

/// One try of a request of ours.
#[derive(Debug)]
pub(super) struct ClientRecord {
    pub(super) machine: ClientMachine,
    pub(super) flow: Flow,
    pub(super) to: Destination,
    /// The request that it is a try of; `None` for a CANCEL, of which nobody waits to hear.
    pub(super) errand: Option<ErrandId>,
    pub(super) key: ClientKey,
}

/// What one source address holds.
#[derive(Clone, Copy, Default, Debug)]
struct Load {
    /// Unfinished ones.
    open: usize,
    /// All, those that only absorb copies included.
    held: usize,
    early: usize,
}

/// All transactions, found by token, number or key.
#[derive(Default, Debug)]
pub(super) struct Transactions {
    /// Boxed, since a tree's nodes keep room for more of them than they hold.
    servers: BTreeMap<RequestToken, Box<ServerRecord>>,
    server_keys: BTreeMap<ServerKey, RequestToken>,
    merges: BTreeMap<MergeKey, RequestToken>,
    clients: BTreeMap<u64, Box<ClientRecord>>,
    client_keys: BTreeMap<ClientKey, u64>,
    loads: BTreeMap<IpAddr, Load>,
    last: u64,
}

/// A request on its way into the table.
pub(super) struct Arrival {
    pub(super) request: Arc<Request>,
    pub(super) flow: Flow,
    pub(super) key: ServerKey,
    pub(super) session: SessionId,
    pub(super) local_tag: String,
}

/// What an answer is made from.
pub(super) struct Pending {
    pub(super) request: Arc<Request>,
    pub(super) flow: Flow,
    pub(super) local_tag: String,
}

impl ServerRecord {
    /// `None` when the final answer is out.
    pub(super) fn pending(&self) -> Option<Pending> {
        let request = self.request.clone()?;
        Some(Pending { request, flow: self.flow, local_tag: self.local_tag.clone() })
    }
}

impl Transactions {
    pub(super) fn len(&self) -> usize {
        self.servers.len() + self.clients.len()
    }

    pub(super) fn find(&self, key: &ServerKey) -> Option<RequestToken> {
        self.server_keys.get(key).copied()
    }

    /// True when the request without To tag is one that came by another way before (§8.2.2.2).
    pub(super) fn is_merged(&self, request: &Request) -> bool {
        self.merges.contains_key(&MergeKey::of(request))
    }

    pub(super) fn server(&self, token: RequestToken) -> Option<&ServerRecord> {
        self.servers.get(&token).map(Box::as_ref)
    }

    pub(super) fn server_mut(&mut self, token: RequestToken) -> Option<&mut ServerRecord> {
        self.servers.get_mut(&token).map(Box::as_mut)
    }

    pub(super) fn client(&self, number: u64) -> Option<&ClientRecord> {
        self.clients.get(&number).map(Box::as_ref)
    }

    pub(super) fn client_mut(&mut self, number: u64) -> Option<&mut ClientRecord> {
        self.clients.get_mut(&number).map(Box::as_mut)
    }

    pub(super) fn find_client(&self, key: &ClientKey) -> Option<u64> {
        self.client_keys.get(key).copied()
    }

    /// Our unfinished requests on a flow.
    pub(super) fn clients_on(&self, flow: FlowId) -> Vec<u64> {
        let on_flow = self.clients.iter().filter(|(_, record)| record.flow.id == flow);
        on_flow.map(|(number, _)| *number).collect()
    }

    /// Enters a request. One outside a dialog is also remembered against merged copies of it.
    pub(super) fn insert(&mut self, arrival: Arrival, machine: ServerMachine) -> RequestToken {
        self.last += 1;
        let token = RequestToken(self.last);
        let Arrival { request, flow, key, session, local_tag } = arrival;
        let merge = request.to().tag().is_none().then(|| MergeKey::of(&request));
        if let Some(merge) = &merge {
            self.merges.insert(merge.clone(), token);
        }
        self.server_keys.insert(key.clone(), token);
        self.load(flow.peer.ip(), |load| load.held += 1);
        let request = Some(request);
        let record =
            ServerRecord { machine, request, flow, session, local_tag, key, merge, counted: false };
        self.servers.insert(token, Box::new(record));
        token
    }

    pub(super) fn insert_client(&mut self, record: ClientRecord) -> u64 {
        self.last += 1;
        self.client_keys.insert(record.key.clone(), self.last);
        self.clients.insert(self.last, Box::new(record));
        self.last
    }

    /// Brings timers, counts and the table in line with the state of a server transaction.
    pub(super) fn settle(&mut self, token: RequestToken, timers: &mut TimerIndex<Owner>) {
        let Some(record) = self.servers.get_mut(&token) else { return };
        let (open, ended, deadline) = match &record.machine {
            ServerMachine::Invite(machine) => {
                (machine.is_open(), machine.is_terminated(), machine.next_deadline())
            }
            ServerMachine::Other(machine) => {
                (machine.is_open(), machine.is_terminated(), machine.next_deadline())
            }
        };
        let source = record.flow.peer.ip();
        if !open {
            record.request = None;
        }
        if open != record.counted {
            record.counted = open;
            self.load(source, |load| {
                load.open = if open { load.open + 1 } else { load.open.saturating_sub(1) };
            });
        }
        let deadline = deadline.filter(|_| !ended).map(|(at, _)| at);
        timers.set(Owner::Server(token), deadline);
        if ended {
            self.remove(token);
        }
    }

    /// The same for a client transaction.
    pub(super) fn settle_client(&mut self, number: u64, timers: &mut TimerIndex<Owner>) {
        let Some(record) = self.clients.get(&number) else { return };
        let (ended, deadline) = match &record.machine {
            ClientMachine::Invite(machine) => (machine.is_terminated(), machine.next_deadline()),
            ClientMachine::Other(machine) => (machine.is_terminated(), machine.next_deadline()),
        };
        timers.set(Owner::Client(number), deadline.map(|(at, _)| at));
        if ended && let Some(record) = self.clients.remove(&number) {
            self.client_keys.remove(&record.key);
        }
    }

    /// Unfinished transactions of a source.
    pub(super) fn open_of(&self, source: IpAddr) -> usize {
        self.loads.get(&source).map_or(0, |load| load.open)
    }

    /// Transactions of a source, finished ones that still absorb copies included.
    pub(super) fn held_of(&self, source: IpAddr) -> usize {
        self.loads.get(&source).map_or(0, |load| load.held)
    }

    /// Calls of a source that are not answered yet.
    pub(super) fn early_of(&self, source: IpAddr) -> usize {
        self.loads.get(&source).map_or(0, |load| load.early)
    }

    pub(super) fn begin_early(&mut self, source: IpAddr) {
        self.load(source, |load| load.early += 1);
    }

    pub(super) fn end_early(&mut self, source: IpAddr) {
        self.load(source, |load| load.early = load.early.saturating_sub(1));
    }

    fn load(&mut self, source: IpAddr, change: impl FnOnce(&mut Load)) {
        let load = self.loads.entry(source).or_default();
        change(load);
        if load.open == 0 && load.early == 0 && load.held == 0 {
            self.loads.remove(&source);
        }
    }

    fn remove(&mut self, token: RequestToken) {
        let Some(record) = self.servers.remove(&token) else { return };
        let source = record.flow.peer.ip();
        self.load(source, |load| load.held = load.held.saturating_sub(1));
        if self.server_keys.get(&record.key) == Some(&token) {
            self.server_keys.remove(&record.key);
        }
        if let Some(merge) = record.merge
            && self.merges.get(&merge) == Some(&token)
        {
            self.merges.remove(&merge);
        }
    }

    /// True when nothing at all is held: for the leak checks of the tests.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
            && self.server_keys.is_empty()
            && self.merges.is_empty()
            && self.client_keys.is_empty()
            && self.loads.is_empty()
    }
}
