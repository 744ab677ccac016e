//! The store over real files.

use super::*;
use crate::billing::{CallDirection, Cdr, EndedBy, Source};
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
    assert!(newer.contains("newer voxedge (schema 99, this one knows 2)"), "{newer}");
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
