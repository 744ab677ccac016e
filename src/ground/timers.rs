//! The ordered index of deadlines: which owner wants to be called next. A root machine keeps one;
//! leaf machines report their own next deadline and the root enters it here. Each owner has at most
//! one entry, so that the index never holds more than there are owners.

use super::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// Deadlines by owner, at most one each.
#[derive(Debug)]
pub struct TimerIndex<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_owner: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Default for TimerIndex<K> {
    fn default() -> Self {
        TimerIndex { by_time: BTreeSet::new(), by_owner: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> TimerIndex<K> {
    /// Sets, moves or (with `None`) removes the deadline of `owner`.
    pub fn set(&mut self, owner: K, deadline: Option<Instant>) {
        let before = match deadline {
            Some(at) => self.by_owner.insert(owner, at),
            None => self.by_owner.remove(&owner),
        };
        if before == deadline {
            return;
        }
        if let Some(old) = before {
            self.by_time.remove(&(old, owner));
        }
        if let Some(at) = deadline {
            self.by_time.insert((at, owner));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one owner whose deadline is `now` or earlier; the earliest first, ties by owner.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, owner) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_owner.remove(&owner);
        Some(owner)
    }

    pub fn len(&self) -> usize {
        self.by_owner.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_come_in_order_of_time_and_move_when_set_again() {
        let at = Instant::from_nanos;
        let mut index = TimerIndex::default();
        index.set('b', Some(at(20)));
        index.set('a', Some(at(10)));
        index.set('c', Some(at(30)));
        index.set('c', Some(at(5)));
        index.set('b', None);
        assert_eq!((index.next(), index.len()), (Some(at(5)), 2));
        assert_eq!(index.pop_due(at(4)), None);
        assert_eq!(index.pop_due(at(10)), Some('c'));
        assert_eq!(index.pop_due(at(10)), Some('a'));
        assert!(index.is_empty() && index.pop_due(at(99)).is_none());
    }
}
