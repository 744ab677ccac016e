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

/// Deadlines of the slots of a slab, at most one each: what [`TimerIndex`] is for owners of any kind,
/// in two flat arrays. A media shard moves a deadline with every packet, so this one never allocates
/// once it has grown, and moving a deadline by a little touches a line or two of memory.
#[derive(Debug, Default)]
pub struct SlotTimers {
    /// A binary heap, the earliest first; ties by slot.
    heap: Vec<(Instant, usize)>,
    /// Where in the heap each slot stands; [`SlotTimers::NOWHERE`] without a deadline.
    places: Vec<usize>,
}

impl SlotTimers {
    const NOWHERE: usize = usize::MAX;

    /// Sets, moves or (with `None`) removes the deadline of `slot`. Memory is kept for the largest
    /// slot that ever had one.
    pub fn set(&mut self, slot: usize, deadline: Option<Instant>) {
        let place = self.places.get(slot).copied().filter(|place| *place != Self::NOWHERE);
        match (place, deadline) {
            (None, None) => {}
            (Some(place), None) => self.remove(place),
            (Some(place), Some(at)) => {
                let Some(entry) = self.heap.get_mut(place) else { return };
                if entry.0 != at {
                    entry.0 = at;
                    self.settle(place);
                }
            }
            (None, Some(at)) => {
                if self.places.len() <= slot {
                    self.places.resize(slot + 1, Self::NOWHERE);
                }
                self.heap.push((at, slot));
                self.settle(self.heap.len() - 1);
            }
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Takes one slot whose deadline is `now` or earlier; the earliest first, ties by slot.
    pub fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let (_, slot) = self.heap.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(0);
        Some(slot)
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn remove(&mut self, place: usize) {
        let (_, slot) = self.heap.swap_remove(place);
        self.places[slot] = Self::NOWHERE;
        if place < self.heap.len() {
            self.settle(place);
        }
    }

    /// Moves the entry at `place` to where it belongs and notes where that is.
    fn settle(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 && entry < self.heap[(place - 1) / 2] {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let Some(mut least) = self.heap.get(left).map(|_| left) else { break };
            if self.heap.get(right).is_some_and(|other| *other < self.heap[left]) {
                least = right;
            }
            if entry <= self.heap[least] {
                break;
            }
            self.put(place, self.heap[least]);
            place = least;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Instant, usize)) {
        self.heap[place] = entry;
        self.places[entry.1] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Entropy;

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

    #[test]
    fn slots_come_in_the_same_order_as_owners_whatever_was_set_before() {
        let mut entropy = Entropy::from_number(7);
        let (mut slots, mut owners) = (SlotTimers::default(), TimerIndex::default());
        let mut now = 0;
        for _ in 0..20_000 {
            let slot = entropy.u32() as usize % 40;
            let ahead = u64::from(entropy.u32() % 50);
            let deadline =
                (!entropy.u32().is_multiple_of(5)).then(|| Instant::from_nanos(now + ahead));
            slots.set(slot, deadline);
            owners.set(slot, deadline);
            now += u64::from(entropy.u32() % 3);
            for _ in 0..entropy.u32() % 3 {
                let at = Instant::from_nanos(now);
                assert_eq!(slots.pop_due(at), owners.pop_due(at));
            }
            assert_eq!((slots.next(), slots.len()), (owners.next(), owners.len()));
        }
        assert!(!slots.is_empty());
    }
}
