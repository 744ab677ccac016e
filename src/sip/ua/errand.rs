//! Requests of ours that are under way, as data: where each one stands, which ways are left, which
//! tries still wait for answers. `client` moves them; nothing is decided here.
//!
//! ```text
//! first flow ─▶ Locating ─▶ Connecting ─▶ Describing ─▶ Trying ─ answer ─▶ Over
//!                              ▲                           │ silence, fault, 503: the next hop
//!                              └───────────────────────────┘
//! ```

use super::draft::{Attempt, Draft};
use super::event::RequestToken;
use super::hops::DeadHops;
use super::{RequestId, SessionId};
use crate::ground::{Flow, Instant, Transport};
use crate::sip::destination::Destination;
use crate::sip::dialog::Dialog;
use crate::sip::digest::DigestClient;
use crate::sip::msg::Response;
use crate::sip::reliable::Received;
use crate::sip::target::{Hop, Target};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Names a request of ours, with all its tries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ErrandId(pub(super) u64);

/// What a request is for: who hears of its end.
#[derive(Debug)]
pub(super) enum Purpose {
    Dial(Dial),
    Send(RequestId),
    /// The BYE of a session.
    Bye(SessionId),
    /// The BYE of a dialog that nobody asked for.
    Farewell,
    /// The ACK of a 2xx to this INVITE, from the fork with this tag: sent once, without an answer.
    Ack {
        invite: ErrandId,
        tag: String,
    },
    /// A request of the call layer's in a dialog.
    Inside {
        session: SessionId,
        request: RequestId,
    },
    /// A re-INVITE. Its 2xx is acknowledged in this dialog even when the session is gone by then.
    Reoffer {
        session: SessionId,
        dialog: Box<Dialog>,
    },
    /// The REFER of a session.
    Refer(SessionId),
    /// The UPDATE that keeps a session alive.
    Refresh(SessionId),
    /// The PRACK of a provisional answer to this INVITE, from the fork with this tag. `session` when
    /// it is a re-INVITE.
    Prack {
        invite: ErrandId,
        tag: String,
        session: Option<SessionId>,
    },
}

impl Purpose {
    /// The session in whose dialog the request is sent.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Purpose::Bye(session)
            | Purpose::Refer(session)
            | Purpose::Refresh(session)
            | Purpose::Inside { session, .. }
            | Purpose::Reoffer { session, .. } => Some(*session),
            Purpose::Prack { session, .. } => *session,
            Purpose::Dial(_) | Purpose::Send(_) | Purpose::Farewell | Purpose::Ack { .. } => None,
        }
    }
}

/// An INVITE of ours outside dialogs.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) session: SessionId,
    pub(super) local_tag: String,
    pub(super) phase: Phase,
    /// Early dialogs in which requests of ours went out, by the tag of their fork.
    pub(super) forks: BTreeMap<String, Fork>,
}

/// An early dialog of an INVITE of ours.
#[derive(Debug)]
pub(super) struct Fork {
    pub(super) dialog: Dialog,
    /// A reliable provisional brought the answer to our offer: the next one may be the peer's
    /// (RFC 3311 §5.1).
    pub(super) is_settled: bool,
    /// An offer of the peer's by UPDATE that the call has not answered yet.
    pub(super) reoffer: Option<RequestToken>,
    /// What we answered such an offer with: it holds in the place of our INVITE's.
    pub(super) description: Option<Bytes>,
}

/// How far a dial is, for the call layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Calling,
    /// `cancel` was asked for. The CANCEL goes out when a provisional has come.
    Cancelling {
        reason: Option<String>,
    },
    /// Answered, refused, failed or cancelled: what still comes is cleared away.
    Over,
}

/// A message that is sent again as it is.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) flow: Flow,
    pub(super) to: Destination,
    pub(super) bytes: Bytes,
}

/// Where a request stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Locating {
        ticket: u64,
    },
    Connecting {
        ticket: u64,
        hop: Hop,
    },
    /// The call layer is asked for the body on this way.
    Describing {
        flow: Flow,
        to: Destination,
        hop: Option<Hop>,
    },
    /// This transaction is the one that counts; others of the request were abandoned.
    Trying {
        number: u64,
    },
    Over,
}

/// One request of ours.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) purpose: Purpose,
    pub(super) draft: Draft,
    pub(super) credentials: Option<DigestClient>,
    /// A flow to try before anything is located.
    pub(super) first: Option<(Flow, Destination)>,
    /// What is to be located; `None` once it was.
    pub(super) target: Option<Target>,
    /// Hops that are left, the next one first.
    pub(super) hops: VecDeque<Hop>,
    /// The flow to send on when nothing could be located.
    pub(super) last: Option<Flow>,
    /// Large requests may go over TCP instead of UDP (§18.1.1).
    pub(super) may_use_tcp: bool,
    /// The UDP hop whose TCP was tried for a large request: UDP it is, whatever the size.
    pub(super) udp_for: Option<Hop>,
    pub(super) step: Step,
    /// The flow that the present body was made for, where it depends on that.
    pub(super) described: Option<Flow>,
    pub(super) attempts: Vec<Attempt>,
    /// The ACKs of those who answered an INVITE with 2xx, by their tag. `None` while it waits for its
    /// way or for what it has to say.
    pub(super) acks: BTreeMap<String, Option<Sent>>,
    /// Reliable provisional answers, by try and tag.
    pub(super) received: BTreeMap<(u64, String), Received>,
    /// 422s that were obeyed.
    pub(super) raised: u8,
    /// A 503 for which other hops are asked; it is the answer when none of them has a better one.
    pub(super) unavailable: Option<Box<Answer>>,
    /// When the present step is given up.
    pub(super) deadline: Option<Instant>,
}

/// A final answer and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) flow: Flow,
    pub(super) hop: Option<Hop>,
}

impl Errand {
    pub(super) fn new(purpose: Purpose, draft: Draft, credentials: Option<DigestClient>) -> Errand {
        Errand {
            purpose,
            draft,
            credentials,
            first: None,
            target: None,
            hops: VecDeque::new(),
            last: None,
            may_use_tcp: false,
            udp_for: None,
            step: Step::Over,
            described: None,
            attempts: Vec::new(),
            acks: BTreeMap::new(),
            received: BTreeMap::new(),
            raised: 0,
            unavailable: None,
            deadline: None,
        }
    }

    pub(super) fn going_to(mut self, target: Target) -> Errand {
        self.may_use_tcp = target.transport.is_none();
        self.target = Some(target);
        self
    }

    /// Other ways are left when the present one fails.
    pub(super) fn has_other_ways(&self) -> bool {
        self.target.is_some() || !self.hops.is_empty()
    }

    pub(super) fn is_current(&self, number: u64) -> bool {
        self.step == Step::Trying { number }
    }

    pub(super) fn attempt_mut(&mut self, number: u64) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.number == number)
    }

    pub(super) fn dial(&self) -> Option<&Dial> {
        match &self.purpose {
            Purpose::Dial(dial) => Some(dial),
            _ => None,
        }
    }

    pub(super) fn dial_mut(&mut self) -> Option<&mut Dial> {
        match &mut self.purpose {
            Purpose::Dial(dial) => Some(dial),
            _ => None,
        }
    }

    pub(super) fn phase(&self) -> Option<&Phase> {
        self.dial().map(|dial| &dial.phase)
    }

    /// A large request found only a UDP hop: its TCP comes first, then itself.
    pub(super) fn prefer_tcp_of(&mut self, hop: Hop) {
        self.udp_for = Some(hop.clone());
        let twin = Hop { transport: Transport::Tcp, ..hop.clone() };
        self.hops.push_front(hop);
        self.hops.push_front(twin);
    }
}

/// All requests of ours that are under way.
#[derive(Debug, Default)]
pub(super) struct Errands {
    all: BTreeMap<ErrandId, Errand>,
    tickets: BTreeMap<u64, ErrandId>,
    /// Sessions of ours that were not answered yet.
    dials: BTreeMap<SessionId, ErrandId>,
    pub(super) dead: DeadHops,
    last: u64,
}

impl Errands {
    pub(super) fn insert(&mut self, errand: Errand) -> ErrandId {
        let id = ErrandId(self.next());
        if let Purpose::Dial(dial) = &errand.purpose {
            self.dials.insert(dial.session, id);
        }
        self.all.insert(id, errand);
        id
    }

    pub(super) fn get(&self, id: ErrandId) -> Option<&Errand> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ErrandId) -> Option<&mut Errand> {
        self.all.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: ErrandId) {
        self.all.remove(&id);
    }

    /// A number that names a request or a ticket and never comes again.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A ticket under which the shell answers.
    pub(super) fn ticket(&mut self, id: ErrandId) -> u64 {
        let ticket = self.next();
        self.tickets.insert(ticket, id);
        ticket
    }

    /// Who waits for the answer to this ticket; nobody does a second time.
    pub(super) fn redeem(&mut self, ticket: u64) -> Option<ErrandId> {
        self.tickets.remove(&ticket)
    }

    /// The dial of a session that was not answered yet.
    pub(super) fn dial(&self, session: SessionId) -> Option<ErrandId> {
        self.dials.get(&session).copied()
    }

    /// The session was answered or is gone.
    pub(super) fn end_dial(&mut self, session: SessionId) {
        self.dials.remove(&session);
    }

    /// Sessions of ours that were not answered yet.
    pub(super) fn dials(&self) -> usize {
        self.dials.len()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// True when nothing is held but the memory of dead hops: for the leak checks of the tests.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.tickets.is_empty() && self.dials.is_empty()
    }
}
