//! One reconcile of a Server: carries out its DeployApp task when the task's turn has come, by SSH or by a deploy system.

use std::sync::Arc;

use berth_core::{
    api::{Executor, Server, Task, TaskPhase},
    protocol::TaskResult,
};
use berth_machine::Connector;
use berth_runtime::{ApiError, Context, ServerCache, TaskRun, TaskRunner};
use kube::runtime::controller::Action;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    content::LOOK_INTERVAL,
    deploy_app::deploy,
    external::{self, DeploySystem},
    references::{self, AppValues},
};

/// Jobs of deploy systems that are followed at the same time: a job costs a request every few seconds, and a slow deploy system must
/// not hold up others, nor what Berth deploys itself.
const MOST_JOBS: u16 = 4096;

/// Carries out the tasks of deployment-controller.
pub(crate) struct DeployTasks {
    ctx: Context,
    connector: Arc<dyn Connector>,
    runner: TaskRunner,
    servers: ServerCache,
    /// One permission for each machine that Berth works on at the same time.
    slots: Semaphore,
}

/// Who deploys, with what it needs; or what is missing.
enum Way {
    Ssh(Result<AppValues, String>),
    External(Result<DeploySystem, String>),
}

impl Way {
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Ssh(values) => values.as_ref().err(),
            Self::External(system) => system.as_ref().err(),
        }
        .map(String::as_str)
    }
}

impl DeployTasks {
    /// Carries out tasks of the Servers in this cache, on machines that `connector` reaches, `concurrency` at the same time.
    pub(crate) fn new(ctx: &Context, connector: Arc<dyn Connector>, servers: &ServerCache, concurrency: u16) -> Self {
        Self {
            ctx: ctx.clone(),
            connector,
            runner: TaskRunner::new(ctx, servers),
            servers: servers.clone(),
            slots: Semaphore::new(usize::from(concurrency)),
        }
    }

    /// How many Servers have to be reconciled at the same time for these permissions.
    pub(crate) fn most_reconciles(&self) -> u16 {
        u16::try_from(self.slots.available_permits()).unwrap_or(u16::MAX).saturating_add(MOST_JOBS)
    }

    /// Carries out the Server's open task, if it has one. Before that, it ends a job that nobody follows any more.
    pub(crate) async fn reconcile(&self, server: &Server) -> Result<Action, ApiError> {
        let task = server.open_tasks(Executor::DeploymentController).min_by_key(|task| task.id);
        let left = external::left_job(server);
        if task.is_none() && left.is_none() {
            return Ok(Action::await_change());
        }
        if let Some(wait) = self.ctx.turns.wait(server) {
            return Ok(Action::requeue(wait));
        }
        if let Some(left) = left {
            let look_again = left.end(&self.ctx, &self.servers, server).await?;
            if task.is_none() || left.is_locked(&self.ctx) {
                return Ok(look_again.map_or_else(Action::await_change, Action::requeue));
            }
        }
        let Some(task) = task else { return Ok(Action::await_change()) };
        self.carry_out(server, task).await
    }

    async fn carry_out(&self, server: &Server, task: &Task) -> Result<Action, ApiError> {
        let class = server.spec.app.as_ref().and_then(|app| app.deploy_class());
        // The semaphore is never closed.
        let _slot = if class.is_none() { self.slots.acquire().await.ok() } else { None };
        let way = self.way(server, class).await?;
        if let Some(missing) = way.missing()
            && task.phase == TaskPhase::Pending
            && task.message == missing
        {
            // The task says so already: nothing is claimed or written until something has changed.
            return Ok(Action::requeue(LOOK_INTERVAL));
        }
        let work = |server: Arc<Server>, cancel: CancellationToken| self.work(way, server, task, cancel);
        let run = self.runner.run(server, task, work).await?;
        if let TaskRun::Reported(written) = &run {
            self.ctx.publish_if_failed(written, task.id);
            // A reconcile of an older version would find the task open and claim it, which the webhook would refuse.
            self.servers.catch_up_with(written).await;
        }
        Ok(run.action())
    }

    async fn way(&self, server: &Server, class: Option<&str>) -> Result<Way, ApiError> {
        let (client, namespace) = (&self.ctx.client, server.namespace());
        Ok(match (&server.spec.app, class) {
            (_, Some(class)) => Way::External(DeploySystem::of_class(client, class, namespace).await?),
            (Some(app), None) => Way::Ssh(references::resolve(client, namespace, app).await?),
            (None, None) => Way::Ssh(Ok(AppValues::default())),
        })
    }

    async fn work(&self, way: Way, server: Arc<Server>, task: &Task, cancel: CancellationToken) -> TaskResult {
        match way {
            Way::Ssh(values) => deploy(self.connector.as_ref(), &server, values, self.ctx.clock.now(), &cancel).await,
            Way::External(system) => external::deploy(&self.ctx, &self.servers, system, server, task.id, &cancel).await,
        }
    }
}
