//! The verbs of the call layer: ring, accept, refuse, answer, reject, respond, bye. Each is an
//! `Err(Gone)` without any effect when the session or the request is no longer in a state for it:
//! the peer may have been faster.

use super::reply::{Extra, Part};
use super::table::{Pending, ServerMachine};
use super::{Gone, RequestToken, SessionId, UaOutput, UserAgent};
use crate::ground::{Flow, Now};
use crate::sip::msg::{Method, Name, Request};
use crate::sip::session::Stage;
use crate::sip::status::StatusLine;
use bytes::Bytes;

impl UserAgent {
    /// Sends a provisional answer, 101 to 199; any other code is an error of the caller.
    pub fn ring(
        &mut self,
        now: Now,
        session: SessionId,
        code: u16,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        debug_assert!((101..200).contains(&code), "a provisional that makes a dialog");
        let token = self.early(session)?;
        let Pending { request, flow, local_tag: tag } = self.pending(token).ok_or(Gone)?;
        if request.has_option(Name::Require, "100rel") {
            return self.ring_reliably(now, (session, token), code.clamp(101, 199), out);
        }
        let status = StatusLine::of(code.clamp(101, 199));
        let builder = self.answer_to((&request, &flow), &status, &tag, Part::Contact, &[]);
        let bytes = self.seal(builder);
        let record = self.transactions.server_mut(token).ok_or(Gone)?;
        let mut effects = Vec::new();
        if let ServerMachine::Invite(machine) = &mut record.machine {
            machine.provisional(bytes, &mut effects);
        }
        self.carry_out(token, effects, out);
        Ok(())
    }

    /// Answers the call with 200, which is repeated until its ACK comes. The body is the answer to
    /// the INVITE's offer, or our offer when it had none.
    pub fn accept(
        &mut self,
        now: Now,
        session: SessionId,
        headers: &[(&str, &str)],
        body: Option<(&str, &[u8])>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let token = self.early(session)?;
        self.succeed_invite(now, session, token, headers, body, out)?;
        if let Some(state) = self.sessions.get(&session) {
            self.transactions.end_early(state.source);
        }
        Ok(())
    }

    /// Ends the call before its answer with 300 to 699; the session is gone.
    pub fn refuse(
        &mut self,
        now: Now,
        session: SessionId,
        status: &StatusLine,
        headers: &[(&str, &str)],
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        debug_assert!((300..700).contains(&status.code), "a refusal");
        let token = self.early(session)?;
        self.finish_request(now, token, status, headers, None, out);
        self.remove_session(session);
        Ok(())
    }

    /// Accepts a re-INVITE or UPDATE.
    pub fn answer(
        &mut self,
        now: Now,
        token: RequestToken,
        body: Option<(&str, &[u8])>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let session = self.reoffered(token)?;
        let request = self.pending(token).ok_or(Gone)?.request;
        if *request.method() == Method::Invite {
            self.succeed_invite(now, session, token, &[], body, out)?;
        } else {
            let timer = self.take_refresh(now, session, &request, body);
            let timer: Vec<(&str, &str)> = timer.iter().map(|(n, v)| (*n, v.as_str())).collect();
            self.finish_request(now, token, &StatusLine::of(200), &timer, body, out);
        }
        match self.sessions.get_mut(&session) {
            Some(state) => {
                state.reoffer = None;
                state.dialog.refresh_target(&request);
            }
            None => {
                let description = body.map(|(_, text)| Bytes::copy_from_slice(text));
                self.close_early_offer(session, token, Some((&request, description)));
            }
        }
        Ok(())
    }

    /// Refuses a re-INVITE or UPDATE with 300 to 699: everything stays as it was (RFC 6141).
    pub fn reject(
        &mut self,
        now: Now,
        token: RequestToken,
        status: &StatusLine,
        headers: &[(&str, &str)],
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        debug_assert!((300..700).contains(&status.code), "a refusal");
        let session = self.reoffered(token)?;
        self.finish_request(now, token, status, headers, None, out);
        match self.sessions.get_mut(&session) {
            Some(state) => state.reoffer = None,
            None => self.close_early_offer(session, token, None),
        }
        Ok(())
    }

    /// Answers an INFO, REFER, NOTIFY or MESSAGE with 200 to 699.
    pub fn respond(
        &mut self,
        now: Now,
        token: RequestToken,
        status: &StatusLine,
        headers: &[(&str, &str)],
        body: Option<(&str, &[u8])>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        debug_assert!((200..700).contains(&status.code), "a final answer");
        let record = self.transactions.server(token).ok_or(Gone)?;
        match &record.machine {
            ServerMachine::Other(machine) if machine.is_open() => {}
            ServerMachine::Other(_) | ServerMachine::Invite(_) => return Err(Gone),
        }
        if self.reoffered(token).is_ok() {
            return Err(Gone);
        }
        self.finish_request(now, token, status, headers, body, out);
        Ok(())
    }

    /// Ends an answered call. Before the ACK of our 2xx the BYE waits for it, or for the time-out
    /// (RFC 3261 §15). `reason` is a whole Reason value (RFC 3326).
    pub fn bye(
        &mut self,
        now: Now,
        session: SessionId,
        reason: Option<&str>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let state = self.sessions.get_mut(&session).ok_or(Gone)?;
        match state.stage {
            Stage::Established => {}
            Stage::Early | Stage::Leaving { .. } | Stage::Left => return Err(Gone),
        }
        let waits = state.awaits_first_ack();
        if waits {
            state.stage = Stage::Leaving { reason: reason.map(String::from) };
        }
        self.end_reoffer(now, session, out);
        if !waits {
            self.send_bye(now, session, reason, out);
        }
        Ok(())
    }

    /// 200 to an INVITE, in or outside a dialog; the session repeats it until the ACK.
    fn succeed_invite(
        &mut self,
        now: Now,
        session: SessionId,
        token: RequestToken,
        headers: Extra<'_>,
        body: Option<(&str, &[u8])>,
        out: &mut Vec<UaOutput>,
    ) -> Result<(), Gone> {
        let Pending { request, flow, local_tag: tag } = self.pending(token).ok_or(Gone)?;
        let ok = StatusLine::of(200);
        let mut builder = self.answer_to((&request, &flow), &ok, &tag, Part::Contact, headers);
        for (name, value) in self.take_refresh(now, session, &request, body) {
            builder = builder.header(name, &value);
        }
        if let Some((content_type, body)) = body {
            builder = builder.body(content_type, body);
        }
        let bytes = self.seal(builder);
        let offers = body.is_some() && request.body().is_empty();
        let sent = (token, request.cseq().number, flow, bytes.clone());
        self.note_success(now, session, sent, offers);
        let record = self.transactions.server_mut(token).ok_or(Gone)?;
        let mut effects = Vec::new();
        if let ServerMachine::Invite(machine) = &mut record.machine {
            machine.success(now.at, bytes, &mut effects);
        }
        self.carry_out(token, effects, out);
        Ok(())
    }

    /// A 2xx of ours to an INVITE or UPDATE sets the session timer; gives what it says of it. A
    /// description in it is the one that holds.
    fn take_refresh(
        &mut self,
        now: Now,
        session: SessionId,
        request: &Request,
        body: Option<(&str, &[u8])>,
    ) -> Vec<(&'static str, String)> {
        let Some(state) = self.sessions.get_mut(&session) else { return Vec::new() };
        if let Some((_, description)) = body {
            state.description = Some(Bytes::copy_from_slice(description));
        }
        let headers = state.timer.answer(now.at, request);
        self.settle_session(session);
        headers
    }

    fn note_success(
        &mut self,
        now: Now,
        session: SessionId,
        sent: (RequestToken, u32, Flow, Bytes),
        offers: bool,
    ) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.handle_success_sent(now.at, &self.config.timing, sent, offers);
        }
        self.settle_session(session);
    }

    /// The INVITE's transaction while the session is not answered.
    fn early(&self, session: SessionId) -> Result<RequestToken, Gone> {
        let state = self.sessions.get(&session).ok_or(Gone)?;
        state.invite.filter(|_| state.stage == Stage::Early).ok_or(Gone)
    }

    /// The session in which this re-INVITE or UPDATE is open.
    fn reoffered(&mut self, token: RequestToken) -> Result<SessionId, Gone> {
        let session = self.transactions.server(token).ok_or(Gone)?.session;
        let is_open = match self.sessions.get(&session) {
            Some(state) => state.reoffer == Some(token),
            None => self.early_offer(session, token).is_some(),
        };
        if is_open { Ok(session) } else { Err(Gone) }
    }
}
