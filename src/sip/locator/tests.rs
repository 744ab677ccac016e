//! Targets and tables in, questions and hops out.

use super::*;
use crate::sip::msg::Uri;

const V4: Families = Families { v4: true, v6: false };
const BOTH: Families = Families { v4: true, v6: true };

/// A line of a zone: `name TYPE data`.
fn zone(text: &str) -> BTreeMap<Question, Answer> {
    let mut zone: BTreeMap<Question, Answer> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words[0].to_owned();
        let number = |at: usize| words[at].parse().expect("a number");
        let bare = |at: usize| words[at].trim_end_matches('.').to_owned();
        let (question, answer) = match words[1] {
            "A" => (Question::A(name), Answer::Addresses(vec![bare(2).parse().expect("IPv4")])),
            "AAAA" => {
                (Question::Aaaa(name), Answer::Addresses(vec![bare(2).parse().expect("IPv6")]))
            }
            "SRV" => {
                let (priority, weight, port) = (number(2), number(3), number(4));
                let record = Srv { priority, weight, port, host: bare(5) };
                (Question::Srv(name), Answer::Srv(vec![record]))
            }
            "NAPTR" => {
                let record = Naptr {
                    order: number(2),
                    preference: number(3),
                    flags: words[4].to_owned(),
                    services: words[5].to_owned(),
                    has_regexp: words[6] != "-",
                    replacement: bare(7),
                };
                (Question::Naptr(name), Answer::Naptr(vec![record]))
            }
            "SILENT" => {
                for kind in [Question::Naptr, Question::Srv, Question::A, Question::Aaaa] {
                    zone.insert(kind(name.clone()), Answer::Unanswered);
                }
                continue;
            }
            other => panic!("{other}"),
        };
        match (zone.get_mut(&question), answer) {
            (Some(Answer::Addresses(all)), Answer::Addresses(more)) => all.extend(more),
            (Some(Answer::Srv(all)), Answer::Srv(more)) => all.extend(more),
            (Some(Answer::Naptr(all)), Answer::Naptr(more)) => all.extend(more),
            (_, answer) => drop(zone.insert(question, answer)),
        }
    }
    zone
}

/// What is asked, and what comes out, as words: `UDP 192.0.2.1:5060`.
fn located(uri: &str, reach: Reach, seed: u64, text: &str) -> (Vec<String>, Vec<String>) {
    let target = Target::of_uri(&Uri::parse(uri).expect("a URI")).expect("a target");
    let zone = zone(text);
    let mut locator = Locator::new(&target, seed, reach);
    let mut asked = Vec::new();
    while let Some(question) = locator.poll_question() {
        assert!(locator.result().is_none(), "it asks after its end");
        asked.push(match &question {
            Question::Naptr(name) => format!("NAPTR {name}"),
            Question::Srv(name) => format!("SRV {name}"),
            Question::A(name) => format!("A {name}"),
            Question::Aaaa(name) => format!("AAAA {name}"),
        });
        let answer = zone.get(&question).cloned().unwrap_or(Answer::Nothing);
        locator.handle_answer(&question, answer.clone());
        // A second answer changes nothing.
        locator.handle_answer(&question, Answer::Unanswered);
    }
    let result = locator.result().expect("all questions are answered");
    let hops = match result {
        Ok(hops) => hops
            .iter()
            .map(|hop| {
                assert_eq!(hop.identity, target.host, "the identity is the target's");
                format!("{} {}", hop.transport.via_token(), hop.address)
            })
            .collect(),
        Err(fault) => vec![format!("{fault:?}")],
    };
    (asked, hops)
}

#[track_caller]
fn check(uri: &str, text: &str, asked: &[&str], hops: &[&str]) {
    let reach = Reach { packets: V4, connections: V4 };
    let (real_asked, real_hops) = located(uri, reach, 1, text);
    assert_eq!(real_hops, hops, "{uri}");
    assert_eq!(real_asked, asked, "{uri}");
}

const PLAIN: &str = "h A 192.0.2.1";
const GUESSES: [&str; 4] = ["NAPTR h", "SRV _sip._udp.h", "SRV _sip._tcp.h", "SRV _sips._tcp.h"];

#[test]
fn a_literal_address_asks_nothing() {
    check("sip:a@192.0.2.9", "", &[], &["UDP 192.0.2.9:5060"]);
    check("sip:a@192.0.2.9:5070", "", &[], &["UDP 192.0.2.9:5070"]);
    check("sip:a@192.0.2.9;transport=tcp", "", &[], &["TCP 192.0.2.9:5060"]);
    check("sip:a@192.0.2.9;transport=tls", "", &[], &["TLS 192.0.2.9:5061"]);
    check("sips:a@192.0.2.9:5071", "", &[], &["TLS 192.0.2.9:5071"]);
    check("sip:a@[2001:db8::9]", "", &[], &["UDP [2001:db8::9]:5060"]);
}

#[test]
fn a_port_asks_for_addresses_only() {
    check("sip:a@h:5070", PLAIN, &["A h"], &["UDP 192.0.2.1:5070"]);
    check("sip:a@h:5060;transport=tcp", PLAIN, &["A h"], &["TCP 192.0.2.1:5060"]);
    check("sip:a@h:5060;transport=tls", PLAIN, &["A h"], &["TLS 192.0.2.1:5060"]);
    check("sips:a@h:5061", PLAIN, &["A h"], &["TLS 192.0.2.1:5061"]);
}

#[test]
fn a_transport_asks_for_its_servers() {
    let text = "h A 192.0.2.1\n_sip._tcp.h SRV 1 1 5080 s\ns A 192.0.2.2";
    check("sip:a@h;transport=tcp", text, &["SRV _sip._tcp.h", "A s"], &["TCP 192.0.2.2:5080"]);
    check("sip:a@h;transport=udp", text, &["SRV _sip._udp.h", "A h"], &["UDP 192.0.2.1:5060"]);
    check("sip:a@h;transport=tls", text, &["SRV _sips._tcp.h", "A h"], &["TLS 192.0.2.1:5061"]);
    check("sips:a@h", text, &["SRV _sips._tcp.h", "A h"], &["TLS 192.0.2.1:5061"]);
}

#[test]
fn a_bare_name_follows_naptr_in_order_and_preference() {
    let text = "h NAPTR 20 1 s SIP+D2U - u.h\nh NAPTR 10 9 S sip+d2t - t.h\n\
        h NAPTR 10 1 s SIPS+D2T - s.h\nh NAPTR 1 1 s SIP+D2S - sctp.h\nh NAPTR 1 1 u E2U+sip !x! .\n\
        s.h SRV 1 1 5061 a\nt.h SRV 1 1 5060 a\nu.h SRV 1 1 5062 b\na A 192.0.2.1\nb A 192.0.2.2";
    check(
        "sip:a@h",
        text,
        &["NAPTR h", "SRV s.h", "SRV t.h", "SRV u.h", "A a", "A b"],
        &["TLS 192.0.2.1:5061", "TCP 192.0.2.1:5060", "UDP 192.0.2.2:5062"],
    );
}

#[test]
fn a_naptr_may_lead_to_addresses_and_a_rewriting_one_is_not_followed() {
    let text = "h NAPTR 1 1 a SIP+D2T - x\nx A 192.0.2.3\nh NAPTR 0 1 s SIP+D2U !x! u.h";
    check("sip:a@h", text, &["NAPTR h", "A x"], &["TCP 192.0.2.3:5060"]);
    let text = "h NAPTR 1 1 s SIP+D2S - x\nh A 192.0.2.3";
    check("sip:a@h", text, &["NAPTR h"], &["NoTransport"]);
}

#[test]
fn without_naptr_the_first_transport_with_servers_wins() {
    let text = "_sip._tcp.h SRV 1 1 5080 s\n_sips._tcp.h SRV 1 1 5081 s\ns A 192.0.2.2";
    check("sip:a@h", text, &[&GUESSES[..], &["A s"]].concat(), &["TCP 192.0.2.2:5080"]);
    let others = "h NAPTR 1 1 u E2U+sip !x! .\nh A 192.0.2.1";
    check("sip:a@h", others, &[&GUESSES[..], &["A h"]].concat(), &["UDP 192.0.2.1:5060"]);
    check("sip:a@h", PLAIN, &[&GUESSES[..], &["A h"]].concat(), &["UDP 192.0.2.1:5060"]);
}

#[test]
fn naptr_without_servers_falls_back_to_the_host_over_its_transport() {
    let text = "h NAPTR 1 1 s SIP+D2T - t.h\nh A 192.0.2.1";
    check("sip:a@h", text, &["NAPTR h", "SRV t.h", "A h"], &["TCP 192.0.2.1:5060"]);
}

#[test]
fn priorities_are_kept_and_each_hop_comes_once() {
    let text = "_sip._udp.h SRV 20 1 5060 b\n_sip._udp.h SRV 10 1 5060 a\n_sip._udp.h SRV 30 1 5060 a\n\
        a A 192.0.2.1\na A 192.0.2.3\nb A 192.0.2.2";
    let hops = ["UDP 192.0.2.1:5060", "UDP 192.0.2.3:5060", "UDP 192.0.2.2:5060"];
    check("sip:a@h;transport=udp", text, &["SRV _sip._udp.h", "A a", "A b"], &hops);
}

#[test]
fn a_server_that_is_an_address_needs_no_question() {
    let text = "_sip._udp.h SRV 1 1 5080 192.0.2.7.";
    check("sip:a@h;transport=udp", text, &["SRV _sip._udp.h"], &["UDP 192.0.2.7:5080"]);
}

#[test]
fn a_service_that_is_not_offered_is_not_guessed_at() {
    let text = "_sip._udp.h SRV 0 0 0 .\nh A 192.0.2.1";
    check("sip:a@h;transport=udp", text, &["SRV _sip._udp.h"], &["NoTransport"]);
    check("sip:a@h", text, &GUESSES, &["NoTransport"]);
    let text = "_sip._udp.h SRV 0 0 0 .\n_sip._tcp.h SRV 1 1 5060 h\nh A 192.0.2.1";
    check("sip:a@h", text, &[&GUESSES[..], &["A h"]].concat(), &["TCP 192.0.2.1:5060"]);
}

#[test]
fn silence_is_not_a_no() {
    check("sip:a@h:5060", "h SILENT", &["A h"], &["Unanswered"]);
    check("sip:a@h:5060", "", &["A h"], &["NoSuchName"]);
    let text = "_sip._udp.h SILENT\nh A 192.0.2.1";
    check("sip:a@h;transport=udp", text, &["SRV _sip._udp.h"], &["Unanswered"]);
    check("sip:a@h", text, &GUESSES, &["Unanswered"]);
    // A name server that fails on NAPTR still knows the rest.
    let text = "h SILENT\n_sip._udp.h SRV 1 1 5060 s\ns A 192.0.2.2";
    check("sip:a@h", text, &[&GUESSES[..], &["A s"]].concat(), &["UDP 192.0.2.2:5060"]);
    // One silent name of two is no fault.
    let text = "_sip._udp.h SRV 1 1 5060 s\n_sip._udp.h SRV 2 1 5060 t\ns SILENT\nt A 192.0.2.2";
    let asked = ["SRV _sip._udp.h", "A s", "A t"];
    check("sip:a@h;transport=udp", text, &asked, &["UDP 192.0.2.2:5060"]);
}

#[test]
fn ipv6_is_asked_for_where_it_can_be_sent_from() {
    let text = "h AAAA 2001:db8::1\nh A 192.0.2.1";
    let both = Reach { packets: V4, connections: BOTH };
    let (asked, hops) = located("sip:a@h:5060;transport=tcp", both, 1, text);
    assert_eq!(asked, ["A h", "AAAA h"]);
    assert_eq!(hops, ["TCP 192.0.2.1:5060", "TCP [2001:db8::1]:5060"]);
    let (asked, hops) = located("sip:a@h:5060", both, 1, text);
    assert_eq!((asked, hops), (vec!["A h".to_owned()], vec!["UDP 192.0.2.1:5060".to_owned()]));
    let (_, hops) = located("sip:a@h:5060", both, 1, "h AAAA 2001:db8::1");
    assert_eq!(hops, ["NoSuchName"], "the only address is out of reach");
    let (asked, hops) = located("sip:a@h:5060", Reach::default(), 1, text);
    assert_eq!((asked, hops), (vec![], vec!["NoSuchName".to_owned()]));
}

#[test]
fn one_host_over_two_transports_keeps_each_ones_families() {
    let text = "h NAPTR 1 1 s SIP+D2T - t.h\nh NAPTR 2 1 s SIP+D2U - u.h\nt.h SRV 1 1 5060 a\n\
        u.h SRV 1 1 5060 a\na A 192.0.2.1\na AAAA 2001:db8::1";
    let reach = Reach { packets: V4, connections: BOTH };
    let (_, hops) = located("sip:a@h", reach, 1, text);
    assert_eq!(hops, ["TCP 192.0.2.1:5060", "TCP [2001:db8::1]:5060", "UDP 192.0.2.1:5060"]);
}

#[test]
fn no_answer_makes_it_ask_or_give_without_bound() {
    let mut text = String::new();
    for n in 0..500 {
        text += &format!("h NAPTR {n} 1 s SIP+D2U - s{n}\n");
        for m in 0..40 {
            text += &format!("s{n} SRV {m} 1 5060 t{n}x{m}\n");
        }
    }
    for n in 0..40 {
        for m in 0..300 {
            text += &format!("t0x{n} A 10.{n}.{}.{}\n", m / 250, m % 250);
        }
    }
    let reach = Reach { packets: BOTH, connections: BOTH };
    let (asked, hops) = located("sip:a@h", reach, 1, &text);
    assert_eq!(asked.len(), 1 + SERVICES_MAX + 2 * HOPS_MAX);
    assert_eq!(hops.len(), HOPS_MAX);
}

#[test]
fn the_seed_decides_among_equals() {
    let mut text = String::new();
    for n in 0..6 {
        text += &format!("_sip._udp.h SRV 1 10 5060 t{n}\nt{n} A 192.0.2.{n}\n");
    }
    let reach = Reach { packets: V4, connections: V4 };
    let first = |seed| located("sip:a@h;transport=udp", reach, seed, &text).1;
    assert_eq!(first(1), first(1));
    assert!((2..20).any(|seed| first(seed)[0] != first(1)[0]));
}
