//! No media goes to a port that a call of ours has: whoever names one, in whatever offer or answer of a
//! dialog, gets what an unusable address gets, and what was agreed goes on.

use super::with;
use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use crate::sim::{World, settings};
use serde_json::json;
use std::net::SocketAddr;
use voxedge::billing::Cdr;
use voxedge::billing::cdr::CallDirection;

/// The address of a media port of ours.
fn ours(port: u16) -> SocketAddr {
    SocketAddr::new([198, 51, 100, 1].into(), port)
}

/// Two calls that are up, and their ports.
fn two_calls() -> (World, Vec<u16>) {
    let mut world = with(Script::default());
    world.caller("sales");
    world.act(100, 1, Action::Invite);
    world.run_out(2_000);
    let ports = world.open_ports();
    assert_eq!(ports.len(), 2);
    (world, ports)
}

fn finish(world: &mut World) {
    world.run_out(600_000);
    assert!(world.is_idle(), "something is left\n{}", world.ladder());
}

#[test]
fn offers_in_a_dialog_that_name_a_port_of_ours_are_refused_and_change_nothing() {
    for action in [Action::Reinvite("sendrecv"), Action::Update("sendrecv")] {
        let (mut world, ports) = two_calls();
        let own = world.callers[0].media;
        let mut ms = 2_000;
        let named: Vec<u16> = ports.iter().flat_map(|port| [*port, port + 1, port - 1]).collect();
        for port in &named {
            world.callers[0].media = ours(*port);
            world.act(ms, 0, action);
            world.run_out(ms + 900);
            ms += 1_000;
        }
        world.callers[0].media = own;
        world.act(ms, 0, action);
        world.run_out(ms + 500);
        let heard = world.callers[0].rtp_received;
        for caller in [0, 1] {
            world.act(ms + 2_500, caller, Action::HangUp);
        }
        finish(&mut world);
        let refused = world.ladder().matches("  488 ").count();
        assert_eq!(refused, named.len(), "{action:?}\n{}", world.ladder());
        assert!(!world.ladder().contains("edge → media    change"), "{}", world.ladder());
        let on = world.callers[0].rtp_received - heard;
        assert!((95..=105).contains(&on), "{action:?}: the call goes on: {on} packets");
        for facts in world.facts.values() {
            let record = facts.records.last().expect("a record");
            assert_eq!(record.end.as_deref(), Some("caller hung up"), "{record:?}");
        }
    }
}

/// A call that we dial while another one is up, whose port the callee's two phones name.
fn dialled(manner: Manner, names_ours: [bool; 2]) -> (World, Cdr) {
    let mut world = World::new(1, settings());
    world.caller("sales");
    world.act(0, 0, Action::Invite);
    world.run_out(2_000);
    let port = world.open_ports()[0];
    world.callee(manner);
    let callee = &mut world.callees[0];
    let [own, other] = [&mut callee.media, &mut callee.other_media];
    for (media, is_ours) in [own, other].into_iter().zip(names_ours) {
        if is_ours {
            *media = ours(port);
        }
    }
    world.dial(2_500, json!({ "to": "sip:+15550001@192.0.2.100", "from": "+15550100" }));
    world.act(20_000, 0, Action::HangUp);
    finish(&mut world);
    let records = world.facts.values().filter_map(|facts| facts.records.last());
    let mut dialled = records.filter(|record| record.direction == CallDirection::Outgoing);
    let record = dialled.next().expect("a record").clone();
    (world, record)
}

#[test]
fn an_answer_that_names_a_port_of_ours_ends_the_call_that_we_dialled() {
    let (world, record) = dialled(Manner::default(), [true, false]);
    assert_eq!(record.joined_at, None, "{}", world.ladder());
    assert_eq!(world.callees[0].heard, ["INVITE", "ACK", "BYE"], "{}", world.ladder());
    let first = world.facts.values().next().and_then(|facts| facts.records.last());
    let media = first.and_then(|record| record.media).expect("its figures");
    assert_eq!(media.packets_refused, 0, "nothing came to the other call");
}

#[test]
fn early_descriptions_that_name_a_port_of_ours_are_passed_over() {
    let leaves = Manner { hangs_up: Some(2_000), ..Manner::default() };
    let forks = Manner { other_fork: Some(100), ..leaves.clone() };
    let (world, record) = dialled(forks, [false, true]);
    assert!(record.joined_at.is_some(), "{}", world.ladder());
    let media_changes = world.ladder().matches("edge → media    change").count();
    assert_eq!(media_changes, 1, "the answer's only\n{}", world.ladder());
    let moves = Manner { early_media: Some(100), reliable: true, updates: Some(600), ..leaves };
    let (world, record) = dialled(moves, [false, true]);
    assert_eq!(world.callees[0].updated, ["488"], "{}", world.ladder());
    assert!(record.joined_at.is_some(), "{}", world.ladder());
}
