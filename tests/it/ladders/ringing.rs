//! What the caller hears while the target of a bridged transfer rings: music, our ringing tone, or the
//! target's early media, of one fork or several; and that nothing of it outlives the ringing.

use super::transfers::{check, edge, to_target, told, tool, world};
use crate::sim::World;
use crate::sim::agent::Script;
use crate::sim::callee::Manner;
use crate::sim::pbx::Action;
use serde_json::json;
use voxedge::billing::TransferOutcome;
use voxedge::call::ringing::WhileRinging;
use voxedge::ultravox::tool::{Fixed, HoldMusic, SipVerb, TransferType};

fn cold(heard: WhileRinging, callee: Manner) -> World {
    let fixed = Fixed { verb: Some(SipVerb::Invite), ..to_target() };
    world(edge(&fixed, |transfers| transfers.while_ringing = heard), "coldTransfer", callee)
}

/// Rings at once, describes media at 200 ms, answers after 2 s and hangs up after three more.
fn early() -> Manner {
    Manner { early_media: Some(200), hangs_up: Some(3_000), ..Manner::default() }
}

/// The lines of the ladder that tell what is heard, without the first moments of the call.
fn heard(world: &World) -> Vec<String> {
    let told = |line: &&str| line.contains("edge → media    play") || line.contains("arrange");
    let words = |line: &str| line.split_once("media    ").map(|(_, words)| words.to_owned());
    world.ladder().lines().filter(told).filter_map(words).collect()
}

const MUSIC: &str = "play Sound(16000 ms at 8000 Hz, repeats: true)";
const TONE: &str = "play Sound(5000 ms at 8000 Hz, repeats: true)";
const TO_SOUND: &str = "arrange leg 0 ← sound";
const TO_TARGET: &str = "arrange leg 0 ← leg 1, leg 0 ← sound, leg 1 opened";
const BRIDGED: &str = "arrange leg 0 ← leg 1, leg 1 ← leg 0";
const BACK: &str = "arrange leg 0 ← agent 0, agent 0 ← leg 0";
const NOTHING: &str = "play nothing";

#[test]
fn music_goes_on_whatever_the_target_sends() {
    let mut world = cold(WhileRinging::Music, early());
    world.callee_speaks(2_500, 0, 240);
    let record = check("ringing_music", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, BRIDGED, NOTHING]);
}

#[test]
fn the_ringing_tone_takes_the_place_of_the_music() {
    let mut world = cold(WhileRinging::Ringback, early());
    world.callee_speaks(2_500, 0, 240);
    let record = check("ringing_tone", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    // Once: the 183 that follows the 180 begins no second one.
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TONE, BRIDGED, NOTHING]);
    // A target that does not say that it rings: the caller waits with music.
    let mut world =
        cold(WhileRinging::Ringback, Manner { rings: None, early_media: None, ..early() });
    check("ringing_unsaid", &mut world);
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, BRIDGED, NOTHING]);
}

#[test]
fn the_target_is_heard_from_its_first_packet_on() {
    let mut world = cold(WhileRinging::Target, Manner { rings: None, ..early() });
    world.callee_speaks(2_600, 0, 240);
    let record = check("ringing_early_media", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    // Music until there is something else; the answer changes nothing but that both speak.
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TO_TARGET, NOTHING, BRIDGED, NOTHING]);
    assert_eq!(world.ladder().matches("change leg 1").count(), 1, "the same description");
    let heard_ms = world.callees[0].rtp_received * 20;
    assert!((4_700..=4_850).contains(&heard_ms), "silence from its 183 on: {heard_ms} ms");
}

#[test]
fn a_target_that_waits_for_our_first_packet_is_heard_while_it_rings() {
    let waits = Manner { rings: None, waits_for_rtp: true, ..early() };
    let mut world = cold(WhileRinging::Target, waits.clone());
    world.callee_speaks(2_600, 0, 240);
    let record = check("ringing_latching", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TO_TARGET, NOTHING, BRIDGED, NOTHING]);
    // Where it is not to be heard, nothing is sent to it either.
    let mut world = cold(WhileRinging::Music, waits);
    world.callee_speaks(2_600, 0, 240);
    check("ringing_latching_unheard", &mut world);
    let heard_ms = world.callees[0].rtp_received * 20;
    assert!((2_900..=3_050).contains(&heard_ms), "after the answer only: {heard_ms} ms");
}

#[test]
fn a_target_that_rings_and_sends_nothing_is_heard_as_our_tone() {
    let mut world = cold(WhileRinging::Target, early());
    check("ringing_without_media", &mut world);
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TONE, TO_TARGET, BRIDGED, NOTHING]);
    let mut world = cold(WhileRinging::Target, Manner { early_media: None, ..early() });
    check("ringing_undescribed", &mut world);
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TONE, BRIDGED, NOTHING]);
}

#[test]
fn early_media_and_then_busy_brings_the_caller_back() {
    let busy = Manner { answers: Some((2_000, 486, "")), ..early() };
    let mut world = cold(WhileRinging::Target, busy);
    world.callee_speaks(2_500, 0, 240);
    world.act(6_000, 0, Action::HangUp);
    let record = check("ringing_busy", &mut world);
    assert_eq!(told(&record), (TransferOutcome::Failed, told(&record).1, told(&record).1));
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TONE, TO_TARGET, NOTHING, BACK, NOTHING]);
    // The agent heard the caller for the whole of its time, in silence while it was parked.
    let facts = world.facts.values().next().expect("a call");
    assert!(facts.agent_span.abs_diff(facts.agent_heard).as_millis() < 100, "{facts:?}");
}

#[test]
fn another_fork_answers_than_the_one_that_was_heard() {
    let forks = Manner { early_media: Some(100), other_fork: Some(900), rings: None, ..early() };
    let mut world = cold(WhileRinging::Target, forks.clone());
    world.callee_speaks(2_500, 0, 240);
    let record = check("ringing_forks", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, TO_TARGET, NOTHING, BRIDGED, NOTHING]);
    // The first, the second when it described itself, and the first again since it answered.
    assert_eq!(world.ladder().matches("change leg 1").count(), 3);
    // Its 200 says nothing of media: its own 183 counts, not the last one.
    let mut world = cold(WhileRinging::Target, Manner { bare_200: true, reliable: true, ..forks });
    world.callee_speaks(2_500, 0, 240);
    let record = check("ringing_forks_reliably", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    assert_eq!(world.callees[0].heard.iter().filter(|method| *method == "PRACK").count(), 2);
    assert!(world.callees[0].rtp_received > 100, "the one that answered hears the caller");
}

#[test]
fn a_fork_that_only_rings_is_no_silence_after_one_that_was_heard() {
    let forks =
        Manner { early_media: Some(100), other_fork_rings: Some(900), rings: None, ..early() };
    let mut world = cold(WhileRinging::Target, forks);
    world.callee_speaks(2_500, 0, 240);
    let record = check("ringing_forks_undescribed", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    assert_eq!(
        heard(&world),
        [TO_SOUND, MUSIC, TO_TARGET, NOTHING, TO_SOUND, TONE, BRIDGED, NOTHING]
    );
}

#[test]
fn a_redirected_target_begins_with_music_again() {
    let moved = Manner {
        answers: Some((1_500, 302, "Contact: <sip:+15550002@192.0.2.101>\r\n")),
        ..early()
    };
    let mut world = cold(WhileRinging::Target, moved);
    world.callee(Manner { rings: Some(400), hangs_up: Some(2_000), ..Manner::default() });
    world.callee_speaks(2_500, 0, 50);
    let record = check("ringing_redirected", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    let then = [TO_SOUND, MUSIC, TONE, BRIDGED, NOTHING];
    assert_eq!(heard(&world)[..5], [TO_SOUND, MUSIC, TONE, TO_TARGET, NOTHING]);
    assert_eq!(heard(&world)[5..], then);
}

#[test]
fn the_caller_of_a_warm_transfer_hears_music_all_the_time() {
    let fixed = Fixed { kind: Some(TransferType::Bridge), ..to_target() };
    let settings = edge(&fixed, |transfers| transfers.while_ringing = WhileRinging::Target);
    let mut world = world(settings, "warmTransfer", early());
    let accepts = vec![(2_000, tool("acceptTransfer", &json!({})))];
    world.service.further = vec![Script { texts: accepts, ..Script::default() }];
    world.callee_speaks(2_500, 0, 240);
    check("ringing_warm", &mut world);
    let briefed = "arrange leg 1 ← agent 1, agent 1 ← leg 1, leg 0 ← sound";
    assert_eq!(heard(&world), [TO_SOUND, MUSIC, briefed, BRIDGED, NOTHING]);
}

#[test]
fn music_that_is_still_fetched_does_not_end_the_ringing_tone() {
    let fixed = Fixed {
        verb: Some(SipVerb::Invite),
        hold_music: Some(HoldMusic::Url("https://www.example.com/hold.wav".into())),
        ..to_target()
    };
    let settings = edge(&fixed, |transfers| transfers.while_ringing = WhileRinging::Ringback);
    let mut world = world(settings, "coldTransfer", Manner { rings: Some(5), ..early() });
    check("ringing_before_music", &mut world);
    assert_eq!(heard(&world), [TO_SOUND, TONE, BRIDGED, NOTHING]);
}

#[test]
fn media_that_moves_by_update_before_the_answer_is_followed() {
    // Our offer was answered reliably: the target may make one of its own (RFC 3311 §5.1).
    let moves = Manner { reliable: true, updates: Some(900), rings: None, ..early() };
    let mut world = cold(WhileRinging::Target, moves.clone());
    world.callee_speaks(2_500, 0, 240);
    let record = check("ringing_update", &mut world);
    assert_eq!(told(&record).0, TransferOutcome::Bridged);
    assert_eq!(world.callees[0].updated, ["200"]);
    // What its 200 describes is older than its UPDATE: it changes nothing.
    assert_eq!(world.ladder().matches("change leg 1").count(), 2);
    assert!(world.callees[0].rtp_received > 140);
    // The music plays on: nobody hears the target, and its offer is answered all the same.
    let mut world = cold(WhileRinging::Music, moves.clone());
    check("ringing_update_unheard", &mut world);
    assert_eq!(world.callees[0].updated, ["200"]);
    assert_eq!(world.ladder().matches("change leg 1").count(), 1);
    // A provisional answer that may be lost has answered nothing yet: both offers cross.
    let mut world = cold(WhileRinging::Target, Manner { reliable: false, ..moves });
    check("ringing_update_crosses", &mut world);
    assert_eq!(world.callees[0].updated, ["491"]);
}
