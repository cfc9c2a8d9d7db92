//! One look at a Server for its tasks: claims, carries out and reports one after another.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Executor, Server, Task, TaskKind, TaskPhase},
    protocol::StatusWrite,
};
use berth_runtime::{Backoff, CallError as Error, Done, Ran, until};
use kube::{ResourceExt as _, runtime::controller::Action};
use tokio_util::sync::CancellationToken;

use super::{
    Servers,
    plan::{FIRST_TASK, Step},
};
use crate::{
    iaas::ClassProblem,
    work::{self, Finished, Place, find_place},
};

/// Between two looks at a Server whose class is configured wrongly; a change of the class is seen at once, that of a
/// Secret only by this.
const UNUSABLE: Backoff = Backoff::new(Duration::from_mins(1), Duration::from_mins(1));
/// Between two looks at a Server whose provider cannot be reached.
const UNAVAILABLE: Backoff = Backoff::new(Duration::from_secs(8), Duration::from_secs(8));

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
            let place = match find_place(&self.classes, &server, task.kind).await {
                Ok(place) => place,
                Err(problem) => break Self::unusable(&server, &problem),
            };
            match self.carry_out(&server, &task, place.as_ref()).await? {
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

    /// The machine's provider cannot be used: nothing is claimed and no attempt counted.
    fn unusable(server: &Server, problem: &ClassProblem) -> Action {
        let (server, reason) = (server.name_any(), problem.reason);
        tracing::debug!(server, reason, problem = problem.message, "nothing is claimed");
        let again = if problem.is_temporary { UNAVAILABLE } else { UNUSABLE };
        Action::requeue(again.delay(1))
    }

    async fn carry_out(&self, server: &Server, task: &Task, place: Option<&Place>) -> Result<Ran, Error> {
        let _at_work = self.begin_work(server);
        let kind = task.kind;
        let work = |server: Arc<Server>, cancel: CancellationToken| async move {
            done(work::carry_out(&self.tools, &server, place, kind, &cancel).await)
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
