//! When each probe is due. Pure.
//!
//! A probe's times are a fixed grid: its period, shifted by a phase that its key fixes, so that thousands of probes
//! spread evenly over their period. The next time comes from the grid and not from the end of the last probe, so nothing
//! drifts; times that pass while a probe is still under way are skipped, and counted.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::Hash,
    time::Duration,
};

/// A grid of times, counted from a common origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    period: Duration,
    phase: Duration,
}

impl Grid {
    /// The grid of this period whose phase is fixed by `hash`.
    #[must_use]
    pub fn new(period: Duration, hash: u64) -> Self {
        let period = period.max(Duration::from_millis(1));
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        Self { period, phase: Duration::from_nanos(hash % nanos) }
    }

    /// The period.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The first time of the grid after `now`.
    #[must_use]
    pub fn after(&self, now: Duration) -> Duration {
        let Some(since) = now.checked_sub(self.phase) else { return self.phase };
        let passed = since.as_nanos() / self.period.as_nanos();
        let next = u64::try_from((passed + 1).saturating_mul(self.period.as_nanos())).unwrap_or(u64::MAX);
        self.phase + Duration::from_nanos(next)
    }

    /// The times of the grid after `from` and until `to`.
    #[must_use]
    pub fn between(&self, from: Duration, to: Duration) -> u64 {
        let until = |t: Duration| (t + self.period).saturating_sub(self.phase).as_nanos() / self.period.as_nanos();
        u64::try_from(until(to).saturating_sub(until(from))).unwrap_or(u64::MAX)
    }
}

/// What is due when: a queue of keys by time. A key that was entered anew has its old entry ignored.
#[derive(Debug)]
pub struct Agenda<K> {
    heap: BinaryHeap<Reverse<(Duration, u64, K)>>,
    current: HashMap<K, u64>,
    serial: u64,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), current: HashMap::new(), serial: 0 }
    }
}

impl<K: Ord + Hash + Clone> Agenda<K> {
    /// Enters a key for a time, instead of the time that it was entered for before.
    pub fn enter(&mut self, key: K, due: Duration) {
        self.serial += 1;
        self.current.insert(key.clone(), self.serial);
        self.heap.push(Reverse((due, self.serial, key)));
        if self.heap.len() > 2 * self.current.len() + 64 {
            let current = &self.current;
            self.heap.retain(|Reverse((_, serial, key))| current.get(key) == Some(serial));
        }
    }

    /// Takes a key off.
    pub fn strike(&mut self, key: &K) {
        self.current.remove(key);
    }

    /// When the next key is due.
    pub fn next_due(&mut self) -> Option<Duration> {
        while let Some(Reverse((due, serial, key))) = self.heap.peek() {
            if self.current.get(key) == Some(serial) {
                return Some(*due);
            }
            self.heap.pop();
        }
        None
    }

    /// The next key that is due by `now`, and when it was due.
    pub fn pop(&mut self, now: Duration) -> Option<(K, Duration)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((due, _, key)) = self.heap.pop()?;
        self.current.remove(&key);
        Some((key, due))
    }

    /// Keys that are entered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether nothing is entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn times_come_from_the_grid_however_late_one_looks() {
        let grid = Grid::new(ms(10_000), 3_000_000_000);
        assert_eq!(grid.after(ms(0)), ms(3_000));
        assert_eq!(grid.after(ms(3_000)), ms(13_000));
        assert_eq!(grid.after(ms(12_999)), ms(13_000));
        assert_eq!(grid.after(ms(35_000)), ms(43_000));
        assert_eq!(grid.between(ms(3_000), ms(35_000)), 3, "13, 23 and 33 s");
        assert_eq!(grid.between(ms(0), ms(3_000)), 1);
    }

    #[test]
    fn a_key_that_is_entered_again_counts_once_and_a_struck_one_not_at_all() {
        let mut agenda = Agenda::default();
        agenda.enter("a", ms(10));
        agenda.enter("b", ms(5));
        agenda.enter("a", ms(1));
        agenda.strike(&"b");
        assert_eq!((agenda.next_due(), agenda.len()), (Some(ms(1)), 1));
        assert_eq!(agenda.pop(ms(0)), None);
        assert_eq!(agenda.pop(ms(20)), Some(("a", ms(1))));
        assert_eq!(agenda.pop(ms(20)), None);
        assert!(agenda.is_empty());
    }

    #[test]
    fn entries_that_were_replaced_do_not_pile_up() {
        let mut agenda = Agenda::default();
        for n in 0..10_000 {
            agenda.enter("a", ms(n));
        }
        assert!(agenda.heap.len() < 200, "{}", agenda.heap.len());
    }

    proptest! {
        #[test]
        fn the_next_time_is_after_now_on_the_grid_and_within_a_period(period in 1..100_000u64, hash: u64, now in 0..10_000_000u64) {
            let (grid, now) = (Grid::new(ms(period), hash), ms(now));
            let next = grid.after(now);
            prop_assert!(next > now);
            prop_assert!(next <= now + ms(period) || next == grid.phase);
            prop_assert_eq!(next.checked_sub(grid.phase).unwrap().as_nanos() % grid.period.as_nanos(), 0);
            prop_assert_eq!(grid.between(now, next), 1);
        }
    }
}
