//! Further legs and streams of one call on real sockets.

use super::far_end::{BINARY, CLOSE, FarEnd, PATIENCE, TEXT};
use super::{CALL, World, accepting, audio, contains, put, shared, url};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};
use voxedge::ground::{LegId, Secret, StreamId};
use voxedge::media::plan::{
    AgentStreamFault, Key, LegPlan, MediaCommand, MediaEvent, Port, RemoteMedia, Scene,
    TelephoneEventPlan,
};
use voxedge::media::sound::hold_music;

const OPERATOR: LegId = LegId(1);
const CALLER_LEG: Port = Port::Leg(LegId::CALLER);
const OPERATOR_LEG: Port = Port::Leg(OPERATOR);

/// A second telephone.
struct Operator {
    socket: UdpSocket,
    port: u16,
}

impl Operator {
    fn plan(world: &World, socket: &UdpSocket) -> LegPlan {
        let MediaCommand::Open { plan, .. } = world.open_at(0) else { panic!("not an opening") };
        let remote = socket.local_addr().expect("an address");
        let event = TelephoneEventPlan {
            send_payload_type: 101,
            receive_payload_type: 101,
            clock_hz: 8_000,
        };
        LegPlan {
            remote: RemoteMedia { rtp: Some(remote), rtcp: None, rtcp_mux: false },
            telephone_event: Some(event),
            pauses: Default::default(),
            ..plan.leg.clone()
        }
    }

    /// Opens its leg on some free port.
    fn open(world: &World, leg: LegId) -> Operator {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let plan = Operator::plan(world, &socket);
        for _ in 0..50 {
            let probe = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let port = probe.local_addr().expect("an address").port() & !1;
            drop(probe);
            world.plane.send(CALL, open_leg(leg, &plan, port));
            match world.next(CALL) {
                MediaEvent::LegOpened { leg: opened } if opened == leg => {
                    return Operator { socket, port };
                }
                MediaEvent::LegBindFailed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("no port is free");
    }

    fn speak(&self, number: u16, payload: &[u8; 160]) {
        let mut packet = vec![0x80, 0];
        packet.extend(number.to_be_bytes());
        packet.extend((u32::from(number) * 160).to_be_bytes());
        packet.extend([0, 0, 0, 11]);
        packet.extend(payload);
        self.socket.send_to(&packet, ("127.0.0.1", self.port)).expect("sent");
    }

    /// Payload number and payload of the next packet.
    fn hear(&self) -> (u8, Vec<u8>) {
        let mut packet = [0; 1500];
        let length = self.socket.recv(&mut packet).expect("a packet in time");
        (packet[1] & 0x7f, packet[12..length].to_vec())
    }
}

fn open_leg(leg: LegId, plan: &LegPlan, port: u16) -> MediaCommand {
    let address = Ipv4Addr::LOCALHOST.into();
    MediaCommand::OpenLeg { leg, plan: Box::new(plan.clone()), address, port }
}

/// A far end that takes every stream and listens.
fn listening() -> FarEnd {
    accepting(|mut socket| while socket.next().is_some() {})
}

#[test]
fn a_bridged_pair_hears_each_other_and_keys_go_to_one_of_them() {
    let far = listening();
    let world = World::with_call(&far);
    world.join(&url(&far));
    let operator = Operator::open(&world, OPERATOR);
    let scene = Scene::new().talking(CALLER_LEG, OPERATOR_LEG);
    world.plane.send(CALL, MediaCommand::Arrange { scene });
    let loud = [0x80_u8; 160];
    let start = Instant::now();
    let (mut at_operator, mut at_caller) = (Vec::new(), Vec::new());
    world.caller.set_nonblocking(true).expect("an option");
    operator.socket.set_nonblocking(true).expect("an option");
    let is_loud = |heard: &[u8]| heard.iter().filter(|byte| **byte == 0x80).count() > 1_600;
    let mut number = 0;
    while !is_loud(&at_operator) || !is_loud(&at_caller) {
        assert!(start.elapsed() < PATIENCE, "they do not hear each other");
        world.speak(number, &loud);
        operator.speak(number, &loud);
        number += 1;
        let next = start + Duration::from_millis(20) * u32::from(number);
        let mut packet = [0; 1500];
        while Instant::now() < next {
            if let Ok(length) = operator.socket.recv(&mut packet) {
                at_operator.extend_from_slice(&packet[12..length]);
            }
            if let Ok(length) = world.caller.recv(&mut packet) {
                at_caller.extend_from_slice(&packet[12..length]);
            }
            std::thread::yield_now();
        }
    }
    operator.socket.set_nonblocking(false).expect("an option");
    let (tone, gap) = (Duration::from_millis(60), Duration::from_millis(40));
    let keys = vec![Key('5')];
    world.plane.send(CALL, MediaCommand::SendKeys { leg: OPERATOR, keys, tone, gap });
    let mut events = Vec::new();
    while events.len() < 5 {
        let (payload_type, payload) = operator.hear();
        events.extend((payload_type == 101).then_some(payload));
    }
    assert_eq!(events[4], [5, 0x80 | 10, 1, 0xe0], "the end, and 60 ms");
    loop {
        match world.next(CALL) {
            MediaEvent::KeysSent { leg } => break assert_eq!(leg, OPERATOR),
            MediaEvent::Changed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    world.plane.send(CALL, MediaCommand::CloseLeg { leg: OPERATOR });
    let MediaEvent::LegClosed { leg: OPERATOR, report } = world.next(CALL) else {
        panic!("no report")
    };
    assert!(report.packets_received >= 10 && report.packets_sent > 10, "{report:?}");
    world.plane.send(CALL, MediaCommand::CloseLeg { leg: OPERATOR });
    let closed = MediaEvent::LegClosed { leg: OPERATOR, report: Box::default() };
    assert_eq!(world.next(CALL), closed, "every close is answered");
    assert!(world.close().packets_received >= 10);
}

#[test]
fn legs_are_bounded_and_their_ports_are_free_again() {
    let far = listening();
    let world = World::with_call(&far);
    let one = Operator::open(&world, OPERATOR);
    let _two = Operator::open(&world, LegId(2));
    let plan = Operator::plan(&world, &one.socket);
    world.plane.send(CALL, open_leg(LegId(3), &plan, 0));
    assert_eq!(world.next(CALL), MediaEvent::LegBindFailed { leg: LegId(3) }, "three at most");
    world.plane.send(CALL, MediaCommand::CloseLeg { leg: OPERATOR });
    assert!(matches!(world.next(CALL), MediaEvent::LegClosed { leg: OPERATOR, .. }));
    world.plane.send(CALL, open_leg(LegId(3), &plan, world.port));
    assert_eq!(world.next(CALL), MediaEvent::LegBindFailed { leg: LegId(3) }, "it is the caller's");
    world.plane.send(CALL, open_leg(LegId(3), &plan, one.port));
    assert_eq!(world.next(CALL), MediaEvent::LegOpened { leg: LegId(3) });
    let free = UdpSocket::bind(("127.0.0.1", one.port));
    assert!(free.is_err(), "it is taken by the leg");
    world.close();
    world.plane.send(CALL, world.open_at(one.port));
    assert_eq!(world.next(CALL), MediaEvent::Opened, "all is closed with the call");
}

#[test]
fn a_second_stream_is_heard_while_the_first_is_parked_and_each_gets_its_own_texts() {
    let (sender, told) = shared();
    let far = accepting(move |mut socket| {
        let name = socket.request.lines().next().unwrap_or_default().to_owned();
        let said: Vec<u8> = if name.contains("second") { audio(3) } else { audio(9) }.to_vec();
        while let Some((opcode, payload)) = socket.next() {
            match opcode {
                TEXT => {
                    put(&sender, (name.clone(), payload));
                    socket.frame(BINARY, &super::pcm(&said.repeat(10)));
                }
                CLOSE => put(&sender, (name.clone(), payload)),
                _ => {}
            }
        }
    });
    let world = World::with_call(&far);
    world.join(&url(&far));
    let second = StreamId(1);
    let join_url = Secret::new(url(&far).replace("secret-path", "second"));
    world.plane.send(CALL, MediaCommand::Prepare { stream: second, join_url: join_url.clone() });
    world.plane.send(CALL, MediaCommand::Join { stream: second });
    assert_eq!(world.next(CALL), MediaEvent::Prepared { stream: second });
    assert_eq!(world.next(CALL), MediaEvent::Joined { stream: second });
    let third = StreamId(2);
    world.plane.send(CALL, MediaCommand::Prepare { stream: third, join_url: join_url.clone() });
    let MediaEvent::PrepareFailed { stream, fault: AgentStreamFault::Unreachable(words) } =
        world.next(CALL)
    else {
        panic!("a third stream was taken")
    };
    assert_eq!((stream, words.contains("as many agent streams")), (third, true));
    let scene = Scene::new().talking(CALLER_LEG, Port::Agent(second));
    world.plane.send(CALL, MediaCommand::Arrange { scene });
    for (stream, path) in [(StreamId::FIRST, "secret-path"), (second, "second")] {
        let text = format!("{{\"to\":{}}}", stream.0);
        world.plane.send(CALL, MediaCommand::SendText { stream, text: text.clone() });
        let (name, payload) = told.recv_timeout(PATIENCE).expect("in time");
        assert!(name.contains(path) && payload == text.into_bytes(), "{name}");
    }
    let mut heard = Vec::new();
    while !contains(&heard, &audio(3)) {
        heard.extend(world.hear());
        assert!(!contains(&heard, &audio(9)[..80]), "the first one is parked");
    }
    world.plane.send(CALL, MediaCommand::LeaveStream { stream: second });
    let (name, payload) = told.recv_timeout(PATIENCE).expect("in time");
    assert!(name.contains("second") && payload == 1000_u16.to_be_bytes());
    world.plane.send(CALL, MediaCommand::Prepare { stream: third, join_url });
    assert_eq!(world.next(CALL), MediaEvent::Prepared { stream: third }, "there is room again");
    let snapshot = world.plane.snapshot()[0];
    assert_eq!((snapshot.sessions, snapshot.agent_streams), (1, 1));
    world.close();
}

#[test]
fn the_caller_hears_music_and_is_told_of_a_sounds_end() {
    let far = listening();
    let world = World::with_call(&far);
    world.join(&url(&far));
    let scene = Scene::new().hearing(CALLER_LEG, Port::Sound);
    world.plane.send(CALL, MediaCommand::Play { sound: Some(hold_music()) });
    world.plane.send(CALL, MediaCommand::Arrange { scene });
    let mut loud = 0;
    while loud < 4_000 {
        loud += world.hear().iter().filter(|byte| *byte & 0x7f < 0x60).count();
    }
    let sound = Some(voxedge::media::sound::lost_agent());
    world.plane.send(CALL, MediaCommand::Play { sound });
    assert_eq!(world.next(CALL), MediaEvent::SoundPlayed);
    world.close();
}
