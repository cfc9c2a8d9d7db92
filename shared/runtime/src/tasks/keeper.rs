//! Renews a lock while work is under way, and detects when the work has to stop.

use berth_core::{
    api::{Server, Task},
    protocol::StatusWrite,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::held_lock::HeldLock;
use crate::{ApiError, Backoff, CachedObject, Context};

/// Why work has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The task was cancelled; this process still holds the lock.
    Cancelled(String),
    /// The process is shutting down; it still holds the lock.
    Shutdown,
    /// This process has lost the lock, or may have lost it.
    LockLost(String),
}

impl StopReason {
    pub(super) fn message(&self) -> String {
        match self {
            Self::Cancelled(message) | Self::LockLost(message) => message.clone(),
            Self::Shutdown => "the process is shutting down".to_owned(),
        }
    }
}

/// Renews the lock until it is lost, the task is cancelled, or the process is shutting down. Returns which.
pub(super) async fn keep(
    ctx: &Context,
    server: &Server,
    task: &Task,
    held: watch::Sender<HeldLock>,
    cached: watch::Receiver<CachedObject<Server>>,
) -> StopReason {
    tokio::select! {
        biased;
        () = ctx.shutdown.cancelled() => StopReason::Shutdown,
        reason = watch_server(ctx, server, task, cached) => reason,
        reason = renew(ctx, server, task, &held) => reason,
    }
}

/// Renews the lock after half of its duration, again and again, until a renewal fails.
async fn renew(ctx: &Context, server: &Server, task: &Task, held: &watch::Sender<HeldLock>) -> StopReason {
    loop {
        let current = *held.borrow();
        sleep_until(current.renew_at()).await;
        match timeout_at(current.ends_at(), renew_once(ctx, server, task)).await {
            Ok(Ok(since)) => _ = held.send_replace(HeldLock { since, ..current }),
            Ok(Err(error)) => return StopReason::LockLost(format!("the lock was not renewed: {error}")),
            Err(_) => return StopReason::LockLost("the lock could not be renewed before it expired".to_owned()),
        }
    }
}

/// Renews the lock, retrying until the API server accepts or refuses. Returns when the successful call was sent.
async fn renew_once(ctx: &Context, server: &Server, task: &Task) -> Result<Instant, ApiError> {
    let mut failures = 0;
    loop {
        let since = Instant::now();
        match ctx.write_status_as_holder(server, StatusWrite::new(server).claim(ctx.claim(task))).await {
            Ok(_) => return Ok(since),
            Err(error) if error.is_unavailable() => {
                failures += 1;
                tracing::debug!(task = task.id, %error, "renewal failed; trying again");
                sleep(Backoff::CALL.delay(failures)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns when the cache shows that this process should stop. The cache may be older than the claim: an older version of the
/// Server does not count.
async fn watch_server(
    ctx: &Context,
    server: &Server,
    task: &Task,
    mut cached: watch::Receiver<CachedObject<Server>>,
) -> StopReason {
    let mut existed = false;
    loop {
        let reason = match &*cached.borrow_and_update() {
            CachedObject::Present(newer) => {
                existed = true;
                stop_reason(ctx, server, task, newer)
            }
            CachedObject::Absent if existed => Some(StopReason::LockLost("the Server was deleted".to_owned())),
            CachedObject::Absent | CachedObject::Undecodable => None,
        };
        if let Some(reason) = reason {
            return reason;
        }
        if cached.changed().await.is_err() {
            // The cache has ended: only renewals show whether this process still holds the lock.
            std::future::pending::<()>().await;
        }
    }
}

/// Why this process should stop, according to a newer version of the Server.
fn stop_reason(ctx: &Context, claimed: &Server, task: &Task, newer: &Server) -> Option<StopReason> {
    if !newer.is_same_object(claimed) {
        return Some(StopReason::LockLost("the Server was deleted and another one has its name".to_owned()));
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
        return Some(StopReason::LockLost(format!("{} has taken the lock", lock.holder)));
    }
    match status.tasks.iter().find(|t| t.id == task.id) {
        Some(now) if !now.phase.is_finished() => None,
        Some(now) => Some(StopReason::Cancelled(format!("the task is {:?}: {}", now.phase, now.message))),
        None => Some(StopReason::Cancelled("the task no longer exists".to_owned())),
    }
}
