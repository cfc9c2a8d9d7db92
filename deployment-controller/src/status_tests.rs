use berth_core::{
    api::{VMDeployment, VMReplicaSet, VMReplicaSetStatus},
    conditions::{READY, RECONCILING, STALLED},
};
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::{
    replica_set::{self, newest_app},
    testing::{deployment, failed, now, ready_set, server},
};

fn compute_with(
    deployment: &VMDeployment,
    set: &VMReplicaSet,
    servers: &[Server],
) -> (VMDeploymentStatus, Option<Timestamp>) {
    let servers: Vec<&Server> = servers.iter().collect();
    compute(&ObservedDeployment {
        deployment,
        set: Some(set),
        servers: &servers,
        missing_content: None,
        looks: &[],
        alarm_look: None,
        others: &[],
        awaited: &[],
        now: now(),
    })
}

fn compute_for(deployment: &VMDeployment, servers: &[Server]) -> (VMDeploymentStatus, Option<Timestamp>) {
    compute_with(deployment, &ready_set(deployment), servers)
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
    let mut deployment = deployment("v2", |spec| spec["rollout"] = json!({"progressDeadlineSeconds": 60}));
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

fn stable(deployment: &VMDeployment, servers: &[Server]) -> Option<String> {
    compute_for(deployment, servers).0.stable_revision
}

fn servers(states: &[(&str, &str)]) -> Vec<Server> {
    let server_of = |(n, (revision, state)): (usize, &(&str, &str))| server(&format!("web-{n}"), revision, state, 60);
    states.iter().enumerate().map(server_of).collect()
}

#[test]
fn neither_a_kept_partition_nor_a_broken_machine_holds_up_the_stable_revision() {
    let kept = deployment("v2", |spec| spec["rollout"] = json!({"partition": 1}));
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
    let mut newer = deployment("v2", |spec| spec["rollout"] = json!({"progressDeadlineSeconds": 60}));
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
            missing_content: None,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now,
        });
        reasons.push((second, reason(&status, STALLED).to_owned()));
        newer.status = Some(status);
    }
    let late: Vec<i64> = reasons.iter().filter(|(_, r)| r == "ProgressDeadlineExceeded").map(|(s, _)| *s).collect();
    assert_eq!(late, [110, 181], "{reasons:?}");
}

/// Which of the three conditions that tools read is True, with reason and message.
fn standing(status: &VMDeploymentStatus) -> (&str, &str, &str) {
    let is_true = |kind: &&str| conditions::get_true(&status.conditions, kind);
    let found: Vec<_> = [READY, RECONCILING, STALLED].iter().filter_map(is_true).collect();
    let [one] = found.as_slice() else { panic!("{found:?}") };
    (&one.type_, &one.reason, &one.message)
}

#[test]
fn tools_see_whether_a_roll_out_is_under_way_waits_for_a_person_or_has_failed() {
    let with = |rollout: serde_json::Value| {
        let mut newer = deployment("v2", |spec| spec["rollout"] = rollout);
        let stable = newest_app(&deployment("v1", |_| {}));
        newer.status = Some(VMDeploymentStatus { stable_app: Some(stable), ..VMDeploymentStatus::default() });
        newer
    };
    let (old, new) = (("v1", "Ready"), ("v2", "Ready"));
    let (plain, paused) = (with(json!({})), with(json!({"paused": true})));
    let (person, minute) =
        (with(json!({"steps": [{"pause": {}}]})), with(json!({"steps": [{"pause": {"seconds": 60}}]})));
    let (careful, back) = (with(json!({"maxFailed": 0})), with(json!({"onFailure": "Rollback"})));
    let broken = [failed("web-0", "v2"), server("web-1", "v1", "Ready", 60), server("web-2", "v1", "Ready", 60)];
    for (case, deployment, servers, expected) in [
        ("coming up", &plain, servers(&[("v2", "Deploying"); 3]), (RECONCILING, "RollingOut")),
        ("under way", &plain, servers(&[new, ("v2", "Deploying"), old]), (RECONCILING, "RollingOut")),
        ("a Server is away", &plain, servers(&[new, new, ("v2", "Unknown")]), (RECONCILING, "RollingOut")),
        ("held by a person", &paused, servers(&[old, old, old]), (RECONCILING, "Paused")),
        ("until promoted", &person, servers(&[old, old, old]), (RECONCILING, "WaitingForPromotion")),
        ("a pause", &minute, servers(&[old, old, old]), (RECONCILING, "Pausing")),
        ("too many failed", &careful, broken.to_vec(), (STALLED, "TooManyFailed")),
        ("going back", &back, broken.to_vec(), (RECONCILING, "RollingBack")),
        ("done", &plain, servers(&[new, new, new]), (READY, "Complete")),
        ("done and paused", &paused, servers(&[new, new, new]), (READY, "Complete")),
    ] {
        let (status, _) = compute_for(deployment, &servers);
        let (kind, reason, message) = standing(&status);
        assert_eq!((kind, reason), expected, "{case}: {message}");
        assert_eq!(message.is_empty(), kind == READY, "{case}: {message}");
        let says_person = status.waiting_for.as_deref().is_some_and(|text| text.starts_with("a person: "));
        assert_eq!(says_person, ["Paused", "WaitingForPromotion", "TooManyFailed"].contains(&reason), "{case}");
    }
}

#[test]
fn a_deployment_is_not_ready_before_its_set_has_taken_the_declaration_over() {
    let (mut deployment, servers) = (deployment("v2", |_| {}), three_ready("v2", 60));
    let set = ready_set(&deployment);
    assert_eq!(standing(&compute_with(&deployment, &set, &servers).0).0, READY);
    deployment.spec.min_ready_seconds = 5;
    let (stale, _) = compute_with(&deployment, &set, &servers);
    assert_eq!(standing(&stale).1, "WaitingForReplicaSet");
    let mut applied = ready_set(&deployment);
    applied.metadata.generation = Some(2);
    assert_eq!(standing(&compute_with(&deployment, &applied, &servers).0).1, "WaitingForReplicaSet");
    let status = applied.status.as_mut().unwrap();
    status.observed_generation = Some(2);
    status.waiting_for = Some("1 Servers to be updated".into());
    let standing_of_set =
        conditions::Standing::Reconciling { reason: "RollingOut", waits_for: "1 Servers to be updated" };
    conditions::set_standing(&mut status.conditions, standing_of_set, None, now());
    let (waiting, _) = compute_with(&deployment, &applied, &servers);
    assert_eq!(standing(&waiting), (RECONCILING, "RollingOut", "1 Servers to be updated"));
}
