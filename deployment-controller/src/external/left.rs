//! Jobs that nobody follows any more: their task was cancelled while no process followed them, or while their deploy system did not
//! answer.

use std::time::Duration;

use berth_core::{
    api::{Claim, Lock, Server, Task, TaskKind, TaskPhase},
    protocol::StatusWrite,
};
use berth_runtime::{ApiError, Context, ServerCache};

use super::{
    contract,
    system::{CallError, DeploySystem},
};

/// Between two looks at a job of which nothing is known: its start may still arrive, or its deploy system may answer again.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A cancelled task whose job may go on.
#[derive(Debug, PartialEq)]
pub(crate) struct LeftJob<'a> {
    task: &'a Task,
    lock: &'a Lock,
    /// Whose job it may be: the class that is declared, and the one that has deployed what ran before.
    classes: Vec<&'a str>,
}

/// What became of a job that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The job of the newest attempt has ended: nothing of the task can change the machine any more.
    Ended,
    /// A job is asked to end.
    GoesOn,
    /// The deploy system knows no job of the newest attempt, and none that goes on. The newest attempt may be somebody else's, or its
    /// start may still arrive.
    Unknown,
    /// The deploy system does not say.
    Unclear,
}

/// The job of a cancelled task whose lock was not released: its holder has not said that nothing of the job can have an effect.
pub(crate) fn left_job(server: &Server) -> Option<LeftJob<'_>> {
    let lock = server.lock()?;
    let task = server.task(lock.task_id)?;
    let declared = server.spec.app.as_ref().and_then(|app| app.deploy_class());
    let known = server.status.as_ref().and_then(|status| status.app.as_ref()?.deploy_class.as_deref());
    let mut classes: Vec<&str> = declared.into_iter().chain(known).collect();
    classes.dedup();
    let is_left = task.kind == TaskKind::DeployApp && task.phase == TaskPhase::Cancelled && !classes.is_empty();
    is_left.then_some(LeftJob { task, lock, classes })
}

impl LeftJob<'_> {
    /// Has the job ended, and releases the lock when it has. Says when to look again, if the lock has to be respected meanwhile or
    /// the job goes on.
    pub(crate) async fn end(
        &self,
        ctx: &Context,
        servers: &ServerCache,
        server: &Server,
    ) -> Result<Option<Duration>, ApiError> {
        let mut is_clear = true;
        for class in &self.classes {
            let Ok(system) = DeploySystem::of_class(&ctx.client, class, server.namespace()).await? else {
                is_clear = false;
                continue;
            };
            match end(&system, self.keys(server)).await {
                Ending::Ended => {
                    self.release(ctx, servers, server).await?;
                    return Ok(None);
                }
                Ending::GoesOn => return Ok(Some(system.poll)),
                Ending::Unknown => {}
                Ending::Unclear => is_clear = false,
            }
        }
        let is_over = is_clear && self.lock.is_expired(ctx.clock.now());
        Ok((!is_over).then_some(LOOK_INTERVAL))
    }

    /// Whether others have to wait for the lock.
    pub(crate) fn is_locked(&self, ctx: &Context) -> bool {
        !self.lock.is_expired(ctx.clock.now())
    }

    /// The keys that the job may have, the newest first: the attempt that was cancelled may have followed the job of one before it.
    fn keys(&self, server: &Server) -> impl Iterator<Item = String> {
        let (uid, task) = (server.uid().to_owned(), self.task.id);
        (1..=self.task.attempts).rev().map(move |attempt| contract::key_of(&uid, task, attempt))
    }

    /// In the name of its holder, who may be dead: the job was all that the lock was for.
    async fn release(&self, ctx: &Context, servers: &ServerCache, server: &Server) -> Result<(), ApiError> {
        let holder = self.lock.holder.clone();
        let claim = Claim { task_id: self.task.id, holder, duration_seconds: 0, again: false };
        let write = StatusWrite::new(server).claim(claim).as_holder(&self.lock.holder, Some(self.lock));
        match ctx.write_status(server, write).await {
            Ok(written) => {
                tracing::info!(server = server.name(), task = self.task.id, "a job that nobody followed has ended");
                servers.catch_up_with(&written).await;
                Ok(())
            }
            // Somebody else has it meanwhile, or has released it.
            Err(error) if error.is_stale() || error.refusal().is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Asks to end the newest of these jobs that the deploy system knows. Those before it have ended: a job is started only then.
async fn end(system: &DeploySystem, keys: impl Iterator<Item = String>) -> Ending {
    for (older, key) in keys.enumerate() {
        match system.cancel(&key).await {
            Ok(job) if job.state.has_ended() => return if older == 0 { Ending::Ended } else { Ending::Unknown },
            Ok(_) => return Ending::GoesOn,
            Err(CallError::UnknownJob) => {}
            Err(CallError::Refused { .. } | CallError::Unclear(_)) => return Ending::Unclear,
        }
    }
    Ending::Unknown
}

#[cfg(test)]
#[path = "left_tests.rs"]
mod tests;
