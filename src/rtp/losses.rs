//! Which packets of a stream were not played, in their order: how many, in how many runs, and the
//! bursts and gaps of RFC 3611 §4.7.2. A packet counts as lost once the stream is 64 numbers further,
//! so that reordering is no loss; one that came too late to be played is told by `discard`.
//!
//! It counts numbers and holds no packets. Time is the caller's: figures are in packets.

use super::sequence::Arrival;

/// So many packets in a row that were played end a burst (RFC 3611 §4.7.2).
pub const GMIN: u8 = 16;
/// How far behind the newest number a packet may still come.
const WINDOW: u32 = 64;

/// What became of the packets of one sender, over all its streams.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The newest number; `None` before the first packet.
    newest: Option<u32>,
    /// Of the newest number and the 63 before it, one bit each, the newest lowest: it is of the stream,
    /// it came, it came too late.
    known: u64,
    came: u64,
    discarded: u64,
    /// The packet that was placed last, as a bit of the window.
    last: u64,
    duplicates: u64,
    tally: Tally,
}

/// Figures over packets whose fate is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Packets that should have come.
    pub expected: u64,
    pub lost: u64,
    /// Came too late to be played.
    pub discarded: u64,
    /// Runs of packets in a row that were lost or discarded.
    pub runs: u64,
    pub bursts: Periods,
    pub gaps: Periods,
    /// A stretch that begins with a missed packet and is not over: too short a rest was between.
    open: Option<Stretch>,
    /// Played packets since the last missed one of the open stretch.
    played: u32,
    in_gap: bool,
    in_run: bool,
}

/// Bursts, or the gaps between them: packets in them, and those of these that were missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Periods {
    pub count: u64,
    pub packets: u64,
    pub missed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stretch {
    packets: u64,
    missed: u64,
}

impl Losses {
    /// One packet came, and where its number stands.
    pub fn receive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Started { extended } => {
                self.settle();
                self.newest = Some(extended);
                (self.known, self.came, self.discarded, self.last) = (1, 1, 0, 1);
            }
            Arrival::Ahead { extended, .. } => self.advance(extended),
            Arrival::Behind { extended } => self.fill(extended),
            Arrival::Strayed => self.last = 0,
        }
    }

    /// The packet that came last was not played: it was too late.
    pub fn discard(&mut self) {
        self.discarded |= self.last;
    }

    /// Packets that came more than once, as far as that can be told.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// All packets up to now: those of the last numbers that did not come count as lost.
    pub fn tally(&self) -> Tally {
        let mut whole = self.clone();
        whole.settle();
        whole.tally.close();
        whole.tally
    }

    fn advance(&mut self, extended: u32) {
        let Some(newest) = self.newest else { return };
        for _ in 0..extended.wrapping_sub(newest).min(u32::from(u16::MAX)) {
            self.shift();
        }
        self.newest = Some(extended);
        self.came |= 1;
        self.last = 1;
    }

    fn fill(&mut self, extended: u32) {
        self.last = 0;
        let Some(newest) = self.newest else { return };
        let behind = newest.wrapping_sub(extended);
        if behind >= WINDOW || self.known >> behind & 1 == 0 {
            return;
        }
        let bit = 1 << behind;
        if self.came & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.came |= bit;
        self.last = bit;
    }

    /// The window moves by one number; what leaves it is decided.
    fn shift(&mut self) {
        let top = 1 << (WINDOW - 1);
        if self.known & top != 0 {
            self.tally.decide(self.came & top != 0, self.discarded & top != 0);
        }
        self.known = self.known << 1 | 1;
        self.came <<= 1;
        self.discarded <<= 1;
    }

    /// The stream is over: all that is known of it is decided.
    fn settle(&mut self) {
        for _ in 0..WINDOW {
            self.shift();
            self.known &= !1;
        }
        self.known = 0;
    }
}

impl Tally {
    /// Missed packets of all, for whoever listens.
    pub fn missed(&self) -> u64 {
        self.lost + self.discarded
    }

    /// What was counted since `earlier`, an older tally of the same packets: totals only, no periods.
    pub fn since(&self, earlier: &Tally) -> Tally {
        Tally {
            expected: self.expected.saturating_sub(earlier.expected),
            lost: self.lost.saturating_sub(earlier.lost),
            discarded: self.discarded.saturating_sub(earlier.discarded),
            runs: self.runs.saturating_sub(earlier.runs),
            ..Tally::default()
        }
    }

    fn decide(&mut self, came: bool, late: bool) {
        self.expected += 1;
        self.lost += u64::from(!came);
        self.discarded += u64::from(came && late);
        if came && !late {
            self.in_run = false;
            self.on_played();
        } else {
            self.runs += u64::from(!self.in_run);
            self.in_run = true;
            self.on_missed();
        }
    }

    fn on_played(&mut self) {
        if self.open.is_none() {
            self.add_gap(1, 0);
            return;
        }
        self.played += 1;
        if self.played >= u32::from(GMIN) {
            self.close();
        }
    }

    fn on_missed(&mut self) {
        let Some(stretch) = &mut self.open else {
            self.open = Some(Stretch { packets: 1, missed: 1 });
            return;
        };
        stretch.packets += u64::from(self.played) + 1;
        stretch.missed += 1;
        self.played = 0;
    }

    /// The stretch is over: a burst, or a single packet that belongs to its gap.
    fn close(&mut self) {
        let Some(stretch) = self.open.take() else { return };
        if stretch.missed == 1 {
            self.add_gap(1, 1);
        } else {
            self.bursts.count += 1;
            self.bursts.packets += stretch.packets;
            self.bursts.missed += stretch.missed;
            self.in_gap = false;
        }
        let played = u64::from(std::mem::take(&mut self.played));
        if played > 0 {
            self.add_gap(played, 0);
        }
    }

    fn add_gap(&mut self, packets: u64, missed: u64) {
        self.gaps.count += u64::from(!self.in_gap);
        self.in_gap = true;
        self.gaps.packets += packets;
        self.gaps.missed += missed;
    }
}

impl Periods {
    /// Missed packets of 256 (RFC 3611 §4.7.2); zero where there are none.
    pub fn density(&self) -> u8 {
        share(self.missed, self.packets)
    }

    /// The mean length in packets, rounded.
    pub fn mean_packets(&self) -> u64 {
        (self.packets + self.count / 2).checked_div(self.count).unwrap_or(0)
    }
}

/// A part of a whole in 256ths, rounded down, at most 255 (RFC 3611 §4.7.1).
pub fn share(part: u64, whole: u64) -> u8 {
    let units = (part * 256).checked_div(whole).unwrap_or(0);
    u8::try_from(units).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream as text: `.` came, `x` lost, `l` too late; groups are repeated as `12*.`.
    fn tally(script: &str) -> Tally {
        let mut losses = Losses::default();
        let mut fates = String::new();
        for word in script.split_whitespace() {
            let (count, fate) = word.split_once('*').unwrap_or(("1", word));
            fates.push_str(&fate.repeat(count.parse().expect("a count")));
        }
        let mut newest = None;
        for (number, fate) in fates.chars().enumerate() {
            let extended = 65_000 + number as u32;
            if fate == 'x' {
                continue;
            }
            losses.receive(match newest {
                None => Arrival::Started { extended },
                Some(before) => {
                    Arrival::Ahead { extended, missing: (extended - before - 1) as u16 }
                }
            });
            newest = Some(extended);
            if fate == 'l' {
                losses.discard();
            }
        }
        losses.tally()
    }

    fn periods(count: u64, packets: u64, missed: u64) -> Periods {
        Periods { count, packets, missed }
    }

    #[test]
    fn bursts_and_gaps_are_those_of_the_rfc() {
        for (script, lost, discarded, runs, bursts, gaps) in [
            ("200*.", 0, 0, 0, periods(0, 0, 0), periods(1, 200, 0)),
            // A single loss with rest on both sides belongs to the gap.
            ("20*. x 20*.", 1, 0, 1, periods(0, 0, 0), periods(1, 41, 1)),
            // Fifteen between two losses join them, sixteen part them.
            ("20*. x 15*. x 20*.", 2, 0, 2, periods(1, 17, 2), periods(2, 40, 0)),
            ("20*. x 16*. x 20*.", 2, 0, 2, periods(0, 0, 0), periods(1, 58, 2)),
            ("100*. 3*x 100*. 2*l x 3*. l 100*.", 4, 3, 3, periods(2, 10, 7), periods(3, 300, 0)),
            // It ends in a burst, of which the last packets are not seen.
            ("50*. 2*x .", 2, 0, 1, periods(1, 2, 2), periods(2, 51, 0)),
        ] {
            let found = tally(script);
            let figures = (found.lost, found.discarded, found.runs, found.bursts, found.gaps);
            assert_eq!(figures, (lost, discarded, runs, bursts, gaps), "{script}");
            let all = found.bursts.packets + found.gaps.packets;
            assert_eq!(all, found.expected, "{script}");
            assert_eq!(found.bursts.missed + found.gaps.missed, found.missed(), "{script}");
        }
    }

    #[test]
    fn densities_and_lengths_are_zero_of_nothing_and_never_overflow() {
        for (periods, density, mean) in [
            (periods(0, 0, 0), 0, 0),
            (periods(2, 10, 7), 179, 5),
            (periods(2, 11, 11), 255, 6),
            (periods(1, 300, 1), 0, 300),
        ] {
            assert_eq!((periods.density(), periods.mean_packets()), (density, mean), "{periods:?}");
        }
    }

    #[test]
    fn reordering_is_no_loss_and_what_comes_twice_is_a_duplicate() {
        let mut losses = Losses::default();
        losses.receive(Arrival::Started { extended: 100 });
        losses.receive(Arrival::Ahead { extended: 105, missing: 4 });
        for extended in [103, 101, 104, 102, 102, 105, 99, 20] {
            losses.receive(Arrival::Behind { extended });
        }
        assert_eq!((losses.tally().expected, losses.tally().lost), (6, 0));
        assert_eq!(losses.duplicates(), 2);
        losses.receive(Arrival::Ahead { extended: 105 + 100, missing: 99 });
        losses.receive(Arrival::Behind { extended: 106 });
        losses.discard();
        let tally = losses.tally();
        assert_eq!((tally.expected, tally.lost, tally.discarded), (106, 99, 0), "too late to tell");
    }

    #[test]
    fn another_stream_goes_on_with_the_same_account() {
        let mut losses = Losses::default();
        for start in [10, 50_000] {
            losses.receive(Arrival::Started { extended: start });
            losses.receive(Arrival::Ahead { extended: start + 3, missing: 2 });
            losses.receive(Arrival::Strayed);
            losses.discard();
        }
        let tally = losses.tally();
        assert_eq!((tally.expected, tally.lost, tally.runs, tally.discarded), (8, 4, 2, 0));
        let interval = tally.since(&Tally { expected: 4, lost: 2, runs: 1, ..Tally::default() });
        assert_eq!((interval.expected, interval.missed(), interval.runs), (4, 2, 1));
    }
}
