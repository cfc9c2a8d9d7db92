//! Applying a decision: the change of state, and the task list that follows from it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    decide::decide,
    decision::Decision,
    force,
    plan::{Planned, plan},
    trust,
};
use crate::api::{Server, ServerStatus, State, Task, TaskKind, TaskPhase, Transition};

/// How many finished tasks of the state, and gates of earlier ones, are kept beyond those that still count.
const FINISHED: usize = 10;
/// How many refused gates of earlier states are kept: a refusal holds for its content until a person decides otherwise.
/// Refusals are rare, so ten are enough, and objects stay small.
const REFUSALS: usize = 10;

/// Decides, and brings state and tasks up to date. Idempotent.
pub(super) fn apply_decision(server: &mut Server, author: &str, now: Timestamp) {
    let is_forced_retry = force::observe(server);
    if let Some(status) = &mut server.status {
        status.convert_transitions();
    }
    let is_requested = observe_retry(server);
    if is_requested {
        distrust_sick_machine(server);
    }
    let retry = is_requested || is_forced_retry;
    let decision = decide(server);
    if server.known_status().state != Some(decision.state) {
        enter(server, &decision, author, now);
    }
    drop_needless_reboot(server, decision.state);
    let plan = plan(server, decision.state);
    let status = server.status.get_or_insert_default();
    cancel_unplanned(status, &plan, now);
    append_missing(status, &plan, retry);
    drop_old_tasks(status);
    record_left_tasks(status);
}

/// Whether there is a new request to retry, and records it as carried out.
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

/// Lets everything be read back before a failed CheckHealth is tried again. What was deployed may be gone, for example with an older
/// disk: then health fails however often it is only looked at.
fn distrust_sick_machine(server: &mut Server) {
    let Some(status) = &mut server.status else { return };
    let last = status.current_tasks().rfind(|task| task.kind == TaskKind::CheckHealth);
    if last.is_some_and(|task| task.phase == TaskPhase::Failed) {
        trust::distrust_all(status);
    }
}

/// Drops a request for a reboot while the machine is reachable: it must not take effect at some later outage.
fn drop_needless_reboot(server: &mut Server, state: State) {
    if state == State::Unknown && server.machine_unreachable() {
        return;
    }
    let id = server.spec.reboot.as_ref().map(|request| request.id.clone());
    if let Some(status) = server.status.as_mut().filter(|_| id.is_some()) {
        status.observed_reboot = id;
    }
}

/// Enters another state: cancels the tasks of the old one and records the transition.
fn enter(server: &mut Server, decision: &Decision, author: &str, now: Timestamp) {
    let status = server.status.get_or_insert_default();
    let from = status.state;
    let reason = from.map_or_else(String::new, |state| format!("the Server left {state}"));
    for task in status.tasks.iter_mut().filter(|task| !task.phase.is_finished()) {
        cancel(task, &reason, now);
    }
    if from == Some(State::Unknown) {
        trust::distrust_all(status);
    }
    status.first_task_id = Some(status.last_task_id.unwrap_or(0).saturating_add(1));
    status.state = Some(decision.state);
    status.state_since = Some(Time(now));
    record_left_tasks(status);
    status.record_transition(&Transition {
        from,
        to: decision.state,
        at: Time(now),
        reason: decision.reason.clone(),
        author: author.to_owned(),
    });
}

/// Moves the finished tasks of states that were left into the history: nothing follows from them any more. Gates stay, because a
/// person's decision counts in later passes, too; so does a task whose holder has not released the lock yet.
fn record_left_tasks(status: &mut ServerStatus) {
    let (first, locked) = (status.first_task_id.unwrap_or(1), status.lock.as_ref().map(|lock| lock.task_id));
    let is_left = |task: &Task| {
        task.id < first && task.phase.is_finished() && task.kind != TaskKind::Gate && Some(task.id) != locked
    };
    let (left, kept): (Vec<Task>, Vec<Task>) = std::mem::take(&mut status.tasks).into_iter().partition(is_left);
    status.tasks = kept;
    for task in &left {
        status.record_task(task);
    }
}

fn cancel(task: &mut Task, reason: &str, now: Timestamp) {
    task.phase = TaskPhase::Cancelled;
    task.finished_at = Some(Time(now));
    task.not_before = None;
    reason.clone_into(&mut task.message);
}

/// Cancels the unfinished tasks that the plan does not contain. A task that runs under the lock goes on if the plan contains its
/// kind: its result is compared with the declaration when it is reported.
fn cancel_unplanned(status: &mut ServerStatus, plan: &[Planned], now: Timestamp) {
    let first = status.first_task_id.unwrap_or(1);
    for task in status.tasks.iter_mut().filter(|task| task.id >= first && !task.phase.is_finished()) {
        match plan.iter().find(|planned| task.kind == planned.kind && task.gate == planned.gate) {
            Some(planned) if task.digest == planned.digest => task.step = planned.step,
            Some(planned) if task.phase == TaskPhase::Running && task.kind.needs_lock() => task.step = planned.step,
            Some(planned) if can_be_redirected(task) => {
                task.step = planned.step;
                task.digest.clone_from(&planned.digest);
            }
            _ => cancel(task, "no longer needed", now),
        }
    }
}

/// Whether the task was never begun, so that it can carry out a newer declaration instead. A gate cannot: a person may be about
/// to decide on the declaration that it shows.
fn can_be_redirected(task: &Task) -> bool {
    task.phase == TaskPhase::Pending && task.attempts == 0 && task.kind != TaskKind::Gate
}

/// Appends the planned tasks that the list does not cover yet.
fn append_missing(status: &mut ServerStatus, plan: &[Planned], retry: bool) {
    for planned in plan {
        if is_covered(status, planned, retry) {
            continue;
        }
        let id = status.last_task_id.unwrap_or(0).saturating_add(1);
        let task = match refusal(status, planned).filter(|_| !retry) {
            Some(refused) => Task { id, step: planned.step, ..refused.clone() },
            None => new_task(id, planned),
        };
        status.last_task_id = Some(id);
        status.tasks.push(task);
    }
}

fn new_task(id: i64, planned: &Planned) -> Task {
    Task {
        id,
        kind: planned.kind,
        gate: planned.gate,
        step: planned.step,
        phase: TaskPhase::Pending,
        digest: planned.digest.clone(),
        attempts: 0,
        not_before: None,
        started_at: None,
        finished_at: None,
        message: String::new(),
    }
}

/// The refusal of this gate with the same content in an earlier state, if no person has decided otherwise since. It still holds
/// when the Server enters the state again, because no person has decided anything new.
fn refusal<'a>(status: &'a ServerStatus, planned: &Planned) -> Option<&'a Task> {
    let last = status.tasks.iter().rfind(|task| planned.is_done_by(task))?;
    (last.kind == TaskKind::Gate && last.phase == TaskPhase::Failed).then_some(last)
}

/// Whether the list already covers the planned task: by an unfinished task, an approved gate, or a failure without a request to
/// retry.
fn is_covered(status: &ServerStatus, planned: &Planned, retry: bool) -> bool {
    let unfinished =
        status.current_tasks().any(|t| t.kind == planned.kind && t.gate == planned.gate && !t.phase.is_finished());
    unfinished
        || status.current_tasks().rfind(|task| planned.is_done_by(task)).is_some_and(|task| match task.phase {
            TaskPhase::Failed => !retry,
            TaskPhase::Succeeded => task.kind == TaskKind::Gate,
            _ => false,
        })
}

/// Drops the oldest finished tasks, but not gates and failures of the current state, which still count, and not the newest
/// refusals of earlier states.
fn drop_old_tasks(status: &mut ServerStatus) {
    let first = status.first_task_id.unwrap_or(1);
    let refused = newest_refusals(status);
    let counts = |task: &Task| {
        !task.phase.is_finished()
            || (task.id >= first && (task.kind == TaskKind::Gate || task.phase == TaskPhase::Failed))
            || refused.contains(&task.id)
    };
    let excess = status.tasks.iter().filter(|task| !counts(task)).count().saturating_sub(FINISHED);
    let dropped: Vec<i64> = status.tasks.iter().filter(|task| !counts(task)).take(excess).map(|task| task.id).collect();
    for id in dropped {
        if let Some(at) = status.tasks.iter().position(|task| task.id == id) {
            let task = status.tasks.remove(at);
            status.record_task(&task);
        }
    }
}

/// The gates whose last word is a refusal, one for each content, the newest first.
fn newest_refusals(status: &ServerStatus) -> Vec<i64> {
    let mut decided: Vec<&Task> = Vec::new();
    for gate in status.tasks.iter().rev().filter(|task| task.kind == TaskKind::Gate) {
        if !decided.iter().any(|newer| newer.gate == gate.gate && newer.digest == gate.digest) {
            decided.push(gate);
        }
    }
    let refused = decided.into_iter().filter(|gate| gate.phase == TaskPhase::Failed);
    refused.map(|gate| gate.id).take(REFUSALS).collect()
}
