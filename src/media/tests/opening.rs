//! A leg whose path is opened by silence before anybody has taken the call.

use super::*;
use crate::media::plan::Scene as Arrangement;
use crate::media::sound;

const TARGET: LegId = LegId(1);
/// Elsewhere than its signalling, so that the path to it is not trusted.
const TARGET_MEDIA: &str = "203.0.113.5:5000";
const CALLER_LEG: Port = Port::Leg(LegId::CALLER);

/// A caller who hears music, and a target that rings.
fn ringing() -> Scene {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::heard(&plan);
    let remote = RemoteMedia { rtp: Some(address(TARGET_MEDIA)), rtcp: None, rtcp_mux: true };
    let target = LegPlan { remote, ..plan.leg };
    let opened = scene.session.open_leg(scene.now, TARGET, &target, Entropy::from_number(8));
    opened.expect("there is room");
    scene.session.play(scene.now, Some(sound::hold_music()));
    scene
}

/// What the caller hears while the target rings.
fn early() -> Arrangement {
    Arrangement::new().hearing(CALLER_LEG, Port::Leg(TARGET)).hearing(CALLER_LEG, Port::Sound)
}

impl Scene {
    fn arrange(&mut self, arrangement: Arrangement) {
        self.session.arrange(self.now, arrangement);
        self.drain();
    }

    /// Times and payloads of what went to the target.
    fn to_target(&self) -> Vec<(u64, &[u8])> {
        let there = self.sent.iter().filter(|sent| sent.to == address(TARGET_MEDIA));
        there.map(|sent| (Scene::ms(sent.at), sent.payload.as_slice())).collect()
    }

    fn target_speaks(&mut self, sequence: u16) {
        let mut packet = vec![0; 172];
        let timestamp = u32::from(sequence) * 160;
        RtpHeader { marker: false, payload_type: 0, sequence, timestamp, ssrc: 99 }
            .write(&mut packet);
        self.session.handle_rtp(self.now, TARGET, address(TARGET_MEDIA), &packet);
        self.drain();
    }
}

#[test]
fn silence_opens_the_path_in_pace_and_nothing_is_expected_of_the_target() {
    let mut scene = ringing();
    scene.arrange(early());
    scene.run_to(1_000);
    assert_eq!(scene.to_target(), [], "nobody speaks to it");
    scene.arrange(early().opening(TARGET));
    scene.run_to(60_000);
    let sent = scene.to_target();
    assert_eq!(sent.len(), 50, "an address that never answers is not flooded");
    let is_paced = sent.windows(2).all(|pair| pair[1].0 - pair[0].0 == 20);
    assert!(is_paced && sent.iter().all(|(_, payload)| *payload == [0xff; 160]), "{sent:?}");
    scene.target_speaks(1);
    scene.run_to(61_000);
    assert!((99..=101).contains(&scene.to_target().len()), "it goes on for who is there");
    let of_target: Vec<_> =
        scene.events.iter().filter(|event| event.contains("LegId(1)")).collect();
    assert_eq!(of_target.len(), 1, "{of_target:?}");
    assert!(of_target[0].contains("LegHeard"), "{of_target:?}");
    let reports = scene.reports.iter().filter(|(_, to, ..)| *to == address(TARGET_MEDIA));
    assert_eq!(reports.count(), 0, "reports begin with the call");
    let before = scene.to_target().len();
    scene.arrange(early());
    scene.run_to(62_000);
    assert_eq!(scene.to_target().len(), before, "it is given up");
}

#[test]
fn a_target_that_never_spoke_hears_the_caller_once_it_has_answered() {
    let mut scene = ringing();
    scene.arrange(early().opening(TARGET));
    scene.run_to(5_000);
    assert_eq!(scene.to_target().len(), 50);
    scene.arrange(Arrangement::new().talking(CALLER_LEG, Port::Leg(TARGET)));
    scene.run_to(10_000);
    assert_eq!(scene.to_target().len(), 100, "what opened the path does not count");
}
