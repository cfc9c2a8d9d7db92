//! Tools that know nothing of Berth judge its objects right: GitOps tools by kstatus, people by `kubectl wait`.

use std::process::Command;

use berth_core::api::{VMDeployment, VMReplicaSet};
use berth_tests::{Archive, Judgement, Options, Part, eventually, judge};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::world::{LONG, World, is_in};

/// The VMDeployment `web`, or its set, as the API server shows it: with every field.
async fn shown<K>(world: &World) -> Result<DynamicObject, String>
where
    K: kube::Resource<DynamicType = ()>,
{
    let api: Api<DynamicObject> = Api::namespaced_with(world.berth.client(), "default", &ApiResource::erase::<K>(&()));
    api.get("web").await.map_err(|error| error.to_string())
}

/// Waits until the VMDeployment is judged so, with a message that contains this, and until then with no status but these.
async fn becomes(world: &World, status: &str, message: &str, until_then: &[&str]) -> Judgement {
    let found = eventually(format!("{status}: {message}"), LONG, async || {
        let object = shown::<VMDeployment>(world).await?;
        let judgement = judge(&object).await.map_err(|error| error.to_string())?;
        if judgement.status == status && judgement.message.contains(message) {
            return Ok(judgement);
        }
        let text = serde_json::to_string(&object.data["status"]).unwrap_or_default();
        assert!(until_then.contains(&judgement.status.as_str()), "{judgement:?} instead of {status}: {text}");
        Err(format!("{judgement:?}: {text}"))
    });
    found.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()))
}

/// Whether `kubectl wait` finds that this condition holds, within so many seconds.
fn kubectl_wait(world: &World, condition: &str, seconds: u32) -> bool {
    let control_plane = world.berth.control_plane();
    let mut command = Command::new(&control_plane.assets().kubectl);
    command.args([
        "wait",
        "vmdeployment/web",
        &format!("--for=condition={condition}"),
        &format!("--timeout={seconds}s"),
    ]);
    command.arg("--kubeconfig").arg(control_plane.admin_kubeconfig());
    command.arg("--cache-dir").arg(control_plane.dir().join("kubectl-cache")).output().unwrap().status.success()
}

/// An application that is never healthy.
fn sick_app(world: &World) -> Value {
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    let archive = Archive::new().executable("run", run).file("www/index.html", "sick").build().unwrap();
    let artifact = world.berth.artifacts().put("sick.tar", archive);
    json!({"revision": "v2", "artifact": {"url": artifact.url, "sha256": artifact.sha256}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_no_controller_has_seen_is_not_taken_for_ready() {
    let world = World::start_with(Options { parts: vec![Part::Webhook], ..Options::default() }).await;
    world.deploy(1, |_| {}).await;
    let object = shown::<VMDeployment>(&world).await.unwrap();
    assert_eq!(object.data["status"]["observedGeneration"], -1, "{:?}", object.data);
    let judgement = judge(&object).await.unwrap();
    assert_eq!(judgement.status, "InProgress", "{judgement:?}");
    assert!(judgement.message.contains("latest observed generation is -1"), "{judgement:?}");
    assert!(!kubectl_wait(&world, "Ready", 1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_is_judged_right_in_every_phase() {
    let world = World::start().await;
    let rollout = |steps: Value| json!({"rollout": {"steps": steps, "onFailure": "Rollback"}});
    let change = |v: &mut Value| {
        v["spec"]["rollout"] = rollout(json!([{"servers": 1}]))["rollout"].clone();
        v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(2);
    };
    world.deploy(2, change).await;
    becomes(&world, "Current", "", &["InProgress"]).await;
    assert!(kubectl_wait(&world, "Ready", 1) && !kubectl_wait(&world, "Stalled", 1));
    let set = judge(&shown::<VMReplicaSet>(&world).await.unwrap()).await.unwrap();
    assert_eq!(set.status, "Current", "{set:?}");

    world.patch(json!({"spec": {"app": sick_app(&world)}})).await;
    becomes(&world, "InProgress", "Servers to get revision v1 back", &["InProgress"]).await;
    assert!(!kubectl_wait(&world, "Ready", 1));
    let aborted = "the roll-out of revision v2 was aborted";
    becomes(&world, "Failed", aborted, &["InProgress"]).await;
    assert!(kubectl_wait(&world, "Stalled", 1) && !kubectl_wait(&world, "Ready", 1));

    let mut v3 = rollout(json!([{"servers": 1}, {"pause": {}}]));
    v3["app"] = world.app("v3");
    world.patch(json!({"spec": v3})).await;
    becomes(&world, "InProgress", "a person: step 2 of 2 is a pause", &["InProgress"]).await;
    let request = json!({"rollout": {"request": {"action": "Promote", "id": "1"}}});
    world.patch(json!({"spec": request})).await;
    becomes(&world, "Current", "", &["InProgress"]).await;

    // Another environment alone: the set rolls it out.
    world.patch(json!({"spec": {"template": {"spec": {"packages": [world.package("tool", "2")]}}}})).await;
    becomes(&world, "Current", "", &["InProgress"]).await;
    world.ready(2).await;

    let gates = json!([{"before": "CreateMachine"}]);
    world.patch(json!({"spec": {"replicas": 3, "template": {"spec": {"gates": gates}}}})).await;
    becomes(&world, "InProgress", "a person: ", &["InProgress"]).await;
    let set = judge(&shown::<VMReplicaSet>(&world).await.unwrap()).await.unwrap();
    assert!(set.status == "InProgress" && set.message.starts_with("a person: "), "{set:?}");

    let held = Patch::Merge(json!({"metadata": {"finalizers": ["berth.dev/test"]}}));
    world.deployments().patch("web", &PatchParams::default(), &held).await.unwrap();
    world.deployments().delete("web", &DeleteParams::background()).await.unwrap();
    becomes(&world, "Terminating", "", &["InProgress"]).await;
    let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.deployments().patch("web", &PatchParams::default(), &released).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_waits_for_a_decision_of_a_person_has_failed() {
    let world = World::start().await;
    world.deploy(1, |v| v["spec"]["failover"] = json!({"waitSeconds": 1, "action": "AskHuman"})).await;
    becomes(&world, "Current", "", &["InProgress"]).await;
    let server = &world.ready(1).await[0];
    world.berth.machines().kill(&server.metadata.uid.clone().unwrap()).unwrap();
    world.server("web-0", "is Unknown", is_in(berth_core::api::State::Unknown)).await;
    // That it may be ready for a moment is no fault: nobody knew before that the machine is lost.
    becomes(&world, "Failed", "web-0", &["Current", "InProgress"]).await;
    world.end().await;
}
