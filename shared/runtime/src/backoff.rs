//! Exponential backoff with jitter.

use std::time::Duration;

/// Exponential backoff with jitter: the full delay doubles with every failure up to a cap, and the actual delay is drawn from its
/// upper half, so that calls that failed at the same time are not all retried at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// For attempts at a task: from 1 s to 5 min. Many failures end by themselves within seconds (a package mirror, a booting
    /// machine); a lasting one costs little every 5 min.
    pub const TASK: Self = Self::new(Duration::from_secs(1), Duration::from_mins(5));
    /// For a failed reconcile: from 500 ms to 1 min, because most failures are conflicts or a short outage of the API server.
    pub const RECONCILE: Self = Self::new(Duration::from_millis(500), Duration::from_mins(1));
    /// For a call that has to succeed soon, like the renewal of a lock: from 250 ms to 2 s, which gives several attempts within
    /// the shortest lock (5 s).
    pub const CALL: Self = Self::new(Duration::from_millis(250), Duration::from_secs(2));
    /// After a refused claim: 2 s to 4 s, until the cache shows why it was refused.
    pub const CLAIM: Self = Self::new(Duration::from_secs(4), Duration::from_secs(4));

    /// A backoff that starts at `base` and never exceeds `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The delay after this many failures (the first failure is 1).
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        self.full(failures).mul_f64(rand::random_range(0.5..=1.0))
    }

    fn full(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_delay_doubles_up_to_the_cap() {
        let seconds: Vec<u64> = (0..12).map(|n| Backoff::TASK.full(n).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(Backoff::TASK.full(u32::MAX), Duration::from_mins(5));
    }

    #[test]
    fn delays_are_drawn_from_the_upper_half() {
        let delays: Vec<Duration> = (0..100).map(|_| Backoff::TASK.delay(5)).collect();
        assert!(delays.iter().all(|d| (Duration::from_secs(8)..=Duration::from_secs(16)).contains(d)), "{delays:?}");
        assert!(delays.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
