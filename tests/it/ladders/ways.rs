//! The way that a call of ours takes decides what its INVITE says: the address of the listener that it
//! goes out by, and the terms for SRTP of the peer that it really goes to.

use super::transfers;
use crate::sim::callee::{Callee, Manner};
use crate::sim::pbx::Action;
use crate::sim::{World, settings};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::{Cdr, TransferOutcome};
use voxedge::call::settings::SrtpSettings;
use voxedge::ground::Transport;
use voxedge::outgoing::HostRule;
use voxedge::sdp::SrtpPolicy::{self, Allowed, Off, Required};
use voxedge::switchboard::Settings;
use voxedge::ultravox::tool::{Fixed, SipVerb};

/// A listener with an address of its own, and one of TLS.
const OTHER: &str = "198.51.100.1:5080";
const SECURE: &str = "198.51.100.1:5061";
const ONE: &str = "sip:+15550001@192.0.2.100";
const TO_TWO: &str = "Contact: <sip:+15550002@192.0.2.101>\r\n";
const TO_TWO_SECURELY: &str = "Contact: <sips:+15550002@192.0.2.101>\r\n";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// An edge that is reached at 203.0.113.80 by its other listener.
fn in_two_networks(mut settings: Settings) -> Settings {
    settings.advertised = vec![(address(OTHER), [203, 0, 113, 80].into())];
    let contact = ((Transport::Udp, address(OTHER)), "203.0.113.80:5080".to_owned());
    settings.ua.contacts.extend([contact]);
    settings
}

fn with_srtp(mut settings: Settings, srtp: SrtpSettings) -> Settings {
    settings.call.srtp = Arc::new(srtp);
    settings
}

fn targets(rules: &[(&str, SrtpPolicy)]) -> SrtpSettings {
    let rule = |text| HostRule::parse(text).expect("a host");
    let targets = rules.iter().map(|(host, policy)| (rule(host), *policy)).collect();
    SrtpSettings { targets, ..SrtpSettings::default() }
}

impl World {
    fn goes_by(&mut self, callee: usize, transport: Transport, listener: &str) {
        self.ways.insert(self.callees[callee].address, (transport, address(listener)));
    }

    fn dial_to(&mut self, to: &str) -> Option<Cdr> {
        self.dial(0, json!({ "to": to, "from": "+15550100" }));
        self.run_out(600_000);
        assert!(self.is_idle(), "something is left\n{}", self.ladder());
        assert!(self.admitted.values().all(|count| *count == 0), "{:?}", self.admitted);
        self.facts.values().next().and_then(|facts| facts.records.last()).cloned()
    }
}

/// A phone that sends callers on.
fn moved(contact: &'static str) -> Manner {
    Manner { answers: Some((300, 302, contact)), ..Manner::default() }
}

fn leaves() -> Manner {
    Manner { hangs_up: Some(2_000), ..Manner::default() }
}

/// Owner and address of a description; the keys that it holds.
fn owner(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("o=")).expect("an owner")
}

fn keys(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("a=crypto:")).collect()
}

fn is_encrypted(text: &str) -> bool {
    text.contains(" RTP/SAVP ") && !keys(text).is_empty()
}

fn is_plain(text: &str) -> bool {
    text.contains(" RTP/AVP ") && keys(text).is_empty()
}

/// All that tells where we are is of that listener.
fn gives(callee: &Callee, message: usize, address: &str, port: u16) {
    let text = &callee.described[message];
    assert!(owner(text).ends_with(&format!(" IN IP4 {address}")), "{text}");
    assert!(text.contains(&format!("\r\nc=IN IP4 {address}\r\n")), "{text}");
    assert!(text.contains(&format!("Contact: <sip:{address}:{port};")), "{text}");
    if text.starts_with("INVITE") {
        assert!(text.contains(&format!("Via: SIP/2.0/UDP {address}:{port};")), "{text}");
    }
}

#[test]
fn the_listener_that_a_call_goes_out_by_gives_its_address() {
    let mut world = World::new(1, in_two_networks(settings()));
    let reinvites = Some((500, "sendonly"));
    world.callee(Manner { reinvites, hangs_up: Some(3_000), ..Manner::default() });
    world.goes_by(0, Transport::Udp, OTHER);
    let record = world.dial_to(ONE).expect("a record");
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    let callee = &world.callees[0];
    gives(callee, 0, "203.0.113.80", 5080);
    gives(callee, 1, "203.0.113.80", 5080);
    let session = |message: usize| owner(&callee.described[message]).split(' ').nth(1);
    assert_eq!(session(0), session(1), "one session: {:?}", callee.described);
    assert!(callee.rtp_received > 15, "until its hold: {}", callee.rtp_received);
}

#[test]
fn each_hop_is_given_the_address_of_its_own_listener() {
    let mut world = World::new(1, in_two_networks(settings()));
    world.callee(Manner { silent: true, ..Manner::default() });
    world.callee(leaves());
    let addresses = world.callees.iter().map(|callee| callee.address).collect();
    world.names.insert("trunk.example".into(), addresses);
    world.goes_by(1, Transport::Udp, OTHER);
    let record = world.dial_to("sip:1@trunk.example").expect("a record");
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    gives(&world.callees[0], 0, "198.51.100.1", 5060);
    gives(&world.callees[1], 0, "203.0.113.80", 5080);
    assert!(world.callees[1].rtp_received > 50);
}

#[test]
fn a_transfers_target_is_given_the_address_of_its_listener() {
    let fixed = Fixed { verb: Some(SipVerb::Invite), ..transfers::to_target() };
    let settings = in_two_networks(transfers::edge(&fixed, |_| {}));
    let mut world = transfers::world(settings, "coldTransfer", leaves());
    world.goes_by(0, Transport::Udp, OTHER);
    world.run_out(600_000);
    assert!(world.is_idle(), "{}", world.ladder());
    gives(&world.callees[0], 0, "203.0.113.80", 5080);
    let record = world.facts.values().next().and_then(|facts| facts.records.last());
    let outcome = record.map(|record| record.transfers[0].outcome);
    assert_eq!(outcome, Some(TransferOutcome::Bridged));
}

#[test]
fn who_takes_a_call_over_is_given_the_address_of_its_own_listener() {
    let settings = transfers::edge(&transfers::to_target(), |transfers| transfers.replaces = true);
    let mut world = World::new(1, in_two_networks(settings));
    let newcomer = address("192.0.2.11:5060");
    world.ways.insert(newcomer, (Transport::Udp, address(OTHER)));
    world.caller("sales");
    transfers::take_over(&mut world);
    assert_eq!(world.callers[1].address, newcomer);
    world.act(6_000, 1, Action::HangUp);
    world.run_out(600_000);
    assert!(world.is_idle(), "{}", world.ladder());
    let given = [0, 1].map(|caller: usize| world.callers[caller].far_media.map(|at| at.ip()));
    let [usual, other] = ["198.51.100.1", "203.0.113.80"].map(|ip| ip.parse().ok());
    assert_eq!(given, [usual, other], "{}", world.ladder());
    assert!(world.callers[1].rtp_received > 150);
}

#[test]
fn a_redirection_is_followed_on_the_terms_of_its_new_target() {
    let srtp = targets(&[("192.0.2.101", Required)]);
    let mut world = World::new(1, with_srtp(settings(), srtp));
    world.callee(moved(TO_TWO_SECURELY));
    world.callee(Manner { encrypts: true, ..leaves() });
    world.goes_by(1, Transport::Tls, SECURE);
    let record = world.dial_to(ONE).expect("a record");
    let [one, two] = &world.callees[..] else { panic!("two phones") };
    assert!(is_plain(&one.described[0]), "{:?}", one.described);
    assert!(is_encrypted(&two.described[0]), "{:?}", two.described);
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    assert!(two.rtp_received > 50, "{}", two.rtp_received);
}

#[test]
fn a_target_without_srtp_gets_a_plain_offer_after_one_that_requires_it() {
    let srtp = targets(&[("192.0.2.100", Required), ("192.0.2.101", Off)]);
    let mut world = World::new(1, with_srtp(settings(), srtp));
    world.callee(moved(TO_TWO));
    world.callee(leaves());
    world.goes_by(0, Transport::Tls, SECURE);
    let record = world.dial_to("sips:+15550001@192.0.2.100").expect("a record");
    let [one, two] = &world.callees[..] else { panic!("two phones") };
    assert!(is_encrypted(&one.described[0]), "{:?}", one.described);
    assert!(is_plain(&two.described[0]), "{:?}", two.described);
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    assert!(two.rtp_received > 50, "media waits for no keys any more: {}", two.rtp_received);
}

#[test]
fn keys_of_one_target_are_never_offered_to_another() {
    let mut world = World::new(1, settings());
    world.callee(moved(TO_TWO_SECURELY));
    world.callee(Manner { encrypts: true, ..leaves() });
    world.goes_by(0, Transport::Tls, SECURE);
    world.goes_by(1, Transport::Tls, SECURE);
    let record = world.dial_to("sips:+15550001@192.0.2.100").expect("a record");
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    let [one, two] = &world.callees[..] else { panic!("two phones") };
    let (first, second) = (keys(&one.described[0]), keys(&two.described[0]));
    assert_eq!((first.len(), second.len()), (5, 5), "offered where both ways are TLS");
    assert!(first.iter().all(|key| !second.contains(key)), "{first:?} {second:?}");
    // Over UDP there are none.
    let mut world = World::new(1, settings());
    world.callee(moved(TO_TWO));
    world.callee(leaves());
    world.goes_by(0, Transport::Tls, SECURE);
    let record = world.dial_to("sips:+15550001@192.0.2.100").expect("a record");
    assert!(is_plain(&world.callees[1].described[0]), "{:?}", world.callees[1].described);
    assert!(record.joined_at.is_some(), "{}", world.ladder());
}

#[test]
fn a_redirection_to_where_keys_would_go_in_the_clear_is_not_followed() {
    let srtp = targets(&[("192.0.2.101", Required)]);
    let mut world = World::new(1, with_srtp(settings(), srtp));
    world.callee(moved(TO_TWO));
    world.callee(leaves());
    let record = world.dial_to(ONE).expect("a record");
    assert_eq!((record.status, record.joined_at), (Some(302), None));
    assert_eq!(world.callees[1].heard, Vec::<String>::new());
}

#[test]
fn a_redirected_transfer_follows_the_terms_of_its_new_target() {
    let fixed = Fixed { verb: Some(SipVerb::Invite), ..transfers::to_target() };
    let srtp = targets(&[("192.0.2.101", Required)]);
    let settings = with_srtp(transfers::edge(&fixed, |_| {}), srtp);
    let mut world = transfers::world(settings, "coldTransfer", moved(TO_TWO_SECURELY));
    world.callee(Manner { encrypts: true, ..leaves() });
    world.goes_by(1, Transport::Tls, SECURE);
    world.run_out(600_000);
    assert!(world.is_idle(), "{}", world.ladder());
    assert!(is_plain(&world.callees[0].described[0]), "{:?}", world.callees[0].described);
    assert!(is_encrypted(&world.callees[1].described[0]), "{:?}", world.callees[1].described);
    let record = world.facts.values().next().and_then(|facts| facts.records.last());
    let record = record.expect("a record");
    assert_eq!(record.transfers[0].outcome, TransferOutcome::Bridged, "{}", world.ladder());
    assert!(record.transfers[0].leg_time > Duration::from_secs(1));
}

#[test]
fn the_peers_address_and_the_listener_have_a_word_where_no_name_has() {
    // A name that leads to an address for which SRTP is required, without TLS: nobody is called.
    let mut world = World::new(1, with_srtp(settings(), targets(&[("192.0.2.0/24", Required)])));
    world.callee(leaves());
    world.names.insert("trunk.example".into(), vec![world.callees[0].address]);
    let record = world.dial_to("sip:1@trunk.example").expect("a record");
    assert_eq!(world.callees[0].heard, Vec::<String>::new(), "{}", world.ladder());
    let reason = record.end_reason.unwrap_or_default();
    assert!(reason.contains("SRTP is required"), "{reason}");
    // SRTP is required of all but those in a range: what a name leads to decides, and nothing before.
    for (range, is_called) in [("192.0.2.0/24", true), ("10.0.0.0/8", false)] {
        let srtp = SrtpSettings { policy: Required, ..targets(&[(range, Off)]) };
        let mut world = World::new(1, with_srtp(settings(), srtp));
        world.callee(leaves());
        world.names.insert("trunk.example".into(), vec![world.callees[0].address]);
        let record = world.dial_to("sip:1@trunk.example").expect("a record");
        let offers = &world.callees[0].described;
        assert_eq!(record.joined_at.is_some(), is_called, "{range}\n{}", world.ladder());
        assert_eq!(offers.first().is_some_and(|offer| is_plain(offer)), is_called, "{offers:?}");
        let reason = record.end_reason.unwrap_or_default();
        assert!(is_called || offers.is_empty() && reason.contains("SRTP is required"), "{reason}");
    }
    // A listener of TLS on which it is required, where it is off else.
    let listeners = vec![(address(SECURE), Required)];
    let srtp = SrtpSettings { policy: Off, listeners, ..SrtpSettings::default() };
    let mut world = World::new(1, with_srtp(settings(), srtp));
    world.callee(Manner { encrypts: true, ..leaves() });
    world.goes_by(0, Transport::Tls, SECURE);
    let record = world.dial_to("sips:+15550001@192.0.2.100").expect("a record");
    assert!(is_encrypted(&world.callees[0].described[0]), "{:?}", world.callees[0].described);
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    // Its peers with another policy by name keep theirs, over the same listener.
    let srtp = SrtpSettings {
        policy: Off,
        listeners: vec![(address(SECURE), Required)],
        ..targets(&[("192.0.2.100", Allowed)])
    };
    let mut world = World::new(1, with_srtp(settings(), srtp));
    world.callee(leaves());
    world.goes_by(0, Transport::Tls, SECURE);
    let record = world.dial_to("sips:+15550001@192.0.2.100").expect("a record");
    let offer = &world.callees[0].described[0];
    assert!(offer.contains(" RTP/AVP ") && keys(offer).len() == 5, "{offer}");
    assert!(record.joined_at.is_some(), "a plain answer is taken\n{}", world.ladder());
}
