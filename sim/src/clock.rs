//! The time of the world.

use std::time::Duration;

use berth_runtime::Clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The time at which the world begins: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600;

/// The clock of the world, which follows tokio's and so stands still while there is work.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    start: Instant,
    /// How far it is ahead of the time of the world.
    ahead: SignedDuration,
}

impl SimClock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), ahead: SignedDuration::ZERO }
    }

    /// A clock that is ahead of this one, or behind it.
    #[must_use]
    pub fn apart(&self, ahead: SignedDuration) -> Self {
        Self { ahead: self.ahead.saturating_add(ahead), ..*self }
    }

    /// How old the world is.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
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
        beginning.saturating_add(elapsed.saturating_add(self.ahead)).unwrap_or(beginning)
    }
}
