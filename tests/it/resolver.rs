//! Next hops found with a real name server on loopback: what is asked, kept, and given up on.

use crate::rig::Place;
use crate::rig::dns::NameServer;
use hickory_proto::rr::RecordType;
use std::time::{Duration, Instant};
use voxedge::ground::Transport;
use voxedge::shell::resolver::{DnsSettings, Resolver};
use voxedge::sip::locator::{Families, Reach};
use voxedge::sip::msg::Uri;
use voxedge::sip::target::Target;

const REACH: Reach = Reach {
    packets: Families { v4: true, v6: false },
    connections: Families { v4: true, v6: true },
};

fn resolver(server: &NameServer) -> Resolver {
    let hosts = "/dev/null".into();
    Resolver::new(DnsSettings { servers: vec![server.address], hosts })
}

/// The hops of a URI as words, or the fault.
async fn located(resolver: &Resolver, uri: &str, seed: u64) -> Vec<String> {
    let target = Target::of_uri(&Uri::parse(uri).expect("a URI")).expect("a target");
    match resolver.locate(&target, seed, REACH).await {
        Ok(hops) => {
            let word = |transport: Transport| transport.via_token();
            hops.iter().map(|hop| format!("{} {}", word(hop.transport), hop.address)).collect()
        }
        Err(fault) => vec![format!("{fault:?}")],
    }
}

#[tokio::test]
async fn naptr_srv_and_addresses_lead_to_hops_and_are_kept() {
    let server = NameServer::start(
        "pbx.test 60 NAPTR 10 1 s SIPS+D2T - _sips._tcp.pbx.test
         pbx.test 60 NAPTR 20 1 s SIP+D2U - _sip._udp.pbx.test
         _sips._tcp.pbx.test 60 SRV 1 1 5061 one.pbx.test
         _sip._udp.pbx.test 60 SRV 2 1 5080 two.pbx.test
         _sip._udp.pbx.test 60 SRV 1 1 5070 alias.pbx.test
         one.pbx.test 60 A 127.0.3.1
         one.pbx.test 60 AAAA ::1
         alias.pbx.test 60 CNAME two.pbx.test
         two.pbx.test 60 A 127.0.3.2",
    );
    let resolver = resolver(&server);
    let hops = ["TLS 127.0.3.1:5061", "TLS [::1]:5061", "UDP 127.0.3.2:5070", "UDP 127.0.3.2:5080"];
    for _ in 0..3 {
        assert_eq!(located(&resolver, "sip:a@PBX.test", 1).await, hops);
    }
    for (name, kind) in [
        ("pbx.test", RecordType::NAPTR),
        ("_sips._tcp.pbx.test", RecordType::SRV),
        ("one.pbx.test", RecordType::A),
        ("alias.pbx.test", RecordType::A),
    ] {
        assert_eq!(server.asked(name, kind), 1, "{name} {kind}");
    }
}

#[tokio::test]
async fn a_name_that_changes_is_followed_when_its_time_is_over() {
    let server = NameServer::start("flip.test 0 A 127.0.3.1\nstay.test 300 A 127.0.3.1");
    let resolver = resolver(&server);
    for uri in ["sip:a@flip.test:5060", "sip:a@stay.test:5060"] {
        assert_eq!(located(&resolver, uri, 1).await, ["UDP 127.0.3.1:5060"]);
    }
    server.set("flip.test 0 A 127.0.3.9\nstay.test 300 A 127.0.3.9");
    assert_eq!(located(&resolver, "sip:a@flip.test:5060", 1).await, ["UDP 127.0.3.9:5060"]);
    assert_eq!(located(&resolver, "sip:a@stay.test:5060", 1).await, ["UDP 127.0.3.1:5060"]);
}

#[tokio::test]
async fn a_no_is_kept_and_a_failure_is_not() {
    let server = NameServer::start("sick.test 1 SERVFAIL");
    let resolver = resolver(&server);
    for _ in 0..3 {
        assert_eq!(located(&resolver, "sip:a@none.test:5060", 1).await, ["NoSuchName"]);
    }
    assert_eq!(server.asked("none.test", RecordType::A), 1);
    assert_eq!(located(&resolver, "sip:a@sick.test:5060", 1).await, ["Unanswered"]);
    server.set("sick.test 1 A 127.0.3.1");
    assert_eq!(located(&resolver, "sip:a@sick.test:5060", 1).await, ["UDP 127.0.3.1:5060"]);
}

#[tokio::test]
async fn silence_ends_within_the_budget_and_keeps_what_was_answered() {
    let server = NameServer::start(
        "_sip._udp.half.test 60 SRV 1 1 5060 mute.test
         _sip._udp.half.test 60 SRV 2 1 5060 well.test
         mute.test 60 SILENT
         well.test 60 A 127.0.3.2",
    );
    let resolver = resolver(&server);
    let begun = Instant::now();
    let found = located(&resolver, "sip:a@half.test;transport=udp", 1).await;
    assert_eq!(found, ["UDP 127.0.3.2:5060"]);
    assert_eq!(located(&resolver, "sip:a@mute.test:5060", 1).await, ["Unanswered"]);
    // Two searches of five seconds each at most; the rest is for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn weights_share_the_first_places() {
    let server = NameServer::start(
        "_sip._udp.w.test 60 SRV 1 90 5060 a.test
         _sip._udp.w.test 60 SRV 1 10 5060 b.test
         a.test 60 A 127.0.3.1
         b.test 60 A 127.0.3.2",
    );
    let resolver = resolver(&server);
    let mut first = 0;
    for seed in 0..400 {
        let found = located(&resolver, "sip:x@w.test;transport=udp", seed).await;
        assert_eq!(found.len(), 2);
        first += usize::from(found[0] == "UDP 127.0.3.1:5060");
    }
    assert!((320..=395).contains(&first), "{first} of 400");
    assert_eq!(server.asked("_sip._udp.w.test", RecordType::SRV), 1);
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again_when_it_changes() {
    let server = NameServer::start(
        "_sip._udp.pbx.test 60 SRV 1 1 5099 far.test
         far.test 60 A 127.0.3.9",
    );
    let place = Place::new();
    let hosts = place.path("hosts");
    std::fs::write(&hosts, "127.0.3.4 pbx.test pbx\n").expect("our own directory");
    let settings = DnsSettings { servers: vec![server.address], hosts: hosts.clone() };
    let resolver = Resolver::new(settings);
    for uri in ["sip:a@pbx.test", "sip:a@pbx", "sip:a@pbx:5060"] {
        assert_eq!(located(&resolver, uri, 1).await, ["UDP 127.0.3.4:5060"], "{uri}");
    }
    assert_eq!(server.asked("_sip._udp.pbx.test", RecordType::SRV), 0);
    std::fs::write(&hosts, "# nothing\n").expect("our own directory");
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    let file = std::fs::File::options().write(true).open(&hosts).expect("it is there");
    file.set_modified(later).expect("our own file");
    assert_eq!(located(&resolver, "sip:a@pbx.test", 1).await, ["UDP 127.0.3.9:5099"]);
}
