//! The locks that this process holds, measured by its own clock.

use std::{collections::HashMap, time::Duration};

use berth_core::api::{Server, Task};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The API stores times in whole seconds, so a lock can end up to a second earlier than claimed.
const ROUNDING: Duration = Duration::from_secs(1);

/// A lock that this process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldLock {
    pub(super) task_id: i64,
    /// When the claim was sent: before the webhook's timestamp, so that this process never relies on the lock for too long.
    pub(super) since: Instant,
    pub(super) duration: Duration,
}

impl HeldLock {
    pub(super) fn new(task: &Task, since: Instant, duration: Duration) -> Self {
        Self { task_id: task.id, since, duration }
    }

    /// When it has to be renewed.
    pub(super) fn renew_at(&self) -> Instant {
        self.since + self.duration / 2
    }

    /// When this process has to stop relying on it.
    pub(super) fn ends_at(&self) -> Instant {
        self.since + self.duration.saturating_sub(ROUNDING)
    }
}

/// The locks that this process holds, by the Server's UID.
#[derive(Debug, Default)]
pub(super) struct HeldLocks(Mutex<HashMap<String, HeldLock>>);

impl HeldLocks {
    /// Remembers a lock, and forgets locks that have ended.
    pub(super) fn remember(&self, server: &Server, held: HeldLock) {
        let (mut map, now) = (self.0.lock(), Instant::now());
        map.retain(|_, held| held.ends_at() > now);
        map.insert(server.uid().to_owned(), held);
    }

    /// Removes and returns the lock for this task, unless it is due for renewal. From now on the caller renews it.
    pub(super) fn take(&self, server: &Server, task: &Task) -> Option<HeldLock> {
        let held = self.0.lock().remove(server.uid())?;
        (held.task_id == task.id && held.renew_at() > Instant::now()).then_some(held)
    }
}
