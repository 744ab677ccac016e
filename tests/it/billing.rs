//! The seed's billing examples as timelines: every file of `fixtures/billing` is played on a ledger
//! and an agent's clock. `fixtures/billing/README.md` explains the words.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use voxedge::billing::{Deciminutes, Ledger, LegClock};
use voxedge::ground::Instant;
use voxedge::ground::LegId;

/// One call being played.
#[derive(Default)]
struct Played {
    ledger: Ledger,
    agent: LegClock,
    legs: BTreeMap<String, LegId>,
    expectations: usize,
}

impl Played {
    fn leg(&mut self, name: &str) -> LegId {
        let next = LegId(self.legs.len() as u32);
        *self.legs.entry(name.to_owned()).or_insert(next)
    }

    fn line(&mut self, place: &str, line: &str) {
        let mut words = line.split_whitespace();
        let millis: u64 = words.next().and_then(|word| word.parse().ok()).expect(place);
        let now = Instant::ZERO + Duration::from_millis(millis);
        let word = words.next().expect(place);
        let rest: Vec<&str> = words.collect();
        match (word, rest.as_slice()) {
            // Ringing is no event of the ledger: the leg is only named.
            ("ring", [leg]) => assert_eq!(
                {
                    let leg = self.leg(leg);
                    self.ledger.clock(leg)
                },
                LegClock::NotAnswered,
                "{place}"
            ),
            ("answer", [leg]) => {
                let leg = self.leg(leg);
                self.ledger.answer(now, leg)
            }
            ("end", [leg]) => {
                let leg = self.leg(leg);
                self.ledger.end(now, leg)
            }
            ("left", []) => self.ledger.stop_all(now),
            ("agent-joins", []) => self.agent.start(now),
            ("agent-leaves", []) => self.agent.stop(now),
            ("expect", figures) => self.expect(place, now, figures),
            _ => panic!("{place}: no such line: {line}"),
        }
    }

    fn expect(&mut self, place: &str, now: Instant, figures: &[&str]) {
        assert!(!figures.is_empty(), "{place}: expects nothing");
        let sip_time = self.ledger.sip_time(now);
        for figure in figures {
            let (name, expected) = figure.split_once('=').expect(place);
            let actual = match name {
                "sip_ms" => sip_time.as_millis() as u64,
                "agent_ms" => self.agent.total(now).as_millis() as u64,
                "rate" => self.ledger.running() as u64,
                "deciminutes" => Deciminutes::billed_for(sip_time).count(),
                _ => panic!("{place}: no such figure: {name}"),
            };
            assert_eq!(actual.to_string(), expected, "{place}: {name}");
            self.expectations += 1;
        }
    }
}

#[test]
fn every_timeline_is_billed_as_the_rules_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/billing");
    let mut timelines = 0;
    for entry in std::fs::read_dir(&directory).expect("the fixtures are in the project") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let mut played = Played::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                played.line(&format!("{}:{}", path.display(), index + 1), line);
            }
        }
        assert!(played.expectations >= 1, "{} expects nothing", path.display());
        timelines += 1;
    }
    assert!(timelines >= 14, "only {timelines} timelines were found");
}
