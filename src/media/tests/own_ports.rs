//! Packets that come from a port of ours are nobody's, even where the peer shares our address.

use super::*;
use crate::ground::ports::PortPool;

/// Another call's ports at the caller's own address.
const OURS: &str = "192.0.2.1:6000";
const OUR_CONTROL: &str = "192.0.2.1:6001";
/// Another port of the caller, which may be learned.
const ELSEWHERE: &str = "192.0.2.1:4002";

fn beside_another_call() -> (PortPool, MediaPlan) {
    let mut pool = PortPool::new(6_000, 6_001);
    pool.take(Instant::ZERO, &mut Entropy::from_number(1)).expect("it is free");
    let own = pool.own(&[address(CALLER).ip()]);
    (pool, MediaPlan { own, ..plan(CodecKind::Pcmu, 20) })
}

fn packet(source: &'static str, number: u16) -> Given {
    let timestamp = u32::from(number) * 160;
    Given { source, marker: false, payload_type: 0, sequence: number, timestamp, ssrc: 7 }
}

#[test]
fn a_port_of_ours_is_never_learned() {
    let (mut pool, plan) = beside_another_call();
    let mut scene = Scene::joined(&plan);
    for number in 0..40 {
        scene.give(packet(OURS, number), &[0x55; 160]);
        scene.give(packet(OUR_CONTROL, number), &[0x55; 160]);
        scene.run_to(u64::from(number + 1) * 20);
    }
    assert_eq!(scene.events, Vec::<String>::new(), "nobody was heard");
    let there = |scene: &Scene, text: &str| scene.sent.iter().any(|sent| sent.to == address(text));
    assert!(!there(&scene, OURS) && there(&scene, CALLER));
    let report = scene.session.report();
    assert_eq!((report.packets_received, report.packets_refused), (0, 80));
    scene.give(packet(ELSEWHERE, 40), &[0x55; 160]);
    scene.run_to(1_000);
    assert!(there(&scene, ELSEWHERE), "another port of that address is learned as ever");
    // Once the other call is over its port is as good as any.
    pool.put_back(Instant::ZERO, crate::ground::ports::RtpPort(6_000));
    let mut scene = Scene::joined(&plan);
    scene.give(packet(OURS, 0), &[0x55; 160]);
    assert_eq!(scene.session.report().packets_received, 1);
}

#[test]
fn reports_of_a_port_of_ours_are_no_sign_of_life() {
    let (_pool, plan) = beside_another_call();
    let mut scene = Scene::joined(&plan);
    scene.give(packet(CALLER, 0), &[0x55; 160]);
    let mut report = [0; 100];
    let empty =
        crate::rtp::rtcp::Report { ssrc: 7, sender: None, blocks: &[], cname: "x", bye: false };
    let len = empty.write(&mut report).expect("it fits");
    for ms in (1_000..40_000).step_by(1_000) {
        scene.run_to(ms);
        let (now, source) = (scene.now, address(OUR_CONTROL));
        scene.session.handle_rtcp(now, LegId::CALLER, source, &report[..len]);
        scene.drain();
    }
    let told: Vec<_> = scene.events.iter().filter(|event| event.contains("LegSilent")).collect();
    assert_eq!(told.len(), 1, "{:?}", scene.events);
    assert!(scene.session.report().packets_refused >= 39);
}
