//! Whose packets are the caller's (security S9, S11): the source latch. The signalled address is the
//! anchor; media is sent to the source that was accepted last. It sees addresses and RTP headers,
//! never audio, and keeps no more than a few candidates.
//!
//! | source | accepted |
//! |---|---|
//! | the anchor, port and all | always; it displaces a stranger |
//! | another port of the anchor's IP | within 1 s of that IP's first packet |
//! | the signalling's IP | at once while the anchor was never heard, unless one of that IP was taken |
//! | another IP | only while the anchor was never heard, after 5 packets in sequence of one SSRC that come at the pace of speech, once for each offer |
//! | anything else | never |
//!
//! Without a signalled address the anchor is the IP of the signalling. Another IP may prove itself only
//! once the leg is live, so that nobody is there before the peer; and where the description names an
//! address that can be reached, which needs no other, a second after that.

use crate::ground::Instant;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long another port of the anchor's IP may be learned, from that IP's first packet.
pub const PORT_LEARNING: Duration = Duration::from_secs(1);
/// Packets in sequence that a stranger has to show.
pub const PROBATION_PACKETS: u8 = 5;
/// The least time that these packets take: a burst is no speech.
pub const PROBATION_SPAN: Duration = Duration::from_millis(60);
/// How long an address that can be reached is waited for.
pub const STRANGER_WAIT: Duration = Duration::from_secs(1);
/// Packets that go to an address which never answered and is not the signalling's.
pub const UNHEARD_PACKETS_MAX: u32 = 50;

/// Strangers that are looked at together; a sprayer cannot crowd the caller out of the first places.
const CANDIDATES_MAX: usize = 4;
/// A candidate that was quiet for this long makes place for another.
const CANDIDATE_IDLE: Duration = Duration::from_millis(200);
/// Packets that a candidate may lose between two.
const CANDIDATE_GAP_MAX: u16 = 3;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    in_sequence: u8,
    /// When those in sequence began, and the last of them came.
    since: Instant,
    last: Instant,
}

/// Decides which packets are the caller's and where ours go.
#[derive(Debug)]
pub struct SourceLatch {
    signalled: Option<SocketAddr>,
    signalling_source: IpAddr,
    latched: Option<SocketAddr>,
    /// The anchor's IP was heard first at this time.
    anchor_heard: Option<Instant>,
    /// The anchor was accepted last at this time.
    anchor_last: Option<Instant>,
    /// A stranger was accepted since the last offer.
    stranger_taken: bool,
    candidates: [Option<Candidate>; CANDIDATES_MAX],
    /// From when on strangers may prove themselves; `None` before the leg is live.
    strangers_from: Option<Instant>,
    sent_unheard: u32,
}

impl SourceLatch {
    pub fn new(signalled: Option<SocketAddr>, signalling_source: IpAddr) -> SourceLatch {
        SourceLatch {
            signalled: signalled.map(canonical),
            signalling_source: signalling_source.to_canonical(),
            latched: None,
            anchor_heard: None,
            anchor_last: None,
            stranger_taken: false,
            candidates: [None; CANDIDATES_MAX],
            strangers_from: None,
            sent_unheard: 0,
        }
    }

    /// The leg is live: a peer that comes from where nobody expects it may prove itself. What went out
    /// before to open the path was not meant to be answered.
    pub fn open(&mut self, now: Instant) {
        self.sent_unheard = 0;
        let wait = match self.signalled {
            Some(named) if is_reachable(named.ip()) => STRANGER_WAIT,
            Some(_) | None => Duration::ZERO,
        };
        self.strangers_from = Some(now + wait);
    }

    /// An offer/answer exchange ended: learning is open once more, unless the address is the old one
    /// and is being heard. A new address is used at once; with the old one, the source that was
    /// learned stays until another proves itself. A source at the signalling's IP stays as well when
    /// no address is named (hold), and then when another IP is (hold's end, late offer): a private
    /// one, maybe.
    pub fn reoffer(
        &mut self,
        now: Instant,
        signalled: Option<SocketAddr>,
        signalling_source: IpAddr,
    ) {
        let fresh = SourceLatch::new(signalled, signalling_source);
        let same = self.signalled == fresh.signalled;
        let near = |latched: &SocketAddr| {
            let elsewhere =
                |named: SocketAddr| self.signalled.is_none() && named.ip() != latched.ip();
            fresh.signalled.is_none_or(elsewhere) && latched.ip() == fresh.signalling_source
        };
        let latched = self.latched.filter(|latched| same || near(latched));
        let sent_unheard = if latched.is_some() { self.sent_unheard } else { 0 };
        let recent = |last: &Instant| same && now.since(*last) <= PORT_LEARNING;
        let anchor_last = self.anchor_last.filter(recent);
        let anchor_heard = self.anchor_heard.filter(|_| anchor_last.is_some());
        let is_live = self.strangers_from.is_some();
        *self = SourceLatch { latched, sent_unheard, anchor_heard, anchor_last, ..fresh };
        if is_live {
            self.open(now);
        }
    }

    /// Whether a well-formed packet of an agreed payload number, from `source`, is the caller's.
    pub fn accepts(&mut self, now: Instant, source: SocketAddr, ssrc: u32, sequence: u16) -> bool {
        let source = canonical(source);
        if source.ip() == self.anchor() {
            return self.accepts_anchor(now, source);
        }
        if self.latched == Some(source) {
            self.stranger_taken = true;
            return true;
        }
        if self.anchor_heard.is_some() {
            return false;
        }
        if self.is_signallings(source) {
            self.stranger_taken = true;
            self.latch(source);
            return true;
        }
        let may_prove = self.strangers_from.is_some_and(|from| from <= now);
        if self.stranger_taken || !may_prove || !self.proves_itself(now, source, ssrc, sequence) {
            return false;
        }
        self.stranger_taken = true;
        self.latch(source);
        true
    }

    /// Where RTP goes: the accepted source, else the signalled address, unless that would flood an
    /// address that never answered (S11).
    pub fn destination(&self) -> Option<SocketAddr> {
        if self.latched.is_some() {
            return self.latched;
        }
        let signalled = self.signalled.filter(|address| is_sendable(*address))?;
        let trusted = signalled.ip() == self.signalling_source;
        (trusted || self.sent_unheard < UNHEARD_PACKETS_MAX).then_some(signalled)
    }

    /// The source that was accepted last.
    pub fn latched(&self) -> Option<SocketAddr> {
        self.latched
    }

    /// RTCP came from where media is expected: what is sent there is wanted.
    pub fn note_control(&mut self) {
        self.sent_unheard = 0;
    }

    /// One packet went to `destination`.
    pub fn count_sent(&mut self) {
        if self.latched.is_none() {
            self.sent_unheard = self.sent_unheard.saturating_add(1);
        }
    }

    fn anchor(&self) -> IpAddr {
        self.signalled.map_or(self.signalling_source, |signalled| signalled.ip())
    }

    /// The first source of the signalling's own IP: a caller behind NAT, whose description names an
    /// address that nobody reaches.
    fn is_signallings(&self, source: SocketAddr) -> bool {
        let taken = self.latched.is_some_and(|latched| latched.ip() == self.signalling_source);
        source.ip() == self.signalling_source && !taken
    }

    fn accepts_anchor(&mut self, now: Instant, source: SocketAddr) -> bool {
        let first = *self.anchor_heard.get_or_insert(now);
        let known = self.latched == Some(source) || self.signalled == Some(source);
        let learnable = now.since(first) <= PORT_LEARNING;
        if !known && !learnable {
            return false;
        }
        self.anchor_last = Some(now);
        self.latch(source);
        true
    }

    fn latch(&mut self, source: SocketAddr) {
        self.latched = Some(source);
        self.sent_unheard = 0;
    }

    fn proves_itself(
        &mut self,
        now: Instant,
        source: SocketAddr,
        ssrc: u32,
        sequence: u16,
    ) -> bool {
        let fresh = Candidate { source, ssrc, sequence, in_sequence: 1, since: now, last: now };
        let mut known = self.candidates.iter_mut().flatten();
        if let Some(candidate) = known.find(|candidate| candidate.source == source) {
            let ahead = sequence.wrapping_sub(candidate.sequence);
            let goes_on = now.since(candidate.last) <= CANDIDATE_IDLE;
            let sane = candidate.ssrc == ssrc && (1..=CANDIDATE_GAP_MAX).contains(&ahead);
            *candidate = match goes_on && sane {
                true => {
                    let in_sequence = candidate.in_sequence.saturating_add(1);
                    Candidate { in_sequence, since: candidate.since, ..fresh }
                }
                false => fresh,
            };
            let span = now.since(candidate.since);
            return candidate.in_sequence >= PROBATION_PACKETS && span >= PROBATION_SPAN;
        }
        let idle = |place: &&mut Option<Candidate>| {
            place.is_none_or(|candidate| now.since(candidate.last) > CANDIDATE_IDLE)
        };
        if let Some(place) = self.candidates.iter_mut().find(idle) {
            *place = Some(fresh);
        }
        false
    }
}

/// IPv4-mapped IPv6 addresses as IPv4, so that one peer has one name.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address that media may go to at all.
fn is_sendable(address: SocketAddr) -> bool {
    let broadcast = address.ip() == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// An address that a peer can be reached at from anywhere: none of a private network.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            !(ip.is_private() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANCHOR: &str = "192.0.2.1:4000";

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    /// Runs lines of "ms source ssrc/sequence verdict", or "ms offer address".
    fn run(signalled: Option<&str>, script: &str) {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let signalling = "203.0.113.9".parse().expect("an address");
        let mut latch = SourceLatch::new(signalled.map(parse), signalling);
        latch.open(at(0));
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = at(words[0].parse().expect("milliseconds"));
            if words[1] == "offer" {
                latch.reoffer(now, Some(parse(words[2])), signalling);
                continue;
            }
            let (ssrc, sequence) = words[2].split_once('/').expect("ssrc/sequence");
            let (ssrc, sequence) = (ssrc.parse().unwrap(), sequence.parse().unwrap());
            let accepted = latch.accepts(now, parse(words[1]), ssrc, sequence);
            let sent_to = latch.destination().map_or("nobody".into(), |to| to.to_string());
            let verdict = if accepted { "yes" } else { "no" };
            assert_eq!(
                format!("{verdict} {sent_to}"),
                format!("{} {}", words[3], words[4]),
                "{line}"
            );
        }
    }

    #[test]
    fn another_port_of_the_anchor_is_learned_for_one_second_only() {
        run(
            Some(ANCHOR),
            "0    192.0.2.1:4002 1/1 yes 192.0.2.1:4002
             1000 192.0.2.1:4004 1/2 yes 192.0.2.1:4004
             1001 192.0.2.1:4006 1/3 no  192.0.2.1:4004
             9000 192.0.2.1:4000 1/4 yes 192.0.2.1:4000
             9001 192.0.2.1:4004 1/5 no  192.0.2.1:4000",
        );
    }

    #[test]
    fn a_stranger_needs_five_packets_in_sequence_and_yields_to_the_anchor() {
        run(
            Some(ANCHOR),
            "1000 203.0.113.7:700 1/10 no  192.0.2.1:4000
             1020 203.0.113.7:700 1/11 no  192.0.2.1:4000
             1040 203.0.113.7:700 1/13 no  192.0.2.1:4000
             1060 203.0.113.7:700 1/14 no  192.0.2.1:4000
             1080 203.0.113.7:700 1/15 yes 203.0.113.7:700
             1090 198.51.100.1:9  7/1  no  203.0.113.7:700
             1099 192.0.2.1:4000  5/1  yes 192.0.2.1:4000
             1100 203.0.113.7:700 1/16 no  192.0.2.1:4000",
        );
    }

    #[test]
    fn another_ssrc_or_a_jump_begins_the_probation_again() {
        run(
            Some(ANCHOR),
            "1000 203.0.113.7:700 1/10 no  192.0.2.1:4000
             1020 203.0.113.7:700 1/11 no  192.0.2.1:4000
             1040 203.0.113.7:700 2/12 no  192.0.2.1:4000
             1060 203.0.113.7:700 2/13 no  192.0.2.1:4000
             1061 203.0.113.7:700 2/13 no  192.0.2.1:4000
             1080 203.0.113.7:700 2/14 no  192.0.2.1:4000
             1100 203.0.113.7:700 2/90 no  192.0.2.1:4000
             1120 203.0.113.7:700 2/91 no  192.0.2.1:4000
             1140 203.0.113.7:700 2/92 no  192.0.2.1:4000
             1160 203.0.113.7:700 2/93 no  192.0.2.1:4000
             1180 203.0.113.7:700 2/94 yes 203.0.113.7:700",
        );
    }

    #[test]
    fn a_burst_proves_nothing_nor_do_packets_that_come_now_and_then() {
        run(
            Some(ANCHOR),
            "1000 203.0.113.7:700 1/10 no  192.0.2.1:4000
             1010 203.0.113.7:700 1/11 no  192.0.2.1:4000
             1020 203.0.113.7:700 1/12 no  192.0.2.1:4000
             1030 203.0.113.7:700 1/13 no  192.0.2.1:4000
             1059 203.0.113.7:700 1/14 no  192.0.2.1:4000
             1260 203.0.113.7:700 1/15 no  192.0.2.1:4000
             1461 203.0.113.7:700 1/16 no  192.0.2.1:4000
             1662 203.0.113.7:700 1/17 no  192.0.2.1:4000
             1682 203.0.113.7:700 1/18 no  192.0.2.1:4000
             1702 203.0.113.7:700 1/19 no  192.0.2.1:4000
             1721 203.0.113.7:700 1/20 no  192.0.2.1:4000
             1722 203.0.113.7:700 1/21 yes 203.0.113.7:700",
        );
    }

    #[test]
    fn nobody_proves_himself_before_the_leg_is_live_nor_while_a_reachable_address_may_still_come() {
        let stranger: SocketAddr = "198.51.100.66:9".parse().expect("an address");
        for (signalled, live_ms, accepted_ms) in [
            (Some("192.0.2.1:4000"), 2_000, 3_080),
            (Some("[2001:db8::1]:4000"), 2_000, 3_080),
            (Some("10.0.0.5:4000"), 2_000, 2_080),
            (Some("100.64.0.5:4000"), 2_000, 2_080),
            (Some("[fd00::5]:4000"), 2_000, 2_080),
            (None, 2_000, 2_080),
        ] {
            let signalled = signalled.map(|text| text.parse().expect("an address"));
            let signalling = "203.0.113.9".parse().expect("an address");
            let mut latch = SourceLatch::new(signalled, signalling);
            let mut accepted = None;
            for packet in 0..200_u16 {
                let now = u64::from(packet) * 20;
                if now == live_ms {
                    latch.open(at(now));
                }
                if latch.accepts(at(now), stranger, 7, packet) {
                    accepted = accepted.or(Some(now));
                }
            }
            assert_eq!(accepted, Some(accepted_ms), "{signalled:?}");
        }
    }

    #[test]
    fn without_a_signalled_address_the_signalling_source_is_the_anchor() {
        run(
            None,
            "0   198.51.100.1:9  7/1 no  nobody
             20  203.0.113.9:700 1/1 yes 203.0.113.9:700
             30  198.51.100.1:9  7/2 no  203.0.113.9:700",
        );
    }

    #[test]
    fn an_offer_opens_the_learning_once_more_and_keeps_the_source_when_the_address_is_the_same() {
        run(
            Some(ANCHOR),
            "0    192.0.2.1:4002 1/1 yes 192.0.2.1:4002
             5000 192.0.2.1:4010 1/1 no  192.0.2.1:4002
             6000 offer 192.0.2.1:4000
             6001 192.0.2.1:4002 1/2 yes 192.0.2.1:4002
             6002 192.0.2.1:4010 1/3 yes 192.0.2.1:4010
             7000 offer 192.0.2.77:6000
             7001 192.0.2.1:4010 1/4 no  192.0.2.77:6000
             7002 192.0.2.77:6000 1/5 yes 192.0.2.77:6000",
        );
    }

    #[test]
    fn a_late_offers_answer_keeps_the_source_behind_the_callers_nat() {
        run(
            None,
            "0   203.0.113.9:700  1/1 yes 203.0.113.9:700
             90  offer 10.0.0.5:4000
             100 203.0.113.9:700  1/2 yes 203.0.113.9:700
             120 198.51.100.1:9   7/1 no  203.0.113.9:700
             140 10.0.0.5:4000    1/3 yes 10.0.0.5:4000",
        );
    }

    #[test]
    fn a_caller_behind_nat_is_heard_at_once_from_where_the_signalling_comes() {
        run(
            Some("10.0.0.5:4000"),
            "0   198.51.100.66:9  7/1 no  10.0.0.5:4000
             1   203.0.113.9:700  1/1 yes 203.0.113.9:700
             2   203.0.113.9:702  2/1 no  203.0.113.9:700
             3   198.51.100.66:9  7/2 no  203.0.113.9:700
             4   198.51.100.66:9  7/3 no  203.0.113.9:700
             5   198.51.100.66:9  7/4 no  203.0.113.9:700
             6   198.51.100.66:9  7/5 no  203.0.113.9:700
             20  203.0.113.9:700  1/2 yes 203.0.113.9:700
             40  10.0.0.5:4000    1/3 yes 10.0.0.5:4000
             60  203.0.113.9:700  1/4 no  10.0.0.5:4000",
        );
    }

    #[test]
    fn a_stranger_that_was_first_yields_to_the_source_of_the_signalling() {
        run(
            Some("10.0.0.5:4000"),
            "0   198.51.100.66:9  7/1 no  10.0.0.5:4000
             20  198.51.100.66:9  7/2 no  10.0.0.5:4000
             40  198.51.100.66:9  7/3 no  10.0.0.5:4000
             60  198.51.100.66:9  7/4 no  10.0.0.5:4000
             80  198.51.100.66:9  7/5 yes 198.51.100.66:9
             81  203.0.113.9:700  1/1 yes 203.0.113.9:700
             82  198.51.100.66:9  7/6 no  203.0.113.9:700",
        );
    }

    #[test]
    fn an_unchanged_offer_opens_nothing_while_the_anchor_talks() {
        run(
            Some(ANCHOR),
            "0    192.0.2.1:4000 1/1 yes 192.0.2.1:4000
             4000 192.0.2.1:4000 1/2 yes 192.0.2.1:4000
             5000 offer 192.0.2.1:4000
             5001 192.0.2.1:4010 7/1 no  192.0.2.1:4000
             5002 203.0.113.9:70 8/1 no  192.0.2.1:4000
             5003 192.0.2.1:4000 1/3 yes 192.0.2.1:4000
             7000 offer 192.0.2.1:4000
             7001 192.0.2.1:4010 1/4 yes 192.0.2.1:4010",
        );
    }

    #[test]
    fn a_sprayer_never_gets_in_when_the_anchor_talks() {
        let mut latch = SourceLatch::new(ANCHOR.parse().ok(), "203.0.113.9".parse().unwrap());
        let sprayer: SocketAddr = "198.51.100.66:40000".parse().unwrap();
        assert!(latch.accepts(at(0), ANCHOR.parse().unwrap(), 1, 1));
        for packet in 0..50_000u32 {
            assert!(!latch.accepts(at(u64::from(packet / 50)), sprayer, 9, packet as u16));
        }
        assert_eq!(latch.destination(), ANCHOR.parse().ok());
    }

    #[test]
    fn spraying_with_random_headers_does_not_crowd_the_caller_out() {
        let mut latch =
            SourceLatch::new("10.0.0.5:4000".parse().ok(), "203.0.113.9".parse().unwrap());
        let caller: SocketAddr = "203.0.113.7:700".parse().unwrap();
        latch.open(at(0));
        let mut accepted = 0;
        for packet in 0..2_000u32 {
            let now = at(u64::from(packet / 10));
            let sprayer = SocketAddr::new("198.51.100.66".parse().unwrap(), 40_000);
            assert!(!latch.accepts(now, sprayer, packet.wrapping_mul(2_654_435_761), 7));
            if packet % 200 == 100 {
                accepted += u32::from(latch.accepts(now, caller, 1, (packet / 200) as u16));
            }
        }
        assert_eq!(accepted, 6, "ten packets, the first four on probation");
    }

    #[test]
    fn an_address_that_never_answers_gets_fifty_packets_unless_it_is_the_signallings() {
        let mut decoy = SourceLatch::new(ANCHOR.parse().ok(), "203.0.113.9".parse().unwrap());
        let mut near =
            SourceLatch::new("203.0.113.9:8".parse().ok(), "203.0.113.9".parse().unwrap());
        let mut sent = [0, 0];
        for _ in 0..500 {
            for (latch, sent) in [&mut decoy, &mut near].into_iter().zip(&mut sent) {
                if latch.destination().is_some() {
                    latch.count_sent();
                    *sent += 1;
                }
            }
        }
        assert_eq!(sent, [50, 500]);
        assert!(decoy.accepts(at(9), ANCHOR.parse().unwrap(), 1, 1));
        assert_eq!(decoy.destination(), ANCHOR.parse().ok());
        let multicast =
            SourceLatch::new("224.0.0.1:9".parse().ok(), "203.0.113.9".parse().unwrap());
        assert_eq!(multicast.destination(), None);
    }

    #[test]
    fn a_mapped_address_is_the_same_peer() {
        let mut latch = SourceLatch::new(ANCHOR.parse().ok(), "203.0.113.9".parse().unwrap());
        assert!(latch.accepts(at(0), "[::ffff:192.0.2.1]:4000".parse().unwrap(), 1, 1));
        assert_eq!(latch.destination(), ANCHOR.parse().ok());
    }
}
