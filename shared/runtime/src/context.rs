//! What a controller works with.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Claim, Executor, Outcome, Report, Task},
    identity::Identities,
};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{Backoff, Clock, Events, Metrics, Process, Readiness};

/// What a controller works with: the API, its own name, the time, and what every process has.
#[derive(Clone)]
pub struct Context {
    /// The API; every call of it ends in time.
    pub client: Client,
    /// Which controller this is.
    pub executor: Executor,
    /// `<executor>/<instance>`: who holds the locks that this process takes.
    pub holder: String,
    /// Which users Berth's controllers are.
    pub identities: Identities,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where Events go.
    pub events: Events,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// What has to be there before the process is ready.
    pub readiness: Readiness,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    /// How long a lock is taken for; it is renewed at half of that. Whole seconds.
    pub lock_duration: Duration,
    /// Objects that are worked on at the same time.
    pub concurrency: u16,
}

/// What a context is made of, beside the process.
pub struct ContextParts {
    /// The API.
    pub client: Client,
    /// Which controller this is.
    pub executor: Executor,
    /// Name of this copy of it.
    pub instance: String,
    /// Which users Berth's controllers are.
    pub identities: Identities,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How long a lock is taken for. Whole seconds.
    pub lock_duration: Duration,
    /// Objects that are worked on at the same time.
    pub concurrency: u16,
}

impl Context {
    /// A context of this process. Starts the task that sends its Events.
    #[must_use]
    pub fn new(process: &Process, parts: ContextParts) -> Self {
        let ContextParts { client, executor, instance, identities, clock, lock_duration, concurrency } = parts;
        let (events, sender) = Events::new(client.clone(), executor, &instance, clock.clone(), process.metrics.clone());
        process.tasks.spawn(sender.run(process.shutdown.clone()));
        Self {
            client,
            executor,
            holder: format!("{executor}/{instance}"),
            identities,
            clock,
            events,
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            shutdown: process.shutdown.clone(),
            lock_duration,
            concurrency,
        }
    }

    /// A claim of the task, or the renewal of its lock.
    #[must_use]
    pub fn claim(&self, task: &Task) -> Claim {
        let seconds = i32::try_from(self.lock_duration.as_secs()).unwrap_or(i32::MAX);
        Claim { task_id: task.id, holder: self.holder.clone(), duration_seconds: seconds }
    }

    /// The release of the task's lock.
    #[must_use]
    pub fn release(&self, task: &Task) -> Claim {
        Claim { task_id: task.id, holder: self.holder.clone(), duration_seconds: 0 }
    }

    /// A report on the task. `Retry` waits according to the attempts so far: see [`Backoff::TASK`].
    #[must_use]
    pub fn report(&self, task: &Task, outcome: Outcome, message: impl Into<String>) -> Report {
        let attempts = u32::try_from(task.attempts).unwrap_or(0).max(1);
        let wait = || i32::try_from(Backoff::TASK.delay(attempts).as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        Report {
            task_id: task.id,
            holder: self.holder.clone(),
            outcome,
            message: message.into(),
            retry_after_seconds: (outcome == Outcome::Retry).then(wait),
        }
    }
}
