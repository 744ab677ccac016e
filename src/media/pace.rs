//! Whether an agent's stream is paced, and by how much its queue should be less or more. An agent sends
//! its words as they are made, ahead of real time: then the queue is as long as they are, ends with
//! them, and nothing is done about it. Or it sends a stream in real time, by a clock that is not ours:
//! then the queue of a fast one grows, 3.6 s an hour for 0.1 %, and that of a slow one runs empty.
//!
//! A stream is paced when for two windows of five seconds it came without a pause, as much in each as
//! time went by, and not ahead of time as a whole. What was kept up in the network and came at once
//! does not lead it ahead: it was late before. From then on
//!
//! ```text
//! least slack of a piece in two seconds      5 ms        margin + 40 ms
//! ────────────────────────────────────────────┼─────────────────┼─────────────────▶
//!                                    longer   │     as it is    │    shorter
//! ```
//!
//! The slack of a piece is the time from its coming to the frame that would have lacked it. It counts
//! and judges; what is cut and repeated is the supply's matter.

use super::clock::Ticks;
use crate::ground::Instant;
use std::time::Duration;

/// A stream is judged over this time.
const WINDOW: Duration = Duration::from_secs(5);
/// As much as may come more or less in a window, or ahead of time as a whole: 2 % of the window.
const TOLERANCE_MS: i64 = 100;
/// Windows in a row after which a stream counts as paced.
const WINDOWS: u8 = 2;
/// A paced stream has no longer pause between two pieces.
const PIECE_GAP: Duration = Duration::from_millis(250);
/// What comes after a pause of this length is another stream.
const ANOTHER: Duration = Duration::from_secs(2);
/// The least slack is sought over this time.
const WATCHED: Duration = Duration::from_secs(2);
/// Frames between two changes, so that none is heard as an echo of the last; fewer where much is too
/// much, as after a stall.
const REST_FRAMES: u8 = 4;
const REST_FRAMES_HURRIED: u8 = 2;
const MUCH: Duration = Duration::from_millis(200);
/// With less slack the next piece may be too late.
const LOW: Duration = Duration::from_millis(5);
/// Slack beyond the margin from which on it is too much, and how much of it is left then.
const HIGH: Duration = Duration::from_millis(40);
const AIM: Duration = Duration::from_millis(10);

/// What is to be done with what waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Nothing,
    Longer,
    /// By at most so much.
    Shorter(Duration),
}

/// The pace of one stream.
#[derive(Debug, Default)]
pub(super) struct Pace {
    stream: Option<Stream>,
    /// The least slack, and since when it is sought.
    least: Option<(Duration, Instant)>,
    /// What is too much.
    surplus: Duration,
    /// A piece had too little slack, and nothing was made longer since.
    short: bool,
    /// Frames until the next change.
    rest: u8,
}

/// Since when a stream is counted, and the window that it is judged by.
#[derive(Debug)]
struct Stream {
    origin: Instant,
    received: Ticks,
    last: Instant,
    window: Instant,
    /// How far ahead of time the stream was as the window began, in milliseconds.
    lead_before: i64,
    longest_gap: Duration,
    steady: u8,
}

impl Pace {
    /// A piece of this length came. `slack`: how long before it was needed; `None` while nothing plays.
    /// A talk spurt is held back for `margin` at its start.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        amount: Ticks,
        slack: Option<Duration>,
        margin: Duration,
    ) {
        let known = self.stream.take().filter(|stream| now.since(stream.last) < ANOTHER);
        let mut stream = known.unwrap_or_else(|| Stream::begin(now));
        stream.receive(now, amount);
        self.stream = Some(stream);
        match slack.filter(|_| self.is_paced()) {
            Some(slack) => self.watch(now, slack, margin),
            None => (self.least, self.surplus, self.short) = (None, Duration::ZERO, false),
        }
    }

    /// What comes next is another stream: the queue was emptied, or is of another agent.
    pub(super) fn forget(&mut self) {
        *self = Pace::default();
    }

    /// It comes in real time.
    pub(super) fn is_paced(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.steady >= WINDOWS)
    }

    /// A frame is about to be taken.
    pub(super) fn on_frame(&mut self) -> Wish {
        self.rest = self.rest.saturating_sub(1);
        match self.surplus {
            _ if self.rest > 0 => Wish::Nothing,
            // Whatever comes next: a place may be found only when the late piece is past.
            _ if self.short => Wish::Longer,
            Duration::ZERO => Wish::Nothing,
            surplus => Wish::Shorter(surplus),
        }
    }

    /// A wish was followed by so much, which may be nothing.
    pub(super) fn on_change(&mut self, change: Duration) {
        if change.is_zero() {
            return;
        }
        self.rest = if self.surplus > MUCH { REST_FRAMES_HURRIED } else { REST_FRAMES };
        self.surplus =
            if self.short { Duration::ZERO } else { self.surplus.saturating_sub(change) };
        self.short = false;
    }

    fn watch(&mut self, now: Instant, slack: Duration, margin: Duration) {
        self.short |= slack < LOW;
        let (least, since) = self.least.unwrap_or((slack, now));
        let least = least.min(slack);
        if now.since(since) < WATCHED {
            self.least = Some((least, since));
            return;
        }
        self.least = None;
        let much = least > margin + HIGH;
        self.surplus = if much { least - (margin + AIM) } else { Duration::ZERO };
    }
}

impl Stream {
    fn begin(now: Instant) -> Stream {
        Stream {
            origin: now,
            received: Ticks::default(),
            last: now,
            window: now,
            lead_before: 0,
            longest_gap: Duration::ZERO,
            steady: 0,
        }
    }

    fn receive(&mut self, now: Instant, amount: Ticks) {
        self.longest_gap = self.longest_gap.max(now.since(self.last));
        self.last = now;
        let lead = self.lead(now);
        if lead - self.lead_before > 2 * TOLERANCE_MS {
            self.steady = 0;
        }
        if now.since(self.window) >= WINDOW {
            self.judge(now, lead);
        }
        self.received += amount;
    }

    /// A window is over. What a steady stream is ahead or behind by then is its clock, and forgiven.
    fn judge(&mut self, now: Instant, lead: i64) {
        let even = (lead - self.lead_before).abs() <= TOLERANCE_MS && lead <= TOLERANCE_MS;
        (self.window, self.lead_before) = (now, lead);
        if even && self.longest_gap <= PIECE_GAP {
            self.steady = self.steady.saturating_add(1);
            (self.origin, self.received, self.lead_before) = (now, Ticks::default(), 0);
        } else {
            self.steady = 0;
        }
        self.longest_gap = Duration::ZERO;
    }

    fn lead(&self, now: Instant) -> i64 {
        self.received.milliseconds() as i64 - now.since(self.origin).as_millis() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 8_000;
    const MARGIN: Duration = Duration::from_millis(20);

    /// Runs "ms×count@gap[…]": pieces of so many milliseconds, so many of them, so many milliseconds
    /// apart; `clear` and `wait:ms` between them. Gives whether the stream is paced at the end.
    fn paced(script: &str) -> bool {
        let mut pace = Pace::default();
        let mut now = Instant::ZERO;
        for step in script.split_whitespace() {
            if step == "clear" {
                pace.forget();
                continue;
            }
            if let Some(wait) = step.strip_prefix("wait:") {
                now += Duration::from_millis(wait.parse().expect("milliseconds"));
                continue;
            }
            let (piece, rest) = step.split_once('x').expect("ms x count @ gap");
            let (count, gap) = rest.split_once('@').expect("ms x count @ gap");
            let piece: usize = piece.parse().expect("milliseconds");
            let gap: u64 = gap.parse().expect("microseconds");
            for _ in 0..count.parse().expect("a count") {
                pace.receive(now, Ticks::of(piece * 8, HZ), None, MARGIN);
                now += Duration::from_micros(gap);
            }
        }
        pace.is_paced()
    }

    #[test]
    fn a_stream_is_paced_that_comes_in_real_time_for_two_windows() {
        for (what, script, expected) in [
            ("ten seconds of it", "20x502@20000", true),
            ("nine", "20x450@20000", false),
            ("pieces of 200 ms", "200x60@200000", true),
            ("1.9 % fast", "20x600@19630", true),
            ("1.9 % slow", "20x600@20380", true),
            ("3 % fast", "20x900@19400", false),
            ("0.1 % fast, for an hour", "20x180000@19980", true),
            ("a sentence at once", "12000x1@0", false),
            (
                "sentences one after the other",
                "6000x1@6000000 6000x1@6000000 6000x1@6000000",
                false,
            ),
            ("at four times its pace", "20x600@5000", false),
            ("a second ahead, then in real time", "1000x1@0 20x3000@20000", false),
            ("paced, then a sentence ahead", "20x700@20000 4000x1@0 20x700@20000", false),
            (
                "a stall of one second whose audio came after it",
                "20x700@20000 wait:1000 1000x1@0 20x1100@20000",
                true,
            ),
            ("a stall in the first window", "20x10@20000 wait:1000 1000x1@0 20x1100@20000", true),
            ("a stall whose audio never came", "20x700@20000 wait:1000 20x700@20000", true),
            ("just after a stall", "20x700@20000 wait:1000 1000x1@0 20x200@20000", false),
            (
                "sentences as they are made, with pauses",
                "100x30@30000 wait:3500 100x40@30000 wait:4000 100x50@30000",
                false,
            ),
            (
                "a sentence ahead, a pause, and a paced stream",
                "4000x1@4000000 wait:2000 20x505@20000",
                true,
            ),
            ("after a clear", "20x700@20000 clear 20x400@20000", false),
        ] {
            assert_eq!(paced(script), expected, "{what}");
        }
    }

    /// A paced stream whose pieces have these slacks (milliseconds), over and over, for three seconds.
    fn with_slack(slacks: &[u64]) -> Pace {
        let mut pace = Pace::default();
        for piece in 0..750u64 {
            let now = Instant::ZERO + Duration::from_millis(20 * piece);
            let slack = slacks[piece as usize % slacks.len()];
            let slack = (piece >= 550).then_some(Duration::from_millis(slack));
            pace.receive(now, Ticks::of(160, HZ), slack, MARGIN);
        }
        pace
    }

    #[test]
    fn the_least_slack_is_kept_between_two_marks() {
        let shorter = |ms| Wish::Shorter(Duration::from_millis(ms));
        for (what, slacks, wish) in [
            ("too little", &[4][..], Wish::Longer),
            ("just enough", &[5], Wish::Nothing),
            ("as much as may be", &[60], Wish::Nothing),
            ("too much", &[61], shorter(31)),
            ("a second too much", &[1_030], shorter(1_000)),
            ("once in a while little of it", &[200, 200, 30, 200], Wish::Nothing),
            ("once in a while too little", &[200, 200, 4, 200], Wish::Longer),
        ] {
            assert_eq!(with_slack(slacks).on_frame(), wish, "{what}");
        }
        let mut other = Pace::default();
        for piece in 0..400u64 {
            let now = Instant::ZERO + Duration::from_millis(20 * piece);
            other.receive(now, Ticks::of(160, HZ), Some(Duration::ZERO), MARGIN);
        }
        assert_eq!(other.on_frame(), Wish::Nothing, "not known to be paced");
    }

    #[test]
    fn a_change_rests_and_a_wish_stands_until_it_is_followed() {
        let mut pace = with_slack(&[4]);
        pace.on_change(Duration::ZERO);
        assert_eq!(pace.on_frame(), Wish::Longer, "nothing was changed");
        pace.on_change(Duration::from_millis(6));
        for _ in 0..9 {
            assert_eq!(pace.on_frame(), Wish::Nothing);
        }
        let mut pace = with_slack(&[330]);
        let mut changes = Vec::new();
        for frame in 0..100 {
            if let Wish::Shorter(most) = pace.on_frame() {
                pace.on_change(most.min(Duration::from_millis(12)));
                changes.push(frame);
            }
        }
        assert_eq!(changes.len(), 25, "300 ms by 12: {changes:?}");
        assert_eq!(changes[..3], [0, 2, 4], "hurried");
        assert_eq!(changes[23] + 4, changes[24]);
    }
}
