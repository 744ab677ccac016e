//! The writer thread: gathers records for a few milliseconds, commits them together, and keeps them
//! when the disk refuses. Heartbeats of calls that are up are gathered for a second: one sync instead
//! of one for each.

use super::{BACKLOG_MAX, Order, StoreCounters, schema};
use crate::billing::Cdr;
use crate::ground::CallKey;
use crate::shell::clock::Clock;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a first record waits for others to share its sync.
const GATHER: Duration = Duration::from_millis(4);
/// How long heartbeats wait when nothing else is to be written.
const GATHER_HEARTBEATS: Duration = Duration::from_secs(1);
/// A live leg's record is no news any more when it runs for so long.
const NEWS: Duration = Duration::from_secs(1);
/// Records of one transaction.
const BATCH_MAX: usize = 1_000;
/// Pause after a failed transaction.
const RETRY: Duration = Duration::from_millis(500);

pub struct Writer {
    connection: Connection,
    counters: Arc<StoreCounters>,
    /// Latest state of each call that is not on disk yet, in the order of the calls.
    waiting: BTreeMap<CallKey, Box<Cdr>>,
    /// Ladders of ended calls that are not on disk yet; the oldest give way when the disk refuses.
    ladders: BTreeMap<CallKey, String>,
    /// Set while transactions fail: when to try again.
    retry_at: Option<Instant>,
    /// Set while nothing but heartbeats waits: when to write them.
    beat_at: Option<Instant>,
}

impl Writer {
    pub fn new(connection: Connection, counters: Arc<StoreCounters>) -> Writer {
        Writer {
            connection,
            counters,
            waiting: BTreeMap::new(),
            ladders: BTreeMap::new(),
            retry_at: None,
            beat_at: None,
        }
    }

    /// Runs until `Stop`, or until the last `Store` is gone.
    pub fn run(&mut self, inbox: &Receiver<Order>) {
        loop {
            let order = match self.retry_at.or(self.beat_at) {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let ends = match order {
                Ok(order) => self.gather(order, inbox),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if ends || self.retry_at.or(self.beat_at).is_none_or(|at| at <= Instant::now()) {
                self.commit();
            }
            if ends {
                return;
            }
        }
    }

    /// Takes `first` and what follows it within `GATHER`; true when the end was ordered.
    fn gather(&mut self, first: Order, inbox: &Receiver<Order>) -> bool {
        let until = Instant::now() + GATHER;
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(order) = next {
            match order {
                Order::Record(record) => self.keep(record),
                Order::Ladder(key, ladder) => self.keep_ladder(key, ladder),
                Order::Change(change) => change(&mut self.connection),
                Order::Flush(done) => {
                    // Nobody waits any more when this fails; the records are written all the same.
                    let _ = done.try_send(self.commit());
                }
                Order::Stop => return true,
            }
            taken += 1;
            let left = until.saturating_duration_since(Instant::now());
            next = if taken < BATCH_MAX { inbox.recv_timeout(left).ok() } else { None };
        }
        false
    }

    fn keep(&mut self, record: Box<Cdr>) {
        let key = record.key;
        let nothing_waits = self.waiting.is_empty() && self.ladders.is_empty();
        self.beat_at = match self.beat_at {
            _ if record.is_closed() || record.sip_time < NEWS => None,
            None if nothing_waits => Some(Instant::now() + GATHER_HEARTBEATS),
            beat_at => beat_at,
        };
        let closed = self.waiting.get(&key).is_some_and(|waiting| waiting.is_closed());
        if record.is_closed() || !closed {
            self.waiting.insert(key, record);
        }
        if self.waiting.len() > BACKLOG_MAX {
            // The record of a live call comes again with its next heartbeat: those go first.
            let live = self.waiting.iter().find(|(_, record)| !record.is_closed());
            let victim = live.or(self.waiting.iter().next()).map(|(key, _)| *key);
            if victim.and_then(|key| self.waiting.remove(&key)).is_some() {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.publish();
    }

    fn keep_ladder(&mut self, key: CallKey, ladder: String) {
        self.beat_at = None;
        self.ladders.insert(key, ladder);
        while self.ladders.len() > BATCH_MAX {
            self.ladders.pop_first();
        }
    }

    /// Writes what waits; true when nothing waits any more.
    fn commit(&mut self) -> bool {
        while !self.waiting.is_empty() || !self.ladders.is_empty() {
            let batch: Vec<Box<Cdr>> = self.waiting.values().take(BATCH_MAX).cloned().collect();
            let ladders: Vec<(CallKey, String)> =
                self.ladders.iter().map(|(key, ladder)| (*key, ladder.clone())).collect();
            match schema::write(&mut self.connection, &batch, &ladders, Clock::now().wall) {
                Ok(()) => {
                    self.ladders.clear();
                    for record in &batch {
                        self.waiting.remove(&record.key);
                    }
                    self.counters.written.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    self.counters.commits.fetch_add(1, Ordering::Relaxed);
                    self.recover();
                }
                Err(error) => {
                    self.alarm(&error);
                    break;
                }
            }
        }
        self.beat_at = None;
        self.publish();
        self.waiting.is_empty()
    }

    fn alarm(&mut self, error: &rusqlite::Error) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if self.retry_at.is_none() {
            tracing::error!(
                %error,
                "call records cannot be written and wait in memory; calls go on; look at the disk"
            );
        }
        self.retry_at = Some(Instant::now() + RETRY);
        self.counters.failing.store(true, Ordering::Relaxed);
    }

    fn recover(&mut self) {
        if self.retry_at.take().is_some() {
            tracing::info!("call records are written again");
        }
        self.counters.failing.store(false, Ordering::Relaxed);
    }

    fn publish(&self) {
        self.counters.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    /// A database that may grow to `pages` pages: a small disk.
    fn writer_with(pages: u32) -> Writer {
        let mut connection = Connection::open_in_memory().expect("memory");
        schema::prepare(&mut connection, std::path::Path::new("memory")).expect("a new schema");
        connection.pragma_update(None, "max_page_count", pages).expect("a pragma");
        Writer::new(connection, Arc::default())
    }

    #[test]
    fn a_full_disk_keeps_the_records_and_writes_them_when_it_has_room() {
        let mut writer = writer_with(12);
        for number in 0..200 {
            writer.keep(Box::new(record(number)));
        }
        assert!(!writer.commit());
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((load(&writer.counters.failures), load(&writer.counters.waiting)), (1, 200));
        assert!(writer.counters.failing.load(Ordering::Relaxed));
        writer.connection.pragma_update(None, "max_page_count", 10_000).expect("a pragma");
        assert!(writer.commit());
        assert_eq!((load(&writer.counters.written), load(&writer.counters.waiting)), (200, 0));
        assert!(!writer.counters.failing.load(Ordering::Relaxed));
        assert_eq!(
            schema::list(&writer.connection, &Default::default(), 500).map(|l| l.len()),
            Ok(200)
        );
    }

    #[test]
    fn the_backlog_is_bounded_and_live_calls_give_way_to_closed_ones() {
        let mut writer = writer_with(1_000);
        let mut closed = record(0);
        closed.ended_at = Some(closed.opened_at);
        writer.keep(Box::new(closed));
        for number in 1..=BACKLOG_MAX as u64 + 5 {
            writer.keep(Box::new(record(number)));
        }
        assert_eq!(writer.waiting.len(), BACKLOG_MAX);
        assert_eq!(writer.counters.dropped.load(Ordering::Relaxed), 6);
        assert!(writer.waiting.contains_key(&record(0).key), "money was earned on it");
    }

    #[test]
    fn what_comes_late_does_not_reopen_a_closed_record() {
        let mut writer = writer_with(1_000);
        let mut closed = record(1);
        closed.ended_at = Some(closed.opened_at);
        writer.keep(Box::new(closed.clone()));
        writer.keep(Box::new(record(1)));
        assert!(writer.commit());
        writer.keep(Box::new(record(1)));
        assert!(writer.commit());
        assert_eq!(schema::get(&writer.connection, closed.key), Ok(Some(closed)));
    }

    #[test]
    fn heartbeats_wait_for_each_other_and_for_nothing_else() {
        let mut writer = writer_with(1_000);
        let beat = |number| {
            let mut record = record(number);
            record.set_times(Duration::from_secs(6), Duration::from_secs(6));
            Box::new(record)
        };
        writer.keep(beat(1));
        let at = writer.beat_at.expect("it waits");
        assert!(at > Instant::now());
        writer.keep(beat(2));
        assert_eq!(writer.beat_at, Some(at), "the first one's time counts");
        writer.keep(Box::new(record(3)));
        writer.keep(beat(4));
        assert_eq!(writer.beat_at, None, "a new call is written at once, and they with it");
        assert!(writer.commit());
        assert_eq!(writer.counters.commits.load(Ordering::Relaxed), 1);
        writer.keep(beat(1));
        writer.keep_ladder(beat(2).key, String::new());
        assert_eq!(writer.beat_at, None);
    }

    #[test]
    fn media_figures_complete_a_closed_record() {
        for committed_between in [false, true] {
            let mut writer = writer_with(1_000);
            let mut closed = record(1);
            closed.ended_at = Some(closed.opened_at);
            writer.keep(Box::new(closed.clone()));
            assert!(!committed_between || writer.commit());
            closed.warning = Some("what came last".into());
            writer.keep(Box::new(closed.clone()));
            assert!(writer.commit());
            assert_eq!(schema::get(&writer.connection, closed.key), Ok(Some(closed)));
        }
    }
}
