//! The times of one probe. Pure.

use std::time::Duration;

/// The times of a periodic probe, counted from a common origin: every `period`, shifted by `phase`.
///
/// The phase follows from the probe's identity, so that thousands of probes spread evenly over their period. The next time
/// follows from the grid and not from the end of the previous probe, so that nothing drifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    period: Duration,
    phase: Duration,
}

impl Grid {
    /// The grid of this period; `hash` decides on its phase.
    pub(crate) fn new(period: Duration, hash: u64) -> Self {
        let period = period.max(Duration::from_millis(1));
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        Self { period, phase: Duration::from_nanos(hash % nanos) }
    }

    /// The first time of the grid after `now`.
    pub(crate) fn after(&self, now: Duration) -> Duration {
        let Some(since) = now.checked_sub(self.phase) else { return self.phase };
        let passed = since.as_nanos() / self.period.as_nanos();
        let next = u64::try_from((passed + 1).saturating_mul(self.period.as_nanos())).unwrap_or(u64::MAX);
        self.phase + Duration::from_nanos(next)
    }

    /// The number of times of the grid after `from` and up to `to`.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> u64 {
        let until = |t: Duration| (t + self.period).saturating_sub(self.phase).as_nanos() / self.period.as_nanos();
        u64::try_from(until(to).saturating_sub(until(from))).unwrap_or(u64::MAX)
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
    fn times_come_from_the_grid_however_late_the_question() {
        let grid = Grid::new(ms(10_000), 3_000_000_000);
        assert_eq!(grid.after(ms(0)), ms(3_000));
        assert_eq!(grid.after(ms(3_000)), ms(13_000));
        assert_eq!(grid.after(ms(12_999)), ms(13_000));
        assert_eq!(grid.after(ms(35_000)), ms(43_000));
        assert_eq!(grid.between(ms(3_000), ms(35_000)), 3, "13, 23 and 33 s");
        assert_eq!(grid.between(ms(0), ms(3_000)), 1);
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
