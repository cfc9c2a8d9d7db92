//! Questions about a Server's task list.

use super::plan::{Planned, plan};
use crate::api::{Executor, Server, ServerStatus, State, Task, TaskKind, TaskPhase};

impl Server {
    /// The failed tasks that the Server still needs: it is stalled while there are any. A failure counts only for the part of the
    /// declaration that the task carried out, and only until the task is attempted again.
    #[must_use]
    pub fn blocking_failures(&self) -> Vec<&Task> {
        let status = self.known_status();
        match status.state {
            Some(state) if status.current_tasks().any(|task| task.phase == TaskPhase::Failed) => {
                failures(status, &plan(self, state))
            }
            _ => Vec::new(),
        }
    }

    /// The gates that were refused and still stop the Server. A person's later approval revises a refusal.
    pub fn refused_gates(&self) -> impl Iterator<Item = &Task> {
        self.blocking_failures().into_iter().filter(|failed| failed.kind == TaskKind::Gate)
    }

    /// Whether the task is open: unfinished, of the current state, with no unfinished or failed task before it.
    #[must_use]
    pub fn is_open(&self, task: &Task) -> bool {
        let status = self.known_status();
        let first = status.first_task_id.unwrap_or(1);
        task.id >= first
            && !task.phase.is_finished()
            && !status.current_tasks().any(|other| other.step < task.step && !other.phase.is_finished())
            && !self.blocking_failures().iter().any(|failed| failed.step < task.step)
    }

    /// The open tasks of this executor, including those whose `notBefore` has not come yet.
    pub fn open_tasks(&self, executor: Executor) -> impl Iterator<Item = &Task> {
        let tasks = self.known_status().current_tasks();
        tasks.filter(move |task| task.executor() == executor && self.is_open(task))
    }
}

/// The planned tasks whose last attempt failed.
fn failures<'a>(status: &'a ServerStatus, plan: &[Planned]) -> Vec<&'a Task> {
    plan.iter()
        .filter_map(|planned| status.current_tasks().rfind(|task| planned.is_done_by(task)))
        .filter(|task| task.phase == TaskPhase::Failed)
        .collect()
}

/// The state; Initializing before the first decision.
pub(super) fn state(status: &ServerStatus) -> State {
    status.state.unwrap_or(State::Initializing)
}
