//! The run of one task.

use std::{pin::pin, sync::Arc, time::Duration};

use berth_core::{
    api::{Lock, Outcome, Server, Task, TaskPhase},
    lifecycle::{current_tasks, lock_expired, not_before},
    protocol::StatusWrite,
};
use kube::ResourceExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Done, Ran,
    held::{Held, Locks},
    keeper::{Lost, keep},
};
use crate::{Backoff, Context, Metrics, ServerCache, WriteError};

/// How long cancelled work may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// How long a claim may take to come back before its task's report is tried all the same.
const SEEN: Duration = Duration::from_millis(250);

/// Carries out tasks that need a Server's lock.
#[derive(Clone)]
pub struct TaskRunner {
    ctx: Context,
    servers: ServerCache,
    locks: Arc<Locks>,
}

/// How the work ended.
enum End {
    Done(Done),
    Stopped(Done, Lost),
    Abandoned(Lost),
}

impl TaskRunner {
    /// A runner; the cache is where it sees that a task was cancelled.
    #[must_use]
    pub fn new(ctx: &Context, servers: &ServerCache) -> Self {
        Self { ctx: ctx.clone(), servers: servers.clone(), locks: Arc::default() }
    }

    /// Carries out a task that needs the lock, from claim to report.
    ///
    /// `work` gets the Server as the claim left it, and a token that is cancelled when it has to stop: because the task is
    /// no longer wanted, the lock was lost, or the process is to end. It then has 10 s to come to a halt and to say
    /// what is true; after that it is dropped, and the lock is left to expire.
    ///
    /// # Errors
    /// When the API server cannot be used: the lock expires, and the next attempt looks at what is true.
    pub async fn run<F, Fut>(&self, server: &Server, task: &Task, work: F) -> Result<Ran, WriteError>
    where
        F: FnOnce(Arc<Server>, CancellationToken) -> Fut,
        Fut: Future<Output = Done>,
    {
        if let Some(wait) = self.must_wait(server, task) {
            return Ok(Ran::NotYet(wait));
        }
        let (server, held) = match self.take_lock(server, task).await {
            Ok(taken) => taken,
            Err(WriteError::Refused { message } | WriteError::Stale { message }) => {
                tracing::debug!(task = task.id, kind = %task.kind, message, "claim refused");
                return Ok(Ran::NotYet(Backoff::CLAIM.delay(1)));
            }
            Err(error) => return Err(error),
        };
        // The claim has counted the attempt.
        let task = server.status.iter().flat_map(|s| &s.tasks).find(|t| t.id == task.id).unwrap_or(task).clone();
        let (sender, lock) = watch::channel(held);
        let begun = Instant::now();
        let end = self.work(&server, &task, sender, work).await;
        Metrics::time(&self.ctx.metrics.task_seconds, task.kind.to_string(), begun.elapsed());
        let held = *lock.borrow();
        match end {
            End::Done(done) => {
                self.seen(&server).await;
                self.report(&server, &task, held, done).await
            }
            End::Stopped(done, lost) => self.stopped(&server, &task, held, done, lost).await,
            End::Abandoned(lost) => {
                self.count(&task, "abandoned");
                tracing::warn!(server = server.name_any(), task = task.id, kind = %task.kind, "work did not stop in time; its lock is left to expire");
                Ok(Ran::Stopped { why: lost.why() })
            }
        }
    }

    /// Waits until the claim has come back, for a moment. The API server decides on what its own cache has, which is where
    /// ours comes from: a report that is faster than the claim costs it a second attempt, and the webhook a refusal.
    async fn seen(&self, claimed: &Server) {
        let _ = timeout(SEEN, self.servers.caught_up(claimed)).await;
    }

    /// How long the task cannot begin: its time has not come, or somebody else has the lock.
    fn must_wait(&self, server: &Server, task: &Task) -> Option<Duration> {
        let now = self.ctx.clock.now();
        let until = not_before(task).filter(|at| *at > now);
        let lock = server.status.as_ref().and_then(|s| s.lock.as_ref());
        let expiry = lock.filter(|l| l.holder != self.ctx.holder && !lock_expired(l, now)).and_then(expires_at);
        let until = until.max(expiry)?;
        // A second more, because the API's times are whole seconds; the jitter keeps copies apart.
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default() + Duration::from_secs(1);
        Some(wait + Duration::from_millis(rand::random_range(0..500)))
    }

    /// Claims the task, or goes on with the lock that the report before has brought.
    async fn take_lock(&self, server: &Server, task: &Task) -> Result<(Arc<Server>, Held), WriteError> {
        if let Some(held) = self.locks.take(server, task)
            && task.phase == TaskPhase::Running
        {
            return Ok((Arc::new(server.clone()), held));
        }
        let since = Instant::now();
        let claimed = self.ctx.write(server, StatusWrite::new(server).claim(self.ctx.claim(task))).await?;
        Ok((Arc::new(claimed), Held::new(task, since, self.ctx.lock_duration)))
    }

    async fn work<F, Fut>(&self, server: &Arc<Server>, task: &Task, held: watch::Sender<Held>, work: F) -> End
    where
        F: FnOnce(Arc<Server>, CancellationToken) -> Fut,
        Fut: Future<Output = Done>,
    {
        let cancel = CancellationToken::new();
        let mut work = pin!(work(server.clone(), cancel.clone()));
        let lost = tokio::select! {
            done = &mut work => return End::Done(done),
            lost = keep(&self.ctx, server, task, held, self.servers.follow(server)) => lost,
        };
        tracing::info!(server = server.name_any(), task = task.id, kind = %task.kind, why = lost.why(), "stopping work");
        cancel.cancel();
        match timeout(STOP, work).await {
            Ok(done) => End::Stopped(done, lost),
            Err(_) => End::Abandoned(lost),
        }
    }

    /// Reports, with the facts and perhaps the next claim; the facts alone when the report is refused.
    async fn report(&self, server: &Server, task: &Task, held: Held, done: Done) -> Result<Ran, WriteError> {
        let report = self.ctx.report(task, done.outcome, &done.message);
        let write = || (done.facts)(StatusWrite::new(server)).report(report.clone());
        let next = self.next_task(server, task, &done);
        if let Some(next) = next {
            let since = Instant::now();
            match self.until(held, || self.ctx.write_as_holder(server, write().claim(self.ctx.claim(next)))).await {
                Ok(newer) => {
                    self.locks.remember(&newer, Held::new(next, since, self.ctx.lock_duration));
                    return Ok(self.reported(task, &done, newer));
                }
                Err(WriteError::Refused { message }) => tracing::debug!(task = task.id, message, "not with a claim"),
                Err(error) => return self.not_reported(task, error),
            }
        }
        match self.until(held, || self.ctx.write_as_holder(server, write())).await {
            Ok(newer) => Ok(self.reported(task, &done, newer)),
            Err(WriteError::Refused { message }) => self.facts_alone(server, task, held, &done, message).await,
            Err(error) => self.not_reported(task, error),
        }
    }

    /// The task to claim with the report: of the wanted kind, ours, and opened by the end of this one.
    fn next_task<'a>(&self, server: &'a Server, task: &Task, done: &Done) -> Option<&'a Task> {
        let kind = done.next.filter(|kind| kind.needs_lock() && done.outcome == Outcome::Succeeded)?;
        let status = server.status.as_ref()?;
        let now = self.ctx.clock.now();
        let next = current_tasks(status).find(|t| t.kind == kind && t.phase == TaskPhase::Pending)?;
        let blocked = current_tasks(status).any(|t| t.step < next.step && t.id != task.id && !t.phase.is_finished());
        (next.executor == self.ctx.executor && !blocked && not_before(next).is_none_or(|at| at <= now)).then_some(next)
    }

    /// Work that had to stop: what is true is written as long as the lock is ours, and the lock released.
    async fn stopped(
        &self,
        server: &Server,
        task: &Task,
        held: Held,
        done: Done,
        lost: Lost,
    ) -> Result<Ran, WriteError> {
        if lost == Lost::Shutdown && matches!(done.outcome, Outcome::Succeeded | Outcome::Failed) {
            return self.report(server, task, held, Done { next: None, ..done }).await;
        }
        self.facts_alone(server, task, held, &done, lost.why()).await
    }

    /// Writes the facts without a report, and releases the lock. If it is not ours any more, somebody else may be at
    /// the machine, and what was seen before says nothing: then nothing is written.
    async fn facts_alone(
        &self,
        server: &Server,
        task: &Task,
        held: Held,
        done: &Done,
        why: String,
    ) -> Result<Ran, WriteError> {
        self.count(task, "stopped");
        let write = || (done.facts)(StatusWrite::new(server)).claim(self.ctx.release(task));
        match self.until(held, || self.ctx.write_as_holder(server, write())).await {
            Ok(_) => Ok(Ran::Stopped { why }),
            Err(WriteError::Stale { message }) => {
                tracing::debug!(task = task.id, message, "the lock was lost; the facts are not written");
                Ok(Ran::Stopped { why })
            }
            Err(error) => Err(error),
        }
    }

    /// Tries to write until the API server says yes or no, or the lock has ended. At least once.
    async fn until<F, Fut>(&self, held: Held, write: F) -> Result<Server, WriteError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Server, WriteError>>,
    {
        let mut failures = 0;
        loop {
            let error = match write().await {
                Err(error @ WriteError::Unavailable { .. }) => error,
                result => return result,
            };
            failures += 1;
            let pause = sleep(Backoff::CALL.delay(failures));
            if timeout_at(held.ends_at(), pause).await.is_err() {
                return Err(error);
            }
        }
    }

    fn reported(&self, task: &Task, done: &Done, newer: Server) -> Ran {
        self.count(task, &format!("{:?}", done.outcome));
        tracing::info!(server = newer.name_any(), task = task.id, kind = %task.kind, outcome = ?done.outcome, message = done.message, "task reported");
        Ran::Reported(Arc::new(newer))
    }

    /// The report came to nothing: the Server is gone or the lock is not ours, or nobody answered.
    fn not_reported(&self, task: &Task, error: WriteError) -> Result<Ran, WriteError> {
        self.count(task, "unreported");
        match error {
            WriteError::Stale { message } => Ok(Ran::Stopped { why: message }),
            error => Err(error),
        }
    }

    fn count(&self, task: &Task, result: &str) {
        Metrics::count_result(&self.ctx.metrics.tasks, task.kind.to_string(), result);
    }
}

fn expires_at(lock: &Lock) -> Option<k8s_openapi::jiff::Timestamp> {
    let duration = k8s_openapi::jiff::SignedDuration::from_secs(i64::from(lock.duration_seconds));
    lock.renewed_at.0.checked_add(duration).ok()
}
