//! The ACK of a 2xx to an INVITE of ours (RFC 3261 §13.2.2.4): in the dialog, with the CSeq number and
//! the credentials of the INVITE, and again for each copy of the 2xx. It has no transaction and no
//! answer; when its way has to be found first, copies wait for it.

use super::draft::Draft;
use super::errand::{ErrandId, Purpose, Sent, Step};
use super::{UaOutput, UserAgent};
use crate::ground::Now;
use crate::ground::limits::FORKS_MAX;
use crate::sip::dialog::{Dialog, Way};
use crate::sip::msg::{Method, Response};
use bytes::Bytes;

impl UserAgent {
    /// True when the 2xx needs no new ACK: it is a copy, which gets the same again, or one of more
    /// forks than any honest proxy makes.
    pub(super) fn repeat_ack(
        &mut self,
        id: ErrandId,
        response: &Response,
        out: &mut Vec<UaOutput>,
    ) -> bool {
        let Some(errand) = self.errands.get(id) else { return true };
        match errand.acks.get(response.to().tag().unwrap_or_default()) {
            Some(Some(Sent { flow, to, bytes })) => {
                let (flow, to, bytes) = (*flow, to.clone(), bytes.clone());
                out.push(UaOutput::Send { flow, to, bytes });
                true
            }
            Some(None) => true,
            None => errand.acks.len() >= FORKS_MAX,
        }
    }

    /// The ACK of a 2xx to the INVITE `id`, with our answer when the 2xx had the offer. It repeats the
    /// number of that try and what answered a challenge in it.
    pub(super) fn send_ack(
        &mut self,
        now: Now,
        id: ErrandId,
        dialog: &Dialog,
        (cseq, authorization): (u32, Vec<(&'static str, String)>),
        answer: Option<(String, Bytes)>,
        out: &mut Vec<UaOutput>,
    ) {
        let tag = dialog.remote_tag().unwrap_or_default().to_owned();
        let mut draft = Draft::inside(dialog, Method::Ack, cseq);
        let repeated = authorization.into_iter();
        draft.headers = repeated.map(|(name, value)| (name.to_owned(), value)).collect();
        draft.body = answer;
        self.keep_ack(id, &tag, None);
        match dialog.way() {
            Way::Flow(flow, to) => {
                let branch = format!("{}{}", self.branch_start, self.entropy.token(128));
                let builder = draft.written(&self.config, &flow, &self.via(&flow, &branch), &[]);
                let bytes = self.seal(builder);
                self.keep_ack(id, &tag, Some(Sent { flow, to: to.clone(), bytes: bytes.clone() }));
                out.push(UaOutput::Send { flow, to, bytes });
            }
            Way::Target(..) | Way::None => {
                let purpose = Purpose::Ack { invite: id, tag };
                self.begin_inside(now, purpose, draft, dialog, None, out);
            }
        }
    }

    /// The way of an ACK was found: it goes out, and again for each copy of its 2xx.
    pub(super) fn send_ack_once(
        &mut self,
        id: ErrandId,
        invite: ErrandId,
        tag: &str,
        sent: Sent,
        out: &mut Vec<UaOutput>,
    ) {
        self.keep_ack(invite, tag, Some(sent.clone()));
        let Sent { flow, to, bytes } = sent;
        out.push(UaOutput::Send { flow, to, bytes });
        if let Some(errand) = self.errands.get_mut(id) {
            errand.step = Step::Over;
            errand.deadline = None;
        }
        self.settle_errand(id);
    }

    pub(super) fn keep_ack(&mut self, invite: ErrandId, tag: &str, sent: Option<Sent>) {
        if let Some(errand) = self.errands.get_mut(invite) {
            errand.acks.insert(tag.to_owned(), sent);
        }
    }
}
