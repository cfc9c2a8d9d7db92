//! Claims: taking, renewing and releasing a Server's lock.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    guard,
    refusal::{Refusal, RefusalReason},
    trust,
};
use crate::api::{Claim, Executor, Lock, MachineFact, MachinePhase, Server, ServerStatus, Task, TaskKind, TaskPhase};

/// Seconds for which a lock is handed over: as long as controllers claim it for by default.
const HAND_OVER_SECONDS: i32 = 30;

/// Carries out a claim: takes, renews or releases the lock.
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
    if is_renewal(server, claim) {
        check_another_attempt(server, claim)?;
        renew(server, claim, now);
        return Ok(());
    }
    check(server, claim, executor, now)?;
    take(server, claim, now);
    Ok(())
}

/// Hands the lock over when a task has succeeded: begins the next task that needs the lock, for the instance of its executor among
/// `successors`, as if that instance had claimed it. Its first renewal or report is its first write; if it has died, the lock
/// expires. CreateMachine is always claimed, because its claim says where the machine is going to be.
pub(super) fn hand_over(server: &mut Server, successors: &[String], now: Timestamp) {
    if server.known_status().lock.is_some() {
        return;
    }
    let may_begin = |task: &&Task| {
        task.kind.needs_lock()
            && task.kind != TaskKind::CreateMachine
            && task.phase == TaskPhase::Pending
            && task.earliest_begin().is_none_or(|at| at <= now)
            && server.is_open(task)
    };
    let Some(next) = server.known_status().current_tasks().filter(may_begin).min_by_key(|task| task.id) else { return };
    let is_its_executor = |holder: &&String| guard::check_holder(holder, next.executor(), "").is_ok();
    let Some(holder) = successors.iter().find(is_its_executor) else { return };
    let claim = Claim { task_id: next.id, holder: holder.clone(), duration_seconds: HAND_OVER_SECONDS, again: false };
    take(server, &claim, now);
}

/// Whether the claim is a renewal: its holder has the lock for this task already, and the task still runs.
fn is_renewal(server: &Server, claim: &Claim) -> bool {
    let status = server.known_status();
    status.lock.as_ref().is_some_and(|lock| lock.holder == claim.holder && lock.task_id == claim.task_id)
        && server.task(claim.task_id).is_some_and(|task| task.phase == TaskPhase::Running)
}

/// Refuses another attempt at a task that may not begin any more, for example because a gate was declared before it. Work that has
/// begun goes on.
fn check_another_attempt(server: &Server, claim: &Claim) -> Result<(), Refusal> {
    let is_open = server.task(claim.task_id).is_some_and(|task| server.is_open(task));
    if !claim.again || is_open {
        return Ok(());
    }
    let message = format!("task {} waits for tasks before it that were not there when it began", claim.task_id);
    Err(Refusal::new(RefusalReason::NotOpen, "status.claim.again", message))
}

/// Renews the lock. Its time never moves backwards: a copy of the webhook whose clock is behind would otherwise shorten what
/// another copy has granted. For another attempt it is another lock from now on, also within the same second.
fn renew(server: &mut Server, claim: &Claim, now: Timestamp) {
    if let Some(lock) = server.status.as_mut().and_then(|s| s.lock.as_mut()) {
        lock.renewed_at = Time(now.max(lock.renewed_at.0));
        if claim.again {
            let next_second = lock.acquired_at.0.checked_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX);
            lock.renewed_at = Time(lock.renewed_at.0.max(next_second));
            lock.acquired_at = lock.renewed_at.clone();
        }
        lock.duration_seconds = claim.duration_seconds;
    }
}

/// Releases the lock, if the claim's holder has it for this task. A task that was not finished waits for its next attempt.
///
/// A holder that did not hear that its report was written releases the lock of that task, and may have got the lock for the next
/// one with it. Then it works under that lock already, or is about to.
fn release(server: &mut Server, claim: &Claim) {
    let Some(status) = server.status.as_mut() else { return };
    if let Some(lock) = status.lock.take_if(|lock| lock.holder == claim.holder && lock.task_id == claim.task_id)
        && let Some(task) =
            status.tasks.iter_mut().find(|task| task.id == lock.task_id && task.phase == TaskPhase::Running)
    {
        task.phase = TaskPhase::Pending;
    }
}

/// Refuses a claim of a task that its executor may not begin now.
fn check(server: &Server, claim: &Claim, executor: Executor, now: Timestamp) -> Result<(), Refusal> {
    let refuse = |reason, message: String| Err(Refusal::new(reason, "status.claim.taskID", message));
    let id = claim.task_id;
    let Some(task) = server.task(id) else {
        return refuse(RefusalReason::UnknownTask, format!("there is no task {id}"));
    };
    if task.executor() != executor {
        let message = format!("task {id} ({}) belongs to {}, not to {executor}", task.kind, task.executor());
        return refuse(RefusalReason::WrongExecutor, message);
    }
    if !task.kind.needs_lock() {
        return refuse(RefusalReason::Malformed, format!("task {id} ({}) needs no claim: report on it", task.kind));
    }
    if let Some(lock) = &server.known_status().lock
        && lock.holder != claim.holder
        && !lock.is_expired(now)
    {
        let message = format!("the lock is held by {} (task {})", lock.holder, lock.task_id);
        return refuse(RefusalReason::Locked, message);
    }
    if !server.is_open(task) {
        let message = format!("task {id} ({}) is {:?}, or tasks before it are not finished", task.kind, task.phase);
        return refuse(RefusalReason::NotOpen, message);
    }
    match task.not_before.as_ref().filter(|time| time.0 > now) {
        Some(time) => {
            refuse(RefusalReason::NotOpen, format!("task {id} ({}) must not begin before {}", task.kind, time.0))
        }
        None => Ok(()),
    }
}

/// Takes the lock and begins an attempt at the task.
fn take(server: &mut Server, claim: &Claim, now: Timestamp) {
    let Some(status) = server.status.as_mut() else { return };
    if let Some(task) = status.tasks.iter_mut().find(|task| task.id == claim.task_id) {
        task.phase = TaskPhase::Running;
        task.attempts = task.attempts.saturating_add(1);
        task.not_before = None;
        task.started_at.get_or_insert(Time(now));
        let kind = task.kind;
        note_effect(status, kind);
    }
    let acquired_at = status.lock.as_ref().map_or(now, |previous| previous.renewed_at.0.max(now));
    status.lock = Some(Lock {
        holder: claim.holder.clone(),
        task_id: claim.task_id,
        acquired_at: Time(acquired_at),
        renewed_at: Time(acquired_at),
        duration_seconds: claim.duration_seconds,
    });
}

/// What a claim alone changes about the facts: from now on the task may have taken effect, even if it is never reported.
fn note_effect(status: &mut ServerStatus, kind: TaskKind) {
    match kind {
        TaskKind::CreateMachine if !status.machine_may_exist() => {
            status.machine = Some(MachineFact {
                phase: MachinePhase::Creating,
                provider: None,
                place: None,
                id: None,
                address: None,
                ssh: None,
                boot_id: None,
                created_at: None,
            });
        }
        // Even if the attempt never reports: its effect may come after its lock is gone, and the next holder has to look.
        TaskKind::InstallPackages => trust::distrust_environment(status),
        TaskKind::DeployApp => trust::distrust_app(status),
        // If the retirement is cancelled from now on, it is unknown whether the machine still runs.
        TaskKind::DestroyMachine => {
            if let Some(machine) = &mut status.machine {
                machine.phase = MachinePhase::Stopped;
            }
            status.reachability = None;
        }
        _ => {}
    }
}
