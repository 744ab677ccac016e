//! INVITEs that want to take the place of a dialog (RFC 3891): who gets through and what others hear.

use super::*;

/// An INVITE of another caller with this Replaces.
fn replacing(number: u32, value: &str) -> String {
    request("INVITE", 1, "")
        .replace("Call-ID: c1", &format!("Call-ID: r{number}"))
        .replace("INVITE1", &format!("INVITEr{number}"))
        .replace("tag=them", "tag=other")
        .replace("Max-", &format!("Replaces: {value}\nMax-"))
}

#[test]
fn a_live_call_is_named_to_the_call_layer() {
    let mut world = World::udp().connected();
    let tag = world.tag.clone();
    let invite = replacing(1, &format!("c1;from-tag=them;to-tag={tag}"));
    let message = parse(&invite);
    world.agent.handle_message(world.now, world.flow, message, &mut world.out);
    let replaces = world.out.iter().find_map(|output| match output {
        UaOutput::Event(UaEvent::Invited { session, replaces, .. }) => Some((*session, *replaces)),
        _ => None,
    });
    assert_eq!(replaces, Some((SessionId(2), Some(SessionId(1)))));
    world.shown();
    assert_eq!(world.agent.sessions(), 2);
    let sdp = Some(("application/sdp", &b"v=0"[..]));
    assert_eq!(world.agent.accept(world.now, SessionId(2), &[], sdp, &mut world.out), Ok(()));
    assert_eq!(world.shown(), ["200 INVITE"]);
    assert_eq!(world.bye(), ["BYE sip:a@192.0.2.1:5062"], "the call layer ends the old one");
    assert_eq!(world.agent.sessions(), 2);
}

#[test]
fn what_fits_no_live_call_is_refused_without_state() {
    let mut world = World::udp().connected();
    let tag = world.tag.clone();
    let cases = [
        (format!("c1;from-tag=them;to-tag={tag};early-only"), "486"),
        (format!("c1;from-tag=others;to-tag={tag}"), "481"),
        (format!("c2;from-tag=them;to-tag={tag}"), "481"),
        ("c1;from-tag=them;to-tag=nobody".into(), "481"),
        (format!("c1;from-tag={tag};to-tag=them"), "481"),
        ("c1".into(), "400"),
        (format!("c1;to-tag={tag}"), "400"),
    ];
    for (number, (value, code)) in cases.iter().enumerate() {
        let invite = replacing(u32::try_from(number).expect("few"), value);
        assert_eq!(world.receive(&invite), [format!("{code} INVITE")], "{value}");
    }
    assert_eq!(world.agent.sessions(), 1);
    let elsewhere = request("OPTIONS", 1, "").replace("Max-", "Replaces: a;b=c\nMax-");
    assert_eq!(world.receive(&elsewhere), ["400 OPTIONS"]);
    world.tag = tag;
    world.receive(&request("BYE", 2, "TAG"));
    world.end_clean();
}

#[test]
fn one_that_rings_here_is_not_to_be_had_and_one_that_ended_is_declined() {
    let mut world = World::udp();
    world.receive(&request("INVITE", 1, ""));
    assert_eq!(world.agent.ring(world.now, SessionId(1), 180, &mut world.out), Ok(()));
    world.shown();
    let tag = world.tag.clone();
    let value = format!("c1;from-tag=them;to-tag={tag}");
    assert_eq!(world.receive(&replacing(1, &value)), ["481 INVITE"], "we did not begin it");
    world.accept();
    world.receive(&request("ACK", 1, "TAG"));
    world.bye();
    let bye = world.sent.clone();
    assert_eq!(world.receive(&replacing(2, &value)), ["603 INVITE"], "it is being ended");
    world.sent = bye;
    assert_eq!(world.answer_ours("200 OK"), ["Closed 1 Answered(200)"]);
    assert_eq!(world.receive(&replacing(3, &value)), ["603 INVITE"], "it was");
    world.end_clean();
}
