//! What speaks for or against both directions of one leg: two seconds after the leg is up by a new
//! offer/answer it says whether media flows, and if not, what came instead. It judges by packets,
//! not by loudness: a muted peer that sends silence is heard.
//!
//! | came until then | verdict |
//! |---|---|
//! | one RTP packet that is the peer's | none |
//! | packets that SRTP did not verify | `Unverified` |
//! | RTP of the peer with a number that was not agreed | `WrongPayload` |
//! | packets from elsewhere, refused | `FromElsewhere` |
//! | RTCP of the peer | `OnlyControl` |
//! | nothing | `NothingCame` |
//!
//! Of the way out only the peer can tell, by its RTCP: a report that knows nothing of our packets
//! (RFC 3550 §6.4: every source heard since the last report has a block) is `NothingArrived`.

use super::plan::OneWay;
use crate::ground::Instant;
use crate::ground::limits::ONE_WAY_VERDICT;
use std::net::SocketAddr;

/// Our packets that must have left before a peer is believed that hears none of them.
const SENT_MIN: u64 = 50;

/// The evidence of one leg since its last offer/answer.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Both ways are meant to be open since then.
    since: Option<Instant>,
    judged: bool,
    deaf_told: bool,
    heard: bool,
    control: bool,
    unverified: bool,
    elsewhere: Option<SocketAddr>,
    payload_type: Option<u8>,
}

impl Witness {
    /// Media is to flow both ways from now on. What came since the last rest counts.
    pub(super) fn watch(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// What was seen counts no more, and media need not flow.
    pub(super) fn rest(&mut self) {
        *self = Witness::default();
    }

    pub(super) fn on_heard(&mut self) {
        self.heard = true;
    }

    pub(super) fn on_control(&mut self) {
        self.control = true;
    }

    pub(super) fn on_unverified(&mut self) {
        self.unverified = true;
    }

    pub(super) fn on_elsewhere(&mut self, source: SocketAddr) {
        self.elsewhere = Some(source);
    }

    pub(super) fn on_payload(&mut self, payload_type: u8) {
        self.payload_type = Some(payload_type);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let open = self.since.filter(|_| !self.judged && !self.heard);
        open.map(|since| since + ONE_WAY_VERDICT)
    }

    /// The verdict on what the peer sends, once, when its time has come.
    pub(super) fn judge(&mut self, now: Instant) -> Option<OneWay> {
        self.deadline().filter(|due| *due <= now)?;
        self.judged = true;
        Some(match (self.payload_type, self.elsewhere) {
            _ if self.unverified => OneWay::Unverified,
            (Some(payload_type), _) => OneWay::WrongPayload { payload_type },
            (None, Some(source)) => OneWay::FromElsewhere { source },
            (None, None) if self.control => OneWay::OnlyControl,
            (None, None) => OneWay::NothingCame,
        })
    }

    /// A report of the peer came; `knows_us`: some report of it told of our packets, of which
    /// `sent` have left. The verdict on what we send, once.
    pub(super) fn weigh_report(
        &mut self,
        now: Instant,
        knows_us: bool,
        sent: u64,
    ) -> Option<OneWay> {
        self.since.filter(|since| *since + ONE_WAY_VERDICT <= now)?;
        if knows_us || self.deaf_told || sent < SENT_MIN {
            return None;
        }
        self.deaf_told = true;
        Some(OneWay::NothingArrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    const ELSEWHERE: &str = "198.51.100.66:4000";

    /// What was seen, and the verdict on it.
    #[test]
    fn the_verdict_names_the_nearest_of_what_came() {
        let source = ELSEWHERE.parse().expect("an address");
        for (seen, verdict) in [
            ("", Some(OneWay::NothingCame)),
            ("control", Some(OneWay::OnlyControl)),
            ("control elsewhere", Some(OneWay::FromElsewhere { source })),
            ("elsewhere payload control", Some(OneWay::WrongPayload { payload_type: 18 })),
            ("payload unverified", Some(OneWay::Unverified)),
            ("unverified payload elsewhere control heard", None),
        ] {
            let mut witness = Witness::default();
            witness.on_heard();
            witness.rest();
            witness.watch(at(500));
            for word in seen.split_whitespace() {
                match word {
                    "control" => witness.on_control(),
                    "elsewhere" => witness.on_elsewhere(source),
                    "payload" => witness.on_payload(18),
                    "unverified" => witness.on_unverified(),
                    _ => witness.on_heard(),
                }
            }
            assert_eq!(witness.judge(at(2_499)), None, "{seen}: too early");
            assert_eq!(witness.judge(at(2_500)), verdict, "{seen}");
            assert_eq!(witness.judge(at(9_000)), None, "{seen}: once");
            assert_eq!(witness.deadline(), None, "{seen}");
        }
    }

    #[test]
    fn nothing_is_judged_before_it_is_watched_and_on_hold() {
        let mut witness = Witness::default();
        assert_eq!((witness.deadline(), witness.judge(at(9_000))), (None, None));
        witness.watch(at(0));
        witness.rest();
        assert_eq!((witness.deadline(), witness.judge(at(9_000))), (None, None));
        assert_eq!(witness.weigh_report(at(9_000), false, 500), None);
    }

    #[test]
    fn a_peer_that_reports_nothing_of_us_is_believed_once_and_not_too_early() {
        for (ms, knows_us, sent, deaf) in [
            (1_999, false, 500, false),
            (2_000, false, 49, false),
            (2_000, true, 500, false),
            (2_000, false, 50, true),
        ] {
            let mut witness = Witness::default();
            witness.watch(at(0));
            let verdict = witness.weigh_report(at(ms), knows_us, sent);
            assert_eq!(verdict, deaf.then_some(OneWay::NothingArrived), "{ms} {knows_us} {sent}");
            let more = witness.weigh_report(at(9_000), false, 500);
            assert_eq!(more.is_some(), !deaf, "once");
        }
    }
}
