//! Media never goes back to a port that a call of ours has, whoever names it, and when.

use super::*;
use crate::ground::Instant;
use crate::ground::ports::PortPool;

/// Our side where port 30,500 of a second address is another call's, and a port of ours is free.
fn busy() -> (PortPool, LocalMedia) {
    let mut pool = PortPool::new(30_500, 30_501);
    pool.take(Instant::ZERO, &mut Entropy::from_number(1)).expect("it is free");
    let own = pool.own(&["203.0.113.1", "203.0.113.2"].map(|ip| ip.parse().expect("address")));
    (pool, LocalMedia { own, ..local() })
}

/// A description of one PCMU section at this address and port, with one more line.
fn at(address: &str, port: u16, more: &str) -> String {
    let text = offer(&[&format!("m=audio {port} RTP/AVP 0"), more]);
    text.replace("198.51.100.7", address).replace("\r\n\r\n", "\r\n")
}

const CASES: [(&str, u16, &str, bool); 9] = [
    ("203.0.113.2", 30_500, "a=sendrecv", true),
    ("203.0.113.1", 30_500, "a=sendrecv", true),
    ("203.0.113.2", 30_501, "a=sendrecv", true),
    // Its RTCP would go there.
    ("203.0.113.2", 30_499, "a=sendrecv", true),
    ("198.51.100.7", 4_000, "a=rtcp:30501 IN IP4 203.0.113.2", true),
    // Held or not.
    ("203.0.113.2", 30_500, "a=inactive", true),
    ("203.0.113.2", 30_502, "a=sendrecv", false),
    ("203.0.113.3", 30_500, "a=sendrecv", false),
    ("203.0.113.2", 30_498, "a=rtcp:30503", false),
];

#[test]
fn no_offer_or_answer_may_name_a_port_of_ours() {
    let (_pool, local) = busy();
    for (address, port, more, is_own) in CASES {
        let theirs = at(address, port, more);
        let expected = if is_own { Err(OfferFault::BadAddress) } else { Ok(Some(port)) };
        let port_of = |agreed: Agreed| agreed.remote.rtp.map(|rtp| rtp.port());
        let first = opened(1).answer(theirs.as_bytes(), &local);
        assert_eq!(first.map(|answered| port_of(answered.agreed)), expected, "offer {theirs}");
        let mut exchange = opened(1);
        let good = at("198.51.100.7", 4_000, "a=sendrecv");
        exchange.answer(good.as_bytes(), &local).expect("a good offer");
        let before = exchange.repeat();
        let again = exchange.answer(theirs.as_bytes(), &local);
        assert_eq!(again.map(|answered| port_of(answered.agreed)), expected, "again {theirs}");
        if is_own {
            assert_eq!(exchange.repeat(), before, "what was agreed stands");
        }
        let refreshed = exchange.accept_refresh(theirs.as_bytes(), &local);
        assert_eq!(refreshed.map(port_of), expected, "refresh {theirs}");
        let mut exchange = opened(1);
        exchange.offer(&local);
        let answered = exchange.accept_answer(theirs.as_bytes());
        assert_eq!(answered.map(port_of), expected, "answer {theirs}");
    }
}

#[test]
fn a_port_counts_as_long_as_a_call_has_it() {
    let (mut pool, local) = busy();
    let theirs = at("203.0.113.2", 30_500, "a=sendrecv");
    let answered = |local: &LocalMedia| opened(1).answer(theirs.as_bytes(), local).is_ok();
    assert!(!answered(&local));
    pool.put_back(Instant::ZERO, crate::ground::ports::RtpPort(30_500));
    assert!(answered(&local), "it may be somebody else's by now");
}
