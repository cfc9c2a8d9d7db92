//! One attempt at DeployApp by a deploy system: starts the job or finds it, and follows it to its end.

use std::time::Duration;

use berth_core::{api::Outcome, protocol::TaskResult};
use berth_runtime::{Backoff, Clock};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    contract::{self, Job, JobRequest, JobState},
    judge::{Subject, log},
    system::{CallError, DeploySystem},
};

/// Times that only tests change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a deploy system may not answer: time for a restart.
    pub(super) silence: Duration,
    /// How long a cancelled job may take to end when the attempt goes on to report: a deploy system ends a process.
    pub(super) cancel: Duration,
    /// The same when the attempt has to stop: less than the time that stopped work has.
    pub(super) stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { silence: Duration::from_mins(5), cancel: Duration::from_secs(30), stop: Duration::from_secs(8) }
    }
}

/// After a request without an answer.
const SILENCE: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// One attempt.
pub(super) struct Attempt<'a> {
    system: &'a DeploySystem,
    request: &'a JobRequest,
    limits: Limits,
    clock: &'a dyn Clock,
    /// What people may know of the job while it goes on.
    words: &'a watch::Sender<String>,
    /// Cancelled when something else than this is declared.
    superseded: &'a CancellationToken,
    /// The key of the job that was started, or may have been.
    begun: Mutex<Option<String>>,
}

/// What a request again and again has led to.
enum Asked {
    Job(Job),
    Unknown,
    Ended(TaskResult),
}

impl<'a> Attempt<'a> {
    /// An attempt of the deploy system at this.
    pub(super) fn new(
        system: &'a DeploySystem,
        request: &'a JobRequest,
        limits: Limits,
        clock: &'a dyn Clock,
        words: &'a watch::Sender<String>,
        superseded: &'a CancellationToken,
    ) -> Self {
        Self { system, request, limits, clock, words, superseded, begun: Mutex::default() }
    }

    /// Carries it out.
    ///
    /// An attempt before this one may have ended without a word, because its process did. Its job may still run, or have ended: then
    /// that is this attempt's job. Two jobs at once on one machine would be worse than a late result.
    pub(super) async fn carry_out(&self) -> TaskResult {
        for attempt in (1..self.request.attempt).rev() {
            let key = contract::key(self.request, attempt);
            *self.begun.lock() = Some(key.clone());
            match self.ask(&key, false).await {
                Asked::Unknown => {}
                Asked::Ended(result) => return result,
                Asked::Job(job) => match self.subject().result(&job, self.clock.now()) {
                    None if job.digest == self.request.application.digest => return self.follow(&key, Some(job)).await,
                    None => match self.end(&job).await {
                        Some(result) => return result,
                        None => break,
                    },
                    Some(result) if result.outcome == Outcome::Succeeded => return result,
                    Some(_) => break,
                },
            }
        }
        self.follow(&contract::key(self.request, self.request.attempt), None).await
    }

    /// Follows the job to its end. Starts it first, unless it is known already. A job that is superseded is cancelled, and followed, too:
    /// until it has ended, nothing else may be begun on the machine.
    async fn follow(&self, key: &str, known: Option<Job>) -> TaskResult {
        let (begun, mut newest, mut was_forgotten) = (Instant::now(), known, false);
        let mut is_cancelled = false;
        *self.begun.lock() = Some(key.to_owned());
        loop {
            match self.ask(key, newest.is_none()).await {
                Asked::Job(job) => {
                    if is_cancelled && job.state == JobState::Cancelled {
                        let name = self.subject().name(key);
                        return self.retry(format!("{name} was cancelled, because something else is declared now"));
                    }
                    if let Some(result) = self.subject().result(&job, self.clock.now()) {
                        return result;
                    }
                    self.words.send_if_modified(|words| {
                        let progress = self.subject().progress(&job);
                        std::mem::replace(words, progress) != *words
                    });
                    newest = Some(job);
                }
                Asked::Unknown if was_forgotten => return self.retry(format!(
                    "{} was forgotten by the deploy system, started again, and forgotten again: it has to remember a job until \
                     a day after its end",
                    self.subject().name(key)
                )),
                // With the same key: what was only thought to be forgotten is not started twice.
                Asked::Unknown => {
                    (newest, was_forgotten) = (None, true);
                    continue;
                }
                Asked::Ended(result) => return result,
            }
            if begun.elapsed() >= self.system.job_limit {
                return self.overdue(key, newest.as_ref()).await;
            }
            self.pause().await;
            if self.superseded.is_cancelled() && !is_cancelled {
                is_cancelled = self.system.cancel(key).await.is_ok();
            }
        }
    }

    /// Until the next look, or until the job is superseded.
    async fn pause(&self) {
        // The end of the job is awaited anyway.
        let look = sleep(self.system.poll);
        if self.superseded.is_cancelled() {
            return look.await;
        }
        tokio::select! {
            biased;
            () = self.superseded.cancelled() => {}
            () = look => {}
        }
    }

    /// Starts the job or looks at it, again and again while there is no clear answer.
    async fn ask(&self, key: &str, start: bool) -> Asked {
        let (begun, mut failures) = (Instant::now(), 0);
        loop {
            let answer = if start { self.system.start(key, self.request).await } else { self.system.look(key).await };
            let problem = match answer {
                Ok(job) => return Asked::Job(job),
                Err(CallError::UnknownJob) => return Asked::Unknown,
                Err(CallError::Refused { words, permanent }) if start => {
                    let words =
                        format!("the deploy system of DeployClass {} starts no job: {words}", self.system.class);
                    let result = if permanent { TaskResult::failed(words) } else { TaskResult::retry(words) };
                    return Asked::Ended(result.at(self.subject().application()));
                }
                // A job goes on although Berth's credentials do not count any more.
                Err(CallError::Refused { words, .. } | CallError::Unclear(words)) => words,
            };
            if begun.elapsed() >= self.limits.silence {
                return Asked::Ended(self.retry(format!(
                    "the deploy system of DeployClass {} has not said for {} s what became of job {key}, which may go \
                     on: {problem}. See whether it runs",
                    self.system.class,
                    begun.elapsed().as_secs()
                )));
            }
            failures += 1;
            tracing::debug!(class = self.system.class, key, problem, "no clear answer of the deploy system");
            sleep(SILENCE.delay(failures)).await;
        }
    }

    /// The job takes too long.
    async fn overdue(&self, key: &str, newest: Option<&Job>) -> TaskResult {
        let ended = timeout(self.limits.cancel, self.cancel(key)).await.is_ok_and(|has_ended| has_ended);
        let then = if ended { "and was cancelled" } else { "and does not end although it was cancelled: end it there" };
        self.retry(format!(
            "{} has not ended within {} s (spec.jobTimeoutSeconds of the class; raise it if deployments take longer), {then}{}",
            self.subject().name(key),
            self.system.job_limit.as_secs(),
            newest.map(log).unwrap_or_default()
        ))
    }

    /// Ends a job of an earlier attempt that deploys something which is declared no longer. A result if it does not end.
    async fn end(&self, job: &Job) -> Option<TaskResult> {
        let has_ended = timeout(self.limits.silence, self.cancel(&job.key)).await.is_ok();
        let words = || {
            let name = self.subject().name(&job.key);
            let log = log(job);
            format!("{name} deploys something else and does not end although it was cancelled: end it there{log}")
        };
        (!has_ended).then(|| self.retry(words()))
    }

    /// What becomes of the job when the attempt has to stop. While the task is wanted, the next holder of the lock goes on with the
    /// job. Otherwise the job is cancelled. The lock is kept until it expires unless nothing of the job can have an effect any more.
    pub(super) async fn stop(&self, is_wanted: bool) -> TaskResult {
        let stopped = self.retry("the attempt was stopped".to_owned());
        let begun = self.begun.lock().clone();
        let Some(key) = begun else { return stopped };
        let has_ended = !is_wanted && timeout(self.limits.stop, self.cancel(&key)).await.is_ok_and(|ended| ended);
        if has_ended { stopped } else { stopped.and_may_still_run() }
    }

    /// Cancels the job, and waits until it has ended. False if the deploy system does not know the job: a start may still arrive.
    async fn cancel(&self, key: &str) -> bool {
        let mut failures = 0;
        let mut is_asked = false;
        loop {
            let answer = if is_asked { self.system.look(key).await } else { self.system.cancel(key).await };
            match answer {
                Ok(job) if job.state.has_ended() => return true,
                Ok(_) => is_asked = true,
                Err(CallError::UnknownJob) => return false,
                Err(CallError::Refused { .. } | CallError::Unclear(_)) => {}
            }
            failures += 1;
            sleep(Backoff::CALL.delay(failures)).await;
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject { class: &self.system.class, request: self.request }
    }

    fn retry(&self, message: String) -> TaskResult {
        TaskResult::retry(message).at(self.subject().application())
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
