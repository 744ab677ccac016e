//! What the measured load of the media plane means: how far a shard relieves itself before audio
//! suffers, where a new call goes, and when none is taken any more (house §5). Figures come in,
//! decisions come out; no clock is read here and nothing is measured.
//!
//! ```text
//! busy      0 ........ relieve 1 ... relieve 2 ... refuse      share of a shard's time that is work
//! lateness  0 ........ relieve 1 ... relieve 2 ... refuse      99th percentile of its due frames
//! ```
//!
//! Each bound counts when it was passed in two weighings on end, and is taken back one at a time
//! after [`CALM`] weighings well below it, so that a single stall of the machine moves nothing and
//! nothing moves to and fro.

use super::statistics::{HistogramSnapshot, ShardSnapshot};
use crate::ground::CallKey;
use crate::ground::limits::{REFUSE_BUSY_PERCENT, REFUSE_LATENESS_MS};
use std::collections::BTreeMap;
use std::time::Duration;

/// Weighings on end above a bound after which it counts.
const STRAIN: u32 = 2;
/// Weighings on end well below a bound after which it counts no more.
const CALM: u32 = 5;
/// Well below a bound: less than this part of it, in percent.
const CALM_PERCENT: u64 = 80;
/// Deadlines in one weighing from which their percentile says something about load: a second of ten
/// calls. With fewer, a late frame is the machine's doing, and refusing calls would mend nothing.
const DEADLINES_MIN: u64 = 500;
/// The first shards are filled up to here before the next one is begun, in thousandths: few threads
/// that do more at each waking cost less than many that do little.
const FILL_PERMILLE: u64 = 450;
/// What a call costs as long as nothing was measured, and at least and at most: G.711 is about 1,
/// Opus 6 thousandths of a core.
const CALL_PERMILLE: (u64, u64) = (1, 12);

/// How far a shard relieves itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Relief {
    #[default]
    None,
    /// Audio goes to the agent in pieces of 40 ms; Opus is encoded with complexity 3.
    Some,
    /// In pieces of 60 ms; with complexity 0.
    Full,
}

impl Relief {
    /// Frames of 20 ms that go to the agent together.
    pub fn frames_together(self) -> usize {
        match self {
            Relief::None => 1,
            Relief::Some => 2,
            Relief::Full => 3,
        }
    }

    /// Complexity of the Opus encoder. The first is the encoder's default: 5 costs a third less than
    /// 9 and nearly three times 0.
    pub fn opus_complexity(self) -> u8 {
        match self {
            Relief::None => 5,
            Relief::Some => 3,
            Relief::Full => 0,
        }
    }

    /// The number of the step, for the metrics.
    pub fn step(self) -> u64 {
        match self {
            Relief::None => 0,
            Relief::Some => 1,
            Relief::Full => 2,
        }
    }

    fn more(self) -> Relief {
        match self {
            Relief::None => Relief::Some,
            Relief::Some | Relief::Full => Relief::Full,
        }
    }

    fn less(self) -> Relief {
        match self {
            Relief::None | Relief::Some => Relief::None,
            Relief::Full => Relief::Some,
        }
    }
}

/// A bound on both figures; to pass either passes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    pub busy_permille: u64,
    pub lateness: Duration,
}

impl Bound {
    /// From here new calls are refused, unless the configuration says otherwise.
    pub const REFUSE: Bound = Bound::new(REFUSE_BUSY_PERCENT, REFUSE_LATENESS_MS);

    /// From figures as they are configured.
    pub const fn new(busy_percent: u8, lateness_ms: u16) -> Bound {
        let lateness = Duration::from_millis(lateness_ms as u64);
        Bound { busy_permille: busy_percent as u64 * 10, lateness }
    }

    /// The bound at which a shard takes a step of relief: seven and eight tenths of the bound at which
    /// calls are refused.
    fn of_relief(self, step: Relief) -> Bound {
        let tenths = match step {
            Relief::None | Relief::Some => 7,
            Relief::Full => 8,
        };
        let Bound { busy_permille, lateness } = self;
        Bound {
            busy_permille: busy_permille * tenths / 10,
            lateness: lateness * tenths as u32 / 10,
        }
    }

    fn is_passed(self, figures: Figures) -> bool {
        figures.busy_permille >= self.busy_permille || figures.lateness > self.lateness
    }

    fn is_far(self, figures: Figures) -> bool {
        let percent = |part: u128, whole: u128| part * 100 < whole * u128::from(CALM_PERCENT);
        percent(figures.busy_permille.into(), self.busy_permille.into())
            && percent(figures.lateness.as_nanos(), self.lateness.as_nanos())
    }
}

/// What was measured since the last weighing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    pub busy_permille: u64,
    /// The 99th percentile; zero when there were too few deadlines to tell.
    pub lateness: Duration,
}

impl Figures {
    /// From the busy share and what the histogram of lateness grew by.
    pub fn new(busy_permille: u64, lateness: &HistogramSnapshot) -> Figures {
        let micros = match lateness.count() {
            0..DEADLINES_MIN => 0,
            _ => lateness.quantile_us(990),
        };
        Figures { busy_permille, lateness: Duration::from_micros(micros) }
    }
}

/// A yes or no that changes slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Slow {
    /// Weighings on end that spoke for the change.
    streak: u32,
}

impl Slow {
    /// True when `speaks` has spoken `needed` times on end; it counts anew then.
    fn note(&mut self, speaks: bool, needed: u32) -> bool {
        self.streak = if speaks { self.streak + 1 } else { 0 };
        let enough = self.streak >= needed;
        if enough {
            self.streak = 0;
        }
        enough
    }
}

/// One shard's way up and down the ladder of [`Relief`].
#[derive(Clone, Copy, Debug)]
pub struct ReliefLadder {
    refuse: Bound,
    step: Relief,
    strain: Slow,
    calm: Slow,
}

impl ReliefLadder {
    /// A ladder below the bound at which calls are refused.
    pub fn new(refuse: Bound) -> ReliefLadder {
        ReliefLadder { refuse, step: Relief::None, strain: Slow::default(), calm: Slow::default() }
    }

    pub fn step(&self) -> Relief {
        self.step
    }

    /// Takes one weighing; gives the new step when it changed.
    pub fn weigh(&mut self, figures: Figures) -> Option<Relief> {
        let before = self.step;
        let strained =
            before != Relief::Full && self.refuse.of_relief(before.more()).is_passed(figures);
        let calm = before != Relief::None && self.refuse.of_relief(before).is_far(figures);
        if self.strain.note(strained, STRAIN) {
            self.step = before.more();
        } else if self.calm.note(calm, CALM) {
            self.step = before.less();
        }
        (self.step != before).then_some(self.step)
    }
}

/// What is known of one shard.
#[derive(Clone, Debug, Default)]
struct Lane {
    busy_permille: u64,
    /// Joined streams when it was weighed: the calls that its busy share is made of.
    streams: u64,
    lateness: HistogramSnapshot,
    /// Calls that were given to it and have not ended.
    placed: u64,
    full: bool,
    strain: Slow,
    calm: Slow,
}

impl Lane {
    /// What its calls will cost when all have joined, in thousandths of a core.
    fn expected_permille(&self) -> u64 {
        let (least, most) = CALL_PERMILLE;
        let each = self.busy_permille.checked_div(self.streams).unwrap_or(least).clamp(least, most);
        self.busy_permille.max(self.placed * each)
    }
}

/// Where the calls are: each has one shard for the whole of its life.
#[derive(Debug)]
pub struct Placement {
    refuse: Bound,
    lanes: Vec<Lane>,
    /// The shard of each call, and how many of its openings are not closed yet.
    calls: BTreeMap<CallKey, (usize, u32)>,
}

impl Placement {
    /// For `shards` shards, at least one.
    pub fn new(shards: usize, refuse: Bound) -> Placement {
        Placement { refuse, lanes: vec![Lane::default(); shards.max(1)], calls: BTreeMap::new() }
    }

    /// Takes one weighing of all shards. True when none of them has room for a further call.
    pub fn weigh(&mut self, shards: &[ShardSnapshot]) -> bool {
        for (lane, shard) in self.lanes.iter_mut().zip(shards) {
            let figures =
                Figures::new(shard.busy_permille, &shard.pacing_lateness.since(&lane.lateness));
            lane.busy_permille = shard.busy_permille;
            lane.streams = shard.agent_streams;
            lane.lateness = shard.pacing_lateness;
            let (passed, far) = (self.refuse.is_passed(figures), self.refuse.is_far(figures));
            if lane.strain.note(!lane.full && passed, STRAIN) {
                lane.full = true;
            } else if lane.calm.note(lane.full && far, CALM) {
                lane.full = false;
            }
        }
        self.is_overloaded()
    }

    /// No shard has room for a further call.
    pub fn is_overloaded(&self) -> bool {
        self.lanes.iter().all(|lane| lane.full)
    }

    /// Gives an opening call its shard: the first that is little loaded, else the one that is
    /// loaded least, of those that have room if any has. A call that has a shard keeps it.
    pub fn open(&mut self, call: CallKey) -> usize {
        if let Some((shard, openings)) = self.calls.get_mut(&call) {
            *openings += 1;
            return *shard;
        }
        let rank = |(number, lane): &(usize, &Lane)| {
            let expected = lane.expected_permille();
            let filling = expected < FILL_PERMILLE;
            (lane.full, !filling, if filling { 0 } else { expected }, *number)
        };
        let shard = self.lanes.iter().enumerate().min_by_key(rank).map_or(0, |(number, _)| number);
        self.calls.insert(call, (shard, 1));
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.placed += 1;
        }
        shard
    }

    /// The shard of a call. Any does for a call that has none: there is nothing of it anywhere.
    pub fn shard_of(&self, call: CallKey) -> usize {
        self.calls.get(&call).map_or(0, |(shard, _)| *shard)
    }

    /// One opening of a call was closed, or came to nothing.
    pub fn closed(&mut self, call: CallKey) {
        let Some((shard, openings)) = self.calls.get_mut(&call) else { return };
        *openings -= 1;
        if *openings > 0 {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(*shard) {
            lane.placed -= 1;
        }
        self.calls.remove(&call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::media::statistics::Histogram;

    fn figures(busy_permille: u64, lateness_ms: u64) -> Figures {
        Figures { busy_permille, lateness: Duration::from_millis(lateness_ms) }
    }

    #[test]
    fn relief_goes_up_under_strain_and_down_in_calm_one_step_at_a_time() {
        let cases: [(&str, Figures, usize, u64); 12] = [
            // What is seen, how often, and the step after it.
            ("at rest", figures(100, 0), 9, 0),
            ("just below the first bound", figures(594, 7), 9, 0),
            ("one peak", figures(900, 0), 1, 0),
            ("and rest", figures(100, 0), 1, 0),
            ("busy", figures(595, 0), 2, 1),
            ("not busy enough for more", figures(679, 0), 9, 1),
            ("late", figures(100, 9), 2, 2),
            ("there is no more", figures(999, 50), 9, 2),
            ("between the bounds it stays", figures(550, 0), 9, 2),
            ("well below the upper one", figures(543, 6), 5, 1),
            ("well below the lower one, not long enough", figures(475, 2), 4, 1),
            ("long enough", figures(475, 2), 1, 0),
        ];
        let mut ladder = ReliefLadder::new(Bound::REFUSE);
        for (words, seen, times, step) in cases {
            for _ in 0..times {
                ladder.weigh(seen);
            }
            assert_eq!(ladder.step().step(), step, "{words}");
        }
    }

    #[test]
    fn a_step_is_told_once() {
        let mut ladder = ReliefLadder::new(Bound::REFUSE);
        let told: Vec<_> = (0..6).map(|_| ladder.weigh(figures(1_000, 0))).collect();
        let (some, full) = (Some(Relief::Some), Some(Relief::Full));
        assert_eq!(told, [None, some, None, full, None, None]);
    }

    #[test]
    fn each_step_of_relief_is_cheaper_than_the_one_before() {
        let steps = [Relief::None, Relief::Some, Relief::Full];
        assert_eq!(steps.map(Relief::frames_together), [1, 2, 3]);
        assert_eq!(steps.map(Relief::opus_complexity), [5, 3, 0]);
    }

    #[test]
    fn a_percentile_of_few_deadlines_says_nothing() {
        let histogram = Histogram::default();
        let of = |histogram: &Histogram| Figures::new(7, &histogram.snapshot());
        (0..499).for_each(|_| histogram.record(Duration::from_millis(40)));
        assert_eq!(of(&histogram), figures(7, 0));
        histogram.record(Duration::from_millis(40));
        assert_eq!(of(&histogram), figures(7, 50), "the upper bound of its bucket");
    }

    /// A shard as it is seen: busy share, joined streams, and that so many frames were so late.
    fn seen(busy_permille: u64, agent_streams: u64, late: &Histogram) -> ShardSnapshot {
        let pacing_lateness = late.snapshot();
        ShardSnapshot { busy_permille, agent_streams, pacing_lateness, ..ShardSnapshot::default() }
    }

    #[test]
    fn no_call_is_taken_when_every_shard_is_full_and_again_when_one_has_room() {
        let mut placement = Placement::new(2, Bound::REFUSE);
        let none = Histogram::default();
        let mut weigh = |first, second, times| {
            (0..times).map(|_| placement.weigh(&[first, second])).collect::<Vec<_>>()
        };
        let (busy, resting) = (seen(850, 0, &none), seen(849, 0, &none));
        assert_eq!(weigh(busy, resting, 3), [false; 3], "one has room");
        assert_eq!(weigh(busy, busy, 3), [false, true, true]);
        assert_eq!(weigh(resting, busy, 9), [true; 9], "not far enough below");
        let calm = seen(679, 0, &none);
        assert_eq!(weigh(calm, busy, 5), [true, true, true, true, false]);
    }

    #[test]
    fn frames_that_leave_late_refuse_calls_too_and_old_ones_are_forgotten() {
        let mut placement = Placement::new(1, Bound::REFUSE);
        let late = Histogram::default();
        let mut weigh = |lateness_ms: u64| {
            (0..500).for_each(|_| late.record(Duration::from_millis(lateness_ms)));
            placement.weigh(&[seen(100, 0, &late)])
        };
        assert_eq!([weigh(10), weigh(10), weigh(10)], [false; 3]);
        assert_eq!([weigh(11), weigh(11)], [false, true]);
        assert_eq!(
            [weigh(1), weigh(1), weigh(1), weigh(1), weigh(1)],
            [true, true, true, true, false]
        );
    }

    #[test]
    fn calls_fill_the_first_shard_halfway_and_then_go_where_the_load_is_least() {
        let mut placement = Placement::new(2, Bound::REFUSE);
        let none = Histogram::default();
        let mut number = 0;
        let mut open = |placement: &mut Placement| {
            number += 1;
            placement.open(CallKey(number))
        };
        // Nothing was measured: each counts as one thousandth.
        assert!((0..450).all(|_| open(&mut placement) == 0));
        assert!((0..450).all(|_| open(&mut placement) == 1));
        let next: Vec<_> = (0..4).map(|_| open(&mut placement)).collect();
        assert_eq!(next, [0, 1, 0, 1]);
        placement.weigh(&[seen(500, 450, &none), seen(460, 450, &none)]);
        assert_eq!(open(&mut placement), 1);
        placement.weigh(&[seen(500, 450, &none), seen(900, 450, &none)]);
        placement.weigh(&[seen(500, 450, &none), seen(900, 450, &none)]);
        assert_eq!(open(&mut placement), 0);
    }

    #[test]
    fn calls_that_have_not_joined_yet_are_reckoned_with() {
        let mut placement = Placement::new(2, Bound::REFUSE);
        let none = Histogram::default();
        // Opus: 60 thousandths for 10 streams.
        assert!((1..=10).all(|number| placement.open(CallKey(number)) == 0));
        placement.weigh(&[seen(60, 10, &none), seen(0, 0, &none)]);
        let placed: Vec<_> = (11..=90).map(|number| placement.open(CallKey(number))).collect();
        assert_eq!(placed.iter().position(|shard| *shard == 1), Some(65), "6 each, up to 450");
    }

    #[test]
    fn a_call_keeps_its_shard_until_all_of_it_is_closed() {
        let mut placement = Placement::new(2, Bound { busy_permille: 0, ..Bound::REFUSE });
        let (call, none) = (CallKey(1), Histogram::default());
        assert_eq!(placement.open(call), 0);
        for _ in 0..2 {
            placement.weigh(&[seen(990, 1, &none), ShardSnapshot::default()]);
        }
        assert_eq!((placement.open(call), placement.shard_of(call)), (0, 0), "a second opening");
        placement.closed(call);
        assert_eq!(placement.open(call), 0);
        placement.closed(call);
        placement.closed(call);
        assert_eq!(placement.open(call), 1, "a call anew");
        placement.closed(call);
        placement.closed(call);
        assert_eq!(placement.calls.len(), 0);
    }
}
