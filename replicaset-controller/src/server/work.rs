//! One look at a Server for its tasks: claims, carries out and reports one after another.

use std::sync::Arc;

use berth_core::{
    api::{Executor, Server, Task, TaskKind, TaskPhase},
    protocol::StatusWrite,
};
use berth_runtime::{CallError as Error, Done, Ran, until};
use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use super::{
    Servers,
    plan::{FIRST_TASK, Step},
};
use crate::work::{self, Finished};

impl Servers {
    /// Carries out the Server's tasks, for as long as one follows on another.
    pub async fn work(&self, server: Arc<Server>) -> Result<Action, Error> {
        let (mut server, mut reported) = (server, false);
        let action = loop {
            let (task, first) = match self.next(&server, false) {
                Step::Begin => (first_task(), true),
                Step::Work(task) => (task, false),
                Step::Wait(at) => break Action::requeue(until(at, self.ctx.clock.now())),
                _ => break Action::await_change(),
            };
            match self.carry_out(&server, &task).await? {
                Ran::Reported(newer) => {
                    self.report_failures(&server, &newer);
                    (server, reported) = (newer, true);
                }
                // The first decision was another one than foreseen: it is asked for without the claim.
                Ran::Stopped { .. } if first => {
                    break self.write(&server, StatusWrite::new(&server).acknowledge()).await?;
                }
                ran => break ran.action(),
            }
        };
        if reported {
            // A look at what was true before would only bring a claim that is refused.
            self.cache.caught_up(&server).await;
        }
        Ok(action)
    }

    async fn carry_out(&self, server: &Server, task: &Task) -> Result<Ran, Error> {
        let _at_work = self.begin_work(server);
        let kind = task.kind;
        let work = |server: Arc<Server>, cancel: CancellationToken| async move {
            let finished = work::carry_out(&self.tools, &server, self.class(&server), kind, &cancel).await;
            done(finished)
        };
        Ok(self.runner.run(server, task, work).await?)
    }
}

fn done(finished: Finished) -> Done {
    let (outcome, message, next) = (finished.outcome, finished.message.clone(), finished.next);
    let done = Done::new(outcome, message).with_facts(move |write| finished.clone().facts(write));
    match next {
        Some(next) => done.and_claim(next),
        None => done,
    }
}

/// The task that the first decision about a new Server brings about, see [`Step::Begin`].
fn first_task() -> Task {
    Task {
        id: FIRST_TASK,
        kind: TaskKind::CreateMachine,
        gate: None,
        step: 1,
        executor: Executor::ReplicasetController,
        phase: TaskPhase::Pending,
        digest: String::new(),
        attempts: 0,
        not_before: None,
        started_at: None,
        finished_at: None,
        message: String::new(),
    }
}
