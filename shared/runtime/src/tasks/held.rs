//! The locks that this process holds, by its own clock.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::api::{Server, Task};
use tokio::time::Instant;

/// The API stores whole seconds, so that a lock can end up to a second earlier than it was asked for.
const ROUNDING: Duration = Duration::from_secs(1);

/// A lock that this process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) task_id: i64,
    /// When it was asked for: before the webhook stamped it.
    pub(super) since: Instant,
    pub(super) duration: Duration,
}

impl Held {
    pub(super) fn new(task: &Task, since: Instant, duration: Duration) -> Self {
        Self { task_id: task.id, since, duration }
    }

    /// When it has to be renewed.
    pub(super) fn renew_at(&self) -> Instant {
        self.since + self.duration / 2
    }

    /// When nothing may be done any more in its name.
    pub(super) fn ends_at(&self) -> Instant {
        self.since + self.duration.saturating_sub(ROUNDING)
    }
}

/// The locks that this process holds, by the Server's UID.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Held>>);

impl Locks {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a lock. Locks that have ended are forgotten.
    pub(super) fn remember(&self, server: &Server, held: Held) {
        let (mut map, now) = (self.map(), Instant::now());
        map.retain(|_, held| held.ends_at() > now);
        map.insert(server.metadata.uid.clone().unwrap_or_default(), held);
    }

    /// The lock for this task, if it needs no renewal yet. It is forgotten here: who takes it looks after it.
    pub(super) fn take(&self, server: &Server, task: &Task) -> Option<Held> {
        let held = self.map().remove(server.metadata.uid.as_deref().unwrap_or_default())?;
        (held.task_id == task.id && held.renew_at() > Instant::now()).then_some(held)
    }
}
