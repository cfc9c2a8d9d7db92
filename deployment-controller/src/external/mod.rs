//! The task DeployApp, carried out by a deploy system: see `docs/executor.openapi.yaml`.
//!
//! `contract` has what is said, `system` says it, `follow` is one attempt, `judge` what a job says about it, and `left` ends what nobody
//! follows any more.

mod contract;
mod follow;
mod judge;
mod left;
mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tls_tests;

use std::sync::Arc;

use berth_core::{
    api::{Outcome, Server, Task},
    protocol::{StatusWrite, TaskResult},
};
use berth_runtime::{Backoff, CachedObject, Context, ServerCache};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{
    contract::JobRequest,
    follow::{Attempt, Limits},
};
pub(crate) use self::{left::left_job, system::DeploySystem};

/// Has the deploy system deploy the Server's application. If there is none that may be used, nothing is done.
pub(crate) async fn deploy(
    ctx: &Context,
    servers: &ServerCache,
    system: Result<DeploySystem, String>,
    server: Arc<Server>,
    task: i64,
    cancel: &CancellationToken,
) -> TaskResult {
    let system = match system {
        Ok(system) => system,
        Err(unusable) => return TaskResult::waiting(unusable),
    };
    let Some(task) = server.task(task) else { return TaskResult::retry("the task no longer exists") };
    let limit = i32::try_from(system.job_limit.as_secs()).unwrap_or(i32::MAX);
    let request = match contract::request(&server, task.id, task.attempts, limit) {
        Ok(request) => request,
        Err(problem) => return TaskResult::failed(problem),
    };
    let ((words, said), superseded) = (watch::channel(String::new()), CancellationToken::new());
    let attempt = Attempt::new(&system, &request, Limits::default(), ctx.clock.as_ref(), &words, &superseded);
    tokio::select! {
        biased;
        () = cancel.cancelled() => attempt.stop(is_wanted(servers, &server, task)).await,
        result = attempt.carry_out() => result,
        () = announce(ctx, &server, task, said) => TaskResult::retry("the words of the job have ended"),
        () = watch_declaration(servers, &server, &request, &superseded) => TaskResult::retry("the cache has ended"),
    }
}

/// Writes into the task where its job is, whenever there is something new. Never returns.
async fn announce(ctx: &Context, server: &Server, task: &Task, mut said: watch::Receiver<String>) {
    while said.changed().await.is_ok() {
        let mut failures = 0;
        loop {
            let words = said.borrow_and_update().clone();
            let report = ctx.report(server, task, Outcome::Running, words);
            let write = StatusWrite::new(server).report(report).as_holder(&ctx.holder, server.lock());
            match ctx.write_status(server, write).await {
                Err(error) if error.is_unavailable() => failures += 1,
                Err(error) => {
                    tracing::debug!(task = task.id, %error, "where the job is was not written");
                    break;
                }
                Ok(_) => break,
            }
            sleep(Backoff::CALL.delay(failures)).await;
        }
    }
    std::future::pending::<()>().await;
}

/// Cancels the token when the Server declares something else than what was asked for. A task that runs is not cancelled by that: it
/// only counts no more. Never returns.
async fn watch_declaration(
    servers: &ServerCache,
    server: &Server,
    request: &JobRequest,
    superseded: &CancellationToken,
) {
    let mut cached = servers.follow(server);
    let is_superseded = |newest: &Server| {
        let same = contract::request(newest, request.task, request.attempt, request.timeout_seconds);
        let is_newer = newest.metadata.generation > server.metadata.generation;
        let class = |server: &Server| server.spec.app.as_ref().and_then(|app| app.deploy_class().map(str::to_owned));
        is_newer && (same.as_ref() != Ok(request) || class(newest) != class(server))
    };
    // An error says that the cache has ended.
    let found =
        cached.wait_for(|known| matches!(known, CachedObject::Present(newest) if is_superseded(newest))).await.is_ok();
    if found {
        superseded.cancel();
    }
    std::future::pending::<()>().await;
}

/// Whether the task is still to be done, as far as the cache knows: a process that only ends, or has lost its lock, leaves the job to
/// the next one.
fn is_wanted(servers: &ServerCache, server: &Server, task: &Task) -> bool {
    match &*servers.follow(server).borrow() {
        CachedObject::Present(newest) => {
            newest.is_same_object(server) && newest.task(task.id).is_some_and(|task| !task.phase.is_finished())
        }
        CachedObject::Absent => false,
        CachedObject::Undecodable => true,
    }
}
