//! The agent's audio to the caller.

use super::*;

const WORD: i16 = 5_000;

/// What was sent, as "at kind": `s` silence, `W` speech, `m` a marker before it; a timestamp that
/// does not follow by one frame is written as the frames that it is ahead.
fn render(sent: &[Sent]) -> String {
    let mut words = Vec::new();
    let mut last: Option<&Sent> = None;
    for packet in sent {
        let silent = packet.payload.iter().all(|byte| *byte == 0xff);
        let mut word = format!("{}", Scene::ms(packet.at));
        if let Some(last) = last {
            assert_eq!(packet.sequence, last.sequence.wrapping_add(1), "the sequence goes on");
            assert_eq!(packet.ssrc, last.ssrc);
            let ticks = packet.timestamp.wrapping_sub(last.timestamp);
            assert_eq!(ticks % 160, 0);
            if ticks != 160 {
                word.push_str(&format!("+{}", ticks / 160));
            }
        }
        word.push_str(if packet.marker { "m" } else { "" });
        word.push_str(if silent { "s" } else { "W" });
        words.push(word);
        last = Some(packet);
    }
    words.join(" ")
}

/// Runs "at:what" steps (milliseconds): a number gives so many milliseconds of speech to the
/// session, `clear`, `close`, `sleep` (nobody calls till the next step), `hold`, `resume`.
fn speak(script: &str, until: u64) -> Scene {
    let plan = plan(CodecKind::Pcmu, 20);
    let mut scene = Scene::joined(&plan);
    let mut asleep = false;
    for step in script.split_whitespace() {
        let (at, what) = step.split_once(':').expect("at:what");
        let at = at.parse().expect("milliseconds");
        if asleep { scene.sleep_to(at) } else { scene.run_to(at) }
        asleep = what == "sleep";
        let hold = LegPlan { direction: Direction::Inactive, ..plan.leg };
        match what {
            "clear" => scene.session.handle_agent_clear(scene.now),
            "close" => scene.session.handle_agent_closed(scene.now, AgentClose::Code(1000)),
            "hold" => scene.session.change(scene.now, &hold).unwrap(),
            "resume" => scene.session.change(scene.now, &plan.leg).unwrap(),
            "sleep" => {}
            ms => scene.say(&vec![WORD; ms.parse::<usize>().expect("milliseconds") * 8]),
        }
        scene.drain();
    }
    scene.run_to(until);
    scene
}

#[test]
fn ladders() {
    let mut wrong = Vec::new();
    for (what, script, until, ladder) in [
        ("silence from the join", "", 60, "0s 20s 40s 60s"),
        ("a burst starts at once, in its own phase", "25:60", 120, ""),
        ("one by one: the first waits one frame", "25:20 45:20 65:20", 140, ""),
        ("a short word is played", "25:5", 100, ""),
        ("clear within one frame", "25:200 70:clear", 120, ""),
        ("words after a clear", "25:200 70:clear 75:60", 160, ""),
        ("a late wake skips, never bursts", "25:200 46:sleep 131:0", 240, ""),
        ("a late wake in silence", "25:sleep 131:0", 180, ""),
        ("hold keeps the time", "0:100 30:hold 95:resume", 140, ""),
        ("close drains first", "0:60 10:close", 120, ""),
    ] {
        let scene = speak(script, until);
        let got = render(&scene.sent);
        if got != ladder {
            wrong.push(format!("{what}: {script}\n  sent     {got}\n  expected {ladder}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
