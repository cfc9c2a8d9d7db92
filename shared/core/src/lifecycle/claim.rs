//! Claims: taking, renewing and releasing a Server's lock.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    facts, guard,
    refusal::{Refusal, RefusalReason},
    tasks::{is_open, lock_expired},
};
use crate::api::{Claim, Executor, Lock, MachineFact, MachinePhase, Server, Task, TaskKind, TaskPhase};

/// Carries a claim out.
pub(super) fn carry_out(server: &mut Server, claim: &Claim, executor: Executor, now: Timestamp) -> Result<(), Refusal> {
    guard::check_holder(&claim.holder, executor, "status.claim.holder")?;
    if claim.duration_seconds < 0 {
        let message = "must be at least 1, or 0 to release the lock";
        return Err(Refusal::new(RefusalReason::Malformed, "status.claim.durationSeconds", message));
    }
    if claim.duration_seconds == 0 {
        release(server, claim);
        return Ok(());
    }
    if holds(server, claim) {
        renew(server, claim, now);
        return Ok(());
    }
    check(server, claim, executor, now)?;
    take(server, claim, now);
    Ok(())
}

fn holds(server: &Server, claim: &Claim) -> bool {
    let status = facts::status(server);
    status.lock.as_ref().is_some_and(|lock| lock.holder == claim.holder && lock.task_id == claim.task_id)
        && find(server, claim.task_id).is_some_and(|task| task.phase == TaskPhase::Running)
}

fn find(server: &Server, id: i64) -> Option<&Task> {
    facts::status(server).tasks.iter().find(|task| task.id == id)
}

fn renew(server: &mut Server, claim: &Claim, now: Timestamp) {
    if let Some(lock) = server.status.as_mut().and_then(|s| s.lock.as_mut()) {
        lock.renewed_at = Time(now);
        lock.duration_seconds = claim.duration_seconds;
    }
}

/// Releases the lock, if it is the claim's holder's. A task that was not finished waits for its next attempt.
fn release(server: &mut Server, claim: &Claim) {
    let Some(status) = server.status.as_mut() else { return };
    if let Some(lock) = status.lock.take_if(|lock| lock.holder == claim.holder)
        && let Some(task) =
            status.tasks.iter_mut().find(|task| task.id == lock.task_id && task.phase == TaskPhase::Running)
    {
        task.phase = TaskPhase::Pending;
    }
}

fn check(server: &Server, claim: &Claim, executor: Executor, now: Timestamp) -> Result<(), Refusal> {
    let refuse = |reason, message: String| Err(Refusal::new(reason, "status.claim.taskID", message));
    let id = claim.task_id;
    let Some(task) = find(server, id) else {
        return refuse(RefusalReason::UnknownTask, format!("there is no task {id}"));
    };
    if task.executor != executor {
        let message = format!("task {id} ({}) belongs to {}, not to {executor}", task.kind, task.executor);
        return refuse(RefusalReason::WrongExecutor, message);
    }
    if !task.kind.needs_lock() {
        return refuse(RefusalReason::Malformed, format!("task {id} ({}) needs no claim: report on it", task.kind));
    }
    if let Some(lock) = &facts::status(server).lock
        && lock.holder != claim.holder
        && !lock_expired(lock, now)
    {
        let message = format!("the Server is in the hands of {} (task {})", lock.holder, lock.task_id);
        return refuse(RefusalReason::Locked, message);
    }
    if !is_open(server, task) {
        let message = format!("task {id} ({}) is {:?}, or tasks before it are not done", task.kind, task.phase);
        return refuse(RefusalReason::NotOpen, message);
    }
    match task.not_before.as_ref().filter(|time| time.0 > now) {
        Some(time) => refuse(RefusalReason::NotOpen, format!("task {id} ({}) waits until {}", task.kind, time.0)),
        None => Ok(()),
    }
}

fn take(server: &mut Server, claim: &Claim, now: Timestamp) {
    let Some(status) = server.status.as_mut() else { return };
    let mut kind = None;
    if let Some(task) = status.tasks.iter_mut().find(|task| task.id == claim.task_id) {
        kind = Some(task.kind);
        task.phase = TaskPhase::Running;
        task.attempts += 1;
        task.not_before = None;
        task.started_at.get_or_insert(Time(now));
    }
    match kind {
        Some(TaskKind::CreateMachine) if !facts::machine_may_exist(status) => {
            status.machine = Some(MachineFact {
                phase: MachinePhase::Creating,
                id: None,
                address: None,
                ssh: None,
                boot_id: None,
                created_at: None,
            });
        }
        // Whether it still runs is not known from now on, should the retirement be taken back.
        Some(TaskKind::DestroyMachine) => {
            if let Some(machine) = &mut status.machine {
                machine.phase = MachinePhase::Stopped;
            }
            status.reachability = None;
        }
        _ => {}
    }
    status.lock = Some(Lock {
        holder: claim.holder.clone(),
        task_id: claim.task_id,
        acquired_at: Time(now),
        renewed_at: Time(now),
        duration_seconds: claim.duration_seconds,
    });
}
