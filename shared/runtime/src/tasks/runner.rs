//! The run of one task, from claim to report.

use std::{pin::pin, sync::Arc, time::Duration};

use berth_core::{
    api::{Claim, Lock, Outcome, Server, Task, TaskKind, TaskPhase},
    protocol::{Fact, StatusWrite, TaskResult},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    held_lock::{HeldLock, HeldLocks},
    keeper::{StopReason, keep},
    run::TaskRun,
};
use crate::{ApiError, Backoff, Context, ServerCache};

/// How long cancelled work may take to stop: long enough to end an SSH session, shorter than the default lock.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for the cache to show a claim before its report is written anyway: a watch takes a few milliseconds.
const CLAIM_SHOWN_LIMIT: Duration = Duration::from_millis(250);

/// Carries out tasks that need a Server's lock.
#[derive(Clone)]
pub struct TaskRunner {
    ctx: Context,
    servers: ServerCache,
    locks: Arc<HeldLocks>,
}

/// How the work ended.
enum WorkEnd {
    /// It finished.
    Finished(TaskResult),
    /// It was cancelled, and stopped in time.
    Stopped(TaskResult, StopReason),
    /// It was cancelled, and did not stop in time, or may still have an effect on the machine.
    Abandoned(StopReason),
}

impl TaskRunner {
    /// A runner. The cache is where it sees that a task was cancelled.
    #[must_use]
    pub fn new(ctx: &Context, servers: &ServerCache) -> Self {
        Self { ctx: ctx.clone(), servers: servers.clone(), locks: Arc::default() }
    }

    /// Carries out a task that needs the lock, from claim to report.
    ///
    /// `work` gets the Server as the claim left it, and a token that is cancelled when it has to stop: because the task was
    /// cancelled, the lock was lost, or the process shuts down. It then has 10 s to stop and return the facts; after that it
    /// is dropped. The lock is released only if nothing of the work can have an effect any more
    /// ([`TaskResult::may_still_run`]), and is left to expire otherwise.
    ///
    /// # Errors
    /// If the API server is unavailable: the lock expires, and the next attempt starts from the facts.
    pub async fn run<F, Fut>(&self, server: &Server, task: &Task, work: F) -> Result<TaskRun, ApiError>
    where
        F: FnOnce(Arc<Server>, CancellationToken) -> Fut,
        Fut: Future<Output = TaskResult>,
    {
        self.run_with_facts(server, task, &[], work).await
    }

    /// Carries out a task as [`Self::run`] does. The claim also writes these facts: what has to be known even if nothing is
    /// ever reported.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub async fn run_with_facts<F, Fut>(
        &self,
        server: &Server,
        task: &Task,
        facts: &[Fact],
        work: F,
    ) -> Result<TaskRun, ApiError>
    where
        F: FnOnce(Arc<Server>, CancellationToken) -> Fut,
        Fut: Future<Output = TaskResult>,
    {
        if let Some(requeue_after) = self.must_wait(server, task) {
            return Ok(TaskRun::NotYet { requeue_after });
        }
        let (server, held) = match self.take_lock(server, task, facts).await {
            Ok(taken) => taken,
            Err(error) if error.refusal().is_some() || error.is_stale() => {
                tracing::debug!(task = task.id, kind = %task.kind, %error, "claim refused");
                return Ok(TaskRun::NotYet { requeue_after: Backoff::CLAIM.delay(1) });
            }
            Err(error) => return Err(error),
        };
        self.locks.begin(&server, self.ctx.clock.now());
        // The claim has counted the attempt.
        let task = server.task(task.id).unwrap_or(task).clone();
        let (sender, lock) = watch::channel(held);
        let begun = Instant::now();
        let end = self.work(&server, &task, sender, work).await;
        self.locks.begin(&server, self.ctx.clock.now());
        self.ctx.metrics.time_attempt(task.kind.to_string(), begun.elapsed());
        let held = *lock.borrow();
        match end {
            WorkEnd::Finished(result) => {
                self.await_claim_in_cache(&server).await;
                self.report(&server, &task, held, result).await
            }
            WorkEnd::Stopped(result, reason) => self.stopped(&server, &task, held, result, reason).await,
            WorkEnd::Abandoned(reason) => {
                self.count(&task, "abandoned");
                tracing::warn!(server = server.name(), task = task.id, kind = %task.kind, "work may still go on; its lock is left to expire");
                Ok(TaskRun::Stopped { message: reason.message() })
            }
        }
    }

    /// Waits a moment until the cache shows the claim. The API server applies patches to its own watch cache first: a report that
    /// overtakes the claim there costs a second attempt and a refusal by the webhook.
    async fn await_claim_in_cache(&self, claimed: &Server) {
        let _ = timeout(CLAIM_SHOWN_LIMIT, self.servers.catch_up_with(claimed)).await;
    }

    /// How long the task must wait, because of its `notBefore` or because another holder has the lock.
    fn must_wait(&self, server: &Server, task: &Task) -> Option<Duration> {
        let now = self.ctx.clock.now();
        let begin = task.earliest_begin().filter(|at| *at > now);
        let expiry = server.lock().filter(|lock| lock.holder != self.ctx.holder && !lock.is_expired(now));
        let until = begin.max(expiry.map(Lock::expires_at))?;
        // One second more, because the API's times are whole seconds. The jitter keeps copies from claiming at the same time.
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default() + Duration::from_secs(1);
        Some(wait + Duration::from_millis(rand::random_range(0..500)))
    }

    /// Claims the task, or continues with the lock that was claimed by the previous report, or handed over with it.
    async fn take_lock(
        &self,
        server: &Server,
        task: &Task,
        facts: &[Fact],
    ) -> Result<(Arc<Server>, HeldLock), ApiError> {
        if let Some(held) = self.locks.take(server, task)
            && task.phase == TaskPhase::Running
        {
            return Ok((Arc::new(server.clone()), held));
        }
        if let Some(held) = self.locks.accept(server, task, &self.ctx.holder, self.ctx.clock.now()) {
            return Ok((Arc::new(server.clone()), held));
        }
        let since = Instant::now();
        let claim = StatusWrite::new(server).facts(facts).claim(self.ctx.claim(task));
        let mut claimed = self.ctx.write_status(server, claim).await?;
        if self.locks.has_begun(&claimed) {
            // It was not heard what became of the attempt before, so its report may still arrive, and must not end this one.
            let again = Claim { again: true, ..self.ctx.claim(task) };
            claimed = self.ctx.write_status_as_holder(&claimed, StatusWrite::new(&claimed).claim(again)).await?;
        }
        Ok((Arc::new(claimed), HeldLock::new(task, since, self.ctx.lock_duration)))
    }

    async fn work<F, Fut>(&self, server: &Arc<Server>, task: &Task, held: watch::Sender<HeldLock>, work: F) -> WorkEnd
    where
        F: FnOnce(Arc<Server>, CancellationToken) -> Fut,
        Fut: Future<Output = TaskResult>,
    {
        let cancel = CancellationToken::new();
        let mut work = pin!(work(server.clone(), cancel.clone()));
        let reason = tokio::select! {
            biased;
            // First: a process that was stopped for minutes finds both ready, and must not begin another step on a machine that
            // somebody else may have got in the meantime.
            reason = keep(&self.ctx, server, task, held, self.servers.follow(server)) => reason,
            result = &mut work => return WorkEnd::Finished(result),
        };
        tracing::info!(server = server.name(), task = task.id, kind = %task.kind, reason = reason.message(), "stopping work");
        cancel.cancel();
        match timeout(STOP_LIMIT, work).await {
            Ok(result) if !result.may_still_run => WorkEnd::Stopped(result, reason),
            Ok(_) | Err(_) => WorkEnd::Abandoned(reason),
        }
    }

    /// Reports the result with its facts, and claims the next task if there is one. If the report is refused, only the facts are
    /// written.
    async fn report(
        &self,
        server: &Server,
        task: &Task,
        held: HeldLock,
        result: TaskResult,
    ) -> Result<TaskRun, ApiError> {
        let report = self.ctx.report(server, task, result.outcome, &result.message);
        let write = || StatusWrite::new(server).facts(&result.facts).report(report.clone());
        if let Some(next) = self.next_task(server, task, &result) {
            let since = Instant::now();
            match self.write_while_held(held, server, || write().claim(self.ctx.claim(next))).await {
                Ok(newer) => {
                    self.locks.remember(&newer, HeldLock::new(next, since, self.ctx.lock_duration));
                    return Ok(self.reported(task, &result, newer));
                }
                Err(error) if error.refusal().is_some() => {
                    tracing::debug!(task = task.id, %error, "reporting without the next claim");
                }
                Err(error) => return self.not_reported(task, error),
            }
        }
        match self.write_while_held(held, server, write).await {
            Ok(newer) => Ok(self.reported(task, &result, newer)),
            Err(error) => match error.refusal() {
                Some(message) => self.facts_alone(server, task, held, &result, message.to_owned()).await,
                None => self.not_reported(task, error),
            },
        }
    }

    /// The task to claim with the report: of the kind that the result names, and opened by the report.
    fn next_task<'a>(&self, server: &'a Server, task: &Task, result: &TaskResult) -> Option<&'a Task> {
        let kind: TaskKind = result.next.filter(|_| result.outcome == Outcome::Succeeded)?;
        server.claimable_with_report(task.id, kind, self.ctx.executor, self.ctx.clock.now())
    }

    /// Writes the facts of work that had to stop, if this process still holds the lock, and releases the lock.
    async fn stopped(
        &self,
        server: &Server,
        task: &Task,
        held: HeldLock,
        result: TaskResult,
        reason: StopReason,
    ) -> Result<TaskRun, ApiError> {
        if reason == StopReason::Shutdown && matches!(result.outcome, Outcome::Succeeded | Outcome::Failed) {
            return self.report(server, task, held, TaskResult { next: None, ..result }).await;
        }
        self.facts_alone(server, task, held, &result, reason.message()).await
    }

    /// Writes the facts without a report, and releases the lock. If the lock is lost, another holder may be changing the machine,
    /// so the facts may be out of date and are not written.
    async fn facts_alone(
        &self,
        server: &Server,
        task: &Task,
        held: HeldLock,
        result: &TaskResult,
        message: String,
    ) -> Result<TaskRun, ApiError> {
        self.count(task, "stopped");
        let write = || StatusWrite::new(server).facts(&result.facts).claim(self.ctx.release(task));
        match self.write_while_held(held, server, write).await {
            Ok(_) => Ok(TaskRun::Stopped { message }),
            Err(error) if error.is_stale() => {
                tracing::debug!(task = task.id, %error, "the lock was lost; the facts are not written");
                Ok(TaskRun::Stopped { message })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes as the holder of the lock. Retries until the API server accepts or refuses the write or the lock has ended.
    async fn write_while_held(
        &self,
        held: HeldLock,
        server: &Server,
        write: impl Fn() -> StatusWrite,
    ) -> Result<Server, ApiError> {
        let mut failures = 0;
        loop {
            let error = match self.ctx.write_status_as_holder(server, write()).await {
                Err(error) if error.is_unavailable() => error,
                result => return result,
            };
            failures += 1;
            let pause = sleep(Backoff::CALL.delay(failures));
            if timeout_at(held.ends_at(), pause).await.is_err() {
                return Err(error);
            }
        }
    }

    fn reported(&self, task: &Task, result: &TaskResult, newer: Server) -> TaskRun {
        self.count(task, &format!("{:?}", result.outcome).to_lowercase());
        tracing::info!(server = newer.name(), task = task.id, kind = %task.kind, outcome = ?result.outcome, message = result.message, "task reported");
        TaskRun::Reported(Arc::new(newer))
    }

    /// The report was not written: the Server is gone, the lock was lost, or the API server did not answer.
    fn not_reported(&self, task: &Task, error: ApiError) -> Result<TaskRun, ApiError> {
        self.count(task, "unreported");
        if error.is_stale() { Ok(TaskRun::Stopped { message: error.to_string() }) } else { Err(error) }
    }

    fn count(&self, task: &Task, result: &str) {
        self.ctx.metrics.count_attempt(task.kind.to_string(), result);
    }
}
