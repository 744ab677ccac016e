//! An INVITE session (RFC 3261 §13.3, §14.2, §15): the stage of the call, the 2xx answers of ours
//! that wait for their ACK, and the one offer that may be open. It repeats a 2xx itself, at T1,
//! 2 × T1, … T2, on every transport, since each hop may be another. It never writes a message. One
//! that we began exists from its first 2xx on; what comes before that is the dial's. Our own requests
//! in it are leaf machines beside it: [`Offering`], [`Referring`], [`SessionTimer`], [`Reliable`].

use super::dialog::Dialog;
use super::digest::DigestClient;
use super::offering::Offering;
use super::peer::PeerAbilities;
use super::refer::{ReferEffect, Referring};
use super::reliable::{Reliable, ReliableEffect};
use super::session_timer::{SessionTimer, TimerEffect};
use super::transaction::Timing;
use super::ua::{OwnContact, RequestToken};
use crate::ground::{Flow, Instant};
use bytes::Bytes;
use std::net::IpAddr;
use std::time::Duration;

/// How many 2xx of one session may wait for their ACK at once.
const UNACKNOWLEDGED_MAX: usize = 4;

/// One call leg.
#[derive(Debug)]
pub struct InviteSession {
    pub(super) dialog: Dialog,
    pub(super) stage: Stage,
    /// The transaction of the peer's INVITE that began it; `None` when it was ours.
    pub(super) invite: Option<RequestToken>,
    /// What answers a challenge to our requests in the dialog.
    pub(super) credentials: Option<DigestClient>,
    /// A re-INVITE or UPDATE that the call has not answered yet.
    pub(super) reoffer: Option<RequestToken>,
    /// The re-INVITE of ours.
    pub(super) offering: Offering,
    /// The last REFER of ours.
    pub(super) referring: Option<Referring>,
    /// Its header lines, while it waits for the ACK of our first 2xx.
    pub(super) referral_waits: Option<Vec<(String, String)>>,
    /// When it is to be refreshed, and when it is over without that.
    pub(super) timer: SessionTimer,
    /// Provisional answers of ours that want a PRACK.
    pub(super) reliable: Option<Reliable>,
    /// The last description of ours that holds: what a refresh by re-INVITE repeats.
    pub(super) description: Option<Bytes>,
    /// What the peer says that it can do.
    pub(super) peer: PeerAbilities,
    /// What our Contact says in every request of this dialog.
    pub(super) own_contact: OwnContact,
    /// Requests of the call layer's that have no final answer yet.
    pub(super) asked: usize,
    /// Where the peer's INVITE came from: its caps count this session while it is early.
    pub(super) source: IpAddr,
    unacknowledged: Vec<Unacknowledged>,
}

/// How far the call is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// No final answer yet.
    Early,
    /// Answered with 2xx.
    Established,
    /// `bye` was asked for before the ACK came (§15): it goes out at the ACK or when none comes.
    Leaving { reason: Option<String> },
    /// Our BYE is out.
    Left,
}

/// A 2xx without its ACK.
#[derive(Debug)]
struct Unacknowledged {
    request: RequestToken,
    cseq: u32,
    answer: Bytes,
    flow: Flow,
    interval: Duration,
    next: Instant,
    until: Instant,
    first: bool,
    offers: bool,
}

/// What kind of 2xx was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acknowledged {
    /// That of the INVITE that began the session.
    First,
    /// That of a re-INVITE.
    Reoffer,
}

/// What a due timer of the session asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionEffect {
    /// The 2xx again.
    Repeat {
        flow: Flow,
        answer: Bytes,
    },
    /// 64 × T1 without an ACK.
    NeverAcked,
    /// The re-INVITE of ours goes out again.
    OfferAgain,
    Refer(ReferEffect),
    Timer(TimerEffect),
    Reliable(ReliableEffect),
}

impl InviteSession {
    pub fn new(dialog: Dialog, invite: RequestToken) -> InviteSession {
        InviteSession::at(Stage::Early, dialog, Some(invite), None)
    }

    /// The session of an INVITE of ours that was answered with 2xx.
    pub fn answered(dialog: Dialog, credentials: Option<DigestClient>) -> InviteSession {
        InviteSession::at(Stage::Established, dialog, None, credentials)
    }

    fn at(
        stage: Stage,
        dialog: Dialog,
        invite: Option<RequestToken>,
        credentials: Option<DigestClient>,
    ) -> InviteSession {
        let source = dialog.flow().peer.ip();
        InviteSession {
            dialog,
            stage,
            invite,
            credentials,
            reoffer: None,
            offering: Offering::Idle,
            referring: None,
            referral_waits: None,
            timer: SessionTimer::new(Duration::ZERO),
            reliable: None,
            description: None,
            peer: PeerAbilities::default(),
            own_contact: OwnContact::default(),
            asked: 0,
            source,
            unacknowledged: Vec::new(),
        }
    }

    /// A 2xx to the INVITE with this CSeq went out; `offers` when its body is an offer of ours.
    pub fn handle_success_sent(
        &mut self,
        now: Instant,
        timing: &Timing,
        (request, cseq, flow, answer): (RequestToken, u32, Flow, Bytes),
        offers: bool,
    ) {
        let first = self.stage == Stage::Early;
        if first {
            self.stage = Stage::Established;
            if let Some(reliable) = &mut self.reliable {
                reliable.finish();
            }
        }
        self.unacknowledged.push(Unacknowledged {
            request,
            cseq,
            answer,
            flow,
            interval: timing.t1,
            next: now + timing.t1,
            until: now + timing.life(),
            first,
            offers,
        });
    }

    /// An ACK of this dialog came: which INVITE it is for. `None` when no 2xx waits: a copy.
    pub fn handle_ack(&mut self, cseq: u32) -> Option<(Acknowledged, RequestToken)> {
        let index = self.unacknowledged.iter().position(|waiting| waiting.cseq == cseq)?;
        let waiting = self.unacknowledged.remove(index);
        if self.unacknowledged.is_empty() {
            // Few calls ever have another one.
            self.unacknowledged = Vec::new();
        }
        let kind = if waiting.first { Acknowledged::First } else { Acknowledged::Reoffer };
        Some((kind, waiting.request))
    }

    /// Lets everything act whose time has come.
    pub fn handle_timeout(&mut self, now: Instant, timing: &Timing, out: &mut Vec<SessionEffect>) {
        self.repeat_answers(now, timing, out);
        if self.offering.next_deadline().is_some_and(|until| until <= now) {
            match &self.offering {
                Offering::Waiting { .. } => out.push(SessionEffect::OfferAgain),
                // Nobody answered the peer's offer, and it waits no more.
                Offering::Owed { .. } => self.offering = Offering::Idle,
                Offering::Idle | Offering::Asked(_) => {}
            }
        }
        if let Some(referring) = &mut self.referring {
            let mut effects = Vec::new();
            referring.handle_timeout(now, &mut effects);
            out.extend(effects.into_iter().map(SessionEffect::Refer));
        }
        if let Some(reliable) = &mut self.reliable {
            let mut effects = Vec::new();
            reliable.handle_timeout(now, timing, &mut effects);
            out.extend(effects.into_iter().map(SessionEffect::Reliable));
        }
        let mut effects = Vec::new();
        self.timer.handle_timeout(now, &mut effects);
        out.extend(effects.into_iter().map(SessionEffect::Timer));
    }

    /// Repeats each due 2xx, gives up those that are too old.
    fn repeat_answers(&mut self, now: Instant, timing: &Timing, out: &mut Vec<SessionEffect>) {
        self.unacknowledged.retain_mut(|waiting| {
            if waiting.until <= now {
                out.push(SessionEffect::NeverAcked);
                return false;
            }
            if waiting.next <= now {
                let (flow, answer) = (waiting.flow, waiting.answer.clone());
                out.push(SessionEffect::Repeat { flow, answer });
                waiting.interval = timing.next_interval(waiting.interval);
                waiting.next = now + waiting.interval;
            }
            true
        });
    }

    /// The earliest deadline of all that it waits for.
    pub fn next_deadline(&self) -> Option<Instant> {
        let answers = self.unacknowledged.iter().map(|waiting| waiting.next.min(waiting.until));
        let referring = self.referring.as_ref().and_then(Referring::next_deadline);
        let reliable = self.reliable.as_ref().and_then(Reliable::next_deadline);
        let others = [self.offering.next_deadline(), self.timer.next_deadline()];
        answers.chain(others.into_iter().flatten()).chain(referring).chain(reliable).min()
    }

    /// True while no re-INVITE of ours may begin: an INVITE or an offer is under way in either
    /// direction (§14.1).
    pub fn is_negotiating(&self) -> bool {
        self.reoffer.is_some() || !self.unacknowledged.is_empty() || self.offering.is_open()
    }

    /// True while the ACK of the first 2xx is awaited: our BYE must wait (§15).
    pub fn awaits_first_ack(&self) -> bool {
        self.unacknowledged.iter().any(|waiting| waiting.first)
    }

    /// True while an offer of ours has no answer, or a re-INVITE of ours none: a re-INVITE or UPDATE
    /// of the peer's crosses it (§14.2).
    pub fn has_own_offer_open(&self) -> bool {
        self.offering.is_open() || self.unacknowledged.iter().any(|waiting| waiting.offers)
    }

    /// True when no further 2xx may be begun before an ACK comes.
    pub fn is_crowded(&self) -> bool {
        self.unacknowledged.len() >= UNACKNOWLEDGED_MAX
    }

    /// The session ends: nothing is repeated any more. Gives the INVITEs whose 2xx was not
    /// acknowledged.
    pub fn forget_answers(&mut self) -> Vec<RequestToken> {
        std::mem::take(&mut self.unacknowledged).iter().map(|waiting| waiting.request).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{flow, parse_request};
    use super::*;

    fn ms(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn answered() -> InviteSession {
        let invite = parse_request(
            "INVITE sip:u@h SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@h>;tag=1\n\
             To: <sip:u@h>\nCall-ID: c\nCSeq: 5 INVITE\nContent-Length: 0\n\n",
        );
        let dialog = Dialog::answering(&invite, flow("192.0.2.1:5060"), "t".into());
        let mut session = InviteSession::new(dialog, RequestToken(1));
        let sent = (RequestToken(1), 5, flow("192.0.2.1:5060"), Bytes::from_static(b"200"));
        session.handle_success_sent(ms(0), &Timing::default(), sent, true);
        session
    }

    #[test]
    fn the_2xx_goes_out_eleven_times_in_all_and_is_given_up_at_32_s() {
        let mut session = answered();
        let (mut repeats, mut given_up) = (Vec::new(), Vec::new());
        while let Some(deadline) = session.next_deadline() {
            let mut out = Vec::new();
            session.handle_timeout(deadline, &Timing::default(), &mut out);
            let millis = deadline.as_nanos() / 1_000_000;
            for effect in out {
                match effect {
                    SessionEffect::Repeat { .. } => repeats.push(millis),
                    SessionEffect::NeverAcked => given_up.push(millis),
                    other => panic!("nothing else was asked: {other:?}"),
                }
            }
        }
        let times = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        assert_eq!((repeats, given_up), (times.to_vec(), vec![32_000]));
    }

    #[test]
    fn only_the_ack_of_its_cseq_stops_it_and_only_once() {
        let mut session = answered();
        assert!(session.awaits_first_ack() && session.has_own_offer_open());
        assert_eq!(session.handle_ack(4), None);
        assert_eq!(session.handle_ack(5), Some((Acknowledged::First, RequestToken(1))));
        assert_eq!(session.handle_ack(5), None);
        assert_eq!(session.next_deadline(), None);
        let sent = (RequestToken(2), 6, flow("192.0.2.1:5060"), Bytes::new());
        session.handle_success_sent(ms(9), &Timing::default(), sent, false);
        assert!(!session.awaits_first_ack() && !session.has_own_offer_open());
        assert_eq!(session.handle_ack(6), Some((Acknowledged::Reoffer, RequestToken(2))));
    }
}
