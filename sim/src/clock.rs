//! The time of the world.

use std::time::Duration;

use berth_runtime::Clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The time at which the world begins: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600;

/// The clock of the world, which follows tokio's and so stands still while there is work.
#[derive(Clone, Copy, Debug)]
pub struct SimClock(Instant);

impl SimClock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How old the world is.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// How old the world is at this time.
    #[must_use]
    pub(crate) fn age_at(time: Timestamp) -> Duration {
        let beginning = Timestamp::from_second(BEGINNING).unwrap_or_default();
        Duration::try_from(time.duration_since(beginning)).unwrap_or_default()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let beginning = Timestamp::from_second(BEGINNING).unwrap_or_default();
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or_default();
        beginning.saturating_add(elapsed).unwrap_or(beginning)
    }
}
