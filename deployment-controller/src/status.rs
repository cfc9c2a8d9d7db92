//! What a VMDeployment's status says.

use berth_core::{
    api::{Server, VMDeployment, VMDeploymentStatus, VMReplicaSet},
    budget, conditions,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{desired, rollout};

/// Condition: as many Servers are available as the budget demands.
pub const AVAILABLE: &str = "Available";
/// Condition: a roll-out or a change of scale is under way.
pub const PROGRESSING: &str = "Progressing";
/// Condition: a person is needed.
pub const STALLED: &str = "Stalled";

/// The status as it is to be, and when it changes although nothing happens. Computing it again from the same changes
/// nothing.
#[must_use]
pub fn status(
    deployment: &VMDeployment,
    set: Option<&VMReplicaSet>,
    servers: &[&Server],
    now: Timestamp,
) -> (VMDeploymentStatus, Option<Timestamp>) {
    let spec = &deployment.spec;
    let app = desired::newest(deployment);
    let active: Vec<&Server> = servers.iter().copied().filter(|s| budget::is_active(s)).collect();
    let count = |holds: &dyn Fn(&Server) -> bool| to_i32(active.iter().filter(|s| holds(s)).count());
    let known = deployment.status.clone().unwrap_or_default();
    let revision = app.effective_revision();
    let complete = rollout::is_complete(deployment, servers, now) && to_i32(active.len()) >= spec.replicas;
    // The set counts those that have not begun, too, of which this controller knows nothing.
    let own = set.filter(|set| desired::is_own(deployment, set));
    let counted = own.and_then(|set| set.status.as_ref()).map(|status| status.replicas);
    let stable_revision = if complete { Some(revision.clone()) } else { known.stable_revision.clone() };
    let mut status = VMDeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: counted.unwrap_or(to_i32(active.len())),
        ready_replicas: count(&|s| budget::is_ready(s)),
        available_replicas: count(&|s| budget::is_available(s, spec.min_ready_seconds, now)),
        updated_replicas: count(&|s| runs(s, &revision)),
        revision: Some(revision),
        stable_revision,
        current_step: None,
        selector: Some(selector(deployment)),
        waiting_for: None,
        conditions: known.conditions.clone(),
    };
    let deadline =
        (!complete && rollout::held(deployment).is_none()).then(|| deadline(deployment, &known, &active)).flatten();
    let stall = stall(deployment, set, deadline.filter(|at| *at <= now));
    set_conditions(deployment, &mut status, complete, stall.as_ref(), now);
    status.waiting_for = waiting_for(deployment, set, &status, complete, stall.as_ref());
    let available = active.iter().filter(|s| budget::is_ready(s));
    let available = available.filter_map(|s| budget::available_at(s, spec.min_ready_seconds));
    let next = available.chain(deadline).filter(|at| *at > now).min();
    (status, next)
}

/// Whether the Server runs this revision, as was read back from its machine.
fn runs(server: &Server, revision: &str) -> bool {
    let fact = server.status.as_ref().and_then(|s| s.app.as_ref());
    fact.is_some_and(|fact| fact.revision == revision)
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn selector(deployment: &VMDeployment) -> String {
    let labels = deployment.spec.selector.match_labels.iter().flatten();
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// When the roll-out has failed for lack of progress. Progress is what begins it and every change of a Server's state.
fn deadline(deployment: &VMDeployment, known: &VMDeploymentStatus, active: &[&Server]) -> Option<Timestamp> {
    let began = conditions::get(&known.conditions, PROGRESSING).filter(|c| c.status == "True");
    let states = active.iter().filter_map(|s| s.status.as_ref()?.state_since.as_ref());
    let last = states.map(|time| time.0).chain(began.map(|c| c.last_transition_time.0)).max()?;
    let seconds = i64::from(deployment.spec.rollout.progress_deadline_seconds);
    last.checked_add(SignedDuration::from_secs(seconds)).ok()
}

struct Stall {
    reason: &'static str,
    message: String,
}

fn stall(deployment: &VMDeployment, set: Option<&VMReplicaSet>, passed: Option<Timestamp>) -> Option<Stall> {
    if let Some(set) = set.filter(|set| !desired::is_own(deployment, set)) {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message =
            format!("the VMReplicaSet {name} exists and belongs to somebody else: delete or rename one of the two");
        return Some(Stall { reason: "NotOwned", message });
    }
    if !deployment.spec.rollout.steps.is_empty() {
        let message = rollout::held(deployment).unwrap_or_default().to_owned();
        return Some(Stall { reason: "NotSupported", message });
    }
    if passed.is_some() {
        let seconds = deployment.spec.rollout.progress_deadline_seconds;
        let message = format!("no progress for {seconds} s (spec.rollout.progressDeadlineSeconds)");
        return Some(Stall { reason: "ProgressDeadlineExceeded", message: with_set(&message, set) });
    }
    let stalled = conditions::get(&set?.status.as_ref()?.conditions, STALLED).filter(|c| c.status == "True")?;
    Some(Stall { reason: "ReplicaSetStalled", message: stalled.message.clone() })
}

fn with_set(message: &str, set: Option<&VMReplicaSet>) -> String {
    let detail = set.and_then(|s| s.status.as_ref()).and_then(|s| s.waiting_for.as_deref());
    detail.map_or(message.to_owned(), |detail| format!("{message}; the VMReplicaSet waits for {detail}"))
}

fn waiting_for(
    deployment: &VMDeployment,
    set: Option<&VMReplicaSet>,
    status: &VMDeploymentStatus,
    complete: bool,
    stall: Option<&Stall>,
) -> Option<String> {
    if let Some(stall) = stall {
        return Some(format!("a person: {}", stall.message));
    }
    if complete && status.replicas == deployment.spec.replicas {
        return None;
    }
    let Some(set) = set else { return Some("its VMReplicaSet to be created".to_owned()) };
    match rollout::held(deployment).filter(|_| status.updated_replicas < status.replicas) {
        Some(held) => Some(format!("a person: {held}")),
        None => set.status.as_ref().and_then(|s| s.waiting_for.clone()),
    }
}

fn set_conditions(
    deployment: &VMDeployment,
    status: &mut VMDeploymentStatus,
    complete: bool,
    stall: Option<&Stall>,
    now: Timestamp,
) {
    let (replicas, generation) = (deployment.spec.replicas, deployment.metadata.generation);
    let budget = rollout::budget(deployment);
    let available = usize::try_from(status.available_replicas).unwrap_or(0);
    let enough = available + budget.max_unavailable >= budget.replicas;
    let reason = if enough { "EnoughAvailable" } else { "TooFewAvailable" };
    let message = format!("{available} of {replicas} Servers are available");
    conditions::set(&mut status.conditions, AVAILABLE, enough, reason, &message, generation, now);
    let done = complete && status.replicas == replicas;
    let reason = if done { "Complete" } else { "RollingOut" };
    conditions::set(&mut status.conditions, PROGRESSING, !done, reason, "", generation, now);
    let (reason, message) = stall.map_or(("Progressing", ""), |s| (s.reason, s.message.as_str()));
    conditions::set(&mut status.conditions, STALLED, stall.is_some(), reason, message, generation, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, now, server};
    use berth_core::api::VMReplicaSetStatus;

    fn of(deployment: &VMDeployment, servers: &[Server]) -> (VMDeploymentStatus, Option<Timestamp>) {
        let set = desired::replica_set(deployment, None, false);
        status(deployment, Some(&set), &servers.iter().collect::<Vec<_>>(), now())
    }

    fn reason(status: &VMDeploymentStatus, kind: &str) -> String {
        conditions::get(&status.conditions, kind).unwrap().reason.clone()
    }

    fn fleet(revision: &str, age: i64) -> [Server; 3] {
        ["web-0", "web-1", "web-2"].map(|name| server(name, revision, "Ready", age))
    }

    #[test]
    fn servers_that_have_not_begun_are_counted_by_the_set() {
        let deployment = deployment("v1", |_| {});
        let mut set = desired::replica_set(&deployment, None, false);
        set.status = Some(VMReplicaSetStatus { replicas: 3, ..VMReplicaSetStatus::default() });
        let begun = server("web-0", "v1", "Ready", 20);
        let (begins, _) = status(&deployment, Some(&set), &[&begun], now());
        assert_eq!((begins.replicas, begins.ready_replicas, begins.updated_replicas), (3, 1, 0));
        assert!(conditions::is_true(&begins.conditions, PROGRESSING));
        set.metadata.owner_references = None;
        let (without, _) = status(&deployment, Some(&set), &[], now());
        assert_eq!(without.replicas, 0, "somebody else's set counts nothing of it");
    }

    #[test]
    fn a_complete_roll_out_is_stable_and_waits_for_nothing() {
        let mut deployment = deployment("v2", |_| {});
        let (done, next) = of(&deployment, &fleet("v2", 20));
        assert_eq!((done.stable_revision.as_deref(), done.waiting_for.as_deref(), next), (Some("v2"), None, None));
        assert_eq!((done.replicas, done.available_replicas), (3, 3));
        assert_eq!(
            [AVAILABLE, PROGRESSING, STALLED].map(|k| conditions::is_true(&done.conditions, k)),
            [true, false, false]
        );
        deployment.status = Some(done.clone());
        assert_eq!(of(&deployment, &fleet("v2", 20)).0, done, "the same again changes nothing");
    }

    #[test]
    fn a_roll_out_without_progress_stalls_when_its_deadline_passes() {
        let deployment = deployment("v2", |spec| spec["rollout"] = serde_json::json!({"progressDeadlineSeconds": 60}));
        let (running, next) = of(&deployment, &fleet("v1", 50));
        assert_eq!(reason(&running, STALLED), "Progressing");
        assert_eq!(next, Some(now() + SignedDuration::from_secs(10)));
        let (late, _) = of(&deployment, &fleet("v1", 60));
        assert_eq!(reason(&late, STALLED), "ProgressDeadlineExceeded");
        assert!(late.waiting_for.unwrap().starts_with("a person: no progress for 60 s"));
        assert_eq!(late.stable_revision, None);
    }

    #[test]
    fn a_paused_roll_out_waits_for_a_person_and_never_stalls() {
        let paused = deployment("v2", |spec| spec["paused"] = true.into());
        let (status, next) = of(&paused, &fleet("v1", 1_000_000));
        assert_eq!((reason(&status, STALLED).as_str(), next), ("Progressing", None));
        assert_eq!(status.waiting_for.unwrap(), "a person: the roll-out is paused (spec.paused)");
    }

    #[test]
    fn a_set_of_somebody_else_and_steps_are_named() {
        let deployment = deployment("v2", |_| {});
        let mut set = desired::replica_set(&deployment, None, false);
        set.metadata.owner_references = None;
        assert_eq!(reason(&status(&deployment, Some(&set), &[], now()).0, STALLED), "NotOwned");
    }
}
