//! The reconcile of a Server for its tasks: claims, carries out and reports one after another.

use std::sync::Arc;

use berth_core::api::{Server, Task, TaskKind, TaskPhase};
use berth_runtime::{ApiError, TaskRun, requeue_after};
use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use super::{
    plan::{FIRST_TASK, NextAction},
    reconciler::ServerReconciler,
    tasks::{self, TaskResources},
};

impl ServerReconciler {
    /// Carries out the Server's tasks for as long as one follows another.
    ///
    /// # Errors
    /// When a call of the API server fails.
    pub async fn run_tasks(&self, server: Arc<Server>) -> Result<Action, ApiError> {
        let (mut server, mut has_reported) = (server, false);
        let mut kept: Option<TaskResources> = None;
        let action = loop {
            let task = match self.next_action(&server, false) {
                NextAction::ClaimFirstTask => first_task(),
                NextAction::RunTask(task) => task,
                NextAction::RequeueAt(at) => break Action::requeue(requeue_after(at, self.ctx.clock.now())),
                _ => break Action::await_change(),
            };
            if !has_reported && let Some(wait) = self.ctx.turns.wait(&*server) {
                break Action::requeue(wait);
            }
            if task.kind == TaskKind::CreateMachine
                && let Some(wait) = self.wait_for_class(&server)
            {
                break Action::requeue(wait);
            }
            // A task that was claimed or handed over with the last report begins at once, in the slot of the task before it.
            let is_next = |kept: &TaskResources| task.phase == TaskPhase::Running && kept.suffice_for(task.kind);
            let resources = match kept.take().filter(is_next) {
                Some(resources) => resources,
                // Boxed here and below, because thousands of Servers may be in this function while they wait for a slot.
                None => match Box::pin(tasks::acquire(&self.classes, &server, task.kind)).await {
                    Ok(resources) => resources,
                    Err(wait) => break Action::requeue(wait),
                },
            };
            match Box::pin(self.run_task(&server, &task, &resources)).await? {
                TaskRun::Reported(newer) => {
                    self.ctx.publish_if_failed(&newer, task.id);
                    (server, has_reported, kept) = (newer, true, Some(resources));
                }
                run => break run.action(),
            }
        };
        drop(kept);
        if has_reported {
            // A reconcile of an older version would only claim what is done, and be refused.
            self.cache.catch_up_with(&server).await;
        }
        Ok(action)
    }

    async fn run_task(&self, server: &Server, task: &Task, resources: &TaskResources) -> Result<TaskRun, ApiError> {
        let _running = self.running.begin(server);
        let kind = task.kind;
        let work = |server: Arc<Server>, cancel: CancellationToken| async move {
            tasks::carry_out(&self.tasks, &server, kind, resources, &cancel).await
        };
        let facts = resources.facts_of_claim(server, kind);
        self.runner.run_with_facts(server, task, &facts, work).await
    }
}

/// The task that the first decision about a new Server creates: see [`NextAction::ClaimFirstTask`].
fn first_task() -> Task {
    Task {
        id: FIRST_TASK,
        kind: TaskKind::CreateMachine,
        gate: None,
        step: 1,
        phase: TaskPhase::Pending,
        digest: String::new(),
        attempts: 0,
        not_before: None,
        started_at: None,
        finished_at: None,
        message: String::new(),
    }
}
