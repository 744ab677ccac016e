//! The order of SRV records (RFC 2782): priorities rise; within one, a draw by weight decides who
//! comes first, who second and so on, so that each record's share of first places is its weight's.

use super::Srv;
use crate::ground::Entropy;

/// All of `records`, in the order in which they are to be tried.
pub(super) fn in_order(mut records: Vec<Srv>, entropy: &mut Entropy) -> Vec<Srv> {
    // A weight of zero comes first within its priority: it is drawn only when the draw is zero.
    records.sort();
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let peers = records.iter().take_while(|record| record.priority == priority).count();
        let sum: u64 = records.iter().take(peers).map(|record| u64::from(record.weight)).sum();
        let draw = entropy.below(sum + 1);
        let mut running = 0;
        let drawn = records.iter().take(peers).position(|record| {
            running += u64::from(record.weight);
            running >= draw
        });
        ordered.push(records.remove(drawn.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn srv(priority: u16, weight: u16, host: &str) -> Srv {
        Srv { priority, weight, port: 5060, host: host.to_owned() }
    }

    #[test]
    fn priorities_rise_and_nothing_is_lost() {
        let records = vec![srv(20, 0, "d"), srv(10, 5, "b"), srv(10, 5, "a"), srv(30, 9, "e")];
        for seed in 0..50 {
            let ordered = in_order(records.clone(), &mut Entropy::from_number(seed));
            let priorities: Vec<u16> = ordered.iter().map(|record| record.priority).collect();
            assert_eq!(priorities, [10, 10, 20, 30], "seed {seed}");
            let mut hosts: Vec<&str> = ordered.iter().map(|record| record.host.as_str()).collect();
            hosts.sort();
            assert_eq!(hosts, ["a", "b", "d", "e"]);
        }
        assert!(in_order(Vec::new(), &mut Entropy::from_number(1)).is_empty());
    }

    #[test]
    fn first_places_are_shared_by_weight() {
        let records = vec![srv(1, 60, "a"), srv(1, 30, "b"), srv(1, 10, "c"), srv(1, 0, "z")];
        let mut entropy = Entropy::from_number(7);
        let mut first: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..10_000 {
            let ordered = in_order(records.clone(), &mut entropy);
            *first.entry(ordered[0].host.clone()).or_default() += 1;
        }
        for (host, share) in [("a", 5_940), ("b", 2_970), ("c", 990), ("z", 99)] {
            let count = first.get(host).copied().unwrap_or_default();
            assert!(count.abs_diff(share) < 150, "{host}: {count}, not about {share}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_order() {
        let records: Vec<Srv> = (0..8).map(|n| srv(1, 10, &n.to_string())).collect();
        let order = |seed| in_order(records.clone(), &mut Entropy::from_number(seed));
        assert_eq!(order(3), order(3));
        assert!((0..20).any(|seed| order(seed) != order(3)));
    }
}
