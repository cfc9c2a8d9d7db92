//! The status of a VMDeployment.

use berth_core::{
    api::{App, RolloutProgress, Server, VMDeploymentStatus},
    budget::Budget,
    conditions::{self, AVAILABLE, PROGRESSING, STALLED},
};
use k8s_openapi::jiff::Timestamp;

use crate::{
    assessment::Assessment,
    hold::TOO_MANY_FAILED,
    observed::ObservedDeployment,
    rollout, stable,
    stall::{self, DeploymentStall},
    steps::{self, PauseEnd},
};

/// The status, and the time at which it changes although no object does. Computing it twice from the same objects gives the
/// same status.
pub(crate) fn compute(observed: &ObservedDeployment<'_>) -> (VMDeploymentStatus, Option<Timestamp>) {
    let deployment = observed.deployment;
    let assessment = Assessment::of(observed);
    let mut status = counts(observed, &assessment);
    let is_done = assessment.count.is_complete()
        && assessment.has_no_step_left
        && assessment.progress.aborted.is_none()
        && [status.replicas, to_i32(observed.active().count())].iter().all(|n| *n == deployment.spec.replicas);
    let stall = stall::find(observed, &assessment);
    status.waiting_for =
        if is_done && stall.is_none() { None } else { waiting_for(observed, &assessment, &status, stall.as_ref()) };
    set_conditions(observed, &assessment, &mut status, is_done, stall.as_ref());
    let pause = steps::pause(&deployment.spec.rollout, &assessment.progress).and_then(PauseEnd::at);
    (status, next_change(observed, assessment.deadline.into_iter().chain(pause)))
}

/// Whether a roll-out has gone on to another step, was aborted, or a request was carried out.
pub(crate) fn has_turned(before: Option<&RolloutProgress>, after: Option<&RolloutProgress>) -> bool {
    let course = |progress: Option<&RolloutProgress>| {
        progress.map(|known| RolloutProgress { healthy_replicas: 0, progressed_at: None, ..known.clone() })
    };
    course(before) != course(after)
}

/// The status without `waitingFor`; its conditions are those that the VMDeployment has.
fn counts(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> VMDeploymentStatus {
    let ObservedDeployment { deployment, now, .. } = *observed;
    let count = |holds: &dyn Fn(&Server) -> bool| to_i32(observed.active().filter(|server| holds(server)).count());
    let known = deployment.status.clone().unwrap_or_default();
    let newest = &assessment.count.newest;
    let stable = stable::recorded(observed, assessment);
    // The set also counts the Servers that have no state yet, which the cache of this controller does not hold.
    let counted_by_set = observed.own_set().and_then(|set| set.status.as_ref()).map(|status| status.replicas);
    VMDeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: counted_by_set.unwrap_or_else(|| count(&|_| true)),
        ready_replicas: count(&Server::is_ready),
        available_replicas: count(&|server| server.is_available(deployment.spec.min_ready_seconds, now)),
        updated_replicas: count(&|server| runs(server, newest)),
        revision: Some(newest.effective_revision()),
        stable_revision: stable.as_ref().map(App::effective_revision).or(known.stable_revision),
        stable_app: stable,
        rollout: Some(assessment.progress.clone()),
        selector: Some(deployment.selector_text()),
        waiting_for: None,
        conditions: known.conditions,
    }
}

/// Whether the Server runs this application, as read back from its machine. Its digest includes the port that the
/// application gets on this Server.
fn runs(server: &Server, app: &App) -> bool {
    let fact = server.status.as_ref().and_then(|status| status.app.as_ref());
    fact.is_some_and(|fact| {
        fact.revision == app.effective_revision() && fact.digest == app.digest(server.spec.app_port())
    })
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// What a VMDeployment waits for that is stalled or not done.
fn waiting_for(
    observed: &ObservedDeployment<'_>,
    assessment: &Assessment<'_>,
    status: &VMDeploymentStatus,
    stall: Option<&DeploymentStall>,
) -> Option<String> {
    if let Some(stall) = stall {
        return Some(format!("a person: {}", stall.message));
    }
    if observed.set.is_none() {
        return Some("its VMReplicaSet to be created".to_owned());
    }
    if assessment.progress.aborted.is_some() {
        let stable = status.stable_revision.as_deref().unwrap_or_default();
        return Some(format!("{} Servers to get revision {stable} back", assessment.count.updated()));
    }
    match assessment.hold.as_ref().filter(|_| status.updated_replicas < status.replicas) {
        Some(hold) => Some(format!("a person: {}", hold.message)),
        None => {
            let spared = rollout::spared(observed.deployment, observed.servers, observed.now);
            let step = || steps::waiting_for(observed.deployment, &assessment.count, &assessment.progress);
            let of_set = || observed.set_waiting_for().map(str::to_owned);
            spared.map(|note| format!("a person: {note}")).or_else(step).or_else(of_set)
        }
    }
}

fn set_conditions(
    observed: &ObservedDeployment<'_>,
    assessment: &Assessment<'_>,
    status: &mut VMDeploymentStatus,
    is_done: bool,
    stall: Option<&DeploymentStall>,
) {
    let deployment = observed.deployment;
    let available = usize::try_from(status.available_replicas).unwrap_or(0);
    let enough = Budget::of_deployment(deployment).is_met_by(available);
    let mut set = |condition, is_true, reason, message: &str| {
        let generation = deployment.metadata.generation;
        conditions::set(&mut status.conditions, condition, is_true, reason, message, generation, observed.now);
    };
    let message = format!("{available} of {} Servers are available", deployment.spec.replicas);
    set(AVAILABLE, enough, if enough { "EnoughAvailable" } else { "TooFewAvailable" }, &message);
    let has_failed = stall.filter(|stall| stall.reason == TOO_MANY_FAILED);
    let aborted = assessment.progress.aborted.as_ref();
    match has_failed {
        _ if aborted.is_some() => {
            let (is_going_back, reason) =
                if assessment.count.updated() > 0 { (true, "RollingBack") } else { (false, "RolledBack") };
            let message = aborted.map_or("", |abort| abort.message.as_str());
            set(PROGRESSING, is_going_back, reason, message);
        }
        Some(stall) => set(PROGRESSING, false, stall.reason, &stall.message),
        None if is_done => set(PROGRESSING, false, "Complete", ""),
        None if assessment.count.is_settled() => set(PROGRESSING, true, "WaitingForServers", ""),
        None => set(PROGRESSING, true, "RollingOut", ""),
    }
    let (reason, message) = stall.map_or(("Progressing", ""), |stall| (stall.reason, stall.message.as_str()));
    set(STALLED, stall.is_some(), reason, message);
}

/// When the next Ready Server becomes available, or one of these times comes: the roll-out's deadline, the end of a pause.
fn next_change(observed: &ObservedDeployment<'_>, times: impl Iterator<Item = Timestamp>) -> Option<Timestamp> {
    let seconds = observed.deployment.spec.min_ready_seconds;
    let ready = observed.active().filter(|server| server.is_ready());
    let available = ready.filter_map(|server| server.available_at(seconds));
    available.chain(times).filter(|at| *at > observed.now).min()
}

#[cfg(test)]
mod tests {
    use berth_core::api::{VMDeployment, VMReplicaSet, VMReplicaSetStatus};
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::{
        replica_set::{self, newest_app},
        testing::{deployment, now, server},
    };

    fn compute_with(
        deployment: &VMDeployment,
        set: &VMReplicaSet,
        servers: &[Server],
    ) -> (VMDeploymentStatus, Option<Timestamp>) {
        let servers: Vec<&Server> = servers.iter().collect();
        compute(&ObservedDeployment { deployment, set: Some(set), servers: &servers, missing_secret: None, now: now() })
    }

    fn compute_for(deployment: &VMDeployment, servers: &[Server]) -> (VMDeploymentStatus, Option<Timestamp>) {
        compute_with(deployment, &replica_set::desired(deployment, newest_app(deployment)), servers)
    }

    fn reason<'a>(status: &'a VMDeploymentStatus, condition: &str) -> &'a str {
        &conditions::get(&status.conditions, condition).unwrap().reason
    }

    fn is_true(status: &VMDeploymentStatus, condition: &str) -> bool {
        conditions::get_true(&status.conditions, condition).is_some()
    }

    fn three_ready(revision: &str, age: i64) -> [Server; 3] {
        ["web-0", "web-1", "web-2"].map(|name| server(name, revision, "Ready", age))
    }

    #[test]
    fn servers_without_a_state_are_counted_by_the_set_if_it_is_the_deployments_own() {
        let deployment = deployment("v1", |_| {});
        let mut set = replica_set::desired(&deployment, newest_app(&deployment));
        set.status = Some(VMReplicaSetStatus { replicas: 3, ..VMReplicaSetStatus::default() });
        let (status, _) = compute_with(&deployment, &set, &[server("web-0", "v1", "Ready", 20)]);
        assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (3, 1, 0));
        assert!(is_true(&status, PROGRESSING));
        set.metadata.owner_references = None;
        assert_eq!(compute_with(&deployment, &set, &[]).0.replicas, 0);
    }

    #[test]
    fn a_complete_roll_out_is_stable_and_waits_for_nothing() {
        let mut deployment = deployment("v2", |_| {});
        let (status, requeue_at) = compute_for(&deployment, &three_ready("v2", 20));
        assert_eq!((status.stable_revision.as_deref(), status.waiting_for.as_deref()), (Some("v2"), None));
        assert_eq!((status.replicas, status.available_replicas, requeue_at), (3, 3, None));
        assert_eq!([AVAILABLE, PROGRESSING, STALLED].map(|c| is_true(&status, c)), [true, false, false]);
        deployment.status = Some(status.clone());
        assert_eq!(compute_for(&deployment, &three_ready("v2", 20)).0, status, "computed again, nothing changes");
    }

    #[test]
    fn a_roll_out_without_progress_stalls_when_its_deadline_passes() {
        let mut deployment =
            deployment("v2", |spec| spec["rollout"] = serde_json::json!({"progressDeadlineSeconds": 60}));
        let (running, requeue_at) = compute_for(&deployment, &three_ready("v1", 1_000_000));
        assert_eq!(reason(&running, STALLED), "Progressing");
        assert_eq!(requeue_at, Some(now() + SignedDuration::from_secs(60)));
        let mut begun = running.rollout.clone().unwrap();
        begun.progressed_at.as_mut().unwrap().0 -= SignedDuration::from_secs(60);
        deployment.status = Some(VMDeploymentStatus { rollout: Some(begun), ..running });
        let (late, _) = compute_for(&deployment, &three_ready("v1", 1));
        assert_eq!(reason(&late, STALLED), "ProgressDeadlineExceeded");
        assert!(late.waiting_for.unwrap().starts_with("a person: no progress for 60 s"));
        assert_eq!(late.stable_revision, None);
    }

    #[test]
    fn a_paused_roll_out_waits_for_a_person_and_never_stalls() {
        let paused = deployment("v2", |spec| spec["paused"] = true.into());
        let (status, requeue_at) = compute_for(&paused, &three_ready("v1", 1_000_000));
        assert_eq!((reason(&status, STALLED), requeue_at), ("Progressing", None));
        assert_eq!(status.waiting_for.unwrap(), "a person: the roll-out is paused (spec.paused)");
    }

    #[test]
    fn a_set_that_something_else_controls_stalls_the_deployment() {
        let deployment = deployment("v2", |_| {});
        let mut set = replica_set::desired(&deployment, newest_app(&deployment));
        set.metadata.owner_references = None;
        assert_eq!(reason(&compute_with(&deployment, &set, &[]).0, STALLED), "NotOwned");
    }

    #[test]
    fn steps_that_are_not_supported_stall_the_deployment() {
        let steps = serde_json::json!({"steps": [{"weight": 1}]});
        let (status, _) = compute_for(&deployment("v2", |spec| spec["rollout"] = steps), &three_ready("v1", 20));
        assert_eq!(reason(&status, STALLED), "NotSupported");
        assert!(
            status
                .waiting_for
                .unwrap()
                .starts_with("a person: steps with weight or analysis (spec.rollout.steps) are not supported")
        );
    }

    fn stable(deployment: &VMDeployment, servers: &[Server]) -> Option<String> {
        compute_for(deployment, servers).0.stable_revision
    }

    fn servers(states: &[(&str, &str)]) -> Vec<Server> {
        let server_of =
            |(n, (revision, state)): (usize, &(&str, &str))| server(&format!("web-{n}"), revision, state, 60);
        states.iter().enumerate().map(server_of).collect()
    }

    #[test]
    fn neither_a_kept_partition_nor_a_broken_machine_holds_up_the_stable_revision() {
        let kept = deployment("v2", |spec| spec["rollout"] = serde_json::json!({"partition": 1}));
        let all = deployment("v2", |_| {});
        let cases = [
            (&kept, [("v2", "Ready"), ("v2", "Ready"), ("v1", "Ready")], true),
            (&kept, [("v2", "Ready"), ("v1", "Ready"), ("v1", "Ready")], false),
            (&kept, [("v2", "Ready"), ("v2", "Deploying"), ("v1", "Ready")], false),
            (&all, [("v2", "Ready"), ("v2", "Ready"), ("v2", "Unknown")], true),
            (&all, [("v2", "Ready"), ("v2", "Ready"), ("v2", "Initializing")], true),
            (&all, [("v2", "Ready"), ("v2", "Ready"), ("v1", "Ready")], false),
            (&all, [("v2", "Ready"), ("v2", "Unknown"), ("v2", "Unknown")], false),
        ];
        let wrong: Vec<_> = cases
            .iter()
            .filter(|(deployment, states, expected)| stable(deployment, &servers(states)).is_some() != *expected)
            .map(|(deployment, states, expected)| (deployment.spec.rollout.partition, states, expected))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_server_that_flaps_does_not_put_off_the_deadline_and_more_healthy_servers_do() {
        let mut newer = deployment("v2", |spec| spec["rollout"] = serde_json::json!({"progressDeadlineSeconds": 60}));
        let set = replica_set::desired(&newer, newest_app(&newer));
        let mut reasons = Vec::new();
        for (second, states) in [
            (0, [("v1", "Ready"), ("v1", "Ready"), ("v1", "Ready")]),
            (50, [("v2", "Ready"), ("v1", "Ready"), ("v1", "Ready")]),
            (100, [("v2", "Ready"), ("v2", "Deploying"), ("v1", "Ready")]),
            (105, [("v2", "Deploying"), ("v2", "Deploying"), ("v1", "Ready")]),
            (109, [("v2", "Ready"), ("v2", "Deploying"), ("v1", "Ready")]),
            (110, [("v2", "Ready"), ("v2", "Deploying"), ("v1", "Ready")]),
            (120, [("v2", "Ready"), ("v2", "Ready"), ("v1", "Ready")]),
            (179, [("v2", "Deploying"), ("v2", "Ready"), ("v1", "Ready")]),
            (181, [("v2", "Ready"), ("v2", "Ready"), ("v1", "Ready")]),
        ] {
            let now = now() + SignedDuration::from_secs(second);
            let mut servers = servers(&states);
            for status in servers.iter_mut().filter_map(|server| server.status.as_mut()) {
                // Each has just changed its state.
                status.state_since = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            }
            let servers: Vec<&Server> = servers.iter().collect();
            let (status, _) = compute(&ObservedDeployment {
                deployment: &newer,
                set: Some(&set),
                servers: &servers,
                missing_secret: None,
                now,
            });
            reasons.push((second, reason(&status, STALLED).to_owned()));
            newer.status = Some(status);
        }
        let late: Vec<i64> = reasons.iter().filter(|(_, r)| r == "ProgressDeadlineExceeded").map(|(s, _)| *s).collect();
        assert_eq!(late, [110, 181], "{reasons:?}");
    }
}
