//! What happens by chance in a world: drawn from its seed.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Numbers that follow from a seed. Clones draw from the same sequence.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<StdRng>>);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// True with this probability.
    #[must_use]
    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.lock().random_bool(probability.min(1.0))
    }

    /// A number from `low` to `high`, both included.
    #[must_use]
    pub fn between(&self, low: usize, high: usize) -> usize {
        self.0.lock().random_range(low..=high)
    }

    /// A duration from `low` to `high`.
    #[must_use]
    pub fn duration(&self, low: Duration, high: Duration) -> Duration {
        low + (high.saturating_sub(low)).mul_f64(self.0.lock().random_range(0.0..=1.0))
    }

    /// Draws the mean time between two occurrences of something, from these seconds, then each of them until `end`, and when it
    /// happens.
    pub(crate) fn occurrences<T>(
        &self,
        intervals: &[u64],
        end: Duration,
        draw: impl Fn(&Self) -> T,
    ) -> Vec<(Duration, T)> {
        let mean = Duration::from_secs(self.pick(intervals));
        let mut occurrences = Vec::new();
        let mut at = self.duration(Duration::ZERO, mean * 2);
        while at < end {
            occurrences.push((at, draw(self)));
            at += self.duration(Duration::ZERO, mean * 2);
        }
        occurrences
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn pick<T: Copy>(&self, all: &[T]) -> T {
        all[self.between(0, all.len() - 1)]
    }
}
