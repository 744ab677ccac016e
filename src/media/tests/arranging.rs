//! Several legs, agents and sounds: who hears whom, and what a switch sounds like.

use super::*;
use crate::codec::{Encoder, EncoderSettings};
use crate::ground::Entropy;
use crate::media::plan::Scene as Arrangement;
use crate::media::sound;
use std::f64::consts::TAU;
use std::sync::Arc;

const OPERATOR: LegId = LegId(1);
const SECOND: StreamId = StreamId(1);
const CALLER_LEG: Port = Port::Leg(LegId::CALLER);
const OPERATOR_LEG: Port = Port::Leg(OPERATOR);
const AGENT: Port = Port::Agent(StreamId::FIRST);
const BRIEFER: Port = Port::Agent(SECOND);

const PEAK: f64 = 6_000.0;

/// A peer with a tone of its own.
struct Party {
    leg: LegId,
    source: SocketAddr,
    kind: CodecKind,
    rate_hz: u32,
    tone_hz: f64,
    speaks: bool,
    encoder: Encoder,
    decoder: Decoder,
    said: usize,
    sequence: u16,
    next: Instant,
    /// It says a word of 500 ms, and nothing for 300 ms.
    pauses: bool,
    /// The payloads that it sent.
    payloads: Vec<Vec<u8>>,
    /// What it hears, and the payloads of it.
    heard: Vec<i16>,
    got: Vec<Vec<u8>>,
    last: Option<(u16, u32, u32)>,
    markers: u32,
    events: Vec<Sent>,
    /// What it gets may come from a network that changes the order.
    reordered: bool,
}

/// An agent, which says its tone in bursts of 100 ms, one burst ahead.
struct Agent {
    stream: StreamId,
    hz: u32,
    tone_hz: f64,
    speaks: bool,
    said: usize,
    next: Instant,
    heard: Vec<i16>,
}

struct Stage {
    session: MediaSession,
    now: Now,
    parties: Vec<Party>,
    agents: Vec<Agent>,
    events: Vec<String>,
    /// Packets of parties come so much late, at random.
    jitter_us: u64,
    chance: Entropy,
    flying: Vec<(Instant, usize, Vec<u8>)>,
}

fn begin() -> Instant {
    Instant::from_nanos(3_000_000_000)
}

fn tone(hz: f64, rate_hz: u32, from: usize, count: usize) -> Vec<i16> {
    let step = TAU * hz / f64::from(rate_hz);
    (from..from + count).map(|n| (PEAK * (step * n as f64).sin()) as i16).collect()
}

fn leg_plan(kind: CodecKind, source: &str) -> LegPlan {
    let mut plan = plan(kind, 20).leg;
    plan.remote = RemoteMedia { rtp: Some(address(source)), rtcp: None, rtcp_mux: true };
    plan.signalling_source = address(source).ip();
    plan
}

impl Party {
    fn new(leg: LegId, kind: CodecKind, source: &str, tone_hz: f64) -> Party {
        let rate_hz = kind.pcm_rate(16_000);
        Party {
            leg,
            source: address(source),
            kind,
            rate_hz,
            tone_hz,
            speaks: true,
            encoder: Encoder::with_format(kind, format(kind), rate_hz, EncoderSettings::default())
                .unwrap(),
            decoder: Decoder::with_format(kind, format(kind), rate_hz).unwrap(),
            pauses: false,
            payloads: Vec::new(),
            got: Vec::new(),
            said: 0,
            sequence: 0,
            next: begin() + milliseconds(7),
            heard: Vec::new(),
            last: None,
            markers: 0,
            events: Vec::new(),
            reordered: false,
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        let frame = self.rate_hz as usize / 50;
        let mut pcm = tone(self.tone_hz, self.rate_hz, self.said, frame);
        if self.pauses {
            let ms = |n: usize| (n * 1_000 / self.rate_hz as usize % 800) as i32;
            for (n, sample) in (self.said..).zip(&mut pcm) {
                let level = ms(n).min(500 - ms(n)).clamp(0, 20);
                *sample = (i32::from(*sample) * level / 20) as i16;
            }
        }
        let mut packet = vec![0; 600];
        let len = self.encoder.encode(&pcm, &mut packet[12..]).unwrap();
        let payload_type = self.kind.static_payload_type().unwrap_or(111);
        let timestamp = (self.said / frame) as u32 * (self.kind.rtp_clock_hz() / 50);
        let ssrc = 70 + self.leg.0;
        let (marker, sequence) = (self.said == 0, self.sequence);
        RtpHeader { marker, payload_type, sequence, timestamp, ssrc }.write(&mut packet);
        packet.truncate(12 + len);
        self.payloads.push(packet[12..].to_vec());
        self.said += frame;
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    fn receive(&mut self, packet: &[u8]) {
        let view = RtpPacket::parse(packet).unwrap();
        let RtpHeader { sequence, timestamp, ssrc, marker, payload_type } = view.header;
        self.markers += u32::from(marker);
        if payload_type == 101 {
            self.events.push(Sent {
                at: begin(),
                to: self.source,
                marker,
                payload_type,
                sequence,
                timestamp,
                ssrc,
                payload: view.payload.to_vec(),
            });
            self.last = self.last.map(|(_, timestamp, ssrc)| (sequence, timestamp, ssrc));
            return;
        }
        self.got.push(view.payload.to_vec());
        if let Some((before, _, known)) = self.last {
            let ahead = sequence.wrapping_sub(before) as i16;
            assert_eq!(ssrc, known, "{:?}", self.leg);
            // What was overtaken on its way to us is so on its way to the listener.
            let near = if self.reordered { (-5..=6).contains(&ahead) } else { ahead == 1 };
            assert!(near && ahead != 0, "{:?}: {ahead}", self.leg);
            if ahead < 0 {
                return;
            }
        }
        self.last = Some((sequence, timestamp, ssrc));
        let mut pcm = [0; 5_760];
        let count = self.decoder.decode(view.payload, &mut pcm).unwrap();
        self.heard.extend_from_slice(&pcm[..count]);
    }
}

impl Stage {
    fn new(kind: CodecKind) -> Stage {
        let now = Now { at: begin(), wall: WallTime::default() };
        let plan = MediaPlan { leg: leg_plan(kind, CALLER), ..plan(kind, 20) };
        let session = MediaSession::new(now, &plan, Entropy::from_number(5)).unwrap();
        Stage {
            session,
            now,
            parties: vec![Party::new(LegId::CALLER, kind, CALLER, 400.0)],
            agents: Vec::new(),
            events: Vec::new(),
            jitter_us: 0,
            chance: Entropy::from_number(9),
            flying: Vec::new(),
        }
    }

    /// A caller and its agent, both of whom talk.
    fn joined(kind: CodecKind) -> Stage {
        let mut stage = Stage::new(kind);
        stage.run_to(100);
        stage.join(StreamId::FIRST, kind, 700.0);
        stage
    }

    fn join(&mut self, stream: StreamId, kind: CodecKind, tone_hz: f64) {
        let hz = plan(kind, 20).agent.output_hz;
        let (said, next, heard) = (0, self.now.at, Vec::new());
        self.agents.push(Agent { stream, hz, tone_hz, speaks: true, said, next, heard });
        self.session.handle_agent_joined(self.now, stream);
        self.drain();
    }

    fn open(&mut self, kind: CodecKind, source: &str, tone_hz: f64) {
        let entropy = Entropy::from_number(77);
        let plan = leg_plan(kind, source);
        self.session.open_leg(self.now, OPERATOR, &plan, entropy).unwrap();
        let mut party = Party::new(OPERATOR, kind, source, tone_hz);
        party.next = self.now.at + milliseconds(3);
        self.parties.push(party);
        self.drain();
    }

    fn arrange(&mut self, scene: Arrangement) {
        self.session.arrange(self.now, scene);
        self.drain();
    }

    fn ms(&self) -> u64 {
        self.now.at.since(begin()).as_millis() as u64
    }

    fn run_to(&mut self, ms: u64) {
        let end = begin() + milliseconds(ms);
        loop {
            let parties = self.parties.iter().map(|party| party.next);
            let agents = self.agents.iter().map(|agent| agent.next);
            let flying = self.flying.iter().map(|(at, ..)| *at);
            let due = parties.chain(agents).chain(flying).chain(self.session.poll_timeout()).min();
            let due = due.unwrap_or(end).max(self.now.at);
            if due > end {
                break;
            }
            self.now = self.now.later(due.since(self.now.at));
            self.do_due();
            if self.now.at == end && self.session.poll_timeout().is_none_or(|at| at > end) {
                break;
            }
        }
        self.now = self.now.later(end.since(self.now.at));
    }

    fn do_due(&mut self) {
        for index in 0..self.parties.len() {
            if self.parties[index].next > self.now.at {
                continue;
            }
            self.parties[index].next += milliseconds(20);
            let packet = self.parties[index].packet();
            if self.parties[index].speaks {
                let late = Duration::from_micros(self.chance.below(self.jitter_us + 1));
                self.flying.push((self.now.at + late, index, packet));
            }
        }
        self.flying.sort_by_key(|(at, ..)| *at);
        while self.flying.first().is_some_and(|(at, ..)| *at <= self.now.at) {
            let (_, index, packet) = self.flying.remove(0);
            let (leg, source) = (self.parties[index].leg, self.parties[index].source);
            self.session.handle_rtp(self.now, leg, source, &packet);
        }
        for agent in self.agents.iter_mut().filter(|agent| agent.next <= self.now.at) {
            agent.next += milliseconds(100);
            let count = agent.hz as usize / 10;
            let pcm = tone(agent.tone_hz, agent.hz, agent.said, count);
            agent.said += count;
            let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            if agent.speaks {
                self.session.handle_agent_audio(self.now, agent.stream, &bytes);
            }
        }
        self.session.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let mut buffer = [0; 1500];
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut buffer) {
            let party = self.parties.iter_mut().find(|party| party.leg == transmit.leg).unwrap();
            assert_eq!(transmit.to, party.source);
            if !(192..=223).contains(&buffer[1]) {
                party.receive(&buffer[..transmit.len]);
            }
        }
        let ms = self.ms();
        while let Some(event) = self.session.poll_event() {
            self.events.push(format!("{ms}:{event:?}"));
        }
        for agent in &mut self.agents {
            let Some(uplink) = self.session.uplink(agent.stream) else { continue };
            while let Some(frame) = uplink.pop() {
                agent.heard.extend_from_slice(frame);
            }
        }
    }

    fn party(&mut self, leg: LegId) -> &mut Party {
        self.parties.iter_mut().find(|party| party.leg == leg).unwrap()
    }
}

/// The part of the energy of `pcm` that lies at `hz`, in percent.
fn part(pcm: &[i16], hz: f64, rate_hz: u32) -> u32 {
    let step = TAU * hz / f64::from(rate_hz);
    let (mut real, mut imaginary, mut energy) = (0.0, 0.0, 1.0);
    for (n, sample) in pcm.iter().enumerate() {
        let value = f64::from(*sample);
        real += value * (step * n as f64).cos();
        imaginary += value * (step * n as f64).sin();
        energy += value * value;
    }
    let at = 2.0 * (real * real + imaginary * imaginary) / pcm.len().max(1) as f64;
    (100.0 * at / energy).round() as u32
}

/// The longest silence in milliseconds.
fn longest_gap(pcm: &[i16], rate_hz: u32) -> usize {
    let (mut longest, mut run) = (0, 0);
    for sample in pcm {
        run = if sample.unsigned_abs() < 200 { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest * 1_000 / rate_hz as usize
}

/// The largest step between two samples.
fn largest_step(pcm: &[i16]) -> u16 {
    pcm.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap_or(0)
}

/// The step of a full tone of the tests, and what G.711 adds.
fn own_step(hz: f64, rate_hz: u32) -> u16 {
    (PEAK * TAU * hz / f64::from(rate_hz)) as u16 + 700
}

#[test]
fn a_bridged_pair_hears_each_other_and_the_agent_hears_silence() {
    use CodecKind::{G722, Opus, Pcma, Pcmu};
    for (one, other) in [(Pcmu, Pcmu), (Pcmu, Pcma), (Pcmu, G722), (G722, Pcma), (Opus, Pcmu)] {
        let mut stage = Stage::joined(one);
        stage.run_to(1_000);
        stage.open(other, "192.0.2.2:6000", 500.0);
        stage.run_to(1_300);
        let operator = stage.party(OPERATOR);
        assert!(operator.heard.is_empty(), "nobody was to hear or to be heard yet");
        let hz = plan(one, 20).agent.input_hz as usize;
        let spoken = stage.agents[0].heard.len();
        let at = stage.parties[0].heard.len();
        stage.arrange(Arrangement::new().talking(CALLER_LEG, OPERATOR_LEG));
        stage.run_to(3_300);
        for (leg, tone_hz, from) in [(0, 500.0, at), (1, 400.0, 0)] {
            let party = &stage.parties[leg];
            let heard = &party.heard[from.saturating_sub(party.rate_hz as usize / 10)..];
            let gap = longest_gap(heard, party.rate_hz);
            assert!(gap <= 42, "{one:?} {other:?} {leg}: {gap} ms");
            let step = largest_step(heard);
            let own = own_step(700.0, party.rate_hz.min(8_000));
            assert!(step <= own, "{one:?} {other:?} {leg}: {step} of {own}");
            let settled = &party.heard[party.heard.len() - party.rate_hz as usize..];
            let part = part(settled, tone_hz, party.rate_hz);
            assert!(part >= 97, "{one:?} {other:?} {leg}: {part} %");
        }
        let agent = &stage.agents[0];
        let silent = agent.heard[spoken + hz / 10..].iter().all(|sample| *sample == 0);
        assert!(silent, "{one:?} {other:?}");
        // From the join on, and what was kept of the moment before it.
        let ms = agent.heard.len() * 1_000 / hz;
        assert!((3_120..=3_400).contains(&ms), "{one:?} {other:?}: {ms} ms");
    }
}

#[test]
fn a_parked_agent_is_not_heard_then_nor_later() {
    for kind in [CodecKind::Pcmu, CodecKind::G722, CodecKind::Opus] {
        let mut stage = Stage::joined(kind);
        stage.run_to(1_000);
        let before = stage.parties[0].heard.len();
        assert!(part(&stage.parties[0].heard[before / 2..], 700.0, stage.parties[0].rate_hz) > 95);
        stage.session.play(stage.now, Some(sound::hold_music()));
        stage.arrange(Arrangement::new().hearing(CALLER_LEG, Port::Sound));
        stage.agents[0].tone_hz = 1_500.0;
        stage.run_to(3_000);
        stage.agents[0].speaks = false;
        stage.run_to(3_100);
        let parked = stage.parties[0].heard.len();
        let rate_hz = stage.parties[0].rate_hz;
        let music = &stage.parties[0].heard[before..parked];
        assert!(longest_gap(music, rate_hz) < 500, "music plays");
        assert!(part(music, 1_500.0, rate_hz) < 2 && part(music, 700.0, rate_hz) < 2);
        assert!(largest_step(music) <= own_step(700.0, 8_000), "{kind:?}");
        stage.arrange(Arrangement::new().talking(CALLER_LEG, AGENT));
        stage.run_to(3_500);
        stage.agents[0].tone_hz = 600.0;
        stage.agents[0].speaks = true;
        stage.run_to(4_500);
        let after = &stage.parties[0].heard[parked..];
        assert!(part(after, 1_500.0, rate_hz) < 1, "{kind:?}: nothing stale");
        assert!(part(&after[after.len() / 2..], 600.0, rate_hz) > 90, "{kind:?}");
        let report = stage.session.report();
        assert!((1_900..=2_300).contains(&report.agent_dropped_ms), "{report:?}");
        let hz = plan(kind, 20).agent.input_hz as usize;
        let heard_ms = stage.agents[0].heard.len() * 1_000 / hz;
        assert!((4_320..=4_600).contains(&heard_ms), "{kind:?}: {heard_ms} ms");
    }
}

#[test]
fn an_agent_briefs_an_operator_while_the_caller_hears_music_and_then_all_talk() {
    for (one, other) in [(CodecKind::Pcmu, CodecKind::Pcma), (CodecKind::Opus, CodecKind::G722)] {
        let mut stage = Stage::joined(one);
        stage.run_to(500);
        stage.open(other, "192.0.2.2:6000", 500.0);
        stage.session.play(stage.now, Some(sound::hold_music()));
        assert!(stage.session.await_agent(stage.now, SECOND));
        assert!(!stage.session.await_agent(stage.now, StreamId(2)), "two at most");
        let briefing =
            Arrangement::new().hearing(CALLER_LEG, Port::Sound).talking(OPERATOR_LEG, BRIEFER);
        stage.arrange(briefing);
        stage.run_to(700);
        stage.join(SECOND, one, 900.0);
        stage.run_to(2_700);
        let hz = plan(one, 20).agent.input_hz;
        let operator = &stage.parties[1];
        let last = |pcm: &[i16], rate_hz: u32| pcm[pcm.len() - rate_hz as usize..].to_vec();
        let heard = last(&operator.heard, operator.rate_hz);
        assert!(part(&heard, 900.0, operator.rate_hz) > 95, "{one:?}: the operator is briefed");
        assert!(part(&last(&stage.agents[1].heard, hz), 500.0, hz) > 95, "and is heard");
        assert!(last(&stage.agents[0].heard, hz).iter().all(|sample| *sample == 0), "parked");
        assert!(part(&last(&stage.parties[0].heard, 8_000), 900.0, 8_000) < 1);
        // Three in one room: each hears the two others.
        let room = Arrangement::new()
            .talking(CALLER_LEG, OPERATOR_LEG)
            .talking(CALLER_LEG, BRIEFER)
            .talking(OPERATOR_LEG, BRIEFER);
        stage.arrange(room);
        stage.run_to(4_700);
        for (index, others) in [(0, [500.0, 900.0]), (1, [400.0, 900.0])] {
            let party = &stage.parties[index];
            let heard = last(&party.heard, party.rate_hz);
            let parts = others.map(|tone_hz| part(&heard, tone_hz, party.rate_hz));
            assert!(parts.iter().all(|part| (44..=56).contains(part)), "{index}: {parts:?}");
        }
        let heard = last(&stage.agents[1].heard, hz);
        let parts = [400.0, 500.0].map(|tone_hz| part(&heard, tone_hz, hz));
        assert!(parts.iter().all(|part| (44..=56).contains(part)), "the agent: {parts:?}");
        let ms = stage.agents[1].heard.len() as u64 * 1_000 / u64::from(hz);
        assert!((3_860..=4_600).contains(&ms), "{ms} ms since its join");
        // The briefer leaves, the operator goes, and the first agent goes on with the caller.
        stage.session.leave_agent(stage.now, SECOND);
        assert!(stage.session.close_leg(stage.now, OPERATOR).is_some());
        assert!(stage.session.close_leg(stage.now, OPERATOR).is_none());
        stage.parties.truncate(1);
        stage.agents.truncate(1);
        stage.flying.retain(|(_, index, _)| *index == 0);
        stage.arrange(Arrangement::new().talking(CALLER_LEG, AGENT));
        stage.run_to(6_000);
        let party = &stage.parties[0];
        assert!(part(&last(&party.heard, party.rate_hz), 700.0, party.rate_hz) > 95, "{one:?}");
        assert!(!stage.events.iter().any(|event| event.contains("AgentLeft")));
        assert!(stage.session.await_agent(stage.now, StreamId(2)), "a place is free again");
    }
}

#[test]
fn loud_speakers_are_mixed_without_wrapping() {
    let mut stage = Stage::joined(CodecKind::Pcmu);
    stage.open(CodecKind::Pcmu, "192.0.2.2:6000", 402.0);
    let mut lane = vec![30_000; 160];
    let scene = Arrangement::new().hearing(OPERATOR_LEG, CALLER_LEG).hearing(OPERATOR_LEG, AGENT);
    stage.arrange(scene);
    stage.agents[0].speaks = false;
    for _ in 0..20 {
        lane.fill(30_000);
        let bytes: Vec<u8> = lane.iter().flat_map(|sample: &i16| sample.to_le_bytes()).collect();
        stage.session.handle_agent_audio(stage.now, StreamId::FIRST, &bytes);
        stage.run_to(stage.ms() + 20);
    }
    let operator = &stage.parties[1];
    let lowest = operator.heard.iter().rev().take(1_600).min();
    assert!(lowest > Some(&20_000), "{lowest:?}");
    assert_eq!(operator.heard.iter().max(), Some(&32_124), "the loudest of the law");
}

#[test]
fn a_sound_that_does_not_repeat_tells_its_end_and_one_that_does_has_no_seam() {
    let mut stage = Stage::joined(CodecKind::Pcmu);
    stage.agents[0].speaks = false;
    stage.run_to(500);
    stage.session.play(stage.now, Some(sound::lost_agent()));
    stage.run_to(3_000);
    assert!(!stage.events.iter().any(|event| event.contains("SoundPlayed")), "nobody hears it");
    stage.arrange(Arrangement::new().talking(CALLER_LEG, AGENT).hearing(CALLER_LEG, Port::Sound));
    stage.run_to(5_000);
    let played: Vec<_> = stage.events.iter().filter(|event| event.contains("Sound")).collect();
    assert_eq!(played, ["4460:SoundPlayed"]);
    let pcm: Box<[i16]> = tone(300.0, 24_000, 5, 12_345).into();
    let from = stage.parties[0].heard.len();
    stage.session.play(stage.now, Some(Arc::new(Sound { hz: 24_000, pcm, repeats: true })));
    stage.arrange(Arrangement::new().hearing(CALLER_LEG, Port::Sound));
    stage.run_to(8_000);
    let heard = &stage.parties[0].heard[from..];
    assert!(part(&heard[500..3_500], 300.0, 8_000) > 95);
    assert!(largest_step(heard) <= own_step(300.0, 8_000), "{}", largest_step(heard));
    assert!(longest_gap(heard, 8_000) <= 42);
    stage.session.play(stage.now, None);
    stage.run_to(8_500);
    assert!(stage.parties[0].heard.iter().rev().take(3_000).all(|sample| sample.abs() < 40));
    let empty = Sound { hz: 8_000, pcm: Box::default(), repeats: false };
    stage.session.play(stage.now, Some(Arc::new(empty)));
    stage.drain();
    assert_eq!(stage.events.iter().filter(|event| event.contains("Sound")).count(), 2);
}

#[test]
fn a_bridge_on_a_jittery_network_settles() {
    let mut stage = Stage::joined(CodecKind::Pcmu);
    stage.jitter_us = 35_000;
    stage.open(CodecKind::Pcma, "192.0.2.2:6000", 500.0);
    stage.arrange(Arrangement::new().talking(CALLER_LEG, OPERATOR_LEG));
    stage.run_to(20_000);
    for (index, tone_hz) in [(0, 500.0), (1, 400.0)] {
        let party = &stage.parties[index];
        let settled = &party.heard[party.heard.len() - 8 * 8_000..];
        assert!(longest_gap(settled, 8_000) <= 20, "{index}: {}", longest_gap(settled, 8_000));
        assert!(largest_step(settled) <= own_step(700.0, 8_000), "{index}");
        assert!(part(&settled[56_000..], tone_hz, 8_000) > 90, "{index}");
    }
}

#[test]
fn each_leg_keeps_its_watchdog_whoever_hears_it() {
    let mut stage = Stage::joined(CodecKind::Pcmu);
    stage.open(CodecKind::Pcmu, "192.0.2.2:6000", 500.0);
    stage.parties[1].speaks = false;
    stage.run_to(40_000);
    assert!(!stage.events.iter().any(|event| event.contains("LegSilent")), "it may be ringing");
    stage.session.play(stage.now, Some(sound::hold_music()));
    let music = Arrangement::new().hearing(CALLER_LEG, Port::Sound).talking(OPERATOR_LEG, AGENT);
    stage.arrange(music);
    stage.run_to(50_000);
    stage.parties[0].speaks = false;
    stage.run_to(100_000);
    let silent: Vec<_> = stage.events.iter().filter(|event| event.contains("Silent")).collect();
    let expected = ["70000:LegSilent { leg: LegId(1) }", "79967:LegSilent { leg: LegId(0) }"];
    assert_eq!(silent.len(), 2, "{silent:?}");
    assert_eq!(silent[0], expected[0]);
    assert!(silent[1].ends_with("LegSilent { leg: LegId(0) }"), "{silent:?}");
    let held = LegPlan { direction: Direction::SendOnly, ..leg_plan(CodecKind::Pcmu, CALLER) };
    stage.session.change(stage.now, LegId::CALLER, &held).unwrap();
    stage.run_to(1_899_000);
    assert_eq!(stage.events.iter().filter(|event| event.contains("HeldTooLong")).count(), 0);
    stage.run_to(1_901_000);
    assert_eq!(stage.events.iter().filter(|event| event.contains("HeldTooLong")).count(), 1);
}

#[test]
fn keys_go_out_as_telephone_events_and_words_wait_meanwhile() {
    for kind in [CodecKind::Pcmu, CodecKind::Opus] {
        let mut stage = Stage::joined(kind);
        stage.run_to(1_000);
        let tone_ms = milliseconds(90);
        stage.session.send_keys(LegId::CALLER, &['1', 'x', '#'], tone_ms, milliseconds(60));
        stage.session.send_keys(LegId::CALLER, &['d'], milliseconds(2_000), milliseconds(60));
        let played = stage.session.report().agent_played_ms;
        stage.run_to(3_000);
        assert!(stage.session.report().agent_played_ms <= played + 20, "words wait");
        stage.run_to(3_800);
        assert!(stage.session.report().agent_played_ms > played + 300, "and go on");
        let clock = kind.rtp_clock_hz();
        let mut receiver = crate::rtp::telephone_event::Receiver::new(clock);
        let mut digits = Vec::new();
        let events = &stage.parties[0].events;
        for (index, event) in events.iter().enumerate() {
            let now = begin() + milliseconds(20 * index as u64);
            let (timestamp, marker) = (event.timestamp, event.marker);
            receiver.receive(now, timestamp, marker, &event.payload, &mut digits);
        }
        let digits: Vec<_> = digits.iter().map(|digit| (digit.digit, digit.duration_ms)).collect();
        assert_eq!(digits, [('1', 90), ('#', 90), ('D', 2_000)], "{kind:?}");
        assert_eq!(events.iter().filter(|event| event.marker).count(), 3, "{kind:?}");
        let ends = events.iter().filter(|event| event.payload[1] & 0x80 != 0).count();
        assert_eq!(ends, 9, "{kind:?}: three for each");
        let ahead = events[7].timestamp.wrapping_sub(events[0].timestamp);
        let ms = u64::from(ahead) * 1_000 / u64::from(clock);
        assert_eq!(ms, 5 * 20 + 60, "{kind:?}: from one key to the next");
        let sent: Vec<_> = stage.events.iter().filter(|event| event.contains("KeysSent")).collect();
        assert_eq!(sent.len(), 2, "{sent:?}");
    }
}

#[test]
fn keys_go_out_as_tones_where_no_events_were_agreed() {
    let mut stage = Stage::joined(CodecKind::Pcma);
    let plain = LegPlan { telephone_event: None, ..leg_plan(CodecKind::Pcma, CALLER) };
    stage.session.change(stage.now, LegId::CALLER, &plain).unwrap();
    stage.agents[0].speaks = false;
    stage.run_to(1_000);
    let from = stage.parties[0].heard.len();
    stage.session.send_keys(LegId::CALLER, &['7'], milliseconds(100), milliseconds(100));
    stage.run_to(1_400);
    let heard = &stage.parties[0].heard[from..];
    let loud = heard.iter().position(|sample| sample.unsigned_abs() > 1_000).unwrap();
    let key = &heard[loud..loud + 760];
    let parts = [852.0, 1_209.0].map(|tone_hz| part(key, tone_hz, 8_000));
    assert!((34..=44).contains(&parts[0]) && (56..=66).contains(&parts[1]), "{parts:?}");
    assert!(stage.parties[0].events.is_empty());
    let over = heard.iter().rposition(|sample| sample.unsigned_abs() > 1_000).unwrap();
    assert!((760..=800).contains(&(over - loud)), "{}", over - loud);
    assert!(stage.events.iter().any(|event| event.ends_with("KeysSent { leg: LegId(0) }")));
}

#[test]
fn whatever_is_arranged_in_whatever_order_rtp_goes_on_and_agents_hear_a_second_each_second() {
    for seed in 0..40 {
        let mut chance = Entropy::from_number(seed);
        let kinds = [CodecKind::Pcmu, CodecKind::Pcma, CodecKind::G722, CodecKind::Opus];
        let kind = kinds[chance.below(4) as usize];
        let mut stage = Stage::joined(kind);
        stage.jitter_us = chance.below(60_000);
        stage.parties[0].reordered = stage.jitter_us > 20_000;
        let (mut operator, mut second) = (false, false);
        let mut joined = [Some(100), None];
        for _ in 0..40 {
            stage.run_to(stage.ms() + chance.below(400));
            match chance.below(8) {
                0 if !operator => {
                    stage.open(kinds[chance.below(4) as usize], "192.0.2.2:6000", 500.0);
                    stage.parties[1].reordered = stage.jitter_us > 20_000;
                    operator = true;
                }
                1 if operator => {
                    stage.session.close_leg(stage.now, OPERATOR);
                    stage.parties.truncate(1);
                    stage.flying.retain(|(_, index, _)| *index == 0);
                    operator = false;
                }
                2 if !second => {
                    stage.join(SECOND, kind, 900.0);
                    joined[1] = Some(stage.ms());
                    second = true;
                }
                3 => stage.session.play(stage.now, Some(sound::hold_music())),
                4 => stage.session.play(stage.now, Some(sound::lost_agent())),
                5 => {
                    let id = if chance.below(2) == 0 { LegId::CALLER } else { OPERATOR };
                    let party = stage.parties.iter().find(|party| party.leg == id);
                    if let Some(party) = party {
                        let plan = leg_plan(party.kind, &party.source.to_string());
                        let direction = [Direction::SendRecv, Direction::SendOnly];
                        let direction = direction[chance.below(2) as usize];
                        let plan = LegPlan { direction, ..plan };
                        stage.session.change(stage.now, id, &plan).unwrap();
                        stage.drain();
                    }
                }
                6 => {
                    let keys = ['1', '2'];
                    let (tone, gap) = (milliseconds(80), milliseconds(40));
                    stage.session.send_keys(LegId::CALLER, &keys, tone, gap);
                }
                _ => {
                    let ports = [CALLER_LEG, OPERATOR_LEG, AGENT, BRIEFER, Port::Sound];
                    let mut scene = Arrangement::new();
                    for listener in ports {
                        for speaker in ports {
                            if chance.below(3) == 0 {
                                scene = scene.hearing(listener, speaker);
                            }
                        }
                    }
                    stage.arrange(scene);
                }
            }
        }
        stage.run_to(stage.ms() + 500);
        let hz = u64::from(plan(kind, 20).agent.input_hz);
        for (agent, joined) in stage.agents.iter().zip(joined) {
            let heard_ms = agent.heard.len() as i64 * 1_000 / hz as i64;
            let lasted = stage.ms() as i64 - joined.unwrap() as i64;
            let apart = heard_ms - lasted;
            assert!((-160..=260).contains(&apart), "seed {seed}: {apart} ms apart");
        }
        assert!(!stage.events.iter().any(|event| event.contains("Broken")), "seed {seed}");
    }
}

#[test]
fn no_switch_is_silent_for_more_than_forty_milliseconds() {
    let operator = || Arrangement::new().talking(CALLER_LEG, OPERATOR_LEG);
    let music = || Arrangement::new().hearing(CALLER_LEG, Port::Sound).talking(OPERATOR_LEG, AGENT);
    let room = || operator().talking(CALLER_LEG, AGENT).talking(OPERATOR_LEG, AGENT);
    let scenes = [operator(), music(), room(), operator()];
    let mut longest = 0;
    for phase in 0..20 {
        let mut stage = Stage::joined(CodecKind::Pcmu);
        stage.run_to(500 + phase);
        stage.open(CodecKind::Pcma, "192.0.2.2:6000", 500.0);
        stage.run_to(1_000);
        let from = stage.parties[0].heard.len() - 400;
        for scene in &scenes {
            stage.session.play(stage.now, Some(sound::ringback(sound::Ringback::Europe)));
            stage.arrange(scene.clone());
            stage.run_to(stage.ms() + 453);
        }
        let heard = &stage.parties[0].heard[from..];
        longest = longest.max(longest_gap(heard, 8_000));
        assert!(largest_step(heard) <= 2 * own_step(700.0, 8_000), "at {phase} ms");
    }
    println!("{longest} ms of silence at most");
    assert!(longest <= 40, "{longest} ms");
}

#[test]
fn nobody_hears_when_packets_begin_and_cease_to_be_handed_on() {
    for kind in CodecKind::ALL.into_iter().filter(|kind| is_here(*kind)) {
        let joins = matches!(kind, CodecKind::Pcmu | CodecKind::Pcma);
        let mut stage = Stage::joined(kind);
        stage.run_to(510);
        stage.open(kind, "192.0.2.2:6000", 500.0);
        for party in &mut stage.parties {
            party.pauses = !joins;
        }
        let pair = || Arrangement::new().talking(CALLER_LEG, OPERATOR_LEG);
        let music =
            Arrangement::new().hearing(CALLER_LEG, Port::Sound).talking(OPERATOR_LEG, AGENT);
        let room = pair().talking(CALLER_LEG, AGENT).talking(OPERATOR_LEG, AGENT);
        let alone = Arrangement::new().talking(CALLER_LEG, AGENT);
        let from = stage.parties[0].heard.len() - stage.parties[0].rate_hz as usize / 10;
        let mut until = [0; 2];
        for (other, phase) in [(&room, 3), (&music, 7), (&room, 11), (&alone, 17)] {
            stage.arrange(pair());
            stage.run_to(stage.ms() + 4_000 + phase);
            for [speaker, listener] in [[0, 1], [1, 0]] {
                let got = stage.parties[listener].got.iter().rev().take(20);
                let said = &stage.parties[speaker].payloads;
                let passed = got.filter(|payload| said.contains(payload)).count();
                assert_eq!(passed, 20, "{kind:?}: {speaker} to {listener} as it is");
                until[listener] = stage.parties[listener].heard.len();
            }
            stage.session.play(stage.now, Some(sound::ringback(sound::Ringback::Europe)));
            stage.arrange(other.clone());
            stage.run_to(stage.ms() + 453);
        }
        for (party, from) in stage.parties.iter().zip([from, 0]) {
            // Other codecs than G.711 look ahead: at a switch the far decoder goes back by so much.
            let own = own_step(1_300.0, party.rate_hz) * if joins { 2 } else { 3 } / 2;
            let step = largest_step(&party.heard[from..]);
            assert!(step <= own, "{kind:?} {:?}: {step} of {own}", party.leg);
            // The agent, alone at the end, may take a moment to its next word.
            let until = until[party.leg.0 as usize];
            let gap = longest_gap(&party.heard[from..until], party.rate_hz);
            assert!(!joins || gap <= 40, "{kind:?} {:?}: {gap} ms", party.leg);
        }
    }
}
