//! One look at a Server: its DeployApp task, if its turn has come.

use std::sync::Arc;

use berth_core::{
    api::{Executor, Server, Task, TaskPhase},
    lifecycle::open_tasks,
};
use berth_machine::{fleet::Fleet, ssh::SshPool};
use berth_runtime::{CallError as Error, Context, Done, EventType, Ran, ServerCache, TaskRunner, reference};
use kube::{ResourceExt as _, runtime::controller::Action};
use tokio_util::sync::CancellationToken;

use crate::work::{self, Finished};

/// Carries out DeployApp.
pub struct Servers {
    ctx: Context,
    pool: SshPool,
    /// The machines that are simulated, if there are any.
    fleet: Option<Fleet>,
    runner: TaskRunner,
    cache: ServerCache,
}

impl Servers {
    /// With the Servers that this cache shows.
    #[must_use]
    pub fn new(ctx: &Context, pool: SshPool, fleet: Option<Fleet>, cache: &ServerCache) -> Self {
        Self { ctx: ctx.clone(), pool, fleet, runner: TaskRunner::new(ctx, cache), cache: cache.clone() }
    }

    /// Deploys, if that is to be done.
    pub async fn reconcile(&self, server: &Server) -> Result<Action, Error> {
        let Some(task) = open_tasks(server, Executor::DeploymentController).min_by_key(|task| task.id) else {
            return Ok(Action::await_change());
        };
        let work = |server: Arc<Server>, cancel: CancellationToken| async move {
            tokio::select! {
                finished = work::deploy(&self.pool, self.fleet.as_ref(), &server, self.ctx.clock.now()) => done(finished),
                () = cancel.cancelled() => Done::retry("stopped before it was done"),
            }
        };
        let ran = self.runner.run(server, task, work).await?;
        if let Ran::Reported(newer) = &ran {
            self.report_failure(task, newer);
            // A look at what was true before would only bring a claim that is refused.
            self.cache.caught_up(newer).await;
        }
        Ok(ran.action())
    }

    fn report_failure(&self, task: &Task, after: &Server) {
        let mut tasks = after.status.iter().flat_map(|s| &s.tasks);
        if let Some(failed) = tasks.find(|t| t.id == task.id && t.phase == TaskPhase::Failed) {
            let note = format!("{} (task {}): {}", failed.kind, failed.id, failed.message);
            tracing::warn!(server = after.name_any(), namespace = after.namespace(), note, "TaskFailed");
            self.ctx.events.publish(&reference(after), EventType::Warning, "TaskFailed", note);
        }
    }
}

fn done(finished: Finished) -> Done {
    let Finished { outcome, message, app } = finished;
    let done = Done::new(outcome, message);
    match app {
        Some(app) => done.with_facts(move |write| write.app(Some(app.clone()))),
        None => done,
    }
}
