//! The store over real files.

use super::*;
use crate::billing::{CallDirection, Cdr, EndedBy, Source, TransferKind, TransferRecord};
use crate::ground::{Transport, WallTime};
use std::sync::atomic::Ordering::Relaxed;

/// The record of the call `number`, just opened.
pub fn record(number: u64) -> Cdr {
    let source = Source { address: ([192, 0, 2, 7], 5060).into(), transport: Transport::Udp };
    let opened = WallTime::from_unix_micros(1_790_000_000_000_000);
    let call_id = format!("call-{number}@pbx");
    Cdr::opened(
        CallKey(0x6ab0_0000 << 32 | number),
        CallDirection::Incoming,
        source,
        call_id,
        opened,
    )
}

/// A directory of its own for one test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path =
            std::env::temp_dir().join(format!("voxedge-store-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Place(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("deep/calls.sqlite")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn records_are_opened_updated_closed_listed_and_found() {
    let place = Place::new("life");
    let (store, thread) = Store::open(&place.database()).expect("a new store");
    for number in 1..=3 {
        store.write(record(number));
    }
    assert!(store.flush());
    let mut second = record(2);
    second.agent_id = Some("a".into());
    second.set_times(Duration::from_secs(7), Duration::from_secs(6));
    second.ended_at = Some(WallTime::from_unix_micros(1_790_000_009_000_000));
    store.write(second.clone());
    assert!(store.flush());
    let reader = store.reader().expect("it is there");
    let keys = |filter: &Filter, limit| {
        let found = reader.list(filter, limit).expect("it reads");
        found.iter().map(|cdr| cdr.key.0 & 0xff).collect::<Vec<_>>()
    };
    assert_eq!(keys(&Filter::default(), 10), [3, 2, 1]);
    assert_eq!(keys(&Filter::default(), 2), [3, 2]);
    assert_eq!(keys(&Filter { live: Some(true), ..Filter::default() }, 10), [3, 1]);
    assert_eq!(keys(&Filter { live: Some(false), ..Filter::default() }, 10), [2]);
    assert_eq!(keys(&Filter { agent_id: Some("a".into()), ..Filter::default() }, 10), [2]);
    assert_eq!(keys(&Filter { before: Some(record(2).key), ..Filter::default() }, 10), [1]);
    assert_eq!(reader.get(second.key).expect("it reads"), Some(second));
    assert_eq!(reader.get(CallKey(9)).expect("it reads"), None);
    assert_eq!(store.counters().written.load(Relaxed), 4);
    thread.stop();
}

#[test]
fn stop_writes_what_waits() {
    let place = Place::new("stop");
    let (store, thread) = Store::open(&place.database()).expect("a new store");
    for number in 0..2_500 {
        store.write(record(number));
    }
    thread.stop();
    let reader = Reader::open(&place.database()).expect("it is there");
    assert_eq!(reader.list(&Filter::default(), 10_000).expect("it reads").len(), 2_500);
    assert!(store.counters().commits.load(Relaxed) < 100, "records share their sync");
    store.write(record(1));
    assert_eq!(store.counters().dropped.load(Relaxed), 1, "nobody writes any more");
}

#[test]
fn after_a_crash_open_records_are_closed_at_their_last_heartbeat() {
    let place = Place::new("crash");
    let (store, thread) = Store::open(&place.database()).expect("a new store");
    let mut live = record(1);
    live.answered_at = Some(live.opened_at);
    live.set_times(Duration::from_millis(6_001), Duration::from_secs(6));
    let mut closed = record(2);
    closed.ended_at = Some(closed.opened_at);
    closed.ended_by = Some(EndedBy::Agent);
    store.write(live.clone());
    store.write(closed.clone());
    assert!(store.flush());
    // What a killed process leaves: the files as they are now, the writer still running.
    let after = place.0.join("after.sqlite");
    std::fs::copy(place.database(), &after).expect("a copy");
    let wal = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    std::fs::copy(wal(&place.database()), wal(&after)).expect("a copy of the log");
    thread.stop();

    let before = crate::shell::clock::Clock::now().wall;
    let (store, thread) = Store::open(&after).expect("the log is replayed");
    assert_eq!(store.counters().node_lost.load(Relaxed), 1);
    let reader = store.reader().expect("it is there");
    let found = reader.get(live.key).expect("it reads").expect("it was committed");
    assert_eq!(found.ended_by, Some(EndedBy::NodeLost));
    assert_eq!(found.end_reason.as_deref(), Some("node_lost"));
    assert!(found.ended_at.is_some_and(|ended| ended > live.opened_at && ended <= before));
    assert_eq!((found.sip_time, found.deciminutes.count()), (live.sip_time, 2));
    assert_eq!(reader.get(closed.key).expect("it reads"), Some(closed));
    thread.stop();
    let (store, thread) = Store::open(&after).expect("it opens again");
    assert_eq!(store.counters().node_lost.load(Relaxed), 0, "closed once");
    thread.stop();
}

#[test]
fn a_second_process_and_a_newer_database_are_refused_in_words() {
    let place = Place::new("refused");
    let (_store, thread) = Store::open(&place.database()).expect("a new store");
    let second = Store::open(&place.database()).err().expect("one writer only").to_string();
    assert!(second.contains("another voxedge"), "{second}");
    thread.stop();
    let connection = Connection::open(place.database()).expect("it is there");
    connection.pragma_update(None, "user_version", 99).expect("a pragma");
    drop(connection);
    let newer = Store::open(&place.database()).err().expect("it is newer").to_string();
    assert!(newer.contains("newer voxedge (schema 99, this one knows 3)"), "{newer}");
}

#[test]
fn what_is_no_database_or_no_directory_is_told_with_its_fix() {
    let place = Place::new("bad");
    let junk = place.0.join("junk.sqlite");
    std::fs::write(&junk, vec![b'x'; 8_192]).expect("our own directory");
    let fault = Store::open(&junk).err().expect("it is no database").to_string();
    assert!(fault.contains("junk.sqlite cannot be opened") && fault.contains("move it away"));
    let below_a_file = junk.join("calls.sqlite");
    let fault = Store::open(&below_a_file).err().expect("a file is no directory").to_string();
    assert!(fault.contains("change store.path"), "{fault}");
    assert!(Reader::open(&place.0.join("none.sqlite")).is_err());
}

#[test]
fn the_account_and_its_registrations_are_kept_in_order_and_forgotten() {
    let place = Place::new("account");
    let (store, thread) = Store::open(&place.database()).expect("a new store");
    let reader = store.reader().expect("it is there");
    assert!(reader.account().expect("it reads").is_none());
    assert_eq!(store.keep_account("{}".into()).expect("it writes"), 1);
    assert_eq!(store.keep_account("{\"a\":1}".into()).expect("it writes"), 2);
    let kept = reader.account().expect("it reads").expect("it was kept");
    assert_eq!((kept.revision, kept.document.as_str()), (2, "{\"a\":1}"));
    let row = |id: &str, document: &str| StoredRegistration {
        place: 0,
        id: id.into(),
        created: WallTime::from_unix_micros(7),
        document: document.into(),
    };
    let places = ["b", "a", "c"].map(|id| store.keep_registration(row(id, id)).expect("it writes"));
    assert_eq!(places, [1, 2, 3]);
    assert_eq!(store.keep_registration(row("a", "new")).expect("it writes"), 2, "its place stays");
    store.keep_binding("a".into(), "1".into());
    store.keep_binding("a".into(), "2".into());
    store.keep_binding("c".into(), "3".into());
    store.forget_registration("c".into()).expect("it writes");
    let last = store.keep_registration(row("d", "d")).expect("it writes");
    assert!(last > 3, "no place twice");
    let rows = reader.registrations().expect("it reads");
    let rows: Vec<(i64, &str, &str)> =
        rows.iter().map(|row| (row.place, row.id.as_str(), row.document.as_str())).collect();
    assert_eq!(rows, [(1, "b", "b"), (2, "a", "new"), (last, "d", "d")]);
    assert_eq!(reader.bindings().expect("it reads"), [("a".to_owned(), "2".to_owned())]);
    assert_eq!(store.made_secret("u".into(), "first".into()).expect("it writes"), "first");
    assert_eq!(store.made_secret("u".into(), "second".into()).expect("it writes"), "first");
    assert_eq!(reader.made_secret("u").expect("it reads").as_deref(), Some("first"));
    thread.stop();
    assert!(store.keep_account("{}".into()).is_err(), "nobody writes any more");
}

#[test]
fn ladders_are_bounded_and_the_oldest_make_place() {
    let place = Place::new("ladders");
    let (store, thread) = Store::open(&place.database()).expect("a new store");
    let mut ladder = Ladder::new(crate::ground::Instant::ZERO);
    for number in 1..=LADDERS_MAX as u64 + 7 {
        store.keep_ladder(record(number).key, &ladder);
        // The queue is as long as the table: none may be lost here.
        assert!(number % 1_000 != 0 || store.flush());
    }
    let last = record(LADDERS_MAX as u64 + 7).key;
    ladder.push(crate::ground::Instant::ZERO, crate::call::ladder::Lane::Sip, "BYE".into());
    store.keep_ladder(last, &ladder);
    assert!(store.flush());
    let reader = store.reader().expect("it is there");
    assert_eq!(reader.ladder(record(7).key).expect("it reads"), None);
    assert!(reader.ladder(record(8).key).expect("it reads").is_some());
    assert_eq!(reader.ladder(last).expect("it reads"), Some(ladder), "the later one counts");
    thread.stop();
}

/// A database of the first version is brought up to date, and its calls are found by Ultravox's id.
#[test]
fn an_older_database_is_brought_up_to_date() {
    let place = Place::new("older");
    let path = place.0.join("older.sqlite");
    let mut connection = Connection::open(&path).expect("our own directory");
    schema::prepare_version(&mut connection, &path, 1).expect("the first version");
    let mut old = record(1);
    old.ultravox_call_id = Some("u-1".into());
    old.ended_at = Some(old.opened_at);
    old.continued_as = vec!["u-3".into()];
    let begun = TransferRecord::begun(TransferKind::WarmBridge, "sip:d@h".into(), old.opened_at);
    old.transfers = vec![TransferRecord { operator_call_id: Some("u-4".into()), ..begun }];
    let json = serde_json::to_string(&old).expect("it writes");
    let sentence = "INSERT INTO calls VALUES (?1, 1, 1, 1, 'c', 'f', 't', NULL, 200, 0, 0, ?2)";
    connection.execute(sentence, rusqlite::params![1, json]).expect("a row");
    drop(connection);
    let (store, thread) = Store::open(&path).expect("it is brought up to date");
    let reader = store.reader().expect("it is there");
    for id in ["u-1", "u-3", "u-4"] {
        assert_eq!(reader.find_by_ultravox_call(id).expect("it reads").as_ref(), Some(&old));
    }
    let mut new = record(2);
    (new.ultravox_call_id, new.continued_as) = (Some("u-5".into()), vec!["u-6".into()]);
    store.write(new.clone());
    assert!(store.flush());
    for id in ["u-5", "u-6"] {
        assert_eq!(reader.find_by_ultravox_call(id).expect("it reads").as_ref(), Some(&new));
    }
    assert_eq!(reader.find_by_ultravox_call("u-2").expect("it reads"), None);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds passwords now");
    thread.stop();
}
