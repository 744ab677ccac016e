//! The turns in which agent calls are created: no faster than Ultravox's limits allow, and in the
//! order in which callers came. A caller whose turn is not there yet keeps ringing, in a bounded
//! queue; one that could not wait so long is turned away at once with the time to come again.
//!
//! After a 429 or 503 nothing is created until its `Retry-After` is over, and then one call at a
//! time, until one succeeds. A call that may exist although nobody will join it (its creation timed
//! out, or its caller gave up) counts as one that is up until its `joinTimeout` is over, since
//! Ultravox offers no way to end it.
//!
//! A leaf machine: it knows keys and times, and neither calls nor requests.

use crate::ground::{CallKey, Instant, StreamId, limits};
use crate::ultravox::create_call::CreateFault;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Nothing is held back for longer than this by one answer, whatever its `Retry-After` says: who
/// comes later finds out anew.
const CLOSED_MAX: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What the account allows (`[ultravox]`); `None` is no limit of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreationLimits {
    pub per_second: Option<u32>,
    pub per_minute: Option<u32>,
    /// Agent calls at once: being created, up, and lapsing.
    pub concurrent: Option<u32>,
    /// Callers that may wait for their turn.
    pub waiting_max: usize,
}

impl Default for CreationLimits {
    fn default() -> CreationLimits {
        CreationLimits {
            per_second: None,
            per_minute: None,
            concurrent: None,
            waiting_max: limits::CREATIONS_WAITING_MAX,
        }
    }
}

/// Who wants to create an agent call: a stream of a call. In the order of the calls, whatever it is
/// for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Claim {
    pub key: CallKey,
    pub stream: StreamId,
}

/// The answer to a caller that asks for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Create now.
    Go,
    /// The turn comes later, by [`Creations::poll`].
    Wait,
    /// It would come too late, or the queue is full: come again after this time.
    TooLate(Duration),
}

/// What becomes of a caller that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    Go(Claim),
    TooLate(Claim, Duration),
}

/// Figures since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CreationFigures {
    /// Callers that wait now.
    pub waiting: usize,
    /// Callers that had to wait, and for how long all of them together did.
    pub waited: u64,
    pub wait_total: Duration,
    /// Callers turned away since their turn would have come too late.
    pub turned_away: u64,
    /// Agent calls that nobody will join, not lapsed yet.
    pub lapsing: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Instant,
    /// A turn after this is of no use.
    until: Instant,
}

/// When the next creation may begin.
enum Opening {
    Now,
    At(Instant),
    /// When an answer comes or a call ends.
    AfterAnEnd,
}

/// The turns. See the module's head.
#[derive(Debug)]
pub struct Creations {
    limits: CreationLimits,
    /// When the last creations began, as many as the largest limit counts, oldest first.
    starts: VecDeque<Instant>,
    /// In the order of the keys, which is that of the callers' INVITEs.
    waiting: BTreeMap<Claim, Waiting>,
    creating: BTreeSet<Claim>,
    up: BTreeSet<Claim>,
    /// When each call that nobody will join lapses, soonest first.
    lapsing: VecDeque<Instant>,
    closed_until: Instant,
    /// Since a refusal for lack of capacity no creation has succeeded.
    is_probing: bool,
    figures: CreationFigures,
}

impl Creations {
    pub fn new(limits: CreationLimits) -> Creations {
        Creations {
            limits,
            starts: VecDeque::new(),
            waiting: BTreeMap::new(),
            creating: BTreeSet::new(),
            up: BTreeSet::new(),
            lapsing: VecDeque::new(),
            closed_until: Instant::ZERO,
            is_probing: false,
            figures: CreationFigures::default(),
        }
    }

    /// `key` wants to create its agent call; a turn after `until` would be of no use to it.
    pub fn ask(&mut self, now: Instant, key: Claim, until: Instant) -> Verdict {
        self.forget_lapsed(now);
        let ahead = self.waiting.range(..key).count();
        if ahead == 0 && matches!(self.opening(now), Opening::Now) {
            self.begin(now, key);
            return Verdict::Go;
        }
        let expected = self.expected(now, ahead);
        // One that was refused for lack of capacity asks again: it was there before the others.
        if expected > until || ahead >= self.limits.waiting_max {
            self.figures.turned_away += 1;
            return Verdict::TooLate(come_again(now, expected));
        }
        self.waiting.insert(key, Waiting { since: now, until });
        self.figures.waited += 1;
        Verdict::Wait
    }

    /// The next caller whose waiting is over at `now`. Call it until it gives none.
    pub fn poll(&mut self, now: Instant) -> Option<Turn> {
        if self.waiting.is_empty() {
            return None;
        }
        self.forget_lapsed(now);
        if matches!(self.opening(now), Opening::Now)
            && let Some((key, waiting)) = self.waiting.pop_first()
        {
            self.figures.wait_total += now.since(waiting.since);
            self.begin(now, key);
            return Some(Turn::Go(key));
        }
        let closed_until = self.closed_until;
        let late = |waiting: &Waiting| waiting.until <= now || waiting.until < closed_until;
        let key = self.waiting.iter().find(|(_, waiting)| late(waiting)).map(|(key, _)| *key)?;
        let waiting = self.waiting.remove(&key)?;
        self.figures.wait_total += now.since(waiting.since);
        self.figures.turned_away += 1;
        let expected = self.expected(now, self.waiting.len());
        Some(Turn::TooLate(key, come_again(now, expected)))
    }

    /// When `poll` has something to say, unless an answer or an end comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let patience = self.waiting.values().map(|waiting| waiting.until).min()?;
        match self.opening(Instant::ZERO) {
            Opening::Now => Some(Instant::ZERO),
            Opening::At(at) => Some(at.min(patience)),
            Opening::AfterAnEnd => Some(patience),
        }
    }

    /// Ultravox answered a creation, or did not.
    pub fn answered(&mut self, now: Instant, key: Claim, fault: Option<CreateFault>) {
        if !self.creating.remove(&key) {
            return;
        }
        match fault {
            None => {
                self.is_probing = false;
                self.up.insert(key);
            }
            Some(
                CreateFault::TooMany { retry_after } | CreateFault::Unavailable { retry_after },
            ) => {
                let pause = retry_after.unwrap_or(limits::CREATION_PAUSE).min(CLOSED_MAX);
                self.closed_until = self.closed_until.max(now + pause);
                self.is_probing = true;
            }
            // The call may exist.
            Some(CreateFault::TimedOut | CreateFault::BadAnswer) => self.leave_to_lapse(now),
            Some(
                CreateFault::BadRequest
                | CreateFault::NotFound
                | CreateFault::Unauthorized
                | CreateFault::PaymentRequired
                | CreateFault::ServerError(_)
                | CreateFault::Unreachable,
            ) => {}
        }
    }

    /// The caller's call is over: it waits no more, and what was created for it is up no more.
    pub fn ended(&mut self, now: Instant, key: Claim, joined: bool) {
        if let Some(waiting) = self.waiting.remove(&key) {
            self.figures.wait_total += now.since(waiting.since);
        }
        let was_asked = self.creating.remove(&key);
        let was_created = self.up.remove(&key);
        if (was_asked || was_created) && !joined {
            self.leave_to_lapse(now);
        }
    }

    /// A call is gone, whatever was under way for it; `joined` when its agents may have been.
    pub fn forget(&mut self, now: Instant, key: CallKey, joined: bool) {
        let of_call = |claim: &&Claim| claim.key == key;
        let claims: BTreeSet<Claim> = self
            .waiting
            .keys()
            .chain(&self.creating)
            .chain(&self.up)
            .filter(of_call)
            .copied()
            .collect();
        for claim in claims {
            self.ended(now, claim, joined);
        }
    }

    /// No caller waits, and no agent call is being created or up. Those that lapse are nobody's.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.creating.is_empty() && self.up.is_empty()
    }

    pub fn figures(&self, now: Instant) -> CreationFigures {
        let waiting = self.waiting.len();
        let lapsing = self.lapsing.iter().filter(|at| **at > now).count();
        CreationFigures { waiting, lapsing, ..self.figures }
    }

    fn begin(&mut self, now: Instant, key: Claim) {
        self.creating.insert(key);
        let most = self.windows().into_iter().flatten().map(|(count, _)| count).max();
        if let Some(most) = most {
            self.starts.push_back(now);
            while self.starts.len() > most {
                self.starts.pop_front();
            }
        }
    }

    /// Only a limit on calls at once needs to know of them.
    fn leave_to_lapse(&mut self, now: Instant) {
        self.lapsing.push_back(now + limits::JOIN_TIMEOUT);
    }

    fn forget_lapsed(&mut self, now: Instant) {
        while self.lapsing.front().is_some_and(|at| *at <= now) {
            self.lapsing.pop_front();
        }
    }

    fn windows(&self) -> [Option<(usize, Duration)>; 2] {
        let window = |count: Option<u32>, span| count.map(|count| (count as usize, span));
        [window(self.limits.per_second, SECOND), window(self.limits.per_minute, MINUTE)]
    }

    fn opening(&self, now: Instant) -> Opening {
        if self.is_probing && !self.creating.is_empty() {
            return Opening::AfterAnEnd;
        }
        let mut at = self.closed_until.max(self.after(&self.starts));
        let most = self.limits.concurrent.map_or(usize::MAX, |most| most as usize);
        if self.creating.len() + self.up.len() + self.lapsing.len() >= most {
            match self.lapsing.front() {
                Some(lapse) => at = at.max(*lapse),
                None => return Opening::AfterAnEnd,
            }
        }
        if at <= now { Opening::Now } else { Opening::At(at) }
    }

    /// The earliest start that keeps both rates, after `starts`.
    fn after(&self, starts: &VecDeque<Instant>) -> Instant {
        let windows = self.windows().into_iter().flatten();
        let starts = windows.filter_map(|(count, span)| {
            let first = starts.len().checked_sub(count)?;
            starts.get(first).map(|start| *start + span)
        });
        starts.max().unwrap_or(Instant::ZERO)
    }

    /// When a caller with `ahead` before it may expect its turn by the rates alone.
    fn expected(&self, now: Instant, ahead: usize) -> Instant {
        let mut starts = self.starts.clone();
        let mut at = now.max(self.closed_until);
        for _ in 0..=ahead {
            at = at.max(self.after(&starts));
            starts.push_back(at);
        }
        at
    }
}

/// At least a second, so that nobody comes back at once.
fn come_again(now: Instant, expected: Instant) -> Duration {
    expected.since(now).max(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(25);

    fn claim(key: u64) -> Claim {
        Claim { key: CallKey(key), stream: StreamId::FIRST }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn limited(per_second: u32, per_minute: u32) -> Creations {
        Creations::new(CreationLimits {
            per_second: Some(per_second),
            per_minute: Some(per_minute),
            ..CreationLimits::default()
        })
    }

    fn ask(creations: &mut Creations, ms: u64, key: u64) -> Verdict {
        creations.ask(at(ms), claim(key), at(ms) + PATIENCE)
    }

    /// Who goes when, until nobody waits; each creation takes `takes_ms` and succeeds.
    fn run(creations: &mut Creations, takes_ms: u64) -> Vec<(u64, Turn)> {
        let mut turns = Vec::new();
        let mut now = Instant::ZERO;
        while let Some(next) = creations.poll_timeout() {
            now = now.max(next);
            while let Some(turn) = creations.poll(now) {
                turns.push((now.since(Instant::ZERO).as_millis() as u64, turn));
                if let Turn::Go(key) = turn {
                    creations.answered(now + Duration::from_millis(takes_ms), key, None);
                }
            }
        }
        turns
    }

    #[test]
    fn without_limits_nobody_waits_and_nothing_is_kept() {
        let mut creations = Creations::new(CreationLimits::default());
        for key in 0..1_000 {
            assert_eq!(ask(&mut creations, 0, key), Verdict::Go);
        }
        assert_eq!((creations.starts.len(), creations.poll_timeout()), (0, None));
    }

    #[test]
    fn both_rates_hold_on_both_sides_of_their_edges() {
        let mut creations = limited(2, 3);
        let verdicts: Vec<Verdict> = (1..=4).map(|key| ask(&mut creations, 0, key)).collect();
        // The third may go after a second, the fourth after a minute: too late for a caller.
        let minute = Duration::from_secs(60);
        let expected = [Verdict::Go, Verdict::Go, Verdict::Wait, Verdict::TooLate(minute)];
        assert_eq!(verdicts, expected);
        assert_eq!(creations.poll(at(999)), None);
        assert_eq!(creations.poll_timeout(), Some(at(1_000)));
        assert_eq!(creations.poll(at(1_000)), Some(Turn::Go(claim(3))));
        assert_eq!(creations.poll_timeout(), None);
        let patient = |creations: &mut Creations, ms, key| {
            creations.ask(at(ms), claim(key), at(ms) + 2 * minute)
        };
        assert_eq!(patient(&mut creations, 59_999, 5), Verdict::Wait);
        assert_eq!(creations.poll(at(60_000)), Some(Turn::Go(claim(5))));
    }

    #[test]
    fn callers_go_in_the_order_of_their_coming() {
        let mut creations = limited(1, 600);
        for key in [1, 5, 3, 4, 2] {
            ask(&mut creations, 0, key);
        }
        let turns = run(&mut creations, 100);
        let expected = [(1_000, 2), (2_000, 3), (3_000, 4), (4_000, 5)];
        assert_eq!(turns, expected.map(|(ms, key)| (ms, Turn::Go(claim(key)))));
        let figures = creations.figures(at(9_000));
        assert_eq!((figures.waited, figures.wait_total), (4, Duration::from_secs(10)));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut creations = limited(1, 600);
        creations.limits.waiting_max = 2;
        let verdicts: Vec<Verdict> = (1..=4).map(|key| ask(&mut creations, 0, key)).collect();
        let three = Duration::from_secs(3);
        let expected = [Verdict::Go, Verdict::Wait, Verdict::Wait, Verdict::TooLate(three)];
        assert_eq!(verdicts, expected);
        assert_eq!(creations.figures(at(0)).turned_away, 1);
        let busy = CreateFault::TooMany { retry_after: None };
        creations.answered(at(100), claim(1), Some(busy));
        assert_eq!(ask(&mut creations, 100, 1), Verdict::Wait, "it is before the two");
        assert_eq!(run(&mut creations, 0)[0], (2_100, Turn::Go(claim(1))));
    }

    #[test]
    fn who_gives_up_leaves_the_queue_and_the_next_takes_the_place() {
        let mut creations = limited(1, 600);
        for key in 1..=3 {
            ask(&mut creations, 0, key);
        }
        creations.ended(at(500), claim(2), false);
        assert_eq!(run(&mut creations, 0), [(1_000, Turn::Go(claim(3)))]);
        assert_eq!(creations.figures(at(500)).lapsing, 0, "it was never created");
    }

    #[test]
    fn a_refusal_closes_for_its_time_and_then_one_goes_before_the_others() {
        let mut creations = Creations::new(CreationLimits::default());
        assert_eq!(ask(&mut creations, 0, 1), Verdict::Go);
        let busy = CreateFault::TooMany { retry_after: Some(Duration::from_secs(3)) };
        creations.answered(at(100), claim(1), Some(busy));
        assert_eq!(ask(&mut creations, 100, 2), Verdict::Wait);
        assert_eq!(ask(&mut creations, 100, 1), Verdict::Wait, "the refused one asks again");
        assert_eq!(creations.poll(at(3_099)), None);
        assert_eq!(creations.poll(at(3_100)), Some(Turn::Go(claim(1))), "it was there first");
        assert_eq!(creations.poll(at(3_100)), None, "one at a time");
        creations.answered(at(3_300), claim(1), None);
        assert_eq!(creations.poll(at(3_300)), Some(Turn::Go(claim(2))));
        assert_eq!(ask(&mut creations, 3_300, 3), Verdict::Go, "it is open again");
    }

    #[test]
    fn who_cannot_wait_for_the_reopening_is_told_when_to_come() {
        let mut creations = limited(1, 600);
        for key in 1..=2 {
            ask(&mut creations, 0, key);
        }
        let busy = CreateFault::Unavailable { retry_after: Some(Duration::from_secs(40)) };
        creations.answered(at(100), claim(1), Some(busy));
        let forty = Duration::from_secs(40);
        assert_eq!(creations.poll(at(100)), Some(Turn::TooLate(claim(2), forty)));
        let later = Duration::from_millis(39_900);
        assert_eq!(ask(&mut creations, 200, 3), Verdict::TooLate(later));
        assert_eq!(creations.poll_timeout(), None);
        let endless = CreateFault::TooMany { retry_after: Some(Duration::from_secs(86_400)) };
        assert_eq!(ask(&mut creations, 41_000, 4), Verdict::Go);
        creations.answered(at(41_000), claim(4), Some(endless));
        assert_eq!(ask(&mut creations, 101_000, 5), Verdict::Go, "a minute at most");
    }

    #[test]
    fn a_call_that_may_exist_counts_until_its_join_timeout() {
        let limits = CreationLimits { concurrent: Some(2), ..CreationLimits::default() };
        let mut creations = Creations::new(limits);
        // One creation times out, the other's caller gives up: both may exist.
        assert_eq!(ask(&mut creations, 0, 1), Verdict::Go);
        assert_eq!(ask(&mut creations, 0, 2), Verdict::Go);
        creations.answered(at(10_000), claim(1), Some(CreateFault::TimedOut));
        creations.ended(at(10_000), claim(1), false);
        creations.ended(at(11_000), claim(2), false);
        assert_eq!(ask(&mut creations, 11_000, 3), Verdict::Wait);
        assert_eq!(creations.poll_timeout(), Some(at(25_000)));
        assert_eq!(creations.poll(at(24_999)), None);
        assert_eq!(creations.poll(at(25_000)), Some(Turn::Go(claim(3))));
        assert_eq!(creations.figures(at(25_000)).lapsing, 1);
    }

    #[test]
    fn a_place_among_the_concurrent_is_free_when_a_call_ends() {
        let limits = CreationLimits { concurrent: Some(1), ..CreationLimits::default() };
        let mut creations = Creations::new(limits);
        ask(&mut creations, 0, 1);
        creations.answered(at(100), claim(1), None);
        assert_eq!(ask(&mut creations, 200, 2), Verdict::Wait);
        assert_eq!(creations.poll_timeout(), Some(at(200) + PATIENCE));
        creations.ended(at(5_000), claim(1), true);
        assert_eq!(creations.poll(at(5_000)), Some(Turn::Go(claim(2))));
        assert_eq!(ask(&mut creations, 5_100, 3), Verdict::Wait);
        let second = Duration::from_secs(1);
        assert_eq!(creations.poll(at(30_100)), Some(Turn::TooLate(claim(3), second)));
    }

    /// Whatever comes: the rates hold in every window, everybody is served in order or told, and
    /// nobody waits longer than it can.
    #[test]
    fn random_callers_are_served_in_order_within_the_rates() {
        let mut entropy = crate::ground::Entropy::from_number(429);
        for _ in 0..50 {
            let (per_second, per_minute) = (1 + entropy.below(5), 5 + entropy.below(60));
            let mut creations = limited(per_second as u32, per_minute as u32);
            let (mut now, mut starts, mut waiting) = (Instant::ZERO, Vec::new(), BTreeMap::new());
            for key in 0..400 {
                let next = now + Duration::from_millis(entropy.below(400));
                while let Some(due) = creations.poll_timeout().filter(|due| *due <= next) {
                    now = now.max(due);
                    while let Some(turn) = creations.poll(now) {
                        let (key, went) = match turn {
                            Turn::Go(key) => (key, true),
                            Turn::TooLate(key, _) => (key, false),
                        };
                        let until: Instant = waiting.remove(&key).expect("it waits");
                        assert!(now <= until, "too late");
                        if went {
                            assert!(waiting.keys().all(|other| *other > key), "out of order");
                            starts.push(now);
                            creations.answered(now, key, None);
                        }
                    }
                }
                now = next;
                let until = now + Duration::from_millis(entropy.below(25_000));
                match creations.ask(now, claim(key), until) {
                    Verdict::Go => {
                        starts.push(now);
                        creations.answered(now, claim(key), None);
                    }
                    Verdict::Wait => drop(waiting.insert(claim(key), until)),
                    Verdict::TooLate(wait) => assert!(wait >= SECOND),
                }
                if entropy.below(10) == 0
                    && let Some((key, _)) = waiting.pop_last()
                {
                    creations.ended(now, key, false);
                }
            }
            for (count, span) in [(per_second, SECOND), (per_minute, MINUTE)] {
                let spans =
                    starts.windows(count as usize + 1).map(|w| w[count as usize].since(w[0]));
                assert!(spans.min().is_none_or(|least| least >= span), "{count} in {span:?}");
            }
        }
    }
}
