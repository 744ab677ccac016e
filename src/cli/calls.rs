//! `voxedge calls`: the records as a table or as JSON. The running daemon is asked first; when none
//! runs, its store is read. Phone numbers are masked unless asked for.

use super::ask::{self, Silence};
use crate::billing::cdr::rfc3339;
use crate::billing::{Cdr, EndedBy};
use crate::ground::CallKey;
use crate::media::quality::Scale;
use crate::shell::config::Config;
use crate::shell::store::{Filter, Reader};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

/// Prints the newest calls.
pub fn calls(config: &Config, limit: usize, json: bool, full: bool) -> ExitCode {
    let Page { records, shown_by } = match fetch(config, limit) {
        Ok(page) => page,
        Err(sentence) => {
            eprintln!("voxedge calls: {sentence}");
            return ExitCode::FAILURE;
        }
    };
    if json {
        match serde_json::to_string_pretty(&records) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("voxedge calls: a record cannot be written as JSON: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{}", table(&records, full, shown_by));
    }
    ExitCode::SUCCESS
}

/// Prints one call, and its agent calls in their order.
pub fn call(config: &Config, id: &str, json: bool, full: bool) -> ExitCode {
    let told = fetch_one(config, id).and_then(|(record, shown_by)| match json {
        true => serde_json::to_string_pretty(&record)
            .map(|text| text + "\n")
            .map_err(|error| format!("the record cannot be written as JSON: {error}")),
        false => Ok(table(std::slice::from_ref(&record), full, shown_by) + &chain(&record)),
    });
    match told {
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

/// Who told the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ShownBy {
    Daemon,
    /// No daemon answers: a call that looks live was cut off, or is kept by one of other settings.
    Store,
}

struct Page {
    records: Vec<Cdr>,
    shown_by: ShownBy,
}

fn fetch_one(config: &Config, id: &str) -> Result<(Cdr, ShownBy), String> {
    if !crate::ultravox::is_identifier(id) {
        return Err("give the key of a call, or the id of one of its agent calls".to_owned());
    }
    match ask::daemon(config, "GET", &format!("/edge/calls/{id}")) {
        Ok(answer) => return Ok((parse_one(&answer.body)?, ShownBy::Daemon)),
        Err(Silence::Refused(words)) => return Err(words),
        Err(Silence::NotThere(words)) if !config.store.path.exists() => return Err(words),
        Err(Silence::NotThere(_)) => {}
    }
    let found = Reader::open(&config.store.path).and_then(|reader| match id.parse::<CallKey>() {
        Ok(key) => reader.get(key),
        Err(()) => reader.find_by_ultravox_call(id),
    });
    let found = found.map_err(|fault| fault.to_string())?;
    Ok((found.ok_or("no call has this key")?, ShownBy::Store))
}

fn parse_one(body: &str) -> Result<Cdr, String> {
    serde_json::from_str(body)
        .map_err(|error| format!("the daemon's answer cannot be read: {error}"))
}

/// The agent calls of a call: the first, those that went on for it, and operators'.
fn chain(record: &Cdr) -> String {
    let Some(first) = &record.ultravox_call_id else { return String::new() };
    let agents = std::iter::once(first).chain(&record.continued_as);
    let agents: Vec<&str> = agents.map(String::as_str).collect();
    let mut text = format!("\nagent calls: {}\n", agents.join(" → "));
    for transfer in &record.transfers {
        if let Some(operator) = &transfer.operator_call_id {
            text.push_str(&format!("operator's:  {operator}\n"));
        }
    }
    text
}

/// From the daemon, else from the store.
fn fetch(config: &Config, limit: usize) -> Result<Page, String> {
    match ask::daemon(config, "GET", &format!("/edge/calls?limit={limit}")) {
        Ok(answer) => {
            return Ok(Page { records: parse(&answer.body)?, shown_by: ShownBy::Daemon });
        }
        Err(Silence::Refused(words)) => return Err(words),
        Err(Silence::NotThere(_)) => {}
    }
    if !config.store.path.exists() {
        return Err(format!(
            "no daemon runs and {} does not exist: no call was recorded yet",
            config.store.path.display()
        ));
    }
    let reader = Reader::open(&config.store.path).map_err(|fault| fault.to_string())?;
    let records = reader.list(&Filter::default(), limit).map_err(|fault| fault.to_string())?;
    Ok(Page { records, shown_by: ShownBy::Store })
}

#[derive(serde::Deserialize)]
struct Listed {
    calls: Vec<Cdr>,
}

fn parse(body: &str) -> Result<Vec<Cdr>, String> {
    serde_json::from_str::<Listed>(body)
        .map(|listed| listed.calls)
        .map_err(|error| format!("the daemon's answer cannot be read: {error}"))
}

const HEADS: [&str; 10] = [
    "KEY",
    "START (UTC)",
    "FROM → TO",
    "AGENT",
    "CODEC",
    "SIP TIME",
    "AGENT TIME",
    "DECIMIN",
    "MOS",
    "END",
];
/// Columns that stand to the right.
const NUMBERS: Range<usize> = 5..9;

/// The records as aligned columns under their heads.
fn table(records: &[Cdr], full: bool, shown_by: ShownBy) -> String {
    if records.is_empty() {
        return "no calls yet\n".to_owned();
    }
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(records.iter().map(|record| row(record, full, shown_by)));
    align(&rows, NUMBERS)
}

/// Rows as aligned columns; those of `numbers` stand to the right.
pub(super) fn align<const N: usize>(rows: &[[String; N]], numbers: Range<usize>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let cell = match numbers.contains(&column) {
                true => format!("{pad}{cell}  "),
                false => format!("{cell}{pad}  "),
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(record: &Cdr, full: bool, shown_by: ShownBy) -> [String; HEADS.len()] {
    let start = rfc3339(record.opened_at);
    let start = start.get(..19).unwrap_or(&start).replace('T', " ");
    let absent = || "-".to_owned();
    [
        record.key.to_string(),
        start,
        format!("{} → {}", party(&record.from_uri, full), party(&record.to_uri, full)),
        record.agent_id.as_deref().map_or_else(absent, |id| shown(id, 8)),
        record.codec.clone().unwrap_or_else(absent),
        clock(record.sip_time),
        clock(record.agent_time),
        record.deciminutes.to_string(),
        worst_score(record).unwrap_or_else(absent),
        end(record, shown_by),
    ]
}

/// The worst mean opinion score of a call, of all its legs, to us and from us, with its scale.
fn worst_score(record: &Cdr) -> Option<String> {
    let legs = record.media.iter().chain(&record.further_media);
    let scores = legs.flat_map(|leg| {
        let both = [leg.mos_received, leg.mos_sent];
        both.into_iter().flatten().map(|score| (score, leg.mos_scale))
    });
    let (score, scale) = scores.min_by(|one, other| one.0.total_cmp(&other.0))?;
    let scale = match scale {
        Scale::Narrowband => "nb",
        Scale::Wideband => "wb",
    };
    Some(format!("{score:.2} {scale}"))
}

/// The user of a URI (the host when there is none), masked when it is a number.
pub(super) fn party(uri: &str, full: bool) -> String {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let rest = rest.split([';', '?']).next().unwrap_or(rest);
    let user = rest.split_once('@').map_or(rest, |(user, _)| user);
    if user.is_empty() {
        return "-".to_owned();
    }
    let is_number = user.chars().all(|c| c.is_ascii_digit() || "+-.()".contains(c));
    if is_number && !full && !user.contains('.') { mask(user) } else { shown(user, 24) }
}

/// A number with all but its last three digits hidden.
fn mask(number: &str) -> String {
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let mut seen = 0;
    let hide = |c: char| {
        if !c.is_ascii_digit() {
            return c;
        }
        seen += 1;
        if seen + 3 > digits { c } else { '*' }
    };
    shown(&number.chars().map(hide).collect::<String>(), 24)
}

/// At most `length` characters, none of them a control character: a peer chose this text.
fn shown(text: &str, length: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let cut: String = text.chars().take(length).map(clean).collect();
    if text.chars().count() > length { format!("{cut}…") } else { cut }
}

/// Minutes, seconds and tenths: `12:05.3`.
fn clock(time: Duration) -> String {
    let tenths = time.as_millis() / 100;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

fn end(record: &Cdr, shown_by: ShownBy) -> String {
    if !record.is_closed() {
        let words = match shown_by {
            ShownBy::Daemon => "up",
            ShownBy::Store => "not closed, and no daemon answers",
        };
        return words.to_owned();
    }
    let words = |text: &Option<String>| text.as_deref().map_or(String::new(), |t| shown(t, 40));
    let reason = words(&record.end_reason);
    if record.answered_at.is_none()
        && let Some(status) = record.status
    {
        let answer = format!("{status} {}", words(&record.status_reason)).trim_end().to_owned();
        // The fixed words: the reason at length may hold a number.
        let why = record.end.as_ref().filter(|_| record.ended_by == Some(EndedBy::Edge));
        return why.map_or(answer.clone(), |why| format!("{answer}: {why}"));
    }
    let who = match record.ended_by {
        Some(EndedBy::Caller) => "caller",
        Some(EndedBy::Callee) => "callee",
        Some(EndedBy::Target) => "target",
        Some(EndedBy::Client) => "client",
        Some(EndedBy::Agent) => "agent",
        Some(EndedBy::Edge) => "edge",
        Some(EndedBy::NodeLost) => return "node lost".to_owned(),
        None => return reason,
    };
    if reason.is_empty() { who.to_owned() } else { format!("{who}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{CallDirection, MediaSummary, Source, TransferKind, TransferRecord};
    use crate::ground::{Transport, WallTime};

    fn record(number: u64) -> Cdr {
        let source = Source { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
        let opened = WallTime::from_unix_micros(1_790_000_000_000_000);
        let key = CallKey(0x6ab1_3b80 << 32 | number);
        let mut record = Cdr::opened(key, CallDirection::Incoming, source, "c".into(), opened);
        record.from_uri = "sip:+15550001234@pbx.example;user=phone".into();
        record.to_uri = "sip:sales@edge.example".into();
        record
    }

    #[test]
    fn the_table_is_aligned_and_masked() {
        let mut answered = record(1);
        answered.answered_at = Some(answered.opened_at);
        answered.ended_at = Some(answered.opened_at);
        answered.agent_id = Some("6f1d3c52-0b1e-4f51-9a53-2d1f6a0d9c11".into());
        answered.codec = Some("PCMU".into());
        answered.set_times(Duration::from_millis(725_340), Duration::from_millis(37_000));
        answered.ended_by = Some(EndedBy::Caller);
        answered.end_reason = Some("BYE".into());
        let scores = |received, sent| MediaSummary {
            mos_received: Some(received),
            mos_sent: sent,
            ..MediaSummary::default()
        };
        answered.media = Some(scores(4.4, None));
        answered.further_media = vec![scores(4.41, Some(3.98))];
        let mut refused = record(2);
        refused.ended_at = Some(refused.opened_at);
        refused.status = Some(404);
        refused.status_reason = Some("Not Found".into());
        refused.ended_by = Some(EndedBy::Edge);
        refused.end = Some("no allowance matches".into());
        refused.end_reason = Some("no rule matches 15550001234".into());
        refused.to_uri = "sip:12\u{7}@edge.example".into();
        let live = record(0x2a);
        let expected = "\
KEY          START (UTC)          FROM → TO             AGENT      CODEC  SIP TIME  AGENT TIME  DECIMIN      MOS  END
6ab13b80-2a  2026-09-21 14:13:20  +********234 → sales  -          -        0:00.0      0:00.0        0        -  up
6ab13b80-2   2026-09-21 14:13:20  +********234 → 12\u{fffd}    -          -        0:00.0      0:00.0        0        -  404 Not Found: no allowance matches
6ab13b80-1   2026-09-21 14:13:20  +********234 → sales  6f1d3c52…  PCMU    12:05.3      0:37.0      121  3.98 nb  caller: BYE
";
        let shown = table(&[live.clone(), refused, answered.clone()], false, ShownBy::Daemon);
        assert_eq!(shown, expected);
        assert!(table(&[answered], true, ShownBy::Store).contains("+15550001234 → sales"));
        assert_eq!(table(&[], false, ShownBy::Store), "no calls yet\n");
        let dead = table(&[live], false, ShownBy::Store);
        assert!(dead.ends_with("  not closed, and no daemon answers\n"), "{dead}");
    }

    #[test]
    fn the_agent_calls_of_a_call_stand_in_their_order() {
        let mut lost = record(1);
        assert_eq!(chain(&lost), "");
        lost.ultravox_call_id = Some("a1".into());
        assert_eq!(chain(&lost), "\nagent calls: a1\n");
        lost.continued_as = vec!["a2".into(), "a3".into()];
        let begun =
            TransferRecord::begun(TransferKind::WarmRefer, "sip:d@h".into(), lost.opened_at);
        lost.transfers = vec![TransferRecord { operator_call_id: Some("b1".into()), ..begun }];
        assert_eq!(chain(&lost), "\nagent calls: a1 → a2 → a3\noperator's:  b1\n");
        assert!(["a1", "a3", "b1"].iter().all(|id| lost.has_ultravox_call(id)));
        let body = serde_json::to_string(&lost).expect("a record is JSON");
        assert_eq!(parse_one(&body), Ok(lost));
    }

    #[test]
    fn numbers_are_masked_and_names_are_not() {
        let cases = [
            ("sip:15550001234@pbx", "********234"),
            ("tel:+1-555-000-1234", "+*-***-***-*234"),
            ("sip:bob@192.0.2.7", "bob"),
            ("sip:192.0.2.7", "192.0.2.7"),
            ("", "-"),
        ];
        for (uri, expected) in cases {
            assert_eq!(party(uri, false), expected, "{uri}");
        }
    }

    #[test]
    fn the_daemons_answer_is_what_the_store_holds() {
        let body = serde_json::json!({ "calls": [record(1)] }).to_string();
        assert_eq!(parse(&body), Ok(vec![record(1)]));
        assert!(parse("{}").is_err());
    }
}
