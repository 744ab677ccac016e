//! Extended reports between two sessions of ours, the interval that a description asks for, and the
//! last report of a leg.

use super::*;
use crate::media::plan::{ControlPlan, ExtendedPlan};
use crate::media::quality::{self, Coding, Loss, Scale};
use crate::rtp::rtcp::extended::{ExtendedBlock, VoipMetrics};
use crate::rtp::rtcp::{Compound, Part};
use crate::rtp::srtp::{MasterKey, Suite};
use std::collections::VecDeque;

/// One way between the two, in milliseconds.
const WAY_MS: u64 = 30;

/// Two ends, and what is on its way to each.
struct Pair {
    ends: [Scene; 2],
    ways: [VecDeque<(u64, Vec<u8>)>; 2],
    packets: [u64; 2],
}

impl Pair {
    fn new(plans: [&MediaPlan; 2]) -> Pair {
        let mut seed = 50;
        let ends = plans.map(|plan| {
            seed += 1;
            let mut scene = Scene::new(plan);
            let entropy = Entropy::from_number(seed);
            scene.session = MediaSession::new(scene.now, plan, entropy).expect("a sound plan");
            scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
            scene.drain();
            scene
        });
        Pair { ends, ways: [VecDeque::new(), VecDeque::new()], packets: [0; 2] }
    }

    /// Runs to `ms`; `passes` says of each end's packets, by their count, which arrive.
    fn run_to(&mut self, ms: u64, passes: impl Fn(usize, u64) -> bool) {
        let begin = Scene::ms(self.ends[0].now.at);
        for at in (begin..=ms).step_by(10) {
            for end in 0..2 {
                self.ends[end].run_to(at);
                self.deliver(end, at);
                self.collect(end, at, &passes);
            }
        }
    }

    fn deliver(&mut self, end: usize, at: u64) {
        while let Some((due, bytes)) = self.ways[end].pop_front() {
            if due > at {
                self.ways[end].push_front((due, bytes));
                return;
            }
            let scene = &mut self.ends[end];
            if (192..=223).contains(&bytes[1]) {
                let source = address("192.0.2.1:4001");
                scene.session.handle_rtcp(scene.now, LegId::CALLER, source, &bytes);
            } else {
                scene.session.handle_rtp(scene.now, LegId::CALLER, address(CALLER), &bytes);
            }
            scene.drain();
        }
    }

    fn collect(&mut self, end: usize, at: u64, passes: &impl Fn(usize, u64) -> bool) {
        let scene = &mut self.ends[end];
        let way = &mut self.ways[1 - end];
        for sent in scene.sent.drain(..) {
            let Sent { marker, payload_type, sequence, timestamp, ssrc, .. } = sent;
            let mut bytes = vec![0; 12];
            RtpHeader { marker, payload_type, sequence, timestamp, ssrc }.write(&mut bytes);
            bytes.extend(sent.payload);
            self.packets[end] += 1;
            if passes(end, self.packets[end]) {
                way.push_back((at + WAY_MS, bytes));
            }
        }
        way.extend(scene.reports.drain(..).map(|(.., bytes)| (at + WAY_MS, bytes)));
    }

    fn told(&self, end: usize) -> VoipMetrics {
        self.ends[end].session.report().far_end.expect("the other end reported")
    }
}

fn extended(mut plan: MediaPlan) -> MediaPlan {
    plan.leg.control.extended =
        ExtendedPlan { voip_metrics: true, summary: true, reference_time: true };
    plan
}

#[test]
fn both_ends_tell_how_they_hear_each_other_with_and_without_srtp() {
    let mut entropy = Entropy::from_number(3);
    let [one, other] = [(); 2].map(|()| MasterKey::draw(Suite::ALL[0], &mut entropy));
    let keys = |send: &MasterKey, receive: &MasterKey| {
        Some(SrtpPlan { send: send.clone(), receive: receive.clone(), mki: None })
    };
    for srtp in [false, true] {
        let mut plans = [(); 2].map(|()| extended(plan(CodecKind::Pcmu, 20)));
        if srtp {
            plans[0].leg.srtp = keys(&one, &other);
            plans[1].leg.srtp = keys(&other, &one);
        }
        let mut pair = Pair::new([&plans[0], &plans[1]]);
        // The first end's words lose three of four packets once in two seconds.
        pair.run_to(60_000, |end, packet| end == 1 || ![50, 51, 53].contains(&(packet % 100)));
        let (first, second) = (pair.told(0), pair.told(1));
        assert_eq!((first.burst_density, first.gap_density, first.burst_ms), (192, 0, 80));
        assert!((1_700..=1_920).contains(&first.gap_ms), "{first:?}");
        assert_eq!((first.loss_rate, first.discard_rate), (7, 0), "{first:?}");
        assert_eq!((second.loss_rate, second.burst_density, second.burst_ms), (0, 0, 0));
        let loss = Loss::of(30, 1_000, 20).expect("a share");
        let rating = quality::rating(Coding::G711, loss, milliseconds(110)).round() as u8;
        let told = first.r_factor.expect("a rating");
        assert!(told.abs_diff(rating) <= 1, "{told} and {rating}");
        assert_eq!((second.r_factor, second.mos_conversation), (Some(93), Some(44)));
        assert!(first.mos_listening < second.mos_listening, "{first:?}");
        // Each way is looked at every 10 ms.
        assert!((60..=80).contains(&first.round_trip_ms), "{first:?}");
        // A packet, and the target on a clean network.
        assert_eq!(first.end_system_ms, 40, "{first:?}");
        assert_eq!((first.gmin, first.signal_level, first.external_r_factor), (16, None, None));
        let report = pair.ends[1].session.report();
        assert_eq!((report.burst_density, report.burst_ms, report.bursts), (192, 80, 30));
        assert!((59_000..=81_000).contains(&report.round_trip_us), "{report:?}");
        assert_eq!(pair.ends[0].session.report().srtp_failures, 0);
    }
}

#[test]
fn what_goes_out_of_a_wideband_codec_is_on_the_narrowband_scale() {
    let plans = [(); 2].map(|()| extended(plan(CodecKind::G722, 20)));
    let mut pair = Pair::new([&plans[0], &plans[1]]);
    pair.run_to(20_000, |_, _| true);
    let told = pair.told(1);
    let scores = (told.mos_listening, told.mos_conversation);
    assert_eq!((told.r_factor, scores), (Some(93), (Some(44), Some(44))));
    let report = pair.ends[1].session.report();
    assert_eq!((report.mos_scale, report.mos_received), (Scale::Wideband, Some(4.32)));
}

#[test]
fn a_report_carries_the_blocks_that_were_agreed_and_no_others() {
    for number in 0..8 {
        let [voip_metrics, summary, reference_time] = [1, 2, 4].map(|bit| number & bit != 0);
        let mut plan = plan(CodecKind::Pcmu, 20);
        plan.leg.control.extended = ExtendedPlan { voip_metrics, summary, reference_time };
        let mut pair = Pair::new([&plan, &extended(plan.clone())]);
        pair.run_to(4_000, |_, _| true);
        pair.ends[0].run_to(12_000);
        let (.., bytes) = pair.ends[0].reports.last().expect("a report");
        let mut names = Vec::new();
        for part in Compound::parse(bytes).expect("a compound") {
            let Part::Extended { blocks, .. } = part else { continue };
            for block in blocks {
                names.push(match block {
                    ExtendedBlock::VoipMetrics(_) => "metrics",
                    ExtendedBlock::Summary(_) => "summary",
                    ExtendedBlock::ReferenceTime { .. } => "time",
                    ExtendedBlock::ReferenceAnswers(answers) if answers.count() == 1 => "answer",
                    ExtendedBlock::ReferenceAnswers(_) | ExtendedBlock::Other { .. } => "other",
                });
            }
        }
        let expected = [
            (reference_time, "time"),
            (reference_time, "answer"),
            (summary, "summary"),
            (voip_metrics, "metrics"),
        ];
        let expected: Vec<_> =
            expected.into_iter().filter(|(agreed, _)| *agreed).map(|(_, name)| name).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn reports_keep_to_the_bandwidth_of_the_description() {
    for bits_per_s in [None, Some(4_000), Some(100)] {
        let mut plan = plan(CodecKind::Pcmu, 20);
        plan.leg.control = ControlPlan { bits_per_s, ..ControlPlan::default() };
        let mut scene = Scene::joined(&plan);
        scene.run_to(300_000);
        let times: Vec<u64> = scene.reports.iter().map(|report| Scene::ms(report.0)).collect();
        assert!(times.len() > 5, "{times:?}");
        // Two members share what is granted, packets with the 28 bytes below them (RFC 3550 §6.2), of which the
        // first are taken to have 128; an interval is half to one and a half times the mean (§6.3.1).
        let lengths = scene.reports.iter().map(|report| report.3.len() as u64).chain([128]);
        let means: Vec<u64> = lengths
            .map(|bytes| match bits_per_s {
                None => 5_000,
                Some(bits) => ((bytes + 28) * 8 * 2 * 1_000 / u64::from(bits)).max(5_000),
            })
            .collect();
        let (least, most) = (means.iter().min().unwrap() / 2, means.iter().max().unwrap() * 3 / 2);
        assert_eq!(bits_per_s == Some(100), least > 5_000, "{least}");
        for pair in times.windows(2) {
            let between = pair[1] - pair[0];
            assert!((least..=most).contains(&between), "{bits_per_s:?}: {times:?}");
        }
    }
    let mut none = plan(CodecKind::Pcmu, 20);
    none.leg.control.bits_per_s = Some(0);
    let mut scene = Scene::joined(&none);
    scene.run_to(60_000);
    assert!(scene.reports.is_empty());
    none.leg.control.bits_per_s = None;
    scene.session.change(scene.now, LegId::CALLER, &none.leg).expect("a sound plan");
    scene.run_to(70_000);
    assert!(!scene.reports.is_empty(), "a new description may have them again");
}

#[test]
fn the_last_report_says_goodbye_once_and_only_if_we_were_ever_heard() {
    let mut scene = Scene::new(&plan(CodecKind::Pcmu, 20));
    scene.session.say_goodbye(scene.now, LegId::CALLER);
    scene.drain();
    assert!(scene.reports.is_empty(), "nothing has begun");
    scene.session.handle_agent_joined(scene.now, StreamId::FIRST);
    scene.run_to(1_000);
    scene.reports.clear();
    scene.session.say_goodbye(scene.now, LegId::CALLER);
    scene.drain();
    let [(.., bytes)] = &scene.reports[..] else { panic!("{:?}", scene.reports) };
    let parts: Vec<Part<'_>> = Compound::parse(bytes).expect("a compound").collect();
    let ssrc = scene.sent[0].ssrc;
    assert!(
        matches!(
            parts[..],
            [Part::SenderReport { .. }, Part::Cname { .. }, Part::Bye { ssrc: Some(left) }]
                if left == ssrc
        ),
        "{parts:?}"
    );
    scene.run_to(60_000);
    assert_eq!(scene.reports.len(), 1, "nothing comes after it");
}
