//! One look at a Server for its tasks: claims, carries out and reports one after another.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Executor, Server, Task, TaskKind, TaskPhase},
    protocol::StatusWrite,
};
use berth_runtime::{CallError as Error, Done, Ran, until};
use kube::{ResourceExt as _, runtime::controller::Action};
use tokio_util::sync::CancellationToken;

use super::{
    Servers,
    plan::{FIRST_TASK, Step},
};
use crate::{
    iaas::Slot,
    work::{self, Finished, Place, Room, find_place},
};

/// What a task is carried out with.
struct Hold {
    /// Where the machine is made, if the task has to know.
    place: Option<Place>,
    /// Room in the class's bulkhead.
    slot: Slot,
}

impl Servers {
    /// Carries out the Server's tasks, for as long as one follows on another.
    pub async fn work(&self, server: Arc<Server>) -> Result<Action, Error> {
        let (mut server, mut reported) = (server, false);
        let mut kept: Option<Hold> = None;
        let action = loop {
            let (task, first) = match self.next(&server, false) {
                Step::Begin => (first_task(), true),
                Step::Work(task) => (task, false),
                Step::Wait(at) => break Action::requeue(until(at, self.ctx.clock.now())),
                _ => break Action::await_change(),
            };
            // A task that was claimed with the report before is begun at once, in the room that there is already.
            let hold = match kept.take().filter(|_| task.phase == TaskPhase::Running) {
                Some(hold) => hold,
                None => match Box::pin(self.enter(&server, task.kind)).await {
                    Ok(hold) => hold,
                    Err(wait) => break Action::requeue(wait),
                },
            };
            // In a box, so that a thousand Servers that look for room at once take up little.
            match Box::pin(self.carry_out(&server, &task, &hold)).await? {
                Ran::Reported(newer) => {
                    self.report_failures(&server, &newer);
                    (server, reported, kept) = (newer, true, Some(hold));
                }
                // The first decision was another one than foreseen: it is asked for without the claim.
                Ran::Stopped { .. } if first => {
                    break Box::pin(self.write(&server, StatusWrite::new(&server).acknowledge())).await?;
                }
                ran => break ran.action(),
            }
        };
        drop(kept);
        if reported {
            // A look at what was true before would only bring a claim that is refused.
            self.cache.caught_up(&server).await;
        }
        Ok(action)
    }

    /// What the task needs, before anything is claimed: a class that can be used, and room. Or when to look again.
    async fn enter(&self, server: &Server, kind: TaskKind) -> Result<Hold, Duration> {
        let mut place = find_place(&self.classes, server, kind).await;
        if let Err(problem) = &place {
            let wait = self.classes.wait(server, problem);
            // The answer that it waits for may have come before it was entered among those who wait.
            place = find_place(&self.classes, server, kind).await;
            if let Err(problem) = &place {
                let (server, reason) = (server.name_any(), problem.reason);
                tracing::debug!(server, reason, problem = problem.message, "nothing is claimed");
                return Err(wait);
            }
        }
        let slot = self.classes.enter(server, kind)?;
        Ok(Hold { place: place.ok().flatten(), slot })
    }

    async fn carry_out(&self, server: &Server, task: &Task, hold: &Hold) -> Result<Ran, Error> {
        let _at_work = self.begin_work(server);
        let kind = task.kind;
        let work = |server: Arc<Server>, cancel: CancellationToken| async move {
            let finished = work::carry_out(&self.tools, &server, hold.place.as_ref(), kind, &cancel).await;
            match finished.room {
                Some(Room::None) => hold.slot.found_full(),
                Some(Room::Some) => hold.slot.found_room(),
                None => {}
            }
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
