//! Two legs of one codec that hear only each other: packets go on as they are. What happens to their
//! numbers, and when our own frames take over.

use super::*;
use crate::codec::{Encoder, EncoderSettings};
use crate::media::plan::Scene as Arrangement;
use crate::media::relay::{Incoming, Passage, Place, Relay};
use crate::rtp::srtp::{MasterKey, OVERHEAD_BYTES_MAX, Srtp, Suite};

const OPERATOR: LegId = LegId(1);
const SOURCES: [&str; 2] = [CALLER, "192.0.2.2:6000"];

/// A caller and an operator who hear each other.
struct Pair {
    session: MediaSession,
    now: Now,
    kind: CodecKind,
    /// What each leg was sent.
    sent: [Vec<Sent>; 2],
    events: Vec<String>,
    /// The far ends of encrypted legs.
    far: [Option<Srtp>; 2],
}

/// The payloads of `count` packets of 20 ms: silence, or speech-like sound.
fn payloads(kind: CodecKind, count: usize, loud: bool) -> Vec<Vec<u8>> {
    let rate_hz = kind.pcm_rate(16_000);
    let settings = EncoderSettings::default();
    let mut encoder = Encoder::with_format(kind, format(kind), rate_hz, settings).unwrap();
    let frame = rate_hz as usize / 50;
    let level = |n: usize| ((n * 7_919) % 4_001) as i16 - 2_000;
    let sample = |n: usize| if loud { level(n / 5) } else { 0 };
    let pcm: Vec<i16> = (0..count * frame).map(sample).collect();
    let encode = |frame: &[i16]| {
        let mut payload = vec![0; 1_400];
        let len = encoder.encode(frame, &mut payload).unwrap();
        payload.truncate(len);
        payload
    };
    pcm.chunks(frame).map(encode).collect()
}

fn talking() -> Arrangement {
    Arrangement::new().talking(Port::Leg(LegId::CALLER), Port::Leg(OPERATOR))
}

impl Pair {
    fn new(kind: CodecKind) -> Pair {
        Pair::with_plans([leg(kind, 0), leg(kind, 1)])
    }

    fn with_plans([caller, operator]: [LegPlan; 2]) -> Pair {
        let now = Now { at: Instant::from_nanos(3_000_000_000), wall: WallTime::default() };
        let kind = caller.codec.kind;
        let plan = MediaPlan { leg: caller, ..plan(kind, 20) };
        let mut session = MediaSession::new(now, &plan, Entropy::from_number(5)).unwrap();
        session.open_leg(now, OPERATOR, &operator, Entropy::from_number(6)).unwrap();
        session.arrange(now, talking());
        let (sent, far) = ([Vec::new(), Vec::new()], [None, None]);
        Pair { session, now, kind, sent, events: Vec::new(), far }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1_500];
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut buffer) {
            let leg = transmit.leg.0 as usize;
            let mut bytes = buffer[..transmit.len].to_vec();
            if (192..=223).contains(&bytes[1]) {
                continue;
            }
            if let Some(far) = &mut self.far[leg] {
                let len = far.unprotect_rtp(&mut bytes).expect("no number twice");
                bytes.truncate(len);
            }
            let view = RtpPacket::parse(&bytes).unwrap();
            let RtpHeader { marker, payload_type, sequence, timestamp, ssrc } = view.header;
            let (at, to, payload) = (self.now.at, transmit.to, view.payload.to_vec());
            let sent = Sent { at, to, marker, payload_type, sequence, timestamp, ssrc, payload };
            self.sent[leg].push(sent);
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(format!("{event:?}"));
        }
        while self.session.uplink(StreamId::FIRST).is_some_and(|uplink| uplink.pop().is_some()) {}
    }

    fn run_to(&mut self, ms: u64) {
        let end = Instant::from_nanos(3_000_000_000) + milliseconds(ms);
        while let Some(due) = self.session.poll_timeout().filter(|due| *due < end) {
            self.now = self.now.later(due.since(self.now.at));
            self.session.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.now.later(end.since(self.now.at));
    }

    /// A packet of the leg's peer, `number` packets after its first.
    fn say(&mut self, leg: usize, number: u32, payload: &[u8]) {
        let ticks = self.kind.rtp_clock_hz() / 50;
        let payload_type = self.kind.static_payload_type().unwrap_or(111);
        self.say_so(leg, payload_type, FIRST.wrapping_add(number as u16), number * ticks, payload);
    }

    fn say_so(&mut self, leg: usize, payload_type: u8, sequence: u16, ticks: u32, payload: &[u8]) {
        let (timestamp, ssrc) = (0xFFFF_F000u32.wrapping_add(ticks), 70 + leg as u32);
        let mut packet = vec![0; 12];
        RtpHeader { marker: ticks == 0, payload_type, sequence, timestamp, ssrc }
            .write(&mut packet);
        packet.extend_from_slice(payload);
        if let Some(far) = &mut self.far[leg] {
            let len = packet.len();
            packet.resize(len + OVERHEAD_BYTES_MAX, 0);
            let len = far.protect_rtp(&mut packet, len).unwrap();
            packet.truncate(len);
        }
        let source = address(SOURCES[leg]);
        self.session.handle_rtp(self.now, LegId(leg as u32), source, &packet);
        self.drain();
    }

    /// Both say these from `ms` on, each 20 ms, the operator 3 ms after the caller.
    fn talk(&mut self, ms: u64, from: u32, payloads: &[Vec<u8>]) {
        for (number, payload) in (from..).zip(payloads) {
            let at = ms + u64::from(number - from) * 20;
            self.run_to(at);
            self.say(0, number, payload);
            self.run_to(at + 3);
            self.say(1, number, payload);
        }
    }

    /// A pair whose packets are handed on since 4,000 ms at the latest; 200 packets were said.
    fn settled(kind: CodecKind) -> Pair {
        let mut pair = Pair::new(kind);
        pair.talk(0, 0, &payloads(kind, 200, false));
        pair
    }
}

/// Numbers wrap within the tests, and so do timestamps.
const FIRST: u16 = 65_300;

fn leg(kind: CodecKind, place: usize) -> LegPlan {
    let mut plan = plan(kind, 20).leg;
    plan.remote = RemoteMedia { rtp: Some(address(SOURCES[place])), rtcp: None, rtcp_mux: true };
    plan.signalling_source = address(SOURCES[place]).ip();
    plan
}

/// Sequence numbers one after the other, one SSRC, and timestamps that never go back.
fn check_continuity(sent: &[Sent]) {
    for pair in sent.windows(2) {
        let [before, after] = pair else { unreachable!("windows of two") };
        assert_eq!(after.sequence, before.sequence.wrapping_add(1), "at {}", Scene::ms(after.at));
        assert_eq!(after.ssrc, before.ssrc);
        let ahead = after.timestamp.wrapping_sub(before.timestamp) as i32;
        assert!(ahead > 0, "at {}: {ahead} ticks", Scene::ms(after.at));
    }
}

#[test]
fn each_codec_is_handed_on_byte_for_byte_as_it_comes() {
    for kind in CodecKind::ALL.into_iter().filter(|kind| is_here(*kind)) {
        let mut pair = Pair::settled(kind);
        let loud = payloads(kind, 100, true);
        let before = [0, 1].map(|leg| pair.sent[leg].len());
        pair.talk(4_000, 200, &loud);
        for leg in [0, 1] {
            check_continuity(&pair.sent[leg]);
            let sent = &pair.sent[leg][before[leg]..];
            assert_eq!(sent.len(), loud.len(), "{kind:?} {leg}: each goes on, and nothing else");
            let phase = if leg == 0 { 3 } else { 0 };
            for (number, (sent, payload)) in sent.iter().zip(&loud).enumerate() {
                assert_eq!(sent.payload, *payload, "{kind:?} {leg} {number}");
                assert_eq!(Scene::ms(sent.at), 4_000 + 20 * number as u64 + phase, "at once");
                let ticks = kind.rtp_clock_hz() / 50 * number as u32;
                assert_eq!(sent.timestamp, sent_first(&pair, leg, before).wrapping_add(ticks));
                assert!(!sent.marker, "{kind:?} {leg} {number}");
            }
        }
        let report = pair.session.report();
        assert_eq!((report.packets_received, report.packets_lost), (300, 0), "{kind:?}");
        assert_eq!((report.packets_late, report.packets_refused), (0, 0), "{kind:?} {report:?}");
        assert!(report.packets_sent >= 300 && report.mos_received > Some(3.0), "{report:?}");
    }
}

fn sent_first(pair: &Pair, leg: usize, before: [usize; 2]) -> u32 {
    pair.sent[leg][before[leg]].timestamp
}

#[test]
fn gaps_stay_gaps_and_what_is_overtaken_keeps_its_number() {
    let mut pair = Pair::settled(CodecKind::Pcma);
    let first = pair.sent[1].len();
    // Numbers after the first 200, as they arrive; the wrap lies at 236.
    let arrive = [200, 201, 203, 202, 205, 205, 203, 206, 209, 207, 235, 237, 236, 238, 238, 239];
    for (place, number) in arrive.into_iter().enumerate() {
        pair.run_to(4_000 + 20 * place as u64);
        pair.say(0, number, &[(number as u8).wrapping_add(0x80); 160]);
    }
    let went = [200, 201, 203, 202, 205, 206, 209, 207, 235, 237, 236, 238, 239];
    let sent = &pair.sent[1][first..];
    let (step, ticks) = (sent[0].sequence, sent[0].timestamp);
    assert_eq!(sent.len(), went.len());
    for (sent, number) in sent.iter().zip(went) {
        let ahead = number - 200;
        assert_eq!(sent.sequence, step.wrapping_add(ahead as u16), "{number}");
        assert_eq!(sent.timestamp, ticks.wrapping_add(160 * ahead), "{number}");
        assert_eq!(sent.payload, [(number as u8).wrapping_add(0x80); 160], "{number}");
    }
    let report = pair.session.report();
    assert_eq!(report.packets_duplicate, 3);
    assert_eq!(report.packets_late, 0);
}

#[test]
fn keys_are_told_and_their_numbers_close_up() {
    let mut pair = Pair::settled(CodecKind::Pcmu);
    let first = pair.sent[1].len();
    let mut number = 200;
    let mut at = 4_000;
    for press in 0..3 {
        for _ in 0..5 {
            pair.run_to(at);
            pair.say(0, number, &[0x90; 160]);
            (number, at) = (number + 1, at + 20);
        }
        let ticks = number * 160;
        for part in 1..=5u16 {
            pair.run_to(at);
            let [high, low] = (part * 160).to_be_bytes();
            let end = if part > 3 { 0x80 } else { 0 };
            let sequence = FIRST.wrapping_add(number as u16);
            pair.say_so(0, 101, sequence, ticks, &[press, end | 10, high, low]);
            (number, at) = (number + 1, at + 20);
        }
    }
    check_continuity(&pair.sent[1]);
    let sent = &pair.sent[1][first..];
    assert_eq!(sent.len(), 15, "nothing but the audio");
    assert_eq!(sent[5].timestamp.wrapping_sub(sent[4].timestamp), 160 * 6, "the time of the key");
    let digits = pair.events.iter().filter(|event| event.starts_with("Digit")).count();
    assert_eq!(digits, 3, "{:?}", pair.events);
}

#[test]
fn a_source_that_stops_is_followed_by_silence_and_comes_back_into_its_time() {
    for (kind, late) in [(CodecKind::Pcmu, 0), (CodecKind::Opus, 0), (CodecKind::Pcmu, 30)] {
        let mut pair = Pair::settled(kind);
        let sound = payloads(kind, 40, true);
        pair.talk(4_000, 200, &sound[..10]);
        let before = pair.sent[1].len();
        let last = pair.sent[1][before - 1].clone();
        pair.run_to(4_375);
        assert_eq!(pair.sent[1].len(), before, "{kind:?}: the far end bridges what jitter leaves");
        pair.run_to(4_800);
        let own = &pair.sent[1][before..];
        assert!((20..=22).contains(&own.len()), "{kind:?}: {} frames of our own", own.len());
        // What was held up comes at once; it would be a burst.
        let stalled = pair.sent[1].len();
        for number in 240 - late..240 {
            pair.say(0, number, &sound[0]);
        }
        assert_eq!(pair.sent[1].len(), stalled, "{kind:?}: its time is over");
        for (number, payload) in (240..).zip(&sound[10..]) {
            pair.run_to(4_800 + u64::from(number - 240) * 20 + 5);
            pair.say(0, number, payload);
        }
        check_continuity(&pair.sent[1]);
        let sent = &pair.sent[1][stalled..];
        let back = sent.iter().position(|sent| sent.payload == sound[11]).expect("it is back");
        assert!(back <= 2 && sent[..=back].iter().filter(|sent| sent.marker).count() == 1);
        let ticks = kind.rtp_clock_hz() / 50;
        let ahead = sent[back].timestamp.wrapping_sub(last.timestamp);
        assert_eq!(ahead, ticks * (241 - 209), "{kind:?}: its own time");
        let sent = &sent[back..];
        assert!(sent.iter().zip(&sound[11..]).all(|(sent, said)| sent.payload == *said));
        assert_eq!(sent.len(), 29);
    }
}

#[test]
fn another_ssrc_is_taken_after_two_packets_and_goes_on_in_our_numbers() {
    let mut pair = Pair::settled(CodecKind::Pcmu);
    let first = pair.sent[1].len();
    for number in 0..20u16 {
        pair.run_to(4_000 + 20 * u64::from(number));
        let mut packet = vec![0; 12];
        let (payload_type, timestamp) = (0, 5 + 160 * u32::from(number));
        let sequence = 40_000 + number;
        RtpHeader { marker: number == 0, payload_type, sequence, timestamp, ssrc: 9 }
            .write(&mut packet);
        packet.extend_from_slice(&[0x91; 160]);
        pair.session.handle_rtp(pair.now, LegId::CALLER, address(CALLER), &packet);
        pair.drain();
    }
    check_continuity(&pair.sent[1]);
    assert_eq!(pair.sent[1].len() - first, 19, "the first one is on probation");
}

#[test]
fn comfort_noise_makes_place_for_silence() {
    let mut pair = Pair::settled(CodecKind::Pcmu);
    pair.talk(4_000, 200, &payloads(CodecKind::Pcmu, 10, true));
    let before = pair.sent[1].len();
    pair.run_to(4_200);
    pair.say_so(0, 13, FIRST.wrapping_add(210), 210 * 160, &[60]);
    pair.run_to(5_000);
    let own_frames = pair.sent[1].len() - before;
    assert!((38..=41).contains(&own_frames), "{own_frames} frames");
    pair.talk(5_000, 250, &payloads(CodecKind::Pcmu, 10, true));
    check_continuity(&pair.sent[1]);
    assert!(pair.sent[1].len() >= before + own_frames + 9, "the source is back at once");
}

/// Spurts of ten packets, a second apart, and each other one 7 ms late; how each pause is told.
fn check_spurts(how: &str, marker: bool, noise: bool) {
    let mut pair = Pair::settled(CodecKind::Pcmu);
    let first = pair.sent[1].len();
    let ticks = |number: u32| 0xFFFF_F000u32.wrapping_add(number * 160);
    let mut sequence = FIRST.wrapping_add(200);
    let mut give = |pair: &mut Pair, marker, payload_type, number: u32, payload: &[u8]| {
        let timestamp = ticks(number);
        let mut packet = vec![0; 12];
        RtpHeader { marker, payload_type, sequence, timestamp, ssrc: 70 }.write(&mut packet);
        packet.extend_from_slice(payload);
        sequence = sequence.wrapping_add(1);
        pair.session.handle_rtp(pair.now, LegId::CALLER, address(CALLER), &packet);
        pair.drain();
    };
    for spurt in 0..20u32 {
        let begin = 4_000 + 1_000 * u64::from(spurt) + u64::from(spurt % 2) * 7;
        let number = 200 + 50 * spurt;
        for place in 0..10 {
            pair.run_to(begin + 20 * u64::from(place));
            give(&mut pair, marker && place == 0, 0, number + place, &[0x20 + place as u8; 160]);
        }
        if noise {
            pair.run_to(begin + 200);
            give(&mut pair, false, 13, number + 10, &[60]);
        }
    }
    check_continuity(&pair.sent[1]);
    let said = pair.sent[1][first..].iter().filter(|sent| (0x20..0x2A).contains(&sent.payload[0]));
    let said: Vec<&Sent> = said.collect();
    assert_eq!(said.len(), 200, "{how}: every packet is heard");
    for (number, spurt) in said.chunks(10).enumerate() {
        assert!(spurt[0].marker || number == 0, "{how} {number}");
        let began = spurt[0].timestamp.wrapping_sub(said[0].timestamp);
        let late = began.wrapping_sub(number as u32 * 50 * 160) as i32;
        assert!((0..=160).contains(&late), "{how} {number}: moved by {late} ticks");
        let together = spurt.windows(2).all(|pair| {
            pair[1].timestamp.wrapping_sub(pair[0].timestamp) == 160
                && pair[1].at.since(pair[0].at) == milliseconds(20)
        });
        assert!(together, "{how} {number}");
    }
    assert_eq!(pair.session.report().packets_late, 0, "{how}");
}

#[test]
fn a_spurt_after_a_filled_pause_is_heard_from_its_first_packet_and_moves_no_further_each_time() {
    check_spurts("marked", true, false);
    check_spurts("behind comfort noise", false, true);
    check_spurts("both", true, true);
}

#[test]
fn a_source_is_followed_while_keys_are_pressed() {
    let mut pair = Pair::settled(CodecKind::Pcmu);
    let sound: Vec<Vec<u8>> = (0..250u32).map(|n| vec![0x20 + (n % 90) as u8; 160]).collect();
    pair.talk(4_000, 200, &sound[..10]);
    // Longer than the source's numbers may jump.
    let tone = milliseconds(3_000);
    pair.session.send_keys(OPERATOR, &['5'], tone, milliseconds(60));
    pair.talk(4_200, 210, &sound[10..]);
    let numbers: Vec<u16> = pair.sent[1].iter().map(|sent| sent.sequence).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
    let heard = |payload: &Vec<u8>, from: u64| {
        let later = pair.sent[1].iter().filter(|sent| Scene::ms(sent.at) >= from);
        later.filter(|sent| sent.payload == *payload).count()
    };
    let ended = pair.sent[1].iter().rfind(|sent| sent.payload_type == 101).expect("a key");
    let back = (Scene::ms(ended.at) - 4_000) as usize / 20 + 4;
    assert!((155..175).contains(&back), "{back}");
    for (number, payload) in sound.iter().enumerate().skip(back) {
        assert_eq!(heard(payload, 4_000 + number as u64 * 20), 1, "{number}");
    }
    assert_eq!(pair.session.report().packets_refused, 0);
    assert_eq!(pair.session.report().packets_late, 0);
}

#[test]
fn comfort_noise_goes_on_to_a_listener_that_takes_it_and_its_pause_is_kept() {
    let mut plans = [leg(CodecKind::Pcmu, 0), leg(CodecKind::Pcmu, 1)];
    let noise = ComfortNoisePlan { send_payload_type: 97, receive_payload_type: 13 };
    plans[1].pauses.comfort_noise = Some(noise);
    let mut pair = Pair::with_plans(plans);
    pair.talk(0, 0, &payloads(CodecKind::Pcmu, 100, true));
    let before = pair.sent[1].len();
    pair.run_to(2_000);
    pair.say_so(0, 13, FIRST.wrapping_add(100), 100 * 160, &[60]);
    pair.run_to(6_900);
    let sent = &pair.sent[1][before..];
    assert_eq!(sent.len(), 1, "the pause is the far decoder's to fill");
    assert_eq!((sent[0].payload_type, &sent[0].payload[..]), (97, &[60][..]));
    pair.run_to(7_500);
    assert!(pair.sent[1].len() > before + 20, "not for ever");
    for number in 0..10 {
        pair.run_to(7_500 + 20 * u64::from(number));
        let sequence = FIRST.wrapping_add(101 + number as u16);
        pair.say_so(0, 0, sequence, (375 + number) * 160, &[0x94; 160]);
    }
    check_continuity(&pair.sent[1]);
    let last = pair.sent[1].last().expect("packets");
    assert_eq!((last.payload_type, &last.payload[..]), (0, &[0x94; 160][..]));
}

#[test]
fn packets_longer_than_the_listener_wants_are_coded_anew() {
    let mut pair = Pair::settled(CodecKind::Pcmu);
    let (from, timestamp) = (pair.sent[1].len(), 200 * 160);
    for number in 0..50u32 {
        pair.run_to(4_000 + u64::from(number) * 30);
        let sequence = FIRST.wrapping_add(200 + number as u16);
        pair.say_so(0, 0, sequence, timestamp + 240 * number, &[0x92; 240]);
    }
    check_continuity(&pair.sent[1]);
    let sent = &pair.sent[1][from..];
    assert!(sent.iter().all(|sent| sent.payload.len() == 160));
    assert!((72..=76).contains(&sent.len()), "{}", sent.len());
    let silent = sent.iter().filter(|sent| sent.payload.iter().all(|byte| *byte == 0xFF));
    assert!(silent.count() <= 2, "nothing is lost at the change");
}

#[test]
fn legs_that_differ_or_listen_for_tones_or_hold_are_not_handed_on() {
    let differs: [fn(&mut LegPlan); 4] = [
        |plan| plan.telephone_event = None,
        |plan| plan.direction = Direction::SendOnly,
        |plan| plan.direction = Direction::RecvOnly,
        |plan| plan.codec.kind = CodecKind::Pcma,
    ];
    for (number, differ) in differs.into_iter().enumerate() {
        let mut plans = [leg(CodecKind::Pcmu, 0), leg(CodecKind::Pcmu, 1)];
        differ(&mut plans[1]);
        let mut pair = Pair::with_plans(plans);
        for packet in 0..100 {
            pair.run_to(u64::from(packet) * 20 + 7);
            pair.say(0, packet, &[0x93; 160]);
        }
        let slots: Vec<u64> = pair.sent[1].iter().map(|sent| Scene::ms(sent.at) % 20).collect();
        assert!(slots.iter().all(|slot| *slot == 0), "{number}: by the pacer alone");
    }
    let modes = [IlbcMode::Ms20, IlbcMode::Ms30].map(CodecFormat::Ilbc);
    for (one, other, taken) in [(0, 0, true), (0, 1, false), (1, 1, true)] {
        assert_eq!(modes[one].takes(CodecKind::Ilbc, modes[other]), taken);
    }
}

#[test]
fn encrypted_legs_hand_on_under_their_own_keys_and_use_no_number_twice() {
    for suite in Suite::ALL {
        let mut entropy = Entropy::from_number(9);
        let mut plans = [leg(CodecKind::Pcmu, 0), leg(CodecKind::Pcmu, 1)];
        let far = [0, 1].map(|place| {
            let [send, receive] = [(); 2].map(|()| MasterKey::draw(suite, &mut entropy));
            let far = Srtp::new(&receive, &send, None);
            plans[place].srtp = Some(SrtpPlan { send, receive, mki: None });
            Some(far)
        });
        let mut pair = Pair::with_plans(plans);
        pair.far = far;
        let sound = payloads(CodecKind::Pcmu, 100, true);
        pair.talk(0, 0, &sound);
        check_continuity(&pair.sent[1]);
        let before = pair.sent[1].len();
        for (place, number) in [100, 102, 101, 103].into_iter().enumerate() {
            pair.run_to(2_000 + 20 * place as u64);
            pair.say(0, number, &sound[number as usize - 100]);
        }
        let sent: Vec<_> = pair.sent[1][before..].iter().map(|sent| &sent.payload).collect();
        assert_eq!(sent, [&sound[0], &sound[2], &sound[1], &sound[3]], "{suite:?}");
        assert_eq!(pair.session.report().srtp_failures, 0);
    }
}

/// A spurt behind each of twenty keys, whose 40 ms take the place of its beginning.
fn relay_among_keys() -> (Relay, Place) {
    let now = Instant::from_nanos(0);
    let mut relay = Relay::new(now, LegId::CALLER);
    relay.enter(now);
    let mut place = Place { sequence: 9, timestamp: 0, start: 0, clock_hz: 8_000 };
    for number in 0..20 {
        let passage = relay.take(now, spurt(70, number), place);
        let Passage::Taken { next: Some((sequence, timestamp)) } = passage else {
            panic!("{number}: {passage:?}");
        };
        assert!(relay.take_packet(&mut [0; 160]).is_some());
        relay.interrupt();
        let start = timestamp.wrapping_add(320);
        place = Place { sequence, timestamp: start, start, ..place };
    }
    (relay, place)
}

fn spurt(ssrc: u32, sequence: u16) -> Incoming<'static> {
    let timestamp = u32::from(sequence) * 160;
    let header = RtpHeader { marker: true, payload_type: 0, sequence, timestamp, ssrc };
    Incoming { header, ticks: Some(160), pauses: false, is_noise: false, payload: &[0x20; 160] }
}

#[test]
fn silence_gives_back_a_tenth_of_a_second_at_most_and_nothing_of_an_earlier_stream() {
    let (mut relay, _) = relay_among_keys();
    assert_eq!((relay.give_back(), relay.give_back()), (800, 0));
    let (mut relay, place) = relay_among_keys();
    let now = Instant::from_nanos(0);
    assert_eq!(relay.take(now, spurt(71, 5), place), Passage::Refused, "on probation");
    assert!(matches!(relay.take(now, spurt(71, 6), place), Passage::Taken { .. }));
    assert_eq!(relay.give_back(), 0);
}
