//! One reconcile of a Server: carries out its DeployApp task when the task's turn has come.

use std::sync::Arc;

use berth_core::api::{Executor, Server, TaskPhase};
use berth_machine::Connector;
use berth_runtime::{ApiError, Context, ServerCache, TaskRun, TaskRunner};
use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use crate::{
    content::LOOK_INTERVAL,
    deploy_app::deploy,
    references::{self, AppValues},
};

/// Carries out the tasks of deployment-controller.
pub(crate) struct DeployTasks {
    ctx: Context,
    connector: Arc<dyn Connector>,
    runner: TaskRunner,
    servers: ServerCache,
}

impl DeployTasks {
    /// Carries out tasks of the Servers in this cache, on machines that `connector` reaches.
    pub(crate) fn new(ctx: &Context, connector: Arc<dyn Connector>, servers: &ServerCache) -> Self {
        Self { ctx: ctx.clone(), connector, runner: TaskRunner::new(ctx, servers), servers: servers.clone() }
    }

    /// Carries out the Server's open task, if it has one.
    pub(crate) async fn reconcile(&self, server: &Server) -> Result<Action, ApiError> {
        let Some(task) = server.open_tasks(Executor::DeploymentController).min_by_key(|task| task.id) else {
            return Ok(Action::await_change());
        };
        if let Some(wait) = self.ctx.turns.wait(server) {
            return Ok(Action::requeue(wait));
        }
        let values = match &server.spec.app {
            Some(app) => references::resolve(&self.ctx.client, server.namespace(), app).await?,
            None => Ok(AppValues::default()),
        };
        if let Err(missing) = &values
            && task.phase == TaskPhase::Pending
            && task.message == *missing
        {
            // The task says so already: nothing is claimed or written until something has changed.
            return Ok(Action::requeue(LOOK_INTERVAL));
        }
        let work = |server: Arc<Server>, cancel: CancellationToken| async move {
            deploy(self.connector.as_ref(), &server, values, self.ctx.clock.now(), &cancel).await
        };
        let run = self.runner.run(server, task, work).await?;
        if let TaskRun::Reported(written) = &run {
            self.ctx.publish_if_failed(written, task.id);
            // A reconcile of an older version would find the task open and claim it, which the webhook would refuse.
            self.servers.catch_up_with(written).await;
        }
        Ok(run.action())
    }
}
