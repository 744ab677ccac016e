//! Who hears of the end of a request of ours, and how a fault is told.

use super::errand::{Answer, ErrandId, Phase, Purpose, Step};
use super::event::DialFault;
use super::table::ClientMachine;
use super::{ByeOutcome, UaEvent, UaOutput, UserAgent};
use crate::ground::Now;
use crate::sip::msg::Response;
use crate::sip::session::Stage;
use crate::sip::status::StatusLine;

impl UserAgent {
    /// No way is left. An INVITE that was abandoned in silence is taken up again while it may still
    /// be answered, unless another body went out since: an answer to it would be read as one to that.
    /// Else the request has failed.
    pub(super) fn give_up(
        &mut self,
        now: Now,
        id: ErrandId,
        fault: DialFault,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        if let Some(answer) = errand.unavailable.take() {
            return self.report(now, id, *answer, out);
        }
        let silent = errand.attempts.iter().rev().find(|attempt| {
            let is_silent = !attempt.heard && !attempt.cancelled;
            is_silent && !errand.is_current(attempt.number) && attempt.body == errand.draft.body
        });
        let silent = silent.map(|attempt| attempt.number);
        if let Some(number) = silent
            && matches!(errand.phase(), Some(Phase::Calling))
            && self.transactions.client_mut(number).is_some()
        {
            errand.step = Step::Trying { number };
            return self.on_client(now, number, out, |client, _| {
                if let ClientMachine::Invite(invite) = client {
                    invite.resumed(now.at);
                }
            });
        }
        self.fail(now, id, fault, out);
    }

    /// A challenge that cannot be answered: the request has failed for this, whatever else is left.
    pub(super) fn give_up_for(
        &mut self,
        now: Now,
        id: ErrandId,
        fault: DialFault,
        answer: Answer,
        out: &mut Vec<UaOutput>,
    ) {
        match self.errands.get(id).map(|errand| &errand.purpose) {
            Some(Purpose::Dial(_) | Purpose::Send(_)) => self.fail(now, id, fault, out),
            _ => self.report(now, id, answer, out),
        }
    }

    fn fail(&mut self, now: Now, id: ErrandId, fault: DialFault, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.step = Step::Over;
        errand.deadline = None;
        let outcome = match &fault {
            DialFault::TimedOut => ByeOutcome::TimedOut,
            _ => ByeOutcome::FlowLost,
        };
        let last = Final::of_fault(&fault);
        match &errand.purpose {
            Purpose::Dial(_) => self.end_dial(now, id, Ending::Failed(fault), out),
            Purpose::Send(request) => {
                let request = *request;
                out.push(UaOutput::Event(UaEvent::RequestFailed { request, fault }));
            }
            Purpose::Bye(session) => {
                let session = *session;
                self.close(session, outcome, out);
            }
            Purpose::Inside { .. }
            | Purpose::Reoffer { .. }
            | Purpose::Refer(_)
            | Purpose::Refresh(_) => self.report_inside(now, id, last, out),
            Purpose::Ack { .. } | Purpose::Farewell | Purpose::Prack { .. } => {}
        }
        self.settle_errand(id);
    }

    /// The final answer of a request, for whoever asked.
    pub(super) fn report(
        &mut self,
        now: Now,
        id: ErrandId,
        answer: Answer,
        out: &mut Vec<UaOutput>,
    ) {
        let Some(errand) = self.errands.get_mut(id) else { return };
        errand.step = Step::Over;
        errand.deadline = None;
        match &errand.purpose {
            Purpose::Dial(_) => self.end_dial(now, id, Ending::Refused(answer.response), out),
            Purpose::Send(request) => {
                let (request, credentials) = (*request, errand.credentials.clone().map(Box::new));
                let Answer { response, flow, hop } = answer;
                let response = Box::new(response);
                out.push(UaOutput::Event(UaEvent::Responded {
                    request,
                    response,
                    flow,
                    hop,
                    credentials,
                }));
            }
            Purpose::Bye(session) => {
                let (session, code) = (*session, answer.response.code());
                self.close(session, ByeOutcome::Answered(code), out);
            }
            Purpose::Inside { .. }
            | Purpose::Reoffer { .. }
            | Purpose::Refer(_)
            | Purpose::Refresh(_) => {
                self.report_inside(now, id, Final::of(answer.response), out);
            }
            Purpose::Ack { .. } | Purpose::Farewell | Purpose::Prack { .. } => {}
        }
        self.settle_errand(id);
    }

    /// The end of a request in a dialog. When the session is gone, or we said goodbye, nobody asks any
    /// more.
    fn report_inside(&mut self, now: Now, id: ErrandId, last: Final, out: &mut Vec<UaOutput>) {
        let Some(errand) = self.errands.get(id) else { return };
        let Some(session) = errand.purpose.session() else { return };
        let Some(state) = self.sessions.get_mut(&session) else { return };
        if state.stage != Stage::Established {
            return;
        }
        if errand.credentials.is_some() {
            // With the nonces that it learned.
            state.credentials.clone_from(&errand.credentials);
        }
        match &errand.purpose {
            Purpose::Inside { request, .. } => {
                let (request, method) = (*request, errand.draft.method.clone());
                self.on_request_answered(now, (session, request), &method, last, out);
            }
            Purpose::Reoffer { .. } => self.on_reoffer_refused(now, session, last, out),
            Purpose::Refer(_) => self.on_refer_answered(now, session, &last, out),
            Purpose::Refresh(_) => self.on_refreshed(now, session, &last, out),
            Purpose::Dial(_)
            | Purpose::Send(_)
            | Purpose::Bye(_)
            | Purpose::Farewell
            | Purpose::Prack { .. }
            | Purpose::Ack { .. } => {}
        }
    }
}

/// How a request in a dialog ended: what its peer said, or what the RFC lets us think it had said.
#[derive(Debug)]
pub(super) struct Final {
    pub(super) code: u16,
    pub(super) reason: String,
    /// `None` when nobody answered.
    pub(super) response: Option<Response>,
}

impl Final {
    pub(super) fn of(response: Response) -> Final {
        let (code, reason) = (response.code(), response.reason().to_owned());
        Final { code, reason, response: Some(response) }
    }

    /// §8.1.3.1: silence is a 408, no way a 503. What cannot be written is the asker's fault.
    fn of_fault(fault: &DialFault) -> Final {
        let code = match fault {
            DialFault::TimedOut => 408,
            DialFault::Unwritable | DialFault::NoBody => 400,
            DialFault::BadTarget(_)
            | DialFault::NotLocated(_)
            | DialFault::NotConnected(_)
            | DialFault::FlowLost
            | DialFault::Digest(_) => 503,
        };
        Final { code, reason: StatusLine::of(code).reason.into_owned(), response: None }
    }
}

/// How a dial that was not answered ended.
#[derive(Debug)]
pub(super) enum Ending {
    Refused(Response),
    Failed(DialFault),
    /// Cancelled before anything was sent.
    Unsent,
}
