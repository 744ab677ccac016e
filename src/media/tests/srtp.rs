//! A leg whose media is encrypted: nothing plain, forged or replayed passes, and keys change with the
//! plan.

use super::*;
use crate::rtp::srtp::{MasterKey, OVERHEAD_BYTES_MAX, Srtp, Suite};

const FRAME_MS: u64 = 20;

fn keys(suite: Suite, seed: u64) -> SrtpPlan {
    let mut entropy = Entropy::from_number(seed);
    let [send, receive] = [(); 2].map(|()| MasterKey::draw(suite, &mut entropy));
    SrtpPlan { send, receive, mki: None }
}

/// The other end of a plan.
fn far_end(plan: &SrtpPlan) -> Srtp {
    Srtp::new(&plan.receive, &plan.send, None)
}

fn encrypted(srtp: &SrtpPlan) -> MediaPlan {
    let mut plan = plan(CodecKind::Pcmu, 20);
    plan.leg.srtp = Some(srtp.clone());
    plan
}

fn packet(sequence: u16) -> Vec<u8> {
    let header = RtpHeader {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp: u32::from(sequence) * 160,
        ssrc: 7,
    };
    let mut packet = vec![level(sequence).0; 172];
    header.write(&mut packet);
    packet
}

fn protected(far: &mut Srtp, sequence: u16) -> Vec<u8> {
    let mut bytes = packet(sequence);
    let len = bytes.len();
    bytes.resize(len + OVERHEAD_BYTES_MAX, 0);
    let end = far.protect_rtp(&mut bytes, len).expect("protected");
    bytes.truncate(end);
    bytes
}

impl Scene {
    fn hand(&mut self, source: &str, bytes: &[u8]) {
        self.session.handle_rtp(self.now, LegId::CALLER, address(source), bytes);
        self.drain();
    }

    /// What was sent since, as the far end reads it: payloads of RTP, then RTCP packets.
    fn read(&mut self, far: &mut Srtp) -> (Vec<Vec<u8>>, usize) {
        let open = |sent: Sent| {
            let (marker, payload_type) = (sent.marker, sent.payload_type);
            let (sequence, timestamp, ssrc) = (sent.sequence, sent.timestamp, sent.ssrc);
            let header = RtpHeader { marker, payload_type, sequence, timestamp, ssrc };
            let mut bytes = vec![0; 12];
            header.write(&mut bytes);
            bytes.extend(sent.payload);
            let len = far.unprotect_rtp(&mut bytes).expect("ours verifies");
            bytes[12..len].to_vec()
        };
        let payloads = self.sent.drain(..).map(open).collect();
        let reports = self.reports.drain(..);
        let count =
            reports.map(|(.., mut bytes)| far.unprotect_rtcp(&mut bytes)).filter(Result::is_ok);
        (payloads, count.count())
    }

    fn failures(&self) -> u64 {
        self.session.report().srtp_failures
    }
}

#[test]
fn an_encrypted_call_is_heard_and_spoken_in_every_suite() {
    for (seed, suite) in (0..).zip(Suite::ALL) {
        let srtp = keys(suite, seed);
        let (mut scene, mut far) = (Scene::joined(&encrypted(&srtp)), far_end(&srtp));
        scene.say(&[level(50).1; 8_000]);
        for sequence in 0..400 {
            let bytes = protected(&mut far, sequence);
            assert!(!bytes.windows(8).any(|eight| eight == [level(sequence).0; 8]));
            scene.hand(CALLER, &bytes);
            scene.run_to(u64::from(sequence + 1) * FRAME_MS);
        }
        for sequence in 0..400 {
            let pcm = level(sequence).1;
            assert!(scene.heard.contains(&pcm), "{suite:?} {sequence}");
        }
        let (payloads, reports) = scene.read(&mut far);
        let spoken = payloads.iter().filter(|payload| **payload == [level(50).0; 160]).count();
        assert!(spoken > 45 && payloads.len() > 390, "{suite:?}: {spoken} of {}", payloads.len());
        assert!(reports > 0, "{suite:?}: RTCP is protected too");
        let mut control = scene.sent_report(&mut far);
        let before = scene.session.report().packets_refused;
        scene.session.handle_rtcp(scene.now, LegId::CALLER, address("192.0.2.1:4001"), &control);
        assert_eq!((scene.failures(), scene.session.report().packets_refused), (0, before));
        control[10] ^= 1;
        scene.session.handle_rtcp(scene.now, LegId::CALLER, address("192.0.2.1:4001"), &control);
        assert_eq!(scene.failures(), 1);
    }
}

impl Scene {
    /// A receiver report of the far end, protected.
    fn sent_report(&self, far: &mut Srtp) -> Vec<u8> {
        let report =
            crate::rtp::rtcp::Report { ssrc: 7, sender: None, blocks: &[], cname: "x", bye: false };
        let mut bytes = vec![0; 128];
        let len = report.write(&mut bytes).expect("it fits");
        let end = far.protect_rtcp(&mut bytes, len).expect("protected");
        bytes.truncate(end);
        bytes
    }
}

#[test]
fn what_does_not_verify_is_counted_and_changes_nothing() {
    let srtp = keys(Suite::AesCm128HmacSha1_80, 1);
    let (mut scene, mut far) = (Scene::joined(&encrypted(&srtp)), far_end(&srtp));
    let mut other = far_end(&keys(Suite::AesCm128HmacSha1_80, 2));
    for sequence in 0..1_000 {
        scene.hand(STRANGER, &protected(&mut other, sequence));
        scene.hand(CALLER, &packet(sequence));
    }
    assert_eq!(scene.failures(), 2_000);
    assert!(scene.events.is_empty() && scene.session.report().packets_received == 0);
    let first = protected(&mut far, 1);
    scene.hand(CALLER, &first);
    scene.hand(CALLER, &first);
    scene.hand(CALLER, &vec![0x80; 3_000]);
    assert_eq!((scene.failures(), scene.session.report().packets_received), (2_002, 1));
    assert_eq!(scene.events.len(), 1, "it was heard once: {:?}", scene.events);
    // A leg that hears forgeries only is silent, and says so.
    for second in 1..40 {
        scene.run_to(second * 1_000);
        scene.hand(CALLER, &packet(second as u16));
    }
    let silent = scene.events.iter().filter(|event| event.contains("LegSilent")).count();
    assert_eq!(silent, 1, "{:?}", scene.events);
}

#[test]
fn keys_follow_the_plan_and_the_rollover_counter_outlives_a_refresh() {
    let srtp = keys(Suite::AesCm128HmacSha1_80, 1);
    let plan = encrypted(&srtp);
    let (mut scene, mut far) = (Scene::joined(&plan), far_end(&srtp));
    for sequence in [65_534, 65_535, 0] {
        scene.hand(CALLER, &protected(&mut far, sequence));
    }
    let held = LegPlan { direction: Direction::SendOnly, ..plan.leg.clone() };
    for leg in [&held, &plan.leg] {
        scene.session.change(scene.now, LegId::CALLER, leg).expect("the same codec");
    }
    scene.hand(CALLER, &protected(&mut far, 1));
    assert_eq!((scene.failures(), scene.session.report().packets_received), (0, 4));
    scene.run_to(200);
    scene.read(&mut far);
    let fresh = keys(Suite::AeadAes256Gcm, 2);
    let rekeyed = encrypted(&fresh).leg;
    scene.session.change(scene.now, LegId::CALLER, &rekeyed).expect("the same codec");
    scene.hand(CALLER, &protected(&mut far, 2));
    let mut far = far_end(&fresh);
    scene.hand(CALLER, &protected(&mut far, 3));
    assert_eq!((scene.failures(), scene.session.report().packets_received), (0, 6));
    scene.run_to(400);
    assert!(!scene.read(&mut far).0.is_empty(), "ours have the new key");
    // Plain media was agreed on: what is encrypted is noise now, and what failed is remembered.
    scene.hand(CALLER, &packet(4));
    let plain = super::plan(CodecKind::Pcmu, 20).leg;
    scene.session.change(scene.now, LegId::CALLER, &plain).expect("the same codec");
    scene.hand(CALLER, &packet(5));
    assert_eq!((scene.failures(), scene.session.report().packets_received), (1, 7));
}
