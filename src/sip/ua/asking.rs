//! Requests of ours in an established dialog (RFC 3261 §12.2.1, §15.1.1): those that the call layer
//! asks for, and our BYE. What an answer means for the session is decided here (RFC 5057): a 481 to
//! INFO, UPDATE or re-INVITE, and silence to the latter two, end it; any other refusal ends the request
//! alone, and a REFER or NOTIFY at most its subscription.

use super::draft::{Draft, RequestId, UNNUMBERED};
use super::errand::Purpose;
use super::outcome::Final;
use super::{Gone, SessionId, UaEvent, UaOutput, UserAgent};
use crate::ground::Now;
use crate::ground::limits::DIALOG_REQUESTS_MAX;
use crate::sip::digest::DigestClient;
use crate::sip::msg::Method;
use crate::sip::peer::PeerAbilities;
use crate::sip::refer::{SIPFRAG, sipfrag};
use crate::sip::session::Stage;
use bytes::Bytes;

/// A request in a dialog that describes no media: INFO, NOTIFY, MESSAGE, OPTIONS, UPDATE without a
/// body. A re-INVITE is [`UserAgent::reoffer`], a REFER is [`UserAgent::refer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DialogRequest {
    pub method: Method,
    /// Further headers. Line breaks in them fail the request with 400.
    pub headers: Vec<(String, String)>,
    /// Content type and body.
    pub body: Option<(String, Bytes)>,
}

impl DialogRequest {
    /// A request with nothing but what every one has.
    pub fn new(method: Method) -> DialogRequest {
        DialogRequest { method, headers: Vec::new(), body: None }
    }

    /// Tells the peer how the REFER that it sent with this CSeq number goes (RFC 3515 §2.4.5). With a
    /// `code` of 200 and above it is the last one.
    pub fn notify_referral(refer_cseq: u32, code: u16) -> DialogRequest {
        let state = match code {
            200.. => "terminated;reason=noresource",
            ..200 => "active;expires=60",
        };
        DialogRequest {
            method: Method::Notify,
            headers: vec![
                ("Event".into(), format!("refer;id={refer_cseq}")),
                ("Subscription-State".into(), state.into()),
            ],
            body: Some((SIPFRAG.into(), sipfrag(code))),
        }
    }
}

impl UserAgent {
    /// Sends a request in an answered dialog. Its final answer is told by one
    /// [`UaEvent::RequestAnswered`], unless the session ends before.
    ///
    /// # Errors
    /// [`Gone`] when there is no such session, or it is not answered yet, or it is being ended.
    pub fn request(
        &mut self,
        now: Now,
        session: SessionId,
        request: DialogRequest,
        out: &mut Vec<UaOutput>,
    ) -> Result<RequestId, Gone> {
        debug_assert!(
            !matches!(
                request.method,
                Method::Invite | Method::Ack | Method::Bye | Method::Cancel | Method::Prack
            ),
            "these have verbs of their own"
        );
        let id = RequestId(self.errands.next());
        let state = self.sessions.get_mut(&session).ok_or(Gone)?;
        if state.stage != Stage::Established {
            return Err(Gone);
        }
        if state.asked >= DIALOG_REQUESTS_MAX {
            let reason = "Too Many Requests Under Way".to_owned();
            let answered = UaEvent::RequestAnswered { session, request: id, code: 503, reason };
            out.push(UaOutput::Event(answered));
            return Ok(id);
        }
        state.asked += 1;
        let DialogRequest { method, headers, body } = request;
        let purpose = Purpose::Inside { session, request: id };
        self.ask(now, session, purpose, method, (headers, body), out);
        Ok(id)
    }

    /// What answers challenges to our requests in this dialog from now on. A call of ours has the
    /// credentials that it was dialled with.
    ///
    /// # Errors
    /// [`Gone`] when there is no such session.
    pub fn give_credentials(
        &mut self,
        session: SessionId,
        credentials: DigestClient,
    ) -> Result<(), Gone> {
        let state = self.sessions.get_mut(&session).ok_or(Gone)?;
        state.credentials = Some(credentials);
        Ok(())
    }

    /// What the peer of a session says that it can do.
    pub fn peer_of(&self, session: SessionId) -> Option<PeerAbilities> {
        self.sessions.get(&session).map(|state| state.peer)
    }

    /// Sends a request in a session's dialog, numbered as it goes out.
    pub(super) fn ask(
        &mut self,
        now: Now,
        session: SessionId,
        purpose: Purpose,
        method: Method,
        (headers, body): Content,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get(&session) else { return };
        let (dialog, credentials) = (state.dialog.clone(), state.credentials.clone());
        let mut draft = Draft::inside(&dialog, method, UNNUMBERED);
        draft.own_contact = state.own_contact.clone();
        if matches!(draft.method, Method::Invite | Method::Update) {
            draft.timer = state.timer.asks();
        }
        draft.headers = headers;
        draft.body = body;
        self.begin_inside(now, purpose, draft, &dialog, credentials, out);
    }

    /// The final answer to a request of the call layer's.
    pub(super) fn on_request_answered(
        &mut self,
        now: Now,
        (session, request): (SessionId, RequestId),
        method: &Method,
        last: Final,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.asked = state.asked.saturating_sub(1);
        let Final { code, reason, .. } = last;
        out.push(UaOutput::Event(UaEvent::RequestAnswered { session, request, code, reason }));
        let is_fatal = match method {
            Method::Update => matches!(code, 408 | 481),
            Method::Info => code == 481,
            _ => false,
        };
        if is_fatal {
            self.end_dead(now, session, code, out);
        }
    }

    /// The peer knows nothing of the dialog, or is silent (§12.2.1.2): the session ends as by its BYE;
    /// ours goes out for the case that it lives after all.
    pub(super) fn end_dead(
        &mut self,
        now: Now,
        session: SessionId,
        code: u16,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        if state.stage != Stage::Established {
            return;
        }
        let (mut dialog, credentials) = (state.dialog.clone(), state.credentials.clone());
        self.end_reoffer(now, session, out);
        self.end_referring(session, out);
        self.remove_session(session);
        let reason = format!("SIP;cause={code}");
        let cseq = dialog.next_cseq();
        dialog.sent(cseq);
        let mut draft = Draft::inside(&dialog, Method::Bye, cseq);
        draft.headers.push(("Reason".to_owned(), reason.clone()));
        self.begin_inside(now, Purpose::Farewell, draft, &dialog, credentials, out);
        out.push(UaOutput::Event(UaEvent::Ended { session, reason: Some(reason) }));
    }

    /// Sends our BYE; no 2xx is repeated from here on.
    pub(super) fn send_bye(
        &mut self,
        now: Now,
        session: SessionId,
        reason: Option<&str>,
        out: &mut Vec<UaOutput>,
    ) {
        self.give_up_offering(now, session, out);
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.stage = Stage::Left;
        let forgotten = state.forget_answers();
        self.settle_session(session);
        for token in forgotten {
            self.forget_answer(token);
        }
        let reason = reason.filter(|reason| !reason.contains(['\r', '\n', '\0']));
        let headers = reason.map(|reason| ("Reason".to_owned(), reason.to_owned()));
        let content = (headers.into_iter().collect(), None);
        self.ask(now, session, Purpose::Bye(session), Method::Bye, content, out);
    }
}

/// Headers, and content type with body.
type Content = (Vec<(String, String)>, Option<(String, Bytes)>);
