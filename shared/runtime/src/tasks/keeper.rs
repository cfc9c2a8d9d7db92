//! Keeping a lock while work is under way, and seeing when it is lost.

use berth_core::{
    api::{Server, Task},
    protocol::StatusWrite,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::held::Held;
use crate::{Backoff, Context, Seen, WriteError};

/// Why work has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The task is no longer wanted; the lock is still ours.
    Cancelled(String),
    /// The process is to end; the lock is still ours.
    Shutdown,
    /// The lock is not ours any more, or may not be.
    Taken(String),
}

impl Lost {
    pub(super) fn why(&self) -> String {
        match self {
            Self::Cancelled(why) | Self::Taken(why) => why.clone(),
            Self::Shutdown => "the process is to end".to_owned(),
        }
    }
}

/// Renews the lock until it is lost, the task is cancelled, or the process is to end.
pub(super) async fn keep(
    ctx: &Context,
    server: &Server,
    task: &Task,
    held: watch::Sender<Held>,
    seen: watch::Receiver<Seen<Server>>,
) -> Lost {
    tokio::select! {
        biased;
        () = ctx.shutdown.cancelled() => Lost::Shutdown,
        lost = watch_server(ctx, server, task, seen) => lost,
        lost = renew(ctx, server, task, &held) => lost,
    }
}

/// Renews the lock at half of its duration, for as long as it can be renewed in time.
async fn renew(ctx: &Context, server: &Server, task: &Task, held: &watch::Sender<Held>) -> Lost {
    loop {
        let current = *held.borrow();
        sleep_until(current.renew_at()).await;
        match timeout_at(current.ends_at(), renew_once(ctx, server, task)).await {
            Ok(Ok(since)) => _ = held.send_replace(Held { since, ..current }),
            Ok(Err(error)) => return Lost::Taken(format!("the lock was not renewed: {error}")),
            Err(_) => return Lost::Taken("the lock could not be renewed before it expired".to_owned()),
        }
    }
}

/// Tries to renew until the API server says yes or no. Returns when the renewal was asked for.
async fn renew_once(ctx: &Context, server: &Server, task: &Task) -> Result<Instant, WriteError> {
    let mut failures = 0;
    loop {
        let since = Instant::now();
        match ctx.write_as_holder(server, StatusWrite::new(server).claim(ctx.claim(task))).await {
            Ok(_) => return Ok(since),
            Err(WriteError::Unavailable { message }) => {
                failures += 1;
                tracing::debug!(task = task.id, message, "renewal failed; trying again");
                sleep(Backoff::CALL.delay(failures)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns when the cache shows that the task is not ours any more. The cache may be older than the claim: what was
/// true before it says nothing.
async fn watch_server(ctx: &Context, server: &Server, task: &Task, mut seen: watch::Receiver<Seen<Server>>) -> Lost {
    let mut was_there = false;
    loop {
        let lost = match &*seen.borrow_and_update() {
            Seen::Present(newer) => {
                was_there = true;
                lost(ctx, server, task, newer)
            }
            Seen::Absent if was_there => Some(Lost::Taken("the Server is gone".to_owned())),
            Seen::Absent | Seen::SetAside => None,
        };
        if let Some(lost) = lost {
            return lost;
        }
        if seen.changed().await.is_err() {
            // The cache has ended: renewals alone say whether the lock is still ours.
            std::future::pending::<()>().await;
        }
    }
}

fn lost(ctx: &Context, claimed: &Server, task: &Task, newer: &Server) -> Option<Lost> {
    if newer.metadata.uid != claimed.metadata.uid {
        return Some(Lost::Taken("the Server is gone; this one is another".to_owned()));
    }
    let status = newer.status.as_ref()?;
    if status.last_task_id.unwrap_or(0) < task.id {
        return None;
    }
    let ours = claimed.status.as_ref().and_then(|s| s.lock.as_ref());
    if let (Some(lock), Some(ours)) = (&status.lock, ours)
        && lock.holder != ctx.holder
        && lock.acquired_at.0 > ours.acquired_at.0
    {
        return Some(Lost::Taken(format!("{} has taken the lock", lock.holder)));
    }
    match status.tasks.iter().find(|t| t.id == task.id) {
        Some(now) if !now.phase.is_finished() => None,
        Some(now) => Some(Lost::Cancelled(format!("the task is {:?}: {}", now.phase, now.message))),
        None => Some(Lost::Cancelled("the task is no longer there".to_owned())),
    }
}
