//! The locks that this process holds, measured by its own clock.

use std::{collections::HashMap, time::Duration};

use berth_core::api::{Lock, Server, Task, TaskPhase};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
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
pub(super) struct HeldLocks {
    /// Those that were claimed with the report on the task before, and that no work relies on yet.
    claimed: Mutex<HashMap<String, HeldLock>>,
    /// The newest one for each task that work was begun under, by the Server's UID and the task's ID, for as long as it may look like
    /// a new one: a cache that is behind shows it long after it was released, and even after other tasks. The newest is not always
    /// the last one, because copies of the webhook have different clocks.
    begun: Mutex<HashMap<(String, i64), Lock>>,
}

impl HeldLocks {
    /// Remembers a lock, and forgets locks that have ended.
    pub(super) fn remember(&self, server: &Server, held: HeldLock) {
        let (mut map, now) = (self.claimed.lock(), Instant::now());
        map.retain(|_, held| held.ends_at() > now);
        map.insert(server.uid().to_owned(), held);
    }

    /// Removes and returns the lock for this task, unless it is due for renewal. From now on the caller renews it.
    pub(super) fn take(&self, server: &Server, task: &Task) -> Option<HeldLock> {
        let held = self.claimed.lock().remove(server.uid())?;
        (held.task_id == task.id && held.renew_at() > Instant::now()).then_some(held)
    }

    /// The lock that the report on another task has handed over to this process (`holder`): from now on the caller works under it.
    ///
    /// None when work was begun under this lock before, because then it may still be going on; and when the lock is not young
    /// by this process's clock. Then only a claim shows that it is still this process's.
    pub(super) fn accept(&self, server: &Server, task: &Task, holder: &str, now: Timestamp) -> Option<HeldLock> {
        let lock = server.lock().filter(|lock| lock.holder == holder && lock.task_id == task.id)?;
        if task.phase != TaskPhase::Running || self.has_begun_under(server, lock) {
            return None;
        }
        // The API's times are whole seconds: the lock is younger than this by up to a second.
        let since = Instant::now().checked_sub(lock.age_when_new(now)?)?;
        Some(HeldLock { task_id: task.id, since, duration: lock.duration() })
    }

    /// Remembers that work is done under the Server's lock, which may have been renewed until `now`, by the clock that
    /// [`Self::accept`] reads.
    pub(super) fn begin(&self, server: &Server, now: Timestamp) {
        let Some(lock) = server.lock() else { return };
        let mut begun = self.begun.lock();
        // A clock that is behind the webhook's sees a lock as new only when it has got there.
        begun.retain(|_, lock| !lock.is_expired(now));
        let newest = begun.entry((server.uid().to_owned(), lock.task_id)).or_insert_with(|| lock.clone());
        newest.acquired_at = Time(newest.acquired_at.0.max(lock.acquired_at.0));
        newest.renewed_at = Time(newest.renewed_at.0.max(lock.renewed_at.0).max(now));
    }

    /// Whether work was begun under the Server's lock, or under a newer one for the same task.
    pub(super) fn has_begun(&self, server: &Server) -> bool {
        server.lock().is_some_and(|lock| self.has_begun_under(server, lock))
    }

    fn has_begun_under(&self, server: &Server, lock: &Lock) -> bool {
        let begun = self.begun.lock();
        begun.get(&(server.uid().to_owned(), lock.task_id)).is_some_and(|last| last.acquired_at.0 >= lock.acquired_at.0)
    }
}
