//! Writing a Server's status: one guarded patch, answered by the webhook's decision.

use berth_core::{
    api::{Claim, Outcome, Report, Server, Task},
    protocol::{StatusWrite, TaskResult},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};

use crate::{ApiError, Backoff, Context, Metrics};

/// How often a task looks for what it waits for, in seconds: soon enough for a person who has just created it, and seldom enough
/// for many Servers that wait for the same.
pub const WAIT_SECONDS: i32 = 15;

impl Context {
    /// A claim of the task, or the renewal of its lock.
    #[must_use]
    pub fn claim(&self, task: &Task) -> Claim {
        let seconds = i32::try_from(self.lock_duration.as_secs()).unwrap_or(i32::MAX);
        Claim { task_id: task.id, holder: self.holder.clone(), duration_seconds: seconds, again: false }
    }

    /// The release of the task's lock.
    #[must_use]
    pub fn release(&self, task: &Task) -> Claim {
        Claim { task_id: task.id, holder: self.holder.clone(), duration_seconds: 0, again: false }
    }

    /// A report on the task. The delay of a `Retry` grows with the number of attempts: see [`Backoff::TASK`]. What a task on
    /// a machine waits for is looked for every [`WAIT_SECONDS`]; other executors watch what they wait for. A success names the
    /// instances whose turn it is to go on.
    #[must_use]
    pub fn report(&self, server: &Server, task: &Task, outcome: Outcome, message: impl Into<String>) -> Report {
        let attempts = u32::try_from(task.attempts).unwrap_or(0).max(1);
        let wait = || i32::try_from(Backoff::TASK.delay(attempts).as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        Report {
            task_id: task.id,
            holder: self.holder.clone(),
            outcome,
            message: message.into(),
            retry_after_seconds: match outcome {
                Outcome::Retry => Some(wait()),
                Outcome::Waiting => task.kind.needs_lock().then_some(WAIT_SECONDS),
                Outcome::Running | Outcome::Succeeded | Outcome::Failed => None,
            },
            successors: match outcome {
                Outcome::Succeeded => self.turns.successors(server),
                Outcome::Running | Outcome::Waiting | Outcome::Retry | Outcome::Failed => Vec::new(),
            },
        }
    }

    /// The parameters of every patch of this program: the field manager is the executor.
    #[must_use]
    pub fn patch_params(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.executor.name().to_owned()), ..PatchParams::default() }
    }

    /// Writes a Server's status and returns the Server as the webhook left it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn write_status(&self, server: &Server, write: StatusWrite) -> Result<Server, ApiError> {
        let servers = Api::<Server>::namespaced(self.client.clone(), server.namespace());
        let patch = Patch::Json::<()>(write.into_patch());
        let written = servers.patch_status(server.name(), &self.patch_params(), &patch).await;
        let action = || format!("write the status of Server {}/{}", server.namespace(), server.name());
        let result = written.map_err(|error| ApiError::doing(action())(error));
        Metrics::count_result(&self.metrics.status_writes, result.as_ref().map_or_else(ApiError::label, |_| "written"));
        result
    }

    /// Writes a Server's status with the result of a task that needs no lock: its facts and the report. Logs the result, and
    /// publishes an Event if the task has failed for good.
    ///
    /// # Errors
    /// See [`ApiError`]; stale when the Server has no such task any more.
    pub async fn write_result(
        &self,
        server: &Server,
        write: StatusWrite,
        task_id: i64,
        result: &TaskResult,
    ) -> Result<Server, ApiError> {
        let Some(task) = server.task(task_id) else {
            let action = format!("report on task {task_id} of Server {}/{}", server.namespace(), server.name());
            return Err(ApiError::stale(action, "the task does not exist any more"));
        };
        let report = self.report(server, task, result.outcome, &result.message);
        let written = self.write_status(server, write.facts(&result.facts).report(report)).await?;
        tracing::info!(
            server = server.name(), namespace = server.namespace(), task = task_id, kind = %task.kind,
            outcome = ?result.outcome, message = result.message, "task reported"
        );
        self.publish_if_failed(&written, task_id);
        Ok(written)
    }

    /// Writes a Server's status only while this process holds the lock that this version of the Server shows.
    pub(crate) async fn write_status_as_holder(&self, server: &Server, write: StatusWrite) -> Result<Server, ApiError> {
        self.write_status(server, write.as_holder(&self.holder, server.lock())).await
    }
}
