//! What a shard counts: written by its one thread, read by anyone, latest value wins. Durations go
//! into histograms of fixed buckets, so that counting costs one addition and no lock.

use crate::ground::Instant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds; one more bucket holds what is longer.
pub const BUCKETS_US: [u64; 12] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000];

/// A distribution of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            raise(count, 1);
        }
        raise(&self.sum_us, micros);
    }

    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// Adds for the one thread that writes: others only read, so that no locked instruction is needed.
fn raise(number: &AtomicU64, amount: u64) {
    number.store(number.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// A copy of a [`Histogram`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HistogramSnapshot {
    /// Durations in each bucket of [`BUCKETS_US`]; the last is for longer ones.
    pub counts: [u64; BUCKETS_US.len() + 1],
    pub sum_us: u64,
}

impl HistogramSnapshot {
    /// Durations recorded in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound in microseconds of the bucket that holds the quantile `permille`; zero when
    /// nothing was recorded, `u64::MAX` when it lies beyond the last bound.
    pub fn quantile_us(&self, permille: u64) -> u64 {
        let total = self.count();
        if total == 0 {
            return 0;
        }
        let rank = (total * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (count, bound) in self.counts.iter().zip(BUCKETS_US.iter().chain([&u64::MAX])) {
            seen += count;
            if seen >= rank {
                return *bound;
            }
        }
        u64::MAX
    }

    /// Both together.
    pub fn plus(mut self, other: HistogramSnapshot) -> HistogramSnapshot {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us += other.sum_us;
        self
    }

    /// What was recorded since `earlier`, an older copy of the same histogram.
    pub fn since(&self, earlier: &HistogramSnapshot) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|bucket| {
                self.counts[bucket].saturating_sub(earlier.counts[bucket])
            }),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }
}

/// A number with one writer: a running total, or a level.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, amount: u64) {
        raise(&self.0, amount);
    }

    pub fn subtract(&self, amount: u64) {
        raise(&self.0, amount.wrapping_neg());
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One shard's counters.
#[derive(Debug, Default)]
pub struct ShardStatistics {
    pub heartbeat: Count,
    pub busy_permille: Count,
    pub relief: Count,
    pub sessions: Count,
    pub agent_streams: Count,
    pub packets_received: Count,
    pub packets_sent: Count,
    pub send_failures: Count,
    pub uplink_frames: Count,
    pub uplink_dropped_frames: Count,
    pub texts_forwarded: Count,
    pub texts_filtered: Count,
    pub texts_dropped: Count,
    pub protocol_faults: Count,
    pub panics: Count,
    pub pacing_lateness: Histogram,
    pub forwarding_delay: Histogram,
}

impl ShardStatistics {
    pub fn snapshot(&self) -> ShardSnapshot {
        ShardSnapshot {
            heartbeat: Instant::from_nanos(self.heartbeat.value()),
            busy_permille: self.busy_permille.value(),
            relief: self.relief.value(),
            sessions: self.sessions.value(),
            agent_streams: self.agent_streams.value(),
            packets_received: self.packets_received.value(),
            packets_sent: self.packets_sent.value(),
            send_failures: self.send_failures.value(),
            uplink_frames: self.uplink_frames.value(),
            uplink_dropped_frames: self.uplink_dropped_frames.value(),
            texts_forwarded: self.texts_forwarded.value(),
            texts_filtered: self.texts_filtered.value(),
            texts_dropped: self.texts_dropped.value(),
            protocol_faults: self.protocol_faults.value(),
            panics: self.panics.value(),
            pacing_lateness: self.pacing_lateness.snapshot(),
            forwarding_delay: self.forwarding_delay.snapshot(),
        }
    }
}

/// A copy of one shard's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardSnapshot {
    /// When the shard last began a round; it begins one at least every second.
    pub heartbeat: Instant,
    /// Thousandths of the last second or so in which the shard worked rather than waited.
    pub busy_permille: u64,
    /// How far it relieves itself: 0, 1 or 2.
    pub relief: u64,
    /// Media sessions that are open.
    pub sessions: u64,
    /// Agent streams that are joined.
    pub agent_streams: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Packets that the system did not take.
    pub send_failures: u64,
    /// Frames of caller audio written to agents.
    pub uplink_frames: u64,
    /// Frames of caller audio dropped since an agent's socket did not take them, of closed calls.
    pub uplink_dropped_frames: u64,
    /// Data messages handed to signalling.
    pub texts_forwarded: u64,
    /// Data messages that end in the shard: state, transcripts, pongs, buffer clears.
    pub texts_filtered: u64,
    /// Data messages that were no JSON with a `type`, too large, or for which there was no room.
    pub texts_dropped: u64,
    /// Agent streams ended for a fault in their frames.
    pub protocol_faults: u64,
    /// Sessions ended by a panic of our own.
    pub panics: u64,
    /// How late sessions' deadlines were served.
    pub pacing_lateness: HistogramSnapshot,
    /// From a packet's arrival in the shard to its audio written to the agent.
    pub forwarding_delay: HistogramSnapshot,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile_us(990), 0);
        for micros in [50, 51, 100, 101, 1_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let first = histogram.snapshot();
        assert_eq!(first.counts[..3], [1, 2, 1]);
        assert_eq!((first.quantile_us(200), first.quantile_us(201)), (50, 100));
        assert_eq!((first.quantile_us(800), first.quantile_us(1_000)), (200, u64::MAX));
        histogram.record(Duration::from_millis(3));
        let later = histogram.snapshot().since(&first);
        assert_eq!((later.count(), later.quantile_us(500), later.sum_us), (1, 5_000, 3_000));
    }
}
