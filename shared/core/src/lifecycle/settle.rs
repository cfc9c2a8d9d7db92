//! Carrying a decision out: the change of state and the task list that follows from it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    decide::{Decision, decide},
    facts, force,
    plan::{Planned, plan},
    tasks::{current_tasks, fits},
    trust,
};
use crate::api::{Server, ServerStatus, State, Task, TaskKind, TaskPhase, Transition};

/// Changes of state that are remembered.
const TRANSITIONS: usize = 10;
/// Finished tasks that are remembered, beyond those that still matter.
const FINISHED: usize = 10;

/// Decides, and brings state and tasks up to date. Doing it again changes nothing.
pub(super) fn settle(server: &mut Server, author: &str, now: Timestamp) {
    let again = force::refresh(server);
    let retry = observe_retry(server) || again;
    let decision = decide(server);
    if facts::status(server).state != Some(decision.state) {
        enter(server, &decision, author, now);
    }
    drop_pointless_reboot(server, decision.state);
    let plan = plan(server, decision.state);
    let status = server.status.get_or_insert_default();
    cancel_unwanted(status, &plan, now);
    append_missing(status, &plan, retry);
    forget_old(status);
}

/// Whether there is a retry that was not carried out yet; from now on it was.
fn observe_retry(server: &mut Server) -> bool {
    let Some(id) = server.spec.retry.as_ref().map(|retry| retry.id.clone()) else {
        return false;
    };
    let status = server.status.get_or_insert_default();
    if status.observed_retry.as_ref() == Some(&id) {
        return false;
    }
    status.observed_retry = Some(id);
    true
}

/// A reboot is for a machine that cannot be reached. A request at another time must not wait for such a time.
fn drop_pointless_reboot(server: &mut Server, state: State) {
    if state == State::Unknown && facts::unreachable(server) {
        return;
    }
    let id = server.spec.reboot.as_ref().map(|request| request.id.clone());
    if let Some(status) = server.status.as_mut().filter(|_| id.is_some()) {
        status.observed_reboot = id;
    }
}

fn enter(server: &mut Server, decision: &Decision, author: &str, now: Timestamp) {
    let status = server.status.get_or_insert_default();
    let from = status.state;
    let left = from.map_or_else(String::new, |state| format!("the Server left {state}"));
    for task in status.tasks.iter_mut().filter(|task| !task.phase.is_finished()) {
        cancel(task, &left, now);
    }
    if from == Some(State::Unknown) {
        trust::withdraw(status);
    }
    status.first_task_id = Some(status.last_task_id.unwrap_or(0) + 1);
    status.state = Some(decision.state);
    status.state_since = Some(Time(now));
    status.transitions.push(Transition {
        from,
        to: decision.state,
        at: Time(now),
        reason: decision.reason.clone(),
        author: author.to_owned(),
    });
    let excess = status.transitions.len().saturating_sub(TRANSITIONS);
    status.transitions.drain(..excess);
}

fn cancel(task: &mut Task, why: &str, now: Timestamp) {
    task.phase = TaskPhase::Cancelled;
    task.finished_at = Some(Time(now));
    task.not_before = None;
    why.clone_into(&mut task.message);
}

/// Cancels the unfinished tasks that the plan does not ask for. A running task that has the machine in hand goes on
/// when the plan asks for its kind: what it leaves behind is looked at when it is done.
fn cancel_unwanted(status: &mut ServerStatus, plan: &[Planned], now: Timestamp) {
    let first = status.first_task_id.unwrap_or(1);
    for task in status.tasks.iter_mut().filter(|task| task.id >= first && !task.phase.is_finished()) {
        match plan.iter().find(|planned| task.kind == planned.kind && task.gate == planned.gate) {
            Some(planned) if task.digest == planned.digest => task.step = planned.step,
            Some(planned) if task.phase == TaskPhase::Running && task.kind.needs_lock() => task.step = planned.step,
            Some(planned) if is_untouched(task) => {
                task.step = planned.step;
                task.digest.clone_from(&planned.digest);
            }
            _ => cancel(task, "no longer needed", now),
        }
    }
}

/// Whether nobody has begun the task, so that it can just as well carry out a newer declaration. A gate cannot: a
/// person may be looking at it.
fn is_untouched(task: &Task) -> bool {
    task.phase == TaskPhase::Pending && task.attempts == 0 && task.kind != TaskKind::Gate
}

fn append_missing(status: &mut ServerStatus, plan: &[Planned], retry: bool) {
    for planned in plan {
        if is_provided_for(status, planned, retry) {
            continue;
        }
        let id = status.last_task_id.unwrap_or(0) + 1;
        status.last_task_id = Some(id);
        status.tasks.push(Task {
            id,
            kind: planned.kind,
            gate: planned.gate,
            step: planned.step,
            executor: planned.kind.executor(),
            phase: TaskPhase::Pending,
            digest: planned.digest.clone(),
            attempts: 0,
            not_before: None,
            started_at: None,
            finished_at: None,
            message: String::new(),
        });
    }
}

/// Whether the list has a task for this already: one that is not finished, a gate that was passed, or a failure that
/// nobody asked to try again.
fn is_provided_for(status: &ServerStatus, planned: &Planned, retry: bool) -> bool {
    let unfinished =
        current_tasks(status).any(|t| t.kind == planned.kind && t.gate == planned.gate && !t.phase.is_finished());
    unfinished
        || current_tasks(status).rfind(|task| fits(task, planned)).is_some_and(|task| match task.phase {
            TaskPhase::Failed => !retry,
            TaskPhase::Succeeded => task.kind == TaskKind::Gate,
            _ => false,
        })
}

/// Forgets finished tasks, the oldest first, but for the current state's gates and failures, which still count.
fn forget_old(status: &mut ServerStatus) {
    let first = status.first_task_id.unwrap_or(1);
    let matters = |task: &Task| {
        !task.phase.is_finished()
            || (task.id >= first && (task.kind == TaskKind::Gate || task.phase == TaskPhase::Failed))
    };
    let mut excess = status.tasks.iter().filter(|task| !matters(task)).count().saturating_sub(FINISHED);
    status.tasks.retain(|task| {
        let forget = excess > 0 && !matters(task);
        excess -= usize::from(forget);
        !forget
    });
}
