//! The hands of calls in the swarm: transfers of every kind, by agents and by a peer's REFER, take-overs
//! by INVITEs with Replaces, keys both ways, agents that are lost and replaced or followed by a target,
//! and calls that are refreshed on both legs. Every eighth world has them. They draw
//! from chance of their own, so that the other worlds stay as they are.

use crate::sim::agent::Script;
use crate::sim::callee::{Manner, REFRESH, Refreshed};
use crate::sim::pbx::{Action, Offer, Refers};
use crate::sim::{Facts, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use voxedge::billing::{TransferOutcome, TransferRecord};
use voxedge::call::deed::REFUSED;
use voxedge::call::ringing::WhileRinging;
use voxedge::call::settings::{HandSettings, LostSettings, TransferSettings, WarmMode};
use voxedge::ground::{CallKey, Entropy, LegId};
use voxedge::media::plan::{ForCall, Key, MediaEvent};
use voxedge::outgoing::OutgoingPolicy;
use voxedge::switchboard::{Input, Settings};
use voxedge::ultravox::tool::{Fixed, GivenTools, HoldMusic, SipVerb, TelephoneTool, TransferType};

/// Phones that may be called.
const PHONES: u64 = 2;

fn target(number: u64) -> String {
    format!("sip:+1555000{}@192.0.2.{}", 1 + number, 100 + number)
}

/// Whether this world's calls have hands; then its settings give them.
pub fn give(seed: u64, settings: &mut Settings) -> bool {
    if !seed.is_multiple_of(8) {
        return false;
    }
    let mut chance = Entropy::from_number(seed ^ 0x0068_616e_6473);
    let musics =
        [HoldMusic::Default, HoldMusic::None, HoldMusic::Url("https://a.example/a.wav".into())];
    let fixed = Fixed {
        verb: Some(match is_long(seed) {
            true => SipVerb::Invite,
            false => [SipVerb::Refer, SipVerb::Invite][chance.below(2) as usize],
        }),
        kind: Some(
            [TransferType::Refer, TransferType::Bridge, TransferType::TryRefer]
                [chance.below(3) as usize],
        ),
        hold_music: Some(musics[chance.below(3) as usize].clone()),
        ..Fixed::default()
    };
    let mut some = |least: u64, more: u64| Duration::from_secs(least + chance.below(more));
    // A target that the agent went over to is on nobody's list of those who hang up.
    let length_max = some(5, 20);
    settings.outgoing =
        Arc::new(OutgoingPolicy { length_max, ..OutgoingPolicy::clone(&settings.outgoing) });
    let transfers = TransferSettings {
        policy: Arc::clone(&settings.outgoing),
        ring_timeout: some(2, 6),
        refer_timeout: some(1, 6),
        briefing_max: some(2, 6),
        bridged_max: some(2, 12),
        ..TransferSettings::default()
    };
    let rings = [WhileRinging::Music, WhileRinging::Ringback, WhileRinging::Target];
    let transfers = TransferSettings {
        warm: [WarmMode::SecondCall, WarmMode::Stage][chance.below(2) as usize],
        while_ringing: rings[chance.below(3) as usize],
        follow_refer: chance.below(2) == 0,
        ..transfers
    };
    let transfers = match is_long(seed) {
        true => {
            let usual = crate::sim::settings();
            (settings.ports, settings.calls_max) = (usual.ports, usual.calls_max);
            settings.creations = usual.creations;
            let bridged_max = Duration::from_secs(50 + chance.below(80));
            TransferSettings { bridged_max, ..transfers }
        }
        false => transfers,
    };
    let transfers = TransferSettings { replaces: chance.below(4) > 0, ..transfers };
    let lost = LostSettings {
        continues: chance.below(3) > 0,
        failover: (chance.below(2) == 0).then(|| target(0)),
        ..LostSettings::default()
    };
    let tools = TelephoneTool::ALL.map(|tool| match tool {
        TelephoneTool::PlayDtmfSounds => (tool, Fixed::default()),
        TelephoneTool::ColdTransfer | TelephoneTool::WarmTransfer => (tool, fixed.clone()),
    });
    let tools = GivenTools { give: TelephoneTool::ALL.to_vec(), defaults: BTreeMap::from(tools) };
    settings.call.hands =
        Arc::new(HandSettings { transfers, lost, tools, ..HandSettings::default() });
    true
}

/// Whether one call of this world, bridged to a phone, lasts so long that its sessions are refreshed.
fn is_long(seed: u64) -> bool {
    seed.is_multiple_of(8 * 12)
}

/// What agents say, phones do and callers press in such a world.
pub fn draw(seed: u64, world: &mut World) {
    let mut chance = Entropy::from_number(seed ^ 0x0070_686f_6e65);
    world.service.says = Some(says);
    for number in 0..PHONES {
        world.callee(phone(&mut chance));
        world.callee_speaks(chance.below(6_000), number as usize, 50 + chance.below(200) as u16);
    }
    for caller in 0..world.callers.len() {
        world.callers[caller].refers = refers(&mut chance);
        if chance.below(4) == 0 {
            world.act(1_000 + chance.below(8_000), caller, Action::Refer("+15550001"));
        }
        for _ in 0..chance.below(4) {
            let info = Action::Info("application/dtmf-relay", "Signal=5\r\nDuration=100\r\n");
            world.act(500 + chance.below(9_000), caller, info);
        }
    }
    take_over(&mut chance, world);
    if is_long(seed) {
        last_long(&mut chance, world);
    }
    for _ in 0..chance.below(8) {
        let call = CallKey(1 << 32 | (1 + chance.below(3)));
        let (leg, digit) = (LegId(chance.below(2) as u32), Key('7'));
        let what = MediaEvent::Digit { leg, digit, duration_ms: 100 };
        world.edge(500 + chance.below(9_000), Input::Media(ForCall { call, what }));
    }
}

/// Others ask for the places of callers, in their calls, before and after them.
fn take_over(chance: &mut Entropy, world: &mut World) {
    let callers = world.callers.len() as u64;
    for _ in 0..chance.below(3) {
        let taker = world.caller("sales");
        let pbx = &mut world.callers[taker];
        pbx.offer =
            [Offer::Pcmu, Offer::Pcmu, Offer::Late, Offer::NoCommon][chance.below(4) as usize];
        pbx.acks = chance.below(12) != 0;
        pbx.answers_bye = chance.below(12) != 0;
        pbx.refers = refers(chance);
        let begins = 500 + chance.below(9_000);
        // Of somebody who took a place before, too.
        let other = chance.below(callers + u64::from(taker as u64 > callers)) as usize;
        world.act(begins, taker, Action::TakeOver(other));
        let actions = [Action::Reinvite("sendonly"), Action::LateReinvite, Action::UpdateEmpty];
        if chance.below(3) == 0 {
            world.act(begins + chance.below(6_000), taker, actions[chance.below(3) as usize]);
        }
        if chance.below(2) == 0 {
            world.act(begins + chance.below(9_000), taker, Action::HangUp);
        }
        world.act(40_000, taker, Action::HangUp);
    }
}

/// A caller who stays, an agent that transfers it, and phones that want their sessions refreshed, on a
/// network that loses little.
fn last_long(chance: &mut Entropy, world: &mut World) {
    let answers: [&[Refreshed]; 6] = [
        &[Refreshed::Same],
        &[Refreshed::Moves, Refreshed::Same],
        &[Refreshed::Refused(488), Refreshed::Same],
        &[Refreshed::Refused(488)],
        &[Refreshed::Refused(481)],
        &[Refreshed::Silence],
    ];
    for number in 0..world.callees.len() {
        let refreshed = answers[chance.below(6) as usize];
        let answer = Some((chance.below(1_000), 200, REFRESH));
        world.callees[number].manner = Manner { answers: answer, refreshed, ..Manner::default() };
        world.callee_speaks(500, number, 7_000);
    }
    let parameters = json!({ "target": target(chance.below(PHONES)) });
    let transfer = invocation("coldTransfer", &parameters);
    world.service.random = None;
    world.service.script =
        Script { texts: vec![(500 + chance.below(2_000), transfer)], ..Script::default() };
    for path in [&mut world.network.up, &mut world.network.down] {
        path.loss_permille = path.loss_permille.min(50);
    }
    let caller = world.caller("sales");
    world.act(chance.below(1_000), caller, Action::Invite);
    world.act(60_000 + chance.below(80_000), caller, Action::HangUp);
}

/// What an agent invokes, and when after its joining.
fn says(chance: &mut Entropy) -> Vec<(u64, String)> {
    let tools = [
        "coldTransfer",
        "coldTransfer",
        "warmTransfer",
        "warmTransfer",
        "playDtmfSounds",
        "acceptTransfer",
        "acceptTransfer",
        "refuseTransfer",
    ];
    let mut one = || {
        let name = tools[chance.below(tools.len() as u64) as usize];
        let parameters = json!({ "target": target(chance.below(PHONES)), "digits": "42#" });
        (200 + chance.below(6_000), invocation(name, &parameters))
    };
    (0..4).map(|_| one()).collect()
}

fn invocation(name: &str, parameters: &Value) -> String {
    json!({ "type": "client_tool_invocation", "toolName": name, "invocationId": name,
        "parameters": parameters })
    .to_string()
}

fn phone(chance: &mut Entropy) -> Manner {
    let codes = [200, 200, 200, 200, 486, 603];
    Manner {
        silent: chance.below(12) == 0,
        rings: (chance.below(3) > 0).then_some(50),
        early_media: (chance.below(4) == 0).then_some(100),
        reliable: chance.below(4) == 0,
        answers: (chance.below(6) > 0)
            .then(|| (chance.below(3_000), codes[chance.below(6) as usize], "")),
        hangs_up: (chance.below(2) == 0).then(|| chance.below(8_000)),
        answers_at_cancel: chance.below(3) == 0,
        reinvites: (chance.below(3) == 0).then(|| (chance.below(4_000), "sendonly")),
        events: chance.below(2) == 0,
        ..Manner::default()
    }
}

fn refers(chance: &mut Entropy) -> Refers {
    Refers {
        answer: (chance.below(300), [202, 202, 202, 603][chance.below(4) as usize]),
        notifies: match chance.below(4) {
            0 => Vec::new(),
            1 => vec![(10, 100)],
            2 => vec![(10, 100), (chance.below(6_000), 486)],
            _ => vec![(10, 100), (chance.below(6_000), 200)],
        },
        leaves: (chance.below(4) == 0).then(|| chance.below(6_000)),
    }
}

/// How long the legs beside the first one were up, as the record tells; `None` where the first leg
/// became another one.
pub fn further_legs(transfers: &[TransferRecord]) -> Option<Duration> {
    let handed_over = |one: &TransferRecord| one.outcome == TransferOutcome::HandedOver;
    let legs = transfers.iter().map(|one| one.leg_time).sum();
    (!transfers.iter().any(handed_over)).then_some(legs)
}

/// What must be true of all calls together, beside each one's record.
pub fn faults_of(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    let records = || world.facts.values().filter_map(|facts: &Facts| facts.records.last());
    let begun = world.tally.transfers.iter();
    let begun = begun.filter(|((kind, outcome), _)| *kind != "replaces" && *outcome != REFUSED);
    let begun: u64 = begun.map(|(_, count)| count).sum();
    let told: usize = records().map(|record| record.transfers.len()).sum();
    if begun != told as u64 {
        faults.push(format!("{told} transfers in records, counted {:?}", world.tally.transfers));
    }
    let taken = world.tally.transfers.get(&("replaces", "taken_over")).copied().unwrap_or(0);
    let told: u64 = records().map(|record| u64::from(record.taken_over)).sum();
    if taken != told {
        faults.push(format!("{told} take-overs in records, counted {taken}"));
    }
    let lost: u64 = world.tally.agents_lost.values().sum();
    let losses: Vec<_> = records().flat_map(|record| &record.agent_losses).collect();
    if lost != losses.len() as u64 || losses.iter().any(|loss| loss.then.is_none()) {
        faults.push(format!("lost {losses:?}, counted {:?}", world.tally.agents_lost));
    }
    if world.admitted.values().any(|count| *count != 0) {
        faults.push(format!("sources are still let in: {:?}", world.admitted));
    }
    if !world.deaf.is_empty() {
        faults.push(format!("somebody heard nobody: {:?}", world.deaf));
    }
    faults
}

/// What these worlds are there for: calls that were taken over, and refreshes of second legs.
pub fn met(world: &World) -> (u64, u64) {
    let taken = world.tally.transfers.get(&("replaces", "taken_over")).copied().unwrap_or(0);
    let refreshes = world.callees.iter().map(|callee| callee.refreshes as u64).sum();
    (taken, refreshes)
}
