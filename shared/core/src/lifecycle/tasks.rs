//! Reading a Server's task list.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    facts,
    plan::{Planned, plan},
};
use crate::api::{Executor, Lock, Server, ServerStatus, State, Task, TaskPhase};

/// The tasks of the current state.
#[must_use]
pub fn current_tasks(status: &ServerStatus) -> impl DoubleEndedIterator<Item = &Task> {
    let first = status.first_task_id.unwrap_or(1);
    status.tasks.iter().filter(move |task| task.id >= first)
}

/// The time before which the task must not begin.
#[must_use]
pub fn not_before(task: &Task) -> Option<Timestamp> {
    task.not_before.as_ref().map(|time| time.0)
}

/// Whether the lock no longer binds anybody.
#[must_use]
pub fn lock_expired(lock: &Lock, now: Timestamp) -> bool {
    now.duration_since(lock.renewed_at.0) > SignedDuration::from_secs(i64::from(lock.duration_seconds))
}

/// The failed tasks that stand in the way of what the Server needs now: it is stalled while there are any. A failure
/// counts only for the part of the declaration that it happened with, and not once the task was begun anew.
#[must_use]
pub fn blocking_failures(server: &Server) -> Vec<&Task> {
    let status = facts::status(server);
    match status.state {
        Some(state) if current_tasks(status).any(|t| t.phase == TaskPhase::Failed) => {
            failures(status, &plan(server, state))
        }
        _ => Vec::new(),
    }
}

pub(super) fn failures<'a>(status: &'a ServerStatus, plan: &[Planned]) -> Vec<&'a Task> {
    plan.iter()
        .filter_map(|planned| current_tasks(status).rfind(|task| fits(task, planned)))
        .filter(|task| task.phase == TaskPhase::Failed)
        .collect()
}

/// Whether the task does what is planned, for the same part of the declaration.
pub(super) fn fits(task: &Task, planned: &Planned) -> bool {
    task.kind == planned.kind && task.gate == planned.gate && task.digest == planned.digest
}

/// Whether the task's turn has come: unfinished, of the current state, and everything before it is done.
#[must_use]
pub fn is_open(server: &Server, task: &Task) -> bool {
    let status = facts::status(server);
    let first = status.first_task_id.unwrap_or(1);
    task.id >= first
        && !task.phase.is_finished()
        && !current_tasks(status).any(|other| other.step < task.step && !other.phase.is_finished())
        && !blocking_failures(server).iter().any(|failed| failed.step < task.step)
}

/// The tasks of this executor whose turn has come; `notBefore` is for the executor to wait for.
pub fn open_tasks(server: &Server, executor: Executor) -> impl Iterator<Item = &Task> {
    current_tasks(facts::status(server)).filter(move |task| task.executor == executor && is_open(server, task))
}

/// The state, or the one that a Server begins in.
pub(super) fn state(status: &ServerStatus) -> State {
    status.state.unwrap_or(State::Initializing)
}
