//! How a message finds its transaction (RFC 3261 §17.1.3, §17.2.3). A key also holds the source
//! address, the Call-ID and the CSeq number: copies, ACK and CANCEL of a right client always agree
//! in these, so that neither a stranger who guesses a branch nor a client that uses one branch twice
//! reaches a transaction that is not its own. Without the magic cookie the rules of RFC 2543 hold.

use crate::ground::Flow;
use crate::sip::msg::{Headers, Method, Request, Response};
use std::net::IpAddr;

/// Finds a server transaction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ServerKey {
    source: IpAddr,
    method: Method,
    cseq: u32,
    call_id: Box<str>,
    sent_by: Box<str>,
    branch: Branch,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Branch {
    Magic(Box<str>),
    /// No cookie: the rest of what RFC 2543 compares. The To tag is left out, since an ACK carries
    /// ours and the INVITE does not; the CSeq tells a re-INVITE from its INVITE.
    Legacy {
        branch: Box<str>,
        uri: Box<str>,
        from_tag: Box<str>,
    },
}

impl ServerKey {
    /// The transaction that `request` begins or is a copy of; for an ACK the one of its INVITE.
    pub fn of(request: &Request, flow: &Flow) -> ServerKey {
        let method = match request.method() {
            Method::Ack => Method::Invite,
            other => other.clone(),
        };
        ServerKey::with_method(request, flow, method)
    }

    /// The INVITE transaction that a CANCEL means (RFC 3261 §9.2).
    pub fn of_cancelled(cancel: &Request, flow: &Flow) -> ServerKey {
        ServerKey::with_method(cancel, flow, Method::Invite)
    }

    /// True when RFC 2543 rules match it; an ACK must then also carry our To tag.
    pub fn is_legacy(&self) -> bool {
        matches!(self.branch, Branch::Legacy { .. })
    }

    fn with_method(request: &Request, flow: &Flow, method: Method) -> ServerKey {
        let via = request.via();
        let branch = Box::from(via.branch().unwrap_or(""));
        let branch = if via.has_magic_branch() {
            Branch::Magic(branch)
        } else {
            let uri = Box::from(request.uri().as_str());
            let from_tag = Box::from(request.from().tag().unwrap_or(""));
            Branch::Legacy { branch, uri, from_tag }
        };
        let mut sent_by = via.host().to_string();
        sent_by.make_ascii_lowercase();
        if let Some(port) = via.port() {
            sent_by.push_str(&format!(":{port}"));
        }
        ServerKey {
            source: flow.peer.ip().to_canonical(),
            method,
            cseq: request.cseq().number,
            call_id: request.call_id().into(),
            sent_by: sent_by.into(),
            branch,
        }
    }
}

/// Finds a client transaction: our branch, which is never used twice, and the CSeq method, since a
/// CANCEL shares the branch of its INVITE.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientKey {
    pub branch: Box<str>,
    pub method: Method,
}

impl ClientKey {
    /// The transaction that `response` answers; `None` when its top Via has no branch, or when
    /// there is more than one Via, so that it was never meant for us (§8.1.3.3).
    pub fn of(response: &Response) -> Option<ClientKey> {
        if response.vias().count() != 1 {
            return None;
        }
        let branch = Box::from(response.via().branch()?);
        Some(ClientKey { branch, method: response.cseq().method.clone() })
    }
}

/// What makes two requests outside a dialog the same one that came by two ways (RFC 3261 §8.2.2.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MergeKey {
    call_id: Box<str>,
    from_tag: Box<str>,
    cseq: u32,
    method: Method,
}

impl MergeKey {
    /// The key of a request without a To tag.
    pub fn of(request: &Headers) -> MergeKey {
        let cseq = request.cseq();
        MergeKey {
            call_id: request.call_id().into(),
            from_tag: request.from().tag().unwrap_or("").into(),
            cseq: cseq.number,
            method: cseq.method.clone(),
        }
    }
}
