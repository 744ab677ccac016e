//! How late packets come, and how long to wait for them: the target delay of a leg's jitter buffer.
//!
//! Each packet's delay is measured against the fastest of the last seconds (arrival less timestamp, a
//! windowed minimum), and the target is the delay that all but 3 % keep to, of a histogram that
//! forgets: the method of Moon, Kurose and Towsley (Packet Audio Playout Delay Adjustment, Multimedia
//! Systems 6, 1998), and of WebRTC's NetEq. It rises at once and falls by 10 ms in a second, within its
//! bounds. What comes in a burst behind a stall is one observation, not many. A stall is no reason to
//! wait longer; the second one within ten seconds is.
//!
//! | the network | the target |
//! |---|---|
//! | is clean | the least |
//! | varies | what 97 of 100 packets keep to |
//! | stalls now and then, drains | as before; a second stall soon: as long as the shorter of the two |
//! | is another one, faster or slower | follows within a second |
//! | a new SSRC, a jump of the timestamps | stays; delays are measured anew |
//! | a pause of the sender | stays |
//!
//! It sees timestamps only: no sequence number, no payload. It is no part of the jitter that RTCP
//! reports (RFC 3550 §A.8).

use super::plan::DelayBounds;
use crate::ground::Instant;
use std::time::Duration;

/// The target before anything is known.
const FIRST: i64 = 60 * MILLISECOND;
const MILLISECOND: i64 = 1_000;
/// Delays are told apart by so much.
const BUCKET: i64 = 10 * MILLISECOND;
/// Buckets up to the longest delay; what is later still is in the last.
const BUCKETS: usize = 51;
/// The share of packets that may come later than the target.
const LATER: f32 = 0.03;
/// Each packet weighs so much more than the one before it: half of what is known is of the last 89.
const GROWTH: f32 = 128.0 / 127.0;
/// The weight at which all are scaled down again.
const WEIGHT_MAX: f32 = 1e6;
/// Half of the window in which the fastest packet is sought.
const WINDOW: i64 = 1_000 * MILLISECOND;
/// By how much the target falls: microseconds in a second.
const FALL: i64 = 10 * MILLISECOND;
/// Time over which it falls at once, at most: more than from any bound to the other.
const FALL_MAX: i64 = 60_000 * MILLISECOND;
/// A delay by so much beyond the target begins a peak.
const PEAK_OVER: i64 = 10 * MILLISECOND;
/// A peak that lasts longer is another network, not a stall. Less than the window, which would end it.
const PEAK_MAX: i64 = 900 * MILLISECOND;
/// Peaks this close to each other raise the target, and keep it up for as long.
const PEAKS_APART: Duration = Duration::from_secs(10);
/// Arrival and timestamp that disagree by more are a jump of the timestamps.
const JUMP: i64 = 1_500 * MILLISECOND;
/// For so long after packets came out of order, gaps wait for the whole target.
const DISORDER: i64 = 30_000 * MILLISECOND;

/// Measures one stream's delays.
#[derive(Debug)]
pub struct TargetDelay {
    /// The bounds, and all spans below, in microseconds.
    min: i64,
    max: i64,
    clock_hz: u32,
    last: Option<Last>,
    /// The least transit of the second before, and of this one until now; since when.
    least: [i64; 2],
    turned: Instant,
    weights: [f32; BUCKETS],
    weight: f32,
    total: f32,
    /// Weight above `bucket`, which is the one that all but few keep to.
    above: f32,
    bucket: usize,
    target: i64,
    target_max: i64,
    /// Until when the target was lowered, or when it may be next.
    fallen: Instant,
    peak: Option<Peak>,
    /// When the last peak ended, and how high it was.
    last_peak: Option<(Instant, i64)>,
    /// When a packet came behind a later one; the beginning counts.
    disorder: Option<Instant>,
}

/// The packet before.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    timestamp: u32,
    /// Arrival less timestamp, against the first packet.
    transit: i64,
    /// How much later than the fastest it was.
    delay: i64,
}

#[derive(Clone, Copy, Debug)]
struct Peak {
    since: Instant,
    height: i64,
}

impl TargetDelay {
    /// For a stream whose timestamps count `clock_hz` a second.
    pub fn new(bounds: DelayBounds, clock_hz: u32) -> TargetDelay {
        let mut delay = TargetDelay {
            min: bounds.min.as_micros() as i64,
            max: bounds.max.as_micros() as i64,
            clock_hz: clock_hz.max(1),
            last: None,
            least: [0; 2],
            turned: Instant::ZERO,
            weights: [0.0; BUCKETS],
            weight: 1.0,
            total: 0.0,
            above: 0.0,
            bucket: 0,
            target: 0,
            target_max: 0,
            fallen: Instant::ZERO,
            peak: None,
            last_peak: None,
            disorder: None,
        };
        delay.raise(FIRST);
        delay
    }

    /// A new time base: another SSRC, another clock. What is known of the network stays.
    pub fn restart(&mut self, clock_hz: u32) {
        self.clock_hz = clock_hz.max(1);
        (self.last, self.peak) = (None, None);
    }

    /// How long a packet may be on its way longer than the fastest, and still be waited for.
    pub fn target(&self) -> Duration {
        micros(self.target)
    }

    /// The longest that the target has been.
    pub fn target_max(&self) -> Duration {
        micros(self.target_max)
    }

    /// How long a gap is to wait: the target where packets come out of order. On a path that keeps the
    /// order a packet that its successor overtook is lost, and waiting for it is delay for nothing.
    pub fn gap(&self, now: Instant) -> Duration {
        let disorder = self.disorder.is_none_or(|at| between(at, now) <= DISORDER);
        micros(if disorder { self.target } else { self.min.min(self.target) })
    }

    /// Takes an audio packet that arrived. Each copy of one is taken once.
    pub fn observe(&mut self, now: Instant, timestamp: u32) {
        let Some(last) = self.last else { return self.begin(now, timestamp) };
        let ticks = timestamp.wrapping_sub(last.timestamp) as i32;
        let step = i64::from(ticks) * 1_000_000 / i64::from(self.clock_hz);
        let elapsed = between(last.at, now);
        let transit = last.transit + elapsed - step;
        if (elapsed - step).abs() > JUMP {
            return self.begin(now, timestamp);
        }
        self.note_least(now, transit);
        let delay = transit - self.least[0].min(self.least[1]);
        let draining = delay < last.delay && 2 * elapsed < step;
        self.last = Some(Last { at: now, timestamp, transit, delay });
        if ticks < 0 {
            self.disorder = Some(now);
        }
        // What no target could wait for says nothing of how long to wait.
        if !draining && delay <= self.max {
            self.weigh(delay);
        }
        self.watch_peak(now, delay);
        self.follow(now);
    }

    fn begin(&mut self, now: Instant, timestamp: u32) {
        if self.disorder.is_none() {
            (self.disorder, self.fallen) = (Some(now), now);
        }
        self.last = Some(Last { at: now, timestamp, transit: 0, delay: 0 });
        (self.least, self.turned, self.peak) = ([0; 2], now, None);
    }

    fn note_least(&mut self, now: Instant, transit: i64) {
        if between(self.turned, now) >= WINDOW {
            self.least = [self.least[1], transit];
            self.turned = now;
        }
        self.least[1] = self.least[1].min(transit);
    }

    /// Brings a delay into the histogram, and the bucket to where it is due. Instead of making all
    /// weights smaller with each packet, the next one weighs more.
    fn weigh(&mut self, delay: i64) {
        let index = usize::try_from(delay / BUCKET).unwrap_or(0).min(BUCKETS - 1);
        self.weights[index] += self.weight;
        self.total += self.weight;
        if index > self.bucket {
            self.above += self.weight;
        }
        self.weight *= GROWTH;
        if self.weight > WEIGHT_MAX {
            self.scale();
        }
        let share = self.total * LATER;
        while self.above > share && self.bucket < BUCKETS - 1 {
            self.bucket += 1;
            self.above -= self.weights[self.bucket];
        }
        while self.bucket > 0 && self.above + self.weights[self.bucket] <= share {
            self.above += self.weights[self.bucket];
            self.bucket -= 1;
        }
    }

    fn scale(&mut self) {
        for weight in &mut self.weights {
            *weight /= WEIGHT_MAX;
        }
        self.weight /= WEIGHT_MAX;
        self.total = self.weights.iter().sum();
        self.above = self.weights[self.bucket + 1..].iter().sum();
    }

    /// A delay beyond the target begins a peak, which ends when packets keep to it again. One that
    /// does not end is another network: the fastest packet is one of those that come now.
    fn watch_peak(&mut self, now: Instant, delay: i64) {
        let over = delay > self.target + PEAK_OVER;
        match &mut self.peak {
            None if over => self.peak = Some(Peak { since: now, height: delay }),
            None => {}
            Some(peak) if !over => {
                let height = peak.height;
                self.peak = None;
                self.end_peak(now, height);
            }
            Some(peak) if between(peak.since, now) > PEAK_MAX => {
                if let Some(last) = &mut self.last {
                    (self.least, self.turned) = ([last.transit; 2], now);
                    last.delay = 0;
                }
                self.peak = None;
            }
            Some(peak) => peak.height = peak.height.max(delay),
        }
    }

    fn end_peak(&mut self, now: Instant, height: i64) {
        let before = self.last_peak.replace((now, height));
        let Some((at, other)) = before else { return };
        if now.since(at) <= PEAKS_APART {
            self.raise(height.min(other) + PEAK_OVER);
            self.fallen = now + PEAKS_APART;
        }
    }

    fn follow(&mut self, now: Instant) {
        let wanted = self.bounded((self.bucket as i64 + 1) * BUCKET);
        if wanted >= self.target {
            self.raise(wanted);
            self.fallen = self.fallen.max(now);
            return;
        }
        let fall = between(self.fallen, now).min(FALL_MAX) * FALL / 1_000_000;
        if fall > 0 {
            self.target = (self.target - fall).max(wanted);
            self.fallen = now;
        }
    }

    fn raise(&mut self, target: i64) {
        self.target = self.target.max(self.bounded(target));
        self.target_max = self.target_max.max(self.target);
    }

    fn bounded(&self, span: i64) -> i64 {
        span.min(self.max).max(self.min)
    }
}

fn micros(span: i64) -> Duration {
    Duration::from_micros(u64::try_from(span).unwrap_or(0))
}

/// From one instant to a later one, in microseconds.
fn between(one: Instant, other: Instant) -> i64 {
    (other.as_nanos().saturating_sub(one.as_nanos()) / 1_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Entropy;

    const STEP_MS: u64 = 20;

    /// A stream of packets of 20 ms at 8 kHz, fed by their delays.
    struct Wire {
        delay: TargetDelay,
        chance: Entropy,
        /// Packets sent so far, and how many of them are still on their way, by arrival.
        number: u64,
        flying: Vec<(u64, u32)>,
        newest: u64,
        base_ms: u64,
        /// Added to the timestamps.
        jump: u32,
    }

    impl Wire {
        fn new(bounds: DelayBounds) -> Wire {
            let delay = TargetDelay::new(bounds, 8_000);
            let chance = Entropy::from_number(3);
            Wire { delay, chance, number: 100, flying: Vec::new(), newest: 0, base_ms: 40, jump: 0 }
        }

        /// `seconds` of packets, each delayed by what `late` draws (in milliseconds) beyond the base;
        /// in order of sending when `fifo`. Gives the target at the end.
        fn run(
            &mut self,
            seconds: u64,
            fifo: bool,
            mut late: impl FnMut(u64, &mut Entropy) -> u64,
        ) -> u64 {
            for _ in 0..seconds * 1_000 / STEP_MS {
                let sent = self.number * STEP_MS;
                let mut at = (sent + self.base_ms + late(self.number, &mut self.chance)) * 1_000;
                if fifo {
                    at = at.max(self.newest);
                    self.newest = at;
                }
                let timestamp = (self.number as u32 * 160).wrapping_add(self.jump);
                self.flying.push((at, timestamp));
                self.number += 1;
                self.flying.sort();
                while self.flying.first().is_some_and(|(at, _)| *at <= sent * 1_000) {
                    let (at, timestamp) = self.flying.remove(0);
                    self.delay.observe(Instant::from_nanos(at * 1_000), timestamp);
                }
            }
            self.target()
        }

        fn target(&self) -> u64 {
            self.delay.target().as_millis() as u64
        }

        fn gap(&self) -> u64 {
            let now = Instant::from_nanos(self.number * STEP_MS * 1_000_000);
            self.delay.gap(now).as_millis() as u64
        }
    }

    fn bounds(min: u64, max: u64) -> DelayBounds {
        DelayBounds { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    fn steady(_: u64, _: &mut Entropy) -> u64 {
        0
    }

    #[test]
    fn a_clean_network_brings_the_target_to_its_least_within_five_seconds() {
        for (least, start) in [(20, 60), (0, 60), (80, 80)] {
            let mut wire = Wire::new(bounds(least, 200));
            assert_eq!(wire.target(), start);
            wire.run(5, true, steady);
            assert_eq!(wire.target(), least.max(10), "least {least}");
            wire.run(60, true, |_, chance| chance.below(3));
            assert_eq!((wire.target(), wire.gap()), (least.max(10), least));
        }
    }

    #[test]
    fn the_target_follows_what_the_network_does_up_at_once_and_down_slowly() {
        for fifo in [true, false] {
            for jitter in [30, 80, 150] {
                let mut wire = Wire::new(DelayBounds::default());
                wire.run(10, fifo, steady);
                let up = wire.run(1, fifo, |_, chance| chance.below(jitter));
                let most = jitter.div_ceil(10) * 10 + 10;
                assert!((jitter * 7 / 10..=most).contains(&up), "{jitter} ms, {fifo}: {up}");
                let held = wire.run(60, fifo, |_, chance| chance.below(jitter));
                assert!((jitter * 7 / 10..=most).contains(&held), "{jitter} ms, {fifo}: {held}");
                let after = wire.run(1, fifo, steady);
                assert!(after + 11 >= held, "down slowly");
                assert_eq!(wire.run(35, fifo, steady), 20, "{jitter} ms: and down in the end");
            }
        }
    }

    #[test]
    fn a_stall_is_forgiven_and_the_second_within_ten_seconds_is_not() {
        let stall = |every: u64, long: u64| {
            move |number: u64, _: &mut Entropy| {
                let phase = number % (every / STEP_MS) * STEP_MS;
                long.saturating_sub(phase)
            }
        };
        let mut wire = Wire::new(DelayBounds::default());
        wire.run(10, true, steady);
        let peak = wire.run(15, true, stall(15_000, 300));
        assert_eq!(peak, 20, "one stall in a quarter of a minute");
        let peaks = wire.run(12, true, stall(4_000, 100));
        assert!((90..=120).contains(&peaks), "{peaks}");
        let peaks = wire.run(12, true, stall(4_000, 1_000));
        assert_eq!(peaks, 200, "never more than the bound");
        assert_eq!(wire.run(40, true, steady), 20, "back within 40 s");
        assert_eq!(wire.delay.target_max().as_millis(), 200);
    }

    #[test]
    fn another_route_is_followed_within_a_second_and_forgotten_in_twenty() {
        let mut wire = Wire::new(DelayBounds::default());
        wire.run(10, true, steady);
        wire.base_ms += 60;
        let after = wire.run(1, true, steady);
        assert!((60..=80).contains(&after), "{after}");
        assert_eq!(wire.run(20, true, steady), 20);
        wire.base_ms -= 60;
        wire.run(1, true, steady);
        assert_eq!(wire.target(), 20, "what comes sooner is no delay");
    }

    #[test]
    fn jumps_pauses_and_new_streams_are_no_delay() {
        let mut wire = Wire::new(DelayBounds::default());
        wire.run(10, true, steady);
        for jump in [1 << 31, 160_000, 0u32.wrapping_sub(160_000), 0xffff_0000] {
            wire.jump = wire.jump.wrapping_add(jump);
            let target = wire.run(5, true, steady);
            assert_eq!(target, 20, "a jump of {jump}");
        }
        wire.number += 500;
        assert_eq!(wire.run(5, true, steady), 20, "ten seconds of nothing");
        wire.delay.restart(8_000);
        wire.flying.clear();
        wire.base_ms += 300;
        assert_eq!(wire.run(5, true, steady), 20, "another source elsewhere");
        // A sender whose timestamps stand still over its pauses.
        for _ in 0..3 {
            wire.jump = wire.jump.wrapping_sub(400 * 8);
            assert!(wire.run(8, true, steady) <= 20, "{}", wire.target());
        }
    }

    #[test]
    fn gaps_wait_only_where_packets_overtake_each_other() {
        let mut wire = Wire::new(DelayBounds::default());
        wire.run(60, true, |_, chance| chance.below(100));
        assert_eq!((wire.target() > 80, wire.gap()), (true, 20));
        wire.run(1, false, |_, chance| chance.below(100));
        assert_eq!(wire.gap(), wire.target());
        wire.run(31, true, |_, chance| chance.below(100));
        assert_eq!(wire.gap(), 20);
    }

    #[test]
    fn drift_is_no_delay() {
        for ppm in [-200i64, 200] {
            let mut delay = TargetDelay::new(DelayBounds::default(), 48_000);
            for number in 0..60_000u64 {
                let at = number as i64 * (20_000_000 + 20 * ppm);
                let now = Instant::from_nanos(1_000_000_000 + at as u64);
                delay.observe(now, number as u32 * 960);
                assert!(number < 300 || delay.target().as_millis() == 20, "{number}");
            }
        }
    }

    #[test]
    fn nothing_that_comes_makes_it_leave_its_bounds() {
        let mut chance = Entropy::from_number(9);
        for clock_hz in [0, 1, 8_000, 48_000, u32::MAX] {
            let mut delay = TargetDelay::new(bounds(30, 900), clock_hz);
            let (mut at, mut timestamp) = (5u64, 0u32);
            for _ in 0..50_000 {
                at += match chance.below(8) {
                    0 => chance.below(1 << 36),
                    _ => chance.below(40_000_000),
                };
                timestamp = match chance.below(9) {
                    0 => chance.u64() as u32,
                    _ => timestamp.wrapping_add(160),
                };
                let now = Instant::from_nanos(at);
                delay.observe(now, timestamp);
                let spans = [delay.target(), delay.gap(now), delay.target_max()];
                assert!(spans.iter().all(|span| (30..=900).contains(&span.as_millis())));
            }
        }
    }
}
