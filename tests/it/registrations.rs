//! Registrations of the whole edge, with a registrar under the virtual clock: calls that come over
//! them, changes while it runs, a restart, a drain, an outage. Each machine by itself is tested beside
//! its code.

use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use crate::sim::registrar::{Mood, Registrar};
use crate::sim::{Facts, World, ladder, settings};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use voxedge::account::{Registration, RegistrationDocument, RegistrationId};
use voxedge::call::settings::SrtpSettings;
use voxedge::ground::{Secret, Transport};
use voxedge::outgoing::{DialRefusal, HostRule};
use voxedge::sdp::SrtpPolicy::Required;
use voxedge::sip::registration::Binding;
use voxedge::switchboard::Input;

/// The PBX is outside all ranges.
const PBX: &str = "203.0.113.5:5060";

fn registration(id: &str, user: &str, password: &str) -> Registration {
    let document = RegistrationDocument {
        username: user.into(),
        password: Secret::new(password),
        proxy: PBX.into(),
        ..RegistrationDocument::default()
    };
    Registration::compile(RegistrationId(id.into()), &document).expect("a good registration")
}

fn wanted(registrations: Vec<Registration>) -> Input {
    Input::RegistrationsReplaced { registrations, bindings: BTreeMap::new() }
}

/// A world with one registrar and one registration there, which begins at once.
fn world() -> World {
    let mut world = World::new(1, settings());
    world.registrars.push(Registrar::new(PBX, "sales", "secret"));
    world.edge(0, wanted(vec![registration("r1", "sales", "secret")]));
    world
}

/// What the operator sees, a line for each registration.
fn states(world: &World) -> Vec<String> {
    let all = world.board.registrations(world.now);
    let shown = all
        .iter()
        .map(|one| format!("{} {} {:?} {}", one.id, one.name, one.successful, one.reason));
    shown.collect()
}

/// A caller with this address, who dials this user at `ms` and hangs up three seconds later.
fn call(world: &mut World, address: &str, user: &str, ms: u64) -> usize {
    let caller = world.caller(user);
    world.callers[caller].address = address.parse().expect("an address");
    world.act(ms, caller, Action::Invite);
    world.act(ms + 3_000, caller, Action::HangUp);
    caller
}

/// Status and admission of each call, in the order in which they came.
fn records(world: &World) -> Vec<(Option<u16>, Option<String>)> {
    let last = |records: &Vec<voxedge::billing::Cdr>| {
        records.last().map(|cdr| (cdr.status, cdr.admitted_by.clone()))
    };
    world.facts.values().filter_map(|facts| last(&facts.records)).collect()
}

#[test]
fn a_call_over_a_registration_is_admitted_by_it() {
    let mut world = world();
    call(&mut world, PBX, "sales", 1_000);
    world.edge(6_000, Input::Drain { grace: Duration::from_secs(60) });
    world.run_out(60_000);
    ladder::check("registered_call", world.ladder());
    let admitted = Some("registration sales@203.0.113.5".to_owned());
    assert_eq!(records(&world), [(Some(200), admitted)]);
    assert!(world.is_idle() && world.drained == 1, "{}", world.ladder());
    assert!(world.registrars[0].bindings.is_empty(), "the drain removed it");
    assert!(world.admitted.values().all(|count| *count == 0), "{:?}", world.admitted);
}

#[test]
fn other_calls_of_the_registrar_are_admitted_by_the_user_that_is_bound() {
    let mut world = world();
    let source: IpAddr = "203.0.113.5".parse().expect("an address");
    world.run_out(900);
    assert_eq!(world.admitted.get(&source), Some(&1));
    // From another port of the registrar: to the bound user, and to another one; from a stranger.
    call(&mut world, "203.0.113.5:6000", "sales", 1_000);
    call(&mut world, "203.0.113.5:6002", "agent_x", 6_000);
    call(&mut world, "203.0.113.6:5060", "sales", 11_000);
    world.run_out(20_000);
    let admitted = Some("registration sales@203.0.113.5".to_owned());
    let records = records(&world);
    assert_eq!(records.len(), 3, "{}", world.ladder());
    assert_eq!(records[0], (Some(200), admitted));
    assert!(records[1..].iter().all(|(status, by)| *status != Some(200) && by.is_none()));
}

#[test]
fn every_host_of_the_registrar_may_send_its_calls() {
    let mut world = World::new(1, settings());
    world.registrars.push(Registrar::new(PBX, "sales", "secret"));
    let hosts = [PBX, "203.0.113.6:5060"].map(|host| host.parse().expect("an address"));
    world.names.insert("pbx.example".into(), hosts.to_vec());
    let document = RegistrationDocument {
        username: "sales".into(),
        password: Secret::new("secret"),
        proxy: "pbx.example".into(),
        ..RegistrationDocument::default()
    };
    let named = Registration::compile(RegistrationId("r1".into()), &document).expect("good");
    world.edge(0, wanted(vec![named]));
    world.run_out(900);
    let heard: Vec<String> = world.admitted.keys().map(IpAddr::to_string).collect();
    assert_eq!(heard, ["203.0.113.5", "203.0.113.6"]);
    call(&mut world, "203.0.113.6:7000", "sales", 1_000);
    world.run_out(6_000);
    let admitted = Some("registration sales@pbx.example".to_owned());
    assert_eq!(records(&world), [(Some(200), admitted)]);
    world.edge(6_100, wanted(Vec::new()));
    world.run_out(60_000);
    assert!(world.admitted.values().all(|count| *count == 0), "{:?}", world.admitted);
    assert!(world.is_idle(), "{}", world.ladder());
}

#[test]
fn registrations_are_added_changed_and_removed_while_it_runs() {
    let mut world = world();
    world.registrars[0].expires_s = 120;
    world.run_out(1_000);
    assert_eq!(states(&world), ["r1 sales@203.0.113.5 Some(true) registered"]);
    let first = world.registrars[0].bindings.clone();
    assert_eq!(first.len(), 1);

    // The same again changes nothing; a new password goes on with the same binding.
    world.edge(1_100, wanted(vec![registration("r1", "sales", "secret")]));
    world.run_out(2_000);
    assert_eq!(world.registrars[0].bindings, first);
    world.registrars[0].password = "other";
    world.edge(2_100, wanted(vec![registration("r1", "sales", "other")]));
    world.run_out(4_000);
    let second = world.registrars[0].bindings.clone();
    assert_eq!((second.len(), world.registrars[0].wrong), (1, 0), "{}", world.ladder());
    let ids = |of: &BTreeMap<String, crate::sim::registrar::Bound>| {
        of.values().map(|bound| bound.call_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ids(&second));

    // A wrong password is told, and tried again slowly.
    world.edge(4_100, wanted(vec![registration("r1", "sales", "bad")]));
    world.run_out(60_000);
    let words = "wrong user name or password: the registrar refused our answer";
    assert_eq!(states(&world), [format!("r1 sales@203.0.113.5 Some(false) {words}")]);
    assert_eq!(world.registrars[0].wrong, 1);

    // Back again, refreshed in time, and then removed: only our own binding goes.
    let stranger = "sip:sales@203.0.113.99:5060".to_owned();
    let bound = first.values().next().expect("one").clone();
    world.registrars[0].bindings.insert(stranger.clone(), bound);
    world.edge(60_100, wanted(vec![registration("r1", "sales", "other")]));
    world.run_out(400_000);
    assert_eq!(world.registrars[0].bindings.len(), 2);
    world.edge(400_100, wanted(Vec::new()));
    world.run_out(450_000);
    assert_eq!(states(&world), [""; 0]);
    assert_eq!(world.registrars[0].bindings.keys().collect::<Vec<_>>(), [&stranger]);
    assert!(world.is_idle(), "{}", world.ladder());
}

#[test]
fn a_restart_leaves_one_binding() {
    let mut world = world();
    world.run_out(1_000);
    let (bindings, registrar) = (world.kept_bindings.clone(), world.registrars.remove(0));
    let before = registrar.bindings.clone();
    assert_eq!(bindings.len(), 1);
    // Another process, with other chances, and what the first one kept.
    let mut world = World::new(2, settings());
    world.registrars.push(registrar);
    let registrations = vec![registration("r1", "sales", "secret")];
    world.edge(0, Input::RegistrationsReplaced { registrations, bindings: bindings.clone() });
    world.run_out(1_000);
    let after = &world.registrars[0].bindings;
    let one = |of: &BTreeMap<String, crate::sim::registrar::Bound>| {
        let (contact, bound) = of.first_key_value().expect("one");
        (of.len(), contact.clone(), bound.call_id.clone())
    };
    assert_eq!(one(after), one(&before));
    let cseq = |of: &BTreeMap<String, crate::sim::registrar::Bound>| {
        of.values().map(|bound| bound.cseq).max().expect("one")
    };
    assert!(cseq(after) > cseq(&before));

    // The address was another one in that life: the former contact is removed.
    let mut world = World::new(3, settings());
    let mut registrar = Registrar::new(PBX, "sales", "secret");
    let former = "sip:sales@198.51.100.77:5060;transport=udp".to_owned();
    let bound = before.values().next().expect("one").clone();
    registrar.bindings.insert(former.clone(), bound);
    world.registrars.push(registrar);
    let kept = bindings.values().next().expect("one").clone();
    let moved =
        BTreeMap::from([(RegistrationId("r1".into()), Binding { contact: former, ..kept })]);
    let registrations = vec![registration("r1", "sales", "secret")];
    world.edge(0, Input::RegistrationsReplaced { registrations, bindings: moved });
    world.run_out(1_000);
    assert_eq!(one(&world.registrars[0].bindings).1, one(&before).1);
    assert_eq!(world.registrars[0].bindings.len(), 1, "{}", world.ladder());
}

#[test]
fn an_outage_is_told_once_and_ends_by_itself() {
    let mut world = world();
    world.run_out(10_000);
    world.registrars[0].mood = Mood::Down;
    world.run_out(900_000);
    assert_eq!(states(&world), ["r1 sales@203.0.113.5 Some(false) no answer from the registrar"]);
    world.registrars[0].mood = Mood::Good;
    world.registrars[0].bindings.clear();
    world.run_out(1_000_000);
    assert_eq!(states(&world), ["r1 sales@203.0.113.5 Some(true) registered"]);
    let told = world.ladder().lines().filter(|line| line.contains("log")).count();
    // Up, the binding ran out, nobody answers, up.
    assert_eq!(told, 4, "{}", world.ladder());

    // Answers that are no outage have their words.
    world.registrars[0].mood = Mood::Says(403);
    world.run_out(1_300_000);
    assert_eq!(states(&world), ["r1 sales@203.0.113.5 Some(false) the registrar says 403 Said"]);
}

#[test]
fn a_second_drain_waits_for_no_registrar() {
    let mut world = world();
    world.run_out(1_000);
    world.registrars[0].mood = Mood::Down;
    world.edge(1_100, Input::Drain { grace: Duration::from_secs(60) });
    world.run_out(1_200);
    assert_eq!(world.drained, 0, "the removal waits for its answer");
    world.edge(1_300, Input::Drain { grace: Duration::ZERO });
    world.run_out(1_400);
    assert_eq!(world.drained, 1);
    // And a single one for five seconds only.
    let mut world = self::world();
    world.run_out(1_000);
    world.registrars[0].mood = Mood::Down;
    world.edge(1_100, Input::Drain { grace: Duration::from_secs(60) });
    world.run_out(6_200);
    assert_eq!(world.drained, 1);
}

/// A registration at `pbx.example` whose name leads elsewhere by the time that calls are placed: the
/// phone of the PBX and that of the other place, and who is called as whom.
fn placing(outbound_proxy: Option<&str>, calls: &[(&str, &str)]) -> World {
    placing_at(Manner::default(), outbound_proxy, calls)
}

/// The same, with a PBX of this manner.
fn placing_at(pbx: Manner, outbound_proxy: Option<&str>, calls: &[(&str, &str)]) -> World {
    let mut world = World::new(1, settings());
    for manner in [pbx, Manner::default(), Manner::default()] {
        world.callee(Manner { answers: Some((100, 200, "")), hangs_up: Some(500), ..manner });
    }
    let [pbx, elsewhere, proxy] = [0, 1, 2].map(|phone: usize| world.callees[phone].address);
    let registrar = outbound_proxy.map_or(pbx, |_| proxy).to_string();
    world.registrars.push(Registrar::new(&registrar, "sales", "secret"));
    world.names.insert("trunk.example".into(), vec![pbx]);
    world.names.insert("proxy.example".into(), vec![proxy]);
    let document = RegistrationDocument {
        username: "sales".into(),
        password: Secret::new("secret"),
        proxy: "trunk.example".into(),
        outbound_proxy: outbound_proxy.map(str::to_owned),
        ..RegistrationDocument::default()
    };
    let placed = Registration::compile(RegistrationId("r1".into()), &document).expect("good");
    world.edge(0, wanted(vec![placed]));
    world.run_out(1_000);
    world.names.insert("trunk.example".into(), vec![elsewhere]);
    for (ms, (to, from)) in (2_000..).step_by(2_000).zip(calls) {
        world.dial(ms, json!({ "to": to, "from": from }));
    }
    world.run_out(20_000);
    world.edge(21_000, wanted(Vec::new()));
    world.run_out(60_000);
    assert!(world.is_idle(), "{}", world.ladder());
    let joined = |facts: &Facts| facts.records.last().is_some_and(|cdr| cdr.joined_at.is_some());
    assert!(world.facts.values().all(joined), "{}", world.ladder());
    world
}

/// INVITEs that reached each phone.
fn invited(world: &World) -> Vec<usize> {
    let count = |heard: &[String]| heard.iter().filter(|method| *method == "INVITE").count();
    world.callees.iter().map(|callee| count(&callee.heard)).collect()
}

#[test]
fn calls_of_ours_to_a_registrar_go_over_the_binding_of_who_calls() {
    let world = placing(None, &[("sip:1@trunk.example", "sales")]);
    assert_eq!(invited(&world), [1, 0, 0], "on the flow of the binding\n{}", world.ladder());
    let invite = &world.callees[0].described[0];
    assert!(invite.contains("Contact: <sip:sales@198.51.100.1:5060;"), "{invite}");
    assert!(!invite.contains("\r\nRoute:"), "{invite}");
    // The port of its transport may be named.
    let world = placing(None, &[("sip:1@trunk.example:5060", "sales")]);
    assert_eq!(invited(&world), [1, 0, 0], "{}", world.ladder());
    // Of another user, and to another transport: as ever.
    for (to, from) in
        [("sip:1@trunk.example", "+15550100"), ("sip:1@trunk.example;transport=tcp", "sales")]
    {
        let world = placing(None, &[(to, from)]);
        assert_eq!(invited(&world), [0, 1, 0], "{to} of {from}\n{}", world.ladder());
    }
}

#[test]
fn a_pbx_that_challenges_a_call_is_answered_as_its_registration_would() {
    let challenges = Manner { challenges: true, ..Manner::default() };
    let world = placing_at(challenges, None, &[("sip:1@trunk.example:5060", "sales")]);
    assert_eq!(invited(&world), [2, 0, 0], "{}", world.ladder());
    let answer = world.callees[0].authorization.clone().unwrap_or_default();
    assert!(answer.contains("username=\"sales\""), "{answer}");
}

#[test]
fn a_registration_over_tls_serves_who_is_called_with_srtp_alone() {
    let rule = HostRule::parse("trunk.example").expect("a host");
    let srtp = SrtpSettings { targets: vec![(rule, Required)], ..SrtpSettings::default() };
    for is_registered in [true, false] {
        let mut settings = settings();
        settings.call.srtp = Arc::new(srtp.clone());
        let mut world = World::new(1, settings);
        world.callee(Manner { hangs_up: Some(500), encrypts: true, ..Manner::default() });
        let pbx = world.callees[0].address;
        world.ways.insert(pbx, (Transport::Tls, "198.51.100.1:5061".parse().expect("an address")));
        world.registrars.push(Registrar::new(&pbx.to_string(), "sales", "secret"));
        world.names.insert("trunk.example".into(), vec![pbx]);
        let document = RegistrationDocument {
            username: "sales".into(),
            password: Secret::new("secret"),
            proxy: "trunk.example;transport=tls".into(),
            ..RegistrationDocument::default()
        };
        let placed = Registration::compile(RegistrationId("r1".into()), &document).expect("good");
        world.edge(0, wanted(if is_registered { vec![placed] } else { Vec::new() }));
        world.dial(1_000, json!({ "to": "sip:1@trunk.example", "from": "sales" }));
        world.run_out(10_000);
        let is_refused = matches!(&world.dialled[..], [Err(DialRefusal::Unavailable { .. })]);
        assert_eq!(is_refused, !is_registered, "{:?}", world.dialled);
        let offer = world.callees[0].described.first().cloned().unwrap_or_default();
        assert_eq!(offer.contains(" RTP/SAVP "), is_registered, "{offer}\n{}", world.ladder());
    }
}

#[test]
fn calls_of_ours_to_a_registrar_go_by_its_outbound_proxy() {
    let calls = [("sip:1@trunk.example", "sales"), ("sip:1@trunk.example", "+15550100")];
    let world = placing(Some("proxy.example"), &calls);
    assert_eq!(invited(&world), [0, 1, 1], "{}", world.ladder());
    let invite = &world.callees[2].described[0];
    assert!(invite.starts_with("INVITE sip:1@trunk.example SIP/2.0\r\n"), "{invite}");
    assert!(invite.contains("\r\nRoute: <sip:proxy.example;lr>\r\n"), "{invite}");
    assert!(!world.callees[1].described[0].contains("\r\nRoute:"));
}
