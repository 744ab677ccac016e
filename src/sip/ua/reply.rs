//! Writing answers: the headers that every answer has, answers without state, and how bytes of a
//! server transaction leave. A header that would break a line is left out and counted.

use super::Availability;
use super::table::{Pending, ServerMachine};
use super::{RequestToken, UaOutput, UserAgent};
use crate::ground::{Flow, Now};
use crate::sip::destination::Destination;
use crate::sip::msg::{Builder, Method, Name, NameAddr, Request, Scheme};
use crate::sip::status::StatusLine;
use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Headers that a caller adds.
pub(super) type Extra<'a> = &'a [(&'a str, &'a str)];

/// Which part of an answer depends on the dialog.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing: a plain refusal or the answer to BYE, INFO …
    Plain,
    /// Contact: a 1xx or 2xx that makes or refreshes a dialog (§12.1.1, §12.2.2).
    Contact,
}

impl UserAgent {
    /// An answer with its To tag and the headers of ours.
    pub(super) fn answer_to(
        &mut self,
        (request, flow): (&Request, &Flow),
        status: &StatusLine,
        local_tag: &str,
        part: Part,
        headers: Extra<'_>,
    ) -> Builder {
        let mut builder =
            Builder::response(request, &writable(status), flow.peer).to_tag(local_tag);
        if part == Part::Contact {
            if request.to().tag().is_none() {
                builder = builder.copy(request, Name::RecordRoute);
            }
            builder = builder.header("Contact", &self.config.contact(flow, is_secure(request)));
        }
        if part == Part::Contact && status.code >= 200 {
            builder = builder.header("Allow", &self.config.abilities.allow());
            builder = builder.header("Supported", &self.config.abilities.extensions.join(", "));
        }
        if !self.config.user_agent.is_empty() {
            builder = builder.header("Server", &self.config.user_agent);
        }
        for (name, value) in headers {
            if value.contains(['\r', '\n', '\0']) {
                self.counters.unwritable += 1;
            } else {
                builder = builder.header(name, value);
            }
        }
        builder
    }

    /// The bytes of an answer; empty and counted when it cannot be written.
    pub(super) fn seal(&mut self, builder: Builder) -> Bytes {
        builder.finish().unwrap_or_else(|_| {
            self.counters.unwritable += 1;
            Bytes::new()
        })
    }

    /// An answer without a transaction (§8.2.7). Copies of the request get the same To tag.
    pub(super) fn refuse_statelessly(
        &mut self,
        (request, flow): (&Request, &Flow),
        status: &StatusLine,
        headers: Extra<'_>,
        out: &mut Vec<UaOutput>,
    ) {
        self.counters.refused += 1;
        let tag = self.stateless_tag(request);
        let builder = self.answer_to((request, flow), status, &tag, Part::Plain, headers);
        let bytes = self.seal(builder);
        push_answer(*flow, bytes, out);
    }

    /// 503 for want of room, with a wait that spreads the callers out (RFC 7339).
    pub(super) fn shed(&mut self, request: &Request, flow: &Flow, out: &mut Vec<UaOutput>) {
        self.counters.shed += 1;
        // Never zero: the request would be back at once.
        let wait = (1 + self.entropy.below(10)).to_string();
        let host = self.config.domain.as_deref().unwrap_or("voxedge");
        let why = match self.availability {
            Availability::Draining => "no new call is taken while draining",
            Availability::Full => "no further call is taken now",
            Availability::Open => "this source has too much under way",
        };
        let warning = format!("399 {host} \"{why}\"");
        let headers = [("Retry-After", wait.as_str()), ("Warning", warning.as_str())];
        self.refuse_statelessly((request, flow), &StatusLine::of(503), &headers, out);
    }

    /// 0 to 10 seconds (§14.2).
    pub(super) fn retry_after(&mut self) -> String {
        self.entropy.below(11).to_string()
    }

    /// A To tag that only this process can make, and that it makes again for a copy.
    pub(super) fn stateless_tag(&self, request: &Request) -> String {
        let mut halves = [0; 2];
        for (half, secret) in halves.iter_mut().zip(self.tag_secret) {
            let mut hasher = DefaultHasher::new();
            secret.hash(&mut hasher);
            request.call_id().hash(&mut hasher);
            request.from().tag().hash(&mut hasher);
            request.cseq().number.hash(&mut hasher);
            request.via().branch().hash(&mut hasher);
            *half = hasher.finish();
        }
        format!("{:016x}{:016x}", halves[0], halves[1])
    }

    /// Ends a request that has a transaction with a final answer other than a 2xx to INVITE.
    pub(super) fn finish_request(
        &mut self,
        now: Now,
        token: RequestToken,
        status: &StatusLine,
        headers: Extra<'_>,
        body: Option<(&str, &[u8])>,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(Pending { request, flow, local_tag: tag }) = self.pending(token) else { return };
        let names_contact = matches!(request.method(), Method::Update | Method::Refer);
        let part = match names_contact && status.code < 300 {
            true => Part::Contact,
            false => Part::Plain,
        };
        let mut builder = self.answer_to((&request, &flow), status, &tag, part, headers);
        if let Some((content_type, body)) = body {
            builder = builder.body(content_type, body);
        }
        let bytes = self.seal(builder);
        let Some(record) = self.transactions.server_mut(token) else { return };
        let mut effects = Vec::new();
        match &mut record.machine {
            ServerMachine::Invite(machine) => machine.failure(now.at, bytes, &mut effects),
            ServerMachine::Other(machine) => machine.answer(now.at, bytes, &mut effects),
        }
        self.carry_out(token, effects, out);
    }

    /// What the answer to an open request is made from.
    pub(super) fn pending(&self, token: RequestToken) -> Option<Pending> {
        self.transactions.server(token)?.pending()
    }

    /// The bytes of a 100: no To tag, nothing of ours.
    pub(super) fn trying_for(&mut self, request: &Request, flow: &Flow) -> Bytes {
        self.seal(Builder::response(request, &StatusLine::of(100), flow.peer))
    }

    /// The 100 that a slow answer owes (RFC 4320 §4.1).
    pub(super) fn send_trying(&mut self, token: RequestToken, out: &mut Vec<UaOutput>) {
        let Some(Pending { request, flow, .. }) = self.pending(token) else { return };
        let bytes = self.trying_for(&request, &flow);
        let Some(record) = self.transactions.server_mut(token) else { return };
        if let ServerMachine::Other(machine) = &mut record.machine {
            let mut effects = Vec::new();
            machine.trying(bytes, &mut effects);
            self.carry_out(token, effects, out);
        }
    }

    pub(super) fn send_answer(
        &mut self,
        token: RequestToken,
        bytes: Bytes,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(record) = self.transactions.server(token) else { return };
        push_answer(record.flow, bytes, out);
    }
}

/// Answers go to the packet's source, whatever Via says.
pub(super) fn push_answer(flow: Flow, bytes: Bytes, out: &mut Vec<UaOutput>) {
    if !bytes.is_empty() {
        out.push(UaOutput::Send { flow, to: Destination::Peer, bytes });
    }
}

/// The status with a reason phrase that can be written.
fn writable(status: &StatusLine) -> StatusLine {
    if status.reason.contains(['\r', '\n', '\0']) {
        StatusLine::of(status.code)
    } else {
        status.clone()
    }
}

/// Our Contact must be sips when the Request-URI or the top Record-Route is (§12.1.1).
fn is_secure(request: &Request) -> bool {
    let sips_route = request.record_routes().first().is_some_and(|route| {
        NameAddr::parse(route).is_ok_and(|route| route.uri().scheme() == Scheme::Sips)
    });
    sips_route || request.uri().scheme() == Scheme::Sips
}
