//! How one leg's far end is received, in figures: loss, bursts, jitter, so far and in the last seconds.
//! It counts packets and their times, and knows no codec and no audio.

use super::quality::Loss;
use crate::ground::Instant;
use crate::rtp::losses::{Losses, Tally};
use crate::rtp::packet::RtpHeader;
use crate::rtp::rtcp::extended::{JitterSummary, Summary};
use crate::rtp::sequence::{Reception, ReceptionReport};
use std::time::Duration;

/// How long the stretch is over which "now" is told.
const LATELY: Duration = Duration::from_secs(5);

/// The account of what comes from one far end.
pub(super) struct Account {
    reception: Reception,
    losses: Losses,
    /// Figures of receptions with another clock, before the codec changed.
    lost_before: u64,
    jitter_max_before: Duration,
    lately: Lately,
    stretch: Stretch,
}

/// The last whole stretch of five seconds, and the one that runs.
#[derive(Default)]
struct Lately {
    since: Option<Instant>,
    before: Tally,
    loss: Option<Loss>,
}

/// What came since the last summary.
#[derive(Default)]
struct Stretch {
    /// The number after the last summary's.
    begin: Option<u16>,
    before: Tally,
    duplicates: u64,
    least: u32,
    most: u32,
    sum: u64,
    squares: u128,
    count: u64,
}

impl Account {
    pub(super) fn new(clock_hz: u32) -> Account {
        Account {
            reception: Reception::new(clock_hz),
            losses: Losses::default(),
            lost_before: 0,
            jitter_max_before: Duration::ZERO,
            lately: Lately::default(),
            stretch: Stretch::default(),
        }
    }

    /// The RTP clock is another from now on.
    pub(super) fn change_clock(&mut self, clock_hz: u32) {
        self.lost_before += self.reception.lost();
        self.jitter_max_before = self.jitter_max();
        self.reception = Reception::new(clock_hz);
        self.stretch = Stretch {
            before: self.losses.tally(),
            duplicates: self.losses.duplicates(),
            ..Stretch::default()
        };
    }

    /// Accounts for one packet. `audio`: its timestamp is its sampling time.
    pub(super) fn receive(&mut self, now: Instant, header: &RtpHeader, audio: bool) {
        self.losses.receive(self.reception.receive(header));
        self.stretch.begin.get_or_insert(header.sequence);
        if audio && let Some(difference) = self.reception.measure_jitter(now, header.timestamp) {
            self.stretch.measure(difference);
        }
        let since = *self.lately.since.get_or_insert(now);
        if now.since(since) >= LATELY {
            let tally = self.losses.tally();
            let interval = tally.since(&self.lately.before);
            let loss = Loss::of(interval.missed(), interval.expected, interval.runs);
            self.lately = Lately { since: Some(now), before: tally, loss };
        }
    }

    /// The packet that came last was too late to be played.
    pub(super) fn discard(&mut self) {
        self.losses.discard();
    }

    pub(super) fn ssrc(&self) -> Option<u32> {
        self.reception.ssrc()
    }

    /// The figures of a report block; begins its next interval.
    pub(super) fn report(&mut self) -> Option<ReceptionReport> {
        self.reception.report()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost_before + self.reception.lost()
    }

    pub(super) fn jitter(&self) -> Duration {
        self.reception.jitter()
    }

    pub(super) fn jitter_max(&self) -> Duration {
        self.reception.jitter_max().max(self.jitter_max_before)
    }

    pub(super) fn tally(&self) -> Tally {
        self.losses.tally()
    }

    /// All loss so far; `None` before the first packet.
    pub(super) fn loss(&self) -> Option<Loss> {
        let tally = self.losses.tally();
        Loss::of(tally.missed(), tally.expected, tally.runs)
    }

    /// The loss of the last five seconds or so; of all that was when it is younger. `None` when
    /// nothing comes any more.
    pub(super) fn loss_lately(&self, now: Instant) -> Option<Loss> {
        let since = self.lately.since?;
        if now.since(since) > 2 * LATELY {
            return None;
        }
        self.lately.loss.or_else(|| self.loss())
    }

    /// Losses, duplicates and jitter since the last summary; begins the next stretch. `None` when
    /// nothing came.
    pub(super) fn summarise(&mut self, highest: u16) -> Option<Summary> {
        let ssrc = self.reception.ssrc()?;
        let begin = self.stretch.begin?;
        let (tally, duplicates) = (self.losses.tally(), self.losses.duplicates());
        let lost = tally.since(&self.stretch.before).lost;
        let repeated = duplicates - self.stretch.duplicates;
        let summary = Summary {
            ssrc,
            begin,
            end: highest.wrapping_add(1),
            lost: Some(u32::try_from(lost).unwrap_or(u32::MAX)),
            duplicates: Some(u32::try_from(repeated).unwrap_or(u32::MAX)),
            jitter: self.stretch.jitter(),
        };
        self.stretch =
            Stretch { begin: Some(summary.end), before: tally, duplicates, ..Stretch::default() };
        Some(summary)
    }
}

impl Stretch {
    fn measure(&mut self, difference: u32) {
        self.least = if self.count == 0 { difference } else { self.least.min(difference) };
        self.most = self.most.max(difference);
        self.sum += u64::from(difference);
        self.squares += u128::from(difference) * u128::from(difference);
        self.count += 1;
    }

    fn jitter(&self) -> Option<JitterSummary> {
        let mean = self.sum.checked_div(self.count)?;
        let variance = (self.squares / u128::from(self.count)) as f64 - (mean as f64).powi(2);
        Some(JitterSummary {
            least: self.least,
            most: self.most,
            mean: mean as u32,
            deviation: variance.max(0.0).sqrt() as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(script: impl Fn(u16) -> Option<u64>, packets: u16) -> Account {
        let mut account = Account::new(8_000);
        for sequence in 0..packets {
            let Some(extra_ms) = script(sequence) else { continue };
            let at = Duration::from_millis(u64::from(sequence) * 20 + extra_ms);
            let timestamp = u32::from(sequence) * 160;
            let header = RtpHeader { marker: false, payload_type: 0, sequence, timestamp, ssrc: 5 };
            account.receive(Instant::ZERO + at, &header, true);
        }
        account
    }

    #[test]
    fn what_is_lost_lately_is_told_apart_from_all_that_was_lost() {
        // A minute: a tenth lost in the first half, nothing in the second.
        let account = account(|n| (n >= 1_500 || n % 10 != 4).then_some(0), 3_000);
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        assert_eq!(account.loss(), Some(Loss::random(5.0)));
        assert_eq!(account.loss_lately(at(60_000)), Some(Loss::random(0.0)));
        assert_eq!(account.loss_lately(at(75_000)), None, "nothing comes any more");
        assert_eq!(account.lost(), 150);
    }

    #[test]
    fn a_summary_tells_of_its_stretch_only() {
        let mut account = account(|n| (n != 7 && n != 8).then_some(u64::from(n % 2) * 5), 100);
        let first = account.summarise(99).expect("packets came");
        assert_eq!((first.begin, first.end, first.lost), (0, 100, Some(2)));
        // Five milliseconds this way and that; where two are lost the next is as early as the last.
        let jitter = JitterSummary { least: 40, most: 40, mean: 40, deviation: 0 };
        assert_eq!((first.ssrc, first.duplicates, first.jitter), (5, Some(0), Some(jitter)));
        let next = account.summarise(99).expect("it began");
        assert_eq!((next.begin, next.end, next.lost, next.jitter), (100, 100, Some(0), None));
        assert_eq!(Account::new(8_000).summarise(3), None);
    }
}
