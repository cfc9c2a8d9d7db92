//! Code goes out in steps, and a version that fails comes back by itself.

use berth_core::api::{Server, VMDeploymentStatus};
use berth_tests::Archive;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    deployment_status::{runs, status, waits_for},
    world::{World, uid},
};

/// An application that is never healthy.
fn sick_app(world: &World, revision: &str) -> Value {
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    let archive = Archive::new().executable("run", run).file("www/index.html", revision).build().unwrap();
    let artifact = world.berth.artifacts().put(&format!("sick-{revision}.tar"), archive);
    json!({"revision": revision, "artifact": {"url": artifact.url, "sha256": artifact.sha256}})
}

#[tokio::test(flavor = "multi_thread")]
async fn code_goes_out_in_steps_and_a_version_that_fails_is_rolled_back() {
    let world = World::start().await;
    let steps = json!([{"servers": 1}, {"pause": {}}, {"servers": "100%"}]);
    let change = |v: &mut Value| {
        v["spec"]["rollout"] = json!({"steps": steps, "onFailure": "Rollback"});
        v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(2);
    };
    world.deploy(3, change).await;
    world.ready(3).await;
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;

    world.patch(json!({"spec": {"app": sick_app(&world, "v2")}})).await;
    let aborted = status(&world, "v2 is rolled back", waits_for("the roll-out of revision v2 was aborted")).await;
    assert_eq!(aborted.stable_revision.as_deref(), Some("v1"));
    for server in world.ready_when(3, |server| runs(server, "v1")).await {
        world.assert_answers(&server, "v1").await;
    }

    world.patch(json!({"spec": {"app": world.app("v3")}})).await;
    let paused = status(&world, "v3 waits for a person", waits_for("step 2 of 3 is a pause")).await;
    assert_eq!(paused.updated_replicas, 1);
    let servers = world.ready_when(3, |_| true).await;
    assert_eq!(servers.iter().filter(|server| runs(server, "v3")).count(), 1);
    let request = json!({"action": "Promote", "id": "1", "by": "mallory"});
    world.patch(json!({"spec": {"rollout": {"request": request}}})).await;
    world.ready_when(3, |server| runs(server, "v3")).await;
    let is_done =
        |status: &VMDeploymentStatus| status.stable_revision.as_deref() == Some("v3") && status.waiting_for.is_none();
    status(&world, "v3 is stable", is_done).await;
    let stamped = world.deployments().get("web").await.unwrap().spec.rollout.request.unwrap();
    assert!(stamped.at.is_some() && stamped.by.as_deref() != Some("mallory"), "{stamped:?}");
    Box::pin(v3_is_undone(&world)).await;
    world.end().await;
}

/// A person goes back to the version before, although no artifact can be had, and the one that was aborted stays away.
async fn v3_is_undone(world: &World) {
    for revision in ["v1", "v2"] {
        world.berth.artifacts().put(&format!("web-{revision}.tar"), b"gone".to_vec());
    }
    let request = json!({"action": "Undo", "id": "2", "reason": "too slow", "by": "mallory"});
    world.patch(json!({"spec": {"rollout": {"request": request}}})).await;
    let undone = status(world, "v3 is undone", waits_for("revision v3 was undone")).await;
    for server in world.ready_when(3, |server| runs(server, "v1")).await {
        world.assert_answers(&server, "v1").await;
    }
    let fact = undone.rollout.clone().unwrap().undone.unwrap();
    assert!(fact.message.ends_with(": too slow") && !fact.message.contains("mallory"), "{fact:?}");
    assert_eq!(undone.stable_revision.as_deref(), Some("v1"));
    let counts: Vec<_> = undone.revisions.iter().map(|count| (count.revision.as_str(), count.replicas)).collect();
    assert_eq!(counts, [("v1", 3)]);

    let request = json!({"action": "Undo", "toRevision": 77, "id": "3"});
    world.patch(json!({"spec": {"rollout": {"request": request}}})).await;
    let answer = waits_for("nothing came of the request 3 (Undo): there is no revision 77 any more; there are ");
    let answered = status(world, "the refusal", answer).await.waiting_for.unwrap();
    assert!(answered.contains("2 (v2), 3 (v3), 4 (v1)"), "{answered}");
    for server in world.ready(3).await {
        assert!(runs(&server, "v1"));
    }
    all_are_restarted(world).await;
}

/// A person restarts what runs: the machines start the releases that they have, for no artifact can be had.
async fn all_are_restarted(world: &World) {
    let process = |server: &Server| {
        let service = world.berth.machines().of(&uid(server)).root().join("opt/berth/services/web");
        std::fs::read_to_string(service.join("pid")).unwrap()
    };
    let before: Vec<String> = world.ready(3).await.iter().map(process).collect();
    let request = json!({"action": "Restart", "toRevision": null, "id": "4", "reason": "new certificates"});
    world.patch(json!({"spec": {"rollout": {"request": request}}})).await;
    let is_restarted =
        |server: &Server| server.spec.app.as_ref().is_some_and(|app| app.restart.as_deref() == Some("4"));
    let servers = world.ready_when(3, |server| is_restarted(server) && runs(server, "v1")).await;
    for (server, before) in servers.iter().zip(before) {
        assert_ne!(process(server), before, "{}", server.name());
        world.assert_answers(server, "v1").await;
    }
}

/// An application that serves a text of the ConfigMap `conf`.
fn with_text(app: &Value, key: &str) -> Value {
    let mut app = app.clone();
    app["files"] = json!([{"path": "www/index.html", "configMapKeyRef": {"name": "conf", "key": key}}]);
    app
}

async fn write_text(world: &World, data: Value) {
    let api: Api<ConfigMap> = Api::namespaced(world.berth.client(), "default");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": data});
    api.patch("conf", &PatchParams::apply("test"), &Patch::Apply(map)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_map_goes_out_in_steps_and_an_undo_gets_what_it_has_now() {
    let world = World::start().await;
    write_text(&world, json!({"text": "one"})).await;
    let app = with_text(&world.app("v1"), "text");
    world
        .deploy(2, |v| {
            v["spec"]["app"] = app;
            v["spec"]["rollout"] = json!({"steps": [{"servers": 1}, {"pause": {}}]});
        })
        .await;
    for server in world.ready(2).await {
        world.assert_answers(&server, "one").await;
    }
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;

    write_text(&world, json!({"text": "two"})).await;
    let paused = status(&world, "the content waits for a person", waits_for("step 2 of 2 is a pause")).await;
    let has_new =
        |server: &Server| server.spec.app.as_ref().is_some_and(|app| app.content_digest == paused.content_digest);
    let (new, old): (Vec<_>, Vec<_>) = world.ready_when(2, |_| true).await.into_iter().partition(has_new);
    assert_eq!((new.len(), old.len()), (1, 1));
    world.assert_answers(&new[0], "two").await;
    world.assert_answers(&old[0], "one").await;
    let request = json!({"action": "Promote", "id": "1"});
    world.patch(json!({"spec": {"rollout": {"request": request}}})).await;
    for server in world.ready_when(2, has_new).await {
        world.assert_answers(&server, "two").await;
    }

    // A key that is missing is named, and nothing is touched; then the next version goes out.
    status(&world, "the content is stable", |status| status.waiting_for.is_none()).await;
    world.patch(json!({"spec": {"rollout": {"steps": null}, "app": with_text(&world.app("v2"), "more")}})).await;
    let missing = "needs key more of ConfigMap default/conf: the ConfigMap has no such key";
    status(&world, missing, waits_for(missing)).await;
    for server in world.ready_when(2, |server| runs(server, "v1")).await {
        world.assert_answers(&server, "two").await;
    }
    write_text(&world, json!({"text": "three", "more": "more"})).await;
    for server in world.ready_when(2, |server| runs(server, "v2")).await {
        world.assert_answers(&server, "more").await;
    }

    status(&world, "v2 is stable", |status| status.stable_revision.as_deref() == Some("v2")).await;
    world.patch(json!({"spec": {"rollout": {"request": {"action": "Undo", "id": "2"}}}})).await;
    for server in world.ready_when(2, |server| runs(server, "v1")).await {
        world.assert_answers(&server, "three").await;
    }
    world.end().await;
}
