//! Reports: what became of a task.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    facts, guard,
    refusal::{Refusal, RefusalReason},
    tasks::{is_open, lock_expired},
    trust::Proof,
};
use crate::api::{Executor, Outcome, Report, Server, Task, TaskKind, TaskPhase};

/// Carries a report out, and says what it proves.
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

fn check(server: &Server, report: &Report, executor: Executor, now: Timestamp) -> Result<TaskKind, Refusal> {
    let refuse = |reason, message: String| Err(Refusal::new(reason, "status.report.taskID", message));
    let (id, status) = (report.task_id, facts::status(server));
    let Some(task) = status.tasks.iter().find(|task| task.id == id) else {
        return refuse(RefusalReason::UnknownTask, format!("there is no task {id}"));
    };
    // A person answers a gate with an Approval, and replicaset-controller passes the answer on.
    let reporter = if task.kind == TaskKind::Gate { Executor::ReplicasetController } else { task.executor };
    if reporter != executor {
        return refuse(
            RefusalReason::WrongExecutor,
            format!("task {id} ({}) is reported on by {reporter}, not by {executor}", task.kind),
        );
    }
    if task.phase.is_finished() {
        return refuse(RefusalReason::NotOpen, format!("task {id} ({}) is already {:?}", task.kind, task.phase));
    }
    if task.kind.needs_lock() {
        let holder = status.lock.as_ref().filter(|lock| lock.task_id == id).map(|lock| lock.holder.as_str());
        if holder != Some(report.holder.as_str()) || task.phase != TaskPhase::Running {
            let holder = holder.unwrap_or("nobody");
            return refuse(RefusalReason::NotHolder, format!("task {id} ({}) is in the hands of {holder}", task.kind));
        }
    } else if !is_open(server, task) {
        return refuse(RefusalReason::NotOpen, format!("task {id} ({}): tasks before it are not done", task.kind));
    } else if let Some(lock) = status.lock.as_ref().filter(|lock| !lock_expired(lock, now))
        && task.kind == TaskKind::ReleaseTraffic
    {
        // Whoever works at a task of a state that was left may not have stopped yet.
        let message = format!("task {id} ({}) waits until {} has let go of the machine", task.kind, lock.holder);
        return refuse(RefusalReason::Locked, message);
    }
    Ok(task.kind)
}

fn apply(task: &mut Task, report: &Report, limit: i32, now: Timestamp) {
    task.message.clone_from(&report.message);
    let begun_now = !task.kind.needs_lock() && task.phase == TaskPhase::Pending;
    if begun_now {
        task.attempts += 1;
        task.started_at.get_or_insert(Time(now));
        task.not_before = None;
    }
    task.phase = match report.outcome {
        Outcome::Running => TaskPhase::Running,
        Outcome::Succeeded => TaskPhase::Succeeded,
        Outcome::Retry if task.attempts < limit => TaskPhase::Pending,
        Outcome::Retry | Outcome::Failed => TaskPhase::Failed,
    };
    if task.phase == TaskPhase::Pending {
        let wait = i64::from(report.retry_after_seconds.unwrap_or(0).max(0));
        task.not_before = now.checked_add(SignedDuration::from_secs(wait)).ok().map(Time);
    }
    if task.phase.is_finished() {
        task.finished_at = Some(Time(now));
    }
}
