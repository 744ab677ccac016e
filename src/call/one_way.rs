//! Media that flows one way only, in words: who sends nothing, and the likeliest cause. The verdict
//! itself is the media's, by its packets; here it meets what signalling knows: the addresses of
//! both descriptions. It ends no call.

use super::ladder::Lane;
use super::leg::Leg;
use super::{Act, Call, State};
use crate::ground::{LegId, Now};
use crate::media::plan::OneWay;
use crate::sip::dialog::is_private;
use std::net::IpAddr;

/// Verdicts that a record keeps.
const VERDICTS_MAX: usize = 8;

impl Call {
    /// One direction of a leg carries nothing: the ladder and the record tell it.
    pub fn on_one_way(&mut self, now: Now, id: LegId, verdict: OneWay, out: &mut Vec<Act>) {
        let (leg, who) = if self.first.id == id {
            (&self.first, self.far_end())
        } else {
            let Some(second) = self.second.as_ref().filter(|second| second.leg.id == id) else {
                return;
            };
            (&second.leg, "target")
        };
        let unanswered =
            self.first.id == id && matches!(self.state, State::Answered { acked: false });
        let words = words(verdict, who, &Known { unanswered, ..Known::of(leg) });
        self.note(now, Lane::Media, format!("one way: {words}"));
        if !self.is_ending() && self.cdr.one_way.len() < VERDICTS_MAX {
            self.cdr.one_way.push(words);
            out.push(Act::Record);
        }
    }
}

/// The addresses that both descriptions name, whence the peer's signalling comes, and whether our
/// 200 has no ACK yet.
struct Known {
    named: Option<IpAddr>,
    ours: IpAddr,
    signalling: IpAddr,
    unanswered: bool,
}

impl Known {
    fn of(leg: &Leg) -> Known {
        let remote = leg.plan.as_ref().and_then(|plan| plan.remote.rtp);
        Known {
            named: remote.map(|address| address.ip()),
            ours: leg.media_address.advertise,
            signalling: leg.flow.peer.ip().to_canonical(),
            unanswered: false,
        }
    }

    /// The peer names an address that means nothing to us.
    fn hidden(&self) -> Option<IpAddr> {
        let is_hidden = |named: &IpAddr| is_private(*named) && !is_private(self.signalling);
        self.named.filter(is_hidden)
    }

    /// We name an address that means nothing to the peer.
    fn ours_is_hidden(&self) -> bool {
        is_private(self.ours) && !is_private(self.signalling)
    }

    fn named(&self) -> String {
        self.named.map_or("no address".to_owned(), |named| named.to_string())
    }
}

/// Who sends nothing, and the likeliest cause.
fn words(verdict: OneWay, who: &str, known: &Known) -> String {
    match verdict {
        OneWay::NothingCame => format!("no RTP from the {who}: {}", cause_of_silence(known)),
        OneWay::FromElsewhere { source } => format!(
            "no RTP from the {who}: packets come from {source}, which the description (it names {}) \
             does not account for, and are refused: NAT or a relay in between",
            known.named(),
        ),
        OneWay::WrongPayload { payload_type } => format!(
            "no usable RTP from the {who}: it sends payload number {payload_type}, which was not \
             agreed: another codec than the descriptions settled",
        ),
        OneWay::OnlyControl => format!(
            "no RTP from the {who}, only RTCP: it is muted or on hold without saying so, or a \
             firewall lets only one of the two ports through",
        ),
        OneWay::Unverified => format!(
            "no usable RTP from the {who}: SRTP does not verify its packets: plain, or under \
             another key than its description has",
        ),
        OneWay::NothingArrived => {
            format!("the {who} hears nothing: its RTCP knows no packet of ours: {}", blocked(known))
        }
    }
}

fn cause_of_silence(known: &Known) -> String {
    if known.unanswered {
        return "it has not acknowledged our 200 yet, which may not reach it".to_owned();
    }
    if known.ours_is_hidden() {
        let ours = known.ours;
        return format!(
            "our description names {ours}, a private address, which it cannot reach: set \
             media.advertise",
        );
    }
    if let Some(named) = known.hidden() {
        return format!(
            "its description names {named}, a private address, and nothing came from there: NAT, \
             whose mapping may be lost, or a firewall before our media ports",
        );
    }
    let ours = known.ours;
    format!("a firewall before our media ports, or {ours}, which we name, does not lead to us")
}

fn blocked(known: &Known) -> String {
    match known.hidden() {
        Some(named) => format!("its description names {named}, a private address: NAT"),
        None => format!("a firewall or NAT before {}, which it names", known.named()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_the_side_and_the_likeliest_cause() {
        let source = "198.51.100.9:4000".parse().expect("an address");
        for (verdict, named, ours, expected) in [
            (
                OneWay::NothingCame,
                "10.0.0.5",
                "198.51.100.1",
                ["no RTP from the caller", "10.0.0.5, a private address"],
            ),
            (
                OneWay::NothingCame,
                "203.0.113.9",
                "192.168.1.2",
                ["192.168.1.2, a private", "media.advertise"],
            ),
            (
                OneWay::NothingCame,
                "203.0.113.9",
                "198.51.100.1",
                ["a firewall before our", "198.51.100.1, which we name"],
            ),
            (
                OneWay::FromElsewhere { source },
                "203.0.113.9",
                "198.51.100.1",
                ["from 198.51.100.9:4000", "names 203.0.113.9"],
            ),
            (
                OneWay::WrongPayload { payload_type: 18 },
                "203.0.113.9",
                "198.51.100.1",
                ["number 18", "another codec"],
            ),
            (OneWay::OnlyControl, "203.0.113.9", "198.51.100.1", ["only RTCP", "muted"]),
            (OneWay::Unverified, "203.0.113.9", "198.51.100.1", ["SRTP", "another key"]),
            (
                OneWay::NothingArrived,
                "10.0.0.5",
                "198.51.100.1",
                ["the caller hears nothing", "10.0.0.5, a private"],
            ),
            (
                OneWay::NothingArrived,
                "203.0.113.9",
                "198.51.100.1",
                ["RTCP", "NAT before 203.0.113.9"],
            ),
        ] {
            let address = |text: &str| text.parse::<IpAddr>().expect("an address");
            let (named, ours) = (Some(address(named)), address(ours));
            let signalling = address("203.0.113.9");
            let mut known = Known { named, ours, signalling, unanswered: false };
            let told = words(verdict, "caller", &known);
            assert!(expected.iter().all(|part| told.contains(part)), "{told}");
            known.unanswered = true;
            let lost = words(verdict, "caller", &known).contains("not acknowledged our 200");
            assert_eq!(lost, verdict == OneWay::NothingCame);
        }
    }
}
