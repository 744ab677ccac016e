//! Unlisted sources that flood are muted in the kernel (security S3): a packet filter on the UDP
//! sockets drops what they send before it costs a system call. A source that sends more than
//! [`limits::UNLISTED_PACKETS_PER_SOURCE`] a second is muted for [`limits::MUTED`], then heard again
//! for as long as it takes to mute it again, so that it stays in the operator's table. What is dropped
//! in the kernel is not counted. Nobody who is admitted is muted: a source that becomes listed, or is
//! sent to, is let through at once.

use super::{Flows, bind};
use crate::ground::{Instant, limits};
use crate::shell::clock::Clock;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Sources that may be muted at once, of both families.
const MUTED_MAX: usize = 64;
/// Sources whose packets are counted at once; the table is begun anew each second.
const COUNTED_MAX: usize = 256;
/// How often the end of a mute is looked for.
const TICK: Duration = Duration::from_secs(1);

/// Who floods, and who is muted for it.
#[derive(Debug, Default)]
pub(super) struct Mute {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    second: Instant,
    counts: BTreeMap<IpAddr, u32>,
    muted: BTreeMap<IpAddr, Instant>,
}

impl Mute {
    /// A packet of an unlisted source came; true when the source is muted for it.
    pub fn note(&self, now: Instant, source: IpAddr) -> bool {
        let muted = self.table().note(now, source);
        if muted {
            self.changed.notify_one();
        }
        muted
    }

    /// An address may speak from now on.
    pub fn lift(&self, source: IpAddr) {
        if self.table().muted.remove(&source).is_some() {
            self.changed.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn note(&mut self, now: Instant, source: IpAddr) -> bool {
        if now.since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.counts.clear();
        }
        if self.counts.len() >= COUNTED_MAX && !self.counts.contains_key(&source) {
            return false;
        }
        let count = self.counts.entry(source).or_insert(0);
        *count = count.saturating_add(1);
        let floods = *count > limits::UNLISTED_PACKETS_PER_SOURCE;
        if !floods || self.muted.len() >= MUTED_MAX || self.muted.contains_key(&source) {
            return false;
        }
        self.counts.remove(&source);
        self.muted.insert(source, now + limits::MUTED);
        true
    }
}

/// Keeps the sockets' filters as the table says, until told to stop.
pub(super) async fn run(flows: Flows, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut in_force: Vec<IpAddr> = Vec::new();
    loop {
        tokio::select! {
            () = flows.0.mute.changed.notified() => {}
            _ = tick.tick() => {}
            _ = stop.changed() => return,
        }
        let now = Clock::instant();
        let muted: Vec<IpAddr> = {
            let mut table = flows.0.mute.table();
            table.muted.retain(|source, until| now < *until && !flows.admits(*source));
            table.muted.keys().copied().collect()
        };
        if muted != in_force {
            for socket in flows.0.packets.values() {
                if let Err(error) = bind::mute(socket, &muted) {
                    tracing::warn!(%error, "the kernel takes no packet filter");
                }
            }
            in_force = muted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn only_who_exceeds_the_rate_within_a_second_is_muted() {
        let mute = Mute::default();
        let limit = limits::UNLISTED_PACKETS_PER_SOURCE;
        let noted = |ms, count| (0..count).filter(|_| mute.note(at(ms), source(1))).count();
        assert_eq!(noted(1_000, limit), 0);
        assert_eq!(noted(2_000, limit), 0, "a new second");
        assert_eq!(noted(2_500, 1), 1);
        assert_eq!(noted(2_600, 2 * limit), 0, "muted already");
        mute.lift(source(1));
        assert!(mute.table().muted.is_empty());
    }

    #[test]
    fn the_tables_are_bounded() {
        let mute = Mute::default();
        for number in 0..2 * COUNTED_MAX as u32 {
            for _ in 0..=limits::UNLISTED_PACKETS_PER_SOURCE {
                mute.note(at(1_500), source(number));
            }
        }
        let table = mute.table();
        assert_eq!(table.muted.len(), MUTED_MAX);
        assert!(table.counts.len() <= COUNTED_MAX);
    }
}
