//! Alerts of a real Prometheus hold a roll-out, and bring it back; so does a check in the background.

use berth_control_plane::free_port;
use berth_core::api::VMDeploymentStatus;
use berth_tests::{Options, Part};
use serde_json::{Value, json};

use crate::{
    deployment_status::{runs, status, waits_for},
    prometheus::{app, create_class, start_prometheus},
    world::World,
};

fn is_stable(revision: &str) -> impl Fn(&VMDeploymentStatus) -> bool {
    move |status| status.stable_revision.as_deref() == Some(revision)
}

fn aborted_by(reason: &str) -> impl Fn(&VMDeploymentStatus) -> bool {
    move |status| {
        let abort = status.rollout.as_ref().and_then(|known| known.aborted.as_ref());
        abort.is_some_and(|abort| abort.reason == reason)
    }
}

/// The share of errors on each Server.
const SHARE: &str = "sum by (namespace, server) (rate(http_errors_total[5s])) / sum by (namespace, server) (rate(http_requests_total[5s]))";

#[tokio::test(flavor = "multi_thread")]
async fn alarms_hold_a_version_back_and_bring_the_stable_one_back() {
    let [targets, port] = [free_port().unwrap(), free_port().unwrap()];
    let arguments = [(Part::MonitorController, vec![format!("--targets-address=127.0.0.1:{targets}")])].into();
    let world = World::start_with(Options { arguments, ..Options::default() }).await;
    create_class(&world, "main", json!({"address": format!("http://127.0.0.1:{port}")})).await;
    let alarms = |names: &Value| json!({"source": "main", "names": names, "matchLabels": {"namespace": "$namespace"}, "intervalSeconds": 1});
    let steps = |seconds: u32| json!([{"servers": 1}, {"bake": {"seconds": seconds}}]);
    world
        .deploy(2, |v: &mut Value| {
            v["spec"]["app"] = app(&world, "v1", "0.03");
            v["spec"]["template"]["spec"]["packages"] = json!([]);
            v["spec"]["rollout"] = json!({"alarms": alarms(&json!(["Missing", "WebBurn"])), "steps": steps(3)});
        })
        .await;
    world.ready(2).await;
    status(&world, "v1 is stable, without a look", is_stable("v1")).await;

    // Prometheus is down, then it has no such rule, and then the alarm fires because of the version before.
    world.patch(json!({"spec": {"app": app(&world, "v2", "0.01")}})).await;
    status(
        &world,
        "nothing is known",
        waits_for(
            "the state of alarms Missing, WebBurn is not known: Prometheus of MonitoringClass main: it does not answer",
        ),
    )
    .await;
    let rules = json!([{"alert": "WebBurn", "expr": format!("{SHARE} > 0.02")}]);
    let _prometheus = start_prometheus(&world, port, targets, &rules);
    let fires = |status: &VMDeploymentStatus| {
        let alarms = status.rollout.as_ref().and_then(|known| known.alarms.as_ref());
        alarms.is_some_and(|known| known.firing == ["WebBurn"])
    };
    let missing = waits_for("there is no alerting rule Missing");
    status(&world, "a rule is missing, and the other one fires", |status| missing(status) && fires(status)).await;
    world.patch(json!({"spec": {"rollout": {"alarms": alarms(&json!(["WebBurn"]))}}})).await;
    let held = status(&world, "it fires already", waits_for("alarm WebBurn of MonitoringClass main to end")).await;
    assert_eq!(held.updated_replicas, 0, "nothing was touched");
    world.ready_when(2, |server| runs(server, "v1")).await;

    // It is ignored; v2 ends it.
    world.patch(json!({"spec": {"rollout": {"alarms": {"alreadyFiring": "Ignore"}}}})).await;
    status(&world, "v2 is stable", is_stable("v2")).await;

    // v3 begins it anew, in the bake.
    let change = json!({"app": app(&world, "v3", "0.03"), "rollout": {"alarms": {"alreadyFiring": "Hold"}, "steps": steps(300)}});
    world.patch(json!({"spec": change})).await;
    let back = status(&world, "the alarm brings v2 back", aborted_by("AlarmFiring")).await;
    let message = back.rollout.unwrap().aborted.unwrap().message;
    assert!(message.starts_with("alarm WebBurn of MonitoringClass main began to fire in the roll-out"), "{message}");
    for server in world.ready_when(2, |server| runs(server, "v2")).await {
        world.assert_answers(&server, "v2").await;
    }

    // Without alarms, a check in the background finds v4.
    let checks = json!([{"name": "share", "source": "main", "query": SHARE, "condition": "< 0.02"}]);
    let background = json!({"checks": ["share"], "intervalSeconds": 2, "maxFailures": 1});
    let rollout = json!({"alarms": null, "checks": checks, "background": background, "onFailure": "Rollback"});
    world.patch(json!({"spec": {"app": app(&world, "v4", "0.03"), "rollout": rollout}})).await;
    let back = status(&world, "the check brings v2 back", aborted_by("BackgroundCheckFailed")).await;
    let message = back.rollout.unwrap().aborted.unwrap().message;
    assert!(message.contains("has failed at 2 of") && message.contains("wanted < 0.02"), "{message}");
    world.ready_when(2, |server| runs(server, "v2")).await;
    world.end().await;
}
