//! Reports on attempts at tasks.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    guard,
    refusal::{Refusal, RefusalReason},
    trust::Proof,
};
use crate::api::{Executor, Outcome, Report, Server, Task, TaskKind, TaskPhase};

/// Carries out a report, and returns which facts it proves.
pub(super) fn carry_out(
    server: &mut Server,
    report: &Report,
    executor: Executor,
    now: Timestamp,
) -> Result<Proof, Refusal> {
    guard::check_holder(&report.holder, executor, "status.report.holder")?;
    let kind = check(server, report, executor, now)?;
    let limit = server.spec.task_attempts;
    let Some(status) = server.status.as_mut() else { return Ok(Proof::default()) };
    if let Some(task) = status.tasks.iter_mut().find(|task| task.id == report.task_id) {
        apply(task, report, limit, now);
    }
    if kind.needs_lock() && report.outcome != Outcome::Running {
        status.lock = None;
    }
    let succeeded = report.outcome == Outcome::Succeeded;
    if succeeded && kind == TaskKind::RebootMachine {
        status.observed_reboot = server.spec.reboot.as_ref().map(|request| request.id.clone());
    }
    Ok(Proof {
        environment: succeeded && kind == TaskKind::InstallPackages,
        app: succeeded && kind == TaskKind::DeployApp,
    })
}

/// Refuses a report that the writer may not make. Returns the kind of its task.
fn check(server: &Server, report: &Report, executor: Executor, now: Timestamp) -> Result<TaskKind, Refusal> {
    let refuse = |reason, message: String| Err(Refusal::new(reason, "status.report.taskID", message));
    let (id, status) = (report.task_id, server.known_status());
    let Some(task) = server.task(id) else {
        return refuse(RefusalReason::UnknownTask, format!("there is no task {id}"));
    };
    // A person decides on a gate with an Approval, and replicaset-controller reports the decision.
    let reporter = if task.kind == TaskKind::Gate { Executor::ReplicasetController } else { task.executor() };
    if reporter != executor {
        return refuse(
            RefusalReason::WrongExecutor,
            format!("task {id} ({}) is reported on by {reporter}, not by {executor}", task.kind),
        );
    }
    if task.phase.is_finished() && !revises_refusal(server, task, report) {
        return refuse(RefusalReason::NotOpen, format!("task {id} ({}) is already {:?}", task.kind, task.phase));
    }
    if task.kind.needs_lock() {
        let holder = status.lock.as_ref().filter(|lock| lock.task_id == id).map(|lock| lock.holder.as_str());
        if holder != Some(report.holder.as_str()) || task.phase != TaskPhase::Running {
            let message = match holder {
                Some(holder) => format!("task {id} ({}) is held by {holder}", task.kind),
                None => format!("task {id} ({}) is not running under the lock: claim it first", task.kind),
            };
            return refuse(RefusalReason::NotHolder, message);
        }
    } else if !task.phase.is_finished() && !server.is_open(task) {
        return refuse(RefusalReason::NotOpen, format!("task {id} ({}): tasks before it are not finished", task.kind));
    } else if let Some(lock) = status.lock.as_ref().filter(|lock| !lock.is_expired(now))
        && task.kind == TaskKind::ReleaseTraffic
    {
        // The holder may still be working on a task that was cancelled when the Server left an earlier state.
        let message = format!("task {id} ({}) waits until {} has released the lock", task.kind, lock.holder);
        return refuse(RefusalReason::Locked, message);
    }
    Ok(task.kind)
}

/// Whether the report is a person's later approval of a gate that was refused and still stops the Server.
fn revises_refusal(server: &Server, task: &Task, report: &Report) -> bool {
    report.outcome == Outcome::Succeeded && server.refused_gates().any(|refused| refused.id == task.id)
}

/// Changes the task as the report says; after `limit` attempts a retry is a failure. An attempt that only waits does not count.
fn apply(task: &mut Task, report: &Report, limit: i32, now: Timestamp) {
    task.message.clone_from(&report.message);
    let begins = !task.kind.needs_lock() && task.phase == TaskPhase::Pending && report.outcome != Outcome::Waiting;
    if begins {
        task.attempts = task.attempts.saturating_add(1);
        task.started_at.get_or_insert(Time(now));
        task.not_before = None;
    }
    let claimed = task.phase == TaskPhase::Running;
    task.phase = match report.outcome {
        Outcome::Running => TaskPhase::Running,
        Outcome::Succeeded => TaskPhase::Succeeded,
        Outcome::Retry if task.attempts < limit => TaskPhase::Pending,
        Outcome::Waiting => {
            task.attempts = task.attempts.saturating_sub(i32::from(claimed));
            TaskPhase::Pending
        }
        Outcome::Retry | Outcome::Failed => TaskPhase::Failed,
    };
    let wait = match report.outcome {
        Outcome::Retry if task.phase == TaskPhase::Pending => Some(report.retry_after_seconds.unwrap_or(0)),
        Outcome::Waiting => report.retry_after_seconds,
        _ => None,
    };
    if let Some(wait) = wait {
        let wait = SignedDuration::from_secs(i64::from(wait.max(0)));
        task.not_before = now.checked_add(wait).ok().map(Time);
    }
    if task.phase.is_finished() {
        task.finished_at = Some(Time(now));
    }
}
