//! Who may write which field of a Server's status.

use super::refusal::{Refusal, RefusalReason};
use crate::api::{Executor, MachineFact, Server, ServerStatus};

/// Refuses a status write that changes a field which its author does not own.
pub(super) fn check(before: &ServerStatus, after: &ServerStatus, executor: Option<Executor>) -> Result<(), Refusal> {
    use Executor::{DeploymentController, LbController, MonitorController, ReplicasetController};
    let (b, a) = (before, after);
    let fields: [(&str, bool, Option<Executor>); 24] = [
        ("state", b.state != a.state, None),
        ("stateSince", b.state_since != a.state_since, None),
        ("waitingFor", b.waiting_for != a.waiting_for, None),
        ("lastTaskID", b.last_task_id != a.last_task_id, None),
        ("firstTaskID", b.first_task_id != a.first_task_id, None),
        ("tasks", b.tasks != a.tasks, None),
        ("lock", b.lock != a.lock, None),
        ("previousState", b.previous_state != a.previous_state, None),
        ("cameFrom", b.came_from != a.came_from, None),
        ("history", b.history != a.history, None),
        ("transitions", b.transitions != a.transitions, None),
        ("epoch", b.epoch != a.epoch, None),
        ("force", b.force != a.force, None),
        ("observedRetry", b.observed_retry != a.observed_retry, None),
        ("observedReboot", b.observed_reboot != a.observed_reboot, None),
        ("conditions", b.conditions != a.conditions, None),
        ("observedGeneration", b.observed_generation != a.observed_generation, Some(ReplicasetController)),
        ("machine", b.machine != a.machine, Some(ReplicasetController)),
        ("environment", b.environment != a.environment, Some(ReplicasetController)),
        ("app", b.app != a.app, Some(DeploymentController)),
        ("traffic", b.traffic != a.traffic, Some(LbController)),
        ("reachability", b.reachability != a.reachability, Some(MonitorController)),
        ("health", b.health != a.health, Some(MonitorController)),
        ("monitoring", b.monitoring != a.monitoring, Some(MonitorController)),
    ];
    for (name, changed, owner) in fields {
        if changed && (owner.is_none() || owner != executor) {
            let message = match owner {
                None => "only the webhook writes this field".to_owned(),
                Some(owner) => format!("only {owner} reports this fact"),
            };
            return Err(Refusal::new(RefusalReason::Field, format!("status.{name}"), message));
        }
    }
    Ok(())
}

/// Refuses facts that contradict the status.
pub(super) fn check_facts(server: &Server, before: &ServerStatus) -> Result<(), Refusal> {
    let Some(status) = &server.status else { return Ok(()) };
    check_place(before, status)?;
    let epoch = before.epoch.unwrap_or_default();
    match &status.health {
        Some(health) if status.health != before.health && health.epoch != epoch => Err(Refusal::new(
            RefusalReason::Malformed,
            "status.health.epoch",
            format!("health was judged in epoch {}, but the Server is in epoch {epoch}: judge it again", health.epoch),
        )),
        _ => Ok(()),
    }
}

/// Refuses a fact from another place than that of a machine that may exist: what is found, or not found, there says nothing
/// about the machine.
fn check_place(before: &ServerStatus, status: &ServerStatus) -> Result<(), Refusal> {
    let place = |machine: &MachineFact| machine.provider.clone().zip(machine.place.clone());
    let known = before.machine.as_ref().filter(|_| before.machine_may_exist()).and_then(place);
    let Some((provider, at)) = known else { return Ok(()) };
    let found = status.machine.as_ref().and_then(place);
    if found.as_ref().is_some_and(|(p, a)| (p, a) == (&provider, &at)) {
        return Ok(());
    }
    let found = found.map_or_else(|| "nowhere".to_owned(), |(provider, place)| format!("at {provider} {place}"));
    Err(Refusal::new(
        RefusalReason::Malformed,
        "status.machine.place",
        format!("the machine may exist at {provider} {at}, so that a fact about a machine {found} is not about it"),
    ))
}

/// The controller that the writer is. Claims and reports of anybody else are refused.
pub(super) fn executor_of(executor: Option<Executor>, field: &str) -> Result<Executor, Refusal> {
    executor.ok_or_else(|| {
        Refusal::new(RefusalReason::WrongExecutor, field, "only Berth's controllers claim tasks and report on them")
    })
}

/// Refuses a holder that is not an instance of the writer.
pub(super) fn check_holder(holder: &str, executor: Executor, field: &str) -> Result<(), Refusal> {
    match holder.strip_prefix(executor.name()).and_then(|rest| rest.strip_prefix('/')) {
        Some(instance) if !instance.is_empty() => Ok(()),
        _ => Err(Refusal::new(
            RefusalReason::Malformed,
            field,
            format!("must be \"{executor}/<instance>\", because {executor} writes it, but is \"{holder}\""),
        )),
    }
}
