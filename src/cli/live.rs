//! `voxedge calls --live`: the legs of the calls that are up, each with how it sounds just now. Only
//! the running daemon knows. Phone numbers are masked unless asked for.

use super::ask;
use super::calls::{align, party};
use crate::shell::admin::live::{Live, LiveCall, LiveLeg};
use crate::shell::config::Config;
use std::process::ExitCode;

/// Prints the calls that are up, newest first.
pub fn live(config: &Config, json: bool, full: bool) -> ExitCode {
    let answer = ask::daemon(config, "GET", "/edge/live").map_err(ask::Silence::words);
    let live = answer.and_then(|answer| {
        serde_json::from_str::<Live>(&answer.body)
            .map_err(|error| format!("the daemon's answer cannot be read: {error}"))
    });
    let printed = live.and_then(|live| match json {
        true => serde_json::to_string_pretty(&live.calls)
            .map(|text| text + "\n")
            .map_err(|error| format!("a call cannot be written as JSON: {error}")),
        false => Ok(table(&live.calls, full)),
    });
    match printed {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("voxedge calls: {sentence}");
            ExitCode::FAILURE
        }
    }
}

const HEADS: [&str; 11] = [
    "KEY",
    "FROM → TO",
    "LEG",
    "CODEC",
    "RECEIVED",
    "SENT",
    "MISSED %",
    "JITTER ms",
    "ROUND TRIP ms",
    "MOS IN",
    "MOS OUT",
];

/// A row for each leg; figures are those of the last seconds, and in brackets of the whole call.
fn table(calls: &[LiveCall], full: bool) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    for call in calls {
        let shown =
            |uri: &Option<String>| uri.as_deref().map_or("-".into(), |uri| party(uri, full));
        let who = format!("{} → {}", shown(&call.from_uri), shown(&call.to_uri));
        if call.legs.is_empty() {
            let mut row = [(); HEADS.len()].map(|()| "-".to_owned());
            (row[0], row[1]) = (call.key.clone(), who.clone());
            rows.push(row);
        }
        rows.extend(call.legs.iter().map(|leg| row(&call.key, &who, leg)));
    }
    if rows.len() == 1 {
        return "no call is up\n".to_owned();
    }
    align(&rows, 4..HEADS.len()) + "the last five seconds, and in brackets the whole call\n"
}

fn row(key: &str, who: &str, leg: &LiveLeg) -> [String; HEADS.len()] {
    let number = |figure: Option<f32>, places: usize| {
        figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.places$}"))
    };
    let both = |now: Option<f32>, whole: Option<f32>, places: usize| match (now, whole) {
        (None, None) => "-".to_owned(),
        (now, whole) => format!("{} ({})", number(now, places), number(whole, places)),
    };
    let held = if leg.direction == "sendrecv" { "" } else { ", on hold" };
    let srtp = if leg.encrypted { ", SRTP" } else { "" };
    [
        key.to_owned(),
        who.to_owned(),
        leg.leg.to_string(),
        format!("{}{srtp}{held}", leg.codec),
        leg.packets_received.to_string(),
        leg.packets_sent.to_string(),
        both(leg.missed_percent_now, leg.missed_percent, 1),
        number(Some(leg.jitter_ms), 1),
        number(leg.round_trip_ms, 1),
        both(leg.mos_received_now, leg.mos_received, 2),
        both(leg.mos_sent_now, leg.mos_sent, 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::quality::Scale;

    #[test]
    fn each_leg_has_its_row_and_numbers_are_masked() {
        let leg = LiveLeg {
            leg: 0,
            codec: "PCMU".into(),
            direction: "sendrecv".into(),
            encrypted: true,
            packets_received: 1_204,
            packets_sent: 1_210,
            missed_percent: Some(1.5),
            missed_percent_now: Some(0.0),
            jitter_ms: 2.3,
            round_trip_ms: Some(41.0),
            mos_scale: Scale::Narrowband,
            mos_received: Some(4.3),
            mos_received_now: Some(4.41),
            mos_sent: None,
            mos_sent_now: None,
            agent_queue_ms: 0,
            agent_wait_median_ms: 0,
            far_end: None,
        };
        let target = LiveLeg {
            leg: 1,
            direction: "sendonly".into(),
            encrypted: false,
            missed_percent: None,
            missed_percent_now: None,
            round_trip_ms: None,
            mos_received: Some(4.2),
            mos_received_now: None,
            ..leg.clone()
        };
        let call = LiveCall {
            key: "6ab13b80-2a".into(),
            from_uri: Some("sip:+15550001234@pbx.example".into()),
            to_uri: Some("sip:sales@edge.example".into()),
            agent_id: None,
            legs: vec![leg, target],
        };
        let young = LiveCall { from_uri: None, to_uri: None, legs: Vec::new(), ..call.clone() };
        let expected = "\
KEY          FROM → TO             LEG  CODEC          RECEIVED  SENT   MISSED %  JITTER ms  ROUND TRIP ms       MOS IN  MOS OUT
6ab13b80-2a  +********234 → sales  0    PCMU, SRTP         1204  1210  0.0 (1.5)        2.3           41.0  4.41 (4.30)        -
6ab13b80-2a  +********234 → sales  1    PCMU, on hold      1204  1210          -        2.3              -     - (4.20)        -
6ab13b80-2a  - → -                 -    -                     -     -          -          -              -            -        -
the last five seconds, and in brackets the whole call
";
        assert_eq!(table(&[call, young], false), expected);
        assert_eq!(table(&[], false), "no call is up\n");
    }
}
