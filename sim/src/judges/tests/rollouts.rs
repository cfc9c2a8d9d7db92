//! What the judges of roll-outs must find.

use berth_core::{api::App, digest};

use super::*;

const DEPLOYER: &str = "system:serviceaccount:berth-system:deployment-controller";

/// A set of two Servers in two zones, of which clients are sent to each, and its VMDeployment, which rolls v2 out in this way.
async fn rolling_out(rollout: Value) -> Lab {
    let lab = Lab::new();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "small"}}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let mut declared = json!({"app": app("v2"), "rollout": rollout, "updateStrategy": {"maxUnavailable": 2}});
    json_patch::merge(&mut declared, &spec);
    lab.create("VMDeployment", "web", json!({"spec": declared})).await;
    let newest: App = serde_json::from_value(app("v2")).unwrap();
    let progress = json!({"digest": digest::short(&newest), "healthyReplicas": 0});
    lab.say(json!({"stableApp": app("v1"), "revision": "v2", "rollout": progress, "waitingFor": "Servers"})).await;
    let set = lab.create("VMReplicaSet", "web", json!({"spec": spec})).await;
    let owner = json!([{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": set, "controller": true}]);
    for (name, zone) in [("web-0", "a"), ("web-1", "b")] {
        lab.serving(name, json!({"metadata": {"ownerReferences": owner, "labels": {"zone": zone}}})).await;
    }
    lab.assert_nothing();
    lab
}

impl Lab {
    /// deployment-controller writes this about the VMDeployment.
    async fn say(&self, status: Value) {
        let mut status = json!({"status": status});
        let reconciling = json!({"type": "Reconciling", "status": "True", "reason": "RollingOut", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        status["status"]["conditions"] = json!([reconciling]);
        self.write_status(status).await;
    }

    async fn write_status(&self, status: Value) {
        let deployments = self.berth(DEPLOYER, "VMDeployment");
        deployments.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// deployment-controller gives this Server v2.
    async fn update(&self, name: &str) {
        self.patch(DEPLOYER, name, json!({"spec": {"app": app("v2")}})).await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_servers_than_the_step_asks_for_are_seen() {
    let lab = rolling_out(json!({"steps": [{"servers": 1}, {"pause": {}}]})).await;
    lab.update("web-0").await;
    lab.assert_nothing();
    lab.update("web-1").await;
    let found = lab.found(Judge::Steps);
    assert!(found.contains("2 Servers of default/web have it then, and its steps let 1"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_ends_before_a_machine_has_the_code_is_seen() {
    let lab = rolling_out(json!({"steps": [{"servers": 1}, {"pause": {}}]})).await;
    lab.update("web-0").await;
    lab.say(json!({"rollout": {"stepsDone": 1}})).await;
    assert!(lab.found(Judge::Steps).contains("step 1 of default/web is said to be done"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_ends_too_early_is_seen() {
    for (seconds, is_promoted, is_found) in [(58, false, true), (59, false, false), (1, true, false)] {
        let lab = rolling_out(json!({"steps": [{"pause": {"seconds": 60}}, {"servers": 1}]})).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let mut progress = json!({"stepsDone": 1});
        if is_promoted {
            let request = json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "one"}}}});
            let deployments = lab.berth("ann", "VMDeployment");
            deployments.patch("web", &PatchParams::default(), &Patch::Merge(request)).await.unwrap();
            progress["observedRequest"] = "one".into();
        }
        lab.say(json!({"rollout": progress})).await;
        assert_eq!(!lab.found(Judge::Steps).is_empty(), is_found, "{seconds}: {:?}", lab.findings.first());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_zone_before_the_first_is_well_is_seen() {
    let lab = rolling_out(json!({"spread": {"topologyKey": "zone", "bakeSeconds": 30}})).await;
    lab.update("web-0").await;
    lab.assert_nothing();
    lab.set_status("web-0", json!({"observedGeneration": 2})).await;
    tokio::time::sleep(Duration::from_secs(28)).await;
    lab.update("web-1").await;
    let found = lab.found(Judge::Zones);
    assert!(found.contains(r#"web-0 in zone "a" has not been well with it for 30 s"#), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn the_next_zone_after_the_bake_is_in_order() {
    let lab = rolling_out(json!({"spread": {"topologyKey": "zone", "bakeSeconds": 30}})).await;
    lab.update("web-0").await;
    lab.set_status("web-0", json!({"observedGeneration": 2})).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    lab.update("web-1").await;
    lab.assert_nothing();
}

#[tokio::test(start_paused = true)]
async fn code_that_goes_out_while_its_roll_out_is_paused_is_seen_and_code_that_goes_back_is_not() {
    for goes_back in [true, false] {
        let lab = rolling_out(json!({"paused": true})).await;
        tokio::time::sleep(Duration::from_mins(2)).await;
        if goes_back {
            let aborted = json!({"reason": "Requested", "message": "", "at": "2026-01-01T00:01:00Z"});
            lab.say(json!({"stableApp": app("v2"), "rollout": {"aborted": aborted}})).await;
        }
        lab.update("web-0").await;
        let found = lab.found(Judge::Decisions).contains("app is changed while default/web is paused");
        assert_eq!(found, !goes_back, "{:?}", lab.findings.first());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_says_nothing_is_seen() {
    let lab = rolling_out(json!({})).await;
    lab.say(json!({"waitingFor": null})).await;
    assert!(lab.found(Judge::Stuck).contains("does not say what it waits for"), "{:?}", lab.findings.first());
    let lab = rolling_out(json!({})).await;
    lab.write_status(json!({"status": {"conditions": []}})).await;
    assert!(lab.found(Judge::Stuck).contains("has not exactly one of"), "{:?}", lab.findings.first());
}
