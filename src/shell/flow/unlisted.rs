//! Who knocked without being listed: a bounded table for the operator, filled by the listeners. A
//! new source pushes the longest unseen one out. At most one log line in ten seconds, without
//! addresses: a scan must not fill the disk (security S3).

use crate::ground::{Transport, WallTime, limits};
use crate::shell::clock::Clock;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnlistedSource {
    pub address: IpAddr,
    pub transport: Transport,
    /// Packets, or connections, since it entered the table.
    pub count: u64,
    pub last_seen: WallTime,
}

/// The table, shared by all listeners.
#[derive(Debug, Default)]
pub struct UnlistedSources(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<(IpAddr, Transport), (u64, WallTime)>,
    total: u64,
    unlogged: u64,
    logged: Option<WallTime>,
}

/// The shortest time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl UnlistedSources {
    /// Counts one packet or connection.
    pub fn note(&self, address: IpAddr, transport: Transport) {
        let now = Clock::now().wall;
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.enter(address, transport, now) {
            let sources = table.rows.len();
            drop(table);
            let words = "refused packets or connections of unlisted sources";
            tracing::info!(count, sources, "{words}; see: voxedge unlisted");
        }
    }

    /// All rows, the one seen last first.
    pub fn rows(&self) -> Vec<UnlistedSource> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> = table
            .rows
            .iter()
            .map(|((address, transport), (count, last_seen))| UnlistedSource {
                address: *address,
                transport: *transport,
                count: *count,
                last_seen: *last_seen,
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_seen));
        rows
    }

    /// All that were counted since the start, those of forgotten sources included.
    pub fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Table {
    /// Counts one; gives the number to log when a line is due.
    fn enter(&mut self, address: IpAddr, transport: Transport, now: WallTime) -> Option<u64> {
        self.total += 1;
        self.unlogged += 1;
        let key = (address, transport);
        if !self.rows.contains_key(&key) && self.rows.len() >= limits::UNLISTED_SOURCES_MAX {
            let oldest = self.rows.iter().min_by_key(|(_, (_, seen))| *seen).map(|(key, _)| *key);
            oldest.and_then(|key| self.rows.remove(&key));
        }
        let row = self.rows.entry(key).or_insert((0, now));
        *row = (row.0 + 1, now);
        let since = |last: WallTime| now.unix_micros().saturating_sub(last.unix_micros());
        let interval = i64::try_from(LOG_INTERVAL.as_micros()).unwrap_or(i64::MAX);
        if self.logged.is_some_and(|last| (0..interval).contains(&since(last))) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_longest_unseen() {
        let mut table = Table::default();
        let max = u32::try_from(limits::UNLISTED_SOURCES_MAX).expect("small");
        for number in 0..=max {
            let again = WallTime::from_unix_micros(i64::from(number) * 2);
            table.enter(source(number), Transport::Udp, again);
            table.enter(
                source(0),
                Transport::Udp,
                WallTime::from_unix_micros(i64::from(number) * 2 + 1),
            );
        }
        assert_eq!(table.rows.len(), limits::UNLISTED_SOURCES_MAX);
        assert!(table.rows.contains_key(&(source(0), Transport::Udp)), "it was seen all the time");
        assert!(!table.rows.contains_key(&(source(1), Transport::Udp)));
        assert_eq!(table.total, u64::from(max + 1) * 2);
    }

    #[test]
    fn one_line_is_logged_in_ten_seconds() {
        let mut table = Table::default();
        let at = |seconds: i64| WallTime::from_unix_micros(seconds * 1_000_000);
        let lines: Vec<_> = [0, 1, 9, 10, 11, 5, 21]
            .map(|seconds| table.enter(source(1), Transport::Tcp, at(seconds)))
            .into_iter()
            .collect();
        assert_eq!(
            lines,
            [Some(1), None, None, Some(3), None, Some(2), Some(1)],
            "a clock set back logs too"
        );
    }
}
